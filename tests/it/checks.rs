//! Every kind of check between real databases: what passes, what is near enough, what fails, what cannot be told.

use serde_json::Value;

use super::support::process::{Agent, Output, trueup_with};
use super::support::servers::{MysqlDb, PostgresDb, SqliteDb};

/// A configuration of one pair and these checks; `more` goes to the command line.
fn check(source: &str, target: &str, checks: &str, more: &[&str]) -> Output {
    let tables =
        "tables = [{ table = \"orders\", assume_utc = true }, { table = \"items\", exclude = [\"note\"] }]";
    check_of(tables, source, target, checks, more)
}

fn check_of(tables: &str, source: &str, target: &str, checks: &str, more: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trueup.toml");
    let text = format!(
        "[endpoints.a]\nurl = \"env:SOURCE\"\n[endpoints.b]\nurl = \"env:TARGET\"\n[pairs.p]\nsource = \"a\"\ntarget = \"b\"\n{tables}\n{checks}"
    );
    std::fs::write(&file, text).unwrap();
    let mut args = vec!["check", "-c", file.to_str().unwrap(), "--quiet", "--recheck-delay", "1ms"];
    args.extend(more);
    trueup_with(&args, &[("SOURCE", source), ("TARGET", target)])
}

fn status<'v>(report: &'v Value, name: &str) -> &'v str {
    result(report, name)["status"].as_str().unwrap()
}

fn result<'v>(report: &'v Value, name: &str) -> &'v Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name} is not in {report}"))
}

const ROWS: i32 = 1000;

fn postgres_orders(db: &PostgresDb) {
    db.execute(&format!(
        "CREATE TABLE orders (id bigint PRIMARY KEY, amount numeric(20,4), weight float8, paid boolean, note text, email text, at timestamptz, day date);
         INSERT INTO orders SELECT i, i * 0.1001, i * 0.1, i % 2 = 0, CASE WHEN i % 4 = 0 THEN NULL ELSE 'n' END, 'mail' || i,
           now() - i * interval '1 hour', current_date - i / 24 FROM generate_series(1, {ROWS}) i;
         CREATE TABLE items (id int PRIMARY KEY, note text); INSERT INTO items VALUES (1, 'x')"
    ));
}

/// The same rows, whatever the clocks say: copied from the source.
fn copies(source: &PostgresDb, maria: &MysqlDb, lite: &SqliteDb) {
    maria.execute("CREATE TABLE orders (id BIGINT PRIMARY KEY, amount DECIMAL(20,2), weight DOUBLE, paid TINYINT(1), note TEXT, email VARCHAR(50), at TIMESTAMP(6) NULL, day DATE); CREATE TABLE items (id INT PRIMARY KEY, note TEXT); INSERT INTO items VALUES (1, 'x')");
    lite.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, amount DECIMAL(20,2), weight REAL, paid BOOLEAN, note TEXT, email TEXT, at TIMESTAMP, day DATE); CREATE TABLE items (id INTEGER PRIMARY KEY, note TEXT); INSERT INTO items VALUES (1, 'x')");
    let rows = |amount: &str| {
        source.scalar(&format!(
            "SELECT string_agg(format('(%s,%s,%s,%s,%s,%L,%L,%L)', id, {amount}, weight, paid::int,
               coalesce(quote_literal(note), 'NULL'), email, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), day), ',') FROM orders",
        ))
    };
    let rounded = rows("round(amount, 2)").unwrap();
    maria.execute(&format!("SET time_zone = '+00:00'; INSERT INTO orders VALUES {rounded}"));
    // What SQLite is declared to hold, it does not round to.
    lite.execute(&format!("INSERT INTO orders VALUES {}", rows("amount").unwrap()));
}

