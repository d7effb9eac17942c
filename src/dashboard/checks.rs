//! Checks: the last result of each, and the history of one.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Html;
use maud::{Markup, html};

use super::look::{Frame, Oops, enc, outcome, run_link, t, time, wide};
use super::session::{Right, Session};
use super::{Offer, Site, act, picture};
use crate::ledger::{CheckFilter, CheckRecord};
use crate::report::checks::CheckResult;

const HISTORY: u64 = 200;

pub(super) async fn page(
    State(site): State<Arc<Site>>,
    Extension(session): Extension<Option<Session>>,
) -> Result<Html<String>, Oops> {
    let session = session.ok_or_else(|| Oops::refused("log in first"))?;
    let latest = site.ledger().latest_checks().await?;
    let schedule = site.ledger().schedule_rows().await?;
    let offers = offers(&site, &session).await;
    let body = html! {
        @if latest.is_empty() {
            p.note { "No check has run yet. " code { "trueup check" } " and " code { "trueup serve" } " run those of trueup.toml." }
        } @else { (table("Checks", &latest)) }
        @if !schedule.is_empty() {
            h2 { "Schedule" }
            (wide("Schedule", &html! {
                table {
                    thead { tr { th scope="col" { "Check" } th scope="col" { "Due next (UTC)" } th scope="col" { "Last run" } } }
                    tbody {
                        @for row in &schedule {
                            tr {
                                th scope="row" { (check_link(&row.name)) }
                                td {
                                    @match (&row.owner, &row.due) {
                                        (Some(_), _) => "runs now",
                                        (None, Some(due)) => (time(due)),
                                        (None, None) => "only by hand",
                                    }
                                }
                                td { @if let Some(run) = &row.last_run { (run_link(run)) } }
                            }
                        }
                    }
                }
            }))
        }
        @if !offers.is_empty() {
            h2 { "Start" }
            @for offer in &offers { p { (t(&offer.check)) ": " (act::buttons(offer, &session)) } }
        }
    };
    Ok(Frame::new("Checks", "/checks", &session).live().page(&body))
}

/// What this session may start.
async fn offers(site: &Site, session: &Session) -> Vec<Offer> {
    match (&site.settings.actions, session.right) {
        (Some(actions), Right::Operate) => actions.offers().await,
        _ => Vec::new(),
    }
}

fn check_link(name: &str) -> Markup {
    html! { a href={ "/check?name=" (enc(name)) } { (t(name)) } }
}

pub(super) fn table(label: &str, records: &[CheckRecord]) -> Markup {
    let rows: Vec<_> = records
        .iter()
        .map(|record| (record.at.as_str(), Some(record.run.as_str()), &record.result))
        .collect();
    results(label, &rows)
}

/// Results with their times and, where they are not all of one run, their runs.
pub(super) fn results(label: &str, rows: &[(&str, Option<&str>, &CheckResult)]) -> Markup {
    wide(
        label,
        &html! {
            table {
                thead { tr {
                    th scope="col" { "Check" } th scope="col" { "Table" } th scope="col" { "Result" }
                    th scope="col" { "What was found" } th scope="col" { "Severity" } th scope="col" { "Owner" }
                    th scope="col" { "At (UTC)" } th scope="col" { "Run" }
                } }
                tbody {
                    @for (at, run, result) in rows {
                        tr {
                            th scope="row" { (check_link(&result.name)) }
                            td { (t(result.table.as_deref().unwrap_or("–"))) }
                            td { (outcome(result.status.as_str())) }
                            td { (t(&result.facts())) }
                            td { (t(&result.severity)) }
                            td { (t(result.owner.as_deref().unwrap_or("–"))) }
                            td { (time(at)) }
                            td { @match run { Some(run) => (run_link(run)), None => "this" } }
                        }
                    }
                }
            }
        },
    )
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    name: String,
    asked: String,
}

pub(super) async fn history(
    State(site): State<Arc<Site>>,
    Extension(session): Extension<Option<Session>>,
    Query(wanted): Query<Wanted>,
) -> Result<Html<String>, Oops> {
    let session = session.ok_or_else(|| Oops::refused("log in first"))?;
    let filter =
        CheckFilter { name: Some(wanted.name.clone()), limit: Some(HISTORY), ..CheckFilter::default() };
    let records = site.ledger().check_history(&filter).await?;
    let offers = offers(&site, &session).await;
    let offer = offers.iter().find(|offer| offer.check == wanted.name);
    let title = format!("Check {}", wanted.name);
    let body = html! {
        @if !wanted.asked.is_empty() {
            p role="status" { "That was asked for. It is among the runs as soon as it has begun." }
        }
        @if let Some(offer) = offer { p { (act::buttons(offer, &session)) } }
        @if records.is_empty() { p.note { "It has not run yet." } } @else { (body(&records)) }
    };
    Ok(Frame::new(&title, "/checks", &session).live().page(&body))
}

fn body(records: &[CheckRecord]) -> Markup {
    let marks: Vec<(&str, &str)> =
        records.iter().rev().map(|record| (record.at.as_str(), record.result.status.as_str())).collect();
    let held = records.iter().filter(|record| record.result.status.exit_status() == 0).count();
    let label = format!("The last {} results, the oldest first: {held} of them hold", records.len());
    html! {
        p { (label) "." }
        (picture::strip(&label, &marks))
        h2 { "Results" }
        (table("Results", records))
        @if records.len() as u64 == HISTORY { p.note { "Older results are not shown." } }
    }
}
