//! A ledger that dies at a statement, for tests: nothing of the transaction is kept, and nothing works afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use super::store::{Given, Step, Store, StoreError};
use super::*;

/// How the end comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Before this statement: its transaction is undone.
    Before,
    /// In the transaction that holds this statement: it is committed, and nobody hears of it.
    AnswerLost,
    /// As `Before`, but only this once: the ledger works again afterwards.
    Once,
}

#[derive(Debug)]
struct Dying {
    store: Arc<dyn Store>,
    /// Statements until then.
    left: AtomicU64,
    end: End,
}

fn dead<T>() -> Result<T, StoreError> {
    Err(StoreError::Failed(LedgerError::new("the ledger has died", "by a test")))
}

#[async_trait]
impl Store for Dying {
    async fn run(&self, mut steps: Vec<Step>) -> Result<Vec<Given>, StoreError> {
        let count = steps.len() as u64;
        let left = self.left.load(Ordering::SeqCst);
        if left == u64::MAX {
            return dead();
        }
        if left >= count {
            self.left.store(left - count, Ordering::SeqCst);
            return self.store.run(steps).await;
        }
        self.left.store(u64::MAX, Ordering::SeqCst);
        match self.end {
            End::AnswerLost => {
                let _ = self.store.run(steps).await;
            }
            End::Before | End::Once => {
                if self.end == End::Once {
                    self.left.store(u64::MAX - 1, Ordering::SeqCst);
                }
                steps.truncate(usize::try_from(left).unwrap());
                steps.push(Step::execute("UPDATE trueup_no_such_table SET x = 1", Vec::new()));
                assert!(self.store.run(steps).await.is_err());
            }
        }
        dead()
    }

    async fn snapshot(&self) -> Result<Arc<dyn Store>, LedgerError> {
        self.store.snapshot().await
    }
}

impl Ledger {
    /// This ledger, for one who dies at a statement counted from now on.
    pub(crate) fn dying(&self, statement: u64, end: End) -> Self {
        Self {
            store: Arc::new(Dying { store: Arc::clone(&self.store), left: AtomicU64::new(statement), end }),
        }
    }
}

