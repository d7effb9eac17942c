//! The source's side of one table's run.
use super::error::AgentError;
use super::link::Link;
use super::local::LocalAgent;

pub(super) async fn serve(_agent: &LocalAgent, _link: Link) -> Result<(), AgentError> {
    Ok(())
}
