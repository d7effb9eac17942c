//! The coordinator that keeps running, as a process: schedules, alerts through a receiver that fails, reload, stop.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::support::process::{Output, trueup, trueup_with};
use super::support::receiver::Receiver;
use super::support::serve::Serve;
use super::support::servers::{PostgresDb, SqliteDb};

/// A folder with a configuration and a ledger.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(config: &str) -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        place.write(config);
        place
    }

    fn write(&self, config: &str) {
        std::fs::write(self.config(), config).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("trueup.toml")
    }

    fn ledger(&self) -> String {
        self.dir.path().join("ledger.db").to_str().unwrap().to_owned()
    }

    fn run(&self, args: &[&str]) -> Output {
        let ledger = self.ledger();
        let mut all = args.to_vec();
        all.extend(["--ledger", &ledger]);
        trueup(&all)
    }
}

const PAIR: &str = "[endpoints.a]\nurl = \"env:SOURCE\"\n[endpoints.b]\nurl = \"env:TARGET\"\n[pairs.p]\nsource = \"a\"\ntarget = \"b\"\ntables = [\"orders\"]\n";
const MARK: &str = "MARKED-VALUE-7F3A";

fn orders(db: &SqliteDb) {
    db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, amount INTEGER, note TEXT)");
    db.execute(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO orders SELECT i, i * 3, '{MARK}' FROM n"
    ));
}

