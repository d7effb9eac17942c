//! What a transaction begins with, and the two ways a statement is sent.
//!
//! Nothing is set on a session, because behind a pooler in transaction mode the session is another client's: what it was set to
//! by them would be read by, and what it is set to here would stay with them. So every answer comes out of a transaction that
//! has set all that it depends on, with `SET LOCAL`, and no statement has a name. Text forms, the search path, the time
//! limit: none of them is taken from whoever used the session before.

use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Executor, Postgres};

use super::errors;
use crate::engine::EngineError;

/// Reads see one state.
pub(super) const READ: &str = "ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// Writes see, and wait for, what others commit meanwhile.
pub(super) const WRITE: &str = "ISOLATION LEVEL READ COMMITTED READ WRITE";

/// What a role or database may have set otherwise, and what text forms and names depend on.
const SETTINGS: &str = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, MDY'; SET LOCAL IntervalStyle = 'postgres'; \
    SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; SET LOCAL xmlbinary = 'base64'; SET LOCAL xmloption = 'content'; \
    SET LOCAL standard_conforming_strings = on; SET LOCAL row_security = on; SET LOCAL transform_null_equals = off; \
    SET LOCAL array_nulls = on; SET LOCAL quote_all_identifiers = off; SET LOCAL backslash_quote = safe_encoding; \
    SET LOCAL gin_fuzzy_search_limit = 0; \
    SET LOCAL search_path = pg_catalog, pg_temp";

/// The settings of each transaction. Texts of a database that promises nothing of their bytes are sent as they are.
pub(super) fn settings(raw_text: bool, statement_timeout: Option<Duration>) -> String {
    let encoding = if raw_text { "SQL_ASCII" } else { "UTF8" };
    let mut all = format!("{SETTINGS}; SET LOCAL client_encoding = '{encoding}'");
    if let Some(most) = statement_timeout {
        all.push_str(&format!("; SET LOCAL statement_timeout = {}", most.as_millis().max(1)));
    }
    all
}

/// Runs SQL of our own making without parameters.
pub(super) async fn run(connection: &mut PgConnection, during: &str, sql: &str) -> Result<(), EngineError> {
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned())))
        .await
        .map_err(|e| errors::engine_error(during, &e))?;
    Ok(())
}

/// A question to the catalog, made of names and numbers: in the simple protocol, which takes one round trip and leaves
/// nothing on the server.
pub(super) async fn ask(connection: &mut PgConnection, sql: String) -> Result<Vec<PgRow>, sqlx::Error> {
    connection.fetch_all(AssertSqlSafe(sql)).await
}

/// A statement with parameters. It has no name on the server, and so must run inside a transaction.
pub(super) fn unnamed(sql: String) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(AssertSqlSafe(sql)).persistent(false)
}
