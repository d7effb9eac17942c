//! Rows that the database does not take leave nothing behind: what triggers did for them goes, and the rows beside them are
//! written in a transaction.

use serde_json::Value;

use super::support::process::{Output, trueup};
use super::support::servers::{MysqlDb, PostgresDb, SqliteDb};

/// Of table x, with all that is allowed unless `more` says otherwise; and what is said of the table.
pub(super) fn repair(source: &str, target: &str, more: &[&str]) -> (Output, Value) {
    let mut args = vec!["repair", source, target, "-t", "x", "--max-changes", "100%"];
    if !more.contains(&"--allow") {
        args.extend(["--allow", "insert,update,delete"]);
    }
    let quiet = ["--quiet", "--recheck-delay", "1ms", "--format", "json", "--no-ledger"];
    let output = trueup(&[&args[..], &quiet[..], more].concat());
    let table = output.json()["tables"][0].clone();
    (output, table)
}

pub(super) fn counts(table: &Value) -> [u64; 4] {
    ["inserted", "updated", "deleted", "set_aside"].map(|name| table[name].as_u64().unwrap())
}

fn reasons(table: &Value) -> String {
    table["rows_set_aside"].to_string()
}

#[test]
fn a_trigger_of_postgres_that_skips_a_row_has_changed_no_other() {
    for (moment, rows) in [
        ("INSERT", "(1, 1), (2, 2), (4, 4)"),
        ("UPDATE", "(1, 1), (2, 9), (3, 9), (4, 4)"),
        ("DELETE", "(1, 1), (2, 2), (3, 3), (4, 4)"),
    ] {
        let (source, target) = (PostgresDb::create(), PostgresDb::create());
        for db in [&source, &target] {
            db.execute("CREATE TABLE x (id int PRIMARY KEY, v int)");
        }
        let there = if moment == "DELETE" { "(1, 1), (4, 4)" } else { "(1, 1), (2, 2), (3, 3), (4, 4)" };
        source.execute(&format!("INSERT INTO x VALUES {there}"));
        target.execute(&format!("INSERT INTO x VALUES {rows}"));
        let row = if moment == "DELETE" { "OLD" } else { "NEW" };
        target.execute(&format!(
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF {row}.id = 3 THEN UPDATE x SET v = 99 WHERE id = 1; RETURN NULL; END IF; RETURN {row}; END $$;
             CREATE TRIGGER g BEFORE {moment} ON x FOR EACH ROW EXECUTE FUNCTION f()"
        ));
        let (output, table) = repair(&source.url(), &target.url(), &[]);
        assert_eq!(output.status, 1, "{moment}: {output:?}");
        assert_eq!(counts(&table)[3], 1, "{moment}: {table}");
        assert!(reasons(&table).contains("left the row as it was"), "{moment}: {table}");
        assert_eq!(
            target.scalar("SELECT v FROM x WHERE id = 1").as_deref(),
            Some("1"),
            "{moment}: {output:?}"
        );
        let two = target.scalar("SELECT count(*) FROM x WHERE id = 2 AND v = 2");
        assert_eq!(two.as_deref(), Some(if moment == "DELETE" { "0" } else { "1" }), "{moment}: {output:?}");
    }
}

