//! Two measurements and a tolerance: the same, near enough, apart, or not to be told. Decimals are compared exactly.

use std::str::FromStr;
use std::time::Duration;

use bigdecimal::{BigDecimal, Zero};

use crate::config::Tolerance;
use crate::model::decimal::Decimal;
use crate::model::measure::Measured;
use crate::model::temporal::{MICROS_PER_DAY, parse_timestamp};
use crate::report::checks::Status;

/// What came out of one check.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judged {
    pub(super) status: Status,
    pub(super) source: Option<String>,
    pub(super) target: Option<String>,
    pub(super) difference: Option<String>,
    pub(super) message: Option<String>,
    pub(super) hint: Option<String>,
}

impl Judged {
    pub(super) fn new(status: Status) -> Self {
        Self { status, source: None, target: None, difference: None, message: None, hint: None }
    }

    pub(super) fn unknown(message: impl Into<String>, hint: Option<String>) -> Self {
        Self { message: Some(message.into()), hint, ..Self::new(Status::Unknown) }
    }

    pub(super) fn saying(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }
}

fn exact(decimal: &Decimal) -> Option<BigDecimal> {
    matches!(decimal, Decimal::Finite { .. }).then(|| BigDecimal::from_str(&decimal.to_string()).ok())?
}

/// `difference` out of `source`.
pub(super) fn is_near(source: &BigDecimal, difference: &BigDecimal, tolerance: &Tolerance) -> bool {
    let absolute = tolerance.absolute.as_ref().is_some_and(|most| difference <= most);
    let rows = tolerance.rows.map(BigDecimal::from).is_some_and(|most| *difference <= most);
    // |difference| * 100 <= percent * |source|, without dividing.
    let percent = tolerance
        .percent
        .as_ref()
        .is_some_and(|percent| difference * BigDecimal::from(100) <= percent * source.abs());
    absolute || rows || percent
}

pub(super) fn numbers(source: &BigDecimal, target: &BigDecimal, tolerance: &Tolerance) -> Judged {
    let difference = (source - target).abs();
    let status = if difference.is_zero() {
        Status::Pass
    } else if is_near(source, &difference, tolerance) {
        Status::WithinTolerance
    } else {
        Status::Fail
    };
    let shown = |number: &BigDecimal| number.normalized().to_plain_string();
    Judged {
        source: Some(shown(source)),
        target: Some(shown(target)),
        difference: (!difference.is_zero()).then(|| shown(&difference)),
        ..Judged::new(status)
    }
}

/// Two totals of a column pair.
pub(super) fn measured(source: &Measured, target: &Measured, tolerance: &Tolerance) -> Judged {
    match (source, target) {
        (Measured::Null, Measured::Null) => Judged::new(Status::Pass).saying("neither side has a value"),
        (Measured::Null, _) => Judged::new(Status::Fail).saying("only the target has a value"),
        (_, Measured::Null) => Judged::new(Status::Fail).saying("only the source has a value"),
        (Measured::Number(left), Measured::Number(right)) => match (exact(left), exact(right)) {
            (Some(left), Some(right)) => numbers(&left, &right, tolerance),
            _ => special(left == right),
        },
        (Measured::Float(left), Measured::Float(right)) => floats(*left, *right, tolerance),
        (Measured::Days(left), Measured::Days(right)) => moments(
            i128::from(*left) * i128::from(MICROS_PER_DAY),
            i128::from(*right) * i128::from(MICROS_PER_DAY),
            tolerance,
        ),
        (Measured::Micros(left), Measured::Micros(right)) => {
            moments(i128::from(*left), i128::from(*right), tolerance)
        }
        _ => Judged::unknown("the two sides' values are not of one kind", None),
    }
}

/// NaN and the infinities are the same or not; there is no distance.
fn special(same: bool) -> Judged {
    if same {
        Judged::new(Status::Pass)
    } else {
        Judged::new(Status::Fail).saying("one side is not a finite number")
    }
}

fn floats(left: f64, right: f64, tolerance: &Tolerance) -> Judged {
    if !left.is_finite() || !right.is_finite() {
        return special(left.to_bits() == right.to_bits() || left.is_nan() && right.is_nan());
    }
    let (Ok(exact_left), Ok(exact_right)) = (BigDecimal::try_from(left), BigDecimal::try_from(right)) else {
        return Judged::unknown("a float has no exact form", None);
    };
    let judged = numbers(&exact_left, &exact_right, tolerance);
    let wished = tolerance.absolute.is_some() || tolerance.percent.is_some();
    if judged.status == Status::Fail && !wished {
        return Judged::unknown(
            "floats differ, which may be the order in which they were added",
            Some("give the check a tolerance, absolute or percent".to_owned()),
        );
    }
    // The shortest form, not the exact one of fifty digits.
    Judged { source: Some(left.to_string()), target: Some(right.to_string()), ..judged }
}

