//! Keys of every type: found, updated in place, deleted, inserted once; and what a lookup says of those that are not there.

use crate::support::permit::permitted;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use trueup::engine::{Engine, ErrorKind};
use trueup::model::{
    CanonicalRow, Change, ChangeOutcome, ComparisonType, Key, KeyedRow, RejectionKind, TableAccess, Wishes,
};

use super::{Db, index, scan};

/// What rows hold after an update.
const NEW: &str = "9";

/// A table's name that no statement was prepared for: MySQL keeps the types of parameters when a table of another type takes
/// the place of the one before.
fn fresh() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("a{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

async fn is_mariadb(db: &Db) -> bool {
    db.scalar("SELECT VERSION()").await.contains("MariaDB")
}

fn keys_of(rows: &[KeyedRow]) -> Vec<Key> {
    rows.iter().map(|row| row.key.clone()).collect()
}

/// The canonical row of `v = 9`, of a table with the one column v behind its key.
async fn updated(db: &Db) -> CanonicalRow {
    db.execute(&format!(
        "DROP TABLE IF EXISTS nine; CREATE TABLE nine (k INT PRIMARY KEY, v INT); INSERT INTO nine VALUES (1, {NEW})"
    ))
    .await;
    scan(&db.engine, &db.access("nine").await).await[0].row.clone()
}

/// Every key of this table, one after the other: found; changed, deleted and put back with nothing else touched.
/// `exact`: of a key that is not there, the lookup shows it.
async fn go_through(db: &Db, access: &Arc<TableAccess>, exact: bool, what: &str) {
    let table = &access.table.name;
    let engine = &db.engine;
    let rows = scan(engine, access).await;
    let keys = keys_of(&rows);
    assert!(rows.len() > 1, "{what}");
    let found = engine.lookup(access, &keys).await.unwrap();
    let unseen = rows.len() - found.rows.len();
    assert!(!exact || unseen == 0, "{what}: {unseen} of {} are not found", rows.len());
    assert_eq!(found.unproven.len(), unseen, "{what}: a row that is there is called absent");
    for row in &found.rows {
        assert_eq!(index(&rows).get(row.key.as_bytes()), Some(&row.row), "{what}");
    }
    // What the database stores as the key must stay.
    let names: Vec<&str> = access.key_columns().iter().map(|column| column.name.as_str()).collect();
    let stored = format!("SELECT HEX(CONCAT_WS('|', {})) FROM {table} ORDER BY 1", names.join(", "));
    let before = db.query(&stored).await;
    let nine = updated(db).await;
    for (at, row) in rows.iter().enumerate() {
        let to = |row: &KeyedRow, after: Option<CanonicalRow>| {
            [Change { key: row.key.clone(), before: Some(row.row.clone()), after }]
        };
        let update = to(row, Some(nine.clone()));
        assert_eq!(
            engine.apply(access, &permitted(&update)).await.unwrap(),
            [ChangeOutcome::Written],
            "{what}: update {at}"
        );
        let count = format!("SELECT COUNT(*) FROM {table} WHERE v = {NEW}");
        assert_eq!(db.scalar(&count).await, "1", "{what}: update {at}");
        assert_eq!(
            engine.apply(access, &permitted(&update)).await.unwrap(),
            [ChangeOutcome::Already],
            "{what}: again {at}"
        );
        let now = KeyedRow { key: row.key.clone(), row: nine.clone() };
        assert_eq!(index(&scan(engine, access).await).get(row.key.as_bytes()), Some(&nine), "{what}");
        // It is there, and not inserted a second time.
        let insert = [Change { key: row.key.clone(), before: None, after: Some(row.row.clone()) }];
        let twice = engine.apply(access, &permitted(&insert)).await.unwrap();
        assert_eq!(twice, [ChangeOutcome::Stale], "{what}: inserted twice {at}");
        // A statement for a person hits the same row.
        let statement = engine.statement(access, &to(&now, Some(row.row.clone()))[0]).await;
        match statement {
            Ok(sql) => {
                db.execute(&sql).await;
                assert_eq!(db.scalar(&count).await, "0", "{what}: {sql}");
            }
            Err(error) => {
                assert!(!exact, "{what}: {error}");
                assert_eq!(error.kind, ErrorKind::Row, "{what}: {error}");
                let back = engine.apply(access, &permitted(&to(&now, Some(row.row.clone())))).await.unwrap();
                assert_eq!(back, [ChangeOutcome::Written], "{what}: back {at}");
            }
        }
    }
    assert_eq!(db.query(&stored).await, before, "{what}: a key was written anew");
    let mut unshown = 0;
    for (at, row) in rows.iter().enumerate() {
        // Deleted, it is shown to be gone, or not shown to be there or gone.
        db.execute(&format!("CREATE TABLE kept AS SELECT * FROM {table}")).await;
        let delete = [Change { key: row.key.clone(), before: Some(row.row.clone()), after: None }];
        assert_eq!(
            engine.apply(access, &permitted(&delete)).await.unwrap(),
            [ChangeOutcome::Written],
            "{what}: delete {at}"
        );
        let left = scan(engine, access).await;
        assert_eq!(left.len(), rows.len() - 1, "{what}: delete {at}");
        assert!(!index(&left).contains_key(row.key.as_bytes()), "{what}: delete {at}");
        let found = engine.lookup(access, &keys).await.unwrap();
        if exact {
            assert_eq!(found.rows.len(), left.len(), "{what}: after delete {at}");
            assert_eq!(found.unproven, [], "{what}: after delete {at}");
        } else {
            unshown += usize::from(found.unproven.contains(&row.key));
        }
        // Of a statement that finds nothing, nothing is believed.
        let alone = engine.lookup(access, std::slice::from_ref(&row.key)).await.unwrap();
        assert_eq!((alone.rows.len(), alone.unproven.len()), (0, 1), "{what}: alone {at}");
        db.execute(&format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept; DROP TABLE kept"))
            .await;
    }
    assert!(exact || unshown > 0, "{what}: absence is held to be shown");
}

/// Type, values, whether lookups are exact, whether a table may be partitioned by it.
type Case<'a> = (&'a str, &'a [&'a str], bool, bool);

