//! What people see: help, errors with hints, exit status, and what goes to which stream.

use super::support::process::{trueup, trueup_with};
use super::support::servers::{MysqlDb, PostgresDb, SqliteDb};

fn refused(args: &[&str], expected: &[&str]) {
    let output = trueup(args);
    assert_eq!(output.status, 2, "{output:?}");
    assert!(!output.stderr.contains("panicked"), "{output:?}");
    for words in expected {
        let all = format!("{}{}", output.stderr, output.stdout);
        assert!(all.contains(words), "{words:?} is not in {output:#?}");
    }
}

#[test]
fn help_names_the_commands_and_the_exit_status() {
    let help = trueup(&["--help"]);
    assert_eq!(help.status, 0);
    for word in
        ["demo", "diff", "repair", "agent", "Exit status: 0 the same", "1 differences, 2 could not tell"]
    {
        assert!(help.stdout.contains(word), "{word}");
    }
    for command in ["demo", "diff", "repair", "agent", "completions", "man"] {
        assert_eq!(trueup(&[command, "--help"]).status, 0, "{command}");
    }
    assert_eq!(trueup(&["--version"]).stdout.trim(), concat!("trueup ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_and_man_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(trueup(&["completions", shell]).stdout.contains("trueup"), "{shell}");
    }
    assert!(trueup(&["man"]).stdout.contains(".TH trueup"));
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(trueup(&["man", dir.path().to_str().unwrap()]).status, 0);
    assert!(dir.path().join("trueup-repair.1").is_file());
}

#[test]
fn the_demo_finds_repairs_and_proves() {
    let demo = trueup(&["demo"]);
    assert_eq!(demo.status, 0, "{demo:?}");
    assert!(demo.stdout.contains("12 rows missing, 9 changed and 3 extra"));
    assert!(demo.stdout.ends_with("Done: every planted difference was found, repaired, and proved gone.\n"));
    assert_eq!(demo.stderr, "");
}

#[test]
fn bad_usage_says_what_to_do() {
    refused(&["nonsense"], &["unrecognized subcommand"]);
    refused(&["diff", "sqlite://a"], &["<TARGET>"]);
    refused(
        &["diff", "oracle://a", "oracle://b"],
        &["error: source:", "hint: write postgres://, mysql:// or sqlite://"],
    );
    refused(
        &["diff", "sqlite:///nowhere/a.db", "sqlite:///nowhere/b.db"],
        &["there is no such file", "hint:"],
    );
    refused(&["diff", "env:TRUEUP_NOT_SET", "sqlite://b"], &["TRUEUP_NOT_SET is not set"]);
    refused(
        &["diff", "mysql://u@127.0.0.1:1/x", "mysql://u@127.0.0.1:1/y"],
        &["127.0.0.1:1/", "check host and port"],
    );
    refused(
        &["diff", "grpc://127.0.0.1:1", "grpc://127.0.0.1:1/"],
        &["cannot connect to the agent at grpc://127.0.0.1:1"],
    );
    refused(&["diff", "grpc://db.example:7443", "grpc://db.example:7444"], &["plaintext", "grpcs://"]);
    refused(&["diff", "grpc://nonsense", "grpc://nonsense2"], &["is no agent address"]);
    refused(&["repair", "sqlite://a", "sqlite://b", "--max-changes", "x"], &["neither a number of rows"]);
}

#[test]
fn passwords_are_not_shown() {
    let db = MysqlDb::create();
    let wrong = db.url().replacen(":pw", ":wrong-secret", 1);
    let output = trueup(&["diff", &wrong, &db.url()]);
    assert_eq!(output.status, 2);
    assert!(
        output.stderr.contains("Access denied") && output.stderr.contains("check the user and the password"),
        "{output:?}"
    );
    assert!(!output.stderr.contains("wrong-secret"), "{output:?}");
    // Characters of a password that mean something in a URL make it another URL: it is refused, and no part of it is told.
    for url in [
        "postgres://app:12/QX@127.0.0.1:1/db",
        "postgres://app:QX#Z@127.0.0.1:1/db",
        "mysql://app:12?QX@127.0.0.1:1/db",
        "postgres:app:QX@127.0.0.1/db",
        "mysql://127.0.0.1:1/db?password=QX@Z",
        "postgres://app:QX@127.0.0.1:1/db",
        "grpcs://app:QX@127.0.0.1:1",
        "grpc://127.0.0.1:1?token=QX",
        "oracle://app:QX@127.0.0.1/db",
        "app:QX@127.0.0.1/db",
    ] {
        let ledger = format!("{}/ledger.db", tempfile::tempdir().unwrap().keep().display());
        for args in [
            &["diff", url, &db.url(), "-t", "a", "--ledger", &ledger][..],
            &["repair", &db.url(), url, "-t", "a", "--ledger", &ledger],
            &["agent", "--listen", "127.0.0.1:0", "--database", url],
            &["runs", "--ledger", if url.starts_with("app:") { "x://app:QX@127.0.0.1/db" } else { url }],
            &["runs", "--format", "ndjson", "--ledger", &ledger],
        ] {
            let output = trueup(args);
            assert!(!format!("{output:?}").contains("QX"), "{args:?}: {output:?}");
        }
    }
    let missing = format!("{}x", db.url());
    let output = trueup(&["diff", &missing, &db.url()]);
    assert!(output.stderr.contains("Unknown database"), "{output:?}");
}

#[test]
fn tables_and_columns_that_are_not_there_are_named() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, a TEXT); CREATE TABLE nokey (a TEXT); CREATE TABLE typed (id INTEGER PRIMARY KEY)");
    }
    source.execute("ALTER TABLE typed ADD COLUMN c INTEGER");
    let (s, t) = (source.url(), target.url());
    refused(&["diff", &s, &t, "-t", "ordres"], &["there is no such table", "did you mean orders?"]);
    refused(
        &["diff", &s, &t, "-t", "orders", "--exclude", "nope"],
        &["no column nope", "its columns are id, a"],
    );
    refused(&["diff", &s, &t, "-t", "nokey"], &["has no primary key", "--key"]);
    refused(&["diff", &s, &t, "-t", "orders", "--key", "a"], &["no unique index"]);
    refused(&["diff", &s, &t, "-t", "orders", "--where", "no such sql"], &["hint: check the SQL condition"]);
    refused(&["diff", &s, &t, "-t", "orders", "--where", "nope = 1"], &["nope"]);
    refused(&["diff", &s, &s], &["the same table of the same database"]);
    refused(&["diff", &s, &t, "-t", "typed", "--columns", "c"], &["column c is not in the target"]);
}

