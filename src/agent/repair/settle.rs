//! What becomes of a row that was read again: it is counted as it is, or written and counted when it has been, or read once more.

use super::super::compare::balance::Conclusion;
use super::super::compare::missing_rows::Missing;
use super::super::compare::reread::Reread;
use super::super::compare::suspects::{Spool, Suspect};
use super::super::error::AgentError;
use super::super::event::Event;
use super::super::target::Target;
use super::batch_writer::{BatchWriter, Writing, Written};
use super::overlay::Overlay;
use super::policy::{Policy, Ruling};
use super::verdict::Verdicts;
use crate::engine::ErrorKind;
use crate::merkle::SessionKey;
use crate::model::{Change, ChangeOutcome, Operation, Permitted, PermittedChanges, RejectionKind};

/// The work on the rows of one table.
pub(super) struct Settlement<'a> {
    session: SessionKey,
    policy: Policy,
    verdicts: Verdicts,
    writer: BatchWriter<'a>,
    /// What the target holds by now, as far as it is known.
    overlay: Overlay,
    /// Rows to look at in the next pass.
    again: Spool,
    /// Rows refused because of other rows, to be tried again.
    refused: Spool,
}

impl<'a> Settlement<'a> {
    pub(super) fn new(
        target: &Target<'a>,
        policy: Policy,
        verdicts: Verdicts,
        writer: BatchWriter<'a>,
    ) -> Self {
        Self {
            session: target.key.clone(),
            policy,
            verdicts,
            writer,
            overlay: Overlay::new(&target.agent.limits),
            again: target.spool(),
            refused: target.spool(),
        }
    }

    /// Hands on what was said and written of the rows.
    pub(super) fn into_parts(self) -> (Verdicts, BatchWriter<'a>, Overlay) {
        (self.verdicts, self.writer, self.overlay)
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(super) fn verdicts(&mut self) -> &mut Verdicts {
        &mut self.verdicts
    }

    pub(super) fn writer(&self) -> &BatchWriter<'a> {
        &self.writer
    }

    pub(super) async fn report_progress(&self, target: &Target<'_>) -> Result<(), AgentError> {
        self.verdicts.report_progress(target).await
    }

    /// Before rows are written both tables must be those that were scanned: what is read of another one would be written
    /// over this one. No request may be on its way.
    pub(super) async fn check_tables(&self, target: &mut Target<'_>) -> Result<(), AgentError> {
        if self.policy.writes() {
            target.check_identity().await?;
            target.session.conclude().await?;
        }
        Ok(())
    }

    /// The row is read again in the next pass.
    pub(super) fn look_again(&mut self, suspect: &Suspect) -> Result<(), AgentError> {
        self.again.push(suspect)
    }

    pub(super) fn rows_to_look_at(&self) -> u64 {
        self.again.len()
    }

    pub(super) fn take_again(&mut self, target: &Target<'_>) -> Spool {
        std::mem::replace(&mut self.again, target.spool())
    }

    pub(super) fn rows_refused(&self) -> u64 {
        self.refused.len()
    }

    pub(super) fn take_refused(&mut self, target: &Target<'_>) -> Spool {
        std::mem::replace(&mut self.refused, target.spool())
    }

    /// Both sides agree, or the target has what the source had.
    pub(super) fn in_flight(&mut self, reread: &Reread, why: Conclusion) -> Result<(), AgentError> {
        self.verdicts.conclude(reread, why);
        self.overlay.settled(&reread.suspect.key, reread.suspect.origin)
    }

    /// Of these nothing is claimed.
    pub(super) async fn give_up(&mut self, target: &Target<'_>, suspects: Spool) -> Result<(), AgentError> {
        let mut reader = suspects.read()?;
        loop {
            let chunk = reader.next_chunk(1_024)?;
            if chunk.is_empty() {
                return self.report_progress(target).await;
            }
            for suspect in chunk {
                self.verdicts.conclude(&Reread::new(suspect, None, None), Conclusion::Unsettled);
            }
        }
    }

