//! `trueup serve`: the coordinator to leave running. Clock, chance, environment, signals and databases come in here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use axum::Router;
use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Failure;
use super::args::{LimitArgs, RECHECKS_MAX, recheck_delay};
use super::board;
use super::check::DETAILS_KEPT;
use super::checking::{self, Keeping};
use super::config::{Endpoints, FileArgs, Loaded};
use super::endpoint::{limits, warn_if_readable};
use super::evidence::{by, open_ledger};
use super::evidence_args::{EvidenceArgs, UndoStoreArgs};
use super::live::Live;
use super::retain::retain;
use super::shutdown::Shutdown;
use crate::agent::AgentLimits;
use crate::checks::{self, CheckOptions};
use crate::config::{AlertKind, AlertSpec, CheckSpec, Config, SecretSpec};
use crate::dashboard;
use crate::serve::channel::{Channel, Post, To};
use crate::serve::{Coordinator, Ground, Group, Metrics, Ran, Runner, Sender, http};

/// Messages are looked for this often.
const SEND_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(after_help = "\
Signals: TERM and INT stop it when the checks that run have ended (a second one at once), HUP reads the configuration again.

Examples:
  trueup serve
  trueup serve -c /etc/trueup/trueup.toml --log-format json")]
pub(super) struct ServeArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Listen here instead of where the configuration says
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Measure a check that fails again this often before it is told
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(..=RECHECKS_MAX))]
    recheck: u32,
    /// Time before it is measured again
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = recheck_delay)]
    recheck_delay: Duration,
    #[command(flatten)]
    undo: UndoStoreArgs,
    #[command(flatten)]
    evidence: EvidenceArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without chance all are on time, which is no harm.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

const GROUND: Ground = Ground { now, chance, id: || Uuid::now_v7().to_string() };

/// Runs checks with the configuration that is in force.
#[derive(Debug)]
struct Checks {
    loaded: RwLock<Arc<Loaded>>,
    limits: AgentLimits,
    keeping: (EvidenceArgs, UndoStoreArgs),
    recheck: (u32, Duration),
    metrics: Metrics,
    live: Arc<Live>,
}

