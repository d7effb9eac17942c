//! An update writes the cells that differ and no others; what the database makes of a row is told.

use serde_json::Value;

use super::support::process::{Output, trueup};
use super::support::servers::{MysqlDb, PostgresDb, SqliteDb};

fn repair(source: &str, target: &str, more: &[&str]) -> Output {
    let args = ["repair", source, target, "--format", "json", "-q", "--recheck-delay", "1ms"];
    trueup(&[&args, more].concat())
}

fn table_of(output: &Output) -> Value {
    output.json()["tables"][0].clone()
}

fn counts(table: &Value) -> [u64; 4] {
    ["inserted", "updated", "deleted", "set_aside"].map(|name| table[name].as_u64().unwrap())
}

fn reasons(table: &Value) -> Vec<String> {
    let rows = table["rows_set_aside"].as_array().unwrap();
    rows.iter().map(|row| row["reason"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn mariadb_keeps_the_text_of_equal_cells() {
    let (source, target) = (MysqlDb::create(), MysqlDb::create());
    for db in [&source, &target] {
        db.execute("SET sql_mode = ''; CREATE TABLE t (id int PRIMARY KEY, doc JSON, e ENUM('x', 'y') NOT NULL, f float, n int)");
        db.execute("SET sql_mode = ''; INSERT INTO t VALUES (1, '{\"b\": 1, \"a\": [1.0, 2]}', 'zz', 0.1, 1), (2, '[1e2]', 'x', 1.5, 1)");
    }
    source.execute("SET sql_mode = ''; UPDATE t SET n = 2");
    let before = target.scalar("SELECT GROUP_CONCAT(doc, HEX(e), f ORDER BY id) FROM t");
    let output = repair(&source.url(), &target.url(), &[]);
    assert_eq!((output.status, counts(&table_of(&output))), (0, [0, 2, 0, 0]), "{output:?}");
    assert_eq!(target.scalar("SELECT GROUP_CONCAT(doc, HEX(e), f ORDER BY id) FROM t"), before);
    assert_eq!(target.scalar("SELECT SUM(n) FROM t").unwrap(), "4");
}

/// Rows that exchange a unique value are taken out and put back.
#[test]
fn mariadb_keeps_the_text_of_what_is_equal_in_rows_that_are_exchanged() {
    let (source, target) = (PostgresDb::create(), MysqlDb::create());
    source.execute("CREATE TABLE t (id uuid PRIMARY KEY, doc json, code text UNIQUE, n int)");
    target.execute("CREATE TABLE t (id char(36) PRIMARY KEY, doc JSON, code varchar(20) UNIQUE, n int)");
    let id = |n: u32, upper: bool| {
        let id = format!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1{n}");
        if upper { id.to_uppercase() } else { id }
    };
    for n in 1..=3 {
        source.execute(&format!(
            "INSERT INTO t VALUES ('{}', '{{\"a\": 1, \"b\": [1]}}', 'code{n}', {n})",
            id(n, false)
        ));
        let other = 1 + n % 3;
        target.execute(&format!(
            "INSERT INTO t VALUES ('{}', '{{\"b\": [1.0], \"a\":1}}', 'code{other}', {n})",
            id(n, true)
        ));
    }
    let stored = "SELECT GROUP_CONCAT(id, doc, n ORDER BY id) FROM t";
    let before = target.scalar(stored);
    let output = repair(&source.url(), &target.url(), &[]);
    assert_eq!((output.status, counts(&table_of(&output))), (0, [0, 3, 0, 0]), "{output:?}");
    assert_eq!(target.scalar(stored), before);
    assert_eq!(target.scalar("SELECT GROUP_CONCAT(code ORDER BY id) FROM t").unwrap(), "code1,code2,code3");
}

#[test]
fn sqlite_keeps_the_spelling_of_equal_cells() {
    let (source, target) = (PostgresDb::create(), SqliteDb::create());
    source.execute("CREATE TABLE t (id int PRIMARY KEY, at timestamp, u uuid, code text UNIQUE, n int)");
    target.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, at DATETIME, u UUID, code TEXT UNIQUE, n INT)");
    let same = "'2024-01-02 03:04:05', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'";
    let odd = "'2024-01-02T03:04:05', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'";
    source.execute(&format!(
        "INSERT INTO t VALUES (1, {same}, 'a', 2), (2, {same}, 'b', 2), (3, {same}, 'c', 2)"
    ));
    target
        .execute(&format!("INSERT INTO t VALUES (1, {odd}, 'b', 1), (2, {odd}, 'a', 1), (3, {odd}, 'c', 1)"));
    let output = repair(&source.url(), &target.url(), &[]);
    // Rows 1 and 2 exchange a unique value: they are taken out and put back, with what was equal as it was.
    assert_eq!((output.status, counts(&table_of(&output))), (0, [0, 3, 0, 0]), "{output:?}");
    let spelled = "SELECT COUNT(*) FROM t WHERE at = '2024-01-02T03:04:05' AND u GLOB 'A0EE*' AND n = 2";
    assert_eq!(target.scalar(spelled).unwrap(), "3");
    assert_eq!(
        target.scalar("SELECT GROUP_CONCAT(code, '') FROM (SELECT code FROM t ORDER BY id)").unwrap(),
        "abc"
    );
}

/// Bytes that are no text and could not be written, and a trigger of an equal column whose function this SQLite lacks.
#[test]
fn an_equal_cell_of_sqlite_blocks_no_other() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for (db, n) in [(&source, 2), (&target, 1)] {
        db.execute(&format!(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, geom BLOB, n INT);
             CREATE TRIGGER g AFTER UPDATE OF geom ON t WHEN NOT ST_IsEmpty(new.geom) BEGIN SELECT 1; END;
             INSERT INTO t VALUES (1, CAST(x'4dfc6c6c6572' AS TEXT), x'01', {n})"
        ));
    }
    let output = repair(&source.url(), &target.url(), &[]);
    assert_eq!((output.status, counts(&table_of(&output))), (0, [0, 1, 0, 0]), "{output:?}");
    assert_eq!(target.scalar("SELECT hex(name) || n FROM t").unwrap(), "4DFC6C6C65722");
}