const ALL: &str = r#"
[checks.rows]
pair = "p"
table = "orders"
kind = "rows"
[checks.count]
pair = "p"
table = "orders"
kind = "count"
[checks.recent]
pair = "p"
table = "orders"
kind = "count"
window = { column = "at", last = "119h 30m", settle = "30m" }
[checks.sum]
pair = "p"
table = "orders"
kind = "sum"
column = "amount"
[checks.paid]
pair = "p"
table = "orders"
kind = "sum"
column = "paid"
[checks.weight]
pair = "p"
table = "orders"
kind = "sum"
column = "weight"
tolerance = { absolute = "0.0001" }
[checks.min]
pair = "p"
table = "orders"
kind = "min"
column = "amount"
[checks.max]
pair = "p"
table = "orders"
kind = "max"
column = "at"
[checks.nulls]
pair = "p"
table = "orders"
kind = "null_share"
column = "note"
[checks.fresh]
pair = "p"
table = "orders"
kind = "freshness"
column = "at"
max_age = "4h"
tolerance = { lag = "90m" }
[checks.gaps]
pair = "p"
table = "orders"
kind = "gaps"
column = "at"
time_zone = "Europe/Berlin"
[checks.days]
pair = "p"
table = "orders"
kind = "gaps"
column = "day"
window = { column = "day", last = "10days" }
[checks.double]
pair = "p"
table = "orders"
kind = "duplicates"
key = ["email", "day"]
[checks.scalar]
pair = "p"
kind = "sql"
sql = "SELECT count(*) * 1.0 FROM orders WHERE id > 10 -- a comment"
"#;

const NAMES: [&str; 14] = [
    "rows", "count", "recent", "sum", "paid", "weight", "min", "max", "nulls", "fresh", "gaps", "days",
    "double", "scalar",
];

#[test]
fn every_kind_passes_and_fails_on_every_engine() {
    let (source, maria, lite) = (PostgresDb::create(), MysqlDb::create(), SqliteDb::create());
    postgres_orders(&source);
    copies(&source, &maria, &lite);
    // The source's values are rounded one by one as MariaDB's were; the sum of a thousand would differ else.
    for target in [&maria.url(), &lite.url()] {
        let good = check(&source.url(), target, ALL, &["--format", "json"]);
        assert_eq!(good.status, 0, "{target}: {}", good.stdout);
        let report = good.json();
        for name in NAMES {
            assert!(["pass", "within_tolerance"].contains(&status(&report, name)), "{name}: {report}");
        }
        assert_eq!(status(&report, "sum"), "pass");
        assert_eq!(
            (&result(&report, "nulls")["source"], &result(&report, "count")["target"]),
            (&"25".into(), &"1000".into())
        );
        // One row an hour, from the last one back to almost five days.
        assert_eq!(result(&report, "recent")["source"], "119");
        assert_eq!(result(&report, "max")["source"], Value::Null, "values of rows are not shown");
    }
    // One row gone, the newest; one doubled; one NULL more.
    let spoil = "DELETE FROM orders WHERE id IN (1, 2); UPDATE orders SET note = NULL, amount = 0 WHERE id = 5; \
                 UPDATE orders SET email = 'mail7', day = (SELECT d FROM (SELECT day AS d FROM orders WHERE id = 7) x) WHERE id = 6";
    maria.execute(spoil);
    lite.execute(spoil);
    for target in [maria.url(), lite.url()] {
        let bad = check(&source.url(), &target, ALL, &["--format", "json"]);
        assert_eq!(bad.status, 1, "{target}: {}", bad.stdout);
        let report = bad.json();
        for name in NAMES {
            assert_eq!(
                status(&report, name),
                if name == "scalar" { "pass" } else { "fail" },
                "{target} {name}: {report}"
            );
        }
        assert_eq!(result(&report, "rows")["message"], "2 missing, 2 changed");
        assert_eq!(result(&report, "count")["difference"], "2");
        // Each of the source's values is rounded where the target's were, and there alone.
        let apart = if target == maria.url() { "0.8" } else { "0.8008" };
        assert_eq!(result(&report, "sum")["difference"], apart);
        assert_eq!(
            (&result(&report, "double")["source"], &result(&report, "double")["target"]),
            (&"0".into(), &"1".into())
        );
        assert_eq!(result(&report, "fresh")["message"], "the target is 2h behind");
        let shown = check(&source.url(), &target, ALL, &["max", "--format", "json", "--show-values"]);
        assert_eq!(shown.json()["checks"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn two_sqlite_files_and_tables_of_a_whole_pair() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, amount DECIMAL(10,2), at TIMESTAMP, email TEXT COLLATE NOCASE);
            INSERT INTO orders VALUES (1, 0.1, '2024-01-01 00:00:00', 'a'), (2, 0.2, '2024-01-01T05:00:00Z', 'A'), (3, 1e15, '2024-01-02', NULL), (4, 0.05, NULL, NULL);
            CREATE TABLE items (id INTEGER PRIMARY KEY, note TEXT)");
    }
    let checks = "[checks.counts]\npair = \"p\"\nkind = \"count\"\n[checks.sum]\npair = \"p\"\ntable = \"orders\"\nkind = \"sum\"\ncolumn = \"amount\"\n\
                  [checks.gaps]\npair = \"p\"\ntable = \"orders\"\nkind = \"gaps\"\ncolumn = \"at\"\nstep = \"hour\"\n\
                  [checks.double]\npair = \"p\"\ntable = \"orders\"\nkind = \"duplicates\"\nkey = [\"email\"]\n";
    let good = check(&source.url(), &target.url(), checks, &["--format", "json"]);
    assert_eq!(good.status, 0, "{}", good.stdout);
    let report = good.json();
    assert_eq!(result(&report, "sum")["source"], "1000000000000000.35", "no double can hold it");
    let tables: Vec<&str> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["name"] == "counts")
        .map(|c| c["table"].as_str().unwrap())
        .collect();
    assert_eq!(tables, ["orders", "items"]);
    target.execute("INSERT INTO items VALUES (1, 'x')");
    let bad = check(&source.url(), &target.url(), checks, &["counts", "--format", "json"]);
    assert_eq!((bad.status, bad.json()["checks"].as_array().unwrap().len()), (1, 2));
}

