//! A run's evidence as it comes about: opens the ledger, notes begin, every batch and end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::Failure;
use super::endpoint::{EndpointUrl, warn_if_readable};
use super::evidence_args::{EvidenceArgs, LedgerArgs, SecretArgs, UndoStoreArgs};
use crate::agent::{Event, Intents, SOFTWARE, TaskOptions, TrailSecret, TrailWish, UndoKey, UndoStore};
use crate::coordinator::{RunEvent, RunRequest};
use crate::ledger::{self, Ledger, RunEnd, RunStart};
use crate::model::Unpaired;
use crate::report::backfill::BackfillReport;
use crate::report::checks::{CheckResult, overall};
use crate::report::record::TableRecord;
use crate::report::{RunReport, TableReport};

/// How often an agent looks for undo journals that are too old.
const PURGE_EVERY: Duration = Duration::from_secs(3600);

/// RFC 3339 in UTC; sorts as text.
pub(super) fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// A path, or a PostgreSQL URL.
enum Place {
    File(PathBuf),
    Postgres(String),
}

fn place(args: &LedgerArgs) -> Result<Place, Failure> {
    let Some(text) = args.ledger.as_deref().filter(|text| !text.is_empty()) else {
        return Ok(Place::File(state_folder()?.join("ledger.db")));
    };
    let url = EndpointUrl::read(text)?.url;
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(Place::Postgres(url));
    }
    if url.contains("://") && !url.starts_with("sqlite://") {
        return Err(Failure::new("a ledger is a file or a postgres:// URL", "correct --ledger"));
    }
    Ok(Place::File(PathBuf::from(url.strip_prefix("sqlite://").unwrap_or(&url))))
}

/// `$XDG_STATE_HOME/trueup`, or `~/.local/state/trueup`.
fn state_folder() -> Result<PathBuf, Failure> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    folder("XDG_STATE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("trueup"))
        .ok_or_else(|| {
            Failure::new(
                "there is no home folder for the ledger",
                "name a file with --ledger, or go without with --no-ledger",
            )
        })
}

/// Where the ledger's keys and journals lie.
fn folder_of(args: &LedgerArgs) -> Result<PathBuf, Failure> {
    match place(args)? {
        Place::File(path) => Ok(path.parent().map(Path::to_owned).unwrap_or_default()),
        Place::Postgres(_) => state_folder(),
    }
}

pub(super) async fn open_ledger(args: &LedgerArgs, create: bool) -> Result<Ledger, Failure> {
    match place(args)? {
        Place::File(path) => {
            let ledger = Ledger::open_file(&path, create).await?;
            warn_if_readable(&path);
            Ok(ledger)
        }
        Place::Postgres(url) => Ok(Ledger::open_postgres(&url).await?),
    }
}

pub(super) fn trail_secret(ledger: &LedgerArgs, args: &SecretArgs) -> Result<TrailSecret, Failure> {
    let path = match &args.audit_key_file {
        Some(path) => path.clone(),
        None => folder_of(ledger)?.join("audit.key"),
    };
    let secret = TrailSecret::load_or_make(&path)?;
    warn_if_readable(&path);
    Ok(secret)
}

/// The journals of an agent in this process; none without a ledger to lie beside.
pub(super) fn undo_store(
    args: &UndoStoreArgs,
    evidence: &EvidenceArgs,
    target: &EndpointUrl,
) -> Result<Option<UndoStore>, Failure> {
    if !target.is_database() {
        return Ok(None);
    }
    match (&args.undo_dir, evidence.no_ledger) {
        (Some(dir), _) => open_undo(dir, args),
        (None, true) => Ok(None),
        (None, false) => open_undo(&folder_of(&evidence.ledger)?.join("undo"), args),
    }
}

/// A listening agent keeps journals only where it is told to, and removes old ones for as long as it listens.
pub(super) fn agent_undo_store(args: &UndoStoreArgs) -> Result<Option<UndoStore>, Failure> {
    let Some(dir) = &args.undo_dir else { return Ok(None) };
    let store = open_undo(dir, args)?;
    if let Some(store) = store.clone() {
        let keep = args.undo_keep;
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(PURGE_EVERY).await;
                if let Some(before) = SystemTime::now().checked_sub(keep)
                    && let Err(error) = store.purge(before)
                {
                    warn(&error.message);
                }
            }
        });
    }
    Ok(store)
}

