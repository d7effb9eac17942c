//! What any agent is to whoever has it do something, wherever it runs; and the start of one run between any two.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::error::{AgentError, FailureKind};
use super::event::{Event, Task, UndoTask};
use super::listed::Listed;
use super::session::link::Link;
use crate::model::{Answer, Question, ServerInfo, TableName, TableSchema};

/// One side of a comparison.
#[async_trait]
pub trait Agent: fmt::Debug + Send + Sync {
    async fn server(&self) -> Result<ServerInfo, AgentError>;

    fn may_write(&self) -> bool;

    async fn tables(&self, schema: Option<&str>) -> Result<Vec<TableName>, AgentError>;

    /// The tables, and what a comparison of all of them does not look at.
    async fn listed(&self, schema: Option<&str>) -> Result<Listed, AgentError>;

    async fn describe(&self, table: &TableName) -> Result<TableSchema, AgentError>;

    /// Many tables, in their order; each with its own error.
    async fn describe_many(
        &self,
        tables: &[TableName],
    ) -> Result<Vec<Result<TableSchema, AgentError>>, AgentError>;

    /// A few numbers about a table, in one query.
    async fn measure(&self, question: &Question) -> Result<Answer, AgentError>;

    /// Where an agent elsewhere dials this one; `None` where it cannot.
    fn address(&self) -> Option<&str> {
        None
    }

    /// Has it play the source of a run whose target is in this process. `patience`: the target's with a silent peer.
    async fn open_source(&self, patience: Duration) -> Result<SourceEnd, AgentError>;

    /// Has it play the source on a link that leads to the target.
    fn serve_source_on(&self, _: Link) -> Result<Serving, AgentError> {
        Err(AgentError::new(
            FailureKind::Usage,
            "an agent elsewhere is dialled, and serves no link of others",
        ))
    }

    /// Has it play the target of a run. The events end with `Done` or `Failed`; dropping the receiver stops both sides.
    async fn run_as_target(
        &self,
        source: &AgentHandle,
        task: Task,
    ) -> Result<mpsc::Receiver<Event>, AgentError>;

    /// Has it take a run back. As `run_as_target`.
    async fn take_back(&self, task: UndoTask) -> Result<mpsc::Receiver<Event>, AgentError>;
}

pub type AgentHandle = Arc<dyn Agent>;

/// A source in this process, stopped with whoever holds it.
pub type Serving = AbortOnDropHandle<Result<(), AgentError>>;

/// The target's end of a link to a source.
#[derive(Debug)]
pub struct SourceEnd {
    pub link: Link,
    /// Where the source is in this process.
    pub serving: Option<Serving>,
}

/// Starts one run; its events end with `Done` or `Failed`. Dropping the receiver stops both sides.
pub async fn start(
    source: &AgentHandle,
    target: &AgentHandle,
    task: impl Into<Task>,
) -> Result<mpsc::Receiver<Event>, AgentError> {
    target.run_as_target(source, task.into()).await
}
