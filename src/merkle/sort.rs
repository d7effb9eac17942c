//! Batches in any order become one sorted segment.

use super::batch::EntryBatch;
use super::coding::{common_prefix, index, sort_prefix};
use super::error::RunError;
use super::segment::{Place, Segment, SegmentWriter};

const GATHER: usize = 128;

/// Sorts by the eight key bytes behind what all keys share; the whole key decides only among equals.
/// Entries that arrive in order are written as they are.
pub(super) fn sorted_segment(batches: &[EntryBatch], place: &Place<'_>) -> Result<Segment, RunError> {
    let mut writer = SegmentWriter::new(place)?;
    let entries = || batches.iter().flat_map(EntryBatch::iter);
    let Some((first, _)) = entries().next() else { return writer.finish() };

    let mut shared = first.len();
    let mut in_order = true;
    let mut before = first;
    for (key, _) in entries().skip(1) {
        shared = shared.min(common_prefix(first.get(..shared).unwrap_or_default(), key));
        in_order &= before <= key;
        before = key;
    }
    if in_order {
        for (key, digest) in entries() {
            writer.push(key, digest)?;
        }
        return writer.finish();
    }

    let mut order = Vec::with_capacity(batches.iter().map(EntryBatch::len).sum());
    for (batch_at, batch) in batches.iter().enumerate() {
        for at in 0..batch.len() {
            let (Ok(batch_at), Ok(at32)) = (u32::try_from(batch_at), u32::try_from(at)) else {
                return Err(RunError::Misuse("a batch of more than four thousand million entries"));
            };
            order.push((sort_prefix(batch.key(at), shared), batch_at, at32));
        }
    }
    let batch_of = |at: u32| &batches[index(u64::from(at))];
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
