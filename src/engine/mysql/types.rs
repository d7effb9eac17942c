//! MySQL's types: from their declarations to what they mean, from the binary protocol to canonical bytes.

use sqlx::Decode;
use sqlx::Row;
use sqlx::mysql::{MySql, MySqlRow};

use crate::engine::RowError;
use crate::model::decimal::Decimal;
use crate::model::temporal::{MICROS_PER_DAY, MICROS_PER_SECOND, mysql_date, mysql_datetime, round_time};
use crate::model::{
    AccessColumn, CellWriter, ColumnType, ComparisonType, RowBuffer, StoredClass, TableAccess,
};

/// `information_schema.columns` of one column, as far as its type goes.
pub(super) struct Declared<'a> {
    /// `int(10) unsigned`, `enum('a','b')`
    pub(super) column_type: &'a str,
    /// `int`, `enum`
    pub(super) data_type: &'a str,
    pub(super) precision: Option<u32>,
    pub(super) scale: Option<u32>,
    pub(super) second_digits: Option<u8>,
    /// MariaDB has no JSON of its own: text that a constraint holds to JSON.
    pub(super) json_checked: bool,
}

pub(super) fn column_type(declared: &Declared<'_>) -> ColumnType {
    let signed = !declared.column_type.contains("unsigned");
    let int = |bits| ColumnType::Int { bits, signed };
    let digits = declared.second_digits.unwrap_or(0);
    match declared.data_type {
        "tinyint" => int(8),
        "smallint" => int(16),
        "mediumint" => int(24),
        "int" | "integer" => int(32),
        "bigint" => int(64),
        "year" => ColumnType::Int { bits: 16, signed: false },
        "decimal" | "numeric" => ColumnType::Decimal { precision: declared.precision, scale: declared.scale },
        "float" => ColumnType::Float { bits: 32 },
        "double" => ColumnType::Float { bits: 64 },
        "bit" => ColumnType::Bits,
        "char" => ColumnType::Text { padded: true },
        "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" if declared.json_checked => {
            ColumnType::Json
        }
        "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "enum" | "set" => {
            ColumnType::Text { padded: false }
        }
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => ColumnType::Bytes,
        "date" => ColumnType::Date,
        "time" => ColumnType::Time { digits },
        "datetime" => ColumnType::Timestamp { digits },
        "timestamp" => ColumnType::TimestampTz { digits },
        "json" => ColumnType::Json,
        "uuid" => ColumnType::Uuid,
        "inet6" | "inet4" => ColumnType::Named(declared.data_type.to_owned()),
        // geometry and its kin, vector
        other => ColumnType::Unsupported(other.to_owned()),
    }
}

/// The expression that reads a column.
pub(super) fn select_expression(column: &AccessColumn, quoted: &str) -> String {
    match &column.ty {
        ColumnType::Bytes if column.as_text => format!("CONCAT('\\\\x', LOWER(HEX({quoted})))"),
        ColumnType::Bits if column.as_text => format!("BIN({quoted})"),
        _ if column.as_text => format!("CAST({quoted} AS CHAR CHARACTER SET utf8mb4)"),
        _ => quoted.to_owned(),
    }
}

/// Reads rows of one table; made once a scan.
#[derive(Debug)]
pub(super) struct RowDecoder {
    columns: Vec<AccessColumn>,
    key_len: usize,
    /// Of BIT columns, by position.
    bit_widths: Vec<usize>,
}

impl RowDecoder {
    pub(super) fn new(access: &TableAccess) -> Self {
        let width = |column: &AccessColumn| {
            let digits = column.declared.split_once("bit(").and_then(|(_, rest)| rest.split(')').next());
            digits.and_then(|digits| digits.parse().ok()).unwrap_or(1)
        };
        Self {
            bit_widths: access.columns.iter().map(width).collect(),
            columns: access.columns.clone(),
            key_len: access.key_len,
        }
    }

