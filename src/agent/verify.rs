//! The proof of a repair: the written rows are read again, and the target's new root is compared with the source's.
//!
//! What the target holds after a repair, as changes over its digest run: enough to compute its new root without
//! reading the table again.

use tokio::time::Instant;

use super::error::AgentError;
use super::event::{Event, Phase};
use super::local::{AgentLimits, LocalAgent};
use super::scan::run_error;
use super::settle::{CHUNK, Settlement};
use super::spool::{Spool, Suspect};
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

    pub(super) fn take_written(&mut self, agent: &LocalAgent) -> Result<Spool, AgentError> {
        Ok(std::mem::replace(&mut self.written, Spool::new(agent.limits.scratch.as_deref())))
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
            return Err(AgentError::new(
                super::error::FailureKind::Resource,
                "the root was computed already",
            ));
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

impl Settlement<'_, '_> {
    /// Reads the written rows again on both sides, then compares the target's new root with the source's.
    #[tracing::instrument(level = "info", skip_all)]
    pub(super) async fn verify(&mut self) -> Result<(), AgentError> {
        let since = Instant::now();
        self.target.tell(Event::Phase { phase: Phase::Verify }).await?;
        let mut reader = self.overlay.take_written(self.target.agent)?.read()?;
        loop {
            let mut chunk = reader.next_chunk(CHUNK)?;
            if chunk.is_empty() {
                break;
            }
            while !chunk.is_empty() {
                self.ask(chunk.iter().map(|suspect| &suspect.key), false).await?;
                let (rereads, rest) = self.reread(chunk).await?;
                chunk = rest;
                for reread in rereads {
                    let now = reread.renewed(&self.target.session);
                    if now.source == now.target {
                        self.overlay.settled(&now.key, now.origin)?;
                    } else {
                        // Written over since, on one side or the other: the root must not be claimed.
                        self.target.outcome.unsettled += 1;
                        self.overlay.holds(&now.key, now.target)?;
                    }
                }
            }
        }
        let root = self.overlay.root(&self.located.run, &self.located.tree, &self.target.session)?;
        let outcome = &mut self.target.outcome;
        outcome.repaired_root = Some(root.to_string());
        outcome.proved = root == self.located.source_root
            && outcome.left == 0
            && outcome.set_aside == 0
            && outcome.unsettled == 0;
        outcome.seconds.verify = since.elapsed().as_secs_f64();
        Ok(())
    }
}
