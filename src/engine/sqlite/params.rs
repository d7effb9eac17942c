//! Values on their way into SQLite: as its own storage classes, or refused; and changes as SQL text.

use rusqlite::types::Value as Stored;

use crate::engine::{EngineError, ErrorKind};
use crate::model::canonical::{decode_key, decode_row};
use crate::model::value::{hex, uuid_text};
use crate::model::{
    AccessColumn, Change, ColumnType, ComparisonType, Filled, Operation, Rejection, RejectionKind,
    StoredClass, TableAccess, Value,
};

pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn refuse<T>(column: &AccessColumn, why: &str) -> Result<T, Rejection> {
    Err(Rejection { kind: RejectionKind::Value, reason: format!("column {} {why}", column.name) })
}

/// What SQLite stores for `value` in `column`.
pub(super) fn stored(column: &AccessColumn, value: &Value) -> Result<Stored, Rejection> {
    let text = |value: &Value| Stored::Text(value.to_text().unwrap_or_default());
    Ok(match value {
        Value::Null => Stored::Null,
        Value::Int(value) => match i64::try_from(*value) {
            Ok(value) => Stored::Integer(value),
            Err(_) => return refuse(column, "takes integers of 64 bits only"),
        },
        Value::Decimal(decimal) => match decimal.to_int().map(i64::try_from) {
            Some(Ok(value)) => Stored::Integer(value),
            // SQLite keeps decimals as doubles; one that a double cannot hold would come back as another.
            _ => {
                let real = decimal.to_f64();
                let kept = crate::model::decimal::Decimal::from_f64(real);
                let same = match &column.comparison {
                    ComparisonType::Decimal { scale: Some(scale) } => kept.rounded(*scale) == *decimal,
                    _ => kept == *decimal,
                };
                if !same || !real.is_finite() {
                    return refuse(column, "keeps decimals as doubles, which cannot hold this one");
                }
                Stored::Real(real)
            }
        },
        Value::Float32(value) => Stored::Real(f64::from(*value)),
        // SQLite stores NaN as NULL.
        Value::Float64(value) if value.is_nan() => return refuse(column, "takes no NaN"),
        Value::Float64(value) => Stored::Real(*value),
        Value::Bytes(bytes) => Stored::Blob(bytes.clone()),
        Value::Uuid(bytes) if column.ty == ColumnType::Bytes => Stored::Blob(bytes.to_vec()),
        Value::Uuid(bytes) => Stored::Text(uuid_text(bytes)),
        Value::Irregular(StoredClass::Integer, bytes) => {
            Stored::Integer(i64::from_be_bytes(bytes.as_slice().try_into().unwrap_or_default()))
        }
        Value::Irregular(StoredClass::Real, bytes) => {
            Stored::Real(f64::from_be_bytes(bytes.as_slice().try_into().unwrap_or_default()))
        }
        Value::Irregular(StoredClass::Text, bytes) => match String::from_utf8(bytes.clone()) {
            Ok(text) => Stored::Text(text),
            Err(_) => return refuse(column, "holds text that is not UTF-8, which cannot be bound"),
        },
        Value::Irregular(StoredClass::Blob, bytes) => Stored::Blob(bytes.clone()),
        Value::TimestampTz(_) if column.ty == (ColumnType::Timestamp { digits: 6 }) => {
            // The zoneless side reads as UTC.
            Stored::Text(value.to_text().unwrap_or_default().trim_end_matches("+00").to_owned())
        }
        Value::Array(_) | Value::Interval { .. } | Value::TimeTz { .. } => {
            return refuse(column, "has no form for the source's value");
        }
        Value::Text(_)
        | Value::Bits(_)
        | Value::Json(_)
        | Value::Date(_)
        | Value::Time(_)
        | Value::Timestamp(_)
        | Value::TimestampTz(_) => text(value),
    })
}

fn literal(stored: &Stored) -> String {
    match stored {
        Stored::Null => "NULL".to_owned(),
        Stored::Integer(value) => value.to_string(),
        Stored::Real(value) if value.is_infinite() => {
            if *value > 0.0 { "9e999" } else { "-9e999" }.to_owned()
        }
        Stored::Real(value) => format!("{value:?}"),
        Stored::Text(text) if text.contains('\0') => format!("CAST(x'{}' AS TEXT)", hex(text.as_bytes())),
        Stored::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Stored::Blob(bytes) => format!("x'{}'", hex(bytes)),
    }
}

/// Key and row as SQLite stores them.
type KeyAndRow = (Vec<Stored>, Vec<Stored>);

/// The values of a change's key, and of its new row, or why they cannot be stored.
pub(super) fn values(
    access: &TableAccess,
    change: &Change,
) -> Result<Result<KeyAndRow, Rejection>, EngineError> {
    let bad = |error: &dyn std::fmt::Display| {
        EngineError::new(ErrorKind::Row, format!("write to {}", access.table), error.to_string())
    };
    let bind = |columns: &[AccessColumn], values: &[Value]| -> Result<Vec<Stored>, Rejection> {
        columns.iter().zip(values).map(|(column, value)| stored(column, value)).collect()
    };
    let key = decode_key(&access.key_types(), change.key.as_bytes()).map_err(|error| bad(&error))?;
    let row = match &change.after {
        None => Vec::new(),
        Some(row) => decode_row(&access.row_types(), row.as_bytes()).map_err(|error| bad(&error))?,
    };
    Ok(bind(access.key_columns(), &key).and_then(|key| Ok((key, bind(access.row_columns(), &row)?))))
}

pub(super) fn statement(access: &TableAccess, change: &Change) -> Result<String, EngineError> {
    let (key, row) = values(access, change)?.map_err(|rejection| {
        EngineError::new(ErrorKind::Row, format!("write SQL for {}", access.table), rejection.reason)
    })?;
    let equal = |columns: &[AccessColumn], values: &[Stored], updated: bool, joint: &str| {
        let pairs =
            columns.iter().zip(values).filter(|(column, _)| !updated || column.filled == Filled::ByWriter);
        pairs
            .map(|(column, value)| format!("{} = {}", quote(&column.name), literal(value)))
            .collect::<Vec<_>>()
            .join(joint)
    };
    let table = quote(&access.table.name);
    let condition = equal(access.key_columns(), &key, false, " AND ");
    Ok(match change.operation() {
        Operation::Delete => format!("DELETE FROM {table} WHERE {condition};"),
        Operation::Update => {
            format!("UPDATE {table} SET {} WHERE {condition};", equal(access.row_columns(), &row, true, ", "))
        }
        Operation::Insert => {
            let pairs = access
                .columns
                .iter()
                .zip(key.iter().chain(&row))
                .filter(|(column, _)| column.filled != Filled::Generated);
            let (names, values): (Vec<String>, Vec<String>) =
                pairs.map(|(column, value)| (quote(&column.name), literal(value))).unzip();
            format!("INSERT INTO {table} ({}) VALUES ({});", names.join(", "), values.join(", "))
        }
    })
}
