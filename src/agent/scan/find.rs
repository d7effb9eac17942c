//! Rows of some keys, found by reading the whole table.
//!
//! A lookup finds what its statement finds: it misses a key that the column spells otherwise, that cannot be bound, or that
//! the server looks for in the wrong place. A scan reads every row and compares canonical keys, by the same code as the
//! scan that saw the rows first, so that it shows presence and absence alike.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::agent::error::{AgentError, FailureKind};
use crate::agent::local::LocalAgent;
use crate::engine::{RowSink, RowSinks};
use crate::model::{CanonicalRow, Key, TableAccess};

/// Rows that a reader reports together.
const ROWS_TOGETHER: usize = 16_384;
/// Rows kept of one search; of the others it is only known that they are there.
pub(crate) const FOUND_BYTES: usize = 16 << 20;

/// What a search has found.
#[derive(Debug, Default)]
pub(crate) struct Search {
    pub(crate) rows: BTreeMap<Key, CanonicalRow>,
    /// Rows that are there and were too much to be kept: to be searched for again, fewer at a time.
    pub(crate) not_kept: BTreeSet<Key>,
}

struct Wanted {
    /// Canonical bytes of the keys.
    keys: HashSet<Vec<u8>>,
    found: Mutex<Search>,
    bytes: AtomicUsize,
    twice: AtomicBool,
}

impl Wanted {
    fn take(&self, key: &[u8], row: &[u8]) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Key::from(key);
        if found.rows.contains_key(&key) || found.not_kept.contains(&key) {
            self.twice.store(true, Ordering::Relaxed);
            return;
        }
        let before = self.bytes.fetch_add(row.len(), Ordering::Relaxed);
        // One row is always kept, however large.
        if before > 0 && before + row.len() > FOUND_BYTES {
            found.not_kept.insert(key);
        } else {
            found.rows.insert(key, CanonicalRow::new(row));
        }
    }
}

struct SearchSinks {
    wanted: Arc<Wanted>,
    together: usize,
    out: mpsc::Sender<usize>,
}

impl RowSinks for SearchSinks {
    fn sink(&self) -> Box<dyn RowSink> {
        let (wanted, out) = (Arc::clone(&self.wanted), self.out.clone());
        Box::new(SearchSink { wanted, together: self.together, read: 0, out })
    }

    fn is_closed(&self) -> bool {
        self.out.is_closed()
    }
}

struct SearchSink {
    wanted: Arc<Wanted>,
    together: usize,
    read: usize,
    out: mpsc::Sender<usize>,
}

impl RowSink for SearchSink {
    fn push(&mut self, key: &[u8], row: &[u8]) -> bool {
        if self.wanted.keys.contains(key) {
            self.wanted.take(key, row);
        }
        self.read += 1;
        self.read < self.together || self.out.blocking_send(std::mem::take(&mut self.read)).is_ok()
    }

    fn finish(&mut self) {
        // A closed channel: nobody waits for the rest.
        let _ = self.out.blocking_send(std::mem::take(&mut self.read));
    }
}

/// Reads the whole table once for these keys.
pub(crate) async fn search(
    agent: &LocalAgent,
    access: &Arc<TableAccess>,
    keys: &[Key],
) -> Result<Search, AgentError> {
    if keys.is_empty() {
        return Ok(Search::default());
    }
    let snapshot = agent.engine.snapshot(access.clone(), agent.limits.parallelism.max(1)).await?;
    let wanted = Arc::new(Wanted {
        keys: keys.iter().map(|key| key.as_bytes().to_vec()).collect(),
        found: Mutex::default(),
        bytes: AtomicUsize::new(0),
        twice: AtomicBool::new(false),
    });
    let (out, mut read) = mpsc::channel(8);
    let together = agent.pace.together_max().min(ROWS_TOGETHER);
    let sinks = Arc::new(SearchSinks { wanted: Arc::clone(&wanted), together, out });
    let scan = async { snapshot.scan(sinks).await.map_err(AgentError::from) };
    let pass = async {
        while let Some(rows) = read.recv().await {
            agent.pace.admit(&agent.engine, rows).await?;
        }
        Ok(())
    };
    tokio::try_join!(scan, pass)?;
    if wanted.twice.load(Ordering::Relaxed) {
        let what = format!("cannot read {}: the key is not unique, two rows share one", access.table);
        return Err(AgentError::new(FailureKind::Usage, what)
            .with_hint("name a unique, not-null key with --key; a filter or view must not repeat rows"));
    }
    let mut found = wanted.found.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *found))
}
