//! The conversation over a sketch: what the target offers, what the source makes of it, and when to do without.

use super::error::{LocateError, unexpected};
use super::locator::{Locator, MESSAGE_BYTES, Phase};
use super::message::{List, Message, Open, Sketch, SketchCells};
use super::sketch::{self, CELLS_MAX, Decoder};
use super::tell::Telling;
use crate::merkle::{RootDigest, RunView, Shape};

/// Smaller tables are listed for less.
const ROWS_MIN: u64 = 2_048;
/// An opener cannot hold many more rows of one side than this.
const SURPLUS_MAX: u64 = 450;
const CELLS_PER_MESSAGE: usize = MESSAGE_BYTES / 8;
const STRANGERS_PER_MESSAGE: usize = MESSAGE_BYTES / 6;
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
    /// The stage that was asked for, and what came of it.
    stage: u8,
    cells: u32,
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
        let opener = self.own.tree.opener();
        let sketch = if self.metered { Sketch::of(&opener.small()) } else { Sketch::of(opener) };
        self.offered.sent = u32::try_from(sketch.sums.len()).unwrap_or(0);
        Ok((true, Some(sketch)))
    }

    /// Source: `false` where the sketch, or one still to be asked for, is not the way.
    pub(super) fn sketch(&mut self, open: &Open) -> Result<bool, LocateError> {
        let mut decoder = Decoder::default();
        let mut differing = self.own.len().abs_diff(open.count);
        if let Some(sketch) = &open.sketch {
            let full = self.own.tree.opener();
            let own = if sketch.sums.len() < full.sums().len() { full.small() } else { full.clone() };
            let counts = own.counts().len() * Sketch::count_bytes(own.shape());
            if sketch.sums.len() != own.sums().len() || sketch.counts.len() != counts {
                return Err(unexpected("open", "a sketch of another size").into());
            }
            if decoder.take(own.shape(), own.sums(), &sketch.sums) {
                self.found(&decoder)?;
                return Ok(true);
            }
            let surplus =
                i64::try_from(self.own.len()).unwrap_or(i64::MAX).saturating_sub_unsigned(open.count);
            let estimate = sketch::estimate(&own, &sketch.counts, surplus);
            // What the opener could not hold is more than it can hold, whatever its counts say.
            differing = (estimate.saturating_mul(107) / 100).max(u64::from(decoder.len()) * 2 / 3);
        }
        if self.is_clustered(&open.list)? {
            return Ok(false);
        }
        // A list of all entries has four bytes of each.
        let affordable = u64::from(CELLS_MAX).min(self.own.len().min(open.count) / 2);
        let wanted = sketch::enough(differing);
        let Some(cells) = u32::try_from(wanted).ok().filter(|_| wanted <= affordable) else {
            return Ok(false);
        };
        self.outbox.push_back(Message::More(cells));
        let list = open.list.clone();
        let sketching = Sketching { decoder, stage: 1, cells, received: Vec::new(), list };
        self.phase = Phase::Sketching(Box::new(sketching));
        Ok(true)
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
            || at + cells.sums.len() > sketching.cells as usize
        {
            return refused("others than were asked for");
        }
        sketching.received.extend(cells.sums);
        if sketching.received.len() < sketching.cells as usize {
            return Ok(());
        }
        let own =
            sketch::cells_of(self.own.view.as_ref(), Shape::of_stage(sketching.stage, sketching.cells))?;
        let peer = std::mem::take(&mut sketching.received);
        if sketching.decoder.take(own.shape(), own.sums(), &peer) {
            let decoder = std::mem::take(&mut sketching.decoder);
            return self.found(&decoder);
        }
        // More differ than was thought: half as many cells again.
        let more = sketching.cells / 2;
        if sketching.stage < ASKS_MAX && sketching.decoder.len().saturating_add(more) <= CELLS_MAX {
            sketching.stage += 1;
            sketching.cells = more;
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
        places.iter().for_each(|place| self.unmatched.add(*place..place + 1, false));
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
        self.offered.sent += cells;
        let made = sketch::cells_of(self.own.view.as_ref(), Shape::of_stage(self.offered.asked, cells))?;
        let mut from = 0;
        for sums in made.sums().chunks(CELLS_PER_MESSAGE) {
            self.outbox.push_back(Message::SketchCells(SketchCells { from, sums: sums.to_vec() }));
            from += u32::try_from(sums.len()).unwrap_or(0);
        }
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
            places.iter().for_each(|place| self.unmatched.add(*place..place + 1, false));
        }
        Ok(())
    }
}
