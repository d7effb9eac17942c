//! What others plant in a schema of the login's search path is never run by a statement of ours.

use super::support::process::{Output, trueup_with};
use super::support::servers::PostgresDb;

/// Functions, operators and types that fit better than the server's own, or come before them: each of them fails, and is counted.
const PLANT: &str = r#"
CREATE FUNCTION public.evil() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'planted'; END $$;
DO $do$
DECLARE t text; u text; op text; f text; n int := 0;
BEGIN
  FOREACH t IN ARRAY ARRAY['pg_catalog.varchar', 'pg_catalog.bpchar', 'pg_catalog.text', 'pg_catalog.name', 'pg_catalog."char"', 'pg_catalog.int2',
      'pg_catalog.int4', 'pg_catalog.int8', 'pg_catalog.numeric', 'pg_catalog.float4', 'pg_catalog.float8', 'pg_catalog.bool', 'pg_catalog.bytea', 'pg_catalog.uuid',
      'pg_catalog.date', 'pg_catalog.timestamp', 'pg_catalog.timestamptz', 'pg_catalog.json', 'pg_catalog.jsonb', 'pg_catalog.xml', 'pg_catalog.oid',
      'pg_catalog.regclass', 'pg_catalog.tid', 'pg_catalog._text', 'pg_catalog._varchar', 'pg_catalog._int4', 'public.dom_key', 'public.dom_int', 'public.dom_at',
      'public.mood'] LOOP
    FOREACH u IN ARRAY ARRAY[t, 'pg_catalog.text'] LOOP
      n := n + 1;
      BEGIN
        EXECUTE pg_catalog.format('CREATE FUNCTION public.planted_%s(%s, %s) RETURNS pg_catalog.bool LANGUAGE plpgsql AS ''BEGIN RETURN public.evil(); END''', n, t, u);
      EXCEPTION WHEN OTHERS THEN CONTINUE; END;
      FOREACH op IN ARRAY ARRAY['=', '<>', '<', '>', '<=', '>=', '-', '+', '/', '*', '||', '&', '>>', '->>', '~*', '~~'] LOOP
        BEGIN EXECUTE pg_catalog.format('CREATE OPERATOR public.%s (leftarg = %s, rightarg = %s, procedure = public.planted_%s)', op, t, u, n);
        EXCEPTION WHEN OTHERS THEN NULL; END;
      END LOOP;
    END LOOP;
    FOREACH f IN ARRAY ARRAY['count', 'sum', 'min', 'max', 'md5', 'format', 'unnest', 'round', 'floor', 'div', 'textin', 'inet_out', 'lower', 'rtrim', 'concat_ws',
        'current_setting', 'to_jsonb', 'encode', 'string_agg', 'hashtext', 'length', 'array_position', 'set_config'] LOOP
      BEGIN EXECUTE pg_catalog.format('CREATE FUNCTION public.%I(%s) RETURNS %s LANGUAGE plpgsql AS ''BEGIN PERFORM public.evil(); RETURN $1; END''', f, t, t);
      EXCEPTION WHEN OTHERS THEN NULL; END;
    END LOOP;
  END LOOP;
  FOREACH t IN ARRAY ARRAY['tid', 'oid', 'int8', 'name', 'jsonb', 'uuid', 'date', 'regclass', 'bytea', 'float8'] LOOP
    EXECUTE pg_catalog.format('CREATE DOMAIN public.%I AS pg_catalog.%I CHECK (public.evil())', t, t);
  END LOOP;
END $do$;
CREATE TABLE public.pg_class (oid int); CREATE TABLE public.pg_attribute (attname int);
"#;

const TABLES: &str = "
CREATE TYPE public.mood AS ENUM ('sad', 'glad');
CREATE DOMAIN public.dom_key AS varchar(20); CREATE DOMAIN public.dom_int AS int; CREATE DOMAIN public.dom_at AS timestamp;
CREATE TABLE public.vk (k varchar(20) PRIMARY KEY, v text, n numeric(12,2), j jsonb, js json, b bytea, at timestamptz, a text[], m public.mood, d public.dom_int);
CREATE TABLE public.dk (k public.dom_key, i public.dom_int, v public.dom_at, f float8, PRIMARY KEY (k, i));
CREATE TABLE public.bk (k char(8) PRIMARY KEY, o oid, r real, u uuid);
CREATE TABLE public.ik (id int PRIMARY KEY, at timestamp, x bigint, y double precision, c public.dom_at);
CREATE TABLE public.mk (m public.mood, t text, PRIMARY KEY (m, t));";

