//! What all pages share: frame, style, times, outcomes, and what stands where something went wrong.

use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, Render, html};

use super::session::{Right, Session};
use crate::ledger::LedgerError;
use crate::report::page::{class, esc};
use crate::report::record::RunRecord;

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/live.js");
const ICON: &str = include_str!("assets/favicon.svg");

/// The pages of the menu.
const MENU: &[(&str, &str)] = &[
    ("/", "Overview"),
    ("/runs", "Runs"),
    ("/checks", "Checks"),
    ("/alerts", "Alerts"),
    ("/audit", "Audit trail"),
];

/// Text that is nothing but text: no tags, nothing that turns the reading direction.
struct Text<'a>(&'a str);

impl Render for Text<'_> {
    fn render_to(&self, into: &mut String) {
        into.push_str(&esc(self.0));
    }
}

pub(super) fn t(text: &str) -> impl Render {
    Text(text)
}

/// A page around its content.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    title: &'a str,
    /// Its place in the menu.
    here: &'static str,
    session: Option<&'a Session>,
    /// Loaded again by itself.
    live: bool,
}

impl<'a> Frame<'a> {
    pub(super) fn new(title: &'a str, here: &'static str, session: &'a Session) -> Self {
        Self { title, here, session: Some(session), live: false }
    }

    /// Without a session.
    pub(super) fn open(title: &'a str) -> Self {
        Self { title, here: "", session: None, live: false }
    }

    pub(super) fn live(self) -> Self {
        Self { live: true, ..self }
    }

    pub(super) fn page(&self, body: &Markup) -> Html<String> {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width,initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (t(self.title)) " · trueup" }
                    link rel="icon" href="/favicon.svg" type="image/svg+xml";
                    link rel="stylesheet" href="/style.css";
                    @if self.live { script src="/live.js" defer {} }
                }
                body {
                    a.skip href="#main" { "Skip to the content" }
                    header {
                        p.brand { a href="/" { "trueup" } }
                        @if let Some(session) = self.session { (self.menu(session)) }
                    }
                    main #main tabindex="-1" data-live[self.live] {
                        h1 { (t(self.title)) }
                        (body)
                    }
                }
            }
        };
        Html(page.into_string())
    }

    fn menu(&self, session: &Session) -> Markup {
        html! {
            nav aria-label="Pages" {
                ul {
                    @for (path, name) in MENU {
                        li { a href=(path) aria-current=[(*path == self.here).then_some("page")] { (name) } }
                    }
                }
            }
            div.who {
                @if self.live { button #live type="button" hidden { "Pause updates" } }
                span { @match session.right { Right::View => "May view", Right::Operate => "May operate" } }
                form method="post" action="/logout" { (word(session)) button type="submit" { "Log out" } }
            }
        }
    }
}

/// The hidden field without which no form is taken.
pub(super) fn word(session: &Session) -> Markup {
    html! { input type="hidden" name="word" value=(session.word); }
}

/// A time as the ledger writes it, to the second.
pub(super) fn time(at: &str) -> Markup {
    let shown = match at.split_once('T') {
        Some((day, clock)) => format!("{day} {}", clock.split(['.', 'Z']).next().unwrap_or_default()),
        None => at.to_owned(),
    };
    html! { time datetime=(t(at)) { (t(&shown)) } }
}

pub(super) fn outcome(word: &str) -> Markup {
    html! { span.outcome.(class(word)) { (t(&word.replace('_', " "))) } }
}

/// An id by its end: ids of one time begin alike.
pub(super) fn short(id: &str) -> &str {
    let start = id.len().saturating_sub(12);
    if id.is_char_boundary(start) { &id[start..] } else { id }
}

/// A path segment or a query's value.
pub(super) fn enc(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

pub(super) fn run_link(id: &str) -> Markup {
    html! { a href={ "/runs/" (enc(id)) } title=(t(id)) { code { (t(short(id))) } } }
}

/// A table that may be wider than the window: it is then moved by itself, with the keyboard too.
pub(super) fn wide(label: &str, table: &Markup) -> Markup {
    html! { div.wide role="region" aria-label=(t(label)) tabindex="0" { (table) } }
}

pub(super) fn runs_table(label: &str, runs: &[RunRecord]) -> Markup {
    if runs.is_empty() {
        return html! { p.note { "No runs." } };
    }
    wide(
        label,
        &html! {
            table {
                thead { tr {
                    th scope="col" { "Run" } th scope="col" { "Outcome" } th scope="col" { "Kind" }
                    th scope="col" { "Started (UTC)" } th scope="col" { "By" } th scope="col" { "Source → target" }
                } }
                tbody {
                    @for run in runs {
                        tr {
                            th scope="row" { (run_link(&run.id)) }
                            td { (outcome(run.outcome_text())) }
                            td { (t(&run.kind)) }
                            td { (time(&run.started_at)) }
                            td { (t(&run.who)) " on " (t(&run.host)) }
                            td { (t(&run.source)) " → " (t(&run.target)) }
                        }
                    }
                }
            }
        },
    )
}

/// Why there is no page.
#[derive(Debug)]
pub(super) struct Oops {
    status: StatusCode,
    what: String,
}

impl Oops {
    pub(super) fn new(status: StatusCode, what: impl Into<String>) -> Self {
        Self { status, what: what.into() }
    }

    pub(super) fn refused(what: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, what)
    }
}

impl From<LedgerError> for Oops {
    fn from(error: LedgerError) -> Self {
        let is_unknown =
            error.what.starts_with("the ledger has no run") || error.what.starts_with("more than one run");
        let status = if is_unknown { StatusCode::NOT_FOUND } else { StatusCode::INTERNAL_SERVER_ERROR };
        Self::new(status, format!("{}: {}", error.what, error.hint))
    }
}

impl IntoResponse for Oops {
    fn into_response(self) -> Response {
        let title = match self.status {
            StatusCode::NOT_FOUND => "There is no such page",
            StatusCode::INTERNAL_SERVER_ERROR | StatusCode::SERVICE_UNAVAILABLE => "This cannot be shown now",
            _ => "This is not done",
        };
        let body = html! { p { (t(&self.what)) } p { a href="/" { "To the overview" } } };
        (self.status, Frame::open(title).page(&body)).into_response()
    }
}

pub(super) async fn nothing_here() -> Oops {
    std::future::ready(Oops::new(StatusCode::NOT_FOUND, "This dashboard has no such page.")).await
}

/// Changes with the program alone.
fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=600")], text).into_response()
}

pub(super) async fn style() -> Response {
    std::future::ready(asset("text/css; charset=utf-8", STYLE)).await
}

pub(super) async fn script() -> Response {
    std::future::ready(asset("text/javascript; charset=utf-8", SCRIPT)).await
}

pub(super) async fn icon() -> Response {
    std::future::ready(asset("image/svg+xml", ICON)).await
}
