//! The catalog's description of a table: columns, keys, references, triggers, and what a person must know.

use sqlx::Executor;
use sqlx::postgres::PgConnection;

use super::errors::engine_error;
use super::identity;
use super::live::{self, Relation, get, letter};
use super::near::nearest;
use super::path::login_path;
use super::session::ask;
use super::statement::literal;
use super::types::{CatalogType, base_of, column_type};
use crate::engine::{EngineError, ErrorKind};
use crate::model::{
    Allow, Column, ColumnType, Filled, Referrer, TableAccess, TableName, TableSchema, UniqueKey,
};

/// The schema of this name; without one the first of the login's search path.
async fn chosen(
    connection: &mut PgConnection,
    during: &str,
    schema: Option<&str>,
) -> Result<String, EngineError> {
    let name = match schema {
        Some(name) => Some(name.to_owned()),
        None => login_path(connection, during).await?.into_iter().next(),
    };
    Ok(name.map_or_else(|| "NULL::name".to_owned(), |name| format!("{}::name", literal(&name))))
}

pub(super) async fn tables(
    connection: &mut PgConnection,
    during: &str,
    schema: Option<&str>,
) -> Result<Vec<TableName>, EngineError> {
    let schema = chosen(connection, during, schema).await?;
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = {schema} AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY c.relname"
    );
    let rows = ask(connection, sql).await.map_err(|e| engine_error(during, &e))?;
    rows.iter().map(|row| Ok(TableName { schema: Some(get(row, 0)?), name: get(row, 1)? })).collect()
}

/// Views, materialized views and foreign tables. Of sequences nothing is told: they are no rows.
pub(super) async fn left_out(
    connection: &mut PgConnection,
    during: &str,
    schema: Option<&str>,
) -> Result<Vec<String>, EngineError> {
    let schema = chosen(connection, during, schema).await?;
    let sql = format!(
        "SELECT CASE c.relkind WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view ' ELSE 'foreign table ' END || c.relname::text \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = {schema} AND c.relkind IN ('v', 'm', 'f') AND NOT c.relispartition \
           AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d \
                            WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') \
         ORDER BY c.relkind, c.relname"
    );
    let rows = ask(connection, sql).await.map_err(|e| engine_error(during, &e))?;
    rows.iter().map(|row| get(row, 0)).collect()
}

pub(super) async fn describe(
    connection: &mut PgConnection,
    name: &str,
    table: &TableName,
) -> Result<(TableSchema, Relation), EngineError> {
    let Some(relation) = live::find(connection, table).await? else {
        return Err(no_such_table(connection, name, table).await?);
    };
    let columns = columns(connection, &relation).await?;
    let keys = keys(connection, &relation, &columns).await?;
    let (references, referrers) = relations(connection, &relation).await?;
    let (triggers, fires_on_exchange) = triggers(connection, &relation).await?;
    let (estimated_rows, mut notes) = estimate_and_notes(connection, &relation).await?;
    let hidden_rows = identity::hidden_rows(connection, &relation).await?;
    if relation.kind == 'v' {
        notes.extend(hidden_rows.clone());
    }
    let schema = TableSchema {
        is_view: matches!(relation.kind, 'v' | 'm' | 'f'),
        table: relation.table.clone(),
        columns,
        keys,
        estimated_rows,
        references,
        referrers,
        triggers,
        fires_on_exchange,
        notes,
        identity: Some(identity::of(connection, &relation).await?),
        hidden_rows,
    };
    Ok((schema, relation))
}

async fn no_such_table(
    connection: &mut PgConnection,
    name: &str,
    table: &TableName,
) -> Result<EngineError, EngineError> {
    let during = format!("list the tables of {name}");
    let path = live::among(&login_path(connection, &during).await?);
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, n.nspname = ANY ({path}) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') \
           AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') LIMIT 10000"
    );
    let rows = ask(connection, sql).await.map_err(|e| engine_error(during, &e))?;
    let mut known = Vec::with_capacity(rows.len());
    for row in &rows {
        let (schema, relation, visible): (String, String, bool) = (get(row, 0)?, get(row, 1)?, get(row, 2)?);
        let plain = visible && table.schema.is_none();
        known.push(if plain { relation } else { format!("{schema}.{relation}") });
    }
    let wanted = table.to_string();
    let mut near = nearest(&wanted, &known);
    if near.is_empty() {
        // The right name in another schema.
        let suffix = format!(".{}", table.name.to_lowercase());
        near = known.iter().filter(|name| name.to_lowercase().ends_with(&suffix)).take(3).cloned().collect();
    }
    let error = EngineError::new(
        ErrorKind::NoSuchTable,
        format!("describe {table}"),
        format!("there is no table or view {table} in {name}"),
    );
    Ok(if near.is_empty() {
        error.with_hint("check the name and its schema; names are case-sensitive")
    } else {
        error.with_hint(format!("did you mean {}?", near.join(", ")))
    })
}

