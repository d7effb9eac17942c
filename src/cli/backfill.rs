//! `trueup backfill`: from the arguments to gaps found, filled and shown.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::time::{Instant, SystemTime};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::tz::TimeZone;
use serde::Serialize;
use tokio::sync::mpsc;

use super::Failure;
use super::args::{Allowed, Format, MaxChanges, PairArgs};
use super::command::{allow, limit_changes, request};
use super::endpoint::{EndpointUrl, client_security, limits};
use super::evidence;
use super::evidence_args::UndoStoreArgs;
use super::output::Output;
use super::recorder::{Recorder, Recording, Totals};
use super::shutdown::Shutdown;
use super::terminal::color;
use crate::agent::error::FailureKind;
use crate::agent::{Event, SOFTWARE};
use crate::coordinator::RunEvent;
use crate::coordinator::backfill::{self, BackfillEvent, BackfillRequest};
use crate::model::Role;
use crate::model::measure::Step;
use crate::report::backfill::{BackfillReport, BackfillTable, ChunkReport, json, text};
use crate::report::render::{Style, grouped};
use crate::report::{SCHEMA_VERSION, Verdict};

const EVENTS_AHEAD: usize = 256;
const GO_ON: &str = "run the same command again to go on: what was filled is skipped";

#[derive(Debug, Args)]
#[command(after_help = "\
Steps are half open: --to 2024-02-01 ends with January. The counts are a picture; every row of the range is compared. A backfill
that was stopped is simply run again.

Examples:
  trueup backfill env:SOURCE env:TARGET -t orders --on placed_at --from 2024-01-01 --to 2024-02-01 --dry-run
  trueup backfill env:SOURCE env:TARGET -t orders --on placed_at --from 2024-01-01 --time-zone Europe/Berlin --order newest
  trueup backfill env:SOURCE env:TARGET -t orders -t items --on id --step 10000 --max-rows-per-second 5000")]
