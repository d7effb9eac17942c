//! Which table this is, and whether this login sees all of it.

use sqlx::postgres::PgConnection;

use super::errors::engine_error;
use super::live::{Relation, get};
use super::session::ask;
use crate::engine::EngineError;
use crate::engine::origin::PostgresOrigin;

/// Another value than before: the table, or one that its rows lie in, was dropped and made again, truncated or rewritten.
/// Each of these gives it another file; writing, ANALYZE and a plain VACUUM do not. Columns, labels of enums, policies and
/// children are in it too: a column that was renamed into another's place has its name and type. Of a view the tables that it
/// reads count.
pub(super) async fn of(connection: &mut PgConnection, relation: &Relation) -> Result<String, EngineError> {
    let tree = match relation.kind {
        'v' => format!(
            "WITH RECURSIVE tree(oid) AS (SELECT {}::oid UNION SELECT n.oid FROM tree, LATERAL ( \
               SELECT d.refobjid AS oid FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_depend d \
                   ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass \
                WHERE w.ev_class = tree.oid AND w.ev_type = '1' \
               UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = tree.oid) n)",
            relation.oid
        ),
        _ => relation.tree(),
    };
    let sql = format!(
        "{tree}, leaf AS (SELECT c.oid, pg_catalog.pg_relation_filenode(c.oid) AS file, \
                pg_catalog.concat_ws('|', CASE WHEN c.relkind = 'v' THEN pg_catalog.pg_get_viewdef(c.oid) END, \
                  c.relrowsecurity, c.relforcerowsecurity, \
                  (SELECT pg_catalog.string_agg(pg_catalog.concat_ws('/', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attisdropped, \
                            a.attnotnull, pg_catalog.to_jsonb(a) ->> 'attmissingval', \
                            (WITH RECURSIVE y(oid) AS (SELECT a.atttypid UNION SELECT n.oid FROM y \
                               JOIN pg_catalog.pg_type t ON t.oid = y.oid, LATERAL (SELECT t.typelem AS oid UNION SELECT t.typbasetype \
                                 UNION SELECT b.atttypid FROM pg_catalog.pg_attribute b \
                                        WHERE t.typrelid <> 0 AND b.attrelid = t.typrelid AND b.attnum > 0) n WHERE n.oid <> 0) \
                             SELECT pg_catalog.string_agg(pg_catalog.concat_ws('=', e.oid, e.enumsortorder, e.enumlabel), ';' ORDER BY e.oid) \
                               FROM pg_catalog.pg_enum e WHERE e.enumtypid IN (SELECT y.oid FROM y))), ',' ORDER BY a.attnum) \
                     FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0), \
                  (SELECT pg_catalog.string_agg(pg_catalog.concat_ws('/', p.polname, p.polcmd, p.polroles, \
                            pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.to_jsonb(p) ->> 'polpermissive'), ',' ORDER BY p.polname) \
                     FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid), \
                  (SELECT pg_catalog.string_agg(i.inhrelid::text, ',' ORDER BY i.inhrelid) \
                     FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid)) AS words \
              FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid) \
         SELECT COALESCE(pg_catalog.string_agg(pg_catalog.concat_ws(':', oid, file, \
                pg_catalog.hashtext(words), pg_catalog.hashtext(pg_catalog.reverse(words))), ',' ORDER BY oid), '') FROM leaf"
    );
    let failed = |e: sqlx::Error| engine_error(format!("look at the files of {}", relation.table), &e);
    let rows = ask(connection, sql).await.map_err(failed)?;
    rows.first().map_or_else(|| Ok(String::new()), |row| get(row, 0))
}

/// What tells the table from a copy of it. The cluster's number may be kept from a login: behind a savepoint the question for it
/// ends nothing.
pub(super) async fn origin(
    connection: &mut PgConnection,
    relation: &Relation,
) -> Result<PostgresOrigin, EngineError> {
    let failed = |e: sqlx::Error| engine_error(format!("look at which table {} is", relation.table), &e);
    let system = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()";
    ask(connection, "SAVEPOINT origin".to_owned()).await.map_err(failed)?;
    let asked = ask(connection, system.to_owned()).await;
    if asked.is_err() {
        ask(connection, "ROLLBACK TO SAVEPOINT origin".to_owned()).await.map_err(failed)?;
    }
    let system = match asked {
        Ok(rows) => rows.first().map(|row| get(row, 0)).transpose()?,
        Err(sqlx::Error::Database(_)) => None,
        Err(error) => return Err(failed(error)),
    };
    let sql = "SELECT oid::text FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()";
    let rows = ask(connection, sql.to_owned()).await.map_err(failed)?;
    let database = rows.first().map_or_else(|| Ok(String::new()), |row| get(row, 0))?;
    Ok(PostgresOrigin { system, database, table: relation.oid.to_string() })
}

/// Why this login may not see all rows. A view shows what the policies show to its owner, or to the login where the view
/// is made so, also where it is read by another view.
pub(super) async fn hidden_rows(
    connection: &mut PgConnection,
    relation: &Relation,
) -> Result<Option<String>, EngineError> {
    let oid = relation.oid;
    let sql = match relation.kind {
        'v' => format!(
            "WITH RECURSIVE reads(oid, role) AS ( \
               SELECT {oid}::oid, (SELECT u.oid FROM pg_catalog.pg_roles u WHERE u.rolname = current_user) \
               UNION SELECT d.refobjid, CASE WHEN v.reloptions::text ~* 'security_invoker=(t|on|1|y)' \
                      THEN (SELECT u.oid FROM pg_catalog.pg_roles u WHERE u.rolname = current_user) ELSE v.relowner END \
                 FROM reads JOIN pg_catalog.pg_class v ON v.oid = reads.oid AND v.relkind = 'v' \
                 JOIN pg_catalog.pg_rewrite w ON w.ev_class = v.oid AND w.ev_type = '1' \
                 JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = w.oid \
                      AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> v.oid) \
             SELECT c.relname::text FROM reads JOIN pg_catalog.pg_class c ON c.oid = reads.oid \
               JOIN pg_catalog.pg_roles u ON u.oid = reads.role \
              WHERE c.relrowsecurity AND NOT u.rolsuper AND NOT u.rolbypassrls \
                AND (c.relforcerowsecurity OR NOT pg_catalog.pg_has_role(u.oid, c.relowner, 'USAGE')) ORDER BY 1 LIMIT 1"
        ),
        _ => format!(
            "SELECT relname::text FROM pg_catalog.pg_class WHERE oid = {oid}::oid AND pg_catalog.row_security_active(oid)"
        ),
    };
    let failed = |e: sqlx::Error| engine_error(format!("look at the policies of {}", relation.table), &e);
    let rows = ask(connection, sql).await.map_err(failed)?;
    let Some(row) = rows.first() else { return Ok(None) };
    let table: String = get(row, 0)?;
    Ok(Some(format!(
        "row-level security of table {table} is active: only the rows that its policies show to this login are compared"
    )))
}
