//! The beat: what is due is claimed, run, given back with its next time, and told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::asked::{Asked, Queue, with_repair};
use super::incident::{Change, key_of, step};
use super::message::Item;
use super::{Ground, Metrics, text};
use crate::config::{AlertSpec, CheckKind, Config, Severity};
use crate::ledger::{Incident, Lease, Ledger, LedgerError, Notice, ScheduleRow};
use crate::report::checks::{CheckResult, Status, overall};

/// The coordinator looks for work at least this often.
const BEAT: Duration = Duration::from_secs(1);
const OPEN_INCIDENTS: u64 = 10_000;

/// Checks of one pair that run together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    pub pair: String,
    pub checks: Vec<String>,
    /// When each was due, RFC 3339: no such time is run twice.
    pub due: BTreeMap<String, String>,
    /// Not by the timetable.
    pub asked: Option<Asked>,
}

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
    last_beat: Mutex<Option<Timestamp>>,
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
        }
    }

    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// When the last beat went well.
    pub fn last_beat(&self) -> Option<Timestamp> {
        *self.last_beat.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.metrics.only(&config.checks.keys().map(String::as_str).collect());
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        self.wake.notify_one();
        Ok(())
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

    async fn beat(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
        kill: &CancellationToken,
    ) -> Result<(), LedgerError> {
        let config = self.config();
        let now = (self.ground.now)();
        let rows = self.ledger.schedule_rows().await?;
        let due = due_groups(&config, &rows, &self.running(), &text(now));
        let mut waiting: usize = due.iter().map(|group| group.checks.len()).sum();
        for mut group in self.asked.take(&config).into_iter().chain(due) {
            let here = self.running();
            group.checks.retain(|name| !here.contains(name));
            if tasks.len() >= config.serve.concurrency || group.checks.is_empty() {
                group.asked.into_iter().for_each(|asked| self.asked.again(asked));
                continue;
            }
            if let Some(asked) = &group.asked {
                self.ledger.hurry(&asked.check, &text(now)).await?;
            }
            let mut leases = Vec::with_capacity(group.checks.len());
            for name in &group.checks {
                let until = text(later(now, config.serve.lease));
                leases.extend(self.ledger.claim(name, &self.owner, &text(now), &until).await?);
            }
            if leases.is_empty() {
                // Another coordinator runs it: it is asked for again when that has ended.
                group.asked.into_iter().for_each(|asked| self.asked.again(asked));
                continue;
            }
            let config = match group.asked.as_ref().and_then(|asked| with_repair(&config, asked)) {
                Some(with_repair) => Arc::new(with_repair),
                None => Arc::clone(&config),
            };
            waiting -= leases.len().min(waiting);
            let names = leases.iter().map(|lease| lease.name.clone());
            let due = leases.iter().map(|lease| (lease.name.clone(), lease.due.clone()));
            let group = Group { checks: names.collect(), due: due.collect(), ..group };
            self.running.lock().unwrap_or_else(PoisonError::into_inner).extend(group.checks.iter().cloned());
            let (this, kill) = (Arc::clone(self), kill.child_token());
            tasks.spawn(async move {
                this.work(&config, &group, &leases, kill).await;
                let mut running = this.running.lock().unwrap_or_else(PoisonError::into_inner);
                group.checks.iter().for_each(|name| {
                    running.remove(name);
                });
            });
        }
        self.metrics.beat(seconds(now), waiting, self.running().len());
        *self.last_beat.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        Ok(())
    }

    /// Runs a group under its leases.
    async fn work(&self, config: &Arc<Config>, group: &Group, leases: &[Lease], kill: CancellationToken) {
        let began = (self.ground.now)();
        let lost = CancellationToken::new();
        let keep = self.keep(leases, config.serve.lease, &lost);
        let stop = kill.child_token();
        let ran = {
            let run = self.runner.run(Arc::clone(config), group, stop.clone());
            tokio::pin!(run, keep);
            tokio::select! {
                ran = &mut run => ran,
                () = &mut keep => {
                    tracing::warn!(pair = group.pair, "another coordinator has taken over checks of this run");
                    stop.cancel();
                    run.await
                }
            }
        };
        let now = (self.ground.now)();
        if let Some(ran) = &ran {
            tracing::info!(
                pair = group.pair,
                checks = group.checks.len(),
                run = ran.run,
                status = overall(&ran.results).as_str(),
                milliseconds = now.duration_since(began).as_millis(),
                "checks ran"
            );
        }
        for lease in leases {
            if let Err(error) = self.settle(config, lease, ran.as_ref(), now).await {
                self.metrics.failure("ledger");
                tracing::error!(check = lease.name, "the end of a check cannot be noted: {}", error.what);
            }
        }
        self.wake.notify_one();
    }

    /// Renews leases for as long as it is polled; ends when one was lost.
    async fn keep(&self, leases: &[Lease], length: Duration, lost: &CancellationToken) {
        while !lost.is_cancelled() {
            tokio::time::sleep(length / 3).await;
            let until = text(later((self.ground.now)(), length));
            for lease in leases {
                // A ledger that does not answer for a moment is no loss yet.
                if matches!(self.ledger.renew(lease, &until).await, Ok(false)) {
                    lost.cancel();
                }
            }
        }
    }

    async fn settle(
        &self,
        config: &Config,
        lease: &Lease,
        ran: Option<&Ran>,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let Some(ran) = ran else {
            // It was stopped: it is still due, for whoever comes.
            self.ledger.release(lease, Some(&lease.due), None).await?;
            return Ok(());
        };
        let of_check: Vec<&CheckResult> =
            ran.results.iter().filter(|result| result.name == lease.name).collect();
        let status = of_check.iter().map(|result| result.status).max().unwrap_or(Status::Unknown);
        let spec = config.checks.get(&lease.name);
        let due = lease.due.parse().ok();
        let next = spec.and_then(|spec| spec.timetable.next(due, now, (self.ground.chance)())).map(text);
        let ran_at = (ran.run.as_str(), text(now));
        let held =
            self.ledger.release(lease, next.as_deref(), Some((ran_at.0, &ran_at.1, status.as_str()))).await?;
        if !held {
            return Ok(());
        }
        for result in &of_check {
            self.metrics.result(result, seconds(now));
            let before = self.ledger.incident(&key_of(result)).await?;
            let seen = before.as_ref().map(|before| before.seen_at.clone());
            if let Some((incident, change)) = step(before, result, &ran.run, &text(now)) {
                let notices = self.notices(config, &incident, change, seen.as_deref(), now);
                self.ledger.note(&incident, &notices).await?;
            }
        }
        let open = self.ledger.incidents(true, OPEN_INCIDENTS).await?;
        let count = |severity: &str| open.iter().filter(|open| open.result.severity == severity).count();
        self.metrics.incidents(["info", "warning", "critical"].map(|severity| (severity, count(severity))));
        Ok(())
    }

    /// The messages about a change, one for each channel that wants it.
    fn notices(
        &self,
        config: &Config,
        incident: &Incident,
        change: Option<Change>,
        seen: Option<&str>,
        now: Timestamp,
    ) -> Vec<Notice> {
        let Some(change) = change else { return Vec::new() };
        let wanted = |spec: &AlertSpec| {
            wants(spec, &incident.result)
                && match change {
                    Change::Firing => true,
                    Change::Resolved => spec.resolved,
                    Change::Goes => {
                        incident.told_at.is_some()
                            && spec.repeat.is_some_and(|every| is_again(incident, seen, every, now))
                    }
                }
        };
        let item = Item::of(incident, change, config.serve.public_url.as_deref());
        let body = serde_json::to_string(&item).unwrap_or_default();
        let notice = |(name, spec): (&String, &AlertSpec)| Notice {
            id: (self.ground.id)(),
            channel: name.clone(),
            incident: incident.key.clone(),
            body: body.clone(),
            created_at: text(now),
            next_at: text(later(now, spec.group)),
        };
        config.alerts.iter().filter(|(_, spec)| wanted(spec)).map(notice).collect()
    }
}

