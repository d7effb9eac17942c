//! Passes over the suspects: each is read again on both sides, and settled or looked at once more.
//!
//! Passes go over the suspects front to back, with back-off between them. A suspect on which both sides agree by now, or
//! that the target follows, was in flight. One that still changes after the last pass is unsettled: nothing is claimed
//! of it. A suspect that a lookup does not find is searched for by a scan before anything is said
//! ([`Reread::finding`](super::super::compare::reread::Reread::finding) says why).

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::super::compare::reread::Reread;
use super::super::compare::suspects::{Spool, Suspect};
use super::super::error::AgentError;
use super::super::target::Target;
use super::outside::{has_condition, is_one_sided, read_outside};
use super::recheck::{Decision, Pass, Recheck, after};
use super::row_requests::{
    ASKED_KEY_BYTES, How, REQUESTS_AHEAD, RowRequests, SEARCH_KEY_BYTES, SEARCH_KEYS, take_some,
};
use super::settle::Settlement;
use crate::model::PermittedChanges;

/// Passes for rows that still change, beyond the rechecks asked for.
const EXTRA_PASSES: u32 = 3;

/// Reads suspects again and decides what is done with them.
pub(super) struct Passes {
    requests: RowRequests,
    recheck: Recheck,
    /// The run is about the rows of a condition.
    has_condition: bool,
    /// Suspects of this pass that a lookup did not find, and need not have found.
    unproven: Spool,
    /// Suspects that one side lacks, and that may be there outside of the run's condition.
    outside: Spool,
}

impl Passes {
    /// `row_bytes`: of an average row of the target.
    pub(super) fn new(target: &Target<'_>, row_bytes: usize) -> Self {
        Self {
            requests: RowRequests::new(row_bytes),
            recheck: Recheck { waits: target.task.options.recheck > 0, repairs: target.writes() },
            has_condition: has_condition(&target.task.plan),
            unproven: target.spool(),
            outside: target.spool(),
        }
    }

    pub(super) fn requests(&mut self) -> &mut RowRequests {
        &mut self.requests
    }

    /// Hands on what was learnt of the rows' size.
    pub(super) fn into_requests(self) -> RowRequests {
        self.requests
    }

    /// Watches the suspects as often as asked, then confirms; what still changes gets a few passes more.
    pub(super) async fn run(
        &mut self,
        target: &mut Target<'_>,
        settlement: &mut Settlement<'_>,
        mut suspects: Spool,
    ) -> Result<(), AgentError> {
        let rechecks = target.task.options.recheck;
        let delay = Duration::from_millis(target.task.options.recheck_delay_ms);
        let mut not_before = after(target.began, delay);
        for pass in 1..=rechecks.max(1).saturating_add(EXTRA_PASSES) {
            if suspects.len() == 0 {
                return Ok(());
            }
            if rechecks > 0 {
                tokio::time::sleep_until(not_before).await;
            }
            settlement.check_tables(target).await?;
            let what = if pass < rechecks { Pass::Watch } else { Pass::Confirm };
            self.pass(target, settlement, suspects, what).await?;
            suspects = settlement.take_again(target);
            not_before = after(Instant::now(), delay.saturating_mul(2u32.saturating_pow(pass.min(16) - 1)));
        }
        settlement.give_up(target, suspects).await
    }

    /// One pass: the next requests are on their way while the answers to the last one are worked on.
    pub(super) async fn pass(
        &mut self,
        target: &mut Target<'_>,
        settlement: &mut Settlement<'_>,
        suspects: Spool,
        pass: Pass,
    ) -> Result<(), AgentError> {
        let mut reader = suspects.read()?;
        // Answers may cover fewer keys than were asked; the rest comes first next time.
        let mut unanswered: VecDeque<Vec<Suspect>> = VecDeque::new();
        let mut asked = VecDeque::new();
        let how = How::default();
        loop {
            while asked.len() < REQUESTS_AHEAD {
                let suspects = match take_some(&mut unanswered, self.requests.keys()) {
                    Some(suspects) => suspects,
                    None => reader.next_chunk_within(self.requests.keys(), ASKED_KEY_BYTES)?,
                };
                if suspects.is_empty() {
                    break;
                }
                asked.push_back(self.requests.send(target, suspects, how).await?);
            }
            let Some(request) = asked.pop_front() else { break };
            let (rereads, rest) = self.requests.receive(target, request, how).await?;
            if !rest.is_empty() {
                unanswered.push_back(rest);
            }
            self.judge(target, settlement, rereads, pass).await?;
        }
        self.search_unproven(target, settlement, pass).await?;
        self.look_outside(target, settlement, pass).await?;
        settlement.finish_writing().await?;
        settlement.report_progress(target).await
    }

