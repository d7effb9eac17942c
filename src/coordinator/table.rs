//! One table pair: plan, run, verdict.

use tokio::sync::mpsc;

use super::pairs::TablePair;
use super::{RunEvent, RunRequest};
use crate::agent::{self, AgentError, AgentHandle, Event, TableTask, TaskOptions, error::FailureKind};
use crate::model::{Filled, Plan, PlanRefusal, Role, ServerInfo, TableSchema, distance};
use crate::report::{RowSetAside, TableError, TableReport};

/// A repair that could not be proved because rows moved under it is begun again this often.
const ROUNDS_MAX: usize = 3;
/// Rows set aside that are named in the report.
const SET_ASIDE_KEPT: usize = 1_000;

pub(super) struct Context<'a> {
    pub(super) source: &'a AgentHandle,
    pub(super) target: &'a AgentHandle,
    pub(super) servers: &'a (ServerInfo, ServerInfo),
    pub(super) request: &'a RunRequest,
    pub(super) events: &'a mpsc::Sender<RunEvent>,
}

impl Context<'_> {
    #[tracing::instrument(level = "info", skip_all, name = "table", fields(table = %pair.source))]
    pub(super) async fn reconcile(&self, table: usize, pair: &TablePair) -> TableReport {
        let mut report = TableReport::new(&pair.source.to_string(), &pair.target.to_string());
        match self.plan(pair) {
            Err(error) => {
                let told =
                    RunEvent::Planned { table, name: report.name(), source_rows: None, target_rows: None };
                let _ = self.events.send(told).await;
                report.error = Some(table_error(error));
            }
            Ok((plan, source, target)) => {
                report.source_table = plan.source.to_string();
                report.target_table = plan.target.to_string();
                report.warnings.clone_from(&plan.warnings);
                report.plan = Some(plan.clone());
                let told = RunEvent::Planned {
                    table,
                    name: report.name(),
                    source_rows: source.estimated_rows,
                    target_rows: target.estimated_rows,
                };
                let _ = self.events.send(told).await;
                let task = TableTask { options: self.options(), plan };
                for round in 1..=ROUNDS_MAX {
                    let next = self.round(table, task.clone(), report.clone()).await;
                    report = if round == 1 { next } else { joined(report, next) };
                    let outcome = &report.outcome;
                    let settled =
                        report.error.is_some() || outcome.proved || outcome.left + outcome.set_aside > 0;
                    if !self.request.writes() || settled {
                        break;
                    }
                    // Rows within the tolerance stay as they are, and no root can become the source's.
                    if outcome.tolerated > 0 && outcome.unsettled == 0 {
                        report = self.within_tolerance(table, task, report).await;
                        break;
                    }
                }
            }
        }
        report.judge(self.request.writes());
        report
    }

    /// Compares once more after a repair that left rows as they are because they are within the tolerance: the proof is
    /// that nothing else differs.
    async fn within_tolerance(&self, table: usize, mut task: TableTask, first: TableReport) -> TableReport {
        task.options.repair = None;
        let (repaired_root, name) = (first.outcome.repaired_root.clone(), first.name());
        let next = self.round(table, task, first.clone()).await;
        let differences = next.outcome.differences();
        let proved = next.error.is_none() && next.outcome.proved && next.outcome.unsettled == 0;
        let mut report = joined(first, next);
        report.outcome.repaired_root = repaired_root;
        report.outcome.proved = proved && differences == 0;
        let tolerated = report.outcome.tolerated;
        report.warnings.push(match report.outcome.proved {
            true => format!(
                "{tolerated} rows differ within the tolerance and were left as they are; compared again, no other row of {name} differs"
            ),
            false => format!(
                "{tolerated} rows differ within the tolerance and were left as they are; compared again, it could not be shown \
                 that no other row differs"
            ),
        });
        report
    }

    pub(super) fn plan<'p>(
        &self,
        pair: &'p TablePair,
    ) -> Result<(Plan, &'p TableSchema, &'p TableSchema), AgentError> {
        let (source, target) = pair.schemas.as_ref().map_err(Clone::clone)?;
        let mut plan =
            Plan::agree((source, &self.servers.0), (target, &self.servers.1), &self.request.wishes).map_err(
                |PlanRefusal { what, hint }| AgentError::new(FailureKind::Usage, what).with_hint(hint),
            )?;
        distance::check(&plan, &self.request.options.tolerance).map_err(|PlanRefusal { what, hint }| {
            AgentError::new(FailureKind::Usage, what).with_hint(hint)
        })?;
        for (schema, side) in [(source, Role::Source), (target, Role::Target)] {
            plan.warnings.extend(schema.notes.iter().map(|note| format!("{side}: {note}")));
        }
        if self.request.options.repair.is_some() {
            self.check_repair(target, &mut plan)?;
        }
        Ok((plan, source, target))
    }

    fn check_repair(&self, target: &TableSchema, plan: &mut Plan) -> Result<(), AgentError> {
        let options = &self.request.options;
        if target.is_view {
            return Err(AgentError::new(
                FailureKind::Usage,
                format!("the target {} is a view", target.table),
            )
            .with_hint("repair the table behind it")
            .on(Role::Target));
        }
        let spreading: Vec<String> =
            target.referrers.iter().filter(|r| r.delete_spreads).map(|r| r.table.to_string()).collect();
        if options.repair.is_some_and(|allow| allow.delete) && !options.allow_cascade && !spreading.is_empty()
        {
            return Err(AgentError::new(
                FailureKind::Usage,
                format!(
                    "deleting rows of {} would delete or change rows of {}",
                    target.table,
                    spreading.join(", ")
                ),
            )
            .with_hint("leave delete out of --allow, or accept it with --allow-cascade")
            .on(Role::Target));
        }
        if !target.triggers.is_empty() {
            plan.warnings.push(format!(
                "triggers of the target fire when rows are written: {}",
                target.triggers.join(", ")
            ));
        }
        for column in
            plan.columns.iter().skip(plan.key_len).filter(|column| column.target_filled == Filled::Generated)
        {
            plan.warnings
                .push(format!("column {} is generated in the target: compared, not written", column.target));
        }
        Ok(())
    }

    fn options(&self) -> TaskOptions {
        let mut options = self.request.options.clone();
        options.details_max = options.details_max.min(self.request.details_kept);
        options
    }

    async fn round(&self, table: usize, task: TableTask, mut report: TableReport) -> TableReport {
        let mut events = match agent::start(self.source, self.target, task).await {
            Ok(events) => events,
            Err(error) => {
                report.error = Some(table_error(error));
                return report;
            }
        };
        let mut ended = false;
        while let Some(event) = events.recv().await {
            match &event {
                Event::Difference { difference } => report.differences.push(difference.clone()),
                Event::SetAside { key, reason } if report.rows_set_aside.len() < SET_ASIDE_KEPT => {
                    report.rows_set_aside.push(RowSetAside { key: key.clone(), reason: reason.clone() });
                }
                Event::Done { outcome } => {
                    report.outcome = (**outcome).clone();
                    ended = true;
                }
                Event::Failed { kind, side, message, hint } => {
                    let side = side.map(|side| side.to_string());
                    report.error = Some(TableError {
                        kind: kind.clone(),
                        side,
                        message: message.clone(),
                        hint: hint.clone(),
                    });
                    ended = true;
                }
                _ => {}
            }
            // Nobody listens any more: the run is being stopped.
            if self.events.send(RunEvent::Table { table, event }).await.is_err() {
                break;
            }
        }
        if !ended {
            let error =
                AgentError::new(FailureKind::Cancelled, "the run stopped before it could tell how it ended");
            report.error = Some(table_error(error));
        }
        report
    }
}

