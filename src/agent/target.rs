//! The target's side of one table's run: drives the conversation from the scan to the proof.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::error::{AgentError, FailureKind};
use super::event::{Event, Phase, TableOutcome, TableTask};
use super::link::Link;
use super::local::LocalAgent;
use super::proto::{Close, Open, frame::Kind};
use super::scan::{Scanned, scan_table};
use super::settle::Settlement;
use super::source::{check_columns, locate_error};
use super::spool::{Spool, Suspect};
use super::wire::pack_json;
use crate::locate::{self, LocateOptions, Locator, Proof};
use crate::merkle::{DigestRun, RootDigest, SessionKey, Tree};
use crate::model::{Key, Role, TableAccess};

/// How often a scan's progress is told to the coordinator.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// A run of rows that only the source has, to be streamed and not named one by one.
#[derive(Debug, Clone)]
pub(super) struct MissingRun {
    pub(super) run_id: u32,
    pub(super) count: u64,
    pub(super) first: Key,
}

/// Everything located between the two snapshots.
pub(super) struct Located {
    pub(super) suspects: Spool,
    pub(super) missing_runs: Vec<MissingRun>,
    pub(super) missing: u64,
    pub(super) changed: u64,
    pub(super) extra: u64,
    pub(super) run: Arc<DigestRun>,
    pub(super) tree: Arc<Tree>,
    pub(super) source_root: RootDigest,
}

/// One table's run as it stands: what is asked, whom to ask, what came out so far.
pub(super) struct Target<'a> {
    pub(super) agent: &'a LocalAgent,
    pub(super) task: TableTask,
    pub(super) access: Arc<TableAccess>,
    pub(super) session: SessionKey,
    pub(super) link: Link,
    pub(super) events: &'a mpsc::Sender<Event>,
    pub(super) outcome: TableOutcome,
    pub(super) began: Instant,
}

pub(super) async fn run(
    agent: &LocalAgent,
    task: TableTask,
    link: Link,
    events: &mpsc::Sender<Event>,
) -> Result<(), AgentError> {
    agent.permit(&task.plan.target).map_err(|error| error.on(Role::Target))?;
    let access = Arc::new(task.plan.access(Role::Target));
    let session = SessionKey::new(random_key()?);
    let mut target = Target {
        agent,
        task,
        access,
        session,
        link,
        events,
        outcome: TableOutcome::default(),
        began: Instant::now(),
    };
    let outcome = target.run().await;
    // The source waits for this; if it is gone already there is nobody to tell.
    let _ = target.link.send(Kind::Close(Close {})).await;
    outcome.map_err(|error| {
        // Whoever finds a broken rule is not the one who broke it.
        let side = if error.kind == FailureKind::Protocol { Role::Source } else { Role::Target };
        error.on(side)
    })?;
    target.tell(Event::Done { outcome: Box::new(target.outcome.clone()) }).await
}

pub(super) fn random_key() -> Result<[u8; 32], AgentError> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| {
        AgentError::new(FailureKind::Resource, format!("the system has no randomness: {error}"))
    })?;
    Ok(key)
}

