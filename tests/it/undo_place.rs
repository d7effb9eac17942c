//! An undo writes into the table that the run wrote, and into no other of that name: no copy, no table made anew.

use super::evidence::{Place, run_of};
use super::support::process::{Agent, Output};
use super::undo::{Db, counts, undo};

/// Before the run, and the drift that the run repairs.
const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v int)";
const BEFORE: &str = "INSERT INTO t VALUES (1, 1), (2, 0), (4, 4)";
const REPAIRED: &str = "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)";

fn table_of(create: fn() -> Db, rows: &str) -> Db {
    let db = create();
    db.execute(TABLE);
    db.execute(rows);
    db
}

/// A target that was repaired, its rows before that, and the run.
fn repaired(create: fn() -> Db, place: &Place) -> (Db, String, String) {
    let (source, target) = (table_of(create, REPAIRED), table_of(create, BEFORE));
    let before = target.rows("t", "id,v");
    let done = place.repair(&source.url(), &target.url(), &["-t", "t"]);
    assert_eq!(done.status, 0, "{done:?}");
    (target, before, run_of(&done))
}

fn refused(output: &Output, why: &str) {
    assert!(output.status == 2 && output.stderr.contains(why), "{why}: {output:?}");
    assert!(output.stderr.contains("nothing was put back"), "{output:?}");
}

fn restored(place: &Place, run: &str, target: &str) -> Output {
    place.run(&["undo", run, "--target", target, "--restored", "--format", "json"])
}

#[test]
fn a_copy_is_written_only_where_one_is_meant() {
    let why = ["is another database", "the target is database", "is another file"];
    for (create, why) in Db::all().into_iter().zip(why) {
        let place = Place::new();
        let (target, before, run) = repaired(create, &place);
        let copy = table_of(create, REPAIRED);
        let (now, to) = (target.rows("t", "id,v"), copy.url());
        for more in [&[][..], &["--dry-run"]] {
            let args = [&["undo", &run, "--target", &to][..], more].concat();
            refused(&place.run(&args), why);
            assert_eq!((copy.rows("t", "id,v"), target.rows("t", "id,v")), (now.clone(), now.clone()));
        }
        let meant = restored(&place, &run, &to);
        assert_eq!(
            (meant.status, counts(&meant, &["inserted", "updated", "deleted"])),
            (0, vec![1, 1, 1]),
            "{meant:?}"
        );
        assert_eq!((copy.rows("t", "id,v"), target.rows("t", "id,v")), (before.clone(), now));
        // That undo is taken back where it wrote, and the run still stands where it did.
        let back = undo(&place, &run_of(&meant), &to);
        assert_eq!((back.status, copy.rows("t", "id,v")), (0, target.rows("t", "id,v")), "{back:?}");
        let undone = place.run(&["undo", "last", "--target", &target.url()]);
        assert_eq!((undone.status, target.rows("t", "id,v")), (0, before), "{undone:?}");
    }
}

#[test]
fn an_agent_that_serves_another_database_takes_nothing_back() {
    for create in Db::all() {
        let (source, target, copy) =
            (table_of(create, REPAIRED), table_of(create, BEFORE), table_of(create, REPAIRED));
        let place = Place::new();
        let folder = place.path("remote").to_str().unwrap().to_owned();
        let agent = |db: &Db| {
            let url = db.url();
            let args = ["--database", "env:DB", "--allow-write", "--undo-dir", &folder];
            Agent::start(&args, &[("DB", url.as_str())])
        };
        let first = agent(&target);
        let done = place.repair(&source.url(), &format!("grpc://{}", first.address), &["-t", "t"]);
        assert_eq!(done.status, 0, "{done:?}");
        drop(first);
        let (other, run) = (agent(&copy), run_of(&done));
        let undone = undo(&place, &run, &format!("grpc://{}", other.address));
        refused(&undone, "the target is");
        assert_eq!(copy.rows("t", "id,v"), source.rows("t", "id,v"));
        let first = agent(&target);
        let undone = undo(&place, &run, &format!("grpc://{}", first.address));
        assert_eq!(undone.status, 0, "{undone:?}");
    }
}

