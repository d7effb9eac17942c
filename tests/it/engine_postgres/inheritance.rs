//! Tables that others inherit from: their own rows are read and written, and none of their children's.

use crate::support::permit::exchange;
use std::collections::BTreeMap;
use std::sync::Arc;

use trueup::engine::Engine;
use trueup::model::measure::{Aggregate, Question, Total, Totals};
use trueup::model::{Change, ChangeOutcome, Key, Role, TableName, Wishes};

use super::setup::{Db, changes, repair};

/// Two levels, the lower one in another schema, a child with more columns, and one that lies on another server, which
/// nothing can be read of here.
const SETUP: &str = "
    CREATE SCHEMA far; CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER there FOREIGN DATA WRAPPER nowhere;
    CREATE TABLE city (id int PRIMARY KEY, name text);
    CREATE TABLE town (mayor text, PRIMARY KEY (id)) INHERITS (city);
    CREATE TABLE far.hamlet (PRIMARY KEY (id)) INHERITS (town);
    CREATE FOREIGN TABLE abroad () INHERITS (city) SERVER there;
    INSERT INTO city SELECT g, 'c' || g FROM generate_series(1, 100) g;
    INSERT INTO town SELECT g, 't' || g, 'x' FROM generate_series(1, 300) g;
    INSERT INTO far.hamlet SELECT g, 'h' || g, 'x' FROM generate_series(50, 400) g;
    CREATE TABLE wanted (id int PRIMARY KEY, name text);
    INSERT INTO wanted SELECT g, CASE WHEN g % 10 = 0 THEN 'new' ELSE 'c' || g END FROM generate_series(11, 210) g;";

const CHILDREN: &str = "SELECT string_agg(name || mayor, ',' ORDER BY id, name) FROM town";

#[tokio::test(flavor = "multi_thread")]
async fn a_parents_rows_are_its_own() {
    let db = Db::new(SETUP).await;
    let plan = db.plan("wanted", "city", &Wishes::default()).await;
    let (source, target) = (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)));
    let (wanted, there) = (db.scan(&source, 1).await, db.scan(&target, 4).await);
    assert_eq!((wanted.len(), there.len()), (200, 100));
    // By key, alone and as a run: of what only a child has, nothing.
    let keys: Vec<Key> = wanted.keys().cloned().collect();
    let found = db.engine.lookup(&target, &keys).await.unwrap();
    assert_eq!((found.rows.len(), found.unproven.len()), (90, 0));
    let run = db.engine.fetch_run(&target, &keys).await.unwrap();
    assert_eq!(run.len(), 90);
    let count = Total { within: None, what: Aggregate::Count };
    let totals =
        Totals { table: TableName::new(Some("public"), "city"), filter: None, items: vec![count.clone()] };
    assert_eq!(db.engine.measure(&Question::Totals(totals)).await.unwrap(), [[Some("100".to_owned())]]);
    let filtered = Totals {
        table: TableName::new(None, "city"),
        filter: Some("name LIKE 'c1%'".to_owned()),
        items: vec![count],
    };
    assert_eq!(db.engine.measure(&Question::Totals(filtered)).await.unwrap(), [[Some("12".to_owned())]]);

    let children = db.text(CHILDREN).await;
    assert!(repair(&db, "wanted", "city").await.iter().all(|outcome| *outcome == ChangeOutcome::Written));
    assert_eq!(db.scan(&target, 1).await, wanted);
    assert_eq!(db.text(CHILDREN).await, children, "no child's row was written");
    assert_eq!(db.count("SELECT count(*) FROM ONLY city").await, 200);

    // Replaced, and by hand.
    let again: BTreeMap<_, _> = there.into_iter().filter(|(key, _)| wanted.contains_key(key)).collect();
    let some: BTreeMap<_, _> =
        wanted.clone().into_iter().filter(|(key, _)| again.contains_key(key)).collect();
    let back = changes(&some, &again);
    assert_eq!(
        db.engine.replace(&target, &exchange(&back)).await.unwrap(),
        vec![ChangeOutcome::Written; back.len()]
    );
    for change in changes(&again, &some) {
        db.sql(&db.engine.statement(&target, &change).await.unwrap()).await;
    }
    assert_eq!(db.scan(&target, 1).await, wanted);
    let delete = Change { before: None, after: None, key: wanted.keys().next().unwrap().clone() };
    let delete = Change { before: wanted.get(&delete.key).cloned(), ..delete };
    db.sql(&db.engine.statement(&target, &delete).await.unwrap()).await;
    assert_eq!(db.count("SELECT count(*) FROM ONLY city").await, 199);
    assert_eq!(db.text(CHILDREN).await, children, "no child's row was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_is_a_table_of_its_own() {
    let db = Db::new(
        "CREATE TABLE base (id int, name text); CREATE TABLE heir (PRIMARY KEY (id)) INHERITS (base); CREATE TABLE low () INHERITS (heir);
         CREATE TABLE wanted (id int PRIMARY KEY, name text);
         INSERT INTO base VALUES (1, 'base'); INSERT INTO heir VALUES (1, 'heir'), (2, 'heir'); INSERT INTO low VALUES (1, 'low'), (3, 'low');
         INSERT INTO wanted VALUES (1, 'new'), (3, 'new');",
    )
    .await;
    assert!(repair(&db, "wanted", "heir").await.iter().all(|outcome| *outcome == ChangeOutcome::Written));
    let all = "SELECT string_agg(format('%s %s %s', tableoid::regclass, id, name), ',' ORDER BY 1, id) FROM (SELECT tableoid, * FROM base) b(tableoid, id, name)";
    let all = all.replace("ORDER BY 1, id", "ORDER BY tableoid, id");
    assert_eq!(db.text(&all).await, "base 1 base,heir 1 new,heir 3 new,low 1 low,low 3 low");
    let note = |schema: trueup::model::TableSchema| {
        schema.notes.iter().any(|note| note == "has child tables: their rows are compared with the child")
    };
    for (name, told) in [("base", true), ("heir", true), ("low", false), ("wanted", false)] {
        let schema = db.engine.describe(&TableName::parse(name).unwrap()).await.unwrap();
        assert_eq!(note(schema), told, "{name}");
    }
}

