//! The dashboard as a person meets it: a real browser, a real ledger; keyboard, screen reader rules, light and dark.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use trueup::ledger::{Finding, Incident, IncidentState, Ledger, Notice, RunStart};
use trueup::report::checks::{CheckResult, Status};

use super::support::browser::Browser;
use super::support::process::{command, trueup, trueup_with};
use super::support::servers::SqliteDb;

const TOKEN: &str = "a-token-for-the-browser-0123456789";
const AXE: &str = include_str!("support/axe/axe.min.js");
const ORDERS: &str = "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER NOT NULL, status VARCHAR(16), amount DECIMAL(12,2), placed_at TIMESTAMP);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
    INSERT INTO orders SELECT i, i % 97, 'open', (i * 131 % 100000) / 100.0,
      datetime('2026-03-01', '+' || (i / 70) || ' days', '+' || (i % 70) || ' minutes') FROM n";
const DRIFT: &str = "DELETE FROM orders WHERE id BETWEEN 1200 AND 1390 OR id % 211 = 0;
    UPDATE orders SET status = 'lost' WHERE id % 97 = 5; INSERT INTO orders VALUES (9000, 1, 'x', 1, '2026-04-02 00:00:00')";
/// A table that breaks out of its page, if one does.
const EVIL: &str = "<script>document.title='broken'</script>";

/// A ledger with a run of every kind.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        let (source, target) = (SqliteDb::create(), SqliteDb::create());
        for db in [&source, &target] {
            db.execute(ORDERS);
            db.execute(&format!("CREATE TABLE \"{EVIL}\" (id INTEGER PRIMARY KEY, note TEXT)"));
        }
        target.execute(DRIFT);
        let (source, target) = (source.url(), target.url());
        let diff = ["diff", &source, &target, "--recheck-delay", "1ms", "--quiet"];
        assert_eq!(place.run(&diff), 1);
        let fill = [
            "backfill",
            &source,
            &target,
            "-t",
            "orders",
            "--on",
            "placed_at",
            "--step",
            "day",
            "--quiet",
            "--recheck-delay",
            "1ms",
        ];
        place.run(&fill);
        let repair = [
            "repair",
            &source,
            &target,
            "-t",
            "orders",
            "--allow",
            "insert,update,delete",
            "--recheck-delay",
            "1ms",
            "--quiet",
        ];
        assert_eq!(place.run(&repair), 0);
        std::fs::write(
            place.path("trueup.toml"),
            "[endpoints.a]\nurl = \"env:SOURCE\"\n[endpoints.b]\nurl = \"env:TARGET\"\n[pairs.shop]\nsource = \"a\"\ntarget = \"b\"\n\
             tables = [{ table = \"orders\" }]\n\
             [checks.order-count]\npair = \"shop\"\nkind = \"count\"\ntable = \"orders\"\nseverity = \"critical\"\nowner = \"payments\"\n\
             [checks.order-rows]\npair = \"shop\"\nkind = \"rows\"\ntable = \"orders\"\nowner = \"payments\"\n",
        )
        .unwrap();
        let config = place.path("trueup.toml");
        let check = |target: &str, expected: i32| {
            let args = [
                "check",
                "-c",
                config.to_str().unwrap(),
                "--quiet",
                "--recheck-delay",
                "1ms",
                "--ledger",
                &place.ledger(),
            ];
            let checked = trueup_with(&args, &[("SOURCE", &source), ("TARGET", target)]);
            assert_eq!(checked.status, expected, "{checked:?}");
        };
        for _ in 0..4 {
            check(&target, 0);
        }
        rusqlite::Connection::open(target.strip_prefix("sqlite://").unwrap())
            .unwrap()
            .execute("DELETE FROM orders WHERE id < 9", [])
            .unwrap();
        check(&target, 1);
        place.alert();
        // Taken down before it had ended.
        place.begin("0199aaaa-0000-7000-8000-00000000beef");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ledger(&self) -> String {
        self.path("ledger.db").to_str().unwrap().to_owned()
    }

    fn run(&self, args: &[&str]) -> i32 {
        let ledger = self.ledger();
        let mut all = args.to_vec();
        all.extend(["--ledger", &ledger]);
        let output = trueup(&all);
        assert!(output.status < 2, "{output:?}");
        output.status
    }

    fn with_ledger<T>(&self, work: impl AsyncFnOnce(Ledger) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime
            .block_on(async { work(Ledger::open_file(Path::new(&self.ledger()), true).await.unwrap()).await })
    }

    fn begin(&self, id: &str) {
        let start = RunStart {
            id: id.into(),
            kind: "repair".into(),
            who: "ann".into(),
            host: "db-1".into(),
            process: String::new(),
            software: "trueup".into(),
            started_at: "2099-01-02T03:04:05.000Z".into(),
            source: "postgres://east/shop".into(),
            target: "postgres://west/shop".into(),
            target_reference: String::new(),
            writes: true,
            undoes: None,
            options: serde_json::json!({}),
        };
        self.with_ledger(async |ledger| ledger.begin(&start).await.unwrap());
    }

    fn alert(&self) {
        let result = CheckResult {
            name: "order-count".into(),
            kind: "count".into(),
            pair: "shop".into(),
            table: Some("orders".into()),
            status: Status::Fail,
            severity: "critical".into(),
            owner: Some("payments".into()),
            source: Some("4000".into()),
            target: Some("3992".into()),
            difference: Some("8".into()),
            message: None,
            hint: None,
            extent: None,
            columns: None,
            notes: Vec::new(),
            seconds: 0.1,
        };
        let found =
            Finding { run: "0199aaaa".into(), at: "2026-11-23T17:00:00.000Z".into(), result: result.clone() };
        let incident = |key: &str, state, resolved: Option<&str>| Incident {
            key: key.into(),
            state,
            opened_at: "2026-11-23T17:00:00.000Z".into(),
            seen_at: "2026-11-23T17:02:00.000Z".into(),
            resolved_at: resolved.map(str::to_owned),
            told_at: None,
            failures: 2,
            passes: 0,
            flaps: 0,
            run: "0199aaaa".into(),
            result: result.clone(),
            first: found.clone(),
            worst: found.clone(),
        };
        let notice = Notice {
            id: "n-1".into(),
            channel: "on-call".into(),
            incident: "order-count orders".into(),
            body: "{}".into(),
            created_at: "2026-11-23T17:00:01.000Z".into(),
            next_at: "2026-11-23T17:00:01.000Z".into(),
        };
        let resolved = Some("2026-11-23T17:03:00.000Z");
        self.with_ledger(async |ledger| {
            ledger.note(&incident("order-count orders", IncidentState::Open, None), &[notice]).await.unwrap();
            ledger
                .note(&incident("order-rows orders", IncidentState::Resolved, resolved), &[])
                .await
                .unwrap();
        });
    }
}

