//! Entries that one reader brings in key order: written, cut into leaves and sketched as they come, so that where the strands of a
//! table lie one behind the other nothing is left to sort, to merge or to read again.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::batch::EntryBatch;
use super::digest::RowDigest;
use super::error::RunError;
use super::leaf::{LeafBuilder, ManyLeaves};
use super::node::Leaves;
use super::opener::Opener;
use super::pieces::Piece;
use super::run::RunOptions;
use super::segment::{Place, Segment, SegmentWriter};
use super::strays::{Strays, Woven};
use super::tree::{NodeStack, TreeKey};

/// Read at a time where leaves are made again: they are a block long, mostly.
const READ_BYTES: usize = 4 * 1024;

/// A strand does not end for so many: there may be a place that is in disorder.
const STRAYS_ALWAYS: usize = 1_024;
/// It does where they have long keys: they wait in memory.
const STRAYS_BYTES: usize = 2 << 20;

/// Takes entries whose key is greater than all before them.
pub struct StrandBuilder {
    memory_bytes: usize,
    /// Where entries go that memory does not hold; `None`: the next ones do already.
    dir: Option<PathBuf>,
    writer: SegmentWriter,
    leaves: ManyLeaves,
    opener: Opener,
    /// From the first border of leaves to the last.
    cut: Option<Range<u64>>,
}

impl StrandBuilder {
    pub fn new(key: &TreeKey, options: RunOptions) -> Self {
        Self {
            memory_bytes: options.memory_bytes,
            dir: Some(options.scratch_dir.unwrap_or_else(std::env::temp_dir)),
            writer: SegmentWriter::in_memory(),
            leaves: ManyLeaves::new(key, &Place::Memory),
            opener: Opener::new(),
            cut: None,
        }
    }

    /// Appends the entries that come in order; the others go to `strays`. The same key twice is an error, where it is seen.
    pub fn extend(&mut self, batch: &EntryBatch, strays: &mut EntryBatch) -> Result<(), RunError> {
        for (key, digest) in batch.iter() {
            if !self.writer.push_next(key, digest)? {
                strays.push(key, digest);
                continue;
            }
            self.opener.add(digest);
            if self.leaves.push(key, digest) {
                let at = self.writer.len();
                self.cut.get_or_insert(at..at).end = at;
            }
        }
        if self.writer.held_bytes() >= self.memory_bytes
            && let Some(dir) = self.dir.take()
        {
            self.writer.go_on_in(&dir)?;
            self.leaves.move_to(&dir);
        }
        Ok(())
    }

    /// Whether these strays are so few that the strand is worth while.
    pub fn goes_on_beside(&self, strays: &EntryBatch) -> bool {
        let few =
            strays.len() <= STRAYS_ALWAYS || Strays::are_few(strays.len() - STRAYS_ALWAYS, self.writer.len());
        few && strays.key_bytes() <= STRAYS_BYTES
    }

    pub fn finish(self) -> Result<Strand, RunError> {
        let end = self.writer.len();
        Ok(Strand {
            segment: Arc::new(self.writer.finish()?),
            cut: self.cut.unwrap_or(end..end),
            leaves: self.leaves.whole(),
            opener: self.opener,
        })
    }
}

impl fmt::Debug for StrandBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StrandBuilder({} entries)", self.writer.len())
    }
}

/// Entries in key order, and the leaves among them.
pub struct Strand {
    segment: Arc<Segment>,
    /// Leaves are finished from here to there; what is before and behind is part of leaves that others share.
    cut: Range<u64>,
    /// The first of them ends where the cut begins.
    leaves: Leaves,
    opener: Opener,
}

impl Strand {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> u64 {
        self.segment.len()
    }

    #[cfg(test)]
    pub(super) fn segment(&self) -> Arc<Segment> {
        Arc::clone(&self.segment)
    }

    pub(super) fn into_segment(self) -> Arc<Segment> {
        self.segment
    }

    pub(super) fn on_disk(&self) -> bool {
        self.segment.on_disk()
    }
}

impl fmt::Debug for Strand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Strand({} entries)", self.segment.len())
    }
}

/// Sorts strands, none of them empty; whether each ends before the next begins.
pub(super) fn in_line(strands: &mut [Strand]) -> bool {
    strands.sort_by(|a, b| a.segment.first().cmp(b.segment.first()));
    strands.is_sorted_by(|a, b| a.segment.last() < b.segment.first())
}

/// One behind the other, with strays among them: the pieces of a run, and its nodes.
pub(super) fn join(
    strands: Vec<Strand>,
    strays: &Strays,
    key: &TreeKey,
    place: &Place<'_>,
) -> Result<(Vec<Piece>, NodeStack), RunError> {
    let mut seam =
        Seam { nodes: NodeStack::new(key.clone(), Some(place)), leaves: LeafBuilder::new(key.clone()) };
    seam.nodes.join(&strays.opener());
    let mut pieces = Vec::with_capacity(strands.len());
    let mut strands = strands.into_iter().peekable();
    let mut number = 0;
    while let Some(Strand { segment, cut, leaves, opener }) = strands.next() {
        let behind = strands.peek().map(|next| next.segment.first());
        let mut woven = strays.among(number, &segment, behind)?;
        number = woven.behind();
        pieces.extend(woven.pieces(&segment)?);
        seam.sew(&segment, 0..cut.start, &mut woven)?;
        let mut first = true;
        let mut at = cut.start;
        leaves.for_each(|leaf| {
            if std::mem::take(&mut first) {
                return Ok(());
            }
            let span = at..at + leaf.rows;
            at = span.end;
            if woven.next_place().is_none_or(|place| place >= span.end) {
                seam.nodes.push(leaf);
                return Ok(());
            }
            seam.sew(&segment, span, &mut woven)
        })?;
        seam.sew(&segment, cut.end..segment.len(), &mut woven)?;
        while let Some((key, digest)) = woven.take(segment.len()) {
            seam.push(key, digest);
        }
        seam.nodes.join(&opener);
    }
    if let Some(leaf) = seam.leaves.finish() {
        seam.nodes.push(leaf);
    }
    Ok((pieces, seam.nodes))
}

/// Where leaves are made again.
struct Seam {
    nodes: NodeStack,
    leaves: LeafBuilder,
}

impl Seam {
    fn push(&mut self, key: &[u8], digest: RowDigest) {
        if let Some(leaf) = self.leaves.push(key, digest) {
            self.nodes.push(leaf);
        }
    }

    fn sew(&mut self, segment: &Segment, range: Range<u64>, woven: &mut Woven<'_>) -> Result<(), RunError> {
        let mut cursor = segment.cursor(range.clone(), READ_BYTES)?;
        for place in range {
            while let Some((key, digest)) = woven.take(place) {
                self.push(key, digest);
            }
            cursor.advance()?;
            self.push(cursor.key(), cursor.digest());
        }
        Ok(())
    }
}
