//! What is wrong at present, by check and table; a change of it and the messages about it are one transaction.

use serde::{Deserialize, Serialize};

use super::json::{json, parsed};
use super::store::{Cell, Row, Step, places, query};
use super::{Ledger, LedgerError};
use crate::report::checks::CheckResult;

const COLUMNS: &str = "key, state, opened_at, seen_at, resolved_at, told_at, failures, passes, flaps, run, result, first, worst";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentState {
    /// Could not tell, once: not told yet.
    Pending,
    Open,
    Resolved,
}

impl IncidentState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Open => "open",
            Self::Resolved => "resolved",
        }
    }
}

/// What a run found when a check failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    pub run: String,
    /// RFC 3339.
    pub at: String,
    pub result: CheckResult,
}

/// A check of a table that does not hold, or did not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Name of the check, and its table.
    pub key: String,
    pub state: IncidentState,
    /// RFC 3339, as all times here.
    pub opened_at: String,
    pub seen_at: String,
    pub resolved_at: Option<String>,
    pub told_at: Option<String>,
    /// Since it was opened, one after the other.
    pub failures: u64,
    /// One after the other, at the end.
    pub passes: u64,
    /// How often it came again shortly after it was resolved.
    pub flaps: u64,
    /// The run that saw it last, and what that run found: the failure, or how it passed again.
    pub run: String,
    pub result: CheckResult,
    /// What was found when it was opened, and when it was at its worst.
    pub first: Finding,
    pub worst: Finding,
}

/// A message to one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub id: String,
    pub channel: String,
    pub incident: String,
    pub body: String,
    pub created_at: String,
    pub next_at: String,
}

impl Ledger {
    pub async fn incident(&self, key: &str) -> Result<Option<Incident>, LedgerError> {
        let sql = format!("SELECT {COLUMNS} FROM trueup_incidents WHERE key = $1");
        let rows = query(self.store.as_ref(), sql, vec![Cell::text(key)]).await?;
        rows.into_iter().next().map(incident).transpose()
    }

    /// The newest first; only those open where asked for.
    pub async fn incidents(&self, open: bool, limit: u64) -> Result<Vec<Incident>, LedgerError> {
        let only = if open { "WHERE state = 'open'" } else { "WHERE state <> 'pending'" };
        let sql =
            format!("SELECT {COLUMNS} FROM trueup_incidents {only} ORDER BY seen_at DESC, key LIMIT $1");
        let rows = query(self.store.as_ref(), sql, vec![Cell::count(limit)]).await?;
        rows.into_iter().map(incident).collect()
    }

    /// Notes what became of an incident, and what is to be told of it.
    pub async fn note(&self, incident: &Incident, notices: &[Notice]) -> Result<(), LedgerError> {
        Ok(self.store.run(note_steps(incident, notices)).await.map(drop)?)
    }
}

pub(super) fn note_steps(incident: &Incident, notices: &[Notice]) -> Vec<Step> {
    let cells = vec![
        Cell::text(&incident.key),
        Cell::text(incident.state.as_str()),
        Cell::text(&incident.opened_at),
        Cell::text(&incident.seen_at),
        Cell::Text(incident.resolved_at.clone()),
        Cell::Text(incident.told_at.clone()),
        Cell::count(incident.failures),
        Cell::count(incident.passes),
        Cell::count(incident.flaps),
        Cell::text(&incident.run),
        Cell::text(json(&incident.result)),
        Cell::text(json(&incident.first)),
        Cell::text(json(&incident.worst)),
    ];
    let delete = "DELETE FROM trueup_incidents WHERE key = $1";
    let insert = format!("INSERT INTO trueup_incidents ({COLUMNS}) VALUES {}", places(1, 13));
    let mut steps =
        vec![Step::execute(delete, vec![Cell::text(&incident.key)]), Step::execute(insert, cells)];
    steps.extend(notices.iter().map(|notice| {
        Step::execute(
            "INSERT INTO trueup_outbox (id, channel, incident, body, created_at, next_at, attempts)
             VALUES ($1, $2, $3, $4, $5, $6, 0)",
            vec![
                Cell::text(&notice.id),
                Cell::text(&notice.channel),
                Cell::text(&notice.incident),
                Cell::text(&notice.body),
                Cell::text(&notice.created_at),
                Cell::text(&notice.next_at),
            ],
        )
    }));
    steps
}

fn incident(mut row: Row) -> Result<Incident, LedgerError> {
    let (key, state) = (row.text(), row.text());
    let state = match state.as_str() {
        "pending" => IncidentState::Pending,
        "open" => IncidentState::Open,
        _ => IncidentState::Resolved,
    };
    let (opened_at, seen_at) = (row.text(), row.text());
    let (resolved_at, told_at) = (row.maybe_text(), row.maybe_text());
    let [failures, passes, flaps] = [(); 3].map(|()| row.int().unsigned_abs());
    let (run, result) = (row.text(), row.text());
    let result: CheckResult = parsed("of an incident", &result)?;
    // One that was noted by an earlier release has only its last.
    let mut finding = || match row.maybe_text() {
        Some(text) => parsed("of an incident", &text),
        None => Ok(Finding { run: run.clone(), at: seen_at.clone(), result: result.clone() }),
    };
    let (first, worst) = (finding()?, finding()?);
    Ok(Incident {
        key,
        state,
        opened_at,
        seen_at,
        resolved_at,
        told_at,
        failures,
        passes,
        flaps,
        run,
        result,
        first,
        worst,
    })
}
