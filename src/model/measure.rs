//! Questions that a database answers with a few numbers: totals of a table, rows per step of a range, one scalar.

use serde::{Deserialize, Serialize};

use super::schema::{ColumnType, TableName};
use super::temporal::{MICROS_PER_SECOND, round_micros};
use super::{ComparisonType, decimal::Decimal, temporal};

/// What is asked of one database. Identifiers are quoted by the engine that answers; the only free SQL is `filter`
/// (the user's condition, as in a plan) and `Scalar`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// One row, a value for each item.
    Totals(Totals),
    /// A row for each unit of the range that holds rows: its number from 0, and the rows in it.
    Counts(Counts),
    /// One row, one value: 1 where an index begins with the column, else 0.
    Indexed { table: TableName, column: String },
    /// One row of two values: the class of the query's one value, and the value as [`super::scalar`] reads it. It runs in
    /// a transaction that cannot write.
    Scalar { sql: String },
}

impl Question {
    /// The user's own condition, where there is one.
    pub fn filter(&self) -> Option<&str> {
        match self {
            Self::Totals(totals) => totals.filter.as_deref(),
            Self::Counts(counts) => counts.filter.as_deref(),
            Self::Indexed { .. } | Self::Scalar { .. } => None,
        }
    }
}

/// Rows of values as the engine writes them, in text; `None` is NULL. Times are of UTC.
pub type Answer = Vec<Vec<Option<String>>>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub table: TableName,
    pub filter: Option<String>,
    pub items: Vec<Total>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// Only these rows.
    pub within: Option<Range>,
    pub what: Aggregate,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregate {
    Count,
    /// Rows whose column has no place among the others. `alone`: of the whole table, by a query of its own that an index
    /// on the column can serve.
    Misfits {
        column: MeasuredColumn,
        kind: Misfit,
        alone: bool,
    },
    /// Exact. Each value is rounded to `scale` places first where one is given; of floats, the finite ones are added, and
    /// the answer is what [`super::float_sum::read`] reads.
    Sum {
        column: MeasuredColumn,
        scale: Option<u32>,
    },
    Min(MeasuredColumn),
    Max(MeasuredColumn),
    /// Keys without NULL, compared by bytes, that more than one row has.
    Duplicates(Vec<MeasuredColumn>),
}

/// Why a value has no place among a column's others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Misfit {
    Null,
    Infinite,
    /// Not NULL, and nothing that the column's type means: NaN, a date that no calendar has, SQLite's values of another
    /// class.
    Unreadable,
}

impl Misfit {
    pub const ALL: [Self; 3] = [Self::Null, Self::Infinite, Self::Unreadable];
}

/// How many values of a column have no place among the others, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Misfits {
    pub null: u64,
    pub infinite: u64,
    pub unreadable: u64,
}

impl Misfits {
    /// From the answers to one item of each of [`Misfit::ALL`].
    pub fn read(cells: &[Option<String>]) -> Option<Self> {
        let count = |at: usize| cells.get(at)?.as_deref()?.parse::<u64>().ok();
        Some(Self { null: count(0)?, infinite: count(1)?, unreadable: count(2)? })
    }

    pub fn total(&self) -> u64 {
        self.null.saturating_add(self.infinite).saturating_add(self.unreadable)
    }

    /// The reasons that there are, with their numbers.
    pub fn words(&self) -> String {
        let all = [(self.null, "NULL"), (self.infinite, "infinite"), (self.unreadable, "unreadable")];
        let said: Vec<String> = all
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        said.join(", ")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuredColumn {
    pub name: String,
    pub ty: ColumnType,
}

/// Rows whose column is at or above `from` and below `to`; an end that is open takes every value that a calendar has.
/// Points are integers, days since 1970-01-01, or microseconds since then, as the column's type wants. NULL, infinity and
/// dates that no calendar has are in no range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub column: MeasuredColumn,
    pub from: Option<i128>,
    pub to: Option<i128>,
}

/// Both ends of `range` are given. Units, of so many integers, days or seconds, are numbered from the one that begins at
/// `origin`, which is not above the range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub table: TableName,
    pub filter: Option<String>,
    pub range: Range,
    pub origin: i128,
    pub unit: u64,
}

/// Units of a [`Counts`]; more are refused.
pub const UNITS_MAX: u64 = 200_000;

/// What a range is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    Integer,
    Days,
    Micros,
}

impl ColumnType {
    /// The axis on which ranges of this type lie; `None` where it has no order that all engines share.
    pub fn axis(&self) -> Option<Axis> {
        match self {
            Self::Int { .. } => Some(Axis::Integer),
            Self::Date => Some(Axis::Days),
            Self::Timestamp { .. } | Self::TimestampTz { .. } => Some(Axis::Micros),
            _ => None,
        }
    }
}

/// The width of a backfill's steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Hour,
    Day,
    Month,
    /// Of an integer column.
    Units(u64),
}

impl std::str::FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "hour" => Ok(Self::Hour),
            "day" => Ok(Self::Day),
            "month" => Ok(Self::Month),
            _ => match text.parse() {
                Ok(units) if units > 0 => Ok(Self::Units(units)),
                _ => Err("write hour, day, month, or a number of integers".to_owned()),
            },
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hour => f.write_str("hour"),
            Self::Day => f.write_str("day"),
            Self::Month => f.write_str("month"),
            Self::Units(units) => write!(f, "{units}"),
        }
    }
}

