//! Messages as bytes. Decoding takes nothing on trust: lengths are checked against what is there before anything is
//! allocated, and every value has one form.

use super::error::ProtocolError;
use super::message::{
    Answer, End, Frontier, Gap, List, Message, MissingRun, Mode, Open, Sketch, SketchCells, Window,
};
use crate::merkle::{EntryBatch, RootDigest, RowDigest, common_prefix, get_varint, put_varint};
use crate::model::Key;

pub(super) const VERSION: u8 = 1;

const OPEN: u8 = 1;
const EQUAL: u8 = 2;
const FRONTIER: u8 = 3;
const FINDINGS: u8 = 4;
const MISSING_RUN: u8 = 5;
const END: u8 = 6;
const CLOSED: u8 = 7;
const MORE: u8 = 8;
const SKETCH_CELLS: u8 = 9;
const STRANGERS: u8 = 10;
const FINER: u8 = 11;
const NAME: u8 = 12;
const NAMED: u8 = 13;
const LISTING: u8 = 14;

/// An element without its check.
const STRANGER: usize = 6;

/// Of the two lengths of a front-coded key, one is long.
const LONG: u8 = 0xf0;

// Options of an opener.
const BULK: u8 = 1;
const SKETCHES: u8 = 2;
const SKETCH: u8 = 4;

/// Front-coded keys unfold; a chunk may unfold to this and twice its own size.
const UNFOLDED_BYTES: usize = 128 * 1024;
/// Levels are zero bits of a 64-bit hash.
const MAX_LEVEL: u8 = 64;
const EDGES: u64 = 4 + MAX_LEVEL as u64 + 1;

impl Message {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match self {
            Self::Open(open) => {
                let options = u8::from(open.bulk) * BULK
                    + u8::from(open.sketches) * SKETCHES
                    + u8::from(open.sketch.is_some()) * SKETCH;
                out.extend_from_slice(&[OPEN, open.round, options]);
                out.extend_from_slice(open.root.as_bytes());
                put_varint(&mut out, open.count);
                put_window(&mut out, open.window);
                put_list(&mut out, open.window, &open.list);
                if let Some(sketch) = &open.sketch {
                    put_words(&mut out, &sketch.sums, 8);
                    put_bytes(&mut out, &sketch.counts);
                }
            }
            Self::Equal => out.push(EQUAL),
            Self::Frontier(frontier) => {
                out.push(FRONTIER);
                put_window(&mut out, frontier.window);
                put_varint(&mut out, frontier.replies.len() as u64);
                frontier.replies.iter().for_each(|gaps| put_reply(&mut out, frontier.window, gaps));
            }
            Self::Findings(entries) => {
                out.push(FINDINGS);
                put_entries(&mut out, entries);
            }
            Self::Name => out.push(NAME),
            Self::Named(entries) => {
                out.push(NAMED);
                put_entries(&mut out, entries);
            }
            Self::MissingRun(run) => {
                out.push(MISSING_RUN);
                put_varint(&mut out, u64::from(run.run_id));
                put_varint(&mut out, run.count);
                put_bytes(&mut out, run.first.as_bytes());
                put_bytes(&mut out, run.last.as_bytes());
            }
            Self::End(end) => {
                out.push(END);
                out.extend_from_slice(end.root.as_bytes());
                put_varint(&mut out, end.count);
            }
            Self::Closed => out.push(CLOSED),
            Self::Finer(steps) => out.extend_from_slice(&[FINER, *steps]),
            Self::More(to) => {
                out.push(MORE);
                put_varint(&mut out, u64::from(*to));
            }
            Self::SketchCells(cells) => {
                out.push(SKETCH_CELLS);
                put_varint(&mut out, u64::from(cells.from));
                put_words(&mut out, &cells.sums, 8);
            }
            Self::Listing => out.push(LISTING),
            Self::Strangers(elements) => {
                out.push(STRANGERS);
                put_words(&mut out, elements, STRANGER);
            }
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let mut input = Input { bytes, at: 0 };
        let found = input.byte()?;
        if found != VERSION {
            return Err(ProtocolError::Version { found, expected: VERSION });
        }
        let message = match input.byte()? {
            OPEN => {
                let round = input.byte()?;
                let options = input.byte()?;
                if options & !(BULK | SKETCHES | SKETCH) != 0 {
                    return Err(ProtocolError::Malformed("unknown option"));
                }
                let root = RootDigest(*input.array()?);
                let count = input.varint()?;
                let window = input.window()?;
                let mode = input.varint()?;
                let list = input.list(window, mode)?;
                let sketch = match options & SKETCH {
                    0 => None,
                    _ => Some(Sketch { sums: input.words(8)?, counts: input.length_and_bytes()?.to_vec() }),
                };
                let (bulk, sketches) = (options & BULK != 0, options & SKETCHES != 0);
                Self::Open(Open { round, root, count, bulk, window, list, sketches, sketch })
            }
            EQUAL => Self::Equal,
            FRONTIER => input.frontier()?,
            FINDINGS => Self::Findings(input.entries()?),
            NAME => Self::Name,
            NAMED => Self::Named(input.entries()?),
            MISSING_RUN => Self::MissingRun(MissingRun {
                run_id: u32::try_from(input.varint()?).map_err(|_| ProtocolError::Malformed("run number"))?,
                count: input.varint()?,
                first: Key::from(input.length_and_bytes()?),
                last: Key::from(input.length_and_bytes()?),
            }),
            END => Self::End(End { root: RootDigest(*input.array()?), count: input.varint()? }),
            CLOSED => Self::Closed,
            FINER => Self::Finer(input.byte()?),
            MORE => Self::More(input.small()?),
            SKETCH_CELLS => Self::SketchCells(SketchCells { from: input.small()?, sums: input.words(8)? }),
            LISTING => Self::Listing,
            STRANGERS => Self::Strangers(input.words(STRANGER)?),
            _ => return Err(ProtocolError::Malformed("unknown kind of message")),
        };
        if input.at == bytes.len() {
            Ok(message)
        } else {
            Err(ProtocolError::Malformed("bytes behind the end"))
        }
    }
}

