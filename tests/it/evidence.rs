//! Evidence end to end: a repair is recorded row by row, damage to the trail is named, a run is taken back exactly, and no
//! value leaves the databases.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::support::process::{Agent, Output, trueup, trueup_with};
use super::support::servers::{MysqlDb, PostgresDb, SqliteDb};

const ORDERS: &str = "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER NOT NULL, status VARCHAR(16), amount DECIMAL(12,2), note TEXT)";
const ROWS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)
    INSERT INTO orders SELECT i, i % 97, 'open', (i * 131 % 100000) / 100.0, 'note ' || i FROM n";
const DRIFT: &str = "DELETE FROM orders WHERE id IN (7, 1499); UPDATE orders SET note = NULL WHERE id = 500;
    UPDATE orders SET status = 'lost' WHERE id = 501; INSERT INTO orders VALUES (9000, 1, 'x', 1, '')";
const WHOLE: &str = "SELECT group_concat(quote(id)||quote(customer)||quote(status)||quote(amount)||quote(note), ';') FROM (SELECT * FROM orders ORDER BY id)";
const ALL: &str = "insert,update,delete";

/// A ledger of a test's own.
pub(super) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(super) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn ledger(&self) -> String {
        self.path("ledger.db").to_str().unwrap().to_owned()
    }

    pub(super) fn run(&self, args: &[&str]) -> Output {
        let ledger = self.ledger();
        let mut all = args.to_vec();
        all.extend(["--ledger", &ledger]);
        trueup(&all)
    }

    pub(super) fn repair(&self, source: &str, target: &str, more: &[&str]) -> Output {
        let mut args = vec![
            "repair",
            source,
            target,
            "--format",
            "json",
            "--quiet",
            "--recheck-delay",
            "1ms",
            "--allow",
            ALL,
        ];
        args.extend(more);
        self.run(&args)
    }

    fn entries(&self) -> Vec<Value> {
        let list = self.run(&["audit", "list", "--format", "ndjson"]);
        list.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn sqlite_pair() -> (SqliteDb, SqliteDb) {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute(ORDERS);
        db.execute(ROWS);
    }
    target.execute(DRIFT);
    (source, target)
}

pub(super) fn run_of(output: &Output) -> String {
    output.json()["run"].as_str().unwrap().to_owned()
}

