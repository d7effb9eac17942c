//! How much of a production database is taken: rows a second, pauses while a server is pressed, ends of slow statements.

use std::sync::Arc;
use std::time::{Duration, Instant};

use trueup::agent::{AgentLimits, Courtesy, LocalAgent, Serves, in_process, start};
use trueup::engine::{self, ErrorKind, Pressure};

use super::support::agents::{engine_of, outcome, repair, task};
use super::support::gate::GatedEngine;
use super::support::process::trueup;
use super::support::servers::{MysqlDb, PostgresDb, SqliteDb};

fn orders(db: &SqliteDb, rows: u32) {
    db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)");
    db.execute(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) INSERT INTO t SELECT i, 'row ' || i FROM n"
    ));
}

#[test]
fn rows_a_second_are_kept() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    orders(&source, 40_000);
    orders(&target, 40_000);
    let (source, target) = (source.url(), target.url());
    let args = ["diff", &source, &target, "--quiet", "--no-ledger", "--max-rows-per-second", "20000"];
    let began = Instant::now();
    let output = trueup(&args);
    assert_eq!(output.status, 0, "{output:?}");
    // The last batch is paid for by nobody.
    assert!(began.elapsed() >= Duration::from_millis(1_500), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_read_no_faster_than_its_source_allows() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    orders(&source, 16_000);
    target.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)");
    let courtesy = Courtesy { rows_per_second: Some(8_000), ..Courtesy::default() };
    let limits = AgentLimits { courtesy, ..AgentLimits::default() };
    let here = |engine, limits| in_process(Arc::new(LocalAgent::new(engine, limits, Serves::everything())));
    let (from, to) =
        (here(engine_of(&source).await, limits), here(engine_of(&target).await, AgentLimits::default()));
    let done = outcome(start(&from, &to, repair(task(&from, &to, "t").await)).await.unwrap()).await;
    assert!(done.proved && done.inserted == 16_000, "{done:?}");
    // The last batch is paid for by nobody, and no batch is larger than a second's rows.
    assert!(done.seconds.repair >= 0.9, "{:?}", done.seconds);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_looked_up_no_faster_than_their_source_allows() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    orders(&source, 6_000);
    orders(&target, 6_000);
    source.execute("UPDATE t SET a = 'changed ' || id");
    let courtesy = Courtesy { rows_per_second: Some(4_000), ..Courtesy::default() };
    let limits = AgentLimits { courtesy, ..AgentLimits::default() };
    let here = |engine, limits| in_process(Arc::new(LocalAgent::new(engine, limits, Serves::everything())));
    let (from, to) =
        (here(engine_of(&source).await, limits), here(engine_of(&target).await, AgentLimits::default()));
    let done = outcome(start(&from, &to, task(&from, &to, "t").await).await.unwrap()).await;
    assert_eq!(done.changed, 6_000, "{done:?}");
    assert!(done.seconds.recheck >= 1.2, "{:?}", done.seconds);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_pauses_while_a_server_is_pressed() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    orders(&source, 200);
    orders(&target, 150);
    let pressed = |lag, running| Pressure { lag: Some(Duration::from_secs(lag)), running: Some(running) };
    let pressures = vec![pressed(9, 0), pressed(0, 50), pressed(5, 20)];
    let gated = GatedEngine::pressed(engine_of(&target).await, pressures);
    let courtesy =
        Courtesy { max_lag: Some(Duration::from_secs(5)), max_running: Some(20), ..Courtesy::default() };
    let limits = AgentLimits { courtesy, ..AgentLimits::default() };
    let here = |engine, limits| in_process(Arc::new(LocalAgent::new(engine, limits, Serves::everything())));
    let from = here(engine_of(&source).await, AgentLimits::default());
    let to = here(gated.clone(), limits);
    let task = repair(task(&from, &to, "t").await);
    let began = Instant::now();
    let done = outcome(start(&from, &to, task).await.unwrap()).await;
    assert!(done.proved && done.inserted == 50, "{done:?}");
    // Asked until it was calm: half a second after the first answer, a second after the next.
    assert_eq!(gated.pressures_left(), 0);
    assert!(began.elapsed() >= Duration::from_millis(1_500), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_tell_how_they_are_and_to_whom_they_do_not() {
    let (postgres, mariadb) = (PostgresDb::create(), MysqlDb::create());
    let there = engine::open(&postgres.url()).await.unwrap();
    let all = there.pressure(true, true).await.unwrap();
    assert!(all.lag.is_none() && all.running.is_some(), "it has no standby: {all:?}");
    assert_eq!(there.pressure(false, false).await.unwrap(), Pressure::default());
    let there = engine::open(&mariadb.url()).await.unwrap();
    let all = there.pressure(true, true).await.unwrap();
    assert!(all.lag.is_none() && all.running.is_some(), "it follows nobody: {all:?}");

    // Who sees no other sessions must not take that for calm.
    let role = format!("blind_{}", std::process::id());
    postgres.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'x'"));
    let mut url = url::Url::parse(&postgres.url()).unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some("x")).unwrap();
    let blind = engine::open(url.as_str()).await.unwrap();
    let refused = blind.pressure(false, true).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Permission, "{refused:?}");
    assert!(refused.hint.unwrap().contains("pg_monitor"));
    drop(blind);
    postgres.execute(&format!("DROP ROLE {role}"));
}

#[test]
fn a_statement_that_takes_too_long_is_ended_by_its_server() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE t (id bigint PRIMARY KEY, a text); INSERT INTO t SELECT i, 'x' FROM generate_series(1, 3) i");
    }
    source.execute(
        "ALTER TABLE t RENAME TO quick; CREATE VIEW t AS SELECT id, a || pg_sleep(20)::text AS a FROM quick",
    );
    let (from, to) = (source.url(), target.url());
    let args = ["diff", &from, &to, "-t", "t", "--quiet", "--no-ledger", "--statement-timeout", "300ms"];
    let began = Instant::now();
    let output = trueup(&args);
    assert_eq!(output.status, 2, "{output:?}");
    assert!(began.elapsed() < Duration::from_secs(15), "it was waited for");
    assert!(output.stderr.contains("timeout") || output.stdout.contains("timeout"), "{output:?}");

    let (source, target) = (MysqlDb::create(), MysqlDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE t (id BIGINT PRIMARY KEY, a INT)");
        db.execute("INSERT INTO t VALUES (1, 0), (2, 0), (3, 0)");
    }
    source.execute("RENAME TABLE t TO quick");
    source.execute("CREATE VIEW t AS SELECT id, SLEEP(10) AS a FROM quick");
    let (from, to) = (source.url(), target.url());
    let args = ["diff", &from, &to, "-t", "t", "--quiet", "--no-ledger", "--statement-timeout", "300ms"];
    let output = trueup(&args);
    assert_eq!(output.status, 2, "{output:?}");
    assert!(
        output.stdout.contains("max_statement_time") || output.stderr.contains("max_statement_time"),
        "{output:?}"
    );
}
