//! The laws of the engine trait: one suite, held by each of the three engines on a real database.

use crate::support::permit::exchange;
use std::sync::Arc;

use trueup::engine::ErrorKind;
use trueup::model::canonical::decode_key;
use trueup::model::{Change, ChangeOutcome, RejectionKind, Role, TableName, Wishes};

mod bed;

use crate::support::batches::scan_in_batches;
use bed::{Bed, Rows, changes, read, refusals};

macro_rules! laws {
    ($($law:ident)*) => {
        laws!(on postgres: $($law)*);
        laws!(on mysql: $($law)*);
        laws!(on sqlite: $($law)*);
    };
    (on $engine:ident: $($law:ident)*) => {
        mod $engine {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $law() {
                    super::$law(super::Bed::$engine().await).await;
                }
            )*
        }
    };
}

laws! {
    tables_are_listed_and_described
    odd_names_are_only_names
    every_row_comes_once_whatever_the_number_of_readers
    a_snapshot_is_one_moment
    a_filter_holds_for_every_read
    a_filter_is_one_condition_and_nothing_else
    a_scan_nobody_listens_to_ends_quietly
    a_view_is_read_like_its_table
    hard_values_come_back
    changes_are_conditional_and_safe_to_repeat
    refused_rows_are_set_aside_and_the_rest_is_written
    unique_values_are_exchanged_by_replacement
    a_replacement_of_a_row_that_moved_on_writes_nothing
    statements_do_what_changes_do
}

async fn tables_are_listed_and_described(bed: Bed) {
    bed.execute(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, code VARCHAR(20) NOT NULL UNIQUE, note TEXT);
         CREATE TABLE parts (o INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (n, o));
         CREATE VIEW seen AS SELECT id, note FROM orders",
    );
    let names: Vec<String> =
        bed.engine.tables(None).await.unwrap().into_iter().map(|table| table.name).collect();
    assert_eq!(names, ["orders", "parts"], "tables, and no views");
    let orders = bed.engine.describe(&TableName::new(None, "orders")).await.unwrap();
    assert_eq!(orders.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["id", "code", "note"]);
    assert!(!orders.column("code").unwrap().nullable && orders.column("note").unwrap().nullable);
    let identifying: Vec<_> =
        orders.keys.iter().filter(|key| key.identifies).map(|key| key.columns.clone()).collect();
    assert!(identifying.contains(&vec!["id".to_owned()]) && identifying.contains(&vec!["code".to_owned()]));
    let parts = bed.engine.describe(&TableName::new(None, "parts")).await.unwrap();
    assert_eq!(parts.primary_key().unwrap().columns, ["n", "o"], "in the key's own order");

    let missing = bed.engine.describe(&TableName::new(None, "order")).await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::NoSuchTable);
    assert!(missing.hint.unwrap().contains("orders"), "the nearest name is offered");
}

async fn odd_names_are_only_names(bed: Bed) {
    let columns = "\"select\" INTEGER, \"Mixed Case\" VARCHAR(10), \"日本\" INTEGER, \"per%cent's; --\" INTEGER, \
        PRIMARY KEY (\"select\", \"Mixed Case\")";
    bed.execute(&format!("CREATE TABLE \"or der\" ({columns}); CREATE TABLE \"tär'get\" ({columns})"));
    bed.execute("INSERT INTO \"or der\" VALUES (1, 'a', 2, 3), (1, 'B', NULL, 4), (-5, 'c', 6, NULL)");
    let plan = bed.plan("or der", "tär'get", &Wishes::default()).await;
    let (source, target) = (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)));
    let rows = bed.scan(&source, 2).await;
    assert_eq!(rows.len(), 3);
    assert_eq!(bed.fetch(&source, &rows.keys().cloned().collect::<Vec<_>>()).await, rows);
    bed.engine.check_writable(&target, trueup::model::Allow::ALL).await.unwrap();
    let written = bed.apply(&target, &changes(&Rows::new(), &rows)).await;
    assert_eq!(written, vec![ChangeOutcome::Written; 3]);
    assert_eq!(bed.unlike("\"or der\"", "\"tär'get\"").as_deref(), Some("0"));
}

/// Rows (region, id, note) in no order of the key.
fn numbered(rows: usize) -> String {
    let mut values = Vec::with_capacity(rows);
    for n in 0..rows {
        let id = (n * 7919) % rows;
        values.push(format!("('r{}', {}, 'note {n}')", id % 7, i64::try_from(id).unwrap() - 2500));
    }
    format!("INSERT INTO t VALUES {}", values.join(", "))
}

const KEYED_BY_TWO: &str =
    "CREATE TABLE t (region VARCHAR(8) NOT NULL, id INTEGER NOT NULL, note TEXT, PRIMARY KEY (region, id))";

