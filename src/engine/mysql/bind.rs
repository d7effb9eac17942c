//! From a value to a parameter that its column takes as that value, or the reason why it cannot.
//!
//! MySQL changes some values without an error even in strict mode: it pads binary(n), cuts trailing blanks that do not
//! fit, rounds decimals, reads a number in an enum as an index and a two-digit year as one of four. Such values are
//! refused here.

use sqlx::Arguments as _;
use sqlx::mysql::MySqlArguments;

use super::types::{charset_with_gaps, is, is_geometry, labels, length_of};
use crate::model::decimal::Decimal;
use crate::model::json::repeats_names;
use crate::model::temporal::{date_text, time_text, timestamp_text};
use crate::model::value::uuid_text;
use crate::model::{AccessColumn, ColumnType, ComparisonType, StoredClass, Value};

#[derive(Clone, PartialEq)]
pub(super) enum Bind {
    Null,
    Int(i64),
    UInt(u64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// SRID and well-known text: two parameters.
    Geometry(Option<(u32, String)>),
}

impl std::fmt::Debug for Bind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bind(..)")
    }
}

impl Bind {
    pub(super) fn push(&self, to: &mut MySqlArguments) -> Result<(), sqlx::Error> {
        match self {
            Self::Null => to.add(None::<&str>),
            Self::Int(value) => to.add(*value),
            Self::UInt(value) => to.add(*value),
            Self::Float(value) => to.add(*value),
            Self::Text(value) => to.add(value.as_str()),
            Self::Bytes(value) => to.add(value.as_slice()),
            Self::Geometry(value) => {
                let (srid, text) = value.as_ref().map(|(srid, text)| (*srid, text.as_str())).unzip();
                to.add(text).and_then(|()| to.add(srid.unwrap_or_default()))
            }
        }
        .map_err(sqlx::Error::Encode)
    }

    /// About the bytes it takes on the wire.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Null => 1,
            Self::Int(_) | Self::UInt(_) | Self::Float(_) => 8,
            Self::Text(text) => text.len() + 9,
            Self::Bytes(bytes) => bytes.len() + 9,
            Self::Geometry(value) => value.as_ref().map_or(2, |(_, text)| text.len() + 17),
        }
    }
}

/// The parameter for a value of this column, or why the column cannot hold it.
pub(super) fn bind(column: &AccessColumn, value: &Value) -> Result<Bind, String> {
    convert(column, value).map_err(|why| format!("the value of column {} {why}", column.name))
}

const MISFIT: &str = "cannot be held by its type";