#[test]
fn what_cannot_be_told_is_neither_pass_nor_fail() {
    let (source, target) = (PostgresDb::create(), SqliteDb::create());
    postgres_orders(&source);
    target.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, amount DECIMAL(10,2), weight REAL, email TEXT); INSERT INTO orders VALUES (1, 'much', 0.5, '')");
    let checks = "[checks.count]\npair = \"p\"\ntable = \"orders\"\nkind = \"count\"\ntolerance = { rows = 1000 }\n\
                  [checks.sum]\npair = \"p\"\ntable = \"orders\"\nkind = \"sum\"\ncolumn = \"amount\"\n\
                  [checks.weight]\npair = \"p\"\ntable = \"orders\"\nkind = \"sum\"\ncolumn = \"weight\"\n\
                  [checks.lost]\npair = \"p\"\ntable = \"items\"\nkind = \"count\"\n\
                  [checks.column]\npair = \"p\"\ntable = \"orders\"\nkind = \"min\"\ncolumn = \"at\"\n\
                  [checks.sql]\npair = \"p\"\nkind = \"sql\"\nsource_sql = \"SELECT 1, 2\"\ntarget_sql = \"SELECT 1\"\n";
    let output = check(&source.url(), &target.url(), checks, &["--format", "json"]);
    assert_eq!(output.status, 2, "{}", output.stdout);
    let report = output.json();
    assert_eq!(status(&report, "count"), "within_tolerance", "one check's fault is not another's: {report}");
    for name in ["sum", "lost", "column", "sql"] {
        assert_eq!(status(&report, name), "unknown", "{name}: {report}");
    }
    // Sums of floats are exact: another is another.
    assert_eq!(status(&report, "weight"), "fail", "{report}");
    let said = result(&report, "sum")["message"].as_str().unwrap();
    assert!(said.contains("no finite number") || said.contains("1 unreadable at the target"), "{report}");
    assert!(!output.stdout.contains("much"), "a value in the report");
    let gone = check(&source.url(), "sqlite:///nowhere/x.db", checks, &["--format", "json"]);
    assert_eq!((gone.status, gone.json()["checks"].as_array().unwrap().len()), (2, 6));
    let named = check(&source.url(), &target.url(), checks, &["cuont"]);
    assert!(named.status == 2 && named.stderr.contains("did you mean `count`?"), "{named:?}");
}

