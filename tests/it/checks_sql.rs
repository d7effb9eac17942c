//! Checks of kind `sql`: values are what their servers say, not what their texts look like.

use serde_json::Value;

use super::support::process::trueup_with;
use super::support::servers::{MysqlDb, PostgresDb, SqliteDb};

/// The results of checks of two queries each, in one run.
fn all(source: &str, target: &str, queries: &[(String, String)]) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trueup.toml");
    let mut text = String::from(
        "[endpoints.a]\nurl = \"env:SOURCE\"\n[endpoints.b]\nurl = \"env:TARGET\"\n[pairs.p]\nsource = \"a\"\ntarget = \"b\"\n",
    );
    for (at, (source, target)) in queries.iter().enumerate() {
        text += &format!(
            "[checks.c{at:03}]\npair = \"p\"\nkind = \"sql\"\nsource_sql = {source:?}\ntarget_sql = {target:?}\n"
        );
    }
    std::fs::write(&file, text).unwrap();
    let mut args = vec!["check", "-c", file.to_str().unwrap(), "--quiet", "--no-ledger", "--recheck", "0"];
    args.extend(["--format", "json", "--show-values"]);
    let output = trueup_with(&args, &[("SOURCE", source), ("TARGET", target)]);
    let results = output.json()["checks"].as_array().unwrap().clone();
    assert_eq!(results.len(), queries.len(), "{output:?}");
    results
}

/// Each pair of queries with the status that it must have.
fn hold(source: &str, target: &str, cases: &[(String, String, &str)]) {
    let queries: Vec<(String, String)> =
        cases.iter().map(|(left, right, _)| (left.clone(), right.clone())).collect();
    for ((left, right, expected), result) in cases.iter().zip(all(source, target, &queries)) {
        assert_eq!(result["status"], *expected, "{source} {target} {left} {right}: {result}");
    }
}

fn case(left: &str, right: &str, expected: &'static str) -> (String, String, &'static str) {
    (left.to_owned(), right.to_owned(), expected)
}

#[test]
fn texts_that_look_alike_are_not_alike() {
    let (pg, my, lite) = (PostgresDb::create(), MysqlDb::create(), SqliteDb::create());
    let (pg, my, lite) = (pg.url(), my.url(), lite.url());
    let urls = [pg.as_str(), my.as_str(), lite.as_str()];
    let texts = [
        ("'00000e10'", "'00000e20'"),
        ("'007'", "'7'"),
        ("'t'", "'1'"),
        ("'true'", "'1'"),
        ("'2024-01-01'", "'2024-01-01 00:00:00'"),
        ("'2024-01-01 00:00:00'", "'2024-01-01T00:00:00'"),
        ("'nan'", "'NaN'"),
        ("' 7'", "'7'"),
        ("'7 '", "'7'"),
        ("'a'", "'A'"),
        ("'1.0'", "'1'"),
    ];
    let mut cases = Vec::new();
    for (left, right) in texts {
        let (left, right) = (format!("SELECT {left}"), format!("SELECT {right}"));
        cases.extend([case(&left, &right, "fail"), case(&left, &left, "pass"), case(&right, &right, "pass")]);
    }
    for from in urls {
        for to in urls {
            hold(from, to, &cases);
        }
    }
}

#[test]
fn bytes_are_bytes() {
    let (pg, my, lite) = (PostgresDb::create(), MysqlDb::create(), SqliteDb::create());
    let (pg, my, lite) = (pg.url(), my.url(), lite.url());
    let bytes = |url: &str, hex: &str| match url.split(':').next() {
        Some("postgres") => format!("SELECT decode('{hex}', 'hex')"),
        Some("mysql") => format!("SELECT unhex('{hex}')"),
        _ => format!("SELECT x'{hex}'"),
    };
    for from in [&pg, &my, &lite] {
        for to in [&pg, &my, &lite] {
            let pair =
                |left: &str, right: &str, expected| case(&bytes(from, left), &bytes(to, right), expected);
            let of_text = |text: &str| case(&bytes(from, "61"), text, "unknown");
            // A text of the same letters, or of the same digits, is no such bytes.
            let cases = [
                pair("ff01", "fe01", "fail"),
                pair("ff01", "FF01", "pass"),
                pair("00", "0000", "fail"),
                of_text("SELECT 'a'"),
                of_text("SELECT '61'"),
            ];
            hold(from, to, &cases);
        }
    }
    let broken = |hex: &str| format!("SELECT CAST(x'{hex}' AS TEXT)");
    let (ff, fe) = (broken("ff41"), broken("fe41"));
    let cases = [case(&ff, &fe, "fail"), case(&ff, &ff, "pass"), case(&ff, "SELECT 'ff41'", "fail")];
    hold(&lite, &lite.replace("sqlite://", "sqlite:"), &cases);
    // A BIT and a checksum of a server are bytes or numbers, never a text with loss.
    hold(
        &my,
        &my.replace("127.0.0.1", "localhost"),
        &[
            case("SELECT b'11111110'", "SELECT b'11111111'", "fail"),
            case("SELECT _latin1 x'e9'", "SELECT 'é'", "pass"),
            case("SELECT CAST('a' AS BINARY)", "SELECT 'a'", "unknown"),
        ],
    );
    hold(
        &my,
        &pg,
        &[
            case("SELECT md5('x')", "SELECT md5('x')", "pass"),
            case("SELECT md5('x')", "SELECT md5('y')", "fail"),
            case("SELECT unhex(md5('x'))", "SELECT decode(md5('x'), 'hex')", "pass"),
        ],
    );
}

