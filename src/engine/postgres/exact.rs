//! Which keys SQL's equality finds however they are spelled: a list of what is known to hold, not of what is known to fail.
//!
//! A column is on it if every value that it may store and that has one canonical form is equal, for the server, to any other
//! of that form. Then a statement with one of them finds the row, whichever of them is stored. A uuid in text, text whose
//! trailing blanks are not compared, JSON in text, bits that are compared as a number: these are stored in several
//! spellings that differ for the server, and are not on it.

use crate::model::{AccessColumn, ColumnType, ComparisonType};

/// Types that are read by their text form, and whose input gives back the value that the text was written of.
const SOUND: [&str; 20] = [
    "inet",
    "cidr",
    "macaddr",
    "macaddr8",
    "oid",
    "xid",
    "xid8",
    "tid",
    "pg_lsn",
    "int4range",
    "int8range",
    "numrange",
    "daterange",
    "tsrange",
    "tstzrange",
    "int4multirange",
    "int8multirange",
    "nummultirange",
    "datemultirange",
    "tstzmultirange",
];

/// Whether a row of this key column is found by equality with the key's value, whatever its spelling.
pub(super) fn finds_every_spelling(column: &AccessColumn) -> bool {
    if column.as_text {
        // What has one text is one value; nothing else is compared.
        return has_one_text(&column.ty, &column.declared);
    }
    equal(&column.ty, &column.comparison, &column.declared)
}

fn equal(ty: &ColumnType, comparison: &ComparisonType, declared: &str) -> bool {
    use ColumnType as T;
    use ComparisonType as C;
    match (ty, comparison) {
        (T::Bool | T::Int { .. }, C::Integer | C::Decimal { scale: None }) => true,
        // NaN is equal to itself here, and zeros behind the point mean nothing.
        (T::Decimal { .. }, C::Decimal { scale: None }) => !is_money(ty),
        (T::Decimal { scale: Some(own), .. }, C::Decimal { scale: Some(compared) }) => {
            !is_money(ty) && own <= compared
        }
        // NaN is equal to itself here, and so is zero of either sign.
        (T::Float { bits: own }, C::Float { bits: compared }) => own == compared,
        // Every collation holds equal what has the same bytes; of char(n) all hold trailing blanks for nothing.
        (T::Text { padded }, C::Text { trim }) => *padded || !trim,
        (T::Named(name), C::Text { trim: false }) => SOUND.contains(&name.as_str()),
        (T::Bytes, C::Bytes | C::Uuid) | (T::Bits, C::Bits) | (T::Uuid, C::Uuid) | (T::Date, C::Date) => true,
        // All values of bit(n) have one width, so one number is one value.
        (T::Bits, C::Integer) => declared.starts_with("bit("),
        (T::Time { digits: own }, C::Time { digits, .. })
        | (T::TimeTz { digits: own }, C::TimeTz { digits })
        | (T::Timestamp { digits: own }, C::Timestamp { digits, .. } | C::TimestampTz { digits, .. })
        | (T::TimestampTz { digits: own }, C::TimestampTz { digits, .. }) => own <= digits,
        (T::Interval, C::Interval) => true,
        // json has no equality at all.
        (T::Json, C::Json) => declared == "jsonb",
        (T::Array(inner), C::Array(comparison)) => {
            equal(inner, comparison, declared.strip_suffix("[]").unwrap_or(declared))
        }
        _ => false,
    }
}

fn has_one_text(ty: &ColumnType, declared: &str) -> bool {
    use ColumnType as T;
    match ty {
        T::Decimal { .. } => !is_money(ty),
        T::Json => declared == "jsonb",
        T::Named(name) => SOUND.contains(&name.as_str()),
        T::Array(inner) => has_one_text(inner, declared.strip_suffix("[]").unwrap_or(declared)),
        T::Unsupported(_) => false,
        T::Bool
        | T::Int { .. }
        | T::Float { .. }
        | T::Text { .. }
        | T::Bytes
        | T::Bits
        | T::Uuid
        | T::Date
        | T::Time { .. }
        | T::TimeTz { .. }
        | T::Timestamp { .. }
        | T::TimestampTz { .. }
        | T::Interval => true,
    }
}

/// The digits of money are the server's locale's; numeric has a precision wherever it has a scale.
pub(super) fn is_money(ty: &ColumnType) -> bool {
    matches!(ty, ColumnType::Decimal { precision: None, scale: Some(_) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Filled, Rounding};

    fn exact(ty: ColumnType, declared: &str, comparison: ComparisonType, as_text: bool) -> bool {
        finds_every_spelling(&AccessColumn {
            name: "k".into(),
            ty,
            declared: declared.into(),
            comparison,
            as_text,
            filled: Filled::ByWriter,
        })
    }

    #[test]
    fn only_what_has_one_spelling_for_the_server_is_exact() {
        use ColumnType as T;
        use ComparisonType as C;
        let text = |padded| T::Text { padded };
        let at = |digits| C::Timestamp { digits, rounding: Rounding::Truncate };
        for (ty, declared, comparison, holds) in [
            (text(false), "text", C::Text { trim: false }, true),
            (text(false), "text", C::Text { trim: true }, false),
            (text(true), "character(3)", C::Text { trim: true }, true),
            (text(false), "text", C::Uuid, false),
            (text(false), "text", C::Json, false),
            (T::Json, "jsonb", C::Json, true),
            (T::Json, "json", C::Json, false),
            (T::Bits, "bit(3)", C::Integer, true),
            (T::Bits, "bit varying", C::Integer, false),
            (T::Bits, "bit varying", C::Bits, true),
            (T::Decimal { precision: None, scale: Some(2) }, "money", C::Decimal { scale: Some(2) }, false),
            (T::Decimal { precision: Some(9), scale: Some(2) }, "n", C::Decimal { scale: Some(2) }, true),
            (T::Decimal { precision: Some(9), scale: Some(3) }, "n", C::Decimal { scale: Some(2) }, false),
            (T::Decimal { precision: None, scale: None }, "numeric", C::Decimal { scale: Some(2) }, false),
            (T::Float { bits: 64 }, "double precision", C::Float { bits: 32 }, false),
            (T::Timestamp { digits: 6 }, "timestamp", at(6), true),
            (T::Timestamp { digits: 6 }, "timestamp", at(3), false),
            (T::Named("inet".into()), "inet", C::Text { trim: false }, true),
            (T::Named("hstore".into()), "hstore", C::Text { trim: false }, false),
            (T::Array(Box::new(text(false))), "text[]", C::Array(Box::new(C::Text { trim: false })), true),
            (T::Array(Box::new(text(false))), "text[]", C::Array(Box::new(C::Uuid)), false),
        ] {
            assert_eq!(exact(ty.clone(), declared, comparison, false), holds, "{ty:?} {declared}");
        }
        assert!(exact(T::Interval, "interval", C::Text { trim: false }, true));
        assert!(!exact(T::Named("point".into()), "point", C::Text { trim: false }, true));
    }
}
