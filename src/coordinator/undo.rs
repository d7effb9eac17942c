//! Taking a run back: asked of the target's agent, which alone has the rows.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::table::table_error;
use super::{RunEvent, RunOutcome};
use crate::agent::error::FailureKind;
use crate::agent::{AgentError, AgentHandle, Event, UndoTask, Undone};
use crate::model::Role;
use crate::report::{SetAside, TableError, TableReport, Verdict};

/// Undoes a run. An error here means that nothing was begun; one that comes later is in the tables' reports.
pub async fn undo(
    target: &AgentHandle,
    task: &UndoTask,
    events: &mpsc::Sender<RunEvent>,
    stop: &CancellationToken,
) -> Result<RunOutcome, AgentError> {
    if !task.dry_run && !target.may_write() {
        return Err(AgentError::new(FailureKind::Refused, "the target agent was started read-only")
            .with_hint("start it with --allow-write")
            .on(Role::Target));
    }
    let mut told = target.take_back(task.clone()).await?;
    let mut tables: Vec<TableReport> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let mut current = 0;
    let mut ended = false;
    loop {
        let event = tokio::select! {
            biased;
            () = stop.cancelled(), if !told.is_closed() => {
                // The target stops; what it has told by now is still heard.
                told.close();
                continue;
            }
            event = told.recv() => event,
        };
        let Some(event) = event else { break };
        match &event {
            Event::UndoTable { table } => {
                current = *known.entry(table.clone()).or_insert(tables.len());
                if current == tables.len() {
                    tables.push(TableReport::new(table, table));
                    let planned = RunEvent::Planned {
                        table: current,
                        name: table.clone(),
                        source_rows: None,
                        target_rows: None,
                    };
                    let _ = events.send(planned).await;
                }
            }
            Event::Undone { undone } => {
                if let Some(report) = tables.get_mut(current) {
                    add(report, undone);
                }
            }
            Event::SetAside { reason, count, examples } => {
                if let Some(report) = tables.get_mut(current) {
                    let (reason, count, examples) = (reason.clone(), *count, examples.clone());
                    SetAside::add(&mut report.rows_set_aside, SetAside { reason, count, examples });
                }
            }
            Event::Done { .. } => ended = true,
            Event::Failed { kind, side, message, hint } => {
                let error = AgentError {
                    kind: FailureKind::from_name(kind),
                    side: *side,
                    message: message.clone(),
                    hint: hint.clone(),
                };
                if tables.is_empty() {
                    return Err(error);
                }
                fail(&mut tables, current, table_error(error));
                ended = true;
            }
            _ => {}
        }
        // Nobody listens any more: the undo is being stopped.
        if events.send(RunEvent::Table { table: current, event }).await.is_err() {
            break;
        }
    }
    if !ended {
        let error =
            AgentError::new(FailureKind::Cancelled, "the undo stopped before it could tell how it ended");
        if tables.is_empty() {
            return Err(error);
        }
        fail(&mut tables, current, table_error(error));
    }
    for (table, report) in tables.iter_mut().enumerate() {
        let outcome = &report.outcome;
        let left = outcome.moved_on + outcome.set_aside + outcome.left + outcome.altered;
        let whole = left == 0 && outcome.undo_limits.is_empty();
        report.verdict = match (&report.error, whole) {
            (Some(_), _) => Verdict::Unknown,
            (None, true) => Verdict::Same,
            (None, false) => Verdict::Different,
        };
        let _ = events.send(RunEvent::Finished { table, report: Box::new(report.clone()) }).await;
    }
    Ok(RunOutcome { tables, only_in_source: Vec::new(), only_in_target: Vec::new(), left_out: Vec::new() })
}

/// What was put back is told at the end alone: of a table that failed, nobody knows how far it came.
fn fail(tables: &mut [TableReport], current: usize, error: TableError) {
    for (at, report) in tables.iter_mut().enumerate() {
        let elsewhere = "the undo ended early, at another table";
        report.error = Some(TableError {
            message: if at == current { error.message.clone() } else { elsewhere.to_owned() },
            ..error.clone()
        });
    }
}

fn add(report: &mut TableReport, undone: &Undone) {
    let outcome = &mut report.outcome;
    outcome.inserted += undone.inserted;
    outcome.updated += undone.updated;
    outcome.deleted += undone.deleted;
    outcome.moved_on += undone.moved_on;
    outcome.set_aside += undone.refused;
    outcome.left += undone.left;
    outcome.in_flight += undone.already;
    outcome.undo_kept |= undone.inserted + undone.updated + undone.deleted > 0;
    outcome.altered += undone.altered;
    outcome.add_undo_limits(&undone.limits);
    let warning = "the run has not closed its undo journal: it failed or its process died while it wrote, or the journal's end was lost; what the journal holds is taken back";
    if undone.open && !report.warnings.iter().any(|known| known == warning) {
        report.warnings.push(warning.to_owned());
    }
}
