//! What is not allowed is not written, by whatever path a change comes: found by key, inserted in bulk, tried again, exchanged,
//! or turned into another operation while the run goes on. The same on three engines.

use std::collections::BTreeMap;
use std::sync::Arc;

use trueup::agent::{AgentHandle, Allow, TableOutcome, TableTask, in_process, start};
use trueup::engine;

use super::support::agents::{local, outcome, task};
use super::support::any::{AnyDb, KINDS, Kind};
use super::support::hooked::HookedEngine;

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, a varchar(40) NOT NULL UNIQUE)";

fn pair(kind: Kind) -> (AnyDb, AnyDb) {
    let both = (AnyDb::create(kind), AnyDb::create(kind));
    both.0.execute(TABLE);
    both.1.execute(TABLE);
    both
}

async fn agent(db: &AnyDb) -> AgentHandle {
    in_process(local(engine::open(&db.url()).await.unwrap()))
}

async fn run(task: TableTask, source: &AgentHandle, target: &AgentHandle) -> TableOutcome {
    outcome(start(source, target, task).await.unwrap()).await
}

/// How often each operation was done, by what the rows were before and are now.
fn operations(before: &[(i64, String)], after: &[(i64, String)]) -> [u64; 3] {
    let (before, after): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (before.iter().cloned().collect(), after.iter().cloned().collect());
    let inserted = after.keys().filter(|id| !before.contains_key(id)).count();
    let updated = before.iter().filter(|(id, a)| after.get(id).is_some_and(|now| now != *a)).count();
    let deleted = before.keys().filter(|id| !after.contains_key(id)).count();
    [inserted, updated, deleted].map(|count| count as u64)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_keeps_to_every_set_of_operations() {
    for kind in KINDS {
        for set in 0..8u8 {
            let allow = Allow { insert: set & 1 != 0, update: set & 2 != 0, delete: set & 4 != 0 };
            let (source, target) = pair(kind);
            source.fill("t", 1..=1_500, &format!("i, {}", word(kind)));
            // A block is missing (bulk), single rows are, some are old, some extra. Two exchange a unique value, and one
            // row's value is held by an extra one: it is refused until that is deleted.
            target.fill("t", 1..=700, &format!("i, {}", word(kind)));
            target.execute("DELETE FROM t WHERE id IN (10, 20, 30)");
            target.execute("UPDATE t SET a = 'old40' WHERE id = 40; UPDATE t SET a = 'old41' WHERE id = 41");
            target.execute("UPDATE t SET a = 'free' WHERE id = 50; UPDATE t SET a = 'row50' WHERE id = 51; UPDATE t SET a = 'row51' WHERE id = 50");
            target.execute("UPDATE t SET a = 'old60' WHERE id = 60; INSERT INTO t VALUES (9001, 'row60'); INSERT INTO t VALUES (9002, 'extra')");
            let before = target.rows();
            let (from, to) = (agent(&source).await, agent(&target).await);
            let mut task = task(&from, &to, "t").await;
            task.options.repair = Some(allow);
            let done = run(task, &from, &to).await;
            let said = format!("{kind:?} {allow:?} {done:?}");
            let [inserted, updated, deleted] = operations(&before, &target.rows());
            assert_eq!([inserted, updated, deleted], [done.inserted, done.updated, done.deleted], "{said}");
            assert_eq!(inserted, if allow.insert { 803 } else { 0 }, "{said}");
            // Row 60 waits for the extra row that holds its value, and the exchange of the two others for row 60.
            let all_updates = if allow.delete { 5 } else { 2 };
            assert_eq!(updated, if allow.update { all_updates } else { 0 }, "{said}");
            assert_eq!(deleted, if allow.delete { 2 } else { 0 }, "{said}");
            // Each of the 810 rows counts once, however often it was tried.
            assert_eq!([done.missing, done.changed, done.extra], [803, 5, 2], "{said}");
            let not_written = done.left + done.set_aside;
            assert_eq!(inserted + updated + deleted + not_written, 810, "{said}");
            assert_eq!(done.proved, set == 7, "{said}");
        }
    }
}

fn word(kind: Kind) -> &'static str {
    if kind == Kind::Mysql { "concat('row', i)" } else { "'row' || i" }
}

/// An update that the target refuses becomes a delete, because its source row goes while it is tried again.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_goes_while_it_is_refused_is_not_deleted_unasked() {
    for kind in KINDS {
        for gone_before in [1, 2, 3] {
            let (source, target) = pair(kind);
            let source = Arc::new(source);
            source.execute("INSERT INTO t VALUES (1, 'x'); INSERT INTO t VALUES (2, 'y')");
            target.execute("INSERT INTO t VALUES (1, 'old'); INSERT INTO t VALUES (2, 'y'); INSERT INTO t VALUES (99, 'x')");
            let at_source = Arc::clone(&source);
            let inner = engine::open(&target.url()).await.unwrap();
            let hooked = HookedEngine::before_writes(inner, move |nth| {
                if nth == gone_before {
                    at_source.execute("DELETE FROM t WHERE id = 1");
                }
            });
            let (from, to) = (agent(&source).await, in_process(local(hooked)));
            let mut task = task(&from, &to, "t").await;
            task.options.repair = Some(Allow { insert: true, update: true, delete: false });
            let done = run(task, &from, &to).await;
            let said = format!("{kind:?} {gone_before} {done:?}");
            assert_eq!(target.count("SELECT count(*) FROM t WHERE id = 1 AND a = 'old'"), 1, "{said}");
            assert_eq!((done.deleted, done.updated), (0, 0), "{said}");
            assert_eq!(done.missing + done.changed + done.extra + done.unsettled, 2, "each row once: {said}");
            assert!(!done.proved, "{said}");
        }
    }
}

