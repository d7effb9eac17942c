//! What a backfill's report holds of a piece that was compared, and of the rows that are in no step.

use tokio::time::Duration;

use super::survey::{Extent, Subject};
use crate::model::Role;
use crate::model::measure::Axis;
use crate::report::backfill::{BackfillTable, ChunkReport, Elsewhere};
use crate::report::{SetAside, TableReport};

const NO_PLACE: &str = "rows that have no";
const OUTSIDE: &str = "rows outside of --from and --to:";

/// Counts and names the rows that are in no step, instead of what was said of them before.
pub(super) fn tell_elsewhere(report: &mut BackfillTable, subject: &Subject<'_>, extents: &(Extent, Extent)) {
    report.warnings.retain(|warning| !is_of_elsewhere(warning));
    let noun = if subject.axis == Axis::Integer { "value" } else { "time" };
    for (role, extent) in [(Role::Source, &extents.0), (Role::Target, &extents.1)] {
        let elsewhere = Elsewhere { misfits: extent.misfits, outside: extent.outside() };
        let name = subject.measured(role).name;
        if elsewhere.misfits.total() > 0 {
            report.warnings.push(format!(
                "{role}: {NO_PLACE} {noun} in {name}: {}; they are in no step and were not compared (a repair compares them)",
                elsewhere.misfits.words()
            ));
        }
        if elsewhere.outside > 0 {
            report.warnings.push(format!("{role}: {OUTSIDE} {}", elsewhere.outside));
        }
        match role {
            Role::Source => report.source_elsewhere = elsewhere,
            Role::Target => report.target_elsewhere = elsewhere,
        }
    }
}

fn is_of_elsewhere(warning: &str) -> bool {
    [Role::Source, Role::Target].iter().any(|role| {
        let rest = warning.strip_prefix(&format!("{role}: "));
        rest.is_some_and(|rest| rest.starts_with(NO_PLACE) || rest.starts_with(OUTSIDE))
    })
}

/// Adds what became of one piece.
pub(super) fn add_chunk(
    report: &mut BackfillTable,
    table: TableReport,
    (from, to): (String, String),
    took: Duration,
) -> ChunkReport {
    let outcome = &table.outcome;
    let chunk = ChunkReport {
        from,
        to,
        verdict: table.verdict,
        source_rows: outcome.source_rows,
        missing: outcome.missing,
        changed: outcome.changed,
        extra: outcome.extra,
        inserted: outcome.inserted,
        updated: outcome.updated,
        deleted: outcome.deleted,
        left: outcome.left,
        set_aside: outcome.set_aside,
        proved: outcome.proved,
        source_root: outcome.source_root.clone(),
        target_root: outcome.target_root.clone(),
        repaired_root: outcome.repaired_root.clone(),
        error: table.error,
        seconds: took.as_secs_f64(),
    };
    report.outcome.add(outcome);
    report.inserted += chunk.inserted;
    report.updated += chunk.updated;
    report.deleted += chunk.deleted;
    report.left += chunk.left;
    report.set_aside += chunk.set_aside;
    report.tolerated += outcome.tolerated;
    table.rows_set_aside.into_iter().for_each(|rows| SetAside::add(&mut report.rows_set_aside, rows));
    if outcome.over_limit {
        report.warnings.push(format!("{} .. {}: not filled, over --max-changes", chunk.from, chunk.to));
    }
    report.chunks.push(chunk.clone());
    chunk
}
