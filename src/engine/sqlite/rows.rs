//! Rows by key: one prepared statement, run once a key.

use std::sync::Arc;

use rusqlite::types::Value as Stored;
use rusqlite::{Connection, params_from_iter};

use super::errors::engine_error;
use super::params::{quote, stored};
use super::types::encode;
use crate::engine::{EngineError, ErrorKind};
use crate::model::canonical::decode_key;
use crate::model::{
    AccessColumn, CanonicalRow, ColumnType, ComparisonType, Key, KeyedRow, RowBuffer, TableAccess,
};

/// `SELECT … FROM …`, without a condition.
pub(super) fn select(access: &TableAccess) -> String {
    format!("SELECT {} FROM {}", columns(access), quote(&access.table.name))
}

/// The access's columns, as they are read.
pub(super) fn columns(access: &TableAccess) -> String {
    let column = |column: &AccessColumn| {
        if column.as_text { format!("CAST({} AS TEXT)", quote(&column.name)) } else { quote(&column.name) }
    };
    access.columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

/// `a = ?1 AND b = ?2` over the key.
pub(super) fn key_condition(access: &TableAccess, from: usize) -> String {
    let part = |(at, column): (usize, &AccessColumn)| format!("{} = ?{}", key_expression(column), from + at);
    access.key_columns().iter().enumerate().map(part).collect::<Vec<_>>().join(" AND ")
}

/// A column as its canonical value spells it: text that means a uuid may be stored in several spellings.
fn key_expression(column: &AccessColumn) -> String {
    let name = quote(&column.name);
    match (&column.comparison, &column.ty) {
        (ComparisonType::Uuid, ColumnType::Bytes) => name,
        (ComparisonType::Uuid, _) => {
            let bare = format!("lower(replace(replace(replace({name}, '-', ''), '{{', ''), '}}', ''))");
            format!(
                "CASE WHEN typeof({name}) = 'blob' THEN {name} ELSE substr({bare}, 1, 8) || '-' || substr({bare}, 9, 4) || '-' || substr({bare}, 13, 4) \
                 || '-' || substr({bare}, 17, 4) || '-' || substr({bare}, 21) END"
            )
        }
        (ComparisonType::Text { trim: true }, _) => format!("rtrim({name}, ' ')"),
        _ => name,
    }
}

pub(super) fn rows_of(
    connection: &Connection,
    access: &Arc<TableAccess>,
    keys: &[Key],
    filter: Option<&str>,
) -> Result<Vec<KeyedRow>, EngineError> {
    let during = format!("read rows of {} by key", access.table);
    let filter = filter.map_or_else(String::new, |filter| format!(" AND (\n{filter}\n)"));
    let sql = format!("{} WHERE {}{filter}", select(access), key_condition(access, 1));
    let failed = |error: rusqlite::Error| engine_error(&during, &error);
    let mut statement = connection.prepare(&sql).map_err(failed)?;
    let types = access.key_types();
    let mut buffer = RowBuffer::default();
    let mut found = Vec::new();
    for key in keys {
        let values = decode_key(&types, key.as_bytes())
            .map_err(|error| EngineError::new(ErrorKind::Row, &during, error.to_string()))?;
        let bound: Result<Vec<Stored>, _> =
            access.key_columns().iter().zip(&values).map(|(column, value)| stored(column, value)).collect();
        // A key that cannot be stored here has no row here.
        let Ok(bound) = bound else { continue };
        let mut rows = statement.query(params_from_iter(bound)).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            buffer.clear();
            encode(access, |at| row.get_ref(at).ok(), &mut buffer)
                .map_err(|error| EngineError::row(&during, &error))?;
            // Affinities and collations may find a row whose key is another by its bytes.
            if buffer.key == key.as_bytes() {
                found.push(KeyedRow { key: key.clone(), row: CanonicalRow::new(buffer.row.as_slice()) });
                break;
            }
        }
    }
    Ok(found)
}
