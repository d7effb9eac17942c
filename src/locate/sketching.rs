//! The conversation over a sketch: what the target offers, what the source makes of it, and when to do without.

use super::error::{LocateError, unexpected};
use super::locator::{Locator, MESSAGE_BYTES, Phase};
use super::message::{List, Message, Open, Sketch, SketchCells};
use super::sketch::{self, CELLS_MAX, Decoder};
use super::spans::Faces;
use super::tell::Telling;
use crate::merkle::{RootDigest, RunView, Shape, finer_cells};

/// Smaller tables are listed for less.
const ROWS_MIN: u64 = 2_048;
/// An opener cannot hold many more rows of one side than this.
const SURPLUS_MAX: u64 = 450;
const CELLS_PER_MESSAGE: usize = MESSAGE_BYTES / 8;
const STRANGERS_PER_MESSAGE: usize = MESSAGE_BYTES / 6;
/// Entries of both sides that differ, from which on all are listed: so much of the larger table. A row that was changed is
/// two of them.
const LISTED_SHARE: u64 = 2;
/// Stages that a source asks for before it descends instead.
const ASKS_MAX: u8 = 3;
/// Where as many rows differ on both sides, they are the same keys, mostly: then the source's keys name the target's rows too,
/// and where they do not, the roots tell, and another round finds what is left. Below, naming them costs little.
const STRANGERS_NAMED: usize = 2_000;

/// Target: what it knows of the source, and how far its sketch was sent.
pub(super) struct Offered {
    peer: Option<(RootDigest, u64)>,
    /// Cells, of all stages.
    sent: u32,
    /// The source may ask for stages of a sketch.
    open: bool,
    asked: u8,
    strangers: Option<Vec<u64>>,
}

impl Offered {
    pub(super) fn new(peer: Option<(RootDigest, u64)>) -> Self {
        Self { peer, sent: 0, open: false, asked: 0, strangers: None }
    }
}

/// Source: cells are on their way.
pub(super) struct Sketching {
    decoder: Decoder,
    /// Stages asked for.
    asked: u8,
    /// The last of them, and what came of it.
    shape: Shape,
    /// The cells of the peer's opener, where finer ones were asked for.
    opener: Option<Vec<u64>>,
    wanted: u32,
    received: Vec<u64>,
    /// The opener's own list, to descend from if the sketch comes to nothing.
    list: List,
}

impl<V: RunView> Locator<V> {
    /// Target: the source has so many rows more that no sketch is worth it, and they hardly lie scattered.
    pub(super) fn faces_holes(&self) -> bool {
        let own = self.own.len();
        let more = self.offered.peer.map_or(0, |(_, count)| count.saturating_sub(own));
        self.round == 0 && self.bulk && !self.metered && own >= ROWS_MIN && more > SURPLUS_MAX
    }

    /// Target: whether the source may ask for cells of a sketch, and the first of them.
    pub(super) fn offer(&mut self) -> Result<(bool, Option<Sketch>), LocateError> {
        let peer = self.offered.peer.take().filter(|_| self.round == 0);
        self.offered = Offered::new(None);
        let Some((root, count)) = peer else { return Ok((false, None)) };
        if root == self.own.tree.root() || count.min(self.own.len()) < ROWS_MIN {
            return Ok((false, None));
        }
        self.offered.open = true;
        if count.abs_diff(self.own.len()) > SURPLUS_MAX {
            return Ok((true, None));
        }
        let shape = if self.metered { Shape::SMALL_OPENER } else { Shape::OPENER };
        let sketch = Sketch::of(self.own.tree.opener(), shape, count.min(self.own.len()));
        self.offered.sent = u32::try_from(sketch.sums.len()).unwrap_or(0);
        Ok((true, Some(sketch)))
    }