    pub(super) fn row(&self, row: &MySqlRow, buffer: &mut RowBuffer) -> Result<(), RowError> {
        buffer.clear();
        for (at, column) in self.columns.iter().enumerate() {
            let raw = row.try_get_raw(at).map_err(|_| malformed(column, "is not in the answer"))?;
            let writer = buffer.column(at, self.key_len);
            // Not by the driver's own test for NULL: it takes zero dates for NULL.
            match <&[u8] as Decode<MySql>>::decode(raw) {
                Ok(raw) => self.value(at, column, raw, writer)?,
                Err(_) => writer.null().map_err(RowError::null_key(&column.name))?,
            }
        }
        Ok(())
    }

    fn value(
        &self,
        at: usize,
        column: &AccessColumn,
        raw: &[u8],
        writer: CellWriter<'_>,
    ) -> Result<(), RowError> {
        let comparison = &column.comparison;
        if column.as_text {
            writer.text(raw, matches!(comparison, ComparisonType::Text { trim: true }));
            return Ok(());
        }
        match &column.ty {
            ColumnType::Int { signed, .. } => {
                let value =
                    integer(raw, *signed).ok_or_else(|| malformed(column, "has an integer of odd length"))?;
                match (i64::try_from(value), comparison) {
                    (Ok(value), ComparisonType::Integer) => writer.int(value),
                    (Err(_), ComparisonType::Integer) => writer.int128(value),
                    (_, ComparisonType::Decimal { .. }) => writer.decimal(&Decimal::from_int(value)),
                    (Ok(value), _) => writer.int_as(comparison, value),
                    (Err(_), _) => writer.text_as(comparison, &value.to_string()),
                }
            }
            ColumnType::Decimal { .. } => decimal(raw, comparison, writer, column)?,
            ColumnType::Float { bits: 32 } => {
                let raw = raw.try_into().map_err(|_| malformed(column, "has a float of odd length"))?;
                writer.real_as(comparison, f64::from(f32::from_le_bytes(raw)));
            }
            ColumnType::Float { .. } => {
                let raw = raw.try_into().map_err(|_| malformed(column, "has a double of odd length"))?;
                writer.real_as(comparison, f64::from_le_bytes(raw));
            }
            ColumnType::Bits => self.bits(at, raw, comparison, writer),
            ColumnType::Bytes => writer.bytes_as(comparison, raw),
            ColumnType::Date => {
                let (year, month, day, _) =
                    date_parts(raw).ok_or_else(|| malformed(column, "has a date of odd length"))?;
                match (mysql_date(year, month, day), comparison) {
                    (Some(days), ComparisonType::Date) => writer.date(days),
                    _ => writer
                        .irregular(StoredClass::Text, format!("{year:04}-{month:02}-{day:02}").as_bytes()),
                }
            }
            ColumnType::Timestamp { .. } | ColumnType::TimestampTz { .. } => {
                let (year, month, day, micros) =
                    date_parts(raw).ok_or_else(|| malformed(column, "has a time of odd length"))?;
                match mysql_datetime(year, month, day, micros) {
                    Some(micros) => writer.timestamp_as(comparison, micros),
                    None => return Err(malformed(column, "has a date out of range")),
                }
            }
            ColumnType::Time { .. } => {
                let micros = duration(raw).ok_or_else(|| malformed(column, "has a time of odd length"))?;
                match comparison {
                    ComparisonType::Time { digits, rounding } => {
                        writer.micros(round_time(micros, *digits, *rounding))
                    }
                    _ => writer.irregular(StoredClass::Integer, &micros.to_be_bytes()),
                }
            }
            _ => text(raw, comparison, writer),
        }
        Ok(())
    }

    fn bits(&self, at: usize, raw: &[u8], comparison: &ComparisonType, writer: CellWriter<'_>) {
        let value = raw.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        match comparison {
            ComparisonType::Integer => writer.int128(i128::from(value)),
            ComparisonType::Bits => {
                let width = self.bit_widths.get(at).copied().unwrap_or(1);
                writer.bytes(format!("{value:0width$b}").as_bytes());
            }
            _ => writer.irregular(StoredClass::Blob, raw),
        }
    }
}

