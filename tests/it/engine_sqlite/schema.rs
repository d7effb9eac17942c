//! What is a table, what reads it whole, and what it means that it is no longer the same.

use crate::support::permit::permitted;
use std::sync::Arc;

use trueup::engine::{EngineError, ErrorKind};
use trueup::model::{ChangeOutcome, TableAccess, TableName, Wishes};

use super::setup::{File, change, reason};

const MANY: u32 = 101_000;

/// A column of the rowid's name is read as any other, by any number of readers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_may_have_the_names_of_the_rowid() {
    for columns in [
        "id TEXT PRIMARY KEY NOT NULL, rowid INTEGER",
        "id TEXT PRIMARY KEY NOT NULL, \"RowId\" TEXT, \"_RowID_\" INTEGER",
        "id TEXT PRIMARY KEY NOT NULL, rowid INTEGER, oid INTEGER, _rowid_ TEXT",
        "rowid TEXT PRIMARY KEY NOT NULL, oid INTEGER PRIMARY KEY DESC",
        "oid INTEGER, rowid TEXT, _rowid_ INTEGER PRIMARY KEY",
        "rowid INTEGER, id TEXT PRIMARY KEY NOT NULL",
    ] {
        let columns = columns.replace("oid INTEGER PRIMARY KEY DESC", "oid INTEGER");
        let file = File::with(&format!("CREATE TABLE t ({columns}); CREATE VIEW w AS SELECT * FROM t")).await;
        let names: Vec<String> = {
            let connection = file.connection();
            let mut statement = connection.prepare("SELECT name FROM pragma_table_info('t')").unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        let key = if columns.starts_with("oid") {
            "_rowid_"
        } else {
            names.iter().find(|name| *name == "id").map_or("rowid", |_| "id")
        };
        // All of the same values but for the key; every tenth one is NULL, and far out.
        let value = |name: &String| {
            if name == key {
                if key == "_rowid_" { "i * 7".to_owned() } else { "'k' || i".to_owned() }
            } else {
                "CASE WHEN i % 10 THEN i * 1000 END".to_owned()
            }
        };
        let values: Vec<String> = names.iter().map(value).collect();
        file.db.execute(&format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY}) \
             INSERT INTO t SELECT {} FROM n",
            values.join(", ")
        ));
        let access = file.access("t").await;
        let rows = file.scan(&access, 3).await.unwrap();
        assert_eq!(rows.len(), MANY as usize, "{columns}");
        let wishes = Wishes { key: vec![key.to_owned()], ..Wishes::default() };
        let view = file.wished("w", wishes).await;
        assert_eq!(file.scan(&view, 3).await.unwrap().len(), MANY as usize, "{columns}, as a view");
        // Written where they are stored, whatever names that.
        let (first, last) = (rows.iter().next().unwrap(), rows.iter().next_back().unwrap());
        let changes = [change(first.0, Some(first.1), None), change(last.0, Some(last.1), Some(first.1))];
        assert_eq!(file.apply(&access, &changes).await, vec![ChangeOutcome::Written; 2], "{columns}");
        assert_eq!(file.db.scalar("SELECT count(*) FROM t").unwrap(), (MANY - 1).to_string());
    }
}

type Tried = (Result<(), EngineError>, Result<(), EngineError>, Result<(), EngineError>);

