//! When a check is due: cron expressions with a time zone, intervals, jitter.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Steps that are looked at before a cron expression is taken to have no time left.
const LATEST: Timestamp = Timestamp::constant(253_402_207_200, 0);

/// What brings a check about.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// Only by hand.
    Manual,
    /// So long after the last time it was due.
    Every(Duration),
    Cron {
        cron: Box<Cron>,
        zone: TimeZone,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Timetable {
    pub schedule: Schedule,
    /// Each time is late by a share of this, by chance: not all checks of an hour begin in its first second.
    pub jitter: Duration,
    /// After a sleep, what was missed is done once; otherwise the next time is waited for.
    pub catch_up: bool,
    /// As it was written; another text is another timetable.
    pub text: String,
}

impl Schedule {
    /// `manual`, `every 15m`, or the five fields of cron (minute, hour, day of month, month, day of week).
    pub fn parse(text: &str, zone: &TimeZone) -> Result<Self, String> {
        let text = text.trim();
        if text == "manual" {
            return Ok(Self::Manual);
        }
        if let Some(interval) = text.strip_prefix("every ") {
            let interval = humantime::parse_duration(interval.trim()).map_err(|_| {
                "write an interval as \"every 90s\", \"every 15m\" or \"every 1day\"".to_owned()
            })?;
            if interval < Duration::from_secs(1) {
                return Err("an interval is at least a second".to_owned());
            }
            return Ok(Self::Every(interval));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|error| {
            format!(
                "write \"every 15m\", \"manual\", or five fields of cron as in \"0 6 * * MON-FRI\" ({error})"
            )
        })?;
        Ok(Self::Cron { cron: Box::new(cron), zone: zone.clone() })
    }
}

impl Timetable {
    /// The first time behind `now`, where the last was `due`, if there was one. `chance` is from 0 to 1.
    pub fn next(&self, due: Option<Timestamp>, now: Timestamp, chance: f64) -> Option<Timestamp> {
        let exact = match &self.schedule {
            Schedule::Manual => return None,
            Schedule::Every(interval) => {
                let interval = i128::try_from(interval.as_nanos()).ok()?;
                // From the last time on, so that a long run does not shift all that come behind it.
                let from = due.filter(|due| *due <= now).unwrap_or(now).as_nanosecond();
                let steps = (now.as_nanosecond() - from) / interval + 1;
                Timestamp::from_nanosecond(from + steps * interval).ok()?
            }
            Schedule::Cron { cron, zone } => {
                let mut after = now.to_zoned(zone.clone());
                // Where clocks are set back, an hour's times come again: only what is later counts.
                loop {
                    let next = cron.find_next_occurrence(&after, false).ok()?;
                    if next.timestamp() > now {
                        break next.timestamp();
                    }
                    after = next;
                    if after.timestamp() > LATEST {
                        return None;
                    }
                }
            }
        };
        let late = self.jitter.mul_f64(chance.clamp(0.0, 1.0));
        exact.checked_add(late).ok().or(Some(exact))
    }

    /// When a check that has never run is due first: at once where it comes by intervals.
    pub fn first(&self, now: Timestamp, chance: f64) -> Option<Timestamp> {
        match &self.schedule {
            Schedule::Every(_) => now.checked_add(self.jitter.mul_f64(chance.clamp(0.0, 1.0))).ok(),
            _ => self.next(None, now, chance),
        }
    }

    /// The longest time from one begin to the next, as far as it is known beforehand.
    pub fn at_most(&self) -> Option<Duration> {
        match &self.schedule {
            Schedule::Every(interval) => Some(*interval + self.jitter),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn table(text: &str, zone: &str) -> Timetable {
        let zone = TimeZone::get(zone).unwrap();
        let schedule = Schedule::parse(text, &zone).unwrap();
        Timetable { schedule, jitter: Duration::ZERO, catch_up: true, text: text.to_owned() }
    }

    #[test]
    fn cron_knows_its_time_zone() {
        let nightly = table("30 2 * * *", "Europe/Berlin");
        let next = |now: &str| nightly.next(None, at(now), 0.0).unwrap();
        assert_eq!(next("2026-01-10T00:00:00Z"), at("2026-01-10T01:30:00Z"));
        assert_eq!(next("2026-07-10T00:00:00Z"), at("2026-07-10T00:30:00Z"));
        // The clocks go back at three: the first half past two counts, and the day after is the next.
        let first = next("2026-10-24T23:00:00Z");
        assert_eq!(first, at("2026-10-25T00:30:00Z"));
        assert!(next("2026-10-25T00:30:00Z") > first);
        // There is no half past two on this day: it is not lost.
        let skipped = next("2026-03-29T00:00:00Z");
        assert!(skipped < at("2026-03-29T23:00:00Z"), "{skipped}");
    }

    #[test]
    fn intervals_keep_their_beat() {
        let every = table("every 15m", "UTC");
        let (due, now) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T00:47:10Z"));
        assert_eq!(every.next(Some(due), now, 0.0).unwrap(), at("2026-01-01T01:00:00Z"));
        assert_eq!(every.first(now, 0.0), Some(now));
        assert_eq!(table("manual", "UTC").next(Some(due), now, 0.0), None);
    }

    #[test]
    fn what_is_no_schedule_is_told() {
        for text in ["", "every", "every soon", "every 1ms", "* * *", "61 * * * *", "* * * * * *", "0 0 30 2"]
        {
            assert!(Schedule::parse(text, &TimeZone::UTC).is_err(), "{text:?}");
        }
        // Never comes, which is no error of writing; it ends all the same.
        assert_eq!(table("0 0 30 2 *", "UTC").next(None, at("2026-01-01T00:00:00Z"), 0.0), None);
    }

    proptest! {
        #[test]
        fn the_next_time_is_later_and_within_its_jitter(
            now in 0i64..4_000_000_000, before in 0i64..400_000, chance in 0.0f64..=1.0,
            text in prop::sample::select(vec!["every 7s", "every 1h", "*/5 * * * *", "30 2 * * *", "0 6 * * MON-FRI", "0 0 29 2 *"]),
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"]),
        ) {
            let now = Timestamp::from_second(now).unwrap();
            let due = now.checked_sub(Duration::from_secs(before.unsigned_abs())).unwrap();
            let table = Timetable { jitter: Duration::from_secs(30), ..table(text, zone) };
            let exact = table.next(Some(due), now, 0.0).unwrap();
            let late = table.next(Some(due), now, chance).unwrap();
            prop_assert!(exact > now);
            prop_assert!(late >= exact && late <= exact.checked_add(Duration::from_secs(30)).unwrap());
            if let Some(most) = table.at_most() {
                prop_assert!(late <= now.checked_add(most).unwrap());
            }
        }
    }
}