#[test]
fn a_trigger_of_sqlite_that_rolls_back_refuses_its_row_alone() {
    for (moment, rows) in
        [("BEFORE INSERT", ""), ("AFTER INSERT", ""), ("BEFORE UPDATE", "9"), ("BEFORE DELETE", "1")]
    {
        let (source, target) = (SqliteDb::create(), SqliteDb::create());
        for db in [&source, &target] {
            db.execute("CREATE TABLE x (id INTEGER PRIMARY KEY, v INT); CREATE TABLE log (id INT)");
        }
        let all = |v: &str| {
            format!(
                "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30) INSERT INTO x SELECT i, {v} FROM n"
            )
        };
        let row = if moment == "BEFORE DELETE" { "old" } else { "new" };
        if moment == "BEFORE DELETE" {
            target.execute(&all("1"));
        } else {
            source.execute(&all("i"));
        }
        if rows == "9" {
            target.execute(&all("99"));
        }
        target.execute(&format!(
            "CREATE TRIGGER b {moment} ON x WHEN {row}.id IN (3, 17, 30) BEGIN INSERT INTO log VALUES (1); SELECT RAISE(ROLLBACK, 'no'); END"
        ));
        let (output, table) = repair(&source.url(), &target.url(), &[]);
        assert_eq!(output.status, 1, "{moment}: {output:?}");
        let [inserted, updated, deleted, set_aside] = counts(&table);
        assert_eq!((inserted + updated + deleted, set_aside), (27, 3), "{moment}: {table}");
        assert!(reasons(&table).contains("a trigger or constraint refused the row"), "{moment}: {table}");
        assert_eq!(target.scalar("SELECT count(*) FROM log").as_deref(), Some("0"), "{moment}");
        let left = match moment {
            "BEFORE DELETE" => "SELECT group_concat(id) = '3,17,30' FROM x",
            "BEFORE UPDATE" => "SELECT count(*) = 3 FROM x WHERE v <> id",
            _ => "SELECT count(*) = 27 AND min(v = id) = 1 FROM x",
        };
        assert_eq!(target.scalar(left).as_deref(), Some("1"), "{moment}: {output:?}");
    }
}

#[test]
fn a_sqlite_trigger_that_rolls_back_for_every_row_comes_to_an_end() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE x (id INTEGER PRIMARY KEY, v INT)");
    }
    source.execute(
        "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO x SELECT i, i FROM n",
    );
    target.execute("CREATE TRIGGER b BEFORE INSERT ON x BEGIN SELECT RAISE(ROLLBACK, 'no'); END");
    let (output, table) = repair(&source.url(), &target.url(), &[]);
    assert_eq!(output.status, 1, "{output:?}");
    assert_eq!(counts(&table), [0, 0, 0, 3000], "{table}");
    assert_eq!(target.scalar("SELECT count(*) FROM x").as_deref(), Some("0"));
}

#[test]
fn what_a_type_of_postgres_cuts_is_not_written() {
    for (wide, narrow, value) in [
        ("text[]", "varchar(2)[]", "'{\"ab   \"}'"),
        ("text[]", "character(2)[]", "'{\"ab   \"}'"),
        ("numeric[]", "numeric(5,1)[]", "'{1.25}'"),
        ("timestamp[]", "timestamp(0)[]", "'{\"2024-01-01 00:00:00.7\"}'"),
        ("text", "short", "'ab   '"),
        ("numeric", "tens", "125"),
    ] {
        let (source, target) = (PostgresDb::create(), PostgresDb::create());
        for db in [&source, &target] {
            db.execute("CREATE DOMAIN short AS varchar(2); CREATE DOMAIN tens AS numeric(5, -1)");
        }
        source.execute(&format!("CREATE TABLE x (id int PRIMARY KEY, v {wide}); INSERT INTO x SELECT i, {value} FROM generate_series(1, 3) i"));
        target.execute(&format!("CREATE TABLE x (id int PRIMARY KEY, v {narrow})"));
        let (output, table) = repair(&source.url(), &target.url(), &[]);
        if output.status == 0 {
            // Compared as the target rounds it.
            assert_eq!(counts(&table), [3, 0, 0, 0], "{narrow}: {table}");
            continue;
        }
        assert_eq!(output.status, 1, "{narrow}: {output:?}");
        assert_eq!(counts(&table), [0, 0, 0, 3], "{narrow}: {table}");
        assert_eq!(target.scalar("SELECT count(*) FROM x").as_deref(), Some("0"), "{narrow}");
        assert!(!reasons(&table).contains("a trigger of the database changes"), "{narrow}: {table}");
    }
}

