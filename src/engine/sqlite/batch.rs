//! Rows already encoded, as batches, for who has no sink of its own.

use tokio::sync::mpsc;

use crate::engine::{EachRow, RawBatch, RowError, RowSink};
use crate::model::RowBuffer;

const ROWS_PER_BATCH: usize = 8_192;
const BYTES_PER_BATCH: usize = 1 << 20;

/// Rows already encoded: all keys end to end, and all cells.
#[derive(Default)]
struct SqliteBatch {
    rows: RowBuffer,
    /// Where each row's key and each row's cells end.
    ends: Vec<(usize, usize)>,
}

impl RawBatch for SqliteBatch {
    fn rows(&self) -> usize {
        self.ends.len()
    }

    fn encode(&self, each: EachRow<'_>) -> Result<(), RowError> {
        let (mut keys, mut rows) = (self.rows.key.as_slice(), self.rows.row.as_slice());
        let mut before = (0, 0);
        for end in &self.ends {
            let (Some((key, keys_behind)), Some((row, rows_behind))) =
                (keys.split_at_checked(end.0 - before.0), rows.split_at_checked(end.1 - before.1))
            else {
                break;
            };
            each(key, row);
            (keys, rows, before) = (keys_behind, rows_behind, *end);
        }
        Ok(())
    }
}

/// Makes batches of rows.
pub(super) struct BatchSink {
    batch: SqliteBatch,
    out: mpsc::Sender<Box<dyn RawBatch>>,
}

impl BatchSink {
    pub(super) fn new(out: mpsc::Sender<Box<dyn RawBatch>>) -> Self {
        Self { batch: SqliteBatch::default(), out }
    }

    fn send(&mut self) -> bool {
        self.out.blocking_send(Box::new(std::mem::take(&mut self.batch))).is_ok()
    }
}

impl RowSink for BatchSink {
    fn push(&mut self, key: &[u8], row: &[u8]) -> bool {
        self.batch.rows.key.extend_from_slice(key);
        self.batch.rows.row.extend_from_slice(row);
        self.batch.ends.push((self.batch.rows.key.len(), self.batch.rows.row.len()));
        let full = self.batch.ends.len() >= ROWS_PER_BATCH || self.batch.rows.row.len() >= BYTES_PER_BATCH;
        !full || self.send()
    }

    fn finish(&mut self) {
        if !self.batch.ends.is_empty() {
            // A closed channel: nobody wants the rest.
            let _ = self.send();
        }
    }
}
