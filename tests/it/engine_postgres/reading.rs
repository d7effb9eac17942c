//! Describing, scanning and fetching.

use crate::support::permit::permitted;
use std::collections::BTreeMap;
use std::sync::Arc;

use trueup::engine::postgres::PgEngine;
use trueup::engine::{Engine, ErrorKind, keyed_rows};
use trueup::model::{CanonicalRow, ColumnType, Filled, Key, Role, TableAccess, TableName, Wishes};

use super::setup::{Db, admin_url};
use crate::support::batches::scan_in_batches;

/// Four readers of a table that changes after the snapshot was taken, over connections made with these options.
async fn one_state(options: &str, connections: i64) {
    let db = Db::new(
        "CREATE TABLE t (id int PRIMARY KEY, v int, pad text);
         INSERT INTO t SELECT g, 0, repeat('x', 60) FROM generate_series(1, 150000) g;",
    )
    .await;
    let access = db.access("t").await;
    let one = db.scan(&access, 1).await;
    assert_eq!(one.len(), 150_000);
    let engine = PgEngine::connect(&format!("{}?{options}", db.url)).await.unwrap();
    let snapshot = engine.snapshot(access.clone(), 4).await.unwrap();
    let readers = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'";
    assert_eq!(db.count(readers).await, connections);
    db.sql("UPDATE t SET v = 1; DELETE FROM t WHERE id % 3 = 0; INSERT INTO t SELECT -g, 1, '' FROM generate_series(1, 1000) g").await;
    let (send, mut receive) = tokio::sync::mpsc::channel(4);
    let scan = tokio::spawn(scan_in_batches(snapshot, send));
    let (mut rows, mut told) = (BTreeMap::new(), 0);
    while let Some(batch) = receive.recv().await {
        assert!(batch.rows() <= 4096);
        told += batch.rows();
        for row in keyed_rows(batch.as_ref()).unwrap() {
            assert!(rows.insert(row.key, row.row).is_none(), "a row came twice");
        }
    }
    scan.await.unwrap().unwrap();
    assert_eq!(told, rows.len());
    assert!(rows == one, "four readers must see what one saw before the changes");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_see_one_state_while_it_changes() {
    one_state("sslmode=require", 4).await;
}

/// In plaintext lanes read, beside the connection that holds the snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn many_lanes_see_one_state_while_it_changes() {
    one_state("sslmode=disable", 5).await;
}

