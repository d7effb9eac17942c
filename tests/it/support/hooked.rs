//! An engine that does something else just before it writes.

use std::sync::Arc;
use std::sync::Mutex;

use async_trait::async_trait;
use trueup::engine::{Engine, EngineError, Lookup, Pressure, Snapshot};
use trueup::model::{
    Answer, Change, ChangeOutcome, EngineKind, Key, PermittedChanges, PermittedExchange, Question,
    ServerInfo, TableAccess, TableName, TableSchema,
};

type Hook = Box<dyn FnMut(u32) + Send>;

pub(crate) struct HookedEngine {
    inner: Arc<dyn Engine>,
    /// Called with the number of the write, from 1.
    hook: Mutex<(u32, Hook)>,
}

impl std::fmt::Debug for HookedEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HookedEngine")
    }
}

impl HookedEngine {
    pub(crate) fn before_writes(inner: Arc<dyn Engine>, hook: impl FnMut(u32) + Send + 'static) -> Arc<Self> {
        Arc::new(Self { inner, hook: Mutex::new((0, Box::new(hook))) })
    }

    fn writes(&self) {
        let mut hook = self.hook.lock().unwrap();
        hook.0 += 1;
        let nth = hook.0;
        (hook.1)(nth);
    }
}

#[async_trait]
impl Engine for HookedEngine {
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
        self.inner.lookup(access, keys).await
    }

    async fn apply(
        &self,
        access: &Arc<TableAccess>,
        changes: &PermittedChanges,
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        self.writes();
        self.inner.apply(access, changes).await
    }

    async fn replace(
        &self,
        access: &Arc<TableAccess>,
        changes: &PermittedExchange,
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        self.writes();
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