/// A row that changes at the target each time just before it is written, also when it is tried again.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_goes_stale_when_it_is_tried_again_is_counted() {
    for (changes_at, unsettled) in [(2, 0), (u32::MAX, 1)] {
        let (source, target) = pair(Kind::Sqlite);
        let target = Arc::new(target);
        source.execute("INSERT INTO t VALUES (1, 'x'); INSERT INTO t VALUES (3, 'z')");
        target.execute(
            "INSERT INTO t VALUES (1, 'old'); INSERT INTO t VALUES (3, 'z'); INSERT INTO t VALUES (99, 'x')",
        );
        let at_target = Arc::clone(&target);
        let inner = engine::open(&target.url()).await.unwrap();
        let hooked = HookedEngine::before_writes(inner, move |nth| {
            if nth == changes_at || (changes_at == u32::MAX && nth > 1) {
                at_target.execute(&format!("UPDATE t SET a = 'moved{nth}' WHERE id = 1"));
            }
        });
        let (from, to) = (agent(&source).await, in_process(local(hooked)));
        let mut task = task(&from, &to, "t").await;
        task.options.repair = Some(Allow { insert: true, update: true, delete: false });
        let done = run(task, &from, &to).await;
        // The extra row is left; the other one is refused, or moves to the end: it is one row in either case.
        assert_eq!((done.left, done.extra), (1, 1), "{done:?}");
        assert_eq!((done.changed, done.unsettled), (1 - unsettled, unsettled), "{done:?}");
        assert_eq!(done.set_aside, 1 - unsettled, "{done:?}");
        assert!(!done.proved);
    }
}

/// An update of a column that other tables' foreign keys follow changes their rows too.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_spreads_needs_leave_to_cascade() {
    for kind in KINDS {
        for cascade in [false, true] {
            let (source, target) = pair(kind);
            let child = "CREATE TABLE c (id bigint PRIMARY KEY, a varchar(40), FOREIGN KEY (a) REFERENCES t (a) ON UPDATE CASCADE)";
            target.execute(child);
            source.execute("INSERT INTO t VALUES (1, 'new'); INSERT INTO t VALUES (2, 'same')");
            target.execute("INSERT INTO t VALUES (1, 'old'); INSERT INTO t VALUES (2, 'same'); INSERT INTO c VALUES (7, 'old')");
            let (from, to) = (agent(&source).await, agent(&target).await);
            let mut task = task(&from, &to, "t").await;
            task.options.repair = Some(Allow { insert: true, update: true, delete: false });
            task.options.allow_cascade = cascade;
            let done = run(task, &from, &to).await;
            let said = format!("{kind:?} {cascade} {done:?}");
            assert_eq!((done.updated, done.left), if cascade { (1, 0) } else { (0, 1) }, "{said}");
            let child = target.scalar("SELECT a FROM c");
            assert_eq!(child.as_deref(), Some(if cascade { "new" } else { "old" }), "{said}");
        }
    }
}

/// What another session makes of the target's rows just before they are written is not this run's: it is not counted, and
/// an undo would leave it.
#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_wrote_meanwhile_is_not_counted_as_written() {
    for kind in KINDS {
        for (rows, bulk) in [(1..=3, false), (1..=1_000, true)] {
            let (source, target) = pair(kind);
            let target = Arc::new(target);
            source.fill("t", rows, &format!("i, {}", word(kind)));
            if !bulk {
                target.execute("INSERT INTO t VALUES (2, 'old'); INSERT INTO t VALUES (9, 'extra')");
            }
            let at_target = Arc::clone(&target);
            let inner = engine::open(&target.url()).await.unwrap();
            let hooked = HookedEngine::before_writes(inner, move |nth| {
                match nth {
                1 if bulk => at_target.execute("INSERT INTO t VALUES (7, 'row7')"),
                1 => at_target.execute(
                    "INSERT INTO t VALUES (1, 'row1'); UPDATE t SET a = 'row2' WHERE id = 2; DELETE FROM t WHERE id = 9",
                ),
                _ => {}
            }
            });
            let (from, to) = (agent(&source).await, in_process(local(hooked)));
            let mut task = task(&from, &to, "t").await;
            task.options.repair = Some(Allow::ALL);
            let done = run(task, &from, &to).await;
            let said = format!("{kind:?} {bulk} {done:?}");
            let written = [done.inserted, done.updated, done.deleted];
            assert_eq!(written, if bulk { [999, 0, 0] } else { [1, 0, 0] }, "{said}");
            assert!(done.proved, "{said}");
        }
    }
}
