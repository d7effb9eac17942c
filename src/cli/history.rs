//! What was run: the list, the report of one run, and what retention removes.

use super::Failure;
use super::abandoned::{Silence, close_abandoned};
use super::evidence::{before, by, open_ledger, since, timestamp};
use super::evidence_args::{ListFormat, PruneArgs, ReportArgs, ReportFormat, RunsArgs};
use super::output::Output;
use crate::ledger::{Keep, RunFilter, RunStart};
use crate::report::render::grouped;
use crate::report::{export, page};

pub(super) async fn runs(args: &RunsArgs) -> Result<u8, Failure> {
    let ledger = open_ledger(&args.ledger, false).await?;
    let tables = match &args.table {
        Some(table) => ledger.tables_named(table).await?,
        None => Vec::new(),
    };
    let filter = RunFilter {
        kind: args.kind.clone(),
        outcome: args.outcome.clone(),
        since: args.since.as_deref().map(since).transpose()?,
        tables,
        limit: Some(args.limit),
        ..RunFilter::default()
    };
    let mut output = Output::open(None)?;
    for run in ledger.runs(&filter).await? {
        let line = match args.format {
            ListFormat::Ndjson => serde_json::to_string(&run).unwrap_or_default(),
            ListFormat::Text => {
                let what = match (&run.undoes, &run.error) {
                    (Some(undoes), _) => format!("of {undoes}"),
                    (None, Some(error)) => error.lines().next().unwrap_or_default().to_owned(),
                    (None, None) => String::new(),
                };
                format!(
                    "{}  {}  {:6}  {:11}  {} on {}  {} -> {}  {what}",
                    run.id,
                    run.started_at,
                    run.kind,
                    run.outcome_text(),
                    run.who,
                    run.host,
                    run.source,
                    run.target
                )
                .trim_end()
                .to_owned()
            }
        };
        output.write(&format!("{line}\n"))?;
    }
    output.finish()?;
    Ok(0)
}

pub(super) async fn report(args: &ReportArgs) -> Result<u8, Failure> {
    let ledger = open_ledger(&args.ledger, false).await?;
    let evidence = ledger.evidence(&args.run).await?;
    let text = match args.format {
        ReportFormat::Html => page::html(&evidence),
        ReportFormat::Md => export::markdown(&evidence),
        ReportFormat::Csv => export::csv(&evidence),
        ReportFormat::Json => {
            let json = serde_json::to_string_pretty(&evidence);
            json.map_err(|error| Failure::new(error.to_string(), "this is a defect: please report it"))?
                + "\n"
        }
    };
    let mut output = Output::open(args.output.as_deref())?;
    output.write(&text)?;
    output.finish()?;
    Ok(0)
}

pub(super) async fn prune(args: &PruneArgs) -> Result<u8, Failure> {
    if args.keep.is_none() && args.keep_trail.is_none() {
        return Err(Failure::new(
            "there is no rule",
            "say how long to keep runs with --keep, or entries with --keep-trail",
        ));
    }
    let ledger = open_ledger(&args.ledger, false).await?;
    let keep = Keep {
        runs_since: args.keep.and_then(before),
        last_runs: args.keep_last,
        trail_since: args.keep_trail.and_then(before),
    };
    let mut closed = 0;
    let removed = if args.dry_run {
        ledger.prunable(&keep).await?
    } else {
        closed = close_abandoned(&ledger, Silence::ByClock).await?;
        let start = RunStart { started_at: timestamp(std::time::SystemTime::now()), ..by() };
        ledger.prune(&keep, &start).await?
    };
    let mut output = Output::open(None)?;
    if closed > 0 {
        output.write(&format!("{} runs that died are closed as abandoned\n", grouped(closed)))?;
    }
    output.write(&format!(
        "{} runs and {} entries of the trail {}\n",
        grouped(removed.runs),
        grouped(removed.entries),
        if args.dry_run { "would be removed" } else { "removed" }
    ))?;
    output.finish()?;
    Ok(0)
}
