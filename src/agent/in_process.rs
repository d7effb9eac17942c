//! An agent of this process, as whoever has it do something sees it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::conversation::{run_target, run_undo, serve_source};
use super::error::AgentError;
use super::event::{Event, Task, UndoTask};
use super::handle::{Agent, AgentHandle, Serving, SourceEnd};
use super::listed::Listed;
use super::local::LocalAgent;
use super::session::link::Link;
use crate::model::{Answer, Question, Role, ServerInfo, TableName, TableSchema};

const EVENTS_AHEAD: usize = 64;

#[derive(Debug)]
struct InProcess(Arc<LocalAgent>);

/// The agent of this process, for whoever does not care where it is.
pub fn in_process(agent: Arc<LocalAgent>) -> AgentHandle {
    Arc::new(InProcess(agent))
}

#[async_trait]
impl Agent for InProcess {
    async fn server(&self) -> Result<ServerInfo, AgentError> {
        self.0.server().await
    }

    fn may_write(&self) -> bool {
        self.0.may_write()
    }

    async fn tables(&self, schema: Option<&str>) -> Result<Vec<TableName>, AgentError> {
        self.0.tables(schema).await
    }

    async fn listed(&self, schema: Option<&str>) -> Result<Listed, AgentError> {
        self.0.listed(schema).await
    }

    async fn describe(&self, table: &TableName) -> Result<TableSchema, AgentError> {
        self.0.describe(table).await
    }

    async fn describe_many(
        &self,
        tables: &[TableName],
    ) -> Result<Vec<Result<TableSchema, AgentError>>, AgentError> {
        Ok(self.0.describe_many(tables).await)
    }

    async fn measure(&self, question: &Question) -> Result<Answer, AgentError> {
        self.0.measure(question).await
    }

    async fn open_source(&self, patience: Duration) -> Result<SourceEnd, AgentError> {
        let (link, source_end) = Link::pair(patience);
        let serving = self.serve_source_on(source_end)?;
        Ok(SourceEnd { link, serving: Some(serving) })
    }

    fn serve_source_on(&self, link: Link) -> Result<Serving, AgentError> {
        let source = Arc::clone(&self.0);
        // An error of the source is told over the link.
        let serving = tokio::spawn(async move { serve_source(&source, link).await }.in_current_span());
        Ok(AbortOnDropHandle::new(serving))
    }

    async fn run_as_target(
        &self,
        source: &AgentHandle,
        task: Task,
    ) -> Result<mpsc::Receiver<Event>, AgentError> {
        let target = Arc::clone(&self.0);
        let opened = source.open_source(target.limits().peer_timeout).await;
        let SourceEnd { link, serving } = opened.map_err(|error| error.on(Role::Source))?;
        let (events, rx) = mpsc::channel(EVENTS_AHEAD);
        let run = async move {
            let _serving = serving;
            tokio::select! {
                () = run_target(&target, task, link, events.clone()) => {}
                () = events.closed() => {}
            }
        };
        tokio::spawn(run.in_current_span());
        Ok(rx)
    }

    async fn take_back(&self, task: UndoTask) -> Result<mpsc::Receiver<Event>, AgentError> {
        let (events, rx) = mpsc::channel(EVENTS_AHEAD);
        let target = Arc::clone(&self.0);
        tokio::spawn(async move {
            tokio::select! {
                () = run_undo(&target, task, events.clone()) => {}
                () = events.closed() => {}
            }
        });
        Ok(rx)
    }
}
