//! SQLite's errors in words without values. Its messages name tables, columns and constraints, not data.

use rusqlite::ffi;
use rusqlite::{Error, ErrorCode};

use super::collation::unknown;
use crate::engine::{EngineError, ErrorKind, RowError};
use crate::model::{Rejection, RejectionKind};

const CHECK_CONDITION: &str = "check the SQL condition for this side";

/// An error of a statement that holds the user's SQL: its fault, where it can be.
pub(super) fn engine_error(during: &str, error: &Error) -> EngineError {
    match error {
        Error::SqlInputError { msg, .. } => {
            EngineError::new(ErrorKind::Filter, during, msg.clone()).with_hint(CHECK_CONDITION)
        }
        Error::MultipleStatement => {
            EngineError::new(ErrorKind::Filter, during, "it is more than one statement")
                .with_hint(CHECK_CONDITION)
        }
        Error::SqliteFailure(failure, _) if failure.code == ErrorCode::Unknown => {
            EngineError::new(ErrorKind::Filter, during, words(error)).with_hint(CHECK_CONDITION)
        }
        _ => database_error(during, error),
    }
}

/// An error of a statement that is all our own.
pub(super) fn database_error(during: &str, error: &Error) -> EngineError {
    let words = words(error);
    let code = match error {
        Error::SqliteFailure(failure, _) => failure.code,
        Error::SqlInputError { error, .. } => error.code,
        _ => return EngineError::new(ErrorKind::Database, during, words),
    };
    let (kind, hint) = match code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            (ErrorKind::Busy, "another process holds the file's lock; try again when it is done")
        }
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => {
            (ErrorKind::Permission, "check the permissions of the file and of its folder")
        }
        ErrorCode::CannotOpen | ErrorCode::NotADatabase => {
            (ErrorKind::Unreachable, "is the file a SQLite database, and may this user read it?")
        }
        ErrorCode::Unknown => return of_the_schema(during, &words),
        ErrorCode::SchemaChanged => return changed(during, words),
        ErrorCode::DiskFull => (ErrorKind::Database, "free space on the disk of the file"),
        _ => (ErrorKind::Database, "check the file: sqlite3 FILE 'PRAGMA integrity_check'"),
    };
    EngineError::new(kind, during, words).with_hint(hint)
}

/// A statement of our own that does not compile, or fails in what the database itself defines.
fn of_the_schema(during: &str, words: &str) -> EngineError {
    if let Some(collation) = unknown_collation(words) {
        return EngineError::new(ErrorKind::Database, during, unknown(collation))
            .with_hint("what must be compared by it is left to the application");
    }
    if words.contains("no such column")
        || words.contains("no such table")
        || words.contains("has no column named")
    {
        return changed(during, words.to_owned());
    }
    let found = EngineError::new(ErrorKind::Database, during, words);
    if words.contains("no such function") || words.contains("no such module") {
        return found.with_hint("a view, trigger or index of the file uses what only its application has");
    }
    found
}

/// The table is no longer what the plan was made from.
pub(super) fn changed(during: &str, what: String) -> EngineError {
    EngineError::new(ErrorKind::Changed, during, what)
        .with_hint("the table was altered since the run began; start it again")
}

/// A row without canonical form.
pub(super) fn row_error(during: &str, error: &RowError) -> EngineError {
    let told = EngineError::row(during, error);
    match error {
        RowError::NullKey(_) => {
            told.with_hint("name other columns as the key with --key, of which none holds NULL")
        }
        RowError::Malformed { .. } => told,
    }
}

/// The collation's name in SQLite's words for one that it does not know.
pub(super) fn unknown_collation(words: &str) -> Option<&str> {
    words.split_once("no such collation sequence: ").map(|(_, name)| name)
}

