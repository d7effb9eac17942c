//! What the catalog says about a table at this moment: its kind, its columns' types, its size in pages.

use std::collections::HashMap;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Executor, Row};

use super::errors::engine_error;
use super::types::{CatalogType, Types, base_of};
use crate::engine::{EngineError, ErrorKind};
use crate::model::{TableAccess, TableName};

/// A relation as `pg_class` has it.
#[derive(Debug, Clone)]
pub(super) struct Relation {
    pub oid: i64,
    pub table: TableName,
    /// r table, p partitioned, v view, m materialized view, f foreign table.
    pub kind: char,
}

pub(super) fn get<'r, T>(row: &'r PgRow, at: usize) -> Result<T, EngineError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(at).map_err(|e| engine_error("read the catalog", &e))
}

pub(super) fn letter(text: &str) -> char {
    text.chars().next().unwrap_or(' ')
}

/// The relation of this name; without a schema as the search path finds it.
pub(super) async fn find(
    connection: &mut PgConnection,
    table: &TableName,
) -> Result<Option<Relation>, EngineError> {
    let query = sqlx::query(
        "SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname = $2::text::name \
           AND CASE WHEN $1::text IS NULL THEN pg_catalog.pg_table_is_visible(c.oid) ELSE n.nspname = $1::text::name END",
    )
    .bind(table.schema.clone())
    .bind(table.name.clone());
    let row = connection
        .fetch_optional(query)
        .await
        .map_err(|e| engine_error(format!("look for table {table}"), &e))?;
    let Some(row) = row else { return Ok(None) };
    let (schema, name): (String, String) = (get(&row, 1)?, get(&row, 2)?);
    Ok(Some(Relation {
        oid: get(&row, 0)?,
        table: TableName { schema: Some(schema), name },
        kind: letter(&get::<String>(&row, 3)?),
    }))
}

/// As [`find`], for a table that a plan was made of.
pub(super) async fn find_planned(
    connection: &mut PgConnection,
    access: &TableAccess,
) -> Result<Relation, EngineError> {
    find(connection, &access.table).await?.ok_or_else(|| {
        EngineError::new(ErrorKind::Changed, format!("read {}", access.table), "the table is gone")
            .with_hint("it was dropped or renamed since the run began")
    })
}

/// Every type that the table's columns are made of, by oid.
pub(super) async fn types(connection: &mut PgConnection, relation: i64) -> Result<Types, EngineError> {
    let query = sqlx::query(
        "WITH RECURSIVE need(oid) AS ( \
           SELECT a.atttypid FROM pg_catalog.pg_attribute a \
            WHERE a.attrelid = $1::int8::oid AND a.attnum > 0 AND NOT a.attisdropped \
           UNION \
           SELECT v.next FROM need JOIN pg_catalog.pg_type t ON t.oid = need.oid, \
             LATERAL (VALUES (t.typbasetype), (CASE WHEN t.typcategory = 'A' AND t.typlen = -1 THEN t.typelem END)) v(next) \
            WHERE v.next <> 0) \
         SELECT t.oid::int8, t.typname::text, n.nspname = 'pg_catalog', t.typtype::text, \
                CASE WHEN t.typcategory = 'A' AND t.typlen = -1 AND t.typname NOT IN ('int2vector', 'oidvector') \
                     THEN t.typelem::int8 ELSE 0 END, \
                t.typbasetype::int8, t.typtypmod, pg_catalog.format_type(t.oid, -1) \
         FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
         WHERE t.oid IN (SELECT oid FROM need)",
    )
    .bind(relation);
    let rows = connection.fetch_all(query).await.map_err(|e| engine_error("read the catalog's types", &e))?;
    let mut types = HashMap::with_capacity(rows.len());
    for row in &rows {
        types.insert(
            get::<i64>(row, 0)?,
            CatalogType {
                name: get(row, 1)?,
                builtin: get(row, 2)?,
                kind: letter(&get::<String>(row, 3)?),
                element: get(row, 4)?,
                base: get(row, 5)?,
                modifier: get(row, 6)?,
                bare: get(row, 7)?,
            },
        );
    }
    Ok(types)
}

