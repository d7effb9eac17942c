//! The conversation over a sketch: what the target offers, what the source makes of it, and when to do without.

use super::error::{LocateError, unexpected};
use super::locator::{Locator, MESSAGE_BYTES, Phase};
use super::message::{List, Message, Open, Sketch, Symbols};
use super::sketch::{self, AHEAD, COUNTED, Decoder, OPENER, SYMBOLS_MAX};
use super::tell::Telling;
use crate::merkle::{RootDigest, RunView};

/// Smaller tables are listed for less.
const ROWS_MIN: u64 = 2_048;
/// An opener of `OPENER` symbols cannot hold more rows of one side than this.
const SURPLUS_MAX: u64 = OPENER as u64 / 2;
const SYMBOLS_PER_MESSAGE: usize = MESSAGE_BYTES / 8;
const STRANGERS_PER_MESSAGE: usize = MESSAGE_BYTES / 6;
/// Times that a source asks for more symbols before it descends instead.
const ASKS_MAX: u8 = 3;
/// Where as many rows differ on both sides, they are the same keys, nearly always: then the source's keys name the target's
/// rows too. Below, naming them costs little.
const STRANGERS_NAMED: usize = 300;

/// Target: what it knows of the source, and how far its sketch was sent.
pub(super) struct Offered {
    peer: Option<(RootDigest, u64)>,
    sent: u32,
    asks: u8,
    strangers: Option<Vec<u64>>,
    /// Made with the first, from 0.
    made: Vec<u64>,
}

impl Offered {
    pub(super) fn new(peer: Option<(RootDigest, u64)>) -> Self {
        Self { peer, sent: 0, asks: 0, strangers: None, made: Vec::new() }
    }
}

/// Source: symbols are on their way.
pub(super) struct Sketching {
    decoder: Decoder,
    /// What came of those that were asked for.
    received: Vec<u64>,
    wanted: u32,
    asks: u8,
    /// Own symbols, made with the first, from 0.
    made: Vec<u64>,
    /// The opener's own list, to descend from if the sketch comes to nothing.
    list: List,
}

impl<V: RunView> Locator<V> {
    /// Target: the source has so many rows more that no sketch is worth it, and they hardly lie scattered.
    pub(super) fn faces_holes(&self) -> bool {
        let own = self.own.len();
        let more = self.offered.peer.map_or(0, |(_, count)| count.saturating_sub(own));
        self.round == 0 && self.bulk && own >= ROWS_MIN && more > SURPLUS_MAX
    }

    /// Target: whether the source may ask for symbols, and the first of them.
    pub(super) fn offer(&mut self) -> Result<(bool, Option<Sketch>), LocateError> {
        let peer = self.offered.peer.take().filter(|_| self.round == 0);
        self.offered = Offered::new(None);
        let Some((root, count)) = peer else { return Ok((false, None)) };
        if root == self.own.tree.root() || count.min(self.own.len()) < ROWS_MIN {
            return Ok((false, None));
        }
        self.offered.asks = ASKS_MAX;
        if count.abs_diff(self.own.len()) > SURPLUS_MAX {
            return Ok((true, None));
        }
        let symbols = sketch::Symbols::of(self.own.view.as_ref(), 0, AHEAD)?;
        self.offered.sent = OPENER;
        let opener = OPENER as usize;
        let sums = symbols.sums.get(..opener).unwrap_or_default().to_vec();
        let counts = symbols.counts.get(opener - COUNTED..opener).unwrap_or_default().to_vec();
        self.offered.made = symbols.sums;
        Ok((true, Some(Sketch { sums, counts })))
    }

