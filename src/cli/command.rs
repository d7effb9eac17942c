//! What the commands do: from arguments to a run, from its outcome to output and exit status.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::Failure;
use super::args::{AgentArgs, Allowed, DiffArgs, Format, MaxChanges, PairArgs, RepairArgs};
use super::endpoint::{EndpointUrl, client_security, key_pair, limits, open_local, token};
use super::evidence;
use super::evidence_args::UndoStoreArgs;
use super::output::Output;
use super::recorder::{GO_ON, Recorder, Recording};
use super::shutdown::Shutdown;
use super::sql_file::{Heading, SqlFile};
use super::terminal::{Progress, color};
use crate::agent::error::FailureKind;
use crate::agent::security::{ServerSecurity, read_pem};
use crate::agent::{self, Allow, Event, SOFTWARE, Serves, TableOutcome, TaskOptions};
use crate::coordinator::{self, PairRequest, RunEvent, RunOutcome, RunRequest};
use crate::model::{Role, Unpaired, Wishes};
use crate::report::render::{self, Line, Style};
use crate::report::{RunReport, SCHEMA_VERSION, TableReport, Verdict};

const EVENTS_AHEAD: usize = 256;

pub(super) async fn diff(args: &DiffArgs, shutdown: &Shutdown) -> Result<u8, Failure> {
    diff_checked(args, shutdown, |_| Ok(())).await
}

/// A diff whose missing, changed and extra rows in all tables are shown to `check` before it ends.
pub(super) async fn diff_checked(
    args: &DiffArgs,
    shutdown: &Shutdown,
    check: impl FnOnce([u64; 3]) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    let request = request(&args.pair, shutdown);
    let job = Job { command: "diff", pair: &args.pair, request, sql: None, undo: None, shutdown };
    let report = Box::pin(job.run()).await?;
    let sum = |count: fn(&TableOutcome) -> u64| report.tables.iter().map(|table| count(&table.outcome)).sum();
    check([sum(|outcome| outcome.missing), sum(|outcome| outcome.changed), sum(|outcome| outcome.extra)])?;
    Ok(report.verdict.exit_status())
}

pub(super) async fn repair(args: &RepairArgs, shutdown: &Shutdown) -> Result<u8, Failure> {
    let mut request = request(&args.pair, shutdown);
    request.options.repair = Some(allow(&args.allow));
    request.options.dry_run = args.dry_run || args.sql.is_some();
    request.options.sql = args.sql.is_some();
    request.options.allow_cascade = args.allow_cascade;
    request.options.no_undo = args.no_undo;
    limit_changes(&mut request.options, args.max_changes);
    let writes = request.writes();
    let job = Job {
        command: "repair",
        pair: &args.pair,
        request,
        sql: args.sql.as_deref().map(|path| (path, args.overwrite)),
        undo: (writes && !args.no_undo).then_some(&args.undo),
        shutdown,
    };
    let report = Box::pin(job.run()).await?;
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

pub(super) fn request(args: &PairArgs, shutdown: &Shutdown) -> RunRequest {
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
        unpaired: match args.unpaired.as_slice() {
            [] => Unpaired::Different,
            words if words.iter().any(|word| word == "ignore") => Unpaired::Ignore,
            names => Unpaired::Accept(names.to_vec()),
        },
        source_where: args.source_where.clone().or_else(|| args.both_where.clone()),
        target_where: args.target_where.clone().or_else(|| args.both_where.clone()),
        ranges: None,
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
        stop: shutdown.token().clone(),
    }
}

/// One diff or repair, from the arguments to the report.
struct Job<'a> {
    command: &'static str,
    pair: &'a PairArgs,
    request: RunRequest,
    /// The file, and whether it may be replaced.
    sql: Option<(&'a Path, bool)>,
    /// Where an agent of this process keeps what a repair overwrites.
    undo: Option<&'a UndoStoreArgs>,
    shutdown: &'a Shutdown,
}

