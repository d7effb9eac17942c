//! A change to one row, conditional on what was compared.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::key::Key;

/// The canonical cells of a row behind its key. `Debug` shows the length only.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CanonicalRow(Box<[u8]>);

impl CanonicalRow {
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(bytes.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for CanonicalRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CanonicalRow({} bytes)", self.0.len())
    }
}

/// A row as read by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedRow {
    pub key: Key,
    pub row: CanonicalRow,
}

/// Makes the row of `key` hold `after`, if it still holds `before`. `None` is no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub key: Key,
    pub before: Option<CanonicalRow>,
    pub after: Option<CanonicalRow>,
}

impl Change {
    pub fn operation(&self) -> Operation {
        match (&self.before, &self.after) {
            (None, _) => Operation::Insert,
            (Some(_), Some(_)) => Operation::Update,
            (Some(_), None) => Operation::Delete,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    Insert,
    Update,
    Delete,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeOutcome {
    Written,
    /// The row held `after` already; nothing was written. An attempt before this one, or somebody else, wrote it.
    Already,
    /// The row no longer held what was compared; nothing was written.
    Stale,
    /// The database refused this row; nothing was written.
    Failed(Rejection),
}

/// Why a database refused a row: the kind, and a text without values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub kind: RejectionKind,
    /// Names of constraints and columns, never values.
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectionKind {
    /// A secondary unique key holds the value already.
    Unique,
    ForeignKey,
    NotNull,
    Check,
    /// The value does not fit the column.
    Value,
    /// Another session holds a lock on the row.
    Locked,
    /// A trigger or a rule of the database refused.
    Other,
}
