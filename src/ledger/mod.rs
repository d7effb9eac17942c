//! The ledger: what was run, what came of it, and a chained trail of every row that was touched. No row values.
//!
//! Invariants:
//! - One interface, two stores: an SQLite file for one person or machine, PostgreSQL where several share it.
//! - Every write is one transaction: a run's rows and its entry in the trail are there together, or not at all.
//! - The trail is only added to. What retention takes from its front is bridged by a checkpoint entry.
//! - Time and identity are arguments: no clock, no environment and no randomness here.
//! - Every call ends: waiting for its turn, connecting and the transaction have one time limit together.
//! - A file is opened once in a process, by SQLite alone (`file.rs`).

use std::path::Path;
use std::sync::Arc;

mod abandoned;
pub mod chain;
mod checks;
mod evidence;
#[cfg(debug_assertions)]
pub mod fail_point;
mod file;
mod incidents;
mod json;
mod last;
mod leases;
mod outbox;
mod postgres;
mod retention;
mod rows;
mod run_query;
mod runs;
mod schema;
mod sqlite;
mod store;
mod tables;
mod trail;

pub use abandoned::OpenRun;
pub use chain::{Entry, EntryKind, Fault, Head, Link, Verification, Verifier};
pub use checks::{CheckFilter, CheckRecord};
pub use evidence::{backfill_record, batch_entries, intent_entry, table_record};
pub use incidents::{Finding, Incident, IncidentState, Notice};
pub use leases::{Lease, LeaseEnd, ScheduleRow};
pub use outbox::{BatchClaim, OutboxRow};
pub use retention::{Keep, Removed};
pub use run_query::RunFilter;
pub use runs::{RunEnd, RunStart};
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

    /// The ledger as it is at this moment, to be read only: what is changed later is not seen.
    async fn at_this_moment(&self) -> Result<Self, LedgerError> {
        Ok(Self { store: self.store.snapshot().await? })
    }

    async fn migrated(store: Arc<dyn Store>) -> Result<Self, LedgerError> {
        schema::migrate(store.as_ref()).await?;
        Ok(Self { store })
    }
}

#[cfg(test)]
pub(crate) mod crash_tests;
#[cfg(test)]
mod operate_tests;
#[cfg(test)]
mod tests;
