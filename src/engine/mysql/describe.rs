//! What a table is, from `information_schema`.

use std::collections::BTreeMap;

use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, Executor, Row};

use super::errors::engine_error;
use super::types::{Declared, column_type};
use super::{MySqlEngine, text};
use crate::engine::{EngineError, ErrorKind};
use crate::model::{Column, Filled, Referrer, TableAccess, TableName, TableSchema, UniqueKey};

/// Storage engines whose transactions hold.
const TRANSACTIONAL: &[&str] = &["innodb", "rocksdb", "tokudb", "ndbcluster"];
/// Names this far from the one asked for are worth naming.
const SIMILAR: f64 = 0.7;

async fn rows(
    engine: &MySqlEngine,
    sql: &str,
    schema: &str,
    table: &str,
) -> Result<Vec<MySqlRow>, EngineError> {
    sqlx::query(AssertSqlSafe(sql.to_owned()))
        .bind(schema.to_owned())
        .bind(table.to_owned())
        .fetch_all(&engine.pool)
        .await
        .map_err(|error| engine_error(&format!("describe {schema}.{table}"), &error))
}

pub(super) async fn describe(engine: &MySqlEngine, table: &TableName) -> Result<TableSchema, EngineError> {
    let schema = table.schema.clone().unwrap_or_else(|| engine.database.clone());
    let found = rows(
        engine,
        "SELECT table_name, table_type, engine, CAST(table_rows AS CHAR) FROM information_schema.tables WHERE table_schema = ? AND table_name = ?",
        &schema,
        &table.name,
    )
    .await?;
    let Some(facts) = found.first() else { return Err(no_such_table(engine, &schema, &table.name).await) };
    let name = text(facts, 0).unwrap_or_else(|| table.name.clone());
    let is_view = text(facts, 1).is_some_and(|kind| kind.contains("VIEW"));
    let storage = text(facts, 2).unwrap_or_default();
    let mut notes = Vec::new();
    if !is_view && !is_transactional(&storage) {
        notes.push(format!("{name} is stored by {storage}, without transactions: its snapshot is no single moment, and it cannot be repaired"));
    }
    let checked = json_checked(engine, &schema, &name).await?;
    let columns = columns(engine, &schema, &name, &checked).await?;
    let keys = keys(engine, &schema, &name, &columns).await?;
    let table = TableName { schema: Some(schema.clone()), name: name.clone() };
    Ok(TableSchema {
        is_view,
        keys,
        columns,
        estimated_rows: text(facts, 3).and_then(|rows| rows.parse().ok()),
        references: references(engine, &schema, &name).await?,
        referrers: referrers(engine, &schema, &name).await?,
        triggers: triggers(engine, &schema, &name).await?,
        notes,
        table,
    })
}

fn is_transactional(storage: &str) -> bool {
    TRANSACTIONAL.contains(&storage.to_lowercase().as_str())
}

async fn no_such_table(engine: &MySqlEngine, schema: &str, name: &str) -> EngineError {
    let during = format!("find table {schema}.{name}");
    let names = sqlx::query("SELECT table_name FROM information_schema.tables WHERE table_schema = ?")
        .bind(schema.to_owned())
        .fetch_all(&engine.pool)
        .await
        .unwrap_or_default();
    let near: Vec<String> = names
        .iter()
        .filter_map(|row| text(row, 0))
        .filter(|other| strsim::jaro_winkler(&other.to_lowercase(), &name.to_lowercase()) > SIMILAR)
        .take(3)
        .collect();
    let hint = if near.is_empty() {
        "SHOW TABLES lists those this user can see".to_owned()
    } else {
        format!("did you mean {}?", near.join(", "))
    };
    EngineError::new(ErrorKind::NoSuchTable, during, "there is no such table, or this user may not see it")
        .with_hint(hint)
}

/// Columns that MariaDB holds to JSON by a constraint.
async fn json_checked(engine: &MySqlEngine, schema: &str, table: &str) -> Result<Vec<String>, EngineError> {
    if !engine.is_mariadb() {
        return Ok(Vec::new());
    }
    let sql = "SELECT check_clause FROM information_schema.check_constraints WHERE constraint_schema = ? AND table_name = ?";
    let clauses = rows(engine, sql, schema, table).await?;
    let column = |clause: String| {
        let inner = clause
            .to_lowercase()
            .starts_with("json_valid(`")
            .then(|| clause["json_valid(`".len()..].to_owned())?;
        Some(inner.strip_suffix("`)")?.to_owned())
    };
    Ok(clauses.iter().filter_map(|row| column(text(row, 0)?)).collect())
}

async fn columns(
    engine: &MySqlEngine,
    schema: &str,
    table: &str,
    checked: &[String],
) -> Result<Vec<Column>, EngineError> {
    let sql = "SELECT column_name, column_type, data_type, is_nullable, CAST(numeric_precision AS CHAR), CAST(numeric_scale AS CHAR), \
               CAST(datetime_precision AS CHAR), collation_name, extra, column_default \
               FROM information_schema.columns WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position";
    let found = rows(engine, sql, schema, table).await?;
    Ok(found
        .iter()
        .map(|row| {
            let word = |at| text(row, at).unwrap_or_default();
            let name = word(0);
            let (declared, data_type) = (word(1), word(2).to_lowercase());
            let ty = column_type(&Declared {
                column_type: &declared,
                data_type: &data_type,
                precision: text(row, 4).and_then(|digits| digits.parse().ok()),
                scale: text(row, 5).and_then(|digits| digits.parse().ok()),
                second_digits: text(row, 6).and_then(|digits| digits.parse().ok()),
                json_checked: checked.contains(&name),
            });
            let collation = text(row, 7);
            let extra = word(8).to_lowercase();
            // auto_increment takes a given value; only expressions do not. MySQL 8 says DEFAULT_GENERATED of plain defaults.
            let generated =
                extra.contains("virtual") || extra.contains("stored") || extra.contains("persistent");
            Column {
                collation_folds: collation.as_deref().is_some_and(folds),
                collation,
                nullable: word(3) == "YES",
                filled: if generated { Filled::Generated } else { Filled::ByWriter },
                has_default: row.try_get_raw(9).is_ok_and(|value| !sqlx::ValueRef::is_null(&value))
                    || extra.contains("auto_increment"),
                declared,
                ty,
                name,
            }
        })
        .collect())
}

