//! Filling gaps: long ranges of rows that only the source has are streamed in key order and inserted as they come.

use std::collections::VecDeque;

use tokio_util::task::AbortOnDropHandle;

use super::super::compare::missing_rows::Missing;
use super::super::compare::reread::Reread;
use super::super::compare::suspects::Suspect;
use super::super::error::AgentError;
use super::super::proto::{StreamRun, frame::Kind};
use super::super::session::out_of_order;
use super::super::session::wire::{unpack_entries, unpack_rows};
use super::super::target::{MissingRange, Target};
use super::batch_writer::Writing;
use super::passes::Passes;
use super::recheck::Pass;
use super::row_requests::{Rows, look_up};
use super::settle::Settlement;
use crate::merkle::RowHasher;
use crate::model::{Key, Role};

/// Rows of a range on their way out of a packed part.
type Unpacking = AbortOnDropHandle<Result<Missing, AgentError>>;

/// Rows of a range that have arrived.
enum Part {
    /// None is there; those that may be written are on their way.
    Missing(Option<Writing>),
    /// Some are there by now.
    Mixed(Vec<Reread>),
}

/// Inserts one missing range, or says why not.
pub(super) async fn fill(
    target: &mut Target<'_>,
    settlement: &mut Settlement<'_>,
    passes: &mut Passes,
    range: &MissingRange,
) -> Result<(), AgentError> {
    if !settlement.policy().writes() {
        settlement.verdicts().leave_range(range);
        return Ok(());
    }
    let not_tried = settlement.writer().not_tried();
    if let Some(reason) = not_tried.or_else(|| settlement.policy().no_insert_succeeds()) {
        return settlement.verdicts().set_aside_range(range, &reason);
    }
    settlement.check_tables(target).await?;
    target.session.send(Kind::StreamRun(StreamRun { run_id: range.run_id })).await?;
    let mut arriving = ArrivingRange::default();
    arriving.insert(target, settlement, passes).await?;
    if arriving.arrived != range.count {
        return Err(AgentError::protocol("the source agent sent another number of rows than it announced"));
    }
    Ok(())
}

/// A missing range on its way from the source into the table.
#[derive(Default)]
struct ArrivingRange {
    /// Rows so far.
    arrived: u64,
    /// The part that is being unpacked.
    unpacking: Option<Unpacking>,
    /// Unpacked rows, in parts that are written together.
    ready: VecDeque<Missing>,
}

impl ArrivingRange {
    /// A batch is recorded and begun before the one before it has ended, and the one behind it unpacked meanwhile.
    async fn insert(
        &mut self,
        target: &mut Target<'_>,
        settlement: &mut Settlement<'_>,
        passes: &mut Passes,
    ) -> Result<(), AgentError> {
        // An insert is conditional, so rows that are there by now need not be looked for: they come out as stale. Where
        // that happens the target follows, and the next rows are looked for before they are called missing.
        let mut look = true;
        self.unpacking = Some(self.unpack_next(target, settlement).await?);
        loop {
            let stale = settlement.rows_to_look_at();
            let next = match self.next_part(target, settlement).await? {
                Some(missing) => Some(begin(target, settlement, missing, look).await?),
                None => None,
            };
            let (begun, mixed) = match next {
                None => {
                    settlement.finish_writing().await?;
                    return settlement.report_progress(target).await;
                }
                Some(Part::Missing(begun)) => (begun, None),
                Some(Part::Mixed(rereads)) => (None, Some(rereads)),
            };
            settlement.advance(begun).await?;
            settlement.report_progress(target).await?;
            look = match mixed {
                None => settlement.rows_to_look_at() > stale,
                // They are judged when nothing else is being written.
                Some(rereads) => {
                    passes.judge(target, settlement, rereads, Pass::Confirm).await?;
                    settlement.finish_writing().await?;
                    true
                }
            };
        }
    }

    /// The next rows that are written together; `None` behind the last.
    async fn next_part(
        &mut self,
        target: &mut Target<'_>,
        settlement: &mut Settlement<'_>,
    ) -> Result<Option<Missing>, AgentError> {
        if self.ready.is_empty()
            && let Some(unpacked) = self.unpacking.take()
        {
            let missing =
                unpacked.await.unwrap_or_else(|_| Err(AgentError::protocol("rows were not unpacked")))?;
            self.ready = missing.parts(target.agent.pace.together_max());
            // The part behind the last row is empty.
            if !self.ready.is_empty() {
                self.unpacking = Some(self.unpack_next(target, settlement).await?);
            }
        }
        let Some(mut missing) = self.ready.pop_front() else { return Ok(None) };
        if settlement.writer().is_trying() {
            settlement.finish_writing().await?;
        }
        let most = settlement.writer().batch_rows(missing.rows.len());
        if let Some(rest) = missing.split_off(most) {
            self.ready.push_front(rest);
        }
        self.arrived += missing.rows.len() as u64;
        Ok(Some(missing))
    }

    /// The next part of the range, each row with its digest. Rows that the source has scanned and does not find by key are
    /// suspects like any other: that they are gone is to be shown.
    async fn unpack_next(
        &mut self,
        target: &mut Target<'_>,
        settlement: &mut Settlement<'_>,
    ) -> Result<Unpacking, AgentError> {
        let first = loop {
            match target.session.recv_answer().await? {
                Kind::Rows(rows) => break rows,
                Kind::Unfound(unfound) => {
                    for (key, digest) in unpack_entries(&unfound.entries)? {
                        settlement.verdicts().name(key.as_bytes());
                        let suspect =
                            Suspect { source: Some(digest), origin: Some(digest), ..Suspect::of(key) };
                        settlement.look_again(&suspect)?;
                        self.arrived += 1;
                    }
                }
                _ => return Err(out_of_order(Role::Source)),
            }
        };
        let packed = target.session.receive_packed(Some(first)).await?;
        let session = target.key.clone();
        Ok(AbortOnDropHandle::new(tokio::task::spawn_blocking(move || {
            let rows = unpack_rows(&session, &packed)?;
            let mut hasher = RowHasher::new(&session);
            rows.iter().for_each(|(key, row)| hasher.push(key, row));
            Ok(Missing::new(rows, hasher.take()))
        })))
    }
}

/// Looks for these rows in the target where asked to, and begins to write them where none is there.
async fn begin(
    target: &mut Target<'_>,
    settlement: &mut Settlement<'_>,
    missing: Missing,
    look: bool,
) -> Result<Part, AgentError> {
    target.outcome.source_rows_reread += missing.rows.len() as u64;
    let Some(own) = own_rows(target, &missing, look).await? else {
        return settlement.begin_missing(target, missing).await.map(Part::Missing);
    };
    let rows = missing.iter().map(|(row, digest)| {
        let reread = settlement.verdicts().name_row(row, *digest);
        Reread { target: own.get(&reread.suspect.key).cloned(), ..reread }
    });
    Ok(Part::Mixed(rows.collect()))
}

/// What the target holds of these rows; `None` where it holds none of them, or nobody is to look.
async fn own_rows(
    target: &mut Target<'_>,
    missing: &Missing,
    look: bool,
) -> Result<Option<Rows>, AgentError> {
    if !look {
        return Ok(None);
    }
    let keys: Vec<Key> = missing.rows.iter().map(|(key, _)| Key::from(key)).collect();
    let access = target.access.clone();
    let found = look_up(target, &access, &keys).await?;
    Ok(keys.iter().any(|key| found.get(key).is_some()).then_some(found))
}
