//! One value, independent of any engine. Its `Debug` shows the kind, never the content.

use std::fmt;

use bigdecimal::BigDecimal;

use super::decimal::Decimal;
use super::temporal::{
    DATE_INFINITY, DATE_NEG_INFINITY, TIMESTAMP_INFINITY, TIMESTAMP_NEG_INFINITY, date_text, time_text,
    timestamp_text,
};

/// The class of a value as it was stored, where it did not fit the column's comparison type
/// (SQLite's dynamic typing, text that is no uuid).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum StoredClass {
    Integer = 1,
    Real = 2,
    Text = 3,
    Blob = 4,
}

impl StoredClass {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Integer, Self::Real, Self::Text, Self::Blob].into_iter().find(|class| *class as u8 == byte)
    }
}

#[derive(Clone, PartialEq)]
pub enum Value {
    Null,
    Int(i128),
    Decimal(Decimal),
    Float32(f32),
    Float64(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// '0' and '1'.
    Bits(String),
    Uuid([u8; 16]),
    /// Days since 1970-01-01; see `model::temporal` for what is beyond the calendar.
    Date(i32),
    /// Microseconds.
    Time(i64),
    TimeTz {
        micros: i64,
        /// Seconds west of UTC, as PostgreSQL keeps it.
        west: i32,
    },
    /// Microseconds since 1970-01-01, without zone.
    Timestamp(i64),
    /// Microseconds since 1970-01-01 UTC.
    TimestampTz(i64),
    Interval {
        months: i32,
        days: i32,
        micros: i64,
    },
    /// Canonical JSON text.
    Json(String),
    Array(ArrayValue),
    /// A value that does not fit its column's comparison type, as stored.
    Irregular(StoredClass, Vec<u8>),
}

/// A PostgreSQL array: elements in row-major order.
#[derive(Clone, PartialEq)]
pub struct ArrayValue {
    /// Length and lower bound of each dimension.
    pub dims: Vec<(u32, i32)>,
    pub items: Vec<Value>,
}

impl Value {
    /// The value as text that all three engines' input functions read, except where a type is one engine's own
    /// (arrays and intervals are PostgreSQL's form, bytes are `\x` and hex digits). `None` for NULL.
    pub fn to_text(&self) -> Option<String> {
        Some(match self {
            Self::Null => return None,
            Self::Int(value) => value.to_string(),
            Self::Decimal(value) => value.to_string(),
            Self::Float32(value) => float_text(f64::from(*value), value.to_string()),
            Self::Float64(value) => float_text(*value, format!("{value:?}")),
            Self::Text(text) | Self::Bits(text) | Self::Json(text) => text.clone(),
            Self::Bytes(bytes) => format!("\\x{}", hex(bytes)),
            Self::Uuid(bytes) => uuid_text(bytes),
            Self::Date(days) => date_text(*days),
            Self::Time(micros) => time_text(*micros),
            Self::TimeTz { micros, west } => format!("{}{}", time_text(*micros), zone_text(*west)),
            Self::Timestamp(micros) => timestamp_text(*micros),
            Self::TimestampTz(micros) => zoned_text(*micros),
            Self::Interval { months, days, micros } => {
                format!("{months} mons {days} days {}", time_text(*micros))
            }
            Self::Array(array) => array.to_text(),
            Self::Irregular(StoredClass::Integer, bytes) => {
                i64::from_be_bytes(bytes.as_slice().try_into().unwrap_or_default()).to_string()
            }
            Self::Irregular(StoredClass::Real, bytes) => {
                let value = f64::from_be_bytes(bytes.as_slice().try_into().unwrap_or_default());
                float_text(value, format!("{value:?}"))
            }
            Self::Irregular(StoredClass::Text, bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Irregular(StoredClass::Blob, bytes) => format!("\\x{}", hex(bytes)),
        })
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Int(_) => "integer",
            Self::Decimal(_) => "decimal",
            Self::Float32(_) | Self::Float64(_) => "float",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::Bits(_) => "bits",
            Self::Uuid(_) => "uuid",
            Self::Date(_) => "date",
            Self::Time(_) | Self::TimeTz { .. } => "time",
            Self::Timestamp(_) | Self::TimestampTz(_) => "timestamp",
            Self::Interval { .. } => "interval",
            Self::Json(_) => "json",
            Self::Array(_) => "array",
            Self::Irregular(..) => "irregular",
        }
    }