impl Target<'_> {
    /// A closed channel means that nobody wants the answer any more.
    pub(super) async fn tell(&self, event: Event) -> Result<(), AgentError> {
        self.events
            .send(event)
            .await
            .map_err(|_| AgentError::new(FailureKind::Cancelled, "the run was cancelled"))
    }

    pub(super) fn writes(&self) -> bool {
        self.task.options.repair.is_some() && !self.task.options.dry_run
    }

    async fn run(&mut self) -> Result<(), AgentError> {
        check_columns(self.agent, &self.access, Role::Target).await?;
        if self.writes() {
            self.agent.permit_write()?;
            self.agent.engine.check_writable(&self.access).await?;
        }
        let open = Open {
            plan: pack_json(&self.task.plan)?.into(),
            session_key: self.session.expose().to_vec().into(),
        };
        self.link.send(Kind::Open(open)).await?;
        let (scanned, theirs) = self.scan().await?;
        self.outcome.seconds.scan = self.began.elapsed().as_secs_f64();

        let since = Instant::now();
        let located = self.locate(scanned, theirs).await?;
        self.outcome.seconds.locate = since.elapsed().as_secs_f64();
        let Located { missing, changed, extra, .. } = located;
        self.tell(Event::Located { missing, changed, extra }).await?;
        if missing + changed + extra > 0 {
            Settlement::new(self, located).await?.settle().await?;
        }
        let counts = self.link.counts();
        self.outcome.bytes_to_source = counts.bytes_sent;
        self.outcome.bytes_to_target = counts.bytes_received;
        self.outcome.messages_to_source = counts.messages_sent;
        self.outcome.messages_to_target = counts.messages_received;
        Ok(())
    }

    /// Scans while the source scans; ends when both are done. With what the source has: its root, and how many rows.
    #[tracing::instrument(level = "info", skip_all)]
    async fn scan(&mut self) -> Result<(Scanned, (RootDigest, u64)), AgentError> {
        self.tell(Event::Phase { phase: Phase::Scan }).await?;
        let rows = Arc::new(AtomicU64::new(0));
        let scan = scan_table(self.agent, &self.access, &self.session, &self.agent.limits, &rows);
        tokio::pin!(scan);
        let mut ticks = tokio::time::interval(PROGRESS_EVERY);
        let (mut scanned, mut accepted, mut theirs) = (None, false, None);
        while scanned.is_none() || theirs.is_none() {
            tokio::select! {
                done = &mut scan, if scanned.is_none() => scanned = Some(done?),
                // What it has said by then is all that it says unasked.
                frame = self.link.recv(), if theirs.is_none() => match frame? {
                    Kind::Accepted(_) if !accepted => {
                        accepted = true;
                        let counts = self.link.counts();
                        self.outcome.handshake_bytes = counts.bytes_sent + counts.bytes_received;
                    }
                    Kind::Progress(rows) => {
                        let _ = self.events.try_send(Event::Progress { side: Role::Source, rows });
                    }
                    Kind::Scanned(scanned) if accepted && theirs.is_none() => {
                        let root = scanned.root.as_ref().try_into().map_err(|_| {
                            AgentError::protocol("the source's root has another length")
                        })?;
                        theirs = Some((RootDigest(root), scanned.count));
                        let _ = self.events.try_send(Event::Progress { side: Role::Source, rows: scanned.count });
                    }
                    _ => return Err(AgentError::protocol("the source agent sent a frame out of order")),
                },
                _ = ticks.tick() => {
                    if self.events.is_closed() {
                        return Err(AgentError::new(FailureKind::Cancelled, "the run was cancelled"));
                    }
                    // Progress may be dropped where the listener is slow.
                    let _ = self.events.try_send(Event::Progress { side: Role::Target, rows: rows.load(Ordering::Relaxed) });
                }
            }
        }
        let (Some(scanned), Some(theirs)) = (scanned, theirs) else {
            return Err(AgentError::protocol("the scan did not end"));
        };
        self.tell(Event::Progress { side: Role::Target, rows: scanned.tree.count() }).await?;
        Ok((scanned, theirs))
    }

    /// The locate conversation: suspects go to a spool as they are found.
    #[tracing::instrument(level = "info", skip_all)]
    async fn locate(&mut self, scanned: Scanned, theirs: (RootDigest, u64)) -> Result<Located, AgentError> {
        self.tell(Event::Phase { phase: Phase::Locate }).await?;
        let bulk = self.writes() && self.task.options.repair.is_some_and(|allow| allow.insert);
        let mut found = Found::new(self.agent);
        let (run, tree) = (Arc::new(scanned.run), Arc::new(scanned.tree));
        let options = LocateOptions {
            bulk,
            peer: Some(theirs),
            metered: self.task.options.metered,
            ..LocateOptions::default()
        };
        let mut locator =
            Locator::new(locate::Role::Target, run.clone(), tree.clone(), options).map_err(locate_error)?;
        locator.start().map_err(locate_error)?;
        let outcome = loop {
            while let Some(message) = locator.next_outgoing().map_err(locate_error)? {
                self.link.send(Kind::Locate(message.encode().into())).await?;
            }
            if let Some(outcome) = locator.outcome() {
                break outcome;
            }
            let bytes = match self.link.recv().await? {
                Kind::Locate(bytes) => bytes,
                Kind::Progress(rows) => {
                    let _ = self.events.try_send(Event::Progress { side: Role::Source, rows });
                    continue;
                }
                _ => return Err(AgentError::protocol("the source agent sent a frame out of order")),
            };
            let message = locate::Message::decode(&bytes).map_err(|error| locate_error(error.into()))?;
            let mut step = locator.receive(message).map_err(locate_error)?;
            loop {
                if step.restarted {
                    found = Found::new(self.agent);
                }
                let more = step.more;
                found.add(step)?;
                if !more {
                    break;
                }
                step = locator.resume().map_err(locate_error)?;
            }
        };
        self.outcome.source_rows = outcome.source_count;
        self.outcome.target_rows = outcome.target_count;
        self.outcome.source_root = outcome.source_root.to_string();
        self.outcome.target_root = outcome.target_root.to_string();
        self.outcome.proved = outcome.proof != Proof::Deferred;
        self.outcome.round_trips = self.link.counts().round_trips;
        self.tell(Event::Progress { side: Role::Source, rows: outcome.source_count }).await?;
        Ok(Located {
            suspects: found.suspects,
            missing_runs: found.runs,
            missing: found.missing,
            changed: found.changed,
            extra: found.extra,
            run,
            tree,
            source_root: outcome.source_root,
        })
    }
}

struct Found {
    suspects: Spool,
    runs: Vec<MissingRun>,
    missing: u64,
    changed: u64,
    extra: u64,
}

impl Found {
    fn new(agent: &LocalAgent) -> Self {
        let suspects = Spool::new(agent.limits.scratch.as_deref());
        Self { suspects, runs: Vec::new(), missing: 0, changed: 0, extra: 0 }
    }

    fn add(&mut self, step: locate::Step) -> Result<(), AgentError> {
        for locate::MissingRun { run_id, count, first, .. } in step.missing_runs {
            self.runs.push(MissingRun { run_id, count, first });
            self.missing += count;
        }
        for locate::Finding { kind, key, source, target } in step.findings {
            match kind {
                locate::FindingKind::Changed => self.changed += 1,
                locate::FindingKind::Extra => self.extra += 1,
                locate::FindingKind::Missing => self.missing += 1,
            }
            self.suspects.push(&Suspect { key, source, target, origin: source })?;
        }
        Ok(())
    }
}