const ROWS: &str = "
INSERT INTO public.vk SELECT 'k' || i, 'v' || i, i / 7.0, '{\"a\":1}', '{\"a\": 1}', '\\x01', '2024-01-01', ARRAY['a', 'b'], 'sad', i FROM generate_series(1, 400) i;
INSERT INTO public.dk SELECT 'k' || i, i, '2024-01-01', i / 3.0 FROM generate_series(1, 400) i;
INSERT INTO public.bk SELECT 'k' || i, i, i, md5(i::text)::uuid FROM generate_series(1, 400) i;
INSERT INTO public.ik SELECT i, '2024-01-01'::timestamp + i * interval '1 hour', i, i / 3.0, '2024-01-01' FROM generate_series(1, 30000) i;
INSERT INTO public.mk SELECT 'sad', 't' || i FROM generate_series(1, 50) i;";

const DIFFERENCES: &str = "
UPDATE public.vk SET v = 'other' WHERE k IN ('k5', 'k77'); DELETE FROM public.vk WHERE k = 'k9'; INSERT INTO public.vk (k) VALUES ('extra');
UPDATE public.dk SET f = 0 WHERE i = 7; DELETE FROM public.dk WHERE i = 8; INSERT INTO public.dk VALUES ('zz', 1);
UPDATE public.bk SET r = 0 WHERE k = 'k3'; INSERT INTO public.bk VALUES ('zz');
UPDATE public.ik SET x = 0 WHERE id = 9; DELETE FROM public.ik WHERE id > 20000; INSERT INTO public.ik VALUES (-1);
DELETE FROM public.mk WHERE t = 't4'; INSERT INTO public.mk VALUES ('glad', 'x');";

struct Planted {
    source: PostgresDb,
    target: PostgresDb,
}

impl Planted {
    fn new(path: &str) -> Self {
        let planted = Self { source: PostgresDb::create(), target: PostgresDb::create() };
        for db in [&planted.source, &planted.target] {
            db.execute(TABLES);
            db.execute(ROWS);
        }
        planted.target.execute(DIFFERENCES);
        for db in [&planted.source, &planted.target] {
            db.execute(PLANT);
            let name = db.url().rsplit('/').next().unwrap().to_owned();
            db.execute(&format!(
                "ALTER DATABASE {name} SET track_functions = 'all'; ALTER DATABASE {name} SET search_path = {path}"
            ));
        }
        planted
    }

    fn run(&self, args: &[&str]) -> Output {
        let (source, target) = (self.source.url(), self.target.url());
        let output = trueup_with(args, &[("SOURCE", &source), ("TARGET", &target)]);
        for db in [&self.source, &self.target] {
            let ran = db.scalar("SELECT s.funcname FROM pg_catalog.pg_stat_user_functions s LIMIT 1");
            assert_eq!(ran, None, "{args:?}: {output:?}");
        }
        assert!(!format!("{output:?}").contains("planted"), "{args:?}: {output:?}");
        output
    }
}

