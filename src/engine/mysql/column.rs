//! What a result says of a column, by the driver's account and by the protocol's: how its values stand in a row.

use sqlx::mysql::{MySql, MySqlTypeInfo};
use sqlx::{Type, TypeInfo as _};

use super::lane::packets::Definition;
use crate::model::{AccessColumn, ColumnType};

/// Bytes of an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    One,
    Two,
    Four,
    Eight,
}

/// How a column's values stand in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    /// Little-endian.
    Signed(Width),
    Unsigned(Width),
    Float,
    Double,
    /// As text.
    Decimal,
    /// Behind a byte that tells how much of it was sent.
    Date,
    DateTime,
    Time,
    /// Big-endian.
    Bit,
    /// UTF-8: the session's character set.
    Text,
    Bytes,
}

/// Of a definition.
const UNSIGNED: u16 = 32;
const BINARY: u16 = 63;

impl Wire {
    /// From the driver's account of a column.
    pub(super) fn of(info: &MySqlTypeInfo) -> Option<Self> {
        let name = info.name();
        let bare = name.strip_suffix(" UNSIGNED");
        // The driver's name of a TINYINT(1) leaves the sign out.
        let signed = bare.is_none() && *info != <u8 as Type<MySql>>::type_info();
        let int = |width| if signed { Self::Signed(width) } else { Self::Unsigned(width) };
        Some(match bare.unwrap_or(name) {
            "BOOLEAN" | "TINYINT" => int(Width::One),
            "SMALLINT" => int(Width::Two),
            "MEDIUMINT" | "INT" => int(Width::Four),
            "BIGINT" => int(Width::Eight),
            "YEAR" => Self::Unsigned(Width::Two),
            "FLOAT" => Self::Float,
            "DOUBLE" => Self::Double,
            "DECIMAL" => Self::Decimal,
            "DATE" => Self::Date,
            "DATETIME" | "TIMESTAMP" => Self::DateTime,
            "TIME" => Self::Time,
            "BIT" => Self::Bit,
            "JSON" => Self::Text,
            "GEOMETRY" => Self::Bytes,
            "NULL" => return None,
            // The driver's names tell text from bytes by a flag that binary collations set too.
            _ if <str as Type<MySql>>::compatible(info) => Self::Text,
            _ => Self::Bytes,
        })
    }

    /// From the protocol's own.
    pub(super) fn defined(definition: Definition) -> Option<Self> {
        let signed = definition.flags & UNSIGNED == 0;
        let int = |width| if signed { Self::Signed(width) } else { Self::Unsigned(width) };
        Some(match definition.kind {
            0x01 => int(Width::One),
            0x02 => int(Width::Two),
            0x03 | 0x09 => int(Width::Four),
            0x08 => int(Width::Eight),
            0x0d => Self::Unsigned(Width::Two),
            0x04 => Self::Float,
            0x05 => Self::Double,
            0x00 | 0xf6 => Self::Decimal,
            0x0a => Self::Date,
            0x07 | 0x0c => Self::DateTime,
            0x0b => Self::Time,
            0x10 => Self::Bit,
            0xf5 => Self::Text,
            // Character, and what is stored as such.
            0x0f | 0xf7 | 0xf9..=0xfe if definition.charset != BINARY => Self::Text,
            // A vector and a geometry are sent as they are stored.
            0x0f | 0xf2 | 0xf7..=0xff => Self::Bytes,
            _ => return None,
        })
    }

    pub(super) fn fits(self, column: &AccessColumn) -> bool {
        use ColumnType as T;
        if column.as_text {
            return self == Self::Text;
        }
        match &column.ty {
            T::Bool | T::Int { .. } => matches!(self, Self::Signed(_) | Self::Unsigned(_)),
            T::Decimal { .. } => self == Self::Decimal,
            T::Float { .. } => matches!(self, Self::Float | Self::Double),
            // MySQL's JSON and MariaDB's uuid are text on the wire, whatever character set they name.
            T::Json | T::Uuid => matches!(self, Self::Text | Self::Bytes),
            T::Text { .. } | T::Named(_) => self == Self::Text,
            T::Bytes => self == Self::Bytes,
            T::Bits => self == Self::Bit,
            T::Date => self == Self::Date,
            T::Time { .. } => self == Self::Time,
            T::Timestamp { .. } | T::TimestampTz { .. } => self == Self::DateTime,
            T::TimeTz { .. } | T::Interval | T::Array(_) | T::Unsupported(_) => false,
        }
    }

    /// As a person is told.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Signed(Width::One) => "TINYINT",
            Self::Signed(Width::Two) => "SMALLINT",
            Self::Signed(Width::Four) => "INT",
            Self::Signed(Width::Eight) => "BIGINT",
            Self::Unsigned(Width::One) => "TINYINT UNSIGNED",
            Self::Unsigned(Width::Two) => "SMALLINT UNSIGNED or YEAR",
            Self::Unsigned(Width::Four) => "INT UNSIGNED",
            Self::Unsigned(Width::Eight) => "BIGINT UNSIGNED",
            Self::Float => "FLOAT",
            Self::Double => "DOUBLE",
            Self::Decimal => "DECIMAL",
            Self::Date => "DATE",
            Self::DateTime => "DATETIME or TIMESTAMP",
            Self::Time => "TIME",
            Self::Bit => "BIT",
            Self::Text => "of characters",
            Self::Bytes => "of bytes",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_accounts_agree() {
        let defined = |kind, flags, charset| Wire::defined(Definition { kind, flags, charset });
        for (info, found) in [
            (<i8 as Type<MySql>>::type_info(), defined(0x01, 0, BINARY)),
            (<u8 as Type<MySql>>::type_info(), defined(0x01, UNSIGNED, BINARY)),
            (<i16 as Type<MySql>>::type_info(), defined(0x02, 0, BINARY)),
            (<u16 as Type<MySql>>::type_info(), defined(0x02, UNSIGNED, BINARY)),
            (<i32 as Type<MySql>>::type_info(), defined(0x03, 0, BINARY)),
            (<u32 as Type<MySql>>::type_info(), defined(0x03, UNSIGNED, BINARY)),
            (<i64 as Type<MySql>>::type_info(), defined(0x08, 0, BINARY)),
            (<u64 as Type<MySql>>::type_info(), defined(0x08, UNSIGNED, BINARY)),
            (<f32 as Type<MySql>>::type_info(), defined(0x04, 0, BINARY)),
            (<f64 as Type<MySql>>::type_info(), defined(0x05, 0, BINARY)),
            (<str as Type<MySql>>::type_info(), defined(0xfd, 0, 45)),
            (<[u8] as Type<MySql>>::type_info(), defined(0xfc, 128, BINARY)),
        ] {
            assert_eq!(Wire::of(&info), found, "{info}");
            assert!(found.is_some());
        }
        for kind in [0x06, 0x0e, 0x11] {
            assert_eq!(defined(kind, 0, BINARY), None, "{kind:#x}");
        }
    }
}
