//! An undo restores, or says what it did not: on all engines, whatever was written since, whatever triggers, foreign keys and
//! kills do.

use std::path::PathBuf;

use serde_json::Value;

use super::evidence::{Place, run_of};
use super::support::process::{Agent, Output, killed_after};
use super::support::servers::{MysqlDb, PostgresDb, SqliteDb};

pub(super) enum Db {
    Postgres(PostgresDb),
    Mysql(MysqlDb),
    Sqlite(SqliteDb),
}

impl Db {
    /// One of each engine.
    pub(super) fn all() -> [fn() -> Self; 3] {
        [
            || Self::Postgres(PostgresDb::create()),
            || Self::Mysql(MysqlDb::create()),
            || Self::Sqlite(SqliteDb::create()),
        ]
    }

    pub(super) fn execute(&self, sql: &str) {
        match self {
            Self::Postgres(db) => db.execute(sql),
            Self::Mysql(db) => sql.split(";;").for_each(|sql| db.execute(sql)),
            Self::Sqlite(db) => db.execute(sql),
        }
    }

    pub(super) fn scalar(&self, sql: &str) -> Option<String> {
        match self {
            Self::Postgres(db) => db.scalar(sql),
            Self::Mysql(db) => db.scalar(sql),
            Self::Sqlite(db) => db.scalar(sql),
        }
    }

    pub(super) fn url(&self) -> String {
        match self {
            Self::Postgres(db) => db.url(),
            Self::Mysql(db) => db.url(),
            Self::Sqlite(db) => db.url(),
        }
    }

    /// All rows of the columns, as the server writes them.
    pub(super) fn rows(&self, table: &str, columns: &str) -> String {
        let sql = match self {
            Self::Postgres(_) => format!(
                "SELECT string_agg(r, ';' ORDER BY id) FROM (SELECT id, ROW({columns})::text r FROM {table}) x"
            ),
            Self::Mysql(_) => {
                let quoted: Vec<String> =
                    columns.split(',').map(|column| format!("COALESCE(HEX({column}), 'NULL')")).collect();
                format!(
                    "SELECT GROUP_CONCAT(CONCAT_WS(',', {}) ORDER BY id SEPARATOR ';') FROM {table}",
                    quoted.join(", ")
                )
            }
            Self::Sqlite(_) => {
                let quoted: Vec<String> = columns
                    .split(',')
                    .map(|column| format!("typeof({column})||coalesce(hex(CAST({column} AS BLOB)),'')"))
                    .collect();
                format!(
                    "SELECT group_concat(r, ';') FROM (SELECT {} r FROM {table} ORDER BY id)",
                    quoted.join("||','||")
                )
            }
        };
        self.scalar(&sql).unwrap_or_default()
    }
}

pub(super) fn limits(output: &Output) -> String {
    output.json()["tables"][0]["undo_limits"].to_string()
}

pub(super) fn counts(output: &Output, names: &[&str]) -> Vec<u64> {
    let table = &output.json()["tables"][0];
    names.iter().map(|name| table[*name].as_u64().unwrap_or(0)).collect()
}

pub(super) fn undo(place: &Place, run: &str, target: &str) -> Output {
    place.run(&["undo", run, "--target", target, "--format", "json"])
}

