//! Runs that have begun and have not ended: which live, and the end of those that died.

use super::chain::{Entry, EntryKind};
use super::json::json;
use super::runs::{RUN_COLUMNS, RunStart, begun, entry, seal};
use super::store::{Cell, Step, StoreError, query};
use super::{Ledger, LedgerError};

/// A run without an end.
#[derive(Debug, Clone)]
pub struct OpenRun {
    pub start: RunStart,
    /// When its process said last that it lives; where it never did, when the run began.
    pub seen_at: String,
    beat_at: Option<String>,
}

impl Ledger {
    pub async fn open_runs(&self) -> Result<Vec<OpenRun>, LedgerError> {
        let sql = format!(
            "SELECT {RUN_COLUMNS}, process, beat_at FROM trueup_runs WHERE ended_at IS NULL ORDER BY started_at"
        );
        let rows = query(self.store.as_ref(), sql, Vec::new()).await?;
        let open = rows.into_iter().map(|mut row| {
            let (start, _) = begun(&mut row);
            let start = RunStart { process: row.text(), ..start };
            let beat_at = row.maybe_text();
            OpenRun { seen_at: beat_at.clone().unwrap_or_else(|| start.started_at.clone()), start, beat_at }
        });
        Ok(open.collect())
    }

    /// The run lives. `false`: the ledger has its end already.
    pub async fn beat(&self, run: &str, at: &str) -> Result<bool, LedgerError> {
        let sql = "UPDATE trueup_runs SET beat_at = $1 WHERE id = $2 AND ended_at IS NULL";
        let done = self.store.run(vec![Step::execute(sql, vec![Cell::text(at), Cell::text(run)])]).await?;
        Ok(done.first().is_some_and(|given| given.changed == 1))
    }

    /// Notes that a run died without an end, with an entry of its own in the trail. `false`: it has ended or shown a sign of
    /// life since it was looked at. `by` says who noted it.
    pub async fn abandon(
        &self,
        run: &OpenRun,
        by: &RunStart,
        at: &str,
        why: &str,
    ) -> Result<bool, LedgerError> {
        let end = vec![
            Cell::text(at),
            Cell::text("abandoned"),
            Cell::text(why),
            Cell::text("[]"),
            Cell::text("[]"),
        ];
        let detail =
            serde_json::json!({ "tables": 0, "record": seal(&run.start, &end, &[], &[]), "why": why });
        let entry = Entry {
            who: by.who.clone(),
            host: by.host.clone(),
            operation: run.start.kind.clone(),
            outcome: "abandoned".to_owned(),
            detail: json(&detail),
            ..entry(&run.start, at, EntryKind::End)
        };
        let mut cells = end;
        cells.extend([Cell::text(&run.start.id), Cell::text(run.beat_at.clone().unwrap_or_default())]);
        let update = Step::one_change(
            "UPDATE trueup_runs SET ended_at = $1, outcome = $2, error = $3, only_in_source = $4, only_in_target = $5
             WHERE id = $6 AND ended_at IS NULL AND COALESCE(beat_at, '') = $7",
            cells,
        );
        match self.append_with(vec![entry], &[update]).await {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict(_)) => Ok(false),
            Err(StoreError::Failed(error)) => Err(error),
        }
    }
}
