//! Rows by key, in batches, with the key's index.

use std::collections::HashSet;
use std::sync::Arc;

use sqlx::AssertSqlSafe;
use sqlx::mysql::{MySql, MySqlArguments, MySqlConnection};

use super::MySqlEngine;
use super::errors::engine_error;
use super::params::{add, param, placeholder, quote};
use super::scan::{MySqlBatch, select};
use super::types::RowDecoder;
use crate::engine::{EngineError, ErrorKind, keyed_rows};
use crate::model::canonical::decode_key;
use crate::model::{AccessColumn, ColumnType, ComparisonType, Key, KeyedRow, TableAccess};

/// The protocol counts placeholders in 16 bits.
const PLACEHOLDERS_MAX: usize = 60_000;
const KEYS_MAX: usize = 1_000;

pub(super) async fn fetch(
    engine: &MySqlEngine,
    access: &Arc<TableAccess>,
    keys: &[Key],
) -> Result<Vec<KeyedRow>, EngineError> {
    let during = format!("read rows of {} by key", access.table);
    let mut connection = engine.pool.acquire().await.map_err(|error| engine_error(&during, &error))?;
    rows_of(&mut connection, access, keys, access.filter.as_deref(), "").await
}

/// The rows of these keys; `suffix` locks them, where asked.
pub(super) async fn rows_of(
    connection: &mut MySqlConnection,
    access: &Arc<TableAccess>,
    keys: &[Key],
    filter: Option<&str>,
    suffix: &str,
) -> Result<Vec<KeyedRow>, EngineError> {
    let during = format!("read rows of {} by key", access.table);
    let wanted: HashSet<&Key> = keys.iter().collect();
    let decoder = Arc::new(RowDecoder::new(access));
    let mut found = Vec::new();
    for chunk in keys.chunks(KEYS_MAX.min(PLACEHOLDERS_MAX / access.key_len.max(1))) {
        let Some((condition, arguments)) = key_condition(access, chunk, &during)? else { continue };
        let filter = filter.map_or_else(String::new, |filter| format!(" AND ({filter})"));
        let sql = format!("{} WHERE {condition}{filter}{suffix}", select(access));
        let rows = sqlx::query_with::<MySql, _>(AssertSqlSafe(sql), arguments)
            .persistent(false)
            .fetch_all(&mut *connection)
            .await
            .map_err(|error| engine_error(&during, &error))?;
        let batch = MySqlBatch { rows, decoder: decoder.clone() };
        let rows = keyed_rows(&batch).map_err(|error| EngineError::row(&during, &error))?;
        // A collation may find more than was asked for.
        found.extend(rows.into_iter().filter(|row| wanted.contains(&row.key)));
    }
    Ok(found)
}

/// `key IN (…)` or `(a, b) IN ((…), …)`; `None` if no key can be held by these columns.
pub(super) fn key_condition(
    access: &TableAccess,
    keys: &[Key],
    during: &str,
) -> Result<Option<(String, MySqlArguments)>, EngineError> {
    let columns = access.key_columns();
    let types = access.key_types();
    let holders: Vec<&str> = columns.iter().map(placeholder).collect();
    let tuple = if columns.len() == 1 { holders.join(", ") } else { format!("({})", holders.join(", ")) };
    let mut arguments = MySqlArguments::default();
    let mut tuples = 0;
    for key in keys {
        let values = decode_key(&types, key.as_bytes())
            .map_err(|error| EngineError::new(ErrorKind::Row, during, error.to_string()))?;
        // A key that the column cannot hold has no row here.
        let params: Result<Vec<_>, _> =
            columns.iter().zip(&values).map(|(column, value)| param(column, value)).collect();
        let Ok(params) = params else { continue };
        for param in params {
            add(&mut arguments, param, during)?;
        }
        tuples += 1;
    }
    if tuples == 0 {
        return Ok(None);
    }
    let names: Vec<String> = columns.iter().map(key_expression).collect();
    let left = if names.len() == 1 { names.join("") } else { format!("({})", names.join(", ")) };
    Ok(Some((format!("{left} IN ({})", vec![tuple; tuples].join(", ")), arguments)))
}

/// The column as its canonical value spells it. A uuid may be stored in several spellings, and trailing blanks may
/// be stored or not: such keys are found by what they mean, without the index.
fn key_expression(column: &AccessColumn) -> String {
    let name = quote(&column.name);
    match (&column.comparison, &column.ty) {
        (ComparisonType::Uuid, ColumnType::Text { .. }) => format!(
            "LOWER(INSERT(INSERT(INSERT(INSERT(REPLACE(REPLACE(REPLACE({name}, '-', ''), '{{', ''), '}}', ''), 9, 0, '-'), 14, 0, '-'), 19, 0, '-'), 24, 0, '-'))"
        ),
        (ComparisonType::Text { trim: true }, ColumnType::Text { padded: false }) => {
            format!("TRIM(TRAILING ' ' FROM {name})")
        }
        _ => name,
    }
}