#[test]
fn what_foreign_keys_change_is_said_before_and_never_called_taken_back() {
    for create in Db::all() {
        let (source, target) = (create(), create());
        source.execute("CREATE TABLE p (id int PRIMARY KEY)");
        for sql in [
            "CREATE TABLE p (id int PRIMARY KEY)",
            "CREATE TABLE c (id int PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE)",
            "CREATE TABLE d (id int PRIMARY KEY, c int, FOREIGN KEY (c) REFERENCES c (id) ON DELETE SET NULL)",
            "INSERT INTO p VALUES (1), (2)",
            "INSERT INTO c VALUES (1, 1), (2, 2)",
            "INSERT INTO d VALUES (1, 1)",
        ] {
            target.execute(sql);
        }
        let place = Place::new();
        let (from, to) = (source.url(), target.url());
        let dry = place.repair(&from, &to, &["-t", "p", "--allow-cascade", "--dry-run"]);
        let repaired = place.repair(&from, &to, &["-t", "p", "--allow-cascade"]);
        assert_eq!(repaired.status, 0, "{repaired:?}");
        for told in [&dry, &repaired] {
            let told = limits(told);
            assert!(
                told.contains("can be undone in part only") && told.contains('c') && told.contains('d'),
                "{told}"
            );
        }
        let text = place.run(&["report", "last", "--format", "json"]);
        assert!(text.stdout.contains("can be undone in part only"), "{text:?}");
        let undone = undo(&place, &run_of(&repaired), &to);
        assert_eq!((undone.status, counts(&undone, &["inserted"])), (1, vec![2]), "{undone:?}");
        assert!(limits(&undone).contains("are not in the undo journal"), "{undone:?}");
        assert_eq!(target.scalar("SELECT count(*) FROM p").as_deref(), Some("2"));
        let again = place.run(&["undo", "last", "--target", &to]);
        assert!(again.status == 1 && again.stdout.contains("taken back in part"), "{again:?}");
        assert!(again.stdout.contains("not taken back: rows of "), "{again:?}");
    }
}

#[test]
fn an_update_that_spreads_is_limited_by_the_columns_that_it_writes() {
    for create in Db::all() {
        let (source, target) = (create(), create());
        source.execute("CREATE TABLE u (id int PRIMARY KEY, code int UNIQUE, v int)");
        source.execute("INSERT INTO u VALUES (1, 10, 1)");
        for sql in [
            "CREATE TABLE u (id int PRIMARY KEY, code int UNIQUE, v int)",
            "CREATE TABLE w (id int PRIMARY KEY, code int, FOREIGN KEY (code) REFERENCES u (code) ON UPDATE CASCADE)",
            "INSERT INTO u VALUES (1, 5, 2)",
            "INSERT INTO w VALUES (1, 5)",
        ] {
            target.execute(sql);
        }
        let place = Place::new();
        let (from, to) = (source.url(), target.url());
        // Nobody refers to what this run writes.
        let plain = place.repair(&from, &to, &["-t", "u", "--columns", "v"]);
        assert_eq!((plain.status, limits(&plain).as_str()), (0, "null"), "{plain:?}");
        assert_eq!(undo(&place, &run_of(&plain), &to).status, 0);
        // The other column is followed by the other table's rows: it is not written unasked.
        let refused = place.repair(&from, &to, &["-t", "u"]);
        assert_eq!(refused.status, 1, "{refused:?}");
        assert_eq!(target.rows("w", "id,code"), target.rows("w", "id,5"), "{refused:?}");
        let spread = place.repair(&from, &to, &["-t", "u", "--allow-cascade"]);
        assert!(limits(&spread).contains("foreign keys change where rows"), "{spread:?}");
        let undone = undo(&place, &run_of(&spread), &to);
        assert!(undone.status == 1 && limits(&undone).contains("not in the undo journal"), "{undone:?}");
    }
}

