//! A run is taken back by one undo at a time, and when it has ended: never while it writes on.

use std::time::{Duration, Instant};

use super::evidence::Place;
use super::support::process::{Output, Running, trueup};
use super::undo::{Db, counts, journals};

const ROWS: usize = 4_000;

/// A pair with every row of the target older, and that target's rows.
fn pair(create: fn() -> Db) -> (Db, Db, String) {
    let (source, target) = (create(), create());
    for (db, v) in [(&source, "new"), (&target, "old")] {
        db.execute("CREATE TABLE t (id int PRIMARY KEY, v varchar(20))");
        let rows: Vec<String> = (1..=ROWS).map(|id| format!("({id}, '{v}')")).collect();
        db.execute(&format!("INSERT INTO t VALUES {}", rows.join(", ")));
    }
    let before = state(&target);
    (source, target, before)
}

/// Rows by what they hold.
fn state(db: &Db) -> String {
    let count = |v: &str| db.scalar(&format!("SELECT count(*) FROM t WHERE v = '{v}'")).unwrap();
    format!("{} old, {} new", count("old"), count("new"))
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Slow enough to be caught at it: a batch is written when it has begun, and others are to come.
fn slow_repair(place: &Place, source: &Db, target: &Db, before: &str) -> Running {
    let (from, to, ledger) = (source.url(), target.url(), place.ledger());
    let args = [
        "repair",
        &from,
        &to,
        "-t",
        "t",
        "--quiet",
        "--max-changes",
        "100%",
        "--allow",
        "update",
        "--recheck-delay",
        "1ms",
    ];
    let running =
        Running::start(&[&args[..], &["--max-rows-per-second", "2000", "--ledger", &ledger]].concat());
    until("the repair writes", || state(target) != before);
    running
}

fn run_id(place: &Place) -> String {
    let journal = journals(place).pop().unwrap();
    journal.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_owned()
}

fn refused(output: &Output, why: &str) {
    assert!(output.status == 2 && output.stderr.contains(why), "{why}: {output:?}");
    assert!(output.stderr.contains("nothing was put back"), "{output:?}");
}

#[test]
fn a_run_that_lives_is_not_taken_back() {
    for create in Db::all() {
        let (source, target, before) = pair(create);
        let place = Place::new();
        let running = slow_repair(&place, &source, &target, &before);
        let (run, to) = (run_id(&place), target.url());
        assert!(!state(&target).starts_with("0 old"), "it was caught at it");
        running.stop();
        for args in [&["undo", "last", "--target", &to][..], &["undo", &run, "--target", &to, "--dry-run"]] {
            let undone = place.run(args);
            refused(&undone, "it has not ended, its process lives on");
            assert!(undone.stderr.contains("wait until the run has ended, or stop it"), "{undone:?}");
        }
        running.kill();
        let undone = place.run(&["undo", "last", "--target", &to, "--format", "json"]);
        assert_eq!((undone.status, state(&target)), (0, before), "{undone:?}");
        assert!(undone.stdout.contains("has not closed its undo journal"), "{undone:?}");
    }
}

#[test]
fn without_its_ledger_a_run_that_lives_is_known_by_its_journal() {
    let (source, target, before) = pair(Db::all()[0]);
    let place = Place::new();
    let running = slow_repair(&place, &source, &target, &before);
    let (run, to, dir) = (run_id(&place), target.url(), place.path("undo"));
    let args = ["undo", &run, "--no-ledger", "--target", &to, "--undo-dir", dir.to_str().unwrap()];
    running.stop();
    refused(&trueup(&args), "the run has not ended");
    running.kill();
    let undone = trueup(&args);
    assert_eq!((undone.status, state(&target)), (0, before), "{undone:?}");
}

#[test]
fn of_two_undos_one_works_and_the_other_says_so() {
    for create in Db::all() {
        let (source, target, before) = pair(create);
        let place = Place::new();
        let to = target.url();
        let repaired = place.repair(&source.url(), &to, &["-t", "t", "--max-changes", "100%"]);
        assert_eq!(repaired.status, 0, "{repaired:?}");
        let (after, run) = (state(&target), run_id(&place));
        let args = ["undo", &run, "--target", &to, "--format", "json", "--max-rows-per-second", "2000"];
        let first = std::thread::scope(|scope| {
            let first = scope.spawn(|| place.run(&args));
            until("the first undo writes", || state(&target) != after);
            let second = place.run(&["undo", &run, "--target", &to]);
            refused(&second, "is being taken back already, by another undo");
            refused(&place.run(&["undo", &run, "--target", &to, "--dry-run"]), "being taken back already");
            assert_ne!(state(&target), before, "the first is at work");
            first.join().unwrap()
        });
        let found = counts(&first, &["updated", "moved_on", "altered", "set_aside"]);
        assert_eq!((first.status, found), (0, vec![ROWS as u64, 0, 0, 0]), "{first:?}");
        assert_eq!(state(&target), before);
        // One after the other they find what was taken back.
        let again = place.run(&["undo", &run, "--target", &to, "--format", "json"]);
        assert_eq!(
            (again.status, counts(&again, &["updated", "in_flight"])),
            (0, vec![0, ROWS as u64]),
            "{again:?}"
        );
    }
}