#[test]
fn an_unsound_pair_is_refused_by_name() {
    let (file, server) = (SqliteDb::create(), MysqlDb::create());
    file.execute("CREATE TABLE p (id INTEGER PRIMARY KEY, v TEXT)");
    server.execute("CREATE TABLE p (id INT PRIMARY KEY, v INT)");
    refused(
        &["diff", &file.url(), &server.url()],
        &["column v cannot be compared", "--exclude v", "--as-text v"],
    );
    file.execute("INSERT INTO p VALUES (1, '5')");
    server.execute("INSERT INTO p VALUES (1, 5)");
    assert_eq!(trueup(&["diff", &file.url(), &server.url(), "--as-text", "v"]).status, 0);
}

#[test]
fn a_target_that_cannot_be_written_is_refused_before_anything_is_read() {
    let (source, target) = (MysqlDb::create(), MysqlDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE r (id INT PRIMARY KEY)");
    }
    source.execute("INSERT INTO r VALUES (1)");
    let name = target.url().rsplit('/').next().unwrap().to_owned();
    target.execute(&format!("CREATE USER IF NOT EXISTS 'ro_{name}'@'127.0.0.1' IDENTIFIED BY 'readonly'; GRANT SELECT ON {name}.* TO 'ro_{name}'@'127.0.0.1'"));
    let host = target.url().split('@').nth(1).unwrap().to_owned();
    let readonly = format!("mysql://ro_{name}:readonly@{host}");
    refused(&["repair", &source.url(), &readonly], &["denied", "INSERT"]);
    // Comparing needs SELECT only.
    assert_eq!(trueup(&["diff", &source.url(), &readonly]).status, 1);
}

