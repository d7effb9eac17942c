//! What was described of tables, for statements that are written without asking the database.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use super::live::{LiveColumn, Relation};
use crate::model::{ColumnType, TableName, TableSchema};

/// What a statement must know of its table beside the plan.
#[derive(Debug, Clone, Default)]
pub(super) struct Shape {
    /// Other tables inherit from it, whose rows are none of its own.
    pub only: bool,
    /// Text columns whose equality holds values equal that differ in bytes.
    pub folding: HashSet<String>,
    /// Columns whose type is a domain.
    pub domains: HashMap<String, LiveColumn>,
}

#[derive(Debug, Default)]
pub(super) struct Known(Mutex<HashMap<TableName, Shape>>);

impl Known {
    pub(super) fn remember(&self, schema: &TableSchema, relation: &Relation, live: Vec<LiveColumn>) {
        let folds = schema.columns.iter().filter(|column| {
            column.collation_folds && matches!(column.ty, ColumnType::Text { padded: false })
        });
        let folding = folds.map(|column| column.name.clone()).collect();
        let domains = live.into_iter().filter(|column| column.domain);
        let domains = domains.map(|column| (column.name.clone(), column)).collect();
        let shape = Shape { only: relation.is_parent(), folding, domains };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(schema.table.clone(), shape);
    }

    pub(super) fn of(&self, table: &TableName) -> Shape {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(table).cloned().unwrap_or_default()
    }
}
