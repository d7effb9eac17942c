//! What is said of the rows: each is counted once, when nothing more is done with it, and differences and refusals are reported.

use std::sync::Arc;

use super::super::compare::balance::{Balance, Concluded, Conclusion, Presence};
use super::super::compare::describe::Describer;
use super::super::compare::key_histogram::Parts;
use super::super::compare::missing_rows::{Missing, missing_row};
use super::super::compare::reread::Reread;
use super::super::compare::suspects::Suspect;
use super::super::difference::DifferenceKind;
use super::super::error::{AgentError, FailureKind, decode_error};
use super::super::event::Event;
use super::super::outcome::TableOutcome;
use super::super::target::{MissingRange, Target};
use super::refusals::Refusals;
use crate::merkle::{RowDigest, SessionKey};
use crate::model::{Key, Operation};

/// The verdicts on one table's rows.
pub(super) struct Verdicts {
    session: SessionKey,
    describer: Arc<Describer>,
    /// What the report will say of the rows.
    counts: TableOutcome,
    /// The same once more, apart from it.
    balance: Balance,
    /// Where confirmed differences are.
    parts: Parts,
    refusals: Refusals,
    /// The run writes, so that a row that is left needs a reason.
    writes: bool,
    located: u64,
    /// Differences that were reported one by one, and how many may be.
    reported: u64,
    reported_max: u64,
}

impl Verdicts {
    /// `balance` holds what was located: so many rows.
    pub(super) fn new(
        target: &Target<'_>,
        describer: Arc<Describer>,
        writes: bool,
        parts: Parts,
        (balance, located): (Balance, u64),
    ) -> Self {
        let details_max = target.task.options.details_max;
        Self {
            session: target.key.clone(),
            describer,
            counts: TableOutcome::default(),
            balance,
            parts,
            refusals: Refusals::new(details_max),
            writes,
            located,
            reported: 0,
            reported_max: details_max,
        }
    }

    /// Counts a row as what is said of it, in the report and in the balance: once, when nothing more is done with it.
    pub(super) fn conclude(&mut self, reread: &Reread, conclusion: Conclusion) {
        let agree = reread.source == reread.target;
        let now = [reread.presence(0), reread.presence(1)];
        self.conclude_as(&reread.suspect, now, agree, conclusion);
    }

    fn conclude_as(&mut self, suspect: &Suspect, now: [Presence; 2], agree: bool, conclusion: Conclusion) {
        let counts = &mut self.counts;
        let count = match conclusion {
            Conclusion::Different(DifferenceKind::Missing) => &mut counts.missing,
            Conclusion::Different(DifferenceKind::Changed) => &mut counts.changed,
            Conclusion::Different(DifferenceKind::Extra) => &mut counts.extra,
            Conclusion::Tolerated => &mut counts.tolerated,
            Conclusion::InFlight | Conclusion::Following => &mut counts.in_flight,
            Conclusion::Unsettled => &mut counts.unsettled,
        };
        *count += 1;
        let row =
            Concluded { scanned: [suspect.origin.is_some(), suspect.target_had], now, agree, conclusion };
        self.balance.conclude(&self.session, suspect.key.as_bytes(), &row);
    }

    /// A difference whose rows are not held: the digests of the suspect are what both sides hold.
    fn conclude_difference(&mut self, suspect: &Suspect) {
        let held = [suspect.source.is_some(), suspect.target.is_some()];
        let kind = match held {
            [_, false] => DifferenceKind::Missing,
            [false, true] => DifferenceKind::Extra,
            [true, true] => DifferenceKind::Changed,
        };
        let now = held.map(|there| if there { Presence::Present } else { Presence::Absent });
        self.conclude_as(suspect, now, false, Conclusion::Different(kind));
    }

    /// A difference that is left as it is.
    pub(super) fn leave(&mut self, reread: &Reread, why: &str) {
        self.conclude(reread, Conclusion::Different(reread.kind()));
        self.counts.left += 1;
        if self.writes {
            *self.counts.left_because.entry(why.to_owned()).or_default() += 1;
        }
    }

    /// A difference of a run that does not write, shown by two scans and not read by key.
    pub(super) fn leave_unread(&mut self, suspect: &Suspect) {
        self.counts.left += 1;
        self.parts.add(suspect.key.as_bytes(), 1);
        self.conclude_difference(suspect);
    }

    /// A difference that cannot be written.
    pub(super) fn set_aside(&mut self, reread: &Reread, reason: &str) -> Result<(), AgentError> {
        self.conclude(reread, Conclusion::Different(reread.kind()));
        self.note_refusal(&reread.suspect.key, reason, 1)
    }

    /// A difference that cannot be written, and whose rows are no longer held.
    pub(super) fn set_aside_suspect(&mut self, suspect: &Suspect, reason: &str) -> Result<(), AgentError> {
        self.conclude_difference(suspect);
        self.note_refusal(&suspect.key, reason, 1)
    }

