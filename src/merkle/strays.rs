//! Entries that lie out of the order in which a table was read, few among many: woven into strands, so that what they lie among is
//! neither merged nor read again. Where rows are updated, or deleted and put elsewhere, a table has some.

use std::sync::Arc;

use super::batch::EntryBatch;
use super::digest::RowDigest;
use super::error::RunError;
use super::opener::Opener;
use super::pieces::Piece;
use super::segment::{Place, Segment, SegmentWriter};

/// Each costs a look into a segment and a leaf that is made again, as much as merging some hundred.
const AMONG: u64 = 512;
/// They are held in memory, and each cuts a piece in two.
const MOST: u64 = 1 << 16;

/// In key order.
pub(super) struct Strays {
    segment: Arc<Segment>,
    entries: EntryBatch,
}

/// The strays that lie among the entries of one segment, each with the place that it goes before.
pub(super) struct Woven<'s> {
    strays: &'s Strays,
    first: usize,
    places: Vec<u64>,
    taken: usize,
}

impl Strays {
    /// Whether so many are few among so many others.
    pub(super) fn are_few(strays: usize, among: u64) -> bool {
        strays as u64 <= (among / AMONG).min(MOST)
    }

    /// The entries of all batches. The same key twice is an error.
    pub(super) fn of(batches: &[EntryBatch]) -> Result<Self, RunError> {
        let mut sorted: Vec<_> = batches.iter().flat_map(EntryBatch::iter).collect();
        sorted.sort_unstable_by(|a, b| a.0.cmp(b.0));
        let mut writer = SegmentWriter::new(&Place::Memory)?;
        let mut entries = EntryBatch::new();
        for (key, digest) in sorted {
            writer.push(key, digest)?;
            entries.push(key, digest);
        }
        Ok(Self { segment: Arc::new(writer.finish()?), entries })
    }

    pub(super) fn opener(&self) -> Opener {
        let mut opener = Opener::new();
        self.entries.iter().for_each(|(_, digest)| opener.add(digest));
        opener
    }

    /// Those from `first` on that lie before the key `until` (all, where there is none), with their places in `segment`.
    pub(super) fn among(
        &self,
        first: usize,
        segment: &Segment,
        until: Option<&[u8]>,
    ) -> Result<Woven<'_>, RunError> {
        let mut places = Vec::new();
        for at in first..self.entries.len() {
            let key = self.entries.key(at);
            if until.is_some_and(|until| key >= until) {
                break;
            }
            let place = segment.lower_bound(key, places.last().copied().unwrap_or(0))?;
            if place < segment.len() && segment.key_at(place)? == key {
                return Err(RunError::DuplicateKey { key: key.into() });
            }
            places.push(place);
        }
        Ok(Woven { strays: self, first, places, taken: 0 })
    }
}

impl Woven<'_> {
    /// The number of the first stray that lies behind all of these.
    pub(super) fn behind(&self) -> usize {
        self.first + self.places.len()
    }

    /// Where the next one goes.
    pub(super) fn next_place(&self) -> Option<u64> {
        self.places.get(self.taken).copied()
    }

    /// The next one, if it goes before this place or lies before it.
    pub(super) fn take(&mut self, place: u64) -> Option<(&[u8], RowDigest)> {
        if self.next_place()? > place {
            return None;
        }
        let at = self.first + self.taken;
        self.taken += 1;
        Some((self.strays.entries.key(at), self.strays.entries.digest(at)))
    }

    /// The segment, cut where they lie, and they between its parts.
    pub(super) fn pieces(&self, segment: &Arc<Segment>) -> Result<Vec<Piece>, RunError> {
        let mut pieces = Vec::new();
        let (mut from, mut number) = (0, self.first);
        let part = |from: u64, to: u64| {
            let last = segment.key_at(to - 1)?;
            Ok::<_, RunError>(Piece { segment: Arc::clone(segment), range: from..to, last })
        };
        for together in self.places.chunk_by(|a, b| a == b) {
            let (place, behind) = (together.first().copied().unwrap_or(from), number + together.len());
            if from < place {
                pieces.push(part(from, place)?);
            }
            pieces.push(Piece {
                segment: Arc::clone(&self.strays.segment),
                range: number as u64..behind as u64,
                last: self.strays.entries.key(behind - 1).to_vec(),
            });
            (from, number) = (place, behind);
        }
        if from < segment.len() {
            pieces.push(part(from, segment.len())?);
        }
        Ok(pieces)
    }
}