fn until(what: &str, is: impl Fn() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_discrepancy_is_told_and_so_is_its_end() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    orders(&source);
    orders(&target);
    let receiver = Receiver::start(2);
    let config = |repair: &str| {
        format!(
            "{PAIR}[serve]\npublic_url = \"https://trueup.example\"\n[storage]\n[checks.all-rows]\npair = \"p\"\nkind = \"rows\"\nseverity = \"critical\"\n\
             owner = \"data\"\nschedule = \"every 1s\"\n{repair}\n[checks.counts]\npair = \"p\"\nkind = \"count\"\nseverity = \"info\"\nschedule = \"every 1s\"\n\
             [alerts.ops]\nkind = \"webhook\"\nurl = \"{}\"\nsecret = \"env:SIGNING_KEY\"\ngroup = \"200ms\"\nretry = \"300ms\"\n",
            receiver.url()
        )
    };
    let place = Place::new(&config(""));
    let (from, to) = (source.url(), target.url());
    let env = [("SOURCE", from.as_str()), ("TARGET", to.as_str()), ("SIGNING_KEY", "hunter2-signing")];
    let mut serve = Serve::start(&place.config(), &place.ledger(), &env);
    until("a first run", || {
        serve.get("/metrics", "").1.contains("trueup_check_results_total{check=\"all-rows\",status=\"pass\"}")
    });
    assert!(receiver.all().is_empty(), "{:?}", receiver.all());

    target.execute("DELETE FROM orders WHERE id = 77; UPDATE orders SET note = 'changed' WHERE id = 78");
    let fired = receiver.until("the alert", |received| received.body.contains("\"firing\""));
    let refused = receiver.all().iter().filter(|received| received.status == 503).count();
    assert_eq!(refused, 2, "the receiver failed twice before it answered");
    let body = fired.json();
    let alert = &body["alerts"][0];
    assert_eq!(
        (&alert["check"], &alert["table"], &alert["severity"], &alert["owner"]),
        (&"all-rows".into(), &"orders".into(), &"critical".into(), &"data".into())
    );
    assert_eq!(alert["facts"], "source 500, target 499; 1 missing, 1 changed");
    // The same message each time it was tried: the receiver can tell.
    let deliveries: std::collections::BTreeSet<_> =
        receiver.all().iter().map(|received| received.header("x-trueup-delivery")).collect();
    assert_eq!(deliveries.len(), 1, "{deliveries:?}");
    let signature = fired.header("x-trueup-signature").unwrap();
    let (time, given) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let (_, expected) = {
        let text = trueup::serve::channel::signature("hunter2-signing", time, &fired.body);
        let (time, mac) = text.split_once(",v1=").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        (time, mac)
    };
    assert_eq!(given, expected);
    // An info check is below the channel's least severity.
    assert!(!receiver.all().iter().any(|received| received.body.contains("\"counts\"")));
    // The link leads to a run of the ledger, which names the differing rows.
    let run = alert["run"].as_str().unwrap();
    assert_eq!(alert["link"], format!("https://trueup.example/runs/{run}"));
    let report = place.run(&["report", run, "--format", "json"]);
    assert_eq!(report.status, 0, "{report:?}");
    let report = report.json();
    assert_eq!((&report["kind"], &report["outcome"]), (&"check".into(), &"fail".into()));
    assert_eq!(report["tables"][0]["differences"].as_array().unwrap().len(), 2);
    assert_eq!(report["checks"][0]["status"], "fail");

    // A policy that repairs is taken over on HUP; its writes are in the trail and can be taken back.
    place.write(&config("repair = { up_to = 10 }"));
    serve.signal("HUP");
    let resolved = receiver.until("the all-clear", |received| received.body.contains("\"resolved\""));
    assert_eq!(resolved.json()["alerts"][0]["key"], alert["key"]);
    assert_eq!(target.scalar("SELECT count(*) FROM orders"), source.scalar("SELECT count(*) FROM orders"));
    let entries = place.run(&["audit", "list", "--format", "ndjson"]);
    let rows: Vec<&str> = entries.stdout.lines().filter(|line| line.contains("\"kind\":\"row\"")).collect();
    assert_eq!(rows.len(), 2, "{entries:?}");
    serve.signal("TERM");
    assert_eq!(serve.wait(), 0);
    let verified = place.run(&["audit", "verify"]);
    assert_eq!(verified.status, 0, "{verified:?}");
    let row: serde_json::Value = serde_json::from_str(rows[0]).unwrap();
    let undone = place.run(&["undo", row["run"].as_str().unwrap(), "--target", &to]);
    assert_eq!(undone.status, 0, "{undone:?}");
    assert_eq!(target.scalar("SELECT count(*) FROM orders").as_deref(), Some("499"));
    // No value and no secret left the databases.
    for text in [serve.log(), receiver.all().iter().map(|r| format!("{}{}", r.headers, r.body)).collect()] {
        assert!(!text.contains(MARK) && !text.contains("hunter2"), "{text}");
    }
    let ledger = std::fs::read(place.ledger()).unwrap();
    assert!(!ledger.windows(MARK.len()).any(|window| window == MARK.as_bytes()));
}

#[test]
fn a_bad_configuration_on_hup_changes_nothing() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    orders(&source);
    orders(&target);
    let checks = "[checks.counts]\npair = \"p\"\nkind = \"count\"\nschedule = \"every 1s\"\n";
    let place = Place::new(&format!("{PAIR}{checks}"));
    let (from, to) = (source.url(), target.url());
    let mut serve = Serve::start(&place.config(), &place.ledger(), &[("SOURCE", &from), ("TARGET", &to)]);
    place.write(&format!("{PAIR}[checks.counts]\npair = \"p\"\nkind = \"cuont\"\n"));
    serve.signal("HUP");
    serve.until_logged("the configuration was not taken");
    assert!(serve.log().contains("did you mean `count`?"), "{}", serve.log());
    let ran = |serve: &Serve| -> u64 {
        let text = serve.get("/metrics", "").1;
        let line = text.lines().find(|line| line.starts_with("trueup_check_results_total{check=\"counts\""));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    };
    let before = ran(&serve);
    until("the old checks go on", || ran(&serve) > before);
    assert_eq!(serve.get("/healthz", ""), (200, "ok\n".to_owned()));
    assert_eq!(serve.get("/readyz", "").0, 200);
    place.write(&format!(
        "{PAIR}[serve]\nschedule = \"manual\"\n[checks.other]\npair = \"p\"\nkind = \"count\"\n"
    ));
    serve.signal("HUP");
    serve.until_logged("the configuration was read again");
    until("what is gone is shown no longer", || {
        !serve.get("/metrics", "").1.contains("trueup_check_status{check=\"counts\"")
    });
    serve.signal("INT");
    assert_eq!(serve.wait(), 0);
}

