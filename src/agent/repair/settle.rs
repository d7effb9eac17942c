//! From suspects to a verdict: every suspect is read again on both sides, and reported or repaired if it persists.
//!
//! Passes go over the suspects front to back, with back-off between them. A suspect on which both sides agree by now, or
//! that the target follows, was in flight. One that still changes after the last pass is unsettled: nothing is claimed
//! of it. A suspect that a lookup does not find is searched for by a scan before anything is said
//! ([`Reread::finding`](super::super::compare::reread::Reread::finding) says why).

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::super::compare::balance::{Balance, Conclusion};
use super::super::compare::describe::Describer;
use super::super::compare::key_histogram::Parts;
use super::super::compare::reread::{Finding, Reread};
use super::super::compare::suspects::{Spool, Suspect};
use super::super::error::AgentError;
use super::super::event::Event;
use super::super::scan::run_error;
use super::super::target::{Located, Target};
use super::super::trail::Trail;
use super::limits::share;
use super::overlay::Overlay;
use super::refusals::Refusals;
use super::row_requests::{How, REQUESTS_AHEAD, RowRequests, SEARCH_KEY_BYTES, SEARCH_KEYS};
use super::writing::Writing;
use crate::model::{Allow, Key, Permission, PermittedChanges};

/// Passes for rows that still change, beyond the rechecks asked for.
const EXTRA_PASSES: u32 = 3;

/// What a pass does with a stable suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Look again later.
    Watch,
    /// It is a difference: count it, tell it, repair it.
    Confirm,
    /// It was refused before: only try to write it.
    Retry,
}

/// The work on one table's suspects.
pub(crate) struct Settlement<'a, 'b> {
    pub(crate) target: &'a mut Target<'b>,
    pub(crate) located: Located,
    pub(crate) describer: Describer,
    pub(crate) overlay: Overlay,
    /// Where confirmed differences are.
    pub(crate) parts: Parts,
    /// Every batch is noted before and after it is written.
    pub(crate) trail: Trail<'b>,
    /// What this run may write: nothing for a diff, a dry run, or where too many rows would change.
    pub(crate) permission: Permission,
    /// What it might write if it were to write, for a person to run.
    pub(crate) shown: Permission,
    /// Writes are held back: too many rows would change.
    pub(crate) over_limit: bool,
    pub(crate) requests: RowRequests,
    /// The batch that is being written.
    pub(crate) writing: Option<Writing>,
    pub(crate) refusals: Refusals,
    /// Rows refused because of other rows, to be tried again.
    pub(crate) refused: Spool,
    /// Suspects of this pass to look at in the next.
    pub(crate) again: Spool,
    /// Suspects of this pass that a lookup did not find, and need not have found.
    unproven: Spool,
    /// Suspects that one side lacks, and that may be there outside of the run's condition.
    outside: Spool,
    pub(crate) of: u64,
    pub(crate) told: u64,
}

impl<'a, 'b> Settlement<'a, 'b> {
    pub(crate) async fn new(target: &'a mut Target<'b>, located: Located) -> Result<Self, AgentError> {
        let options = &target.task.options;
        let allow = options.repair.unwrap_or(Allow::NOTHING);
        let describer =
            Describer::new(&target.task.plan, &target.access, &options.tolerance, options.show_values);
        let inserts = u64::from(allow.insert) * located.missing;
        let overwrites = u64::from(allow.update) * located.changed + u64::from(allow.delete) * located.extra;
        // A dry run foresees it; a file of SQL is for a person to judge.
        let over_limit = options.repair.is_some()
            && !options.sql
            && (options.max_changes.is_some_and(|max| inserts + overwrites > max)
                || options
                    .max_overwritten_percent
                    .is_some_and(|percent| overwrites > share(target.outcome.target_rows, percent)));
        let overlay = Overlay::new(&target.agent.limits);
        let spool = || Spool::new(target.agent.limits.scratch.as_deref());
        let [refused, again, unproven, outside] = [spool(), spool(), spool(), spool()];
        let trail =
            Trail::of_repair(target.agent, &target.task, target.events, &target.key, &target.schema).await?;
        let shown = Permission::new(allow, options.allow_cascade, &target.schema, &target.access);
        let permission = if target.writes() && !over_limit { shown.clone() } else { Permission::nothing() };
        Ok(Self {
            describer,
            overlay,
            parts: Parts::of(&located.run).map_err(|error| run_error("read the run", &error))?,
            trail,
            permission,
            shown,
            over_limit,
            requests: RowRequests::new(located.row_bytes),
            writing: None,
            refusals: Refusals::new(
                target.task.options.details_max,
                target.schema.references.contains(&target.schema.table),
            ),
            refused,
            again,
            unproven,
            outside,
            of: located.missing + located.changed + located.extra,
            told: 0,
            located,
            target,
        })
    }

