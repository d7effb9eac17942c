//! Leases, incidents and the outbox, as several coordinators use them at once.

use std::collections::BTreeSet;

use super::*;
use crate::report::checks::{CheckResult, Status};

async fn ledger() -> (tempfile::TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_file(&dir.path().join("ledger.db"), true).await.unwrap();
    (dir, ledger)
}

fn at(second: u32) -> String {
    format!("2026-01-01T00:{:02}:{:02}.000Z", second / 60, second % 60)
}

#[tokio::test]
async fn one_of_many_gets_a_check_and_another_when_the_lease_is_over() {
    let (dir, ledger) = ledger().await;
    ledger.schedule("c", "every 1m", Some(&at(10))).await.unwrap();
    assert_eq!(ledger.claim("c", "early", &at(9), &at(60)).await.unwrap(), None, "not due yet");
    let hands = (0..8).map(|hand| {
        let path = dir.path().join("ledger.db");
        tokio::spawn(async move {
            let ledger = Ledger::open_file(&path, false).await.unwrap();
            ledger.claim("c", &format!("hand {hand}"), &at(10), &at(40)).await.unwrap()
        })
    });
    let mut leases = Vec::new();
    for hand in futures::future::join_all(hands).await {
        leases.extend(hand.unwrap());
    }
    assert_eq!(leases.len(), 1, "{leases:?}");
    let lease = leases.remove(0);
    assert_eq!((lease.fence, lease.due.as_str()), (1, at(10).as_str()));
    assert!(ledger.renew(std::slice::from_ref(&lease), &at(50)).await.unwrap());
    assert_eq!(ledger.claim("c", "other", &at(45), &at(80)).await.unwrap(), None, "it was renewed");
    let taken = ledger.claim("c", "other", &at(51), &at(80)).await.unwrap().unwrap();
    assert_eq!(taken.fence, 2);
    // Who was robbed cannot renew, nor say when it is due next.
    assert!(!ledger.renew(std::slice::from_ref(&lease), &at(90)).await.unwrap());
    let end = |due: u32, run: &str, ended: u32, status: &str| LeaseEnd {
        due: Some(at(due)),
        run: run.into(),
        at: at(ended),
        status: status.into(),
    };
    let noted = [(incident("late"), vec![notice("late", "a", 0)])];
    assert!(!ledger.end_check(&lease, &end(99, "r", 52, "pass"), &noted).await.unwrap());
    assert!(!ledger.release(&lease).await.unwrap());
    // Nothing of what the robbed one had to say is there.
    assert_eq!(ledger.incident("late").await.unwrap(), None);
    assert!(ledger.outbox(10).await.unwrap().is_empty());
    assert!(ledger.end_check(&taken, &end(70, "r2", 53, "fail"), &[]).await.unwrap());
    let rows = ledger.schedule_rows().await.unwrap();
    assert_eq!(
        (rows[0].due.as_deref(), rows[0].owner.as_deref(), rows[0].last_status.as_deref()),
        (Some(at(70).as_str()), None, Some("fail"))
    );
    // The same timetable keeps its time, another one sets it anew; by hand it is due at once.
    ledger.schedule("c", "every 1m", Some(&at(200))).await.unwrap();
    assert_eq!(ledger.schedule_rows().await.unwrap()[0].due.as_deref(), Some(at(70).as_str()));
    ledger.schedule("c", "manual", None).await.unwrap();
    assert_eq!(ledger.schedule_rows().await.unwrap()[0].due, None);
    assert!(ledger.hurry("c", &at(100)).await.unwrap() && !ledger.hurry("none", &at(100)).await.unwrap());
    assert!(ledger.claim("c", "x", &at(100), &at(130)).await.unwrap().is_some());
    assert!(!ledger.postpone("c", &at(150), None).await.unwrap(), "somebody runs it");
}

fn incident(key: &str) -> Incident {
    let result = CheckResult {
        name: key.to_owned(),
        kind: "rows".into(),
        pair: "p".into(),
        table: None,
        status: Status::Fail,
        severity: "warning".into(),
        owner: None,
        source: None,
        target: None,
        difference: None,
        message: None,
        hint: None,
        extent: None,
        columns: None,
        notes: Vec::new(),
        seconds: 0.0,
    };
    let found = |run: &str| Finding { run: run.into(), at: at(1), result: result.clone() };
    Incident {
        key: key.to_owned(),
        state: IncidentState::Open,
        opened_at: at(1),
        seen_at: at(2),
        resolved_at: None,
        told_at: Some(at(1)),
        failures: 3,
        passes: 0,
        flaps: 1,
        run: "run".into(),
        first: found("run-1"),
        worst: found("run-2"),
        result,
    }
}

fn notice(id: &str, channel: &str, second: u32) -> Notice {
    Notice {
        id: id.to_owned(),
        channel: channel.to_owned(),
        incident: "k".into(),
        body: "{}".into(),
        created_at: at(second),
        next_at: at(second + 10),
    }
}