#[tokio::test]
async fn the_servers_certificate_is_checked_where_that_is_asked_for() {
    let db = Db::new("CREATE TABLE t (id int PRIMARY KEY)").await;
    let own = std::env::var("TRUEUP_TEST_POSTGRES_CERT").expect("run the tests with scripts/test");
    let encrypted = "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE ssl AND application_name = 'trueup' AND datname = current_database()";
    let good = PgEngine::connect(&format!("{}?sslmode=verify-full&sslrootcert={own}", db.url)).await.unwrap();
    assert!(db.count(encrypted).await >= 1);
    drop(good);
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), other.cert.pem()).unwrap();
    for options in [
        format!("sslmode=verify-full&sslrootcert={}", file.path().display()),
        "sslmode=verify-ca".to_owned(),
        format!("sslmode=verify-full&sslrootcert={own}&host=localhost"),
    ] {
        let error = PgEngine::connect(&format!("{}?{options}", db.url)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unreachable, "{options}: {error}");
        assert!(error.hint.is_some_and(|hint| hint.contains("sslrootcert")), "{options}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_nobody_listens_to_ends_quietly_and_lets_go() {
    let db = Db::new("CREATE TABLE t AS SELECT g AS id, repeat('x', 100) AS v FROM generate_series(1, 200000) g; ALTER TABLE t ADD PRIMARY KEY (id)").await;
    let access = db.access("t").await;
    let snapshot = db.engine.snapshot(access, 3).await.unwrap();
    let (send, mut receive) = tokio::sync::mpsc::channel(1);
    let scan = tokio::spawn(scan_in_batches(snapshot, send));
    assert!(receive.recv().await.is_some());
    drop(receive);
    scan.await.unwrap().unwrap();
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'trueup' AND state <> 'idle'";
    for _ in 0..100 {
        if db.count(open).await == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("a reader is still at work");
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_inheritance_views_and_empty_tables() {
    let db = Db::new(
        "CREATE TABLE p (id int, part int, v text, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
         CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2) PARTITION BY RANGE (id);
         CREATE TABLE p2a PARTITION OF p2 FOR VALUES FROM (0) TO (50000); CREATE TABLE p2b PARTITION OF p2 DEFAULT;
         INSERT INTO p SELECT g, 1 + g % 2, repeat('x', 40) FROM generate_series(1, 120000) g;
         CREATE TABLE base (id int PRIMARY KEY, v text); CREATE TABLE heir () INHERITS (base);
         INSERT INTO base SELECT g, repeat('x', 60) FROM generate_series(1, 40000) g;
         INSERT INTO heir SELECT -g, repeat('x', 60) FROM generate_series(1, 40000) g;
         CREATE VIEW w AS SELECT id, v FROM base; CREATE MATERIALIZED VIEW m AS SELECT id, v FROM base;
         CREATE TABLE none (id int PRIMARY KEY);",
    )
    .await;
    let p = db.access("p").await;
    let rows = db.scan(&p, 4).await;
    assert_eq!(rows.len(), 120_000);
    let keys: Vec<Key> = rows.keys().step_by(40).cloned().collect();
    assert_eq!(db.engine.fetch(&p, &keys).await.unwrap().len(), 3000);
    assert_eq!(db.scan(&db.access("base").await, 4).await.len(), 40_000);
    for view in ["w", "m"] {
        let schema = db.engine.describe(&TableName::parse(view).unwrap()).await.unwrap();
        assert!(schema.is_view);
        let plan = db.plan(view, "base", &Wishes::default()).await;
        assert_eq!(db.scan(&Arc::new(plan.access(Role::Source)), 4).await.len(), 80_000);
    }
    assert!(db.scan(&db.access("none").await, 4).await.is_empty());
    let tables: Vec<String> = db.engine.tables(None).await.unwrap().into_iter().map(|t| t.name).collect();
    assert_eq!(tables, ["base", "heir", "none", "p"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_hold_in_scan_and_fetch_but_not_in_apply() {
    let db = Db::new(
        "CREATE TABLE t (id int PRIMARY KEY, v int, z int); INSERT INTO t SELECT g, g % 10, 0 FROM generate_series(1, 1000) g",
    )
    .await;
    let all = db.access("t").await;
    let with = |filter: &str| Arc::new(TableAccess { filter: Some(filter.to_owned()), ..(*all).clone() });
    let everything = db.scan(&all, 1).await;
    let keys: Vec<Key> = everything.keys().cloned().collect();
    for filter in ["v = 3 OR v = 4", "v IN (3, 4) -- odd ends", "v = 3 OR v = 4 /* ) */"] {
        let access = with(filter);
        assert_eq!(db.scan(&access, 2).await.len(), 200, "{filter}");
        assert_eq!(db.engine.fetch(&access, &keys).await.unwrap().len(), 200, "{filter}");
    }
    for bad in [
        "v = ",
        "nothing = 1",
        "v = 3) OR (v = 4",
        "true; DROP TABLE t",
        "v = 1 ORDER BY id",
        "id",
        "1/z = 1",
        "count(*) > 1",
    ] {
        let access = with(bad);
        let refused = db.try_scan(&access, 1).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Filter, "{bad}: {refused}");
        assert!(refused.hint.is_some());
        let refused = db.engine.fetch(&access, &keys).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Filter, "{bad}: {refused}");
    }
    // A row beyond the filter exists all the same.
    let access = with("v = 3");
    let (key, row) = everything.iter().next().unwrap();
    let insert = trueup::model::Change {
        key: key.clone(),
        before: None,
        after: Some(everything.values().last().cloned().unwrap()),
    };
    assert_ne!(insert.after.as_ref(), Some(row));
    assert_eq!(db.apply(&access, &[insert]).await, vec![trueup::model::ChangeOutcome::Stale]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_the_column_cannot_hold_are_in_no_row() {
    let db = Db::new(
        "CREATE TABLE big (id bigint PRIMARY KEY, v int); CREATE TABLE small (id smallint PRIMARY KEY, v int);
         CREATE TABLE words (id text PRIMARY KEY); CREATE TABLE nets (id inet PRIMARY KEY);
         INSERT INTO big VALUES (1, 1), (40000, 1), (2, 1); INSERT INTO small VALUES (1, 1), (2, 1);
         INSERT INTO words VALUES ('10.0.0.1'), ('nonsense'), ('::1'); INSERT INTO nets VALUES ('10.0.0.1'), ('::1');",
    )
    .await;
    for (from, to) in [("big", "small"), ("words", "nets")] {
        let plan = db.plan(from, to, &Wishes::default()).await;
        let (source, target) = (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)));
        let keys: Vec<Key> = db.scan(&source, 1).await.into_keys().collect();
        assert_eq!(db.engine.fetch(&target, &keys).await.unwrap().len(), 2, "{from}");
    }
    // Equal by collation only is not equal.
    db.sql("CREATE EXTENSION citext; CREATE TABLE ci (id citext PRIMARY KEY); INSERT INTO ci VALUES ('Aa'), ('b'); CREATE TABLE cs (id text PRIMARY KEY); INSERT INTO cs VALUES ('aA'), ('b')").await;
    let plan = db.plan("cs", "ci", &Wishes::default()).await;
    assert!(plan.warnings.iter().any(|warning| warning.contains("collation")));
    let (source, target) = (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)));
    let rows = db.scan(&source, 1).await;
    let keys: Vec<Key> = rows.keys().cloned().collect();
    assert_eq!(db.engine.fetch(&target, &keys).await.unwrap().len(), 1);
    let outcomes = db.apply(&target, &super::setup::changes(&BTreeMap::new(), &rows)).await;
    assert!(
        matches!(&outcomes[0], trueup::model::ChangeOutcome::Failed(r) if r.reason.contains("collation")),
        "{outcomes:?}"
    );
    assert_eq!(outcomes[1], trueup::model::ChangeOutcome::Already);
}

#[tokio::test(flavor = "multi_thread")]
async fn fetching_uses_the_index_without_statistics() {
    let db = Db::new(
        "CREATE TABLE t (a int, b text, v text, PRIMARY KEY (a, b)) WITH (autovacuum_enabled = off);
         INSERT INTO t SELECT g, 'k' || g, 'v' FROM generate_series(1, 200000) g;",
    )
    .await;
    let access = db.access("t").await;
    let keys: Vec<Key> = db.scan(&access, 1).await.into_keys().step_by(200).collect();
    let before = db.count("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 't'").await;
    for _ in 0..8 {
        assert_eq!(db.engine.fetch(&access, &keys).await.unwrap().len(), keys.len());
    }
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    // A new call makes the pooled session report its counts.
    let _ = db.engine.server().await.unwrap();
    assert_eq!(db.count("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 't'").await, before);
    assert!(db.count("SELECT idx_scan FROM pg_stat_user_tables WHERE relname = 't'").await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_changed_is_not_read_as_what_it_was() {
    let db = Db::new("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)").await;
    let access = db.access("t").await;
    let key = db.scan(&access, 1).await.into_keys().next().unwrap();
    let change = trueup::model::Change {
        key: key.clone(),
        before: None,
        after: Some(CanonicalRow::new([0u8].as_slice())),
    };
    for alter in ["ALTER TABLE t ALTER v TYPE real", "ALTER TABLE t DROP v", "DROP TABLE t"] {
        db.sql(alter).await;
        assert_eq!(db.try_scan(&access, 1).await.unwrap_err().kind, ErrorKind::Changed, "{alter}");
        assert_eq!(
            db.engine.fetch(&access, std::slice::from_ref(&key)).await.unwrap_err().kind,
            ErrorKind::Changed
        );
        let refused = db.engine.apply(&access, &permitted(std::slice::from_ref(&change))).await;
        assert_eq!(refused.unwrap_err().kind, ErrorKind::Changed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_described_as_it_is() {
    let db = Db::new(
        r#"CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        CREATE TABLE parent (id int PRIMARY KEY);
        CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY, a varchar(16) COLLATE "C" NOT NULL, b text COLLATE nocase NOT NULL, c int DEFAULT 3,
          d int GENERATED ALWAYS AS (c + 1) STORED, p int REFERENCES parent, e char(3), f numeric(12,2), gone int, PRIMARY KEY (id, a));
        ALTER TABLE t DROP gone;
        CREATE UNIQUE INDEX ok ON t (b) INCLUDE (c); CREATE UNIQUE INDEX partial ON t (a) WHERE c > 0;
        CREATE UNIQUE INDEX expression ON t (lower(a)); CREATE UNIQUE INDEX nullable ON t (c);
        CREATE TABLE child (id bigint, a varchar(16), FOREIGN KEY (id, a) REFERENCES t ON DELETE CASCADE);
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER fires BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
        CREATE TRIGGER sleeps BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE t DISABLE TRIGGER sleeps;
        CREATE SCHEMA other; CREATE TABLE other.hidden (id int);
        INSERT INTO t (a, b, c) SELECT g, g, g FROM generate_series(1, 100) g; ANALYZE t;"#,
    )
    .await;
    let t = db.engine.describe(&TableName::parse("t").unwrap()).await.unwrap();
    assert_eq!(t.table, TableName::new(Some("public"), "t"));
    let column = |name: &str| t.column(name).unwrap();
    assert_eq!(t.columns.iter().map(|c| c.name.as_str()).collect::<String>(), "idabcdpef");
    assert_eq!((column("id").filled, column("d").filled), (Filled::IdentityAlways, Filled::Generated));
    assert_eq!((column("c").nullable, column("c").has_default, column("d").has_default), (true, true, false));
    assert_eq!(column("a").collation.as_deref(), Some("C"));
    assert!(column("b").collation_folds && !column("a").collation_folds && column("e").collation_folds);
    assert_eq!(column("f").declared, "numeric(12,2)");
    assert_eq!(column("f").ty, ColumnType::Decimal { precision: Some(12), scale: Some(2) });
    assert_eq!(column("a").declared, "character varying(16)");
    assert_eq!(t.primary_key().unwrap().columns, ["id", "a"]);
    let identifying: Vec<&str> = t.keys.iter().filter(|k| k.identifies).map(|k| k.name.as_str()).collect();
    assert_eq!(identifying, ["t_pkey", "ok"]);
    assert_eq!(t.keys.iter().find(|k| k.name == "ok").unwrap().columns, ["b"]);
    assert_eq!(t.references, [TableName::new(Some("public"), "parent")]);
    assert_eq!((t.referrers.len(), t.referrers[0].delete_spreads), (1, true));
    assert_eq!(t.triggers, ["fires"]);
    assert_eq!(t.estimated_rows, Some(100));

    for (wrong, near) in
        [("parnet", "parent"), ("T", "t"), ("hidden", "other.hidden"), ("public.chlid", "public.child")]
    {
        let error = db.engine.describe(&TableName::parse(wrong).unwrap()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoSuchTable);
        assert!(error.hint.as_ref().is_some_and(|hint| hint.contains(near)), "{wrong}: {:?}", error.hint);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_fails_says_why() {
    let mut url = url::Url::parse(&admin_url()).unwrap();
    url.set_path("no_such_database_here");
    let error = PgEngine::connect(url.as_str()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Login);
    assert!(error.hint.is_some_and(|hint| hint.contains("no_such_database_here")));

    let error = PgEngine::connect("postgres://u:s3cret@127.0.0.1:1/x").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.during.contains("postgres://u@127.0.0.1:1/x") && !format!("{error:?}").contains("s3cret"));

    let error = PgEngine::connect("postgres://u:s3cret@no-such-host.invalid/x").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);

    let mut url = url::Url::parse(&admin_url()).unwrap();
    url.set_query(Some("sslmode=verify-full"));
    let error = PgEngine::connect(url.as_str()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    assert!(error.hint.is_some_and(|hint| hint.contains("sslmode")));

    url.set_query(None);
    url.set_username("nobody_of_this_name").unwrap();
    let error = PgEngine::connect(url.as_str()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Login, "{error}");
}
