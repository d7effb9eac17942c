//! A listening agent: its address, TLS and token, health and reflection, and how it stops.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Status};
use tonic_health::ServingStatus;

use super::super::error::{AgentError, FailureKind};
use super::super::local::LocalAgent;
use super::super::proto::DESCRIPTORS;
use super::super::proto::agent_server::AgentServer;
use super::client::MESSAGE_BYTES_MAX;
use super::dial::{CONNECTION_WINDOW_BYTES, SESSIONS_MAX, STREAM_WINDOW_BYTES, keepalive};
use super::security::{ClientSecurity, PeerToken, ServerSecurity};
use super::service::Service;

/// Of one connection: a run and an exchange for every conversation, and the short calls beside them.
const STREAMS_MAX: u32 = 4 * SESSIONS_MAX as u32;
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// What is left of the conversations after the grace tells its peers why it ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a listening agent allows to its peers together.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Conversations at once.
    pub sessions: u16,
    /// Conversations under way may go on for so long when the agent is stopped. What is cut off then is safe to repeat.
    pub grace: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        // Well within the 90 s that service managers allow.
        Self { sessions: SESSIONS_MAX, grace: Duration::from_secs(30) }
    }
}

/// Serves until `shutdown` resolves and the conversations under way have ended, or their grace has.
pub async fn serve(
    listener: TcpListener,
    agent: Arc<LocalAgent>,
    security: &ServerSecurity,
    peers: ClientSecurity,
    shutdown: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    serve_within(ServerLimits::default(), listener, agent, security, peers, shutdown).await
}

/// As `serve`, with limits of the caller's.
pub async fn serve_within(
    limits: ServerLimits,
    listener: TcpListener,
    agent: Arc<LocalAgent>,
    security: &ServerSecurity,
    peers: ClientSecurity,
    shutdown: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        AgentError::new(FailureKind::Unreachable, format!("cannot {what}: {error}"))
    };
    let address = listener.local_addr().map_err(|error| failed("listen", &error))?;
    security.check(address.ip())?;
    let mut server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(keepalive(agent.limits().peer_timeout)))
        .http2_keepalive_timeout(Some(keepalive(agent.limits().peer_timeout)));
    if let Some(tls) = security.tls_config() {
        server = server.tls_config(tls).map_err(|error| {
            AgentError::new(FailureKind::Usage, format!("the TLS files cannot be used: {error}"))
                .with_hint("--cert, --key-file and --client-ca must be PEM files that belong together")
        })?;
    }
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<AgentServer<Service>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .build_v1()
        .map_err(|error| failed("describe the service", &error))?;
    let ended = CancellationToken::new();
    let service =
        AgentServer::new(Service::new(agent, security.clone(), peers, limits.sessions, ended.clone()))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let token = security.token.clone();
    let guarded =
        InterceptedService::new(service, move |request: Request<()>| check_token(token.as_ref(), request));

    let (stopping, stopped) = oneshot::channel::<()>();
    let signal = async move {
        shutdown.await;
        // Whoever balances by health sends nobody here any more.
        health.set_service_status("", ServingStatus::NotServing).await;
        health.set_not_serving::<AgentServer<Service>>().await;
        drop(stopping);
    };
    let overdue = async {
        let _ = stopped.await;
        tokio::time::sleep(limits.grace).await;
        ended.cancel();
        tokio::time::sleep(FAREWELL).await;
    };
    let serving = server
        .add_service(health_service)
        .add_service(reflection)
        .add_service(guarded)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), signal);
    tokio::select! {
        served = serving => served.map_err(|error| failed("serve", &error)),
        () = overdue => Ok(()),
    }
}

fn check_token(token: Option<&PeerToken>, request: Request<()>) -> Result<Request<()>, Status> {
    let Some(token) = token else { return Ok(request) };
    let shown = request.metadata().get("authorization").and_then(|header| header.to_str().ok());
    match shown.and_then(|header| header.strip_prefix("Bearer ")) {
        Some(shown) if token.matches(shown) => Ok(request),
        Some(_) => Err(Status::unauthenticated("the token is not the one this agent was started with")),
        None => Err(Status::unauthenticated("this agent asks for a token")),
    }
}
