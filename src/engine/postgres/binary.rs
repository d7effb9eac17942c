//! A canonical value in the binary form that one column's type receives: the way back of `decode`, for the types that most
//! tables are made of.

use super::bind::{has_more_places, is_longer, varying_length};
use crate::model::canonical::decode_cell;
use crate::model::decimal::Decimal;
use crate::model::json::repeats_names;
use crate::model::temporal::{
    DATE_INFINITY, DATE_NEG_INFINITY, POSTGRES_EPOCH_DAYS, POSTGRES_EPOCH_MICROS, TIMESTAMP_INFINITY,
    TIMESTAMP_NEG_INFINITY, is_ordinary,
};
use crate::model::{AccessColumn, ColumnType, ComparisonType, Value};

/// Digits of a decimal, of four places each, that need no memory of their own.
const DIGITS_FEW: usize = 8;

/// What a column receives. Chosen once per table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receive {
    Bool,
    Int {
        bytes: usize,
    },
    /// What has more places would be rounded.
    Numeric {
        scale: Option<u32>,
    },
    Float32,
    Float64,
    /// What has more characters would lose blanks at its end.
    Text {
        most: usize,
    },
    Bytes,
    Uuid,
    Date,
    Timestamp,
    TimestampTz,
    Json,
    Jsonb,
}

impl Receive {
    /// `bare` is the column's type behind domains; `None` where its values are better told as text.
    pub(super) fn of(column: &AccessColumn, bare: &str) -> Option<Self> {
        use ColumnType as T;
        if column.as_text {
            return None;
        }
        Some(match (&column.ty, bare) {
            (T::Bool, "boolean") => Self::Bool,
            (T::Int { .. }, "smallint") => Self::Int { bytes: 2 },
            (T::Int { .. }, "integer") => Self::Int { bytes: 4 },
            (T::Int { .. }, "bigint") => Self::Int { bytes: 8 },
            (T::Decimal { scale, .. }, "numeric") => Self::Numeric { scale: *scale },
            (T::Float { .. }, "real") => Self::Float32,
            (T::Float { .. }, "double precision") => Self::Float64,
            (T::Text { .. }, "text" | "character varying" | "character" | "bpchar") => {
                Self::Text { most: varying_length(&column.declared).unwrap_or(usize::MAX) }
            }
            (T::Bytes, "bytea") => Self::Bytes,
            (T::Uuid, "uuid") => Self::Uuid,
            (T::Date, "date") => Self::Date,
            (T::Timestamp { .. }, "timestamp without time zone") => Self::Timestamp,
            (T::TimestampTz { .. }, "timestamp with time zone") => Self::TimestampTz,
            (T::Json, "json") => Self::Json,
            (T::Json, "jsonb") => Self::Jsonb,
            _ => return None,
        })
    }

    /// As `put`, of a cell's canonical bytes: without a value in between where their form allows it.
    pub(super) fn put_cell(self, ty: &ComparisonType, cell: &[u8], out: &mut Vec<u8>) -> Option<()> {
        use ComparisonType as C;
        // One byte of header: a regular value of less than 63 bytes.
        if let [head, plain @ ..] = cell
            && head % 2 == 1
            && usize::from(*head / 2) == plain.len()
            && *head < 0x80
        {
            match (self, ty) {
                (Self::Text { most }, C::Text { .. }) => {
                    let text = std::str::from_utf8(plain).ok().filter(|text| !is_longer(text, most));
                    return text.and_then(|text| field(out, text.as_bytes()));
                }
                (Self::Timestamp | Self::TimestampTz, C::TimestampTz { .. })
                | (Self::Timestamp, C::Timestamp { .. }) => {
                    let flipped = u64::from_be_bytes(plain.try_into().ok()?) ^ 1 << 63;
                    return field(out, &timestamp(flipped.cast_signed())?.to_be_bytes());
                }
                (Self::Numeric { scale }, C::Decimal { .. }) => {
                    let before = out.len();
                    if let Some(put) = short_numeric(plain, scale, out) {
                        return Some(put);
                    }
                    out.truncate(before);
                }
                _ => {}
            }
        }
        let mut rest = cell;
        let value = decode_cell(ty, &mut rest).ok().filter(|_| rest.is_empty())?;
        self.put(&value, out)
    }

