//! Writing canonical bytes: straight from an engine's binary form where it has one.

use thiserror::Error;

use super::{IRREGULAR, REGULAR};
use crate::model::decimal::Decimal;
use crate::model::json::canonical_json;
use crate::model::value::StoredClass;

/// Payloads of a key's component that need no memory of their own to be escaped are shorter.
const FEW: usize = 16;
/// They take no more than this, with class, escapes and end. A power of two, by which a place in it is known to be one.
const FEW_ESCAPED: usize = 64;

/// A key column held NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a key column holds NULL")]
pub struct NullKey;

/// The canonical bytes of one row, reused from row to row.
#[derive(Default)]
pub struct RowBuffer {
    pub key: Vec<u8>,
    pub row: Vec<u8>,
}

impl std::fmt::Debug for RowBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RowBuffer({} + {} bytes)", self.key.len(), self.row.len())
    }
}

impl RowBuffer {
    pub fn clear(&mut self) {
        self.key.clear();
        self.row.clear();
    }

    /// The writer of the next key component.
    pub fn key_cell(&mut self) -> CellWriter<'_> {
        CellWriter { out: &mut self.key, in_key: true }
    }

    /// The writer of the next cell of the row.
    pub fn cell(&mut self) -> CellWriter<'_> {
        CellWriter { out: &mut self.row, in_key: false }
    }

    /// The writer of column `index` where the first `key_len` columns are the key.
    pub fn column(&mut self, index: usize, key_len: usize) -> CellWriter<'_> {
        if index < key_len { self.key_cell() } else { self.cell() }
    }
}

/// Writes one value: a component of a key, or a cell of a row.
#[derive(Debug)]
pub struct CellWriter<'a> {
    out: &'a mut Vec<u8>,
    in_key: bool,
}

