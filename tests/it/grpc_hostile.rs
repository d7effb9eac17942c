//! Peers that break the rules: other versions, other services, garbage, silence, stolen meetings.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use trueup::agent::proto::agent_client::AgentClient;
use trueup::agent::proto::agent_server::{Agent, AgentServer};
use trueup::agent::proto::{
    Accepted, Close, DescribeManyReply, DescribeManyRequest, DescribeReply, DescribeRequest, Failure, Fetch,
    Frame, Greeting, HelloReply, HelloRequest, MeasureReply, MeasureRequest, Open, OpenMany, Recorded, Roots,
    Rows, RunEvent, RunRequest, StreamRun, TablesReply, TablesRequest, TaskFrame, frame::Kind,
    run_request::Peer, task_frame,
};
use trueup::agent::security::ClientSecurity;
use trueup::agent::server::ServerLimits;
use trueup::agent::wire::{Held, pack_json, pack_keys, pack_roots};
use trueup::agent::{
    AgentHandle, Event, PROTOCOL_VERSION, RemoteAgent, Serves, TableTask, Task, in_process, start,
};
use trueup::merkle::RootDigest;
use trueup::model::{ENCODING_VERSION, Key, Role};

use super::support::agents::{
    Listen, Listening, PATIENCE, dial, engine_of, last, local, outcome, serving, task,
};
use super::support::servers::SqliteDb;

fn database() -> SqliteDb {
    let db = SqliteDb::create();
    db.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT NOT NULL); INSERT INTO t VALUES (1, 'x'), (2, 'y')",
    );
    db
}

async fn raw(listening: &Listening) -> AgentClient<Channel> {
    let channel =
        Channel::from_shared(format!("http://{}", listening.address)).unwrap().connect().await.unwrap();
    AgentClient::new(channel).max_encoding_message_size(usize::MAX)
}

fn frame(kind: Kind) -> Frame {
    Frame { kind: Some(kind), hop: 0 }
}

fn greeting(rendezvous: &str) -> Frame {
    frame(Kind::Greeting(Greeting {
        protocol_version: PROTOCOL_VERSION,
        encoding_version: ENCODING_VERSION,
        software: "test".to_owned(),
        rendezvous: rendezvous.to_owned(),
    }))
}

/// The error that a status tells.
fn told(status: &Status) -> Failure {
    prost::Message::decode(status.details()).unwrap_or_else(|_| panic!("{status:?} tells no failure"))
}