#[test]
fn a_key_that_the_target_would_round_is_refused_before_anything_is_deleted() {
    for (wide, narrow, value) in [
        ("interval", "interval second(0)", "'1 day 1.6 s'"),
        ("interval", "interval year to month", "'1 year 3 days'"),
        ("numeric", "numeric(5,-2)", "150"),
    ] {
        let (source, target) = (PostgresDb::create(), PostgresDb::create());
        source.execute(&format!(
            "CREATE TABLE x (k {wide} PRIMARY KEY, v int); INSERT INTO x VALUES ({value}, 1)"
        ));
        target.execute(&format!(
            "CREATE TABLE x (k {narrow} PRIMARY KEY, v int); INSERT INTO x VALUES ({value}, 1)"
        ));
        let (output, table) = repair(&source.url(), &target.url(), &[]);
        assert_eq!(output.status, 2, "{narrow}: {output:?}");
        assert!(
            table["error"]["message"].as_str().unwrap().contains("two rows could share a key"),
            "{table}"
        );
        assert_eq!(target.scalar("SELECT count(*) FROM x").as_deref(), Some("1"), "{narrow}");
    }
}

#[test]
fn a_numeric_left_of_the_point_is_compared_as_it_is_and_not_said_to_be_rounded() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    source.execute("CREATE TABLE x (id int PRIMARY KEY, v numeric); INSERT INTO x VALUES (1, 150)");
    target.execute("CREATE TABLE x (id int PRIMARY KEY, v numeric(5,-2)); INSERT INTO x VALUES (1, 150)");
    let (output, table) = repair(&source.url(), &target.url(), &[]);
    assert_eq!(output.status, 1, "{output:?}");
    assert!(!table["warnings"].to_string().contains("rounds them"), "{table}");
    assert!(reasons(&table).contains("keeps less"), "{table}");
}

#[test]
fn a_row_whose_generated_key_another_row_has_is_not_blamed_on_a_trigger() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    source.execute("CREATE TABLE x (a int, g int GENERATED ALWAYS AS (a * 2) STORED PRIMARY KEY); INSERT INTO x VALUES (1), (2)");
    target.execute("CREATE TABLE x (a int, g int GENERATED ALWAYS AS (a * 4) STORED PRIMARY KEY); INSERT INTO x VALUES (1)");
    let (output, table) = repair(&source.url(), &target.url(), &[]);
    assert_eq!(output.status, 1, "{output:?}");
    assert!(!reasons(&table).contains("trigger"), "{table}");
}

#[test]
fn rows_that_a_policy_lets_nobody_change_are_set_aside_for_it() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE x (id int PRIMARY KEY, own text, v int)");
    }
    source.execute("INSERT INTO x VALUES (1, 'me', 1), (2, 'you', 2)");
    target.execute("INSERT INTO x VALUES (1, 'me', 9), (2, 'you', 9), (3, 'you', 9)");
    let url = target.login();
    target.execute(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON x TO PUBLIC; ALTER TABLE x ENABLE ROW LEVEL SECURITY;
         CREATE POLICY s ON x FOR SELECT USING (true); CREATE POLICY u ON x FOR UPDATE USING (own = 'me');
         CREATE POLICY d ON x FOR DELETE USING (own = 'me')",
    );
    let (output, table) = repair(&source.url(), &url, &[]);
    assert_eq!(output.status, 1, "{output:?}");
    assert_eq!(counts(&table), [0, 1, 0, 2], "{table}");
    assert!(reasons(&table).contains("row-level security policy"), "{table}");
    assert_eq!(table["unsettled"], 0, "{table}");
}

#[test]
fn a_condition_that_asks_the_table_itself_deletes_only_what_was_told() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE x (id int PRIMARY KEY, v int)");
    }
    source.execute("INSERT INTO x SELECT i, i FROM generate_series(1, 5) i");
    target.execute("INSERT INTO x VALUES (1, 1), (2, 2), (3, 3), (6, 6), (7, 7)");
    for _ in 0..2 {
        let before = target.scalar("SELECT count(*) FROM x");
        let (output, table) =
            repair(&source.url(), &target.url(), &["--where", "id = (SELECT max(id) FROM x)"]);
        let gone = before.unwrap().parse::<u64>().unwrap()
            - target.scalar("SELECT count(*) FROM x WHERE id <> 5").unwrap().parse::<u64>().unwrap();
        let told =
            table["differences"].as_array().unwrap().iter().filter(|found| found["kind"] == "extra").count();
        assert!(gone <= told as u64 + 1 && table["deleted"].as_u64().unwrap() <= told as u64, "{output:?}");
        assert_ne!(output.status, 0, "{output:?}");
    }
}

