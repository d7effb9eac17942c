//! An agent on another machine: dialled over gRPC, one HTTP/2 connection for all its tables.

use std::error::Error as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::super::conversation::failed_event;
use super::super::error::{AgentError, FailureKind};
use super::super::event::{Event, Task, UndoTask};
use super::super::handle::{Agent, AgentHandle, SourceEnd};
use super::super::listed::Listed;
use super::super::local::LEFT_OUT_MAX;
use super::super::proto::agent_client::AgentClient;
use super::super::proto::{
    DescribeManyRequest, DescribeRequest, Frame, Greeting, HelloRequest, MeasureRequest, RunEvent,
    RunRequest, TablesRequest, TaskFrame, UndoRequest, frame::Kind, run_request::Peer, task_frame,
};
use super::super::session::link::{FRAMES_IN_FLIGHT, Link};
use super::super::session::wire::{Described, pack_json, unpack_json, version_mismatch};
use super::super::{PROTOCOL_VERSION, SOFTWARE};
use super::dial::dial;
use super::rendezvous::new_word;
use super::security::{ClientSecurity, PeerToken};
use super::status::{causes, from_status};
use super::task_stream::acknowledging;
use crate::model::{Answer, ENCODING_VERSION, Question, Role, ServerInfo, TableName, TableSchema};

/// The first answer needs one short query of the agent's database; what is no agent gives none at all.
const HELLO_TIMEOUT: Duration = Duration::from_secs(20);
/// After a conversation: until the peer has taken our last frames and closed its half. Then it is cut off.
const LINGER: Duration = Duration::from_secs(2);
/// Describing a schema of thousands of tables takes a while; nothing unary takes longer.
const UNARY_TIMEOUT: Duration = Duration::from_secs(60);
/// Some hundred tables of a catalog that may be slow.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(600);
/// A total may have to read a whole table; pings find a peer that is gone.
const MEASURE_TIMEOUT: Duration = Duration::from_secs(3_600);
/// Far above any honest message: frontiers are cut at some ten kilobytes and rows at 256 KiB; the largest are the keys of
/// one question and the list of a schema's tables. A peer cannot make this end hold more than that.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 << 20;
const EVENTS_AHEAD: usize = 64;

/// Shows the token with every call.
#[derive(Debug, Clone)]
struct ShowToken(Option<PeerToken>);

impl Interceptor for ShowToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let header = token
                .header()
                .parse()
                .map_err(|_| Status::invalid_argument("the token is no header value"))?;
            request.metadata_mut().insert("authorization", header);
        }
        Ok(request)
    }
}

/// Whom a target's agent reconciles with.
#[derive(Debug, Clone)]
pub(super) enum PeerRef {
    /// The source's agent, to be dialled.
    Address(String),
    /// The source's agent will dial in with this word.
    Rendezvous(String),
}

#[derive(Debug, Clone)]
pub struct RemoteAgent {
    client: AgentClient<InterceptedService<Channel, ShowToken>>,
    /// As the user wrote it.
    address: String,
    server: ServerInfo,
    may_write: bool,
    peer_timeout: Duration,
}

impl RemoteAgent {
    /// Dials `grpc://host:port` or `grpcs://host:port` and says hello.
    pub async fn connect(
        address: &str,
        security: &ClientSecurity,
        peer_timeout: Duration,
    ) -> Result<Self, AgentError> {
        let channel = dial(address, security, peer_timeout).await?;
        let mut client = AgentClient::with_interceptor(channel, ShowToken(security.token.clone()))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let hello = HelloRequest {
            protocol_version: PROTOCOL_VERSION,
            encoding_version: ENCODING_VERSION,
            software: SOFTWARE.to_owned(),
        };
        let reply = within(address, HELLO_TIMEOUT, client.hello(hello)).await?;
        let reply = reply.map_err(|status| not_admitted(&status, address))?.into_inner();
        if reply.protocol_version != PROTOCOL_VERSION || reply.encoding_version != ENCODING_VERSION {
            return Err(version_mismatch(
                reply.protocol_version,
                reply.encoding_version,
                &format!("the agent at {address}"),
            ));
        }
        let server = parse(&reply.server, address)?;
        Ok(Self { client, address: address.to_owned(), server, may_write: reply.may_write, peer_timeout })
    }

