//! Exact decimals in base 10000, the form PostgreSQL sends and the canonical encoding keeps.

use std::fmt;

/// A finite decimal or one of PostgreSQL's specials. Finite: the digits are base 10000, without leading or
/// trailing zero digits; the first one stands for multiples of `10000^weight`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Decimal {
    NegativeInfinity,
    Finite { negative: bool, weight: i16, digits: Vec<u16> },
    Infinity,
    NaN,
}

/// Digits a decimal may have before and after the point together; PostgreSQL's own limit is lower.
const DIGITS_MAX: usize = 140_000;

impl Decimal {
    pub fn zero() -> Self {
        Self::Finite { negative: false, weight: 0, digits: Vec::new() }
    }

    pub fn from_int(value: i128) -> Self {
        let mut rest = value.unsigned_abs();
        let mut digits = Vec::new();
        while rest > 0 {
            digits.push(u16::try_from(rest % 10_000).unwrap_or(0));
            rest /= 10_000;
        }
        digits.reverse();
        let weight = i16::try_from(digits.len()).unwrap_or(0) - 1;
        Self::finite(value < 0, weight, digits)
    }

    /// Drops leading and trailing zero digits; zero has no sign and no weight.
    pub fn finite(negative: bool, weight: i16, mut digits: Vec<u16>) -> Self {
        while digits.last() == Some(&0) {
            digits.pop();
        }
        let leading = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..leading);
        if digits.is_empty() {
            return Self::zero();
        }
        let weight = i32::from(weight) - i32::try_from(leading).unwrap_or(0);
        Self::Finite { negative, weight: i16::try_from(weight).unwrap_or(i16::MIN), digits }
    }

    /// Parses plain and scientific notation, and PostgreSQL's NaN and Infinity.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, body) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        if body.eq_ignore_ascii_case("nan") {
            return Some(Self::NaN);
        }
        if body.eq_ignore_ascii_case("infinity") || body.eq_ignore_ascii_case("inf") {
            return Some(if negative { Self::NegativeInfinity } else { Self::Infinity });
        }
        let (mantissa, exponent) = match body.find(['e', 'E']) {
            Some(at) => (&body[..at], body[at + 1..].parse::<i32>().ok()?),
            None => (body, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if (whole.is_empty() && fraction.is_empty())
            || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit())
        {
            return None;
        }
        let point = i32::try_from(whole.len()).ok()?.checked_add(exponent)?;
        Self::from_digits(
            negative,
            whole.bytes().chain(fraction.bytes()),
            whole.len() + fraction.len(),
            point,
        )
    }

    /// Decimal digits `0.d1d2d3... * 10^point`.
    fn from_digits(
        negative: bool,
        digits: impl Iterator<Item = u8>,
        count: usize,
        point: i32,
    ) -> Option<Self> {
        if count > DIGITS_MAX || point.unsigned_abs() as usize > DIGITS_MAX {
            return None;
        }
        // Pad in front so that groups of four meet the decimal point.
        let lead = (4 - point.rem_euclid(4)) % 4;
        let mut groups = Vec::with_capacity(count / 4 + 2);
        let (mut group, mut filled) = (0u16, lead);
        for digit in digits {
            group = group * 10 + u16::from(digit - b'0');
            filled += 1;
            if filled == 4 {
                groups.push(group);
                (group, filled) = (0, 0);
            }
        }
        if filled > 0 {
            for _ in filled..4 {
                group *= 10;
            }
            groups.push(group);
        }
        let weight = i16::try_from((point + lead) / 4 - 1).ok()?;
        Some(Self::finite(negative, weight, groups))
    }

    /// A float's shortest decimal form (SQLite keeps decimals as doubles).
    pub fn from_f64(value: f64) -> Self {
        if value.is_nan() {
            Self::NaN
        } else if value.is_infinite() {
            if value < 0.0 { Self::NegativeInfinity } else { Self::Infinity }
        } else {
            Self::parse(&format!("{value:e}")).unwrap_or_else(Self::zero)
        }
    }

    /// Decimal places after the point.
    pub fn scale(&self) -> u32 {
        let Self::Finite { weight, digits, .. } = self else { return 0 };
        let Some(last) = digits.last() else { return 0 };
        let groups = i32::try_from(digits.len()).unwrap_or(i32::MAX) - 1 - i32::from(*weight);
        if groups <= 0 {
            return 0;
        }
        let trailing = (1..4u32).take_while(|n| last % 10u16.pow(*n) == 0).count();
        u32::try_from(groups * 4).unwrap_or(0) - u32::try_from(trailing).unwrap_or(0)
    }

    /// Rounds to `scale` places, halves away from zero, as PostgreSQL and MySQL store.
    #[must_use]
    pub fn rounded(self, scale: u32) -> Self {
        if self.scale() <= scale {
            return self;
        }
        let Self::Finite { negative, weight, digits } = self else { return self };
        let places = i64::from(scale);
        // Decimal digits from the first group's first digit to the rounding place.
        let keep = (i64::from(weight) + 1) * 4 + places;
        if keep < 0 {
            return Self::zero();
        }
        let mut flat: Vec<u8> = Vec::with_capacity(digits.len() * 4 + 1);
        flat.push(0);
        for digit in &digits {
            for power in [1000, 100, 10, 1] {
                flat.push(u8::try_from(digit / power % 10).unwrap_or(0));
            }
        }
        let keep = usize::try_from(keep).unwrap_or(usize::MAX).saturating_add(1);
        if keep < flat.len() {
            let up = flat[keep] >= 5;
            flat.truncate(keep);
            if up {
                for digit in flat.iter_mut().rev() {
                    if *digit == 9 {
                        *digit = 0;
                    } else {
                        *digit += 1;
                        break;
                    }
                }
            }
        }
        let count = flat.len();
        let point = (i32::from(weight) + 1) * 4 + 1;
        Self::from_digits(negative, flat.into_iter().map(|d| d + b'0'), count, point)
            .unwrap_or_else(Self::zero)
    }

    /// As an integer, where it is one and fits.
    pub fn to_int(&self) -> Option<i128> {
        let Self::Finite { negative, weight, digits } = self else { return None };
        if digits.is_empty() {
            return Some(0);
        }
        let groups = usize::try_from(*weight).ok()? + 1;
        if digits.len() > groups || groups > 10 {
            return None;
        }
        let mut value: i128 = 0;
        for at in 0..groups {
            value =
                value.checked_mul(10_000)?.checked_add(i128::from(digits.get(at).copied().unwrap_or(0)))?;
        }
        Some(if *negative { -value } else { value })
    }

    /// The greatest integer that is not above it, where that fits.
    pub fn floor(&self) -> Option<i128> {
        if let Some(whole) = self.to_int() {
            return Some(whole);
        }
        let Self::Finite { negative, weight, digits } = self else { return None };
        // The groups before the point.
        let groups = usize::try_from(i32::from(*weight) + 1).unwrap_or(0);
        let whole = Self::finite(*negative, *weight, digits.iter().take(groups).copied().collect());
        let whole = whole.to_int()?;
        if *negative { whole.checked_sub(1) } else { Some(whole) }
    }

    pub fn to_f64(&self) -> f64 {
        match self {
            Self::NaN => f64::NAN,
            Self::Infinity => f64::INFINITY,
            Self::NegativeInfinity => f64::NEG_INFINITY,
            Self::Finite { .. } => self.to_string().parse().unwrap_or(f64::NAN),
        }
    }
}

