//! Rows that a run has written so far, counted as its batches end: known also where the run does not end by itself.

use std::collections::BTreeMap;

use crate::agent::{Event, Intents, RowOutcome};
use crate::model::Operation;

/// Known only where a trail was asked for: no other event names a batch.
#[derive(Debug, Clone, Default)]
pub struct Written {
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
    /// Rows of batches that ended without an answer for them.
    lost: u64,
    /// Batches that were announced and have not ended, by table and number.
    under_way: BTreeMap<(usize, u64), Batch>,
}

#[derive(Debug, Clone)]
enum Batch {
    Each(Vec<Operation>),
    Inserts(usize),
}

impl Batch {
    fn len(&self) -> u64 {
        match self {
            Self::Each(operations) => operations.len() as u64,
            Self::Inserts(rows) => *rows as u64,
        }
    }

    fn operation(&self, at: usize) -> Operation {
        match self {
            Self::Each(operations) => operations.get(at).copied().unwrap_or(Operation::Insert),
            Self::Inserts(_) => Operation::Insert,
        }
    }
}

impl Written {
    pub fn note(&mut self, table: usize, event: &Event) {
        match event {
            Event::Intended { batch, rows, .. } => {
                let rows = match rows {
                    Intents::Each(rows) => Batch::Each(rows.iter().map(|row| row.operation).collect()),
                    inserts @ Intents::Inserts { .. } => Batch::Inserts(inserts.len()),
                };
                // Another round has begun, and nobody answered for this batch of the one before.
                self.lost += self.under_way.insert((table, *batch), rows).map_or(0, |batch| batch.len());
            }
            Event::Applied { batch, outcomes } => {
                let Some(batch) = self.under_way.remove(&(table, *batch)) else { return };
                self.lost += batch.len().saturating_sub(outcomes.len() as u64);
                for (at, outcome) in outcomes.iter().enumerate() {
                    match (outcome, batch.operation(at)) {
                        (RowOutcome::Written, Operation::Insert) => self.inserted += 1,
                        (RowOutcome::Written, Operation::Update) => self.updated += 1,
                        (RowOutcome::Written, Operation::Delete) => self.deleted += 1,
                        (RowOutcome::Unknown, _) => self.lost += 1,
                        (RowOutcome::Stale | RowOutcome::Refused, _) => {}
                    }
                }
            }
            _ => {}
        }
    }

    pub fn rows(&self) -> u64 {
        self.inserted + self.updated + self.deleted
    }

    /// Rows of which nobody knows whether they were written.
    pub fn unknown(&self) -> u64 {
        self.lost + self.under_way.values().map(Batch::len).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{Acknowledge, RowIntent};

    fn intended(batch: u64, operations: &[Operation]) -> Event {
        let row = |operation: &Operation| RowIntent {
            key: String::new(),
            operation: *operation,
            before: None,
            after: None,
        };
        Event::Intended {
            table: "t".to_owned(),
            batch,
            rows: Intents::Each(operations.iter().map(row).collect()),
            acknowledge: Acknowledge::default(),
        }
    }

    #[test]
    fn rows_count_when_their_batch_has_ended() {
        use Operation::{Delete, Insert, Update};
        let mut written = Written::default();
        written.note(0, &intended(1, &[Insert, Update, Delete, Update, Insert]));
        assert_eq!((written.rows(), written.unknown()), (0, 5));
        let outcomes = [RowOutcome::Written, RowOutcome::Written, RowOutcome::Stale, RowOutcome::Refused];
        written.note(1, &Event::Applied { batch: 1, outcomes: outcomes.to_vec() });
        assert_eq!(written.unknown(), 5, "another table's batch");
        written.note(0, &Event::Applied { batch: 1, outcomes: outcomes.to_vec() });
        assert_eq!((written.inserted, written.updated, written.deleted, written.unknown()), (1, 1, 0, 1));
        // A batch that was never answered is not forgotten when its number comes again.
        written.note(0, &intended(2, &[Delete, Delete]));
        let inserts = Intents::Inserts { keys: "0".repeat(64), after: "0".repeat(64) };
        written.note(
            0,
            &Event::Intended {
                table: "t".to_owned(),
                batch: 2,
                rows: inserts,
                acknowledge: Acknowledge::default(),
            },
        );
        written
            .note(0, &Event::Applied { batch: 2, outcomes: vec![RowOutcome::Written, RowOutcome::Unknown] });
        assert_eq!((written.inserted, written.rows(), written.unknown()), (2, 3, 4));
    }
}
