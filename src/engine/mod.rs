//! One database each, behind one trait: describe, scan under a snapshot, fetch by key, apply changes.
//!
//! Invariants:
//! - Only this floor speaks a user table's SQL. Identifiers are quoted, values are bound (or sent as COPY data).
//! - Comparing needs SELECT only and creates nothing in the user's database.
//! - Engines produce canonical bytes; nothing above them sees an engine's own form of a value.
//! - No row value appears in an error.
//! - What is written was permitted: the three calls that write take nothing else.

use std::sync::Arc;

use async_trait::async_trait;

pub mod condition;
pub mod error;
mod inflow;
pub mod measure;
pub mod mysql;
mod open;
pub mod origin;
mod places;
pub mod postgres;
mod read_back;
mod shares;
pub mod sqlite;
mod volatile;

pub use error::{EngineError, ErrorKind};
pub use open::{open, open_with};
pub use origin::Origin;

use crate::model::{
    Allow, Answer, CanonicalRow, Change, ChangeOutcome, EngineKind, Key, KeyedRow, NullKey, PermittedChanges,
    PermittedExchange, PermittedInserts, Question, RowRun, ServerInfo, TableAccess, TableName, TableSchema,
};

/// Keys looked up with one query, where a run of rows is not read as a range.
const KEYS_PER_QUERY: usize = 500;

/// A write waits so long for a lock of another session, where nothing else is said.
const LOCK_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
const LOCK_WAIT_SHORT: std::time::Duration = std::time::Duration::from_millis(100);

/// How a database is to be treated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Manners {
    /// The server ends a statement that takes longer. SQLite has no such thing.
    pub statement_timeout: Option<std::time::Duration>,
    /// A connection that sends nothing for so long, while rows are awaited, is taken for dead; `None`: ten minutes.
    pub idle_limit: Option<std::time::Duration>,
    /// A write waits so long for a lock of another session; `None`: five seconds.
    pub lock_timeout: Option<std::time::Duration>,
}

/// How long a write waits for locks of other sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockWait {
    /// As the database is to be treated.
    Full,
    /// Hardly: it is known that there are such locks.
    Short,
}

impl Manners {
    fn lock_wait(&self, wait: LockWait) -> std::time::Duration {
        let most = self.lock_timeout.unwrap_or(LOCK_TIMEOUT);
        match wait {
            LockWait::Full => most,
            LockWait::Short => most.min(LOCK_WAIT_SHORT),
        }
    }

    /// How long rows are awaited: no shorter than a statement may take.
    fn silence(&self) -> std::time::Duration {
        let limit = self.idle_limit.unwrap_or(inflow::IDLE_LIMIT);
        self.statement_timeout.map_or(limit, |most| limit.max(most + std::time::Duration::from_secs(5)))
    }
}

/// How hard a server is pressed at this moment, as far as it can tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    /// How far the slowest standby of this server is behind, or this server if it is a standby; `None`: nothing follows.
    pub lag: Option<std::time::Duration>,
    /// Statements that run now, this program's own left out.
    pub running: Option<u64>,
}

/// A database, reached with one URL.
#[async_trait]
pub trait Engine: Send + Sync + std::fmt::Debug {
    fn kind(&self) -> EngineKind;

    async fn server(&self) -> Result<ServerInfo, EngineError>;

    /// The base tables (not views, not system tables) of the schema named, or of the default one.
    async fn tables(&self, schema: Option<&str>) -> Result<Vec<TableName>, EngineError>;

    /// What holds or shows rows in that schema and is not among `tables`: kind and name, as "view v". A comparison of all
    /// tables is not one of these.
    async fn left_out(&self, schema: Option<&str>) -> Result<Vec<String>, EngineError>;

    /// Everything known about a table or view. A name without schema is looked up as the engine would.
    /// `ErrorKind::NoSuchTable` where there is none, with the nearest names in the hint.
    async fn describe(&self, table: &TableName) -> Result<TableSchema, EngineError>;

    /// What tells this table from a copy of it, and from one of its name that is made later.
    async fn origin(&self, table: &TableName) -> Result<Origin, EngineError>;

    /// Pins one consistent state of the table and prepares `parallelism` readers of it.
    async fn snapshot(
        &self,
        access: Arc<TableAccess>,
        parallelism: usize,
    ) -> Result<Box<dyn Snapshot>, EngineError>;

    /// Looks these keys up, and says of which of them it shows nothing. A row whose key is equal only by the database's
    /// collation is not found: keys are compared by bytes.
    async fn lookup(&self, access: &Arc<TableAccess>, keys: &[Key]) -> Result<Lookup, EngineError>;

    /// The rows that a lookup of these keys finds.
    async fn fetch(&self, access: &Arc<TableAccess>, keys: &[Key]) -> Result<Vec<KeyedRow>, EngineError> {
        Ok(self.lookup(access, keys).await?.rows)
    }

    /// As `fetch`, for keys in their order that were all a snapshot had between the first and the last of them: an engine
    /// may read the range instead of looking up each key.
    async fn fetch_run(&self, access: &Arc<TableAccess>, keys: &[Key]) -> Result<RowRun, EngineError> {
        let mut run = RowRun::default();
        for keys in keys.chunks(KEYS_PER_QUERY) {
            let rows = self.fetch(access, keys).await?;
            rows.iter().for_each(|row| run.push(row.key.as_bytes(), row.row.as_bytes()));
        }
        Ok(run)
    }

    /// As `apply`, of changes that insert each of these rows: an engine may have a quicker way for many.
    async fn insert(
        &self,
        access: &Arc<TableAccess>,
        rows: &PermittedInserts,
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        self.apply(access, &rows.changes()).await
    }

