//! From suspects to a verdict: every suspect is read again on both sides, and reported or repaired if it persists.
//!
//! Passes go over the suspects front to back, with back-off between them. A suspect that no longer differs, or that
//! the target follows, was in flight. One that still changes after the last pass is unsettled: nothing is claimed of it.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::error::{AgentError, FailureKind};
use super::event::{Allow, DifferenceKind, Event, Phase};
use super::judge::{Describer, Finding, Reread};
use super::parts::Parts;
use super::scan::run_error;
use super::spool::{Spool, Suspect};
use super::target::{Located, Target};
use super::trail::Trail;
use super::verify::Overlay;
use crate::model::canonical::DecodeError;
use crate::model::{Change, Operation, Role};

/// Suspects read again with one question; smaller where rows turn out to be large.
pub(super) const CHUNK: usize = 500;
/// Questions on their way at once: a long link is kept busy, and what is answered is not yet old when it is worked on.
pub(super) const ASKED_AHEAD: usize = 4;
/// Passes for rows that still change, beyond the rechecks asked for.
const EXTRA_PASSES: u32 = 3;
/// Rows that a share may always overwrite.
const OVERWRITES_ALWAYS: u64 = 1_000;

/// What a pass does with a stable suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// Look again later.
    Watch,
    /// It is a difference: count it, tell it, repair it.
    Confirm,
    /// It was counted before: only try to write it.
    Retry,
}

/// The work on one table's suspects.
pub(super) struct Settlement<'a, 'b> {
    pub(super) target: &'a mut Target<'b>,
    pub(super) located: Located,
    pub(super) describer: Describer,
    pub(super) overlay: Overlay,
    /// Where confirmed differences are.
    pub(super) parts: Parts,
    /// Every batch is noted before and after it is written.
    pub(super) trail: Trail,
    /// What repairs may do; nothing for a diff.
    pub(super) allow: Allow,
    /// Writes are held back: too many rows would change.
    pub(super) over_limit: bool,
    pub(super) deletes_spread: bool,
    /// A read by key that finds nothing proves that there is nothing: at the source, at the target.
    pub(super) exact_keys: [bool; 2],
    pub(super) chunk: usize,
    /// Rows are so wide that their cells are asked for; unknown until the first are seen.
    pub(super) wide: Option<bool>,
    /// Rows refused because of other rows, to be tried again.
    pub(super) refused: Spool,
    /// Suspects of this pass to look at in the next.
    pub(super) again: Spool,
    pub(super) worked: u64,
    pub(super) of: u64,
    pub(super) told: u64,
}

const NOTHING: Allow = Allow { insert: false, update: false, delete: false };

impl<'a, 'b> Settlement<'a, 'b> {
    pub(super) async fn new(target: &'a mut Target<'b>, located: Located) -> Result<Self, AgentError> {
        let options = &target.task.options;
        let allow = options.repair.unwrap_or(NOTHING);
        let schema = target.agent.engine.describe(&target.access.table).await?;
        let describer =
            Describer::new(&target.task.plan, &target.access, &options.tolerance, options.show_values);
        let inserts = u64::from(allow.insert) * located.missing;
        let overwrites = u64::from(allow.update) * located.changed + u64::from(allow.delete) * located.extra;
        let over_limit = target.writes()
            && (options.max_changes.is_some_and(|max| inserts + overwrites > max)
                || options
                    .max_overwritten_percent
                    .is_some_and(|percent| overwrites > share(target.outcome.target_rows, percent)));
        let overlay = Overlay::new(&target.agent.limits);
        let spool = || Spool::new(target.agent.limits.scratch.as_deref());
        let (refused, again) = (spool(), spool());
        let trail = Trail::of_repair(target, &schema).await?;
        Ok(Self {
            describer,
            overlay,
            parts: Parts::of(&located.run).map_err(|error| run_error("read the run", &error))?,
            trail,
            allow,
            over_limit,
            exact_keys: [Role::Source, Role::Target]
                .map(|role| target.task.plan.access(role).keys_are_exact()),
            deletes_spread: schema.referrers.iter().any(|referrer| referrer.delete_spreads),
            chunk: CHUNK,
            wide: None,
            refused,
            again,
            worked: 0,
            of: located.missing + located.changed + located.extra,
            told: 0,
            located,
            target,
        })
    }