#[test]
fn a_row_that_was_written_since_stays_whatever_column_it_was() {
    for create in Db::all() {
        let (source, target) = (create(), create());
        source.execute("CREATE TABLE t (id int PRIMARY KEY, v int)");
        let rows: Vec<String> = (1..=3_000).map(|id| format!("({id}, {id})")).collect();
        source.execute(&format!("INSERT INTO t VALUES {}", rows.join(", ")));
        target.execute("CREATE TABLE t (id int PRIMARY KEY, v int, note varchar(20) DEFAULT 'dflt')");
        target.execute("INSERT INTO t VALUES (1, 0, 'one'), (2, 0, 'two'), (3, 0, NULL), (5000, 1, 'gone'), (5001, 1, 'gone too')");
        let place = Place::new();
        let (from, to) = (source.url(), target.url());
        let before = target.rows("t", "id,v,note");
        let repaired =
            place.repair(&from, &to, &["-t", "t", "--unpaired", "ignore", "--max-changes", "100%"]);
        assert_eq!(repaired.status, 0, "{repaired:?}");
        for sql in [
            "UPDATE t SET note = 'user data' WHERE id IN (1, 700)",
            "UPDATE t SET v = 7 WHERE id = 701",
            "INSERT INTO t VALUES (5001, 9, 'anew')",
        ] {
            target.execute(sql);
        }
        let run = run_of(&repaired);
        let undone = undo(&place, &run, &to);
        let found = counts(&undone, &["inserted", "updated", "deleted", "moved_on", "altered"]);
        assert_eq!((undone.status, found), (1, vec![1, 2, 2_995, 4, 0]), "{undone:?}");
        for (id, note) in [(1, "user data"), (700, "user data"), (701, "dflt"), (5001, "anew")] {
            let kept = target.scalar(&format!("SELECT note FROM t WHERE id = {id}"));
            assert_eq!(kept.as_deref(), Some(note), "{id}");
        }
        // As the user's writes go, the rest is taken back: no row twice, none lost.
        for sql in [
            "UPDATE t SET note = 'one' WHERE id = 1",
            "UPDATE t SET note = 'dflt' WHERE id = 700",
            "UPDATE t SET v = 701 WHERE id = 701",
            "DELETE FROM t WHERE id = 5001",
        ] {
            target.execute(sql);
        }
        let undone = place.run(&["undo", "last", "--target", &to, "--format", "json"]);
        let found = counts(&undone, &["inserted", "updated", "deleted", "moved_on"]);
        assert_eq!((undone.status, found), (0, vec![1, 1, 2, 0]), "{undone:?}");
        assert_eq!(target.rows("t", "id,v,note"), before);
    }
}

/// The table of a case: its columns behind `id` and `v`, its rows, and what of them is not to be seen in text.
struct Kept {
    create: fn() -> Db,
    columns: &'static str,
    names: &'static str,
    rows: &'static [&'static str],
}

