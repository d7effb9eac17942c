//! Keys of every kind that are spelled otherwise on the other side: found, updated in place, inserted once, deleted; and never
//! told to be absent by a lookup that would not have found them.

use crate::support::permit::exchange;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trueup::engine::{Engine, ErrorKind};
use trueup::model::{CanonicalRow, Change, ChangeOutcome, Key, Role, TableAccess, Wishes};

use super::setup::{Db, changes};

const TYPES: &str = r#"CREATE EXTENSION citext; CREATE TYPE mood AS ENUM ('sad', 'so, so'); CREATE DOMAIN price AS numeric(9,2);
    CREATE DOMAIN label AS citext; CREATE DOMAIN feeling AS mood; CREATE DOMAIN mark AS uuid;
    CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"#;

/// Types and spellings of the source and of the target, another key that only the source has, and whether the target's
/// lookup shows that one to be absent.
struct Case {
    source: &'static str,
    target: &'static str,
    spelled: &'static [(&'static str, &'static str)],
    other: &'static str,
    exact: bool,
}

const fn case(
    source: &'static str,
    target: &'static str,
    exact: bool,
    other: &'static str,
    spelled: &'static [(&'static str, &'static str)],
) -> Case {
    Case { source, target, spelled, other, exact }
}

const CASES: &[Case] = &[
    case(
        "timestamp",
        "timestamp",
        true,
        "'294276-01-01 00:00:00'",
        &[
            ("'294276-12-31 23:59:59.999999'", "'294276-12-31 23:59:59.999999'"),
            ("'294247-01-10 04:00:54.775807'", "'294247-01-10 04:00:54.775807'"),
            ("'infinity'", "'infinity'"),
            ("'-infinity'", "'-infinity'"),
            ("'4713-11-24 00:00:00 BC'", "'4713-11-24 00:00:00 BC'"),
        ],
    ),
    case(
        "timestamptz",
        "timestamptz",
        true,
        "'294260-01-01 00:00:00+00'",
        &[
            ("'294276-12-31 23:59:59.999999+00'", "'294277-01-01 03:59:59.999999+04'"),
            ("'0044-03-15 00:00:00+00 BC'", "'0044-03-15 02:00:00+02 BC'"),
            ("'infinity'", "'infinity'"),
        ],
    ),
    case(
        "timestamp(0)",
        "timestamp(0)",
        true,
        "'294276-01-01'",
        &[("'294276-12-31 23:59:59'", "'294276-12-31 23:59:59'")],
    ),
    case(
        "date",
        "date",
        true,
        "'5874897-12-30'",
        &[
            ("'5874897-12-31'", "'5874897-12-31'"),
            ("'infinity'", "'infinity'"),
            ("'4713-11-24 BC'", "'4713-11-24 BC'"),
        ],
    ),
    case("time", "time", true, "'00:00'", &[("'24:00'", "'24:00:00'"), ("'12:00'", "'12:00:00.000000'")]),
    case(
        "timetz",
        "timetz",
        true,
        "'12:00+01'",
        &[("'12:00+00'", "'12:00:00-00'"), ("'24:00+05:30:15'", "'24:00:00+05:30:15'")],
    ),
    case(
        "interval",
        "interval",
        true,
        "'30 days 1 second'",
        &[("'1 year'", "'12 mons'"), ("'-1 day +25:00'", "'-1 day +25:00:00'"), ("'30 days'", "'30 days'")],
    ),
    case(
        "numeric",
        "numeric",
        true,
        "'-Infinity'",
        &[("'NaN'", "'nan'"), ("'Infinity'", "'inf'"), ("1.50", "1.5"), ("1e300", "1e300"), ("0", "0.00")],
    ),
    case("price", "numeric(9,2)", true, "3", &[("1.5", "1.50"), ("'NaN'", "'NaN'")]),
    case("bigint", "numeric", true, "3", &[("1", "1.000"), ("9223372036854775807", "9223372036854775807.0")]),
    case("bigint", "integer", true, "3", &[("1", "1")]),
    case("boolean", "integer", true, "false", &[("true", "1")]),
    case(
        "double precision",
        "double precision",
        true,
        "0.5",
        &[("'NaN'", "'NaN'"), ("'-0'", "0"), ("0.1", "0.1"), ("5e-324", "5e-324")],
    ),
    case("real", "real", true, "0.5", &[("0.1", "0.1"), ("'-Infinity'", "'-Infinity'"), ("0", "'-0'")]),
    case("bytea", "bytea", true, "'\\x02'", &[("'\\x00ff'", "'\\x00ff'"), ("''", "''")]),
    case("bit(4)", "bit(4)", true, "B'0001'", &[("B'0101'", "B'0101'")]),
    case("int", "bit(4)", true, "3", &[("5", "B'0101'")]),
    case("int", "bit varying(9)", false, "3", &[("5", "B'0101'"), ("1", "B'1'")]),
    case(
        "uuid",
        "uuid",
        true,
        "gen_random_uuid()",
        &[("'00112233-4455-6677-8899-aabbccddeeff'", "'{00112233-44556677-8899AABBccddeeff}'")],
    ),
    case(
        "uuid",
        "bytea",
        true,
        "gen_random_uuid()",
        &[("'00112233-4455-6677-8899-aabbccddeeff'", "'\\x00112233445566778899aabbccddeeff'")],
    ),
    case(
        "mark",
        "text",
        false,
        "gen_random_uuid()",
        &[
            ("'00112233-4455-6677-8899-aabbccddee00'", "'00112233-4455-6677-8899-aabbccddee00'"),
            ("'00112233-4455-6677-8899-aabbccddee01'", "'00112233-4455-6677-8899-AABBCCDDEE01'"),
            ("'00112233-4455-6677-8899-aabbccddee02'", "'{00112233-4455-6677-8899-AABBCCDDEE02}'"),
            ("'00112233-4455-6677-8899-aabbccddee03'", "'00112233445566778899AaBbCcDdEe03'"),
            ("'00112233-4455-6677-8899-aabbccddee04'", "'00112233-4455-6677-8899-aAbBcCdDeE04  '"),
        ],
    ),
    case(
        "uuid",
        "varchar(40)",
        false,
        "gen_random_uuid()",
        &[("'00112233-4455-6677-8899-aabbccddeeff'", "'{00112233445566778899aabbccddeeff}'")],
    ),
    case(
        "uuid",
        "char(40)",
        false,
        "gen_random_uuid()",
        &[("'00112233-4455-6677-8899-aabbccddeeff'", "'{00112233-4455-6677-8899-AabbccddeefF}'")],
    ),
    case("text", "char(5)", true, "'c'", &[("'a'", "'a'"), ("'b  '", "'b'"), ("''", "''")]),
    case("char(5)", "text", false, "'c'", &[("'a'", "'a'"), ("'b'", "'b   '"), ("'d'", "'d'")]),
    case("text", "citext", true, "'c'", &[("'Aa'", "'Aa'"), ("'b'", "'b'")]),
    case("label", "text", true, "'c'", &[("'Aa'", "'Aa'"), ("'b'", "'b'")]),
    case("text", "text COLLATE nocase", true, "'c'", &[("'Aa'", "'Aa'"), ("'é'", "'é'")]),
    case("text", "mood", true, "'sad'", &[("'so, so'", "'so, so'")]),
    case("text", "feeling", true, "'sad'", &[("'so, so'", "'so, so'")]),
    case("feeling", "text", true, "'sad'", &[("'so, so'", "'so, so'")]),
    case("text", "\"char\"", true, "'c'", &[("'x'", "'x'"), ("''", "''")]),
    case("text", "name", true, "'c'", &[("'x'", "'x'"), ("'Y'", "'Y'")]),
    case(
        "jsonb",
        "jsonb",
        true,
        "'3'",
        &[("'{\"b\": 1.0, \"a\": []}'", "'{\"a\": [], \"b\": 1}'"), ("'1e2'", "'100'")],
    ),
    case(
        "jsonb",
        "text",
        false,
        "'3'",
        &[("'{\"b\": 1.0, \"a\": [\"é\"]}'", "'{ \"a\":[\"\\u00e9\"], \"b\":1 }'"), ("'1e2'", "'100'")],
    ),
    case("inet", "inet", true, "'::1'", &[("'10.0.0.1'", "'10.0.0.1/32'"), ("'10.0.0.1/8'", "'10.0.0.1/8'")]),
    case("text", "inet", true, "'::1'", &[("'10.0.0.1'", "'10.0.0.1/32'")]),
    case("cidr", "cidr", true, "'10.0.0.0/16'", &[("'10.0.0.0/8'", "'10/8'")]),
    case("macaddr", "macaddr", true, "'00:00:00:00:00:01'", &[("'08:00:2b:01:02:03'", "'08002b010203'")]),
    case("oid", "oid", true, "2", &[("4294967295", "4294967295"), ("0", "0")]),
    case("xid8", "xid8", true, "'2'", &[("'18446744073709551615'", "'18446744073709551615'")]),
    case("int4range", "int4range", true, "'[7,8)'", &[("'[1,5)'", "'[1,4]'"), ("'empty'", "'(1,1)'")]),
    case("numrange", "numrange", true, "'[7,8)'", &[("'[1.0,5)'", "'[1.0,5)'")]),
    case(
        "tstzrange",
        "tstzrange",
        true,
        "'[2021-01-01,)'",
        &[("'[2020-01-01 00:00:00+00,)'", "'[2020-01-01 02:00:00+02,)'")],
    ),
    case(
        "int[]",
        "bigint[]",
        true,
        "'{3}'",
        &[("'{1,NULL}'", "'{1,NULL}'"), ("'[0:0]={1}'", "'[0:0]={1}'"), ("'{}'", "'{}'")],
    ),
    case("mood[]", "text[]", true, "'{sad}'", &[("'{\"so, so\",sad}'", "'{\"so, so\",sad}'")]),
    case("text[]", "mood[]", true, "'{sad}'", &[("'{\"so, so\",sad}'", "'{\"so, so\",sad}'")]),
    case("citext[]", "citext[]", true, "'{c}'", &[("'{Aa}'", "'{Aa}'")]),
    case("price[]", "numeric(9,2)[]", true, "'{3}'", &[("'{1.5}'", "'{1.50}'")]),
    case("inet[]", "inet[]", true, "'{::1}'", &[("'{10.0.0.1,::1}'", "'{10.0.0.1/32,::1}'")]),
    case(
        "uuid[]",
        "text[]",
        false,
        "'{00112233-4455-6677-8899-aabbccddeef1}'",
        &[("'{00112233-4455-6677-8899-aabbccddeeff}'", "'{00112233-4455-6677-8899-AABBCCDDEEFF}'")],
    ),
    case("money", "money", false, "3", &[("1.25", "1.250"), ("-3", "-3")]),
];

