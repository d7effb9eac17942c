//! SQLite's spellings against the two servers, from the command line: found, updated in place, inserted once, deleted.

use serde_json::Value;

use crate::support::process::{Output, trueup};
use crate::support::servers::{MysqlDb, PostgresDb, SqliteDb};

fn run(command: &str, source: &str, target: &str, more: &[&str]) -> Output {
    let mut args = vec![command, source, target, "--format", "json", "--quiet", "--recheck-delay", "10ms"];
    args.extend(more);
    trueup(&args)
}

fn counts(output: &Output) -> [u64; 3] {
    let table: &Value = &output.json()["tables"][0];
    ["missing", "changed", "extra"].map(|name| table[name].as_u64().unwrap())
}

enum Server {
    Postgres(PostgresDb),
    Mysql(MysqlDb),
}

impl Server {
    fn url(&self) -> String {
        match self {
            Self::Postgres(db) => db.url(),
            Self::Mysql(db) => db.url(),
        }
    }

    fn execute(&self, sql: &str) {
        match self {
            Self::Postgres(db) => db.execute(sql),
            // Its times have no zone of their own.
            Self::Mysql(db) => {
                db.execute(&format!("SET time_zone = '+00:00'; {}", sql.replace("+00:00'", "'")));
            }
        }
    }

    fn scalar(&self, sql: &str) -> Option<String> {
        match self {
            Self::Postgres(db) => db.scalar(sql),
            Self::Mysql(db) => db.scalar(sql),
        }
    }
}