fn malformed(column: &AccessColumn, what: &str) -> RowError {
    RowError::Malformed { column: column.name.clone(), what: what.to_owned() }
}

fn text(raw: &[u8], comparison: &ComparisonType, writer: CellWriter<'_>) {
    if let ComparisonType::Text { trim } = comparison {
        return writer.text(raw, *trim);
    }
    match std::str::from_utf8(raw) {
        Ok(text) => writer.text_as(comparison, text),
        Err(_) => writer.irregular(StoredClass::Text, raw),
    }
}

fn integer(raw: &[u8], signed: bool) -> Option<i128> {
    Some(match (raw.len(), signed) {
        (1, true) => i128::from(i8::from_le_bytes(raw.try_into().ok()?)),
        (1, false) => i128::from(u8::from_le_bytes(raw.try_into().ok()?)),
        (2, true) => i128::from(i16::from_le_bytes(raw.try_into().ok()?)),
        (2, false) => i128::from(u16::from_le_bytes(raw.try_into().ok()?)),
        (4, true) => i128::from(i32::from_le_bytes(raw.try_into().ok()?)),
        (4, false) => i128::from(u32::from_le_bytes(raw.try_into().ok()?)),
        (8, true) => i128::from(i64::from_le_bytes(raw.try_into().ok()?)),
        (8, false) => i128::from(u64::from_le_bytes(raw.try_into().ok()?)),
        _ => return None,
    })
}

/// MySQL's longest decimals have 65 digits: 18 groups of four, and one for the odd ends.
const GROUPS_MAX: usize = 20;

/// The protocol sends decimals as text; their digits are grouped without a detour over the heap.
fn decimal(
    raw: &[u8],
    comparison: &ComparisonType,
    writer: CellWriter<'_>,
    column: &AccessColumn,
) -> Result<(), RowError> {
    let scale = match comparison {
        ComparisonType::Decimal { scale } => *scale,
        _ => {
            text(raw, comparison, writer);
            return Ok(());
        }
    };
    let (negative, digits) = match raw.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, raw),
    };
    let point = digits.iter().position(|b| *b == b'.').unwrap_or(digits.len());
    let fraction = digits.get(point + 1..).unwrap_or_default();
    let significant = fraction.iter().rposition(|b| *b != b'0').map_or(0, |at| at + 1);
    let fits = scale.is_none_or(|scale| significant <= scale as usize);
    if !fits || point + significant > 4 * (GROUPS_MAX - 2) {
        let parsed = std::str::from_utf8(raw)
            .ok()
            .and_then(Decimal::parse)
            .ok_or_else(|| malformed(column, "has a decimal that is none"))?;
        writer.decimal(&match scale {
            Some(scale) => parsed.rounded(scale),
            None => parsed,
        });
        return Ok(());
    }
    let mut groups = [0u16; GROUPS_MAX];
    let lead = (4 - point % 4) % 4;
    let all = digits[..point].iter().chain(&fraction[..significant]);
    let mut used = 0;
    for (at, digit) in all.enumerate() {
        if !digit.is_ascii_digit() {
            return Err(malformed(column, "has a decimal that is none"));
        }
        let place = lead + at;
        groups[place / 4] += u16::from(digit - b'0') * [1000, 100, 10, 1][place % 4];
        used = place / 4 + 1;
    }
    let first = groups[..used].iter().position(|group| *group != 0).unwrap_or(used);
    let last = groups[..used].iter().rposition(|group| *group != 0).map_or(first, |at| at + 1);
    let whole = i16::try_from((point + lead) / 4).unwrap_or(0);
    let weight = whole - 1 - i16::try_from(first).unwrap_or(0);
    writer.decimal_digits(negative && last > first, weight, groups[first..last].iter().copied());
    Ok(())
}

