//! One side of a plan: what an engine needs to read rows in canonical form and to write them.

use super::comparison::ComparisonType;
use super::schema::{ColumnType, Filled, TableName};

/// One column as one side reads and writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessColumn {
    pub name: String,
    pub ty: ColumnType,
    pub declared: String,
    pub comparison: ComparisonType,
    /// Read it as the text the engine writes (a cast in the query).
    pub as_text: bool,
    pub filled: Filled,
}

/// One side of a plan: everything an engine needs to read rows in canonical form and to write them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableAccess {
    pub table: TableName,
    /// Key columns first, `key_len` of them.
    pub columns: Vec<AccessColumn>,
    pub key_len: usize,
    /// The user's own condition, in this side's SQL.
    pub filter: Option<String>,
}

impl TableAccess {
    pub fn key_columns(&self) -> &[AccessColumn] {
        &self.columns[..self.key_len]
    }

    /// The columns behind the key, in the order of a row's cells.
    pub fn row_columns(&self) -> &[AccessColumn] {
        &self.columns[self.key_len..]
    }

    pub fn key_types(&self) -> Vec<ComparisonType> {
        self.key_columns().iter().map(|column| column.comparison.clone()).collect()
    }

    pub fn row_types(&self) -> Vec<ComparisonType> {
        self.row_columns().iter().map(|column| column.comparison.clone()).collect()
    }
}
