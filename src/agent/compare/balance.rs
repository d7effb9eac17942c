//! The final check of a comparison: what was said of the rows must add up, whoever said it.
//!
//! Two scans saw `source` and `target` rows, and the locate protocol has shown which of them differ. Each of those rows is
//! concluded once, and what both sides hold then is noted beside it. At the end three things must hold, or nothing is
//! claimed of the table:
//!
//! 1. The rows concluded are the rows located: none was lost on the way, none counted twice.
//! 2. Each conclusion fits what was seen: a row is only called *in flight* where both sides agree now, or where the
//!    absence on both is shown.
//! 3. `source rows − missing = target rows − extra`, with the rows that came and went since the scans.
//!
//! The counts are kept here a second time, apart from those of the report, so that an error in either shows.

use siphasher::sip128::SipHasher13;

use crate::agent::difference::DifferenceKind;
use crate::agent::outcome::TableOutcome;
use crate::merkle::SessionKey;

/// What is known of a row on one side when it is concluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Present,
    /// A scan or a lookup has shown that it is not there.
    Absent,
    /// It was not found, and nothing shows that it is not there.
    Unknown,
}

impl Presence {
    fn rows(self) -> i128 {
        i128::from(self == Self::Present)
    }
}

/// What is said of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conclusion {
    Different(DifferenceKind),
    /// Different, but within the tolerance.
    Tolerated,
    InFlight,
    /// The target holds what the source held a moment ago.
    Following,
    /// Nothing is claimed.
    Unsettled,
}

/// A row as it is concluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Concluded {
    /// Whether source and target had it when they were scanned.
    pub(crate) scanned: [bool; 2],
    pub(crate) now: [Presence; 2],
    /// Both sides hold the same of it, or both nothing.
    pub(crate) agree: bool,
    pub(crate) conclusion: Conclusion,
}

impl Concluded {
    /// Whether what was seen bears the conclusion out.
    fn is_borne_out(&self) -> bool {
        use Presence as P;
        match self.conclusion {
            Conclusion::Different(DifferenceKind::Missing) => {
                self.now[0] == P::Present && self.now[1] == P::Absent
            }
            Conclusion::Different(DifferenceKind::Extra) => {
                self.now[0] == P::Absent && self.now[1] == P::Present
            }
            Conclusion::Different(DifferenceKind::Changed) | Conclusion::Tolerated => {
                self.now == [P::Present; 2]
            }
            Conclusion::InFlight => self.agree && self.now[0] == self.now[1] && self.now[0] != P::Unknown,
            Conclusion::Following => !self.now.contains(&P::Unknown),
            Conclusion::Unsettled => true,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Balance {
    /// Sums of keys' digests, in whatever order the keys come.
    located: u128,
    concluded: u128,
    rows_located: u64,
    rows_concluded: u64,
    /// Rows that came less rows that went since the scans.
    drift: [i128; 2],
    /// Of rows that the target follows: held by the source, less held by the target.
    following: i128,
    unborne: u64,
    missing: i128,
    changed: i128,
    extra: i128,
    in_flight: i128,
    tolerated: i128,
    unsettled: i128,
}

/// Keyed by the session, so that nobody can choose keys whose numbers cancel out.
fn number(session: &SessionKey, key: &[u8]) -> u128 {
    let mut sip_key = [0; 16];
    sip_key.copy_from_slice(&session.expose()[..16]);
    SipHasher13::new_with_key(&sip_key).hash(key).as_u128()
}

impl Balance {
    /// The scans differ in this row.
    pub(crate) fn locate(&mut self, session: &SessionKey, key: &[u8]) {
        self.located = self.located.wrapping_add(number(session, key));
        self.rows_located += 1;
    }

    /// So many rows of a range that only the source has; their keys come later.
    pub(crate) fn locate_range(&mut self, rows: u64) {
        self.rows_located += rows;
    }

    /// A row of such a range is to be concluded by its key.
    pub(crate) fn name(&mut self, session: &SessionKey, key: &[u8]) {
        self.located = self.located.wrapping_add(number(session, key));
    }

    /// So many rows of a range are missing, whatever their keys.
    pub(crate) fn conclude_range(&mut self, rows: u64) {
        self.rows_concluded += rows;
        self.missing += i128::from(rows);
    }

    pub(crate) fn conclude(&mut self, session: &SessionKey, key: &[u8], row: &Concluded) {
        self.concluded = self.concluded.wrapping_add(number(session, key));
        self.rows_concluded += 1;
        self.add(row);
        if !row.is_borne_out() {
            self.unborne += 1;
        }
    }

    /// Rows of which something is said by now.
    pub(crate) fn rows_concluded(&self) -> u64 {
        self.rows_concluded
    }

    fn add(&mut self, row: &Concluded) {
        for side in 0..2 {
            let now = match row.now[side] {
                // What is not known has not moved, as far as this account goes.
                Presence::Unknown => i128::from(row.scanned[side]),
                known => known.rows(),
            };
            self.drift[side] += now - i128::from(row.scanned[side]);
        }
        let count = match row.conclusion {
            Conclusion::Different(DifferenceKind::Missing) => &mut self.missing,
            Conclusion::Different(DifferenceKind::Changed) => &mut self.changed,
            Conclusion::Different(DifferenceKind::Extra) => &mut self.extra,
            Conclusion::Tolerated => &mut self.tolerated,
            Conclusion::InFlight => &mut self.in_flight,
            Conclusion::Following => {
                self.following += row.now[0].rows() - row.now[1].rows();
                &mut self.in_flight
            }
            Conclusion::Unsettled => &mut self.unsettled,
        };
        *count += 1;
    }

    /// What does not add up, if anything. `outcome` is what the report will say.
    pub(crate) fn error(&self, outcome: &TableOutcome) -> Option<String> {
        if self.rows_located != self.rows_concluded || self.located != self.concluded {
            return Some(format!(
                "{} rows were found to differ and {} were accounted for, or other ones",
                self.rows_located, self.rows_concluded
            ));
        }
        if self.unborne > 0 {
            return Some(format!("what was said of {} rows is not what was seen of them", self.unborne));
        }
        let said = [
            outcome.missing,
            outcome.changed,
            outcome.extra,
            outcome.in_flight,
            outcome.tolerated,
            outcome.unsettled,
        ]
        .map(i128::from);
        let seen = [self.missing, self.changed, self.extra, self.in_flight, self.tolerated, self.unsettled];
        if said != seen {
            return Some("the counts of the report are not those of its rows".to_owned());
        }
        // Where nothing is claimed of some rows, the sum is not claimed either; the verdict is unknown already.
        if self.unsettled > 0 {
            return None;
        }
        let source = i128::from(outcome.source_rows) + self.drift[0] - self.missing - self.following;
        let target = i128::from(outcome.target_rows) + self.drift[1] - self.extra;
        (source != target).then(|| {
            format!(
                "{} source rows less {} missing are not {} target rows less {} extra, with what has come and gone since",
                outcome.source_rows, self.missing, outcome.target_rows, self.extra
            )
        })
    }
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