    /// Source: `false` where the sketch, or one still to be asked for, is not the way.
    pub(super) fn sketch(&mut self, open: &Open) -> Result<bool, LocateError> {
        let (mut decoder, mut made) = (Decoder::default(), Vec::new());
        let mut differing = self.own.len().abs_diff(open.count);
        if let Some(sketch) = &open.sketch {
            let len = u32::try_from(sketch.sums.len()).unwrap_or(u32::MAX);
            if len != OPENER || sketch.counts.len() != COUNTED {
                return Err(unexpected("open", "a sketch of another size").into());
            }
            let own = sketch::Symbols::of(self.own.view.as_ref(), 0, AHEAD)?;
            if decoder.take(&own.sums, &sketch.sums) {
                self.found(&decoder)?;
                return Ok(true);
            }
            let counted = len as usize - COUNTED;
            let surplus =
                i64::try_from(self.own.len()).unwrap_or(i64::MAX).saturating_sub_unsigned(open.count);
            let first = u32::try_from(counted).unwrap_or(0);
            let counts = own.counts.get(counted..len as usize).unwrap_or_default();
            differing = sketch::estimate(first, counts, &sketch.counts, surplus).saturating_mul(107) / 100;
            made = own.sums;
        }
        if self.is_clustered(&open.list)? {
            return Ok(false);
        }
        let wanted = sketch::enough(differing).max(u64::from(decoder.len()) * 3 / 2);
        // A list of all entries has four bytes of each.
        let affordable = u64::from(SYMBOLS_MAX).min(self.own.len().min(open.count) / 2);
        let Some(wanted) = u32::try_from(wanted).ok().filter(|wanted| u64::from(*wanted) <= affordable)
        else {
            return Ok(false);
        };
        self.outbox.push_back(Message::More(wanted));
        let list = open.list.clone();
        self.phase = Phase::Sketching(Box::new(Sketching {
            decoder,
            received: Vec::new(),
            wanted,
            asks: 1,
            made,
            list,
        }));
        Ok(true)
    }

    /// Few of the opener's nodes differ: what does lies side by side, and a descent is cheaper.
    fn is_clustered(&self, list: &List) -> Result<bool, LocateError> {
        let pieces = self.own.compare(0..self.own.len(), list, self.window)?;
        let differing: usize = pieces.iter().map(|piece| piece.peer.len().max(1)).sum();
        Ok(differing * 3 <= list.items.len())
    }

    pub(super) fn receive_symbols(&mut self, symbols: Symbols) -> Result<(), LocateError> {
        let refused = |why| Err(unexpected("symbols", why).into());
        let Phase::Sketching(sketching) = &mut self.phase else {
            return refused("not at this point of the conversation");
        };
        let before = sketching.decoder.len();
        let at = before as usize + sketching.received.len();
        if symbols.from as usize != at
            || symbols.sums.is_empty()
            || at + symbols.sums.len() > sketching.wanted as usize
        {
            return refused("others than were asked for");
        }
        sketching.received.extend(symbols.sums);
        if before as usize + sketching.received.len() < sketching.wanted as usize {
            return Ok(());
        }
        let own = match sketching.made.get(before as usize..sketching.wanted as usize) {
            Some(made) => made.to_vec(),
            None => sketch::Symbols::of(self.own.view.as_ref(), before, sketching.wanted)?.sums,
        };
        let peer = std::mem::take(&mut sketching.received);
        if sketching.decoder.take(&own, &peer) {
            let decoder = std::mem::take(&mut sketching.decoder);
            return self.found(&decoder);
        }
        let more = sketching.wanted.saturating_add(sketching.wanted / 6).min(SYMBOLS_MAX);
        if sketching.asks < ASKS_MAX && more > sketching.wanted {
            sketching.asks += 1;
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

    pub(super) fn receive_more(&mut self, to: u32) -> Result<(), LocateError> {
        if !self.is_offering() || self.offered.asks == 0 || to <= self.offered.sent || to > SYMBOLS_MAX {
            return Err(unexpected("more", "not at this point of the conversation").into());
        }
        self.offered.asks -= 1;
        let symbols = match self.offered.made.get(self.offered.sent as usize..to as usize) {
            Some(made) => made.to_vec(),
            None => sketch::Symbols::of(self.own.view.as_ref(), self.offered.sent, to)?.sums,
        };
        for sums in symbols.chunks(SYMBOLS_PER_MESSAGE) {
            let from = self.offered.sent;
            self.offered.sent += u32::try_from(sums.len()).unwrap_or(0);
            self.outbox.push_back(Message::Symbols(Symbols { from, sums: sums.to_vec() }));
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
