//! What ends a run early: a full disk, a view that repeats its key, Ctrl-C. Each with a clear word, and nothing left behind.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::support::process::{Agent, command, state_home, trueup};
use super::support::servers::{PostgresDb, SqliteDb};

fn numbers(db: &SqliteDb, rows: u32) {
    db.execute(&format!(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) INSERT INTO t SELECT i * 7919 % 1000003, 'row ' || i FROM n"
    ));
}

#[test]
fn a_full_disk_is_named_and_changes_nothing() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    numbers(&source, 120_000);
    numbers(&target, 120_000);
    target.execute("DELETE FROM t WHERE id % 1000 = 0");
    let before = target.scalar("SELECT count(*) FROM t");
    let scratch = tempfile::tempdir().unwrap();
    // A limit on the size of files stands for the end of the disk: the same write fails in the same place.
    let output = Command::new("bash")
        .args(["-c", "ulimit -f 64; exec \"$@\"", "bash", env!("CARGO_BIN_EXE_trueup")])
        .args(["repair", &source.url(), &target.url(), "-t", "t", "--quiet", "--memory", "1MiB"])
        .args(["--no-ledger", "--scratch", scratch.path().to_str().unwrap()])
        .output()
        .unwrap();
    // A table's own error stands in the report.
    let told = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).join("\n");
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("hint: free space there, or name another folder with --scratch"), "{told}");
    assert!(told.contains(scratch.path().to_str().unwrap()), "which folder: {told}");
    assert_eq!(target.scalar("SELECT count(*) FROM t"), before);
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "scratch files are gone");
}

#[test]
fn a_view_that_repeats_its_key_is_refused() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    numbers(&source, 1000);
    numbers(&target, 1000);
    source.execute("CREATE VIEW v AS SELECT * FROM t UNION ALL SELECT * FROM t WHERE id = 7919");
    let output = trueup(&["diff", &source.url(), &target.url(), "-t", "v=t", "-q"]);
    assert_eq!(output.status, 2, "{output:?}");
    let told = output.stdout + &output.stderr;
    assert!(told.contains("the key is not unique") && told.contains("--key"), "{told}");
}

#[test]
fn tables_that_share_no_column_are_refused() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    source.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)");
    target.execute("CREATE TABLE t (nr INTEGER PRIMARY KEY, b TEXT)");
    let output = trueup(&["diff", &source.url(), &target.url(), "-t", "t", "-q"]);
    assert_eq!(output.status, 2, "{output:?}");
    assert!(output.stdout.contains("key column id") && output.stdout.contains("--map id="), "{output:?}");
    let (s, t) = (source.url(), target.url());
    let mapped = ["diff", &s, &t, "-t", "t", "-q", "--map", "id=nr"];
    assert_eq!(trueup(&mapped).status, 1, "a and b have no partner");
    assert_eq!(trueup(&[&mapped[..], &["--unpaired", "a,b"]].concat()).status, 0);
}

#[test]
fn ctrl_c_stops_both_sides() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        // Each row takes a while, so that there is a middle to stop in.
        db.execute(
            "CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t SELECT i, 'x' FROM generate_series(1, 2000) i;
             CREATE VIEW slow AS SELECT id, a || pg_sleep(0.05)::text AS a FROM t",
        );
    }
    let agent = Agent::start(&["--database", &source.url()], &[]);
    let target_url = target.url();
    let running = Command::new(env!("CARGO_BIN_EXE_trueup"))
        .env("XDG_STATE_HOME", state_home())
        .args(["diff", &format!("grpc://{}", agent.address), &target_url, "-t", "slow", "--key", "id", "-q"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let busy = |db: &PostgresDb| {
        db.scalar("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query LIKE 'COPY%'")
    };
    let until = |what: &str, done: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    until("both sides read", &|| {
        busy(&source).as_deref() == Some("1") && busy(&target).as_deref() == Some("1")
    });
    assert!(Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap().success());
    let output = running.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("interrupted"), "{told}");
    // The databases are let go of: also the one behind the agent, which goes on serving.
    until("the queries end", &|| {
        busy(&source).as_deref() == Some("0") && busy(&target).as_deref() == Some("0")
    });
}

/// A command under way, to be sent a signal.
struct Started(std::process::Child);

impl Started {
    fn new(args: &[&str]) -> Self {
        Self(command(args, &[]).spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap().success());
    }

    /// Its exit status, and what it said on standard error.
    fn ended(self) -> (Option<i32>, String) {
        let output = self.0.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn count(db: &SqliteDb, sql: &str) -> u64 {
    db.scalar(sql).unwrap().parse().unwrap()
}

/// The number in front of these words.
fn number_before(told: &str, words: &str) -> u64 {
    let before = told.split(words).next().filter(|before| before.len() < told.len());
    let number = before.and_then(|before| before.split_whitespace().next_back());
    let number = number.unwrap_or_else(|| panic!("{words:?} is not in {told}"));
    number.trim_start_matches('(').replace(',', "").parse().unwrap()
}

const MANY: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)";

fn many(rows: u32) -> (SqliteDb, SqliteDb) {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    source.execute(MANY);
    target.execute(MANY);
    source.execute(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) INSERT INTO t SELECT i, 'row ' || i FROM n"
    ));
    (source, target)
}

