//! The target's last part: merges the source's findings with its own entries without a match, by key, and lays them
//! over its own run to see whether they are the whole difference.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::error::{LocateError, ProtocolError};
use super::message::{End, MissingRun};
use super::spans::Span;
use crate::merkle::{EntryBatch, OverlayRoot, RootDigest, RowDigest, RunError, RunView, Tree};
use crate::model::Key;

const READ_ENTRIES: u64 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// Only on the source.
    Missing,
    /// On both, with other values.
    Changed,
    /// Only on the target.
    Extra,
}

/// One row that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub kind: FindingKind,
    pub key: Key,
    pub source: Option<RowDigest>,
    pub target: Option<RowDigest>,
}

enum Inbound {
    Entries { entries: EntryBatch, next: usize },
    Missing(MissingRun),
    End(End),
}

/// How far [`Classifier::work`] came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Worked {
    /// Everything received is classified.
    Through,
    /// As many findings as were asked for; there may be more.
    Full,
    Ended(End),
}

pub(super) struct Classifier<V> {
    view: Arc<V>,
    overlay: OverlayRoot<Arc<V>, Arc<Tree>>,
    own: OwnEntries<V>,
    inbox: VecDeque<Inbound>,
    last_key: Option<Key>,
    runs: u32,
    /// A run that was announced as facing no row faces one: the round is void.
    spoiled: bool,
}

impl<V: RunView> Classifier<V> {
    pub(super) fn new(view: Arc<V>, tree: Arc<Tree>, own: Vec<Span>) -> Self {
        Self {
            overlay: OverlayRoot::new(Arc::clone(&view), tree),
            own: OwnEntries::new(Arc::clone(&view), own),
            view,
            inbox: VecDeque::new(),
            last_key: None,
            runs: 0,
            spoiled: false,
        }
    }

    /// Nothing was announced by its bounds only, and nothing was wrong with what was.
    pub(super) fn is_complete(&self) -> bool {
        self.runs == 0
    }

    pub(super) fn is_spoiled(&self) -> bool {
        self.spoiled
    }

    pub(super) fn root(self) -> Result<RootDigest, RunError> {
        self.overlay.finish()
    }

    fn check_order(&self, key: &[u8]) -> Result<(), ProtocolError> {
        if self.last_key.as_ref().is_some_and(|last| last.as_bytes() >= key) {
            return Err(ProtocolError::Unexpected { message: "findings", why: "keys are not in order" });
        }
        Ok(())
    }

    pub(super) fn take_entries(&mut self, entries: EntryBatch) -> Result<(), ProtocolError> {
        let Some(last) = entries.len().checked_sub(1) else {
            return Err(ProtocolError::Unexpected { message: "findings", why: "an empty chunk" });
        };
        self.check_order(entries.key(0))?;
        if (0..last).any(|at| entries.key(at) >= entries.key(at + 1)) {
            return Err(ProtocolError::Unexpected { message: "findings", why: "keys are not in order" });
        }
        self.last_key = Some(Key::from(entries.key(last)));
        self.inbox.push_back(Inbound::Entries { entries, next: 0 });
        Ok(())
    }

    pub(super) fn take_run(&mut self, run: MissingRun) -> Result<(), ProtocolError> {
        self.check_order(run.first.as_bytes())?;
        if run.run_id != self.runs || run.count < 2 || run.first >= run.last {
            return Err(ProtocolError::Unexpected {
                message: "missing run",
                why: "its number, count or bounds",
            });
        }
        self.runs += 1;
        self.last_key = Some(run.last.clone());
        self.inbox.push_back(Inbound::Missing(run));
        Ok(())
    }

    pub(super) fn take_end(&mut self, end: End) {
        self.inbox.push_back(Inbound::End(end));
    }

    /// Classifies what was received, until `out` holds `limit` findings.
    pub(super) fn work(
        &mut self,
        limit: usize,
        out: &mut Vec<Finding>,
        runs: &mut Vec<MissingRun>,
    ) -> Result<Worked, LocateError> {
        while out.len() < limit {
            let Some(inbound) = self.inbox.front_mut() else { return Ok(Worked::Through) };
            if self.spoiled {
                if let Some(Inbound::End(end)) = self.inbox.pop_front() {
                    return Ok(Worked::Ended(end));
                }
                continue;
            }
            let bound = match inbound {
                Inbound::Entries { entries, next } if *next < entries.len() => Some(entries.key(*next)),
                Inbound::Entries { .. } => {
                    self.inbox.pop_front();
                    continue;
                }
                Inbound::Missing(run) => Some(run.first.as_bytes()),
                Inbound::End(_) => None,
            };
            if let Some((key, digest)) = self.own.peek()?
                && bound.is_none_or(|bound| key < bound)
            {
                self.overlay.apply(key, None)?;
                out.push(Finding {
                    kind: FindingKind::Extra,
                    key: Key::from(key),
                    source: None,
                    target: Some(digest),
                });
                self.own.step();
                continue;
            }
            match inbound {
                Inbound::Entries { entries, next } => {
                    let (key, source) = (entries.key(*next), entries.digest(*next));
                    if self.own.peek()?.is_some_and(|(own, _)| own == key) {
                        self.own.step();
                    }
                    let target = self.overlay.apply(key, Some(source))?;
                    if target != Some(source) {
                        let kind = if target.is_some() { FindingKind::Changed } else { FindingKind::Missing };
                        out.push(Finding { kind, key: Key::from(key), source: Some(source), target });
                    }
                    *next += 1;
                }
                Inbound::Missing(run) => {
                    let first = self.view.lower_bound(run.first.as_bytes(), 0)?;
                    let last = self.view.lower_bound(run.last.as_bytes(), first)?;
                    if first == last && self.view.find(run.last.as_bytes())?.is_none() {
                        runs.push(run.clone());
                    } else {
                        self.spoiled = true;
                    }
                    self.inbox.pop_front();
                }
                Inbound::End(end) => return Ok(Worked::Ended(*end)),
            }
        }
        Ok(Worked::Full)
    }
}

/// The own entries of some spans, in key order, read a few at a time.
struct OwnEntries<V> {
    view: Arc<V>,
    spans: std::vec::IntoIter<Span>,
    rest: std::ops::Range<u64>,
    buffer: EntryBatch,
    next: usize,
}

impl<V: RunView> OwnEntries<V> {
    fn new(view: Arc<V>, spans: Vec<Span>) -> Self {
        Self { view, spans: spans.into_iter(), rest: 0..0, buffer: EntryBatch::new(), next: 0 }
    }

    fn peek(&mut self) -> Result<Option<(&[u8], RowDigest)>, RunError> {
        while self.next >= self.buffer.len() {
            if self.rest.is_empty() {
                match self.spans.next() {
                    Some(span) => self.rest = span.rows,
                    None => return Ok(None),
                }
            }
            let end = self.rest.end.min(self.rest.start + READ_ENTRIES);
            let mut buffer = EntryBatch::new();
            self.view.for_each_entry(self.rest.start..end, &mut |key, digest| {
                buffer.push(key, digest);
                Ok(())
            })?;
            self.buffer = buffer;
            self.next = 0;
            self.rest.start = end;
        }
        Ok(Some((self.buffer.key(self.next), self.buffer.digest(self.next))))
    }

    fn step(&mut self) {
        self.next += 1;
    }
}

impl<V> fmt::Debug for Classifier<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Classifier({} messages wait)", self.inbox.len())
    }
}
