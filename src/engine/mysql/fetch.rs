//! Reading rows by key, and the reading that scans share.

use std::collections::HashSet;
use std::sync::Arc;

use futures::TryStreamExt as _;
use futures::stream::BoxStream;
use sqlx::AssertSqlSafe;
use sqlx::mysql::{MySqlArguments, MySqlConnection, MySqlRow};

use super::bind::{Bind, bind};
use super::errors;
use super::statement::{keys_condition, select, where_all};
use super::wire::{MySqlBatch, RowDecoder};
use crate::engine::{EngineError, ErrorKind, keyed_rows};
use crate::model::canonical::decode_key;
use crate::model::{Key, KeyedRow, TableAccess};

/// Keys in one statement. Beyond a thousand MariaDB turns an IN list into a join; and a statement has 65,535
/// parameters at most.
const KEYS_MAX: usize = 512;
const PARAMETERS_MAX: usize = 65_000;

/// A batch is full at this many rows or bytes.
const BATCH_ROWS: usize = 2_000;
const BATCH_BYTES: usize = 512 * 1024;

/// A key's parameters; `None` where no value of the key's columns can be this key.
pub(super) fn key_binds(
    access: &TableAccess,
    key: &Key,
    during: &str,
) -> Result<Option<Vec<Bind>>, EngineError> {
    let values = decode_key(&access.key_types(), key.as_bytes())
        .map_err(|error| EngineError::new(ErrorKind::Row, during, error.to_string()))?;
    Ok(access.key_columns().iter().zip(&values).map(|(column, value)| bind(column, value).ok()).collect())
}

/// The rows of these keys, by the canonical bytes of their keys.
pub(super) async fn fetch(
    connection: &mut MySqlConnection,
    access: &TableAccess,
    keys: &[Key],
) -> Result<Vec<KeyedRow>, EngineError> {
    let mut rows = by_keys(connection, access, keys, access.filter.as_deref(), "").await?;
    let wanted: HashSet<&[u8]> = keys.iter().map(Key::as_bytes).collect();
    rows.retain(|row| wanted.contains(row.key.as_bytes()));
    Ok(rows)
}

/// Every row that the server finds for these keys, those included that are equal by collation only.
pub(super) async fn by_keys(
    connection: &mut MySqlConnection,
    access: &TableAccess,
    keys: &[Key],
    filter: Option<&str>,
    suffix: &str,
) -> Result<Vec<KeyedRow>, EngineError> {
    let during = format!("read {} by key", access.table);
    let mut binds = Vec::with_capacity(keys.len());
    for key in keys {
        binds.extend(key_binds(access, key, &during)?);
    }
    let most = largest_power(KEYS_MAX.min(PARAMETERS_MAX / access.key_len.max(1)));
    let mut found = Vec::with_capacity(keys.len());
    let mut stack: Vec<&[Vec<Bind>]> = binds.chunks(most).rev().collect();
    while let Some(chunk) = stack.pop() {
        match read_chunk(connection, access, &during, chunk, filter, suffix).await {
            Ok(rows) => found.extend(rows),
            // A key with letters that the column's character set lacks cannot be compared with it, nor be in it.
            Err(error) if errors::is_collation_mix(&error) => {
                if chunk.len() > 1 {
                    let (left, right) = chunk.split_at(chunk.len() / 2);
                    stack.extend([right, left]);
                } else if filter.is_some() {
                    // The condition's fault, then, or the key's?
                    match read_chunk(connection, access, &during, chunk, None, suffix).await {
                        Err(alone) if errors::is_collation_mix(&alone) => {}
                        Err(alone) => return Err(alone),
                        Ok(_) => return Err(error),
                    }
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// One statement. The last key is repeated up to a power of two, so that few statements are prepared and all of them
/// are used again: the driver does not switch Nagle's algorithm off, and closing a statement, which the server does
/// not answer, would hold the next one back for 40 ms.
async fn read_chunk(
    connection: &mut MySqlConnection,
    access: &TableAccess,
    during: &str,
    chunk: &[Vec<Bind>],
    filter: Option<&str>,
    suffix: &str,
) -> Result<Vec<KeyedRow>, EngineError> {
    let count = chunk.len().next_power_of_two();
    let padding = chunk.last().into_iter().cycle().take(count - chunk.len());
    let mut arguments = MySqlArguments::default();
    for value in chunk.iter().chain(padding).flatten() {
        value.push(&mut arguments).map_err(|error| errors::database(during, &error))?;
    }
    let condition = where_all(&[keys_condition(access, count)], filter);
    let sql = format!("{}{condition}{suffix}", select(access));
    let mut found = Vec::with_capacity(chunk.len());
    let mut reading = Reading::start(connection, access, during, filter.is_some(), sql, arguments);
    while let Some(batch) = reading.next().await? {
        found.extend(keyed_rows(&batch).map_err(|error| EngineError::row(during, &error))?);
    }
    Ok(found)
}

/// The largest power of two up to `most`.
pub(super) fn largest_power(most: usize) -> usize {
    1 << most.max(1).ilog2()
}

/// The rows of a query of the access's columns, in batches. Dropped early, the connection still has rows to read.
pub(super) struct Reading<'a> {
    rows: BoxStream<'a, Result<MySqlRow, sqlx::Error>>,
    access: &'a TableAccess,
    during: &'a str,
    filtered: bool,
    decoder: Option<Arc<RowDecoder>>,
    ended: bool,
}

impl<'a> Reading<'a> {
    pub(super) fn start(
        connection: &'a mut MySqlConnection,
        access: &'a TableAccess,
        during: &'a str,
        filtered: bool,
        sql: String,
        arguments: MySqlArguments,
    ) -> Self {
        let rows = sqlx::query_with(AssertSqlSafe(sql), arguments).fetch(connection);
        Self { rows, access, during, filtered, decoder: None, ended: false }
    }

    pub(super) async fn next(&mut self) -> Result<Option<MySqlBatch>, EngineError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while !self.ended {
            let next = self.rows.try_next().await;
            let Some(row) = next.map_err(|error| errors::reading(self.during, self.filtered, &error))? else {
                self.ended = true;
                break;
            };
            let decoder = match &self.decoder {
                Some(decoder) => decoder,
                None => {
                    let new = RowDecoder::of(self.access, &row)
                        .map_err(|what| errors::changed(self.during, what))?;
                    batch.reserve(BATCH_ROWS);
                    self.decoder.insert(Arc::new(new))
                }
            };
            bytes += decoder.weight(&row);
            batch.push(row);
            if batch.len() >= BATCH_ROWS || bytes >= BATCH_BYTES {
                break;
            }
        }
        Ok(self
            .decoder
            .as_ref()
            .filter(|_| !batch.is_empty())
            .map(|decoder| MySqlBatch { decoder: Arc::clone(decoder), rows: batch }))
    }
}
