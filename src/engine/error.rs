//! What can go wrong with a database, in words that say what to do. Never a row value.

use std::fmt;

use thiserror::Error;

use super::RowError;

/// The kinds that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The URL or an option is wrong.
    Usage,
    /// Host, port, file or TLS: no connection.
    Unreachable,
    /// Wrong password, unknown user or database.
    Login,
    NoSuchTable,
    /// The login may not read or write this.
    Permission,
    /// The user's own SQL (a filter) is wrong.
    Filter,
    /// A row without canonical form.
    Row,
    /// A deadlock, a serialization failure, a statement timeout: the same again may work.
    Busy,
    /// Another session holds a lock that was waited for long enough.
    Locked,
    /// The connection broke.
    Lost,
    /// The table's columns are no longer what the plan was made from.
    Changed,
    /// Anything else the database said.
    Database,
}

/// An error of one database operation: what was attempted on what, what stood in the way, and what to do.
#[derive(Debug, Error)]
pub struct EngineError {
    pub kind: ErrorKind,
    /// "connect to postgres://app@db:5432/shop", "read public.orders".
    pub during: String,
    /// The database's own words, without values.
    pub what: String,
    pub hint: Option<String>,
}

impl EngineError {
    pub fn new(kind: ErrorKind, during: impl Into<String>, what: impl Into<String>) -> Self {
        Self { kind, during: during.into(), what: what.into(), hint: None }
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn row(during: impl Into<String>, error: &RowError) -> Self {
        Self::new(ErrorKind::Row, during, error.to_string())
    }

    /// The same operation may succeed if it is tried again.
    pub fn is_transient(&self) -> bool {
        match self.kind {
            ErrorKind::Busy | ErrorKind::Locked | ErrorKind::Lost => true,
            ErrorKind::Usage
            | ErrorKind::Unreachable
            | ErrorKind::Login
            | ErrorKind::NoSuchTable
            | ErrorKind::Permission
            | ErrorKind::Filter
            | ErrorKind::Row
            | ErrorKind::Changed
            | ErrorKind::Database => false,
        }
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.during, self.what)
    }
}
