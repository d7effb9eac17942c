//! Rows by key: text arrays cast to the columns' types, so that the key's index is used; optionally locked.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Executor, Row, ValueRef};

use super::batch::PgBatch;
use super::decode::Decoder;
use super::live;
use super::scan::check_filter;
use super::session::{READ, ask, unnamed};
use super::target::Target;
use super::{PgEngine, errors, run, statement};
use crate::engine::{EngineError, Lookup, keyed_rows};
use crate::model::{ColumnType, ComparisonType, Key, KeyedRow, TableAccess};

/// Keys per query.
const KEYS_MAX: usize = 2000;

/// Nested loops over the key's index, whatever the statistics say (a table may never have been analyzed).
/// A view's own joins are the planner's to choose.
pub(super) const BY_INDEX: &str =
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";

pub(super) async fn lookup(
    engine: &PgEngine,
    connection: &mut PgConnection,
    access: &Arc<TableAccess>,
    keys: &[Key],
) -> Result<Lookup, EngineError> {
    let during = format!("read {} by key", access.table);
    run(connection, &during, &engine.begin(READ)).await?;
    let target = Target::load(engine, connection, access, during).await?;
    check_filter(connection, &engine.paths, &target.relation, access, &target.during).await?;
    if target.relation.is_table() {
        run(connection, &target.during, BY_INDEX).await?;
    }
    let keys: Vec<&Key> = keys.iter().collect();
    let read = read_keys(connection, &target, &keys, Reading::Filtered).await?;
    run(connection, &target.during, "ROLLBACK").await?;
    let rows = read.rows.into_iter().map(|(key, found)| KeyedRow { key, row: found.row }).collect();
    Ok(Lookup { rows, unproven: read.unproven })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Through the user's filter, without locks.
    Filtered,
    /// All rows that the login may read, without locks.
    Shown,
    /// All rows, locked for writing in key order.
    Locked,
}

/// Where a row lies, as texts: its table's oid and its ctid there. It stays there while the row is locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub table: String,
    pub ctid: String,
}

/// A row as read by key.
pub(super) struct Found {
    pub row: crate::model::CanonicalRow,
    /// The key columns' texts as stored, where they may be spelled otherwise than the key says.
    pub spelled: Option<Vec<Option<String>>>,
    /// Of a locked row, in a relation whose rows have places.
    pub place: Option<Place>,
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
    /// Keys without a row here that may have one nevertheless.
    pub unproven: Vec<Key>,
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
        // A key that cannot be given to the statement is none that it would find.
        let (_, unbound) = target.key_arrays(&group)?;
        out.unproven.extend(unbound.iter().map(|key| (*key).clone()));
        let group: Vec<&Key> = group.into_iter().filter(|key| !unbound.contains(key)).collect();
        if group.is_empty() {
            continue;
        }
        run(connection, &target.during, guard).await?;
        match query(connection, target, &group, reading, more).await {
            Ok(rows) => {
                run(connection, &target.during, "RELEASE SAVEPOINT by_key").await?;
                collect(target, &group, &rows, more.len(), &mut out)?;
                let missed: Vec<&Key> =
                    group.iter().filter(|key| !out.rows.contains_key(key)).copied().collect();
                let found = missed.len() < group.len();
                let unproven = unproven(connection, target, missed, found).await?;
                out.unproven.extend(unproven);
            }
            Err(error) if is_data_error(&error) => {
                run(connection, &target.during, "ROLLBACK TO SAVEPOINT by_key; RELEASE SAVEPOINT by_key")
                    .await?;
                if group.len() > 1 {
                    let half = group.len() / 2;
                    todo.push(group.get(..half).unwrap_or_default().to_vec());
                    todo.push(group.get(half..).unwrap_or_default().to_vec());
                } else if as_given(connection, target, &group).await?.is_some() {
                    // The key is sound, so it is the filter that fails on the row.
                    return Err(reading_error(target, reading, &error));
                } else {
                    // The column's type does not take the key.
                    out.unproven.extend(group.into_iter().cloned());
                }
            }
            Err(error) => return Err(reading_error(target, reading, &error)),
        }
    }
    Ok(out)
}

