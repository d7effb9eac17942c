//! Values that one column gave can be written to another of its type, whatever they mean to others.

use std::sync::Arc;

use trueup::engine::Engine;
use trueup::model::{ChangeOutcome, RejectionKind, Role, Wishes};

use super::setup::{Db, changes};

const SETUP: &str = r#"CREATE EXTENSION citext; CREATE TYPE mood AS ENUM ('sad', 'so, so'); CREATE TYPE pair AS (a int, b text);
    CREATE DOMAIN boxes AS box[]; CREATE DOMAIN moment AS timestamp(3);"#;

/// A type, and values of it that others have trouble with.
const VALUES: &[(&str, &[&str])] = &[
    ("json", &[r#"'"\ud800"'"#, r#"'{"a":"\udc00\ud800"}'"#, r#"'"\u0000"'"#, r#"'{"a":1,"a":2.50}'"#]),
    ("json", &["repeat('[', 600)::text || repeat(']', 600)"]),
    ("jsonb", &["(repeat('[', 600) || repeat(']', 600))", "'-0.0'", "'1e400'"]),
    (
        "timestamp",
        &[
            "'294276-12-31 23:59:59.999999'",
            "'infinity'",
            "'0044-03-15 BC'",
            "'294247-01-10 04:00:54.775807'",
        ],
    ),
    ("timestamp(0)", &["'294276-12-31 23:59:59'", "'294247-01-10 04:00:55'", "'294247-01-10 04:00:54'"]),
    ("timestamptz", &["'294276-12-31 23:59:59.999999+00'", "'-infinity'"]),
    ("moment", &["'294276-12-31 23:59:59.999'"]),
    ("timestamp[]", &["'{\"294276-12-31 23:59:59.999999\",NULL,infinity}'"]),
    ("timestamptz[]", &["'{\"294276-12-31 23:59:59.999999+00\"}'"]),
    ("date", &["'5874897-12-31'", "'-infinity'", "'4713-11-24 BC'"]),
    ("time", &["'24:00'"]),
    ("timetz", &["'24:00-15:59:59'"]),
    ("interval", &["'-1 mon +2 days -00:00:00.000001'", "'178000000 years'"]),
    ("numeric", &["'NaN'", "'-Infinity'", "1e-1000", "1e100000"]),
    ("numeric(6,-2)", &["123400", "-100"]),
    ("double precision", &["'NaN'", "5e-324", "'-Infinity'", "1.7976931348623157e308"]),
    ("real", &["1e-45", "3.4028235e38"]),
    ("bit varying", &["repeat('10', 100)::varbit", "B''"]),
    ("bit(3)[]", &["'{101,NULL}'"]),
    ("box[]", &["ARRAY[box '((0,0),(1,1))', box '((2,2),(3,3))']", "'{}'", "ARRAY[NULL::box]"]),
    ("boxes", &["ARRAY[box '((0,0),(1,1))', box '((2,2),(3,3))']"]),
    ("box[]", &["'{{(1,1),(0,0);(3,3),(2,2)};{(5,5),(4,4);(7,7),(6,6)}}'"]),
    ("box", &["'(1.1,2.2),(0,0)'"]),
    ("point[]", &["'{\"(1,2)\",\"(3,4)\"}'"]),
    ("polygon[]", &["'{\"((0,0),(1,1),(2,0))\"}'"]),
    ("path", &["'[(0,0),(1,1)]'", "'((0,0),(1,1))'"]),
    ("pair[]", &[r#"'{"(1,\"x;y\")",NULL}'"#]),
    ("tsrange[]", &["'{\"[2020-01-01,2020-02-01)\",empty}'"]),
    ("int4multirange", &["'{[1,3),[5,8)}'"]),
    ("xid", &["'4294967295'"]),
    ("oid", &["4294967295"]),
    ("\"char\"", &["'x'", "''", "(-56)::int4::\"char\""]),
    ("name", &["repeat('n', 63)"]),
    ("char(4)", &["'a'", "''"]),
    ("mood[]", &["'{\"so, so\",NULL}'"]),
    ("citext[]", &["'{Aa,a}'"]),
    ("money", &["-0.01", "92233720368547758.07"]),
    ("xml", &["'<a/>'"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_of_a_type_is_written_to_it() {
    let db = Db::new(SETUP).await;
    // Few rows go one way into a table, many another.
    for padding in [0, 200] {
        for (ty, values) in VALUES {
            let rows: Vec<String> =
                values.iter().enumerate().map(|(at, value)| format!("({at}, ({value})::{ty})")).collect();
            db.sql(&format!(
                "DROP TABLE IF EXISTS s, t; CREATE TABLE s (id int PRIMARY KEY, v {ty}); CREATE TABLE t (LIKE s INCLUDING ALL);
                 INSERT INTO s VALUES {}; INSERT INTO s SELECT -g, NULL FROM generate_series(1, {padding}) g",
                rows.join(", ")
            ))
            .await;
            let plan = db.plan("s", "t", &Wishes::default()).await;
            let (source, target) = (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)));
            let wanted = db.scan(&source, 1).await;
            let inserts = changes(&Default::default(), &wanted);
            let outcomes = db.apply(&target, &inserts).await;
            assert!(outcomes.iter().all(|outcome| *outcome == ChangeOutcome::Written), "{ty}: {outcomes:?}");
            assert_eq!(db.scan(&target, 1).await, wanted, "{ty}");
            db.sql("UPDATE t SET v = NULL").await;
            let updates = changes(&db.scan(&target, 1).await, &wanted);
            let outcomes = db.apply(&target, &updates).await;
            assert!(outcomes.iter().all(|outcome| *outcome == ChangeOutcome::Written), "{ty}: {outcomes:?}");
            assert_eq!(db.scan(&target, 1).await, wanted, "{ty}");
            db.sql("UPDATE t SET v = NULL").await;
            for change in changes(&db.scan(&target, 1).await, &wanted) {
                match db.engine.statement(&target, &change).await {
                    Ok(sql) => db.sql(&sql).await,
                    Err(error) => panic!("{ty}: {error}"),
                }
            }
            assert_eq!(db.scan(&target, 1).await, wanted, "{ty}: by hand");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_jsonb_cannot_hold_is_told_as_it_is() {
    let db = Db::new(
        r#"CREATE TABLE s (id int PRIMARY KEY, v json); CREATE TABLE t (id int PRIMARY KEY, v jsonb);
           INSERT INTO s VALUES (1, '{"a\u0000":1}'), (2, '"\\u0000"'), (3, '"\ud800"'), (4, '1');"#,
    )
    .await;
    for rows in [4, 104] {
        db.sql(&format!("INSERT INTO s SELECT g, '1' FROM generate_series(5, {rows}) g")).await;
        let outcomes = super::setup::repair(&db, "s", "t").await;
        let refused: Vec<&str> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                ChangeOutcome::Failed(rejection) => {
                    assert_eq!(rejection.kind, RejectionKind::Value);
                    Some(rejection.reason.as_str())
                }
                _ => None,
            })
            .collect();
        assert_eq!(refused.len(), 2, "{refused:?}");
        assert_eq!(refused[0], r"column v (jsonb): jsonb cannot hold the character \u0000");
        assert!(!refused[1].contains("encoding has not"), "{}", refused[1]);
        assert_eq!(db.count("SELECT count(*) FROM t").await, rows - 2);
    }
}

/// Two databases that promise nothing of their texts' bytes.
#[tokio::test(flavor = "multi_thread")]
async fn texts_that_are_no_characters_are_compared_by_their_bytes() {
    const SETUP: &str = r"CREATE TABLE s (k text PRIMARY KEY, v text, c char(3), w varchar(3));
        CREATE TABLE t (LIKE s INCLUDING ALL);
        INSERT INTO s VALUES (E'\377', E'a\351', E'\351', 'x'), (E'\376', 'b', 'b', E'\200'), ('plain', E'\377', NULL, NULL);
        INSERT INTO t VALUES (E'\377', E'a\350', E'\351', 'x'), (E'\375', 'gone', NULL, NULL), ('plain', E'\377', NULL, NULL)";
    let db = Db::encoded("SQL_ASCII", SETUP).await;
    let plan = db.plan("s", "t", &Wishes::default()).await;
    let (source, target) = (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)));
    let wanted = db.scan(&source, 1).await;
    assert_eq!(wanted.len(), 3);
    let keys: Vec<_> = wanted.keys().cloned().collect();
    let found = db.engine.lookup(&source, &keys).await.unwrap();
    assert_eq!((found.rows.len(), found.unproven.len()), (3, 0));
    let found = db.engine.lookup(&target, &keys).await.unwrap();
    assert_eq!((found.rows.len(), found.unproven.len()), (2, 0));
    let repairs = changes(&db.scan(&target, 1).await, &wanted);
    assert_eq!(repairs.len(), 3);
    assert_eq!(db.apply(&target, &repairs).await, vec![ChangeOutcome::Written; 3]);
    assert_eq!(db.scan(&target, 1).await, wanted);
    assert_eq!(db.count("SELECT count(*) FROM (TABLE s EXCEPT TABLE t) q").await, 0);
    db.sql(r"INSERT INTO s SELECT 'k' || g, E'\377', 'c', 'x' FROM generate_series(1, 200) g").await;
    assert!(super::setup::repair(&db, "s", "t").await.iter().all(|o| *o == ChangeOutcome::Written));
    assert_eq!(db.count("SELECT count(*) FROM (TABLE s EXCEPT TABLE t) q").await, 0);
}

/// Where they cannot be had, the column is named.
#[tokio::test(flavor = "multi_thread")]
async fn texts_that_the_server_cannot_read_are_told_by_their_column() {
    let db = Db::encoded(
        "WIN1252",
        r"CREATE TABLE t (id int PRIMARY KEY, a text, b varchar(9)[], c jsonb);
          INSERT INTO t VALUES (1, 'a', NULL, '1'), (2, 'b', ARRAY[convert_from('\x8141', 'WIN1252')], '2')",
    )
    .await;
    let error = db.try_scan(&db.access("t").await, 1).await.unwrap_err();
    assert!(error.what.contains("column b "), "{error}");
    assert_eq!(error.hint.as_deref(), Some("leave it out with --exclude b"));
    let wishes = Wishes { exclude: vec!["b".to_owned()], ..Wishes::default() };
    let plan = db.plan("t", "t", &wishes).await;
    assert_eq!(db.scan(&Arc::new(plan.access(Role::Source)), 1).await.len(), 2);
}
