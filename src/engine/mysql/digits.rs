//! Numbers in base 10000, straight from the wire's integers and texts.

use crate::model::decimal::Decimal;
use crate::model::{CellWriter, ComparisonType};

/// Digits of base 10000 in a number of 64 bits.
const GROUPS: usize = 5;
/// A text of so many decimal digits before its point, and behind it, fits a number of 64 bits.
const FITS: usize = 16;

/// Writes a number's digits into the last places, and tells how many they are.
#[inline]
fn groups_of(mut rest: u64, into: &mut [u16; GROUPS]) -> usize {
    let mut count = 0;
    for slot in into.iter_mut().rev() {
        if rest == 0 {
            break;
        }
        *slot = u16::try_from(rest % 10_000).unwrap_or(0);
        rest /= 10_000;
        count += 1;
    }
    count
}

/// Writes digits, the first of which has this weight, without the zeros at either end.
#[inline]
fn put(writer: CellWriter<'_>, negative: bool, weight: usize, digits: &[u16]) -> Option<()> {
    let zeros = digits.iter().take_while(|digit| **digit == 0).count();
    let end = digits.iter().rposition(|digit| *digit != 0).map_or(zeros, |at| at + 1);
    let weight = i16::try_from(weight).ok()? - 1 - i16::try_from(zeros).ok()?;
    writer.decimal_digits(negative, weight, digits.get(zeros..end)?.iter().copied());
    Some(())
}

/// An integer.
pub(super) fn put_int_decimal(writer: CellWriter<'_>, negative: bool, value: u64) -> Option<()> {
    let mut digits = [0; GROUPS];
    let count = groups_of(value, &mut digits);
    put(writer, negative, count, digits.get(GROUPS - count..)?)
}

/// The value of a text of digits.
#[inline]
fn number(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0u64, |value, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| value.wrapping_mul(10).wrapping_add(u64::from(digit)))
    })
}

/// The text of a DECIMAL: up to 65 digits, a point, a sign. Without allocation where nothing is to be rounded.
#[inline]
pub(super) fn put_decimal(writer: CellWriter<'_>, comparison: &ComparisonType, bytes: &[u8]) -> Option<()> {
    let ComparisonType::Decimal { scale } = comparison else {
        writer.text_as(comparison, std::str::from_utf8(bytes).ok()?);
        return Some(());
    };
    let (negative, body) = match bytes.split_first()? {
        (b'-', rest) => (true, rest),
        _ => (false, bytes),
    };
    let (whole, fraction) = match body.iter().position(|b| *b == b'.') {
        Some(at) => (body.get(..at)?, body.get(at + 1..)?),
        None => (body, &[][..]),
    };
    let exact = scale.is_none_or(|scale| usize::try_from(scale).is_ok_and(|scale| fraction.len() <= scale));
    if !exact || whole.len() > FITS || fraction.len() > FITS {
        return put_long(writer, *scale, negative, bytes, whole, fraction);
    }
    let mut digits = [0; 2 * GROUPS];
    let (front, back) = digits.split_first_chunk_mut::<GROUPS>()?;
    let count = groups_of(number(whole)?, front);
    let places = fraction.len().div_ceil(4);
    // As if written to a multiple of four digits.
    let mut rest = number(fraction)? * [1, 1000, 100, 10].get(fraction.len() % 4)?;
    for slot in back.get_mut(..places)?.iter_mut().rev() {
        *slot = u16::try_from(rest % 10_000).unwrap_or(0);
        rest /= 10_000;
    }
    put(writer, negative, count, digits.get(GROUPS - count..GROUPS + places)?)
}

/// As `put_decimal`, of more digits than 64 bits hold, or more than are compared.
#[cold]
fn put_long(
    writer: CellWriter<'_>,
    scale: Option<u32>,
    negative: bool,
    bytes: &[u8],
    whole: &[u8],
    fraction: &[u8],
) -> Option<()> {
    let kept = fraction.iter().rposition(|b| *b != b'0').map_or(0, |at| at + 1);
    let fraction = fraction.get(..kept)?;
    let leading = whole.iter().position(|b| *b != b'0').unwrap_or(whole.len());
    let whole = whole.get(leading..)?;
    let rounds = scale.is_some_and(|scale| usize::try_from(scale).is_ok_and(|scale| kept > scale));
    if rounds || whole.len() > 68 || fraction.len() > 68 {
        let value = Decimal::parse(std::str::from_utf8(bytes).ok()?)?;
        writer.decimal(&match scale {
            Some(scale) => value.rounded(scale),
            None => value,
        });
        return Some(());
    }
    let mut digits = [0u16; 36];
    let mut count = 0usize;
    let group = |text: &[u8]| u16::try_from(number(text)?).ok();
    let (head, groups) = whole.split_at(whole.len() % 4);
    for text in (!head.is_empty()).then_some(head).into_iter().chain(groups.chunks(4)) {
        *digits.get_mut(count)? = group(text)?;
        count += 1;
    }
    let weight = count;
    for text in fraction.chunks(4) {
        let missing = u32::try_from(4 - text.len()).ok()?;
        *digits.get_mut(count)? = group(text)? * 10u16.pow(missing);
        count += 1;
    }
    put(writer, negative, weight, digits.get(..count)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::RowBuffer;

    fn decimal_bytes(text: &str, scale: Option<u32>) -> (Vec<u8>, Vec<u8>) {
        let comparison = ComparisonType::Decimal { scale };
        let (mut fast, mut plain) = (RowBuffer::default(), RowBuffer::default());
        put_decimal(fast.key_cell(), &comparison, text.as_bytes()).unwrap();
        plain.key_cell().text_as(&comparison, text);
        (fast.key, plain.key)
    }

    #[test]
    fn decimals_of_every_shape_are_the_canonical_ones() {
        for text in [
            "0",
            "0.00",
            "-0.00",
            "1",
            "10000",
            "-10000.0001",
            "0.0001",
            "0.00001",
            "123456789.123456789",
            "99999999999999999999999999999999999.999999999999999999999999999999",
            "00012.3400",
            "1000000000000",
        ] {
            for scale in [None, Some(0), Some(2), Some(30)] {
                let (fast, plain) = decimal_bytes(text, scale);
                assert_eq!(fast, plain, "{text} at {scale:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn decimals_as_the_parser_reads_them(text in "-?[0-9]{1,35}(\\.[0-9]{1,30})?|-?[0-9]{1,8}\\.[0-9]{1,5}", scale in prop::option::of(0u32..31)) {
            let (fast, plain) = decimal_bytes(&text, scale);
            prop_assert_eq!(fast, plain);
        }

        #[test]
        fn integers_as_decimals(value: i64) {
            let mut fast = RowBuffer::default();
            put_int_decimal(fast.cell(), value < 0, value.unsigned_abs()).unwrap();
            let mut plain = RowBuffer::default();
            plain.cell().decimal(&Decimal::from_int(i128::from(value)));
            prop_assert_eq!(fast.row, plain.row);
        }

        #[test]
        fn nothing_panics_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..70)) {
            let _ = put_decimal(RowBuffer::default().cell(), &ComparisonType::Decimal { scale: Some(2) }, &bytes);
            let _ = put_decimal(RowBuffer::default().cell(), &ComparisonType::Decimal { scale: None }, &bytes);
        }
    }
}
