//! Taking a run back: its journals from the last to the first, each from its last batch to its first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use super::super::error::{AgentError, FailureKind};
use super::super::event::{Event, UndoTask};
use super::super::local::LocalAgent;
use super::super::outcome::TableOutcome;
use super::undo_check::{ended_journals, heads, open, places};
use super::undo_table::{MovedOn, Table, cancelled};
use crate::model::Role;

/// Rounds over rows that were refused because of other rows.
const ROUNDS_MAX: u32 = 16;

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
    let on_target = |error: AgentError| error.on(Role::Target);
    // Until this undo has ended.
    let mut lock = store.lock(&task.undoes, task.dry_run).map_err(on_target)?;
    let files = ended_journals(store, &task.undoes).await.map_err(on_target)?;
    if files.is_empty() {
        return Err(AgentError::new(
            FailureKind::Usage,
            format!("there is no undo journal of run {} here", task.undoes),
        )
        .with_hint("only the agent that wrote has one, for as long as --undo-keep says; a run that wrote nothing has none")
        .on(Role::Target));
    }
    let heads = heads(store, &files, &task).map_err(on_target)?;
    let places = places(agent, &heads, &task).await.map_err(on_target)?;
    lock.end_run()?;
    if store.of_run(&task.undoes)?.len() != files.len() {
        lock.let_run_go_on();
        let what =
            format!("run {} is not taken back: it has begun another table, and has not ended", task.undoes);
        return Err(AgentError::new(FailureKind::Usage, what)
            .with_hint(
                "nothing was put back; wait until the run has ended, or stop it, and run the undo again",
            )
            .on(Role::Target));
    }
    let mut tables: Vec<Table<'_>> = Vec::new();
    let mut moved: BTreeMap<String, Arc<Mutex<MovedOn>>> = BTreeMap::new();
    for path in files.iter().rev() {
        let Some(mut reader) = open(store, path)? else { continue };
        let name = reader.head.plan.target.to_string();
        // A journal that was not there when all were looked through is none of these files.
        let Some(here) = places.get(&name) else { continue };
        reader.head.lies_at(here.table.clone(), here.origin.clone());
        let moved = moved.entry(name).or_default();
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
