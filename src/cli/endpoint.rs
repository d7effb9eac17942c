//! Endpoints: from what was typed to an agent, here or elsewhere.

use std::path::Path;
use std::sync::Arc;

use super::Failure;
use super::args::{LimitArgs, PeerArgs};
use crate::agent::security::{ClientSecurity, KeyPair, PeerToken, read_pem};
use crate::agent::{
    AgentError, AgentHandle, AgentLimits, Courtesy, LocalAgent, RemoteAgent, Serves, UndoStore, in_process,
};
use crate::config;
use crate::engine::{self, Manners};
use crate::model::Role;

/// A URL, and the same fit to be shown.
#[derive(Debug, Clone)]
pub(super) struct EndpointUrl {
    pub(super) url: String,
    pub(super) shown: String,
}

impl EndpointUrl {
    /// `env:NAME` reads the URL from the environment, so that no password stands in the process list.
    pub(super) fn read(text: &str) -> Result<Self, Failure> {
        let url = match text.strip_prefix("env:") {
            None => text.to_owned(),
            Some(name) => std::env::var(name).map_err(|_| {
                Failure::new(
                    format!("the environment variable {name} is not set"),
                    format!("set it to a URL: export {name}=..."),
                )
            })?,
        };
        let shown = config::url::shown(&url);
        if let Some((what, hint)) = config::url::fault(&url) {
            return Err(Failure::new(format!("the URL {shown} cannot be used: {what}"), hint));
        }
        Ok(Self { url, shown })
    }

    fn is_agent(&self) -> bool {
        self.url.starts_with("grpc://") || self.url.starts_with("grpcs://")
    }

    pub(super) async fn open(
        &self,
        limits: &AgentLimits,
        peers: &ClientSecurity,
        side: Role,
        undo: Option<UndoStore>,
    ) -> Result<AgentHandle, Failure> {
        let opened = if self.is_agent() {
            RemoteAgent::connect(&self.url, peers, limits.peer_timeout)
                .await
                .map(|agent| Arc::new(agent) as AgentHandle)
        } else {
            open_local(&self.url, limits, Serves::everything())
                .await
                .map(|agent| in_process(Arc::new(agent.with_undo(undo))))
        };
        opened.map_err(|error| error.on(side).into())
    }

    pub(super) fn is_database(&self) -> bool {
        !self.is_agent()
    }
}

pub(super) async fn open_local(
    url: &str,
    limits: &AgentLimits,
    serves: Serves,
) -> Result<LocalAgent, AgentError> {
    Ok(LocalAgent::new(engine::open_with(url, &limits.manners).await?, limits.clone(), serves))
}

pub(super) fn limits(args: &LimitArgs) -> Result<AgentLimits, Failure> {
    if let Some(dir) = &args.scratch
        && !dir.is_dir()
    {
        return Err(Failure::new(
            format!("--scratch {} is no folder", dir.display()),
            "create it, or name another",
        ));
    }
    Ok(AgentLimits {
        memory_bytes: args.memory,
        scratch: args.scratch.clone().or_else(|| Some(std::env::temp_dir())),
        parallelism: args.parallelism.clamp(1, 64),
        peer_timeout: args.peer_timeout,
        courtesy: Courtesy {
            rows_per_second: args.max_rows_per_second,
            max_lag: args.max_lag,
            max_running: args.max_running,
        },
        manners: Manners {
            statement_timeout: args.statement_timeout,
            lock_timeout: Some(args.lock_timeout),
            ..Manners::default()
        },
    })
}

pub(super) fn token(args: &PeerArgs) -> Result<Option<PeerToken>, Failure> {
    let token = match (&args.token_file, &args.token_env) {
        (Some(path), _) => token_in(path, "check the path and its permissions")?,
        (None, Some(name)) => {
            let text = std::env::var(name).map_err(|_| {
                Failure::new(format!("the environment variable {name} is not set"), "set it to the token")
            })?;
            PeerToken::new(&text, name)?
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(token))
}

/// The token that a file holds; `hint` is for one that cannot be read.
pub(super) fn token_in(path: &Path, hint: &str) -> Result<PeerToken, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(format!("cannot read the token in {}: {error}", path.display()), hint)
    })?;
    warn_if_readable(path);
    Ok(PeerToken::new(&text, &path.display().to_string())?)
}

#[cfg(unix)]
pub(super) fn warn_if_readable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0) {
        tracing::warn!("others may read {}: chmod 600 it", path.display());
    }
}

#[cfg(not(unix))]
pub(super) fn warn_if_readable(_: &Path) {}

pub(super) fn key_pair(args: &PeerArgs) -> Result<Option<KeyPair>, Failure> {
    match (&args.cert, &args.key_file) {
        (Some(cert), Some(key)) => Ok(Some(KeyPair { cert: read_pem(cert)?, key: read_pem(key)? })),
        _ => Ok(None),
    }
}

pub(super) fn client_security(args: &PeerArgs) -> Result<ClientSecurity, Failure> {
    Ok(ClientSecurity {
        ca: args.ca.as_deref().map(read_pem).transpose()?,
        identity: key_pair(args)?,
        token: token(args)?,
        insecure: args.insecure,
    })
}
