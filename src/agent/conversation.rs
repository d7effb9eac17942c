//! What an agent plays in a conversation: the target of a run, its source, or an undo.

use tokio::sync::mpsc;

use super::error::AgentError;
use super::event::{Event, Task, UndoTask};
use super::local::LocalAgent;
use super::session::link::Link;
use crate::model::Role;

/// Plays the target of one run: drives the conversation, tells events, ends with `Done` or `Failed`.
pub(super) async fn run_target(agent: &LocalAgent, task: Task, link: Link, events: mpsc::Sender<Event>) {
    let ended = match task {
        Task::Table(task) => super::table_run::run(agent, *task, link, &events).await,
        Task::RollCall(plans) => super::small_tables::run(agent, plans, link, &events).await,
    };
    if let Err(error) = ended {
        let _ = events.send(failed_event(error)).await;
    }
}

/// Takes a run back from this agent's journal; ends with `Done` or `Failed`.
pub(super) async fn run_undo(agent: &LocalAgent, task: UndoTask, events: mpsc::Sender<Event>) {
    if let Err(error) = super::audit::undo(agent, task, &events).await {
        let _ = events.send(failed_event(error)).await;
    }
}

/// Plays the source on a link until the peer closes it. `Err` was told to the peer already.
pub(super) async fn serve_source(agent: &LocalAgent, link: Link) -> Result<(), AgentError> {
    super::source::serve(agent, link).await
}

/// The last event of a run that failed.
pub(super) fn failed_event(error: AgentError) -> Event {
    let side = error.side.or(Some(Role::Target));
    Event::Failed { kind: error.kind.as_str().to_owned(), side, message: error.message, hint: error.hint }
}