#[test]
fn what_is_missing_is_told_before_anything_runs() {
    let start = |config: &str, more: &[&str]| {
        let place = Place::new(config);
        let config = place.config();
        let mut args = vec!["serve", "-c", config.to_str().unwrap()];
        args.extend(more);
        place.run(&args)
    };
    let output = start(&format!("{PAIR}[alerts.ops]\nkind = \"slack\"\nurl = \"env:NO_SUCH_HOOK\"\n"), &[]);
    assert!(output.status == 2 && output.stderr.contains("NO_SUCH_HOOK is not set"), "{output:?}");
    let output = start(PAIR, &["--listen", "0.0.0.0:0"]);
    assert!(output.status == 2 && output.stderr.contains("view_token"), "{output:?}");
    let output = start(PAIR, &["--no-ledger"]);
    assert!(output.status == 2 && output.stderr.contains("ledger"), "{output:?}");
    let output = start("[alerts.x]\nkind = \"pagerdutty\"\n", &[]);
    assert!(output.status == 2 && output.stderr.contains("did you mean `pagerduty`"), "{output:?}");
}

#[test]
fn every_kind_of_channel_is_reached() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    orders(&source);
    orders(&target);
    target.execute("DELETE FROM orders WHERE id = 9");
    let (slack, duty) = (Receiver::start(0), Receiver::start(0));
    let mail = Smtp::start();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("alert.json");
    let config = format!(
        "{PAIR}[checks.counts]\npair = \"p\"\nkind = \"count\"\nschedule = \"every 1s\"\n\
         [alerts.chat]\nkind = \"slack\"\nurl = \"env:HOOK\"\ngroup = \"0s\"\n\
         [alerts.duty]\nkind = \"pagerduty\"\nsecret = \"env:ROUTING\"\nurl = \"{}\"\ngroup = \"0s\"\n\
         [alerts.mail]\nkind = \"email\"\nsmtp = \"env:SMTP\"\nfrom = \"Trueup <trueup@example.org>\"\nto = [\"dba@example.org\"]\ngroup = \"0s\"\n\
         [alerts.program]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", \"cat > {}\"]\ngroup = \"0s\"\n",
        duty.url(),
        out.display()
    );
    let place = Place::new(&config);
    let (from, to, hook) = (source.url(), target.url(), slack.url());
    let smtp = format!("smtp://{}", mail.address);
    let env = [
        ("SOURCE", from.as_str()),
        ("TARGET", &to),
        ("HOOK", &hook),
        ("ROUTING", "R0UT1NG"),
        ("SMTP", &smtp),
    ];
    let _serve = Serve::start(&place.config(), &place.ledger(), &env);
    let chat = slack.until("Slack's message", |_| true).json();
    assert!(chat["text"].as_str().unwrap().contains("counts orders fails: source 500, target 499"), "{chat}");
    let event = duty.until("PagerDuty's event", |_| true).json();
    assert_eq!((&event["event_action"], &event["routing_key"]), (&"trigger".into(), &"R0UT1NG".into()));
    until("the mail", || mail.text().contains("Subject: [trueup] warning: counts orders fails"));
    assert!(mail.text().contains("RCPT TO:<dba@example.org>"), "{}", mail.text());
    until("the command", || std::fs::read_to_string(&out).is_ok_and(|text| text.ends_with('}')));
    let document: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap();
    assert_eq!((&document["version"], &document["alerts"][0]["check"]), (&1.into(), &"counts".into()));
}

