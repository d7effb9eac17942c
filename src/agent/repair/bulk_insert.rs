//! Filling gaps: long runs of rows that only the source has are streamed in key order and inserted as they come.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::super::compare::missing_rows::{Missing, missing_row};
use super::super::compare::reread::Reread;
use super::super::compare::suspects::Suspect;
use super::super::error::AgentError;
use super::super::proto::{StreamRun, frame::Kind};
use super::super::session::out_of_order;
use super::super::session::wire::{unpack_entries, unpack_rows};
use super::super::target::MissingRange;
use super::refusals::Refusals;
use super::row_requests::look_up;
use super::settle::{Pass, Settlement};
use super::writing::Writing;
use crate::merkle::RowHasher;
use crate::model::{Key, Operation, Refusal, Role};

/// Rows of a run on their way out of a packed part.
type Unpacking = AbortOnDropHandle<Result<Missing, AgentError>>;

/// Rows of a run that have arrived.
enum Part {
    /// None is there; those that may be written are on their way.
    Missing(Option<Writing>),
    /// Some are there by now.
    Mixed(Vec<Reread>),
}

impl Settlement<'_, '_> {
    /// Rows that only the source has, streamed in key order and inserted as they come.
    pub(crate) async fn missing_range(&mut self, range: MissingRange) -> Result<(), AgentError> {
        if !self.writes() {
            // Over the limit: the range is known by its count alone.
            self.target.outcome.missing += range.count;
            self.target.outcome.left += range.count;
            self.balance().conclude_range(range.count);
            self.parts.add(range.first.as_bytes(), range.count);
            return Ok(());
        }
        if let Some(reason) = self.never_inserted() {
            self.target.outcome.missing += range.count;
            self.balance().conclude_range(range.count);
            self.parts.add(range.first.as_bytes(), range.count);
            return self.note_refusal(&range.first, &reason, range.count);
        }
        self.check_tables().await?;
        self.target.session.send(Kind::StreamRun(StreamRun { run_id: range.run_id })).await?;
        let (mut arrived, mut look) = (0, true);
        // A batch is announced and begun before the one before it has ended, and the one behind it unpacked meanwhile.
        let mut ready: VecDeque<Missing> = VecDeque::new();
        let mut unpacking = Some(self.unpack_next(&mut arrived).await?);
        loop {
            let stale = self.again.len();
            if ready.is_empty()
                && let Some(unpacked) = unpacking.take()
            {
                let missing =
                    unpacked.await.unwrap_or_else(|_| Err(AgentError::protocol("rows were not unpacked")))?;
                ready = missing.parts(self.target.agent.pace.together_max());
                // The part behind the last row is empty.
                if !ready.is_empty() {
                    unpacking = Some(self.unpack_next(&mut arrived).await?);
                }
            }
            let next = match ready.pop_front() {
                None => None,
                Some(mut missing) => {
                    if self.refusals.is_trying() {
                        self.finish_writing().await?;
                    }
                    let most = self.refusals.batch_rows(missing.rows.len());
                    if let Some(rest) = missing.split_off(most) {
                        ready.push_front(rest);
                    }
                    arrived += missing.rows.len() as u64;
                    Some(self.confirm_part(missing, look).await?)
                }
            };
            let ended = self.finish_writing().await;
            let (begun, mixed) = match next {
                None => {
                    ended?;
                    self.tell_worked().await?;
                    break;
                }
                Some(Part::Missing(begun)) => (begun, None),
                Some(Part::Mixed(rereads)) => (None, Some(rereads)),
            };
            // It is answered for, whatever became of the one before it.
            self.writing = begun;
            ended?;
            self.tell_worked().await?;
            look = match mixed {
                None => self.again.len() > stale,
                // They are judged when nothing else is being written.
                Some(rereads) => {
                    self.judge(rereads, Pass::Confirm).await?;
                    self.finish_writing().await?;
                    true
                }
            };
        }
        if arrived != range.count {
            return Err(AgentError::protocol(
                "the source agent sent another number of rows than it announced",
            ));
        }
        Ok(())
    }

