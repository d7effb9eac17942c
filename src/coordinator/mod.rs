//! Runs: which tables, under which plans, in which order; what became of each.
//!
//! Invariant: rows never pass here. A coordinator sees schemas, counts, keys for the report, and roots.

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub mod backfill;
mod backfill_account;
mod chunks;
mod far_steps;
mod pairs;
mod proofs;
pub mod steps;
pub mod survey;
mod table;
mod together;
mod undo;
mod written;

pub use pairs::{PairRequest, TablePair, TablePairs, find as find_pairs};
pub use undo::undo;
pub use written::Written;

pub use proofs::{Wrote, may_change};

use proofs::Proofs;

use crate::agent::{AgentError, AgentHandle, Allow, TaskOptions, error::FailureKind};
use crate::model::{Role, Wishes};
use crate::report::{TableReport, Verdict};

/// What a run is asked to do.
#[derive(Debug, Clone)]
pub struct RunRequest {
    pub pairs: PairRequest,
    pub wishes: Wishes,
    pub options: TaskOptions,
    /// Differences kept for the report of each table.
    pub details_kept: u64,
    pub tables_in_flight: usize,
    /// Cancelled where the run is to end early: tables under way end with an error of kind `cancelled`.
    pub stop: CancellationToken,
}

impl RunRequest {
    pub fn writes(&self) -> bool {
        self.options.repair.is_some() && !self.options.dry_run
    }
}

/// Told while a run goes on; `table` is the index in `TablePairs::pairs`.
#[derive(Debug)]
pub enum RunEvent {
    Planned { table: usize, name: String, source_rows: Option<u64>, target_rows: Option<u64> },
    Table { table: usize, event: crate::agent::Event },
    Finished { table: usize, report: Box<TableReport> },
}

#[derive(Debug)]
pub struct RunOutcome {
    pub tables: Vec<TableReport>,
    pub only_in_source: Vec<String>,
    pub only_in_target: Vec<String>,
    /// What was not compared though all tables were asked for: side, kind and name, as "source: view v".
    pub left_out: Vec<String>,
}

/// The rounds that rows refused for a foreign key are tried again after the other tables were repaired.
const FOREIGN_KEY_ROUNDS: usize = 8;

/// Reconciles every pair. An error here means that no table could be begun; a table's own error is in its report.
pub async fn run(
    source: &AgentHandle,
    target: &AgentHandle,
    request: &RunRequest,
    events: &mpsc::Sender<RunEvent>,
) -> Result<RunOutcome, AgentError> {
    let servers = (
        source.server().await.map_err(|error| error.on(Role::Source))?,
        target.server().await.map_err(|error| error.on(Role::Target))?,
    );
    if request.writes() && !target.may_write() {
        return Err(AgentError::new(FailureKind::Refused, "the target agent was started read-only")
            .with_hint("start it with --allow-write")
            .on(Role::Target));
    }
    let pairs = pairs::find(source, target, &request.pairs).await?;
    let parents_first = request.writes() || request.options.repair.is_some();
    let order =
        if parents_first { pairs::parents_first(&pairs.pairs) } else { (0..pairs.pairs.len()).collect() };
    // A child's rows need its parents' rows: repairs go table by table.
    let in_flight = if parents_first { 1 } else { request.tables_in_flight.max(1) };
    let context = table::Context { source, target, servers: &servers, request, events };
    let mut reports: Vec<Option<TableReport>> = pairs.pairs.iter().map(|_| None).collect();
    let mut proofs = Proofs::new(&pairs.pairs);
    for (at, report) in together::equal_tables(&context, &pairs.pairs).await {
        reports[at] = Some(report);
    }
    let left: Vec<usize> = order.iter().copied().filter(|at| reports[*at].is_none()).collect();
    if request.writes() {
        for at in left {
            let held = pairs::refused_parent(&pairs.pairs, at, &reports);
            let report = context.reconcile(at, &pairs.pairs[at], held.as_deref()).await;
            proofs.ended(at, wrote(&report));
            reports[at] = Some(report);
        }
    } else {
        let mut running = futures::stream::iter(left)
            .map(|at| {
                let (context, pair) = (&context, &pairs.pairs[at]);
                async move { (at, context.reconcile(at, pair, None).await) }
            })
            .buffer_unordered(in_flight);
        while let Some((at, report)) = running.next().await {
            proofs.ended(at, wrote(&report));
            reports[at] = Some(report);
        }
    }
    if request.writes() {
        again_for_foreign_keys(&context, &pairs, &order, &mut reports, &mut proofs).await;
        say_of_cycles(&pairs.pairs, &mut reports);
        prove_again(&context, &proofs, &mut reports).await;
    }
    let mut tables = Vec::with_capacity(reports.len());
    for (at, report) in reports.into_iter().enumerate() {
        let Some(report) = report else { continue };
        let _ = events.send(RunEvent::Finished { table: at, report: Box::new(report.clone()) }).await;
        tables.push(report);
    }
    Ok(RunOutcome {
        tables,
        only_in_source: pairs.only_in_source,
        only_in_target: pairs.only_in_target,
        left_out: pairs.left_out,
    })
}