    /// Puts a field: its length and its bytes. `None` where the value is not one of the column's own kind.
    pub(super) fn put(self, value: &Value, out: &mut Vec<u8>) -> Option<()> {
        match (self, value) {
            (_, Value::Null) => out.extend_from_slice(&(-1i32).to_be_bytes()),
            (Self::Bool, Value::Int(0)) => field(out, &[0])?,
            (Self::Bool, Value::Int(1)) => field(out, &[1])?,
            (Self::Int { bytes: 2 }, Value::Int(number)) => {
                field(out, &i16::try_from(*number).ok()?.to_be_bytes())?;
            }
            (Self::Int { bytes: 4 }, Value::Int(number)) => {
                field(out, &i32::try_from(*number).ok()?.to_be_bytes())?;
            }
            (Self::Int { .. }, Value::Int(number)) => {
                field(out, &i64::try_from(*number).ok()?.to_be_bytes())?;
            }
            (Self::Numeric { scale }, Value::Decimal(number)) if has_more_places(number, scale) => {
                return None;
            }
            (Self::Numeric { .. }, Value::Decimal(Decimal::Finite { negative, weight, digits })) => {
                numeric(*negative, *weight, digits, None, out)?;
            }
            (Self::Numeric { .. }, Value::Decimal(Decimal::NaN)) => field(out, &[0, 0, 0, 0, 0xc0, 0, 0, 0])?,
            (Self::Float32, Value::Float32(number)) => field(out, &number.to_be_bytes())?,
            (Self::Float64, Value::Float64(number)) => field(out, &number.to_be_bytes())?,
            (Self::Text { most }, Value::Text(text)) if is_longer(text, most) => return None,
            (Self::Text { .. }, Value::Text(text)) | (Self::Json, Value::Json(text)) => {
                field(out, text.as_bytes())?;
            }
            (Self::Jsonb, Value::Json(text)) if repeats_names(text) => return None,
            (Self::Jsonb, Value::Json(text)) => {
                out.extend_from_slice(&i32::try_from(text.len() + 1).ok()?.to_be_bytes());
                out.push(1);
                out.extend_from_slice(text.as_bytes());
            }
            (Self::Bytes, Value::Bytes(bytes)) => field(out, bytes)?,
            (Self::Uuid, Value::Uuid(bytes)) => field(out, bytes)?,
            (Self::Date, Value::Date(days)) => field(out, &date(*days)?.to_be_bytes())?,
            (Self::Timestamp | Self::TimestampTz, Value::TimestampTz(micros))
            | (Self::Timestamp, Value::Timestamp(micros)) => {
                field(out, &timestamp(*micros)?.to_be_bytes())?;
            }
            _ => return None,
        }
        Some(())
    }
}

fn field(out: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    out.extend_from_slice(&i32::try_from(bytes.len()).ok()?.to_be_bytes());
    out.extend_from_slice(bytes);
    Some(())
}

/// A finite decimal of few digits, from its payload. `None` where it is another, or has more places than `most`.
fn short_numeric(payload: &[u8], most: Option<u32>, out: &mut Vec<u8>) -> Option<()> {
    let (sign @ (2 | 4), rest) = payload.split_first()? else { return None };
    let negative = *sign == 2;
    let flip = if negative { u16::MAX } else { 0 };
    let (pairs, []) = rest.as_chunks::<2>() else { return None };
    let [weight, digits @ .., end] = pairs else { return None };
    if u16::from_be_bytes(*end) != flip {
        return None;
    }
    let mut plain = [0; DIGITS_FEW];
    let plain = plain.get_mut(..digits.len())?;
    for (digit, pair) in plain.iter_mut().zip(digits) {
        *digit = (u16::from_be_bytes(*pair) ^ flip).checked_sub(1)?;
    }
    let weight = (u16::from_be_bytes(*weight) ^ flip ^ 1 << 15).cast_signed();
    numeric(negative, weight, plain, most, out)
}

