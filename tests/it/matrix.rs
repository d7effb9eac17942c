//! Every type, in every pair of engines that a plan allows, in both directions, as a key and as a value: an equal row, a
//! missing one, an extra one and a changed one; diff, repair with deletes, diff again. The databases themselves are the
//! judges: each row is asked for by its own literal.

use std::fmt::Write as _;
use std::sync::Arc;

use tokio::sync::mpsc;
use trueup::agent::{AgentHandle, AgentLimits, Allow, LocalAgent, Serves, TaskOptions, in_process};
use trueup::coordinator::{PairRequest, RunRequest, run};
use trueup::engine;
use trueup::model::{TableName, Wishes};
use trueup::report::{TableReport, Verdict};

use super::support::servers::{MysqlDb, PostgresDb, SqliteDb};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    Postgres,
    Mysql,
    Sqlite,
}

use On::{Mysql as M, Postgres as P, Sqlite as S};

/// A column type, with the literals of four values. Types of one family spell the same four values.
struct Spelling {
    on: On,
    ddl: &'static str,
    values: [&'static str; 4],
    /// What the database finds each value by, where it may have come to be spelled otherwise.
    also: [&'static str; 4],
}

const fn of(on: On, ddl: &'static str, values: [&'static str; 4]) -> Spelling {
    Spelling { on, ddl, values, also: values }
}

struct Family {
    name: &'static str,
    spellings: Vec<Spelling>,
    /// Not as a primary key: the engine has no index for it.
    key: bool,
}

fn families() -> Vec<Family> {
    let family = |name, spellings| Family { name, spellings, key: true };
    let value_only = |name, spellings| Family { name, spellings, key: false };
    let ints = ["1", "2", "30000", "7"];
    let big = ["9223372036854775807", "9223372036854775806", "9007199254740993", "9007199254740992"];
    let huge = ["18446744073709551615", "18446744073709551614", "9223372036854775808", "9223372036854775809"];
    let negative = ["-1", "0", "-32768", "-7"];
    let cents = ["1.50", "2.25", "-3.75", "0.00"];
    let words = ["'abc'", "'Abd'", "'äé'", "'zz 9'"];
    let plain = ["'ab'", "'cd'", "'e f'", "'gh'"];
    let hex = ["X'00ff0102'", "X'00ff0103'", "X'fffefdfc'", "X'20202020'"];
    let bytea = [r"'\x00ff0102'", r"'\x00ff0103'", r"'\xfffefdfc'", r"'\x20202020'"];
    let uuid = [
        "'0b4f1f3e-0000-4000-8000-00000000000a'",
        "'0b4f1f3e-0000-4000-8000-00000000000b'",
        "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
        "'00000000-0000-0000-0000-000000000000'",
    ];
    let uuid_capitals = [
        "'0B4F1F3E-0000-4000-8000-00000000000A'",
        "'0B4F1F3E-0000-4000-8000-00000000000B'",
        "'FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF'",
        "'00000000-0000-0000-0000-000000000000'",
    ];
    let uuid_bytes = [
        "X'0b4f1f3e00004000800000000000000a'",
        "X'0b4f1f3e00004000800000000000000b'",
        "X'ffffffffffffffffffffffffffffffff'",
        "X'00000000000000000000000000000000'",
    ];
    let dates = ["'2024-01-31'", "'1999-12-31'", "'2000-02-29'", "'1970-01-01'"];
    let moments = [
        "'2024-01-31 10:00:00.000000'",
        "'1999-12-31 23:59:59.999999'",
        "'2000-02-29 00:00:00.500000'",
        "'1970-01-02 03:04:05.000001'",
    ];
    let moments_t = [
        "'2024-01-31T10:00'",
        "'1999-12-31T23:59:59.999999'",
        "'2000-02-29T00:00:00.5'",
        "'1970-01-02T03:04:05.000001'",
    ];
    // As SQLite's values are put down by whoever repairs.
    let moments_bare = [
        "'2024-01-31 10:00:00'",
        "'1999-12-31 23:59:59.999999'",
        "'2000-02-29 00:00:00.5'",
        "'1970-01-02 03:04:05.000001'",
    ];
    let instants = [
        "'2024-01-31 10:00:00+00'",
        "'1999-12-31 23:59:59.999999+00'",
        "'2000-02-29 00:00:00.5+00'",
        "'1970-01-02 03:04:05.000001+00'",
    ];
    let times = ["'10:00:00'", "'23:59:59.999999'", "'00:00:00.5'", "'03:04:05.000001'"];
    let floats = ["0.5", "1.25", "-2.75", "1e10"];
    let labels = ["'a'", "'b'", "'c'", "'d'"];
    let bits = ["B'00000001'", "B'10000000'", "B'11111111'", "B'00000000'"];
    let json = [r#"'{"a": 1}'"#, r#"'[1, 2]'"#, r#"'"x"'"#, r#"'{"b": {"c": null}}'"#];
    let inet = ["'10.0.0.1'", "'10.0.0.2'", "'2001:db8::1'", "'192.168.0.0/16'"];
    let intervals = ["'1 day'", "'1 mon 2 days'", "'-00:00:01'", "'10 years'"];
    let arrays = ["'{1,2}'", "'{}'", "'{NULL,3}'", "'{4}'"];
    let far = [
        "'294276-12-31 23:59:59.999999'",
        "'294276-12-30 00:00:00'",
        "'infinity'",
        "'4713-01-01 00:00:00 BC'",
    ];
    let far_dates = ["'5874897-12-31'", "'4713-01-01 BC'", "'infinity'", "'-infinity'"];
    let odd_numbers = ["'NaN'", "'1e20'", "'-0.00001'", "'123456789012345678901234567890.5'"];
    let booleans = ["true", "false", "NULL", "NULL"];
    vec![
        family(
            "integers",
            vec![
                of(P, "smallint", ints),
                of(P, "integer", ints),
                of(P, "bigint", ints),
                of(P, "numeric(20,0)", ints),
                of(M, "smallint", ints),
                of(M, "mediumint", ints),
                of(M, "int", ints),
                of(M, "bigint", ints),
                of(M, "bigint unsigned", ints),
                of(M, "decimal(20,0)", ints),
                of(S, "INTEGER", ints),
                of(S, "BIGINT", ints),
                of(S, "DECIMAL(20,0)", ints),
            ],
        ),
        family(
            "large integers",
            vec![
                of(P, "bigint", big),
                of(P, "numeric(30,0)", big),
                of(M, "bigint", big),
                of(M, "bigint unsigned", big),
                of(M, "decimal(30,0)", big),
                of(S, "BIGINT", big),
                of(S, "INTEGER", big),
            ],
        ),
        family(
            "integers beyond 2^63",
            vec![
                of(P, "numeric(30,0)", huge),
                of(P, "numeric", huge),
                of(M, "bigint unsigned", huge),
                of(M, "decimal(30,0)", huge),
            ],
        ),
        family(
            "negative integers",
            vec![
                of(P, "smallint", negative),
                of(P, "bigint", negative),
                of(M, "smallint", negative),
                of(M, "bigint", negative),
                of(S, "INTEGER", negative),
            ],
        ),
        family(
            "decimals",
            vec![
                of(P, "numeric(12,2)", cents),
                of(P, "numeric", cents),
                of(M, "decimal(12,2)", cents),
                of(S, "DECIMAL(12,2)", cents),
            ],
        ),
        family("odd decimals", vec![of(P, "numeric", odd_numbers)]),
        family(
            "text",
            vec![
                of(P, "text", words),
                of(P, "varchar(40)", words),
                of(M, "varchar(40)", words),
                of(M, "varchar(40) COLLATE utf8mb4_bin", words),
                of(M, "varchar(40) CHARACTER SET latin1", words),
                of(M, "varchar(40) CHARACTER SET ucs2", words),
                of(S, "TEXT", words),
                of(S, "VARCHAR(40)", words),
                of(S, "TEXT COLLATE NOCASE", words),
            ],
        ),
        family(
            "padded text",
            vec![
                of(P, "char(10)", plain),
                of(P, "text", plain),
                of(M, "char(10)", plain),
                of(M, "varchar(10)", plain),
                of(S, "CHAR(10)", plain),
                of(S, "TEXT", plain),
            ],
        ),
        family(
            "bytes",
            vec![
                of(P, "bytea", bytea),
                of(M, "varbinary(20)", hex),
                of(M, "binary(4)", hex),
                of(S, "BLOB", hex),
            ],
        ),
        family(
            "uuids",
            vec![
                of(P, "uuid", uuid),
                Spelling { also: uuid, ..of(P, "text", uuid_capitals) },
                Spelling { also: uuid, ..of(P, "varchar(40)", uuid_capitals) },
                Spelling { also: uuid, ..of(M, "char(36)", uuid_capitals) },
                of(M, "binary(16)", uuid_bytes),
                Spelling { also: uuid, ..of(S, "TEXT", uuid_capitals) },
                of(S, "BLOB", uuid_bytes),
            ],
        ),
        family("dates", vec![of(P, "date", dates), of(M, "date", dates), of(S, "DATE", dates)]),
        family(
            "timestamps",
            vec![
                of(P, "timestamp", moments),
                of(M, "datetime(6)", moments),
                Spelling { also: moments_bare, ..of(S, "DATETIME", moments) },
                Spelling { also: moments_bare, ..of(S, "DATETIME", moments_t) },
            ],
        ),
        family("instants", vec![of(P, "timestamptz", instants), of(M, "timestamp(6)", moments)]),
        family("times", vec![of(P, "time", times), of(M, "time(6)", times), of(S, "TIME", times)]),
        family(
            "floats",
            vec![
                of(P, "double precision", floats),
                of(M, "double", floats),
                of(S, "REAL", floats),
                of(P, "real", floats),
                of(M, "float", floats),
            ],
        ),
        family(
            "labels",
            vec![
                of(P, "text", labels),
                of(P, "letter", labels),
                of(M, "enum('a','b','c','d')", labels),
                of(M, "varchar(5)", labels),
                of(S, "TEXT", labels),
                of(M, "set('a','b','c','d')", labels),
            ],
        ),
        family("bits", vec![of(P, "bit(8)", bits), of(M, "bit(8)", bits)]),
        value_only(
            "booleans",
            vec![of(P, "boolean", booleans), of(M, "boolean", booleans), of(S, "BOOLEAN", booleans)],
        ),
        value_only("json", vec![of(P, "jsonb", json), of(P, "json", json), of(M, "json", json)]),
        family("jsonb keys", vec![of(P, "jsonb", json)]),
        family(
            "addresses",
            vec![
                of(P, "inet", inet),
                of(P, "cidr", ["'10.0.0.1/32'", "'10.0.0.2/32'", "'2001:db8::1/128'", "'192.168.0.0/16'"]),
            ],
        ),
        family("intervals", vec![of(P, "interval", intervals)]),
        family("arrays", vec![of(P, "integer[]", arrays)]),
        family("far timestamps", vec![of(P, "timestamp", far), of(P, "timestamptz", far)]),
        family("far dates", vec![of(P, "date", far_dates)]),
    ]
}

struct Databases {
    postgres: PostgresDb,
    mysql: MysqlDb,
    sqlite: SqliteDb,
}

impl Databases {
    fn create() -> Self {
        let all =
            Self { postgres: PostgresDb::create(), mysql: MysqlDb::create(), sqlite: SqliteDb::create() };
        all.postgres.execute("CREATE TYPE letter AS ENUM ('a', 'b', 'c', 'd')");
        all
    }

    fn execute(&self, on: On, sql: &str) {
        match on {
            P => self.postgres.execute(sql),
            M => self.mysql.execute(sql),
            S => self.sqlite.execute(sql),
        }
    }

    fn scalar(&self, on: On, sql: &str) -> Option<String> {
        match on {
            P => self.postgres.scalar(sql),
            M => self.mysql.scalar(sql),
            S => self.sqlite.scalar(sql),
        }
    }

    async fn agent(&self, on: On) -> AgentHandle {
        let url = match on {
            P => self.postgres.url(),
            M => self.mysql.url(),
            S => self.sqlite.url(),
        };
        let engine = engine::open(&url).await.unwrap();
        in_process(Arc::new(LocalAgent::new(engine, AgentLimits::default(), Serves::everything())))
    }
}

/// One pair of types, as the key of a table or as its value.
struct Case {
    table: String,
    what: String,
    target: Spelling,
    key: bool,
}

impl Case {
    /// Rows by the number of their value: 0 is equal, 1 changed, 2 missing, 3 extra.
    fn create(&self, on: On, spelling: &Spelling, rows: &[(usize, i32, usize)], sql: &mut String) {
        let Spelling { ddl, values, .. } = spelling;
        let (name, table) = (&self.table, &self.table);
        let quoted = if on == M { format!("`{name}`") } else { format!("\"{table}\"") };
        if self.key {
            let _ = write!(
                sql,
                "CREATE TABLE {quoted} (k {ddl} NOT NULL, v INTEGER, n VARCHAR(20), PRIMARY KEY (k));"
            );
        } else {
            let _ = write!(
                sql,
                "CREATE TABLE {quoted} (k INTEGER NOT NULL, v {ddl}, n VARCHAR(20), PRIMARY KEY (k));"
            );
        }
        let rows: Vec<String> = rows
            .iter()
            .map(|(number, v, of)| match self.key {
                true => {
                    format!("({}, {v}, {})", values[*number], if number % 2 == 0 { "NULL" } else { "'x'" })
                }
                false => format!("({number}, {}, 'x')", values[*of]),
            })
            .collect();
        let _ = writeln!(sql, "INSERT INTO {quoted} VALUES {};", rows.join(", "));
    }

    /// What the target must hold in the end, as the database itself sees it.
    fn judge(&self, databases: &Databases) -> Option<String> {
        let on = self.target.on;
        let quoted = if on == M { format!("`{}`", self.table) } else { format!("\"{}\"", self.table) };
        let count = databases.scalar(on, &format!("SELECT count(*) FROM {quoted}"));
        if count.as_deref() != Some("3") {
            return Some(format!("{count:?} rows"));
        }
        let cast = |literal: &str| match on {
            P => format!("CAST({literal} AS {})", self.target.ddl),
            M | S => literal.to_owned(),
        };
        for number in 0..3 {
            let (one, other) = (cast(self.target.values[number]), cast(self.target.also[number]));
            // JSON has no equality of its own in one engine, and NULL in none.
            let equal = |column: &str| match (self.target.ddl, self.target.values[number]) {
                (_, "NULL") => format!("{column} IS NULL"),
                ("json", literal) if on == P => format!("{column}::jsonb = {literal}::jsonb"),
                ("json", literal) => format!("JSON_EQUALS({column}, {literal})"),
                ("float", _) => format!("{column} = CAST({one} AS FLOAT)"),
                _ => format!("({column} = {one} OR {column} = {other})"),
            };
            let found = match self.key {
                true => databases.scalar(on, &format!("SELECT max(v) FROM {quoted} WHERE {}", equal("k"))),
                false => databases.scalar(
                    on,
                    &format!(
                        "SELECT count(*) + {number} FROM {quoted} WHERE k = {number} AND {}",
                        equal("v")
                    ),
                ),
            };
            if found != Some((number + 1).to_string()) {
                return Some(format!("value {number}: {found:?}"));
            }
        }
        None
    }
}

/// Of so many pairs one is tried; all of them with TRUEUP_MATRIX=all, as `scripts/test --long` says.
fn share() -> usize {
    if std::env::var("TRUEUP_MATRIX").is_ok_and(|wanted| wanted == "all") { 1 } else { 3 }
}

fn cases(source: On, target: On, databases: (&Databases, &Databases)) -> Vec<Case> {
    let (mut left_sql, mut right_sql) = (String::new(), String::new());
    let mut all = Vec::new();
    let (mut number, share) = (0, share());
    for family in families() {
        let spellings = || families().into_iter().find(|f| f.name == family.name).unwrap().spellings;
        for (i, left) in family.spellings.iter().enumerate().filter(|(_, s)| s.on == source) {
            for (j, right) in spellings().into_iter().enumerate().filter(|(_, s)| s.on == target) {
                // Of two SQLite files what is stored is compared, not what it means.
                if source == S && target == S && i != j {
                    continue;
                }
                for key in [true, false].into_iter().filter(|key| !key || family.key) {
                    number += 1;
                    if number % share != 0 {
                        continue;
                    }
                    let case = Case {
                        table: format!("t{}", all.len()),
                        what: format!(
                            "{} {i} {j} as {}: {:?} {} -> {:?} {}",
                            family.name,
                            if key { "key" } else { "value" },
                            source,
                            left.ddl,
                            target,
                            right.ddl
                        ),
                        target: Spelling { ..of(right.on, right.ddl, right.values) },
                        key,
                    };
                    let case = Case { target: Spelling { also: right.also, ..case.target }, ..case };
                    case.create(source, left, &[(0, 1, 0), (1, 2, 1), (2, 3, 2)], &mut left_sql);
                    let changed = if right.values[1] == "NULL" || right.values[3] == "NULL" { 0 } else { 3 };
                    case.create(target, &right, &[(0, 1, 0), (1, 99, changed), (3, 4, 3)], &mut right_sql);
                    all.push(case);
                }
            }
        }
    }
    databases.0.execute(source, &left_sql);
    databases.1.execute(target, &right_sql);
    all
}

async fn reconcile(
    source: &AgentHandle,
    target: &AgentHandle,
    cases: &[&Case],
    repair: bool,
) -> Vec<TableReport> {
    let name = |case: &&Case| TableName::new(None, &case.table);
    let tables = cases.iter().map(|case| (name(case), name(case))).collect();
    let options = TaskOptions {
        repair: repair.then_some(Allow { insert: true, update: true, delete: true }),
        recheck_delay_ms: 1,
        ..TaskOptions::default()
    };
    let request = RunRequest {
        pairs: PairRequest { tables, ..PairRequest::default() },
        wishes: Wishes::default(),
        options,
        details_kept: 10,
        tables_in_flight: 2,
        stop: tokio_util::sync::CancellationToken::new(),
    };
    let (events, mut told) = mpsc::channel(64);
    let (outcome, ()) = tokio::join!(
        async {
            let outcome = run(source, target, &request, &events).await.unwrap();
            drop(events);
            outcome
        },
        async { while told.recv().await.is_some() {} }
    );
    outcome.tables
}

/// How many pairs were tried and how many the plan refuses; what went wrong.
async fn try_pair(source: On, target: On) -> (usize, usize, Vec<String>) {
    let (here, there) = (Databases::create(), Databases::create());
    let all = cases(source, target, (&here, &there));
    let (from, to) = (here.agent(source).await, there.agent(target).await);
    let mut wrong = Vec::new();
    let mut refused = 0;
    let every: Vec<&Case> = all.iter().collect();
    let mut allowed = Vec::new();
    for (case, report) in every.iter().zip(reconcile(&from, &to, &every, false).await) {
        if let Some(error) = &report.error {
            if error.kind == "usage" {
                refused += 1;
            } else {
                wrong.push(format!("{}: diff: {}", case.what, error.message));
            }
            continue;
        }
        let outcome = &report.outcome;
        let found = [outcome.missing, outcome.changed, outcome.extra, outcome.in_flight, outcome.unsettled];
        if found != [1, 1, 1, 0, 0] || report.verdict != Verdict::Different {
            wrong.push(format!("{}: diff found {found:?}, {:?}", case.what, report.verdict));
        }
        allowed.push(*case);
    }
    for (case, report) in allowed.iter().zip(reconcile(&from, &to, &allowed, true).await) {
        if report.verdict != Verdict::Same || !report.outcome.proved {
            let why = report.error.as_ref().map(|error| &error.message);
            wrong.push(format!(
                "{}: repair: {:?} {why:?} {:?} {:?}",
                case.what, report.verdict, report.rows_set_aside, report.outcome.doubts
            ));
        }
    }
    for (case, report) in allowed.iter().zip(reconcile(&from, &to, &allowed, false).await) {
        if report.verdict != Verdict::Same {
            wrong.push(format!("{}: diff after the repair: {:?}", case.what, report.verdict));
        }
        if let Some(what) = case.judge(&there) {
            wrong.push(format!("{}: the database says: {what}", case.what));
        }
    }
    (allowed.len(), refused, wrong)
}

/// `at_least` so many pairs of types must be allowed by the plans: fewer means that the matrix has shrunk.
#[allow(clippy::print_stdout, reason = "the number goes to docs/reliability.md")]
async fn check(source: On, target: On, at_least: usize) {
    let (tried, refused, wrong) = try_pair(source, target).await;
    println!("{source:?} -> {target:?}: {tried} pairs of types tried, {refused} refused by the plan");
    assert!(wrong.is_empty(), "{} of {tried} wrong:\n{}", wrong.len(), wrong.join("\n"));
    // Which of a share are refused is chance.
    let at_least = if share() == 1 { at_least } else { (at_least / share()).saturating_sub(3) };
    assert!(tried >= at_least, "only {tried} pairs were tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_to_postgres() {
    check(P, P, 140).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_to_mysql() {
    check(P, M, 130).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_to_sqlite() {
    check(P, S, 80).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_to_postgres() {
    check(M, P, 140).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_to_mysql() {
    check(M, M, 150).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_to_sqlite() {
    check(M, S, 105).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_to_postgres() {
    check(S, P, 80).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_to_mysql() {
    check(S, M, 105).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_to_sqlite() {
    check(S, S, 40).await;
}