/// A table without a plan was not begun.
fn wrote(report: &TableReport) -> Wrote {
    Wrote::of(&report.outcome, report.error.is_some() && report.plan.is_some())
}

/// Tables that were proved before a later table's writes may have changed them are compared once more; nothing is
/// written any more by then.
async fn prove_again(context: &table::Context<'_>, proofs: &Proofs<'_>, reports: &mut [Option<TableReport>]) {
    for (at, report) in reports.iter_mut().enumerate() {
        let Some(report) = report.as_mut().filter(|report| report.outcome.proved) else { continue };
        let by = proofs.doubted_by(at);
        if !by.is_empty() {
            context.prove_again(at, report, &by).await;
        }
    }
}

/// Deletes wait for the children's deletes, inserts of cycles for each other: tables with rows set aside are run
/// again, children first, as long as that gets fewer.
async fn again_for_foreign_keys(
    context: &table::Context<'_>,
    pairs: &TablePairs,
    order: &[usize],
    reports: &mut [Option<TableReport>],
    proofs: &mut Proofs<'_>,
) {
    let set_aside = |reports: &[Option<TableReport>]| -> u64 {
        reports.iter().flatten().map(|report| report.outcome.set_aside).sum()
    };
    for _ in 0..FOREIGN_KEY_ROUNDS {
        let before = set_aside(reports);
        if before == 0 || pairs.pairs.len() < 2 || context.request.stop.is_cancelled() {
            return;
        }
        for at in order.iter().rev().copied() {
            let Some(first) = reports[at].take() else { continue };
            reports[at] = Some(if first.outcome.set_aside > 0 {
                let second = context.reconcile(at, &pairs.pairs[at], None).await;
                proofs.ended(at, wrote(&second));
                table::joined(first, second)
            } else {
                first
            });
        }
        if set_aside(reports) >= before {
            return;
        }
    }
}

/// Rows of tables that refer to each other can need each other: then neither is written before the other.
fn say_of_cycles(tables: &[TablePair], reports: &mut [Option<TableReport>]) {
    for (at, report) in reports.iter_mut().enumerate() {
        let Some(report) = report.as_mut().filter(|report| report.outcome.set_aside > 0) else { continue };
        let others = pairs::cycle_of(tables, at);
        if !others.is_empty() {
            report.warnings.push(format!(
                "it and {} refer to each other, and tables are written one after the other; where the constraints are deferrable, \
                 repair --sql FILE writes rows that need each other in one transaction",
                others.join(", ")
            ));
        }
    }
}

/// The verdict of the whole run.
pub fn verdict(outcome: &RunOutcome) -> Verdict {
    crate::report::overall(&outcome.tables, outcome.only_in_source.len() + outcome.only_in_target.len())
}

/// What `--allow` means when nothing is said: rows are added and changed, never removed.
pub const ALLOW_DEFAULT: Allow = Allow { insert: true, update: true, delete: false };
