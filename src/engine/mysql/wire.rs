//! From the binary protocol's values straight to canonical bytes.

use std::sync::Arc;

use sqlx::mysql::{MySql, MySqlRow};
use sqlx::{Column as _, Decode, Row as _};

use super::column::{Width, Wire};
use super::digits::{put_decimal, put_int_decimal};
use super::lane::packets::{self, Definition};
use super::types::{charset_with_gaps, length_of};
use crate::engine::inflow::Frames;
use crate::engine::{EachRow, RawBatch, RowError};
use crate::model::temporal::{mysql_date, mysql_datetime, round_micros, round_time};
use crate::model::{CellWriter, ColumnType, ComparisonType, RowBuffer, StoredClass, TableAccess};

#[derive(Debug)]
struct ColumnDecoder {
    name: String,
    wire: Wire,
    comparison: ComparisonType,
    /// Of a bit string.
    width: usize,
    /// Values of any length: what a batch's size is measured by.
    variable: bool,
}

/// Decodes the rows of one result set.
#[derive(Debug)]
pub(super) struct RowDecoder {
    columns: Vec<ColumnDecoder>,
    key_len: usize,
}

impl RowDecoder {
    /// From the driver's account of a row.
    pub(super) fn of(access: &TableAccess, row: &MySqlRow) -> Result<Self, String> {
        Self::of_first(access, row, row.columns().len())
    }

    /// As `of`, where the row goes on behind so many columns.
    pub(super) fn of_first(access: &TableAccess, row: &MySqlRow, columns: usize) -> Result<Self, String> {
        let columns = row.columns().iter().take(columns);
        let found: Vec<_> = columns.map(|column| Wire::of(column.type_info())).collect();
        Self::new(access, &found)
    }

    /// From the protocol's account of a result.
    pub(super) fn defined(access: &TableAccess, definitions: &[Definition]) -> Result<Self, String> {
        let found: Vec<_> = definitions.iter().copied().map(Wire::defined).collect();
        Self::new(access, &found)
    }

    /// Names the column whose type is no longer what the plan was made from.
    fn new(access: &TableAccess, found: &[Option<Wire>]) -> Result<Self, String> {
        if found.len() != access.columns.len() {
            return Err("the result has another number of columns".to_owned());
        }
        let columns = access
            .columns
            .iter()
            .zip(found)
            .map(|(column, found)| {
                // Such texts are read as bytes, because not all of them are characters.
                let is_text = matches!(column.ty, ColumnType::Text { .. });
                let as_bytes = is_text && charset_with_gaps(&column.declared).is_some();
                let found = found.map(|wire| if as_bytes && wire == Wire::Bytes { Wire::Text } else { wire });
                let wire = found.filter(|wire| wire.fits(column)).ok_or_else(|| {
                    let now = found.map_or("of a type that is not read", Wire::name);
                    format!("column {} is now {now}", column.name)
                })?;
                Ok(ColumnDecoder {
                    name: column.name.clone(),
                    wire,
                    comparison: column.comparison.clone(),
                    width: length_of(&column.declared).unwrap_or(1),
                    variable: matches!(wire, Wire::Text | Wire::Bytes),
                })
            })
            .collect::<Result<Vec<_>, String>>()?;
        Ok(Self { columns, key_len: access.key_len })
    }

    /// About as many bytes as the row's values of variable length have.
    pub(super) fn weight(&self, row: &MySqlRow) -> usize {
        let variable = self.columns.iter().enumerate().filter(|(_, column)| column.variable);
        variable.map(|(at, _)| raw(row, at).map_or(0, <[u8]>::len)).sum::<usize>() + 16
    }

    /// A row of the driver's.
    pub(super) fn decode(&self, row: &MySqlRow, buffer: &mut RowBuffer) -> Result<(), RowError> {
        buffer.clear();
        for (at, column) in self.columns.iter().enumerate() {
            let writer = buffer.column(at, self.key_len);
            match raw(row, at) {
                None => writer.null().map_err(RowError::null_key(&column.name))?,
                Some(bytes) => column.whole(bytes, writer).ok_or_else(|| malformed(&column.name))?,
            }
        }
        Ok(())
    }

