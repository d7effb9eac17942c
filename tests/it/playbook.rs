//! The playbook as a team lives it: agents with mutual TLS beside two databases, a coordinator on a PostgreSQL ledger, gaps
//! and discrepancies written into the copy; alert, report, backfill, repair, audit, undo. Marked values are searched for after.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::agents::Pki;
use super::support::process::{Agent, Output, trueup_with};
use super::support::receiver::Receiver;
use super::support::serve::Serve;
use super::support::servers::PostgresDb;

const MARK: &str = "MARKED-VALUE-93C1";
const SECRETS: [&str; 2] = ["SIGNING-SECRET-51", "VIEW-TOKEN-88-0123456789abcdef"];
const ROWS: i64 = 6_000;

/// What the team has: two databases, two agents, a ledger, a receiver of alerts.
struct Team {
    source: PostgresDb,
    target: PostgresDb,
    ledger: PostgresDb,
    receiver: Receiver,
    agents: [Agent; 2],
    pki: Pki,
    dir: tempfile::TempDir,
}

impl Team {
    /// Waits until an alert has told this of each check.
    fn until_told(&self, action: &str) {
        for check in ["days", "every-row", "total"] {
            self.receiver.until(check, |received| {
                let told = received.json();
                let mut alerts = told["alerts"].as_array().unwrap().iter();
                alerts.any(|alert| alert["check"] == check && alert["action"] == action)
            });
        }
    }

    fn new() -> Self {
        let (source, target, ledger) = (PostgresDb::create(), PostgresDb::create(), PostgresDb::create());
        for db in [&source, &target] {
            db.execute(
                "CREATE TABLE orders (id bigint PRIMARY KEY, at timestamptz NOT NULL, amount numeric(12,2), note text);
                 CREATE INDEX ON orders (at)",
            );
        }
        source.execute(&format!(
            "INSERT INTO orders SELECT i, timestamptz '2026-01-01 00:00Z' + i * interval '10 minutes', i * 0.25, '{MARK} ' || i
             FROM generate_series(0, {}) i",
            ROWS - 1
        ));
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::new();
        let file = |name: &str| pki.path(name).to_str().unwrap().to_owned();
        let tls = [
            "--cert",
            &file("server.pem"),
            "--key-file",
            &file("server.key"),
            "--client-ca",
            &file("ca.pem"),
        ]
        .map(str::to_owned);
        let undo = dir.path().join("undo").to_str().unwrap().to_owned();
        let agent = |db: &PostgresDb, more: &[&str]| {
            let mut args = vec!["--database", "env:DB"];
            args.extend(tls.iter().map(String::as_str));
            args.extend(more);
            Agent::start(&args, &[("DB", &db.url())])
        };
        let ca = file("ca.pem");
        let agents =
            [agent(&source, &[]), agent(&target, &["--allow-write", "--ca", &ca, "--undo-dir", &undo])];
        let team = Self { source, target, ledger, receiver: Receiver::start(2), agents, pki, dir };
        std::fs::write(team.config(), team.config_text()).unwrap();
        team
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("trueup.toml")
    }

    fn config_text(&self) -> String {
        let endpoint = |name: &str, agent: &Agent| {
            format!(
                "[endpoints.{name}]\nurl = \"grpcs://{}\"\nca = \"{ca}\"\ncert = \"{cert}\"\nkey_file = \"{key}\"\n",
                agent.address,
                ca = self.pki.path("ca.pem").display(),
                cert = self.pki.path("client.pem").display(),
                key = self.pki.path("client.key").display()
            )
        };
        format!(
            "{}{}[pairs.shop]\nsource = \"east\"\ntarget = \"west\"\ntables = [\"orders\"]\n\
             [storage]\nledger = \"env:LEDGER\"\naudit_key_file = \"audit.key\"\n\
             [serve]\npublic_url = \"https://trueup.example\"\nview_token = \"env:VIEW\"\n\
             [schedules.often]\nwhen = \"every 1s\"\njitter = \"0s\"\n\
             [checks.days]\npair = \"shop\"\nkind = \"gaps\"\ncolumn = \"at\"\nstep = \"day\"\nschedule = \"often\"\nowner = \"sales\"\n\
             [checks.every-row]\npair = \"shop\"\nkind = \"rows\"\nseverity = \"critical\"\nschedule = \"often\"\n\
             [checks.total]\npair = \"shop\"\nkind = \"sum\"\ncolumn = \"amount\"\nschedule = \"often\"\n\
             [alerts.on-call]\nkind = \"webhook\"\nurl = \"{}\"\nsecret = \"env:SIGNING\"\ngroup = \"300ms\"\nretry = \"200ms\"\n",
            endpoint("east", &self.agents[0]),
            endpoint("west", &self.agents[1]),
            self.receiver.url()
        )
    }

