//! What a key is asked for as, and whether a lookup that asks so finds its row however it is stored.

use super::bind::{Bind, bind};
use super::types::{charset_of, collation_of, is, labels, length_of, pads};
use crate::engine::{EngineError, ErrorKind};
use crate::model::canonical::decode_key;
use crate::model::decimal::Decimal;
use crate::model::temporal::{MICROS_PER_SECOND, is_ordinary, mysql_datetime};
use crate::model::value::uuid_text;
use crate::model::{AccessColumn, ColumnType, ComparisonType, Key, TableAccess, Value};

/// A key with its parameters, in the order of its columns.
pub(super) struct Asked<'k> {
    pub key: &'k Key,
    /// As the key is usually stored; `None` where no value of its columns can be this key.
    pub usual: Option<Vec<Bind>>,
    /// Other spellings of the same key.
    pub others: Vec<Vec<Bind>>,
    /// One of these finds every row that has this key.
    pub exact: bool,
}

impl<'k> Asked<'k> {
    pub(super) fn new(access: &TableAccess, key: &'k Key, during: &str) -> Result<Self, EngineError> {
        let values = decode_key(&access.key_types(), key.as_bytes())
            .map_err(|error| EngineError::new(ErrorKind::Row, during, error.to_string()))?;
        let columns = access.key_columns();
        let usual: Option<Vec<Bind>> =
            columns.iter().zip(&values).map(|(column, value)| bind_key(column, value).ok()).collect();
        let mut exact =
            usual.is_some() && columns.iter().zip(&values).all(|(column, value)| is_exact(column, value));
        let mut others = Vec::new();
        let spelled: Vec<usize> =
            (0..columns.len()).filter(|at| columns.get(*at).is_some_and(holds_uuid_text)).collect();
        match (usual.as_ref(), spelled.as_slice()) {
            (_, []) | (None, _) => {}
            (Some(usual), [at]) => {
                if let (Some(column), Some(Value::Uuid(uuid))) = (columns.get(*at), values.get(*at)) {
                    for spelling in uuid_spellings(column, uuid) {
                        let mut other = usual.clone();
                        if let Some(slot) = other.get_mut(*at) {
                            *slot = Bind::Text(spelling);
                        }
                        if other != *usual {
                            others.push(other);
                        }
                    }
                }
            }
            // Every combination would be too many.
            _ => exact = false,
        }
        Ok(Self { key, usual, others, exact })
    }

    pub(super) fn spellings(&self) -> impl Iterator<Item = &Vec<Bind>> {
        self.usual.iter().chain(&self.others)
    }
}

/// The parameter that a key's column is compared with. An ENUM holds '' where it was given what is none of its labels:
/// that can be asked for, and not be written.
pub(super) fn bind_key(column: &AccessColumn, value: &Value) -> Result<Bind, String> {
    match value {
        Value::Text(text) if text.is_empty() && is(&column.declared, "enum") => Ok(Bind::Text(String::new())),
        _ => bind(column, value),
    }
}

pub(super) fn holds_uuid_text(column: &AccessColumn) -> bool {
    column.comparison == ComparisonType::Uuid && matches!(column.ty, ColumnType::Text { .. })
}

/// Every way in which text is read as this uuid, but for a mixture of small and capital letters; those that the column
/// has room for.
pub(super) fn uuid_spellings(column: &AccessColumn, uuid: &[u8; 16]) -> Vec<String> {
    let most = length_of(&column.declared).unwrap_or(usize::MAX);
    let hyphens = uuid_text(uuid);
    let bare = hyphens.replace('-', "");
    let small = [format!("{{{hyphens}}}"), format!("{{{bare}}}"), hyphens, bare];
    let both = small.into_iter().flat_map(|text| [text.to_uppercase(), text]);
    both.filter(|text| text.len() <= most).collect()
}

