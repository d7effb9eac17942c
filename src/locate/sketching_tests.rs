//! Conversations over a sketch: the right answer whatever happens to it, within the budget.

use std::collections::BTreeMap;

use super::duet::{Report, Table, duet};
use super::*;
use crate::merkle::{RowDigest, RunView, SessionKey};

type Rows = BTreeMap<u64, u64>;

fn digest(key: u64, row: u64) -> RowDigest {
    SessionKey::new([3; 32]).row_digest(&key.to_be_bytes(), &row.to_be_bytes())
}

fn table(rows: &Rows) -> Table {
    Table::new(rows.iter().map(|(key, row)| (key.to_be_bytes(), digest(*key, *row))))
}

fn locators(
    source: &Table,
    target: &Table,
) -> (Locator<crate::merkle::DigestRun>, Locator<crate::merkle::DigestRun>) {
    let peer = Some((source.tree.root(), source.run.len()));
    let options = LocateOptions { peer, bulk: true, ..LocateOptions::default() };
    (source.locator(Role::Source, LocateOptions::default()), target.locator(Role::Target, options))
}

fn converse(source: &Table, target: &Table) -> Report {
    let (mut source, mut target) = locators(source, target);
    duet(&mut source, &mut target).unwrap()
}

/// What differs, by a comparison of the tables themselves.
fn naive(source: &Rows, target: &Rows) -> BTreeMap<u64, FindingKind> {
    let keys: std::collections::BTreeSet<u64> = source.keys().chain(target.keys()).copied().collect();
    let kind = |key: &u64| match (source.get(key), target.get(key)) {
        (Some(_), None) => Some(FindingKind::Missing),
        (None, Some(_)) => Some(FindingKind::Extra),
        (a, b) => (a != b).then_some(FindingKind::Changed),
    };
    keys.into_iter().filter_map(|key| kind(&key).map(|kind| (key, kind))).collect()
}

fn assert_right(report: &Report, source: &Rows, target: &Rows, case: &str) {
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
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }
}

fn plain(rows: u64) -> Rows {
    (0..rows).map(|n| (n * 3, n)).collect()
}

/// Updates, deletes and inserts, scattered or side by side.
fn drift(rows: &Rows, random: &mut Random, much: u64) -> Rows {
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

#[test]
fn hundreds_of_seeded_conversations_end_in_the_right_answer() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let source = plain(2_100 + random.below(3_000));
        let much = [5, 60, 600, 3_000][usize::try_from(seed % 4).unwrap()];
        let target = drift(&source, &mut random, much);
        let (source, target) = if seed % 2 == 0 { (source, target) } else { (target, source) };
        let report = converse(&table(&source), &table(&target));
        assert_right(&report, &source, &target, &format!("seed {seed}"));
    }
}

/// Any word of any message may be wrong: then there is an error, or the right answer all the same.
#[test]
fn a_damaged_conversation_is_never_believed() {
    let (mut errors, mut right) = (0, 0);
    for seed in 0..1_500u64 {
        let mut random = Random(seed);
        let source = plain(if seed % 8 == 0 { 9_000 } else { 2_100 + random.below(400) });
        let mut target = drift(&source, &mut random, 400);
        if seed % 8 == 0 {
            let from = random.below(20_000);
            target = without(&target, from..from + 6_000);
        }
        let (a, b) = (table(&source), table(&target));
        let (mut from, mut to) = locators(&a, &b);
        let hit = random.below(6);
        match damaged(&mut from, &mut to, hit, &mut random) {
            Err(_) => errors += 1,
            Ok(report) => {
                right += 1;
                assert_right(&report, &source, &target, &format!("seed {seed}"));
            }
        }
    }
    assert!(errors > 100 && right > 100, "{errors} errors, {right} right answers");
}

