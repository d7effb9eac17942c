//! Through PgBouncer in transaction mode: a session is whoever's transaction it is, and is left as it was.

use crate::support::permit::permitted;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use trueup::engine::postgres::PgEngine;
use trueup::engine::{Engine, Manners};
use trueup::model::{ChangeOutcome, Key, RowRun, Wishes};

use super::setup::{Db, admin_url, changes};

/// A client of the pooler, which takes no startup parameter that it does not know.
async fn client(url: &str) -> Result<PgConnection, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    PgConnection::connect_with(&options.extra_float_digits(None)).await
}

struct Pooler {
    process: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Pooler {
    /// `None`, with a sentence, where PgBouncer is not installed.
    #[expect(clippy::print_stdout, reason = "a test that does without says so")]
    async fn start(databases: &[&Db], connections: usize) -> Option<Self> {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"]
            .into_iter()
            .find(|path| std::path::Path::new(path).exists());
        let Some(program) = program else {
            println!("skipped: PgBouncer is not installed");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = url::Url::parse(&admin_url()).unwrap();
        let mut config = "[databases]\n".to_owned();
        for db in databases {
            let name = url::Url::parse(&db.url).unwrap().path().trim_start_matches('/').to_owned();
            config.push_str(&format!(
                "{name} = host={} port={} dbname={name} user={} password={}\n",
                server.host_str().unwrap(),
                server.port().unwrap(),
                server.username(),
                server.password().unwrap()
            ));
        }
        config.push_str(&format!(
            "[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\npool_mode = transaction\n\
             default_pool_size = {connections}\nmax_client_conn = 200\nunix_socket_dir =\nlogfile = {}/log\n",
            dir.path().display()
        ));
        let file = dir.path().join("pgbouncer.ini");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(program);
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.args(["-u", "nobody"]);
        }
        let process = command.arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pooler = Self { process, port, _dir: dir };
        for _ in 0..100 {
            if client(&pooler.url(databases[0])).await.is_ok() {
                return Some(pooler);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("PgBouncer did not start");
    }

    fn url(&self, db: &Db) -> String {
        let mut url = url::Url::parse(&db.url).unwrap();
        url.set_port(Some(self.port)).unwrap();
        url.to_string()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Clients that keep the pool's sessions changing hands.
struct Busy(Arc<AtomicBool>, Vec<tokio::task::JoinHandle<()>>);

impl Busy {
    fn on(urls: &[String], clients: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let worker = |at: usize| {
            let (url, over) = (urls[at % urls.len()].clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let mut connection = client(&url).await.unwrap();
                while !over.load(Ordering::Relaxed) {
                    connection.execute("SELECT pg_sleep(random() * 0.01)").await.unwrap();
                }
            })
        };
        let clients = (0..clients).map(worker).collect();
        Self(over, clients)
    }

    async fn stop(self) {
        self.0.store(true, Ordering::Relaxed);
        for client in self.1 {
            client.await.unwrap();
        }
    }
}

const POINTS: &str = "CREATE TYPE pair AS (a bytea, b float8); CREATE TYPE mood AS ENUM ('sad', 'happy');
    CREATE TABLE pts (id int PRIMARY KEY, p point, c pair, m mood);
    INSERT INTO pts SELECT g, point(1/3.0::float8, g), ROW('\\x00ff', 1/3.0::float8)::pair, 'sad' FROM generate_series(1, 500) g;";

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_transaction_mode_changes_no_verdict_and_is_left_as_it_was() {
    let (a, b) = (Db::new(POINTS).await, Db::new(POINTS).await);
    b.sql("UPDATE pts SET p = point(0.33333333333333337, id) WHERE id % 50 = 0").await;
    for db in [&a, &b] {
        let name = url::Url::parse(&db.url).unwrap().path().trim_start_matches('/').to_owned();
        db.sql(&format!(
            "ALTER DATABASE {name} SET extra_float_digits = 0; ALTER DATABASE {name} SET bytea_output = 'escape';
             ALTER DATABASE {name} SET IntervalStyle = 'sql_standard'"
        ))
        .await;
    }
    let Some(pooler) = Pooler::start(&[&a, &b], 6).await else { return };
    let urls = [pooler.url(&a), pooler.url(&b)];
    let busy = Busy::on(&urls, 12);
    let manners = Manners { statement_timeout: Some(Duration::from_secs(20)), ..Manners::default() };
    let engines = [
        PgEngine::connect_with(&urls[0], &manners).await.unwrap(),
        PgEngine::connect_with(&urls[1], &manners).await.unwrap(),
    ];
    let through =
        |db: &Db, engine: &PgEngine| super::setup::Through { url: db.url.clone(), engine: engine.clone() };
    let (from, to) = (through(&a, &engines[0]), through(&b, &engines[1]));
    let plan = a.plan("pts", "pts", &Wishes::default()).await;
    let access = Arc::new(plan.access(trueup::model::Role::Target));
    for round in 0..8 {
        let ((source, target), described) = tokio::join!(
            async { tokio::join!(from.scan(&access, 2), to.scan(&access, 2)) },
            engines[0].describe(&access.table)
        );
        described.unwrap();
        assert_eq!(source.len(), 500);
        let differing = changes(&target, &source);
        assert_eq!(differing.len(), 10, "round {round}");
        let keys: Vec<Key> = source.keys().cloned().collect();
        let (left, right) =
            tokio::join!(engines[0].lookup(&access, &keys), engines[1].lookup(&access, &keys));
        let rows = |found: trueup::engine::Lookup| -> BTreeMap<_, _> {
            found.rows.into_iter().map(|row| (row.key, row.row)).collect()
        };
        assert!(rows(left.unwrap()) == source && rows(right.unwrap()) == target, "round {round}");
        let run: RowRun = engines[1].fetch_run(&access, &keys).await.unwrap();
        assert!(
            run.sorted()
                .iter()
                .map(|(key, row)| (Key::from(key), row.to_vec()))
                .eq(target.iter().map(|(key, row)| (key.clone(), row.as_bytes().to_vec())))
        );
        if round % 2 == 1 {
            let outcomes = engines[1].apply(&access, &permitted(&differing)).await.unwrap();
            assert_eq!(outcomes, vec![ChangeOutcome::Written; 10]);
            let back = changes(&source, &target);
            assert_eq!(
                engines[1].apply(&access, &permitted(&back)).await.unwrap(),
                vec![ChangeOutcome::Written; 10]
            );
        }
    }
    busy.stop().await;
    drop((engines, from, to));
    // All sessions of the pool at once.
    for url in &urls {
        let mut clients = Vec::new();
        for _ in 0..6 {
            let mut one = client(url).await.unwrap();
            one.execute("BEGIN").await.unwrap();
            clients.push(one);
        }
        for mut one in clients {
            for (name, expected) in [
                ("statement_timeout", "0"),
                ("extra_float_digits", "0"),
                ("bytea_output", "escape"),
                ("enable_seqscan", "on"),
                ("row_security", "on"),
                ("idle_in_transaction_session_timeout", "0"),
                ("transaction_isolation", "read committed"),
            ] {
                let row = one.fetch_one(AssertSqlSafe(format!("SHOW {name}"))).await.unwrap();
                assert_eq!(row.get::<String, _>(0), expected, "{name}");
            }
            let left = one.fetch_one("SELECT count(*) FROM pg_prepared_statements").await.unwrap();
            assert_eq!(left.get::<i64, _>(0), 0, "a statement was left behind");
            one.execute("COMMIT").await.unwrap();
        }
    }
}

const LARGE: &str = "CREATE TABLE t (id int PRIMARY KEY, v int, pad text);
    INSERT INTO t SELECT g, 0, repeat('x', 60) FROM generate_series(1, 150000) g;";

/// A snapshot is shared by connections of the pool where it has them to give, and read by one where it has not.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_table_is_read_through_pools_of_any_size() {
    let db = Db::new(LARGE).await;
    let access = db.access("t").await;
    let direct = db.scan(&access, 4).await;
    let keys: Vec<Key> = direct.keys().take(400).cloned().collect();
    for size in [8, 2, 1] {
        let Some(pooler) = Pooler::start(&[&db], size).await else { return };
        let engine = PgEngine::connect(&pooler.url(&db)).await.unwrap();
        let through = super::setup::Through { url: pooler.url(&db), engine };
        let started = std::time::Instant::now();
        assert!(through.scan(&access, 4).await == direct, "a pool of {size}");
        let run = through.engine.fetch_run(&access, &keys).await.unwrap();
        assert_eq!(run.len(), keys.len());
        let run = through.engine.fetch_run(&access, &keys).await.unwrap();
        assert_eq!(run.len(), keys.len());
        assert!(started.elapsed() < Duration::from_secs(30), "a pool of {size}: {:?}", started.elapsed());
    }
}

/// What another client left in the session is none of ours.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_set_on_the_session_does_not_count() {
    let db = Db::new(
        "CREATE SCHEMA other; CREATE TABLE t (id int PRIMARY KEY, v interval); INSERT INTO t VALUES (1, '-1 day +1:00');
         CREATE TABLE other.t (id int PRIMARY KEY, w int)",
    )
    .await;
    let direct = db.scan(&db.access("t").await, 1).await;
    let Some(pooler) = Pooler::start(&[&db], 1).await else { return };
    let mut other = client(&pooler.url(&db)).await.unwrap();
    other
        .execute("SET search_path = other; SET extra_float_digits = -15; SET bytea_output = escape; SET xmlbinary = hex")
        .await
        .unwrap();
    let through = super::setup::Through {
        url: pooler.url(&db),
        engine: PgEngine::connect(&pooler.url(&db)).await.unwrap(),
    };
    let schema = through.engine.describe(&trueup::model::TableName::parse("t").unwrap()).await.unwrap();
    assert_eq!(schema.table.schema.as_deref(), Some("public"));
    assert_eq!(through.scan(&db.access("t").await, 1).await, direct);
    let row = other.fetch_one("SHOW search_path").await.unwrap();
    assert_eq!(row.get::<String, _>(0), "other");
}
