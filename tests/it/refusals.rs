//! What the database refuses: told by reason, stopped early where it is hopeless, and never at the cost of the rest. And runs
//! that the ledger stops: what was written by then is said.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::any::{AnyDb, KINDS, Kind};
use super::support::process::{Output, trueup};
use super::support::servers::{PostgresDb, SqliteDb};

const CHILDREN: u32 = 16_000;

fn repair(source: &str, target: &str, more: &[&str]) -> Output {
    let mut args =
        vec!["repair", source, target, "--quiet", "--recheck-delay", "1ms", "--max-changes", "1000000"];
    args.extend(more);
    trueup(&args)
}

fn json(source: &str, target: &str, more: &[&str]) -> Value {
    repair(source, target, &[&["--format", "json"], more].concat()).json()
}

#[test]
fn a_missing_parent_of_many_children_takes_seconds() {
    for kind in [Kind::Postgres, Kind::Mysql, Kind::Sqlite] {
        for scattered in [false, true] {
            let (source, target) = (AnyDb::create(kind), AnyDb::create(kind));
            source.execute("CREATE TABLE t (id bigint PRIMARY KEY, parent bigint)");
            source.fill("t", 1..=CHILDREN, "i, 1");
            target.execute("CREATE TABLE parents (id bigint PRIMARY KEY)");
            target.execute("CREATE TABLE t (id bigint PRIMARY KEY, parent bigint, CONSTRAINT fk_parent FOREIGN KEY (parent) REFERENCES parents (id))");
            if scattered {
                // Not missing in one piece: they are found and written by their keys.
                target.fill("t", 1..=CHILDREN, "i, NULL");
            }
            let began = Instant::now();
            let report = json(&source.url(), &target.url(), &["-t", "t"]);
            let took = began.elapsed();
            let table = &report["tables"][0];
            let said = format!("{kind:?} {scattered} {took:?} {table}");
            assert_eq!(table["set_aside"], CHILDREN, "{said}");
            let groups = table["rows_set_aside"].as_array().unwrap();
            assert_eq!(groups.len(), 2, "those that were refused, and those that were not tried: {said}");
            let counts: u64 = groups.iter().map(|group| group["count"].as_u64().unwrap()).sum();
            assert_eq!(counts, u64::from(CHILDREN), "{said}");
            assert!(groups.iter().all(|group| group["examples"].as_array().unwrap().len() <= 3), "{said}");
            assert!(groups.iter().any(|group| group["count"] == 1_000), "two batches were tried: {said}");
            assert!(took < Duration::from_secs(40), "{said}");
            println!("{kind:?}, scattered {scattered}: {took:?}");
        }
    }
}

#[test]
fn the_limit_bounds_every_list() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    source.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) INSERT INTO t SELECT i, -i FROM n");
    target.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER CHECK (n > 0 OR n % 3 = 0))");
    for (limit, named) in [("0", 0), ("2", 2), ("100", 3)] {
        let output = repair(&source.url(), &target.url(), &["-t", "t", "--limit", limit]);
        assert_eq!(output.status, 1, "{output:?}");
        let lines: Vec<&str> = output.stdout.lines().filter(|line| line.contains("set aside: ")).collect();
        assert_eq!(lines.len(), 1, "{output:?}");
        assert!(lines[0].contains("600 set aside: "), "{output:?}");
        assert_eq!(lines[0].matches("id=").count(), named, "{output:?}");
        let ndjson =
            repair(&source.url(), &target.url(), &["-t", "t", "--limit", limit, "--format", "ndjson"]);
        assert_eq!(
            ndjson.stdout.lines().filter(|line| line.contains("\"set_aside\",")).count(),
            1,
            "{ndjson:?}"
        );
    }
}

