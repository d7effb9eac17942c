//! Leaves of the tree: where a run of entries is cut, and the digest of what lies between two cuts.
//!
//! ```text
//! leaf := LEAF 000000, row count (four bytes, little-endian), (key hash, row digest)*, zeros to a whole block
//! ```
//! Whole blocks let many leaves be hashed side by side.

use std::path::Path;

use super::boundary::{LEAF_BITS, Mark};
use super::digest::{BLOCK, NodeDigest, RowDigest};
use super::many::ManyHasher;
use super::node::{Leaf, Leaves};
use super::segment::Place;
use super::tree::TreeKey;

/// Inner nodes and roots begin with another byte.
const LEAF: [u8; 8] = [0; 8];
/// Leaves hashed together.
const TOGETHER: usize = 1024;

/// Cuts a run of entries into leaves.
pub(super) struct LeafBuilder {
    key: TreeKey,
    pending: Vec<u8>,
    rows: u32,
    last: Mark,
}

impl LeafBuilder {
    pub(super) fn new(key: TreeKey) -> Self {
        Self { key, pending: LEAF.to_vec(), rows: 0, last: Mark { hash: 0, bits: 0, tag: 0 } }
    }

    /// `true` where this entry ends a leaf.
    #[inline]
    fn add(&mut self, key: &[u8], digest: RowDigest) -> bool {
        let mark = self.key.mark(key);
        let mut entry = [0; 24];
        let (hash, row) = entry.split_at_mut(8);
        hash.copy_from_slice(&mark.hash.to_le_bytes());
        row.copy_from_slice(&digest.0);
        self.pending.extend_from_slice(&entry);
        self.rows += 1;
        self.last = mark;
        mark.bits >= LEAF_BITS
    }

    /// The bytes of the leaf that ends here, and what it is besides its digest; then it is forgotten.
    fn cut<T>(&mut self, hash: impl FnOnce(&[u8]) -> T) -> (u64, Mark, T) {
        let length = self.pending.len().next_multiple_of(BLOCK);
        self.pending.resize(length, 0);
        if let Some(count) = self.pending.get_mut(4..8) {
            count.copy_from_slice(&self.rows.to_le_bytes());
        }
        let hashed = hash(&self.pending);
        self.pending.truncate(LEAF.len());
        (u64::from(std::mem::take(&mut self.rows)), self.last, hashed)
    }

    /// The leaf that this entry ends, if it ends one.
    pub(super) fn push(&mut self, key: &[u8], digest: RowDigest) -> Option<Leaf> {
        if self.add(key, digest) { self.finish() } else { None }
    }

    /// No entry waits for its leaf to end.
    pub(super) fn is_at_border(&self) -> bool {
        self.rows == 0
    }

    /// The leaf that the end of the run ends.
    pub(super) fn finish(&mut self) -> Option<Leaf> {
        if self.rows == 0 {
            return None;
        }
        let key = self.key.clone();
        let (rows, mark, digest) = self.cut(|bytes| key.hash(bytes));
        Some(Leaf { digest, rows, mark })
    }
}

/// As `LeafBuilder`, where nobody waits for each leaf: many are hashed at a time.
pub(super) struct ManyLeaves {
    builder: LeafBuilder,
    hasher: ManyHasher,
    waiting: Vec<(u64, Mark)>,
    leaves: Leaves,
}

impl ManyLeaves {
    pub(super) fn new(key: &TreeKey, place: &Place<'_>) -> Self {
        Self {
            builder: LeafBuilder::new(key.clone()),
            hasher: ManyHasher::new(key.node()),
            waiting: Vec::new(),
            leaves: Leaves::new(place),
        }
    }

    /// `true` where this entry ends a leaf.
    #[inline]
    pub(super) fn push(&mut self, key: &[u8], digest: RowDigest) -> bool {
        let ends = self.builder.add(key, digest);
        if ends {
            self.cut();
        }
        ends
    }

    /// Finished leaves go to a file of this folder.
    pub(super) fn move_to(&mut self, dir: &Path) {
        self.leaves.move_to(dir);
    }

    fn cut(&mut self) {
        let hasher = &mut self.hasher;
        let (rows, mark, ()) =
            self.builder.cut(|bytes| hasher.push(bytes.len() / BLOCK, |out| out.extend_from_slice(bytes)));
        self.waiting.push((rows, mark));
        if self.waiting.len() == TOGETHER {
            self.hash();
        }
    }

    fn hash(&mut self) {
        for ((rows, mark), hash) in self.waiting.drain(..).zip(self.hasher.take()) {
            self.leaves.push(Leaf { digest: NodeDigest(hash), rows, mark });
        }
    }

    pub(super) fn finish(mut self) -> Leaves {
        if !self.builder.is_at_border() {
            self.cut();
        }
        self.whole()
    }

    /// The leaves that entries have ended; those behind the last of them are left out.
    pub(super) fn whole(mut self) -> Leaves {
        self.hash();
        self.leaves
    }
}