#[test]
fn a_deferred_reference_of_sqlite_without_a_row_sets_its_row_aside() {
    let child = "CREATE TABLE x (id INTEGER PRIMARY KEY, r INT REFERENCES p (id) DEFERRABLE INITIALLY DEFERRED, v INT)";
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    source.execute("CREATE TABLE x (id INTEGER PRIMARY KEY, r INT, v INT); INSERT INTO x VALUES (1, 1, 1), (2, 99, 2), (3, 1, 3), (4, 98, 4)");
    target.execute(&format!("CREATE TABLE p (id INTEGER PRIMARY KEY); INSERT INTO p VALUES (1); {child}; INSERT INTO x VALUES (3, 1, 9), (4, 1, 9)"));
    let (output, table) = repair(&source.url(), &target.url(), &[]);
    assert_eq!(output.status, 1, "{output:?}");
    assert_eq!(counts(&table), [1, 1, 0, 2], "{table}");
    assert!(reasons(&table).contains("FOREIGN KEY"), "{table}");
    assert_eq!(target.scalar("SELECT group_concat(id || ':' || v) FROM x").as_deref(), Some("1:1,3:3,4:9"));

    // A parent that others refer to.
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    source.execute("CREATE TABLE x (id INTEGER PRIMARY KEY, v INT); INSERT INTO x VALUES (1, 1)");
    target.execute(
        "CREATE TABLE x (id INTEGER PRIMARY KEY, v INT); INSERT INTO x VALUES (1, 9), (2, 2), (3, 3);
         CREATE TABLE c (id INTEGER PRIMARY KEY, r INT REFERENCES x (id) DEFERRABLE INITIALLY DEFERRED); INSERT INTO c VALUES (1, 2)",
    );
    let (output, table) = repair(&source.url(), &target.url(), &[]);
    assert_eq!(output.status, 1, "{output:?}");
    assert_eq!(counts(&table)[1], 1, "{table}");
    assert!(reasons(&table).contains("FOREIGN KEY"), "{table}");
    assert_eq!(target.scalar("SELECT count(*) FROM x WHERE id = 2").as_deref(), Some("1"));
    assert_eq!(target.scalar("SELECT v FROM x WHERE id = 1").as_deref(), Some("1"));
}

#[test]
fn a_trigger_of_mariadb_that_sets_the_time_zone_has_no_row_written_under_it() {
    for moment in ["BEFORE INSERT", "AFTER INSERT", "BEFORE UPDATE"] {
        let (source, target) = (MysqlDb::create(), MysqlDb::create());
        for db in [&source, &target] {
            db.execute("CREATE TABLE x (id INT PRIMARY KEY, a TIMESTAMP(6) NULL, d DATETIME(6))");
        }
        let rows = "VALUES (1, '2024-01-01 10:00:00', '2024-01-01 10:00:00'), (2, '2024-01-02 10:00:00', '2024-01-02 10:00:00'), \
                    (3, '2024-01-03 10:00:00', '2024-01-03 10:00:00'), (4, '2024-01-04 10:00:00', '2024-01-04 10:00:00')";
        source.execute(&format!("INSERT INTO x {rows}"));
        if moment == "BEFORE UPDATE" {
            target.execute("INSERT INTO x SELECT seq, NULL, NULL FROM seq_1_to_4");
        }
        target.execute(&format!(
            "CREATE TRIGGER g {moment} ON x FOR EACH ROW BEGIN IF NEW.id = 2 THEN SET time_zone = '+05:00'; END IF; END"
        ));
        let (output, table) = repair(&source.url(), &target.url(), &[]);
        assert_eq!(output.status, 1, "{moment}: {output:?}");
        assert_eq!(counts(&table)[3], 1, "{moment}: {table}");
        assert!(reasons(&table).contains("settings of the session"), "{moment}: {table}");
        let right = "SELECT COUNT(*) FROM x WHERE id <> 2 AND a = d";
        assert_eq!(target.scalar(right).as_deref(), Some("3"), "{moment}: {output:?}");
    }
}

