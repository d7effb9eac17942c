//! A run's record as it comes about: its beginning, every batch, its end.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::Failure;
use super::endpoint::EndpointUrl;
use super::evidence::{by, open_ledger, timestamp, trail_secret, warn};
use super::evidence_args::{EvidenceArgs, UndoStoreArgs};
use super::run_beat::RunBeat;
use crate::agent::{Event, Intents, TaskOptions, TrailWish};
use crate::config::url::is_free_of_secrets;
use crate::coordinator::{RunEvent, Written};
use crate::ledger::{self, Entry, Ledger, LedgerError, RunEnd, RunStart};
use crate::model::fail_point;
use crate::report::backfill::BackfillReport;
use crate::report::checks::{CheckResult, overall};
use crate::report::record::TableRecord;
use crate::report::render::{grouped, written_text};
use crate::report::{RunReport, Stopped, TableReport};

/// What goes on with a run that ended early.
pub(super) const GO_ON: &str = "run the same command again to go on";
/// How long the ledger may take to record a batch: a stalled one holds the writes back, and then ends the run.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same for the end of a run that failed.
const AT_THE_END: Duration = Duration::from_secs(20);

/// A run that is to be recorded.
pub(super) struct Recording<'a> {
    pub(super) kind: &'static str,
    pub(super) source: &'a EndpointUrl,
    pub(super) target: &'a EndpointUrl,
    /// As it was typed: `env:NAME` is kept, so that an undo finds the database again.
    pub(super) target_typed: &'a str,
    pub(super) writes: bool,
    pub(super) undoes: Option<String>,
    /// Where what it overwrites is kept; `None`: it is not to be kept.
    pub(super) undo: Option<&'a UndoStoreArgs>,
    pub(super) options: serde_json::Value,
}

impl Recording<'_> {
    /// How an undo finds the target again: by the name of a variable, or by a URL that holds no secret.
    fn reference(&self) -> String {
        match self.target_typed {
            typed if typed.starts_with("env:") => typed.to_owned(),
            typed if is_free_of_secrets(typed) => typed.to_owned(),
            _ => String::new(),
        }
    }
}

/// What a run came to, for the ledger.
pub(super) struct Totals {
    outcome: &'static str,
    tables: Vec<TableRecord>,
    /// Names of tables that only one side has.
    only_in: (Vec<String>, Vec<String>),
    checks: Vec<CheckResult>,
}

impl Totals {
    pub(super) fn of_checks(checks: Vec<CheckResult>, tables: Vec<TableRecord>) -> Self {
        let outcome = overall(&checks).as_str();
        Self { outcome, tables, only_in: (Vec::new(), Vec::new()), checks }
    }

    pub(super) fn of_backfill(report: &BackfillReport, recorder: &Recorder) -> Self {
        let record = |table| ledger::backfill_record(table, |name, key| recorder.key(name, key));
        Self {
            outcome: report.verdict.as_str(),
            tables: report.tables.iter().map(record).collect(),
            only_in: (Vec::new(), Vec::new()),
            checks: Vec::new(),
        }
    }
}

/// Notes what a run does; without a ledger, nothing.
#[derive(Debug)]
pub(super) struct Recorder {
    run: String,
    open: Option<Open>,
    writes: bool,
    /// Counted from what the trail is told.
    written: Written,
    /// How the run is taken back, where its target keeps what it overwrites.
    undo: Option<String>,
}

#[derive(Debug)]
struct Open {
    ledger: Ledger,
    start: RunStart,
    wish: TrailWish,
    _beat: RunBeat,
    /// Batches that are about to be written, by table and number: the table's name, and their rows.
    intended: BTreeMap<(usize, u64), (String, Intents)>,
}