struct Pair<'a> {
    db: &'a Db,
    name: String,
    source: Arc<TableAccess>,
    target: Arc<TableAccess>,
    rows: BTreeMap<Key, CanonicalRow>,
}

impl<'a> Pair<'a> {
    async fn of(db: &'a Db, case: &Case) -> Self {
        let values = |side: fn(&(&'static str, &'static str)) -> &'static str, v: i32| {
            case.spelled.iter().map(|pair| format!("({}, {v})", side(pair))).collect::<Vec<_>>().join(", ")
        };
        db.sql(&format!(
            "DROP TABLE IF EXISTS s, t; CREATE TABLE s (k {} PRIMARY KEY, v int); CREATE TABLE t (k {} PRIMARY KEY, v int);
             INSERT INTO s VALUES {}; INSERT INTO t VALUES {}",
            case.source,
            case.target,
            values(|pair| pair.0, 1),
            values(|pair| pair.1, 2)
        ))
        .await;
        let name = format!("{} and {}", case.source, case.target);
        let plan = db.plan("s", "t", &Wishes::default()).await;
        let (source, target) = (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)));
        let rows = db.scan(&source, 1).await;
        let keys = |rows: &BTreeMap<Key, CanonicalRow>| rows.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&rows), keys(&db.scan(&target, 1).await), "{name}: the keys mean the same");
        Self { db, name, source, target, rows }
    }

    /// What is in the target, as the server spells it.
    async fn stored(&self) -> String {
        self.db
            .text("SELECT string_agg(format('%s|%s', k, v), ';' ORDER BY k::text COLLATE \"C\") FROM t")
            .await
    }

    async fn is_found_or_doubted(&self, access: &Arc<TableAccess>) {
        let keys: Vec<Key> = self.rows.keys().cloned().collect();
        for some in [&keys[..], &keys[..1]] {
            let found = self.db.engine.lookup(access, some).await.unwrap();
            let known: BTreeSet<&Key> =
                found.rows.iter().map(|row| &row.key).chain(&found.unproven).collect();
            assert_eq!(
                known.len(),
                some.len(),
                "{}: a row that is there is found, or not told to be absent",
                self.name
            );
            assert_eq!(found.rows.len() + found.unproven.len(), some.len(), "{}", self.name);
        }
    }

    async fn doubts(&self, case: &Case, other: &Key) {
        let keys: Vec<Key> = self.rows.keys().chain([other]).cloned().collect();
        let found = self.db.engine.lookup(&self.target, &keys).await.unwrap();
        assert_eq!(!found.unproven.contains(other), case.exact, "{}: an absent key", self.name);
        if case.exact {
            assert_eq!((found.rows.len(), found.unproven.len()), (self.rows.len(), 0), "{}", self.name);
            // Alone too, for the lookup asks for a row that is there.
            let alone = self.db.engine.lookup(&self.target, std::slice::from_ref(other)).await.unwrap();
            assert_eq!((alone.rows.len(), alone.unproven.len()), (0, 0), "{}", self.name);
        }
    }

    async fn apply(&self, changes: &[Change], expected: ChangeOutcome) {
        let outcomes = self.db.apply(&self.target, changes).await;
        assert_eq!(outcomes, vec![expected; changes.len()], "{}", self.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_what_they_mean_whatever_their_spelling() {
    let db = Db::new(TYPES).await;
    for case in CASES {
        let pair = Pair::of(&db, case).await;
        pair.is_found_or_doubted(&pair.source).await;
        pair.is_found_or_doubted(&pair.target).await;

        // Inserted once: the same row is there already, and so is another of the same key.
        let before = pair.db.scan(&pair.target, 1).await;
        let stored = pair.stored().await;
        let insert =
            |row: Option<CanonicalRow>, key: &Key| Change { key: key.clone(), before: None, after: row };
        let same: Vec<Change> = before.iter().map(|(key, row)| insert(Some(row.clone()), key)).collect();
        pair.apply(&same, ChangeOutcome::Already).await;
        let others: Vec<Change> = pair.rows.iter().map(|(key, row)| insert(Some(row.clone()), key)).collect();
        pair.apply(&others, ChangeOutcome::Stale).await;
        assert_eq!(pair.stored().await, stored, "{}: nothing was inserted twice", pair.name);

        // Updated in place: the spelling stays.
        let updates = changes(&before, &pair.rows);
        assert_eq!(updates.len(), case.spelled.len());
        pair.apply(&updates, ChangeOutcome::Written).await;
        assert_eq!(pair.stored().await, stored.replace("|2", "|1"), "{}: updated in place", pair.name);
        pair.apply(&updates, ChangeOutcome::Already).await;
        assert_eq!(pair.db.scan(&pair.target, 1).await, pair.rows, "{}", pair.name);
        let back = changes(&pair.rows, &before);
        let replaced = pair.db.engine.replace(&pair.target, &exchange(&back)).await.unwrap();
        assert_eq!(replaced, vec![ChangeOutcome::Written; back.len()], "{}", pair.name);
        assert_eq!(pair.db.scan(&pair.target, 1).await, before, "{}: replaced", pair.name);

        // A row that only the source has.
        pair.db.sql(&format!("INSERT INTO s VALUES ({}, 1)", case.other)).await;
        let with_other = pair.db.scan(&pair.source, 1).await;
        let other = with_other.keys().find(|key| !pair.rows.contains_key(key)).cloned().unwrap();
        pair.doubts(case, &other).await;
        let missing = changes(&pair.rows, &with_other);
        pair.apply(&missing, ChangeOutcome::Written).await;
        assert_eq!(pair.db.scan(&pair.target, 1).await.len(), with_other.len(), "{}", pair.name);

        // Deleted, and already gone.
        let deletes = changes(&pair.db.scan(&pair.target, 1).await, &BTreeMap::new());
        pair.apply(&deletes, ChangeOutcome::Written).await;
        assert_eq!(pair.db.count("SELECT count(*) FROM t").await, 0, "{}: deleted", pair.name);
        pair.apply(&deletes, ChangeOutcome::Already).await;
    }
}

/// Many at once go another way into the table.
#[tokio::test(flavor = "multi_thread")]
async fn many_rows_are_inserted_once_too() {
    let db = Db::new(
        "CREATE TABLE s (k uuid PRIMARY KEY, v int); CREATE TABLE t (k text PRIMARY KEY, v int);
         INSERT INTO s SELECT md5(g::text)::uuid, g FROM generate_series(1, 300) g;
         INSERT INTO t SELECT '{' || initcap(md5(g::text)) || '}', g FROM generate_series(1, 3) g;",
    )
    .await;
    let plan = db.plan("s", "t", &Wishes::default()).await;
    let (source, target) = (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)));
    let rows = db.scan(&source, 1).await;
    let inserts = changes(&BTreeMap::new(), &rows);
    let outcomes = db.apply(&target, &inserts).await;
    let count = |of: ChangeOutcome| outcomes.iter().filter(|outcome| **outcome == of).count();
    assert_eq!((count(ChangeOutcome::Written), count(ChangeOutcome::Already)), (297, 3));
    assert_eq!(db.scan(&target, 1).await, rows);
    assert_eq!(db.count("SELECT count(*) FROM t").await, 300);
}