    /// As an exact number, for tolerances: seconds for times. `None` for what has no distance to others: NULL, NaN, the
    /// infinities, texts.
    pub fn to_number(&self) -> Option<BigDecimal> {
        let micros = |micros: i64| BigDecimal::new(micros.into(), 6);
        match self {
            Self::Int(value) => Some(BigDecimal::from(*value)),
            Self::Decimal(value @ Decimal::Finite { .. }) => value.to_string().parse().ok(),
            // A double has an exact decimal form.
            Self::Float32(value) => BigDecimal::try_from(f64::from(*value)).ok(),
            Self::Float64(value) => BigDecimal::try_from(*value).ok(),
            Self::Date(DATE_INFINITY | DATE_NEG_INFINITY) => None,
            Self::Date(days) => Some(BigDecimal::from(i64::from(*days) * 86_400)),
            Self::Timestamp(TIMESTAMP_INFINITY | TIMESTAMP_NEG_INFINITY)
            | Self::TimestampTz(TIMESTAMP_INFINITY | TIMESTAMP_NEG_INFINITY) => None,
            Self::Time(at) | Self::Timestamp(at) | Self::TimestampTz(at) => Some(micros(*at)),
            Self::Irregular(StoredClass::Integer, bytes) => {
                Some(BigDecimal::from(i64::from_be_bytes(bytes.as_slice().try_into().ok()?)))
            }
            Self::Irregular(StoredClass::Real, bytes) => {
                BigDecimal::try_from(f64::from_be_bytes(bytes.as_slice().try_into().ok()?)).ok()
            }
            _ => None,
        }
    }
}

impl ArrayValue {
    fn to_text(&self) -> String {
        if self.items.is_empty() {
            return "{}".to_owned();
        }
        let mut text = String::new();
        if self.dims.iter().any(|(_, lower)| *lower != 1) {
            for (length, lower) in &self.dims {
                let upper = i64::from(*lower) + i64::from(*length) - 1;
                text.push_str(&format!("[{lower}:{upper}]"));
            }
            text.push('=');
        }
        self.write_level(&mut text, 0, &mut self.items.iter());
        text
    }

    fn write_level(&self, text: &mut String, level: usize, items: &mut std::slice::Iter<'_, Value>) {
        let Some((length, _)) = self.dims.get(level) else { return };
        text.push('{');
        for at in 0..*length {
            if at > 0 {
                text.push(',');
            }
            if level + 1 < self.dims.len() {
                self.write_level(text, level + 1, items);
                continue;
            }
            match items.next().and_then(Value::to_text) {
                None => text.push_str("NULL"),
                Some(item) => {
                    text.push('"');
                    for c in item.chars() {
                        if matches!(c, '"' | '\\') {
                            text.push('\\');
                        }
                        text.push(c);
                    }
                    text.push('"');
                }
            }
        }
        text.push('}');
    }
}

fn float_text(value: f64, finite: String) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() }
    } else {
        finite
    }
}

fn zoned_text(micros: i64) -> String {
    let text = timestamp_text(micros);
    if text.ends_with("infinity") {
        return text;
    }
    match text.strip_suffix(" BC") {
        Some(text) => format!("{text}+00 BC"),
        None => format!("{text}+00"),
    }
}

fn zone_text(west: i32) -> String {
    let east = -i64::from(west);
    let (sign, seconds) = (if east < 0 { '-' } else { '+' }, east.unsigned_abs());
    let mut text = format!("{sign}{:02}:{:02}", seconds / 3600, seconds / 60 % 60);
    if seconds % 60 > 0 {
        text.push_str(&format!(":{:02}", seconds % 60));
    }
    text
}

pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    put_hex(&mut text, bytes);
    text
}

