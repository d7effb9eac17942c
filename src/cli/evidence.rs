//! Where a run's evidence lies: the ledger, the trail's secret, the undo journals.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Failure;
use super::endpoint::{EndpointUrl, warn_if_readable};
use super::evidence_args::{EvidenceArgs, LedgerArgs, SecretArgs, UndoStoreArgs};
pub(super) use super::stamp::{before, by, timestamp};
use crate::agent::{TrailSecret, UndoKey, UndoStore};
use crate::coordinator::RunRequest;
use crate::ledger::Ledger;
use crate::model::Unpaired;

/// How often an agent looks for undo journals that are too old.
const PURGE_EVERY: Duration = Duration::from_secs(3600);

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
        (None, true) => Ok(None),
        _ => open_undo(&undo_folder(args, evidence)?, args),
    }
}

/// Where the journals of an agent in this process lie.
pub(super) fn undo_folder(args: &UndoStoreArgs, evidence: &EvidenceArgs) -> Result<PathBuf, Failure> {
    match &args.undo_dir {
        Some(dir) => Ok(dir.clone()),
        None => Ok(folder_of(&evidence.ledger)?.join("undo")),
    }
}

/// A listening agent that may write keeps journals, and removes old ones for as long as it listens.
pub(super) fn agent_undo_store(args: &UndoStoreArgs, keeps: bool) -> Result<Option<UndoStore>, Failure> {
    let store = match (&args.undo_dir, keeps) {
        (Some(dir), _) => open_undo(dir, args)?,
        (None, false) => return Ok(None),
        (None, true) => match state_folder().and_then(|folder| open_undo(&folder.join("undo"), args)) {
            Ok(store) => store,
            // Nobody asked for this folder. What is written without it is reported as what cannot be undone.
            Err(failure) => {
                warn(&format!(
                    "no undo journals are kept, name a folder with --undo-dir: {}",
                    failure.message
                ));
                return Ok(None);
            }
        },
    };
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

pub(super) fn warn(what: &str) {
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