    /// Why no row of the table is inserted any more, whatever row it is.
    fn never_inserted(&self) -> Option<String> {
        if let Some(reason) = self.refusals.ended() {
            return Some(Refusals::not_tried(reason));
        }
        match self.permission.refuses(Operation::Insert) {
            Some(refusal @ Refusal::Required(_)) => Some(refusal.to_string()),
            _ => None,
        }
    }

    /// The next part of the range, each row with its digest. Rows that the source has scanned and does not find by key are
    /// suspects like any other: that they are gone is to be shown.
    async fn unpack_next(&mut self, arrived: &mut u64) -> Result<Unpacking, AgentError> {
        let first = loop {
            match self.target.session.recv_answer().await? {
                Kind::Rows(rows) => break rows,
                Kind::Unfound(unfound) => {
                    for (key, digest) in unpack_entries(&unfound.entries)? {
                        self.located.balance.name(&self.target.key, key.as_bytes());
                        let suspect =
                            Suspect { source: Some(digest), origin: Some(digest), ..Suspect::of(key) };
                        self.again.push(&suspect)?;
                        *arrived += 1;
                    }
                }
                _ => return Err(out_of_order(Role::Source)),
            }
        };
        let packed = self.target.session.receive_packed(Some(first)).await?;
        let session = self.target.key.clone();
        Ok(AbortOnDropHandle::new(tokio::task::spawn_blocking(move || {
            let rows = unpack_rows(&session, &packed)?;
            let mut hasher = RowHasher::new(&session);
            rows.iter().for_each(|(key, row)| hasher.push(key, row));
            Ok(Missing::new(rows, hasher.take()))
        })))
    }

    /// An insert is conditional, so rows that are there by now need not be looked for: they come out as stale. Where
    /// that happens the target follows, and the next rows are looked for before they are called missing.
    async fn confirm_part(&mut self, missing: Missing, look: bool) -> Result<Part, AgentError> {
        self.target.outcome.source_rows_reread += missing.rows.len() as u64;
        let mut own = None;
        if look {
            let keys: Vec<Key> = missing.rows.iter().map(|(key, _)| Key::from(key)).collect();
            let access = self.target.access.clone();
            let found = look_up(self.target, &access, &keys).await?;
            own = missing.rows.iter().any(|(key, _)| found.get(&Key::from(key)).is_some()).then_some(found);
        }
        if own.is_none()
            && !self.target.task.options.sql
            && self.refusals.ended().is_none()
            && let Ok(inserts) = self.permission.permit_inserts(Arc::clone(&missing.rows))
        {
            self.tell_missing(&missing).await?;
            return Ok(Part::Missing(Some(self.begin_inserting(missing, inserts).await?)));
        }
        let mut rereads = Vec::with_capacity(missing.rows.len());
        for ((key, row), digest) in missing.iter() {
            self.located.balance.name(&self.target.key, key);
            let reread = missing_row(key, row, *digest);
            let target = own.as_ref().and_then(|own| own.get(&reread.suspect.key)).cloned();
            rereads.push(Reread { target, ..reread });
        }
        if own.is_some() {
            return Ok(Part::Mixed(rereads));
        }
        let (changes, rereads) = self.confirm_all(rereads).await?;
        if let Some(reason) = self.refusals.ended().map(Refusals::not_tried) {
            rereads.iter().try_for_each(|reread| self.set_aside(reread, &reason))?;
            return Ok(Part::Missing(None));
        }
        Ok(Part::Missing(self.begin_writing(changes, rereads).await?))
    }

    /// Rows that are differences beyond doubt.
    async fn tell_missing(&mut self, missing: &Missing) -> Result<(), AgentError> {
        for ((key, row), digest) in missing.iter() {
            self.parts.add(key, 1);
            if self.told < self.target.task.options.details_max {
                self.tell_difference(&missing_row(key, row, *digest)).await?;
            }
        }
        Ok(())
    }
}
