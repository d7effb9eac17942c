//! SQLite's types: what a declaration means, and how a stored value, of whatever class, becomes canonical.

use rusqlite::types::ValueRef;

use crate::engine::RowError;
use crate::model::{ColumnType, ComparisonType, RowBuffer, StoredClass, TableAccess};

/// From the declared type, by the names that other databases use; SQLite itself knows affinities only.
pub(super) fn column_type(declared: &str) -> ColumnType {
    let lower = declared.to_lowercase();
    let (base, arguments) = lower.split_once('(').unwrap_or((&lower, ""));
    let base = base.trim();
    let mut numbers =
        arguments.trim_end_matches(')').split(',').map(|number| number.trim().parse::<u32>().ok());
    let (first, second) = (numbers.next().flatten(), numbers.next().flatten());
    match base {
        "" | "any" => ColumnType::Unsupported("untyped SQLite column".to_owned()),
        "boolean" | "bool" => ColumnType::Bool,
        "decimal" | "numeric" | "number" | "money" => {
            ColumnType::Decimal { precision: first, scale: first.map(|_| second.unwrap_or(0)) }
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
                Ok(text) => writer.text_as(comparison, text),
                Err(_) => writer.irregular(StoredClass::Text, bytes),
            },
            (ValueRef::Blob(bytes), comparison) => writer.bytes_as(comparison, bytes),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_mean_what_their_names_say() {
        for (declared, expected) in [
            ("INTEGER", ColumnType::Int { bits: 64, signed: true }),
            ("UNSIGNED BIG INT", ColumnType::Int { bits: 64, signed: true }),
            ("VARCHAR(16)", ColumnType::Text { padded: false }),
            ("NATIVE CHARACTER(70)", ColumnType::Text { padded: false }),
            ("DECIMAL(12, 2)", ColumnType::Decimal { precision: Some(12), scale: Some(2) }),
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
