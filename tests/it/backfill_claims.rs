//! What a backfill says of a range is what comparing its rows has shown: counts that agree prove nothing, and rows that are
//! in no step are told.

use serde_json::Value;

use super::support::process::{Output, trueup};
use super::support::servers::{MysqlDb, PostgresDb, SqliteDb};

fn backfill(source: &str, target: &str, more: &[&str]) -> Output {
    let mut args = vec!["backfill", source, target, "--format", "json", "--quiet", "--recheck-delay", "1ms"];
    args.extend(["-t", "t", "--on", "at"]);
    args.extend(more);
    trueup(&args)
}

fn table(output: &Output) -> Value {
    output.json()["tables"][0].clone()
}

fn claim(output: &Output) -> String {
    table(output)["claim"].as_str().unwrap().to_owned()
}

/// Three days of three rows.
const ROWS: &str =
    "(1, '2024-01-01 01:00:00', 1), (2, '2024-01-01 02:00:00', 2), (3, '2024-01-01 03:00:00', 3),
    (4, '2024-01-02 01:00:00', 4), (5, '2024-01-02 02:00:00', 5), (6, '2024-01-02 03:00:00', 6),
    (7, '2024-01-03 01:00:00', 7), (8, '2024-01-03 02:00:00', 8), (9, '2024-01-03 03:00:00', 9)";
/// As many rows in every step, and not the same ones.
const OTHERS: &str = "DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (20, '2024-01-01 02:00:00', 2);
    UPDATE t SET v = 50 WHERE id = 5; UPDATE t SET id = 80 WHERE id = 8";

/// A pair of each engine, with the same rows.
struct Pairs {
    pg: (PostgresDb, PostgresDb),
    my: (MysqlDb, MysqlDb),
    lite: (SqliteDb, SqliteDb),
}

impl Pairs {
    fn create(rows: &str) -> Self {
        let pairs = Self {
            pg: (PostgresDb::create(), PostgresDb::create()),
            my: (MysqlDb::create(), MysqlDb::create()),
            lite: (SqliteDb::create(), SqliteDb::create()),
        };
        let insert = if rows.is_empty() { String::new() } else { format!("; INSERT INTO t VALUES {rows}") };
        for db in [&pairs.pg.0, &pairs.pg.1] {
            db.execute(&format!("CREATE TABLE t (id int PRIMARY KEY, at timestamp, v int){insert}"));
        }
        for db in [&pairs.my.0, &pairs.my.1] {
            db.execute(&format!(
                "CREATE TABLE t (id INT PRIMARY KEY, at DATETIME(6), v INT, KEY (at)){insert}"
            ));
        }
        for db in [&pairs.lite.0, &pairs.lite.1] {
            db.execute(&format!("CREATE TABLE t (id INTEGER PRIMARY KEY, at TIMESTAMP, v INTEGER){insert}"));
        }
        pairs
    }

    /// Source, target, what runs SQL at the target, and what reads there.
    fn all(&self) -> Vec<(String, String, Box<dyn Fn(&str) + '_>, Box<dyn Fn(&str) -> Option<String> + '_>)> {
        vec![
            (
                self.pg.0.url(),
                self.pg.1.url(),
                Box::new(|sql: &str| self.pg.1.execute(sql)),
                Box::new(|sql: &str| self.pg.1.scalar(sql)),
            ),
            (
                self.my.0.url(),
                self.my.1.url(),
                Box::new(|sql: &str| self.my.1.execute(sql)),
                Box::new(|sql: &str| self.my.1.scalar(sql)),
            ),
            (
                self.lite.0.url(),
                self.lite.1.url(),
                Box::new(|sql: &str| self.lite.1.execute(sql)),
                Box::new(|sql: &str| self.lite.1.scalar(sql)),
            ),
        ]
    }
}

#[test]
fn as_many_rows_are_not_the_same_rows() {
    let pairs = Pairs::create(ROWS);
    for (source, target, execute, scalar) in pairs.all() {
        execute(OTHERS);
        let dry = backfill(&source, &target, &["--dry-run"]);
        assert_eq!((dry.status, claim(&dry).as_str()), (1, "gaps, not filled: a dry run"), "{dry:?}");
        let chunk = table(&dry)["chunks"][0].clone();
        let found = [&chunk["missing"], &chunk["changed"], &chunk["extra"]].map(Value::as_u64);
        assert_eq!(found, [Some(2), Some(1), Some(2)], "{dry:?}");
        // Missing and changed rows are written; extra ones may not be removed.
        let filled = backfill(&source, &target, &[]);
        assert_eq!((filled.status, claim(&filled).as_str()), (1, "still different"), "{filled:?}");
        assert_eq!(table(&filled)["left"], 2, "{filled:?}");
        let whole = backfill(&source, &target, &["--allow", "insert,update,delete"]);
        let said = "no gap is left from 2024-01-01 to 2024-01-04, proved the same";
        assert_eq!((whole.status, claim(&whole).as_str()), (0, said), "{whole:?}");
        assert_eq!(scalar("SELECT SUM(id * v) FROM t").as_deref(), Some("285"), "{target}");
        let again = backfill(&source, &target, &["--dry-run"]);
        let said = "no gap from 2024-01-01 to 2024-01-04, proved the same";
        assert_eq!((again.status, claim(&again).as_str()), (0, said), "{again:?}");
    }
}

