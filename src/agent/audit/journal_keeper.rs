//! The undo journal of one table's writes, where one is kept: what a batch overwrites before it is written, and what it left.

use std::collections::HashMap;
use std::time::Duration;

use super::super::compare::missing_rows::Missing;
use super::super::error::AgentError;
use super::super::local::LocalAgent;
use super::super::trail::RowOutcome;
use super::super::undo::limits::UndoLimits;
use super::super::undo::own::{OwnAccess, WholePlan};
use super::super::undo::{DigestSecret, Journal, JournalHead, UndoStore};
use super::whole_rows::{overwritten, rows_of};
use crate::engine::Origin;
use crate::merkle::{RowDigest, SessionKey};
use crate::model::{Change, Key, Plan};

/// How often it is tried to read back rows that were written, where a connection breaks.
const READ_BACK_ATTEMPTS: u32 = 4;

/// Rows of a batch that are to be read back when it has been written.
#[derive(Debug, Default)]
pub(super) enum ReadBack {
    #[default]
    Nothing,
    /// By their place in the batch.
    Keys(Vec<(usize, Key)>),
    /// All of the batch, in key order, with nothing between them.
    Run(Vec<Key>),
}

/// Keeps a journal from the first batch on, or none at all.
pub(super) struct JournalKeeper<'a> {
    agent: &'a LocalAgent,
    /// Triggers may change what is written.
    triggers: bool,
    state: State,
}

enum State {
    Nothing,
    /// The journal is begun with the first batch.
    Waiting {
        store: UndoStore,
        head: Box<JournalHead>,
        own: OwnAccess,
    },
    Open {
        journal: Box<Journal>,
        own: OwnAccess,
    },
}

impl<'a> JournalKeeper<'a> {
    pub(super) fn of_nothing(agent: &'a LocalAgent) -> Self {
        Self { agent, triggers: false, state: State::Nothing }
    }

    /// `run` is the id of the run that writes, `session` keys the digests of what it writes.
    pub(super) fn new(
        agent: &'a LocalAgent,
        (store, run): (&UndoStore, &str),
        origin: Origin,
        plan: &Plan,
        whole: WholePlan,
        limits: &UndoLimits,
        session: &SessionKey,
    ) -> Self {
        let own = OwnAccess::new(whole.clone(), plan);
        let head = JournalHead {
            run: run.to_owned(),
            origin,
            plan: plan.clone(),
            whole,
            limits: limits.clone(),
            digests: DigestSecret::of(session),
        };
        let state = State::Waiting { store: store.clone(), head: Box::new(head), own };
        Self { agent, triggers: limits.has_triggers(), state }
    }

    pub(super) fn keeps_nothing(&self) -> bool {
        matches!(self.state, State::Nothing)
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Before the first batch the journal is made.
    pub(super) async fn open(&mut self) -> Result<(), AgentError> {
        self.state = match std::mem::replace(&mut self.state, State::Nothing) {
            State::Waiting { store, head, own } => {
                State::Open { journal: Box::new(store.begin(&head).await?), own }
            }
            other => other,
        };
        Ok(())
    }

    /// What these changes overwrite is on disk when this returns. `replace`: they are made as one exchange of rows.
    pub(super) async fn changes(
        &mut self,
        batch: u64,
        replace: bool,
        changes: &[Change],
    ) -> Result<ReadBack, AgentError> {
        let State::Open { journal, own } = &mut self.state else { return Ok(ReadBack::Nothing) };
        let before = overwritten(self.agent, own, changes).await?;
        journal.batch(batch, replace, changes.iter().zip(&before)).await?;
        if own.is_plans() && !self.triggers {
            return Ok(ReadBack::Nothing);
        }
        let leaves = changes.iter().enumerate().filter(|(_, change)| change.after.is_some());
        Ok(ReadBack::Keys(leaves.map(|(at, change)| (at, change.key.clone())).collect()))
    }

    /// That these rows are inserted is on disk when this returns.
    pub(super) async fn inserts(&mut self, batch: u64, missing: &Missing) -> Result<ReadBack, AgentError> {
        let State::Open { journal, own } = &mut self.state else { return Ok(ReadBack::Nothing) };
        journal.inserts(batch, missing.iter().map(|((key, _), digest)| (key, digest))).await?;
        // Where every column is the source's, the rows are known without being read.
        if !own.whole().uncompared && !self.triggers {
            return Ok(ReadBack::Nothing);
        }
        Ok(ReadBack::Run(missing.rows.iter().map(|(key, _)| Key::from(key)).collect()))
    }

    /// What the rows hold now that were written, by their place in the batch. Where that cannot be read, tried more than once,
    /// it is not known, and the run goes on.
    pub(super) async fn read_back(
        &self,
        wanted: &ReadBack,
        outcomes: &[RowOutcome],
    ) -> Vec<Option<RowDigest>> {
        let State::Open { journal, own } = &self.state else { return Vec::new() };
        for attempt in 0..READ_BACK_ATTEMPTS {
            match self.left(journal, own, wanted, outcomes).await {
                Ok(left) => return left,
                Err(error) => tracing::debug!("rows that were written could not be read back: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
        }
        vec![None; outcomes.len()]
    }

    async fn left(
        &self,
        journal: &Journal,
        own: &OwnAccess,
        wanted: &ReadBack,
        outcomes: &[RowOutcome],
    ) -> Result<Vec<Option<RowDigest>>, AgentError> {
        let written = |at: usize| outcomes.get(at) == Some(&RowOutcome::Written);
        let mut left = vec![None; outcomes.len()];
        match wanted {
            ReadBack::Nothing => return Ok(Vec::new()),
            ReadBack::Keys(keys) => {
                let keys = keys.iter().filter(|(at, _)| written(*at)).cloned();
                let (places, keys): (Vec<usize>, Vec<Key>) = keys.unzip();
                let rows = rows_of(self.agent, own.reading(), &keys, |_| true).await?;
                for (at, key) in places.into_iter().zip(&keys) {
                    if let Some(slot) = left.get_mut(at) {
                        *slot = rows.get(key).map(|row| journal.digest(key.as_bytes(), row.as_bytes()));
                    }
                }
            }
            ReadBack::Run(keys) => {
                let rows = self.agent.engine.fetch_run(own.reading(), keys).await?;
                let places: HashMap<&[u8], usize> =
                    keys.iter().enumerate().map(|(at, key)| (key.as_bytes(), at)).collect();
                for (key, row) in rows.iter() {
                    let place = places.get(key).copied().filter(|at| written(*at));
                    if let Some(slot) = place.and_then(|at| left.get_mut(at)) {
                        *slot = Some(journal.digest(key, row));
                    }
                }
            }
        }
        Ok(left)
    }

    /// What became of a batch, and what its rows hold now.
    pub(super) async fn outcomes(
        &mut self,
        batch: u64,
        outcomes: &[RowOutcome],
        left: &[Option<RowDigest>],
    ) -> Result<(), AgentError> {
        match &mut self.state {
            State::Open { journal, .. } => journal.outcomes(batch, outcomes, left).await,
            State::Nothing | State::Waiting { .. } => Ok(()),
        }
    }

    /// The table's run has ended by itself: the journal is whole.
    pub(super) async fn close(&mut self) -> Result<(), AgentError> {
        match &mut self.state {
            State::Open { journal, .. } => journal.close().await,
            State::Nothing | State::Waiting { .. } => Ok(()),
        }
    }
}