#[test]
fn a_repair_that_is_stopped_says_what_it_wrote_and_how_to_go_on_or_back() {
    for (signal, command) in
        [("-INT", "repair"), ("-TERM", "repair"), ("-HUP", "repair"), ("-TERM", "backfill")]
    {
        let (source, target) = many(20_000);
        let dir = tempfile::tempdir().unwrap();
        let ledger = dir.path().join("ledger.db").to_str().unwrap().to_owned();
        let (s, t) = (source.url(), target.url());
        let mut args =
            vec![command, &s, &t, "-t", "t", "-q", "--ledger", &ledger, "--max-rows-per-second", "4000"];
        if command == "backfill" {
            args.extend(["--on", "id", "--step", "20000"]);
        }
        let running = Started::new(&args);
        wait_for("rows are written", || count(&target, "SELECT count(*) FROM t") > 4_000);
        running.signal(signal);
        let (status, told) = running.ended();
        assert_eq!(status, Some(2), "{told}");
        let there = count(&target, "SELECT count(*) FROM t");
        assert!(there < 20_000, "it ended before the signal");
        let written = number_before(&told, " rows were written (");
        let unknown =
            if told.contains("on their way") { number_before(&told, " more were on their way") } else { 0 };
        assert!((written..=written + unknown).contains(&there), "{there} rows are there: {told}");
        assert!(written + unknown > 0 && told.contains("run the same command again to go on"), "{told}");
        let undo: Vec<&str> =
            told.split("take back what was written: trueup ").nth(1).unwrap().split_whitespace().collect();
        assert_eq!((undo[0], &undo[2..]), ("undo", &["--ledger", ledger.as_str()][..]), "{told}");
        let runs = trueup(&["runs", "--outcome", "interrupted", "--ledger", &ledger]);
        assert!(runs.stdout.contains(undo[1]) && runs.stdout.contains("rows were written"), "{runs:?}");
        assert_eq!(trueup(&["runs", "--outcome", "open", "--ledger", &ledger]).stdout, "");
        assert_eq!(trueup(&["audit", "verify", "--ledger", &ledger]).status, 0);
        let report = trueup(&["report", undo[1], "--format", "md", "--ledger", &ledger]);
        assert!(report.stdout.contains("interrupted"), "{report:?}");
        if command == "repair" {
            assert!(report.stdout.contains("rows were written, nothing was proved"), "{report:?}");
            let of_table = trueup(&["runs", "-t", "t", "--ledger", &ledger]);
            assert!(of_table.stdout.contains(undo[1]), "{of_table:?}");
        }
        // The one way and the other.
        let undone = trueup(&undo);
        assert_eq!((undone.status, count(&target, "SELECT count(*) FROM t")), (0, 0), "{undone:?}");
        let again: Vec<&str> =
            args.iter().copied().filter(|arg| !["--max-rows-per-second", "4000"].contains(arg)).collect();
        let again = trueup(&again);
        assert_eq!((again.status, count(&target, "SELECT count(*) FROM t")), (0, 20_000), "{again:?}");
    }
}

#[test]
fn an_undo_and_a_check_that_are_stopped_say_so_too() {
    let (source, target) = many(12_000);
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger.db").to_str().unwrap().to_owned();
    let (s, t) = (source.url(), target.url());
    assert_eq!(trueup(&["repair", &s, &t, "-q", "--ledger", &ledger]).status, 0);
    let running = Started::new(&["undo", "last", "--ledger", &ledger, "--max-rows-per-second", "2000"]);
    wait_for("rows are taken back", || count(&target, "SELECT count(*) FROM t") < 12_000);
    running.signal("-TERM");
    let (status, told) = running.ended();
    assert_eq!(status, Some(2), "{told}");
    assert!(told.contains("interrupted") && told.contains("what was taken back is skipped"), "{told}");
    let file = dir.path().join("trueup.toml");
    let text = format!(
        "[endpoints.a]\nurl = \"{s}\"\n[endpoints.b]\nurl = \"{t}\"\n[pairs.p]\nsource = \"a\"\ntarget = \"b\"\n\
         [checks.rows]\npair = \"p\"\nkind = \"rows\"\nrepair = {{ up_to = 99999 }}\n"
    );
    std::fs::write(&file, text).unwrap();
    target.execute("DELETE FROM t");
    let told_in = dir.path().join("checks.json").to_str().unwrap().to_owned();
    let check = [
        &["check", "-c", file.to_str().unwrap(), "-q", "--ledger", &ledger][..],
        &["--max-rows-per-second", "3000", "--format", "json", "-o", &told_in],
    ]
    .concat();
    let running = Started::new(&check);
    wait_for("rows are written", || count(&target, "SELECT count(*) FROM t") > 0);
    running.signal("-TERM");
    let (status, told) = running.ended();
    assert_eq!(status, Some(2), "{told}");
    assert!(
        told.contains("interrupted")
            && told.contains("take back what was written: trueup undo")
            && std::fs::read_to_string(&told_in).unwrap().contains("\"status\": \"unknown\""),
        "{told}"
    );
    assert_eq!(trueup(&["runs", "--outcome", "open", "--ledger", &ledger]).stdout, "");
    assert_eq!(trueup(&["runs", "--outcome", "interrupted", "--ledger", &ledger]).stdout.lines().count(), 2);
}

