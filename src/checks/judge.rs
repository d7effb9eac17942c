//! Two measurements and a tolerance: the same, near enough, apart, or not to be told. Decimals are compared exactly.

use std::str::FromStr;
use std::time::Duration;

use bigdecimal::{BigDecimal, RoundingMode, ToPrimitive, Zero};

use crate::config::Tolerance;
use crate::model::decimal::Decimal;
use crate::model::measure::Measured;
use crate::model::temporal::MICROS_PER_DAY;
use crate::report::checks::Status;

/// Digits behind the point to which shares are reckoned.
const SHARE_SCALE: i64 = 40;
/// Significant digits of a share that are shown.
const SHARE_SHOWN: u64 = 8;

/// What came out of one check.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judged {
    pub(super) status: Status,
    pub(super) source: Option<String>,
    pub(super) target: Option<String>,
    pub(super) difference: Option<String>,
    /// How far apart the two sides are, in whatever this check measures: to find the worst of several results.
    pub(super) extent: Option<f64>,
    pub(super) message: Option<String>,
    pub(super) hint: Option<String>,
}

impl Judged {
    pub(super) fn new(status: Status) -> Self {
        Self { status, source: None, target: None, difference: None, extent: None, message: None, hint: None }
    }

    pub(super) fn unknown(message: impl Into<String>, hint: Option<String>) -> Self {
        Self { message: Some(message.into()), hint, ..Self::new(Status::Unknown) }
    }

    pub(super) fn saying(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Adds to what is said.
    pub(super) fn also(self, more: &str) -> Self {
        let said = self.message.clone().map_or_else(|| more.to_owned(), |said| format!("{said}; {more}"));
        self.saying(said)
    }

    pub(super) fn hinted(self, hint: &str) -> Self {
        Self { hint: Some(hint.to_owned()), ..self }
    }

    /// The two sides agree, or nearly.
    pub(super) fn agrees(&self) -> bool {
        self.status <= Status::WithinTolerance
    }

    /// What agrees in numbers is not known after all; a difference stays one.
    pub(super) fn doubted(self, why: &str) -> Self {
        let status = if self.agrees() { Status::Unknown } else { self.status };
        Self { status, ..self }.also(why)
    }
}

pub(super) fn exact(decimal: &Decimal) -> Option<BigDecimal> {
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
        extent: difference.to_f64(),
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
            _ => special(),
        },
        (Measured::Float(left), Measured::Float(right)) => {
            match (BigDecimal::try_from(*left), BigDecimal::try_from(*right)) {
                (Ok(left), Ok(right)) => floats(&left, &right, tolerance),
                _ => special(),
            }
        }
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

/// A sum or an extreme that is not finite has no distance to another; infinities may hide what was added to them.
fn special() -> Judged {
    Judged::unknown("a value is not a finite number", None)
}

/// Floats as exact numbers, shown in their shortest form where that tells them apart.
pub(super) fn floats(left: &BigDecimal, right: &BigDecimal, tolerance: &Tolerance) -> Judged {
    let judged = numbers(left, right, tolerance);
    let short = |number: &BigDecimal| {
        let float = number.to_f64().filter(|float| float.is_finite());
        float.map_or_else(|| number.with_prec(17).to_scientific_notation(), |float| format!("{float:?}"))
    };
    let (source, target) = (short(left), short(right));
    if source == target && left != right {
        return judged;
    }
    Judged { source: Some(source), target: Some(target), ..judged }
}

pub(super) fn moments(left: i128, right: i128, tolerance: &Tolerance) -> Judged {
    let apart = left.abs_diff(right);
    let lag = tolerance.lag.is_some_and(|lag| apart <= lag.as_micros());
    let status = match apart {
        0 => Status::Pass,
        _ if lag => Status::WithinTolerance,
        _ => Status::Fail,
    };
    Judged { difference: (apart > 0).then(|| duration(apart)), extent: apart.to_f64(), ..Judged::new(status) }
}

pub(super) fn duration(micros: u128) -> String {
    let micros = u64::try_from(micros).unwrap_or(u64::MAX);
    let whole = if micros >= 1_000_000 { micros / 1_000_000 * 1_000_000 } else { micros };
    // Months and years are of no one length.
    let (days, rest) = (whole / (86_400 * 1_000_000), whole % (86_400 * 1_000_000));
    let rest = (rest > 0).then(|| humantime::format_duration(Duration::from_micros(rest)).to_string());
    let days = (days > 0).then(|| format!("{days}day{}", if days == 1 { "" } else { "s" }));
    let said: Vec<String> = days.into_iter().chain(rest).collect();
    if said.is_empty() { "0s".to_owned() } else { said.join(" ") }
}

/// The newest of both sides, of those that are not in the future: how far the target is behind, and how old they are at `now`.
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
                let judged = Judged { extent: age.to_f64(), ..Judged::new(Status::Fail) };
                return judged.saying(format!("the {side}'s newest row is {} old", duration(age)));
            }
        }
    }
    // A target that is ahead has what the source has.
    let behind = source - target;
    if behind <= 0 {
        return Judged::new(Status::Pass).saying("the target's newest row is as new as the source's");
    }
    let judged = moments(source, target, tolerance);
    let said = format!("the target is {} behind", duration(behind.unsigned_abs()));
    Judged { difference: None, ..judged }.saying(said)
}

