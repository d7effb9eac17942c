//! The steps of a range: where hours, days and months begin in a time zone, and points as a person writes and reads them.
//!
//! A point is an integer, a day or a microsecond of UTC (of the wall clock, where a column has no zone: its zone is then
//! UTC here). Steps are half open. A day begins when the zone's clock says so, and has 23 or 25 hours where it must.

use super::far_steps as far;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::model::measure::{Axis, Step};
use crate::model::temporal::{
    MICROS_PER_DAY, MICROS_PER_SECOND, date_text, days_from_civil, parse_date, parse_far_date,
    parse_far_timestamp, parse_timestamp,
};

/// More steps than this are refused.
pub const STEPS_MAX: usize = 50_000;
const HOUR: i128 = 3_600 * MICROS_PER_SECOND as i128;
/// Steps that a range of integers is cut into where nothing was said.
const STEPS_WANTED: i128 = 48;

/// What points of a column mean.
#[derive(Debug, Clone)]
pub struct Ruler {
    pub axis: Axis,
    /// Values are instants, so that points may be written with an offset.
    pub instants: bool,
    pub zone: TimeZone,
}

/// A range cut into steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grid {
    /// One more than there are steps, rising.
    pub borders: Vec<i128>,
    /// Every border but the first and the last is a whole number of units from here.
    pub origin: i128,
    /// Integers, days, or seconds.
    pub unit: u64,
    width: i128,
}

impl Ruler {
    /// Reads a point as a person writes it.
    pub fn point(&self, text: &str) -> Result<i128, String> {
        match self.axis {
            Axis::Integer => text.parse().map_err(|_| format!("{text:?} is no integer")),
            Axis::Days => {
                let days = parse_date(text).or_else(|| parse_far_date(text));
                days.map(i128::from).ok_or_else(|| format!("{text:?} is no date as 2024-01-31"))
            }
            Axis::Micros => {
                let (micros, offset) = parse_timestamp(text)
                    .or_else(|| parse_far_timestamp(text).map(|micros| (micros, None)))
                    .ok_or_else(|| format!("{text:?} is no time as 2024-01-31 or \"2024-01-31 12:00:00\""))?;
                if micros % MICROS_PER_SECOND != 0 {
                    return Err(format!("{text:?}: ends are whole seconds"));
                }
                if offset.is_some() {
                    return match self.instants {
                        true => Ok(i128::from(micros)),
                        false => Err(format!("{text:?} has an offset, and the column has no time zone")),
                    };
                }
                Ok(utc(micros).and_then(|wall| self.moment(wall)).unwrap_or(i128::from(micros)))
            }
        }
    }

    /// The instant at which the zone's clock shows this; the later one of what a change of the clock left out.
    fn moment(&self, wall: DateTime) -> Option<i128> {
        self.zone.to_timestamp(wall).ok().map(|instant| i128::from(instant.as_microsecond()))
    }

    fn wall(&self, point: i128) -> Option<DateTime> {
        let instant = Timestamp::from_microsecond(i64::try_from(point).ok()?).ok()?;
        Some(self.zone.to_datetime(instant))
    }

    /// As a person reads it: a day alone where it begins there, else with the time, and the offset where it is not UTC's.
    pub fn label(&self, point: i128) -> String {
        match self.axis {
            Axis::Integer => point.to_string(),
            Axis::Days => i32::try_from(point).map_or_else(|_| point.to_string(), date_text),
            Axis::Micros => {
                let Some(wall) = self.wall(point) else { return far::label(point) };
                let civil = wall.date();
                let [month, day] = [civil.month(), civil.day()].map(|part| u32::try_from(part).unwrap_or(1));
                let day = days_from_civil(i32::from(civil.year()), month, day);
                let day = day.map_or_else(|| civil.to_string(), date_text);
                if self.day_begin(wall) == Some(point) {
                    return day;
                }
                let (day, era) = day.strip_suffix(" BC").map_or((day.as_str(), ""), |day| (day, " BC"));
                let time =
                    if wall.second() == 0 { wall.strftime("%H:%M") } else { wall.strftime("%H:%M:%S") };
                let zone = match Timestamp::from_microsecond(i64::try_from(point).unwrap_or(0)) {
                    Ok(instant) if self.zone != TimeZone::UTC => self.zone.to_offset(instant).to_string(),
                    _ => String::new(),
                };
                format!("{day} {time}{zone}{era}")
            }
        }
    }

