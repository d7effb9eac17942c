//! The own side of a segment: what to show of it, and how a list of the peer compares with it.

use std::ops::Range;
use std::sync::Arc;

use super::align::{Aligner, Piece, split_by_tags};
use super::error::LocateError;
use super::message::{List, Mode, Window};
use crate::merkle::{LEAF_BITS, RunView, Tree};
use crate::model::Key;

/// So few rows are shown at once, without the levels between.
const ENTRIES_AT_ONCE: u64 = 32;
/// One side is taken for small where the other has so many times its rows (and more than a list of entries).
const LOPSIDED: u64 = 16;
const SOON_SHOWN: usize = 24;
/// So many nodes on both sides without a common node or border: the rows have nothing to do with each other.
const UNALIKE: usize = 64;
const READ_DIGESTS: u64 = 4096;

/// Lists of leaves are to be reached by this step of a segment (the first list is step 0), which leaves turns enough
/// for entries and findings within six round trips.
const LEAVES_BY_STEP: u8 = 7;

/// How many nodes are shown of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Width {
    Fixed(usize),
    /// As few as bring the segment down to leaves in time.
    Paced,
}

impl Width {
    /// Of the whole table, before anything is known.
    pub(super) const FIRST: Self = Self::Fixed(12);
    /// Of the whole table, where the source has many rows more: there are holes, and bytes are cheaper than turns.
    pub(super) const FIRST_OF_HOLES: Self = Self::Fixed(512);
    /// Of the small side of a segment: what differs is most likely one gap, and a few bytes find it.
    pub(super) const ASKED_FOR: Self = Self::Fixed(16);

    /// The source's first answer. Where nearly all of the table's first nodes differ, many rows do: wide at once.
    pub(super) fn after_open(segments: usize, items: usize) -> Self {
        if segments >= 4 && segments * 8 >= items * 7 {
            Self::Fixed((768 / segments).clamp(16, 192))
        } else {
            Self::Paced
        }
    }

    pub(super) fn nodes(self, rows: u64, step: u8) -> usize {
        match self {
            Self::Fixed(nodes) => nodes,
            Self::Paced => {
                // In quarters of a bit. One bit is added, since a changed row lies in a large node more often than in
                // a small one: of w nodes, the one it is in holds 2/w of the rows.
                let bits = (rows >> LEAF_BITS).max(1).ilog2();
                let steps = u32::from(LEAVES_BY_STEP.saturating_sub(step).max(1));
                let quarters = (4 * bits / steps + 4).clamp(12, 24);
                ((4 + (quarters % 4) as usize) << (quarters / 4)) / 4
            }
        }
    }
}

/// One side's digests, and what is read of them.
pub(super) struct Own<V> {
    pub(super) view: Arc<V>,
    pub(super) tree: Arc<Tree>,
}

/// A stretch that differs: items of the peer's list, and the own rows that lie there.
#[derive(Clone, Debug)]
pub(super) struct Compared {
    pub(super) peer: Range<usize>,
    pub(super) rows: Range<u64>,
    pub(super) peer_is_small: bool,
    settled: bool,
}

impl Compared {
    /// A segment that the peer wants listed.
    pub(super) fn asked_for(rows: Range<u64>) -> Self {
        Self { peer: 0..0, rows, peer_is_small: false, settled: false }
    }

    pub(super) fn between(peer: Range<usize>, rows: Range<u64>) -> Self {
        Self { peer, rows, peer_is_small: false, settled: false }
    }

    /// Needs a closer look.
    pub(super) fn is_open(&self) -> bool {
        !self.settled && !self.rows.is_empty()
    }

    /// Nothing more to compare, and both sides have rows.
    pub(super) fn is_final(&self) -> bool {
        self.settled && !self.rows.is_empty()
    }
}

impl<V: RunView> Own<V> {
    pub(super) fn len(&self) -> u64 {
        self.view.len()
    }

    pub(super) fn key_at(&self, at: u64) -> Result<Key, LocateError> {
        let mut found = None;
        self.view.for_each_entry(at..at + 1, &mut |key, _| {
            found = Some(Key::from(key));
            Ok(())
        })?;
        found.ok_or(LocateError::Misuse("an entry beyond the end of the run"))
    }

    /// The finest level below `below` that shows not much more than `width` nodes; entries where rows are few or
    /// levels are used up.
    pub(super) fn choose(&self, rows: &Range<u64>, below: u8, width: usize) -> Result<Mode, LocateError> {
        let most = width + width / 2;
        let nodes = |level: u8| self.tree.nodes(usize::from(level), rows.clone()).map(|nodes| nodes.len());
        if rows.end - rows.start <= ENTRIES_AT_ONCE || below == 0 {
            return Ok(Mode::Entries);
        }
        let mut level = 0;
        let mut count = nodes(level)?;
        if count < 2 {
            return Ok(Mode::Entries);
        }
        while count > most && level + 1 < below {
            let coarser = nodes(level + 1)?;
            if coarser < 2 {
                break;
            }
            level += 1;
            count = coarser;
        }
        Ok(Mode::Nodes(level))
    }

