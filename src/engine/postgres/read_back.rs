//! Rows that are read back after they were written: a trigger, a rule or a generated column may make them others.

use std::collections::HashSet;

use sqlx::postgres::PgConnection;

use super::fetch::{Reading, read_keys};
use super::live::get;
use super::session::ask;
use super::target::Target;
use super::write::Prepared;
use super::{describe, errors};
use crate::engine::EngineError;
use crate::engine::read_back::rejection;
use crate::model::schema::keeps_less;
use crate::model::{AccessColumn, Change, Filled, Key, Rejection};

/// Whether what is written into the table may become another row than was sent.
pub(super) async fn may_differ(
    connection: &mut PgConnection,
    target: &Target<'_>,
) -> Result<bool, EngineError> {
    let makes_another = |column: &AccessColumn| {
        column.filled == Filled::Generated || column.as_text || keeps_less(&column.declared)
    };
    // Behind a domain's name there may be such a type.
    let in_domain =
        |column: &AccessColumn| target.live.iter().any(|live| live.domain && live.name == column.name);
    if target.access.columns.iter().any(|column| makes_another(column) || in_domain(column)) {
        return Ok(true);
    }
    let sql = format!("SELECT EXISTS ({})", describe::triggers_sql(&target.relation));
    let rows = ask(connection, sql).await.map_err(|error| errors::engine_error(&target.during, &error))?;
    rows.first().map_or(Ok(true), |row| get(row, 0))
}

/// Whether triggers of the table may wait for the transaction's end: what they change is not seen behind the statement.
pub(super) async fn has_deferrable(
    connection: &mut PgConnection,
    target: &Target<'_>,
) -> Result<bool, EngineError> {
    let sql = format!(
        "{} SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_trigger g JOIN tree ON g.tgrelid = tree.oid \
           WHERE NOT g.tgisinternal AND g.tgdeferrable AND g.tgenabled IN ('O', 'A'))",
        target.relation.tree()
    );
    let rows = ask(connection, sql).await.map_err(|error| errors::engine_error(&target.during, &error))?;
    rows.first().map_or(Ok(true), |row| get(row, 0))
}

/// Which of these rows, just written, hold something else, and why.
pub(super) async fn held_otherwise(
    connection: &mut PgConnection,
    target: &Target<'_>,
    written: &[(usize, &Prepared, &Change)],
) -> Result<Vec<(usize, Rejection)>, EngineError> {
    let keys: Vec<&Key> = written.iter().map(|(_, prepared, _)| &prepared.key).collect();
    let found = read_keys(connection, target, &keys, Reading::Locked).await?;
    let unproven: HashSet<&Key> = found.unproven.iter().collect();
    let mut otherwise = Vec::new();
    for (at, prepared, change) in written {
        let held = found.rows.get(&prepared.key).map(|found| &found.row);
        // What a lookup need not find is proved by the scan after the last write.
        if held == change.after.as_ref() || (held.is_none() && unproven.contains(&prepared.key)) {
            continue;
        }
        otherwise.push((*at, rejection(target.access, held, change.after.as_ref())));
    }
    Ok(otherwise)
}
