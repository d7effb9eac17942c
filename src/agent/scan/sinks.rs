//! Rows become entries: key and row digest, on the thread that reads.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use crate::engine::{RowError, RowSink, RowSinks};
use crate::merkle::{
    EntryBatch, RowHasher, RunError, RunOptions, SessionKey, Strand, StrandBuilder, TreeKey,
};

/// Entries that a reader hands over, or tells of, together: each time, the last few are hashed with less company, and somebody is
/// woken.
const ENTRIES_TOGETHER: usize = 16_384;

/// A strand that is smaller needs no scratch file.
const STRAND_BYTES_LEAST: usize = 256 * 1024;

/// What the builder of a run takes.
pub(crate) enum Digested {
    Entries(EntryBatch),
    /// All that one reader has read in order.
    Strand(Box<Strand>),
}

pub(crate) enum DigestError {
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

fn digest(entries: &mut EntryBatch, hasher: &mut RowHasher) -> Result<(), RowError> {
    if entries.set_digests(hasher.take()) {
        Ok(())
    } else {
        Err(RowError::Malformed { column: String::new(), what: "a row has no digest".to_owned() })
    }
}

/// What a reader says of the rows that it has read since it spoke last.
pub(crate) struct Told {
    pub(crate) rows: usize,
    /// Of their canonical cells.
    pub(crate) bytes: u64,
    /// Nothing yet where they go into a strand.
    pub(crate) digested: Result<Option<Digested>, DigestError>,
}

/// The sinks of one scan.
pub(crate) struct DigestSinks {
    session: SessionKey,
    readers: usize,
    of_strand: RunOptions,
    /// Rows that are told of together.
    most: usize,
    made: AtomicUsize,
    out: mpsc::Sender<Told>,
}

impl DigestSinks {
    /// `memory` is that of all strands.
    pub(crate) fn new(
        session: SessionKey,
        readers: usize,
        memory: RunOptions,
        most: usize,
        out: mpsc::Sender<Told>,
    ) -> Self {
        let of_strand = RunOptions { memory_bytes: memory.memory_bytes / (readers + 1), ..memory };
        Self { session, readers, of_strand, most, made: AtomicUsize::new(0), out }
    }
}

impl RowSinks for DigestSinks {
    /// Each reader has a share of the memory. Where one goes on elsewhere it begins another strand: all of those share one more,
    /// but each has what the rest of a small table needs.
    fn sink(&self) -> Box<dyn RowSink> {
        let more = (self.made.fetch_add(1, Ordering::Relaxed) + 1).saturating_sub(self.readers);
        let share = self.of_strand.memory_bytes;
        let halved = u32::try_from(more).ok().and_then(|more| share.checked_shr(more)).unwrap_or(0);
        let memory_bytes = halved.max(STRAND_BYTES_LEAST.min(share));
        let options = RunOptions { memory_bytes, ..self.of_strand.clone() };
        Box::new(DigestSink::new(&self.session, options, self.most, self.out.clone()))
    }

    fn is_closed(&self) -> bool {
        self.out.is_closed()
    }
}

/// Hashes rows as they are read: they need not be kept, nor brought to another thread's cache. As long as they come in the order
/// of their keys, but for a few, a strand is made of their entries, else they are handed over to be sorted.
struct DigestSink {
    hasher: RowHasher,
    entries: EntryBatch,
    pushed: usize,
    bytes: u64,
    together: usize,
    strand: Option<StrandBuilder>,
    /// What has not come in the strand's order.
    strays: EntryBatch,
    out: mpsc::Sender<Told>,
}

impl DigestSink {
    /// `options` are those of this reader's strand; `most` rows are told of together.
    fn new(session: &SessionKey, options: RunOptions, most: usize, out: mpsc::Sender<Told>) -> Self {
        Self {
            hasher: RowHasher::new(session),
            entries: EntryBatch::new(),
            pushed: 0,
            bytes: 0,
            together: most.min(ENTRIES_TOGETHER),
            strand: Some(StrandBuilder::new(&TreeKey::from_session(session), options)),
            strays: EntryBatch::new(),
            out,
        }
    }

    /// `false`: nobody listens, or what was told is an error.
    fn tell(&mut self, rows: usize, digested: Result<Option<Digested>, DigestError>) -> bool {
        let goes_on = digested.is_ok();
        let bytes = std::mem::take(&mut self.bytes);
        self.out.blocking_send(Told { rows, bytes, digested }).is_ok() && goes_on
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
        self.bytes += row.len() as u64;
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