/// As the text without zeros at its end would be read.
fn numeric(negative: bool, weight: i16, digits: &[u16], most: Option<u32>, out: &mut Vec<u8>) -> Option<()> {
    let count = i16::try_from(digits.len()).ok()?;
    let groups = i32::from(count) - 1 - i32::from(weight);
    let scale = match digits.last() {
        Some(last) if groups > 0 => {
            let zeros = (1..4).take_while(|at| last % 10u16.pow(*at) == 0).count();
            groups * 4 - i32::try_from(zeros).ok()?
        }
        _ => 0,
    };
    if most.is_some_and(|most| u32::try_from(scale).is_ok_and(|scale| scale > most)) {
        return None;
    }
    out.extend_from_slice(&(8 + 2 * i32::from(count)).to_be_bytes());
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&(if negative { 0x4000u16 } else { 0 }).to_be_bytes());
    out.extend_from_slice(&u16::try_from(scale).ok()?.to_be_bytes());
    digits.iter().for_each(|digit| out.extend_from_slice(&digit.to_be_bytes()));
    Some(())
}

/// Dates that no calendar has are MySQL's alone.
fn date(days: i32) -> Option<i32> {
    match days {
        DATE_INFINITY => Some(i32::MAX),
        DATE_NEG_INFINITY => Some(i32::MIN),
        days if days < -2_500_000 => None,
        days => days.checked_sub(POSTGRES_EPOCH_DAYS),
    }
}