/// Speaks enough SMTP to take a mail.
struct Smtp {
    address: std::net::SocketAddr,
    text: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Smtp {
    fn start() -> Self {
        use std::io::{BufRead, BufReader, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let text: std::sync::Arc<std::sync::Mutex<String>> = std::sync::Arc::default();
        let notes = text.clone();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut in_data, mut line) = (false, String::new());
                let _ = stream.write_all(b"220 here\r\n");
                while reader.read_line(&mut line).unwrap_or(0) > 0 {
                    notes.lock().unwrap().push_str(&line);
                    let answer = match line.trim_end() {
                        "." if in_data => {
                            in_data = false;
                            "250 taken\r\n"
                        }
                        _ if in_data => "",
                        "DATA" => {
                            in_data = true;
                            "354 go on\r\n"
                        }
                        "QUIT" => "221 bye\r\n",
                        _ => "250 here\r\n",
                    };
                    let _ = stream.write_all(answer.as_bytes());
                    line.clear();
                }
            }
        });
        Self { address, text }
    }

    fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }
}

#[test]
fn without_a_word_about_time_a_difference_is_told_within_five_minutes() {
    let config = trueup::config::parse(&format!("{PAIR}[checks.c]\npair = \"p\"\nkind = \"count\"\n[alerts.x]\nkind = \"command\"\ncommand = [\"true\"]\n")).unwrap();
    let (check, alert) = (&config.checks["c"], &config.alerts["x"]);
    // The longest time to the next run, being measured again, being grouped, and two refusals of the receiver.
    let again = alert.retry.mul_f64(1.2) + alert.retry.mul_f64(2.4);
    let most = check.timetable.at_most().unwrap() + alert.group + again + Duration::from_secs(2 + 15 * 2);
    assert!(most < Duration::from_secs(300), "{most:?}");
}

#[test]
fn a_check_by_hand_is_recorded_too() {
    let (source, target) = (PostgresDb::create(), PostgresDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE orders (id int PRIMARY KEY, amount int, note text); INSERT INTO orders SELECT i, i, 'n' FROM generate_series(1, 300) i");
    }
    target.execute("UPDATE orders SET amount = 0 WHERE id < 4");
    let place = Place::new(&format!(
        "{PAIR}[checks.rows]\npair = \"p\"\nkind = \"rows\"\nrepair = {{ up_to = 5 }}\n[checks.sum]\npair = \"p\"\nkind = \"sum\"\ncolumn = \"amount\"\n"
    ));
    let (from, to, ledger, config) = (source.url(), target.url(), place.ledger(), place.config());
    let run = |more: &[&str]| {
        let mut args = vec![
            "check",
            "-c",
            config.to_str().unwrap(),
            "--quiet",
            "--ledger",
            &ledger,
            "--recheck-delay",
            "1ms",
        ];
        args.extend(more);
        trueup_with(&args, &[("SOURCE", &from), ("TARGET", &to)])
    };
    assert_eq!(run(&["--dry-run"]).status, 1);
    assert_eq!(
        place.run(&["audit", "list", "--format", "ndjson"]).stdout.matches("\"kind\":\"row\"").count(),
        0
    );
    // The sum was taken before the rows were repaired.
    assert_eq!(run(&[]).status, 1);
    assert_eq!(run(&[]).status, 0);
    let runs = place.run(&["runs", "--kind", "check", "--format", "ndjson"]);
    let outcomes: Vec<String> = runs
        .stdout
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["outcome"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(outcomes, ["pass", "fail", "fail"], "{runs:?}");
    assert_eq!(
        place.run(&["audit", "list", "--format", "ndjson"]).stdout.matches("\"kind\":\"row\"").count(),
        3
    );
    assert_eq!(place.run(&["audit", "verify"]).status, 0);
    for format in ["html", "md"] {
        let page = place.run(&["report", "last", "--format", format]);
        assert!(page.status == 0 && page.stdout.contains("sum") && page.stdout.contains("rows"), "{page:?}");
    }
    let page = place.run(&["report", "last", "--format", "md"]).stdout;
    assert!(page.contains("| rows | orders |"), "{page}");
}
