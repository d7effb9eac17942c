//! kill -9 in the middle of a repair, of each of the three processes: what was written is whole, and the same command
//! again ends complete and proved.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::support::process::{Agent, state_home, trueup};
use super::support::servers::PostgresDb;

const ROWS: u32 = 30_000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Source,
    Target,
    Coordinator,
}

fn pair() -> (PostgresDb, PostgresDb) {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE t (id bigint PRIMARY KEY, a text, n int, UNIQUE (n))");
    }
    source.execute(&format!("INSERT INTO t SELECT i, 'row ' || i, i FROM generate_series(1, {ROWS}) i"));
    // A third is missing in scattered places, a block is missing whole, some are old, some extra.
    target.execute(&format!(
        "INSERT INTO t SELECT i, CASE WHEN i % 7 = 0 THEN 'old' ELSE 'row ' || i END, i FROM generate_series(1, {ROWS}) i
         WHERE i % 3 <> 0 AND NOT i BETWEEN 10000 AND 15000;
         INSERT INTO t SELECT 1000000 + i, 'extra', 1000000 + i FROM generate_series(1, 2000) i"
    ));
    (source, target)
}

fn written(target: &PostgresDb) -> u64 {
    target
        .scalar(
            "SELECT count(*) FILTER (WHERE a = 'row ' || id) - count(*) FILTER (WHERE a = 'extra') FROM t",
        )
        .and_then(|text| text.parse::<i64>().ok())
        .map_or(0, |count| u64::try_from(count + 2000).unwrap())
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

fn killed_in_mid_repair(victim: Victim, after_rows: u64) -> bool {
    let (source, target) = pair();
    let source_url = source.url();
    let target_url = target.url();
    let source_agent = Agent::start(&["--database", &source_url], &[]);
    let target_agent = Agent::start(&["--database", &target_url, "--allow-write"], &[]);
    let addresses = [&source_agent, &target_agent].map(|agent| format!("grpc://{}", agent.address));
    let args = [
        "repair",
        &addresses[0],
        &addresses[1],
        "-t",
        "t",
        "--quiet",
        "--allow",
        "insert,update,delete",
        "--max-changes",
        "100000",
        "--recheck-delay",
        "10ms",
        "--limit",
        "0",
    ];
    let start = written(&target);
    let mut coordinator: Child = Command::new(env!("CARGO_BIN_EXE_trueup"))
        .env("XDG_STATE_HOME", state_home())
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let mut seen = start;
    while seen < start + after_rows && coordinator.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(60), "the repair does not begin");
        seen = written(&target);
    }
    let in_the_middle = coordinator.try_wait().unwrap().is_none();
    match victim {
        Victim::Source => kill(source_agent.pid()),
        Victim::Target => kill(target_agent.pid()),
        Victim::Coordinator => kill(coordinator.id()),
    }
    let status = coordinator.wait().unwrap();
    if in_the_middle && victim != Victim::Coordinator {
        assert_eq!(status.code(), Some(2), "a repair that lost an agent could not tell");
    }
    drop((source_agent, target_agent));
    // Whatever was written is a row of the source or was there before; nothing is doubled, nothing half.
    let odd = "SELECT count(*) FROM t WHERE a NOT IN ('row ' || id, 'old', 'extra') OR n IS NULL";
    assert_eq!(target.scalar(odd).as_deref(), Some("0"));

    let again = trueup(&[
        "repair",
        &source.url(),
        &target.url(),
        "-t",
        "t",
        "--quiet",
        "--allow",
        "insert,update,delete",
        "--max-changes",
        "100000",
        "--recheck-delay",
        "10ms",
        "--format",
        "json",
        "--limit",
        "0",
    ]);
    assert_eq!(again.status, 0, "{again:?}");
    let table = &again.json()["tables"][0];
    // Where the kill came after the last row was written, nothing is left to repair.
    let root = if table["repaired_root"].is_null() { "target_root" } else { "repaired_root" };
    assert_eq!(table[root], table["source_root"]);
    let all = "SELECT count(*) || ' ' || sum(hashtextextended(t::text, 0)) FROM t";
    assert_eq!(source.scalar(all), target.scalar(all));
    in_the_middle
}

#[test]
fn a_repair_killed_anywhere_is_taken_up_again() {
    let mut in_the_middle = 0;
    for (at, victim) in [Victim::Source, Victim::Target, Victim::Coordinator].into_iter().enumerate() {
        for after in [1, 3_000 + 2_000 * u64::try_from(at).unwrap()] {
            in_the_middle += u32::from(killed_in_mid_repair(victim, after));
        }
    }
    assert!(in_the_middle >= 4, "most kills must come in mid-repair: {in_the_middle} of 6");
}
