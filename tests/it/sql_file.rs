//! `repair --sql`: the file does what the repair would, whatever client runs it, and nothing to rows that have changed since.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::support::process::{Output, trueup};
use super::support::servers::{MysqlDb, PostgresDb, SqliteDb};

fn sql(source: &str, target: &str, file: &Path, more: &[&str]) -> Output {
    let args =
        ["repair", source, target, "--no-ledger", "--recheck-delay", "1ms", "--sql", file.to_str().unwrap()];
    trueup(&[&args, more].concat())
}

fn diff(source: &str, target: &str, more: &[&str]) -> Option<i32> {
    let output = trueup(&[&["diff", source, target, "--no-ledger", "-q"], more].concat());
    output.status.into()
}

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fix.sql");
    (dir, file)
}

/// Runs the file with the database's own client, set to another character set.
fn run(url: &str, file: &Path) {
    let url = url::Url::parse(url).unwrap();
    let input = Stdio::from(std::fs::File::open(file).unwrap());
    let (host, port) = (url.host_str().unwrap(), url.port().unwrap().to_string());
    let (user, password) = (url.username(), url.password().unwrap());
    let database = url.path().trim_start_matches('/');
    let mut client = match url.scheme() {
        "postgres" => {
            let mut psql = Command::new("psql");
            psql.args([
                "-X",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                host,
                "-p",
                &port,
                "-U",
                user,
                "-d",
                database,
            ]);
            psql.env("PGPASSWORD", password).env("PGCLIENTENCODING", "LATIN1");
            psql.env("PGOPTIONS", "-c IntervalStyle=sql_standard -c DateStyle=SQL,DMY -c array_nulls=off");
            psql
        }
        _ => {
            let mut mysql = Command::new("mariadb");
            mysql.args([
                "--no-defaults",
                "--default-character-set=latin1",
                "-h",
                host,
                "-P",
                &port,
                "-u",
                user,
            ]);
            mysql.arg(format!("-p{password}")).arg(database);
            mysql
        }
    };
    let done = client.stdin(input).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
}

#[test]
fn postgres_holds_the_same_afterwards_whatever_its_client_is_set_to() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE \"odd\n\\! touch broken\" (id int PRIMARY KEY, t text UNIQUE, i interval, d date, a text[], n int)");
    }
    source.execute(
        "INSERT INTO \"odd\n\\! touch broken\" SELECT g, E'\u{e9}\\'\\n\\\\! \\x01\u{85}' || g, '-1 month +5 days -02:00', '2024-01-02', ARRAY[NULL, 'x'], 2 FROM generate_series(1, 4) g",
    );
    target.execute("INSERT INTO \"odd\n\\! touch broken\" VALUES (1, 'a', '1 day', '2024-01-02', NULL, 1), (2, 'b', NULL, NULL, NULL, 1)");
    // Its unique value is free when the extra row is gone.
    target.execute("INSERT INTO \"odd\n\\! touch broken\" SELECT 9, E'\u{e9}\\'\\n\\\\! \\x01\u{85}4'");
    let (_dir, file) = scratch();
    let output = sql(&source.url(), &target.url(), &file, &["--allow", "insert,update,delete"]);
    assert_eq!(output.status, 1, "{output:?}");
    assert!(
        output
            .stderr
            .contains("holds 2 INSERT, 2 UPDATE and 1 DELETE statements; the target was not changed"),
        "{output:?}"
    );
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("-- 2 inserts, 2 updates, 1 deletes"), "{text}");
    let code: Vec<&str> = text.lines().filter(|line| !line.starts_with("--")).collect();
    assert_eq!((code[0], code[code.len() - 1]), ("BEGIN;", "COMMIT;"));
    assert!(text.lines().all(|line| !line.starts_with("-- ") || !line.contains("odd")));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    run(&target.url(), &file);
    assert_eq!(diff(&source.url(), &target.url(), &[]), Some(0));
    // It is not replaced unasked.
    let again = sql(&source.url(), &target.url(), &file, &[]);
    assert!(again.status == 2 && again.stderr.contains("is there already"), "{again:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    let again = sql(&source.url(), &target.url(), &file, &["--overwrite"]);
    assert_eq!(again.status, 0, "{again:?}");
    assert!(std::fs::read_to_string(&file).unwrap().contains("-- 0 inserts, 0 updates, 0 deletes"));
    assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn mariadb_holds_the_same_afterwards_whatever_its_client_is_set_to() {
    let (source, target) = (MysqlDb::create(), MysqlDb::create());
    for db in [&source, &target] {
        db.execute(
            "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, t varchar(20) CHARACTER SET latin1, j JSON, n int, g int AS (n + 1) STORED,
               at timestamp DEFAULT '2020-01-01' ON UPDATE CURRENT_TIMESTAMP, seen timestamp DEFAULT '2020-01-01' ON UPDATE CURRENT_TIMESTAMP)",
        );
    }
    source.execute("SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'; INSERT INTO t (id, t, j, n) VALUES (0, '\u{e9}\\'\\n\\\\', '[1]', 1), (1, '\u{e9}', '[1e0]', 2)");
    target.execute("INSERT INTO t (id, t, j, n) VALUES (1, 'e', '[1e0]', 1)");
    let (_dir, file) = scratch();
    // One column that is compared, and equal; one that is left out.
    let output = sql(&source.url(), &target.url(), &file, &["--exclude", "seen"]);
    assert_eq!(output.status, 1, "{output:?}");
    run(&target.url(), &file);
    assert_eq!(
        diff(&source.url(), &target.url(), &[]),
        Some(0),
        "{}",
        std::fs::read_to_string(&file).unwrap()
    );
    assert_eq!(
        target.scalar("SELECT COUNT(*) FROM t WHERE YEAR(at) = 2020 AND YEAR(seen) = 2020").unwrap(),
        "2"
    );
}