async fn every_row_comes_once_whatever_the_number_of_readers(bed: Bed) {
    bed.execute(KEYED_BY_TWO);
    let access = bed.access("t").await;
    assert!(bed.scan(&access, 4).await.is_empty(), "an empty table has no rows");
    bed.execute(&numbered(6000));
    let rows = bed.scan(&access, 1).await;
    assert_eq!(rows.len(), 6000);
    for readers in [2, 3, 8] {
        assert_eq!(bed.scan(&access, readers).await, rows, "{readers} readers");
    }
    // Reads by key give the same rows; keys without a row are left out, and one asked for twice is no harm.
    let mut keys: Vec<_> = rows.keys().cloned().collect();
    bed.execute("DELETE FROM t WHERE id BETWEEN 0 AND 9");
    keys.push(keys[17].clone());
    let mut fetched = Rows::new();
    for some in keys.chunks(500) {
        fetched.extend(bed.fetch(&access, some).await);
    }
    assert_eq!(fetched, bed.scan(&access, 1).await);
    assert_eq!(fetched.len(), 5990);
    assert!(bed.fetch(&access, &[]).await.is_empty());
}

async fn a_snapshot_is_one_moment(bed: Bed) {
    bed.execute(KEYED_BY_TWO);
    bed.execute(&numbered(6000));
    let access = bed.access("t").await;
    let before = bed.scan(&access, 1).await;
    for readers in [1, 3] {
        let snapshot = bed.engine.snapshot(access.clone(), readers).await.unwrap();
        bed.execute("UPDATE t SET note = 'later' WHERE id < 0; DELETE FROM t WHERE id > 2000");
        bed.execute("INSERT INTO t VALUES ('new', 1, NULL)");
        assert_eq!(read(snapshot).await.unwrap(), before, "{readers} readers");
        assert_ne!(bed.scan(&access, readers).await, before);
        bed.execute("DELETE FROM t");
        bed.execute(&numbered(6000));
    }
}

async fn a_filter_holds_for_every_read(bed: Bed) {
    bed.execute(KEYED_BY_TWO);
    bed.execute(&numbered(6000));
    let all = bed.scan(&bed.access("t").await, 1).await;
    let access = bed.filtered("t", "id < 100 AND region <> 'r3' OR note = 'note 1'").await;
    let expected = bed.scalar("SELECT count(*) FROM t WHERE id < 100 AND region <> 'r3' OR note = 'note 1'");
    let rows = bed.scan(&access, 3).await;
    assert_eq!(Some(rows.len().to_string()), expected);
    let keys: Vec<_> = all.keys().take(1000).cloned().collect();
    let fetched = bed.fetch(&access, &keys).await;
    assert_eq!(
        fetched,
        rows.iter().filter(|(key, _)| keys.contains(key)).map(|(k, r)| (k.clone(), r.clone())).collect()
    );
}

async fn a_filter_is_one_condition_and_nothing_else(bed: Bed) {
    bed.execute(KEYED_BY_TWO);
    bed.execute(&numbered(100));
    for condition in [
        "id >",
        "nowhere = 1",
        "1 = 1) OR (1 = 1",
        "1 = 1; DELETE FROM t",
        "1 = 1 ORDER BY id",
        "1 = 1 --",
        "1 = 1) UNION SELECT region, id, note FROM t WHERE (1 = 1",
    ] {
        let access = bed.filtered("t", condition).await;
        let result = bed.try_scan(&access, 2).await;
        // A comment at the end is the only one of these that is whole in itself.
        match result {
            Err(error) => assert_eq!(error.kind, ErrorKind::Filter, "{condition}: {error}"),
            Ok(rows) => assert!(condition.ends_with("--") && rows.len() == 100, "{condition}"),
        }
        assert_eq!(bed.scalar("SELECT count(*) FROM t").as_deref(), Some("100"), "{condition}");
    }
}

async fn a_scan_nobody_listens_to_ends_quietly(bed: Bed) {
    bed.execute(KEYED_BY_TWO);
    bed.execute(&numbered(6000));
    let access = bed.access("t").await;
    let snapshot = bed.engine.snapshot(access.clone(), 2).await.unwrap();
    let (send, mut receive) = tokio::sync::mpsc::channel(1);
    let scan = tokio::spawn(scan_in_batches(snapshot, send));
    drop(receive.recv().await);
    drop(receive);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), scan).await;
    ended.unwrap().unwrap().unwrap();
    // Nothing is left locked.
    bed.execute("DROP TABLE t");
}