#[test]
fn pieces_hold_every_step() {
    let pairs = Pairs::create(ROWS);
    for (source, target, execute, _) in pairs.all() {
        for more in [
            &["--chunk-rows", "1"][..],
            &["--chunk-rows", "3", "--order", "newest"],
            &["--order", "newest"],
            &["--max-rows-per-second", "1000"],
        ] {
            execute(OTHERS);
            let args = [&["--allow", "insert,update,delete"], more].concat();
            let done = backfill(&source, &target, &args);
            assert_eq!(done.status, 0, "{more:?}: {done:?}");
            let rows: u64 = table(&done)["chunks"]
                .as_array()
                .unwrap()
                .iter()
                .map(|chunk| chunk["source_rows"].as_u64().unwrap())
                .sum();
            assert_eq!((rows, table(&done)["updated"].as_u64()), (9, Some(1)), "{more:?}: {done:?}");
        }
    }
}

#[test]
fn times_that_cannot_be_read_are_no_equal_nothing() {
    // Seconds since 1970 in a column of times: SQLite keeps them as integers.
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, at DATETIME, v INT)");
    }
    source.execute("INSERT INTO t VALUES (1, 1700000000, 1), (2, 1799999999, 2)");
    for dry in [&["--dry-run"][..], &[]] {
        let missing = backfill(&source.url(), &target.url(), dry);
        assert_eq!(missing.status, 1, "{missing:?}");
        assert!(
            claim(&missing).contains("2 rows without a time at the source and 0 at the target"),
            "{missing:?}"
        );
    }
    // As many of them, other rows: nothing was compared.
    target.execute("INSERT INTO t VALUES (3, 1700000000, 1), (4, 1799999999, 2)");
    let unread = backfill(&source.url(), &target.url(), &[]);
    assert_eq!(unread.status, 2, "{unread:?}");
    // One among good ones, which a range could hold.
    for db in [&source, &target] {
        db.execute("DELETE FROM t; INSERT INTO t VALUES (5, '2024-01-01 00:00:00', 1)");
    }
    source.execute("INSERT INTO t VALUES (6, '01/02/2024', 1)");
    assert_eq!(backfill(&source.url(), &target.url(), &[]).status, 1);
    let bounded = backfill(&source.url(), &target.url(), &["--from", "2024-01-01", "--to", "2024-02-01"]);
    assert_eq!(bounded.status, 2, "{bounded:?}");
    assert_eq!(table(&bounded)["source_elsewhere"]["unreadable"], 1, "{bounded:?}");
    let warnings = table(&bounded)["warnings"].to_string();
    assert!(warnings.contains("source: rows that have no time in at: 1 unreadable; "), "{warnings}");
}

#[test]
fn dates_of_no_calendar_and_infinities_are_told() {
    let (source, target) = (MysqlDb::create(), MysqlDb::create());
    let insert = "SET SESSION sql_mode = ''; INSERT INTO t VALUES (1, '2024-01-05', 1), (2, '0000-00-00', 1), (3, '2024-00-10', 1), (4, NULL, 1)";
    for ty in ["DATE", "DATETIME", "TIMESTAMP NULL"] {
        for db in [&source, &target] {
            db.execute(&format!(
                "DROP TABLE IF EXISTS t; CREATE TABLE t (id INT PRIMARY KEY, at {ty}, v INT); {insert}"
            ));
        }
        target.execute("DELETE FROM t WHERE id IN (2, 3)");
        let missing = backfill(&source.url(), &target.url(), &[]);
        assert_eq!(missing.status, 1, "{ty}: {missing:?}");
        let elsewhere = table(&missing)["source_elsewhere"].clone();
        assert_eq!(
            [&elsewhere["null"], &elsewhere["unreadable"]].map(Value::as_u64),
            [Some(1), Some(2)],
            "{ty}: {missing:?}"
        );
        // A range holds none of them, but nobody can tell of which it would be.
        let year = backfill(&source.url(), &target.url(), &["--from", "2023-01-01", "--to", "2025-01-01"]);
        assert_eq!(year.status, 2, "{ty}: {year:?}");
        assert_eq!(
            table(&year)["steps"]
                .as_array()
                .unwrap()
                .iter()
                .map(|s| s["source"].as_u64().unwrap())
                .sum::<u64>(),
            1
        );
    }
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for ty in ["date", "timestamp", "timestamptz"] {
        for db in [&source, &target] {
            db.execute(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, at {ty}, v int);
                INSERT INTO t VALUES (1, '2024-01-05', 1), (2, 'infinity', 1), (3, '-infinity', 1), (4, NULL, 1)"));
        }
        let equal = backfill(&source.url(), &target.url(), &[]);
        assert_eq!(equal.status, 0, "{ty}: {equal:?}");
        assert_eq!(
            claim(&equal),
            "no gap in what has a time from 2024-01-05 to 2024-01-06, proved the same; 3 rows without a time were not compared"
        );
        target.execute("DELETE FROM t WHERE id = 2");
        let missing = backfill(&source.url(), &target.url(), &[]);
        assert_eq!(missing.status, 1, "{ty}: {missing:?}");
        let bounded = backfill(&source.url(), &target.url(), &["--from", "2024-01-01", "--to", "2024-02-01"]);
        assert_eq!(bounded.status, 0, "{ty}: {bounded:?}");
        assert!(
            claim(&bounded).ends_with("3 rows without a time at the source and 2 at the target are outside")
        );
        assert_eq!(table(&bounded)["source_elsewhere"]["infinite"], 2, "{bounded:?}");
    }
}