    fn day_begin(&self, wall: DateTime) -> Option<i128> {
        self.moment(wall.date().to_datetime(jiff::civil::Time::midnight()))
    }

    /// Where the step that holds this point begins.
    pub fn floor(&self, step: Step, point: i128) -> Result<i128, String> {
        let out = || format!("{} is out of range", self.label(point));
        Ok(match (self.axis, step) {
            (Axis::Integer, Step::Units(units)) => {
                let units = i128::from(units);
                point.div_euclid(units) * units
            }
            (Axis::Integer, _) => {
                return Err("the column holds integers: --step is a number of them".to_owned());
            }
            (_, Step::Units(_)) => {
                return Err("the column holds times: --step is hour, day or month".to_owned());
            }
            (Axis::Days, Step::Hour) => {
                return Err("the column holds dates: --step is day or month".to_owned());
            }
            (Axis::Days, Step::Day) => point,
            (Axis::Days, Step::Month) => {
                let (year, month, _) = civil(point).ok_or_else(out)?;
                days(year, month).ok_or_else(out)?
            }
            (Axis::Micros, step) if self.wall(point).is_none() => far::floor(step, point).ok_or_else(out)?,
            (Axis::Micros, Step::Hour) => {
                let wall = self.wall(point).ok_or_else(out)?;
                let past = i128::from(wall.minute()) * 60 + i128::from(wall.second());
                (point - past * i128::from(MICROS_PER_SECOND)).div_euclid(1_000_000) * 1_000_000
            }
            (Axis::Micros, Step::Day) => {
                let wall = self.wall(point).ok_or_else(out)?;
                self.day_begin(wall).or_else(|| far::floor(step, point)).ok_or_else(out)?
            }
            (Axis::Micros, Step::Month) => {
                let wall = self.wall(point).ok_or_else(out)?;
                let begin = self.day_begin(wall.first_of_month());
                begin.or_else(|| far::floor(step, point)).ok_or_else(out)?
            }
        })
    }

    /// Where the step behind the one that holds this point begins.
    pub fn next(&self, step: Step, point: i128) -> Result<i128, String> {
        let floor = self.floor(step, point)?;
        let out = || format!("{} is out of range", self.label(point));
        let far = || floor.checked_add(1).ok_or_else(out);
        Ok(match (self.axis, step) {
            (Axis::Integer, Step::Units(units)) => floor.checked_add(i128::from(units)).ok_or_else(out)?,
            (Axis::Days, Step::Month) => {
                let (year, month, _) = civil(point).ok_or_else(out)?;
                if month == 12 { days(year + 1, 1) } else { days(year, month + 1) }.ok_or_else(out)?
            }
            (Axis::Micros, Step::Hour) => floor + HOUR,
            (Axis::Micros, step) => {
                self.next_begin(step, point).or_else(|| far::next(step, point)).ok_or_else(out)?
            }
            _ => far()?,
        })
    }

    /// The day or month behind the one that holds this point, where the zone's clock is known.
    fn next_begin(&self, step: Step, point: i128) -> Option<i128> {
        let mut wall = self.wall(point)?;
        loop {
            let span = if step == Step::Month { 1.month() } else { 1.day() };
            wall = wall.checked_add(span).ok()?;
            if step == Step::Month {
                wall = wall.first_of_month();
            }
            // A day that the zone skipped begins with the next one.
            match self.day_begin(wall)? {
                begin if begin > point => return Some(begin),
                _ => {}
            }
        }
    }

