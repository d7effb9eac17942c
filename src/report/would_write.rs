//! What a repair would have written, of a run that only tells it.

use serde::{Deserialize, Serialize};

use super::render::grouped;
use crate::agent::TableOutcome;
use crate::model::{Operation, Permission};

/// Rows that a repair with the same options would write, and what would stop it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WouldWrite {
    pub insert: u64,
    pub update: u64,
    pub delete: u64,
    /// Rows that would stay as they are, by reason.
    pub stay: Vec<(String, u64)>,
    /// More rows differ than may change: nothing would be written.
    pub over_limit: bool,
}

impl WouldWrite {
    pub fn of(outcome: &TableOutcome, permission: &Permission) -> Self {
        let mut all = Self { over_limit: outcome.over_limit, ..Self::default() };
        for (operation, rows) in [
            (Operation::Insert, outcome.missing),
            (Operation::Update, outcome.changed),
            (Operation::Delete, outcome.extra),
        ] {
            match permission.refuses(operation) {
                _ if rows == 0 => {}
                Some(refusal) => all.stay.push((refusal.to_string(), rows)),
                None => match operation {
                    Operation::Insert => all.insert = rows,
                    Operation::Update => all.update = rows,
                    Operation::Delete => all.delete = rows,
                },
            }
        }
        all
    }

    /// Lines for a person; none where there is nothing to write.
    pub(super) fn lines(&self) -> Vec<String> {
        let kinds = [(self.insert, "insert"), (self.update, "update"), (self.delete, "delete")];
        let kinds: Vec<String> = kinds
            .iter()
            .filter(|(rows, _)| *rows > 0)
            .map(|(rows, what)| format!("{what} {}", grouped(*rows)))
            .collect();
        let mut lines = Vec::new();
        if self.over_limit {
            lines.push(format!(
                "a repair would write nothing: it would {}, more than --max-changes allows",
                kinds.join(", ")
            ));
        } else if !kinds.is_empty() {
            lines.push(format!("a repair would {}", kinds.join(", ")));
        }
        for (reason, rows) in &self.stay {
            lines.push(format!("{} would stay as they are: {reason}", grouped(*rows)));
        }
        lines
    }
}