impl Checks {
    fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Runner for Checks {
    async fn run(&self, config: Arc<Config>, group: &Group, stop: CancellationToken) -> Option<Ran> {
        let loaded = self.loaded();
        let checks: Vec<(&str, &CheckSpec)> =
            group.checks.iter().filter_map(|name| Some((name.as_str(), config.checks.get(name)?))).collect();
        let now =
            std::time::SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        let options = CheckOptions {
            now_micros: i64::try_from(now).unwrap_or(i64::MAX),
            recheck: self.recheck.0,
            recheck_delay: self.recheck.1,
            show_values: false,
            dry_run: false,
            details_kept: DETAILS_KEPT,
        };
        let keeping = Keeping {
            evidence: loaded.evidence(&self.keeping.0),
            undo: loaded.undo(&self.keeping.1),
            due: group.due.clone(),
            asked_by: group.asked.as_ref().map(|asked| asked.by.clone()),
            live: Some(Arc::clone(&self.live)),
        };
        let mut endpoints = Endpoints::new(&loaded, self.limits.clone());
        let pair = config.pairs.get(&group.pair)?;
        let checked = Box::pin(checking::run_pair(
            &loaded,
            &mut endpoints,
            (&group.pair, pair),
            &checks,
            &options,
            &keeping,
            &stop,
        ));
        match checked.await {
            Ok(checked) => {
                checked.reports.iter().for_each(|report| self.metrics.table(&report.outcome));
                Some(Ran { run: checked.run, results: checked.results })
            }
            Err(failure) if failure.interrupted => None,
            Err(Failure { message, hint, .. }) => {
                self.metrics.failure("check");
                tracing::error!(pair = group.pair, "checks could not run: {message}");
                let results = checks::unreachable(&group.pair, &checks, &message, hint.as_deref());
                Some(Ran { run: String::new(), results })
            }
        }
    }
}

pub(super) async fn run(args: &ServeArgs, shutdown: &Shutdown) -> Result<u8, Failure> {
    let loaded = Arc::new(args.file.load()?);
    let evidence = loaded.evidence(&args.evidence);
    if evidence.no_ledger {
        return Err(Failure::new(
            "a coordinator does not run without a ledger: due times and alerts live in it",
            "leave --no-ledger out, or name one with --ledger",
        ));
    }
    let ledger = open_ledger(&evidence.ledger, true).await?;
    let listen = args.listen.unwrap_or(loaded.config.serve.listen);
    let token = |spec: &Option<SecretSpec>| spec.as_ref().map(|spec| secret(&loaded, spec)).transpose();
    let view = token(&loaded.config.serve.view_token)?;
    let operate = token(&loaded.config.serve.operate_token)?;
    if !listen.ip().is_loopback() && view.is_none() {
        return Err(Failure::new(
            format!("{listen} can be reached from elsewhere, and no token guards it"),
            "set view_token = \"env:NAME\" in [serve], or listen on 127.0.0.1 behind a proxy",
        ));
    }
    // Read before anything begins, so that a missing secret is told at once.
    let channels = channels(&loaded)?;
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        Failure::new(
            format!("cannot listen on {listen}: {error}"),
            "choose another listen address in [serve]",
        )
    })?;
    let address = listener.local_addr()?;
    let metrics = Metrics::default();
    let owner = format!("{}/{}/{}", by().host, std::process::id(), Uuid::now_v7());
    let live = Arc::new(Live::default());
    let runner = Checks {
        loaded: RwLock::new(Arc::clone(&loaded)),
        limits: limits(&args.limits)?,
        keeping: (args.evidence.clone(), args.undo.clone()),
        recheck: (args.recheck, args.recheck_delay),
        metrics: metrics.clone(),
        live: Arc::clone(&live),
    };
    let coordinator =
        Arc::new(Coordinator::new(ledger.clone(), owner.clone(), GROUND, metrics.clone(), runner));
    coordinator.adopt(loaded.config.clone()).await?;
    metrics.reload(true);
    warn_of_silence(&loaded.config);
    let site = Arc::new(RwLock::new(Arc::new(channels)));
    let sender = Sender {
        ledger: ledger.clone(),
        owner,
        ground: GROUND,
        post: Post::default(),
        metrics: metrics.clone(),
    };

    let stop = CancellationToken::new();
    let tokens = (view.as_deref(), operate.as_deref());
    let board =
        board::dashboard(&loaded.config.serve, ledger.clone(), tokens, Arc::clone(&coordinator), live)?;
    if board.is_none() {
        tracing::info!("no dashboard: set view_token = \"env:NAME\" in [serve] for one");
    }
    let router = board.map_or_else(Router::new, dashboard::router);
    let router = router.merge(http::router(Arc::clone(&coordinator), view));
    let serving = {
        let stop = stop.clone();
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        axum::serve(listener, service).with_graceful_shutdown(async move { stop.cancelled().await })
    };
    let http = tokio::spawn(async move { serving.await });
    let sending = tokio::spawn(send(sender, Arc::clone(&site), stop.clone()));
    let retaining = tokio::spawn(retain(ledger, Arc::clone(&coordinator), stop.clone()));
    let signals = tokio::spawn(signals(
        args.file.clone(),
        Arc::clone(&coordinator),
        site,
        (shutdown.clone(), stop.clone()),
    ));
    tracing::info!(
        %address, checks = loaded.config.checks.len(), alerts = loaded.config.alerts.len(),
        "trueup serve is ready: http://{address}/"
    );
    Arc::clone(&coordinator).run(stop.clone()).await;
    stop.cancel();
    // What was found last is still told.
    for task in [sending, retaining, signals] {
        let _ = tokio::time::timeout(Duration::from_secs(20), task).await;
    }
    let _ = tokio::time::timeout(Duration::from_secs(2), http).await;
    tracing::info!("stopped");
    Ok(0)
}

/// A check that nobody hears of is worth a word.
fn warn_of_silence(config: &Config) {
    if config.checks.is_empty() {
        tracing::warn!("the configuration has no check: nothing will run");
    } else if config.alerts.is_empty() {
        tracing::warn!(
            "the configuration has no [alerts.NAME]: failures are in the ledger and on the page alone"
        );
    }
}

