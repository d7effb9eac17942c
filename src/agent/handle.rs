//! An agent wherever it is, and the start of one table's run between any two.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::client::{PeerRef, RemoteAgent};
use super::conversation::{run_target, run_undo, serve_source};
use super::error::AgentError;
use super::event::{Event, Task, UndoTask};
use super::local::LocalAgent;
use super::rendezvous::new_word;
use super::session::link::Link;
use crate::model::{Answer, Question, Role, ServerInfo, TableName, TableSchema};

const EVENTS_AHEAD: usize = 64;

#[derive(Debug, Clone)]
pub enum AgentHandle {
    /// In this process.
    Local(Arc<LocalAgent>),
    /// On the other end of a connection.
    Remote(Box<RemoteAgent>),
}

impl AgentHandle {
    pub async fn server(&self) -> Result<ServerInfo, AgentError> {
        match self {
            Self::Local(agent) => agent.server().await,
            Self::Remote(agent) => Ok(agent.server().clone()),
        }
    }

    pub fn may_write(&self) -> bool {
        match self {
            Self::Local(agent) => agent.may_write(),
            Self::Remote(agent) => agent.may_write(),
        }
    }

    pub async fn tables(&self, schema: Option<&str>) -> Result<Vec<TableName>, AgentError> {
        match self {
            Self::Local(agent) => agent.tables(schema).await,
            Self::Remote(agent) => Ok(agent.tables(schema).await?.0),
        }
    }

    /// The tables, and what a comparison of all of them does not look at.
    pub async fn tables_and_left_out(
        &self,
        schema: Option<&str>,
    ) -> Result<(Vec<TableName>, Vec<String>), AgentError> {
        match self {
            Self::Local(agent) => Ok((agent.tables(schema).await?, agent.left_out(schema).await?)),
            Self::Remote(agent) => agent.tables(schema).await,
        }
    }

    pub async fn describe(&self, table: &TableName) -> Result<TableSchema, AgentError> {
        match self {
            Self::Local(agent) => agent.describe(table).await,
            Self::Remote(agent) => agent.describe(table).await,
        }
    }

    /// Many tables, in their order; each with its own error.
    pub async fn describe_many(
        &self,
        tables: &[TableName],
    ) -> Result<Vec<Result<TableSchema, AgentError>>, AgentError> {
        match self {
            Self::Local(agent) => Ok(agent.describe_many(tables).await),
            Self::Remote(agent) => agent.describe_many(tables).await,
        }
    }

    /// A few numbers about a table, in one query.
    pub async fn measure(&self, question: &Question) -> Result<Answer, AgentError> {
        match self {
            Self::Local(agent) => agent.measure(question).await,
            Self::Remote(agent) => agent.measure(question).await,
        }
    }
}

/// Starts one run; its events end with `Done` or `Failed`. Dropping the receiver stops both sides.
pub async fn start(
    source: &AgentHandle,
    target: &AgentHandle,
    task: impl Into<Task>,
) -> Result<mpsc::Receiver<Event>, AgentError> {
    let task = task.into();
    match (source, target) {
        (AgentHandle::Local(source), AgentHandle::Local(target)) => {
            let (target_end, source_end) = Link::pair(target.limits().peer_timeout);
            let source = source.clone();
            // An error of the source is told over the link.
            let serving =
                tokio::spawn(async move { serve_source(&source, source_end).await }.in_current_span());
            Ok(run_here(target.clone(), task, target_end, Some(AbortOnDropHandle::new(serving))))
        }
        (AgentHandle::Remote(source), AgentHandle::Local(target)) => {
            let link = source.exchange(None).await.map_err(|error| error.on(Role::Source))?;
            Ok(run_here(target.clone(), task, link, None))
        }
        (AgentHandle::Remote(source), AgentHandle::Remote(target)) => target
            .run(&task, PeerRef::Address(source.address().to_owned()))
            .await
            .map_err(|error| error.on(Role::Target)),
        (AgentHandle::Local(source), AgentHandle::Remote(target)) => {
            meet(source.clone(), target, &task).await
        }
    }
}

/// Has the target's agent take a run back; the events end with `Done` or `Failed`.
pub async fn undo_on(target: &AgentHandle, task: UndoTask) -> Result<mpsc::Receiver<Event>, AgentError> {
    match target {
        AgentHandle::Remote(target) => target.undo(&task).await.map_err(|error| error.on(Role::Target)),
        AgentHandle::Local(target) => {
            let (events, rx) = mpsc::channel(EVENTS_AHEAD);
            let target = target.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = run_undo(&target, task, events.clone()) => {}
                    () = events.closed() => {}
                }
            });
            Ok(rx)
        }
    }
}

/// A source in this process, stopped with whoever holds it.
type Serving = AbortOnDropHandle<Result<(), AgentError>>;

fn run_here(
    target: Arc<LocalAgent>,
    task: Task,
    link: Link,
    source: Option<Serving>,
) -> mpsc::Receiver<Event> {
    let (events, rx) = mpsc::channel(EVENTS_AHEAD);
    let run = async move {
        let _source = source;
        tokio::select! {
            () = run_target(&target, task, link, events.clone()) => {}
            () = events.closed() => {}
        }
    };
    tokio::spawn(run.in_current_span());
    rx
}

/// The target is elsewhere and the source is here: nobody can dial the source, so the source dials the target.
async fn meet(
    source: Arc<LocalAgent>,
    target: &RemoteAgent,
    task: &Task,
) -> Result<mpsc::Receiver<Event>, AgentError> {
    let word = new_word()?;
    let peer = PeerRef::Rendezvous(word.clone());
    let mut told = target.run(task, peer).await.map_err(|error| error.on(Role::Target))?;
    let link = target.exchange(Some(&word)).await.map_err(|error| error.on(Role::Target))?;
    let (events, rx) = mpsc::channel(EVENTS_AHEAD);
    tokio::spawn(async move {
        // An error of the source is told over the link.
        let serving = tokio::spawn(async move { serve_source(&source, link).await }.in_current_span());
        let _serving = AbortOnDropHandle::new(serving);
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