fn timestamp(micros: i64) -> Option<i64> {
    match micros {
        TIMESTAMP_INFINITY => Some(i64::MAX),
        TIMESTAMP_NEG_INFINITY => Some(i64::MIN),
        micros if !is_ordinary(micros) => None,
        micros => micros.checked_sub(POSTGRES_EPOCH_MICROS),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::postgres::decode::Decoder;
    use crate::model::canonical::{decode_row, split_cells};
    use crate::model::{ComparisonType, Filled, Rounding, RowBuffer, TableAccess, TableName};

    fn column(ty: ColumnType, comparison: ComparisonType) -> AccessColumn {
        let (name, declared) = ("c".to_owned(), String::new());
        AccessColumn { name, ty, declared, comparison, as_text: false, filled: Filled::ByWriter }
    }

    fn columns() -> Vec<(AccessColumn, &'static str)> {
        use ColumnType as T;
        use ComparisonType as C;
        let rounding = Rounding::HalfAwayFromZero;
        let int = |bits| T::Int { bits, signed: true };
        let float = |bits| column(T::Float { bits }, C::Float { bits });
        vec![
            (column(T::Bool, C::Integer), "boolean"),
            (column(int(16), C::Integer), "smallint"),
            (column(int(32), C::Integer), "integer"),
            (column(int(64), C::Integer), "bigint"),
            (column(T::Decimal { precision: None, scale: None }, C::Decimal { scale: None }), "numeric"),
            (float(32), "real"),
            (float(64), "double precision"),
            (column(T::Text { padded: false }, C::Text { trim: false }), "text"),
            (column(T::Bytes, C::Bytes), "bytea"),
            (column(T::Uuid, C::Uuid), "uuid"),
            (column(T::Date, C::Date), "date"),
            (
                column(T::Timestamp { digits: 6 }, C::Timestamp { digits: 6, rounding }),
                "timestamp without time zone",
            ),
            (
                column(T::TimestampTz { digits: 6 }, C::TimestampTz { digits: 6, rounding }),
                "timestamp with time zone",
            ),
            (column(T::Json, C::Json), "jsonb"),
        ]
    }

    fn values() -> impl Strategy<Value = Vec<Value>> {
        let decimal = (any::<i64>(), 0u32..12).prop_map(|(number, point)| {
            let exact = Decimal::from_int(i128::from(number));
            match exact {
                Decimal::Finite { negative, weight, digits } => {
                    Decimal::finite(negative, weight - i16::try_from(point).unwrap(), digits)
                }
                other => other,
            }
        });
        let numbers =
            (any::<bool>(), any::<i16>(), any::<i32>(), any::<i64>(), decimal, any::<f32>(), any::<f64>());
        let others = (".{0,20}", prop::collection::vec(any::<u8>(), 0..20), any::<[u8; 16]>());
        let times = (-700_000i32..2_000_000, any::<i32>(), any::<i32>());
        (numbers, others, times).prop_map(|(numbers, (text, bytes, uuid), (days, a, b))| {
            let micros = |n: i32| i64::from(n) * 1_000_003 * 60;
            vec![
                Value::Int(i128::from(numbers.0)),
                Value::Int(i128::from(numbers.1)),
                Value::Int(i128::from(numbers.2)),
                Value::Int(i128::from(numbers.3)),
                Value::Decimal(numbers.4),
                Value::Float32(if numbers.5.is_nan() { 0.5 } else { numbers.5 + 0.0 }),
                Value::Float64(if numbers.6.is_nan() { 0.5 } else { numbers.6 + 0.0 }),
                Value::Text(text.clone()),
                Value::Bytes(bytes),
                Value::Uuid(uuid),
                Value::Date(days),
                Value::Timestamp(micros(a)),
                Value::TimestampTz(micros(b)),
                Value::Json(format!(
                    "[\"{}\"]",
                    text.replace(|c: char| c.is_control() || matches!(c, '"' | '\\'), "")
                )),
            ]
        })
    }

    proptest! {
        /// What is sent is read back as the same value by the way that rows come from the server.
        #[test]
        fn what_is_sent_is_what_was_meant(values in values(), null in prop::collection::vec(any::<bool>(), 14)) {
            let values: Vec<Value> =
                values.into_iter().zip(null).map(|(value, null)| if null { Value::Null } else { value }).collect();
            let columns = columns();
            let mut sent = i16::try_from(columns.len() + 1).unwrap().to_be_bytes().to_vec();
            field(&mut sent, &7i64.to_be_bytes()).unwrap();
            let mut receives = Vec::new();
            for ((column, bare), value) in columns.iter().zip(&values) {
                let receive = Receive::of(column, bare).unwrap();
                receives.push(receive);
                prop_assert!(receive.put(value, &mut sent).is_some(), "{bare}");
            }
            let key = column(ColumnType::Int { bits: 64, signed: true }, ComparisonType::Integer);
            let access = TableAccess {
                table: TableName { schema: None, name: "t".into() },
                columns: std::iter::once(key).chain(columns.into_iter().map(|(column, _)| column)).collect(),
                key_len: 1,
                filter: None,
            };
            let mut row = RowBuffer::default();
            Decoder::new(&access, false).unwrap().row(&mut sent.as_slice(), &mut row).unwrap();
            // The canonical bytes are sent as their values are.
            let mut cells = Vec::new();
            let types = access.row_types();
            for ((cell, ty), receive) in split_cells(&row.row).unwrap().into_iter().zip(&types).zip(receives) {
                prop_assert!(receive.put_cell(ty, cell, &mut cells).is_some());
            }
            prop_assert_eq!(&cells[..], &sent[2 + 4 + 8..]);
            let back = decode_row(&types, row.row.as_slice()).unwrap();
            for ((back, value), column) in back.iter().zip(&values).zip(access.row_columns()) {
                prop_assert!(back == value, "{:?}: {:?} {:?}", column.ty, back.to_text(), value.to_text());
            }
            prop_assert_eq!(back.len(), values.len());
        }
    }

    #[test]
    fn the_scale_is_that_of_the_digits() {
        for (text, scale) in
            [("1.5", 1), ("0.0001", 4), ("12.25", 2), ("100000", 0), ("0.00012", 5), ("0", 0)]
        {
            let mut out = Vec::new();
            Receive::Numeric { scale: None }
                .put(&Value::Decimal(Decimal::parse(text).unwrap()), &mut out)
                .unwrap();
            assert_eq!(u16::from_be_bytes([out[10], out[11]]), scale, "{text}");
        }
    }

    #[test]
    fn what_is_not_of_the_column_is_left_to_others() {
        for (receive, value) in [
            (Receive::Bool, Value::Int(2)),
            (Receive::Int { bytes: 2 }, Value::Int(1 << 20)),
            (Receive::Numeric { scale: None }, Value::Decimal(Decimal::Infinity)),
            (Receive::Numeric { scale: Some(2) }, Value::Decimal(Decimal::parse("1.001").unwrap())),
            (Receive::Text { most: 2 }, Value::Text("ab ".into())),
            (Receive::Float32, Value::Float64(1e300)),
            (Receive::Jsonb, Value::Json(r#"{"a":1,"a":2}"#.into())),
            (Receive::Date, Value::Date(i32::MIN + 5)),
            (Receive::Timestamp, Value::Timestamp(i64::MIN + 5)),
            (Receive::TimestampTz, Value::Timestamp(0)),
            (Receive::Text { most: usize::MAX }, Value::Int(1)),
        ] {
            assert_eq!(receive.put(&value, &mut Vec::new()), None, "{receive:?}");
        }
    }
}
