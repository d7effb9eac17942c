//! A snapshot's rows in batches, for tests that look at what a scan gives.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::mpsc;
use trueup::engine::{EachRow, EngineError, RawBatch, RowError, RowSink, RowSinks, Snapshot};
use trueup::model::RowRun;

const ROWS_PER_BATCH: usize = 4_096;
const BYTES_PER_BATCH: usize = 1 << 20;

/// Scans into batches; a closed channel ends the scan.
pub(crate) fn scan_in_batches(
    snapshot: Box<dyn Snapshot>,
    out: mpsc::Sender<Box<dyn RawBatch>>,
) -> impl Future<Output = Result<(), EngineError>> {
    snapshot.scan(Arc::new(BatchSinks(out)))
}

struct BatchSinks(mpsc::Sender<Box<dyn RawBatch>>);

impl RowSinks for BatchSinks {
    fn sink(&self) -> Box<dyn RowSink> {
        Box::new(BatchSink { batch: RowRun::default(), out: self.0.clone() })
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// Makes batches of rows.
struct BatchSink {
    batch: RowRun,
    out: mpsc::Sender<Box<dyn RawBatch>>,
}

impl BatchSink {
    fn send(&mut self) -> bool {
        self.out.blocking_send(Box::new(Batch(std::mem::take(&mut self.batch)))).is_ok()
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

struct Batch(RowRun);

impl RawBatch for Batch {
    fn rows(&self) -> usize {
        self.0.len()
    }

    fn encode(&self, each: EachRow<'_>) -> Result<(), RowError> {
        self.0.iter().for_each(|(key, row)| each(key, row));
        Ok(())
    }
}
