//! Two coordinators on one PostgreSQL ledger: no due time is run twice, and one takes over when the other is killed.

use std::time::{Duration, Instant};

use super::support::process::trueup;
use super::support::receiver::Receiver;
use super::support::serve::Serve;
use super::support::servers::{PostgresDb, SqliteDb};

#[test]
fn each_time_is_run_once_and_the_survivor_goes_on() {
    let (source, target, ledger) = (SqliteDb::create(), SqliteDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO orders VALUES (1, 1), (2, 2)");
    }
    let receiver = Receiver::start(0);
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("trueup.toml");
    let checks: String = (0..6)
        .map(|n| format!("[checks.c{n}]\npair = \"p\"\nkind = \"rows\"\nschedule = \"quick\"\n"))
        .collect();
    std::fs::write(
        &config,
        format!(
            "[endpoints.a]\nurl = \"{}\"\n[endpoints.b]\nurl = \"{}\"\n[pairs.p]\nsource = \"a\"\ntarget = \"b\"\n[serve]\nlease = \"8s\"\nconcurrency = 2\n\
             [schedules.quick]\nwhen = \"every 1s\"\njitter = \"0s\"\n{checks}\
             [alerts.ops]\nkind = \"webhook\"\nurl = \"{}\"\ngroup = \"0s\"\n",
            source.url(),
            target.url(),
            receiver.url()
        ),
    )
    .unwrap();
    let url = ledger.url();
    let mut first = Serve::start(&config, &url, &[]);
    let mut second = Serve::start(&config, &url, &[]);
    let ran = |what: &str| -> i64 {
        ledger.scalar(&format!("SELECT count(*) FROM trueup_checks {what}")).unwrap().parse().unwrap()
    };
    let until = |what: &str, is: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !is() {
            assert!(began.elapsed() < Duration::from_secs(60), "{what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    until("both work", &|| ran("") >= 40);
    let twice = "SELECT count(*) FROM (SELECT due.key, due.value FROM trueup_runs, jsonb_each_text(options::jsonb -> 'due') due WHERE ended_at IS NOT NULL GROUP BY 1, 2 HAVING count(*) > 1) twice";
    let times = "SELECT count(*) FROM trueup_runs, jsonb_each_text(options::jsonb -> 'due') due";
    assert!(ledger.scalar(times).unwrap().parse::<u64>().unwrap() >= 40);
    assert_eq!(ledger.scalar(twice).as_deref(), Some("0"));
    // Both had a share of the work.
    let shares = |serve: &Serve| serve.log().matches("checks ran").count();
    assert!(shares(&first) > 0 && shares(&second) > 0, "{} and {}", shares(&first), shares(&second));

    first.signal("KILL");
    first.wait();
    let before = shares(&second);
    target.execute("UPDATE orders SET n = 3 WHERE id = 2");
    // All six checks, also those that the dead one held.
    for n in 0..6 {
        receiver.until("every check's alert", |received| received.body.contains(&format!("\"c{n}\"")));
    }
    assert!(shares(&second) > before);
    assert_eq!(ledger.scalar(twice).as_deref(), Some("0"));
    // Nobody was told twice.
    let firing: usize =
        receiver.all().iter().map(|received| received.body.matches("\"firing\"").count()).sum();
    assert_eq!(firing, 6);
    second.signal("TERM");
    assert_eq!(second.wait(), 0);
    let verified = trueup(&["audit", "verify", "--ledger", &url]);
    assert_eq!(verified.status, 0, "{verified:?}");
    assert_eq!(
        ledger.scalar("SELECT count(*) FROM trueup_schedule WHERE owner IS NOT NULL").as_deref(),
        Some("0")
    );
}
