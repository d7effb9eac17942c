//! Whether a table still is the one that it was: SQLite numbers no tables, and one that is dropped and made again may get the same
//! root page and the same place in the schema.
//!
//! What it does have is a counter of the whole schema's changes. A counter that went on while the schema is the same, word for word,
//! tells that something was taken away and put back. VACUUM counts one, and no less than two does a table that is made again.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, Error};

/// Tables as they were last seen by this engine.
#[derive(Debug, Clone, Default)]
pub(super) struct Identities(Arc<Mutex<HashMap<String, Seen>>>);

#[derive(Debug)]
struct Seen {
    counter: i64,
    /// Of all that the schema says.
    schema: u64,
    /// Times that the table may have been made again unseen.
    again: u64,
}

impl Identities {
    /// Another text than before: the table was made again, or altered, or VACUUM or another file moved it. Writes and
    /// ANALYZE leave it as it is. `file` tells one file from another of the same name.
    pub(super) fn of(&self, connection: &Connection, table: &str, file: &str) -> Result<String, Error> {
        let counter = connection.query_row("PRAGMA schema_version", [], |row| row.get(0))?;
        let schema = hash_of(&listed(connection)?);
        let place: String = connection.query_row(
            "SELECT group_concat(rowid || ' ' || rootpage || ' ' || sql, char(10)) FROM sqlite_schema \
             WHERE type IN ('table', 'view') AND name = ?1",
            [table],
            |row| Ok(row.get::<_, Option<String>>(0)?.unwrap_or_default()),
        )?;
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Seen { counter, schema, again: 0 };
        let again = match seen.get(table) {
            Some(before) => {
                before.again + u64::from(counter.abs_diff(before.counter) > 1 && now.schema == before.schema)
            }
            None => 0,
        };
        seen.insert(table.to_owned(), Seen { again, ..now });
        Ok(format!("{file} {again} {:016x}", hash_of(&place)))
    }
}

/// Of texts that may hold default values.
fn hash_of(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

fn listed(connection: &Connection) -> Result<String, Error> {
    let sql = "SELECT group_concat(entry, char(10)) FROM (SELECT rowid || ' ' || coalesce(rootpage, 0) || ' ' || name \
               || ' ' || coalesce(sql, '') AS entry FROM sqlite_schema ORDER BY rowid)";
    connection.query_row(sql, [], |row| Ok(row.get::<_, Option<String>>(0)?.unwrap_or_default()))
}

/// What tells one file from another that took its name.
pub(super) fn file_of(path: &std::path::Path) -> String {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        if let Ok(found) = std::fs::metadata(path) {
            return format!("{}:{}", found.dev(), found.ino());
        }
    }
    let _ = path;
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_made_again_is_another_and_one_that_is_written_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let connection = Connection::open(folder.path().join("a.db")).unwrap();
        let make = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT UNIQUE)";
        connection.execute_batch(make).unwrap();
        let identities = Identities::default();
        let mut last = identities.of(&connection, "t", "f").unwrap();
        let mut after = |sql: &str| {
            connection.execute_batch(sql).unwrap();
            let now = identities.of(&connection, "t", "f").unwrap();
            std::mem::replace(&mut last, now.clone()) != now
        };
        for (sql, another) in [
            ("INSERT INTO t VALUES (1, 'a'); UPDATE t SET v = 'b'; DELETE FROM t", false),
            ("INSERT INTO t VALUES (1, 'a')", false),
            ("ANALYZE", false),
            ("ANALYZE", false),
            ("VACUUM", false),
            ("CREATE TABLE other (a); CREATE INDEX i ON t (v)", false),
            ("DROP TABLE other", false),
            (&format!("DROP TABLE t; {make}"), true),
            (&format!("BEGIN; DROP TABLE t; {make}; INSERT INTO t VALUES (1, 'a'); COMMIT"), true),
            ("INSERT INTO t VALUES (2, 'c')", false),
            ("ALTER TABLE t ADD COLUMN w", true),
            ("ALTER TABLE t RENAME TO u; ALTER TABLE u RENAME TO t", true),
        ] {
            assert_eq!(after(sql), another, "{sql}");
        }
        assert_ne!(identities.of(&connection, "t", "g").unwrap(), last, "another file");
    }
}
