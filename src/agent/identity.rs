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
    if let Some((column, _)) = altered_column(access, &schema) {
        let what = format!(
            "the {side} table {} was altered while the run went on: column {column} is another than was planned",
            access.table
        );
        return Err(altered(what).on(side));
    }
    Ok(schema)
}

/// The first column that is not what it was, and in what.
pub(super) fn altered_column<'a>(access: &'a TableAccess, schema: &TableSchema) -> Option<(&'a str, String)> {
    access.columns.iter().find_map(|column| {
        let how = match schema.column(&column.name) {
            None => "is not there any more: it was dropped or renamed".to_owned(),
            Some(now) if now.declared != column.declared => {
                format!("is {} now and was {}", now.declared, column.declared)
            }
            Some(now) if now.ty != column.ty => "is of another type now".to_owned(),
            Some(_) => return None,
        };
        Some((column.name.as_str(), how))
    })
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
