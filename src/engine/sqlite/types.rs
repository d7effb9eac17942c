//! SQLite's types: what a declaration means, and how a stored value, of whatever class, becomes canonical.

use rusqlite::types::ValueRef;

use crate::engine::RowError;
use crate::model::canonical::CellWriter;
use crate::model::temporal::{
    MICROS_PER_DAY, days_from_civil, mysql_date, mysql_datetime, parse_time, parse_timestamp,
};
use crate::model::{ColumnType, ComparisonType, RowBuffer, StoredClass, TableAccess};

/// From the declared type, by the names that other databases use; SQLite itself knows affinities only.
pub(super) fn column_type(declared: &str) -> ColumnType {
    let lower = declared.to_lowercase();
    let base = lower.split('(').next().unwrap_or_default().trim();
    match base {
        "" | "any" => ColumnType::Unsupported("untyped SQLite column".to_owned()),
        "boolean" | "bool" => ColumnType::Bool,
        "decimal" | "numeric" | "number" | "money" => {
            // What stands in parentheses holds nobody to it.
            ColumnType::Decimal { precision: None, scale: None }
        }
        "date" => ColumnType::Date,
        "time" => ColumnType::Time { digits: 6 },
        "datetime" | "timestamp" => ColumnType::Timestamp { digits: 6 },
        "timestamptz" | "timestamp with time zone" => ColumnType::TimestampTz { digits: 6 },
        "json" | "jsonb" => ColumnType::Json,
        "uuid" | "guid" | "uniqueidentifier" => ColumnType::Uuid,
        _ if base.contains("int") => ColumnType::Int { bits: 64, signed: true },
        _ if ["char", "clob", "text", "string"].iter().any(|word| base.contains(word)) => {
            ColumnType::Text { padded: false }
        }
        _ if base.contains("blob") || base.contains("binary") => ColumnType::Bytes,
        _ if ["real", "floa", "doub"].iter().any(|word| base.contains(word)) => {
            ColumnType::Float { bits: 64 }
        }
        _ => ColumnType::Unsupported(declared.to_owned()),
    }
}

/// Adds the canonical bytes of a row, of which `value_at` gives the values of the access's columns.
#[inline]
pub(super) fn encode<'v>(
    access: &TableAccess,
    value_at: impl Fn(usize) -> Option<ValueRef<'v>>,
    buffer: &mut RowBuffer,
) -> Result<(), RowError> {
    for (at, column) in access.columns.iter().enumerate() {
        let value = value_at(at).ok_or_else(|| RowError::Malformed {
            column: column.name.clone(),
            what: "is not in the answer".to_owned(),
        })?;
        let writer = buffer.column(at, access.key_len);
        match (value, &column.comparison) {
            (ValueRef::Null, _) => writer.null().map_err(RowError::null_key(&column.name))?,
            // Two SQLite tables, mostly.
            (ValueRef::Integer(value), ComparisonType::Dynamic) => writer.dynamic_int(value),
            (ValueRef::Real(value), ComparisonType::Dynamic) => writer.dynamic_real(value),
            // Known to be UTF-8 at a glance, and compared as they are.
            (ValueRef::Text(bytes), ComparisonType::Dynamic) if bytes.is_ascii() => {
                writer.dynamic(StoredClass::Text, bytes);
            }
            (ValueRef::Text(bytes), ComparisonType::Text { trim }) if bytes.is_ascii() => {
                writer.text(bytes, *trim);
            }
            (ValueRef::Integer(value), comparison) => writer.int_as(comparison, value),
            (ValueRef::Real(value), comparison) => writer.real_as(comparison, value),
            (ValueRef::Text(bytes), comparison) => match std::str::from_utf8(bytes) {
                Ok(text) => text_as(writer, comparison, text),
                Err(_) => writer.irregular(StoredClass::Text, bytes),
            },
            (ValueRef::Blob(bytes), comparison) => writer.bytes_as(comparison, bytes),
        }
    }
    Ok(())
}

/// As the comparison type reads text; days that no calendar has are those of MySQL, which files that came from it keep as text.
fn text_as(writer: CellWriter<'_>, comparison: &ComparisonType, text: &str) {
    match comparison {
        ComparisonType::Date => {
            if let Some(days) = odd_date(text).or_else(|| midnight_of(text)) {
                return writer.date(days);
            }
        }
        ComparisonType::Timestamp { .. } | ComparisonType::TimestampTz { .. } => {
            if let Some(micros) = odd_timestamp(text) {
                return writer.micros(micros);
            }
        }
        _ => {}
    }
    writer.text_as(comparison, text);
}

