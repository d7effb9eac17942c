//! What two rows, read again, say of a suspect. Pure.

use super::balance::Presence;
use super::suspects::Suspect;
use crate::agent::difference::DifferenceKind;
use crate::merkle::SessionKey;
use crate::model::{CanonicalRow, Role};

/// A suspect with what both sides hold now.
#[derive(Debug, Clone)]
pub(crate) struct Reread {
    pub(crate) suspect: Suspect,
    pub(crate) source: Option<CanonicalRow>,
    pub(crate) target: Option<CanonicalRow>,
    /// Source, target: no row was found, and the lookup need not have found it.
    pub(crate) unproven: [bool; 2],
    /// The row exists on this side, but outside of the run's condition.
    pub(crate) outside: Option<Role>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The two sides agree by now.
    Settled,
    /// The target holds what the source held when it was last looked at: it follows, with a delay.
    Following,
    /// Both sides hold what they held when they were last looked at, and it differs.
    Stable,
    /// Still differs, and one side has changed since.
    Changing,
    /// A side held the row when it was last looked at, and a lookup that need not find it does not find it now. That says
    /// nothing: the row must be looked for in another way.
    Unproven,
}

impl Reread {
    pub(crate) fn new(suspect: Suspect, source: Option<CanonicalRow>, target: Option<CanonicalRow>) -> Self {
        Self { suspect, source, target, unproven: [false; 2], outside: None }
    }

    /// **Absence is believed only from a lookup that would have found the row.** A scan saw the row: whoever then says
    /// that it is gone has to show it, or a row that is merely not found (its key is spelled otherwise, or cannot be
    /// bound; the server looks into the wrong partition) counts as one that was deleted, and a table that differs as one
    /// that is the same but for rows in flight.
    pub(crate) fn finding(&self, session: &SessionKey) -> Finding {
        if self.vanished_without_proof() {
            return Finding::Unproven;
        }
        if self.source == self.target && self.outside.is_none() {
            return Finding::Settled;
        }
        let now = self.renewed(session);
        let suspect = &self.suspect;
        if now.source == suspect.source && now.target == suspect.target {
            Finding::Stable
        } else if now.target != suspect.target && now.target == suspect.source {
            Finding::Following
        } else {
            Finding::Changing
        }
    }

    fn vanished_without_proof(&self) -> bool {
        let [source, target] = self.unproven;
        (source && self.suspect.source.is_some()) || (target && self.suspect.target.is_some())
    }

    /// The suspect as it looks now, to be looked at again.
    pub(crate) fn renewed(&self, session: &SessionKey) -> Suspect {
        let key = &self.suspect.key;
        let digest = |row: &Option<CanonicalRow>| {
            row.as_ref().map(|row| session.row_digest(key.as_bytes(), row.as_bytes()))
        };
        Suspect {
            key: key.clone(),
            source: digest(&self.source),
            target: digest(&self.target),
            ..self.suspect
        }
    }

    /// The same, but of a side that shows nothing what was known before.
    pub(crate) fn renewed_where_known(&self, session: &SessionKey) -> Suspect {
        let now = self.renewed(session);
        let [source, target] = self.unproven;
        Suspect {
            source: if source { self.suspect.source } else { now.source },
            target: if target { self.suspect.target } else { now.target },
            ..now
        }
    }

    /// What is known of the row at the source (0) or the target (1), for the balance. It does not rely on [`Self::finding`].
    pub(crate) fn presence(&self, side: usize) -> Presence {
        let (row, seen) = match side {
            0 => (&self.source, &self.suspect.source),
            _ => (&self.target, &self.suspect.target),
        };
        match row {
            Some(_) => Presence::Present,
            None if self.unproven[side] && seen.is_some() => Presence::Unknown,
            None => Presence::Absent,
        }
    }

    /// Of a suspect that was last looked at under the run's condition, and now without it: what only shows now lies outside
    /// of the condition.
    pub(crate) fn mark_outside(&mut self, session: &SessionKey) {
        let now = self.renewed(session);
        if self.suspect.source.is_none() && now.source.is_some() {
            (self.outside, self.suspect.source) = (Some(Role::Source), now.source);
        }
        if self.suspect.target.is_none() && now.target.is_some() {
            (self.outside, self.suspect.target) = (Some(Role::Target), now.target);
        }
    }

    pub(crate) fn kind(&self) -> DifferenceKind {
        match (&self.source, &self.target) {
            (_, None) => DifferenceKind::Missing,
            (None, Some(_)) => DifferenceKind::Extra,
            (Some(_), Some(_)) => DifferenceKind::Changed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Key;

    fn reread(before: [Option<u8>; 2], now: [Option<u8>; 2], unproven: [bool; 2]) -> Finding {
        let session = SessionKey::new([1; 32]);
        let key = Key::from(&b"k"[..]);
        let row = |n: Option<u8>| n.map(|n| CanonicalRow::new([n]));
        let digest = |n: Option<u8>| n.map(|n| session.row_digest(key.as_bytes(), &[n]));
        let [source, target] = before.map(digest);
        let suspect = Suspect { source, target, ..Suspect::of(key.clone()) };
        Reread { unproven, ..Reread::new(suspect, row(now[0]), row(now[1])) }.finding(&session)
    }

    #[test]
    fn a_suspect_is_stable_only_if_neither_side_moved() {
        let shown = |before, now| reread(before, now, [false; 2]);
        assert_eq!(shown([Some(1), None], [Some(1), None]), Finding::Stable);
        assert_eq!(shown([None, Some(2)], [None, Some(2)]), Finding::Stable);
        assert_eq!(shown([Some(1), None], [Some(1), Some(1)]), Finding::Settled);
        assert_eq!(shown([Some(1), None], [None, None]), Finding::Settled);
        // The target arrived where the source was: it follows.
        assert_eq!(shown([Some(1), Some(0)], [Some(2), Some(1)]), Finding::Following);
        assert_eq!(shown([None, Some(0)], [Some(2), None]), Finding::Following);
        assert_eq!(shown([Some(1), Some(0)], [Some(2), Some(0)]), Finding::Changing);
        assert_eq!(shown([Some(1), Some(0)], [Some(1), Some(3)]), Finding::Changing);
    }

    #[test]
    fn a_row_that_was_seen_is_not_gone_because_a_lookup_missed_it() {
        let (source, target) = ([true, false], [false, true]);
        assert_eq!(reread([Some(1), None], [None, None], source), Finding::Unproven);
        assert_eq!(reread([Some(1), Some(2)], [None, None], [true; 2]), Finding::Unproven);
        assert_eq!(reread([Some(1), Some(2)], [None, Some(2)], source), Finding::Unproven);
        assert_eq!(reread([Some(1), Some(2)], [Some(1), None], target), Finding::Unproven);
        // The scan did not see it either: the two agree that it is not there.
        assert_eq!(reread([Some(1), None], [Some(1), None], target), Finding::Stable);
        assert_eq!(reread([None, Some(1)], [None, Some(1)], source), Finding::Stable);
    }
}
