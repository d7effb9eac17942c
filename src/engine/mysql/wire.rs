//! From the binary protocol's values straight to canonical bytes.

use std::sync::Arc;

use sqlx::mysql::{MySql, MySqlColumn, MySqlRow, MySqlTypeInfo};
use sqlx::{Column as _, Decode, Row as _, Type, TypeInfo as _};

use super::types::length_of;
use crate::engine::{EachRow, RawBatch, RowError};
use crate::model::decimal::Decimal;
use crate::model::temporal::{mysql_date, mysql_datetime, round_micros, round_time};
use crate::model::{
    AccessColumn, CellWriter, ColumnType, ComparisonType, RowBuffer, StoredClass, TableAccess,
};

/// How a column's values stand in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    /// Little-endian, 1 to 8 bytes.
    Signed,
    Unsigned,
    Float,
    Double,
    /// As text.
    Decimal,
    Date,
    DateTime,
    Time,
    /// Big-endian.
    Bit,
    /// UTF-8: the session's character set.
    Text,
    Bytes,
}

impl Wire {
    fn of(info: &MySqlTypeInfo) -> Option<Self> {
        let unsigned = [
            <u8 as Type<MySql>>::type_info(),
            <u16 as Type<MySql>>::type_info(),
            <u32 as Type<MySql>>::type_info(),
            <u64 as Type<MySql>>::type_info(),
        ]
        .contains(info);
        let name = info.name();
        Some(match name {
            "YEAR" => Self::Unsigned,
            _ if unsigned || name.ends_with(" UNSIGNED") => Self::Unsigned,
            "BOOLEAN" | "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT" => Self::Signed,
            "FLOAT" => Self::Float,
            "DOUBLE" => Self::Double,
            "DECIMAL" => Self::Decimal,
            "DATE" => Self::Date,
            "DATETIME" | "TIMESTAMP" => Self::DateTime,
            "TIME" => Self::Time,
            "BIT" => Self::Bit,
            "JSON" => Self::Text,
            "GEOMETRY" | "NULL" => return None,
            // The driver's names tell text from bytes by a flag that binary collations set too.
            _ if <str as Type<MySql>>::compatible(info) => Self::Text,
            _ => Self::Bytes,
        })
    }