/// Plain notation, without trailing zeros. Deliberately only used where values are asked for.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (negative, weight, digits) = match self {
            Self::NaN => return f.write_str("NaN"),
            Self::Infinity => return f.write_str("Infinity"),
            Self::NegativeInfinity => return f.write_str("-Infinity"),
            Self::Finite { negative, weight, digits } => (*negative, i32::from(*weight), digits),
        };
        if digits.is_empty() {
            return f.write_str("0");
        }
        if negative {
            f.write_str("-")?;
        }
        let group = |place: i32| {
            usize::try_from(weight - place).ok().and_then(|at| digits.get(at)).copied().unwrap_or(0)
        };
        if weight < 0 {
            f.write_str("0")?;
        } else {
            write!(f, "{}", group(weight))?;
            for place in (0..weight).rev() {
                write!(f, "{:04}", group(place))?;
            }
        }
        let last = weight - i32::try_from(digits.len()).unwrap_or(0) + 1;
        if last < 0 {
            let mut fraction = String::new();
            for place in (last..0).rev() {
                fraction.push_str(&format!("{:04}", group(place)));
            }
            write!(f, ".{}", fraction.trim_end_matches('0'))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decimal(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Decimal;

    fn text(of: &str) -> String {
        Decimal::parse(of).map_or_else(|| "refused".to_owned(), |d| d.to_string())
    }

    #[test]
    fn one_value_has_one_form() {
        for (from, to) in [
            ("0", "0"),
            ("-0.00", "0"),
            ("1.50", "1.5"),
            ("0001", "1"),
            ("10000", "10000"),
            ("1e4", "10000"),
            ("1e-5", "0.00001"),
            ("123456.7890", "123456.789"),
            ("-.5", "-0.5"),
            ("5.", "5"),
            ("+7", "7"),
            ("1.5E+3", "1500"),
            ("nan", "NaN"),
            ("-infinity", "-Infinity"),
            ("12345678901234567890.1", "12345678901234567890.1"),
        ] {
            assert_eq!(text(from), to, "{from}");
        }
        for bad in ["", "-", ".", "1.2.3", "abc", "1e", "0x10", "1 "] {
            assert!(Decimal::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn rounding_goes_away_from_zero() {
        for (from, scale, to) in [
            ("1.005", 2, "1.01"),
            ("-1.005", 2, "-1.01"),
            ("1.004", 2, "1"),
            ("0.5", 0, "1"),
            ("-0.5", 0, "-1"),
            ("0.4", 0, "0"),
            ("9999.9999", 2, "10000"),
            ("99.95", 1, "100"),
            ("0.00004", 4, "0"),
            ("0.00005", 4, "0.0001"),
            ("0.000000001", 2, "0"),
            ("123.456", 5, "123.456"),
        ] {
            let got = Decimal::parse(from).map(|d| d.rounded(scale).to_string());
            assert_eq!(got.as_deref(), Some(to), "{from} at {scale}");
        }
    }

    #[test]
    fn floors_are_below() {
        for (from, to) in [
            ("1.5", Some(1)),
            ("-1.5", Some(-2)),
            ("0.00001", Some(0)),
            ("-0.00001", Some(-1)),
            ("120000", Some(120_000)),
            ("12345678.9", Some(12_345_678)),
            ("-10000.0001", Some(-10_001)),
            ("0", Some(0)),
            ("1e300", None),
            ("NaN", None),
        ] {
            assert_eq!(Decimal::parse(from).and_then(|d| d.floor()), to, "{from}");
        }
    }

    #[test]
    fn scale_and_integers() {
        assert_eq!(Decimal::parse("1.2300").map(|d| d.scale()), Some(2));
        assert_eq!(Decimal::parse("100").map(|d| d.scale()), Some(0));
        assert_eq!(Decimal::parse("0.0001").map(|d| d.scale()), Some(4));
        assert_eq!(Decimal::parse("1.5").and_then(|d| d.to_int()), None);
        assert_eq!(Decimal::parse("120000").and_then(|d| d.to_int()), Some(120_000));
    }

    proptest! {
        #[test]
        fn integers_round_trip(value in any::<i64>()) {
            let value = i128::from(value);
            let decimal = Decimal::from_int(value);
            prop_assert_eq!(decimal.to_int(), Some(value));
            prop_assert_eq!(decimal.to_string(), value.to_string());
            prop_assert_eq!(Decimal::parse(&value.to_string()), Some(decimal));
        }

        #[test]
        fn text_round_trips(whole in 0u64.., fraction in "[0-9]{0,20}", negative: bool) {
            let text = format!("{}{whole}.{fraction}", if negative { "-" } else { "" });
            let once = Decimal::parse(&text).unwrap();
            prop_assert_eq!(Decimal::parse(&once.to_string()), Some(once));
        }

        #[test]
        fn rounding_agrees_with_integer_arithmetic(units in -10_000_000i64..10_000_000, scale in 0u32..4) {
            let text = format!("{units}e-4");
            let step = 10i64.pow(4 - scale);
            let rounded = (units.abs() + step / 2) / step * units.signum();
            let expected = Decimal::parse(&format!("{rounded}e-{scale}")).unwrap();
            prop_assert_eq!(Decimal::parse(&text).unwrap().rounded(scale), expected);
        }
    }
}
