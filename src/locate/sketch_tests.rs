//! Sketches against sets: what differs is found, or it is said that the symbols do not suffice.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::duet::Table;
use super::sketch::*;
use crate::merkle::{RowDigest, RunView, SessionKey};

fn digest(n: u64) -> RowDigest {
    SessionKey::new([5; 32]).row_digest(&n.to_be_bytes(), b"")
}

fn table(rows: impl IntoIterator<Item = (u64, u64)>) -> Table {
    Table::new(rows.into_iter().map(|(key, row)| (key.to_be_bytes(), digest(row))))
}

fn sums(table: &Table, from: u32, to: u32) -> Symbols {
    Symbols::of(table.run.as_ref(), from, to).unwrap()
}

fn elements(rows: impl IntoIterator<Item = u64>) -> BTreeSet<u64> {
    rows.into_iter().map(|row| element(digest(row))).collect()
}

/// Symbols until the difference is decoded, one more at a time beyond the first `from`.
fn needed(a: &Table, b: &Table, most: u32) -> Option<(u32, BTreeSet<u64>)> {
    let (own, peer) = (sums(a, 0, most), sums(b, 0, most));
    let mut decoder = Decoder::default();
    for at in 0..most as usize {
        if decoder.take(&own.sums[at..=at], &peer.sums[at..=at]) && at > 0 {
            return Some((decoder.len(), decoder.elements().into_iter().collect()));
        }
    }
    None
}

#[test]
fn a_sketch_gives_exactly_what_differs() {
    for differing in [0u64, 1, 2, 7, 40, 300] {
        let same = (0..5_000).map(|n| (n, n));
        let a = table(same.clone());
        let b = table(
            same.map(|(key, row)| if key % 5_000 < differing { (key, row + 1_000_000) } else { (key, row) }),
        );
        let mut decoder = Decoder::default();
        let most = u32::try_from(enough(differing * 2)).unwrap() * 2;
        assert!(decoder.take(&sums(&a, 0, most).sums, &sums(&b, 0, most).sums), "{differing}");
        let expected = elements((0..differing).chain((0..differing).map(|n| n + 1_000_000)));
        assert_eq!(decoder.elements().into_iter().collect::<BTreeSet<_>>(), expected);
        // Who has them is found by a pass over the run.
        let (places, others) = resolve(a.run.as_ref(), &decoder.elements()).unwrap();
        assert_eq!(places, (0..differing).collect::<Vec<_>>());
        assert_eq!(
            others.into_iter().collect::<BTreeSet<_>>(),
            elements((0..differing).map(|n| n + 1_000_000))
        );
    }
}

#[test]
fn a_prefix_is_lengthened_without_starting_over() {
    let a = table((0..20_000).map(|n| (n, n)));
    let b = table((0..20_000).filter(|n| n % 10 != 3).map(|n| (n, n)));
    let mut decoder = Decoder::default();
    let mut at = 0;
    for to in [100, 900, 2_000, 2_600, 2_900, 3_400] {
        let done = decoder.take(&sums(&a, at, to).sums, &sums(&b, at, to).sums);
        at = to;
        if done {
            break;
        }
    }
    assert!(at > 2_000, "two thousand differences cannot be had from {at} symbols");
    assert_eq!(
        decoder.elements().into_iter().collect::<BTreeSet<_>>(),
        elements((0..20_000).filter(|n| n % 10 == 3))
    );
    let whole = sums(&a, 0, 3_400);
    assert_eq!(whole.sums[900..2_000], sums(&a, 900, 2_000).sums[..]);
}