    pub(crate) fn spool(&self) -> Spool {
        Spool::new(self.target.agent.limits.scratch.as_deref())
    }

    pub(crate) fn writes(&self) -> bool {
        self.target.writes() && !self.over_limit
    }

    pub(crate) fn balance(&mut self) -> &mut Balance {
        &mut self.located.balance
    }

    pub(crate) async fn tell_worked(&self) -> Result<(), AgentError> {
        self.target.tell(Event::Worked { done: self.located.balance.rows_concluded(), of: self.of }).await
    }

    pub(crate) fn say_why_nothing_is_claimed(&mut self) {
        let outcome = &mut self.target.outcome;
        if outcome.unsettled > 0 {
            outcome.doubts.push(format!(
                "{} rows were others each time that they were read, the last time too",
                outcome.unsettled
            ));
        }
    }

    pub(crate) fn take_again(&mut self) -> Spool {
        let empty = self.spool();
        std::mem::replace(&mut self.again, empty)
    }

    /// Before rows are written both tables must be those that were scanned: what is read of another one would be written
    /// over this one. No request may be on its way.
    pub(crate) async fn check_tables(&mut self) -> Result<(), AgentError> {
        if self.writes() {
            self.target.check_identity().await?;
            self.target.session.conclude().await?;
        }
        Ok(())
    }

    /// Watches the suspects as often as asked, then confirms; what still changes gets a few passes more.
    pub(crate) async fn passes(&mut self, mut suspects: Spool) -> Result<(), AgentError> {
        let rechecks = self.target.task.options.recheck;
        let delay = Duration::from_millis(self.target.task.options.recheck_delay_ms);
        let mut not_before = after(self.target.began, delay);
        for pass in 1..=rechecks.max(1).saturating_add(EXTRA_PASSES) {
            if suspects.len() == 0 {
                return Ok(());
            }
            if rechecks > 0 {
                tokio::time::sleep_until(not_before).await;
            }
            self.check_tables().await?;
            self.pass(suspects, if pass < rechecks { Pass::Watch } else { Pass::Confirm }).await?;
            suspects = self.take_again();
            not_before = after(Instant::now(), delay.saturating_mul(2u32.saturating_pow(pass.min(16) - 1)));
        }
        self.give_up(suspects).await
    }

    /// Of these nothing is claimed.
    pub(crate) async fn give_up(&mut self, suspects: Spool) -> Result<(), AgentError> {
        let mut reader = suspects.read()?;
        loop {
            let chunk = reader.next_chunk(1_024)?;
            if chunk.is_empty() {
                return self.tell_worked().await;
            }
            for suspect in chunk {
                self.conclude(&Reread::new(suspect, None, None), Conclusion::Unsettled);
            }
        }
    }

