//! The ledger in PostgreSQL when its server does not answer: every call ends, and none holds up the others for ever.

use std::time::{Duration, Instant};

use trueup::ledger::Ledger;

use super::support::proxy::CountingProxy;
use super::support::servers::PostgresDb;

/// What one call may take: `src/ledger/store.rs`, and some time of the machine's own.
const CALL: Duration = Duration::from_secs(30 + 8);

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_is_given_up_and_found_again() {
    let db = PostgresDb::create();
    let mut url = url::Url::parse(&db.url()).unwrap();
    let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let proxy = CountingProxy::start(server.parse().unwrap()).await;
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(proxy.address.port())).unwrap();
    let ledger = Ledger::open_postgres(url.as_str()).await.unwrap();
    let head = ledger.head().await.unwrap();
    proxy.fall_silent();
    let began = Instant::now();
    // Eight at once, and one that opens a ledger anew.
    let calls = (0..8).map(|_| {
        let ledger = ledger.clone();
        tokio::spawn(async move { ledger.head().await.map(drop) })
    });
    let anew = tokio::spawn({
        let url = url.to_string();
        async move { Ledger::open_postgres(&url).await.map(drop) }
    });
    for call in calls.collect::<Vec<_>>().into_iter().chain([anew]) {
        let error = call.await.unwrap().unwrap_err();
        assert!(error.what.contains("answer"), "{error}");
        assert!(began.elapsed() < CALL, "{:?}", began.elapsed());
    }
    proxy.go_on();
    assert_eq!(ledger.head().await.unwrap(), head);
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_of_another_session_are_named_as_the_cause() {
    let db = PostgresDb::create();
    let ledger = Ledger::open_postgres(&db.url()).await.unwrap();
    let mut other = <sqlx::PgConnection as sqlx::Connection>::connect(&db.url()).await.unwrap();
    let hold = sqlx::raw_sql("BEGIN; LOCK TABLE trueup_schedule IN ACCESS EXCLUSIVE MODE");
    hold.execute(&mut other).await.unwrap();
    let began = Instant::now();
    let error = ledger.schedule_rows().await.unwrap_err();
    assert!(began.elapsed() < CALL, "{:?}", began.elapsed());
    assert!(error.hint.contains("another session holds the locks"), "{error}: {}", error.hint);
    drop(other);
    ledger.schedule_rows().await.unwrap();
}
