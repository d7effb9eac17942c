//! A coordinator that is ended before any statement of its ledger, again and again: nothing is told twice under another id,
//! nothing told changes, nothing is lost, and the trail is whole.
//!
//! The fail point is in debug builds alone, and so are these tests.
//!
//! `TRUEUP_SOAK_SECONDS=600 scripts/test --test it serve_kills:: -- --nocapture` goes on for longer and prints the figures.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::support::process::{command, trueup};
use super::support::receiver::Receiver;
use super::support::serve::{Serve, arguments};
use super::support::servers::{PostgresDb, SqliteDb};

/// Statements of a coordinator that runs for some seconds: begin, beats, runs, ends of checks, messages.
const STATEMENTS: u64 = 120;

fn seconds() -> Option<u64> {
    std::env::var("TRUEUP_SOAK_SECONDS").ok().and_then(|text| text.parse().ok())
}

fn killed_everywhere(ledger: &str, kills: u64) -> String {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO orders VALUES (1, 1), (2, 2)");
    }
    let receiver = Receiver::start(3);
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("trueup.toml");
    std::fs::write(
        &config,
        format!(
            "[endpoints.a]\nurl = \"{}\"\n[endpoints.b]\nurl = \"{}\"\n[pairs.p]\nsource = \"a\"\ntarget = \"b\"\n[serve]\nlease = \"2s\"\n\
             [checks.rows]\npair = \"p\"\nkind = \"rows\"\nschedule = \"every 1s\"\n[checks.counts]\npair = \"p\"\nkind = \"sum\"\ncolumn = \"n\"\nschedule = \"every 1s\"\n\
             [alerts.ops]\nkind = \"webhook\"\nurl = \"{}\"\ngroup = \"0s\"\nretry = \"200ms\"\n",
            source.url(),
            target.url(),
            receiver.url()
        ),
    )
    .unwrap();
    let began = Instant::now();
    let is_over = |kill: u64| match seconds() {
        Some(seconds) => began.elapsed() > Duration::from_secs(seconds),
        None => kill >= kills,
    };
    let (mut kill, mut died) = (0, 0);
    while !is_over(kill) {
        // All statements in turn, in strides that meet each of them in the end.
        let statement = (kill * 37) % STATEMENTS;
        let number = statement.to_string();
        let mut child = command(&arguments(&config, ledger), &[("TRUEUP_END_BEFORE_STATEMENT", &number)])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // What is wrong comes and goes.
        target.execute(if kill % 6 < 3 {
            "UPDATE orders SET n = 5 WHERE id = 2"
        } else {
            "UPDATE orders SET n = 2 WHERE id = 2"
        });
        let started = Instant::now();
        loop {
            if child.try_wait().unwrap().is_some() {
                died += 1;
                break;
            }
            if started.elapsed() > Duration::from_secs(15) {
                child.kill().unwrap();
                child.wait().unwrap();
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        kill += 1;
    }
    assert!(died >= kill * 9 / 10, "{died} of {kill} were ended by the fail point");

    // One that lives brings all to an end.
    target.execute("UPDATE orders SET n = 9 WHERE id = 2");
    let mut serve = Serve::start(&config, ledger, &[]);
    let alerts = || {
        let mut alerts: BTreeMap<String, serde_json::Value> = BTreeMap::new();
        let mut documents: BTreeMap<String, String> = BTreeMap::new();
        for received in receiver.all() {
            let delivery = received.header("x-trueup-delivery").unwrap();
            let known = documents.entry(delivery).or_insert_with(|| received.body.clone());
            assert_eq!(*known, received.body, "the same message under the same id");
            for alert in received.json()["alerts"].as_array().unwrap() {
                let id = alert["id"].as_str().unwrap().to_owned();
                assert_eq!(*alerts.entry(id).or_insert_with(|| alert.clone()), *alert);
            }
        }
        alerts
    };
    let ready = Instant::now();
    let open = || {
        let last: BTreeMap<String, String> = alerts()
            .into_values()
            .map(|alert| {
                (alert["key"].as_str().unwrap().to_owned(), alert["action"].as_str().unwrap().to_owned())
            })
            .collect();
        last
    };
    // Ran twice at least since it lives.
    while serve.log().matches("checks ran").count() < 6 {
        assert!(ready.elapsed() < Duration::from_secs(60), "{}", serve.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    while open().values().any(|action| action != "firing") || open().is_empty() {
        // What came and went too often is told no more; then the ledger alone knows.
        if ready.elapsed() > Duration::from_secs(10) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    serve.signal("TERM");
    assert_eq!(serve.wait(), 0);
    // Ids sort by time: of each check and table, firing and resolved take turns.
    let mut state: BTreeMap<String, String> = BTreeMap::new();
    for alert in alerts().values() {
        let (key, action) = (alert["key"].as_str().unwrap(), alert["action"].as_str().unwrap());
        let before = state.insert(key.to_owned(), action.to_owned());
        let expected = if before.as_deref() == Some("firing") { "resolved" } else { "firing" };
        assert_eq!(action, expected, "{key}: {:?}", alerts().values().collect::<Vec<_>>());
    }
    assert!(!state.is_empty());
    let verified = trueup(&["audit", "verify", "--ledger", ledger]);
    assert!(verified.status == 0 && !verified.stdout.contains("has not ended"), "{verified:?}");
    let abandoned = trueup(&["runs", "--outcome", "abandoned", "--limit", "100000", "--ledger", ledger])
        .stdout
        .lines()
        .count();
    let figures = format!(
        "{kill} kills, {died} by statement, {abandoned} runs closed as abandoned, {} alerts in {} requests",
        alerts().len(),
        receiver.all().len()
    );
    let file = std::path::Path::new(ledger);
    if file.exists() {
        let check = rusqlite::Connection::open(file).unwrap();
        let said: String = check.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(said, "ok");
    }
    figures
}

#[test]
fn on_a_file() {
    let dir = tempfile::tempdir().unwrap();
    println!("{}", killed_everywhere(dir.path().join("ledger.db").to_str().unwrap(), 20));
}

#[test]
fn on_postgresql() {
    let ledger = PostgresDb::create();
    println!("{}", killed_everywhere(&ledger.url(), 12));
}
