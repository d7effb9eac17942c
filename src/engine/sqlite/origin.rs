//! Which file this is, and what its schema counts.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, Error};
use sha2::{Digest as _, Sha256};

use crate::engine::origin::{OWN, SqliteOrigin};
use crate::model::value::hex;

/// More objects of a schema are not kept.
const OBJECTS_MAX: usize = 2_000;
/// Bytes of a digest that are kept.
const DIGEST_KEPT: usize = 8;

pub(super) fn origin(connection: &Connection, table: &str, path: &Path) -> Result<SqliteOrigin, Error> {
    let schema_version = connection.query_row("PRAGMA schema_version", [], |row| row.get(0))?;
    let found = std::fs::metadata(path).ok();
    let made = found.as_ref().and_then(|found| found.created().ok());
    let made = made.and_then(|made| made.duration_since(std::time::UNIX_EPOCH).ok());
    let (device, inode) = found.as_ref().map_or((None, None), numbers);
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    Ok(SqliteOrigin {
        path: path.to_string_lossy().into_owned(),
        device,
        inode,
        made: made.map(|made| made.as_nanos().to_string()),
        schema_version,
        objects: objects(connection, table)?,
    })
}

#[cfg(unix)]
#[allow(clippy::unnecessary_wraps, reason = "elsewhere there are none")]
fn numbers(found: &std::fs::Metadata) -> (Option<u64>, Option<u64>) {
    use std::os::unix::fs::MetadataExt;
    (Some(found.dev()), Some(found.ino()))
}

#[cfg(not(unix))]
fn numbers(_: &std::fs::Metadata) -> (Option<u64>, Option<u64>) {
    (None, None)
}

/// All that a statement of its own made, but for the table itself; of what a dropped table takes along nothing but what
/// belongs to this one.
fn objects(connection: &Connection, table: &str) -> Result<BTreeMap<String, String>, Error> {
    let sql = "SELECT type, name, sql, tbl_name = ?1 COLLATE NOCASE FROM sqlite_schema WHERE sql IS NOT NULL \
               AND NOT (type IN ('table', 'view') AND name = ?1 COLLATE NOCASE)";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([table])?;
    let mut objects = BTreeMap::new();
    while let Some(row) = rows.next()? {
        if objects.len() >= OBJECTS_MAX {
            return Ok(BTreeMap::new());
        }
        let (kind, name): (String, String) = (row.get(0)?, row.get(1)?);
        let own = if row.get(3)? { OWN } else { "" };
        let digest = Sha256::digest(row.get::<_, String>(2)?.as_bytes());
        let digest = digest.as_slice().get(..DIGEST_KEPT).unwrap_or_default();
        objects.insert(format!("{own}{kind} {name}"), hex(digest));
    }
    Ok(objects)
}
