//! Values on their way into SQLite: as its own storage classes, or refused; and changes as SQL text.

use super::spelling::spellings;
use super::stored::Stored;
use crate::engine::{EngineError, ErrorKind};
use crate::model::canonical::{DecodeError, decode_key, decode_row, split_cells};
use crate::model::value::uuid_text;
use crate::model::{
    AccessColumn, Change, ColumnType, ComparisonType, Filled, Key, Operation, Rejection, RejectionKind,
    StoredClass, TableAccess, Value,
};

pub(super) const NOTHING_TO_WRITE: &str = "no column of the row can be written";

pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A column with its table's name before it: without one, a name that no column has might be read as a text.
pub(super) fn qualified(access: &TableAccess, column: &str) -> String {
    format!("{}.{}", quote(&access.table.name), quote(column))
}

fn refuse<T>(column: &AccessColumn, why: &str) -> Result<T, Rejection> {
    Err(Rejection { kind: RejectionKind::Value, reason: format!("column {} {why}", column.name) })
}

/// What SQLite stores for `value` in `column`.
pub(super) fn stored(column: &AccessColumn, value: &Value) -> Result<Stored, Rejection> {
    let text = |value: &Value| Stored::text(value.to_text().unwrap_or_default());
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
        Value::Uuid(bytes) => Stored::text(uuid_text(bytes)),
        Value::Irregular(StoredClass::Integer, bytes) => {
            Stored::Integer(i64::from_be_bytes(bytes.as_slice().try_into().unwrap_or_default()))
        }
        Value::Irregular(StoredClass::Real, bytes) => {
            Stored::Real(f64::from_be_bytes(bytes.as_slice().try_into().unwrap_or_default()))
        }
        Value::Irregular(StoredClass::Text, bytes) => Stored::Text(bytes.clone()),
        Value::Irregular(StoredClass::Blob, bytes) => Stored::Blob(bytes.clone()),
        Value::TimestampTz(_) if column.ty == (ColumnType::Timestamp { digits: 6 }) => {
            // The zoneless side reads as UTC.
            Stored::text(value.to_text().unwrap_or_default().trim_end_matches("+00"))
        }
        Value::Array(_) | Value::Interval { .. } | Value::TimeTz { .. } => {
            return refuse(column, "has no form for the source's value");
        }
        Value::Text(_)
        | Value::Bits(_)
        | Value::Json(_)
        | Value::Date(_)
        | Value::Time(_)
        | Value::Timestamp(_) => text(value),
        // SQLite's own functions read no offset that is shorter.
        Value::TimestampTz(_) => match value.to_text() {
            Some(text) if text.ends_with("+00") => Stored::text(format!("{text}:00")),
            _ => text(value),
        },
    })
}

/// What SQLite stores for the columns behind the key, or why it cannot.
pub(super) fn row_values(
    access: &TableAccess,
    row: &[u8],
    during: &str,
) -> Result<Result<Vec<Stored>, Rejection>, EngineError> {
    let values = decode_row(&access.row_types(), row)
        .map_err(|error| EngineError::new(ErrorKind::Row, during, error.to_string()))?;
    Ok(access.row_columns().iter().zip(&values).map(|(column, value)| stored(column, value)).collect())
}

/// What is stored in some of a row's columns.
type Cells<'a> = Vec<(&'a AccessColumn, Stored)>;

/// What SQLite stores for the cells of a row that differ from another, with their columns: those alone are written. An equal cell
/// stays as it is stored, and need not be one that could be written.
pub(super) fn changed_values<'a>(
    access: &'a TableAccess,
    before: &[u8],
    after: &[u8],
    during: &str,
) -> Result<Result<Cells<'a>, Rejection>, EngineError> {
    let failed = |error: DecodeError| EngineError::new(ErrorKind::Row, during, error.to_string());
    let (old, new) = (split_cells(before).map_err(failed)?, split_cells(after).map_err(failed)?);
    let values = decode_row(&access.row_types(), after).map_err(failed)?;
    let differs = |at: usize| old.get(at) != new.get(at);
    let cells = access.row_columns().iter().zip(&values).enumerate();
    Ok(cells
        .filter(|(at, (column, _))| differs(*at) && column.filled == Filled::ByWriter)
        .map(|(_, (column, value))| Ok((column, stored(column, value)?)))
        .collect())
}

/// The same of a key.
pub(super) fn key_values(
    access: &TableAccess,
    key: &Key,
    during: &str,
) -> Result<Result<Vec<Stored>, Rejection>, EngineError> {
    let values = decoded_key(access, key, during)?;
    Ok(access.key_columns().iter().zip(&values).map(|(column, value)| stored(column, value)).collect())
}

