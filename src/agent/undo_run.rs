//! Taking a run back: its journals from the last to the first, each from its last batch to its first.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::compare::describe::Describer;
use super::error::{AgentError, FailureKind, decode_error};
use super::event::{Event, UndoTask, Undone};
use super::identity::check_columns;
use super::local::LocalAgent;
use super::outcome::TableOutcome;
use super::trail::Trail;
use super::undo::UndoStore;
use super::undo::journal::{JournalReader, Overwritten};
use super::undo::own::{OwnAccess, access_of, merged, rows_of};
use super::writer;
use crate::merkle::SessionKey;
use crate::model::{
    Allow, CanonicalRow, Change, ChangeOutcome, Key, Operation, Permission, PermittedChanges, Rejection,
    RejectionKind, Role, TableAccess,
};

/// Rounds over rows that were refused because of other rows.
const ROUNDS_MAX: u32 = 16;

pub(super) async fn run(
    agent: &LocalAgent,
    task: UndoTask,
    events: &mpsc::Sender<Event>,
) -> Result<(), AgentError> {
    let Some(store) = &agent.undo else {
        return Err(AgentError::new(FailureKind::Usage, "this agent keeps no undo journals")
            .with_hint("the target's agent keeps them from a run that was made with --undo-dir")
            .on(Role::Target));
    };
    if !task.dry_run {
        agent.permit_write()?;
    }
    let files = store.of_run(&task.undoes)?;
    if files.is_empty() {
        return Err(AgentError::new(
            FailureKind::Usage,
            format!("there is no undo journal of run {} here", task.undoes),
        )
        .with_hint("only the agent that wrote has one, for as long as --undo-keep says; a run that wrote nothing has none")
        .on(Role::Target));
    }
    // Damage in any of them is found before the first row is put back.
    for path in &files {
        if let Err(error) = open(store, path)
            && error.kind != FailureKind::Usage
        {
            return Err(error.on(Role::Target));
        }
    }
    let mut refused = Vec::new();
    for path in files.iter().rev() {
        let Ok(reader) = open(store, path) else { continue };
        let mut table = Table::new(agent, &task, store, reader, events).await?;
        table.tell(Event::UndoTable { table: table.name.clone() }).await?;
        while let Some(batch) = table.reader.previous()? {
            let mut rows = batch.rows;
            while !rows.is_empty() {
                // An exchange is made whole; other rows are written as the pace allows.
                let most = if batch.replace { rows.len() } else { agent.pace.together_max() };
                let rest = rows.split_off(rows.len().min(most));
                table.put_back(std::mem::replace(&mut rows, rest), batch.replace).await?;
            }
        }
        refused.push(table);
    }
    again(&mut refused).await?;
    for table in &mut refused {
        table.end().await?;
    }
    let done = Event::Done { outcome: Box::new(TableOutcome::default()) };
    events.send(done).await.map_err(|_| cancelled())
}

fn open(store: &UndoStore, path: &Path) -> Result<JournalReader, AgentError> {
    JournalReader::open(path, store.key())
}

fn cancelled() -> AgentError {
    AgentError::new(FailureKind::Cancelled, "the run was cancelled")
}

