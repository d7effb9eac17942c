//! From the rows that were located to a proof: puts the stages together.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::compare::describe::Describer;
use super::super::compare::key_histogram::Parts;
use super::super::compare::suspects::Spool;
use super::super::error::AgentError;
use super::super::event::{Event, Phase};
use super::super::outcome::TableOutcome;
use super::super::scan::run_error;
use super::super::target::{Located, MissingRange, Target};
use super::batch_writer::BatchWriter;
use super::bulk_insert;
use super::passes::Passes;
use super::policy::Policy;
use super::proof::RepairProof;
use super::retry::retry_refused;
use super::second_scan::SecondScan;
use super::settle::Settlement;
use super::verdict::Verdicts;

/// Times that rows which changed under a retried write are settled again.
const AFTER_RETRIES_MAX: u32 = 3;

/// Time for a batch that is being written to end, where the run fails for another reason.
const LAST_BATCH: Duration = Duration::from_secs(10);

#[tracing::instrument(level = "info", skip_all)]
pub(crate) async fn settle(target: &mut Target<'_>, located: Located) -> Result<(), AgentError> {
    let policy = Policy::new(target, &located);
    let options = &target.task.options;
    let describer =
        Describer::new(&target.task.plan, &target.access, &options.tolerance, options.show_values);
    let describer = Arc::new(describer);
    let mut writer = BatchWriter::new(target, Arc::clone(&describer)).await?;
    let parts = Parts::of(&located.run).map_err(|error| run_error("read the run", &error))?;
    if !policy.is_over_limit() {
        // What cannot be taken back is told before the first write, and by a dry run.
        writer.say_limits(policy.operations(&located)).await?;
    }
    let since = Instant::now();
    let Located {
        suspects,
        missing_ranges,
        balance,
        missing,
        changed,
        extra,
        run,
        tree,
        source_root,
        row_bytes,
    } = located;
    let balance = (balance, missing + changed + extra);
    let mut verdicts = Verdicts::new(target, describer, policy.writes(), parts, balance);
    let phase = if target.writes() { Phase::Repair } else { Phase::Recheck };
    target.tell(Event::Phase { phase }).await?;
    let suspects = SecondScan::after(&run, tree.root()).settle(target, &mut verdicts, suspects).await?;

    let over_limit = policy.is_over_limit();
    let mut settlement = Settlement::new(target, policy, verdicts, writer);
    let mut passes = Passes::new(target, row_bytes);
    let settled = settle_rows(target, &mut settlement, &mut passes, suspects, missing_ranges).await;
    if settled.is_err() && settlement.writer().is_writing() {
        // What became of the last batch is counted too; its own error is not the first.
        let _ = tokio::time::timeout(LAST_BATCH, settlement.finish_writing()).await;
    }

    let (mut verdicts, mut writer, overlay) = settlement.into_parts();
    verdicts.add_to(&mut target.outcome);
    target.outcome.undo_kept |= writer.keeps_undo();
    let proved = async {
        settled?;
        target.outcome.by_range = verdicts.by_range();
        target.outcome.over_limit = over_limit;
        verdicts.check(&target.outcome)?;
        writer.close().await?;
        let seconds = since.elapsed().as_secs_f64();
        if target.writes() {
            target.outcome.seconds.repair = seconds;
            RepairProof::new(overlay, run, tree, source_root, passes.into_requests()).verify(target).await?;
        } else {
            target.outcome.seconds.recheck = seconds;
        }
        doubt_unsettled(&mut target.outcome);
        Ok(())
    };
    let proved = proved.await;
    let reported = verdicts.report_refusals(target).await;
    proved.and(reported)
}

/// Every row comes to a verdict.
async fn settle_rows(
    target: &mut Target<'_>,
    settlement: &mut Settlement<'_>,
    passes: &mut Passes,
    suspects: Spool,
    ranges: Vec<MissingRange>,
) -> Result<(), AgentError> {
    passes.run(target, settlement, suspects).await?;
    for range in ranges {
        bulk_insert::fill(target, settlement, passes, &range).await?;
    }
    // Rows of ranges that turned out to be there, or that changed under the writes.
    for _ in 0..AFTER_RETRIES_MAX {
        let left_over = settlement.take_again(target);
        passes.run(target, settlement, left_over).await?;
        retry_refused(target, settlement, passes).await?;
        if settlement.rows_to_look_at() == 0 && settlement.rows_refused() == 0 {
            break;
        }
    }
    let again = settlement.take_again(target);
    settlement.give_up(target, again).await
}

fn doubt_unsettled(outcome: &mut TableOutcome) {
    if outcome.unsettled > 0 {
        outcome.doubts.push(format!(
            "{} rows were others each time that they were read, the last time too",
            outcome.unsettled
        ));
    }
}
