//! A row that differs, for a person.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// Only on the source.
    Missing,
    /// On both with other values.
    Changed,
    /// Only on the target.
    Extra,
}

/// A confirmed difference, for a person: the key, and names of columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    pub kind: DifferenceKind,
    /// Key columns by source name, as text.
    pub key: Vec<(String, String)>,
    /// For changed rows: the columns that differ, by source name; with values where they were asked for.
    pub columns: Vec<DifferingColumn>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DifferingColumn {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub values: Option<ValuePair>,
}

/// `None` is NULL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValuePair {
    pub source: Option<String>,
    pub target: Option<String>,
}
