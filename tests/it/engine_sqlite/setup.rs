//! A file with its engine, and the engine's calls in short.

use crate::support::permit::permitted;
use std::collections::BTreeMap;
use std::sync::Arc;

use trueup::engine::{self, Engine, EngineError, Lookup, keyed_rows};
use trueup::model::{CanonicalRow, Change, ChangeOutcome, Key, Plan, Role, TableAccess, TableName, Wishes};

use crate::support::batches::scan_in_batches;
use crate::support::servers::SqliteDb;

pub(super) type Rows = BTreeMap<Key, CanonicalRow>;

pub(super) struct File {
    pub(super) db: SqliteDb,
    pub(super) engine: Arc<dyn Engine>,
}

impl File {
    pub(super) async fn with(sql: &str) -> Self {
        let db = SqliteDb::create();
        db.execute(sql);
        let engine = engine::open(&db.url()).await.unwrap();
        Self { db, engine }
    }

    pub(super) fn connection(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.db.url().strip_prefix("sqlite://").unwrap()).unwrap()
    }

    /// As one side of a comparison of SQLite with SQLite.
    pub(super) async fn access(&self, table: &str) -> Arc<TableAccess> {
        self.wished(table, Wishes::default()).await
    }

    pub(super) async fn wished(&self, table: &str, wishes: Wishes) -> Arc<TableAccess> {
        let server = self.engine.server().await.unwrap();
        let schema = self.engine.describe(&TableName::new(None, table)).await.unwrap();
        let plan = Plan::agree((&schema, &server), (&schema, &server), &wishes).unwrap();
        Arc::new(plan.access(Role::Target))
    }

    pub(super) async fn scan(&self, access: &Arc<TableAccess>, readers: usize) -> Result<Rows, EngineError> {
        let snapshot = self.engine.snapshot(access.clone(), readers).await?;
        let (send, mut receive) = tokio::sync::mpsc::channel(4);
        let scan = tokio::spawn(scan_in_batches(snapshot, send));
        let mut rows = Rows::new();
        while let Some(batch) = receive.recv().await {
            for row in keyed_rows(batch.as_ref()).unwrap() {
                assert!(rows.insert(row.key, row.row).is_none(), "a key came twice");
            }
        }
        scan.await.unwrap()?;
        Ok(rows)
    }

    pub(super) async fn lookup(&self, access: &Arc<TableAccess>, keys: &[Key]) -> Lookup {
        self.engine.lookup(access, keys).await.unwrap()
    }

    pub(super) async fn apply(&self, access: &Arc<TableAccess>, changes: &[Change]) -> Vec<ChangeOutcome> {
        self.engine.apply(access, &permitted(changes)).await.unwrap()
    }
}

pub(super) fn change(key: &Key, before: Option<&CanonicalRow>, after: Option<&CanonicalRow>) -> Change {
    Change { key: key.clone(), before: before.cloned(), after: after.cloned() }
}

pub(super) fn reason(outcome: &ChangeOutcome) -> &str {
    match outcome {
        ChangeOutcome::Failed(rejection) => &rejection.reason,
        other => panic!("{other:?}"),
    }
}

/// Places of rows in a scan by one reader whose key came before.
pub(super) async fn doubles(file: &File, access: &Arc<TableAccess>) -> Vec<usize> {
    let snapshot = file.engine.snapshot(access.clone(), 1).await.unwrap();
    let (send, mut receive) = tokio::sync::mpsc::channel(4);
    let scan = tokio::spawn(scan_in_batches(snapshot, send));
    let (mut keys, mut at, mut doubles) = (std::collections::BTreeSet::new(), 0, Vec::new());
    while let Some(batch) = receive.recv().await {
        for row in keyed_rows(batch.as_ref()).unwrap() {
            if !keys.insert(row.key) {
                doubles.push(at);
            }
            at += 1;
        }
    }
    scan.await.unwrap().unwrap();
    doubles
}

/// A row of one integer.
pub(super) fn cell_of(value: i64) -> CanonicalRow {
    let mut buffer = trueup::model::RowBuffer::default();
    buffer.cell().int(value);
    CanonicalRow::new(buffer.row)
}