fn nothing_planted_runs(path: &str) {
    let db = Planted::new(path);
    let ledger = db.target.url();
    let tables = ["-t", "vk", "-t", "dk", "-t", "bk", "-t", "ik", "-t", "mk"];
    let with = |first: &[&str], more: &[&str]| {
        let all: Vec<String> =
            first.iter().chain(&tables).chain(more).map(|word| (*word).to_owned()).collect();
        all
    };
    let run = |words: Vec<String>| db.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let diff = run(with(&["diff", "env:SOURCE", "env:TARGET"], &["--ledger", &ledger]));
    assert_eq!(diff.status, 1, "{diff:?}");
    // The condition is the user's, and what it calls is found by the login's path; all around it is the server's own.
    let filtered = run(vec![
        "diff",
        "env:SOURCE",
        "env:TARGET",
        "-t",
        "ik",
        "--where",
        "id OPERATOR(pg_catalog.>) 5",
        "--no-ledger",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect());
    assert_eq!(filtered.status, 1, "{filtered:?}");
    let repair = run(with(
        &["repair", "env:SOURCE", "env:TARGET"],
        &["--allow", "insert,update,delete", "--max-changes", "100%", "--ledger", &ledger],
    ));
    assert_eq!(repair.status, 0, "{repair:?}");
    let same = run(with(&["diff", "env:SOURCE", "env:TARGET"], &["--no-ledger"]));
    assert_eq!(same.status, 0, "{same:?}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trueup.toml");
    let checks = r#"
[endpoints.a]
url = "env:SOURCE"
[endpoints.b]
url = "env:TARGET"
[pairs.p]
source = "a"
target = "b"
[checks.one]
pair = "p"
kind = "sql"
source_sql = "select 1"
target_sql = "select 1"
[checks.rows]
pair = "p"
kind = "rows"
table = "ik"
"#;
    std::fs::write(&file, checks).unwrap();
    let check = db.run(&["check", "-c", file.to_str().unwrap(), "--no-ledger"]);
    assert!(check.status < 2, "{check:?}");
    let undo = db.run(&["undo", "last", "--ledger", &ledger]);
    assert_eq!(undo.status, 0, "{undo:?}");
    let verify = db.run(&["audit", "verify", "--ledger", &ledger]);
    assert_eq!(verify.status, 0, "{verify:?}");
}

#[test]
fn nothing_planted_in_the_path_runs() {
    nothing_planted_runs("\"$user\", public");
}

#[test]
fn nothing_planted_before_the_servers_own_schema_runs() {
    nothing_planted_runs("public, pg_catalog");
}

/// A target whose trigger names a table without its schema.
fn with_trigger() -> (PostgresDb, PostgresDb) {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE t (id int PRIMARY KEY, a text); CREATE TABLE log (id int)");
    }
    source.execute("INSERT INTO t SELECT i, 'a' FROM generate_series(1, 5) i");
    target.execute(
        "CREATE FUNCTION notes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (new.id); RETURN new; END';
         CREATE TRIGGER g AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION notes()",
    );
    (source, target)
}

fn repair(source: &PostgresDb, target: &PostgresDb) -> Output {
    let urls = [("SOURCE", source.url()), ("TARGET", target.url())];
    let urls: Vec<(&str, &str)> = urls.iter().map(|(name, url)| (*name, url.as_str())).collect();
    trueup_with(&["repair", "env:SOURCE", "env:TARGET", "-t", "t", "--no-ledger"], &urls)
}

#[test]
fn a_trigger_finds_its_tables_in_a_schema_where_no_other_may_create() {
    let (source, target) = with_trigger();
    let repaired = repair(&source, &target);
    assert_eq!(repaired.status, 0, "{repaired:?}");
    assert_eq!(target.scalar("SELECT count(*) FROM log").as_deref(), Some("5"));
}

#[test]
fn a_trigger_is_named_where_others_may_create_in_the_schema_that_it_needs() {
    for open in [
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "GRANT CREATE ON SCHEMA public TO pg_monitor",
        "ALTER SCHEMA public OWNER TO pg_monitor",
    ] {
        let (source, target) = with_trigger();
        target.execute(open);
        let refused = repair(&source, &target);
        assert_ne!(refused.status, 0, "{open}: {refused:?}");
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(said.contains("public.notes") && said.contains("ALTER FUNCTION"), "{open}: {refused:?}");
        assert_eq!(target.scalar("SELECT count(*) FROM log").as_deref(), Some("0"));
        target.execute("ALTER FUNCTION notes() SET search_path = public");
        let repaired = repair(&source, &target);
        assert_eq!(repaired.status, 0, "{open}: {repaired:?}");
        assert_eq!(target.scalar("SELECT count(*) FROM log").as_deref(), Some("5"));
    }
}

#[test]
fn the_owner_of_the_table_may_create_where_its_triggers_look() {
    let (source, target) = with_trigger();
    target.execute("GRANT CREATE ON SCHEMA public TO pg_monitor; ALTER TABLE t OWNER TO pg_monitor");
    let repaired = repair(&source, &target);
    assert_eq!(repaired.status, 0, "{repaired:?}");
}

