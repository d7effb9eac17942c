//! Writing differences into the target: in batches, conditional, with what is refused tried again or set aside.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::super::compare::balance::Conclusion;
use super::super::compare::missing_rows::{Missing, missing_row};
use super::super::compare::reread::{Finding, Reread};
use super::super::compare::suspects::Suspect;
use super::super::error::AgentError;
use super::super::trail::Recorded;
use super::super::writer;
use super::refusals::Refusals;
use super::row_requests::How;
use super::settle::{Pass, Settlement};
use super::writing::{Batch, Writing};
use crate::engine::{EngineError, ErrorKind};
use crate::model::{Change, ChangeOutcome, Operation, PermittedChanges, PermittedInserts, RejectionKind};

/// Rounds over rows that the database refused because of other rows (foreign keys, unique values).
const RETRY_ROUNDS_MAX: u32 = 16;
/// Rows that can be replaced in one transaction.
const REPLACE_MAX: usize = 10_000;
/// Rows set aside that are read from the spool together.
const SET_ASIDE_TOGETHER: usize = 500;

impl Settlement<'_, '_> {
    /// Writes these changes in batches. The last of them is still being written when this returns; the intent of each is
    /// recorded while the one before it is written.
    pub(crate) async fn apply(
        &mut self,
        mut changes: PermittedChanges,
        mut rereads: Vec<Reread>,
    ) -> Result<(), AgentError> {
        while !changes.is_empty() {
            if self.refusals.is_trying() {
                self.finish_writing().await?;
            }
            if let Some(reason) = self.refusals.ended().map(Refusals::not_tried) {
                return rereads.iter().try_for_each(|reread| self.set_aside(reread, &reason));
            }
            let most = self.refusals.batch_rows(changes.len());
            let (rest, rest_rereads) = (changes.split_off(most), rereads.split_off(most));
            let batch = self.recorded(std::mem::replace(&mut changes, rest)).await?;
            self.finish_writing().await?;
            self.writing = Some(self.start_writing(batch, std::mem::replace(&mut rereads, rest_rereads)));
        }
        Ok(())
    }

    /// The batch may be written when this returns.
    async fn recorded(
        &mut self,
        changes: PermittedChanges,
    ) -> Result<Recorded<PermittedChanges>, AgentError> {
        self.target.agent.pace.admit(&self.target.agent.engine, changes.len()).await?;
        self.trail.intend(&self.describer, false, changes).await
    }

    fn start_writing(&self, batch: Recorded<PermittedChanges>, rereads: Vec<Reread>) -> Writing {
        let (engine, access) = (self.target.agent.engine.clone(), self.target.access.clone());
        let batch = Arc::new(batch);
        let work = {
            let batch = Arc::clone(&batch);
            async move { writer::apply(engine.as_ref(), &access, &batch).await }
        };
        let work = AbortOnDropHandle::new(tokio::spawn(work.in_current_span()));
        Writing { batch: Batch::Changes(batch, rereads), work }
    }

    /// The batch is recorded and on its way to the database when this returns; `None` where there is nothing to write.
    pub(crate) async fn begin_writing(
        &mut self,
        changes: PermittedChanges,
        rereads: Vec<Reread>,
    ) -> Result<Option<Writing>, AgentError> {
        if changes.is_empty() {
            return Ok(None);
        }
        let batch = self.recorded(changes).await?;
        Ok(Some(self.start_writing(batch, rereads)))
    }

    /// As `begin_writing`, of rows that the target has not.
    pub(crate) async fn begin_inserting(
        &mut self,
        missing: Missing,
        inserts: PermittedInserts,
    ) -> Result<Writing, AgentError> {
        let (engine, access) = (self.target.agent.engine.clone(), self.target.access.clone());
        self.target.agent.pace.admit(&engine, missing.rows.len()).await?;
        let batch = Arc::new(self.trail.intend_inserts(&self.describer, &missing, inserts).await?);
        let work = {
            let batch = Arc::clone(&batch);
            async move { writer::insert(engine.as_ref(), &access, &batch).await }
        };
        let work = AbortOnDropHandle::new(tokio::spawn(work.in_current_span()));
        Ok(Writing { batch: Batch::Inserts(batch, missing), work })
    }

