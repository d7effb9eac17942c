//! Values that one type holds and the other does not: never the same, never written as another value in silence.

use serde_json::Value;

use super::support::process::{Output, trueup};
use super::support::servers::{MysqlDb, PostgresDb, SqliteDb};

fn run(command: &str, urls: [&str; 2], more: &[&str]) -> Output {
    let mut args =
        vec![command, urls[0], urls[1], "-t", "t", "--format", "json", "--quiet", "--recheck-delay", "1ms"];
    args.extend(more);
    trueup(&args)
}

fn repair(source: &str, target: &str) -> Output {
    run("repair", [source, target], &["--allow", "insert,update,delete"])
}

fn warnings(output: &Output) -> String {
    output.json()["tables"][0]["warnings"].to_string()
}

fn count(output: &Output, what: &str) -> Value {
    output.json()["tables"][0][what].clone()
}

/// A database of each engine, each with these statements.
struct Three {
    postgres: PostgresDb,
    mysql: MysqlDb,
    sqlite: SqliteDb,
}

impl Three {
    fn create() -> Self {
        Self { postgres: PostgresDb::create(), mysql: MysqlDb::create(), sqlite: SqliteDb::create() }
    }
}

#[test]
fn generated_columns_of_a_sqlite_source_are_read() {
    let Three { postgres, mysql, sqlite } = Three::create();
    let other = SqliteDb::create();
    for kind in ["VIRTUAL", "STORED"] {
        sqlite.execute(&format!(
            "DROP TABLE IF EXISTS t; CREATE TABLE t (id INTEGER PRIMARY KEY, v INT, g INT AS (v + 1) {kind}); INSERT INTO t (id, v) VALUES (1, 5), (2, 6)"
        ));
        // Generated on both sides, and at the source alone.
        for made in ["g INT AS (v + 1)", "g INT"] {
            other.execute(&format!(
                "DROP TABLE IF EXISTS t; CREATE TABLE t (id INTEGER PRIMARY KEY, v INT, {made}); INSERT INTO t (id, v) VALUES (1, 5)"
            ));
            assert_eq!(run("diff", [&sqlite.url(), &other.url()], &[]).status, 1, "{kind} {made}");
            let output = repair(&sqlite.url(), &other.url());
            assert_eq!(output.status, 0, "{kind} {made}: {output:?}");
            assert_eq!(other.scalar("SELECT sum(g) FROM t").as_deref(), Some("13"));
        }
    }
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v int, g int GENERATED ALWAYS AS (v + 1) STORED)");
    mysql.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT, g INT AS (v + 1) STORED)");
    for target in [postgres.url(), mysql.url()] {
        assert_eq!(repair(&sqlite.url(), &target).status, 0);
        // And as sources.
        other.execute("DROP TABLE IF EXISTS t; CREATE TABLE t (id INTEGER PRIMARY KEY, v INT, g INT)");
        assert_eq!(repair(&target, &other.url()).status, 0);
    }
}

#[test]
fn decimals_of_sqlite_are_compared_as_they_are_stored() {
    let Three { postgres, mysql, sqlite } = Three::create();
    let made = |ddl: &str, rows: &str| {
        format!(
            "DROP TABLE IF EXISTS t; CREATE TABLE t (id {ddl} PRIMARY KEY NOT NULL, v {ddl}); INSERT INTO t VALUES {rows}"
        )
    };
    for (lite, theirs) in
        [("NUMERIC(5)", "decimal(5,0)"), ("DECIMAL(10, 2)", "decimal(10,2)"), ("NUMBER(5)", "decimal(5,0)")]
    {
        let (fine, coarse) = if lite.contains('2') {
            ("(1.001, 1.001), (2, 0.5)", "(1.00, 1.00), (2, 0.5)")
        } else {
            ("(1.4, 1.4), (2.6, 0.5)", "(1, 1), (3, 1)")
        };
        sqlite.execute(&made(lite, fine));
        mysql.execute(&made(theirs, coarse));
        postgres.execute(&made(theirs, coarse));
        for url in [mysql.url(), postgres.url()] {
            for urls in [[sqlite.url(), url.clone()], [url.clone(), sqlite.url()]] {
                let output = run("diff", [&urls[0], &urls[1]], &[]);
                assert_eq!(output.status, 1, "{lite} {urls:?}: {output:?}");
            }
            // What the column would round is not written.
            let output = repair(&sqlite.url(), &url);
            assert_eq!(output.status, 1, "{lite} {url}: {output:?}");
            assert!(output.stdout.contains("has more decimal places than its type"), "{output:?}");
            assert_eq!(run("diff", [&sqlite.url(), &url], &[]).status, 1);
        }
        // The other way each value can be held.
        mysql.execute(&made(theirs, coarse));
        assert_eq!(repair(&mysql.url(), &sqlite.url()).status, 0, "{lite}");
        assert_eq!(run("diff", [&sqlite.url(), &mysql.url()], &[]).status, 0, "{lite}");
    }
}

