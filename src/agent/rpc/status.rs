//! Errors as gRPC statuses and back: the whole error travels in the status's details.

use std::error::Error;

use prost::Message;
use tonic::{Code, Status};

use super::super::error::{AgentError, FailureKind};
use super::super::proto::Failure;

pub(super) fn to_status(error: &AgentError) -> Status {
    let code = match error.kind {
        FailureKind::Usage | FailureKind::Protocol => Code::InvalidArgument,
        FailureKind::Unreachable => Code::Unavailable,
        FailureKind::Refused => Code::PermissionDenied,
        FailureKind::Version | FailureKind::Altered => Code::FailedPrecondition,
        FailureKind::Timeout => Code::DeadlineExceeded,
        FailureKind::Resource => Code::ResourceExhausted,
        FailureKind::Database | FailureKind::Inconsistent => Code::Internal,
        FailureKind::Cancelled => Code::Cancelled,
    };
    let failure = Failure {
        kind: error.kind.as_str().to_owned(),
        message: error.message.clone(),
        hint: error.hint.clone().unwrap_or_default(),
    };
    Status::with_details(code, error.message.clone(), failure.encode_to_vec().into())
}

/// The error a peer told; or what can be made of a status that is not ours.
pub(super) fn from_status(status: &Status, peer: &str) -> AgentError {
    if !status.details().is_empty()
        && let Ok(failure) = Failure::decode(status.details())
        && !failure.kind.is_empty()
    {
        return AgentError {
            kind: FailureKind::from_name(&failure.kind),
            side: None,
            message: failure.message,
            hint: (!failure.hint.is_empty()).then_some(failure.hint),
        };
    }
    let (kind, hint) = match status.code() {
        Code::Unauthenticated => {
            (FailureKind::Refused, "give the token it was started with: --token-file or --token-env")
        }
        Code::PermissionDenied => (FailureKind::Refused, "ask whoever runs that agent"),
        Code::Unimplemented => (FailureKind::Version, "is that address a trueup agent of this release?"),
        // tonic says so of a message beyond the limit.
        Code::OutOfRange => (FailureKind::Protocol, "check that both agents are the same release of trueup"),
        Code::DeadlineExceeded => (FailureKind::Timeout, "look whether its database is blocked"),
        Code::ResourceExhausted => (FailureKind::Resource, "try again when it is less busy"),
        // With a cause it is the transport that broke off, not a person.
        Code::Cancelled if status.source().is_none() => {
            (FailureKind::Cancelled, "run the command again, it is safe to repeat")
        }
        _ => (
            FailureKind::Unreachable,
            "is that address a trueup agent, and still running? The command is safe to repeat",
        ),
    };
    let mut what = match status.message() {
        "" => format!("{:?}", status.code()),
        message => message.to_owned(),
    };
    if let Some(cause) = status.source() {
        let why = causes(cause);
        what = if why.starts_with(&what) { why } else { format!("{what}: {why}") };
        // Of a connection whose pings were not answered, the transport says no more than that.
        if what.contains("broken pipe") || what.contains("keep-alive") {
            what = format!("it has stopped answering, or the connection to it broke ({what})");
        }
    }
    AgentError::new(kind, format!("the agent at {peer}: {what}")).with_hint(hint)
}

/// The chain of causes in one line: transport errors say nothing themselves.
pub(super) fn causes(error: &dyn Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_crosses_the_wire_whole() {
        for kind in [
            "usage",
            "unreachable",
            "refused",
            "version",
            "protocol",
            "timeout",
            "resource",
            "database",
            "cancelled",
        ] {
            let sent =
                AgentError::new(FailureKind::from_name(kind), "cannot do it").with_hint("do it otherwise");
            assert_eq!(sent.kind.as_str(), kind);
            assert_eq!(from_status(&to_status(&sent), "grpc://x:1"), sent);
        }
        let plain = AgentError::new(FailureKind::Usage, "no hint");
        assert_eq!(from_status(&to_status(&plain), "grpc://x:1"), plain);
    }

    #[test]
    fn a_foreign_status_says_who_and_what_to_do() {
        for (status, kind) in [
            (Status::unauthenticated("no"), FailureKind::Refused),
            (Status::unimplemented(""), FailureKind::Version),
            (Status::unavailable("gone"), FailureKind::Unreachable),
            (
                Status::with_details(Code::Internal, "odd", b"\xff\xff".to_vec().into()),
                FailureKind::Unreachable,
            ),
        ] {
            let error = from_status(&status, "grpc://x:1");
            assert_eq!(error.kind, kind);
            assert!(error.message.contains("grpc://x:1") && error.hint.is_some());
        }
    }
}
