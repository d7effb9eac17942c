//! What an audit trail and an undo journal are told of every batch: the intent before it is written, the outcome after.
//!
//! Rows stay with this agent: the trail gets keyed hashes and digests, the journal is encrypted and lies here.

use std::collections::HashMap;

use rayon::prelude::*;
use tokio::sync::mpsc;

use super::compare::describe::Describer;
use super::compare::missing_rows::Missing;
use super::error::{AgentError, FailureKind, decode_error};
use super::event::{Event, TableTask};
use super::intents::{Intents, RowOutcome};
use super::local::LocalAgent;
use super::told::TrailWish;
use super::undo::limits::{Operations, UndoLimits};
use super::undo::own::{OwnAccess, WholePlan};
use super::undo::{DigestSecret, Journal, JournalHead, UndoStore};
use super::whole_rows::{overwritten, rows_of};
use crate::engine::EngineError;
use crate::merkle::{RowDigest, SessionKey};
use crate::model::{Change, ChangeOutcome, Key, Plan, TableSchema};

/// Rows that are put into the trail's words by one task.
const TOLD_TOGETHER: usize = 500;

/// The trail of one table's writes.
pub(super) struct Trail<'a> {
    wish: Option<TrailWish>,
    events: mpsc::Sender<Event>,
    agent: &'a LocalAgent,
    /// The table's name at the target.
    table: String,
    journal: Keeping,
    limits: UndoLimits,
    /// Why a run that writes keeps no journal.
    not_kept: Option<&'static str>,
    /// Limits that were told.
    said: Vec<String>,
    /// Of the batch that was told last.
    batch: u64,
}

/// A batch that was told, and is to be answered for.
#[must_use]
#[derive(Debug)]
pub(super) struct Intent {
    batch: u64,
    rows: usize,
    /// Rows that are to be read back, by their place in the batch.
    read_back: ReadBack,
}

#[derive(Debug)]
enum ReadBack {
    Nothing,
    Keys(Vec<(usize, Key)>),
    /// All of the batch, in key order, with nothing between them.
    Run(Vec<Key>),
}

enum Keeping {
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

impl<'a> Trail<'a> {
    /// For a diff or a dry run, nothing is ever told.
    pub(super) async fn of_repair(
        agent: &'a LocalAgent,
        task: &TableTask,
        events: &mpsc::Sender<Event>,
        key: &SessionKey,
        schema: &TableSchema,
    ) -> Result<Self, AgentError> {
        let (options, plan) = (&task.options, &task.plan);
        if options.repair.is_none() {
            return Ok(Self::new(agent, events, plan, None, Keeping::Nothing, UndoLimits::default()));
        }
        let whole = WholePlan::of(plan, schema, &agent.engine.server().await?);
        let limits = UndoLimits::of(agent.engine.as_ref(), plan, schema, &whole).await;
        let store = agent.undo.as_ref().filter(|_| !options.dry_run && !options.no_undo);
        let journal = match (store, &options.run) {
            (Some(store), Some(run)) => Keeping::wait(store, run, plan, whole, &limits, key),
            _ => Keeping::Nothing,
        };
        let mut trail = Self::new(agent, events, plan, options.trail.clone(), journal, limits);
        trail.not_kept = match &trail.journal {
            _ if options.no_undo => Some("no undo journal is kept of it (--no-undo)"),
            // Whether the run itself would keep one is not known to a dry run.
            Keeping::Nothing if !options.dry_run => {
                Some("the target's agent keeps no undo journals (--undo-dir)")
            }
            _ => None,
        };
        Ok(trail)
    }

    fn new(
        agent: &'a LocalAgent,
        events: &mpsc::Sender<Event>,
        plan: &Plan,
        wish: Option<TrailWish>,
        journal: Keeping,
        limits: UndoLimits,
    ) -> Self {
        let (table, events) = (plan.target.to_string(), events.clone());
        Self { wish, events, agent, table, journal, limits, not_kept: None, said: Vec::new(), batch: 0 }
    }

