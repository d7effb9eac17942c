//! How a table's run ended, in figures.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Why a row is left that both sides hold alike, and the condition of one does not select.
pub(super) const ONLY_THE_CONDITION: &str = "only the condition tells the two rows apart";

/// How a table's run ended. All figures are of this run alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TableOutcome {
    pub source_rows: u64,
    pub target_rows: u64,
    /// Confirmed differences.
    pub missing: u64,
    pub changed: u64,
    pub extra: u64,
    /// Suspects that were gone, or still changing, when they were read again.
    pub in_flight: u64,
    /// Suspects still changing after the last reread: neither equal nor different can be said of them.
    pub unsettled: u64,
    /// Suspects whose values are within the tolerance.
    pub tolerated: u64,
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
    /// Differences that were not written: the operation is not allowed, or a dry run.
    pub left: u64,
    /// Why they were left, where the run writes: how many for each reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_because: BTreeMap<String, u64>,
    /// Rows the database refused, or that changed under the repair until the end.
    pub set_aside: u64,
    /// Nothing was written because more than `max_changes` rows differ.
    pub over_limit: bool,
    /// Hex of 32 bytes.
    pub source_root: String,
    /// Before any repair.
    pub target_root: String,
    /// After the repair, from the rows read again.
    pub repaired_root: Option<String>,
    /// Diff: the located differences explain the two roots exactly. Repair: target proved equal to the source.
    pub proved: bool,
    pub bytes_to_source: u64,
    pub bytes_to_target: u64,
    pub messages_to_source: u64,
    pub messages_to_target: u64,
    /// Of which the handshake: versions, plan.
    pub handshake_bytes: u64,
    pub round_trips: u64,
    /// Rows read by key, beyond the scan.
    pub source_rows_reread: u64,
    pub target_rows_reread: u64,
    /// Confirmed differences by part of the key order; each part holds equally many of the target's rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_range: Vec<u64>,
    /// Undo: rows that have changed since the run and were left as they are.
    #[serde(default)]
    pub moved_on: u64,
    /// Undo: rows that were put back, or held already what was compared of them, and do not hold all that they held before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub altered: u64,
    /// Why the run cannot be taken back, or not wholly; of an undo, why it is not whole. Sentences for a person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undo_limits: Vec<String>,
    /// Why nothing is claimed of the table, or of some of its rows: sentences for a person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
    /// The target's agent keeps a journal from which this run can be taken back.
    #[serde(default)]
    pub undo_kept: bool,
    pub seconds: PhaseSeconds,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseSeconds {
    pub scan: f64,
    pub locate: f64,
    pub recheck: f64,
    pub repair: f64,
    pub verify: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl TableOutcome {
    /// Adds the outcome of another part of the same table. Roots and ranges are of one part each, and are left.
    pub fn add(&mut self, part: &Self) {
        let mut copy = part.clone();
        let mut sum = |field: fn(&mut Self) -> &mut u64| *field(self) += *field(&mut copy);
        sum(|outcome| &mut outcome.source_rows);
        sum(|outcome| &mut outcome.target_rows);
        sum(|outcome| &mut outcome.missing);
        sum(|outcome| &mut outcome.changed);
        sum(|outcome| &mut outcome.extra);
        sum(|outcome| &mut outcome.in_flight);
        sum(|outcome| &mut outcome.unsettled);
        sum(|outcome| &mut outcome.tolerated);
        sum(|outcome| &mut outcome.inserted);
        sum(|outcome| &mut outcome.updated);
        sum(|outcome| &mut outcome.deleted);
        sum(|outcome| &mut outcome.left);
        sum(|outcome| &mut outcome.set_aside);
        sum(|outcome| &mut outcome.bytes_to_source);
        sum(|outcome| &mut outcome.bytes_to_target);
        sum(|outcome| &mut outcome.messages_to_source);
        sum(|outcome| &mut outcome.messages_to_target);
        sum(|outcome| &mut outcome.handshake_bytes);
        sum(|outcome| &mut outcome.round_trips);
        sum(|outcome| &mut outcome.source_rows_reread);
        sum(|outcome| &mut outcome.target_rows_reread);
        sum(|outcome| &mut outcome.moved_on);
        sum(|outcome| &mut outcome.altered);
        self.add_undo_limits(&part.undo_limits);
        for (reason, rows) in &part.left_because {
            *self.left_because.entry(reason.clone()).or_default() += rows;
        }
        self.over_limit |= part.over_limit;
        let new: Vec<String> =
            part.doubts.iter().filter(|doubt| !self.doubts.contains(doubt)).cloned().collect();
        self.doubts.extend(new);
        self.undo_kept |= part.undo_kept;
        let (mine, more) = (&mut self.seconds, &part.seconds);
        mine.scan += more.scan;
        mine.locate += more.locate;
        mine.recheck += more.recheck;
        mine.repair += more.repair;
        mine.verify += more.verify;
    }

    pub(crate) fn add_undo_limits(&mut self, more: &[String]) {
        let new = more.iter().filter(|limit| !self.undo_limits.contains(limit)).cloned().collect::<Vec<_>>();
        self.undo_limits.extend(new);
    }

    /// One more row that was left because the condition selects it on one side only.
    pub(super) fn leave_outside(&mut self) {
        self.left += 1;
        *self.left_because.entry(ONLY_THE_CONDITION.to_owned()).or_default() += 1;
    }

    pub fn differences(&self) -> u64 {
        self.missing + self.changed + self.extra
    }

    /// Rows that the run has written.
    pub fn written(&self) -> u64 {
        self.inserted + self.updated + self.deleted
    }
}