    /// Has the agent run as the target. The events end with `Done` or `Failed`, whatever becomes of the agent.
    /// Dropping the receiver cancels the run there.
    async fn run(&self, task: &Task, peer: PeerRef) -> Result<mpsc::Receiver<Event>, AgentError> {
        let peer = match peer {
            PeerRef::Address(address) => Peer::Address(address),
            PeerRef::Rendezvous(word) => Peer::Rendezvous(word),
        };
        let request = RunRequest { task: pack_json(task)?.into(), peer: Some(peer) };
        let (frames, rx) = task_frames(task_frame::Kind::Run(request))?;
        let mut client = self.client.clone();
        let call = client.run(ReceiverStream::new(rx));
        let stream = answer(&self.address, UNARY_TIMEOUT, call).await?;
        Ok(self.events(stream, frames))
    }

    /// `frames` is open for as long as events come: acknowledgements go there.
    fn events(
        &self,
        mut stream: Streaming<RunEvent>,
        frames: mpsc::Sender<TaskFrame>,
    ) -> mpsc::Receiver<Event> {
        let (tx, rx) = mpsc::channel(EVENTS_AHEAD);
        let address = self.address.clone();
        tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    message = stream.message() => message,
                    () = tx.closed() => return,
                };
                let event = match message {
                    Ok(Some(event)) => parse(&event.event, &address),
                    Ok(None) => Err(AgentError::new(
                        FailureKind::Unreachable,
                        format!("the agent at {address} stopped before it told how the run ended"),
                    )
                    .with_hint("see its log; then run the command again, it is safe to repeat")),
                    Err(status) => Err(from_status(&status, &address)),
                };
                let event = acknowledging(event.unwrap_or_else(failed_event), &frames);
                let last = matches!(event, Event::Done { .. } | Event::Failed { .. });
                if tx.send(event).await.is_err() || last {
                    return;
                }
            }
        });
        rx
    }

    /// Opens an exchange: as the target, or, with a rendezvous, as the source of a waiting run.
    pub(super) async fn exchange(&self, rendezvous: Option<&str>) -> Result<Link, AgentError> {
        let (tx, rx) = mpsc::channel(FRAMES_IN_FLIGHT);
        let greeting = Greeting {
            protocol_version: PROTOCOL_VERSION,
            encoding_version: ENCODING_VERSION,
            software: SOFTWARE.to_owned(),
            rendezvous: rendezvous.unwrap_or_default().to_owned(),
        };
        let greeting = Frame { kind: Some(Kind::Greeting(greeting)), hop: 0 };
        tx.try_send(greeting)
            .map_err(|_| AgentError::new(FailureKind::Resource, "a new link cannot be full"))?;
        let mut client = self.client.clone();
        let frames = answer(&self.address, UNARY_TIMEOUT, client.exchange(ReceiverStream::new(rx))).await?;
        let address = self.address.clone();
        let frames =
            Lingering::new(frames).map(move |frame| frame.map_err(|status| from_status(&status, &address)));
        let peer = if rendezvous.is_some() { Role::Target } else { Role::Source };
        Ok(Link::new(tx, frames.boxed(), peer, self.peer_timeout))
    }

    /// Has the agent take a run back. As `run`.
    async fn undo(&self, task: &UndoTask) -> Result<mpsc::Receiver<Event>, AgentError> {
        let (frames, rx) = task_frames(task_frame::Kind::Undo(UndoRequest { task: json(task)? }))?;
        let mut client = self.client.clone();
        let call = client.undo(ReceiverStream::new(rx));
        let stream = answer(&self.address, UNARY_TIMEOUT, call).await?;
        Ok(self.events(stream, frames))
    }

    /// Nobody can dial the source, so it dials the target: both find each other there by a word.
    async fn meet(&self, source: &AgentHandle, task: &Task) -> Result<mpsc::Receiver<Event>, AgentError> {
        let word = new_word()?;
        let peer = PeerRef::Rendezvous(word.clone());
        let mut told = self.run(task, peer).await.map_err(|error| error.on(Role::Target))?;
        let link = self.exchange(Some(&word)).await.map_err(|error| error.on(Role::Target))?;
        let serving = source.serve_source_on(link)?;
        let (events, rx) = mpsc::channel(EVENTS_AHEAD);
        tokio::spawn(async move {
            let _serving = serving;
            let forward = async {
                while let Some(event) = told.recv().await {
                    if events.send(event).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = forward => {}
                () = events.closed() => {}
            }
        });
        Ok(rx)
    }
}

