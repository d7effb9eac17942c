//! PostgreSQL's binary forms into canonical bytes: no strings and no allocation on the common paths.

use crate::engine::RowError;
use crate::model::decimal::Decimal;
use crate::model::temporal::{
    DATE_INFINITY, DATE_NEG_INFINITY, MICROS_PER_DAY, MICROS_PER_SECOND, POSTGRES_EPOCH_DAYS,
    POSTGRES_EPOCH_MICROS, TIMESTAMP_INFINITY, TIMESTAMP_NEG_INFINITY, date_text, round_micros, round_time,
    time_text,
};
use crate::model::value::StoredClass;
use crate::model::{CellWriter, ColumnType, ComparisonType, Rounding, RowBuffer, TableAccess};

/// How one column's bytes are read. Chosen once per scan.
#[derive(Debug, Clone, PartialEq)]
enum Form {
    /// Integers and booleans of 1, 2, 4 or 8 bytes.
    Int,
    IntAsDecimal,
    Numeric {
        scale: Option<u32>,
    },
    /// A float of 4 or 8 bytes, compared at this width.
    Float {
        bits: u8,
    },
    Text {
        trim: bool,
    },
    /// The text of a "char", which is one byte and need not be a character.
    Byte,
    /// Text that is compared as a uuid.
    TextAsUuid,
    Json,
    Bytes,
    BytesAsUuid,
    Bits,
    BitsAsInt,
    Uuid,
    Date,
    Time {
        digits: u8,
        rounding: Rounding,
    },
    TimeTz {
        digits: u8,
    },
    Timestamp {
        digits: u8,
        rounding: Rounding,
    },
    Interval,
    Array(Box<Form>),
}

/// A value whose bytes are not what its type says. Never shown with content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Malformed(&'static str);

/// Decodes rows of one access.
#[derive(Debug)]
pub(super) struct Decoder {
    names: Vec<String>,
    forms: Vec<Form>,
    key_len: usize,
    /// The database's encoding promises nothing (SQL_ASCII), so every text is checked.
    check_text: bool,
}

