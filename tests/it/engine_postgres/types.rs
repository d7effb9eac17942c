//! Every type there is: read, written back, and compared by the server itself.

use std::sync::Arc;

use trueup::engine::Engine;
use trueup::model::canonical::decode_row;
use trueup::model::{Change, ChangeOutcome, ColumnType, Key, Role, TableName, Wishes};

use super::setup::Db;

const SETUP: &str = r#"
CREATE EXTENSION citext; CREATE EXTENSION hstore;
CREATE TYPE mood AS ENUM ('sad', 'so, so "\', 'happy');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN price AS numeric(12,2) CHECK (VALUE > -1e9);
CREATE DOMAIN code AS varchar(8);
CREATE DOMAIN feeling AS mood;
CREATE DOMAIN cash AS money;
CREATE TABLE a (
  id bigint PRIMARY KEY,
  i2 smallint, i4 integer, i8 bigint, b boolean, n numeric, n2 numeric(12,2), nneg numeric(6,-2), f4 real, f8 double precision,
  t text, v varchar(8), c char(5), c1 "char", nm name, ci citext, by bytea, bi bit(5), bv bit varying(70), bit1 bit,
  u uuid, d date, ti time, ti0 time(0), tz timetz, ts timestamp, ts3 timestamp(3), tsz timestamptz, iv interval,
  js json, jb jsonb, en mood, dn price, dc code, de feeling, mo money, dmo cash,
  ai int[], at text[], an numeric[], ae mood[], av varchar(3)[], ac char(3)[], ad price[], ats timestamptz[], ab bytea[], aj jsonb[],
  amo money[], ain inet[], abit bit(3)[], ainterval interval[],
  ip inet, ci2 cidr, mac macaddr, mac8 macaddr8, x xml, tv tsvector, tq tsquery, jp jsonpath,
  po point, li line, ls lseg, bo box, pa path, pg polygon, ce circle,
  ir int4range, nr numrange, tr tstzrange, mr int4multirange, lsn pg_lsn, o oid, rc regclass, rt regtype, xi xid, x8 xid8, snap pg_snapshot,
  tid tid, i2v int2vector, pr pair, hs hstore, apr pair[], refc refcursor);
INSERT INTO a (id) VALUES (0);
INSERT INTO a VALUES (1, -32768, -2147483648, -9223372036854775808, true, 'NaN', -1234567.89, 123456, 'NaN', 'NaN',
  '', '', '', '', '', '', '', B'00000', B'', B'0',
  '00000000-0000-0000-0000-000000000000', '-infinity', '00:00', '00:00:00', '00:00:00+15:59', '-infinity', '-infinity', '-infinity', '0',
  'null', 'null', 'sad', 0, '', 'sad', 0, 0,
  '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}',
  '0.0.0.0/0', '0.0.0.0/0', '00:00:00:00:00:00', '00:00:00:00:00:00:00:00', '', '', '', '$',
  '(0,0)', '{1,0,0}', '[(0,0),(0,0)]', '(0,0),(0,0)', '[(0,0)]', '((0,0))', '<(0,0),0>',
  'empty', '(,)', '[,2020-01-01)', '{}', '0/0', 0, 'pg_class', 'int4', '0', '0', '10:10:', '(0,0)', '', '(,)', '', '{}', 'c');
INSERT INTO a VALUES (2, 32767, 2147483647, 9223372036854775807, false, 'Infinity', 1234567.89, -999900, 'Infinity', '-Infinity',
  E'tab\t nl\n quote\' back\\slash é 漢字 😀', 'exactly8', 'ab', 'x', repeat('n', 63), 'MiXed', '\x00ff10', B'10101', repeat('1', 70)::varbit, B'1',
  'ffffffff-ffff-ffff-ffff-ffffffffffff', 'infinity', '24:00', '23:59:59', '23:59:59.999999-15:59', 'infinity', 'infinity', 'infinity', '-178000000 years',
  '{"b":1, "a":[1.0,2]}', '{"b":1, "a":[1.0,2], "e":1e400}', 'so, so "\', 99.99, 'zz', 'happy', 12345678901.23, -0.01,
  '[-1:0][2:3]={{1,NULL},{-3,4}}', '{NULL,"NULL","a,b","q\"uo\\te",""," "}', '{NaN,Infinity,1.50,0.0001}', '{"so, so \"\\",NULL}', '{abc,NULL}', '{a,abc}', '{1.25,NULL}',
  '{"2020-01-01 00:00:00.5+00",infinity}', '{"\\x00",NULL}', '{"{\"a\": 1}",NULL}', '{1.25,NULL}', '{10.0.0.1,::1}', '{101,NULL}', '{"1 day -2 hours"}',
  '10.1.2.3/24', '10.0.0.0/8', '01:23:45:67:89:ab', '01:23:45:67:89:ab:cd:ef', '<a b="1">x</a>', 'a:1A fat:2B,4C cat:5', 'fat & (rat | !cat)', '$.a[*] ? (@ > 1)',
  '(1.5,-2.25)', '{1,-1,0}', '[(1,2),(3,4)]', '(3,4),(1,2)', '((1,2),(3,4))', '((0,0),(1,1),(2,0))', '<(1.1,2.2),3.3>',
  '[1,10)', '(1.5,2.5]', '["2020-01-01 00:00:00+02","2021-01-01")', '{[1,3),[5,8)}', 'FFFFFFFF/FFFFFFFF', 4294967295, 'pg_catalog.pg_type', 'timestamptz', '4294967295', '18446744073709551615', '10:20:10,14,15',
  '(4294967295,65535)', '1 2 -3', '(1,"a ""q"", (b)")', 'a=>1, "b c"=>NULL', '{"(1,\"x,y\")",NULL}', '');
INSERT INTO a (id, n, n2, f4, f8, d, ts, ts3, tsz, iv, c, t, js, jb, ti, tz) VALUES
 (3, '-Infinity', 0.01, -0.0, -0.0, '4713-11-24 BC', '4713-11-24 00:00:00 BC', '0001-01-01 00:00:00.0005', '4713-11-24 00:00:00+00 BC', '1 mon -1 day +00:00:00.000001', E'  a  ', ' lead and trail ', '"\u00e9\ud83d\ude00"', '[]', '23:59:59.999999', '12:00:00+05:30:15'),
 (4, 0.00001, 0, 1e-45, 5e-324, '5874897-12-31', '294246-12-31 23:59:59.999999', '1999-12-31 23:59:59.9995', '1969-12-31 23:59:59.999999+00', '-1 year 3 days -04:05:06.789', 'é', E'\u00a0', '{}', '{"":null}', '00:00:00.000001', '00:00:00-00:00:01'),
 (5, 1e20000, 9999999999.99, 3.4028235e38, 1.7976931348623157e308, '0044-03-15 BC', '1970-01-01', '2024-02-29 12:34:56.789', '2024-02-29 12:34:56.789+00', '2562047788:00:54.775807', 'abcde', repeat('long ', 20000), '[1,1.0,1e0]', 'true', '12:00', '12:00:00+00'),
 (6, -123456789012345678901234567890.123456789012345678901234567890, 1, 0.1, 0.1, '2000-01-01', '2000-01-01', '2000-01-01', '2000-01-01 00:00:00+00', '00:00:00', 'x', 'x', '1', '1', '00:00:01', '00:00:01+00'),
 (7, 10000, 10000, 16777217, 9007199254740993, '1970-01-01', '1970-01-01', '1970-01-01', '1970-01-01 00:00:00+00', '-2562047788:00:54.775807', 'y', 'y', '2', '2', '00:00:02', '00:00:02+00'),
 (8, 1.10, 1.10, 1, 1, '1969-12-31', '9999-12-31 23:59:59.999999', '10000-01-01', '99999-12-31 00:00:00+00', '-00:00:01', 'z', 'z', '3', '3', '00:00:03', '00:00:03+00');
CREATE TABLE twin (LIKE a INCLUDING ALL);
"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_type_survives_the_way_through_canonical_bytes() {
    let db = Db::new(SETUP).await;
    let schema = db.engine.describe(&TableName::parse("a").unwrap()).await.unwrap();
    for column in &schema.columns {
        assert!(!matches!(column.ty, ColumnType::Unsupported(_)), "{}", column.name);
    }
    let plan = db.plan("a", "twin", &Wishes::default()).await;
    let (source, target) = (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)));
    let rows = db.scan(&source, 1).await;
    assert_eq!(rows.len(), 9);

    let keys: Vec<Key> = rows.keys().cloned().collect();
    let fetched = db.engine.fetch(&source, &keys).await.unwrap();
    assert_eq!(fetched.len(), rows.len());
    for row in fetched {
        assert_eq!(rows.get(&row.key), Some(&row.row), "fetch and scan must give the same bytes");
    }

    let changes: Vec<Change> = rows
        .iter()
        .map(|(key, row)| Change { key: key.clone(), before: None, after: Some(row.clone()) })
        .collect();
    for (at, outcome) in db.apply(&target, &changes).await.into_iter().enumerate() {
        assert_eq!(outcome, ChangeOutcome::Written, "row {at}");
    }
    assert_eq!(db.scan(&target, 1).await, rows, "the twin reads the same");
    // The oracle: the server's own text of every column, but for what the canonical form leaves out on purpose
    // (the spelling of json, the sign of zero, trailing zeros).
    for column in &schema.columns {
        let name = &column.name;
        let form = match column.ty {
            ColumnType::Json => format!("{name}::jsonb"),
            ColumnType::Float { .. } => format!("({name} + 0)::text"),
            ColumnType::Decimal { .. } => format!("trim_scale({name}::numeric)::text"),
            ColumnType::Array(_) if name == "an" => {
                "array(select trim_scale(x) from unnest(an) x)::text".to_owned()
            }
            _ => format!("{name}::text"),
        };
        let twin_form = format!("SELECT id, {form} FROM twin");
        let a_form = format!("SELECT id, {form} FROM a");
        let differing = format!(
            "SELECT count(*) FROM (({a_form} EXCEPT {twin_form}) UNION ALL ({twin_form} EXCEPT {a_form})) q"
        );
        assert_eq!(db.count(&differing).await, 0, "column {name} differs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_mean_what_the_server_says_they_mean() {
    let db = Db::new(SETUP).await;
    let plan = db.plan("a", "a", &Wishes::default()).await;
    let access = Arc::new(plan.access(Role::Source));
    let rows = db.scan(&access, 1).await;
    // Each value's own text, given back to the server, is the stored value.
    for (place, column) in access.row_columns().iter().enumerate() {
        let exact = matches!(
            column.ty,
            ColumnType::Int { .. }
                | ColumnType::Uuid
                | ColumnType::Date
                | ColumnType::Time { .. }
                | ColumnType::Timestamp { .. }
                | ColumnType::TimestampTz { .. }
                | ColumnType::Text { .. }
                | ColumnType::Named(_)
                | ColumnType::Bits
                | ColumnType::Bytes
        );
        if !exact || column.name == "c" {
            continue;
        }
        for (at, row) in rows.values().enumerate() {
            let value = decode_row(&access.row_types(), row.as_bytes()).unwrap().remove(place);
            // What the output function writes; a cast of inet to text would add its mask.
            let stored =
                db.text(&format!(
                    "SELECT CASE WHEN num_nonnulls({0}) = 1 THEN format('%s', {0}) END FROM a WHERE id = {at}",
                    column.name
                )).await;
            let ours = value.to_text().unwrap_or_else(|| "NULL".to_owned());
            assert_eq!(ours, stored, "column {} of row {at}", column.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_column_can_be_compared_as_text() {
    let db = Db::new(SETUP).await;
    let schema = db.engine.describe(&TableName::parse("a").unwrap()).await.unwrap();
    let as_text: Vec<String> = schema.columns.iter().map(|c| c.name.clone()).filter(|n| n != "id").collect();
    let wishes = Wishes { as_text, ..Wishes::default() };
    let plan = db.plan("a", "twin", &wishes).await;
    let (source, target) = (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)));
    let rows = db.scan(&source, 1).await;
    let changes: Vec<Change> = rows
        .iter()
        .map(|(key, row)| Change { key: key.clone(), before: None, after: Some(row.clone()) })
        .collect();
    assert!(db.apply(&target, &changes).await.iter().all(|o| *o == ChangeOutcome::Written));
    assert_eq!(db.scan(&target, 1).await, rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_type_that_can_be_one() {
    for (ty, values) in [
        ("smallint", "(1), (-5)"),
        ("boolean", "(true), (false)"),
        ("numeric(10,3)", "(1.5), (-0.001)"),
        ("double precision", "('NaN'), (0.1), ('-Infinity')"),
        ("text", "(''), ('é'), (E'a\\\\\"b')"),
        ("varchar(5)", "('abcde'), ('')"),
        ("char(5)", "('a'), ('')"),
        ("citext", "('Aa'), ('b')"),
        ("mood", "('happy'), ('so, so \"\\')"),
        ("bytea", "('\\x00'), ('')"),
        ("bit(3)", "(B'101'), (B'000')"),
        ("uuid", "('00112233-4455-6677-8899-aabbccddeeff')"),
        ("date", "('infinity'), ('0044-03-15 BC'), ('2024-01-01')"),
        ("time", "('24:00'), ('00:00:00.000001')"),
        ("timetz", "('12:00:00+05:30:15')"),
        ("timestamp", "('infinity'), ('2024-01-01 00:00:00.000001')"),
        ("timestamptz", "('0044-03-15 00:00:00+00 BC')"),
        ("interval", "('1 mon'), ('-1 day +00:00:01')"),
        ("jsonb", "('{\"a\": 1}'), ('null')"),
        ("inet", "('10.0.0.1/8'), ('::1')"),
        ("int[]", "('{1,2}'), ('{}'), ('[0:1]={5,6}')"),
        ("int4range", "('[1,5)'), ('empty')"),
        ("money", "(1.25), (-3)"),
        ("oid", "(4294967295)"),
        ("price", "(1.25)"),
        ("name", "('x')"),
        ("\"char\"", "('x'), ('')"),
    ] {
        let db = Db::new(&format!(
            "CREATE EXTENSION citext; CREATE TYPE mood AS ENUM ('so, so \"\\', 'happy'); CREATE DOMAIN price AS numeric(9,2);
             CREATE TABLE k (k {ty} PRIMARY KEY, v int DEFAULT 1); INSERT INTO k (k) VALUES {values};
             CREATE TABLE twin (LIKE k INCLUDING ALL);"
        ))
        .await;
        let plan = db.plan("k", "twin", &Wishes::default()).await;
        let (source, target) = (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)));
        let rows = db.scan(&source, 1).await;
        let keys: Vec<Key> = rows.keys().cloned().collect();
        let fetched = db.engine.fetch(&source, &keys).await.unwrap();
        assert_eq!(fetched.len(), keys.len(), "{ty}");
        let insert = super::setup::changes(&db.scan(&target, 1).await, &rows);
        assert!(db.apply(&target, &insert).await.iter().all(|o| *o == ChangeOutcome::Written), "{ty}");
        db.sql("UPDATE twin SET v = 2").await;
        let update = super::setup::changes(&db.scan(&target, 1).await, &rows);
        assert_eq!(update.len(), rows.len());
        assert!(db.apply(&target, &update).await.iter().all(|o| *o == ChangeOutcome::Written), "{ty}");
        assert_eq!(db.scan(&target, 1).await, rows, "{ty}");
        let delete = super::setup::changes(&rows, &Default::default());
        assert!(db.apply(&target, &delete).await.iter().all(|o| *o == ChangeOutcome::Written), "{ty}");
        assert_eq!(db.count("SELECT count(*) FROM twin").await, 0, "{ty}");
    }
}
