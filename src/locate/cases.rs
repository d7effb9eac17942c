//! Tables that differ in a known way, and what a conversation about them must come to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::duet::{Report, Table, duet};
use super::*;
use crate::merkle::{DigestRun, RowDigest, RunView, SessionKey};

/// Key and version of each row.
pub(super) type Rows = BTreeMap<u64, u64>;

fn digest(key: u64, row: u64) -> RowDigest {
    SessionKey::new([3; 32]).row_digest(&key.to_be_bytes(), &row.to_be_bytes())
}

pub(super) fn table(rows: &Rows) -> Table {
    Table::new(rows.iter().map(|(key, row)| (key.to_be_bytes(), digest(*key, *row))))
}

/// Both sides, the target as it is in a repair.
pub(super) fn locators(
    source: &Table,
    target: &Table,
    options: LocateOptions,
) -> (Locator<DigestRun>, Locator<DigestRun>) {
    let peer = Some((source.tree.root(), source.run.len()));
    let options = LocateOptions { peer, bulk: true, ..options };
    (source.locator(Role::Source, LocateOptions::default()), target.locator(Role::Target, options))
}

pub(super) fn metered() -> LocateOptions {
    LocateOptions { metered: true, ..LocateOptions::default() }
}

pub(super) fn converse_with(source: &Table, target: &Table, options: LocateOptions) -> Report {
    let (mut source, mut target) = locators(source, target, options);
    duet(&mut source, &mut target).unwrap()
}

pub(super) fn converse(source: &Table, target: &Table) -> Report {
    converse_with(source, target, LocateOptions::default())
}

/// What differs, by a comparison of the tables themselves.
fn naive(source: &Rows, target: &Rows) -> BTreeMap<u64, FindingKind> {
    let keys: BTreeSet<u64> = source.keys().chain(target.keys()).copied().collect();
    let kind = |key: &u64| match (source.get(key), target.get(key)) {
        (Some(_), None) => Some(FindingKind::Missing),
        (None, Some(_)) => Some(FindingKind::Extra),
        (a, b) => (a != b).then_some(FindingKind::Changed),
    };
    keys.into_iter().filter_map(|key| kind(&key).map(|kind| (key, kind))).collect()
}

pub(super) fn assert_right(report: &Report, source: &Rows, target: &Rows, case: &str) {
    let mut found: BTreeMap<u64, FindingKind> = report
        .findings
        .iter()
        .map(|finding| (u64::from_be_bytes(finding.key.as_bytes().try_into().unwrap()), finding.kind))
        .collect();
    assert_eq!(found.len(), report.findings.len(), "{case}: a row is named once");
    for run in &report.missing_runs {
        let bound = |key: &crate::model::Key| u64::from_be_bytes(key.as_bytes().try_into().unwrap());
        let rows =
            source.range(bound(&run.first)..=bound(&run.last)).map(|(key, _)| (*key, FindingKind::Missing));
        found.extend(rows);
    }
    assert_eq!(found, naive(source, target), "{case}");
}

/// The same numbers for the same seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }
}

pub(super) fn plain(rows: u64) -> Rows {
    (0..rows).map(|n| (n * 3, n)).collect()
}

/// Updates, deletes and inserts, scattered or side by side.
pub(super) fn drift(rows: &Rows, random: &mut Random, much: u64) -> Rows {
    let mut other = rows.clone();
    let span = rows.len() as u64 * 3;
    for _ in 0..random.below(4) {
        let (kind, count) = (random.below(6), 1 + random.below(much));
        let from = random.below(span);
        for n in 0..count {
            let key = if kind < 3 { random.below(span) } else { (from + n) % span };
            match kind % 3 {
                0 => drop(other.insert(key / 3 * 3, u64::MAX - n)),
                1 => drop(other.remove(&(key / 3 * 3))),
                _ => drop(other.insert(key / 3 * 3 + 1, n)),
            }
        }
    }
    other
}

pub(super) fn without(rows: &Rows, hole: Range<u64>) -> Rows {
    rows.iter().filter(|(key, _)| !hole.contains(*key)).map(|(key, row)| (*key, *row)).collect()
}