impl Decoder {
    /// `Err` names the column whose type and comparison type do not belong together.
    pub(super) fn new(access: &TableAccess, check_text: bool) -> Result<Self, RowError> {
        let forms = access
            .columns
            .iter()
            .map(|column| {
                let form = if column.as_text {
                    match &column.comparison {
                        ComparisonType::Text { trim } => Some(Form::Text { trim: *trim }),
                        _ => None,
                    }
                } else {
                    match form(&column.ty, &column.comparison) {
                        Some(Form::Text { trim: false }) if column.declared == "\"char\"" => Some(Form::Byte),
                        form => form,
                    }
                };
                form.ok_or_else(|| RowError::Malformed {
                    column: column.name.clone(),
                    what: format!("{} cannot be read as the plan asks", column.declared),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let names = access.columns.iter().map(|column| column.name.clone()).collect();
        Ok(Self { names, forms, key_len: access.key_len, check_text })
    }

    /// Reads one row in COPY's binary form from the front of `input`.
    #[inline]
    pub(super) fn row(&self, input: &mut &[u8], out: &mut RowBuffer) -> Result<(), RowError> {
        out.clear();
        let fields = take_i16(input).map_err(|e| self.malformed(0, e))?;
        if usize::try_from(fields) != Ok(self.forms.len()) {
            return Err(self.malformed(0, Malformed("the row has another number of columns than asked for")));
        }
        for (at, form) in self.forms.iter().enumerate() {
            let length = take_i32(input).map_err(|e| self.malformed(at, e))?;
            let writer = out.column(at, self.key_len);
            let Ok(length) = usize::try_from(length) else {
                writer.null().map_err(|_| RowError::NullKey(self.name(at)))?;
                continue;
            };
            let bytes = take(input, length).map_err(|e| self.malformed(at, e))?;
            form.write(bytes, writer, self.check_text).map_err(|e| self.malformed(at, e))?;
        }
        Ok(())
    }

    fn name(&self, at: usize) -> String {
        self.names.get(at).cloned().unwrap_or_default()
    }

    #[cold]
    fn malformed(&self, at: usize, what: Malformed) -> RowError {
        RowError::Malformed { column: self.name(at), what: what.0.to_owned() }
    }
}

fn form(ty: &ColumnType, comparison: &ComparisonType) -> Option<Form> {
    use ColumnType as T;
    use ComparisonType as C;
    Some(match (ty, comparison) {
        (T::Bool | T::Int { .. }, C::Integer) => Form::Int,
        (T::Bool | T::Int { .. }, C::Decimal { .. }) => Form::IntAsDecimal,
        (T::Decimal { .. }, C::Decimal { scale }) => Form::Numeric { scale: *scale },
        (T::Float { .. }, C::Float { bits }) => Form::Float { bits: *bits },
        (T::Text { .. } | T::Named(_), C::Text { trim }) => Form::Text { trim: *trim },
        (T::Text { .. }, C::Uuid) => Form::TextAsUuid,
        (T::Text { .. } | T::Json, C::Json) => Form::Json,
        (T::Bytes, C::Bytes) => Form::Bytes,
        (T::Bytes, C::Uuid) => Form::BytesAsUuid,
        (T::Bits, C::Bits) => Form::Bits,
        (T::Bits, C::Integer) => Form::BitsAsInt,
        (T::Uuid, C::Uuid) => Form::Uuid,
        (T::Date, C::Date) => Form::Date,
        (T::Time { .. }, C::Time { digits, rounding }) => Form::Time { digits: *digits, rounding: *rounding },
        (T::TimeTz { .. }, C::TimeTz { digits }) => Form::TimeTz { digits: *digits },
        (T::Timestamp { .. }, C::Timestamp { digits, rounding } | C::TimestampTz { digits, rounding })
        | (T::TimestampTz { .. }, C::TimestampTz { digits, rounding }) => {
            Form::Timestamp { digits: *digits, rounding: *rounding }
        }
        (T::Interval, C::Interval) => Form::Interval,
        (T::Array(ty), C::Array(comparison)) => Form::Array(Box::new(form(ty, comparison)?)),
        _ => return None,
    })
}

impl Form {
    #[inline]
    fn write(&self, bytes: &[u8], out: CellWriter<'_>, check_text: bool) -> Result<(), Malformed> {
        match self {
            Self::Int => out.int(int(bytes)?),
            Self::IntAsDecimal => out.decimal(&Decimal::from_int(i128::from(int(bytes)?))),
            Self::Numeric { scale } => numeric(bytes, *scale, out)?,
            Self::Float { bits } => out.float(float(bytes)?, *bits),
            Self::Text { trim } => {
                if check_text && std::str::from_utf8(bytes).is_err() {
                    out.irregular(StoredClass::Blob, bytes);
                } else {
                    out.text(bytes, *trim);
                }
            }
            Self::Byte => match std::str::from_utf8(bytes) {
                Ok(_) => out.bytes(bytes),
                Err(_) => out.irregular(StoredClass::Blob, bytes),
            },
            Self::TextAsUuid => match std::str::from_utf8(bytes) {
                // char(36) comes with its blanks.
                Ok(text) => out.text_as(&ComparisonType::Uuid, text.trim_end_matches(' ')),
                Err(_) => out.irregular(StoredClass::Blob, bytes),
            },
            Self::Json => {
                // jsonb puts its version before the text; json text never starts with this byte.
                match std::str::from_utf8(bytes.strip_prefix(&[1]).unwrap_or(bytes)) {
                    Ok(text) => out.json(text),
                    Err(_) => out.irregular(StoredClass::Blob, bytes),
                }
            }
            Self::Bytes => out.bytes(bytes),
            Self::BytesAsUuid => out.bytes_as(&ComparisonType::Uuid, bytes),
            Self::Bits => bits(bytes, out)?,
            Self::BitsAsInt => bits_as_int(bytes, out)?,
            Self::Uuid => out.uuid(bytes.try_into().map_err(|_| Malformed("a uuid is not 16 bytes"))?),
            Self::Date => date(bytes, out)?,
            Self::Time { digits, rounding } => {
                out.micros(round_time(int(bytes)?, *digits, *rounding));
            }
            Self::TimeTz { digits } => {
                let (micros, west) = bytes.split_at_checked(8).ok_or(SHORT)?;
                let micros = round_time(int(micros)?, *digits, Rounding::HalfAwayFromZero);
                out.time_tz(micros, i32::from_be_bytes(west.try_into().map_err(|_| SHORT)?));
            }
            Self::Timestamp { digits, rounding } => timestamp(int(bytes)?, *digits, *rounding, out),
            Self::Interval => {
                let (micros, rest) = bytes.split_at_checked(8).ok_or(SHORT)?;
                let (days, months) = rest.split_at_checked(4).ok_or(SHORT)?;
                let small = |bytes: &[u8]| bytes.try_into().map(i32::from_be_bytes).map_err(|_| SHORT);
                out.interval(small(months)?, small(days)?, int(micros)?);
            }
            Self::Array(inner) => array(inner, bytes, out, check_text)?,
        }
        Ok(())
    }
}

const SHORT: Malformed = Malformed("a value has another length than its type");

#[inline]
fn int(bytes: &[u8]) -> Result<i64, Malformed> {
    if let Ok(bytes) = bytes.try_into() {
        return Ok(i64::from_be_bytes(bytes));
    }
    if let Ok(bytes) = bytes.try_into() {
        return Ok(i64::from(i32::from_be_bytes(bytes)));
    }
    if let Ok(bytes) = bytes.try_into() {
        return Ok(i64::from(i16::from_be_bytes(bytes)));
    }
    match bytes {
        // A boolean.
        [byte] => Ok(i64::from(*byte)),
        _ => Err(SHORT),
    }
}

fn float(bytes: &[u8]) -> Result<f64, Malformed> {
    match (bytes.try_into(), bytes.try_into()) {
        (Ok(wide), _) => Ok(f64::from_be_bytes(wide)),
        (_, Ok(narrow)) => Ok(f64::from(f32::from_be_bytes(narrow))),
        _ => Err(SHORT),
    }
}

#[inline]
fn numeric(bytes: &[u8], scale: Option<u32>, out: CellWriter<'_>) -> Result<(), Malformed> {
    let (head, mut digits) = bytes.split_first_chunk::<8>().ok_or(SHORT)?;
    let [_, _, w0, w1, s0, s1, d0, d1] = *head;
    let weight = i16::from_be_bytes([w0, w1]);
    let negative = match u16::from_be_bytes([s0, s1]) {
        0x0000 => false,
        0x4000 => true,
        0xc000 => {
            out.decimal(&Decimal::NaN);
            return Ok(());
        }
        0xd000 => {
            out.decimal(&Decimal::Infinity);
            return Ok(());
        }
        0xf000 => {
            out.decimal(&Decimal::NegativeInfinity);
            return Ok(());
        }
        _ => return Err(Malformed("a numeric has an unknown sign")),
    };
    if digits.len() % 2 != 0 {
        return Err(SHORT);
    }
    // Zero digits at the end mean nothing; the server leaves them out, mostly.
    while let [rest @ .., 0, 0] = digits {
        digits = rest;
    }
    let (pairs, _) = digits.as_chunks::<2>();
    if pairs.iter().any(|pair| u16::from_be_bytes(*pair) > 9999) {
        return Err(Malformed("a numeric has a digit beyond its base"));
    }
    let too_fine = scale.is_some_and(|scale| u32::from(u16::from_be_bytes([d0, d1])) > scale);
    if too_fine || matches!(pairs, [[0, 0], ..]) {
        let digits = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
        let exact = Decimal::finite(negative, weight, digits);
        out.decimal(&match scale {
            Some(scale) => exact.rounded(scale),
            None => exact,
        });
        return Ok(());
    }
    out.decimal_digits(negative, weight, pairs.iter().map(|pair| u16::from_be_bytes(*pair)));
    Ok(())
}

fn each_bit(bytes: &[u8]) -> Result<(usize, impl Iterator<Item = bool> + '_), Malformed> {
    let (head, body) = bytes.split_first_chunk::<4>().ok_or(SHORT)?;
    let count = usize::try_from(i32::from_be_bytes(*head)).map_err(|_| SHORT)?;
    if body.len() != count.div_ceil(8) {
        return Err(SHORT);
    }
    let all = body.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1 == 1));
    Ok((count, all.take(count)))
}

fn bits(bytes: &[u8], out: CellWriter<'_>) -> Result<(), Malformed> {
    let (_, bits) = each_bit(bytes)?;
    let text: Vec<u8> = bits.map(|bit| if bit { b'1' } else { b'0' }).collect();
    out.bytes(&text);
    Ok(())
}

fn bits_as_int(bytes: &[u8], out: CellWriter<'_>) -> Result<(), Malformed> {
    let (count, bits) = each_bit(bytes)?;
    if count < 128 {
        out.int128(bits.fold(0, |value, bit| value << 1 | i128::from(bit)));
    } else {
        let text: Vec<u8> = bits.map(|bit| if bit { b'1' } else { b'0' }).collect();
        out.irregular(StoredClass::Text, &text);
    }
    Ok(())
}

fn date(bytes: &[u8], out: CellWriter<'_>) -> Result<(), Malformed> {
    let days = i32::from_be_bytes(bytes.try_into().map_err(|_| SHORT)?);
    out.date(match days {
        i32::MAX => DATE_INFINITY,
        i32::MIN => DATE_NEG_INFINITY,
        days => days.checked_add(POSTGRES_EPOCH_DAYS).ok_or(Malformed("a date is beyond the calendar"))?,
    });
    Ok(())
}

#[inline]
fn timestamp(stored: i64, digits: u8, rounding: Rounding, out: CellWriter<'_>) {
    let micros = match stored {
        i64::MAX => TIMESTAMP_INFINITY,
        i64::MIN => TIMESTAMP_NEG_INFINITY,
        // A second less than what is left, so that rounding stays within it.
        stored if stored > i64::MAX - POSTGRES_EPOCH_MICROS - MICROS_PER_SECOND => {
            return far_future(stored, digits, rounding, out);
        }
        stored => stored + POSTGRES_EPOCH_MICROS,
    };
    out.micros(if digits >= 6 { micros } else { round_micros(micros, digits, rounding) });
}

/// The last weeks of PostgreSQL's calendar do not fit microseconds from 1970: kept by their text.
#[cold]
fn far_future(stored: i64, digits: u8, rounding: Rounding, out: CellWriter<'_>) {
    let step = 10i64.pow(u32::from(6 - digits.min(6)));
    let stored = match rounding {
        Rounding::Truncate => stored / step * step,
        Rounding::HalfUp | Rounding::HalfAwayFromZero => (stored + step / 2) / step * step,
    };
    match stored.checked_add(POSTGRES_EPOCH_MICROS) {
        // The greatest count means infinity.
        Some(micros) if micros != TIMESTAMP_INFINITY => return out.micros(micros),
        _ => {}
    }
    let days =
        i32::try_from(stored.div_euclid(MICROS_PER_DAY)).unwrap_or(0).saturating_add(POSTGRES_EPOCH_DAYS);
    let text = format!("{} {}", date_text(days), time_text(stored.rem_euclid(MICROS_PER_DAY)));
    out.irregular(StoredClass::Text, text.as_bytes());
}

fn array(inner: &Form, bytes: &[u8], out: CellWriter<'_>, check_text: bool) -> Result<(), Malformed> {
    const DIMENSIONS_MAX: i32 = 6;
    let mut rest = bytes;
    let input = &mut rest;
    let count = take_i32(input)?;
    let _has_nulls = take_i32(input)?;
    let _element = take_i32(input)?;
    if !(0..=DIMENSIONS_MAX).contains(&count) {
        return Err(Malformed("an array has an impossible number of dimensions"));
    }
    let mut dims = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    let mut items = usize::from(count > 0);
    for _ in 0..count {
        let length = u32::try_from(take_i32(input)?).map_err(|_| SHORT)?;
        dims.push((length, take_i32(input)?));
        items = usize::try_from(length).ok().and_then(|length| items.checked_mul(length)).ok_or(SHORT)?;
    }
    // Every element has a length of four bytes at least.
    if items > input.len() / 4 {
        return Err(SHORT);
    }
    out.array(&dims, items, |_, item| {
        let length = take_i32(input)?;
        match usize::try_from(length) {
            Ok(length) => inner.write(take(input, length)?, item, check_text),
            Err(_) => item.null().map_err(|_| SHORT),
        }
    })
}

#[inline]
fn take<'a>(input: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = input.split_at_checked(length).ok_or(Malformed("the row ends too early"))?;
    *input = rest;
    Ok(taken)
}

#[inline]
fn take_i16(input: &mut &[u8]) -> Result<i16, Malformed> {
    let (taken, rest) = input.split_first_chunk().ok_or(Malformed("the row ends too early"))?;
    *input = rest;
    Ok(i16::from_be_bytes(*taken))
}

#[inline]
fn take_i32(input: &mut &[u8]) -> Result<i32, Malformed> {
    let (taken, rest) = input.split_first_chunk().ok_or(Malformed("the row ends too early"))?;
    *input = rest;
    Ok(i32::from_be_bytes(*taken))
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