#[test]
fn a_deleted_row_comes_back_as_the_database_held_it() {
    let cases = [
        Kept {
            create: Db::all()[0],
            columns: "j json, jb jsonb, f float8, r real, n numeric, m numeric(9,3), ja jsonb[], fa float8[], i interval, x xml, c char(4), p point, b bytea",
            names: "id,v,j,jb,f,r,n,m,ja,fa,i,x,c,p,b",
            rows: &[
                r#"INSERT INTO t VALUES (1, 1, '{"b":1, "a":1,"a":2.50}', '[2.50, 1e3]', '-0', '-0', 1.500, 1.5, ARRAY['1.0'::jsonb, NULL], '{-0,1e-320}', '1 mon 24:00', '<a  b="1"/>', 'x', '(1,-0)', '\x00ff')"#,
                r#"INSERT INTO t VALUES (2, 2, '[1e400, -0.0, "\u0000"]', '1.0', 'NaN', 'Infinity', 'NaN', NULL, '{}', '[2:3]={1,2}', '-1 day', NULL, '', NULL, '')"#,
            ],
        },
        Kept {
            create: Db::all()[1],
            columns: "j json, g point, ls geometry, d date, ts timestamp(3) NULL, dt datetime(6), f float, e double, n decimal(9,3), b varbinary(9), bi bit(9), en enum('a','b'), s set('x','y'), c char(4), y year",
            names: "id,v,j,ST_AsWKB(g),ST_AsWKB(ls),d,ts,dt,f,e,n,b,bi,en,s,c,y",
            rows: &[
                r#"SET sql_mode = '';;INSERT INTO t VALUES (1, 1, '{"b":1, "a":1,"a":2.50}', POINT(1, 2), ST_GeomFromText('LINESTRING(0 0,1 1)', 4326), '0000-00-00', '0000-00-00', '2024-00-10', 1.1, 1e-300, 1.5, x'00ff', b'101', 'b', 'x,y', 'x', 2024)"#,
                r"INSERT INTO t VALUES (2, 2, '[1e2, 1.0]', NULL, NULL, '2024-02-29', NULL, NULL, 3.4e38, -1e308, NULL, '', NULL, NULL, '', '', NULL)",
            ],
        },
        Kept {
            create: Db::all()[2],
            columns: "a, j JSON, n NUMERIC, r REAL, b BLOB, tx TEXT, d DATETIME, i INTEGER",
            names: "id,v,a,j,n,r,b,tx,d,i",
            rows: &[
                r#"INSERT INTO t VALUES (1, 1, x'31', '{"b":1, "a":1,"a":2.50}', 1.50, 1, 'text in a blob', CAST(x'ff41' AS TEXT), 1700000000, 'no number')"#,
                "INSERT INTO t VALUES (2, 2, -1.0 * 0.0, '[1e2]', 'x', 9e999, 2.5, x'00', '2024-1-1', 1.5)",
                "INSERT INTO t VALUES (3, 3, 1.0, NULL, 1e100, -9e999, NULL, 7, NULL, 9223372036854775807)",
            ],
        },
    ];
    for Kept { create, columns, names, rows } in cases {
        let (source, target) = (create(), create());
        for db in [&source, &target] {
            db.execute(&format!("CREATE TABLE t (id int PRIMARY KEY, v int, {columns})"));
        }
        rows.iter().for_each(|row| target.execute(row));
        let before = target.rows("t", names);
        assert!(before.len() > 100, "{before}");
        let place = Place::new();
        let repaired = place.repair(&source.url(), &target.url(), &["-t", "t", "--columns", "v"]);
        assert_eq!((repaired.status, limits(&repaired).as_str()), (0, "null"), "{repaired:?}");
        assert_eq!(target.rows("t", "id"), "");
        let undone = undo(&place, &run_of(&repaired), &target.url());
        assert_eq!(undone.status, 0, "{undone:?}");
        assert_eq!(target.rows("t", names), before);
    }
}

#[test]
fn what_cannot_come_back_as_it_was_is_found_by_reading_it_back() {
    // The key's spelling is no part of what it means: 1.500 comes back as 1.5.
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE t (id numeric PRIMARY KEY, v int)");
    }
    target.execute("INSERT INTO t VALUES (1.500, 1), (2, 2)");
    let place = Place::new();
    let repaired = place.repair(&source.url(), &target.url(), &["-t", "t"]);
    assert!(limits(&repaired).contains("may be spelled otherwise (id)"), "{repaired:?}");
    let undone = undo(&place, &run_of(&repaired), &target.url());
    assert_eq!((undone.status, counts(&undone, &["inserted", "altered"])), (1, vec![2, 1]), "{undone:?}");
    // Had no key been spelled otherwise, it would be whole.
    target.execute("DELETE FROM t; INSERT INTO t VALUES (1.5, 1), (2, 2)");
    let repaired = place.repair(&source.url(), &target.url(), &["-t", "t"]);
    assert_eq!(undo(&place, &run_of(&repaired), &target.url()).status, 0);
    assert!(undone.stdout.contains("column id does not hold what it held before the run"), "{undone:?}");
}

