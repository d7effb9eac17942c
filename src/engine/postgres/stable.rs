//! Conditions, and views, that call functions which the catalog says to be volatile: they choose other rows at each read.

use sqlx::Executor;
use sqlx::postgres::PgConnection;

use super::errors;
use super::live::{Relation, get};
use super::session::{ask, unnamed};
use super::statement::literal;
use crate::engine::EngineError;
use crate::engine::volatile::{self, Called};

/// Refuses a condition that calls a volatile function, of the server's or of the user's. The server's own account of its plan
/// tells what is called, also by what a function of SQL or a view stands for.
pub(super) async fn check_filter(
    connection: &mut PgConnection,
    from: &str,
    bare: &str,
    closed: &str,
    during: &str,
) -> Result<(), EngineError> {
    let sql = format!("EXPLAIN (VERBOSE, COSTS OFF) SELECT 1 FROM {from} t WHERE {closed}\n");
    let found = volatile_in(connection, sql, during).await?;
    let bare = bare.to_lowercase();
    // What a view of the user's calls is the view's affair, but for what answers by chance.
    match found.into_iter().find(|(name, builtin)| *builtin || bare.contains(&name.to_lowercase())) {
        Some((name, _)) => Err(volatile::refuse(during, "the filter", &name)),
        None => Ok(()),
    }
}

/// Refuses a view whose rows are chosen by a volatile function of the server's own. A function of the user's is volatile where its
/// author said nothing.
pub(super) async fn check_view(
    connection: &mut PgConnection,
    view: &Relation,
    during: &str,
) -> Result<(), EngineError> {
    let sql = format!("EXPLAIN (VERBOSE, COSTS OFF) SELECT 1 FROM {} t", view.from());
    let found = volatile_in(connection, sql, during).await?;
    match found.into_iter().find(|(_, builtin)| *builtin) {
        Some((name, _)) => Err(volatile::refuse(during, &format!("the view {}", view.table), &name)),
        None => Ok(()),
    }
}

/// The volatile functions of a plan, and whether they are the server's own. To sleep is to give one answer, late.
async fn volatile_in(
    connection: &mut PgConnection,
    explain: String,
    during: &str,
) -> Result<Vec<(String, bool)>, EngineError> {
    let failed = |error: sqlx::Error| errors::engine_error(during, &error);
    let lines = connection.fetch_all(unnamed(explain)).await.map_err(failed)?;
    let mut called = std::collections::BTreeSet::new();
    for line in &lines {
        called.extend(volatile::calls(&get::<String>(line, 0)?, false));
    }
    if called.is_empty() {
        return Ok(Vec::new());
    }
    let one = |Called { schema, name }: &Called| match schema {
        Some(schema) => {
            format!("(n.nspname = {}::name AND p.proname = {}::name)", literal(schema), literal(name))
        }
        None => format!("(p.proname = {}::name AND pg_catalog.pg_function_is_visible(p.oid))", literal(name)),
    };
    let any: Vec<String> = called.iter().map(one).collect();
    let sql = format!(
        "SELECT DISTINCT p.proname::text, n.nspname = 'pg_catalog' FROM pg_catalog.pg_proc p \
           JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
         WHERE p.provolatile = 'v' AND p.proname NOT IN ('pg_sleep', 'pg_sleep_for', 'pg_sleep_until') AND ({}) ORDER BY 1",
        any.join(" OR ")
    );
    let rows = ask(connection, sql).await.map_err(failed)?;
    rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect()
}