#[test]
fn every_row_written_is_in_the_trail() {
    let (source, target) = sqlite_pair();
    let place = Place::new();
    let repaired = place.repair(&source.url(), &target.url(), &[]);
    assert_eq!(repaired.status, 0, "{repaired:?}");
    let run = run_of(&repaired);
    let entries = place.entries();
    let kinds: Vec<&str> = entries.iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
    assert_eq!((kinds[0], *kinds.last().unwrap()), ("begin", "end"));
    let rows: Vec<&Value> = entries.iter().filter(|entry| entry["kind"] == "row").collect();
    let mut operations: Vec<&str> = rows.iter().map(|row| row["operation"].as_str().unwrap()).collect();
    operations.sort_unstable();
    assert_eq!(operations, ["delete", "insert", "insert", "update", "update"]);
    for row in &rows {
        assert_eq!(
            (&row["outcome"], &row["run"], &row["table"]),
            (&"written".into(), &run.as_str().into(), &"orders".into())
        );
        assert_eq!(row["key"].as_str().unwrap().len(), 32, "a hash, not the key");
        assert!(row["who"] != "" && row["host"] != "" && row["at"].as_str().unwrap().ends_with('Z'));
        assert_eq!(row["before"] == "", row["operation"] == "insert");
        assert_eq!(row["after"] == "", row["operation"] == "delete");
    }
    // The intent stands before the rows it speaks of.
    let intents: Vec<usize> = (0..kinds.len()).filter(|at| kinds[*at] == "intent").collect();
    let first_row = kinds.iter().position(|kind| *kind == "row").unwrap();
    assert!(intents[0] < first_row, "{kinds:?}");
    let verified = place.run(&["audit", "verify"]);
    assert_eq!(verified.status, 0, "{verified:?}");
    assert!(verified.stdout.starts_with("the trail is whole"), "{verified:?}");
    // The head that the repair told is still the trail's.
    let head = repaired.json()["audit_head"].as_str().unwrap().to_owned();
    assert!(verified.stdout.contains(&head));
    // By the key, for who has the secret.
    let found = place.run(&["audit", "list", "-t", "orders", "--key", "id=500"]);
    assert_eq!(found.stdout.lines().count(), 1, "{found:?}");
    assert!(found.stdout.contains("update"));
    let none = place.run(&["audit", "list", "-t", "orders", "--key", "id=499"]);
    assert_eq!(none.stdout, "");
    // The whole trail, elsewhere, without the ledger.
    let file = place.path("trail.ndjson");
    assert_eq!(place.run(&["audit", "export", "-o", file.to_str().unwrap()]).status, 0);
    let elsewhere = trueup(&["audit", "verify", "--file", file.to_str().unwrap(), "--head", &head]);
    assert_eq!(elsewhere.status, 0, "{elsewhere:?}");
    let text = std::fs::read_to_string(&file).unwrap();
    let cut: Vec<&str> = text.lines().filter(|line| !line.contains("\"kind\":\"intent\"")).collect();
    std::fs::write(&file, cut.join("\n")).unwrap();
    let elsewhere = trueup(&["audit", "verify", "--file", file.to_str().unwrap()]);
    assert!(elsewhere.status == 1 && elsewhere.stdout.contains("missing"), "{elsewhere:?}");
}

/// Alters, removes and exchanges each entry in turn, by SQL, and puts it right again.
fn tamper(seqs: &[i64], execute: impl Fn(&str), verify: impl Fn() -> Output) {
    let found = |what: &str, words: &[String]| {
        let output = verify();
        assert_eq!(output.status, 1, "{what}: {output:?}");
        for word in words {
            assert!(output.stdout.contains(word), "{what}: {word:?} is not in {output:?}");
        }
    };
    execute("CREATE TABLE kept AS SELECT * FROM trueup_audit");
    let restore = || {
        execute("DELETE FROM trueup_audit");
        execute("INSERT INTO trueup_audit SELECT * FROM kept");
    };
    for &seq in seqs {
        for column in ["at", "who", "key", "operation", "after", "outcome", "detail"] {
            execute(&format!("UPDATE trueup_audit SET {column} = {column} || '!' WHERE seq = {seq}"));
            found(column, &[format!("entry {seq} was altered")]);
            restore();
        }
        execute(&format!("DELETE FROM trueup_audit WHERE seq = {seq}"));
        found("deleted", &[format!("entry {seq} is missing")]);
        restore();
        if let Some(other) = seqs.iter().find(|other| **other > seq) {
            execute(&format!("UPDATE trueup_audit SET seq = -1 WHERE seq = {seq}"));
            execute(&format!("UPDATE trueup_audit SET seq = {seq} WHERE seq = {other}"));
            execute(&format!("UPDATE trueup_audit SET seq = {other} WHERE seq = -1"));
            found(
                "exchanged",
                &[
                    format!("entry {seq} was reordered: it belongs at {other}"),
                    format!("entry {other} was reordered: it belongs at {seq}"),
                ],
            );
            restore();
        }
    }
    assert_eq!(verify().status, 0);
    execute("UPDATE trueup_runs SET who = 'somebody else'");
    found("record", &["was altered since the run ended".to_owned()]);
}

#[test]
fn whatever_is_done_to_the_trail_is_named() {
    let (source, target) = sqlite_pair();
    let place = Place::new();
    assert_eq!(place.repair(&source.url(), &target.url(), &[]).status, 0);
    let seqs: Vec<i64> = place.entries().iter().map(|entry| entry["seq"].as_i64().unwrap()).collect();
    assert_eq!(seqs, (1..=i64::try_from(seqs.len()).unwrap()).collect::<Vec<_>>());
    let path = place.path("ledger.db");
    tamper(
        &seqs,
        |sql| rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap(),
        || place.run(&["audit", "verify"]),
    );
}

