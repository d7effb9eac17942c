//! `trueup check`: runs the configured checks once, for cron and CI.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Failure;
use super::args::{Color, LimitArgs, RECHECKS_MAX, recheck_delay};
use super::checking::{self, Keeping};
use super::config::{Endpoints, FileArgs};
use super::endpoint::limits;
use super::evidence_args::{EvidenceArgs, UndoStoreArgs};
use super::output::Output;
use super::shutdown::Shutdown;
use super::terminal::color;
use crate::agent::SOFTWARE;
use crate::checks::{self, CheckOptions};
use crate::report::SCHEMA_VERSION;
use crate::report::checks::{CheckResult, ChecksReport, Status, json, junit, overall, text};
use crate::report::render::Style;
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 all passed or within tolerance, 1 one failed, 2 one could not tell.

Examples:
  trueup check
  trueup check -c shop.toml counts recent-orders --format junit -o checks.xml")]
pub(super) struct CheckArgs {
    #[command(flatten)]
    file: FileArgs,
    /// The checks to run (default: all)
    names: Vec<String>,
    /// text for people, json as one document, junit for CI servers
    #[arg(long, value_enum, default_value_t = CheckFormat::Text)]
    format: CheckFormat,
    /// Write the report to FILE instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<std::path::PathBuf>,
    /// Repair nothing, whatever the checks' policies say
    #[arg(long)]
    dry_run: bool,
    /// Show values that stand in rows: smallest, largest, scalars
    #[arg(long)]
    show_values: bool,
    /// Measure a check that fails again this often before it is told
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(..=RECHECKS_MAX))]
    recheck: u32,
    /// Time before it is measured again
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = recheck_delay)]
    recheck_delay: Duration,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
    /// Colour of the text
    #[arg(long, value_enum, default_value_t = Color::Auto)]
    color: Color,
    /// Keep no undo journal of what a check repairs
    #[arg(long, help_heading = "Evidence")]
    no_undo: bool,
    #[command(flatten)]
    undo: UndoStoreArgs,
    #[command(flatten)]
    evidence: EvidenceArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

/// Differing keys of a table that the ledger names.
pub(super) const DETAILS_KEPT: u64 = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CheckFormat {
    Text,
    Json,
    Junit,
}

/// A pair whose checks have run.
struct Ran<'a> {
    name: &'a str,
    /// Source and target.
    databases: [String; 2],
    /// Into the target.
    wrote: bool,
}

impl Ran<'_> {
    /// Whether its repairs may have changed what was measured of another pair.
    fn may_change(&self, other: &Self) -> bool {
        self.wrote && other.databases.contains(&self.databases[1])
    }
}

/// The results of a pair by which its two sides agree.
fn agreed<'r>(results: &'r [CheckResult], pair: &'r str) -> impl Iterator<Item = &'r CheckResult> {
    results.iter().filter(move |result| result.pair == pair && result.status < Status::Fail)
}

