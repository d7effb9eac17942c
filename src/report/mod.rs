//! What a run found and did, as plain data: the JSON that `--format json` prints. `docs/json.md` documents it.

use serde::{Deserialize, Serialize};

use crate::agent::{Difference, TableOutcome};
use crate::model::{ColumnCoverage, Plan};

pub mod backfill;
pub mod checks;
pub mod export;
pub mod page;
pub mod record;
pub mod render;
mod set_aside;
mod steps_page;
pub mod undo;
mod would_write;

pub use set_aside::SetAside;
pub use would_write::WouldWrite;

/// Raised when a field changes its meaning or goes; new fields alone do not raise it.
pub const SCHEMA_VERSION: u32 = 2;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    pub schema_version: u32,
    pub software: String,
    pub command: String,
    /// The run's id in the ledger; `None` where there is none.
    pub run: Option<String>,
    /// The end of the audit trail after the run, to be noted elsewhere: `SEQ:HASH`.
    pub audit_head: Option<String>,
    /// The endpoints, without secrets.
    pub source: String,
    pub target: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    pub seconds: f64,
    pub verdict: Verdict,
    pub tables: Vec<TableReport>,
    /// Tables that only one side has, where all tables were asked for.
    pub only_in_source: Vec<String>,
    pub only_in_target: Vec<String>,
    /// What was not compared though all tables were asked for: side, kind and name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Where the run ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
    /// Of a run that failed after it had written: how to go on, and how to take it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Proved the same; after a repair: proved the same by now.
    Same,
    Different,
    /// Something could not be told: an error, or rows that would not hold still. Never to be read as "the same".
    Unknown,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Different => "different",
            Self::Unknown => "unknown",
        }
    }

    /// As diff(1): 0 the same, 1 differences, 2 could not tell.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Same => 0,
            Self::Different => 1,
            Self::Unknown => 2,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TableReport {
    pub source_table: String,
    pub target_table: String,
    pub verdict: Verdict,
    #[serde(flatten)]
    pub outcome: TableOutcome,
    /// How many columns were compared, and which have no partner.
    pub columns: ColumnCoverage,
    pub warnings: Vec<String>,
    pub error: Option<TableError>,
    /// At most as many as were asked for; the counts are always whole.
    pub differences: Vec<Difference>,
    pub rows_set_aside: Vec<SetAside>,
    /// What both sides agreed on, for the ledger.
    #[serde(skip)]
    pub plan: Option<Plan>,
    #[serde(skip)]
    pub statements: Vec<String>,
    /// Nothing was written, because a table that it refers to was not repaired.
    pub held_back: bool,
    /// Of a dry run: what a repair would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_write: Option<WouldWrite>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableError {
    pub kind: String,
    pub side: Option<String>,
    pub message: String,
    pub hint: Option<String>,
}

/// A run that ended early: why, what it had written by then, and how to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stopped {
    pub message: String,
    pub hint: Option<String>,
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
    /// Rows that were on their way, written or not.
    pub unknown: u64,
}

impl TableReport {
    pub fn new(source_table: &str, target_table: &str) -> Self {
        Self {
            source_table: source_table.to_owned(),
            target_table: target_table.to_owned(),
            verdict: Verdict::Unknown,
            outcome: TableOutcome::default(),
            columns: ColumnCoverage::default(),
            warnings: Vec::new(),
            error: None,
            differences: Vec::new(),
            rows_set_aside: Vec::new(),
            plan: None,
            statements: Vec::new(),
            held_back: false,
            would_write: None,
        }
    }

    /// A table whose plan is agreed on.
    pub fn planned(plan: &Plan) -> Self {
        Self {
            columns: plan.coverage.clone(),
            warnings: plan.warnings.clone(),
            plan: Some(plan.clone()),
            ..Self::new(&plan.source.to_string(), &plan.target.to_string())
        }
    }

    /// The verdict that the outcome and the columns bear out. `repaired`: the run wrote.
    pub fn judge(&mut self, repaired: bool) {
        let rows = self.rows_verdict(repaired);
        self.verdict = if self.columns.differs() { rows.max(Verdict::Different) } else { rows };
    }

    /// Of the columns that were compared.
    fn rows_verdict(&self, repaired: bool) -> Verdict {
        let outcome = &self.outcome;
        if self.error.is_some() {
            Verdict::Unknown
        } else if repaired {
            match outcome.proved {
                true => Verdict::Same,
                false if outcome.left + outcome.set_aside > 0 || outcome.over_limit => Verdict::Different,
                false => Verdict::Unknown,
            }
        } else if outcome.differences() > 0 {
            Verdict::Different
        } else if outcome.unsettled > 0 || !outcome.proved {
            Verdict::Unknown
        } else {
            Verdict::Same
        }
    }

    pub fn name(&self) -> String {
        if self.source_table == self.target_table {
            self.source_table.clone()
        } else {
            format!("{} = {}", self.source_table, self.target_table)
        }
    }
}

/// The worst of the tables' verdicts; a table that only one side has is a difference.
pub fn overall(tables: &[TableReport], unpaired: usize) -> Verdict {
    let worst = tables.iter().map(|table| table.verdict).max().unwrap_or(Verdict::Same);
    if unpaired > 0 { worst.max(Verdict::Different) } else { worst }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UnpairedColumn;

    fn judged(change: impl Fn(&mut TableReport), repaired: bool) -> Verdict {
        let mut table = TableReport::new("a", "a");
        table.outcome.proved = true;
        change(&mut table);
        table.judge(repaired);
        table.verdict
    }

    #[test]
    fn nothing_unproved_is_the_same() {
        assert_eq!(judged(|_| {}, false), Verdict::Same);
        assert_eq!(judged(|t| t.outcome.proved = false, false), Verdict::Unknown);
        assert_eq!(judged(|t| t.outcome.unsettled = 1, false), Verdict::Unknown);
        assert_eq!(judged(|t| t.outcome.missing = 1, false), Verdict::Different);
        assert_eq!(judged(|t| t.outcome.missing = 1, true), Verdict::Same);
        assert_eq!(judged(|t| (t.outcome.left, t.outcome.proved) = (1, false), true), Verdict::Different);
        assert_eq!(judged(|t| t.outcome.proved = false, true), Verdict::Unknown);
        let error = TableError { kind: "usage".into(), side: None, message: String::new(), hint: None };
        assert_eq!(judged(|t| t.error = Some(error.clone()), false), Verdict::Unknown);
    }

    #[test]
    fn a_column_without_a_partner_is_a_difference() {
        let column =
            |accepted| UnpairedColumn { side: crate::model::Role::Source, name: "a".to_owned(), accepted };
        let with = |accepted| move |t: &mut TableReport| t.columns.unpaired = vec![column(accepted)];
        for repaired in [false, true] {
            assert_eq!(judged(with(false), repaired), Verdict::Different);
            assert_eq!(judged(with(true), repaired), Verdict::Same);
        }
        let unproved = |t: &mut TableReport| {
            with(false)(t);
            t.outcome.proved = false;
        };
        assert_eq!(judged(unproved, false), Verdict::Unknown);
    }

    #[test]
    fn the_worst_table_decides() {
        let table = |verdict| TableReport { verdict, ..TableReport::new("a", "a") };
        assert_eq!(overall(&[], 0), Verdict::Same);
        assert_eq!(overall(&[table(Verdict::Same)], 1), Verdict::Different);
        assert_eq!(overall(&[table(Verdict::Unknown), table(Verdict::Different)], 0), Verdict::Unknown);
    }
}
