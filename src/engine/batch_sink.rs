//! Rows already encoded, as batches, for who has no sink of its own.

use tokio::sync::mpsc;

use super::{RawBatch, RowSink, RowSinks};
use crate::model::RowRun;

const ROWS_PER_BATCH: usize = 4_096;
const BYTES_PER_BATCH: usize = 1 << 20;

/// Makes batches of rows.
struct BatchSink {
    batch: RowRun,
    out: mpsc::Sender<Box<dyn RawBatch>>,
}

/// A sink for each reader.
pub(super) fn batch_sinks(out: &mpsc::Sender<Box<dyn RawBatch>>) -> RowSinks {
    let out = out.clone();
    Box::new(move || Box::new(BatchSink::new(out.clone())))
}

impl BatchSink {
    fn new(out: mpsc::Sender<Box<dyn RawBatch>>) -> Self {
        Self { batch: RowRun::default(), out }
    }

    fn send(&mut self) -> bool {
        self.out.blocking_send(Box::new(std::mem::take(&mut self.batch))).is_ok()
    }
}

impl RowSink for BatchSink {
    fn push(&mut self, key: &[u8], row: &[u8]) -> bool {
        self.batch.push(key, row);
        let full = self.batch.len() >= ROWS_PER_BATCH || self.batch.bytes() >= BYTES_PER_BATCH;
        !full || self.send()
    }

    fn finish(&mut self) {
        if !self.batch.is_empty() {
            // A closed channel: nobody wants the rest.
            let _ = self.send();
        }
    }
}
