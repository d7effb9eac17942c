//! Reading rows by key, and the reading that scans share.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use futures::stream::BoxStream;
use sqlx::AssertSqlSafe;
use sqlx::mysql::{MySqlArguments, MySqlConnection, MySqlRow};

use super::bind::Bind;
use super::errors;
use super::keys::Asked;
use super::session::bounded;
use super::statement::{keys_condition, select, where_all};
use super::wire::{MySqlBatch, RowDecoder};
use crate::engine::inflow::IDLE_LIMIT;
use crate::engine::{EngineError, Lookup, keyed_rows};
use crate::model::{Key, KeyedRow, TableAccess};

/// Keys in one statement. Beyond a thousand MariaDB turns an IN list into a join; and a statement has 65,535
/// parameters at most.
const KEYS_MAX: usize = 512;
const PARAMETERS_MAX: usize = 65_000;

/// A batch is full at this many rows or bytes.
const BATCH_ROWS: usize = 2_000;
const BATCH_BYTES: usize = 512 * 1024;

/// What is read by key: what of, and how.
#[derive(Clone, Copy)]
struct Query<'a> {
    access: &'a TableAccess,
    during: &'a str,
    filter: Option<&'a str>,
    suffix: &'a str,
    idle_limit: Duration,
}

impl<'a> Query<'a> {
    fn locking(access: &'a TableAccess, during: &'a str) -> Self {
        Self { access, during, filter: None, suffix: " FOR UPDATE", idle_limit: IDLE_LIMIT }
    }
}

/// The rows of these keys by the canonical bytes of their keys, and what that shows of the others.
pub(super) async fn lookup(
    connection: &mut MySqlConnection,
    access: &TableAccess,
    keys: &[Key],
    idle_limit: Duration,
) -> Result<Lookup, EngineError> {
    let during = format!("read {} by key", access.table);
    let query = Query { access, during: &during, filter: access.filter.as_deref(), suffix: "", idle_limit };
    let asked = keys.iter().map(|key| Asked::new(access, key, &during)).collect::<Result<Vec<_>, _>>()?;
    let (askable, beyond): (Vec<&Asked<'_>>, Vec<&Asked<'_>>) =
        asked.iter().partition(|asked| asked.usual.is_some());
    let mut found = Lookup::default();
    found.unproven.extend(beyond.into_iter().map(|asked| asked.key.clone()));
    for group in askable.chunks(most_rows(access)) {
        found.extend(lookup_group(connection, query, group).await?);
    }
    Ok(found)
}