fn put_window(out: &mut Vec<u8>, window: Window) {
    out.extend_from_slice(&[window.offset, window.node << 4 | window.entry]);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_words(out: &mut Vec<u8>, words: &[u64], width: usize) {
    put_varint(out, words.len() as u64);
    words.iter().for_each(|word| out.extend(word.to_le_bytes().iter().take(width)));
}

fn put_entries(out: &mut Vec<u8>, entries: &EntryBatch) {
    put_varint(out, entries.len() as u64);
    let mut before: &[u8] = &[];
    for (key, digest) in entries.iter() {
        let shared = common_prefix(before, key);
        put_lengths(out, shared, key.len() - shared);
        out.extend_from_slice(key.get(shared..).unwrap_or_default());
        out.extend_from_slice(&digest.0);
        before = key;
    }
}

/// How much of the key before is shared, and how much follows: half a byte each, or both as numbers behind `LONG`.
fn put_lengths(out: &mut Vec<u8>, shared: usize, rest: usize) {
    match (u8::try_from(shared), u8::try_from(rest)) {
        (Ok(shared @ 0..15), Ok(rest @ 0..16)) => out.push(shared << 4 | rest),
        _ => {
            out.push(LONG);
            put_varint(out, shared as u64);
            put_varint(out, rest as u64);
        }
    }
}

/// 0 absent, 1 facing, 2 entries, 3 yours, 4 and more: nodes of level 0 and more, `EDGES` and more: those of two ends.
fn put_list(out: &mut Vec<u8>, window: Window, list: &List) {
    let kind = match list.mode {
        Mode::Entries => 2,
        Mode::Yours => 3,
        Mode::Nodes(level) => 4 + u64::from(level),
        Mode::Edges { level, .. } => EDGES + u64::from(level),
    };
    put_varint(out, kind);
    match list.mode {
        Mode::Yours => return,
        Mode::Edges { left, .. } => put_varint(out, u64::from(left)),
        _ => {}
    }
    put_varint(out, list.items.len() as u64);
    let width = window.item_bytes(list.mode);
    for item in &list.items {
        out.extend(item.to_le_bytes().iter().take(width));
    }
}

pub(super) fn put_reply(out: &mut Vec<u8>, window: Window, gaps: &[Gap]) {
    put_varint(out, gaps.len() as u64);
    for gap in gaps {
        put_varint(out, u64::from(gap.skip));
        put_varint(out, u64::from(gap.len));
        match &gap.answer {
            Answer::Absent => put_varint(out, 0),
            Answer::Facing => put_varint(out, 1),
            Answer::Open(list) => put_list(out, window, list),
        }
    }
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], ProtocolError> {
        let end = self.at.checked_add(len).ok_or(ProtocolError::Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(ProtocolError::Truncated)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, ProtocolError> {
        self.array::<1>().map(|[byte]| *byte)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], ProtocolError> {
        self.take(N)?.first_chunk().ok_or(ProtocolError::Truncated)
    }

    fn varint(&mut self) -> Result<u64, ProtocolError> {
        get_varint(self.bytes, &mut self.at).ok_or(ProtocolError::Malformed("number"))
    }

    /// A count of things of at least `least` bytes each, all of which must be there.
    fn count(&mut self, least: usize) -> Result<usize, ProtocolError> {
        let count = usize::try_from(self.varint()?).map_err(|_| ProtocolError::Truncated)?;
        let needed = count.checked_mul(least).ok_or(ProtocolError::Truncated)?;
        if needed > self.bytes.len() - self.at { Err(ProtocolError::Truncated) } else { Ok(count) }
    }

    fn small(&mut self) -> Result<u32, ProtocolError> {
        u32::try_from(self.varint()?).map_err(|_| ProtocolError::Malformed("number"))
    }

    fn words(&mut self, width: usize) -> Result<Vec<u64>, ProtocolError> {
        let count = self.count(width)?;
        let words = self.take(count * width)?.chunks_exact(width);
        Ok(words.map(|word| word.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))).collect())
    }

    fn length_and_bytes(&mut self) -> Result<&'a [u8], ProtocolError> {
        let len = self.count(1)?;
        self.take(len)
    }

    fn window(&mut self) -> Result<Window, ProtocolError> {
        let [offset, widths] = *self.array()?;
        let window = Window { offset, node: widths >> 4, entry: widths & 0xf };
        if window.is_valid() { Ok(window) } else { Err(ProtocolError::Malformed("width of short digests")) }
    }

    fn list(&mut self, window: Window, kind: u64) -> Result<List, ProtocolError> {
        let mode = match kind {
            2 => Mode::Entries,
            3 => return Ok(List { mode: Mode::Yours, items: Vec::new() }),
            EDGES.. => return self.edges(window, kind - EDGES),
            _ => {
                let level = kind.checked_sub(4).and_then(|level| u8::try_from(level).ok());
                match level.filter(|level| *level <= MAX_LEVEL) {
                    Some(level) => Mode::Nodes(level),
                    None => return Err(ProtocolError::Malformed("unknown kind of list")),
                }
            }
        };
        let width = window.item_bytes(mode);
        Ok(List { mode, items: self.words(width)? })
    }

    fn edges(&mut self, window: Window, level: u64) -> Result<List, ProtocolError> {
        const BAD: ProtocolError = ProtocolError::Malformed("list of two ends");
        let level = u8::try_from(level).ok().filter(|level| *level <= MAX_LEVEL).ok_or(BAD)?;
        let left = self.small()?;
        let items = self.words(usize::from(window.node) + 1)?;
        let right = u32::try_from(items.len()).ok().and_then(|all| all.checked_sub(left));
        match right {
            Some(right) if left > 0 && right > 0 => {
                Ok(List { mode: Mode::Edges { level, left, right }, items })
            }
            _ => Err(BAD),
        }
    }

    fn frontier(&mut self) -> Result<Message, ProtocolError> {
        let window = self.window()?;
        let count = self.count(1)?;
        let mut replies = Vec::with_capacity(count);
        for _ in 0..count {
            let count = self.count(3)?;
            let mut gaps = Vec::with_capacity(count);
            for _ in 0..count {
                let small =
                    |n: u64| u32::try_from(n).map_err(|_| ProtocolError::Malformed("place in a list"));
                let (skip, len) = (small(self.varint()?)?, small(self.varint()?)?);
                let answer = match self.varint()? {
                    0 => Answer::Absent,
                    1 => Answer::Facing,
                    kind => Answer::Open(self.list(window, kind)?),
                };
                gaps.push(Gap { skip, len, answer });
            }
            replies.push(gaps);
        }
        Ok(Message::Frontier(Frontier { window, replies }))
    }

    fn lengths(&mut self) -> Result<(usize, usize), ProtocolError> {
        let both = self.byte()?;
        if both < LONG {
            return Ok((usize::from(both >> 4), usize::from(both & 0xf)));
        }
        let shared = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        let rest = self.count(1)?;
        if both > LONG || shared < 15 && rest < 16 {
            return Err(ProtocolError::Malformed("lengths of a key"));
        }
        Ok((shared, rest))
    }

    fn entries(&mut self) -> Result<EntryBatch, ProtocolError> {
        let count = self.count(17)?;
        let limit = UNFOLDED_BYTES.saturating_add(self.bytes.len() * 2);
        let mut entries = EntryBatch::with_capacity(count, 0);
        let mut key = Vec::new();
        for _ in 0..count {
            let (shared, rest) = self.lengths()?;
            let rest = self.take(rest)?;
            if shared > key.len() || common_prefix(key.get(shared..).unwrap_or_default(), rest) > 0 {
                return Err(ProtocolError::Malformed("front-coded key"));
            }
            key.truncate(shared);
            key.extend_from_slice(rest);
            if entries.key_bytes() + key.len() > limit {
                return Err(ProtocolError::Malformed("keys unfold beyond the limit"));
            }
            entries.push(&key, RowDigest(*self.array()?));
        }
        Ok(entries)
    }
}
