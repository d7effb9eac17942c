//! Requests as a browser, a stranger and a page elsewhere would send them, against a ledger on disk.

use std::sync::Mutex;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use tower::ServiceExt;

use super::*;
use crate::agent::TableOutcome;
use crate::ledger::{Finding, Incident, IncidentState, RunEnd, RunStart};
use crate::report::checks::{CheckResult, Status};
use crate::report::record::{DifferenceRecord, TableRecord};

const VIEW: &str = "view-token-of-the-tests";
const OPERATE: &str = "operate-token-of-the-tests";
const EVIL: &str = "<script>alert(1)</script>\"'&\u{202e}";

/// Remembers what was asked of it.
#[derive(Debug, Default)]
struct Noted(Mutex<Vec<(Action, String)>>);

#[async_trait]
impl Actions for Noted {
    async fn offers(&self) -> Vec<Offer> {
        vec![Offer { check: "totals".into(), repair: None }, Offer { check: EVIL.into(), repair: Some(50) }]
    }

    async fn start(&self, action: Action, by: &str) -> Result<(), String> {
        self.0.lock().unwrap().push((action, by.to_owned()));
        Ok(())
    }

    async fn progress(&self) -> Vec<Progress> {
        vec![Progress { run: "run-1".into(), what: EVIL.into(), done: 1_500, total: Some(3_000) }]
    }
}

struct Bed {
    _dir: tempfile::TempDir,
    ledger: Ledger,
    router: Router,
    actions: Option<Arc<Noted>>,
}

async fn bed(with_actions: bool) -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_file(&dir.path().join("ledger.db"), true).await.unwrap();
    let token = |text| PeerToken::new(text, "the tests").unwrap();
    let actions = with_actions.then(|| Arc::new(Noted::default()));
    let dashboard = Dashboard::new(Settings {
        ledger: ledger.clone(),
        tokens: Tokens { view: token(VIEW), operate: Some(token(OPERATE)) },
        hosts: Vec::new(),
        actions: actions.clone().map(|actions| actions as Arc<dyn Actions>),
        now: SystemTime::now,
    });
    Bed { _dir: dir, ledger, router: router(dashboard), actions }
}

fn start(id: &str, text: &str) -> RunStart {
    RunStart {
        id: id.into(),
        kind: "diff".into(),
        who: text.into(),
        host: text.into(),
        process: String::new(),
        software: text.into(),
        started_at: "2026-01-02T03:04:05.678Z".into(),
        source: text.into(),
        target: text.into(),
        target_reference: String::new(),
        writes: false,
        undoes: None,
        options: serde_json::json!({ text: text }),
    }
}

fn end(text: &str) -> RunEnd {
    let check = CheckResult {
        name: text.into(),
        kind: text.into(),
        pair: text.into(),
        table: Some(text.into()),
        status: Status::Fail,
        severity: text.into(),
        owner: Some(text.into()),
        source: Some(text.into()),
        target: Some(text.into()),
        difference: Some(text.into()),
        message: Some(text.into()),
        hint: Some(text.into()),
        extent: None,
        columns: None,
        notes: Vec::new(),
        seconds: 0.5,
    };
    let table = TableRecord {
        source_table: text.into(),
        target_table: text.into(),
        verdict: text.into(),
        plan_fingerprint: Some(text.into()),
        outcome: TableOutcome {
            missing: 3,
            source_root: text.into(),
            target_root: text.into(),
            ..TableOutcome::default()
        },
        warnings: vec![text.into()],
        error: Some(crate::report::TableError {
            kind: text.into(),
            side: None,
            message: text.into(),
            hint: Some(text.into()),
        }),
        differences: vec![DifferenceRecord {
            kind: text.into(),
            key: text.into(),
            columns: vec![text.into()],
            reason: Some(text.into()),
        }],
        ..TableRecord::default()
    };
    RunEnd {
        ended_at: "2026-01-02T03:04:06.000Z".into(),
        outcome: "different".into(),
        error: Some(text.into()),
        only_in_source: vec![text.into()],
        tables: vec![table.clone(), table],
        checks: vec![check],
        ..RunEnd::default()
    }
}

impl Bed {
    async fn recorded(&self, id: &str, text: &str) {
        let start = start(id, text);
        self.ledger.begin(&start).await.unwrap();
        self.ledger.finish(&start, &end(text)).await.unwrap();
    }

    async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn get(&self, path: &str, cookie: &str) -> (StatusCode, String) {
        let request = Request::get(path).header(header::HOST, "localhost").header(header::COOKIE, cookie);
        let response = self.send(request.body(Body::empty()).unwrap()).await;
        (response.status(), text(response).await)
    }

