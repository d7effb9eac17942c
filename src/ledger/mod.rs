//! The ledger: what was run, what came of it, and a chained trail of every row that was touched. No row values.
//!
//! Invariants:
//! - One interface, two stores: an SQLite file for one person or machine, PostgreSQL where several share it.
//! - Every write is one transaction: a run's rows and its entry in the trail are there together, or not at all.
//! - The trail is only added to. What retention takes from its front is bridged by a checkpoint entry.
//! - Time and identity are arguments: no clock, no environment and no randomness here.

use std::path::Path;
use std::sync::Arc;

pub mod chain;
mod checks;
mod evidence;
mod incidents;
mod last;
mod leases;
mod outbox;
mod postgres;
mod retention;
mod rows;
mod runs;
mod schema;
mod sqlite;
mod store;
mod trail;

pub use chain::{Entry, EntryKind, Fault, Head, Link, Verification, Verifier};
pub use checks::{CheckFilter, CheckRecord};
pub use evidence::{backfill_record, batch_entries, intent_entry, table_record};
pub use incidents::{Incident, IncidentState, Notice};
pub use leases::{Lease, ScheduleRow};
pub use outbox::OutboxRow;
pub use retention::{Keep, Removed};
pub use runs::{RunEnd, RunFilter, RunStart};
pub use trail::EntryFilter;

use store::Store;

/// Why the ledger could not be read or written, and what to do. Never a row value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct LedgerError {
    pub what: String,
    pub hint: String,
}

impl LedgerError {
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }
}

/// An open ledger.
#[derive(Debug, Clone)]
pub struct Ledger {
    store: Arc<dyn Store>,
}

impl Ledger {
    /// Opens the file and brings it to this version. With `create`, it is made where it is missing, readable by its
    /// owner alone.
    pub async fn open_file(path: &Path, create: bool) -> Result<Self, LedgerError> {
        let store = sqlite::SqliteStore::open(path, create).await?;
        Self::migrated(Arc::new(store)).await
    }

    /// Opens the ledger in a PostgreSQL database, making its tables (`trueup_…`) where they are missing.
    pub async fn open_postgres(url: &str) -> Result<Self, LedgerError> {
        let store = postgres::PostgresStore::connect(url).await?;
        Self::migrated(Arc::new(store)).await
    }

    async fn migrated(store: Arc<dyn Store>) -> Result<Self, LedgerError> {
        schema::migrate(store.as_ref()).await?;
        Ok(Self { store })
    }
}

#[cfg(test)]
mod operate_tests;
#[cfg(test)]
mod tests;
