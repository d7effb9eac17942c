//! SQL text: identifiers quoted, values as parameters; and whole statements for a person to read.

use std::fmt::Write as _;

use super::bind::{Bind, bind, is_geometry_text};
use super::keys::{bind_key, holds_uuid_text, is_exact, uuid_spellings};
use super::types::{charset_of, charset_with_gaps, collation_of, is, is_geometry, length_of};
use crate::engine::{EngineError, ErrorKind};
use crate::model::canonical::{DecodeError, decode_key, decode_row, split_cells};
use crate::model::temporal::{MICROS_PER_DAY, MICROS_PER_SECOND, is_ordinary};
use crate::model::value::hex;
use crate::model::{
    AccessColumn, CanonicalRow, Change, ColumnType, ComparisonType, TableAccess, TableName, Value,
};

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
pub(super) fn reading(column: &AccessColumn) -> String {
    let name = quote(&column.name);
    let text = |of: &str| format!("CAST({of} AS CHAR CHARACTER SET utf8mb4)");
    if let (ColumnType::Text { .. }, Some(charset)) = (&column.ty, charset_with_gaps(&column.declared)) {
        return characters(&name, charset);
    }
    match (&column.ty, column.as_text) {
        (ColumnType::Named(_), _) => text(&name),
        // The driver knows no vectors.
        (ColumnType::Bytes, false) if is(&column.declared, "vector") => format!("CAST({name} AS BINARY)"),
        (_, false) => name,
        // As PostGIS writes it, with the axes in their order of storage, which MySQL would exchange.
        (ColumnType::Bytes, _) if is_geometry(&column.declared) => text(&format!(
            "CONCAT(IF(ST_SRID({name}) = 0, '', CONCAT('SRID=', ST_SRID({name}), ';')), ST_AsText({name}{AXES}))"
        )),
        (ColumnType::Bytes, _) => text(&format!("CONCAT('\\\\x', LOWER(HEX({name})))")),
        (ColumnType::Bits, _) => {
            let width = length_of(&column.declared).unwrap_or(1);
            text(&format!("LPAD(BIN({name} + 0), {width}, '0')"))
        }
        // A FLOAT's own text has six digits only.
        (ColumnType::Float { bits: 32 }, _) => text(&format!("({name} + 0e0)")),
        _ => text(&name),
    }
}

/// The UTF-8 of a text; where a character of it is not one, which would be read as `?`, its bytes behind one that UTF-8 has not.
fn characters(name: &str, charset: &str) -> String {
    let text = format!("CONVERT({name} USING utf8mb4)");
    let bytes = |of: &str| format!("CAST({of} AS BINARY)");
    let again = bytes(&format!("CONVERT({text} USING {charset})"));
    let stored = bytes(name);
    format!("IF(LOCATE('?', {text}) > 0 AND {again} <> {stored}, CONCAT(X'FF', {stored}), {})", bytes(&text))
}

/// MariaDB has no such option, and does not read what is written for these versions.
const AXES: &str = " /*!80000 , 'axis-order=long-lat' */";

/// The place of a parameter where it is stored.
fn place(column: &AccessColumn) -> String {
    if is_geometry_text(column) { format!("ST_GeomFromText(?, ?{AXES})") } else { "?".to_owned() }
}

