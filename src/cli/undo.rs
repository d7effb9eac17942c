//! `trueup undo`: a run that takes another back, recorded as any other.

use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use super::Failure;
use super::command::was_stopped;
use super::endpoint::{EndpointUrl, client_security, limits};
use super::evidence::{self, before, open_ledger};
use super::evidence_args::{UndoArgs, UndoFormat};
use super::liveness::{Life, life};
use super::output::Output;
use super::recorder::{Recorder, Recording};
use super::shutdown::Shutdown;
use crate::agent::{SOFTWARE, UndoTask};
use crate::coordinator::{self, RunOutcome};
use crate::ledger::Ledger;
use crate::model::Role;
use crate::report::record::{RunRecord, TableRecord};
use crate::report::{RunReport, SCHEMA_VERSION, Verdict, render, undo};

const EVENTS_AHEAD: usize = 256;
/// A run gives a sign of life every minute.
const SILENT: Duration = Duration::from_secs(5 * 60);
const GO_ON: &str = "run the same command again to go on: what was taken back is skipped";

pub(super) async fn undo(args: &UndoArgs, shutdown: &Shutdown) -> Result<u8, Failure> {
    let began = (Instant::now(), SystemTime::now());
    let (undoes, typed, ended) = find(args).await?;
    let target = EndpointUrl::read(&typed)?;
    let recording = Recording {
        kind: "undo",
        source: &target,
        target: &target,
        target_typed: &typed,
        writes: !args.dry_run,
        undoes: Some(undoes.clone()),
        undo: (!args.no_undo).then_some(&args.undo),
        options: serde_json::json!({ "dry_run": args.dry_run, "allow_cascade": args.allow_cascade, "restored": args.restored }),
    };
    let mut recorder = Recorder::begin(&args.evidence, recording).await?;
    let task = UndoTask {
        undoes: undoes.clone(),
        run: Some(recorder.run().to_owned()),
        dry_run: args.dry_run,
        allow_cascade: args.allow_cascade,
        no_undo: args.no_undo,
        trail: recorder.wish(),
        ended,
        restored: args.restored,
    };
    let work = work(args, &target, &task, &mut recorder, shutdown);
    let none = || RunOutcome {
        tables: Vec::new(),
        only_in_source: Vec::new(),
        only_in_target: Vec::new(),
        left_out: Vec::new(),
    };
    let mut stopped = none();
    let ended = match shutdown.or_grace(work).await {
        Some(Ok(outcome)) if shutdown.is_requested() && was_stopped(&outcome.tables) => {
            stopped = outcome;
            Err(recorder.interrupted(GO_ON))
        }
        Some(Err(_)) if shutdown.is_requested() => Err(recorder.interrupted(GO_ON)),
        None => Err(recorder.interrupted(GO_ON)),
        Some(ended) => ended,
    };
    let mut output = Output::open(None)?;
    let outcome = match ended {
        Ok(outcome) => outcome,
        Err(failure) => {
            recorder.fail_with(&failure, &stopped.tables).await;
            if args.format == UndoFormat::Json {
                let mut report = report_of(&target, began, stopped);
                report.verdict = Verdict::Unknown;
                report.run = Some(recorder.run().to_owned());
                report.stopped = Some(recorder.stopped(&failure));
                // The failure says more than that its report could not be written.
                let _ = output.write(&render::json(&report)).and_then(|()| output.finish());
            }
            return Err(failure);
        }
    };
    let mut report = report_of(&target, began, outcome);
    let noted = recorder.finish_report(&mut report).await;
    output.write(&match args.format {
        UndoFormat::Text => undo::text(&report, &undoes, args.dry_run),
        UndoFormat::Json => render::json(&report),
    })?;
    output.finish()?;
    noted?;
    Ok(report.verdict.exit_status())
}

fn report_of(target: &EndpointUrl, began: (Instant, SystemTime), outcome: RunOutcome) -> RunReport {
    RunReport {
        schema_version: SCHEMA_VERSION,
        software: SOFTWARE.to_owned(),
        command: "undo".to_owned(),
        run: None,
        audit_head: None,
        source: target.shown.clone(),
        target: target.shown.clone(),
        started_at: humantime::format_rfc3339_seconds(began.1).to_string(),
        seconds: began.0.elapsed().as_secs_f64(),
        verdict: coordinator::verdict(&outcome),
        tables: outcome.tables,
        only_in_source: Vec::new(),
        left_out: Vec::new(),
        only_in_target: Vec::new(),
        stopped: None,
        hint: None,
    }
}