#[test]
fn a_column_that_cannot_be_filled_is_said_before_the_first_write() {
    for kind in KINDS {
        let (source, target) = (AnyDb::create(kind), AnyDb::create(kind));
        source.execute("CREATE TABLE t (id bigint PRIMARY KEY, a varchar(20))");
        source.fill("t", 1..=3_000, "i, 'new'");
        target.execute("CREATE TABLE t (id bigint PRIMARY KEY, a varchar(20), made varchar(9) NOT NULL)");
        target.execute("INSERT INTO t VALUES (1, 'old', 'x'); INSERT INTO t VALUES (5, 'new', 'y')");
        let report = json(&source.url(), &target.url(), &["-t", "t", "--exclude", "made"]);
        let table = &report["tables"][0];
        // Rows that are there are repaired; of the others none is tried.
        assert_eq!(
            (&table["updated"], &table["inserted"]),
            (&Value::from(1), &Value::from(0)),
            "{kind:?} {table}"
        );
        assert_eq!(
            (&table["missing"], &table["set_aside"]),
            (&Value::from(2_998), &Value::from(2_998)),
            "{table}"
        );
        let groups = table["rows_set_aside"].as_array().unwrap();
        assert_eq!(groups.len(), 1, "{table}");
        assert_eq!(groups[0]["reason"], "column made is not compared and has no default");
        // One that the database fills is no obstacle.
        target.execute("DROP TABLE t");
        target.execute(
            "CREATE TABLE t (id bigint PRIMARY KEY, a varchar(20), made varchar(9) DEFAULT 'd' NOT NULL)",
        );
        let report = json(&source.url(), &target.url(), &["-t", "t", "--exclude", "made"]);
        assert_eq!(report["tables"][0]["inserted"], 3_000, "{kind:?}");
        assert_eq!(target.count("SELECT count(*) FROM t WHERE made = 'd'"), 3_000);
    }
}

#[test]
fn children_of_a_refused_table_are_held_back_and_still_compared() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for (db, ty) in [(&source, "timestamp"), (&target, "timestamptz")] {
        db.execute(&format!(
            "CREATE TABLE film (id int PRIMARY KEY, at {ty}); CREATE TABLE copy (id int PRIMARY KEY, film int REFERENCES film);
             CREATE TABLE rental (id int PRIMARY KEY, copy int REFERENCES copy); CREATE TABLE other (id int PRIMARY KEY, a text);
             INSERT INTO film VALUES (1, now()); INSERT INTO copy VALUES (1, 1); INSERT INTO other VALUES (1, 'a')"
        ));
    }
    source.execute("INSERT INTO film VALUES (2, now()); INSERT INTO copy SELECT i, 2 FROM generate_series(2, 900) i; INSERT INTO rental SELECT i, i FROM generate_series(1, 900) i; UPDATE other SET a = 'b'");
    let output = repair(&source.url(), &target.url(), &["--format", "json"]);
    assert_eq!(output.status, 2, "{output:?}");
    let report = output.json();
    let table = |name: &str| {
        report["tables"]
            .as_array()
            .unwrap()
            .iter()
            .find(|table| table["target_table"].as_str().unwrap().ends_with(name))
            .unwrap()
            .clone()
    };
    assert!(!table("film")["error"].is_null());
    for (child, parent, missing) in [("copy", "film", 899), ("rental", "copy", 900)] {
        let table = table(child);
        assert_eq!(
            (&table["verdict"], &table["missing"], &table["inserted"]),
            (&Value::from("different"), &Value::from(missing), &Value::from(0)),
            "{table}"
        );
        let warnings = table["warnings"].to_string();
        assert!(
            warnings.contains("nothing was written: it refers to") && warnings.contains(parent),
            "{table}"
        );
        assert_eq!(table["rows_set_aside"].as_array().unwrap().len(), 0);
    }
    assert_eq!(
        (&table("other")["updated"], &table("other")["verdict"]),
        (&Value::from(1), &Value::from("same"))
    );
    assert_eq!(target.scalar("SELECT count(*) FROM rental").as_deref(), Some("0"));
}

#[test]
fn rows_that_refer_to_later_rows_of_their_table_are_written_all_the_same() {
    for kind in KINDS {
        let (source, target) = (AnyDb::create(kind), AnyDb::create(kind));
        for db in [&source, &target] {
            db.execute(
                "CREATE TABLE t (id bigint PRIMARY KEY, next bigint, FOREIGN KEY (next) REFERENCES t (id))",
            );
        }
        // The last thousand rows are their own ends; the others point far behind the first batches.
        source.fill("t", 3_001..=4_000, "i, NULL");
        source.fill("t", 1..=3_000, "i, 3001 + i % 1000");
        let report = json(&source.url(), &target.url(), &["-t", "t"]);
        let table = &report["tables"][0];
        assert_eq!(
            (&table["inserted"], &table["verdict"]),
            (&Value::from(4_000), &Value::from("same")),
            "{kind:?} {table}"
        );
    }
}

