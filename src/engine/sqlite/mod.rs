//! SQLite: a file, read on blocking threads by rusqlite, straight from its values into canonical bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags};

use super::{Engine, EngineError, ErrorKind, Lookup, Pressure, Snapshot};
use crate::model::{
    Answer, Change, ChangeOutcome, EngineKind, Key, Question, Rounding, ServerInfo, TableAccess, TableName,
    TableSchema,
};

mod apply;
mod describe;
mod errors;
mod gather;
pub(in crate::engine) mod measure;
mod params;
mod rows;
mod scan;
mod split;
mod types;

use errors::engine_error;

/// Another process may hold the file's lock for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct SqliteEngine {
    path: PathBuf,
}

impl SqliteEngine {
    /// Opens `sqlite://path` (or `sqlite:path`); the file must exist.
    pub async fn connect(url: &str) -> Result<Self, EngineError> {
        let rest = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")).unwrap_or(url);
        let path = PathBuf::from(percent_decoded(rest.split('?').next().unwrap_or_default()));
        let engine = Self { path };
        engine
            .blocking("open", |engine| {
                let connection = engine.open(false)?;
                connection
                    .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
                    .map_err(|error| engine_error(&engine.during("open"), &error))?;
                Ok(())
            })
            .await?;
        Ok(engine)
    }

    fn during(&self, what: &str) -> String {
        format!("{what} {}", self.path.display())
    }

    /// A connection of its own for one piece of work.
    fn open(&self, write: bool) -> Result<Connection, EngineError> {
        let during = self.during("open");
        if !Path::new(&self.path).is_file() {
            return Err(EngineError::new(ErrorKind::Unreachable, during, "there is no such file")
                .with_hint("check the path; trueup never creates a database"));
        }
        let mode = if write { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
        let connection = Connection::open_with_flags(&self.path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(|error| engine_error(&during, &error))?;
        let ready = || {
            connection.busy_timeout(BUSY_TIMEOUT)?;
            measure::add_functions(&connection)?;
            connection.pragma_update(None, "foreign_keys", true)
        };
        ready().map_err(|error| engine_error(&during, &error))?;
        Ok(connection)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(&Self) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let engine = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&engine)).await;
        done.unwrap_or_else(|_| {
            Err(EngineError::new(ErrorKind::Database, self.during(what), "the worker stopped"))
        })
    }
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let code = text
            .get(at + 1..at + 3)
            .filter(|_| *byte == b'%')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(code.unwrap_or(*byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[async_trait]
impl Engine for SqliteEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Sqlite
    }

    async fn server(&self) -> Result<ServerInfo, EngineError> {
        Ok(ServerInfo {
            engine: EngineKind::Sqlite,
            product: format!("SQLite {}", rusqlite::version()),
            // Times are text here and keep their digits.
            rounding: Rounding::HalfAwayFromZero,
        })
    }

    async fn tables(&self, schema: Option<&str>) -> Result<Vec<TableName>, EngineError> {
        if schema.is_some_and(|schema| schema != "main") {
            return Err(EngineError::new(
                ErrorKind::Usage,
                self.during("list the tables of"),
                "SQLite has no schemas",
            )
            .with_hint("give --schema SOURCE= or =TARGET for the other side only"));
        }
        self.blocking("read", |engine| {
            let connection = engine.open(false)?;
            describe::tables(&connection)
                .map_err(|error| engine_error(&engine.during("list the tables of"), &error))
        })
        .await
    }

    async fn describe(&self, table: &TableName) -> Result<TableSchema, EngineError> {
        let table = table.clone();
        self.blocking("describe", move |engine| describe::describe(&engine.open(false)?, &table)).await
    }

    async fn snapshot(
        &self,
        access: Arc<TableAccess>,
        parallelism: usize,
    ) -> Result<Box<dyn Snapshot>, EngineError> {
        self.blocking("read", move |engine| scan::snapshot(engine, access, parallelism)).await
    }

    async fn lookup(&self, access: &Arc<TableAccess>, keys: &[Key]) -> Result<Lookup, EngineError> {
        let (access, keys) = (access.clone(), keys.to_vec());
        self.blocking("read", move |engine| {
            let connection = engine.open(false)?;
            let rows = rows::rows_of(&connection, &access, &keys, access.filter.as_deref())?;
            Ok(Lookup::of_statement(&keys, rows, |_| false))
        })
        .await
    }

    async fn apply(
        &self,
        access: &Arc<TableAccess>,
        changes: &[Change],
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        let (access, changes) = (access.clone(), changes.to_vec());
        self.blocking("write", move |engine| apply::apply(&mut engine.open(true)?, &access, &changes)).await
    }

    async fn replace(
        &self,
        access: &Arc<TableAccess>,
        changes: &[Change],
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        let (access, changes) = (access.clone(), changes.to_vec());
        self.blocking("write", move |engine| apply::replace(&mut engine.open(true)?, &access, &changes)).await
    }

    fn statement(&self, access: &TableAccess, change: &Change) -> Result<String, EngineError> {
        params::statement(access, change)
    }

    async fn measure(&self, question: &Question) -> Result<Answer, EngineError> {
        self.ask(question).await
    }

    /// A file has no standbys and no other statements that could be counted.
    async fn pressure(&self, _lag: bool, _running: bool) -> Result<Pressure, EngineError> {
        Ok(Pressure::default())
    }

    async fn check_writable(&self, _access: &TableAccess) -> Result<(), EngineError> {
        self.blocking("write to", |engine| {
            let during = engine.during("write to");
            let connection = engine.open(true)?;
            // Takes the write lock and gives it back: nothing is written.
            connection
                .execute_batch("BEGIN IMMEDIATE; ROLLBACK")
                .map_err(|error| engine_error(&during, &error))
        })
        .await
    }
}
