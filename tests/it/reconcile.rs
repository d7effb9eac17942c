//! Diff and repair from the command line on real databases: what is found is what differs, and after a repair the
//! databases themselves agree.

use serde_json::Value;

use super::support::process::{Output, trueup};
use super::support::servers::{MysqlDb, PostgresDb, SqliteDb};

const QUICK: &[&str] = &["--format", "json", "--quiet", "--recheck-delay", "10ms"];

fn run(command: &str, source: &str, target: &str, more: &[&str]) -> Output {
    let mut args = vec![command, source, target];
    args.extend(QUICK);
    args.extend(more);
    trueup(&args)
}

fn table(output: &Output) -> Value {
    output.json()["tables"][0].clone()
}

fn counts(table: &Value) -> [u64; 3] {
    ["missing", "changed", "extra"].map(|name| table[name].as_u64().unwrap())
}

fn keys(table: &Value) -> Vec<String> {
    let key = |difference: &Value| difference["key"][0][1].as_str().unwrap().to_owned();
    table["differences"].as_array().unwrap().iter().map(key).collect()
}

const ORDERS: &str = "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER NOT NULL, status VARCHAR(16), amount DECIMAL(12,2), note TEXT)";
const ROWS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
    INSERT INTO orders SELECT i, i % 97, 'open', (i * 131 % 100000) / 100.0, 'note ' || i FROM n";
const DRIFT: &str = "DELETE FROM orders WHERE id IN (7, 2999); UPDATE orders SET note = NULL WHERE id = 500;
    UPDATE orders SET status = 'lost' WHERE id = 501; INSERT INTO orders VALUES (9000, 1, 'x', 1, '')";

fn sqlite_pair() -> (SqliteDb, SqliteDb) {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute(ORDERS);
        db.execute(ROWS);
    }
    target.execute(DRIFT);
    (source, target)
}

#[test]
fn a_diff_finds_exactly_what_differs() {
    let (source, target) = sqlite_pair();
    let output = run("diff", &source.url(), &target.url(), &["-t", "orders"]);
    assert_eq!(output.status, 1, "{output:?}");
    let table = table(&output);
    assert_eq!(counts(&table), [2, 2, 1]);
    assert_eq!(keys(&table), ["7", "500", "501", "2999", "9000"]);
    assert_eq!(table["differences"][1]["columns"][0]["name"], "note");
    assert_eq!(
        table["differences"][1]["columns"][0].get("values"),
        None,
        "values are shown only where asked for"
    );
    assert_eq!((table["source_rows"].as_u64(), table["target_rows"].as_u64()), (Some(3000), Some(2999)));
    assert_eq!(table["proved"], true);
    assert!(!output.stdout.contains("note 500"), "a value in the report");
    let output = run("diff", &source.url(), &target.url(), &["-t", "orders", "--show-values"]);
    assert!(output.stdout.contains("note 500"));
}

#[test]
fn a_repair_leaves_extra_rows_unless_deletes_are_allowed() {
    let (source, target) = sqlite_pair();
    let output = run("repair", &source.url(), &target.url(), &["-t", "orders"]);
    assert_eq!(output.status, 1, "{output:?}");
    let first = table(&output);
    assert_eq!([&first["inserted"], &first["updated"], &first["deleted"], &first["left"]], [2, 2, 0, 1]);
    assert_eq!(target.scalar("SELECT count(*) FROM orders").as_deref(), Some("3001"));
    let output = run("repair", &source.url(), &target.url(), &["-t", "orders", "--allow", "delete"]);
    assert_eq!(output.status, 0, "{output:?}");
    let second = table(&output);
    assert_eq!(second["deleted"], 1);
    assert_eq!(second["repaired_root"], second["source_root"]);
    let sum = "SELECT count(*) || ' ' || sum(id * length(coalesce(note, '')) + length(status)) || total(amount) FROM orders";
    assert_eq!(source.scalar(sum), target.scalar(sum));
    assert_eq!(run("diff", &source.url(), &target.url(), &[]).status, 0);
}

