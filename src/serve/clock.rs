//! The clock of the wall beside one that only goes forward: whether it was set, and what was put right since.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// Clocks that are kept right are slewed by less between two looks.
const JUMP_MIN_MS: i64 = 5_000;

#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<(Timestamp, Instant)>,
    jumped: Option<Instant>,
    /// What is to be known of it: of the last jump, and of due times that were wrong.
    notes: [Option<String>; 2],
}

impl Clock {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By how many milliseconds the clock was set forward since the last look, or back where it is negative.
    pub(super) fn look(&self, now: Timestamp) -> Option<i64> {
        let mut state = self.state();
        let before = state.last.replace((now, Instant::now()));
        let (then, since) = before?;
        let passed = i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX);
        let jump = now.as_millisecond().saturating_sub(then.as_millisecond()).saturating_sub(passed);
        if jump.abs() < JUMP_MIN_MS {
            return None;
        }
        state.jumped = Some(Instant::now());
        let seconds = jump.unsigned_abs() / 1000;
        let way = if jump < 0 { "back" } else { "forward, or the machine slept," };
        state.notes[0] =
            Some(format!("the clock was set {way} by {seconds} s, seen at {}", super::text(now)));
        Some(jump)
    }

    pub(super) fn corrected(&self, what: String) {
        self.state().notes[1] = Some(what);
    }

    /// Whether it was set in so long a time.
    pub(super) fn jumped_within(&self, time: Duration) -> bool {
        self.state().jumped.is_some_and(|at| at.elapsed() < time)
    }

    pub(super) fn notes(&self) -> Vec<String> {
        self.state().notes.iter().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_set_is_seen() {
        let clock = Clock::default();
        let at = |second: i64| Timestamp::from_second(1_000_000 + second).unwrap();
        assert_eq!(clock.look(at(0)), None);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(clock.look(at(11)), None);
        assert!(!clock.jumped_within(Duration::from_secs(60)) && clock.notes().is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(clock.look(at(12 - 3600)), Some(-3_600_000));
        assert!(clock.notes()[0].starts_with("the clock was set back by 3600 s"), "{:?}", clock.notes());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(clock.look(at(13 + 40 * 86_400)), Some((3600 + 40 * 86_400) * 1000));
        assert!(clock.jumped_within(Duration::from_secs(60)));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(!clock.jumped_within(Duration::from_secs(60)));
    }
}
