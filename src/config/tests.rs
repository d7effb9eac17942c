//! Whole files: what is understood, and how every fault is told.

use super::*;

const GOOD: &str = r#"
[endpoints.east]
url = "env:DATABASE_URL"
[endpoints.west]
url = "grpcs://west.example:7443"
ca = "ca.pem"
token = "env:API_KEY"

[pairs.shop]
source = "east"
target = "west"
tables = [
    "orders",
    { source = "s.customers", target = "clients", key = ["email"], map = { a = "b" }, where = "id > 1", tolerance = { credit = 0.5 } },
]

[checks.counts]
pair = "shop"
kind = "count"
tolerance = { percent = 0.1 }

[checks.total]
pair = "shop"
table = "orders"
kind = "sum"
column = "amount"
tolerance = { absolute = "0.01" }
window = { column = "placed_at", last = "7days", settle = "5m" }
severity = "critical"
owner = "data"

[checks.rows]
pair = "shop"
table = "s.customers"
kind = "rows"
repair = { up_to = 100 }
"#;

fn faults(text: &str) -> Vec<Diagnostic> {
    parse(text).unwrap_err()
}

fn fault(text: &str) -> Diagnostic {
    let mut all = faults(text);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn a_whole_file_is_understood() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.endpoints["east"].url, UrlSpec::Env("DATABASE_URL".to_owned()));
    assert_eq!(config.endpoints["west"].token_env.as_deref(), Some("API_KEY"));
    let pair = &config.pairs["shop"];
    assert_eq!(pair.tables[1].source, TableName::new(Some("s"), "customers"));
    assert_eq!(pair.tables[1].wishes.map["a"], "b");
    assert_eq!(pair.tables[1].wishes.target_where.as_deref(), Some("id > 1"));
    assert_eq!(pair.tables[1].line, 14);
    let total = &config.checks["total"];
    assert_eq!(total.kind, CheckKind::Sum { column: "amount".to_owned() });
    assert_eq!(total.tolerance.absolute, "0.01".parse().ok());
    assert_eq!(total.window.as_ref().map(|w| w.settle), Some(Duration::from_secs(300)));
    assert_eq!(total.severity, Severity::Critical);
    assert_eq!(config.checks["rows"].repair, RepairPolicy::UpTo(100));
    // A float keeps the digits that were typed.
    assert_eq!(config.checks["counts"].tolerance.percent, "0.1".parse().ok());
}

#[test]
fn an_empty_file_says_nothing_and_is_well() {
    assert!(parse("").unwrap().checks.is_empty());
}

/// Each: the text that replaces `old` in a good file, the line that is named, words of message and hint.
#[test]
fn faults_name_their_line_and_the_way_out() {
    for (old, new, line, message, hint) in [
        ("source = \"east\"", "sorce = \"east\"", 10, "`sorce` is not known here", "did you mean `source`?"),
        ("source = \"east\"", "source = \"eats\"", 10, "there is no endpoint `eats`", "did you mean `east`?"),
        ("env:DATABASE_URL", "postgres://a:pw@db/x", 3, "a password does not belong", "env:NAME"),
        ("env:DATABASE_URL", "postgres://db/x?password=pw", 3, "a password does not belong", "url_file"),
        ("env:DATABASE_URL", "oracle://db/x", 3, "scheme", "postgres://"),
        ("\"env:API_KEY\"", "\"abc\"", 7, "a token does not belong", "env:NAME"),
        ("key = [", "keys = [", 14, "`keys` is not known here", "did you mean `key`?"),
        ("kind = \"count\"", "kind = \"counts\"", 19, "`counts` is no kind", "did you mean `count`?"),
        (
            "kind = \"count\"",
            "kind = \"count\"\ncolumn = \"a\"",
            20,
            "`column` means nothing",
            "count takes window",
        ),
        ("column = \"amount\"\n", "", 22, "needs `column`", "[checks.total]"),
        ("percent = 0.1", "lag = \"5m\"", 20, "`lag` means nothing", "rows or percent"),
        ("percent = 0.1", "percent = -1", 20, "no distance", "from 0 on"),
        ("\"7days\"", "\"soon\"", 28, "no length of time", "7days"),
        ("\"7days\"", "\"1m\"", 28, "the window holds nothing", "longer"),
        ("\"critical\"", "\"high\"", 29, "no severity", "info, warning"),
        (
            "table = \"orders\"\nkind",
            "table = \"order\"\nkind",
            24,
            "has no table order",
            "did you mean `orders`?",
        ),
        ("{ up_to = 100 }", "{ upto = 100 }", 36, "`upto` is not known here", "did you mean `up_to`?"),
        ("{ up_to = 100 }", "\"always\"", 36, "no policy", "dry_run"),
        ("pair = \"shop\"\nkind = \"count\"", "kind = \"count\"", 17, "missing field `pair`", "add pair"),
        ("[checks.counts]", "[alarms]\nto = 1\n[checks.counts]", 17, "`alarms` is not known here", "alerts"),
        ("ca = \"ca.pem\"", "ca = 5", 6, "invalid type", ""),
        ("ca = \"ca.pem\"", "ca = ", 6, "", ""),
        ("target = \"west\"", "target = \"east\"", 11, "x", "x"),
    ] {
        let text = GOOD.replacen(old, new, 1);
        assert_ne!(text, GOOD, "{old}");
        if (message, hint) == ("x", "x") {
            // Names differ, so one endpoint against itself may be meant.
            assert!(parse(&text).is_ok());
            continue;
        }
        let found = fault(&text);
        let all = format!("{found:?}");
        assert_eq!(found.line, line, "{all}");
        assert!(found.message.contains(message), "{message}: {all}");
        assert!(found.hint.unwrap_or_default().contains(hint), "{hint}: {all}");
    }
}

