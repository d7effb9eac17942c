//! A table is found by its name with or without its schema, wherever runs and the trail are asked for it.

use super::support::process::{Output, trueup, trueup_with};
use super::support::servers::PostgresDb;

#[test]
fn a_table_is_found_with_or_without_its_schema() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE orders (id int PRIMARY KEY, n int); CREATE TABLE \"Odd\" (id int PRIMARY KEY); INSERT INTO \"Odd\" VALUES (1)");
    }
    source.execute("INSERT INTO orders VALUES (500, 1), (501, 2)");
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger.db");
    let ask = |args: &[&str]| -> Output {
        let mut all = args.to_vec();
        all.extend(["--ledger", ledger.to_str().unwrap()]);
        trueup(&all)
    };
    let lines = |args: &[&str]| {
        let output = ask(args);
        assert_eq!(output.status, 0, "{output:?}");
        output.stdout.lines().count()
    };
    let (from, to) = (source.url(), target.url());
    assert_eq!(ask(&["repair", &from, &to, "-q"]).status, 0);
    // A run of checks that measure totals has no tables of its own.
    let config = dir.path().join("trueup.toml");
    std::fs::write(
        &config,
        "[endpoints.a]\nurl = \"env:A\"\n[endpoints.b]\nurl = \"env:B\"\n[pairs.p]\nsource = \"a\"\ntarget = \"b\"\ntables = [\"orders\"]\n[checks.c]\npair = \"p\"\nkind = \"count\"\n",
    )
    .unwrap();
    let args = ["check", "-c", config.to_str().unwrap(), "--quiet", "--ledger", ledger.to_str().unwrap()];
    assert_eq!(trueup_with(&args, &[("A", &from), ("B", &to)]).status, 0);
    for name in ["orders", "public.orders", "ORDERS"] {
        assert_eq!(lines(&["runs", "-t", name]), 2, "{name}");
        assert!(lines(&["audit", "list", "-t", name]) >= 3, "{name}");
        // The intent, which names the key, and what became of the row.
        assert!(lines(&["audit", "list", "-t", name, "--key", "id=500"]) >= 1, "{name}");
        assert_eq!(lines(&["audit", "list", "-t", name, "--key", "id=7"]), 0, "{name}");
    }
    assert_eq!(lines(&["runs", "-t", "\"Odd\""]), 1);
    assert_eq!(lines(&["runs", "-t", "Odd", "--kind", "backfill"]), 0, "known, and no run of that kind");
    for args in [
        ["runs", "-t", "ordrs"].as_slice(),
        &["audit", "list", "-t", "ordrs"],
        &["runs", "-t", "archive.ordrs"],
    ] {
        let unknown = ask(args);
        assert!(unknown.status == 2 && unknown.stderr.contains("the ledger knows no table"), "{unknown:?}");
        // Checks know it by the name that the configuration has.
        assert!(unknown.stderr.contains("did you mean orders?"), "{unknown:?}");
    }
    let other = ask(&["runs", "-t", "archive.Odd"]);
    assert!(other.status == 2 && other.stderr.contains("did you mean public.Odd?"), "{other:?}");
}