/// Where the server holds two keys equal that differ in bytes, only the row of the key's own bytes is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_equal_by_collation_only_is_left_alone() {
    let db = Db::new(&format!(
        "{TYPES} CREATE TABLE s (k text PRIMARY KEY, v int); CREATE TABLE t (k text COLLATE nocase NOT NULL, v int);
         CREATE UNIQUE INDEX t_k ON t (k COLLATE \"C\");
         INSERT INTO s VALUES ('a', 1); INSERT INTO t VALUES ('a', 2), ('A', 2);"
    ))
    .await;
    let plan = db.plan("s", "t", &Wishes::default()).await;
    let (source, target) = (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)));
    let (there, wanted) = (db.scan(&target, 1).await, db.scan(&source, 1).await);
    let key = wanted.keys().next().unwrap().clone();
    let update =
        Change { key: key.clone(), before: there.get(&key).cloned(), after: wanted.get(&key).cloned() };
    assert_eq!(db.apply(&target, std::slice::from_ref(&update)).await, [ChangeOutcome::Written]);
    let all = "SELECT string_agg(k || v, ',' ORDER BY k COLLATE \"C\") FROM t";
    assert_eq!(db.text(all).await, "A2,a1");
    db.sql("UPDATE t SET v = 2").await;
    db.sql(&db.engine.statement(&target, &update).await.unwrap()).await;
    assert_eq!(db.text(all).await, "A2,a1");
    let delete = Change { after: None, before: update.after.clone(), key };
    assert_eq!(db.apply(&target, &[delete]).await, [ChangeOutcome::Written]);
    assert_eq!(db.text(all).await, "A2");
}

