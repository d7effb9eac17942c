//! SQL text: identifiers quoted, values as parameters; and whole statements for a person to read.

use std::fmt::Write as _;

use super::bind::{Bind, bind};
use super::types::length_of;
use crate::engine::{EngineError, ErrorKind};
use crate::model::canonical::{decode_key, decode_row};
use crate::model::value::hex;
use crate::model::{AccessColumn, Change, ColumnType, TableAccess, TableName, Value};

pub(super) fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

pub(super) fn quote_table(table: &TableName) -> String {
    match &table.schema {
        Some(schema) => format!("{}.{}", quote(schema), quote(&table.name)),
        None => quote(&table.name),
    }
}

/// A column as it is read.
fn reading(column: &AccessColumn) -> String {
    let name = quote(&column.name);
    let text = |of: &str| format!("CAST({of} AS CHAR CHARACTER SET utf8mb4)");
    match (&column.ty, column.as_text) {
        (ColumnType::Named(_), _) => text(&name),
        (_, false) => name,
        (ColumnType::Bytes, _) => text(&format!("CONCAT('\\\\x', LOWER(HEX({name})))")),
        (ColumnType::Bits, _) => {
            let width = length_of(&column.declared).unwrap_or(1);
            text(&format!("LPAD(BIN({name} + 0), {width}, '0')"))
        }
        // A FLOAT's own text has six digits only.
        (ColumnType::Float { bits: 32 }, _) => text(&format!("({name} + 0e0)")),
        (ColumnType::Unsupported(ty), _) if is_geometry(ty) => text(&format!("ST_AsText({name})")),
        _ => text(&name),
    }
}

fn is_geometry(ty: &str) -> bool {
    [
        "geometry",
        "point",
        "linestring",
        "polygon",
        "multipoint",
        "multilinestring",
        "multipolygon",
        "geometrycollection",
        "geomcollection",
    ]
    .contains(&ty)
}

/// The place of a parameter where it is stored.
fn place(column: &AccessColumn) -> &'static str {
    match &column.ty {
        ColumnType::Unsupported(ty) if is_geometry(ty) => "ST_GeomFromText(?)",
        _ => "?",
    }
}

/// The place of a parameter that a key is compared with. Decimals are sent as text, and a decimal and a text would be
/// compared as floats.
fn key_place(column: &AccessColumn) -> String {
    match &column.ty {
        ColumnType::Decimal { precision: Some(precision), scale: Some(scale) } => {
            format!("CAST(? AS DECIMAL({precision},{scale}))")
        }
        ColumnType::Decimal { .. } => "CAST(? AS DECIMAL(65,30))".to_owned(),
        _ => "?".to_owned(),
    }
}

/// `SELECT columns FROM table`, without a condition.
pub(super) fn select(access: &TableAccess) -> String {
    let columns: Vec<String> = access.columns.iter().map(reading).collect();
    format!("SELECT {} FROM {}", columns.join(", "), quote_table(&access.table))
}

/// ` WHERE` all of these conditions; the user's own stands on lines of its own, so that a comment in it ends there.
pub(super) fn where_all(conditions: &[String], filter: Option<&str>) -> String {
    let filter = filter.map(|filter| format!("(\n{filter}\n)"));
    let all: Vec<&str> = conditions.iter().map(String::as_str).chain(filter.as_deref()).collect();
    if all.is_empty() { String::new() } else { format!(" WHERE {}", all.join(" AND ")) }
}

/// The condition that holds for `count` keys, with their parameters in key order. Row constructors: MySQL since 5.7
/// and MariaDB read them as ranges of the index.
pub(super) fn keys_condition(access: &TableAccess, count: usize) -> String {
    let columns: Vec<String> = access.key_columns().iter().map(|column| quote(&column.name)).collect();
    let places: Vec<String> = access.key_columns().iter().map(key_place).collect();
    match columns.as_slice() {
        [one] => format!("{one} IN ({})", vec![places.concat(); count].join(",")),
        many => {
            let row = format!("({})", places.join(","));
            format!("({}) IN ({})", many.join(","), vec![row; count].join(","))
        }
    }
}