#[test]
fn numbers_and_times_meet_across_engines() {
    let (pg, my, lite) = (PostgresDb::create(), MysqlDb::create(), SqliteDb::create());
    pg.execute("CREATE TABLE t (at timestamptz, day date, w timestamp, id int); INSERT INTO t VALUES ('2024-02-29 12:00:00.5+00', '2024-02-29', '2024-02-29 12:00:00.5', 7)");
    my.execute("CREATE TABLE t (at TIMESTAMP(6), day DATE, w DATETIME(6), id INT); SET time_zone = '+00:00'; INSERT INTO t VALUES ('2024-02-29 12:00:00.5', '2024-02-29', '2024-02-29 12:00:00.5', 7)");
    lite.execute("CREATE TABLE t (at TIMESTAMP, day DATE, w TIMESTAMP, id INT); INSERT INTO t VALUES ('2024-02-29T12:00:00.5Z', '2024-02-29', '2024-02-29 12:00:00.5', 7)");
    let urls = [pg.url(), my.url(), lite.url()];
    for from in &urls {
        for to in &urls {
            let mut cases = Vec::new();
            for query in ["SELECT max(at) FROM t", "SELECT max(day) FROM t", "SELECT w FROM t"] {
                cases.push(case(query, query, "pass"));
            }
            for (left, right, expected) in [
                ("SELECT 3000.00", "SELECT 3000", "pass"),
                ("SELECT 3000.00", "SELECT 3000.01", "fail"),
                ("SELECT 1 = 1", "SELECT 1", "pass"),
                ("SELECT 1 = 2", "SELECT 1", "fail"),
                ("SELECT 9007199254740993", "SELECT 9007199254740992", "fail"),
                ("SELECT 1", "SELECT '1'", "unknown"),
                ("SELECT max(id) FROM t", "SELECT 'x'", "unknown"),
                ("SELECT NULL", "SELECT NULL", "unknown"),
                ("SELECT NULL", "SELECT 1", "fail"),
                ("SELECT count(*) FROM t", "SELECT count(*) FROM t -- a comment", "pass"),
            ] {
                cases.push(case(left, right, expected));
            }
            hold(from, to, &cases);
        }
    }
    // Near is of numbers alone.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trueup.toml");
    std::fs::write(&file, "[endpoints.a]\nurl = \"env:SOURCE\"\n[endpoints.b]\nurl = \"env:TARGET\"\n[pairs.p]\nsource = \"a\"\ntarget = \"b\"\n\
        [checks.near]\npair = \"p\"\nkind = \"sql\"\nsource_sql = \"SELECT 100\"\ntarget_sql = \"SELECT 101\"\ntolerance = { percent = 1 }\n\
        [checks.text]\npair = \"p\"\nkind = \"sql\"\nsource_sql = \"SELECT '100'\"\ntarget_sql = \"SELECT '101'\"\ntolerance = { percent = 1 }\n").unwrap();
    let args = [
        "check",
        "-c",
        file.to_str().unwrap(),
        "--quiet",
        "--no-ledger",
        "--recheck",
        "0",
        "--format",
        "junit",
    ];
    let output = trueup_with(&args, &[("SOURCE", &urls[0]), ("TARGET", &urls[1])]);
    assert_eq!(output.status, 1, "{output:?}");
    assert!(output.stdout.contains("<failure message=\"the values differ\""), "{output:?}");
    assert_eq!(output.stdout.matches("<failure").count(), 1, "{output:?}");
}

/// A query that gives several rows, or none, is no value.
#[test]
fn a_query_of_several_rows_passes_nowhere() {
    let (pg, my, lite) = (PostgresDb::create(), MysqlDb::create(), SqliteDb::create());
    let (pg, my, lite) = (pg.url(), my.url(), lite.url());
    let urls = [pg.as_str(), my.as_str(), lite.as_str()];
    for source in urls {
        for target in urls {
            let mut queries = vec![case("select 1", "select 1 union all select 2", "unknown")];
            queries.push(case("select 1 union all select 1", "select 1", "unknown"));
            queries.push(case("select 1, 2", "select 1", "unknown"));
            queries.push(case("select 1", "select 1 union all select null", "unknown"));
            queries.push(case("select 1 where 1 = 0", "select 1", "fail"));
            queries.push(case("select 1 where 1 = 0", "select 1 where 1 = 0", "unknown"));
            queries.push(case("select 1 union select 1", "select 1 limit 1", "pass"));
            hold(source, target, &queries);
        }
        let several = [("select 1 union all select 2".to_owned(), "select 1".to_owned())];
        let result = &all(source, &lite, &several)[0];
        let (message, hint) = (result["message"].to_string(), result["hint"].to_string());
        assert!(
            message.contains("more than") && hint.contains("one SELECT of one value"),
            "{source} {result}"
        );
    }
}
