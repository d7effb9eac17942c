//! SQLite's errors in words without values. Its messages name tables, columns and constraints, not data.

use rusqlite::Error;
use rusqlite::ffi;

use crate::engine::{EngineError, ErrorKind};
use crate::model::{Rejection, RejectionKind};

pub(super) fn engine_error(during: &str, error: &Error) -> EngineError {
    let Error::SqliteFailure(failure, message) = error else {
        // A statement that does not compile: the user's own condition, or a table that is no more.
        let kind = match error {
            Error::SqlInputError { .. } | Error::MultipleStatement => ErrorKind::Filter,
            _ => ErrorKind::Database,
        };
        let words = match error {
            Error::SqlInputError { msg, .. } => msg.clone(),
            _ => "the driver could not do it".to_owned(),
        };
        return EngineError::new(kind, during, words).with_hint("check the SQL condition for this side");
    };
    let words = message.clone().unwrap_or_else(|| failure.to_string());
    let (kind, hint) = match failure.code {
        ffi::ErrorCode::DatabaseBusy | ffi::ErrorCode::DatabaseLocked => {
            (ErrorKind::Busy, "another process holds the file's lock; try again when it is done")
        }
        ffi::ErrorCode::ReadOnly
        | ffi::ErrorCode::PermissionDenied
        | ffi::ErrorCode::AuthorizationForStatementDenied => {
            (ErrorKind::Permission, "check the permissions of the file and of its folder")
        }
        ffi::ErrorCode::CannotOpen | ffi::ErrorCode::NotADatabase => {
            (ErrorKind::Unreachable, "is the file a SQLite database, and may this user read it?")
        }
        ffi::ErrorCode::Unknown => (ErrorKind::Filter, "check the SQL condition for this side"),
        ffi::ErrorCode::DiskFull => (ErrorKind::Database, "free space on the disk of the file"),
        _ => (ErrorKind::Database, "check the file: sqlite3 FILE 'PRAGMA integrity_check'"),
    };
    EngineError::new(kind, during, words).with_hint(hint)
}

/// Why SQLite refused one row, if that is what the error says.
pub(super) fn rejection(error: &Error) -> Option<Rejection> {
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
        _ if failure.code == ffi::ErrorCode::ConstraintViolation => RejectionKind::Other,
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