/// Of the keys that one statement did not find those that it need not have found. A key is shown to be absent where the
/// server's equality finds every spelling of it, the server took it as what it is, and the statement found a row at all.
async fn unproven(
    connection: &mut PgConnection,
    target: &Target<'_>,
    missed: Vec<&Key>,
    found: bool,
) -> Result<Vec<Key>, EngineError> {
    let all = |keys: Vec<&Key>| keys.into_iter().cloned().collect();
    if missed.is_empty() || target.loose.is_some() || target.relation.is_foreign {
        return Ok(all(missed));
    }
    if !found && !finds_another(connection, target, &missed).await? {
        return Ok(all(missed));
    }
    let Some(given) = as_given(connection, target, &missed).await? else { return Ok(all(missed)) };
    Ok(all(missed.into_iter().filter(|key| !given.contains(*key)).collect()))
}

/// Whether the same statement, asked for a row that is there too, finds that one: where it found nothing at all, it may be
/// one that cannot.
async fn finds_another(
    connection: &mut PgConnection,
    target: &Target<'_>,
    missed: &[&Key],
) -> Result<bool, EngineError> {
    if target.access.filter.is_some() {
        return Ok(false);
    }
    let columns = target.select_key("t");
    let sql = unnamed(format!("SELECT {columns} FROM {} t LIMIT 1", target.from()));
    let rows = connection.fetch_all(sql).await.map_err(|e| errors::engine_error(&target.during, &e))?;
    let width = target.access.key_len;
    let Some(row) = decoded(target, &target.key_decoder, width, &rows)?.pop() else { return Ok(false) };
    let keys: Vec<&Key> = missed.iter().copied().chain([&row.key]).collect();
    let rows = query(connection, target, &keys, Reading::Filtered, &[])
        .await
        .map_err(|e| errors::engine_error(&target.during, &e))?;
    let mut again = Rows::default();
    collect(target, &[&row.key], &rows, 0, &mut again)?;
    Ok(again.rows.contains_key(&row.key))
}

