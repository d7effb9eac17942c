//! The proof of a repair: the written rows are read again, or after many the whole target, and the target's new root is
//! compared with the source's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use super::super::compare::suspects::Suspect;
use super::super::error::AgentError;
use super::super::event::{Event, Phase};
use super::super::outcome::TableOutcome;
use super::super::scan::scan_table;
use super::super::session::wire::{Answer, Summand, sum_of, unpack_answers};
use super::super::target::{PROGRESS_EVERY, Target};
use super::overlay::Overlay;
use super::row_requests::{ASKED_KEY_BYTES, How, RowRequests, ask, look_up, take_some};
use crate::merkle::{DigestRun, RootDigest, RowDigest, Tree};
use crate::model::{Key, Role, TableAccess, TableSchema};

/// Written rows that are asked for with one request: their digests are small.
const VERIFIED_TOGETHER: usize = 2_000;
/// Requests for digests that are on their way at once.
const ASKED_AHEAD: usize = 4;
/// Written rows from which a scan of the table may be the better proof; asking for a row by its key costs both sides as
/// much as scanning some sixteen.
const SCAN_FROM: u64 = 10_000;
const SCAN_ABOVE: u64 = 16;

/// What a repair left, to be proved.
pub(super) struct RepairProof {
    overlay: Overlay,
    /// The target as it was scanned before the repair.
    run: Arc<DigestRun>,
    tree: Arc<Tree>,
    source_root: RootDigest,
    requests: RowRequests,
}

impl RepairProof {
    pub(super) fn new(
        overlay: Overlay,
        run: Arc<DigestRun>,
        tree: Arc<Tree>,
        source_root: RootDigest,
        requests: RowRequests,
    ) -> Self {
        Self { overlay, run, tree, source_root, requests }
    }

    /// What the target holds of these rows.
    async fn held(&mut self, target: &mut Target<'_>, keys: &[Key]) -> Result<Vec<Summand>, AgentError> {
        let access = target.access.clone();
        let mut held = Vec::with_capacity(keys.len());
        while let Some(rest) = keys.get(held.len()..).filter(|rest| !rest.is_empty()) {
            let some = &rest[..rest.len().min(self.requests.keys())];
            let found = look_up(target, &access, some).await?;
            self.requests.learn_from(&found);
            held.extend(some.iter().map(|key| match found.get(key) {
                Some(row) => Summand::Row(target.key.row_digest(key.as_bytes(), row.as_bytes())),
                None if found.is_unproven(key) => Summand::Unproven(Role::Target),
                None => Summand::Absent,
            }));
        }
        Ok(held)
    }

    /// Compares what the source says of these rows with what is there; what it did not answer is left. `false` beside it:
    /// a lookup did not find a row and shows nothing, so that only a scan can prove the repair.
    async fn verify_chunk(
        &mut self,
        target: &mut Target<'_>,
        mut chunk: Vec<Suspect>,
        how: How,
    ) -> Result<(Vec<Suspect>, bool), AgentError> {
        let keys: Vec<Key> = chunk.iter().map(|suspect| suspect.key.clone()).collect();
        let packed = target.session.receive_packed(None).await?;
        let held = self.held(target, &keys).await?;
        if how.summed {
            if sum_of(&target.key, held.iter().copied()).0.as_slice() != packed.as_slice() {
                return Ok((chunk, true));
            }
            target.outcome.source_rows_reread += keys.len() as u64;
            for suspect in chunk {
                self.overlay.settled(&suspect.key, suspect.origin)?;
            }
            return Ok((Vec::new(), true));
        }
        let answers = unpack_answers(&target.key, &packed)?;
        if answers.is_empty() || answers.len() > chunk.len() {
            return Err(AgentError::protocol(
                "the source agent answered another number of keys than were asked",
            ));
        }
        let rest = chunk.split_off(answers.len());
        target.outcome.source_rows_reread += answers.len() as u64;
        for ((suspect, answer), held) in chunk.into_iter().zip(answers).zip(held) {
            let source = match answer {
                Answer::Absent => None,
                Answer::Digest(digest) => Some(digest),
                Answer::Row(row) => Some(target.key.row_digest(suspect.key.as_bytes(), row.as_bytes())),
                Answer::Unproven => return Ok((rest, false)),
                Answer::Patch(_) => {
                    return Err(AgentError::protocol("the source agent sent cells where a digest was asked"));
                }
            };
            let own = match held {
                Summand::Row(digest) => Some(digest),
                Summand::Absent => None,
                Summand::Unproven(_) => return Ok((rest, false)),
            };
            if source == own {
                self.overlay.settled(&suspect.key, suspect.origin)?;
            } else if source.is_some()
                && own.is_none()
                && source == held_outside(target, &suspect.key).await?
            {
                // It is written, and the target's condition does not select it.
                target.outcome.leave_outside();
                self.overlay.holds(&suspect.key, own)?;
            } else {
                // Written over since, on one side or the other: the root must not be claimed.
                target.outcome.unsettled += 1;
                self.overlay.holds(&suspect.key, own)?;
            }
        }
        Ok((rest, true))
    }