#[test]
fn queries_of_ones_own_cannot_write() {
    let (source, maria, lite) = (PostgresDb::create(), MysqlDb::create(), SqliteDb::create());
    source.execute("CREATE TABLE orders (id int PRIMARY KEY); CREATE FUNCTION add_one() RETURNS int LANGUAGE sql AS 'INSERT INTO orders VALUES (77) RETURNING id'");
    maria.execute("CREATE TABLE orders (id INT PRIMARY KEY); CREATE FUNCTION add_one() RETURNS INT MODIFIES SQL DATA BEGIN INSERT INTO orders VALUES (77); RETURN 1; END");
    lite.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)");
    let sql = |query: &str| format!("[checks.q]\npair = \"p\"\nkind = \"sql\"\nsql = {query:?}\n");
    for query in [
        "SELECT add_one()",
        "SELECT 1); INSERT INTO orders VALUES (1); SELECT (1",
        "DELETE FROM orders",
        "COMMIT",
        "SELECT 1; SELECT 2",
    ] {
        for (from, to) in [(source.url(), maria.url()), (maria.url(), lite.url()), (lite.url(), source.url())]
        {
            let output = check(&from, &to, &sql(query), &["--format", "json"]);
            assert_eq!(output.status, 2, "{query}: {output:?}");
        }
    }
    for count in [
        source.scalar("SELECT count(*) FROM orders"),
        maria.scalar("SELECT count(*) FROM orders"),
        lite.scalar("SELECT count(*) FROM orders"),
    ] {
        assert_eq!(count.as_deref(), Some("0"));
    }
    let fine = sql("WITH x AS (SELECT 1 AS a) SELECT a + 0.50 FROM x;");
    assert_eq!(check(&source.url(), &maria.url(), &fine, &[]).status, 0);
}

#[test]
fn policies_decide_what_is_repaired() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT); CREATE TABLE items (id INTEGER PRIMARY KEY, note TEXT)");
        db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) INSERT INTO orders SELECT i, 'n' FROM n");
    }
    target.execute("DELETE FROM orders WHERE id <= 5");
    let rows = |policy: &str| {
        format!("[checks.rows]\npair = \"p\"\ntable = \"orders\"\nkind = \"rows\"\nrepair = {policy}\n")
    };
    let run = |policy: &str, more: &[&str]| {
        let output =
            check(&source.url(), &target.url(), &rows(policy), &[&["--format", "json"], more].concat());
        let message = output.json()["checks"][0]["message"].as_str().unwrap_or_default().to_owned();
        (output.status, message, target.scalar("SELECT count(*) FROM orders").unwrap())
    };
    assert_eq!(run("\"never\"", &[]), (1, "5 missing".to_owned(), "95".to_owned()));
    assert_eq!(
        run("\"dry_run\"", &[]),
        (1, "5 missing, a repair would write 5 of them".to_owned(), "95".to_owned())
    );
    let (status, message, count) = run("{ up_to = 4 }", &[]);
    assert!(status == 1 && message.contains("not repaired") && count == "95", "{message}");
    assert_eq!(run("{ up_to = 5 }", &["--dry-run"]).2, "95");
    assert_eq!(run("{ up_to = 5 }", &[]), (0, "5 missing, 5 repaired".to_owned(), "100".to_owned()));
}

#[test]
fn formats_for_people_and_for_ci() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute(
            "CREATE TABLE orders (id INTEGER PRIMARY KEY); CREATE TABLE items (id INTEGER PRIMARY KEY, note TEXT)",
        );
    }
    source.execute("INSERT INTO orders VALUES (1)");
    let checks =
        "[checks.count]\npair = \"p\"\nkind = \"count\"\nseverity = \"critical\"\nowner = \"a & b\"\n";
    let text = check(&source.url(), &target.url(), checks, &[]);
    assert_eq!(text.status, 1);
    assert!(
        text.stdout.contains("FAIL             count orders (count): source 1, target 0; apart by 1\n"),
        "{}",
        text.stdout
    );
    assert!(
        text.stdout.contains("severity critical, owner a & b") && text.stdout.contains("2 checks: 1 passed")
    );
    let junit = check(&source.url(), &target.url(), checks, &["--format", "junit"]);
    assert_eq!(junit.status, 1);
    assert!(junit.stdout.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>"));
    assert!(
        junit.stdout.contains("<testsuite name=\"p\"")
            && junit.stdout.contains("tests=\"2\" failures=\"1\" errors=\"0\"")
    );
    assert!(
        junit.stdout.contains("classname=\"p.orders\" name=\"count\"")
            && junit.stdout.contains("owner: a &amp; b"),
        "{}",
        junit.stdout
    );
}

