//! What a backfill found and filled: rows per step as data and as a picture.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::render::{Style, columns_text, grouped, reasons_text};
use super::{SetAside, Stopped, TableError, Verdict};
use crate::agent::TableOutcome;
use crate::model::measure::Misfits;
use crate::model::{ColumnCoverage, Plan};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackfillReport {
    pub schema_version: u32,
    pub software: String,
    pub command: String,
    /// The run's id in the ledger, and the audit trail's head behind it; none where it was not recorded.
    pub run: Option<String>,
    pub audit_head: Option<String>,
    pub source: String,
    pub target: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    pub seconds: f64,
    pub dry_run: bool,
    pub verdict: Verdict,
    pub tables: Vec<BackfillTable>,
    /// Where the run ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
    /// Of a run that failed after it had written: how to go on, and how to take it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackfillTable {
    pub source_table: String,
    pub target_table: String,
    pub verdict: Verdict,
    /// By source name.
    pub column: String,
    pub step: String,
    /// Where steps are days, hours or months of a clock.
    pub time_zone: Option<String>,
    pub from: String,
    pub to: String,
    /// How many columns were compared, and which have no partner.
    #[serde(default)]
    pub columns: ColumnCoverage,
    pub warnings: Vec<String>,
    pub error: Option<TableError>,
    pub steps: Vec<StepRow>,
    pub chunks: Vec<ChunkReport>,
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
    /// Differences that were not written because they are not allowed.
    pub left: u64,
    pub set_aside: u64,
    /// Changed rows whose values are within the tolerance, left as they are.
    #[serde(default)]
    pub tolerated: u64,
    pub rows_set_aside: Vec<SetAside>,
    /// `--from` or `--to` was given: rows beyond them are no part of what is claimed.
    #[serde(default)]
    pub bounded: bool,
    /// Rows of each side that are in no step, and so were not compared.
    #[serde(default)]
    pub source_elsewhere: Elsewhere,
    #[serde(default)]
    pub target_elsewhere: Elsewhere,
    /// Why a side may hold rows that the login does not see, unless that was accepted.
    #[serde(default)]
    pub hidden_rows: Vec<String>,
    /// The verdict in words, and what it is of.
    #[serde(default)]
    pub claim: String,
    /// What both sides agreed on, and the chunks' outcomes added up, for the ledger.
    #[serde(skip)]
    pub plan: Option<Plan>,
    #[serde(skip)]
    pub outcome: TableOutcome,
    /// Rows of which neither equal nor different can be said.
    #[serde(default)]
    pub unsettled: u64,
    /// Why nothing is claimed of the table, or of some of its rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
    /// Why rows were left as they are: how many for each reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_because: BTreeMap<String, u64>,
}

/// Rows that are in no step, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    #[serde(flatten)]
    pub misfits: Misfits,
    /// In front of the range or behind it.
    pub outside: u64,
}

/// One step: rows before and, where anything was filled, after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRow {
    pub from: String,
    pub to: String,
    pub source: u64,
    pub target: u64,
    pub source_after: Option<u64>,
    pub target_after: Option<u64>,
}

impl StepRow {
    pub fn differs(&self) -> bool {
        self.source != self.target
    }

    /// By the last counts that there are.
    pub fn differs_after(&self) -> bool {
        self.source_after.unwrap_or(self.source) != self.target_after.unwrap_or(self.target)
    }
}

/// Steps that were compared and filled together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChunkReport {
    pub from: String,
    pub to: String,
    pub verdict: Verdict,
    pub source_rows: u64,
    /// Found by comparing every row of these steps.
    #[serde(default)]
    pub missing: u64,
    #[serde(default)]
    pub changed: u64,
    #[serde(default)]
    pub extra: u64,
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
    pub left: u64,
    pub set_aside: u64,
    pub proved: bool,
    /// Roots of the chunk's rows: the source's, the target's before and after.
    pub source_root: String,
    pub target_root: String,
    pub repaired_root: Option<String>,
    pub error: Option<TableError>,
    pub seconds: f64,
}