/// Only the binary collations that do not pad tell all texts apart.
fn folds(collation: &str) -> bool {
    !(collation == "binary" || collation.ends_with("_nopad_bin") || collation == "utf8mb4_0900_bin")
}

async fn keys(
    engine: &MySqlEngine,
    schema: &str,
    table: &str,
    columns: &[Column],
) -> Result<Vec<UniqueKey>, EngineError> {
    let sql = "SELECT index_name, column_name, CAST(sub_part AS CHAR) FROM information_schema.statistics \
               WHERE table_schema = ? AND table_name = ? AND non_unique = 0 ORDER BY index_name, seq_in_index";
    let mut keys: BTreeMap<String, UniqueKey> = BTreeMap::new();
    for row in rows(engine, sql, schema, table).await? {
        let index = text(&row, 0).unwrap_or_default();
        let key = keys.entry(index.clone()).or_insert_with(|| UniqueKey {
            primary: index == "PRIMARY",
            name: index,
            columns: Vec::new(),
            identifies: true,
        });
        // An expression has no column; a prefix does not tell whole values apart.
        let column = text(&row, 1).and_then(|name| columns.iter().find(|column| column.name == name));
        let whole = text(&row, 2).is_none();
        key.identifies &= whole && column.is_some_and(|column| !column.nullable);
        key.columns.extend(column.map(|column| column.name.clone()));
    }
    Ok(keys.into_values().collect())
}

async fn references(engine: &MySqlEngine, schema: &str, table: &str) -> Result<Vec<TableName>, EngineError> {
    let sql = "SELECT DISTINCT referenced_table_schema, referenced_table_name FROM information_schema.key_column_usage \
               WHERE table_schema = ? AND table_name = ? AND referenced_table_name IS NOT NULL";
    let found = rows(engine, sql, schema, table).await?;
    Ok(found
        .iter()
        .map(|row| TableName { schema: text(row, 0), name: text(row, 1).unwrap_or_default() })
        .collect())
}

async fn referrers(engine: &MySqlEngine, schema: &str, table: &str) -> Result<Vec<Referrer>, EngineError> {
    let sql = "SELECT constraint_schema, table_name, delete_rule FROM information_schema.referential_constraints \
               WHERE unique_constraint_schema = ? AND referenced_table_name = ?";
    let found = rows(engine, sql, schema, table).await?;
    Ok(found
        .iter()
        .map(|row| Referrer {
            table: TableName { schema: text(row, 0), name: text(row, 1).unwrap_or_default() },
            delete_spreads: text(row, 2).is_some_and(|rule| rule != "RESTRICT" && rule != "NO ACTION"),
        })
        .collect())
}

async fn triggers(engine: &MySqlEngine, schema: &str, table: &str) -> Result<Vec<String>, EngineError> {
    let sql = "SELECT trigger_name FROM information_schema.triggers WHERE event_object_schema = ? AND event_object_table = ?";
    Ok(rows(engine, sql, schema, table).await?.iter().filter_map(|row| text(row, 0)).collect())
}

/// A transaction that asks for the right to write and is rolled back: it changes no row.
pub(super) async fn check_writable(engine: &MySqlEngine, access: &TableAccess) -> Result<(), EngineError> {
    let schema = describe(engine, &access.table).await?;
    if schema.notes.iter().any(|note| note.contains("without transactions")) {
        return Err(EngineError::new(
            ErrorKind::Permission,
            format!("repair {}", access.table),
            "its storage engine has no transactions, so no write could be conditional",
        )
        .with_hint(
            "ALTER TABLE ... ENGINE=InnoDB on the target, or use --sql and run the statements by hand",
        ));
    }
    let during = format!("check the right to write to {}", access.table);
    let failed = |error: sqlx::Error| engine_error(&during, &error);
    let facts = sqlx::query("SELECT CAST(@@global.read_only AS CHAR)")
        .fetch_one(&engine.pool)
        .await
        .map_err(failed)?;
    let table = super::params::quoted_table(&access.table);
    let column = access.columns.first().map(|column| super::params::quote(&column.name)).unwrap_or_default();
    let mut connection = engine.pool.acquire().await.map_err(failed)?;
    // None of the three can touch a row; each needs its right.
    for sql in [
        format!("INSERT INTO {table} ({column}) SELECT {column} FROM {table} WHERE 1 = 0"),
        format!("UPDATE {table} SET {column} = {column} WHERE 1 = 0"),
        format!("DELETE FROM {table} WHERE 1 = 0"),
    ] {
        connection.execute("START TRANSACTION").await.map_err(failed)?;
        let tried = connection.execute(AssertSqlSafe(sql)).await;
        connection.execute("ROLLBACK").await.map_err(failed)?;
        if let Err(error) = tried {
            let mut refused = engine_error(&during, &error);
            if matches!(text(&facts, 0).as_deref(), Some("1" | "ON")) {
                refused = refused.with_hint("the server is read-only; repair on the primary");
            }
            // A generated first column refuses the update for another reason; the rights are there then.
            if refused.kind == ErrorKind::Permission {
                return Err(refused);
            }
        }
    }
    Ok(())
}