const CASES: &[Case<'_>] = &[
    ("TINYINT", &["-128", "0", "127"], true, true),
    ("MEDIUMINT UNSIGNED", &["0", "16777215"], true, true),
    ("BIGINT", &["-9223372036854775808", "9223372036854775807", "0"], true, true),
    (
        "BIGINT UNSIGNED",
        &["18446744073709551615", "9223372036854775808", "9223372036854775807", "0"],
        true,
        true,
    ),
    ("YEAR", &["0", "1901", "2000", "2155"], true, true),
    ("DECIMAL(5,2)", &["-999.99", "0", "0.01", "1.50"], true, true),
    (
        "DECIMAL(65,30)",
        &[
            "99999999999999999999999999999999999.999999999999999999999999999999",
            "99999999999999999999999999999999999.999999999999999999999999999998",
            "0.000000000000000000000000000001",
        ],
        true,
        true,
    ),
    ("FLOAT", &["0.1e0", "16777217e0", "-3.4028234e38", "1.17549435e-38", "0"], true, false),
    ("DOUBLE", &["0.1e0", "5e-324", "-1e300", "0.30000000000000004e0", "0.3e0", "0"], true, false),
    ("BIT(1)", &["b'0'", "b'1'"], true, true),
    ("BIT(9)", &["b'0'", "b'100000000'", "b'000000001'"], true, true),
    ("BIT(64)", &["18446744073709551615", "9223372036854775808", "0"], true, true),
    ("BINARY(4)", &["X'00000000'", "X'20202020'", "X'61000000'", "X'FF5C2700'"], true, true),
    ("VARBINARY(9)", &["X''", "X'00'", "X'0000'", "X'20'", "X'61'", "X'6100'", "X'41'"], true, true),
    ("CHAR(10) COLLATE utf8mb4_bin", &["''", "'a'", "'A'", "'日本🎉'", "' a'", "'a?'"], true, true),
    ("VARCHAR(10) COLLATE utf8mb4_general_ci", &["''", "'a'", "'é?'", "'日本🎉'", "'b '"], true, true),
    ("VARCHAR(10) COLLATE utf8mb4_bin", &["''", "'a'", "'A'", "'b '", "'\\t'", "'a\\0'"], true, true),
    ("VARCHAR(10) COLLATE utf8mb4_unicode_ci", &["'straße'", "'x'", "'İ'"], true, true),
    ("VARCHAR(10) CHARACTER SET utf8mb3", &["'é日'", "'x'"], true, true),
    ("VARCHAR(10) CHARACTER SET utf8mb3 COLLATE utf8mb3_bin", &["'why?'", "'x'"], false, false),
    ("CHAR(10) CHARACTER SET latin1", &["'é€'", "'x?'", "'b'"], true, true),
    ("VARCHAR(10) CHARACTER SET latin1 COLLATE latin1_bin", &["'é€'", "'É'", "'b '"], true, true),
    ("VARCHAR(10) CHARACTER SET ascii", &["'x'", "'y z'"], true, true),
    ("ENUM('ü','b') CHARACTER SET latin1", &["'ü'", "'b'"], true, true),
    ("SET('ü','b') CHARACTER SET ucs2", &["'ü'", "'ü,b'", "''"], true, true),
    ("VARCHAR(10) CHARACTER SET ucs2", &["'é日'", "'x'"], true, true),
    ("VARCHAR(10) CHARACTER SET utf16", &["'é🎉'", "'x'"], true, true),
    ("VARCHAR(10) CHARACTER SET utf32 COLLATE utf32_bin", &["'é🎉'", "'x'"], true, true),
    ("VARCHAR(10) CHARACTER SET cp932", &["'abc'", "'x y'"], true, true),
    ("VARCHAR(10) CHARACTER SET sjis COLLATE sjis_bin", &["'abc'", "'x y'"], true, true),
    ("VARCHAR(10) CHARACTER SET cp1251", &["'abc'", "'x y'"], true, true),
    // Two codes mean one letter; that of the second cannot be asked for.
    (
        "VARCHAR(10) CHARACTER SET cp932",
        &["_binary X'879A'", "_binary X'EEEF'", "_binary X'93FA'"],
        false,
        false,
    ),
    (
        "VARCHAR(10) CHARACTER SET cp932 COLLATE cp932_bin",
        &["_binary X'ED40'", "_binary X'61'"],
        false,
        false,
    ),
    ("VARCHAR(10) CHARACTER SET sjis", &["_binary X'815F'", "_binary X'41'"], false, false),
    ("VARCHAR(10) CHARACTER SET latin2", &["_binary X'E1'", "_binary X'41'"], false, false),
    // None of the labels, beside one of them.
    (
        "ENUM('de','it''s','b\\\\s','ü')",
        &["'de'", "'it''s'", "'b\\\\s'", "'ü'", "'none of these'"],
        true,
        true,
    ),
    ("ENUM('de','') COLLATE utf8mb4_bin", &["'de'", "'none of these'"], false, false),
    ("ENUM('de','')", &["'de'", "''"], false, false),
    ("SET('x','a','m')", &["'x,a'", "'a,m'", "''", "'m'", "'x,a,m'"], true, true),
    ("DATE", &["'2019-01-01'", "'0000-00-00'", "'2024-00-15'", "'2024-02-31'", "'9999-12-31'"], true, true),
    ("DATETIME", &["'2019-01-01 23:59:59'", "'0000-00-00'", "'2024-02-31 01:02:03'"], true, true),
    ("DATETIME(3)", &["'2019-01-01 23:59:59.999'", "'2023-02-29 00:00:00.5'", "'0001-01-01'"], true, true),
    (
        "DATETIME(6)",
        &["'9999-12-31 23:59:59.999999'", "'0000-00-00'", "'2024-00-00 00:00:00.000001'"],
        true,
        true,
    ),
    ("TIMESTAMP(6)", &["'1970-01-01 00:00:01'", "'0000-00-00'", "'2038-01-19 03:14:07.999999'"], true, true),
    // The hour that comes twice in Europe, in UTC.
    ("TIMESTAMP", &["'2024-10-27 00:30:00'", "'2024-10-27 01:30:00'", "'2024-03-31 01:30:00'"], true, true),
    ("TIME", &["'-838:59:59'", "'838:59:59'", "'24:00:00'", "'00:00:00'", "'-00:00:01'"], true, true),
    ("TIME(6)", &["'-838:59:58.999999'", "'30:00:01.5'", "'-00:00:00.000001'", "'00:00:00'"], true, true),
];

