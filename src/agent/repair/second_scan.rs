//! The second look where very many rows differ: both tables are scanned once more, instead of asked for by key.
//!
//! Each side then knows which of its own rows have moved between its two scans. A suspect that has moved on neither side is
//! what it was: a difference, shown by two scans. The few that have moved are left to be read by key. Asking for a row by
//! its key costs both sides as much as scanning some sixteen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::super::compare::suspects::{Spool, Suspect};
use super::super::error::AgentError;
use super::super::event::Event;
use super::super::proto::{Rescan, frame::Kind};
use super::super::scan::moved::for_each_moved;
use super::super::scan::{Scanned, run_error, scan_table};
use super::super::session::out_of_order;
use super::super::session::wire::unpack_keys;
use super::super::target::{PROGRESS_EVERY, Target};
use super::outside::has_condition;
use super::recheck::after;
use super::verdict::Verdicts;
use crate::merkle::{DigestRun, RootDigest};
use crate::model::{Key, Role};

/// Suspects from which a scan is the better second look, and how many of the table's rows each of them is worth.
const SCAN_FROM: u64 = 10_000;
const SCAN_ABOVE: u64 = 16;
/// Suspects that are told in detail are read by key in any case: their values are wanted.
const DETAILS_BY_KEY: u64 = 10_000;
/// Rows between two reports of progress.
const REPORT_EVERY: u64 = 65_536;

/// A scan of both sides, to be compared with the first.
pub(super) struct SecondScan<'a> {
    /// What the target's first scan saw.
    run: &'a Arc<DigestRun>,
    root: RootDigest,
}

impl<'a> SecondScan<'a> {
    pub(super) fn after(run: &'a Arc<DigestRun>, root: RootDigest) -> Self {
        Self { run, root }
    }

    /// Settles what two scans can settle, and gives back the suspects that are to be read by key.
    pub(super) async fn settle(
        &self,
        target: &mut Target<'_>,
        verdicts: &mut Verdicts,
        suspects: Spool,
    ) -> Result<Spool, AgentError> {
        let rows = target.outcome.source_rows.max(target.outcome.target_rows);
        let options = &target.task.options;
        let digests_do =
            options.repair.is_none() && options.tolerance.is_empty() && !has_condition(&target.task.plan);
        if !digests_do || suspects.len() < SCAN_FROM || suspects.len().saturating_mul(SCAN_ABOVE) < rows {
            return Ok(suspects);
        }
        let by_key = options.details_max.min(DETAILS_BY_KEY);
        let look_again = options.recheck > 0;
        // One scan, as late as the last of the rechecks asked for would be.
        let delay = Duration::from_millis(options.recheck_delay_ms)
            .saturating_mul(2u32.saturating_pow(options.recheck.clamp(1, 16) - 1));
        let moved = match look_again {
            true => {
                tokio::time::sleep_until(after(target.began, delay)).await;
                self.moved_keys(target).await?
            }
            false => [target.spool(), target.spool()],
        };
        leave_all_but(target, verdicts, suspects, moved, by_key).await
    }

    /// Scans both sides, and gives the keys whose rows have moved since the first scan: the source's, and the target's.
    async fn moved_keys(&self, target: &mut Target<'_>) -> Result<[Spool; 2], AgentError> {
        let (mut theirs, mut ours) = (target.spool(), target.spool());
        let before = Arc::clone(self.run);
        target.session.send(Kind::Rescan(Rescan {})).await?;
        let rows = Arc::new(AtomicU64::new(0));
        let (agent, events) = (target.agent, target.events);
        let scan = scan_table(agent, &target.access, &target.key, &agent.limits, &rows);
        let session = &mut target.session;
        let receive = async {
            let mut last: Option<Key> = None;
            loop {
                let Kind::Moved(part) = session.recv_answer().await? else {
                    return Err(out_of_order(Role::Source));
                };
                for key in unpack_keys(&part.keys)? {
                    if last.as_ref().is_some_and(|last| *last >= key) {
                        return Err(AgentError::protocol("the source agent named moved keys out of order"));
                    }
                    theirs.push(&Suspect::of(key.clone()))?;
                    last = Some(key);
                }
                if part.last {
                    return Ok(());
                }
            }
        };
        let report = async {
            let mut ticks = tokio::time::interval(PROGRESS_EVERY);
            loop {
                ticks.tick().await;
                let rows = rows.load(Ordering::Relaxed);
                let _ = events.try_send(Event::Progress { side: Role::Target, rows });
            }
        };
        let both = async { tokio::try_join!(scan, receive) };
        let (Scanned { run: now, tree, .. }, ()) = tokio::select! {
            done = both => done?,
            () = report => return Err(AgentError::protocol("the reporting of a scan ended")),
        };
        if tree.root() == self.root {
            return Ok([theirs, ours]);
        }
        let compared = tokio::task::spawn_blocking(move || {
            let mut failed = None;
            let mut keep = |key: &[u8]| {
                failed = ours.push(&Suspect::of(Key::from(key))).err();
                failed.is_none()
            };
            let compared = for_each_moved(&before, &now, &mut keep);
            match failed {
                Some(error) => Err(error),
                None => compared.map(|()| ours).map_err(|error| run_error("compare two scans", &error)),
            }
        });
        let ours = compared
            .await
            .unwrap_or_else(|_| Err(AgentError::protocol("a comparison of two runs ended early")))?;
        Ok([theirs, ours])
    }
}

/// Goes over suspects and moved keys, all in key order: what has not moved is a difference.
async fn leave_all_but(
    target: &Target<'_>,
    verdicts: &mut Verdicts,
    suspects: Spool,
    [theirs, ours]: [Spool; 2],
    mut by_key: u64,
) -> Result<Spool, AgentError> {
    let mut rest = target.spool();
    let mut suspects = suspects.read()?;
    let (mut theirs, mut ours) = (theirs.read()?, ours.read()?);
    let (mut their_next, mut our_next) = (theirs.next_suspect()?, ours.next_suspect()?);
    let mut reported = Instant::now();
    let mut count = 0u64;
    while let Some(suspect) = suspects.next_suspect()? {
        while their_next.as_ref().is_some_and(|moved| moved.key < suspect.key) {
            their_next = theirs.next_suspect()?;
        }
        while our_next.as_ref().is_some_and(|moved| moved.key < suspect.key) {
            our_next = ours.next_suspect()?;
        }
        let moved = [&their_next, &our_next]
            .into_iter()
            .any(|moved| moved.as_ref().is_some_and(|moved| moved.key == suspect.key));
        if moved || by_key > 0 {
            by_key = by_key.saturating_sub(u64::from(!moved));
            rest.push(&suspect)?;
            continue;
        }
        verdicts.leave_unread(&suspect);
        count += 1;
        if count.is_multiple_of(REPORT_EVERY) && reported.elapsed() > PROGRESS_EVERY {
            verdicts.report_progress(target).await?;
            reported = Instant::now();
        }
    }
    verdicts.report_progress(target).await?;
    Ok(rest)
}