pub(super) fn table_error(error: AgentError) -> TableError {
    TableError {
        kind: error.kind.as_str().to_owned(),
        side: error.side.map(|side| side.to_string()),
        message: error.message,
        hint: error.hint,
    }
}

/// Two rounds over one table as one report: the counts of what was done add up, the state is the later one's.
pub(super) fn joined(first: TableReport, mut second: TableReport) -> TableReport {
    let (before, after) = (first.outcome, &mut second.outcome);
    // What the first round found and wrote is gone in the second; what it left is found again there.
    let done = before.inserted + before.updated + before.deleted;
    if done > 0 || second.error.is_some() {
        after.missing = after.missing.max(before.missing);
        after.changed = after.changed.max(before.changed);
        after.extra = after.extra.max(before.extra);
    }
    after.inserted += before.inserted;
    after.updated += before.updated;
    after.deleted += before.deleted;
    after.bytes_to_source += before.bytes_to_source;
    after.bytes_to_target += before.bytes_to_target;
    after.messages_to_source += before.messages_to_source;
    after.messages_to_target += before.messages_to_target;
    after.handshake_bytes += before.handshake_bytes;
    after.round_trips += before.round_trips;
    after.source_rows_reread += before.source_rows_reread;
    after.target_rows_reread += before.target_rows_reread;
    after.seconds.scan += before.seconds.scan;
    after.seconds.locate += before.seconds.locate;
    after.seconds.recheck += before.seconds.recheck;
    after.seconds.repair += before.seconds.repair;
    after.seconds.verify += before.seconds.verify;
    after.undo_kept |= before.undo_kept;
    after.target_root = before.target_root;
    after.target_rows = before.target_rows;
    if !first.differences.is_empty() {
        second.differences = first.differences;
    }
    second
}
