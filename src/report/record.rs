//! A run as the ledger keeps it and as evidence shows it: what was compared, under which plan, what differed, what was
//! done, what could not be. No row values; keys are hashed unless the user asked for them.

use serde::{Deserialize, Serialize};

use super::TableError;
use super::backfill::BackfillTable;
use super::checks::CheckResult;
use crate::agent::TableOutcome;
use crate::model::{ColumnCoverage, Plan};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    pub id: String,
    /// `diff`, `repair`, `undo`, `backfill`, `check`.
    pub kind: String,
    pub who: String,
    pub host: String,
    pub software: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// `None`: it runs, or it was stopped by force.
    pub ended_at: Option<String>,
    /// `same`, `different`, `unknown`, `failed`, `interrupted`, `abandoned` (it died, and that was noted later); `None` as
    /// above.
    pub outcome: Option<String>,
    pub error: Option<String>,
    /// The endpoints, without secrets.
    pub source: String,
    pub target: String,
    /// How the target's URL was given, where that was by name (`env:NAME`).
    pub target_reference: String,
    pub writes: bool,
    /// The run that this one took back.
    pub undoes: Option<String>,
    /// What was asked for, as JSON.
    pub options: serde_json::Value,
    pub only_in_source: Vec<String>,
    pub only_in_target: Vec<String>,
    pub tables: Vec<TableRecord>,
    /// Of a run of checks.
    #[serde(default)]
    pub checks: Vec<CheckResult>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TableRecord {
    pub source_table: String,
    pub target_table: String,
    pub verdict: String,
    /// BLAKE3 of the plan as JSON: equal plans compare the same things in the same way.
    pub plan_fingerprint: Option<String>,
    pub plan: Option<Plan>,
    pub outcome: TableOutcome,
    pub warnings: Vec<String>,
    pub error: Option<TableError>,
    /// Of a backfill: its steps and chunks.
    pub backfill: Option<BackfillTable>,
    /// At most as many as the run named.
    pub differences: Vec<DifferenceRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferenceRecord {
    /// `missing`, `changed`, `extra`, or `set_aside`.
    pub kind: String,
    pub key: String,
    /// Of changed rows: the columns that differ.
    pub columns: Vec<String>,
    /// Of rows set aside: why.
    pub reason: Option<String>,
}

/// What the audit trail says of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrailSummary {
    pub entries: u64,
    pub first: i64,
    pub last: i64,
    /// Hash of the run's last entry.
    pub hash: String,
    /// Rows by what became of them.
    pub outcomes: Vec<(String, u64)>,
    /// What `audit verify` found wrong with the whole trail.
    pub faults: Vec<String>,
}

/// Everything that a report of a run shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    pub schema_version: u32,
    #[serde(flatten)]
    pub run: RunRecord,
    pub trail: TrailSummary,
    /// Runs that took this one back.
    pub undone_by: Vec<String>,
}

impl RunRecord {
    pub fn outcome_text(&self) -> &str {
        self.outcome.as_deref().unwrap_or("not ended")
    }
}

impl TableRecord {
    /// How many columns the plan compared, and which have no partner.
    pub fn columns(&self) -> Option<&ColumnCoverage> {
        self.plan.as_ref().map(|plan| &plan.coverage)
    }

    pub fn name(&self) -> String {
        if self.source_table == self.target_table {
            self.source_table.clone()
        } else {
            format!("{} = {}", self.source_table, self.target_table)
        }
    }

    pub fn seconds(&self) -> f64 {
        let seconds = &self.outcome.seconds;
        seconds.scan + seconds.locate + seconds.recheck + seconds.repair + seconds.verify
    }
}
