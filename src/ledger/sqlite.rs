//! The ledger in an SQLite file: one connection, written through to disk with every transaction.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params_from_iter};

use super::LedgerError;
use super::store::{Cell, Expects, Given, Row, Step, Store, StoreError};

/// Another process may be writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);
const PAGE_BYTES: u32 = 16 << 10;
/// What is added goes over from the log into the file when there is so much of it.
const WAL_BYTES: u32 = 16 << 20;

#[derive(Debug)]
pub(super) struct SqliteStore {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
}

impl SqliteStore {
    pub(super) async fn open(path: &Path, create: bool) -> Result<Self, LedgerError> {
        let owned = path.to_owned();
        let open = move || {
            if create {
                make(&owned)?;
            } else if !owned.is_file() {
                return Err(LedgerError::new(
                    format!("there is no ledger at {}", owned.display()),
                    "diff and repair make one; name another with --ledger",
                ));
            }
            let open = || {
                let connection = Connection::open_with_flags(&owned, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
                connection.busy_timeout(BUSY_TIMEOUT)?;
                // Of a file that is new. An entry of many rows fills a few pages and not dozens.
                connection.pragma_update(None, "page_size", PAGE_BYTES)?;
                connection.pragma_update(None, "journal_mode", "WAL")?;
                connection.pragma_update(None, "wal_autocheckpoint", WAL_BYTES / PAGE_BYTES)?;
                connection.pragma_update(None, "synchronous", "FULL")?;
                connection.pragma_update(None, "foreign_keys", "ON")?;
                Ok(connection)
            };
            open().map_err(|error: rusqlite::Error| failed(&owned, &error))
        };
        let connection = blocking(open).await?;
        Ok(Self { path: path.to_owned(), connection: Arc::new(Mutex::new(connection)) })
    }
}

fn failed(path: &Path, error: &rusqlite::Error) -> LedgerError {
    LedgerError::new(
        format!("the ledger {} cannot be used: {error}", path.display()),
        "check the folder, its permissions and the disk, or name another with --ledger",
    )
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, LedgerError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(LedgerError::new("the ledger's thread was stopped", "try again")))
}

/// The file and its folder, for the owner's eyes alone.
fn make(path: &Path) -> Result<(), LedgerError> {
    let cannot = |error: std::io::Error| {
        LedgerError::new(
            format!("cannot make the ledger {}: {error}", path.display()),
            "name a file that can be written with --ledger, or go without with --no-ledger",
        )
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder).map_err(cannot)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop).map_err(cannot)
}

#[async_trait]
impl Store for SqliteStore {
    async fn run(&self, steps: Vec<Step>) -> Result<Vec<Given>, StoreError> {
        let (connection, path) = (self.connection.clone(), self.path.clone());
        let done = tokio::task::spawn_blocking(move || {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            run(&mut connection, &steps).map_err(|error| match error {
                Stop::Conflict => StoreError::Conflict,
                Stop::Database(error) => StoreError::Failed(failed(&path, &error)),
            })
        });
        done.await.unwrap_or_else(|_| {
            Err(StoreError::Failed(LedgerError::new("the ledger's thread was stopped", "try again")))
        })
    }
}

enum Stop {
    Conflict,
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

fn run(connection: &mut Connection, steps: &[Step]) -> Result<Vec<Given>, Stop> {
    let reads = steps.iter().all(|step| step.expects == Expects::Rows);
    let behavior = if reads { TransactionBehavior::Deferred } else { TransactionBehavior::Immediate };
    let transaction = connection.transaction_with_behavior(behavior)?;
    let mut all = Vec::with_capacity(steps.len());
    for step in steps {
        // A place that is a name would be looked up among all others.
        let mut statement = transaction.prepare_cached(&step.sql.replace('$', "?"))?;
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
            return Err(Stop::Conflict);
        }
        all.push(given);
    }
    transaction.commit()?;
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
