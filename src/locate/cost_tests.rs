//! What a conversation costs, to the byte: a change that makes it chattier, or takes another turn, fails here.
//! Two turns are a round trip; the turns counted are those until the last finding had arrived.

use std::time::Instant;

use super::duet::{Report, Table, converse};
use super::*;
use crate::merkle::{RowDigest, RunView};

fn mixed(n: u64) -> u64 {
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

fn digest(n: u64, version: u64) -> RowDigest {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mixed(n ^ version << 48).to_le_bytes());
    bytes[8..].copy_from_slice(&mixed(!n ^ version << 40).to_le_bytes());
    RowDigest(bytes)
}

fn key(n: u64) -> [u8; 9] {
    let mut key = [1; 9];
    key[1..].copy_from_slice(&n.to_be_bytes());
    key
}

/// Rows 0 to `rows`, with the version that `version` gives, and without those where it gives none.
fn table(rows: u64, version: impl Fn(u64) -> Option<u64>) -> Table {
    Table::new((0..rows).filter_map(|n| Some((key(n), digest(n, version(n)?)))))
}

/// About `d` rows of `rows`, spread by hash.
fn scattered(rows: u64, d: u64) -> impl Fn(u64) -> bool {
    let picked: std::collections::BTreeSet<u64> = (0..d).map(|n| mixed(n + 77) % rows).collect();
    move |n| picked.contains(&n)
}

fn told(source: &Table, target: &Table, bulk: bool) -> Report {
    converse(source, target, LocateOptions { bulk, ..Default::default() })
}

#[test]
fn equal_tables_cost_two_small_messages() {
    for rows in [0, 1, 40, 100_000] {
        let side = table(rows, |_| Some(0));
        let report = told(&side, &side, false);
        assert_eq!((report.turns, report.messages), (2, 2));
        assert!(report.target_to_source <= 256 && report.source_to_target <= 256, "{report:?}");
    }
    let side = table(100_000, |_| Some(0));
    assert_eq!(told(&side, &side, false).cost(), EQUAL_100_000);
}

#[test]
fn scattered_changes() {
    const ROWS: u64 = 100_000;
    let target = table(ROWS, |_| Some(0));
    let costs: Vec<_> = [1, 10, 100, 1000, 10_000]
        .into_iter()
        .map(|d| {
            let changed = scattered(ROWS, d);
            let source = table(ROWS, |n| Some(u64::from(changed(n))));
            let report = told(&source, &target, false);
            let found = report.findings.len();
            assert!(report.findings.iter().all(|finding| finding.kind == FindingKind::Changed));
            assert!(report.turns_to_findings <= 12, "{d}: {report:?}");
            assert!(
                report.bytes() <= if d == 1 { 1500 } else { 600 * found },
                "{d}: {} bytes",
                report.bytes()
            );
            (d, report.cost())
        })
        .collect();
    assert_eq!(costs, SCATTERED_100_000);
}

#[test]
fn blocks_are_told_by_their_bounds() {
    const ROWS: u64 = 100_000;
    let full = table(ROWS, |_| Some(0));
    let holed = table(ROWS, |n| (!(30_000..60_000).contains(&n)).then_some(0));
    let missing = told(&full, &holed, true);
    assert_eq!(missing.missing_runs.iter().map(|run| run.count).sum::<u64>(), 30_000);
    assert!(missing.findings.is_empty());
    assert!(missing.bytes() <= 1000, "{}", missing.bytes());
    let extra = told(&holed, &full, true);
    assert_eq!(extra.findings.len(), 30_000);
    assert!(extra.bytes() <= 1000, "{}", extra.bytes());
    assert_eq!((missing.cost(), extra.cost()), (MISSING_BLOCK, EXTRA_BLOCK));
}

#[test]
fn dense_changes_and_empty_sides() {
    const ROWS: u64 = 100_000;
    let full = table(ROWS, |_| Some(0));
    let other = table(ROWS, |_| Some(1));
    let empty = table(0, |_| None);
    let one = table(1, |_| Some(0));
    let dense = told(&other, &full, false);
    assert_eq!(dense.findings.len(), 100_000);
    assert!(dense.bytes() <= 30 * 100_000, "{}", dense.bytes());
    for (source, target) in [(&full, &empty), (&empty, &full), (&one, &empty), (&empty, &one), (&one, &full)]
    {
        let report = told(source, target, true);
        assert!(report.turns_to_findings <= 4, "{report:?}");
        assert!(report.bytes() <= 500, "{}", report.bytes());
    }
    assert_eq!(dense.cost(), DENSE);
}