/// The condition that one row has this key.
fn key_condition(access: &TableAccess) -> String {
    let one = |column: &AccessColumn| format!("{} = {}", quote(&column.name), key_place(column));
    access.key_columns().iter().map(one).collect::<Vec<_>>().join(" AND ")
}

pub(super) fn insert(access: &TableAccess, rows: usize) -> String {
    let columns: Vec<String> = writable(access).map(|column| quote(&column.name)).collect();
    let places: Vec<&str> = writable(access).map(place).collect();
    let row = format!("({})", places.join(","));
    format!(
        "INSERT INTO {} ({}) VALUES {}",
        quote_table(&access.table),
        columns.join(","),
        vec![row; rows].join(",")
    )
}

/// One row's update; `kept` are columns that the server would otherwise set by itself.
/// `None` where there is nothing to set.
pub(super) fn update(access: &TableAccess, kept: &[String]) -> Option<String> {
    let set = access
        .row_columns()
        .iter()
        .filter(|column| is_writable(column))
        .map(|column| format!("{} = {}", quote(&column.name), place(column)));
    let kept = kept.iter().map(|name| format!("{0} = {0}", quote(name)));
    let set: Vec<String> = set.chain(kept).collect();
    (!set.is_empty()).then(|| {
        format!(
            "UPDATE {} SET {} WHERE {}",
            quote_table(&access.table),
            set.join(", "),
            key_condition(access)
        )
    })
}

pub(super) fn delete(access: &TableAccess, rows: usize) -> String {
    format!("DELETE FROM {} WHERE {}", quote_table(&access.table), keys_condition(access, rows))
}

pub(super) fn is_writable(column: &AccessColumn) -> bool {
    column.filled != crate::model::Filled::Generated
}

/// The columns that are written, in access order.
pub(super) fn writable(access: &TableAccess) -> impl Iterator<Item = &AccessColumn> {
    access.columns.iter().filter(|column| is_writable(column))
}

/// The change as a statement of its own.
pub(super) fn spelled(access: &TableAccess, change: &Change) -> Result<String, EngineError> {
    let during = || format!("write a statement for {}", access.table);
    let malformed = |error: crate::model::canonical::DecodeError| {
        EngineError::new(ErrorKind::Row, during(), error.to_string())
    };
    let literals = |columns: &[AccessColumn], values: &[Value]| {
        let one = |(column, value): (&AccessColumn, &Value)| {
            bind(column, value)
                .map(|bound| literal(column, &bound))
                .map_err(|why| EngineError::new(ErrorKind::Row, during(), why))
        };
        columns.iter().zip(values).map(one).collect::<Result<Vec<String>, EngineError>>()
    };
    let key = decode_key(&access.key_types(), change.key.as_bytes()).map_err(malformed)?;
    let key = literals(access.key_columns(), &key)?;
    let pairs = |columns: &[AccessColumn], values: &[String], between: &str| {
        let pair = |(column, value): (&AccessColumn, &String)| format!("{} = {value}", quote(&column.name));
        let written = columns.iter().zip(values).filter(|(column, _)| is_writable(column));
        written.map(pair).collect::<Vec<_>>().join(between)
    };
    let found: Vec<String> = access
        .key_columns()
        .iter()
        .zip(&key)
        .map(|(column, value)| format!("{} = {value}", quote(&column.name)))
        .collect();
    let table = quote_table(&access.table);
    let condition = found.join(" AND ");
    let Some(after) = &change.after else {
        return Ok(format!("DELETE FROM {table} WHERE {condition};"));
    };
    let row = decode_row(&access.row_types(), after.as_bytes()).map_err(malformed)?;
    let row = literals(access.row_columns(), &row)?;
    if change.before.is_some() {
        let set = pairs(access.row_columns(), &row, ", ");
        return Ok(format!("UPDATE {table} SET {set} WHERE {condition};"));
    }
    let all: Vec<(&AccessColumn, String)> = access
        .columns
        .iter()
        .zip(key.into_iter().chain(row))
        .filter(|(column, _)| is_writable(column))
        .collect();
    let names: Vec<String> = all.iter().map(|(column, _)| quote(&column.name)).collect();
    let values: Vec<&str> = all.iter().map(|(_, value)| value.as_str()).collect();
    Ok(format!("INSERT INTO {table} ({}) VALUES ({});", names.join(", "), values.join(", ")))
}

