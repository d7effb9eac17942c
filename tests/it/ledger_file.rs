//! A coordinator's ledger in a file, while others look at it: nothing is lost, nothing is damaged, and nobody's log goes.
//!
//! `TRUEUP_SOAK_SECONDS=600 scripts/test --test it ledger_file:: -- --nocapture` looks for longer and prints the figures.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::support::process::trueup;
use super::support::serve::Serve;
use super::support::servers::SqliteDb;

fn time() -> Duration {
    let seconds = std::env::var("TRUEUP_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(20))
}

/// Runs the shell that everybody has, and gives what it printed.
fn shell(file: &Path, sql: &str) -> String {
    let output =
        Command::new("sqlite3").arg("-cmd").arg(".timeout 20000").arg(file).arg(sql).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{sql}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

const RUNS: &str = "SELECT count(*) FROM trueup_runs";

/// One who looks again and again: the number of runs only grows.
fn look(stop: &AtomicBool, looks: &AtomicU64, mut count: impl FnMut() -> u64) {
    let mut last = 0;
    while !stop.load(Ordering::SeqCst) {
        let now = count();
        assert!(now >= last, "{last} runs were there, {now} are");
        last = now;
        looks.fetch_add(1, Ordering::SeqCst);
    }
}

/// Files that the process has open and that have no name any more.
fn lost_files(pid: u32) -> Vec<PathBuf> {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let names = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    names
        .filter(|name| {
            name.to_string_lossy().contains("ledger.db") && name.to_string_lossy().ends_with("(deleted)")
        })
        .collect()
}

#[test]
fn a_ledger_is_looked_at_while_a_coordinator_writes_it() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO orders VALUES (1, 1), (2, 2)");
    }
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("trueup.toml");
    let checks: String = (0..4)
        .map(|n| format!("[checks.c{n}]\npair = \"p\"\nkind = \"rows\"\nschedule = \"every 1s\"\n"))
        .collect();
    std::fs::write(
        &config,
        format!(
            "[endpoints.a]\nurl = \"{}\"\n[endpoints.b]\nurl = \"{}\"\n[pairs.p]\nsource = \"a\"\ntarget = \"b\"\n{checks}",
            source.url(),
            target.url()
        ),
    )
    .unwrap();
    let ledger = dir.path().join("ledger.db");
    let url = ledger.to_str().unwrap().to_owned();
    let mut serve = Serve::start(&config, &url, &[]);
    serve.until_logged("checks ran");

    // First one at a time: who looks alone is the last to close the file, unless it can be seen that the coordinator has it.
    let alone = Instant::now();
    let mut runs = 0;
    while alone.elapsed() < time() / 3 {
        let now: u64 = shell(&ledger, RUNS).parse().unwrap();
        assert!(now >= runs, "{runs} runs were there, {now} are");
        runs = now;
        assert_eq!(
            lost_files(serve.pid()),
            Vec::<PathBuf>::new(),
            "the log was removed under the coordinator"
        );
        let copy = dir.path().join("copy.db");
        shell(&ledger, &format!(".backup {}", copy.display()));
        assert_eq!(shell(&copy, "PRAGMA integrity_check"), "ok");
        assert_eq!(
            lost_files(serve.pid()),
            Vec::<PathBuf>::new(),
            "the log was removed under the coordinator"
        );
        std::thread::sleep(Duration::from_millis(200));
    }

    // Then many.
    let (stop, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let hands: Vec<_> = (0..12)
        .map(|hand| {
            let (stop, looks, ledger, url) =
                (Arc::clone(&stop), Arc::clone(&looks), ledger.clone(), url.clone());
            let copy = dir.path().join(format!("copy-{hand}.db"));
            std::thread::spawn(move || match hand {
                // The shell, which opens, looks and closes, each time in a process of its own.
                0..4 => look(&stop, &looks, || shell(&ledger, RUNS).parse().unwrap()),
                // A backup, which is whole.
                4 => look(&stop, &looks, || {
                    shell(&ledger, &format!(".backup {}", copy.display()));
                    assert_eq!(shell(&copy, "PRAGMA integrity_check"), "ok");
                    shell(&copy, RUNS).parse().unwrap()
                }),
                // Readers that hold a transaction for longer than a run takes.
                5..9 => look(&stop, &looks, || {
                    let reader = rusqlite::Connection::open(&ledger).unwrap();
                    reader.busy_timeout(Duration::from_secs(20)).unwrap();
                    reader.execute_batch("BEGIN").unwrap();
                    let count = || reader.query_row(RUNS, [], |row| row.get::<_, i64>(0)).unwrap();
                    let before = count();
                    std::thread::sleep(Duration::from_millis(300 * hand));
                    assert_eq!(count(), before, "one moment is seen");
                    before.unsigned_abs()
                }),
                9..11 => look(&stop, &looks, || {
                    let reader = rusqlite::Connection::open(&ledger).unwrap();
                    reader.busy_timeout(Duration::from_secs(20)).unwrap();
                    reader.query_row(RUNS, [], |row| row.get::<_, i64>(0)).unwrap().unsigned_abs()
                }),
                // Our own commands.
                _ => look(&stop, &looks, || {
                    let verified = trueup(&["audit", "verify", "--ledger", &url]);
                    assert_eq!(verified.status, 0, "{verified:?}");
                    trueup(&["runs", "--limit", "100000", "--ledger", &url]).stdout.lines().count() as u64
                }),
            })
        })
        .collect();
    let began = Instant::now();
    while began.elapsed() < time() * 2 / 3 {
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(
            lost_files(serve.pid()),
            Vec::<PathBuf>::new(),
            "the log was removed under the coordinator"
        );
        assert!(hands.iter().all(|hand| !hand.is_finished()), "a reader failed");
    }
    stop.store(true, Ordering::SeqCst);
    hands.into_iter().for_each(|hand| hand.join().unwrap());
    serve.signal("TERM");
    assert_eq!(serve.wait(), 0);
    let log = serve.log();
    for bad in ["not recorded", "cannot be noted", "the ledger cannot be used", "could not run"] {
        assert!(!log.contains(bad), "{log}");
    }
    // Every run that ended is there, with its end.
    let ran = log.matches("checks ran").count();
    let ended = shell(&ledger, "SELECT count(*) FROM trueup_runs WHERE outcome = 'pass'");
    assert_eq!(ended, ran.to_string());
    assert_eq!(shell(&ledger, "PRAGMA integrity_check"), "ok");
    let verified = trueup(&["audit", "verify", "--ledger", &url]);
    assert!(verified.status == 0 && !verified.stdout.contains("has not ended"), "{verified:?}");
    println!("{} looks beside {ran} runs in {:?}", looks.load(Ordering::SeqCst), began.elapsed());
    assert!(ran as u64 >= time().as_secs() && looks.load(Ordering::SeqCst) > 10 * time().as_secs() / 2);
}

#[test]
fn a_ledger_that_another_process_holds_is_told_with_what_was_written_and_the_way_on() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, n INTEGER)");
    }
    source.execute("INSERT INTO orders VALUES (1, 1), (2, 2)");
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger.db");
    let url = ledger.to_str().unwrap();
    let (from, to) = (source.url(), target.url());
    assert_eq!(trueup(&["diff", &from, &to, "-q", "--ledger", url]).status, 1);
    let other = rusqlite::Connection::open(&ledger).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let held = trueup(&["repair", &from, &to, "-q", "--ledger", url]);
    assert_eq!(held.status, 2, "{held:?}");
    assert!(held.stderr.contains("nothing was written: the ledger"), "{held:?}");
    assert!(held.stderr.contains("is locked by another process"), "{held:?}");
    assert!(
        held.stderr.contains("run the same command again") && !held.stderr.contains("permissions"),
        "{held:?}"
    );
    drop(other);
    assert_eq!(trueup(&["repair", &from, &to, "-q", "--ledger", url]).status, 0);
}

