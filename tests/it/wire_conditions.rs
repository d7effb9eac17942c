//! A condition that comes over the wire reads the rows that it is asked of, and nothing else; unless the agent takes any SQL.

use super::support::any::{AnyDb, KINDS, Kind};
use super::support::process::{Agent, Output, trueup};
use super::support::servers::{MysqlDb, PostgresDb};

fn start(db: &AnyDb, more: &[&str]) -> Agent {
    let url = db.url();
    let args = ["--database", "env:DB", "--table", "t", "--allow-write", "--no-undo"];
    Agent::start(&[&args[..], more].concat(), &[("DB", &url)])
}

fn pair(kind: Kind) -> (AnyDb, AnyDb) {
    let (source, target) = (AnyDb::create(kind), AnyDb::create(kind));
    for db in [&source, &target] {
        db.execute("CREATE TABLE t (id int PRIMARY KEY NOT NULL, n varchar(20), at date)");
        db.execute("CREATE TABLE secret (id int PRIMARY KEY NOT NULL, pw varchar(20)); INSERT INTO secret VALUES (1, 'hunter2')");
    }
    source.execute(
        "INSERT INTO t VALUES (1, 'a', '2024-01-01'), (2, 'b', '2024-02-01'), (3, 'c', '2024-03-01')",
    );
    target.execute("INSERT INTO t VALUES (1, 'a', '2024-01-01'), (3, 'x', '2024-03-01')");
    (source, target)
}

fn run(command: &str, source: &AnyDb, agent: &Agent, more: &[&str]) -> Output {
    let (from, to) = (source.url(), format!("grpc://{}", agent.address));
    trueup(&[&[command, &from, &to, "--no-ledger", "--quiet"][..], more].concat())
}

#[test]
fn sql_of_the_callers_is_refused_and_nothing_of_it_is_run() {
    for kind in KINDS {
        let (source, target) = pair(kind);
        let agent = start(&target, &[]);
        let blind = "exists (select 1 from secret where pw like 'h%')";
        let error = match kind {
            Kind::Postgres => "current_setting((select pw from secret)) is null",
            Kind::Mysql => "extractvalue(1, concat(0x7e, (select pw from secret))) is null",
            Kind::Sqlite => "json_extract('{}', (select pw from secret)) is null",
        };
        for condition in [blind, error, "id in (select id from secret)", "length(n) > 0", "1; select 1"] {
            for command in ["diff", "repair"] {
                let told = run(command, &source, &agent, &["-t", "t", "--target-where", condition]);
                assert_eq!(told.status, 2, "{kind:?} {condition}: {told:?}");
                let all = format!("{told:?}");
                assert!(
                    all.contains("--allow-where") && !all.contains("hunter2"),
                    "{kind:?} {condition}: {all}"
                );
            }
        }
        assert!(!format!("{:?}", agent.log()).contains("hunter2"), "{kind:?}");
    }
}

#[test]
fn conditions_of_columns_and_values_need_no_right() {
    for kind in KINDS {
        let (source, target) = pair(kind);
        let agent = start(&target, &[]);
        for (condition, status) in [
            ("id < 2", 0),
            ("id < 3", 1),
            ("n = 'a' or id in (1)", 0),
            ("not (id >= 2) and n is not null", 0),
            ("at between '2024-01-15' and '2024-02-15'", 1),
            ("at >= '2024-01-01' and at < '2024-01-02' and n like 'a%'", 0),
        ] {
            let told = run("diff", &source, &agent, &["-t", "t", "--where", condition]);
            assert_eq!(told.status, status, "{kind:?} {condition}: {told:?}");
        }
        let told = run("repair", &source, &agent, &["-t", "t", "--where", "id = 2"]);
        assert_eq!(told.status, 0, "{kind:?}: {told:?}");
        assert_eq!(target.count("SELECT count(*) FROM t WHERE id = 2"), 1, "{kind:?}");
        // Ranges of a backfill come as such.
        let range =
            ["-t", "t", "--on", "at", "--from", "2024-01-01", "--to", "2024-04-01", "--where", "id > 0"];
        let filled = run("backfill", &source, &agent, &range);
        assert_eq!(filled.status, 0, "{kind:?}: {filled:?}");
        assert_eq!(target.count("SELECT count(*) FROM t WHERE n = 'c'"), 1, "{kind:?}");
    }
}

