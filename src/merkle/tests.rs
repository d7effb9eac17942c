//! The run and the tree against naive models: same content, same root, whatever the order, budget and batches.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::merkle::boundary::boundary_level;

type Map = BTreeMap<Vec<u8>, RowDigest>;

pub(super) fn session() -> SessionKey {
    SessionKey::new([42; 32])
}

pub(super) fn tree_key() -> TreeKey {
    TreeKey::from_session(&session())
}

pub(super) fn row(n: u64) -> RowDigest {
    session().row_digest(b"row", &n.to_le_bytes())
}

fn build(
    entries: &[(Vec<u8>, RowDigest)],
    batch: usize,
    memory: usize,
    part: u64,
) -> Result<(DigestRun, Tree), RunError> {
    let mut builder =
        RunBuilder::new(RunOptions { memory_bytes: memory, scratch_dir: None }).rows_per_part(part);
    for chunk in entries.chunks(batch) {
        let mut batch = EntryBatch::new();
        chunk.iter().for_each(|(key, digest)| batch.push(key, *digest));
        builder.push(batch)?;
    }
    builder.finish(&tree_key())
}

fn build_map(map: &Map) -> (DigestRun, Tree) {
    let entries: Vec<_> = map.iter().map(|(key, digest)| (key.clone(), *digest)).collect();
    build(&entries, 100, 1 << 20, 1 << 20).unwrap()
}

fn read(run: &DigestRun) -> Map {
    let mut map = Map::new();
    run.for_each_entry(0..run.len(), &mut |key, digest| {
        map.insert(key.to_vec(), digest);
        Ok(())
    })
    .unwrap();
    map
}

/// The tree by its definition, with none of the machinery.
fn naive_root(map: &Map) -> RootDigest {
    let node_key = blake3::derive_key("trueup v1 tree nodes", &[42; 32]);
    let boundary = BoundaryKey::from_session(&session());
    let hash = |tag: u8, parts: &[[u8; 16]]| -> [u8; 16] {
        let bytes: Vec<u8> = std::iter::once(tag).chain(parts.iter().flatten().copied()).collect();
        blake3::keyed_hash(&node_key, &bytes).as_bytes()[..16].try_into().unwrap()
    };
    let rows: Vec<_> = map.iter().collect();
    let mut nodes: Vec<([u8; 16], u8)> = rows
        .chunk_by(|left, _| boundary_level(&boundary, left.0) < LEAF_BITS)
        .map(|leaf| {
            let mut bytes = [&[0; 4][..], &u32::try_from(leaf.len()).unwrap().to_le_bytes()].concat();
            for (key, digest) in leaf {
                bytes.extend([&boundary.mark(key).hash.to_le_bytes()[..], &digest.0].concat());
            }
            bytes.resize(bytes.len().next_multiple_of(64), 0);
            let digest = blake3::keyed_hash(&node_key, &bytes).as_bytes()[..16].try_into().unwrap();
            (digest, boundary_level(&boundary, leaf.last().unwrap().0))
        })
        .collect();
    let mut bits = LEAF_BITS + 1;
    while nodes.len() > 1 {
        nodes = nodes
            .chunk_by(|left, _| left.1 < bits)
            .map(|group| {
                let children: Vec<_> = group.iter().map(|child| child.0).collect();
                let digest = if children.len() == 1 { children[0] } else { hash(1, &children) };
                (digest, group.last().unwrap().1)
            })
            .collect();
        bits += 1;
    }
    let mut root = vec![2];
    root.extend_from_slice(&(map.len() as u64).to_le_bytes());
    nodes.iter().for_each(|node| root.extend_from_slice(&node.0));
    RootDigest(*blake3::keyed_hash(&node_key, &root).as_bytes())
}

/// Two trees are the same, node by node.
pub(super) fn check_nodes(tree: &Tree, expected: &Tree) -> Result<(), TestCaseError> {
    prop_assert_eq!(tree.root(), expected.root());
    prop_assert_eq!(tree.count(), expected.count());
    prop_assert_eq!(tree.height(), expected.height());
    for level in 0..tree.height() {
        let all = tree.nodes(level, 0..tree.count()).unwrap();
        prop_assert_eq!(expected.nodes(level, 0..tree.count()).unwrap(), all.clone());
        prop_assert_eq!(tree.summaries(level, all.clone()).unwrap(), expected.summaries(level, all).unwrap());
    }
    Ok(())
}

