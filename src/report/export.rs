//! A run's evidence as Markdown and as CSV.

use std::fmt::Write;

use super::checks::CheckResult;
use super::record::{Evidence, RunRecord, TableRecord};
use super::render::{bytes, grouped};
use crate::model::{ColumnCoverage, Plan};

/// The facts of a run, for every format.
pub(crate) fn facts(run: &RunRecord, undone_by: &[String]) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("Run", run.id.clone()),
        ("Kind", run.kind.clone()),
        ("Outcome", run.outcome_text().to_owned()),
        ("By", format!("{} on {}", run.who, run.host)),
        ("With", run.software.clone()),
        ("Started", run.started_at.clone()),
        (
            "Ended",
            run.ended_at.clone().unwrap_or_else(|| "not ended: it runs, or was stopped by force".into()),
        ),
        ("Source", run.source.clone()),
        ("Target", run.target.clone()),
    ];
    let mut add = |name, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            facts.push((name, value));
        }
    };
    add("Error", run.error.clone());
    add("Takes back run", run.undoes.clone());
    add("Taken back by", Some(undone_by.join(", ")));
    add("Only in the source", Some(run.only_in_source.join(", ")));
    add("Only in the target", Some(run.only_in_target.join(", ")));
    facts
}

/// The counts of a table, in the order of the work.
pub(crate) fn counts(table: &TableRecord) -> Vec<(&'static str, u64)> {
    let outcome = &table.outcome;
    vec![
        ("source rows", outcome.source_rows),
        ("target rows", outcome.target_rows),
        ("missing", outcome.missing),
        ("changed", outcome.changed),
        ("extra", outcome.extra),
        ("in flight", outcome.in_flight),
        ("unsettled", outcome.unsettled),
        ("within tolerance", outcome.tolerated),
        ("inserted", outcome.inserted),
        ("updated", outcome.updated),
        ("deleted", outcome.deleted),
        ("not written", outcome.left),
        ("set aside", outcome.set_aside),
        ("moved on", outcome.moved_on),
    ]
}

/// What the roots say.
pub(crate) fn proof(table: &TableRecord) -> String {
    let outcome = &table.outcome;
    let wrote = outcome.inserted + outcome.updated + outcome.deleted > 0;
    let said = match (&outcome.repaired_root, outcome.proved && table.error.is_none()) {
        _ if outcome.source_root.is_empty() && wrote => "rows were written, nothing was proved",
        _ if outcome.source_root.is_empty() => return "nothing was read".to_owned(),
        (Some(_), true) if outcome.tolerated > 0 => {
            "proved: after the repair no row differs by more than the tolerance"
        }
        (Some(_), true) => "proved: after the repair the target's root is the source's",
        (Some(_), false) => "not proved: after the repair the roots differ, or rows were left",
        (None, true) if outcome.source_root == outcome.target_root => "proved: the roots are equal",
        (None, true) => "proved: the differences found explain both roots exactly",
        (None, false) if wrote => "rows were written, not proved",
        (None, false) => "not proved",
    };
    match table.columns().and_then(ColumnCoverage::headline) {
        Some(headline) => format!("{said} ({headline})"),
        None => said.to_owned(),
    }
}

pub(crate) fn roots(table: &TableRecord) -> Vec<(&'static str, &str)> {
    let outcome = &table.outcome;
    let mut roots =
        vec![("source", outcome.source_root.as_str()), ("target before", outcome.target_root.as_str())];
    roots.extend(outcome.repaired_root.as_deref().map(|root| ("target after", root)));
    roots.retain(|(_, root)| !root.is_empty());
    roots
}

/// Each column pair of a plan: source, target, declared types, and what they were compared as.
pub(crate) fn plan_columns(plan: &Plan) -> Vec<[String; 4]> {
    plan.columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let compared = serde_json::to_value(&column.comparison).unwrap_or_default();
            let compared = match compared {
                serde_json::Value::String(name) => name,
                other => other.to_string().replace(['{', '}', '"'], ""),
            };
            let key = if at < plan.key_len { "key, " } else { "" };
            let text = if column.as_text { " (the databases' own text)" } else { "" };
            [
                format!("{} {}", column.source, column.source_declared),
                format!("{} {}", column.target, column.target_declared),
                format!("{key}{compared}{text}"),
                format!("{:?}", column.target_filled),
            ]
        })
        .collect()
}

