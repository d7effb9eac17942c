//! A run's evidence as one HTML page for the auditor: nothing is loaded, it prints, dark and light. All text is escaped.

use std::fmt::Write;

use super::export::{
    CHECK_HEADINGS, check_cells, counts, facts, options, plan_columns, proof, roots, trail_text,
};
use super::record::{Evidence, TableRecord};
use super::render::{bytes, grouped, heat_level};

/// Pairs that stand out enough on both backgrounds; the words beside them say the same.
const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1a1d21;--paper:#fff;--soft:#5a6270;--line:#d5d9e0;--good:#1a7f37;--bad:#b42318;--open:#8a5a00;
--a:#1f6feb;--b:#a15c00;--c:#a40e6f}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--paper:#14171b;--soft:#a3acba;--line:#343b45;--good:#4ac26b;--bad:#ff8a80;
--open:#e3b341;--a:#6cb0ff;--b:#f0a75b;--c:#f08cc8}}
*{box-sizing:border-box}body{margin:0 auto;max-width:70rem;padding:2rem 1.25rem;background:var(--paper);color:var(--ink);
font:1rem/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;margin:0 0 .25rem}h2{font-size:1.2rem;margin:2.5rem 0 .5rem;border-bottom:1px solid var(--line);padding-bottom:.25rem}
h3{font-size:1rem;margin:1.25rem 0 .4rem}table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
th{color:var(--soft);font-weight:600}td.n{text-align:right;font-variant-numeric:tabular-nums}
code{font:.86em ui-monospace,monospace;overflow-wrap:anywhere}.same{color:var(--good)}.different,.failed,.fault{color:var(--bad)}
.unknown,.open,.interrupted{color:var(--open)}.note{color:var(--soft)}svg{width:100%;height:auto;max-width:40rem}
svg text{fill:var(--ink);font:13px system-ui,sans-serif}
@media print{:root{--ink:#000;--paper:#fff;--soft:#444;--line:#bbb;--good:#135d29;--bad:#8f1b12;--open:#6b4500;--a:#0b4fb3;--b:#7d4700;--c:#7d0a54}
body{max-width:none;padding:0;font-size:10pt}h2{break-after:avoid}tr,svg{break-inside:avoid}}";

/// Text that is nothing but text.
pub(crate) fn esc(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            // Characters that turn the reading direction could show another name than is there.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            c if c.is_control() && c != '\n' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A known word for a class; never what was read from anywhere.
pub(crate) fn class(outcome: &str) -> &'static str {
    match outcome {
        "same" | "pass" | "within_tolerance" => "same",
        "different" | "fail" => "different",
        "failed" => "failed",
        "interrupted" => "interrupted",
        "unknown" => "unknown",
        _ => "open",
    }
}

fn row(out: &mut String, name: &str, value: &str) {
    let _ = writeln!(out, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", esc(name), esc(value));
}

pub fn html(evidence: &Evidence) -> String {
    let run = &evidence.run;
    let outcome = run.outcome_text();
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>trueup: {kind} {id}</title><style>{STYLE}</style></head><body>\n\
         <h1>{kind}: <span class=\"{class}\">{outcome}</span></h1>\n<p class=\"note\">{source} → {target}, {started}</p>\n",
        kind = esc(&run.kind),
        id = esc(&run.id),
        class = class(outcome),
        outcome = esc(outcome),
        source = esc(&run.source),
        target = esc(&run.target),
        started = esc(&run.started_at),
    );
    out += "<h2>The run</h2>\n<table>\n";
    facts(&evidence.run, &evidence.undone_by).iter().for_each(|(name, value)| row(&mut out, name, value));
    out += "</table>\n";
    let options = options(&evidence.run);
    if !options.is_empty() {
        out += "<h3>What was asked for</h3>\n<table>\n";
        options.iter().for_each(|(name, value)| row(&mut out, name, value));
        out += "</table>\n";
    }
    checks(&mut out, evidence);
    if run.tables.len() > 1 {
        overview(&mut out, &run.tables);
    }
    run.tables.iter().for_each(|table| section(&mut out, table));
    trail(&mut out, evidence);
    out += "</body></html>\n";
    out
}

fn checks(out: &mut String, evidence: &Evidence) {
    if evidence.run.checks.is_empty() {
        return;
    }
    *out += "<h2>Checks</h2>\n<table><thead><tr>";
    for heading in CHECK_HEADINGS {
        let _ = write!(out, "<th scope=\"col\">{heading}</th>");
    }
    *out += "</tr></thead><tbody>\n";
    for check in &evidence.run.checks {
        let class = class(check.status.as_str());
        *out += "<tr>";
        for (at, cell) in check_cells(check).iter().enumerate() {
            let class = if at == 3 { format!(" class=\"{class}\"") } else { String::new() };
            let _ = write!(out, "<td{class}>{}</td>", esc(cell));
        }
        *out += "</tr>\n";
    }
    *out += "</tbody></table>\n";
}

fn overview(out: &mut String, tables: &[TableRecord]) {
    *out += "<h2>Tables</h2>\n<table><thead><tr><th scope=\"col\">Table</th><th scope=\"col\">Verdict</th>\
             <th scope=\"col\">Differed</th><th scope=\"col\">Written</th><th scope=\"col\">Left</th></tr></thead><tbody>\n";
    for table in tables {
        let o = &table.outcome;
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td class=\"{}\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            esc(&table.name()),
            class(&table.verdict),
            esc(&table.verdict),
            grouped(o.differences()),
            grouped(o.inserted + o.updated + o.deleted),
            grouped(o.left + o.set_aside + o.moved_on)
        );
    }
    *out += "</tbody></table>\n";
}

