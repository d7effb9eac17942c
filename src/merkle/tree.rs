//! The Merkle tree over a digest run: leaves of about 16 rows, and above them one level per factor of two.
//!
//! Leaf = hash of the number, and the key hash and the row digest, of its rows (the key hash is there so that a root binds the
//! keys even where rows are known by digest only, as in an overlay of what a peer has told); inner node = hash of its children, a node with one child is
//! its child, root = hash of the row count and the top. Kept of each node, three bytes a row in all, are its digest, where it
//! ends, and eight bits of the key it ends with (its tag); where the run is on disk, so are they.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use super::boundary::{BoundaryKey, LEAF_BITS, Mark};
use super::coding::index;
use super::digest::{NodeDigest, RootDigest, RowDigest, SessionKey, first_16};
use super::error::RunError;
use super::leaf::LeafBuilder;
use super::many::ShortHasher;
use super::node::{Leaf, Level, Node, border, end_of};
use super::opener::Opener;
use super::segment::Place;

/// Nodes read together.
const NODES_READ: u64 = 256;

/// Leaves begin with a zero.
const INNER: u8 = 1;
const ROOT: u8 = 2;

/// The secrets a tree is built with.
#[derive(Clone)]
pub struct TreeKey {
    boundary: BoundaryKey,
    node: [u8; 32],
    short: ShortHasher,
}

impl TreeKey {
    pub fn new(session: &SessionKey, boundary: BoundaryKey) -> Self {
        let node = session.derive("trueup v1 tree nodes");
        Self { boundary, node, short: ShortHasher::new(&node) }
    }

    pub fn from_session(session: &SessionKey) -> Self {
        Self::new(session, BoundaryKey::from_session(session))
    }

    /// Zero bits of the key's boundary hash.
    pub(super) fn bits(&self, key: &[u8]) -> u8 {
        self.mark(key).bits
    }

    #[inline]
    pub(super) fn mark(&self, key: &[u8]) -> Mark {
        self.boundary.mark(key)
    }

    /// What nodes are hashed with.
    pub(super) fn node(&self) -> &[u8; 32] {
        &self.node
    }

    pub(super) fn hash(&self, tagged: &[u8]) -> NodeDigest {
        // Two or three children, mostly.
        let short = self.short.hash(tagged);
        NodeDigest(short.unwrap_or_else(|| first_16(blake3::keyed_hash(&self.node, tagged).as_bytes())))
    }

    fn root(&self, count: u64, top: Option<NodeDigest>) -> RootDigest {
        let mut hasher = blake3::Hasher::new_keyed(&self.node);
        hasher.update(&[ROOT]).update(&count.to_le_bytes());
        if let Some(top) = top {
            hasher.update(&top.0);
        }
        RootDigest(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for TreeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TreeKey(secret)")
    }
}

struct OpenNode {
    children: Vec<u8>,
    nodes: u64,
    last: Option<NodeDigest>,
}

/// Makes inner nodes of leaves; keeps them only where a tree is wanted and not just its root.
pub(super) struct NodeStack {
    key: TreeKey,
    /// Where the nodes are kept, if they are.
    keep: Option<Option<PathBuf>>,
    count: u64,
    open: Vec<OpenNode>,
    levels: Vec<Level>,
    last: (u8, u8),
    opener: Opener,
}

impl NodeStack {
    pub(super) fn new(key: TreeKey, keep: Option<&Place<'_>>) -> Self {
        let keep = keep.map(|place| match place {
            Place::Memory => None,
            Place::Scratch(dir) => Some(dir.to_path_buf()),
        });
        let opener = Opener::new();
        Self { key, keep, count: 0, open: Vec::new(), levels: Vec::new(), last: (0, 0), opener }
    }

    /// What the sketch that comes with the tree holds of some of its entries.
    pub(super) fn join(&mut self, part: &Opener) {
        self.opener.join(part);
    }