#[test]
fn remote_agents_measure_what_they_serve() {
    let (source, target) = (PostgresDb::create(), MysqlDb::create());
    source.execute("CREATE TABLE orders (id int PRIMARY KEY, at date); INSERT INTO orders VALUES (1, '2024-01-01'); CREATE TABLE items (id int PRIMARY KEY, note text)");
    target.execute("CREATE TABLE orders (id INT PRIMARY KEY, at DATE); INSERT INTO orders VALUES (1, '2024-01-01'); CREATE TABLE items (id INT PRIMARY KEY, note TEXT)");
    let (from, to) = (source.url(), target.url());
    let narrow = Agent::start(&["--database", "env:DB", "--table", "orders"], &[("DB", &from)]);
    let open = Agent::start(&["--database", "env:DB", "--allow-sql"], &[("DB", &to)]);
    let (narrow, open) = (format!("grpc://{}", narrow.address), format!("grpc://{}", open.address));
    let checks = "[checks.count]\npair = \"p\"\nkind = \"count\"\n[checks.gaps]\npair = \"p\"\ntable = \"orders\"\nkind = \"gaps\"\ncolumn = \"at\"\n\
                  [checks.sql]\npair = \"p\"\nkind = \"sql\"\nsql = \"SELECT 1\"\n[checks.rows]\npair = \"p\"\ntable = \"orders\"\nkind = \"rows\"\n";
    let output = check(&narrow, &open, checks, &["--format", "json"]);
    assert_eq!(output.status, 2, "{output:?}");
    let report = output.json();
    let of = |name: &str, table: Option<&str>| {
        let checks = report["checks"].as_array().unwrap();
        checks
            .iter()
            .find(|c| c["name"] == name && table.is_none_or(|table| c["table"] == table))
            .unwrap()
            .clone()
    };
    assert_eq!(of("count", Some("orders"))["status"], "pass", "{report}");
    assert_eq!(of("gaps", None)["status"], "pass");
    assert_eq!(of("rows", None)["status"], "pass");
    let refused = of("count", Some("items"));
    assert!(
        refused["status"] == "unknown"
            && refused["message"].as_str().unwrap().contains("does not serve table"),
        "{refused}"
    );
    let sql = of("sql", None);
    assert!(sql["status"] == "unknown" && sql["hint"].as_str().unwrap().contains("--allow-sql"), "{sql}");
    assert_eq!(check(&open, &open.replace("127.0.0.1", "localhost"), checks, &["sql"]).status, 0);
    assert_eq!(check(&narrow, &to, checks, &["gaps"]).status, 0);
}

