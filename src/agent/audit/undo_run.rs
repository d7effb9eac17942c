//! Taking a run back: its journals from the last to the first, each from its last batch to its first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use super::super::error::{AgentError, FailureKind};
use super::super::event::{Event, UndoTask};
use super::super::local::LocalAgent;
use super::super::outcome::TableOutcome;
use super::super::undo::UndoStore;
use super::super::undo::reader::JournalReader;
use super::undo_table::{MovedOn, Table, cancelled};
use crate::model::Role;

/// Rounds over rows that were refused because of other rows.
const ROUNDS_MAX: u32 = 16;
/// Journals that cannot be read and are named.
const NAMED_MAX: usize = 10;

pub(crate) async fn run(
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
    check(store, &files, &task).map_err(|error| error.on(Role::Target))?;
    let mut tables: Vec<Table<'_>> = Vec::new();
    let mut moved: BTreeMap<String, Arc<Mutex<MovedOn>>> = BTreeMap::new();
    for path in files.iter().rev() {
        let Some(reader) = open(store, path)? else { continue };
        let moved = moved.entry(reader.head.plan.target.to_string()).or_default();
        let mut table = Table::new(agent, &task, store, reader, events, Arc::clone(moved)).await?;
        table.tell(Event::UndoTable { table: table.name.clone() }).await?;
        table.put_all_back().await?;
        tables.push(table);
    }
    again(&mut tables).await?;
    for table in &mut tables {
        table.end().await?;
    }
    let done = Event::Done { outcome: Box::new(TableOutcome::default()) };
    events.send(done).await.map_err(|_| cancelled())
}

/// Damage in any of them is found before the first row is put back: a run is taken back by all of its journals, or it is
/// said which of them cannot be read.
fn check(store: &UndoStore, files: &[PathBuf], task: &UndoTask) -> Result<(), AgentError> {
    let (mut faults, mut hint) = (Vec::new(), None);
    let (mut closed, mut whole): (BTreeMap<String, bool>, bool) = (BTreeMap::new(), true);
    for path in files {
        match open(store, path) {
            Ok(Some(reader)) => {
                *closed.entry(reader.head.plan.target.to_string()).or_insert(true) &= reader.closed;
            }
            // Begun, and nothing was written.
            Ok(None) => whole = false,
            Err(error) => {
                faults.push(error.message);
                hint = hint.or(error.hint);
            }
        }
    }
    if faults.is_empty() {
        for table in &task.ended {
            match closed.get(table) {
                Some(true) => {}
                Some(false) => {
                    faults.push(format!("a journal of table {table} is cut: the run has ended, and its last records are missing"));
                }
                None if whole => faults.push(format!("the journals of table {table} are missing")),
                None => faults.push(format!("the journals of table {table} are missing or cut")),
            }
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    let (count, of) = (faults.len(), files.len());
    faults.truncate(NAMED_MAX);
    let what = format!(
        "run {} cannot be taken back: {count} faults in its {of} undo journals: {}",
        task.undoes,
        faults.join("; ")
    );
    let hint = hint.unwrap_or_else(|| {
        "nothing was put back; restore the journals, or the rows, from a backup".to_owned()
    });
    Err(AgentError::new(FailureKind::Resource, what).with_hint(hint))
}

fn open(store: &UndoStore, path: &Path) -> Result<Option<JournalReader>, AgentError> {
    JournalReader::open(path, store.key())
}

/// Rows refused because of other rows are tried again as long as that helps; where it does not, once as an exchange of
/// all of them, which rows need that exchange unique values.
async fn again(tables: &mut [Table<'_>]) -> Result<(), AgentError> {
    let waiting = |tables: &[Table<'_>]| tables.iter().map(Table::waiting).sum::<usize>();
    let mut exchange = false;
    for _ in 0..ROUNDS_MAX {
        let before = waiting(tables);
        if before == 0 {
            return Ok(());
        }
        for table in tables.iter_mut() {
            table.try_again(exchange).await?;
        }
        let helped = waiting(tables) < before;
        if !helped && exchange {
            return Ok(());
        }
        exchange = !helped;
    }
    Ok(())
}
