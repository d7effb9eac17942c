//! What the table is at the moment of a read or a write: whether it still is what the plan was made from, and what of it
//! decides how its rows are found.

use rusqlite::{Connection, Error, OptionalExtension};

use super::errors::{changed, database_error};
use super::open::literal_names;
use super::params::quote;
use crate::engine::EngineError;
use crate::model::{Filled, TableAccess};

/// Names of the rowid, as long as no column has taken them.
const ROWID_NAMES: [&str; 3] = ["rowid", "_rowid_", "oid"];

pub(super) struct TableShape {
    /// What reads a row's rowid; `None` of views, of tables without, and where columns took all of its names.
    pub(super) rowid: Option<String>,
    /// A base table, whose columns have the affinity of their declarations.
    pub(super) is_table: bool,
    /// The file keeps text in UTF-8: bytes go in and come out as they are.
    pub(super) utf8: bool,
    /// The table's rows lie in the order of a collation that only the application has.
    pub(super) ordered_by: Option<String>,
    /// A constraint of the table says `ON CONFLICT`: left alone, a write may delete other rows, or be passed over.
    pub(super) resolves_conflicts: bool,
}

impl TableShape {
    /// Fails where the table is no longer what was planned. Called in the transaction that reads or writes.
    pub(super) fn read(
        connection: &Connection,
        access: &TableAccess,
        during: &str,
    ) -> Result<Self, EngineError> {
        let failed = |error: Error| database_error(during, &error);
        let name = &access.table.name;
        let Some(kind) = kind(connection, name).map_err(failed)? else {
            return Err(changed(during, "the table is gone".to_owned()));
        };
        if !kind.is_table {
            allow_literals_of_view(connection, name).map_err(failed)?;
        }
        check_columns(connection, access, during)?;
        let encoding: String =
            connection.query_row("PRAGMA encoding", [], |row| row.get(0)).map_err(failed)?;
        let resolves_conflicts = says_on_conflict(connection, name).map_err(failed)?;
        Ok(Self {
            resolves_conflicts,
            rowid: rowid(connection, name).map_err(failed)?,
            is_table: kind.is_table,
            utf8: encoding == "UTF-8",
            ordered_by: if kind.without_rowid {
                unknown_collations(connection, name, true).map_err(failed)?.into_iter().next()
            } else {
                None
            },
        })
    }
}

struct Kind {
    is_table: bool,
    without_rowid: bool,
}

fn kind(connection: &Connection, table: &str) -> Result<Option<Kind>, Error> {
    let sql = "SELECT type, wr FROM pragma_table_list(?1) WHERE schema = 'main' AND name = ?1";
    let kind = |row: &rusqlite::Row<'_>| {
        Ok(Kind { is_table: row.get::<_, String>(0)? == "table", without_rowid: row.get(1)? })
    };
    connection.query_row(sql, [table], kind).optional()
}

/// A view may hold texts in double quotes, which it means. All names of our own statements are qualified.
pub(super) fn allow_literals_of_view(connection: &Connection, view: &str) -> Result<(), Error> {
    let sql = format!("SELECT 1 FROM {}", quote(view));
    if connection.prepare(&sql).is_err() {
        literal_names(connection, true)?;
        if connection.prepare(&sql).is_err() {
            literal_names(connection, false)?;
        }
    }
    Ok(())
}

/// The text that reads the rowid of a row of this table. A column of the same name would be read instead of it.
pub(super) fn rowid(connection: &Connection, table: &str) -> Result<Option<String>, Error> {
    if !kind(connection, table)?.is_some_and(|kind| kind.is_table && !kind.without_rowid) {
        return Ok(None);
    }
    let mut statement = connection.prepare("SELECT name FROM pragma_table_xinfo(?1)")?;
    let columns: Vec<String> = statement.query_map([table], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let taken = |name: &&str| columns.iter().any(|column| column.eq_ignore_ascii_case(name));
    match ROWID_NAMES.iter().find(|name| !taken(name)) {
        Some(free) => Ok(Some((*free).to_owned())),
        None => Ok(rowid_column(connection, table)?.map(|column| quote(&column))),
    }
}

/// The column that is the rowid: INTEGER PRIMARY KEY, but not DESC, which has an index and may hold NULL.
pub(super) fn rowid_column(connection: &Connection, table: &str) -> Result<Option<String>, Error> {
    let sql = "SELECT name FROM pragma_table_info(?1) WHERE pk = 1 AND upper(type) = 'INTEGER' \
               AND NOT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE pk > 1) \
               AND NOT EXISTS (SELECT 1 FROM pragma_index_list(?1) WHERE origin = 'pk')";
    connection.query_row(sql, [table], |row| row.get(0)).optional()
}

/// Collations of the table's indexes that this SQLite does not know; of its clustered key alone.
pub(super) fn unknown_collations(
    connection: &Connection,
    table: &str,
    of_key: bool,
) -> Result<Vec<String>, Error> {
    let sql = "SELECT DISTINCT x.coll FROM pragma_index_list(?1) l, pragma_index_xinfo(l.name) x \
               WHERE x.coll IS NOT NULL AND (l.origin = 'pk' OR NOT ?2)";
    let mut statement = connection.prepare(sql)?;
    let all = statement.query_map((table, of_key), |row| row.get::<_, String>(0))?;
    let mut unknown = all.collect::<Result<Vec<_>, _>>()?;
    // SQLite lists names that the schema mentions, too: only a comparison tells.
    unknown.retain(|name| connection.prepare(&format!("SELECT '' = '' COLLATE {}", quote(name))).is_err());
    Ok(unknown)
}

/// Another declaration would be another affinity, and another type on the other side.
fn check_columns(connection: &Connection, access: &TableAccess, during: &str) -> Result<(), EngineError> {
    let failed = |error: Error| database_error(during, &error);
    let mut statement =
        connection.prepare("SELECT name, type, hidden FROM pragma_table_xinfo(?1)").map_err(failed)?;
    let live: Vec<(String, String, i64)> = statement
        .query_map([&access.table.name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .and_then(Iterator::collect)
        .map_err(failed)?;
    for column in &access.columns {
        let Some((_, declared, hidden)) = live.iter().find(|(name, ..)| *name == column.name) else {
            return Err(changed(during, format!("column {} is gone", column.name)));
        };
        if *declared != column.declared {
            let what = format!("column {} was {} and is {declared} now", column.name, column.declared);
            return Err(changed(during, what));
        }
        if (*hidden >= 2) != (column.filled == Filled::Generated) {
            return Err(changed(during, format!("column {} is generated now, or no longer", column.name)));
        }
    }
    Ok(())
}

/// Whether the words stand in the table's definition. A comment or a name that holds them costs nothing but the default.
fn says_on_conflict(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
    let definition: Option<String> =
        connection.query_row(sql, [table], |row| row.get(0)).optional()?.flatten();
    let words = definition.unwrap_or_default().to_ascii_lowercase();
    let words: Vec<&str> = words.split_ascii_whitespace().collect();
    Ok(words.windows(2).any(|pair| pair[0].ends_with("on") && pair[1].starts_with("conflict")))
}
