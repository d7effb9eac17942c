//! A coordinator that dies at every statement, whose checks panic, whose ledger is cut off, whose clock is set.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::channel::{Channel, Post, To};
use super::incident::tests::result;
use super::*;
use crate::config::Config;
use crate::ledger::Ledger;
use crate::ledger::crash_tests::End;
use crate::report::checks::Status;

thread_local! {
    static NOW: Cell<i64> = const { Cell::new(0) };
    static IDS: Cell<u64> = const { Cell::new(0) };
}

const GROUND: Ground = Ground {
    now: || Timestamp::from_millisecond(1_767_225_600_000 + NOW.get()).unwrap(),
    chance: || 0.0,
    id: || {
        IDS.set(IDS.get() + 1);
        format!("id-{:06}", IDS.get())
    },
};

fn pass_time(seconds: i64) {
    NOW.set(NOW.get() + seconds * 1000);
}

fn config(more: &str) -> Config {
    crate::config::parse(&format!(
        "[endpoints.a]\nurl = \"env:A\"\n[endpoints.b]\nurl = \"env:B\"\n[pairs.p]\nsource = \"a\"\ntarget = \"b\"\n\
         [checks.rows]\npair = \"p\"\nkind = \"rows\"\nschedule = \"every 1h\"\n\
         [alerts.ops]\nkind = \"command\"\ncommand = [\"true\"]\ngroup = \"0s\"\n\
         [alerts.chat]\nkind = \"command\"\ncommand = [\"true\"]\ngroup = \"0s\"\n{more}"
    ))
    .unwrap()
}

type Act = Box<dyn Fn(u64) -> Option<Ran> + Send + Sync>;

/// Does what it is told, by the number of the run.
struct Fake {
    act: Act,
    runs: AtomicU64,
    stopped: Mutex<Option<tokio::time::Instant>>,
    waits: bool,
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fake")
    }
}

impl Fake {
    fn new(act: impl Fn(u64) -> Option<Ran> + Send + Sync + 'static) -> Self {
        Self { act: Box::new(act), runs: AtomicU64::new(0), stopped: Mutex::default(), waits: false }
    }

    fn finds(status: Status) -> Self {
        Self::new(move |run| Some(Ran { run: format!("run-{run}"), results: vec![result(status)] }))
    }
}

#[async_trait]
impl Runner for Fake {
    async fn run(&self, _: Arc<Config>, _: &Group, stop: CancellationToken) -> Option<Ran> {
        let number = self.runs.fetch_add(1, Ordering::SeqCst);
        if self.waits {
            stop.cancelled().await;
            *self.stopped.lock().unwrap() = Some(tokio::time::Instant::now());
        }
        (self.act)(number)
    }
}

async fn coordinator(ledger: Ledger, owner: &str, runner: Fake, config: Config) -> Arc<Coordinator<Fake>> {
    let made = Arc::new(Coordinator::new(ledger, owner.to_owned(), GROUND, Metrics::default(), runner));
    // One that dies at its first statements does not get any further.
    let _ = made.adopt(config).await;
    made
}

/// One beat, and what it began to its end.
async fn beat(coordinator: &Arc<Coordinator<Fake>>) -> Result<(), crate::ledger::LedgerError> {
    let (mut tasks, kill) = (JoinSet::new(), CancellationToken::new());
    let done = coordinator.beat(&mut tasks, &kill).await;
    while tasks.join_next().await.is_some() {}
    done
}

struct Place {
    dir: tempfile::TempDir,
    ledger: Ledger,
}

async fn place() -> Place {
    NOW.set(0);
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_file(&dir.path().join("ledger.db"), true).await.unwrap();
    Place { dir, ledger }
}

