//! A proof covers what the writes of a whole run caused: later tables' triggers and foreign keys reach back.

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

fn table(output: &Output, name: &str) -> Value {
    let report = output.json();
    let tables = report["tables"].as_array().unwrap();
    let found = tables.iter().find(|table| table["source_table"].as_str().unwrap().ends_with(name));
    found.unwrap_or_else(|| panic!("{name} is not in {report}")).clone()
}

fn warned(table: &Value, words: &str) -> bool {
    table["warnings"].as_array().unwrap().iter().any(|warning| warning.as_str().unwrap().contains(words))
}

/// What every engine calls a trigger that runs this statement for each inserted row.
const TRIGGERS: [&str; 3] = [
    "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {}; RETURN NULL; END $$; CREATE TRIGGER g AFTER INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION f()",
    "CREATE TRIGGER g AFTER INSERT ON {t} FOR EACH ROW {}",
    "CREATE TRIGGER g AFTER INSERT ON {t} BEGIN {}; END",
];

enum Db {
    Postgres(PostgresDb),
    Mysql(MysqlDb),
    Sqlite(SqliteDb),
}

impl Db {
    fn of(engine: usize) -> Self {
        match engine {
            0 => Self::Postgres(PostgresDb::create()),
            1 => Self::Mysql(MysqlDb::create()),
            _ => Self::Sqlite(SqliteDb::create()),
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Postgres(db) => db.url(),
            Self::Mysql(db) => db.url(),
            Self::Sqlite(db) => db.url(),
        }
    }

    fn execute(&self, sql: &str) {
        match self {
            Self::Postgres(db) => db.execute(sql),
            Self::Mysql(db) => db.execute(sql),
            Self::Sqlite(db) => db.execute(sql),
        }
    }

    fn scalar(&self, sql: &str) -> Option<String> {
        match self {
            Self::Postgres(db) => db.scalar(sql),
            Self::Mysql(db) => db.scalar(sql),
            Self::Sqlite(db) => db.scalar(sql),
        }
    }

    fn trigger(&self, engine: usize, table: &str, statement: &str) {
        self.execute(&TRIGGERS[engine].replace("{t}", table).replace("{}", statement));
    }
}

/// For each engine: two databases with these tables, the target with what `drift` does to it and with a trigger.
fn each(tables: &str, drift: &str, trigger: (&str, &str), check: impl Fn(&Db, [&str; 2])) {
    for engine in 0..TRIGGERS.len() {
        let (source, target) = (Db::of(engine), Db::of(engine));
        source.execute(tables);
        target.execute(tables);
        target.execute(drift);
        target.trigger(engine, trigger.0, trigger.1);
        check(&target, [&source.url(), &target.url()]);
    }
}

const PARENT_AND_CHILD: &str = "CREATE TABLE ra (id int PRIMARY KEY, tot int); CREATE TABLE rb (id int PRIMARY KEY, a int NOT NULL REFERENCES ra (id), v int);
    INSERT INTO ra VALUES (1, 7), (2, 0); INSERT INTO rb VALUES (1, 1, 3), (2, 1, 4)";

#[test]
fn a_childs_trigger_that_changes_its_parent_takes_the_proof_away() {
    let add = "UPDATE ra SET tot = tot + NEW.v WHERE id = NEW.a";
    each(PARENT_AND_CHILD, "DELETE FROM rb WHERE id = 2", ("rb", add), |target, urls| {
        let output = run("repair", urls, &["-t", "ra", "-t", "rb"]);
        assert_eq!(output.status, 1, "{output:?}");
        let (ra, rb) = (table(&output, "ra"), table(&output, "rb"));
        assert_eq!(
            (&ra["verdict"], &ra["proved"], &ra["left"]),
            (&json!("different"), &json!(false), &json!(1))
        );
        assert!(warned(&ra, "the writes of a later table changed it"), "{ra}");
        assert_eq!((&rb["verdict"], &rb["proved"]), (&json!("same"), &json!(true)), "{output:?}");
        assert_eq!(target.scalar("SELECT tot FROM ra WHERE id = 1").as_deref(), Some("11"));
        let run_id = output.json()["run"].as_str().unwrap().to_owned();
        let report = trueup(&["report", &run_id, "--format", "md"]).stdout;
        let of_ra = report.split("## Table").find(|part| part.contains("ra: different")).unwrap();
        assert!(!of_ra.contains("- proved"), "{of_ra}");
        // What was changed is repaired by the next run, whose proof stands: nothing is written to the child any more.
        let again = run("repair", urls, &["-t", "ra", "-t", "rb"]);
        assert_eq!((again.status, run("diff", urls, &[]).status), (0, 0), "{again:?}");
    });
}

