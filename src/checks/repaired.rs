//! What the repairs of checks wrote, and which tables that may have changed.

use super::plan::Planned;
use crate::coordinator::{Wrote, may_change};
use crate::model::TableSchema;

/// A repair of a check, in the order in which they were done.
#[derive(Debug)]
pub(super) struct Repaired {
    /// The target's table; `None` where it could not be described.
    pub(super) table: Option<TableSchema>,
    pub(super) name: String,
    pub(super) wrote: Wrote,
}

impl Repaired {
    pub(super) fn may_change(&self, table: &Planned) -> bool {
        let (Some(by), Some(of)) = (&self.table, &table.target_schema) else { return true };
        by.table == of.table || may_change(by, self.wrote, of)
    }
}
