//! Gaps by date and by number, on every engine: found, shown, filled, proved gone, also after a kill in the middle.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::process::{Output, Running, trueup};
use super::support::servers::{MysqlDb, PostgresDb, SqliteDb};

fn backfill(source: &str, target: &str, more: &[&str]) -> Output {
    let mut args = vec!["backfill", source, target, "--format", "json", "--quiet", "--recheck-delay", "1ms"];
    args.extend(more);
    trueup(&args)
}

fn table(output: &Output) -> Value {
    output.json()["tables"][0].clone()
}

/// From, source rows, target rows of each step.
fn steps(table: &Value) -> Vec<(String, u64, u64)> {
    let step = |step: &Value| {
        (
            step["from"].as_str().unwrap().to_owned(),
            step["source"].as_u64().unwrap(),
            step["target"].as_u64().unwrap(),
        )
    };
    table["steps"].as_array().unwrap().iter().map(step).collect()
}

fn gaps(table: &Value) -> Vec<String> {
    steps(table).into_iter().filter(|(_, source, target)| source != target).map(|(from, ..)| from).collect()
}

fn chunks(output: &Output) -> usize {
    table(output)["chunks"].as_array().unwrap().len()
}

fn after_agrees(table: &Value) -> bool {
    let steps = table["steps"].as_array().unwrap();
    steps.iter().all(|step| !step["source_after"].is_null() && step["source_after"] == step["target_after"])
}

/// Ten days of events, one every half hour from 2024-03-27 00:00 UTC: 48 a day; some without a time.
const COUNT: i32 = 480;

fn postgres_events(db: &PostgresDb) {
    db.execute(&format!(
        "CREATE TABLE events (id bigint PRIMARY KEY, at timestamptz, day date, note text);
         INSERT INTO events SELECT i, timestamptz '2024-03-27 00:00:00+00' + i * interval '30 minutes',
           date '2024-03-27' + i / 48, 'n' || i FROM generate_series(0, {COUNT} - 1) i;
         INSERT INTO events VALUES (9000, NULL, NULL, 'no time');
         CREATE INDEX ON events (at); CREATE INDEX ON events (day)"
    ));
}

fn mysql_events(db: &MysqlDb) {
    db.execute(&format!(
        "CREATE TABLE events (id BIGINT PRIMARY KEY, at DATETIME(6), day DATE, note TEXT, KEY (at), KEY (day));
         INSERT INTO events WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {COUNT} - 1)
           SELECT i, TIMESTAMP'2024-03-27 00:00:00' + INTERVAL 30 * i MINUTE, DATE'2024-03-27' + INTERVAL i DIV 48 DAY,
             CONCAT('n', i) FROM n;
         INSERT INTO events VALUES (9000, NULL, NULL, 'no time')"
    ));
}

fn sqlite_events(db: &SqliteDb) {
    db.execute(&format!(
        "CREATE TABLE events (id INTEGER PRIMARY KEY, at TIMESTAMP, day DATE, note TEXT);
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {COUNT} - 1)
         INSERT INTO events SELECT i, replace(datetime('2024-03-27', (30 * i) || ' minutes'), ' ', CASE i % 2 WHEN 0 THEN ' ' ELSE 'T' END),
           date('2024-03-27', (i / 48) || ' days'), 'n' || i FROM n;
         INSERT INTO events VALUES (9000, NULL, NULL, 'no time')"
    ));
}

/// The first day, a part of another, and the last day.
const HOLES: &str = "DELETE FROM events WHERE id < 48 OR id BETWEEN 200 AND 209 OR id BETWEEN 432 AND 479";
const HOLE_DAYS: [&str; 3] = ["2024-03-27", "2024-03-31", "2024-04-05"];