fn moments(left: i128, right: i128, tolerance: &Tolerance) -> Judged {
    let apart = left.abs_diff(right);
    let lag = tolerance.lag.is_some_and(|lag| apart <= lag.as_micros());
    let status = match apart {
        0 => Status::Pass,
        _ if lag => Status::WithinTolerance,
        _ => Status::Fail,
    };
    Judged { difference: (apart > 0).then(|| duration(apart)), ..Judged::new(status) }
}

pub(super) fn duration(micros: u128) -> String {
    let micros = u64::try_from(micros).unwrap_or(u64::MAX);
    let whole = if micros >= 1_000_000 { micros / 1_000_000 * 1_000_000 } else { micros };
    humantime::format_duration(Duration::from_micros(whole)).to_string()
}

/// The newest of both sides: how far the target is behind, and how old they are at `now`.
pub(super) fn freshness(
    newest: (&Measured, &Measured),
    tolerance: &Tolerance,
    max_age: Option<Duration>,
    now_micros: i64,
) -> Judged {
    let micros = |newest: &Measured| match newest {
        Measured::Micros(micros) => Some(i128::from(*micros)),
        // A day is as fresh as its end.
        Measured::Days(days) => Some((i128::from(*days) + 1) * i128::from(MICROS_PER_DAY)),
        _ => None,
    };
    let (source, target) = match (micros(newest.0), micros(newest.1)) {
        (Some(source), Some(target)) => (source, target),
        (None, None) if max_age.is_none() => return measured(newest.0, newest.1, tolerance),
        (None, None) => return Judged::new(Status::Fail).saying("neither side has a row"),
        _ => return measured(newest.0, newest.1, tolerance),
    };
    if let Some(max) = max_age {
        for (side, newest) in [("source", source), ("target", target)] {
            let age = u128::try_from(i128::from(now_micros) - newest).unwrap_or(0);
            if age > max.as_micros() {
                return Judged::new(Status::Fail)
                    .saying(format!("the {side}'s newest row is {} old", duration(age)));
            }
        }
    }
    // A target that is ahead has what the source has.
    let behind = source - target;
    if behind <= 0 {
        return Judged::new(Status::Pass);
    }
    let judged = moments(source, target, tolerance);
    let said = format!("the target is {} behind", duration(behind.unsigned_abs()));
    Judged { difference: None, ..judged }.saying(said)
}

/// Two scalars of the user's own: numbers, else moments, else text.
pub(super) fn scalars(source: Option<&str>, target: Option<&str>, tolerance: &Tolerance) -> Judged {
    let (Some(left), Some(right)) = (source, target) else {
        let null = |text: Option<&str>| if text.is_none() { Measured::Null } else { Measured::Float(0.0) };
        return match (source, target) {
            (None, None) => Judged::new(Status::Pass).saying("both are NULL"),
            _ => measured(&null(source), &null(target), tolerance),
        };
    };
    let number = |text: &str| match text {
        "true" | "t" => Some(BigDecimal::from(1)),
        "false" | "f" => Some(BigDecimal::zero()),
        text => Decimal::parse(text.trim()).as_ref().and_then(exact),
    };
    if let (Some(left), Some(right)) = (number(left), number(right)) {
        return numbers(&left, &right, tolerance);
    }
    if let (Some((left, _)), Some((right, _))) = (parse_timestamp(left), parse_timestamp(right)) {
        return moments(i128::from(left), i128::from(right), tolerance);
    }
    Judged::new(if left == right { Status::Pass } else { Status::Fail })
}

/// NULLs, and all rows: percent of NULL, to a millionth.
pub(super) fn share(values: &[Option<String>]) -> Option<BigDecimal> {
    let number = |at: usize| values.get(at)?.as_deref()?.parse::<BigDecimal>().ok();
    let (nulls, rows) = (number(0)?, number(1)?);
    if rows.is_zero() {
        return Some(BigDecimal::zero());
    }
    Some((nulls * BigDecimal::from(100) / rows).with_scale_round(6, bigdecimal::RoundingMode::HalfEven))
}

