//! The one place from which an engine is asked to write: what is written was permitted, and its intent is recorded.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::recorder::Recorded;
use crate::engine::{Engine, EngineError, ErrorKind, LockWait};
use crate::model::{
    ChangeOutcome, PermittedChanges, PermittedExchange, PermittedInserts, Rejection, RejectionKind,
    TableAccess, fail_point,
};

/// A deadlock or a broken connection is tried again this often.
const ATTEMPTS_MAX: u32 = 5;
/// So long the rows of a batch that others hold locks on are told from those that can be written.
const APART_MAX: Duration = Duration::from_secs(15);
const LOCKED: &str = "another session holds a lock on it";
const BESIDE_LOCKED: &str = "not tried, as other sessions hold locks on rows beside it";

type Written = Result<Vec<ChangeOutcome>, EngineError>;

pub(crate) async fn apply(
    engine: &dyn Engine,
    access: &Arc<TableAccess>,
    batch: &Recorded<PermittedChanges>,
) -> Written {
    match patiently(|| engine.apply(access, batch.what())).await {
        Err(error) if error.kind == ErrorKind::Locked => apart(engine, access, batch.what(), error).await,
        done => done,
    }
}

pub(crate) async fn insert(
    engine: &dyn Engine,
    access: &Arc<TableAccess>,
    batch: &Recorded<PermittedInserts>,
) -> Written {
    match patiently(|| engine.insert(access, batch.what())).await {
        Err(error) if error.kind == ErrorKind::Locked => {
            apart(engine, access, &batch.what().changes(), error).await
        }
        done => done,
    }
}

/// An exchange that is made already is not found as it should be, so it is not tried again.
pub(crate) async fn exchange(
    engine: &dyn Engine,
    access: &Arc<TableAccess>,
    batch: &Recorded<PermittedExchange>,
) -> Written {
    fail_point();
    match engine.replace(access, batch.what()).await {
        Err(error) if error.kind == ErrorKind::Locked => {
            let rows = batch.what().as_ref().len();
            Ok(vec![ChangeOutcome::Failed(locked(if rows == 1 { LOCKED } else { BESIDE_LOCKED })); rows])
        }
        done => done,
    }
}

fn locked(reason: &str) -> Rejection {
    Rejection { kind: RejectionKind::Locked, reason: reason.to_owned() }
}

/// Somebody holds a lock on a row of these, or on the table: halves are written, and halves of those that are refused again, until
/// the locked rows are alone. Each waits but shortly, and all of them no longer than a limit.
async fn apart(
    engine: &dyn Engine,
    access: &Arc<TableAccess>,
    changes: &PermittedChanges,
    why: EngineError,
) -> Written {
    tracing::warn!(table = %access.table, rows = changes.len(), "{why}; its rows are tried apart");
    let began = Instant::now();
    let mut outcomes = vec![ChangeOutcome::Failed(locked(BESIDE_LOCKED)); changes.len()];
    let mut todo = halves(0..changes.len());
    while let Some(range) = todo.pop() {
        if began.elapsed() > APART_MAX {
            break;
        }
        let part = changes.part(range.clone());
        match patiently(|| engine.apply_within(access, &part, LockWait::Short)).await {
            Ok(done) => {
                for (slot, outcome) in outcomes.iter_mut().skip(range.start).zip(done) {
                    *slot = outcome;
                }
            }
            Err(error) if error.kind == ErrorKind::Locked && range.len() > 1 => todo.extend(halves(range)),
            Err(error) if error.kind == ErrorKind::Locked => {
                if let Some(slot) = outcomes.get_mut(range.start) {
                    *slot = ChangeOutcome::Failed(locked(LOCKED));
                }
            }
            // What was written by then is found so when it is written again.
            Err(error) => return Err(error),
        }
    }
    Ok(outcomes)
}

/// The later half is first, to be taken last. One alone is its only half.
fn halves(range: Range<usize>) -> Vec<Range<usize>> {
    let middle = range.start + range.len() / 2;
    [middle..range.end, range.start..middle].into_iter().filter(|half| !half.is_empty()).collect()
}

/// Writing again is safe: what an attempt before wrote is found as it should be, and counts as written. What somebody else
/// made of a row is not this run's, and not for its undo to take back.
async fn patiently<W>(write: impl Fn() -> W) -> Written
where
    W: Future<Output = Written>,
{
    let (mut attempt, mut may_have_written) = (0, false);
    loop {
        fail_point();
        match write().await {
            // Waited for long enough.
            Err(error) if error.kind == ErrorKind::Locked => return Err(error),
            Err(error) if error.is_transient() && attempt < ATTEMPTS_MAX => {
                attempt += 1;
                may_have_written |= error.kind == ErrorKind::Lost;
                tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
            }
            Ok(outcomes) => {
                let own = if may_have_written { ChangeOutcome::Written } else { ChangeOutcome::Stale };
                let of = |outcome| if outcome == ChangeOutcome::Already { own.clone() } else { outcome };
                return Ok(outcomes.into_iter().map(of).collect());
            }
            failed => return failed,
        }
    }
}