#[tokio::test]
async fn keys_of_every_type_are_found_or_not_called_absent() {
    let db = Db::create().await;
    let mariadb = is_mariadb(&db).await;
    let mut cases: Vec<Case<'_>> = CASES.to_vec();
    if mariadb {
        cases.extend([
            (
                "UUID",
                &["'00112233-4455-6677-8899-aabbccddeeff'", "'FFFFFFFF-4455-6677-8899-AABBCCDDEEFF'"][..],
                true,
                true,
            ),
            ("INET6", &["'::1'", "'fe80::ff'", "'::ffff:1.2.3.4'"][..], true, true),
            ("INET4", &["'1.2.3.4'", "'0.0.0.0'"][..], true, true),
            ("VARCHAR(10) COLLATE utf8mb4_nopad_bin", &["''", "'a'", "'a '", "'a  '"][..], true, true),
        ]);
    } else {
        cases.extend([
            ("VARCHAR(10) COLLATE utf8mb4_0900_ai_ci", &["''", "'a'", "'a '", "'b'"][..], true, true),
            ("VARCHAR(10) COLLATE utf8mb4_0900_bin", &["''", "'a'", "'a '", "'A'"][..], true, true),
        ]);
    }
    let mut tried = 0;
    for (ty, values, exact, parted) in cases {
        let partition = if parted { "PARTITION BY KEY (k) PARTITIONS 5" } else { "" };
        for (key, partition) in [("k", ""), ("id, k", partition)] {
            let what = format!("{ty} ({key}) {partition}");
            let a = fresh();
            db.execute(&format!(
                "CREATE TABLE {a} (id INT NOT NULL, k {ty} NOT NULL, v INT, PRIMARY KEY ({key})) {partition}"
            ))
            .await;
            let rows: Vec<String> =
                values.iter().enumerate().map(|(at, value)| format!("({at}, {value}, {at})")).collect();
            db.execute(&format!("INSERT IGNORE INTO {a} VALUES {}", rows.join(", "))).await;
            let wishes = if key == "k" {
                Wishes { exclude: vec!["id".into()], ..Wishes::default() }
            } else {
                Wishes::default()
            };
            let access = db.access_as(&a, &wishes).await;
            go_through(&db, &access, exact, &what).await;
            tried += 1;
        }
    }
    assert!(tried > 90, "{tried}");
    db.drop_all().await;
}

