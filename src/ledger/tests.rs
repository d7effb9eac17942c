//! The ledger on an SQLite file: what is kept is what is read back, the trail holds, retention bridges.

use super::*;
use crate::agent::TableOutcome;
use crate::report::checks::{CheckResult, Status};
use crate::report::record::{DifferenceRecord, TableRecord};

async fn ledger() -> (tempfile::TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_file(&dir.path().join("deep/ledger.db"), true).await.unwrap();
    (dir, ledger)
}

pub(super) fn start(n: u32) -> RunStart {
    RunStart {
        id: format!("run-{n:04}"),
        kind: if n.is_multiple_of(2) { "diff" } else { "repair" }.into(),
        who: "ann".into(),
        host: "here".into(),
        process: String::new(),
        software: "trueup".into(),
        started_at: format!("2026-01-{:02}T00:00:00.000Z", n + 1),
        source: "sqlite://a".into(),
        target: "sqlite://b".into(),
        target_reference: String::new(),
        writes: true,
        undoes: None,
        options: serde_json::json!({ "b": 1.5, "a": [true, null] }),
    }
}

pub(super) fn end(n: u32) -> RunEnd {
    let mut outcome = TableOutcome { missing: u64::from(n), proved: true, ..TableOutcome::default() };
    outcome.seconds.scan = 0.1 + 0.2;
    outcome.repaired_root = Some("ab".into());
    let difference = |at: u32| DifferenceRecord {
        kind: "changed".into(),
        key: format!("k{at}"),
        columns: vec!["a".into(), "it's \"b\"".into()],
        reason: at.is_multiple_of(2).then(|| "why".into()),
    };
    let table = TableRecord {
        source_table: "t".into(),
        target_table: "u".into(),
        verdict: "same".into(),
        plan_fingerprint: Some("ff".into()),
        plan: None,
        outcome,
        warnings: vec!["w".into()],
        error: None,
        backfill: None,
        differences: (0..1203).map(difference).collect(),
    };
    RunEnd {
        ended_at: format!("2026-01-{:02}T00:00:01.000Z", n + 1),
        outcome: "same".into(),
        error: None,
        only_in_source: vec!["x".into()],
        only_in_target: Vec::new(),
        tables: vec![table.clone(), TableRecord { differences: Vec::new(), ..table }],
        checks: vec![check(Status::Pass), check(Status::Fail)],
    }
}

fn check(status: Status) -> CheckResult {
    CheckResult {
        name: "counts".into(),
        kind: "count".into(),
        pair: "shop".into(),
        table: Some("t".into()),
        status,
        severity: "warning".into(),
        owner: None,
        source: Some("1".into()),
        target: Some("2".into()),
        difference: Some("1".into()),
        message: None,
        hint: None,
        extent: None,
        columns: None,
        notes: Vec::new(),
        seconds: 0.25,
    }
}

fn row(n: u32, at: u32) -> Entry {
    let base = start(n);
    Entry {
        at: base.started_at.clone(),
        run: base.id,
        kind: "row".into(),
        key: format!("{at}"),
        ..Entry::default()
    }
}

#[tokio::test]
async fn what_is_kept_is_what_is_read() {
    let (_dir, ledger) = ledger().await;
    for n in 0..3 {
        ledger.begin(&start(n)).await.unwrap();
        if n < 2 {
            ledger.finish(&start(n), &end(n)).await.unwrap();
        }
    }
    let run = ledger.run("run-0001").await.unwrap();
    assert_eq!(run.tables, end(1).tables);
    assert_eq!(run.checks, end(1).checks);
    assert_eq!(run.options, start(1).options);
    assert_eq!((run.outcome_text(), run.only_in_source.len()), ("same", 1));
    assert_eq!(ledger.run("last").await.unwrap().outcome, None);
    assert!(ledger.run("run").await.unwrap_err().what.contains("more than one"));
    assert!(ledger.run("%").await.is_err() && ledger.run("").await.is_err());
    let list = |filter: RunFilter| {
        let ledger = ledger.clone();
        async move { ledger.runs(&filter).await.unwrap().into_iter().map(|run| run.id).collect::<Vec<_>>() }
    };
    assert_eq!(list(RunFilter::default()).await, ["run-0002", "run-0001", "run-0000"]);
    assert_eq!(list(RunFilter { limit: Some(1), ..RunFilter::default() }).await, ["run-0002"]);
    assert_eq!(list(RunFilter { kind: Some("repair".into()), ..RunFilter::default() }).await, ["run-0001"]);
    assert_eq!(list(RunFilter { outcome: Some("open".into()), ..RunFilter::default() }).await, ["run-0002"]);
    let before = |id: &str| RunFilter { before: Some(id.into()), limit: Some(1), ..RunFilter::default() };
    assert_eq!(list(before("run-0002")).await, ["run-0001"]);
    assert!(list(before("run-0000")).await.is_empty() && list(before("none")).await.is_empty());
    let filter = RunFilter { tables: vec!["u".into()], outcome: Some("same".into()), ..RunFilter::default() };
    assert_eq!(list(filter).await, ["run-0001", "run-0000"]);
    assert!(ledger.finish(&start(1), &end(1)).await.is_err(), "a run ends once");
    assert!(ledger.begin(&start(1)).await.is_err(), "an id is used once");
    let verified = ledger.verify(None).await.unwrap();
    assert_eq!(
        (verified.faults, verified.open_runs, verified.entries),
        (vec![], vec!["run-0002".to_owned()], 5)
    );
}