/// The same under every sql_mode and time zone of the session that runs it.
fn literal(column: &AccessColumn, value: &Bind) -> String {
    match value {
        Bind::Null => "NULL".to_owned(),
        Bind::Int(value) => value.to_string(),
        Bind::UInt(value) => value.to_string(),
        Bind::Float(value) => format!("{value:e}"),
        Bind::Bytes(value) => format!("X'{}'", hex(value)),
        Bind::Text(value) => {
            let quoted = quoted(value);
            match &column.ty {
                // The zero of TIMESTAMP is no time, and has no zone.
                ColumnType::TimestampTz { .. } if !value.starts_with("0000-00-00") => {
                    format!("CONVERT_TZ({quoted}, '+00:00', @@session.time_zone)")
                }
                ColumnType::Decimal { .. } if !column.as_text => value.clone(),
                ColumnType::Unsupported(ty) if is_geometry(ty) => format!("ST_GeomFromText({quoted})"),
                _ => quoted,
            }
        }
    }
}

/// Backslashes mean different things under different sql_modes: text that has one goes as hex.
fn quoted(text: &str) -> String {
    if text.contains('\\') || text.chars().any(char::is_control) {
        return format!("CONVERT(X'{}' USING utf8mb4)", hex(text.as_bytes()));
    }
    let mut out = String::with_capacity(text.len() + 2);
    let _ = write!(out, "'{}'", text.replace('\'', "''"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CanonicalRow, ComparisonType, Filled, Key, RowBuffer};

    fn column(name: &str, ty: ColumnType, comparison: ComparisonType, declared: &str) -> AccessColumn {
        AccessColumn {
            name: name.into(),
            ty,
            declared: declared.into(),
            comparison,
            as_text: false,
            filled: Filled::ByWriter,
        }
    }

    fn access() -> TableAccess {
        TableAccess {
            table: TableName::new(Some("sh`op"), "order"),
            columns: vec![
                column(
                    "id",
                    ColumnType::Int { bits: 64, signed: true },
                    ComparisonType::Integer,
                    "bigint(20)",
                ),
                column(
                    "na`me",
                    ColumnType::Text { padded: false },
                    ComparisonType::Text { trim: false },
                    "varchar(20)",
                ),
            ],
            key_len: 1,
            filter: None,
        }
    }

    fn change_to(name: &str) -> Change {
        let mut buffer = RowBuffer::default();
        buffer.key_cell().int(7);
        buffer.cell().bytes(name.as_bytes());
        let row = CanonicalRow::new(buffer.row.as_slice());
        Change { key: Key::from(buffer.key.as_slice()), before: None, after: Some(row) }
    }

    #[test]
    fn statements_quote_names_and_values() {
        let (access, mut change) = (access(), change_to("it's"));
        let text = |change: &Change| spelled(&access, change).unwrap();
        assert_eq!(text(&change), "INSERT INTO `sh``op`.`order` (`id`, `na``me`) VALUES (7, 'it''s');");
        change.before = change.after.clone();
        assert_eq!(text(&change), "UPDATE `sh``op`.`order` SET `na``me` = 'it''s' WHERE `id` = 7;");
        change.after = None;
        assert_eq!(text(&change), "DELETE FROM `sh``op`.`order` WHERE `id` = 7;");
        let odd = change_to("a\\'b");
        assert!(text(&odd).ends_with("CONVERT(X'615c2762' USING utf8mb4));"));
    }

    #[test]
    fn conditions() {
        let mut access = access();
        assert_eq!(keys_condition(&access, 2), "`id` IN (?,?)");
        access.key_len = 2;
        assert_eq!(keys_condition(&access, 2), "(`id`,`na``me`) IN ((?,?),(?,?))");
        assert_eq!(where_all(&[], None), "");
        assert_eq!(where_all(&["a".into()], Some("b -- c")), " WHERE a AND (\nb -- c\n)");
    }
}
