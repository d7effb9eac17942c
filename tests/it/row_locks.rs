//! Rows that other sessions hold locks on: waited for as long as is said, then set aside alone; the rest is written.

use serde_json::Value;

use super::support::any::{AnyDb, Kind};
use super::support::held::Held;
use super::support::process::{Output, trueup};

const SERVERS: [Kind; 2] = [Kind::Postgres, Kind::Mysql];

/// Source and target with so many rows that all differ, thirty of them missing and thirty extra.
fn pair(kind: Kind) -> (AnyDb, AnyDb) {
    let (source, target) = (AnyDb::create(kind), AnyDb::create(kind));
    for db in [&source, &target] {
        db.execute("CREATE TABLE t (id bigint PRIMARY KEY, a varchar(20) NOT NULL)");
    }
    source.fill("t", 1..=330, "i, 'new'");
    target.fill("t", 1..=300, "i, 'old'");
    target.fill("t", 1001..=1030, "i, 'extra'");
    (source, target)
}

fn repair(source: &AnyDb, target: &AnyDb, more: &[&str]) -> Output {
    let (source, target) = (source.url(), target.url());
    let mut args = vec!["repair", &source, &target, "-t", "t", "--quiet", "--recheck-delay", "1ms"];
    args.extend(["--allow", "insert,update,delete", "--max-changes", "100%", "--lock-timeout", "1s"]);
    args.extend(["--format", "json"]);
    args.extend(more);
    trueup(&args)
}

/// Reason and count of each group of rows that were set aside.
fn groups(table: &Value) -> Vec<(&str, u64)> {
    let groups = table["rows_set_aside"].as_array().unwrap();
    groups.iter().map(|g| (g["reason"].as_str().unwrap(), g["count"].as_u64().unwrap())).collect()
}

#[test]
fn rows_that_others_hold_are_set_aside_and_the_rest_is_written() {
    for kind in SERVERS {
        let (source, target) = pair(kind);
        let lock = "SELECT * FROM t WHERE id IN (7, 250, 1010) FOR UPDATE";
        let held = Held::new(target.url(), &["BEGIN", lock, "INSERT INTO t VALUES (310, 'theirs')"]);
        let output = repair(&source, &target, &[]);
        let table = output.json()["tables"][0].clone();
        let said = format!("{kind:?} {output:?}");
        assert_eq!(output.status, 1, "{said}");
        assert_eq!(groups(&table), [("another session holds a lock on it", 4)], "{said}");
        let counts = ["updated", "inserted", "deleted"].map(|name| table[name].as_u64().unwrap());
        assert_eq!(counts, [298, 29, 29], "{said}");
        drop(held);
        assert_eq!(target.count("SELECT count(*) FROM t WHERE a = 'new'"), 327, "{said}");
        let again = repair(&source, &target, &[]);
        assert_eq!(again.status, 0, "{kind:?} {again:?}");
        assert_eq!(source.rows(), target.rows(), "{kind:?}");
    }
}

#[test]
fn a_table_that_another_session_holds_is_given_up_and_nothing_is_written() {
    for (kind, lock) in
        [(Kind::Postgres, "LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE"), (Kind::Mysql, "LOCK TABLES t READ")]
    {
        let (source, target) = pair(kind);
        let before = target.rows();
        let held = Held::new(target.url(), &["BEGIN", lock]);
        let output = repair(&source, &target, &[]);
        let table = output.json()["tables"][0].clone();
        let said = format!("{kind:?} {output:?}");
        assert_eq!(output.status, 1, "{said}");
        assert_eq!(table["set_aside"], 360, "{said}");
        assert!(groups(&table).iter().all(|(reason, _)| reason.contains("session")), "{said}");
        drop(held);
        assert_eq!(target.rows(), before, "{said}");
    }
}

#[test]
fn an_undo_leaves_the_rows_that_others_hold_and_says_so() {
    for kind in SERVERS {
        let (source, target) = pair(kind);
        let before = target.rows();
        let dir = tempfile::tempdir().unwrap();
        let ledger = dir.path().join("ledger.db").to_str().unwrap().to_owned();
        let repaired = repair(&source, &target, &["--ledger", &ledger]);
        assert_eq!(repaired.status, 0, "{kind:?} {repaired:?}");
        let held = Held::new(target.url(), &["BEGIN", "SELECT * FROM t WHERE id = 5 FOR UPDATE"]);
        let url = target.url();
        let undo =
            || trueup(&["undo", "last", "--target", &url, "--ledger", &ledger, "--lock-timeout", "1s"]);
        let part = undo();
        assert_eq!(part.status, 1, "{kind:?} {part:?}");
        assert!(part.stdout.contains("another session holds a lock on it"), "{kind:?} {part:?}");
        drop(held);
        let rows = target.rows();
        let left: Vec<_> = rows.iter().filter(|row| !before.contains(row)).collect();
        assert_eq!(left, [&(5, "new".to_owned())], "{kind:?}");
        let whole = undo();
        assert_eq!((whole.status, target.rows()), (0, before), "{kind:?} {whole:?}");
    }
}
