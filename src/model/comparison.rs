//! Which pairs of columns may be compared, and as what.

use serde::{Deserialize, Serialize};

use super::schema::{ColumnType, Rounding};

/// What the values of a column pair are compared as. It fixes the canonical encoding of both sides.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComparisonType {
    /// Exact integers, booleans as 0 and 1.
    Integer,
    /// Exact decimals without trailing zeros, rounded to `scale` places where one is declared.
    Decimal {
        scale: Option<u32>,
    },
    /// IEEE floats at 32 or 64 bits; one NaN, no negative zero.
    Float {
        bits: u8,
    },
    /// UTF-8 text; with `trim`, trailing blanks are not part of the value.
    Text {
        trim: bool,
    },
    Bytes,
    /// A string of '0' and '1'.
    Bits,
    Uuid,
    Date,
    /// Microseconds since midnight (MySQL: signed, beyond a day), at `digits` of a second.
    Time {
        digits: u8,
        rounding: Rounding,
    },
    TimeTz {
        digits: u8,
    },
    /// Microseconds without zone.
    Timestamp {
        digits: u8,
        rounding: Rounding,
    },
    /// Microseconds of UTC.
    TimestampTz {
        digits: u8,
        rounding: Rounding,
    },
    Interval,
    /// JSON with sorted keys and canonical numbers.
    Json,
    /// Labels between commas, each once and in byte order: the order in which a SET declares them means nothing.
    Set,
    Array(Box<ComparisonType>),
    /// SQLite against SQLite: the stored class and value, whatever the column was declared as.
    Dynamic,
    /// The same bit by bit, the sign of a zero too: what SQLite must be given to store the value again. Every value is
    /// irregular to it.
    Stored,
}

/// One side of a column pair.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    pub ty: &'a ColumnType,
    pub rounding: Rounding,
    pub dynamic: bool,
}