async fn a_view_is_read_like_its_table(bed: Bed) {
    bed.execute(KEYED_BY_TWO);
    bed.execute(&numbered(3000));
    bed.execute("CREATE VIEW v AS SELECT region, id, note FROM t");
    let wishes = Wishes { key: vec!["region".into(), "id".into()], ..Wishes::default() };
    let plan = bed.plan("v", "t", &wishes).await;
    let (view, table) = (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)));
    let rows = bed.scan(&table, 2).await;
    assert_eq!(bed.scan(&view, 2).await, rows);
    let keys: Vec<_> = rows.keys().step_by(100).cloned().collect();
    assert_eq!(bed.fetch(&view, &keys).await, bed.fetch(&table, &keys).await);
}

async fn hard_values_come_back(bed: Bed) {
    let columns = "id INTEGER PRIMARY KEY, a TEXT, n DECIMAL(30,10), d DOUBLE PRECISION, i BIGINT";
    bed.execute(&format!("CREATE TABLE a ({columns}); CREATE TABLE b ({columns})"));
    let texts = ["", " ", "NULL", "null", "it''s", "a\tb\nc", "ü日本🎉", "%s _ $1 ? :x", "0", "x,y;z"];
    for (id, text) in texts.iter().enumerate() {
        bed.execute(&format!("INSERT INTO a (id, a) VALUES ({id}, '{text}')"));
    }
    bed.execute(&format!("INSERT INTO a (id, a) VALUES (100, '{}')", "long ü ".repeat(8_000)));
    bed.execute("INSERT INTO a (id, a) VALUES (-2147483648, 'lowest'), (2147483647, 'highest'), (101, NULL)");
    bed.execute(
        "INSERT INTO a (id, n, d, i) VALUES (200, 12345678901234.5, 0.1, 9223372036854775807),
         (201, -0.5, -1e300, -9223372036854775808), (202, 0, 1e-300, 0), (203, 100.10, 123456789.125, -1)",
    );
    let (source, target) = (bed.access("a").await, bed.access("b").await);
    let rows = bed.scan(&source, 2).await;
    assert_eq!(rows.len(), texts.len() + 8);
    let distinct: std::collections::BTreeSet<_> = rows.values().map(|row| row.as_bytes()).collect();
    assert_eq!(distinct.len(), rows.len(), "every row of these means something else");
    assert_eq!(bed.fetch(&source, &rows.keys().cloned().collect::<Vec<_>>()).await, rows);
    let written = bed.apply(&target, &changes(&Rows::new(), &rows)).await;
    assert_eq!(written, vec![ChangeOutcome::Written; rows.len()]);
    assert_eq!(bed.scan(&target, 1).await, rows);
    assert_eq!(bed.unlike("a", "b").as_deref(), Some("0"), "as the database sees it");
    // Keys in canonical form sort as numbers do.
    let ids: Vec<_> = rows
        .keys()
        .map(|key| decode_key(&source.key_types(), key.as_bytes()).unwrap()[0].to_text().unwrap())
        .map(|id| id.parse::<i64>().unwrap())
        .collect();
    assert!(ids.is_sorted() && ids[0] == -2147483648, "{ids:?}");
}

const ACCOUNTS: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v VARCHAR(20)); CREATE TABLE s (id INTEGER PRIMARY KEY, v VARCHAR(20))";

async fn changes_are_conditional_and_safe_to_repeat(bed: Bed) {
    bed.execute(ACCOUNTS);
    bed.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, NULL); INSERT INTO s VALUES (1, 'a'), (2, 'B'), (4, 'd'), (5, 'e')");
    let (source, target) = (bed.access("s").await, bed.access("t").await);
    let (wanted, compared) = (bed.scan(&source, 1).await, bed.scan(&target, 1).await);
    let mut all = changes(&compared, &wanted);
    assert_eq!(all.len(), 4, "2 changed, 4 changed, 3 extra, 5 missing");
    // Somebody writes in between: an update, a delete and an insert of rows that the changes are about.
    bed.execute("UPDATE t SET v = 'newer' WHERE id = 2; DELETE FROM t WHERE id = 3; INSERT INTO t VALUES (5, 'theirs')");
    let outcomes = bed.apply(&target, &all).await;
    use ChangeOutcome::{Already, Stale, Written};
    assert_eq!(outcomes, [Stale, Already, Written, Stale], "a row that is gone already needs no delete");
    let values = "SELECT count(*) FROM t WHERE (id = 2 AND v = 'newer') OR (id = 4 AND v = 'd') OR (id = 5 AND v = 'theirs')";
    assert_eq!(bed.scalar(values).as_deref(), Some("3"));
    // From what is there now, all of it; and the same again finds its work done.
    all = changes(&bed.scan(&target, 1).await, &wanted);
    assert_eq!(bed.apply(&target, &all).await, vec![Written; all.len()]);
    assert_eq!(bed.unlike("s", "t").as_deref(), Some("0"));
    assert_eq!(bed.apply(&target, &all).await, vec![Already; all.len()]);
    assert_eq!(bed.unlike("s", "t").as_deref(), Some("0"));
    assert_eq!(bed.apply(&target, &[]).await, []);
}

