//! What a declared type means: MySQL's and MariaDB's names, as `information_schema.columns` tells them.
//!
//! | declared | here |
//! | --- | --- |
//! | tinyint (also `tinyint(1)`, bool), smallint, mediumint, int, bigint, signed or not; year | `Int` |
//! | decimal | `Decimal` |
//! | float, double | `Float` |
//! | char | `Text`, padded |
//! | varchar, tinytext, text, mediumtext, longtext, enum, set | `Text` |
//! | json; on MariaDB a longtext with the check `json_valid` | `Json` |
//! | binary, varbinary, tinyblob, blob, mediumblob, longblob | `Bytes` |
//! | bit | `Bits` |
//! | date, time, datetime, timestamp | `Date`, `Time`, `Timestamp`, `TimestampTz` (stored as UTC) |
//! | uuid (MariaDB) | `Uuid` |
//! | inet4, inet6 (MariaDB) | `Named`, by their text |
//! | geometry and its kin, vector | `Bytes`, as they are stored: of a geometry its SRID and its WKB |
//! | anything else | `Unsupported` |

use crate::model::ColumnType;

/// A column as `information_schema.columns` describes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Declared<'a> {
    /// `varchar`
    pub data_type: &'a str,
    /// `varchar(16)`, `int(10) unsigned`
    pub column_type: &'a str,
    pub precision: Option<u32>,
    pub scale: Option<u32>,
    /// Digits of a second.
    pub digits: u8,
    /// MariaDB keeps JSON as text with this check.
    pub checked_json: bool,
}

pub(super) fn column_type(declared: &Declared<'_>) -> ColumnType {
    use ColumnType as T;
    let int = |bits| T::Int { bits, signed: !declared.column_type.to_ascii_lowercase().contains("unsigned") };
    match declared.data_type.to_ascii_lowercase().as_str() {
        "tinyint" => int(8),
        "smallint" => int(16),
        "mediumint" => int(24),
        "int" | "integer" => int(32),
        "bigint" => int(64),
        "year" => T::Int { bits: 16, signed: false },
        "decimal" | "numeric" => T::Decimal { precision: declared.precision, scale: declared.scale },
        "float" => T::Float { bits: 32 },
        "double" | "real" => T::Float { bits: 64 },
        "json" => T::Json,
        "longtext" if declared.checked_json => T::Json,
        "char" => T::Text { padded: true },
        "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "enum" | "set" => {
            T::Text { padded: false }
        }
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => T::Bytes,
        "bit" => T::Bits,
        "vector" => T::Bytes,
        name if is_geometry(name) => T::Bytes,
        "date" => T::Date,
        "time" => T::Time { digits: declared.digits },
        "datetime" => T::Timestamp { digits: declared.digits },
        "timestamp" => T::TimestampTz { digits: declared.digits },
        "uuid" => T::Uuid,
        name @ ("inet4" | "inet6") => T::Named(name.to_owned()),
        name => T::Unsupported(name.to_owned()),
    }
}

/// A geometry, of one kind or of any.
pub(super) fn is_geometry(declared: &str) -> bool {
    [
        "geometry",
        "point",
        "linestring",
        "polygon",
        "multipoint",
        "multilinestring",
        "multipolygon",
        "geometrycollection",
        "geomcollection",
    ]
    .iter()
    .any(|name| is(declared, name))
}

/// The collation that `describe` puts behind the type of a column that holds text.
pub(super) fn collation_of(declared: &str) -> Option<&str> {
    declared.rsplit_once(" COLLATE ").map(|(_, name)| name)
}

/// The character set of a collation: `utf8mb4` of `utf8mb4_bin`.
pub(super) fn charset_of(collation: &str) -> &str {
    collation.split('_').next().unwrap_or(collation)
}

/// The character set of a text column in which bytes may be stored that it has no character for: MySQL reads all of them as `?`.
pub(super) fn charset_with_gaps(declared: &str) -> Option<&str> {
    let charset = charset_of(collation_of(declared)?);
    (!matches!(charset, "utf8mb4" | "utf8mb3" | "utf8" | "latin1" | "binary")).then_some(charset)
}

/// Trailing blanks mean nothing to this collation.
pub(super) fn pads(collation: &str) -> bool {
    collation != "binary" && !(collation.contains("_nopad_") || collation.contains("_0900_"))
}

/// The number in the first parentheses: 16 of `varchar(16)`.
pub(super) fn length_of(declared: &str) -> Option<usize> {
    let (_, rest) = declared.split_once('(')?;
    rest.split([')', ',']).next()?.trim().parse().ok()
}

/// The declared type begins with this word.
pub(super) fn is(declared: &str, word: &str) -> bool {
    declared.split(['(', ' ']).next().is_some_and(|first| first.eq_ignore_ascii_case(word))
}