#[test]
fn a_dry_run_and_sql_write_nothing() {
    let (source, target) = sqlite_pair();
    let before = target.scalar("SELECT group_concat(id || coalesce(note, '-') || status) FROM orders");
    let dry = run("repair", &source.url(), &target.url(), &["--dry-run", "--allow", "insert,update,delete"]);
    assert_eq!(dry.status, 1, "{dry:?}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fix.sql");
    let allow = ["--allow", "insert,update,delete", "--sql", file.to_str().unwrap()];
    assert_eq!(run("repair", &source.url(), &target.url(), &allow).status, 1);
    assert_eq!(before, target.scalar("SELECT group_concat(id || coalesce(note, '-') || status) FROM orders"));
    // The file does what the repair would have done.
    target.execute(&std::fs::read_to_string(&file).unwrap());
    assert_eq!(run("diff", &source.url(), &target.url(), &[]).status, 0);
}

#[test]
fn too_many_changes_stop_a_repair_before_it_writes() {
    let (source, target) = sqlite_pair();
    target.execute("DELETE FROM orders WHERE id % 2 = 0");
    let output = run("repair", &source.url(), &target.url(), &["--max-changes", "100"]);
    assert_eq!(output.status, 1, "{output:?}");
    assert_eq!(table(&output)["over_limit"], true);
    assert_eq!(table(&output)["inserted"], 0);
    assert_eq!(target.scalar("SELECT count(*) FROM orders").as_deref(), Some("1498"), "nothing was written");
    assert_eq!(
        run(
            "repair",
            &source.url(),
            &target.url(),
            &["--max-changes", "2000", "--allow", "insert,update,delete"]
        )
        .status,
        0
    );
}

#[test]
fn a_missing_block_is_streamed_and_proved() {
    let (source, target) = sqlite_pair();
    target.execute("DELETE FROM orders WHERE id BETWEEN 200 AND 2800");
    let output = run(
        "repair",
        &source.url(),
        &target.url(),
        &["--allow", "insert,update,delete", "--max-changes", "9999"],
    );
    assert_eq!(output.status, 0, "{output:?}");
    assert_eq!(table(&output)["inserted"], 2603);
    assert_eq!(run("diff", &source.url(), &target.url(), &[]).status, 0);
}

#[test]
fn tolerance_clears_what_is_near_and_says_how_many() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for (db, shift) in [(&source, 0.0), (&target, 0.0005)] {
        db.execute("CREATE TABLE m (id INTEGER PRIMARY KEY, v REAL, w REAL)");
        db.execute(&format!(
            "INSERT INTO m VALUES (1, 1 + {shift}, 1), (2, 2 + {shift} * 10, 2), (3, 3, 3 + {shift})"
        ));
    }
    let output = run("diff", &source.url(), &target.url(), &["--tolerance", "v=0.001"]);
    assert_eq!(output.status, 1, "{output:?}");
    assert_eq!((counts(&table(&output)), &table(&output)["tolerated"]), ([0, 2, 0], &Value::from(1)));
    let output =
        run("diff", &source.url(), &target.url(), &["--tolerance", "v=0.1,", "--tolerance", "w=0.1"]);
    assert_eq!(output.status, 2, "a malformed tolerance is a usage error");
    let output = run("diff", &source.url(), &target.url(), &["--tolerance", "v=0.1", "--tolerance", "w=0.1"]);
    assert_eq!((output.status, &table(&output)["tolerated"]), (0, &Value::from(3)), "{output:?}");
}