impl BackfillTable {
    pub fn name(&self) -> String {
        if self.source_table == self.target_table {
            self.source_table.clone()
        } else {
            format!("{} = {}", self.source_table, self.target_table)
        }
    }

    /// The worst of: an error, what comparing the rows of each step came to, and rows of which nothing can be said. Counts
    /// alone prove nothing; they can only contradict.
    pub fn judge(&mut self, step_verdicts: &[Option<Verdict>], noun: &str, dry_run: bool) {
        let mut worst = Verdict::Same;
        for (at, step) in self.steps.iter().enumerate() {
            let verdict = step_verdicts.get(at).copied().flatten().unwrap_or(Verdict::Unknown);
            worst = worst.max(match (step.differs_after(), verdict) {
                // Proved the same, and other counts: rows came or went in between.
                (true, Verdict::Same) => Verdict::Unknown,
                (_, verdict) => verdict,
            });
        }
        if self.columns.differs() {
            worst = worst.max(Verdict::Different);
        }
        self.verdict = if self.error.is_some() || !self.hidden_rows.is_empty() {
            Verdict::Unknown
        } else {
            worst.max(self.elsewhere_verdict())
        };
        self.claim = self.words(noun, dry_run);
    }

    /// What was found when the range was compared once more after the last write. Which piece it lies in is not known.
    pub fn contradict(&mut self, verdict: Verdict) {
        if verdict <= self.verdict {
            return;
        }
        self.verdict = verdict;
        self.claim = match verdict {
            Verdict::Same => return,
            Verdict::Different => "still different: later writes changed it".to_owned(),
            Verdict::Unknown => "not known: later writes may have changed it".to_owned(),
        };
        for chunk in &mut self.chunks {
            (chunk.verdict, chunk.proved) = (chunk.verdict.max(Verdict::Unknown), false);
        }
    }

    /// Without ends the claim is of the whole table, so that rows in no step count too. An unreadable value may lie in any
    /// range.
    fn elsewhere_verdict(&self) -> Verdict {
        let (source, target) = (&self.source_elsewhere.misfits, &self.target_elsewhere.misfits);
        if !self.bounded && source.total() != target.total() {
            Verdict::Different
        } else if source.unreadable + target.unreadable > 0 {
            Verdict::Unknown
        } else if !self.bounded && self.steps.is_empty() && source.total() > 0 {
            // No row has a time: nothing was compared.
            Verdict::Unknown
        } else {
            Verdict::Same
        }
    }

    fn words(&self, noun: &str, dry_run: bool) -> String {
        let wrote = self.inserted + self.updated + self.deleted > 0;
        let range = match (self.steps.first(), self.steps.last()) {
            (Some(first), Some(last)) => format!(" from {} to {}", first.from, last.to),
            _ => String::new(),
        };
        let misfits = (self.source_elsewhere.misfits.total(), self.target_elsewhere.misfits.total());
        let without = |one: &str, several: &str| match misfits {
            (0, 0) => String::new(),
            (source, target) if source == target => {
                format!("; {} without a {noun} {}", rows(source), if source == 1 { one } else { several })
            }
            (source, target) => format!(
                "; {} without a {noun} at the source and {} at the target {several}",
                rows(source),
                grouped(target)
            ),
        };
        let left_out = || without("was not compared", "were not compared");
        let outside = || without("is outside", "are outside");
        let gaps = if wrote { "no gap is left" } else { "no gap" };
        let proof = if self.tolerated > 0 { "the same within the tolerance" } else { "proved the same" };
        match self.verdict {
            Verdict::Same if self.steps.is_empty() && self.bounded => {
                format!("neither side has a row in the range{}", outside())
            }
            Verdict::Same if self.steps.is_empty() => "neither side has a row".to_owned(),
            Verdict::Same if self.bounded => format!("{gaps}{range}, {proof}{}", outside()),
            Verdict::Same if misfits.0 > 0 => {
                format!("{gaps} in what has a {noun}{range}, {proof}{}", left_out())
            }
            Verdict::Same => format!("{gaps}{range}, {proof}"),
            Verdict::Different
                if self.columns.differs() && !self.steps.iter().any(StepRow::differs_after) =>
            {
                format!("columns differ{}", left_out())
            }
            Verdict::Different if dry_run => {
                format!("gaps, not filled: a dry run{}", left_out())
            }
            Verdict::Different => format!("still different{}", left_out()),
            Verdict::Unknown if self.error.is_none() && misfits != (0, 0) => {
                format!("not known{}", left_out())
            }
            Verdict::Unknown => "not known".to_owned(),
        }
    }
}

