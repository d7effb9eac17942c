//! The file that a URL names, and connections to it.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, Error, ErrorCode, OpenFlags};

use super::errors::database_error;
use super::measure;
use crate::engine::{EngineError, ErrorKind};

/// Another process may hold the file's lock for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const OPTIONS: [&str; 1] = ["immutable"];
/// The first bytes of a rollback journal that is to be played back.
const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
/// Stands for itself in the path of a `file:` name.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_').remove(b'~');

#[derive(Debug, Clone)]
pub(super) struct Location {
    pub(super) path: PathBuf,
    /// Nobody writes the file, so that no lock is taken and no file beside it is needed.
    immutable: bool,
}

impl Location {
    /// `sqlite://path` or `sqlite:path`, with `?immutable=1`.
    pub(super) fn parse(url: &str) -> Result<Self, EngineError> {
        let usage = |what: String| {
            EngineError::new(ErrorKind::Usage, "read the database URL", what)
                .with_hint("write it as sqlite://PATH, or sqlite://PATH?immutable=1 for a file that nobody writes; ? in a path is %3F")
        };
        let rest = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")).unwrap_or(url);
        let (path, options) = rest.split_once('?').unwrap_or((rest, ""));
        let mut immutable = false;
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            if name != "immutable" {
                return Err(usage(format!("unknown option {name}; the options are {}", OPTIONS.join(", "))));
            }
            immutable = match value {
                "1" | "true" => true,
                "0" | "false" => false,
                _ => return Err(usage("immutable is 1 or 0".to_owned())),
            };
        }
        Ok(Self { path: path_of(path), immutable })
    }

    pub(super) fn open(&self, write: bool) -> Result<Connection, EngineError> {
        let during = format!("open {}", self.path.display());
        if !self.path.is_file() {
            return Err(EngineError::new(ErrorKind::Unreachable, during, "there is no such file")
                .with_hint("check the path; trueup never creates a database"));
        }
        if self.immutable {
            self.check_immutable(write, &during)?;
        }
        let connection = self.connect(write).map_err(|error| database_error(&during, &error))?;
        let ready = || {
            connection.busy_timeout(BUSY_TIMEOUT)?;
            measure::add_functions(&connection)?;
            connection.pragma_update(None, "foreign_keys", true)?;
            // A name that no column has is an error, never a text.
            literal_names(&connection, false)?;
            connection
                .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
                .map(drop)
        };
        match ready() {
            Ok(()) => Ok(connection),
            Err(error) => Err(self.not_read(&during, write, &error)),
        }
    }

    fn connect(&self, write: bool) -> Result<Connection, Error> {
        let mode = if write { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
        let flags = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if !self.immutable {
            return Connection::open_with_flags(&self.path, flags);
        }
        // Two slashes at the front would begin the name of a host.
        let host = if self.path.is_absolute() { "//" } else { "" };
        let path = percent_encode(self.path.as_os_str().as_encoded_bytes(), PATH);
        let name = format!("file:{host}{path}?immutable=1");
        Connection::open_with_flags(name, flags | OpenFlags::SQLITE_OPEN_URI)
    }

    /// What lies beside the file and would not be read.
    fn check_immutable(&self, write: bool, during: &str) -> Result<(), EngineError> {
        if write {
            return Err(EngineError::new(
                ErrorKind::Permission,
                during,
                "its URL says that nobody writes it",
            )
            .with_hint("leave immutable=1 out to write"));
        }
        let wal = std::fs::metadata(self.beside("-wal")).is_ok_and(|file| file.len() > 0);
        let mut magic = [0; JOURNAL_MAGIC.len()];
        let journal = File::open(self.beside("-journal")).and_then(|mut file| file.read_exact(&mut magic));
        if wal || (journal.is_ok() && magic == JOURNAL_MAGIC) {
            let what = "changes that lie in a file beside it would not be read with immutable=1";
            return Err(EngineError::new(ErrorKind::Usage, during, what)
                .with_hint("let a process that may write the folder open it once: sqlite3 FILE 'PRAGMA wal_checkpoint(TRUNCATE)'"));
        }
        Ok(())
    }

    fn beside(&self, end: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(end);
        name.into()
    }

    /// The file was opened, and its first page cannot be read. The file is not looked into here: a handle beside SQLite's
    /// would take away the locks of every connection that this process has to it.
    fn not_read(&self, during: &str, write: bool, error: &Error) -> EngineError {
        let told = database_error(during, error);
        let code = match error {
            Error::SqliteFailure(failure, _) => failure.code,
            _ => return told,
        };
        // What cannot be made is the log's shared memory, or else a journal would have to be played back.
        let log = !self.immutable && !self.beside("-journal").exists();
        if !write && matches!(code, ErrorCode::ReadOnly | ErrorCode::CannotOpen) && log {
            return EngineError { kind: ErrorKind::Permission, ..told }.with_hint(
                "the file is in WAL mode: to read it this user must be allowed to write its folder; \
                 or end the URL with ?immutable=1 while nobody writes the file",
            );
        }
        told
    }
}

/// Whether names in double quotes that no column has are taken for texts.
pub(super) fn literal_names(connection: &Connection, on: bool) -> Result<(), Error> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, on)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, on)?;
    Ok(())
}

fn path_of(text: &str) -> PathBuf {
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt;
        std::ffi::OsString::from_vec(bytes).into()
    }
    #[cfg(not(unix))]
    {
        String::from_utf8_lossy(&bytes).into_owned().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_path_and_known_options() {
        let parse = |url| Location::parse(url).map(|location| (location.path, location.immutable));
        assert_eq!(parse("sqlite://a%20b/c.db").unwrap(), ("a b/c.db".into(), false));
        assert_eq!(parse("sqlite:///x/100%.db?immutable=1").unwrap(), ("/x/100%.db".into(), true));
        assert_eq!(parse("sqlite:c.db?immutable=0").unwrap(), ("c.db".into(), false));
        assert_eq!(parse("sqlite://c%3F.db?").unwrap(), ("c?.db".into(), false));
        for (url, says) in [
            ("sqlite://c.db?nonsense=2", "unknown option nonsense"),
            ("sqlite://c.db?immutable=1&mode=ro", "unknown option mode"),
            ("sqlite://c.db?IMMUTABLE=1", "unknown option IMMUTABLE"),
            ("sqlite://c.db?immutable", "immutable is 1 or 0"),
        ] {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Usage);
            assert!(error.what.contains(says), "{error}");
        }
    }

    #[test]
    fn an_immutable_file_is_read_whatever_its_name_and_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("odd ?#%41 ü.db");
        Connection::open(&path)
            .unwrap()
            .execute_batch("CREATE TABLE t (a); PRAGMA user_version = 7")
            .unwrap();
        let location = Location { path: path.clone(), immutable: true };
        let version = |connection: Connection| {
            connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(version(location.open(false).unwrap()), 7);
        assert_eq!(location.open(true).unwrap_err().kind, ErrorKind::Permission);

        // What only the log has would be missed.
        let writer = Connection::open(&path).unwrap();
        writer.execute_batch("PRAGMA journal_mode = WAL; PRAGMA user_version = 8").unwrap();
        assert_eq!(location.open(false).unwrap_err().kind, ErrorKind::Usage);
        assert_eq!(version(Location { immutable: false, ..location.clone() }.open(false).unwrap()), 8);
        drop(writer);
        assert_eq!(version(location.open(false).unwrap()), 8);
    }
}
