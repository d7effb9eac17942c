//! One journal that is taken back: every row that still holds what the run left is put back, and read again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::super::compare::describe::Describer;
use super::super::error::{AgentError, FailureKind, decode_error};
use super::super::event::{Event, UndoTask, Undone};
use super::super::local::LocalAgent;
use super::super::undo::UndoStore;
use super::super::undo::limits::{Operations, UndoLimits};
use super::super::undo::own::{OwnAccess, access_of, merged};
use super::super::undo::reader::{JournalReader, Overwritten};
use super::super::undo::standing::{Now, Standing};
use super::recorder::Recorder;
use super::undo_check::columns_are_the_same;
use super::whole_rows::rows_of;
use super::writer;
use crate::merkle::{RowDigest, SessionKey};
use crate::model::{
    Allow, CanonicalRow, Change, ChangeOutcome, Column, Filled, Key, Operation, Permission, Permitted,
    PermittedChanges, Rejection, RejectionKind, Role, TableAccess,
};

/// Rows left as they are that are told by their keys.
const NAMED_MAX: usize = 1_000;
const MOVED_ON: &str = "changed since the run: left as it is";

/// Rows of one table that no longer hold what the run left. A row may have been written by several batches: one that holds
/// what it held before the first of them has been taken back already.
#[derive(Debug, Default)]
pub(super) struct MovedOn {
    keys: HashMap<RowDigest, Option<Key>>,
    named: usize,
}

impl MovedOn {
    fn add(&mut self, digest: RowDigest, key: &Key) {
        let named = (self.named < NAMED_MAX).then(|| key.clone());
        self.named += usize::from(named.is_some());
        self.keys.entry(digest).or_insert(named);
    }
}

pub(super) fn cancelled() -> AgentError {
    AgentError::new(FailureKind::Cancelled, "the run was cancelled")
}

pub(super) struct Table<'a> {
    agent: &'a LocalAgent,
    task: &'a UndoTask,
    events: &'a mpsc::Sender<Event>,
    reader: JournalReader,
    pub(super) name: String,
    access: Arc<TableAccess>,
    own: OwnAccess,
    /// Columns that the table did not have when the run wrote it.
    added: Vec<String>,
    describer: Describer,
    /// Keys the digests of what the run wrote.
    digests: SessionKey,
    recorder: Recorder<'a>,
    permission: Permission,
    /// What the writes of the undo itself change beyond its journal.
    limits: UndoLimits,
    waiting: Vec<(Overwritten, Rejection)>,
    moved: Arc<Mutex<MovedOn>>,
    undone: Undone,
    /// What the run wrote, and what the undo.
    operations: [Operations; 2],
}

impl<'a> Table<'a> {
    pub(super) async fn new(
        agent: &'a LocalAgent,
        task: &'a UndoTask,
        store: &UndoStore,
        reader: JournalReader,
        events: &'a mpsc::Sender<Event>,
        moved: Arc<Mutex<MovedOn>>,
    ) -> Result<Self, AgentError> {
        let head = &reader.head;
        agent.permit(&head.plan.target).map_err(|error| error.on(Role::Target))?;
        let (access, own) = (access_of(&head.plan), OwnAccess::new(head.whole.clone(), &head.plan));
        let schema = agent.engine.describe(&head.plan.target).await?;
        columns_are_the_same(own.writing(), &schema).map_err(|(why, hint)| {
            AgentError::new(FailureKind::Usage, why).with_hint(hint).on(Role::Target)
        })?;
        if !task.dry_run {
            agent.engine.check_writable(&access, Allow::ALL).await?;
        }
        let known = |column: &Column| {
            column.filled == Filled::Generated
                || own.reading().columns.iter().any(|known| known.name == column.name)
                || own.whole().not_kept.contains(&column.name)
        };
        let added = schema.columns.iter().filter(|column| !known(column)).map(|column| column.name.clone());
        let added = added.collect();
        let keep = task.run.as_deref().filter(|_| !task.no_undo && !task.dry_run).map(|run| (store, run));
        let limits = UndoLimits::of(agent.engine.as_ref(), &head.plan, &schema, own.whole()).await;
        Ok(Self {
            agent,
            task,
            events,
            name: head.plan.target.to_string(),
            describer: Describer::new(&head.plan, &access, &BTreeMap::new(), false),
            digests: head.digests.session(),
            recorder: Recorder::of_undo(agent, events, head, limits.clone(), task.trail.clone(), keep),
            // A dry run asks what would be permitted, and has nothing to hand to the engine.
            permission: Permission::new(Allow::ALL, task.allow_cascade, &schema, own.writing()),
            limits,
            waiting: Vec::new(),
            moved,
            undone: Undone { open: !reader.closed, ..Undone::default() },
            operations: [Operations::default(); 2],
            access,
            own,
            added,
            reader,
        })
    }

    pub(super) async fn tell(&self, event: Event) -> Result<(), AgentError> {
        self.events.send(event).await.map_err(|_| cancelled())
    }

