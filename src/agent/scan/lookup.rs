//! Rows by key, and what a lookup that finds nothing is worth.

use std::sync::Arc;

use crate::agent::error::AgentError;
use crate::agent::local::LocalAgent;
use crate::engine::Lookup;
use crate::model::{Key, TableAccess};

/// Looks these keys up. Where none is found they are looked up once more, beside witnesses: keys that the scan saw. A lookup
/// that does not even find those shows nothing.
pub(crate) async fn look_up(
    agent: &LocalAgent,
    access: &Arc<TableAccess>,
    keys: &[Key],
    witnesses: &[Key],
) -> Result<Lookup, AgentError> {
    agent.pace.admit(&agent.engine, keys.len()).await?;
    let first = agent.engine.lookup(access, keys).await?;
    if !first.rows.is_empty() || first.unproven.is_empty() || witnesses.is_empty() {
        return Ok(first);
    }
    let with_witnesses: Vec<Key> = first.unproven.iter().chain(witnesses).cloned().collect();
    let mut second = agent.engine.lookup(access, &with_witnesses).await?;
    second.rows.retain(|row| first.unproven.contains(&row.key));
    second.unproven.retain(|key| first.unproven.contains(key));
    Ok(second)
}
