//! Asking information_schema, and comparing names as the server compares them.

use sqlx::AssertSqlSafe;
use sqlx::Row as _;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::session::bounded;
use super::{Facts, wire};
use crate::engine::inflow::IDLE_LIMIT;
use crate::model::value::hex;

/// The rows of a catalogue query, every value as text.
pub(super) async fn texts(
    connection: &mut MySqlConnection,
    sql: &str,
) -> Result<Vec<Vec<Option<String>>>, sqlx::Error> {
    // The text protocol renders every type.
    let asking = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(connection);
    let rows = bounded(IDLE_LIMIT, asking).await?;
    let value =
        |row: &MySqlRow, at| wire::raw(row, at).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    Ok(rows.iter().map(|row| (0..row.len()).map(|at| value(row, at)).collect()).collect())
}

/// The condition that these columns of the catalogue hold these names of databases and tables.
///
/// The catalogue's collations hold `shop` and `Shop`, `cafe` and `café`, `a` and `a ` to be one name, whether the server
/// does or not: names are compared by bytes, in small letters where the server does not tell them apart by case. The plain
/// comparison in front lets the server open the one table instead of all of them, for which the name must be a literal.
pub(super) fn named(facts: &Facts, names: &[(&str, &str)]) -> String {
    let one = |(column, name): &(&str, &str)| {
        // No name has such letters, and the catalogue cannot compare them.
        if name.chars().any(|c| u32::from(c) > 0xffff) {
            return "1 = 0".to_owned();
        }
        let name = hex(name.as_bytes());
        let exact = if facts.case_sensitive {
            format!("CAST({column} AS BINARY) = X'{name}'")
        } else {
            format!("CAST(LOWER({column}) AS BINARY) = CAST(LOWER(_utf8mb4 X'{name}') AS BINARY)")
        };
        format!("{column} = _utf8mb4 X'{name}' AND {exact}")
    };
    names.iter().map(one).collect::<Vec<_>>().join(" AND ")
}

/// As `named`, of a table.
pub(super) fn of_table(facts: &Facts, schema: &str, name: &str) -> String {
    named(facts, &[("table_schema", schema), ("table_name", name)])
}

/// The condition that a column of the catalogue holds the name of a column: no server tells those apart by case.
pub(super) fn column_named(column: &str, name: &str) -> String {
    let name = hex(name.as_bytes());
    format!("CAST(LOWER({column}) AS BINARY) = CAST(LOWER(_utf8mb4 X'{name}') AS BINARY)")
}