    async fn leave(&self, key: &Key, reason: &str) -> Result<(), AgentError> {
        let key = self.describer.key(key).map_err(decode_error)?;
        self.tell(Event::SetAside { reason: reason.to_owned(), count: 1, examples: vec![key] }).await
    }

    fn moved(&self) -> MutexGuard<'_, MovedOn> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) async fn put_all_back(&mut self) -> Result<(), AgentError> {
        while let Some(batch) = self.reader.previous()? {
            let mut rows = batch.rows;
            for row in &rows {
                self.operations[0].add(row.operation());
            }
            while !rows.is_empty() {
                // An exchange is made whole; other rows are written as the pace allows.
                let most = if batch.replace { rows.len() } else { self.agent.pace.together_max() };
                let rest = rows.split_off(rows.len().min(most));
                self.put_back(std::mem::replace(&mut rows, rest), batch.replace).await?;
            }
        }
        Ok(())
    }

    /// The rows that were refused because of others.
    pub(super) async fn try_again(&mut self, exchange: bool) -> Result<(), AgentError> {
        // No exchange gets around a lock of another session.
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let (locked, others): (Vec<_>, Vec<_>) =
            waiting.partition(|(_, why)| exchange && why.kind == RejectionKind::Locked);
        self.waiting = locked;
        self.put_back(others.into_iter().map(|(row, _)| row).collect(), exchange).await
    }

    async fn put_back(&mut self, rows: Vec<Overwritten>, replace: bool) -> Result<(), AgentError> {
        let keys: Vec<Key> = rows.iter().map(|row| row.key.clone()).collect();
        let left: HashMap<&Key, bool> = rows.iter().map(|row| (&row.key, row.after.is_some())).collect();
        let must = |key: &Key| left.get(key).copied().unwrap_or(false);
        let whole = rows_of(self.agent, self.own.reading(), &keys, must).await?;
        let by_plan = match self.own.is_plans() {
            true => None,
            false => Some(rows_of(self.agent, &self.access, &keys, must).await?),
        };
        drop(left);
        let (mut told, mut writes, mut tried) = (Vec::new(), PermittedChanges::default(), Vec::new());
        for row in rows {
            let now =
                Now { by_plan: by_plan.as_ref().unwrap_or(&whole).get(&row.key), whole: whole.get(&row.key) };
            let Some((plan_change, change)) = self.decide(&row, now).await? else { continue };
            told.push(plan_change);
            writes.push(change);
            tried.push(row);
        }
        if writes.is_empty() {
            return Ok(());
        }
        let engine = self.agent.engine.clone();
        self.agent.pace.admit(&engine, writes.len()).await?;
        let all: Vec<Change> = writes.as_slice().to_vec();
        let exchange = if replace { self.permission.permit_exchange(writes) } else { Err(writes) };
        let outcomes = match exchange {
            Ok(exchange) => {
                let batch = self.recorder.intend_as(&self.describer, &told, true, exchange).await?;
                let outcomes = writer::exchange(engine.as_ref(), self.own.writing(), &batch).await;
                self.recorder.done(&batch, outcomes).await?
            }
            Err(writes) => {
                let batch = self.recorder.intend_as(&self.describer, &told, false, writes).await?;
                let outcomes = writer::apply(engine.as_ref(), self.own.writing(), &batch).await;
                self.recorder.done(&batch, outcomes).await?
            }
        };
        let mut written = Vec::new();
        for ((row, write), outcome) in tried.into_iter().zip(all).zip(outcomes) {
            match outcome {
                ChangeOutcome::Written => {
                    let operation = write.operation();
                    self.operations[1].add(operation);
                    match operation {
                        Operation::Insert => self.undone.inserted += 1,
                        Operation::Update => self.undone.updated += 1,
                        Operation::Delete => self.undone.deleted += 1,
                    }
                    written.push(row);
                }
                ChangeOutcome::Stale | ChangeOutcome::Already => self.moved_on(&row.key),
                ChangeOutcome::Failed(why) => self.waiting.push((row, why)),
            }
        }
        self.read_back(&written).await
    }

    /// What is to be done to a row, as it is told and as it is written.
    async fn decide(
        &mut self,
        row: &Overwritten,
        now: Now<'_>,
    ) -> Result<Option<(Change, Permitted)>, AgentError> {
        let (key, whole) = (&row.key, self.own.whole());
        let mut standing = Standing::of(row, now, &self.digests, self.own.is_plans(), whole.uncompared);
        let digest = self.key_digest(key);
        // What a later batch left is gone: only what was there before all of them shows that the row is back.
        if standing == Standing::AsLeft && self.moved().keys.contains_key(&digest) {
            standing = Standing::MovedOn;
        }
        match standing {
            Standing::AsLeft => {}
            Standing::MovedOn => {
                self.moved_on(key);
                return Ok(None);
            }
            Standing::AsBefore => {
                self.moved().keys.remove(&digest);
                self.undone.already += 1;
                return Ok(None);
            }
            Standing::AsBeforeInPart => {
                self.moved().keys.remove(&digest);
                let what = self.altered(row, now.whole);
                self.undone.altered += 1;
                self.leave(key, &what).await?;
                return Ok(None);
            }
            Standing::NotKnown => {
                self.undone.refused += 1;
                let why = "left as it is: the run did not come to read the row back after its write, and columns that it did not compare may have been written since";
                self.leave(key, why).await?;
                return Ok(None);
            }
        }
        if row.before.is_none() && !self.added.is_empty() {
            self.undone.refused += 1;
            let why = format!(
                "left as it is: column {} was added since the run, and what it holds would be lost with the row",
                self.added.join(", ")
            );
            self.leave(key, &why).await?;
            return Ok(None);
        }
        let was = row.whole_before(self.own.is_plans());
        if row.before.is_some() && was.is_none() {
            self.undone.refused += 1;
            self.leave(key, "the undo journal does not hold the whole row").await?;
            return Ok(None);
        }
        let written = |row: Option<&CanonicalRow>| row.map(|row| self.own.written(row)).transpose();
        let (was, is) = (written(was).map_err(decode_error)?, written(now.whole).map_err(decode_error)?);
        let after = match (was, &is) {
            (Some(was), Some(is)) => {
                Some(merged(self.access.row_columns().len(), &was, is).map_err(decode_error)?)
            }
            (was, _) => was,
        };
        let change = Change { key: key.clone(), before: is, after };
        let change = match self.permission.permit(change) {
            Ok(change) => change,
            Err(refused) => {
                self.undone.refused += 1;
                self.leave(key, &refused.refusal.to_string()).await?;
                return Ok(None);
            }
        };
        if self.task.dry_run {
            self.undone.left += 1;
            return Ok(None);
        }
        let told = Change { key: key.clone(), before: now.by_plan.cloned(), after: row.before.clone() };
        Ok(Some((told, change)))
    }

    /// Rows that were put back are read once more: only what they hold then is said of them.
    async fn read_back(&mut self, written: &[Overwritten]) -> Result<(), AgentError> {
        let keys: Vec<Key> = written.iter().map(|row| row.key.clone()).collect();
        let back: HashMap<&Key, bool> = written.iter().map(|row| (&row.key, row.before.is_some())).collect();
        let must = |key: &Key| back.get(key).copied().unwrap_or(false);
        let now = rows_of(self.agent, self.own.reading(), &keys, must).await?;
        for row in written {
            let is = now.get(&row.key);
            if is != row.whole_before(self.own.is_plans()) {
                let what = self.altered(row, is);
                self.undone.altered += 1;
                self.leave(&row.key, &what).await?;
            }
        }
        Ok(())
    }

    /// In what a row differs from what it was before the run.
    fn altered(&self, row: &Overwritten, is: Option<&CanonicalRow>) -> String {
        match (row.whole_before(self.own.is_plans()), is) {
            (Some(was), Some(is)) => {
                let column = self.own.differing(was, is).unwrap_or("another");
                format!("column {column} does not hold what it held before the run")
            }
            (Some(_), None) => "it is not there after it was put back".to_owned(),
            (None, Some(_)) => "it is there again after it was deleted".to_owned(),
            (None, None) => "the undo journal does not hold the whole row".to_owned(),
        }
    }

    fn key_digest(&self, key: &Key) -> RowDigest {
        self.digests.row_digest(self.name.as_bytes(), key.as_bytes())
    }

    fn moved_on(&self, key: &Key) {
        let digest = self.key_digest(key);
        self.moved().add(digest, key);
    }

    pub(super) async fn end(&mut self) -> Result<(), AgentError> {
        for (row, why) in std::mem::take(&mut self.waiting) {
            self.undone.refused += 1;
            let because = match why.kind {
                RejectionKind::ForeignKey => "other rows of the database refer to it, or it refers to none",
                _ => &why.reason,
            };
            self.leave(&row.key, because).await?;
        }
        // Those of all journals of this table; whoever ends first tells them.
        let moved = std::mem::take(&mut self.moved().keys);
        self.undone.moved_on += moved.len() as u64;
        let named: BTreeSet<Key> = moved.into_values().flatten().collect();
        for key in &named {
            self.leave(key, MOVED_ON).await?;
        }
        let [of_run, of_undo] = self.operations;
        let mut limits = self.reader.head.limits.sentences(of_run);
        for sentence in self.limits.sentences(of_undo) {
            if !limits.contains(&sentence) {
                limits.push(sentence);
            }
        }
        self.undone.limits = limits;
        self.recorder.close().await?;
        self.tell(Event::UndoTable { table: self.name.clone() }).await?;
        let undone = std::mem::take(&mut self.undone);
        self.tell(Event::Undone { undone }).await
    }
}
