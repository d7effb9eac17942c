//! Keys of several columns, of bytes that are no text, and rows that only their stored key names.

use crate::support::permit::exchange;
use trueup::model::{ChangeOutcome, RejectionKind, Wishes};

use super::setup::{File, change, reason};

/// File names of another time: not UTF-8, beside the same bytes as a BLOB.
const SONGS: &str = "INSERT INTO song VALUES (CAST(x'42e96261' AS TEXT), 1, 'a'), (x'42e96261', 1, 'b'), ('plain', 1, 'c'), \
    (x'706c61696e', 1, 'd'), ('PLAIN', 1, 'e'), (CAST(x'ff' AS TEXT), 2, 'f'), (CAST(x'fe' AS TEXT), 2, 'g')";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_that_is_not_utf8_is_a_key_like_any_other() {
    for made in [
        "path TEXT NOT NULL, n INT NOT NULL, v TEXT, PRIMARY KEY (path, n)",
        "path TEXT NOT NULL COLLATE NOCASE, n INT NOT NULL, v TEXT, PRIMARY KEY (n, path COLLATE binary)",
        "path NOT NULL, n INT NOT NULL, v TEXT, rowid, oid, _rowid_, PRIMARY KEY (path, n)",
    ] {
        for behind in ["", " WITHOUT ROWID"] {
            let columns = if made.contains("oid") { "(path, n, v)" } else { "" };
            let songs = SONGS.replace("song ", &format!("song {columns} "));
            let file = File::with(&format!("CREATE TABLE song ({made}){behind}; {songs}")).await;
            let wishes = Wishes { columns: vec!["v".to_owned()], ..Wishes::default() };
            let access = file.wished("song", wishes).await;
            let rows = file.scan(&access, 2).await.unwrap();
            assert_eq!(rows.len(), 7);
            let keys: Vec<_> = rows.keys().cloned().collect();
            assert_eq!(file.lookup(&access, &keys).await.rows.len(), 7);
            // Every second row is deleted, the others get the next one's value.
            let changes: Vec<_> = keys
                .iter()
                .enumerate()
                .map(|(at, key)| {
                    let after = (at % 2 == 0).then(|| &rows[&keys[(at + 1) % 7]]);
                    change(key, Some(&rows[key]), after)
                })
                .collect();
            assert_eq!(
                file.apply(&access, &changes).await,
                vec![ChangeOutcome::Written; 7],
                "{made}{behind}"
            );
            let now = file.scan(&access, 1).await.unwrap();
            assert_eq!(now.len(), 4);
            let lookup = file.lookup(&access, &keys).await;
            assert!(lookup.rows.len() == 4 && lookup.unproven.is_empty(), "{made}{behind}: {lookup:?}");
            // And back, by SQL text.
            for key in &keys {
                let change = change(key, now.get(key), Some(&rows[key]));
                file.db.execute(&file.engine.statement(&access, &change).await.unwrap());
            }
            assert_eq!(file.scan(&access, 1).await.unwrap(), rows, "{made}{behind}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_row_keeps_its_key_its_rowid_and_what_was_not_compared() {
    for behind in ["", " WITHOUT ROWID"] {
        let file = File::with(&format!(
            "CREATE TABLE t (k TEXT NOT NULL PRIMARY KEY, code TEXT UNIQUE, note TEXT, made INT AS (length(note)), mine BLOB){behind}; \
             INSERT INTO t (k, code, note, mine) VALUES ('a', 'x', 'first', x'01'), ('b', 'y', 'second', CAST(x'e9' AS TEXT)), ('c', 'z', NULL, 3)"
        ))
        .await;
        if behind.is_empty() {
            file.db.execute("UPDATE t SET rowid = rowid * 100");
        }
        let wishes = Wishes { columns: vec!["code".to_owned()], ..Wishes::default() };
        let access = file.wished("t", wishes).await;
        let rows = file.scan(&access, 1).await.unwrap();
        let keys: Vec<_> = rows.keys().collect();
        let changes: Vec<_> = (0..3)
            .map(|at| change(keys[at], Some(&rows[keys[at]]), Some(&rows[keys[(at + 1) % 3]])))
            .collect();
        let kept = |file: &File| {
            let rowid = if behind.is_empty() { "rowid" } else { "k" };
            file.db.scalar(&format!("SELECT group_concat(k || {rowid} || ifnull(note, '-') || ifnull(made, '-') || typeof(mine) || hex(mine)) FROM t")).unwrap()
        };
        let before = kept(&file);
        assert_eq!(
            file.engine.replace(&access, &exchange(&changes)).await.unwrap(),
            vec![ChangeOutcome::Written; 3]
        );
        assert_eq!(kept(&file), before);
        assert_eq!(
            file.db.scalar("SELECT group_concat(code, '') FROM (SELECT code FROM t ORDER BY k)").as_deref(),
            Some("yzx")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_cannot_be_told_from_another_is_left_alone() {
    // No rowid can be read, and the key is one by its bytes only because nobody made it unique.
    let file = File::with(
        "CREATE TABLE t (k TEXT NOT NULL, v TEXT, rowid, oid, _rowid_); CREATE UNIQUE INDEX one ON t (k); INSERT INTO t (k, v) VALUES ('a', '1'), ('b', '2')",
    )
    .await;
    let wishes = Wishes { key: vec!["k".to_owned()], columns: vec!["v".to_owned()], ..Wishes::default() };
    let access = file.wished("t", wishes).await;
    let rows = file.scan(&access, 1).await.unwrap();
    let (key, row) = rows.iter().next().unwrap();
    file.db.execute("DROP INDEX one; INSERT INTO t (k, v) VALUES ('a', '1')");
    let outcomes = file.apply(&access, &[change(key, Some(row), None)]).await;
    assert!(reason(&outcomes[0]).contains("column"), "{outcomes:?}");
    assert_eq!(file.db.scalar("SELECT count(*) FROM t").as_deref(), Some("3"));
    // A trigger that keeps a row is told, and so is one that makes it another.
    file.db.execute("DELETE FROM t; CREATE TABLE u (k INTEGER PRIMARY KEY, v TEXT, w TEXT); INSERT INTO u VALUES (1, 'a', 'x'), (2, 'b', 'y'); \
        CREATE TRIGGER kept BEFORE DELETE ON u BEGIN SELECT RAISE(IGNORE); END; \
        CREATE TRIGGER other AFTER UPDATE ON u BEGIN UPDATE u SET w = 'mine' WHERE k = new.k; END");
    let access = file.access("u").await;
    let rows = file.scan(&access, 1).await.unwrap();
    let (first, last) = (rows.iter().next().unwrap(), rows.iter().next_back().unwrap());
    let outcomes = file
        .apply(&access, &[change(first.0, Some(first.1), None), change(last.0, Some(last.1), Some(first.1))])
        .await;
    assert!(reason(&outcomes[0]).contains("trigger"), "{outcomes:?}");
    assert!(reason(&outcomes[1]).contains("column w"), "{outcomes:?}");
    assert!(matches!(&outcomes[1], ChangeOutcome::Failed(why) if why.kind == RejectionKind::Value));
    assert_eq!(file.db.scalar("SELECT group_concat(v || w) FROM u").as_deref(), Some("ax,by"));
}