/// The rows of a partitioned table, and of a hypertable, are in its children and are its own all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_holds_its_rows_in_children_is_read_through() {
    let db = Db::new(
        r#"CREATE TABLE p (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100); CREATE TABLE p2 PARTITION OF p DEFAULT;
         INSERT INTO p SELECT g, 'p' FROM generate_series(1, 200) g;
         CREATE TABLE wanted (id int PRIMARY KEY, name text); INSERT INTO wanted SELECT g, 'w' FROM generate_series(50, 250) g;
         CREATE SCHEMA _timescaledb_functions;
         CREATE FUNCTION _timescaledb_functions.insert_blocker() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE; END';
         CREATE TABLE hyper (id int PRIMARY KEY, name text); CREATE TABLE _timescaledb_functions.chunk () INHERITS (hyper);
         CREATE TRIGGER ts_insert_blocker BEFORE INSERT ON hyper FOR EACH ROW EXECUTE FUNCTION _timescaledb_functions.insert_blocker();
         INSERT INTO _timescaledb_functions.chunk SELECT g, 'h' FROM generate_series(1, 200) g;"#,
    )
    .await;
    assert!(repair(&db, "wanted", "p").await.iter().all(|outcome| *outcome == ChangeOutcome::Written));
    assert_eq!(db.count("SELECT count(*) FROM (TABLE p EXCEPT TABLE wanted) q").await, 0);
    assert_eq!(db.count("SELECT count(*) FROM p").await, 201);
    let hyper = db.access("hyper").await;
    assert_eq!(db.scan(&hyper, 2).await.len(), 200);
    let keys: Vec<Key> = db.scan(&hyper, 1).await.into_keys().collect();
    assert_eq!(db.engine.lookup(&hyper, &keys).await.unwrap().rows.len(), 200);
}

/// What lies on another server is not shown to be absent by this one.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_partitions_prove_no_absence() {
    let url = url::Url::parse(&super::setup::admin_url()).unwrap();
    let db = Db::new("CREATE EXTENSION postgres_fdw; CREATE TABLE away (id int NOT NULL, name text); INSERT INTO away VALUES (1, 'a')").await;
    let name = db.text("SELECT current_database()").await;
    db.sql(&format!(
        "CREATE SERVER self FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', port '{}', dbname '{name}');
         CREATE USER MAPPING FOR CURRENT_USER SERVER self OPTIONS (user '{}', password '{}');
         CREATE TABLE p (id int NOT NULL, name text) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p DEFAULT;
         CREATE FOREIGN TABLE p2 PARTITION OF p FOR VALUES FROM (0) TO (10) SERVER self OPTIONS (table_name 'away');
         CREATE TABLE k (id int PRIMARY KEY, name text); INSERT INTO p1 VALUES (20, 'b'); INSERT INTO k VALUES (1, 'a'), (2, 'a'), (20, 'b');
         CREATE VIEW w AS SELECT * FROM p",
        url.host_str().unwrap(),
        url.port().unwrap(),
        url.username(),
        url.password().unwrap()
    ))
    .await;
    let keys: Vec<Key> = db.scan(&db.access("k").await, 1).await.into_keys().collect();
    let access = db.access("k").await;
    let p = Arc::new(trueup::model::TableAccess {
        table: TableName::new(Some("public"), "p"),
        ..(*access).clone()
    });
    assert_eq!(db.scan(&p, 2).await.len(), 2);
    let found = db.engine.lookup(&p, &keys).await.unwrap();
    assert_eq!((found.rows.len(), found.unproven.len()), (2, 1));
    let schema = db.engine.describe(&p.table).await.unwrap();
    assert!(schema.notes.iter().any(|note| note.contains("foreign tables")), "{:?}", schema.notes);
}