fn convert(column: &AccessColumn, value: &Value) -> Result<Bind, &'static str> {
    if *value == Value::Null {
        return Ok(if is_geometry_text(column) { Bind::Geometry(None) } else { Bind::Null });
    }
    if column.as_text {
        return match value {
            Value::Text(text) => from_text(column, text),
            _ => Err(MISFIT),
        };
    }
    Ok(match (&column.ty, value) {
        (ColumnType::Bool | ColumnType::Int { .. }, Value::Int(value)) => integer(column, *value)?,
        (ColumnType::Bool | ColumnType::Int { .. }, Value::Decimal(value)) => {
            integer(column, value.to_int().ok_or("is no integer")?)?
        }
        (ColumnType::Decimal { scale, .. }, Value::Decimal(value)) => decimal(value, *scale)?,
        (ColumnType::Decimal { .. }, Value::Int(value)) => Bind::Text(value.to_string()),
        (ColumnType::Float { .. }, Value::Irregular(StoredClass::Real, _)) => {
            return Err("is out of the range of its type");
        }
        (ColumnType::Float { .. }, Value::Float32(value)) => float(f64::from(*value))?,
        (ColumnType::Float { .. }, Value::Float64(value)) => float(*value)?,
        (ColumnType::Text { .. }, Value::Text(value) | Value::Json(value)) => text(column, value)?,
        (ColumnType::Text { .. }, Value::Uuid(value)) => {
            let spelled = uuid_text(value);
            // A column of 32 characters keeps uuids without hyphens.
            Bind::Text(if length_of(&column.declared) == Some(32) {
                spelled.replace('-', "")
            } else {
                spelled
            })
        }
        (ColumnType::Text { .. }, Value::Irregular(StoredClass::Text, bytes)) => {
            text(column, std::str::from_utf8(bytes).map_err(|_| MISFIT)?)?
        }
        (ColumnType::Text { .. }, Value::Irregular(StoredClass::Blob, value)) => stored(column, value)?,
        (ColumnType::Bytes, Value::Bytes(value) | Value::Irregular(StoredClass::Blob, value)) => {
            bytes(column, value)?
        }
        (ColumnType::Bytes, Value::Uuid(value)) => bytes(column, value)?,
        (ColumnType::Bits, Value::Bits(value)) => bits(column, value)?,
        (ColumnType::Bits, Value::Int(value)) => {
            let value = u64::try_from(*value).map_err(|_| "is out of range")?;
            let width = length_of(&column.declared).unwrap_or(1);
            if usize::try_from(64 - value.leading_zeros()).map_or(true, |used| used > width) {
                return Err("has more bits than its type");
            }
            Bind::UInt(value)
        }
        (ColumnType::Uuid, Value::Uuid(value)) => Bind::Text(uuid_text(value)),
        (ColumnType::Date, Value::Date(days)) => calendar(date_text(*days))?,
        (ColumnType::Time { .. }, Value::Time(micros)) => Bind::Text(time_text(*micros)),
        (ColumnType::Timestamp { .. }, Value::Timestamp(micros) | Value::TimestampTz(micros))
        | (ColumnType::TimestampTz { .. }, Value::Timestamp(micros) | Value::TimestampTz(micros)) => {
            calendar(timestamp_text(*micros))?
        }
        // MySQL's own type keeps one of them; MariaDB's is text.
        (ColumnType::Json, Value::Json(value)) if is(&column.declared, "json") && repeats_names(value) => {
            return Err("names a member twice, of which its type keeps one");
        }
        (ColumnType::Json, Value::Json(value)) => Bind::Text(value.clone()),
        (ColumnType::Json, Value::Irregular(StoredClass::Text, _)) => return Err("is not JSON"),
        (ColumnType::Named(_), Value::Text(value)) => Bind::Text(value.clone()),
        _ => return Err(MISFIT),
    })
}

fn integer(column: &AccessColumn, value: i128) -> Result<Bind, &'static str> {
    if is(&column.declared, "year") && value != 0 && !(1901..=2155).contains(&value) {
        return Err("is no year the type holds");
    }
    if let Ok(value) = i64::try_from(value) {
        return Ok(Bind::Int(value));
    }
    u64::try_from(value).map(Bind::UInt).map_err(|_| "is out of range")
}

fn decimal(value: &Decimal, scale: Option<u32>) -> Result<Bind, &'static str> {
    match value {
        Decimal::Finite { .. } if scale.is_some_and(|scale| value.scale() > scale) => {
            Err("has more decimal places than its type")
        }
        Decimal::Finite { .. } => Ok(Bind::Text(value.to_string())),
        Decimal::NaN | Decimal::Infinity | Decimal::NegativeInfinity => {
            Err("is NaN or infinite, which its type does not have")
        }
    }
}

fn float(value: f64) -> Result<Bind, &'static str> {
    if value.is_finite() {
        Ok(Bind::Float(value))
    } else {
        Err("is NaN or infinite, which its type does not have")
    }
}

fn text(column: &AccessColumn, value: &str) -> Result<Bind, &'static str> {
    let declared = column.declared.as_str();
    if is(declared, "varchar") && length_of(declared).is_some_and(|most| value.chars().count() > most) {
        return Err("is too long");
    }
    if let Some(labels) = labels(declared) {
        const FOREIGN: &str = "is none of its type's labels";
        if !is(declared, "set") {
            return if labels.iter().any(|label| label == value) {
                Ok(Bind::Text(value.to_owned()))
            } else {
                Err(FOREIGN)
            };
        }
        if column.comparison == ComparisonType::Set {
            return in_order(&labels, value).map(Bind::Text).ok_or(FOREIGN);
        }
        let mut from = labels.iter();
        if !value.is_empty() && !value.split(',').all(|one| from.any(|label| label == one)) {
            return Err(FOREIGN);
        }
    }
    Ok(Bind::Text(value.to_owned()))
}

