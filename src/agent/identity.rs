//! The table must still be the one that was planned and scanned.

use super::error::{AgentError, FailureKind};
use super::local::LocalAgent;
use crate::model::{Role, TableAccess, TableSchema};

/// The table must still be what the plan was made from: a column that changed its type would be read as another.
pub(super) async fn check_columns(
    agent: &LocalAgent,
    access: &TableAccess,
    side: Role,
) -> Result<TableSchema, AgentError> {
    let schema = agent.engine.describe(&access.table).await?;
    for column in &access.columns {
        let now = schema.column(&column.name);
        if now.is_none_or(|now| now.ty != column.ty || now.declared != column.declared) {
            let what = format!(
                "the {side} table {} was altered while the run went on: column {} is another than was planned",
                access.table, column.name
            );
            return Err(altered(what).on(side));
        }
    }
    Ok(schema)
}

/// The table must be the very one that was scanned: one that was dropped and made again, truncated or rewritten is another,
/// and so is one with other columns, keys, triggers, foreign keys or policies.
pub(super) async fn check_identity(
    agent: &LocalAgent,
    access: &TableAccess,
    then: &TableSchema,
    side: Role,
) -> Result<(), AgentError> {
    let now = check_columns(agent, access, side).await?;
    if now.identity != then.identity {
        let what = "it was truncated, rewritten or made anew, or its columns, their types, its policies, partitions or inheritance were changed";
        return Err(altered(changed(access, side, what)).on(side));
    }
    // Estimates come and go.
    let definition = |schema: &TableSchema| TableSchema { estimated_rows: None, ..schema.clone() };
    if definition(&now) != definition(then) {
        let what = "its definition, a trigger, a foreign key or a policy is another";
        return Err(altered(changed(access, side, what)).on(side));
    }
    Ok(())
}

fn changed(access: &TableAccess, side: Role, what: &str) -> String {
    format!("the {side} table {} was altered while the run went on: {what}", access.table)
}

fn altered(what: String) -> AgentError {
    AgentError::new(FailureKind::Altered, what)
        .with_hint("run the command again when nobody alters the table")
}