/// The day of a moment that is its midnight, in no zone or in UTC: libraries that know no dates write them so.
pub(super) fn midnight_of(text: &str) -> Option<i32> {
    let (micros, offset) = parse_timestamp(text).filter(|_| text.len() > 10)?;
    let is_midnight = micros.rem_euclid(MICROS_PER_DAY) == 0 && offset.is_none_or(|offset| offset == 0);
    is_midnight.then(|| i32::try_from(micros.div_euclid(MICROS_PER_DAY)).ok())?
}

/// Year, month and day of `YYYY-MM-DD` where no calendar has it: 0000-00-00, 2024-00-15, 2024-02-31.
fn odd_day(text: &str) -> Option<(u16, u8, u8)> {
    let &[a, b, c, d, b'-', e, f, b'-', g, h] = text.as_bytes() else { return None };
    let digits = [a, b, c, d, e, f, g, h];
    // Most days are told by their last digits to be in every calendar.
    if !digits.iter().all(u8::is_ascii_digit)
        || !(e == b'0' && f == b'0' || g == b'0' && h == b'0' || g >= b'2')
    {
        return None;
    }
    let two = |tens: u8, ones: u8| (tens - b'0') * 10 + (ones - b'0');
    let (year, month, day) = (u16::from(two(a, b)) * 100 + u16::from(two(c, d)), two(e, f), two(g, h));
    let real = days_from_civil(i32::from(year), u32::from(month), u32::from(day)).is_some();
    (!real).then_some((year, month, day))
}

pub(super) fn odd_date(text: &str) -> Option<i32> {
    let (year, month, day) = odd_day(text)?;
    mysql_date(year, month, day)
}

pub(super) fn odd_timestamp(text: &str) -> Option<i64> {
    let (year, month, day) = odd_day(text.get(..10)?)?;
    let micros = match text.get(10..)? {
        "" => 0,
        rest => {
            let clock = parse_time(rest.strip_prefix([' ', 'T'])?)?;
            Some(clock).filter(|micros| (0..MICROS_PER_DAY).contains(micros))?
        }
    };
    mysql_datetime(year, month, day, micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::temporal::{date_text, timestamp_text};

    #[test]
    fn days_that_no_calendar_has_are_read_as_mysql_keeps_them() {
        for text in ["0000-00-00", "2024-00-15", "2024-02-31", "2024-12-00", "0000-12-31"] {
            let odd = text != "0000-12-31";
            assert_eq!(odd_date(text).map(date_text), odd.then(|| text.to_owned()), "{text}");
        }
        for text in ["0000-00-00 00:00:00", "2024-00-15 23:59:59.5"] {
            assert_eq!(odd_timestamp(text).map(timestamp_text).as_deref(), Some(text));
            assert_eq!(odd_timestamp(&text.replace(' ', "T")), odd_timestamp(text));
        }
        assert_eq!(odd_timestamp("0000-00-00"), odd_timestamp("0000-00-00 00:00:00"));
        for text in
            ["2024-01-15", "2024-02-29", "2024-13-01", "2024-01-32", "0000-0a-00", "00-00-00", "0000-00-00x"]
        {
            assert_eq!(odd_date(text), None, "{text}");
            assert_eq!(odd_timestamp(text), None, "{text}");
        }
        assert_eq!(odd_timestamp("0000-00-00 24:00:00"), None);
    }

    #[test]
    fn declarations_mean_what_their_names_say() {
        for (declared, expected) in [
            ("INTEGER", ColumnType::Int { bits: 64, signed: true }),
            ("UNSIGNED BIG INT", ColumnType::Int { bits: 64, signed: true }),
            ("VARCHAR(16)", ColumnType::Text { padded: false }),
            ("NATIVE CHARACTER(70)", ColumnType::Text { padded: false }),
            ("DECIMAL(12, 2)", ColumnType::Decimal { precision: None, scale: None }),
            ("NUMERIC", ColumnType::Decimal { precision: None, scale: None }),
            ("DOUBLE PRECISION", ColumnType::Float { bits: 64 }),
            ("timestamp", ColumnType::Timestamp { digits: 6 }),
            ("BLOB", ColumnType::Bytes),
            ("UUID", ColumnType::Uuid),
        ] {
            assert_eq!(column_type(declared), expected, "{declared}");
        }
        assert!(matches!(column_type(""), ColumnType::Unsupported(_)));
    }
}
