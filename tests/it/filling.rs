//! Large gaps in PostgreSQL: what is written is what was there, whichever way it went in, and what the database refuses is
//! set aside alone.

use std::sync::Arc;

use serde_json::Value;
use trueup::engine::RawBatch;
use trueup::model::{Plan, Role, TableName, Wishes};

use super::support::process::{Agent, Output, trueup};
use super::support::servers::PostgresDb;
use crate::support::batches::scan_in_batches;

fn repair(source: &PostgresDb, target: &PostgresDb, more: &[&str]) -> Output {
    repair_from(&source.url(), target, more)
}

fn repair_from(source: &str, target: &PostgresDb, more: &[&str]) -> Output {
    let target = target.url();
    let mut args = vec!["repair", source, &target, "--format", "json", "--quiet"];
    args.extend(["--recheck-delay", "10ms", "--max-changes", "100000", "--no-ledger"]);
    args.extend(more);
    trueup(&args)
}

fn table(output: &Output) -> Value {
    output.json()["tables"][0].clone()
}

fn pair(ddl: &str) -> (PostgresDb, PostgresDb) {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute(ddl);
    }
    (source, target)
}

const CONTENT: &str = "SELECT count(*) || ' ' || md5(string_agg(t::text, E'\n' ORDER BY t::text)) FROM t";

/// The types that go in the binary form, with values at their edges.
const PLAIN: &str = "CREATE DOMAIN cents AS numeric(14,2) CHECK (VALUE > -1000000000);
    CREATE TABLE t (id bigint PRIMARY KEY, flag boolean, small smallint, number integer, exact numeric, price cents, narrow real,
        wide double precision, word varchar(20), padded char(8), note text, raw bytea, tag uuid, day date, at timestamp(3), moment timestamptz,
        doc jsonb, plain json, kept bigint GENERATED ALWAYS AS (id * 2) STORED)";
const PLAIN_ROWS: &str = r#"INSERT INTO t SELECT i, i % 3 = 0, i % 32767 * (i % 2 * 2 - 1), -i * 70000,
        trim_scale(CASE i % 7 WHEN 0 THEN 'NaN' WHEN 1 THEN 0 WHEN 2 THEN -0.00012 * i WHEN 3 THEN i * 1e20 ELSE i / 7.0 END), i % 1000 / 100.0,
        CASE i % 5 WHEN 0 THEN 'Infinity' ELSE i / 3.0 END, CASE i % 5 WHEN 0 THEN 'NaN' WHEN 1 THEN '-Infinity' ELSE i / 3.0 END,
        'w' || i, 'p' || i % 10, CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN E'tab\t line\n return\r back\\slash \\N' ELSE 'ü ✓ ' || i END,
        decode(md5(i::text), 'hex'), md5(i::text)::uuid,
        CASE i % 6 WHEN 0 THEN 'infinity' WHEN 1 THEN '-infinity' WHEN 2 THEN '0044-03-15 BC' ELSE '2024-02-29'::date + i % 90000 END,
        '1999-12-31 23:59:59.999'::timestamp + i * interval '61 seconds',
        CASE i % 9 WHEN 0 THEN 'infinity' WHEN 1 THEN NULL ELSE '1969-12-31 23:59:59.999999+00'::timestamptz - i * interval '7 hours' END,
        jsonb_build_object('i', i, 'text', E'a"\\b'), NULL FROM generate_series(1, 12000) i"#;

#[test]
fn rows_of_every_plain_type_arrive_as_they_were() {
    let (source, target) = pair(PLAIN);
    source.execute(PLAIN_ROWS);
    target.execute(
        "CREATE TABLE ways (way text); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO ways SELECT regexp_replace(current_query(), '^(COPY).*(binary).*$', '\\1 \\2'); RETURN NULL; END $$;
        CREATE TRIGGER note AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION note()",
    );
    let output = repair(&source, &target, &["-t", "t"]);
    assert_eq!(output.status, 0, "{output:?}");
    assert_eq!(source.scalar(CONTENT), target.scalar(CONTENT));
    let table = table(&output);
    assert_eq!((&table["inserted"], &table["proved"]), (&12_000.into(), &true.into()));
    assert_eq!(table["repaired_root"], table["source_root"]);
    // Proved by a scan: no keys went back.
    assert!(table["bytes_to_source"].as_u64().unwrap() < 4_000, "{table}");
    assert_eq!(
        target.scalar("SELECT string_agg(DISTINCT way, ',') FROM ways").as_deref(),
        Some("COPY binary")
    );
}

