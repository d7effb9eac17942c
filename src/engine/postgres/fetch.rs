//! Rows by key: text arrays cast to the columns' types, so that the key's index is used; optionally locked.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Executor, Row, ValueRef};

use super::batch::PgBatch;
use super::decode::Decoder;
use super::live::{self, LiveColumn, Relation};
use super::scan::check_filter;
use super::{bind, errors, run, statement};
use crate::engine::{EngineError, ErrorKind, keyed_rows};
use crate::model::canonical::decode_key;
use crate::model::{AccessColumn, ColumnType, ComparisonType, Key, KeyedRow, TableAccess};

/// Keys per query.
const KEYS_MAX: usize = 2000;

/// Nested loops over the key's index, whatever the statistics say (a table may never have been analyzed).
/// A view's own joins are the planner's to choose.
pub(super) const BY_INDEX: &str =
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";

/// A table as one call works with it.
pub(super) struct Target<'a> {
    pub access: &'a TableAccess,
    pub relation: Relation,
    pub live: Vec<LiveColumn>,
    pub key_types: Vec<ComparisonType>,
    pub row_types: Vec<ComparisonType>,
    pub decoder: Arc<Decoder>,
    /// Reads the key columns alone.
    pub key_decoder: Arc<Decoder>,
    pub during: String,
}

impl<'a> Target<'a> {
    pub(super) async fn load(
        connection: &mut PgConnection,
        access: &'a TableAccess,
        during: String,
    ) -> Result<Self, EngineError> {
        let relation = live::find_planned(connection, access).await?;
        let live = live::columns(connection, &relation).await?;
        live::match_columns(access, &live)?;
        let check_text = live::is_sql_ascii(connection).await?;
        let key_access = TableAccess { columns: access.key_columns().to_vec(), ..access.clone() };
        let decoder = |access| {
            Decoder::new(access, check_text).map(Arc::new).map_err(|e| EngineError::row(&during, &e))
        };
        let (decoder, key_decoder) = (decoder(access)?, decoder(&key_access)?);
        let (key_types, row_types) = (access.key_types(), access.row_types());
        Ok(Self { access, relation, live, key_types, row_types, decoder, key_decoder, during })
    }

    /// The columns as they are now, in the access's order.
    pub(super) fn live_of(&self, column: &AccessColumn) -> &str {
        self.live.iter().find(|live| live.name == column.name).map_or("text", |live| live.bare.as_str())
    }

    /// `t."k" = v.c0::int8 AND ...` for the key columns.
    pub(super) fn key_match(&self) -> String {
        let pairs = self.access.key_columns().iter().enumerate().map(|(at, column)| {
            format!("t.{} = v.c{at}::{}", statement::ident(&column.name), self.live_of(column))
        });
        pairs.collect::<Vec<_>>().join(" AND ")
    }

    pub(super) fn from(&self) -> String {
        statement::table(&self.relation.table)
    }
}

