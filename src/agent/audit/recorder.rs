//! What an audit trail and an undo journal are told of every batch: the intent before it is written, the outcome after.
//!
//! A batch is handed on for writing only when its intent is durable in the trail, where one was asked for: whoever records
//! it acknowledges it. Rows stay with this agent: the trail gets keyed hashes and digests, the journal is encrypted and lies here.

use std::time::Duration;

use rayon::prelude::*;
use tokio::sync::{mpsc, oneshot};

use super::super::compare::describe::Describer;
use super::super::compare::missing_rows::Missing;
use super::super::error::{AgentError, FailureKind, decode_error};
use super::super::event::{Event, TableTask};
use super::super::local::LocalAgent;
use super::super::trail::{Acknowledge, Intents, RowOutcome, TrailWish};
use super::super::undo::limits::{Operations, UndoLimits};
use super::super::undo::own::WholePlan;
use super::super::undo::{JournalHead, UndoStore};
use super::journal_keeper::{JournalKeeper, ReadBack};
use crate::engine::EngineError;
use crate::merkle::SessionKey;
use crate::model::{Change, ChangeOutcome, PermittedInserts, Plan, TableSchema, fail_point};

/// Rows that are put into the trail's words by one task.
const TOLD_TOGETHER: usize = 500;

/// Records one table's writes.
pub(crate) struct Recorder<'a> {
    wish: Option<TrailWish>,
    events: mpsc::Sender<Event>,
    /// The table's name at the target.
    table: String,
    journal: JournalKeeper<'a>,
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

/// A batch whose intent is recorded: it may be written, and is to be answered for. Only a [`Recorder`] makes one.
#[must_use]
#[derive(Debug)]
pub(crate) struct Recorded<T> {
    batch: u64,
    rows: usize,
    /// Rows that are to be read back, by their place in the batch.
    read_back: ReadBack,
    what: T,
}

impl<T> Recorded<T> {
    pub(crate) fn what(&self) -> &T {
        &self.what
    }
}

impl<'a> Recorder<'a> {
    /// For a diff or a dry run, nothing is ever told.
    pub(crate) async fn of_repair(
        agent: &'a LocalAgent,
        task: &TableTask,
        events: &mpsc::Sender<Event>,
        key: &SessionKey,
        schema: &TableSchema,
    ) -> Result<Self, AgentError> {
        let (options, plan) = (&task.options, &task.plan);
        if options.repair.is_none() {
            let nothing = JournalKeeper::of_nothing(agent);
            return Ok(Self::new(agent, events, plan, None, nothing, UndoLimits::default()));
        }
        let whole = WholePlan::of(plan, schema, &agent.engine.server().await?);
        let limits = UndoLimits::of(agent.engine.as_ref(), plan, schema, &whole).await;
        let store = agent.undo.as_ref().filter(|_| !options.dry_run && !options.no_undo);
        let journal = match (store, &options.run) {
            (Some(store), Some(run)) => {
                let origin = agent.engine.origin(&plan.target).await?;
                JournalKeeper::new(agent, (store, run), origin, plan, whole, &limits, key)
            }
            _ => JournalKeeper::of_nothing(agent),
        };
        let mut recorder = Self::new(agent, events, plan, options.trail.clone(), journal, limits);
        recorder.not_kept = match options.no_undo {
            true => Some("no undo journal is kept of it (--no-undo)"),
            // Whether the run itself would keep one is not known to a dry run.
            false if recorder.journal.keeps_nothing() && !options.dry_run => {
                Some("the target's agent keeps no undo journals (--undo-dir)")
            }
            false => None,
        };
        Ok(recorder)
    }

    fn new(
        agent: &'a LocalAgent,
        events: &mpsc::Sender<Event>,
        plan: &Plan,
        wish: Option<TrailWish>,
        journal: JournalKeeper<'a>,
        limits: UndoLimits,
    ) -> Self {
        let (table, events) = (plan.target.to_string(), events.clone());
        let patience = agent.limits.peer_timeout;
        let not_kept = None;
        Self { wish, events, table, journal, limits, not_kept, said: Vec::new(), batch: 0, patience }
    }

    /// For an undo of a journal with this head, which keeps a journal of its own; with the limits of what the undo writes.
    pub(crate) fn of_undo(
        agent: &'a LocalAgent,
        events: &mpsc::Sender<Event>,
        head: &JournalHead,
        limits: UndoLimits,
        wish: Option<TrailWish>,
        keep: Option<(&UndoStore, &str)>,
    ) -> Self {
        let (plan, whole) = (&head.plan, head.whole.clone());
        let journal = match keep {
            Some(keep) => {
                let origin = head.origin.clone();
                JournalKeeper::new(agent, keep, origin, plan, whole, &limits, &head.digests.session())
            }
            None => JournalKeeper::of_nothing(agent),
        };
        Self::new(agent, events, plan, wish, journal, limits)
    }

    /// Tells, before it is written, what of these writes cannot be taken back. Once each.
    pub(crate) async fn say_limits(&mut self, operations: Operations) -> Result<(), AgentError> {
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

    pub(crate) fn keeps_undo(&self) -> bool {
        self.journal.is_open()
    }

    /// Before a batch: what it overwrites is on disk, and its intent is durable in the trail, when this returns.
    pub(crate) async fn intend<T: AsRef<[Change]>>(
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
    pub(crate) async fn intend_as<T>(
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
        let kept = self.journal.changes(self.batch, replace, told).await;
        let read_back = self.kept(kept, told.len()).await?;
        Ok((acknowledged, read_back))
    }

    /// A batch that the journal does not take is not written; the trail knows it by now.
    async fn kept(
        &mut self,
        kept: Result<ReadBack, AgentError>,
        rows: usize,
    ) -> Result<ReadBack, AgentError> {
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
    pub(crate) async fn intend_inserts(
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
        let kept = self.journal.inserts(self.batch, missing).await;
        let read_back = self.kept(kept, missing.rows.len()).await?;
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
        self.journal.outcomes(batch, &vec![RowOutcome::Refused; rows], &[]).await?;
        self.not_written(rows).await;
        Err(error)
    }

    /// After a batch, also after one that failed; passes on what it was given.
    pub(crate) async fn done<T>(
        &mut self,
        batch: &Recorded<T>,
        given: Result<Vec<ChangeOutcome>, EngineError>,
    ) -> Result<Vec<ChangeOutcome>, AgentError> {
        let outcomes: Vec<RowOutcome> = match &given {
            Ok(outcomes) => outcomes.iter().map(row_outcome).collect(),
            // Most errors mean that nothing was written; a connection lost in the commit means that nobody knows.
            Err(_) => vec![RowOutcome::Unknown; batch.rows],
        };
        let left = self.journal.read_back(&batch.read_back, &outcomes).await;
        fail_point();
        let noted = self.journal.outcomes(batch.batch, &outcomes, &left).await;
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

    /// The table's run has ended by itself: the journal is whole.
    pub(crate) async fn close(&mut self) -> Result<(), AgentError> {
        self.journal.close().await
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
