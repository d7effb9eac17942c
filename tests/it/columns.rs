//! Columns that only one side has: nothing is the same until they are paired, excluded or accepted.

use serde_json::{Value, json};

use super::support::process::{Output, trueup};
use super::support::servers::{MysqlDb, PostgresDb, SqliteDb};

const QUICK: &[&str] = &["--format", "json", "--quiet", "--recheck-delay", "1ms"];

fn run(command: &str, urls: [&str; 2], more: &[&str]) -> Output {
    let mut args = vec![command, urls[0], urls[1]];
    args.extend(QUICK);
    args.extend(more);
    trueup(&args)
}

fn columns(output: &Output) -> Value {
    output.json()["tables"][0]["columns"].clone()
}

fn pair(source: &str, target: &str) -> (SqliteDb, SqliteDb) {
    let dbs = (SqliteDb::create(), SqliteDb::create());
    dbs.0.execute(source);
    dbs.1.execute(target);
    dbs
}

const SOURCE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, pdf_url TEXT); INSERT INTO t VALUES (1, 'x', 'u'), (2, 'y', NULL)";
const TARGET: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, added INTEGER DEFAULT 7); INSERT INTO t VALUES (1, 'x', 7), (2, 'y', 8)";

#[test]
fn a_column_without_a_partner_is_a_difference_until_it_is_accepted() {
    let (source, target) = pair(SOURCE, TARGET);
    let (s, t) = (source.url(), target.url());
    let output = run("diff", [&s, &t], &[]);
    assert_eq!(output.status, 1, "{output:?}");
    let report = output.json();
    assert_eq!(
        (&report["verdict"], &report["tables"][0]["verdict"]),
        (&json!("different"), &json!("different"))
    );
    let unpaired = json!([
        { "side": "source", "name": "pdf_url", "accepted": false },
        { "side": "target", "name": "added", "accepted": false },
    ]);
    assert_eq!(columns(&output), json!({ "compared": 2, "total": 4, "unpaired": unpaired }));
    let text = trueup(&["diff", &s, &t, "-q"]).stdout;
    assert!(text.starts_with("t: different, compared 2 of 4 columns\n"), "{text}");
    for line in ["  only in the source: pdf_url\n", "  only in the target: added\n", "--unpaired ignore"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    for (accepted, status) in [
        (&["--unpaired", "ignore"][..], 0),
        (&["--unpaired", "pdf_url,added"], 0),
        (&["--unpaired", "pdf_url", "--unpaired", "added"], 0),
        (&["--unpaired", "pdf_url"], 1),
        (&["--unpaired", "PDF_URL,ADDED"], 1),
        (&["--exclude", "pdf_url,added"], 0),
        (&["--exclude", "pdf_url", "--unpaired", "added"], 0),
        (&["--columns", "a"], 0),
        (&["--map", "pdf_url=added", "--as-text", "pdf_url"], 1),
    ] {
        let output = run("diff", [&s, &t], accepted);
        assert_eq!(output.status, status, "{accepted:?}: {output:?}");
    }
    let text = trueup(&["diff", &s, &t, "-q", "--unpaired", "ignore"]).stdout;
    assert!(text.starts_with("t: the same, compared 2 of 4 columns\n"), "{text}");
    assert!(text.contains("only in the source, accepted: pdf_url"), "{text}");
}

#[test]
fn a_repair_writes_the_rows_and_stays_different() {
    let (source, target) = pair(SOURCE, TARGET);
    source.execute("INSERT INTO t VALUES (3, 'z', 'v')");
    let (s, t) = (source.url(), target.url());
    let dry = run("repair", [&s, &t], &["--dry-run"]);
    assert_eq!((dry.status, &columns(&dry)["total"]), (1, &json!(4)), "{dry:?}");
    let output = run("repair", [&s, &t], &[]);
    assert_eq!(output.status, 1, "{output:?}");
    let table = output.json()["tables"][0].clone();
    assert_eq!(
        (&table["inserted"], &table["proved"], &table["verdict"]),
        (&json!(1), &json!(true), &json!("different"))
    );
    assert_eq!(target.scalar("SELECT count(*) FROM t").as_deref(), Some("3"));
    let run_id = output.json()["run"].as_str().unwrap().to_owned();
    let markdown = trueup(&["report", &run_id, "--format", "md"]).stdout;
    assert!(markdown.contains("(compared 2 of 4 columns)"), "{markdown}");
    assert!(markdown.contains("only in the source: pdf\\_url"), "{markdown}");
    assert!(
        trueup(&["report", &run_id]).stdout.contains("compared 2 of 4 columns; only in the source: pdf_url")
    );
    let csv = trueup(&["report", &run_id, "--format", "csv"]).stdout;
    assert!(
        csv.lines().nth(1).unwrap().ends_with(",2,4,only in the source: pdf_url; only in the target: added"),
        "{csv}"
    );
    // Accepted, the same repair is proved.
    target.execute("DELETE FROM t WHERE id = 2");
    assert_eq!(run("repair", [&s, &t], &["--unpaired", "ignore"]).status, 0);
}

#[test]
fn small_tables_that_are_read_together_are_looked_at_too() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        for name in ["a", "b", "c", "d", "e"] {
            db.execute(&format!(
                "CREATE TABLE {name} (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO {name} VALUES (1, 'x')"
            ));
        }
    }
    target.execute("ALTER TABLE c ADD COLUMN w TEXT");
    let output = run("diff", [&source.url(), &target.url()], &[]);
    assert_eq!(output.status, 1, "{output:?}");
    let report = output.json();
    let verdicts: Vec<&str> =
        report["tables"].as_array().unwrap().iter().map(|t| t["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["same", "same", "different", "same", "same"]);
    assert_eq!(report["tables"][2]["columns"]["unpaired"][0]["name"], "w");
}

/// Every kind of column counts: generated, invisible, part of another key, of a view.
#[test]
fn every_kind_of_column_counts_on_every_engine() {
    let postgres = |sql: &str| {
        let db = PostgresDb::create();
        db.execute(sql);
        db
    };
    let plain = "CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 2)";
    let source = postgres(plain);
    for (sql, name) in [
        (
            "CREATE TABLE t (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (a * 2) STORED); INSERT INTO t VALUES (1, 2)",
            "g",
        ),
        (
            "CREATE TABLE t (id int PRIMARY KEY, a int, n bigint GENERATED ALWAYS AS IDENTITY UNIQUE); INSERT INTO t VALUES (1, 2)",
            "n",
        ),
        (
            "CREATE TABLE t (id int UNIQUE NOT NULL, a int, pk serial PRIMARY KEY); INSERT INTO t VALUES (1, 2)",
            "pk",
        ),
        ("CREATE TABLE t (id int PRIMARY KEY, a int, \"A\" int); INSERT INTO t VALUES (1, 2, 3)", "A"),
        ("CREATE TABLE t (id int PRIMARY KEY, a int, p point); INSERT INTO t VALUES (1, 2, NULL)", "p"),
    ] {
        let target = postgres(sql);
        for urls in [[source.url(), target.url()], [target.url(), source.url()]] {
            let key: &[&str] = if name == "pk" { &["--key", "id"] } else { &[] };
            let output = run("diff", [&urls[0], &urls[1]], key);
            assert_eq!(output.status, 1, "{name}: {output:?}");
            assert_eq!(columns(&output)["unpaired"][0]["name"], name, "{output:?}");
            let accepted = run("diff", [&urls[0], &urls[1]], &[key, &["--unpaired", name]].concat());
            assert_eq!(accepted.status, 0, "{name}: {accepted:?}");
        }
    }
    source.execute("CREATE VIEW v AS SELECT id FROM t");
    assert_eq!(
        run("diff", [&source.url(), &source.url()], &["-t", "v=t"]).status,
        1,
        "a view without a column"
    );
    let (left, right) = (MysqlDb::create(), MysqlDb::create());
    left.execute(plain);
    right.execute("CREATE TABLE t (id int PRIMARY KEY, a int, i int INVISIBLE, v int AS (a + 1) VIRTUAL); INSERT INTO t (id, a) VALUES (1, 2)");
    let output = run("diff", [&left.url(), &right.url()], &[]);
    let names: Vec<Value> =
        columns(&output)["unpaired"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!((output.status, names), (1, vec![json!("i"), json!("v")]), "{output:?}");
    let (file, other) = pair(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a INT); INSERT INTO t VALUES (1, 2)",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a INT, v INT AS (a + 1)); INSERT INTO t VALUES (1, 2)",
    );
    assert_eq!(run("diff", [&file.url(), &other.url()], &[]).status, 1);
    assert_eq!(run("diff", [&file.url(), &other.url()], &["--unpaired", "v"]).status, 0);
}

#[test]
fn a_check_of_rows_names_them_and_the_file_accepts_them() {
    let (source, target) = pair(SOURCE, TARGET);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trueup.toml");
    let check = |pair: &str, check: &str, format: &str| {
        let text = format!(
            "[endpoints.s]\nurl = \"{}\"\n[endpoints.t]\nurl = \"{}\"\n[pairs.p]\nsource = \"s\"\ntarget = \"t\"\n{pair}\n\
             [checks.rows]\npair = \"p\"\nkind = \"rows\"\n{check}\n",
            source.url(),
            target.url()
        );
        std::fs::write(&file, text).unwrap();
        trueup(&["check", "-c", file.to_str().unwrap(), "-q", "--format", format, "--recheck-delay", "1ms"])
    };
    for tolerance in ["", "tolerance = { rows = 100 }", "tolerance = { percent = 50 }"] {
        let output = check("", tolerance, "json");
        assert_eq!(output.status, 1, "{output:?}");
        let result = output.json()["checks"][0].clone();
        assert_eq!((&result["status"], &result["columns"]["compared"]), (&json!("fail"), &json!(2)));
        assert_eq!(result["columns"]["unpaired"][1]["name"], "added");
        assert!(result["hint"].as_str().unwrap().contains("unpaired"), "{result}");
    }
    let text = check("", "", "text").stdout;
    assert!(
        text.contains("source 2, target 2; compared 2 of 4 columns; only in the source: pdf_url"),
        "{text}"
    );
    let xml = check("", "", "junit").stdout;
    assert!(xml.contains("failures=\"1\"") && xml.contains("only in the target: added"), "{xml}");
    for accepted in [
        "unpaired = \"ignore\"",
        "unpaired = [\"pdf_url\", \"added\"]",
        "tables = [{ table = \"t\", unpaired = \"ignore\" }]",
        "unpaired = \"ignore\"\ntables = [\"t\"]",
    ] {
        assert_eq!(check(accepted, "", "json").status, 0, "{accepted}");
    }
    let text = check("unpaired = \"ignore\"", "", "text").stdout;
    assert!(text.contains("pass") && text.contains("only in the source, accepted: pdf_url"), "{text}");
    let strict = "unpaired = \"ignore\"\ntables = [{ table = \"t\", unpaired = \"different\" }]";
    assert_eq!(check(strict, "", "json").status, 1);
    // A repair writes, and the check fails all the same.
    source.execute("INSERT INTO t VALUES (3, 'z', 'v')");
    let output = check("", "repair = { up_to = 10 }", "json");
    assert_eq!(
        (output.status, target.scalar("SELECT count(*) FROM t").as_deref()),
        (1, Some("3")),
        "{output:?}"
    );
}

#[test]
fn a_backfill_fills_and_stays_different() {
    let source = "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, lost TEXT); INSERT INTO t VALUES (1, 'x', 'u'), (2, 'y', NULL)";
    let target = "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT); INSERT INTO t VALUES (1, 'x')";
    let (source, target) = pair(source, target);
    let (s, t) = (source.url(), target.url());
    let backfill = |more: &[&str]| {
        run(
            "backfill",
            [&s, &t],
            &[&["-t", "t", "--on", "id", "--from", "1", "--to", "3", "--step", "1"], more].concat(),
        )
    };
    let output = backfill(&[]);
    assert_eq!(
        (output.status, columns(&output)["unpaired"][0]["name"].as_str()),
        (1, Some("lost")),
        "{output:?}"
    );
    assert_eq!(target.scalar("SELECT count(*) FROM t").as_deref(), Some("2"));
    assert_eq!(output.json()["tables"][0]["chunks"][0]["verdict"], "same", "its rows are");
    assert_eq!(backfill(&[]).status, 1);
    assert_eq!(backfill(&["--unpaired", "lost"]).status, 0);
}
