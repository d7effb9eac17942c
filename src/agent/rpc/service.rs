//! The calls of a listening agent, each handed to the agent behind it; errors become statuses, never panics.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};

use super::super::conversation::{failed_event, run_target, run_undo, serve_source};
use super::super::error::{AgentError, FailureKind};
use super::super::event::{Event, Task, UndoTask};
use super::super::listed::Listed;
use super::super::local::LocalAgent;
use super::super::proto::agent_server::Agent;
use super::super::proto::{
    DescribeManyReply, DescribeManyRequest, DescribeReply, DescribeRequest, Frame, Greeting, HelloReply,
    HelloRequest, MeasureReply, MeasureRequest, RunEvent, TablesReply, TablesRequest, TaskFrame, frame::Kind,
    run_request::Peer, task_frame,
};
use super::super::session::link::{FRAMES_IN_FLIGHT, Link};
use super::super::session::wire::{DESCRIBED_MAX, Described, pack_json, unpack_json, version_mismatch};
use super::super::{PROTOCOL_VERSION, SOFTWARE};
use super::client::{RemoteAgent, json};
use super::rendezvous::{Arrival, Rendezvous};
use super::security::{ClientSecurity, ServerSecurity};
use super::status::{from_status, to_status};
use super::task_stream::{self, Awaited};
use crate::model::{ENCODING_VERSION, Role, TableName};

/// A source that was announced dials in within this time.
const RENDEZVOUS_TIMEOUT: Duration = Duration::from_secs(30);
/// Whoever opens an exchange says at once who it is.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
const EVENTS_AHEAD: usize = 64;

pub(super) struct Service {
    agent: Arc<LocalAgent>,
    /// Whom this agent may dial, and what it shows there.
    security: ServerSecurity,
    peers: ClientSecurity,
    sessions: Arc<Semaphore>,
    sessions_max: u16,
    rendezvous: Rendezvous,
    /// The agent stops: what still goes on must end.
    ended: CancellationToken,
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    pub(super) fn new(
        agent: Arc<LocalAgent>,
        security: ServerSecurity,
        peers: ClientSecurity,
        sessions: u16,
        ended: CancellationToken,
    ) -> Self {
        let rendezvous = Rendezvous::default();
        let places = Arc::new(Semaphore::new(usize::from(sessions)));
        Self { agent, security, peers, sessions: places, sessions_max: sessions, rendezvous, ended }
    }

    fn session(&self) -> Result<OwnedSemaphorePermit, AgentError> {
        self.sessions.clone().try_acquire_owned().map_err(|_| {
            let what = format!("this agent has {} conversations already", self.sessions_max);
            AgentError::new(FailureKind::Resource, what).with_hint("try again when some have ended")
        })
    }

    /// Plays the source on a link until the peer closes it or the agent stops.
    fn source(&self, link: Link, permit: OwnedSemaphorePermit) -> impl Future<Output = ()> + use<> {
        let (agent, ended) = (self.agent.clone(), self.ended.clone());
        async move {
            let _permit = permit;
            let sender = link.sender();
            let served = tokio::select! {
                served = serve_source(&agent, link) => served,
                () = ended.cancelled() => {
                    let error = stopped(Role::Source);
                    sender.fail(&error).await;
                    Err(error)
                }
            };
            if let Err(error) = served {
                tracing::warn!(kind = error.kind.as_str(), "a conversation ended early: {error}");
            }
        }
    }

    /// Plays the target of one run, from the meeting with its source to its last event.
    fn target(
        &self,
        task: Task,
        meeting: Meeting,
        events: mpsc::Sender<Event>,
    ) -> impl Future<Output = ()> + use<> {
        let (agent, peers, ended) = (self.agent.clone(), self.peers.clone(), self.ended.clone());
        async move {
            let run = async {
                match meeting.link(&peers, agent.limits().peer_timeout).await {
                    Ok(link) => run_target(&agent, task, link, events.clone()).await,
                    Err(error) => drop(events.send(failed_event(error)).await),
                }
            };
            tokio::select! {
                () = run => {}
                () = ended.cancelled() => drop(events.send(failed_event(stopped(Role::Target))).await),
            }
        }
    }
}

fn stopped(side: Role) -> AgentError {
    AgentError::new(FailureKind::Unreachable, format!("the {side} agent was stopped"))
        .with_hint("start it again; then run the command again, it is safe to repeat")
        .on(side)
}

/// How a run comes to its source.
enum Meeting {
    Dial(String),
    Await(Arrival),
}

