//! Tables under constant writes, with a target that follows its source some time behind: lag is never reported as a
//! difference, what truly differs is always found, and a newer write is never overwritten.
//!
//! `TRUEUP_SOAK_SECONDS=600 scripts/test --test it live -- --nocapture` soaks for longer and prints the figures.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::support::process::{Output, trueup};
use super::support::servers::PostgresDb;

/// Rows that the workload writes to; those above are still, and there the divergences are planted.
const BUSY: u64 = 3_000;
const STILL: u64 = 20_000;
const LAG: Duration = Duration::from_millis(400);
const STATEMENTS_PER_BATCH: usize = 30;
const BATCH_EVERY: Duration = Duration::from_millis(12);

/// `overwrites` counts writes that put an older version over a newer one.
const SETUP: &str = "CREATE TABLE t (id bigint PRIMARY KEY, version bigint NOT NULL, body text);
    CREATE TABLE beside (id bigint PRIMARY KEY, body text);
    CREATE TABLE overwrites (id bigint, was bigint, became bigint);
    CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.version < OLD.version THEN INSERT INTO overwrites VALUES (OLD.id, OLD.version, NEW.version); END IF;
        RETURN NEW; END $$;
    CREATE TRIGGER watch BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION watch();
    INSERT INTO t SELECT i, 0, 'row ' || i FROM generate_series(1, 23000) i";

/// A small generator of its own, so that a failure can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Updates, deletes, inserts and changes of the key of busy rows, with versions that only grow. A tenth of the rows is
/// written twice in a batch, and now and then a table beside is truncated.
fn batch(random: &mut Random, version: &mut u64) -> String {
    let mut sql = String::from("BEGIN;");
    // In key order, so that no two transactions wait for each other.
    let mut ids: Vec<u64> = (0..STATEMENTS_PER_BATCH).map(|_| 1 + random.below(BUSY)).collect();
    let twice: Vec<u64> = ids.iter().copied().filter(|_| random.below(10) == 0).collect();
    ids.extend(twice);
    ids.sort_unstable();
    if random.below(20) == 0 {
        sql += "TRUNCATE beside; INSERT INTO beside SELECT i, 'beside ' || i FROM generate_series(1, 50) i;";
    }
    for id in ids {
        *version += 1;
        sql += &match random.below(20) {
            0 | 1 => format!("DELETE FROM t WHERE id = {id};"),
            // The row moves to a key behind it, whose row goes.
            2 if id < BUSY => {
                let to = id + 1 + random.below(BUSY - id);
                format!(
                    "DELETE FROM t WHERE id = {to} AND EXISTS (SELECT 1 FROM t WHERE id = {id}); UPDATE t SET id = {to}, version = {version} WHERE id = {id};"
                )
            }
            _ => format!(
                "INSERT INTO t VALUES ({id}, {version}, 'v{version}') ON CONFLICT (id) DO UPDATE SET version = {version}, body = 'v{version}';"
            ),
        };
    }
    sql + "COMMIT"
}

struct Workload {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    running: std::thread::JoinHandle<()>,
}

impl Workload {
    /// Writes to the source, and the same to the target `LAG` later, in the same order.
    fn start(source: &str, target: &str) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (source, target) = (source.to_owned(), target.to_owned());
        let (stopped, count) = (stop.clone(), written.clone());
        let running = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut source = PgConnection::connect(&source).await.unwrap();
                let mut target = PgConnection::connect(&target).await.unwrap();
                let (mut random, mut version) = (Random(0x9e37_79b9_7f4a_7c15), 0);
                let mut behind: VecDeque<(Instant, String)> = VecDeque::new();
                let mut beat = tokio::time::interval(BATCH_EVERY);
                while !stopped.load(Ordering::Relaxed) || !behind.is_empty() {
                    if !stopped.load(Ordering::Relaxed) {
                        let sql = batch(&mut random, &mut version);
                        source.execute(sqlx::raw_sql(AssertSqlSafe(sql.clone()))).await.unwrap();
                        count.fetch_add(STATEMENTS_PER_BATCH as u64, Ordering::Relaxed);
                        behind.push_back((Instant::now(), sql));
                    }
                    while let Some((at, _)) = behind.front()
                        && at.elapsed() >= LAG
                    {
                        let (_, sql) = behind.pop_front().unwrap();
                        follow(&mut target, &sql).await;
                    }
                    beat.tick().await;
                }
            });
        });
        Self { stop, written, running }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.running.join().unwrap();
        self.written.load(Ordering::Relaxed)
    }
}

