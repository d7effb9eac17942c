//! The descent: from the reply to a list, and the lists in it, to the next lists.

use std::collections::VecDeque;
use std::ops::Range;

use super::error::{LocateError, unexpected};
use super::facing::faces;
use super::frontier::{Compared, Width};
use super::locator::{Locator, MESSAGE_BYTES};
use super::message::{Answer, Frontier, Gap, List, Message, Mode, Window};
use super::spans::Faces;
use crate::merkle::RunView;

/// So few lists may show less of each digest.
const FEW_LISTS: usize = 8;

/// A list that was sent and waits for its reply.
pub(super) struct Asked {
    pub(super) rows: Range<u64>,
    mode: Mode,
    /// Lists in the reply are of a lower level.
    below: u8,
    /// How many lists of rows around these came before.
    step: u8,
}

/// How a segment is to be shown.
pub(super) struct Asking {
    pub(super) below: u8,
    pub(super) step: u8,
    pub(super) width: Width,
    pub(super) window: Window,
    /// Of a stretch that the peer hardly has, both ends are shown at once.
    pub(super) edges: bool,
}

impl<V: RunView> Locator<V> {
    pub(super) fn receive_frontier(&mut self, frontier: Frontier) -> Result<(), LocateError> {
        let theirs = frontier.window;
        let own = self.window;
        if ![own, own.narrow(), own.wide(), own.of_few()].contains(&theirs) {
            return Err(unexpected("frontier", "another width of short digests").into());
        }
        if frontier.replies.is_empty() || frontier.replies.len() > self.asked.len() {
            return Err(unexpected("frontier", "replies to lists that were not sent").into());
        }
        let mut segments = Vec::new();
        for gaps in frontier.replies {
            if let Some(asked) = self.asked.pop_front() {
                self.open_rows -= asked.rows.end - asked.rows.start;
                self.take_reply(asked, gaps, &mut segments)?;
            }
        }
        let any = |mode: fn(&Mode) -> bool| segments.iter().any(|segment| mode(&segment.list.mode));
        let window = if any(|mode| matches!(mode, Mode::Edges { .. })) {
            self.window.wide()
        } else if any(|mode| *mode == Mode::Yours) {
            self.window.of_few()
        } else {
            self.fine(segments.len())
        };
        let mut writer = FrontierWriter::new(window);
        for segment in segments {
            let (pieces, below, width) = match segment.list.mode {
                Mode::Yours => {
                    (vec![Compared::asked_for(segment.rows.clone())], segment.below, Width::ASKED_FOR)
                }
                Mode::Edges { level, left, .. } => {
                    let (piece, below) =
                        self.own.between(segment.rows.clone(), &segment.list, (level, left), theirs)?;
                    (vec![piece], below, Width::Paced)
                }
                Mode::Nodes(level) => {
                    (self.compare(segment.rows.clone(), &segment.list, theirs)?, level, Width::Paced)
                }
                Mode::Entries => {
                    (self.compare(segment.rows.clone(), &segment.list, theirs)?, segment.below, Width::Paced)
                }
            };
            let step = segment.step.saturating_add(1);
            let gaps = self.answer(pieces, &Asking { below, step, width, window, edges: false })?;
            writer.push(gaps, &mut self.outbox);
        }
        writer.finish(&mut self.outbox);
        self.look_whether_located();
        Ok(())
    }

    /// Reads the reply to one own list: what it settles, and the lists it holds.
    pub(super) fn take_reply(
        &mut self,
        asked: Asked,
        gaps: Vec<Gap>,
        segments: &mut Vec<Segment>,
    ) -> Result<(), LocateError> {
        let refused = |why| Err(unexpected("frontier", why).into());
        if asked.mode == Mode::Yours {
            // The one gap of such a reply is the whole segment.
            let mut gaps = gaps.into_iter();
            let (Some(Gap { skip: 0, len: 0, answer: Answer::Open(list) }), None) =
                (gaps.next(), gaps.next())
            else {
                return refused("no list where one was asked for");
            };
            return self.take_list(asked.rows, list, (asked.below, asked.step), false, segments);
        }
        let nodes = match asked.mode {
            Mode::Nodes(level) | Mode::Edges { level, .. } => {
                Some((level, self.own.tree.nodes(usize::from(level), asked.rows.clone())?))
            }
            _ => None,
        };
        let items = match (&nodes, asked.mode) {
            (_, Mode::Edges { left, right, .. }) => u64::from(left) + u64::from(right),
            (Some((_, nodes)), _) => nodes.len() as u64,
            (None, _) => asked.rows.end - asked.rows.start,
        };
        let mut at = 0u64;
        for gap in gaps {
            let start = at + u64::from(gap.skip);
            let end = start + u64::from(gap.len);
            if gap.len == 0 || end > items {
                return refused("a gap outside of the list");
            }
            at = end;
            let rows = match (&nodes, asked.mode) {
                (_, Mode::Edges { level, left, .. }) => {
                    self.own.edge_rows(&asked.rows, (level, left), items, start..end)?
                }
                (Some((level, nodes)), _) => {
                    let place =
                        |item: u64| usize::try_from(item).map_or(nodes.end, |item| nodes.start + item);
                    self.own.tree.span(usize::from(*level), place(start)..place(end))?
                }
                (None, _) => asked.rows.start + start..asked.rows.start + end,
            };
            match (gap.answer, &nodes) {
                (Answer::Absent, _) => self.unmatched.add(rows, Faces::Nothing),
                (Answer::Facing, _) => self.unmatched.add(rows, Faces::Many),
                (Answer::Open(list), Some((level, _))) => {
                    self.take_list(rows, list, (*level, asked.step.saturating_add(1)), true, segments)?
                }
                _ => return refused("an answer of the wrong kind"),
            }
        }
        Ok(())
    }

