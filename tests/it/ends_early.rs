//! Runs whose ledger goes away, and files of SQL of runs that are stopped.

use std::process::Command;
use std::time::{Duration, Instant};

use super::support::process::command;
use super::support::servers::SqliteDb;

fn many() -> (SqliteDb, SqliteDb) {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v INT)");
    }
    source.execute("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000) INSERT INTO t SELECT i, i FROM n");
    (source, target)
}

fn rows(db: &SqliteDb) -> u64 {
    db.scalar("SELECT count(*) FROM t").unwrap().parse().unwrap()
}

#[test]
fn a_ledger_that_is_removed_in_mid_run_stops_the_writes() {
    for remove in [true, false] {
        let (source, target) = many();
        let dir = tempfile::tempdir().unwrap();
        let ledger = dir.path().join("l.db");
        let (from, to) = (source.url(), target.url());
        let args =
            ["repair", &from, &to, "--max-rows-per-second", "1000", "--ledger", ledger.to_str().unwrap()];
        let child = command(&args, &[]).spawn().unwrap();
        let begun = Instant::now();
        while rows(&target) == 0 && begun.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(50));
        }
        for file in ["l.db", "l.db-wal", "l.db-shm"].map(|name| dir.path().join(name)) {
            if remove {
                let _ = std::fs::remove_file(&file);
            } else {
                let _ = std::fs::rename(&file, file.with_extension("moved"));
            }
        }
        let ended = child.wait_with_output().unwrap();
        let said =
            String::from_utf8_lossy(&ended.stderr).into_owned() + &String::from_utf8_lossy(&ended.stdout);
        assert_eq!(ended.status.code(), Some(2), "{said}");
        assert!(said.contains("was removed, renamed or replaced"), "{said}");
        assert!(rows(&target) < 6_000, "{said}");
    }
}

#[test]
fn a_file_of_sql_of_a_run_that_is_stopped_replaces_nothing() {
    let (source, target) = many();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f.sql");
    std::fs::write(&file, "old").unwrap();
    let (from, to) = (source.url(), target.url());
    let args = [
        "repair",
        &from,
        &to,
        "--no-ledger",
        "--dry-run",
        "--sql",
        file.to_str().unwrap(),
        "--overwrite",
        "--recheck-delay",
        "20s",
    ];
    let child = command(&args, &[]).spawn().unwrap();
    // What is collected stands beside the file from the run's beginning on.
    let begun = Instant::now();
    let files = || std::fs::read_dir(dir.path()).unwrap().count();
    while files() < 2 && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_millis(500));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["f.sql"], "{ended:?}");
}
