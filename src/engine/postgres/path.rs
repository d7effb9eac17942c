//! Where names without a schema are looked for.
//!
//! Whoever may create in a schema of the login's search path can give it functions and operators that fit better than the
//! server's, which would then run with this login's rights (CVE-2018-1058). So no statement of ours is resolved by that path:
//! transactions begin with the server's own schema alone.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::errors;
use super::session::{ask, run};
use super::statement::ident;
use crate::engine::EngineError;

/// The schemas of the login's own search path, for names that a person left unqualified: tables, and what stands in a condition
/// of their own. Asked in a statement whose every name is qualified; the path is the server's own again behind it.
pub(super) async fn login_path(
    connection: &mut PgConnection,
    during: &str,
) -> Result<Vec<String>, EngineError> {
    let sql = "SET LOCAL search_path = DEFAULT; \
               SELECT pg_catalog.current_schemas(false)::pg_catalog.text[]; \
               SET LOCAL search_path = pg_catalog, pg_temp";
    let rows = ask(connection, sql.to_owned()).await.map_err(|e| errors::engine_error(during, &e))?;
    let schemas: Vec<String> = match rows.first() {
        Some(row) => row.try_get(0).map_err(|e| errors::engine_error(during, &e))?,
        None => Vec::new(),
    };
    Ok(schemas.into_iter().filter(|name| name != "pg_catalog" && !name.starts_with("pg_temp")).collect())
}

/// The login's path behind the server's own schema, for a query that is all the user's own, as their own client would run it.
pub(super) fn with_path(schemas: &[String]) -> String {
    let names: Vec<String> = schemas.iter().map(|name| format!("{}, ", ident(name))).collect();
    format!("SET LOCAL search_path = pg_catalog, {}pg_temp", names.concat())
}

/// The server's own schema alone.
pub(super) const SERVERS_OWN: &str = "SET LOCAL search_path = pg_catalog, pg_temp";

/// A path that was looked up is used for so long.
const FRESH: Duration = Duration::from_secs(5);

/// Paths of schemas that can be trusted, by the tables' numbers.
#[derive(Default)]
pub(super) struct TrustedPaths(Mutex<HashMap<i64, (Instant, String)>>);

impl TrustedPaths {
    /// For the statements that write this table, whose triggers look for names without a schema, and for conditions of the
    /// user's on it: names are found in those schemas of the login's path in which nobody may create but superusers, the database's owner, the table's
    /// owner (whose triggers run in any case) and the login itself. Logical replication looks in none (CVE-2020-14349). A
    /// function that does not find its tables so refuses the row: `errors::rejection` says the way out.
    pub(super) async fn set(
        &self,
        connection: &mut PgConnection,
        during: &str,
        relation: i64,
    ) -> Result<String, EngineError> {
        let setting = |path: &str| format!("SET LOCAL search_path = {path}");
        if let Some(path) = self.fresh(relation) {
            run(connection, during, &setting(&path)).await?;
            return Ok(setting(&path));
        }
        let failed = |e: sqlx::Error| errors::engine_error(during, &e);
        let rows = ask(connection, trusted(relation)).await.map_err(failed)?;
        let path: String = match rows.first() {
            Some(row) => row.try_get(0).map_err(failed)?,
            None => "pg_catalog, pg_temp".to_owned(),
        };
        let set = setting(&path);
        let mut paths = self.paths();
        paths.retain(|_, (since, _)| since.elapsed() < FRESH);
        paths.insert(relation, (Instant::now(), path));
        Ok(set)
    }

    fn fresh(&self, relation: i64) -> Option<String> {
        self.paths().get(&relation).filter(|(since, _)| since.elapsed() < FRESH).map(|(_, path)| path.clone())
    }

    fn paths(&self) -> MutexGuard<'_, HashMap<i64, (Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets such a path, and answers it.
fn trusted(relation: i64) -> String {
    format!(
        "SET LOCAL search_path = DEFAULT; \
         WITH trusted AS (SELECT r.oid FROM pg_catalog.pg_roles r \
           WHERE r.rolsuper OR r.rolname OPERATOR(pg_catalog.=) 'pg_database_owner'::pg_catalog.name \
              OR r.rolname OPERATOR(pg_catalog.=) CURRENT_USER \
              OR r.oid OPERATOR(pg_catalog.=) (SELECT d.datdba FROM pg_catalog.pg_database d \
                   WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) \
              OR r.oid OPERATOR(pg_catalog.=) (SELECT c.relowner FROM pg_catalog.pg_class c \
                   WHERE c.oid OPERATOR(pg_catalog.=) {relation}::pg_catalog.oid)), \
         safe AS (SELECT n.nspname, s.at \
           FROM pg_catalog.unnest(pg_catalog.current_schemas(false)) WITH ORDINALITY AS s(name, at) \
           JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) s.name \
           WHERE s.name OPERATOR(pg_catalog.<>) 'pg_catalog'::pg_catalog.name \
             AND EXISTS (SELECT FROM trusted t WHERE t.oid OPERATOR(pg_catalog.=) n.nspowner) \
             AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(n.nspacl) a \
               WHERE a.privilege_type OPERATOR(pg_catalog.=) 'CREATE'::pg_catalog.text \
                 AND NOT EXISTS (SELECT FROM trusted t WHERE t.oid OPERATOR(pg_catalog.=) a.grantee))) \
         SELECT pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ', 'pg_catalog', \
           (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(safe.nspname::pg_catalog.text), ', ' ORDER BY safe.at) FROM safe), \
           'pg_temp'), true)"
    )
}