fn section(out: &mut String, table: &TableRecord) {
    let o = &table.outcome;
    let _ = writeln!(
        out,
        "<h2>Table {}: <span class=\"{}\">{}</span></h2>",
        esc(&table.name()),
        class(&table.verdict),
        esc(&table.verdict)
    );
    for warning in &table.warnings {
        let _ = writeln!(out, "<p class=\"note\">Note: {}</p>", esc(warning));
    }
    if let Some(error) = &table.error {
        let _ = writeln!(out, "<p class=\"failed\">Error: {}</p>", esc(&error.message));
    }
    if let Some(columns) = table.columns().filter(|columns| !columns.summary().is_empty()) {
        let class = if columns.differs() { "different" } else { "note" };
        let _ = writeln!(out, "<p class=\"{class}\">Columns: {}</p>", esc(&columns.summary()));
    }
    chart(
        out,
        "What differed",
        &[("missing", o.missing, "a"), ("changed", o.changed, "b"), ("extra", o.extra, "c")],
    );
    heat(out, &o.by_range);
    chart(
        out,
        "What was done",
        &[
            ("inserted", o.inserted, "a"),
            ("updated", o.updated, "b"),
            ("deleted", o.deleted, "c"),
            ("not written", o.left, "soft"),
            ("set aside", o.set_aside, "bad"),
            ("moved on", o.moved_on, "open"),
        ],
    );
    *out += "<h3>Rows</h3>\n<table><tbody>\n";
    for (what, count) in counts(table) {
        let _ =
            writeln!(out, "<tr><th scope=\"row\">{what}</th><td class=\"n\">{}</td></tr>", grouped(count));
    }
    *out += "</tbody></table>\n<h3>Proof</h3>\n";
    let _ = writeln!(out, "<p>{}</p>\n<table><tbody>", esc(&proof(table)));
    for (what, root) in roots(table) {
        let _ =
            writeln!(out, "<tr><th scope=\"row\">root, {what}</th><td><code>{}</code></td></tr>", esc(root));
    }
    let _ = writeln!(
        out,
        "</tbody></table>\n<p class=\"note\">{} over the link in {} round trips, {:.1} s.</p>",
        bytes(o.bytes_to_source + o.bytes_to_target),
        grouped(o.round_trips),
        table.seconds()
    );
    if let Some(backfill) = &table.backfill {
        super::steps_page::section(out, backfill);
    }
    plan(out, table);
    differences(out, table);
}

/// Where in the order of keys rows differ: one cell a part, darker where more do.
fn heat(out: &mut String, parts: &[u64]) {
    let most = parts.iter().copied().max().unwrap_or(0);
    if most == 0 || parts.len() < 2 {
        return;
    }
    let touched = parts.iter().filter(|count| **count > 0).count();
    let each = 640 / parts.len();
    let _ = write!(
        out,
        "<h3>Where in the order of keys</h3>\n<svg viewBox=\"0 0 640 44\" role=\"img\" aria-label=\"{touched} of {} parts \
         of the key range have differences, the most in one is {}\">",
        parts.len(),
        grouped(most)
    );
    for (at, count) in parts.iter().enumerate() {
        let (x, width, depth) = (
            at * each,
            each.saturating_sub(1).max(1),
            [".15", ".35", ".55", ".75", "1"][heat_level(*count, most)],
        );
        let _ = write!(
            out,
            "<rect style=\"fill:var(--{})\" x=\"{x}\" y=\"2\" width=\"{width}\" height=\"24\" fill-opacity=\"{depth}\">\
             <title>part {}: {}</title></rect>",
            if *count > 0 { "bad" } else { "soft" },
            at + 1,
            grouped(*count)
        );
    }
    let end = each * parts.len();
    *out += "<text x=\"0\" y=\"42\">first key</text>";
    let _ = writeln!(out, "<text x=\"{end}\" y=\"42\" text-anchor=\"end\">last key</text></svg>");
}

