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
///
/// Values are compared at the target's precision: what the source has beyond it is rounded as the target would round it, and
/// a target that is as fine as the source, or finer, is compared exactly. SQLite keeps what it is given, whatever scale is
/// declared: its decimals are compared exactly in both directions.
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
    let rounding = target.rounding;
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
        (T::Decimal { scale: own, .. }, T::Decimal { scale, .. }) => {
            let exact = source.dynamic
                || target.dynamic
                || matches!((own, scale), (Some(own), Some(scale)) if own <= scale);
            ComparisonType::Decimal { scale: scale.filter(|_| !exact) }
        }
        (T::Float { .. }, T::Float { bits }) => ComparisonType::Float { bits: *bits },
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
        (T::Time { .. }, T::Time { digits }) => ComparisonType::Time { digits: *digits, rounding },
        (T::TimeTz { .. }, T::TimeTz { digits }) => ComparisonType::TimeTz { digits: *digits },
        (T::Timestamp { .. }, T::Timestamp { digits }) => {
            ComparisonType::Timestamp { digits: *digits, rounding }
        }
        (T::TimestampTz { .. }, T::TimestampTz { digits }) => {
            ComparisonType::TimestampTz { digits: *digits, rounding }
        }
        (T::Timestamp { .. }, T::TimestampTz { digits })
        | (T::TimestampTz { .. }, T::Timestamp { digits }) => {
            if !assume_utc {
                return Err("one side has a time zone and the other has none; --assume-utc reads the zoneless side as UTC".to_owned());
            }
            ComparisonType::TimestampTz { digits: *digits, rounding }
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

/// Values of the source are rounded to what the target holds before they are compared.
pub fn is_rounded(comparison: &ComparisonType, source: &ColumnType) -> bool {
    use ColumnType as T;
    use ComparisonType as C;
    match (comparison, source) {
        (C::Decimal { scale: Some(scale) }, T::Decimal { scale: own, .. }) => {
            own.is_none_or(|own| own > *scale)
        }
        (C::Float { bits }, T::Float { bits: own }) => own > bits,
        (
            C::Time { digits, .. }
            | C::TimeTz { digits }
            | C::Timestamp { digits, .. }
            | C::TimestampTz { digits, .. },
            T::Time { digits: own }
            | T::TimeTz { digits: own }
            | T::Timestamp { digits: own }
            | T::TimestampTz { digits: own },
        ) => own > digits,
        (C::Array(inner), T::Array(source)) => is_rounded(inner, source),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(ty: &ColumnType, rounding: Rounding) -> Side<'_> {
        Side { ty, rounding, dynamic: false }
    }

    fn pair(a: &ColumnType, b: &ColumnType) -> Result<ComparisonType, String> {
        comparison_for(side(a, Rounding::HalfAwayFromZero), side(b, Rounding::Truncate), false)
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
        for (source, target) in
            [(Some(2), Some(4)), (Some(2), Some(2)), (Some(2), None), (None, None), (Some(0), Some(9))]
        {
            let exact = Ok(ComparisonType::Decimal { scale: None });
            assert_eq!(pair(&dec(source), &dec(target)), exact, "{source:?} {target:?}");
        }
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
            pair(&T::Timestamp { digits: 0 }, &T::Timestamp { digits: 3 }),
            Ok(ComparisonType::Timestamp { digits: 3, rounding: Rounding::Truncate })
        );
        assert_eq!(
            pair(&T::Float { bits: 32 }, &T::Float { bits: 64 }),
            Ok(ComparisonType::Float { bits: 64 })
        );
        assert_eq!(
            pair(&T::Array(Box::new(int.clone())), &T::Array(Box::new(int))),
            Ok(ComparisonType::Array(Box::new(ComparisonType::Integer)))
        );
    }

    #[test]
    fn what_nothing_holds_to_its_scale_is_compared_exactly() {
        let dec = |scale| ColumnType::Decimal { precision: Some(5), scale };
        let exact = Ok(ComparisonType::Decimal { scale: None });
        for (a, b) in [(None, Some(0)), (Some(2), Some(0)), (Some(0), Some(2))] {
            let (a, b) = (dec(a), dec(b));
            let lite = |ty| Side { dynamic: true, ..side(ty, Rounding::Truncate) };
            assert_eq!(comparison_for(lite(&a), side(&b, Rounding::Truncate), false), exact);
            assert_eq!(comparison_for(side(&b, Rounding::Truncate), lite(&a), false), exact);
        }
    }

    #[test]
    fn the_finer_source_is_rounded_and_nothing_else() {
        use ColumnType as T;
        let array = |ty: &T| T::Array(Box::new(ty.clone()));
        let dec = |scale| T::Decimal { precision: Some(12), scale };
        for (fine, coarse) in [
            (dec(Some(4)), dec(Some(2))),
            (dec(None), dec(Some(2))),
            (T::Float { bits: 64 }, T::Float { bits: 32 }),
            (T::Time { digits: 6 }, T::Time { digits: 0 }),
            (T::TimeTz { digits: 6 }, T::TimeTz { digits: 3 }),
            (T::Timestamp { digits: 6 }, T::Timestamp { digits: 3 }),
            (T::TimestampTz { digits: 1 }, T::TimestampTz { digits: 0 }),
        ] {
            for (source, target, rounds) in
                [(&fine, &coarse, true), (&coarse, &fine, false), (&fine, &fine, false)]
            {
                assert_eq!(
                    is_rounded(&pair(source, target).unwrap(), source),
                    rounds,
                    "{source:?} {target:?}"
                );
                let (source, target) = (array(source), array(target));
                assert_eq!(is_rounded(&pair(&source, &target).unwrap(), &source), rounds);
            }
        }
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