    pub(super) fn spool(&self) -> Spool {
        Spool::new(self.target.agent.limits.scratch.as_deref())
    }

    pub(super) fn writes(&self) -> bool {
        self.target.writes() && !self.over_limit
    }

    #[tracing::instrument(level = "info", skip_all)]
    pub(super) async fn settle(mut self) -> Result<(), AgentError> {
        let since = Instant::now();
        let phase = if self.target.writes() { Phase::Repair } else { Phase::Recheck };
        self.target.tell(Event::Phase { phase }).await?;
        let empty = self.spool();
        let suspects = std::mem::replace(&mut self.located.suspects, empty);
        self.passes(suspects).await?;
        let runs = std::mem::take(&mut self.located.missing_runs);
        for run in runs {
            self.missing_run(run).await?;
        }
        // Rows of runs that turned out to be there, or that changed under the writes.
        let left_over = self.take_again();
        self.passes(left_over).await?;
        self.retry_refused().await?;
        self.target.outcome.by_range = self.parts.counts().to_vec();
        self.target.outcome.over_limit = self.over_limit;
        let seconds = since.elapsed().as_secs_f64();
        if self.target.writes() {
            self.target.outcome.seconds.repair = seconds;
            self.verify().await?;
        } else {
            self.target.outcome.seconds.recheck = seconds;
        }
        Ok(())
    }

    pub(super) fn take_again(&mut self) -> Spool {
        let empty = self.spool();
        std::mem::replace(&mut self.again, empty)
    }

    /// Watches the suspects as often as asked, then confirms; what still changes gets a few passes more.
    pub(super) async fn passes(&mut self, mut suspects: Spool) -> Result<(), AgentError> {
        let rechecks = self.target.task.options.recheck;
        let delay = Duration::from_millis(self.target.task.options.recheck_delay_ms);
        let mut not_before = self.target.began + delay;
        for pass in 1..=rechecks.max(1) + EXTRA_PASSES {
            if suspects.len() == 0 {
                return Ok(());
            }
            if rechecks > 0 {
                tokio::time::sleep_until(not_before).await;
            }
            self.pass(suspects, if pass < rechecks { Pass::Watch } else { Pass::Confirm }).await?;
            suspects = self.take_again();
            not_before = Instant::now() + delay * 2u32.saturating_pow(pass.min(16) - 1);
        }
        self.target.outcome.unsettled += suspects.len();
        Ok(())
    }

    /// One pass: the next questions are on their way while the answers to the last one are worked on.
    pub(super) async fn pass(&mut self, suspects: Spool, pass: Pass) -> Result<(), AgentError> {
        let mut reader = suspects.read()?;
        // Answers may cover fewer keys than were asked; the rest comes first next time.
        let mut unanswered: VecDeque<Vec<Suspect>> = VecDeque::new();
        let mut asked = VecDeque::with_capacity(ASKED_AHEAD);
        loop {
            while asked.len() < ASKED_AHEAD
                && let Some(chunk) = self.ask_next(&mut reader, &mut unanswered).await?
            {
                asked.push_back(chunk);
            }
            let Some(chunk) = asked.pop_front() else { return Ok(()) };
            let (rereads, rest) = self.reread(chunk).await?;
            if !rest.is_empty() {
                unanswered.push_back(rest);
            }
            self.judge(rereads, pass).await?;
        }
    }

    pub(super) async fn judge(&mut self, rereads: Vec<Reread>, pass: Pass) -> Result<(), AgentError> {
        let mut changes = Vec::new();
        let mut written = Vec::new();
        for reread in rereads {
            if self.may_be_there_unseen(&reread) {
                self.target.outcome.unsettled += u64::from(pass != Pass::Retry);
                self.worked += u64::from(pass != Pass::Retry);
                continue;
            }
            let finding = reread.finding(&self.target.session);
            let sure =
                finding == Finding::Stable || self.target.task.options.recheck == 0 || pass == Pass::Retry;
            match finding {
                Finding::Settled => self.in_flight(&reread.suspect, pass)?,
                Finding::Following if !sure => self.following(&reread, pass)?,
                _ if sure && pass != Pass::Watch => {
                    if let Some(change) = self.confirm(&reread, pass).await? {
                        changes.push(change);
                        written.push(reread);
                    }
                }
                _ => self.again.push(&reread.renewed(&self.target.session))?,
            }
        }
        self.apply(changes, written).await?;
        self.target.tell(Event::Worked { done: self.worked, of: self.of }).await
    }

