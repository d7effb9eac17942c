//! The digest run: every (key, digest) of a table in key order, in memory up to a budget, on disk beyond it.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;

use super::batch::EntryBatch;
use super::boundary::LEAF_BITS;
use super::coding::{common_prefix, index};
use super::digest::RowDigest;
use super::error::RunError;
use super::leaf::ManyLeaves;
use super::merge::merge;
use super::node::Leaves;
use super::opener::Opener;
use super::pieces::{Assembler, Piece, lower_bound, touched};
use super::segment::{Place, Segment};
use super::sort::sorted_segments;
use super::strand::{self, Strand};
use super::strays::Strays;
use super::tree::{NodeStack, Tree, TreeKey};
use super::view::{EachEntry, RunView};

/// Sorted chunks that are merged at a time; more are first merged among themselves, so that open files stay few.
const FAN_IN: usize = 64;
/// What sorting adds to an entry's key while a chunk is in memory: its digest, its end, its place in the order.
const ENTRY_OVERHEAD: usize = 16 + 8 + 16 + 8;
const READ_AT_LEAST: usize = 8 * 1024;
const READ_AT_MOST: usize = 256 * 1024;
const ROWS_PER_PART: u64 = 32 * 1024;
/// What is longer than such a share of a part stays where it was sorted.
const STRETCHES_PER_PART: u64 = 32;

/// Of the memory, what strays may take while they wait.
const STRAYS_SHARE: usize = 8;

/// How a run is built.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Entries held at a time; beyond it sorted chunks go to disk.
    pub memory_bytes: usize,
    /// Where chunks go; the system's directory for temporary files where it is not given.
    pub scratch_dir: Option<PathBuf>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { memory_bytes: 64 * 1024 * 1024, scratch_dir: None }
    }
}

/// Takes entries in any order. Sorting, spilling and merging run on the rayon pool; calls block meanwhile.
pub struct RunBuilder {
    memory_bytes: usize,
    dir: PathBuf,
    rows_per_part: u64,
    batches: Vec<EntryBatch>,
    held: usize,
    chunks: Vec<Arc<Segment>>,
    merged: Vec<Arc<Segment>>,
    strands: Vec<Strand>,
}

impl RunBuilder {
    pub fn new(options: RunOptions) -> Self {
        Self {
            memory_bytes: options.memory_bytes,
            dir: options.scratch_dir.unwrap_or_else(std::env::temp_dir),
            rows_per_part: ROWS_PER_PART,
            batches: Vec::new(),
            held: 0,
            chunks: Vec::new(),
            merged: Vec::new(),
            strands: Vec::new(),
        }
    }

    /// Splits the merge into parts of about this many rows, so that tests reach it with small tables.
    #[cfg(test)]
    pub(super) fn rows_per_part(mut self, rows: u64) -> Self {
        self.rows_per_part = rows;
        self
    }