#[test]
fn a_ledger_in_postgres_holds_the_same() {
    let (source, target) = sqlite_pair();
    let db = PostgresDb::create();
    let env = [("LEDGER", db.url())];
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let run = |args: &[&str]| {
        let mut all = args.to_vec();
        all.extend(["--ledger", "env:LEDGER"]);
        trueup_with(&all, &env)
    };
    let (from, to) = (source.url(), target.url());
    let repaired =
        run(&["repair", &from, &to, "--format", "json", "-q", "--allow", ALL, "--recheck-delay", "1ms"]);
    assert_eq!(repaired.status, 0, "{repaired:?}");
    let before = target.scalar(WHOLE);
    assert_eq!(source.scalar(WHOLE), before);
    let undone = run(&["undo", "last", "--format", "json"]);
    assert_eq!(undone.status, 0, "{undone:?}");
    assert_eq!(run(&["diff", &from, &to, "-q"]).status, 1);
    let runs = run(&["runs"]);
    assert_eq!(runs.stdout.lines().count(), 3, "{runs:?}");
    for (kind, count) in [("repair", 1), ("undo", 1), ("diff", 1)] {
        assert_eq!(run(&["runs", "--kind", kind]).stdout.lines().count(), count);
    }
    assert!(!runs.stdout.contains("postgres://"), "the ledger's own URL is nobody's business");
    assert!(run(&["report", "last", "--format", "md"]).stdout.contains("orders"));
    let count: i64 = db.scalar("SELECT count(*) FROM trueup_audit").unwrap().parse().unwrap();
    tamper(&[1, 2, 3, count - 1, count], |sql| db.execute(sql), || run(&["audit", "verify"]));
}

#[test]
fn an_undo_restores_exactly_and_is_itself_a_run() {
    let (source, target) = sqlite_pair();
    let place = Place::new();
    let before = target.scalar(WHOLE);
    let run = run_of(&place.repair(&source.url(), &target.url(), &[]));
    let repaired = target.scalar(WHOLE);
    assert_ne!(before, repaired);
    let dry = place.run(&["undo", &run, "--dry-run"]);
    assert_eq!((dry.status, target.scalar(WHOLE)), (1, repaired.clone()), "{dry:?}");
    assert!(dry.stdout.contains("5 rows would be put back"), "{dry:?}");
    let undone = place.run(&["undo", &run, "--format", "json"]);
    assert_eq!((undone.status, target.scalar(WHOLE)), (0, before.clone()), "{undone:?}");
    let table = &undone.json()["tables"][0];
    assert_eq!([&table["inserted"], &table["updated"], &table["deleted"]], [1, 2, 2]);
    // Again there is nothing to do; and the undo can be taken back too.
    let again = place.run(&["undo", &run]);
    assert!(again.status == 0 && again.stdout.contains("held already"), "{again:?}");
    let back = place.run(&["undo", &run_of(&undone)]);
    assert_eq!((back.status, target.scalar(WHOLE)), (0, repaired), "{back:?}");
    assert_eq!(place.run(&["audit", "verify"]).status, 0);
    // What an undo writes is what the repair overwrote: their digests meet.
    let entries = place.entries();
    let row = |run: &str, operation: &str| {
        let fits =
            |entry: &&Value| entry["kind"] == "row" && entry["run"] == run && entry["operation"] == operation;
        entries.iter().find(fits).unwrap().clone()
    };
    let (deleted, inserted) = (row(&run, "delete"), row(&run_of(&undone), "insert"));
    assert_eq!((&deleted["key"], &deleted["before"]), (&inserted["key"], &inserted["after"]));
    let page = place.run(&["report", &run]);
    assert!(page.stdout.contains("Taken back by") && page.stdout.contains(&run_of(&undone)));
}