/// Adds two hex digits a byte.
pub fn put_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        for half in [byte >> 4, byte & 15] {
            text.push(char::from(DIGITS[usize::from(half)]));
        }
    }
}

pub fn uuid_text(bytes: &[u8; 16]) -> String {
    let digits = hex(bytes);
    format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
}

/// Reads a uuid with or without hyphens and braces, in either case.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let text = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
    let mut bytes = [0u8; 16];
    let mut nibbles = 0usize;
    for (at, c) in text.bytes().enumerate() {
        if c == b'-' && matches!(at, 8 | 13 | 18 | 23) && text.len() == 36 {
            continue;
        }
        let digit = match c {
            b'0'..=b'9' => c - b'0',
            b'a'..=b'f' => c - b'a' + 10,
            b'A'..=b'F' => c - b'A' + 10,
            _ => return None,
        };
        *bytes.get_mut(nibbles / 2)? |= if nibbles.is_multiple_of(2) { digit << 4 } else { digit };
        nibbles += 1;
    }
    (nibbles == 32).then_some(bytes)
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({})", self.kind())
    }
}

impl fmt::Debug for ArrayValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArrayValue({} items)", self.items.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_in_any_spelling() {
        let text = "00112233-4455-6677-8899-aabbccddeeff";
        let bytes = parse_uuid(text).unwrap();
        assert_eq!(uuid_text(&bytes), text);
        assert_eq!(parse_uuid(&text.to_uppercase()), Some(bytes));
        assert_eq!(parse_uuid(&text.replace('-', "")), Some(bytes));
        assert_eq!(parse_uuid(&format!("{{{text}}}")), Some(bytes));
        for bad in ["", "0011", &text[1..], &text.replace('f', "g"), "0011223344556677-8899-aabb-ccddeeff00"]
        {
            assert_eq!(parse_uuid(bad), None, "{bad}");
        }
    }

    #[test]
    fn arrays_are_written_as_postgres_reads_them() {
        let items =
            vec![Value::Int(1), Value::Null, Value::Text("a\"b\\c,{}".into()), Value::Text(String::new())];
        let array = ArrayValue { dims: vec![(2, 1), (2, 1)], items };
        assert_eq!(array.to_text(), r#"{{"1",NULL},{"a\"b\\c,{}",""}}"#);
        let shifted = ArrayValue { dims: vec![(1, 0)], items: vec![Value::Int(7)] };
        assert_eq!(shifted.to_text(), r#"[0:0]={"7"}"#);
    }

    #[test]
    fn distances_are_of_exact_numbers() {
        let exact = |value: Value| value.to_number().map(|number| number.normalized().to_plain_string());
        assert_eq!(exact(Value::Int(9_007_199_254_740_993)).as_deref(), Some("9007199254740993"));
        let large = Decimal::parse("1000000000000000000000000000001").unwrap();
        assert_eq!(exact(Value::Decimal(large)).as_deref(), Some("1000000000000000000000000000001"));
        assert_eq!(exact(Value::Timestamp(1_500_000)).as_deref(), Some("1.5"));
        assert_eq!(exact(Value::Float64(0.5)).as_deref(), Some("0.5"));
        assert_eq!(
            exact(Value::Irregular(StoredClass::Integer, i64::MAX.to_be_bytes().to_vec())).as_deref(),
            Some("9223372036854775807")
        );
        for none in [
            Value::Null,
            Value::Float64(f64::NAN),
            Value::Float64(f64::INFINITY),
            Value::Decimal(Decimal::NaN),
            Value::Decimal(Decimal::Infinity),
            Value::Date(DATE_INFINITY),
            Value::TimestampTz(TIMESTAMP_NEG_INFINITY),
            Value::Text("5".into()),
            Value::Irregular(StoredClass::Real, f64::INFINITY.to_be_bytes().to_vec()),
            Value::Irregular(StoredClass::Real, Vec::new()),
        ] {
            assert_eq!(none.to_number(), None, "{none:?}");
        }
    }

    #[test]
    fn debug_shows_no_content() {
        assert_eq!(format!("{:?}", Value::Text("secret".into())), "Value(text)");
    }
}