/// The labels of `enum('a','b')` or `set('a','b')`, in order.
pub(super) fn labels(declared: &str) -> Option<Vec<String>> {
    if !is(declared, "enum") && !is(declared, "set") {
        return None;
    }
    let (_, rest) = declared.split_once('(')?;
    let mut labels = Vec::new();
    let mut chars = rest.chars().peekable();
    loop {
        if chars.next()? != '\'' {
            return None;
        }
        let mut label = String::new();
        loop {
            match chars.next()? {
                '\'' if chars.peek() == Some(&'\'') => {
                    chars.next();
                    label.push('\'');
                }
                '\'' => break,
                // The catalogue escapes what a line of text cannot show.
                '\\' => label.push(match chars.next()? {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    '0' => '\0',
                    c => c,
                }),
                c => label.push(c),
            }
        }
        labels.push(label);
        match chars.next()? {
            ',' => {}
            ')' => return Some(labels),
            _ => return None,
        }
    }
}

/// Whether values that differ in bytes are equal in this collation. `padded`: a char(n), which never keeps trailing
/// blanks, so that a padding collation cannot fold any.
pub(super) fn collation_folds(collation: &str, padded: bool) -> bool {
    if collation == "binary" {
        return false;
    }
    !collation.ends_with("_bin") || (pads(collation) && !padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ty(data_type: &str, column_type: &str) -> ColumnType {
        column_type_of(data_type, column_type, false)
    }

    fn column_type_of(data_type: &str, column_type: &str, checked_json: bool) -> ColumnType {
        super::column_type(&Declared {
            data_type,
            column_type,
            precision: Some(12),
            scale: Some(2),
            digits: 3,
            checked_json,
        })
    }

    #[test]
    fn declared_types() {
        use ColumnType as T;
        assert_eq!(ty("tinyint", "tinyint(1)"), T::Int { bits: 8, signed: true });
        assert_eq!(ty("bigint", "bigint(20) unsigned zerofill"), T::Int { bits: 64, signed: false });
        assert_eq!(ty("decimal", "decimal(12,2)"), T::Decimal { precision: Some(12), scale: Some(2) });
        assert_eq!(ty("char", "char(3)"), T::Text { padded: true });
        assert_eq!(ty("longtext", "longtext"), T::Text { padded: false });
        assert_eq!(column_type_of("longtext", "longtext", true), T::Json);
        assert_eq!(ty("timestamp", "timestamp(3)"), T::TimestampTz { digits: 3 });
        assert_eq!(ty("point", "point"), T::Bytes);
        assert_eq!(ty("vector", "vector(3)"), T::Bytes);
        assert_eq!(ty("polar", "polar"), T::Unsupported("polar".into()));
    }

    #[test]
    fn labels_with_quotes_and_commas() {
        let found = labels("enum('a','it''s','x,y)','')").unwrap();
        assert_eq!(found, ["a", "it's", "x,y)", ""]);
        assert_eq!(labels("set('a') COLLATE latin1_bin").unwrap(), ["a"]);
        assert_eq!(labels(r"enum('a\\b','x\ny')").unwrap(), ["a\\b", "x\ny"]);
        assert_eq!(labels("varchar(3)"), None);
        assert_eq!(labels("enum('a"), None);
    }

    #[test]
    fn collations_that_fold() {
        for (name, padded, folds) in [
            ("utf8mb4_general_ci", false, true),
            ("utf8mb4_0900_as_cs", false, true),
            ("utf8mb4_bin", false, true),
            ("utf8mb4_bin", true, false),
            ("utf8mb4_nopad_bin", false, false),
            ("utf8mb4_0900_bin", false, false),
            ("binary", false, false),
        ] {
            assert_eq!(collation_folds(name, padded), folds, "{name}");
        }
    }

    #[test]
    fn collations_of_declared_types() {
        assert_eq!(collation_of("varchar(20) COLLATE cp932_japanese_ci"), Some("cp932_japanese_ci"));
        assert_eq!(collation_of("int(11)"), None);
        assert_eq!(charset_of("utf8mb4_0900_ai_ci"), "utf8mb4");
        assert!(pads("latin1_swedish_ci") && !pads("utf8mb4_0900_bin") && !pads("utf8mb4_nopad_bin"));
        assert!(!pads("binary") && is_geometry("point") && !is_geometry("pointer"));
    }

    #[test]
    fn lengths() {
        assert_eq!(length_of("varchar(16)"), Some(16));
        assert_eq!(length_of("decimal(12,2) unsigned"), Some(12));
        assert_eq!(length_of("text"), None);
        assert!(is("year(4)", "year") && !is("yearly", "year"));
    }
}