/// The SQLite type, PostgreSQL's and MariaDB's, the key's four spellings in SQLite and in a server, and options.
type Case = (
    &'static str,
    Option<&'static str>,
    Option<&'static str>,
    [&'static str; 4],
    [&'static str; 4],
    &'static [&'static str],
);

const CASES: &[Case] = &[
    (
        "DATETIME",
        Some("timestamp"),
        Some("datetime(6)"),
        ["2024-01-01T10:00:00", "2024-01-02 10:00", "2024-01-03 10:00:00.500000", "2024-01-04"],
        ["2024-01-01 10:00:00", "2024-01-02 10:00:00", "2024-01-03 10:00:00.5", "2024-01-04 00:00:00"],
        &[],
    ),
    (
        "TIMESTAMPTZ",
        Some("timestamptz"),
        Some("timestamp(6) DEFAULT now(6)"),
        [
            "2024-01-01T10:00:00Z",
            "2024-01-02 10:00+00:00",
            "2024-01-03 10:00:00.250+00",
            "2024-01-04T10:00:00.000000",
        ],
        [
            "2024-01-01 10:00:00+00:00",
            "2024-01-02 10:00:00+00:00",
            "2024-01-03 10:00:00.25+00:00",
            "2024-01-04 10:00:00+00:00",
        ],
        &[],
    ),
    (
        "UUID",
        Some("uuid"),
        Some("uuid"),
        [
            "00112233-4455-6677-8899-AABBCCDDEEFF",
            "{00112233-4455-6677-8899-aabbccddee01}",
            "00112233445566778899aabbccddee02",
            "00112233-4455-6677-8899-aabbccddee03",
        ],
        [
            "00112233-4455-6677-8899-aabbccddeeff",
            "00112233-4455-6677-8899-aabbccddee01",
            "00112233-4455-6677-8899-aabbccddee02",
            "00112233-4455-6677-8899-aabbccddee03",
        ],
        &[],
    ),
    (
        "CHAR(6)",
        Some("char(6)"),
        Some("char(6)"),
        ["a", "b  ", "c     ", "d       "],
        ["a", "b", "c", "d"],
        &[],
    ),
    (
        "TIME",
        Some("time"),
        Some("time(6)"),
        ["10:00", "11:00:00", "12:00:00.500", "13:00:00.000000"],
        ["10:00:00", "11:00:00", "12:00:00.5", "13:00:00"],
        &[],
    ),
    (
        "DATE",
        Some("date"),
        Some("date"),
        ["2024-01-01", "2024-02-29", "0001-01-01", "9999-12-31"],
        ["2024-01-01", "2024-02-29", "0001-01-01", "9999-12-31"],
        &[],
    ),
    (
        "BIGINT",
        Some("bigint"),
        Some("bigint"),
        ["1", "007", "-9223372036854775808", "9223372036854775807"],
        ["1", "7", "-9223372036854775808", "9223372036854775807"],
        &[],
    ),
];

/// Four rows of SQLite and of a server: one equal, one changed, one only here, one only there.
fn both(server: &Server, ty: &str, case: &Case) -> SqliteDb {
    let (declared, _, _, spelled, plain, _) = case;
    let file = SqliteDb::create();
    file.execute(&format!(
        "CREATE TABLE t (k {declared} NOT NULL PRIMARY KEY, v INT, w TEXT); \
         INSERT INTO t VALUES ('{}', 1, 'w'), ('{}', 2, 'w'), ('{}', 3, 'w')",
        spelled[0], spelled[1], spelled[2]
    ));
    server.execute(&format!(
        "CREATE TABLE t (k {ty} NOT NULL PRIMARY KEY, v int, w varchar(9)); \
         INSERT INTO t VALUES ('{}', 1, 'w'), ('{}', 99, 'w'), ('{}', 4, 'w')",
        plain[0], plain[1], plain[3]
    ));
    file
}

fn repaired_both_ways(server: impl Fn() -> Server, ty: impl Fn(&Case) -> Option<&'static str>) {
    let all = ["--allow", "insert,update,delete"];
    for case in CASES {
        let Some(ty) = ty(case) else { continue };
        let (to, from) = (server(), server());
        let file = both(&to, ty, case);
        let options: Vec<&str> = case.5.iter().copied().chain(all).collect();
        let done = run("repair", &file.url(), &to.url(), &options);
        assert_eq!((done.status, counts(&done)), (0, [1, 1, 1]), "{} to the server: {done:#?}", case.0);
        assert_eq!(to.scalar("SELECT count(*) FROM t WHERE v < 4").as_deref(), Some("3"), "{}", case.0);
        assert_eq!(run("diff", &file.url(), &to.url(), case.5).status, 0, "{}", case.0);

        let file = both(&from, ty, case);
        let done = run("repair", &from.url(), &file.url(), &options);
        assert_eq!((done.status, counts(&done)), (0, [1, 1, 1]), "{} from the server: {done:#?}", case.0);
        assert_eq!(run("diff", &from.url(), &file.url(), case.5).status, 0, "{}", case.0);
        // The changed row is where it was, spelled as it was.
        let kept = "SELECT group_concat(quote(k)) FROM (SELECT k FROM t WHERE v IN (1, 99) ORDER BY v)";
        let numbers = case.0 == "BIGINT";
        let quoted: Vec<String> = case.3[..2]
            .iter()
            .map(|k| if numbers { k.trim_start_matches('0').to_owned() } else { format!("'{k}'") })
            .collect();
        assert_eq!(file.scalar(kept).unwrap(), quoted.join(","), "{}", case.0);
        assert_eq!(file.scalar("SELECT count(*) FROM t").as_deref(), Some("3"));
    }
}

#[test]
fn keys_in_any_spelling_against_postgres() {
    repaired_both_ways(|| Server::Postgres(PostgresDb::create()), |case| case.1);
}

#[test]
fn keys_in_any_spelling_against_mariadb() {
    repaired_both_ways(|| Server::Mysql(MysqlDb::create()), |case| case.2);
}

#[test]
fn days_that_no_calendar_has_are_the_same_in_a_file_and_in_mariadb() {
    let server = MysqlDb::create();
    server.execute(
        "CREATE TABLE z (id int PRIMARY KEY, d date, at datetime(6)); SET sql_mode = 'ALLOW_INVALID_DATES'; \
         INSERT INTO z VALUES (1, '0000-00-00', '0000-00-00 00:00:00'), (2, '2024-00-15', '2024-02-30 10:00:00.5'), (3, '2024-02-31', '2024-01-01 00:00:00')",
    );
    let file = SqliteDb::create();
    file.execute(
        "CREATE TABLE z (id INTEGER PRIMARY KEY, d DATE, at DATETIME); \
         INSERT INTO z VALUES (1, '0000-00-00', '0000-00-00'), (2, '2024-00-15', '2024-02-30T10:00:00.500'), (3, '2024-02-31', '2024-01-01')",
    );
    let same = run("diff", &server.url(), &file.url(), &[]);
    assert_eq!(same.status, 0, "{same:#?}");
    file.execute("UPDATE z SET d = '2024-00-16' WHERE id = 2; DELETE FROM z WHERE id = 1");
    let found = run("repair", &server.url(), &file.url(), &[]);
    assert_eq!((found.status, counts(&found)), (0, [1, 1, 0]), "{found:#?}");
    assert_eq!(
        file.scalar("SELECT group_concat(d) FROM (SELECT d FROM z ORDER BY id)").as_deref(),
        Some("0000-00-00,2024-00-15,2024-02-31")
    );
}

#[test]
fn urls_and_hints_say_what_to_do() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY DESC, v TEXT); INSERT INTO t VALUES (NULL, 'a')");
    }
    let refused = run("diff", &format!("{}?nonsense=2", source.url()), &target.url(), &[]);
    assert!(refused.status == 2 && refused.stderr.contains("unknown option nonsense"), "{refused:#?}");
    let read = |url: &str| run("diff", &format!("{url}?immutable=1"), &target.url(), &["--key", "v"]);
    let same = read(&source.url());
    assert!(
        same.status == 2 && same.stdout.contains("--key"),
        "NULL in a key is told with a hint: {same:#?}"
    );
    for db in [&source, &target] {
        db.execute(
            "DROP TABLE t; CREATE TABLE t (id INTEGER PRIMARY KEY, v STRING); INSERT INTO t VALUES (1, 'a')",
        );
    }
    assert_eq!(run("diff", &format!("{}?immutable=1", source.url()), &target.url(), &[]).status, 0);
    let written = run("repair", &source.url(), &format!("{}?immutable=1", target.url()), &[]);
    assert!(written.status == 2 && written.stdout.contains("immutable"), "{written:#?}");

    // A number to SQLite, a text to the server.
    let server = PostgresDb::create();
    server.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, '42')");
    target.execute("DELETE FROM t");
    let refused = run("repair", &server.url(), &target.url(), &[]);
    assert!(refused.status == 1 && refused.stdout.contains("--as-text v"), "{refused:#?}");
    let written = run("repair", &server.url(), &target.url(), &["--as-text", "v"]);
    assert_eq!(written.status, 0, "{written:#?}");
}