/// Each side alone: a key that is doubled is wrong also where it is doubled on both.
pub(super) fn duplicates(source: &Measured, target: &Measured, tolerance: &Tolerance) -> Judged {
    let (Measured::Number(source), Measured::Number(target)) = (source, target) else {
        return Judged::unknown("a count is no number", None);
    };
    let (Some(source), Some(target)) = (source.to_int(), target.to_int()) else {
        return Judged::unknown("a count is no number", None);
    };
    let most = tolerance.rows.map_or(0, i128::from);
    let status = match source.max(target) {
        0 => Status::Pass,
        worst if worst <= most => Status::WithinTolerance,
        _ => Status::Fail,
    };
    let message = (status != Status::Pass).then(|| "keys that several rows have".to_owned());
    Judged {
        source: Some(source.to_string()),
        target: Some(target.to_string()),
        message,
        ..Judged::new(status)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tolerance(absolute: Option<&str>, percent: Option<&str>, rows: Option<u64>) -> Tolerance {
        let number = |text: &str| BigDecimal::from_str(text).unwrap();
        Tolerance { absolute: absolute.map(number), percent: percent.map(number), rows, lag: None }
    }

    fn number(text: &str) -> Measured {
        Measured::Number(Decimal::parse(text).unwrap())
    }

    #[test]
    fn sums_are_told_apart_by_the_last_cent() {
        let none = Tolerance::default();
        let (a, b) = (number("123456789012345678901.01"), number("123456789012345678901.02"));
        let judged = measured(&a, &b, &none);
        assert_eq!((judged.status, judged.difference.as_deref()), (Status::Fail, Some("0.01")));
        assert_eq!(measured(&a, &b, &tolerance(Some("0.01"), None, None)).status, Status::WithinTolerance);
        assert_eq!(measured(&a, &b, &tolerance(Some("0.0099"), None, None)).status, Status::Fail);
        assert_eq!(measured(&a, &a, &none).status, Status::Pass);
    }

    #[test]
    fn percents_are_of_the_source() {
        let half = tolerance(None, Some("0.5"), None);
        assert_eq!(measured(&number("1000"), &number("995"), &half).status, Status::WithinTolerance);
        assert_eq!(measured(&number("1000"), &number("994"), &half).status, Status::Fail);
        assert_eq!(measured(&number("-1000"), &number("-1005"), &half).status, Status::WithinTolerance);
        assert_eq!(measured(&number("0"), &number("1"), &half).status, Status::Fail);
    }

    #[test]
    fn nothing_is_not_zero() {
        let loose = tolerance(Some("1000"), Some("100"), Some(1000));
        assert_eq!(measured(&Measured::Null, &number("0"), &loose).status, Status::Fail);
        assert_eq!(measured(&Measured::Null, &Measured::Null, &loose).status, Status::Pass);
        assert_eq!(measured(&number("NaN"), &number("NaN"), &loose).status, Status::Pass);
        assert_eq!(measured(&number("NaN"), &number("1"), &loose).status, Status::Fail);
        assert_eq!(scalars(None, Some("0"), &loose).status, Status::Fail);
    }

    #[test]
    fn floats_need_a_tolerance_to_fail() {
        let (a, b) = (Measured::Float(0.1 + 0.2), Measured::Float(0.3));
        assert_eq!(measured(&a, &b, &Tolerance::default()).status, Status::Unknown);
        assert_eq!(measured(&a, &b, &tolerance(Some("0.001"), None, None)).status, Status::WithinTolerance);
        assert_eq!(measured(&a, &b, &tolerance(Some("0"), None, None)).status, Status::Fail);
    }

    #[test]
    fn freshness_is_lag_and_age() {
        let minute = 60_000_000i64;
        let lag = Tolerance { lag: Some(Duration::from_secs(120)), ..Tolerance::default() };
        let at = |minutes: i64| Measured::Micros(minutes * minute);
        let judge = |source: i64, target: i64, age: Option<u64>| {
            freshness(
                (&at(source), &at(target)),
                &lag,
                age.map(|m| Duration::from_secs(m * 60)),
                100 * minute,
            )
            .status
        };
        assert_eq!(judge(100, 100, None), Status::Pass);
        assert_eq!(judge(99, 100, None), Status::Pass);
        assert_eq!(judge(100, 98, None), Status::WithinTolerance);
        assert_eq!(judge(100, 97, None), Status::Fail);
        assert_eq!(judge(95, 95, Some(5)), Status::Pass);
        assert_eq!(judge(95, 95, Some(4)), Status::Fail);
        let none = freshness((&Measured::Null, &Measured::Null), &lag, Some(Duration::ZERO), 0);
        assert_eq!(none.status, Status::Fail);
    }

    #[test]
    fn scalars_of_two_engines_meet() {
        let none = Tolerance::default();
        for (a, b, status) in [
            ("3000.0", "3e3", Status::Pass),
            ("true", "1", Status::Pass),
            ("f", "0", Status::Pass),
            ("2024-01-01 00:00:00+00", "2024-01-01 00:00:00.000000", Status::Pass),
            ("abc", "abc", Status::Pass),
            ("abc", "ABC", Status::Fail),
            ("1", "abc", Status::Fail),
        ] {
            assert_eq!(scalars(Some(a), Some(b), &none).status, status, "{a} {b}");
        }
    }

    proptest! {
        /// A larger tolerance never turns a pass into a failure, and none at all means equal.
        #[test]
        fn tolerances_only_widen(a in -100_000i64..100_000, by in -500i64..500, most in 0u64..500) {
            let (left, right) = (BigDecimal::from(a), BigDecimal::from(a + by));
            let judged = numbers(&left, &right, &Tolerance::default()).status;
            prop_assert_eq!(judged == Status::Pass, by == 0);
            let wide = tolerance(Some(&most.to_string()), None, None);
            prop_assert_eq!(numbers(&left, &right, &wide).status <= Status::WithinTolerance, by.unsigned_abs() <= most);
        }
    }
}
