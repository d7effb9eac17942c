//! What the commands do: from arguments to a run, from its outcome to output and exit status.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::Failure;
use super::args::{AgentArgs, Allowed, DiffArgs, Format, MaxChanges, PairArgs, RepairArgs};
use super::endpoint::{EndpointUrl, client_security, key_pair, limits, open_local, token};
use super::terminal::{Progress, color};
use crate::agent::security::{ServerSecurity, read_pem};
use crate::agent::{self, Allow, Event, SOFTWARE, Serves, TableOutcome, TaskOptions};
use crate::coordinator::{self, PairRequest, RunEvent, RunOutcome, RunRequest};
use crate::model::{Role, Wishes};
use crate::report::render::{self, Line, Style};
use crate::report::{RunReport, SCHEMA_VERSION};

const EVENTS_AHEAD: usize = 256;

pub(super) async fn diff(args: &DiffArgs) -> Result<u8, Failure> {
    diff_checked(args, |_| Ok(())).await
}

/// A diff whose missing, changed and extra rows in all tables are shown to `check` before it ends.
pub(super) async fn diff_checked(
    args: &DiffArgs,
    check: impl FnOnce([u64; 3]) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    let request = request(&args.pair);
    let report = Box::pin(Job { command: "diff", pair: &args.pair, request, sql: None }.run()).await?;
    let sum = |count: fn(&TableOutcome) -> u64| report.tables.iter().map(|table| count(&table.outcome)).sum();
    check([sum(|outcome| outcome.missing), sum(|outcome| outcome.changed), sum(|outcome| outcome.extra)])?;
    Ok(report.verdict.exit_status())
}

pub(super) async fn repair(args: &RepairArgs) -> Result<u8, Failure> {
    let mut request = request(&args.pair);
    request.options.repair = Some(allow(&args.allow));
    request.options.dry_run = args.dry_run || args.sql.is_some();
    request.options.sql = args.sql.is_some();
    request.options.allow_cascade = args.allow_cascade;
    limit_changes(&mut request.options, args.max_changes);
    let report =
        Box::pin(Job { command: "repair", pair: &args.pair, request, sql: args.sql.as_deref() }.run())
            .await?;
    Ok(report.verdict.exit_status())
}

pub(super) fn allow(allowed: &[Allowed]) -> Allow {
    let allows = |operation| allowed.contains(&operation);
    Allow {
        insert: allows(Allowed::Insert),
        update: allows(Allowed::Update),
        delete: allows(Allowed::Delete),
    }
}

pub(super) fn limit_changes(options: &mut TaskOptions, max: MaxChanges) {
    match max {
        MaxChanges::Rows(rows) => options.max_changes = Some(rows),
        MaxChanges::Percent(percent) => options.max_overwritten_percent = Some(percent),
    }
}

pub(super) fn request(args: &PairArgs) -> RunRequest {
    let (source_schema, target_schema) = match &args.schema {
        None => (None, None),
        Some(schema) => match schema.split_once('=') {
            Some((source, target)) => (Some(source.to_owned()), Some(target.to_owned())),
            None => (Some(schema.clone()), Some(schema.clone())),
        },
    };
    let wishes = Wishes {
        key: args.key.clone(),
        columns: args.columns.clone(),
        exclude: args.exclude.clone(),
        map: args.map.iter().cloned().collect(),
        as_text: args.as_text.clone(),
        assume_utc: args.assume_utc,
        source_where: args.source_where.clone().or_else(|| args.both_where.clone()),
        target_where: args.target_where.clone().or_else(|| args.both_where.clone()),
    };
    let options = TaskOptions {
        recheck: args.recheck,
        recheck_delay_ms: u64::try_from(args.recheck_delay.as_millis()).unwrap_or(u64::MAX),
        tolerance: args.tolerance.iter().cloned().collect(),
        show_values: args.show_values,
        metered: args.metered,
        ..TaskOptions::default()
    };
    RunRequest {
        pairs: PairRequest { tables: args.table.clone(), source_schema, target_schema },
        wishes,
        options,
        details_kept: args.limit,
        tables_in_flight: args.tables_in_flight,
    }
}