#[test]
fn what_is_outside_of_the_range_is_counted_and_named() {
    let pairs = Pairs::create(ROWS);
    let ledger = tempfile::tempdir().unwrap();
    let file = ledger.path().join("ledger.db").to_str().unwrap().to_owned();
    for (source, target, execute, _) in pairs.all() {
        execute("DELETE FROM t WHERE id IN (1, 2, 9)");
        let args = ["--from", "2024-01-02", "--to", "2024-01-03", "--ledger", &file];
        let bounded = backfill(&source, &target, &args);
        let said = "no gap from 2024-01-02 to 2024-01-03, proved the same";
        assert_eq!((bounded.status, claim(&bounded).as_str()), (0, said), "{bounded:?}");
        let outside = |side: &str| table(&bounded)[side]["outside"].as_u64();
        assert_eq!((outside("source_elsewhere"), outside("target_elsewhere")), (Some(6), Some(3)));
        let report = trueup(&["report", "last", "--ledger", &file, "--format", "md"]);
        assert!(report.stdout.contains("source: rows outside of --from and --to: 6"), "{report:?}");
        // Open at one end: what is before it is no part of the claim.
        let from = backfill(&source, &target, &["--from", "2024-01-02"]);
        assert_eq!((from.status, table(&from)["inserted"].as_u64()), (0, Some(1)), "{from:?}");
        let beyond = backfill(&source, &target, &["--from", "2025-01-02"]);
        assert_eq!(
            (beyond.status, claim(&beyond).as_str()),
            (0, "neither side has a row in the range"),
            "{beyond:?}"
        );
    }
}

#[test]
fn nothing_in_any_step_is_no_proof() {
    let pairs = Pairs::create("");
    for (source, target, execute, _) in pairs.all() {
        let empty = backfill(&source, &target, &[]);
        assert_eq!((empty.status, claim(&empty).as_str()), (0, "neither side has a row"), "{empty:?}");
        execute("INSERT INTO t VALUES (1, NULL, 1)");
        let one = backfill(&source, &target, &[]);
        assert_eq!(one.status, 1, "{one:?}");
    }
    let (source, target, ..) = pairs.all().remove(0);
    pairs.pg.0.execute("INSERT INTO t VALUES (2, NULL, 2)");
    let equal = backfill(&source, &target, &[]);
    assert_eq!(equal.status, 2, "as many without a time, and other rows: {equal:?}");
}

#[test]
fn a_tolerance_is_said() {
    let pairs = Pairs::create(ROWS);
    for (source, target, execute, _) in pairs.all() {
        if source.starts_with("sqlite") {
            continue;
        }
        execute("UPDATE t SET v = v + 1 WHERE id = 5; DELETE FROM t WHERE id = 1");
        let near = backfill(&source, &target, &["--tolerance", "v=1"]);
        assert_eq!(near.status, 0, "{near:?}");
        assert!(claim(&near).ends_with("the same within the tolerance"), "{near:?}");
        let wrong = backfill(&source, &target, &["--tolerance", "nope=1"]);
        assert_eq!(wrong.status, 2, "{wrong:?}");
    }
}