/// What a repair's trigger does to tables that were checked before it is seen at the end.
#[test]
fn what_a_later_repair_changes_is_measured_again() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute(
            "CREATE TABLE a (id INTEGER PRIMARY KEY, total INT); INSERT INTO a VALUES (1, 7), (2, 7);
             CREATE TABLE b (id INTEGER PRIMARY KEY, v INT); INSERT INTO b VALUES (1, 1);
             CREATE TABLE plain (id INTEGER PRIMARY KEY, v INT); INSERT INTO plain VALUES (1, 1);",
        );
    }
    source.execute("INSERT INTO b VALUES (2, 2); INSERT INTO plain VALUES (2, 2)");
    target.execute("CREATE TRIGGER adds AFTER INSERT ON b BEGIN UPDATE a SET total = total + new.v; END; INSERT INTO plain VALUES (3, 3)");
    let text = "[checks.count]\npair = \"p\"\nkind = \"count\"\n[checks.total]\npair = \"p\"\ntable = \"a\"\nkind = \"sum\"\ncolumn = \"total\"\n\
                [checks.rows]\npair = \"p\"\nkind = \"rows\"\nrepair = { up_to = 5 }\n";
    let output = check_of("", &source.url(), &target.url(), text, &["--format", "json"]);
    let results = output.json()["checks"].as_array().unwrap().clone();
    let of = |name: &str, table: &str| {
        let found = results.iter().find(|result| result["name"] == name && result["table"] == table).unwrap();
        (
            found["status"].as_str().unwrap().to_owned(),
            found["message"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let (status, message) = of("rows", "a");
    assert!(status == "fail" && message.contains("2 changed; it agreed before"), "{status}: {message}");
    let (status, message) = of("total", "a");
    assert!(
        status == "fail" && message.contains("it agreed before this run's writes into b"),
        "{status}: {message}"
    );
    let (status, message) = of("count", "a");
    assert!(
        status == "pass" && message.contains("measured again after the writes into b"),
        "{status}: {message}"
    );
    // One row was missing and one extra: the counts agreed, until the missing one was inserted.
    let (status, message) = of("count", "plain");
    assert!(status == "fail" && message.contains("it agreed before"), "{status}: {message}");
    assert_eq!(of("rows", "b"), ("pass".to_owned(), "1 missing, 1 repaired".to_owned()));
    assert_eq!(output.status, 1);
}

/// What a repair does to a database that a pair before it was checked with is seen at the end.
#[test]
fn what_another_pairs_repair_changes_is_measured_again() {
    let [first, second, target] = [SqliteDb::create(), SqliteDb::create(), SqliteDb::create()];
    for db in [&first, &target] {
        db.execute("CREATE TABLE a (id INTEGER PRIMARY KEY, total INT); INSERT INTO a VALUES (1, 7), (2, 7)");
        db.execute("CREATE TABLE plain (id INTEGER PRIMARY KEY, v INT)");
    }
    for db in [&second, &target] {
        db.execute("CREATE TABLE b (id INTEGER PRIMARY KEY, v INT); INSERT INTO b VALUES (1, 1)");
    }
    second.execute("INSERT INTO b VALUES (2, 2)");
    target.execute("CREATE TRIGGER adds AFTER INSERT ON b BEGIN UPDATE a SET total = total + new.v; END");
    let text = "[pairs.a_first]\nsource = \"c\"\ntarget = \"b\"\ntables = [\"a\", \"plain\"]\n[endpoints.c]\nurl = \"env:FIRST\"\n\
                [checks.early]\npair = \"a_first\"\nkind = \"rows\"\n\
                [checks.late]\npair = \"p\"\nkind = \"rows\"\nrepair = { up_to = 5 }\n";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trueup.toml");
    let head = "[endpoints.a]\nurl = \"env:SOURCE\"\n[endpoints.b]\nurl = \"env:TARGET\"\n[pairs.p]\nsource = \"a\"\ntarget = \"b\"\ntables = [\"b\"]\n";
    std::fs::write(&file, format!("{head}{text}")).unwrap();
    let env = [("SOURCE", second.url()), ("TARGET", target.url()), ("FIRST", first.url())];
    let env: Vec<(&str, &str)> = env.iter().map(|(name, url)| (*name, url.as_str())).collect();
    let check = |more: &[&str]| {
        let args =
            ["check", "-c", file.to_str().unwrap(), "-q", "--recheck-delay", "1ms", "--format", "json"];
        let output = trueup_with(&[&args[..], more].concat(), &env);
        let results = output.json()["checks"].as_array().unwrap().clone();
        let all = results.iter().map(|result| {
            format!(
                "{} {} {}",
                result["name"].as_str().unwrap(),
                result["table"].as_str().unwrap(),
                result["status"].as_str().unwrap()
            )
        });
        (output.status, all.collect::<Vec<_>>(), results)
    };
    let (status, all, _) = check(&["--dry-run"]);
    assert_eq!(
        (status, all),
        (1, vec!["early a pass".into(), "early plain pass".into(), "late b fail".into()])
    );
    let (status, all, results) = check(&[]);
    assert_eq!(
        (status, all),
        (1, vec!["early a fail".into(), "early plain pass".into(), "late b pass".into()])
    );
    assert!(results[0]["notes"].to_string().contains("it agreed before the repair of pair p"), "{results:?}");
}
