//! A canonical value as text that one column's input accepts, or why the column cannot hold it.

use crate::model::decimal::Decimal;
use crate::model::json::repeats_names;
use crate::model::temporal::{MICROS_PER_DAY, is_ordinary, parse_date, parse_time, time_text};
use crate::model::value::{ArrayValue, StoredClass, hex, uuid_text};
use crate::model::{AccessColumn, ColumnType, ComparisonType, Rejection, RejectionKind, Value};

fn reject<T>(column: &AccessColumn, what: &str) -> Result<T, Rejection> {
    Err(Rejection {
        kind: RejectionKind::Value,
        reason: format!("column {} ({}): {what}", column.name, column.declared),
    })
}

/// PostgreSQL's longest `name`, in bytes; its cast would cut silently.
const NAME_MAX: usize = 63;

/// `None` is NULL.
pub(super) fn text_of(column: &AccessColumn, value: &Value) -> Result<Option<String>, Rejection> {
    let text = match plain(column, &column.ty, &column.comparison, value)? {
        None => return Ok(None),
        Some(text) => text,
    };
    if text.contains('\0') {
        return reject(column, "PostgreSQL's text cannot hold a zero byte");
    }
    match column.declared.as_str() {
        "jsonb" if !column.as_text && has_escaped_zero(&text) => {
            reject(column, "jsonb cannot hold the character \\u0000")
        }
        "name" if text.len() > NAME_MAX => reject(column, "a name is at most 63 bytes long"),
        declared
            if !column.as_text && varying_length(declared).is_some_and(|most| is_longer(&text, most)) =>
        {
            reject(column, "the value is too long")
        }
        "\"char\"" if text.len() > 1 && !(text.len() == 4 && text.starts_with('\\')) => {
            reject(column, "it holds a single byte")
        }
        _ => Ok(Some(text)),
    }
}

/// The characters that a `character varying(n)` takes. More of them are cut off in silence where they are blanks.
pub(super) fn varying_length(declared: &str) -> Option<usize> {
    declared.strip_prefix("character varying(")?.strip_suffix(')')?.parse().ok()
}

pub(super) fn is_longer(text: &str, most: usize) -> bool {
    text.len() > most && text.chars().count() > most
}

/// A numeric of a scale would be rounded to it in silence.
pub(super) fn has_more_places(value: &Decimal, scale: Option<u32>) -> bool {
    matches!(value, Decimal::Finite { .. }) && scale.is_some_and(|scale| value.scale() > scale)
}

/// Whether JSON text holds the escape of the zero character: `\u0000` behind an even number of backslashes.
fn has_escaped_zero(json: &str) -> bool {
    let mut bytes = json.as_bytes();
    while let Some(at) = bytes.iter().position(|byte| *byte == b'\\') {
        let behind = bytes.get(at + 1..).unwrap_or_default();
        if behind.starts_with(b"u0000") {
            return true;
        }
        bytes = behind.get(1..).unwrap_or_default();
    }
    false
}

/// A moment of PostgreSQL's last weeks, as its text; `None` of any other text, which its input may read as anything.
fn far_future(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (date, time) = text.split_once(' ')?;
    let (year, day) = date.split_once('-')?;
    let is_year = year.len() == 6 && matches!(year.parse::<u32>(), Ok(294_247..));
    let day = parse_date(&format!("2000-{day}"));
    let time = parse_time(time).filter(|micros| (0..MICROS_PER_DAY).contains(micros));
    (is_year && day.is_some() && time.is_some() && !year.starts_with('+')).then(|| text.to_owned())
}