#[test]
fn gaps_at_both_ends_and_within_are_filled_on_every_engine() {
    let (source, pg) = (PostgresDb::create(), PostgresDb::create());
    let (maria, lite) = (MysqlDb::create(), SqliteDb::create());
    postgres_events(&source);
    postgres_events(&pg);
    mysql_events(&maria);
    sqlite_events(&lite);
    let targets: [(String, &dyn Fn(&str)); 3] = [
        (pg.url(), &|sql| pg.execute(sql)),
        (maria.url(), &|sql| maria.execute(sql)),
        (lite.url(), &|sql| lite.execute(sql)),
    ];
    for (target, execute) in &targets {
        for on in ["at", "day"] {
            execute(HOLES);
            let open = ["-t", "events", "--on", on, "--assume-utc"];
            // Open ends: the gaps at the ends are seen because the source's rows count too.
            let dry = backfill(&source.url(), target, &[&open[..], &["--dry-run"]].concat());
            assert_eq!(dry.status, 1, "{dry:?}");
            let found = table(&dry);
            assert_eq!(gaps(&found), HOLE_DAYS, "{target} {on}: {found}");
            assert_eq!(steps(&found).len(), 10);
            assert_eq!(steps(&found)[4], ("2024-03-31".to_owned(), 48, 38));
            let done = backfill(&source.url(), target, &open);
            assert_eq!(done.status, 0, "{target} {on}: {done:?}");
            let done = table(&done);
            assert_eq!((done["inserted"].as_u64(), after_agrees(&done)), (Some(106), true), "{done}");
            let again = backfill(&source.url(), target, &open);
            let inserted = table(&again)["inserted"].as_u64();
            assert_eq!((again.status, inserted, chunks(&again)), (0, Some(0), 1), "{again:?}");
            assert!(
                table(&again)["claim"]
                    .as_str()
                    .unwrap()
                    .starts_with("no gap in what has a time from 2024-03-27"),
                "{again:?}"
            );
        }
    }
    // The other way round as well: a source of each kind.
    for source in [&maria.url(), &lite.url()] {
        pg.execute(HOLES);
        let newest = ["--order", "newest", "--chunk-rows", "48"];
        let open = ["-t", "events", "--on", "at", "--assume-utc"];
        let done = backfill(source, &pg.url(), &[&open[..], &newest].concat());
        assert_eq!(done.status, 0, "{done:?}");
        let done = table(&done);
        assert_eq!(done["inserted"], 106);
        assert_eq!(done["chunks"][0]["from"], "2024-04-05", "newest first");
    }
    let (maria, lite) = (maria.url(), lite.url());
    assert_eq!(backfill(&maria, &lite, &["-t", "events", "--on", "id", "--step", "100"]).status, 0);
    assert_eq!(
        pg.scalar("SELECT count(*) || ' ' || sum(id) FROM events"),
        source.scalar("SELECT count(*) || ' ' || sum(id) FROM events")
    );
}

#[test]
fn a_range_touches_nothing_outside_it() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    postgres_events(&source);
    postgres_events(&target);
    target.execute("DELETE FROM events WHERE id < 480");
    let done = backfill(
        &source.url(),
        &target.url(),
        &[
            "-t",
            "events",
            "--on",
            "at",
            "--from",
            "2024-03-28",
            "--to",
            "2024-03-29 12:00",
            "--where",
            "id <> 100 -- not this",
        ],
    );
    assert_eq!(done.status, 0, "{done:?}");
    let done = table(&done);
    assert_eq!(steps(&done), [("2024-03-28".to_owned(), 48, 0), ("2024-03-29".to_owned(), 23, 0)]);
    assert_eq!(
        target
            .scalar("SELECT min(id) || ' ' || max(id) || ' ' || count(*) FROM events WHERE id < 480")
            .as_deref(),
        Some("48 119 71")
    );
}

#[test]
fn days_are_those_of_the_time_zone() {
    let (source, target) = (PostgresDb::create(), MysqlDb::create());
    postgres_events(&source);
    mysql_events(&target);
    target.execute("ALTER TABLE events MODIFY at TIMESTAMP(6) NULL");
    // Berlin's 2024-03-31 has 23 hours and begins at 23:00 UTC of the day before.
    let args = [
        "-t",
        "events",
        "--on",
        "at",
        "--from",
        "2024-03-30",
        "--to",
        "2024-04-02",
        "--time-zone",
        "Europe/Berlin",
    ];
    target.execute("DELETE FROM events WHERE id IN (190, 236)");
    let found = backfill(&source.url(), &target.url(), &[&args[..], &["--dry-run"]].concat());
    let found = table(&found);
    assert_eq!(
        steps(&found),
        [
            ("2024-03-30".to_owned(), 48, 48),
            ("2024-03-31".to_owned(), 46, 45),
            ("2024-04-01".to_owned(), 48, 47)
        ]
    );
    assert_eq!(found["time_zone"], "Europe/Berlin");
    assert_eq!(backfill(&source.url(), &target.url(), &args).status, 0);
    // The same rows by the hour, across the change of the clock.
    let hours = [
        "-t",
        "events",
        "--on",
        "at",
        "--from",
        "2024-03-31",
        "--to",
        "2024-03-31 04:00",
        "--step",
        "hour",
        "--time-zone",
        "Europe/Berlin",
    ];
    let hours = steps(&table(&backfill(&source.url(), &target.url(), &hours)));
    assert_eq!(
        hours,
        [
            ("2024-03-31".to_owned(), 2, 2),
            ("2024-03-31 01:00+01".to_owned(), 2, 2),
            ("2024-03-31 03:00+02".to_owned(), 2, 2)
        ]
    );
}