#[test]
fn rows_that_block_each_other_are_exchanged() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for (db, rows) in [(&source, "(1, 'a'), (2, 'b'), (3, 'c')"), (&target, "(1, 'b'), (2, 'c'), (3, 'a')")] {
        db.execute("CREATE TABLE u (id INTEGER PRIMARY KEY, code TEXT NOT NULL UNIQUE)");
        db.execute(&format!("INSERT INTO u VALUES {rows}"));
    }
    let output = run("repair", &source.url(), &target.url(), &[]);
    assert_eq!(output.status, 0, "{output:?}");
    assert_eq!(target.scalar("SELECT group_concat(id || code) FROM u").as_deref(), Some("1a,2b,3c"));
}

#[test]
fn a_row_that_is_refused_is_set_aside_and_the_rest_is_written() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    source.execute(
        "CREATE TABLE c (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO c VALUES (1, 1), (2, -54321), (3, 3)",
    );
    target.execute("CREATE TABLE c (id INTEGER PRIMARY KEY, n INTEGER CHECK (n > 0))");
    let output = run("repair", &source.url(), &target.url(), &[]);
    assert_eq!(output.status, 1, "{output:?}");
    let table = table(&output);
    assert_eq!((&table["inserted"], &table["set_aside"]), (&Value::from(2), &Value::from(1)));
    assert_eq!(table["rows_set_aside"][0]["examples"][0][0][1], "2");
    assert!(!output.stdout.contains("54321"), "a value in a reason");
}

#[test]
fn parents_are_repaired_before_children_and_deletes_the_other_way_round() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute(
            "CREATE TABLE a_child (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL REFERENCES z_parent (id))",
        );
        db.execute("CREATE TABLE z_parent (id INTEGER PRIMARY KEY, boss INTEGER REFERENCES z_parent (id))");
    }
    source.execute("INSERT INTO z_parent VALUES (1, 2), (2, NULL); INSERT INTO a_child VALUES (10, 1)");
    target.execute("INSERT INTO z_parent VALUES (7, NULL), (8, 7); INSERT INTO a_child VALUES (70, 8)");
    let output = run("repair", &source.url(), &target.url(), &["--allow", "insert,update,delete"]);
    assert_eq!(output.status, 0, "{output:?}");
    assert_eq!(target.scalar("SELECT group_concat(id) FROM z_parent").as_deref(), Some("1,2"));
    assert_eq!(target.scalar("SELECT group_concat(id) FROM a_child").as_deref(), Some("10"));
}

#[test]
fn a_delete_that_would_spread_is_refused() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE k (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p (id) ON DELETE CASCADE)");
    }
    target.execute("INSERT INTO p VALUES (1); INSERT INTO k VALUES (5, 1)");
    source.execute("INSERT INTO p VALUES (2); INSERT INTO k VALUES (5, 2)");
    let output = run("repair", &source.url(), &target.url(), &["-t", "p", "--allow", "insert,delete"]);
    assert_eq!(output.status, 2, "{output:?}");
    assert!(output.stdout.contains("--allow-cascade"));
    assert_eq!(target.scalar("SELECT count(*) FROM p").as_deref(), Some("1"), "nothing was written");
}

#[test]
fn every_shared_table_is_compared_and_lonely_ones_are_told() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE \"Odd \"\"name\" (\"select\" INTEGER PRIMARY KEY, \"größe\" TEXT); INSERT INTO \"Odd \"\"name\" VALUES (1, 'ü')");
    }
    source.execute("CREATE TABLE only_s (id INTEGER PRIMARY KEY)");
    target.execute("CREATE TABLE only_t (id INTEGER PRIMARY KEY)");
    let output = run("diff", &source.url(), &target.url(), &[]);
    assert_eq!(output.status, 1, "{output:?}");
    let report = output.json();
    assert_eq!(report["tables"][0]["verdict"], "same");
    assert_eq!(
        (&report["only_in_source"][0], &report["only_in_target"][0]),
        (&Value::from("only_s"), &Value::from("only_t"))
    );
}

