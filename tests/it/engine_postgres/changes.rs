//! Writing: only what still holds what was compared, and every refusal set aside with its reason.

use crate::support::permit::{exchange, permitted};
use std::sync::Arc;

use trueup::engine::{Engine, ErrorKind};
use trueup::model::{ChangeOutcome, Operation, RejectionKind, Role, Wishes};

use super::setup::{Db, changes, repair};

fn refusals(outcomes: &[ChangeOutcome]) -> Vec<(RejectionKind, &str)> {
    outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            ChangeOutcome::Failed(rejection) => Some((rejection.kind, rejection.reason.as_str())),
            _ => None,
        })
        .collect()
}

fn written(outcomes: &[ChangeOutcome]) -> usize {
    outcomes.iter().filter(|outcome| **outcome == ChangeOutcome::Written).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_becomes_its_source() {
    let db = Db::new(
        "CREATE TABLE s (a int, b text, v text, n numeric(12,2), PRIMARY KEY (a, b));
         CREATE TABLE t (LIKE s INCLUDING ALL);
         INSERT INTO s SELECT g, 'k' || g, 'v' || g, g / 7.0 FROM generate_series(1, 5000) g;
         INSERT INTO t SELECT * FROM s WHERE a % 10 <> 0;
         UPDATE t SET v = 'old' WHERE a % 7 = 0; UPDATE t SET n = NULL WHERE a % 11 = 0;
         INSERT INTO t SELECT -g, 'x', NULL, NULL FROM generate_series(1, 100) g;",
    )
    .await;
    let outcomes = repair(&db, "s", "t").await;
    assert_eq!(written(&outcomes), outcomes.len());
    assert!(outcomes.len() > 1500);
    let differing = "SELECT count(*) FROM ((TABLE s EXCEPT TABLE t) UNION ALL (TABLE t EXCEPT TABLE s)) q";
    assert_eq!(db.count(differing).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_moved_on_is_left_alone() {
    let db = Db::new(
        "CREATE TABLE s (id int PRIMARY KEY, v text); CREATE TABLE t (LIKE s INCLUDING ALL);
         INSERT INTO s VALUES (1, 'new'), (2, 'new'), (3, 'new'), (4, 'new'), (5, 'same');
         INSERT INTO t VALUES (1, 'old'), (2, 'old'), (6, 'extra'), (7, 'extra');",
    )
    .await;
    let plan = db.plan("s", "t", &Wishes::default()).await;
    let (source, target) = (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)));
    let planned = changes(&db.scan(&target, 1).await, &db.scan(&source, 1).await);
    db.sql(
        "UPDATE t SET v = 'newer' WHERE id = 1; UPDATE t SET v = 'newer' WHERE id = 6; DELETE FROM t WHERE id = 7;
         INSERT INTO t VALUES (3, 'newer'), (5, 'same')",
    )
    .await;
    use ChangeOutcome::{Already, Stale, Written};
    // 1 changed, 2 as it was, 3 taken by another row, 4 free, 5 there already, 6 changed, 7 gone already.
    let outcomes = db.apply(&target, &planned).await;
    assert_eq!(outcomes, vec![Stale, Written, Stale, Written, Already, Stale, Already]);
    let rows = "SELECT string_agg(id || v, ',' ORDER BY id) FROM t";
    assert_eq!(db.text(rows).await, "1newer,2new,3newer,4new,5same,6newer");
    // Once more, as after a crash: what was written is there already, and nothing changes.
    let again = db.apply(&target, &planned).await;
    assert_eq!(again, vec![Stale, Already, Stale, Already, Already, Stale, Already]);
    assert_eq!(db.text(rows).await, "1newer,2new,3newer,4new,5same,6newer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_waits_for_a_writer_and_then_sees_its_row() {
    use sqlx::Executor;
    let db = Db::new(
        "CREATE TABLE s (id int PRIMARY KEY, v text); CREATE TABLE t (LIKE s INCLUDING ALL);
         INSERT INTO s VALUES (1, 'new'), (2, 'new'); INSERT INTO t VALUES (1, 'old');",
    )
    .await;
    let plan = db.plan("s", "t", &Wishes::default()).await;
    let (source, target) = (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)));
    let planned = changes(&db.scan(&target, 1).await, &db.scan(&source, 1).await);
    let mut other = db.connection().await;
    other
        .execute("BEGIN; UPDATE t SET v = 'theirs' WHERE id = 1; INSERT INTO t VALUES (2, 'theirs')")
        .await
        .unwrap();
    let commit = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        other.execute("COMMIT").await.unwrap();
    };
    let (outcomes, ()) = tokio::join!(db.apply(&target, &planned), commit);
    assert_eq!(outcomes, vec![ChangeOutcome::Stale; 2]);
    assert_eq!(db.text("SELECT string_agg(v, ',') FROM t").await, "theirs,theirs");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rows_are_set_aside_and_the_rest_is_written() {
    let db = Db::new(
        "CREATE TABLE parent (id int PRIMARY KEY);
         INSERT INTO parent VALUES (1);
         CREATE TABLE s (id int PRIMARY KEY, u int, p int, c int, nn text, short text, big bigint, flag int);
         CREATE TABLE t (id int PRIMARY KEY, u int CONSTRAINT one_u UNIQUE, p int CONSTRAINT to_parent REFERENCES parent,
                         c int CONSTRAINT small CHECK (c < 100), nn text NOT NULL, short varchar(3), big int, flag boolean);
         INSERT INTO s SELECT g, g, 1, 1, 'n', 'abc', 1, 1 FROM generate_series(1, 500) g;
         INSERT INTO t VALUES (1000, 10, 1, 1, 'n', 'abc', 1, true);
         INSERT INTO s VALUES (1000, 1000000, 1, 1, 'n', 'abc', 1, 1);
         UPDATE s SET p = 2 WHERE id = 20; UPDATE s SET c = 100 WHERE id = 30; UPDATE s SET nn = NULL WHERE id = 40;
         UPDATE s SET short = 'secret' WHERE id = 50; UPDATE s SET big = 3000000000 WHERE id = 60;
         UPDATE s SET flag = 2 WHERE id = 70; UPDATE s SET c = 200 WHERE id = 1000;",
    )
    .await;
    let outcomes = repair(&db, "s", "t").await;
    assert_eq!(outcomes.len(), 501);
    let refused = refusals(&outcomes);
    let kinds: Vec<RejectionKind> = refused.iter().map(|(kind, _)| *kind).collect();
    use RejectionKind as K;
    assert_eq!(
        kinds,
        vec![K::Unique, K::ForeignKey, K::Check, K::NotNull, K::Value, K::Value, K::Value, K::Check]
    );
    for (name, (_, reason)) in
        ["one_u", "to_parent", "small", "nn", "too long", "range", "flag", "small"].iter().zip(&refused)
    {
        assert!(reason.contains(name), "{reason}");
        assert!(!reason.contains("secret") && !reason.contains("3000000000"), "{reason}");
    }
    assert_eq!(written(&outcomes), 501 - 8);
    assert_eq!(db.count("SELECT count(*) FROM t").await, 501 - 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_one_batch_may_need_each_other() {
    let db = Db::new(
        "CREATE TABLE s (id int PRIMARY KEY, boss int REFERENCES s, u int UNIQUE);
         CREATE TABLE t (id int PRIMARY KEY, boss int REFERENCES t, u int UNIQUE);
         INSERT INTO s VALUES (9, NULL, 1), (1, 9, 2), (2, 9, 3), (5, 2, 4);
         INSERT INTO t VALUES (5, NULL, 4), (8, NULL, 1);",
    )
    .await;
    let outcomes = repair(&db, "s", "t").await;
    assert_eq!(written(&outcomes), outcomes.len(), "{outcomes:?}");
    assert_eq!(db.count("SELECT count(*) FROM (TABLE s EXCEPT TABLE t) q").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn deferred_constraints_are_pinned_to_their_rows() {
    let db = Db::new(
        "CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1);
         CREATE TABLE s (id int PRIMARY KEY, p int);
         CREATE TABLE t (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED,
                         p int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
         INSERT INTO s SELECT g, 1 FROM generate_series(1, 50) g; UPDATE s SET p = 7 WHERE id = 33;
         INSERT INTO t VALUES (1, 1), (2, NULL);",
    )
    .await;
    let outcomes = repair(&db, "s", "t").await;
    let kinds: Vec<RejectionKind> = refusals(&outcomes).iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, vec![RejectionKind::ForeignKey]);
    assert_eq!(db.count("SELECT count(*) FROM t WHERE p = 1").await, 49);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_arbiter_still_makes_stale_of_a_duplicate() {
    let db = Db::new(
        "CREATE TABLE s (id int PRIMARY KEY, v text); INSERT INTO s VALUES (1, 'a'), (2, 'b'), (3, 'c');
         CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, v text);",
    )
    .await;
    let plan = db.plan("s", "t", &Wishes::default()).await;
    let (source, target) = (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)));
    let planned = changes(&Default::default(), &db.scan(&source, 1).await);
    db.sql("INSERT INTO t VALUES (1, 'theirs'), (3, 'c')").await;
    use ChangeOutcome::{Already, Stale, Written};
    assert_eq!(db.apply(&target, &planned).await, vec![Stale, Written, Already]);
    assert_eq!(db.text("SELECT string_agg(v, ',' ORDER BY id) FROM t").await, "theirs,b,c");
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_and_identity_columns() {
    let db = Db::new(
        "CREATE TABLE s (id bigint PRIMARY KEY, v int, w int, twice int);
         CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int, w int GENERATED ALWAYS AS IDENTITY,
                         twice int GENERATED ALWAYS AS (v * 2) STORED, other text DEFAULT 'mine');
         ALTER TABLE t ALTER w DROP IDENTITY; ALTER TABLE t ALTER w DROP NOT NULL;
         INSERT INTO s VALUES (1, 10, 1, 20), (2, 20, 2, 40), (3, 30, 3, 999);
         INSERT INTO t (id, v, w, other) OVERRIDING SYSTEM VALUE VALUES (1, 11, 1, 'kept'), (3, 30, 3, 'kept');",
    )
    .await;
    let outcomes = repair(&db, "s", "t").await;
    assert_eq!(outcomes[..2], [ChangeOutcome::Written, ChangeOutcome::Written]);
    assert!(refusals(&outcomes)[0].1.contains("twice"), "{outcomes:?}");
    let all = db.text("SELECT string_agg(concat_ws(' ', id, v, twice, other), ',' ORDER BY id) FROM t").await;
    assert_eq!(all, "1 10 20 kept,2 20 40 mine,3 30 60 kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_that_are_equal_as_compared_keep_their_own_text() {
    let db = Db::new(
        r#"CREATE TABLE s (id int PRIMARY KEY, v text, w text, c char(4), j jsonb, n numeric(9,1));
         CREATE TABLE t (id int PRIMARY KEY, v text, w text, c text, j json, n numeric(9,4));
         INSERT INTO s VALUES (1, 'a', 'x', 'q', '{"a": 1}', 1.2), (2, 'b', 'y', 'r', '{"a": 2}', 2.2);
         INSERT INTO t VALUES (1, 'a', '-', 'q ', '{"a":1.0}', 1.2345), (2, '-', 'y', 'z ', '{ "a":2}', 2.2);"#,
    )
    .await;
    assert_eq!(written(&repair(&db, "s", "t").await), 2);
    let all = db.text("SELECT string_agg(concat_ws('|', v, w, c, j, n), ',' ORDER BY id) FROM t").await;
    // A finer target can hold the source's number, and does.
    assert_eq!(all, r#"a|x|q |{"a":1.0}|1.2000,b|y|r|{ "a":2}|2.2000"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_trigger_holds_back_is_told() {
    let db = Db::new(
        "CREATE TABLE s (id int PRIMARY KEY, v text); CREATE TABLE t (LIKE s INCLUDING ALL);
         INSERT INTO s VALUES (1, 'skip'), (2, 'ok'), (3, 'raise'), (4, 'skip'); INSERT INTO t VALUES (4, 'old');
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.v = 'skip' THEN RETURN NULL; END IF;
           IF NEW.v = 'raise' THEN RAISE EXCEPTION 'no %', NEW.v; END IF; RETURN NEW; END $$;
         CREATE TRIGGER tr BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f();",
    )
    .await;
    let outcomes = repair(&db, "s", "t").await;
    assert_eq!(written(&outcomes), 1);
    let refused = refusals(&outcomes);
    assert_eq!(refused.len(), 3);
    assert!(refused.iter().all(|(kind, reason)| *kind == RejectionKind::Other && !reason.contains("raise")));
}

#[tokio::test(flavor = "multi_thread")]
async fn unique_values_are_exchanged_by_replacement() {
    let db = Db::new(
        "CREATE TABLE s (id int PRIMARY KEY, u text UNIQUE);
         CREATE TABLE t (id int PRIMARY KEY, u text UNIQUE, own text DEFAULT 'default', made text GENERATED ALWAYS AS (u || '!') STORED);
         INSERT INTO s VALUES (1, 'b'), (2, 'a'), (3, 'c'); INSERT INTO t VALUES (1, 'a', 'one'), (2, 'b', 'two'), (3, 'c', 'three');",
    )
    .await;
    let plan = db.plan("s", "t", &Wishes::default()).await;
    let (source, target) = (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)));
    let planned = changes(&db.scan(&target, 1).await, &db.scan(&source, 1).await);
    assert_eq!(planned.len(), 2);
    assert!(planned.iter().all(|change| change.operation() == Operation::Update));
    let done = db.engine.replace(&target, &exchange(&planned)).await.unwrap();
    assert_eq!(done, vec![ChangeOutcome::Written; 2]);
    let all = "SELECT string_agg(concat_ws(' ', id, u, own, made), ',' ORDER BY id) FROM t";
    assert_eq!(db.text(all).await, "1 b one b!,2 a two a!,3 c three c!");
    // What was compared holds no longer: all or nothing.
    assert_eq!(db.engine.replace(&target, &exchange(&planned)).await.unwrap(), vec![ChangeOutcome::Stale; 2]);
    // A delete that would spread is refused.
    db.sql(
        "UPDATE t SET u = 'x' || u WHERE id < 3; CREATE TABLE child (id int REFERENCES t ON DELETE CASCADE); INSERT INTO child VALUES (1)",
    )
    .await;
    let planned = changes(&db.scan(&target, 1).await, &db.scan(&source, 1).await);
    let refused = db.engine.replace(&target, &exchange(&planned)).await.unwrap();
    assert_eq!(refusals(&refused)[0].0, RejectionKind::ForeignKey);
    assert_eq!(db.count("SELECT count(*) FROM child").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_can_be_run_by_hand() {
    let db = Db::new(
        r#"CREATE SCHEMA "Odd.One"; CREATE TABLE "Odd.One"."se""lect" ("Key" text PRIMARY KEY, "from" int, "é" bytea);
           CREATE TABLE "Odd.One".t (LIKE "Odd.One"."se""lect" INCLUDING ALL);
           INSERT INTO "Odd.One"."se""lect" VALUES (E'it''s \\ "q"', 1, '\x0027'), ('b', NULL, NULL), ('', 3, '');
           INSERT INTO "Odd.One".t VALUES ('b', 5, 'x'), ('gone', 1, NULL);"#,
    )
    .await;
    let (from, to) = (r#""Odd.One"."se""lect""#, r#""Odd.One".t"#);
    let plan = db.plan(from, to, &Wishes::default()).await;
    let (source, target) = (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)));
    let planned = changes(&db.scan(&target, 1).await, &db.scan(&source, 1).await);
    assert_eq!(planned.len(), 4);
    for change in &planned {
        let sql = db.engine.statement(&target, change).await.unwrap();
        assert!(sql.ends_with(';'));
        db.sql(&sql).await;
    }
    assert_eq!(db.scan(&target, 1).await, db.scan(&source, 1).await);
    // And the odd names through apply.
    db.sql(r#"TRUNCATE "Odd.One".t; INSERT INTO "Odd.One".t VALUES ('b', 5, 'x'), ('gone', 1, NULL)"#).await;
    assert_eq!(written(&repair(&db, from, to).await), 4);
    assert_eq!(db.scan(&target, 1).await, db.scan(&source, 1).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_write_is_told_what_to_grant() {
    let db = Db::new("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')").await;
    let role = format!("reader_{}", std::process::id());
    db.sql(&format!(
        "DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN PASSWORD 'pw'; GRANT SELECT ON t TO {role}"
    ))
    .await;
    let access = db.access("t").await;
    db.engine.check_writable(&access, trueup::model::Allow::ALL).await.unwrap();
    let mut url = url::Url::parse(&db.url).unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some("pw")).unwrap();
    let reader = trueup::engine::postgres::PgEngine::connect(url.as_str()).await.unwrap();
    let refused = reader.check_writable(&access, trueup::model::Allow::ALL).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Permission);
    assert!(refused.hint.unwrap().contains("GRANT"));
    let rows = db.scan(&access, 1).await;
    let delete = changes(&rows, &Default::default());
    let refused = reader.apply(&access, &permitted(&delete)).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Permission);
    drop(reader);
    db.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    // Uuid keys kept as text, in another spelling than the canonical one.
    db.sql(
        "CREATE TABLE us (id uuid PRIMARY KEY, v int); CREATE TABLE ut (id text PRIMARY KEY, v int);
         INSERT INTO us VALUES ('00112233-4455-6677-8899-aabbccddeeff', 1), ('00112233-4455-6677-8899-aabbccddee00', 1);
         INSERT INTO ut VALUES ('00112233-4455-6677-8899-AABBCCDDEEFF', 2), ('00112233445566778899aabbccddee00', 2);",
    )
    .await;
    assert_eq!(written(&repair(&db, "us", "ut").await), 2);
    assert_eq!(db.count("SELECT sum(v) FROM ut").await, 2);
}
