//! The protocol's packets: a length of three bytes, a number, a body; where a body is longer, the next packet goes on.

use std::borrow::Cow;

use super::LaneError;

/// Before each packet: a length and a number.
pub(super) const HEAD: usize = 4;
/// A packet of this length goes on in the next one.
const FULL: usize = 0xff_ffff;
/// A body that is longer than any server's largest is no body.
const BODY_MAX: usize = 1 << 31;
/// The first byte of what is not a row.
pub(super) const OK: u8 = 0;
pub(super) const END: u8 = 0xfe;
pub(super) const ERROR: u8 = 0xff;

/// The length of one packet, and its number.
#[inline]
fn head(bytes: &[u8]) -> Option<(usize, u8)> {
    let ([low, middle, high, number], _) = bytes.split_first_chunk::<HEAD>()?;
    Some((usize::from(*low) | usize::from(*middle) << 8 | usize::from(*high) << 16, *number))
}

/// Length of the body at the front with all its heads, if it is there to its end.
#[inline]
pub(super) fn whole(bytes: &[u8]) -> Result<Option<usize>, LaneError> {
    match head(bytes) {
        None => Ok(None),
        Some((FULL, _)) => whole_of_many(bytes),
        Some((length, _)) => Ok((bytes.len() >= HEAD + length).then_some(HEAD + length)),
    }
}

#[cold]
fn whole_of_many(bytes: &[u8]) -> Result<Option<usize>, LaneError> {
    let mut at = 0;
    loop {
        let Some((length, _)) = bytes.get(at..).and_then(head) else { return Ok(None) };
        at += HEAD + length;
        if at > BODY_MAX {
            return Err(LaneError::Protocol("the server sent a packet without end".to_owned()));
        }
        if length < FULL {
            return Ok((bytes.len() >= at).then_some(at));
        }
    }
}

/// The body at the front, and what is behind it; `None` where it is not there to its end.
#[inline]
pub(in crate::engine::mysql) fn split(bytes: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let (length, _) = head(bytes)?;
    let (_, rest) = bytes.split_at_checked(HEAD)?;
    let (body, behind) = rest.split_at_checked(length)?;
    if length < FULL { Some((Cow::Borrowed(body), behind)) } else { join(body, behind) }
}

#[cold]
fn join<'a>(first: &[u8], mut rest: &'a [u8]) -> Option<(Cow<'a, [u8]>, &'a [u8])> {
    let mut body = first.to_vec();
    loop {
        let (length, _) = head(rest)?;
        let (part, behind) = rest.get(HEAD..)?.split_at_checked(length)?;
        body.extend_from_slice(part);
        rest = behind;
        if length < FULL {
            return Some((Cow::Owned(body), rest));
        }
    }
}

/// The number of the last packet of a whole body.
pub(super) fn number(mut bytes: &[u8]) -> u8 {
    let mut last = 0;
    while let Some((length, number)) = head(bytes) {
        last = number;
        bytes = bytes.get(HEAD + length..).unwrap_or_default();
    }
    last
}

/// Writes a body as packets, numbered from `number` on.
pub(super) fn put(out: &mut Vec<u8>, mut number: u8, body: &[u8]) {
    // A last packet that is full is followed by an empty one.
    let more = body.len().is_multiple_of(FULL).then_some(&[][..]);
    for part in body.chunks(FULL).chain(more) {
        let [low, middle, high, ..] = part.len().to_le_bytes();
        out.extend_from_slice(&[low, middle, high, number]);
        out.extend_from_slice(part);
        number = number.wrapping_add(1);
    }
}

/// Bytes behind their length, and what is behind them.
#[inline]
pub(in crate::engine::mysql) fn encoded(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (first, rest) = bytes.split_first()?;
    if *first < 0xfb { rest.split_at_checked(usize::from(*first)) } else { long(*first, rest) }
}

fn long(first: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = longer(first, bytes)?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

/// A length that did not fit the first byte.
fn longer(first: u8, bytes: &[u8]) -> Option<(u64, &[u8])> {
    let count = match first {
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        _ => return None,
    };
    let (number, rest) = bytes.split_at_checked(count)?;
    Some((number.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)), rest))
}

/// A whole number of one byte or more.
pub(super) fn count(bytes: &[u8]) -> Option<u64> {
    match bytes.split_first()? {
        (first @ ..0xfb, _) => Some(u64::from(*first)),
        (first, rest) => longer(*first, rest).map(|(value, _)| value),
    }
}

/// A text row's values.
pub(super) fn texts(mut body: &[u8], columns: u64) -> Option<Vec<Option<String>>> {
    let mut row = Vec::new();
    for _ in 0..columns {
        if let Some((0xfb, rest)) = body.split_first() {
            row.push(None);
            body = rest;
        } else {
            let (value, rest) = encoded(body)?;
            row.push(Some(String::from_utf8_lossy(value).into_owned()));
            body = rest;
        }
    }
    body.is_empty().then_some(row)
}

/// The end of definitions or of rows.
pub(super) fn is_end(body: &[u8]) -> bool {
    body.first() == Some(&END) && body.len() < 9
}

/// What the server says went wrong: behind its mark a number, and a state that old servers and early errors lack.
pub(super) fn error(body: &[u8]) -> LaneError {
    let told = || {
        let (number, rest) = body.get(1..)?.split_first_chunk::<2>()?;
        let (state, message) = match rest.split_first() {
            Some((b'#', rest)) => rest.split_at_checked(5)?,
            _ => (&[][..], rest),
        };
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let number = u16::from_le_bytes(*number);
        Some(LaneError::Server { number, state: text(state), message: text(message) })
    };
    told().unwrap_or_else(|| LaneError::Protocol("the server sent an error without a number".to_owned()))
}

/// What a result says of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine::mysql) struct Definition {
    pub kind: u8,
    pub flags: u16,
    pub charset: u16,
}

impl Definition {
    /// Behind six names comes a block that tells its length: character set, width, type, flags, decimals.
    pub(super) fn parse(mut body: &[u8]) -> Option<Self> {
        for _ in 0..6 {
            (_, body) = encoded(body)?;
        }
        let (block, _) = encoded(body)?;
        match *block.first_chunk::<9>()? {
            [c1, c2, _, _, _, _, kind, f1, f2] => Some(Self {
                kind,
                flags: u16::from_le_bytes([f1, f2]),
                charset: u16::from_le_bytes([c1, c2]),
            }),
        }
    }
}