#[test]
fn postgres_keeps_the_text_of_equal_cells_also_of_rows_that_are_exchanged() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for (db, doc, amount) in
        [(&source, "{\"a\": 1, \"b\": [1.0]}", "1.5"), (&target, "{\"b\":[1], \"a\":1}", "1.500")]
    {
        db.execute("CREATE TABLE t (id int PRIMARY KEY, doc json, amount numeric, cash money, code text UNIQUE, extra text DEFAULT 'none')");
        db.execute(&format!(
            "INSERT INTO t SELECT g, '{doc}', {amount}, 1.25, 'c' || g, 'kept' FROM generate_series(1, 3) g"
        ));
    }
    let of = |db: &PostgresDb| {
        db.scalar("SELECT string_agg(doc::text || amount::text || cash || extra, ',' ORDER BY id) FROM t")
    };
    let before = of(&target);
    source.execute("UPDATE t SET code = 'other' WHERE id = 3");
    target.execute("UPDATE t SET code = 'x' WHERE id = 1; UPDATE t SET code = 'c1' WHERE id = 2; UPDATE t SET code = 'c2' WHERE id = 1");
    let output = repair(&source.url(), &target.url(), &[]);
    assert_eq!((output.status, counts(&table_of(&output))), (0, [0, 3, 0, 0]), "{output:?}");
    assert_eq!(of(&target), before);
    assert_eq!(target.scalar("SELECT string_agg(code, ',' ORDER BY id) FROM t").unwrap(), "c1,c2,other");
}

const ROWS: &str = "CREATE TABLE t (id int PRIMARY KEY, body varchar(20), at varchar(20), note varchar(20))";

/// Rows with an even id are changed by a trigger of the target's; the others are not.
fn a_trigger_changes_some(source: &str, target: &str, scalar: &dyn Fn(&str) -> String) {
    let output = repair(source, target, &["--allow", "insert,update,delete"]);
    let report = table_of(&output);
    assert_eq!(output.status, 1, "{output:?}");
    assert_eq!(counts(&report), [2, 2, 1, 4], "{report}");
    let reasons = reasons(&report);
    assert!(
        reasons.iter().all(|reason| reason.contains("trigger") && reason.contains("column at")),
        "{reasons:?}"
    );
    assert_eq!(scalar("SELECT COUNT(*) FROM t WHERE at = 'changed'"), "0", "what was set aside is not there");
    assert_eq!(scalar("SELECT COUNT(*) FROM t"), "6");
    // Without that column all can be written.
    let output = repair(source, target, &["--exclude", "at"]);
    assert_eq!((output.status, counts(&table_of(&output))), (0, [2, 2, 0, 0]), "{output:?}");
}