    pub(super) fn take_list(
        &self,
        rows: Range<u64>,
        list: List,
        (below, step): (u8, u8),
        yours_allowed: bool,
        segments: &mut Vec<Segment>,
    ) -> Result<(), LocateError> {
        let fits = match list.mode {
            Mode::Nodes(level) => level < below && !list.items.is_empty(),
            Mode::Edges { level, .. } => level < below && yours_allowed,
            Mode::Entries => !list.items.is_empty(),
            Mode::Yours => yours_allowed,
        };
        if !fits {
            return Err(unexpected("frontier", "a list that leads nowhere").into());
        }
        segments.push(Segment { rows, list, below, step });
        Ok(())
    }

    /// Compares a list of the peer with the own side of the segment. What is on the own side only is settled here.
    pub(super) fn compare(
        &mut self,
        rows: Range<u64>,
        list: &List,
        window: Window,
    ) -> Result<Vec<Compared>, LocateError> {
        let mut compared = self.own.compare(rows, list, window)?;
        compared.retain(|piece| {
            if piece.peer.is_empty() {
                self.unmatched.add(piece.rows.clone(), Faces::Nothing);
            }
            !piece.peer.is_empty()
        });
        for piece in &compared {
            if piece.is_final() {
                // Of nodes, nobody knows how many rows they are.
                let faces = match list.mode {
                    Mode::Entries => faces(piece.peer.len(), &piece.rows),
                    _ => Faces::Many,
                };
                self.unmatched.add(piece.rows.clone(), faces);
            }
        }
        Ok(compared)
    }

    /// Makes the reply to one list, and notes the lists it asks with.
    pub(super) fn answer(&mut self, pieces: Vec<Compared>, asking: &Asking) -> Result<Vec<Gap>, LocateError> {
        let (below, step) = (asking.below, asking.step);
        let mut gaps = Vec::with_capacity(pieces.len());
        let mut at = 0;
        let small =
            |n: usize| u32::try_from(n).map_err(|_| LocateError::Misuse("a list of four thousand million"));
        for piece in pieces {
            let answer = if piece.rows.is_empty() {
                Answer::Absent
            } else if piece.is_final() {
                Answer::Facing
            } else if piece.peer_is_small && !self.own.is_soon_shown(&piece.rows, below)? {
                let edges = match asking.edges {
                    true => self.own.edges(&piece.rows, below, asking.window)?,
                    false => None,
                };
                let list = edges.unwrap_or(List { mode: Mode::Yours, items: Vec::new() });
                self.note(piece.rows.clone(), list.mode, below, step);
                Answer::Open(list)
            } else {
                Answer::Open(self.ask(piece.rows.clone(), asking)?)
            };
            gaps.push(Gap { skip: small(piece.peer.start - at)?, len: small(piece.peer.len())?, answer });
            at = piece.peer.end;
        }
        Ok(gaps)
    }

    /// How much of each digest is shown in so many lists of this round.
    pub(super) fn fine(&self, lists: usize) -> Window {
        if self.round == 0 && lists <= FEW_LISTS { self.window.narrow() } else { self.window }
    }

    /// Lists the own side of a segment.
    pub(super) fn ask(&mut self, rows: Range<u64>, asking: &Asking) -> Result<List, LocateError> {
        let (below, step) = (asking.below, asking.step);
        let mode = self.own.choose(&rows, below, asking.width.nodes(rows.end - rows.start, step))?;
        let list = self.own.list(rows.clone(), mode, asking.window)?;
        self.note(rows, mode, below, step);
        Ok(list)
    }

    pub(super) fn note(&mut self, rows: Range<u64>, mode: Mode, below: u8, step: u8) {
        self.open_rows += rows.end - rows.start;
        self.asked.push_back(Asked { rows, mode, below, step });
    }
}

/// A list of the peer, and the own side of what it shows.
pub(super) struct Segment {
    rows: Range<u64>,
    list: List,
    below: u8,
    step: u8,
}

/// Collects replies into messages of bounded size.
pub(super) struct FrontierWriter {
    pub(super) window: Window,
    replies: Vec<Vec<Gap>>,
    bytes: usize,
}

impl FrontierWriter {
    pub(super) fn new(window: Window) -> Self {
        Self { window, replies: Vec::new(), bytes: 0 }
    }

    pub(super) fn push(&mut self, gaps: Vec<Gap>, outbox: &mut VecDeque<Message>) {
        self.bytes += 1;
        for gap in &gaps {
            self.bytes += 3;
            if let Answer::Open(list) = &gap.answer {
                self.bytes += 2 + list.items.len() * self.window.item_bytes(list.mode);
            }
        }
        self.replies.push(gaps);
        if self.bytes >= MESSAGE_BYTES {
            self.flush(outbox);
        }
    }

    fn flush(&mut self, outbox: &mut VecDeque<Message>) {
        self.bytes = 0;
        let replies = std::mem::take(&mut self.replies);
        outbox.push_back(Message::Frontier(Frontier { window: self.window, replies }));
    }

    pub(super) fn finish(mut self, outbox: &mut VecDeque<Message>) {
        if !self.replies.is_empty() {
            self.flush(outbox);
        }
    }
}
