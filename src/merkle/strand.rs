//! Entries that one reader brings in key order: written, cut into leaves and sketched as they come, so that where the strands of a
//! table lie one behind the other nothing is left to sort, to merge or to read again.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::batch::EntryBatch;
use super::error::RunError;
use super::leaf::{LeafBuilder, ManyLeaves};
use super::node::Leaves;
use super::opener::Opener;
use super::pieces::Piece;
use super::run::RunOptions;
use super::segment::{Place, Segment, SegmentWriter};
use super::tree::{NodeStack, TreeKey};

/// Takes entries as long as each key is greater than the one before it.
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

    /// Appends entries up to the first that is out of order; how many there are before it. The same key twice is an error.
    pub fn extend(&mut self, batch: &EntryBatch) -> Result<usize, RunError> {
        let mut taken = 0;
        for (key, digest) in batch.iter() {
            if !self.writer.push_next(key, digest)? {
                break;
            }
            self.opener.add(digest);
            if self.leaves.push(key, digest) {
                let at = self.writer.len();
                self.cut.get_or_insert(at..at).end = at;
            }
            taken += 1;
        }
        if self.writer.held_bytes() >= self.memory_bytes
            && let Some(dir) = self.dir.take()
        {
            self.writer.go_on_in(&dir)?;
            self.leaves.move_to(&dir);
        }
        Ok(taken)
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
        self.segment.len() == 0
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

/// One behind the other: the pieces of a run, and its nodes.
pub(super) fn join(
    strands: Vec<Strand>,
    key: &TreeKey,
    place: &Place<'_>,
) -> Result<(Vec<Piece>, NodeStack), RunError> {
    let mut nodes = NodeStack::new(key.clone(), Some(place));
    let mut seam = LeafBuilder::new(key.clone());
    let mut pieces = Vec::with_capacity(strands.len());
    for Strand { segment, cut, leaves, opener } in strands {
        let mut sew = |range: Range<u64>, nodes: &mut NodeStack| {
            let mut cursor = segment.entries(range)?;
            while cursor.advance()? {
                if let Some(leaf) = seam.push(cursor.key(), cursor.digest()) {
                    nodes.push(leaf);
                }
            }
            Ok(())
        };
        sew(0..cut.start, &mut nodes)?;
        let mut first = true;
        leaves.for_each(|leaf| {
            if !std::mem::take(&mut first) {
                nodes.push(leaf);
            }
        })?;
        sew(cut.end..segment.len(), &mut nodes)?;
        nodes.join(&opener);
        pieces.push(Piece { range: 0..segment.len(), last: segment.last().to_vec(), segment });
    }
    if let Some(leaf) = seam.finish() {
        nodes.push(leaf);
    }
    Ok((pieces, nodes))
}