/// A ledger of the test's own that takes no entry behind the first so many.
fn full_ledger(ledger: &str, source: &str, entries: u32) {
    let made = trueup(&["diff", source, source, "-t", "t=u", "--quiet", "--ledger", ledger]);
    assert!(made.status < 2, "{made:?}");
    rusqlite::Connection::open(ledger)
        .unwrap()
        .execute_batch(&format!(
            "CREATE TRIGGER full BEFORE INSERT ON trueup_audit WHEN NEW.seq > {entries}
             BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        ))
        .unwrap();
}

#[test]
fn a_ledger_that_fails_stops_the_run_and_what_was_written_is_said() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for (db, a) in [(&source, "new"), (&target, "old")] {
        db.execute(&format!(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT); CREATE TABLE u (id INTEGER PRIMARY KEY, a TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) INSERT INTO t SELECT i, '{a}' FROM n"
        ));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut said = 0;
    // The diff's two entries and the repair's first; then intents and outcomes by turns.
    for entries in 3..20 {
        target.execute("UPDATE t SET a = 'old'");
        let ledger = dir.path().join(format!("{entries}.db")).to_str().unwrap().to_owned();
        full_ledger(&ledger, &source.url(), entries);
        let output =
            repair(&source.url(), &target.url(), &["-t", "t", "--format", "json", "--ledger", &ledger]);
        if output.status == 0 {
            break;
        }
        assert_eq!(output.status, 2, "{output:?}");
        let stopped = &output.json()["stopped"];
        let run = output.json()["run"].as_str().unwrap().to_owned();
        let there: u64 = target.scalar("SELECT count(*) FROM t WHERE a = 'new'").unwrap().parse().unwrap();
        let (updated, unknown) = (stopped["updated"].as_u64().unwrap(), stopped["unknown"].as_u64().unwrap());
        assert!(updated <= there && there <= updated + unknown, "{there} are there: {output:?}");
        let why = ["it cannot be recorded", "the ledger cannot note it"];
        assert!(why.iter().any(|why| output.stderr.contains(why)), "{output:?}");
        assert!(output.stderr.contains(&format!("run {run}")), "{output:?}");
        if there > 0 {
            said += 1;
            assert!(output.stderr.contains("rows were written") || unknown > 0, "{output:?}");
            // A run that came to its end needs no way on.
            if output.stderr.contains(why[0]) {
                let undo = format!("trueup undo {run}");
                assert!(output.stderr.contains(&undo), "{output:?}");
                assert!(stopped["hint"].as_str().unwrap().contains(&undo), "{output:?}");
            }
        }
        rusqlite::Connection::open(&ledger).unwrap().execute_batch("DROP TRIGGER full").unwrap();
        let again = repair(&source.url(), &target.url(), &["-t", "t", "--ledger", &ledger]);
        assert_eq!(again.status, 0, "{again:?}");
        assert_eq!(trueup(&["audit", "verify", "--ledger", &ledger]).status, 0);
    }
    assert!(said >= 2, "the ledger must fail behind the first batch too: {said}");
}

