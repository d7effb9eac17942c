//! The part of a run's page that shows a backfill: rows per step on both sides, and what was filled.

use maud::{Markup, html};

use super::look::{outcome, t, wide};
use super::picture;
use crate::report::backfill::{BackfillTable, StepRow};
use crate::report::render::grouped;

/// Steps and chunks that are named one by one.
const LINES_MAX: usize = 200;

pub(super) fn section(name: &str, table: &BackfillTable) -> Markup {
    let before: Vec<(u64, u64)> = table.steps.iter().map(|step| (step.source, step.target)).collect();
    let after: Vec<(u64, u64)> = table
        .steps
        .iter()
        .map(|step| (step.source_after.unwrap_or(step.source), step.target_after.unwrap_or(step.target)))
        .collect();
    let filled = table.steps.iter().any(|step| step.target_after.is_some());
    html! {
        h3 { "Rows per step" }
        p.note {
            "By " (t(&table.column)) ", in steps of " (t(&table.step))
            @if let Some(zone) = &table.time_zone { " (" (t(zone)) ")" }
            ": " (t(&table.from)) " .. " (t(&table.to))
        }
        (picture::steps("Before", &before))
        @if filled { (picture::steps("After", &after)) }
        (gaps(name, &table.steps))
        (chunks(name, table))
    }
}

fn gaps(name: &str, steps: &[StepRow]) -> Markup {
    let gaps: Vec<&StepRow> = steps.iter().filter(|step| step.differs() || step.differs_after()).collect();
    if gaps.is_empty() {
        return html! { p { "Both sides have as many rows in every step." } };
    }
    let after = |rows: Option<u64>| rows.map_or_else(|| "not read again".to_owned(), grouped);
    html! {
        (wide(&format!("Steps that differ: {name}"), &html! {
            table {
                thead { tr {
                    th scope="col" { "Step" } th.n scope="col" { "Source" } th.n scope="col" { "Target" }
                    th.n scope="col" { "Source after" } th.n scope="col" { "Target after" }
                } }
                tbody {
                    @for step in gaps.iter().take(LINES_MAX) {
                        tr {
                            th scope="row" { (t(&step.from)) " .. " (t(&step.to)) }
                            td.n { (grouped(step.source)) } td.n { (grouped(step.target)) }
                            td.n { (after(step.source_after)) } td.n { (after(step.target_after)) }
                        }
                    }
                }
            }
        }))
        (more(gaps.len()))
    }
}

fn chunks(name: &str, table: &BackfillTable) -> Markup {
    if table.chunks.is_empty() {
        return Markup::default();
    }
    html! {
        h3 { "What was filled" }
        (wide(&format!("What was filled: {name}"), &html! {
            table {
                thead { tr {
                    th scope="col" { "Steps" } th scope="col" { "Verdict" } th.n scope="col" { "Written" } th.n scope="col" { "Left" }
                } }
                tbody {
                    @for chunk in table.chunks.iter().take(LINES_MAX) {
                        tr {
                            th scope="row" { (t(&chunk.from)) " .. " (t(&chunk.to)) }
                            td { (outcome(chunk.verdict.as_str())) }
                            td.n { (grouped(chunk.inserted + chunk.updated + chunk.deleted)) }
                            td.n { (grouped(chunk.left + chunk.set_aside)) }
                        }
                    }
                }
            }
        }))
        (more(table.chunks.len()))
    }
}

fn more(lines: usize) -> Markup {
    html! { @if lines > LINES_MAX { p.note { "And " (grouped((lines - LINES_MAX) as u64)) " more, which the reports have." } } }
}