async fn plan_of(db: &SqliteDb) -> TableTask {
    let here = in_process(local(engine_of(db).await));
    task(&here, &here, "t").await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_is_refused_by_both_names() {
    let db = database();
    let listening = Listening::start(local(engine_of(&db).await)).await;
    let mut client = raw(&listening).await;
    for (protocol, encoding) in
        [(PROTOCOL_VERSION + 1, ENCODING_VERSION), (PROTOCOL_VERSION, ENCODING_VERSION + 7), (0, 0)]
    {
        let software = "trueup 99\n\u{1b}[31m".to_owned();
        let hello = HelloRequest {
            protocol_version: protocol,
            encoding_version: encoding,
            software: software.clone(),
        };
        let hello = client.hello(hello).await.unwrap_err();
        let greeting = Greeting {
            protocol_version: protocol,
            encoding_version: encoding,
            software,
            rendezvous: String::new(),
        };
        let exchange =
            client.exchange(tokio_stream::once(frame(Kind::Greeting(greeting)))).await.unwrap_err();
        for status in [hello, exchange] {
            assert_eq!(status.code(), Code::FailedPrecondition);
            let Failure { kind, message, hint } = told(&status);
            assert_eq!(kind, "version");
            for part in [
                format!("protocol {protocol} and encoding {encoding}"),
                format!("protocol {PROTOCOL_VERSION} and encoding {ENCODING_VERSION}"),
                "trueup 99".to_owned(),
            ] {
                assert!(message.contains(&part), "{message}");
            }
            assert!(!message.contains(['\n', '\u{1b}']), "{message:?}");
            assert!(!hint.is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_target_gets_an_error_and_the_agent_goes_on() {
    let db = database();
    // One place only: whoever keeps it after its conversation shows at once.
    let limits = ServerLimits { sessions: 1, ..ServerLimits::default() };
    let listening = Listen { limits, ..Listen::default() }.start(local(engine_of(&db).await)).await;
    let task = plan_of(&db).await;
    let plan: Bytes = pack_json(&task.plan).unwrap().into();
    let open = |plan: &Bytes, key: &[u8]| {
        frame(Kind::Open(Open { plan: plan.clone(), session_key: key.to_vec().into() }))
    };
    let good = || open(&plan, &[7; 32]);
    let locate = |bytes: &[u8]| frame(Kind::Locate(bytes.to_vec().into()));
    let mut many: Vec<Key> = Vec::new();
    many.resize(30_000, Key::from(&b"k"[..]));
    let fetch = |keys: Vec<u8>| frame(Kind::Fetch(Fetch { keys: keys.into(), ..Fetch::default() }));
    let one = pack_keys([Key::from(&b"k"[..])].iter()).unwrap();
    let cells = |cells: &[u8]| {
        frame(Kind::Fetch(Fetch {
            keys: one.clone().into(),
            cells: cells.to_vec().into(),
            ..Fetch::default()
        }))
    };
    let mut other_version = task.plan.clone();
    other_version.encoding_version += 1;
    let other_version: Bytes = pack_json(&other_version).unwrap().into();
    let mut no_key = task.plan.clone();
    no_key.key_len = 0;
    let keyless = no_key.clone();
    let no_key: Bytes = pack_json(&no_key).unwrap().into();
    let open_many = |plans: &[u8]| {
        frame(Kind::OpenMany(OpenMany { plans: plans.to_vec().into(), session_key: vec![7; 32].into() }))
    };
    let rows = Rows { rows: Bytes::new(), last: true };
    let conversations: Vec<(&str, Vec<Frame>, &str)> = vec![
        ("garbage for a locate message", vec![good(), locate(&[0xff; 300])], "protocol"),
        ("an empty locate message", vec![good(), locate(&[])], "protocol"),
        ("locate before open", vec![locate(&[1])], "protocol"),
        ("accepted instead of open", vec![frame(Kind::Accepted(Accepted {}))], "protocol"),
        ("a second greeting", vec![good(), greeting("")], "protocol"),
        ("a second open", vec![good(), good()], "protocol"),
        ("rows to the source", vec![good(), frame(Kind::Rows(rows))], "protocol"),
        ("a plan of garbage", vec![open(&Bytes::from_static(b"garbage"), &[7; 32])], "protocol"),
        ("a plan of another encoding", vec![open(&other_version, &[7; 32])], "version"),
        ("a plan without a key", vec![open(&no_key, &[7; 32])], "protocol"),
        ("a short session key", vec![open(&plan, &[7; 31])], "protocol"),
        (
            "a run that was not announced",
            vec![good(), frame(Kind::StreamRun(StreamRun { run_id: 9 }))],
            "protocol",
        ),
        ("keys of garbage", vec![good(), fetch(vec![1; 50])], "protocol"),
        ("cells of garbage", vec![good(), cells(&[0xff; 20])], "protocol"),
        ("cells of more rows than keys", vec![good(), cells(&[0, 0, 0])], "protocol"),
        ("too many keys", vec![good(), fetch(pack_keys(many.iter()).unwrap())], "protocol"),
        ("an empty frame", vec![good(), Frame { kind: None, hop: 0 }], "protocol"),
        ("plans of garbage", vec![open_many(b"garbage")], "protocol"),
        ("plans without a key", vec![open_many(&pack_json(&[&keyless]).unwrap())], "protocol"),
        ("too many plans", vec![open_many(&pack_json(&vec![&task.plan; 1_001]).unwrap())], "protocol"),
        (
            "a question to a roll call",
            vec![open_many(&pack_json(&[&task.plan]).unwrap()), locate(&[1])],
            "protocol",
        ),
    ];
    for (what, frames, expected) in conversations {
        let (tx, rx) = mpsc::channel(64);
        tx.send(greeting("")).await.unwrap();
        let mut replies = raw(&listening).await.exchange(ReceiverStream::new(rx)).await.unwrap().into_inner();
        for frame in frames {
            tx.send(frame).await.unwrap();
        }
        let mut failure = None;
        while let Some(reply) = tokio::time::timeout(PATIENCE, replies.next()).await.expect(what) {
            if let Some(Kind::Failure(told)) = reply.unwrap().kind {
                failure = Some(told);
            }
        }
        let failure = failure.unwrap_or_else(|| panic!("{what}: no failure was told"));
        assert_eq!(failure.kind, expected, "{what}: {failure:?}");
    }
    // Too large to be taken in at all.
    let (tx, rx) = mpsc::channel(4);
    tx.send(greeting("")).await.unwrap();
    let mut replies = raw(&listening).await.exchange(ReceiverStream::new(rx)).await.unwrap().into_inner();
    tx.send(locate(&vec![1; 17 << 20])).await.unwrap();
    while let Some(Ok(_)) = tokio::time::timeout(PATIENCE, replies.next()).await.unwrap() {}
    drop((tx, replies));
    // Gone without a word, in the midst of it; the place comes back by itself.
    let (tx, rx) = mpsc::channel(4);
    tx.send(greeting("")).await.unwrap();
    let replies = raw(&listening).await.exchange(ReceiverStream::new(rx)).await.unwrap();
    tx.send(good()).await.unwrap();
    drop((tx, replies));
    tokio::time::sleep(Duration::from_millis(300)).await;

    let there = listening.handle().await;
    let here = in_process(local(engine_of(&db).await));
    assert!(outcome(start(&there, &here, task).await.unwrap()).await.proved);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_begins_with_a_greeting() {
    let db = database();
    let listening = Listening::start(local(engine_of(&db).await)).await;
    let mut client = raw(&listening).await;
    let frames: Vec<Vec<Frame>> =
        vec![vec![], vec![frame(Kind::Close(Close {}))], vec![Frame { kind: None, hop: 0 }]];
    for frames in frames {
        let status = client.exchange(tokio_stream::iter(frames)).await.unwrap_err();
        assert_eq!(told(&status).kind, "protocol");
    }
    // Silence is not waited for.
    let (_silent, rx) = mpsc::channel(1);
    let waited = tokio::time::timeout(PATIENCE, client.exchange(ReceiverStream::new(rx))).await.unwrap();
    assert_eq!(told(&waited.unwrap_err()).kind, "timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meeting_cannot_be_guessed_stolen_or_used_twice() {
    let db = database();
    let listening = Listening::start(local(engine_of(&db).await)).await;
    let mut client = raw(&listening).await;
    let task: Bytes = pack_json(&Task::from(plan_of(&db).await)).unwrap().into();
    let call =
        |request: RunRequest| tokio_stream::once(TaskFrame { kind: Some(task_frame::Kind::Run(request)) });
    let run =
        |word: &str| call(RunRequest { task: task.clone(), peer: Some(Peer::Rendezvous(word.to_owned())) });
    let word = "0123456789abcdef0123456789abcdef";

    // No run waits.
    for unknown in [word, "x", &"y".repeat(10_000)] {
        let status = client.exchange(tokio_stream::once(greeting(unknown))).await.unwrap_err();
        assert_eq!(told(&status).kind, "protocol");
    }
    // A word that could be guessed, and no peer at all.
    for guessable in ["", "1", "0123456789abcdef"] {
        assert_eq!(told(&client.run(run(guessable)).await.unwrap_err()).kind, "protocol");
    }
    let nobody = RunRequest { task: task.clone(), peer: None };
    assert_eq!(told(&client.run(call(nobody)).await.unwrap_err()).kind, "protocol");
    let garbage =
        RunRequest { task: Bytes::from_static(b"{}"), peer: Some(Peer::Rendezvous(word.to_owned())) };
    assert_eq!(told(&client.run(call(garbage)).await.unwrap_err()).kind, "protocol");

    // What does not begin with a run, or says nothing at all.
    let acknowledged =
        TaskFrame { kind: Some(task_frame::Kind::Recorded(Recorded { batch: 1, seq: 1, failed: false })) };
    for first in [acknowledged, TaskFrame { kind: None }] {
        assert_eq!(told(&client.run(tokio_stream::once(first.clone())).await.unwrap_err()).kind, "protocol");
        assert_eq!(told(&client.undo(tokio_stream::once(first)).await.unwrap_err()).kind, "protocol");
    }
    assert_eq!(told(&client.run(tokio_stream::empty()).await.unwrap_err()).kind, "protocol");

    // A word that is waited for belongs to its run.
    let waiting = client.run(run(word)).await.unwrap();
    assert_eq!(told(&client.run(run(word)).await.unwrap_err()).kind, "protocol");
    let (_held, rx) = mpsc::channel(4);
    _held.send(greeting(word)).await.unwrap();
    let _met = client.exchange(ReceiverStream::new(rx)).await.unwrap();
    let status = client.exchange(tokio_stream::once(greeting(word))).await.unwrap_err();
    assert_eq!(told(&status).kind, "protocol", "the word is used up");
    drop(waiting);

    // A run that was given up is not met any more.
    let other = "f".repeat(32);
    drop(client.run(run(&other)).await.unwrap());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let status = client.exchange(tokio_stream::once(greeting(&other))).await.unwrap_err();
    assert_eq!(told(&status).kind, "protocol");
}

/// An agent that says hello as it should, and in an exchange what it is told to.
struct Scripted {
    hello: HelloReply,
    replies: Vec<Result<Frame, Status>>,
    /// Then: close, or fall silent.
    silent: bool,
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Agent for Scripted {
    async fn hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        Ok(Response::new(self.hello.clone()))
    }

    async fn tables(&self, _: Request<TablesRequest>) -> Result<Response<TablesReply>, Status> {
        Ok(Response::new(TablesReply {
            tables: vec![Bytes::from_static(b"garbage")],
            left_out: Vec::new(),
            partial: false,
        }))
    }

    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<DescribeReply>, Status> {
        Ok(Response::new(DescribeReply { schema: Bytes::from_static(b"{}") }))
    }

    async fn describe_many(
        &self,
        _: Request<DescribeManyRequest>,
    ) -> Result<Response<DescribeManyReply>, Status> {
        Ok(Response::new(DescribeManyReply { tables: Bytes::from_static(b"\x00[]") }))
    }

    async fn measure(&self, _: Request<MeasureRequest>) -> Result<Response<MeasureReply>, Status> {
        Ok(Response::new(MeasureReply { answer: Bytes::from_static(b"{}") }))
    }

    type RunStream = Replies<RunEvent>;

    /// Ends before it has told how the run ended.
    async fn run(&self, _: Request<Streaming<TaskFrame>>) -> Result<Response<Self::RunStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }

    type UndoStream = Replies<RunEvent>;

    async fn undo(&self, _: Request<Streaming<TaskFrame>>) -> Result<Response<Self::UndoStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }

    type ExchangeStream = Replies<Frame>;

    async fn exchange(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let mut frames = request.into_inner();
        let replies = self.replies.clone();
        let silent = self.silent;
        let (tx, rx) = mpsc::channel(16);
        tokio::spawn(async move {
            // The greeting and the plan.
            for _ in 0..2 {
                frames.next().await;
            }
            for reply in replies {
                let _ = tx.send(reply).await;
            }
            while silent && frames.next().await.is_some() {}
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }
}

impl Scripted {
    async fn start(
        hello: HelloReply,
        replies: Vec<Result<Frame, Status>>,
        silent: bool,
    ) -> Result<RemoteAgent, trueup::agent::AgentError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("grpc://{}", listener.local_addr().unwrap());
        let service = AgentServer::new(Self { hello, replies, silent });
        tokio::spawn(
            Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)),
        );
        RemoteAgent::connect(&url, &ClientSecurity::default(), Duration::from_secs(1)).await
    }
}

async fn honest_hello(db: &SqliteDb) -> HelloReply {
    let server = local(engine_of(db).await).server().await.unwrap();
    HelloReply {
        protocol_version: PROTOCOL_VERSION,
        encoding_version: ENCODING_VERSION,
        software: "test".to_owned(),
        server: serde_json::to_vec(&server).unwrap().into(),
        may_write: true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_source_ends_the_run_with_an_error_of_its_side() {
    let db = database();
    let task = plan_of(&db).await;
    let accepted = || Ok(frame(Kind::Accepted(Accepted {})));
    let locate = |bytes: &[u8]| Ok(frame(Kind::Locate(bytes.to_vec().into())));
    let failure = Failure { kind: "of_the_future".to_owned(), message: "no".to_owned(), hint: String::new() };
    let rows = Rows { rows: Bytes::from_static(b"garbage"), last: true };
    let conversations: Vec<(&str, Vec<Result<Frame, Status>>, bool, &str)> = vec![
        ("garbage for a locate message", vec![accepted(), locate(&[0xff; 300])], true, "protocol"),
        ("locate before the plan is accepted", vec![locate(&[1])], true, "protocol"),
        ("accepted twice", vec![accepted(), accepted()], true, "protocol"),
        ("rows that nobody asked for", vec![accepted(), Ok(frame(Kind::Rows(rows)))], true, "protocol"),
        ("an empty frame", vec![accepted(), Ok(Frame { kind: None, hop: 0 })], true, "protocol"),
        ("a failure of an unknown kind", vec![Ok(frame(Kind::Failure(failure)))], true, "database"),
        ("a status", vec![accepted(), Err(Status::internal("oops"))], true, "unreachable"),
        ("closed at once", vec![], false, "unreachable"),
        ("closed in the midst", vec![accepted()], false, "unreachable"),
        ("a message that is too large", vec![accepted(), locate(&vec![1; 17 << 20])], true, "protocol"),
        ("silence", vec![accepted()], true, "timeout"),
    ];
    for (what, replies, silent, expected) in conversations {
        let source = Scripted::start(honest_hello(&db).await, replies, silent).await.unwrap();
        let here = serving(engine_of(&db).await, Serves::everything(), Duration::from_secs(1));
        let source = Arc::new(source) as AgentHandle;
        let events = start(&source, &in_process(here), task.clone()).await.unwrap();
        match last(events).await {
            Event::Failed { kind, side, message, hint } => {
                assert_eq!((kind.as_str(), side), (expected, Some(Role::Source)), "{what}: {message}");
                assert!(hint.is_some() || what.starts_with("a failure"), "{what}: {message}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_source_of_a_roll_call_makes_nothing_equal() {
    let db = database();
    let plan = plan_of(&db).await.plan;
    let roots = |held: &[Held]| Ok(frame(Kind::Roots(Roots { roots: pack_roots(held).into() })));
    let garbage = Roots { roots: Bytes::from_static(&[1, 2, 3]) };
    let none: Held = None;
    let wrong: Held = Some((RootDigest([7; 32]), 3));
    let conversations: Vec<(&str, Vec<Result<Frame, Status>>, bool, Option<&str>)> = vec![
        ("roots of garbage", vec![Ok(frame(Kind::Roots(garbage)))], true, Some("protocol")),
        ("more roots than plans", vec![roots(&[none; 3])], true, Some("protocol")),
        ("fewer roots than plans", vec![roots(&[none])], false, Some("unreachable")),
        ("something else", vec![Ok(frame(Kind::Accepted(Accepted {})))], true, Some("protocol")),
        ("wrong roots", vec![roots(&[wrong, none])], true, None),
    ];
    for (what, replies, silent, expected) in conversations {
        let source = Scripted::start(honest_hello(&db).await, replies, silent).await.unwrap();
        let here = serving(engine_of(&db).await, Serves::everything(), Duration::from_secs(1));
        let source = Arc::new(source) as AgentHandle;
        let task = Task::RollCall(vec![plan.clone(), plan.clone()]);
        let mut events = start(&source, &in_process(here), task).await.unwrap();
        let mut kind = None;
        while let Some(event) = tokio::time::timeout(PATIENCE, events.recv()).await.unwrap() {
            assert!(!matches!(event, Event::Equal { .. }), "{what}: {event:?}");
            if let Event::Failed { kind: told, side, .. } = event {
                assert_eq!(side, Some(Role::Source), "{what}");
                kind = Some(told);
            }
        }
        assert_eq!(kind.as_deref(), expected, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_answers_nonsense_is_told_as_such() {
    let db = database();
    let good = honest_hello(&db).await;
    let newer = HelloReply { protocol_version: PROTOCOL_VERSION + 1, ..good.clone() };
    let error = Scripted::start(newer, Vec::new(), false).await.unwrap_err();
    assert!(
        error.kind.as_str() == "version"
            && error.message.contains(&format!("protocol {}", PROTOCOL_VERSION + 1)),
        "{error:?}"
    );
    let garbled = HelloReply { server: Bytes::from_static(b"garbage"), ..good.clone() };
    assert_eq!(Scripted::start(garbled, Vec::new(), false).await.unwrap_err().kind.as_str(), "protocol");

    let there = Arc::new(Scripted::start(good, Vec::new(), false).await.unwrap()) as AgentHandle;
    assert_eq!(there.tables(None).await.unwrap_err().kind.as_str(), "protocol");
    let task = plan_of(&db).await;
    assert_eq!(there.describe(&task.plan.source).await.unwrap_err().kind.as_str(), "protocol");
    let tables = [task.plan.source.clone()];
    assert_eq!(there.describe_many(&tables).await.unwrap_err().kind.as_str(), "protocol");
    // Its run ends without a last word.
    match last(start(&there, &there, task).await.unwrap()).await {
        Event::Failed { kind, side, .. } => {
            assert_eq!((kind.as_str(), side), ("unreachable", Some(Role::Target)))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_grpc_service_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("grpc://{}", listener.local_addr().unwrap());
    let (_reporter, health) = tonic_health::server::health_reporter();
    tokio::spawn(Server::builder().add_service(health).serve_with_incoming(TcpListenerStream::new(listener)));
    let error = dial(&url, &ClientSecurity::default()).await.unwrap_err();
    assert_eq!(error.kind.as_str(), "version");
    assert!(error.message.contains(&url) && error.hint.unwrap().contains("trueup agent"));
}