#[test]
fn a_newer_write_stays() {
    let (source, target) = sqlite_pair();
    let place = Place::new();
    let run = run_of(&place.repair(&source.url(), &target.url(), &[]));
    target.execute("UPDATE orders SET note = 'newer' WHERE id = 500; DELETE FROM orders WHERE id = 7; INSERT INTO orders VALUES (9000, 2, 'newer', 2, '')");
    let undone = place.run(&["undo", &run]);
    assert_eq!(undone.status, 1, "{undone:?}");
    assert!(undone.stdout.contains("2 changed since, left as they are"), "{undone:?}");
    assert!(
        undone.stdout.contains("! 2 rows: changed since the run: left as it is, as id=500, id=9000"),
        "{undone:?}"
    );
    assert_eq!(target.scalar("SELECT note FROM orders WHERE id = 500").as_deref(), Some("newer"));
    assert_eq!(target.scalar("SELECT status FROM orders WHERE id = 9000").as_deref(), Some("newer"));
    // Gone before the undo: it is as it was before the run.
    assert_eq!(target.scalar("SELECT count(*) FROM orders WHERE id IN (7, 1499)").as_deref(), Some("0"));
    assert_eq!(target.scalar("SELECT status FROM orders WHERE id = 501").as_deref(), Some("lost"));
}

#[test]
fn columns_that_were_not_compared_come_back_too() {
    // Coarser types at the source, columns left out: the target's own row is what must come back.
    let (source, target) = (MysqlDb::create(), PostgresDb::create());
    source.execute("CREATE TABLE p (id INT PRIMARY KEY, a DECIMAL(10,1), at DATETIME(0))");
    target.execute("CREATE TABLE p (id int PRIMARY KEY, extra jsonb NOT NULL DEFAULT '{\"default\":1}', a numeric(12,4), at timestamp(6), more text[])");
    source.execute("INSERT INTO p VALUES (1, 1.5, '2026-01-01 10:00:00'), (2, 2, NULL)");
    target.execute("INSERT INTO p VALUES (2, '{\"k\": [1, 2]}', 7.1234, '2026-01-01 10:00:00.123456', '{a,NULL}'), (3, '{\"b\":null}', 3.0001, NULL, NULL)");
    let whole = "SELECT string_agg(p::text, ';' ORDER BY id) FROM p";
    let place = Place::new();
    let before = target.scalar(whole);
    let repaired = place.repair(&source.url(), &target.url(), &["-t", "p", "--unpaired", "extra,more"]);
    assert_eq!(repaired.status, 0, "{repaired:?}");
    assert_ne!(target.scalar(whole), before);
    let run = run_of(&repaired);
    // A row with a newer write to a column that was not compared stays as it is.
    target.execute("UPDATE p SET more = '{newer}' WHERE id = 2");
    // The ledger keeps no password; the run's target is named again.
    let undone = place.run(&["undo", &run, "--target", &target.url()]);
    assert_eq!(undone.status, 1, "{undone:?}");
    assert!(undone.stdout.contains("1 changed since, left as they are"), "{undone:?}");
    assert_eq!(target.scalar("SELECT a || more::text FROM p WHERE id = 2").as_deref(), Some("2.0000{newer}"));
    // Once that write is gone the rest is taken back.
    target.execute("UPDATE p SET more = '{a,NULL}' WHERE id = 2");
    let undone = place.run(&["undo", "last", "--target", &target.url()]);
    assert_eq!((undone.status, target.scalar(whole)), (0, before), "{undone:?}");
}