#[test]
fn many_decimals_are_not_rounded_by_the_fast_way_in() {
    let (postgres, sqlite) = (PostgresDb::create(), SqliteDb::create());
    sqlite.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v DECIMAL(10, 2)); \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) \
         INSERT INTO t SELECT i, CASE WHEN i = 1500 THEN 1.001 ELSE i / 4.0 END FROM n",
    );
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v numeric(10, 2))");
    let output = repair(&sqlite.url(), &postgres.url());
    assert_eq!(output.status, 1, "{output:?}");
    assert_eq!(postgres.scalar("SELECT count(*) FROM t").as_deref(), Some("2999"), "{output:?}");
    assert_eq!(postgres.scalar("SELECT count(*) FROM t WHERE id = 1500").as_deref(), Some("0"));
}

#[test]
fn doubles_beyond_a_float_are_no_infinity_and_no_zero() {
    let Three { postgres, mysql, sqlite } = Three::create();
    let rows = "(1, 1e300), (2, -3.5e38), (3, 1e-300), (4, 0.5)";
    let source = PostgresDb::create();
    source.execute(&format!("CREATE TABLE t (id int PRIMARY KEY, v float8); INSERT INTO t VALUES {rows}"));
    sqlite.execute(&format!("CREATE TABLE t (id INTEGER PRIMARY KEY, v REAL); INSERT INTO t VALUES {rows}"));
    let wide = MysqlDb::create();
    wide.execute(&format!("CREATE TABLE t (id INT PRIMARY KEY, v DOUBLE); INSERT INTO t VALUES {rows}"));
    for url in [source.url(), sqlite.url(), wide.url()] {
        postgres.execute(
            "DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, v real); \
             INSERT INTO t VALUES (1, 'Infinity'), (2, '-Infinity'), (3, 0), (4, 0.5)",
        );
        mysql.execute("DROP TABLE IF EXISTS t; CREATE TABLE t (id INT PRIMARY KEY, v FLOAT); INSERT INTO t VALUES (3, 0), (4, 0.5)");
        for (target, changed, missing) in [(postgres.url(), 3, 0), (mysql.url(), 1, 2)] {
            let output = run("diff", [&url, &target], &[]);
            assert_eq!(
                (count(&output, "changed"), count(&output, "missing")),
                (changed.into(), missing.into()),
                "{output:?}"
            );
            assert!(warnings(&output).contains("column v"), "{output:?}");
            let output = repair(&url, &target);
            assert_eq!(output.status, 1, "{output:?}");
            assert!(output.stdout.contains("range"), "{output:?}");
            assert_eq!(run("diff", [&url, &target], &[]).status, 1);
        }
        assert_eq!(postgres.scalar("SELECT v FROM t WHERE id = 1").as_deref(), Some("Infinity"));
        assert_eq!(mysql.scalar("SELECT count(*) FROM t").as_deref(), Some("2"));
    }
    // In an array too.
    source.execute(
        "DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v float8[]); INSERT INTO t VALUES (1, '{1e300}')",
    );
    postgres.execute(
        "DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v real[]); INSERT INTO t VALUES (1, '{Infinity}')",
    );
    assert_eq!(run("diff", [&source.url(), &postgres.url()], &[]).status, 1);
}