#[tokio::test]
async fn keys_in_partitions_by_date_are_found_by_a_statement_that_runs_first() {
    let db = Db::create().await;
    for (ty, by) in [
        ("DATE", "RANGE (TO_DAYS(k))"),
        ("DATE", "RANGE COLUMNS (k)"),
        ("DATETIME", "RANGE (TO_DAYS(k))"),
        ("DATETIME(6)", "RANGE COLUMNS (k)"),
        ("TIMESTAMP", "RANGE (UNIX_TIMESTAMP(k))"),
    ] {
        let border = |text: &str| match by {
            "RANGE (TO_DAYS(k))" => format!("(TO_DAYS('{text}'))"),
            "RANGE (UNIX_TIMESTAMP(k))" => format!("(UNIX_TIMESTAMP('{text} 00:00:00'))"),
            _ => format!("('{text}')"),
        };
        for key in ["id, k", "k, id"] {
            let a = fresh();
            db.execute(&format!(
                "CREATE TABLE {a} (id INT NOT NULL, k {ty} NOT NULL, v INT, PRIMARY KEY ({key})) \
                 PARTITION BY {by} (PARTITION p0 VALUES LESS THAN {}, PARTITION p1 VALUES LESS THAN {}, PARTITION p2 VALUES LESS THAN {}); \
                 INSERT INTO {a} VALUES (1, '2019-01-01', 1), (2, '2021-02-03', 2), (3, '2029-06-07', 3)",
                border("2020-01-01"),
                border("2022-01-01"),
                border("2030-01-01"),
            ))
            .await;
            let access = db.access(&a).await;
            go_through(&db, &access, true, &format!("{ty} {by} ({key})")).await;
        }
    }
    db.drop_all().await;
}

