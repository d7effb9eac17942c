//! MySQL and MariaDB: one protocol, two servers whose differences are looked up where they matter.

mod apply;
mod bind;
mod catalogue;
mod column;
mod describe;
mod digits;
mod errors;
mod fetch;
mod grants;
mod identity;
mod keep;
mod keys;
mod lane;
mod lanes;
mod locate;
pub(in crate::engine) mod measure;
mod pressure;
mod read_back;
mod scan;
mod session;
mod stable;
mod statement;
mod trigger_settings;
mod types;
mod visible;
mod wire;
mod writer;

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::MySql;
use sqlx::mysql::MySqlPool;
use sqlx::pool::PoolConnection;

use self::catalogue::texts;
use self::session::Target;
use super::{Engine, EngineError, ErrorKind, LockWait, Lookup, Manners, Origin, Pressure, Snapshot};
use crate::model::{
    Allow, Answer, Change, ChangeOutcome, EngineKind, Key, PermittedChanges, PermittedExchange, Question,
    Rounding, ServerInfo, TableAccess, TableName, TableSchema,
};

/// A MySQL or MariaDB server, reached with one URL.
#[derive(Debug)]
pub struct MySqlEngine {
    target: Target,
    manners: Manners,
    pool: MySqlPool,
    facts: Facts,
    /// Of tables for which statements were written.
    set_on_update: tokio::sync::Mutex<std::collections::HashMap<TableName, Vec<String>>>,
}

/// What the server is and how it is set, asked once.
#[derive(Debug, Clone)]
struct Facts {
    version: String,
    mariadb: bool,
    global_sql_mode: String,
    database: Option<String>,
    /// Table names are told apart by case.
    case_sensitive: bool,
    /// The largest statement, in bytes.
    packet_max: usize,
    /// Statements are logged as text, which forbids READ COMMITTED.
    logs_statements: bool,
    /// MariaDB with a binary log of all changes: two snapshots at one position of it are the same state.
    positions: bool,
}

impl MySqlEngine {
    /// Connects to `mysql://user:password@host:port/database`; `mariadb://` means the same. Options: ssl-mode, ssl-ca,
    /// ssl-cert, ssl-key, socket, connect-timeout.
    pub async fn connect(url: &str) -> Result<Self, EngineError> {
        Self::connect_with(url, &Manners::default()).await
    }

    pub async fn connect_with(url: &str, manners: &Manners) -> Result<Self, EngineError> {
        let target = Target::parse(url)?.with(manners);
        let pool = target.pool().await?;
        let facts = Facts::ask(&pool, &target.shown).await?;
        Ok(Self { target, manners: *manners, pool, facts, set_on_update: tokio::sync::Mutex::default() })
    }

    /// The columns that the server sets in an update that does not; asked once a table.
    async fn set_on_update(&self, access: &TableAccess) -> Result<Vec<String>, EngineError> {
        let mut known = self.set_on_update.lock().await;
        if let Some(columns) = known.get(&access.table) {
            return Ok(columns.clone());
        }
        let during = format!("write SQL for {}", access.table);
        let mut connection = self.connection(&during).await?;
        let found = apply::set_on_update(&mut connection, &self.facts, access).await;
        let found = given_back(connection, found.map_err(|error| errors::database(during, &error)))?;
        known.insert(access.table.clone(), found.clone());
        Ok(found)
    }

    async fn connection(&self, during: &str) -> Result<PoolConnection<MySql>, EngineError> {
        // A connection that is used again answers first that it lives.
        let acquired = session::bounded(self.target.idle_limit, self.pool.acquire()).await;
        acquired.map_err(|error| match errors::server_error(&error) {
            Some(_) => errors::connecting(&self.target.shown, &error),
            None => errors::database(during, &error),
        })
    }
}

/// A connection that broke, or went silent, is not given back: the pool would wait for its answer.
fn given_back<T>(connection: PoolConnection<MySql>, done: Result<T, EngineError>) -> Result<T, EngineError> {
    if done.as_ref().is_err_and(|error| error.kind == ErrorKind::Lost) {
        drop(connection.detach());
    }
    done
}

