//! An engine whose lookups by key do not find some rows, as where a key is spelled otherwise than it is asked for.

use std::sync::Arc;

use async_trait::async_trait;
use trueup::engine::{Engine, EngineError, Lookup, Pressure, Snapshot};
use trueup::model::{
    Answer, Change, ChangeOutcome, EngineKind, Key, PermittedChanges, PermittedExchange, Question,
    ServerInfo, TableAccess, TableName, TableSchema,
};

#[derive(Debug)]
pub(crate) struct BlindEngine {
    inner: Arc<dyn Engine>,
    /// Of so many keys, one is found.
    finds_one_in: usize,
}

impl BlindEngine {
    /// Finds nothing.
    pub(crate) fn wholly(inner: Arc<dyn Engine>) -> Arc<Self> {
        Arc::new(Self { inner, finds_one_in: usize::MAX })
    }

    /// Finds the rows of every other key that it is asked for.
    pub(crate) fn half(inner: Arc<dyn Engine>) -> Arc<Self> {
        Arc::new(Self { inner, finds_one_in: 2 })
    }
}

#[async_trait]
impl Engine for BlindEngine {
    fn kind(&self) -> EngineKind {
        self.inner.kind()
    }

    async fn server(&self) -> Result<ServerInfo, EngineError> {
        self.inner.server().await
    }

    async fn tables(&self, schema: Option<&str>) -> Result<Vec<TableName>, EngineError> {
        self.inner.tables(schema).await
    }

    async fn left_out(&self, schema: Option<&str>) -> Result<Vec<String>, EngineError> {
        self.inner.left_out(schema).await
    }

    async fn describe(&self, table: &TableName) -> Result<TableSchema, EngineError> {
        self.inner.describe(table).await
    }

    async fn snapshot(
        &self,
        access: Arc<TableAccess>,
        parallelism: usize,
    ) -> Result<Box<dyn Snapshot>, EngineError> {
        self.inner.snapshot(access, parallelism).await
    }

    async fn pressure(&self, lag: bool, running: bool) -> Result<Pressure, EngineError> {
        self.inner.pressure(lag, running).await
    }

    async fn lookup(&self, access: &Arc<TableAccess>, keys: &[Key]) -> Result<Lookup, EngineError> {
        let mut lookup = Lookup::default();
        for (at, keys) in keys.chunks(1).enumerate() {
            if at % self.finds_one_in == self.finds_one_in - 1 {
                lookup.extend(self.inner.lookup(access, keys).await?);
            } else {
                lookup.unproven.extend(keys.iter().cloned());
            }
        }
        Ok(lookup)
    }

    async fn apply(
        &self,
        access: &Arc<TableAccess>,
        changes: &PermittedChanges,
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        self.inner.apply(access, changes).await
    }

    async fn replace(
        &self,
        access: &Arc<TableAccess>,
        changes: &PermittedExchange,
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        self.inner.replace(access, changes).await
    }

    async fn statement(&self, access: &TableAccess, change: &Change) -> Result<String, EngineError> {
        self.inner.statement(access, change).await
    }

    async fn measure(&self, question: &Question) -> Result<Answer, EngineError> {
        self.inner.measure(question).await
    }

    async fn check_writable(&self, access: &TableAccess) -> Result<(), EngineError> {
        self.inner.check_writable(access).await
    }
}