#[test]
fn empty_tables_and_single_rows() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE e (id INTEGER PRIMARY KEY, t TEXT)");
    }
    let output = run("diff", &source.url(), &target.url(), &[]);
    assert_eq!((output.status, counts(&table(&output))), (0, [0, 0, 0]), "{output:?}");
    source.execute("INSERT INTO e VALUES (1, NULL)");
    assert_eq!(counts(&table(&run("diff", &source.url(), &target.url(), &[]))), [1, 0, 0]);
    assert_eq!(counts(&table(&run("diff", &target.url(), &source.url(), &[]))), [0, 0, 1]);
    target.execute("INSERT INTO e VALUES (1, '')");
    assert_eq!(
        counts(&table(&run("diff", &source.url(), &target.url(), &[]))),
        [0, 1, 0],
        "NULL is not the empty text"
    );
}

/// Pairs that tools of this kind have held equal: each must differ.
#[test]
fn values_that_peers_confuse_differ() {
    let pairs = [
        ("TEXT", "'x|y', 'z'", "'x', 'y|z'"),
        ("TEXT", "'x#y', 'z'", "'x', 'y#z'"),
        ("TEXT", "NULL, 'a'", "'NULL', 'a'"),
        ("TEXT", "NULL, 'a'", "'<null>', 'a'"),
        ("TEXT", "NULL, 'a'", "'', 'a'"),
        ("TEXT", "'', 'ab'", "'ab', ''"),
        ("REAL", "1e-30, 1", "2e-30, 1"),
        ("TEXT", "'abc', 'x'", "'ABC', 'x'"),
        ("TEXT", "'d ', 'x'", "'d', 'x'"),
        ("BLOB", "x'00', x''", "x'', x'00'"),
        ("", "1, 1", "'1', 1"),
    ];
    for (ty, left, right) in pairs {
        let (source, target) = (SqliteDb::create(), SqliteDb::create());
        for (db, row) in [(&source, left), (&target, right)] {
            db.execute(&format!("CREATE TABLE p (id INTEGER PRIMARY KEY, a {ty}, b {ty})"));
            db.execute(&format!("INSERT INTO p VALUES (1, {row}), (2, {right})"));
        }
        let output = run("diff", &source.url(), &target.url(), &[]);
        assert_eq!(
            (output.status, counts(&table(&output))),
            (1, [0, 1, 0]),
            "{left} against {right}: {output:?}"
        );
    }
}

const MYSQL_ORDERS: &str = "CREATE TABLE orders (id BIGINT PRIMARY KEY, customer INT NOT NULL, status VARCHAR(16), amount DECIMAL(12,2), note TEXT)";

#[test]
fn sqlite_and_mariadb_agree_on_the_same_rows_both_ways() {
    let (file, server) = (SqliteDb::create(), MysqlDb::create());
    file.execute(ORDERS);
    file.execute(ROWS);
    server.execute(MYSQL_ORDERS);
    let filled = run("repair", &file.url(), &server.url(), &[]);
    assert_eq!(filled.status, 0, "{filled:?}");
    assert_eq!(server.scalar("SELECT count(*) FROM orders").as_deref(), Some("3000"));
    assert_eq!(
        server.scalar("SELECT sum(amount) FROM orders"),
        file.scalar("SELECT printf('%.2f', sum(amount)) FROM orders")
    );
    server.execute(DRIFT);
    let back = run("diff", &server.url(), &file.url(), &[]);
    assert_eq!((back.status, counts(&table(&back))), (1, [1, 2, 2]), "{back:?}");
    let repaired = run("repair", &server.url(), &file.url(), &["--allow", "insert,update,delete"]);
    assert_eq!(repaired.status, 0, "{repaired:?}");
    assert_eq!(file.scalar("SELECT count(*) FROM orders").as_deref(), Some("2999"));
}

