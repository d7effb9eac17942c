//! What the catalog says about a table at this moment: its kind, its columns' types, its size in pages.

use std::collections::HashMap;

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::errors::engine_error;
use super::path::login_path;
use super::session::ask;
use super::statement::{self, literal};
use super::types::{CatalogType, Types, base_of, element_of};
use crate::engine::{EngineError, ErrorKind};
use crate::model::{TableAccess, TableName};

/// A relation as `pg_class` has it.
#[derive(Debug, Clone)]
pub(super) struct Relation {
    pub oid: i64,
    pub table: TableName,
    /// r table, p partitioned, v view, m materialized view, f foreign table.
    pub kind: char,
    /// Other tables are its partitions or inherit from it.
    pub has_children: bool,
    /// Its rows lie in tables below it, and are its own: it is partitioned, or a hypertable of TimescaleDB.
    pub holds_children: bool,
    /// It, or a partition of it, lies on another server, whose equality and places are not this one's.
    pub is_foreign: bool,
}

impl Relation {
    /// Other tables inherit from it, whose rows are none of its own.
    pub(super) fn is_parent(&self) -> bool {
        self.has_children && !self.holds_children
    }

    /// As it is read, updated and deleted from.
    pub(super) fn from(&self) -> String {
        statement::from(&self.table, self.is_parent())
    }

    /// Its rows have a place (ctid) in this database.
    pub(super) fn has_places(&self) -> bool {
        matches!(self.kind, 'r' | 'p') && !self.is_foreign
    }

    /// It is a table here, which can be locked and written.
    pub(super) fn is_table(&self) -> bool {
        matches!(self.kind, 'r' | 'p')
    }

    /// `WITH RECURSIVE` words for the tables that its rows lie in.
    pub(super) fn tree(&self) -> String {
        let below = if self.holds_children {
            " UNION SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid"
        } else {
            ""
        };
        format!("WITH RECURSIVE tree(oid) AS (SELECT {}::oid{below})", self.oid)
    }
}

pub(super) fn get<'r, T>(row: &'r PgRow, at: usize) -> Result<T, EngineError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(at).map_err(|e| engine_error("read the catalog", &e))
}

/// Schemas as an array of names, the server's own first.
pub(super) fn among(schemas: &[String]) -> String {
    let names: Vec<String> = schemas.iter().map(|name| format!(", {}", literal(name))).collect();
    format!("ARRAY['pg_catalog'{}]::name[]", names.concat())
}

pub(super) fn letter(text: &str) -> char {
    text.chars().next().unwrap_or(' ')
}

