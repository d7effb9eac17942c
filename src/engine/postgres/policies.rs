//! Rows that policies of row-level security show to this login, but do not let it change: they cannot be locked.

use std::collections::{HashMap, HashSet};

use sqlx::postgres::PgConnection;

use super::errors::engine_error;
use super::fetch::{Found, Reading, read_keys};
use super::live::get;
use super::session::ask;
use super::target::Target;
use super::write::Prepared;
use crate::engine::EngineError;
use crate::model::{Change, Key, Operation, Rejection, RejectionKind};

/// Of the rows to be changed that could not be locked: those that are there as they were compared.
pub(super) async fn kept_off(
    connection: &mut PgConnection,
    target: &Target<'_>,
    prepared: &[Prepared],
    changes: &[Change],
    locked: &HashMap<Key, Found>,
) -> Result<HashSet<Key>, EngineError> {
    let missed: Vec<&Prepared> = prepared
        .iter()
        .filter(|p| p.operation != Operation::Insert && !locked.contains_key(&p.key))
        .collect();
    if missed.is_empty() || !are_active(connection, target).await? {
        return Ok(HashSet::new());
    }
    let keys: Vec<&Key> = missed.iter().map(|p| &p.key).collect();
    let shown = read_keys(connection, target, &keys, Reading::Shown).await?;
    let is_as_compared = |p: &&&Prepared| {
        let before = changes.get(p.at).and_then(|change| change.before.as_ref());
        shown.rows.get(&p.key).is_some_and(|found| Some(&found.row) == before)
    };
    Ok(missed.iter().filter(is_as_compared).map(|p| p.key.clone()).collect())
}

/// Whether policies of the table hold for this login.
async fn are_active(connection: &mut PgConnection, target: &Target<'_>) -> Result<bool, EngineError> {
    let sql = format!("SELECT pg_catalog.row_security_active({}::oid)", target.relation.oid);
    let rows = ask(connection, sql).await.map_err(|e| engine_error(&target.during, &e))?;
    rows.first().map_or(Ok(false), |row| get(row, 0))
}

pub(super) fn rejection() -> Rejection {
    Rejection { kind: RejectionKind::Other, reason: "a row-level security policy".to_owned() }
}