pub(super) async fn run(args: &CheckArgs, shutdown: &Shutdown) -> Result<u8, Failure> {
    let began = (Instant::now(), SystemTime::now());
    let loaded = args.file.load()?;
    let selected = checks::select(&loaded.config, &args.names)?;
    if selected.is_empty() {
        return Err(Failure::new(
            format!("{} has no check", loaded.path.display()),
            "add one: [checks.NAME] with pair and kind; see docs/configuration.md",
        ));
    }
    let now = began.1.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    let options = CheckOptions {
        now_micros: i64::try_from(now).unwrap_or(i64::MAX),
        recheck: args.recheck,
        recheck_delay: args.recheck_delay,
        show_values: args.show_values,
        dry_run: args.dry_run,
        details_kept: DETAILS_KEPT,
    };
    let keeping = Keeping {
        evidence: loaded.evidence(&args.evidence),
        undo: if args.no_undo { None } else { loaded.undo(&args.undo) },
        due: std::collections::BTreeMap::new(),
        asked_by: None,
        live: None,
    };
    let stop = shutdown.token();
    let mut output = Output::open(args.output.as_deref())?;
    let mut endpoints = Endpoints::new(&loaded, limits(&args.limits)?);
    let (mut results, mut ran): (Vec<CheckResult>, Vec<Ran<'_>>) = (Vec::new(), Vec::new());
    let work = async {
        for (name, checks) in &selected {
            let Some(pair) = loaded.config.pairs.get(*name) else { continue };
            if !args.quiet {
                // Standard error that is closed is nobody's error.
                let _ = writeln!(
                    std::io::stderr().lock(),
                    "{name}: {} with {}",
                    endpoints.shown(&pair.source),
                    endpoints.shown(&pair.target)
                );
            }
            let databases = [&pair.source, &pair.target].map(|name| endpoints.shown(name));
            let pair = (*name, pair);
            match checking::run_pair(&loaded, &mut endpoints, pair, checks, &options, &keeping, stop).await {
                Ok(checked) => {
                    let wrote = checked.reports.iter().any(|report| {
                        let done = &report.outcome;
                        report.error.is_some() || done.inserted + done.updated + done.deleted > 0
                    });
                    ran.push(Ran { name, databases, wrote: wrote && !options.dry_run });
                    results.extend(checked.results);
                }
                Err(failure) if failure.interrupted => return Err(failure),
                Err(Failure { message, hint, .. }) => {
                    results.extend(checks::unreachable(pair.0, checks, &message, hint.as_deref()));
                }
            }
        }
        // By now nothing is written any more.
        let look = CheckOptions { dry_run: true, ..options };
        for (at, first) in ran.iter().enumerate() {
            let by: Vec<&str> = ran[at + 1..]
                .iter()
                .filter(|later| later.may_change(first))
                .map(|later| later.name)
                .collect();
            let agreed: Vec<String> =
                agreed(&results, first.name).map(|result| result.name.clone()).collect();
            let (Some(pair), false) =
                (loaded.config.pairs.get(first.name), by.is_empty() || agreed.is_empty())
            else {
                continue;
            };
            let checks =
                selected.iter().filter(|(name, _)| ***name == *first.name).flat_map(|(_, checks)| checks);
            let checks: Vec<_> =
                checks.filter(|(name, _)| agreed.iter().any(|agreed| agreed == name)).copied().collect();
            let pair = (first.name, pair);
            let again =
                checking::run_pair(&loaded, &mut endpoints, pair, &checks, &look, &keeping, stop).await?;
            for result in results.iter_mut().filter(|result| result.pair == first.name) {
                let second = again
                    .results
                    .iter()
                    .find(|second| second.name == result.name && second.table == result.table);
                let Some(second) = second
                    .filter(|second| second.status > Status::WithinTolerance && result.status < Status::Fail)
                else {
                    continue;
                };
                *result = second.clone();
                result.notes.push(format!("it agreed before the repair of pair {}", by.join(", ")));
            }
        }
        Ok(())
    };
    let ended = shutdown.or_grace(Box::pin(work)).await.unwrap_or_else(|| Err(Failure::interrupted()));
    // What was told by then is told, and of the others that it is not known.
    if let Err(failure) = &ended {
        for (pair, checks) in &selected {
            if !results.iter().any(|result| result.pair == *pair) {
                results.extend(checks::unreachable(pair, checks, &failure.message, failure.hint.as_deref()));
            }
        }
    }
    let report = ChecksReport {
        schema_version: SCHEMA_VERSION,
        software: SOFTWARE.to_owned(),
        command: "check".to_owned(),
        started_at: humantime::format_rfc3339_seconds(began.1).to_string(),
        seconds: began.0.elapsed().as_secs_f64(),
        status: overall(&results),
        checks: results,
    };
    let shown = match args.format {
        CheckFormat::Text => text(&report, Style { color: color(args.color, output.is_terminal()) }),
        CheckFormat::Json => json(&report),
        CheckFormat::Junit => junit(&report),
    };
    output.write(&shown)?;
    output.finish()?;
    ended.map(|()| report.status.exit_status())
}
