//! The part of a run's page that shows a backfill: rows per step on both sides, and what was filled.

use std::fmt::Write;

use super::backfill::{BackfillTable, StepRow};
use super::page::{class, esc};
use super::render::grouped;

/// Columns of the picture; more steps share one.
const BARS_MAX: usize = 120;
const WIDTH: usize = 960;
const HEIGHT: u64 = 120;
/// Chunks and gaps that are named one by one.
const LINES_MAX: usize = 500;

pub(super) fn section(out: &mut String, table: &BackfillTable) {
    let zone = table.time_zone.as_ref().map_or_else(String::new, |zone| format!(", {zone}"));
    let _ = writeln!(
        out,
        "<h3>Rows per step</h3>\n<p class=\"note\">By {}, in steps of {}{}: {} .. {}</p>",
        esc(&table.column),
        esc(&table.step),
        esc(&zone),
        esc(&table.from),
        esc(&table.to)
    );
    let before = |step: &StepRow| (step.source, step.target);
    let after =
        |step: &StepRow| (step.source_after.unwrap_or(step.source), step.target_after.unwrap_or(step.target));
    if !table.claim.is_empty() {
        let _ = writeln!(out, "<p>{}</p>", esc(&table.claim));
    }
    for hidden in &table.hidden_rows {
        let _ = writeln!(out, "<p class=\"note\">Not known: {}</p>", esc(hidden));
    }
    picture(out, "Before", &table.steps, before);
    if table.steps.iter().any(|step| step.target_after.is_some()) {
        picture(out, "After", &table.steps, after);
    }
    gaps(out, table);
    chunks(out, table);
}

/// Two bars a column: the source's rows behind, the target's before them.
fn picture(out: &mut String, title: &str, steps: &[StepRow], counts: impl Fn(&StepRow) -> (u64, u64)) {
    if steps.is_empty() {
        return;
    }
    let share = steps.len().div_ceil(BARS_MAX);
    let bars: Vec<(u64, u64)> = steps
        .chunks(share)
        .map(|steps| steps.iter().map(&counts).fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1)))
        .collect();
    let most = bars.iter().map(|(source, target)| *source.max(target)).max().unwrap_or(0).max(1);
    let height =
        |rows: u64| u64::try_from(u128::from(rows) * u128::from(HEIGHT) / u128::from(most)).unwrap_or(HEIGHT);
    let differing = bars.iter().filter(|(source, target)| source != target).count();
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{title}: {differing} of {} columns differ in their number of \
         rows\"><text x=\"0\" y=\"14\">{title}: source behind, target before it, at most {} rows</text>",
        HEIGHT + 24,
        bars.len(),
        grouped(most)
    );
    let each = WIDTH / bars.len();
    for (at, (source, target)) in bars.iter().enumerate() {
        for (rows, color, inset) in
            [(*source, "soft", 0), (*target, if source == target { "a" } else { "bad" }, 1)]
        {
            let tall = height(rows).max(u64::from(rows > 0));
            let _ = write!(
                out,
                "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{tall}\" style=\"fill:var(--{color})\"/>",
                at * each + inset,
                24 + HEIGHT - tall,
                each.saturating_sub(1 + 2 * inset).max(1)
            );
        }
    }
    *out += "</svg>\n";
}

fn gaps(out: &mut String, table: &BackfillTable) {
    let gaps: Vec<&StepRow> =
        table.steps.iter().filter(|step| step.differs() || step.differs_after()).collect();
    if gaps.is_empty() {
        *out += "<p>Counts agree in every step.</p>\n";
        return;
    }
    *out += "<table><thead><tr><th scope=\"col\">Step</th><th scope=\"col\">Source</th><th scope=\"col\">Target</th>\
             <th scope=\"col\">Source after</th><th scope=\"col\">Target after</th></tr></thead><tbody>\n";
    for step in gaps.iter().take(LINES_MAX) {
        let after = |rows: Option<u64>| rows.map_or_else(|| "not read again".to_owned(), grouped);
        let _ = writeln!(
            out,
            "<tr><td>{} .. {}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            esc(&step.from),
            esc(&step.to),
            grouped(step.source),
            grouped(step.target),
            after(step.source_after),
            after(step.target_after)
        );
    }
    *out += "</tbody></table>\n";
    more(out, gaps.len());
}

fn chunks(out: &mut String, table: &BackfillTable) {
    if table.chunks.is_empty() {
        return;
    }
    *out += "<h3>What was compared and filled</h3>\n<table><thead><tr><th scope=\"col\">Steps</th><th scope=\"col\">Verdict</th>\
             <th scope=\"col\">Written</th><th scope=\"col\">Left</th><th scope=\"col\">Root of the source</th>\
             <th scope=\"col\">Root of the target after</th></tr></thead><tbody>\n";
    for chunk in table.chunks.iter().take(LINES_MAX) {
        let verdict = chunk.verdict.as_str();
        let _ = writeln!(
            out,
            "<tr><td>{} .. {}</td><td class=\"{}\">{verdict}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td><code>{}</code></td><td><code>{}</code></td></tr>",
            esc(&chunk.from),
            esc(&chunk.to),
            class(verdict),
            grouped(chunk.inserted + chunk.updated + chunk.deleted),
            grouped(chunk.left + chunk.set_aside),
            esc(&chunk.source_root),
            esc(chunk.repaired_root.as_deref().unwrap_or(&chunk.target_root))
        );
    }
    *out += "</tbody></table>\n";
    more(out, table.chunks.len());
}

fn more(out: &mut String, lines: usize) {
    if lines > LINES_MAX {
        let _ = writeln!(out, "<p class=\"note\">And {} more.</p>", grouped((lines - LINES_MAX) as u64));
    }
}
