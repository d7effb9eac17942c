//! What changes when a table is dropped and made again, truncated or rewritten, and else does not.
//!
//! InnoDB gives a table a new number then, and each of its partitions one. Only logins with PROCESS may read it; for others
//! there is the second in which the table was made, which a TRUNCATE leaves as it was.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use sqlx::mysql::MySqlConnection;

use super::Facts;
use super::catalogue::{of_table, texts};
use crate::engine::origin::MySqlOrigin;
use crate::model::value::hex;

type Rows = [Vec<Option<String>>];

/// `created`: when, as the catalogue tells it; `definition`: the catalogue's rows of the columns and the keys.
pub(super) async fn identity(
    connection: &mut MySqlConnection,
    facts: &Facts,
    schema: &str,
    name: &str,
    created: &str,
    definition: &[&Rows],
) -> String {
    let numbers = numbers(connection, facts, schema, name).await.unwrap_or_default();
    let mut hasher = Sha256::new();
    for cell in definition.iter().copied().flatten().flatten() {
        let cell = cell.as_deref().map_or(&b"\xff"[..], str::as_bytes);
        hasher.update((cell.len() as u64).to_le_bytes());
        hasher.update(cell);
    }
    let hash = hex(hasher.finalize().as_slice());
    format!("{created} {} {hash}", numbers.join(","))
}

/// What tells the table from a copy of it. MariaDB has an id of the server since 10.6.16 and 10.11.6.
pub(super) async fn origin(
    connection: &mut MySqlConnection,
    facts: &Facts,
    schema: &str,
    name: &str,
) -> Result<MySqlOrigin, sqlx::Error> {
    let sql = "SHOW GLOBAL VARIABLES WHERE variable_name IN ('server_uuid', 'server_uid')";
    let server = texts(connection, sql).await?.into_iter().next();
    let server = server.and_then(|row| row.into_iter().nth(1).flatten()).filter(|id| !id.is_empty());
    let sql =
        format!("SELECT create_time FROM information_schema.tables WHERE {}", of_table(facts, schema, name));
    let created = texts(connection, &sql).await?.into_iter().next();
    Ok(MySqlOrigin {
        server,
        database: facts.database.clone(),
        numbers: numbers(connection, facts, schema, name).await.unwrap_or_default(),
        created: created.and_then(|row| row.into_iter().next().flatten()),
    })
}

/// Of the table or of its partitions; `None` where this login may not see them.
async fn numbers(
    connection: &mut MySqlConnection,
    facts: &Facts,
    schema: &str,
    name: &str,
) -> Option<Vec<String>> {
    let tables =
        if facts.mariadb || facts.version.starts_with("5.") { "innodb_sys_tables" } else { "innodb_tables" };
    let file = format!("{}/{}", file_name(facts, schema)?, file_name(facts, name)?);
    // A partition is called `database/table#p#partition`.
    let sql = format!(
        "SELECT table_id FROM information_schema.{tables} \
         WHERE CAST(SUBSTRING_INDEX(REPLACE(name, '#P#', '#p#'), '#p#', 1) AS BINARY) = X'{}' ORDER BY table_id",
        hex(file.as_bytes())
    );
    let rows = texts(connection, &sql).await.ok()?;
    Some(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

/// A name as InnoDB keeps it; `None` for letters beyond ASCII, of which some have codes of their own.
fn file_name(facts: &Facts, name: &str) -> Option<String> {
    let mut file = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            'A'..='Z' if !facts.case_sensitive => file.push(c.to_ascii_lowercase()),
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => file.push(c),
            c if c.is_ascii() => write!(file, "@{:04x}", u32::from(c)).ok()?,
            _ => return None,
        }
    }
    Some(file)
}
