//! What the user asked for about a table: its key, columns, and rows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::coverage::Unpaired;
use super::measure::Range;

/// What the user asked for about columns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wishes {
    /// Columns of the unique key to use instead of the primary key, by source name.
    pub key: Vec<String>,
    /// Compare only these (and the key), by source name; empty means all that both sides have.
    pub columns: Vec<String>,
    /// By source name, or by target name where only the target has it.
    pub exclude: Vec<String>,
    /// Source name to target name.
    pub map: BTreeMap<String, String>,
    /// Compare these as the text each engine writes, by source name.
    pub as_text: Vec<String>,
    pub assume_utc: bool,
    /// What columns mean that only one side has.
    #[serde(default)]
    pub unpaired: Unpaired,
    pub source_where: Option<String>,
    pub target_where: Option<String>,
    /// Beside the condition, only rows of these ranges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges: Option<Ranges>,
}

/// One range of a column, as each side names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranges {
    pub source: Range,
    pub target: Range,
}