impl Recorder {
    /// A run that writes does not begin without its ledger; one that only reads goes on with a warning.
    pub(super) async fn begin(args: &EvidenceArgs, what: Recording<'_>) -> Result<Self, Failure> {
        let run = Uuid::now_v7().to_string();
        let writes = what.writes;
        let undo = what.undo.filter(|_| writes && !args.no_ledger);
        let undo = undo.map(|undo| undo_command(&run, args, &what, undo));
        let recorder = |open| Self { run: run.clone(), open, writes, written: Written::default(), undo };
        if args.no_ledger {
            return Ok(recorder(None));
        }
        match Open::begin(&run, args, what).await {
            Ok(open) => Ok(recorder(Some(open))),
            Err(failure) if writes => Err(Failure::new(
                format!("nothing was written: {}", failure.message),
                failure.hint.unwrap_or_else(|| "go without with --no-ledger".to_owned()),
            )),
            Err(failure) => {
                warn(&format!("this run is not recorded: {}", failure.message));
                Ok(recorder(None))
            }
        }
    }

    /// The run's id in the ledger; `None` where it is not recorded.
    pub(super) fn recorded_run(&self) -> Option<&str> {
        self.open.as_ref().map(|_| self.run.as_str())
    }

    pub(super) fn run(&self) -> &str {
        &self.run
    }

    pub(super) fn wish(&self) -> Option<TrailWish> {
        self.open.as_ref().map(|open| open.wish.clone())
    }

    /// Asks the agents for what is to be recorded.
    pub(super) fn ask(&self, options: &mut TaskOptions) {
        options.run = Some(self.run.clone());
        options.trail = self.wish();
    }