    /// One pass: the next requests are on their way while the answers to the last one are worked on.
    pub(crate) async fn pass(&mut self, suspects: Spool, pass: Pass) -> Result<(), AgentError> {
        let mut reader = suspects.read()?;
        // Answers may cover fewer keys than were asked; the rest comes first next time.
        let mut unanswered: VecDeque<Vec<Suspect>> = VecDeque::new();
        let mut asked = VecDeque::new();
        let how = How::default();
        loop {
            while asked.len() < REQUESTS_AHEAD {
                let suspects = match take_some(&mut unanswered, self.requests.keys()) {
                    Some(suspects) => suspects,
                    None => reader.next_chunk(self.requests.keys())?,
                };
                if suspects.is_empty() {
                    break;
                }
                asked.push_back(self.requests.send(self.target, suspects, how).await?);
            }
            let Some(request) = asked.pop_front() else { break };
            let (rereads, rest) = self.requests.receive(self.target, request, how).await?;
            if !rest.is_empty() {
                unanswered.push_back(rest);
            }
            self.judge(rereads, pass).await?;
        }
        self.search_unproven(pass).await?;
        self.look_outside(pass).await?;
        self.finish_writing().await?;
        self.tell_worked().await
    }

    /// Rows that a lookup missed are read by a scan of both sides, which shows what is there and what is not.
    async fn search_unproven(&mut self, pass: Pass) -> Result<(), AgentError> {
        let empty = self.spool();
        let mut reader = std::mem::replace(&mut self.unproven, empty).read()?;
        loop {
            let mut suspects = reader.next_chunk_within(SEARCH_KEYS, SEARCH_KEY_BYTES)?;
            if suspects.is_empty() {
                return Ok(());
            }
            if pass == Pass::Watch {
                // They are searched for once, when it counts.
                suspects.iter().try_for_each(|suspect| self.again.push(suspect))?;
                continue;
            }
            while !suspects.is_empty() {
                let (rereads, rest) = RowRequests::search(self.target, suspects, How::default()).await?;
                self.judge(rereads, pass).await?;
                suspects = rest;
            }
        }
    }

    /// Under a condition, a row that one side lacks may be there, outside of it: such a row is neither missing nor extra,
    /// but changed. Both sides are asked for it without the condition before it is inserted or deleted.
    async fn look_outside(&mut self, pass: Pass) -> Result<(), AgentError> {
        let empty = self.spool();
        let mut reader = std::mem::replace(&mut self.outside, empty).read()?;
        loop {
            let mut suspects = reader.next_chunk(self.requests.keys())?;
            if suspects.is_empty() {
                return Ok(());
            }
            while !suspects.is_empty() {
                let (found, rest) = self.read_outside(suspects).await?;
                self.judge_all(found, pass).await?;
                suspects = rest;
            }
        }
    }

    /// Reads these without the condition. Beside them those that were not answered.
    pub(crate) async fn read_outside(
        &mut self,
        suspects: Vec<Suspect>,
    ) -> Result<(Vec<Reread>, Vec<Suspect>), AgentError> {
        let how = How { unfiltered: true, ..How::default() };
        let request = self.requests.send(self.target, suspects, how).await?;
        let (rereads, unanswered) = self.requests.receive(self.target, request, how).await?;
        let (missed, mut found): (Vec<Reread>, Vec<Reread>) = rereads.into_iter().partition(|reread| {
            let unproven = [0, 1].map(|side| reread.unproven[side]);
            (unproven[0] && reread.source.is_none()) || (unproven[1] && reread.target.is_none())
        });
        let mut searched: Vec<Suspect> = missed.into_iter().map(|reread| reread.suspect).collect();
        while !searched.is_empty() {
            let (rereads, rest) = RowRequests::search(self.target, searched, how).await?;
            found.extend(rereads);
            searched = rest;
        }
        Ok((self.told_apart_by_condition(found).await?, unanswered))
    }

    /// Of rows read without the condition: those that are equal may have come to lie inside of it meanwhile, so they are
    /// read once more under it. All others of which a side has the row only now have it outside.
    async fn told_apart_by_condition(&mut self, rereads: Vec<Reread>) -> Result<Vec<Reread>, AgentError> {
        let equal = rereads.iter().filter(|reread| reread.source.is_some() && reread.source == reread.target);
        let mut suspects: Vec<Suspect> = equal.map(|reread| reread.suspect.clone()).collect();
        let mut decided = Vec::with_capacity(rereads.len());
        while !suspects.is_empty() {
            let request = self.requests.send(self.target, suspects, How::default()).await?;
            let (again, rest) = self.requests.receive(self.target, request, How::default()).await?;
            decided.extend(
                again.into_iter().filter(|reread| reread.source.is_some() && reread.target.is_some()),
            );
            suspects = rest;
        }
        let inside: BTreeSet<Key> = decided.iter().map(|reread| reread.suspect.key.clone()).collect();
        for mut reread in rereads.into_iter().filter(|reread| !inside.contains(&reread.suspect.key)) {
            reread.mark_outside(&self.target.key);
            decided.push(reread);
        }
        Ok(decided)
    }

