//! What a trail is told of a batch: its rows before it is written, what became of each after.

use serde::{Deserialize, Serialize};

use crate::model::Operation;

/// A row about to be written, for an audit trail. Digests are keyed; `None` is no row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowIntent {
    /// Keyed hash, or the key as text where that was asked for.
    pub key: String,
    pub operation: Operation,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// Hex digits of a keyed hash in the trail.
pub const HASH_DIGITS: usize = 32;

/// The rows of a batch that is about to be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intents {
    Each(Vec<RowIntent>),
    /// Inserts alone, told by hashes alone: those of the keys one behind the other, and those of the rows likewise.
    Inserts {
        keys: String,
        after: String,
    },
}

impl Intents {
    pub fn len(&self) -> usize {
        match self {
            Self::Each(rows) => rows.len(),
            Self::Inserts { keys, .. } => hashes(keys).count(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One by one.
    pub fn into_rows(self) -> Vec<RowIntent> {
        match self {
            Self::Each(rows) => rows,
            Self::Inserts { keys, after } => hashes(&keys)
                .zip(hashes(&after))
                .map(|(key, after)| RowIntent {
                    key: key.to_owned(),
                    operation: Operation::Insert,
                    before: None,
                    after: Some(after.to_owned()),
                })
                .collect(),
        }
    }
}

/// The hashes of a text of them.
pub fn hashes(text: &str) -> impl Iterator<Item = &str> {
    let count = text.len() / HASH_DIGITS;
    (0..count).map_while(move |at| text.get(at * HASH_DIGITS..(at + 1) * HASH_DIGITS))
}

/// What became of a row that was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowOutcome {
    Written,
    /// It had changed since it was compared; nothing was written.
    Stale,
    /// The database refused it; nothing was written.
    Refused,
    /// The database could not be asked: written or not.
    Unknown,
}

impl RowOutcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Stale => "stale",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}