#[test]
fn fractions_and_sentinels_are_in_the_range() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, at INTEGER, v INT)");
    }
    // SQLite keeps a fraction in a column of integers; both ends of the range are one.
    source.execute("INSERT INTO t VALUES (1, 1.6, 1), (2, 3, 2), (3, 4.6, 3), (4, -2.5, 4)");
    target.execute("INSERT INTO t VALUES (2, 3, 2)");
    let filled = backfill(&source.url(), &target.url(), &["--step", "1"]);
    assert_eq!((filled.status, table(&filled)["inserted"].as_u64()), (0, Some(3)), "{filled:?}");
    assert_eq!(target.scalar("SELECT sum(v) FROM t").as_deref(), Some("10"));
    // A first date for "always": months, where days would be too many.
    let (source, target) = (PostgresDb::create(), MysqlDb::create());
    source.execute("CREATE TABLE t (id int PRIMARY KEY, at date, v int); INSERT INTO t VALUES (1, '1800-01-01', 1), (2, '2024-01-01', 2)");
    target.execute(
        "CREATE TABLE t (id INT PRIMARY KEY, at DATE, v INT); INSERT INTO t VALUES (2, '2024-01-01', 2)",
    );
    let filled = backfill(&source.url(), &target.url(), &[]);
    assert_eq!((filled.status, table(&filled)["step"].as_str()), (0, Some("month")), "{filled:?}");
    assert_eq!(table(&filled)["inserted"], 1);
}

/// What later writes of the run changed takes the proof away, in every word of the report.
#[test]
fn a_table_that_its_own_writes_change_is_nowhere_called_the_same() {
    let pairs = Pairs::create("(1, '2024-01-01', 1), (2, '2024-01-02', 1)");
    for (at, (source, target, execute, _)) in pairs.all().into_iter().enumerate() {
        let execute_source: Box<dyn Fn(&str)> = match at {
            0 => Box::new(|sql: &str| pairs.pg.0.execute(sql)),
            1 => continue, // A trigger of MySQL may not write its own table.
            _ => Box::new(|sql: &str| pairs.lite.0.execute(sql)),
        };
        execute_source("INSERT INTO t VALUES (3, '2024-01-03', 3)");
        execute(match at {
            0 => "CREATE RULE r AS ON INSERT TO t DO ALSO UPDATE t SET v = 99 WHERE id = 1",
            _ => "CREATE TRIGGER r AFTER INSERT ON t BEGIN UPDATE t SET v = 99 WHERE id = 1; END",
        });
        let done = backfill(&source, &target, &["--chunk-rows", "1", "--step", "day"]);
        assert_eq!(
            (done.status, claim(&done).as_str()),
            (1, "still different: later writes changed it"),
            "{done:?}"
        );
        for chunk in table(&done)["chunks"].as_array().unwrap() {
            assert!(chunk["proved"] == false && chunk["verdict"] != "same", "{chunk}");
        }
        let text = trueup(&["backfill", &source, &target, "-t", "t", "--on", "at", "-q", "--dry-run"]).stdout;
        assert!(!text.contains("proved the same"), "{text}");
    }
}

/// Rows without a time are counted after the writes, which may give them one or take it.
#[test]
fn a_time_that_the_run_takes_away_is_no_difference_left() {
    let pairs = Pairs::create("(1, '2024-01-01', 1)");
    for (at, (source, target, execute, _)) in pairs.all().into_iter().enumerate() {
        let row = "INSERT INTO t VALUES (2, NULL, 2)";
        match at {
            0 => pairs.pg.0.execute(row),
            1 => pairs.my.0.execute(row),
            _ => pairs.lite.0.execute(row),
        }
        execute("INSERT INTO t VALUES (2, '2024-01-01', 2)");
        let done = backfill(&source, &target, &[]);
        assert_eq!(done.status, 0, "{done:?}");
        assert!(claim(&done).ends_with("proved the same; 1 row without a time was not compared"), "{done:?}");
        let warnings = table(&done)["warnings"].as_array().unwrap().clone();
        let told =
            warnings.iter().filter(|warning| warning.to_string().contains("that have no time")).count();
        assert_eq!(told, 2, "once a side: {warnings:?}");
    }
}

/// SQLite's own functions read what is written.
#[test]
fn instants_are_written_as_sqlite_reads_them() {
    let (source, target) = (PostgresDb::create(), SqliteDb::create());
    source.execute("CREATE TABLE t (id int PRIMARY KEY, at timestamptz); INSERT INTO t VALUES (1, '2024-01-01 05:00:00.25+03'), (2, '2024-06-01 00:00Z')");
    target.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, at \"TIMESTAMP WITH TIME ZONE\")");
    let done = backfill(&source.url(), &target.url(), &[]);
    assert_eq!(done.status, 0, "{done:?}");
    let seconds = "SELECT group_concat(strftime('%s', at) || ' ' || at) FROM t";
    let expected = "1704074400 2024-01-01 02:00:00.25+00:00,1717200000 2024-06-01 00:00:00+00:00";
    assert_eq!(target.scalar(seconds).as_deref(), Some(expected));
}