#[test]
fn what_has_no_plain_binary_form_goes_as_text() {
    let (source, target) = pair(
        "CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TABLE t (a integer, b uuid, host inet, took interval, tags text[], mood mood, PRIMARY KEY (a, b))",
    );
    source.execute(
        r#"INSERT INTO t SELECT i % 90, md5(i::text)::uuid, ('10.0.' || i % 250 || '.1')::inet, i * interval '1 day 3 seconds',
            ARRAY['a', NULL, E'q"\\ ' || i], CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN 'sad'::mood ELSE 'glad' END FROM generate_series(1, 9000) i"#,
    );
    target.execute("INSERT INTO t SELECT 200, md5(i::text)::uuid FROM generate_series(1, 3) i");
    let output = repair(&source, &target, &["-t", "t", "--allow", "insert,update,delete"]);
    assert_eq!(output.status, 0, "{output:?}");
    assert_eq!(source.scalar(CONTENT), target.scalar(CONTENT));
}

#[test]
fn a_text_key_is_streamed_whatever_its_collation() {
    let (source, target) = pair("CREATE TABLE t (name text COLLATE \"und-x-icu\" PRIMARY KEY, n integer)");
    source.execute(
        "INSERT INTO t SELECT (ARRAY['a', 'B', 'ä', 'Z', '-'])[1 + i % 5] || i, i FROM generate_series(1, 6000) i",
    );
    let output = repair(&source, &target, &["-t", "t"]);
    assert_eq!(output.status, 0, "{output:?}");
    assert_eq!(source.scalar(CONTENT), target.scalar(CONTENT));
}

#[test]
fn what_the_database_refuses_is_set_aside_alone() {
    let (source, target) = pair("CREATE TABLE t (id bigint PRIMARY KEY, n integer, code text)");
    source.execute("INSERT INTO t SELECT i, i, 'c' || i FROM generate_series(1, 5000) i");
    for (constraint, refused) in [
        ("ALTER TABLE t ADD CHECK (n % 1000 <> 7)", 5),
        ("ALTER TABLE t ADD UNIQUE (code); INSERT INTO t VALUES (-1, 0, 'c40')", 1),
        (
            "ALTER TABLE t ADD UNIQUE (code) DEFERRABLE INITIALLY DEFERRED; INSERT INTO t VALUES (-1, 0, 'c41')",
            1,
        ),
        (
            "CREATE TABLE parents (n integer PRIMARY KEY); INSERT INTO parents SELECT generate_series(1, 4990);
             ALTER TABLE t ADD FOREIGN KEY (n) REFERENCES parents DEFERRABLE INITIALLY DEFERRED",
            10,
        ),
        (
            "CREATE FUNCTION mute() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.n % 500 = 3 THEN RETURN NULL; END IF; RETURN NEW; END $$;
             CREATE TRIGGER mute BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION mute()",
            10,
        ),
    ] {
        target.execute("DROP TABLE t; CREATE TABLE t (id bigint PRIMARY KEY, n integer, code text)");
        target.execute(constraint);
        let output = repair(&source, &target, &["-t", "t", "--allow", "insert"]);
        assert_eq!(output.status, 1, "{constraint}: {output:?}");
        let table = table(&output);
        assert_eq!(table["set_aside"], refused, "{constraint}");
        assert_eq!(table["inserted"], 5000 - refused, "{constraint}");
        assert_ne!(table["proved"], true, "{constraint}");
        let there = "SELECT count(*) FROM t WHERE id > 0";
        assert_eq!(target.scalar(there), Some((5000 - refused).to_string()), "{constraint}");
    }
}

#[test]
fn rows_that_come_to_the_target_meanwhile_are_left_as_they_are() {
    let (source, target) = pair("CREATE TABLE t (id bigint PRIMARY KEY, n integer)");
    source.execute("INSERT INTO t SELECT i, i FROM generate_series(1, 8000) i");
    // The first statement that writes finds that somebody else was quicker with some of the rows, alike and otherwise.
    target.execute(
        "CREATE FUNCTION race() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF pg_trigger_depth() = 1 AND NOT EXISTS (SELECT 1 FROM t) THEN
                INSERT INTO t SELECT i, CASE i % 2 WHEN 0 THEN i ELSE -i END FROM generate_series(500, 7500, 500) i;
            END IF; RETURN NULL; END $$;
         CREATE TRIGGER race BEFORE INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION race()",
    );
    let output = repair(&source, &target, &["-t", "t", "--allow", "insert,update"]);
    assert_eq!(output.status, 0, "{output:?}");
    assert_eq!(source.scalar(CONTENT), target.scalar(CONTENT));
    assert_eq!(table(&output)["proved"], true);
}

/// A gap costs its rows: all that crosses, both ways, to find it, to fill it and to prove it, is at most a twentieth more than
/// the rows are when they are packed as one.
#[test]
fn a_gap_costs_its_rows_alone() {
    crosses_alone("DELETE FROM t WHERE id BETWEEN 20001 AND 80000", "id BETWEEN 20001 AND 80000", 60_000);
}