async fn columns(connection: &mut PgConnection, relation: &Relation) -> Result<Vec<Column>, EngineError> {
    let types = live::types(connection, relation.oid).await?;
    let sql = format!(
        "SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypid::int8, a.atttypmod, \
                NOT (a.attnotnull OR (t.typtype = 'd' AND t.typnotnull)), a.atthasdef OR (t.typtype = 'd' AND t.typdefault IS NOT NULL), \
                COALESCE(pg_catalog.to_jsonb(a) ->> 'attgenerated', ''), COALESCE(pg_catalog.to_jsonb(a) ->> 'attidentity', ''), \
                CASE WHEN l.collname <> 'default' THEN l.collname::text END, \
                COALESCE((pg_catalog.to_jsonb(l) ->> 'collisdeterministic')::boolean, true), a.attnotnull \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
         LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation \
         WHERE a.attrelid = {}::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        relation.oid
    );
    let rows = ask(connection, sql)
        .await
        .map_err(|e| engine_error(format!("read the columns of {}", relation.table), &e))?;
    let mut columns = Vec::with_capacity(rows.len());
    for row in &rows {
        let declared: String = get(row, 1)?;
        let (oid, modifier): (i64, i32) = (get(row, 2)?, get(row, 3)?);
        let ty = column_type(&types, oid, modifier, &declared);
        let deterministic: bool = get(row, 9)?;
        let citext = base_of(&types, oid, modifier).map(|(base, _)| base).is_some_and(CatalogType::is_citext);
        let identity = letter(&get::<String>(row, 7)?);
        let filled = if letter(&get::<String>(row, 6)?) != ' ' {
            Filled::Generated
        } else if identity == 'a' {
            Filled::IdentityAlways
        } else {
            Filled::ByWriter
        };
        columns.push(Column {
            name: get(row, 0)?,
            nullable: get(row, 4)?,
            has_default: get::<bool>(row, 5)? && filled != Filled::Generated || identity != ' ',
            collation: get(row, 8)?,
            collation_folds: !deterministic || citext || ty == ColumnType::Text { padded: true },
            filled,
            declared,
            ty,
        });
    }
    Ok(columns)
}

async fn keys(
    connection: &mut PgConnection,
    relation: &Relation,
    columns: &[Column],
) -> Result<Vec<UniqueKey>, EngineError> {
    let sql = format!(
        "SELECT i.relname::text, x.indisprimary, \
                x.indisvalid AND x.indisready AND x.indpred IS NULL AND x.indexprs IS NULL, \
                ARRAY(SELECT COALESCE(a.attname::text, '') FROM pg_catalog.unnest(x.indkey::int2[]) WITH ORDINALITY k(num, place) \
                      LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.num AND k.num > 0 \
                      WHERE k.place <= COALESCE((pg_catalog.to_jsonb(x) ->> 'indnkeyatts')::int, x.indnatts) ORDER BY k.place), \
                ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a \
                      WHERE a.attrelid = x.indrelid AND a.attnum > 0 AND a.attnotnull) \
         FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid \
         WHERE x.indrelid = {}::oid AND x.indisunique ORDER BY x.indisprimary DESC, i.relname",
        relation.oid
    );
    let rows = ask(connection, sql)
        .await
        .map_err(|e| engine_error(format!("read the keys of {}", relation.table), &e))?;
    let mut keys = Vec::with_capacity(rows.len());
    for row in &rows {
        let (whole, names): (bool, Vec<String>) = (get(row, 2)?, get(row, 3)?);
        // Declared on the column itself: a domain's NOT NULL does not hold for every way a row can come to be.
        let not_null: Vec<String> = get(row, 4)?;
        let all = names.iter().all(|name| not_null.contains(name) && columns.iter().any(|c| c.name == *name));
        keys.push(UniqueKey {
            name: get(row, 0)?,
            primary: get(row, 1)?,
            identifies: whole && all && !names.is_empty(),
            columns: names.into_iter().filter(|name| !name.is_empty()).collect(),
        });
    }
    Ok(keys)
}