/// Whether SQL's equality with the parameter that [`bind_key`] makes of this value holds for every stored value that means
/// the same. A list of what was shown to be so, by `tests/it/engine_mysql`: what is not in it is not exact.
pub(super) fn is_exact(column: &AccessColumn, value: &Value) -> bool {
    use ColumnType as T;
    use ComparisonType as C;
    if column.as_text && !matches!(column.ty, T::Text { .. }) {
        return false;
    }
    match (&column.ty, &column.comparison, value) {
        (T::Int { bits, signed }, C::Integer, Value::Int(value)) => int_fits(column, *bits, *signed, *value),
        (T::Int { bits, signed }, C::Decimal { .. }, Value::Decimal(value)) => {
            value.to_int().is_some_and(|value| int_fits(column, *bits, *signed, value))
        }
        (
            T::Decimal { precision: Some(precision), scale: Some(scale) },
            C::Decimal { scale: compared },
            Value::Decimal(value),
        ) => compared.is_none_or(|compared| compared >= *scale) && decimal_fits(value, *precision, *scale),
        (T::Float { bits: 32 }, C::Float { bits: 32 }, Value::Float32(value)) => value.is_finite(),
        (T::Float { bits: 64 }, C::Float { bits: 64 }, Value::Float64(value)) => value.is_finite(),
        (T::Text { .. }, C::Uuid, Value::Uuid(_)) => {
            // Of the small and capital letters.
            collation_of(&column.declared).is_some_and(|name| name.ends_with("_ci"))
        }
        (T::Text { padded }, C::Text { trim }, Value::Text(text)) => {
            let Some(collation) = collation_of(&column.declared) else { return false };
            let blanks = !trim || *padded || pads(collation);
            blanks && is_one_text(charset_of(collation), text) && label_fits(column, text)
        }
        (T::Text { .. }, C::Set, Value::Text(text)) => {
            collation_of(&column.declared).is_some_and(|name| is_one_text(charset_of(name), text))
                && label_fits(column, text)
        }
        (T::Bytes, C::Bytes, Value::Bytes(_)) | (T::Bytes, C::Uuid, Value::Uuid(_)) => {
            is(&column.declared, "binary") || is(&column.declared, "varbinary")
        }
        (T::Bits, C::Bits | C::Integer, Value::Bits(_) | Value::Int(_)) => true,
        (T::Uuid, C::Uuid, Value::Uuid(_)) => true,
        (T::Date, C::Date, Value::Date(_)) => true,
        (T::Time { digits }, C::Time { digits: compared, .. }, Value::Time(micros)) => {
            const MOST: i64 = 839 * 3600 * MICROS_PER_SECOND;
            digits <= compared && micros.abs() < MOST && has_digits(*micros, *digits)
        }
        (
            T::Timestamp { digits },
            C::Timestamp { digits: compared, .. } | C::TimestampTz { digits: compared, .. },
            Value::Timestamp(micros) | Value::TimestampTz(micros),
        ) => digits <= compared && has_digits(*micros, *digits),
        (
            T::TimestampTz { digits },
            C::Timestamp { digits: compared, .. } | C::TimestampTz { digits: compared, .. },
            Value::Timestamp(micros) | Value::TimestampTz(micros),
        ) => {
            // Years that some server holds, and the zero that all do.
            const END: i64 = (1 << 32) * MICROS_PER_SECOND;
            let held =
                (MICROS_PER_SECOND..END).contains(micros) || mysql_datetime(0, 0, 0, 0) == Some(*micros);
            digits <= compared && has_digits(*micros, *digits) && held
        }
        (T::Named(name), C::Text { .. }, Value::Text(text)) => match name.as_str() {
            "inet4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
            "inet6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
            _ => false,
        },
        _ => false,
    }
}

fn int_fits(column: &AccessColumn, bits: u8, signed: bool, value: i128) -> bool {
    if is(&column.declared, "year") {
        return value == 0 || (1901..=2155).contains(&value);
    }
    let (low, high) =
        if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1i128 << bits) - 1) };
    (low..=high).contains(&value)
}

fn decimal_fits(value: &Decimal, precision: u32, scale: u32) -> bool {
    if !matches!(value, Decimal::Finite { .. }) || value.scale() > scale {
        return false;
    }
    let text = value.to_string();
    let whole = text.trim_start_matches('-').split('.').next().unwrap_or_default().trim_start_matches('0');
    u32::try_from(whole.len()).is_ok_and(|whole| whole <= precision.saturating_sub(scale))
}

fn has_digits(micros: i64, digits: u8) -> bool {
    // Dates that no calendar has are counted from the zero date.
    let from = if is_ordinary(micros) { Some(0) } else { mysql_datetime(0, 0, 0, 0) };
    micros.saturating_sub(from.unwrap_or(0)) % 10i64.pow(6 - u32::from(digits.min(6))) == 0
}

/// Character sets of which every byte is read as ASCII, or as part of something that is not.
const WITH_ASCII: [&str; 24] = [
    "big5", "cp1250", "cp1251", "cp1256", "cp1257", "cp850", "cp852", "cp866", "cp932", "eucjpms", "euckr",
    "gb18030", "gb2312", "gbk", "greek", "hebrew", "koi8r", "koi8u", "latin2", "latin5", "latin7", "sjis",
    "tis620", "ujis",
];

/// Whether only one stored value of this character set is read as this text: the parameter is then that value.
fn is_one_text(charset: &str, text: &str) -> bool {
    match charset {
        "utf8mb4" | "latin1" => true,
        // What is not well-formed is read as a question mark.
        "utf8mb3" | "utf8" | "ucs2" | "utf16" | "utf16le" | "utf32" | "ascii" => !text.contains('?'),
        // Some of their letters have two codes, and codes without a letter are read as question marks.
        other => WITH_ASCII.contains(&other) && text.is_ascii() && !text.contains(['?', '\\', '~']),
    }
}

