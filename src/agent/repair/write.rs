//! Writing differences into the target: in batches, conditional, with what is refused tried again or set aside.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::super::compare::balance::Conclusion;
use super::super::compare::missing_rows::{Missing, missing_row};
use super::super::compare::reread::{Finding, Reread};
use super::super::compare::suspects::Suspect;
use super::super::difference::DifferenceKind;
use super::super::error::{AgentError, decode_error};
use super::super::event::Event;
use super::super::retry::patiently;
use super::super::trail::Intent;
use super::row_requests::How;
use super::settle::{Pass, Settlement};
use crate::engine::{EngineError, ErrorKind};
use crate::model::{
    Change, ChangeOutcome, Key, Operation, PermittedChanges, PermittedInserts, RejectionKind,
};

/// Rounds over rows that the database refused because of other rows (foreign keys, unique values).
const RETRY_ROUNDS_MAX: u32 = 16;
/// Rows that can be replaced in one transaction.
const REPLACE_MAX: usize = 10_000;
/// Rows set aside that are read from the spool together.
const SET_ASIDE_TOGETHER: usize = 500;

/// A batch that is being written.
pub(crate) struct Writing {
    batch: Batch,
    intent: Intent,
    work: AbortOnDropHandle<Result<Vec<ChangeOutcome>, EngineError>>,
}

enum Batch {
    Changes(Arc<PermittedChanges>, Vec<Reread>),
    Inserts(Arc<Missing>),
}

impl Settlement<'_, '_> {
    pub(crate) async fn apply(
        &mut self,
        changes: PermittedChanges,
        rereads: Vec<Reread>,
    ) -> Result<(), AgentError> {
        match self.begin_writing(changes, rereads).await? {
            Some(writing) => self.end_writing(writing).await,
            None => Ok(()),
        }
    }

    /// The batch is announced and on its way to the database when this returns; `None` where there is nothing to write.
    pub(crate) async fn begin_writing(
        &mut self,
        changes: PermittedChanges,
        rereads: Vec<Reread>,
    ) -> Result<Option<Writing>, AgentError> {
        if changes.is_empty() {
            return Ok(None);
        }
        let (engine, access) = (self.target.agent.engine.clone(), self.target.access.clone());
        self.target.agent.pace.admit(&engine, changes.len()).await?;
        let intent = self.trail.intend(&self.describer, changes.as_slice(), false).await?;
        let changes = Arc::new(changes);
        let work = {
            let changes = Arc::clone(&changes);
            async move { patiently(|| engine.apply(&access, &changes)).await }
        };
        let work = AbortOnDropHandle::new(tokio::spawn(work.in_current_span()));
        Ok(Some(Writing { batch: Batch::Changes(changes, rereads), intent, work }))
    }

    /// The same of rows that the target has not.
    pub(crate) async fn begin_inserting(
        &mut self,
        missing: Missing,
        inserts: PermittedInserts,
    ) -> Result<Writing, AgentError> {
        let (engine, access) = (self.target.agent.engine.clone(), self.target.access.clone());
        self.target.agent.pace.admit(&engine, missing.rows.len()).await?;
        let intent = self.trail.intend_inserts(&self.describer, &missing).await?;
        let missing = Arc::new(missing);
        let work = async move { patiently(|| engine.insert(&access, &inserts)).await };
        let work = AbortOnDropHandle::new(tokio::spawn(work.in_current_span()));
        Ok(Writing { batch: Batch::Inserts(missing), intent, work })
    }

