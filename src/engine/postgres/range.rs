//! A run of rows by its ends: one range of the key's index, where looking each key up would cost several times as much.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use sqlx::postgres::PgConnection;

use super::fetch::{BY_INDEX, Target};
use super::scan::{PgBatch, check_filter, strip_header};
use super::{bind, errors, fetch, run, statement};
use crate::engine::{EngineError, ErrorKind, RawBatch};
use crate::model::canonical::decode_key;
use crate::model::{AccessColumn, CanonicalRow, ColumnType, Key, KeyedRow, TableAccess};

/// Fewer keys are looked up.
const KEYS_MIN: usize = 32;
/// Rows that are read although nobody asked for them, in the worst case as many as were asked for and these.
const STRANGERS: usize = 1_000;

/// The rows of these keys, which were all that a snapshot had between the first and the last. What lies between them by now
/// and is none of them is left out; what the range does not have is looked up, so that no order of keys is relied on.
pub(super) async fn fetch_run(
    connection: &mut PgConnection,
    access: &Arc<TableAccess>,
    keys: &[Key],
) -> Result<Vec<KeyedRow>, EngineError> {
    let during = format!("read {} by key", access.table);
    let ends = match (keys.first(), keys.last()) {
        (Some(first), Some(last)) if keys.len() >= KEYS_MIN => ends(access, first, last),
        _ => None,
    };
    let Some(ends) = ends else { return fetch::fetch(connection, access, keys).await };
    let mut found = between(connection, access, &ends, keys.len() * 2 + STRANGERS, during).await?;
    let (mut rows, mut rest) = (Vec::with_capacity(keys.len()), Vec::new());
    for key in keys {
        match found.remove(key) {
            Some(row) => rows.push(KeyedRow { key: key.clone(), row }),
            None => rest.push(key.clone()),
        }
    }
    if !rest.is_empty() {
        rows.extend(fetch::fetch(connection, access, &rest).await?);
    }
    Ok(rows)
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
    connection: &mut PgConnection,
    access: &TableAccess,
    ends: &[Vec<(String, String)>; 2],
    limit: usize,
    during: String,
) -> Result<HashMap<Key, CanonicalRow>, EngineError> {
    run(connection, &during, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let target = Target::load(connection, access, during).await?;
    check_filter(connection, access, &target.during).await?;
    if matches!(target.relation.kind, 'r' | 'p') {
        run(connection, &target.during, BY_INDEX).await?;
    }
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
    let sql = format!(
        "COPY (SELECT {} FROM {} t WHERE ({columns}) >= ({first}) AND ({columns}) <= ({last}){filter} LIMIT {limit}) \
         TO STDOUT (FORMAT binary)",
        statement::select_list("t", access),
        target.from(),
    );
    let failed = |error: &sqlx::Error| {
        if access.filter.is_some() {
            errors::filter_error(&target.during, error)
        } else {
            errors::engine_error(&target.during, error)
        }
    };
    let mut found = HashMap::with_capacity(limit / 2);
    let mut stream = connection.copy_out_raw(&sql).await.map_err(|e| failed(&e))?;
    let mut batch = PgBatch::new(&target.decoder);
    let mut head = true;
    while let Some(message) = stream.next().await {
        let message = message.map_err(|e| failed(&e))?;
        let mut bytes: &[u8] = &message;
        if std::mem::take(&mut head) {
            bytes = strip_header(bytes).ok_or_else(|| {
                let what = "COPY data without its header";
                EngineError::new(ErrorKind::Database, target.during.clone(), what)
            })?;
        }
        if !batch.push(bytes) {
            keep(&target, &std::mem::replace(&mut batch, PgBatch::new(&target.decoder)), &mut found)?;
        }
    }
    drop(stream);
    keep(&target, &batch, &mut found)?;
    run(connection, &target.during, "COMMIT").await?;
    Ok(found)
}

fn keep(
    target: &Target<'_>,
    batch: &PgBatch,
    found: &mut HashMap<Key, CanonicalRow>,
) -> Result<(), EngineError> {
    let kept = batch.encode(&mut |buffer| {
        found.insert(Key::from(buffer.key.as_slice()), CanonicalRow::new(buffer.row.as_slice()));
    });
    kept.map_err(|error| EngineError::row(&target.during, &error))
}
