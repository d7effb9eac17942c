//! What an audit trail and an undo journal are told of every batch: the intent before it is written, the outcome after.
//!
//! A batch is handed on for writing only when its intent is durable in the trail, where one was asked for: whoever records
//! it acknowledges it. Rows stay with this agent: the trail gets keyed hashes and digests, the journal is encrypted and lies here.

use std::collections::HashMap;
use std::time::Duration;

use rayon::prelude::*;
use tokio::sync::{mpsc, oneshot};

use super::acknowledge::Acknowledge;
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
use crate::model::{Change, ChangeOutcome, Key, PermittedInserts, Plan, TableSchema, fail_point};

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
    /// How long an acknowledgement is awaited.
    patience: Duration,
}

/// Told when the intent is durable; `None`: no trail was asked for.
type Acknowledged = Option<oneshot::Receiver<u64>>;

/// A batch whose intent is recorded: it may be written, and is to be answered for. Only a [`Trail`] makes one.
#[must_use]
#[derive(Debug)]
pub(super) struct Recorded<T> {
    batch: u64,
    rows: usize,
    /// Rows that are to be read back, by their place in the batch.
    read_back: ReadBack,
    what: T,
}

#[derive(Debug, Default)]
enum ReadBack {
    #[default]
    Nothing,
    Keys(Vec<(usize, Key)>),
    /// All of the batch, in key order, with nothing between them.
    Run(Vec<Key>),
}

impl<T> Recorded<T> {
    pub(super) fn what(&self) -> &T {
        &self.what
    }
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
        let patience = agent.limits.peer_timeout;
        let not_kept = None;
        Self { wish, events, agent, table, journal, limits, not_kept, said: Vec::new(), batch: 0, patience }
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

    /// Before a batch: what it overwrites is on disk, and its intent is durable in the trail, when this returns.
    pub(super) async fn intend<T: AsRef<[Change]>>(
        &mut self,
        describer: &Describer,
        replace: bool,
        what: T,
    ) -> Result<Recorded<T>, AgentError> {
        let told = self.tell_and_keep(describer, what.as_ref(), replace).await?;
        let rows = what.as_ref().len();
        self.recorded(told, rows, what).await
    }

    /// The same of changes of whole rows, which are told by the plan as `told`.
    pub(super) async fn intend_as<T>(
        &mut self,
        describer: &Describer,
        told: &[Change],
        replace: bool,
        what: T,
    ) -> Result<Recorded<T>, AgentError> {
        let acknowledged = self.tell_and_keep(describer, told, replace).await?;
        self.recorded(acknowledged, told.len(), what).await
    }

    async fn tell_and_keep(
        &mut self,
        describer: &Describer,
        told: &[Change],
        replace: bool,
    ) -> Result<(Acknowledged, ReadBack), AgentError> {
        self.say_limits(Operations::of(told)).await?;
        self.begin_batch().await?;
        let acknowledged = match &self.wish {
            Some(wish) => {
                let tell = |change: &Change| wish.told(&self.table, describer, change).map_err(decode_error);
                let rows = told
                    .par_iter()
                    .with_min_len(TOLD_TOGETHER)
                    .map(tell)
                    .collect::<Result<_, AgentError>>()?;
                Some(self.announce(Intents::Each(rows)).await?)
            }
            None => None,
        };
        fail_point();
        // The journal is written while the trail is.
        let (agent, triggers) = (self.agent, self.limits.has_triggers());
        let mut read_back = ReadBack::Nothing;
        let kept = match &mut self.journal {
            Keeping::Open { journal, own } => {
                if !own.is_plans() || triggers {
                    let leaves = told.iter().enumerate().filter(|(_, change)| change.after.is_some());
                    read_back = ReadBack::Keys(leaves.map(|(at, change)| (at, change.key.clone())).collect());
                }
                match overwritten(agent, own, told).await {
                    Ok(before) => journal.batch(self.batch, replace, told.iter().zip(&before)).await,
                    Err(error) => Err(error),
                }
            }
            _ => Ok(()),
        };
        self.kept(kept, told.len()).await?;
        Ok((acknowledged, read_back))
    }

    /// A batch that the journal does not take is not written; the trail knows it by now.
    async fn kept(&mut self, kept: Result<(), AgentError>, rows: usize) -> Result<(), AgentError> {
        fail_point();
        if kept.is_err() {
            self.not_written(rows).await;
        }
        kept
    }

    async fn not_written(&mut self, rows: usize) {
        let outcomes = vec![RowOutcome::Refused; rows];
        if self.wish.is_some() {
            // The run fails for another reason.
            let _ = self.tell(Event::Applied { batch: self.batch, outcomes }).await;
        }
    }