    /// A row as the server sent it: a zero, a bit for each column that is NULL (the first two are not used), the values.
    pub(super) fn packet(&self, body: &[u8], buffer: &mut RowBuffer) -> Result<(), RowError> {
        buffer.clear();
        let nulls = (self.columns.len() + 9) / 8;
        let Some(([0, nulls @ ..], mut rest)) = body.split_at_checked(1 + nulls) else {
            return Err(malformed("of no name"));
        };
        for (at, column) in self.columns.iter().enumerate() {
            let writer = buffer.column(at, self.key_len);
            if nulls.get((at + 2) / 8).is_none_or(|bits| bits >> ((at + 2) % 8) & 1 == 1) {
                writer.null().map_err(RowError::null_key(&column.name))?;
            } else {
                rest = column.next(rest, writer).ok_or_else(|| malformed(&column.name))?;
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(malformed("of no name")) }
    }
}

#[cold]
fn malformed(column: &str) -> RowError {
    RowError::Malformed {
        column: column.to_owned(),
        what: "the server sent a value of another form than its type".to_owned(),
    }
}

/// The bytes of a value; `None` for NULL. Not the driver's `is_null`, which holds zero dates to be NULL.
#[inline]
pub(super) fn raw(row: &MySqlRow, at: usize) -> Option<&[u8]> {
    <&[u8] as Decode<MySql>>::decode(row.try_get_raw(at).ok()?).ok()
}

/// The first bytes, and what is behind them.
macro_rules! take {
    ($bytes:ident, $ty:ty) => {{
        let (value, rest) = $bytes.split_first_chunk()?;
        (<$ty>::from_le_bytes(*value), rest)
    }};
}

impl ColumnDecoder {
    /// The value at the front of these bytes, and what is behind it.
    #[inline]
    fn next<'a>(&self, bytes: &'a [u8], writer: CellWriter<'_>) -> Option<&'a [u8]> {
        match self.wire {
            Wire::Decimal | Wire::Bit | Wire::Text | Wire::Bytes => {
                let (value, rest) = packets::encoded(bytes)?;
                self.encoded(value, writer)?;
                Some(rest)
            }
            _ => self.fixed(bytes, writer),
        }
    }

    /// A value that was already found.
    fn whole(&self, bytes: &[u8], writer: CellWriter<'_>) -> Option<()> {
        match self.wire {
            Wire::Decimal | Wire::Bit | Wire::Text | Wire::Bytes => self.encoded(bytes, writer),
            _ => self.fixed(bytes, writer)?.is_empty().then_some(()),
        }
    }

