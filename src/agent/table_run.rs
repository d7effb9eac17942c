//! One table's run, as its target drives it: from the plan to the proof.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::error::{AgentError, FailureKind};
use super::event::{Event, TableTask};
use super::identity::check_columns;
use super::local::LocalAgent;
use super::outcome::TableOutcome;
use super::proto::{Open, frame::Kind};
use super::repair::settle;
use super::session::link::Link;
use super::session::wire::pack_json;
use super::session::{Session, random_key};
use super::target::{Located, Target};
use crate::merkle::SessionKey;
use crate::model::{Role, TableAccess, TableSchema};

pub(super) async fn run(
    agent: &LocalAgent,
    task: TableTask,
    link: Link,
    events: &mpsc::Sender<Event>,
) -> Result<(), AgentError> {
    let mut session = Session::new(link);
    let began = begin(agent, &task).await;
    let mut target = match began {
        Ok((access, schema, key)) => Target {
            agent,
            task,
            access,
            key,
            session,
            schema,
            events,
            outcome: TableOutcome::default(),
            began: Instant::now(),
            witnesses: Vec::new(),
        },
        Err(error) => {
            session.close().await;
            return Err(error.on(Role::Target));
        }
    };
    let ended = drive(&mut target).await;
    // The source waits for this.
    target.session.close().await;
    if let Err(error) = ended {
        if target.outcome.written() > 0 {
            // Whoever reads of the failure must not believe that the target is untouched.
            let outcome = Box::new(target.outcome.clone());
            target.tell(Event::Stopped { outcome }).await?;
        }
        // A protocol error is the peer's fault.
        let side = if error.kind == FailureKind::Protocol { Role::Source } else { Role::Target };
        return Err(error.on(side));
    }
    target.tell(Event::Done { outcome: Box::new(target.outcome.clone()) }).await
}

/// What is asked is permitted, and the table is what was planned.
async fn begin(
    agent: &LocalAgent,
    task: &TableTask,
) -> Result<(Arc<TableAccess>, TableSchema, SessionKey), AgentError> {
    let access = agent.access(&task.plan, Role::Target)?;
    let schema = check_columns(agent, &access, Role::Target).await?;
    if let Some(allow) = task.options.repair.filter(|_| !task.options.dry_run) {
        agent.permit_write()?;
        agent.engine.check_writable(&access, allow).await?;
    }
    Ok((access, schema, SessionKey::new(random_key()?)))
}

async fn drive(target: &mut Target<'_>) -> Result<(), AgentError> {
    let open =
        Open { plan: pack_json(&target.task.plan)?.into(), session_key: target.key.expose().to_vec().into() };
    target.session.send(Kind::Open(open)).await?;
    let (scanned, theirs) = target.scan().await?;
    target.outcome.seconds.scan = target.began.elapsed().as_secs_f64();

    let since = Instant::now();
    let located = target.locate(scanned, theirs).await?;
    target.outcome.seconds.locate = since.elapsed().as_secs_f64();
    let Located { missing, changed, extra, .. } = located;
    target.tell(Event::Located { missing, changed, extra }).await?;
    if missing + changed + extra > 0 {
        settle(target, located).await?;
        // What was read and written since the scans was of the tables that were scanned.
        target.check_identity().await?;
        target.session.conclude().await?;
    }
    let counts = target.session.counts();
    target.outcome.bytes_to_source = counts.bytes_sent;
    target.outcome.bytes_to_target = counts.bytes_received;
    target.outcome.messages_to_source = counts.messages_sent;
    target.outcome.messages_to_target = counts.messages_received;
    Ok(())
}