    /// A level below `below` has few nodes there, so that it costs little to show them even where the peer has less.
    pub(super) fn is_soon_shown(&self, rows: &Range<u64>, below: u8) -> Result<bool, LocateError> {
        let Some(level) = below.checked_sub(1) else { return Ok(false) };
        Ok(self.tree.nodes(usize::from(level), rows.clone())?.len() <= SOON_SHOWN)
    }

    pub(super) fn list(&self, rows: Range<u64>, mode: Mode, window: Window) -> Result<List, LocateError> {
        let items = match mode {
            Mode::Nodes(level) => {
                let nodes = self.tree.nodes(usize::from(level), rows)?;
                let summaries = self.tree.summaries(usize::from(level), nodes)?;
                summaries.into_iter().map(|(digest, tag)| window.of_node(digest, tag)).collect()
            }
            Mode::Entries => {
                let mut digests = Vec::new();
                self.view.digests(rows, &mut digests)?;
                digests.into_iter().map(|digest| window.of_entry(digest)).collect()
            }
            Mode::Edges { .. } | Mode::Yours => Vec::new(),
        };
        Ok(List { mode, items })
    }

    /// What differs between the peer's list and the own rows of the segment, in order.
    pub(super) fn compare(
        &self,
        rows: Range<u64>,
        list: &List,
        window: Window,
    ) -> Result<Vec<Compared>, LocateError> {
        match list.mode {
            Mode::Nodes(level) => self.compare_nodes(rows, list, level, window),
            _ => self.compare_entries(rows, list, window),
        }
    }

    fn compare_entries(
        &self,
        rows: Range<u64>,
        list: &List,
        window: Window,
    ) -> Result<Vec<Compared>, LocateError> {
        let mut aligner = Aligner::new(&list.items);
        let mut digests = Vec::new();
        let mut at = rows.start;
        while at < rows.end {
            let end = rows.end.min(at + READ_DIGESTS);
            digests.clear();
            self.view.digests(at..end, &mut digests)?;
            digests.iter().for_each(|digest| aligner.feed(window.of_entry(*digest)));
            at = end;
        }
        let compared = |piece: Piece| Compared {
            peer: piece.peer,
            rows: rows.start + piece.own.start..rows.start + piece.own.end,
            peer_is_small: false,
            settled: true,
        };
        Ok(aligner.gaps().into_iter().map(compared).collect())
    }

    fn compare_nodes(
        &self,
        rows: Range<u64>,
        list: &List,
        level: u8,
        window: Window,
    ) -> Result<Vec<Compared>, LocateError> {
        if rows.is_empty() {
            let peer = 0..list.items.len();
            return Ok(vec![Compared { peer, rows, peer_is_small: false, settled: false }]);
        }
        let nodes = self.tree.nodes(usize::from(level), rows.clone())?;
        let own: Vec<u64> = self.list(rows, list.mode, window)?.items;
        let mut aligner = Aligner::new(&list.items);
        own.iter().for_each(|item| aligner.feed(*item));
        let tags = |items: &[u64]| -> Vec<u8> { items.iter().map(|item| item.to_le_bytes()[0]).collect() };
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);

        let mut compared = Vec::new();
        for piece in aligner.gaps() {
            let own_items = place(piece.own.start)..place(piece.own.end);
            let mut add = |peer: Range<usize>, items: Range<usize>| -> Result<(), LocateError> {
                let rows =
                    self.tree.span(usize::from(level), nodes.start + items.start..nodes.start + items.end)?;
                let peer_rows = (peer.len() as u64) << (u32::from(LEAF_BITS) + u32::from(level)).min(40);
                let peer_is_small = rows.end - rows.start > peer_rows.saturating_mul(LOPSIDED);
                let settled = peer.len().min(items.len()) >= UNALIKE;
                compared.push(Compared { peer, rows, peer_is_small, settled });
                Ok(())
            };
            if piece.peer.is_empty() || own_items.is_empty() {
                add(piece.peer, own_items)?;
                continue;
            }
            let peer_tags = tags(list.items.get(piece.peer.clone()).unwrap_or_default());
            let own_tags = tags(own.get(own_items.clone()).unwrap_or_default());
            for (peer, items) in split_by_tags(&peer_tags, &own_tags) {
                add(
                    piece.peer.start + peer.start..piece.peer.start + peer.end,
                    own_items.start + items.start..own_items.start + items.end,
                )?;
            }
        }
        Ok(compared)
    }
}