    pub(super) fn push(&mut self, leaf: Leaf) {
        self.push_node(0, leaf);
    }

    /// Every node up to this level is finished.
    pub(super) fn is_at_border(&self, level: usize) -> bool {
        self.open.iter().take(level + 1).all(|open| open.children.len() == 1)
    }

    /// Pushes a node of a level whole, where all below is finished. Only the root can be had then.
    pub(super) fn push_node(&mut self, level: usize, node: Leaf) {
        self.count += node.rows;
        self.last = (node.mark.tag, node.mark.bits);
        let closes = usize::from(node.mark.bits.saturating_sub(LEAF_BITS));
        let mut digest = node.digest;
        self.record(level, digest);
        // There are nodes below, and where it is only one, its digest is that of the node above it.
        self.open.iter_mut().take(level).for_each(|below| below.nodes += 2);
        for level in level + 1.. {
            self.adopt(level, digest);
            if level > closes {
                break;
            }
            match self.close(level) {
                Some(closed) => digest = closed,
                None => break,
            }
            self.record(level, digest);
        }
    }

    fn ensure(&mut self, level: usize) {
        while self.open.len() <= level {
            self.open.push(OpenNode { children: vec![INNER], nodes: 0, last: None });
            let place = self.keep.as_ref().and_then(Option::as_deref).map_or(Place::Memory, Place::Scratch);
            self.levels.push(Level::new(&place));
        }
    }

    fn adopt(&mut self, level: usize, child: NodeDigest) {
        self.ensure(level);
        if let Some(open) = self.open.get_mut(level) {
            open.children.extend_from_slice(&child.0);
        }
    }

    fn close(&mut self, level: usize) -> Option<NodeDigest> {
        let open = self.open.get_mut(level)?;
        let digest = match open.children.get(1..)? {
            [] => return None,
            only if only.len() == 16 => NodeDigest(only.try_into().ok()?),
            _ => self.key.hash(&open.children),
        };
        open.children.truncate(1);
        Some(digest)
    }

    fn record(&mut self, level: usize, digest: NodeDigest) {
        self.ensure(level);
        if let Some(open) = self.open.get_mut(level) {
            open.nodes += 1;
            open.last = Some(digest);
        }
        if self.keep.is_some()
            && let Some(kept) = self.levels.get_mut(level)
        {
            let (tag, bits) = self.last;
            kept.push(&Node { digest, end: self.count, tag, bits }.record());
        }
    }

    /// Ends every open node. The top is the first level that has one node only.
    fn close_all(&mut self) -> (usize, Option<NodeDigest>) {
        if self.count == 0 {
            return (0, None);
        }
        for level in 0.. {
            match self.open.get(level) {
                Some(open) if open.nodes == 1 => return (level + 1, open.last),
                _ => {}
            }
            let above = level + 1;
            self.ensure(above);
            if let Some(digest) = self.close(above) {
                self.record(above, digest);
                self.adopt(above + 1, digest);
            }
        }
        (0, None)
    }

    pub(super) fn root(mut self) -> RootDigest {
        let (_, top) = self.close_all();
        self.key.root(self.count, top)
    }

    pub(super) fn tree(mut self) -> Result<Tree, RunError> {
        let (height, top) = self.close_all();
        self.levels.truncate(height);
        let levels = self.levels.into_iter().map(Level::finish).collect::<Result<_, _>>()?;
        Ok(Tree {
            root: self.key.root(self.count, top),
            count: self.count,
            levels,
            key: self.key,
            opener: self.opener,
        })
    }
}

/// Builds a tree from entries in key order.
pub struct TreeBuilder {
    leaves: LeafBuilder,
    nodes: NodeStack,
}

impl TreeBuilder {
    pub fn new(key: &TreeKey) -> Self {
        let nodes = NodeStack::new(key.clone(), Some(&Place::Memory));
        Self { leaves: LeafBuilder::new(key.clone()), nodes }
    }

