//! A check passes on what it measured, never on what it could not: values that cannot be read, that are NULL, that overflow,
//! and sides without a row.

use serde_json::Value;

use super::support::process::{Output, trueup_with};
use super::support::servers::{MysqlDb, PostgresDb, SqliteDb};

fn run(source: &str, target: &str, checks: &str, more: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trueup.toml");
    let text = format!(
        "[endpoints.a]\nurl = \"env:SOURCE\"\n[endpoints.b]\nurl = \"env:TARGET\"\n[pairs.p]\nsource = \"a\"\ntarget = \"b\"\n\
         tables = [{{ table = \"t\", assume_utc = true }}]\n{checks}"
    );
    std::fs::write(&file, text).unwrap();
    let mut args = vec!["check", "-c", file.to_str().unwrap(), "--quiet", "--no-ledger", "--recheck", "0"];
    args.extend(more);
    trueup_with(&args, &[("SOURCE", source), ("TARGET", target)])
}

/// The results of checks of table `t`, in one run.
fn all(source: &str, target: &str, options: &[&str]) -> Vec<Value> {
    let checks: String = options
        .iter()
        .enumerate()
        .map(|(at, options)| format!("[checks.c{at:03}]\npair = \"p\"\ntable = \"t\"\n{options}\n"))
        .collect();
    let output = run(source, target, &checks, &["--format", "json"]);
    let results = output.json()["checks"].as_array().unwrap().clone();
    assert_eq!(results.len(), options.len(), "{output:?}");
    results
}

fn check(source: &str, target: &str, options: &str) -> Value {
    all(source, target, &[options]).remove(0)
}

fn status(source: &str, target: &str, options: &str) -> String {
    check(source, target, options)["status"].as_str().unwrap().to_owned()
}

fn message(result: &Value) -> &str {
    result["message"].as_str().unwrap_or_default()
}

/// Every kind of check that goes by the time of a row.
const OF_TIMES: [&str; 7] = [
    "kind = \"min\"\ncolumn = \"at\"",
    "kind = \"max\"\ncolumn = \"at\"",
    "kind = \"freshness\"\ncolumn = \"at\"\ntolerance = { lag = \"1m\" }",
    "kind = \"gaps\"\ncolumn = \"at\"",
    "kind = \"rows\"\nwindow = { column = \"at\", last = \"36500days\" }",
    "kind = \"count\"\nwindow = { column = \"at\", last = \"36500days\" }",
    "kind = \"sum\"\ncolumn = \"v\"\nwindow = { column = \"at\", last = \"36500days\", settle = \"1m\" }",
];

#[test]
fn times_that_cannot_be_read_pass_nothing() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, at DATETIME, v INT)");
    }
    let rows = |db: &SqliteDb, rows: &str| db.execute(&format!("DELETE FROM t; INSERT INTO t VALUES {rows}"));
    for (left, right) in [
        // Seconds since 1970, other ones.
        ("(1, 1700000000, 1), (2, 1799999999, 2)", "(1, 1600000000, 1), (2, 1500000000, 2)"),
        // One unreadable text among good ones.
        ("(1, '2024-01-01', 1), (2, '01/02/2026', 2)", "(1, '2024-01-01', 1)"),
        ("(1, '2024-01-01', 1)", "(1, '2024-01-01', 1), (2, '2024-1-2', 0)"),
        // Julian days, and bytes.
        ("(1, 2460310.5, 1), (2, '2024-01-01', 1)", "(1, 2460310.5, 1), (2, '2024-01-01', 1)"),
        ("(1, x'01', 1), (2, '2024-01-01', 1)", "(1, x'01', 1), (2, '2024-01-01', 1)"),
    ] {
        rows(&source, left);
        rows(&target, right);
        for (options, result) in OF_TIMES.iter().zip(all(&source.url(), &target.url(), &OF_TIMES)) {
            let status = result["status"].as_str().unwrap();
            assert!(["unknown", "fail"].contains(&status), "{left} {right} {options}: {result}");
            assert!(message(&result).contains("unreadable") || status == "fail", "{options}: {result}");
        }
    }
    // The same good times pass all of them.
    rows(&source, "(1, '2024-01-01', 1), (2, '2024-01-02T05:00:00Z', 2)");
    rows(&target, "(1, '2024-01-01', 1), (2, '2024-01-02T05:00:00Z', 2)");
    for (options, result) in OF_TIMES.iter().zip(all(&source.url(), &target.url(), &OF_TIMES)) {
        assert_eq!(result["status"], "pass", "{options}: {result}");
    }
}