fn wants(spec: &AlertSpec, result: &CheckResult) -> bool {
    let severity = [Severity::Info, Severity::Warning, Severity::Critical]
        .into_iter()
        .find(|severity| severity.name() == result.severity)
        .unwrap_or_default();
    severity >= spec.min_severity && (spec.checks.is_empty() || spec.checks.contains(&result.name))
}

/// Whether another `every` since it was opened has gone by since it was last seen.
fn is_again(incident: &Incident, seen: Option<&str>, every: Duration, now: Timestamp) -> bool {
    let (Some(Ok(seen)), Ok(opened)) =
        (seen.map(str::parse::<Timestamp>), incident.opened_at.parse::<Timestamp>())
    else {
        return false;
    };
    let times =
        |at: Timestamp| at.duration_since(opened).unsigned_abs().as_millis() / every.as_millis().max(1);
    times(now) > times(seen)
}

/// What is due and held by nobody: the totals of a pair together, every other check by itself.
fn due_groups(config: &Config, rows: &[ScheduleRow], running: &[String], now: &str) -> Vec<Group> {
    let mut together: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut groups = Vec::new();
    let mut due: Vec<&ScheduleRow> = rows
        .iter()
        .filter(|row| row.due.as_deref().is_some_and(|due| due <= now))
        .filter(|row| row.owner.is_none() || row.lease_until.as_deref().is_none_or(|until| until < now))
        .filter(|row| !running.contains(&row.name))
        .collect();
    due.sort_by(|a, b| (&a.due, &a.name).cmp(&(&b.due, &b.name)));
    for row in due {
        let Some(check) = config.checks.get(&row.name) else { continue };
        // A check that reads every row takes long; nobody else is to wait for it.
        if matches!(check.kind, CheckKind::Rows | CheckKind::Gaps { .. } | CheckKind::Sql { .. }) {
            let checks = vec![row.name.clone()];
            groups.push(Group { pair: check.pair.clone(), checks, ..Group::default() });
        } else {
            together.entry(&check.pair).or_default().push(row.name.clone());
        }
    }
    // What is quick goes first.
    let quick = together.into_iter().map(|(pair, checks)| Group {
        pair: pair.to_owned(),
        checks,
        ..Group::default()
    });
    quick.chain(groups).collect()
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_add(by).unwrap_or(now)
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit")]
fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}