/// Rows refused because of other rows are tried again as long as that helps; where it does not, once as an exchange of
/// all of them, which rows need that exchange unique values.
async fn again(tables: &mut [Table<'_>]) -> Result<(), AgentError> {
    let waiting = |tables: &[Table<'_>]| tables.iter().map(|table| table.waiting.len()).sum::<usize>();
    let mut exchange = false;
    for _ in 0..ROUNDS_MAX {
        let before = waiting(tables);
        if before == 0 {
            return Ok(());
        }
        for table in tables.iter_mut() {
            let rows = std::mem::take(&mut table.waiting).into_iter().map(|(row, _)| row).collect();
            table.put_back(rows, exchange).await?;
        }
        let helped = waiting(tables) < before;
        if !helped && exchange {
            return Ok(());
        }
        exchange = !helped;
    }
    Ok(())
}

/// One journal that is taken back.
struct Table<'a> {
    agent: &'a LocalAgent,
    task: &'a UndoTask,
    events: &'a mpsc::Sender<Event>,
    reader: JournalReader,
    name: String,
    access: Arc<TableAccess>,
    own: OwnAccess,
    describer: Describer,
    /// Keys the digests of what the run wrote.
    digests: SessionKey,
    trail: Trail,
    permission: Permission,
    waiting: Vec<(Overwritten, Rejection)>,
    undone: Undone,
}

impl<'a> Table<'a> {
    async fn new(
        agent: &'a LocalAgent,
        task: &'a UndoTask,
        store: &UndoStore,
        reader: JournalReader,
        events: &'a mpsc::Sender<Event>,
    ) -> Result<Self, AgentError> {
        let head = &reader.head;
        agent.permit(&head.plan.target).map_err(|error| error.on(Role::Target))?;
        let (access, own) = (access_of(&head.plan), OwnAccess::read(head));
        check_columns(agent, own.access().unwrap_or(&access), Role::Target).await?;
        if !task.dry_run {
            agent.engine.check_writable(&access).await?;
        }
        let schema = agent.engine.describe(&access.table).await?;
        // A dry run asks what would be permitted, and has nothing to hand to the engine.
        let permission =
            Permission::new(Allow::ALL, task.allow_cascade, &schema, own.access().unwrap_or(&access));
        let keep = task.run.as_deref().filter(|_| !task.no_undo && !task.dry_run).map(|run| (store, run));
        Ok(Self {
            agent,
            task,
            events,
            name: head.plan.target.to_string(),
            describer: Describer::new(&head.plan, &access, &BTreeMap::new(), false),
            digests: head.digests.session(),
            trail: Trail::of_undo(agent, events, head, task.trail.clone(), keep),
            permission,
            waiting: Vec::new(),
            undone: Undone { partial: head.partial, ..Undone::default() },
            access,
            own,
            reader,
        })
    }

    async fn tell(&self, event: Event) -> Result<(), AgentError> {
        self.events.send(event).await.map_err(|_| cancelled())
    }

    async fn leave(&self, key: &Key, reason: &str) -> Result<(), AgentError> {
        let key = self.describer.key(key).map_err(decode_error)?;
        self.tell(Event::SetAside { reason: reason.to_owned(), count: 1, examples: vec![key] }).await
    }

    async fn put_back(&mut self, rows: Vec<Overwritten>, replace: bool) -> Result<(), AgentError> {
        let engine = self.agent.engine.clone();
        let keys: Vec<Key> = rows.iter().map(|row| row.key.clone()).collect();
        // The whole row first: what is written since is seen in the row by the plan, or makes the write stale.
        let whole = match self.own.access() {
            Some(access) => Some(rows_of(engine.as_ref(), access, &keys).await?),
            None => None,
        };
        let now = rows_of(engine.as_ref(), &self.access, &keys).await?;
        let (mut by_plan, mut writes, mut tried) = (Vec::new(), PermittedChanges::default(), Vec::new());
        for row in rows {
            let key = &row.key;
            let is = now.get(key);
            let digest = is.map(|is| self.digests.row_digest(key.as_bytes(), is.as_bytes()));
            if digest != row.after {
                if is == row.before.as_ref() {
                    self.undone.already += 1;
                } else {
                    self.undone.moved_on += 1;
                    self.leave(key, "changed since the run: left as it is").await?;
                }
                continue;
            }
            let is_whole = match &whole {
                Some(whole) => whole.get(key),
                None => is,
            };
            let change =
                Change { key: key.clone(), before: is_whole.cloned(), after: self.was(&row, is_whole)? };
            let change = match self.permission.permit(change) {
                Ok(change) => change,
                Err(refused) => {
                    self.undone.refused += 1;
                    self.leave(key, &refused.refusal.to_string()).await?;
                    continue;
                }
            };
            if self.task.dry_run {
                self.undone.left += 1;
                continue;
            }
            by_plan.push(Change { key: key.clone(), before: is.cloned(), after: row.before.clone() });
            writes.push(change);
            tried.push(row);
        }
        if writes.is_empty() {
            return Ok(());
        }
        self.agent.pace.admit(&engine, writes.len()).await?;
        let all: Vec<Change> = writes.as_slice().to_vec();
        let exchange = if replace { self.permission.permit_exchange(writes) } else { Err(writes) };
        let access = self.own.access().unwrap_or(&self.access);
        let outcomes = match exchange {
            Ok(exchange) => {
                let batch = self.trail.intend_as(&self.describer, &by_plan, true, exchange).await?;
                let outcomes = writer::exchange(engine.as_ref(), access, &batch).await;
                self.trail.done(&batch, outcomes).await?
            }
            Err(writes) => {
                let batch = self.trail.intend_as(&self.describer, &by_plan, false, writes).await?;
                let outcomes = writer::apply(engine.as_ref(), access, &batch).await;
                self.trail.done(&batch, outcomes).await?
            }
        };
        for ((row, write), outcome) in tried.into_iter().zip(all).zip(outcomes) {
            match outcome {
                ChangeOutcome::Written => match write.operation() {
                    Operation::Insert => self.undone.inserted += 1,
                    Operation::Update => self.undone.updated += 1,
                    Operation::Delete => self.undone.deleted += 1,
                },
                ChangeOutcome::Stale => {
                    self.undone.moved_on += 1;
                    self.leave(&write.key, "changed since the run: left as it is").await?;
                }
                ChangeOutcome::Failed(why) => self.waiting.push((row, why)),
            }
        }
        Ok(())
    }

    /// What the row was before the run, in the form it is put back in.
    fn was(&self, row: &Overwritten, is: Option<&CanonicalRow>) -> Result<Option<CanonicalRow>, AgentError> {
        if self.own.access().is_none() {
            return Ok(row.before.clone());
        }
        match (&row.own_before, is) {
            (Some(was), Some(is)) => {
                merged(self.access.row_columns().len(), was, is).map(Some).map_err(decode_error)
            }
            (was, _) => Ok(was.clone()),
        }
    }

    async fn end(&mut self) -> Result<(), AgentError> {
        for (row, why) in std::mem::take(&mut self.waiting) {
            self.undone.refused += 1;
            let because = match why.kind {
                RejectionKind::ForeignKey => "other rows of the database refer to it, or it refers to none",
                _ => &why.reason,
            };
            self.leave(&row.key, because).await?;
        }
        self.tell(Event::UndoTable { table: self.name.clone() }).await?;
        let undone = std::mem::take(&mut self.undone);
        self.tell(Event::Undone { undone }).await
    }
}
