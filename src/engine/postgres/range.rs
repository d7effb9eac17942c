//! A run of rows by its ends: one range of the key's index, where looking each key up would cost several times as much.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use sqlx::postgres::PgConnection;
use tokio::time::Instant;

use super::batch::{END_OF_COPY, Piece, strip_header};
use super::decode::Decoder;
use super::fetch::BY_INDEX;
use super::scan::{JOIN_TIMEOUT, check_filter, export, settings};
use super::session::READ;
use super::target::Target;
use super::{PgEngine, bind, errors, fetch, run, statement};
use crate::engine::{EngineError, ErrorKind, RawBatch};
use crate::model::canonical::decode_key;
use crate::model::{AccessColumn, ColumnType, Key, RowBuffer, RowRun, TableAccess};

/// Fewer keys are looked up.
const KEYS_MIN: usize = 32;
/// Rows that are read although nobody asked for them, in the worst case as many as were asked for and these.
const STRANGERS: usize = 1_000;

/// The rows of these keys, which were all that a snapshot had between the first and the last. What lies between them by now
/// and is none of them is left out; what the range does not have is looked up, so that no order of keys is relied on.
pub(super) async fn fetch_run(
    engine: &PgEngine,
    connection: &mut PgConnection,
    access: &Arc<TableAccess>,
    keys: &[Key],
) -> Result<RowRun, EngineError> {
    let during = format!("read {} by key", access.table);
    let ends = match (keys.first(), keys.last()) {
        (Some(first), Some(last)) if keys.len() >= KEYS_MIN => ends(access, first, last),
        _ => None,
    };
    let Some(ends) = ends else {
        return Ok(fetch::lookup(engine, connection, access, keys).await?.rows.iter().collect());
    };
    let found = between(engine, connection, access, &ends, keys.len(), during).await?;
    let (mut rows, rest) = of_keys(found.sorted(), keys);
    if !rest.is_empty() {
        let looked_up = fetch::lookup(engine, connection, access, &rest).await?;
        looked_up.rows.iter().for_each(|row| rows.push(row.key.as_bytes(), row.row.as_bytes()));
    }
    Ok(rows)
}

/// Of rows in the order of their keys those that were asked for, and the keys, in their order too, that have none.
fn of_keys(found: RowRun, keys: &[Key]) -> (RowRun, Vec<Key>) {
    let wanted = keys.iter().map(Key::as_bytes);
    // Most often they are what is there, no more and no less.
    if found.len() == keys.len() && found.iter().zip(wanted).all(|((key, _), wanted)| key == wanted) {
        return (found, Vec::new());
    }
    let (mut rows, mut rest) = (RowRun::default(), Vec::new());
    let mut found = found.iter().peekable();
    for wanted in keys {
        while found.next_if(|(key, _)| *key < wanted.as_bytes()).is_some() {}
        match found.next_if(|(key, _)| *key == wanted.as_bytes()) {
            Some((key, row)) => rows.push(key, row),
            None => rest.push(wanted.clone()),
        }
    }
    (rows, rest)
}

/// The key's columns and the two ends as SQL; `None` where its types may be ordered otherwise than its bytes.
fn ends(access: &TableAccess, first: &Key, last: &Key) -> Option<[Vec<(String, String)>; 2]> {
    let columns = access.key_columns();
    let ordered = |column: &AccessColumn| {
        use ColumnType as T;
        let plain = matches!(
            column.ty,
            T::Int { .. } | T::Uuid | T::Date | T::Timestamp { .. } | T::TimestampTz { .. }
        );
        plain && !column.as_text
    };
    if !columns.iter().all(ordered) {
        return None;
    }
    let end = |key: &Key| {
        let values = decode_key(&access.key_types(), key.as_bytes()).ok()?;
        let mut parts = Vec::with_capacity(columns.len());
        for (column, value) in columns.iter().zip(&values) {
            let text = bind::text_of(column, value).ok().flatten()?;
            parts.push((statement::ident(&column.name), statement::literal(&text)));
        }
        Some(parts)
    };
    Some([end(first)?, end(last)?])
}

async fn between(
    engine: &PgEngine,
    connection: &mut PgConnection,
    access: &TableAccess,
    ends: &[Vec<(String, String)>; 2],
    expected: usize,
    during: String,
) -> Result<RowRun, EngineError> {
    run(connection, &during, &engine.begin(READ)).await?;
    let target = Target::load(engine, connection, access, during).await?;
    let path = check_filter(connection, &engine.paths, &target.relation, access, &target.during).await?;
    let side = |parts: &[(String, String)]| {
        let columns: Vec<String> = parts.iter().map(|(name, _)| format!("t.{name}")).collect();
        let values: Vec<String> = parts
            .iter()
            .zip(access.key_columns())
            .map(|((_, literal), column)| format!("{literal}::{}", target.live_of(column)))
            .collect();
        (columns.join(", "), values.join(", "))
    };
    let ((columns, first), (_, last)) = (side(&ends[0]), side(&ends[1]));
    let filter = statement::filter(access).map_or_else(String::new, |filter| format!(" AND {filter}"));
    let limit = expected * 2 + STRANGERS;
    let sql = format!(
        "COPY (SELECT {} FROM {} t WHERE ROW({columns}) OPERATOR(pg_catalog.>=) ROW({first}) \
         AND ROW({columns}) OPERATOR(pg_catalog.<=) ROW({last}){filter} LIMIT {limit}) \
         TO STDOUT (FORMAT binary)",
        statement::select_list("t", access),
        target.from(),
    );
    let by_index = if target.relation.is_table() { BY_INDEX } else { "" };
    let planned = format!("{path}; {by_index}");
    let found = match by_lane(engine, connection, &target, planned.clone(), &sql, expected).await? {
        Some(found) => found,
        None => {
            run(connection, &target.during, &planned).await?;
            let mut found = RowRun::default();
            let filtered = access.filter.is_some();
            copied(connection, &target.during, filtered, &target.decoder, &sql, &mut |key, row| {
                found.push(key, row)
            })
            .await?;
            found
        }
    };
    run(connection, &target.during, "ROLLBACK").await?;
    Ok(found)
}