impl Meeting {
    async fn link(self, peers: &ClientSecurity, timeout: Duration) -> Result<Link, AgentError> {
        match self {
            Self::Await(arrival) => arrival.link(RENDEZVOUS_TIMEOUT).await,
            Self::Dial(address) => {
                let source = RemoteAgent::connect(&address, peers, timeout).await;
                match source {
                    Ok(source) => source.exchange(None).await,
                    Err(error) => Err(error),
                }
                .map_err(|error| error.on(Role::Source))
            }
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, AgentError> {
    serde_json::from_slice(bytes).map_err(|_| AgentError::protocol("the caller sent a malformed message"))
}

fn check_version(protocol: u32, encoding: u32, software: &str) -> Result<(), AgentError> {
    if protocol == PROTOCOL_VERSION && encoding == ENCODING_VERSION {
        return Ok(());
    }
    // The name is the peer's own word: kept short and plain.
    let name: String = software.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(40).collect();
    Err(version_mismatch(protocol, encoding, &format!("the caller ({name})")))
}

async fn greeting(frames: &mut Streaming<Frame>) -> Result<Greeting, Status> {
    let first = tokio::time::timeout(GREETING_TIMEOUT, frames.message()).await.map_err(|_| {
        to_status(&AgentError::new(
            FailureKind::Timeout,
            "the conversation did not begin with a greeting in time",
        ))
    })?;
    match first?.and_then(|frame| frame.kind) {
        Some(Kind::Greeting(greeting)) => Ok(greeting),
        _ => Err(to_status(&AgentError::protocol("the conversation did not begin with a greeting"))),
    }
}

/// What a call is to do.
async fn first_frame(frames: &mut Streaming<TaskFrame>) -> Result<Option<task_frame::Kind>, Status> {
    tokio::time::timeout(GREETING_TIMEOUT, task_stream::first(frames)).await.map_err(|_| {
        to_status(&AgentError::new(FailureKind::Timeout, "the call did not say in time what it is to do"))
    })?
}

/// The events of work that goes on as long as somebody listens.
fn told(
    work: impl Future<Output = ()> + Send + 'static,
    permit: OwnedSemaphorePermit,
    events: mpsc::Receiver<Event>,
    acknowledgements: Streaming<TaskFrame>,
) -> Response<Replies<RunEvent>> {
    let awaited = Awaited::default();
    let receiving = AbortOnDropHandle::new(tokio::spawn(awaited.clone().receive(acknowledgements)));
    let work = tokio::spawn(async move {
        let _permit = permit;
        work.await;
    });
    // A coordinator that goes away drops this stream, and with it the work.
    let guard = AbortOnDropHandle::new(work);
    let stream = ReceiverStream::new(events).map(move |event| {
        let _held = (&guard, &receiving);
        awaited.sends(&event);
        json(&event).map(|event| RunEvent { event }).map_err(|error| to_status(&error))
    });
    Response::new(stream.boxed())
}

#[tonic::async_trait]
impl Agent for Service {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let hello = request.into_inner();
        let reply = async {
            check_version(hello.protocol_version, hello.encoding_version, &hello.software)?;
            let server = self.agent.server().await?;
            Ok(HelloReply {
                protocol_version: PROTOCOL_VERSION,
                encoding_version: ENCODING_VERSION,
                software: SOFTWARE.to_owned(),
                server: json(&server)?,
                may_write: self.agent.may_write(),
            })
        };
        reply.await.map(Response::new).map_err(|error: AgentError| to_status(&error))
    }

    async fn tables(&self, request: Request<TablesRequest>) -> Result<Response<TablesReply>, Status> {
        let schema = request.into_inner().schema;
        let reply = async {
            let schema = (!schema.is_empty()).then_some(schema.as_str());
            let Listed { tables, left_out, partial } = self.agent.listed(schema).await?;
            Ok(TablesReply { tables: tables.iter().map(json).collect::<Result<_, _>>()?, left_out, partial })
        };
        reply.await.map(Response::new).map_err(|error: AgentError| to_status(&error))
    }

    async fn describe(&self, request: Request<DescribeRequest>) -> Result<Response<DescribeReply>, Status> {
        let table = request.into_inner().table;
        let reply = async {
            let schema = self.agent.describe(&parse(&table)?).await?;
            Ok(DescribeReply { schema: json(&schema)? })
        };
        reply.await.map(Response::new).map_err(|error: AgentError| to_status(&error))
    }

    async fn describe_many(
        &self,
        request: Request<DescribeManyRequest>,
    ) -> Result<Response<DescribeManyReply>, Status> {
        let reply = async {
            let _permit = self.session()?;
            let tables: Vec<TableName> = unpack_json(&request.get_ref().tables, "names")?;
            if tables.len() > DESCRIBED_MAX {
                return Err(AgentError::protocol("more tables than one question may name"));
            }
            let described = self.agent.describe_many(&tables).await;
            let described: Vec<Described> = described.into_iter().map(Described::from).collect();
            Ok(DescribeManyReply { tables: pack_json(&described)?.into() })
        };
        reply.await.map(Response::new).map_err(|error: AgentError| to_status(&error))
    }

    async fn measure(&self, request: Request<MeasureRequest>) -> Result<Response<MeasureReply>, Status> {
        let question = request.into_inner().question;
        let reply = async {
            let _permit = self.session()?;
            let answer = self.agent.measure(&parse(&question)?).await?;
            Ok(MeasureReply { answer: json(&answer)? })
        };
        reply.await.map(Response::new).map_err(|error: AgentError| to_status(&error))
    }

    type RunStream = Replies<RunEvent>;

    async fn run(&self, request: Request<Streaming<TaskFrame>>) -> Result<Response<Self::RunStream>, Status> {
        let mut frames = request.into_inner();
        let Some(task_frame::Kind::Run(request)) = first_frame(&mut frames).await? else {
            return Err(to_status(&AgentError::protocol("the call did not begin with a run")));
        };
        let prepare = || {
            let task: Task = unpack_json(&request.task, "task")?;
            if task.writes() {
                self.agent.permit_write()?;
            }
            let permit = self.session()?;
            let meeting = match request.peer {
                Some(Peer::Address(address)) => {
                    self.security.check_dial(&address, &self.peers)?;
                    Meeting::Dial(address)
                }
                Some(Peer::Rendezvous(word)) => Meeting::Await(self.rendezvous.announce(&word)?),
                None => return Err(AgentError::protocol("the run names no peer")),
            };
            Ok((task, permit, meeting))
        };
        let (task, permit, meeting) = prepare().map_err(|error: AgentError| to_status(&error))?;
        let (events, rx) = mpsc::channel(EVENTS_AHEAD);
        Ok(told(self.target(task, meeting, events), permit, rx, frames))
    }

    type UndoStream = Replies<RunEvent>;

    async fn undo(
        &self,
        request: Request<Streaming<TaskFrame>>,
    ) -> Result<Response<Self::UndoStream>, Status> {
        let mut frames = request.into_inner();
        let Some(task_frame::Kind::Undo(request)) = first_frame(&mut frames).await? else {
            return Err(to_status(&AgentError::protocol("the call did not begin with an undo")));
        };
        let prepare = || {
            let task: UndoTask = parse(&request.task)?;
            if !task.dry_run {
                self.agent.permit_write()?;
            }
            Ok((task, self.session()?))
        };
        let (task, permit) = prepare().map_err(|error: AgentError| to_status(&error))?;
        let (events, rx) = mpsc::channel(EVENTS_AHEAD);
        let (agent, ended) = (self.agent.clone(), self.ended.clone());
        let work = async move {
            tokio::select! {
                () = run_undo(&agent, task, events.clone()) => {}
                () = ended.cancelled() => drop(events.send(failed_event(stopped(Role::Target))).await),
            }
        };
        Ok(told(work, permit, rx, frames))
    }

    type ExchangeStream = Replies<Frame>;

    async fn exchange(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let mut frames = request.into_inner();
        let Greeting { protocol_version, encoding_version, software, rendezvous } =
            greeting(&mut frames).await?;
        check_version(protocol_version, encoding_version, &software).map_err(|error| to_status(&error))?;
        let (tx, rx) = mpsc::channel(FRAMES_IN_FLIGHT);
        let frames =
            frames.map(|frame| frame.map_err(|status| from_status(&status, "the other end"))).boxed();
        let timeout = self.agent.limits().peer_timeout;
        if !rendezvous.is_empty() {
            // The run that waits has its place among the conversations already.
            let link = Link::new(tx, frames, Role::Source, timeout);
            self.rendezvous.arrive(&rendezvous, link).map_err(|error| to_status(&error))?;
            return Ok(Response::new(ReceiverStream::new(rx).map(Ok).boxed()));
        }
        let permit = self.session().map_err(|error| to_status(&error))?;
        let work = tokio::spawn(self.source(Link::new(tx, frames, Role::Target, timeout), permit));
        // A target that goes away drops this stream, and with it the work.
        let guard = AbortOnDropHandle::new(work);
        let stream = ReceiverStream::new(rx).map(move |frame| {
            let _held = &guard;
            Ok(frame)
        });
        Ok(Response::new(stream.boxed()))
    }
}
