//! What an audit trail and an undo journal are told of every batch: the intent before it is written, the outcome after.
//!
//! A batch is handed on for writing only when its intent is durable in the trail, where one was asked for: whoever records
//! it acknowledges it. Rows stay with this agent: the trail gets keyed hashes and digests, the journal is encrypted and lies here.

use std::sync::Arc;
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
use super::undo::own::OwnAccess;
use super::undo::{DigestSecret, Journal, JournalHead, UndoStore};
use crate::engine::{Engine, EngineError};
use crate::merkle::SessionKey;
use crate::model::{Change, ChangeOutcome, PermittedInserts, Plan, TableSchema, fail_point};

/// Rows that are put into the trail's words by one task.
const TOLD_TOGETHER: usize = 500;

/// The trail of one table's writes.
pub(super) struct Trail {
    wish: Option<TrailWish>,
    events: mpsc::Sender<Event>,
    engine: Arc<dyn Engine>,
    /// The table's name at the target.
    table: String,
    journal: Keeping,
    /// Of the batch that was told last.
    batch: u64,
    /// How long an acknowledgement is awaited.
    patience: Duration,
}

/// A batch whose intent is recorded: it may be written, and is to be answered for. Only a [`Trail`] makes one.
#[must_use]
#[derive(Debug)]
pub(super) struct Recorded<T> {
    batch: u64,
    rows: usize,
    what: T,
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

impl Trail {
    /// For a diff or a dry run, nothing is ever told.
    pub(super) async fn of_repair(
        agent: &LocalAgent,
        task: &TableTask,
        events: &mpsc::Sender<Event>,
        key: &SessionKey,
        schema: &TableSchema,
    ) -> Result<Self, AgentError> {
        let options = &task.options;
        let writes = options.repair.is_some() && !options.dry_run;
        let store = agent.undo.as_ref().filter(|_| writes && !options.no_undo);
        let journal = match (store, &options.run) {
            (Some(store), Some(run)) => {
                let server = agent.engine.server().await?;
                let own = OwnAccess::of(&task.plan, schema, &server);
                Keeping::wait(store, run, &task.plan, own, key)
            }
            _ => Keeping::Nothing,
        };
        Ok(Self::new(agent, events, &task.plan, options.trail.clone(), journal))
    }

    fn new(
        agent: &LocalAgent,
        events: &mpsc::Sender<Event>,
        plan: &Plan,
        wish: Option<TrailWish>,
        journal: Keeping,
    ) -> Self {
        let (table, events) = (plan.target.to_string(), events.clone());
        let (engine, patience) = (agent.engine.clone(), agent.limits.peer_timeout);
        Self { wish, events, engine, table, journal, batch: 0, patience }
    }

    /// For an undo of a journal with this head, which keeps a journal of its own.
    pub(super) fn of_undo(
        agent: &LocalAgent,
        events: &mpsc::Sender<Event>,
        head: &JournalHead,
        wish: Option<TrailWish>,
        keep: Option<(&UndoStore, &str)>,
    ) -> Self {
        let journal = keep.map_or(Keeping::Nothing, |(store, run)| {
            Keeping::wait(store, run, &head.plan, OwnAccess::read(head), &head.digests.session())
        });
        Self::new(agent, events, &head.plan, wish, journal)
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
        let acknowledged = self.tell_and_keep(describer, what.as_ref(), replace).await?;
        let rows = what.as_ref().len();
        self.recorded(acknowledged, rows, what).await
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
    ) -> Result<Option<oneshot::Receiver<u64>>, AgentError> {
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
        let kept = match &mut self.journal {
            Keeping::Open { journal, own } => match own.fetch(self.engine.as_ref(), told).await {
                Ok(before) => journal.batch(self.batch, replace, told.iter().zip(&before)).await,
                Err(error) => Err(error),
            },
            _ => Ok(()),
        };
        self.kept(kept, told.len()).await?;
        Ok(acknowledged)
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
        self.begin_batch().await?;
        let acknowledged = match &self.wish {
            Some(wish) => {
                let rows = wish.inserts(&self.table, describer, &missing.rows).map_err(decode_error)?;
                Some(self.announce(rows).await?)
            }
            None => None,
        };
        let kept = match &mut self.journal {
            Keeping::Open { journal, .. } => {
                journal.inserts(self.batch, missing.iter().map(|((key, _), digest)| (key, digest))).await
            }
            _ => Ok(()),
        };
        self.kept(kept, missing.rows.len()).await?;
        self.recorded(acknowledged, missing.rows.len(), what).await
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
        acknowledged: Option<oneshot::Receiver<u64>>,
        rows: usize,
        what: T,
    ) -> Result<Recorded<T>, AgentError> {
        let batch = self.batch;
        let Some(acknowledged) = acknowledged else { return Ok(Recorded { batch, rows, what }) };
        let error = match tokio::time::timeout(self.patience, acknowledged).await {
            Ok(Ok(seq)) => {
                tracing::debug!(batch, seq, "the intent of a batch is recorded");
                fail_point();
                return Ok(Recorded { batch, rows, what });
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
            journal.outcomes(batch, &vec![RowOutcome::Refused; rows]).await?;
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
        fail_point();
        let noted = match &mut self.journal {
            Keeping::Open { journal, .. } => journal.outcomes(batch.batch, &outcomes).await,
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
    fn wait(store: &UndoStore, run: &str, plan: &Plan, own: OwnAccess, session: &SessionKey) -> Self {
        let head = JournalHead {
            run: run.to_owned(),
            plan: plan.clone(),
            own: own.plan().cloned(),
            partial: own.is_partial(),
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