#[test]
fn mariadb_values_of_every_kind_travel_unchanged() {
    let (source, target) = (MysqlDb::create(), MysqlDb::create());
    let table_sql = "CREATE TABLE v (a INT, b VARCHAR(20) COLLATE utf8mb4_bin, tiny TINYINT(1), un BIGINT UNSIGNED, de DECIMAL(30,10), fl FLOAT, dou DOUBLE,
        bi BIT(10), ye YEAR, da DATE, ti TIME(6), dt DATETIME(6), ts TIMESTAMP(3) NULL, ch CHAR(5), vb VARBINARY(10), bl BLOB, en ENUM('x','y'),
        se SET('p','q'), js JSON, la VARCHAR(10) CHARACTER SET latin1, gen INT AS (a + 1) STORED, PRIMARY KEY (a, b))";
    for db in [&source, &target] {
        db.execute(table_sql);
    }
    source.execute(
        "SET sql_mode = 'ALLOW_INVALID_DATES'; SET time_zone = '+00:00';
         INSERT INTO v (a, b, tiny, un, de, fl, dou, bi, ye, da, ti, dt, ts, ch, vb, bl, en, se, js, la) VALUES
         (1, 'k', 1, 18446744073709551615, -12345678901234567890.0123456789, 0.1, 1e-300, b'1000000001', 2024, '0000-00-00', '-838:59:59', '2024-02-29 12:34:56.789012', '2024-01-01 00:00:00.123', 'ab', x'00ff', x'00', 'y', 'p,q', '{\"b\": [1, 2.50], \"a\": null}', 'é'),
         (1, 'K', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
         (-5, '', 0, 0, 0, -0.0, 0, 0, 0, '2024-02-31', '00:00:00', '0000-00-00 00:00:00', NULL, '', '', '', 'x', '', '[]', '')",
    );
    let repaired = run("repair", &source.url(), &target.url(), &[]);
    assert_eq!(repaired.status, 0, "{repaired:?}");
    assert_eq!(table(&repaired)["inserted"], 3);
    let dump = "SELECT GROUP_CONCAT(CONCAT_WS('~', a, b, IFNULL(un, 'N'), IFNULL(de, 'N'), IFNULL(fl, 'N'), IFNULL(dou, 'N'), IFNULL(bi + 0, 'N'), IFNULL(ye, 'N'),
        IFNULL(da, 'N'), IFNULL(ti, 'N'), IFNULL(dt, 'N'), IFNULL(ts, 'N'), IFNULL(HEX(vb), 'N'), IFNULL(en, 'N'), IFNULL(se, 'N'), IFNULL(HEX(la), 'N'), gen) ORDER BY a, b SEPARATOR '|') FROM v";
    assert_eq!(source.scalar(dump), target.scalar(dump));
    assert_eq!(run("diff", &source.url(), &target.url(), &[]).status, 0);
    // A zero date is not NULL.
    target.execute("SET sql_mode = 'ALLOW_INVALID_DATES'; UPDATE v SET da = NULL WHERE a = 1 AND b = 'k'; UPDATE v SET da = '0000-00-00' WHERE a = 1 AND b = 'K'");
    let differs = run("diff", &source.url(), &target.url(), &[]);
    assert_eq!((differs.status, counts(&table(&differs))), (1, [0, 2, 0]), "{differs:?}");
}

const PG_ORDERS: &str = "CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL, status varchar(16), amount numeric(12,2), note text)";

fn postgres_pair(setup: &str) -> (PostgresDb, PostgresDb) {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute(setup);
    }
    (source, target)
}

