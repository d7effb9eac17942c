//! Conversations over a sketch: the right answer within the budget.

use super::LocateOptions;
use super::cases::{
    Random, Rows, assert_right, converse, converse_with, drift, metered, plain, table, without,
};

#[test]
fn hundreds_of_seeded_conversations_end_in_the_right_answer() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let source = plain(2_100 + random.below(3_000));
        let much = [5, 60, 600, 3_000][usize::try_from(seed % 4).unwrap()];
        let target = drift(&source, &mut random, much);
        let (source, target) = if seed % 2 == 0 { (source, target) } else { (target, source) };
        let (a, b) = (table(&source), table(&target));
        assert_right(&converse(&a, &b), &source, &target, &format!("seed {seed}"));
        assert_right(&converse_with(&a, &b, metered()), &source, &target, &format!("seed {seed}, metered"));
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

/// A metered link: a small opener for a few rows, and for more as many cells as they need.
#[test]
fn a_metered_link_pays_for_the_differences_alone() {
    let source = plain(120_000);
    let a = table(&source);
    for (changed, most, turns) in [(1u64, 800, 2), (10, 1_050, 2), (1_000, 60_000, 4), (5_000, 230_000, 4)] {
        let mut target = source.clone();
        for n in 0..changed {
            target.insert(n * (120_000 / changed) * 3, u64::MAX);
        }
        let report = converse_with(&a, &table(&target), metered());
        assert_right(&report, &source, &target, &format!("{changed} changed"));
        assert!(report.bytes() <= most, "{changed} changed: {} bytes", report.bytes());
        // Where the estimate from few counts was too low, one stage more.
        assert!(report.turns_to_findings <= turns + 2 * usize::from(changed > 100), "{changed} changed");
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

/// A target with a handful of rows, or with a few in a large hole: they are named, and the rest is told by its bounds.
#[test]
fn few_rows_that_face_many_are_named() {
    let source = plain(200_000);
    let a = table(&source);
    for (rows, changed, extra) in [(1u64, 1u64, 0u64), (5, 2, 1), (0, 0, 3), (40, 40, 7), (150, 100, 20)] {
        // Shorter stretches between them would be named.
        let step = 200_000 / (rows.max(extra) + 1);
        let mut target: Rows = (0..rows).map(|n| (n * step * 3, n * step)).collect();
        for n in 0..changed {
            target.insert(n * step * 3, u64::MAX);
        }
        for n in 0..extra {
            target.insert(n * step * 3 + 1, n);
        }
        let report = converse(&a, &table(&target));
        let case = format!("{rows} rows, {changed} changed, {extra} extra");
        assert_right(&report, &source, &target, &case);
        assert!(report.bytes() as u64 <= 1_500 + 90 * (rows + extra), "{case}: {} bytes", report.bytes());
        assert!(report.turns_to_findings <= 12, "{case}: {} turns", report.turns_to_findings);
    }
    // In a large hole of a large table: one row changed, one extra.
    let mut target = without(&source, 90_000..510_000);
    target.insert(300_000, u64::MAX);
    target.insert(400_001, 5);
    let report = converse(&a, &table(&target));
    assert_right(&report, &source, &target, "two rows in a hole");
    assert!(report.bytes() <= 20_000, "{} bytes", report.bytes());
}

#[test]
fn small_targets_of_every_kind_are_told_right() {
    for seed in 0..200u64 {
        let mut random = Random(seed);
        let source = plain(1_000 + random.below(30_000));
        let mut target = Rows::new();
        let most = 1 << random.below(11);
        for _ in 0..random.below(most) {
            let key = random.below(source.len() as u64 * 3 + 30);
            // Rows of the source, changed ones, and others.
            target.insert(key, if random.below(2) == 0 { key / 3 } else { u64::MAX });
        }
        let (source, target) = if seed % 8 == 7 { (target, source) } else { (source, target) };
        let options = LocateOptions { metered: seed % 3 == 0, ..LocateOptions::default() };
        let report = converse_with(&table(&source), &table(&target), options);
        assert_right(&report, &source, &target, &format!("seed {seed}"));
    }
}