/// As two readers bring them, each half in order.
fn two_readers(entries: &[(Vec<u8>, RowDigest)], batch: usize) -> Vec<(Vec<u8>, RowDigest)> {
    let (left, right) = entries.split_at(entries.len() / 2);
    let (mut left, mut right) = (left.chunks(batch), right.chunks(batch));
    let mut all = Vec::new();
    loop {
        let some = [left.next(), right.next()];
        if some == [None, None] {
            return all;
        }
        some.into_iter().flatten().for_each(|chunk| all.extend_from_slice(chunk));
    }
}

fn maps() -> impl Strategy<Value = Map> {
    let key = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..12),
        (0..2000u64).prop_map(|n| n.to_be_bytes().to_vec()),
        (0..500u32).prop_map(|n| format!("customer-with-a-long-shared-start-{n}").into_bytes()),
    ];
    prop::collection::btree_map(key, any::<u64>().prop_map(row), 0..600)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn any_order_budget_and_batch_size_give_the_same_run_and_root(
        map in maps(), seed in any::<u64>(), batch in 1..200usize, memory in 100..40_000usize, part in 5..400u64,
    ) {
        let mut entries: Vec<_> = map.iter().map(|(key, digest)| (key.clone(), *digest)).collect();
        match seed % 4 {
            0 => {}
            1 => entries = two_readers(&entries, batch),
            _ => entries.sort_by_key(|(key, _)| session().row_digest(key, &seed.to_le_bytes())),
        }
        let (run, tree) = build(&entries, batch, memory, part).unwrap();
        prop_assert_eq!(read(&run), map.clone());
        prop_assert_eq!(run.len(), map.len() as u64);
        prop_assert_eq!(tree.count(), run.len());
        prop_assert_eq!(tree.root(), naive_root(&map));
        let mut builder = TreeBuilder::new(&tree_key());
        map.iter().for_each(|(key, digest)| builder.push(key, *digest));
        check_nodes(&tree, &builder.finish().unwrap())?;
    }

    #[test]
    fn mixtures_of_batches_give_the_root_of_their_entries_and_duplicates_are_found(
        map in maps(), seed in any::<u64>(), batch in 1..40usize, memory in 100..20_000usize, part in 5..400u64,
        picks in any::<[prop::sample::Index; 2]>(),
    ) {
        // Long stretches in order, some of them shuffled, in turn from two halves that overlap where they meet.
        let mut entries: Vec<_> = map.iter().map(|(key, digest)| (key.clone(), *digest)).collect();
        let middle = entries.len() / 2;
        let near = middle.saturating_sub(20)..(middle + 20).min(entries.len());
        entries[near].sort_by_key(|(key, _)| session().row_digest(key, b"near"));
        let mut entries = two_readers(&entries, batch * 3);
        for (at, some) in entries.chunks_mut(batch * 5).enumerate() {
            if seed >> (at % 64) & 1 == 1 {
                some.sort_by_key(|(key, _)| session().row_digest(key, &seed.to_le_bytes()));
            }
        }
        let (run, tree) = build(&entries, batch, memory, part).unwrap();
        prop_assert_eq!(read(&run), map.clone());
        prop_assert_eq!(tree.root(), naive_root(&map));
        let mut streamed = TreeBuilder::new(&tree_key());
        map.iter().for_each(|(key, digest)| streamed.push(key, *digest));
        let streamed = streamed.finish().unwrap();
        prop_assert_eq!(tree.opener(), streamed.opener());
        if !entries.is_empty() {
            let twice = entries[picks[0].index(entries.len())].clone();
            entries.insert(picks[1].index(entries.len() + 1), twice.clone());
            let found = match build(&entries, batch, memory, part) {
                Err(RunError::DuplicateKey { key }) => Some(key.as_bytes().to_vec()),
                _ => None,
            };
            prop_assert_eq!(found, Some(twice.0));
        }
    }

    #[test]
    fn reads_by_position_and_by_key_agree_with_a_sorted_list(
        map in maps(), memory in 100..40_000usize, part in 5..400u64, probes in prop::collection::vec(any::<u64>(), 1..20),
    ) {
        let list: Vec<_> = map.iter().map(|(key, digest)| (key.clone(), *digest)).collect();
        let (run, _) = build(&two_readers(&list, 50), 50, memory, part).unwrap();
        let len = list.len() as u64;
        for probe in probes {
            let (a, b) = (probe % (len + 1), (probe >> 32) % (len + 1));
            let (from, to) = (a.min(b), a.max(b));
            let mut digests = Vec::new();
            run.digests(from..to, &mut digests).unwrap();
            let (low, high) = (usize::try_from(from).unwrap(), usize::try_from(to).unwrap());
            prop_assert_eq!(digests, list[low..high].iter().map(|entry| entry.1).collect::<Vec<_>>());
            let mut entries = Vec::new();
            run.for_each_entry(from..to, &mut |key, digest| { entries.push((key.to_vec(), digest)); Ok(()) }).unwrap();
            prop_assert_eq!(&entries[..], &list[low..high]);
            let mut keys = vec![probe.to_be_bytes().to_vec(), (probe % 2000).to_be_bytes().to_vec()];
            keys.extend(list.get(low).map(|entry| entry.0.clone()));
            for key in keys {
                let expected = list.partition_point(|entry| entry.0 < key) as u64;
                prop_assert_eq!(run.lower_bound(&key, 0).unwrap(), expected);
                prop_assert_eq!(run.lower_bound(&key, to).unwrap(), expected.max(to));
                let found = map.get(&key).map(|digest| (expected, *digest));
                prop_assert_eq!(run.find(&key).unwrap(), found);
            }
        }
        prop_assert!(run.digests(0..len + 1, &mut Vec::new()).is_err());
    }

    #[test]
    fn roots_are_equal_exactly_when_the_content_is(map in maps(), other in maps(), pick in any::<prop::sample::Index>()) {
        let (_, tree) = build_map(&map);
        prop_assert_eq!(map == other, tree.root() == build_map(&other).1.root());
        if !map.is_empty() {
            let key = map.keys().nth(pick.index(map.len())).unwrap().clone();
            let mut changed = map.clone();
            changed.get_mut(&key).unwrap().0[15] ^= 1;
            prop_assert_ne!(build_map(&changed).1.root(), tree.root());
            changed.remove(&key);
            prop_assert_ne!(build_map(&changed).1.root(), tree.root());
        }
    }

    #[test]
    fn an_overlay_has_the_root_of_the_table_it_describes(
        map in maps(), changes in prop::collection::btree_map(
            prop_oneof![prop::collection::vec(any::<u8>(), 0..12), (0..2000u64).prop_map(|n| n.to_be_bytes().to_vec())],
            prop::option::of(any::<u64>().prop_map(row)), 0..200),
        removed in any::<u64>(),
    ) {
        let (run, tree) = build_map(&map);
        let mut changes = changes;
        for (at, key) in map.keys().enumerate() {
            if removed != 0 && session().row_digest(key, &removed.to_le_bytes()).0[0] < 40 {
                changes.insert(key.clone(), (at % 2 == 0).then(|| row(at as u64)));
            }
        }
        let mut expected = map.clone();
        for (key, change) in &changes {
            match change {
                Some(digest) => { expected.insert(key.clone(), *digest); }
                None => { expected.remove(key); }
            }
        }
        let root = overlay_root(&run, &tree, changes.iter().map(|(key, change)| Ok((key, *change)))).unwrap();
        prop_assert_eq!(root, naive_root(&expected));
    }
}

