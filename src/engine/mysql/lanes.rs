//! Lanes that see one state of a table, and reading by them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::errors;
use super::lane::{Lane, LaneError};
use super::scan::{ATTEMPTS, BEGIN, ISOLATION, POSITION, Source, position_of};
use super::session::Target;
use super::wire::{Piece, RowDecoder};
use crate::engine::places::{Places, push_all};
use crate::engine::{EngineError, RowSinks};

fn until(patience: Duration) -> Box<dyn Fn() -> bool + Send> {
    let deadline = Instant::now() + patience;
    Box::new(move || Instant::now() > deadline)
}

/// Lanes, each with a snapshot of its own: as many as the server has connections for; none where the connection is not
/// one that a lane can make.
pub(super) async fn open(target: &Target, count: usize) -> Vec<Lane> {
    let opened = join_all((0..count).map(|_| {
        let target = target.clone();
        tokio::task::spawn_blocking(move || {
            let mut lane = Lane::open(&target, until(target.timeout))?;
            for sql in [ISOLATION, BEGIN] {
                lane.run(sql).ok()?;
            }
            Some(lane)
        })
    }))
    .await;
    opened.into_iter().filter_map(Result::ok).flatten().collect()
}

/// Lanes at the same position, where writers leave a moment for it; one lane otherwise.
pub(super) async fn at_one_position(lanes: Vec<Lane>, patience: Duration) -> Vec<Lane> {
    let agree = move || {
        let mut lanes = lanes;
        for lane in &mut lanes {
            lane.give_up_when(until(patience));
        }
        for _ in 0..ATTEMPTS {
            let mut positions = Vec::with_capacity(lanes.len());
            lanes.retain_mut(|lane| {
                lane.texts(POSITION).map(|rows| positions.push(position_of(&rows))).is_ok()
            });
            let (first, others) = match positions.split_first() {
                Some((Some(first), others)) => (first, others),
                _ => break,
            };
            if others.iter().all(|other| other.as_ref() == Some(first)) {
                return lanes;
            }
            lanes.retain_mut(|lane| lane.run(BEGIN).is_ok());
        }
        for other in lanes.drain(lanes.len().min(1)..) {
            other.close();
        }
        lanes
    };
    tokio::task::spawn_blocking(agree).await.unwrap_or_default()
}

/// Tells lanes that the scan has ended or was dropped: what blocks a thread cannot be dropped, and looks here.
#[derive(Default)]
pub(super) struct Ended(Arc<AtomicBool>);

impl Ended {
    /// Whether it has, or nobody takes rows any more.
    pub(super) fn told(&self, sinks: Arc<dyn RowSinks>) -> impl Fn() -> bool + Clone + Send + 'static {
        let ended = Arc::clone(&self.0);
        move || ended.load(Ordering::Relaxed) || sinks.is_closed()
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Takes ranges until there are none, or nobody listens any more. Rows are encoded here, while they are in the processor's cache.
pub(super) fn read(
    mut lane: Lane,
    number: usize,
    source: &Source,
    sinks: &dyn RowSinks,
    over: impl Fn() -> bool + Clone + Send + 'static,
) -> Result<(), EngineError> {
    lane.give_up_when(Box::new(over.clone()));
    lane.wait_at_most(source.idle_limit);
    match read_parts(&mut lane, number, source, &over, sinks) {
        Ok(true) => lane.close(),
        Ok(false) => {}
        // Nobody asks for it any more.
        Err(_) if over() => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// `false` where nobody listens any more.
fn read_parts(
    lane: &mut Lane,
    number: usize,
    source: &Source,
    over: &impl Fn() -> bool,
    sinks: &dyn RowSinks,
) -> Result<bool, EngineError> {
    let told = |error: LaneError| errors::lane(&source.during, source.is_filtered(), error);
    let mut places = Places::new(sinks);
    while let Some((sql, goes_on)) = source.next(number) {
        let definitions = lane.select(&sql).map_err(told)?;
        let decoder = RowDecoder::defined(&source.access, &definitions)
            .map_err(|what| errors::changed(&source.during, what))?;
        let decoder = Arc::new(decoder);
        let sink = places.sink(goes_on);
        while let Some((frames, rows)) = lane.piece().map_err(told)? {
            let piece = Piece { decoder: Arc::clone(&decoder), frames, rows };
            let pushed = push_all(&piece, sink).map_err(|error| EngineError::row(&source.during, &error))?;
            if !pushed || over() {
                return Ok(false);
            }
        }
    }
    places.finish();
    Ok(true)
}