    /// A command of the team's, on its ledger and between its agents where it takes them.
    fn run(&self, args: &[&str], between: bool) -> Output {
        let [east, west] = [0, 1].map(|at: usize| format!("grpcs://{}", self.agents[at].address));
        let [ca, cert, key] = ["ca.pem", "client.pem", "client.key"]
            .map(|name| self.pki.path(name).to_str().unwrap().to_owned());
        let mut all = args.to_vec();
        if between {
            all.splice(1..1, [east.as_str(), west.as_str()]);
        }
        if between || args[0] == "undo" {
            all.extend(["--ca", &ca, "--cert", &cert, "--key-file", &key]);
        }
        let url = self.ledger.url();
        let secret = self.dir.path().join("audit.key").to_str().unwrap().to_owned();
        trueup_with(&all, &[("TRUEUP_LEDGER", &url), ("TRUEUP_AUDIT_KEY_FILE", &secret)])
    }

    fn same(&self) -> bool {
        let all = "SELECT count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0) FROM orders t";
        self.source.scalar(all) == self.target.scalar(all)
    }
}

fn until(what: &str, is: impl Fn() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn holds(file: &Path, word: &str) -> bool {
    if file.is_dir() {
        return std::fs::read_dir(file).unwrap().any(|entry| holds(&entry.unwrap().path(), word));
    }
    std::fs::read(file).unwrap().windows(word.len()).any(|window| window == word.as_bytes())
}

#[test]
fn from_an_empty_copy_to_evidence_and_back() {
    let team = Team::new();
    // The copy is new: it is filled by date, and the gaps are shown first.
    let dates = ["-t", "orders", "--on", "at", "--from", "2026-01-01", "--to", "2026-02-12"];
    let fill = |more: &[&str]| {
        let mut args = vec!["backfill"];
        args.extend(dates);
        args.extend(["--format", "json", "--recheck-delay", "1ms"]);
        args.extend(more);
        team.run(&args, true)
    };
    let shown = fill(&["--dry-run"]);
    assert_eq!(shown.status, 1, "{shown:?}");
    let filled = fill(&[]);
    assert_eq!(filled.status, 0, "{filled:?}");
    assert!(team.same());

    let ledger = team.ledger.url();
    let env = [("LEDGER", ledger.as_str()), ("SIGNING", SECRETS[0]), ("VIEW", SECRETS[1])];
    let checked = trueup_with(&["config", "check", "-c", team.config().to_str().unwrap()], &env);
    assert_eq!(checked.status, 0, "{checked:?}");
    let mut serve = Serve::start(&team.config(), &ledger, &env);
    assert_eq!(serve.get("/metrics", "").0, 401);
    let bearer = format!("authorization: Bearer {}\r\n", SECRETS[1]);
    until("all checks pass", || {
        let text = serve.get("/metrics", &bearer).1;
        ["days", "every-row", "total"].iter().all(|name| {
            text.contains(&format!("trueup_check_results_total{{check=\"{name}\",status=\"pass\"}}"))
        })
    });
    assert!(team.receiver.all().is_empty());

    // A day is lost, rows are altered: each check that can see it says so, through a receiver that fails twice.
    team.target.execute(
        "DELETE FROM orders WHERE at >= '2026-01-20 00:00Z' AND at < '2026-01-21 00:00Z';
         UPDATE orders SET amount = amount + 1 WHERE id % 500 = 3",
    );
    team.until_told("firing");
    let is_rows =
        |received: &super::support::receiver::Received| received.body.contains("144 missing, 12 changed");
    let alert = team.receiver.until("the count of rows", is_rows).json();
    let alerts = alert["alerts"].as_array().unwrap();
    let rows = alerts.iter().find(|alert| alert["check"] == "every-row").unwrap();
    let run = rows["run"].as_str().unwrap();
    assert_eq!(rows["link"], format!("https://trueup.example/runs/{run}"));
    let report = team.run(&["report", run, "--format", "html"], false);
    assert!(report.status == 0 && report.stdout.contains("144"), "{report:?}");

    // The gap is filled, the rest is repaired; all three say that it is over.
    assert_eq!(fill(&["--allow", "insert"]).status, 1, "changed rows are found, and left");
    assert!(!team.same());
    let repair = ["repair", "-t", "orders", "--format", "json", "--quiet", "--recheck-delay", "1ms"];
    let repaired = team.run(&repair, true);
    assert_eq!(repaired.status, 0, "{repaired:?}");
    assert!(team.same());
    team.until_told("resolved");

    // Every row that was written is in the trail, once; the repair can be taken back, and is told as a discrepancy again.
    let written = |operation: &str| {
        let sql = format!(
            "WITH written AS (SELECT kind, key, detail FROM trueup_audit WHERE outcome = 'written' AND operation = '{operation}'), \
             keys AS (SELECT key FROM written WHERE kind = 'row' UNION ALL \
                      SELECT r.value ->> 0 FROM written, \
                        json_array_elements(CASE kind WHEN 'rows' THEN detail::json -> 'rows' ELSE '[]' END) r UNION ALL \
                      SELECT r[1] FROM written, \
                        regexp_matches(CASE kind WHEN 'rows' THEN detail::json ->> 'keys' END, '.{{32}}', 'g') r) \
             SELECT count(*) || ' ' || count(DISTINCT key) FROM keys"
        );
        team.ledger.scalar(&sql).unwrap()
    };
    assert_eq!(
        written("insert"),
        format!("{} {ROWS}", ROWS + 144),
        "a row of the lost day was inserted twice"
    );
    assert_eq!(written("update"), "12 12");
    let id = repaired.json()["run"].as_str().unwrap().to_owned();
    let firing_before =
        team.receiver.all().iter().filter(|r| r.status == 200 && r.body.contains("\"firing\"")).count();
    let undone = team.run(&["undo", &id], false);
    assert_eq!(undone.status, 0, "{undone:?}");
    assert_eq!(
        team.target
            .scalar("SELECT count(*) FROM orders WHERE id % 500 = 3 AND amount <> id * 0.25")
            .as_deref(),
        Some("12")
    );
    until("it is told again", || {
        team.receiver.all().iter().filter(|r| r.status == 200 && r.body.contains("\"firing\"")).count()
            > firing_before
    });
    let verified = team.run(&["audit", "verify"], false);
    assert_eq!(verified.status, 0, "{verified:?}");
    serve.signal("TERM");
    assert_eq!(serve.wait(), 0);
    let runs = team.run(&["runs", "--format", "ndjson", "--limit", "1000"], false).stdout;
    for kind in ["backfill", "check", "repair", "undo"] {
        assert!(runs.contains(&format!("\"kind\":\"{kind}\"")), "{kind}");
    }

    // No value and no secret is anywhere but in the databases.
    let tables = ["runs", "tables", "differences", "audit", "checks", "schedule", "incidents", "outbox"];
    for word in [MARK, SECRETS[0], SECRETS[1]] {
        for table in tables {
            let sql = format!("SELECT count(*) FROM trueup_{table} t WHERE t::text LIKE '%{word}%'");
            assert_eq!(team.ledger.scalar(&sql).as_deref(), Some("0"), "{word} in {table}");
        }
        let alerts: String = team.receiver.all().iter().map(|r| format!("{}{}", r.headers, r.body)).collect();
        let logs: String = team.agents.iter().flat_map(Agent::log).collect();
        for text in [&serve.log(), &alerts, &logs, &runs, &report.stdout, &repaired.stdout, &filled.stdout] {
            assert!(!text.contains(word), "{word} was told");
        }
        // The undo journals hold what was overwritten, encrypted.
        assert!(!holds(&team.dir.path().join("undo"), word), "{word} is readable in an undo journal");
    }
}
