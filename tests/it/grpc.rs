//! Agents over gRPC in good order: the four pairings, cancelling, stopping, limits, many tables on one connection.

use std::sync::Arc;
use std::time::Duration;

use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};
use trueup::agent::security::ClientSecurity;
use trueup::agent::server::ServerLimits;
use trueup::agent::{AgentHandle, Event, Serves, in_process, start};
use trueup::model::{Role, TableName};

use super::support::agents::{
    Listen, Listening, PATIENCE, dial, engine_of, last, local, outcome, repair, serving, task,
};
use super::support::gate::{At, GatedEngine};
use super::support::proxy::CountingProxy;
use super::support::servers::SqliteDb;

const ROWS: u32 = 3_000;

fn table(name: &str, rows: u32) -> SqliteDb {
    let db = SqliteDb::create();
    db.execute(&format!(
        "CREATE TABLE {name} (id INTEGER PRIMARY KEY, note TEXT NOT NULL);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         INSERT INTO {name} SELECT i, 'note ' || i FROM n"
    ));
    db
}

/// Seven missing, five changed, three extra.
fn differing_target(name: &str) -> SqliteDb {
    let db = table(name, ROWS);
    db.execute(&format!(
        "DELETE FROM {name} WHERE id BETWEEN 100 AND 106;
         UPDATE {name} SET note = 'other' WHERE id BETWEEN 900 AND 904;
         INSERT INTO {name} VALUES (90001, 'x'), (90002, 'x'), (90003, 'x')"
    ));
    db
}

/// Both sides behind each way of reaching them, and the agents that listen for it.
struct Pairing {
    name: &'static str,
    source: AgentHandle,
    target: AgentHandle,
    _listening: Vec<Listening>,
}