#[test]
fn postgres_is_diffed_repaired_and_proved() {
    let (source, target) = postgres_pair(&format!(
        "{PG_ORDERS}; INSERT INTO orders SELECT i, i % 97, 'open', (i * 131 % 100000) / 100.0, 'note ' || i FROM generate_series(1, 60000) i WHERE i <> 9000"
    ));
    target.execute(DRIFT);
    target.execute("DELETE FROM orders WHERE id BETWEEN 20000 AND 29999");
    let output = run("diff", &source.url(), &target.url(), &["-t", "public.orders"]);
    assert_eq!((output.status, counts(&table(&output))), (1, [10_002, 2, 1]), "{}", output.stderr);
    assert_eq!(table(&output)["proved"], true);
    let output = run("repair", &source.url(), &target.url(), &["--allow", "insert,update,delete"]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert_eq!(table(&output)["repaired_root"], table(&output)["source_root"]);
    let sum = "SELECT md5(string_agg(o::text, '|' ORDER BY id)) FROM orders o";
    assert_eq!(source.scalar(sum), target.scalar(sum));
    assert_eq!(run("diff", &source.url(), &target.url(), &[]).status, 0);
}

#[test]
fn the_same_rows_have_one_root_on_every_engine() {
    let (postgres, mariadb, sqlite) = (PostgresDb::create(), MysqlDb::create(), SqliteDb::create());
    sqlite.execute(ORDERS);
    sqlite.execute(ROWS);
    postgres.execute(PG_ORDERS);
    mariadb.execute(MYSQL_ORDERS);
    let all = [sqlite.url(), postgres.url(), mariadb.url()];
    for (source, target) in [(0, 1), (1, 2), (2, 0)] {
        let output = run("repair", &all[source], &all[target], &[]);
        assert_eq!(output.status, 0, "{source} to {target}: {}{}", output.stdout, output.stderr);
    }
    for (source, target) in [(0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0)] {
        let output = run("diff", &all[source], &all[target], &[]);
        assert_eq!(output.status, 0, "{source} against {target}: {}", output.stdout);
        assert_eq!(table(&output)["source_root"], table(&output)["target_root"]);
    }
    postgres.execute("UPDATE orders SET note = note || ' ' WHERE id = 1; UPDATE orders SET amount = amount + 0.01 WHERE id = 2; DELETE FROM orders WHERE id = 3");
    for other in [0, 2] {
        let output = run("diff", &all[1], &all[other], &[]);
        assert_eq!((output.status, counts(&table(&output))), (1, [0, 2, 1]), "{other}: {}", output.stdout);
    }
}

#[test]
fn types_that_mean_the_same_across_postgres_and_mariadb_are_equal() {
    let (postgres, mariadb) = (PostgresDb::create(), MysqlDb::create());
    postgres.execute(
        "CREATE TABLE m (id uuid PRIMARY KEY, flag boolean, small int, de numeric(20,4), fl real, ch char(6), vc varchar(20), js jsonb, ts timestamp(6),
            tz timestamptz(3), da date, ti time(6), by bytea, bi bit(9), en text)",
    );
    mariadb.execute(
        "CREATE TABLE m (id CHAR(36) PRIMARY KEY, flag TINYINT(1), small BIGINT, de DECIMAL(18,2), fl DOUBLE, ch VARCHAR(6), vc CHAR(20), js JSON, ts DATETIME(3),
            tz TIMESTAMP(6) NULL, da DATE, ti TIME(3), `by` BLOB, bi BIT(9), en ENUM('a', 'b'))",
    );
    postgres.execute(
        "INSERT INTO m VALUES ('00112233-4455-6677-8899-aabbccddeeff', true, -7, 12.3000, 0.1, 'ab', 'x', '{\"b\": 1.0, \"a\": [2]}', '2024-02-29 12:00:00.123',
            '2024-01-01 00:00:00.5+02', '1999-12-31', '23:59:59.5', '\\x00ff', B'100000001', 'b'),
         ('ffffffff-ffff-ffff-ffff-ffffffffffff', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    );
    mariadb.execute(
        "SET time_zone = '+00:00'; INSERT INTO m VALUES ('00112233-4455-6677-8899-AABBCCDDEEFF', 1, -7, 12.30, CAST(0.1 AS FLOAT), 'ab', 'x', '{\"a\": [2], \"b\": 1}', '2024-02-29 12:00:00.123',
            '2023-12-31 22:00:00.5', '1999-12-31', '23:59:59.5', x'00ff', b'100000001', 'b'),
         ('ffffffff-ffff-ffff-ffff-ffffffffffff', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    );
    let output = run("diff", &postgres.url(), &mariadb.url(), &["--show-values"]);
    assert_eq!(output.status, 0, "{}{}", output.stdout, output.stderr);
    let output = run("diff", &mariadb.url(), &postgres.url(), &["--show-values"]);
    assert_eq!(output.status, 0, "{}{}", output.stdout, output.stderr);
    // What is not there is found by its meaning and written in the target's own form.
    mariadb.execute("DELETE FROM m WHERE flag = 1");
    assert_eq!(run("repair", &postgres.url(), &mariadb.url(), &[]).status, 0);
    postgres.execute("DELETE FROM m WHERE flag");
    let back = run("repair", &mariadb.url(), &postgres.url(), &[]);
    assert_eq!((back.status, &table(&back)["inserted"]), (0, &Value::from(1)), "{}", back.stdout);
}