#[test]
fn foreign_keys_and_unique_values_are_taken_back_too() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT UNIQUE); CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL REFERENCES parent)");
    }
    source.execute(
        "INSERT INTO parent VALUES (1, 'a'), (2, 'b'), (3, 'c'); INSERT INTO child VALUES (1, 1), (2, 3)",
    );
    target.execute("INSERT INTO parent VALUES (1, 'b'), (2, 'a'), (9, 'z'); INSERT INTO child VALUES (1, 9)");
    let whole = "SELECT (SELECT group_concat(id || name) FROM (SELECT * FROM parent ORDER BY id)) || (SELECT group_concat(id || ':' || parent) FROM (SELECT * FROM child ORDER BY id))";
    let place = Place::new();
    let before = target.scalar(whole);
    let repaired = place.repair(&source.url(), &target.url(), &[]);
    assert_eq!((repaired.status, target.scalar(whole)), (0, source.scalar(whole)), "{repaired:?}");
    let undone = place.run(&["undo", "last"]);
    assert_eq!((undone.status, target.scalar(whole)), (0, before), "{undone:?}");
}

#[test]
fn a_remote_agent_keeps_and_takes_back() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE orders (id int PRIMARY KEY, a text); INSERT INTO orders SELECT i, 'r' || i FROM generate_series(1, 900) i");
    }
    target.execute("UPDATE orders SET a = 'old' WHERE id % 3 = 0; DELETE FROM orders WHERE id % 7 = 0");
    let whole = "SELECT string_agg(orders::text, ';' ORDER BY id) FROM orders";
    let before = target.scalar(whole);
    let place = Place::new();
    let undo = place.path("remote");
    let env = [("DB", target.url())];
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let agent =
        Agent::start(&["--database", "env:DB", "--allow-write", "--undo-dir", undo.to_str().unwrap()], &env);
    let address = format!("grpc://{}", agent.address);
    let repaired = place.repair(&source.url(), &address, &["--max-changes", "1000"]);
    assert_eq!(repaired.status, 0, "{repaired:?}");
    assert_eq!(repaired.json()["tables"][0]["undo_kept"], true);
    assert_eq!(target.scalar(whole), source.scalar(whole));
    assert!(!place.path("undo").exists() || std::fs::read_dir(place.path("undo")).unwrap().count() <= 1);
    let undone = place.run(&["undo", "last"]);
    assert_eq!((undone.status, target.scalar(whole)), (0, before), "{undone:?}");
    assert_eq!(place.run(&["audit", "verify"]).status, 0);
    drop(agent);
    // One that may write keeps them unasked.
    let agent = Agent::start(&["--database", "env:DB", "--allow-write"], &env);
    let address = format!("grpc://{}", agent.address);
    let before = target.scalar(whole);
    let repaired = place.repair(&source.url(), &address, &["--max-changes", "1000"]);
    assert_eq!(repaired.json()["tables"][0]["undo_kept"], true, "{repaired:?}");
    let undone = place.run(&["undo", "last"]);
    assert_eq!((undone.status, target.scalar(whole)), (0, before), "{undone:?}");
    drop(agent);
    // One that is told not to is said to keep none, before it writes.
    let agent = Agent::start(&["--database", "env:DB", "--allow-write", "--no-undo"], &env);
    let address = format!("grpc://{}", agent.address);
    let repaired = place.repair(&source.url(), &address, &["--max-changes", "1000"]);
    assert_eq!(repaired.json()["tables"][0]["undo_kept"], false, "{repaired:?}");
    let limits = &repaired.json()["tables"][0]["undo_limits"];
    assert_eq!(
        limits[0],
        "this run cannot be undone: the target's agent keeps no undo journals (--undo-dir)"
    );
    let undone = place.run(&["undo", "last"]);
    assert!(undone.status == 2 && undone.stderr.contains("keeps no undo journals"), "{undone:?}");
}

