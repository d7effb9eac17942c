//! One run: what was asked for, and of each table what differed, what was done and the proof. And its report to take away.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use maud::{Markup, html};

use super::look::{Frame, Oops, enc, outcome, run_link, short, t, time, wide};
use super::session::Session;
use super::{Site, checks, picture, steps};
use crate::report::export::{self, counts, plan_columns, proof, roots};
use crate::report::page;
use crate::report::record::{RunRecord, TableRecord};
use crate::report::render::{bytes, grouped};

/// Rows named on the page, of each table; the report has all.
const ROWS_MAX: usize = 200;
const FORMATS: &[(&str, &str)] = &[("html", "HTML"), ("md", "Markdown"), ("csv", "CSV"), ("json", "JSON")];

pub(super) async fn page(
    State(site): State<Arc<Site>>,
    Extension(session): Extension<Option<Session>>,
    Path(id): Path<String>,
) -> Result<Html<String>, Oops> {
    let session = session.ok_or_else(|| Oops::refused("log in first"))?;
    let run = site.ledger().run(&id).await?;
    let undone_by = site.ledger().undone_by(&run.id).await?;
    let title = format!("{} {}", run.kind, short(&run.id));
    let live = run.ended_at.is_none();
    let frame = Frame::new(&title, "/runs", &session);
    let frame = if live { frame.live() } else { frame };
    Ok(frame.page(&body(&run, &undone_by)))
}

pub(super) fn body(run: &RunRecord, undone_by: &[String]) -> Markup {
    let checks_of_run: Vec<_> =
        run.checks.iter().map(|result| (run.started_at.as_str(), None, result)).collect();
    html! {
        p { (outcome(run.outcome_text())) ", " (time(&run.started_at)) " UTC" }
        (links(run))
        h2 { "The run" }
        (facts("The run", &export::facts(run, undone_by)))
        @let options = export::options(run);
        @if !options.is_empty() {
            details {
                summary { "What was asked for" }
                (facts("What was asked for", &options))
            }
        }
        @if !checks_of_run.is_empty() { h2 { "Checks" } (checks::results("Checks of this run", &checks_of_run)) }
        @if run.tables.len() > 1 { h2 { "Tables" } (overview(&run.tables)) }
        @for (at, table) in run.tables.iter().enumerate() { (section(at, table)) }
    }
}

fn links(run: &RunRecord) -> Markup {
    html! {
        ul.plain {
            @for (format, name) in FORMATS {
                li { a href={ "/runs/" (enc(&run.id)) "/report." (format) } download { "Report as " (name) } }
            }
            li { a href={ "/audit?run=" (enc(&run.id)) } { "Its entries in the audit trail" } }
            @if let Some(undoes) = &run.undoes { li { "Takes back " (run_link(undoes)) } }
        }
    }
}

fn facts<N: AsRef<str>>(label: &str, facts: &[(N, String)]) -> Markup {
    wide(
        label,
        &html! {
            table.facts { tbody {
                @for (name, value) in facts { tr { th scope="row" { (t(name.as_ref())) } td { (t(value)) } } }
            } }
        },
    )
}

fn overview(tables: &[TableRecord]) -> Markup {
    wide(
        "Tables",
        &html! {
            table {
                thead { tr {
                    th scope="col" { "Table" } th scope="col" { "Verdict" } th.n scope="col" { "Differed" }
                    th.n scope="col" { "Written" } th.n scope="col" { "Left" }
                } }
                tbody {
                    @for (at, table) in tables.iter().enumerate() {
                        @let o = &table.outcome;
                        tr {
                            th scope="row" { a href={ "#table-" (at) } { (t(&table.name())) } }
                            td { (outcome(&table.verdict)) }
                            td.n { (grouped(o.differences())) }
                            td.n { (grouped(o.inserted + o.updated + o.deleted)) }
                            td.n { (grouped(o.left + o.set_aside + o.moved_on)) }
                        }
                    }
                }
            }
        },
    )
}

/// What is shown, told apart from the same of another table.
fn of(table: &TableRecord, what: &str) -> String {
    format!("{what}: {}", table.name())
}