const UUIDS: [&str; 6] = [
    "00112233-4455-6677-8899-aabbccddeeff",
    "10112233-4455-6677-8899-AABBCCDDEEFF",
    "201122334455667788990abbccddeeff",
    "30112233-4455-6677-8899-aAbBcCdDeEfF",
    "{40112233-4455-6677-8899-AABBCCDDEEFF}",
    "501122334455667788990000CCDDEEFF",
];

/// The access of a table that is compared with a column of another type.
fn compared_as(access: &TableAccess, comparison: ComparisonType) -> Arc<TableAccess> {
    let mut access = access.clone();
    let at = access.columns.iter().position(|column| column.name == "k").unwrap();
    access.columns[at].comparison = comparison;
    Arc::new(access)
}

#[tokio::test]
async fn uuids_in_text_are_found_in_every_spelling() {
    let db = Db::create().await;
    for (ty, exact) in [
        ("VARCHAR(40) COLLATE utf8mb4_general_ci", true),
        ("VARCHAR(40) CHARACTER SET ascii COLLATE ascii_bin", false),
        ("CHAR(38) COLLATE utf8mb4_unicode_ci", true),
        ("CHAR(38) CHARACTER SET latin1 COLLATE latin1_bin", false),
    ] {
        for key in ["k", "id, k"] {
            let a = fresh();
            db.execute(&format!(
                "CREATE TABLE {a} (id INT NOT NULL, k {ty} NOT NULL, v INT, PRIMARY KEY ({key}))"
            ))
            .await;
            for (at, uuid) in UUIDS.iter().enumerate() {
                db.execute(&format!("INSERT INTO {a} VALUES ({at}, '{uuid}', {at})")).await;
            }
            let wishes = if key == "k" {
                Wishes { exclude: vec!["id".into()], ..Wishes::default() }
            } else {
                Wishes::default()
            };
            let access = compared_as(&*db.access_as(&a, &wishes).await, ComparisonType::Uuid);
            go_through(&db, &access, exact, &format!("{ty} ({key})")).await;
        }
    }
    // Capitals throughout, as some programs write them: found by the index, whatever the collation.
    let a = fresh();
    db.execute(&format!(
        "CREATE TABLE {a} (k CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY, v INT); \
         INSERT INTO {a} VALUES ('00112233-4455-6677-8899-AABBCCDDEEFF', 1), ('10112233-4455-6677-8899-AABBCCDDEEFF', 2)",
    ))
    .await;
    let access = compared_as(&*db.access(&a).await, ComparisonType::Uuid);
    let keys = keys_of(&scan(&db.engine, &access).await);
    assert_eq!(db.engine.lookup(&access, &keys).await.unwrap().rows.len(), 2);
    // Two rows that mean the same are neither changed nor deleted: which one?
    db.execute(&format!("INSERT INTO {a} VALUES ('00112233-4455-6677-8899-aabbccddeeff', 3)")).await;
    let rows = scan(&db.engine, &access).await;
    let twin = rows.iter().find(|row| rows.iter().filter(|other| other.key == row.key).count() == 2).unwrap();
    let delete = [Change { key: twin.key.clone(), before: Some(twin.row.clone()), after: None }];
    let outcomes = db.engine.apply(&access, &permitted(&delete)).await.unwrap();
    assert!(
        matches!(&outcomes[0], ChangeOutcome::Failed(found) if found.reason.contains("(key k)")),
        "{outcomes:?}"
    );
    assert_eq!(db.scalar(&format!("SELECT COUNT(*) FROM {a}")).await, "3");
    for ty in ["BINARY(16)", "VARBINARY(20)"] {
        let a = fresh();
        db.execute(&format!(
            "CREATE TABLE {a} (k {ty} NOT NULL PRIMARY KEY, v INT); \
             INSERT INTO {a} VALUES (X'00112233445566778899AABBCCDDEEFF', 1), (X'10112233445566778899AABBCCDDEE00', 2)"
        ))
        .await;
        let access = compared_as(&*db.access(&a).await, ComparisonType::Uuid);
        go_through(&db, &access, true, ty).await;
    }
    db.drop_all().await;
}