/// The relation of this name; without a schema as the login's search path finds it.
pub(super) async fn find(
    connection: &mut PgConnection,
    table: &TableName,
) -> Result<Option<Relation>, EngineError> {
    let during = format!("look for table {table}");
    let place = match &table.schema {
        Some(schema) => format!("n.nspname = {}::name", literal(schema)),
        None => {
            let path = among(&login_path(connection, &during).await?);
            format!("n.nspname = ANY ({path}) ORDER BY pg_catalog.array_position({path}, n.nspname) LIMIT 1")
        }
    };
    let sql = format!(
        "SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text, \
                EXISTS (SELECT 1 FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid), \
                c.relkind = 'p' OR EXISTS (SELECT 1 FROM pg_catalog.pg_trigger g \
                  JOIN pg_catalog.pg_proc f ON f.oid = g.tgfoid JOIN pg_catalog.pg_namespace m ON m.oid = f.pronamespace \
                  WHERE g.tgrelid = c.oid AND g.tgname = 'ts_insert_blocker' AND m.nspname LIKE '\\_timescaledb\\_%'), \
                c.relkind = 'f' OR (c.relkind = 'p' AND EXISTS (WITH RECURSIVE tree(oid) AS (SELECT c.oid UNION \
                  SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid) \
                  SELECT 1 FROM tree JOIN pg_catalog.pg_class p ON p.oid = tree.oid WHERE p.relkind = 'f')) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname = {}::name AND {place}",
        literal(&table.name)
    );
    let rows = ask(connection, sql).await.map_err(|e| engine_error(during, &e))?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (schema, name): (String, String) = (get(row, 1)?, get(row, 2)?);
    Ok(Some(Relation {
        oid: get(row, 0)?,
        table: TableName { schema: Some(schema), name },
        kind: letter(&get::<String>(row, 3)?),
        has_children: get(row, 4)?,
        holds_children: get(row, 5)?,
        is_foreign: get(row, 6)?,
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
    let sql = format!(
        "WITH RECURSIVE need(oid) AS ( \
           SELECT a.atttypid FROM pg_catalog.pg_attribute a \
            WHERE a.attrelid = {relation}::oid AND a.attnum > 0 AND NOT a.attisdropped \
           UNION \
           SELECT v.next FROM need JOIN pg_catalog.pg_type t ON t.oid = need.oid, \
             LATERAL (VALUES (t.typbasetype), (CASE WHEN t.typcategory = 'A' AND t.typlen = -1 THEN t.typelem END)) v(next) \
            WHERE v.next <> 0) \
         SELECT t.oid::int8, t.typname::text, n.nspname = 'pg_catalog', t.typtype::text, \
                CASE WHEN t.typcategory = 'A' AND t.typlen = -1 AND t.typname NOT IN ('int2vector', 'oidvector') \
                     THEN t.typelem::int8 ELSE 0 END, \
                t.typbasetype::int8, t.typtypmod, pg_catalog.format_type(t.oid, -1), t.typdelim = ',', \
                CASE WHEN n.nspname <> 'pg_catalog' THEN \
                  (SELECT m.nspname::text FROM pg_catalog.pg_opclass k JOIN pg_catalog.pg_am h ON h.oid = k.opcmethod \
                     JOIN pg_catalog.pg_amop b ON b.amopfamily = k.opcfamily AND b.amoplefttype = t.oid AND b.amoprighttype = t.oid \
                     JOIN pg_catalog.pg_operator o ON o.oid = b.amopopr JOIN pg_catalog.pg_namespace m ON m.oid = o.oprnamespace \
                    WHERE k.opcintype = t.oid AND k.opcdefault AND h.amname = 'btree' AND b.amopstrategy = 3 AND o.oprname = '=' LIMIT 1) END \
         FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
         WHERE t.oid IN (SELECT oid FROM need)"
    );
    let rows = ask(connection, sql).await.map_err(|e| engine_error("read the catalog's types", &e))?;
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
                comma: get(row, 8)?,
                equality: get(row, 9)?,
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
    /// The operator by which its values are compared.
    pub equals: String,
    /// The column's own type is a domain, which operators of enums, arrays and ranges do not take as it is.
    pub domain: bool,
    /// Values that differ in bytes may be equal: the collation is not deterministic, or the type is citext.
    pub folds: bool,
    /// An array whose elements are parted by something else than a comma.
    pub odd_array: bool,
    /// A type with the same binary form that the driver knows, where it would have to ask for the column's: by asking it
    /// would undo the statement without a name that it asks for.
    pub known_as: Option<String>,
}

pub(super) async fn columns(
    connection: &mut PgConnection,
    relation: &Relation,
) -> Result<Vec<LiveColumn>, EngineError> {
    let types = types(connection, relation.oid).await?;
    let sql = format!(
        "SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypid::int8, a.atttypmod, \
                COALESCE(pg_catalog.to_jsonb(a) ->> 'attgenerated', '') <> '', \
                NOT COALESCE((pg_catalog.to_jsonb(l) ->> 'collisdeterministic')::boolean, true) \
         FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation \
         WHERE a.attrelid = {}::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        relation.oid
    );
    let rows = ask(connection, sql)
        .await
        .map_err(|e| engine_error(format!("read the columns of {}", relation.table), &e))?;
    let mut columns = Vec::with_capacity(rows.len());
    for row in &rows {
        let declared: String = get(row, 1)?;
        let own: i64 = get(row, 2)?;
        let base = base_of(&types, own, get(row, 3)?).map(|(ty, _)| ty);
        columns.push(LiveColumn {
            domain: types.get(&own).is_some_and(|ty| ty.kind == 'd'),
            name: get(row, 0)?,
            bare: base.map_or_else(|| declared.clone(), |ty| ty.bare.clone()),
            equals: statement::operator(base.and_then(|ty| ty.equality.as_deref()), "="),
            folds: get::<bool>(row, 5)? || base.is_some_and(CatalogType::is_citext),
            known_as: base.and_then(|ty| known_as(&types, ty)),
            odd_array: base.and_then(|ty| element_of(&types, ty)).is_some_and(|element| !element.comma),
            declared,
            generated: get(row, 4)?,
        });
    }
    Ok(columns)
}

fn known_as(types: &Types, base: &CatalogType) -> Option<String> {
    let plain = |ty: &CatalogType| if ty.builtin { ty.bare.clone() } else { "text".to_owned() };
    match types.get(&base.element).filter(|_| base.element != 0) {
        Some(element) if element.builtin => None,
        // Of a domain, an enum or citext; what else there is, is read as text anyway.
        Some(_) => element_of(types, base).map(|element| format!("{}[]", plain(element))),
        None => (!base.builtin).then(|| "text".to_owned()),
    }
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
    if version < 140_000 || !relation.is_table() {
        return Ok(None);
    }
    let sql = format!(
        "{} SELECT pg_catalog.bool_and(c.relkind = 'p' OR (c.relkind = 'r' AND m.amname = 'heap')), \
                COALESCE(pg_catalog.max(CASE WHEN c.relkind = 'r' THEN pg_catalog.pg_relation_size(c.oid) END), 0)::int8, \
                pg_catalog.current_setting('block_size')::int8 \
         FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam",
        relation.tree()
    );
    let failed = |e: sqlx::Error| engine_error(format!("ask for the size of {}", relation.table), &e);
    let rows = ask(connection, sql).await.map_err(failed)?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (heap, bytes, block): (bool, i64, i64) = (get(row, 0)?, get(row, 1)?, get(row, 2)?);
    Ok(heap.then(|| u64::try_from(bytes / block.max(1)).unwrap_or(0)))
}