/// A column as it is now.
#[derive(Debug, Clone)]
pub(super) struct LiveColumn {
    pub name: String,
    pub declared: String,
    /// The type behind domains, without a modifier: a cast to it cuts nothing.
    pub bare: String,
    pub generated: bool,
}

pub(super) async fn columns(
    connection: &mut PgConnection,
    relation: &Relation,
) -> Result<Vec<LiveColumn>, EngineError> {
    let types = types(connection, relation.oid).await?;
    let query = sqlx::query(
        "SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypid::int8, a.atttypmod, \
                COALESCE(pg_catalog.to_jsonb(a) ->> 'attgenerated', '') <> '' \
         FROM pg_catalog.pg_attribute a \
         WHERE a.attrelid = $1::int8::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
    )
    .bind(relation.oid);
    let rows = connection
        .fetch_all(query)
        .await
        .map_err(|e| engine_error(format!("read the columns of {}", relation.table), &e))?;
    let mut columns = Vec::with_capacity(rows.len());
    for row in &rows {
        let declared: String = get(row, 1)?;
        let bare = base_of(&types, get(row, 2)?, get(row, 3)?).map(|(ty, _)| ty.bare.clone());
        columns.push(LiveColumn {
            name: get(row, 0)?,
            bare: bare.unwrap_or_else(|| declared.clone()),
            declared,
            generated: get(row, 4)?,
        });
    }
    Ok(columns)
}

/// The live column of each of the access's, or an error where the table is no longer what was planned: its
/// binary form would then be read as another type's.
pub(super) fn match_columns<'a>(
    access: &TableAccess,
    live: &'a [LiveColumn],
) -> Result<Vec<&'a LiveColumn>, EngineError> {
    access
        .columns
        .iter()
        .map(|planned| {
            let found = live.iter().find(|column| column.name == planned.name);
            let changed = |what: String| {
                EngineError::new(ErrorKind::Changed, format!("read {}", access.table), what)
                    .with_hint("the table was altered since the run began; start it again")
            };
            match found {
                None => Err(changed(format!("column {} is gone", planned.name))),
                Some(column) if column.declared != planned.declared => Err(changed(format!(
                    "column {} was {} and is {} now",
                    planned.name, planned.declared, column.declared
                ))),
                Some(column) => Ok(column),
            }
        })
        .collect()
}

/// How the heap is divided for parallel readers: its pages, or `None` where it has none to divide by.
pub(super) async fn heap_pages(
    connection: &mut PgConnection,
    relation: &Relation,
    version: i32,
) -> Result<Option<u64>, EngineError> {
    // Range scans by ctid came with PostgreSQL 14; before, every range would read the whole table.
    if version < 140_000 || !matches!(relation.kind, 'r' | 'p') {
        return Ok(None);
    }
    let query = sqlx::query(AssertSqlSafe(
        "WITH RECURSIVE leaf(oid) AS ( \
           SELECT $1::int8::oid UNION \
           SELECT i.inhrelid FROM leaf JOIN pg_catalog.pg_inherits i ON i.inhparent = leaf.oid) \
         SELECT pg_catalog.bool_and(c.relkind = 'p' OR (c.relkind = 'r' AND m.amname = 'heap')), \
                COALESCE(pg_catalog.max(CASE WHEN c.relkind = 'r' THEN pg_catalog.pg_relation_size(c.oid) END), 0)::int8, \
                pg_catalog.current_setting('block_size')::int8 \
         FROM leaf JOIN pg_catalog.pg_class c ON c.oid = leaf.oid LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam"
            .to_owned(),
    ))
    .bind(relation.oid);
    let row = connection
        .fetch_one(query)
        .await
        .map_err(|e| engine_error(format!("ask for the size of {}", relation.table), &e))?;
    let (heap, bytes, block): (bool, i64, i64) = (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
    Ok(heap.then(|| u64::try_from(bytes / block.max(1)).unwrap_or(0)))
}

/// The database's encoding promises nothing about the bytes of a text.
pub(super) async fn is_sql_ascii(connection: &mut PgConnection) -> Result<bool, EngineError> {
    let row = connection
        .fetch_one("SELECT pg_catalog.current_setting('server_encoding') = 'SQL_ASCII'")
        .await
        .map_err(|e| engine_error("ask for the database's encoding", &e))?;
    get(&row, 0)
}
