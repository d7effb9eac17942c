//! Batches on their way to the database: each is recorded before it is written, one is written at a time, and what became of its
//! rows is given back.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::super::audit::{Recorded, Recorder, writer};
use super::super::compare::describe::Describer;
use super::super::compare::missing_rows::Missing;
use super::super::compare::reread::Reread;
use super::super::error::AgentError;
use super::super::local::LocalAgent;
use super::super::target::Target;
use super::super::undo::limits::Operations;
use super::breaker::Breaker;
use crate::engine::{EngineError, ErrorKind};
use crate::model::{
    Change, ChangeOutcome, Operation, PermittedChanges, PermittedExchange, PermittedInserts, TableAccess,
};

/// A batch that was handed to the database.
pub(super) struct Writing {
    batch: Batch,
    work: AbortOnDropHandle<Result<Vec<ChangeOutcome>, EngineError>>,
}

/// What is written, and the rows that it was decided by.
enum Batch {
    Changes(Arc<Recorded<PermittedChanges>>, Vec<Reread>),
    Inserts(Arc<Recorded<PermittedInserts>>, Missing),
}

/// What became of the rows of a batch.
pub(super) enum Written {
    Changes(Vec<(Reread, Operation, ChangeOutcome)>),
    Inserts(Missing, Vec<ChangeOutcome>),
}

/// Writes one table's batches.
pub(super) struct BatchWriter<'a> {
    agent: &'a LocalAgent,
    access: Arc<TableAccess>,
    describer: Arc<Describer>,
    /// Every batch is noted before and after it is written.
    recorder: Recorder<'a>,
    breaker: Breaker,
    /// The batch that is being written.
    writing: Option<Writing>,
}

impl<'a> BatchWriter<'a> {
    pub(super) async fn new(target: &Target<'a>, describer: Arc<Describer>) -> Result<Self, AgentError> {
        let Target { agent, task, access, key, schema, events, .. } = target;
        Ok(Self {
            agent,
            access: Arc::clone(access),
            describer,
            recorder: Recorder::of_repair(agent, task, events, key, schema).await?,
            breaker: Breaker::new(schema.references.contains(&schema.table)),
            writing: None,
        })
    }

    /// Tells, before it is written, what of these writes cannot be taken back.
    pub(super) async fn say_limits(&mut self, operations: Operations) -> Result<(), AgentError> {
        self.recorder.say_limits(operations).await
    }

    /// Whether the table takes rows is not known yet: no batch is recorded before the one before it has ended.
    pub(super) fn is_trying(&self) -> bool {
        self.breaker.is_trying()
    }

    pub(super) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Why no further row of the table is written: whole batches were refused for this reason.
    pub(super) fn ended(&self) -> Option<&str> {
        self.breaker.ended()
    }

    /// What is said of a row that is not tried any more; `None` as long as rows are tried.
    pub(super) fn not_tried(&self) -> Option<String> {
        self.breaker.not_tried()
    }

    /// Rows that are to be written with the next batch.
    pub(super) fn batch_rows(&self, most: usize) -> usize {
        self.breaker.batch_rows(most)
    }

    /// The batch may be written when this returns.
    pub(super) async fn record(
        &mut self,
        changes: PermittedChanges,
    ) -> Result<Recorded<PermittedChanges>, AgentError> {
        self.agent.pace.admit(&self.agent.engine, changes.len()).await?;
        self.recorder.intend(&self.describer, false, changes).await
    }

    /// The batch is on its way to the database when this returns. `rereads` are the rows that it was decided by.
    pub(super) fn begin(&self, batch: Recorded<PermittedChanges>, rereads: Vec<Reread>) -> Writing {
        let (engine, access) = (self.agent.engine.clone(), self.access.clone());
        let batch = Arc::new(batch);
        let work = {
            let batch = Arc::clone(&batch);
            async move { writer::apply(engine.as_ref(), &access, &batch).await }
        };
        let work = AbortOnDropHandle::new(tokio::spawn(work.in_current_span()));
        Writing { batch: Batch::Changes(batch, rereads), work }
    }

    /// Rows that the target has not are recorded and on their way to the database when this returns.
    pub(super) async fn begin_inserts(
        &mut self,
        missing: Missing,
        inserts: PermittedInserts,
    ) -> Result<Writing, AgentError> {
        let (engine, access) = (self.agent.engine.clone(), self.access.clone());
        self.agent.pace.admit(&engine, missing.rows.len()).await?;
        let batch = Arc::new(self.recorder.intend_inserts(&self.describer, &missing, inserts).await?);
        let work = {
            let batch = Arc::clone(&batch);
            async move { writer::insert(engine.as_ref(), &access, &batch).await }
        };
        let work = AbortOnDropHandle::new(tokio::spawn(work.in_current_span()));
        Ok(Writing { batch: Batch::Inserts(batch, missing), work })
    }

    /// This batch is the one that is being written. The one before it has been finished.
    pub(super) fn hold(&mut self, writing: Option<Writing>) {
        self.writing = writing;
    }

    /// Waits for the batch that is being written, and answers for it; `None` where there is none.
    pub(super) async fn finish(&mut self) -> Result<Option<Written>, AgentError> {
        let Some(Writing { batch, work }) = self.writing.take() else { return Ok(None) };
        let outcomes = work.await.unwrap_or_else(|_| {
            let during = format!("write {}", self.access.table);
            Err(EngineError::new(ErrorKind::Database, during, "the writer ended before its time"))
        });
        Ok(Some(match batch {
            Batch::Changes(batch, rereads) => {
                let outcomes = self.recorder.done(&batch, outcomes).await?;
                self.breaker.batch(&outcomes);
                let operations = batch.what().as_slice().iter().map(Change::operation);
                let rows = rereads.into_iter().zip(operations).zip(outcomes);
                Written::Changes(
                    rows.map(|((reread, operation), outcome)| (reread, operation, outcome)).collect(),
                )
            }
            Batch::Inserts(batch, missing) => {
                let outcomes = self.recorder.done(&batch, outcomes).await?;
                self.breaker.batch(&outcomes);
                Written::Inserts(missing, outcomes)
            }
        }))
    }

    /// Writes changes in one transaction, by deleting and inserting their rows where that is permitted, and waits for it.
    pub(super) async fn exchange(
        &mut self,
        changes: Result<PermittedExchange, PermittedChanges>,
    ) -> Result<Vec<ChangeOutcome>, AgentError> {
        let engine = self.agent.engine.clone();
        match changes {
            Ok(exchange) => {
                self.agent.pace.admit(&engine, exchange.as_slice().len()).await?;
                let batch = self.recorder.intend(&self.describer, true, exchange).await?;
                let outcomes = writer::exchange(engine.as_ref(), &self.access, &batch).await;
                self.recorder.done(&batch, outcomes).await
            }
            Err(changes) => {
                let batch = self.record(changes).await?;
                let outcomes = writer::apply(engine.as_ref(), &self.access, &batch).await;
                self.recorder.done(&batch, outcomes).await
            }
        }
    }

    /// An undo journal of the batches is kept.
    pub(super) fn keeps_undo(&self) -> bool {
        self.recorder.keeps_undo()
    }

    /// All batches have been written and answered for.
    pub(super) async fn close(&mut self) -> Result<(), AgentError> {
        self.recorder.close().await
    }
}
