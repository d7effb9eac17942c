//! Reading canonical bytes back. Input may come from a peer: every length is checked, nothing panics.

use thiserror::Error;

use super::{IRREGULAR, REGULAR};
use crate::model::comparison::ComparisonType;
use crate::model::decimal::Decimal;
use crate::model::value::{ArrayValue, StoredClass, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed canonical bytes: {0}")]
pub struct DecodeError(&'static str);

const SHORT: DecodeError = DecodeError("ends too early");

/// Reads a key of these comparison types.
pub fn decode_key(types: &[ComparisonType], bytes: &[u8]) -> Result<Vec<Value>, DecodeError> {
    let mut values = Vec::with_capacity(types.len());
    decode_key_into(types, bytes, &mut values)?;
    Ok(values)
}

/// The same into memory that is used again from key to key.
pub fn decode_key_into(
    types: &[ComparisonType],
    mut bytes: &[u8],
    values: &mut Vec<Value>,
) -> Result<(), DecodeError> {
    let input = &mut bytes;
    values.clear();
    for ty in types {
        values.push(match take_byte(input)? {
            REGULAR if delimits_itself(ty) => payload(ty, input)?,
            REGULAR => {
                let plain = unescape(input)?;
                whole(ty, &plain)?
            }
            IRREGULAR => {
                let class = StoredClass::from_byte(take_byte(input)?).ok_or(DecodeError("unknown class"))?;
                Value::Irregular(class, unescape(input)?)
            }
            _ => return Err(DecodeError("unknown component")),
        });
    }
    if input.is_empty() { Ok(()) } else { Err(DecodeError("bytes left over")) }
}

/// Reads a row of these comparison types.
pub fn decode_row(types: &[ComparisonType], mut bytes: &[u8]) -> Result<Vec<Value>, DecodeError> {
    let input = &mut bytes;
    let values = types.iter().map(|ty| decode_cell(ty, input)).collect::<Result<Vec<_>, _>>()?;
    if input.is_empty() { Ok(values) } else { Err(DecodeError("bytes left over")) }
}

/// The cells of a row as they stand, so that two rows can be compared column by column without decoding.
pub fn split_cells(bytes: &[u8]) -> Result<Vec<&[u8]>, DecodeError> {
    let mut cells = Vec::new();
    split_cells_into(bytes, &mut cells)?;
    Ok(cells)
}

/// The same into memory that is used again from row to row.
pub fn split_cells_into<'a>(mut bytes: &'a [u8], cells: &mut Vec<&'a [u8]>) -> Result<(), DecodeError> {
    cells.clear();
    while !bytes.is_empty() {
        let before = bytes;
        let mut rest = bytes;
        let header = take_varint(&mut rest)?;
        take(&mut rest, cell_len(header)?)?;
        cells.push(&before[..before.len() - rest.len()]);
        bytes = rest;
    }
    Ok(())
}

fn cell_len(header: u64) -> Result<usize, DecodeError> {
    usize::try_from(header.saturating_sub(1) / 2).map_err(|_| SHORT)
}

/// Reads one cell of a row.
pub fn decode_cell(ty: &ComparisonType, input: &mut &[u8]) -> Result<Value, DecodeError> {
    let header = take_varint(input)?;
    if header == 0 {
        return Ok(Value::Null);
    }
    let mut bytes = take(input, cell_len(header)?)?;
    if header % 2 == 0 {
        let class = StoredClass::from_byte(take_byte(&mut bytes)?).ok_or(DecodeError("unknown class"))?;
        return Ok(Value::Irregular(class, bytes.to_vec()));
    }
    whole(ty, bytes)
}

fn delimits_itself(ty: &ComparisonType) -> bool {
    use ComparisonType as C;
    !matches!(ty, C::Text { .. } | C::Bytes | C::Bits | C::Json | C::Set | C::Array(_) | C::Dynamic)
}

fn whole(ty: &ComparisonType, mut bytes: &[u8]) -> Result<Value, DecodeError> {
    let value = payload(ty, &mut bytes)?;
    if bytes.is_empty() { Ok(value) } else { Err(DecodeError("bytes left over in a value")) }
}

fn payload(ty: &ComparisonType, input: &mut &[u8]) -> Result<Value, DecodeError> {
    use ComparisonType as C;
    Ok(match ty {
        C::Integer => Value::Int(take_int(input)?),
        C::Decimal { .. } => Value::Decimal(take_decimal(input)?),
        C::Float { bits: 32 } => {
            let ordered = u32::from_be_bytes(take_array(input)?);
            Value::Float32(f32::from_bits(if ordered >> 31 == 1 {
                ordered & (u32::MAX >> 1)
            } else {
                !ordered
            }))
        }
        C::Float { .. } => Value::Float64(take_f64(input)?),
        C::Text { .. } | C::Set => Value::Text(take_utf8(input)?),
        C::Bytes => Value::Bytes(std::mem::take(input).to_vec()),
        C::Bits => Value::Bits(take_utf8(input)?),
        C::Json => Value::Json(take_utf8(input)?),
        C::Uuid => Value::Uuid(take_array(input)?),
        C::Date => Value::Date((u32::from_be_bytes(take_array(input)?) ^ 1 << 31).cast_signed()),
        C::Time { .. } => Value::Time(take_i64(input)?),
        C::TimeTz { .. } => Value::TimeTz { micros: take_i64(input)?, west: take_i32(input)? },
        C::Timestamp { .. } => Value::Timestamp(take_i64(input)?),
        C::TimestampTz { .. } => Value::TimestampTz(take_i64(input)?),
        C::Interval => {
            let (months, days) = (take_i32(input)?, take_i32(input)?);
            Value::Interval { months, days, micros: take_i64(input)? }
        }
        C::Array(inner) => take_array_value(inner, input)?,
        C::Dynamic => match StoredClass::from_byte(take_byte(input)?).ok_or(DecodeError("unknown class"))? {
            StoredClass::Integer => Value::Int(i128::from(take_i64(input)?)),
            StoredClass::Real => Value::Float64(take_f64(input)?),
            StoredClass::Text => Value::Text(take_utf8(input)?),
            StoredClass::Blob => Value::Bytes(std::mem::take(input).to_vec()),
        },
        C::Stored => return Err(DecodeError("a stored value without its class")),
    })
}

fn take_int(input: &mut &[u8]) -> Result<i128, DecodeError> {
    let head = take_byte(input)?;
    let negative = head < 0x80;
    let length = usize::from(head.abs_diff(0x80));
    if length > 16 {
        return Err(DecodeError("integer too long"));
    }
    let bytes = take(input, length)?;
    let mut wide = if negative { [0xff; 16] } else { [0; 16] };
    wide[16 - length..].copy_from_slice(bytes);
    let raw = u128::from_be_bytes(wide);
    let magnitude = if negative { !raw } else { raw };
    if (128 - magnitude.leading_zeros()).div_ceil(8) as usize != length {
        return Err(DecodeError("integer not minimal"));
    }
    let value = i128::try_from(magnitude).map_err(|_| DecodeError("integer too large"))?;
    Ok(if negative { -value } else { value })
}

fn take_decimal(input: &mut &[u8]) -> Result<Decimal, DecodeError> {
    let class = take_byte(input)?;
    let flip = match class {
        1 => return Ok(Decimal::NegativeInfinity),
        2 => 0xffffu16,
        3 => return Ok(Decimal::zero()),
        4 => 0,
        5 => return Ok(Decimal::Infinity),
        6 => return Ok(Decimal::NaN),
        _ => return Err(DecodeError("unknown decimal class")),
    };
    let weight = ((u16::from_be_bytes(take_array(input)?) ^ flip) ^ 1 << 15).cast_signed();
    let mut digits = Vec::new();
    loop {
        match u16::from_be_bytes(take_array(input)?) ^ flip {
            0 => break,
            digit @ 1..=10_000 => digits.push(digit - 1),
            _ => return Err(DecodeError("decimal digit out of range")),
        }
    }
    if digits.first().is_none_or(|d| *d == 0) || digits.last() == Some(&0) {
        return Err(DecodeError("decimal not minimal"));
    }
    Ok(Decimal::Finite { negative: class == 2, weight, digits })
}

fn take_array_value(inner: &ComparisonType, input: &mut &[u8]) -> Result<Value, DecodeError> {
    let count = take_varint(input)?;
    if count > 6 {
        return Err(DecodeError("too many dimensions"));
    }
    let mut dims = Vec::new();
    for _ in 0..count {
        dims.push((u32::from_be_bytes(take_array(input)?), take_i32_plain(input)?));
    }
    let mut items = Vec::new();
    while !input.is_empty() {
        items.push(decode_cell(inner, input)?);
    }
    let expected = if dims.is_empty() {
        Some(0)
    } else {
        dims.iter().try_fold(1u64, |n, (len, _)| n.checked_mul(u64::from(*len)))
    };
    if expected != Some(items.len() as u64) {
        return Err(DecodeError("array of another size than its dimensions"));
    }
    Ok(Value::Array(ArrayValue { dims, items }))
}

fn unescape(input: &mut &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut plain = Vec::new();
    loop {
        match take_byte(input)? {
            0 => match take_byte(input)? {
                0 => return Ok(plain),
                0xff => plain.push(0),
                _ => return Err(DecodeError("bad escape")),
            },
            byte => plain.push(byte),
        }
    }
}

fn take_utf8(input: &mut &[u8]) -> Result<String, DecodeError> {
    String::from_utf8(std::mem::take(input).to_vec()).map_err(|_| DecodeError("text is not UTF-8"))
}

fn take_f64(input: &mut &[u8]) -> Result<f64, DecodeError> {
    let ordered = u64::from_be_bytes(take_array(input)?);
    Ok(f64::from_bits(if ordered >> 63 == 1 { ordered & (u64::MAX >> 1) } else { !ordered }))
}

fn take_i64(input: &mut &[u8]) -> Result<i64, DecodeError> {
    Ok((u64::from_be_bytes(take_array(input)?) ^ 1 << 63).cast_signed())
}

fn take_i32(input: &mut &[u8]) -> Result<i32, DecodeError> {
    Ok((u32::from_be_bytes(take_array(input)?) ^ 1 << 31).cast_signed())
}

fn take_i32_plain(input: &mut &[u8]) -> Result<i32, DecodeError> {
    Ok(i32::from_be_bytes(take_array(input)?))
}

fn take_array<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    take(input, N)?.try_into().map_err(|_| SHORT)
}

fn take_byte(input: &mut &[u8]) -> Result<u8, DecodeError> {
    let (first, rest) = input.split_first().ok_or(SHORT)?;
    *input = rest;
    Ok(*first)
}

fn take<'a>(input: &mut &'a [u8], length: usize) -> Result<&'a [u8], DecodeError> {
    let (taken, rest) = input.split_at_checked(length).ok_or(SHORT)?;
    *input = rest;
    Ok(taken)
}

fn take_varint(input: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0u64;
    for shift in (0..63).step_by(7) {
        let byte = take_byte(input)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return if byte == 0 && shift > 0 { Err(DecodeError("length not minimal")) } else { Ok(value) };
        }
    }
    Err(DecodeError("length too long"))
}
