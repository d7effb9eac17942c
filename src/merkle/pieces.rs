//! A merged run is put together: what is long and uninterrupted stays in the segment that it was sorted into, the rest is
//! written anew. A table that lies in the order of its key is so written once, whoever read it in how many parts.

use std::ops::Range;
use std::sync::Arc;

use super::batch::EntryBatch;
use super::digest::RowDigest;
use super::error::RunError;
use super::segment::{Place, Segment, SegmentWriter};
use crate::model::Key;

/// Stretches of the least length after which it is clear whether they are long.
const PROBE: u64 = 16;

/// A stretch of a segment, as a part of a run.
pub(super) struct Piece {
    pub(super) segment: Arc<Segment>,
    pub(super) range: Range<u64>,
    pub(super) last: Vec<u8>,
}

impl Piece {
    pub(super) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

enum Stretch {
    Kept(Piece),
    Written { range: Range<u64>, last: Vec<u8> },
}

/// Takes entries in key order, each with the source it comes from and its place there.
pub(super) struct Assembler<'a> {
    sources: Vec<Arc<Segment>>,
    place: &'a Place<'a>,
    writer: Option<SegmentWriter>,
    written: u64,
    done: Vec<Stretch>,
    /// The stretch under way, and its entries as long as it is short.
    source: usize,
    range: Range<u64>,
    held: EntryBatch,
    /// The key that the stretch before ended with.
    last: Vec<u8>,
    taken: u64,
    kept: u64,
    /// A shorter stretch is written: each piece is found by a search of its own.
    stretch_min: u64,
    /// Everything is written.
    plain: bool,
}

impl<'a> Assembler<'a> {
    /// Stretches of at least `stretch_min` entries stay where they are; with `None` all entries go into one new segment.
    pub(super) fn new(sources: Vec<Arc<Segment>>, place: &'a Place<'a>, stretch_min: Option<u64>) -> Self {
        Self {
            sources,
            place,
            writer: None,
            written: 0,
            done: Vec::new(),
            source: usize::MAX,
            range: 0..0,
            held: EntryBatch::new(),
            last: Vec::new(),
            taken: 0,
            kept: 0,
            stretch_min: stretch_min.unwrap_or(u64::MAX).max(1),
            plain: stretch_min.is_none(),
        }
    }

    pub(super) fn push(
        &mut self,
        source: usize,
        position: u64,
        key: &[u8],
        digest: RowDigest,
    ) -> Result<(), RunError> {
        if self.plain {
            return self.write(key, digest);
        }
        if source != self.source || position != self.range.end {
            self.end_stretch()?;
            if self.taken > 0 && self.last == key {
                return Err(RunError::DuplicateKey { key: Key::from(key) });
            }
            if self.taken >= PROBE * self.stretch_min && self.kept < self.taken / 2 {
                self.plain = true;
                return self.write(key, digest);
            }
            (self.source, self.range) = (source, position..position);
        }
        self.range.end += 1;
        self.taken += 1;
        let len = self.range.end - self.range.start;
        if len < self.stretch_min {
            self.held.push(key, digest);
        } else if len == self.stretch_min {
            self.held.clear();
        }
        Ok(())
    }

    fn write(&mut self, key: &[u8], digest: RowDigest) -> Result<(), RunError> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self.writer.insert(SegmentWriter::new(self.place)?),
        };
        writer.push(key, digest)?;
        self.written += 1;
        Ok(())
    }

    fn end_stretch(&mut self) -> Result<(), RunError> {
        let range = std::mem::take(&mut self.range);
        let len = range.end - range.start;
        if len >= self.stretch_min
            && let Some(segment) = self.sources.get(self.source).cloned()
        {
            self.end_written();
            self.kept += len;
            self.last = segment.key_at(range.end - 1)?;
            self.done.push(Stretch::Kept(Piece { segment, range, last: self.last.clone() }));
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        for (key, digest) in held.iter() {
            self.write(key, digest)?;
        }
        if let Some(last) = held.len().checked_sub(1) {
            self.last.clear();
            self.last.extend_from_slice(held.key(last));
        }
        self.held = held;
        self.held.clear();
        Ok(())
    }

    /// What was written since the last kept stretch is a stretch of its own.
    fn end_written(&mut self) {
        let before = self.done.iter().rev().find_map(|stretch| match stretch {
            Stretch::Written { range, .. } => Some(range.end),
            Stretch::Kept(_) => None,
        });
        let start = before.unwrap_or(0);
        if let Some(writer) = &self.writer
            && start < self.written
        {
            let last = writer.last().to_vec();
            self.done.push(Stretch::Written { range: start..self.written, last });
        }
    }

    pub(super) fn finish(mut self) -> Result<Vec<Piece>, RunError> {
        self.end_stretch()?;
        self.end_written();
        let written = self.writer.map(SegmentWriter::finish).transpose()?.map(Arc::new);
        let piece = |stretch| match stretch {
            Stretch::Kept(piece) => Some(piece),
            Stretch::Written { range, last } => written.clone().map(|segment| Piece { segment, range, last }),
        };
        Ok(self.done.into_iter().filter_map(piece).collect())
    }
}