#[test]
fn data_goes_to_stdout_and_talk_to_stderr() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)");
    }
    source.execute("INSERT INTO t VALUES (1, 'x')");
    let (s, t) = (source.url(), target.url());
    let text = trueup(&["diff", &s, &t, "--recheck-delay", "1ms"]);
    assert!(
        text.stdout.contains("+ id=1 missing") && text.stderr.contains("t: reading both sides"),
        "{text:?}"
    );
    assert!(!text.stdout.contains('\x1b'), "colour where there is no terminal");
    let color = trueup(&["diff", &s, &t, "--recheck-delay", "1ms", "--color", "always", "--quiet"]);
    assert!(color.stdout.contains('\x1b') && color.stderr.is_empty(), "{color:?}");
    let lines = trueup_with(&["diff", &s, &t, "--recheck-delay", "1ms", "--format", "ndjson", "-q"], &[]);
    let types: Vec<String> = lines
        .stdout
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["type"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(types, ["located", "difference", "table", "run"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let to_file = trueup(&["diff", &s, &t, "-q", "-o", file.path().to_str().unwrap(), "--format", "json"]);
    assert_eq!((to_file.status, to_file.stdout.as_str()), (1, ""));
    assert!(std::fs::read_to_string(file.path()).unwrap().contains("\"schema_version\": 2"));
    // No report takes the place of a database or a ledger.
    let place = s.strip_prefix("sqlite://").unwrap();
    refused(&["diff", &s, &t, "-q", "-o", place], &["is an SQLite database", "hint:"]);
    assert_eq!(source.scalar("SELECT count(*) > 0 FROM t").as_deref(), Some("1"));
    // From the environment, so that no password stands in the process list.
    let env = trueup_with(&["diff", "env:S", "env:T", "-q"], &[("S", &s), ("T", &t)]);
    assert_eq!(env.status, 1, "{env:?}");
}

#[test]
fn postgres_says_clearly_what_is_wrong() {
    let db = PostgresDb::create();
    db.execute("CREATE TABLE t (id int PRIMARY KEY, a text); CREATE VIEW v AS SELECT * FROM t");
    let wrong = db.url().replacen(":pw", ":wrong-secret", 1);
    let output = trueup(&["diff", &wrong, &db.url()]);
    assert!(
        output.status == 2 && output.stderr.contains("hint:") && !output.stderr.contains("wrong-secret"),
        "{output:?}"
    );
    let other = PostgresDb::create();
    other.execute("CREATE TABLE t (id int PRIMARY KEY, a text)");
    let (s, t) = (db.url(), other.url());
    refused(&["diff", &s, &t, "-t", "tt"], &["did you mean"]);
    refused(&["diff", &s, &t, "-t", "t", "--where", "nope = 1"], &["nope"]);
    refused(&["diff", "postgres://u@127.0.0.1:1/x", &t], &["127.0.0.1:1", "hint:"]);
    refused(&["diff", &format!("{s}x"), &t], &["hint:"]);
    // A view is read with the target's key.
    assert_eq!(trueup(&["diff", &s, &t, "-t", "v=t", "-q"]).status, 0);
    refused(&["repair", &t, &s, "-t", "t=v"], &["is a view"]);
    let role = db.url().rsplit('/').next().unwrap().to_owned();
    other
        .execute(&format!("CREATE ROLE ro_{role} LOGIN PASSWORD 'readonly'; GRANT SELECT ON t TO ro_{role}"));
    let host = other.url().split('@').nth(1).unwrap().to_owned();
    let readonly = format!("postgres://ro_{role}:readonly@{host}");
    db.execute("INSERT INTO t VALUES (1, 'x')");
    refused(&["repair", &s, &readonly], &["hint:"]);
    assert_eq!(trueup(&["diff", &s, &readonly]).status, 1, "comparing needs SELECT only");
    assert_eq!(other.scalar("SELECT count(*) FROM t").as_deref(), Some("0"));
    other.execute(&format!("DROP OWNED BY ro_{role}; DROP ROLE ro_{role}"));
}
