//! A tolerance of a column: the distance within which two values count as equal, in exact arithmetic.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bigdecimal::{BigDecimal, Signed};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::comparison::ComparisonType;
use super::plan::{Plan, PlanRefusal};

/// From 0 on, finite; seconds for times. It crosses as text, so that no digit is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distance(BigDecimal);

/// Column name at the source to its distance.
pub type Tolerances = BTreeMap<String, Distance>;

/// More digits are no distance that anybody means, and cost time to compare.
const DIGITS_MAX: usize = 400;
const EXPONENT_MAX: i64 = 400;

impl Distance {
    /// Two values, as exact numbers, are not further apart.
    pub fn covers(&self, left: &BigDecimal, right: &BigDecimal) -> bool {
        (left - right).abs() <= self.0
    }
}

impl FromStr for Distance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text} is no distance");
        if text.len() > DIGITS_MAX {
            return Err(bad());
        }
        let value = BigDecimal::from_str(text.trim()).map_err(|_| bad())?;
        let (_, scale) = value.as_bigint_and_exponent();
        if value.is_negative() || scale.abs() > EXPONENT_MAX {
            return Err(bad());
        }
        Ok(Self(value))
    }
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.normalized().to_plain_string())
    }
}

impl Serialize for Distance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Distance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Refuses a tolerance that would mean nothing: of a column that is not compared, of the key, of a type without distances.
pub fn check(plan: &Plan, tolerances: &Tolerances) -> Result<(), PlanRefusal> {
    let refuse = |what: String, hint: &str| Err(PlanRefusal { what, hint: hint.to_owned() });
    for name in tolerances.keys() {
        let Some(at) = plan.columns.iter().position(|column| column.source == *name) else {
            let names: Vec<&str> =
                plan.columns.iter().skip(plan.key_len).map(|column| column.source.as_str()).collect();
            return refuse(
                format!("the tolerance is of column {name}, which is not compared in {}", plan.source),
                &format!("the columns that are compared are {}", names.join(", ")),
            );
        };
        if at < plan.key_len {
            return refuse(
                format!("the tolerance is of key column {name} of {}", plan.source),
                "rows are told apart by their key: give a tolerance to other columns",
            );
        }
        let column = plan.columns.get(at);
        if !column.is_some_and(|column| !column.as_text && has_distance(&column.comparison)) {
            let declared = column.map_or("", |column| column.source_declared.as_str());
            return refuse(
                format!("column {name} ({declared}) of {} has no distances", plan.source),
                "a tolerance is of numbers, dates, times and timestamps",
            );
        }
    }
    Ok(())
}

fn has_distance(comparison: &ComparisonType) -> bool {
    use ComparisonType as C;
    matches!(
        comparison,
        C::Integer
            | C::Decimal { .. }
            | C::Float { .. }
            | C::Date
            | C::Time { .. }
            | C::Timestamp { .. }
            | C::TimestampTz { .. }
            | C::Dynamic
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_exact_and_cross_whole() {
        let distance: Distance = "0.1000000000000000000001".parse().unwrap();
        let json = serde_json::to_string(&distance).unwrap();
        assert_eq!(json, "\"0.1000000000000000000001\"");
        assert_eq!(serde_json::from_str::<Distance>(&json).unwrap(), distance);
        let number = |text: &str| BigDecimal::from_str(text).unwrap();
        let half: Distance = "0.5".parse().unwrap();
        assert!(!half.covers(&number("9007199254740993"), &number("9007199254740992")));
        assert!(
            half.covers(&number("-0.25"), &number("0.25")) && !half.covers(&number("0"), &number("0.51"))
        );
        for bad in ["-1", "nan", "inf", "", "x", "1e999", "1e-999", "-0.1"] {
            assert!(bad.parse::<Distance>().is_err(), "{bad}");
        }
        assert!("0".parse::<Distance>().is_ok() && "1e3".parse::<Distance>().is_ok());
    }
}
