//! Rows that could not be written, by reason.

use serde::{Deserialize, Serialize};

use super::render::grouped;
use crate::agent::plain_key;

/// Reasons that are told apart.
const REASONS_MAX: usize = 100;
const OTHER_REASONS: &str = "other reasons";
/// Rows of a reason that are named.
const EXAMPLES: usize = 3;

/// Rows that could not be written for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    pub reason: String,
    pub count: u64,
    /// Keys of some of them: pairs of column and text.
    pub examples: Vec<Vec<(String, String)>>,
}

impl SetAside {
    /// Adds rows to those of their reason.
    pub fn add(groups: &mut Vec<Self>, more: Self) {
        let known = groups.len() < REASONS_MAX || groups.iter().any(|group| group.reason == more.reason);
        let reason = if known { more.reason } else { OTHER_REASONS.to_owned() };
        let at = groups.iter().position(|group| group.reason == reason).unwrap_or_else(|| {
            groups.push(Self { reason, count: 0, examples: Vec::new() });
            groups.len() - 1
        });
        if let Some(group) = groups.get_mut(at) {
            group.count += more.count;
            let room = EXAMPLES.saturating_sub(group.examples.len());
            group.examples.extend(more.examples.into_iter().take(room));
        }
    }

    /// `16,044 set aside: REASON, as id=1, id=2, id=3`; what became of the rows is said in `what`.
    pub(super) fn text(&self, what: &str) -> String {
        let examples: Vec<String> = self.examples.iter().map(|key| plain_key(key)).collect();
        let named = if examples.is_empty() { String::new() } else { format!(", as {}", examples.join(", ")) };
        format!("{} {what}: {}{named}", grouped(self.count), self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_grouped_by_their_reason() {
        let mut groups = Vec::new();
        let one = |reason: &str, id: u64| SetAside {
            reason: reason.to_owned(),
            count: 1,
            examples: vec![vec![("id".to_owned(), id.to_string())]],
        };
        (0..16_044).for_each(|id| SetAside::add(&mut groups, one("fk", id)));
        SetAside::add(&mut groups, SetAside { count: 7, examples: Vec::new(), ..one("check", 0) });
        let said: Vec<String> = groups.iter().map(|group| group.text("set aside")).collect();
        assert_eq!(said, ["16,044 set aside: fk, as id=0, id=1, id=2", "7 set aside: check"]);
        (0..500).for_each(|n| SetAside::add(&mut groups, one(&format!("r{n}"), n)));
        assert_eq!(groups.len(), REASONS_MAX + 1);
        assert_eq!(groups.iter().map(|group| group.count).sum::<u64>(), 16_044 + 7 + 500);
    }
}