/// Year, month, day and the microseconds of the day; the length byte in front tells which parts are there.
fn date_parts(raw: &[u8]) -> Option<(u16, u8, u8, i64)> {
    let (length, rest) = raw.split_first()?;
    if rest.len() != usize::from(*length) {
        return None;
    }
    if rest.is_empty() {
        return Some((0, 0, 0, 0));
    }
    let year = u16::from_le_bytes([*rest.first()?, *rest.get(1)?]);
    let (month, day) = (*rest.get(2)?, *rest.get(3)?);
    let mut micros = 0;
    if let Some(clock) = rest.get(4..7) {
        micros =
            (i64::from(clock[0]) * 3600 + i64::from(clock[1]) * 60 + i64::from(clock[2])) * MICROS_PER_SECOND;
    }
    if let Some(fraction) = rest.get(7..11) {
        micros += i64::from(u32::from_le_bytes(fraction.try_into().ok()?));
    }
    Some((year, month, day, micros))
}

fn duration(raw: &[u8]) -> Option<i64> {
    let (length, rest) = raw.split_first()?;
    if rest.len() != usize::from(*length) {
        return None;
    }
    if rest.is_empty() {
        return Some(0);
    }
    let days = i64::from(u32::from_le_bytes(rest.get(1..5)?.try_into().ok()?));
    let clock = rest.get(5..8)?;
    let seconds = i64::from(clock[0]) * 3600 + i64::from(clock[1]) * 60 + i64::from(clock[2]);
    let mut micros = days * MICROS_PER_DAY + seconds * MICROS_PER_SECOND;
    if let Some(fraction) = rest.get(8..12) {
        micros += i64::from(u32::from_le_bytes(fraction.try_into().ok()?));
    }
    Some(if rest[0] == 0 { micros } else { -micros })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn access_column(comparison: ComparisonType) -> AccessColumn {
        AccessColumn {
            name: "c".into(),
            ty: ColumnType::Decimal { precision: None, scale: None },
            declared: "decimal(65,30)".into(),
            comparison,
            as_text: false,
            filled: crate::model::Filled::ByWriter,
        }
    }

    proptest! {
        #[test]
        fn decimals_are_grouped_as_the_slow_way_does(text in "-?[0-9]{1,35}(\\.[0-9]{1,30})?", scale in proptest::option::of(0u32..32)) {
            let comparison = ComparisonType::Decimal { scale };
            let column = access_column(comparison.clone());
            let mut quick = RowBuffer::default();
            decimal(text.as_bytes(), &comparison, quick.cell(), &column).unwrap();
            let mut slow = RowBuffer::default();
            slow.cell().text_as(&comparison, &text);
            prop_assert_eq!(quick.row, slow.row);
        }

        #[test]
        fn foreign_bytes_never_panic(raw in proptest::collection::vec(any::<u8>(), 0..16)) {
            let _ = (date_parts(&raw), duration(&raw), integer(&raw, true));
            let comparison = ComparisonType::Decimal { scale: None };
            let _ = decimal(&raw, &comparison, RowBuffer::default().cell(), &access_column(comparison.clone()));
        }
    }

    #[test]
    fn dates_and_times_of_the_protocol() {
        assert_eq!(date_parts(&[0]), Some((0, 0, 0, 0)));
        assert_eq!(date_parts(&[4, 0xe8, 0x07, 2, 29]), Some((2024, 2, 29, 0)));
        assert_eq!(
            date_parts(&[11, 0xe8, 0x07, 2, 29, 1, 2, 3, 4, 0, 0, 0]),
            Some((2024, 2, 29, 3_723_000_004))
        );
        assert_eq!(date_parts(&[5, 0, 0, 0, 0]), None);
        assert_eq!(duration(&[0]), Some(0));
        assert_eq!(duration(&[8, 1, 1, 0, 0, 0, 1, 0, 0]), Some(-(MICROS_PER_DAY + 3_600_000_000)));
    }
}
