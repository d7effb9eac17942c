//! How much of a database an agent takes: rows a second, and a pause while the server is pressed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::error::AgentError;
use crate::engine::{Engine, Pressure};

/// The server is asked how it is this often, while there is work.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at a server that is pressed; doubled up to the second.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What the user allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Courtesy {
    /// Of all tables that are read or written together.
    pub rows_per_second: Option<u64>,
    /// Work pauses while a standby, or this server as one, is further behind.
    pub max_lag: Option<Duration>,
    /// Work pauses while more statements than this run on the server, its own left out.
    pub max_running: Option<u64>,
}

impl Courtesy {
    fn is_exceeded(&self, pressure: &Pressure) -> bool {
        self.max_lag.is_some_and(|most| pressure.lag.is_some_and(|lag| lag > most))
            || self.max_running.is_some_and(|most| pressure.running.is_some_and(|running| running > most))
    }
}

/// Shared by all that one agent does.
#[derive(Debug)]
pub(super) struct Pace {
    courtesy: Courtesy,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the rows admitted so far are paid for.
    paid: Option<Instant>,
    looked: Option<Instant>,
}

impl Pace {
    pub(super) fn new(courtesy: Courtesy) -> Self {
        Self { courtesy, state: Mutex::new(State { paid: None, looked: None }) }
    }

    /// More rows than this are not read or written at once: what is allowed in a second.
    pub(super) fn together_max(&self) -> usize {
        let rate = self.courtesy.rows_per_second.unwrap_or(u64::MAX);
        usize::try_from(rate).unwrap_or(usize::MAX).max(1)
    }

    /// Returns when these rows may be read or written. An error is one of asking the server.
    pub(super) async fn admit(&self, engine: &Arc<dyn Engine>, rows: usize) -> Result<(), AgentError> {
        if self.courtesy == Courtesy::default() {
            return Ok(());
        }
        // Others wait behind the lock, in their turn.
        let mut state = self.state.lock().await;
        if let Some(rate) = self.courtesy.rows_per_second {
            let now = Instant::now();
            let paid = state.paid.unwrap_or(now).max(now);
            let micros = (rows as u64).saturating_mul(1_000_000) / rate.max(1);
            state.paid = Some(paid + Duration::from_micros(micros));
            tokio::time::sleep_until(paid).await;
        }
        if self.courtesy.max_lag.is_some() || self.courtesy.max_running.is_some() {
            self.look(engine, &mut state).await?;
        }
        Ok(())
    }

    async fn look(&self, engine: &Arc<dyn Engine>, state: &mut State) -> Result<(), AgentError> {
        if state.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        let mut pause = PAUSE;
        loop {
            let Courtesy { max_lag, max_running, .. } = self.courtesy;
            let pressure = engine.pressure(max_lag.is_some(), max_running.is_some()).await?;
            if !self.courtesy.is_exceeded(&pressure) {
                state.looked = Some(Instant::now());
                return Ok(());
            }
            tracing::info!(?pressure, "the server is pressed: waiting");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_limit_is_enough_and_what_is_not_known_is_none() {
        let courtesy =
            Courtesy { max_lag: Some(Duration::from_secs(5)), max_running: Some(10), ..Courtesy::default() };
        let pressure = |lag: Option<u64>, running| Pressure { lag: lag.map(Duration::from_secs), running };
        assert!(
            !courtesy.is_exceeded(&pressure(Some(5), Some(10)))
                && !courtesy.is_exceeded(&pressure(None, None))
        );
        assert!(
            courtesy.is_exceeded(&pressure(Some(6), Some(0)))
                && courtesy.is_exceeded(&pressure(None, Some(11)))
        );
        assert!(!Courtesy::default().is_exceeded(&pressure(Some(1_000), Some(1_000))));
    }
}
