//! A run's sign of life in the ledger, for as long as the run goes on.

use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;

use super::stamp::timestamp;
use crate::ledger::Ledger;

const EVERY: Duration = Duration::from_secs(60);

/// Ends when it is dropped.
#[derive(Debug)]
pub(super) struct RunBeat(JoinHandle<()>);

impl RunBeat {
    pub(super) fn start(ledger: Ledger, run: String) -> Self {
        Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                // A ledger that does not answer for a moment has not forgotten the last one.
                if matches!(ledger.beat(&run, &timestamp(SystemTime::now())).await, Ok(false)) {
                    return;
                }
            }
        }))
    }
}

impl Drop for RunBeat {
    fn drop(&mut self) {
        self.0.abort();
    }
}