#[tokio::test]
async fn trailing_blanks_that_mean_nothing_are_found() {
    let db = Db::create().await;
    let nopad = if is_mariadb(&db).await { "utf8mb4_nopad_bin" } else { "utf8mb4_0900_bin" };
    for (ty, exact) in [
        ("VARCHAR(10) COLLATE utf8mb4_bin".to_owned(), true),
        ("VARCHAR(10) COLLATE utf8mb4_general_ci".to_owned(), true),
        (format!("VARCHAR(10) COLLATE {nopad}"), false),
        (format!("CHAR(10) COLLATE {nopad}"), true),
    ] {
        let a = fresh();
        db.execute(&format!(
            "CREATE TABLE {a} (k {ty} NOT NULL PRIMARY KEY, v INT); \
             INSERT INTO {a} VALUES ('a', 1), ('b  ', 2), ('', 3), (' c ', 4), ('d\\t', 5)"
        ))
        .await;
        let access = compared_as(&*db.access(&a).await, ComparisonType::Text { trim: true });
        go_through(&db, &access, exact, &ty).await;
    }
    // Under such a collation two rows can mean the same.
    let a = fresh();
    db.execute(&format!(
        "CREATE TABLE {a} (k VARCHAR(10) COLLATE {nopad} NOT NULL PRIMARY KEY, v INT); \
         INSERT INTO {a} VALUES ('a ', 1), ('a  ', 2), ('b', 3)"
    ))
    .await;
    let access = compared_as(&*db.access(&a).await, ComparisonType::Text { trim: true });
    let rows = scan(&db.engine, &access).await;
    let twin = rows.iter().find(|row| rows.iter().filter(|other| other.key == row.key).count() == 2).unwrap();
    let delete = [Change { key: twin.key.clone(), before: Some(twin.row.clone()), after: None }];
    let outcomes = db.engine.apply(&access, &permitted(&delete)).await.unwrap();
    assert!(matches!(&outcomes[0], ChangeOutcome::Failed(_)), "{outcomes:?}");
    db.drop_all().await;
}

#[tokio::test]
async fn keys_compared_as_text_are_found_or_not_called_absent() {
    let db = Db::create().await;
    for (ty, values) in [
        ("DATE", ["'2024-02-29'", "'0000-00-00'", "'2024-02-31'"]),
        ("DATETIME(6)", ["'2024-02-29 01:02:03.4'", "'0000-00-00'", "'2024-02-31'"]),
        ("TIMESTAMP(3)", ["'2024-02-29 01:02:03.4'", "'0000-00-00'", "'2024-02-28'"]),
        ("TIME(2)", ["'-100:00:00.5'", "'00:00:00'", "'838:59:59'"]),
        ("DECIMAL(10,3)", ["1.5", "-2", "0"]),
        ("FLOAT", ["0.1e0", "3.1415927e0", "1e20"]),
        ("DOUBLE", ["0.1e0", "5e-324", "1e300"]),
        ("BIGINT UNSIGNED", ["18446744073709551615", "0", "7"]),
        ("BIT(9)", ["b'100000001'", "b'0'", "b'1'"]),
        ("VARBINARY(9)", ["X'00ff'", "X''", "X'61'"]),
    ] {
        for partition in ["", "PARTITION BY KEY () PARTITIONS 5"] {
            let a = fresh();
            db.execute(&format!(
                "CREATE TABLE {a} (id INT NOT NULL, k {ty} NOT NULL, v INT, PRIMARY KEY (id, k)) {partition}; \
                 INSERT INTO {a} VALUES (1, {}, 1), (2, {}, 2), (3, {}, 3)",
                values[0], values[1], values[2]
            ))
            .await;
            let wishes = Wishes { as_text: vec!["k".into()], ..Wishes::default() };
            go_through(&db, &db.access_as(&a, &wishes).await, false, &format!("{ty} as text {partition}"))
                .await;
        }
    }
    db.drop_all().await;
}

