//! The audit trail, and whether it is whole.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Extension;
use axum::extract::{Query, State};
use axum::response::{Html, Redirect};
use maud::{Markup, html};

use super::Site;
use super::look::{Frame, Oops, enc, run_link, t, time, wide, word};
use super::session::Session;
use crate::ledger::{EntryFilter, LedgerError, Link, Verification};
use crate::report::render::grouped;

const PAGE: i64 = 100;
const PAGE_LEN: usize = 100;
/// A trail up to this long is verified whenever it is looked at; a longer one when asked for.
const ENTRIES_AT_ONCE: i64 = 20_000;
/// And not again for so long.
const FRESH: Duration = Duration::from_secs(20);

/// What a verification said, and when.
#[derive(Debug, Clone)]
pub(super) struct Verified {
    at: SystemTime,
    said: Verification,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    run: String,
    table: String,
    /// The first entry's number, counted back from the newest.
    upto: Option<i64>,
    /// With a filter: entries behind this one.
    after: Option<i64>,
}

pub(super) async fn page(
    State(site): State<Arc<Site>>,
    Extension(session): Extension<Option<Session>>,
    Query(wanted): Query<Wanted>,
) -> Result<Html<String>, Oops> {
    let session = session.ok_or_else(|| Oops::refused("log in first"))?;
    let head = site.ledger().head().await?;
    let verified = latest(&site, head.seq).await?;
    let Found { entries, next, unknown } = entries(&site, &wanted, head.seq).await?;
    let body = html! {
        h2 { "Is it whole?" }
        (verdict(verified.as_ref()))
        form.inline method="post" action="/audit/verify" { (word(&session)) button type="submit" { "Verify now" } }
        p.note { "The head: " code { (t(&head.to_string())) } ". Who has noted it elsewhere can prove later that nothing before it was rewritten." }
        h2 { "Entries" }
        (form(&wanted))
        @if let Some(error) = &unknown { p.unknown { (t(&error.what)) ": " (t(&error.hint)) } }
        (table(&entries))
        @if let Some(next) = next { div.pages { a href=(next) rel="next" { "Further entries" } } }
    };
    Ok(Frame::new("Audit trail", "/audit", &session).page(&body))
}

pub(super) async fn verify(State(site): State<Arc<Site>>) -> Result<Redirect, Oops> {
    let mut held = site.verified.lock().await;
    *held = Some(made(&site).await?);
    Ok(Redirect::to("/audit"))
}

async fn made(site: &Site) -> Result<Verified, LedgerError> {
    let said = site.ledger().verify(None).await?;
    Ok(Verified { at: site.now(), said })
}

async fn latest(site: &Site, entries: i64) -> Result<Option<Verified>, LedgerError> {
    let mut held = site.verified.lock().await;
    let is_fresh = held
        .as_ref()
        .is_some_and(|last| site.now().duration_since(last.at).is_ok_and(|passed| passed < FRESH));
    if !is_fresh && entries <= ENTRIES_AT_ONCE {
        *held = Some(made(site).await?);
    }
    Ok(held.clone())
}

fn verdict(verified: Option<&Verified>) -> Markup {
    let Some(Verified { at, said }) = verified else {
        return html! { p.unknown { "It is long, and has not been verified since this dashboard was started." } };
    };
    let at = humantime::format_rfc3339_seconds(*at).to_string();
    html! {
        @if said.faults.is_empty() {
            p { span.outcome.same { "Whole" } ": no entry is altered, missing or reordered. " (grouped(said.entries)) " entries, verified " (time(&at)) " UTC." }
        } @else {
            p { span.outcome.failed { "Damaged" } ", verified " (time(&at)) " UTC:" }
            ul { @for fault in &said.faults { li.fault { (t(&fault.to_string())) } } }
        }
        @if !said.open_runs.is_empty() {
            p { "Runs that have not ended, or were stopped by force: " @for run in &said.open_runs { (run_link(run)) " " } }
        }
    }
}

/// A page of entries.
#[derive(Default)]
struct Found {
    /// The newest first where nothing is filtered.
    entries: Vec<Link>,
    /// The address of the next page.
    next: Option<String>,
    /// The table that was asked for is not known.
    unknown: Option<LedgerError>,
}

async fn entries(site: &Site, wanted: &Wanted, head: i64) -> Result<Found, Oops> {
    let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let mut filter = EntryFilter::default();
    if let Some(table) = given(&wanted.table) {
        filter.tables = match site.ledger().tables_named(&table).await {
            Ok(tables) => tables,
            Err(error) => return Ok(Found { unknown: Some(error), ..Found::default() }),
        };
    }
    if let Some(run) = given(&wanted.run) {
        // A run that retention has removed has its entries still.
        filter.run = Some(site.ledger().run(&run).await.map_or(run, |found| found.id));
    }
    if filter.run.is_some() || !filter.tables.is_empty() {
        let after = wanted.after.unwrap_or(0);
        let found = site.ledger().entries(after, PAGE, &filter).await?;
        let last = found.last().map(|link| link.entry.seq).filter(|_| found.len() == PAGE_LEN);
        let next = last
            .map(|last| format!("/audit?run={}&table={}&after={last}", enc(&wanted.run), enc(&wanted.table)));
        return Ok(Found { entries: found, next, unknown: None });
    }
    let upto = wanted.upto.unwrap_or(head).clamp(0, head);
    let mut found = site.ledger().entries((upto - PAGE).max(0), PAGE.min(upto), &filter).await?;
    found.retain(|link| link.entry.seq <= upto);
    found.reverse();
    let next = (upto > PAGE && !found.is_empty()).then(|| format!("/audit?upto={}", upto - PAGE));
    Ok(Found { entries: found, next, unknown: None })
}

fn form(wanted: &Wanted) -> Markup {
    html! {
        form.filter method="get" action="/audit" {
            label { "Run" input name="run" value=(t(&wanted.run)) autocomplete="off"; }
            label { "Table" input name="table" value=(t(&wanted.table)) autocomplete="off"; }
            button type="submit" { "Show" }
            a href="/audit" { "All" }
        }
    }
}

fn table(entries: &[Link]) -> Markup {
    if entries.is_empty() {
        return html! { p.note { "No entries." } };
    }
    wide(
        "Entries",
        &html! {
            table {
                thead { tr {
                    th.n scope="col" { "Number" } th scope="col" { "At (UTC)" } th scope="col" { "By" } th scope="col" { "Run" }
                    th scope="col" { "What" } th scope="col" { "Table" } th scope="col" { "Key, or its keyed hash" } th scope="col" { "Outcome" }
                } }
                tbody {
                    @for Link { entry, .. } in entries {
                        tr {
                            th.n scope="row" { (entry.seq) }
                            td { (time(&entry.at)) }
                            td { (t(&entry.who)) " on " (t(&entry.host)) }
                            td { @if !entry.run.is_empty() { (run_link(&entry.run)) } }
                            td { (t(&entry.kind)) " " (t(&entry.operation)) }
                            td { (t(&entry.table)) }
                            td { @if entry.kind == "rows" { (grouped(entry.rows() as u64)) " rows" } @else { code { (t(&entry.key)) } } }
                            td { (t(&entry.outcome)) }
                        }
                    }
                }
            }
        },
    )
}