fn open_undo(dir: &Path, args: &UndoStoreArgs) -> Result<Option<UndoStore>, Failure> {
    let key = match (&args.undo_key_file, std::env::var("TRUEUP_UNDO_KEY")) {
        (Some(path), _) => UndoKey::load_or_make(path)?,
        (None, Ok(text)) if !text.is_empty() => UndoKey::parse(&text, "TRUEUP_UNDO_KEY")?,
        _ => UndoKey::load_or_make(&dir.join("undo.key"))?,
    };
    let store = UndoStore::open(dir, key)?;
    if let Some(before) = SystemTime::now().checked_sub(args.undo_keep) {
        store.purge(before)?;
    }
    Ok(Some(store))
}

/// What was asked for, as the ledger keeps it. No secrets: endpoints are kept apart.
pub(super) fn options(request: &RunRequest) -> serde_json::Value {
    let (wishes, options) = (&request.wishes, &request.options);
    let tables: Vec<String> = request
        .pairs
        .tables
        .iter()
        .map(
            |(source, target)| {
                if source == target { source.to_string() } else { format!("{source}={target}") }
            },
        )
        .collect();
    serde_json::json!({
        "tables": tables, "key": wishes.key, "columns": wishes.columns, "exclude": wishes.exclude, "map": wishes.map,
        "as_text": wishes.as_text, "assume_utc": wishes.assume_utc,
        "unpaired": match &wishes.unpaired {
            Unpaired::Different => serde_json::Value::Null,
            Unpaired::Ignore => "ignore".into(),
            Unpaired::Accept(names) => names.clone().into(),
        },
        "source_where": wishes.source_where,
        "target_where": wishes.target_where, "tolerance": options.tolerance, "allow": options.repair,
        "dry_run": options.dry_run, "max_changes": options.max_changes,
        "max_overwritten_percent": options.max_overwritten_percent, "recheck": options.recheck,
        "recheck_delay_ms": options.recheck_delay_ms, "allow_cascade": options.allow_cascade,
        "no_undo": options.no_undo,
    })
}

/// A run that is to be recorded.
pub(super) struct Recording<'a> {
    pub(super) kind: &'static str,
    pub(super) source: &'a EndpointUrl,
    pub(super) target: &'a EndpointUrl,
    /// As it was typed: `env:NAME` is kept, so that an undo finds the database again.
    pub(super) target_typed: &'a str,
    pub(super) writes: bool,
    pub(super) undoes: Option<String>,
    pub(super) options: serde_json::Value,
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
}

#[derive(Debug)]
struct Open {
    ledger: Ledger,
    start: RunStart,
    wish: TrailWish,
    /// Batches that are about to be written, by table and number: the table's name, and their rows.
    intended: BTreeMap<(usize, u64), (String, Intents)>,
}

