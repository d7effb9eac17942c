//! kill -9 of coordinator and agents, again and again, at random moments of backfills and repairs with a ledger: in the end
//! all is there, nothing twice, and the trail is whole and speaks of every row.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::support::process::{Agent, command, trueup};
use super::support::servers::PostgresDb;

const ROWS: i64 = 24_000;
const KILLS: u64 = 12;

struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

fn kill(pid: u32) {
    let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
}

/// Runs the command between fresh agents and kills one of the three after a while; whether it came before the end.
fn killed(args: &[&str], urls: [&str; 2], random: &mut Random) -> bool {
    let agents = [
        Agent::start(&["--database", urls[0]], &[]),
        Agent::start(&["--database", urls[1], "--allow-write"], &[]),
    ];
    let addresses = [0, 1].map(|at: usize| format!("grpc://{}", agents[at].address));
    let mut all = args.to_vec();
    all.splice(1..1, [addresses[0].as_str(), addresses[1].as_str()]);
    let mut command = command(&all, &[]);
    let mut coordinator = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (wait, victim) = (Duration::from_millis(150 + random.below(1_200)), random.below(3));
    let began = Instant::now();
    while began.elapsed() < wait && coordinator.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let in_the_middle = coordinator.try_wait().unwrap().is_none();
    match victim {
        0 => kill(agents[0].pid()),
        1 => kill(agents[1].pid()),
        _ => kill(coordinator.id()),
    }
    let began = Instant::now();
    while coordinator.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not end without its agent");
        std::thread::sleep(Duration::from_millis(10));
    }
    in_the_middle
}

#[test]
fn whatever_is_killed_all_is_there_once_and_the_trail_knows() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute(
            "CREATE TABLE t (id bigint PRIMARY KEY, at timestamptz NOT NULL, a text); CREATE INDEX ON t (at)",
        );
    }
    source.execute(&format!(
        "INSERT INTO t SELECT i, timestamptz '2026-01-01 00:00Z' + i * interval '1 minute', 'row ' || i FROM generate_series(0, {}) i",
        ROWS - 1
    ));
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger.db").to_str().unwrap().to_owned();
    let urls = [source.url(), target.url()];
    let mut random = Random(20_261_123);
    let common =
        ["--ledger", &ledger, "--keep-keys", "--format", "json", "--quiet", "--recheck-delay", "1ms"];
    let mut backfill = vec!["backfill", "-t", "t", "--on", "at", "--chunk-rows", "2000"];
    backfill.extend(common);
    let mut repair = vec![
        "repair",
        "-t",
        "t",
        "--limit",
        "0",
        "--max-changes",
        "100000",
        "--allow",
        "insert,update,delete",
    ];
    repair.extend(common);
    let whole = "SELECT count(*) || ' ' || sum(hashtextextended(t::text, 0)) FROM t";
    let mut in_the_middle = 0;
    for args in [&backfill, &repair] {
        for _ in 0..KILLS / 2 {
            in_the_middle += u32::from(killed(args, [&urls[0], &urls[1]], &mut random));
            let verified = trueup(&["audit", "verify", "--ledger", &ledger]);
            assert_eq!(verified.status, 0, "{verified:?}");
        }
        let mut last = args.clone();
        last.splice(1..1, [urls[0].as_str(), urls[1].as_str()]);
        let done = trueup(&last);
        assert_eq!(done.status, 0, "{done:?}");
        assert_eq!(source.scalar(whole), target.scalar(whole));
        if args[0] == "backfill" {
            trail_knows(&ledger, &source);
            target.execute(
                "UPDATE t SET a = 'old' WHERE id % 3 = 0; DELETE FROM t WHERE id % 5 = 1; INSERT INTO t SELECT -i, now(), 'extra' FROM generate_series(1, 500) i",
            );
        }
    }
    assert!(in_the_middle >= 6, "most kills must come in the middle: {in_the_middle} of {KILLS}");
    let open = trueup(&["runs", "--outcome", "open", "--ledger", &ledger, "--format", "ndjson"]);
    assert!(!open.stdout.is_empty(), "a coordinator that was killed leaves its run open");
}

/// Every row that is in the target was announced before it was written, and is noted as written at most once.
fn trail_knows(ledger: &str, source: &PostgresDb) {
    let list = trueup(&["audit", "export", "--ledger", ledger]);
    let mut announced = BTreeSet::new();
    let mut written: BTreeMap<String, u32> = BTreeMap::new();
    for line in list.stdout.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        if entry["kind"] == "intent" {
            let detail: serde_json::Value = serde_json::from_str(entry["detail"].as_str().unwrap()).unwrap();
            announced.extend(
                detail["keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()),
            );
        } else if entry["kind"] == "row" && entry["outcome"] == "written" {
            *written.entry(entry["key"].as_str().unwrap().to_owned()).or_default() += 1;
        } else if entry["kind"] == "rows" && entry["outcome"] == "written" {
            let detail: serde_json::Value = serde_json::from_str(entry["detail"].as_str().unwrap()).unwrap();
            for row in detail["rows"].as_array().unwrap() {
                *written.entry(row[0].as_str().unwrap().to_owned()).or_default() += 1;
            }
        }
    }
    let rows: usize = source.scalar("SELECT count(*) FROM t").unwrap().parse().unwrap();
    assert_eq!(announced.len(), rows, "every row was announced");
    assert!(written.keys().all(|key| announced.contains(key)));
    let twice: Vec<&String> = written.iter().filter(|(_, times)| **times > 1).map(|(key, _)| key).collect();
    assert!(twice.is_empty(), "written twice: {twice:?}");
}