/// NULLs out of rows, in percent.
fn share(nulls: u64, rows: u64) -> BigDecimal {
    let percent = BigDecimal::from(nulls) * BigDecimal::from(100) / BigDecimal::from(rows.max(1));
    percent.with_scale_round(SHARE_SCALE, RoundingMode::HalfEven)
}

/// Both shares are of some rows. Equal ones are found without a rounding.
pub(super) fn shares(source: (u64, u64), target: (u64, u64), tolerance: &Tolerance) -> Judged {
    let crossed = |nulls: u64, rows: u64| u128::from(nulls) * u128::from(rows);
    let (left, right) = (share(source.0, source.1), share(target.0, target.1));
    let mut judged = if crossed(source.0, target.1) == crossed(target.0, source.1) {
        Judged::new(Status::Pass)
    } else {
        match numbers(&left, &right, tolerance) {
            // Closer than what is reckoned to.
            equal if equal.status == Status::Pass => Judged { status: Status::Fail, ..equal },
            other => other,
        }
    };
    let shown = |share: &BigDecimal| share.with_prec(SHARE_SHOWN).normalized().to_plain_string();
    judged.difference = judged.difference.as_ref().map(|_| shown(&(&left - &right).abs()));
    Judged { source: Some(shown(&left)), target: Some(shown(&right)), ..judged }
}

/// Each side alone: a key that is doubled is wrong also where it is doubled on both.
pub(super) fn duplicates(source: u64, target: u64, tolerance: &Tolerance) -> Judged {
    let (status, message) = match source.max(target) {
        0 => (Status::Pass, "no key is doubled"),
        worst if worst <= tolerance.rows.unwrap_or(0) => {
            (Status::WithinTolerance, "keys that several rows have")
        }
        _ => (Status::Fail, "keys that several rows have"),
    };
    Judged {
        source: Some(source.to_string()),
        target: Some(target.to_string()),
        extent: source.max(target).to_f64(),
        ..Judged::new(status).saying(message)
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
        for odd in ["NaN", "Infinity", "-Infinity"] {
            assert_eq!(measured(&number(odd), &number(odd), &loose).status, Status::Unknown, "{odd}");
            assert_eq!(measured(&number(odd), &number("1"), &loose).status, Status::Unknown, "{odd}");
        }
        for odd in [f64::NAN, f64::INFINITY] {
            let (left, right) = (Measured::Float(odd), Measured::Float(odd));
            assert_eq!(measured(&left, &right, &loose).status, Status::Unknown, "{odd}");
        }
    }

    #[test]
    fn floats_are_exact_numbers() {
        let none = Tolerance::default();
        let (a, b) = (Measured::Float(0.1 + 0.2), Measured::Float(0.3));
        let judged = measured(&a, &b, &none);
        assert_eq!(judged.status, Status::Fail);
        assert_eq!(judged.source.as_deref(), Some("0.30000000000000004"));
        assert_eq!(measured(&a, &b, &tolerance(Some("0.001"), None, None)).status, Status::WithinTolerance);
        let (a, b) = (Measured::Float(1.7e308), Measured::Float(0.0));
        assert_eq!(measured(&a, &b, &none).status, Status::Fail);
        assert_eq!(measured(&Measured::Float(-0.0), &b, &none).status, Status::Pass);
        // Two sums that no double tells apart are shown apart.
        let sum = |text: &str| BigDecimal::from_str(text).unwrap();
        let judged = floats(&sum("10000000000000001"), &sum("10000000000000000.25"), &none);
        assert_eq!((judged.status, judged.difference.as_deref()), (Status::Fail, Some("0.75")));
        assert_ne!(judged.source, judged.target);
        let beyond = floats(&sum("3.4e308"), &sum("0"), &none);
        assert_eq!((beyond.status, beyond.source.as_deref()), (Status::Fail, Some("3.4000000000000000e308")));
    }

    #[test]
    fn shares_are_told_apart_whatever_they_are_rounded_to() {
        let none = Tolerance::default();
        let few = shares((1, 10_000_000_000), (2, 10_000_000_000), &none);
        assert_eq!((few.status, few.source.as_deref()), (Status::Fail, Some("0.00000001")));
        assert_eq!(shares((1, 3), (2, 6), &none).status, Status::Pass);
        assert_eq!(shares((1, 4), (1, 4), &none).source.as_deref(), Some("25"));
        assert_eq!(shares((1, 4), (1, 3), &tolerance(Some("9"), None, None)).status, Status::WithinTolerance);
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