/// The smallest point of a column of this type whose value, as it is compared, is at or above `border`. Where the
/// other side keeps fewer digits of a second, values of this side are compared rounded, and a border in between must be
/// where the rounding has it; else one row would be in one step here and in the next one there.
pub fn border_for(comparison: &ComparisonType, border: i128) -> i128 {
    let (ComparisonType::Timestamp { digits, rounding } | ComparisonType::TimestampTz { digits, rounding }) =
        comparison
    else {
        return border;
    };
    let Ok(at) = i64::try_from(border) else { return border };
    if *digits >= 6 || at % MICROS_PER_SECOND != 0 {
        return border;
    }
    let half = 10i64.pow(u32::from(6 - *digits)) / 2;
    let first = [-half, 1 - half].into_iter().map(|by| at.saturating_add(by));
    first.chain([at]).find(|point| round_micros(*point, *digits, *rounding) >= at).map_or(border, i128::from)
}

/// A total as a value that the other side's can be compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Measured {
    Null,
    /// Exact.
    Number(Decimal),
    Float(f64),
    /// Days or microseconds.
    Days(i32),
    Micros(i64),
}

/// Reads an engine's text by what the column pair is compared as; `None` where it is none of that.
pub fn read(comparison: &ComparisonType, text: Option<&str>) -> Option<Measured> {
    let Some(text) = text else { return Some(Measured::Null) };
    Some(match comparison {
        ComparisonType::Integer => Measured::Number(Decimal::parse(text)?),
        ComparisonType::Decimal { scale } => {
            let value = Decimal::parse(text)?;
            Measured::Number(match scale {
                Some(scale) => value.rounded(*scale),
                None => value,
            })
        }
        ComparisonType::Float { .. } => Measured::Float(match text {
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            text => text.parse().ok()?,
        }),
        ComparisonType::Date => Measured::Days(match text {
            "infinity" => temporal::DATE_INFINITY,
            "-infinity" => temporal::DATE_NEG_INFINITY,
            text => temporal::parse_date(text).or_else(|| temporal::parse_far_date(text))?,
        }),
        ComparisonType::Timestamp { digits, rounding } | ComparisonType::TimestampTz { digits, rounding } => {
            let micros = match text {
                "infinity" => temporal::TIMESTAMP_INFINITY,
                "-infinity" => temporal::TIMESTAMP_NEG_INFINITY,
                text => match temporal::parse_timestamp(text) {
                    Some((micros, _)) => micros,
                    None => temporal::parse_far_timestamp(text)?,
                },
            };
            Measured::Micros(round_micros(micros, *digits, *rounding))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Rounding;

    #[test]
    fn steps_are_read() {
        assert_eq!("day".parse(), Ok(Step::Day));
        assert_eq!("5000".parse(), Ok(Step::Units(5000)));
        for bad in ["0", "-1", "week", ""] {
            assert!(bad.parse::<Step>().is_err(), "{bad}");
        }
    }

    #[test]
    fn totals_of_two_engines_meet() {
        let scaled = ComparisonType::Decimal { scale: Some(2) };
        assert_eq!(read(&scaled, Some("3000.0000")), read(&scaled, Some("3e3")));
        let zoned = ComparisonType::TimestampTz { digits: 6, rounding: Rounding::Truncate };
        assert_eq!(
            read(&zoned, Some("2024-03-31 01:00:00+00")),
            read(&zoned, Some("2024-03-31 01:00:00.000000"))
        );
        let instant = |text| read(&zoned, Some(text));
        assert!(matches!(instant("0044-03-15 12:00:00+00 BC"), Some(Measured::Micros(..0))));
        assert_eq!(instant("10000-01-01 00:00:00+00"), Some(Measured::Micros(253_402_300_800_000_000)));
        assert_eq!(read(&ComparisonType::Date, Some("0001-12-31 BC")), Some(Measured::Days(-719_163)));
        assert_eq!(read(&ComparisonType::Date, Some("0001-12-31 AD")), None);
        assert_eq!(read(&ComparisonType::Integer, Some("x")), None);
        assert_eq!(read(&ComparisonType::Integer, None), Some(Measured::Null));
        assert_eq!(read(&ComparisonType::Text { trim: false }, Some("a")), None);
    }

    #[test]
    fn questions_cross_the_wire_with_any_integer() {
        let column =
            MeasuredColumn { name: "id".to_owned(), ty: ColumnType::Int { bits: 64, signed: false } };
        let range = Range { column, from: Some(i128::from(i64::MIN)), to: Some(i128::from(u64::MAX) + 1) };
        let question = Question::Counts(Counts {
            table: TableName::new(None, "t"),
            filter: None,
            range,
            origin: i128::from(i64::MIN),
            unit: 1,
        });
        let bytes = serde_json::to_vec(&question).unwrap();
        assert_eq!(serde_json::from_slice::<Question>(&bytes).unwrap(), question);
    }

    proptest! {
        /// A value is at or above the border as it is compared exactly if it is at or above the border as it is stored.
        #[test]
        fn borders_part_values_where_their_rounding_does(
            second in -2_000_000_000i64..2_000_000_000,
            offset in -1_500_000i64..1_500_000,
            digits in 0u8..=6,
            rounding in prop_oneof![
                Just(Rounding::Truncate), Just(Rounding::HalfUp), Just(Rounding::HalfAwayFromZero)
            ],
        ) {
            let border = second * MICROS_PER_SECOND;
            let value = border + offset;
            let comparison = ComparisonType::Timestamp { digits, rounding };
            let stored = border_for(&comparison, i128::from(border));
            prop_assert_eq!(
                i128::from(value) >= stored,
                round_micros(value, digits, rounding) >= border
            );
        }
    }
}