#[test]
fn a_trigger_reaches_any_table_that_was_read_before() {
    let tables = "CREATE TABLE a (id int PRIMARY KEY, n int); CREATE TABLE b (id int PRIMARY KEY, n int); CREATE TABLE c (id int PRIMARY KEY, n int); CREATE TABLE w (id int PRIMARY KEY, n int);
        INSERT INTO a VALUES (1, 1), (2, 2); INSERT INTO b VALUES (1, 1), (2, 2); INSERT INTO c VALUES (1, 1), (2, 2); INSERT INTO w VALUES (1, 1)";
    // Table a is written, table b was equal from the beginning and read with the other small ones.
    let drift = "DELETE FROM a WHERE id = 2; DELETE FROM w WHERE id = 1";
    each(tables, drift, ("w", "DELETE FROM b WHERE id = 2"), |_, urls| {
        let output = run("repair", urls, &[]);
        assert_eq!(output.status, 1, "{output:?}");
        let verdicts =
            ["a", "b", "c", "w"].map(|name| table(&output, name)["verdict"].as_str().unwrap().to_owned());
        assert_eq!(verdicts, ["same", "different", "same", "same"]);
        assert!(warned(&table(&output, "a"), "compared again after the writes of"), "{output:?}");
        assert!(warned(&table(&output, "b"), "1 missing, 0 changed, 0 extra"), "{output:?}");
        assert_eq!(table(&output, "a")["repaired_root"], table(&output, "a")["source_root"]);
    });
}

#[test]
fn a_harmless_trigger_and_plain_tables_leave_the_proof() {
    let add = "UPDATE ra SET tot = tot WHERE id = NEW.a";
    each(PARENT_AND_CHILD, "DELETE FROM rb; UPDATE ra SET tot = 1 WHERE id = 2", ("rb", add), |_, urls| {
        let output = run("repair", urls, &[]);
        assert_eq!(output.status, 0, "{output:?}");
        let ra = table(&output, "ra");
        assert!(warned(&ra, "compared again after the writes of"), "{ra}");
        assert_eq!((&ra["proved"], &ra["repaired_root"]), (&json!(true), &ra["source_root"]));
        assert_eq!(run("diff", urls, &[]).status, 0);
    });
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (id INTEGER PRIMARY KEY)");
    }
    source.execute("INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)");
    let output = run("repair", [&source.url(), &target.url()], &[]);
    assert_eq!(output.status, 0, "{output:?}");
    assert_eq!(table(&output, "a")["warnings"], json!([]), "nothing reaches back: nothing is read twice");
}