    /// Source: `false` where the sketch, or one still to be asked for, is not the way.
    pub(super) fn sketch(&mut self, open: &Open) -> Result<bool, LocateError> {
        let mut decoder = Decoder::default();
        let mut differing = self.own.len().abs_diff(open.count);
        if let Some(sketch) = &open.sketch {
            let opener = self.own.tree.opener();
            let small = sketch.sums.len() < Shape::OPENER.cells() as usize;
            let shape = if small { Shape::SMALL_OPENER } else { Shape::OPENER };
            let (own, counts) = (opener.cells(shape), opener.counts(shape));
            if sketch.sums.len() != own.sums().len()
                || sketch.counts.len()
                    != counts.len() * Sketch::count_bytes(shape, open.count.min(self.own.len()))
            {
                return Err(unexpected("open", "a sketch of another size").into());
            }
            if decoder.take(shape, own.sums(), &sketch.sums) {
                self.found(&decoder)?;
                return Ok(true);
            }
            let surplus =
                i64::try_from(self.own.len()).unwrap_or(i64::MAX).saturating_sub_unsigned(open.count);
            let estimate = sketch::estimate(shape, &counts, &sketch.counts, surplus);
            // What the opener could not hold is more than it can hold, whatever its counts say.
            differing = (estimate.saturating_mul(107) / 100).max(u64::from(decoder.len()) * 2 / 3);
        }
        if self.is_clustered(&open.list)? {
            return Ok(false);
        }
        if open.sketch.is_some() && differing >= self.own.len().max(open.count) / LISTED_SHARE {
            self.list_all();
            return Ok(true);
        }
        // A list of all entries has four bytes of each.
        let affordable = u64::from(CELLS_MAX).min(self.own.len().min(open.count) / 2);
        let opener = open.sketch.as_ref().map(|sketch| &sketch.sums);
        let finer = opener
            .filter(|sums| sums.len() == Shape::OPENER.cells() as usize)
            .zip(sketch::finer_enough(differing));
        let (shape, wanted, ask, opener) = if let Some((opener, steps)) = finer {
            let shape = Shape::finer(steps);
            let beyond = shape.cells() - Shape::OPENER.cells();
            (shape, beyond, Message::Finer(steps), Some(opener.clone()))
        } else {
            let Ok(cells) = u32::try_from(sketch::enough(differing)) else { return Ok(false) };
            (Shape::of_stage(1, cells), cells, Message::More(cells), None)
        };
        if u64::from(wanted) > affordable {
            return Ok(false);
        }
        self.outbox.push_back(ask);
        let (list, received) = (open.list.clone(), Vec::new());
        let sketching = Sketching { decoder, asked: 1, shape, opener, wanted, received, list };
        self.phase = Phase::Sketching(Box::new(sketching));
        Ok(true)
    }

    /// Source: a descent would end in a list of nearly all entries of both sides, so all of its own are its findings at once.
    fn list_all(&mut self) {
        self.unmatched.take();
        self.unmatched.add(0..self.own.len(), Faces::Many);
        self.outbox.push_back(Message::Listing);
        self.phase = Phase::Telling(Telling { spans: self.unmatched.take().into() });
    }

    /// Target: all of its entries may be without a match.
    pub(super) fn receive_listing(&mut self) -> Result<(), LocateError> {
        if !self.is_offering() || !self.offered.open || self.offered.sent == 0 {
            return Err(unexpected("listing", "not at this point of the conversation").into());
        }
        self.asked.clear();
        self.open_rows = 0;
        self.unmatched.take();
        self.unmatched.add(0..self.own.len(), Faces::Many);
        Ok(())
    }

    /// Few of the opener's nodes differ: what does lies side by side, and a descent is cheaper.
    fn is_clustered(&self, list: &List) -> Result<bool, LocateError> {
        let pieces = self.own.compare(0..self.own.len(), list, self.window)?;
        let differing: usize = pieces.iter().map(|piece| piece.peer.len().max(1)).sum();
        Ok(differing * 3 <= list.items.len())
    }

    pub(super) fn receive_cells(&mut self, cells: SketchCells) -> Result<(), LocateError> {
        let refused = |why| Err(unexpected("sketch cells", why).into());
        let Phase::Sketching(sketching) = &mut self.phase else {
            return refused("not at this point of the conversation");
        };
        let at = sketching.received.len();
        if cells.from as usize != at
            || cells.sums.is_empty()
            || at + cells.sums.len() > sketching.wanted as usize
        {
            return refused("others than were asked for");
        }
        sketching.received.extend(cells.sums);
        if sketching.received.len() < sketching.wanted as usize {
            return Ok(());
        }
        let (shape, received) = (sketching.shape, std::mem::take(&mut sketching.received));
        let decoded = if let Some(opener) = sketching.opener.take() {
            let Some(peer) = finer_cells(shape, &opener, &received) else {
                return refused("others than were asked for");
            };
            // They are the opener's own, each in parts: it has nothing to add.
            sketching.decoder = Decoder::default();
            sketching.decoder.take(shape, self.own.tree.opener().cells(shape).sums(), &peer)
        } else {
            let own = sketch::cells_of(self.own.view.as_ref(), shape)?;
            sketching.decoder.take(shape, own.sums(), &received)
        };
        if decoded {
            let decoder = std::mem::take(&mut sketching.decoder);
            return self.found(&decoder);
        }
        // More differ than was thought: half as many cells again.
        let more = shape.cells() / 2;
        if sketching.asked < ASKS_MAX && sketching.decoder.len().saturating_add(more) <= CELLS_MAX {
            sketching.asked += 1;
            sketching.shape = Shape::of_stage(sketching.asked, more);
            sketching.wanted = more;
            self.outbox.push_back(Message::More(more));
            return Ok(());
        }
        let list =
            std::mem::replace(&mut sketching.list, List { mode: super::Mode::Yours, items: Vec::new() });
        self.descend(&list)
    }

