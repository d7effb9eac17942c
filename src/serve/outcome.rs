//! What follows from the results of a check: its incidents as they are from now on, and the messages about them.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::incident::{Change, key_of, step};
use super::message::Item;
use super::{Ground, text};
use crate::config::{AlertSpec, Config, Severity};
use crate::ledger::{Incident, IncidentState, Ledger, LedgerError, Notice};
use crate::report::checks::{CheckResult, Status};

/// The results of one run.
pub(super) struct Outcome<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) ground: &'a Ground,
    pub(super) config: &'a Config,
    pub(super) run: &'a str,
    pub(super) now: Timestamp,
}

impl Outcome<'_> {
    /// Of one check, whose lease is held: nobody else changes its incidents meanwhile, and the lease's fence shows whether
    /// somebody did.
    pub(super) async fn changes(
        &self,
        check: &str,
        results: &[CheckResult],
    ) -> Result<Vec<(Incident, Vec<Notice>)>, LedgerError> {
        let again = self.runs_again(check, results).await?;
        let mut changes: BTreeMap<String, (Incident, Vec<Notice>)> = BTreeMap::new();
        for result in results.iter().chain(&again) {
            let key = key_of(result);
            let before = match changes.get(&key) {
                Some((incident, _)) => Some(incident.clone()),
                None => self.ledger.incident(&key).await?,
            };
            let seen = before.as_ref().map(|before| before.seen_at.clone());
            if let Some((incident, change)) = step(before, result, self.run, &text(self.now)) {
                let notices = self.notices(&incident, change, seen.as_deref());
                let (last, all) = changes.entry(key).or_insert_with(|| (incident.clone(), Vec::new()));
                *last = incident;
                all.extend(notices);
            }
        }
        Ok(changes.into_values().collect())
    }

    /// Where a check of tables could not be run at all, its incident is of no table: it is over when the check runs again.
    async fn runs_again(
        &self,
        check: &str,
        results: &[CheckResult],
    ) -> Result<Option<CheckResult>, LedgerError> {
        if results.is_empty() || results.iter().any(|result| result.table.is_none()) {
            return Ok(None);
        }
        let whole = self.ledger.incident(check).await?;
        let whole = whole.filter(|incident| incident.state != IncidentState::Resolved);
        Ok(whole.map(|incident| CheckResult {
            status: Status::Pass,
            source: None,
            target: None,
            difference: None,
            extent: None,
            message: Some("it runs again".to_owned()),
            hint: None,
            columns: None,
            notes: Vec::new(),
            ..incident.result
        }))
    }

    /// The messages about a change, one for each channel that wants it.
    fn notices(&self, incident: &Incident, change: Option<Change>, seen: Option<&str>) -> Vec<Notice> {
        let Some(change) = change else { return Vec::new() };
        let now = self.now;
        let wanted = |spec: &AlertSpec| {
            wants(spec, &incident.result)
                && match change {
                    Change::Firing => true,
                    Change::Resolved => spec.resolved,
                    Change::Goes => {
                        incident.told_at.is_some()
                            && spec.repeat.is_some_and(|every| is_again(incident, seen, every, now))
                    }
                }
        };
        let item = Item::of(incident, change, self.config.serve.public_url.as_deref());
        let notice = |(name, spec): (&String, &AlertSpec)| {
            let id = (self.ground.id)();
            let item = Item { id: id.clone(), ..item.clone() };
            Notice {
                id,
                channel: name.clone(),
                incident: incident.key.clone(),
                body: serde_json::to_string(&item).unwrap_or_default(),
                created_at: text(now),
                next_at: text(now.checked_add(spec.group).unwrap_or(now)),
            }
        };
        self.config.alerts.iter().filter(|(_, spec)| wanted(spec)).map(notice).collect()
    }
}

fn wants(spec: &AlertSpec, result: &CheckResult) -> bool {
    let severity = [Severity::Info, Severity::Warning, Severity::Critical]
        .into_iter()
        .find(|severity| severity.name() == result.severity)
        .unwrap_or_default();
    severity >= spec.min_severity && (spec.checks.is_empty() || spec.checks.contains(&result.name))
}

/// Whether a reminder's time has come between the last time it was seen and now.
fn is_again(incident: &Incident, seen: Option<&str>, every: Duration, now: Timestamp) -> bool {
    let (Some(Ok(seen)), Ok(opened)) =
        (seen.map(str::parse::<Timestamp>), incident.opened_at.parse::<Timestamp>())
    else {
        return false;
    };
    let times = |at: Timestamp| {
        at.duration_since(opened).as_millis() / i128::try_from(every.as_millis().max(1)).unwrap_or(1)
    };
    // Seen in what is the future by now: the clock was set back, and nobody knows how long ago that was.
    seen > now || times(now) > times(seen)
}

/// What is said of checks that panicked.
pub(super) fn broken(config: &Config, checks: &[String]) -> Vec<CheckResult> {
    let result = |name: &String| {
        let check = config.checks.get(name)?;
        Some(CheckResult {
            name: name.clone(),
            kind: check.kind.name().to_owned(),
            pair: check.pair.clone(),
            table: check.table.as_ref().map(ToString::to_string),
            status: Status::Unknown,
            severity: check.severity.name().to_owned(),
            owner: check.owner.clone(),
            source: None,
            target: None,
            difference: None,
            extent: None,
            message: Some("the check has panicked".to_owned()),
            hint: Some("this is a defect: please report it, with the coordinator's log".to_owned()),
            columns: None,
            notes: Vec::new(),
            seconds: 0.0,
        })
    };
    checks.iter().filter_map(result).collect()
}
