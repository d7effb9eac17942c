//! The root a run would have after changes: computed as the changes stream by, without a copy of the run.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;

use super::batch::EntryBatch;
use super::boundary::LEAF_BITS;
use super::digest::{RootDigest, RowDigest};
use super::error::RunError;
use super::leaf::LeafBuilder;
use super::node::Leaf;
use super::tree::{NodeStack, Tree};
use super::view::RunView;

/// Level of the nodes that are taken over whole where no change touches them, some sixteen leaves each.
const WHOLE: usize = 4;
/// Entries of the run that are looked at together, so that dense changes cost one search for many.
const WINDOW: u64 = 64;

/// Takes changes in key order and gives the root. Leaves that no change touches are taken over from the tree.
pub struct OverlayRoot<V, T> {
    view: V,
    tree: T,
    leaves: LeafBuilder,
    nodes: NodeStack,
    /// First entry of the run that is not taken over yet, and the leaf it lies in.
    at: u64,
    leaf: u64,
    /// The node of level `WHOLE` that was looked at last.
    node: u64,
    /// Leaves of the tree, and such nodes, that were read together.
    leaves_ahead: Ahead,
    nodes_ahead: Ahead,
    window: EntryBatch,
    window_start: u64,
    last_key: Option<Vec<u8>>,
}

impl<V: RunView, T: AsRef<Tree>> OverlayRoot<V, T> {
    pub fn new(view: V, tree: T) -> Self {
        let key = tree.as_ref().key().clone();
        Self {
            view,
            tree,
            leaves: LeafBuilder::new(key.clone()),
            nodes: NodeStack::new(key, None),
            at: 0,
            leaf: 0,
            node: 0,
            leaves_ahead: Ahead::default(),
            nodes_ahead: Ahead::default(),
            window: EntryBatch::new(),
            window_start: 0,
            last_key: None,
        }
    }

    /// The entry of `key` becomes `digest`, or goes (`None`); a key that is not in the run is inserted.
    /// Gives what the run held for the key.
    pub fn apply(&mut self, key: &[u8], digest: Option<RowDigest>) -> Result<Option<RowDigest>, RunError> {
        match &mut self.last_key {
            Some(last) if last.as_slice() >= key => {
                return Err(RunError::Misuse("changes are not in key order"));
            }
            Some(last) => {
                last.clear();
                last.extend_from_slice(key);
            }
            None => self.last_key = Some(key.to_vec()),
        }
        let (position, held) = self.locate(key)?;
        self.take_over(position)?;
        if held.is_some() {
            self.skip_one()?;
        }
        if let Some(digest) = digest {
            let leaf = self.leaves.push(key, digest);
            self.close(leaf);
        }
        Ok(held)
    }

    pub fn finish(mut self) -> Result<RootDigest, RunError> {
        self.take_over(self.view.len())?;
        let leaf = self.leaves.finish();
        self.close(leaf);
        Ok(self.nodes.root())
    }

    fn close(&mut self, leaf: Option<Leaf>) {
        if let Some(leaf) = leaf {
            self.nodes.push(leaf);
        }
    }

    /// Where `key` is or would be, and what is held for it.
    fn locate(&mut self, key: &[u8]) -> Result<(u64, Option<RowDigest>), RunError> {
        if let Some(found) = self.locate_in_window(key) {
            return Ok(found);
        }
        let position = self.view.lower_bound(key, self.at)?;
        self.window = EntryBatch::new();
        self.window_start = position;
        let end = self.view.len().min(position.saturating_add(WINDOW));
        let window = &mut self.window;
        self.view.for_each_entry(position..end, &mut |key, digest| {
            window.push(key, digest);
            Ok(())
        })?;
        let held = (!self.window.is_empty() && self.window.key(0) == key).then(|| self.window.digest(0));
        Ok((position, held))
    }

