//! Sets, whose order means nothing, and geometries, whose reference system means much.

use crate::support::permit::permitted;
use std::sync::Arc;

use trueup::engine::Engine;
use trueup::model::{
    Change, ChangeOutcome, ComparisonType, Plan, RejectionKind, Role, TableAccess, Value, Wishes,
};

use super::{Db, index, inserts, scan, values};

async fn both(db: &Db, wishes: &Wishes) -> (Arc<TableAccess>, Arc<TableAccess>) {
    let server = db.engine.server().await.unwrap();
    let (source, target) = (db.schema("a").await, db.schema("b").await);
    let plan = Plan::agree((&source, &server), (&target, &server), wishes).unwrap();
    (Arc::new(plan.access(Role::Source)), Arc::new(plan.access(Role::Target)))
}

#[tokio::test]
async fn equal_sets_are_equal_in_whatever_order_they_are_declared() {
    let db = Db::create().await;
    for (of_a, of_b) in [
        ("SET('a','b','ü','c d')", "SET('c d','ü','b','a')"),
        ("SET('a','b','ü','c d') CHARACTER SET latin1", "SET('b','new','a','c d','ü')"),
    ] {
        db.execute(&format!(
            "DROP TABLE IF EXISTS a, b; CREATE TABLE a (id INT, k {of_a}, s {of_a}, v INT, PRIMARY KEY (id, k)); \
             CREATE TABLE b (id INT, k {of_b}, s {of_b}, v INT, PRIMARY KEY (id, k)); \
             INSERT INTO a VALUES (1, 'a,b', 'a,b', 1), (1, '', '', 1), (2, 'a,b,ü,c d', 'ü', 2), (3, 'b', NULL, 3); \
             INSERT INTO b SELECT * FROM a"
        ))
        .await;
        let (source, target) = both(&db, &Wishes::default()).await;
        assert_eq!(source.columns[1].comparison, ComparisonType::Set);
        let rows = scan(&db.engine, &source).await;
        assert_eq!(index(&scan(&db.engine, &target).await), index(&rows));
        // Written into the other, each is what it was.
        db.execute("UPDATE b SET s = 'b'").await;
        let old = index(&scan(&db.engine, &target).await);
        let updates: Vec<Change> = rows
            .iter()
            .map(|row| Change {
                key: row.key.clone(),
                before: old.get(row.key.as_bytes()).cloned(),
                after: Some(row.row.clone()),
            })
            .collect();
        assert_eq!(
            db.engine.apply(&target, &permitted(&updates)).await.unwrap(),
            vec![ChangeOutcome::Written; 4]
        );
        assert_eq!(index(&scan(&db.engine, &target).await), index(&rows));
        db.execute("DELETE FROM b").await;
        for change in inserts(&rows) {
            db.execute(&db.engine.statement(&target, &change).await.unwrap()).await;
        }
        assert_eq!(index(&scan(&db.engine, &target).await), index(&rows));
        let equal = "SELECT COUNT(*) FROM a JOIN b ON a.id = b.id AND a.k + 0 > 0 AND FIND_IN_SET('b', a.k) > 0 AND FIND_IN_SET('b', b.k) > 0";
        assert_eq!(db.scalar(equal).await, "3");
    }
    // A label that the other lacks is told.
    db.execute(
        "DROP TABLE b; CREATE TABLE b (id INT, k SET('a','b'), s SET('a','b'), v INT, PRIMARY KEY (id, k))",
    )
    .await;
    let (source, target) = both(&db, &Wishes::default()).await;
    let outcomes =
        db.engine.apply(&target, &permitted(&inserts(&scan(&db.engine, &source).await))).await.unwrap();
    let refused = outcomes.iter().filter(
        |outcome| matches!(outcome, ChangeOutcome::Failed(found) if found.kind == RejectionKind::Value),
    );
    assert_eq!(refused.count(), 1, "{outcomes:?}");
    db.drop_all().await;
}

const GEOMETRIES: &str = "(1, ST_GeomFromText('POINT(1 2)')), (2, ST_GeomFromText('POINT(1 2)', 3857)), \
    (3, ST_GeomFromText('POINT(0.1 -0.30000000000000004)', 4326)), (4, ST_GeomFromText('MULTIPOINT(1 2,3 4)', 4326)), \
    (5, ST_GeomFromText('LINESTRING(0 0, 1e-300 1.7976931348623157e308)')), (6, NULL), \
    (7, ST_GeomFromText('POLYGON((0 0,10 0,10 10,0 10,0 0),(5 5,7 5,7 7,5 7,5 5))', 3857))";

