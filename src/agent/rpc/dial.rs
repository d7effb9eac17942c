//! Connections to agents elsewhere: how they are dialled, kept alive and bounded.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use super::super::error::{AgentError, FailureKind};
use super::security::ClientSecurity;
use super::status::causes;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Twice the bandwidth-delay product of 100 Mbit/s over 150 ms.
pub(super) const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Conversations at once, over all connections of a listening agent: each holds a digest run and a few database
/// connections.
pub(super) const SESSIONS_MAX: u16 = 64;
/// Every conversation can fill its window and the other calls still get through: what is unread of one table, while its
/// database is slow, must not hold up the tables beside it. A bound that is seldom reached, not memory set aside.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * (SESSIONS_MAX as u32 + 4);
/// A peer that does not answer a ping is gone, however quiet the conversation.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
/// Less is not asked for: a busy machine answers a little late.
const KEEPALIVE_LEAST: Duration = Duration::from_secs(1);

/// How often a peer is pinged, and how long its answer is waited for, so that one that is gone is known within its time.
pub(super) fn keepalive(peer_timeout: Duration) -> Duration {
    (peer_timeout / 2).clamp(KEEPALIVE_LEAST, KEEPALIVE_EVERY)
}

pub(super) async fn dial(
    address: &str,
    security: &ClientSecurity,
    peer_timeout: Duration,
) -> Result<Channel, AgentError> {
    let bad = || {
        AgentError::new(FailureKind::Usage, format!("{address} is no agent address"))
            .with_hint("write grpcs://HOST:PORT, or grpc://127.0.0.1:PORT on one machine")
    };
    let (rest, tls) = match address.strip_prefix("grpcs://") {
        Some(rest) => (rest, true),
        None => (address.strip_prefix("grpc://").ok_or_else(bad)?, false),
    };
    let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or_else(bad)?;
    if host.is_empty() || host.contains(['/', '@', '?', '#']) || port.parse::<u16>().is_err() {
        return Err(bad());
    }
    if !tls {
        security.check_plaintext(host)?;
    }
    let uri = format!("{}://{host}:{port}", if tls { "https" } else { "http" });
    let mut endpoint = Endpoint::from_shared(uri)
        .map_err(|_| bad())?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(keepalive(peer_timeout))
        .keep_alive_timeout(keepalive(peer_timeout))
        .keep_alive_while_idle(true);
    if tls {
        endpoint = endpoint.tls_config(security.tls_config()).map_err(|error| {
            AgentError::new(FailureKind::Usage, format!("the TLS files cannot be used: {}", causes(&error)))
                .with_hint("--ca, --cert and --key-file must be PEM files that belong together")
        })?;
    }
    endpoint.connect().await.map_err(|error| {
        let why = causes(&error);
        let hint = if why.contains("InvalidContentType") {
            "that address speaks no TLS: start that agent with --cert and --key-file, or write grpc:// on one machine"
        } else if tls && (why.contains("certificate") || why.contains("UnknownIssuer") || why.contains("tls")) {
            "check --ca (who signed that agent's certificate), the host name, and --cert/--key-file if it asks for one"
        } else {
            "is the agent running there, and is the port open? Start it with: trueup agent --database URL --listen ADDR"
        };
        AgentError::new(FailureKind::Unreachable, format!("cannot connect to the agent at {address}: {why}")).with_hint(hint)
    })
}