#[tokio::test]
async fn the_end_of_a_check_is_there_whole_or_not_at_all_whenever_its_coordinator_dies() {
    for end in [End::Before, End::AnswerLost] {
        let mut ended_at = Vec::new();
        for statement in 0.. {
            let Place { dir: _dir, ledger } = place().await;
            coordinator(ledger.clone(), "setup", Fake::finds(Status::Fail), config("")).await;
            let dies = Coordinator::new(
                ledger.dying(statement, end),
                "first".to_owned(),
                GROUND,
                Metrics::default(),
                Fake::finds(Status::Fail),
            );
            dies.take(config(""));
            let dies = Arc::new(dies);
            let lives = beat(&dies).await.is_ok();
            let row = ledger.schedule_rows().await.unwrap().remove(0);
            let incident = ledger.incident("rows/orders").await.unwrap();
            let messages = ledger.outbox(10).await.unwrap();
            if row.last_run.is_some() {
                assert_eq!((row.owner.as_deref(), row.last_status.as_deref()), (None, Some("fail")));
                assert!(row.due.unwrap() > text((GROUND.now)()));
                assert_eq!((incident.is_some(), messages.len()), (true, 2), "{statement} {end:?}");
                ended_at.push(statement);
            } else {
                assert_eq!((incident, messages.len()), (None, 0), "{statement} {end:?}");
                assert!(row.due.unwrap() <= text((GROUND.now)()), "it is due still");
            }
            // Another takes over when the lease of the dead is over.
            pass_time(61);
            let second = coordinator(ledger.clone(), "second", Fake::finds(Status::Fail), config("")).await;
            beat(&second).await.unwrap();
            let incident = ledger.incident("rows/orders").await.unwrap().unwrap();
            assert_eq!(incident.failures, 1, "{statement} {end:?}");
            let messages = ledger.outbox(10).await.unwrap();
            assert_eq!(messages.len(), 2, "one for each channel, told once: {statement} {end:?}");
            assert!(ledger.schedule_rows().await.unwrap()[0].owner.is_none());
            if lives && dies.metrics.text().contains("trueup_incidents_open{severity=\"critical\"} 1") {
                // Begun, run, noted, and looked at: every statement had its turn.
                assert!(statement > 8, "{statement}");
                break;
            }
        }
        assert!(!ended_at.is_empty());
    }
}

#[tokio::test]
async fn what_an_operator_asked_for_outlives_a_ledger_that_fails_at_any_statement() {
    for statement in 0..40 {
        let Place { dir: _dir, ledger } = place().await;
        let by_hand = || config("[checks.other]\npair = \"p\"\nkind = \"count\"\nschedule = \"manual\"\n");
        coordinator(ledger.clone(), "setup", Fake::finds(Status::Pass), by_hand()).await;
        let fails = Coordinator::new(
            ledger.dying(statement, End::Once),
            "first".to_owned(),
            GROUND,
            Metrics::default(),
            Fake::new(|run| {
                let other =
                    crate::report::checks::CheckResult { name: "other".to_owned(), ..result(Status::Pass) };
                Some(Ran { run: format!("run-{run}"), results: vec![other, result(Status::Pass)] })
            }),
        );
        fails.take(by_hand());
        let fails = Arc::new(fails);
        let asked = |check: &str| Asked { check: check.to_owned(), up_to: None, by: "ann".to_owned() };
        fails.ask(asked("other")).unwrap();
        // The ledger fails once in one of them, and the next ones make up for it.
        for _ in 0..4 {
            let _ = beat(&fails).await;
        }
        let rows = ledger.schedule_rows().await.unwrap();
        let other = rows.iter().find(|row| row.name == "other").unwrap();
        assert!(other.last_run.is_some(), "{statement}: {rows:?}");
        assert!(rows.iter().all(|row| row.owner.is_none()), "{statement}: {rows:?}");
    }
}

#[tokio::test]
async fn a_panic_is_an_error_of_its_check_and_the_check_runs_again() {
    let Place { dir: _dir, ledger } = place().await;
    let runner = Fake::new(|run| match run {
        0 | 1 => panic!("by a test"),
        _ => Some(Ran { run: format!("run-{run}"), results: vec![result(Status::Pass)] }),
    });
    let coordinator = coordinator(ledger.clone(), "me", runner, config("")).await;
    for (run, status) in [(1, "unknown"), (2, "unknown"), (3, "pass")] {
        beat(&coordinator).await.unwrap();
        assert!(coordinator.running().is_empty());
        assert_eq!(coordinator.runner.runs.load(Ordering::SeqCst), run);
        let row = ledger.schedule_rows().await.unwrap().remove(0);
        assert_eq!((row.last_status.as_deref(), row.owner.as_deref()), (Some(status), None));
        pass_time(3600);
    }
    // Told like any check that could not tell twice, and its end too.
    let messages = ledger.outbox(10).await.unwrap();
    let actions: Vec<String> = messages
        .iter()
        .filter(|message| message.channel == "ops")
        .map(|message| serde_json::from_str::<Item>(&message.body).unwrap())
        .map(|item| format!("{} {}", item.action, item.facts))
        .collect();
    assert_eq!(actions, ["resolved it runs again", "firing the check has panicked"]);
}