/// Says, when it is dropped, that nobody waits any more.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// In whole pieces, on a connection of its own that sees what this one sees; `None` where there is no such lane.
async fn by_lane(
    engine: &PgEngine,
    connection: &mut PgConnection,
    target: &Target<'_>,
    planned: String,
    sql: &str,
    expected: usize,
) -> Result<Option<RowRun>, EngineError> {
    if engine.is_alone() {
        return Ok(None);
    }
    let Some(snapshot) = export(connection, &target.during).await? else { return Ok(None) };
    let waiting = Waiting(Arc::default());
    let given_up = {
        let gone = Arc::clone(&waiting.0);
        move || gone.load(Ordering::Relaxed)
    };
    let import = engine.import(&snapshot);
    let (engine, decoder) = (engine.clone(), Arc::clone(&target.decoder));
    let (sql, during, filtered) = (sql.to_owned(), target.during.clone(), target.access.filter.is_some());
    let read = move || {
        let begin = [import.as_str(), settings(engine.version), planned.as_str()];
        let deadline = Instant::now() + JOIN_TIMEOUT;
        let late = {
            let given_up = given_up.clone();
            move || given_up() || Instant::now() > deadline
        };
        let Some(mut lane) = engine.lane(&begin, late) else {
            if Instant::now() > deadline {
                engine.stay_alone();
            }
            return Ok(None);
        };
        lane.give_up_when(Box::new(given_up));
        let failed = |error| errors::lane_error(&during, error, filtered);
        let (mut found, mut first) = (RowRun::default(), true);
        lane.copy(&sql).map_err(failed)?;
        while let Some((frames, rows)) = lane.piece().map_err(failed)? {
            let piece = Piece { decoder: Arc::clone(&decoder), frames, rows, first };
            piece
                .encode(&mut |key, row| found.push(key, row))
                .map_err(|error| EngineError::row(&during, &error))?;
            if std::mem::take(&mut first) {
                found.expect(expected);
            }
        }
        lane.run("ROLLBACK").map_err(failed)?;
        // One that ran SQL of the caller's own is nobody else's.
        match filtered {
            true => lane.close(),
            false => engine.lanes.give(lane),
        }
        Ok(Some(found))
    };
    let read = tokio::task::spawn_blocking(read).await;
    drop(waiting);
    read.unwrap_or_else(|_| Err(EngineError::new(ErrorKind::Database, &target.during, "a reader stopped")))
}

/// The rows of a COPY in its binary form, by the driver; `filtered` where it holds the user's own condition.
pub(super) async fn copied(
    connection: &mut PgConnection,
    during: &str,
    filtered: bool,
    decoder: &Decoder,
    sql: &str,
    each: &mut (dyn FnMut(&[u8], &[u8]) + Send),
) -> Result<(), EngineError> {
    let failed = |error: &sqlx::Error| match filtered {
        true => errors::filter_error(during, error),
        false => errors::engine_error(during, error),
    };
    let mut stream = connection.copy_out_raw(sql).await.map_err(|e| failed(&e))?;
    let mut buffer = RowBuffer::default();
    let mut head = true;
    while let Some(message) = stream.next().await {
        let message = message.map_err(|e| failed(&e))?;
        let mut bytes: &[u8] = &message;
        if std::mem::take(&mut head) {
            bytes = strip_header(bytes).ok_or_else(|| {
                EngineError::new(ErrorKind::Database, during, "COPY data without its header")
            })?;
        }
        // The header may come without a row behind it.
        if !bytes.is_empty() && bytes != END_OF_COPY {
            decoder.row(&mut bytes, &mut buffer).map_err(|error| EngineError::row(during, &error))?;
            each(&buffer.key, &buffer.row);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_key_has_its_row_or_is_looked_up(
            there in prop::collection::btree_set(0u16..200, 0..100),
            asked in prop::collection::btree_set(0u16..200, 0..100),
        ) {
            let key = |n: u16| Key::from(&n.to_be_bytes()[..]);
            let mut found = RowRun::default();
            there.iter().for_each(|n| found.push(&n.to_be_bytes(), &n.to_be_bytes()));
            let keys: Vec<Key> = asked.iter().map(|n| key(*n)).collect();
            let (rows, rest) = of_keys(found, &keys);
            let both: Vec<Key> = asked.intersection(&there).map(|n| key(*n)).collect();
            prop_assert!(rows.iter().all(|(key, row)| key == row));
            prop_assert_eq!(rows.iter().map(|(key, _)| Key::from(key)).collect::<Vec<_>>(), both);
            prop_assert_eq!(rest, asked.difference(&there).map(|n| key(*n)).collect::<Vec<_>>());
        }
    }
}
