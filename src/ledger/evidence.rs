//! From what a run tells to what the ledger keeps, and back to what a report shows.

use std::collections::BTreeMap;

use serde::Serialize;

use super::chain::{Entry, EntryKind};
use super::rows::are_digits;
use super::runs::{RunStart, entry};
use super::store::{Cell, query};
use super::trail::EntryFilter;
use super::{Ledger, LedgerError};
use crate::agent::{DifferenceKind, Intents, RowOutcome};
use crate::report::backfill::BackfillTable;
use crate::report::record::{DifferenceRecord, Evidence, TableRecord, TrailSummary};
use crate::report::{SCHEMA_VERSION, TableReport, Verdict};

/// A table's report as the ledger keeps it: no values, and keys as `key` renders them for a table and its key.
pub fn table_record(report: &TableReport, key: impl Fn(&str, &[(String, String)]) -> String) -> TableRecord {
    let table = &report.target_table;
    let differences = report.differences.iter().map(|difference| DifferenceRecord {
        kind: match difference.kind {
            DifferenceKind::Missing => "missing",
            DifferenceKind::Changed => "changed",
            DifferenceKind::Extra => "extra",
        }
        .to_owned(),
        key: key(table, &difference.key),
        columns: match difference.kind {
            DifferenceKind::Changed => difference.columns.iter().map(|column| column.name.clone()).collect(),
            _ => Vec::new(),
        },
        reason: None,
    });
    let set_aside = report.rows_set_aside.iter().flat_map(|group| {
        let record = |key, reason| DifferenceRecord {
            kind: "set_aside".to_owned(),
            key,
            columns: Vec::new(),
            reason: Some(reason),
        };
        let named: Vec<DifferenceRecord> =
            group.examples.iter().map(|example| record(key(table, example), group.reason.clone())).collect();
        let more = group.count.saturating_sub(named.len() as u64);
        let more = (more > 0).then(|| record(String::new(), format!("{more} rows more: {}", group.reason)));
        named.into_iter().chain(more)
    });
    TableRecord {
        source_table: report.source_table.clone(),
        target_table: table.clone(),
        verdict: report.verdict.as_str().to_owned(),
        plan_fingerprint: report.plan.as_ref().map(|plan| {
            let json = serde_json::to_vec(plan).unwrap_or_default();
            blake3::hash(&json).to_hex().to_string()
        }),
        plan: report.plan.clone(),
        outcome: report.outcome.clone(),
        warnings: report.warnings.clone(),
        error: report.error.clone(),
        backfill: None,
        differences: differences.chain(set_aside).collect(),
    }
}

/// A backfilled table as the ledger keeps it: its chunks' outcomes added up, its steps and chunks with their roots.
pub fn backfill_record(
    table: &BackfillTable,
    key: impl Fn(&str, &[(String, String)]) -> String,
) -> TableRecord {
    let mut report = TableReport::new(&table.source_table, &table.target_table);
    report.verdict = table.verdict;
    report.outcome = table.outcome.clone();
    report.outcome.proved = table.verdict == Verdict::Same && !table.chunks.is_empty();
    report.warnings.clone_from(&table.warnings);
    report.error.clone_from(&table.error);
    report.rows_set_aside.clone_from(&table.rows_set_aside);
    report.plan.clone_from(&table.plan);
    // The rows that were set aside are kept once, under their keys' hashes.
    let backfill = BackfillTable { rows_set_aside: Vec::new(), ..table.clone() };
    TableRecord { backfill: Some(backfill), ..table_record(&report, key) }
}

#[derive(Serialize)]
struct Intended<'a> {
    batch: u64,
    keys: Keys<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Keys<'a> {
    Each(Vec<&'a str>),
    /// Hashes, one behind the other.
    Hashes(&'a str),
}

/// The entry that says which rows a batch is about to write.
pub fn intent_entry(start: &RunStart, at: &str, table: &str, batch: u64, rows: &Intents) -> Entry {
    let json = |keys| serde_json::to_string(&Intended { batch, keys }).unwrap_or_default();
    let detail = match rows {
        Intents::Each(rows) => json(Keys::Each(rows.iter().map(|row| row.key.as_str()).collect())),
        // Digits stand in JSON as they are.
        Intents::Inserts { keys, .. } if are_digits(keys) => {
            format!(r#"{{"batch":{batch},"keys":"{keys}"}}"#)
        }
        Intents::Inserts { keys, .. } => json(Keys::Hashes(keys)),
    };
    Entry { table: table.to_owned(), detail, ..entry(start, at, EntryKind::Intent) }
}

/// What became of each row of a batch.
pub fn batch_entries(
    start: &RunStart,
    at: &str,
    table: &str,
    batch: u64,
    rows: Intents,
    outcomes: &[RowOutcome],
) -> Vec<Entry> {
    let blank = Entry { table: table.to_owned(), ..entry(start, at, EntryKind::Row) };
    super::rows::entries(&blank, batch, rows, outcomes)
}

impl Ledger {
    /// Everything that a report of a run shows, all of one moment. Verifies the whole trail.
    pub async fn evidence(&self, run: &str) -> Result<Evidence, LedgerError> {
        self.at_this_moment().await?.evidence_here(run).await
    }

    async fn evidence_here(&self, run: &str) -> Result<Evidence, LedgerError> {
        let run = self.run(run).await?;
        let mut trail = TrailSummary {
            entries: 0,
            first: 0,
            last: 0,
            hash: String::new(),
            outcomes: Vec::new(),
            faults: Vec::new(),
        };
        let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
        let filter = EntryFilter { run: Some(run.id.clone()), ..EntryFilter::default() };
        self.for_each_entry(&filter, |link| {
            trail.entries += 1;
            if trail.first == 0 {
                trail.first = link.entry.seq;
            }
            trail.last = link.entry.seq;
            trail.hash = link.hash;
            let rows = link.entry.rows() as u64;
            if rows > 0 {
                let became = format!("{} {}", link.entry.operation, link.entry.outcome);
                *outcomes.entry(became).or_default() += rows;
            }
            Ok(())
        })
        .await?;
        trail.outcomes = outcomes.into_iter().collect();
        trail.faults = self.verify_here(None).await?.faults.iter().map(ToString::to_string).collect();
        let undone_by = self.undone_by(&run.id).await?;
        Ok(Evidence { schema_version: SCHEMA_VERSION, run, trail, undone_by })
    }
    /// Runs that took back rows which this one wrote: none that only said what it would take back, or failed before the first.
    pub async fn undone_by(&self, run: &str) -> Result<Vec<String>, LedgerError> {
        let sql = "SELECT r.id FROM trueup_runs r WHERE r.undoes = $1 AND r.writes = 1 AND ( \
                     EXISTS (SELECT 1 FROM trueup_tables t WHERE t.run = r.id AND t.inserted + t.updated + t.deleted > 0) \
                     OR (COALESCE(r.outcome, '') NOT IN ('same', 'different') \
                         AND EXISTS (SELECT 1 FROM trueup_audit a WHERE a.run = r.id AND a.kind = 'intent'))) \
                   ORDER BY r.started_at DESC, r.id DESC";
        let rows = query(self.store.as_ref(), sql, vec![Cell::text(run)]).await?;
        Ok(rows.into_iter().map(|mut row| row.text()).collect())
    }
}
