//! The exact sum of floats, as databases can give it: whole numbers of powers of two, `M@E,M@E`, each meaning M times 2^E.

use bigdecimal::BigDecimal;
use bigdecimal::num_bigint::BigInt;

/// No double has a finer or a coarser unit, however an engine scales it.
const EXPONENT_MAX: i64 = 1_200;
const PARTS_MAX: usize = 4_096;
const DIGITS_MAX: usize = 64;

/// Reads an engine's parts; `None` where they are none.
pub fn read(text: &str) -> Option<BigDecimal> {
    let mut parts = Vec::new();
    for part in text.split(',') {
        let (number, exponent) = part.split_once('@')?;
        if number.len() > DIGITS_MAX || parts.len() >= PARTS_MAX {
            return None;
        }
        let exponent = exponent.parse::<i64>().ok().filter(|exponent| exponent.abs() <= EXPONENT_MAX)?;
        parts.push((number.parse::<BigInt>().ok()?, exponent));
    }
    let least = parts.iter().map(|(_, exponent)| *exponent).min()?;
    let mut sum = BigInt::from(0);
    for (number, exponent) in parts {
        sum += number << usize::try_from(exponent - least).ok()?;
    }
    if least >= 0 {
        return Some(BigDecimal::new(sum << usize::try_from(least).ok()?, 0));
    }
    // A negative power of two has as many decimal places.
    let places = u32::try_from(-least).ok()?;
    Some(BigDecimal::new(sum * BigInt::from(5).pow(places), i64::from(places)))
}

/// A sum of doubles without a rounding: for each exponent the sum of the whole numbers that stand before it.
#[derive(Debug, Default)]
pub struct FloatSum {
    parts: std::collections::BTreeMap<i32, i128>,
    /// A sum of no value is none.
    any: bool,
}

impl FloatSum {
    /// Leaves out what is not finite.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        let bits = value.to_bits();
        let (exponent, fraction) = ((bits >> 52) & 0x7ff, bits & ((1 << 52) - 1));
        let whole = if exponent > 0 { fraction | 1 << 52 } else { fraction };
        let signed = if value.is_sign_negative() { -i128::from(whole) } else { i128::from(whole) };
        let exponent = i32::try_from(exponent.max(1)).unwrap_or(1) - 1_075;
        self.add_part(exponent, signed);
    }

    pub fn add_int(&mut self, value: i64) {
        self.add_part(0, i128::from(value));
    }

    fn add_part(&mut self, exponent: i32, whole: i128) {
        self.any = true;
        // 2^74 values would be needed to overflow.
        let part = self.parts.entry(exponent).or_default();
        *part = part.saturating_add(whole);
    }

    /// As [`read`] takes it; `None` where nothing was added.
    pub fn to_text(&self) -> Option<String> {
        let parts: Vec<String> =
            self.parts.iter().map(|(exponent, whole)| format!("{whole}@{exponent}")).collect();
        self.any.then(|| parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(values: &[f64]) -> Option<BigDecimal> {
        let mut sum = FloatSum::default();
        values.iter().for_each(|value| sum.add(*value));
        read(&sum.to_text()?)
    }

    fn exact(value: f64) -> BigDecimal {
        BigDecimal::try_from(value).unwrap()
    }

    #[test]
    fn sums_have_no_rounding_and_no_end() {
        assert_eq!(sum(&[1e16, 1.0]), Some(exact(1e16) + exact(1.0)));
        assert_ne!(sum(&[1e16, 1.0]), sum(&[1e16, 0.25]));
        assert_eq!(sum(&[1.7e308, 1.7e308]), Some(exact(1.7e308) * BigDecimal::from(2)));
        assert_eq!(sum(&[5e-324, 1e308, -1e308]), Some(exact(5e-324)));
        assert_eq!(sum(&[0.0, -0.0]), Some(BigDecimal::from(0)));
        assert_eq!(sum(&[f64::INFINITY, 5.0, f64::NAN]), Some(exact(5.0)));
        assert_eq!(sum(&[]), None);
        assert_eq!(read("3@-1,1@4"), Some("17.5".parse().unwrap()));
        for bad in ["", "3", "x@1", "1@2000", "1@", "1@1,", "1@9999999999999999999"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn the_order_of_the_values_is_nothing(mut values in prop::collection::vec(any::<f64>(), 0..40)) {
            let before = sum(&values);
            values.reverse();
            prop_assert_eq!(&before, &sum(&values));
            let finite: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
            let expected: BigDecimal = finite.iter().map(|value| exact(*value)).sum();
            prop_assert_eq!(before, (!finite.is_empty()).then_some(expected));
        }
    }
}
