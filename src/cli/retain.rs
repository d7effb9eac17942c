//! What a coordinator removes with time: old runs and entries by the rules, and messages that were sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::abandoned::{Silence, close_abandoned};
use super::stamp::{before, by, timestamp};
use crate::ledger::{Keep, Ledger, LedgerError, RunStart};
use crate::serve::{Coordinator, Runner};

const EVERY: Duration = Duration::from_secs(3600);
/// What was sent is kept for so long, to be looked at.
const OUTBOX_KEEP: Duration = Duration::from_secs(30 * 24 * 3600);
/// After the clock was set nothing is judged by its age for so long: it may have been set wrong.
const CLOCK_DOUBT: Duration = Duration::from_secs(24 * 3600);

pub(super) async fn retain<R: Runner>(
    ledger: Ledger,
    coordinator: Arc<Coordinator<R>>,
    stop: CancellationToken,
) {
    let mut silent = BTreeMap::new();
    loop {
        if let Err(error) = once(&ledger, &coordinator, &mut silent).await {
            coordinator.metrics.failure("retention");
            tracing::error!("what is old could not be removed: {}", error.what);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn once<R: Runner>(
    ledger: &Ledger,
    coordinator: &Coordinator<R>,
    silent: &mut BTreeMap<String, String>,
) -> Result<(), LedgerError> {
    if coordinator.clock_was_set_within(CLOCK_DOUBT) {
        tracing::warn!("nothing old is removed: the clock was set less than a day ago");
        close_abandoned(ledger, Silence::NotJudged).await?;
        return Ok(());
    }
    close_abandoned(ledger, Silence::SeenTwice(silent)).await?;
    let rules = coordinator.config().retention.clone();
    let keep = Keep {
        runs_since: rules.runs.and_then(before),
        last_runs: rules.last_runs,
        trail_since: rules.trail.and_then(before),
    };
    if let Some(before) = before(OUTBOX_KEEP) {
        ledger.prune_outbox(&before).await?;
    }
    if keep.runs_since.is_some() || keep.trail_since.is_some() {
        let start = RunStart { started_at: timestamp(SystemTime::now()), ..by() };
        let removed = ledger.prune(&keep, &start).await?;
        if removed.runs + removed.entries > 0 {
            tracing::info!(runs = removed.runs, entries = removed.entries, "removed what is old");
        }
    }
    Ok(())
}