#[test]
fn a_ledger_that_is_held_in_mid_run_stops_the_run_which_says_what_was_written() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, n INTEGER); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000) INSERT INTO orders SELECT i, i FROM n");
    }
    target.execute("UPDATE orders SET n = 0 WHERE id % 2 = 0");
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger.db");
    let path = ledger.to_str().unwrap().to_owned();
    let (from, to) = (source.url(), target.url());
    let running = std::thread::spawn(move || {
        let args = [
            "repair",
            &from,
            &to,
            "-q",
            "--max-changes",
            "100%",
            "--max-rows-per-second",
            "1500",
            "--ledger",
            &path,
        ];
        trueup(&args)
    });
    // Held as soon as something was written.
    let written = || {
        ledger.exists()
            && shell(&ledger, "SELECT count(*) FROM sqlite_schema WHERE name = 'trueup_audit'") == "1"
            && shell(&ledger, "SELECT count(*) FROM trueup_audit WHERE outcome = 'written'") != "0"
    };
    let began = Instant::now();
    while !written() {
        assert!(began.elapsed() < Duration::from_secs(60) && !running.is_finished());
        std::thread::sleep(Duration::from_millis(20));
    }
    let other = rusqlite::Connection::open(&ledger).unwrap();
    other.busy_timeout(Duration::from_secs(20)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // For longer than anybody waits for it, and not for ever: the end of the run is noted.
    let held = Instant::now();
    while held.elapsed() < Duration::from_secs(23) && !running.is_finished() {
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(other);
    let stopped = running.join().unwrap();
    assert_eq!(stopped.status, 2, "{stopped:?}");
    let said = format!("{}{}", stopped.stdout, stopped.stderr);
    let changed = target.scalar("SELECT count(*) FROM orders WHERE id % 2 = 0 AND n > 0").unwrap();
    assert_ne!(changed, "0");
    assert!(said.contains("is locked by another process") && said.contains("rows were written ("), "{said}");
    assert!(
        said.contains("run 0") && said.contains("or take back what was written: trueup undo 0"),
        "{said}"
    );
    assert!(!said.contains("permissions"), "{said}");
    let noted = trueup(&["runs", "--ledger", ledger.to_str().unwrap()]);
    assert!(noted.stdout.contains("unknown") || noted.stdout.contains("failed"), "{noted:?}");
}

#[test]
fn a_run_that_was_killed_is_closed_as_abandoned_and_one_that_lives_is_not() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, n INTEGER); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) INSERT INTO orders SELECT i, i FROM n");
    }
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger.db");
    let url = ledger.to_str().unwrap();
    let (from, to) = (source.url(), target.url());
    let args = ["diff", &from, &to, "-q", "--ledger", url, "--max-rows-per-second", "2000"];
    let running = super::support::process::Running::start(&args);
    let open = || trueup(&["runs", "--outcome", "open", "--ledger", url]).stdout.lines().count();
    let began = Instant::now();
    while !ledger.exists() || open() == 0 {
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(50));
    }
    let prune = || trueup(&["prune", "--keep", "1h", "--ledger", url]);
    let pruned = prune();
    assert!(pruned.status == 0 && !pruned.stdout.contains("abandoned"), "{pruned:?}");
    assert_eq!(open(), 1, "it lives");
    running.kill();
    let pruned = prune();
    assert!(pruned.stdout.contains("1 runs that died are closed as abandoned"), "{pruned:?}");
    assert_eq!(open(), 0);
    let listed = trueup(&["runs", "--ledger", url]);
    assert!(listed.stdout.contains("abandoned"), "{listed:?}");
    let verified = trueup(&["audit", "verify", "--ledger", url]);
    assert!(verified.status == 0 && !verified.stdout.contains("has not ended"), "{verified:?}");
    let list = trueup(&["audit", "list", "--ledger", url, "--format", "ndjson"]);
    assert!(list.stdout.lines().last().unwrap().contains("\"outcome\":\"abandoned\""), "{list:?}");
}
