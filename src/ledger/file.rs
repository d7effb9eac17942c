//! A ledger's file, opened once in a process, and by SQLite alone.
//!
//! Whoever closes any handle of a file takes away all POSIX locks that its process holds on it. SQLite knows its own
//! handles and closes them late. A handle of our own would take SQLite's locks away, and the next program that looks at the
//! ledger would believe that nobody has it open, and would remove its log. So a ledger that exists is never opened beside
//! SQLite: not to be made, not to be looked at, not to be copied.

use std::fs::{DirBuilder, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::LedgerError;

/// Another process may be writing.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(20);
const PAGE_BYTES: u32 = 16 << 10;
/// What is added goes over from the log into the file when there is so much of it.
const WAL_BYTES: u32 = 16 << 20;

/// Ledgers that this process has open. Held while one is opened, so that no file is made while another hand opens it.
static OPEN: Mutex<Vec<(Identity, Weak<LedgerFile>)>> = Mutex::new(Vec::new());

/// One file, whatever its path is called.
#[cfg(unix)]
type Identity = (u64, u64);
#[cfg(not(unix))]
type Identity = PathBuf;

#[derive(Debug)]
pub(super) struct LedgerFile {
    pub(super) path: PathBuf,
    pub(super) connection: Arc<tokio::sync::Mutex<Connection>>,
    identity: Identity,
}

impl LedgerFile {
    /// The file as this process has it open already, or opened now; made where it is missing and `create` is set.
    pub(super) fn open(path: &Path, create: bool) -> Result<Arc<Self>, LedgerError> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, file)| file.strong_count() > 0);
        if create {
            make(path)?;
        } else if !path.is_file() {
            return Err(LedgerError::new(
                format!("there is no ledger at {}", path.display()),
                "diff and repair make one; name another with --ledger",
            ));
        }
        let identity = identity(path).map_err(|error| {
            LedgerError::new(
                format!("cannot look at the ledger {}: {error}", path.display()),
                "check the folder and its permissions",
            )
        })?;
        if let Some(file) =
            open.iter().find(|(known, _)| *known == identity).and_then(|(_, file)| file.upgrade())
        {
            return Ok(file);
        }
        let connection = connect(path).map_err(|error| failed(path, &error))?;
        let connection = Arc::new(tokio::sync::Mutex::new(connection));
        let file = Arc::new(Self { path: path.to_owned(), connection, identity });
        open.push((identity, Arc::downgrade(&file)));
        Ok(file)
    }

    /// What is written into a file that has another name by now, or none, is found by nobody.
    pub(super) fn is_in_its_place(&self) -> Result<(), LedgerError> {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            return Ok(());
        }
        Err(LedgerError::new(
            format!(
                "the ledger {} was removed, renamed or replaced while it was in use",
                self.path.display()
            ),
            "put the file back: what was recorded until then is in it",
        ))
    }

    /// A second connection, inside a transaction that reads: SQLite's own second connection takes no locks away.
    pub(super) fn reading(&self) -> Result<Connection, LedgerError> {
        let begin = || {
            let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "query_only", "ON")?;
            connection.execute_batch("BEGIN")?;
            // The first query takes the snapshot.
            connection.query_row("SELECT count(*) FROM trueup_ledger", [], |row| row.get::<_, i64>(0))?;
            Ok(connection)
        };
        begin().map_err(|error| failed(&self.path, &error))
    }
}

fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Of a file that is new. An entry of many rows fills a few pages and not dozens.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_BYTES / PAGE_BYTES)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    Ok(connection)
}

/// The file and its folder, for the owner's eyes alone. A file that exists is not touched.
fn make(path: &Path) -> Result<(), LedgerError> {
    let cannot = |error: std::io::Error| {
        LedgerError::new(
            format!("cannot make the ledger {}: {error}", path.display()),
            "name a file that can be written with --ledger, or go without with --no-ledger",
        )
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder).map_err(cannot)?;
    }
    let mut options = OpenOptions::new();
    // Only a file that is new is opened here, and nobody in this process has it open.
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(cannot(error)),
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn identity(path: &Path) -> std::io::Result<Identity> {
    use std::os::unix::fs::MetadataExt;
    // Asks for what the folder says of the file, and does not open it.
    std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> std::io::Result<Identity> {
    std::fs::canonicalize(path)
}

/// What went wrong, and the way on that fits the cause.
pub(super) fn failed(path: &Path, error: &rusqlite::Error) -> LedgerError {
    let shown = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => LedgerError::new(
            format!(
                "the ledger {shown} is locked by another process, for more than {} s",
                BUSY_TIMEOUT.as_secs()
            ),
            format!(
                "let that process end its transaction (fuser {shown} names it), then run the same command again"
            ),
        ),
        Some(ErrorCode::DiskFull) => LedgerError::new(
            format!("the ledger {shown} cannot be written: {error}"),
            "make room on its disk, then run the same command again",
        ),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => LedgerError::new(
            format!("the ledger {shown} cannot be used: {error}"),
            format!(
                "sqlite3 {shown} 'PRAGMA integrity_check' shows what is damaged; put a backup in its place, or name another file with --ledger"
            ),
        ),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => LedgerError::new(
            format!("the ledger {shown} cannot be used: {error}"),
            "this user must be allowed to write the file and its folder; or name another with --ledger",
        ),
        _ => LedgerError::new(
            format!("the ledger {shown} cannot be used: {error}"),
            "check the folder, its permissions and the disk, or name another with --ledger",
        ),
    }
}
