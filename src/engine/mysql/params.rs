//! Values on their way into the database: as bound parameters of the right type, or refused.

use sqlx::Arguments;
use sqlx::mysql::MySqlArguments;

use crate::engine::{EngineError, ErrorKind};
use crate::model::value::uuid_text;
use crate::model::{AccessColumn, ColumnType, Rejection, RejectionKind, StoredClass, Value};

/// A parameter of the binary protocol.
#[derive(Clone)]
pub(super) enum Param {
    Null,
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
}

pub(super) fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

pub(super) fn quoted_table(table: &crate::model::TableName) -> String {
    match &table.schema {
        Some(schema) => format!("{}.{}", quote(schema), quote(&table.name)),
        None => quote(&table.name),
    }
}

/// The placeholder of a column: a plain one, but decimals, which would be compared as floats.
pub(super) fn placeholder(column: &AccessColumn) -> &'static str {
    match column.ty {
        ColumnType::Decimal { .. } if !column.as_text => "CAST(? AS DECIMAL(65,30))",
        _ => "?",
    }
}

pub(super) fn refuse(column: &AccessColumn, why: &str) -> Rejection {
    Rejection { kind: RejectionKind::Value, reason: format!("column {} {why}", column.name) }
}

/// The parameter that stores `value` in `column`.
pub(super) fn param(column: &AccessColumn, value: &Value) -> Result<Param, Rejection> {
    let no = |why| Err(refuse(column, why));
    let plain = |value: &Value| value.to_text().map_or(Param::Null, Param::Text);
    Ok(match (value, &column.ty) {
        (Value::Null, _) => Param::Null,
        (Value::Int(value), ColumnType::Bits) => match u64::try_from(*value) {
            Ok(value) => Param::UInt(value),
            Err(_) => return no("takes no negative number"),
        },
        (Value::Int(value), _) => match (i64::try_from(*value), u64::try_from(*value)) {
            (Ok(value), _) => Param::Int(value),
            (_, Ok(value)) => Param::UInt(value),
            _ => Param::Text(value.to_string()),
        },
        (Value::Decimal(decimal), ColumnType::Int { .. }) => match decimal.to_int().map(i64::try_from) {
            Some(Ok(value)) => Param::Int(value),
            Some(Err(_)) => Param::Text(decimal.to_string()),
            None => return no("takes whole numbers only"),
        },
        (Value::Decimal(decimal), _) => match decimal {
            crate::model::decimal::Decimal::Finite { .. } => Param::Text(decimal.to_string()),
            _ => return no("takes no NaN and no infinity"),
        },
        (Value::Float32(value), _) if !value.is_finite() => return no("takes no NaN and no infinity"),
        (Value::Float64(value), _) if !value.is_finite() => return no("takes no NaN and no infinity"),
        // As text: a float32 widened to a double has digits that a FLOAT column would keep no better.
        (Value::Float32(value), _) => Param::Double(f64::from(*value)),
        (Value::Float64(value), _) => Param::Double(*value),
        (Value::Bytes(bytes), ColumnType::Bytes) => Param::Bytes(bytes.clone()),
        (Value::Bits(bits), ColumnType::Bits) => match u64::from_str_radix(bits, 2) {
            Ok(value) => Param::UInt(value),
            Err(_) => return no("holds no such bit string"),
        },
        (Value::Uuid(bytes), ColumnType::Bytes) => Param::Bytes(bytes.to_vec()),
        (Value::Uuid(bytes), _) => Param::Text(uuid_text(bytes)),
        (Value::Date(_) | Value::Timestamp(_), _) => calendar(column, value)?,
        (Value::TimestampTz(micros), _) => calendar(column, &Value::Timestamp(*micros))?,
        (Value::Irregular(StoredClass::Blob, bytes), ColumnType::Bytes) => Param::Bytes(bytes.clone()),
        (Value::Irregular(StoredClass::Text, _), ColumnType::Text { .. } | ColumnType::Json) => plain(value),
        (Value::Irregular(..), _) => return no("cannot hold the source's value"),
        (Value::Bytes(_) | Value::Interval { .. } | Value::TimeTz { .. } | Value::Array(_), _) => {
            return no("cannot hold the source's value");
        }
        (Value::Text(_) | Value::Json(_) | Value::Bits(_) | Value::Time(_), _) => plain(value),
    })
}

/// Years 0 to 9999, zero dates included; no infinities and no BC.
fn calendar(column: &AccessColumn, value: &Value) -> Result<Param, Rejection> {
    let text = value.to_text().unwrap_or_default();
    let year = text.split('-').next().unwrap_or_default();
    if text.ends_with("BC") || text.ends_with("infinity") || year.len() != 4 {
        return Err(refuse(column, "takes no date beyond the years 0 to 9999"));
    }
    Ok(Param::Text(text))
}

pub(super) fn add(arguments: &mut MySqlArguments, param: Param, during: &str) -> Result<(), EngineError> {
    let added = match param {
        Param::Null => arguments.add(None::<i64>),
        Param::Int(value) => arguments.add(value),
        Param::UInt(value) => arguments.add(value),
        Param::Double(value) => arguments.add(value),
        Param::Text(text) => arguments.add(text),
        Param::Bytes(bytes) => arguments.add(bytes),
    };
    added.map_err(|_| EngineError::new(ErrorKind::Database, during, "a value could not be sent"))
}

/// The parameter as a literal, for SQL that a person runs.
pub(super) fn literal(param: &Param) -> String {
    match param {
        Param::Null => "NULL".to_owned(),
        Param::Int(value) => value.to_string(),
        Param::UInt(value) => value.to_string(),
        Param::Double(value) => format!("{value:e}"),
        // Hex literals need no escapes under any sql_mode; the introducer names the character set.
        Param::Text(text) if text.contains(['\\', '\0']) => {
            format!("CONVERT(x'{}' USING utf8mb4)", crate::model::value::hex(text.as_bytes()))
        }
        Param::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Param::Bytes(bytes) => format!("x'{}'", crate::model::value::hex(bytes)),
    }
}
