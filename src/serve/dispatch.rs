//! The beat: what is due is claimed, run, given back with its next time, and told.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::asked::{Asked, Queue, with_repair};
use super::clock::Clock;
use super::due::{Group, due_groups, misplaced};
use super::lease::{Lost, Watch, keep};
use super::outcome::{Outcome, broken};
use super::{Ground, Metrics, text};
use crate::config::Config;
use crate::ledger::{Lease, LeaseEnd, Ledger, LedgerError, ScheduleRow};
use crate::report::checks::{CheckResult, Status, overall};

/// The coordinator looks for work at least this often.
const BEAT: Duration = Duration::from_secs(1);
const OPEN_INCIDENTS: u64 = 10_000;

/// What came of it.
#[derive(Debug, Default)]
pub struct Ran {
    pub run: String,
    pub results: Vec<CheckResult>,
}

/// Runs checks and records the run; implemented where databases are opened.
#[async_trait]
pub trait Runner: Send + Sync + 'static {
    /// `None`: stopped before there was a result.
    async fn run(&self, config: Arc<Config>, group: &Group, stop: CancellationToken) -> Option<Ran>;
}

#[derive(Debug)]
pub struct Coordinator<R> {
    pub ledger: Ledger,
    pub owner: String,
    pub ground: Ground,
    pub metrics: Metrics,
    pub runner: R,
    config: RwLock<Arc<Config>>,
    /// Names of checks that run here.
    running: Mutex<BTreeSet<String>>,
    asked: Queue,
    /// Somebody wants the next beat at once.
    pub wake: Notify,
    last_beat: Mutex<Option<Instant>>,
    pub(super) clock: Clock,
    watch: Watch,
}

impl<R: Runner> Coordinator<R> {
    pub fn new(ledger: Ledger, owner: String, ground: Ground, metrics: Metrics, runner: R) -> Self {
        Self {
            ledger,
            owner,
            ground,
            metrics,
            runner,
            config: RwLock::default(),
            running: Mutex::default(),
            asked: Queue::default(),
            wake: Notify::new(),
            last_beat: Mutex::default(),
            clock: Clock::default(),
            watch: Watch::default(),
        }
    }

    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How long ago the last beat went well.
    pub(super) fn since_beat(&self) -> Option<Duration> {
        self.last_beat.lock().unwrap_or_else(PoisonError::into_inner).map(|beat| beat.elapsed())
    }

    /// Whether the clock of the wall was set in so long a time: then nothing is judged by its age.
    pub fn clock_was_set_within(&self, time: Duration) -> bool {
        self.is_clock_set();
        self.clock.jumped_within(time)
    }

    /// Whether the clock of the wall was set since it was looked at last.
    fn is_clock_set(&self) -> bool {
        let jump = self.clock.look((self.ground.now)());
        if let Some(jump) = jump {
            self.metrics.failure("clock");
            tracing::warn!(milliseconds = jump, "the clock was set, or the machine slept");
        }
        jump.is_some()
    }

    pub fn running(&self) -> Vec<String> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Runs a check as soon as nobody else does; an error says why not.
    pub fn ask(&self, asked: Asked) -> Result<(), String> {
        self.asked.push(&self.config(), asked)?;
        self.wake.notify_one();
        Ok(())
    }

    /// Takes a configuration: each check's due time is noted where it is new or its timetable has changed. What runs goes
    /// on under the one it began with.
    pub async fn adopt(&self, config: Config) -> Result<(), LedgerError> {
        let now = (self.ground.now)();
        for (name, check) in &config.checks {
            let due = check.timetable.first(now, (self.ground.chance)()).map(text);
            self.ledger.schedule(name, &check.timetable.text, due.as_deref()).await?;
            if !check.timetable.catch_up {
                let due = check.timetable.next(None, now, (self.ground.chance)()).map(text);
                self.ledger.postpone(name, &text(now), due.as_deref()).await?;
            }
        }
        self.take(config);
        Ok(())
    }

    pub(super) fn take(&self, config: Config) {
        self.metrics.only(&config.checks.keys().map(String::as_str).collect());
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        self.wake.notify_one();
    }