/// A running `trueup dashboard`; killed when dropped.
struct Served {
    child: Child,
    url: String,
}

impl Served {
    fn start(place: &Place) -> Self {
        std::fs::write(place.path("token"), TOKEN).unwrap();
        let (token, ledger) = (place.path("token"), place.ledger());
        let args = [
            "dashboard",
            "--listen",
            "127.0.0.1:0",
            "--token-file",
            token.to_str().unwrap(),
            "--ledger",
            &ledger,
        ];
        let mut child = command(&args, &[]).stdout(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut seen = Vec::new();
        for line in lines {
            if let Some(url) = line.strip_prefix("listening on ") {
                return Self { child, url: url.trim_end_matches('/').to_owned() };
            }
            seen.push(line);
        }
        panic!("the dashboard did not start: {seen:?}");
    }

    fn browser(&self) -> Browser {
        let mut browser = Browser::start();
        browser.open(&format!("{}/login", self.url));
        browser.eval("document.getElementById('token').focus()");
        browser.type_text(TOKEN);
        browser.press_enter();
        assert_eq!(browser.text("document.title"), "Overview · trueup");
        browser
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The addresses of the runs on the page.
fn runs(browser: &mut Browser, kind: &str) -> Vec<String> {
    let found = browser.eval(&format!(
        "[...document.querySelectorAll('tbody tr')].filter(r => r.cells[2].textContent === '{kind}').map(r => r.querySelector('a').getAttribute('href'))"
    ));
    found.as_array().unwrap().iter().map(|path| path.as_str().unwrap().to_owned()).collect()
}

/// What breaks the rules of WCAG 2.2 AA, or good practice, by axe.
fn violations(browser: &mut Browser) -> Vec<String> {
    browser.eval(&format!("{AXE};undefined"));
    let found = browser.eval(
        "axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] })
           .then(r => r.violations.map(v => v.id + ': ' + v.help + ': ' + v.nodes.map(n => n.html + ' ' + n.failureSummary).join('; ')))",
    );
    found.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_page_is_accessible_in_light_and_dark() {
    let place = Place::new();
    let served = Served::start(&place);
    let mut browser = served.browser();
    browser.open(&format!("{}/runs", served.url));
    let mut paths: Vec<String> = [
        "/",
        "/runs",
        "/runs?kind=undo",
        "/checks",
        "/check?name=order-count",
        "/check?name=none",
        "/alerts",
        "/audit",
        "/audit?table=orders",
        "/nothing",
    ]
    .map(str::to_owned)
    .to_vec();
    for kind in ["diff", "repair", "backfill", "check"] {
        let found = runs(&mut browser, kind);
        assert!(!found.is_empty(), "no {kind}");
        paths.extend(found.into_iter().take(2));
    }
    for scheme in ["light", "dark"] {
        browser.scheme(scheme);
        for path in &paths {
            browser.open(&format!("{}{path}", served.url));
            let found = violations(&mut browser);
            assert!(found.is_empty(), "{path}, {scheme}: {found:#?}");
        }
        // On a telephone nothing but tables is wider than the window.
        browser.window(360, 740);
        for path in &paths {
            browser.open(&format!("{}{path}", served.url));
            let wider = browser.eval("document.documentElement.scrollWidth - innerWidth");
            assert!(wider.as_i64().unwrap() <= 0, "{path}: {wider} pixels too wide");
        }
        browser.window(1200, 900);
    }
    // The checker sees a planted fault.
    browser.eval(
        "document.querySelector('main').insertAdjacentHTML('beforeend', '<img src=\"/favicon.svg\"><input>')",
    );
    let found = violations(&mut browser).join("\n");
    assert!(found.contains("image-alt") && found.contains("label"), "{found}");
    // And the login, which has no session.
    browser.eval("document.querySelector('form[action=\"/logout\"] button').focus()");
    browser.press_enter();
    browser.open(&format!("{}/login", served.url));
    for scheme in ["light", "dark"] {
        browser.scheme(scheme);
        assert_eq!(violations(&mut browser), Vec::<String>::new(), "login, {scheme}");
    }
}

#[test]
fn the_keyboard_is_enough() {
    let place = Place::new();
    let served = Served::start(&place);
    let mut browser = Browser::start();
    // A deep link asks for the token first, and is then gone to.
    browser.open(&format!("{}/runs?kind=repair", served.url));
    assert_eq!(browser.text("location.pathname"), "/login");
    browser.type_text("not-the-token-at-all");
    browser.press_enter();
    assert_eq!(browser.text("document.querySelector('[role=alert]').textContent"), "That is not the token.");
    browser.type_text(TOKEN);
    browser.press_enter();
    assert_eq!(browser.text("location.pathname + location.search"), "/runs?kind=repair");
    // The first stop skips the menu; each stop can be seen.
    browser.press_tab();
    assert_eq!(browser.text("document.activeElement.className"), "skip");
    assert_eq!(browser.eval("document.activeElement.getBoundingClientRect().left >= 0"), true);
    let mut stops = Vec::new();
    for _ in 0..40 {
        browser.press_tab();
        stops.push(browser.text(
            "(e => e.matches('body') ? '' : (getComputedStyle(e).outlineStyle === 'none' ? 'UNSEEN ' : '') + (e.getAttribute('href') || e.name || e.textContent.trim()))(document.activeElement)",
        ));
    }
    for expected in ["/checks", "/audit", "kind", "since", "Show", "Log out"] {
        assert!(stops.iter().any(|stop| stop == expected), "{expected} is not among {stops:?}");
    }
    assert!(
        stops.iter().any(|stop| stop.starts_with("/runs/")) && !stops.join(" ").contains("UNSEEN"),
        "{stops:?}"
    );
    browser.eval("document.querySelector('tbody a').focus()");
    browser.press_enter();
    assert!(browser.text("location.pathname").starts_with("/runs/"));
}

#[test]
fn names_stay_names_and_the_policy_holds() {
    let place = Place::new();
    let served = Served::start(&place);
    let mut browser = served.browser();
    browser.open(&format!("{}/runs", served.url));
    let diff = runs(&mut browser, "diff").remove(0);
    browser.open(&format!("{}{diff}", served.url));
    assert!(browser.text("document.title").starts_with("diff "));
    assert_eq!(browser.eval(&format!("document.body.innerText.includes({EVIL:?})")), true);
    // Even a script that got in would not run, and no style of its own would hold.
    browser.eval("document.body.insertAdjacentHTML('beforeend', '<p id=probe style=\"position:fixed\">x</p><img src=x onerror=\"document.title=1\">')");
    browser.eval("const s = document.createElement('script'); s.textContent = 'window.broken = 1'; document.body.append(s)");
    assert_eq!(browser.text("getComputedStyle(document.getElementById('probe')).position"), "static");
    assert_eq!(browser.eval("window.broken === undefined"), true);
    assert_eq!(browser.eval("document.cookie"), "", "scripts cannot read the session");
}

#[test]
fn the_page_follows_the_ledger_until_it_is_paused() {
    let place = Place::new();
    let served = Served::start(&place);
    let mut browser = served.browser();
    let shows = |browser: &mut Browser, id: &str| {
        browser.eval(&format!("document.querySelector('main').innerHTML.includes('{id}')")) == true
    };
    let first = "0199aaaa-0000-7000-8000-00000000cafe";
    assert!(!shows(&mut browser, first));
    place.begin(first);
    let began = Instant::now();
    while !shows(&mut browser, first) {
        assert!(began.elapsed() < Duration::from_secs(30), "the page does not follow");
        std::thread::sleep(Duration::from_millis(100));
    }
    browser.eval("document.getElementById('live').click()");
    assert_eq!(browser.text("document.getElementById('live').textContent"), "Resume updates");
    let second = "0199aaaa-0000-7000-8000-00000000f00d";
    place.begin(second);
    // Longer than the page waits between two looks.
    std::thread::sleep(Duration::from_secs(7));
    assert!(!shows(&mut browser, second), "it does not stay paused");
    browser.open(&served.url);
    assert!(shows(&mut browser, second));
}

/// Pictures for the documentation: `TRUEUP_SCREENSHOTS=docs/images scripts/test --test it screenshots`.
#[test]
fn screenshots_can_be_taken() {
    let place = Place::new();
    let served = Served::start(&place);
    let mut browser = served.browser();
    browser.window(1100, 780);
    browser.open(&format!("{}/runs", served.url));
    let backfill = runs(&mut browser, "backfill").remove(0);
    let diff = runs(&mut browser, "diff").remove(0);
    let pages =
        [("overview", "/".to_owned()), ("run", diff), ("backfill", backfill), ("audit", "/audit".to_owned())];
    for scheme in ["light", "dark"] {
        browser.scheme(scheme);
        for (name, path) in &pages {
            browser.open(&format!("{}{path}", served.url));
            if matches!(*name, "run" | "backfill") {
                browser.eval("[...document.querySelectorAll('h2')].find(h => h.textContent.startsWith('Table orders')).scrollIntoView()");
            }
            let shot = browser.screenshot();
            assert!(shot.starts_with("iVBORw0KGgo"), "that is no PNG");
            if let Some(dir) = std::env::var_os("TRUEUP_SCREENSHOTS") {
                std::fs::create_dir_all(&dir).unwrap();
                let file = Path::new(&dir).join(format!("dashboard-{name}-{scheme}.png"));
                std::fs::write(
                    file,
                    base64::Engine::decode(&base64::prelude::BASE64_STANDARD, shot).unwrap(),
                )
                .unwrap();
            }
        }
    }
}