#[test]
fn odd_dates_of_servers_pass_nothing() {
    let (a, b) = (MysqlDb::create(), MysqlDb::create());
    for ty in ["DATE", "DATETIME"] {
        for odd in ["0000-00-00", "2024-00-10", "2024-05-00"] {
            for db in [&a, &b] {
                db.execute(&format!(
                    "DROP TABLE IF EXISTS t; CREATE TABLE t (id INT PRIMARY KEY, at {ty} NULL, v INT);
                     SET SESSION sql_mode = ''; INSERT INTO t VALUES (1, '2024-01-05', 1), (2, '{odd}', 0)"
                ));
            }
            for missing in [false, true] {
                if missing {
                    b.execute("DELETE FROM t WHERE id = 2");
                }
                for (options, result) in OF_TIMES.iter().zip(all(&a.url(), &b.url(), &OF_TIMES)) {
                    let status = result["status"].as_str().unwrap();
                    let gap = missing && options.contains("gaps");
                    assert_eq!(
                        status,
                        if gap { "fail" } else { "unknown" },
                        "{ty} {odd} {options}: {result}"
                    );
                }
            }
        }
    }
    let (a, b) = (PostgresDb::create(), PostgresDb::create());
    for ty in ["date", "timestamp", "timestamptz"] {
        for db in [&a, &b] {
            db.execute(&format!(
                "DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, at {ty}, v int);
                 INSERT INTO t VALUES (1, '2024-01-05', 1), (2, 'infinity', 0)"
            ));
        }
        for missing in [false, true] {
            if missing {
                b.execute("DELETE FROM t WHERE id = 2");
            }
            for (options, result) in OF_TIMES.iter().zip(all(&a.url(), &b.url(), &OF_TIMES)) {
                let expected = match (options.contains("gaps"), options.contains("freshness")) {
                    (true, _) if missing => "fail",
                    (_, true) if !missing => "pass",
                    _ => "unknown",
                };
                assert_eq!(result["status"], expected, "{ty} {options}: {result}");
                assert!(message(&result).contains("infinite") || expected == "fail", "{result}");
            }
        }
    }
}

#[test]
fn null_is_no_row_and_no_zero() {
    let (pg, my, lite) = (PostgresDb::create(), MysqlDb::create(), SqliteDb::create());
    let (pg2, my2, lite2) = (PostgresDb::create(), MysqlDb::create(), SqliteDb::create());
    let sql = |ty: &str, rows: &str| {
        format!(
            "DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, at {ty} NULL, v int); INSERT INTO t VALUES {rows}"
        )
    };
    let kinds = [
        "kind = \"gaps\"\ncolumn = \"at\"",
        "kind = \"max\"\ncolumn = \"at\"",
        "kind = \"min\"\ncolumn = \"v\"",
        "kind = \"sum\"\ncolumn = \"v\"",
        "kind = \"freshness\"\ncolumn = \"at\"",
    ];
    let hold = |left: &str, right: &str, expected: &[&str]| {
        pg.execute(&sql("timestamp", left));
        pg2.execute(&sql("timestamp", right));
        my.execute(&sql("DATETIME", left));
        my2.execute(&sql("DATETIME", right));
        lite.execute(&sql("TIMESTAMP", left));
        lite2.execute(&sql("TIMESTAMP", right));
        for (a, b) in [(pg.url(), pg2.url()), (my.url(), my2.url()), (lite.url(), lite2.url())] {
            for (options, result) in kinds.iter().zip(all(&a, &b, &kinds)) {
                let status = result["status"].as_str().unwrap();
                assert!(expected.contains(&status), "{a} {left} {right} {options}: {result}");
                assert!(!message(&result).contains("neither side has"), "{options}: {result}");
            }
        }
    };
    // Three rows against one, all NULL; as many; one NULL more.
    hold("(1, NULL, NULL), (2, NULL, NULL), (3, NULL, NULL)", "(1, NULL, NULL)", &["unknown", "fail"]);
    hold("(1, NULL, NULL), (2, NULL, NULL)", "(3, NULL, NULL), (4, NULL, NULL)", &["unknown"]);
    hold("(1, '2024-01-01', 5), (2, NULL, NULL)", "(1, '2024-01-01', 5)", &["unknown", "fail"]);
    hold("(1, '2024-01-01', 5), (2, NULL, NULL)", "(1, '2024-01-01', 5), (2, NULL, NULL)", &["pass"]);
}

