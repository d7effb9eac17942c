//! Messages that wait to be sent: none is lost by a crash, and those of a channel go out in their order.

use super::store::{Cell, Row, Step, query};
use super::{Ledger, LedgerError};

const COLUMNS: &str =
    "id, channel, incident, body, created_at, attempts, sent_at, given_up_at, error, batch, batch_at";

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
    /// The messages that it is sent with, from the first attempt on, and the time of that attempt.
    pub batch: Option<String>,
    pub batch_at: Option<String>,
}

/// Who takes the next batch of a channel, and when.
#[derive(Debug, Clone)]
pub struct BatchClaim<'a> {
    pub owner: &'a str,
    pub now: &'a str,
    /// Until when nobody else sends it.
    pub until: &'a str,
    /// The id of the batch, where a new one is begun.
    pub batch: &'a str,
    /// Messages of a batch.
    pub most: u64,
    /// No message waits longer than until then, and no sender's lease is longer, unless the clock was set back.
    pub latest: &'a str,
}

impl Ledger {
    /// The next batch of a channel that is to be sent; empty where none is due, one waits after a failure, or somebody is
    /// sending. A batch never changes: messages that come later form one of their own, and wait for those before them.
    pub async fn claim_batch(
        &self,
        channel: &str,
        claim: &BatchClaim<'_>,
    ) -> Result<Vec<OutboxRow>, LedgerError> {
        let waiting = "channel = $1 AND sent_at IS NULL AND given_up_at IS NULL";
        let channel = || Cell::text(channel);
        let (owner, now, until) =
            (|| Cell::text(claim.owner), || Cell::text(claim.now), || Cell::text(claim.until));
        let steps = vec![
            // Two that claim at the same moment come one after the other.
            Step::execute(
                format!(
                    "UPDATE trueup_outbox SET attempts = attempts WHERE id =
                         (SELECT id FROM trueup_outbox WHERE {waiting} ORDER BY created_at, id LIMIT 1)"
                ),
                vec![channel()],
            ),
            Step::execute(
                format!("UPDATE trueup_outbox SET next_at = $2 WHERE {waiting} AND next_at > $3"),
                vec![channel(), now(), Cell::text(claim.latest)],
            ),
            Step::execute(
                format!(
                    "UPDATE trueup_outbox SET owner = NULL, lease_until = NULL WHERE {waiting} AND lease_until > $2"
                ),
                vec![channel(), Cell::text(claim.latest)],
            ),
            Step::execute(
                format!(
                    "UPDATE trueup_outbox SET batch = $2, batch_at = $3 WHERE id IN
                     (SELECT id FROM trueup_outbox WHERE {waiting}
                      AND NOT EXISTS (SELECT 1 FROM trueup_outbox WHERE {waiting} AND batch IS NOT NULL)
                      AND EXISTS (SELECT 1 FROM trueup_outbox WHERE {waiting} AND next_at <= $3)
                      ORDER BY created_at, id LIMIT $4)"
                ),
                vec![channel(), Cell::text(claim.batch), now(), Cell::count(claim.most)],
            ),
            Step::execute(
                format!(
                    "UPDATE trueup_outbox SET owner = $2, lease_until = $3 WHERE {waiting}
                     AND batch = (SELECT batch FROM trueup_outbox WHERE {waiting} AND batch IS NOT NULL
                                  ORDER BY created_at, id LIMIT 1)
                     AND NOT EXISTS (SELECT 1 FROM trueup_outbox WHERE {waiting}
                                     AND (lease_until >= $4 OR attempts > 0 AND next_at > $4))"
                ),
                vec![channel(), owner(), until(), now()],
            ),
            Step::query(
                format!(
                    "SELECT {COLUMNS} FROM trueup_outbox WHERE {waiting} AND owner = $2 AND lease_until = $3 ORDER BY created_at, id"
                ),
                vec![channel(), owner(), until()],
            ),
        ];
        let mut given = self.store.run(steps).await?;
        Ok(given.pop().unwrap_or_default().rows.into_iter().map(outbox_row).collect())
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
        batch: row.maybe_text(),
        batch_at: row.maybe_text(),
    }
}