/// As `duet`, with some bytes of the message number `hit` changed. A conversation that stands still is an error too.
fn damaged<V: RunView>(
    source: &mut Locator<V>,
    target: &mut Locator<V>,
    hit: u64,
    random: &mut Random,
) -> Result<Report, LocateError> {
    let (mut report, mut number) = (Report::default(), 0);
    loop {
        let mut quiet = true;
        for to_source in [true, false] {
            let (from, to) =
                if to_source { (&mut *target, &mut *source) } else { (&mut *source, &mut *target) };
            while let Some(message) = from.next_outgoing()? {
                let mut bytes = message.encode();
                if number == hit {
                    let places = if random.below(2) == 0 { 1 } else { 40 };
                    for _ in 0..places {
                        let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
                        bytes[at] ^= u8::try_from(1 + random.below(255)).unwrap();
                    }
                }
                number += 1;
                quiet = false;
                let mut step = to.receive(Message::decode(&bytes)?)?;
                loop {
                    if step.restarted {
                        report.findings.clear();
                        report.missing_runs.clear();
                    }
                    report.findings.extend(step.findings);
                    report.missing_runs.extend(step.missing_runs);
                    if !step.more {
                        break;
                    }
                    step = to.resume()?;
                }
            }
        }
        if quiet {
            break;
        }
    }
    match target.outcome() {
        // Only the rows themselves will prove or disprove what was named by its bounds.
        Some(outcome) if outcome.proof != Proof::Deferred => Ok(report),
        _ => Err(LocateError::Misuse("no answer")),
    }
}

#[test]
fn few_changed_rows_take_one_round_trip_and_sixteen_kilobytes() {
    let source = plain(120_000);
    let a = table(&source);
    for changed in [1u64, 10, 100, 300] {
        let mut target = source.clone();
        for n in 0..changed {
            target.insert(n * (120_000 / changed) * 3, u64::MAX);
        }
        let report = converse(&a, &table(&target));
        assert_right(&report, &source, &target, &format!("{changed} changed"));
        assert!(report.bytes() <= 16_000, "{changed} changed: {} bytes", report.bytes());
        assert_eq!(report.turns_to_findings, 2, "{changed} changed");
    }
}

#[test]
fn scattered_rows_take_two_round_trips_and_some_forty_bytes_each() {
    let source = plain(300_000);
    let a = table(&source);
    for (changed, most) in [(1_000u64, 60_000), (20_000, 45 * 20_000)] {
        let mut target = source.clone();
        for n in 0..changed {
            target.insert(n * (300_000 / changed) * 3, u64::MAX);
        }
        let report = converse(&a, &table(&target));
        assert_right(&report, &source, &target, &format!("{changed} changed"));
        assert!(report.bytes() <= most, "{changed} changed: {} bytes", report.bytes());
        assert_eq!(report.turns_to_findings, 4, "{changed} changed");
    }
    // Rows of one side only, and both kinds in the same number: the target must look up its own.
    let mut target: Rows = source.iter().filter(|(key, _)| *key % 300 != 0).map(|(k, r)| (*k, *r)).collect();
    target.extend((0..3_000).map(|n| (n * 300 + 1, 7)));
    let report = converse(&a, &table(&target));
    assert_right(&report, &source, &target, "re-keyed");
}

fn without(rows: &Rows, hole: std::ops::Range<u64>) -> Rows {
    rows.iter().filter(|(key, _)| !hole.contains(*key)).map(|(key, row)| (*key, *row)).collect()
}

#[test]
fn a_missing_block_takes_two_round_trips() {
    let source = plain(200_000);
    let a = table(&source);
    for from in [0u64, 1, 3_000, 90_000, 90_001, 250_000, 449_999, 450_000] {
        let target = without(&source, from..from + 150_000);
        let report = converse(&a, &table(&target));
        assert_right(&report, &source, &target, &format!("a block from {from}"));
        assert_eq!(report.missing_runs.len(), 1, "a block from {from}");
        assert!(report.bytes() <= 16_000, "a block from {from}: {} bytes", report.bytes());
        assert_eq!(report.turns_to_findings, 4, "a block from {from}");
    }
}

/// Holes of every size, alone, side by side, and with other differences in and around them.
#[test]
fn holes_are_found_whatever_lies_in_them() {
    for seed in 0..150u64 {
        let mut random = Random(seed);
        let source = plain(3_000 + random.below(40_000));
        let mut target = source.clone();
        for _ in 0..=random.below(5) {
            let from = random.below(source.len() as u64 * 3);
            target = without(&target, from..from + random.below(30_000));
        }
        if seed % 3 > 0 {
            target = drift(&target, &mut random, 40);
        }
        if target.len() < 2_100 {
            continue;
        }
        let report = converse(&table(&source), &table(&target));
        assert_right(&report, &source, &target, &format!("seed {seed}"));
    }
}