/// Bytes for which the column's character set has no character, as they are read: behind one that UTF-8 has not. They are sent as
/// bytes, which the server stores as they are, and read back, for they may be characters of this character set.
fn stored(column: &AccessColumn, value: &[u8]) -> Result<Bind, &'static str> {
    match value.split_first() {
        Some((0xff, bytes))
            if charset_with_gaps(&column.declared).is_some() && labels(&column.declared).is_none() =>
        {
            Ok(Bind::Bytes(bytes.to_owned()))
        }
        _ => Err(MISFIT),
    }
}

/// The labels of a set's value in the order in which they are declared.
fn in_order(labels: &[String], value: &str) -> Option<String> {
    if value.is_empty() {
        return Some(String::new());
    }
    let wanted: Vec<&str> = value.split(',').collect();
    let found: Vec<&str> = labels.iter().map(String::as_str).filter(|label| wanted.contains(label)).collect();
    (found.len() == wanted.len()).then(|| found.join(","))
}

/// A geometry that is compared as text.
pub(super) fn is_geometry_text(column: &AccessColumn) -> bool {
    column.as_text && is_geometry(&column.declared)
}

/// `SRID=3857;POINT(1 2)`, or without an SRID where it is none.
fn geometry(text: &str) -> Option<Bind> {
    let Some(rest) = text.strip_prefix("SRID=") else {
        return Some(Bind::Geometry(Some((0, text.to_owned()))));
    };
    let (srid, text) = rest.split_once(';')?;
    Some(Bind::Geometry(Some((srid.parse().ok()?, text.to_owned()))))
}

fn bytes(column: &AccessColumn, value: &[u8]) -> Result<Bind, &'static str> {
    if is(&column.declared, "binary") && length_of(&column.declared).unwrap_or(1) != value.len() {
        return Err("has another length than its type");
    }
    Ok(Bind::Bytes(value.to_vec()))
}

fn bits(column: &AccessColumn, value: &str) -> Result<Bind, &'static str> {
    if value.len() != length_of(&column.declared).unwrap_or(1) {
        return Err("has another length than its type");
    }
    u64::from_str_radix(value, 2).map(Bind::UInt).map_err(|_| MISFIT)
}

/// A date, with or without time, of the years that MySQL writes.
fn calendar(text: String) -> Result<Bind, &'static str> {
    let year = text.split('-').next().map_or(0, str::len);
    if year != 4 || text.ends_with("BC") || text.ends_with("infinity") {
        return Err("is a date beyond the years its type has");
    }
    Ok(Bind::Text(text))
}