    /// Rows that a lookup missed are read by a scan of both sides, which shows what is there and what is not.
    async fn search_unproven(
        &mut self,
        target: &mut Target<'_>,
        settlement: &mut Settlement<'_>,
        pass: Pass,
    ) -> Result<(), AgentError> {
        let mut reader = std::mem::replace(&mut self.unproven, target.spool()).read()?;
        loop {
            let mut suspects = reader.next_chunk_within(SEARCH_KEYS, SEARCH_KEY_BYTES)?;
            if suspects.is_empty() {
                return Ok(());
            }
            if pass == Pass::Watch {
                // They are searched for once, when it counts.
                suspects.iter().try_for_each(|suspect| settlement.look_again(suspect))?;
                continue;
            }
            while !suspects.is_empty() {
                let (rereads, rest) = RowRequests::search(target, suspects, How::default()).await?;
                self.judge(target, settlement, rereads, pass).await?;
                suspects = rest;
            }
        }
    }

    /// Both sides are asked without the condition for rows that one of them lacks, before they are inserted or deleted.
    async fn look_outside(
        &mut self,
        target: &mut Target<'_>,
        settlement: &mut Settlement<'_>,
        pass: Pass,
    ) -> Result<(), AgentError> {
        let mut reader = std::mem::replace(&mut self.outside, target.spool()).read()?;
        loop {
            let mut suspects = reader.next_chunk_within(self.requests.keys(), ASKED_KEY_BYTES)?;
            if suspects.is_empty() {
                return Ok(());
            }
            while !suspects.is_empty() {
                let (found, rest) = read_outside(target, &mut self.requests, suspects).await?;
                self.settle(target, settlement, found, pass).await?;
                suspects = rest;
            }
        }
    }

    /// Settles what these rows show; what has to be looked for without the condition waits for the end of the pass.
    pub(super) async fn judge(
        &mut self,
        target: &Target<'_>,
        settlement: &mut Settlement<'_>,
        rereads: Vec<Reread>,
        pass: Pass,
    ) -> Result<(), AgentError> {
        if !self.has_condition || pass == Pass::Watch {
            return self.settle(target, settlement, rereads, pass).await;
        }
        let mut decided = Vec::with_capacity(rereads.len());
        for reread in rereads {
            if is_one_sided(&reread)
                && self.recheck.decide(reread.finding(&target.key), pass) == Decision::Confirm
            {
                self.outside.push(&reread.renewed(&target.key))?;
            } else {
                decided.push(reread);
            }
        }
        self.settle(target, settlement, decided, pass).await
    }

    async fn settle(
        &mut self,
        target: &Target<'_>,
        settlement: &mut Settlement<'_>,
        rereads: Vec<Reread>,
        pass: Pass,
    ) -> Result<(), AgentError> {
        let mut changes = PermittedChanges::default();
        let mut decided_by = Vec::new();
        for mut reread in rereads {
            match self.recheck.decide(reread.finding(&target.key), pass) {
                Decision::Search => self.unproven.push(&reread.suspect)?,
                Decision::InFlight(why) => settlement.in_flight(&reread, why)?,
                Decision::Confirm => {
                    if let Some(change) = settlement.confirm(target, &mut reread).await? {
                        changes.push(change);
                        decided_by.push(reread);
                    }
                }
                Decision::LookAgain => settlement.look_again(&reread.renewed(&target.key))?,
            }
        }
        settlement.write(changes, decided_by).await?;
        settlement.report_progress(target).await
    }
}
