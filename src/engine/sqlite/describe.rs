//! What a table is, from SQLite's pragmas and its schema table.

use rusqlite::{Connection, Error};

use super::errors::database_error;
use super::params::quote;
use super::shape::{allow_literals_of_view, rowid, rowid_column, unknown_collations};
use super::spelling::Affinity;
use super::types::column_type;
use crate::engine::{EngineError, ErrorKind};
use crate::model::{Column, ColumnType, Filled, Referrer, TableName, TableSchema, UniqueKey};

const SIMILAR: f64 = 0.7;

/// Ordinary tables: not those that virtual tables keep their content in, and not SQLite's own.
pub(super) fn tables(connection: &Connection) -> Result<Vec<TableName>, Error> {
    let all = names(
        connection,
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' \
         AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
    )?;
    let unknown = unknown_virtual_tables(connection)?;
    let ordinary = all.into_iter().filter(|name| !belongs(name, &unknown));
    Ok(ordinary.map(|name| TableName { schema: None, name }).collect())
}

/// Views, virtual tables, and the tables that virtual tables of unknown modules may keep their content in.
pub(super) fn left_out(connection: &Connection) -> Result<Vec<String>, Error> {
    let mut found = names(
        connection,
        "SELECT CASE type WHEN 'virtual' THEN 'virtual table ' ELSE 'view ' END || name FROM pragma_table_list \
         WHERE schema = 'main' AND type IN ('view', 'virtual') ORDER BY type DESC, name",
    )?;
    let unknown = unknown_virtual_tables(connection)?;
    let tables = names(
        connection,
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' ORDER BY name",
    )?;
    let theirs = tables.iter().filter(|name| belongs(name, &unknown));
    found.extend(theirs.map(|name| format!("table {name}, which may be a virtual table's content")));
    Ok(found)
}

/// Virtual tables of modules that only the application has: which tables are theirs, this SQLite cannot tell.
fn unknown_virtual_tables(connection: &Connection) -> Result<Vec<String>, Error> {
    let all =
        names(connection, "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'virtual'")?;
    let unknown = |name: &String| connection.prepare(&format!("SELECT 1 FROM {}", quote(name))).is_err();
    Ok(all.into_iter().filter(unknown).collect())
}

/// By its name, as SQLite tells it: the virtual table's, and a word behind it.
fn belongs(table: &str, virtual_tables: &[String]) -> bool {
    virtual_tables.iter().any(|name| {
        let (table, name) = (table.to_lowercase(), name.to_lowercase());
        table.strip_prefix(&name).is_some_and(|rest| rest.starts_with('_'))
    })
}

fn names(connection: &Connection, sql: &str) -> Result<Vec<String>, Error> {
    connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

pub(super) fn describe(connection: &Connection, table: &TableName) -> Result<TableSchema, EngineError> {
    let during = format!("describe table {table}");
    if table.schema.as_deref().is_some_and(|schema| schema != "main") {
        return Err(EngineError::new(ErrorKind::NoSuchTable, during, "SQLite has no schemas")
            .with_hint("name the table alone"));
    }
    let failed = |error: Error| database_error(&during, &error);
    let found = connection.query_row(
        "SELECT name, type FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE",
        [&table.name],
        |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)),
    );
    let (name, kind) = match found {
        Ok(found) => found,
        Err(Error::QueryReturnedNoRows) => return Err(no_such_table(connection, &table.name)),
        Err(error) => return Err(failed(error)),
    };
    refuse_what_is_no_table(&name, &kind, &during)?;
    if kind == "view" {
        allow_literals_of_view(connection, &name).map_err(failed)?;
    }
    read(connection, name, kind == "view").map_err(failed)
}

/// Their rows are an index's pages, or SQLite's own figures: written as rows they would no longer fit what they belong to.
fn refuse_what_is_no_table(name: &str, kind: &str, during: &str) -> Result<(), EngineError> {
    let (what, hint) = if kind == "virtual" {
        (
            "it is a virtual table, whose content is kept by its module",
            "compare the table that it is an index of",
        )
    } else if kind == "shadow" {
        (
            "it is where a virtual table keeps its content",
            "compare the table that the virtual table is an index of",
        )
    } else if name.to_lowercase().starts_with("sqlite_") {
        ("it is a table of SQLite's own", "name one of the file's tables")
    } else {
        return Ok(());
    };
    Err(EngineError::new(ErrorKind::Usage, during, what).with_hint(hint))
}

