//! An engine that can be held: it waits at a gate before it reads a snapshot or writes, and counts who waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use trueup::engine::{Engine, EngineError, Pressure};

use super::wrapped::{Wrapped, Wrapper};

pub(crate) type GatedEngine = Wrapped<Gate>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Snapshot,
    Apply,
}

pub(crate) struct Gate {
    inner: Arc<dyn Engine>,
    at: At,
    open: watch::Sender<bool>,
    waiting: Arc<AtomicUsize>,
    /// What it says of its server, one after the other; then calm.
    pressures: Mutex<VecDeque<Pressure>>,
}

struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Wrapped<Gate> {
    pub(crate) fn closed(inner: Arc<dyn Engine>, at: At) -> Arc<Self> {
        Arc::new(Self(Gate {
            inner,
            at,
            open: watch::channel(false).0,
            waiting: Arc::default(),
            pressures: Mutex::default(),
        }))
    }

    /// An open gate before a server that is pressed.
    pub(crate) fn pressed(inner: Arc<dyn Engine>, pressures: Vec<Pressure>) -> Arc<Self> {
        let engine = Self::closed(inner, At::Snapshot);
        engine.open();
        engine.0.pressures.lock().unwrap().extend(pressures);
        engine
    }

    /// What it has not said yet.
    pub(crate) fn pressures_left(&self) -> usize {
        self.0.pressures.lock().unwrap().len()
    }

    pub(crate) fn open(&self) {
        self.0.open.send_replace(true);
    }

    /// Waits until so many wait at the gate.
    pub(crate) async fn until_waiting(&self, count: usize) {
        for _ in 0..1_000 {
            if self.0.waiting.load(Ordering::SeqCst) == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} wait at the gate, not {count}", self.0.waiting.load(Ordering::SeqCst));
    }
}

impl Gate {
    async fn pass(&self, at: At) {
        if at != self.at {
            return;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(self.waiting.clone());
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

#[async_trait]
impl Wrapper for Gate {
    fn inner(&self) -> &Arc<dyn Engine> {
        &self.inner
    }

    async fn before_snapshot(&self) {
        self.pass(At::Snapshot).await;
    }

    async fn before_write(&self) {
        self.pass(At::Apply).await;
    }

    async fn pressure(&self, _lag: bool, _running: bool) -> Result<Pressure, EngineError> {
        Ok(self.pressures.lock().unwrap().pop_front().unwrap_or_default())
    }
}
