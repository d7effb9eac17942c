//! A reader's rows, on their way into the sinks of the places that it reads.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{EngineError, ErrorKind, RawBatch, RowError, RowSink, RowSinks};

/// Batches of a reader that wait to be encoded.
const BATCHES_AHEAD: usize = 2;

/// The sink of the place that a reader is at.
pub(super) struct Places<'s> {
    sinks: &'s dyn RowSinks,
    sink: Option<Box<dyn RowSink>>,
}

impl<'s> Places<'s> {
    pub(super) fn new(sinks: &'s dyn RowSinks) -> Self {
        Self { sinks, sink: None }
    }

    /// Another sink, unless the reader goes on where it was.
    pub(super) fn sink(&mut self, goes_on: bool) -> &mut dyn RowSink {
        if !goes_on {
            self.end();
        }
        self.sink.get_or_insert_with(|| self.sinks.sink()).as_mut()
    }

    fn end(&mut self) {
        if let Some(mut sink) = self.sink.take() {
            sink.finish();
        }
    }

    /// Every row was read.
    pub(super) fn finish(mut self) {
        self.end();
    }
}

/// Encodes the rows here and now; `false` where nobody wants more.
pub(super) fn push_all(batch: &dyn RawBatch, sink: &mut dyn RowSink) -> Result<bool, RowError> {
    let mut wanted = true;
    batch.encode(&mut |key, row| wanted = wanted && sink.push(key, row))?;
    Ok(wanted)
}

/// For a reader that must not block: its batches are encoded, in their order, on a thread of their own.
pub(super) struct Encoding {
    batches: mpsc::Sender<(Box<dyn RawBatch>, bool)>,
    work: JoinHandle<Result<bool, EngineError>>,
}

impl Encoding {
    pub(super) fn begin(sinks: Arc<dyn RowSinks>, during: String) -> Self {
        let (batches, mut taken) = mpsc::channel::<(Box<dyn RawBatch>, bool)>(BATCHES_AHEAD);
        let work = tokio::task::spawn_blocking(move || {
            let mut places = Places::new(sinks.as_ref());
            while let Some((batch, goes_on)) = taken.blocking_recv() {
                let pushed = push_all(batch.as_ref(), places.sink(goes_on))
                    .map_err(|error| EngineError::row(&during, &error))?;
                if !pushed {
                    return Ok(false);
                }
            }
            places.finish();
            Ok(true)
        });
        Self { batches, work }
    }

    /// `false` where it has ended: `finish` tells why.
    pub(super) async fn push(&self, batch: impl RawBatch + 'static, goes_on: bool) -> bool {
        self.batches.send((Box::new(batch), goes_on)).await.is_ok()
    }

    /// After the last batch; `false` where nobody wants more.
    pub(super) async fn finish(self, during: &str) -> Result<bool, EngineError> {
        drop(self.batches);
        let ended = || EngineError::new(ErrorKind::Database, during, "an encoder ended before its time");
        self.work.await.unwrap_or_else(|_| Err(ended()))
    }
}