    /// Waits for the batch that is being written, if any, and answers for it.
    pub(crate) async fn finish_writing(&mut self) -> Result<(), AgentError> {
        let Some(Writing { batch, work }) = self.writing.take() else { return Ok(()) };
        let outcomes = work.await.unwrap_or_else(|_| {
            let during = format!("write {}", self.target.access.table);
            Err(EngineError::new(ErrorKind::Database, during, "the writer ended before its time"))
        });
        self.target.outcome.undo_kept |= self.trail.keeps_undo();
        match batch {
            Batch::Changes(batch, rereads) => {
                let outcomes = self.trail.done(&batch, outcomes).await?;
                self.refusals.batch(&outcomes);
                let changes = batch.what().as_slice();
                for ((change, reread), outcome) in changes.iter().zip(rereads).zip(outcomes) {
                    match outcome {
                        ChangeOutcome::Written => self.written(change.operation(), &reread)?,
                        not_written => self.not_written(&reread, not_written)?,
                    }
                }
            }
            Batch::Inserts(batch, missing) => {
                let outcomes = self.trail.done(&batch, outcomes).await?;
                self.refusals.batch(&outcomes);
                let mut inserted = 0;
                for (((key, row), digest), outcome) in missing.iter().zip(outcomes) {
                    match outcome {
                        ChangeOutcome::Written => {
                            inserted += 1;
                            self.overlay.inserted(key, digest)?;
                        }
                        not_written => {
                            self.located.balance.name(&self.target.key, key);
                            let mut reread = missing_row(key, row, *digest);
                            // It was told with its part.
                            reread.suspect.named = true;
                            self.not_written(&reread, not_written)?;
                        }
                    }
                }
                self.target.outcome.inserted += inserted;
                self.target.outcome.missing += inserted;
                self.balance().conclude_range(inserted);
            }
        }
        Ok(())
    }

    fn not_written(&mut self, reread: &Reread, outcome: ChangeOutcome) -> Result<(), AgentError> {
        match outcome {
            ChangeOutcome::Written => Ok(()),
            // The row changed between reading and writing: it goes round again, and counts as what it is found to be then.
            ChangeOutcome::Stale | ChangeOutcome::Already => {
                self.again.push(&reread.renewed(&self.target.key))
            }
            ChangeOutcome::Failed(rejection)
                if matches!(rejection.kind, RejectionKind::ForeignKey | RejectionKind::Unique)
                    && self.refusals.ended().is_none() =>
            {
                self.refused.push(&reread.renewed(&self.target.key))
            }
            ChangeOutcome::Failed(rejection) => self.set_aside(reread, &rejection.reason),
        }
    }

    fn written(&mut self, operation: Operation, reread: &Reread) -> Result<(), AgentError> {
        self.conclude(reread, Conclusion::Different(reread.kind()));
        let outcome = &mut self.target.outcome;
        match operation {
            Operation::Insert => outcome.inserted += 1,
            Operation::Update => outcome.updated += 1,
            Operation::Delete => outcome.deleted += 1,
        }
        self.overlay.written(&reread.suspect)
    }

    /// Rows refused because of other rows are tried again as long as that helps, then exchanged all at once.
    pub(crate) async fn retry_refused(&mut self) -> Result<(), AgentError> {
        for _ in 0..RETRY_ROUNDS_MAX {
            let before = self.refused.len();
            if before == 0 || self.refusals.ended().is_some() {
                break;
            }
            let empty = self.spool();
            let refused = std::mem::replace(&mut self.refused, empty);
            self.pass(refused, Pass::Retry).await?;
            if self.refused.len() >= before {
                break;
            }
        }
        if self.refused.len() == 0 {
            return Ok(());
        }
        let empty = self.spool();
        let mut reader = std::mem::replace(&mut self.refused, empty).read()?;
        let ended = self.refusals.ended().map(str::to_owned);
        if ended.is_none() {
            let stuck = reader.next_chunk(REPLACE_MAX)?;
            self.replace(stuck).await?;
        }
        let reason = ended.as_deref().unwrap_or("refused because of other rows of the target");
        loop {
            let rest = reader.next_chunk(SET_ASIDE_TOGETHER)?;
            if rest.is_empty() {
                return Ok(());
            }
            for suspect in rest {
                self.set_aside_suspect(&suspect, reason)?;
            }
        }
    }

