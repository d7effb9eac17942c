//! The three write statements over text arrays, and what each returns: the keys it wrote.

use std::collections::HashSet;

use sqlx::Executor;
use sqlx::postgres::{PgConnection, PgRow};

use super::fetch::{Place, decoded, unnest};
use super::meaning::PLACE_MATCH;
use super::session::unnamed;
use super::statement::{ident, writable};
use super::target::Target;
use crate::engine::EngineError;
use crate::model::{AccessColumn, Filled, Key, Operation, fail_point};

/// A change as texts, one for each of the access's columns (a delete has the key's only).
pub(super) struct Prepared {
    pub at: usize,
    pub key: Key,
    pub operation: Operation,
    pub texts: Vec<Option<String>>,
    /// Of an update: which of the access's columns are written.
    pub changed: Vec<usize>,
    /// Of a replacement: the columns outside the access, as they were.
    pub kept: Vec<Option<String>>,
    /// Where its row lies, where its key does not address it.
    pub place: Option<Place>,
}

/// How inserts are kept from touching rows that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// `ON CONFLICT (key) DO NOTHING`.
    Arbiter,
    /// The key's constraint is deferrable, or the relation knows no such clause: a duplicate is an error.
    Refusal,
}

/// Inserts the rows that have no equal key; `kept` names columns outside the access that are written too.
pub(super) async fn insert(
    connection: &mut PgConnection,
    target: &Target<'_>,
    group: &[&Prepared],
    guard: Guard,
    kept: &[String],
) -> Result<Vec<PgRow>, sqlx::Error> {
    let access = target.access;
    let written: Vec<(usize, &AccessColumn)> =
        access.columns.iter().enumerate().filter(|(_, column)| writable(column)).collect();
    let mut arrays: Vec<Vec<Option<String>>> = Vec::with_capacity(written.len() + kept.len());
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for (place, (at, column)) in written.iter().enumerate() {
        arrays.push(group.iter().map(|row| row.texts.get(*at).cloned().flatten()).collect());
        names.push(ident(&column.name));
        values.push(target.assigned(column, &format!("v.c{place}")));
    }
    for (at, name) in kept.iter().enumerate() {
        let bare =
            target.live.iter().find(|live| live.name == *name).map_or("text", |live| live.bare.as_str());
        let value = format!("v.c{}", arrays.len());
        arrays.push(group.iter().map(|row| row.kept.get(at).cloned().flatten()).collect());
        names.push(ident(name));
        values.push(if matches!(bare, "text" | "character varying" | "bpchar") {
            value
        } else {
            format!("{value}::{bare}")
        });
    }
    let always =
        written.iter().any(|(_, column)| column.filled == Filled::IdentityAlways) || !kept.is_empty();
    let overriding = if always { " OVERRIDING SYSTEM VALUE" } else { "" };
    let conflict = match guard {
        Guard::Arbiter => {
            let key: Vec<String> = access.key_columns().iter().map(|column| ident(&column.name)).collect();
            format!(" ON CONFLICT ({}) DO NOTHING", key.join(", "))
        }
        Guard::Refusal => String::new(),
    };
    let sql = format!(
        "INSERT INTO {} AS t ({}){overriding} SELECT {} FROM {}{conflict} RETURNING {}",
        target.into(),
        names.join(", "),
        values.join(", "),
        unnest(arrays.len(), &[]),
        target.select_key("t")
    );
    execute(connection, sql, arrays, Vec::new()).await
}

/// The arrays that address rows, and the condition: by their places if they have them, and by their keys else.
fn address(target: &Target<'_>, group: &[&Prepared]) -> (Vec<Vec<Option<String>>>, String) {
    let places: Option<Vec<&Place>> = group.iter().map(|row| row.place.as_ref()).collect();
    if let Some(places) = places {
        let tables = places.iter().map(|place| Some(place.table.clone())).collect();
        let ctids = places.iter().map(|place| Some(place.ctid.clone())).collect();
        return (vec![tables, ctids], PLACE_MATCH.to_owned());
    }
    let arrays = (0..target.access.key_len)
        .map(|at| group.iter().map(|row| row.texts.get(at).cloned().flatten()).collect())
        .collect();
    (arrays, target.key_match())
}

/// Updates the changed columns of rows that are locked.
pub(super) async fn update(
    connection: &mut PgConnection,
    target: &Target<'_>,
    group: &[&Prepared],
) -> Result<Vec<PgRow>, sqlx::Error> {
    let access = target.access;
    let (mut arrays, rows) = address(target, group);
    let mut flags: Vec<usize> = Vec::new();
    let mut flag_arrays: Vec<Vec<bool>> = Vec::new();
    let mut sets = Vec::new();
    for (at, column) in access.columns.iter().enumerate().skip(access.key_len) {
        let writes = group.iter().filter(|row| row.changed.contains(&at)).count();
        if writes == 0 {
            continue;
        }
        let name = ident(&column.name);
        let value = target.assigned(column, &format!("v.c{}", arrays.len()));
        arrays.push(group.iter().map(|row| row.texts.get(at).cloned().flatten()).collect());
        if writes == group.len() {
            sets.push(format!("{name} = {value}"));
        } else {
            // A cell that is equal may still be finer than what was compared (more digits): it stays.
            flags.push(at);
            flag_arrays.push(group.iter().map(|row| row.changed.contains(&at)).collect());
            sets.push(format!("{name} = CASE WHEN v.f{at} THEN {value} ELSE t.{name} END"));
        }
    }
    let sql = format!(
        "UPDATE {} AS t SET {} FROM {} WHERE {} RETURNING {}",
        target.from(),
        sets.join(", "),
        unnest(arrays.len(), &flags),
        rows,
        target.select_key("t")
    );
    execute(connection, sql, arrays, flag_arrays).await
}

pub(super) async fn delete(
    connection: &mut PgConnection,
    target: &Target<'_>,
    group: &[&Prepared],
) -> Result<Vec<PgRow>, sqlx::Error> {
    let (arrays, rows) = address(target, group);
    let sql = format!(
        "DELETE FROM {} AS t USING {} WHERE {rows} RETURNING {}",
        target.from(),
        unnest(arrays.len(), &[]),
        target.select_key("t")
    );
    execute(connection, sql, arrays, Vec::new()).await
}

async fn execute(
    connection: &mut PgConnection,
    sql: String,
    texts: Vec<Vec<Option<String>>>,
    flags: Vec<Vec<bool>>,
) -> Result<Vec<PgRow>, sqlx::Error> {
    let mut query = unnamed(sql);
    for array in texts {
        query = query.bind(array);
    }
    for array in flags {
        query = query.bind(array);
    }
    fail_point();
    connection.fetch_all(query).await
}

/// The keys of returned rows.
pub(super) fn keys(target: &Target<'_>, rows: &[PgRow]) -> Result<HashSet<Key>, EngineError> {
    let width = target.access.key_len;
    Ok(decoded(target, &target.key_decoder, width, rows)?.into_iter().map(|row| row.key).collect())
}
