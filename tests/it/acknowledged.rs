//! A batch is written when its intent is recorded, and not before: with a recorder that stalls at the nth intent, no row of
//! that batch is in the database. Bulk inserts and single changes, on three engines, here and by gRPC.

use std::time::Duration;

use trueup::agent::Serves;
use trueup::agent::{Event, Intents, TrailSecret, TrailWish, in_process, start};
use trueup::engine;

use super::support::agents::{Listening, PATIENCE, local, repair, serving, task};
use super::support::any::{AnyDb, KINDS, Kind};

const ROWS: u32 = 2_300;

/// What the recorder does at the nth intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It says nothing, and the agent loses patience.
    Stalls,
    /// It fails.
    Fails,
}

fn ids(rows: &Intents) -> Vec<u64> {
    let Intents::Each(rows) = rows else { panic!("keys were asked for as they are") };
    rows.iter().map(|row| row.key.strip_prefix("id=").unwrap().parse().unwrap()).collect()
}

/// How many of these rows the target holds as the source has them.
fn written(target: &AnyDb, ids: &[u64]) -> u64 {
    if ids.is_empty() {
        return 0;
    }
    let list: Vec<String> = ids.iter().map(u64::to_string).collect();
    target.count(&format!("SELECT count(*) FROM t WHERE a = 'new' AND id IN ({})", list.join(", ")))
}

async fn held_back(kind: Kind, bulk: bool, remote: bool, nth: usize, then: Then) {
    let said = format!("{kind:?}, bulk {bulk}, remote {remote}, intent {nth}, {then:?}");
    let (source, target) = (AnyDb::create(kind), AnyDb::create(kind));
    for db in [&source, &target] {
        db.execute("CREATE TABLE t (id bigint PRIMARY KEY, a varchar(20) NOT NULL)");
    }
    source.fill("t", 1..=ROWS, "i, 'new'");
    if !bulk {
        target.fill("t", 1..=ROWS, "i, 'old'");
    }
    let patience = if then == Then::Stalls { Duration::from_millis(1_500) } else { Duration::from_secs(20) };
    let at_target = serving(engine::open(&target.url()).await.unwrap(), Serves::everything(), patience);
    let from = in_process(local(engine::open(&source.url()).await.unwrap()));
    let listening = match remote {
        true => Some(Listening::start(at_target.clone()).await),
        false => None,
    };
    let to = match &listening {
        Some(listening) => listening.handle().await,
        None => in_process(at_target),
    };
    let mut task = repair(task(&from, &to, "t").await);
    task.options.trail = Some(TrailWish { secret: TrailSecret::new([7; 32]), plain_keys: true });
    let mut events = start(&from, &to, task).await.unwrap();
    let (mut intents, mut recorded, mut held, mut last) = (0, Vec::new(), Vec::new(), None);
    let mut acknowledgements = Vec::new();
    let listen = async {
        while let Some(event) = events.recv().await {
            match event {
                Event::Intended { rows, acknowledge, .. } => {
                    intents += 1;
                    if intents < nth {
                        recorded.extend(ids(&rows));
                        acknowledge.recorded(intents as u64);
                        continue;
                    }
                    held.extend(ids(&rows));
                    // A writer that does not wait would be done by now.
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    assert_eq!(written(&target, &held), 0, "{said}");
                    if then == Then::Stalls {
                        acknowledgements.push(acknowledge);
                    }
                }
                other => last = Some(other),
            }
        }
    };
    tokio::time::timeout(PATIENCE, listen).await.expect(&said);
    let Some(Event::Failed { kind: failure, message, .. }) = last else { panic!("{said}: {last:?}") };
    let expected = if then == Then::Stalls { "timeout" } else { "cancelled" };
    assert_eq!(failure, expected, "{said}: {message}");
    assert!(message.contains("none of its rows was written"), "{said}: {message}");
    assert!(!held.is_empty() && (nth == 1 || !recorded.is_empty()), "{said}");
    assert_eq!(written(&target, &held), 0, "{said}");
    assert_eq!(written(&target, &recorded), recorded.len() as u64, "{said}");
    assert_eq!(target.count("SELECT count(*) FROM t WHERE a = 'new'"), recorded.len() as u64, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_row_is_written_before_its_intent_is_recorded() {
    for kind in KINDS {
        for (bulk, remote, nth, then) in [
            (true, false, 1, Then::Fails),
            (true, false, 2, Then::Stalls),
            (true, true, 2, Then::Fails),
            (true, true, 1, Then::Stalls),
            (false, false, 1, Then::Stalls),
            (false, false, 2, Then::Fails),
            (false, true, 1, Then::Fails),
            (false, true, 2, Then::Stalls),
        ] {
            held_back(kind, bulk, remote, nth, then).await;
        }
    }
}

/// Nobody asked for a trail: there is nothing to wait for.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_trail_nothing_waits() {
    let (source, target) = (AnyDb::create(Kind::Sqlite), AnyDb::create(Kind::Sqlite));
    for db in [&source, &target] {
        db.execute("CREATE TABLE t (id bigint PRIMARY KEY, a varchar(20) NOT NULL)");
    }
    source.fill("t", 1..=ROWS, "i, 'new'");
    let (from, to) = (
        in_process(local(engine::open(&source.url()).await.unwrap())),
        in_process(local(engine::open(&target.url()).await.unwrap())),
    );
    let task = repair(task(&from, &to, "t").await);
    let done = super::support::agents::outcome(start(&from, &to, task).await.unwrap()).await;
    assert_eq!((done.inserted, done.proved), (u64::from(ROWS), true));
}
