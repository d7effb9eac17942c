//! What the target holds after a repair, as changes over its digest run: enough to compute its new root without
//! reading the table again.

use super::super::compare::suspects::{Spool, Suspect};
use super::super::error::{AgentError, FailureKind};
use super::super::local::AgentLimits;
use super::super::scan::run_error;
use crate::merkle::{
    DigestRun, EntryBatch, OverlayRoot, RootDigest, RowDigest, RunBuilder, RunOptions, RunView, SessionKey,
    Tree, TreeKey,
};
use crate::model::Key;

/// Stands for "no row" among the digests; no row has it but by a chance of 2^-128.
const GONE: [u8; 16] = [0; 16];
const BATCH: usize = 4_096;

pub(super) struct Overlay {
    builder: Option<RunBuilder>,
    batch: EntryBatch,
    /// Rows that were written, and are to be read again.
    written: Spool,
}

impl Overlay {
    pub(super) fn new(limits: &AgentLimits) -> Self {
        let options =
            RunOptions { memory_bytes: limits.memory_bytes / 4, scratch_dir: limits.scratch.clone() };
        Self {
            builder: Some(RunBuilder::new(options)),
            batch: EntryBatch::new(),
            written: Spool::new(limits.scratch.as_deref()),
        }
    }

    /// A row was written; it will be read again before it counts.
    pub(super) fn written(&mut self, suspect: &Suspect) -> Result<(), AgentError> {
        self.written.push(suspect)
    }

    /// A row that the target had not was written; it will be read again before it counts.
    pub(super) fn inserted(&mut self, key: &[u8], digest: &RowDigest) -> Result<(), AgentError> {
        self.written.push_missing(key, digest)
    }

    pub(super) fn rows_written(&self) -> u64 {
        self.written.len()
    }

    /// The rows that were written; `empty` stands in their place.
    pub(super) fn take_written(&mut self, empty: Spool) -> Spool {
        std::mem::replace(&mut self.written, empty)
    }

    /// Both sides agree on this row now: it stands for what the source's snapshot held.
    pub(super) fn settled(&mut self, key: &Key, origin: Option<RowDigest>) -> Result<(), AgentError> {
        self.holds(key, origin)
    }

    /// The target holds this.
    pub(super) fn holds(&mut self, key: &Key, digest: Option<RowDigest>) -> Result<(), AgentError> {
        self.batch.push(key.as_bytes(), digest.unwrap_or(RowDigest(GONE)));
        if self.batch.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), AgentError> {
        let full = std::mem::take(&mut self.batch);
        match &mut self.builder {
            Some(builder) => builder.push(full).map_err(|error| run_error("keep what was repaired", &error)),
            None => Ok(()),
        }
    }

    /// The root of the run with all this laid over it.
    pub(super) fn root(
        &mut self,
        run: &DigestRun,
        tree: &Tree,
        session: &SessionKey,
    ) -> Result<RootDigest, AgentError> {
        self.flush()?;
        let during = "compute the root after the repair";
        let Some(builder) = self.builder.take() else {
            return Err(AgentError::new(FailureKind::Resource, "the root was computed already"));
        };
        let root = || {
            let (changes, _) = builder.finish(&TreeKey::from_session(session))?;
            let mut overlay = OverlayRoot::new(run, tree);
            changes.for_each_entry(0..changes.len(), &mut |key, digest| {
                overlay.apply(key, (digest != RowDigest(GONE)).then_some(digest)).map(|_| ())
            })?;
            overlay.finish()
        };
        root().map_err(|error| run_error(during, &error))
    }
}