/// Bars of counts. The longest is the whole width; a count above nothing is at least visible.
fn chart(out: &mut String, title: &str, bars: &[(&str, u64, &str)]) {
    let most = bars.iter().map(|(_, count, _)| *count).max().unwrap_or(0);
    if most == 0 {
        return;
    }
    let spoken: Vec<String> =
        bars.iter().map(|(name, count, _)| format!("{name} {}", grouped(*count))).collect();
    let _ = write!(
        out,
        "<h3>{title}</h3>\n<svg viewBox=\"0 0 640 {}\" role=\"img\" aria-label=\"{title}: {}\">",
        bars.len() * 24,
        spoken.join(", ")
    );
    for (at, (name, count, color)) in bars.iter().enumerate() {
        let width = u64::try_from(u128::from(*count) * 400 / u128::from(most))
            .unwrap_or(400)
            .max(u64::from(*count > 0) * 2);
        let y = at * 24;
        let _ = write!(
            out,
            "<text x=\"0\" y=\"{}\">{name}</text><rect x=\"110\" y=\"{}\" width=\"{width}\" height=\"16\" rx=\"2\" \
             style=\"fill:var(--{color})\"/><text x=\"{}\" y=\"{}\">{}</text>",
            y + 16,
            y + 3,
            width + 118,
            y + 16,
            grouped(*count)
        );
    }
    *out += "</svg>\n";
}

fn plan(out: &mut String, table: &TableRecord) {
    let Some(plan) = &table.plan else { return };
    let _ = writeln!(
        out,
        "<h3>Plan</h3>\n<p class=\"note\">Fingerprint <code>{}</code>, encoding {}.</p>",
        esc(table.plan_fingerprint.as_deref().unwrap_or_default()),
        plan.encoding_version
    );
    for (side, condition) in [("source", &plan.source_where), ("target", &plan.target_where)] {
        if let Some(condition) = condition {
            let _ = writeln!(out, "<p>Only rows of the {side} where <code>{}</code></p>", esc(condition));
        }
    }
    *out += "<table><thead><tr><th scope=\"col\">Source</th><th scope=\"col\">Target</th>\
             <th scope=\"col\">Compared as</th></tr></thead><tbody>\n";
    for [source, target, compared, _] in plan_columns(plan) {
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            esc(&source),
            esc(&target),
            esc(&compared)
        );
    }
    *out += "</tbody></table>\n";
}

fn differences(out: &mut String, table: &TableRecord) {
    if table.differences.is_empty() {
        return;
    }
    *out += "<h3>Rows that differed or could not be written</h3>\n<table><thead><tr><th scope=\"col\">What</th>\
             <th scope=\"col\">Key, or its keyed hash</th><th scope=\"col\">Columns, or why</th></tr></thead><tbody>\n";
    for difference in &table.differences {
        let more = difference.reason.clone().unwrap_or_else(|| difference.columns.join(", "));
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td><code>{}</code></td><td>{}</td></tr>",
            esc(&difference.kind.replace('_', " ")),
            esc(&difference.key),
            esc(&more)
        );
    }
    let listed = table.differences.iter().filter(|difference| difference.kind != "set_aside").count() as u64;
    *out += "</tbody></table>\n";
    if table.outcome.differences() > listed {
        let more = grouped(table.outcome.differences() - listed);
        let _ = writeln!(out, "<p class=\"note\">And {more} more, beyond the run's --limit.</p>");
    }
}

fn trail(out: &mut String, evidence: &Evidence) {
    let _ = writeln!(out, "<h2>Audit trail</h2>\n<p>{}.</p>", esc(&trail_text(evidence)));
    if !evidence.trail.outcomes.is_empty() {
        *out += "<table><tbody>\n";
        for (what, count) in &evidence.trail.outcomes {
            let _ = writeln!(
                out,
                "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td></tr>",
                esc(what),
                grouped(*count)
            );
        }
        *out += "</tbody></table>\n";
    }
    if evidence.trail.faults.is_empty() {
        *out += "<p class=\"same\">The whole trail was verified for this report: no entry is altered, missing or reordered.</p>\n";
    } else {
        *out += "<p class=\"fault\">The trail is damaged:</p>\n<ul>\n";
        for fault in &evidence.trail.faults {
            let _ = writeln!(out, "<li class=\"fault\">{}</li>", esc(fault));
        }
        *out += "</ul>\n";
    }
    *out += "<p class=\"note\">Verify it yourself: <code>trueup audit verify</code>. The rows' values are in no part of this \
             evidence.</p>\n";
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
