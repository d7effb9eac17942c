//! Batches in any order become one sorted segment.

use super::batch::EntryBatch;
use super::coding::{common_prefix, index, sort_prefix};
use super::error::RunError;
use super::segment::{Place, Segment, SegmentWriter};

const GATHER: usize = 128;

/// Sorts by the eight key bytes behind what all keys share; the whole key decides only among equals. Batches that are in order
/// and apart from each other, which is what readers deliver of a table that lies in the order of its key, are written as
/// they are; the rest is sorted for itself.
pub(super) fn sorted_segments(batches: &[EntryBatch], place: &Place<'_>) -> Result<Vec<Segment>, RunError> {
    let (chain, rest) = part(batches);
    let mut segments = Vec::new();
    if !chain.is_empty() {
        let mut writer = SegmentWriter::new(place)?;
        for batch in chain {
            for (key, digest) in batch.iter() {
                writer.push(key, digest)?;
            }
        }
        segments.push(writer.finish()?);
    }
    if !rest.is_empty() {
        segments.push(sorted_segment(&rest, place)?);
    }
    Ok(segments)
}

/// As many batches as lie one behind the other, in their order, and the rest.
fn part(batches: &[EntryBatch]) -> (Vec<&EntryBatch>, Vec<&EntryBatch>) {
    let in_order = |batch: &&EntryBatch| (1..batch.len()).all(|at| batch.key(at - 1) < batch.key(at));
    let (mut candidates, mut rest): (Vec<_>, Vec<_>) =
        batches.iter().filter(|batch| !batch.is_empty()).partition(in_order);
    // By their ends: a batch that spans many others would keep them all out if it came first.
    let last = |batch: &EntryBatch| batch.len().saturating_sub(1);
    candidates.sort_unstable_by(|a, b| a.key(last(a)).cmp(b.key(last(b))));
    let mut chain: Vec<&EntryBatch> = Vec::with_capacity(candidates.len());
    for batch in candidates {
        match chain.last() {
            Some(before) if before.key(last(before)) >= batch.key(0) => rest.push(batch),
            _ => chain.push(batch),
        }
    }
    // A few by chance are not worth a segment of their own.
    if chain.len() < rest.len() {
        rest.append(&mut chain);
    }
    (chain, rest)
}

fn sorted_segment(batches: &[&EntryBatch], place: &Place<'_>) -> Result<Segment, RunError> {
    let mut writer = SegmentWriter::new(place)?;
    let mut entries = batches.iter().flat_map(|batch| batch.iter());
    let Some((first, _)) = entries.next() else { return writer.finish() };
    let shared = entries.fold(first.len(), |shared, (key, _)| {
        shared.min(common_prefix(first.get(..shared).unwrap_or_default(), key))
    });

    let mut order = Vec::with_capacity(batches.iter().map(|batch| batch.len()).sum());
    for (batch_at, batch) in batches.iter().enumerate() {
        for at in 0..batch.len() {
            let (Ok(batch_at), Ok(at32)) = (u32::try_from(batch_at), u32::try_from(at)) else {
                return Err(RunError::Misuse("a batch of more than four thousand million entries"));
            };
            order.push((sort_prefix(batch.key(at), shared), batch_at, at32));
        }
    }
    let batch_of = |at: u32| batches[index(u64::from(at))];
    let key_of = |batch: u32, at: u32| batch_of(batch).key(index(u64::from(at)));
    // The stable sort finds stretches that are in order already, which is what parallel readers deliver.
    order.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| key_of(a.1, a.2).cmp(key_of(b.1, b.2))));
    // Gathered some at a time, so that the processor waits for many cache lines at once and not for one after another.
    let mut gathered = EntryBatch::new();
    for some in order.chunks(GATHER) {
        gathered.clear();
        for (_, batch, at) in some {
            gathered.push(key_of(*batch, *at), batch_of(*batch).digest(index(u64::from(*at))));
        }
        for (key, digest) in gathered.iter() {
            writer.push(key, digest)?;
        }
    }
    writer.finish()
}