/// The overhead, frozen: a worse mapping fails here.
#[test]
fn the_symbols_a_difference_takes() {
    for (differing, mean_most, worst_most) in
        [(4u64, 2.3, 6.5), (20, 1.85, 3.4), (100, 1.6, 2.2), (600, 1.46, 1.62)]
    {
        let mut factors = Vec::new();
        for case in 0..40 {
            let a = table((0..differing).map(|n| (n, case * 1_000_000 + n)));
            let b = table(std::iter::empty());
            let (symbols, found) = needed(&a, &b, u32::try_from(differing * 8 + 40).unwrap()).unwrap();
            assert_eq!(found.len() as u64, differing);
            factors.push(f64::from(symbols) / differing as f64);
        }
        factors.sort_by(f64::total_cmp);
        let mean = factors.iter().sum::<f64>() / 40.0;
        assert!(
            mean < mean_most && factors[39] < worst_most,
            "{differing}: mean {mean}, worst {}",
            factors[39]
        );
    }
    // Many: few cases, for time.
    for case in 0..4 {
        let (a, b) = (table((0..50_000).map(|n| (n, case << 32 | n))), table(std::iter::empty()));
        let mut decoder = Decoder::default();
        let most = u32::try_from(enough(50_000)).unwrap();
        assert!(decoder.take(&sums(&a, 0, most).sums, &sums(&b, 0, most).sums), "{case}");
        assert_eq!(decoder.elements().len(), 50_000);
    }
}

#[test]
fn the_opener_holds_three_hundred_changed_rows() {
    let mut failed = 0;
    for case in 0..60 {
        let a = table((0..600u64).map(|n| (n, case * 100_000 + n)));
        let b = table(std::iter::empty());
        let mut decoder = Decoder::default();
        failed += u32::from(!decoder.take(&sums(&a, 0, OPENER).sums, &sums(&b, 0, OPENER).sums));
    }
    assert!(failed <= 1, "{failed} of 60");
}

#[test]
fn the_counts_tell_about_how_many_differ() {
    let first = OPENER - u32::try_from(COUNTED).unwrap();
    for (rows, changed, missing) in [
        (30_000u64, 0u64, 0u64),
        (30_000, 500, 0),
        (30_000, 3_000, 0),
        (30_000, 20, 6_000),
        (60_000, 25_000, 0),
        (60_000, 0, 50_000),
    ] {
        let a = table((0..rows).map(|n| (n, n)));
        let b =
            table((missing..rows).map(|n| if n < missing + changed { (n, n + 10_000_000) } else { (n, n) }));
        let (own, peer) = (sums(&a, first, OPENER), sums(&b, first, OPENER));
        let surplus = i64::try_from(a.run.len()).unwrap() - i64::try_from(b.run.len()).unwrap();
        let estimate = estimate(first, &own.counts, &peer.counts, surplus);
        let real = 2 * changed + missing;
        assert!(estimate * 10 >= real * 7 && estimate * 10 <= real * 13, "{estimate} for {real}");
    }
}

proptest! {
    #[test]
    fn any_two_tables(
        both in prop::collection::btree_set(0u64..1 << 40, 0..200),
        left in prop::collection::btree_set(1u64 << 40..1 << 41, 0..60),
        right in prop::collection::btree_set(1u64 << 41..1 << 42, 0..60),
    ) {
        let a = table(both.iter().chain(&left).map(|n| (*n, *n)));
        let b = table(both.iter().chain(&right).map(|n| (*n, *n)));
        let mut decoder = Decoder::default();
        prop_assert!(decoder.take(&sums(&a, 0, 700).sums, &sums(&b, 0, 700).sums));
        let found: BTreeSet<u64> = decoder.elements().into_iter().collect();
        prop_assert_eq!(found, elements(left.iter().chain(&right).copied()));
    }

    #[test]
    fn nonsense_ends_and_panics_nowhere(own in prop::collection::vec(any::<u64>(), 0..300), peer in prop::collection::vec(any::<u64>(), 0..300)) {
        let mut decoder = Decoder::default();
        let most = own.len().min(peer.len());
        decoder.take(&own, &peer);
        prop_assert!(decoder.elements().len() <= most * 64 + 64);
    }
}
