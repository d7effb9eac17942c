//! Conditions that call functions which answer otherwise each time: they choose other rows at each read.

use sqlx::mysql::MySqlConnection;

use super::catalogue::{named, texts};
use super::{Facts, errors};
use crate::engine::volatile::{self, Called};
use crate::engine::{EngineError, ErrorKind};

/// Of the two products' own; to sleep is to give one answer, late. What is of one statement (NOW) chooses the same rows as long as they do not age.
const VOLATILE: [&str; 24] = [
    "connection_id",
    "found_rows",
    "get_lock",
    "is_free_lock",
    "is_used_lock",
    "last_insert_id",
    "last_value",
    "lastval",
    "master_gtid_wait",
    "master_pos_wait",
    "nextval",
    "rand",
    "random_bytes",
    "release_all_locks",
    "release_lock",
    "row_count",
    "setval",
    "source_pos_wait",
    "sysdate",
    "sys_guid",
    "uuid",
    "uuid_short",
    "uuid_v4",
    "uuid_v7",
];

/// Refuses a condition that calls one of them, or a stored function that is not declared DETERMINISTIC, or sets a variable.
pub(super) async fn check_filter(
    connection: &mut MySqlConnection,
    facts: &Facts,
    bare: &str,
    during: &str,
) -> Result<(), EngineError> {
    let refuse = |name: &str| Err(volatile::refuse(during, "the filter", name));
    if bare.contains(":=") {
        return Err(EngineError::new(ErrorKind::Filter, during, "the filter sets a variable")
            .with_hint("use a condition on the rows' own values"));
    }
    let called = volatile::calls(bare, true);
    for Called { schema, name } in &called {
        if schema.is_none() && VOLATILE.contains(&name.to_lowercase().as_str()) {
            return refuse(name);
        }
        let Some(schema) = schema.as_deref().or(facts.database.as_deref()) else { continue };
        let of = named(facts, &[("routine_schema", schema), ("routine_name", name)]);
        let sql = format!(
            "SELECT routine_name FROM information_schema.routines \
             WHERE {of} AND routine_type = 'FUNCTION' AND is_deterministic = 'NO'"
        );
        let rows = texts(connection, &sql).await.map_err(|error| errors::database(during, &error))?;
        if !rows.is_empty() {
            return refuse(name);
        }
    }
    Ok(())
}