/// The place of a parameter that a key is compared with. Decimals are sent as text, and a decimal and a text would be
/// compared as floats. Of dates that are sent as text, MySQL 9.7 prunes all partitions when a statement is run first.
pub(super) fn key_place(column: &AccessColumn) -> String {
    match &column.ty {
        ColumnType::Date if !column.as_text => "CAST(? AS DATE)".to_owned(),
        ColumnType::Timestamp { .. } | ColumnType::TimestampTz { .. } if !column.as_text => {
            "CAST(? AS DATETIME(6))".to_owned()
        }
        ColumnType::Decimal { precision: Some(precision), scale: Some(scale) } => {
            format!("CAST(? AS DECIMAL({precision},{scale}))")
        }
        ColumnType::Decimal { .. } => "CAST(? AS DECIMAL(65,30))".to_owned(),
        // MariaDB finds no row of a key of several columns where a parameter's character set is another than its column's.
        ColumnType::Text { .. } => match collation_of(&column.declared) {
            Some(collation) if charset_of(collation) != "utf8mb4" => {
                format!("CONVERT(? USING {}) COLLATE {collation}", charset_of(collation))
            }
            _ => "?".to_owned(),
        },
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
pub(super) fn key_condition(access: &TableAccess) -> String {
    let one = |column: &AccessColumn| format!("{} = {}", quote(&column.name), key_place(column));
    access.key_columns().iter().map(one).collect::<Vec<_>>().join(" AND ")
}

pub(super) fn insert(access: &TableAccess, rows: usize) -> String {
    let columns: Vec<String> = writable(access).map(|column| quote(&column.name)).collect();
    let places: Vec<String> = writable(access).map(place).collect();
    let row = format!("({})", places.join(","));
    format!(
        "INSERT INTO {} ({}) VALUES {}",
        quote_table(&access.table),
        columns.join(","),
        vec![row; rows].join(",")
    )
}

/// One row's update of these columns; `kept` are those that the server sets by itself where they are not set.
pub(super) fn update(
    access: &TableAccess,
    columns: &[&AccessColumn],
    kept: &[String],
    condition: &str,
) -> String {
    let set = columns.iter().map(|column| format!("{} = {}", quote(&column.name), place(column)));
    let kept = kept.iter().filter(|name| !columns.iter().any(|column| column.name == **name));
    let kept = kept.map(|name| format!("{0} = {0}", quote(name)));
    let set: Vec<String> = set.chain(kept).collect();
    format!("UPDATE {} SET {} WHERE {condition}", quote_table(&access.table), set.join(", "))
}

pub(super) fn delete(access: &TableAccess, rows: usize) -> String {
    delete_where(access, &keys_condition(access, rows))
}

pub(super) fn delete_where(access: &TableAccess, condition: &str) -> String {
    format!("DELETE FROM {} WHERE {condition}", quote_table(&access.table))
}

pub(super) fn is_writable(column: &AccessColumn) -> bool {
    column.filled != crate::model::Filled::Generated
}

/// The columns that are written, in access order.
pub(super) fn writable(access: &TableAccess) -> impl Iterator<Item = &AccessColumn> {
    access.columns.iter().filter(|column| is_writable(column))
}

/// The change as a statement of its own.
/// `kept`: columns that the server sets anew in an update that does not set them.
pub(super) fn spelled(access: &TableAccess, change: &Change, kept: &[String]) -> Result<String, EngineError> {
    let during = || format!("write a statement for {}", access.table);
    let malformed = |error: DecodeError| EngineError::new(ErrorKind::Row, during(), error.to_string());
    let refused = |why: String| EngineError::new(ErrorKind::Row, during(), why);
    let written = |(column, value): &(&AccessColumn, &Value)| {
        bind(column, value).map(|bound| literal(column, &bound)).map_err(refused)
    };
    let key = decode_key(&access.key_types(), change.key.as_bytes()).map_err(malformed)?;
    let found = || {
        // A collation may hold another key equal, which the row has been given since.
        let exactly = |(column, value): (&AccessColumn, &Value)| {
            let found = addressed(column, value)?;
            Ok(match (&column.ty, value) {
                (ColumnType::Text { .. }, Value::Text(text))
                    if matches!(column.comparison, ComparisonType::Text { .. }) =>
                {
                    format!("{found} AND {}", held_as_read(column, text))
                }
                _ => found,
            })
        };
        let conditions = access.key_columns().iter().zip(&key).map(exactly);
        conditions.collect::<Result<Vec<String>, String>>().map(|all| all.join(" AND ")).map_err(refused)
    };
    // The row is written while it still holds what was compared, as far as SQL can tell.
    let before = match &change.before {
        Some(before) => decode_row(&access.row_types(), before.as_bytes()).map_err(malformed)?,
        None => Vec::new(),
    };
    let held = |at: usize| match (access.row_columns().get(at)?, before.get(at)?) {
        (column, Value::Null) => Some(format!("{} IS NULL", quote(&column.name))),
        (column, Value::Text(text))
            if matches!(
                (&column.ty, &column.comparison),
                (ColumnType::Text { .. }, ComparisonType::Text { .. })
            ) =>
        {
            Some(held_as_read(column, text))
        }
        (column, value) => addressed(column, value).ok(),
    };
    let table = quote_table(&access.table);
    let Some(after) = &change.after else {
        let all: Vec<String> = std::iter::once(found()?).chain((0..before.len()).filter_map(held)).collect();
        return Ok(format!("DELETE FROM {table} WHERE {};", all.join(" AND ")));
    };
    let row = decode_row(&access.row_types(), after.as_bytes()).map_err(malformed)?;
    if let Some(before) = &change.before {
        let differs = differing(before, after).map_err(malformed)?;
        let guards = differs.iter().enumerate().filter(|(_, differs)| **differs);
        let guards: Vec<String> = guards.filter_map(|(at, _)| held(at)).collect();
        let columns = access.row_columns().iter().zip(&row).zip(&differs);
        let set = columns.filter(|((column, _), differs)| is_writable(column) && **differs);
        let pair = |(one, _): ((&AccessColumn, &Value), &bool)| {
            Ok(format!("{} = {}", quote(&one.0.name), written(&one)?))
        };
        let mut set = set.map(pair).collect::<Result<Vec<String>, EngineError>>()?;
        if set.is_empty() {
            return Err(refused("only columns that the database fills itself differ".to_owned()));
        }
        let is_set = |name: &String| {
            let columns = access.row_columns().iter().zip(&differs);
            columns.filter(|(_, differs)| **differs).any(|(column, _)| column.name == *name)
        };
        set.extend(kept.iter().filter(|name| !is_set(name)).map(|name| format!("{0} = {0}", quote(name))));
        let all: Vec<String> = std::iter::once(found()?).chain(guards).collect();
        return Ok(format!("UPDATE {table} SET {} WHERE {};", set.join(", "), all.join(" AND ")));
    }
    let all: Vec<(&AccessColumn, &Value)> =
        access.columns.iter().zip(key.iter().chain(&row)).filter(|(column, _)| is_writable(column)).collect();
    let names: Vec<String> = all.iter().map(|(column, _)| quote(&column.name)).collect();
    let values = all.iter().map(written).collect::<Result<Vec<String>, EngineError>>()?;
    Ok(format!("INSERT INTO {table} ({}) VALUES ({});", names.join(", "), values.join(", ")))
}

/// Which cells of two rows differ.
pub(super) fn differing(before: &CanonicalRow, after: &CanonicalRow) -> Result<Vec<bool>, DecodeError> {
    let (before, after) = (split_cells(before.as_bytes())?, split_cells(after.as_bytes())?);
    Ok(after.iter().enumerate().map(|(at, cell)| before.get(at) != Some(cell)).collect())
}

/// The condition that a column of a key holds this value, however it is stored.
fn addressed(column: &AccessColumn, value: &Value) -> Result<String, String> {
    let name = quote(&column.name);
    match value {
        Value::Uuid(uuid) if holds_uuid_text(column) => {
            let spellings = uuid_spellings(column, uuid);
            let folds = collation_of(&column.declared).is_some_and(|collation| collation.ends_with("_ci"));
            let (read, spellings) = if folds {
                (name, spellings)
            } else {
                let small = spellings.into_iter().filter(|text| !text.contains(char::is_uppercase));
                (format!("LOWER({name})"), small.collect())
            };
            let spellings: Vec<String> = spellings.iter().map(|text| quoted(text)).collect();
            Ok(format!("{read} IN ({})", spellings.join(", ")))
        }
        Value::Timestamp(micros) | Value::TimestampTz(micros)
            if is_exact(column, value)
                && matches!(column.ty, ColumnType::TimestampTz { .. })
                && is_ordinary(*micros) =>
        {
            moment(column, *micros)
        }
        _ if is_exact(column, value) => {
            Ok(format!("{name} = {}", literal(column, &bind_key(column, value)?)))
        }
        // As it is read.
        Value::Text(text)
            if column.as_text
                || matches!(
                    (&column.ty, &column.comparison),
                    (ColumnType::Text { .. }, ComparisonType::Text { .. })
                ) =>
        {
            Ok(held_as_read(column, text))
        }
        _ => Err(format!("a statement cannot tell the row by column {}", column.name)),
    }
}

/// The condition that a column is read as this text, whatever its collation holds equal.
fn held_as_read(column: &AccessColumn, text: &str) -> String {
    let mut read = format!("CONVERT({} USING utf8mb4)", reading(column));
    if matches!(column.comparison, ComparisonType::Text { trim: true }) {
        read = format!("TRIM(TRAILING ' ' FROM {read})");
    }
    format!("CAST({read} AS BINARY) = X'{}'", hex(text.as_bytes()))
}

/// The condition that a TIMESTAMP is this moment, also where the session's clock shows it twice. A wide range, which no zone
/// shifts out of, lets the index find it.
fn moment(column: &AccessColumn, micros: i64) -> Result<String, String> {
    const LAST: i64 = (1 << 31) * MICROS_PER_SECOND - 2 * MICROS_PER_DAY;
    let name = quote(&column.name);
    let (seconds, parts) = (micros.div_euclid(MICROS_PER_SECOND), micros.rem_euclid(MICROS_PER_SECOND));
    let exact = format!("UNIX_TIMESTAMP({name}) = {seconds}.{parts:06}");
    if !(2 * MICROS_PER_DAY..LAST).contains(&micros) {
        return Ok(exact);
    }
    let border = |at: i64| Ok::<_, String>(literal(column, &bind_key(column, &Value::TimestampTz(at))?));
    let (from, to) = (border(micros - MICROS_PER_DAY)?, border(micros + MICROS_PER_DAY)?);
    Ok(format!("{name} BETWEEN {from} AND {to} AND {exact}"))
}

/// The same under every sql_mode and time zone of the session that runs it.
fn literal(column: &AccessColumn, value: &Bind) -> String {
    match value {
        Bind::Null => "NULL".to_owned(),
        Bind::Int(value) => value.to_string(),
        Bind::UInt(value) => value.to_string(),
        Bind::Float(value) => format!("{value:e}"),
        Bind::Bytes(value) => format!("X'{}'", hex(value)),
        Bind::Geometry(None) => "NULL".to_owned(),
        Bind::Geometry(Some((srid, text))) => format!("ST_GeomFromText({}, {srid}{AXES})", quoted(text)),
        Bind::Text(value) => {
            let quoted = quoted(value);
            match &column.ty {
                // The zero of TIMESTAMP is no time, and has no zone.
                ColumnType::TimestampTz { .. } if !value.starts_with("0000-00-00") => {
                    format!("CONVERT_TZ({quoted}, '+00:00', @@session.time_zone)")
                }
                ColumnType::Decimal { .. } if !column.as_text => value.clone(),
                _ => quoted,
            }
        }
    }
}

/// Backslashes mean different things under different sql_modes: text that has one goes as hex.
pub(super) fn quoted(text: &str) -> String {
    if text.contains('\\') || text.chars().any(char::is_control) {
        return format!("_utf8mb4 X'{}'", hex(text.as_bytes()));
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
        let text = |change: &Change| spelled(&access, change, &[]).unwrap();
        assert_eq!(text(&change), "INSERT INTO `sh``op`.`order` (`id`, `na``me`) VALUES (7, 'it''s');");
        change.before = change_to("old").after;
        let held = "`id` = 7 AND CAST(CONVERT(`na``me` USING utf8mb4) AS BINARY) = X'6f6c64'";
        assert_eq!(text(&change), format!("UPDATE `sh``op`.`order` SET `na``me` = 'it''s' WHERE {held};"));
        change.after = None;
        assert_eq!(text(&change), format!("DELETE FROM `sh``op`.`order` WHERE {held};"));
        let odd = change_to("a\\'b");
        assert!(text(&odd).ends_with("_utf8mb4 X'615c2762');"));
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