/// The other way of the text that a column compared as text is read as.
fn from_text(column: &AccessColumn, value: &str) -> Result<Bind, &'static str> {
    Ok(match &column.ty {
        ColumnType::Bool | ColumnType::Int { .. } => {
            integer(column, value.parse().map_err(|_| "is no integer")?)?
        }
        ColumnType::Decimal { scale, .. } => decimal(&Decimal::parse(value).ok_or("is no decimal")?, *scale)?,
        ColumnType::Float { .. } => float(value.parse().map_err(|_| "is no number")?)?,
        ColumnType::Bits => bits(column, value)?,
        ColumnType::Bytes if is_geometry_text(column) => geometry(value).ok_or("is no geometry")?,
        ColumnType::Bytes => bytes(column, &from_hex(value).ok_or("is no \\x and hex digits")?)?,
        ColumnType::Text { .. } => text(column, value)?,
        _ => Bind::Text(value.to_owned()),
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    if digits.len() % 2 == 1 {
        return None;
    }
    let nibble = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ComparisonType, Filled};

    fn column(ty: ColumnType, declared: &str) -> AccessColumn {
        AccessColumn {
            name: "c".into(),
            ty,
            declared: declared.into(),
            comparison: ComparisonType::Integer,
            as_text: false,
            filled: Filled::ByWriter,
        }
    }

    #[test]
    fn values_that_mysql_would_change_in_silence_are_refused() {
        use ColumnType as T;
        let text = |of: &str| Value::Text(of.to_owned());
        let varying = T::Text { padded: false };
        let year = T::Int { bits: 16, signed: false };
        for (ty, declared, value) in [
            (varying.clone(), "varchar(2)", text("ab ")),
            (varying.clone(), "enum('a','b')", text("1")),
            (varying.clone(), "enum('a','b')", text("A")),
            (varying.clone(), "set('a','b')", text("b,a")),
            (varying, "set('a','b')", text("a,a")),
            (T::Bytes, "binary(4)", Value::Bytes(vec![1])),
            (year, "year(4)", Value::Int(70)),
            (
                T::Decimal { precision: Some(4), scale: Some(1) },
                "decimal(4,1)",
                Value::Decimal(Decimal::parse("1.25").unwrap()),
            ),
            (T::Int { bits: 32, signed: true }, "int(11)", Value::Decimal(Decimal::parse("1.5").unwrap())),
            (T::Bits, "bit(4)", Value::Bits("101".into())),
            (T::Bits, "bit(4)", Value::Int(16)),
            (T::Float { bits: 64 }, "double", Value::Float64(f64::NAN)),
            (
                T::Float { bits: 32 },
                "float",
                Value::Irregular(StoredClass::Real, 1e300f64.to_be_bytes().to_vec()),
            ),
            (T::Json, "json", Value::Json(r#"{"a":1,"a":2}"#.into())),
            (T::Date, "date", Value::Date(i32::MAX)),
            (T::Timestamp { digits: 6 }, "datetime(6)", Value::Timestamp(-99_999_999_999_999_999)),
            (T::Int { bits: 32, signed: true }, "int", text("1")),
        ] {
            let refused = bind(&column(ty, declared), &value);
            assert!(refused.is_err(), "{declared}");
        }
    }

    #[test]
    fn values_in_the_form_their_column_takes() {
        use ColumnType as T;
        let varying = T::Text { padded: false };
        let odd = crate::model::temporal::mysql_date(2024, 0, 15).unwrap();
        let uuid = Value::Uuid([0x11; 16]);
        for (ty, declared, value, expected) in [
            (T::Bits, "bit(4)", Value::Bits("0101".into()), Bind::UInt(5)),
            (
                T::Json,
                "longtext COLLATE utf8mb4_bin",
                Value::Json(r#"{"a":1,"a":2}"#.into()),
                Bind::Text(r#"{"a":1,"a":2}"#.into()),
            ),
            (T::Date, "date", Value::Date(odd), Bind::Text("2024-00-15".into())),
            (varying.clone(), "char(32)", uuid.clone(), Bind::Text("1".repeat(32))),
            (T::Bytes, "binary(16)", uuid, Bind::Bytes(vec![0x11; 16])),
            (varying, "set('a','b')", Value::Text("a,b".into()), Bind::Text("a,b".into())),
            (
                T::Int { bits: 64, signed: false },
                "bigint unsigned",
                Value::Int(i128::from(u64::MAX)),
                Bind::UInt(u64::MAX),
            ),
        ] {
            assert!(bind(&column(ty, declared), &value) == Ok(expected), "{declared}");
        }
        let mut set = column(T::Text { padded: false }, "set('b','a','c')");
        set.comparison = ComparisonType::Set;
        assert!(bind(&set, &Value::Text("a,b".into())) == Ok(Bind::Text("b,a".into())));
        assert!(bind(&set, &Value::Text(String::new())) == Ok(Bind::Text(String::new())));
        assert!(bind(&set, &Value::Text("a,d".into())).is_err());
        let mut point = column(T::Bytes, "point");
        point.as_text = true;
        let written = |text: &str| bind(&point, &Value::Text(text.to_owned()));
        assert!(written("SRID=3857;POINT(1 2)") == Ok(Bind::Geometry(Some((3857, "POINT(1 2)".to_owned())))));
        assert!(written("POINT(1 2)") == Ok(Bind::Geometry(Some((0, "POINT(1 2)".to_owned())))));
        assert!(written("SRID=x;POINT(1 2)").is_err() && written("SRID=4").is_err());
        assert!(bind(&point, &Value::Null) == Ok(Bind::Geometry(None)));
        let mut as_text = column(T::Bytes, "blob");
        as_text.as_text = true;
        assert!(bind(&as_text, &Value::Text("\\x01ff".into())) == Ok(Bind::Bytes(vec![1, 255])));
        assert!(bind(&as_text, &Value::Text("\\x01f".into())).is_err());
    }
}
