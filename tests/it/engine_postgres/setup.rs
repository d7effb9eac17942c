//! A fresh database for each test, and the engine's calls in short.

use crate::support::permit::permitted;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::batches::scan_in_batches;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use trueup::engine::postgres::PgEngine;
use trueup::engine::{Engine, EngineError, keyed_rows};
use trueup::model::{CanonicalRow, Change, ChangeOutcome, Key, Plan, Role, TableAccess, TableName, Wishes};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(super) fn admin_url() -> String {
    std::env::var("TRUEUP_TEST_POSTGRES_URL")
        .expect("TRUEUP_TEST_POSTGRES_URL is not set: run the tests with scripts/test")
}

pub(super) struct Db {
    name: String,
    pub(super) url: String,
    pub(super) engine: PgEngine,
}

impl Db {
    pub(super) async fn new(setup: &str) -> Self {
        Self::made(setup, "TEMPLATE template0").await
    }

    /// A database of this encoding.
    pub(super) async fn encoded(encoding: &str, setup: &str) -> Self {
        let options = format!("TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'");
        Self::made(setup, &options).await
    }

    async fn made(setup: &str, options: &str) -> Self {
        let name = format!("pg_it_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut admin = PgConnection::connect(&admin_url()).await.unwrap();
        admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name} {options}"))).await.unwrap();
        let mut url = url::Url::parse(&admin_url()).unwrap();
        url.set_path(&name);
        let url = url.to_string();
        let engine = PgEngine::connect(&url).await.unwrap();
        let db = Self { name, url, engine };
        db.sql(setup).await;
        db
    }

    pub(super) async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    pub(super) async fn sql(&self, sql: &str) {
        self.connection().await.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
    }

    pub(super) async fn count(&self, sql: &str) -> i64 {
        let row = self.connection().await.fetch_one(AssertSqlSafe(sql.to_owned())).await.unwrap();
        row.get(0)
    }

    pub(super) async fn text(&self, sql: &str) -> String {
        let row = self.connection().await.fetch_one(AssertSqlSafe(sql.to_owned())).await.unwrap();
        row.get::<Option<String>, _>(0).unwrap_or_else(|| "NULL".to_owned())
    }

    pub(super) async fn access(&self, table: &str) -> Arc<TableAccess> {
        Arc::new(self.plan(table, table, &Wishes::default()).await.access(Role::Target))
    }

    pub(super) async fn plan(&self, source: &str, target: &str, wishes: &Wishes) -> Plan {
        let server = self.engine.server().await.unwrap();
        let source = self.engine.describe(&TableName::parse(source).unwrap()).await.unwrap();
        let target = self.engine.describe(&TableName::parse(target).unwrap()).await.unwrap();
        Plan::agree((&source, &server), (&target, &server), wishes).unwrap()
    }

    pub(super) async fn scan(
        &self,
        access: &Arc<TableAccess>,
        readers: usize,
    ) -> BTreeMap<Key, CanonicalRow> {
        self.try_scan(access, readers).await.unwrap()
    }

    pub(super) async fn try_scan(
        &self,
        access: &Arc<TableAccess>,
        readers: usize,
    ) -> Result<BTreeMap<Key, CanonicalRow>, EngineError> {
        scanned(&self.engine, access, readers).await
    }

    pub(super) async fn apply(&self, access: &Arc<TableAccess>, changes: &[Change]) -> Vec<ChangeOutcome> {
        self.engine.apply(access, &permitted(changes)).await.unwrap()
    }
}

/// A database through something else than its own address.
pub(super) struct Through {
    pub(super) url: String,
    pub(super) engine: PgEngine,
}

impl Through {
    pub(super) async fn scan(
        &self,
        access: &Arc<TableAccess>,
        readers: usize,
    ) -> BTreeMap<Key, CanonicalRow> {
        match scanned(&self.engine, access, readers).await {
            Ok(rows) => rows,
            Err(error) => panic!("{}: {error}", self.url),
        }
    }
}

async fn scanned(
    engine: &PgEngine,
    access: &Arc<TableAccess>,
    readers: usize,
) -> Result<BTreeMap<Key, CanonicalRow>, EngineError> {
    let snapshot = engine.snapshot(access.clone(), readers).await?;
    let (send, mut receive) = tokio::sync::mpsc::channel(8);
    let scan = tokio::spawn(scan_in_batches(snapshot, send));
    let mut rows = BTreeMap::new();
    while let Some(batch) = receive.recv().await {
        let batch = keyed_rows(batch.as_ref()).unwrap();
        for row in batch {
            assert!(rows.insert(row.key, row.row).is_none(), "a row came twice");
        }
    }
    scan.await.unwrap()?;
    Ok(rows)
}

impl Drop for Db {
    fn drop(&mut self) {
        let name = self.name.clone();
        // The test's own runtime is ending; the clean-up has one of its own.
        let _ = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                if let Ok(mut admin) = PgConnection::connect(&admin_url()).await {
                    let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                    let _ = admin.execute(AssertSqlSafe(sql)).await;
                }
            });
        })
        .join();
    }
}

/// What would make the rows of `from` those of `to`.
pub(super) fn changes(from: &BTreeMap<Key, CanonicalRow>, to: &BTreeMap<Key, CanonicalRow>) -> Vec<Change> {
    let mut keys: Vec<&Key> = from.keys().chain(to.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .filter(|key| from.get(key) != to.get(key))
        .map(|key| Change { key: key.clone(), before: from.get(key).cloned(), after: to.get(key).cloned() })
        .collect()
}

/// Makes `target` equal to `source` by applying what differs; gives the outcomes.
pub(super) async fn repair(db: &Db, source: &str, target: &str) -> Vec<ChangeOutcome> {
    let plan = db.plan(source, target, &Wishes::default()).await;
    let (source, target) = (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)));
    let changes = changes(&db.scan(&target, 1).await, &db.scan(&source, 1).await);
    db.apply(&target, &changes).await
}