fn set_up(source: &dyn Fn(&str), target: &dyn Fn(&str)) {
    for db in [source, target] {
        db(ROWS);
        db("INSERT INTO t VALUES (1, 'a', '-', ''), (2, 'a', '-', ''), (3, 'a', '-', ''), (4, 'a', '-', '')");
    }
    target("INSERT INTO t VALUES (9, 'a', '-', '')");
    source("UPDATE t SET body = 'b'");
    source("INSERT INTO t VALUES (5, 'b', '-', ''), (6, 'b', '-', ''), (7, 'b', '-', ''), (8, 'b', '-', '')");
}

#[test]
fn what_a_trigger_of_postgres_changes_is_set_aside_with_that_reason() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    let (s, t) = (|sql: &str| source.execute(sql), |sql: &str| target.execute(sql));
    set_up(&s, &t);
    target.execute(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id % 2 = 0 THEN NEW.at = 'changed'; END IF; RETURN NEW; END $$",
    );
    target.execute("CREATE TRIGGER g BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()");
    a_trigger_changes_some(&source.url(), &target.url(), &|sql| target.scalar(sql).unwrap());
}

#[test]
fn what_a_trigger_of_mariadb_changes_is_set_aside_with_that_reason() {
    let (source, target) = (MysqlDb::create(), MysqlDb::create());
    let (s, t) = (|sql: &str| source.execute(sql), |sql: &str| target.execute(sql));
    set_up(&s, &t);
    for event in ["INSERT", "UPDATE"] {
        target.execute(&format!(
            "CREATE TRIGGER g{event} BEFORE {event} ON t FOR EACH ROW SET NEW.at = IF(NEW.id % 2 = 0, 'changed', NEW.at)"
        ));
    }
    a_trigger_changes_some(&source.url(), &target.url(), &|sql| target.scalar(sql).unwrap());
}

#[test]
fn what_a_trigger_of_sqlite_changes_is_set_aside_with_that_reason() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    let (s, t) = (|sql: &str| source.execute(sql), |sql: &str| target.execute(sql));
    set_up(&s, &t);
    for event in ["INSERT", "UPDATE"] {
        target.execute(&format!(
            "CREATE TRIGGER g{event} AFTER {event} ON t WHEN new.id % 2 = 0 AND new.at <> 'changed' BEGIN UPDATE t SET at = 'changed' WHERE id = new.id; END"
        ));
    }
    a_trigger_changes_some(&source.url(), &target.url(), &|sql| target.scalar(sql).unwrap());
}

#[test]
fn a_trigger_that_takes_a_row_back_is_told() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute(ROWS);
    }
    source.execute("INSERT INTO t VALUES (1, 'a', '', ''), (2, 'a', '', '')");
    target.execute("INSERT INTO t VALUES (3, 'a', '', '')");
    target.execute(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF TG_OP = 'DELETE' THEN IF OLD.id = 3 THEN INSERT INTO t SELECT OLD.*; END IF; ELSIF NEW.id = 2 THEN DELETE FROM t WHERE id = 2; END IF; RETURN NULL; END $$",
    );
    target.execute("CREATE TRIGGER g AFTER INSERT OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION f()");
    let output = repair(&source.url(), &target.url(), &["--allow", "insert,update,delete"]);
    let report = table_of(&output);
    assert_eq!((output.status, counts(&report)), (1, [1, 0, 0, 2]), "{report}");
    let mut reasons = reasons(&report);
    reasons.sort();
    assert!(reasons[0].contains("changes the row's key, or deletes the row"), "{reasons:?}");
    assert!(reasons[1].contains("inserts the row again"), "{reasons:?}");
}