#[test]
fn an_agent_that_takes_any_sql_says_so_and_takes_it() {
    for kind in KINDS {
        let (source, target) = pair(kind);
        let agent = start(&target, &["--allow-where"]);
        let told = run("diff", &source, &agent, &["-t", "t", "--where", "length(n) > 0 and id < 2"]);
        assert_eq!(told.status, 0, "{kind:?}: {told:?}");
    }
}

#[test]
fn of_tables_that_are_not_served_nothing_is_told() {
    for kind in KINDS {
        let (source, target) = pair(kind);
        let agent = start(&target, &[]);
        let words = |table: &str| {
            let told = run("diff", &source, &agent, &["-t", &format!("t={table}")]);
            assert_eq!(told.status, 2, "{kind:?} {table}: {told:?}");
            format!("{}{}", told.stdout, told.stderr).replace(table, "TABLE")
        };
        assert_eq!(words("secret"), words("nowhere"), "{kind:?}");
    }
}

/// A check of kind `sql` that asks the same of both endpoints.
fn check(source: &str, target: &str, sql: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trueup.toml");
    let text = format!(
        "[endpoints.a]\nurl = {source:?}\n[endpoints.b]\nurl = {target:?}\n[pairs.p]\nsource = \"a\"\ntarget = \"b\"\n\
         [checks.c]\npair = \"p\"\nkind = \"sql\"\nsource_sql = {sql:?}\ntarget_sql = {sql:?}\n"
    );
    std::fs::write(&file, text).unwrap();
    trueup(&["check", "-c", file.to_str().unwrap(), "--no-ledger", "--recheck", "0"])
}

#[test]
fn what_one_caller_sets_does_not_reach_the_next() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2)");
    target.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 9); CREATE SCHEMA decoy;
         CREATE TABLE decoy.t (id int PRIMARY KEY, v int); INSERT INTO decoy.t VALUES (1, 1), (2, 2)",
    );
    let url = target.url();
    let agent = Agent::start(&["--database", "env:DB", "--allow-sql"], &[("DB", &url)]);
    let there = format!("grpc://{}", agent.address);
    for sql in [
        "select set_config('search_path', 'decoy, public', false)",
        "select set_config('row_security', 'off', false)",
        "select pg_advisory_lock(4711)::text",
    ] {
        let ran = check(&there, &there, sql);
        assert!(ran.status < 2, "{sql} was not run: {ran:?}");
        let told = trueup(&["diff", &source.url(), &there, "-t", "t", "--no-ledger", "--quiet"]);
        assert_eq!(told.status, 1, "{sql}: {told:?}");
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711";
        assert_eq!(target.scalar(locks).as_deref(), Some("0"), "{sql}");
    }
    let db = MysqlDb::create();
    db.execute("CREATE TABLE t (id INT PRIMARY KEY)");
    let url = db.url();
    let agent = Agent::start(&["--database", "env:DB", "--allow-sql"], &[("DB", &url)]);
    let there = format!("grpc://{}", agent.address);
    let name = url.rsplit('/').next().unwrap().to_owned();
    let ran = check(&there, &there, &format!("select get_lock('{name}', 0)"));
    assert!(ran.status < 2, "it was not run: {ran:?}");
    assert_eq!(db.scalar(&format!("SELECT IS_USED_LOCK('{name}')")), None);
}

#[test]
fn a_query_of_mariadb_writes_no_file() {
    let db = MysqlDb::create();
    db.execute("CREATE TABLE t (id INT PRIMARY KEY)");
    let name = db.url().rsplit('/').next().unwrap().to_owned();
    let file = std::env::temp_dir().join(format!("trueup_out_{name}"));
    let out = file.to_str().unwrap();
    // It could be written here.
    let tried = std::env::temp_dir().join(format!("trueup_can_{name}"));
    db.execute(&format!("SELECT 1 INTO OUTFILE '{}'", tried.display()));
    assert!(tried.exists());
    let _ = std::fs::remove_file(&tried);
    let url = db.url();
    for sql in [
        format!("1) AS CHAR) INTO OUTFILE '{out}' FROM dual WHERE '1'=CAST((1"),
        format!("select 1 into outfile '{out}'"),
        format!("select 1) as v into dumpfile '{out}' -- "),
        format!("(select 1 into outfile '{out}')"),
    ] {
        let told = check(&url, &url, &sql);
        assert_eq!(told.status, 2, "{sql}: {told:?}");
        assert!(!file.exists(), "{sql}");
    }
}