async fn relations(
    connection: &mut PgConnection,
    relation: &Relation,
) -> Result<(Vec<TableName>, Vec<Referrer>), EngineError> {
    // Of a constraint that the whole table has, its copies on partitions are left out. One that a partition has by itself
    // counts as the table's: what is written goes to partitions.
    let (oid, tree) = (relation.oid, tree(relation));
    let sql = format!(
        "{tree} SELECT v.points_here, n.nspname::text, r.relname::text, \
                pg_catalog.bool_or(c.confdeltype IN ('c', 'n', 'd')), pg_catalog.bool_or(c.confupdtype IN ('c', 'n', 'd')), \
                pg_catalog.jsonb_agg((SELECT pg_catalog.jsonb_agg(a.attname::text) FROM pg_catalog.pg_attribute a \
                  WHERE c.confupdtype IN ('c', 'n', 'd') AND a.attrelid = c.confrelid AND a.attnum = ANY (c.confkey)))::text \
         FROM pg_catalog.pg_constraint c \
         CROSS JOIN LATERAL (VALUES (c.conrelid, c.confrelid, false), (c.confrelid, c.conrelid, true)) v(mine, other, points_here) \
         JOIN pg_catalog.pg_class r \
           ON r.oid = CASE WHEN v.other IN (SELECT tree.oid FROM tree) THEN {oid}::oid ELSE v.other END \
         JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace \
         WHERE c.contype = 'f' AND v.mine IN (SELECT tree.oid FROM tree) \
           AND COALESCE((pg_catalog.to_jsonb(c) ->> 'conparentid')::int8, 0) = 0 \
         GROUP BY 1, 2, 3 ORDER BY 2, 3"
    );
    let rows = ask(connection, sql)
        .await
        .map_err(|e| engine_error(format!("read the foreign keys of {}", relation.table), &e))?;
    let (mut references, mut referrers): (Vec<TableName>, Vec<Referrer>) = (Vec::new(), Vec::new());
    for row in &rows {
        let points_here: bool = get(row, 0)?;
        let (delete_spreads, update_spreads): (bool, bool) = (get(row, 3)?, get(row, 4)?);
        let table = TableName { schema: Some(get(row, 1)?), name: get(row, 2)? };
        let itself = table == relation.table;
        if (!points_here || itself) && !references.contains(&table) {
            references.push(table.clone());
        }
        if points_here && !referrers.iter().any(|known| known.table == table) {
            let columns: String = get(row, 5)?;
            let columns: Vec<Option<Vec<String>>> = serde_json::from_str(&columns).unwrap_or_default();
            let update_columns = columns.into_iter().flatten().flatten().collect();
            referrers.push(Referrer { table, delete_spreads, update_spreads, update_columns });
        }
    }
    Ok((references, referrers))
}

/// The table and its partitions, at every depth, as `tree(oid)`: what is written goes to them.
fn tree(relation: &Relation) -> String {
    format!(
        "WITH RECURSIVE tree(oid) AS (SELECT {}::oid UNION \
           SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree ON i.inhparent = tree.oid \
             JOIN pg_catalog.pg_class k ON k.oid = i.inhrelid AND k.relispartition)",
        relation.oid
    )
}

/// What else a write does: triggers, of partitions too, and rewrite rules; and whether inserts or deletes are among what they
/// wait for.
async fn triggers(
    connection: &mut PgConnection,
    relation: &Relation,
) -> Result<(Vec<String>, bool), EngineError> {
    let rows = ask(connection, format!("{} ORDER BY 1", triggers_sql(relation)))
        .await
        .map_err(|e| engine_error(format!("read the triggers of {}", relation.table), &e))?;
    let mut fires = false;
    for row in &rows {
        fires |= get::<bool>(row, 1)?;
    }
    let names: Result<Vec<String>, EngineError> = rows.iter().map(|row| get(row, 0)).collect();
    let mut names = names?;
    names.dedup();
    Ok((names, fires))
}

/// The names of what fires when the table is written. Disabled triggers, and those for replication sessions only, do not.
pub(super) fn triggers_sql(relation: &Relation) -> String {
    format!(
        "{} SELECT DISTINCT g.tgname::text, g.tgtype::int4 & 12 <> 0 FROM pg_catalog.pg_trigger g JOIN tree ON g.tgrelid = tree.oid \
           WHERE NOT g.tgisinternal AND g.tgenabled IN ('O', 'A') \
         UNION SELECT DISTINCT 'rule ' || w.rulename::text, w.ev_type <> '2' \
           FROM pg_catalog.pg_rewrite w JOIN tree ON w.ev_class = tree.oid \
           WHERE w.ev_type <> '1' AND w.ev_enabled IN ('O', 'A')",
        tree(relation)
    )
}

