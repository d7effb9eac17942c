//! What an audit trail and an undo journal are told of every batch: the intent before it is written, the outcome after.
//!
//! Rows stay with this agent: the trail gets keyed hashes and digests, the journal is encrypted and lies here.

use std::sync::Arc;

use rayon::prelude::*;
use tokio::sync::mpsc;

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
use crate::model::{Change, ChangeOutcome, Plan, TableSchema};

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
}

/// A batch that was told, and is to be answered for.
#[must_use]
#[derive(Debug)]
pub(super) struct Intent {
    batch: u64,
    rows: usize,
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
        Ok(Self::new(agent.engine.clone(), events, &task.plan, options.trail.clone(), journal))
    }

    fn new(
        engine: Arc<dyn Engine>,
        events: &mpsc::Sender<Event>,
        plan: &Plan,
        wish: Option<TrailWish>,
        journal: Keeping,
    ) -> Self {
        let (table, events) = (plan.target.to_string(), events.clone());
        Self { wish, events, engine, table, journal, batch: 0 }
    }

    /// For an undo of a journal with this head, which keeps a journal of its own.
    pub(super) fn of_undo(
        engine: Arc<dyn Engine>,
        events: &mpsc::Sender<Event>,
        head: &JournalHead,
        wish: Option<TrailWish>,
        keep: Option<(&UndoStore, &str)>,
    ) -> Self {
        let journal = keep.map_or(Keeping::Nothing, |(store, run)| {
            Keeping::wait(store, run, &head.plan, OwnAccess::read(head), &head.digests.session())
        });
        Self::new(engine, events, &head.plan, wish, journal)
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
        let intent = self.next(changes.len()).await?;
        if let Keeping::Open { journal, own } = &mut self.journal {
            let before = own.fetch(self.engine.as_ref(), changes).await?;
            journal.batch(self.batch, replace, changes.iter().zip(&before)).await?;
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
        let intent = self.next(rows.len()).await?;
        if let Keeping::Open { journal, .. } = &mut self.journal {
            journal.inserts(self.batch, missing.iter().map(|((key, _), digest)| (key, digest))).await?;
        }
        let Some(wish) = &self.wish else { return Ok(intent) };
        let intents = wish.inserts(&self.table, describer, rows).map_err(decode_error)?;
        self.intended(intent, intents).await
    }

    async fn next(&mut self, rows: usize) -> Result<Intent, AgentError> {
        self.batch += 1;
        self.journal.open().await?;
        Ok(Intent { batch: self.batch, rows })
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
        let noted = match &mut self.journal {
            Keeping::Open { journal, .. } => journal.outcomes(intent.batch, &outcomes).await,
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
