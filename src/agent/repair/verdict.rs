//! What becomes of a row that was read again: it is told, written, left, or set aside. It is counted once, when nothing more is
//! done with it.

use super::super::compare::balance::{Concluded, Conclusion, Presence};
use super::super::compare::reread::Reread;
use super::super::compare::suspects::Suspect;
use super::super::difference::DifferenceKind;
use super::super::error::{AgentError, decode_error};
use super::super::event::Event;
use super::settle::Settlement;
use crate::engine::ErrorKind;
use crate::model::{Change, Key, Permitted, Refusal};

impl Settlement<'_, '_> {
    /// Both sides agree, or the target has what the source had.
    pub(crate) fn in_flight(&mut self, reread: &Reread, why: Conclusion) -> Result<(), AgentError> {
        self.conclude(reread, why);
        self.overlay.settled(&reread.suspect.key, reread.suspect.origin)
    }

    /// Counts a row as what is said of it, in the report and in the balance: once, when nothing more is done with it.
    pub(crate) fn conclude(&mut self, reread: &Reread, conclusion: Conclusion) {
        let agree = reread.source == reread.target;
        let now = [reread.presence(0), reread.presence(1)];
        self.conclude_as(&reread.suspect, now, agree, conclusion);
    }

    pub(crate) fn conclude_as(
        &mut self,
        suspect: &Suspect,
        now: [Presence; 2],
        agree: bool,
        conclusion: Conclusion,
    ) {
        let outcome = &mut self.target.outcome;
        let count = match conclusion {
            Conclusion::Different(DifferenceKind::Missing) => &mut outcome.missing,
            Conclusion::Different(DifferenceKind::Changed) => &mut outcome.changed,
            Conclusion::Different(DifferenceKind::Extra) => &mut outcome.extra,
            Conclusion::Tolerated => &mut outcome.tolerated,
            Conclusion::InFlight | Conclusion::Following => &mut outcome.in_flight,
            Conclusion::Unsettled => &mut outcome.unsettled,
        };
        *count += 1;
        let row =
            Concluded { scanned: [suspect.origin.is_some(), suspect.target_had], now, agree, conclusion };
        self.located.balance.conclude(&self.target.key, suspect.key.as_bytes(), &row);
    }

    /// A difference that is left as it is.
    fn leave(&mut self, reread: &Reread, why: &str) {
        self.conclude(reread, Conclusion::Different(reread.kind()));
        self.note_left(1, why);
    }

    /// Counts rows that are left, and why where the run writes.
    pub(crate) fn note_left(&mut self, rows: u64, why: &str) {
        let writes = self.writes();
        let outcome = &mut self.target.outcome;
        outcome.left += rows;
        if writes {
            *outcome.left_because.entry(why.to_owned()).or_default() += rows;
        }
    }

    /// A difference that cannot be written.
    pub(crate) fn set_aside(&mut self, reread: &Reread, reason: &str) -> Result<(), AgentError> {
        self.conclude(reread, Conclusion::Different(reread.kind()));
        self.note_refusal(&reread.suspect.key, reason, 1)
    }

    /// The same of one whose rows are no longer held.
    pub(crate) fn set_aside_suspect(&mut self, suspect: &Suspect, reason: &str) -> Result<(), AgentError> {
        let there = [suspect.source.is_some(), suspect.target.is_some()];
        let kind = match there {
            [_, false] => DifferenceKind::Missing,
            [false, true] => DifferenceKind::Extra,
            [true, true] => DifferenceKind::Changed,
        };
        let now = there.map(|there| if there { Presence::Present } else { Presence::Absent });
        self.conclude_as(suspect, now, false, Conclusion::Different(kind));
        self.note_refusal(&suspect.key, reason, 1)
    }

    /// Rows that are set aside, of which one is this.
    pub(crate) fn note_refusal(&mut self, key: &Key, reason: &str, rows: u64) -> Result<(), AgentError> {
        self.target.outcome.set_aside += rows;
        let example = match self.refusals.wants_example(reason) {
            true => Some(self.describer.key(key).map_err(decode_error)?),
            false => None,
        };
        self.refusals.note(reason, rows, example);
        Ok(())
    }

    pub(crate) async fn tell_refusals(&mut self) -> Result<(), AgentError> {
        for event in self.refusals.take() {
            self.target.tell(event).await?;
        }
        Ok(())
    }

    pub(crate) async fn tell_difference(&mut self, reread: &Reread) -> Result<(), AgentError> {
        self.told += 1;
        let difference = self.describer.difference(reread).map_err(decode_error)?;
        self.target.tell(Event::Difference { difference }).await
    }

    /// Tells a difference; the change to make, where one may be made.
    pub(crate) async fn confirm(&mut self, reread: &mut Reread) -> Result<Option<Permitted>, AgentError> {
        if self.describer.tolerated(reread).map_err(decode_error)? {
            self.conclude(reread, Conclusion::Tolerated);
            return Ok(None);
        }
        let first = !std::mem::replace(&mut reread.suspect.named, true);
        if first {
            self.parts.add(reread.suspect.key.as_bytes(), 1);
            if self.told < self.target.task.options.details_max {
                self.tell_difference(reread).await?;
            }
        }
        if self.target.task.options.sql
            && let Ok(change) = self.shown.permit(change_of(reread))
            && change.change().before != change.change().after
        {
            match self.target.agent.engine.statement(&self.target.access, change.change()).await {
                Ok(statement) => self.target.tell(Event::Sql { statement }).await?,
                Err(error) if error.kind == ErrorKind::Row => {
                    self.set_aside(reread, &error.what)?;
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.permitted(reread)
    }

    /// The change that makes the target's row the source's, where it may be made. A row that may not be written is counted.
    pub(crate) fn permitted(&mut self, reread: &Reread) -> Result<Option<Permitted>, AgentError> {
        let change = change_of(reread);
        if change.before == change.after {
            // Only the condition tells the two apart: there is nothing to write.
            self.leave(reread, "only the condition tells the two rows apart");
            return Ok(None);
        }
        match self.permission.permit(change) {
            Ok(change) => Ok(Some(change)),
            Err(refused) if matches!(refused.refusal, Refusal::Required(_)) => {
                self.set_aside(reread, &refused.refusal.to_string())?;
                Ok(None)
            }
            Err(refused) => {
                self.leave(reread, &refused.refusal.to_string());
                Ok(None)
            }
        }
    }
}

fn change_of(reread: &Reread) -> Change {
    Change { key: reread.suspect.key.clone(), before: reread.target.clone(), after: reread.source.clone() }
}