/// Rows as the last `ANALYZE` counted them; by the size of a table that it has not seen: 100 rows a page, which is seldom
/// wrong by more than ten times.
async fn estimate_and_notes(
    connection: &mut PgConnection,
    relation: &Relation,
) -> Result<(Option<u64>, Vec<String>), EngineError> {
    let sql = format!(
        "{}, part AS (SELECT p.* FROM tree JOIN pg_catalog.pg_class p ON p.oid = tree.oid) \
         SELECT (SELECT CASE WHEN pg_catalog.bool_or(p.reltuples < 0 OR (p.reltuples = 0 AND p.relpages = 0 \
                              AND p.relkind = 'r' AND pg_catalog.pg_relation_size(p.oid) > 0)) \
                        THEN pg_catalog.sum(pg_catalog.pg_relation_size(p.oid))::float8 / 8192 * 100 \
                        ELSE pg_catalog.sum(p.reltuples)::float8 END FROM part p WHERE p.relkind <> 'p'), \
                pg_catalog.row_security_active(c.oid), \
                EXISTS (SELECT 1 FROM pg_catalog.pg_rewrite w WHERE w.ev_class = c.oid AND w.ev_type <> '1'), \
                c.relpersistence = 'u' \
         FROM pg_catalog.pg_class c WHERE c.oid = {}::oid",
        relation.tree(),
        relation.oid
    );
    let failed = |e: sqlx::Error| engine_error(format!("read the size of {}", relation.table), &e);
    let rows = ask(connection, sql).await.map_err(failed)?;
    let Some(row) = rows.first() else { return Ok((None, Vec::new())) };
    let estimate: Option<f64> = get(row, 0)?;
    let mut notes = Vec::new();
    let mut note = |holds: bool, text: &str| {
        if holds {
            notes.push(text.to_owned());
        }
    };
    note(
        get(row, 1)?,
        "row-level security is active for this login: only the rows its policies show are compared",
    );
    note(get(row, 2)? && relation.kind != 'v', "the table has rewrite rules, which change what a write does");
    note(relation.is_parent(), "has child tables: their rows are compared with the child");
    note(get(row, 3)?, "the table is unlogged: a crash empties it");
    note(
        relation.kind == 'f',
        "a foreign table: its rows are read from another server, outside this snapshot",
    );
    note(
        relation.kind == 'p' && relation.is_foreign,
        "some of its partitions are foreign tables: their rows are read from another server, outside this snapshot",
    );
    note(relation.kind == 'm', "a materialized view: it holds what its last refresh saw");
    // Views have no count of their own; what the catalog says of them is always zero.
    let estimate = estimate.filter(|_| relation.kind != 'v');
    Ok((estimate.and_then(whole), notes))
}

fn whole(count: f64) -> Option<u64> {
    if !(0.0..9e15).contains(&count) {
        return None;
    }
    format!("{count:.0}").parse().ok()
}

/// Fails where this login could not insert and update; a delete it may not make is told when it is tried.
pub(super) async fn check_writable(
    connection: &mut PgConnection,
    during: &str,
    access: &TableAccess,
    allow: Allow,
) -> Result<(), EngineError> {
    let refuse =
        |what: &str, hint: &str| Err(EngineError::new(ErrorKind::Permission, during, what).with_hint(hint));
    let relation = live::find_planned(connection, access).await?;
    if matches!(relation.kind, 'm' | 'v') {
        return refuse("it is a view", "name the table behind it");
    }
    let row = connection
        .fetch_one(
            "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only')::boolean, \
                    current_user::text",
        )
        .await
        .map_err(|e| engine_error(during, &e))?;
    if get(&row, 0)? {
        return refuse("the server is a standby, which accepts no writes", "name the primary in the URL");
    }
    if get(&row, 1)? {
        return refuse(
            "transactions of this login are read-only",
            "ALTER ROLE ... SET default_transaction_read_only = off, or name another server",
        );
    }
    let user: String = get(&row, 2)?;
    for (at, column) in access.columns.iter().enumerate() {
        let inserted = allow.insert && column.filled != Filled::Generated;
        let updated = allow.update && column.filled == Filled::ByWriter && at >= access.key_len;
        let wanted = [(true, "SELECT"), (inserted, "INSERT"), (updated, "UPDATE")];
        for (_, privilege) in wanted.iter().filter(|(wanted, _)| *wanted) {
            let sql = format!(
                "SELECT COALESCE(pg_catalog.has_column_privilege({oid}::oid, {}::text, '{privilege}'), false) \
                        AND pg_catalog.has_schema_privilege((SELECT relnamespace FROM pg_catalog.pg_class WHERE oid = {oid}::oid), 'USAGE')",
                literal(&column.name),
                oid = relation.oid
            );
            let rows = ask(connection, sql).await.map_err(|e| engine_error(during, &e))?;
            let granted = rows.first().map(|row| get::<bool>(row, 0)).transpose()?;
            if granted != Some(true) {
                return refuse(
                    &format!("{user} lacks {privilege} on column {}", column.name),
                    &format!(
                        "GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO {}; and USAGE on its schema",
                        super::statement::table(&access.table),
                        super::statement::ident(&user)
                    ),
                );
            }
        }
    }
    Ok(())
}