#[async_trait]
impl Agent for RemoteAgent {
    async fn server(&self) -> Result<ServerInfo, AgentError> {
        Ok(self.server.clone())
    }

    fn may_write(&self) -> bool {
        self.may_write
    }

    async fn tables(&self, schema: Option<&str>) -> Result<Vec<TableName>, AgentError> {
        Ok(self.listed(schema).await?.tables)
    }

    async fn listed(&self, schema: Option<&str>) -> Result<Listed, AgentError> {
        let request = TablesRequest { schema: schema.unwrap_or_default().to_owned() };
        let mut reply = answer(&self.address, UNARY_TIMEOUT, self.client.clone().tables(request)).await?;
        reply.left_out.truncate(LEFT_OUT_MAX);
        let tables: Result<_, _> = reply.tables.iter().map(|table| parse(table, &self.address)).collect();
        Ok(Listed { tables: tables?, left_out: reply.left_out, partial: reply.partial })
    }

    async fn describe(&self, table: &TableName) -> Result<TableSchema, AgentError> {
        let request = DescribeRequest { table: json(table)? };
        let reply = answer(&self.address, UNARY_TIMEOUT, self.client.clone().describe(request)).await?;
        parse(&reply.schema, &self.address)
    }

    async fn describe_many(
        &self,
        tables: &[TableName],
    ) -> Result<Vec<Result<TableSchema, AgentError>>, AgentError> {
        let request = DescribeManyRequest { tables: pack_json(&tables)?.into() };
        let reply =
            answer(&self.address, DESCRIBE_TIMEOUT, self.client.clone().describe_many(request)).await?;
        let described: Vec<Described> = unpack_json(&reply.tables, "descriptions")?;
        if described.len() != tables.len() {
            return Err(AgentError::protocol(
                "the agent described another number of tables than were asked for",
            ));
        }
        Ok(described.into_iter().map(Described::into_result).collect())
    }

    async fn measure(&self, question: &Question) -> Result<Answer, AgentError> {
        let request = MeasureRequest { question: json(question)? };
        let reply = answer(&self.address, MEASURE_TIMEOUT, self.client.clone().measure(request)).await?;
        parse(&reply.answer, &self.address)
    }

    fn address(&self) -> Option<&str> {
        Some(&self.address)
    }

    async fn open_source(&self, _: Duration) -> Result<SourceEnd, AgentError> {
        Ok(SourceEnd { link: self.exchange(None).await?, serving: None })
    }

    async fn run_as_target(
        &self,
        source: &AgentHandle,
        task: Task,
    ) -> Result<mpsc::Receiver<Event>, AgentError> {
        match source.address() {
            Some(address) => self
                .run(&task, PeerRef::Address(address.to_owned()))
                .await
                .map_err(|error| error.on(Role::Target)),
            None => self.meet(source, &task).await,
        }
    }

    async fn take_back(&self, task: UndoTask) -> Result<mpsc::Receiver<Event>, AgentError> {
        self.undo(&task).await.map_err(|error| error.on(Role::Target))
    }
}