#[tokio::test]
async fn geometries_are_compared_and_written_with_their_reference_system() {
    let db = Db::create().await;
    db.execute(&format!(
        "CREATE TABLE a (id INT PRIMARY KEY, g GEOMETRY); CREATE TABLE b LIKE a; INSERT INTO a VALUES {GEOMETRIES}"
    ))
    .await;
    let stored = "SELECT GROUP_CONCAT(HEX(g) ORDER BY id) FROM";
    for as_text in [false, true] {
        let wishes = if as_text {
            Wishes { as_text: vec!["g".into()], ..Wishes::default() }
        } else {
            Wishes::default()
        };
        let (source, target) = both(&db, &wishes).await;
        let rows = scan(&db.engine, &source).await;
        if as_text {
            let shown = |at: usize| values(&source, &rows[at])[1].to_text().unwrap_or_default();
            assert_eq!((shown(0).as_str(), shown(1).as_str()), ("POINT(1 2)", "SRID=3857;POINT(1 2)"));
        } else {
            assert!(matches!(values(&source, &rows[0])[1], Value::Bytes(_)));
        }
        let keys: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
        assert_eq!(index(&db.engine.fetch(&source, &keys).await.unwrap()), index(&rows));
        assert_eq!(
            db.engine.apply(&target, &permitted(&inserts(&rows))).await.unwrap(),
            vec![ChangeOutcome::Written; 7]
        );
        assert_eq!(db.scalar(&format!("{stored} b")).await, db.scalar(&format!("{stored} a")).await);
        assert_eq!(index(&scan(&db.engine, &target).await), index(&rows));
        // Another reference system is another value, and so is another last digit.
        db.execute(
            "UPDATE b SET g = ST_GeomFromText('POINT(1 2)', 3857) WHERE id = 1; \
             UPDATE b SET g = ST_GeomFromText('LINESTRING(0 0, 1e-300 1.7976931348623155e308)') WHERE id = 5",
        )
        .await;
        let old = index(&scan(&db.engine, &target).await);
        let updates: Vec<Change> = rows
            .iter()
            .filter(|row| old.get(row.key.as_bytes()) != Some(&row.row))
            .map(|row| Change {
                key: row.key.clone(),
                before: old.get(row.key.as_bytes()).cloned(),
                after: Some(row.row.clone()),
            })
            .collect();
        assert_eq!(updates.len(), 2, "as text: {as_text}");
        assert_eq!(
            db.engine.apply(&target, &permitted(&updates)).await.unwrap(),
            vec![ChangeOutcome::Written; 2]
        );
        assert_eq!(db.scalar(&format!("{stored} b")).await, db.scalar(&format!("{stored} a")).await);
        db.execute("DELETE FROM b").await;
        for change in inserts(&rows) {
            db.execute(&db.engine.statement(&target, &change).await.unwrap()).await;
        }
        assert_eq!(db.scalar(&format!("{stored} b")).await, db.scalar(&format!("{stored} a")).await);
        db.execute("DELETE FROM b").await;
    }
    db.drop_all().await;
}

/// A column for one reference system refuses rows of another, one by one.
#[tokio::test]
async fn a_row_of_another_reference_system_than_its_column_is_set_aside() {
    let db = Db::create().await;
    if db.scalar("SELECT VERSION()").await.contains("MariaDB") {
        // It has no such columns.
        return db.drop_all().await;
    }
    db.execute(
        "CREATE TABLE a (id INT PRIMARY KEY, g POINT); CREATE TABLE b (id INT PRIMARY KEY, g POINT SRID 4326); \
         INSERT INTO a VALUES (1, ST_GeomFromText('POINT(1 2)', 4326)), (2, ST_GeomFromText('POINT(1 2)'))",
    )
    .await;
    for as_text in [vec![], vec!["g".to_owned()]] {
        let (source, target) = both(&db, &Wishes { as_text, ..Wishes::default() }).await;
        let rows = scan(&db.engine, &source).await;
        let outcomes = db.engine.apply(&target, &permitted(&inserts(&rows))).await.unwrap();
        assert_eq!(outcomes[0], ChangeOutcome::Written);
        assert!(
            matches!(&outcomes[1], ChangeOutcome::Failed(found) if found.kind == RejectionKind::Value),
            "{outcomes:?}"
        );
        db.execute("DELETE FROM b").await;
    }
    db.drop_all().await;
}