#[test]
fn a_backfill_is_recorded_chunk_by_chunk_and_can_be_taken_back() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute(ORDERS);
        db.execute(ROWS);
    }
    target.execute("DELETE FROM orders WHERE id BETWEEN 100 AND 160 OR id BETWEEN 900 AND 905");
    let before = target.scalar(WHOLE);
    let place = Place::new();
    let args = [
        "backfill",
        &source.url(),
        &target.url(),
        "-t",
        "orders",
        "--on",
        "id",
        "--step",
        "50",
        "--chunk-rows",
        "500",
    ];
    let dry = place.run(&[&args[..], &["--dry-run"]].concat());
    assert_eq!((dry.status, place.entries().len()), (1, 2), "{dry:?}");
    let filled = place.run(&[&args[..], &["--format", "json", "-q", "--recheck-delay", "1ms"]].concat());
    assert_eq!(filled.status, 0, "{filled:?}");
    let run = run_of(&filled);
    let written = place.run(&["audit", "list", "--run", &run, "--format", "ndjson"]);
    let rows = written.stdout.lines().filter(|line| line.contains("\"kind\":\"row\"")).count();
    assert_eq!(rows, 67);
    assert_eq!(place.run(&["audit", "verify"]).status, 0);
    let report: Value =
        serde_json::from_str(&place.run(&["report", &run, "--format", "json"]).stdout).unwrap();
    let table = &report["tables"][0];
    assert_eq!((&report["kind"], &table["outcome"]["inserted"]), (&"backfill".into(), &67.into()));
    assert_eq!(table["backfill"]["steps"].as_array().unwrap().len(), 31);
    let chunks = table["backfill"]["chunks"].as_array().unwrap();
    // Pieces in which nothing was missing had the source's root before.
    let root = |chunk: &Value| match &chunk["repaired_root"] {
        Value::Null => chunk["target_root"].clone(),
        root => root.clone(),
    };
    assert!(
        chunks.len() >= 2 && chunks.iter().all(|chunk| chunk["source_root"] == root(chunk)),
        "{chunks:?}"
    );
    let page = place.run(&["report", &run]).stdout;
    assert!(page.contains("Rows per step") && page.contains("What was compared and filled"), "{page}");
    let undone = place.run(&["undo", &run]);
    assert_eq!(undone.status, 0, "{undone:?}");
    assert_eq!(target.scalar(WHOLE), before);
}

fn files_under(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files_under(&path)) } else { all.push(path) }
    }
    all
}

