//! Backfills of tables that hold days before the year 1 and behind the year 9999.

use serde_json::Value;

use super::support::process::{Output, trueup};
use super::support::servers::{MysqlDb, PostgresDb, SqliteDb};

fn backfill(source: &str, target: &str, more: &[&str]) -> Output {
    let mut args = vec!["backfill", source, target, "--format", "json", "--quiet", "--recheck-delay", "1ms"];
    args.extend(["-t", "t", "--on", "at"]);
    args.extend(more);
    trueup(&args)
}

fn inserted(output: &Output) -> Value {
    output.json()["tables"][0]["inserted"].clone()
}

#[test]
fn far_rows_do_not_keep_others_from_being_filled() {
    let (source, target, my) = (PostgresDb::create(), PostgresDb::create(), MysqlDb::create());
    for ty in ["date", "timestamp", "timestamptz"] {
        let made = format!("DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, at {ty})");
        source.execute(&format!(
            "{made}; INSERT INTO t VALUES (1, '0044-03-15 BC'), (2, '2024-01-01'), (3, '2024-01-02'), (4, '10000-05-05'), (5, '9999-12-30')"
        ));
        let my_type = match ty {
            "timestamp" => "DATETIME(6)",
            other => other,
        };
        let given = ["--from", "2024-01-01", "--to", "2024-01-03"];
        let mut targets = vec![target.url()];
        target.execute(&made);
        if ty != "timestamptz" {
            my.execute(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (id INT PRIMARY KEY, at {my_type})"));
            targets.push(my.url());
        }
        for url in targets {
            let output = backfill(&source.url(), &url, &given);
            assert_eq!((output.status, inserted(&output)), (0, 2.into()), "{ty}: {output:?}");
            // From a day of the calendar to one at its end, as the types of both databases hold it.
            let output = backfill(&source.url(), &url, &["--from", "9999-12-01", "--to", "9999-12-31"]);
            assert_eq!((output.status, inserted(&output)), (0, 1.into()), "{ty} {url}: {output:?}");
        }
    }
}

#[test]
fn the_last_day_of_the_calendar_has_an_end() {
    let (pg, pg_target) = (PostgresDb::create(), PostgresDb::create());
    let (my, my_target) = (MysqlDb::create(), MysqlDb::create());
    let (lite, lite_target) = (SqliteDb::create(), SqliteDb::create());
    let rows = "INSERT INTO t VALUES (1, '9999-12-30 05:00:00'), (2, '9999-12-31 00:00:00'), (3, '9999-12-31 23:00:00')";
    for (db, with) in [(&pg, rows), (&pg_target, "")] {
        db.execute(&format!("CREATE TABLE t (id int PRIMARY KEY, at timestamp); {with}"));
    }
    for (db, with) in [(&my, rows), (&my_target, "")] {
        db.execute(&format!("CREATE TABLE t (id INT PRIMARY KEY, at DATETIME(6)); {with}"));
    }
    for (db, with) in [(&lite, rows), (&lite_target, "")] {
        db.execute(&format!("CREATE TABLE t (id INTEGER PRIMARY KEY, at DATETIME); {with}"));
    }
    for (source, target) in
        [(pg.url(), pg_target.url()), (my.url(), my_target.url()), (lite.url(), lite_target.url())]
    {
        let noon = ["--from", "9999-12-31 12:00:00"];
        let output = backfill(&source, &target, &noon);
        assert_eq!((output.status, inserted(&output)), (0, 1.into()), "{source}: {output:?}");
        let output = backfill(&source, &target, &[]);
        assert_eq!((output.status, inserted(&output)), (0, 2.into()), "{source}: {output:?}");
        let steps = output.json()["tables"][0]["steps"].clone();
        assert_eq!(steps.as_array().map(Vec::len), Some(2), "{source}: {steps}");
        let hours = backfill(&source, &target, &["--step", "hour"]);
        assert_eq!(hours.status, 0, "{source}: {hours:?}");
    }
    // Between engines, from before any literal of the target's.
    pg.execute(
        "DELETE FROM t; INSERT INTO t VALUES (1, '0050-01-05'), (2, '0050-03-05'), (3, '0010-01-01 BC')",
    );
    my_target.execute("DELETE FROM t; INSERT INTO t VALUES (1, '0050-01-05')");
    let output = backfill(&pg.url(), &my_target.url(), &["--to", "0100-01-01", "--step", "month"]);
    assert_eq!(output.status, 1, "{output:?}");
    let steps = output.json()["tables"][0]["steps"].clone();
    let with_rows: Vec<(String, String)> = steps
        .as_array()
        .unwrap()
        .iter()
        .filter(|step| step["source"] != step["target"])
        .map(|step| (step["from"].to_string(), format!("{} {}", step["source"], step["target"])))
        .collect();
    assert_eq!(
        with_rows,
        [("\"0010-01-01 BC\"".to_owned(), "1 0".to_owned()), ("\"0050-03-01\"".to_owned(), "1 0".to_owned())]
    );
}