    pub(crate) async fn judge(&mut self, rereads: Vec<Reread>, pass: Pass) -> Result<(), AgentError> {
        if !self.is_filtered() || pass == Pass::Watch {
            return self.judge_all(rereads, pass).await;
        }
        let mut decided = Vec::with_capacity(rereads.len());
        for reread in rereads {
            let one_sided = reread.source.is_some() != reread.target.is_some();
            if one_sided && self.is_sure(reread.finding(&self.target.key), pass) {
                self.outside.push(&reread.renewed(&self.target.key))?;
            } else {
                decided.push(reread);
            }
        }
        self.judge_all(decided, pass).await
    }

    /// The run is about the rows of a condition.
    pub(crate) fn is_filtered(&self) -> bool {
        self.target.task.plan.source_where.is_some() || self.target.task.plan.target_where.is_some()
    }

    /// A stable difference, or one that nobody wants to be read again.
    fn is_sure(&self, finding: Finding, pass: Pass) -> bool {
        match finding {
            Finding::Unproven | Finding::Settled => false,
            Finding::Stable => true,
            Finding::Following | Finding::Changing => {
                self.target.task.options.recheck == 0 || pass == Pass::Retry
            }
        }
    }

    async fn judge_all(&mut self, rereads: Vec<Reread>, pass: Pass) -> Result<(), AgentError> {
        let mut changes = PermittedChanges::default();
        let mut written = Vec::new();
        for mut reread in rereads {
            let finding = reread.finding(&self.target.key);
            match finding {
                Finding::Unproven => self.unproven.push(&reread.suspect)?,
                Finding::Settled => self.in_flight(&reread, Conclusion::InFlight)?,
                Finding::Following if !self.is_sure(finding, pass) && !self.target.writes() => {
                    // For a diff that is enough to know that it is lag; a repair waits until the two agree, because its end
                    // must be proved.
                    self.in_flight(&reread, Conclusion::Following)?;
                }
                _ if self.is_sure(finding, pass) && pass != Pass::Watch => {
                    if let Some(change) = self.confirm(&mut reread).await? {
                        changes.push(change);
                        written.push(reread);
                    }
                }
                _ => self.again.push(&reread.renewed(&self.target.key))?,
            }
        }
        self.apply(changes, written).await?;
        self.tell_worked().await
    }

    /// What is a difference beyond doubt is told; with the changes to make come their rows.
    pub(crate) async fn confirm_all(
        &mut self,
        rereads: Vec<Reread>,
    ) -> Result<(PermittedChanges, Vec<Reread>), AgentError> {
        let mut changes = PermittedChanges::default();
        let mut written = Vec::with_capacity(rereads.len());
        for mut reread in rereads {
            if let Some(change) = self.confirm(&mut reread).await? {
                changes.push(change);
                written.push(reread);
            }
        }
        Ok((changes, written))
    }
}

/// So much later, or as late as there is a time.
pub(crate) fn after(instant: Instant, delay: Duration) -> Instant {
    // A clock holds a few hundred years.
    const LATEST: Duration = Duration::from_secs(10 * 365 * 86_400);
    instant.checked_add(delay.min(LATEST)).unwrap_or(instant)
}

/// The oldest that are to be asked again, at most so many.
pub(crate) fn take_some(unanswered: &mut VecDeque<Vec<Suspect>>, most: usize) -> Option<Vec<Suspect>> {
    let mut suspects = unanswered.pop_front()?;
    let rest = suspects.split_off(suspects.len().min(most));
    if !rest.is_empty() {
        unanswered.push_front(rest);
    }
    Some(suspects)
}