#[test]
fn a_row_whose_key_is_spelled_otherwise_is_not_taken_for_gone() {
    // The key in the text column has capitals and no hyphens, so that no index leads to it.
    const SPELLED: &str = "INSERT INTO k VALUES ('00112233445566778899AABBCCDDEEFF', 5)";
    let (postgres, mariadb) = (PostgresDb::create(), MysqlDb::create());
    postgres.execute("CREATE TABLE k (id uuid PRIMARY KEY, v int)");
    mariadb.execute("CREATE TABLE k (id VARCHAR(40) COLLATE utf8mb4_bin PRIMARY KEY, v INT)");
    mariadb.execute(SPELLED);
    for (source, target, expected) in
        [(mariadb.url(), postgres.url(), [1, 0, 0]), (postgres.url(), mariadb.url(), [0, 0, 1])]
    {
        let output = run("diff", &source, &target, &[]);
        assert_eq!((output.status, counts(&table(&output))), (1, expected), "{}", output.stdout);
    }
    // The source lacks what the key means, however it is spelled: the row goes.
    let output = run("repair", &postgres.url(), &mariadb.url(), &["--allow", "insert,update,delete"]);
    assert_eq!(output.status, 0, "{}", output.stdout);
    assert_eq!(mariadb.scalar("SELECT count(*) FROM k").as_deref(), Some("0"));
    // It is inserted once, and updated in place.
    mariadb.execute(SPELLED);
    let output = run("repair", &mariadb.url(), &postgres.url(), &[]);
    assert_eq!((output.status, &table(&output)["inserted"]), (0, &Value::from(1)), "{}", output.stdout);
    postgres.execute("UPDATE k SET v = 6");
    let output = run("repair", &postgres.url(), &mariadb.url(), &[]);
    assert_eq!((output.status, &table(&output)["updated"]), (0, &Value::from(1)), "{}", output.stdout);
    let row = mariadb.scalar("SELECT concat(id, ' ', v) FROM k");
    assert_eq!(row.as_deref(), Some("00112233445566778899AABBCCDDEEFF 6"));
}

#[test]
fn runs_that_do_not_fit_in_memory_are_sorted_on_disk() {
    let (source, target) = postgres_pair(
        "CREATE TABLE big (id uuid PRIMARY KEY, v int); INSERT INTO big SELECT md5(i::text)::uuid, i FROM generate_series(1, 300000) i",
    );
    target.execute("UPDATE big SET v = -1 WHERE v IN (1, 150000); DELETE FROM big WHERE v = 299999");
    let output = run("diff", &source.url(), &target.url(), &["--memory", "1MiB"]);
    assert_eq!((output.status, counts(&table(&output))), (1, [1, 2, 0]), "{}", output.stdout);
    let nowhere = run("diff", &source.url(), &target.url(), &["--memory", "1MiB", "--scratch", "/proc/self"]);
    assert_eq!(nowhere.status, 2, "{}", nowhere.stdout);
    assert!(nowhere.stdout.contains("--scratch"), "{}", nowhere.stdout);
}
