//! Reading rows by key, and the reading that scans share.

use std::collections::HashSet;
use std::sync::Arc;

use futures::TryStreamExt as _;
use futures::stream::BoxStream;
use sqlx::mysql::{MySqlArguments, MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::bind::{Bind, bind};
use super::errors;
use super::statement::{keys_condition, select, where_all};
use super::wire::{MySqlBatch, RowDecoder};
use crate::engine::{EngineError, ErrorKind, keyed_rows};
use crate::model::canonical::decode_key;
use crate::model::{Key, KeyedRow, TableAccess};

/// Keys in one statement. Beyond a thousand MariaDB turns an IN list into a join; and a statement has 65,535
/// parameters at most.
const KEYS_MAX: usize = 500;
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
    let most = KEYS_MAX.min(PARAMETERS_MAX / access.key_len.max(1));
    let mut found = Vec::with_capacity(keys.len());
    for chunk in keys.chunks(most) {
        let mut arguments = MySqlArguments::default();
        let mut count = 0;
        for key in chunk {
            let Some(binds) = key_binds(access, key, &during)? else { continue };
            for value in &binds {
                value.push(&mut arguments).map_err(|error| errors::database(during.as_str(), &error))?;
            }
            count += 1;
        }
        if count == 0 {
            continue;
        }
        let condition = where_all(&[keys_condition(access, count)], filter);
        let sql = format!("{}{condition}{suffix}", select(access));
        let mut reading = Reading::start(connection, access, &during, filter.is_some(), sql, arguments);
        while let Some(batch) = reading.next().await? {
            found.extend(keyed_rows(&batch).map_err(|error| EngineError::row(during.as_str(), &error))?);
        }
    }
    Ok(found)
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
        let rows = sqlx::query_with(AssertSqlSafe(sql), arguments).persistent(false).fetch(connection);
        Self { rows, access, during, filtered, decoder: None, ended: false }
    }

    pub(super) async fn next(&mut self) -> Result<Option<MySqlBatch>, EngineError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(row) =
            self.rows.try_next().await.map_err(|error| errors::reading(self.during, self.filtered, &error))?
        {
            let decoder = match &self.decoder {
                Some(decoder) => decoder,
                None => {
                    let new = RowDecoder::new(self.access, row.columns()).map_err(|what| {
                        EngineError::new(ErrorKind::Changed, self.during, what)
                            .with_hint("plan the comparison again")
                    })?;
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