#[test]
fn a_target_that_is_finer_holds_the_sources_value_or_differs() {
    let Three { postgres, mysql, sqlite } = Three::create();
    let other = PostgresDb::create();
    // Of the source's type and value, and of the target's: the one side as coarse as the other is fine.
    let cases = [
        ("decimal(20,0)", "1", "numeric(10,2)", "1.25"),
        ("decimal(20,1)", "1.2", "numeric", "1.25"),
        ("datetime", "'2024-01-01 00:00:00'", "timestamp(6)", "'2024-01-01 00:00:00.4'"),
        ("time(1)", "'10:00:00.1'", "time", "'10:00:00.12'"),
        ("float", "0.1", "float8", "0.1"),
    ];
    for (coarse, value, fine, finer) in cases {
        mysql.execute(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (id INT PRIMARY KEY, v {coarse}); INSERT INTO t VALUES (1, {value})"));
        postgres.execute(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, v {fine}); INSERT INTO t VALUES (1, {finer})"));
        // The finer source is compared as the target rounds it, and the plan says so.
        let output = run("diff", [&postgres.url(), &mysql.url()], &[]);
        assert!(warnings(&output).contains("column v is"), "{fine}: {output:?}");
        // The finer target could hold the source's value, and does not.
        let output = run("diff", [&mysql.url(), &postgres.url()], &[]);
        assert_eq!(
            (output.status, warnings(&output).contains("column v is")),
            (1, false),
            "{fine}: {output:?}"
        );
        assert_eq!(repair(&mysql.url(), &postgres.url()).status, 0, "{fine}");
        assert_eq!(run("diff", [&mysql.url(), &postgres.url()], &[]).status, 0, "{fine}");
        assert_eq!(run("diff", [&postgres.url(), &mysql.url()], &[]).status, 0, "{fine}");
    }
    assert_eq!(postgres.scalar("SELECT v = 0.1::float4::float8 FROM t").as_deref(), Some("true"));
    // Of one engine, in an array and in a time with a zone.
    for (coarse, fine, value, finer) in [
        ("numeric(9,1)[]", "numeric(9,2)[]", "'{1.2}'", "'{1.25}'"),
        ("timetz(0)", "timetz", "'10:00:00+02'", "'10:00:00.3+02'"),
        ("timestamptz(3)", "timestamptz", "'2024-01-01 00:00:00.001+00'", "'2024-01-01 00:00:00.0011+00'"),
    ] {
        other.execute(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, v {coarse}); INSERT INTO t VALUES (1, {value})"));
        postgres.execute(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, v {fine}); INSERT INTO t VALUES (1, {finer})"));
        assert_eq!(run("diff", [&other.url(), &postgres.url()], &[]).status, 1, "{fine}");
        assert!(
            warnings(&run("diff", [&postgres.url(), &other.url()], &[])).contains("column v is"),
            "{fine}"
        );
    }
    // A double of SQLite beside a float.
    sqlite
        .execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v REAL); INSERT INTO t VALUES (1, 1.10000000001)");
    postgres
        .execute("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v real); INSERT INTO t VALUES (1, 1.1)");
    let output = run("diff", [&sqlite.url(), &postgres.url()], &[]);
    assert_eq!((output.status, warnings(&output).contains("column v is REAL")), (0, true), "{output:?}");
    assert_eq!(run("diff", [&postgres.url(), &sqlite.url()], &[]).status, 1);
}

#[test]
fn members_of_one_name_are_no_document_of_one_of_them() {
    let Three { postgres, mysql, sqlite } = Three::create();
    let insert = |document: &str| format!("DELETE FROM t; INSERT INTO t VALUES (1, '{document}')");
    mysql.execute("CREATE TABLE t (id INT PRIMARY KEY, v JSON)");
    sqlite.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v JSON)");
    for (ddl, keeps) in [("json", true), ("jsonb", false)] {
        postgres.execute(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, v {ddl})"));
        for (source, target) in [
            (r#"{"a":1,"a":2}"#, r#"{"a":3,"a":2}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#"[{"x":{"a":1,"a":2}}]"#, r#"[{"x":{"a":2}}]"#),
        ] {
            mysql.execute(&insert(source));
            postgres.execute(&insert(target));
            sqlite.execute(&insert(target));
            assert_eq!(run("diff", [&mysql.url(), &sqlite.url()], &[]).status, 1, "{source} {target}");
            assert_eq!(run("diff", [&mysql.url(), &postgres.url()], &[]).status, 1, "{source} {target}");
            let output = repair(&mysql.url(), &postgres.url());
            assert_eq!(output.status, i32::from(!keeps), "{ddl} {source}: {output:?}");
            assert_eq!(keeps, !output.stdout.contains("jsonb keeps one of several members"), "{output:?}");
            assert_eq!(repair(&mysql.url(), &sqlite.url()).status, 0, "{source}");
            assert_eq!(sqlite.scalar("SELECT v FROM t").as_deref(), Some(source));
        }
    }
    // A document that is a number, which SQLite's affinity keeps as one.
    for number in ["5", "-1.5", "1e2", "0"] {
        mysql.execute(&insert(number));
        sqlite.execute("DELETE FROM t");
        let output = repair(&mysql.url(), &sqlite.url());
        assert_eq!(output.status, 0, "{number}: {output:?}");
        assert_eq!(run("diff", [&sqlite.url(), &mysql.url()], &[]).status, 0, "{number}");
    }
    mysql.execute(&insert("12345678901234567890123"));
    assert_ne!(repair(&mysql.url(), &sqlite.url()).status, 0);
}

