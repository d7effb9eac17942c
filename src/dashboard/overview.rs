//! The first page: what is wrong, what runs, what ran last.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Html;
use maud::{Markup, html};

use super::look::{Frame, Oops, run_link, runs_table, t};
use super::session::Session;
use super::{Progress, Site, alerts, checks};
use crate::ledger::RunFilter;
use crate::report::checks::Status;
use crate::report::render::grouped;

const RUNS: u64 = 10;
const INCIDENTS: u64 = 50;

pub(super) async fn page(
    State(site): State<Arc<Site>>,
    Extension(session): Extension<Option<Session>>,
) -> Result<Html<String>, Oops> {
    let session = session.ok_or_else(|| Oops::refused("log in first"))?;
    let ledger = site.ledger();
    let runs = ledger.runs(&RunFilter { limit: Some(RUNS), ..RunFilter::default() }).await?;
    let open = ledger
        .runs(&RunFilter { outcome: Some("open".into()), limit: Some(RUNS), ..RunFilter::default() })
        .await?;
    let incidents = ledger.incidents(true, INCIDENTS).await?;
    let latest = ledger.latest_checks().await?;
    let all = latest.len();
    let failing: Vec<_> = latest
        .into_iter()
        .filter(|check| matches!(check.result.status, Status::Fail | Status::Unknown))
        .collect();
    let (waiting, given_up) = ledger.outbox_depth().await?;
    let entries = ledger.head().await?.seq;
    let progress = match &site.settings.actions {
        Some(actions) => actions.progress().await,
        None => Vec::new(),
    };
    let body = html! {
        ul.cards {
            (card(incidents.len(), "open alerts", "/alerts"))
            (card(failing.len(), &format!("of {all} checks do not hold"), "/checks"))
            (card(open.len(), "runs not ended", "/runs?outcome=open"))
            @if waiting + given_up > 0 {
                li { strong { (grouped(waiting)) } "messages wait, " (grouped(given_up)) " were given up" }
            }
            li { strong { (grouped(entries.unsigned_abs())) } a href="/audit" { "entries in the audit trail" } }
        }
        @if !progress.is_empty() { h2 { "Under way" } (under_way(&progress)) }
        @if !incidents.is_empty() { h2 { "Open alerts" } (alerts::table("Open alerts", &incidents)) }
        @if !failing.is_empty() { h2 { "Checks that do not hold" } (checks::table("Checks that do not hold", &failing)) }
        h2 { "Latest runs" }
        (runs_table("Latest runs", &runs))
    };
    Ok(Frame::new("Overview", "/", &session).live().page(&body))
}

fn card(count: usize, what: &str, path: &str) -> Markup {
    html! { li { strong { (grouped(count as u64)) } a href=(path) { (what) } } }
}

fn under_way(all: &[Progress]) -> Markup {
    html! {
        ul {
            @for one in all {
                li {
                    (t(&one.what)) " (" (run_link(&one.run)) "): " (grouped(one.done))
                    @if let Some(total) = one.total { " of " (grouped(total)) }
                    " rows"
                }
            }
        }
    }
}