    /// A step where none was asked for. Of times a day, or a month where days would be too many; about 48 of integers, of a
    /// round width.
    pub fn default_step(&self, from: i128, to: i128) -> Step {
        let per_day = match self.axis {
            Axis::Integer => None,
            Axis::Days => Some(1),
            Axis::Micros => Some(i128::from(MICROS_PER_DAY)),
        };
        if let Some(per_day) = per_day {
            let many = to.saturating_sub(from) / per_day >= STEPS_MAX as i128;
            return if many { Step::Month } else { Step::Day };
        }
        let wanted = (to.saturating_sub(from) / STEPS_WANTED).max(1);
        let mut round = 1i128;
        loop {
            for factor in [1, 2, 5] {
                if round.saturating_mul(factor) >= wanted {
                    return Step::Units(u64::try_from(round.saturating_mul(factor)).unwrap_or(u64::MAX));
                }
            }
            round = round.saturating_mul(10);
        }
    }

    /// Cuts `from..to`. Integers are counted from `from`; times are cut where the clock is, so that the first and the last
    /// step may be shorter.
    pub fn grid(&self, step: Step, from: i128, to: i128) -> Result<Grid, String> {
        if from >= to {
            return Err(format!("the range from {} to {} is empty", self.label(from), self.label(to)));
        }
        self.floor(step, from)?;
        let too_many =
            || format!("the range has more than {STEPS_MAX} steps: take larger ones, or a shorter range");
        let mut borders = vec![from];
        let mut last = from;
        while last < to {
            let next = match step {
                Step::Units(units) => last.saturating_add(i128::from(units)),
                step => self.next(step, last)?,
            };
            last = next.min(to);
            borders.push(last);
            if borders.len() > STEPS_MAX + 1 {
                return Err(too_many());
            }
        }
        let scale = if self.axis == Axis::Micros { i128::from(MICROS_PER_SECOND) } else { 1 };
        let inner = borders.get(1..borders.len() - 1).unwrap_or_default();
        let unit = match inner {
            // One or two steps: a border, if there is one, parts two units.
            [] => to - from,
            [border] => (border - from).max(to - border),
            many => many.windows(2).fold(0, |unit, pair| gcd(unit, pair[1] - pair[0])),
        };
        // Whole seconds, as are all borders.
        let unit = if unit % scale == 0 { unit } else { (unit / scale + 1) * scale };
        let origin = match inner.first() {
            Some(border) => {
                let before = border - from;
                border - (before / unit + i128::from(before % unit > 0)) * unit
            }
            None => from,
        };
        let in_units = u64::try_from(unit / scale).map_err(|_| "the range is too wide".to_owned())?;
        Ok(Grid { borders, origin, unit: in_units, width: unit })
    }
}

impl Grid {
    pub fn steps(&self) -> usize {
        self.borders.len() - 1
    }

    /// Rows per step, from rows per unit.
    pub fn fold(&self, units: impl Iterator<Item = (u64, u64)>) -> Vec<u64> {
        let mut steps = vec![0u64; self.steps()];
        for (unit, rows) in units {
            let point = self.origin + i128::from(unit) * self.width;
            let at = self.borders.partition_point(|border| *border <= point).saturating_sub(1);
            if let Some(step) = steps.get_mut(at) {
                *step += rows;
            }
        }
        steps
    }
}

fn gcd(a: i128, b: i128) -> i128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// `None` of what no clock is known for.
fn utc(micros: i64) -> Option<DateTime> {
    Timestamp::from_microsecond(micros).ok().map(|instant| TimeZone::UTC.to_datetime(instant))
}

fn civil(days: i128) -> Option<(i32, u32, u32)> {
    i32::try_from(days).ok().map(crate::model::temporal::civil_from_days)
}

fn days(year: i32, month: u32) -> Option<i128> {
    days_from_civil(year, month, 1).map(i128::from)
}

#[cfg(test)]
#[path = "steps_tests.rs"]
mod tests;
