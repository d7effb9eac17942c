//! What is due, and due times that cannot be right.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::asked::Asked;
use super::text;
use crate::config::{CheckKind, Config};
use crate::ledger::ScheduleRow;

/// Checks of one pair that run together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    pub pair: String,
    pub checks: Vec<String>,
    /// When each was due, RFC 3339: no such time is run twice.
    pub due: BTreeMap<String, String>,
    /// Not by the timetable.
    pub asked: Option<Asked>,
}

/// What is due and held by nobody: the totals of a pair together, every other check by itself.
pub(super) fn due_groups(config: &Config, rows: &[ScheduleRow], running: &[String], now: &str) -> Vec<Group> {
    let mut together: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut groups = Vec::new();
    let mut due: Vec<&ScheduleRow> = rows
        .iter()
        .filter(|row| row.due.as_deref().is_some_and(|due| due <= now))
        .filter(|row| row.owner.is_none() || row.lease_until.as_deref().is_none_or(|until| until < now))
        .filter(|row| !running.contains(&row.name))
        .collect();
    due.sort_by(|a, b| (&a.due, &a.name).cmp(&(&b.due, &b.name)));
    for row in due {
        let Some(check) = config.checks.get(&row.name) else { continue };
        // A check that reads every row takes long; nobody else is to wait for it.
        if matches!(check.kind, CheckKind::Rows | CheckKind::Gaps { .. } | CheckKind::Sql { .. }) {
            let checks = vec![row.name.clone()];
            groups.push(Group { pair: check.pair.clone(), checks, ..Group::default() });
        } else {
            together.entry(&check.pair).or_default().push(row.name.clone());
        }
    }
    // What is quick goes first.
    let quick = together.into_iter().map(|(pair, checks)| Group {
        pair: pair.to_owned(),
        checks,
        ..Group::default()
    });
    quick.chain(groups).collect()
}

/// A check that is due later than its own timetable can say from now on, and its time as the timetable has it: the clock
/// was ahead when the time was noted. `slack` is what clocks of several coordinators may be apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misplaced {
    pub(super) name: String,
    pub(super) was: String,
    pub(super) due: String,
}

pub(super) fn misplaced(
    config: &Config,
    rows: &[ScheduleRow],
    now: Timestamp,
    slack: Duration,
    chance: f64,
) -> Vec<Misplaced> {
    let wrong = |row: &ScheduleRow| {
        let timetable = &config.checks.get(&row.name)?.timetable;
        let due: Timestamp = row.due.as_deref()?.parse().ok()?;
        // One that comes only by hand is due at the moment in which it is asked for.
        let latest = timetable.next(None, now, 1.0).unwrap_or(now);
        let latest = latest.checked_add(slack).unwrap_or(latest);
        if row.owner.is_some() || due <= latest {
            return None;
        }
        let right = timetable.first(now, chance).unwrap_or(now);
        Some(Misplaced { name: row.name.clone(), was: row.due.clone()?, due: text(right) })
    };
    rows.iter().filter_map(wrong).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKS: &str = "[endpoints.a]\nurl = \"env:A\"\n[endpoints.b]\nurl = \"env:B\"\n[pairs.p]\nsource = \"a\"\ntarget = \"b\"\n\
        [checks.often]\npair = \"p\"\nkind = \"count\"\nschedule = \"every 10s\"\n\
        [checks.nightly]\npair = \"p\"\nkind = \"rows\"\nschedule = \"30 2 * * *\"\n\
        [checks.by-hand]\npair = \"p\"\nkind = \"rows\"\nschedule = \"manual\"\n";

    fn row(name: &str, due: &str) -> ScheduleRow {
        ScheduleRow {
            name: name.to_owned(),
            due: Some(due.to_owned()),
            owner: None,
            lease_until: None,
            last_run: None,
            last_at: None,
            last_status: None,
        }
    }

    #[test]
    fn a_due_time_that_no_timetable_can_name_is_computed_anew() {
        let config = crate::config::parse(CHECKS).unwrap();
        let now: Timestamp = "2026-03-01T12:00:00.000Z".parse().unwrap();
        let slack = Duration::from_secs(20);
        let wrong = |rows: &[ScheduleRow]| -> Vec<(String, String)> {
            let found = misplaced(&config, rows, now, slack, 0.0);
            found.into_iter().map(|wrong| (wrong.name, wrong.due)).collect()
        };
        // As the timetables say, with all their jitter, and what clocks may be apart.
        let fine = [
            row("often", "2026-03-01T12:00:11.000Z"),
            row("often", "2026-03-01T12:00:30.900Z"),
            row("often", "2026-02-01T00:00:00.000Z"),
            row("nightly", "2026-03-02T02:30:10.000Z"),
            row("by-hand", "2026-03-01T12:00:01.000Z"),
            row("unknown", "2029-01-01T00:00:00.000Z"),
        ];
        assert_eq!(wrong(&fine), []);
        // Noted while the clock was an hour, a day, or a second less than that ahead.
        assert_eq!(
            wrong(&[
                row("often", "2026-03-01T13:00:05.000Z"),
                row("nightly", "2026-03-03T02:30:00.000Z"),
                row("by-hand", "2026-03-01T13:00:00.000Z"),
            ]),
            [
                ("often".to_owned(), "2026-03-01T12:00:00.000Z".to_owned()),
                ("nightly".to_owned(), "2026-03-02T02:30:00.000Z".to_owned()),
                ("by-hand".to_owned(), "2026-03-01T12:00:00.000Z".to_owned()),
            ]
        );
        let held =
            ScheduleRow { owner: Some("another".to_owned()), ..row("often", "2026-03-09T00:00:00.000Z") };
        assert_eq!(wrong(&[held]), [], "who runs it sets its next time");
    }
}
