//! The scan pipeline: readers encode and hash what they read, one thread builds the digest run. Bounded end to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::agent::error::{AgentError, FailureKind};
use crate::agent::local::{AgentLimits, LocalAgent};
use crate::engine::EngineError;
use crate::merkle::{DigestRun, RunBuilder, RunError, RunOptions, RunView, SessionKey, Tree, TreeKey};
use crate::model::{Key, TableAccess};

pub(crate) mod find;
pub(crate) mod lookup;
pub(crate) mod moved;
mod sinks;

use sinks::{DigestError, DigestSinks, Digested, Told};

/// What readers tell of ahead of the builder.
const TOLD_AHEAD: usize = 8;

/// A table as it was at one moment: its digests in key order, and the tree over them.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) run: DigestRun,
    pub(crate) tree: Tree,
    /// Canonical bytes of an average row's cells.
    pub(crate) row_bytes: usize,
}

/// Reads the whole table once, within `limits`: the agent's, or its share of them. `rows` counts as it goes. Dropping the future stops the scan.
pub(crate) async fn scan_table(
    agent: &LocalAgent,
    access: &Arc<TableAccess>,
    session: &SessionKey,
    limits: &AgentLimits,
    rows: &Arc<AtomicU64>,
) -> Result<Scanned, AgentError> {
    let during = format!("read {}", access.table);
    let readers = limits.parallelism.max(1);
    let snapshot = agent.engine.snapshot(access.clone(), readers).await?;
    let (told_tx, mut told_rx) = mpsc::channel::<Told>(TOLD_AHEAD);
    let (digested_tx, mut digested_rx) = mpsc::channel::<Result<Digested, DigestError>>(TOLD_AHEAD);

    let options = RunOptions { memory_bytes: limits.memory_bytes, scratch_dir: limits.scratch.clone() };
    // Strands hold half as much, all together.
    let of_strands = RunOptions { memory_bytes: options.memory_bytes / 2, ..options.clone() };
    let tree_key = TreeKey::from_session(session);
    let builder = tokio::task::spawn_blocking(move || -> Result<(DigestRun, Tree), DigestError> {
        let mut builder = RunBuilder::new(options);
        while let Some(digested) = digested_rx.blocking_recv() {
            match digested? {
                Digested::Entries(entries) => builder.push(entries)?,
                Digested::Strand(strand) => builder.push_strand(*strand),
            }
        }
        let (run, tree) = builder.finish(&tree_key)?;
        Ok((run, tree))
    });

    let most = agent.pace.together_max();
    let sinks = Arc::new(DigestSinks::new(session.clone(), readers, of_strands, most, told_tx));
    let read = async { snapshot.scan(sinks).await.map_err(AgentError::from) };
    let pass = async move {
        let mut all_bytes = 0u64;
        while let Some(Told { rows: read, bytes, digested }) = told_rx.recv().await {
            all_bytes = all_bytes.saturating_add(bytes);
            agent.pace.admit(&agent.engine, read).await?;
            rows.fetch_add(read as u64, Ordering::Relaxed);
            if let Some(digested) = digested.transpose() {
                // Where the builder has failed it tells why.
                let stopped = |_| AgentError::new(FailureKind::Resource, "the builder of the run stopped");
                digested_tx.send(digested).await.map_err(stopped)?;
            }
        }
        Ok::<_, AgentError>(all_bytes)
    };
    // Where one of them stops early, the reading is dropped, and ends.
    let joined = tokio::try_join!(read, pass);
    match builder.await {
        Ok(Ok((run, tree))) => joined.map(|((), bytes)| {
            let row_bytes = usize::try_from(bytes / run.len().max(1)).unwrap_or(usize::MAX);
            Scanned { run, tree, row_bytes }
        }),
        Ok(Err(DigestError::Row(error))) => Err(EngineError::row(during, &error).into()),
        Ok(Err(DigestError::Run(error))) => Err(run_error(&during, &error)),
        Err(error) => Err(AgentError::new(
            FailureKind::Resource,
            format!("cannot {during}: the builder stopped: {error}"),
        )),
    }
}

/// A few keys that the scan saw, to be looked up beside others: where a lookup finds none of them, what else it does not find
/// need not be absent.
pub(crate) fn witnesses(run: &DigestRun) -> Result<Vec<Key>, AgentError> {
    let mut keys: Vec<Key> = Vec::new();
    let ends = [0, run.len() / 2, run.len().saturating_sub(1)];
    for at in ends.into_iter().take_while(|at| *at < run.len()) {
        run.for_each_entry(at..at + 1, &mut |key, _| {
            keys.push(Key::from(key));
            Ok(())
        })
        .map_err(|error| run_error("read the digest run", &error))?;
    }
    keys.dedup();
    Ok(keys)
}

pub(crate) fn run_error(during: &str, error: &RunError) -> AgentError {
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
