//! Connections that go silent without being closed.

use std::sync::Arc;
use std::time::Duration;

use trueup::engine::mysql::MySqlEngine;
use trueup::engine::{Engine, ErrorKind, Manners};
use trueup::model::Key;

use super::{Db, scan, scan_with};
use crate::support::batches::scan_in_batches;
use crate::support::proxy::CountingProxy;

const LIMIT: Duration = Duration::from_secs(1);

async fn behind_proxy(db: &Db) -> (CountingProxy, MySqlEngine) {
    let mut url = db.url();
    let server = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(3306));
    let server = tokio::net::lookup_host(server).await.unwrap().next().unwrap();
    let proxy = CountingProxy::start(server).await;
    url.set_host(Some(&proxy.address.ip().to_string())).unwrap();
    url.set_port(Some(proxy.address.port())).unwrap();
    let manners = Manners { idle_limit: Some(LIMIT), ..Manners::default() };
    let engine = MySqlEngine::connect_with(url.as_str(), &manners).await.unwrap();
    (proxy, engine)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_of_a_connection_that_died_silently_ends_with_an_error() {
    let db = Db::create().await;
    db.execute("CREATE TABLE a (id INT PRIMARY KEY, b LONGTEXT); INSERT INTO a VALUES (1, REPEAT('x', 3000000)), (2, 'y')")
        .await;
    let access = db.access("a").await;
    let keys: Vec<Key> = scan(&db.engine, &access).await.into_iter().map(|row| row.key).collect();
    let (proxy, engine) = behind_proxy(&db).await;
    assert_eq!(engine.lookup(&access, &keys).await.unwrap().rows.len(), 2);
    let snapshot = engine.snapshot(Arc::clone(&access), 1).await.unwrap();
    proxy.fall_silent();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(4);
    let reading = tokio::spawn(scan_in_batches(snapshot, sender));
    let drained = async { while receiver.recv().await.is_some() {} };
    tokio::time::timeout(10 * LIMIT, drained).await.expect("the scan waits for ever");
    let lost = reading.await.unwrap().unwrap_err();
    assert_eq!(lost.kind, ErrorKind::Lost, "{lost}");
    assert!(lost.to_string().contains("nothing for 1 s"), "{lost}");
    // The pool's connection, of which the driver asks whether it lives.
    let lost = tokio::time::timeout(10 * LIMIT, engine.lookup(&access, &keys)).await;
    let lost = lost.expect("the lookup waits for ever").unwrap_err();
    assert_eq!(lost.kind, ErrorKind::Lost, "{lost}");
    proxy.stop().await;
    // And in the middle of a query.
    let (proxy, engine) = behind_proxy(&db).await;
    let mut slow = (*access).clone();
    slow.filter = Some("SLEEP(0.4) = 0".to_owned());
    let slow = Arc::new(slow);
    let looking = tokio::spawn(async move { engine.lookup(&slow, &keys).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    proxy.fall_silent();
    let lost = tokio::time::timeout(10 * LIMIT, looking).await;
    let lost = lost.expect("the lookup waits for ever").unwrap().unwrap_err();
    assert_eq!(lost.kind, ErrorKind::Lost, "{lost}");
    proxy.stop().await;
    db.drop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_slowly_is_not_taken_for_dead() {
    let db = Db::create().await;
    db.execute("CREATE TABLE a (id INT PRIMARY KEY, b LONGTEXT); INSERT INTO a \
         WITH RECURSIVE n (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < 12) SELECT seq, REPEAT('x', 2000000) FROM n")
        .await;
    let access = db.access("a").await;
    let (proxy, engine) = behind_proxy(&db).await;
    let snapshot = engine.snapshot(Arc::clone(&access), 1).await.unwrap();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let reading = tokio::spawn(scan_in_batches(snapshot, sender));
    let mut rows = 0;
    while let Some(batch) = receiver.recv().await {
        rows += batch.rows();
        if rows == 1 {
            tokio::time::sleep(2 * LIMIT + LIMIT / 2).await;
        }
    }
    reading.await.unwrap().unwrap();
    assert_eq!(rows, 12);
    // A server that works and sends nothing is not told from a dead one: that is why the limit is long.
    let mut slow = (*access).clone();
    slow.columns.truncate(1);
    slow.filter = Some("SLEEP(0.4) = 0".to_owned());
    assert_eq!(
        scan_with(&engine, &Arc::new(slow), 1).await.map_err(|error| error.kind),
        Err(ErrorKind::Lost)
    );
    proxy.stop().await;
    db.drop_all().await;
}
