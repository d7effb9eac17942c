//! Rows become entries: key and row digest. On a rayon thread, of batches; or at once, on the thread that reads.

use tokio::sync::mpsc;

use crate::engine::{RawBatch, RowError, RowSink};
use crate::merkle::{
    EntryBatch, RowHasher, RunError, RunOptions, SessionKey, Strand, StrandBuilder, TreeKey,
};

/// Entries that a reader hands over, or tells of, together: each time, the last few are hashed with less company, and somebody is
/// woken.
const ENTRIES_TOGETHER: usize = 16_384;

/// What the builder of a run takes.
pub(super) enum Digested {
    Entries(EntryBatch),
    /// All that one reader has read in order.
    Strand(Box<Strand>),
}

pub(super) enum DigestError {
    Row(RowError),
    Run(RunError),
}

impl From<RowError> for DigestError {
    fn from(error: RowError) -> Self {
        Self::Row(error)
    }
}

impl From<RunError> for DigestError {
    fn from(error: RunError) -> Self {
        Self::Run(error)
    }
}

pub(super) fn digest_batch(batch: &dyn RawBatch, session: &SessionKey) -> Result<Digested, DigestError> {
    let mut entries = EntryBatch::with_capacity(batch.rows(), batch.rows() * 8);
    let mut hasher = RowHasher::new(session);
    batch.encode(&mut |key, row| {
        entries.push_key(key);
        hasher.push(key, row);
    })?;
    digest(&mut entries, &mut hasher)?;
    Ok(Digested::Entries(entries))
}

fn digest(entries: &mut EntryBatch, hasher: &mut RowHasher) -> Result<(), RowError> {
    if entries.set_digests(hasher.take()) {
        Ok(())
    } else {
        Err(RowError::Malformed { column: String::new(), what: "a row has no digest".to_owned() })
    }
}

/// What a reader says of the rows that it has read since it spoke last.
pub(super) struct Told {
    pub(super) rows: usize,
    /// Nothing yet where they go into a strand.
    pub(super) digested: Result<Option<Digested>, DigestError>,
}

/// Hashes rows as they are read: they need not be kept, nor brought to another thread's cache. As long as they come in the order
/// of their keys, but for a few, a strand is made of their entries, else they are handed over to be sorted.
pub(super) struct DigestSink {
    hasher: RowHasher,
    entries: EntryBatch,
    pushed: usize,
    together: usize,
    strand: Option<StrandBuilder>,
    /// What has not come in the strand's order.
    strays: EntryBatch,
    out: mpsc::Sender<Told>,
}

impl DigestSink {
    /// `options` are those of this reader's strand; `most` rows are told of together.
    pub(super) fn new(
        session: &SessionKey,
        options: RunOptions,
        most: usize,
        out: mpsc::Sender<Told>,
    ) -> Self {
        Self {
            hasher: RowHasher::new(session),
            entries: EntryBatch::new(),
            pushed: 0,
            together: most.min(ENTRIES_TOGETHER),
            strand: Some(StrandBuilder::new(&TreeKey::from_session(session), options)),
            strays: EntryBatch::new(),
            out,
        }
    }

    /// `false`: nobody listens, or what was told is an error.
    fn tell(&self, rows: usize, digested: Result<Option<Digested>, DigestError>) -> bool {
        let goes_on = digested.is_ok();
        self.out.blocking_send(Told { rows, digested }).is_ok() && goes_on
    }

    fn send(&mut self) -> bool {
        let rows = std::mem::take(&mut self.pushed);
        let digested = self.take_in();
        self.tell(rows, digested)
    }

    /// The entries go into the strand, as long as few of them are out of order.
    fn take_in(&mut self) -> Result<Option<Digested>, DigestError> {
        digest(&mut self.entries, &mut self.hasher)?;
        let Some(strand) = &mut self.strand else {
            // The next keys are as long, mostly.
            let key_bytes = self.entries.key_bytes();
            let empty = EntryBatch::with_capacity(self.together, key_bytes + key_bytes / 8);
            return Ok(Some(Digested::Entries(std::mem::replace(&mut self.entries, empty))));
        };
        strand.extend(&self.entries, &mut self.strays)?;
        self.entries.clear();
        if strand.goes_on_beside(&self.strays) {
            return Ok(None);
        }
        self.end_strand()?;
        Ok(Some(Digested::Entries(std::mem::take(&mut self.strays))))
    }

    fn end_strand(&mut self) -> Result<(), RunError> {
        if let Some(strand) = self.strand.take() {
            let strand = Box::new(strand.finish()?);
            // A closed channel: nobody wants the rest either.
            let _ = self.tell(0, Ok(Some(Digested::Strand(strand))));
        }
        Ok(())
    }
}

impl RowSink for DigestSink {
    #[inline]
    fn push(&mut self, key: &[u8], row: &[u8]) -> bool {
        self.entries.push_key(key);
        self.hasher.push(key, row);
        self.pushed += 1;
        self.pushed < self.together || self.send()
    }

    fn finish(&mut self) {
        if self.pushed > 0 && !self.send() {
            return;
        }
        let strays = std::mem::take(&mut self.strays);
        match self.end_strand() {
            Err(error) => drop(self.tell(0, Err(error.into()))),
            Ok(()) if strays.is_empty() => {}
            Ok(()) => drop(self.tell(0, Ok(Some(Digested::Entries(strays))))),
        }
    }
}
