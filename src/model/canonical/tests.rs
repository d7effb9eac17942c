//! Laws of the encoding: it decodes, keys order as their values do, and its bytes are frozen.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::model::comparison::ComparisonType;
use crate::model::decimal::Decimal;
use crate::model::schema::Rounding;
use crate::model::value::{ArrayValue, StoredClass, Value, hex};

fn micros_type() -> ComparisonType {
    ComparisonType::Timestamp { digits: 6, rounding: Rounding::HalfUp }
}

fn key(ty: &ComparisonType, value: &Value) -> Vec<u8> {
    let mut buffer = RowBuffer::default();
    buffer.key_cell().value(ty, value).unwrap();
    buffer.key
}

fn cell(ty: &ComparisonType, value: &Value) -> Vec<u8> {
    let mut buffer = RowBuffer::default();
    buffer.cell().value(ty, value).unwrap();
    buffer.row
}

fn decimals() -> impl Strategy<Value = Decimal> {
    prop_oneof![
        8 => (any::<i64>(), -30i32..10).prop_map(|(units, exponent)| Decimal::parse(&format!("{units}e{exponent}")).unwrap()),
        1 => Just(Decimal::NaN),
        1 => Just(Decimal::Infinity),
        1 => Just(Decimal::NegativeInfinity),
    ]
}

fn scalar() -> impl Strategy<Value = (ComparisonType, Value)> {
    use ComparisonType as C;
    prop_oneof![
        any::<i64>().prop_map(|v| (C::Integer, Value::Int(v.into()))),
        any::<i128>().prop_filter("no abs", |v| *v != i128::MIN).prop_map(|v| (C::Integer, Value::Int(v))),
        decimals().prop_map(|v| (C::Decimal { scale: None }, Value::Decimal(v))),
        any::<f64>()
            .prop_filter("NaN is never equal", |v| !v.is_nan() && *v != 0.0)
            .prop_map(|v| (C::Float { bits: 64 }, Value::Float64(v))),
        any::<f32>()
            .prop_filter("NaN is never equal", |v| !v.is_nan() && *v != 0.0)
            .prop_map(|v| (C::Float { bits: 32 }, Value::Float32(v))),
        "[a\\x00\u{ff}é]{0,8}".prop_map(|v| (C::Text { trim: false }, Value::Text(v))),
        vec(any::<u8>(), 0..200).prop_map(|v| (C::Bytes, Value::Bytes(v))),
        "[01]{0,9}".prop_map(|v| (C::Bits, Value::Bits(v))),
        any::<[u8; 16]>().prop_map(|v| (C::Uuid, Value::Uuid(v))),
        any::<i32>().prop_map(|v| (C::Date, Value::Date(v))),
        any::<i64>().prop_map(|v| (micros_type(), Value::Timestamp(v))),
        (any::<i64>(), any::<i32>())
            .prop_map(|(micros, west)| (C::TimeTz { digits: 6 }, Value::TimeTz { micros, west })),
        (any::<i32>(), any::<i32>(), any::<i64>())
            .prop_map(|(months, days, micros)| (C::Interval, Value::Interval { months, days, micros })),
        any::<i64>().prop_map(|v| (C::Dynamic, Value::Int(v.into()))),
        "[a\\x00]{0,5}".prop_map(|v| (C::Dynamic, Value::Text(v))),
        vec(any::<u8>(), 0..5).prop_map(|v| (C::Dynamic, Value::Bytes(v))),
        vec(any::<u8>(), 0..5).prop_map(|v| (C::Uuid, Value::Irregular(StoredClass::Text, v))),
        vec(any::<Option<i64>>(), 1..5).prop_map(|v| {
            let dims = vec![(u32::try_from(v.len()).unwrap(), 1)];
            let items = v.into_iter().map(|v| v.map_or(Value::Null, |v| Value::Int(v.into()))).collect();
            (C::Array(Box::new(C::Integer)), Value::Array(ArrayValue { dims, items }))
        }),
    ]
}