#[test]
fn what_keeps_running_is_understood() {
    let more = r#"
schedule = "nightly"
[serve]
listen = "0.0.0.0:9000"
schedule = "every 30s"
view_token = "env:VIEW"
[schedules.nightly]
when = "0 3 * * *"
time_zone = "Europe/Berlin"
catch_up = false
[alerts.chat]
kind = "slack"
url = "env:HOOK"
repeat = "4h"
checks = ["rows"]
[alerts.mail]
kind = "email"
smtp_file = "smtp"
from = "a@example.org"
to = ["b@example.org"]
[storage]
ledger = "env:LEDGER"
[retention]
runs = "90days"
"#;
    let config = parse(&format!("{GOOD}{more}")).unwrap();
    assert!(!config.checks["rows"].timetable.catch_up);
    assert_eq!(config.checks["counts"].timetable.schedule, Schedule::Every(Duration::from_secs(30)));
    assert_eq!(config.checks["counts"].timetable.jitter, Duration::from_secs(3));
    assert_eq!(config.serve.view_token, Some(SecretSpec::Env("VIEW".into())));
    assert_eq!(config.alerts["chat"].repeat, Some(Duration::from_secs(4 * 3600)));
    assert_eq!(config.alerts["chat"].kind, AlertKind::Slack { url: SecretSpec::Env("HOOK".into()) });
    assert_eq!(config.retention.runs, Some(Duration::from_secs(90 * 86400)));
    let standard = parse(GOOD).unwrap();
    assert_eq!(standard.checks["counts"].timetable.text, SCHEDULE_DEFAULT);
    let first = 38;
    for (old, new, line, message, hint) in [
        ("\"nightly\"", "\"nightli\"", first, "no schedule `nightli`", "did you mean `nightly`?"),
        ("\"nightly\"", "\"0 3 * *\"", first, "is no schedule", "five fields"),
        ("0.0.0.0:9000", "9000", first + 2, "no address", "127.0.0.1:8420"),
        ("env:VIEW", "s3cr3t", first + 4, "a secret does not belong", "view_token_file"),
        ("Europe/Berlin", "Europe/Berlon", first + 7, "no time zone", "Europe/Berlin"),
        ("\"slack\"", "\"slak\"", first + 10, "no kind of alert", "did you mean `slack`?"),
        (
            "env:HOOK",
            "https://hooks.example/s3cr3t?token=x",
            first + 11,
            "a secret does not belong",
            "env:NAME",
        ),
        ("checks = [\"rows\"]", "checks = [\"row\"]", first + 13, "no check `row`", "did you mean `rows`?"),
        ("checks = [\"rows\"]", "command = [\"x\"]", first + 13, "means nothing to an alert", "url"),
        ("to = [\"b@example.org\"]\n", "", first + 14, "needs `smtp, from and to`", "smtps://"),
        ("env:LEDGER", "postgres://a:s3cr3t@b/c", first + 20, "a password does not belong", "env:NAME"),
        ("90days", "ninety", first + 22, "no length of time", "7days"),
    ] {
        let changed = more.replacen(old, new, 1);
        assert_ne!(changed, more, "{old}");
        let text = format!("{GOOD}{changed}");
        let found = fault(&text);
        let all = format!("{found:?}");
        assert_eq!(found.line, line, "{all}");
        assert!(found.message.contains(message), "{message}: {all}");
        assert!(found.hint.as_deref().unwrap_or_default().contains(hint), "{hint}: {all}");
        assert!(!render("f", &text, &[found]).contains("s3cr3t"), "{all}");
    }
}

