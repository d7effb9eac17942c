//! Figures, when asked for: `cargo test --profile quick --test it postgres::speed -- --ignored --nocapture`.

use std::time::Instant;

use trueup::engine::Engine;
use trueup::model::{Change, ChangeOutcome, Key};

use super::setup::Db;

const ROWS: i64 = 1_000_000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a check"]
async fn rows_a_second() {
    let db = Db::new(&format!(
        "CREATE TABLE o (id bigint PRIMARY KEY, customer int, status varchar(16), amount numeric(12,2), note text,
                         created timestamptz, updated timestamptz);
         INSERT INTO o SELECT g, g % 1000, 'status' || g % 7, (g % 100000) / 100.0, 'note number ' || md5(g::text),
                         now() + g * interval '1 second', now() FROM generate_series(1, {ROWS}) g;
         CREATE TABLE twin (LIKE o INCLUDING ALL); ANALYZE o;"
    ))
    .await;
    let access = db.access("o").await;
    for readers in [1, 2] {
        for encode in [false, true] {
            let snapshot = db.engine.snapshot(access.clone(), readers).await.unwrap();
            let (send, mut receive) = tokio::sync::mpsc::channel(16);
            let start = Instant::now();
            let cpu = cpu_seconds();
            let scan = tokio::spawn(snapshot.scan(send));
            let (mut rows, mut bytes) = (0, 0);
            let mut decoding = 0.0;
            while let Some(batch) = receive.recv().await {
                rows += batch.rows();
                if encode {
                    let start = Instant::now();
                    batch.encode(&mut |row| bytes += row.key.len() + row.row.len()).unwrap();
                    decoding += start.elapsed().as_secs_f64();
                }
            }
            scan.await.unwrap().unwrap();
            let each = 1e6 / ROWS as f64;
            println!(
                "scan readers={readers} encode={encode}: {rows} rows, {bytes} bytes, {:.2} s, {:.3} us CPU a row, decode {:.3} us a row",
                start.elapsed().as_secs_f64(),
                (cpu_seconds() - cpu) * each,
                decoding * each
            );
        }
    }
    let rows = db.scan(&access, 2).await;
    let keys: Vec<Key> = rows.keys().step_by(1000).cloned().collect();
    let start = Instant::now();
    for _ in 0..10 {
        assert_eq!(db.engine.fetch(&access, &keys).await.unwrap().len(), keys.len());
    }
    println!("fetch of {} keys: {:.1} ms", keys.len(), start.elapsed().as_secs_f64() * 100.0);

    let twin = db.access("twin").await;
    let inserts: Vec<Change> = rows
        .iter()
        .take(100_000)
        .map(|(key, row)| Change { key: key.clone(), before: None, after: Some(row.clone()) })
        .collect();
    let start = Instant::now();
    for batch in inserts.chunks(1000) {
        assert!(db.apply(&twin, batch).await.iter().all(|o| *o == ChangeOutcome::Written));
    }
    println!("insert: {:.0} rows/s", 1e5 / start.elapsed().as_secs_f64());
    db.sql("UPDATE twin SET customer = -1, note = 'x'").await;
    let now = db.scan(&twin, 1).await;
    let updates = super::setup::changes(
        &now,
        &rows.iter().take(100_000).map(|(k, r)| (k.clone(), r.clone())).collect(),
    );
    let start = Instant::now();
    for batch in updates.chunks(1000) {
        assert!(db.apply(&twin, batch).await.iter().all(|o| *o == ChangeOutcome::Written));
    }
    println!("update: {:.0} rows/s", 1e5 / start.elapsed().as_secs_f64());
    let deletes = super::setup::changes(&db.scan(&twin, 1).await, &Default::default());
    let start = Instant::now();
    for batch in deletes.chunks(1000) {
        assert!(db.apply(&twin, batch).await.iter().all(|o| *o == ChangeOutcome::Written));
    }
    println!("delete: {:.0} rows/s", 1e5 / start.elapsed().as_secs_f64());
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<f64> =
        stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2).map(|f| f.parse().unwrap()).collect();
    fields.iter().sum::<f64>() / 100.0
}