#[test]
fn a_row_that_rounding_moves_over_midnight_is_in_one_step() {
    let (source, target) = (PostgresDb::create(), MysqlDb::create());
    source.execute("CREATE TABLE t (id int PRIMARY KEY, at timestamp)");
    target.execute("CREATE TABLE t (id INT PRIMARY KEY, at DATETIME(3))");
    source.execute("INSERT INTO t VALUES (1, '2024-01-01 23:59:59.9991'), (2, '2024-01-01 23:59:59.9999'), (3, '2024-01-02')");
    // MariaDB cuts off: its rows stay in their day, and so must the source's.
    target.execute("INSERT INTO t VALUES (1, '2024-01-01 23:59:59.9991'), (2, '2024-01-01 23:59:59.9999'), (3, '2024-01-02')");
    let found = table(&backfill(&source.url(), &target.url(), &["-t", "t", "--on", "at"]));
    assert_eq!(steps(&found), [("2024-01-01".to_owned(), 2, 2), ("2024-01-02".to_owned(), 1, 1)]);
    // PostgreSQL rounds: two rows are of the next day there.
    let round = PostgresDb::create();
    round.execute("CREATE TABLE t (id int PRIMARY KEY, at timestamp(3)); INSERT INTO t VALUES (1, '2024-01-01 23:59:59.9991'), (2, '2024-01-01 23:59:59.9999'), (3, '2024-01-02')");
    let found = backfill(&source.url(), &round.url(), &["-t", "t", "--on", "at"]);
    assert_eq!(found.status, 0, "{found:?}");
    assert_eq!(steps(&table(&found)), [("2024-01-01".to_owned(), 1, 1), ("2024-01-02".to_owned(), 2, 2)]);
}

#[test]
fn integers_of_every_size() {
    let (source, target) = (MysqlDb::create(), SqliteDb::create());
    source.execute("CREATE TABLE n (id BIGINT UNSIGNED PRIMARY KEY, k INT, KEY (k))");
    source.execute("INSERT INTO n VALUES (1, -7), (2, -1), (3, 0), (4, 5), (18446744073709551615, 9)");
    target.execute("CREATE TABLE n (id INTEGER PRIMARY KEY, k INTEGER)");
    target.execute("INSERT INTO n VALUES (2, -1)");
    let args = ["-t", "n", "--on", "k", "--step", "5", "--from", "-10", "--to", "6"];
    let done = backfill(&source.url(), &target.url(), &args);
    assert_eq!(done.status, 0, "{done:?}");
    let done = table(&done);
    assert_eq!(
        steps(&done),
        [("-10".to_owned(), 1, 0), ("-5".to_owned(), 1, 1), ("0".to_owned(), 1, 0), ("5".to_owned(), 1, 0)]
    );
    assert!(done["warnings"].to_string().contains("target: no index begins with k"), "{done}");
    assert!(!done["warnings"].to_string().contains("source: no index"), "{done}");
    let ends = MysqlDb::create();
    ends.execute("CREATE TABLE n (id BIGINT UNSIGNED PRIMARY KEY, k INT)");
    let whole = backfill(
        &source.url(),
        &ends.url(),
        &["-t", "n", "--on", "id", "--step", "9000000000000000000", "--from", "0"],
    );
    assert_eq!(whole.status, 0, "wider than 63 bits: {whole:?}");
    // Without a step there are about 48 of them, however wide the range is.
    for (from, to) in [(&source, &ends.url()), (&source, &target.url())] {
        let open = backfill(&from.url(), to, &["-t", "n", "--on", "id", "--dry-run"]);
        assert!([0, 1].contains(&open.status), "{open:?}");
        assert!((2..100).contains(&steps(&table(&open)).len()), "{open:?}");
        assert_eq!(steps(&table(&open)).iter().map(|step| step.1).sum::<u64>(), 5, "{open:?}");
    }
    let upper = backfill(
        &source.url(),
        &ends.url(),
        &["-t", "n", "--on", "id", "--step", "1000", "--from", "18446744073709551000"],
    );
    assert_eq!(upper.status, 0, "{upper:?}");
    assert_eq!(table(&upper)["inserted"], 0, "it was filled before");
}