/// Two tables that refer to each other, and a table to itself: what a delete sets to NULL was proved before.
#[test]
fn tables_that_refer_to_each_other_are_read_again() {
    let rows = "INSERT INTO a VALUES (1, 9), (2, NULL)";
    let with_keys = [
        "CREATE TABLE b (id int PRIMARY KEY, a int); CREATE TABLE a (id int PRIMARY KEY, b int REFERENCES b (id) ON DELETE SET NULL);
         INSERT INTO b VALUES (9, NULL), (8, NULL); INSERT INTO a VALUES (1, 9), (2, NULL); ALTER TABLE b ADD FOREIGN KEY (a) REFERENCES a (id)",
        "CREATE TABLE b (id int PRIMARY KEY, a int); CREATE TABLE a (id int PRIMARY KEY, b int, FOREIGN KEY (b) REFERENCES b (id) ON DELETE SET NULL);
         INSERT INTO b VALUES (9, NULL), (8, NULL); INSERT INTO a VALUES (1, 9), (2, NULL); ALTER TABLE b ADD FOREIGN KEY (a) REFERENCES a (id)",
        "CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a (id)); CREATE TABLE a (id int PRIMARY KEY, b int REFERENCES b (id) ON DELETE SET NULL);
         INSERT INTO b VALUES (9, NULL), (8, NULL); INSERT INTO a VALUES (1, 9), (2, NULL)",
    ];
    for (engine, tables) in with_keys.iter().enumerate() {
        let (source, target) = (Db::of(engine), Db::of(engine));
        source.execute("CREATE TABLE a (id int PRIMARY KEY, b int); CREATE TABLE b (id int PRIMARY KEY, a int); INSERT INTO b VALUES (8, NULL)");
        source.execute(rows);
        target.execute(tables);
        let urls = [&source.url(), &target.url()];
        let allow = ["-t", "a", "-t", "b", "--allow", "insert,update,delete", "--allow-cascade"];
        let output = run("repair", urls.map(String::as_str), &allow);
        assert_eq!(
            target.scalar("SELECT count(*) FROM a WHERE b IS NULL").as_deref(),
            Some("2"),
            "it spread: {output:?}"
        );
        assert_eq!(output.status, 1, "engine {engine}: {output:?}");
        assert_eq!(table(&output, "a")["verdict"], "different", "{output:?}");
    }
}

#[test]
fn a_backfill_of_several_tables_is_proved_at_its_end() {
    let tables = "CREATE TABLE a (id int PRIMARY KEY, n int); CREATE TABLE w (id int PRIMARY KEY, n int);
        INSERT INTO a VALUES (1, 1), (2, 2), (3, 3); INSERT INTO w VALUES (1, 1), (2, 2), (3, 3)";
    let drift = "DELETE FROM a WHERE id = 2; DELETE FROM w WHERE id = 2";
    let more = ["-t", "a", "-t", "w", "--on", "id", "--from", "1", "--to", "4", "--step", "1"];
    each(tables, drift, ("w", "UPDATE a SET n = 0 WHERE id = 3"), |_, urls| {
        let output = run("backfill", urls, &more);
        assert_eq!(output.status, 1, "{output:?}");
        let verdicts = ["a", "w"].map(|name| table(&output, name)["verdict"].as_str().unwrap().to_owned());
        assert_eq!(verdicts, ["different", "same"], "{output:?}");
        assert!(warned(&table(&output, "a"), "0 missing, 1 changed"), "{output:?}");
        let run_id = output.json()["run"].as_str().unwrap().to_owned();
        let report = trueup(&["report", &run_id, "--format", "json"]).json();
        assert_eq!(
            (&report["outcome"], &report["tables"][0]["outcome"]["proved"]),
            (&json!("different"), &json!(false))
        );
    });
    // Beyond the range nothing is claimed, and nothing is looked at.
    each(tables, drift, ("w", "DELETE FROM a WHERE id = 3"), |_, urls| {
        let to_three = ["-t", "a", "-t", "w", "--on", "id", "--from", "1", "--to", "3", "--step", "1"];
        let output = run("backfill", urls, &to_three);
        assert_eq!(output.status, 0, "{output:?}");
        assert!(warned(&table(&output, "a"), "compared again after the writes of"), "{output:?}");
    });
}

/// What changes other tables' rows need not be a trigger: PostgreSQL's rules, and two pairs that share their target.
#[test]
fn rules_and_a_shared_target_reach_back_too() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE a (id int PRIMARY KEY, n int); CREATE TABLE w (id int PRIMARY KEY); INSERT INTO a VALUES (1, 1); INSERT INTO w VALUES (1)");
    }
    target.execute("DELETE FROM w; CREATE RULE r AS ON INSERT TO w DO ALSO UPDATE a SET n = 2");
    let output = run("repair", [&source.url(), &target.url()], &[]);
    assert_eq!(target.scalar("SELECT n FROM a").as_deref(), Some("2"), "the rule was followed");
    assert_eq!((output.status, &table(&output, "a")["verdict"]), (1, &json!("different")), "{output:?}");
    source.execute("CREATE TABLE s1 (id int PRIMARY KEY); CREATE TABLE s2 (id int PRIMARY KEY); INSERT INTO s1 VALUES (1); INSERT INTO s2 VALUES (2)");
    target.execute("CREATE TABLE x (id int PRIMARY KEY)");
    let output = run("repair", [&source.url(), &target.url()], &["-t", "s1=x", "-t", "s2=x"]);
    assert_eq!((output.status, &table(&output, "s1")["proved"]), (1, &json!(false)), "{output:?}");
}