async fn refused_rows_are_set_aside_and_the_rest_is_written(bed: Bed) {
    bed.execute(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY); INSERT INTO parent VALUES (1);
         CREATE TABLE s (id INTEGER PRIMARY KEY, code VARCHAR(10), n INTEGER, p INTEGER);
         CREATE TABLE t (id INTEGER PRIMARY KEY, code VARCHAR(10) UNIQUE, n INTEGER NOT NULL CHECK (n < 100), p INTEGER,
             FOREIGN KEY (p) REFERENCES parent (id));
         INSERT INTO t VALUES (50, 'taken', 1, NULL);
         INSERT INTO s VALUES (1, 'a', 1, 1), (2, 'taken', 2, 1), (3, 'c', NULL, 1), (4, 'd', 100, 1), (5, 'e', 5, 9), (6, 'f', 6, NULL)",
    );
    let plan = bed.plan("s", "t", &Wishes::default()).await;
    let (source, target) = (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)));
    let rows = bed.scan(&source, 1).await;
    let outcomes = bed.apply(&target, &changes(&Rows::new(), &rows)).await;
    let expected = [
        None,
        Some(RejectionKind::Unique),
        Some(RejectionKind::NotNull),
        Some(RejectionKind::Check),
        Some(RejectionKind::ForeignKey),
        None,
    ];
    assert_eq!(refusals(&outcomes), expected);
    for outcome in &outcomes {
        if let ChangeOutcome::Failed(rejection) = outcome {
            assert!(!rejection.reason.contains("taken"), "no values: {}", rejection.reason);
        }
    }
    assert_eq!(bed.scalar("SELECT count(*) FROM t").as_deref(), Some("3"));
}

async fn unique_values_are_exchanged_by_replacement(bed: Bed) {
    let columns = "id INTEGER PRIMARY KEY, code VARCHAR(10) UNIQUE";
    bed.execute(&format!("CREATE TABLE s ({columns}); CREATE TABLE t ({columns})"));
    bed.execute("INSERT INTO s VALUES (1, 'b'), (2, 'c'), (3, 'a'); INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')");
    let (source, target) = (bed.access("s").await, bed.access("t").await);
    let all = changes(&bed.scan(&target, 1).await, &bed.scan(&source, 1).await);
    let outcomes = bed.apply(&target, &all).await;
    assert_eq!(refusals(&outcomes), vec![Some(RejectionKind::Unique); 3], "one after the other cannot work");
    assert_eq!(bed.engine.replace(&target, &exchange(&all)).await.unwrap(), vec![ChangeOutcome::Written; 3]);
    assert_eq!(bed.unlike("s", "t").as_deref(), Some("0"));
}

async fn a_replacement_of_a_row_that_moved_on_writes_nothing(bed: Bed) {
    bed.execute(ACCOUNTS);
    bed.execute("INSERT INTO s VALUES (1, 'b'), (2, 'a'); INSERT INTO t VALUES (1, 'a'), (2, 'b')");
    let (source, target) = (bed.access("s").await, bed.access("t").await);
    let all = changes(&bed.scan(&target, 1).await, &bed.scan(&source, 1).await);
    bed.execute("UPDATE t SET v = 'newer' WHERE id = 2");
    let outcomes = bed.engine.replace(&target, &exchange(&all)).await.unwrap();
    assert!(
        outcomes.contains(&ChangeOutcome::Stale) && !outcomes.contains(&ChangeOutcome::Written),
        "{outcomes:?}"
    );
    let kept = bed.scalar("SELECT count(*) FROM t WHERE (id = 1 AND v = 'a') OR (id = 2 AND v = 'newer')");
    assert_eq!(kept.as_deref(), Some("2"));
}

async fn statements_do_what_changes_do(bed: Bed) {
    bed.execute(ACCOUNTS);
    bed.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'); INSERT INTO s VALUES (1, 'it''s; --'), (2, NULL), (4, 'ü\t日')");
    let (source, target) = (bed.access("s").await, bed.access("t").await);
    let all: Vec<Change> = changes(&bed.scan(&target, 1).await, &bed.scan(&source, 1).await);
    assert_eq!(all.len(), 4);
    for change in &all {
        let statement = bed.engine.statement(&target, change).await.unwrap();
        assert!(statement.ends_with(';'), "{statement}");
        bed.execute(&statement);
    }
    assert_eq!(bed.unlike("s", "t").as_deref(), Some("0"));
}
