//! The acknowledgement of a batch's intent: given by whoever records it, and awaited before the batch is written.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// Travels with the intent to whoever records it. Where it is dropped unused, the batch is not written.
#[derive(Clone, Default)]
pub struct Acknowledge(Option<Arc<Mutex<Option<oneshot::Sender<u64>>>>>);

impl Acknowledge {
    /// With the receiver of the trail's sequence number.
    pub(crate) fn pair() -> (Self, oneshot::Receiver<u64>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(Arc::new(Mutex::new(Some(sender))))), receiver)
    }

    /// The intent is durable in the trail, which ends at this sequence number.
    pub fn recorded(&self, seq: u64) {
        let sender =
            |waits: &Arc<Mutex<Option<_>>>| waits.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = self.0.as_ref().and_then(sender) {
            // Nobody waits for it any more: the run has ended.
            let _ = sender.send(seq);
        }
    }
}

impl fmt::Debug for Acknowledge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acknowledge")
    }
}

/// It is no part of what an event says.
impl PartialEq for Acknowledge {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_copy_that_is_used_counts_and_none_is_a_refusal() {
        let (acknowledge, receiver) = Acknowledge::pair();
        let copy = acknowledge.clone();
        copy.recorded(7);
        acknowledge.recorded(8);
        assert_eq!(receiver.await, Ok(7));
        let (acknowledge, receiver) = Acknowledge::pair();
        drop(acknowledge.clone());
        drop(acknowledge);
        assert!(receiver.await.is_err());
        Acknowledge::default().recorded(1);
    }
}