/// Rows that the database stores under another key are taken back at once, and nothing is left of them.
#[test]
fn a_row_that_would_get_another_key_is_not_written() {
    let (source, target, mysql) = (PostgresDb::create(), PostgresDb::create(), MysqlDb::create());
    for table in ["plain", "updated", "made"] {
        source.execute(&format!("CREATE TABLE {table} (id int PRIMARY KEY, v int)"));
        source.execute(&format!("INSERT INTO {table} SELECT g, g FROM generate_series(1, 100) g"));
    }
    source.execute("CREATE TABLE spelled (id text PRIMARY KEY, v int); INSERT INTO spelled VALUES ('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 1)");
    target.execute("CREATE SEQUENCE s START 1000; CREATE TABLE plain (id int PRIMARY KEY, v int); CREATE TABLE updated (id int PRIMARY KEY, v int)");
    target.execute("CREATE TABLE made (id int GENERATED ALWAYS AS (v + 1000) STORED PRIMARY KEY, v int)");
    target.execute("CREATE TABLE spelled (id uuid PRIMARY KEY, v int)");
    target.execute("INSERT INTO updated SELECT g, 0 FROM generate_series(1, 100) g");
    target.execute("CREATE FUNCTION i() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id = nextval('s'); RETURN NEW; END $$");
    target.execute("CREATE FUNCTION u() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id = NEW.id + 1000; RETURN NEW; END $$");
    target.execute("CREATE TRIGGER t BEFORE INSERT ON plain FOR EACH ROW EXECUTE FUNCTION i()");
    target.execute("CREATE TRIGGER t BEFORE UPDATE ON updated FOR EACH ROW EXECUTE FUNCTION u()");
    mysql.execute("CREATE TABLE counted (n int)");
    mysql.execute("INSERT INTO counted VALUES (1000)");
    mysql.execute("CREATE TABLE plain (id int PRIMARY KEY, v int)");
    mysql.execute("CREATE TABLE spelled (id uuid PRIMARY KEY, v int)");
    mysql.execute("CREATE TRIGGER t BEFORE INSERT ON plain FOR EACH ROW SET NEW.id = NEW.id + 1000");
    let of = |target: &str, table: &str, more: &[&str]| {
        let output =
            repair(&source.url(), target, &[&["-t", table, "--allow", "insert,update"], more].concat());
        let report = table_of(&output);
        assert_eq!(counts(&report)[..3], [0, 0, 0], "{table}: {report}");
        assert_eq!(output.status, 1, "{table}: {report}");
        let reasons = reasons(&report);
        assert!(reasons[0].contains("key"), "{table}: {reasons:?}");
    };
    let as_text = ["--as-text", "id"];
    for (table, more, rows) in
        [("plain", &[][..], "0"), ("made", &[], "0"), ("updated", &[], "100"), ("spelled", &as_text, "0")]
    {
        of(&target.url(), table, more);
        let kept = format!("SELECT COUNT(*) FROM {table} WHERE v = 0 OR '{table}' <> 'updated'");
        assert_eq!(target.scalar(&kept).unwrap(), rows, "{table}");
    }
    for (table, more) in [("plain", &[][..]), ("spelled", &as_text)] {
        of(&mysql.url(), table, more);
        assert_eq!(mysql.scalar(&format!("SELECT COUNT(*) FROM {table}")).unwrap(), "0", "{table}");
    }
}

/// A trigger that waits for the transaction's end is asked row by row all the same.
#[test]
fn what_a_deferred_trigger_changes_is_set_aside_too() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    let (s, t) = (|sql: &str| source.execute(sql), |sql: &str| target.execute(sql));
    set_up(&s, &t);
    target.execute(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE t SET at = 'changed' WHERE id = NEW.id AND id % 2 = 0 AND at <> 'changed'; RETURN NULL; END $$",
    );
    target.execute("CREATE CONSTRAINT TRIGGER g AFTER INSERT OR UPDATE ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f()");
    a_trigger_changes_some(&source.url(), &target.url(), &|sql| target.scalar(sql).unwrap());
}

/// Many rows go by COPY; what a trigger makes of some of them is found there too.
#[test]
fn of_many_rows_those_that_a_trigger_changes_are_set_aside() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute(ROWS);
    }
    source.execute("INSERT INTO t SELECT g, 'a', '-', '' FROM generate_series(1, 300) g");
    target.execute(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE t SET at = 'changed' WHERE id = NEW.id AND id % 100 = 0 AND at <> 'changed'; RETURN NULL; END $$",
    );
    for waits in ["", "DEFERRABLE INITIALLY DEFERRED"] {
        target.execute("TRUNCATE t");
        target.execute(&format!("CREATE CONSTRAINT TRIGGER g AFTER INSERT OR UPDATE ON t {waits} FOR EACH ROW EXECUTE FUNCTION f()"));
        let output = repair(&source.url(), &target.url(), &[]);
        let report = table_of(&output);
        assert_eq!((output.status, counts(&report)), (1, [297, 0, 0, 3]), "{report}");
        assert!(reasons(&report)[0].contains("trigger"), "{report}");
        assert_eq!(report["missing"].as_u64(), Some(300), "each row counts once: {report}");
        assert_eq!(report["changed"].as_u64(), Some(0), "{report}");
        assert_eq!(target.scalar("SELECT count(*) FROM t WHERE at = '-'").unwrap(), "297");
        assert_eq!(target.scalar("SELECT count(*) FROM t").unwrap(), "297");
        target.execute("DROP TRIGGER g ON t");
    }
}
