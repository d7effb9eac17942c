//! Rows by what their key means, however it is spelled: where the key's index is no way to them, the table is read for them.

use std::collections::HashSet;
use std::sync::Arc;

use sqlx::Executor;
use sqlx::postgres::PgConnection;

use super::decode::Decoder;
use super::fetch::{Place, Reading, Rows, collect, read_keys_with, row_columns, whole_table};
use super::session::unnamed;
use super::target::Target;
use super::{errors, range, statement};
use crate::engine::EngineError;
use crate::model::canonical::decode_row;
use crate::model::{
    AccessColumn, ColumnType, ComparisonType, Filled, Key, Rejection, RejectionKind, TableAccess, Value,
};

/// Rows of some keys, locked, and what else is known of those keys.
pub(super) struct Locked {
    /// Without `unproven`: what has no row here has none.
    pub found: Rows,
    /// The table had a row of the key, which another writer changed or which has no place by which it could be locked.
    pub missed: HashSet<Key>,
}

/// Locks the rows of these keys, with more columns as text. What the key's index does not show to be absent is looked for in
/// the whole table.
pub(super) async fn lock(
    connection: &mut PgConnection,
    target: &Target<'_>,
    keys: &[&Key],
    more: &[String],
) -> Result<Locked, EngineError> {
    let mut found = read_keys_with(connection, target, keys, Reading::Locked, more).await?;
    let unproven: HashSet<Key> = std::mem::take(&mut found.unproven).into_iter().collect();
    let mut missed = HashSet::new();
    let by_key = unproven.is_empty() && target.loose.is_none() && !target.folds;
    if !unproven.is_empty() {
        let (mut places, mut seen) = (Vec::new(), HashSet::new());
        for (key, place) in find(connection, target, &unproven).await? {
            places.extend(place);
            seen.insert(key);
        }
        let wanted: Vec<&Key> = seen.iter().collect();
        lock_places(connection, target, &wanted, &places, more, &mut found).await?;
        missed = seen.into_iter().filter(|key| !found.rows.contains_key(key)).collect();
    }
    if by_key {
        // The key addresses a row as well as its place does, and better where a trigger moves the row.
        found.rows.values_mut().for_each(|row| row.place = None);
    }
    Ok(Locked { found, missed })
}

/// The keys of these that a row of the table means, and where it lies if it has a place.
pub(super) async fn find(
    connection: &mut PgConnection,
    target: &Target<'_>,
    wanted: &HashSet<Key>,
) -> Result<Vec<(Key, Option<Place>)>, EngineError> {
    let mut columns = target.access.key_columns().to_vec();
    if target.relation.has_places() {
        columns.extend(["tableoid", "ctid"].map(system_column));
    }
    let access = TableAccess { columns, ..target.access.clone() };
    let decoder = Decoder::new(&access, target.raw_text).map_err(|e| EngineError::row(&target.during, &e))?;
    let types = access.row_types();
    let sql = format!(
        "COPY (SELECT {} FROM {} t) TO STDOUT (FORMAT binary)",
        statement::select_list("t", &access),
        target.from()
    );
    let mut found = Vec::new();
    whole_table(connection, &target.during, true).await?;
    range::copied(connection, &target.during, false, &Arc::new(decoder), &sql, &mut |key, row| {
        let key = Key::from(key);
        if wanted.contains(&key) {
            let texts = decode_row(&types, row).unwrap_or_default();
            let place = match texts.as_slice() {
                [Value::Text(table), Value::Text(ctid)] => {
                    Some(Place { table: table.clone(), ctid: ctid.clone() })
                }
                _ => None,
            };
            found.push((key, place));
        }
    })
    .await?;
    whole_table(connection, &target.during, false).await?;
    Ok(found)
}

fn system_column(name: &str) -> AccessColumn {
    AccessColumn {
        name: name.to_owned(),
        ty: ColumnType::Text { padded: false },
        declared: "text".to_owned(),
        comparison: ComparisonType::Text { trim: false },
        as_text: true,
        filled: Filled::Generated,
    }
}

/// Locks what lies at these places, as it is once it is locked.
async fn lock_places(
    connection: &mut PgConnection,
    target: &Target<'_>,
    keys: &[&Key],
    places: &[Place],
    more: &[String],
    out: &mut Rows,
) -> Result<(), EngineError> {
    if places.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "SELECT {} FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) AS v(c0, c1) CROSS JOIN {} t WHERE {PLACE_MATCH} FOR UPDATE OF t",
        row_columns(target, Reading::Locked, more),
        target.from()
    );
    let (tables, ctids): (Vec<String>, Vec<String>) =
        places.iter().map(|place| (place.table.clone(), place.ctid.clone())).unzip();
    let query = unnamed(sql).bind(tables).bind(ctids);
    let rows = connection.fetch_all(query).await.map_err(|e| errors::engine_error(&target.during, &e))?;
    collect(target, keys, &rows, more.len(), out)
}

/// The place in the first two arrays.
pub(super) const PLACE_MATCH: &str =
    "t.tableoid OPERATOR(pg_catalog.=) v.c0::oid AND t.ctid OPERATOR(pg_catalog.=) v.c1::tid";

/// A row is there, and nothing addresses it.
pub(super) fn no_address(target: &Target<'_>) -> Rejection {
    let column = target.loose.or_else(|| target.access.key_columns().first());
    let reason = match column {
        Some(column) => format!(
            "key column {} ({}) holds this key in a spelling by which the row cannot be addressed here",
            column.name, column.declared
        ),
        None => "the row cannot be addressed".to_owned(),
    };
    Rejection { kind: RejectionKind::Other, reason }
}
