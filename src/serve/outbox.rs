//! Sends what waits: in the order of each channel, together what came together, again what could not be sent.

use std::time::Duration;

use jiff::Timestamp;

use super::channel::{Channel, Post};
use super::message::Item;
use super::{Ground, Metrics, text};
use crate::config::AlertSpec;
use crate::ledger::{BatchClaim, Ledger, LedgerError};

/// Longer than sending a batch takes.
const LEASE: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Messages that are sent together; what comes behind them is a batch of its own.
const BATCH_MAX: u64 = 200;
/// Batches of a channel that are sent one after the other before others are looked at.
const BATCHES_A_ROUND: usize = 20;
/// Before so many attempts nothing is given up, whatever its age: a clock may have been set.
const ATTEMPTS_MIN: u64 = 10;

#[derive(Debug)]
pub struct Sender {
    pub ledger: Ledger,
    pub owner: String,
    pub ground: Ground,
    pub post: Post,
    pub metrics: Metrics,
}

/// The pause after so many attempts: twice as long each time, and never the same for all who wait.
pub(super) fn pause(retry: Duration, attempts: u64, chance: f64) -> Duration {
    let doubled = 1u32.checked_shl(u32::try_from(attempts.min(16)).unwrap_or(16)).unwrap_or(u32::MAX);
    let pause = retry.saturating_mul(doubled).min(PAUSE_MAX.max(retry));
    pause.mul_f64(0.8 + 0.4 * chance.clamp(0.0, 1.0))
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_add(by).unwrap_or(now)
}

impl Sender {
    /// Sends what is due in one channel; how many batches went out.
    pub async fn flush(&self, channel: &Channel, spec: &AlertSpec) -> Result<usize, LedgerError> {
        for sent in 0..BATCHES_A_ROUND {
            if !self.flush_batch(channel, spec).await? {
                return Ok(sent);
            }
        }
        Ok(BATCHES_A_ROUND)
    }

    /// The next batch. `false`: none was due, or it could not be sent.
    async fn flush_batch(&self, channel: &Channel, spec: &AlertSpec) -> Result<bool, LedgerError> {
        let now = (self.ground.now)();
        let longest =
            [spec.group, PAUSE_MAX.max(spec.retry).mul_f64(1.2), LEASE].into_iter().max().unwrap_or(LEASE);
        let claim = BatchClaim {
            owner: &self.owner,
            now: &text(now),
            until: &text(later(now, LEASE)),
            batch: &(self.ground.id)(),
            most: if channel.takes_many() { BATCH_MAX } else { 1 },
            latest: &text(later(now, longest + LEASE)),
        };
        let mut rows = self.ledger.claim_batch(&channel.name, &claim).await?;
        let mut items: Vec<Item> = Vec::with_capacity(rows.len());
        let mut unreadable = Vec::new();
        rows.retain(|row| match serde_json::from_str(&row.body) {
            Ok(item) => {
                items.push(item);
                true
            }
            Err(_) => {
                unreadable.push(row.id.clone());
                false
            }
        });
        if !unreadable.is_empty() {
            // Nobody could read it later either: it must not hold up what comes behind it.
            self.metrics.failure("outbox");
            tracing::error!(
                channel = channel.name,
                "{} messages cannot be read and are given up",
                unreadable.len()
            );
            self.ledger.not_sent(&unreadable, &text(now), None, "the message cannot be read").await?;
        }
        let Some(first) = rows.first() else { return Ok(!unreadable.is_empty()) };
        let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
        // Of a batch that was tried before: the same id, the same time, the same messages.
        let delivery = first.batch.as_deref().unwrap_or(&first.id);
        let at = first.batch_at.as_deref().unwrap_or(&first.created_at);
        let outcome = self.post.send(channel, &items, delivery, at, &text((self.ground.now)())).await;
        let now = (self.ground.now)();
        let Err(error) = outcome else {
            self.metrics.alert(&channel.name, true);
            self.ledger.sent(&ids, &text(now)).await?;
            return Ok(true);
        };
        self.metrics.alert(&channel.name, false);
        let attempts = first.attempts;
        let age = first.created_at.parse::<Timestamp>().map(|created| now.duration_since(created));
        let is_old = age.is_ok_and(|age| age.is_positive() && age.unsigned_abs() > spec.give_up);
        let next = later(now, pause(spec.retry, attempts, (self.ground.chance)()));
        let gives_up = is_old && attempts + 1 >= ATTEMPTS_MIN;
        if gives_up {
            tracing::error!(channel = channel.name, "{} alerts are given up: {error}", ids.len());
        } else {
            tracing::warn!(channel = channel.name, attempts, "an alert could not be sent: {error}");
        }
        let next = (!gives_up).then(|| text(next));
        self.ledger.not_sent(&ids, &text(now), next.as_deref(), &error).await?;
        Ok(gives_up)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pauses_grow_and_are_bounded(attempts in 0u64..100, chance in 0.0f64..=1.0, retry in 1u64..20) {
            let retry = Duration::from_secs(retry);
            let this = pause(retry, attempts, 0.5);
            prop_assert!(pause(retry, attempts + 1, 0.5) >= this);
            prop_assert!(pause(retry, attempts, chance) <= PAUSE_MAX.mul_f64(1.21));
            prop_assert!(pause(retry, attempts, chance) >= retry.mul_f64(0.79));
        }
    }
}
