//! Rows by key as they are kept for an undo: whole, and found whatever their key is spelled like.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::error::AgentError;
use super::super::local::LocalAgent;
use super::super::scan::find::search;
use super::super::undo::own::OwnAccess;
use crate::model::{CanonicalRow, Change, Key, TableAccess};

/// The rows as they are, for each change; nothing where the plan's rows say it all.
pub(super) async fn overwritten(
    agent: &LocalAgent,
    own: &OwnAccess,
    changes: &[Change],
) -> Result<Vec<Option<CanonicalRow>>, AgentError> {
    if own.is_plans() {
        return Ok(vec![None; changes.len()]);
    }
    let overwritten = changes.iter().filter(|change| change.before.is_some());
    let keys: Vec<Key> = overwritten.map(|change| change.key.clone()).collect();
    let mut rows = rows_of(agent, own.reading(), &keys, |_| true).await?;
    Ok(changes.iter().map(|change| rows.remove(&change.key)).collect())
}

/// The rows of these keys. One that `must` be there and that a lookup does not find, and need not have found, is searched
/// for in the whole table.
pub(super) async fn rows_of(
    agent: &LocalAgent,
    access: &Arc<TableAccess>,
    keys: &[Key],
    must: impl Fn(&Key) -> bool,
) -> Result<BTreeMap<Key, CanonicalRow>, AgentError> {
    if keys.is_empty() {
        return Ok(BTreeMap::new());
    }
    agent.pace.admit(&agent.engine, keys.len()).await?;
    let found = agent.engine.lookup(access, keys).await?;
    let mut rows: BTreeMap<Key, CanonicalRow> =
        found.rows.into_iter().map(|row| (row.key, row.row)).collect();
    let mut missed: Vec<Key> = found.unproven.into_iter().filter(|key| must(key)).collect();
    while !missed.is_empty() {
        let found = search(agent, access, &missed).await?;
        missed = if found.rows.is_empty() { Vec::new() } else { found.not_kept.into_iter().collect() };
        rows.extend(found.rows);
    }
    Ok(rows)
}