    /// A value whose end its type tells, or its first byte.
    #[inline]
    fn fixed<'a>(&self, bytes: &'a [u8], writer: CellWriter<'_>) -> Option<&'a [u8]> {
        use ComparisonType as C;
        Some(match self.wire {
            Wire::Signed(width) => {
                let (value, rest) = match width {
                    Width::One => {
                        let (value, rest) = take!(bytes, i8);
                        (i64::from(value), rest)
                    }
                    Width::Two => {
                        let (value, rest) = take!(bytes, i16);
                        (i64::from(value), rest)
                    }
                    Width::Four => {
                        let (value, rest) = take!(bytes, i32);
                        (i64::from(value), rest)
                    }
                    Width::Eight => take!(bytes, i64),
                };
                match &self.comparison {
                    C::Integer => writer.int(value),
                    C::Decimal { .. } => put_int_decimal(writer, value < 0, value.unsigned_abs())?,
                    other => writer.int_as(other, value),
                }
                rest
            }
            Wire::Unsigned(width) => {
                let (value, rest) = match width {
                    Width::One => {
                        let (value, rest) = take!(bytes, u8);
                        (u64::from(value), rest)
                    }
                    Width::Two => {
                        let (value, rest) = take!(bytes, u16);
                        (u64::from(value), rest)
                    }
                    Width::Four => {
                        let (value, rest) = take!(bytes, u32);
                        (u64::from(value), rest)
                    }
                    Width::Eight => take!(bytes, u64),
                };
                self.unsigned(value, writer)?;
                rest
            }
            Wire::Float => {
                let (value, rest) = take!(bytes, f32);
                match &self.comparison {
                    C::Float { bits: 32 } => writer.float32(value),
                    other => writer.real_as(other, f64::from(value)),
                }
                rest
            }
            Wire::Double => {
                let (value, rest) = take!(bytes, f64);
                writer.real_as(&self.comparison, value);
                rest
            }
            Wire::Date => {
                let (found, rest) = date_time(bytes)?;
                if self.comparison != C::Date {
                    return None;
                }
                writer.date(mysql_date(found.year, found.month, found.day)?);
                rest
            }
            Wire::DateTime => {
                let (found, rest) = date_time(bytes)?;
                let micros = mysql_datetime(found.year, found.month, found.day, found.micros)?;
                match &self.comparison {
                    C::Timestamp { .. } | C::TimestampTz { .. } if found.whole => writer.micros(micros),
                    C::Timestamp { digits, rounding } | C::TimestampTz { digits, rounding } => {
                        writer.micros(round_micros(micros, *digits, *rounding));
                    }
                    _ => return None,
                }
                rest
            }
            Wire::Time => {
                let (micros, rest) = time(bytes)?;
                match &self.comparison {
                    C::Time { digits, rounding } => writer.micros(round_time(micros, *digits, *rounding)),
                    _ => return None,
                }
                rest
            }
            Wire::Decimal | Wire::Bit | Wire::Text | Wire::Bytes => return None,
        })
    }

    /// A value that came behind its length.
    #[inline]
    fn encoded(&self, bytes: &[u8], writer: CellWriter<'_>) -> Option<()> {
        use ComparisonType as C;
        match self.wire {
            Wire::Text => self.text(bytes, writer),
            Wire::Decimal => return put_decimal(writer, &self.comparison, bytes),
            Wire::Bytes => match &self.comparison {
                C::Bytes => writer.bytes(bytes),
                C::Json => self.text(bytes, writer),
                other => writer.bytes_as(other, bytes),
            },
            Wire::Bit => {
                if bytes.len() > 8 {
                    return None;
                }
                let value = bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
                if self.comparison != C::Bits {
                    return self.unsigned(value, writer);
                }
                let mut text = [b'0'; 64];
                for (at, digit) in text.iter_mut().rev().enumerate() {
                    *digit += u8::from(value >> at & 1 == 1);
                }
                writer.bytes(text.get(64usize.checked_sub(self.width)?..)?);
            }
            _ => return None,
        }
        Some(())
    }

    #[inline]
    fn unsigned(&self, value: u64, writer: CellWriter<'_>) -> Option<()> {
        match (&self.comparison, i64::try_from(value)) {
            (ComparisonType::Integer, Ok(small)) => writer.int(small),
            (ComparisonType::Integer, Err(_)) => writer.int128(i128::from(value)),
            (ComparisonType::Decimal { .. }, _) => return put_int_decimal(writer, false, value),
            (other, Ok(small)) => writer.int_as(other, small),
            (other, Err(_)) => writer.text_as(other, &value.to_string()),
        }
        Some(())
    }

