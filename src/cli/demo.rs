//! The main job on an embedded default: two SQLite files with known differences; diff, repair, proof.
//! It checks itself: the differences found must be the ones that were planted.

use std::io::Write;
use std::path::Path;

use clap::Parser;
use rusqlite::Connection;

use super::args::{Cli, Command, DemoArgs};
use super::shutdown::Shutdown;
use super::{Failure, command};

/// What `plant` leaves out, changes and adds, in all tables together.
const MISSING: usize = 12;
const CHANGED: usize = 9;
const EXTRA: usize = 3;

const TABLES: &str = "
CREATE TABLE customers (email TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, credit DECIMAL(10,2), since DATE);
CREATE TABLE orders (id INTEGER PRIMARY KEY, email TEXT NOT NULL REFERENCES customers, amount DECIMAL(12,2),
                     status VARCHAR(16), note TEXT, created_at TIMESTAMP);
CREATE TABLE order_lines (order_id INTEGER NOT NULL REFERENCES orders, line INTEGER NOT NULL, sku TEXT, quantity INTEGER,
                          PRIMARY KEY (order_id, line));";

const ROWS: &str = "
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
INSERT INTO customers SELECT 'user' || i || '@example.com', 'Customer ' || i, (i * 37 % 10000) / 100.0, date('2020-01-01', '+' || i || ' days') FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
INSERT INTO orders SELECT i, 'user' || (i * 7 % 500 + 1) || '@example.com', (i * 131 % 100000) / 100.0,
    CASE i % 3 WHEN 0 THEN 'paid' WHEN 1 THEN 'shipped' ELSE 'open' END,
    CASE WHEN i % 11 = 0 THEN NULL ELSE 'Order number ' || i END, datetime('2024-01-01', '+' || i || ' minutes') FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
INSERT INTO order_lines SELECT i, l.line, 'SKU-' || (i * l.line % 997), i % 9 + 1 FROM n, (SELECT 1 AS line UNION SELECT 2) l;";

/// Twelve order lines go, nine rows change, three come.
const DRIFT: &str = "
DELETE FROM order_lines WHERE order_id BETWEEN 9001 AND 9005;
DELETE FROM order_lines WHERE order_id = 12 AND line = 2;
DELETE FROM order_lines WHERE order_id = 19999 AND line = 1;
UPDATE orders SET status = 'lost' WHERE id IN (17, 4711, 15000);
UPDATE orders SET note = NULL WHERE id = 10000;
UPDATE orders SET amount = amount + 0.01 WHERE id IN (3, 19998);
UPDATE customers SET name = upper(name) WHERE email IN ('user1@example.com', 'user250@example.com', 'user499@example.com');
INSERT INTO orders VALUES (90001, 'user1@example.com', 1, 'open', 'test', NULL), (90002, 'user2@example.com', 2, 'open', 'test', NULL);
INSERT INTO customers VALUES ('ghost@example.com', 'Ghost', NULL, NULL);";

pub(super) async fn run(args: &DemoArgs, shutdown: &Shutdown) -> Result<u8, Failure> {
    let temporary = tempfile::tempdir()?;
    let dir = match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            dir.as_path()
        }
        None => temporary.path(),
    };
    let (source, target) = (dir.join("source.db"), dir.join("target.db"));
    say("Two SQLite files, 60,500 rows each in three tables, are about to drift apart:")?;
    say(&format!("  {MISSING} rows missing, {CHANGED} changed and {EXTRA} extra in the target.\n"))?;
    make(&source, false)?;
    make(&target, true)?;
    let (source, target) = (url(&source), url(&target));

    let found = step(&["diff", &source, &target, "--limit", "5"], "What differs?", shutdown).await?;
    expect(found == 1, "the diff must end with status 1: there are differences")?;
    let done = step(
        &["repair", &source, &target, "--allow", "insert,update,delete", "--limit", "0"],
        "Make the target true to the source, deletes included, and prove it:",
        shutdown,
    )
    .await?;
    expect(done == 0, "the repair must end with status 0: proved equal")?;
    let equal = step(&["diff", &source, &target], "And once more from the start:", shutdown).await?;
    expect(equal == 0, "the last diff must end with status 0: the same")?;
    say("Done: every planted difference was found, repaired, and proved gone.")?;
    if args.dir.is_some() {
        say(&format!("The files are in {}.", dir.display()))?;
    }
    Ok(0)
}

fn url(path: &Path) -> String {
    format!("sqlite://{}", path.display())
}

fn make(path: &Path, drifted: bool) -> Result<(), Failure> {
    let fail = |error: &dyn std::fmt::Display| {
        Failure::new(format!("cannot make {}: {error}", path.display()), "choose an empty --dir")
    };
    if path.exists() {
        std::fs::remove_file(path).map_err(|error| fail(&error))?;
    }
    let make = || {
        let connection = Connection::open(path)?;
        connection.execute_batch(&format!("PRAGMA synchronous = OFF; BEGIN; {TABLES} {ROWS} COMMIT;"))?;
        if drifted {
            connection.execute_batch(DRIFT)?;
        }
        Ok(())
    };
    make().map_err(|error: rusqlite::Error| fail(&error))
}

/// Shows the command that does the same, then does it; also checks the planted counts after the first diff.
async fn step(words: &[&str], title: &str, shutdown: &Shutdown) -> Result<u8, Failure> {
    say(&format!("{title}\n$ trueup {}", words.join(" ")))?;
    let typed =
        ["trueup"].iter().chain(words).chain(&["--quiet", "--no-ledger"]).map(|word| (*word).to_owned());
    let cli = Cli::try_parse_from(typed)
        .map_err(|error| Failure::new(error.to_string(), "this is a defect of the demo"))?;
    let status = match cli.command {
        Command::Diff(args) => {
            command::diff_checked(&args, shutdown, |counts| expect_planted(words, counts)).await?
        }
        Command::Repair(args) => command::repair(&args, shutdown).await?,
        _ => return Err(Failure::new("the demo only diffs and repairs", "this is a defect of the demo")),
    };
    say(&format!("(exit status {status})\n"))?;
    Ok(status)
}

fn expect_planted(words: &[&str], counts: [u64; 3]) -> Result<(), Failure> {
    let planted = if words.contains(&"--limit") { [MISSING, CHANGED, EXTRA] } else { [0; 3] };
    expect(counts == planted.map(|n| n as u64), "the counts found must be the counts planted")
}

fn expect(holds: bool, what: &str) -> Result<(), Failure> {
    if holds {
        Ok(())
    } else {
        Err(Failure::new(format!("the demo found a defect: {what}"), "please report it"))
    }
}

fn say(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
