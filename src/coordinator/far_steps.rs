//! Steps of times that the clocks of time zones are not known for: before the year -9999, and from the last day of 9999 on. They are
//! cut as UTC's calendar has them.

use crate::model::measure::Step;
use crate::model::temporal::{
    MICROS_PER_DAY, MICROS_PER_SECOND, civil_from_days, days_from_civil, timestamp_text,
};

const DAY: i128 = MICROS_PER_DAY as i128;
const HOUR: i128 = 3_600 * MICROS_PER_SECOND as i128;

/// Where the step that holds this point begins; `None` beyond the calendar.
pub(super) fn floor(step: Step, point: i128) -> Option<i128> {
    match step {
        Step::Hour => Some(point.div_euclid(HOUR) * HOUR),
        Step::Day => Some(point.div_euclid(DAY) * DAY),
        Step::Month => {
            let (year, month, _) = civil(point)?;
            first_of(year, month)
        }
        Step::Units(_) => None,
    }
}

/// Where the step behind it begins.
pub(super) fn next(step: Step, point: i128) -> Option<i128> {
    match step {
        Step::Hour => Some(floor(step, point)? + HOUR),
        Step::Day => Some(floor(step, point)? + DAY),
        Step::Month => match civil(point)? {
            (year, 12, _) => first_of(year + 1, 1),
            (year, month, _) => first_of(year, month + 1),
        },
        Step::Units(_) => None,
    }
}

/// As a person reads it: a day alone where it begins there.
pub(super) fn label(point: i128) -> String {
    let Ok(micros) = i64::try_from(point) else { return point.to_string() };
    timestamp_text(micros).replace(" 00:00:00", "")
}

fn civil(point: i128) -> Option<(i32, u32, u32)> {
    i32::try_from(point.div_euclid(DAY)).ok().map(civil_from_days)
}

fn first_of(year: i32, month: u32) -> Option<i128> {
    days_from_civil(year, month, 1).map(|days| i128::from(days) * DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_go_on_where_clocks_end() {
        let day = |year, month, date| i128::from(days_from_civil(year, month, date).unwrap()) * DAY;
        let last = day(9999, 12, 31) + 5 * HOUR + 1;
        assert_eq!(floor(Step::Day, last), Some(day(9999, 12, 31)));
        assert_eq!(next(Step::Day, last), Some(day(10_000, 1, 1)));
        assert_eq!(
            (floor(Step::Month, last), next(Step::Month, last)),
            (Some(day(9999, 12, 1)), Some(day(10_000, 1, 1)))
        );
        assert_eq!(next(Step::Hour, last), Some(day(9999, 12, 31) + 6 * HOUR));
        assert_eq!(label(day(10_000, 1, 1)), "10000-01-01");
        assert_eq!(label(day(-43, 3, 15) + HOUR), "0044-03-15 01:00:00 BC");
        assert_eq!(label(day(-43, 3, 15)), "0044-03-15 BC");
    }
}
