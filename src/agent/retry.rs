//! Writes that are tried again where the database says that trying again helps.

use std::time::Duration;

use crate::engine::EngineError;
use crate::model::ChangeOutcome;

/// A deadlock or a broken connection is tried again this often.
const ATTEMPTS_MAX: u32 = 5;

/// Writing again is safe: what was written meanwhile is found as it should be.
pub(super) async fn patiently<W>(write: impl Fn() -> W) -> Result<Vec<ChangeOutcome>, EngineError>
where
    W: Future<Output = Result<Vec<ChangeOutcome>, EngineError>>,
{
    let mut attempt = 0;
    loop {
        match write().await {
            Err(error) if error.is_transient() && attempt < ATTEMPTS_MAX => {
                attempt += 1;
                tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
            }
            done => return done,
        }
    }
}
