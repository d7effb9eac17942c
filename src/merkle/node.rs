//! The nodes of a tree's levels as records, and leaves that wait to be put under nodes.

use std::path::Path;

use super::boundary::Mark;
use super::column::Column;
use super::digest::NodeDigest;
use super::error::RunError;
use super::segment::Place;

/// Leaves moved together.
const LEAVES_TOGETHER: usize = 8192;

/// One finished leaf.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf {
    pub(super) digest: NodeDigest,
    pub(super) rows: u64,
    pub(super) mark: Mark,
}

/// The nodes of one level, in key order: 16 bytes of digest, 8 of where it ends, its tag, zero bits of its last key.
pub(super) type Level = Column<26>;

pub(super) struct Node {
    pub(super) digest: NodeDigest,
    /// Behind its last entry; of a leaf that waits, its rows.
    pub(super) end: u64,
    pub(super) tag: u8,
    pub(super) bits: u8,
}

impl Node {
    pub(super) fn record(&self) -> [u8; 26] {
        let mut record = [0; 26];
        let (digest, rest) = record.split_at_mut(16);
        digest.copy_from_slice(&self.digest.0);
        let (end, marks) = rest.split_at_mut(8);
        end.copy_from_slice(&self.end.to_le_bytes());
        marks.copy_from_slice(&[self.tag, self.bits]);
        record
    }

    pub(super) fn of(record: &[u8; 26]) -> Self {
        let (digest, rest) = record.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
        Self { digest: NodeDigest(*digest), end: end_of(record), tag: byte(rest, 8), bits: byte(rest, 9) }
    }
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or_default()
}

pub(super) fn end_of(record: &[u8; 26]) -> u64 {
    record.get(16..24).and_then(|end| end.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Leaves that wait to be put under nodes.
pub(super) struct Leaves(Column<26>);

impl Leaves {
    pub(super) fn new(place: &Place<'_>) -> Self {
        Self(Column::new(place))
    }

    pub(super) fn move_to(&mut self, dir: &Path) {
        self.0.move_to(dir);
    }

    pub(super) fn push(&mut self, leaf: Leaf) {
        // A leaf by itself ends where it has rows.
        let node = Node { digest: leaf.digest, end: leaf.rows, tag: leaf.mark.tag, bits: leaf.mark.bits };
        self.0.push(&node.record());
    }

    /// Hands all of them over, in their order.
    pub(super) fn for_each(self, mut each: impl FnMut(Leaf) -> Result<(), RunError>) -> Result<(), RunError> {
        let leaves = self.0.finish()?;
        for start in (0..leaves.len()).step_by(LEAVES_TOGETHER) {
            let bytes = leaves.read(start..leaves.len().min(start + LEAVES_TOGETHER as u64))?;
            for record in bytes.as_chunks::<26>().0 {
                let Node { digest, end, tag, bits } = Node::of(record);
                // The hash itself has gone into the leaf's digest.
                each(Leaf { digest, rows: end, mark: Mark { hash: 0, bits, tag } })?;
            }
        }
        Ok(())
    }
}

/// Where a node begins: where the one before it ends.
pub(super) fn border(level: &Level, node: u64) -> Result<u64, RunError> {
    match node.checked_sub(1) {
        Some(before) => Ok(end_of(&level.get(before)?)),
        None => Ok(0),
    }
}