fn no_such_table(connection: &Connection, name: &str) -> EngineError {
    let all = names(connection, "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")
        .unwrap_or_default();
    let near: Vec<String> = all
        .into_iter()
        .filter(|other| strsim::jaro_winkler(&other.to_lowercase(), &name.to_lowercase()) > SIMILAR)
        .take(3)
        .collect();
    let hint = if near.is_empty() {
        "sqlite3 FILE .tables lists them".to_owned()
    } else {
        format!("did you mean {}?", near.join(", "))
    };
    EngineError::new(ErrorKind::NoSuchTable, format!("find table {name}"), "there is no such table")
        .with_hint(hint)
}

fn read(connection: &Connection, name: String, is_view: bool) -> Result<TableSchema, Error> {
    let (mut columns, primary) = columns(connection, &name)?;
    let mut keys = Vec::new();
    if !primary.is_empty() {
        keys.push(primary_key(connection, &name, primary, &mut columns)?);
    }
    keys.extend(unique_indexes(connection, &name, &mut columns)?);
    let references =
        names_of(connection, "SELECT DISTINCT \"table\" FROM pragma_foreign_key_list(?1)", &name)?;
    let notes = notes(connection, &name, &columns)?;
    let triggers: Vec<(String, String)> = connection
        .prepare(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE",
        )?
        .query_map([&name], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, Error>>()?;
    Ok(TableSchema {
        references: references.into_iter().map(|name| TableName { schema: None, name }).collect(),
        referrers: referrers(connection, &name)?,
        fires_on_exchange: triggers.iter().any(|(name, sql)| !waits_for_updates(name, sql)),
        triggers: triggers.into_iter().map(|(name, _)| name).collect(),
        estimated_rows: if is_view { None } else { estimate(connection, &name) },
        table: TableName { schema: None, name },
        is_view,
        columns,
        keys,
        notes,
        identity: None,
        hidden_rows: None,
    })
}

/// Whether a trigger waits for updates alone: of the words behind its name, that of its event comes first.
fn waits_for_updates(name: &str, sql: &str) -> bool {
    let behind = sql.find(name).and_then(|at| sql.get(at + name.len()..)).unwrap_or_default();
    let mut words = behind.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let event = words
        .find(|word| ["INSERT", "UPDATE", "DELETE"].iter().any(|event| word.eq_ignore_ascii_case(event)));
    event.is_some_and(|word| word.eq_ignore_ascii_case("UPDATE"))
}

fn names_of(connection: &Connection, sql: &str, table: &str) -> Result<Vec<String>, Error> {
    connection.prepare(sql)?.query_map([table], |row| row.get(0))?.collect()
}

fn notes(connection: &Connection, table: &str, columns: &[Column]) -> Result<Vec<String>, Error> {
    let mut notes = Vec::new();
    for column in columns {
        if matches!(column.ty, ColumnType::Text { .. }) && Affinity::of(&column.declared).makes_numbers() {
            notes.push(format!(
                "column {0} is declared {1}, which SQLite takes for a number: against another database compare its text with --as-text {0}",
                column.name, column.declared
            ));
        }
    }
    for collation in unknown_collations(connection, table, false)? {
        notes.push(format!(
            "collation {collation} is known to the application of this file only: texts are compared by bytes, and what must be kept in its order is not written"
        ));
    }
    if belongs(table, &unknown_virtual_tables(connection)?) {
        notes.push(
            "a virtual table of a module that only the application has may keep its content here".to_owned(),
        );
    }
    Ok(notes)
}

/// Columns, and the places and names of those in the primary key.
type Columns = (Vec<Column>, Vec<(i64, String)>);

/// Columns, and the names of the primary key's with their place in it.
fn columns(connection: &Connection, table: &str) -> Result<Columns, Error> {
    let mut statement = connection.prepare(
        "SELECT name, type, \"notnull\", dflt_value IS NOT NULL, pk, hidden FROM pragma_table_xinfo(?1)",
    )?;
    let mut rows = statement.query([table])?;
    let (mut columns, mut primary) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let (name, declared): (String, String) = (row.get(0)?, row.get(1)?);
        let (place, hidden): (i64, i64) = (row.get(4)?, row.get(5)?);
        // 1: a hidden column of a virtual table; 2 and 3: generated.
        if hidden == 1 {
            continue;
        }
        if place > 0 {
            primary.push((place, name.clone()));
        }
        columns.push(Column {
            ty: column_type(&declared.to_lowercase().replace(" generated always", "")),
            declared,
            nullable: !row.get::<_, bool>(2)?,
            filled: if hidden >= 2 { Filled::Generated } else { Filled::ByWriter },
            has_default: row.get(3)?,
            collation: None,
            collation_folds: false,
            name,
        });
    }
    primary.sort();
    Ok((columns, primary))
}