    /// Until `stop`; then no more is begun, and what runs gets its grace.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let kill = CancellationToken::new();
        let mut tasks = JoinSet::new();
        while !stop.is_cancelled() {
            match self.beat(&mut tasks, &kill).await {
                Ok(()) => {}
                Err(error) => {
                    self.metrics.failure("ledger");
                    tracing::error!("the ledger cannot be used: {} ({})", error.what, error.hint);
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.wake.notified() => {}
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                () = tokio::time::sleep(BEAT) => {}
            }
        }
        let grace = self.config().serve.grace;
        if !tasks.is_empty() {
            tracing::info!("stopping: {} runs have {} seconds to end", tasks.len(), grace.as_secs());
        }
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, ended).await.is_err() {
            kill.cancel();
            while tasks.join_next().await.is_some() {}
        }
    }

    pub(super) async fn beat(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
        kill: &CancellationToken,
    ) -> Result<(), LedgerError> {
        let config = self.config();
        let now = (self.ground.now)();
        let rows = self.ledger.schedule_rows().await?;
        let rows = if self.put_right(&config, &rows, now).await? {
            self.ledger.schedule_rows().await?
        } else {
            rows
        };
        let due = due_groups(&config, &rows, &self.running(), &text(now));
        let mut waiting: usize = due.iter().map(|group| group.checks.len()).sum();
        let mut groups = self.asked.take(&config).into_iter().chain(due);
        let mut failed = None;
        for group in groups.by_ref() {
            let asked = group.asked.clone();
            match self.begin(&config, group, tasks, kill).await {
                Ok(0) => asked.into_iter().for_each(|asked| self.asked.again(asked)),
                Ok(begun) => waiting -= begun.min(waiting),
                Err(error) => {
                    asked.into_iter().for_each(|asked| self.asked.again(asked));
                    failed = Some(error);
                    break;
                }
            }
        }
        // What operators asked for waits for a ledger that answers.
        groups.filter_map(|group| group.asked).for_each(|asked| self.asked.again(asked));
        if let Some(error) = failed {
            return Err(error);
        }
        self.metrics.beat(seconds(now), waiting, self.running().len());
        *self.last_beat.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Ok(())
    }

    /// Looks for what cannot be right: times that were noted while the clock was ahead, leases whose holder is gone. Whether
    /// something was changed.
    async fn put_right(
        &self,
        config: &Config,
        rows: &[ScheduleRow],
        now: Timestamp,
    ) -> Result<bool, LedgerError> {
        let is_set = self.is_clock_set();
        let mut changed = false;
        for row in self.watch.gone(rows, (&self.owner, &self.running()), now, config.serve.lease) {
            if self.ledger.free(&row).await? {
                changed = true;
                tracing::warn!(check = row.name, "the holder of this check is gone: it is run again");
            }
        }
        // Clocks of coordinators may be a third of a lease apart.
        let slack = if is_set { Duration::ZERO } else { config.serve.lease / 3 };
        let mut corrected = 0;
        for wrong in misplaced(config, rows, now, slack, (self.ground.chance)()) {
            if self.ledger.correct_due(&wrong.name, &wrong.was, &wrong.due).await? {
                corrected += 1;
                tracing::warn!(
                    check = wrong.name,
                    was = wrong.was,
                    due = wrong.due,
                    "a check was due later than its schedule allows: the clock was ahead when that was noted"
                );
            }
        }
        if corrected > 0 {
            self.clock.corrected(format!(
                "{corrected} due times lay further ahead than their schedules allow and were computed anew at {}",
                text(now)
            ));
        }
        Ok(changed || corrected > 0)
    }

    /// Claims what it can of a group and lets it run; how many checks that are.
    async fn begin(
        self: &Arc<Self>,
        config: &Arc<Config>,
        mut group: Group,
        tasks: &mut JoinSet<()>,
        kill: &CancellationToken,
    ) -> Result<usize, LedgerError> {
        let here = self.running();
        group.checks.retain(|name| !here.contains(name));
        if tasks.len() >= config.serve.concurrency || group.checks.is_empty() {
            return Ok(0);
        }
        let (now, claimed) = ((self.ground.now)(), Instant::now());
        if let Some(asked) = &group.asked {
            self.ledger.hurry(&asked.check, &text(now)).await?;
        }
        let until = text(later(now, config.serve.lease));
        let mut leases = Vec::with_capacity(group.checks.len());
        for name in &group.checks {
            leases.extend(self.ledger.claim(name, &self.owner, &text(now), &until).await?);
        }
        if leases.is_empty() {
            // Another coordinator runs it.
            return Ok(0);
        }
        let config = match group.asked.as_ref().and_then(|asked| with_repair(config, asked)) {
            Some(with_repair) => Arc::new(with_repair),
            None => Arc::clone(config),
        };
        let names = leases.iter().map(|lease| lease.name.clone());
        let due = leases.iter().map(|lease| (lease.name.clone(), lease.due.clone()));
        let group = Group { checks: names.collect(), due: due.collect(), ..group };
        let running = Running::new(self, &group.checks);
        let (this, kill, begun) = (Arc::clone(self), kill.child_token(), leases.len());
        tasks.spawn(async move {
            this.work(&config, &group, (&leases, claimed), kill).await;
            drop(running);
        });
        Ok(begun)
    }

    /// Runs a group under its leases.
    async fn work(
        &self,
        config: &Arc<Config>,
        group: &Group,
        (leases, claimed): (&[Lease], Instant),
        kill: CancellationToken,
    ) {
        let began = Instant::now();
        let keep = keep(&self.ledger, leases, config.serve.lease, claimed, self.ground.now);
        let stop = kill.child_token();
        let ran = {
            let run =
                AssertUnwindSafe(self.runner.run(Arc::clone(config), group, stop.clone())).catch_unwind();
            tokio::pin!(run, keep);
            tokio::select! {
                ran = &mut run => ran,
                lost = &mut keep => {
                    let why = match lost {
                        Lost::Taken => "another coordinator has taken over checks of this run",
                        Lost::NotRenewed => "the lease of this run could not be renewed: it is stopped, another may run it",
                    };
                    tracing::warn!(pair = group.pair, "{why}");
                    stop.cancel();
                    run.await
                }
            }
        };
        let ran = ran.unwrap_or_else(|_| {
            self.metrics.failure("check");
            tracing::error!(
                pair = group.pair,
                checks = group.checks.join(", "),
                "a check has panicked: please report it"
            );
            Some(Ran { run: String::new(), results: broken(config, &group.checks) })
        });
        if let Some(ran) = &ran {
            tracing::info!(
                pair = group.pair,
                checks = group.checks.len(),
                run = ran.run,
                status = overall(&ran.results).as_str(),
                milliseconds = began.elapsed().as_millis(),
                "checks ran"
            );
        }
        for lease in leases {
            if let Err(error) = self.settle(config, lease, ran.as_ref()).await {
                self.metrics.failure("ledger");
                tracing::error!(
                    check = lease.name,
                    "the end of a check cannot be noted, it is run again: {}",
                    error.what
                );
            }
        }
        self.wake.notify_one();
    }

    /// Notes the end of a check, with all that follows from it, in one transaction.
    async fn settle(&self, config: &Config, lease: &Lease, ran: Option<&Ran>) -> Result<(), LedgerError> {
        let Some(ran) = ran else {
            // It was stopped: it is still due, for whoever comes.
            self.ledger.release(lease).await?;
            return Ok(());
        };
        let now = (self.ground.now)();
        let results: Vec<CheckResult> =
            ran.results.iter().filter(|result| result.name == lease.name).cloned().collect();
        let status = results.iter().map(|result| result.status).max().unwrap_or(Status::Unknown);
        let outcome = Outcome { ledger: &self.ledger, ground: &self.ground, config, run: &ran.run, now };
        let changes = outcome.changes(&lease.name, &results).await?;
        let spec = config.checks.get(&lease.name);
        let due = lease.due.parse().ok();
        let next = spec.and_then(|spec| spec.timetable.next(due, now, (self.ground.chance)())).map(text);
        let end =
            LeaseEnd { due: next, run: ran.run.clone(), at: text(now), status: status.as_str().to_owned() };
        if !self.ledger.end_check(lease, &end, &changes).await? {
            return Ok(());
        }
        results.iter().for_each(|result| self.metrics.result(result, seconds(now)));
        let open = self.ledger.incidents(true, OPEN_INCIDENTS).await?;
        let count = |severity: &str| open.iter().filter(|open| open.result.severity == severity).count();
        self.metrics.incidents(["info", "warning", "critical"].map(|severity| (severity, count(severity))));
        Ok(())
    }
}

/// Names of checks that run here, until it is dropped: also where the run has panicked.
struct Running<R: Runner> {
    coordinator: Arc<Coordinator<R>>,
    names: Vec<String>,
}

impl<R: Runner> Running<R> {
    fn new(coordinator: &Arc<Coordinator<R>>, names: &[String]) -> Self {
        let mut running = coordinator.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.extend(names.iter().cloned());
        drop(running);
        Self { coordinator: Arc::clone(coordinator), names: names.to_vec() }
    }
}

impl<R: Runner> Drop for Running<R> {
    fn drop(&mut self) {
        let mut running = self.coordinator.running.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &self.names {
            running.remove(name);
        }
    }
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_add(by).unwrap_or(now)
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit")]
fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}
