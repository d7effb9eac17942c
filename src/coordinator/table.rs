//! One table pair: plan, run, verdict.

use tokio::sync::mpsc;

use super::pairs::TablePair;
use super::written::Written;
use super::{RunEvent, RunRequest};
use crate::agent::{
    self, AgentError, AgentHandle, Event, TableOutcome, TableTask, TaskOptions, error::FailureKind,
};
use crate::model::{Filled, Permission, Plan, PlanRefusal, Role, ServerInfo, TableSchema, distance};
use crate::report::{SetAside, TableError, TableReport, WouldWrite};

/// A repair that could not be proved because rows moved under it is begun again this often.
const ROUNDS_MAX: usize = 3;

pub(super) struct Context<'a> {
    pub(super) source: &'a AgentHandle,
    pub(super) target: &'a AgentHandle,
    pub(super) servers: &'a (ServerInfo, ServerInfo),
    pub(super) request: &'a RunRequest,
    pub(super) events: &'a mpsc::Sender<RunEvent>,
}

impl Context<'_> {
    /// `held`: the parent for whose sake nothing is written.
    #[tracing::instrument(level = "info", skip_all, name = "table", fields(table = %pair.source))]
    pub(super) async fn reconcile(&self, table: usize, pair: &TablePair, held: Option<&str>) -> TableReport {
        let mut report = TableReport::new(&pair.source.to_string(), &pair.target.to_string());
        match self.plan(pair) {
            Err(error) => {
                let told =
                    RunEvent::Planned { table, name: report.name(), source_rows: None, target_rows: None };
                let _ = self.events.send(told).await;
                report.error = Some(table_error(error));
            }
            Ok((plan, source, target)) => {
                report = TableReport::planned(&plan);
                let told = RunEvent::Planned {
                    table,
                    name: report.name(),
                    source_rows: source.estimated_rows,
                    target_rows: target.estimated_rows,
                };
                let _ = self.events.send(told).await;
                let mut task = TableTask { options: self.options(), plan: plan.for_agents() };
                if let Some(parent) = held {
                    task.options.dry_run = true;
                    report.held_back = true;
                    report
                        .warnings
                        .push(format!("nothing was written: it refers to {parent}, which was not repaired"));
                }
                let planned = report.clone();
                for round in 1..=ROUNDS_MAX {
                    let next = self.round(table, task.clone(), planned.clone()).await;
                    report = if round == 1 { next } else { joined(report, next) };
                    let outcome = &report.outcome;
                    let settled =
                        report.error.is_some() || outcome.proved || outcome.left + outcome.set_aside > 0;
                    // Begun again, a condition that asks tables might select rows that were not compared before.
                    if !self.request.writes() || held.is_some() || settled || plan.asks_tables() {
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
        // Of a file of SQL, some of whose rows could not be spelled, the file says what it holds.
        let all_spelled = !self.request.options.sql || report.outcome.set_aside == 0;
        if self.request.options.dry_run && all_spelled && report.error.is_none() {
            report.would_write = self.would_write(pair, &report);
        }
        if held.is_some() {
            // The differences are explained, and they are still there.
            report.outcome.proved &= report.outcome.differences() == 0;
            report.judge(false);
        } else {
            report.judge(self.request.writes());
        }
        report
    }

    /// Of a dry run: what a repair with the same options would do.
    fn would_write(&self, pair: &TablePair, report: &TableReport) -> Option<WouldWrite> {
        let options = &self.request.options;
        let ((_, target), plan) = (pair.schemas.as_ref().ok()?, report.plan.as_ref()?);
        let access = plan.access(Role::Target);
        let permission = Permission::new(options.repair?, options.allow_cascade, target, &access);
        Some(WouldWrite::of(&report.outcome, &permission))
    }

    /// Compares once more after a repair that left rows as they are because they are within the tolerance: the proof is
    /// that nothing else differs.
    async fn within_tolerance(&self, table: usize, mut task: TableTask, first: TableReport) -> TableReport {
        task.options.repair = None;
        let (repaired_root, name) = (first.outcome.repaired_root.clone(), first.name());
        // A round that fails must not count what the first one did once more.
        let planned = first
            .plan
            .as_ref()
            .map_or_else(|| TableReport::new(&first.source_table, &first.target_table), TableReport::planned);
        let next = self.round(table, task, planned).await;
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

    /// One run of the table. `report` has its plan and nothing else yet.
    async fn round(&self, table: usize, task: TableTask, mut report: TableReport) -> TableReport {
        if self.request.stop.is_cancelled() {
            report.error = Some(stopped());
            return report;
        }
        let mut events = match agent::start(self.source, self.target, task).await {
            Ok(events) => events,
            Err(error) => {
                report.error = Some(table_error(error));
                return report;
            }
        };
        let (mut written, mut done, mut limits) = (Written::default(), false, Vec::new());
        loop {
            let event = tokio::select! {
                biased;
                () = self.request.stop.cancelled(), if !events.is_closed() => {
                    // Both sides stop; what they have told by now is still heard.
                    events.close();
                    continue;
                }
                event = events.recv() => event,
            };
            let Some(event) = event else { break };
            written.note(table, &event);
            match &event {
                Event::Difference { difference } => report.differences.push(difference.clone()),
                Event::SetAside { reason, count, examples } => {
                    let (reason, count, examples) = (reason.clone(), *count, examples.clone());
                    SetAside::add(&mut report.rows_set_aside, SetAside { reason, count, examples });
                }
                Event::UndoLimits { limits: more } => limits.extend(more.iter().cloned()),
                // Why comes next; what was written until then must not be lost.
                Event::Stopped { outcome } => report.outcome = (**outcome).clone(),
                Event::Done { outcome } => {
                    report.outcome = (**outcome).clone();
                    done = true;
                }
                Event::Failed { kind, side, message, hint } => {
                    let side = side.map(|side| side.to_string());
                    report.error = Some(TableError {
                        kind: kind.clone(),
                        side,
                        message: message.clone(),
                        hint: hint.clone(),
                    });
                }
                _ => {}
            }
            // Nobody listens any more: the run is being stopped.
            if self.events.send(RunEvent::Table { table, event }).await.is_err() {
                break;
            }
        }
        report.outcome.add_undo_limits(&limits);
        if !done {
            report.error.get_or_insert_with(stopped);
            // A run that was cut off tells no counts of its own, and its trail may have been told of more than it counted.
            let outcome = &mut report.outcome;
            outcome.inserted = outcome.inserted.max(written.inserted);
            outcome.updated = outcome.updated.max(written.updated);
            outcome.deleted = outcome.deleted.max(written.deleted);
        }
        report
    }

    /// Compares a table that was proved once more, because later writes (of the tables `by`) may have changed it.
    pub(super) async fn prove_again(&self, table: usize, report: &mut TableReport, by: &[String]) {
        let Some(plan) = report.plan.clone() else { return };
        let planned = TableReport::planned(&plan);
        let options = TaskOptions {
            repair: None,
            sql: false,
            details_max: 0,
            run: None,
            trail: None,
            ..self.request.options.clone()
        };
        let again = self.round(table, TableTask { options, plan: plan.for_agents() }, planned).await;
        confirm(report, again, &by.join(", "));
        report.judge(self.request.writes());
    }
}

fn stopped() -> TableError {
    table_error(AgentError::new(FailureKind::Cancelled, "the run stopped before it could tell how it ended"))
}

/// A table's report after it was compared once more: its proof is that comparison's, or there is none.
fn confirm(report: &mut TableReport, again: TableReport, by: &str) {
    let (before, after) = (&mut report.outcome, &again.outcome);
    let (differences, same) = (after.differences(), after.source_root == after.target_root);
    add_costs(before, after);
    let proved = again.error.is_none() && after.proved && differences + after.unsettled == 0;
    let warning = match (&again.error, proved) {
        (Some(error), _) => {
            format!("not proved: it could not be compared again after the writes of {by}: {}", error.message)
        }
        (None, true) if same => format!("compared again after the writes of {by}"),
        (None, true) => {
            let rows = after.in_flight + after.tolerated;
            format!("compared again after the writes of {by}: {rows} rows in flight or within the tolerance")
        }
        (None, false) if differences > 0 => format!(
            "the writes of a later table changed it ({by}): {} missing, {} changed, {} extra at the end of the run",
            after.missing, after.changed, after.extra
        ),
        (None, false) => {
            format!(
                "not proved: rows would not hold still when it was compared again after the writes of {by}"
            )
        }
    };
    report.warnings.push(warning);
    before.proved = proved;
    before.left += differences;
    before.unsettled += after.unsettled;
    // Roots of two comparisons are not of one kind: those of the last one stand, where they say what it found.
    if again.error.is_some() {
        before.repaired_root = None;
    } else if same || !proved {
        before.source_root.clone_from(&after.source_root);
        match &mut before.repaired_root {
            Some(root) => root.clone_from(&after.target_root),
            None => before.target_root.clone_from(&after.target_root),
        }
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
        // Of a round that failed it is not known which of its rows the first one found as well.
        let also = |written: u64| if second.error.is_some() { 0 } else { written };
        after.missing = before.missing.max(also(before.inserted) + after.missing);
        after.changed = before.changed.max(also(before.updated) + after.changed);
        after.extra = before.extra.max(also(before.deleted) + after.extra);
    }
    after.inserted += before.inserted;
    after.updated += before.updated;
    after.deleted += before.deleted;
    after.undo_kept |= before.undo_kept;
    after.add_undo_limits(&before.undo_limits);
    add_costs(after, &before);
    after.target_root = before.target_root;
    after.target_rows = before.target_rows;
    if second.error.is_some() {
        // The second round found nothing out: what the first one knew is the last that is known.
        after.source_root = before.source_root;
        after.source_rows = before.source_rows;
        after.left = before.left;
        after.set_aside = before.set_aside;
        second.rows_set_aside = first.rows_set_aside;
    }
    if !first.differences.is_empty() {
        second.differences = first.differences;
    }
    second
}

/// What a table cost more: on the link, in rows read by key, in time.
fn add_costs(outcome: &mut TableOutcome, more: &TableOutcome) {
    outcome.bytes_to_source += more.bytes_to_source;
    outcome.bytes_to_target += more.bytes_to_target;
    outcome.messages_to_source += more.messages_to_source;
    outcome.messages_to_target += more.messages_to_target;
    outcome.handshake_bytes += more.handshake_bytes;
    outcome.round_trips += more.round_trips;
    outcome.source_rows_reread += more.source_rows_reread;
    outcome.target_rows_reread += more.target_rows_reread;
    outcome.seconds.scan += more.seconds.scan;
    outcome.seconds.locate += more.seconds.locate;
    outcome.seconds.recheck += more.seconds.recheck;
    outcome.seconds.repair += more.seconds.repair;
    outcome.seconds.verify += more.seconds.verify;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;

    fn report(change: impl Fn(&mut TableReport)) -> TableReport {
        let mut report = TableReport::new("t", "t");
        change(&mut report);
        report
    }

    #[test]
    fn a_round_that_failed_is_not_counted_twice() {
        let first = report(|report| {
            let outcome = &mut report.outcome;
            (outcome.missing, outcome.inserted, outcome.updated, outcome.left) = (10, 7, 2, 1);
            (outcome.bytes_to_target, outcome.round_trips, outcome.source_rows) = (1_000, 3, 50);
            outcome.source_root = "ab".to_owned();
            report.rows_set_aside = vec![SetAside { reason: "r".to_owned(), count: 1, examples: Vec::new() }];
        });
        let failed = report(|report| report.error = Some(stopped()));
        let both = joined(first.clone(), failed);
        assert_eq!((both.error.is_some(), both.outcome.proved), (true, false));
        let expected = TableOutcome { proved: false, ..first.outcome.clone() };
        assert_eq!(both.outcome, expected, "what the first round did, once");
        assert_eq!(both.rows_set_aside.len(), 1);
        // One that wrote before it failed adds what it wrote.
        let failed = report(|report| {
            report.error = Some(stopped());
            report.outcome.inserted = 5;
        });
        assert_eq!(joined(first, failed).outcome.inserted, 12);
    }

    #[test]
    fn a_proof_is_the_last_comparisons_or_none() {
        let proved = |report: &mut TableReport| {
            report.outcome.proved = true;
            report.outcome.inserted = 3;
            report.outcome.source_root = "11".to_owned();
            report.outcome.repaired_root = Some("11".to_owned());
        };
        let again = |change: fn(&mut TableReport)| {
            let mut first = report(proved);
            let second = report(|report| {
                report.outcome.proved = true;
                report.outcome.source_root = "22".to_owned();
                report.outcome.target_root = "22".to_owned();
                change(report);
            });
            confirm(&mut first, second, "w");
            first.judge(true);
            first
        };
        let same = again(|_| {});
        assert_eq!((same.verdict, same.outcome.repaired_root.as_deref()), (Verdict::Same, Some("22")));
        assert_eq!(same.outcome.source_root, "22");
        let changed = again(|report| {
            report.outcome.changed = 2;
            report.outcome.target_root = "33".to_owned();
        });
        assert_eq!(
            (changed.verdict, changed.outcome.left, changed.outcome.proved),
            (Verdict::Different, 2, false)
        );
        assert!(
            changed.warnings[0].contains("the writes of a later table changed it (w): 0 missing, 2 changed")
        );
        assert_eq!(changed.outcome.repaired_root.as_deref(), Some("33"));
        for broken in [
            again(|report| report.error = Some(stopped())),
            again(|report| report.outcome.unsettled = 1),
            again(|report| report.outcome.proved = false),
        ] {
            assert_eq!((broken.verdict, broken.outcome.proved), (Verdict::Unknown, false));
            assert!(broken.warnings[0].contains("not proved"), "{broken:?}");
        }
        let in_flight = again(|report| {
            report.outcome.in_flight = 1;
            report.outcome.target_root = "33".to_owned();
        });
        assert_eq!((in_flight.verdict, in_flight.outcome.source_root.as_str()), (Verdict::Same, "11"));
        assert!(in_flight.warnings[0].contains("1 rows in flight"));
    }
}
