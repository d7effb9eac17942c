//! An engine around another one, for tests: what a wrapper says nothing of is the other's.

use std::sync::Arc;

use async_trait::async_trait;
use trueup::engine::{Engine, EngineError, LockWait, Lookup, Origin, Pressure, Snapshot};
use trueup::model::{
    Answer, Change, ChangeOutcome, EngineKind, Key, PermittedChanges, PermittedExchange, Question,
    ServerInfo, TableAccess, TableName, TableSchema,
};

/// What a test does to an engine.
#[async_trait]
pub(crate) trait Wrapper: Send + Sync {
    fn inner(&self) -> &Arc<dyn Engine>;

    async fn before_snapshot(&self) {}

    async fn before_write(&self) {}

    async fn lookup(&self, access: &Arc<TableAccess>, keys: &[Key]) -> Result<Lookup, EngineError> {
        self.inner().lookup(access, keys).await
    }

    async fn pressure(&self, lag: bool, running: bool) -> Result<Pressure, EngineError> {
        self.inner().pressure(lag, running).await
    }
}

pub(crate) struct Wrapped<W>(pub(crate) W);

impl<W> std::fmt::Debug for Wrapped<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wrapped")
    }
}

#[async_trait]
impl<W: Wrapper> Engine for Wrapped<W> {
    fn kind(&self) -> EngineKind {
        self.0.inner().kind()
    }

    async fn server(&self) -> Result<ServerInfo, EngineError> {
        self.0.inner().server().await
    }

    async fn tables(&self, schema: Option<&str>) -> Result<Vec<TableName>, EngineError> {
        self.0.inner().tables(schema).await
    }

    async fn left_out(&self, schema: Option<&str>) -> Result<Vec<String>, EngineError> {
        self.0.inner().left_out(schema).await
    }

    async fn describe(&self, table: &TableName) -> Result<TableSchema, EngineError> {
        self.0.inner().describe(table).await
    }

    async fn origin(&self, table: &TableName) -> Result<Origin, EngineError> {
        self.0.inner().origin(table).await
    }

    async fn snapshot(
        &self,
        access: Arc<TableAccess>,
        parallelism: usize,
    ) -> Result<Box<dyn Snapshot>, EngineError> {
        self.0.before_snapshot().await;
        self.0.inner().snapshot(access, parallelism).await
    }

    async fn pressure(&self, lag: bool, running: bool) -> Result<Pressure, EngineError> {
        self.0.pressure(lag, running).await
    }

    async fn lookup(&self, access: &Arc<TableAccess>, keys: &[Key]) -> Result<Lookup, EngineError> {
        self.0.lookup(access, keys).await
    }

    async fn apply_within(
        &self,
        access: &Arc<TableAccess>,
        changes: &PermittedChanges,
        wait: LockWait,
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        self.0.before_write().await;
        self.0.inner().apply_within(access, changes, wait).await
    }

    async fn replace(
        &self,
        access: &Arc<TableAccess>,
        changes: &PermittedExchange,
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        self.0.before_write().await;
        self.0.inner().replace(access, changes).await
    }

    async fn statement(&self, access: &TableAccess, change: &Change) -> Result<String, EngineError> {
        self.0.inner().statement(access, change).await
    }

    async fn measure(&self, question: &Question) -> Result<Answer, EngineError> {
        self.0.inner().measure(question).await
    }

    async fn check_writable(
        &self,
        access: &TableAccess,
        allow: trueup::model::Allow,
    ) -> Result<(), EngineError> {
        self.0.inner().check_writable(access, allow).await
    }
}