    #[inline]
    fn text(&self, bytes: &[u8], writer: CellWriter<'_>) {
        if let (true, ComparisonType::Text { trim }) = (bytes.is_ascii(), &self.comparison) {
            return writer.text(bytes, *trim);
        }
        match (std::str::from_utf8(bytes), &self.comparison) {
            (Ok(_), ComparisonType::Text { trim }) => writer.text(bytes, *trim),
            (Ok(text), other) => writer.text_as(other, text),
            (Err(_), _) => writer.irregular(StoredClass::Blob, bytes),
        }
    }
}

/// A date, and the microseconds of its day.
#[derive(Debug, PartialEq, Eq)]
struct DateTime {
    year: u16,
    month: u8,
    day: u8,
    micros: i64,
    /// Without parts of a second: nothing to round.
    whole: bool,
}

/// Behind a byte that tells how much of it was sent; and what is behind it.
#[inline]
fn date_time(bytes: &[u8]) -> Option<(DateTime, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (sent, rest) = rest.split_at_checked(usize::from(*length))?;
    let clock = |hour: u8, minute: u8, second: u8| {
        (i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second)) * 1_000_000
    };
    let (y1, y2, month, day, micros, parts) = match *sent {
        [y1, y2, month, day, h, m, s] => (y1, y2, month, day, clock(h, m, s), 0),
        [y1, y2, month, day, h, m, s, u1, u2, u3, u4] => {
            (y1, y2, month, day, clock(h, m, s), u32::from_le_bytes([u1, u2, u3, u4]))
        }
        [y1, y2, month, day] => (y1, y2, month, day, 0, 0),
        [] => (0, 0, 0, 0, 0, 0),
        _ => return None,
    };
    let (year, micros) = (u16::from_le_bytes([y1, y2]), micros + i64::from(parts));
    Some((DateTime { year, month, day, micros, whole: parts == 0 }, rest))
}

/// Signed microseconds, up to 838 hours; and what is behind them.
fn time(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (sent, rest) = rest.split_at_checked(usize::from(*length))?;
    let (head, micros) = match *sent {
        [] => return Some((0, rest)),
        [.., u1, u2, u3, u4] if sent.len() == 12 => {
            (sent.get(..8)?, i64::from(u32::from_le_bytes([u1, u2, u3, u4])))
        }
        _ => (sent, 0),
    };
    let [negative, d1, d2, d3, d4, h, m, s] = *head else { return None };
    let days = i64::from(u32::from_le_bytes([d1, d2, d3, d4]));
    let seconds = days * 86_400 + i64::from(h) * 3600 + i64::from(m) * 60 + i64::from(s);
    // Days come in four bytes: more than any count of microseconds holds.
    let total = seconds.checked_mul(1_000_000)?.checked_add(micros)?;
    Some((if negative == 0 { total } else { -total }, rest))
}

/// Rows of the driver's.
pub(super) struct MySqlBatch {
    pub decoder: Arc<RowDecoder>,
    pub rows: Vec<MySqlRow>,
}

impl RawBatch for MySqlBatch {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn encode(&self, each: EachRow<'_>) -> Result<(), RowError> {
        let mut buffer = RowBuffer::default();
        for row in &self.rows {
            self.decoder.decode(row, &mut buffer)?;
            each(&buffer.key, &buffer.row);
        }
        Ok(())
    }
}

/// Rows as the server sent them.
pub(super) struct Piece {
    pub decoder: Arc<RowDecoder>,
    pub frames: Frames,
    pub rows: usize,
}

impl RawBatch for Piece {
    fn rows(&self) -> usize {
        self.rows
    }

