//! How far the runs of this process are, for whoever looks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::agent::Event;
use crate::coordinator::RunEvent;
use crate::dashboard::Progress;
use crate::model::Role;

/// Runs under way, by id.
#[derive(Debug, Default)]
pub(super) struct Live(Mutex<BTreeMap<String, State>>);

#[derive(Debug, Default)]
struct State {
    checks: String,
    table: String,
    /// Rows read, and the server's estimate of them, at the source and at the target.
    sides: [(u64, Option<u64>); 2],
}

impl Live {
    pub(super) fn progress(&self) -> Vec<Progress> {
        let runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let progress = |(run, state): (&String, &State)| {
            let [source, target] = &state.sides;
            let done = source.0 + target.0;
            let of = source.1.zip(target.1).map(|(source, target)| source + target);
            Progress {
                run: run.clone(),
                what: [state.checks.as_str(), state.table.as_str()].join(" ").trim().to_owned(),
                done,
                // An estimate may be too low.
                total: of.map(|of| of.max(done)),
            }
        };
        runs.iter().map(progress).collect()
    }
}

/// One run's entry; gone when dropped.
#[derive(Debug)]
pub(super) struct Watched {
    live: Arc<Live>,
    run: String,
}

impl Watched {
    pub(super) fn new(live: Arc<Live>, run: &str, checks: &[&str]) -> Self {
        let state = State { checks: checks.join(", "), ..State::default() };
        live.0.lock().unwrap_or_else(PoisonError::into_inner).insert(run.to_owned(), state);
        Self { live, run: run.to_owned() }
    }

    pub(super) fn note(&self, event: &RunEvent) {
        let mut runs = self.live.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(state) = runs.get_mut(&self.run) else { return };
        match event {
            RunEvent::Planned { name, source_rows, target_rows, .. } => {
                state.table.clone_from(name);
                state.sides = [(0, *source_rows), (0, *target_rows)];
            }
            RunEvent::Table { event: Event::Progress { side, rows }, .. } => {
                state.sides[usize::from(*side == Role::Target)].0 = *rows;
            }
            _ => {}
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.live.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.run);
    }
}
