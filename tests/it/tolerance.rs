//! `--tolerance`: within X is within X, exactly, and a tolerance that means nothing is refused.

use super::support::process::{Output, trueup};
use super::support::servers::{MysqlDb, PostgresDb, SqliteDb};

fn run(command: &str, source: &str, target: &str, more: &[&str]) -> Output {
    let mut args =
        vec![command, source, target, "-t", "t", "--format", "json", "--quiet", "--recheck-delay", "1ms"];
    args.extend(more);
    trueup(&args)
}

#[test]
fn large_numbers_that_are_apart_are_apart() {
    let (a, b) = (PostgresDb::create(), PostgresDb::create());
    for db in [&a, &b] {
        db.execute("CREATE TABLE t (id int PRIMARY KEY, b bigint, n numeric, d float8, at timestamp)");
    }
    a.execute("INSERT INTO t VALUES (1, 9007199254740993, 1e30 + 1, 0.5, '2024-01-01 00:00:00.000001')");
    b.execute("INSERT INTO t VALUES (1, 9007199254740992, 1e30, 0.25, '2024-01-01 00:00:00')");
    let all = |i: &str, n: &str, d: &str, at: &str| {
        let given = [format!("b={i}"), format!("n={n}"), format!("d={d}"), format!("at={at}")];
        let more: Vec<&str> = given.iter().flat_map(|one| ["--tolerance", one.as_str()]).collect();
        run("diff", &a.url(), &b.url(), &more).status
    };
    assert_eq!(all("1", "1", "0.25", "0.000001"), 0);
    assert_eq!(all("0.5", "1", "0.25", "0.000001"), 1);
    assert_eq!(all("1", "0.999999999999", "0.25", "0.000001"), 1);
    assert_eq!(all("1", "1", "0.2499", "0.000001"), 1);
    assert_eq!(all("1", "1", "0.25", "0.0000009"), 1);
    assert_eq!(all("0", "0", "0", "0"), 1);
    // The same numbers of other engines.
    let (my, lite) = (MysqlDb::create(), SqliteDb::create());
    my.execute("CREATE TABLE t (id INT PRIMARY KEY, b BIGINT, n DECIMAL(40, 2)); INSERT INTO t VALUES (1, 9007199254740992, 1000000000000000000000000000000)");
    lite.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, b INTEGER); INSERT INTO t VALUES (1, 9007199254740992)",
    );
    for target in [my.url(), lite.url()] {
        let at = |within: &str| {
            run("diff", &a.url(), &target, &["--columns", "b", "--tolerance", &format!("b={within}")]).status
        };
        assert_eq!((at("0.5"), at("1")), (1, 0), "{target}");
    }
    let n =
        |within: &str| run("diff", &a.url(), &my.url(), &["--columns", "n", "--tolerance", within]).status;
    assert_eq!((n("n=0.5"), n("n=1")), (1, 0));
    // Two SQLite files.
    let other = SqliteDb::create();
    other.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, b INTEGER); INSERT INTO t VALUES (1, 9007199254740993)",
    );
    let both = |within: &str| run("diff", &lite.url(), &other.url(), &["--tolerance", within]).status;
    assert_eq!((both("b=0.5"), both("b=1")), (1, 0));
}

#[test]
fn what_has_no_distance_is_not_near() {
    let (a, b) = (PostgresDb::create(), PostgresDb::create());
    for (source, target) in [
        ("'NaN', 'NaN', '2024-01-01'", "'1', '1', '2024-01-01'"),
        ("'1', '1', 'infinity'", "'1', '1', '2024-01-01'"),
        ("'1', '1', 'infinity'", "'1', '1', '-infinity'"),
        ("'1', 'Infinity', NULL", "'1', '1e308', NULL"),
        ("'1', '1', NULL", "'1', NULL, NULL"),
    ] {
        for (db, row) in [(&a, source), (&b, target)] {
            db.execute(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, n numeric, d float8, at timestamptz); INSERT INTO t VALUES (1, {row})"));
        }
        let wide = "9".repeat(330);
        let given = ["n", "d", "at"].map(|name| format!("{name}={wide}"));
        let more: Vec<&str> = given.iter().flat_map(|one| ["--tolerance", one.as_str()]).collect();
        let output = run("diff", &a.url(), &b.url(), &more);
        assert_eq!(output.status, 1, "{source} {target}: {output:?}");
    }
}

#[test]
fn a_tolerance_that_means_nothing_is_refused() {
    let (a, b) = (PostgresDb::create(), PostgresDb::create());
    for db in [&a, &b] {
        db.execute("CREATE TABLE t (id int PRIMARY KEY, v int, note text); INSERT INTO t VALUES (1, 1, 'a')");
    }
    for (given, words) in [
        ("nope=1", "of column nope, which is not compared"),
        ("id=1", "of key column id"),
        ("note=1", "column note (text) of"),
    ] {
        for command in ["diff", "repair"] {
            let output = run(command, &a.url(), &b.url(), &["--tolerance", given]);
            assert!(output.status == 2 && output.stdout.contains(words), "{given}: {output:?}");
        }
    }
    let excluded = run("diff", &a.url(), &b.url(), &["--tolerance", "v=1", "--exclude", "v"]);
    assert_eq!(excluded.status, 2, "{excluded:?}");
}

#[test]
fn a_repair_with_a_tolerance_says_what_it_left() {
    let (pg, my) = (PostgresDb::create(), MysqlDb::create());
    let (pg2, my2) = (PostgresDb::create(), MysqlDb::create());
    let rows = "(1, 10), (2, 20), (3, 30), (4, 40)";
    for db in [&pg, &pg2] {
        db.execute(&format!("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES {rows}"));
    }
    for db in [&my, &my2] {
        db.execute(&format!("CREATE TABLE t (id INT PRIMARY KEY, v INT); INSERT INTO t VALUES {rows}"));
    }
    let spoil = "UPDATE t SET v = v + 1 WHERE id IN (1, 2); UPDATE t SET v = 99 WHERE id = 3; DELETE FROM t WHERE id = 4";
    pg2.execute(spoil);
    my2.execute(spoil);
    for (source, target) in [(pg.url(), pg2.url()), (my.url(), my2.url())] {
        let done = run("repair", &source, &target, &["--tolerance", "v=1"]);
        let table = done.json()["tables"][0].clone();
        assert_eq!((done.status, table["verdict"].as_str()), (0, Some("same")), "{done:?}");
        let counts = ["tolerated", "inserted", "updated"].map(|name| table[name].as_u64());
        assert_eq!(counts, [Some(2), Some(1), Some(1)], "{done:?}");
        assert!(table["warnings"].to_string().contains("within the tolerance"), "{done:?}");
        // Nothing is left to write, and it says so again.
        let again =
            trueup(&["repair", &source, &target, "-t", "t", "--tolerance", "v=1", "--recheck-delay", "1ms"]);
        assert!(again.status == 0 && again.stdout.contains("the same within the tolerance"), "{again:?}");
        assert_eq!(run("diff", &source, &target, &[]).status, 1, "they are not equal");
    }
    assert_eq!(pg2.scalar("SELECT sum(v) FROM t").as_deref(), Some("102"));
    // An extra row may not be removed: different, whatever is near.
    pg2.execute("INSERT INTO t VALUES (9, 9)");
    let left = run("repair", &pg.url(), &pg2.url(), &["--tolerance", "v=1"]);
    assert_eq!(left.status, 1, "{left:?}");
}
