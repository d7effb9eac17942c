//! The target's side of one table's run.
use tokio::sync::mpsc;

use super::error::AgentError;
use super::event::{Event, TableTask};
use super::link::Link;
use super::local::LocalAgent;

pub(super) async fn run(
    _agent: &LocalAgent,
    _task: TableTask,
    _link: Link,
    _events: &mpsc::Sender<Event>,
) -> Result<(), AgentError> {
    Ok(())
}
