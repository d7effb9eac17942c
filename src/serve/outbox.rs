//! Sends what waits: in the order of each channel, together what came together, again what could not be sent.

use std::time::Duration;

use jiff::Timestamp;

use super::channel::{Channel, Post};
use super::message::Item;
use super::{Ground, Metrics, text};
use crate::config::AlertSpec;
use crate::ledger::{Ledger, LedgerError, OutboxRow};

/// Longer than sending takes.
const LEASE: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(60);

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
    /// Sends what is due in one channel; how many messages went out.
    pub async fn flush(&self, channel: &Channel, spec: &AlertSpec) -> Result<usize, LedgerError> {
        let now = (self.ground.now)();
        let until = text(later(now, LEASE));
        let rows = self.ledger.claim_outbox(&channel.name, &self.owner, &text(now), &until).await?;
        let mut sent = 0;
        let groups: Vec<&[OutboxRow]> = if channel.takes_many() {
            rows.chunks(rows.len().max(1)).collect()
        } else {
            rows.chunks(1).collect()
        };
        let mut broken = false;
        for group in groups {
            let ids: Vec<String> = group.iter().map(|row| row.id.clone()).collect();
            let items: Vec<Item> =
                group.iter().filter_map(|row| serde_json::from_str(&row.body).ok()).collect();
            let (Some(first), false) = (group.first(), items.is_empty()) else { continue };
            // Those behind one that failed wait with it: a resolved never comes before its firing.
            let outcome = match broken {
                true => Err("an earlier message waits".to_owned()),
                false => self.post.send(channel, &items, &first.id, &text((self.ground.now)())).await,
            };
            let now = (self.ground.now)();
            match outcome {
                Ok(()) => {
                    self.metrics.alert(&channel.name, true);
                    self.ledger.sent(&ids, &text(now)).await?;
                    sent += 1;
                }
                Err(error) => {
                    broken = true;
                    self.metrics.alert(&channel.name, false);
                    let attempts = first.attempts;
                    let too_old = first
                        .created_at
                        .parse::<Timestamp>()
                        .is_ok_and(|created| now.duration_since(created).unsigned_abs() > spec.give_up);
                    let next = later(now, pause(spec.retry, attempts, (self.ground.chance)()));
                    if too_old {
                        tracing::error!(channel = channel.name, "{} alerts are given up: {error}", ids.len());
                    } else {
                        tracing::warn!(
                            channel = channel.name,
                            attempts,
                            "an alert could not be sent: {error}"
                        );
                    }
                    let next = (!too_old).then(|| text(next));
                    self.ledger.not_sent(&ids, &text(now), next.as_deref(), &error).await?;
                }
            }
        }
        Ok(sent)
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