    pub fn push(&mut self, batch: EntryBatch) -> Result<(), RunError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.held += batch.key_bytes() + batch.len() * ENTRY_OVERHEAD;
        self.batches.push(batch);
        if self.held >= self.memory_bytes {
            self.spill()?;
        }
        Ok(())
    }

    /// Entries that were brought in order.
    pub fn push_strand(&mut self, strand: Strand) {
        if !strand.is_empty() {
            self.strands.push(strand);
        }
    }

    /// Bytes of entries that wait in memory.
    pub fn held_bytes(&self) -> usize {
        self.held
    }

    fn spill(&mut self) -> Result<(), RunError> {
        let batches = std::mem::take(&mut self.batches);
        self.held = 0;
        self.chunks.extend(sort_groups(&batches, &Place::Scratch(&self.dir))?);
        drop(batches);
        if self.chunks.len() >= FAN_IN {
            let chunks = std::mem::take(&mut self.chunks);
            let parts = self.merge_parts(&chunks, &Place::Scratch(&self.dir), None)?;
            let pieces = parts.into_iter().flat_map(|part| part.pieces);
            self.merged.extend(pieces.map(|piece| piece.segment));
        }
        Ok(())
    }

    /// The run and its tree. Two entries with the same key are an error.
    pub fn finish(mut self, key: &TreeKey) -> Result<(DigestRun, Tree), RunError> {
        let spilled = !self.chunks.is_empty() || !self.merged.is_empty();
        let place = match spilled || self.strands.iter().any(Strand::on_disk) {
            true => Place::Scratch(&self.dir),
            false => Place::Memory,
        };
        let batches = std::mem::take(&mut self.batches);
        let mut strands = std::mem::take(&mut self.strands);
        let beside = batches.iter().map(EntryBatch::len).sum();
        let among = strands.iter().map(Strand::len).sum();
        // While they are woven in they are held more than once.
        let few = Strays::are_few(beside, among) && self.held <= self.memory_bytes / STRAYS_SHARE;
        if !spilled && few && strand::in_line(&mut strands) {
            let (pieces, nodes) = strand::join(strands, &Strays::of(&batches)?, key, &place)?;
            return Ok((DigestRun::of(pieces), nodes.tree()?));
        }
        let mut segments = std::mem::take(&mut self.merged);
        segments.append(&mut self.chunks);
        segments.extend(sort_groups(&batches, &place)?);
        segments.extend(strands.into_iter().map(Strand::into_segment));
        drop(batches);
        let parts = self.merge_parts(&segments, &place, Some(key))?;
        drop(segments);

        let mut nodes = NodeStack::new(key.clone(), Some(&place));
        let mut pieces = Vec::new();
        for part in parts {
            part.leaves.for_each(|leaf| {
                nodes.push(leaf);
                Ok(())
            })?;
            nodes.join(&part.opener);
            pieces.extend(part.pieces);
        }
        Ok((DigestRun::of(pieces), nodes.tree()?))
    }

    /// Merges the segments by ranges of keys, in parallel. With a tree key also cuts leaves; the ranges then end on
    /// leaf borders.
    fn merge_parts(
        &self,
        segments: &[Arc<Segment>],
        place: &Place<'_>,
        key: Option<&TreeKey>,
    ) -> Result<Vec<Part>, RunError> {
        let rows: u64 = segments.iter().map(|segment| segment.len()).sum();
        let threads = rayon::current_num_threads();
        let wanted = index(rows / self.rows_per_part).min(threads * 4);
        let pivots = pivots(segments, rows, wanted, key)?;
        let shared = shared_prefix(segments);
        let stretch_min = self.rows_per_part / STRETCHES_PER_PART;
        let read_bytes =
            (self.memory_bytes / 2 / threads / segments.len().max(1)).clamp(READ_AT_LEAST, READ_AT_MOST);

        let mut ranges = Vec::with_capacity(pivots.len() + 1);
        let mut from = vec![0; segments.len()];
        for pivot in &pivots {
            let to =
                segments.iter().map(|segment| segment.upper_bound(pivot)).collect::<Result<Vec<_>, _>>()?;
            ranges.push((from, to.clone()));
            from = to;
        }
        ranges.push((from, segments.iter().map(|segment| segment.len()).collect()));

        ranges
            .into_par_iter()
            .map(|(from, to)| {
                let mut cursors = Vec::new();
                for (number, ((segment, from), to)) in segments.iter().zip(from).zip(to).enumerate() {
                    if from < to {
                        cursors.push((number, segment.cursor(from..to, read_bytes)?));
                    }
                }
                // Merged among themselves, segments are to become fewer.
                let mut run = Assembler::new(segments.to_vec(), place, key.map(|_| stretch_min));
                let mut opener = Opener::new();
                let mut leaves = key.map(|key| ManyLeaves::new(key, place));
                merge(cursors, shared, |source, position, key, digest| {
                    run.push(source, position, key, digest)?;
                    if let Some(leaves) = &mut leaves {
                        opener.add(digest);
                        leaves.push(key, digest);
                    }
                    Ok(())
                })?;
                let leaves = leaves.map_or_else(|| Leaves::new(place), ManyLeaves::finish);
                Ok(Part { pieces: run.finish()?, leaves, opener })
            })
            .collect()
    }
}

impl fmt::Debug for RunBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spilled = self.chunks.len() + self.merged.len();
        write!(f, "RunBuilder({} bytes held, {spilled} chunks spilled)", self.held)
    }
}

struct Part {
    pieces: Vec<Piece>,
    leaves: Leaves,
    opener: Opener,
}