fn rows(count: u64) -> String {
    format!("{} {}", grouped(count), if count == 1 { "row" } else { "rows" })
}

pub fn json(report: &BackfillReport) -> String {
    serde_json::to_string_pretty(report).unwrap_or_default() + "\n"
}

/// Lines of a picture; more steps share a line.
const LINES_MAX: usize = 60;
const BAR: usize = 20;
/// Gaps that are named one by one.
const GAPS_MAX: usize = 40;

pub fn text(report: &BackfillReport, style: Style) -> String {
    let mut out = String::new();
    for table in &report.tables {
        table_text(&mut out, table, style);
    }
    if let Some(run) = &report.run {
        let _ = writeln!(out, "run {run}");
    }
    if let Some(hint) = &report.hint {
        let _ = writeln!(out, "hint: {hint}");
    }
    out
}

fn table_text(out: &mut String, table: &BackfillTable, style: Style) {
    let code = match table.verdict {
        Verdict::Same => "32",
        Verdict::Different => "31",
        Verdict::Unknown => "33",
    };
    let verdict = table.claim.as_str();
    let headline = table.columns.headline().map_or_else(String::new, |headline| format!(", {headline}"));
    let _ = writeln!(out, "{}: {}{headline}", style.paint(&table.name(), "1"), style.paint(verdict, code));
    columns_text(out, &table.columns);
    for hidden in &table.hidden_rows {
        let _ = writeln!(out, "  not known: {hidden}");
    }
    for note in table.warnings.iter().chain(&table.outcome.undo_limits) {
        let _ = writeln!(out, "  note: {note}");
    }
    if let Some(error) = &table.error {
        let side = error.side.as_ref().map_or_else(String::new, |side| format!("{side}: "));
        let _ = writeln!(out, "  error: {side}{}", error.message);
        if let Some(hint) = &error.hint {
            let _ = writeln!(out, "  hint: {hint}");
        }
    }
    if table.steps.is_empty() {
        return;
    }
    let zone = table.time_zone.as_ref().map_or_else(String::new, |zone| format!(", {zone}"));
    let _ = writeln!(out, "  rows per {} of {}{zone}", table.step, table.column);
    out.push_str(&picture(&table.steps, style));
    gaps(out, table, style);
    let found = |count: fn(&ChunkReport) -> u64| table.chunks.iter().map(count).sum::<u64>();
    let facts: Vec<String> = [
        (found(|chunk| chunk.missing), "missing"),
        (found(|chunk| chunk.changed), "changed"),
        (found(|chunk| chunk.extra), "extra"),
        (table.tolerated, "within tolerance"),
        (table.inserted, "inserted"),
        (table.updated, "updated"),
        (table.deleted, "deleted"),
        (table.left, "left as they are"),
        (table.set_aside, "set aside"),
        (table.unsettled, "unsettled"),
    ]
    .iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{} {what}", grouped(*count)))
    .collect();
    if !facts.is_empty() {
        let _ = writeln!(out, "  {}", facts.join(", "));
    }
    reasons_text(out, &table.outcome);
    for chunk in &table.chunks {
        if let Some(error) = &chunk.error {
            let _ = writeln!(out, "  {} .. {}: {}", chunk.from, chunk.to, error.message);
            if let Some(hint) = &error.hint {
                let _ = writeln!(out, "    hint: {hint}");
            }
        }
    }
    for row in &table.rows_set_aside {
        let _ = writeln!(out, "  ! {}", row.text("set aside"));
    }
}