#[tokio::test]
async fn messages_go_out_in_order_one_sender_at_a_time() {
    let (_dir, ledger) = ledger().await;
    let noted = incident("k");
    ledger.note(&noted, &[notice("1", "a", 0), notice("2", "b", 0)]).await.unwrap();
    ledger.note(&noted, &[notice("3", "a", 5)]).await.unwrap();
    assert_eq!(ledger.incident("k").await.unwrap(), Some(noted.clone()));
    assert_eq!(ledger.incidents(true, 10).await.unwrap(), std::slice::from_ref(&noted));
    let ids = |rows: &[OutboxRow]| rows.iter().map(|row| row.id.clone()).collect::<Vec<_>>();
    let claim = |owner: &'static str, now: u32| claim(&ledger, "a", owner, now, 100);
    assert_eq!(ids(&claim("me", 9).await), [""; 0], "others are waited for");
    let first = claim("me", 10).await;
    assert_eq!(ids(&first), ["1", "3"], "what came meanwhile goes along");
    assert_eq!(ids(&claim("you", 20).await), [""; 0], "somebody is sending");
    ledger.not_sent(&["1".into(), "3".into()], &at(21), Some(&at(30)), "status 503").await.unwrap();
    ledger.note(&noted, &[notice("4", "a", 11)]).await.unwrap();
    assert_eq!(ids(&claim("you", 29).await), [""; 0], "what is new does not overtake what waits");
    let again = claim("you", 30).await;
    // The same messages, under the same id and time: who has had them knows them again.
    assert_eq!((ids(&again), again[0].attempts), (vec!["1".into(), "3".into()], 1));
    assert_eq!((&again[1].batch, &again[1].batch_at), (&first[0].batch, &first[0].batch_at));
    assert_eq!(again[0].error.as_deref(), Some("status 503"));
    // Who died while sending is followed by another, with the same messages.
    assert_eq!(ids(&claim("me", 91).await), ["1", "3"]);
    ledger.sent(&["1".into(), "3".into()], &at(92)).await.unwrap();
    let next = claim("me", 92).await;
    assert_eq!(ids(&next), ["4"]);
    assert_ne!(next[0].batch, first[0].batch);
    ledger.not_sent(&["4".into()], &at(92), None, "too old").await.unwrap();
    assert_eq!(ids(&claim("me", 200).await), [""; 0]);
    assert_eq!(ledger.outbox_depth().await.unwrap(), (1, 1), "the other channel's waits, one is given up");
    assert_eq!(ledger.prune_outbox(&at(8)).await.unwrap(), 2);
    let left: BTreeSet<String> = ledger.outbox(10).await.unwrap().into_iter().map(|row| row.id).collect();
    assert_eq!(left, ["2".to_owned(), "4".to_owned()].into());
}

async fn claim(ledger: &Ledger, channel: &str, owner: &str, now: u32, most: u64) -> Vec<OutboxRow> {
    let claim = BatchClaim {
        owner,
        now: &at(now),
        until: &at(now + 60),
        batch: &format!("batch of {now}"),
        most,
        latest: &at(now + 180),
    };
    ledger.claim_batch(channel, &claim).await.unwrap()
}

#[tokio::test]
async fn batches_are_bounded_and_a_clock_that_was_set_back_holds_up_nothing() {
    let (_dir, ledger) = ledger().await;
    let all: Vec<Notice> = (0..5).map(|n| notice(&n.to_string(), "a", n)).collect();
    ledger.note(&incident("k"), &all).await.unwrap();
    let ids = |rows: &[OutboxRow]| rows.iter().map(|row| row.id.clone()).collect::<Vec<_>>();
    let first = claim(&ledger, "a", "me", 20, 2).await;
    assert_eq!(ids(&first), ["0", "1"]);
    ledger.sent(&ids(&first), &at(20)).await.unwrap();
    let second = claim(&ledger, "a", "me", 21, 2).await;
    assert_eq!(ids(&second), ["2", "3"]);
    // It was to be tried again, and somebody was sending, at times that lie 50 minutes ahead by now.
    ledger.not_sent(&ids(&second), &at(3000), Some(&at(3060)), "refused").await.unwrap();
    let ahead = claim(&ledger, "a", "gone", 3060, 2).await;
    assert_eq!(ids(&ahead), ["2", "3"]);
    let again = claim(&ledger, "a", "me", 30, 2).await;
    assert_eq!((ids(&again), &again[0].batch), (vec!["2".into(), "3".into()], &second[0].batch));
}

#[tokio::test]
async fn the_history_of_a_check_is_kept() {
    let (_dir, ledger) = ledger().await;
    for n in 0..3 {
        let start = tests::start(n);
        ledger.begin(&start).await.unwrap();
        ledger.finish(&start, &tests::end(n)).await.unwrap();
    }
    let filter = CheckFilter { name: Some("counts".into()), limit: Some(4), ..CheckFilter::default() };
    let history = ledger.check_history(&filter).await.unwrap();
    assert_eq!((history.len(), history[0].run.as_str()), (4, "run-0002"));
    assert_eq!(ledger.latest_checks().await.unwrap().len(), 2);
    let none = CheckFilter { name: Some("none".into()), ..CheckFilter::default() };
    assert!(ledger.check_history(&none).await.unwrap().is_empty());
}