/// Sorts the batches as one segment or two per thread.
fn sort_groups(batches: &[EntryBatch], place: &Place<'_>) -> Result<Vec<Arc<Segment>>, RunError> {
    if batches.is_empty() {
        return Ok(Vec::new());
    }
    let per_group = batches.len().div_ceil(rayon::current_num_threads());
    let segments: Vec<Vec<Segment>> =
        batches.par_chunks(per_group).map(|group| sorted_segments(group, place)).collect::<Result<_, _>>()?;
    Ok(segments.into_iter().flatten().map(Arc::new).collect())
}

/// What all keys start with.
fn shared_prefix(segments: &[Arc<Segment>]) -> usize {
    let bounds = || segments.iter().filter(|segment| segment.len() > 0).flat_map(|s| [s.first(), s.last()]);
    match (bounds().min(), bounds().max()) {
        (Some(least), Some(greatest)) => common_prefix(least, greatest),
        _ => 0,
    }
}

/// Keys that cut the whole into about `parts` equal parts, from a sample of blocks; leaf borders where a tree is built.
fn pivots(
    segments: &[Arc<Segment>],
    rows: u64,
    parts: usize,
    key: Option<&TreeKey>,
) -> Result<Vec<Vec<u8>>, RunError> {
    if parts < 2 {
        return Ok(Vec::new());
    }
    let samples = (parts * 16) as u64;
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for segment in segments {
        let blocks = segment.blocks();
        let wanted = (segment.len() * samples / rows.max(1)).clamp(1, blocks.max(1));
        for sample in 0..wanted.min(blocks) {
            let block = (2 * sample + 1) * blocks / (2 * wanted);
            let mut cursor = segment.cursor(segment.block_entries(block), 1)?;
            while cursor.advance()? {
                if key.is_none_or(|key| key.bits(cursor.key()) >= LEAF_BITS) {
                    keys.push(cursor.key().to_vec());
                    if key.is_none() {
                        break;
                    }
                }
            }
        }
    }
    keys.sort_unstable();
    keys.dedup();
    let mut pivots: Vec<Vec<u8>> = Vec::new();
    for part in 1..parts {
        if let Some(key) = keys.get(part * keys.len() / parts)
            && pivots.last() != Some(key)
        {
            pivots.push(key.clone());
        }
    }
    Ok(pivots)
}

/// Entries in key order; its scratch files are gone when it is dropped.
pub struct DigestRun {
    pieces: Vec<Piece>,
    /// Where each piece begins.
    starts: Vec<u64>,
    len: u64,
}

impl DigestRun {
    pub(super) fn of(pieces: Vec<Piece>) -> Self {
        let mut run = Self { pieces: Vec::new(), starts: Vec::new(), len: 0 };
        for piece in pieces {
            run.starts.push(run.len);
            run.len += piece.len();
            run.pieces.push(piece);
        }
        run
    }

    /// The run did not fit the memory budget.
    pub fn on_disk(&self) -> bool {
        self.pieces.iter().any(|piece| piece.segment.on_disk())
    }

    /// The segments that a range of entries touches, each with its own range.
    fn touched(&self, range: Range<u64>) -> Result<impl Iterator<Item = (&Segment, Range<u64>)>, RunError> {
        if range.end > self.len || range.start > range.end {
            return Err(RunError::Misuse("entries beyond the end of the run"));
        }
        Ok(touched(&self.pieces, &self.starts, range))
    }
}

impl RunView for DigestRun {
    fn len(&self) -> u64 {
        self.len
    }

    fn digests(&self, range: Range<u64>, out: &mut Vec<RowDigest>) -> Result<(), RunError> {
        self.touched(range)?.try_for_each(|(part, range)| part.digests(range, out))
    }

    fn for_each_entry(&self, range: Range<u64>, each: &mut EachEntry<'_>) -> Result<(), RunError> {
        for (part, range) in self.touched(range)? {
            let mut cursor = part.entries(range)?;
            while cursor.advance()? {
                each(cursor.key(), cursor.digest())?;
            }
        }
        Ok(())
    }

    fn lower_bound(&self, key: &[u8], from: u64) -> Result<u64, RunError> {
        lower_bound(&self.pieces, &self.starts, self.len, key, from)
    }
}

impl fmt::Debug for DigestRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.on_disk() { "on disk" } else { "in memory" };
        write!(f, "DigestRun({} entries {place})", self.len)
    }
}
