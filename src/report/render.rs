//! The three formats: text for people, one JSON document, one JSON object a line.

use std::fmt::Write;

use serde::Serialize;

use super::{RunReport, TableReport, Verdict};
use crate::agent::{Difference, DifferenceKind, TableOutcome};
use crate::model::ColumnCoverage;

pub fn json(report: &RunReport) -> String {
    serde_json::to_string_pretty(report).unwrap_or_default() + "\n"
}

/// One line of ndjson, told as soon as it is known.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line<'a> {
    Difference { table: &'a str, difference: &'a Difference },
    SetAside { table: &'a str, reason: &'a str, count: u64, examples: &'a [Vec<(String, String)>] },
    Located { table: &'a str, missing: u64, changed: u64, extra: u64 },
    Table { table: &'a TableReport },
    Run { run: &'a RunReport },
}

pub fn line(line: &Line<'_>) -> String {
    serde_json::to_string(line).unwrap_or_default() + "\n"
}

/// How dark a part of a heat map is: none, then by powers of four of the most, up to 4.
pub(crate) fn heat_level(count: u64, most: u64) -> usize {
    match count {
        0 => 0,
        count if count == most => 4,
        count if count.saturating_mul(4) >= most => 3,
        count if count.saturating_mul(16) >= most => 2,
        _ => 1,
    }
}

/// What was not compared and is named in the text; JSON has all.
const LEFT_OUT_NAMED: usize = 10;

/// How the text is marked; nothing depends on colour alone.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    pub color: bool,
}

impl Style {
    pub(super) fn paint(self, text: &str, code: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

pub fn text(report: &RunReport, style: Style, repaired: bool) -> String {
    let mut out = String::new();
    for table in &report.tables {
        table_text(&mut out, table, style, repaired);
    }
    for (names, side, other) in
        [(&report.only_in_source, "source", "target"), (&report.only_in_target, "target", "source")]
    {
        for name in names {
            let _ = writeln!(out, "{}: only in the {side}, not in the {other}", style.paint(name, "1"));
        }
    }
    if !report.left_out.is_empty() {
        let named: Vec<&str> = report.left_out.iter().take(LEFT_OUT_NAMED).map(String::as_str).collect();
        let more = report.left_out.len() - named.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let _ = writeln!(out, "not compared: {}{more}", named.join(", "));
    }
    if report.tables.len() > 1 {
        let count = |verdict| report.tables.iter().filter(|table| table.verdict == verdict).count();
        let _ = writeln!(
            out,
            "{} tables: {} the same, {} different, {} not known",
            report.tables.len(),
            count(Verdict::Same),
            count(Verdict::Different),
            count(Verdict::Unknown)
        );
    }
    if let Some(run) = &report.run {
        let _ = writeln!(out, "run {run}");
    }
    if let Some(hint) = &report.hint {
        let _ = writeln!(out, "hint: {hint}");
    }
    out
}

/// `3 inserted, 2 updated`.
pub fn written_text(counts: [u64; 3]) -> String {
    let kinds = counts.into_iter().zip(["inserted", "updated", "deleted"]);
    let kinds = kinds.filter(|(count, _)| *count > 0);
    kinds.map(|(count, what)| format!("{} {what}", grouped(count))).collect::<Vec<_>>().join(", ")
}

fn verdict_text(table: &TableReport, repaired: bool) -> (&'static str, &'static str) {
    let outcome = &table.outcome;
    let wrote = outcome.inserted + outcome.updated + outcome.deleted > 0;
    match table.verdict {
        Verdict::Same if repaired && wrote && outcome.tolerated > 0 => {
            ("repaired, the same within the tolerance", "32")
        }
        Verdict::Same if repaired && wrote => ("repaired, proved the same", "32"),
        Verdict::Same if outcome.tolerated > 0 => ("the same within the tolerance", "32"),
        Verdict::Same if outcome.in_flight > 0 => ("the same, apart from rows in flight", "32"),
        Verdict::Same => ("the same", "32"),
        Verdict::Different if repaired && outcome.over_limit => {
            ("different, not repaired: over --max-changes", "31")
        }
        Verdict::Different if repaired && outcome.proved && wrote => {
            ("rows repaired and proved the same, columns differ", "31")
        }
        Verdict::Different if repaired && !outcome.proved && wrote => {
            ("repaired in part, still different", "31")
        }
        Verdict::Different => ("different", "31"),
        Verdict::Unknown if repaired && wrote && table.error.is_none() => ("written, not proved", "33"),
        Verdict::Unknown => ("not known", "33"),
    }
}

fn table_text(out: &mut String, table: &TableReport, style: Style, repaired: bool) {
    let (verdict, code) = verdict_text(table, repaired);
    let headline = table.columns.headline().map_or_else(String::new, |headline| format!(", {headline}"));
    let _ = writeln!(out, "{}: {}{headline}", style.paint(&table.name(), "1"), style.paint(verdict, code));
    columns_text(out, &table.columns);
    for note in table.warnings.iter().chain(&table.outcome.undo_limits) {
        let _ = writeln!(out, "  note: {note}");
    }
    if let Some(error) = &table.error {
        let side = error.side.as_ref().map_or_else(String::new, |side| format!("{side}: "));
        let _ = writeln!(out, "  error: {side}{}", error.message);
        if let Some(hint) = &error.hint {
            let _ = writeln!(out, "  hint: {hint}");
        }
        let outcome = &table.outcome;
        if outcome.written() > 0 {
            let kinds = written_text([outcome.inserted, outcome.updated, outcome.deleted]);
            let _ = writeln!(out, "  {} rows were written before: {kinds}", grouped(outcome.written()));
        }
        for row in &table.rows_set_aside {
            let _ = writeln!(out, "  ! {}", row.text("set aside"));
        }
        return;
    }
    let outcome = &table.outcome;
    let mut facts = vec![format!(
        "{} source rows, {} target rows",
        grouped(outcome.source_rows),
        grouped(outcome.target_rows)
    )];
    for (count, what) in [
        (outcome.missing, "missing"),
        (outcome.changed, "changed"),
        (outcome.extra, "extra"),
        (outcome.in_flight, "in flight"),
        (outcome.unsettled, "unsettled"),
        (outcome.tolerated, "within tolerance"),
        (outcome.inserted, "inserted"),
        (outcome.updated, "updated"),
        (outcome.deleted, "deleted"),
        (outcome.set_aside, "set aside"),
    ] {
        if count > 0 {
            facts.push(format!("{} {what}", grouped(count)));
        }
    }
    if repaired && outcome.left > 0 {
        facts.push(format!("{} left as they are", grouped(outcome.left)));
    }
    let _ = writeln!(out, "  {}", facts.join(", "));
    for line in table.would_write.iter().flat_map(super::WouldWrite::lines) {
        let _ = writeln!(out, "  {line}");
    }
    reasons_text(out, outcome);
    for difference in &table.differences {
        let _ = writeln!(out, "  {}", difference_text(difference, style));
    }
    let told = table.differences.len() as u64;
    if outcome.differences() > told {
        let _ = writeln!(out, "  ... and {} more (--limit)", grouped(outcome.differences() - told));
    }
    for row in &table.rows_set_aside {
        let _ = writeln!(out, "  ! {}", row.text("set aside"));
    }
    let seconds = &outcome.seconds;
    let total = seconds.scan + seconds.locate + seconds.recheck + seconds.repair + seconds.verify;
    let trips = if outcome.round_trips == 1 { "round trip" } else { "round trips" };
    let _ = writeln!(
        out,
        "  {} to the source, {} to the target, {} {trips}, {total:.1} s",
        bytes(outcome.bytes_to_source),
        bytes(outcome.bytes_to_target),
        outcome.round_trips
    );
}

/// Why nothing is claimed of rows, and why rows were left.
pub(super) fn reasons_text(out: &mut String, outcome: &TableOutcome) {
    for doubt in &outcome.doubts {
        let _ = writeln!(out, "  why: {doubt}");
    }
    for (reason, rows) in &outcome.left_because {
        let _ = writeln!(out, "  {} left: {reason}", grouped(*rows));
    }
}

/// What to do about columns without a partner.
pub(crate) const UNPAIRED_HINT: &str = "pair columns with --map SOURCE=TARGET, leave them out with --exclude, or accept them with --unpaired COLUMN (or --unpaired ignore)";

/// The columns without a partner, by side.
pub(super) fn columns_text(out: &mut String, columns: &ColumnCoverage) {
    for line in columns.lines() {
        let _ = writeln!(out, "  {line}");
    }
    if columns.differs() {
        let _ = writeln!(out, "  hint: {UNPAIRED_HINT}");
    }
}

fn difference_text(difference: &Difference, style: Style) -> String {
    let key = key_text(&difference.key);
    let columns: Vec<String> = difference
        .columns
        .iter()
        .map(|column| match &column.values {
            None => column.name.clone(),
            Some(values) => {
                let show = |value: &Option<String>| {
                    value.as_ref().map_or_else(|| "NULL".to_owned(), |text| format!("{text:?}"))
                };
                match difference.kind {
                    DifferenceKind::Missing => format!("{} {}", column.name, show(&values.source)),
                    DifferenceKind::Extra => format!("{} {}", column.name, show(&values.target)),
                    DifferenceKind::Changed => {
                        format!("{} {} -> {}", column.name, show(&values.target), show(&values.source))
                    }
                }
            }
        })
        .collect();
    let columns = if columns.is_empty() { String::new() } else { format!(": {}", columns.join(", ")) };
    match difference.kind {
        DifferenceKind::Missing => style.paint(&format!("+ {key} missing{columns}"), "32"),
        DifferenceKind::Changed => style.paint(&format!("~ {key} changed{columns}"), "33"),
        DifferenceKind::Extra => style.paint(&format!("- {key} extra{columns}"), "31"),
    }
}

fn key_text(key: &[(String, String)]) -> String {
    key.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// 1234567 as 1,234,567.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes with a unit of thousands.
pub fn bytes(count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let value = count as f64;
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", value / 1e6),
        _ => format!("{:.2} GB", value / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{DifferingColumn, ValuePair};

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            [grouped(0), grouped(999), grouped(1_000), grouped(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!([bytes(12), bytes(1_500), bytes(2_500_000)], ["12 B", "1.5 kB", "2.5 MB"]);
    }

    #[test]
    fn differences_for_people() {
        let style = Style { color: false };
        let mut difference = Difference {
            kind: DifferenceKind::Changed,
            key: vec![("id".into(), "7".into())],
            columns: vec![DifferingColumn { name: "note".into(), values: None }],
        };
        assert_eq!(difference_text(&difference, style), "~ id=7 changed: note");
        difference.columns[0].values = Some(ValuePair { source: Some("new".into()), target: None });
        assert_eq!(difference_text(&difference, style), "~ id=7 changed: note NULL -> \"new\"");
    }
}