    /// The same of rows that are all inserted.
    pub(super) async fn intend_inserts(
        &mut self,
        describer: &Describer,
        missing: &Missing,
        what: PermittedInserts,
    ) -> Result<Recorded<PermittedInserts>, AgentError> {
        self.say_limits(Operations { insert: true, ..Operations::default() }).await?;
        self.begin_batch().await?;
        let acknowledged = match &self.wish {
            Some(wish) => {
                let rows = wish.inserts(&self.table, describer, &missing.rows).map_err(decode_error)?;
                Some(self.announce(rows).await?)
            }
            None => None,
        };
        let triggers = self.limits.has_triggers();
        let mut read_back = ReadBack::Nothing;
        let kept = match &mut self.journal {
            Keeping::Open { journal, own } => {
                // Where every column is the source's, the rows are known without being read.
                if own.whole().uncompared || triggers {
                    read_back = ReadBack::Run(missing.rows.iter().map(|(key, _)| Key::from(key)).collect());
                }
                journal.inserts(self.batch, missing.iter().map(|((key, _), digest)| (key, digest))).await
            }
            _ => Ok(()),
        };
        self.kept(kept, missing.rows.len()).await?;
        self.recorded((acknowledged, read_back), missing.rows.len(), what).await
    }

    async fn begin_batch(&mut self) -> Result<(), AgentError> {
        self.batch += 1;
        fail_point();
        self.journal.open().await?;
        fail_point();
        Ok(())
    }

    async fn announce(&self, rows: Intents) -> Result<oneshot::Receiver<u64>, AgentError> {
        let (acknowledge, acknowledged) = Acknowledge::pair();
        let table = self.table.clone();
        self.tell(Event::Intended { table, batch: self.batch, rows, acknowledge }).await?;
        Ok(acknowledged)
    }

    /// Waits until the intent is durable.
    async fn recorded<T>(
        &mut self,
        (acknowledged, read_back): (Acknowledged, ReadBack),
        rows: usize,
        what: T,
    ) -> Result<Recorded<T>, AgentError> {
        let batch = self.batch;
        let Some(acknowledged) = acknowledged else { return Ok(Recorded { batch, rows, read_back, what }) };
        let error = match tokio::time::timeout(self.patience, acknowledged).await {
            Ok(Ok(seq)) => {
                tracing::debug!(batch, seq, "the intent of a batch is recorded");
                fail_point();
                return Ok(Recorded { batch, rows, read_back, what });
            }
            Ok(Err(_)) => AgentError::new(
                FailureKind::Cancelled,
                format!("the intent of batch {batch} was not recorded: none of its rows was written"),
            ),
            Err(_) => AgentError::new(
                FailureKind::Timeout,
                format!(
                    "the ledger has not recorded the intent of batch {batch} for {} s: none of its rows was written",
                    self.patience.as_secs()
                ),
            )
            .with_hint("look at the ledger's disk or server; then run the command again, it is safe to repeat"),
        };
        // The journal may speak of the batch by now.
        if let Keeping::Open { journal, .. } = &mut self.journal {
            journal.outcomes(batch, &vec![RowOutcome::Refused; rows], &[]).await?;
        }
        self.not_written(rows).await;
        Err(error)
    }

    /// After a batch, also after one that failed; passes on what it was given.
    pub(super) async fn done<T>(
        &mut self,
        batch: &Recorded<T>,
        given: Result<Vec<ChangeOutcome>, EngineError>,
    ) -> Result<Vec<ChangeOutcome>, AgentError> {
        let outcomes: Vec<RowOutcome> = match &given {
            Ok(outcomes) => outcomes.iter().map(row_outcome).collect(),
            // Most errors mean that nothing was written; a connection lost in the commit means that nobody knows.
            Err(_) => vec![RowOutcome::Unknown; batch.rows],
        };
        let left = self.read_back(&batch.read_back, &outcomes).await;
        fail_point();
        let noted = match &mut self.journal {
            Keeping::Open { journal, .. } => journal.outcomes(batch.batch, &outcomes, &left).await,
            _ => Ok(()),
        };
        fail_point();
        let told = match self.wish {
            Some(_) => self.tell(Event::Applied { batch: batch.batch, outcomes }).await,
            None => Ok(()),
        };
        fail_point();
        let given = given?;
        noted.and(told)?;
        Ok(given)
    }

    /// What the rows hold now that were written, by their place in the batch. Where that cannot be read it is not known, and
    /// the run goes on.
    async fn read_back(&self, wanted: &ReadBack, outcomes: &[RowOutcome]) -> Vec<Option<RowDigest>> {
        let Keeping::Open { journal, own } = &self.journal else { return Vec::new() };
        let written = |at: usize| outcomes.get(at) == Some(&RowOutcome::Written);
        let mut left = vec![None; outcomes.len()];
        match wanted {
            ReadBack::Nothing => return Vec::new(),
            ReadBack::Keys(keys) => {
                let keys = keys.iter().filter(|(at, _)| written(*at)).cloned();
                let (places, keys): (Vec<usize>, Vec<Key>) = keys.unzip();
                let Ok(rows) = rows_of(self.agent, own.reading(), &keys, |_| true).await else { return left };
                for (at, key) in places.into_iter().zip(&keys) {
                    if let Some(slot) = left.get_mut(at) {
                        *slot = rows.get(key).map(|row| journal.digest(key.as_bytes(), row.as_bytes()));
                    }
                }
            }
            ReadBack::Run(keys) => {
                let Ok(rows) = self.agent.engine.fetch_run(own.reading(), keys).await else { return left };
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
        ChangeOutcome::Stale | ChangeOutcome::Already => RowOutcome::Stale,
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