impl Job<'_> {
    #[tracing::instrument(level = "info", skip_all, name = "run", fields(kind = self.command))]
    async fn run(mut self) -> Result<RunReport, Failure> {
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
        let mut output = Output::open(self.pair.output.as_deref())?;
        let recording = Recording {
            kind: self.command,
            source: &source,
            target: &target,
            target_typed: &self.pair.target,
            writes: self.request.writes(),
            undoes: None,
            undo: self.undo,
            options: evidence::options(&self.request),
        };
        let mut recorder = Recorder::begin(&self.pair.evidence, recording).await?;
        recorder.ask(&mut self.request.options);
        let work = Box::pin(self.work(&source, &target, &mut output, &mut recorder));
        let ended = match self.shutdown.or_grace(work).await {
            Some(Ok(outcome)) if self.shutdown.is_requested() && was_stopped(&outcome.tables) => {
                let failure = recorder.interrupted(GO_ON);
                recorder.fail_with(&failure, &outcome.tables).await;
                let report = self.report(&source, &target, began, outcome);
                return Err(self.stopped(report, failure, &recorder, &mut output));
            }
            Some(Err(_)) if self.shutdown.is_requested() => Err(recorder.interrupted(GO_ON)),
            None => Err(recorder.interrupted(GO_ON)),
            Some(ended) => ended,
        };
        match ended {
            Ok(outcome) => {
                let mut report = self.report(&source, &target, began, outcome);
                let noted = recorder.finish_report(&mut report).await;
                if let Err(failure) = self.print(&report, &mut output) {
                    // What was done is told all the same.
                    let text = render::text(&report, Style { color: false }, self.request.writes());
                    let _ = std::io::stderr().write_all(text.as_bytes());
                    return Err(failure);
                }
                noted.map(|()| report)
            }
            Err(failure) => {
                recorder.fail(&failure).await;
                let none = RunOutcome {
                    tables: Vec::new(),
                    only_in_source: Vec::new(),
                    only_in_target: Vec::new(),
                    left_out: Vec::new(),
                };
                let report = self.report(&source, &target, began, none);
                Err(self.stopped(report, failure, &recorder, &mut output))
            }
        }
    }

    /// A machine reads why a run ended early, what it wrote and how to go on in the report; a person in the failure.
    fn stopped(
        &self,
        mut report: RunReport,
        failure: Failure,
        recorder: &Recorder,
        output: &mut Output,
    ) -> Failure {
        if self.pair.format != Format::Text {
            report.verdict = Verdict::Unknown;
            report.run = Some(recorder.run().to_owned());
            report.stopped = Some(recorder.stopped(&failure));
            // The failure says more than that its report could not be written.
            let _ = self.print(&report, output);
        }
        failure
    }

    async fn work(
        &self,
        source: &EndpointUrl,
        target: &EndpointUrl,
        output: &mut Output,
        recorder: &mut Recorder,
    ) -> Result<RunOutcome, Failure> {
        let (limits, peers) = (limits(&self.pair.limits)?, client_security(&self.pair.peers)?);
        let mut sql = self.sql.map(|(path, overwrite)| SqlFile::open(path, overwrite)).transpose()?;
        let undo = match self.undo {
            Some(undo) => evidence::undo_store(undo, &self.pair.evidence, target)?,
            None => None,
        };
        let (source_agent, target_agent) = tokio::try_join!(
            source.open(&limits, &peers, Role::Source, None),
            target.open(&limits, &peers, Role::Target, undo)
        )?;

        let (events, mut told) = mpsc::channel(EVENTS_AHEAD);
        let run = async {
            let outcome = coordinator::run(&source_agent, &target_agent, &self.request, &events).await;
            drop(events);
            Ok::<_, Failure>(outcome)
        };
        let listen = self.listen(&mut told, output, sql.as_mut(), recorder);
        // What cannot be noted or told is not done: a listener that fails stops the run.
        let (outcome, ()) = tokio::try_join!(run, listen)?;
        let outcome = outcome?;
        if let Some(sql) = sql.take_if(|_| was_stopped(&outcome.tables)) {
            sql.discard();
        }
        if let Some(sql) = sql {
            let engine = target_agent.server().await?.engine;
            let heading = Heading {
                source: &source.shown,
                target: &target.shown,
                written_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
                run: recorder.recorded_run(),
            };
            let said = sql.finish(engine, &heading)?;
            if !self.pair.quiet {
                let _ = writeln!(std::io::stderr(), "{said}");
            }
        }
        Ok(outcome)
    }

    async fn listen(
        &self,
        told: &mut mpsc::Receiver<RunEvent>,
        output: &mut Output,
        mut sql: Option<&mut SqlFile>,
        recorder: &mut Recorder,
    ) -> Result<(), Failure> {
        let mut progress = Progress::new(self.pair.quiet);
        let mut names = std::collections::BTreeMap::new();
        while let Some(event) = told.recv().await {
            recorder.event(&event).await?;
            progress.show(&event);
            if let RunEvent::Planned { table, name, .. } = &event {
                names.insert(*table, name.clone());
            }
            if let (Some(sql), RunEvent::Table { table, event: Event::Sql { statement, after_others } }) =
                (sql.as_mut(), &event)
            {
                sql.write(*table, statement, *after_others)?;
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
                    Event::SetAside { reason, count, examples } => {
                        render::line(&Line::SetAside { table, reason, count: *count, examples })
                    }
                    _ => return Ok(()),
                }
            }
            RunEvent::Finished { report, .. } => {
                // The differences were told one by one.
                let table =
                    TableReport { differences: Vec::new(), rows_set_aside: Vec::new(), ..(**report).clone() };
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
            run: None,
            audit_head: None,
            source: source.shown.clone(),
            target: target.shown.clone(),
            started_at: humantime::format_rfc3339_seconds(began.1).to_string(),
            seconds: began.0.elapsed().as_secs_f64(),
            verdict: coordinator::verdict(&outcome),
            tables: outcome.tables,
            only_in_source: outcome.only_in_source,
            only_in_target: outcome.only_in_target,
            left_out: outcome.left_out,
            stopped: None,
            hint: None,
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

/// A table that was under way when the run was asked to stop says so.
pub(super) fn was_stopped(tables: &[TableReport]) -> bool {
    let cancelled = FailureKind::Cancelled.as_str();
    tables.iter().any(|table| table.error.as_ref().is_some_and(|error| error.kind == cancelled))
}

pub(super) async fn agent(args: &AgentArgs, shutdown: &Shutdown) -> Result<u8, Failure> {
    let database = EndpointUrl::read(&args.database)?;
    if !database.is_database() {
        return Err(Failure::new("--database must be a database URL", "postgres://, mysql:// or sqlite://"));
    }
    let serves = Serves {
        tables: (!args.table.is_empty()).then(|| args.table.clone()),
        write: args.allow_write,
        conditions: args.allow_where,
        sql: args.allow_sql,
    };
    let undo = evidence::agent_undo_store(&args.undo, args.allow_write && !args.no_undo)?;
    let agent = open_local(&database.url, &limits(&args.limits)?, serves).await?;
    let agent = agent.with_served_tables().await?.with_undo(undo);
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
    let server =
        agent::server::serve(listener, Arc::new(agent), &security, peers, shutdown.clone().requested());
    let said = async {
        let _ = writeln!(std::io::stderr().lock(), "listening on {address}");
    };
    // The configuration is checked before anything is said of listening.
    security.check(address.ip())?;
    said.await;
    server.await?;
    Ok(0)
}
