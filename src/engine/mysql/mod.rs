//! MySQL and MariaDB: one consistent snapshot, the binary protocol straight into canonical bytes, strict writes.
//!
//! One reader a table: InnoDB has no snapshot that two connections can share, and a right answer comes before a
//! parallel one. The reader takes the clustered order by itself.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions, MySqlRow};
use sqlx::{ConnectOptions, Connection, Executor, Row};

use super::{Engine, EngineError, ErrorKind, Snapshot};
use crate::model::{
    Change, ChangeOutcome, EngineKind, Key, KeyedRow, Rounding, ServerInfo, TableAccess, TableName,
    TableSchema,
};

mod apply;
mod describe;
mod errors;
mod fetch;
mod params;
mod scan;
mod statement;
mod types;

use errors::engine_error;

/// Readers, a fetch beside them and a writer, for a few tables at once.
const CONNECTIONS_MAX: u32 = 16;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Strict, so that nothing is cut or changed to fit; zeros and impossible dates stay what they are in the source.
const SESSION: &str = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION', \
     time_zone = '+00:00', transaction_isolation = 'REPEATABLE-READ'";
/// The variable's name on MariaDB before 11.1.
const SESSION_OLD: &str = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION', \
     time_zone = '+00:00', tx_isolation = 'REPEATABLE-READ'";

#[derive(Debug)]
pub struct MySqlEngine {
    pool: MySqlPool,
    server: ServerInfo,
    database: String,
}

impl MySqlEngine {
    /// Connects to `mysql://user:password@host:port/database` (or `mariadb://`).
    pub async fn connect(url: &str) -> Result<Self, EngineError> {
        let url =
            url.strip_prefix("mariadb://").map_or_else(|| url.to_owned(), |rest| format!("mysql://{rest}"));
        let options = MySqlConnectOptions::from_str(&url)
            .map_err(|_| {
                EngineError::new(ErrorKind::Usage, "read the database URL", "it is no mysql:// URL")
                    .with_hint(
                        "write mysql://USER:PASSWORD@HOST:PORT/DATABASE; encode special characters as %XX",
                    )
            })?
            .charset("utf8mb4")
            .timezone(Some(String::from("+00:00")))
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .disable_statement_logging();
        let during = format!("connect to {}", errors::shown_url(&url));
        let Some(database) = options.get_database().map(str::to_owned).filter(|name| !name.is_empty()) else {
            return Err(EngineError::new(ErrorKind::Usage, during, "the URL names no database")
                .with_hint("write mysql://USER:PASSWORD@HOST:PORT/DATABASE"));
        };
        // The pool would try again and again; a wrong address or password is told at once.
        let first = tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await;
        match first {
            Ok(Ok(connection)) => drop(connection.close().await),
            Ok(Err(error)) => return Err(engine_error(&during, &error)),
            Err(_) => return Err(engine_error(&during, &sqlx::Error::PoolTimedOut)),
        }
        let pool = MySqlPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(CONNECT_TIMEOUT)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    if connection.execute(SESSION).await.is_err() {
                        connection.execute(SESSION_OLD).await?;
                    }
                    Ok(())
                })
            })
            .connect_with(options)
            .await
            .map_err(|error| engine_error(&during, &error))?;
        let facts = sqlx::query("SELECT VERSION(), @@version_comment, @@sql_mode")
            .fetch_one(&pool)
            .await
            .map_err(|error| engine_error(&during, &error))?;
        let version = text(&facts, 0).unwrap_or_default();
        let maria = version.to_lowercase().contains("mariadb");
        let number = version.split(['-', '+']).next().unwrap_or_default();
        let server = ServerInfo {
            engine: EngineKind::MySql,
            product: format!("{} {number}", if maria { "MariaDB" } else { "MySQL" }),
            rounding: if maria { Rounding::Truncate } else { Rounding::HalfUp },
        };
        Ok(Self { pool, server, database })
    }

    fn is_mariadb(&self) -> bool {
        self.server.rounding == Rounding::Truncate
    }
}

/// A column as text, whatever type the server says it has (`information_schema` differs between versions).
fn text(row: &MySqlRow, at: usize) -> Option<String> {
    row.try_get_unchecked::<Option<Vec<u8>>, _>(at)
        .ok()
        .flatten()
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[async_trait]
impl Engine for MySqlEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::MySql
    }

    async fn server(&self) -> Result<ServerInfo, EngineError> {
        Ok(self.server.clone())
    }

    async fn tables(&self, schema: Option<&str>) -> Result<Vec<TableName>, EngineError> {
        let rows = sqlx::query(
            "SELECT table_schema, table_name FROM information_schema.tables \
             WHERE table_schema = ? AND table_type = 'BASE TABLE' ORDER BY table_name",
        )
        .bind(schema.unwrap_or(&self.database))
        .fetch_all(&self.pool)
        .await
        .map_err(|error| engine_error("list the tables", &error))?;
        Ok(rows
            .iter()
            .map(|row| TableName { schema: text(row, 0), name: text(row, 1).unwrap_or_default() })
            .collect())
    }

    async fn describe(&self, table: &TableName) -> Result<TableSchema, EngineError> {
        describe::describe(self, table).await
    }

    async fn snapshot(
        &self,
        access: Arc<TableAccess>,
        _parallelism: usize,
    ) -> Result<Box<dyn Snapshot>, EngineError> {
        scan::snapshot(self, access).await
    }

    async fn fetch(&self, access: &Arc<TableAccess>, keys: &[Key]) -> Result<Vec<KeyedRow>, EngineError> {
        fetch::fetch(self, access, keys).await
    }

    async fn apply(
        &self,
        access: &Arc<TableAccess>,
        changes: &[Change],
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        apply::apply(self, access, changes, apply::Manner::InPlace).await
    }

    async fn replace(
        &self,
        access: &Arc<TableAccess>,
        changes: &[Change],
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        apply::apply(self, access, changes, apply::Manner::Replace).await
    }

    fn statement(&self, access: &TableAccess, change: &Change) -> Result<String, EngineError> {
        statement::statement(access, change)
    }

    async fn check_writable(&self, access: &TableAccess) -> Result<(), EngineError> {
        describe::check_writable(self, access).await
    }
}