/// The statement for a person finds the row that the change is of, or is not written.
#[tokio::test(flavor = "multi_thread")]
async fn statements_address_the_row_or_say_that_they_cannot() {
    let (mut written, mut refused) = (Vec::new(), Vec::new());
    let db = Db::new(TYPES).await;
    for case in CASES {
        let pair = Pair::of(&db, case).await;
        let before = pair.db.scan(&pair.target, 1).await;
        let stored = pair.stored().await;
        let mut failed = 0;
        for change in changes(&before, &pair.rows) {
            match pair.db.engine.statement(&pair.target, &change).await {
                Ok(sql) => pair.db.sql(&sql).await,
                Err(error) => {
                    assert_eq!(error.kind, ErrorKind::Row, "{}", pair.name);
                    assert!(error.what.contains("column k"), "{}: {error}", pair.name);
                    failed += 1;
                }
            }
        }
        if failed == 0 {
            assert_eq!(pair.stored().await, stored.replace("|2", "|1"), "{}", pair.name);
            for change in changes(&pair.rows, &BTreeMap::new()) {
                pair.db.sql(&pair.db.engine.statement(&pair.target, &change).await.unwrap()).await;
            }
            assert_eq!(pair.db.count("SELECT count(*) FROM t").await, 0, "{}", pair.name);
            written.push(pair.name.clone());
        } else {
            assert_eq!(failed, case.spelled.len(), "{}", pair.name);
            assert_eq!(pair.stored().await, stored, "{}", pair.name);
            refused.push(pair.name.clone());
        }
    }
    assert_eq!(refused, ["int and bit varying(9)", "jsonb and text", "uuid[] and text[]", "money and money"]);
    assert!(written.len() > 40);
}

/// Keys that the column's type does not take are none that a lookup shows to be absent.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_cannot_be_given_are_doubted() {
    let db = Db::new(
        "CREATE TABLE s (k text PRIMARY KEY); INSERT INTO s VALUES ('10.0.0.1'), ('nonsense'), ('::1'), ('::2');
         CREATE TABLE t (k inet PRIMARY KEY); INSERT INTO t VALUES ('10.0.0.1');
         CREATE TABLE big (k bigint PRIMARY KEY); INSERT INTO big VALUES (1), (40000), (2);
         CREATE TABLE small (k smallint PRIMARY KEY); INSERT INTO small VALUES (1);
         CREATE TABLE none (k int PRIMARY KEY);",
    )
    .await;
    for (source, target, doubted) in [("s", "t", 1), ("big", "small", 1), ("big", "none", 3)] {
        let plan = db.plan(source, target, &Wishes::default()).await;
        let (source, target) = (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)));
        let keys: Vec<Key> = db.scan(&source, 1).await.into_keys().collect();
        let found = db.engine.lookup(&target, &keys).await.unwrap();
        assert_eq!(found.unproven.len(), doubted, "{}", target.table);
    }
}