/// One diff or repair, from the arguments to the report.
struct Job<'a> {
    command: &'static str,
    pair: &'a PairArgs,
    request: RunRequest,
    sql: Option<&'a Path>,
}

impl Job<'_> {
    async fn run(self) -> Result<RunReport, Failure> {
        let began = (Instant::now(), SystemTime::now());
        let (source, target) = (EndpointUrl::read(&self.pair.source)?, EndpointUrl::read(&self.pair.target)?);
        if source.url == target.url && self.pair.table.iter().all(|(left, right)| left == right) {
            return Err(Failure::new(
                "source and target are the same table of the same database",
                "name two endpoints, or a pair with -t A=B",
            ));
        }
        if self.sql.is_some() && !target.is_database() {
            return Err(Failure::new(
                "--sql needs the target as a database URL: rows do not pass from a remote agent to this machine",
                "run this command on the target's machine",
            ));
        }
        let (limits, peers) = (limits(&self.pair.limits)?, client_security(&self.pair.peers)?);
        let mut output = Output::open(self.pair.output.as_deref())?;
        let mut sql = self.sql.map(|path| Output::open(Some(path))).transpose()?;
        let (source_agent, target_agent) = tokio::try_join!(
            source.open(&limits, &peers, Role::Source),
            target.open(&limits, &peers, Role::Target)
        )?;

        let (events, mut told) = mpsc::channel(EVENTS_AHEAD);
        let run = async {
            let outcome = coordinator::run(&source_agent, &target_agent, &self.request, &events).await;
            drop(events);
            outcome
        };
        let listen = self.listen(&mut told, &mut output, sql.as_mut());
        let (outcome, listened) = tokio::select! {
            ended = async { tokio::join!(run, listen) } => ended,
            _ = tokio::signal::ctrl_c() => {
                // Dropping the run stops both sides; a write under way is one transaction, whole or not at all.
                return Err(Failure::new("interrupted: both sides are stopped", "run the same command again, it is safe to repeat"));
            }
        };
        listened?;
        let outcome = outcome?;
        let report = self.report(&source, &target, began, outcome);
        self.print(&report, &mut output)?;
        if let Some(sql) = &mut sql {
            sql.finish()?;
        }
        Ok(report)
    }

    async fn listen(
        &self,
        told: &mut mpsc::Receiver<RunEvent>,
        output: &mut Output,
        mut sql: Option<&mut Output>,
    ) -> Result<(), Failure> {
        let mut progress = Progress::new(self.pair.quiet);
        let mut names = std::collections::BTreeMap::new();
        while let Some(event) = told.recv().await {
            progress.show(&event);
            if let RunEvent::Planned { table, name, .. } = &event {
                names.insert(*table, name.clone());
            }
            if let (Some(sql), RunEvent::Table { event: Event::Sql { statement }, .. }) =
                (sql.as_mut(), &event)
            {
                sql.write(&format!("{statement}\n"))?;
            }
            if self.pair.format == Format::Ndjson {
                self.ndjson(&event, &names, output)?;
            }
        }
        progress.clear();
        Ok(())
    }

    fn ndjson(
        &self,
        event: &RunEvent,
        names: &std::collections::BTreeMap<usize, String>,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let line = match event {
            RunEvent::Table { table, event } => {
                let table = names.get(table).map_or("", String::as_str);
                match event {
                    Event::Located { missing, changed, extra } => render::line(&Line::Located {
                        table,
                        missing: *missing,
                        changed: *changed,
                        extra: *extra,
                    }),
                    Event::Difference { difference } => render::line(&Line::Difference { table, difference }),
                    Event::SetAside { key, reason } => render::line(&Line::SetAside { table, key, reason }),
                    _ => return Ok(()),
                }
            }
            RunEvent::Finished { report, .. } => {
                // The differences were told one by one.
                let table = crate::report::TableReport {
                    differences: Vec::new(),
                    rows_set_aside: Vec::new(),
                    ..(**report).clone()
                };
                render::line(&Line::Table { table: &table })
            }
            RunEvent::Planned { .. } => return Ok(()),
        };
        output.write(&line)
    }

    fn report(
        &self,
        source: &EndpointUrl,
        target: &EndpointUrl,
        began: (Instant, SystemTime),
        outcome: RunOutcome,
    ) -> RunReport {
        RunReport {
            schema_version: SCHEMA_VERSION,
            software: SOFTWARE.to_owned(),
            command: self.command.to_owned(),
            source: source.shown.clone(),
            target: target.shown.clone(),
            started_at: humantime::format_rfc3339_seconds(began.1).to_string(),
            seconds: began.0.elapsed().as_secs_f64(),
            verdict: coordinator::verdict(&outcome),
            tables: outcome.tables,
            only_in_source: outcome.only_in_source,
            only_in_target: outcome.only_in_target,
        }
    }

    fn print(&self, report: &RunReport, output: &mut Output) -> Result<(), Failure> {
        let text = match self.pair.format {
            Format::Json => render::json(report),
            Format::Ndjson => {
                let run = RunReport { tables: Vec::new(), ..report.clone() };
                render::line(&Line::Run { run: &run })
            }
            Format::Text => {
                let color = color(self.pair.color, output.is_terminal());
                render::text(report, Style { color }, self.request.writes())
            }
        };
        output.write(&text)?;
        output.finish()
    }
}