/// Chooses the comparison type of a pair, or says why there is none.
/// `assume_utc`: values without zone are UTC where the other side has zones.
pub fn comparison_for(
    source: Side<'_>,
    target: Side<'_>,
    assume_utc: bool,
) -> Result<ComparisonType, String> {
    use ColumnType as T;
    if source.dynamic && target.dynamic {
        return Ok(ComparisonType::Dynamic);
    }
    let coarser = |a: u8, b: u8| if a <= b { (a, source.rounding) } else { (b, target.rounding) };
    let found = match (source.ty, target.ty) {
        (T::Unsupported(name), _) | (_, T::Unsupported(name)) => {
            return Err(format!("type {name} has no canonical form"));
        }
        (T::Bool | T::Int { .. }, T::Bool | T::Int { .. } | T::Bits) | (T::Bits, T::Bool | T::Int { .. }) => {
            ComparisonType::Integer
        }
        (T::Decimal { .. }, T::Bool | T::Int { .. }) | (T::Bool | T::Int { .. }, T::Decimal { .. }) => {
            ComparisonType::Decimal { scale: None }
        }
        (T::Decimal { scale: a, .. }, T::Decimal { scale: b, .. }) => ComparisonType::Decimal {
            scale: match (a, b) {
                (Some(a), Some(b)) => Some(*a.min(b)),
                (one, other) => one.or(*other),
            },
        },
        (T::Float { bits: a }, T::Float { bits: b }) => ComparisonType::Float { bits: *a.min(b) },
        (T::Text { padded: a }, T::Text { padded: b }) => ComparisonType::Text { trim: *a || *b },
        (T::Named(_), T::Text { padded }) | (T::Text { padded }, T::Named(_)) => {
            ComparisonType::Text { trim: *padded }
        }
        (T::Named(a), T::Named(b)) if a == b => ComparisonType::Text { trim: false },
        (T::Bytes, T::Bytes) => ComparisonType::Bytes,
        (T::Bits, T::Bits) => ComparisonType::Bits,
        (T::Uuid, T::Uuid | T::Text { .. } | T::Bytes) | (T::Text { .. } | T::Bytes, T::Uuid) => {
            ComparisonType::Uuid
        }
        (T::Date, T::Date) => ComparisonType::Date,
        (T::Time { digits: a }, T::Time { digits: b }) => {
            let (digits, rounding) = coarser(*a, *b);
            ComparisonType::Time { digits, rounding }
        }
        (T::TimeTz { digits: a }, T::TimeTz { digits: b }) => ComparisonType::TimeTz { digits: *a.min(b) },
        (T::Timestamp { digits: a }, T::Timestamp { digits: b }) => {
            let (digits, rounding) = coarser(*a, *b);
            ComparisonType::Timestamp { digits, rounding }
        }
        (T::TimestampTz { digits: a }, T::TimestampTz { digits: b }) => {
            let (digits, rounding) = coarser(*a, *b);
            ComparisonType::TimestampTz { digits, rounding }
        }
        (T::Timestamp { digits: a }, T::TimestampTz { digits: b })
        | (T::TimestampTz { digits: a }, T::Timestamp { digits: b }) => {
            if !assume_utc {
                return Err("one side has a time zone and the other has none; --assume-utc reads the zoneless side as UTC".to_owned());
            }
            let (digits, rounding) = coarser(*a, *b);
            ComparisonType::TimestampTz { digits, rounding }
        }
        (T::Interval, T::Interval) => ComparisonType::Interval,
        (T::Json, T::Json | T::Text { .. }) | (T::Text { .. }, T::Json) => ComparisonType::Json,
        (T::Array(a), T::Array(b)) => {
            let inner = comparison_for(Side { ty: a, ..source }, Side { ty: b, ..target }, assume_utc)?;
            ComparisonType::Array(Box::new(inner))
        }
        _ => return Err("the two types have no common meaning".to_owned()),
    };
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(ty: &ColumnType, rounding: Rounding) -> Side<'_> {
        Side { ty, rounding, dynamic: false }
    }

    fn pair(a: &ColumnType, b: &ColumnType) -> Result<ComparisonType, String> {
        let there = comparison_for(side(a, Rounding::HalfAwayFromZero), side(b, Rounding::Truncate), false);
        let back = comparison_for(side(b, Rounding::Truncate), side(a, Rounding::HalfAwayFromZero), false);
        if a != b {
            assert_eq!(there, back, "the choice must not depend on the direction");
        }
        there
    }

    #[test]
    fn pairs_with_one_meaning_are_compared_as_it() {
        use ColumnType as T;
        let int = T::Int { bits: 64, signed: true };
        let dec = |scale| T::Decimal { precision: Some(12), scale };
        assert_eq!(pair(&int, &T::Bool), Ok(ComparisonType::Integer));
        assert_eq!(pair(&int, &dec(Some(2))), Ok(ComparisonType::Decimal { scale: None }));
        assert_eq!(pair(&dec(Some(4)), &dec(Some(2))), Ok(ComparisonType::Decimal { scale: Some(2) }));
        assert_eq!(pair(&dec(None), &dec(Some(2))), Ok(ComparisonType::Decimal { scale: Some(2) }));
        assert_eq!(
            pair(&T::Float { bits: 64 }, &T::Float { bits: 32 }),
            Ok(ComparisonType::Float { bits: 32 })
        );
        assert_eq!(pair(&T::Uuid, &T::Text { padded: true }), Ok(ComparisonType::Uuid));
        assert_eq!(pair(&T::Uuid, &T::Bytes), Ok(ComparisonType::Uuid));
        assert_eq!(pair(&T::Json, &T::Text { padded: false }), Ok(ComparisonType::Json));
        assert_eq!(
            pair(&T::Timestamp { digits: 6 }, &T::Timestamp { digits: 3 }),
            Ok(ComparisonType::Timestamp { digits: 3, rounding: Rounding::Truncate })
        );
        assert_eq!(
            pair(&T::Array(Box::new(int.clone())), &T::Array(Box::new(int))),
            Ok(ComparisonType::Array(Box::new(ComparisonType::Integer)))
        );
    }

    #[test]
    fn pairs_without_one_meaning_are_refused() {
        use ColumnType as T;
        let int = T::Int { bits: 64, signed: true };
        assert!(pair(&int, &T::Text { padded: false }).is_err());
        assert!(pair(&int, &T::Float { bits: 64 }).is_err());
        assert!(pair(&T::Date, &T::Timestamp { digits: 0 }).is_err());
        assert!(pair(&T::Bytes, &T::Text { padded: false }).is_err());
        assert!(pair(&T::Named("inet".into()), &T::Named("cidr".into())).is_err());
        let refused = pair(&T::Timestamp { digits: 6 }, &T::TimestampTz { digits: 6 });
        assert!(refused.is_err_and(|why| why.contains("--assume-utc")));
    }
}