#[test]
fn children_wait_for_their_parents() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute(
            "CREATE TABLE orders (id int PRIMARY KEY, at timestamptz NOT NULL);
             CREATE TABLE items (id int PRIMARY KEY, order_id int NOT NULL REFERENCES orders, at timestamptz NOT NULL)",
        );
    }
    source.execute(
        "INSERT INTO orders SELECT i, timestamptz '2024-01-01 00:00+00' + i * interval '1 hour' FROM generate_series(1, 100) i;
         INSERT INTO items SELECT i, i, timestamptz '2024-01-01 00:00+00' + i * interval '1 hour' FROM generate_series(1, 100) i",
    );
    let done = backfill(&source.url(), &target.url(), &["-t", "items", "-t", "orders", "--on", "at"]);
    assert_eq!(done.status, 0, "{done:?}");
    assert_eq!(done.json()["tables"][0]["source_table"], "public.orders");
    assert_eq!(target.scalar("SELECT count(*) FROM items").as_deref(), Some("100"));
}

#[test]
fn extra_rows_are_left_and_said() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    sqlite_events(&source);
    sqlite_events(&target);
    source.execute("DELETE FROM events WHERE id BETWEEN 100 AND 104");
    let args = ["-t", "events", "--on", "at"];
    let left = backfill(&source.url(), &target.url(), &args);
    assert_eq!(left.status, 1, "{left:?}");
    assert_eq!(
        (table(&left)["left"].as_u64(), table(&left)["chunks"].as_array().unwrap().len()),
        (Some(5), 1)
    );
    let gone =
        backfill(&source.url(), &target.url(), &[&args[..], &["--allow", "insert,update,delete"]].concat());
    assert_eq!((gone.status, table(&gone)["deleted"].as_u64()), (0, Some(5)), "{gone:?}");
    // Equal counts hide nothing.
    target.execute("UPDATE events SET note = 'changed' WHERE id = 300");
    let all = backfill(&source.url(), &target.url(), &args);
    assert_eq!((all.status, table(&all)["updated"].as_u64()), (0, Some(1)), "{all:?}");
    let (a, b) = (
        source.scalar("SELECT group_concat(id || note) FROM events"),
        target.scalar("SELECT group_concat(id || note) FROM events"),
    );
    assert_eq!(a, b);
}

#[test]
fn the_picture_is_for_people() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    sqlite_events(&source);
    sqlite_events(&target);
    target.execute(HOLES);
    let shown =
        trueup(&["backfill", &source.url(), &target.url(), "-t", "events", "--on", "at", "--dry-run"]);
    assert_eq!(shown.status, 1);
    for words in [
        "gaps, not filled: a dry run",
        "rows per day of at",
        "██",
        "-48",
        "gap 2024-03-31 .. 2024-04-01: 48 at the source, 38 at the target",
        "source: rows that have no time in at: 1 NULL; ",
        "106 missing",
    ] {
        assert!(shown.stdout.contains(words), "{words}: {shown:?}");
    }
}

#[test]
fn wrong_ranges_say_what_to_do() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    sqlite_events(&source);
    sqlite_events(&target);
    for (more, words) in [
        (&["--on", "nope"][..], "no column nope"),
        (&["--on", "note"], "no range means the same of both"),
        (&["--on", "at", "--from", "yesterday"], "is no time"),
        (&["--on", "at", "--from", "2024-04-01", "--to", "2024-04-01"], "is empty"),
        (&["--on", "at", "--step", "10"], "hour, day or month"),
        (&["--on", "id", "--step", "day"], "a number of them"),
        (&["--on", "at", "--time-zone", "Mars/Olympus"], "IANA"),
        (&["--on", "at", "--where", "1 = 1) OR (1 = 1"], "check the SQL condition"),
    ] {
        let output =
            trueup(&[&["backfill", &source.url(), &target.url(), "-t", "events"][..], more].concat());
        let all = format!("{}{}", output.stdout, output.stderr);
        assert_eq!(output.status, 2, "{output:?}");
        assert!(all.contains(words) && !all.contains("panicked"), "{words}: {output:?}");
    }
    assert_eq!(trueup(&["backfill", &source.url(), &target.url(), "--on", "at"]).status, 2);
}