impl CellWriter<'_> {
    /// A payload that tells its own end.
    #[inline]
    pub(super) fn fixed(self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.in_key {
            self.out.push(REGULAR);
            write(self.out);
        } else {
            self.framed(REGULAR, write);
        }
    }

    /// A payload of any bytes.
    #[inline]
    fn variable(self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.in_key {
            self.out.push(REGULAR);
            self.escaped(write);
        } else {
            self.framed(REGULAR, write);
        }
    }

    /// As `fixed`: the first `length` bytes of a few, which are copied all at once.
    #[inline]
    fn short<const N: usize>(self, length: u32, bytes: &[u8; N]) {
        debug_assert!(length < 0x3f && length as usize <= N);
        let head = if self.in_key { REGULAR } else { low_byte(length) * 2 + REGULAR };
        let end = self.out.len() + 1 + length as usize;
        self.out.reserve(1 + N);
        self.out.push(head);
        self.out.extend_from_slice(bytes);
        self.out.truncate(end);
    }

    #[inline]
    fn framed(self, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.out.len();
        self.out.push(0);
        write(self.out);
        let length = (self.out.len() - start - 1) * 2 + usize::from(kind);
        if let Ok(length @ ..0x80) = u8::try_from(length) {
            self.out[start] = length;
        } else {
            let mut header = [0u8; 10];
            let used = put_varint(&mut header, length as u64);
            self.out.splice(start..=start, header[..used].iter().copied());
        }
    }

    #[inline]
    fn escaped(self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.out.len();
        write(self.out);
        if self.out[start..].contains(&0) {
            escape(self.out, start);
        }
        self.out.extend_from_slice(&[0, 0]);
    }

    pub fn null(self) -> Result<(), NullKey> {
        if self.in_key {
            return Err(NullKey);
        }
        self.out.push(0);
        Ok(())
    }

    /// A value that does not fit the column's comparison type: kept as stored, and equal only to its like.
    pub fn irregular(self, class: StoredClass, bytes: &[u8]) {
        let write = |out: &mut Vec<u8>| out.extend_from_slice(bytes);
        if self.in_key {
            self.out.extend_from_slice(&[IRREGULAR, class as u8]);
            self.escaped(write);
        } else {
            self.framed(IRREGULAR, |out| {
                out.push(class as u8);
                write(out);
            });
        }
    }

    #[inline]
    pub fn int(self, value: i64) {
        let sign = value >> 63;
        let magnitude = value.unsigned_abs();
        let length = 8 - magnitude.leading_zeros() / 8;
        // Its bytes at the front; those behind them are cut off again.
        let shift = (64 - 8 * length) % 64;
        let bytes = ((magnitude ^ sign.cast_unsigned()) << shift).to_be_bytes();
        let tag = if value < 0 { 0x80 - length } else { 0x80 + length };
        self.short(length + 1, &with_front(tag, bytes));
    }

    #[inline]
    pub fn int128(self, value: i128) {
        self.fixed(|out| put_int(out, value));
    }

    pub fn decimal(self, value: &Decimal) {
        match value {
            Decimal::NegativeInfinity => self.fixed(|out| out.push(1)),
            Decimal::Infinity => self.fixed(|out| out.push(5)),
            Decimal::NaN => self.fixed(|out| out.push(6)),
            Decimal::Finite { negative, weight, digits } => {
                self.decimal_digits(*negative, *weight, digits.iter().copied());
            }
        }
    }

    /// A finite decimal by its base-10000 digits, none of them leading or trailing zeros.
    #[inline]
    pub fn decimal_digits(self, negative: bool, weight: i16, digits: impl ExactSizeIterator<Item = u16>) {
        if let count @ 1..=4 = digits.len() {
            let flip = if negative { u16::MAX } else { 0 };
            let mut bytes = [0u8; 14];
            let (head, rest) = bytes.split_at_mut(3);
            head[0] = if negative { 2 } else { 4 };
            head[1..].copy_from_slice(&(weight.cast_unsigned() ^ 1 << 15 ^ flip).to_be_bytes());
            let (places, _) = rest.as_chunks_mut::<2>();
            let digits = digits.map(|digit| digit + 1).chain(std::iter::once(0));
            for (place, digit) in places.iter_mut().zip(digits) {
                *place = (digit ^ flip).to_be_bytes();
            }
            return self.short(5 + 2 * u32::try_from(count).unwrap_or(0), &bytes);
        }
        self.fixed(|out| {
            if digits.len() == 0 {
                out.push(3);
                return;
            }
            out.push(if negative { 2 } else { 4 });
            let start = out.len();
            out.extend_from_slice(&flip_i16(weight));
            for digit in digits {
                out.extend_from_slice(&(digit + 1).to_be_bytes());
            }
            out.extend_from_slice(&[0, 0]);
            if negative {
                for byte in &mut out[start..] {
                    *byte = !*byte;
                }
            }
        });
    }

    pub fn float32(self, value: f32) {
        let bits = if value.is_nan() {
            f32::NAN.to_bits() & 0x7fff_ffff
        } else if value == 0.0 {
            0
        } else {
            value.to_bits()
        };
        let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        self.fixed(|out| out.extend_from_slice(&ordered.to_be_bytes()));
    }

    pub fn float64(self, value: f64) {
        self.short(8, &ordered_f64(value));
    }

    #[inline]
    pub fn bytes(self, value: &[u8]) {
        if let (false, Ok(length @ 0..0x3f)) = (self.in_key, u8::try_from(value.len())) {
            self.out.reserve(1 + value.len());
            self.out.push(length * 2 + REGULAR);
            self.out.extend_from_slice(value);
            return;
        }
        self.variable(|out| out.extend_from_slice(value));
    }

    /// Text under a comparison type's rule for trailing blanks.
    #[inline]
    pub fn text(self, value: &[u8], trim: bool) {
        let end =
            if trim { value.iter().rposition(|b| *b != b' ').map_or(0, |at| at + 1) } else { value.len() };
        self.bytes(&value[..end]);
    }

    #[inline]
    pub fn uuid(self, value: [u8; 16]) {
        self.short(16, &value);
    }

    #[inline]
    pub fn date(self, days: i32) {
        self.short(4, &(days.cast_unsigned() ^ 1 << 31).to_be_bytes());
    }

    /// Microseconds: a time, or a timestamp of either kind, already rounded.
    #[inline]
    pub fn micros(self, micros: i64) {
        self.short(8, &flip_i64(micros));
    }

    pub fn time_tz(self, micros: i64, west: i32) {
        self.fixed(|out| {
            out.extend_from_slice(&flip_i64(micros));
            out.extend_from_slice(&(west.cast_unsigned() ^ 1 << 31).to_be_bytes());
        });
    }

    pub fn interval(self, months: i32, days: i32, micros: i64) {
        self.fixed(|out| {
            out.extend_from_slice(&(months.cast_unsigned() ^ 1 << 31).to_be_bytes());
            out.extend_from_slice(&(days.cast_unsigned() ^ 1 << 31).to_be_bytes());
            out.extend_from_slice(&flip_i64(micros));
        });
    }

    /// JSON text; what is not JSON is kept as the irregular text it is.
    pub fn json(self, text: &str) {
        match canonical_json(text) {
            Some(json) => self.bytes(json.as_bytes()),
            None => self.irregular(StoredClass::Text, text.as_bytes()),
        }
    }

    /// An array; `write_item` is called once per element with its writer.
    pub fn array<E>(
        self,
        dims: &[(u32, i32)],
        items: usize,
        mut write_item: impl FnMut(usize, CellWriter<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut payload = Vec::new();
        let mut header = [0u8; 10];
        let used = put_varint(&mut header, dims.len() as u64);
        payload.extend_from_slice(&header[..used]);
        for (length, lower) in dims {
            payload.extend_from_slice(&length.to_be_bytes());
            payload.extend_from_slice(&lower.to_be_bytes());
        }
        for at in 0..items {
            write_item(at, CellWriter { out: &mut payload, in_key: false })?;
        }
        self.bytes(&payload);
        Ok(())
    }

    /// A double, compared at this width. One beyond the range of the narrower width, at either end, is none of its values: not
    /// infinite, and not zero.
    pub fn float(self, value: f64, bits: u8) {
        if bits == 32 {
            #[expect(clippy::cast_possible_truncation, reason = "compared at the narrower width")]
            let narrow = value as f32;
            let is_held = (narrow.is_finite() || !value.is_finite()) && (narrow != 0.0 || value == 0.0);
            if is_held {
                self.float32(narrow);
            } else {
                self.irregular(StoredClass::Real, &value.to_be_bytes());
            }
        } else {
            self.float64(value);
        }
    }

    #[inline]
    pub fn dynamic(self, class: StoredClass, payload: &[u8]) {
        if let (false, Ok(length @ 0..0x3e)) = (self.in_key, u8::try_from(payload.len())) {
            self.out.reserve(2 + payload.len());
            self.out.extend_from_slice(&[(length + 1) * 2 + REGULAR, class as u8]);
            self.out.extend_from_slice(payload);
        } else {
            self.dynamic_otherwise(class, payload);
        }
    }

    #[inline]
    pub fn dynamic_int(self, value: i64) {
        self.dynamic(StoredClass::Integer, &flip_i64(value));
    }

    #[inline]
    pub fn dynamic_real(self, value: f64) {
        self.dynamic(StoredClass::Real, &ordered_f64(value));
    }

    #[inline(never)]
    fn dynamic_otherwise(self, class: StoredClass, payload: &[u8]) {
        let start = self.out.len();
        if self.in_key && payload.len() < FEW {
            // A number, mostly: escaped as it is put down.
            self.out.resize(start + FEW_ESCAPED, 0);
            if let Some(bytes) = self.out[start..].first_chunk_mut() {
                // The same twice, once with a length that is known.
                let length = match <&[u8; 8]>::try_from(payload) {
                    Ok(number) => put_few(bytes, class, number),
                    Err(_) => put_few(bytes, class, payload),
                };
                self.out.truncate(start + length);
            }
            return;
        }
        self.variable(|out| {
            out.push(class as u8);
            out.extend_from_slice(payload);
        });
    }
}