    /// For an undo of a journal with this head, which keeps a journal of its own; with the limits of what the undo writes.
    pub(super) fn of_undo(
        agent: &'a LocalAgent,
        events: &mpsc::Sender<Event>,
        head: &JournalHead,
        limits: UndoLimits,
        wish: Option<TrailWish>,
        keep: Option<(&UndoStore, &str)>,
    ) -> Self {
        let journal = keep.map_or(Keeping::Nothing, |(store, run)| {
            Keeping::wait(store, run, &head.plan, head.whole.clone(), &limits, &head.digests.session())
        });
        Self::new(agent, events, &head.plan, wish, journal, limits)
    }

    /// Tells, before it is written, what of these writes cannot be taken back. Once each.
    pub(super) async fn say_limits(&mut self, operations: Operations) -> Result<(), AgentError> {
        let limits: Vec<String> = match self.not_kept {
            _ if operations == Operations::default() => return Ok(()),
            Some(why) => vec![format!("this run cannot be undone: {why}")],
            None => {
                let sentences = self.limits.sentences_before(operations).into_iter();
                sentences.map(|what| format!("this run can be undone in part only: {what}")).collect()
            }
        };
        let new: Vec<String> = limits.into_iter().filter(|limit| !self.said.contains(limit)).collect();
        if new.is_empty() {
            return Ok(());
        }
        self.said.extend(new.iter().cloned());
        self.tell(Event::UndoLimits { limits: new }).await
    }

    pub(super) fn keeps_undo(&self) -> bool {
        matches!(self.journal, Keeping::Open { .. })
    }

    /// Before a batch: what it overwrites is on disk, and the intent is told, when this returns.
    pub(super) async fn intend(
        &mut self,
        describer: &Describer,
        changes: &[Change],
        replace: bool,
    ) -> Result<Intent, AgentError> {
        self.say_limits(Operations::of(changes)).await?;
        let mut intent = self.next(changes.len()).await?;
        if let Keeping::Open { journal, own } = &mut self.journal {
            let before = overwritten(self.agent, own, changes).await?;
            journal.batch(self.batch, replace, changes.iter().zip(&before)).await?;
            if !own.is_plans() || self.limits.has_triggers() {
                let leaves = changes.iter().enumerate().filter(|(_, change)| change.after.is_some());
                intent.read_back =
                    ReadBack::Keys(leaves.map(|(at, change)| (at, change.key.clone())).collect());
            }
        }
        let Some(wish) = &self.wish else { return Ok(intent) };
        let told = |change: &Change| wish.told(&self.table, describer, change).map_err(decode_error);
        let rows =
            changes.par_iter().with_min_len(TOLD_TOGETHER).map(told).collect::<Result<_, AgentError>>()?;
        self.intended(intent, Intents::Each(rows)).await
    }

    /// The same of rows that are all inserted.
    pub(super) async fn intend_inserts(
        &mut self,
        describer: &Describer,
        missing: &Missing,
    ) -> Result<Intent, AgentError> {
        let rows = &missing.rows;
        self.say_limits(Operations { insert: true, ..Operations::default() }).await?;
        let mut intent = self.next(rows.len()).await?;
        if let Keeping::Open { journal, own } = &mut self.journal {
            journal.inserts(self.batch, missing.iter().map(|((key, _), digest)| (key, digest))).await?;
            // Where every column is the source's, the rows are known without being read.
            if own.whole().uncompared || self.limits.has_triggers() {
                intent.read_back = ReadBack::Run(rows.iter().map(|(key, _)| Key::from(key)).collect());
            }
        }
        let Some(wish) = &self.wish else { return Ok(intent) };
        let intents = wish.inserts(&self.table, describer, rows).map_err(decode_error)?;
        self.intended(intent, intents).await
    }

    async fn next(&mut self, rows: usize) -> Result<Intent, AgentError> {
        self.batch += 1;
        self.journal.open().await?;
        Ok(Intent { batch: self.batch, rows, read_back: ReadBack::Nothing })
    }

    async fn intended(&self, intent: Intent, rows: Intents) -> Result<Intent, AgentError> {
        self.tell(Event::Intended { table: self.table.clone(), batch: intent.batch, rows }).await?;
        Ok(intent)
    }