/// A constraint of SQLite may say that other rows are deleted instead: a repair does not follow it.
#[test]
fn a_conflict_is_not_resolved_by_deleting_another_row() {
    for unique in [
        "u int UNIQUE ON CONFLICT REPLACE",
        "u int, UNIQUE (u)\n ON\n CONFLICT\tREPLACE",
        "u int UNIQUE ON CONFLICT IGNORE",
    ] {
        let (source, target) = (SqliteDb::create(), SqliteDb::create());
        source.execute("CREATE TABLE t (id integer PRIMARY KEY, u int); INSERT INTO t VALUES (1, 1), (2, 1)");
        target.execute(&format!(
            "CREATE TABLE t (id integer PRIMARY KEY, {unique}); INSERT INTO t VALUES (1, 1)"
        ));
        let output = run("repair", [&source.url(), &target.url()], &["-t", "t"]);
        assert_eq!((output.status, &table(&output, "t")["set_aside"]), (1, &json!(1)), "{output:?}");
        assert_eq!(target.scalar("SELECT group_concat(id) FROM t").as_deref(), Some("1"), "{unique}");
    }
}

/// What a partition has by itself counts as the whole table's: triggers, rules, and keys that point to it.
#[test]
fn a_partitions_triggers_and_referrers_are_the_tables() {
    const PARTS: &str = "CREATE TABLE t (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
        CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10); CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20)";
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute(PARTS);
        db.execute("INSERT INTO t VALUES (1, 1), (11, 3)");
    }
    source.execute("INSERT INTO t VALUES (2, 2)");
    target.execute("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE t SET v = v + 1 WHERE id = 11; RETURN NULL; END';
        CREATE TRIGGER q AFTER INSERT ON t1 FOR EACH ROW EXECUTE FUNCTION f()");
    let repaired = run("repair", [&source.url(), &target.url()], &["-t", "t"]);
    assert_ne!(repaired.status, 2, "{repaired:?}");
    let sum = "SELECT string_agg(id || ':' || v, ' ' ORDER BY id) FROM t";
    let output = run("diff", [&source.url(), &target.url()], &["-t", "t"]);
    assert_eq!(source.scalar(sum) == target.scalar(sum), output.status == 0, "{output:?}");
    assert_eq!(output.status, 0, "the row that the trigger changed was put back: {output:?}");
    // A key that refers to a partition spreads its deletes as one that refers to the whole does.
    target.execute("DROP TRIGGER q ON t1; INSERT INTO t VALUES (9, 9); CREATE TABLE c (id int PRIMARY KEY, t int REFERENCES t1 ON DELETE CASCADE); INSERT INTO c VALUES (9, 9)");
    let output =
        run("repair", [&source.url(), &target.url()], &["-t", "t", "--allow", "insert,update,delete"]);
    assert_eq!(output.status, 2, "{output:?}");
    assert_eq!(target.scalar("SELECT count(*) FROM c").as_deref(), Some("1"));
}

/// A rewrite rule changes other rows of the table as a trigger does.
#[test]
fn a_rule_on_the_table_itself_is_looked_behind() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)");
    }
    target.execute("UPDATE t SET v = 7 WHERE id = 2; CREATE RULE x AS ON UPDATE TO t DO ALSO DELETE FROM t WHERE id <> new.id");
    let output = run("repair", [&source.url(), &target.url()], &["-t", "t"]);
    let same = source.scalar("SELECT count(*) FROM t") == target.scalar("SELECT count(*) FROM t");
    assert!(output.status != 0 || same, "{output:?}");
}