#[test]
fn what_triggers_do_is_said_and_found() {
    const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v int, trg int)";
    let triggers: [&[&str]; 3] = [
        &[
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.trg := coalesce(old.trg, 0) + 1; RETURN new; END $$",
            "CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
        ],
        &["CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW SET new.trg = coalesce(old.trg, 0) + 1"],
        &[
            "CREATE TRIGGER g AFTER UPDATE ON t BEGIN UPDATE t SET trg = coalesce(trg, 0) + 1 WHERE id = new.id; END",
        ],
    ];
    for (create, triggers) in Db::all().into_iter().zip(triggers) {
        let (source, target) = (create(), create());
        source.execute("CREATE TABLE t (id int PRIMARY KEY, v int)");
        source.execute("INSERT INTO t VALUES (1, 1), (2, 2)");
        target.execute(TABLE);
        target.execute("INSERT INTO t VALUES (1, 5, NULL), (2, 6, NULL)");
        triggers.iter().for_each(|sql| target.execute(sql));
        let place = Place::new();
        let (from, to) = (source.url(), target.url());
        let repaired = place.repair(&from, &to, &["-t", "t", "--unpaired", "ignore"]);
        assert!(repaired.status == 0 && limits(&repaired).contains("what triggers of"), "{repaired:?}");
        let undone = undo(&place, &run_of(&repaired), &to);
        assert_eq!((undone.status, counts(&undone, &["updated", "altered"])), (1, vec![2, 2]), "{undone:?}");
        assert!(undone.stdout.contains("column trg does not hold"), "{undone:?}");
        assert_eq!(target.scalar("SELECT sum(v) FROM t").as_deref(), Some("11"));
        // The run's writes are gone, and the rows are still not as they were.
        let again = undo(&place, &run_of(&repaired), &to);
        assert_eq!((again.status, counts(&again, &["updated", "altered"])), (1, vec![0, 2]), "{again:?}");
    }
}

fn pair() -> (SqliteDb, SqliteDb) {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000) INSERT INTO t SELECT i, 'row ' || i FROM n");
    }
    (source, target)
}

const ROWS: &str = "SELECT group_concat(id || v, ';') FROM (SELECT * FROM t ORDER BY id)";

#[test]
fn last_is_the_last_run_that_wrote_and_stands() {
    let (source, target) = pair();
    let place = Place::new();
    let (from, to) = (source.url(), target.url());
    let mut states = Vec::new();
    let mut runs = Vec::new();
    for drift in ["UPDATE t SET v = 'a' WHERE id = 1", "DELETE FROM t WHERE id = 2"] {
        target.execute(drift);
        states.push(target.scalar(ROWS));
        runs.push(run_of(&place.repair(&from, &to, &[])));
    }
    // None of these wrote: a diff, a dry run, a repair without work, a dry undo, and one that could not connect.
    assert_eq!(place.run(&["diff", &from, &to, "-q"]).status, 0);
    assert_eq!(place.repair(&from, &to, &["--dry-run"]).status, 0);
    assert_eq!(place.repair(&from, &to, &[]).status, 0);
    let dry = place.run(&["undo", "last", "--dry-run"]);
    assert_eq!(dry.status, 1, "{dry:?}");
    let way_on = format!("nothing was written; take it back with: trueup undo {}", runs[1]);
    assert!(dry.stdout.contains(&way_on) && !dry.stdout.contains("took back"), "{dry:?}");
    assert_eq!(place.run(&["undo", "last", "--target", "sqlite:///nowhere/at/all.db"]).status, 2);
    for at in [1, 0] {
        let undone = place.run(&["undo", "last"]);
        assert!(
            undone.status == 0 && undone.stdout.contains(&format!("took back run {}", runs[at])),
            "{undone:?}"
        );
        let first =
            |rows: &Option<String>| rows.as_ref().map(|rows| rows.split(';').next().unwrap().to_owned());
        let now = target.scalar(ROWS);
        assert_eq!(first(&now), first(&states[at]));
        assert!(!now.unwrap().contains("row 2;"), "what was there before the second run");
    }
    let none = place.run(&["undo", "last"]);
    assert!(none.status == 2 && none.stderr.contains("no run that wrote and is not taken back"), "{none:?}");
    // An undo that is taken back itself leaves its run to be taken back.
    let runs_list = place.run(&["runs", "--kind", "undo", "--format", "ndjson"]);
    let newest: Value = serde_json::from_str(runs_list.stdout.lines().nth(1).unwrap()).unwrap();
    let back = place.run(&["undo", newest["id"].as_str().unwrap()]);
    assert_eq!(back.status, 0, "{back:?}");
    assert_eq!(place.run(&["undo", "last"]).status, 0);
}