/// Few changes in much: most of the tree is taken over by whole nodes.
#[test]
fn an_overlay_of_a_few_changes_has_the_root_of_the_table_it_describes() {
    let key = |n: u64| n.to_be_bytes().to_vec();
    for rows in [0u64, 1, 20, 300, 700, 2_000, 5_000, 9_000] {
        let map: Map = (0..rows).map(|n| (key(2 * n), row(n))).collect();
        let (run, tree) = build_map(&map);
        for case in 0..12u64 {
            let mut changes = Map::new();
            let mut expected = map.clone();
            let mut gone = std::collections::BTreeSet::new();
            for change in 0..case {
                // Behind the last row too, and borders of leaves among the rest.
                let n = u64::from_le_bytes(row(case * 100 + change + rows).0[..8].try_into().unwrap())
                    % (2 * rows + 40);
                if change % 3 == 0 {
                    gone.insert(key(n));
                    changes.remove(&key(n));
                    expected.remove(&key(n));
                } else {
                    gone.remove(&key(n));
                    changes.insert(key(n), row(change));
                    expected.insert(key(n), row(change));
                }
            }
            let mut all: Vec<_> = changes.into_iter().map(|(key, digest)| (key, Some(digest))).collect();
            all.extend(gone.into_iter().map(|key| (key, None)));
            all.sort();
            let root = overlay_root(&run, &tree, all.into_iter().map(Ok)).unwrap();
            assert_eq!(root, naive_root(&expected), "{rows} rows, {case} changes");
        }
    }
}