fn plain(
    column: &AccessColumn,
    ty: &ColumnType,
    comparison: &ComparisonType,
    value: &Value,
) -> Result<Option<String>, Rejection> {
    use ColumnType as T;
    if column.as_text {
        return match value {
            Value::Irregular(..) => reject(column, "the value is not valid text"),
            value => Ok(value.to_text()),
        };
    }
    Ok(match (ty, value) {
        (_, Value::Null) => None,
        // Text that is no uuid or no JSON is still text, and bytes that are no uuid are still bytes.
        (T::Text { .. }, Value::Irregular(StoredClass::Text, bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => Some(text.to_owned()),
            Err(_) => return reject(column, "the value is not valid text"),
        },
        (T::Bytes, Value::Irregular(StoredClass::Blob, bytes)) => Some(format!("\\x{}", hex(bytes))),
        // Of one type on both sides these are regular for the column, if not for the canonical form: a moment beyond what
        // microseconds from 1970 hold, JSON that means nothing to others, more bits than an integer has.
        (T::Timestamp { .. }, Value::Irregular(StoredClass::Text, bytes)) if far_future(bytes).is_some() => {
            far_future(bytes)
        }
        (T::TimestampTz { .. }, Value::Irregular(StoredClass::Text, bytes))
            if far_future(bytes).is_some() =>
        {
            far_future(bytes).map(|text| format!("{text}+00"))
        }
        (T::Bits, Value::Irregular(StoredClass::Text, bytes))
            if bytes.iter().all(|byte| matches!(byte, b'0' | b'1')) =>
        {
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
        (T::Json, Value::Irregular(StoredClass::Text, bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => Some(text.to_owned()),
            Err(_) => return reject(column, "the value is not valid text"),
        },
        (T::Text { .. } | T::Json | T::Named(_), Value::Irregular(StoredClass::Blob, _)) => {
            return reject(column, "the value holds bytes that are no characters of UTF-8");
        }
        (T::Float { .. }, Value::Irregular(StoredClass::Real, _)) => {
            return reject(column, "the number is out of its range");
        }
        (_, Value::Irregular(..)) => return reject(column, "the other side's value is not of this type"),
        (T::Bool, Value::Int(0)) => Some("false".to_owned()),
        (T::Bool, Value::Int(1)) => Some("true".to_owned()),
        (T::Bool, Value::Decimal(number)) => match number.to_int() {
            Some(0) => Some("false".to_owned()),
            Some(1) => Some("true".to_owned()),
            _ => return reject(column, "the number is neither 0 nor 1"),
        },
        (T::Bool, _) => return reject(column, "the number is neither 0 nor 1"),
        (T::Int { .. }, Value::Decimal(number)) => match number.to_int() {
            Some(number) => Some(number.to_string()),
            None => return reject(column, "the number is not an integer"),
        },
        (T::Decimal { scale, .. }, Value::Decimal(number)) if has_more_places(number, *scale) => {
            return reject(column, "the number has more decimal places than its type");
        }
        (T::Json, Value::Json(text)) if column.declared.starts_with("jsonb") && repeats_names(text) => {
            return reject(column, "jsonb keeps one of several members of a name");
        }
        (T::Bits, Value::Int(number)) => Some(bits_text(column, *number)?),
        (T::Bytes, Value::Uuid(bytes)) => Some(format!("\\x{}", hex(bytes))),
        (T::Text { .. }, Value::Uuid(bytes)) => Some(uuid_text(bytes)),
        (T::Date, Value::Date(_))
        | (T::Timestamp { .. }, Value::Timestamp(_) | Value::TimestampTz(_))
        | (T::TimestampTz { .. }, Value::TimestampTz(_)) => calendar_text(column, value)?,
        (T::Time { .. }, Value::Time(micros)) if !(0..=86_400_000_000).contains(micros) => {
            return reject(column, "the time is beyond a day");
        }
        (T::Interval, Value::Interval { months, days, micros }) => {
            Some(interval_text(*months, *days, *micros))
        }
        (T::Array(inner), Value::Array(array)) => {
            let ComparisonType::Array(inner_comparison) = comparison else {
                return reject(column, "the plan does not compare it as an array");
            };
            let mut items = Vec::with_capacity(array.items.len());
            for item in &array.items {
                items.push(match plain(column, inner, inner_comparison, item)? {
                    Some(text) => Value::Text(text),
                    None => Value::Null,
                });
            }
            let dims = array.dims.clone();
            Value::Array(ArrayValue { dims, items }).to_text()
        }
        (_, value) => value.to_text(),
    })
}

/// Dates that no calendar has are MySQL's alone.
fn calendar_text(column: &AccessColumn, value: &Value) -> Result<Option<String>, Rejection> {
    let odd = match value {
        Value::Date(days) => *days != i32::MIN && *days < -2_500_000,
        Value::Timestamp(micros) | Value::TimestampTz(micros) => {
            *micros != i64::MIN && !is_ordinary(*micros) && *micros != i64::MAX
        }
        _ => false,
    };
    if odd {
        return reject(column, "PostgreSQL's calendar has no such date");
    }
    let text = value.to_text();
    // A zoned text would lose its zone in a column without one; both are UTC here.
    Ok(match (&column.ty, text) {
        (ColumnType::Timestamp { .. }, Some(text)) => Some(text.replacen("+00", "", 1)),
        (_, text) => text,
    })
}

fn interval_text(months: i32, days: i32, micros: i64) -> String {
    match (months, days, micros) {
        (i32::MAX, i32::MAX, i64::MAX) => return "infinity".to_owned(),
        (i32::MIN, i32::MIN, i64::MIN) => return "-infinity".to_owned(),
        _ => {}
    }
    format!("{months} mons {days} days {}", time_text(micros))
}

fn bits_text(column: &AccessColumn, number: i128) -> Result<String, Rejection> {
    if number < 0 {
        return reject(column, "a negative number has no bits");
    }
    let text = format!("{number:b}");
    // bit(n) takes exactly n; bit varying takes what it gets.
    let width = column
        .declared
        .strip_prefix("bit(")
        .and_then(|rest| rest.strip_suffix(')'))
        .and_then(|width| width.parse::<usize>().ok());
    match width {
        Some(width) if text.len() > width => reject(column, "the number has more bits than the column"),
        Some(width) => Ok(format!("{text:0>width$}")),
        None => Ok(text),
    }
}

/// The texts under which a key's value may be stored, where a comparison type takes several for the same.
pub(super) fn key_texts(column: &AccessColumn, value: &Value) -> Vec<String> {
    let Ok(Some(text)) = text_of(column, value) else { return Vec::new() };
    if let (ColumnType::Int { bits, .. }, Ok(number)) = (&column.ty, text.parse::<i128>()) {
        // What the column cannot hold is in no row; asking for it would fail.
        let limit = 1i128 << (i128::from(*bits) - 1);
        if number < -limit || number >= limit {
            return Vec::new();
        }
    }
    if let (ColumnType::Text { .. }, Value::Uuid(_)) = (&column.ty, value) {
        let bare = text.replace('-', "");
        return vec![text.to_uppercase(), bare.to_uppercase(), bare, text];
    }
    vec![text]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Filled;
    use crate::model::temporal::mysql_date;

    fn column(ty: ColumnType, declared: &str, comparison: ComparisonType) -> AccessColumn {
        AccessColumn {
            name: "c".into(),
            ty,
            declared: declared.into(),
            comparison,
            as_text: false,
            filled: Filled::ByWriter,
        }
    }

    #[test]
    fn values_take_the_form_of_their_column() {
        let int = ComparisonType::Integer;
        for (column, value, text) in [
            (column(ColumnType::Bool, "boolean", int.clone()), Value::Int(1), "true"),
            (column(ColumnType::Bits, "bit(4)", int.clone()), Value::Int(5), "0101"),
            (column(ColumnType::Bits, "bit varying(9)", int), Value::Int(5), "101"),
            (
                column(ColumnType::Bytes, "bytea", ComparisonType::Uuid),
                Value::Uuid([0xab; 16]),
                "\\xabababababababababababababababab",
            ),
            (
                column(
                    ColumnType::Timestamp { digits: 6 },
                    "timestamp",
                    ComparisonType::TimestampTz { digits: 6, rounding: crate::model::Rounding::Truncate },
                ),
                Value::TimestampTz(-62_135_596_800_000_001),
                "0001-12-31 23:59:59.999999 BC",
            ),
        ] {
            assert_eq!(text_of(&column, &value), Ok(Some(text.to_owned())));
        }
    }

    #[test]
    fn what_a_column_cannot_hold_is_refused() {
        let int = ComparisonType::Integer;
        for (column, value) in [
            (column(ColumnType::Bool, "boolean", int.clone()), Value::Int(2)),
            (column(ColumnType::Bits, "bit(2)", int.clone()), Value::Int(5)),
            (column(ColumnType::Bits, "bit(2)", int.clone()), Value::Int(-1)),
            (column(ColumnType::Int { bits: 32, signed: true }, "integer", int), {
                Value::Irregular(StoredClass::Text, b"12".to_vec())
            }),
            (
                column(
                    ColumnType::Int { bits: 32, signed: true },
                    "integer",
                    ComparisonType::Decimal { scale: None },
                ),
                Value::Decimal(Decimal::parse("1.5").unwrap()),
            ),
            (
                column(ColumnType::Text { padded: false }, "text", ComparisonType::Text { trim: false }),
                Value::Text("a\0b".into()),
            ),
            (
                column(ColumnType::Text { padded: false }, "name", ComparisonType::Text { trim: false }),
                Value::Text("n".repeat(64)),
            ),
            (
                column(ColumnType::Date, "date", ComparisonType::Date),
                Value::Date(mysql_date(0, 0, 0).unwrap()),
            ),
            (
                column(
                    ColumnType::Decimal { precision: Some(9), scale: Some(2) },
                    "numeric(9,2)",
                    ComparisonType::Decimal { scale: None },
                ),
                Value::Decimal(Decimal::parse("1.001").unwrap()),
            ),
            (
                column(ColumnType::Float { bits: 32 }, "real", ComparisonType::Float { bits: 32 }),
                Value::Irregular(StoredClass::Real, 1e300f64.to_be_bytes().to_vec()),
            ),
            (column(ColumnType::Json, "jsonb", ComparisonType::Json), Value::Json(r#"{"a":1,"a":2}"#.into())),
            (
                column(
                    ColumnType::Text { padded: false },
                    "character varying(2)",
                    ComparisonType::Text { trim: false },
                ),
                Value::Text("é  ".into()),
            ),
        ] {
            let refused = text_of(&column, &value).unwrap_err();
            assert_eq!(refused.kind, RejectionKind::Value);
            assert!(refused.reason.starts_with("column c ("));
        }
    }

    #[test]
    fn only_moments_of_the_last_weeks_pass_for_such() {
        for good in ["294247-01-10 04:00:54.775807", "294276-12-31 23:59:59.999999", "294276-02-29 00:00:00"]
        {
            assert_eq!(far_future(good.as_bytes()).as_deref(), Some(good));
        }
        for bad in [
            "",
            "now",
            "tomorrow",
            "294246-12-31 23:59:59",
            "+94276-12-31 23:59:59",
            "294276-12-31",
            "294276-12-32 00:00:00",
            "294276-12-31 24:00:00",
            "294276-12-31 23:59:59+01",
            "9294276-12-31 23:59:59",
        ] {
            assert_eq!(far_future(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(far_future(b"294276-12-31 \xff"), None);
    }

    #[test]
    fn the_zero_character_is_told_from_its_escape() {
        for (json, holds) in [
            (r#""\u0000""#, true),
            (r#"{"a\\\u0000":1}"#, true),
            (r#""\\u0000""#, false),
            (r#""\u0001 \\""#, false),
            ("", false),
        ] {
            assert_eq!(has_escaped_zero(json), holds, "{json}");
        }
    }

    #[test]
    fn uuid_keys_in_text_are_looked_for_in_their_usual_spellings() {
        let text = column(ColumnType::Text { padded: false }, "text", ComparisonType::Uuid);
        assert_eq!(key_texts(&text, &Value::Uuid([0xab; 16])).len(), 4);
        assert!(key_texts(&text, &Value::Null).is_empty());
    }
}