#[tokio::test]
async fn who_cannot_renew_a_lease_stops_before_it_ends() {
    let Place { dir, ledger } = place().await;
    let short = config("[serve]\nlease = \"2s\"\n");
    let runner = Fake { waits: true, ..Fake::new(|_| None) };
    let coordinator = coordinator(ledger.clone(), "me", runner, short).await;
    let path = dir.path().join("ledger.db");
    let (mut tasks, kill) = (JoinSet::new(), CancellationToken::new());
    coordinator.beat(&mut tasks, &kill).await.unwrap();
    let claimed = tokio::time::Instant::now();
    // Another process holds the ledger.
    let (locked, unlock) = (Arc::new(std::sync::Barrier::new(2)), CancellationToken::new());
    let holder = {
        let (locked, unlock) = (Arc::clone(&locked), unlock.clone());
        std::thread::spawn(move || {
            let other = rusqlite::Connection::open(path).unwrap();
            other.execute_batch("BEGIN IMMEDIATE").unwrap();
            locked.wait();
            while !unlock.is_cancelled() {
                std::thread::sleep(Duration::from_millis(10));
            }
        })
    };
    locked.wait();
    while coordinator.runner.stopped.lock().unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(claimed.elapsed() < Duration::from_secs(2), "the lease is over and it still runs");
    }
    unlock.cancel();
    holder.join().unwrap();
    while tasks.join_next().await.is_some() {}
    assert!(coordinator.running().is_empty());
    let row = ledger.schedule_rows().await.unwrap().remove(0);
    assert!(row.owner.is_none() && row.last_run.is_none(), "it is due for whoever comes: {row:?}");
}

#[tokio::test]
async fn a_clock_that_is_set_stops_nothing() {
    let Place { dir: _dir, ledger } = place().await;
    let coordinator = coordinator(ledger.clone(), "me", Fake::finds(Status::Pass), config("")).await;
    beat(&coordinator).await.unwrap();
    let runs = |coordinator: &Coordinator<Fake>| coordinator.runner.runs.load(Ordering::SeqCst);
    assert_eq!(runs(&coordinator), 1);
    beat(&coordinator).await.unwrap();
    assert_eq!((runs(&coordinator), coordinator.clock.notes().len()), (1, 0));
    // Set back by a day while nothing runs: the next time was a day and an hour ahead.
    pass_time(-86_400);
    beat(&coordinator).await.unwrap();
    assert_eq!(runs(&coordinator), 2);
    let notes = coordinator.clock.notes();
    assert!(notes[0].contains("set back by 86400 s") && notes[1].contains("1 due times"), "{notes:?}");
    assert!(coordinator.clock_was_set_within(Duration::from_secs(60)));
    // Forward by 40 days and back: it runs at once each time, and is due within its hour.
    for days in [40, -40] {
        pass_time(days * 86_400);
        beat(&coordinator).await.unwrap();
        let due = ledger.schedule_rows().await.unwrap().remove(0).due.unwrap();
        assert!(due <= text(later(3601)), "{due}");
    }
    assert_eq!(runs(&coordinator), 4);
    // A process that is new, and knows nothing of the jump.
    pass_time(-7200);
    let fresh = self::coordinator(ledger.clone(), "new", Fake::finds(Status::Pass), config("")).await;
    beat(&fresh).await.unwrap();
    assert_eq!(runs(&fresh), 1);
    assert!(fresh.clock.notes()[0].contains("1 due times"));
}

fn later(seconds: u64) -> Timestamp {
    (GROUND.now)().checked_add(Duration::from_secs(seconds)).unwrap()
}

/// A channel that adds each document to a file, and fails as long as another file is there.
fn channel(dir: &std::path::Path) -> Channel {
    let (out, fail) = (dir.join("out"), dir.join("fail"));
    let script = format!("cat >> {0}; echo >> {0}; test ! -e {1}", out.display(), fail.display());
    Channel {
        name: "ops".to_owned(),
        to: To::Command { command: vec!["sh".to_owned(), "-c".to_owned(), script] },
    }
}

fn sender(ledger: Ledger, owner: &str) -> Sender {
    Sender {
        ledger,
        owner: owner.to_owned(),
        ground: GROUND,
        post: Post::default(),
        metrics: Metrics::default(),
    }
}

async fn message(ledger: &Ledger, id: &str, body: Option<&str>) {
    let (incident, change) = step(None, &result(Status::Fail), "run", &text((GROUND.now)())).unwrap();
    let item = Item { id: id.to_owned(), ..Item::of(&incident, change.unwrap(), None) };
    let notice = crate::ledger::Notice {
        id: id.to_owned(),
        channel: "ops".to_owned(),
        incident: incident.key.clone(),
        body: body.map_or_else(|| serde_json::to_string(&item).unwrap(), str::to_owned),
        created_at: text((GROUND.now)()),
        next_at: text((GROUND.now)()),
    };
    ledger.note(&incident, &[notice]).await.unwrap();
}

/// The documents that came, each as the ids of its alerts.
fn came(dir: &std::path::Path) -> Vec<(Vec<String>, String)> {
    let text = std::fs::read_to_string(dir.join("out")).unwrap_or_default();
    let ids = |line: &str| {
        let document: serde_json::Value = serde_json::from_str(line).unwrap();
        let alerts = document["alerts"].as_array().unwrap().clone();
        alerts.iter().map(|alert| alert["id"].as_str().unwrap().to_owned()).collect()
    };
    text.lines().map(|line| (ids(line), line.to_owned())).collect()
}