#[test]
fn a_table_that_was_made_anew_is_another() {
    let why = [
        "was dropped and made anew since the run",
        "made anew, truncated or rebuilt",
        "may have been dropped and made anew",
    ];
    for (create, why) in Db::all().into_iter().zip(why) {
        let place = Place::new();
        let (target, before, run) = repaired(create, &place);
        for sql in ["DROP TABLE t", TABLE, REPAIRED] {
            target.execute(sql);
        }
        let now = target.rows("t", "id,v");
        refused(&undo(&place, &run, &target.url()), why);
        assert_eq!(target.rows("t", "id,v"), now);
        let meant = restored(&place, &run, &target.url());
        assert_eq!((meant.status, target.rows("t", "id,v")), (0, before), "{meant:?}");
    }
}

#[test]
fn a_table_that_is_gone_is_no_reason_to_write_another() {
    for create in Db::all() {
        let place = Place::new();
        let (target, _, run) = repaired(create, &place);
        target.execute("DROP TABLE t");
        refused(&undo(&place, &run, &target.url()), "has no table");
    }
}

#[test]
fn what_is_done_to_a_table_every_day_leaves_it_the_same() {
    let daily: [&[&str]; 3] = [
        &["ANALYZE t", "VACUUM t", "VACUUM FULL t", "CREATE INDEX i ON t (v)", "CREATE TABLE u (a int)"],
        &["ANALYZE TABLE t", "CREATE INDEX i ON t (v)", "CREATE TABLE u (a int)"],
        &[
            "ANALYZE",
            "VACUUM",
            "CREATE INDEX i ON t (v)",
            "CREATE TABLE u (a int)",
            "INSERT INTO u VALUES (1)",
        ],
    ];
    for (create, daily) in Db::all().into_iter().zip(daily) {
        let place = Place::new();
        let (target, before, run) = repaired(create, &place);
        daily.iter().for_each(|sql| target.execute(sql));
        let undone = undo(&place, &run, &target.url());
        assert_eq!((undone.status, target.rows("t", "id,v")), (0, before), "{undone:?}");
    }
}

#[test]
fn a_file_that_was_moved_is_the_same_and_its_copy_is_not() {
    let place = Place::new();
    let (source, target) = (table_of(Db::all()[2], REPAIRED), place.path("target.db"));
    let open = |path: &std::path::Path| rusqlite::Connection::open(path).unwrap();
    open(&target).execute_batch(&format!("{TABLE}; {BEFORE}")).unwrap();
    let url = |path: &std::path::Path| format!("sqlite://{}", path.display());
    let run = run_of(&place.repair(&source.url(), &url(&target), &["-t", "t"]));
    let copy = place.path("copy.db");
    std::fs::copy(&target, &copy).unwrap();
    refused(&undo(&place, &run, &url(&copy)), "is another file");
    // Laid over it: the same rows, and nobody knows whose.
    let moved = place.path("moved.db");
    std::fs::rename(&target, &moved).unwrap();
    std::fs::rename(&copy, &target).unwrap();
    refused(&undo(&place, &run, &url(&target)), "is another file");
    assert_eq!(undo(&place, &run, &url(&moved)).status, 0);
}

#[test]
fn a_column_that_is_another_since_is_said_as_it_is() {
    let altered: [&[(&str, &str)]; 3] = [
        &[
            ("ALTER TABLE t RENAME COLUMN v TO w", "column v is not there any more"),
            (
                "ALTER TABLE t ALTER COLUMN w TYPE bigint; ALTER TABLE t RENAME COLUMN w TO v",
                "column v is bigint now and was integer",
            ),
        ],
        &[("ALTER TABLE t RENAME COLUMN v TO w", "column v is not there any more")],
        &[("ALTER TABLE t DROP COLUMN v", "column v is not there any more")],
    ];
    for (create, altered) in Db::all().into_iter().zip(altered) {
        let place = Place::new();
        let (target, _, run) = repaired(create, &place);
        for (sql, why) in altered {
            target.execute(sql);
            let undone = undo(&place, &run, &target.url());
            refused(&undone, why);
            assert!(undone.stderr.contains("was altered since the run"), "{undone:?}");
            assert!(undone.stderr.contains("the name and the type that it had"), "{undone:?}");
        }
    }
}
