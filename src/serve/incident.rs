//! From one result to the next: when a failure is news, and when it is over.

use std::time::Duration;

use jiff::Timestamp;

use crate::ledger::{Finding, Incident, IncidentState};
use crate::report::checks::{CheckResult, Status};

/// What fails again so soon after it was resolved is the same thing coming and going.
const FLAP_WITHIN: Duration = Duration::from_secs(15 * 60);
/// So often it is told all the same; then it must hold for longer before it is told again.
const FLAPS_TOLD: u64 = 2;
const PASSES_AT_MOST: u64 = 5;

/// What is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Firing,
    Resolved,
    /// It still fails; told where a channel wants to be reminded.
    Goes,
}

/// By which an incident is known: in the ledger, and to those who are told.
pub fn key_of(result: &CheckResult) -> String {
    match &result.table {
        Some(table) => format!("{}/{table}", result.name),
        None => result.name.clone(),
    }
}

fn is_soon(earlier: Option<&str>, at: &str) -> bool {
    let parse = |text: &str| text.parse::<Timestamp>().ok();
    match (earlier.and_then(parse), parse(at)) {
        (Some(earlier), Some(at)) => at.duration_since(earlier).unsigned_abs() <= FLAP_WITHIN,
        _ => false,
    }
}

/// How bad a failure is, beside others of its check: one that was measured is worse than one that could not be.
fn rank(result: &CheckResult) -> (bool, f64) {
    (result.status == Status::Fail, result.extent.unwrap_or(0.0))
}

fn is_worse(new: &CheckResult, old: &CheckResult) -> bool {
    let (new, old) = (rank(new), rank(old));
    new.0.cmp(&old.0).then(new.1.total_cmp(&old.1)).is_gt()
}