#[test]
fn texts_of_a_database_mean_the_same_whatever_it_is_set_to() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text[], c regclass, d interval); \
         INSERT INTO t VALUES (1, '{NULL}', 'pg_class', '-1 mons +2 days'), (2, '{\"NULL\"}', 'pg_type', '1 year'), (3, '{a,NULL}', NULL, NULL)",
    );
    target.execute("CREATE TABLE t (id int PRIMARY KEY, v text[], c regclass, d interval)");
    let name = target.scalar("SELECT current_database()").unwrap();
    for setting in [
        "array_nulls = off",
        "quote_all_identifiers = on",
        "IntervalStyle = 'sql_standard'",
        "DateStyle = 'German'",
        "bytea_output = 'escape'",
        "extra_float_digits = -3",
        "backslash_quote = on",
        "gin_fuzzy_search_limit = 5",
    ] {
        target.execute(&format!("ALTER DATABASE {name} SET {setting}"));
    }
    let output = repair(&source.url(), &target.url());
    assert_eq!(output.status, 0, "{output:?}");
    for db in [&source, &target] {
        assert_eq!(db.scalar("SELECT v[1] IS NULL FROM t WHERE id = 1").as_deref(), Some("true"));
        assert_eq!(db.scalar("SELECT v[1] IS NULL FROM t WHERE id = 2").as_deref(), Some("false"));
    }
}

#[test]
fn a_condition_that_answers_by_chance_is_refused() {
    let Three { postgres, mysql, sqlite } = Three::create();
    let other = PostgresDb::create();
    for db in [&postgres, &other] {
        db.execute(
            "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, i FROM generate_series(1, 100) i; \
             CREATE FUNCTION mine(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN $1; END'; \
             CREATE FUNCTION sound(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END'; \
             CREATE VIEW w AS SELECT * FROM t WHERE random() < 0.5",
        );
    }
    other.execute("UPDATE t SET v = v + 1");
    mysql.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT); CREATE FUNCTION mine(i INT) RETURNS INT RETURN i; CREATE FUNCTION sound(i INT) RETURNS INT DETERMINISTIC RETURN i");
    sqlite.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v INT)");
    let filtered = |urls: [&str; 2], condition: &str| run("diff", urls, &["--where", condition]);
    for condition in [
        "random() < 0.5",
        "id > 0 AND pg_catalog.random() < v",
        "v < (SELECT 100 * random())",
        "gen_random_uuid()::text < '8'",
        "clock_timestamp() > '2024-01-01'",
        "mine(id) > 0",
    ] {
        let output = filtered([&postgres.url(), &other.url()], condition);
        assert_eq!(output.status, 2, "{condition}: {output:?}");
        assert!(output.stdout.contains("the filter calls"), "{condition}: {output:?}");
    }
    for condition in [
        "sound(id) > 0",
        "v > 0 AND now() > '2024-01-01'",
        "'random()' <> 'x' -- random()",
        "length('random()') > id - 100",
    ] {
        let output = filtered([&postgres.url(), &other.url()], condition);
        assert_eq!(output.status, 1, "{condition}: {output:?}");
    }
    let (lite, my) = (SqliteDb::create(), MysqlDb::create());
    lite.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v INT)");
    my.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT); CREATE FUNCTION mine(i INT) RETURNS INT RETURN i; CREATE FUNCTION sound(i INT) RETURNS INT DETERMINISTIC RETURN i");
    for condition in [
        "RAND() < 0.5",
        "rand (3) < 1",
        "v = UUID_SHORT()",
        "SYSDATE() > '2024-01-01'",
        "mine(id) = 1",
        "(@a := id) > 1",
    ] {
        let output = filtered([&mysql.url(), &my.url()], condition);
        assert_eq!(output.status, 2, "{condition}: {output:?}");
        assert!(output.stdout.contains("the filter"), "{condition}: {output:?}");
    }
    for condition in ["sound(id) > 0", "'rand()' <> 'it\\'s'", "v > 0 # rand()"] {
        assert_eq!(filtered([&mysql.url(), &my.url()], condition).status, 0, "{condition}");
    }
    for condition in ["random() % 2 = 0", "v IN (SELECT abs(RANDOM()))", "id > total_changes()"] {
        let output = filtered([&sqlite.url(), &lite.url()], condition);
        assert_eq!(output.status, 2, "{condition}: {output:?}");
    }
    assert_eq!(filtered([&sqlite.url(), &lite.url()], "v > abs(-3) OR v = 'random()'").status, 0);
    // A view that chooses its rows so.
    let output = trueup(&["diff", &postgres.url(), &other.url(), "-t", "w", "--key", "id", "-q"]);
    assert_eq!(output.status, 2, "{output:?}");
    assert!(format!("{output:?}").contains("calls random()"), "{output:?}");
}