    /// What is a difference beyond doubt is counted and told; with the changes to make come their rows.
    pub(super) async fn confirm_all(
        &mut self,
        rereads: Vec<Reread>,
    ) -> Result<(Vec<Change>, Vec<Reread>), AgentError> {
        let mut changes = Vec::with_capacity(rereads.len());
        let mut written = Vec::with_capacity(rereads.len());
        for reread in rereads {
            if let Some(change) = self.confirm(&reread, Pass::Confirm).await? {
                changes.push(change);
                written.push(reread);
            }
        }
        Ok((changes, written))
    }

    /// A row that was scanned and is not found by its key, where the key may be spelled otherwise: it may be gone or not.
    fn may_be_there_unseen(&self, reread: &Reread) -> bool {
        let [source, target] = self.exact_keys;
        let vanished = |before: bool, now: bool| before && !now;
        (!source && vanished(reread.suspect.origin.is_some(), reread.source.is_some()))
            || (!target && vanished(reread.suspect.target.is_some(), reread.target.is_some()))
    }

    pub(super) fn in_flight(&mut self, suspect: &Suspect, pass: Pass) -> Result<(), AgentError> {
        if pass != Pass::Retry {
            self.target.outcome.in_flight += 1;
            self.worked += 1;
        }
        self.overlay.settled(&suspect.key, suspect.origin)
    }

    /// The target has caught up with where the source was, and the source has moved on. For a diff that is enough to
    /// know that it is lag; a repair waits until they agree, because its end must be proved.
    fn following(&mut self, reread: &Reread, pass: Pass) -> Result<(), AgentError> {
        if self.target.writes() {
            self.again.push(&reread.renewed(&self.target.session))
        } else {
            self.in_flight(&reread.suspect, pass)
        }
    }

    pub(super) async fn tell_difference(&mut self, reread: &Reread) -> Result<(), AgentError> {
        self.told += 1;
        let difference = self.describer.difference(reread).map_err(decode_error)?;
        self.target.tell(Event::Difference { difference }).await
    }

    /// Counts and tells a difference; the change to make, where one is allowed.
    async fn confirm(&mut self, reread: &Reread, pass: Pass) -> Result<Option<Change>, AgentError> {
        if pass == Pass::Confirm {
            self.worked += 1;
            if self.describer.tolerated(reread).map_err(decode_error)? {
                self.target.outcome.tolerated += 1;
                return Ok(None);
            }
            let outcome = &mut self.target.outcome;
            match reread.kind() {
                DifferenceKind::Missing => outcome.missing += 1,
                DifferenceKind::Changed => outcome.changed += 1,
                DifferenceKind::Extra => outcome.extra += 1,
            }
            self.parts.add(reread.suspect.key.as_bytes(), 1);
            if self.told < self.target.task.options.details_max {
                self.tell_difference(reread).await?;
            }
        }
        let change = Change {
            key: reread.suspect.key.clone(),
            before: reread.target.clone(),
            after: reread.source.clone(),
        };
        let allowed = match change.operation() {
            Operation::Insert => self.allow.insert,
            Operation::Update => self.allow.update,
            Operation::Delete => {
                self.allow.delete && (!self.deletes_spread || self.target.task.options.allow_cascade)
            }
        };
        if allowed && self.target.task.options.sql && self.target.task.options.repair.is_some() {
            let statement = self.target.agent.engine.statement(&self.target.access, &change)?;
            self.target.tell(Event::Sql { statement }).await?;
        }
        if !allowed || !self.writes() {
            self.target.outcome.left += 1;
            return Ok(None);
        }
        Ok(Some(change))
    }
}

/// A percentage of rows, but never so small that a small table could not be repaired.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share is approximate"
)]
fn share(rows: u64, percent: f64) -> u64 {
    ((rows as f64 * percent / 100.0) as u64).max(OVERWRITES_ALWAYS)
}

pub(super) fn decode_error(error: DecodeError) -> AgentError {
    AgentError::new(FailureKind::Protocol, format!("a row cannot be read by the plan's types: {error}"))
        .with_hint("check that both agents are the same release of trueup")
}