/// The pieces that a range of entries touches, each with its own range; `starts` is where each begins.
pub(super) fn touched<'p>(
    pieces: &'p [Piece],
    starts: &'p [u64],
    range: Range<u64>,
) -> impl Iterator<Item = (&'p Segment, Range<u64>)> {
    let first = starts.partition_point(|start| *start <= range.start).saturating_sub(1);
    let behind = pieces.iter().zip(starts).skip(first);
    behind.take_while(move |(_, start)| **start < range.end).filter_map(move |(piece, start)| {
        let from = range.start.max(*start) - start;
        let to = range.end.min(start + piece.len()) - start;
        let base = piece.range.start;
        (from < to).then(|| (piece.segment.as_ref(), base + from..base + to))
    })
}

/// Position of the first entry at or after `from` whose key is not less than `key`; `len` where there is none.
pub(super) fn lower_bound(
    pieces: &[Piece],
    starts: &[u64],
    len: u64,
    key: &[u8],
    from: u64,
) -> Result<u64, RunError> {
    let by_key = pieces.partition_point(|piece| piece.last.as_slice() < key);
    let by_place = starts.partition_point(|start| *start <= from).saturating_sub(1);
    let at = by_key.max(by_place);
    let (Some(piece), Some(start)) = (pieces.get(at), starts.get(at)) else { return Ok(len.max(from)) };
    if from >= len {
        return Ok(from);
    }
    let base = piece.range.start;
    let found = piece.segment.lower_bound(key, base + from.saturating_sub(*start))?;
    Ok(start + (found.min(piece.range.end) - base))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(keys: Range<u64>, step: usize) -> Arc<Segment> {
        let mut writer = SegmentWriter::new(&Place::Memory).unwrap();
        for n in keys.step_by(step) {
            writer.push(&n.to_be_bytes(), RowDigest([u8::try_from(n % 251).unwrap(); 16])).unwrap();
        }
        Arc::new(writer.finish().unwrap())
    }

    /// Merges by hand: (source, its place, key) in key order.
    fn assemble(sources: &[Arc<Segment>], entries: &[(usize, u64, u64)]) -> Result<Vec<Piece>, RunError> {
        let mut run = Assembler::new(sources.to_vec(), &Place::Memory, Some(10));
        for (source, position, n) in entries {
            let digest = RowDigest([u8::try_from(n % 251).unwrap(); 16]);
            run.push(*source, *position, &n.to_be_bytes(), digest)?;
        }
        run.finish()
    }

    #[test]
    fn long_stretches_stay_where_they_are_and_short_ones_are_written() {
        // 0..50 of the first, then three of each in turn, then the rest of the second.
        let sources = [segment(0..53, 1), segment(53..200, 1)];
        let entries: Vec<_> = (0..53).map(|n| (0, n, n)).chain((53..200).map(|n| (1, n - 53, n))).collect();
        let pieces = assemble(&sources, &entries).unwrap();
        assert_eq!(pieces.iter().map(Piece::len).collect::<Vec<_>>(), [53, 147]);
        assert!(pieces.iter().zip(&sources).all(|(piece, source)| Arc::ptr_eq(&piece.segment, source)));

        let sources = [segment(0..400, 2), segment(1..400, 2)];
        let entries: Vec<_> = (0..400).map(|n| (usize::try_from(n % 2).unwrap(), n / 2, n)).collect();
        let pieces = assemble(&sources, &entries).unwrap();
        assert_eq!(pieces.iter().map(Piece::len).collect::<Vec<_>>(), [400]);
        assert!(!sources.iter().any(|source| Arc::ptr_eq(&pieces[0].segment, source)));
    }

    #[test]
    fn a_key_that_comes_again_is_an_error_also_between_stretches() {
        let sources = [segment(0..50, 1), segment(49..100, 1)];
        let entries: Vec<_> = (0..50).map(|n| (0, n, n)).chain((49..100).map(|n| (1, n - 49, n))).collect();
        assert!(matches!(assemble(&sources, &entries), Err(RunError::DuplicateKey { .. })));
    }
}
