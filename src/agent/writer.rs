//! The one place from which an engine is asked to write: what is written was permitted, and its intent is recorded.

use std::sync::Arc;
use std::time::Duration;

use super::trail::Recorded;
use crate::engine::{Engine, EngineError, ErrorKind};
use crate::model::{
    ChangeOutcome, PermittedChanges, PermittedExchange, PermittedInserts, TableAccess, fail_point,
};

/// A deadlock or a broken connection is tried again this often.
const ATTEMPTS_MAX: u32 = 5;

type Written = Result<Vec<ChangeOutcome>, EngineError>;

pub(super) async fn apply(
    engine: &dyn Engine,
    access: &Arc<TableAccess>,
    batch: &Recorded<PermittedChanges>,
) -> Written {
    patiently(|| engine.apply(access, batch.what())).await
}

pub(super) async fn insert(
    engine: &dyn Engine,
    access: &Arc<TableAccess>,
    batch: &Recorded<PermittedInserts>,
) -> Written {
    patiently(|| engine.insert(access, batch.what())).await
}

/// An exchange that is made already is not found as it should be, so it is not tried again.
pub(super) async fn exchange(
    engine: &dyn Engine,
    access: &Arc<TableAccess>,
    batch: &Recorded<PermittedExchange>,
) -> Written {
    fail_point();
    engine.replace(access, batch.what()).await
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