#[tokio::test]
async fn a_message_that_is_sent_again_is_the_same_message() {
    let Place { dir, ledger } = place().await;
    let (channel, spec) = (channel(dir.path()), config("").alerts["ops"].clone());
    let sender = sender(ledger.clone(), "me");
    std::fs::write(dir.path().join("fail"), "").unwrap();
    message(&ledger, "m-1", None).await;
    message(&ledger, "m-2", None).await;
    assert_eq!(sender.flush(&channel, &spec).await.unwrap(), 0);
    // More comes while the first wait to be tried again.
    message(&ledger, "m-3", None).await;
    for _ in 0..3 {
        pass_time(120);
        assert_eq!(sender.flush(&channel, &spec).await.unwrap(), 0);
    }
    std::fs::remove_file(dir.path().join("fail")).unwrap();
    pass_time(120);
    assert_eq!(sender.flush(&channel, &spec).await.unwrap(), 2);
    let came = came(dir.path());
    let ids: Vec<Vec<&str>> = came.iter().map(|(ids, _)| ids.iter().map(String::as_str).collect()).collect();
    let first = vec!["m-1", "m-2"];
    assert_eq!(ids, [first.clone(), first.clone(), first.clone(), first.clone(), first, vec!["m-3"]]);
    assert!(came[1..5].iter().all(|(_, document)| *document == came[0].1), "to the byte");
}

#[tokio::test]
async fn a_sender_that_dies_at_any_statement_loses_and_changes_nothing() {
    for end in [End::Before, End::AnswerLost] {
        for statement in 0.. {
            let Place { dir, ledger } = place().await;
            let (channel, spec) = (channel(dir.path()), config("").alerts["ops"].clone());
            message(&ledger, "m-1", None).await;
            message(&ledger, "m-2", None).await;
            let lives = sender(ledger.dying(statement, end), "first").flush(&channel, &spec).await.is_ok();
            message(&ledger, "m-3", None).await;
            pass_time(61);
            sender(ledger.clone(), "second").flush(&channel, &spec).await.unwrap();
            let came = came(dir.path());
            let together = ["m-1".to_owned(), "m-2".to_owned()];
            // What the first one has sent, or has fixed to be sent, is sent as it is.
            let mut documents: Vec<&String> = came
                .iter()
                .filter(|(ids, _)| ids.contains(&together[0]))
                .map(|(_, document)| document)
                .collect();
            assert!(!documents.is_empty() && documents.len() <= 2, "{statement} {end:?}: {came:?}");
            documents.dedup();
            assert_eq!(documents.len(), 1, "{statement} {end:?}: {came:?}");
            let ids: std::collections::BTreeSet<&str> =
                came.iter().flat_map(|(ids, _)| ids.iter().map(String::as_str)).collect();
            assert_eq!(ids, ["m-1", "m-2", "m-3"].into());
            if lives {
                assert!(statement > 6, "{statement}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_message_that_nobody_can_read_holds_up_no_other() {
    let Place { dir, ledger } = place().await;
    let (channel, spec) = (channel(dir.path()), config("").alerts["ops"].clone());
    message(&ledger, "m-1", Some("of another release")).await;
    message(&ledger, "m-2", None).await;
    assert_eq!(sender(ledger.clone(), "me").flush(&channel, &spec).await.unwrap(), 1);
    assert_eq!(came(dir.path()).len(), 1);
    let rows = ledger.outbox(10).await.unwrap();
    let bad = rows.iter().find(|row| row.id == "m-1").unwrap();
    assert!(
        bad.given_up_at.is_some() && bad.error.as_deref() == Some("the message cannot be read"),
        "{bad:?}"
    );
    assert_eq!(ledger.outbox_depth().await.unwrap(), (0, 1));
}

#[tokio::test]
async fn a_clock_that_is_set_gives_no_message_up() {
    let Place { dir, ledger } = place().await;
    let (channel, spec) = (channel(dir.path()), config("").alerts["ops"].clone());
    let sender = sender(ledger.clone(), "me");
    std::fs::write(dir.path().join("fail"), "").unwrap();
    message(&ledger, "m-1", None).await;
    for days in [40, -40] {
        pass_time(days * 86_400);
        sender.flush(&channel, &spec).await.unwrap();
        assert_eq!(ledger.outbox_depth().await.unwrap(), (1, 0), "{days}");
    }
    std::fs::remove_file(dir.path().join("fail")).unwrap();
    pass_time(10);
    assert_eq!(sender.flush(&channel, &spec).await.unwrap(), 1);
    assert_eq!(came(dir.path()).len(), 3);
}
