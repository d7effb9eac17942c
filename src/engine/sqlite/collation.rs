//! Tables that lie in the order of a collation that only their application has: SQLite reads them only if it knows one of this name.
//!
//! Reading such a table from the first row to the last compares nothing. So a collation of this name is given to a connection that
//! cannot write, and it decides nothing: once it is asked, the read has failed. It is never given to one that writes, where an
//! index would be kept in another order than the application's.

use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering as Memory};

use rusqlite::{Connection, Error};

use crate::engine::{EngineError, ErrorKind};

/// Whether a comparison was asked of the collation.
#[derive(Clone, Default)]
pub(super) struct Asked {
    name: String,
    asked: Arc<AtomicBool>,
}

impl Asked {
    /// For a connection that reads only, and all of the table.
    pub(super) fn given_to(connection: &Connection, collation: &str) -> Result<Self, Error> {
        let given = Self { name: collation.to_owned(), asked: Arc::default() };
        let asked = given.asked.clone();
        connection.create_collation(collation, move |a: &str, b: &str| -> Ordering {
            asked.store(true, Memory::Relaxed);
            a.cmp(b)
        })?;
        Ok(given)
    }

    pub(super) fn check(&self, during: &str) -> Result<(), EngineError> {
        if self.asked.load(Memory::Relaxed) {
            return Err(EngineError::new(ErrorKind::Filter, during, unknown(&self.name)).with_hint(
                "the SQL condition for this side compares by it: write COLLATE BINARY behind the column",
            ));
        }
        Ok(())
    }
}

/// What is said of a collation that this SQLite does not know.
pub(super) fn unknown(collation: &str) -> String {
    format!("collation {collation} is known to the application of this file only")
}