/// Steps that differ, joined where they touch.
fn gaps(out: &mut String, table: &BackfillTable, style: Style) {
    let mut gaps: Vec<(&StepRow, &StepRow, u64, u64)> = Vec::new();
    let mut before = false;
    for step in &table.steps {
        if step.differs() {
            match gaps.last_mut().filter(|_| before) {
                Some(gap) => (gap.1, gap.2, gap.3) = (step, gap.2 + step.source, gap.3 + step.target),
                None => gaps.push((step, step, step.source, step.target)),
            }
        }
        before = step.differs();
    }
    for (first, last, source, target) in gaps.iter().take(GAPS_MAX) {
        let counts = format!("{} at the source, {} at the target", grouped(*source), grouped(*target));
        let _ = writeln!(out, "  {} {} .. {}: {counts}", style.paint("gap", "31"), first.from, last.to);
    }
    if gaps.len() > GAPS_MAX {
        let _ = writeln!(out, "  ... and {} more gaps", gaps.len() - GAPS_MAX);
    }
}

/// A line a step, or for several of them: bars of both sides, counts, and what is missing.
pub fn picture(steps: &[StepRow], style: Style) -> String {
    let per_line = steps.len().div_ceil(LINES_MAX).max(1);
    let lines: Vec<(&str, u64, u64, bool)> = steps
        .chunks(per_line)
        .map(|part| {
            let sum = |rows: fn(&StepRow) -> u64| part.iter().map(rows).sum();
            let from = part.first().map_or("", |step| step.from.as_str());
            (from, sum(|step| step.source), sum(|step| step.target), part.iter().any(StepRow::differs))
        })
        .collect();
    let most = lines.iter().map(|(_, source, target, _)| *source.max(target)).max().unwrap_or(0);
    let label = lines.iter().map(|(from, ..)| from.chars().count()).max().unwrap_or(0);
    let digits = grouped(most).len().max(6);
    let mut out = String::new();
    let _ = writeln!(
        out,
        "  {:label$}  {:<BAR$} {:>digits$}  {:<BAR$} {:>digits$}",
        "", "source", "", "target", ""
    );
    for (from, source, target, differs) in lines {
        let mark = match (differs, source.cmp(&target)) {
            (false, _) => String::new(),
            (true, std::cmp::Ordering::Greater) => format!("  -{}", grouped(source - target)),
            (true, std::cmp::Ordering::Less) => format!("  +{}", grouped(target - source)),
            (true, std::cmp::Ordering::Equal) => "  !".to_owned(),
        };
        let _ = writeln!(
            out,
            "  {from:label$}  {} {:>digits$}  {} {:>digits$}{}",
            bar(source, most),
            grouped(source),
            bar(target, most),
            grouped(target),
            style.paint(&mark, "31"),
        );
    }
    if per_line > 1 {
        let _ = writeln!(out, "  ({per_line} steps a line)");
    }
    out
}

/// Rows as a bar; a few rows are more than none.
fn bar(rows: u64, most: u64) -> String {
    let full = if most == 0 { 0 } else { (u128::from(rows) * BAR as u128).div_ceil(u128::from(most)) };
    let full = usize::try_from(full).unwrap_or(BAR).min(BAR);
    "█".repeat(full) + &"·".repeat(BAR - full)
}

#[cfg(test)]
#[path = "backfill_tests.rs"]
mod tests;