    /// Waits for the batch, and answers for it.
    pub(crate) async fn end_writing(&mut self, writing: Writing) -> Result<(), AgentError> {
        let Writing { batch, intent, work } = writing;
        let outcomes = work.await.unwrap_or_else(|_| {
            let during = format!("write {}", self.target.access.table);
            Err(EngineError::new(ErrorKind::Database, during, "the writer ended before its time"))
        });
        let outcomes = self.trail.done(intent, outcomes).await?;
        self.target.outcome.undo_kept |= self.trail.keeps_undo();
        match batch {
            Batch::Changes(changes, rereads) => {
                for ((change, reread), outcome) in changes.as_slice().iter().zip(rereads).zip(outcomes) {
                    match outcome {
                        ChangeOutcome::Written => self.written(change.operation(), &reread)?,
                        not_written => self.not_written(&reread, not_written).await?,
                    }
                }
            }
            Batch::Inserts(missing) => {
                for (((key, row), digest), outcome) in missing.iter().zip(outcomes) {
                    match outcome {
                        ChangeOutcome::Written => {
                            self.target.outcome.inserted += 1;
                            self.overlay.inserted(key, digest)?;
                        }
                        not_written => {
                            // It was counted with its part.
                            let mut reread = missing_row(key, row, *digest);
                            reread.suspect.counted = Some(DifferenceKind::Missing);
                            reread.suspect.named = true;
                            self.not_written(&reread, not_written).await?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn not_written(&mut self, reread: &Reread, outcome: ChangeOutcome) -> Result<(), AgentError> {
        match outcome {
            ChangeOutcome::Written => Ok(()),
            ChangeOutcome::Stale => self.stale(reread),
            ChangeOutcome::Failed(rejection)
                if matches!(rejection.kind, RejectionKind::ForeignKey | RejectionKind::Unique) =>
            {
                self.refused.push(&reread.renewed(&self.target.key))
            }
            ChangeOutcome::Failed(rejection) => self.set_aside(&reread.suspect.key, &rejection.reason).await,
        }
    }

    pub(crate) fn written(&mut self, operation: Operation, reread: &Reread) -> Result<(), AgentError> {
        let outcome = &mut self.target.outcome;
        match operation {
            Operation::Insert => outcome.inserted += 1,
            Operation::Update => outcome.updated += 1,
            Operation::Delete => outcome.deleted += 1,
        }
        self.overlay.written(&reread.suspect)
    }

    /// The row changed between reading and writing: it goes round again, and counts as what it is found to be then.
    fn stale(&mut self, reread: &Reread) -> Result<(), AgentError> {
        self.again.push(&reread.renewed(&self.target.key))
    }

    pub(crate) async fn set_aside(&mut self, key: &Key, reason: &str) -> Result<(), AgentError> {
        self.target.outcome.set_aside += 1;
        let key = self.describer.key(key).map_err(decode_error)?;
        self.target.tell(Event::SetAside { key, reason: reason.to_owned() }).await
    }

    /// Rows refused because of other rows are tried again as long as that helps, then exchanged all at once.
    pub(crate) async fn retry_refused(&mut self) -> Result<(), AgentError> {
        for _ in 0..RETRY_ROUNDS_MAX {
            let before = self.refused.len();
            if before == 0 {
                return Ok(());
            }
            let empty = self.spool();
            let refused = std::mem::replace(&mut self.refused, empty);
            self.pass(refused, Pass::Retry).await?;
            if self.refused.len() >= before {
                break;
            }
        }
        let empty = self.spool();
        let mut reader = std::mem::replace(&mut self.refused, empty).read()?;
        let stuck = reader.next_chunk(REPLACE_MAX)?;
        if !stuck.is_empty() {
            self.replace(stuck).await?;
        }
        loop {
            let rest = reader.next_chunk(SET_ASIDE_TOGETHER)?;
            if rest.is_empty() {
                return Ok(());
            }
            for suspect in rest {
                self.set_aside(&suspect.key, "refused because of other rows of the target").await?;
            }
        }
    }

    /// Updates that exchange unique values block each other; deleting and inserting them in one transaction does not.
    async fn replace(&mut self, mut stuck: Vec<Suspect>) -> Result<(), AgentError> {
        let (mut changes, mut rereads) = (PermittedChanges::default(), Vec::new());
        let how = How::default();
        while !stuck.is_empty() {
            let rest = stuck.split_off(stuck.len().min(self.requests.keys()));
            let request = self.requests.send(self.target, std::mem::replace(&mut stuck, rest), how).await?;
            let (chunk, unanswered) = self.requests.receive(self.target, request, how).await?;
            stuck.splice(0..0, unanswered);
            for mut reread in chunk {
                match reread.finding(&self.target.key) {
                    Finding::Unproven | Finding::Changing | Finding::Following => {
                        // It moved, or it cannot be told: nothing is done to it here.
                        self.again.push(&reread.renewed_where_known(&self.target.key))?;
                    }
                    Finding::Settled => {
                        self.uncount(&mut reread.suspect);
                        self.in_flight(&mut reread, Conclusion::InFlight)?;
                    }
                    Finding::Stable => {
                        let (before, after) = (reread.target.clone(), reread.source.clone());
                        let change = Change { key: reread.suspect.key.clone(), before, after };
                        match self.permission.permit(change) {
                            Ok(change) => {
                                changes.push(change);
                                rereads.push(reread);
                            }
                            Err(_) => self.target.outcome.left += 1,
                        }
                    }
                }
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        let engine = self.target.agent.engine.clone();
        self.target.agent.pace.admit(&engine, changes.len()).await?;
        let all: Vec<Change> = changes.as_slice().to_vec();
        let exchange = self.permission.permit_exchange(changes);
        let intent = self.trail.intend(&self.describer, &all, exchange.is_ok()).await?;
        let outcomes = match &exchange {
            Ok(exchange) => engine.replace(&self.target.access, exchange).await,
            Err(changes) => engine.apply(&self.target.access, changes).await,
        };
        let outcomes = self.trail.done(intent, outcomes).await?;
        self.target.outcome.undo_kept |= self.trail.keeps_undo();
        for ((change, reread), outcome) in all.iter().zip(rereads).zip(outcomes) {
            match outcome {
                ChangeOutcome::Written => self.written(change.operation(), &reread)?,
                ChangeOutcome::Stale => {
                    self.set_aside(&change.key, "changed while it was being repaired").await?
                }
                ChangeOutcome::Failed(rejection) => self.set_aside(&change.key, &rejection.reason).await?,
            }
        }
        Ok(())
    }
}
