//! The target's side of one table's run: what it knows, its scan, and what it locates.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::compare::balance::Balance;
use super::compare::suspects::{Spool, Suspect};
use super::error::{AgentError, FailureKind};
use super::event::{Event, Phase, TableTask};
use super::identity::check_identity;
use super::local::LocalAgent;
use super::outcome::TableOutcome;
use super::proto::frame::Kind;
use super::scan::{Scanned, scan_table, witnesses};
use super::session::{Exchanged, Session, locate_error, out_of_order};
use crate::locate::{self, LocateOptions, Locator, Proof};
use crate::merkle::{DigestRun, RootDigest, SessionKey, Tree};
use crate::model::{Key, Role, TableAccess, TableSchema};

/// How often a scan's progress is told to the coordinator.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// A range of the key order in which only the source has rows: they are streamed, and not named one by one.
#[derive(Debug, Clone)]
pub(super) struct MissingRange {
    pub(super) run_id: u32,
    pub(super) count: u64,
    pub(super) first: Key,
}

/// Everything located between the two snapshots.
pub(super) struct Located {
    /// In key order.
    pub(super) suspects: Spool,
    pub(super) missing_ranges: Vec<MissingRange>,
    /// What was located, to be accounted for.
    pub(super) balance: Balance,
    pub(super) missing: u64,
    pub(super) changed: u64,
    pub(super) extra: u64,
    pub(super) run: Arc<DigestRun>,
    pub(super) tree: Arc<Tree>,
    pub(super) source_root: RootDigest,
    /// Of an average row of the target.
    pub(super) row_bytes: usize,
}

/// One table's run as it stands: what is asked, whom to ask, what came out so far.
pub(super) struct Target<'a> {
    pub(super) agent: &'a LocalAgent,
    pub(super) task: TableTask,
    pub(super) access: Arc<TableAccess>,
    /// Of the digests of this run.
    pub(super) key: SessionKey,
    pub(super) session: Session,
    /// The target table as it was when the run began.
    pub(super) schema: TableSchema,
    pub(super) events: &'a mpsc::Sender<Event>,
    pub(super) outcome: TableOutcome,
    pub(super) began: Instant,
    /// Keys that the scan saw: a lookup that finds them works.
    pub(super) witnesses: Vec<Key>,
}

impl Target<'_> {
    /// A closed channel means that nobody wants the answer any more.
    pub(super) async fn tell(&self, event: Event) -> Result<(), AgentError> {
        self.events
            .send(event)
            .await
            .map_err(|_| AgentError::new(FailureKind::Cancelled, "the run was cancelled"))
    }

    /// An empty spool, with the agent's scratch space behind it.
    pub(super) fn spool(&self) -> Spool {
        Spool::new(self.agent.limits.scratch.as_deref())
    }

    pub(super) fn writes(&self) -> bool {
        self.task.options.repair.is_some() && !self.task.options.dry_run
    }

    /// The target table is still the one that was scanned.
    pub(super) async fn check_identity(&self) -> Result<(), AgentError> {
        check_identity(self.agent, &self.access, &self.schema, Role::Target).await
    }

    /// Scans while the source scans; ends when both are done. With what the source has: its root, and how many rows.
    #[tracing::instrument(level = "info", skip_all)]
    pub(super) async fn scan(&mut self) -> Result<(Scanned, (RootDigest, u64)), AgentError> {
        self.tell(Event::Phase { phase: Phase::Scan }).await?;
        let rows = Arc::new(AtomicU64::new(0));
        let scan = scan_table(self.agent, &self.access, &self.key, &self.agent.limits, &rows);
        tokio::pin!(scan);
        let mut ticks = tokio::time::interval(PROGRESS_EVERY);
        let (mut scanned, mut accepted, mut theirs) = (None, false, None);
        while scanned.is_none() || theirs.is_none() {
            tokio::select! {
                done = &mut scan, if scanned.is_none() => scanned = Some(done?),
                // What it has said by then is all that it says unasked.
                frame = self.session.recv(), if theirs.is_none() => match frame? {
                    Kind::Accepted(_) if !accepted => {
                        accepted = true;
                        let counts = self.session.counts();
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
                    _ => return Err(out_of_order(Role::Source)),
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
    pub(super) async fn locate(
        &mut self,
        scanned: Scanned,
        theirs: (RootDigest, u64),
    ) -> Result<Located, AgentError> {
        self.tell(Event::Phase { phase: Phase::Locate }).await?;
        self.witnesses = witnesses(&scanned.run)?;
        // Under a condition a row that only the source has may be there nevertheless, outside of it: each is looked up.
        let bulk = self.writes()
            && self.task.options.repair.is_some_and(|allow| allow.insert)
            && self.access.filter.is_none();
        let Scanned { run, tree, row_bytes } = scanned;
        let (run, tree) = (Arc::new(run), Arc::new(tree));
        let options = LocateOptions {
            bulk,
            peer: Some(theirs),
            metered: self.task.options.metered,
            ..LocateOptions::default()
        };
        let mut locator =
            Locator::new(locate::Role::Target, run.clone(), tree.clone(), options).map_err(locate_error)?;
        locator.start().map_err(locate_error)?;
        let mut found = Found::new(self.agent);
        let (agent, key) = (self.agent, self.key.clone());
        let exchanged = self
            .session
            .exchange(&mut locator, &mut |step| {
                if step.restarted {
                    found = Found::new(agent);
                }
                found.add(step, &key)
            })
            .await?;
        let (Exchanged::Done, Some(outcome)) = (exchanged, locator.outcome()) else {
            return Err(out_of_order(Role::Source));
        };
        self.outcome.source_rows = outcome.source_count;
        self.outcome.target_rows = outcome.target_count;
        self.outcome.source_root = outcome.source_root.to_string();
        self.outcome.target_root = outcome.target_root.to_string();
        self.outcome.proved = outcome.proof != Proof::Deferred;
        self.outcome.round_trips = self.session.counts().round_trips;
        self.tell(Event::Progress { side: Role::Source, rows: outcome.source_count }).await?;
        Ok(Located {
            suspects: found.suspects,
            missing_ranges: found.ranges,
            balance: found.balance,
            missing: found.missing,
            changed: found.changed,
            extra: found.extra,
            run,
            tree,
            source_root: outcome.source_root,
            row_bytes,
        })
    }
}

struct Found {
    suspects: Spool,
    ranges: Vec<MissingRange>,
    balance: Balance,
    missing: u64,
    changed: u64,
    extra: u64,
}

impl Found {
    fn new(agent: &LocalAgent) -> Self {
        let suspects = Spool::new(agent.limits.scratch.as_deref());
        Self { suspects, ranges: Vec::new(), balance: Balance::default(), missing: 0, changed: 0, extra: 0 }
    }

    fn add(&mut self, step: locate::Step, session: &SessionKey) -> Result<(), AgentError> {
        for locate::MissingRun { run_id, count, first, .. } in step.missing_runs {
            self.ranges.push(MissingRange { run_id, count, first });
            self.balance.locate_range(count);
            self.missing += count;
        }
        for locate::Finding { kind, key, source, target } in step.findings {
            match kind {
                locate::FindingKind::Changed => self.changed += 1,
                locate::FindingKind::Extra => self.extra += 1,
                locate::FindingKind::Missing => self.missing += 1,
            }
            self.balance.locate(session, key.as_bytes());
            let suspect =
                Suspect { source, target, origin: source, target_had: target.is_some(), ..Suspect::of(key) };
            self.suspects.push(&suspect)?;
        }
        Ok(())
    }
}