impl Facts {
    async fn ask(pool: &MySqlPool, shown: &str) -> Result<Self, EngineError> {
        let during = format!("ask {shown} for its version");
        let lost = |error: sqlx::Error| errors::database(during.as_str(), &error);
        let mut connection = pool.acquire().await.map_err(lost)?;
        let row = texts(
            &mut connection,
            "SELECT VERSION(), @@global.sql_mode, DATABASE(), @@lower_case_table_names, @@max_allowed_packet, \
             @@global.log_bin, @@session.binlog_format",
        )
        .await
        .map_err(lost)?
        .into_iter()
        .next()
        .unwrap_or_default();
        let text = |at: usize| row.get(at).cloned().flatten();
        let version = text(0).unwrap_or_default();
        let mariadb = version.contains("MariaDB");
        let logs = text(5).as_deref() == Some("1");
        let positions = mariadb && logs && {
            let updates = texts(&mut connection, "SELECT @@global.log_slave_updates, @@session.sql_log_bin")
                .await
                .map_err(lost)?;
            updates.first().is_some_and(|row| row.iter().all(|value| value.as_deref() == Some("1")))
        };
        Ok(Self {
            mariadb,
            global_sql_mode: text(1).unwrap_or_default(),
            database: text(2),
            case_sensitive: text(3).as_deref() == Some("0"),
            packet_max: text(4).and_then(|value| value.parse().ok()).unwrap_or(1 << 20),
            logs_statements: logs && text(6).as_deref() == Some("STATEMENT"),
            positions,
            version,
        })
    }

    fn product(&self) -> String {
        let number = self.version.split('-').next().unwrap_or_default();
        // Some MariaDB servers say "5.5.5-10.11.6-MariaDB".
        let number = if self.mariadb && number == "5.5.5" {
            self.version.split('-').nth(1).unwrap_or(number)
        } else {
            number
        };
        format!("{} {number}", if self.mariadb { "MariaDB" } else { "MySQL" })
    }

    fn rounding(&self) -> Rounding {
        let mode = |name: &str| self.global_sql_mode.split(',').any(|one| one == name);
        let rounds =
            if self.mariadb { mode("TIME_ROUND_FRACTIONAL") } else { !mode("TIME_TRUNCATE_FRACTIONAL") };
        if rounds { Rounding::HalfUp } else { Rounding::Truncate }
    }
}

