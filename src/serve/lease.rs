//! Leases while a run goes on: renewed in time, or the run is stopped; and those whose holder is gone.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::text;
use crate::ledger::{Lease, Ledger, ScheduleRow};

/// How often it is looked whether a lease is to be renewed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why a run may not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// Another coordinator has claimed the check.
    Taken,
    /// The ledger did not answer for so long that another may claim it any moment.
    NotRenewed,
}

/// Renews leases that were claimed at `claimed`, for as long as it is polled; ends when the run must end. By the monotonic
/// clock that is at three quarters of the lease since the last renewal, whatever the ledger does: the last quarter is for
/// the run to stop in.
pub(super) async fn keep(
    ledger: &Ledger,
    leases: &[Lease],
    length: Duration,
    claimed: Instant,
    now: fn() -> Timestamp,
) -> Lost {
    let most = length * 3 / 4;
    let mut renewed = (claimed, now());
    loop {
        tokio::time::sleep(LOOK_EVERY.min(length / 6)).await;
        // A machine that slept shows it by the clock of the wall alone.
        let by_wall = now().duration_since(renewed.1).unsigned_abs();
        if renewed.0.elapsed() < length / 3 && by_wall < length / 3 {
            continue;
        }
        let began = (Instant::now(), now());
        let until = text(began.1.checked_add(length).unwrap_or(began.1));
        let left = most.saturating_sub(renewed.0.elapsed());
        match tokio::time::timeout(left, ledger.renew(leases, &until)).await {
            Ok(Ok(true)) => renewed = began,
            Ok(Ok(false)) => return Lost::Taken,
            // A ledger that does not answer for a moment is no loss yet.
            Ok(Err(_)) if renewed.0.elapsed() < most => {}
            Ok(Err(_)) | Err(_) => return Lost::NotRenewed,
        }
    }
}

/// Leases of others whose end cannot be told by the clock of the wall: it was set back since.
#[derive(Debug, Default)]
pub(super) struct Watch(Mutex<BTreeMap<String, (ScheduleRow, Instant)>>);

impl Watch {
    /// Those whose holder is gone: they end later than any lease of ours could, and nobody has renewed them for as long as a
    /// lease is; or they are our own, and we do not run the check (its end could not be noted).
    pub(super) fn gone(
        &self,
        rows: &[ScheduleRow],
        (owner, running): (&str, &[String]),
        now: Timestamp,
        length: Duration,
    ) -> Vec<ScheduleRow> {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = text(now.checked_add(length + length / 3).unwrap_or(now));
        let mut gone = Vec::new();
        let mut still = BTreeMap::new();
        for row in rows.iter().filter(|row| row.owner.is_some() && !running.contains(&row.name)) {
            if row.owner.as_deref() == Some(owner) {
                gone.push(row.clone());
                continue;
            }
            if row.lease_until.as_ref().is_none_or(|until| *until <= latest) {
                continue;
            }
            let is_same = |seen: &ScheduleRow| seen.owner == row.owner && seen.lease_until == row.lease_until;
            let since = watched.get(&row.name).filter(|(seen, _)| is_same(seen));
            let since = since.map_or_else(Instant::now, |(_, since)| *since);
            if since.elapsed() >= length {
                gone.push(row.clone());
            } else {
                still.insert(row.name.clone(), (row.clone(), since));
            }
        }
        *watched = still;
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(owner: &str, until: &str) -> ScheduleRow {
        ScheduleRow {
            name: "c".to_owned(),
            due: None,
            owner: Some(owner.to_owned()),
            lease_until: Some(until.to_owned()),
            last_run: None,
            last_at: None,
            last_status: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_of_the_dead_is_found_whatever_the_clock_says() {
        let now: Timestamp = "2026-01-01T00:00:00.000Z".parse().unwrap();
        let length = Duration::from_secs(60);
        let watch = Watch::default();
        let gone = |row: &ScheduleRow, running: &[String]| {
            !watch.gone(std::slice::from_ref(row), ("me", running), now, length).is_empty()
        };
        assert!(!gone(&row("you", "2026-01-01T00:01:10.000Z"), &[]), "it ends in time, by itself");
        assert!(gone(&row("me", "2026-01-01T00:00:50.000Z"), &[]), "nobody runs it here");
        assert!(!gone(&row("me", "2026-01-01T00:00:50.000Z"), &["c".to_owned()]));
        // Noted an hour ahead. One that is renewed lives, one that is not is over after the length of a lease.
        for minute in 1..5 {
            assert!(!gone(&row("you", &format!("2026-01-01T01:0{minute}:00.000Z")), &[]));
            tokio::time::advance(Duration::from_secs(50)).await;
        }
        assert!(!gone(&row("you", "2026-01-01T01:04:00.000Z"), &[]), "50 s");
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(gone(&row("you", "2026-01-01T01:04:00.000Z"), &[]), "61 s");
    }
}