    /// What cannot be recorded is not done: an error here stops the run. A batch is acknowledged when its intent is durable,
    /// and not written before that.
    pub(super) async fn event(&mut self, event: &RunEvent) -> Result<(), Failure> {
        let RunEvent::Table { table, event } = event else { return Ok(()) };
        let Some(open) = &mut self.open else { return Ok(()) };
        match event {
            Event::Intended { table: name, batch, rows, acknowledge } => {
                let at = timestamp(SystemTime::now());
                // Another round has begun, and nobody answered for this batch of the one before.
                let before = open.intended.remove(&(*table, *batch));
                let mut entries = before.map_or_else(Vec::new, |(name, rows)| {
                    ledger::batch_entries(&open.start, &at, &name, *batch, rows, &[])
                });
                entries.push(ledger::intent_entry(&open.start, &at, name, *batch, rows));
                let recorded = open.append(entries).await;
                let seq = recorded.map_err(|error| self.not_recorded(&error))?;
                self.written.note(*table, event);
                if let Some(open) = &mut self.open {
                    open.intended.insert((*table, *batch), (name.clone(), rows.clone()));
                }
                acknowledge.recorded(seq);
            }
            Event::Applied { batch, outcomes } => {
                self.written.note(*table, event);
                let Some((name, rows)) = open.intended.remove(&(*table, *batch)) else { return Ok(()) };
                let at = timestamp(SystemTime::now());
                let entries = ledger::batch_entries(&open.start, &at, &name, *batch, rows, outcomes);
                let recorded = open.append(entries).await;
                recorded.map_err(|error| self.not_recorded(&error))?;
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn table_record(&self, report: &TableReport) -> TableRecord {
        ledger::table_record(report, |name, key| self.key(name, key))
    }

    /// How the ledger shows a key of a table.
    fn key(&self, table: &str, key: &[(String, String)]) -> String {
        self.open.as_ref().map(|open| open.wish.key(table, key)).unwrap_or_default()
    }

    /// Notes how a run ended, and tells its report where. A report whose end is not noted is a report all the same.
    pub(super) async fn finish_report(&mut self, report: &mut RunReport) -> Result<(), Failure> {
        let totals = Totals {
            outcome: report.verdict.as_str(),
            tables: report.tables.iter().map(|table| self.table_record(table)).collect(),
            only_in: (report.only_in_source.clone(), report.only_in_target.clone()),
            checks: Vec::new(),
        };
        match self.finish(totals).await {
            Ok(Some(head)) => {
                report.run = Some(self.run.clone());
                report.audit_head = Some(head);
            }
            Ok(None) => {}
            Err(failure) => {
                report.run = Some(self.run.clone());
                report.stopped = Some(self.stopped(&failure));
                return Err(failure);
            }
        }
        report.hint = self.hint(report.tables.iter().any(|table| table.error.is_some()));
        Ok(())
    }

    /// Notes how the run ended; the trail's head behind it, where it was recorded.
    pub(super) async fn finish(&mut self, totals: Totals) -> Result<Option<String>, Failure> {
        let Some(open) = &mut self.open else { return Ok(None) };
        open.unanswered().await;
        let end = RunEnd {
            ended_at: timestamp(SystemTime::now()),
            outcome: totals.outcome.to_owned(),
            error: None,
            only_in_source: totals.only_in.0,
            only_in_target: totals.only_in.1,
            tables: totals.tables,
            checks: totals.checks,
        };
        fail_point();
        match open.ledger.finish(&open.start, &end).await {
            Ok(head) => Ok(Some(head.to_string())),
            Err(error) if open.start.writes => {
                let (outcome, what) = (&end.outcome, &error.what);
                let message = format!("the run has ended ({outcome}), but the ledger cannot note it: {what}");
                Err(Failure::new(message + &self.so_far(), self.way_on(&error.hint)))
            }
            Err(error) => {
                warn(&format!("the end of this run is not recorded: {}", error.what));
                Ok(None)
            }
        }
    }

    /// Why a run that was asked to stop has no answer: what it wrote so far, which run that was, how to go on, and how to
    /// take it back.
    pub(super) fn interrupted(&self, go_on: &str) -> Failure {
        let message = format!("interrupted: both sides are stopped{}", self.so_far());
        Failure { message, hint: Some(self.way_on(go_on)), interrupted: true }
    }

    /// The same of a run that the ledger stopped.
    fn not_recorded(&self, error: &LedgerError) -> Failure {
        let message = format!("the run is stopped, it cannot be recorded: {}{}", error.what, self.so_far());
        Failure::new(message, format!("{}; then {}", error.hint, self.way_on(GO_ON)))
    }

    /// What was written, and which run that was.
    fn so_far(&self) -> String {
        let (rows, unknown) = (self.written.rows(), self.written.unknown());
        let mut so_far = String::new();
        if !self.writes {
            so_far += ", nothing was written";
        } else if self.open.is_none() {
            so_far += "; rows may have been written: without a ledger they are not counted";
        } else {
            let Written { inserted, updated, deleted, .. } = self.written;
            so_far += &match rows {
                0 => "; no row was written".to_owned(),
                rows => {
                    format!(
                        "; {} rows were written ({})",
                        grouped(rows),
                        written_text([inserted, updated, deleted])
                    )
                }
            };
            if unknown > 0 {
                so_far += &format!("; {} more were on their way, written or not", grouped(unknown));
            }
        }
        if self.open.is_some() {
            so_far += &format!("\nrun {}", self.run);
        }
        so_far
    }

    fn way_on(&self, go_on: &str) -> String {
        match self.undo.as_ref().filter(|_| self.written.rows() + self.written.unknown() > 0) {
            Some(undo) => format!("{go_on}, or take back what was written: {undo}"),
            None => go_on.to_owned(),
        }
    }

    /// The run that ended early, for its report.
    pub(super) fn stopped(&self, failure: &Failure) -> Stopped {
        Stopped {
            message: failure.message.clone(),
            hint: failure.hint.clone(),
            inserted: self.written.inserted,
            updated: self.written.updated,
            deleted: self.written.deleted,
            unknown: self.written.unknown(),
        }
    }

    /// How to go on with a run that failed after it had written.
    pub(super) fn hint(&self, failed: bool) -> Option<String> {
        let wrote = self.written.rows() + self.written.unknown() > 0;
        (failed && wrote).then(|| self.way_on(GO_ON))
    }

    pub(super) async fn fail(&mut self, failure: &Failure) {
        self.fail_with(failure, &[]).await;
    }

    /// `tables`: what became of those that were begun.
    pub(super) async fn fail_with(&mut self, failure: &Failure, tables: &[TableReport]) {
        let tables = tables.iter().map(|table| self.table_record(table)).collect();
        let Some(open) = &mut self.open else { return };
        let end = RunEnd {
            ended_at: timestamp(SystemTime::now()),
            outcome: if failure.interrupted { "interrupted" } else { "failed" }.to_owned(),
            error: Some(failure.message.clone()),
            tables,
            ..RunEnd::default()
        };
        let noted = async {
            open.unanswered().await;
            open.ledger.finish(&open.start, &end).await
        };
        match tokio::time::timeout(AT_THE_END, noted).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn(&format!("the end of this run is not recorded: {}", error.what)),
            Err(_) => warn("the end of this run is not recorded: the ledger does not answer"),
        }
    }
}

/// The command that takes a run back, as far as it can be shown, and on what that depends.
fn undo_command(run: &str, args: &EvidenceArgs, what: &Recording<'_>, undo: &UndoStoreArgs) -> String {
    let mut command = format!("trueup undo {run}");
    if what.reference().is_empty() {
        command += " --target URL";
    }
    // The environment is there the next time too.
    let typed = args.ledger.ledger.as_deref().filter(|typed| !typed.is_empty());
    match typed.filter(|typed| std::env::var("TRUEUP_LEDGER").as_deref() != Ok(*typed)) {
        Some(url) if !is_free_of_secrets(url) && url.contains("://") => command += " --ledger URL",
        Some(file) => command += &format!(" --ledger {file}"),
        None => {}
    }
    if !what.target.is_database() {
        command += " (if the target's agent keeps undo journals)";
    } else if let Some(dir) = &undo.undo_dir {
        command += &format!(" --undo-dir {}", dir.display());
    }
    command
}

impl Open {
    /// The trail's sequence number behind these entries, which are durable then.
    async fn append(&self, entries: Vec<Entry>) -> Result<u64, LedgerError> {
        fail_point();
        let appended = tokio::time::timeout(PATIENCE, self.ledger.append(entries)).await;
        fail_point();
        let stalled = || LedgerError {
            what: format!("the ledger has not answered for {} s", PATIENCE.as_secs()),
            hint: "look at the ledger's disk or server".to_owned(),
        };
        appended.map_err(|_| stalled())?.map(|head| u64::try_from(head.seq).unwrap_or_default())
    }

    async fn begin(run: &str, args: &EvidenceArgs, what: Recording<'_>) -> Result<Self, Failure> {
        let ledger = open_ledger(&args.ledger, true).await?;
        let secret = trail_secret(&args.ledger, &args.secret)?;
        let start = RunStart {
            id: run.to_owned(),
            kind: what.kind.to_owned(),
            started_at: timestamp(SystemTime::now()),
            source: what.source.shown.clone(),
            target: what.target.shown.clone(),
            target_reference: what.reference(),
            writes: what.writes,
            undoes: what.undoes,
            options: what.options,
            ..by()
        };
        ledger.begin(&start).await?;
        fail_point();
        let wish = TrailWish { secret, plain_keys: args.keep_keys };
        let beat = RunBeat::start(ledger.clone(), run.to_owned());
        Ok(Self { ledger, start, wish, _beat: beat, intended: BTreeMap::new() })
    }

    /// Batches whose end was never told: nobody knows what became of their rows.
    async fn unanswered(&mut self) {
        let at = timestamp(SystemTime::now());
        for ((_, batch), (name, rows)) in std::mem::take(&mut self.intended) {
            let entries = ledger::batch_entries(&self.start, &at, &name, batch, rows, &[]);
            if let Err(error) = self.ledger.append(entries).await {
                warn(&format!("the trail is not complete: {}", error.what));
            }
        }
    }
}