/// Standard output or a file. A reader that closes the pipe has seen enough.
pub(super) struct Output {
    to: Box<dyn Write + Send>,
    name: String,
    terminal: bool,
    closed: bool,
}

impl Output {
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let (to, name): (Box<dyn Write + Send>, _) = match path {
            None => (Box::new(std::io::stdout()), "standard output".to_owned()),
            Some(path) => {
                let file = std::fs::File::create(path).map_err(|error| {
                    Failure::new(
                        format!("cannot write {}: {error}", path.display()),
                        "check the folder and its permissions",
                    )
                })?;
                (Box::new(std::io::BufWriter::new(file)), path.display().to_string())
            }
        };
        Ok(Self { to, name, terminal: path.is_none() && std::io::stdout().is_terminal(), closed: false })
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    pub(super) fn write(&mut self, text: &str) -> Result<(), Failure> {
        if self.closed {
            return Ok(());
        }
        let written = self.to.write_all(text.as_bytes());
        self.check(written)
    }

    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        let flushed = self.to.flush();
        self.check(flushed)
    }

    fn check(&mut self, result: std::io::Result<()>) -> Result<(), Failure> {
        match result {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(error) => {
                Err(Failure::new(format!("cannot write {}: {error}", self.name), "is the disk full?"))
            }
            Ok(()) => Ok(()),
        }
    }
}

pub(super) async fn agent(args: &AgentArgs) -> Result<u8, Failure> {
    let database = EndpointUrl::read(&args.database)?;
    if !database.is_database() {
        return Err(Failure::new("--database must be a database URL", "postgres://, mysql:// or sqlite://"));
    }
    let serves = Serves {
        tables: (!args.table.is_empty()).then(|| args.table.clone()),
        write: args.allow_write,
        sql: args.allow_sql,
    };
    let agent = open_local(&database.url, &limits(&args.limits)?, serves).await?;
    let security = ServerSecurity {
        tls: key_pair(&args.peers)?,
        client_ca: args.client_ca.as_deref().map(read_pem).transpose()?,
        token: token(&args.peers)?,
        insecure: args.peers.insecure,
        dials: args.allow_peer.clone(),
    };
    let peers = client_security(&args.peers)?;
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        Failure::new(format!("cannot listen on {}: {error}", args.listen), "choose another --listen address")
    })?;
    let address = listener.local_addr()?;
    let server = agent::server::serve(listener, Arc::new(agent), &security, peers, stop_signal());
    let said = async {
        let _ = writeln!(std::io::stderr().lock(), "listening on {address}");
    };
    // The configuration is checked before anything is said of listening.
    security.check(address.ip())?;
    said.await;
    server.await?;
    Ok(0)
}

/// Ctrl-C, or a service manager's TERM.
async fn stop_signal() {
    #[cfg(unix)]
    if let Ok(mut term) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = term.recv() => {}
        }
        return;
    }
    let _ = tokio::signal::ctrl_c().await;
}