#[test]
fn sums_of_floats_are_exact_on_every_engine() {
    let (pg, my, lite) = (PostgresDb::create(), MysqlDb::create(), SqliteDb::create());
    let (pg2, my2, lite2) = (PostgresDb::create(), MysqlDb::create(), SqliteDb::create());
    let urls = [pg.url(), my.url(), lite.url()];
    let others = [pg2.url(), my2.url(), lite2.url()];
    let cases = [
        (["1.7e308", "1.7e308", "0e0"], ["0e0", "0e0", "0e0"], "fail"),
        (["1.7e308", "1.7e308", "0e0"], ["1.7e308", "1.7e308", "1e308"], "fail"),
        (["1.7e308", "1.7e308", "0e0"], ["0e0", "1.7e308", "1.7e308"], "pass"),
        (["1e16", "1e0", "0e0"], ["1e16", "0.25e0", "0e0"], "fail"),
        (["1e16", "1e0", "-1e16"], ["-1e16", "1e0", "1e16"], "pass"),
        (["1e308", "1e0", "-1e308"], ["1e0", "0e0", "0e0"], "pass"),
        (
            ["2.2250738585072014e-308", "1e-310", "5e-324"],
            ["2.2250738585072014e-308", "1e-310", "1e-323"],
            "fail",
        ),
        (
            ["2.2250738585072014e-308", "1e-310", "5e-324"],
            ["5e-324", "1e-310", "2.2250738585072014e-308"],
            "pass",
        ),
        (["0.1e0", "0.2e0", "0.3e0"], ["0.3e0", "0.2e0", "0.1e0"], "pass"),
        (["0.1e0", "0.2e0", "0e0"], ["0.30000000000000004e0", "0e0", "0e0"], "fail"),
        (["0e0", "-0e0", "0e0"], ["0e0", "0e0", "0e0"], "pass"),
        (["2251799813685248.5e0", "1e0", "0e0"], ["2251799813685249e0", "0.5e0", "0e0"], "pass"),
        (["9007199254740991e0", "-1e0", "0e0"], ["9007199254740990e0", "0e0", "0e0"], "pass"),
    ];
    let columns: Vec<String> = (0..cases.len()).map(|at| format!("d{at} double precision")).collect();
    let fill = |of: fn(&([&'static str; 3], [&'static str; 3], &str)) -> [&'static str; 3]| {
        let rows: Vec<String> = (0..3)
            .map(|row| {
                let values: Vec<&str> = cases.iter().map(|case| of(case)[row]).collect();
                format!("({row}, {})", values.join(", "))
            })
            .collect();
        format!(
            "CREATE TABLE t (id int PRIMARY KEY, {}); INSERT INTO t VALUES {}",
            columns.join(", "),
            rows.join(", ")
        )
    };
    let (left, right) = (fill(|case| case.0), fill(|case| case.1));
    pg.execute(&left);
    my.execute(&left);
    lite.execute(&left);
    pg2.execute(&right);
    my2.execute(&right);
    lite2.execute(&right);
    let asked: Vec<String> =
        (0..cases.len()).map(|at| format!("kind = \"sum\"\ncolumn = \"d{at}\"")).collect();
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    // Each engine with each: what is exact is the same everywhere.
    for from in &urls {
        for to in &others {
            for (case, result) in cases.iter().zip(all(from, to, &asked)) {
                assert_eq!(result["status"], case.2, "{from} {to} {case:?}: {result}");
            }
        }
    }
    let sum = "kind = \"sum\"\ncolumn = \"d\"";
    // A thousand values of every size, in another order.
    for (db, order) in [(&pg, ""), (&pg2, "DESC")] {
        db.execute(&format!("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, d float8);
            INSERT INTO t SELECT row_number() OVER (ORDER BY i {order}), (CASE WHEN i % 2 = 0 THEN -1 ELSE 1 END) * (1 + i / 997.0::float8) * power(10::float8, i % 600 - 300) FROM generate_series(1, 1000) i"));
    }
    let rows = pg.scalar("SELECT string_agg(format('(%s,%s)', id, d), ',') FROM t").unwrap();
    let again = format!(
        "DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, d double precision); INSERT INTO t VALUES {rows}"
    );
    my2.execute(&again);
    lite2.execute(&again);
    for to in &others {
        let result = check(&urls[0], to, sum);
        assert_eq!(result["status"], "pass", "{to}: {result}");
    }
    // One unit in the last place of one value.
    my2.execute("UPDATE t SET d = d * (1 + 2.3e-16) WHERE id = 500");
    assert_eq!(status(&urls[0], &others[1], sum), "fail");
}

#[test]
fn what_is_not_finite_has_no_sum() {
    let (a, b) = (SqliteDb::create(), SqliteDb::create());
    let set = |db: &SqliteDb, rows: &str| {
        db.execute(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (id INTEGER PRIMARY KEY, d REAL, n DECIMAL(10,2)); INSERT INTO t VALUES {rows}"));
    };
    set(&a, "(1, 9e999, 9e999), (2, -9e999, -9e999), (3, 5, 5)");
    set(&b, "(1, 9e999, 9e999), (2, -9e999, -9e999), (3, 777, 777)");
    for options in [
        "kind = \"sum\"\ncolumn = \"d\"",
        "kind = \"sum\"\ncolumn = \"n\"",
        "kind = \"max\"\ncolumn = \"d\"",
        "kind = \"min\"\ncolumn = \"n\"",
    ] {
        let result = check(&a.url(), &b.url(), options);
        assert_eq!(result["status"], "unknown", "{options}: {result}");
    }
    set(&a, "(1, 'much', 'much'), (2, 3, 3)");
    set(&b, "(1, 'more', 'more'), (2, 3, 3)");
    for options in [
        "kind = \"sum\"\ncolumn = \"d\"",
        "kind = \"sum\"\ncolumn = \"n\"",
        "kind = \"min\"\ncolumn = \"d\"",
        "kind = \"max\"\ncolumn = \"n\"",
    ] {
        let result = check(&a.url(), &b.url(), options);
        assert_eq!(result["status"], "unknown", "{options}: {result}");
        assert!(!result.to_string().contains("much"), "{result}");
    }
    let (a, b) = (PostgresDb::create(), PostgresDb::create());
    for (left, right) in [("NaN", "NaN"), ("Infinity", "Infinity"), ("NaN", "1"), ("-Infinity", "Infinity")] {
        for (db, odd, good) in [(&a, left, 5), (&b, right, 7)] {
            db.execute(&format!(
                "DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, n numeric, d float8, r float4);
                 INSERT INTO t VALUES (1, '{odd}', '{odd}', '{odd}'), (2, {good}, {good}, {good})"
            ));
        }
        let each = |kind: &'static str| {
            ["n", "d", "r"].map(|column| format!("kind = \"{kind}\"\ncolumn = \"{column}\""))
        };
        let asked: Vec<String> = ["sum", "min", "max"].into_iter().flat_map(each).collect();
        let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
        for (options, result) in asked.iter().zip(all(&a.url(), &b.url(), &asked)) {
            assert_eq!(result["status"], "unknown", "{left} {right} {options}: {result}");
            assert!(message(&result).contains("cannot be measured"), "{result}");
        }
    }
    // Extremes of floats that differ are no sum of anything.
    for (db, value) in [(&a, "1.7e308"), (&b, "0")] {
        db.execute(&format!(
            "DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, d float8); INSERT INTO t VALUES (1, {value})"
        ));
    }
    assert_eq!(status(&a.url(), &b.url(), "kind = \"max\"\ncolumn = \"d\""), "fail");
    assert_eq!(status(&a.url(), &b.url(), "kind = \"min\"\ncolumn = \"d\""), "fail");
}

#[test]
fn a_percent_is_of_the_source() {
    let (a, b) = (PostgresDb::create(), PostgresDb::create());
    for (db, rows) in [(&a, 10), (&b, 1000)] {
        db.execute(&format!(
            "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, {rows})"
        ));
    }
    let rows = |source: &str, target: &str, percent: &str| {
        status(source, target, &format!("kind = \"rows\"\ntolerance = {{ percent = {percent} }}"))
    };
    assert_eq!(rows(&a.url(), &b.url(), "99"), "fail");
    assert_eq!(rows(&a.url(), &b.url(), "9899"), "fail");
    assert_eq!(rows(&a.url(), &b.url(), "9900"), "within_tolerance");
    assert_eq!(rows(&b.url(), &a.url(), "99"), "within_tolerance");
    assert_eq!(rows(&b.url(), &a.url(), "98.9"), "fail");
    let count =
        |source: &str, target: &str| status(source, target, "kind = \"count\"\ntolerance = { percent = 99 }");
    assert_eq!(
        (count(&a.url(), &b.url()).as_str(), count(&b.url(), &a.url()).as_str()),
        ("fail", "within_tolerance")
    );
    a.execute("DELETE FROM t");
    assert_eq!(rows(&a.url(), &b.url(), "100"), "fail", "of nothing, nothing");
}

#[test]
fn a_row_of_the_future_keeps_nothing_fresh() {
    let (pg, pg2, lite, lite2) =
        (PostgresDb::create(), PostgresDb::create(), SqliteDb::create(), SqliteDb::create());
    let fresh = |more: &str| format!("kind = \"freshness\"\ncolumn = \"at\"\n{more}");
    let aged = fresh("max_age = \"1h\"");
    for ty in ["timestamptz", "timestamp", "date"] {
        for (db, old) in [(&pg, 90), (&pg2, 91)] {
            db.execute(&format!(
                "DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, at {ty});
                 INSERT INTO t VALUES (1, now() AT TIME ZONE 'UTC' - interval '{old} days'), (2, '9999-12-31')"
            ));
        }
        let result = check(&pg.url(), &pg2.url(), &aged);
        assert_eq!(result["status"], "fail", "{ty}: {result}");
        assert!(
            message(&result).contains("rows in the future are ignored: 1 at the source, 1 at the target"),
            "{result}"
        );
        assert_eq!(
            status(&pg.url(), &pg2.url(), &fresh("tolerance = { lag = \"1h\" }")),
            "fail",
            "{ty}: one day behind"
        );
        // A new row passes beside it.
        for db in [&pg, &pg2] {
            db.execute("INSERT INTO t VALUES (3, now() AT TIME ZONE 'UTC')");
        }
        assert_eq!(status(&pg.url(), &pg2.url(), &fresh("max_age = \"25h\"")), "pass", "{ty}");
        // Nothing but the future is no newest row.
        for db in [&pg, &pg2] {
            db.execute("DELETE FROM t WHERE id <> 2");
        }
        assert_eq!(status(&pg.url(), &pg2.url(), &aged), "unknown", "{ty}");
        assert_eq!(status(&pg.url(), &pg2.url(), &fresh("")), "unknown", "{ty}");
    }
    for db in [&lite, &lite2] {
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, at TIMESTAMP); INSERT INTO t VALUES (1, datetime('now', '-3 hours')), (2, datetime('now', '+2 hours'))");
    }
    assert_eq!(status(&lite.url(), &lite2.url(), &aged), "fail", "two hours are no clock's error");
    lite2.execute("UPDATE t SET at = datetime('now', '+1 minutes') WHERE id = 2");
    lite.execute("UPDATE t SET at = datetime('now', '+1 minutes') WHERE id = 2");
    assert_eq!(status(&lite.url(), &lite2.url(), &aged), "pass");
}

#[test]
fn an_empty_side_passes_nothing() {
    let (pg, my, lite) = (PostgresDb::create(), MysqlDb::create(), SqliteDb::create());
    let (pg2, my2, lite2) = (PostgresDb::create(), MysqlDb::create(), SqliteDb::create());
    let make = "CREATE TABLE t (id int PRIMARY KEY, at timestamp NULL, v int, d double precision)";
    let rows = "INSERT INTO t VALUES (1, '2024-01-01', 1, 0.5), (2, '2024-01-02', -1, -0.5)";
    for (execute, full) in [
        (&|sql: &str| pg.execute(sql) as (), true),
        (&|sql: &str| pg2.execute(sql) as (), false),
        (&|sql: &str| my.execute(sql) as (), true),
        (&|sql: &str| my2.execute(sql) as (), false),
        (&|sql: &str| lite.execute(sql) as (), true),
        (&|sql: &str| lite2.execute(sql) as (), false),
    ] as [(&dyn Fn(&str), bool); 6]
    {
        execute(make);
        if full {
            execute(rows);
        }
    }
    let kinds = [
        "kind = \"null_share\"\ncolumn = \"v\"",
        "kind = \"null_share\"\ncolumn = \"v\"\ntolerance = { absolute = 100 }",
        "kind = \"duplicates\"\nkey = [\"v\"]",
        "kind = \"duplicates\"\nkey = [\"v\"]\ntolerance = { rows = 5 }",
        "kind = \"sum\"\ncolumn = \"v\"",
        "kind = \"sum\"\ncolumn = \"d\"\ntolerance = { absolute = 100 }",
        "kind = \"min\"\ncolumn = \"v\"",
        "kind = \"max\"\ncolumn = \"d\"",
        "kind = \"count\"",
        "kind = \"count\"\ntolerance = { rows = 5, percent = 100 }",
        "kind = \"rows\"",
        "kind = \"rows\"\ntolerance = { rows = 5 }",
        "kind = \"gaps\"\ncolumn = \"at\"",
        "kind = \"gaps\"\ncolumn = \"at\"\ntolerance = { rows = 5 }",
        "kind = \"freshness\"\ncolumn = \"at\"",
        "kind = \"freshness\"\ncolumn = \"at\"\ntolerance = { lag = \"9999days\" }",
    ];
    for (full, empty) in [(pg.url(), pg2.url()), (my.url(), my2.url()), (lite.url(), lite2.url())] {
        for (from, to) in [(&full, &empty), (&empty, &full)] {
            for (options, result) in kinds.iter().zip(all(from, to, &kinds)) {
                assert_eq!(result["status"], "fail", "{from} {to} {options}: {result}");
            }
        }
        for (options, result) in kinds.iter().zip(all(&empty, &empty.replace("sqlite://", "sqlite:"), &kinds))
        {
            assert_eq!(result["status"], "pass", "{empty} {options}: {result}");
        }
    }
}

#[test]
fn what_agrees_is_named() {
    let (a, b) = (PostgresDb::create(), PostgresDb::create());
    for db in [&a, &b] {
        db.execute(
            "CREATE TABLE t (id int PRIMARY KEY, at date, v int); INSERT INTO t VALUES (1, '2024-01-01', 5)",
        );
    }
    for (options, words) in [
        ("kind = \"count\"", "counts agree"),
        ("kind = \"sum\"\ncolumn = \"v\"", "sums agree"),
        ("kind = \"min\"\ncolumn = \"v\"", "smallest values agree"),
        ("kind = \"max\"\ncolumn = \"at\"", "largest values agree"),
        ("kind = \"gaps\"\ncolumn = \"at\"", "counts agree in 1 steps"),
        ("kind = \"null_share\"\ncolumn = \"v\"", "shares of NULL agree"),
    ] {
        let result = check(&a.url(), &b.url(), options);
        assert_eq!((result["status"].as_str(), message(&result)), (Some("pass"), words), "{options}");
    }
}

#[test]
fn notes_of_a_table_reach_every_format() {
    let (a, b) = (MysqlDb::create(), MysqlDb::create());
    for (db, engine) in [(&a, "InnoDB"), (&b, "MyISAM")] {
        db.execute(&format!(
            "CREATE TABLE t (id INT PRIMARY KEY) ENGINE = {engine}; INSERT INTO t VALUES (1)"
        ));
    }
    let checks = "[checks.c]\npair = \"p\"\ntable = \"t\"\nkind = \"count\"\n";
    for format in ["text", "json", "junit"] {
        let output = run(&a.url(), &b.url(), checks, &["--format", format]);
        assert_eq!(output.status, 0, "{output:?}");
        assert!(output.stdout.contains("target: storage engine MyISAM has no transactions"), "{output:?}");
    }
    let backfill = super::support::process::trueup(&[
        "backfill",
        &a.url(),
        &b.url(),
        "-t",
        "t",
        "--on",
        "id",
        "--dry-run",
    ]);
    assert!(backfill.stdout.contains("note: target: storage engine MyISAM"), "{backfill:?}");
    let wrong = run(&a.url(), &b.url(), &format!("{checks}hidden_rows = \"yes\"\n"), &[]);
    assert!(wrong.status == 2 && wrong.stderr.contains("says nothing of hidden rows"), "{wrong:?}");
    let accepted = run(&a.url(), &b.url(), &format!("{checks}hidden_rows = \"accept\"\n"), &[]);
    assert_eq!(accepted.status, 0, "{accepted:?}");
}