#[test]
fn no_value_leaves_the_databases() {
    const MARK: &str = "MarkedValue";
    let place = Place::new();
    let pairs: [(Box<dyn Fn(&str)>, Box<dyn Fn(&str)>, String, String); 2] = {
        let (a, b, c, d) =
            (SqliteDb::create(), SqliteDb::create(), PostgresDb::create(), PostgresDb::create());
        let (ua, ub, uc, ud) = (a.url(), b.url(), c.url(), d.url());
        [
            (Box::new(move |sql| a.execute(sql)), Box::new(move |sql| b.execute(sql)), ua, ub),
            (Box::new(move |sql| c.execute(sql)), Box::new(move |sql| d.execute(sql)), uc, ud),
        ]
    };
    let mut told = String::new();
    for (source, target, from, to) in &pairs {
        let table = "CREATE TABLE people (email varchar(60) PRIMARY KEY, name text CHECK (length(name) < 25), nick varchar(40) UNIQUE)";
        source(&table.replace(" CHECK (length(name) < 25)", ""));
        target(table);
        for n in 0..40 {
            source(&format!(
                "INSERT INTO people VALUES ('MarkedValueKey{n}', 'MarkedValueName{n}', 'MarkedValueNick{n}')"
            ));
        }
        source(
            "INSERT INTO people VALUES ('MarkedValueKeyX', 'MarkedValueThatIsTooLongAndRefused', 'MarkedValueX')",
        );
        target(
            "INSERT INTO people VALUES ('MarkedValueKey3', 'MarkedValueOld', 'MarkedValueNick5'), ('MarkedValueGone', 'MarkedValueOld', NULL)",
        );
        for args in [
            vec!["diff", from, to, "-vv", "--show-values"],
            vec!["repair", from, to, "-vv", "--allow", ALL, "--limit", "0"],
        ] {
            let output = place.run(&args);
            told += &output.stderr;
            assert_eq!(output.status, 1, "{output:?}");
        }
        let undone = place.run(&["undo", "last", "-vv", "--target", to, "--format", "json"]);
        assert_eq!(undone.status, 0, "{undone:?}");
        told += &undone.stderr;
    }
    for format in ["html", "md", "csv", "json"] {
        for run in place.run(&["runs"]).stdout.lines() {
            let id = run.split(' ').next().unwrap();
            let report = place.run(&["report", id, "--format", format]);
            assert_eq!(report.status, 0, "{report:?}");
            told += &report.stdout;
        }
    }
    told += &place.run(&["audit", "list"]).stdout;
    told += &place.run(&["runs", "--format", "ndjson"]).stdout;
    assert!(told.contains("people"));
    assert!(!told.contains(MARK), "{}", told.lines().find(|line| line.contains(MARK)).unwrap());
    let mut files = files_under(place.dir.path());
    files.retain(|path| {
        let bytes = std::fs::read(path).unwrap();
        let found = bytes.windows(MARK.len()).any(|part| part == MARK.as_bytes());
        assert!(!found, "{} holds a value", path.display());
        path.extension().is_some_and(|extension| extension == "undo")
    });
    assert!(!files.is_empty(), "there are journals, and nothing can be read in them");
    // Keys are kept where that was asked for.
    let (source, _target, from, to) = &pairs[0];
    source("DELETE FROM people WHERE email = 'MarkedValueKeyX'");
    assert_eq!(place.repair(from, to, &["--keep-keys"]).status, 0);
    assert!(place.run(&["audit", "list", "--run", "last"]).stdout.contains("email=MarkedValueKey7"));
    assert!(!place.run(&["audit", "list", "--run", "last"]).stdout.contains("MarkedValueName"));
}

#[test]
fn without_its_ledger_nothing_is_written() {
    let (source, target) = sqlite_pair();
    let before = target.scalar(WHOLE);
    let place = Place::new();
    let file = place.path("file");
    std::fs::write(&file, "no folder").unwrap();
    let inside = file.join("ledger.db");
    let inside = inside.to_str().unwrap();
    let (from, to) = (source.url(), target.url());
    let repaired = trueup(&["repair", &from, &to, "--ledger", inside]);
    assert!(repaired.status == 2 && repaired.stderr.contains("nothing was written"), "{repaired:?}");
    assert!(repaired.stderr.contains("--no-ledger"), "{repaired:?}");
    assert_eq!(target.scalar(WHOLE), before);
    let diff = trueup(&["diff", &from, &to, "--ledger", inside]);
    assert!(diff.status == 1 && diff.stderr.contains("this run is not recorded"), "{diff:?}");
    std::fs::write(place.path("text.db"), "this is no database, but a text that is long enough").unwrap();
    let wrong = trueup(&["repair", &from, &to, "--ledger", place.path("text.db").to_str().unwrap()]);
    assert!(wrong.status == 2 && wrong.stderr.contains("cannot be used"), "{wrong:?}");
    assert_eq!(target.scalar(WHOLE), before);
    let without = trueup(&["repair", &from, &to, "--no-ledger", "--format", "json", "-q", "--allow", ALL]);
    assert_eq!((without.status, without.json()["run"].is_null()), (0, true), "{without:?}");
}

