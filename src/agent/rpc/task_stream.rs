//! The two-way stream of a run over gRPC: events come down, acknowledgements go up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::super::event::Event;
use super::super::proto::{Recorded, TaskFrame, task_frame::Kind};
use super::super::trail::Acknowledge;

/// At the agent: the batches that a coordinator elsewhere has been sent, until it acknowledges them.
#[derive(Debug, Clone, Default)]
pub(super) struct Awaited(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    batches: BTreeMap<u64, Acknowledge>,
    /// The coordinator sends nothing more.
    ended: bool,
}

impl Awaited {
    /// Keeps what an event waits for; it is on its way to the coordinator.
    pub(super) fn sends(&self, event: &Event) {
        let Event::Intended { batch, acknowledge, .. } = event else { return };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.ended {
            state.batches.insert(*batch, acknowledge.clone());
        }
    }

    /// Takes acknowledgements until the coordinator sends no more, or sends what is none. What waits then is not recorded.
    pub(super) async fn receive(self, mut frames: Streaming<TaskFrame>) {
        while let Ok(Some(TaskFrame { kind: Some(Kind::Recorded(Recorded { batch, seq, failed })) })) =
            frames.message().await
        {
            let acknowledged = self.0.lock().unwrap_or_else(PoisonError::into_inner).batches.remove(&batch);
            let Some(acknowledge) = acknowledged else {
                tracing::warn!("the coordinator acknowledges a batch that it was not sent");
                break;
            };
            // Dropped, it tells the batch that it is not recorded.
            if !failed {
                acknowledge.recorded(seq);
            }
        }
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.ended = true;
        state.batches.clear();
    }
}

/// The first frame of a call: what is to be done.
pub(super) async fn first(frames: &mut Streaming<TaskFrame>) -> Result<Option<Kind>, Status> {
    Ok(frames.message().await?.and_then(|frame| frame.kind))
}

/// At the coordinator: gives an event from elsewhere an acknowledgement, which is sent up where it is used.
pub(super) fn acknowledging(mut event: Event, frames: &mpsc::Sender<TaskFrame>) -> Event {
    if let Event::Intended { batch, acknowledge, .. } = &mut event {
        let (given, acknowledged) = Acknowledge::pair();
        *acknowledge = given;
        let (batch, frames) = (*batch, frames.clone());
        tokio::spawn(async move {
            let (seq, failed) = acknowledged.await.map_or((0, true), |seq| (seq, false));
            let kind = Some(Kind::Recorded(Recorded { batch, seq, failed }));
            // The call may have ended.
            let _ = frames.send(TaskFrame { kind }).await;
        });
    }
    event
}
