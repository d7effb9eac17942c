//! Rows that the database refuses in a run under a condition: told as missing, with the reason, as without the condition.

use serde_json::Value;

use super::support::any::{AnyDb, KINDS, Kind};
use super::support::process::trueup;
use super::support::servers::SqliteDb;

fn told(args: &[&str]) -> (i32, Value) {
    let more = ["--quiet", "--recheck-delay", "1ms", "--format", "json", "--no-ledger"];
    let output = trueup(&[args, &more].concat());
    (output.status, output.json()["tables"][0].clone())
}

fn counts(table: &Value) -> [u64; 3] {
    ["set_aside", "unsettled", "inserted"].map(|name| table[name].as_u64().unwrap())
}

/// Table, what the source has, what the target has, and a word of the reason.
fn cases(kind: Kind) -> Vec<(&'static str, &'static str, &'static str, &'static str)> {
    let parent = match kind {
        Kind::Mysql => "CREATE TABLE t (id int PRIMARY KEY, n int, v int, FOREIGN KEY (v) REFERENCES p (id))",
        _ => "CREATE TABLE t (id int PRIMARY KEY NOT NULL, n int, v int REFERENCES p (id))",
    };
    vec![
        // Who has the value already lies outside of the condition, inside of it, and in no range at all.
        (
            "CREATE TABLE t (id int PRIMARY KEY NOT NULL, n int, v int UNIQUE)",
            "(1, 10, 1)",
            "(2, 20, 1)",
            "unique",
        ),
        (
            "CREATE TABLE t (id int PRIMARY KEY NOT NULL, n int, v int UNIQUE)",
            "(1, 10, 1)",
            "(2, 10, 1)",
            "unique",
        ),
        (
            "CREATE TABLE t (id int PRIMARY KEY NOT NULL, n int, v int UNIQUE)",
            "(1, 10, 1)",
            "(2, NULL, 1)",
            "unique",
        ),
        (parent, "(1, 10, 3)", "", "foreign key"),
    ]
}

#[test]
fn a_missing_row_that_is_refused_is_set_aside_with_its_reason() {
    for kind in KINDS {
        for (table, source_row, target_row, word) in cases(kind) {
            let (source, target) = (AnyDb::create(kind), AnyDb::create(kind));
            for db in [&source, &target] {
                db.execute("CREATE TABLE p (id int PRIMARY KEY NOT NULL)");
                db.execute(table);
            }
            source.execute("INSERT INTO p VALUES (3)");
            source.execute(&format!("INSERT INTO t VALUES {source_row}"));
            if !target_row.is_empty() {
                target.execute(&format!("INSERT INTO t VALUES {target_row}"));
            }
            let (s, t) = (source.url(), target.url());
            let ways = [
                told(&["repair", &s, &t, "-t", "t", "--where", "n < 15"]),
                told(&["backfill", &s, &t, "-t", "t", "--on", "n", "--to", "15"]),
                told(&[
                    "backfill", &s, &t, "-t", "t", "--on", "n", "--from", "5", "--to", "15", "--step", "5",
                ]),
                told(&["repair", &s, &t, "-t", "t"]),
            ];
            for (at, (status, report)) in ways.iter().enumerate() {
                let said = format!("{kind:?} {table} {target_row} way {at}: {report}");
                assert_eq!(*status, 1, "{said}");
                assert_eq!(counts(report), [1, 0, 0], "{said}");
                let reason = report["rows_set_aside"][0]["reason"].as_str().unwrap().to_lowercase();
                let reason = reason.replace("it refers to a row that is not there", "foreign key");
                assert!(reason.contains(word), "{said}");
            }
        }
    }
}

#[test]
fn a_check_that_repairs_under_a_condition_says_what_was_refused() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v INT UNIQUE)");
    }
    source.execute("INSERT INTO t VALUES (1, 1)");
    target.execute("INSERT INTO t VALUES (7, 1)");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trueup.toml");
    let text = format!(
        "[endpoints.a]\nurl = \"{}\"\n[endpoints.b]\nurl = \"{}\"\n[pairs.p]\nsource = \"a\"\ntarget = \"b\"\ntables = [{{ table = \"t\", where = \"id < 5\" }}]\n\
         [checks.rows]\npair = \"p\"\nkind = \"rows\"\nrepair = {{ up_to = 5 }}\n",
        source.url(),
        target.url()
    );
    std::fs::write(&file, text).unwrap();
    let args = ["check", "-c", file.to_str().unwrap(), "-q", "--recheck-delay", "1ms", "--format", "json"];
    let output = trueup(&args);
    let check = output.json()["checks"][0].clone();
    assert_eq!((output.status, check["status"].as_str()), (1, Some("fail")), "{check}");
    assert!(check["message"].as_str().unwrap().contains("1 missing"), "{check}");
}

#[test]
fn rows_that_are_left_have_their_reason() {
    for kind in KINDS {
        let (source, target) = (AnyDb::create(kind), AnyDb::create(kind));
        for db in [&source, &target] {
            db.execute("CREATE TABLE b (id int PRIMARY KEY NOT NULL, n int, code int UNIQUE)");
            db.execute("CREATE TABLE a (id int PRIMARY KEY NOT NULL, code int, FOREIGN KEY (code) REFERENCES b (code) ON UPDATE CASCADE ON DELETE CASCADE)");
        }
        source.execute("INSERT INTO b VALUES (1, 1, 5), (2, 2, 6); INSERT INTO a VALUES (1, 6)");
        target.execute("INSERT INTO b VALUES (1, 1, 6), (2, 2, 5), (3, 3, 9); INSERT INTO a VALUES (1, 6)");
        let (s, t) = (source.url(), target.url());
        for (way, args) in [
            ("repair", vec!["repair", &s, &t, "-t", "b"]),
            ("backfill", vec!["backfill", &s, &t, "-t", "b", "--on", "n"]),
        ] {
            let (status, table) = told(&args);
            let said = format!("{kind:?} {way} {table}");
            let because = &table["left_because"];
            assert_eq!(status, 1, "{said}");
            let reasons = because.as_object().unwrap();
            let total: u64 = reasons.values().map(|rows| rows.as_u64().unwrap()).sum();
            assert_eq!(total, 3, "{said}");
            assert!(reasons.keys().any(|reason| reason.contains("--allow-cascade")), "{said}");
            assert!(reasons.keys().any(|reason| reason.contains("delete is not allowed")), "{said}");
        }
        let text = trueup(&["repair", &s, &t, "-t", "b", "-q", "--no-ledger"]).stdout;
        assert!(
            text.contains("2 left: ") && text.contains("1 left: delete is not allowed"),
            "{kind:?} {text}"
        );
    }
}
