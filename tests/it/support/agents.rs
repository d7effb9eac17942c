//! Agents in this process: local ones, and ones that listen on a port of their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use trueup::agent::security::{ClientSecurity, ServerSecurity};
use trueup::agent::server::{ServerLimits, serve_within};
use trueup::agent::{
    AgentError, AgentHandle, AgentLimits, Allow, Event, LocalAgent, RemoteAgent, Serves, TableOutcome,
    TableTask, TaskOptions,
};
use trueup::engine::{self, Engine};
use trueup::model::{Plan, TableName, Wishes};

use super::servers::SqliteDb;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn engine_of(db: &SqliteDb) -> Arc<dyn Engine> {
    engine::open(&db.url()).await.unwrap()
}

pub(crate) fn local(engine: Arc<dyn Engine>) -> Arc<LocalAgent> {
    serving(engine, Serves::everything(), Duration::from_secs(20))
}

pub(crate) fn serving(engine: Arc<dyn Engine>, serves: Serves, peer_timeout: Duration) -> Arc<LocalAgent> {
    Arc::new(LocalAgent::new(engine, AgentLimits { peer_timeout, ..AgentLimits::default() }, serves))
}

/// A listening agent. It goes on until it is stopped.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Result<(), AgentError>>,
}

#[derive(Default)]
pub(crate) struct Listen {
    pub(crate) security: ServerSecurity,
    pub(crate) peers: ClientSecurity,
    pub(crate) limits: ServerLimits,
}

impl Listen {
    pub(crate) async fn start(self, agent: Arc<LocalAgent>) -> Listening {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(async move {
            let shutdown = async { drop(stopped.await) };
            serve_within(self.limits, listener, agent, &self.security, self.peers, shutdown).await
        });
        Listening { address, stop: Some(stop), serving }
    }
}

impl Listening {
    pub(crate) async fn start(agent: Arc<LocalAgent>) -> Self {
        Listen::default().start(agent).await
    }

    pub(crate) fn url(&self) -> String {
        format!("grpc://{}", self.address)
    }

    pub(crate) fn tls_url(&self) -> String {
        format!("grpcs://localhost:{}", self.address.port())
    }

    pub(crate) async fn dial(&self) -> RemoteAgent {
        dial(&self.url(), &ClientSecurity::default()).await.unwrap()
    }

    pub(crate) async fn handle(&self) -> AgentHandle {
        Arc::new(self.dial().await)
    }

    /// Begins to stop.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }

    pub(crate) async fn stopped(self) {
        tokio::time::timeout(PATIENCE, self.serving).await.unwrap().unwrap().unwrap();
    }
}

pub(crate) async fn dial(url: &str, security: &ClientSecurity) -> Result<RemoteAgent, AgentError> {
    tokio::time::timeout(PATIENCE, RemoteAgent::connect(url, security, Duration::from_secs(20)))
        .await
        .unwrap()
}

/// A diff of one table of the same name on both sides.
pub(crate) async fn task(source: &AgentHandle, target: &AgentHandle, table: &str) -> TableTask {
    let table = TableName::new(None, table);
    let (source_schema, target_schema) =
        (source.describe(&table).await.unwrap(), target.describe(&table).await.unwrap());
    let (source, target) = (source.server().await.unwrap(), target.server().await.unwrap());
    let plan = Plan::agree((&source_schema, &source), (&target_schema, &target), &Wishes::default()).unwrap();
    let options = TaskOptions { recheck_delay_ms: 1, ..TaskOptions::default() };
    TableTask { plan, options }
}

pub(crate) fn repair(mut task: TableTask) -> TableTask {
    task.options.repair = Some(Allow { insert: true, update: true, delete: true });
    task
}

/// The last event; a stream without one is a fault.
pub(crate) async fn last(mut events: mpsc::Receiver<Event>) -> Event {
    let told = async {
        let mut last = None;
        while let Some(event) = events.recv().await {
            last = Some(event);
        }
        last.unwrap()
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap()
}

pub(crate) async fn outcome(events: mpsc::Receiver<Event>) -> TableOutcome {
    match last(events).await {
        Event::Done { outcome } => *outcome,
        other => panic!("{other:?}"),
    }
}