/// The keys of one statement; and another for other spellings of those that were not found.
async fn lookup_group(
    connection: &mut MySqlConnection,
    query: Query<'_>,
    group: &[&Asked<'_>],
) -> Result<Lookup, EngineError> {
    let usual: Vec<&[Bind]> = group.iter().filter_map(|asked| asked.usual.as_deref()).collect();
    let keys: Vec<Key> = group.iter().map(|asked| asked.key.clone()).collect();
    let read = read_rows(connection, query, &usual).await?;
    let mut rows = read.rows;
    // Of a statement of its own that the server could not run, nothing is believed.
    let unasked: HashSet<&[u8]> =
        read.refused.iter().filter_map(|at| group.get(*at)).map(|asked| asked.key.as_bytes()).collect();
    retain(&mut rows, group);
    let held: HashSet<Vec<u8>> = rows.iter().map(|row| row.key.as_bytes().to_vec()).collect();
    let lost: Vec<&Asked<'_>> = group
        .iter()
        .copied()
        .filter(|asked| !asked.others.is_empty() && !held.contains(asked.key.as_bytes()))
        .collect();
    // Found by its usual spelling, a key shows that the statement for the others finds what is there.
    let control = group.iter().find(|asked| held.contains(asked.key.as_bytes()));
    let mut shown: HashSet<&[u8]> = HashSet::new();
    for some in lost.chunks((most_rows(query.access) / (others_of(&lost) + 1)).max(1)) {
        let others = some.iter().flat_map(|asked| &asked.others);
        let spellings: Vec<&[Bind]> =
            others.chain(control.and_then(|asked| asked.usual.as_ref())).map(Vec::as_slice).collect();
        let more = read_rows(connection, query, &spellings).await?;
        if more.refused.is_empty()
            && control.is_some_and(|asked| more.rows.iter().any(|row| row.key == *asked.key))
        {
            shown.extend(some.iter().map(|asked| asked.key.as_bytes()));
        }
        let mut more = more.rows;
        retain(&mut more, some);
        rows.extend(more);
    }
    let exact: HashSet<&[u8]> = group
        .iter()
        .filter(|asked| {
            asked.exact
                && control.is_some()
                && (asked.others.is_empty() || shown.contains(asked.key.as_bytes()))
        })
        .map(|asked| asked.key.as_bytes())
        .filter(|key| !unasked.contains(key))
        .collect();
    Ok(Lookup::of_statement(&keys, rows, |key| exact.contains(key.as_bytes())))
}

/// The rows of these keys in any of their spellings, locked. A row comes once, and with it any other of the same meaning.
pub(super) async fn locked(
    connection: &mut MySqlConnection,
    access: &TableAccess,
    asked: &[Asked<'_>],
) -> Result<Vec<KeyedRow>, EngineError> {
    let during = format!("read {} by key", access.table);
    let query = Query::locking(access, &during);
    let mut once = HashSet::new();
    let asked: Vec<&Asked<'_>> = asked.iter().filter(|asked| once.insert(asked.key.as_bytes())).collect();
    let mut found = Vec::with_capacity(asked.len());
    for group in asked.chunks((most_rows(access) / (1 + others_of(&asked))).max(1)) {
        let spellings: Vec<&[Bind]> =
            group.iter().flat_map(|asked| asked.spellings()).map(Vec::as_slice).collect();
        let mut rows = read_rows(connection, query, &spellings).await?.rows;
        // Not those that another key finds by collation.
        retain(&mut rows, group);
        found.extend(rows);
    }
    Ok(found)
}

/// Whether the server finds a row for this key, also one that is equal by collation only; and the rows.
pub(super) async fn equal(
    connection: &mut MySqlConnection,
    access: &TableAccess,
    asked: &Asked<'_>,
) -> Result<Vec<KeyedRow>, EngineError> {
    let during = format!("read {} by key", access.table);
    let spellings: Vec<&[Bind]> = asked.spellings().map(Vec::as_slice).collect();
    Ok(read_rows(connection, Query::locking(access, &during), &spellings).await?.rows)
}

fn retain(rows: &mut Vec<KeyedRow>, group: &[&Asked<'_>]) {
    let wanted: HashSet<&[u8]> = group.iter().map(|asked| asked.key.as_bytes()).collect();
    rows.retain(|row| wanted.contains(row.key.as_bytes()));
}

/// The most spellings that one of these keys has beside its usual one.
fn others_of(group: &[&Asked<'_>]) -> usize {
    group.iter().map(|asked| asked.others.len()).max().unwrap_or_default()
}

/// The rows under this condition, locked.
pub(super) async fn read_at(
    connection: &mut MySqlConnection,
    access: &TableAccess,
    during: &str,
    condition: &str,
    arguments: MySqlArguments,
) -> Result<Vec<KeyedRow>, EngineError> {
    let sql = format!("{} WHERE {condition} FOR UPDATE", select(access));
    let mut reading = Reading::start(connection, access, during, false, sql, arguments);
    let mut found = Vec::new();
    while let Some(batch) = reading.next().await? {
        found.extend(keyed_rows(&batch).map_err(|error| EngineError::row(during, &error))?);
    }
    Ok(found)
}

fn most_rows(access: &TableAccess) -> usize {
    largest_power(KEYS_MAX.min(PARAMETERS_MAX / access.key_len.max(1)))
}

#[derive(Default)]
struct Read {
    rows: Vec<KeyedRow>,
    /// Which of the keys asked for the server could not compare with its columns.
    refused: Vec<usize>,
}

/// One statement, or several where a key has letters that a column's character set lacks: it cannot be compared with it,
/// nor be in it.
async fn read_rows(
    connection: &mut MySqlConnection,
    query: Query<'_>,
    keys: &[&[Bind]],
) -> Result<Read, EngineError> {
    let mut read = Read::default();
    let mut stack = Vec::from([(0, keys.len())]);
    while let Some((from, to)) = stack.pop() {
        let some = keys.get(from..to).unwrap_or_default();
        if some.is_empty() {
            continue;
        }
        match read_chunk(connection, query, some).await {
            Ok(rows) => read.rows.extend(rows),
            Err(error) if errors::is_collation_mix(&error) => {
                if some.len() > 1 {
                    let middle = from + some.len() / 2;
                    stack.extend([(middle, to), (from, middle)]);
                    continue;
                }
                if query.filter.is_some() {
                    // The condition's fault, then, or the key's?
                    match read_chunk(connection, Query { filter: None, ..query }, some).await {
                        Err(alone) if errors::is_collation_mix(&alone) => {}
                        Err(alone) => return Err(alone),
                        Ok(_) => return Err(error),
                    }
                }
                read.refused.push(from);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// One statement. The last key is repeated up to a power of two, so that few statements are prepared and all of them
/// are used again: the driver does not switch Nagle's algorithm off, and closing a statement, which the server does
/// not answer, would hold the next one back for 40 ms.
async fn read_chunk(
    connection: &mut MySqlConnection,
    query: Query<'_>,
    chunk: &[&[Bind]],
) -> Result<Vec<KeyedRow>, EngineError> {
    let Query { access, during, filter, suffix, idle_limit } = query;
    let count = chunk.len().next_power_of_two();
    let padding = chunk.last().into_iter().cycle().take(count - chunk.len());
    let mut arguments = MySqlArguments::default();
    for value in chunk.iter().chain(padding).copied().flatten() {
        value.push(&mut arguments).map_err(|error| errors::database(during, &error))?;
    }
    let condition = where_all(&[keys_condition(access, count)], filter);
    let sql = format!("{}{condition}{suffix}", select(access));
    let mut found = Vec::with_capacity(chunk.len());
    let mut reading = Reading::start(connection, access, during, filter.is_some(), sql, arguments);
    reading.idle_limit = idle_limit;
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
    /// How long a row is awaited.
    pub idle_limit: Duration,
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
        Self { rows, access, during, filtered, decoder: None, ended: false, idle_limit: IDLE_LIMIT }
    }

    pub(super) async fn next(&mut self) -> Result<Option<MySqlBatch>, EngineError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while !self.ended {
            let next = bounded(self.idle_limit, self.rows.try_next()).await;
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
