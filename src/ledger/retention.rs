//! Retention: what is older than a rule allows is removed; the trail's chain stays provable.

use super::chain::{Checkpoint, Entry, EntryKind};
use super::runs::{RunStart, entry};
use super::store::{Cell, Step, slow_query};
use super::{Ledger, LedgerError};

/// Entries that are removed in one transaction.
pub(super) const PART_MAX: i64 = 20_000;

/// What is kept. `None` keeps all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keep {
    /// Runs begun at this time or later (RFC 3339) are kept.
    pub runs_since: Option<String>,
    /// So many of the newest runs are kept in any case.
    pub last_runs: u64,
    /// Entries of the trail of this time or later are kept. Older ones go with what is behind them only: a run's entries
    /// stay whole.
    pub trail_since: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    pub runs: u64,
    pub entries: u64,
}

impl Ledger {
    /// What `prune` would remove.
    pub async fn prunable(&self, keep: &Keep) -> Result<Removed, LedgerError> {
        let runs = self.runs_to_remove(keep).await?.len() as u64;
        let mut entries = 0;
        if let Some((through, _)) = self.front_to_remove(keep).await? {
            let rows = slow_query(
                self.store.as_ref(),
                "SELECT count(*) FROM trueup_audit WHERE seq <= $1",
                vec![Cell::int(through)],
            )
            .await?;
            entries = rows.into_iter().next().map_or(0, |mut row| row.int().unsigned_abs());
        }
        Ok(Removed { runs, entries })
    }

    /// Removes what the rules do not keep. `start` says who did it, for the checkpoint in the trail.
    pub async fn prune(&self, keep: &Keep, start: &RunStart) -> Result<Removed, LedgerError> {
        let mut removed = Removed { runs: 0, entries: self.prunable(keep).await?.entries };
        let runs = self.runs_to_remove(keep).await?;
        for id in &runs {
            let done = self
                .store
                .run(
                    ["trueup_differences", "trueup_tables", "trueup_checks"]
                        .iter()
                        .map(|table| {
                            Step::execute(format!("DELETE FROM {table} WHERE run = $1"), vec![Cell::text(id)])
                                .slow()
                        })
                        .chain([Step::execute("DELETE FROM trueup_runs WHERE id = $1", vec![Cell::text(id)])])
                        .collect(),
                )
                .await?;
            removed.runs += done.last().map_or(0, |given| given.changed);
        }
        let front = self.front_to_remove(keep).await?;
        if removed.runs == 0 && front.is_none() {
            return Ok(removed);
        }
        let mut runs_removed = runs;
        loop {
            // Parts of a long front go one by one: others write to the ledger in between.
            let part = match &front {
                Some((through, _)) => self.part_of_front(*through).await?,
                None => None,
            };
            let checkpoint =
                part.as_ref().map(|(through, hash)| Checkpoint { through: *through, hash: hash.clone() });
            let runs = std::mem::take(&mut runs_removed);
            let detail = match &checkpoint {
                Some(checkpoint) => serde_json::json!({
                    "through": checkpoint.through, "hash": checkpoint.hash, "runs_removed": runs,
                }),
                None => serde_json::json!({ "runs_removed": runs }),
            };
            let entry = Entry {
                operation: "prune".to_owned(),
                detail: detail.to_string(),
                ..entry(start, &start.started_at, EntryKind::Checkpoint)
            };
            let delete: Vec<Step> = part
                .iter()
                .map(|(through, _)| {
                    Step::execute("DELETE FROM trueup_audit WHERE seq <= $1", vec![Cell::int(*through)])
                        .slow()
                })
                .collect();
            self.append_with(vec![entry], &delete).await?;
            if part.is_none()
                || part.map(|(through, _)| through) == front.as_ref().map(|(through, _)| *through)
            {
                return Ok(removed);
            }
        }
    }

    /// The last entry of the next part of the front, and its hash.
    async fn part_of_front(&self, through: i64) -> Result<Option<(i64, String)>, LedgerError> {
        let rows = slow_query(
            self.store.as_ref(),
            "SELECT seq, hash FROM trueup_audit WHERE seq <= $1 AND seq < (SELECT min(seq) FROM trueup_audit) + $2
             ORDER BY seq DESC LIMIT 1",
            vec![Cell::int(through), Cell::int(PART_MAX)],
        )
        .await?;
        Ok(rows.into_iter().next().map(|mut row| (row.int(), row.text())))
    }

    /// A run that has not ended stays: it may live, and if it died its end is still to be noted.
    async fn runs_to_remove(&self, keep: &Keep) -> Result<Vec<String>, LedgerError> {
        let Some(since) = &keep.runs_since else { return Ok(Vec::new()) };
        let rows = slow_query(
            self.store.as_ref(),
            "SELECT id FROM trueup_runs WHERE started_at < $1 AND ended_at IS NOT NULL AND id NOT IN
             (SELECT id FROM trueup_runs ORDER BY started_at DESC, id DESC LIMIT $2)",
            vec![Cell::text(since), Cell::count(keep.last_runs)],
        )
        .await?;
        Ok(rows.into_iter().map(|mut row| row.text()).collect())
    }

    /// The last entry of the front that may go, and its hash: all of it older than the rule, and of runs whose entries all
    /// lie in that front and have ended.
    async fn front_to_remove(&self, keep: &Keep) -> Result<Option<(i64, String)>, LedgerError> {
        let Some(since) = &keep.trail_since else { return Ok(None) };
        let store = self.store.as_ref();
        // The first entry that stays: the oldest that is new enough, or belongs to a run that has such an entry or no end.
        let rows = slow_query(
            store,
            "SELECT min(seq) FROM trueup_audit WHERE at >= $1
             OR (run <> '' AND kind <> 'checkpoint' AND run IN (SELECT run FROM trueup_audit WHERE at >= $2))
             OR (run <> '' AND kind <> 'checkpoint' AND run NOT IN (SELECT run FROM trueup_audit WHERE kind = 'end'))",
            vec![Cell::text(since), Cell::text(since)],
        )
        .await?;
        let stays = match rows.into_iter().next().and_then(|mut row| row.maybe_text()) {
            Some(text) => text.parse::<i64>().unwrap_or(0),
            // Everything is old: the head itself stays, so that the chain goes on from something that is there.
            None => self.head().await?.seq,
        };
        let rows = slow_query(
            store,
            "SELECT seq, hash FROM trueup_audit WHERE seq < $1 ORDER BY seq DESC LIMIT 1",
            vec![Cell::int(stays)],
        )
        .await?;
        Ok(rows.into_iter().next().map(|mut row| (row.int(), row.text())))
    }
}
