//! Many small tables in one conversation: both sides read them all, the source tells its roots, and the target says which
//! tables are equal. Of a table that is not, or that could not be read, nothing is said: it gets a run of its own.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::error::{AgentError, FailureKind};
use super::event::{EqualTable, Event, Phase};
use super::identity::check_columns;
use super::local::{AgentLimits, LocalAgent};
use super::outcome::TableOutcome;
use super::proto::{OpenMany, Roots, frame::Kind};
use super::scan::scan_table;
use super::session::link::Link;
use super::session::wire::{Held, pack_json, pack_roots, unpack_plans, unpack_roots};
use super::session::{Session, out_of_order, random_key, session_key};
use crate::merkle::SessionKey;
use crate::model::{Plan, Role};

/// Tables that one roll call may name.
pub const ROLL_CALL_MAX: usize = 1_000;
/// Tables read at once, each by one reader with its share of the memory.
const AT_ONCE: usize = 4;
/// Roots that cross together, unless they took longer than this to gather.
const ROOTS_TOGETHER: usize = 256;
const GATHER: Duration = Duration::from_secs(10);
/// Equal tables named in one event.
const EQUAL_TOGETHER: usize = 256;

/// What each table holds, in the order of the plans.
fn read_all<'a>(
    agent: &'a LocalAgent,
    plans: &'a [Plan],
    role: Role,
    session: &'a SessionKey,
) -> impl futures::Stream<Item = Held> + 'a {
    let limits = AgentLimits {
        memory_bytes: agent.limits.memory_bytes / AT_ONCE,
        parallelism: 1,
        ..agent.limits.clone()
    };
    let limits = Arc::new(limits);
    futures::stream::iter(plans)
        .map(move |plan| {
            let limits = Arc::clone(&limits);
            async move {
                let held = read(agent, plan, role, session, &limits).await;
                // Why is told by the table's own run.
                held.inspect_err(|error| tracing::debug!("a table is left out of the roll call: {error}"))
                    .ok()
            }
        })
        .buffered(AT_ONCE)
}

async fn read(
    agent: &LocalAgent,
    plan: &Plan,
    role: Role,
    session: &SessionKey,
    limits: &AgentLimits,
) -> Result<(crate::merkle::RootDigest, u64), AgentError> {
    let access = agent.access(plan, role)?;
    check_columns(agent, &access, role).await?;
    let scanned = scan_table(agent, &access, session, limits, &Arc::default()).await?;
    Ok((scanned.tree.root(), scanned.tree.count()))
}

/// Plays the source.
pub(super) async fn serve(
    agent: &LocalAgent,
    open: &OpenMany,
    session: &mut Session,
) -> Result<(), AgentError> {
    let (plans, key) = (unpack_plans(&open.plans)?, session_key(&open.session_key)?);
    if plans.len() > ROLL_CALL_MAX {
        return Err(AgentError::protocol("more tables than one conversation may name"));
    }
    let held = read_all(agent, &plans, Role::Source, &key);
    tokio::pin!(held);
    let (mut gathered, mut since) = (Vec::with_capacity(ROOTS_TOGETHER), Instant::now());
    loop {
        let next = tokio::select! {
            next = tokio::time::timeout_at(since + GATHER, held.next()) => next,
            // The target may leave at any time, and then nothing more is read.
            frame = session.recv_or_end() => return left(frame?),
        };
        let ended = matches!(next, Ok(None));
        let late = next.is_err();
        gathered.extend(next.ok().flatten());
        if gathered.len() >= ROOTS_TOGETHER || late || (ended && !gathered.is_empty()) {
            // An empty list says that this side still works.
            session.send(Kind::Roots(Roots { roots: pack_roots(&gathered).into() })).await?;
            gathered.clear();
            since = Instant::now();
        }
        if ended {
            return left(session.recv_or_end().await?);
        }
    }
}

fn left(frame: Option<Kind>) -> Result<(), AgentError> {
    match frame {
        None | Some(Kind::Close(_)) => Ok(()),
        Some(_) => Err(out_of_order(Role::Target)),
    }
}

/// Plays the target: `Equal` events, then `Done` with what crossed the link.
pub(super) async fn run(
    agent: &LocalAgent,
    plans: Vec<Plan>,
    link: Link,
    events: &mpsc::Sender<Event>,
) -> Result<(), AgentError> {
    let began = Instant::now();
    let tell = async |event| {
        let gone = |_| AgentError::new(FailureKind::Cancelled, "the run was cancelled");
        events.send(event).await.map_err(gone)
    };
    tell(Event::Phase { phase: Phase::Scan }).await?;
    let mut session = Session::new(link);
    let key = SessionKey::new(random_key()?);
    let open = OpenMany { plans: pack_json(&plans)?.into(), session_key: key.expose().to_vec().into() };
    session.send(Kind::OpenMany(open)).await?;
    let handshake_bytes = session.counts().bytes_sent;
    let ours = read_all(agent, &plans, Role::Target, &key).collect::<Vec<Held>>();
    let theirs = async {
        let mut held = Vec::with_capacity(plans.len());
        while held.len() < plans.len() {
            let Kind::Roots(roots) = session.recv().await? else { return Err(out_of_order(Role::Source)) };
            held.extend(unpack_roots(&roots.roots)?);
        }
        if held.len() > plans.len() {
            return Err(AgentError::protocol("the source agent told of more tables than were asked for"));
        }
        Ok(held)
    };
    let (ours, theirs) = tokio::try_join!(async { Ok::<_, AgentError>(ours.await) }, theirs)
        .map_err(|error| if error.side.is_some() { error } else { error.on(Role::Source) })?;
    session.close().await;

    let mut outcome =
        TableOutcome { proved: true, handshake_bytes, round_trips: 1, ..TableOutcome::default() };
    let mut equal = Vec::new();
    for (at, (ours, theirs)) in (0u32..).zip(ours.into_iter().zip(theirs)) {
        let Some((root, rows)) = ours.filter(|_| ours == theirs) else { continue };
        outcome.source_rows += rows;
        outcome.target_rows += rows;
        equal.push(EqualTable { at, rows, root: root.to_string() });
    }
    for tables in equal.chunks(EQUAL_TOGETHER) {
        tell(Event::Equal { tables: tables.to_vec() }).await?;
    }
    let counts = session.counts();
    outcome.bytes_to_source = counts.bytes_sent;
    outcome.bytes_to_target = counts.bytes_received;
    outcome.messages_to_source = counts.messages_sent;
    outcome.messages_to_target = counts.messages_received;
    outcome.seconds.scan = began.elapsed().as_secs_f64();
    tell(Event::Done { outcome: Box::new(outcome) }).await
}