#[test]
fn bytes_without_a_character_are_not_the_question_mark_that_they_read_as() {
    for (charset, one, other) in [
        ("ascii", "80", "3F"),
        ("ascii", "80", "81"),
        ("cp1251", "98", "3F"),
        ("greek", "D2", "FF"),
        ("sjis", "FC40", "3F"),
        ("cp932", "8580", "8581"),
        ("gbk", "A140", "3F"),
        ("euckr", "C9A1", "C9A2"),
        ("ujis", "A9A1", "3F"),
        ("cp1257", "A1", "A5"),
        ("ucs2", "D800", "003F"),
    ] {
        let (source, target) = (MysqlDb::create(), MysqlDb::create());
        for (db, bytes) in [(&source, one), (&target, other)] {
            db.execute(&format!(
                "CREATE TABLE x (id INT PRIMARY KEY, v VARCHAR(10) CHARACTER SET {charset}, e VARCHAR(9) CHARACTER SET {charset});
                 INSERT INTO x VALUES (1, _{charset} X'{bytes}', '?'), (2, 'a?b', 'e?')"
            ));
        }
        let stored = [&source, &target].map(|db| db.scalar("SELECT HEX(v) FROM x WHERE id = 1"));
        if stored[0] == stored[1] {
            // The server did not take one of them.
            continue;
        }
        let told = trueup(&[
            "diff",
            &source.url(),
            &target.url(),
            "-t",
            "x",
            "--no-ledger",
            "--format",
            "json",
            "--quiet",
        ]);
        assert_eq!(told.status, 1, "{charset} {one} {other}: {told:?}");
        assert_eq!(told.json()["tables"][0]["changed"], 1, "{charset} {one} {other}: {told:?}");
        let (output, table) = repair(&source.url(), &target.url(), &[]);
        let now = target.scalar("SELECT HEX(v) FROM x WHERE id = 1");
        // Written as it is, or not at all.
        match output.status {
            0 => assert_eq!(now, stored[0], "{charset} {one} {other}: {table}"),
            _ => assert_eq!((output.status, now), (1, stored[1].clone()), "{charset} {one} {other}: {table}"),
        }
    }
}

#[test]
fn a_date_that_sqlite_keeps_as_its_midnight_is_that_date() {
    for text in
        ["2024-01-04 00:00:00", "2024-01-04T00:00:00.000Z", "2024-01-04 00:00", "2024-01-04 00:00:00.0000000"]
    {
        let (source, target) = (SqliteDb::create(), PostgresDb::create());
        source.execute(&format!("CREATE TABLE x (k DATE PRIMARY KEY NOT NULL, v INT, d DATE); INSERT INTO x VALUES ('{text}', 6, '{text}')"));
        target.execute("CREATE TABLE x (k date PRIMARY KEY, v int, d date); INSERT INTO x VALUES ('2024-01-04', 9, '2024-01-04')");
        let (output, table) = repair(&source.url(), &target.url(), &[]);
        assert_eq!((output.status, counts(&table)), (0, [0, 1, 0, 0]), "{text}: {output:?}");
        // The other way the row is found however it is spelled, and keeps its spelling.
        target.execute("UPDATE x SET v = 7");
        let args = [
            "repair",
            &target.url(),
            &source.url(),
            "-t",
            "x",
            "--allow",
            "insert,update,delete",
            "--no-ledger",
            "--quiet",
        ];
        let back = trueup(&args);
        assert_eq!(back.status, 0, "{text}: {back:?}");
        assert_eq!(source.scalar("SELECT k || v FROM x"), Some(format!("{text}7")));
        // Ranges of days find it too.
        source.execute(&format!("UPDATE x SET v = 8; INSERT INTO x VALUES ('2024-01-05', 1, '{text}')"));
        let range =
            ["--on", "d", "--from", "2024-01-01", "--to", "2024-01-09", "--step", "day", "--no-ledger"];
        let filled = trueup(&[&["backfill", &source.url(), &target.url(), "-t", "x"][..], &range].concat());
        assert_eq!(filled.status, 0, "{text}: {filled:?}");
        assert_eq!(target.scalar("SELECT sum(v) FROM x").as_deref(), Some("9"), "{text}");
    }
}