/// The journals of a ledger's runs.
pub(super) fn journals(place: &Place) -> Vec<PathBuf> {
    let files = std::fs::read_dir(place.path("undo")).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "undo")).collect();
    files.sort();
    files
}

#[test]
fn a_journal_that_is_not_whole_is_told_and_nothing_is_put_back() {
    let (source, target) = pair();
    for db in [&source, &target] {
        db.execute("CREATE TABLE u (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO u VALUES (1, 'x')");
    }
    target.execute("UPDATE t SET v = 'old' WHERE id % 4 = 0; DELETE FROM u");
    let place = Place::new();
    let repaired = place.repair(&source.url(), &target.url(), &["--max-changes", "100%"]);
    assert_eq!(repaired.status, 0, "{repaired:?}");
    let after = target.scalar(ROWS);
    let files = journals(&place);
    assert_eq!(files.len(), 2);
    let refused = |what: &str| {
        let undone = place.run(&["undo", "last"]);
        assert!(undone.status == 2 && undone.stderr.contains(what), "{what}: {undone:?}");
        assert_eq!(target.scalar(ROWS), after, "{what}");
    };
    for file in &files {
        let whole = std::fs::read(file).unwrap();
        // Cut anywhere, at a record's end too: the last record is gone.
        for cut in [whole.len() - 1, whole.len() - 45, whole.len() / 2, 40, 3] {
            std::fs::write(file, &whole[..cut]).unwrap();
            refused("cannot be taken back");
        }
        let mut altered = whole.clone();
        altered[whole.len() / 2] ^= 1;
        std::fs::write(file, &altered).unwrap();
        refused("cannot be taken back");
        std::fs::remove_file(file).unwrap();
        refused("missing");
        std::fs::write(file, &whole).unwrap();
    }
    // Of another key.
    let key = place.path("undo").join("undo.key");
    let right = std::fs::read(&key).unwrap();
    std::fs::write(&key, "ab".repeat(32)).unwrap();
    refused("was not written with this key");
    std::fs::write(&key, right).unwrap();
    let undone = place.run(&["undo", "last"]);
    assert!(undone.status == 0 && target.scalar(ROWS) != after, "{undone:?}");
}

/// Where each record of a journal begins; the last is its length.
fn records(bytes: &[u8]) -> Vec<usize> {
    let mut at = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut all = vec![at];
    while at < bytes.len() {
        let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        at += 28 + usize::try_from(length).unwrap();
        all.push(at);
    }
    all
}

#[test]
fn what_a_crash_left_unread_is_not_known() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    source.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)",
    );
    target.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v INT, note TEXT); INSERT INTO t VALUES (3, 7, 'n')",
    );
    let place = Place::new();
    let repaired = place.repair(&source.url(), &target.url(), &["--unpaired", "ignore"]);
    assert_eq!(repaired.status, 0, "{repaired:?}");
    // As if it had died between the write and the reading back: the batches stand, and nothing is said of what they left.
    let file = journals(&place).pop().unwrap();
    let whole = std::fs::read(&file).unwrap();
    let ends = records(&whole);
    assert!(ends.len() >= 5, "head, batch, outcomes, end: {ends:?}");
    std::fs::write(&file, &whole[..ends[2]]).unwrap();
    let (run, to) = (run_of(&repaired), target.url());
    let dir = place.path("undo");
    // The ledger knows better.
    assert_eq!(place.run(&["undo", "last"]).status, 2);
    let undone = super::support::process::trueup(&[
        "undo",
        &run,
        "--no-ledger",
        "--target",
        &to,
        "--undo-dir",
        dir.to_str().unwrap(),
        "--format",
        "json",
    ]);
    assert_eq!(undone.status, 1, "{undone:?}");
    assert!(undone.stdout.contains("has not closed its undo journal"), "{undone:?}");
    assert!(undone.stdout.contains("did not come to read the row back"), "{undone:?}");
    // What was inserted may have been written since in its other column; what was updated loses nothing by going back.
    assert_eq!(target.scalar("SELECT v || note FROM t WHERE id = 3").as_deref(), Some("7n"));
    assert_eq!(target.scalar("SELECT count(*) FROM t").as_deref(), Some("3"));
}