#[test]
fn a_table_that_fails_half_way_says_what_was_written() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for (db, a) in [(&source, "new"), (&target, "old")] {
        db.execute(&format!("CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t SELECT i, '{a}' FROM generate_series(1, 3000) i"));
    }
    // The rows from 2,000 on fail with an error that is no refusal of a row.
    target.execute(
        "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.id >= 2000 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NEW; END $$;
         CREATE TRIGGER fails BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION fails()",
    );
    for ledger in [true, false] {
        target.execute(
            "ALTER TABLE t DISABLE TRIGGER fails; UPDATE t SET a = 'old'; ALTER TABLE t ENABLE TRIGGER fails",
        );
        let none: &[&str] = if ledger { &[] } else { &["--no-ledger"] };
        let output = repair(&source.url(), &target.url(), &[&["-t", "t", "--format", "json"], none].concat());
        assert_eq!(output.status, 2, "{output:?}");
        let report = output.json();
        let there: u64 = target.scalar("SELECT count(*) FROM t WHERE a = 'new'").unwrap().parse().unwrap();
        assert!(there > 0, "{output:?}");
        assert_eq!(report["tables"][0]["updated"].as_u64(), Some(there), "{output:?}");
        if ledger {
            let run = report["run"].as_str().unwrap();
            assert!(report["hint"].as_str().unwrap().contains(&format!("trueup undo {run}")), "{report}");
        }
        target.execute(
            "ALTER TABLE t DISABLE TRIGGER fails; UPDATE t SET a = 'old'; ALTER TABLE t ENABLE TRIGGER fails",
        );
        let text = repair(&source.url(), &target.url(), &[&["-t", "t"], none].concat());
        assert!(text.stdout.contains("rows were written before"), "{text:?}");
    }
}

#[test]
fn rows_that_need_each_other_are_said_to_and_a_file_writes_them() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute(
            "CREATE TABLE team (id int PRIMARY KEY, captain int NOT NULL);
             CREATE TABLE player (id int PRIMARY KEY, team int NOT NULL REFERENCES team DEFERRABLE INITIALLY DEFERRED);
             ALTER TABLE team ADD FOREIGN KEY (captain) REFERENCES player DEFERRABLE",
        );
    }
    // Team 3 has a captain that is there already: its row waits for nobody's but the player's.
    source.execute(
        "BEGIN; SET CONSTRAINTS ALL DEFERRED; INSERT INTO team VALUES (1, 10), (2, 20), (3, 10);
         INSERT INTO player VALUES (10, 1), (20, 2), (30, 3); COMMIT",
    );
    let (s, t) = (source.url(), target.url());
    let report = json(&s, &t, &[]);
    for table in report["tables"].as_array().unwrap() {
        let warnings = table["warnings"].to_string();
        assert!(warnings.contains("refer to each other") && warnings.contains("--sql"), "{table}");
        assert_eq!(table["verdict"], "different", "{table}");
    }
    assert_eq!(target.scalar("SELECT count(*) FROM player").as_deref(), Some("0"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fix.sql").to_str().unwrap().to_owned();
    assert_eq!(repair(&s, &t, &["--sql", &file]).status, 1);
    target.execute(&std::fs::read_to_string(&file).unwrap());
    assert_eq!(trueup(&["diff", &s, &t, "-q"]).status, 0);
}

#[test]
fn rows_of_a_circle_that_wait_for_one_row_alone_are_written_in_rounds() {
    for kind in KINDS {
        let (source, target) = (AnyDb::create(kind), AnyDb::create(kind));
        for db in [&source, &target] {
            match kind {
                Kind::Sqlite => db.execute(
                    "CREATE TABLE a (id bigint PRIMARY KEY NOT NULL, b bigint REFERENCES b (id)); \
                     CREATE TABLE b (id bigint PRIMARY KEY NOT NULL, a bigint REFERENCES a (id))",
                ),
                _ => db.execute(
                    "CREATE TABLE a (id bigint PRIMARY KEY, b bigint); CREATE TABLE b (id bigint PRIMARY KEY, a bigint, FOREIGN KEY (a) REFERENCES a (id)); \
                     ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b (id)",
                ),
            }
        }
        // Each row waits for the one before, in the other table.
        source.execute(
            "INSERT INTO a VALUES (1, NULL); INSERT INTO b VALUES (1, 1); INSERT INTO a VALUES (2, 1); INSERT INTO b VALUES (2, 2); INSERT INTO a VALUES (3, 2)",
        );
        let report = json(&source.url(), &target.url(), &[]);
        let said = format!("{kind:?} {report}");
        for table in report["tables"].as_array().unwrap() {
            assert_eq!(table["verdict"], "same", "{said}");
            assert!(!table["warnings"].to_string().contains("refer to each other"), "{said}");
        }
        assert_eq!(trueup(&["diff", &source.url(), &target.url(), "-q"]).status, 0, "{said}");
    }
}