    /// Proves that the target holds what the source's snapshot held: by a scan where that is less work or the only way, else
    /// row by row.
    #[tracing::instrument(level = "info", skip_all)]
    pub(super) async fn verify(mut self, target: &mut Target<'_>) -> Result<(), AgentError> {
        let since = Instant::now();
        target.tell(Event::Phase { phase: Phase::Verify }).await?;
        let root = self.proved_root(target).await?;
        let doubtful = !target.outcome.doubts.is_empty();
        let nothing_left = nothing_left(&target.outcome);
        let outcome = &mut target.outcome;
        outcome.repaired_root = Some(root.to_string());
        outcome.proved = root == self.source_root && nothing_left && !doubtful;
        if !outcome.proved && nothing_left && outcome.unsettled == 0 && !doubtful {
            outcome.doubts.push(
                "after the writes the target's rows are not those that the source had when it was scanned"
                    .to_owned(),
            );
        }
        outcome.seconds.verify = since.elapsed().as_secs_f64();
        Ok(())
    }

    /// The target's root after the writes.
    async fn proved_root(&mut self, target: &mut Target<'_>) -> Result<RootDigest, AgentError> {
        let written = self.overlay.rows_written();
        let rows = target.outcome.source_rows.max(target.outcome.target_rows);
        // A trigger or a foreign key may have changed rows that nobody wrote: only the table itself shows them.
        if written > 0 && writes_may_spread(&target.schema) {
            return scan_again(target).await;
        }
        if nothing_left(&target.outcome) && written >= SCAN_FROM && written.saturating_mul(SCAN_ABOVE) >= rows
        {
            // Where it is not the source's, the rows tell which of them have changed since.
            let root = scan_again(target).await?;
            if root == self.source_root {
                return Ok(root);
            }
        }
        match self.verify_written(target).await? {
            Some(root) => Ok(root),
            None => scan_again(target).await,
        }
    }

    /// Reads the written rows again on both sides, and computes the target's new root from its old one. `None` where that
    /// shows nothing.
    async fn verify_written(&mut self, target: &mut Target<'_>) -> Result<Option<RootDigest>, AgentError> {
        let mut reader = self.overlay.take_written(target.spool()).read()?;
        let (mut asked, mut unanswered) = (VecDeque::with_capacity(ASKED_AHEAD), VecDeque::new());
        // Digests that the source answers at a time, as far as that has shown.
        let mut most = VERIFIED_TOGETHER;
        let (summed, each) =
            (How { summed: true, ..How::default() }, How { digests_only: true, ..How::default() });
        let mut shown = true;
        loop {
            while shown && asked.len() < ASKED_AHEAD {
                // The rows have crossed once; one digest of many is enough, and the digests of each where it is another.
                let (chunk, how) = match take_some(&mut unanswered, most) {
                    Some(rest) => (rest, each),
                    None => (reader.next_chunk_within(VERIFIED_TOGETHER, ASKED_KEY_BYTES)?, summed),
                };
                if chunk.is_empty() {
                    break;
                }
                ask(target, chunk.iter().map(|suspect| &suspect.key), how).await?;
                asked.push_back((chunk, how));
            }
            let Some((chunk, how)) = asked.pop_front() else { break };
            let count = chunk.len();
            let (rest, chunk_shown) = self.verify_chunk(target, chunk, how).await?;
            shown &= chunk_shown;
            if !rest.is_empty() {
                if how == each {
                    most = count - rest.len();
                }
                unanswered.push_back(rest);
            }
        }
        if !shown {
            return Ok(None);
        }
        self.overlay.root(&self.run, &self.tree, &target.key).map(Some)
    }
}

/// What the target holds of a row without regard to the run's condition.
async fn held_outside(target: &mut Target<'_>, key: &Key) -> Result<Option<RowDigest>, AgentError> {
    if target.access.filter.is_none() {
        return Ok(None);
    }
    let access = Arc::new(TableAccess { filter: None, ..(*target.access).clone() });
    let found = look_up(target, &access, std::slice::from_ref(key)).await?;
    Ok(found.get(key).map(|row| target.key.row_digest(key.as_bytes(), row.as_bytes())))
}

fn nothing_left(outcome: &TableOutcome) -> bool {
    outcome.left == 0 && outcome.set_aside == 0 && outcome.unsettled == 0
}

/// Writing a row of this table may change another one of it: by a trigger, or by a foreign key that passes an update or a
/// delete on, be it over other tables.
fn writes_may_spread(schema: &TableSchema) -> bool {
    !schema.triggers.is_empty()
        || schema.referrers.iter().any(|referrer| referrer.delete_spreads || referrer.update_spreads)
}

/// The target's root, read from the table itself.
async fn scan_again(target: &Target<'_>) -> Result<RootDigest, AgentError> {
    let rows = Arc::new(AtomicU64::new(0));
    let scan = scan_table(target.agent, &target.access, &target.key, &target.agent.limits, &rows);
    tokio::pin!(scan);
    let mut ticks = tokio::time::interval(PROGRESS_EVERY);
    let scanned = loop {
        tokio::select! {
            done = &mut scan => break done?,
            _ = ticks.tick() => {
                let rows = rows.load(Ordering::Relaxed);
                target.tell(Event::Progress { side: Role::Target, rows }).await?;
            }
        }
    };
    Ok(scanned.tree.root())
}
