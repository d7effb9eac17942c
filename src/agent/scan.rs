//! The scan pipeline: readers encode and hash what they read, one thread builds the digest run. Bounded end to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::digesting::{DigestError, DigestSinks, Digested, Told};
use super::error::{AgentError, FailureKind};
use super::local::{AgentLimits, LocalAgent};
use crate::engine::EngineError;
use crate::merkle::{DigestRun, RunBuilder, RunError, RunOptions, SessionKey, Tree, TreeKey};
use crate::model::TableAccess;

/// What readers tell of ahead of the builder.
const TOLD_AHEAD: usize = 8;

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
    let readers = limits.parallelism.max(1);
    let snapshot = agent.engine.snapshot(access.clone(), readers).await?;
    let (told_tx, mut told_rx) = mpsc::channel::<Told>(TOLD_AHEAD);
    let (digested_tx, mut digested_rx) = mpsc::channel::<Result<Digested, DigestError>>(TOLD_AHEAD);

    let options = RunOptions { memory_bytes: limits.memory_bytes, scratch_dir: limits.scratch.clone() };
    // Strands hold half as much, all together.
    let of_strands = RunOptions { memory_bytes: options.memory_bytes / 2, ..options.clone() };
    let tree_key = TreeKey::from_session(session);
    let builder = tokio::task::spawn_blocking(move || -> Result<Scanned, DigestError> {
        let mut builder = RunBuilder::new(options);
        while let Some(digested) = digested_rx.blocking_recv() {
            match digested? {
                Digested::Entries(entries) => builder.push(entries)?,
                Digested::Strand(strand) => builder.push_strand(*strand),
            }
        }
        let (run, tree) = builder.finish(&tree_key)?;
        Ok(Scanned { run, tree })
    });

    let most = agent.pace.together_max();
    let sinks = Arc::new(DigestSinks::new(session.clone(), readers, of_strands, most, told_tx));
    let read = async { snapshot.scan(sinks).await.map_err(AgentError::from) };
    let pass = async move {
        while let Some(Told { rows: read, digested }) = told_rx.recv().await {
            agent.pace.admit(&agent.engine, read).await?;
            rows.fetch_add(read as u64, Ordering::Relaxed);
            if let Some(digested) = digested.transpose() {
                // Where the builder has failed it tells why.
                let stopped = |_| AgentError::new(FailureKind::Resource, "the builder of the run stopped");
                digested_tx.send(digested).await.map_err(stopped)?;
            }
        }
        Ok::<_, AgentError>(())
    };
    // Where one of them stops early, the reading is dropped, and ends.
    let joined = tokio::try_join!(read, pass);
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