#[test]
fn a_row_that_has_changed_since_is_passed_over() {
    const MAKE: &str = "CREATE TABLE t (id int PRIMARY KEY, v varchar(20), n int)";
    const ROWS: &str = "INSERT INTO t VALUES (1, 'a', 1), (2, 'a', NULL), (3, 'a', 1), (4, 'a', 1)";
    const SINCE: &str = "UPDATE t SET v = 'A' WHERE id = 1";
    const GONE: &str = "UPDATE t SET n = 7 WHERE id = 4";
    let allow = ["--allow", "insert,update,delete"];
    let after = "SELECT COUNT(*) FROM t WHERE (id = 1 AND v = 'A') OR (id = 2 AND n = 5) OR (id = 3 AND v = 'b') OR (id = 4 AND n = 7)";
    let change = "UPDATE t SET v = 'b' WHERE id IN (1, 3)";
    let null = "UPDATE t SET n = 5 WHERE id = 2";
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for sql in [MAKE, ROWS] {
        source.execute(sql);
        target.execute(sql);
    }
    for sql in [change, null, "DELETE FROM t WHERE id = 4"] {
        source.execute(sql);
    }
    let (_dir, file) = scratch();
    assert_eq!(sql(&source.url(), &target.url(), &file, &allow).status, 1);
    target.execute(SINCE);
    target.execute(GONE);
    run(&target.url(), &file);
    assert_eq!(target.scalar(after).unwrap(), "4", "{}", std::fs::read_to_string(&file).unwrap());

    let mysql = MysqlDb::create();
    for sql in [MAKE, ROWS] {
        mysql.execute(sql);
    }
    let (_dir, file) = scratch();
    assert_eq!(sql(&source.url(), &mysql.url(), &file, &allow).status, 1);
    // The column's collation holds 'a' and 'A' equal; they are another value all the same.
    mysql.execute(SINCE);
    mysql.execute(GONE);
    run(&mysql.url(), &file);
    let exact = after.replace("v = 'A'", "BINARY v = 'A'");
    assert_eq!(mysql.scalar(&exact).unwrap(), "4", "{}", std::fs::read_to_string(&file).unwrap());

    let sqlite = SqliteDb::create();
    for sql in [MAKE, ROWS] {
        sqlite.execute(sql);
    }
    let (_dir, file) = scratch();
    assert_eq!(sql(&source.url(), &sqlite.url(), &file, &allow).status, 1);
    sqlite.execute(SINCE);
    sqlite.execute(GONE);
    sqlite.execute(&std::fs::read_to_string(&file).unwrap());
    assert_eq!(sqlite.scalar(after).unwrap(), "4", "{}", std::fs::read_to_string(&file).unwrap());
}

#[test]
fn deletes_come_first_and_children_before_their_parents() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute(
            "CREATE TABLE parent (id INTEGER PRIMARY KEY, code TEXT UNIQUE ON CONFLICT REPLACE, v INT);
             CREATE TABLE child (id INTEGER PRIMARY KEY, p INT REFERENCES parent, code TEXT COLLATE NOCASE UNIQUE ON CONFLICT REPLACE);",
        );
    }
    source.execute("INSERT INTO parent VALUES (1, 'a', 1), (3, 'c', 3); INSERT INTO child VALUES (1, 1, 'X'), (3, 3, 'y')");
    target.execute("INSERT INTO parent VALUES (1, 'a', 1), (2, 'c', 2); INSERT INTO child VALUES (2, 2, 'x'), (4, 1, 'Y')");
    let (_dir, file) = scratch();
    let output = sql(&source.url(), &target.url(), &file, &["--allow", "insert,update,delete"]);
    assert_eq!(output.status, 1, "{output:?}");
    target.execute(&std::fs::read_to_string(&file).unwrap());
    assert_eq!(diff(&source.url(), &target.url(), &[]), Some(0));
}

#[test]
fn a_row_that_cannot_be_spelled_is_named_and_the_others_are_written() {
    let (source, target) = (PostgresDb::create(), SqliteDb::create());
    source.execute("CREATE TABLE n (id int PRIMARY KEY, a numeric(30,10))");
    source.execute("INSERT INTO n VALUES (1, 1234567890123456789.0123456789), (2, 0.5)");
    target.execute("CREATE TABLE n (id INTEGER PRIMARY KEY, a DECIMAL(30,10))");
    let (_dir, file) = scratch();
    let output = sql(&source.url(), &target.url(), &file, &[]);
    assert_eq!(output.status, 1, "{output:?}");
    assert!(output.stdout.contains("1 set aside: ") && output.stdout.contains("as id=1"), "{output:?}");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        text.contains("-- 1 inserts, 0 updates, 0 deletes") && text.contains("VALUES (2, 0.5);"),
        "{text}"
    );
}
