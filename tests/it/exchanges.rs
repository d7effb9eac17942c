//! Rows that exchange unique values are deleted and inserted again: only where that is nothing but an update.

use super::side_effects::{counts, repair};
use super::support::any::{AnyDb, KINDS, Kind};
use super::support::process::trueup;
use super::support::servers::{MysqlDb, PostgresDb, SqliteDb};

fn pair(kind: Kind) -> (AnyDb, AnyDb) {
    let (source, target) = (AnyDb::create(kind), AnyDb::create(kind));
    source.execute(
        "CREATE TABLE x (id int PRIMARY KEY NOT NULL, v int); INSERT INTO x VALUES (1, 2), (2, 3), (3, 1)",
    );
    target.execute("CREATE TABLE x (id int PRIMARY KEY NOT NULL, v int UNIQUE); INSERT INTO x VALUES (1, 1), (2, 2), (3, 3)");
    target.execute("CREATE TABLE l (id int); INSERT INTO l VALUES (1), (2), (3)");
    (source, target)
}

#[test]
fn no_trigger_on_delete_fires_for_an_update() {
    for kind in KINDS {
        let (source, target) = pair(kind);
        match &target {
            AnyDb::Postgres(db) => db.execute(
                "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM l WHERE id = OLD.id; RETURN OLD; END $$;
                 CREATE TRIGGER z AFTER DELETE ON x FOR EACH ROW EXECUTE FUNCTION f()",
            ),
            AnyDb::Mysql(db) => db.execute("CREATE TRIGGER z AFTER DELETE ON x FOR EACH ROW DELETE FROM l WHERE id = OLD.id"),
            AnyDb::Sqlite(db) => {
                db.execute("CREATE TRIGGER z AFTER DELETE ON x BEGIN DELETE FROM l WHERE id = OLD.id; END");
            }
        }
        for allow in ["update", "insert,update,delete"] {
            let (output, table) = repair(&source.url(), &target.url(), &["--allow", allow]);
            assert_eq!(output.status, 1, "{kind:?}: {output:?}");
            assert_eq!(counts(&table), [0, 0, 0, 3], "{kind:?}: {table}");
            assert_eq!(target.count("SELECT count(*) FROM l"), 3, "{kind:?}");
        }
    }
}

#[test]
fn without_triggers_rows_exchange_their_values() {
    for kind in KINDS {
        let (source, target) = pair(kind);
        let (output, table) = repair(&source.url(), &target.url(), &["--allow", "update"]);
        assert_eq!((output.status, counts(&table)), (0, [0, 3, 0, 0]), "{kind:?}: {output:?}");
    }
}

#[test]
fn a_login_that_may_only_update_updates_and_sets_exchanges_aside() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE x (id int PRIMARY KEY, v int UNIQUE); INSERT INTO x SELECT i, i FROM generate_series(1, 4) i");
    }
    let url = target.login();
    target.execute("GRANT SELECT, UPDATE ON x TO PUBLIC; UPDATE x SET v = 40 WHERE id = 4; UPDATE x SET v = 10 WHERE id = 1; UPDATE x SET v = 1 WHERE id = 2; UPDATE x SET v = 2 WHERE id = 1");
    let (output, table) = repair(&source.url(), &url, &["--allow", "update"]);
    assert_eq!(output.status, 1, "{output:?}");
    assert_eq!(counts(&table), [0, 1, 0, 2], "{table}");
    assert!(table["rows_set_aside"].to_string().contains("needs INSERT and DELETE"), "{table}");

    let (source, target) = (MysqlDb::create(), MysqlDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE x (id int PRIMARY KEY, v int); INSERT INTO x VALUES (1, 1), (2, 2)");
    }
    target.execute("UPDATE x SET v = 9 WHERE id = 2");
    let name = target.url().rsplit('/').next().unwrap().to_owned();
    target.execute(&format!("CREATE USER 'up_{name}'@'127.0.0.1' IDENTIFIED BY 'pw'; GRANT SELECT, UPDATE ON {name}.* TO 'up_{name}'@'127.0.0.1'"));
    let mut url = url::Url::parse(&target.url()).unwrap();
    url.set_username(&format!("up_{name}")).unwrap();
    url.set_password(Some("pw")).unwrap();
    let (output, table) = repair(&source.url(), url.as_str(), &["--allow", "update"]);
    assert_eq!((output.status, counts(&table)), (0, [0, 1, 0, 0]), "{output:?}");
}

#[test]
fn a_rowid_of_sqlite_that_is_a_value_is_updated() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    source.execute("CREATE TABLE x (a INT PRIMARY KEY, b INT NOT NULL UNIQUE, v INT); INSERT INTO x VALUES (5, 2, 1), (6, 3, 7), (7, 4, 8)");
    target.execute("CREATE TABLE x (a INTEGER PRIMARY KEY, b INT NOT NULL UNIQUE, v INT); INSERT INTO x VALUES (1, 2, 1), (7, 3, 7), (6, 4, 8)");
    let (output, table) = repair(&source.url(), &target.url(), &["--key", "b", "--allow", "update"]);
    assert_eq!((output.status, counts(&table)), (0, [0, 3, 0, 0]), "{output:?}");
    assert_eq!(
        target.scalar("SELECT group_concat(a || ':' || b) FROM (SELECT * FROM x ORDER BY b)").as_deref(),
        Some("5:2,6:3,7:4")
    );
}