#[tokio::test]
async fn a_run_that_ends_is_sealed_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    for end in [End::Before, End::AnswerLost] {
        for statement in 0.. {
            let path = dir.path().join(format!("{end:?}-{statement}.db"));
            let ledger = Ledger::open_file(&path, true).await.unwrap();
            let start = tests::start(1);
            ledger.begin(&start).await.unwrap();
            let ended = ledger.dying(statement, end).finish(&start, &tests::end(1)).await;
            let run = ledger.run("run-0001").await.unwrap();
            let verified = ledger.verify(None).await.unwrap();
            assert_eq!(verified.faults, []);
            match run.outcome {
                Some(_) => assert_eq!((run.tables.len(), verified.open_runs.len()), (2, 0)),
                None => {
                    assert_eq!((run.tables.len(), run.checks.len(), verified.open_runs.len()), (0, 0, 1));
                    ledger.finish(&start, &tests::end(1)).await.unwrap();
                }
            }
            if ended.is_ok() {
                assert!(statement > 8, "{statement}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_conflict_of_a_step_is_told_at_once_and_as_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_file(&dir.path().join("ledger.db"), true).await.unwrap();
    let start = tests::start(1);
    ledger.begin(&start).await.unwrap();
    let open = ledger.open_runs().await.unwrap().remove(0);
    ledger.finish(&start, &tests::end(1)).await.unwrap();
    let began = tokio::time::Instant::now();
    let error = ledger.finish(&start, &tests::end(1)).await.unwrap_err();
    assert!(error.what.contains("has the end of run run-0001 already"), "{error}");
    assert!(!ledger.abandon(&open, &start, "2026-03-01T00:00:00.000Z", "dead").await.unwrap());
    assert!(began.elapsed() < std::time::Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(ledger.verify(None).await.unwrap().entries, 2);
}

#[tokio::test]
async fn a_run_that_died_holds_up_retention_until_it_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_file(&dir.path().join("ledger.db"), true).await.unwrap();
    for n in 0..4 {
        ledger.begin(&tests::start(n)).await.unwrap();
        if n != 1 {
            ledger.finish(&tests::start(n), &tests::end(n)).await.unwrap();
        }
    }
    let since = Some("2026-02-01T00:00:00.000Z".to_owned());
    let keep = Keep { runs_since: since.clone(), last_runs: 0, trail_since: since };
    let by = RunStart { started_at: "2026-03-01T00:00:00.000Z".into(), id: String::new(), ..tests::start(9) };
    assert_eq!(ledger.prune(&keep, &by).await.unwrap(), Removed { runs: 3, entries: 2 });
    let open = ledger.open_runs().await.unwrap();
    assert_eq!((open.len(), open[0].start.id.as_str()), (1, "run-0001"), "it may live, its record stays");
    // It lives: what was looked at before does not hold any more.
    assert!(ledger.beat("run-0001", "2026-03-01T00:00:00.000Z").await.unwrap());
    assert!(!ledger.abandon(&open[0], &by, "2026-03-02T00:00:00.000Z", "dead").await.unwrap());
    let open = ledger.open_runs().await.unwrap();
    assert!(ledger.abandon(&open[0], &by, "2026-03-02T00:00:00.000Z", "dead").await.unwrap());
    assert!(!ledger.beat("run-0001", "2026-03-02T00:00:00.000Z").await.unwrap(), "it has an end");
    let run = ledger.run("run-0001").await.unwrap();
    assert_eq!((run.outcome_text(), run.error.as_deref()), ("abandoned", Some("dead")));
    let of_run = EntryFilter { run: Some("run-0001".into()), ..EntryFilter::default() };
    let last = ledger.entries(0, 100, &of_run).await.unwrap().pop().unwrap().entry;
    assert_eq!((last.kind.as_str(), last.outcome.as_str()), ("end", "abandoned"));
    assert_eq!(ledger.verify(None).await.unwrap().faults, []);
    let far = Some("2026-04-01T00:00:00.000Z".to_owned());
    let keep = Keep { runs_since: far.clone(), last_runs: 0, trail_since: far };
    let removed = ledger.prune(&keep, &by).await.unwrap();
    assert_eq!((removed.runs, removed.entries > 4), (1, true), "{removed:?}");
}

#[tokio::test]
async fn verifying_sees_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_file(&dir.path().join("ledger.db"), true).await.unwrap();
    for n in 0..8 {
        ledger.begin(&tests::start(n)).await.unwrap();
        ledger.finish(&tests::start(n), &tests::end(n)).await.unwrap();
    }
    let then = ledger.at_this_moment().await.unwrap();
    // Meanwhile the front of the trail goes, and more is added.
    let since = Some("2026-01-05T00:00:00.000Z".to_owned());
    let keep = Keep { runs_since: since.clone(), last_runs: 0, trail_since: since };
    let by = RunStart { started_at: "2026-03-01T00:00:00.000Z".into(), id: String::new(), ..tests::start(9) };
    assert_eq!(ledger.prune(&keep, &by).await.unwrap(), Removed { runs: 4, entries: 8 });
    let seen = then.verify_here(None).await.unwrap();
    assert_eq!((seen.faults.as_slice(), seen.entries, seen.first), (&[][..], 16, 1));
    let now = ledger.verify(None).await.unwrap();
    assert_eq!((now.faults.as_slice(), now.entries, now.first), (&[][..], 9, 9));
    assert!(then.append(Vec::new()).await.is_err(), "it is to be read only");
}

#[tokio::test]
async fn a_long_front_goes_in_parts_and_each_is_bridged() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_file(&dir.path().join("ledger.db"), true).await.unwrap();
    let start = tests::start(1);
    ledger.begin(&start).await.unwrap();
    let row =
        Entry { at: start.started_at.clone(), run: start.id.clone(), kind: "row".into(), ..Entry::default() };
    let parts = 3;
    for _ in 0..parts {
        let rows = usize::try_from(retention::PART_MAX).unwrap();
        ledger.append(vec![row.clone(); rows]).await.unwrap();
    }
    ledger.finish(&start, &tests::end(1)).await.unwrap();
    let later = RunStart { started_at: "2026-03-01T00:00:00.000Z".into(), ..tests::start(2) };
    ledger.begin(&later).await.unwrap();
    let keep = Keep { trail_since: Some("2026-02-01T00:00:00.000Z".into()), ..Keep::default() };
    let by = RunStart { id: String::new(), ..later };
    let entries = u64::try_from(parts * retention::PART_MAX + 2).unwrap();
    // Where it is ended between two parts the trail is whole, and the next time goes on.
    assert!(ledger.dying(14, End::Before).prune(&keep, &by).await.is_err());
    let verified = ledger.verify(None).await.unwrap();
    assert_eq!(verified.faults, []);
    let left = verified.entries;
    assert!(left < entries, "{left} of {entries} are left");
    ledger.prune(&keep, &by).await.unwrap();
    let verified = ledger.verify(None).await.unwrap();
    assert_eq!((verified.faults.as_slice(), verified.first), (&[][..], i64::try_from(entries).unwrap() + 1));
}