proptest! {
    #[test]
    fn decode_is_the_inverse_of_encode(values in vec(scalar(), 1..6)) {
        let types: Vec<_> = values.iter().map(|(ty, _)| ty.clone()).collect();
        let plain: Vec<_> = values.iter().map(|(_, value)| value.clone()).collect();
        let mut buffer = RowBuffer::default();
        for (ty, value) in &values {
            buffer.key_cell().value(ty, value).unwrap();
            buffer.cell().value(ty, value).unwrap();
            buffer.cell().null().unwrap();
        }
        prop_assert_eq!(decode_key(&types, &buffer.key).unwrap(), plain.clone());
        let doubled: Vec<_> = types.iter().flat_map(|ty| [ty.clone(), ty.clone()]).collect();
        let with_nulls: Vec<_> = plain.into_iter().flat_map(|value| [value, Value::Null]).collect();
        prop_assert_eq!(decode_row(&doubled, &buffer.row).unwrap(), with_nulls);
        prop_assert_eq!(split_cells(&buffer.row).unwrap().len(), doubled.len());
        prop_assert_eq!(split_cells(&buffer.row).unwrap().concat(), buffer.row);
    }

    #[test]
    fn integer_keys_order_as_integers(a in any::<i128>(), b in any::<i128>()) {
        prop_assume!(a != i128::MIN && b != i128::MIN);
        let ty = ComparisonType::Integer;
        prop_assert_eq!(key(&ty, &Value::Int(a)).cmp(&key(&ty, &Value::Int(b))), a.cmp(&b));
    }

    #[test]
    fn small_integer_keys_order_as_integers(a in -70_000i64..70_000, b in -70_000i64..70_000) {
        let ty = ComparisonType::Integer;
        prop_assert_eq!(key(&ty, &Value::Int(a.into())).cmp(&key(&ty, &Value::Int(b.into()))), a.cmp(&b));
    }

    #[test]
    fn decimal_keys_order_as_decimals(a in -1_000_000_000i64..1_000_000_000, b in -1_000_000_000i64..1_000_000_000, exponent in -9i32..9) {
        let ty = ComparisonType::Decimal { scale: None };
        let of = |units: i64| key(&ty, &Value::Decimal(Decimal::parse(&format!("{units}e{exponent}")).unwrap()));
        prop_assert_eq!(of(a).cmp(&of(b)), a.cmp(&b));
    }

    #[test]
    fn float_keys_order_as_floats(a in any::<f64>(), b in any::<f64>()) {
        prop_assume!(!a.is_nan() && !b.is_nan());
        let ty = ComparisonType::Float { bits: 64 };
        let of = |v: f64| key(&ty, &Value::Float64(v));
        prop_assert_eq!(of(a).cmp(&of(b)), a.partial_cmp(&b).unwrap());
    }

    #[test]
    fn text_keys_order_as_bytes_also_in_front_of_others(a in "[\\x00\\x01a-c]{0,6}", b in "[\\x00\\x01a-c]{0,6}", x: i64, y: i64) {
        let types = [ComparisonType::Text { trim: false }, ComparisonType::Integer];
        let of = |text: &str, number: i64| {
            let mut buffer = RowBuffer::default();
            buffer.key_cell().text(text.as_bytes(), false);
            buffer.key_cell().int(number);
            assert!(decode_key(&types, &buffer.key).is_ok());
            buffer.key
        };
        prop_assert_eq!(of(&a, x).cmp(&of(&b, y)), (a.as_bytes(), x).cmp(&(b.as_bytes(), y)));
    }

    #[test]
    fn different_values_never_encode_alike((ty, a) in scalar(), (other, b) in scalar()) {
        if ty == other && a != b {
            prop_assert_ne!(cell(&ty, &a), cell(&ty, &b));
            prop_assert_ne!(key(&ty, &a), key(&ty, &b));
        }
        prop_assert_ne!(cell(&ty, &a), cell(&ty, &Value::Null));
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in vec(any::<u8>(), 0..64), (ty, _) in scalar()) {
        let _ = decode_key(std::slice::from_ref(&ty), &bytes);
        let _ = decode_row(std::slice::from_ref(&ty), &bytes);
        let _ = split_cells(&bytes);
        // What decodes was written canonically, or its re-encoding is a different row.
        if let Ok(values) = decode_row(std::slice::from_ref(&ty), &bytes)
            && !matches!(values[0], Value::Float32(_) | Value::Float64(_) | Value::Array(_))
        {
            prop_assert_eq!(cell(&ty, &values[0]), bytes);
        }
    }
}