#[test]
fn all_faults_are_told_at_once_in_order() {
    let text = GOOD
        .replace("\"7days\"", "\"soon\"")
        .replace("kind = \"count\"", "kind = \"x\"")
        .replace("env:API_KEY", "k");
    let lines: Vec<usize> = faults(&text).iter().map(|fault| fault.line).collect();
    assert_eq!(lines, [7, 19, 28]);
}

#[test]
fn no_secret_is_in_what_is_told() {
    let text = GOOD.replace("env:API_KEY", "hunter2").replace("env:DATABASE_URL", "mysql://u:hunter2@h/d");
    let shown = render("trueup.toml", &text, &faults(&text));
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn what_init_writes_is_understood_and_holds_no_secret() {
    let source = example::Place::of("postgres://app:hunter2@db/shop", "DATABASE_URL");
    let target = example::Place::of("sqlite://odd \"name\".db", "TARGET_DATABASE_URL");
    for tables in [vec![], vec!["orders".to_owned(), "\"odd.one\"".to_owned()]] {
        let text = example::config(&source, &target, &tables);
        let config = parse(&text).unwrap_or_else(|faults| panic!("{}", render("f", &text, &faults)));
        assert_eq!(config.pairs["main"].tables.len(), tables.len());
        assert_eq!(config.endpoints["source"].url, UrlSpec::Env("DATABASE_URL".to_owned()));
        assert!(!text.contains("hunter2"));
    }
    let environment = example::environment([&source, &target]);
    for line in environment.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        assert!(line.ends_with('='), "{line}");
    }
    assert!(environment.contains("DATABASE_URL=\n") && environment.contains("API_KEY=\n"));
}

#[test]
fn commented_lines_of_the_example_are_right_too() {
    let source = example::Place::of("env:A", "A");
    let text = example::config(&source, &example::Place::of("env:B", "B"), &["orders".to_owned()]);
    let mut open = String::new();
    for line in text.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let is_key = bare
            .split_once(" = ")
            .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        let is_code = bare.starts_with('[') || is_key;
        open.push_str(if is_code && !bare.starts_with("url_file") { bare } else { line });
        open.push('\n');
    }
    let config = parse(&open).unwrap_or_else(|faults| panic!("{}", render("f", &open, &faults)));
    assert!(config.checks.contains_key("recent-orders") && config.endpoints.contains_key("west"));
    assert_eq!(config.checks["recent-orders"].timetable.text.split(' ').next(), Some("30"));
    assert!(config.alerts.contains_key("on-call") && config.retention.last_runs == 1000);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(at in 0usize..900, cut in 0usize..40, insert in "\\PC{0,12}") {
        let start = GOOD.floor_char_boundary(at.min(GOOD.len()));
        let end = GOOD.floor_char_boundary((start + cut).min(GOOD.len()));
        let text = format!("{}{insert}{}", &GOOD[..start], &GOOD[end..]);
        if let Err(faults) = parse(&text) {
            let _ = render("f", &text, &faults);
        }
    }
}

#[test]
fn unpaired_columns_are_accepted_by_pair_or_table() {
    let unpaired = |pair: &str, table: &str| {
        let text = GOOD.replace("[pairs.shop]\n", &format!("[pairs.shop]\n{pair}\n"));
        let text = text.replace("where = \"id > 1\",", &format!("where = \"id > 1\", {table}"));
        parse(&text).map(|config| {
            let pair = &config.pairs["shop"];
            let of = |at: usize| pair.tables[at].wishes.unpaired.clone();
            [pair.unpaired.clone(), of(0), of(1)]
        })
    };
    let some = Unpaired::Accept(vec!["note".to_owned()]);
    assert_eq!(unpaired("", "").unwrap(), [Unpaired::Different, Unpaired::Different, Unpaired::Different]);
    assert_eq!(
        unpaired("unpaired = \"ignore\"", "unpaired = [\"note\"],").unwrap(),
        [Unpaired::Ignore, Unpaired::Ignore, some.clone()]
    );
    assert_eq!(
        unpaired("unpaired = [\"note\"]", "unpaired = \"different\",").unwrap(),
        [some.clone(), some, Unpaired::Different]
    );
    for bad in ["unpaired = \"ignored\"", "unpaired = true", "unpaired = [1]"] {
        let faults = unpaired(bad, "").unwrap_err();
        assert_eq!((faults.len(), faults[0].line), (1, 10), "{bad}: {faults:?}");
    }
}