    pub fn push(&mut self, key: &[u8], digest: RowDigest) {
        self.nodes.opener.add(digest);
        if let Some(leaf) = self.leaves.push(key, digest) {
            self.nodes.push(leaf);
        }
    }

    pub fn finish(mut self) -> Result<Tree, RunError> {
        if let Some(leaf) = self.leaves.finish() {
            self.nodes.push(leaf);
        }
        self.nodes.tree()
    }
}

impl fmt::Debug for TreeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TreeBuilder({} rows in finished leaves)", self.nodes.count)
    }
}

/// Level 0 are the leaves; the highest level has one node. An empty table has no level.
pub struct Tree {
    root: RootDigest,
    count: u64,
    levels: Vec<Level>,
    key: TreeKey,
    opener: Opener,
}

impl Tree {
    pub fn root(&self) -> RootDigest {
        self.root
    }

    /// Rows under the root.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The first sketch over all entries.
    pub fn opener(&self) -> &Opener {
        &self.opener
    }

    /// Number of levels; a level above them would hold the same one node as the highest.
    pub fn height(&self) -> usize {
        self.levels.len()
    }

    fn level(&self, level: usize) -> Option<&Level> {
        self.levels.get(level).or(self.levels.last())
    }

    /// The nodes of a level that make up an entry range, which must begin and end on borders of that level.
    pub fn nodes(&self, level: usize, range: Range<u64>) -> Result<Range<usize>, RunError> {
        const OFF: RunError = RunError::Misuse("a range that does not end on node borders");
        if range.start >= range.end {
            return Ok(0..0);
        }
        let level = self.level(level).ok_or(OFF)?;
        let first = level.partition_point(|node| end_of(node) <= range.start)?;
        let last = level.partition_point(|node| end_of(node) < range.end)?;
        if last >= level.len()
            || border(level, first)? != range.start
            || border(level, last + 1)? != range.end
        {
            return Err(OFF);
        }
        Ok(index(first)..index(last) + 1)
    }

    /// The entries of the nodes `nodes` of a level.
    pub fn span(&self, level: usize, nodes: Range<usize>) -> Result<Range<u64>, RunError> {
        let Some(level) = self.level(level) else { return Ok(0..0) };
        Ok(border(level, nodes.start as u64)?..border(level, nodes.end as u64)?)
    }

    /// Digest and tag of a run of nodes of one level.
    pub fn summaries(&self, level: usize, nodes: Range<usize>) -> Result<Vec<(NodeDigest, u8)>, RunError> {
        let Some(level) = self.level(level) else { return Ok(Vec::new()) };
        let bytes = level.read(nodes.start as u64..nodes.end as u64)?;
        let summary = |record| {
            let Node { digest, tag, .. } = Node::of(record);
            (digest, tag)
        };
        Ok(bytes.as_chunks::<26>().0.iter().map(summary).collect())
    }

    pub(super) fn key(&self) -> &TreeKey {
        &self.key
    }

    /// Nodes of a level from `at` on, as they were finished, with the entries they cover; so many that reading them is quick,
    /// none behind the last.
    pub(super) fn finished(&self, level: usize, at: u64) -> Result<Vec<(Range<u64>, Leaf)>, RunError> {
        let Some(level) = self.levels.get(level).filter(|level| at < level.len()) else {
            return Ok(Vec::new());
        };
        let mut start = border(level, at)?;
        let bytes = level.read(at..level.len().min(at + NODES_READ))?;
        let leaf = |record| {
            let Node { digest, end, tag, bits } = Node::of(record);
            let span = start..end;
            start = end;
            // The hash itself has gone into the digest.
            (span.clone(), Leaf { digest, rows: span.end - span.start, mark: Mark { hash: 0, bits, tag } })
        };
        Ok(bytes.as_chunks::<26>().0.iter().map(leaf).collect())
    }
}

impl AsRef<Self> for Tree {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tree({} rows, {} levels, root {})", self.count, self.levels.len(), self.root)
    }
}