async fn tried(file: &File, access: &Arc<TableAccess>, rows: &super::setup::Rows) -> Tried {
    let (key, row) = rows.iter().next().unwrap();
    let scan = file.scan(access, 2).await.map(drop);
    let lookup = file.engine.lookup(access, std::slice::from_ref(key)).await.map(drop);
    let apply = file.engine.apply(access, &permitted(&[change(key, Some(row), None)])).await.map(drop);
    (scan, lookup, apply)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_altered_is_told_by_every_read_and_write() {
    let make = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, w TEXT)";
    let rows = "INSERT INTO t VALUES (1, 'v', 'w'), (2, 'b', 'c')";
    for (alter, says) in [
        ("ALTER TABLE t RENAME COLUMN v TO renamed", "column v is gone"),
        ("ALTER TABLE t DROP COLUMN v", "column v is gone"),
        ("ALTER TABLE t RENAME TO other", "the table is gone"),
        ("DROP TABLE t", "the table is gone"),
        (
            "DROP TABLE t; CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER, w TEXT)",
            "column v was TEXT and is INTEGER now",
        ),
        ("DROP TABLE t; CREATE TABLE t (id INTEGER PRIMARY KEY, w TEXT)", "column v is gone"),
        ("DROP TABLE t; CREATE TABLE t (id INTEGER PRIMARY KEY, w TEXT, v TEXT AS (w))", "v"),
    ] {
        let file = File::with(&format!("{make}; {rows}")).await;
        let access = file.access("t").await;
        let before = file.scan(&access, 1).await.unwrap();
        file.db.execute(alter);
        let (scan, lookup, apply) = tried(&file, &access, &before).await;
        for told in [scan, lookup, apply] {
            let error = told.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Changed, "{alter}: {error}");
            assert!(error.what.contains(says), "{alter}: {error}");
            assert!(error.hint.unwrap().contains("altered"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_never_turn_into_texts() {
    let file =
        File::with("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'gone')").await;
    let wishes = Wishes { target_where: Some("\"gone\" = 'gone'".to_owned()), ..Wishes::default() };
    let access = file.wished("t", wishes).await;
    assert_eq!(file.scan(&access, 1).await.unwrap_err().kind, ErrorKind::Filter);
    let access = file.access("t").await;
    let rows = file.scan(&access, 1).await.unwrap();
    assert!(tried(&file, &access, &rows).await.2.is_ok());

    // A database's own views and triggers may mean them, and go on to.
    file.db.execute(
        "CREATE TABLE log (what TEXT); CREATE TRIGGER added AFTER INSERT ON t BEGIN INSERT INTO log VALUES (\"insert\"); END; \
         CREATE VIEW w AS SELECT id, \"open\" AS state FROM t",
    );
    let (key, row) = rows.iter().next().unwrap();
    let inserted = file.apply(&access, &[change(key, None, Some(row))]).await;
    assert_eq!(inserted, [ChangeOutcome::Written]);
    assert_eq!(file.db.scalar("SELECT what FROM log").as_deref(), Some("insert"));
    let view = file.wished("w", Wishes { key: vec!["id".to_owned()], ..Wishes::default() }).await;
    assert_eq!(file.scan(&view, 2).await.unwrap().len(), 1);
    assert_eq!(file.lookup(&view, std::slice::from_ref(key)).await.rows.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tables_identity_is_another_when_it_was_made_again() {
    let make = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)";
    let file = File::with(&format!("{make}; INSERT INTO t VALUES (1, 'a')")).await;
    let table = TableName::new(None, "t");
    let identity = async || file.engine.describe(&table).await.unwrap().identity.unwrap();
    let first = identity().await;
    file.db.execute("INSERT INTO t VALUES (2, 'b'); DELETE FROM t WHERE id = 1; ANALYZE; VACUUM");
    assert_eq!(identity().await, first);
    file.db.execute(&format!("DROP TABLE t; {make}; INSERT INTO t VALUES (2, 'b')"));
    let second = identity().await;
    assert_ne!(second, first);
    // Another file of the same name.
    let path = file.db.url().strip_prefix("sqlite://").unwrap().to_owned();
    std::fs::copy(&path, format!("{path}.new")).unwrap();
    std::fs::rename(format!("{path}.new"), &path).unwrap();
    assert_ne!(identity().await, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn virtual_tables_and_what_is_theirs_are_no_tables() {
    let file = File::with(
        "CREATE TABLE docs (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT); \
         CREATE VIRTUAL TABLE docs_fts USING fts5(body, content='docs', content_rowid='id'); \
         CREATE VIRTUAL TABLE place USING rtree(id, a, b); CREATE VIRTUAL TABLE old USING fts4(body); \
         CREATE TRIGGER ai AFTER INSERT ON docs BEGIN INSERT INTO docs_fts(rowid, body) VALUES(new.id, new.body); END; \
         CREATE TRIGGER au AFTER UPDATE ON docs BEGIN INSERT INTO docs_fts(docs_fts, rowid, body) VALUES('delete', old.id, old.body); \
             INSERT INTO docs_fts(rowid, body) VALUES(new.id, new.body); END; \
         CREATE TABLE place_notes (id INTEGER PRIMARY KEY); CREATE TABLE vectors_chunks (id INTEGER PRIMARY KEY); \
         INSERT INTO docs VALUES (1, 'first words'), (2, 'second words'); ANALYZE; \
         PRAGMA writable_schema = ON; INSERT INTO sqlite_schema VALUES ('table', 'vectors', 'vectors', 0, 'CREATE VIRTUAL TABLE vectors USING only_the_application_has(a)')",
    )
    .await;
    let names: Vec<String> =
        file.engine.tables(None).await.unwrap().into_iter().map(|table| table.name).collect();
    assert_eq!(names, ["docs", "place_notes"], "vectors_chunks may be a part of vectors");
    for name in [
        "docs_fts",
        "place",
        "old",
        "DOCS_FTS_data",
        "place_node",
        "old_segments",
        "sqlite_sequence",
        "sqlite_stat1",
    ] {
        let error = file.engine.describe(&TableName::new(None, name)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Usage, "{name}: {error}");
    }
    let doubtful = file.engine.describe(&TableName::new(None, "vectors_chunks")).await.unwrap();
    assert!(doubtful.notes[0].contains("virtual table"), "{:?}", doubtful.notes);

    // The index is kept by the table's triggers.
    let access = file.access("docs").await;
    let rows = file.scan(&access, 1).await.unwrap();
    let (key, before) = rows.iter().next().unwrap();
    let after = rows.values().next_back().unwrap();
    let found = "SELECT count(*) FROM docs_fts WHERE docs_fts MATCH 'first'";
    assert_eq!(file.db.scalar(found).as_deref(), Some("1"));
    assert_eq!(
        file.apply(&access, &[change(key, Some(before), Some(after))]).await,
        [ChangeOutcome::Written]
    );
    assert_eq!(file.db.scalar(found).as_deref(), Some("0"));
    file.db.execute("INSERT INTO docs_fts(docs_fts) VALUES ('integrity-check')");
}

/// As an application would that brings its own collation.
async fn with_collation(sql: &str) -> File {
    let file = File::with("PRAGMA user_version = 2").await;
    let connection = file.connection();
    connection
        .create_collation("unicase", |a: &str, b: &str| a.to_lowercase().cmp(&b.to_lowercase()))
        .unwrap();
    connection.execute_batch(sql).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collations_that_only_the_application_has_are_not_needed_to_compare() {
    let rows = "('geo', 1), ('Bio', 2), ('art', 3)";
    for (keyed, behind) in [
        ("tag TEXT NOT NULL PRIMARY KEY COLLATE unicase, usn INT", " WITHOUT ROWID"),
        ("tag TEXT NOT NULL PRIMARY KEY COLLATE unicase, usn INT", ""),
        ("tag TEXT NOT NULL PRIMARY KEY COLLATE unicase, usn INT, rowid INT, oid INT, _rowid_ INT", ""),
        ("tag TEXT NOT NULL COLLATE unicase, usn INT, UNIQUE (tag COLLATE binary)", ""),
    ] {
        let file = with_collation(&format!(
            "CREATE TABLE t ({keyed}){behind}; INSERT INTO t (tag, usn) VALUES {rows}"
        ))
        .await;
        let wishes = |filter: Option<&str>| Wishes {
            key: vec!["tag".to_owned()],
            columns: vec!["usn".to_owned()],
            target_where: filter.map(str::to_owned),
            ..Wishes::default()
        };
        let access = file.wished("t", wishes(None)).await;
        let found = file.scan(&access, 3).await.unwrap();
        assert_eq!(found.len(), 3, "{keyed}");
        let keys: Vec<_> = found.keys().cloned().collect();
        assert_eq!(file.lookup(&access, &keys).await.rows.len(), 3);
        // By the collation GEO would be there.
        let other = File::with(
            "CREATE TABLE t (tag TEXT NOT NULL PRIMARY KEY, usn INT); INSERT INTO t VALUES ('GEO', 1)",
        )
        .await;
        let absent = other.scan(&other.access("t").await, 1).await.unwrap();
        let (capital, row) = absent.iter().next().unwrap();
        let lookup = file.lookup(&access, &[capital.clone(), keys[0].clone()]).await;
        assert!(lookup.rows.len() == 1 && lookup.unproven.is_empty(), "{keyed}: {lookup:?}");

        let filtered = file.wished("t", wishes(Some("usn > 1"))).await;
        assert_eq!(file.scan(&filtered, 1).await.unwrap().len(), 2);
        let filtered = file.wished("t", wishes(Some("tag > 'b'"))).await;
        let refused = file.scan(&filtered, 1).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Filter, "{refused}");
        assert!(refused.what.contains("unicase"), "{refused}");

        // Only what needs no order of the application's is written.
        let (first, last) = (&keys[0], &keys[2]);
        let changes = [
            change(first, Some(&found[first]), Some(&found[last])),
            change(capital, None, Some(row)),
            change(last, Some(&found[last]), None),
        ];
        let outcomes = file.apply(&access, &changes).await;
        let needed = !keyed.contains("binary");
        for outcome in if needed { &outcomes[1..] } else { &[] } {
            assert!(reason(outcome).contains("collation unicase"), "{keyed}: {outcome:?}");
        }
        if !needed {
            assert_eq!(outcomes, vec![ChangeOutcome::Written; 3]);
        } else if behind.is_empty() && !keyed.contains("oid") {
            assert_eq!(outcomes[0], ChangeOutcome::Written);
        } else {
            assert!(reason(&outcomes[0]).contains("unicase"));
        }
        let connection = file.connection();
        connection
            .create_collation("unicase", |a: &str, b: &str| a.to_lowercase().cmp(&b.to_lowercase()))
            .unwrap();
        let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok", "{keyed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_holds_null_is_no_key() {
    let file = File::with(
        "CREATE TABLE t (id INTEGER PRIMARY KEY DESC, v TEXT); INSERT INTO t VALUES (1, 'a'), (NULL, 'b')",
    )
    .await;
    let schema = file.engine.describe(&TableName::new(None, "t")).await.unwrap();
    assert!(!schema.keys.iter().any(|key| key.identifies), "{:?}", schema.keys);
    let file =
        File::with("CREATE TABLE t (id TEXT PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a')").await;
    let access = file.access("t").await;
    file.db.execute("INSERT INTO t VALUES (NULL, 'b')");
    let error = file.scan(&access, 1).await.unwrap_err();
    assert!(error.what.contains("holds NULL") && error.hint.unwrap().contains("--key"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn referrers_tell_what_spreads() {
    let file = File::with(
        "CREATE TABLE p (id INTEGER PRIMARY KEY); \
         CREATE TABLE a (p INTEGER REFERENCES p ON UPDATE CASCADE); CREATE TABLE b (p INTEGER REFERENCES p ON DELETE SET NULL); \
         CREATE TABLE c (p INTEGER REFERENCES p ON UPDATE SET DEFAULT ON DELETE RESTRICT); CREATE TABLE d (p INTEGER REFERENCES p)",
    )
    .await;
    let schema = file.engine.describe(&TableName::new(None, "p")).await.unwrap();
    let mut spreads: Vec<_> = schema
        .referrers
        .iter()
        .map(|referrer| (referrer.table.name.as_str(), referrer.update_spreads, referrer.delete_spreads))
        .collect();
    spreads.sort_unstable();
    assert_eq!(spreads, [("a", true, false), ("b", false, true), ("c", true, false), ("d", false, false)]);
}
