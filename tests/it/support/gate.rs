//! An engine that can be held: it waits at a gate before it reads a snapshot or writes, and counts who waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use trueup::engine::{Engine, EngineError, Lookup, Pressure, Snapshot};
use trueup::model::{
    Answer, Change, ChangeOutcome, EngineKind, Key, PermittedChanges, PermittedExchange, Question,
    ServerInfo, TableAccess, TableName, TableSchema,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Snapshot,
    Apply,
}

#[derive(Debug)]
pub(crate) struct GatedEngine {
    inner: Arc<dyn Engine>,
    at: At,
    open: watch::Sender<bool>,
    waiting: Arc<AtomicUsize>,
    /// What it says of its server, one after the other; then calm.
    pressures: Mutex<VecDeque<Pressure>>,
}

struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl GatedEngine {
    pub(crate) fn closed(inner: Arc<dyn Engine>, at: At) -> Arc<Self> {
        Arc::new(Self {
            inner,
            at,
            open: watch::channel(false).0,
            waiting: Arc::default(),
            pressures: Mutex::default(),
        })
    }

    /// An open gate before a server that is pressed.
    pub(crate) fn pressed(inner: Arc<dyn Engine>, pressures: Vec<Pressure>) -> Arc<Self> {
        let engine = Self::closed(inner, At::Snapshot);
        engine.open();
        engine.pressures.lock().unwrap().extend(pressures);
        engine
    }

    /// What it has not said yet.
    pub(crate) fn pressures_left(&self) -> usize {
        self.pressures.lock().unwrap().len()
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until so many wait at the gate.
    pub(crate) async fn until_waiting(&self, count: usize) {
        for _ in 0..1_000 {
            if self.waiting.load(Ordering::SeqCst) == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} wait at the gate, not {count}", self.waiting.load(Ordering::SeqCst));
    }

    async fn pass(&self, at: At) {
        if at != self.at {
            return;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(self.waiting.clone());
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

#[async_trait]
impl Engine for GatedEngine {
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
        self.pass(At::Snapshot).await;
        self.inner.snapshot(access, parallelism).await
    }

    async fn pressure(&self, _lag: bool, _running: bool) -> Result<Pressure, EngineError> {
        Ok(self.pressures.lock().unwrap().pop_front().unwrap_or_default())
    }

    async fn lookup(&self, access: &Arc<TableAccess>, keys: &[Key]) -> Result<Lookup, EngineError> {
        self.inner.lookup(access, keys).await
    }

    async fn apply(
        &self,
        access: &Arc<TableAccess>,
        changes: &PermittedChanges,
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        self.pass(At::Apply).await;
        self.inner.apply(access, changes).await
    }

    async fn replace(
        &self,
        access: &Arc<TableAccess>,
        changes: &PermittedExchange,
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        self.pass(At::Apply).await;
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
