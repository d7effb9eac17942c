//! Rows that are read back after they were written: a trigger or a generated column may make them others.

use std::collections::HashMap;

use sqlx::mysql::MySqlConnection;

use super::catalogue::{named, texts};
use super::keys::Asked;
use super::{Facts, fetch, visible};
use crate::engine::EngineError;
use crate::engine::read_back::rejection;
use crate::model::schema::keeps_less;
use crate::model::{AccessColumn, CanonicalRow, Change, Filled, Rejection, TableAccess};

/// Whether what is written into the table may become another row than was sent. Triggers are shown to those alone who may
/// make them: where nobody is known to, there may be some.
pub(super) async fn may_differ(
    connection: &mut MySqlConnection,
    facts: &Facts,
    schema: &str,
    access: &TableAccess,
) -> Result<bool, sqlx::Error> {
    let makes_another = |column: &AccessColumn| {
        column.filled == Filled::Generated || column.as_text || keeps_less(&column.declared)
    };
    if access.columns.iter().any(makes_another) {
        return Ok(true);
    }
    may_have_triggers(connection, facts, schema, access, "INSERT,UPDATE,DELETE").await
}

/// Whether triggers of the table may fire when rows are deleted and inserted again.
pub(super) async fn may_fire_on_exchange(
    connection: &mut MySqlConnection,
    facts: &Facts,
    schema: &str,
    access: &TableAccess,
) -> Result<bool, sqlx::Error> {
    may_have_triggers(connection, facts, schema, access, "INSERT,DELETE").await
}

/// Whether the table has triggers of one of these events, or some that this login does not see.
async fn may_have_triggers(
    connection: &mut MySqlConnection,
    facts: &Facts,
    schema: &str,
    access: &TableAccess,
    events: &str,
) -> Result<bool, sqlx::Error> {
    let of = named(facts, &[("event_object_schema", schema), ("event_object_table", &access.table.name)]);
    let sql = format!(
        "SELECT trigger_name FROM information_schema.triggers WHERE {of} AND FIND_IN_SET(event_manipulation, '{events}') LIMIT 1"
    );
    Ok(!texts(connection, &sql).await?.is_empty() || !visible::sees_triggers_of(connection, schema).await?)
}

/// Which of these changes, just made, left something else, and why.
pub(super) async fn held_otherwise(
    connection: &mut MySqlConnection,
    access: &TableAccess,
    made: &[(usize, &Change)],
    during: &str,
) -> Result<Vec<(usize, Rejection)>, EngineError> {
    let asked: Vec<Asked<'_>> =
        made.iter().map(|(_, change)| Asked::new(access, &change.key, during)).collect::<Result<_, _>>()?;
    let rows = fetch::locked(connection, access, &asked).await?;
    let held: HashMap<&[u8], &CanonicalRow> = rows.iter().map(|row| (row.key.as_bytes(), &row.row)).collect();
    let mut otherwise = Vec::new();
    for ((at, change), asked) in made.iter().zip(&asked) {
        let row = held.get(change.key.as_bytes()).copied();
        // What a lookup need not find is proved by the scan after the last write.
        // A row that was inserted has its key as it is usually spelled.
        if row == change.after.as_ref() || (row.is_none() && !asked.exact && change.before.is_some()) {
            continue;
        }
        otherwise.push((*at, rejection(access, row, change.after.as_ref())));
    }
    Ok(otherwise)
}