    /// Applies the changes in one transaction, each only if its row still holds `before`; outcomes in the order of
    /// the changes. A row that holds `after` already is `Already`, so that the same changes can be applied again. A row that
    /// the database refuses is set aside (`Failed`) and the rest is written; an error means that nothing was written, and
    /// `ErrorKind::Locked` that another session held a lock for longer than `wait`.
    async fn apply_within(
        &self,
        access: &Arc<TableAccess>,
        changes: &PermittedChanges,
        wait: LockWait,
    ) -> Result<Vec<ChangeOutcome>, EngineError>;

    async fn apply(
        &self,
        access: &Arc<TableAccess>,
        changes: &PermittedChanges,
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        self.apply_within(access, changes, LockWait::Full).await
    }

    /// Deletes and inserts all these rows in one transaction, for updates that exchange the values of a secondary
    /// unique key and so cannot be made one after the other. All or nothing; conditional as `apply`.
    async fn replace(
        &self,
        access: &Arc<TableAccess>,
        changes: &PermittedExchange,
    ) -> Result<Vec<ChangeOutcome>, EngineError>;

    /// The change as one SQL statement for a person to read and run, ending in `;`. It finds its row by the key, and by what
    /// was compared of the cells that it changes, where SQL has an exact equality for them.
    async fn statement(&self, access: &TableAccess, change: &Change) -> Result<String, EngineError>;

    /// Answers with a few numbers, in one query that writes nothing. A wrong condition or query of the user's is
    /// `ErrorKind::Filter`.
    async fn measure(&self, question: &Question) -> Result<Answer, EngineError>;

    /// Asks only for what is wanted. What this login may not see is an error with what to grant, and never calm.
    async fn pressure(&self, lag: bool, running: bool) -> Result<Pressure, EngineError>;

    /// Fails, with what to grant, where the table cannot be written by this login. Writes nothing.
    async fn check_writable(&self, access: &TableAccess, allow: Allow) -> Result<(), EngineError>;
}

/// What a lookup by key shows of the keys it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lookup {
    /// The rows as they are now, in any order. A row beyond the filter is not among them.
    pub rows: Vec<KeyedRow>,
    /// Keys without a row here that may have one nevertheless, because this lookup need not have found it: the key cannot
    /// be bound, or its column may hold the same meaning in another spelling, or the statement found none of its keys.
    /// Every other key without a row is shown to be absent.
    pub unproven: Vec<Key>,
}

impl Lookup {
    /// `exact`: whether the lookup would have found a row of this key, however it is stored.
    ///
    /// No absence is believed of a statement that found no row at all: a server that prunes the wrong partitions, or
    /// reads a damaged index, answers with nothing too. So this takes the keys and the rows of one statement.
    pub fn of_statement(keys: &[Key], rows: Vec<KeyedRow>, exact: impl Fn(&Key) -> bool) -> Self {
        let found: std::collections::HashSet<&[u8]> = rows.iter().map(|row| row.key.as_bytes()).collect();
        let missed = keys.iter().filter(|key| !found.contains(key.as_bytes()));
        let unproven = missed.filter(|key| rows.is_empty() || !exact(key)).cloned().collect();
        Self { rows, unproven }
    }

    /// The same of a lookup that was made of several statements.
    pub fn extend(&mut self, other: Self) {
        self.rows.extend(other.rows);
        self.unproven.extend(other.unproven);
    }
}

/// One consistent state of one table, read once.
#[async_trait]
pub trait Snapshot: Send {
    /// Reads every row in the order that is fastest. Each reader gives its rows to a sink of its own, while they are in the
    /// processor's cache, and to a new one where it goes on at another place of the table. Returns when all is read; the
    /// snapshot is released then. Where nobody takes rows any more the scan ends quietly.
    async fn scan(self: Box<Self>, sinks: Arc<dyn RowSinks>) -> Result<(), EngineError>;
}

/// Takes the rows of one reader, on its thread.
pub trait RowSink: Send {
    /// A row as its canonical key and its canonical cells. `false`: nobody wants the rest. Blocks where rows come too fast.
    fn push(&mut self, key: &[u8], row: &[u8]) -> bool;

    /// Every row was read.
    fn finish(&mut self);
}

/// Makes a sink for each reader, and for each place where one goes on.
pub trait RowSinks: Send + Sync {
    fn sink(&self) -> Box<dyn RowSink>;

    /// Nobody takes rows any more.
    fn is_closed(&self) -> bool;
}

/// Takes a row as its canonical key and its canonical cells.
pub type EachRow<'a> = &'a mut dyn FnMut(&[u8], &[u8]);

/// Rows as they came from the database, to be encoded on another thread.
pub trait RawBatch: Send {
    fn rows(&self) -> usize;

    /// Calls `each` with the canonical key and row of every row.
    fn encode(&self, each: EachRow<'_>) -> Result<(), RowError>;
}

/// A row that has no canonical form. Names the column, never the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    #[error("key column {0} holds NULL")]
    NullKey(String),
    #[error("column {column}: {what}")]
    Malformed { column: String, what: String },
}

impl RowError {
    /// Names the column where the writer only knows that a key held NULL.
    pub fn null_key(column: &str) -> impl Fn(NullKey) -> Self + '_ {
        move |_| Self::NullKey(column.to_owned())
    }
}

/// Collects what `RawBatch::encode` yields as owned rows (fetches are small).
pub fn keyed_rows(batch: &dyn RawBatch) -> Result<Vec<KeyedRow>, RowError> {
    let mut rows = Vec::with_capacity(batch.rows());
    batch.encode(&mut |key, row| {
        rows.push(KeyedRow { key: Key::from(key), row: CanonicalRow::new(row) });
    })?;
    Ok(rows)
}
