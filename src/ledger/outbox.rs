//! Messages that wait to be sent: none is lost by a crash, and those of a channel go out in their order.

use super::store::{Cell, Row, Step, StoreError, query};
use super::{Ledger, LedgerError};

const COLUMNS: &str = "id, channel, incident, body, created_at, attempts, sent_at, given_up_at, error";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    pub id: String,
    pub channel: String,
    pub incident: String,
    pub body: String,
    /// RFC 3339, as all times here.
    pub created_at: String,
    pub attempts: u64,
    pub sent_at: Option<String>,
    pub given_up_at: Option<String>,
    pub error: Option<String>,
}

impl Ledger {
    /// Takes all that waits for a channel, if some of it is due, none of it waits after a failure, and nobody is sending.
    pub async fn claim_outbox(
        &self,
        channel: &str,
        owner: &str,
        now: &str,
        until: &str,
    ) -> Result<Vec<OutboxRow>, LedgerError> {
        let waiting = "channel = $3 AND sent_at IS NULL AND given_up_at IS NULL";
        let claim = format!(
            "UPDATE trueup_outbox SET owner = $1, lease_until = $2 WHERE id IN
             (SELECT id FROM trueup_outbox WHERE {waiting}
              AND EXISTS (SELECT 1 FROM trueup_outbox WHERE {waiting} AND next_at <= $4)
              AND NOT EXISTS (SELECT 1 FROM trueup_outbox WHERE {waiting} AND (lease_until >= $4 OR attempts > 0 AND next_at > $4)){})",
            self.store.skip_locked()
        );
        let steps = vec![
            Step::execute(
                claim,
                vec![Cell::text(owner), Cell::text(until), Cell::text(channel), Cell::text(now)],
            ),
            Step::query(
                format!(
                    "SELECT {COLUMNS} FROM trueup_outbox WHERE channel = $1 AND owner = $2 AND lease_until = $3
                     AND sent_at IS NULL AND given_up_at IS NULL ORDER BY created_at, id"
                ),
                vec![Cell::text(channel), Cell::text(owner), Cell::text(until)],
            ),
        ];
        match self.store.run(steps).await {
            Ok(mut given) => Ok(given.pop().unwrap_or_default().rows.into_iter().map(outbox_row).collect()),
            Err(StoreError::Conflict) => Ok(Vec::new()),
            Err(StoreError::Failed(error)) => Err(error),
        }
    }

    pub async fn sent(&self, ids: &[String], now: &str) -> Result<(), LedgerError> {
        let steps = ids.iter().map(|id| {
            Step::execute(
                "UPDATE trueup_outbox SET sent_at = $1, attempts = attempts + 1, owner = NULL, lease_until = NULL, error = NULL
                 WHERE id = $2",
                vec![Cell::text(now), Cell::text(id)],
            )
        });
        self.store.run(steps.collect()).await.map(drop).map_err(Into::into)
    }

    /// Not sent: tried again at `next`, or never where there is none.
    pub async fn not_sent(
        &self,
        ids: &[String],
        now: &str,
        next: Option<&str>,
        error: &str,
    ) -> Result<(), LedgerError> {
        let steps = ids.iter().map(|id| {
            let given_up = if next.is_none() { Some(now.to_owned()) } else { None };
            Step::execute(
                "UPDATE trueup_outbox SET next_at = $1, given_up_at = $2, error = $3, attempts = attempts + 1, owner = NULL,
                 lease_until = NULL WHERE id = $4",
                vec![Cell::text(next.unwrap_or(now)), Cell::Text(given_up), Cell::text(error), Cell::text(id)],
            )
        });
        self.store.run(steps.collect()).await.map(drop).map_err(Into::into)
    }

    /// The newest first.
    pub async fn outbox(&self, limit: u64) -> Result<Vec<OutboxRow>, LedgerError> {
        let sql = format!("SELECT {COLUMNS} FROM trueup_outbox ORDER BY created_at DESC, id DESC LIMIT $1");
        let rows = query(self.store.as_ref(), sql, vec![Cell::count(limit)]).await?;
        Ok(rows.into_iter().map(outbox_row).collect())
    }

    /// Messages that wait, and those given up.
    pub async fn outbox_depth(&self) -> Result<(u64, u64), LedgerError> {
        let sql = "SELECT count(*), count(given_up_at) FROM trueup_outbox WHERE sent_at IS NULL";
        let rows = query(self.store.as_ref(), sql, Vec::new()).await?;
        Ok(rows.into_iter().next().map_or((0, 0), |mut row| {
            let (all, given_up) = (row.int().unsigned_abs(), row.int().unsigned_abs());
            (all - given_up.min(all), given_up)
        }))
    }

    /// Removes what was sent or given up before this time.
    pub async fn prune_outbox(&self, before: &str) -> Result<u64, LedgerError> {
        let sql = "DELETE FROM trueup_outbox WHERE created_at < $1 AND (sent_at IS NOT NULL OR given_up_at IS NOT NULL)";
        let done = self.store.run(vec![Step::execute(sql, vec![Cell::text(before)])]).await?;
        Ok(done.first().map_or(0, |given| given.changed))
    }
}

fn outbox_row(mut row: Row) -> OutboxRow {
    OutboxRow {
        id: row.text(),
        channel: row.text(),
        incident: row.text(),
        body: row.text(),
        created_at: row.text(),
        attempts: row.int().unsigned_abs(),
        sent_at: row.maybe_text(),
        given_up_at: row.maybe_text(),
        error: row.maybe_text(),
    }
}