/// A repair that writes the same rows may be what the server lets go on: then the batch is written again.
async fn follow(target: &mut PgConnection, sql: &str) {
    let mut tries = 0;
    while let Err(error) = target.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await {
        tries += 1;
        assert!(tries < 20, "{error}");
        target.execute("ROLLBACK").await.unwrap();
    }
}

fn run(command: &str, source: &PostgresDb, target: &PostgresDb) -> (Output, [u64; 4]) {
    let (source, target) = (source.url(), target.url());
    let mut args = vec![command, &source, &target, "-t", "t", "--format", "json", "--quiet"];
    args.extend(["--recheck", "3", "--recheck-delay", "600ms"]);
    if command == "repair" {
        args.extend(["--allow", "insert,update,delete"]);
    }
    let output = trueup(&args);
    let table = output.json()["tables"][0].clone();
    let counts = ["missing", "changed", "extra", "in_flight"].map(|name| table[name].as_u64().unwrap());
    (output, counts)
}

#[test]
fn lag_is_no_difference_and_no_newer_write_is_lost() {
    let seconds = std::env::var("TRUEUP_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    source.execute(SETUP);
    target.execute(SETUP);
    let workload = Workload::start(&source.url(), &target.url());
    let (began, mut random) = (Instant::now(), Random(7));
    let (mut runs, mut in_flight, mut planted, mut unsettled) = (0, 0, 0, 0);
    while began.elapsed() < Duration::from_secs(seconds) || runs < 4 {
        // Nothing planted: nothing may be reported.
        let (output, [missing, changed, extra, passing]) = run("diff", &source, &target);
        assert_eq!([missing, changed, extra], [0, 0, 0], "{output:?}");
        assert_ne!(output.status, 1, "{output:?}");
        unsettled += u64::from(output.status == 2);
        in_flight += passing;
        // Three planted: exactly these are found and mended.
        let at: Vec<u64> = (0..3).map(|n| BUSY + 1 + n * (STILL / 3) + random.below(STILL / 3)).collect();
        target.execute(&format!(
            "UPDATE t SET body = 'drift' WHERE id = {}; DELETE FROM t WHERE id = {}; INSERT INTO t VALUES ({}, 0, 'extra')",
            at[0], at[1], 1_000_000 + at[2]
        ));
        let command = if runs % 4 == 0 { "diff" } else { "repair" };
        let (output, [missing, changed, extra, passing]) = run(command, &source, &target);
        assert_eq!([missing, changed, extra], [1, 1, 1], "{command} {output:?}");
        assert!(command == "repair" || output.status == 1, "a false \"same\": {output:?}");
        in_flight += passing;
        if command == "diff" {
            let (output, counts) = run("repair", &source, &target);
            assert_eq!(counts[..3], [1, 1, 1], "{output:?}");
            runs += 1;
        }
        planted += 3;
        runs += 2;
    }
    let writes = workload.end();
    let (output, counts) = run("diff", &source, &target);
    assert_eq!((output.status, counts), (0, [0; 4]), "{output:?}");
    assert_eq!(
        target.scalar("SELECT count(*) FROM overwrites").as_deref(),
        Some("0"),
        "a newer write was overwritten"
    );
    assert!(in_flight > 0, "the load was too small to be seen");
    println!(
        "{writes} writes in {:.0} s, {runs} runs, {planted} planted and found, {in_flight} rows in flight, {unsettled} times not known, 0 false alarms, 0 misses, 0 false \"same\", 0 lost updates",
        began.elapsed().as_secs_f64()
    );
}
