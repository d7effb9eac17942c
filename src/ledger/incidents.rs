//! What is wrong at present, by check and table; a change of it and the messages about it are one transaction.

use serde::{Deserialize, Serialize};

use super::runs::{json, parsed};
use super::store::{Cell, Row, Step, StoreError, query};
use super::{Ledger, LedgerError};
use crate::report::checks::CheckResult;

const COLUMNS: &str =
    "key, state, opened_at, seen_at, resolved_at, told_at, failures, passes, flaps, run, result";

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
    /// The last run that saw it fail, and what that run found.
    pub run: String,
    pub result: CheckResult,
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
        ];
        let delete = "DELETE FROM trueup_incidents WHERE key = $1";
        let insert = format!(
            "INSERT INTO trueup_incidents ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
        );
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
        self.store.run(steps).await.map(drop).map_err(|error| match error {
            StoreError::Failed(error) => error,
            conflict @ StoreError::Conflict => conflict.into(),
        })
    }
}

fn incident(mut row: Row) -> Result<Incident, LedgerError> {
    let (key, state) = (row.text(), row.text());
    let state = match state.as_str() {
        "pending" => IncidentState::Pending,
        "open" => IncidentState::Open,
        _ => IncidentState::Resolved,
    };
    Ok(Incident {
        key,
        state,
        opened_at: row.text(),
        seen_at: row.text(),
        resolved_at: row.maybe_text(),
        told_at: row.maybe_text(),
        failures: row.int().unsigned_abs(),
        passes: row.int().unsigned_abs(),
        flaps: row.int().unsigned_abs(),
        run: row.text(),
        result: {
            let text = row.text();
            parsed("of an incident", &text)?
        },
    })
}