/// The run's whole id, the URL of the database that it wrote to, and the tables of which the ledger knows that their
/// journals are whole.
async fn find(args: &UndoArgs) -> Result<(String, String, Vec<String>), Failure> {
    if args.evidence.no_ledger {
        let target = args.target.clone().ok_or_else(|| {
            Failure::new("without a ledger nobody knows the run's target", "name it with --target")
        })?;
        return Ok((args.run.clone(), target, Vec::new()));
    }
    let ledger = open_ledger(&args.evidence.ledger, false).await?;
    let run = match args.run.as_str() {
        "last" => {
            let folder = evidence::undo_folder(&args.undo, &args.evidence)?;
            let has_journal = |run: &str| folder.join(format!("{run}.0.undo")).exists();
            ledger.last_to_undo(has_journal).await?
        }
        id => ledger.run(id).await?,
    };
    if !run.writes {
        return Err(Failure::new(
            format!("run {} wrote nothing: it is a {}", run.id, run.kind),
            "trueup runs --kind repair lists those that wrote",
        ));
    }
    refuse_while_it_runs(&ledger, &run.id).await?;
    let known =
        if run.target_reference.is_empty() { run.target.clone() } else { run.target_reference.clone() };
    let typed = args.target.clone().unwrap_or(known);
    let shown = EndpointUrl::read(&typed)?.shown;
    if shown != run.target && args.target.is_none() {
        return Err(Failure::new(
            format!("{typed} is {shown} now; run {} wrote to {}", run.id, run.target),
            "name the run's target with --target",
        ));
    }
    let ended = tables_that_ended(&run);
    Ok((run.id, typed, ended))
}

/// A run that lives would go on writing what no undo of it reaches.
async fn refuse_while_it_runs(ledger: &Ledger, id: &str) -> Result<(), Failure> {
    let open = ledger.open_runs().await?;
    let Some(run) = open.into_iter().find(|run| run.start.id == id) else { return Ok(()) };
    let host = &run.start.host;
    let (why, hint) = match life(&run.start.process) {
        Life::Gone => return Ok(()),
        Life::Lives => (
            format!("its process lives on {host}"),
            "wait until the run has ended, or stop it, and run the undo again".to_owned(),
        ),
        Life::NotKnown if before(SILENT).is_some_and(|silent| run.seen_at < silent) => return Ok(()),
        Life::NotKnown => (
            format!("it gave a sign of life on {host} at {}", run.seen_at),
            format!(
                "wait until the run has ended, or stop it; where its process has died, run the undo again when {} minutes have passed since",
                SILENT.as_secs() / 60
            ),
        ),
    };
    let message = format!("run {id} is not taken back: it has not ended, {why}");
    Err(Failure::new(message, format!("nothing was put back; {hint}")))
}

/// Tables of a run that ended by itself, without an error of theirs, and that it wrote to.
fn tables_that_ended(run: &RunRecord) -> Vec<String> {
    let died = run.ended_at.is_none()
        || run.outcome.as_deref().is_none_or(|outcome| matches!(outcome, "failed" | "interrupted"));
    let whole = |table: &&TableRecord| {
        let chunks = table.backfill.as_ref().map_or(&[][..], |backfill| &backfill.chunks);
        let outcome = &table.outcome;
        // An undo that kept a journal says so by what it wrote.
        outcome.undo_kept
            && outcome.written() > 0
            && run.undoes.is_none()
            && table.error.is_none()
            && chunks.iter().all(|chunk| chunk.error.is_none())
    };
    let ended = run.tables.iter().filter(whole).map(|table| table.target_table.clone());
    if died { Vec::new() } else { ended.collect() }
}

async fn work(
    args: &UndoArgs,
    target: &EndpointUrl,
    task: &UndoTask,
    recorder: &mut Recorder,
    shutdown: &Shutdown,
) -> Result<RunOutcome, Failure> {
    let (limits, peers) = (limits(&args.limits)?, client_security(&args.peers)?);
    let undo = evidence::undo_store(&args.undo, &args.evidence, target)?;
    let agent = target.open(&limits, &peers, Role::Target, undo).await?;
    let (events, mut told) = mpsc::channel(EVENTS_AHEAD);
    let run = async {
        let outcome = coordinator::undo(&agent, task, &events, shutdown.token()).await;
        drop(events);
        Ok::<_, Failure>(outcome)
    };
    let listen = async {
        while let Some(event) = told.recv().await {
            recorder.event(&event).await?;
        }
        Ok(())
    };
    let (outcome, ()) = tokio::try_join!(run, listen)?;
    Ok(outcome?)
}