#[tokio::test]
async fn a_record_altered_after_its_end_is_named() {
    for sql in [
        "UPDATE trueup_runs SET who = 'eve'",
        "UPDATE trueup_runs SET outcome = 'different'",
        "UPDATE trueup_tables SET outcome = replace(outcome, '\"missing\":1', '\"missing\":0') WHERE position = 1",
        "UPDATE trueup_tables SET inserted = inserted + 1 WHERE position = 1",
        "UPDATE trueup_tables SET source_root = 'x' WHERE position = 1",
        "UPDATE trueup_tables SET proved = 1 - proved WHERE position = 1",
        "UPDATE trueup_differences SET key = 'other' WHERE position = 700",
        "DELETE FROM trueup_differences WHERE position = 700",
        "DELETE FROM trueup_tables WHERE position = 1",
        "UPDATE trueup_checks SET status = 'pass' WHERE position = 1",
        "UPDATE trueup_checks SET result = replace(result, '\"fail\"', '\"pass\"') WHERE position = 1",
        "DELETE FROM trueup_checks WHERE position = 0",
    ] {
        let (dir, ledger) = ledger().await;
        ledger.begin(&start(1)).await.unwrap();
        ledger.finish(&start(1), &end(1)).await.unwrap();
        assert_eq!(ledger.verify(None).await.unwrap().faults, []);
        let file = rusqlite::Connection::open(dir.path().join("deep/ledger.db")).unwrap();
        assert!(file.execute(sql, []).unwrap() > 0);
        assert_eq!(
            ledger.verify(None).await.unwrap().faults,
            [Fault::Record { run: "run-0001".into() }],
            "{sql}"
        );
    }
}

#[tokio::test]
async fn many_hands_make_one_chain() {
    let (dir, _) = ledger().await;
    let path = dir.path().join("deep/ledger.db");
    let hands = (0..8u32).map(|hand| {
        let path = path.clone();
        tokio::spawn(async move {
            let ledger = Ledger::open_file(&path, true).await.unwrap();
            for at in 0..10 {
                let entries = (0..30).map(|n| row(hand, at * 30 + n)).collect();
                ledger.append(entries).await.unwrap();
            }
        })
    });
    for hand in hands {
        hand.await.unwrap();
    }
    let ledger = Ledger::open_file(&path, false).await.unwrap();
    let verified = ledger.verify(None).await.unwrap();
    assert_eq!((verified.faults.as_slice(), verified.entries), (&[][..], 2400));
    let mine = ledger
        .entries(0, 10_000, &EntryFilter { run: Some("run-0003".into()), ..EntryFilter::default() })
        .await
        .unwrap();
    assert!(mine.iter().map(|link| link.entry.key.parse::<u32>().unwrap()).eq(0..300), "in their order");
}

#[tokio::test]
async fn retention_never_breaks_the_chain() {
    let (_dir, ledger) = ledger().await;
    for n in 0..8 {
        ledger.begin(&start(n)).await.unwrap();
        ledger.append(vec![row(n, 1), row(n, 2)]).await.unwrap();
        // The third is never ended.
        if n != 3 {
            ledger.finish(&start(n), &end(n)).await.unwrap();
        }
    }
    let day = |day: u32| Some(format!("2026-01-{day:02}T00:00:00.000Z"));
    let keep = Keep { runs_since: day(3), last_runs: 0, trail_since: day(3) };
    let noted = ledger.head().await.unwrap();
    let expected = Removed { runs: 2, entries: 8 };
    assert_eq!(ledger.prunable(&keep).await.unwrap(), expected);
    let by = RunStart { started_at: "2026-02-01T00:00:00.000Z".into(), id: String::new(), ..start(9) };
    assert_eq!(ledger.prune(&keep, &by).await.unwrap(), expected);
    let verified = ledger.verify(Some(noted)).await.unwrap();
    assert_eq!((verified.faults.as_slice(), verified.first), (&[][..], 9));
    // The open run and what is behind it stay, however old; so do the newest runs.
    let keep = Keep { runs_since: day(30), last_runs: 5, trail_since: day(30) };
    assert_eq!(ledger.prune(&keep, &by).await.unwrap(), Removed { runs: 1, entries: 4 });
    let verified = ledger.verify(None).await.unwrap();
    assert_eq!((verified.faults.as_slice(), verified.first), (&[][..], 13));
    assert_eq!(ledger.prune(&keep, &by).await.unwrap(), Removed::default());
}

#[tokio::test]
async fn a_ledger_of_a_newer_release_is_refused() {
    let (dir, ledger) = ledger().await;
    drop(ledger);
    let path = dir.path().join("deep/ledger.db");
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute("UPDATE trueup_ledger SET version = 99", []).unwrap();
    let error = Ledger::open_file(&path, true).await.unwrap_err();
    assert!(error.what.contains("newer trueup"), "{error}");
    let missing = Ledger::open_file(&dir.path().join("none.db"), false).await.unwrap_err();
    assert!(missing.what.contains("there is no ledger"), "{missing}");
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_reads_it() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, _ledger) = ledger().await;
    for (name, mode) in [("deep", 0o700), ("deep/ledger.db", 0o600)] {
        let meta = std::fs::metadata(dir.path().join(name)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, mode, "{name}");
    }
}
