//! The proof of a repair: the written rows are read again, or after many the whole target, and the target's new root is
//! compared with the source's.
//!
//! What the target holds after a repair, as changes over its digest run: enough to compute its new root without
//! reading the table again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use super::asking::{Asked, take_some};
use super::error::AgentError;
use super::event::{Event, Phase};
use super::local::{AgentLimits, LocalAgent};
use super::scan::{run_error, scan_table};
use super::settle::{ASKED_AHEAD, CHUNK, Settlement};
use super::spool::{Spool, Suspect};
use super::target::PROGRESS_EVERY;
use super::wire::{Answer, sum_of, unpack_answers};
use crate::merkle::{
    DigestRun, EntryBatch, OverlayRoot, RootDigest, RowDigest, RunBuilder, RunOptions, RunView, SessionKey,
    Tree, TreeKey,
};
use crate::model::{CanonicalRow, Key, Role};

/// Stands for "no row" among the digests; no row has it but by a chance of 2^-128.
const GONE: [u8; 16] = [0; 16];
const BATCH: usize = 4_096;
/// Written rows that are asked for with one question: their digests are small.
const VERIFIED_TOGETHER: usize = 2_000;
/// Written rows from which a scan of the table may be the better proof; asking for a row by its key costs both sides as
/// much as scanning some sixteen.
const SCAN_FROM: u64 = 10_000;
const SCAN_ABOVE: u64 = 16;

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

    /// The same of a row that the target had not.
    pub(super) fn inserted(&mut self, key: &[u8], digest: &RowDigest) -> Result<(), AgentError> {
        self.written.push_missing(key, digest)
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
    /// Compares what the source says of these rows with what is there; what it did not answer is left.
    async fn verify_chunk(
        &mut self,
        mut chunk: Vec<Suspect>,
        how: Asked,
    ) -> Result<Vec<Suspect>, AgentError> {
        let keys: Vec<Key> = chunk.iter().map(|suspect| suspect.key.clone()).collect();
        let (engine, access) = (self.target.agent.engine.clone(), self.target.access.clone());
        let read = async {
            let mut own = BTreeMap::new();
            for keys in keys.chunks(CHUNK) {
                own.extend(engine.fetch(&access, keys).await?.into_iter().map(|row| (row.key, row.row)));
            }
            Ok::<_, AgentError>(own)
        };
        let (packed, own) = tokio::join!(self.receive_packed(), read);
        let (packed, own) = (packed?, own?);
        self.target.outcome.target_rows_reread += keys.len() as u64;
        if how == Asked::Sum {
            let session = &self.target.session;
            let held = keys
                .iter()
                .map(|key| own.get(key).map(|row| session.row_digest(key.as_bytes(), row.as_bytes())));
            if sum_of(session, held).0.as_slice() != packed.as_slice() {
                return Ok(chunk);
            }
            self.target.outcome.source_rows_reread += keys.len() as u64;
            for suspect in chunk {
                self.overlay.settled(&suspect.key, suspect.origin)?;
            }
            return Ok(Vec::new());
        }
        let answers = unpack_answers(&self.target.session, &packed)?;
        if answers.is_empty() || answers.len() > chunk.len() {
            return Err(AgentError::protocol(
                "the source agent answered another number of keys than were asked",
            ));
        }
        let rest = chunk.split_off(answers.len());
        self.target.outcome.source_rows_reread += answers.len() as u64;
        for (suspect, answer) in chunk.into_iter().zip(answers) {
            let digest =
                |row: &CanonicalRow| self.target.session.row_digest(suspect.key.as_bytes(), row.as_bytes());
            let source = match &answer {
                Answer::Absent => None,
                Answer::Digest(digest) => Some(*digest),
                Answer::Row(row) => Some(digest(row)),
                Answer::Patch(_) => {
                    return Err(AgentError::protocol("the source agent sent cells where a digest was asked"));
                }
            };
            let target = own.get(&suspect.key).map(digest);
            if source == target {
                self.overlay.settled(&suspect.key, suspect.origin)?;
            } else {
                // Written over since, on one side or the other: the root must not be claimed.
                self.target.outcome.unsettled += 1;
                self.overlay.holds(&suspect.key, target)?;
            }
        }
        Ok(rest)
    }

    /// Proves that the target holds what the source's snapshot held: by a scan where that is less work, else row by row.
    #[tracing::instrument(level = "info", skip_all)]
    pub(super) async fn verify(&mut self) -> Result<(), AgentError> {
        let since = Instant::now();
        self.target.tell(Event::Phase { phase: Phase::Verify }).await?;
        let nothing_left = {
            let outcome = &self.target.outcome;
            outcome.left == 0 && outcome.set_aside == 0 && outcome.unsettled == 0
        };
        let root = match self.scan_again(nothing_left).await? {
            // What was written and what was there already, in one: the source need not be asked again.
            Some(root) => root,
            None => self.verify_written().await?,
        };
        let outcome = &mut self.target.outcome;
        outcome.repaired_root = Some(root.to_string());
        outcome.proved = root == self.located.source_root && nothing_left && outcome.unsettled == 0;
        outcome.seconds.verify = since.elapsed().as_secs_f64();
        Ok(())
    }

    /// The target's root after many writes, read from the table itself; `None` where few rows were written, or where
    /// it is not the source's: then the rows tell which of them have changed since.
    async fn scan_again(&mut self, nothing_left: bool) -> Result<Option<RootDigest>, AgentError> {
        let written = self.overlay.written.len();
        let rows = self.target.outcome.source_rows.max(self.target.outcome.target_rows);
        if !nothing_left || written < SCAN_FROM || written.saturating_mul(SCAN_ABOVE) < rows {
            return Ok(None);
        }
        let target = &self.target;
        let rows = Arc::new(AtomicU64::new(0));
        let scan = scan_table(target.agent, &target.access, &target.session, &target.agent.limits, &rows);
        tokio::pin!(scan);
        let mut ticks = tokio::time::interval(PROGRESS_EVERY);
        let scanned = loop {
            tokio::select! {
                done = &mut scan => break done?,
                _ = ticks.tick() => {
                    let rows = rows.load(Ordering::Relaxed);
                    target.tell(Event::Progress { side: Role::Target, rows }).await?;
                }
            }
        };
        let root = scanned.tree.root();
        Ok((root == self.located.source_root).then_some(root))
    }

    /// Reads the written rows again on both sides, and computes the target's new root from its old one.
    async fn verify_written(&mut self) -> Result<RootDigest, AgentError> {
        let mut reader = self.overlay.take_written(self.target.agent)?.read()?;
        let (mut asked, mut unanswered) = (VecDeque::with_capacity(ASKED_AHEAD), VecDeque::new());
        // Digests that the source answers at a time, as far as that has shown.
        let mut most = VERIFIED_TOGETHER;
        loop {
            while asked.len() < ASKED_AHEAD {
                // The rows have crossed once; one digest of many is enough, and the digests of each where it is another.
                let (chunk, how) = match take_some(&mut unanswered, most) {
                    Some(rest) => (rest, Asked::Digests),
                    None => (reader.next_chunk(VERIFIED_TOGETHER)?, Asked::Sum),
                };
                if chunk.is_empty() {
                    break;
                }
                self.ask(chunk.iter().map(|suspect| &suspect.key), how).await?;
                asked.push_back((chunk, how));
            }
            let Some((chunk, how)) = asked.pop_front() else { break };
            let count = chunk.len();
            let rest = self.verify_chunk(chunk, how).await?;
            if !rest.is_empty() {
                if how == Asked::Digests {
                    most = count - rest.len();
                }
                unanswered.push_back(rest);
            }
        }
        self.overlay.root(&self.located.run, &self.located.tree, &self.target.session)
    }
}
