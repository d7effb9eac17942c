//! The audit trail on the command line: shown, verified, exported.

use std::io::{BufRead, BufReader};
use std::path::Path;

use super::Failure;
use super::evidence::{open_ledger, trail_secret};
use super::evidence_args::{
    AuditArgs, AuditCommand, AuditExportArgs, AuditListArgs, AuditVerifyArgs, ListFormat,
};
use super::output::Output;
use crate::agent::plain_key;
use crate::ledger::{EntryFilter, LedgerError, Link, Verification, Verifier};
use crate::report::render::grouped;

pub(super) async fn audit(args: &AuditArgs) -> Result<u8, Failure> {
    match &args.command {
        AuditCommand::List(args) => list(args).await,
        AuditCommand::Verify(args) => verify(args).await,
        AuditCommand::Export(args) => export(args).await,
    }
}

async fn list(args: &AuditListArgs) -> Result<u8, Failure> {
    let ledger = open_ledger(&args.ledger, false).await?;
    let mut filter = EntryFilter::default();
    if let Some(table) = &args.entries.table {
        filter.tables = ledger.tables_named(table).await?;
    }
    if let Some(run) = &args.entries.run {
        filter.run = Some(ledger.run(run).await?.id);
    }
    if !args.entries.key.is_empty() {
        let secret = trail_secret(&args.ledger, &args.secret)?;
        // A key is hashed with the table's name as the run knew it.
        filter.keys = filter.tables.iter().map(|table| secret.key_hash(table, &args.entries.key)).collect();
        filter.keys.push(plain_key(&args.entries.key));
    }
    let mut output = Output::open(None)?;
    ledger
        .for_each_entry(&filter, |link| {
            let line = match args.format {
                ListFormat::Ndjson => json(&link),
                ListFormat::Text => text(&link),
            };
            write(&mut output, &line)
        })
        .await?;
    output.finish()?;
    Ok(0)
}

fn text(link: &Link) -> String {
    let entry = &link.entry;
    let mut words = vec![
        entry.seq.to_string(),
        entry.at.clone(),
        format!("{}@{}", entry.who, entry.host),
        entry.run.clone(),
        entry.kind.clone(),
        entry.table.clone(),
        entry.key.clone(),
        entry.operation.clone(),
        entry.outcome.clone(),
    ];
    if entry.kind == "row" {
        let short = |digest: &str| digest.get(..8).unwrap_or("none").to_owned();
        words.push(format!("{} -> {}", short(&entry.before), short(&entry.after)));
    } else if entry.rows() > 0 {
        words.push(format!("{} rows", grouped(entry.rows() as u64)));
    }
    words.retain(|word| !word.is_empty());
    words.join("  ")
}

fn json(link: &Link) -> String {
    serde_json::to_string(link).unwrap_or_default()
}

fn write(output: &mut Output, line: &str) -> Result<(), LedgerError> {
    output
        .write(&format!("{line}\n"))
        .map_err(|failure| LedgerError::new(failure.message, failure.hint.unwrap_or_default()))
}

async fn verify(args: &AuditVerifyArgs) -> Result<u8, Failure> {
    let verification = match &args.file {
        Some(path) => verify_file(path, args)?,
        None => open_ledger(&args.ledger, false).await?.verify(args.head.clone()).await?,
    };
    let mut output = Output::open(None)?;
    output.write(&match args.format {
        ListFormat::Ndjson => serde_json::to_string(&verification).unwrap_or_default() + "\n",
        ListFormat::Text => told(&verification),
    })?;
    output.finish()?;
    Ok(u8::from(!verification.faults.is_empty()))
}

fn told(verification: &Verification) -> String {
    let mut out = String::new();
    for fault in &verification.faults {
        out += &format!("{fault}\n");
    }
    for run in &verification.open_runs {
        out += &format!("note: run {run} has begun and has not ended: it runs, or was stopped by force\n");
    }
    let entries = grouped(verification.entries);
    let state = if verification.faults.is_empty() { "whole" } else { "DAMAGED" };
    out += &format!("the trail is {state}: {entries} entries");
    if let Some(head) = &verification.head {
        out += &format!(", head {head}");
    }
    out + "\n"
}

fn verify_file(path: &Path, args: &AuditVerifyArgs) -> Result<Verification, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(
            format!("cannot read {}: {error}", path.display()),
            "give a file made by trueup audit export",
        )
    };
    let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    let mut verifier = Verifier::new(args.head.clone());
    for line in BufReader::new(file).lines() {
        let line = line.map_err(|error| failed(&error))?;
        let link: Link = serde_json::from_str(&line).map_err(|error| failed(&error))?;
        verifier.push(&link);
    }
    Ok(verifier.finish(args.head.as_ref()))
}

async fn export(args: &AuditExportArgs) -> Result<u8, Failure> {
    let ledger = open_ledger(&args.ledger, false).await?;
    let mut output = Output::open(args.output.as_deref())?;
    ledger.for_each_entry(&EntryFilter::default(), |link| write(&mut output, &json(&link))).await?;
    output.finish()?;
    Ok(0)
}