#[test]
fn the_same_value_from_different_types_is_the_same_bytes() {
    use ComparisonType as C;
    let dec = C::Decimal { scale: Some(2) };
    let bytes = |write: &dyn Fn(CellWriter<'_>)| {
        let mut buffer = RowBuffer::default();
        write(buffer.cell());
        buffer.row
    };
    let twelve = bytes(&|w| w.int_as(&dec, 12));
    assert_eq!(twelve, bytes(&|w| w.text_as(&dec, "12.00")));
    assert_eq!(twelve, bytes(&|w| w.real_as(&dec, 12.001)));
    assert_eq!(twelve, bytes(&|w| w.decimal(&Decimal::parse("012").unwrap())));
    assert_eq!(bytes(&|w| w.float64(-0.0)), bytes(&|w| w.float64(0.0)));
    assert_eq!(bytes(&|w| w.float(0.1, 32)), bytes(&|w| w.float32(0.1)));
    assert_eq!(bytes(&|w| w.float64(f64::NAN)), bytes(&|w| w.float64(-f64::NAN)));
    assert_eq!(bytes(&|w| w.text(b"ab  ", true)), bytes(&|w| w.text(b"ab", true)));
    assert_ne!(bytes(&|w| w.text(b"ab ", false)), bytes(&|w| w.text(b"ab", false)));
    let uuid = "00112233-4455-6677-8899-aabbccddeeff";
    assert_eq!(bytes(&|w| w.text_as(&C::Uuid, uuid)), bytes(&|w| w.text_as(&C::Uuid, &uuid.to_uppercase())));
    assert_eq!(bytes(&|w| w.json(r#"{"b":1.0,"a":2}"#)), bytes(&|w| w.json(r#"{ "a":2, "b":1 }"#)));
    // Words that peers take for NULL, and separators that move, are values of their own.
    assert_ne!(bytes(&|w| w.text(b"NULL", false)), vec![0]);
    let pair = |a: &[u8], b: &[u8]| {
        let mut buffer = RowBuffer::default();
        buffer.cell().text(a, false);
        buffer.cell().text(b, false);
        buffer.row
    };
    assert_ne!(pair(b"x|y", b"z"), pair(b"x", b"y|z"));
    assert_ne!(pair(b"", b"a"), pair(b"a", b""));
    // Text that is no number in a number column is no number.
    assert_ne!(bytes(&|w| w.text_as(&C::Integer, "x")), bytes(&|w| w.text_as(&C::Text { trim: false }, "x")));
}

/// Frozen: a change here is a new `ENCODING_VERSION`.
#[test]
fn golden_bytes() {
    use ComparisonType as C;
    let cases: Vec<(C, Value, &str, &str)> = vec![
        (C::Integer, Value::Int(0), "0180", "0380"),
        (C::Integer, Value::Int(1), "018101", "058101"),
        (C::Integer, Value::Int(-1), "017ffe", "057ffe"),
        (C::Integer, Value::Int(256), "01820100", "07820100"),
        (
            C::Decimal { scale: None },
            Value::Decimal(Decimal::parse("12345.67").unwrap()),
            "010480010002092a1a2d0000",
            "17048001000209 2a1a2d0000",
        ),
        (
            C::Decimal { scale: None },
            Value::Decimal(Decimal::parse("-1").unwrap()),
            "01027ffffffdffff",
            "0f027ffffffdffff",
        ),
        (C::Decimal { scale: None }, Value::Decimal(Decimal::zero()), "0103", "0303"),
        (C::Float { bits: 64 }, Value::Float64(1.5), "01bff8000000000000", "11bff8000000000000"),
        (C::Float { bits: 32 }, Value::Float32(-1.5), "01403fffff", "09403fffff"),
        (C::Text { trim: false }, Value::Text("a\0b".into()), "016100ff620000", "07610062"),
        (C::Bytes, Value::Bytes(vec![0xff]), "01ff0000", "03ff"),
        (
            C::Uuid,
            Value::Uuid([7; 16]),
            "0107070707070707070707070707070707",
            "2107070707070707070707070707070707",
        ),
        (C::Date, Value::Date(0), "0180000000", "0980000000"),
        (micros_type(), Value::Timestamp(-1), "017fffffffffffffff", "117fffffffffffffff"),
        (C::Json, Value::Json("{}".into()), "017b7d0000", "057b7d"),
        (C::Dynamic, Value::Text("1".into()), "0103310000", "050331"),
        (C::Uuid, Value::Irregular(StoredClass::Text, b"x".to_vec()), "0203780000", "060378"),
        (
            C::Array(Box::new(C::Integer)),
            Value::Array(ArrayValue { dims: vec![(2, 1)], items: vec![Value::Int(1), Value::Null] }),
            "010100ff00ff00ff0200ff00ff00ff010581010 0ff0000",
            "1b010000000200000001058101 00",
        ),
    ];
    for (ty, value, in_key, in_row) in cases {
        assert_eq!(hex(&key(&ty, &value)), in_key.replace(' ', ""), "key of {ty:?}");
        assert_eq!(hex(&cell(&ty, &value)), in_row.replace(' ', ""), "cell of {ty:?}");
    }
    let long = cell(&ComparisonType::Bytes, &Value::Bytes(vec![1; 100]));
    assert_eq!(hex(&long[..4]), "c9010101");
    assert_eq!(ENCODING_VERSION, 2);
}

#[test]
fn null_in_a_key_is_refused() {
    assert_eq!(RowBuffer::default().key_cell().null(), Err(NullKey));
}

#[test]
fn a_short_component_is_escaped_as_a_long_one() {
    for length in 0..40 {
        for payload in [vec![0; length], vec![0xff; length], (0..40).map(|n| n % 3).take(length).collect()] {
            let mut expected = vec![REGULAR];
            for byte in std::iter::once(StoredClass::Blob as u8).chain(payload.iter().copied()) {
                expected.push(byte);
                if byte == 0 {
                    expected.push(0xff);
                }
            }
            expected.extend([0, 0]);
            let mut buffer = RowBuffer::default();
            buffer.key_cell().dynamic(StoredClass::Blob, &payload);
            assert_eq!(buffer.key, expected);
        }
    }
}
