//! The scan pipeline: tokio reads, rayon encodes and hashes, one thread builds the digest run. Bounded end to end.
//! Where an engine encodes on the threads that read, they hash as well (`agent/digesting.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::digesting::{DigestError, DigestSink, Digested, Told, digest_batch};
use super::error::{AgentError, FailureKind};
use super::local::{AgentLimits, LocalAgent};
use crate::engine::{EngineError, RawBatch, RowSink};
use crate::merkle::{DigestRun, RunBuilder, RunError, RunOptions, SessionKey, Tree, TreeKey};
use crate::model::TableAccess;

/// Batches read ahead of the hashing.
const BATCHES_READ_AHEAD: usize = 8;

/// A strand that is smaller needs no scratch file.
const STRAND_BYTES_LEAST: usize = 256 * 1024;

/// A table as it was at one moment: its digests in key order, and the tree over them.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) run: DigestRun,
    pub(super) tree: Tree,
}

/// Reads the whole table once, within `limits`: the agent's, or its share of them. `rows` counts as it goes. Dropping the future stops the scan.
pub(super) async fn scan_table(
    agent: &LocalAgent,
    access: &Arc<TableAccess>,
    session: &SessionKey,
    limits: &AgentLimits,
    rows: &Arc<AtomicU64>,
) -> Result<Scanned, AgentError> {
    let during = format!("read {}", access.table);
    let snapshot = agent.engine.snapshot(access.clone(), limits.parallelism.max(1)).await?;
    let (batch_tx, mut batch_rx) = mpsc::channel::<Box<dyn RawBatch>>(BATCHES_READ_AHEAD);
    let (told_tx, mut told_rx) = mpsc::channel::<Told>(BATCHES_READ_AHEAD);
    // Unbounded, but each batch holds a permit until it is in the run: a rayon thread that waited for the builder here
    // would keep the builder's own sort from ever running.
    let (entry_tx, mut entry_rx) =
        mpsc::unbounded_channel::<(Result<Digested, DigestError>, OwnedSemaphorePermit)>();

    let options = RunOptions { memory_bytes: limits.memory_bytes, scratch_dir: limits.scratch.clone() };
    // Readers that make strands hold half as much, all together.
    let readers = limits.parallelism.max(1);
    let of_strand = RunOptions { memory_bytes: options.memory_bytes / 2 / (readers + 1), ..options.clone() };
    let tree_key = TreeKey::from_session(session);
    let builder = tokio::task::spawn_blocking(move || -> Result<Scanned, DigestError> {
        let mut builder = RunBuilder::new(options);
        while let Some((digested, _permit)) = entry_rx.blocking_recv() {
            match digested? {
                Digested::Entries(entries) => builder.push(entries)?,
                Digested::Strand(strand) => builder.push_strand(*strand),
            }
        }
        let (run, tree) = builder.finish(&tree_key)?;
        Ok(Scanned { run, tree })
    });

    let sinks = {
        let (session, most) = (session.clone(), agent.pace.together_max());
        let made = AtomicUsize::new(0);
        Box::new(move || -> Box<dyn RowSink> {
            // Each reader has a share. Where one goes on elsewhere it begins another strand: all of those share one more, but
            // each has what the rest of a small table needs.
            let more = (made.fetch_add(1, Ordering::Relaxed) + 1).saturating_sub(readers);
            let halved = u32::try_from(more).ok().and_then(|more| of_strand.memory_bytes.checked_shr(more));
            let memory_bytes = halved.unwrap_or(0).max(STRAND_BYTES_LEAST.min(of_strand.memory_bytes));
            let options = RunOptions { memory_bytes, ..of_strand.clone() };
            Box::new(DigestSink::new(&session, options, most, told_tx.clone()))
        })
    };
    let read = snapshot.scan_into(sinks, batch_tx);
    let hashing = Arc::new(Semaphore::new(rayon::current_num_threads() + BATCHES_READ_AHEAD));
    let (entries, permits) = (entry_tx.clone(), Arc::clone(&hashing));
    let pass = async move {
        while let Some(Told { rows: read, digested }) = told_rx.recv().await {
            agent.pace.admit(&agent.engine, read).await?;
            rows.fetch_add(read as u64, Ordering::Relaxed);
            let Some(digested) = digested.transpose() else { continue };
            let permit = permits.clone().acquire_owned().await.map_err(|_| stopped())?;
            entries.send((digested, permit)).map_err(|_| stopped())?;
        }
        Ok::<_, AgentError>(())
    };
    let hash = async move {
        while let Some(batch) = batch_rx.recv().await {
            agent.pace.admit(&agent.engine, batch.rows()).await?;
            let permit = hashing.clone().acquire_owned().await.map_err(|_| stopped())?;
            if entry_tx.is_closed() {
                return Err(stopped());
            }
            let (entry_tx, session, rows) = (entry_tx.clone(), session.clone(), Arc::clone(rows));
            rayon::spawn(move || {
                let digested = digest_batch(batch.as_ref(), &session);
                rows.fetch_add(batch.rows() as u64, Ordering::Relaxed);
                // A closed channel: the builder has failed and tells why.
                let _ = entry_tx.send((digested, permit));
            });
        }
        drop(entry_tx);
        Ok::<_, AgentError>(())
    };
    // Where one of them stops early, the reading is dropped, and ends.
    let read = async { read.await.map_err(AgentError::from) };
    let joined = tokio::try_join!(read, pass, hash);
    match builder.await {
        Ok(Ok(scanned)) => joined.map(|_| scanned),
        Ok(Err(DigestError::Row(error))) => Err(EngineError::row(during, &error).into()),
        Ok(Err(DigestError::Run(error))) => Err(run_error(&during, &error)),
        Err(error) => Err(AgentError::new(
            FailureKind::Resource,
            format!("cannot {during}: the builder stopped: {error}"),
        )),
    }
}

/// The builder has failed, and tells why.
fn stopped() -> AgentError {
    AgentError::new(FailureKind::Resource, "the builder of the run stopped")
}

pub(super) fn run_error(during: &str, error: &RunError) -> AgentError {
    match error {
        RunError::DuplicateKey { .. } => AgentError::new(
            FailureKind::Usage,
            format!("cannot {during}: the key is not unique, two rows share one"),
        )
        .with_hint("name a unique, not-null key with --key; a filter or view must not repeat rows"),
        RunError::Scratch { source, .. } => {
            AgentError::new(FailureKind::Resource, format!("cannot {during}: {error}: {source}"))
                .with_hint("free space there, or name another folder with --scratch, or give more --memory")
        }
        RunError::Damaged { .. } | RunError::Misuse(_) => {
            AgentError::new(FailureKind::Resource, format!("cannot {during}: {error}"))
                .with_hint("check the scratch disk, then run the command again")
        }
    }
}
