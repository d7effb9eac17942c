//! A listening agent: the gRPC service, health and reflection, tokens, limits.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::client::{
    CONNECTION_WINDOW_BYTES, KEEPALIVE_EVERY, KEEPALIVE_TIMEOUT, MESSAGE_BYTES_MAX, PeerRef, RemoteAgent,
    STREAM_WINDOW_BYTES, json,
};
use super::error::{AgentError, FailureKind};
use super::event::TableTask;
use super::link::{FRAMES_IN_FLIGHT, Link};
use super::local::{LocalAgent, failed_event};
use super::proto::agent_server::{Agent, AgentServer};
use super::proto::{
    DESCRIPTORS, DescribeReply, DescribeRequest, Frame, HelloReply, HelloRequest, RunEvent, RunRequest,
    TablesReply, TablesRequest, frame::Kind, run_request::Peer,
};
use super::security::{ClientSecurity, PeerToken, ServerSecurity};
use super::status::{from_status, to_status};
use super::wire::version_mismatch;
use super::{PROTOCOL_VERSION, SOFTWARE};
use crate::model::{ENCODING_VERSION, Role};

/// Conversations at once: each holds a digest run and a few database connections.
const SESSIONS_MAX: usize = 64;
/// A source that was announced dials in within this time.
const RENDEZVOUS_TIMEOUT: Duration = Duration::from_secs(30);
const EVENTS_AHEAD: usize = 64;

/// Serves until `shutdown` resolves; conversations under way end with it.
pub async fn serve(
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
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT));
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
    let service =
        Service { agent, peers, sessions: Arc::new(Semaphore::new(SESSIONS_MAX)), waiting: Arc::default() };
    let service = AgentServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let token = security.token.clone();
    let guarded =
        InterceptedService::new(service, move |request: Request<()>| check_token(token.as_ref(), request));
    server
        .add_service(health_service)
        .add_service(reflection)
        .add_service(guarded)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), shutdown)
        .await
        .map_err(|error| failed("serve", &error))
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

struct Service {
    agent: Arc<LocalAgent>,
    peers: ClientSecurity,
    sessions: Arc<Semaphore>,
    /// Runs that wait for their source to dial in, by rendezvous.
    waiting: Arc<Mutex<HashMap<String, oneshot::Sender<Link>>>>,
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    fn session(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.sessions.clone().try_acquire_owned().map_err(|_| {
            let error = AgentError::new(
                FailureKind::Resource,
                format!("this agent has {SESSIONS_MAX} conversations already"),
            );
            to_status(&error.with_hint("try again when some have ended"))
        })
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<String, oneshot::Sender<Link>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(bytes)
        .map_err(|_| to_status(&AgentError::protocol("the caller sent a malformed message")))
}

fn check_version(protocol: u32, encoding: u32, software: &str) -> Result<(), Status> {
    if protocol == PROTOCOL_VERSION && encoding == ENCODING_VERSION {
        return Ok(());
    }
    // The name is the peer's own word: kept short and plain.
    let name: String = software.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(40).collect();
    Err(to_status(&version_mismatch(protocol, encoding, &format!("the caller ({name})"))))
}

#[tonic::async_trait]
impl Agent for Service {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let hello = request.into_inner();
        check_version(hello.protocol_version, hello.encoding_version, &hello.software)?;
        let server = self.agent.server().await.map_err(|error| to_status(&error))?;
        Ok(Response::new(HelloReply {
            protocol_version: PROTOCOL_VERSION,
            encoding_version: ENCODING_VERSION,
            software: SOFTWARE.to_owned(),
            server: json(&server).map_err(|error| to_status(&error))?,
            may_write: self.agent.may_write(),
        }))
    }

    async fn tables(&self, request: Request<TablesRequest>) -> Result<Response<TablesReply>, Status> {
        let schema = request.into_inner().schema;
        let schema = (!schema.is_empty()).then_some(schema.as_str());
        let tables = self.agent.tables(schema).await.map_err(|error| to_status(&error))?;
        let tables = tables.iter().map(json).collect::<Result<_, _>>().map_err(|error| to_status(&error))?;
        Ok(Response::new(TablesReply { tables }))
    }