/// So does the gap of a target that has a few rows only, of which one is as it should be, one is not, and one should not be.
#[test]
fn a_gap_around_a_handful_of_rows_costs_its_rows_alone() {
    let few = "DELETE FROM t WHERE id NOT IN (20001, 70000); UPDATE t SET note = 'other' WHERE id = 70000;
        INSERT INTO t (id, note) VALUES (-5, 'extra')";
    crosses_alone(few, "id <> 20001", 99_998);
}

fn crosses_alone(less: &str, differing: &str, inserted: u64) {
    let (source, target) = pair(
        "CREATE TABLE t (id bigint PRIMARY KEY, customer integer, status varchar(16), amount numeric(12,2), note text, at timestamptz)",
    );
    for db in [&source, &target] {
        db.execute(
            "INSERT INTO t SELECT i, i * 7919 % 100000, (ARRAY['open', 'paid', 'shipped', 'done'])[1 + i % 4], (i * 131 % 1000000) / 100.0,
                'note ' || md5(i::text), '2024-01-01'::timestamptz + i * interval '1 second' FROM generate_series(1, 100000) i",
        );
    }
    target.execute(less);
    // Within one process rows are not packed.
    let agent = Agent::start(&["--database", "env:DB"], &[("DB", &source.url())]);
    let output = repair_from(
        &format!("grpc://{}", agent.address),
        &target,
        &["-t", "t", "--allow", "insert,update,delete"],
    );
    let table = table(&output);
    assert_eq!((&table["inserted"], &table["proved"]), (&inserted.into(), &true.into()), "{output:?}");
    assert_eq!(source.scalar(CONTENT), target.scalar(CONTENT));
    source.execute(&format!("DELETE FROM t WHERE NOT ({differing})"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let rows = runtime.block_on(canonical_rows(&source.url()));
    let packed = zstd::bulk::compress(&rows, 3).unwrap().len() as u64;
    let [back, forth] = ["bytes_to_source", "bytes_to_target"].map(|name| table[name].as_u64().unwrap());
    assert!((back + forth) * 100 <= packed * 105, "{back} and {forth} crossed for {packed}");
}

/// Keys and rows in their canonical form, one behind the other.
async fn canonical_rows(url: &str) -> Vec<u8> {
    let engine = trueup::engine::open(url).await.unwrap();
    let name = TableName { schema: None, name: "t".to_owned() };
    let (schema, server) = (engine.describe(&name).await.unwrap(), engine.server().await.unwrap());
    let plan = Plan::agree((&schema, &server), (&schema, &server), &Wishes::default()).unwrap();
    let snapshot = engine.snapshot(Arc::new(plan.access(Role::Source)), 1).await.unwrap();
    let (send, mut receive) = tokio::sync::mpsc::channel::<Box<dyn RawBatch>>(4);
    let collect = async {
        let mut all: Vec<u8> = Vec::new();
        while let Some(batch) = receive.recv().await {
            batch.encode(&mut |key, row| all.extend([key, row].concat())).unwrap();
        }
        all
    };
    let (scanned, all) = tokio::join!(scan_in_batches(snapshot, send), collect);
    scanned.unwrap();
    all
}

#[test]
fn of_wide_rows_only_the_cells_that_differ_cross() {
    let columns: Vec<String> = (0..30).map(|at| format!("c{at} text")).collect();
    let (source, target) = pair(&format!("CREATE TABLE t (id bigint PRIMARY KEY, {})", columns.join(", ")));
    let cells: Vec<String> =
        (0..30).map(|at| format!("md5((i * 31 + {at})::text) || md5((i * 37 + {at})::text)")).collect();
    for db in [&source, &target] {
        db.execute(&format!("INSERT INTO t SELECT i, {} FROM generate_series(1, 4000) i", cells.join(", ")));
    }
    source.execute("UPDATE t SET c7 = 'new ' || id WHERE id % 4 = 0");
    source.execute("UPDATE t SET c0 = NULL, c29 = repeat('x', 300) WHERE id % 40 = 1");
    target.execute("DELETE FROM t WHERE id = 77");
    let output = repair(&source, &target, &["-t", "t", "--allow", "insert,update"]);
    assert_eq!(output.status, 0, "{output:?}");
    assert_eq!(source.scalar(CONTENT), target.scalar(CONTENT));
    let table = table(&output);
    assert_eq!((&table["updated"], &table["inserted"]), (&1_100.into(), &1.into()));
    let [back, forth] = ["bytes_to_source", "bytes_to_target"].map(|name| table[name].as_u64().unwrap());
    // 1,100 rows are 2 MB, half of it where they are packed.
    assert!(back < 180_000 && forth < 120_000, "{back} and {forth} bytes");
}
