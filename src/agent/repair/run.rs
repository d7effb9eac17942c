//! From the rows that were located to a verdict, step by step.

use std::time::Duration;

use tokio::time::Instant;

use super::super::error::{AgentError, FailureKind};
use super::super::event::{Event, Phase};
use super::super::target::{Located, Target};
use super::super::undo::limits::Operations;
use super::second_scan;
use super::settle::Settlement;
use crate::model::Operation;

/// Times that rows which changed under a retried write are settled again.
const AFTER_RETRIES_MAX: u32 = 3;

/// Time for a batch that is being written to end, where the run fails for another reason.
const LAST_BATCH: Duration = Duration::from_secs(10);

#[tracing::instrument(level = "info", skip_all)]
pub(crate) async fn settle(target: &mut Target<'_>, located: Located) -> Result<(), AgentError> {
    let mut work = Settlement::new(target, located).await?;
    let settled = all(&mut work).await;
    if settled.is_err() && work.writing.is_some() {
        // What became of the last batch is told too; its own error is not the first.
        let _ = tokio::time::timeout(LAST_BATCH, work.finish_writing()).await;
    }
    let told = work.tell_refusals().await;
    settled.and(told)
}

async fn all(work: &mut Settlement<'_, '_>) -> Result<(), AgentError> {
    say_undo_limits(work).await?;
    let since = Instant::now();
    let phase = if work.target.writes() { Phase::Repair } else { Phase::Recheck };
    work.target.tell(Event::Phase { phase }).await?;
    let empty = work.spool();
    let suspects = std::mem::replace(&mut work.located.suspects, empty);
    let suspects = second_scan::settle(work, suspects).await?;
    work.passes(suspects).await?;
    for range in std::mem::take(&mut work.located.missing_ranges) {
        work.missing_range(range).await?;
    }
    // Rows of ranges that turned out to be there, or that changed under the writes.
    for _ in 0..AFTER_RETRIES_MAX {
        let left_over = work.take_again();
        work.passes(left_over).await?;
        work.retry_refused().await?;
        if work.again.len() == 0 && work.refused.len() == 0 {
            break;
        }
    }
    let again = work.take_again();
    work.give_up(again).await?;
    work.target.outcome.by_range = work.parts.counts().to_vec();
    work.target.outcome.over_limit = work.over_limit;
    if let Some(error) = work.located.balance.error(&work.target.outcome) {
        let what = format!("what was found out about the rows does not add up: {error}");
        return Err(AgentError::new(FailureKind::Inconsistent, what).with_hint(
            "run the command again; if it comes again it is a defect of trueup, please report it",
        ));
    }
    work.trail.close().await?;
    let seconds = since.elapsed().as_secs_f64();
    if work.target.writes() {
        work.target.outcome.seconds.repair = seconds;
        work.verify().await?;
    } else {
        work.target.outcome.seconds.recheck = seconds;
    }
    work.say_why_nothing_is_claimed();
    Ok(())
}

/// What of the writes to come cannot be taken back is told before the first of them, and by a dry run.
async fn say_undo_limits(work: &mut Settlement<'_, '_>) -> Result<(), AgentError> {
    if work.over_limit {
        return Ok(());
    }
    let located = &work.located;
    let may = |operation| work.shown.refuses(operation).is_none();
    let operations = Operations {
        insert: may(Operation::Insert) && located.missing > 0,
        update: may(Operation::Update) && located.changed > 0,
        delete: may(Operation::Delete) && located.extra > 0,
    };
    work.trail.say_limits(operations).await
}