#[test]
fn runs_are_listed_and_pruned() {
    let (source, target) = sqlite_pair();
    let place = Place::new();
    let (from, to) = (source.url(), target.url());
    assert_eq!(place.run(&["diff", &from, &to, "-q"]).status, 1);
    assert_eq!(place.run(&["diff", &from, "sqlite:///nowhere/x.db", "-q"]).status, 2);
    assert_eq!(place.repair(&from, &to, &["--no-undo"]).status, 0);
    let runs = place.run(&["runs"]);
    let lines: Vec<&str> = runs.stdout.lines().collect();
    for (line, words) in lines.iter().zip([["repair", "same"], ["diff", "failed"], ["diff", "different"]]) {
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
    }
    assert_eq!(lines.len(), 3);
    assert_eq!(place.run(&["runs", "--outcome", "failed", "--since", "1h"]).stdout.lines().count(), 1);
    assert_eq!(place.run(&["runs", "-t", "orders"]).stdout.lines().count(), 2);
    let none = place.run(&["undo", "last"]);
    assert!(none.status == 2 && none.stderr.contains("there is no undo journal of run"), "{none:?}");
    let diff = lines[2].split(' ').next().unwrap();
    assert!(place.run(&["undo", diff]).stderr.contains("wrote nothing"));
    assert!(place.run(&["report", "nonsense"]).stderr.contains("has no run nonsense"));
    // Nothing is old; then everything is.
    let pruned = place.run(&["prune", "--keep", "1d", "--keep-trail", "1d"]);
    assert_eq!(pruned.stdout, "0 runs and 0 entries of the trail removed\n", "{pruned:?}");
    std::thread::sleep(std::time::Duration::from_millis(5));
    let pruned = place.run(&["prune", "--keep", "1ms", "--keep-last", "1", "--keep-trail", "1ms"]);
    assert!(pruned.stdout.starts_with("3 runs and "), "{pruned:?}");
    assert_eq!(place.run(&["runs"]).stdout.lines().count(), 1);
    let verified = place.run(&["audit", "verify"]);
    assert_eq!(verified.status, 0, "{verified:?}");
    assert_eq!(place.repair(&from, &to, &[]).status, 0);
    assert_eq!(place.run(&["audit", "verify"]).status, 0);
}

#[test]
fn a_repair_killed_at_any_moment_can_be_taken_back() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute(ORDERS);
        db.execute(&ROWS.replace("1500", "20000"));
    }
    target.execute("UPDATE orders SET note = 'old ' || id WHERE id % 2 = 0; DELETE FROM orders WHERE id % 5 = 0; INSERT INTO orders SELECT id + 100000, 1, 'x', 1, '' FROM orders WHERE id % 9 = 0");
    let before = target.scalar(WHOLE);
    let place = Place::new();
    let (mut halfway, mut ended) = (0, 0);
    for attempt in 0..14u64 {
        let undo = place.path("undo");
        let killed = super::support::process::killed_after(
            &[
                "repair",
                &source.url(),
                &target.url(),
                "--allow",
                ALL,
                "--max-changes",
                "100%",
                "--ledger",
                &place.ledger(),
                "-q",
                "--recheck-delay",
                "1ms",
            ],
            || {
                // From the first batch on, a little later each time.
                let bytes: u64 = std::fs::read_dir(&undo).map_or(0, |files| {
                    files.map(|file| file.unwrap().metadata().map_or(0, |meta| meta.len())).sum()
                });
                bytes > 2_000 + attempt * 60_000
            },
        );
        let after = target.scalar(WHOLE);
        ended += u32::from(!killed);
        halfway += u32::from(after != before && killed);
        let undone = place.run(&["undo", "last", "--format", "json"]);
        assert_eq!(undone.status, 0, "attempt {attempt}: {undone:?}");
        assert!(target.scalar(WHOLE) == before, "attempt {attempt}: not as it was");
        let verified = place.run(&["audit", "verify"]);
        assert_eq!(verified.status, 0, "attempt {attempt}: {verified:?}");
        for file in std::fs::read_dir(&undo).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "undo") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
    assert!(halfway >= 3, "killed halfway {halfway} times, ended {ended} times");
    // The ledger says which runs were cut off.
    let open = place.run(&["runs", "--outcome", "open"]);
    assert!(open.stdout.lines().count() >= 3, "{open:?}");
}
