//! What ends a run early: a full disk, a view that repeats its key, Ctrl-C. Each with a clear word, and nothing left behind.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::support::process::{Agent, state_home, trueup};
use super::support::servers::{PostgresDb, SqliteDb};

fn numbers(db: &SqliteDb, rows: u32) {
    db.execute(&format!(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) INSERT INTO t SELECT i * 7919 % 1000003, 'row ' || i FROM n"
    ));
}

#[test]
fn a_full_disk_is_named_and_changes_nothing() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    numbers(&source, 120_000);
    numbers(&target, 120_000);
    target.execute("DELETE FROM t WHERE id % 1000 = 0");
    let before = target.scalar("SELECT count(*) FROM t");
    let scratch = tempfile::tempdir().unwrap();
    // A limit on the size of files stands for the end of the disk: the same write fails in the same place.
    let output = Command::new("bash")
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$@\"", "bash", env!("CARGO_BIN_EXE_trueup")])
        .args(["repair", &source.url(), &target.url(), "-t", "t", "--quiet", "--memory", "1MiB"])
        .args(["--no-ledger", "--scratch", scratch.path().to_str().unwrap()])
        .output()
        .unwrap();
    // A table's own error stands in the report.
    let told = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).join("\n");
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("hint: free space there, or name another folder with --scratch"), "{told}");
    assert!(told.contains(scratch.path().to_str().unwrap()), "which folder: {told}");
    assert_eq!(target.scalar("SELECT count(*) FROM t"), before);
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "scratch files are gone");
}

#[test]
fn a_view_that_repeats_its_key_is_refused() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    numbers(&source, 1000);
    numbers(&target, 1000);
    source.execute("CREATE VIEW v AS SELECT * FROM t UNION ALL SELECT * FROM t WHERE id = 7919");
    let output = trueup(&["diff", &source.url(), &target.url(), "-t", "v=t", "-q"]);
    assert_eq!(output.status, 2, "{output:?}");
    let told = output.stdout + &output.stderr;
    assert!(told.contains("the key is not unique") && told.contains("--key"), "{told}");
}

#[test]
fn tables_that_share_no_column_are_refused() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    source.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)");
    target.execute("CREATE TABLE t (nr INTEGER PRIMARY KEY, b TEXT)");
    let output = trueup(&["diff", &source.url(), &target.url(), "-t", "t", "-q"]);
    assert_eq!(output.status, 2, "{output:?}");
    assert!(output.stdout.contains("key column id") && output.stdout.contains("--map id="), "{output:?}");
    assert_eq!(trueup(&["diff", &source.url(), &target.url(), "-t", "t", "-q", "--map", "id=nr"]).status, 0);
}

#[test]
fn ctrl_c_stops_both_sides() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        // Each row takes a while, so that there is a middle to stop in.
        db.execute(
            "CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t SELECT i, 'x' FROM generate_series(1, 2000) i;
             CREATE VIEW slow AS SELECT id, a || pg_sleep(0.05)::text AS a FROM t",
        );
    }
    let agent = Agent::start(&["--database", &source.url()], &[]);
    let target_url = target.url();
    let running = Command::new(env!("CARGO_BIN_EXE_trueup"))
        .env("XDG_STATE_HOME", state_home())
        .args(["diff", &format!("grpc://{}", agent.address), &target_url, "-t", "slow", "--key", "id", "-q"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let busy = |db: &PostgresDb| {
        db.scalar("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query LIKE 'COPY%'")
    };
    let until = |what: &str, done: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    until("both sides read", &|| {
        busy(&source).as_deref() == Some("1") && busy(&target).as_deref() == Some("1")
    });
    assert!(Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap().success());
    let output = running.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("interrupted"), "{told}");
    // The databases are let go of: also the one behind the agent, which goes on serving.
    until("the queries end", &|| {
        busy(&source).as_deref() == Some("0") && busy(&target).as_deref() == Some("0")
    });
}
