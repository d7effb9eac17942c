//! A schema of many small tables: a few questions for all of them, not a conversation each.

use super::support::process::{Agent, Output, trueup};
use super::support::proxy::CountingProxy;
use super::support::servers::PostgresDb;

const TABLES: u64 = 200;
/// Each way together, of everything: descriptions, plans, roots, and what gRPC and HTTP/2 add.
const BYTES_A_TABLE: u64 = 200;

fn schema(db: &PostgresDb) {
    db.execute(&format!(
        "DO $$ BEGIN FOR n IN 1..{TABLES} LOOP
           EXECUTE format('CREATE TABLE %I (id bigint PRIMARY KEY, name varchar(40), price numeric(10,2), at timestamptz)', 'part ' || n);
           EXECUTE format('INSERT INTO %I SELECT i, ''row '' || i, i * %s / 7.0, ''2026-01-01''::timestamptz + i * interval ''1 day'' FROM generate_series(1, 20) i', 'part ' || n, n);
         END LOOP; END $$"
    ));
}

fn diff(source: &str, target: &str, command: &[&str]) -> Output {
    let mut args = command.to_vec();
    args.extend([source, target, "--format", "json", "--quiet", "--recheck-delay", "1ms", "--no-ledger"]);
    trueup(&args)
}

fn verdicts(output: &Output, verdict: &str) -> Vec<String> {
    let json = output.json();
    let tables = json["tables"].as_array().unwrap();
    assert_eq!(tables.len() as u64, TABLES, "every table has its report");
    tables
        .iter()
        .filter(|table| table["verdict"] == verdict)
        .map(|table| table["source_table"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn small_tables_are_read_in_one_conversation() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    schema(&source);
    schema(&target);
    let agent = Agent::start(&["--database", &source.url()], &[]);
    let proxy = CountingProxy::start(agent.address.parse().unwrap()).await;
    let url = format!("grpc://{}", proxy.address);
    let to = target.url();

    let equal = diff(&url, &to, &["diff"]);
    assert_eq!(equal.status, 0, "{equal:?}");
    assert_eq!(verdicts(&equal, "same").len() as u64, TABLES);
    let (to_server, to_client) = proxy.bytes();
    let all = to_server + to_client;
    assert!(all <= TABLES * BYTES_A_TABLE, "{to_server} + {to_client} bytes for {TABLES} tables");
    // What the report says of the link is part of what crossed it.
    let json = equal.json();
    let told: u64 = json["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|table| table["bytes_to_source"].as_u64().unwrap() + table["bytes_to_target"].as_u64().unwrap())
        .sum();
    assert!(told > 0 && told < all, "{told} of {all}");
    let first = &json["tables"][0];
    assert!(first["source_rows"] == 20 && first["proved"] == true && first["round_trips"] == 1, "{first}");
    assert_eq!(first["source_root"], first["target_root"]);

    // Differences of every kind are found as if each table had been alone, and repaired.
    target.execute("UPDATE \"part 7\" SET name = 'x' WHERE id = 3; DELETE FROM \"part 8\"; DELETE FROM \"part 9\" WHERE id = 20");
    target.execute(
        "ALTER TABLE \"part 10\" DROP COLUMN at; ALTER TABLE \"part 11\" DROP CONSTRAINT \"part 11_pkey\"",
    );
    let found = diff(&url, &to, &["diff"]);
    assert_eq!(found.status, 2, "{found:?}");
    let different = ["public.part 10", "public.part 7", "public.part 8", "public.part 9"];
    assert_eq!(verdicts(&found, "different"), different, "one lacks a column");
    assert_eq!(verdicts(&found, "unknown"), ["public.part 11"], "its target has no key");
    let repaired =
        diff(&url, &to, &["repair", "-t", "part 7", "-t", "part 8", "-t", "part 9", "-t", "part 12"]);
    assert_eq!(repaired.status, 0, "{repaired:?}");
    let sum = "SELECT string_agg(x::text, ';' ORDER BY id) FROM \"part 8\" x";
    assert_eq!(source.scalar(sum), target.scalar(sum));
    proxy.stop().await;
}

/// Both ends elsewhere, or only the target: the same answer.
#[test]
fn every_pairing_takes_the_roll() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    schema(&source);
    schema(&target);
    source.execute("INSERT INTO \"part 100\" VALUES (99, 'only here', 1, now())");
    let (from, to) = (source.url(), target.url());
    let (near, far) = (Agent::start(&["--database", &from], &[]), Agent::start(&["--database", &to], &[]));
    let (near, far) = (format!("grpc://{}", near.address), format!("grpc://{}", far.address));
    for (source, target) in [(&from, &to), (&from, &far), (&near, &far)] {
        let found = diff(source, target, &["diff"]);
        assert_eq!(found.status, 1, "{found:?}");
        assert_eq!(verdicts(&found, "different"), ["public.part 100"]);
    }
}