/// What SQLite's own words begin with that are about a statement or the file. Those of a function that fails on a value may quote it.
const ABOUT_STATEMENTS: [&str; 16] = [
    "no such ",
    "near ",
    "table ",
    "view ",
    "ambiguous ",
    "unrecognized ",
    "incomplete ",
    "integer overflow",
    "too many ",
    "wrong number ",
    "misuse ",
    "sub-select ",
    "row value ",
    "malformed database",
    "unsafe use ",
    "not authorized",
];

pub(super) fn words(error: &Error) -> String {
    match error {
        Error::SqliteFailure(failure, Some(message))
            if failure.code == ErrorCode::Unknown
                && !ABOUT_STATEMENTS.iter().any(|begin| message.starts_with(begin)) =>
        {
            "an expression fails on a value of some row".to_owned()
        }
        Error::SqliteFailure(_, Some(message)) => message.clone(),
        Error::SqliteFailure(failure, None) => failure.to_string(),
        Error::SqlInputError { msg, .. } => msg.clone(),
        _ => "the driver could not do it".to_owned(),
    }
}

/// Why SQLite refused one row, if that is what the error says.
pub(super) fn rejection(error: &Error) -> Option<Rejection> {
    if let Some(collation) = unknown_collation(&words(error)) {
        return Some(Rejection { kind: RejectionKind::Other, reason: needs_collation(collation) });
    }
    let Error::SqliteFailure(failure, message) = error else { return None };
    let kind = match failure.extended_code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            RejectionKind::Unique
        }
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => RejectionKind::ForeignKey,
        ffi::SQLITE_CONSTRAINT_NOTNULL => RejectionKind::NotNull,
        ffi::SQLITE_CONSTRAINT_CHECK => RejectionKind::Check,
        ffi::SQLITE_CONSTRAINT_DATATYPE | ffi::SQLITE_MISMATCH => RejectionKind::Value,
        ffi::SQLITE_TOOBIG => RejectionKind::Value,
        _ if failure.code == ErrorCode::ConstraintViolation => RejectionKind::Other,
        _ => return None,
    };
    // A trigger's own words may hold values.
    let reason = if kind == RejectionKind::Other {
        "a trigger or constraint refused the row".to_owned()
    } else {
        message.clone().unwrap_or_else(|| failure.to_string())
    };
    Some(Rejection { kind, reason })
}

/// Why a row is not written where an index would have to be kept in an unknown order.
pub(super) fn needs_collation(collation: &str) -> String {
    format!("writing the row needs collation {collation}, which only the application of this file has")
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    fn failed(setup: &str, sql: &str) -> Error {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(setup).unwrap();
        connection.execute_batch(sql).unwrap_err()
    }

    #[test]
    fn only_the_users_own_sql_is_blamed_on_a_condition() {
        let error = failed("CREATE TABLE t (a)", "SELECT nowhere FROM t");
        let (theirs, ours) = (engine_error("read", &error), database_error("read", &error));
        assert_eq!((theirs.kind, theirs.hint.as_deref()), (ErrorKind::Filter, Some(CHECK_CONDITION)));
        assert_eq!(ours.kind, ErrorKind::Changed);
        assert!(ours.hint.unwrap().contains("altered"));
        for (setup, sql) in [
            ("CREATE VIEW v AS SELECT ST_IsEmpty(1) AS a", "SELECT a FROM v"),
            ("", "SELECT abs(-9223372036854775808)"),
        ] {
            let error = failed(setup, sql);
            let ours = database_error("read", &error);
            assert_eq!(ours.kind, ErrorKind::Database, "{ours}");
            assert_ne!(ours.hint.as_deref(), Some(CHECK_CONDITION));
            assert_eq!(engine_error("read", &error).kind, ErrorKind::Filter);
        }
    }

    #[test]
    fn an_unknown_collation_is_named() {
        let error = failed("CREATE TABLE t (a)", "SELECT a FROM t ORDER BY a COLLATE unicase");
        assert!(rejection(&error).unwrap().reason.contains("collation unicase"));
        assert!(database_error("read", &error).what.contains("collation unicase"));
    }
}