    /// Counts rows that are set aside. One of them has this key.
    fn note_refusal(&mut self, key: &Key, reason: &str, rows: u64) -> Result<(), AgentError> {
        self.counts.set_aside += rows;
        let example = match self.refusals.wants_example(reason) {
            true => Some(self.describer.key(key).map_err(decode_error)?),
            false => None,
        };
        self.refusals.note(reason, rows, example);
        Ok(())
    }

    /// A difference that was written.
    pub(super) fn written(&mut self, operation: Operation, reread: &Reread) {
        self.conclude(reread, Conclusion::Different(reread.kind()));
        match operation {
            Operation::Insert => self.counts.inserted += 1,
            Operation::Update => self.counts.updated += 1,
            Operation::Delete => self.counts.deleted += 1,
        }
    }

    /// Rows of a missing range that were inserted, whatever their keys.
    pub(super) fn inserted(&mut self, rows: u64) {
        self.counts.inserted += rows;
        self.counts.missing += rows;
        self.balance.conclude_range(rows);
    }

    fn conclude_range(&mut self, range: &MissingRange) {
        self.counts.missing += range.count;
        self.balance.conclude_range(range.count);
        self.parts.add(range.first.as_bytes(), range.count);
    }

    /// A missing range of a run that does not write. It is known by its count alone.
    pub(super) fn leave_range(&mut self, range: &MissingRange) {
        self.conclude_range(range);
        self.counts.left += range.count;
    }

    /// A missing range of which no row can be inserted.
    pub(super) fn set_aside_range(&mut self, range: &MissingRange, reason: &str) -> Result<(), AgentError> {
        self.conclude_range(range);
        self.note_refusal(&range.first, reason, range.count)
    }

    /// A row of a missing range is to be concluded by its key.
    pub(super) fn name(&mut self, key: &[u8]) {
        self.balance.name(&self.session, key);
    }

    /// A row of a missing range, as a suspect that was read again and is to be concluded by its key.
    pub(super) fn name_row(&mut self, (key, row): (&[u8], &[u8]), digest: RowDigest) -> Reread {
        self.name(key);
        missing_row(key, row, digest)
    }

    /// Whether a row differs beyond its tolerance. A difference is reported when this is first found.
    pub(super) async fn differs(
        &mut self,
        target: &Target<'_>,
        reread: &mut Reread,
    ) -> Result<bool, AgentError> {
        if self.describer.tolerated(reread).map_err(decode_error)? {
            self.conclude(reread, Conclusion::Tolerated);
            return Ok(false);
        }
        let first = !std::mem::replace(&mut reread.suspect.named, true);
        if first {
            self.parts.add(reread.suspect.key.as_bytes(), 1);
            if self.reported < self.reported_max {
                self.report_difference(target, reread).await?;
            }
        }
        Ok(true)
    }

    /// Rows of a missing range that are differences beyond doubt.
    pub(super) async fn report_missing(
        &mut self,
        target: &Target<'_>,
        missing: &Missing,
    ) -> Result<(), AgentError> {
        for ((key, row), digest) in missing.iter() {
            self.parts.add(key, 1);
            if self.reported < self.reported_max {
                self.report_difference(target, &missing_row(key, row, *digest)).await?;
            }
        }
        Ok(())
    }

    async fn report_difference(&mut self, target: &Target<'_>, reread: &Reread) -> Result<(), AgentError> {
        self.reported += 1;
        let difference = self.describer.difference(reread).map_err(decode_error)?;
        target.tell(Event::Difference { difference }).await
    }

    pub(super) async fn report_progress(&self, target: &Target<'_>) -> Result<(), AgentError> {
        target.tell(Event::Worked { done: self.balance.rows_concluded(), of: self.located }).await
    }

    /// Reports what was set aside, one event for each reason.
    pub(super) async fn report_refusals(&mut self, target: &Target<'_>) -> Result<(), AgentError> {
        for event in self.refusals.take() {
            target.tell(event).await?;
        }
        Ok(())
    }

    /// Adds the counts to the run's outcome; from here on they are zero.
    pub(super) fn add_to(&mut self, outcome: &mut TableOutcome) {
        outcome.add(&std::mem::take(&mut self.counts));
    }

    /// Confirmed differences by part of the key order.
    pub(super) fn by_range(&self) -> Vec<u64> {
        self.parts.counts().to_vec()
    }

    /// The final check: what `outcome` says of the rows must be what was seen of them.
    pub(super) fn check(&self, outcome: &TableOutcome) -> Result<(), AgentError> {
        let Some(error) = self.balance.error(outcome) else { return Ok(()) };
        let what = format!("what was found out about the rows does not add up: {error}");
        Err(AgentError::new(FailureKind::Inconsistent, what)
            .with_hint("run the command again; if it comes again it is a defect of trueup, please report it"))
    }
}