#[test]
fn a_function_that_others_planted_for_a_trigger_does_not_run() {
    let (source, target) = with_trigger();
    // The trigger means the server's md5; anybody may put one for varchar in its way.
    target.execute(
        "GRANT CREATE ON SCHEMA public TO PUBLIC; ALTER TABLE t ALTER a TYPE varchar(9);
         CREATE TABLE planted (x int);
         CREATE FUNCTION md5(varchar) RETURNS text LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.planted VALUES (1); RETURN 1; END';
         CREATE OR REPLACE FUNCTION notes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM md5(new.a); RETURN new; END'",
    );
    let repaired = repair(&source, &target);
    assert_eq!(repaired.status, 0, "{repaired:?}");
    assert_eq!(target.scalar("SELECT count(*) FROM planted").as_deref(), Some("0"));
}

#[test]
fn a_condition_runs_no_operator_that_others_planted() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute(
            "CREATE TABLE t (id int PRIMARY KEY, n varchar(9)); INSERT INTO t VALUES (1, 'a'), (2, 'b');
             CREATE TABLE planted (x int); GRANT CREATE ON SCHEMA public TO PUBLIC;
             CREATE FUNCTION same(varchar, varchar) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''planted''; END';
             CREATE OPERATOR public.= (leftarg = varchar, rightarg = varchar, procedure = same);
             CREATE FUNCTION length(varchar) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''planted''; END'",
        );
    }
    target.execute("UPDATE t SET n = 'x' WHERE id = 2");
    let urls = [("SOURCE", source.url()), ("TARGET", target.url())];
    let urls: Vec<(&str, &str)> = urls.iter().map(|(name, url)| (*name, url.as_str())).collect();
    for (condition, status) in [("n = 'a'", 0), ("n = 'b'", 1), ("length(n) = 1", 1)] {
        let args = ["diff", "env:SOURCE", "env:TARGET", "-t", "t", "--where", condition, "--no-ledger"];
        let told = trueup_with(&args, &urls);
        assert_eq!(told.status, status, "{condition}: {told:?}");
    }
}

#[test]
fn words_of_a_trigger_are_told_by_no_sqlstate_and_its_row_is_set_aside() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE t (id int PRIMARY KEY, email text)");
    }
    source.execute("INSERT INTO t SELECT i, 'quoted@example.org' FROM generate_series(1, 5) i");
    for code in [
        "insufficient_privilege",
        "55000",
        "42703",
        "42P01",
        "23505",
        "40001",
        "58030",
        "57014",
        "0A000",
        "25006",
        "08006",
        "28000",
        "P0001",
    ] {
        target.execute(&format!(
            "TRUNCATE t; DROP TRIGGER IF EXISTS g ON t; CREATE OR REPLACE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF new.id = 3 THEN
               RAISE EXCEPTION 'user % may not', new.email USING ERRCODE = '{code}', CONSTRAINT = new.email, COLUMN = new.email, TABLE = new.email, HINT = new.email, DETAIL = new.email;
             END IF; RETURN new; END $$;
             CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()"
        ));
        let (from, to) = (source.url(), target.url());
        let args = ["repair", "env:SOURCE", "env:TARGET", "-t", "t", "--no-ledger", "-vvv"];
        let output = trueup_with(&args, &[("SOURCE", &from), ("TARGET", &to)]);
        assert!(!format!("{output:?}").contains("quoted@"), "{code}: {output:?}");
        assert_eq!(target.scalar("SELECT count(*) FROM t").as_deref(), Some("4"), "{code}: {output:?}");
    }
}

#[test]
fn a_query_that_closes_our_parentheses_is_refused() {
    let db = PostgresDb::create();
    db.execute("CREATE TABLE t (id int PRIMARY KEY)");
    let dir = tempfile::tempdir().unwrap();
    for sql in
        ["1) AS v) s; select (((1", "select 1) as v, (select 2", "select 1; select 2", "select 1 into x"]
    {
        let file = dir.path().join("trueup.toml");
        let text = format!(
            "[endpoints.a]\nurl = \"env:SOURCE\"\n[pairs.p]\nsource = \"a\"\ntarget = \"a\"\n[checks.c]\npair = \"p\"\nkind = \"sql\"\nsource_sql = {sql:?}\ntarget_sql = \"select 1\"\n"
        );
        std::fs::write(&file, text).unwrap();
        let url = db.url();
        let output = trueup_with(
            &["check", "-c", file.to_str().unwrap(), "--no-ledger", "--recheck", "0"],
            &[("SOURCE", &url)],
        );
        assert_eq!(output.status, 2, "{sql}: {output:?}");
    }
}
