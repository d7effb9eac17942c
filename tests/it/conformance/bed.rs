//! A fresh database of one kind, its engine, and the engine's calls in short.

use crate::support::permit::permitted;
use std::collections::BTreeMap;
use std::sync::Arc;

use trueup::engine::{self, Engine, EngineError, keyed_rows};
use trueup::model::{
    CanonicalRow, Change, ChangeOutcome, Key, Plan, RejectionKind, Role, TableAccess, TableName, Wishes,
};

use crate::support::batches::scan_in_batches;
use crate::support::servers::{MysqlDb, PostgresDb, SqliteDb};

pub(super) type Rows = BTreeMap<Key, CanonicalRow>;

enum Db {
    Postgres(PostgresDb),
    Mysql(MysqlDb),
    Sqlite(SqliteDb),
}

pub(super) struct Bed {
    db: Db,
    pub(super) engine: Arc<dyn Engine>,
}

impl Bed {
    pub(super) async fn postgres() -> Self {
        let db = PostgresDb::create();
        let engine = engine::open(&db.url()).await.unwrap();
        Self { db: Db::Postgres(db), engine }
    }

    pub(super) async fn mysql() -> Self {
        let db = MysqlDb::create();
        let engine = engine::open(&db.url()).await.unwrap();
        Self { db: Db::Mysql(db), engine }
    }

    pub(super) async fn sqlite() -> Self {
        let db = SqliteDb::create();
        db.execute("PRAGMA journal_mode = WAL");
        let engine = engine::open(&db.url()).await.unwrap();
        Self { db: Db::Sqlite(db), engine }
    }

    /// Statements with names in double quotes, whatever the engine's own quotes are.
    pub(super) fn execute(&self, sql: &str) {
        match &self.db {
            Db::Postgres(db) => db.execute(sql),
            Db::Mysql(db) => db.execute(&sql.replace('"', "`")),
            Db::Sqlite(db) => db.execute(sql),
        }
    }

    pub(super) fn scalar(&self, sql: &str) -> Option<String> {
        match &self.db {
            Db::Postgres(db) => db.scalar(sql),
            Db::Mysql(db) => db.scalar(&sql.replace('"', "`")),
            Db::Sqlite(db) => db.scalar(sql),
        }
    }

    /// The rows that the database itself finds in one of two tables of the same columns and not in the other.
    pub(super) fn unlike(&self, a: &str, b: &str) -> Option<String> {
        self.scalar(&format!(
            "SELECT (SELECT count(*) FROM (SELECT * FROM {a} EXCEPT SELECT * FROM {b}) x) \
                  + (SELECT count(*) FROM (SELECT * FROM {b} EXCEPT SELECT * FROM {a}) y)"
        ))
    }

    pub(super) async fn plan(&self, source: &str, target: &str, wishes: &Wishes) -> Plan {
        let server = self.engine.server().await.unwrap();
        let source = self.engine.describe(&TableName::new(None, source)).await.unwrap();
        let target = self.engine.describe(&TableName::new(None, target)).await.unwrap();
        Plan::agree((&source, &server), (&target, &server), wishes).unwrap()
    }

    pub(super) async fn access(&self, table: &str) -> Arc<TableAccess> {
        Arc::new(self.plan(table, table, &Wishes::default()).await.access(Role::Target))
    }

    pub(super) async fn filtered(&self, table: &str, condition: &str) -> Arc<TableAccess> {
        let wishes = Wishes { target_where: Some(condition.to_owned()), ..Wishes::default() };
        Arc::new(self.plan(table, table, &wishes).await.access(Role::Target))
    }

    pub(super) async fn scan(&self, access: &Arc<TableAccess>, readers: usize) -> Rows {
        self.try_scan(access, readers).await.unwrap()
    }

    pub(super) async fn try_scan(
        &self,
        access: &Arc<TableAccess>,
        readers: usize,
    ) -> Result<Rows, EngineError> {
        let snapshot = self.engine.snapshot(access.clone(), readers).await?;
        read(snapshot).await
    }

    pub(super) async fn fetch(&self, access: &Arc<TableAccess>, keys: &[Key]) -> Rows {
        let rows = self.engine.fetch(access, keys).await.unwrap();
        rows.into_iter().map(|row| (row.key, row.row)).collect()
    }

    pub(super) async fn apply(&self, access: &Arc<TableAccess>, changes: &[Change]) -> Vec<ChangeOutcome> {
        self.engine.apply(access, &permitted(changes)).await.unwrap()
    }
}

pub(super) async fn read(snapshot: Box<dyn engine::Snapshot>) -> Result<Rows, EngineError> {
    let (send, mut receive) = tokio::sync::mpsc::channel(4);
    let scan = tokio::spawn(scan_in_batches(snapshot, send));
    let mut rows = Rows::new();
    while let Some(batch) = receive.recv().await {
        for row in keyed_rows(batch.as_ref()).unwrap() {
            assert!(rows.insert(row.key, row.row).is_none(), "a row came twice");
        }
    }
    scan.await.unwrap()?;
    Ok(rows)
}

/// What would make the rows of `from` those of `to`, in key order.
pub(super) fn changes(from: &Rows, to: &Rows) -> Vec<Change> {
    let mut keys: Vec<&Key> = from.keys().chain(to.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .filter(|key| from.get(key) != to.get(key))
        .map(|key| Change { key: key.clone(), before: from.get(key).cloned(), after: to.get(key).cloned() })
        .collect()
}

pub(super) fn refusals(outcomes: &[ChangeOutcome]) -> Vec<Option<RejectionKind>> {
    outcomes
        .iter()
        .map(|outcome| match outcome {
            ChangeOutcome::Failed(rejection) => Some(rejection.kind),
            ChangeOutcome::Written => None,
            ChangeOutcome::Stale | ChangeOutcome::Already => panic!("{outcome:?}"),
        })
        .collect()
}