/// A component of a few bytes behind their class, escaped; how long it is.
#[inline]
fn put_few(out: &mut [u8; FEW_ESCAPED], class: StoredClass, payload: &[u8]) -> usize {
    out[0] = REGULAR;
    // Classes are not zero.
    out[1] = class as u8;
    let mut at = 2;
    for byte in payload {
        out[at % FEW_ESCAPED] = *byte;
        out[(at + 1) % FEW_ESCAPED] = 0xff;
        at += 1 + usize::from(*byte == 0);
    }
    out[at % FEW_ESCAPED] = 0;
    out[(at + 1) % FEW_ESCAPED] = 0;
    at + 2
}

/// Puts `ff` behind every zero from `start` on.
fn escape(out: &mut Vec<u8>, start: usize) {
    let plain = out.split_off(start);
    for byte in plain {
        out.push(byte);
        if byte == 0 {
            out.push(0xff);
        }
    }
}

#[inline]
fn low_byte(value: u32) -> u8 {
    (value & 0xff) as u8
}

#[inline]
fn with_front(front: u32, bytes: [u8; 8]) -> [u8; 9] {
    let [a, b, c, d, e, f, g, h] = bytes;
    [low_byte(front), a, b, c, d, e, f, g, h]
}

#[inline]
fn put_int(out: &mut Vec<u8>, value: i128) {
    let magnitude = value.unsigned_abs();
    let length = u8::try_from((128 - magnitude.leading_zeros()).div_ceil(8)).unwrap_or(16);
    let bytes = if value < 0 { (!magnitude).to_be_bytes() } else { magnitude.to_be_bytes() };
    out.push(if value < 0 { 0x80 - length } else { 0x80 + length });
    out.extend_from_slice(&bytes[16 - usize::from(length)..]);
}

fn ordered_f64(value: f64) -> [u8; 8] {
    let bits = if value.is_nan() {
        f64::NAN.to_bits() & (u64::MAX >> 1)
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    };
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    ordered.to_be_bytes()
}

fn flip_i16(value: i16) -> [u8; 2] {
    (value.cast_unsigned() ^ 1 << 15).to_be_bytes()
}

fn flip_i64(value: i64) -> [u8; 8] {
    (value.cast_unsigned() ^ 1 << 63).to_be_bytes()
}

/// Little-endian base-128; returns the bytes used.
pub(super) fn put_varint(out: &mut [u8; 10], mut value: u64) -> usize {
    let mut used = 0;
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        out[used] = if value == 0 { low } else { low | 0x80 };
        used += 1;
        if value == 0 {
            return used;
        }
    }
}
