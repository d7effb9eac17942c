//! Strands against the tree of the same entries built one by one: however they are cut, mixed and spilled.

use proptest::prelude::*;

use super::coding::index;
use super::segment::Place;
use super::strand::{in_line, join};
use super::strays::Strays;
use super::tests::{check_nodes, row, session, tree_key};
use super::*;

type Entries = Vec<(Vec<u8>, RowDigest)>;

/// In key order, no key twice.
fn entries() -> impl Strategy<Value = Entries> {
    let key = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..12),
        (0..3000u64).prop_map(|n| n.to_be_bytes().to_vec()),
    ];
    prop::collection::btree_map(key, any::<u64>().prop_map(row), 0..900)
        .prop_map(|map| map.into_iter().collect())
}

fn batch(entries: &[(Vec<u8>, RowDigest)]) -> EntryBatch {
    let mut batch = EntryBatch::new();
    entries.iter().for_each(|(key, digest)| batch.push(key, *digest));
    batch
}

fn options(memory_bytes: usize) -> RunOptions {
    RunOptions { memory_bytes, scratch_dir: None }
}

fn strand(entries: &[(Vec<u8>, RowDigest)], memory: usize, together: usize) -> Result<Strand, RunError> {
    let mut builder = StrandBuilder::new(&tree_key(), options(memory));
    let mut strays = EntryBatch::new();
    for some in entries.chunks(together) {
        builder.extend(&batch(some), &mut strays)?;
    }
    assert!(strays.is_empty());
    builder.finish()
}

fn finish(builder: RunBuilder) -> Result<(DigestRun, Tree), RunError> {
    builder.finish(&tree_key())
}

