//! Which rows of a batch leave references without a row, where that is found out at the transaction's end.

use std::collections::HashSet;

use rusqlite::{Connection, Error};

use crate::model::Operation;

/// A row that was written.
pub(super) struct Written {
    /// Its place among the changes.
    pub(super) at: usize,
    pub(super) operation: Operation,
    pub(super) rowid: Option<i64>,
}

/// The rows to take the blame: those that refer to nothing; where none does, the deletes, which others may refer to; where
/// there are none either, all.
pub(super) fn blamed(connection: &Connection, table: &str, written: &[Written]) -> Result<Vec<usize>, Error> {
    let mut check = connection.prepare("SELECT rowid FROM pragma_foreign_key_check(?1)")?;
    let broken = check.query_map([table], |row| row.get::<_, Option<i64>>(0))?;
    let own: HashSet<i64> = broken.filter_map(Result::transpose).collect::<Result<_, Error>>()?;
    let some = |wanted: &dyn Fn(&Written) -> bool| -> Vec<usize> {
        written.iter().filter(|row| wanted(row)).map(|row| row.at).collect()
    };
    let refers = |row: &Written| {
        row.operation != Operation::Delete && row.rowid.is_some_and(|rowid| own.contains(&rowid))
    };
    let deletes = |row: &Written| row.operation == Operation::Delete;
    for blamed in [some(&refers), some(&deletes)] {
        if !blamed.is_empty() {
            return Ok(blamed);
        }
    }
    Ok(some(&|_| true))
}
