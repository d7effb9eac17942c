//! What can end a conversation before its answer.

use crate::merkle::RunError;

#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    #[error("cannot read the digests of this side")]
    Run(#[from] RunError),
    #[error("peer broke the locate protocol")]
    Protocol(#[from] ProtocolError),
    /// Short digests collided in every round, or the peer does not say the truth about its rows.
    #[error("differences found do not account for the two roots after {rounds} rounds")]
    Unproven { rounds: u8 },
    #[error("locate machine was used out of turn: {0}")]
    Misuse(&'static str),
}

/// A message that no honest peer of this version sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("version {found} of the locate protocol, where {expected} is spoken")]
    Version { found: u8, expected: u8 },
    #[error("message is cut off")]
    Truncated,
    #[error("message is malformed: {0}")]
    Malformed(&'static str),
    #[error("{message} does not fit here: {why}")]
    Unexpected { message: &'static str, why: &'static str },
}

pub(super) fn unexpected(message: &'static str, why: &'static str) -> ProtocolError {
    ProtocolError::Unexpected { message, why }
}