    /// Source: the differences are known; what is its own it tells, the rest it gives back.
    fn found(&mut self, decoder: &Decoder) -> Result<(), LocateError> {
        let (places, strangers) = sketch::resolve(self.own.view.as_ref(), &decoder.elements())?;
        places.iter().for_each(|place| self.unmatched.add(*place..place + 1, Faces::Many));
        if strangers.len() == places.len() && strangers.len() > STRANGERS_NAMED {
            self.outbox.push_back(Message::Strangers(Vec::new()));
        } else {
            let mut parts: Vec<&[u64]> = strangers.chunks(STRANGERS_PER_MESSAGE).collect();
            if parts.is_empty() {
                parts.push(&[]);
            }
            self.outbox.extend(parts.into_iter().map(|part| Message::Strangers(part.to_vec())));
        }
        self.phase = Phase::Telling(Telling { spans: self.unmatched.take().into() });
        Ok(())
    }

    /// Target: the opener's list is still open, nothing else is, and the source has offers left.
    fn is_offering(&self) -> bool {
        matches!(self.phase, Phase::Locating)
            && self.round == 0
            && self.asked.len() == 1
            && self.outbox.is_empty()
            && self.offered.strangers.is_none()
    }

    pub(super) fn receive_finer(&mut self, steps: u8) -> Result<(), LocateError> {
        if !self.is_offering()
            || !self.offered.open
            || self.offered.asked > 0
            || self.offered.sent != Shape::OPENER.cells()
            || !(1..=Shape::FINER_MAX).contains(&steps)
        {
            return Err(unexpected("finer", "not at this point of the conversation").into());
        }
        self.offered.asked = 1;
        let cells = self.own.tree.opener().beyond_opener(Shape::finer(steps));
        self.send_cells(&cells);
        Ok(())
    }

    fn send_cells(&mut self, cells: &[u64]) {
        let mut from = 0;
        for sums in cells.chunks(CELLS_PER_MESSAGE) {
            self.outbox.push_back(Message::SketchCells(SketchCells { from, sums: sums.to_vec() }));
            from += u32::try_from(sums.len()).unwrap_or(0);
        }
        self.offered.sent += from;
    }

    pub(super) fn receive_more(&mut self, cells: u32) -> Result<(), LocateError> {
        if !self.is_offering()
            || !self.offered.open
            || self.offered.asked >= ASKS_MAX
            || Shape::of_stage(self.offered.asked + 1, cells).cells() != cells
            || self.offered.sent.saturating_add(cells) > CELLS_MAX + Shape::OPENER.cells()
        {
            return Err(unexpected("more", "not at this point of the conversation").into());
        }
        self.offered.asked += 1;
        let made = sketch::cells_of(self.own.view.as_ref(), Shape::of_stage(self.offered.asked, cells))?;
        self.send_cells(made.sums());
        Ok(())
    }

    pub(super) fn receive_strangers(&mut self, elements: Vec<u64>) -> Result<(), LocateError> {
        let refused = |why| Err(unexpected("strangers", why).into());
        let offering = self.is_offering();
        match &mut self.offered.strangers {
            Some(strangers) if matches!(self.phase, Phase::Locating) => {
                if elements.is_empty() || strangers.len() + elements.len() > self.offered.sent as usize {
                    return refused("more than the sketch can hold");
                }
                strangers.extend(elements);
            }
            None if offering && self.offered.sent > 0 => {
                if elements.len() > self.offered.sent as usize {
                    return refused("more than the sketch can hold");
                }
                self.asked.clear();
                self.open_rows = 0;
                self.offered.strangers = Some(elements);
            }
            _ => return refused("not at this point of the conversation"),
        }
        Ok(())
    }

    /// Target: the entries that the source does not have.
    pub(super) fn look_up_strangers(&mut self) -> Result<(), LocateError> {
        let strangers = self.offered.strangers.take().unwrap_or_default();
        if !strangers.is_empty() {
            let (places, _) = sketch::resolve(self.own.view.as_ref(), &strangers)?;
            places.iter().for_each(|place| self.unmatched.add(*place..place + 1, Faces::Many));
        }
        Ok(())
    }
}
