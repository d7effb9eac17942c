//! Whether this login could write a table. Statements are prepared, which checks privileges, and never run.

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Executor as _, SqlSafeStr as _};

use super::catalogue::{of_table, texts};
use super::describe::is_transactional;
use super::statement::{insert, is_writable, key_condition, select, update};
use super::{Facts, errors};
use crate::engine::{EngineError, ErrorKind};
use crate::model::{Allow, TableAccess};

pub(super) async fn check_writable(
    connection: &mut MySqlConnection,
    facts: &Facts,
    schema: &str,
    access: &TableAccess,
    allow: Allow,
) -> Result<(), EngineError> {
    let during = format!("write {}", access.table);
    let failed = |error: sqlx::Error| errors::database(during.as_str(), &error);
    check_read_only(connection, &during).await?;
    let of = of_table(facts, schema, &access.table.name);
    let sql = format!("SELECT engine FROM information_schema.tables WHERE {of}");
    let rows = texts(connection, &sql).await.map_err(failed)?;
    if let Some(engine) = rows.first().and_then(|row| row.first()).and_then(Option::as_deref)
        && !is_transactional(engine)
    {
        return Err(EngineError::new(
            ErrorKind::Usage,
            during,
            format!("storage engine {engine} has no transactions, so a write could not be conditional"),
        )
        .with_hint("ALTER TABLE ... ENGINE=InnoDB, or let trueup write the SQL and run it yourself"));
    }
    let mut statements = vec![format!("{} FOR UPDATE", select(access))];
    statements.extend(allow.insert.then(|| insert(access, 1)));
    let written: Vec<_> = access.row_columns().iter().filter(|column| is_writable(column)).collect();
    if allow.update && !written.is_empty() {
        statements.push(update(access, &written, &[], &key_condition(access)));
    }
    for sql in statements {
        connection.prepare(AssertSqlSafe(sql).into_sql_str()).await.map_err(|error| {
            let found = errors::database(during.as_str(), &error);
            if found.kind == ErrorKind::Permission {
                let table = &access.table;
                return found.with_hint(format!(
                    "GRANT SELECT, INSERT, UPDATE ON {table} to the login (DELETE too where rows are to be deleted)"
                ));
            }
            found
        })?;
    }
    Ok(())
}

async fn check_read_only(connection: &mut MySqlConnection, during: &str) -> Result<(), EngineError> {
    let failed = |error: sqlx::Error| errors::database(during, &error);
    let sql =
        "SHOW GLOBAL VARIABLES WHERE variable_name IN ('read_only', 'super_read_only', 'innodb_read_only')";
    let rows = texts(connection, sql).await.map_err(failed)?;
    let on: Vec<&str> = rows
        .iter()
        .filter_map(|row| match row.as_slice() {
            [Some(name), Some(value)] if !matches!(value.as_str(), "OFF" | "0") => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let Some(blocking) = on.first() else { return Ok(()) };
    let grants = texts(connection, "SHOW GRANTS").await.map_err(failed)?;
    let passes = grants.iter().flatten().flatten().any(|grant| {
        ["ALL PRIVILEGES ON *.*", "READ ONLY ADMIN", "READ_ONLY ADMIN", "SUPER", "CONNECTION_ADMIN"]
            .iter()
            .any(|privilege| grant.to_uppercase().contains(privilege))
    });
    if passes && on.iter().all(|name| name.eq_ignore_ascii_case("read_only")) {
        return Ok(());
    }
    Err(EngineError::new(
        ErrorKind::Permission,
        during,
        format!("the server is read-only ({blocking} is on)"),
    )
    .with_hint("write to the primary, not to its replica"))
}
