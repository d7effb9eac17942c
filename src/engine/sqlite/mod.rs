//! SQLite: a file, read on blocking threads by rusqlite, straight from its values into canonical bytes.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::Connection;

use super::{Engine, EngineError, ErrorKind, LockWait, Lookup, Origin, Pressure, Snapshot};
use crate::model::{
    Allow, Answer, Change, ChangeOutcome, EngineKind, Key, PermittedChanges, PermittedExchange, Question,
    Rounding, ServerInfo, TableAccess, TableName, TableSchema,
};

mod apply;
mod collation;
mod describe;
mod errors;
mod gather;
mod identity;
pub(in crate::engine) mod measure;
mod open;
mod origin;
mod params;
mod references;
mod rows;
mod scan;
mod shape;
mod spelling;
mod split;
mod stable;
mod stored;
mod types;
mod write;

use errors::database_error;
use identity::{Identities, file_of};
use open::Location;

#[derive(Debug, Clone)]
pub struct SqliteEngine {
    location: Location,
    identities: Identities,
}

impl SqliteEngine {
    /// Opens `sqlite://path` (or `sqlite:path`); the file must exist.
    pub async fn connect(url: &str) -> Result<Self, EngineError> {
        let engine = Self { location: Location::parse(url)?, identities: Identities::default() };
        engine.blocking("open", |engine| engine.open(false)).await?;
        Ok(engine)
    }

    fn during(&self, what: &str) -> String {
        format!("{what} {}", self.location.path.display())
    }

    /// A connection of its own for one piece of work.
    fn open(&self, write: bool) -> Result<Connection, EngineError> {
        self.location.open(write)
    }

    fn describe_now(&self, table: &TableName) -> Result<TableSchema, EngineError> {
        let connection = self.open(false)?;
        // All of one moment, so that the identity is that of what is described.
        let failed = |error| database_error(&self.during("describe a table of"), &error);
        connection.execute_batch("BEGIN").map_err(failed)?;
        let mut schema = describe::describe(&connection, table)?;
        let identity = self.identities.of(&connection, &schema.table.name, &file_of(&self.location.path));
        schema.identity = Some(identity.map_err(failed)?);
        Ok(schema)
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
                .map_err(|error| database_error(&engine.during("list the tables of"), &error))
        })
        .await
    }

    async fn left_out(&self, _: Option<&str>) -> Result<Vec<String>, EngineError> {
        self.blocking("read", |engine| {
            let connection = engine.open(false)?;
            describe::left_out(&connection)
                .map_err(|error| database_error(&engine.during("list the tables of"), &error))
        })
        .await
    }

    async fn describe(&self, table: &TableName) -> Result<TableSchema, EngineError> {
        let table = table.clone();
        self.blocking("describe", move |engine| engine.describe_now(&table)).await
    }

    async fn origin(&self, table: &TableName) -> Result<Origin, EngineError> {
        let name = table.name.clone();
        self.blocking("read", move |engine| {
            let failed = |error| database_error(&engine.during("look at the file of"), &error);
            origin::origin(&engine.open(false)?, &name, &engine.location.path)
                .map(Origin::Sqlite)
                .map_err(failed)
        })
        .await
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
        self.blocking("read", move |engine| rows::lookup(engine, &access, &keys)).await
    }

    async fn apply_within(
        &self,
        access: &Arc<TableAccess>,
        changes: &PermittedChanges,
        _: LockWait,
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        let (access, changes) = (access.clone(), changes.as_slice().to_vec());
        self.blocking("write", move |engine| apply::apply(&mut engine.open(true)?, &access, &changes)).await
    }

    async fn replace(
        &self,
        access: &Arc<TableAccess>,
        changes: &PermittedExchange,
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        let (access, changes) = (access.clone(), changes.as_slice().to_vec());
        self.blocking("write", move |engine| apply::replace(&mut engine.open(true)?, &access, &changes)).await
    }

    async fn statement(&self, access: &TableAccess, change: &Change) -> Result<String, EngineError> {
        let (access, change) = (access.clone(), change.clone());
        self.blocking("read", move |engine| rows::statement(engine, &access, &change)).await
    }

    async fn measure(&self, question: &Question) -> Result<Answer, EngineError> {
        self.ask(question).await
    }

    /// A file has no standbys and no other statements that could be counted.
    async fn pressure(&self, _lag: bool, _running: bool) -> Result<Pressure, EngineError> {
        Ok(Pressure::default())
    }

    async fn check_writable(&self, _: &TableAccess, _: Allow) -> Result<(), EngineError> {
        self.blocking("write to", |engine| {
            let during = engine.during("write to");
            let connection = engine.open(true)?;
            // Takes the write lock and gives it back: nothing is written.
            connection
                .execute_batch("BEGIN IMMEDIATE; ROLLBACK")
                .map_err(|error| database_error(&during, &error))
        })
        .await
    }
}