/// `cargo test --release locate::cost_tests::measure -- --ignored --nocapture`
#[test]
#[ignore = "a measurement of ten million rows"]
fn measure_ten_million_rows() {
    const ROWS: u64 = 10_000_000;
    let base = table(ROWS, |_| Some(0));
    let show = |name: &str, start: Instant, rows: u64, report: &Report| {
        println!(
            "{name}: {} + {} bytes, {:.1} a row, {} turns to the findings of {}, {} messages, largest {}, {:?}",
            report.target_to_source,
            report.source_to_target,
            report.bytes() as f64 / rows as f64,
            report.turns_to_findings,
            report.turns,
            report.messages,
            report.largest,
            start.elapsed()
        );
    };
    let start = Instant::now();
    let report = told(&base, &base, false);
    show("equal", start, 1, &report);
    assert!(report.bytes() <= 256);
    let mut bytes = Vec::new();
    for at in 0..40 {
        let from = mixed(at + 1) % 9_000_000;
        let holed = table(ROWS, |n| (!(from..from + 1_000_000).contains(&n)).then_some(0));
        for (name, source, target) in [("missing block", &base, &holed), ("extra block", &holed, &base)] {
            let start = Instant::now();
            let report = told(source, target, true);
            show(name, start, 1_000_000, &report);
            bytes.push(report.bytes());
        }
        let start = Instant::now();
        let peer = Some((base.tree.root(), base.run.len()));
        let options = LocateOptions { peer, bulk: true, ..Default::default() };
        let report = converse(&base, &holed, options);
        show("missing block, few turns", start, 1_000_000, &report);
        assert!(report.bytes() <= 16_000 && report.turns_to_findings == 4);
    }
    bytes.sort_unstable();
    assert!(bytes.iter().all(|bytes| *bytes <= 1250), "{bytes:?}");
    let changed = scattered(ROWS, 100_000);
    let other = table(ROWS, |n| Some(u64::from(changed(n))));
    let peer = Some((other.tree.root(), other.run.len()));
    let start = Instant::now();
    let report = converse(&other, &base, LocateOptions { peer, ..Default::default() });
    show("100000 changed, few turns", start, 100_000, &report);
    assert!(report.bytes() <= 4_200_000 && report.turns_to_findings == 4);
    for d in [1, 10, 100, 1000, 10_000, 100_000] {
        for (name, insert) in [("changed", false), ("missing", true)] {
            let changed = scattered(ROWS, d);
            let other = table(ROWS, |n| if changed(n) { (!insert).then_some(1) } else { Some(0) });
            let start = Instant::now();
            let report = told(&base, &other, false);
            show(&format!("{d} {name}"), start, d, &report);
            assert!(report.bytes() as u64 <= if d == 1 { 1500 } else { 600 * d });
            assert!(report.turns_to_findings <= 12);
        }
    }
    let every = table(ROWS, |_| Some(1));
    let start = Instant::now();
    let report = told(&every, &base, false);
    show("dense", start, ROWS, &report);
    assert_eq!(report.findings.len() as u64, ROWS);
    assert!(report.bytes() as u64 <= 30 * ROWS);
}

const EQUAL_100_000: (usize, usize, usize) = (118, 2, 2);
const SCATTERED_100_000: [(u64, (usize, usize, usize)); 5] = [
    (1, (432, 131, 6)),
    (10, (1382, 1685, 10)),
    (100, (10_565, 13_849, 8)),
    (1000, (64_025, 94_633, 8)),
    (10_000, (195_435, 410_260, 8)),
];
const MISSING_BLOCK: (usize, usize, usize) = (428, 161, 8);
const EXTRA_BLOCK: (usize, usize, usize) = (242, 397, 10);
const DENSE: (usize, usize, usize) = (215_740, 2_070_237, 8);