    fn encode(&self, each: EachRow<'_>) -> Result<(), RowError> {
        let mut buffer = RowBuffer::default();
        let mut rest = self.frames.bytes();
        while let Some((body, behind)) = packets::split(rest) {
            rest = behind;
            self.decoder.packet(&body, &mut buffer)?;
            each(&buffer.key, &buffer.row);
        }
        if rest.is_empty() { Ok(()) } else { Err(malformed("of no name")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_of_every_length() {
        let found = |bytes: &'static [u8]| {
            date_time(bytes).map(|(at, rest)| ((at.year, at.month, at.day), at.micros, at.whole, rest))
        };
        assert_eq!(found(&[0]), Some(((0, 0, 0), 0, true, &[][..])));
        assert_eq!(found(&[4, 0xe8, 0x07, 2, 29, 9]), Some(((2024, 2, 29), 0, true, &[9][..])));
        assert_eq!(
            found(&[7, 0xe8, 0x07, 2, 29, 1, 0, 1]),
            Some(((2024, 2, 29), 3_601_000_000, true, &[][..]))
        );
        assert_eq!(
            found(&[11, 0xe8, 0x07, 2, 29, 0, 0, 0, 0x40, 0x42, 0x0f, 0]),
            Some(((2024, 2, 29), 1_000_000, false, &[][..]))
        );
        assert_eq!(found(&[5, 0, 0, 0, 0]), None);
        assert_eq!(found(&[5, 0, 0, 0, 0, 0]), None);
        assert_eq!(found(&[]), None);
        assert_eq!(time(&[0]), Some((0, &[][..])));
        assert_eq!(time(&[8, 1, 1, 0, 0, 0, 0, 0, 1]), Some((-86_401_000_000, &[][..])));
        assert_eq!(time(&[12, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5]), Some((1, &[5][..])));
        assert_eq!(time(&[3, 0, 0, 0]), None);
    }

    fn decoder(columns: &[(Wire, ComparisonType)], key_len: usize) -> RowDecoder {
        let column = |(wire, comparison): &(Wire, ComparisonType)| ColumnDecoder {
            name: "c".to_owned(),
            wire: *wire,
            comparison: comparison.clone(),
            width: 1,
            variable: false,
        };
        RowDecoder { columns: columns.iter().map(column).collect(), key_len }
    }

    /// Eight columns, so that their NULLs take a second byte.
    fn wide() -> RowDecoder {
        use ComparisonType as C;
        let digits = crate::model::Rounding::HalfUp;
        decoder(
            &[
                (Wire::Signed(Width::Eight), C::Integer),
                (Wire::Unsigned(Width::One), C::Integer),
                (Wire::Text, C::Text { trim: false }),
                (Wire::Decimal, C::Decimal { scale: Some(2) }),
                (Wire::DateTime, C::Timestamp { digits: 0, rounding: digits }),
                (Wire::Date, C::Date),
                (Wire::Bytes, C::Bytes),
                (Wire::Double, C::Float { bits: 64 }),
            ],
            1,
        )
    }

    const ROW: &[u8] =
        b"\0\x20\x02\x05\0\0\0\0\0\0\0\xff\x02hi\x041.50\x07\xe8\x07\x02\x1d\x01\x02\x03\x04\xe8\x07\x02\x1d";

    #[test]
    fn a_packet_of_values() {
        // Of the columns 3 (counted from nought) and 7 the bits are set.
        let mut buffer = RowBuffer::default();
        let mut row = ROW.to_vec();
        row[1] = 0;
        row.splice(row.len().., *b"\x01z");
        wide().packet(&row, &mut buffer).unwrap();
        let mut expected = RowBuffer::default();
        expected.key_cell().int(5);
        expected.cell().int(255);
        expected.cell().text(b"hi", false);
        expected.cell().text_as(&ComparisonType::Decimal { scale: Some(2) }, "1.50");
        expected.cell().micros(mysql_datetime(2024, 2, 29, 3_723_000_000).unwrap());
        expected.cell().date(mysql_date(2024, 2, 29).unwrap());
        expected.cell().bytes(b"z");
        expected.cell().null().unwrap();
        assert_eq!((&buffer.key, &buffer.row), (&expected.key, &expected.row));
        for end in 0..row.len() {
            assert!(wide().packet(&row[..end], &mut buffer).is_err(), "{end}");
        }
        row.push(0);
        assert!(wide().packet(&row, &mut buffer).is_err());
        row[1] = 4;
        assert!(matches!(wide().packet(&row, &mut buffer), Err(RowError::NullKey { .. })));
    }

    proptest! {
        #[test]
        fn nothing_panics_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..14)) {
            let _ = (date_time(&bytes), time(&bytes));
        }

        #[test]
        fn nothing_panics_on_any_row(bytes in prop::collection::vec(any::<u8>(), 0..60), at in 0..34usize, byte: u8) {
            let _ = wide().packet(&bytes, &mut RowBuffer::default());
            let mut row = ROW.to_vec();
            row[at % ROW.len()] = byte;
            let _ = wide().packet(&row, &mut RowBuffer::default());
        }
    }
}
