//! The dashboard of a running coordinator: who may only look sees no buttons; an operator runs and repairs from the page.

use std::time::{Duration, Instant};

use super::support::browser::Browser;
use super::support::serve::Serve;
use super::support::servers::SqliteDb;

const VIEW: &str = "view-token-for-the-browser-012345";
const OPERATE: &str = "operate-token-for-the-browser-0123";
const COUNT: &str = "SELECT count(*) FROM orders";
const CONFIG: &str = "[endpoints.a]\nurl = \"env:SOURCE\"\n[endpoints.b]\nurl = \"env:TARGET\"\n\
    [pairs.p]\nsource = \"a\"\ntarget = \"b\"\ntables = [\"orders\"]\n\
    [serve]\nview_token = \"env:VIEW\"\noperate_token = \"env:OPERATE\"\n\
    [checks.rows]\npair = \"p\"\nkind = \"rows\"\nschedule = \"every 1h\"\nrepair = \"dry_run\"\n\
    [checks.counts]\npair = \"p\"\nkind = \"count\"\nschedule = \"every 1h\"\n";

fn log_in(browser: &mut Browser, url: &str, token: &str) {
    browser.open(&format!("{url}/login"));
    browser.eval("document.getElementById('token').focus()");
    browser.type_text(token);
    browser.press_enter();
    assert_eq!(browser.text("document.title"), "Overview · trueup");
}

/// Presses the button with this text, as a person does who has moved to it with the keyboard.
fn press(browser: &mut Browser, label: &str) {
    browser.eval(&format!(
        "[...document.querySelectorAll('button')].find(b => b.textContent === '{label}').focus()"
    ));
    browser.press_enter();
}

/// Looks at the page again until the check's last result is this one; its runs so far.
fn until_result(browser: &mut Browser, url: &str, result: &str, runs: usize) {
    let began = Instant::now();
    loop {
        browser.open(&format!("{url}/check?name=rows"));
        let found =
            browser.eval("[...document.querySelectorAll('tbody tr')].map(r => r.cells[2].textContent)");
        let found = found.as_array().unwrap();
        if found.len() >= runs && found[0] == result {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "no {result}: {found:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn an_operator_repairs_from_the_page() {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, amount INTEGER)");
        db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO orders SELECT i, i * 3 FROM n");
    }
    target.execute("DELETE FROM orders WHERE id BETWEEN 100 AND 119");
    let dir = tempfile::tempdir().unwrap();
    let (config, ledger) = (dir.path().join("trueup.toml"), dir.path().join("ledger.db"));
    std::fs::write(&config, CONFIG).unwrap();
    let (from, to) = (source.url(), target.url());
    let env = [("SOURCE", from.as_str()), ("TARGET", to.as_str()), ("VIEW", VIEW), ("OPERATE", OPERATE)];
    let mut serve = Serve::start(&config, ledger.to_str().unwrap(), &env);
    let url = format!("http://{}", serve.address);

    let mut browser = Browser::start();
    log_in(&mut browser, &url, VIEW);
    until_result(&mut browser, &url, "fail", 1);
    assert_eq!(browser.eval("document.querySelectorAll('form[action=\"/act\"]').length"), 0);
    // Health and metrics are not behind the login of people; the metrics have the token as a header.
    assert_eq!(serve.get("/healthz", "").0, 200);
    assert_eq!(serve.get("/metrics", "").0, 401);
    assert_eq!(serve.get("/metrics", &format!("authorization: Bearer {VIEW}\r\n")).0, 200);
    assert_eq!(serve.get("/runs", "").0, 303);

    browser.eval("document.querySelector('form[action=\"/logout\"] button').focus()");
    browser.press_enter();
    log_in(&mut browser, &url, OPERATE);
    browser.open(&format!("{url}/check?name=counts"));
    assert_eq!(
        browser.eval("document.querySelectorAll('form[action=\"/act\"]').length"),
        1,
        "it repairs nothing"
    );
    browser.open(&format!("{url}/check?name=rows"));
    press(&mut browser, "Run rows");
    assert!(
        browser.text("document.querySelector('[role=status]').textContent").starts_with("That was asked for")
    );
    until_result(&mut browser, &url, "fail", 2);
    assert_eq!(target.scalar(COUNT).as_deref(), Some("480"));

    // Fewer than differ: nothing is written.
    browser.eval("document.querySelector('input[name=up_to]').value = 19");
    press(&mut browser, "Repair what rows finds");
    until_result(&mut browser, &url, "fail", 3);
    assert_eq!(target.scalar(COUNT).as_deref(), Some("480"));
    browser.eval("document.querySelector('input[name=up_to]').value = 20");
    press(&mut browser, "Repair what rows finds");
    until_result(&mut browser, &url, "pass", 4);
    assert_eq!(target.scalar(COUNT).as_deref(), Some("500"));

    // The run tells where the rows were, and who asked for it.
    browser.eval("document.querySelector('tbody td:last-child a').focus()");
    browser.press_enter();
    let page = browser.text("document.body.innerText");
    assert!(page.contains("Where in the order of keys") && page.contains("inserted"), "{page}");
    let asked = browser.text("document.querySelector('details').textContent");
    assert!(asked.contains("an operator at 127.0.0.1"), "{asked}");
    serve.signal("TERM");
    assert_eq!(serve.wait(), 0);
    assert!(!serve.log().contains(VIEW) && !serve.log().contains(OPERATE));
}