    /// Reports what is a difference beyond doubt. The changes to make come back, and the rows that they were decided by.
    pub(super) async fn confirm_all(
        &mut self,
        target: &Target<'_>,
        rereads: Vec<Reread>,
    ) -> Result<(PermittedChanges, Vec<Reread>), AgentError> {
        let mut changes = PermittedChanges::default();
        let mut decided_by = Vec::with_capacity(rereads.len());
        for mut reread in rereads {
            if let Some(change) = self.confirm(target, &mut reread).await? {
                changes.push(change);
                decided_by.push(reread);
            }
        }
        Ok((changes, decided_by))
    }

    /// Reports a difference. The change to make comes back, where one may be made.
    pub(super) async fn confirm(
        &mut self,
        target: &Target<'_>,
        reread: &mut Reread,
    ) -> Result<Option<Permitted>, AgentError> {
        if !self.verdicts.differs(target, reread).await? {
            return Ok(None);
        }
        if let Some(change) = self.policy.shown(reread) {
            match target.agent.engine.statement(&target.access, change.change()).await {
                Ok(statement) => {
                    let deletes = change.change().operation() == Operation::Delete;
                    let own = &target.schema.table;
                    let after_others =
                        deletes && target.schema.referrers.iter().any(|referrer| referrer.table != *own);
                    target.tell(Event::Sql { statement, after_others }).await?;
                }
                Err(error) if error.kind == ErrorKind::Row => {
                    self.verdicts.set_aside(reread, &error.what)?;
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.permitted(reread)
    }

    /// The change that makes the target's row the source's, where it may be made. A row that may not be written is counted.
    pub(super) fn permitted(&mut self, reread: &Reread) -> Result<Option<Permitted>, AgentError> {
        match self.policy.rule(reread) {
            Ruling::Write(change) => return Ok(Some(change)),
            Ruling::Leave(why) => self.verdicts.leave(reread, &why),
            Ruling::SetAside(why) => self.verdicts.set_aside(reread, &why)?,
        }
        Ok(None)
    }

    /// Writes these changes in batches. The last of them is still being written when this returns; the intent of each is
    /// recorded while the one before it is written.
    pub(super) async fn write(
        &mut self,
        mut changes: PermittedChanges,
        mut rereads: Vec<Reread>,
    ) -> Result<(), AgentError> {
        while !changes.is_empty() {
            if self.writer.is_trying() {
                self.finish_writing().await?;
            }
            if self.set_aside_untried(&rereads)? {
                return Ok(());
            }
            let most = self.writer.batch_rows(changes.len());
            let (rest, rest_rereads) = (changes.split_off(most), rereads.split_off(most));
            let batch = self.writer.record(std::mem::replace(&mut changes, rest)).await?;
            self.finish_writing().await?;
            let begun = self.writer.begin(batch, std::mem::replace(&mut rereads, rest_rereads));
            self.writer.hold(Some(begun));
        }
        Ok(())
    }

    /// Where no further row of the table is written, these are set aside.
    fn set_aside_untried(&mut self, rereads: &[Reread]) -> Result<bool, AgentError> {
        let Some(reason) = self.writer.not_tried() else { return Ok(false) };
        rereads.iter().try_for_each(|reread| self.verdicts.set_aside(reread, &reason))?;
        Ok(true)
    }

    /// Rows of a missing range that are not there are reported. Those that may be written are on their way to the database
    /// when this returns; `None` where there are none. [`Self::advance`] waits for them.
    pub(super) async fn begin_missing(
        &mut self,
        target: &Target<'_>,
        missing: Missing,
    ) -> Result<Option<Writing>, AgentError> {
        if self.writer.ended().is_none()
            && let Some(inserts) = self.policy.permit_inserts(&missing.rows)
        {
            self.verdicts.report_missing(target, &missing).await?;
            return self.writer.begin_inserts(missing, inserts).await.map(Some);
        }
        let rows = missing.iter();
        let rereads = rows.map(|(row, digest)| self.verdicts.name_row(row, *digest)).collect();
        let (changes, rereads) = self.confirm_all(target, rereads).await?;
        if self.set_aside_untried(&rereads)? || changes.is_empty() {
            return Ok(None);
        }
        let batch = self.writer.record(changes).await?;
        Ok(Some(self.writer.begin(batch, rereads)))
    }

    /// Finishes the batch that is being written, and puts this one in its place. It is answered for, whatever became of the one
    /// before it.
    pub(super) async fn advance(&mut self, begun: Option<Writing>) -> Result<(), AgentError> {
        let ended = self.finish_writing().await;
        self.writer.hold(begun);
        ended
    }

    /// Waits for the batch that is being written, if any, and counts its rows.
    pub(super) async fn finish_writing(&mut self) -> Result<(), AgentError> {
        match self.writer.finish().await? {
            None => {}
            Some(Written::Changes(rows)) => {
                for (reread, operation, outcome) in rows {
                    match outcome {
                        ChangeOutcome::Written => self.written(operation, &reread)?,
                        not_written => self.not_written(&reread, not_written)?,
                    }
                }
            }
            Some(Written::Inserts(missing, outcomes)) => {
                let mut inserted = 0;
                for ((row, digest), outcome) in missing.iter().zip(outcomes) {
                    match outcome {
                        ChangeOutcome::Written => {
                            inserted += 1;
                            self.overlay.inserted(row.0, digest)?;
                        }
                        not_written => {
                            let mut reread = self.verdicts.name_row(row, *digest);
                            // It was reported with its part.
                            reread.suspect.named = true;
                            self.not_written(&reread, not_written)?;
                        }
                    }
                }
                self.verdicts.inserted(inserted);
            }
        }
        Ok(())
    }

    fn written(&mut self, operation: Operation, reread: &Reread) -> Result<(), AgentError> {
        self.verdicts.written(operation, reread);
        self.overlay.written(&reread.suspect)
    }

    fn not_written(&mut self, reread: &Reread, outcome: ChangeOutcome) -> Result<(), AgentError> {
        match outcome {
            ChangeOutcome::Written => Ok(()),
            // The row changed between reading and writing: it goes round again, and counts as what it is found to be then.
            ChangeOutcome::Stale | ChangeOutcome::Already => self.again.push(&reread.renewed(&self.session)),
            ChangeOutcome::Failed(rejection)
                if matches!(rejection.kind, RejectionKind::ForeignKey | RejectionKind::Unique)
                    && self.writer.ended().is_none() =>
            {
                self.refused.push(&reread.renewed(&self.session))
            }
            ChangeOutcome::Failed(rejection) => self.verdicts.set_aside(reread, &rejection.reason),
        }
    }

    /// Writes changes that block each other in one transaction; what is not written then is set aside. No batch may be on its
    /// way.
    pub(super) async fn exchange(
        &mut self,
        changes: PermittedChanges,
        rereads: Vec<Reread>,
    ) -> Result<(), AgentError> {
        if changes.is_empty() {
            return Ok(());
        }
        let operations: Vec<Operation> = changes.as_slice().iter().map(Change::operation).collect();
        let outcomes = self.writer.exchange(self.policy.permit_exchange(changes)).await?;
        for ((operation, reread), outcome) in operations.into_iter().zip(rereads).zip(outcomes) {
            match outcome {
                ChangeOutcome::Written => self.written(operation, &reread)?,
                ChangeOutcome::Stale | ChangeOutcome::Already => {
                    self.verdicts.set_aside(&reread, "changed while it was being repaired")?;
                }
                ChangeOutcome::Failed(rejection) => self.verdicts.set_aside(&reread, &rejection.reason)?,
            }
        }
        Ok(())
    }
}
