//! Two ends of a session in one test, over links as narrow as they can be made.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::super::proto::{Close, Fetch};
use super::*;
use crate::locate::{FindingKind, LocateOptions};
use crate::merkle::{DigestRun, EntryBatch, RowDigest, RunBuilder, RunOptions, SessionKey, Tree, TreeKey};

const PATIENCE: Duration = Duration::from_secs(8);

fn sessions(room: usize) -> (Session, Session) {
    let (target, source) = Link::pair_with_room(room, PATIENCE);
    (Session::new(target), Session::new(source))
}

fn table(rows: impl Iterator<Item = (u32, u8)>) -> (Arc<DigestRun>, Arc<Tree>) {
    let mut builder = RunBuilder::new(RunOptions::default());
    let mut batch = EntryBatch::new();
    rows.for_each(|(key, row)| batch.push(&key.to_be_bytes(), RowDigest([row; 16])));
    builder.push(batch).unwrap();
    let (run, tree) = builder.finish(&TreeKey::from_session(&SessionKey::new([9; 32]))).unwrap();
    (Arc::new(run), Arc::new(tree))
}

/// Rows that both locators find to differ, by kind, over a link with room for so many frames.
async fn located(
    source: Vec<(u32, u8)>,
    target: Vec<(u32, u8)>,
    room: usize,
    peer_known: bool,
) -> [usize; 3] {
    let (mut here, mut there) = sessions(room);
    let (source, target) = (table(source.into_iter()), table(target.into_iter()));
    let peer = peer_known.then(|| (source.1.root(), source.1.count()));
    let serve = async {
        let (run, tree) = source;
        let mut locator = Locator::new(locate::Role::Source, run, tree, LocateOptions::default()).unwrap();
        locator.start().unwrap();
        there.exchange(&mut locator, &mut |_| Ok(())).await
    };
    let mut found = [0; 3];
    let drive = async {
        let options = LocateOptions { peer, ..LocateOptions::default() };
        let mut locator = Locator::new(locate::Role::Target, target.0, target.1, options).unwrap();
        locator.start().unwrap();
        let ended = here
            .exchange(&mut locator, &mut |step| {
                if step.restarted {
                    found = [0; 3];
                }
                for finding in step.findings {
                    found[match finding.kind {
                        FindingKind::Missing => 0,
                        FindingKind::Changed => 1,
                        FindingKind::Extra => 2,
                    }] += 1;
                }
                Ok(())
            })
            .await;
        assert!(locator.outcome().is_some());
        ended
    };
    let both = async { tokio::join!(serve, drive) };
    let (served, driven) =
        timeout(Duration::from_secs(120), both).await.expect("the two wait for each other");
    assert!(matches!(served, Ok(Exchanged::Done)) && matches!(driven, Ok(Exchanged::Done)));
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_rows_changed_are_located_over_a_link_with_room_for_one_frame() {
    let rows = |row| (0..60_000).map(move |key| (key, row)).collect::<Vec<_>>();
    for room in [1, 2, 8] {
        for peer_known in [false, true] {
            assert_eq!(
                located(rows(1), rows(2), room, peer_known).await,
                [0, 60_000, 0],
                "{room} {peer_known}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_share_of_differences_is_located_over_a_link_with_room_for_one_frame() {
    for every in [2, 3, 6, 50, 1_000] {
        let source = (0..40_000).map(|key| (key, 1)).collect();
        let target = (0..40_000).map(|key| (key, if key % every == 0 { 2 } else { 1 })).collect();
        assert_eq!(
            located(source, target, 1, true).await,
            [0, 40_000usize.div_ceil(every as usize), 0],
            "{every}"
        );
    }
    // Nothing in common, one side empty, and rows of both sides between each other.
    let odd = |odd: u32| (0..20_000).map(move |key| (2 * key + odd, 1)).collect::<Vec<_>>();
    assert_eq!(located(odd(0), odd(1), 1, true).await, [20_000, 0, 20_000]);
    assert_eq!(located(odd(0), Vec::new(), 1, true).await, [20_000, 0, 0]);
    assert_eq!(located(Vec::new(), odd(0), 1, false).await, [0, 0, 20_000]);
}

#[tokio::test]
async fn two_ends_that_send_at_once_do_not_wait_for_each_other() {
    let (mut here, mut there) = sessions(1);
    let ask = async {
        for _ in 0..200 {
            here.send(Kind::Fetch(Fetch::default())).await?;
        }
        let mut answers = 0;
        while let Kind::Rows(_) = here.recv_answer().await? {
            answers += 1;
        }
        Ok::<_, AgentError>(answers)
    };
    let answer = async {
        for _ in 0..200 {
            let Kind::Fetch(_) = there.recv().await? else { panic!("another frame") };
            there.send_packed(vec![7; FRAME_BYTES * 2]).await?;
        }
        there.send(Kind::Close(Close {})).await
    };
    let both = async { tokio::join!(ask, answer) };
    let (answers, sent) = timeout(Duration::from_secs(60), both).await.expect("the two wait for each other");
    sent.unwrap();
    assert_eq!(answers.unwrap(), 400);
}

#[tokio::test]
async fn a_peer_that_sends_unasked_without_end_is_stopped() {
    let (mut here, mut there) = sessions(1);
    let flood = async { while there.send_packed(vec![0; FRAME_BYTES]).await.is_ok() {} };
    let send = async {
        // The peer takes nothing, and what it sends must be kept.
        loop {
            if let Err(error) = here.send(Kind::Fetch(Fetch::default())).await {
                return error;
            }
        }
    };
    let error = tokio::select! {
        () = flood => panic!("the flood ended"),
        error = send => error,
    };
    assert_eq!((error.kind, error.side), (FailureKind::Protocol, Some(Role::Source)));
}

#[tokio::test]
async fn an_answer_without_end_is_stopped() {
    let (mut here, mut there) = sessions(8);
    let flood = async {
        loop {
            let rows = Bytes::from(vec![0; FRAME_BYTES]);
            if there.send(Kind::Rows(Rows { rows, last: false })).await.is_err() {
                return;
            }
        }
    };
    let received = tokio::select! {
        () = flood => panic!("the flood ended"),
        received = here.receive_packed(None) => received,
    };
    assert_eq!(received.unwrap_err().kind, FailureKind::Resource);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_and_says_nothing_is_given_up() {
    let (mut here, _there) = sessions(1);
    here.send(Kind::Fetch(Fetch::default())).await.unwrap();
    let error = here.send(Kind::Fetch(Fetch::default())).await.unwrap_err();
    assert_eq!((error.kind, error.side), (FailureKind::Timeout, Some(Role::Source)));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_waits_for_long_work_hears_of_it() {
    let (mut here, mut there) = sessions(8);
    let work = async {
        let done = there
            .working(async {
                tokio::time::sleep(Duration::from_secs(3_600)).await;
                Ok(7)
            })
            .await?;
        // The peer is not held up by a link that is full of such signs.
        there.send(Kind::Close(Close {})).await?;
        Ok::<_, AgentError>(done)
    };
    let hear = async {
        let mut heard = 0;
        while let Kind::Progress(0) = here.recv().await.unwrap() {
            heard += 1;
        }
        heard
    };
    let (done, heard) = tokio::join!(work, hear);
    assert!(done.unwrap() == 7 && (715..=720).contains(&heard), "{heard}");
}

#[tokio::test(start_paused = true)]
async fn work_goes_on_where_the_peer_reads_nothing() {
    let (_here, mut there) = sessions(1);
    let slow = async {
        tokio::time::sleep(Duration::from_secs(1_000)).await;
        Ok(1)
    };
    assert_eq!(there.working(slow).await.unwrap(), 1);
}

#[tokio::test]
async fn a_closed_link_is_an_error_where_more_is_expected() {
    let (mut here, there) = sessions(1);
    drop(there);
    assert_eq!(here.recv().await.unwrap_err().kind, FailureKind::Unreachable);
    assert_eq!(here.send(Kind::Fetch(Fetch::default())).await.unwrap_err().kind, FailureKind::Unreachable);
}