#[test]
fn one_changed_row_changes_one_path() {
    let map: Map = (0..5000u64).map(|n| (n.to_be_bytes().to_vec(), row(n))).collect();
    let mut changed = map.clone();
    changed.insert(2345u64.to_be_bytes().to_vec(), row(0));
    let ((_, a), (_, b)) = (build_map(&map), build_map(&changed));
    assert_eq!(a.height(), b.height());
    for level in 0..a.height() {
        let nodes = a.nodes(level, 0..5000).unwrap();
        let pairs =
            a.summaries(level, nodes.clone()).unwrap().into_iter().zip(b.summaries(level, nodes).unwrap());
        assert_eq!(pairs.filter(|(x, y)| x != y).count(), 1, "level {level}");
    }
}

#[test]
fn fixed_table_has_a_fixed_root() {
    let session = session();
    let map: Map = (0..1000u64)
        .map(|n| (n.to_be_bytes().to_vec(), session.row_digest(&n.to_be_bytes(), b"row")))
        .collect();
    let (_, tree) = build_map(&map);
    // Another value here means that agents of the versions before and after must refuse each other.
    assert_eq!(tree.root().to_string(), "a36bac72e63e4bb1e43a61fba3c32f71c03b5d01c0e8f47dc80294fd89864f4f");
    let empty = build_map(&Map::new()).1;
    assert_eq!(empty.root().to_string(), "b8b71fda82514683468922a313ea04c1574a1ba4481d64834f685ebd0324bed6");
}

#[test]
fn a_key_that_comes_twice_is_an_error_wherever_it_meets_itself() {
    for (batch, memory) in [(1000, 1 << 20), (10, 1 << 20), (10, 500), (1, 100)] {
        for (first, second) in [(0, 1), (0, 499), (250, 251), (498, 499)] {
            let mut entries: Vec<_> = (0..500u64).map(|n| (n.to_be_bytes().to_vec(), row(n))).collect();
            entries[second].0 = entries[first].0.clone();
            let result = build(&entries, batch, memory, 50);
            assert!(
                matches!(result, Err(RunError::DuplicateKey { key }) if key.as_bytes() == entries[first].0)
            );
        }
    }
}

#[test]
fn more_chunks_than_are_merged_at_once_are_merged_in_turns() {
    let entries: Vec<_> =
        (0..40_000u64).map(|n| ((n * 7919 % 40_000).to_be_bytes().to_vec(), row(n))).collect();
    let (run, tree) = build(&entries, 50, 2000, 3000).unwrap();
    assert!(run.on_disk());
    let map: Map = entries.into_iter().collect();
    assert_eq!(tree.root(), naive_root(&map));
    assert_eq!(read(&run), map);
}

#[test]
fn a_table_within_the_budget_stays_in_memory() {
    let entries: Vec<_> = (0..1000u64).map(|n| (n.to_be_bytes().to_vec(), row(n))).collect();
    assert!(!build(&entries, 50, 1 << 20, 100).unwrap().0.on_disk());
}