fn secret(loaded: &Loaded, spec: &SecretSpec) -> Result<String, Failure> {
    let text = match spec {
        SecretSpec::Plain(text) => text.clone(),
        SecretSpec::Env(name) => std::env::var(name).map_err(|_| {
            Failure::new(format!("the environment variable {name} is not set"), format!("export {name}=..."))
        })?,
        SecretSpec::File(path) => {
            let path: PathBuf = loaded.beside(path);
            let text = std::fs::read_to_string(&path).map_err(|error| {
                Failure::new(
                    format!("cannot read the secret in {}: {error}", path.display()),
                    "check the path and its permissions",
                )
            })?;
            warn_if_readable(&path);
            text
        }
    };
    let text = text.trim().to_owned();
    if text.is_empty() {
        return Err(Failure::new(
            "a secret of the configuration is empty",
            "set it in the environment or its file",
        ));
    }
    Ok(text)
}

type Channels = Vec<(Channel, AlertSpec)>;

fn channels(loaded: &Loaded) -> Result<Channels, Failure> {
    let read = |spec: &SecretSpec| secret(loaded, spec);
    let channel = |(name, spec): (&String, &AlertSpec)| {
        let to = match &spec.kind {
            AlertKind::Webhook { url, secret } => {
                To::Webhook { url: read(url)?, secret: secret.as_ref().map(read).transpose()? }
            }
            AlertKind::Slack { url } => To::Slack { url: read(url)? },
            AlertKind::PagerDuty { routing_key, url } => {
                To::PagerDuty { url: url.as_ref().map(read).transpose()?, routing_key: read(routing_key)? }
            }
            AlertKind::Email { smtp, from, to } => {
                To::Email { smtp: read(smtp)?, from: from.clone(), to: to.clone() }
            }
            AlertKind::Command { command } => To::Command { command: command.clone() },
        };
        Ok((Channel { name: name.clone(), to }, spec.clone()))
    };
    loaded.config.alerts.iter().map(channel).collect()
}

async fn send(sender: Sender, channels: Arc<RwLock<Arc<Channels>>>, stop: CancellationToken) {
    loop {
        let last = stop.is_cancelled();
        let all = Arc::clone(&channels.read().unwrap_or_else(PoisonError::into_inner));
        // One receiver that hangs does not hold up the others.
        let flushes = all.iter().map(|(channel, spec)| sender.flush(channel, spec));
        for result in futures::future::join_all(flushes).await {
            if let Err(error) = result {
                sender.metrics.failure("outbox");
                tracing::error!("the outbox cannot be read: {}", error.what);
            }
        }
        if last {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(SEND_EVERY) => {}
        }
    }
}

/// HUP reads the configuration again; TERM and INT stop.
async fn signals(
    file: FileArgs,
    coordinator: Arc<Coordinator<Checks>>,
    channels_in_force: Arc<RwLock<Arc<Channels>>>,
    (shutdown, stop): (Shutdown, CancellationToken),
) {
    #[cfg(unix)]
    let mut hup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok();
    loop {
        #[cfg(unix)]
        let reload = async {
            match hup.as_mut() {
                Some(hup) => drop(hup.recv().await),
                None => std::future::pending().await,
            }
        };
        #[cfg(not(unix))]
        let reload = std::future::pending::<()>();
        tokio::select! {
            () = stop.cancelled() => return,
            () = shutdown.clone().requested() => {
                tracing::info!("asked to stop");
                stop.cancel();
                return;
            }
            () = reload => {}
        }
        let read = async {
            let loaded = Arc::new(file.load()?);
            let channels = channels(&loaded)?;
            coordinator.adopt(loaded.config.clone()).await?;
            *coordinator.runner.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
            *channels_in_force.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(channels);
            Ok::<_, Failure>(())
        };
        match read.await {
            Ok(()) => {
                coordinator.metrics.reload(true);
                tracing::info!("the configuration was read again");
            }
            Err(failure) => {
                coordinator.metrics.reload(false);
                tracing::error!(
                    "the configuration was not taken, the old one stays in force: {}",
                    failure.message
                );
            }
        }
    }
}
