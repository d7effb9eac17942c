//! Writing a value of one kind under a comparison type of any kind: as that type where it can be read so, irregular otherwise.

use super::write::{CellWriter, NullKey};
use crate::model::comparison::ComparisonType;
use crate::model::decimal::Decimal;
use crate::model::temporal::{self, parse_date, parse_time, parse_timestamp, round_micros, round_time};
use crate::model::value::{ArrayValue, StoredClass, Value, parse_uuid};

/// The labels of a SET, each once and in byte order.
fn set_text(text: &str) -> String {
    let mut labels: Vec<&str> = text.split(',').collect();
    labels.sort_unstable();
    labels.dedup();
    labels.join(",")
}

/// The double that a text means; `None` where it is no number, or one beyond the range of a double.
fn float_of(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let has = |digits: std::ops::RangeInclusive<u8>| mantissa.bytes().any(|byte| digits.contains(&byte));
    let is_beyond = (value.is_infinite() && has(b'0'..=b'9')) || (value == 0.0 && has(b'1'..=b'9'));
    (!is_beyond).then_some(value)
}

impl CellWriter<'_> {
    /// Text under any comparison type: read as that type, irregular where it cannot be.
    pub fn text_as(self, comparison: &ComparisonType, text: &str) {
        use ComparisonType as C;
        match comparison {
            C::Text { trim } => return self.text(text.as_bytes(), *trim),
            C::Json => return self.json(text),
            C::Set => return self.bytes(set_text(text).as_bytes()),
            C::Dynamic => return self.dynamic(StoredClass::Text, text.as_bytes()),
            C::Integer => {
                if let Ok(value) = text.parse::<i128>() {
                    return self.int128(value);
                }
            }
            C::Decimal { scale } => {
                if let Some(value) = Decimal::parse(text) {
                    return self.decimal(&match scale {
                        Some(scale) => value.rounded(*scale),
                        None => value,
                    });
                }
            }
            C::Float { bits } => {
                if let Some(value) = float_of(text) {
                    return self.float(value, *bits);
                }
            }
            C::Bits if text.bytes().all(|b| matches!(b, b'0' | b'1')) => return self.bytes(text.as_bytes()),
            C::Uuid => {
                if let Some(value) = parse_uuid(text) {
                    return self.uuid(value);
                }
            }
            C::Date => {
                if let Some(days) = parse_date(text) {
                    return self.date(days);
                }
            }
            C::Time { digits, rounding } => {
                if let Some(micros) = parse_time(text) {
                    return self.micros(round_time(micros, *digits, *rounding));
                }
            }
            C::Timestamp { digits, rounding } => {
                if let Some((micros, None)) = parse_timestamp(text) {
                    return self.micros(round_micros(micros, *digits, *rounding));
                }
            }
            C::TimestampTz { digits, rounding } => {
                if let Some((micros, _)) = parse_timestamp(text) {
                    return self.micros(round_micros(micros, *digits, *rounding));
                }
            }
            C::Bits | C::Bytes | C::TimeTz { .. } | C::Interval | C::Array(_) | C::Stored => {}
        }
        self.irregular(StoredClass::Text, text.as_bytes());
    }

    /// An integer under any comparison type.
    pub fn int_as(self, comparison: &ComparisonType, value: i64) {
        match comparison {
            ComparisonType::Integer => self.int(value),
            ComparisonType::Decimal { .. } => self.decimal(&Decimal::from_int(i128::from(value))),
            // Beyond 53 bits a float would be another number.
            #[expect(clippy::cast_precision_loss, reason = "exact within 53 bits")]
            ComparisonType::Float { bits } if value.unsigned_abs() <= 1 << 53 => {
                self.float(value as f64, *bits);
            }
            ComparisonType::Dynamic => self.dynamic_int(value),
            // A document that is a number, which SQLite's affinity keeps as one.
            ComparisonType::Json => self.json(&value.to_string()),
            _ => self.irregular(StoredClass::Integer, &value.to_be_bytes()),
        }
    }

    /// A double under any comparison type.
    pub fn real_as(self, comparison: &ComparisonType, value: f64) {
        match comparison {
            ComparisonType::Float { bits } => self.float(value, *bits),
            ComparisonType::Decimal { scale } => {
                let decimal = Decimal::from_f64(value);
                self.decimal(&match scale {
                    Some(scale) => decimal.rounded(*scale),
                    None => decimal,
                });
            }
            ComparisonType::Integer if Decimal::from_f64(value).to_int().is_some() => {
                self.int128(Decimal::from_f64(value).to_int().unwrap_or(0));
            }
            ComparisonType::Dynamic => self.dynamic_real(value),
            ComparisonType::Json if value.is_finite() => self.json(&Decimal::from_f64(value).to_string()),
            _ => self.irregular(StoredClass::Real, &value.to_be_bytes()),
        }
    }

    /// Bytes under any comparison type.
    pub fn bytes_as(self, comparison: &ComparisonType, value: &[u8]) {
        match comparison {
            ComparisonType::Bytes => self.bytes(value),
            ComparisonType::Uuid if value.len() == 16 => self.uuid(value.try_into().unwrap_or_default()),
            ComparisonType::Dynamic => self.dynamic(StoredClass::Blob, value),
            _ => self.irregular(StoredClass::Blob, value),
        }
    }

    /// A decoded value back into its bytes.
    pub fn value(self, comparison: &ComparisonType, value: &Value) -> Result<(), NullKey> {
        match value {
            Value::Null => return self.null(),
            Value::Int(value) if *comparison == ComparisonType::Dynamic => {
                self.dynamic_int(i64::try_from(*value).unwrap_or(i64::MAX));
            }
            Value::Int(value) => self.int128(*value),
            Value::Decimal(value) => self.decimal(value),
            Value::Float32(value) => self.float32(*value),
            Value::Float64(value) => self.real_as(comparison, *value),
            Value::Text(text) if *comparison == ComparisonType::Dynamic => {
                self.dynamic(StoredClass::Text, text.as_bytes());
            }
            Value::Text(text) | Value::Bits(text) | Value::Json(text) => self.bytes(text.as_bytes()),
            Value::Bytes(bytes) => self.bytes_as(comparison, bytes),
            Value::Uuid(bytes) => self.uuid(*bytes),
            Value::Date(days) => self.date(*days),
            Value::Time(micros) | Value::Timestamp(micros) | Value::TimestampTz(micros) => {
                self.micros(*micros)
            }
            Value::TimeTz { micros, west } => self.time_tz(*micros, *west),
            Value::Interval { months, days, micros } => self.interval(*months, *days, *micros),
            Value::Array(ArrayValue { dims, items }) => {
                let inner = match comparison {
                    ComparisonType::Array(inner) => inner.as_ref(),
                    other => other,
                };
                return self.array(dims, items.len(), |at, writer| writer.value(inner, &items[at]));
            }
            Value::Irregular(class, bytes) => self.irregular(*class, bytes),
        }
        Ok(())
    }

    /// A timestamp in microseconds since 1970, under its comparison type.
    #[inline]
    pub fn timestamp_as(self, comparison: &ComparisonType, micros: i64) {
        match comparison {
            ComparisonType::Timestamp { digits, rounding }
            | ComparisonType::TimestampTz { digits, rounding } => {
                self.micros(round_micros(micros, *digits, *rounding));
            }
            _ => self.irregular(StoredClass::Text, temporal::timestamp_text(micros).as_bytes()),
        }
    }
}