#[test]
fn an_undo_killed_at_any_moment_is_finished_by_the_next() {
    let (source, target) = pair();
    for db in [&source, &target] {
        db.execute("INSERT INTO t SELECT id + 4000, v FROM t; INSERT INTO t SELECT id + 8000, v FROM t");
    }
    target.execute("UPDATE t SET v = 'old ' || id WHERE id % 2 = 0; DELETE FROM t WHERE id % 5 = 0; INSERT INTO t SELECT id + 100000, 'extra' FROM t WHERE id % 9 = 0");
    let before = target.scalar(ROWS);
    let place = Place::new();
    let mut halfway = 0;
    for attempt in 0..8u64 {
        let repaired = place.repair(&source.url(), &target.url(), &["--max-changes", "100%"]);
        assert_eq!(repaired.status, 0, "{repaired:?}");
        let (run, after) = (run_of(&repaired), target.scalar(ROWS));
        let known = journals(&place);
        let killed = killed_after(&["undo", &run, "--ledger", &place.ledger()], || {
            let new = journals(&place).into_iter().filter(|path| !known.contains(path));
            let bytes: u64 = new.map(|path| std::fs::metadata(path).map_or(0, |meta| meta.len())).sum();
            bytes > 2_000 + attempt * 40_000
        });
        let now = target.scalar(ROWS);
        halfway += u32::from(killed && now != before && now != after);
        let undone = place.run(&["undo", &run, "--format", "json"]);
        assert_eq!(undone.status, 0, "attempt {attempt}: {undone:?}");
        assert!(target.scalar(ROWS) == before, "attempt {attempt}: not as it was");
        assert_eq!(counts(&undone, &["moved_on", "altered", "set_aside"]), [0, 0, 0], "{undone:?}");
        assert_eq!(place.run(&["audit", "verify"]).status, 0);
    }
    assert!(halfway >= 3, "killed halfway {halfway} times");
}

#[test]
fn through_an_agent_the_same_is_said() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    source.execute("CREATE TABLE p (id int PRIMARY KEY, v int); INSERT INTO p VALUES (1, 1)");
    target.execute("CREATE TABLE p (id int PRIMARY KEY, v int, note json); CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p ON DELETE CASCADE); INSERT INTO p VALUES (2, 2, '{\"a\":1,\"a\":1.0}'); INSERT INTO c VALUES (1, 2)");
    let place = Place::new();
    let folder = place.path("remote").to_str().unwrap().to_owned();
    let url = target.url();
    let agent = Agent::start(
        &["--database", "env:DB", "--allow-write", "--undo-dir", &folder],
        &[("DB", url.as_str())],
    );
    let to = format!("grpc://{}", agent.address);
    let repaired = place.repair(&source.url(), &to, &["-t", "p", "--unpaired", "ignore", "--allow-cascade"]);
    assert!(repaired.status == 0 && limits(&repaired).contains("rows of public.c that"), "{repaired:?}");
    target.execute("UPDATE p SET note = '\"user\"' WHERE id = 1");
    let undone = place.run(&["undo", "last", "--format", "json"]);
    assert_eq!((undone.status, counts(&undone, &["inserted", "moved_on"])), (1, vec![1, 1]), "{undone:?}");
    assert!(limits(&undone).contains("rows of public.c that"), "{undone:?}");
    let kept = target.scalar("SELECT string_agg(id || note::text, ';' ORDER BY id) FROM p");
    assert_eq!(kept.as_deref(), Some("1\"user\";2{\"a\":1,\"a\":1.0}"));
}