#[test]
fn scratch_space_that_is_not_there_is_named() {
    let missing = std::path::PathBuf::from("/nonexistent/scratch");
    let options = RunOptions { memory_bytes: 10, scratch_dir: Some(missing.clone()) };
    let mut batch = EntryBatch::new();
    batch.push(b"key", row(1));
    match RunBuilder::new(options).push(batch) {
        Err(RunError::Scratch { path, source, .. }) => {
            assert_eq!(path, missing);
            assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn ranges_off_the_borders_are_refused() {
    let map: Map = (0..500u64).map(|n| (n.to_be_bytes().to_vec(), row(n))).collect();
    let (_, tree) = build_map(&map);
    let first = tree.span(0, 0..1).unwrap();
    assert_eq!(tree.nodes(0, first.clone()).unwrap(), 0..1);
    assert!(tree.nodes(0, first.start + 1..first.end).is_err());
    assert!(tree.nodes(0, 0..501).is_err());
    assert_eq!(tree.nodes(0, 7..7).unwrap(), 0..0);
    assert_eq!(tree.nodes(60, 0..500).unwrap(), 0..1);
}

#[test]
fn overlay_out_of_order_is_refused() {
    let (run, tree) = build_map(&(0..50u64).map(|n| (n.to_be_bytes().to_vec(), row(n))).collect());
    let mut overlay = OverlayRoot::new(&run, &tree);
    overlay.apply(b"b", None).unwrap();
    assert!(overlay.apply(b"b", None).is_err());
    assert!(overlay.apply(b"a", None).is_err());
}

/// `cargo test --release merkle::tests::measure -- --ignored --nocapture`
#[test]
#[ignore = "a measurement of ten million rows"]
fn measure() {
    use rayon::prelude::*;
    use std::time::Instant;
    const ROWS: u64 = 10_000_000;
    for (name, order) in [("ordered", 0u64), ("random", 1), ("interleaved by 4 readers", 2)] {
        let batches: Vec<EntryBatch> = (0..ROWS / 4000)
            .into_par_iter()
            .map(|batch| {
                let mut made = EntryBatch::with_capacity(4000, 36_000);
                for n in 0..4000 {
                    let n = match order {
                        0 => batch * 4000 + n,
                        1 => (batch * 4000 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15),
                        _ => (batch % 4) * (ROWS / 4) + batch / 4 * 4000 + n,
                    };
                    let mut key = [1u8; 9];
                    key[1..].copy_from_slice(&n.to_be_bytes());
                    let mut digest = [0u8; 16];
                    digest[..8].copy_from_slice(&n.wrapping_mul(0xd6e8_feb8_6659_fd93).to_le_bytes());
                    digest[8..]
                        .copy_from_slice(&(n ^ 0xabcd).wrapping_mul(0xc2b2_ae3d_27d4_eb4f).to_le_bytes());
                    made.push(&key, RowDigest(digest));
                }
                made
            })
            .collect();
        let (start, cpu) = (Instant::now(), cpu_ticks());
        let mut builder = RunBuilder::new(RunOptions::default());
        for batch in batches {
            builder.push(batch).unwrap();
        }
        let pushed = start.elapsed();
        let (run, tree) = builder.finish(&tree_key()).unwrap();
        let cpu_us = (cpu_ticks() - cpu) as f64 * 10_000.0 / ROWS as f64;
        println!(
            "{name}: push {pushed:?}, all {:?}, {cpu_us:.3} us CPU a row, {} rows, tree of {} levels",
            start.elapsed(),
            run.len(),
            tree.height()
        );
    }
    let start = Instant::now();
    let session = session();
    let sum =
        (0..1_000_000u64).fold(0u8, |sum, n| sum ^ session.row_digest(&n.to_be_bytes(), &[7; 100]).0[0]);
    println!("row digest of 100 bytes: {:?} ns ({sum})", start.elapsed().as_nanos() / 1_000_000);
}

/// User and system time of this process, in hundredths of a second.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}