/// The keys as the server reads them out of what it was given; `None` where it does not take one of them.
async fn as_given(
    connection: &mut PgConnection,
    target: &Target<'_>,
    keys: &[&Key],
) -> Result<Option<HashSet<Key>>, EngineError> {
    let (arrays, _) = target.key_arrays(keys)?;
    let named = target.access.key_columns().iter().enumerate().map(|(at, column)| {
        let given = target.compared(column, &format!("v.c{at}"));
        format!("{given} AS {}", statement::ident(&column.name))
    });
    let sql = format!(
        "SELECT {} FROM (SELECT {} FROM {}) g",
        target.select_key("g"),
        named.collect::<Vec<_>>().join(", "),
        unnest(arrays.len(), &[])
    );
    let mut query = unnamed(sql);
    for array in arrays {
        query = query.bind(array);
    }
    run(connection, &target.during, "SAVEPOINT given").await?;
    let tried = connection.fetch_all(query).await;
    run(connection, &target.during, "ROLLBACK TO SAVEPOINT given; RELEASE SAVEPOINT given").await?;
    match tried {
        Ok(rows) => {
            let keys = decoded(target, &target.key_decoder, target.access.key_len, &rows)?;
            Ok(Some(keys.into_iter().map(|row| row.key).collect()))
        }
        Err(error) if is_data_error(&error) => Ok(None),
        Err(error) => Err(errors::engine_error(&target.during, &error)),
    }
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

/// What is read of each row: the access's columns, more as text, and of a row that is locked its place.
pub(super) fn row_columns(target: &Target<'_>, reading: Reading, more: &[String]) -> String {
    let mut columns = target.select_list("t");
    for name in more {
        columns.push_str(&format!(", t.{}::text", statement::ident(name)));
    }
    if reading == Reading::Locked && target.relation.has_places() {
        columns.push_str(", t.tableoid::text, t.ctid::text");
    }
    columns
}

async fn query(
    connection: &mut PgConnection,
    target: &Target<'_>,
    keys: &[&Key],
    reading: Reading,
    more: &[String],
) -> Result<Vec<PgRow>, sqlx::Error> {
    let access = target.access;
    let (arrays, _) = target.key_arrays(keys).map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
    let columns = row_columns(target, reading, more);
    let single = match access.key_columns() {
        [one] if target.is_plain(one) => Some(one),
        _ => None,
    };
    let (from, condition) = match single {
        Some(key) => (
            format!("{} t", target.from()),
            format!(
                "{} {} ANY ($1::text[]::{}[])",
                target.stored(key),
                target.equals(key),
                target.live_of(key)
            ),
        ),
        None => (format!("{} CROSS JOIN {} t", unnest(arrays.len(), &[]), target.from()), target.key_match()),
    };
    let tail = match reading {
        Reading::Filtered => {
            statement::filter(access).map_or_else(String::new, |filter| format!(" AND {filter}"))
        }
        Reading::Shown => String::new(),
        Reading::Locked => {
            let order: Vec<String> = access
                .key_columns()
                .iter()
                .map(|column| format!("t.{}", statement::ident(&column.name)))
                .collect();
            format!(" ORDER BY {} FOR UPDATE OF t", order.join(", "))
        }
    };
    let mut query = unnamed(format!("SELECT {columns} FROM {from} WHERE {condition}{tail}"));
    for array in arrays {
        query = query.bind(array);
    }
    connection.fetch_all(query).await
}

/// Arrays of texts side by side as `v(c0, ...)`, with flag arrays behind. `unnest` of several takes no schema before its name.
pub(super) fn unnest(texts: usize, flags: &[usize]) -> String {
    let mut params: Vec<String> = (1..=texts).map(|at| format!("pg_catalog.unnest(${at}::text[])")).collect();
    let mut names: Vec<String> = (0..texts).map(|at| format!("c{at}")).collect();
    for (at, flag) in flags.iter().enumerate() {
        params.push(format!("pg_catalog.unnest(${}::bool[])", texts + at + 1));
        names.push(format!("f{flag}"));
    }
    format!("ROWS FROM ({}) AS v({})", params.join(", "), names.join(", "))
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

/// Takes rows of `row_columns`.
pub(super) fn collect(
    target: &Target<'_>,
    keys: &[&Key],
    rows: &[PgRow],
    more: usize,
    out: &mut Rows,
) -> Result<(), EngineError> {
    let wanted: HashSet<&Key> = keys.iter().copied().collect();
    let width = target.access.columns.len();
    let behind = width + more;
    for (keyed, raw) in decoded(target, &target.decoder, width, rows)?.into_iter().zip(rows) {
        if !wanted.contains(&keyed.key) {
            out.strangers += 1;
            continue;
        }
        let more =
            (width..behind).map(|at| live::get::<Option<String>>(raw, at)).collect::<Result<_, _>>()?;
        let place = if raw.len() > behind {
            Some(Place { table: live::get(raw, behind)?, ctid: live::get(raw, behind + 1)? })
        } else {
            None
        };
        let found = Found { row: keyed.row, spelled: spelled(target, raw)?, place, more };
        if out.rows.insert(keyed.key.clone(), found).is_some() {
            out.ambiguous.push(keyed.key);
        }
    }
    Ok(())
}

/// The stored texts of key columns that may be spelled otherwise than their key says.
fn spelled(target: &Target<'_>, row: &PgRow) -> Result<Option<Vec<Option<String>>>, EngineError> {
    let columns = target.access.key_columns();
    let plain = ComparisonType::Text { trim: false };
    if target.loose.is_none() {
        return Ok(None);
    }
    let mut texts = Vec::with_capacity(columns.len());
    for (at, column) in columns.iter().enumerate() {
        texts.push(if matches!(column.ty, ColumnType::Text { .. }) && column.comparison != plain {
            let value = row.try_get_raw(at).map_err(|e| errors::engine_error(&target.during, &e))?;
            target.text_of_stored(column, value.as_bytes().unwrap_or_default())
        } else {
            None
        });
    }
    Ok(Some(texts))
}

/// The plans of what reads a whole table, and of what reads by key.
pub(super) async fn whole_table(
    connection: &mut PgConnection,
    during: &str,
    whole: bool,
) -> Result<(), EngineError> {
    let sql = if whole { "SET LOCAL enable_seqscan = on" } else { "SET LOCAL enable_seqscan = off" };
    ask(connection, sql.to_owned()).await.map(|_| ()).map_err(|e| errors::engine_error(during, &e))
}