/// SQLite lets a primary key be NULL, but for INTEGER PRIMARY KEY, WITHOUT ROWID and STRICT: then the rows decide.
fn primary_key(
    connection: &Connection,
    table: &str,
    primary: Vec<(i64, String)>,
    columns: &mut [Column],
) -> Result<UniqueKey, Error> {
    let names: Vec<String> = primary.into_iter().map(|(_, name)| name).collect();
    let nullable = |name: &&String| columns.iter().any(|column| column.name == **name && column.nullable);
    let doubtful: Vec<String> = names
        .iter()
        .filter(nullable)
        .map(|name| format!("{}.{} IS NULL", quote(table), quote(name)))
        .collect();
    let identifies = doubtful.is_empty() || rowid_column(connection, table)?.is_some() || {
        let sql =
            format!("SELECT NOT EXISTS (SELECT 1 FROM {} WHERE {})", quote(table), doubtful.join(" OR "));
        connection.query_row(&sql, [], |row| row.get(0))?
    };
    mark_collations(connection, table, "origin = 'pk'", columns)?;
    Ok(UniqueKey { name: "PRIMARY KEY".to_owned(), primary: true, columns: names, identifies })
}

fn unique_indexes(
    connection: &Connection,
    table: &str,
    columns: &mut [Column],
) -> Result<Vec<UniqueKey>, Error> {
    let indexes: Vec<(String, bool)> = connection
        .prepare("SELECT name, partial FROM pragma_index_list(?1) WHERE \"unique\" AND origin <> 'pk'")?
        .query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut keys = Vec::new();
    for (name, partial) in indexes {
        let parts: Vec<Option<String>> = connection
            .prepare("SELECT name FROM pragma_index_info(?1) ORDER BY seqno")?
            .query_map([&name], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let plain = parts.iter().all(Option::is_some);
        let names: Vec<String> = parts.into_iter().flatten().collect();
        let not_null =
            names.iter().all(|part| columns.iter().any(|column| column.name == *part && !column.nullable));
        keys.push(UniqueKey {
            name,
            primary: false,
            columns: names,
            identifies: plain && not_null && !partial,
        });
    }
    mark_collations(connection, table, "\"unique\"", columns)?;
    Ok(keys)
}

/// NOCASE and RTRIM hold texts equal that differ.
fn mark_collations(
    connection: &Connection,
    table: &str,
    which: &str,
    columns: &mut [Column],
) -> Result<(), Error> {
    let sql = format!(
        "SELECT x.name, x.coll FROM pragma_index_list(?1) l, pragma_index_xinfo(l.name) x WHERE l.{which} AND x.key AND x.name IS NOT NULL"
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([table])?;
    while let Some(row) = rows.next()? {
        let (name, collation): (String, String) = (row.get(0)?, row.get(1)?);
        if let Some(column) = columns.iter_mut().find(|column| column.name == name) {
            column.collation_folds |= !collation.eq_ignore_ascii_case("binary");
            column.collation = Some(collation);
        }
    }
    Ok(())
}

fn referrers(connection: &Connection, table: &str) -> Result<Vec<Referrer>, Error> {
    let sql = "SELECT t.name, f.on_delete, f.on_update, COALESCE(f.\"to\", (SELECT k.name FROM pragma_table_info(?1) k WHERE k.pk = f.seq + 1)) FROM sqlite_schema t, pragma_foreign_key_list(t.name) f \
               WHERE t.type = 'table' AND f.\"table\" = ?1 COLLATE NOCASE";
    connection
        .prepare(sql)?
        .query_map([table], |row| {
            let spreads = |rule: String| !matches!(rule.to_uppercase().as_str(), "NO ACTION" | "RESTRICT");
            let update_spreads = spreads(row.get(2)?);
            // Without a column's name the reference is to the primary key.
            let column: Option<String> = row.get(3)?;
            Ok(Referrer {
                table: TableName { schema: None, name: row.get(0)? },
                delete_spreads: spreads(row.get(1)?),
                update_spreads,
                update_columns: column.filter(|_| update_spreads).into_iter().collect(),
            })
        })?
        .collect()
}

/// From ANALYZE's figures, where it ran; else the largest rowid, which is near where rows are not deleted much.
fn estimate(connection: &Connection, table: &str) -> Option<u64> {
    let analyzed =
        connection.query_row("SELECT stat FROM sqlite_stat1 WHERE tbl = ?1 LIMIT 1", [table], |row| {
            row.get::<_, String>(0)
        });
    if let Some(rows) = analyzed.ok().and_then(|stat| stat.split(' ').next()?.parse().ok()) {
        return Some(rows);
    }
    let rowid = rowid(connection, table).ok().flatten()?;
    let sql = format!("SELECT max({0}.{rowid}) FROM {0}", quote(table));
    connection
        .query_row(&sql, [], |row| row.get::<_, Option<i64>>(0))
        .ok()
        .flatten()
        .and_then(|rows| u64::try_from(rows).ok())
}