    async fn post(&self, path: &str, cookie: &str, form: &str) -> Response {
        let request = Request::post(path).header(header::HOST, "localhost").header(header::COOKIE, cookie);
        self.send(request.body(Body::from(form.to_owned())).unwrap()).await
    }

    /// The session's cookie and word.
    async fn login(&self, token: &str) -> (String, String) {
        let request = Request::get("/login").header(header::HOST, "localhost").body(Body::empty()).unwrap();
        let response = self.send(request).await;
        let cookie = cookie_of(&response);
        let word = word_in(&text(response).await);
        let response = self.post("/login", &cookie, &format!("word={word}&token={token}&next=/runs")).await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        assert_eq!(response.headers()[header::LOCATION], "/runs");
        let cookie = cookie_of(&response);
        let (_, page) = self.get("/", &cookie).await;
        (cookie, word_in(&page))
    }
}

async fn text(response: Response) -> String {
    String::from_utf8(to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap()
}

fn cookie_of(response: &Response) -> String {
    let all = response.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
    assert!(all.contains("; HttpOnly; SameSite=Strict"), "{all}");
    all.split(';').next().unwrap().to_owned()
}

fn word_in(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"word\" value=\"").unwrap();
    rest[..64].to_owned()
}

#[tokio::test]
async fn nothing_is_shown_without_the_token() {
    let bed = bed(true).await;
    bed.recorded("run-1", "plain").await;
    for path in [
        "/",
        "/runs",
        "/runs/run-1",
        "/runs/run-1/report.csv",
        "/checks",
        "/check?name=x",
        "/alerts",
        "/audit",
        "/nothing",
    ] {
        let (status, page) = bed.get(path, "trueup=0000").await;
        assert_eq!((status, page.contains("plain")), (StatusCode::SEE_OTHER, false), "{path}");
    }
    for path in ["/act", "/audit/verify", "/logout"] {
        assert_eq!(bed.post(path, "", "word=").await.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    let (cookie, _) = bed.login(VIEW).await;
    assert!(bed.get("/runs/run-1", &cookie).await.1.contains("plain"));
}

#[tokio::test]
async fn wrong_tokens_are_refused_and_counted() {
    let bed = bed(false).await;
    let request = Request::get("/login").header(header::HOST, "localhost").body(Body::empty()).unwrap();
    let response = bed.send(request).await;
    let cookie = cookie_of(&response);
    let word = word_in(&text(response).await);
    for _ in 0..10 {
        let response = bed.post("/login", &cookie, &format!("word={word}&token=wrong")).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
    }
    let response = bed.post("/login", &cookie, &format!("word={word}&token={VIEW}")).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_post_needs_the_sessions_word_and_our_own_page() {
    let bed = bed(true).await;
    let (cookie, word) = bed.login(OPERATE).await;
    let (_, other) = bed.login(OPERATE).await;
    for form in [String::new(), "word=".into(), format!("word={other}"), format!("word={word}0")] {
        for path in ["/act", "/audit/verify", "/logout", "/login", "/"] {
            assert_eq!(bed.post(path, &cookie, &form).await.status(), StatusCode::FORBIDDEN, "{path} {form}");
        }
    }
    let foreign = Request::post("/act")
        .header(header::HOST, "localhost")
        .header(header::COOKIE, &cookie)
        .header(header::ORIGIN, "https://evil.example")
        .body(Body::from(format!("word={word}&what=check&check=totals")))
        .unwrap();
    assert_eq!(bed.send(foreign).await.status(), StatusCode::FORBIDDEN);
    let long = "a".repeat(20_000);
    assert_eq!(bed.post("/act", &cookie, &long).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(bed.actions.as_ref().unwrap().0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn only_operators_start_and_only_what_is_offered() {
    let bed = bed(true).await;
    let noted = bed.actions.clone().unwrap();
    let (viewer, word) = bed.login(VIEW).await;
    assert!(!bed.get("/checks", &viewer).await.1.contains("/act"));
    let form = |word: &str, what: &str, check: &str| format!("word={word}&what={what}&check={check}");
    let refused = bed.post("/act", &viewer, &form(&word, "check", "totals")).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let (operator, word) = bed.login(OPERATE).await;
    assert!(bed.get("/checks", &operator).await.1.contains("/act"));
    for (what, check) in [("repair", "totals"), ("check", "other"), ("drop", "totals")] {
        let refused = bed.post("/act", &operator, &form(&word, what, check)).await;
        assert_eq!(refused.status(), StatusCode::NOT_FOUND);
    }
    assert!(noted.0.lock().unwrap().is_empty());
    let done = bed.post("/act", &operator, &form(&word, "check", "totals")).await;
    assert_eq!(done.status(), StatusCode::SEE_OTHER);
    let asked = noted.0.lock().unwrap().clone();
    assert_eq!(asked, [(Action::Check { name: "totals".into() }, "an operator".to_owned())]);
    // A repair says how much it may change.
    let repair = form(&word, "repair", &look::enc(&look::enc(EVIL)));
    for up_to in ["", "&up_to=", "&up_to=0", "&up_to=-1", "&up_to=1000001", "&up_to=all"] {
        let refused = bed.post("/act", &operator, &format!("{repair}{up_to}")).await;
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY, "{up_to}");
    }
    let done = bed.post("/act", &operator, &format!("{repair}&up_to=20")).await;
    assert_eq!(done.status(), StatusCode::SEE_OTHER);
    let asked = noted.0.lock().unwrap().last().cloned().unwrap();
    assert_eq!(asked.0, Action::Repair { name: EVIL.into(), up_to: 20 });
}

#[tokio::test]
async fn without_actions_there_are_no_buttons() {
    let bed = bed(false).await;
    let (operator, word) = bed.login(OPERATE).await;
    for path in ["/", "/checks", "/check?name=totals"] {
        assert!(!bed.get(path, &operator).await.1.contains("/act"), "{path}");
    }
    let refused = bed.post("/act", &operator, &format!("word={word}&what=check&check=totals")).await;
    assert_eq!(refused.status(), StatusCode::CONFLICT);
}

#[tokio::test]
async fn names_are_text_on_every_page() {
    let bed = bed(true).await;
    bed.recorded("run-1", EVIL).await;
    bed.recorded("run-2", "plain").await;
    let (cookie, _) = bed.login(OPERATE).await;
    let evil = look::enc(EVIL);
    let paths = [
        "/".to_owned(),
        "/runs".into(),
        format!("/runs?table={evil}"),
        format!("/runs?kind={evil}&outcome={evil}&since={evil}&before={evil}"),
        "/runs/run-1".into(),
        format!("/runs/{evil}"),
        "/checks".into(),
        format!("/check?name={evil}"),
        "/alerts".into(),
        "/audit".into(),
        format!("/audit?run={evil}&table={evil}"),
    ];
    for path in paths {
        let (_, page) = bed.get(&path, &cookie).await;
        assert!(!page.contains("<script>") && !page.contains('\u{202e}'), "{path}");
        assert!(!page.contains(" style=") && !page.contains(" onclick"), "{path}: the policy forbids it");
        assert_eq!(page.matches("<h1>").count(), 1, "{path}");
    }
    for path in ["/runs/run-1", "/checks", "/runs"] {
        assert!(bed.get(path, &cookie).await.1.contains("&lt;script&gt;"), "{path}");
    }
}

#[tokio::test]
async fn every_answer_has_the_headers_and_names_are_checked() {
    let bed = bed(false).await;
    let (cookie, _) = bed.login(VIEW).await;
    for path in ["/", "/login", "/style.css", "/nothing", "/runs/none"] {
        let request = Request::get(path).header(header::HOST, "localhost").header(header::COOKIE, &cookie);
        let response = bed.send(request.body(Body::empty()).unwrap()).await;
        let headers = response.headers();
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{path}");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[header::REFERRER_POLICY], "same-origin");
    }
    let foreign = Request::get("/").header(header::HOST, "evil.example").header(header::COOKIE, &cookie);
    let response = bed.send(foreign.body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
    let far = Request::get("/login").header(header::HOST, "192.0.2.1").body(Body::empty()).unwrap();
    let cookie = bed.send(far).await.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
    assert!(cookie.ends_with("; Secure"), "{cookie}");
}

#[tokio::test]
async fn reports_are_taken_away() {
    let bed = bed(false).await;
    bed.recorded("run-1", EVIL).await;
    let (cookie, _) = bed.login(VIEW).await;
    for (format, begins) in
        [("html", "<!doctype html>"), ("md", "# Run run"), ("csv", "run,kind"), ("json", "{")]
    {
        let request = Request::get(format!("/runs/run-1/report.{format}"))
            .header(header::HOST, "localhost")
            .header(header::COOKIE, &cookie);
        let response = bed.send(request.body(Body::empty()).unwrap()).await;
        let disposition = response.headers()[header::CONTENT_DISPOSITION].to_str().unwrap().to_owned();
        assert_eq!(disposition, format!("attachment; filename=\"trueup-run-1.{format}\""));
        assert!(text(response).await.starts_with(begins), "{format}");
    }
    assert_eq!(bed.get("/runs/run-1/report.exe", &cookie).await.0, StatusCode::NOT_FOUND);
    assert_eq!(bed.get("/runs/none", &cookie).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_table_is_found_without_its_schema_and_an_unknown_one_is_told() {
    let bed = bed(false).await;
    bed.recorded("run-1", "public.orders").await;
    let (cookie, _) = bed.login(VIEW).await;
    for name in ["orders", "public.orders"] {
        let (_, page) = bed.get(&format!("/runs?table={name}"), &cookie).await;
        assert!(page.contains("href=\"/runs/run%2D1\"") && !page.contains("knows no table"), "{page}");
    }
    for path in ["/runs?table=ordrs", "/audit?table=ordrs"] {
        let (status, page) = bed.get(path, &cookie).await;
        assert_eq!(status, StatusCode::OK);
        assert!(page.contains("the ledger knows no table ordrs: did you mean public.orders?"), "{page}");
        assert!(!page.contains("href=\"/runs/run%2D1\""), "{page}");
    }
}

#[tokio::test]
async fn what_was_wrong_stands_beside_a_resolved_alert() {
    let bed = bed(false).await;
    let lost = |rows: &str, status| CheckResult {
        message: Some(rows.into()),
        status,
        ..end("plain").checks.remove(0)
    };
    let found = |run: &str, rows: &str| Finding {
        run: run.into(),
        at: "2026-01-02T03:04:05.000Z".into(),
        result: lost(rows, Status::Fail),
    };
    let incident = Incident {
        key: "plain/plain".into(),
        state: IncidentState::Resolved,
        opened_at: "2026-01-02T03:04:05.000Z".into(),
        seen_at: "2026-01-02T03:14:05.000Z".into(),
        resolved_at: Some("2026-01-02T03:14:05.000Z".into()),
        told_at: None,
        failures: 3,
        passes: 1,
        flaps: 0,
        run: "run-3".into(),
        result: lost("all there", Status::Pass),
        first: found("run-1", "5 missing"),
        worst: found("run-2", "6762 missing"),
    };
    bed.ledger.note(&incident, &[]).await.unwrap();
    let (cookie, _) = bed.login(VIEW).await;
    let (_, page) = bed.get("/alerts", &cookie).await;
    for said in [
        "all there",
        "At first: ",
        "5 missing",
        "At its worst: ",
        "6762 missing",
        "/runs/run%2D1",
        "/runs/run%2D2",
    ] {
        assert!(page.contains(said), "{said}: {page}");
    }
}

#[tokio::test]
async fn pages_follow_each_other() {
    let bed = bed(false).await;
    for n in 0..120 {
        bed.ledger.begin(&start(&format!("run-{n:04}"), "plain")).await.unwrap();
    }
    let (cookie, _) = bed.login(VIEW).await;
    let (mut path, mut seen) = ("/runs?kind=diff".to_owned(), Vec::new());
    loop {
        let (_, page) = bed.get(&path, &cookie).await;
        seen.extend(
            page.split("href=\"/runs/").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()),
        );
        let Some((before, _)) = page.split_once("\" rel=\"next\"") else { break };
        path = before.rsplit_once("href=\"").unwrap().1.replace("&amp;", "&");
    }
    let expected: Vec<String> = (0..120).rev().map(|n| format!("run%2D{n:04}")).collect();
    assert_eq!(seen, expected);
    let (_, newest) = bed.get("/audit", &cookie).await;
    assert!(newest.contains("Whole") && newest.contains("upto=20"));
    let (_, older) = bed.get("/audit?upto=20", &cookie).await;
    assert_eq!(older.matches("<tr>").count(), 21, "the other twenty");
}

#[tokio::test]
async fn damage_to_the_trail_is_shown() {
    let bed = bed(false).await;
    bed.recorded("run-1", "plain").await;
    let file = rusqlite::Connection::open(bed._dir.path().join("ledger.db")).unwrap();
    file.execute("UPDATE trueup_audit SET who = 'eve' WHERE seq = 1", []).unwrap();
    let (cookie, _) = bed.login(VIEW).await;
    let (_, page) = bed.get("/audit", &cookie).await;
    assert!(page.contains("Damaged") && page.contains("entry 1 was altered"));
}