pub(super) const CHECK_HEADINGS: [&str; 7] =
    ["Check", "Table", "Kind", "Result", "What was found", "Severity", "Owner"];

pub(super) fn check_cells(check: &CheckResult) -> [String; 7] {
    [
        check.name.clone(),
        check.table.clone().unwrap_or_default(),
        check.kind.clone(),
        check.status.as_str().replace('_', " "),
        check.facts(),
        check.severity.clone(),
        check.owner.clone().unwrap_or_default(),
    ]
}

/// What was asked for, but for what is empty or off.
pub(crate) fn options(run: &RunRecord) -> Vec<(String, String)> {
    let serde_json::Value::Object(options) = &run.options else { return Vec::new() };
    options
        .iter()
        .filter(|(_, value)| match value {
            serde_json::Value::Null | serde_json::Value::Bool(false) => false,
            serde_json::Value::Array(all) => !all.is_empty(),
            serde_json::Value::Object(all) => !all.is_empty(),
            _ => true,
        })
        .map(|(name, value)| {
            let value = match value {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            (name.replace('_', " "), value)
        })
        .collect()
}

pub(crate) fn trail_text(evidence: &Evidence) -> String {
    let trail = &evidence.trail;
    if trail.entries == 0 {
        return "retention has removed this run's entries from the audit trail".to_owned();
    }
    format!(
        "{} entries, {} to {}, the last with hash {}",
        grouped(trail.entries),
        trail.first,
        trail.last,
        trail.hash
    )
}

/// Text that Markdown takes as it stands.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' => out.extend(['\\', c]),
            '&' => out += "&amp;",
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

pub fn markdown(evidence: &Evidence) -> String {
    let mut out = format!("# Run {}\n\n| | |\n| --- | --- |\n", plain(&evidence.run.id));
    for (name, value) in facts(&evidence.run, &evidence.undone_by).into_iter().skip(1) {
        let _ = writeln!(out, "| {name} | {} |", plain(&value));
    }
    for (name, value) in options(&evidence.run) {
        let _ = writeln!(out, "| Option: {} | {} |", plain(&name), plain(&value));
    }
    if !evidence.run.checks.is_empty() {
        let _ = writeln!(
            out,
            "\n## Checks\n\n| {} |\n|{}",
            CHECK_HEADINGS.join(" | "),
            " --- |".repeat(CHECK_HEADINGS.len())
        );
        for check in &evidence.run.checks {
            let _ = writeln!(out, "| {} |", check_cells(check).map(|cell| plain(&cell)).join(" | "));
        }
    }
    for table in &evidence.run.tables {
        table_markdown(&mut out, table);
    }
    let _ = writeln!(out, "\n## Audit trail\n\n{}.\n", plain(&trail_text(evidence)));
    for (what, count) in &evidence.trail.outcomes {
        let _ = writeln!(out, "- {}: {} rows", plain(what), grouped(*count));
    }
    match evidence.trail.faults.as_slice() {
        [] => {
            out +=
                "\nThe whole trail was verified for this report: no entry is altered, missing or reordered.\n"
        }
        faults => {
            out += "\nThe trail is DAMAGED:\n\n";
            for fault in faults {
                let _ = writeln!(out, "- {}", plain(fault));
            }
        }
    }
    out
}

fn table_markdown(out: &mut String, table: &TableRecord) {
    let _ = writeln!(out, "\n## Table {}: {}\n", plain(&table.name()), plain(&table.verdict));
    for warning in &table.warnings {
        let _ = writeln!(out, "- note: {}", plain(warning));
    }
    if let Some(error) = &table.error {
        let _ = writeln!(out, "- error: {}", plain(&error.message));
    }
    for line in table.columns().into_iter().flat_map(ColumnCoverage::lines) {
        let _ = writeln!(out, "- {}", plain(&line));
    }
    let _ = writeln!(out, "- {}", proof(table));
    for (what, root) in roots(table) {
        let _ = writeln!(out, "- root, {what}: `{root}`");
    }
    let outcome = &table.outcome;
    let _ = writeln!(
        out,
        "- {} over the link, {:.1} s\n\n| rows | |\n| --- | --- |",
        bytes(outcome.bytes_to_source + outcome.bytes_to_target),
        table.seconds()
    );
    for (what, count) in counts(table) {
        let _ = writeln!(out, "| {what} | {} |", grouped(count));
    }
    if let Some(plan) = &table.plan {
        let _ = writeln!(out, "\nPlan {}:\n", table.plan_fingerprint.as_deref().unwrap_or_default());
        for (side, condition) in [("source", &plan.source_where), ("target", &plan.target_where)] {
            if let Some(condition) = condition {
                let _ = writeln!(out, "- only rows of the {side} where {}", plain(condition));
            }
        }
        out.push_str("\n| source | target | compared as |\n| --- | --- | --- |\n");
        for [source, target, compared, _] in plan_columns(plan) {
            let _ = writeln!(out, "| {} | {} | {} |", plain(&source), plain(&target), plain(&compared));
        }
    }
    if !table.differences.is_empty() {
        out.push_str("\n| difference | key | columns or reason |\n| --- | --- | --- |\n");
        for difference in &table.differences {
            let more = difference.reason.clone().unwrap_or_else(|| difference.columns.join(", "));
            let _ = writeln!(
                out,
                "| {} | {} | {} |",
                plain(&difference.kind),
                plain(&difference.key),
                plain(&more)
            );
        }
    }
}

/// One line a table. A spreadsheet must not take a name for a formula.
pub fn csv(evidence: &Evidence) -> String {
    let run = &evidence.run;
    let mut out = String::from(
        "run,kind,who,host,started_at,ended_at,run_outcome,source,target,source_table,target_table,verdict,plan",
    );
    let names = counts(&TableRecord::default());
    for (name, _) in names {
        let _ = write!(out, ",{}", name.replace(' ', "_"));
    }
    out += ",proved,source_root,target_root,repaired_root,bytes,seconds,error,columns_compared,columns_total,columns_unpaired\r\n";
    for table in &run.tables {
        let outcome = &table.outcome;
        let text = |text: &str| field(text);
        let mut fields: Vec<String> = [
            run.id.as_str(),
            &run.kind,
            &run.who,
            &run.host,
            &run.started_at,
            run.ended_at.as_deref().unwrap_or_default(),
            run.outcome_text(),
            &run.source,
            &run.target,
            &table.source_table,
            &table.target_table,
            &table.verdict,
            table.plan_fingerprint.as_deref().unwrap_or_default(),
        ]
        .map(text)
        .to_vec();
        fields.extend(counts(table).into_iter().map(|(_, count)| count.to_string()));
        fields.push(outcome.proved.to_string());
        fields.extend([text(&outcome.source_root), text(&outcome.target_root)]);
        fields.push(text(outcome.repaired_root.as_deref().unwrap_or_default()));
        fields.push((outcome.bytes_to_source + outcome.bytes_to_target).to_string());
        fields.push(format!("{:.3}", table.seconds()));
        fields.push(text(table.error.as_ref().map_or("", |error| &error.message)));
        let columns = table.columns().cloned().unwrap_or_default();
        fields.extend([columns.compared, columns.total].map(|count| count.to_string()));
        fields.push(text(&columns.lines().join("; ")));
        out += &fields.join(",");
        out += "\r\n";
    }
    out
}

fn field(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    if guard.is_empty() && !text.contains([',', '"', '\n', '\r']) {
        return text.to_owned();
    }
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out() {
        assert_eq!(field("a"), "a");
        assert_eq!(field("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(field("=1+1"), "\"'=1+1\"");
        assert_eq!(plain("a|b\n<i>"), "a\\|b \\<i\\>");
    }
}