#[test]
fn a_float_of_mariadb_that_rounds_is_not_written() {
    let (source, target) = (MysqlDb::create(), MysqlDb::create());
    source.execute("CREATE TABLE x (id INT PRIMARY KEY, v FLOAT, w DOUBLE); INSERT INTO x VALUES (1, 1.005, 1.0005), (2, 1.5, 1.25)");
    target.execute("CREATE TABLE x (id INT PRIMARY KEY, v FLOAT(7, 2), w DOUBLE(10, 3)); INSERT INTO x VALUES (1, 1.01, 1.001)");
    let (output, table) = repair(&source.url(), &target.url(), &[]);
    assert_eq!(output.status, 1, "{output:?}");
    assert_eq!((counts(&table), table["unsettled"].as_u64()), ([1, 0, 0, 1], Some(0)), "{table}");
    assert!(table["rows_set_aside"].to_string().contains("keeps less"), "{table}");
}

#[test]
fn a_row_that_only_the_condition_tells_apart_after_the_write_is_left_with_that_reason() {
    for kind in KINDS {
        let (source, target) = (AnyDb::create(kind), AnyDb::create(kind));
        for db in [&source, &target] {
            db.execute("CREATE TABLE x (id int PRIMARY KEY NOT NULL, n varchar(9), w int)");
        }
        source.execute("INSERT INTO x VALUES (1, 'abc', 1), (2, 'abc', 2), (3, 'abc', 3)");
        target.execute("INSERT INTO x VALUES (1, 'abc', 9), (2, 'xyz', 9), (3, 'xyz', 3)");
        let (output, table) =
            repair(&source.url(), &target.url(), &["--where", "n = 'abc'", "--columns", "w"]);
        assert_eq!(output.status, 1, "{kind:?}: {output:?}");
        assert_eq!(table["unsettled"], 0, "{kind:?}: {table}");
        assert_eq!(
            table["left_because"]["only the condition tells the two rows apart"], 2,
            "{kind:?}: {table}"
        );
    }
}

#[test]
fn a_file_of_sql_deletes_parents_when_nothing_refers_to_them_any_more() {
    for (rule, cascade) in [("", false), (" ON DELETE CASCADE", true)] {
        let (source, target) = (SqliteDb::create(), SqliteDb::create());
        for db in [&source, &target] {
            db.execute(&format!(
                "CREATE TABLE pp (id INTEGER PRIMARY KEY); CREATE TABLE cc (id INTEGER PRIMARY KEY, p INT REFERENCES pp (id){rule})"
            ));
        }
        source.execute("INSERT INTO pp VALUES (1), (4); INSERT INTO cc VALUES (1, 1), (2, 4)");
        target.execute("INSERT INTO pp VALUES (1), (3); INSERT INTO cc VALUES (1, 3), (5, 3)");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f.sql");
        let (from, to) = (source.url(), target.url());
        let mut args = vec![
            "repair",
            &from,
            &to,
            "--allow",
            "insert,update,delete",
            "--no-ledger",
            "--quiet",
            "--dry-run",
            "--sql",
            file.to_str().unwrap(),
        ];
        args.extend(cascade.then_some("--allow-cascade"));
        let told = trueup(&args);
        assert!(file.exists(), "{told:?}");
        let sql = std::fs::read_to_string(&file).unwrap();
        target.execute(&format!("PRAGMA foreign_keys = ON; {sql}"));
        let same = trueup(&["diff", &from, &to, "--no-ledger", "--quiet"]);
        assert_eq!(same.status, 0, "{cascade}: {sql}");
    }
}

#[test]
fn a_file_of_sql_passes_over_a_key_that_was_spelled_anew() {
    let (source, target) = (MysqlDb::create(), MysqlDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE x (k VARCHAR(9) COLLATE utf8mb4_general_ci PRIMARY KEY, v INT)");
    }
    source.execute("INSERT INTO x VALUES ('abc', 1)");
    target.execute("INSERT INTO x VALUES ('abc', 9), ('q', 7)");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f.sql");
    let more = ["--allow", "insert,update,delete", "--dry-run", "--sql", file.to_str().unwrap()];
    let (told, _) = repair(&source.url(), &target.url(), &more);
    assert_eq!(told.status, 1, "{told:?}");
    target.execute("UPDATE x SET k = 'ABC' WHERE k = 'abc'; UPDATE x SET k = 'Q' WHERE k = 'q'");
    for statement in std::fs::read_to_string(&file).unwrap().lines().filter(|line| !line.starts_with("--")) {
        target.execute(statement);
    }
    assert_eq!(target.scalar("SELECT GROUP_CONCAT(k, v ORDER BY v) FROM x").as_deref(), Some("Q7,ABC9"));
}

#[test]
fn a_column_of_the_key_is_not_left_out_in_silence() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE x (k INT PRIMARY KEY NOT NULL, v INT); INSERT INTO x VALUES (1, 1)");
    }
    let told = trueup(&["diff", &source.url(), &target.url(), "--exclude", "k", "--no-ledger", "--quiet"]);
    assert_eq!(told.status, 2, "{told:?}");
    assert!(format!("{told:?}").contains("is of the key"), "{told:?}");
}