/// Not where '' is a label beside the '' of what is none of the labels: the one is not found where the other is asked for.
fn label_fits(column: &AccessColumn, text: &str) -> bool {
    match labels(&column.declared) {
        None => true,
        Some(labels) if text.is_empty() => !labels.iter().any(String::is_empty),
        Some(labels) if is(&column.declared, "set") => {
            text.split(',').all(|one| labels.iter().any(|label| label == one))
        }
        Some(labels) => labels.iter().any(|label| label == text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Filled, Rounding};

    fn column(ty: ColumnType, declared: &str, comparison: ComparisonType) -> AccessColumn {
        let (name, filled) = ("k".to_owned(), Filled::ByWriter);
        AccessColumn { name, ty, declared: declared.into(), comparison, as_text: false, filled }
    }

    #[test]
    fn what_is_exact_and_what_is_not() {
        use ColumnType as T;
        use ComparisonType as C;
        let text = |padded, declared: &str, trim, value: &str| {
            is_exact(&column(T::Text { padded }, declared, C::Text { trim }), &Value::Text(value.into()))
        };
        for (padded, declared, trim, value, exact) in [
            (false, "varchar(9) COLLATE utf8mb4_bin", false, "a?é", true),
            (false, "varchar(9)", false, "a", false),
            (false, "varchar(9) COLLATE utf8mb3_bin", false, "a?", false),
            (false, "varchar(9) COLLATE latin1_swedish_ci", false, "é?", true),
            (false, "varchar(9) COLLATE cp932_bin", false, "a", true),
            (false, "varchar(9) COLLATE cp932_bin", false, "①", false),
            (false, "varchar(9) COLLATE sjis_bin", false, "a\\", false),
            (false, "varchar(9) COLLATE swe7_bin", false, "a", false),
            (false, "varchar(9) COLLATE utf8mb4_general_ci", true, "a", true),
            (false, "varchar(9) COLLATE utf8mb4_0900_ai_ci", true, "a", false),
            (true, "char(9) COLLATE utf8mb4_0900_ai_ci", true, "a", true),
            (false, "enum('a','b') COLLATE utf8mb4_bin", false, "", true),
            (false, "enum('a','') COLLATE utf8mb4_bin", false, "", false),
            (false, "enum('a','b') COLLATE utf8mb4_bin", false, "c", false),
            (false, "set('a','b') COLLATE utf8mb4_bin", false, "a,b", true),
        ] {
            assert_eq!(text(padded, declared, trim, value), exact, "{declared} {trim}");
        }
        let int = |bits, signed, declared: &str, value| {
            is_exact(&column(T::Int { bits, signed }, declared, C::Integer), &Value::Int(value))
        };
        assert!(
            int(64, false, "bigint unsigned", i128::from(u64::MAX)) && !int(64, false, "bigint unsigned", -1)
        );
        assert!(int(64, true, "bigint", i128::from(i64::MIN)) && !int(64, true, "bigint", 1 << 63));
        assert!(int(24, true, "mediumint", -8_388_608) && !int(24, true, "mediumint", 8_388_608));
        assert!(int(16, false, "year", 0) && int(16, false, "year", 2155) && !int(16, false, "year", 70));
        let decimal = |value: &str| {
            let ty = T::Decimal { precision: Some(4), scale: Some(2) };
            let value = Value::Decimal(Decimal::parse(value).unwrap());
            is_exact(&column(ty, "decimal(4,2)", C::Decimal { scale: Some(2) }), &value)
        };
        assert!(decimal("-99.99") && decimal("0.01") && !decimal("100") && !decimal("0.001"));
        let time = |micros| {
            let comparison = C::Time { digits: 3, rounding: Rounding::HalfUp };
            is_exact(&column(T::Time { digits: 3 }, "time(3)", comparison), &Value::Time(micros))
        };
        assert!(time(-3_020_399_999_000) && !time(1) && !time(3_020_400_000_000));
        let moment = |micros| {
            let comparison = C::TimestampTz { digits: 6, rounding: Rounding::HalfUp };
            is_exact(
                &column(T::TimestampTz { digits: 6 }, "timestamp(6)", comparison),
                &Value::TimestampTz(micros),
            )
        };
        assert!(moment(1_000_000) && !moment(0) && !moment(-1) && !moment(i64::MAX));
        assert!(moment(mysql_datetime(0, 0, 0, 0).unwrap()));
        assert!(has_digits(mysql_datetime(2024, 0, 15, 1_500_000).unwrap(), 1));
        assert!(!has_digits(mysql_datetime(2024, 0, 15, 1_500_001).unwrap(), 1));
    }

    #[test]
    fn uuids_are_asked_for_in_every_spelling_that_fits() {
        let uuid = [0xab; 16];
        let spelled = |declared: &str| {
            let column = column(ColumnType::Text { padded: true }, declared, ComparisonType::Uuid);
            uuid_spellings(&column, &uuid)
        };
        assert_eq!(spelled("varchar(40)").len(), 8);
        assert_eq!(spelled("char(36)").len(), 6);
        assert_eq!(spelled("char(32)"), ["AB".repeat(16), "ab".repeat(16)]);
        for text in spelled("text") {
            assert_eq!(crate::model::value::parse_uuid(&text), Some(uuid));
        }
    }
}