fn section(at: usize, table: &TableRecord) -> Markup {
    let o = &table.outcome;
    html! {
        section id={ "table-" (at) } {
            h2 { "Table " (t(&table.name())) ": " (outcome(&table.verdict)) }
            @if let Some(columns) = table.columns() {
                @for line in columns.headline().into_iter().chain(columns.lines()) { p.note { "Columns: " (t(&line)) } }
            }
            @for warning in &table.warnings { p.note { "Note: " (t(warning)) } }
            @if let Some(error) = &table.error {
                p.failed { "Error: " (t(&error.message)) }
                @if let Some(hint) = &error.hint { p { "What to do: " (t(hint)) } }
            }
            (picture::bars("What differed", &[("missing", o.missing, "fa"), ("changed", o.changed, "fb"), ("extra", o.extra, "fc")]))
            (picture::heat(&o.by_range))
            (picture::bars("What was done", &[
                ("inserted", o.inserted, "fa"), ("updated", o.updated, "fb"), ("deleted", o.deleted, "fc"),
                ("not written", o.left, "fsoft"), ("set aside", o.set_aside, "fbad"), ("moved on", o.moved_on, "fopen"),
            ]))
            @if let Some(backfill) = &table.backfill { (steps::section(&table.name(), backfill)) }
            h3 { "Rows" }
            (facts(&of(table, "Rows"), &counts(table).into_iter().map(|(what, count)| (what, grouped(count))).collect::<Vec<_>>()))
            h3 { "Proof" }
            p { (t(&proof(table))) "." }
            (roots_table(table))
            p.note {
                (bytes(o.bytes_to_source + o.bytes_to_target)) " over the link in " (grouped(o.round_trips))
                " round trips, " (format!("{:.1}", table.seconds())) " s."
            }
            (plan(table))
            (differences(table))
        }
    }
}

fn roots_table(table: &TableRecord) -> Markup {
    let roots = roots(table);
    if roots.is_empty() {
        return Markup::default();
    }
    wide(
        &of(table, "Roots"),
        &html! {
            table.facts { tbody {
                @for (what, root) in roots { tr { th scope="row" { "root, " (what) } td { code { (t(root)) } } } }
            } }
        },
    )
}

fn plan(table: &TableRecord) -> Markup {
    let Some(plan) = &table.plan else { return Markup::default() };
    html! {
        details {
            summary { "Plan: which columns, compared as what" }
            p.note {
                "Fingerprint " code { (t(table.plan_fingerprint.as_deref().unwrap_or_default())) }
                ", encoding " (plan.encoding_version) "."
            }
            @for (side, condition) in [("source", &plan.source_where), ("target", &plan.target_where)] {
                @if let Some(condition) = condition { p { "Only rows of the " (side) " where " code { (t(condition)) } } }
            }
            (wide(&of(table, "Columns"), &html! {
                table {
                    thead { tr { th scope="col" { "Source" } th scope="col" { "Target" } th scope="col" { "Compared as" } } }
                    tbody {
                        @for [source, target, compared, _] in plan_columns(plan) {
                            tr { td { (t(&source)) } td { (t(&target)) } td { (t(&compared)) } }
                        }
                    }
                }
            }))
        }
    }
}

fn differences(table: &TableRecord) -> Markup {
    if table.differences.is_empty() {
        return Markup::default();
    }
    let named = table.differences.iter().filter(|difference| difference.kind != "set_aside").count() as u64;
    let kept = table.differences.len();
    html! {
        h3 { "Rows that differed or could not be written" }
        (wide(&of(table, "Rows that differed"), &html! {
            table {
                thead { tr {
                    th scope="col" { "What" } th scope="col" { "Key, or its keyed hash" } th scope="col" { "Columns, or why" }
                } }
                tbody {
                    @for difference in table.differences.iter().take(ROWS_MAX) {
                        tr {
                            td { (t(&difference.kind.replace('_', " "))) }
                            td { code { (t(&difference.key)) } }
                            td { (t(&difference.reason.clone().unwrap_or_else(|| difference.columns.join(", ")))) }
                        }
                    }
                }
            }
        }))
        @if kept > ROWS_MAX { p.note { "And " (grouped((kept - ROWS_MAX) as u64)) " more, which the reports have." } }
        @if table.outcome.differences() > named {
            p.note { "And " (grouped(table.outcome.differences() - named)) " more, beyond the run's --limit." }
        }
    }
}

/// The report that `trueup report` makes, to be kept.
pub(super) async fn download(
    State(site): State<Arc<Site>>,
    Path((id, file)): Path<(String, String)>,
) -> Result<Response, Oops> {
    let unknown = || Oops::new(StatusCode::NOT_FOUND, "there are reports as html, md, csv and json");
    let format = file.strip_prefix("report.").ok_or_else(unknown)?.to_owned();
    if !FORMATS.iter().any(|(known, _)| *known == format) {
        return Err(unknown());
    }
    let evidence = {
        // Reads the whole trail: one at a time.
        let _one = site.verified.lock().await;
        site.ledger().evidence(&id).await?
    };
    let (kind, text) = match format.as_str() {
        "html" => ("text/html; charset=utf-8", page::html(&evidence)),
        "md" => ("text/markdown; charset=utf-8", export::markdown(&evidence)),
        "csv" => ("text/csv; charset=utf-8", export::csv(&evidence)),
        _ => {
            let json = serde_json::to_string_pretty(&evidence)
                .map_err(|error| Oops::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
            ("application/json", json + "\n")
        }
    };
    let plain: String = evidence.run.id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let name = format!("attachment; filename=\"trueup-{plain}.{format}\"");
    Ok(([(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, name)], text).into_response())
}