/// The run reads as these entries and the tree is theirs, node by node.
fn check((run, tree): &(DigestRun, Tree), entries: &Entries) -> Result<(), TestCaseError> {
    let mut builder = TreeBuilder::new(&tree_key());
    entries.iter().for_each(|(key, digest)| builder.push(key, *digest));
    let expected = builder.finish().unwrap();
    check_nodes(tree, &expected)?;
    prop_assert_eq!(tree.count(), entries.len() as u64);
    prop_assert_eq!(tree.opener(), expected.opener());
    let mut read = Entries::new();
    run.for_each_entry(0..run.len(), &mut |key, digest| {
        read.push((key.to_vec(), digest));
        Ok(())
    })
    .unwrap();
    prop_assert_eq!(&read, entries);
    // Ranges that lie in memory, in the file, and across the seam between them.
    for from in (0..run.len()).step_by(37) {
        let to = run.len().min(from + 301);
        let (mut digests, mut walked) = (Vec::new(), Vec::new());
        run.digests(from..to, &mut digests).unwrap();
        run.for_each_entry(from..to, &mut |_, digest| {
            walked.push(digest);
            Ok(())
        })
        .unwrap();
        let expected: Vec<_> = entries.iter().map(|(_, digest)| *digest).collect();
        let expected = expected.get(index(from)..index(to));
        prop_assert_eq!(expected, Some(digests.as_slice()));
        prop_assert_eq!(expected, Some(walked.as_slice()));
    }
    let places = entries.iter().map(|(key, _)| run.lower_bound(key, 0).unwrap());
    prop_assert!(places.eq(0..run.len()));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn strands_one_behind_the_other_are_the_run(
        entries in entries(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        memory in 50..20_000usize, together in 1..200usize, first in any::<prop::sample::Index>(),
    ) {
        let mut borders: Vec<usize> = cuts.iter().map(|cut| cut.index(entries.len() + 1)).collect();
        borders.extend([0, entries.len()]);
        borders.sort_unstable();
        let mut parts: Vec<_> = borders.windows(2).map(|ends| &entries[ends[0]..ends[1]]).collect();
        let first = first.index(parts.len());
        parts.rotate_left(first);
        let mut builder = RunBuilder::new(options(memory));
        for part in parts {
            builder.push_strand(strand(part, memory, together).unwrap());
        }
        check(&finish(builder).unwrap(), &entries)?;
    }

    /// Each entry goes into a strand or a batch as the dice say; where strands lie among each other they are merged.
    #[test]
    fn strands_among_each_other_and_beside_batches_are_merged(
        entries in entries(), dice in any::<u64>(), memory in 50..20_000usize, together in 1..200usize, twice in any::<prop::sample::Index>(),
    ) {
        let mut heaps = [Entries::new(), Entries::new(), Entries::new()];
        for (at, entry) in entries.iter().enumerate() {
            heaps[session().row_digest(&entry.0, &dice.to_le_bytes()).0[0] as usize % (2 + at % 2)].push(entry.clone());
        }
        let build = |again: Option<&(Vec<u8>, RowDigest)>| {
            let mut builder = RunBuilder::new(options(memory));
            for some in heaps[0].chunks(together) {
                builder.push(batch(some))?;
            }
            for heap in &heaps[1..] {
                builder.push_strand(strand(heap, memory, together)?);
            }
            if let Some(entry) = again {
                builder.push_strand(strand(std::slice::from_ref(entry), memory, 1)?);
            }
            finish(builder)
        };
        check(&build(None).unwrap(), &entries)?;
        if !entries.is_empty() {
            let entry = &entries[twice.index(entries.len())];
            let found = build(Some(entry)).map(|_| ());
            prop_assert!(matches!(&found, Err(RunError::DuplicateKey { key }) if key.as_bytes() == entry.0), "{found:?}");
        }
    }

    /// Some entries stay out of the strands, wherever they lie, and are woven in.
    #[test]
    fn strays_lie_where_their_keys_say(
        entries in entries(), dice in any::<u64>(), rarely in 2..60u8, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        memory in 50..20_000usize, together in 1..200usize, twice in any::<prop::sample::Index>(),
    ) {
        let strays_away = |key: &[u8]| session().row_digest(key, &dice.to_le_bytes()).0[0].is_multiple_of(rarely);
        let (strays, rest): (Entries, Entries) = entries.iter().cloned().partition(|(key, _)| strays_away(key));
        let mut borders: Vec<usize> = cuts.iter().map(|cut| cut.index(rest.len() + 1)).collect();
        borders.extend([0, rest.len()]);
        borders.sort_unstable();
        let join = |strays: &[(Vec<u8>, RowDigest)]| {
            let mut strands = Vec::new();
            for ends in borders.windows(2).filter(|ends| ends[0] < ends[1]) {
                strands.push(strand(&rest[ends[0]..ends[1]], memory, together)?);
            }
            assert!(in_line(&mut strands));
            let batches: Vec<EntryBatch> = strays.chunks(together).rev().map(batch).collect();
            let (pieces, nodes) = join(strands, &Strays::of(&batches)?, &tree_key(), &Place::Memory)?;
            Ok::<_, RunError>((DigestRun::of(pieces), nodes.tree()?))
        };
        // One strand at least: who has none has no strays.
        prop_assume!(!rest.is_empty());
        check(&join(&strays).unwrap(), &entries)?;
        let mut again = strays;
        again.push(entries[twice.index(entries.len())].clone());
        let found = join(&again).map(|_| ());
        prop_assert!(
            matches!(&found, Err(RunError::DuplicateKey { key }) if key.as_bytes() == again[again.len() - 1].0), "{found:?}"
        );
    }

    #[test]
    fn a_strand_takes_what_is_in_order_and_gives_back_what_is_not(
        entries in entries(), at in any::<prop::sample::Index>(), back in any::<prop::sample::Index>(),
    ) {
        prop_assume!(entries.len() > 1);
        let at = 1 + at.index(entries.len() - 1);
        let mut builder = StrandBuilder::new(&tree_key(), options(1 << 20));
        let mut disordered = entries.clone();
        let earlier = disordered[back.index(at)].clone();
        disordered.insert(at, earlier.clone());
        let mut strays = EntryBatch::new();
        if earlier == entries[at - 1] {
            let found = builder.extend(&batch(&disordered), &mut strays);
            let twice = matches!(found, Err(RunError::DuplicateKey { .. }));
            prop_assert!(twice);
            return Ok(());
        }
        builder.extend(&batch(&disordered), &mut strays).unwrap();
        prop_assert_eq!(strays, batch(&[earlier]));
        let mut run = RunBuilder::new(options(1 << 20));
        run.push_strand(builder.finish().unwrap());
        check(&finish(run).unwrap(), &entries)?;
    }
}

#[test]
fn few_strays_are_woven_in_and_many_are_merged() {
    let entries: Entries = (0..30_000u64).map(|n| (n.to_be_bytes().to_vec(), row(n))).collect();
    for every in [1_000, 100] {
        let (strays, rest): (Entries, Entries) = entries
            .iter()
            .cloned()
            .partition(|(key, _)| u64::from_be_bytes(key[..].try_into().unwrap()) % every == 7);
        let mut builder = StrandBuilder::new(&tree_key(), options(1 << 20));
        let mut beside = EntryBatch::new();
        // All strays come last, as updated rows of a table do.
        builder.extend(&batch(&[rest.clone(), strays.clone()].concat()), &mut beside).unwrap();
        assert_eq!(beside, batch(&strays));
        let strand = builder.finish().unwrap();
        let segment = strand.segment();
        let mut run = RunBuilder::new(options(1 << 20));
        run.push_strand(strand);
        run.push(beside).unwrap();
        let built = finish(run).unwrap();
        check(&built, &entries).unwrap();
        assert_eq!(std::sync::Arc::strong_count(&segment) > 1, every == 1_000);
    }
    let builder = StrandBuilder::new(&tree_key(), options(1 << 20));
    let goes_on = |strays: u64| builder.goes_on_beside(&batch(&entries[..index(strays)]));
    assert!(goes_on(1_000) && !goes_on(2_000));
    let long: Entries = vec![(vec![7; 3 << 20], row(1))];
    assert!(!builder.goes_on_beside(&batch(&long)));
}

#[test]
fn a_strand_goes_to_disk_where_it_is_large_and_tells_where_it_cannot() {
    let entries: Entries = (0..20_000u64).map(|n| (n.to_be_bytes().to_vec(), row(n))).collect();
    for (memory, on_disk) in [(1 << 20, false), (10_000, true)] {
        let mut builder = RunBuilder::new(options(memory));
        builder.push_strand(strand(&entries, memory, 100).unwrap());
        let built = finish(builder).unwrap();
        assert_eq!(built.0.on_disk(), on_disk);
        check(&built, &entries).unwrap();
    }
    let gone = RunOptions { memory_bytes: 10_000, scratch_dir: Some("/nowhere/at/all".into()) };
    let mut builder = StrandBuilder::new(&tree_key(), gone);
    let failed =
        entries.chunks(100).find_map(|some| builder.extend(&batch(some), &mut EntryBatch::new()).err());
    assert!(matches!(failed, Some(RunError::Scratch { action: "create", .. })));
}