#[async_trait]
impl Engine for MySqlEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::MySql
    }

    async fn server(&self) -> Result<ServerInfo, EngineError> {
        Ok(ServerInfo {
            engine: EngineKind::MySql,
            product: self.facts.product(),
            rounding: self.facts.rounding(),
        })
    }

    async fn tables(&self, schema: Option<&str>) -> Result<Vec<TableName>, EngineError> {
        let during = "list the tables";
        let mut connection = self.connection(during).await?;
        let schema = self.schema_or_default(schema)?;
        let found = describe::tables(&mut connection, &self.facts, schema).await;
        given_back(connection, found.map_err(|error| errors::database(during, &error)))
    }

    async fn left_out(&self, schema: Option<&str>) -> Result<Vec<String>, EngineError> {
        let during = "list the tables";
        let mut connection = self.connection(during).await?;
        let schema = self.schema_or_default(schema)?;
        let found = describe::left_out(&mut connection, &self.facts, schema).await;
        given_back(connection, found.map_err(|error| errors::database(during, &error)))
    }

    async fn describe(&self, table: &TableName) -> Result<TableSchema, EngineError> {
        let mut connection = self.connection(&format!("describe {table}")).await?;
        let schema = self.schema_or_default(table.schema.as_deref())?;
        let found = describe::describe(&mut connection, &self.facts, schema, &table.name).await;
        given_back(connection, found)
    }

    async fn origin(&self, table: &TableName) -> Result<Origin, EngineError> {
        let during = format!("look at which table {table} is");
        let mut connection = self.connection(&during).await?;
        let schema = self.schema_or_default(table.schema.as_deref())?;
        let found = identity::origin(&mut connection, &self.facts, schema, &table.name).await;
        given_back(connection, found.map(Origin::MySql).map_err(|error| errors::database(during, &error)))
    }

    async fn snapshot(
        &self,
        access: Arc<TableAccess>,
        parallelism: usize,
    ) -> Result<Box<dyn Snapshot>, EngineError> {
        let snapshot = scan::MySqlSnapshot::open(&self.target, &self.facts, access, parallelism).await?;
        Ok(Box::new(snapshot))
    }

    async fn lookup(&self, access: &Arc<TableAccess>, keys: &[Key]) -> Result<Lookup, EngineError> {
        if keys.is_empty() {
            return Ok(Lookup::default());
        }
        let mut connection = self.connection(&format!("read {}", access.table)).await?;
        let found = fetch::lookup(&mut connection, access, keys, self.target.idle_limit).await;
        if access.filter.is_some() {
            // It ran SQL of the caller's own, which may have set variables and taken locks: the next caller may be another.
            drop(connection.detach());
            return found;
        }
        given_back(connection, found)
    }

    async fn apply_within(
        &self,
        access: &Arc<TableAccess>,
        changes: &PermittedChanges,
        wait: LockWait,
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        let changes = changes.as_slice();
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.connection(&format!("write {}", access.table)).await?;
        let waits = session::lock_waits(&self.facts, self.manners.lock_wait(wait));
        let done = apply::apply(&mut connection, &self.facts, access, changes, &waits).await;
        given_back(connection, done)
    }

    async fn replace(
        &self,
        access: &Arc<TableAccess>,
        changes: &PermittedExchange,
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        let changes = changes.as_slice();
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.connection(&format!("write {}", access.table)).await?;
        let waits = session::lock_waits(&self.facts, self.manners.lock_wait(LockWait::Full));
        let done = apply::replace(&mut connection, &self.facts, access, changes, &waits).await;
        given_back(connection, done)
    }

    async fn statement(&self, access: &TableAccess, change: &Change) -> Result<String, EngineError> {
        let kept = self.set_on_update(access).await?;
        statement::spelled(access, change, &kept)
    }

    async fn measure(&self, question: &Question) -> Result<Answer, EngineError> {
        self.ask(question).await
    }

    async fn pressure(&self, lag: bool, running: bool) -> Result<Pressure, EngineError> {
        let mut connection = self.connection("ask the server how busy it is").await?;
        let found = pressure::ask(&mut connection, &self.facts, lag, running).await;
        given_back(connection, found)
    }

    async fn check_writable(&self, access: &TableAccess, allow: Allow) -> Result<(), EngineError> {
        let mut connection = self.connection(&format!("check {}", access.table)).await?;
        let schema = self.schema_or_default(access.table.schema.as_deref())?;
        let found = grants::check_writable(&mut connection, &self.facts, schema, access, allow).await;
        given_back(connection, found)
    }
}

impl MySqlEngine {
    fn schema_or_default<'a>(&'a self, schema: Option<&'a str>) -> Result<&'a str, EngineError> {
        schema.or(self.facts.database.as_deref()).ok_or_else(|| {
            EngineError::new(ErrorKind::Usage, "find the table's database", "the URL names no database")
                .with_hint("end the URL with /DATABASE, or write the table as DATABASE.TABLE")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(version: &str, mode: &str) -> Facts {
        Facts {
            version: version.to_owned(),
            mariadb: version.contains("MariaDB"),
            global_sql_mode: mode.to_owned(),
            database: None,
            case_sensitive: true,
            packet_max: 1 << 20,
            logs_statements: false,
            positions: false,
        }
    }

    #[test]
    fn products_and_their_rounding() {
        for (version, mode, product, rounding) in [
            ("10.11.6-MariaDB-0+deb12u1", "STRICT_TRANS_TABLES", "MariaDB 10.11.6", Rounding::Truncate),
            ("5.5.5-10.5.1-MariaDB", "TIME_ROUND_FRACTIONAL", "MariaDB 10.5.1", Rounding::HalfUp),
            ("8.0.36", "STRICT_TRANS_TABLES", "MySQL 8.0.36", Rounding::HalfUp),
            ("8.4.0-commercial", "TIME_TRUNCATE_FRACTIONAL", "MySQL 8.4.0", Rounding::Truncate),
        ] {
            let facts = facts(version, mode);
            assert_eq!((facts.product().as_str(), facts.rounding()), (product, rounding));
        }
    }
}
