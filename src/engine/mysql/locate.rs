//! Rows that a lookup by key need not find, looked for by what their keys mean: one read of the table's keys.

use std::collections::HashMap;

use futures::TryStreamExt as _;
use sqlx::AssertSqlSafe;
use sqlx::mysql::MySqlConnection;

use super::bind::Bind;
use super::errors;
use super::keys::{Asked, bind_key};
use super::session::bounded;
use super::statement::{key_place, quote, quote_table, reading};
use super::types::{charset_of, collation_of, is};
use super::wire::{RowDecoder, raw};
use crate::engine::inflow::IDLE_LIMIT;
use crate::engine::{EngineError, ErrorKind};
use crate::model::canonical::decode_key;
use crate::model::{AccessColumn, ColumnType, Key, RowBuffer, TableAccess, Value};

/// Where one stored row is, by the values of its key as they are stored.
#[derive(Debug, Clone)]
pub(super) struct Address {
    pub condition: String,
    pub binds: Vec<Bind>,
}

/// What a row with one of the keys looked for was found as.
pub(super) enum Found {
    One(Address),
    /// Their keys differ as they are stored, and mean the same.
    Several,
}

/// What of a column is read beside its value, to address a row by.
enum Stored {
    /// The value itself is exact.
    Value,
    /// The bytes of a text.
    Bytes,
    /// The number of an ENUM's or a SET's value.
    Number,
    /// The text that it is read as.
    Read,
}

impl Stored {
    fn of(column: &AccessColumn) -> Self {
        match column.ty {
            ColumnType::Text { .. } if is(&column.declared, "enum") || is(&column.declared, "set") => {
                Self::Number
            }
            ColumnType::Text { .. } => Self::Bytes,
            _ if column.as_text => Self::Read,
            _ => Self::Value,
        }
    }

    fn expression(&self, column: &AccessColumn) -> Option<String> {
        let name = quote(&column.name);
        match self {
            Self::Value => None,
            Self::Bytes => Some(format!("CAST({name} AS BINARY)")),
            Self::Number => Some(format!("CAST({name} + 0 AS CHAR)")),
            Self::Read => Some(format!("CAST({} AS BINARY)", reading(column))),
        }
    }
}

/// The rows that hold these keys by meaning.
pub(super) async fn by_meaning(
    connection: &mut MySqlConnection,
    access: &TableAccess,
    lost: &[&Asked<'_>],
    during: &str,
) -> Result<HashMap<Key, Found>, EngineError> {
    let mut keys_only = access.clone();
    keys_only.columns.truncate(access.key_len);
    keys_only.filter = None;
    let columns = keys_only.key_columns();
    let stored: Vec<Stored> = columns.iter().map(Stored::of).collect();
    let extra = stored.iter().zip(columns).filter_map(|(stored, column)| stored.expression(column));
    let selected: Vec<String> = columns.iter().map(reading).chain(extra).collect();
    let sql = format!("SELECT {} FROM {}", selected.join(", "), quote_table(&access.table));
    let mut wanted: HashMap<&[u8], (&Key, Option<Found>)> =
        lost.iter().map(|asked| (asked.key.as_bytes(), (asked.key, None))).collect();
    let mut buffer = RowBuffer::default();
    let mut decoder = None;
    let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(connection);
    loop {
        let next = bounded(IDLE_LIMIT, rows.try_next()).await;
        let Some(row) = next.map_err(|error| errors::database(during, &error))? else { break };
        let decoder = match &decoder {
            Some(decoder) => decoder,
            None => decoder.insert(
                RowDecoder::of_first(&keys_only, &row, columns.len())
                    .map_err(|what| errors::changed(during, what))?,
            ),
        };
        decoder.decode(&row, &mut buffer).map_err(|error| EngineError::row(during, &error))?;
        let Some((key, found)) = wanted.get_mut(buffer.key.as_slice()) else { continue };
        if found.is_some() {
            *found = Some(Found::Several);
            continue;
        }
        let values = decode_key(&access.key_types(), key.as_bytes())
            .map_err(|error| EngineError::new(ErrorKind::Row, during, error.to_string()))?;
        let mut beside = columns.len()..;
        let parts = stored.iter().zip(columns).zip(&values).map(|((stored, column), value)| {
            let bytes = match stored {
                Stored::Value => None,
                _ => beside.next().and_then(|at| raw(&row, at)),
            };
            part(stored, column, value, bytes)
        });
        let parts = parts.collect::<Result<Vec<_>, String>>();
        let parts = parts.map_err(|what| EngineError::new(ErrorKind::Row, during, what))?;
        let condition =
            parts.iter().map(|(condition, _)| condition.as_str()).collect::<Vec<_>>().join(" AND ");
        let binds = parts.into_iter().flat_map(|(_, binds)| binds).collect();
        *found = Some(Found::One(Address { condition, binds }));
    }
    drop(rows);
    Ok(wanted.into_values().filter_map(|(key, found)| Some((key.clone(), found?))).collect())
}

/// The condition that a column holds what was read of it.
fn part(
    stored: &Stored,
    column: &AccessColumn,
    value: &Value,
    bytes: Option<&[u8]>,
) -> Result<(String, Vec<Bind>), String> {
    let name = quote(&column.name);
    let lost = || format!("column {} cannot be addressed", column.name);
    match stored {
        Stored::Value => Ok((format!("{name} = {}", key_place(column)), vec![bind_key(column, value)?])),
        Stored::Bytes => {
            let bytes = Bind::Bytes(bytes.ok_or_else(lost)?.to_vec());
            let exact = format!("CAST({name} AS BINARY) = ?");
            match collation_of(&column.declared) {
                // The index finds it, and the bytes tell it apart.
                Some(collation) if !matches!(value, Value::Irregular(..)) => {
                    let charset = charset_of(collation);
                    let near = format!("{name} = CONVERT(? USING {charset}) COLLATE {collation}");
                    Ok((format!("{near} AND {exact}"), vec![bytes.clone(), bytes]))
                }
                _ => Ok((exact, vec![bytes])),
            }
        }
        Stored::Number => {
            let number = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()?.parse().ok());
            // Not as it is: in an update MySQL refuses a number that none of the labels has.
            Ok((format!("{name} + 0 = ?"), vec![Bind::UInt(number.ok_or_else(lost)?)]))
        }
        Stored::Read => {
            let bytes = Bind::Bytes(bytes.ok_or_else(lost)?.to_vec());
            Ok((format!("CAST({} AS BINARY) = ?", reading(column)), vec![bytes]))
        }
    }
}