pub(super) struct BackfillArgs {
    #[command(flatten)]
    pub(super) pair: PairArgs,
    /// The column of integers, dates or timestamps that the range is of, by source name
    #[arg(long, value_name = "COLUMN", help_heading = "Range")]
    on: String,
    /// The first value: an integer, 2024-01-31, or "2024-01-31 12:00:00" (default: where the rows begin)
    #[arg(long, value_name = "A", allow_hyphen_values = true, help_heading = "Range")]
    from: Option<String>,
    /// The first value behind the range (default: where the rows end)
    #[arg(long, value_name = "B", allow_hyphen_values = true, help_heading = "Range")]
    to: Option<String>,
    /// hour, day or month, or a number of integers (default: day, or about 48 steps of integers)
    #[arg(long, value_name = "STEP", help_heading = "Range")]
    step: Option<Step>,
    /// Where days begin, for columns that hold instants
    #[arg(long, value_name = "ZONE", default_value = "UTC", value_parser = zone, help_heading = "Range")]
    time_zone: TimeZone,
    /// Which end of the range is filled first
    #[arg(long, value_enum, default_value_t = Order::Oldest, help_heading = "Filling")]
    order: Order,
    /// Write nothing: show the gaps
    #[arg(long, help_heading = "Filling")]
    dry_run: bool,
    /// Compare and fill the range in pieces of whole steps, up to so many rows each (default: at once; with --order newest or a
    /// rate 100000)
    #[arg(long, value_name = "N", help_heading = "Filling")]
    chunk_rows: Option<u64>,
    /// What to make of a table of which the login may not see all rows: not known, or accept that those it sees are compared
    #[arg(long, value_enum, default_value_t = HiddenRows::Unknown, help_heading = "Filling")]
    hidden_rows: HiddenRows,
    /// What may be done
    #[arg(long, value_delimiter = ',', default_values_t = [Allowed::Insert, Allowed::Update], help_heading = "Filling")]
    allow: Vec<Allowed>,
    /// Write nothing into a chunk if more rows than this would change: a number of rows, or as N% the share of its target rows
    /// that may be updated or deleted (1,000 may always be)
    #[arg(long, value_name = "N|N%", default_value = "50%", help_heading = "Filling")]
    max_changes: MaxChanges,
    /// Delete rows even where foreign keys then delete or change rows of other tables
    #[arg(long, help_heading = "Filling")]
    allow_cascade: bool,
    /// Keep no undo journal of this run: what it overwrites cannot be put back
    #[arg(long, help_heading = "Evidence")]
    no_undo: bool,
    #[command(flatten)]
    undo: UndoStoreArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    Oldest,
    Newest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HiddenRows {
    Unknown,
    Accept,
}

fn zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| "write a name of the IANA database, as in Europe/Berlin".to_owned())
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    Chunk { table: &'a str, chunk: &'a ChunkReport },
    Table { table: &'a BackfillTable },
    Backfill { run: &'a BackfillReport },
}

pub(super) async fn run(args: &BackfillArgs, shutdown: &Shutdown) -> Result<u8, Failure> {
    let began = (Instant::now(), SystemTime::now());
    if args.pair.table.is_empty() {
        return Err(Failure::new("backfill needs a table", "name one or more with -t TABLE"));
    }
    let mut run = request(&args.pair, shutdown);
    run.options.repair = Some(allow(&args.allow));
    run.options.dry_run = args.dry_run;
    run.options.allow_cascade = args.allow_cascade;
    run.options.no_undo = args.no_undo;
    limit_changes(&mut run.options, args.max_changes);
    let mut request = BackfillRequest {
        run,
        on: args.on.clone(),
        from: args.from.clone(),
        to: args.to.clone(),
        step: args.step,
        zone: args.time_zone.clone(),
        newest_first: args.order == Order::Newest,
        chunk_rows: args.chunk_rows.map(|rows| rows.max(1)),
        rows_per_second: args.pair.limits.max_rows_per_second,
        accept_hidden_rows: args.hidden_rows == HiddenRows::Accept,
    };
    let (source, target) = (EndpointUrl::read(&args.pair.source)?, EndpointUrl::read(&args.pair.target)?);
    if source.url == target.url && args.pair.table.iter().any(|(left, right)| left == right) {
        return Err(Failure::new(
            "source and target are the same table of the same database",
            "name two endpoints, or a pair with -t A=B",
        ));
    }
    let mut output = Output::open(args.pair.output.as_deref())?;
    let recording = Recording {
        kind: "backfill",
        source: &source,
        target: &target,
        target_typed: &args.pair.target,
        writes: request.run.writes(),
        undoes: None,
        undo: (!args.no_undo).then_some(&args.undo),
        options: asked(&request),
    };
    let mut recorder = Recorder::begin(&args.pair.evidence, recording).await?;
    recorder.ask(&mut request.run.options);
    let work = Box::pin(work(args, (&source, &target), &request, &mut output, &mut recorder));
    let mut stopped = Vec::new();
    let ended = match shutdown.or_grace(work).await {
        Some(Ok(tables)) if shutdown.is_requested() && was_stopped(&tables) => {
            stopped = tables;
            Err(recorder.interrupted(GO_ON))
        }
        Some(Err(_)) if shutdown.is_requested() => Err(recorder.interrupted(GO_ON)),
        None => Err(recorder.interrupted(GO_ON)),
        Some(ended) => ended,
    };
    let tables = match ended {
        Ok(tables) => tables,
        Err(failure) => {
            recorder.fail(&failure).await;
            if args.pair.format != Format::Text {
                let mut report = report_of((&source, &target), began, args.dry_run, stopped);
                report.verdict = Verdict::Unknown;
                report.run = Some(recorder.run().to_owned());
                report.stopped = Some(recorder.stopped(&failure));
                // The failure says more than that its report could not be written.
                let _ =
                    output.write(&machine_readable(&report, args.pair.format)).and_then(|()| output.finish());
            }
            return Err(failure);
        }
    };
    let mut report = report_of((&source, &target), began, args.dry_run, tables);
    let totals = Totals::of_backfill(&report, &recorder);
    let noted = match recorder.finish(totals).await {
        Ok(head) => {
            report.run = head.is_some().then(|| recorder.run().to_owned());
            report.audit_head = head;
            Ok(())
        }
        Err(failure) => {
            report.run = Some(recorder.run().to_owned());
            report.stopped = Some(recorder.stopped(&failure));
            Err(failure)
        }
    };
    let failed = |table: &BackfillTable| {
        table.error.is_some() || table.chunks.iter().any(|chunk| chunk.error.is_some())
    };
    report.hint = recorder.hint(report.tables.iter().any(failed));
    let shown = match args.pair.format {
        Format::Text => text(&report, Style { color: color(args.pair.color, output.is_terminal()) }),
        format => machine_readable(&report, format),
    };
    output.write(&shown)?;
    output.finish()?;
    noted?;
    Ok(report.verdict.exit_status())
}

fn report_of(
    (source, target): (&EndpointUrl, &EndpointUrl),
    began: (Instant, SystemTime),
    dry_run: bool,
    tables: Vec<BackfillTable>,
) -> BackfillReport {
    BackfillReport {
        schema_version: SCHEMA_VERSION,
        software: SOFTWARE.to_owned(),
        command: "backfill".to_owned(),
        run: None,
        audit_head: None,
        source: source.shown.clone(),
        target: target.shown.clone(),
        started_at: humantime::format_rfc3339_seconds(began.1).to_string(),
        seconds: began.0.elapsed().as_secs_f64(),
        dry_run,
        verdict: backfill::verdict(&tables),
        tables,
        stopped: None,
        hint: None,
    }
}

fn machine_readable(report: &BackfillReport, format: Format) -> String {
    if format != Format::Ndjson {
        return json(report);
    }
    let mut lines: String = report.tables.iter().map(|table| line(&Line::Table { table })).collect();
    let run = BackfillReport { tables: Vec::new(), ..report.clone() };
    lines.push_str(&line(&Line::Backfill { run: &run }));
    lines
}

/// What was asked for, as the ledger keeps it.
fn asked(request: &BackfillRequest) -> serde_json::Value {
    let mut options = evidence::options(&request.run);
    if let serde_json::Value::Object(options) = &mut options {
        let mut add = |name: &str, value: serde_json::Value| options.insert(name.to_owned(), value);
        add("on", request.on.clone().into());
        add("from", request.from.clone().into());
        add("to", request.to.clone().into());
        add("step", request.step.map(|step| step.to_string()).into());
        add("time_zone", request.zone.iana_name().into());
        add("chunk_rows", request.chunk_rows.into());
        add("accept_hidden_rows", request.accept_hidden_rows.into());
        add("max_rows_per_second", request.rows_per_second.into());
    }
    options
}

async fn work(
    args: &BackfillArgs,
    (source, target): (&EndpointUrl, &EndpointUrl),
    request: &BackfillRequest,
    output: &mut Output,
    recorder: &mut Recorder,
) -> Result<Vec<BackfillTable>, Failure> {
    let (limits, peers) = (limits(&args.pair.limits)?, client_security(&args.pair.peers)?);
    let undo = match request.run.writes() && !args.no_undo {
        true => evidence::undo_store(&args.undo, &args.pair.evidence, target)?,
        false => None,
    };
    let (source_agent, target_agent) = tokio::try_join!(
        source.open(&limits, &peers, Role::Source, None),
        target.open(&limits, &peers, Role::Target, undo)
    )?;
    let (events, mut told) = mpsc::channel(EVENTS_AHEAD);
    let work = async {
        let tables = backfill::backfill(&source_agent, &target_agent, request, &events).await;
        drop(events);
        Ok::<_, Failure>(tables)
    };
    let listen = listen(args, &mut told, output, recorder);
    // What cannot be noted or told is not done: a listener that fails stops the run.
    let (tables, ()) = tokio::try_join!(Box::pin(work), listen)?;
    Ok(tables?)
}

/// A table or chunk that was under way when the run was asked to stop says so.
fn was_stopped(tables: &[BackfillTable]) -> bool {
    let cancelled = FailureKind::Cancelled.as_str();
    let mut errors = tables
        .iter()
        .flat_map(|table| table.chunks.iter().map(|chunk| &chunk.error).chain([&table.error]))
        .flatten();
    errors.any(|error| error.kind == cancelled)
}

fn line(line: &Line<'_>) -> String {
    serde_json::to_string(line).unwrap_or_default() + "\n"
}

async fn listen(
    args: &BackfillArgs,
    told: &mut mpsc::Receiver<BackfillEvent>,
    output: &mut Output,
    recorder: &mut Recorder,
) -> Result<(), Failure> {
    let terminal = !args.pair.quiet && std::io::stderr().is_terminal();
    let (mut bar, mut told_limits): (Option<ProgressBar>, BTreeSet<String>) = (None, BTreeSet::new());
    while let Some(event) = told.recv().await {
        if let BackfillEvent::Run(event) = &event {
            recorder.event(event).await?;
        }
        if let (Format::Ndjson, BackfillEvent::Filled { chunk, name, .. }) = (args.pair.format, &event) {
            output.write(&line(&Line::Chunk { table: name, chunk }))?;
        }
        if args.pair.quiet {
            continue;
        }
        match &event {
            BackfillEvent::Surveyed { name, steps, differing, chunks, rows } => {
                let said = format!(
                    "{name}: counts differ in {} of {} steps; comparing {} source rows in {} pieces",
                    grouped(*differing as u64),
                    grouped(*steps as u64),
                    grouped(*rows),
                    grouped(*chunks as u64)
                );
                say(bar.as_ref(), &said);
                if terminal {
                    let style = ProgressStyle::with_template(
                        "{prefix} {bar:24} {human_pos} of {human_len} rows, {per_sec}, {eta} left {msg}",
                    );
                    let new = ProgressBar::new(*rows)
                        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                        .with_prefix(name.clone());
                    bar = Some(new);
                }
            }
            BackfillEvent::Chunk { name, from, to, .. } => match &bar {
                Some(bar) => bar.set_message(format!("({from} .. {to})")),
                None => say(None, &format!("{name}: comparing and filling {from} .. {to}")),
            },
            BackfillEvent::Filled { rows_done, .. } => {
                if let Some(bar) = &bar {
                    bar.set_position(*rows_done);
                }
            }
            // Said before the first row is written; every piece would say it again.
            BackfillEvent::Run(RunEvent::Table { event: Event::UndoLimits { limits }, .. }) => {
                for limit in limits.iter().filter(|limit| told_limits.insert((*limit).clone())) {
                    say(bar.as_ref(), &format!("note: {limit}"));
                }
            }
            BackfillEvent::Run(_) | BackfillEvent::Waiting(_) => {}
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(())
}

fn say(bar: Option<&ProgressBar>, text: &str) {
    match bar {
        Some(bar) => bar.println(text),
        // Standard error that is closed is nobody's error.
        None => drop(writeln!(std::io::stderr().lock(), "{text}")),
    }
}