/// The incident after a result; `None` where there is and was nothing wrong. "Could not tell" is told when it comes twice.
pub fn step(
    before: Option<Incident>,
    result: &CheckResult,
    run: &str,
    at: &str,
) -> Option<(Incident, Option<Change>)> {
    let found = || Finding { run: run.to_owned(), at: at.to_owned(), result: result.clone() };
    let fresh = |state, flaps, told: bool| Incident {
        key: key_of(result),
        state,
        opened_at: at.to_owned(),
        seen_at: at.to_owned(),
        resolved_at: None,
        told_at: told.then(|| at.to_owned()),
        failures: 1,
        passes: 0,
        flaps,
        run: run.to_owned(),
        result: result.clone(),
        first: found(),
        worst: found(),
    };
    let again = |mut incident: Incident| {
        incident.seen_at = at.to_owned();
        incident.failures += 1;
        incident.passes = 0;
        incident.run = run.to_owned();
        incident.result = result.clone();
        if is_worse(result, &incident.worst.result) {
            incident.worst = found();
        }
        // It cannot have been opened later than it is seen: the clock was ahead.
        if incident.opened_at.as_str() > at {
            incident.opened_at = at.to_owned();
        }
        incident
    };
    let flaps = |incident: &Incident| {
        if is_soon(incident.resolved_at.as_deref(), at) { incident.flaps + 1 } else { 0 }
    };
    match (result.status, before) {
        (Status::Pass | Status::WithinTolerance, None) => None,
        (Status::Pass | Status::WithinTolerance, Some(mut incident)) => match incident.state {
            IncidentState::Resolved => None,
            IncidentState::Pending => {
                incident.state = IncidentState::Resolved;
                incident.resolved_at = Some(at.to_owned());
                incident.seen_at = at.to_owned();
                Some((incident, None))
            }
            IncidentState::Open => {
                incident.passes += 1;
                incident.seen_at = at.to_owned();
                if incident.passes <= incident.flaps.min(PASSES_AT_MOST - 1) {
                    return Some((incident, None));
                }
                incident.state = IncidentState::Resolved;
                incident.resolved_at = Some(at.to_owned());
                incident.result = result.clone();
                incident.run = run.to_owned();
                let told = incident.told_at.is_some();
                Some((incident, told.then_some(Change::Resolved)))
            }
        },
        (_, Some(incident)) if incident.state == IncidentState::Open => {
            Some((again(incident), Some(Change::Goes)))
        }
        (Status::Unknown, Some(incident)) if incident.state == IncidentState::Pending => {
            let told = incident.flaps <= FLAPS_TOLD;
            let opened = Incident {
                state: IncidentState::Open,
                told_at: told.then(|| at.to_owned()),
                ..again(incident)
            };
            Some((opened, told.then_some(Change::Firing)))
        }
        (Status::Unknown, before) => {
            let flaps = before.as_ref().map_or(0, flaps);
            Some((fresh(IncidentState::Pending, flaps, false), None))
        }
        (Status::Fail, before) => {
            let flaps = match &before {
                Some(pending) if pending.state == IncidentState::Pending => pending.flaps,
                Some(resolved) => flaps(resolved),
                None => 0,
            };
            let told = flaps <= FLAPS_TOLD;
            let mut opened = fresh(IncidentState::Open, flaps, told);
            // It could not tell before it could: that was how it began.
            if let Some(pending) = before.filter(|before| before.state == IncidentState::Pending) {
                opened.first = pending.first;
            }
            Some((opened, told.then_some(Change::Firing)))
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::serve) fn result(status: Status) -> CheckResult {
        CheckResult {
            name: "rows".to_owned(),
            kind: "rows".to_owned(),
            pair: "shop".to_owned(),
            table: Some("orders".to_owned()),
            status,
            severity: "critical".to_owned(),
            owner: Some("data <team>".to_owned()),
            source: Some("10".to_owned()),
            target: Some("9".to_owned()),
            difference: None,
            message: Some("1 missing".to_owned()),
            hint: None,
            extent: None,
            columns: None,
            notes: Vec::new(),
            seconds: 0.1,
        }
    }

    /// What is told of these results, a minute apart.
    fn told(statuses: &[Status]) -> Vec<Option<Change>> {
        let mut incident = None;
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut changes = Vec::new();
        for (minute, status) in statuses.iter().enumerate() {
            let at = start.checked_add(Duration::from_secs(60 * minute as u64)).unwrap();
            let next = step(incident.clone(), &result(*status), "run", &crate::serve::text(at));
            changes.push(next.as_ref().and_then(|next| next.1));
            incident = next.map(|next| next.0).or(incident);
        }
        changes
    }

    #[test]
    fn a_failure_is_told_once_and_its_end_too() {
        use Change::{Firing, Goes, Resolved};
        use Status::{Fail, Pass, Unknown, WithinTolerance};
        assert_eq!(
            told(&[Pass, Fail, Fail, WithinTolerance, Pass]),
            [None, Some(Firing), Some(Goes), Some(Resolved), None]
        );
        assert_eq!(told(&[Unknown, Pass, Unknown, Unknown]), [None, None, None, Some(Firing)]);
        assert_eq!(told(&[Unknown, Fail, Unknown, Pass]), [None, Some(Firing), Some(Goes), Some(Resolved)]);
    }

    #[test]
    fn what_comes_and_goes_grows_quiet() {
        use Status::{Fail, Pass};
        let mut statuses = Vec::new();
        for _ in 0..20 {
            statuses.extend([Fail, Pass, Pass, Pass, Pass]);
        }
        let firing = told(&statuses).iter().filter(|change| **change == Some(Change::Firing)).count();
        assert_eq!(firing, 3);
        // It still can be told when it has held for long.
        let mut calm = statuses;
        calm.extend([Pass; 30]);
        calm.push(Fail);
        assert_eq!(told(&calm).last(), Some(&Some(Change::Firing)));
    }

    #[test]
    fn the_first_and_the_worst_are_kept_when_it_is_over() {
        let lost = |rows: f64| CheckResult {
            message: Some(format!("{rows} missing")),
            extent: Some(rows),
            ..result(Status::Fail)
        };
        let mut incident = None;
        let at = |minute: usize| format!("2026-01-01T00:0{minute}:00.000Z");
        let all = [lost(5.0), lost(6762.0), result(Status::Unknown), lost(2.0), result(Status::Pass)];
        for (minute, result) in all.iter().enumerate() {
            incident = step(incident, result, &format!("run-{minute}"), &at(minute)).map(|next| next.0);
        }
        let incident = incident.unwrap();
        assert_eq!((incident.state, incident.run.as_str()), (IncidentState::Resolved, "run-4"));
        assert_eq!((incident.first.run.as_str(), incident.first.at.as_str()), ("run-0", at(0).as_str()));
        assert_eq!(incident.worst.result.message.as_deref(), Some("6762 missing"));
        assert_eq!(incident.worst.run, "run-1");
        // The next one begins anew.
        let next = step(Some(incident), &lost(1.0), "run-5", &at(5)).unwrap().0;
        assert_eq!((next.first.run.as_str(), next.worst.run.as_str()), ("run-5", "run-5"));
    }

    #[test]
    fn nothing_is_opened_in_the_future() {
        let (ahead, _) = step(None, &result(Status::Fail), "r", "2026-02-10T00:00:00.000Z").unwrap();
        let (after, _) = step(Some(ahead), &result(Status::Fail), "r", "2026-01-01T00:00:00.000Z").unwrap();
        assert_eq!(after.opened_at, "2026-01-01T00:00:00.000Z");
    }

    proptest! {
        /// Told firing and resolved take turns, and what is not resolved at the end was told or is flapping.
        #[test]
        fn they_take_turns(statuses in prop::collection::vec(prop::sample::select(vec![
            Status::Pass, Status::WithinTolerance, Status::Fail, Status::Unknown]), 0..80)) {
            let mut open = false;
            for change in told(&statuses).into_iter().flatten() {
                match change {
                    Change::Firing => { prop_assert!(!open); open = true; }
                    Change::Resolved => { prop_assert!(open); open = false; }
                    Change::Goes => {}
                }
            }
        }
    }
}