    async fn describe(&self, request: Request<DescribeRequest>) -> Result<Response<DescribeReply>, Status> {
        let table = parse(&request.into_inner().table)?;
        let schema = self.agent.describe(&table).await.map_err(|error| to_status(&error))?;
        Ok(Response::new(DescribeReply { schema: json(&schema).map_err(|error| to_status(&error))? }))
    }

    type RunStream = Replies<RunEvent>;

    async fn run(&self, request: Request<RunRequest>) -> Result<Response<Self::RunStream>, Status> {
        let permit = self.session()?;
        let request = request.into_inner();
        let task: TableTask = parse(&request.task)?;
        if task.options.repair.is_some() && !task.options.dry_run {
            self.agent.permit_write().map_err(|error| to_status(&error))?;
        }
        let peer = match request.peer {
            Some(Peer::Address(address)) => PeerRef::Address(address),
            Some(Peer::Rendezvous(word)) if word.len() >= 32 => PeerRef::Rendezvous(word),
            _ => return Err(to_status(&AgentError::protocol("the run names no peer"))),
        };
        let arriving = match &peer {
            PeerRef::Rendezvous(word) => {
                let (tx, rx) = oneshot::channel();
                self.waiting().insert(word.clone(), tx);
                Some(rx)
            }
            PeerRef::Address(_) => None,
        };
        let (events, rx) = mpsc::channel(EVENTS_AHEAD);
        let (agent, peers, waiting) = (self.agent.clone(), self.peers.clone(), self.waiting.clone());
        let task = tokio::spawn(async move {
            let _permit = permit;
            let link = match (peer, arriving) {
                (PeerRef::Rendezvous(word), Some(arriving)) => {
                    let link = tokio::time::timeout(RENDEZVOUS_TIMEOUT, arriving).await;
                    waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&word);
                    link.ok().and_then(Result::ok).ok_or_else(|| {
                        AgentError::new(FailureKind::Timeout, "the source agent did not dial in")
                            .on(Role::Source)
                    })
                }
                (PeerRef::Address(address), _) | (PeerRef::Rendezvous(address), None) => {
                    let timeout = agent.limits().peer_timeout;
                    match RemoteAgent::connect(&address, &peers, timeout).await {
                        Ok(source) => source.exchange(None).await,
                        Err(error) => Err(error),
                    }
                    .map_err(|error| error.on(Role::Source))
                }
            };
            match link {
                Ok(link) => agent.run_target(task, link, events).await,
                Err(error) => drop(events.send(failed_event(error)).await),
            }
        });
        // A coordinator that goes away drops this stream, and with it the work.
        let guard = AbortOnDropHandle::new(task);
        let stream = ReceiverStream::new(rx).map(move |event| {
            let _held = &guard;
            json(&event).map(|event| RunEvent { event }).map_err(|error| to_status(&error))
        });
        Ok(Response::new(stream.boxed()))
    }

    type ExchangeStream = Replies<Frame>;

    async fn exchange(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let permit = self.session()?;
        let mut frames = request.into_inner();
        let greeting = match frames.message().await?.and_then(|frame| frame.kind) {
            Some(Kind::Greeting(greeting)) => greeting,
            _ => {
                return Err(to_status(&AgentError::protocol(
                    "the conversation did not begin with a greeting",
                )));
            }
        };
        check_version(greeting.protocol_version, greeting.encoding_version, &greeting.software)?;
        let (tx, rx) = mpsc::channel(FRAMES_IN_FLIGHT);
        let frames =
            frames.map(|frame| frame.map_err(|status| from_status(&status, "the other end"))).boxed();
        let timeout = self.agent.limits().peer_timeout;
        if greeting.rendezvous.is_empty() {
            let agent = self.agent.clone();
            tokio::spawn(async move {
                let _permit = permit;
                if let Err(error) = agent.serve_source(Link::new(tx, frames, Role::Target, timeout)).await {
                    tracing::warn!(kind = error.kind.as_str(), "a conversation ended early: {error}");
                }
            });
        } else {
            let waiting = self.waiting().remove(&greeting.rendezvous);
            let link = Link::new(tx, frames, Role::Source, timeout);
            if waiting.is_none_or(|waiting| waiting.send(link).is_err()) {
                return Err(to_status(&AgentError::protocol("no run waits for this source")));
            }
        }
        Ok(Response::new(ReceiverStream::new(rx).map(Ok).boxed()))
    }
}
