//! Binary forms that no sane server sends, and the ones it does, byte by byte.

use super::*;
use crate::model::canonical::decode_row;
use crate::model::{AccessColumn, Filled, TableName, Value};

fn decoder(ty: ColumnType, comparison: ComparisonType) -> Decoder {
    let column = AccessColumn {
        name: "c".into(),
        ty,
        declared: "x".into(),
        comparison,
        as_text: false,
        filled: Filled::ByWriter,
    };
    let table = TableName::new(None, "t");
    Decoder::new(&TableAccess { table, columns: vec![column], key_len: 0, filter: None }, false).unwrap()
}

fn read(ty: ColumnType, comparison: ComparisonType, bytes: &[u8]) -> Result<Value, RowError> {
    let mut row = vec![0, 1];
    row.extend_from_slice(&i32::try_from(bytes.len()).unwrap().to_be_bytes());
    row.extend_from_slice(bytes);
    let mut out = RowBuffer::default();
    let mut input = row.as_slice();
    decoder(ty, comparison.clone()).row(&mut input, &mut out)?;
    assert!(input.is_empty());
    Ok(decode_row(&[comparison], &out.row).unwrap().remove(0))
}

fn decimal(scale: Option<u32>, bytes: &[u8]) -> Result<String, RowError> {
    let ty = ColumnType::Decimal { precision: None, scale: None };
    read(ty, ComparisonType::Decimal { scale }, bytes).map(|value| value.to_text().unwrap())
}

#[test]
fn numerics_by_their_digits() {
    let of = |ndigits: i16, weight: i16, sign: u16, dscale: u16, digits: &[u16]| {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&ndigits.to_be_bytes());
        bytes.extend_from_slice(&weight.to_be_bytes());
        bytes.extend_from_slice(&sign.to_be_bytes());
        bytes.extend_from_slice(&dscale.to_be_bytes());
        for digit in digits {
            bytes.extend_from_slice(&digit.to_be_bytes());
        }
        bytes
    };
    for (scale, bytes, text) in [
        (None, of(0, 0, 0, 2, &[]), "0"),
        (None, of(2, 0, 0x4000, 2, &[12, 3400]), "-12.34"),
        (None, of(3, 1, 0, 0, &[0, 12, 0]), "12"),
        (Some(2), of(2, 0, 0, 3, &[1, 50]), "1.01"),
        (Some(2), of(2, 0, 0, 3, &[0, 40]), "0"),
        (None, of(0, 0, 0xc000, 0, &[]), "NaN"),
        (None, of(0, 0, 0xf000, 0, &[]), "-Infinity"),
    ] {
        assert_eq!(decimal(scale, &bytes).as_deref(), Ok(text));
    }
    assert!(decimal(None, &of(1, 0, 0, 0, &[10_000])).is_err());
    assert!(decimal(None, &of(0, 0, 0x1234, 0, &[])).is_err());
    assert!(decimal(None, &[0; 7]).is_err());
    assert!(decimal(None, &[0; 9]).is_err());
}

#[test]
fn infinities_and_the_end_of_the_calendar() {
    let kind = ComparisonType::Timestamp { digits: 6, rounding: Rounding::HalfAwayFromZero };
    let ty = ColumnType::Timestamp { digits: 6 };
    for (stored, text) in [
        (i64::MAX, "infinity"),
        (i64::MIN, "-infinity"),
        (0, "2000-01-01 00:00:00"),
        (9_223_371_331_199_999_999, "294276-12-31 23:59:59.999999"),
    ] {
        let value = read(ty.clone(), kind.clone(), &stored.to_be_bytes()).unwrap();
        assert_eq!(value.to_text().as_deref(), Some(text));
    }
}

#[test]
fn malformed_bytes_name_the_column_and_never_panic() {
    let array = || ColumnType::Array(Box::new(ColumnType::Int { bits: 32, signed: true }));
    let as_array = ComparisonType::Array(Box::new(ComparisonType::Integer));
    let huge = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 23, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1];
    assert!(read(array(), as_array.clone(), &huge).is_err());
    for length in 0..huge.len() {
        assert!(read(array(), as_array.clone(), &huge[..length]).is_err());
    }
    assert!(read(ColumnType::Uuid, ComparisonType::Uuid, &[0; 15]).is_err());
    assert!(read(ColumnType::Bits, ComparisonType::Bits, &[0, 0, 0, 9, 1]).is_err());
    assert!(read(ColumnType::Interval, ComparisonType::Interval, &[0; 15]).is_err());
    let error = read(ColumnType::Date, ComparisonType::Date, &[1]).unwrap_err();
    assert!(error.to_string().starts_with("column c: "), "{error}");

    let decoder = decoder(ColumnType::Date, ComparisonType::Date);
    let row = [0u8, 1, 0, 0, 0, 4, 0, 0, 0, 0];
    for length in 0..row.len() {
        assert!(decoder.row(&mut &row[..length], &mut RowBuffer::default()).is_err());
    }
}

#[test]
fn pairs_without_meaning_are_refused_by_name() {
    let column = AccessColumn {
        name: "c".into(),
        ty: ColumnType::Uuid,
        declared: "uuid".into(),
        comparison: ComparisonType::Date,
        as_text: false,
        filled: Filled::ByWriter,
    };
    let table = TableName::new(None, "t");
    let access = TableAccess { table, columns: vec![column], key_len: 1, filter: None };
    assert!(Decoder::new(&access, false).unwrap_err().to_string().contains("column c"));
}
