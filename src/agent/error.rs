//! What can stop one table's run, with the side it happened on.

use thiserror::Error;

use crate::engine::{EngineError, ErrorKind};
use crate::model::Role;
use crate::model::canonical::DecodeError;

/// A failure of one side, in words for a person; it crosses the wire as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct AgentError {
    pub kind: FailureKind,
    /// The side it happened on, where that is known.
    pub side: Option<Role>,
    pub message: String,
    pub hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// Wrong arguments, an unsound plan, a filter with an error.
    Usage,
    /// No connection to the database or the peer, or it broke.
    Unreachable,
    /// The peer or the database refused the login, the certificate, the token, the table or the operation.
    Refused,
    /// The peer speaks another version.
    Version,
    /// The peer sent what the protocol does not allow.
    Protocol,
    /// The peer stopped answering.
    Timeout,
    /// Scratch space or memory.
    Resource,
    /// The database failed otherwise.
    Database,
    /// Stopped by the user.
    Cancelled,
    /// The table is no longer what it was when the run began.
    Altered,
    /// Two things that must agree do not: nothing may be claimed.
    Inconsistent,
}

impl FailureKind {
    const ALL: [(Self, &'static str); 11] = [
        (Self::Usage, "usage"),
        (Self::Unreachable, "unreachable"),
        (Self::Refused, "refused"),
        (Self::Version, "version"),
        (Self::Protocol, "protocol"),
        (Self::Timeout, "timeout"),
        (Self::Resource, "resource"),
        (Self::Database, "database"),
        (Self::Cancelled, "cancelled"),
        (Self::Altered, "altered"),
        (Self::Inconsistent, "inconsistent"),
    ];

    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("database", |(_, name)| name)
    }

    /// Unknown names come from newer peers: they are failures all the same.
    pub fn from_name(name: &str) -> Self {
        Self::ALL.iter().find(|(_, known)| *known == name).map_or(Self::Database, |(kind, _)| *kind)
    }
}

impl AgentError {
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, side: None, message: message.into(), hint: None }
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names the side, unless it is named already.
    #[must_use]
    pub fn on(mut self, side: Role) -> Self {
        self.side.get_or_insert(side);
        self
    }

    pub fn protocol(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Protocol, message)
            .with_hint("check that both agents are the same release of trueup")
    }
}

impl From<EngineError> for AgentError {
    fn from(error: EngineError) -> Self {
        let kind = match error.kind {
            ErrorKind::Usage | ErrorKind::Filter | ErrorKind::NoSuchTable => FailureKind::Usage,
            ErrorKind::Unreachable | ErrorKind::Lost => FailureKind::Unreachable,
            ErrorKind::Login | ErrorKind::Permission => FailureKind::Refused,
            ErrorKind::Changed => FailureKind::Altered,
            ErrorKind::Row | ErrorKind::Busy | ErrorKind::Locked | ErrorKind::Database => {
                FailureKind::Database
            }
        };
        let hint = error.hint.clone();
        Self { kind, side: None, message: error.to_string(), hint }
    }
}

pub(super) fn decode_error(error: DecodeError) -> AgentError {
    AgentError::new(FailureKind::Protocol, format!("a row cannot be read by the plan's types: {error}"))
        .with_hint("check that both agents are the same release of trueup")
}