async fn pairings(
    source: Arc<dyn trueup::engine::Engine>,
    target: Arc<dyn trueup::engine::Engine>,
) -> Vec<Pairing> {
    let mut all = Vec::new();
    for (name, remote_source, remote_target) in [
        ("both here", false, false),
        ("source there", true, false),
        ("target there", false, true),
        ("both there", true, true),
    ] {
        let mut listening = Vec::new();
        let mut handles = Vec::new();
        for (engine, remote) in [(source.clone(), remote_source), (target.clone(), remote_target)] {
            let agent = local(engine);
            handles.push(if remote {
                let there = Listening::start(agent).await;
                let handle = there.handle().await;
                listening.push(there);
                handle
            } else {
                in_process(agent)
            });
        }
        let target = handles.pop().unwrap();
        let source = handles.pop().unwrap();
        all.push(Pairing { name, source, target, _listening: listening });
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_four_pairings_find_and_repair_the_same() {
    let source = table("t", ROWS);
    let mut bytes = Vec::new();
    for way in 0..4 {
        let target = differing_target("t");
        let pairing = pairings(engine_of(&source).await, engine_of(&target).await).await.remove(way);
        let Pairing { name, source, target: there, .. } = &pairing;
        let task = task(source, there, "t").await;
        let found = outcome(start(source, there, task.clone()).await.unwrap()).await;
        assert_eq!((found.missing, found.changed, found.extra), (7, 5, 3), "{name}");
        assert!(found.proved, "{name}");
        bytes.push(found.bytes_to_source + found.bytes_to_target);
        let repaired = outcome(start(source, there, repair(task.clone())).await.unwrap()).await;
        assert_eq!((repaired.inserted, repaired.updated, repaired.deleted), (7, 5, 3), "{name}");
        assert!(repaired.proved, "{name}");
        assert_eq!(target.scalar("SELECT note FROM t WHERE id = 902").as_deref(), Some("note 902"));
        let again = outcome(start(source, there, task).await.unwrap()).await;
        assert_eq!(again.differences(), 0, "{name}");
    }
    // The link in memory counts what the network would carry; digests are keyed anew each time.
    let (least, most) = (bytes.iter().min().unwrap(), bytes.iter().max().unwrap());
    assert!(most - least < 1_000 + least / 4, "{bytes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_events_stops_both_sides() {
    let db = table("t", 10);
    for way in 0..4 {
        let (source, target) = (
            GatedEngine::closed(engine_of(&db).await, At::Snapshot),
            GatedEngine::closed(engine_of(&db).await, At::Snapshot),
        );
        let pairing = pairings(source.clone(), target.clone()).await.remove(way);
        let task = task(&pairing.source, &pairing.target, "t").await;
        let events = start(&pairing.source, &pairing.target, task).await.unwrap();
        source.until_waiting(1).await;
        target.until_waiting(1).await;
        drop(events);
        source.until_waiting(0).await;
        target.until_waiting(0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails_is_told_as_such() {
    for way in 0..4 {
        let (source, target) = (table("t", 10), table("t", 10));
        let pairing = pairings(engine_of(&source).await, engine_of(&target).await).await.remove(way);
        let task = task(&pairing.source, &pairing.target, "t").await;
        source.execute("DROP TABLE t");
        match last(start(&pairing.source, &pairing.target, task).await.unwrap()).await {
            Event::Failed { kind, side, message, hint } => {
                assert_eq!(
                    (kind.as_str(), side),
                    ("usage", Some(Role::Source)),
                    "{}: {message}",
                    pairing.name
                );
                assert!(hint.is_some(), "{}", pairing.name);
            }
            other => panic!("{}: {other:?}", pairing.name),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_cannot_be_dialled_is_told_as_such() {
    let db = table("t", 10);
    let source = Listening::start(local(engine_of(&db).await)).await;
    let target = Listening::start(local(engine_of(&db).await)).await;
    let proxy = CountingProxy::start(source.address).await;
    let dialled = dial(&format!("grpc://{}", proxy.address), &ClientSecurity::default()).await.unwrap();
    let (there, here) = ((Arc::new(dialled) as AgentHandle), target.handle().await);
    let task = task(&there, &here, "t").await;
    // The coordinator reaches the source; the target is told an address where nobody listens.
    proxy.stop().await;
    match last(start(&there, &here, task).await.unwrap()).await {
        Event::Failed { kind, side, hint, .. } => {
            assert_eq!((kind.as_str(), side), ("unreachable", Some(Role::Source)));
            assert!(hint.is_some());
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_does_not_serve_is_refused_also_from_afar() {
    let (source, target) = (table("t", 10), differing_target("t"));
    target.execute("CREATE TABLE secret (id INTEGER PRIMARY KEY)");
    let only_t =
        Serves { tables: Some(vec![TableName::new(None, "t")]), write: false, conditions: false, sql: false };
    let listening = Listening::start(serving(engine_of(&target).await, only_t, PATIENCE)).await;
    let there = listening.handle().await;
    let here = in_process(local(engine_of(&source).await));
    assert!(!there.may_write());
    assert_eq!(there.tables(None).await.unwrap().len(), 1);
    let refused = there.describe(&TableName::new(None, "secret")).await.unwrap_err();
    assert_eq!(refused.kind.as_str(), "refused");
    assert!(refused.hint.is_some());
    let task = task(&here, &there, "t").await;
    let refused = start(&here, &there, repair(task.clone())).await.unwrap_err();
    assert_eq!((refused.kind.as_str(), refused.side), ("refused", Some(Role::Target)));
    // To look is allowed, to decide without writing as well.
    let mut dry = repair(task.clone());
    dry.options.dry_run = true;
    assert!(outcome(start(&here, &there, dry).await.unwrap()).await.left > 0);
    // A plan may name another table than the one that was described.
    let mut other = task;
    other.plan.target = TableName::new(None, "secret");
    match last(start(&here, &there, other).await.unwrap()).await {
        Event::Failed { kind, .. } => assert_eq!(kind, "refused"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_conversations_than_allowed_are_refused_and_places_come_back() {
    let db = table("t", 10);
    let gated = GatedEngine::closed(engine_of(&db).await, At::Snapshot);
    let limits = ServerLimits { sessions: 2, ..ServerLimits::default() };
    let listening = Listen { limits, ..Listen::default() }.start(local(gated.clone())).await;
    let (there, here) = (listening.handle().await, in_process(local(engine_of(&db).await)));
    let task = task(&there, &here, "t").await;
    // One as the source, one as the target: its meeting with the source takes no third place.
    let one = start(&there, &here, task.clone()).await.unwrap();
    let two = start(&here, &there, task.clone()).await.unwrap();
    gated.until_waiting(2).await;
    for (source, target) in [(&there, &here), (&here, &there)] {
        let refused = start(source, target, task.clone()).await.unwrap_err();
        assert_eq!(refused.kind.as_str(), "resource");
        assert!(refused.message.contains("2 conversations"), "{}", refused.message);
    }
    drop(one);
    gated.until_waiting(1).await;
    gated.open();
    assert!(outcome(two).await.proved);
    assert!(outcome(start(&there, &here, task).await.unwrap()).await.proved);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_agent_lets_its_conversations_end() {
    let db = table("t", 10);
    let gated = GatedEngine::closed(engine_of(&db).await, At::Snapshot);
    let mut listening = Listening::start(local(gated.clone())).await;
    let (there, here) = (listening.handle().await, in_process(local(engine_of(&db).await)));
    let task = task(&there, &here, "t").await;
    let url = listening.url();
    let events = start(&there, &here, task).await.unwrap();
    gated.until_waiting(1).await;
    listening.stop();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(dial(&url, &ClientSecurity::default()).await.is_err(), "it takes nobody new");
    gated.open();
    assert!(outcome(events).await.proved);
    listening.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_agent_tells_why_it_cuts_a_conversation_off() {
    let db = table("t", 10);
    for remote_source in [true, false] {
        let gated = GatedEngine::closed(engine_of(&db).await, At::Snapshot);
        let limits = ServerLimits { grace: Duration::from_millis(50), ..ServerLimits::default() };
        let mut listening = Listen { limits, ..Listen::default() }.start(local(gated.clone())).await;
        let (there, here) = (listening.handle().await, in_process(local(engine_of(&db).await)));
        let (source, target) = if remote_source { (&there, &here) } else { (&here, &there) };
        let task = task(source, target, "t").await;
        let events = start(source, target, task).await.unwrap();
        gated.until_waiting(1).await;
        listening.stop();
        let side = if remote_source { Role::Source } else { Role::Target };
        match last(events).await {
            Event::Failed { kind, side: told, message, .. } => {
                assert_eq!((kind.as_str(), told), ("unreachable", Some(side)), "{message}");
                assert!(message.contains("was stopped"), "{message}");
            }
            other => panic!("{other:?}"),
        }
        gated.until_waiting(0).await;
        drop((there, here));
        listening.stopped().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_stalls_does_not_hold_up_the_tables_beside_it() {
    const STALLED: usize = 6;
    let source = SqliteDb::create();
    source.execute(
        "CREATE TABLE big (id INTEGER PRIMARY KEY, noise BLOB NOT NULL);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
         INSERT INTO big SELECT i, randomblob(3000) FROM n;
         CREATE TABLE small (id INTEGER PRIMARY KEY, note TEXT NOT NULL);
         INSERT INTO small VALUES (1, 'a')",
    );
    let empty = SqliteDb::create();
    empty.execute(
        "CREATE TABLE big (id INTEGER PRIMARY KEY, noise BLOB NOT NULL);
         CREATE TABLE small (id INTEGER PRIMARY KEY, note TEXT NOT NULL)",
    );
    let listening = Listening::start(local(engine_of(&source).await)).await;
    // One connection for all.
    let there = listening.handle().await;
    let gated = GatedEngine::closed(engine_of(&empty).await, At::Apply);
    let here = in_process(local(gated.clone()));
    let mut big = repair(task(&there, &here, "big").await);
    // Nobody listens to their events.
    big.options.details_max = 0;
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        stalled.push(start(&there, &here, big.clone()).await.unwrap());
    }
    // Of each the first batch: no further one begins before the table is known to take rows.
    gated.until_waiting(STALLED).await;
    // The rows on their way fill every window.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let small = task(&there, &here, "small").await;
    assert_eq!(outcome(start(&there, &here, small).await.unwrap()).await.missing, 1);
    drop(stalled);
    gated.until_waiting(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_counted_bytes_are_those_of_the_wire() {
    let (source, target) = (table("t", 20_000), table("t", 20_000));
    target.execute(
        "UPDATE t SET note = note || '!' WHERE id % 40 = 0; DELETE FROM t WHERE id BETWEEN 7000 AND 8999",
    );
    let listening = Listening::start(local(engine_of(&source).await)).await;
    let proxy = CountingProxy::start(listening.address).await;
    let dialled = dial(&format!("grpc://{}", proxy.address), &ClientSecurity::default()).await.unwrap();
    let (there, here) = ((Arc::new(dialled) as AgentHandle), in_process(local(engine_of(&target).await)));
    let task = repair(task(&there, &here, "t").await);
    let before = proxy.bytes();
    let outcome = outcome(start(&there, &here, task).await.unwrap()).await;
    assert!(outcome.proved);
    // The last frames may still be on their way through the proxy.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let after = proxy.bytes();
    for (what, counted, real) in [
        ("to the source", outcome.bytes_to_source, after.0 - before.0),
        ("to the target", outcome.bytes_to_target, after.1 - before.1),
    ] {
        eprintln!("{what}: counted {counted}, on the wire {real}");
        assert!(real >= counted, "{what}: counted {counted}, on the wire {real}");
        assert!(
            real <= counted + counted * 15 / 100 + 1_000,
            "{what}: counted {counted}, on the wire {real}"
        );
    }
}

/// What `trueup` promises of the link, over gRPC: beyond the handshake and without row payload.
#[tokio::test(flavor = "multi_thread")]
async fn the_budget_of_locating_holds_end_to_end() {
    for (drift, rows) in [
        ("", 0),
        ("UPDATE t SET note = 'x' WHERE id = 77", 1),
        ("UPDATE t SET note = 'x' WHERE id % 300 = 0", 100),
        ("UPDATE t SET note = 'x' WHERE id % 300 = 0; DELETE FROM t WHERE id % 300 = 7", 200),
        ("DELETE FROM t WHERE id BETWEEN 3000 AND 22999", 0),
    ] {
        let (source, target) = (table("t", 30_000), table("t", 30_000));
        if !drift.is_empty() {
            target.execute(drift);
        }
        let listening = Listening::start(local(engine_of(&source).await)).await;
        let there = Arc::new(listening.dial().await) as AgentHandle;
        let here = in_process(local(engine_of(&target).await));
        // The missing block is streamed by a repair; in a dry one its rows do not cross.
        let mut task = repair(task(&there, &here, "t").await);
        task.options.dry_run = rows > 0 || drift.is_empty();
        task.options.max_overwritten_percent = None;
        let outcome = outcome(start(&there, &here, task).await.unwrap()).await;
        let all = outcome.bytes_to_source + outcome.bytes_to_target - outcome.handshake_bytes;
        assert!(outcome.round_trips <= 6, "{drift}: {} round trips", outcome.round_trips);
        if drift.is_empty() {
            assert_eq!((outcome.round_trips, outcome.proved), (1, true));
            assert!(outcome.bytes_to_target < 256 && all < 256, "equal: {all} bytes");
        } else if rows > 0 {
            // The rows themselves are read again and compared: some 40 bytes of digest and key each.
            assert!(all <= 9_000 + rows * 100, "{drift}: {all} bytes for {rows} rows");
            assert_eq!(outcome.round_trips, 1, "{drift}");
        } else {
            assert!(outcome.inserted == 20_000 && outcome.proved, "{outcome:?}");
            // The proof names each written row once more: about a byte each in a stretch of keys.
            assert!(outcome.bytes_to_source < 1_000 + 24_000, "a gap costs its rows alone: {outcome:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_answer() {
    let db = table("t", 1);
    let mut listening = Listening::start(local(engine_of(&db).await)).await;
    let channel =
        Channel::from_shared(format!("http://{}", listening.address)).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel.clone());
    let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for service in ["", "trueup.v1.Agent"] {
        let status = health.check(ask(service)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
    assert!(health.check(ask("another")).await.is_err());

    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut replies = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::once(list))
        .await
        .unwrap()
        .into_inner();
    match replies.next().await.unwrap().unwrap().message_response.unwrap() {
        MessageResponse::ListServicesResponse(list) => {
            assert!(list.service.iter().any(|service| service.name == "trueup.v1.Agent"), "{list:?}");
        }
        other => panic!("{other:?}"),
    }
    drop(replies);

    // Whoever watches hears that it stops.
    let mut watch = health.watch(ask("trueup.v1.Agent")).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    listening.stop();
    let told = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(told.status(), ServingStatus::NotServing);
}

/// Where bytes are dearer than round trips, a small sketch goes ahead.
#[tokio::test(flavor = "multi_thread")]
async fn a_metered_link_sees_a_kilobyte_for_one_row() {
    let (source, target) = (table("t", 30_000), table("t", 30_000));
    target.execute("UPDATE t SET note = 'x' WHERE id = 77");
    let listening = Listening::start(local(engine_of(&source).await)).await;
    let there = Arc::new(listening.dial().await) as AgentHandle;
    let here = in_process(local(engine_of(&target).await));
    let mut task = task(&there, &here, "t").await;
    task.options.metered = true;
    let outcome = outcome(start(&there, &here, task).await.unwrap()).await;
    let all = outcome.bytes_to_source + outcome.bytes_to_target - outcome.handshake_bytes;
    assert!(outcome.changed == 1 && outcome.proved && all < 1_200 && outcome.round_trips <= 2, "{outcome:?}");
}
