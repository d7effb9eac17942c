//! Rows that were set aside, grouped by reason for the report.

use std::collections::BTreeMap;

use super::super::event::Event;

/// Rows of a reason that are named.
const EXAMPLES: usize = 3;
/// Reasons that are told apart.
const REASONS_MAX: usize = 100;
const OTHER_REASONS: &str = "other reasons";

/// A key as it is shown: pairs of column and text.
type ShownKey = Vec<(String, String)>;

#[derive(Debug, Default)]
struct Group {
    count: u64,
    examples: Vec<ShownKey>,
}

#[derive(Debug)]
pub(super) struct Refusals {
    groups: BTreeMap<String, Group>,
    /// Rows that are named of each reason.
    examples_max: usize,
}

impl Refusals {
    /// `details_max`: how many rows may be named at all.
    pub(super) fn new(details_max: u64) -> Self {
        let examples_max = usize::try_from(details_max).unwrap_or(usize::MAX).min(EXAMPLES);
        Self { groups: BTreeMap::new(), examples_max }
    }

    /// Whether the next row of this reason is to be named.
    pub(super) fn wants_example(&self, reason: &str) -> bool {
        self.groups.get(reason).map_or(0, |group| group.examples.len()) < self.examples_max
    }

    pub(super) fn note(&mut self, reason: &str, rows: u64, example: Option<ShownKey>) {
        let known = self.groups.contains_key(reason) || self.groups.len() < REASONS_MAX;
        let reason = if known { reason } else { OTHER_REASONS };
        let group = self.groups.entry(reason.to_owned()).or_default();
        group.count += rows;
        if group.examples.len() < self.examples_max {
            group.examples.extend(example);
        }
    }

    /// One event for each reason.
    pub(super) fn take(&mut self) -> Vec<Event> {
        let groups = std::mem::take(&mut self.groups).into_iter();
        groups
            .map(|(reason, Group { count, examples })| Event::SetAside { reason, count, examples })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_grouped_with_a_few_examples_and_never_too_many() {
        let key = |n: u64| vec![("id".to_owned(), n.to_string())];
        for (limit, named) in [(0, 0), (2, 2), (u64::MAX, EXAMPLES)] {
            let mut refusals = Refusals::new(limit);
            for n in 0..1_000 {
                let example = refusals.wants_example("r").then(|| key(n));
                refusals.note("r", 1, example);
            }
            refusals.note("r", 50, None);
            let mut taken = refusals.take();
            let (Some(Event::SetAside { reason, count, examples }), None) = (taken.pop(), taken.pop()) else {
                panic!("one reason");
            };
            assert_eq!((reason.as_str(), count, examples.len()), ("r", 1_050, named));
        }
        let mut refusals = Refusals::new(3);
        (0..1_000).for_each(|n| refusals.note(&format!("r{n}"), 1, None));
        let groups = refusals.take();
        assert_eq!(groups.len(), REASONS_MAX + 1);
        let all: u64 =
            groups.iter().map(|e| if let Event::SetAside { count, .. } = e { *count } else { 0 }).sum();
        assert_eq!(all, 1_000);
    }
}
