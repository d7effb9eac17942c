//! Rows become entries: key and row digest. On a rayon thread, of batches; or at once, on the thread that reads.

use tokio::sync::mpsc;

use crate::engine::{RawBatch, RowError, RowSink};
use crate::merkle::{EntryBatch, RowHasher, SessionKey};

/// Entries that a reader hands over together.
const ENTRIES_TOGETHER: usize = 4_096;

/// Entries, or why a row has none.
pub(super) type Digested = Result<EntryBatch, RowError>;

pub(super) fn digest_batch(batch: &dyn RawBatch, session: &SessionKey) -> Digested {
    let mut entries = EntryBatch::with_capacity(batch.rows(), batch.rows() * 8);
    let mut hasher = RowHasher::new(session);
    batch.encode(&mut |key, row| {
        entries.push_key(key);
        hasher.push(key, row);
    })?;
    digested(entries, &mut hasher)
}

fn digested(mut entries: EntryBatch, hasher: &mut RowHasher) -> Digested {
    if entries.set_digests(hasher.take()) {
        Ok(entries)
    } else {
        Err(RowError::Malformed { column: String::new(), what: "a row has no digest".to_owned() })
    }
}

/// Hashes rows as they are read: they need not be kept, nor brought to another thread's cache.
pub(super) struct DigestSink {
    hasher: RowHasher,
    entries: EntryBatch,
    pushed: usize,
    out: mpsc::Sender<Digested>,
}

impl DigestSink {
    pub(super) fn new(session: &SessionKey, out: mpsc::Sender<Digested>) -> Self {
        Self { hasher: RowHasher::new(session), entries: EntryBatch::new(), pushed: 0, out }
    }

    fn send(&mut self) -> bool {
        // The next keys are as long, mostly.
        let key_bytes = self.entries.key_bytes();
        let empty = EntryBatch::with_capacity(ENTRIES_TOGETHER, key_bytes + key_bytes / 8);
        let entries = std::mem::replace(&mut self.entries, empty);
        self.pushed = 0;
        self.out.blocking_send(digested(entries, &mut self.hasher)).is_ok()
    }
}

impl RowSink for DigestSink {
    #[inline]
    fn push(&mut self, key: &[u8], row: &[u8]) -> bool {
        self.entries.push_key(key);
        self.hasher.push(key, row);
        self.pushed += 1;
        self.pushed < ENTRIES_TOGETHER || self.send()
    }

    fn finish(&mut self) {
        if self.pushed > 0 {
            // A closed channel: nobody wants the rest.
            let _ = self.send();
        }
    }
}