    fn locate_in_window(&self, key: &[u8]) -> Option<(u64, Option<RowDigest>)> {
        let skipped = usize::try_from(self.at.checked_sub(self.window_start)?).ok()?;
        let (mut low, mut high) = (skipped, self.window.len());
        if low >= high {
            return None;
        }
        while low < high {
            let middle = low + (high - low) / 2;
            match self.window.key(middle).cmp(key) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Some((self.position(middle), Some(self.window.digest(middle)))),
                Ordering::Greater => high = middle,
            }
        }
        (low < self.window.len()).then(|| (self.position(low), None))
    }

    fn position(&self, in_window: usize) -> u64 {
        self.window_start + in_window as u64
    }

    /// The entries before `position` stay as they are.
    fn take_over(&mut self, position: u64) -> Result<(), RunError> {
        while self.at < position {
            if self.take_over_node(position)? {
                continue;
            }
            let (span, leaf) =
                self.next_leaf()?.ok_or(RunError::Misuse("tree and run do not belong together"))?;
            let whole = self.at == span.start && span.end <= position;
            if whole && self.leaves.is_at_border() && leaf.mark.bits >= LEAF_BITS {
                self.nodes.push(leaf);
                self.at = span.end;
            } else {
                let end = span.end.min(position);
                let (leaves, nodes, at) = (&mut self.leaves, &mut self.nodes, &mut self.at);
                self.view.for_each_entry(*at..end, &mut |key, digest| {
                    *at += 1;
                    if let Some(leaf) = leaves.push(key, digest) {
                        nodes.push(leaf);
                    }
                    Ok(())
                })?;
                if self.at != end {
                    return Err(RunError::Misuse("the run gave fewer entries than asked for"));
                }
            }
            if self.at == span.end {
                self.leaf += 1;
            }
        }
        Ok(())
    }

    /// Takes over a node with all its leaves, if one begins here and no change touches it.
    fn take_over_node(&mut self, position: u64) -> Result<bool, RunError> {
        if !self.leaves.is_at_border() || !self.nodes.is_at_border(WHOLE) {
            return Ok(false);
        }
        let tree = self.tree.as_ref();
        while let Some((span, node)) = self.nodes_ahead.get(tree, WHOLE, self.node)? {
            if span.start < self.at {
                self.node += 1;
                continue;
            }
            let finished = usize::from(node.mark.bits) >= usize::from(LEAF_BITS) + WHOLE;
            if span.start > self.at || span.end > position || !finished {
                break;
            }
            self.nodes.push_node(WHOLE, node);
            self.at = span.end;
            while let Some((leaf, _)) = self.leaves_ahead.get(tree, 0, self.leaf)?
                && leaf.end <= span.end
            {
                self.leaf += 1;
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// The leaf in which the next entry lies.
    fn next_leaf(&mut self) -> Result<Option<(Range<u64>, Leaf)>, RunError> {
        self.leaves_ahead.get(self.tree.as_ref(), 0, self.leaf)
    }

    fn skip_one(&mut self) -> Result<(), RunError> {
        self.at += 1;
        if let Some((span, _)) = self.next_leaf()?
            && self.at == span.end
        {
            self.leaf += 1;
        }
        Ok(())
    }
}

/// Nodes of one level that were read together.
#[derive(Default)]
struct Ahead {
    first: u64,
    nodes: Vec<(Range<u64>, Leaf)>,
}

impl Ahead {
    fn get(
        &mut self,
        tree: &Tree,
        level: usize,
        wanted: u64,
    ) -> Result<Option<(Range<u64>, Leaf)>, RunError> {
        let at = |first: u64| usize::try_from(wanted.checked_sub(first)?).ok();
        if let Some(found) = at(self.first).and_then(|at| self.nodes.get(at)) {
            return Ok(Some(found.clone()));
        }
        *self = Self { first: wanted, nodes: tree.finished(level, wanted)? };
        Ok(self.nodes.first().cloned())
    }
}

impl<V, T> fmt::Debug for OverlayRoot<V, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OverlayRoot(at entry {})", self.at)
    }
}

/// Root of the run with a sorted sequence of changes laid over it.
pub fn overlay_root<V, K>(
    view: V,
    tree: &Tree,
    changes: impl IntoIterator<Item = Result<(K, Option<RowDigest>), RunError>>,
) -> Result<RootDigest, RunError>
where
    V: RunView,
    K: AsRef<[u8]>,
{
    let mut overlay = OverlayRoot::new(view, tree);
    for change in changes {
        let (key, digest) = change?;
        overlay.apply(key.as_ref(), digest)?;
    }
    overlay.finish()
}