    /// After a batch, also after one that failed; passes on what it was given.
    pub(super) async fn done(
        &mut self,
        intent: Intent,
        given: Result<Vec<ChangeOutcome>, EngineError>,
    ) -> Result<Vec<ChangeOutcome>, AgentError> {
        let outcomes: Vec<RowOutcome> = match &given {
            Ok(outcomes) => outcomes.iter().map(row_outcome).collect(),
            // Most errors mean that nothing was written; a connection lost in the commit means that nobody knows.
            Err(_) => vec![RowOutcome::Unknown; intent.rows],
        };
        let left = self.read_back(intent.read_back, &outcomes).await;
        let noted = match &mut self.journal {
            Keeping::Open { journal, .. } => journal.outcomes(intent.batch, &outcomes, &left).await,
            _ => Ok(()),
        };
        let told = match self.wish {
            Some(_) => self.tell(Event::Applied { batch: intent.batch, outcomes }).await,
            None => Ok(()),
        };
        let given = given?;
        noted.and(told)?;
        Ok(given)
    }

    /// What the rows hold now that were written, by their place in the batch. Where that cannot be read it is not known, and
    /// the run goes on.
    async fn read_back(&self, wanted: ReadBack, outcomes: &[RowOutcome]) -> Vec<Option<RowDigest>> {
        let Keeping::Open { journal, own } = &self.journal else { return Vec::new() };
        let written = |at: usize| outcomes.get(at) == Some(&RowOutcome::Written);
        let mut left = vec![None; outcomes.len()];
        match wanted {
            ReadBack::Nothing => return Vec::new(),
            ReadBack::Keys(mut keys) => {
                keys.retain(|(at, _)| written(*at));
                let (places, keys): (Vec<usize>, Vec<Key>) = keys.into_iter().unzip();
                let Ok(rows) = rows_of(self.agent, own.reading(), &keys, |_| true).await else { return left };
                for (at, key) in places.into_iter().zip(&keys) {
                    if let Some(slot) = left.get_mut(at) {
                        *slot = rows.get(key).map(|row| journal.digest(key.as_bytes(), row.as_bytes()));
                    }
                }
            }
            ReadBack::Run(keys) => {
                let Ok(rows) = self.agent.engine.fetch_run(own.reading(), &keys).await else { return left };
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
        left
    }

    /// The table's run has ended by itself: the journal is whole.
    pub(super) async fn close(&mut self) -> Result<(), AgentError> {
        match &mut self.journal {
            Keeping::Open { journal, .. } => journal.close().await,
            Keeping::Nothing | Keeping::Waiting { .. } => Ok(()),
        }
    }

    async fn tell(&self, event: Event) -> Result<(), AgentError> {
        let closed = |_| AgentError::new(FailureKind::Cancelled, "the run was cancelled");
        self.events.send(event).await.map_err(closed)
    }
}

fn row_outcome(outcome: &ChangeOutcome) -> RowOutcome {
    match outcome {
        ChangeOutcome::Written => RowOutcome::Written,
        ChangeOutcome::Stale => RowOutcome::Stale,
        ChangeOutcome::Failed(_) => RowOutcome::Refused,
    }
}

impl Keeping {
    fn wait(
        store: &UndoStore,
        run: &str,
        plan: &Plan,
        whole: WholePlan,
        limits: &UndoLimits,
        session: &SessionKey,
    ) -> Self {
        let own = OwnAccess::new(whole.clone(), plan);
        let head = JournalHead {
            run: run.to_owned(),
            plan: plan.clone(),
            whole,
            limits: limits.clone(),
            digests: DigestSecret::of(session),
        };
        Self::Waiting { store: store.clone(), head: Box::new(head), own }
    }

    async fn open(&mut self) -> Result<(), AgentError> {
        *self = match std::mem::replace(self, Self::Nothing) {
            Self::Waiting { store, head, own } => {
                Self::Open { journal: Box::new(store.begin(&head).await?), own }
            }
            other => other,
        };
        Ok(())
    }
}
