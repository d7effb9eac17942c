//! The report of an undo, for people.

use std::fmt::Write;

use super::render::grouped;
use super::{RunReport, Verdict};

pub fn text(report: &RunReport, undoes: &str, dry_run: bool) -> String {
    let mut out = String::new();
    for table in &report.tables {
        let outcome = &table.outcome;
        let verdict = match table.verdict {
            Verdict::Unknown => "not known",
            _ if dry_run && table.outcome.undo_limits.is_empty() => "would be taken back",
            _ if dry_run => "would be taken back in part",
            Verdict::Same => "taken back",
            Verdict::Different => "taken back in part",
        };
        let _ = writeln!(out, "{}: {verdict}", table.name());
        for warning in &table.warnings {
            let _ = writeln!(out, "  note: {warning}");
        }
        for limit in &table.outcome.undo_limits {
            let _ = writeln!(out, "  not taken back: {limit}");
        }
        if let Some(error) = &table.error {
            let _ = writeln!(out, "  error: {}", error.message);
            if let Some(hint) = &error.hint {
                let _ = writeln!(out, "  hint: {hint}");
            }
            continue;
        }
        let facts: Vec<String> = [
            (outcome.left, "rows would be put back"),
            (outcome.inserted, "deleted rows inserted again"),
            (outcome.updated, "rows set back"),
            (outcome.deleted, "inserted rows deleted again"),
            (outcome.in_flight, "held already what they held before"),
            (outcome.altered, "do not hold all that they held before"),
            (outcome.moved_on, "changed since, left as they are"),
            (outcome.set_aside, "refused"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", grouped(count)))
        .collect();
        let facts = if facts.is_empty() { "nothing to do".to_owned() } else { facts.join(", ") };
        let _ = writeln!(out, "  {facts}");
        for row in &table.rows_set_aside {
            let _ = writeln!(out, "  ! {}", row.text("rows"));
        }
    }
    match &report.run {
        _ if dry_run => {
            let _ = writeln!(out, "nothing was written; take it back with: trueup undo {undoes}");
        }
        Some(run) => {
            let _ = writeln!(out, "run {run} took back run {undoes}");
        }
        None => {}
    }
    out
}