pub(super) async fn fetch(
    connection: &mut PgConnection,
    access: &Arc<TableAccess>,
    keys: &[Key],
) -> Result<Vec<KeyedRow>, EngineError> {
    let during = format!("read {} by key", access.table);
    run(connection, &during, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let target = Target::load(connection, access, during).await?;
    check_filter(connection, access, &target.during).await?;
    if matches!(target.relation.kind, 'r' | 'p') {
        run(connection, &target.during, BY_INDEX).await?;
    }
    let mut rows = Vec::with_capacity(keys.len());
    for keys in keys.chunks(KEYS_MAX) {
        let keys: Vec<&Key> = keys.iter().collect();
        let read = read_keys(connection, &target, &keys, Reading::Filtered).await?;
        rows.extend(read.rows.into_iter().map(|(key, found)| KeyedRow { key, row: found.row }));
    }
    run(connection, &target.during, "COMMIT").await?;
    Ok(rows)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Through the user's filter, without locks.
    Filtered,
    /// All rows, locked for writing in key order.
    Locked,
}

/// A row as read by key.
pub(super) struct Found {
    pub row: crate::model::CanonicalRow,
    /// The key columns' texts as stored, where they may be spelled otherwise than the key says.
    pub spelled: Option<Vec<Option<String>>>,
    /// More columns that were asked for, as text.
    pub more: Vec<Option<String>>,
}

#[derive(Default)]
pub(super) struct Rows {
    pub rows: HashMap<Key, Found>,
    /// Keys that more than one row has (spelled differently).
    pub ambiguous: Vec<Key>,
    /// Rows that the database holds equal to a key, with other bytes.
    pub strangers: usize,
}

pub(super) async fn read_keys(
    connection: &mut PgConnection,
    target: &Target<'_>,
    keys: &[&Key],
    reading: Reading,
) -> Result<Rows, EngineError> {
    read_keys_with(connection, target, keys, reading, &[]).await
}

/// Reads the rows of these keys, with more columns as text. Must run inside a transaction.
pub(super) async fn read_keys_with(
    connection: &mut PgConnection,
    target: &Target<'_>,
    keys: &[&Key],
    reading: Reading,
    more: &[String],
) -> Result<Rows, EngineError> {
    let mut out = Rows::default();
    let mut todo: Vec<Vec<&Key>> = keys.chunks(KEYS_MAX).map(<[_]>::to_vec).collect();
    let guard = "SAVEPOINT by_key";
    while let Some(group) = todo.pop() {
        run(connection, &target.during, guard).await?;
        match query(connection, target, &group, reading, more).await {
            Ok(rows) => {
                run(connection, &target.during, "RELEASE SAVEPOINT by_key").await?;
                collect(target, &group, &rows, &mut out)?;
            }
            Err(error) if is_data_error(&error) => {
                run(connection, &target.during, "ROLLBACK TO SAVEPOINT by_key; RELEASE SAVEPOINT by_key")
                    .await?;
                if group.len() > 1 {
                    let half = group.len() / 2;
                    todo.push(group.get(..half).unwrap_or_default().to_vec());
                    todo.push(group.get(half..).unwrap_or_default().to_vec());
                } else if fits(connection, target, &group).await? {
                    // The key is sound, so it is the filter that fails on the row.
                    return Err(reading_error(target, reading, &error));
                }
                // A key that the column cannot hold is in no row.
            }
            Err(error) => return Err(reading_error(target, reading, &error)),
        }
    }
    Ok(out)
}

fn reading_error(target: &Target<'_>, reading: Reading, error: &sqlx::Error) -> EngineError {
    if reading == Reading::Filtered && target.access.filter.is_some() {
        errors::filter_error(&target.during, error)
    } else {
        errors::engine_error(&target.during, error)
    }
}

fn is_data_error(error: &sqlx::Error) -> bool {
    errors::database(error).is_some_and(|db| db.code().starts_with("22"))
}

/// The texts of each key column for each key; keys that no row can have are left out.
fn key_arrays(target: &Target<'_>, keys: &[&Key]) -> Result<Vec<Vec<Option<String>>>, EngineError> {
    let columns = target.access.key_columns();
    let mut arrays: Vec<Vec<Option<String>>> = vec![Vec::with_capacity(keys.len()); columns.len()];
    for key in keys {
        let values = decode_key(&target.key_types, key.as_bytes()).map_err(|_| {
            EngineError::new(ErrorKind::Row, target.during.clone(), "a key's bytes do not fit the plan")
        })?;
        // Every combination of the spellings that a column may hold.
        let mut spellings: Vec<Vec<String>> = vec![Vec::new()];
        for (column, value) in columns.iter().zip(&values) {
            let texts = bind::key_texts(column, value);
            spellings = spellings
                .iter()
                .flat_map(|before| {
                    texts.iter().map(move |text| before.iter().cloned().chain([text.clone()]).collect())
                })
                .collect();
        }
        for spelling in spellings {
            for (array, text) in arrays.iter_mut().zip(spelling) {
                array.push(Some(text));
            }
        }
    }
    Ok(arrays)
}

async fn query(
    connection: &mut PgConnection,
    target: &Target<'_>,
    keys: &[&Key],
    reading: Reading,
    more: &[String],
) -> Result<Vec<PgRow>, sqlx::Error> {
    let access = target.access;
    let arrays = key_arrays(target, keys).map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
    if arrays.first().is_none_or(Vec::is_empty) {
        return Ok(Vec::new());
    }
    let mut columns = statement::select_list("t", access);
    for name in more {
        columns.push_str(&format!(", t.{}::text", statement::ident(name)));
    }
    let single = match access.key_columns() {
        [one] if !matches!(one.ty, ColumnType::Array(_)) => Some(one),
        _ => None,
    };
    let (from, condition) = match single {
        Some(key) => {
            let name = statement::ident(&key.name);
            (
                format!("{} t", target.from()),
                format!("t.{name} = ANY ($1::text[]::{}[])", target.live_of(key)),
            )
        }
        None => (format!("{} CROSS JOIN {} t", unnest(arrays.len(), &[]), target.from()), target.key_match()),
    };
    let tail = match reading {
        Reading::Filtered => {
            statement::filter(access).map_or_else(String::new, |filter| format!(" AND {filter}"))
        }
        Reading::Locked => {
            let order: Vec<String> = access
                .key_columns()
                .iter()
                .map(|column| format!("t.{}", statement::ident(&column.name)))
                .collect();
            format!(" ORDER BY {} FOR UPDATE OF t", order.join(", "))
        }
    };
    let sql = format!("SELECT {columns} FROM {from} WHERE {condition}{tail}");
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for array in arrays {
        query = query.bind(array);
    }
    connection.fetch_all(query).await
}

/// `unnest($1::text[], ...) AS v(c0, ...)`, with flag arrays behind.
pub(super) fn unnest(texts: usize, flags: &[usize]) -> String {
    let mut params: Vec<String> = (1..=texts).map(|at| format!("${at}::text[]")).collect();
    let mut names: Vec<String> = (0..texts).map(|at| format!("c{at}")).collect();
    for (at, flag) in flags.iter().enumerate() {
        params.push(format!("${}::bool[]", texts + at + 1));
        names.push(format!("f{flag}"));
    }
    format!("unnest({}) AS v({})", params.join(", "), names.join(", "))
}

/// Whether the key columns' types can hold the one key at all.
async fn fits(
    connection: &mut PgConnection,
    target: &Target<'_>,
    keys: &[&Key],
) -> Result<bool, EngineError> {
    let casts: Vec<String> = target
        .access
        .key_columns()
        .iter()
        .enumerate()
        .map(|(at, column)| format!("(v.c{at}::{}) IS NULL", target.live_of(column)))
        .collect();
    let arrays = key_arrays(target, keys)?;
    let sql = format!("SELECT {} FROM {}", casts.join(", "), unnest(arrays.len(), &[]));
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for array in arrays {
        query = query.bind(array);
    }
    run(connection, &target.during, "SAVEPOINT fits").await?;
    let tried = connection.fetch_all(query).await;
    run(connection, &target.during, "ROLLBACK TO SAVEPOINT fits; RELEASE SAVEPOINT fits").await?;
    match tried {
        Ok(_) => Ok(true),
        Err(error) if is_data_error(&error) => Ok(false),
        Err(error) => Err(errors::engine_error(&target.during, &error)),
    }
}

/// Decodes rows by `decoder`, whose columns come first.
pub(super) fn decoded(
    target: &Target<'_>,
    decoder: &Arc<Decoder>,
    columns: usize,
    rows: &[PgRow],
) -> Result<Vec<KeyedRow>, EngineError> {
    let broken = |e: sqlx::Error| errors::engine_error(&target.during, &e);
    let mut batch = PgBatch::new(decoder);
    let mut bytes = Vec::new();
    for row in rows {
        bytes.clear();
        bytes.extend_from_slice(&i16::try_from(columns).unwrap_or(i16::MAX).to_be_bytes());
        for at in 0..columns {
            let value = row.try_get_raw(at).map_err(broken)?;
            if value.is_null() {
                bytes.extend_from_slice(&(-1i32).to_be_bytes());
                continue;
            }
            let raw = value.as_bytes().map_err(|e| broken(sqlx::Error::Decode(e)))?;
            bytes.extend_from_slice(&i32::try_from(raw.len()).unwrap_or(i32::MAX).to_be_bytes());
            bytes.extend_from_slice(raw);
        }
        batch.push(&bytes);
    }
    keyed_rows(&batch).map_err(|e| EngineError::row(&target.during, &e))
}

fn collect(target: &Target<'_>, keys: &[&Key], rows: &[PgRow], out: &mut Rows) -> Result<(), EngineError> {
    let wanted: std::collections::HashSet<&Key> = keys.iter().copied().collect();
    let width = target.access.columns.len();
    for (keyed, raw) in decoded(target, &target.decoder, width, rows)?.into_iter().zip(rows) {
        if !wanted.contains(&keyed.key) {
            out.strangers += 1;
            continue;
        }
        let mut more = Vec::new();
        for at in width..raw.len() {
            more.push(live::get::<Option<String>>(raw, at)?);
        }
        let found = Found { row: keyed.row, spelled: spelled(target, raw)?, more };
        if out.rows.insert(keyed.key.clone(), found).is_some() {
            out.ambiguous.push(keyed.key);
        }
    }
    Ok(())
}

fn spelled(target: &Target<'_>, row: &PgRow) -> Result<Option<Vec<Option<String>>>, EngineError> {
    let columns = target.access.key_columns();
    let loose =
        |c: &AccessColumn| matches!(c.ty, ColumnType::Text { .. }) && c.comparison == ComparisonType::Uuid;
    if !columns.iter().any(loose) {
        return Ok(None);
    }
    let mut texts = Vec::with_capacity(columns.len());
    for (at, column) in columns.iter().enumerate() {
        texts.push(if loose(column) {
            let value = row.try_get_raw(at).map_err(|e| errors::engine_error(&target.during, &e))?;
            let raw = value.as_bytes().unwrap_or_default();
            Some(String::from_utf8_lossy(raw).into_owned())
        } else {
            None
        });
    }
    Ok(Some(texts))
}