#[test]
fn whatever_waits_for_a_server_ends_at_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trueup.toml").to_str().unwrap().to_owned();
    let new = dir.path().join("new.toml").to_str().unwrap().to_owned();
    for command in 0..6 {
        for signal in ["-INT", "-TERM", "-HUP"] {
            // It accepts, and never says a word.
            let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("postgres://u@{}/x", mute.local_addr().unwrap());
            let text = format!(
                "[endpoints.a]\nurl = \"{url}\"\n[endpoints.b]\nurl = \"sqlite://{file}.db\"\n[pairs.p]\nsource = \"a\"\ntarget = \"b\"\n[checks.c]\npair = \"p\"\nkind = \"count\"\n"
            );
            std::fs::write(&file, text).unwrap();
            let commands: [&[&str]; 6] = [
                &["diff", &url, &url, "-t", "a=b"],
                &["repair", &url, &url, "-t", "a=b", "--no-ledger"],
                &["backfill", &url, &url, "-t", "a=b", "--on", "id"],
                &["check", "-c", &file],
                &["config", "check", "-c", &file],
                &["init", &url, &url, "-c", &new],
            ];
            let args = commands[command];
            let running = Started::new(args);
            let _held = mute.accept().unwrap();
            running.signal(signal);
            let (status, told) = running.ended();
            assert_eq!(status, Some(2), "{args:?} {signal}: {told}");
            assert!(told.contains("interrupted"), "{args:?} {signal}: {told}");
        }
    }
}

#[test]
fn a_second_signal_does_not_wait_and_nohup_outlives_its_terminal() {
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://u@127.0.0.1:{}/x", mute.local_addr().unwrap().port());
    let running = Started::new(&["diff", &url, &url, "-t", "a=b"]);
    let _held = mute.accept().unwrap();
    running.signal("-TERM");
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    running.signal("-INT");
    let (status, told) = running.ended();
    assert_eq!((status, told.contains("interrupted")), (Some(2), false), "{told}");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // A shell that ignores HUP hands that on.
    let (source, target) = many(8_000);
    let running = Command::new("bash")
        .args(["-c", "trap '' HUP; exec \"$@\"", "bash", env!("CARGO_BIN_EXE_trueup")])
        .args(["repair", &source.url(), &target.url(), "-q", "--no-ledger", "--max-rows-per-second", "8000"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let running = Started(running);
    wait_for("rows are written", || count(&target, "SELECT count(*) FROM t") > 0);
    running.signal("-HUP");
    let (status, told) = running.ended();
    assert_eq!((status, count(&target, "SELECT count(*) FROM t")), (Some(0), 8_000), "{told}");
}

#[test]
fn rows_behind_an_agent_are_counted_too() {
    let (source, target) = many(20_000);
    let agent =
        Agent::start(&["--database", &target.url(), "--allow-write", "--max-rows-per-second", "4000"], &[]);
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger.db").to_str().unwrap().to_owned();
    let url = format!("grpc://{}", agent.address);
    let running = Started::new(&["repair", &source.url(), &url, "-t", "t", "-q", "--ledger", &ledger]);
    wait_for("rows are written", || count(&target, "SELECT count(*) FROM t") > 4_000);
    running.signal("-TERM");
    let (status, told) = running.ended();
    assert_eq!(status, Some(2), "{told}");
    let mut there = count(&target, "SELECT count(*) FROM t");
    // The agent stops as soon as it hears of it.
    wait_for("nothing is written any more", || {
        std::thread::sleep(Duration::from_millis(500));
        let before = std::mem::replace(&mut there, count(&target, "SELECT count(*) FROM t"));
        before == there
    });
    let written = number_before(&told, " rows were written (");
    let unknown = number_before(&told, " more were on their way");
    assert!((written..=written + unknown).contains(&there), "{there} rows are there: {told}");
    assert!(told.contains("(if the target's agent keeps undo journals)"), "{told}");
}

#[test]
fn an_agent_that_is_stopped_is_not_the_users_interruption() {
    let (source, target) = many(20_000);
    let agent =
        Agent::start(&["--database", &target.url(), "--allow-write", "--max-rows-per-second", "4000"], &[]);
    let url = format!("grpc://{}", agent.address);
    let running = Started::new(&["repair", &source.url(), &url, "-t", "t", "-q", "--no-ledger"]);
    wait_for("rows are written", || count(&target, "SELECT count(*) FROM t") > 4_000);
    drop(agent);
    let (status, told) = running.ended();
    assert_eq!((status, told.contains("interrupted")), (Some(2), false), "{told}");
}