pub(super) fn decoded_key(access: &TableAccess, key: &Key, during: &str) -> Result<Vec<Value>, EngineError> {
    decode_key(&access.key_types(), key.as_bytes())
        .map_err(|error| EngineError::new(ErrorKind::Row, during, error.to_string()))
}

/// The first key column whose value may be stored otherwise than it would be written.
pub(super) fn inexact_column<'a>(
    access: &'a TableAccess,
    key: &Key,
    during: &str,
) -> Result<Option<&'a str>, EngineError> {
    let values = decoded_key(access, key, during)?;
    let mut columns = access.key_columns().iter().zip(&values);
    // Whether the file keeps text in UTF-8 is not known here.
    let inexact = columns.find(|(column, value)| {
        matches!(column.comparison, ComparisonType::Text { trim: true })
            || stored(column, value).is_err()
            || !spellings(column, value, false).complete
    });
    Ok(inexact.map(|(column, _)| column.name.as_str()))
}

/// The change as SQL text. `key` is the key as it is stored. `resolves_conflicts`: a constraint of the table would delete
/// other rows, or pass the row over, unless the statement says otherwise.
pub(super) fn statement(
    access: &TableAccess,
    change: &Change,
    key: &[Stored],
    resolves_conflicts: bool,
) -> Result<String, EngineError> {
    let or = if resolves_conflicts { " OR ABORT" } else { "" };
    let during = format!("write SQL for {}", access.table);
    let refused = |rejection: Rejection| EngineError::new(ErrorKind::Row, &during, rejection.reason);
    let before = match &change.before {
        Some(row) => decode_row(&access.row_types(), row.as_bytes())
            .map_err(|error| EngineError::new(ErrorKind::Row, &during, error.to_string()))?,
        None => Vec::new(),
    };
    // The row is written while it still holds what was compared, where all spellings of that are known.
    let held = |name: &str| {
        let at = access.row_columns().iter().position(|column| column.name == name)?;
        let (column, value) = (access.row_columns().get(at)?, before.get(at)?);
        if matches!(value, Value::Null) {
            return Some(format!("{} IS NULL", quote(name)));
        }
        let spellings = spellings(column, value, false);
        let each: Vec<String> = spellings.values.iter().map(|value| equals(name, value)).collect();
        match each.as_slice() {
            _ if !spellings.complete => None,
            [] => None,
            [one] => Some(one.clone()),
            many => Some(format!("({})", many.join(" OR "))),
        }
    };
    let table = quote(&access.table.name);
    let mut condition: Vec<String> =
        access.key_columns().iter().zip(key).map(|(column, value)| equals(&column.name, value)).collect();
    Ok(match (change.operation(), &change.before, &change.after) {
        (Operation::Update, Some(old), Some(new)) => {
            let cells = changed_values(access, old.as_bytes(), new.as_bytes(), &during)?.map_err(refused)?;
            if cells.is_empty() {
                return Err(EngineError::new(ErrorKind::Row, during, NOTHING_TO_WRITE));
            }
            condition.extend(cells.iter().filter_map(|(column, _)| held(&column.name)));
            let sets: Vec<String> = cells
                .iter()
                .map(|(column, value)| format!("{} = {}", quote(&column.name), value.literal()))
                .collect();
            format!("UPDATE{or} {table} SET {} WHERE {};", sets.join(", "), condition.join(" AND "))
        }
        (Operation::Insert, _, Some(new)) => {
            let row = row_values(access, new.as_bytes(), &during)?.map_err(refused)?;
            let pairs = access
                .columns
                .iter()
                .zip(key.iter().chain(&row))
                .filter(|(column, _)| column.filled != Filled::Generated);
            let (names, values): (Vec<String>, Vec<String>) =
                pairs.map(|(column, value)| (quote(&column.name), value.literal())).unzip();
            format!("INSERT{or} INTO {table} ({}) VALUES ({});", names.join(", "), values.join(", "))
        }
        _ => {
            condition.extend(access.row_columns().iter().filter_map(|column| held(&column.name)));
            format!("DELETE FROM {table} WHERE {};", condition.join(" AND "))
        }
    })
}

/// Whatever the column's collation holds equal, only this text is meant.
fn equals(column: &str, value: &Stored) -> String {
    let binary = if matches!(value, Stored::Text(_)) { " COLLATE BINARY" } else { "" };
    format!("{} = {}{binary}", quote(column), value.literal())
}
