//! What a comparison of all tables does not look at is named.

use super::support::process::{trueup, trueup_with};
use super::support::servers::{MysqlDb, PostgresDb, SqliteDb};

fn left_out(output: &super::support::process::Output) -> Vec<String> {
    let names = output.json()["left_out"].as_array().cloned().unwrap_or_default();
    names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn diff(source: &str, target: &str, more: &[&str]) -> super::support::process::Output {
    let args = [&["diff", "env:SOURCE", "env:TARGET", "--no-ledger", "-q"], more].concat();
    trueup_with(&args, &[("SOURCE", source), ("TARGET", target)])
}

#[test]
fn views_and_virtual_tables_of_a_file_are_named() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); CREATE VIEW seen AS SELECT * FROM t;
             CREATE VIRTUAL TABLE found USING fts5(body)",
        );
    }
    source.execute("INSERT INTO found VALUES ('only here')");
    let output = diff(&source.url(), &target.url(), &["--format", "json"]);
    assert_eq!(
        left_out(&output),
        [
            "source: virtual table found",
            "source: view seen",
            "target: virtual table found",
            "target: view seen"
        ]
    );
    let text = diff(&source.url(), &target.url(), &[]).stdout;
    assert!(text.contains("not compared: source: virtual table found, source: view seen, target:"), "{text}");
    // Of one table that was asked for, nothing is left out.
    let one =
        trueup(&["diff", &source.url(), &target.url(), "--no-ledger", "-q", "-t", "t", "--format", "json"]);
    assert_eq!(left_out(&one), [""; 0]);
    let plain = SqliteDb::create();
    plain.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)");
    assert!(!diff(&plain.url(), &plain.url(), &[]).stdout.contains("not compared"));
}

#[test]
fn views_of_servers_are_named() {
    let (source, target) = (PostgresDb::create(), MysqlDb::create());
    source.execute("CREATE TABLE t (id int PRIMARY KEY)");
    source.execute("CREATE VIEW seen AS SELECT * FROM t");
    source.execute("CREATE MATERIALIZED VIEW kept AS SELECT * FROM t");
    source.execute("CREATE SEQUENCE counted");
    source.execute("CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id)");
    source.execute("CREATE TABLE part PARTITION OF parts DEFAULT");
    target.execute("CREATE TABLE t (id int PRIMARY KEY)");
    target.execute("CREATE TABLE parts (id int PRIMARY KEY)");
    target.execute("CREATE VIEW `Seen` AS SELECT * FROM t");
    let output = diff(&source.url(), &target.url(), &["--format", "json"]);
    assert_eq!(
        left_out(&output),
        ["source: materialized view kept", "source: view seen", "target: view Seen"]
    );
}