impl Recorder {
    /// A run that writes does not begin without its ledger; one that only reads goes on with a warning.
    pub(super) async fn begin(args: &EvidenceArgs, what: Recording<'_>) -> Result<Self, Failure> {
        let run = Uuid::now_v7().to_string();
        if args.no_ledger {
            return Ok(Self { run, open: None });
        }
        let writes = what.writes;
        match Open::begin(&run, args, what).await {
            Ok(open) => Ok(Self { run, open: Some(open) }),
            Err(failure) if writes => Err(Failure::new(
                format!("nothing was written: {}", failure.message),
                failure.hint.unwrap_or_else(|| "go without with --no-ledger".to_owned()),
            )),
            Err(failure) => {
                warn(&format!("this run is not recorded: {}", failure.message));
                Ok(Self { run, open: None })
            }
        }
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

    pub(super) async fn event(&mut self, event: &RunEvent) -> Result<(), Failure> {
        let (Some(open), RunEvent::Table { table, event }) = (&mut self.open, event) else { return Ok(()) };
        let at = timestamp(SystemTime::now());
        let entries = match event {
            Event::Intended { table: name, batch, rows } => {
                let entry = ledger::intent_entry(&open.start, &at, name, *batch, rows);
                open.intended.insert((*table, *batch), (name.clone(), rows.clone()));
                vec![entry]
            }
            Event::Applied { batch, outcomes } => match open.intended.remove(&(*table, *batch)) {
                Some((name, rows)) => ledger::batch_entries(&open.start, &at, &name, *batch, rows, outcomes),
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        open.ledger.append(entries).await.map(drop).map_err(|error| {
            Failure::new(format!("the run is stopped, it cannot be recorded: {}", error.what), error.hint)
        })
    }

    pub(super) fn table_record(&self, report: &TableReport) -> TableRecord {
        ledger::table_record(report, |name, key| self.key(name, key))
    }

    /// How the ledger shows a key of a table.
    fn key(&self, table: &str, key: &[(String, String)]) -> String {
        self.open.as_ref().map(|open| open.wish.key(table, key)).unwrap_or_default()
    }

    /// Notes how a run ended, and tells its report where.
    pub(super) async fn finish_report(&mut self, report: &mut RunReport) -> Result<(), Failure> {
        let totals = Totals {
            outcome: report.verdict.as_str(),
            tables: report.tables.iter().map(|table| self.table_record(table)).collect(),
            only_in: (report.only_in_source.clone(), report.only_in_target.clone()),
            checks: Vec::new(),
        };
        if let Some(head) = self.finish(totals).await? {
            report.run = Some(self.run.clone());
            report.audit_head = Some(head);
        }
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
        match open.ledger.finish(&open.start, &end).await {
            Ok(head) => Ok(Some(head.to_string())),
            Err(error) if open.start.writes => Err(Failure::new(
                format!("the run has ended ({}), but the ledger cannot note it: {}", end.outcome, error.what),
                error.hint,
            )),
            Err(error) => {
                warn(&format!("the end of this run is not recorded: {}", error.what));
                Ok(None)
            }
        }
    }

    pub(super) async fn fail(&mut self, failure: &Failure) {
        let Some(open) = &mut self.open else { return };
        open.unanswered().await;
        let end = RunEnd {
            ended_at: timestamp(SystemTime::now()),
            outcome: if failure.interrupted { "interrupted" } else { "failed" }.to_owned(),
            error: Some(failure.message.clone()),
            ..RunEnd::default()
        };
        if let Err(error) = open.ledger.finish(&open.start, &end).await {
            warn(&format!("the end of this run is not recorded: {}", error.what));
        }
    }
}

impl Open {
    async fn begin(run: &str, args: &EvidenceArgs, what: Recording<'_>) -> Result<Self, Failure> {
        let ledger = open_ledger(&args.ledger, true).await?;
        let secret = trail_secret(&args.ledger, &args.secret)?;
        let start = RunStart {
            id: run.to_owned(),
            kind: what.kind.to_owned(),
            started_at: timestamp(SystemTime::now()),
            source: what.source.shown.clone(),
            target: what.target.shown.clone(),
            target_reference: what
                .target_typed
                .strip_prefix("env:")
                .map_or_else(String::new, |name| format!("env:{name}")),
            writes: what.writes,
            undoes: what.undoes,
            options: what.options,
            ..by()
        };
        ledger.begin(&start).await?;
        let wish = TrailWish { secret, plain_keys: args.keep_keys };
        Ok(Self { ledger, start, wish, intended: BTreeMap::new() })
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

/// Who does this, from where, with what.
pub(super) fn by() -> RunStart {
    let name = std::env::var("TRUEUP_ACTOR").ok().filter(|name| !name.is_empty());
    RunStart {
        id: String::new(),
        kind: String::new(),
        who: name.or_else(|| whoami::username().ok()).unwrap_or_else(|| "unknown".to_owned()),
        host: whoami::hostname().unwrap_or_else(|_| "unknown".to_owned()),
        software: SOFTWARE.to_owned(),
        started_at: String::new(),
        source: String::new(),
        target: String::new(),
        target_reference: String::new(),
        writes: false,
        undoes: None,
        options: serde_json::Value::Null,
    }
}

fn warn(what: &str) {
    tracing::warn!("{what}");
}

/// `7d`, or a time as RFC 3339.
pub(super) fn since(text: &str) -> Result<String, Failure> {
    let bad = || Failure::new(format!("{text:?} is no time"), "write 7d, 12h, or 2026-11-23T00:00:00Z");
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(timestamp(time));
    }
    let back: Duration = humantime::parse_duration(text).map_err(|_| bad())?;
    before(back).ok_or_else(bad)
}

/// The time so long ago.
pub(super) fn before(back: Duration) -> Option<String> {
    // Nothing was run before 1970.
    SystemTime::now().checked_sub(back).map(|time| timestamp(time.max(SystemTime::UNIX_EPOCH)))
}
