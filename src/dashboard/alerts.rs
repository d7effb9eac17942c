//! What is wrong at present and what was, and the messages about it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Html;
use maud::{Markup, html};

use super::Site;
use super::look::{Frame, Oops, enc, run_link, t, time, wide};
use super::session::Session;
use crate::ledger::{Finding, Incident, IncidentState, OutboxRow};
use crate::report::render::grouped;

const INCIDENTS: u64 = 100;
const MESSAGES: u64 = 50;

pub(super) async fn page(
    State(site): State<Arc<Site>>,
    Extension(session): Extension<Option<Session>>,
) -> Result<Html<String>, Oops> {
    let session = session.ok_or_else(|| Oops::refused("log in first"))?;
    let (open, others): (Vec<_>, Vec<_>) = site
        .ledger()
        .incidents(false, INCIDENTS)
        .await?
        .into_iter()
        .partition(|incident| incident.state == IncidentState::Open);
    let messages = site.ledger().outbox(MESSAGES).await?;
    let body = html! {
        h2 { "Open" }
        @if open.is_empty() { p { "Nothing is known to be wrong." } } @else { (table("Open alerts", &open)) }
        @if !others.is_empty() { h2 { "Resolved" } (table("Resolved alerts", &others)) }
        @if !messages.is_empty() { h2 { "Messages" } (sent(&messages)) }
    };
    Ok(Frame::new("Alerts", "/alerts", &session).live().page(&body))
}

pub(super) fn table(label: &str, incidents: &[Incident]) -> Markup {
    wide(
        label,
        &html! {
            table {
                thead { tr {
                    th scope="col" { "Check" } th scope="col" { "Severity" } th scope="col" { "What was found" }
                    th scope="col" { "Owner" } th scope="col" { "Since (UTC)" } th scope="col" { "Seen last" }
                    th scope="col" { "Resolved" } th.n scope="col" { "Failures" } th scope="col" { "Run" }
                } }
                tbody {
                    @for incident in incidents {
                        @let result = &incident.result;
                        tr {
                            th scope="row" { a href={ "/check?name=" (enc(&result.name)) } { (t(&result.title())) } }
                            td { (t(&result.severity)) }
                            td { (t(&result.facts())) (history(incident)) }
                            td { (t(result.owner.as_deref().unwrap_or("–"))) }
                            td { (time(&incident.opened_at)) }
                            td { (time(&incident.seen_at)) }
                            td { @match &incident.resolved_at { Some(at) => (time(at)), None => "open" } }
                            td.n { (grouped(incident.failures)) }
                            td { (run_link(&incident.run)) }
                        }
                    }
                }
            }
        },
    )
}

/// What was found first and at the worst, where that is something else.
fn history(incident: &Incident) -> Markup {
    let (first, worst) = (&incident.first, &incident.worst);
    let told = |what: &str, finding: &Finding| {
        html! { br; (what) ": " (t(&finding.result.facts())) " (" (run_link(&finding.run)) ", " (time(&finding.at)) ")" }
    };
    html! {
        @if first.run != incident.run { (told("At first", first)) }
        @if worst.run != incident.run && worst.run != first.run { (told("At its worst", worst)) }
    }
}

/// Without the messages' bodies: the channels have those.
fn sent(messages: &[OutboxRow]) -> Markup {
    wide(
        "Messages",
        &html! {
            table {
                thead { tr {
                    th scope="col" { "Channel" } th scope="col" { "About" } th scope="col" { "Made (UTC)" }
                    th.n scope="col" { "Attempts" } th scope="col" { "State" }
                } }
                tbody {
                    @for message in messages {
                        tr {
                            th scope="row" { (t(&message.channel)) }
                            td { (t(&message.incident)) }
                            td { (time(&message.created_at)) }
                            td.n { (grouped(message.attempts)) }
                            td {
                                @match (&message.sent_at, &message.given_up_at) {
                                    (Some(at), _) => { "sent " (time(at)) },
                                    (None, Some(at)) => { span.failed { "given up " (time(at)) } },
                                    (None, None) => "waits",
                                }
                                @if let (Some(error), None) = (&message.error, &message.sent_at) { ": " (t(error)) }
                            }
                        }
                    }
                }
            }
        },
    )
}