#[test]
fn a_rate_is_kept() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    sqlite_events(&source);
    target.execute(
        "CREATE TABLE events (id INTEGER PRIMARY KEY, at TIMESTAMP, day DATE, note TEXT);
         INSERT INTO events VALUES (9000, NULL, NULL, 'no time')",
    );
    let since = Instant::now();
    let done = backfill(
        &source.url(),
        &target.url(),
        &["-t", "events", "--on", "at", "--max-rows-per-second", "240"],
    );
    assert_eq!(done.status, 0, "{done:?}");
    assert!(
        since.elapsed() >= Duration::from_millis(1_900),
        "480 rows at 240 a second took {:?}",
        since.elapsed()
    );
}

#[test]
fn a_backfill_that_was_killed_goes_on_where_it_was() {
    let (source, target) = (PostgresDb::create(), MysqlDb::create());
    source.execute(
        "CREATE TABLE big (id bigint PRIMARY KEY, at timestamptz NOT NULL, note text);
         INSERT INTO big SELECT i, timestamptz '2024-01-01 00:00+00' + i * interval '1 minute', repeat('x', 50)
           FROM generate_series(0, 43199) i;
         CREATE INDEX ON big (at)",
    );
    target.execute("CREATE TABLE big (id BIGINT PRIMARY KEY, at TIMESTAMP(6) NOT NULL, note TEXT, KEY (at))");
    let (from, to) = (source.url(), target.url());
    let args = [
        "backfill",
        &from,
        &to,
        "-t",
        "big",
        "--on",
        "at",
        "--chunk-rows",
        "1440",
        "--format",
        "json",
        "--recheck-delay",
        "1ms",
    ];
    let rows = || target.scalar("SELECT COUNT(*) FROM big").unwrap().parse::<u64>().unwrap();
    let mut last = 0;
    for _ in 0..3 {
        let running = Running::start(&args);
        let since = Instant::now();
        while rows() < last + 4_000 {
            assert!(since.elapsed() < Duration::from_secs(60), "no progress beyond {last} rows");
            std::thread::sleep(Duration::from_millis(5));
        }
        running.kill();
        last = rows();
        assert!(last < 43_200, "killed too late to show anything");
    }
    let done = trueup(&args);
    assert_eq!(done.status, 0, "{done:?}");
    let done = table(&done);
    assert_eq!(done["inserted"].as_u64(), Some(43_200 - last), "what was filled is not filled again");
    let chunks = done["chunks"].as_array().unwrap();
    assert_eq!(chunks.len(), 30, "every day is compared");
    let missing = |chunk: &&Value| chunk["missing"].as_u64() > Some(0);
    assert!(chunks.iter().filter(missing).count() <= 31 - usize::try_from(last / 1_440).unwrap());
    assert!(after_agrees(&done));
    assert_eq!(
        target.scalar("SELECT CONCAT(COUNT(*), ' ', SUM(id)) FROM big"),
        source.scalar("SELECT count(*) || ' ' || sum(id) FROM big")
    );
}

#[test]
fn a_condition_cannot_close_its_parentheses_and_leave_the_range() {
    let (pg, maria, lite) = (PostgresDb::create(), MysqlDb::create(), SqliteDb::create());
    postgres_events(&pg);
    mysql_events(&maria);
    sqlite_events(&lite);
    let empty = SqliteDb::create();
    empty.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, at TIMESTAMP, day DATE, note TEXT)");
    for source in [&pg.url(), &maria.url(), &lite.url()] {
        let args =
            ["-t", "events", "--on", "id", "--from", "0", "--to", "5", "--source-where", "1 = 1) OR (1 = 1"];
        let output = backfill(source, &empty.url(), &args);
        assert_eq!(output.status, 2, "{source}: {output:?}");
        assert_eq!(empty.scalar("SELECT count(*) FROM events").as_deref(), Some("0"));
    }
}