/// Latin-1 holds a letter for each byte, and each has a code of its own: what makes its texts exact.
#[tokio::test]
async fn every_byte_of_latin1_comes_back() {
    let db = Db::create().await;
    for byte in 0..=255u8 {
        let letter = format!("CONVERT(_binary X'{byte:02X}' USING latin1)");
        let back = format!("SELECT HEX(CONVERT(CONVERT({letter} USING utf8mb4) USING latin1))");
        assert_eq!(db.scalar(&back).await, format!("{byte:02X}"));
    }
    db.drop_all().await;
}

/// A value that is none of the labels, in a column that does not differ, is left as it is.
#[tokio::test]
async fn only_the_columns_that_differ_are_written() {
    let db = Db::create().await;
    db.execute(
        "CREATE TABLE a (id INT PRIMARY KEY, e ENUM('x','y') NOT NULL, j JSON, n INT, t VARCHAR(9), \
           at TIMESTAMP NOT NULL DEFAULT '2020-01-01' ON UPDATE CURRENT_TIMESTAMP); \
         CREATE TABLE b LIKE a; \
         INSERT IGNORE INTO a (id, e, j, n, t) VALUES (1, 'wrong', '{\"b\": 1.0, \"a\": [1,  2]}', 1, 's'), (2, 'x', NULL, 2, NULL); \
         INSERT INTO b SELECT * FROM a; UPDATE a SET n = n + 10, at = '2020-01-01'",
    )
    .await;
    let (source, target) = (db.access("a").await, db.access("b").await);
    let (new, old) = (scan(&db.engine, &source).await, index(&scan(&db.engine, &target).await));
    let changes: Vec<Change> = new
        .iter()
        .map(|row| Change {
            key: row.key.clone(),
            before: old.get(row.key.as_bytes()).cloned(),
            after: Some(row.row.clone()),
        })
        .collect();
    let before = db.scalar("SELECT CONCAT(e + 0, j) FROM b WHERE id = 1").await;
    assert_eq!(
        db.engine.apply(&target, &permitted(&changes)).await.unwrap(),
        vec![ChangeOutcome::Written; 2]
    );
    assert_eq!(db.scalar("SELECT CONCAT(e + 0, j) FROM b WHERE id = 1").await, before);
    assert_eq!(db.scalar("SELECT GROUP_CONCAT(n ORDER BY id) FROM b").await, "11,12");
    // What the server would set anew is compared, equal, and stays.
    assert_eq!(db.scalar("SELECT COUNT(*) FROM b WHERE at = '2020-01-01'").await, "2");
    assert_eq!(index(&scan(&db.engine, &target).await), index(&new));
    // As statements for a person too.
    let back: Vec<Change> = changes
        .iter()
        .map(|one| Change { key: one.key.clone(), before: one.after.clone(), after: one.before.clone() })
        .collect();
    for change in &back {
        let sql = db.engine.statement(&target, change).await.unwrap();
        assert!(sql.contains("`n` =") && !sql.contains("`e` =") && !sql.contains("`j` ="), "{sql}");
        db.execute(&sql).await;
    }
    assert_eq!(db.scalar("SELECT GROUP_CONCAT(n ORDER BY id) FROM b").await, "1,2");
    // It cannot be written, and is said to be so.
    let insert = [Change { key: new[0].key.clone(), before: None, after: Some(new[0].row.clone()) }];
    db.execute("DELETE FROM b WHERE id = 1").await;
    let outcomes = db.engine.apply(&target, &permitted(&insert)).await.unwrap();
    assert!(
        matches!(&outcomes[0], ChangeOutcome::Failed(found) if found.kind == RejectionKind::Value && found.reason.contains("column e")),
        "{outcomes:?}"
    );
    db.drop_all().await;
}