/// The frames of a call, of which the first is in.
fn task_frames(
    first: task_frame::Kind,
) -> Result<(mpsc::Sender<TaskFrame>, mpsc::Receiver<TaskFrame>), AgentError> {
    let (frames, rx) = mpsc::channel(FRAMES_IN_FLIGHT);
    frames
        .try_send(TaskFrame { kind: Some(first) })
        .map_err(|_| AgentError::new(FailureKind::Resource, "a new call cannot be full"))?;
    Ok((frames, rx))
}

/// The peer's half of a conversation. Dropping it early would reset the whole stream, and our last frames with it, the
/// reason of a failure among them; so it is read to its end for a moment longer, with nobody listening.
struct Lingering(Option<Streaming<Frame>>);

impl Lingering {
    fn new(frames: Streaming<Frame>) -> Self {
        Self(Some(frames))
    }
}

impl Stream for Lingering {
    type Item = Result<Frame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(frames) = &mut self.0 else { return Poll::Ready(None) };
        let frame = ready!(frames.poll_next_unpin(context));
        if !matches!(frame, Some(Ok(_))) {
            self.0 = None;
        }
        Poll::Ready(frame)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if let (Some(mut frames), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                let rest = async { while let Some(Ok(_)) = frames.next().await {} };
                tokio::time::timeout(LINGER, rest).await
            });
        }
    }
}

/// The answer to one call, or what stood in its way.
async fn answer<T>(
    address: &str,
    patience: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, AgentError> {
    let answered = within(address, patience, call).await?;
    Ok(answered.map_err(|status| from_status(&status, address))?.into_inner())
}

/// Not gRPC's own deadline: tonic tells that one as a cancellation.
async fn within<T>(
    address: &str,
    patience: Duration,
    call: impl Future<Output = T>,
) -> Result<T, AgentError> {
    tokio::time::timeout(patience, call).await.map_err(|_| {
        let what = format!("the agent at {address} has not answered for {} s", patience.as_secs());
        AgentError::new(FailureKind::Timeout, what)
            .with_hint("is that address a trueup agent? If it is, look whether its database is blocked")
    })
}

/// Why the first call failed. TLS tells only now whether the peer takes our certificate.
fn not_admitted(status: &Status, address: &str) -> AgentError {
    let error = from_status(status, address);
    let Some(why) = status.source().map(causes) else { return error };
    if !address.starts_with("grpcs://") {
        return error
            .with_hint("is that address a trueup agent? If it was started with --cert, write grpcs://");
    }
    let certificate = "give --cert and --key-file of the CA that it was started with as --client-ca";
    if [
        "CertificateRequired",
        "BadCertificate",
        "CertificateExpired",
        "UnknownCA",
        "CertificateUnknown",
        "DecryptError",
    ]
    .iter()
    .any(|alert| why.contains(alert))
    {
        let what = format!(
            "the agent at {address} does not accept the certificate it was shown, or asks for one: {why}"
        );
        return AgentError::new(FailureKind::Refused, what).with_hint(certificate);
    }
    // The connection may break before the reason has arrived.
    error.with_hint(format!("see its log; if it asks for a certificate, {certificate}"))
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> Result<bytes::Bytes, AgentError> {
    serde_json::to_vec(value)
        .map(Into::into)
        .map_err(|error| AgentError::new(FailureKind::Usage, format!("cannot write a message: {error}")))
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], address: &str) -> Result<T, AgentError> {
    serde_json::from_slice(bytes)
        .map_err(|_| AgentError::protocol(format!("the agent at {address} sent a malformed message")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn silence_is_a_timeout_and_no_cancellation() {
        let silent = std::future::pending::<Result<Response<()>, Status>>();
        let error = answer("grpc://x:1", Duration::from_millis(10), silent).await.unwrap_err();
        assert_eq!(error.kind, FailureKind::Timeout);
        assert!(error.message.contains("grpc://x:1") && error.hint.is_some());
    }
}
