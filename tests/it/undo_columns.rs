//! Columns that are not put back as they are read: those that the database computes, and texts with bytes that are no characters.

use super::evidence::{Place, run_of};
use super::undo::{Db, counts, limits, undo};

#[test]
fn computed_columns_that_were_not_compared_follow_the_others() {
    // One engine knows stored ones alone, each knows these.
    let computed = [
        "g int GENERATED ALWAYS AS (v * 2) STORED",
        "g int GENERATED ALWAYS AS (v * 2) STORED, w int GENERATED ALWAYS AS (v + 1) VIRTUAL",
        "g int GENERATED ALWAYS AS (v * 2) STORED, w int GENERATED ALWAYS AS (v + 1) VIRTUAL",
    ];
    for (create, computed) in Db::all().into_iter().zip(computed) {
        for (source_columns, more) in [
            ("v int", &["--unpaired", "ignore"][..]),
            ("v int, g int", &["--exclude", "g", "--unpaired", "ignore"]),
            // Compared: the source's are the same.
            ("v int, g int", &["--unpaired", "ignore"]),
        ] {
            let (source, target) = (create(), create());
            source.execute(&format!("CREATE TABLE t (id int PRIMARY KEY, {source_columns})"));
            let columns = if source_columns.contains('g') { "id, v, g" } else { "id, v" };
            let row = |id: i32, v: i32| match columns {
                "id, v" => format!("({id}, {v})"),
                _ => format!("({id}, {v}, {})", v * 2),
            };
            source.execute(&format!("INSERT INTO t ({columns}) VALUES {}, {}", row(1, 1), row(2, 2)));
            target
                .execute(&format!("CREATE TABLE t (id int PRIMARY KEY, v int, {computed}, note varchar(9))"));
            target.execute("INSERT INTO t (id, v, note) VALUES (1, 5, 'n'), (3, 7, 'm')");
            let before = target.rows("t", "id,v,g,note");
            let place = Place::new();
            let repaired = place.repair(&source.url(), &target.url(), &[&["-t", "t"], more].concat());
            assert_eq!((repaired.status, limits(&repaired).as_str()), (0, "null"), "{repaired:?}");
            assert_eq!(target.scalar("SELECT sum(g) FROM t").as_deref(), Some("6"));
            let undone = undo(&place, &run_of(&repaired), &target.url());
            let found = counts(&undone, &["inserted", "updated", "deleted"]);
            assert_eq!((undone.status, found), (0, vec![1, 1, 1]), "{more:?} {undone:?}");
            assert_eq!(target.rows("t", "id,v,g,note"), before);
        }
    }
}

#[test]
fn bytes_without_a_character_come_back_as_they_were() {
    let mysql = Db::all()[1];
    for (set, byte) in [
        ("cp1251", "98"),
        ("dec8", "FF"),
        ("ascii", "80"),
        ("greek", "FF"),
        ("swe7", "FF"),
        ("cp1257", "A1"),
        ("hebrew", "FF"),
        ("cp850", "3F"),
    ] {
        for ty in ["varchar(20)", "char(6)", "text"] {
            let (source, target) = (mysql(), mysql());
            for db in [&source, &target] {
                db.execute(&format!(
                    "CREATE TABLE t (id int PRIMARY KEY, v {ty} CHARACTER SET {set}, n int)"
                ));
            }
            source.execute("INSERT INTO t VALUES (1, 'plain', 1), (2, 'as?', 2)");
            // One is updated in its text, one beside it, one deleted.
            for (id, text) in [(1, byte.to_owned()), (2, "61733F".to_owned()), (3, format!("41{byte}42"))] {
                target.execute(&format!("INSERT INTO t VALUES ({id}, CAST(X'{text}' AS BINARY), 7)"));
            }
            let before = target.rows("t", "id,v,n");
            assert!(before.contains(&format!("41{byte}42")), "{before}");
            for more in [&[][..], &["--columns", "n"]] {
                let place = Place::new();
                let repaired = place.repair(&source.url(), &target.url(), &[&["-t", "t"], more].concat());
                assert_eq!((repaired.status, limits(&repaired).as_str()), (0, "null"), "{set} {repaired:?}");
                let undone = undo(&place, &run_of(&repaired), &target.url());
                assert_eq!(
                    (undone.status, target.rows("t", "id,v,n")),
                    (0, before.clone()),
                    "{set} {ty} {undone:?}"
                );
            }
        }
    }
}

#[test]
fn a_row_into_which_others_wrote_in_a_column_of_later_is_not_deleted() {
    for create in Db::all() {
        let (source, target) = (create(), create());
        for db in [&source, &target] {
            db.execute("CREATE TABLE t (id int PRIMARY KEY, v int)");
        }
        source.execute("INSERT INTO t VALUES (1, 1), (2, 2)");
        target.execute("INSERT INTO t VALUES (2, 9)");
        let place = Place::new();
        let repaired = place.repair(&source.url(), &target.url(), &["-t", "t"]);
        assert_eq!(repaired.status, 0, "{repaired:?}");
        target.execute("ALTER TABLE t ADD COLUMN z varchar(20)");
        target.execute("UPDATE t SET z = 'theirs' WHERE id = 1");
        let undone = undo(&place, &run_of(&repaired), &target.url());
        assert_eq!((undone.status, counts(&undone, &["updated", "deleted"])), (1, vec![1, 0]), "{undone:?}");
        assert!(format!("{undone:?}").contains("column z was added since the run"), "{undone:?}");
        assert_eq!(target.scalar("SELECT z FROM t WHERE id = 1").as_deref(), Some("theirs"));
    }
}