    /// Under a condition, rows that one side lacks are read without it: they may be there, outside.
    async fn with_outside(&mut self, rereads: Vec<Reread>) -> Result<Vec<Reread>, AgentError> {
        let stable = |reread: &Reread| {
            let one_sided = reread.source.is_some() != reread.target.is_some();
            one_sided && reread.finding(&self.target.key) == Finding::Stable
        };
        let (one_sided, mut all): (Vec<Reread>, Vec<Reread>) = rereads.into_iter().partition(stable);
        let mut suspects: Vec<Suspect> =
            one_sided.into_iter().map(|reread| reread.renewed(&self.target.key)).collect();
        while !suspects.is_empty() {
            let (found, rest) = self.read_outside(suspects).await?;
            all.extend(found);
            suspects = rest;
        }
        Ok(all)
    }

    /// Updates that exchange unique values block each other; deleting and inserting them in one transaction does not.
    async fn replace(&mut self, mut stuck: Vec<Suspect>) -> Result<(), AgentError> {
        let (mut changes, mut rereads) = (PermittedChanges::default(), Vec::new());
        let how = How::default();
        let filtered = self.is_filtered();
        while !stuck.is_empty() {
            let rest = stuck.split_off(stuck.len().min(self.requests.keys()));
            let request = self.requests.send(self.target, std::mem::replace(&mut stuck, rest), how).await?;
            let (mut chunk, unanswered) = self.requests.receive(self.target, request, how).await?;
            stuck.splice(0..0, unanswered);
            if filtered {
                chunk = self.with_outside(chunk).await?;
            }
            for reread in chunk {
                match reread.finding(&self.target.key) {
                    Finding::Unproven | Finding::Changing | Finding::Following => {
                        // It moved, or it cannot be told: nothing is done to it here.
                        self.again.push(&reread.renewed_where_known(&self.target.key))?;
                    }
                    Finding::Settled => self.in_flight(&reread, Conclusion::InFlight)?,
                    Finding::Stable => {
                        if let Some(change) = self.permitted(&reread)? {
                            changes.push(change);
                            rereads.push(reread);
                        }
                    }
                }
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        let (engine, access) = (self.target.agent.engine.clone(), self.target.access.clone());
        self.target.agent.pace.admit(&engine, changes.len()).await?;
        let all: Vec<Change> = changes.as_slice().to_vec();
        let outcomes = match self.permission.permit_exchange(changes) {
            Ok(exchange) => {
                let batch = self.trail.intend(&self.describer, true, exchange).await?;
                let outcomes = writer::exchange(engine.as_ref(), &access, &batch).await;
                self.trail.done(&batch, outcomes).await?
            }
            Err(changes) => {
                let batch = self.trail.intend(&self.describer, false, changes).await?;
                let outcomes = writer::apply(engine.as_ref(), &access, &batch).await;
                self.trail.done(&batch, outcomes).await?
            }
        };
        self.target.outcome.undo_kept |= self.trail.keeps_undo();
        for ((change, reread), outcome) in all.iter().zip(rereads).zip(outcomes) {
            match outcome {
                ChangeOutcome::Written => self.written(change.operation(), &reread)?,
                ChangeOutcome::Stale | ChangeOutcome::Already => {
                    self.set_aside(&reread, "changed while it was being repaired")?
                }
                ChangeOutcome::Failed(rejection) => self.set_aside(&reread, &rejection.reason)?,
            }
        }
        Ok(())
    }
}