    fn fits(self, column: &AccessColumn) -> bool {
        use ColumnType as T;
        if column.as_text {
            return self == Self::Text;
        }
        match &column.ty {
            T::Bool | T::Int { .. } => matches!(self, Self::Signed | Self::Unsigned),
            T::Decimal { .. } => self == Self::Decimal,
            T::Float { .. } => matches!(self, Self::Float | Self::Double),
            // MySQL's JSON and MariaDB's uuid are text on the wire, whatever character set they name.
            T::Json | T::Uuid => matches!(self, Self::Text | Self::Bytes),
            T::Text { .. } | T::Named(_) => self == Self::Text,
            T::Bytes => self == Self::Bytes,
            T::Bits => self == Self::Bit,
            T::Date => self == Self::Date,
            T::Time { .. } => self == Self::Time,
            T::Timestamp { .. } | T::TimestampTz { .. } => self == Self::DateTime,
            T::TimeTz { .. } | T::Interval | T::Array(_) | T::Unsupported(_) => false,
        }
    }
}

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
    /// Names the column whose type is no longer what the plan was made from.
    pub(super) fn new(access: &TableAccess, found: &[MySqlColumn]) -> Result<Self, String> {
        if found.len() != access.columns.len() {
            return Err("the result has another number of columns".to_owned());
        }
        let columns = access
            .columns
            .iter()
            .zip(found)
            .map(|(column, found)| {
                let wire = Wire::of(found.type_info())
                    .filter(|wire| wire.fits(column))
                    .ok_or_else(|| format!("column {} is now {}", column.name, found.type_info().name()))?;
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

    pub(super) fn decode(&self, row: &MySqlRow, buffer: &mut RowBuffer) -> Result<(), RowError> {
        buffer.clear();
        for (at, column) in self.columns.iter().enumerate() {
            let writer = buffer.column(at, self.key_len);
            match raw(row, at) {
                None => writer.null().map_err(RowError::null_key(&column.name))?,
                Some(bytes) => column.write(bytes, writer).ok_or_else(|| RowError::Malformed {
                    column: column.name.clone(),
                    what: "the server sent a value of another form than its type".to_owned(),
                })?,
            }
        }
        Ok(())
    }
}

/// The bytes of a value; `None` for NULL. Not the driver's `is_null`, which holds zero dates to be NULL.
#[inline]
pub(super) fn raw(row: &MySqlRow, at: usize) -> Option<&[u8]> {
    <&[u8] as Decode<MySql>>::decode(row.try_get_raw(at).ok()?).ok()
}

impl ColumnDecoder {
    #[inline]
    fn write(&self, bytes: &[u8], writer: CellWriter<'_>) -> Option<()> {
        use ComparisonType as C;
        match self.wire {
            Wire::Signed => {
                let value = match *bytes {
                    [a] => i64::from(i8::from_le_bytes([a])),
                    [a, b] => i64::from(i16::from_le_bytes([a, b])),
                    [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
                    _ => i64::from_le_bytes(bytes.try_into().ok()?),
                };
                match &self.comparison {
                    C::Integer => writer.int(value),
                    C::Decimal { .. } => put_int_decimal(writer, value < 0, value.unsigned_abs()),
                    other => writer.int_as(other, value),
                }
            }
            Wire::Unsigned => {
                let value = match *bytes {
                    [a] => u64::from(a),
                    [a, b] => u64::from(u16::from_le_bytes([a, b])),
                    [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
                    _ => u64::from_le_bytes(bytes.try_into().ok()?),
                };
                self.write_unsigned(value, writer);
            }
            Wire::Float => {
                let value = f32::from_le_bytes(bytes.try_into().ok()?);
                match &self.comparison {
                    C::Float { bits: 32 } => writer.float32(value),
                    other => writer.real_as(other, f64::from(value)),
                }
            }
            Wire::Double => {
                let value = f64::from_le_bytes(bytes.try_into().ok()?);
                writer.real_as(&self.comparison, value);
            }
            Wire::Decimal => return put_decimal(writer, &self.comparison, bytes),
            Wire::Date => {
                let (year, month, day, _) = date_time(bytes)?;
                match &self.comparison {
                    C::Date => writer.date(mysql_date(year, month, day)?),
                    _ => return None,
                }
            }
            Wire::DateTime => {
                let (year, month, day, micros) = date_time(bytes)?;
                let micros = mysql_datetime(year, month, day, micros)?;
                match &self.comparison {
                    C::Timestamp { digits, rounding } | C::TimestampTz { digits, rounding } => {
                        writer.micros(round_micros(micros, *digits, *rounding));
                    }
                    _ => return None,
                }
            }
            Wire::Time => match &self.comparison {
                C::Time { digits, rounding } => writer.micros(round_time(time(bytes)?, *digits, *rounding)),
                _ => return None,
            },
            Wire::Bit => {
                if bytes.len() > 8 {
                    return None;
                }
                let value = bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
                if self.comparison == C::Bits {
                    let mut text = [b'0'; 64];
                    for (at, digit) in text.iter_mut().rev().enumerate() {
                        *digit += u8::from(value >> at & 1 == 1);
                    }
                    writer.bytes(text.get(64usize.checked_sub(self.width)?..)?);
                } else {
                    self.write_unsigned(value, writer);
                }
            }
            Wire::Text => self.write_text(bytes, writer),
            Wire::Bytes if matches!(self.comparison, C::Bytes) => writer.bytes(bytes),
            Wire::Bytes if matches!(self.comparison, C::Json) => self.write_text(bytes, writer),
            Wire::Bytes => writer.bytes_as(&self.comparison, bytes),
        }
        Some(())
    }

    #[inline]
    fn write_unsigned(&self, value: u64, writer: CellWriter<'_>) {
        match (&self.comparison, i64::try_from(value)) {
            (ComparisonType::Integer, Ok(small)) => writer.int(small),
            (ComparisonType::Integer, Err(_)) => writer.int128(i128::from(value)),
            (ComparisonType::Decimal { .. }, _) => put_int_decimal(writer, false, value),
            (other, Ok(small)) => writer.int_as(other, small),
            (other, Err(_)) => writer.text_as(other, &value.to_string()),
        }
    }

    #[inline]
    fn write_text(&self, bytes: &[u8], writer: CellWriter<'_>) {
        match (std::str::from_utf8(bytes), &self.comparison) {
            (Ok(_), ComparisonType::Text { trim }) => writer.text(bytes, *trim),
            (Ok(text), other) => writer.text_as(other, text),
            (Err(_), _) => writer.irregular(StoredClass::Blob, bytes),
        }
    }
}

/// An integer's base-10000 digits, without allocation.
fn put_int_decimal(writer: CellWriter<'_>, negative: bool, mut rest: u64) {
    let mut digits = [0u16; 5];
    let mut groups = 0u8;
    let mut trailing = 0u8;
    for slot in digits.iter_mut().rev() {
        if rest == 0 {
            break;
        }
        *slot = u16::try_from(rest % 10_000).unwrap_or(0);
        trailing += u8::from(*slot == 0 && trailing == groups);
        groups += 1;
        rest /= 10_000;
    }
    let (first, last) = (5 - usize::from(groups), 5 - usize::from(trailing));
    let found = digits.get(first..last).unwrap_or_default();
    writer.decimal_digits(negative, i16::from(groups) - 1, found.iter().copied());
}

/// The text of a DECIMAL: up to 65 digits, a point, a sign. Without allocation where nothing is to be rounded.
fn put_decimal(writer: CellWriter<'_>, comparison: &ComparisonType, bytes: &[u8]) -> Option<()> {
    let ComparisonType::Decimal { scale } = comparison else {
        writer.text_as(comparison, std::str::from_utf8(bytes).ok()?);
        return Some(());
    };
    let (negative, body) = match bytes.split_first()? {
        (b'-', rest) => (true, rest),
        _ => (false, bytes),
    };
    let point = body.iter().position(|b| *b == b'.');
    let (whole, fraction) = match point {
        Some(at) => (body.get(..at)?, body.get(at + 1..)?),
        None => (body, &[][..]),
    };
    let kept = fraction.iter().rposition(|b| *b != b'0').map_or(0, |at| at + 1);
    let fraction = fraction.get(..kept)?;
    let leading = whole.iter().position(|b| *b != b'0').unwrap_or(whole.len());
    let whole = whole.get(leading..)?;
    let rounds = scale.is_some_and(|scale| usize::try_from(scale).is_ok_and(|scale| kept > scale));
    if rounds || whole.len() > 68 || fraction.len() > 68 {
        let value = Decimal::parse(std::str::from_utf8(bytes).ok()?)?;
        writer.decimal(&match scale {
            Some(scale) => value.rounded(*scale),
            None => value,
        });
        return Some(());
    }
    let mut digits = [0u16; 36];
    let mut count = 0usize;
    let group = |text: &[u8]| {
        text.iter()
            .try_fold(0u16, |value, byte| byte.is_ascii_digit().then(|| value * 10 + u16::from(byte - b'0')))
    };
    let (head, groups) = whole.split_at(whole.len() % 4);
    for text in (!head.is_empty()).then_some(head).into_iter().chain(groups.chunks(4)) {
        *digits.get_mut(count)? = group(text)?;
        count += 1;
    }
    let weight = i16::try_from(count).ok()? - 1;
    for text in fraction.chunks(4) {
        let missing = u32::try_from(4 - text.len()).ok()?;
        *digits.get_mut(count)? = group(text)? * 10u16.pow(missing);
        count += 1;
    }
    let found = digits.get(..count)?;
    let zeros = found.iter().take_while(|digit| **digit == 0).count();
    let end = found.iter().rposition(|digit| *digit != 0).map_or(zeros, |at| at + 1);
    let found = found.get(zeros..end)?;
    writer.decimal_digits(negative, weight - i16::try_from(zeros).ok()?, found.iter().copied());
    Some(())
}

/// Year, month, day, and the microseconds of the day, behind a byte that tells how much of it was sent.
fn date_time(bytes: &[u8]) -> Option<(u16, u8, u8, i64)> {
    let (length, rest) = bytes.split_first()?;
    if rest.len() != usize::from(*length) {
        return None;
    }
    let clock = |hour: u8, minute: u8, second: u8| {
        (i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second)) * 1_000_000
    };
    Some(match *rest {
        [] => (0, 0, 0, 0),
        [y1, y2, month, day] => (u16::from_le_bytes([y1, y2]), month, day, 0),
        [y1, y2, month, day, h, m, s] => (u16::from_le_bytes([y1, y2]), month, day, clock(h, m, s)),
        [y1, y2, month, day, h, m, s, u1, u2, u3, u4] => {
            let micros = i64::from(u32::from_le_bytes([u1, u2, u3, u4]));
            (u16::from_le_bytes([y1, y2]), month, day, clock(h, m, s) + micros)
        }
        _ => return None,
    })
}

/// Signed microseconds, up to 838 hours.
fn time(bytes: &[u8]) -> Option<i64> {
    let (length, rest) = bytes.split_first()?;
    if rest.len() != usize::from(*length) {
        return None;
    }
    let (head, micros) = match *rest {
        [] => return Some(0),
        [.., u1, u2, u3, u4] if rest.len() == 12 => {
            (rest.get(..8)?, i64::from(u32::from_le_bytes([u1, u2, u3, u4])))
        }
        _ => (rest, 0),
    };
    let [negative, d1, d2, d3, d4, h, m, s] = *head else { return None };
    let days = i64::from(u32::from_le_bytes([d1, d2, d3, d4]));
    let seconds = days * 86_400 + i64::from(h) * 3600 + i64::from(m) * 60 + i64::from(s);
    // Days come in four bytes: more than any count of microseconds holds.
    let total = seconds.checked_mul(1_000_000)?.checked_add(micros)?;
    Some(if negative == 0 { total } else { -total })
}

/// Rows as they came.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decimal_bytes(text: &str, scale: Option<u32>) -> (Vec<u8>, Vec<u8>) {
        let comparison = ComparisonType::Decimal { scale };
        let (mut fast, mut plain) = (RowBuffer::default(), RowBuffer::default());
        put_decimal(fast.key_cell(), &comparison, text.as_bytes()).unwrap();
        plain.key_cell().text_as(&comparison, text);
        (fast.key, plain.key)
    }

    #[test]
    fn decimals_of_every_shape_are_the_canonical_ones() {
        for text in [
            "0",
            "0.00",
            "-0.00",
            "1",
            "10000",
            "-10000.0001",
            "0.0001",
            "0.00001",
            "123456789.123456789",
            "99999999999999999999999999999999999.999999999999999999999999999999",
            "00012.3400",
            "1000000000000",
        ] {
            for scale in [None, Some(0), Some(2), Some(30)] {
                let (fast, plain) = decimal_bytes(text, scale);
                assert_eq!(fast, plain, "{text} at {scale:?}");
            }
        }
    }

    #[test]
    fn times_of_every_length() {
        assert_eq!(date_time(&[0]), Some((0, 0, 0, 0)));
        assert_eq!(date_time(&[4, 0xe8, 0x07, 2, 29]), Some((2024, 2, 29, 0)));
        assert_eq!(date_time(&[7, 0xe8, 0x07, 2, 29, 1, 0, 1]), Some((2024, 2, 29, 3_601_000_000)));
        assert_eq!(
            date_time(&[11, 0xe8, 0x07, 2, 29, 0, 0, 0, 0x40, 0x42, 0x0f, 0]),
            Some((2024, 2, 29, 1_000_000))
        );
        assert_eq!(date_time(&[5, 0, 0, 0, 0]), None);
        assert_eq!(date_time(&[]), None);
        assert_eq!(time(&[0]), Some(0));
        assert_eq!(time(&[8, 1, 1, 0, 0, 0, 0, 0, 1]), Some(-86_401_000_000));
        assert_eq!(time(&[12, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]), Some(1));
        assert_eq!(time(&[3, 0, 0, 0]), None);
    }

    proptest! {
        #[test]
        fn decimals_as_the_parser_reads_them(text in "-?[0-9]{1,35}(\\.[0-9]{1,30})?", scale in prop::option::of(0u32..31)) {
            let (fast, plain) = decimal_bytes(&text, scale);
            prop_assert_eq!(fast, plain);
        }

        #[test]
        fn integers_as_decimals(value: i64) {
            let mut fast = RowBuffer::default();
            put_int_decimal(fast.cell(), value < 0, value.unsigned_abs());
            let mut plain = RowBuffer::default();
            plain.cell().decimal(&Decimal::from_int(i128::from(value)));
            prop_assert_eq!(fast.row, plain.row);
        }

        #[test]
        fn nothing_panics_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..14)) {
            let _ = (date_time(&bytes), time(&bytes));
            let mut buffer = RowBuffer::default();
            let _ = put_decimal(buffer.cell(), &ComparisonType::Decimal { scale: Some(2) }, &bytes);
        }
    }
}
