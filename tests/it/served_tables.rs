//! An agent serves the tables that it was started with, and none of their name elsewhere.

use super::support::process::{Agent, trueup, trueup_with};
use super::support::servers::{MysqlDb, PostgresDb};

const ALL: [&str; 4] = ["--allow", "insert,update,delete", "--no-ledger", "--quiet"];

fn grpc(agent: &Agent) -> String {
    format!("grpc://{}", agent.address)
}

#[test]
fn a_table_of_that_name_in_another_schema_is_neither_read_nor_written() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)");
    target.execute("CREATE TABLE t (id int PRIMARY KEY, v int); CREATE SCHEMA o; CREATE TABLE o.t (id int PRIMARY KEY, v int)");
    let url = target.url();
    let agent = Agent::start(
        &["--database", "env:DB", "--table", "t", "--allow-write", "--no-undo"],
        &[("DB", &url)],
    );
    let from = source.url();
    let other = trueup(&[&["repair", &from, &grpc(&agent), "-t", "t=o.t"][..], &ALL[..]].concat());
    assert_eq!(other.status, 2, "{other:?}");
    assert!(format!("{other:?}").contains("does not serve table"), "{other:?}");
    assert_eq!(target.scalar("SELECT count(*) FROM o.t").as_deref(), Some("0"));
    let own = trueup(&[&["repair", &from, &grpc(&agent), "-t", "t"][..], &ALL[..]].concat());
    assert_eq!(own.status, 0, "{own:?}");

    let (source, target, third) = (MysqlDb::create(), MysqlDb::create(), MysqlDb::create());
    for db in [&source, &target, &third] {
        db.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    }
    source.execute("INSERT INTO t VALUES (1, 1)");
    let name = |db: &MysqlDb| db.url().rsplit('/').next().unwrap().to_owned();
    let url = target.url();
    let agent = Agent::start(
        &["--database", "env:DB", "--table", "t", "--allow-write", "--no-undo"],
        &[("DB", &url)],
    );
    let pair = format!("{}.t={}.t", name(&source), name(&third));
    let from = source.url();
    let other = trueup(&[&["repair", &from, &grpc(&agent), "-t", &pair][..], &ALL[..]].concat());
    assert_eq!(other.status, 2, "{other:?}");
    assert_eq!(third.scalar("SELECT COUNT(*) FROM t").as_deref(), Some("0"));
}

#[test]
fn an_agent_of_a_table_that_is_not_there_does_not_start() {
    let db = PostgresDb::create();
    let url = db.url();
    let told = trueup_with(
        &["agent", "--listen", "127.0.0.1:0", "--database", "env:DB", "--table", "nowhere"],
        &[("DB", &url)],
    );
    assert_eq!(told.status, 2, "{told:?}");
    assert!(told.stderr.contains("cannot serve table nowhere"), "{told:?}");
}

#[test]
fn wide_values_of_zeros_and_wide_keys_cross_the_wire() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute(
            "CREATE TABLE t (id int PRIMARY KEY, s bytea); CREATE TABLE k (id text PRIMARY KEY, v int)",
        );
        // Keys that pack to little: an index takes them.
        db.execute("INSERT INTO k SELECT i || repeat('z', 100000), 1 FROM generate_series(1, 340) i");
    }
    source
        .execute("INSERT INTO t SELECT i, decode(repeat('00', 1000000), 'hex') FROM generate_series(1, 8) i");
    target.execute("UPDATE k SET v = 2");
    let url = target.url();
    let agent = Agent::start(&["--database", "env:DB", "--allow-write", "--no-undo"], &[("DB", &url)]);
    let (from, to) = (source.url(), grpc(&agent));
    let told = trueup(&["diff", &from, &to, "-t", "k", "--no-ledger", "--quiet", "--limit", "1"]);
    assert_eq!(told.status, 1, "{}", told.stdout.chars().take(2000).collect::<String>());
    for to in [&to, &url] {
        let told = trueup(&["diff", &from, to, "-t", "t", "--no-ledger", "--quiet"]);
        assert_eq!(told.status, 1, "{told:?}");
    }
    let told = trueup(&[&["repair", &from, &to, "-t", "t"][..], &ALL[..]].concat());
    assert_eq!(told.status, 0, "{told:?}");
    assert_eq!(target.scalar("SELECT count(*) FROM t WHERE length(s) = 1000000").as_deref(), Some("8"));
}

#[test]
fn a_table_that_an_agent_does_not_serve_is_left_out_and_not_said_to_be_missing() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE m1 (id int PRIMARY KEY); CREATE TABLE m2 (id int PRIMARY KEY); INSERT INTO m1 VALUES (1)");
    }
    let (from, to) = (source.url(), target.url());
    let agent = Agent::start(&["--database", "env:DB", "--table", "m1"], &[("DB", &to)]);
    let there = grpc(&agent);
    for [one, other] in [[&from, &there], [&there, &from]] {
        let told = trueup(&["diff", one, other, "--no-ledger"]);
        assert_eq!(told.status, 0, "{told:?}");
        assert!(format!("{told:?}").contains("agent does not serve"), "{told:?}");
    }
    // In a database that lacks it, it is missing.
    target.execute("DROP TABLE m2");
    let told = trueup(&["diff", &from, &to, "--no-ledger"]);
    assert_eq!(told.status, 1, "{told:?}");
}
