//! The floor of a scan where the database's own client is no measure: every column of every row read and thrown away.
//!
//!     floor FILE TABLE            SQLite, with rusqlite
//!     floor mysql://... TABLE     MySQL and MariaDB, with sqlx

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use futures::TryStreamExt;
use rusqlite::types::ValueRef;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, Row};

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (Some(database), Some(table)) = (args.next(), args.next()) else {
        eprintln!("usage: floor FILE|URL TABLE");
        return;
    };
    let bytes = if database.starts_with("mysql:") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(mysql(&database, &table))
    } else {
        sqlite(&database, &table)
    };
    std::hint::black_box(bytes);
}

fn sqlite(file: &str, table: &str) -> usize {
    let db = rusqlite::Connection::open(file).unwrap();
    let sql = format!("SELECT * FROM \"{}\"", table.replace('"', "\"\""));
    let mut statement = db.prepare(&sql).unwrap();
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let mut bytes = 0;
    while let Some(row) = rows.next().unwrap() {
        for column in 0..columns {
            bytes += match row.get_ref(column).unwrap() {
                ValueRef::Text(text) | ValueRef::Blob(text) => text.len(),
                ValueRef::Null => 0,
                ValueRef::Integer(_) | ValueRef::Real(_) => 8,
            };
        }
    }
    bytes
}

async fn mysql(url: &str, table: &str) -> usize {
    let mut connection = MySqlConnection::connect(url).await.unwrap();
    let sql = format!("SELECT * FROM `{}`", table.replace('`', "``"));
    // Prepared, so that values come in binary form.
    let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(&mut connection);
    let mut columns = 0;
    while let Some(row) = rows.try_next().await.unwrap() {
        columns += row.len();
    }
    columns
}
