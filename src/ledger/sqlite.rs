//! The ledger in an SQLite file: one connection, written through to disk with every transaction.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, TransactionBehavior, params_from_iter};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::LedgerError;
use super::file::{LedgerFile, failed};
use super::store::{Cell, Expects, Given, Row, Step, Store, StoreError, patience};

#[derive(Debug)]
pub(super) struct SqliteStore {
    file: Arc<LedgerFile>,
}

impl SqliteStore {
    pub(super) async fn open(path: &Path, create: bool) -> Result<Self, LedgerError> {
        let owned = path.to_owned();
        let file = blocking(path, patience(&[]), move || LedgerFile::open(&owned, create)).await?;
        Ok(Self { file })
    }
}

fn no_answer(path: &Path, waited: Duration) -> LedgerError {
    LedgerError::new(
        format!("the ledger {} has not answered for {} s", path.display(), waited.as_secs()),
        "its disk does not answer, or another call holds it: look at the disk, then run the same command again",
    )
}

/// Work that may wait for a disk or a lock, on a thread for that. After `most` its end is not waited for.
async fn blocking<T: Send + 'static>(
    path: &Path,
    most: Duration,
    work: impl FnOnce() -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, LedgerError> {
    match timeout(most, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => done,
        Ok(Err(_)) => Err(LedgerError::new("the ledger's thread was stopped", "try again")),
        Err(_) => Err(no_answer(path, most)),
    }
}

/// Runs steps on a connection as soon as nobody else uses it.
async fn on(
    connection: &Arc<Mutex<Connection>>,
    path: &Path,
    steps: Vec<Step>,
    how: fn(&mut Connection, &[Step]) -> Result<Vec<Given>, Stop>,
) -> Result<Vec<Given>, StoreError> {
    let most = patience(&steps);
    let (connection, owned) = (Arc::clone(connection), path.to_owned());
    let work = async move {
        // The thread keeps the connection until it has done with it, also where nobody waits for it any more.
        let mut connection = connection.lock_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            how(&mut connection, &steps).map_err(|error| match error {
                Stop::Conflict(at) => StoreError::Conflict(at),
                Stop::Database(error) => StoreError::Failed(failed(&owned, &error)),
            })
        });
        done.await.unwrap_or_else(|_| {
            Err(StoreError::Failed(LedgerError::new("the ledger's thread was stopped", "try again")))
        })
    };
    timeout(most, work).await.unwrap_or_else(|_| Err(StoreError::Failed(no_answer(path, most))))
}

#[async_trait]
impl Store for SqliteStore {
    async fn run(&self, steps: Vec<Step>) -> Result<Vec<Given>, StoreError> {
        self.file.is_in_its_place().map_err(StoreError::Failed)?;
        on(&self.file.connection, &self.file.path, steps, transaction).await
    }

    async fn snapshot(&self) -> Result<Arc<dyn Store>, LedgerError> {
        let file = Arc::clone(&self.file);
        let connection = blocking(&self.file.path, patience(&[]), move || file.reading()).await?;
        let connection = Arc::new(Mutex::new(connection));
        Ok(Arc::new(SqliteSnapshot { path: self.file.path.clone(), connection }))
    }
}

/// A transaction that reads, on a connection of its own. Dropping it ends both.
#[derive(Debug)]
struct SqliteSnapshot {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
}

#[async_trait]
impl Store for SqliteSnapshot {
    async fn run(&self, steps: Vec<Step>) -> Result<Vec<Given>, StoreError> {
        on(&self.connection, &self.path, steps, |connection, steps| statements(connection, steps)).await
    }

    async fn snapshot(&self) -> Result<Arc<dyn Store>, LedgerError> {
        Err(LedgerError::new(
            "a snapshot of the ledger has no snapshot of its own",
            "this is a defect: please report it",
        ))
    }
}

enum Stop {
    Conflict(usize),
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

fn transaction(connection: &mut Connection, steps: &[Step]) -> Result<Vec<Given>, Stop> {
    let reads = steps.iter().all(|step| step.expects == Expects::Rows);
    let behavior = if reads { TransactionBehavior::Deferred } else { TransactionBehavior::Immediate };
    let transaction = connection.transaction_with_behavior(behavior)?;
    let all = statements(&transaction, steps)?;
    transaction.commit()?;
    Ok(all)
}

fn statements(connection: &Connection, steps: &[Step]) -> Result<Vec<Given>, Stop> {
    let mut all = Vec::with_capacity(steps.len());
    for (at, step) in steps.iter().enumerate() {
        #[cfg(debug_assertions)]
        super::fail_point::statement();
        // A place that is a name would be looked up among all others.
        let mut statement = connection.prepare_cached(&step.sql.replace('$', "?"))?;
        let bound = params_from_iter(step.cells.iter().map(|cell| match cell {
            Cell::Text(Some(text)) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Cell::Int(Some(number)) => ToSqlOutput::Borrowed(ValueRef::Integer(*number)),
            Cell::Text(None) | Cell::Int(None) => ToSqlOutput::Borrowed(ValueRef::Null),
        }));
        let mut given = Given::default();
        if step.expects == Expects::Rows {
            let columns = statement.column_count();
            let mut rows = statement.query(bound)?;
            while let Some(row) = rows.next()? {
                let cells = (0..columns).map(|at| row.get_ref(at).map(cell)).collect::<Result<_, _>>()?;
                given.rows.push(Row::new(cells));
            }
        } else {
            given.changed = statement.execute(bound)? as u64;
        }
        if step.expects == Expects::OneChange && given.changed != 1 {
            return Err(Stop::Conflict(at));
        }
        all.push(given);
    }
    Ok(all)
}

fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Null => Cell::Text(None),
        ValueRef::Integer(number) => Cell::Int(Some(number)),
        ValueRef::Real(number) => Cell::text(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Cell::text(String::from_utf8_lossy(bytes)),
    }
}
