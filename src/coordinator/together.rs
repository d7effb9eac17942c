//! Small tables are read in one conversation first: those that are equal need no run of their own.

use futures::StreamExt;

use super::RunEvent;
use super::pairs::TablePair;
use super::table::Context;
use crate::agent::{self, EqualTable, Event, ROLL_CALL_MAX, TableOutcome, Task};
use crate::model::Plan;
use crate::report::TableReport;

/// Tables of at most so many rows, as both servers estimate; reading one twice, if it differs, is no loss.
const ROWS_MAX: u64 = 20_000;
/// Fewer tables are no crowd.
const TABLES_MIN: usize = 4;

struct Small {
    table: usize,
    report: TableReport,
    plan: Plan,
}

/// The reports of tables that turned out to be equal, each with its place among the pairs.
pub(super) async fn equal_tables(context: &Context<'_>, pairs: &[TablePair]) -> Vec<(usize, TableReport)> {
    let small: Vec<Small> = pairs.iter().enumerate().filter_map(|at| small(context, at)).collect();
    if small.len() < TABLES_MIN {
        return Vec::new();
    }
    let mut reports = Vec::new();
    for small in small.chunks(ROLL_CALL_MAX) {
        reports.extend(roll_call(context, small).await);
    }
    reports
}

fn small(context: &Context<'_>, (table, pair): (usize, &TablePair)) -> Option<Small> {
    let (plan, source, target) = context.plan(pair).ok()?;
    let is_small = |rows: Option<u64>| rows.is_some_and(|rows| rows <= ROWS_MAX);
    if !is_small(source.estimated_rows) || !is_small(target.estimated_rows) {
        return None;
    }
    Some(Small { table, report: TableReport::planned(&plan), plan })
}

/// Where it fails nothing is said: each table's own run tells why.
async fn roll_call(context: &Context<'_>, small: &[Small]) -> Vec<(usize, TableReport)> {
    let plans = small.iter().map(|small| small.plan.for_agents()).collect();
    let Ok(mut events) = agent::start(context.source, context.target, Task::RollCall(plans)).await else {
        return Vec::new();
    };
    let (mut equal, mut whole) = (Vec::new(), None);
    while let Some(event) = events.recv().await {
        match event {
            Event::Equal { tables } => equal.extend(tables),
            Event::Done { outcome } => whole = Some(*outcome),
            _ => {}
        }
        if context.events.is_closed() || context.request.stop.is_cancelled() {
            return Vec::new();
        }
    }
    // Without its end it may have been cut short, and what it cost is not known.
    let Some(whole) = whole else { return Vec::new() };
    let parts = small.len() as u64;
    let reports = equal.into_iter().filter_map(|EqualTable { at, rows, root }| {
        let at = usize::try_from(at).ok()?;
        let Small { table, report, .. } = small.get(at)?;
        let mut report = report.clone();
        report.outcome = TableOutcome {
            source_rows: rows,
            target_rows: rows,
            source_root: root.clone(),
            target_root: root,
            proved: true,
            round_trips: whole.round_trips,
            ..part_of(&whole, at as u64, parts)
        };
        report.judge(context.request.writes());
        Some((*table, report))
    });
    futures::stream::iter(reports)
        .then(|(table, report)| async move {
            let told = RunEvent::Planned {
                table,
                name: report.name(),
                source_rows: Some(report.outcome.source_rows),
                target_rows: Some(report.outcome.target_rows),
            };
            let _ = context.events.send(told).await;
            (table, report)
        })
        .collect()
        .await
}

/// An equal share of what the conversation cost; the first tables have what does not divide.
fn part_of(whole: &TableOutcome, at: u64, parts: u64) -> TableOutcome {
    let share = |all: u64| all / parts + u64::from(at < all % parts);
    let mut part = TableOutcome {
        bytes_to_source: share(whole.bytes_to_source),
        bytes_to_target: share(whole.bytes_to_target),
        messages_to_source: share(whole.messages_to_source),
        messages_to_target: share(whole.messages_to_target),
        handshake_bytes: share(whole.handshake_bytes),
        ..TableOutcome::default()
    };
    #[expect(clippy::cast_precision_loss, reason = "a thousand tables at most")]
    let tables = parts as f64;
    part.seconds.scan = whole.seconds.scan / tables;
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        let whole = TableOutcome { bytes_to_source: 1_003, messages_to_target: 2, ..TableOutcome::default() };
        let parts: Vec<TableOutcome> = (0..10).map(|at| part_of(&whole, at, 10)).collect();
        assert_eq!(parts.iter().map(|part| part.bytes_to_source).sum::<u64>(), 1_003);
        assert_eq!(parts.iter().map(|part| part.messages_to_target).sum::<u64>(), 2);
    }
}
