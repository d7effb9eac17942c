//! Two scalars of queries of the user's own, compared by what the servers say that they are, never by what they look like.

use bigdecimal::BigDecimal;

use super::judge::{self, Judged};
use crate::config::Tolerance;
use crate::model::decimal::Decimal;
use crate::model::scalar::{Scalar, ScalarClass};
use crate::model::temporal::{MICROS_PER_DAY, parse_date, parse_timestamp};
use crate::report::checks::Status;

/// What a scalar is compared as.
enum Meaning {
    Number(BigDecimal),
    /// A float: its exact value, and its shortest decimal form, which is what a decimal may be compared with.
    Float(BigDecimal, BigDecimal),
    /// Microseconds; of UTC, or without zone.
    Moment(i128),
    Day(i128),
    Bytes(String),
    Text(String),
    UntypedText(String),
    /// Bytes of a text in another encoding, as hex digits.
    BrokenText(String),
    /// A number that is not finite, a time that no calendar has.
    Beyond,
}

fn meaning(class: ScalarClass, text: &str) -> Meaning {
    let number = |text: &str| Decimal::parse(text).as_ref().and_then(judge::exact);
    let float = |float: Option<f64>| {
        let exact =
            float.filter(|float| float.is_finite()).and_then(|float| BigDecimal::try_from(float).ok());
        exact.zip(number(text)).map(|(exact, short)| Meaning::Float(exact, short))
    };
    let found = match class {
        ScalarClass::Boolean => match text {
            "true" | "t" | "1" => Some(Meaning::Number(BigDecimal::from(1))),
            "false" | "f" | "0" => Some(Meaning::Number(BigDecimal::from(0))),
            _ => None,
        },
        ScalarClass::Number => number(text).map(Meaning::Number),
        ScalarClass::Float => float(text.parse().ok()),
        // The shortest text of a float is that of another double.
        ScalarClass::ShortFloat => float(text.parse::<f32>().ok().map(f64::from)),
        ScalarClass::Date => {
            parse_date(text).map(|days| Meaning::Day(i128::from(days) * i128::from(MICROS_PER_DAY)))
        }
        ScalarClass::Timestamp | ScalarClass::TimestampTz => {
            parse_timestamp(text).map(|(micros, _)| Meaning::Moment(i128::from(micros)))
        }
        ScalarClass::Bytes => Some(Meaning::Bytes(text.to_owned())),
        ScalarClass::Text => Some(Meaning::Text(text.to_owned())),
        ScalarClass::UntypedText => Some(Meaning::UntypedText(text.to_owned())),
        ScalarClass::BrokenText => Some(Meaning::BrokenText(text.to_owned())),
    };
    found.unwrap_or(Meaning::Beyond)
}

pub(super) fn scalars(source: &Scalar, target: &Scalar, tolerance: &Tolerance) -> Judged {
    let shown = |judged: Judged| Judged {
        source: judged.source.or_else(|| source.text.clone()),
        target: judged.target.or_else(|| target.text.clone()),
        ..judged
    };
    let (left, right) = match (&source.text, &target.text) {
        (Some(left), Some(right)) => (left, right),
        (None, None) => return Judged::unknown("both values are NULL: nothing was measured", None),
        (None, _) => return shown(Judged::new(Status::Fail).saying("only the target has a value")),
        (_, None) => return shown(Judged::new(Status::Fail).saying("only the source has a value")),
    };
    let (left, right) = (meaning(source.class, left), meaning(target.class, right));
    shown(compared(left, right, tolerance).unwrap_or_else(|| unlike(source.class, target.class)))
}

/// `None` where the two are not of one kind.
fn compared(left: Meaning, right: Meaning, tolerance: &Tolerance) -> Option<Judged> {
    use Meaning as M;
    let same = |same: bool| match same {
        true => Judged::new(Status::Pass).saying("the values agree"),
        false => Judged::new(Status::Fail).saying("the values differ"),
    };
    Some(match (left, right) {
        (M::Beyond, _) | (_, M::Beyond) => Judged::unknown(
            "a value is beyond what this check reads: no finite number, or a time before the year 1 or far beyond 9999",
            None,
        ),
        (M::Float(left, _), M::Float(right, _)) => told(judge::floats(&left, &right, tolerance)),
        (M::Number(left) | M::Float(_, left), M::Number(right) | M::Float(_, right)) => {
            told(judge::numbers(&left, &right, tolerance))
        }
        (M::Moment(left), M::Moment(right)) | (M::Day(left), M::Day(right)) => {
            told(judge::moments(left, right, tolerance))
        }
        // A database without types for times writes them as text.
        (M::Moment(left), M::UntypedText(right)) => {
            let (right, _) = parse_timestamp(&right)?;
            told(judge::moments(left, i128::from(right), tolerance))
        }
        (M::UntypedText(left), M::Moment(right)) => {
            let (left, _) = parse_timestamp(&left)?;
            told(judge::moments(i128::from(left), right, tolerance))
        }
        (M::Day(day), M::UntypedText(text)) | (M::UntypedText(text), M::Day(day)) => {
            same(day == i128::from(parse_date(&text)?) * i128::from(MICROS_PER_DAY))
        }
        (M::Bytes(left), M::Bytes(right)) | (M::BrokenText(left), M::BrokenText(right)) => {
            same(left == right)
        }
        (M::Text(left) | M::UntypedText(left), M::Text(right) | M::UntypedText(right)) => same(left == right),
        (M::BrokenText(_), M::Text(_) | M::UntypedText(_))
        | (M::Text(_) | M::UntypedText(_), M::BrokenText(_)) => same(false),
        _ => return None,
    })
}

/// Says in words what the status says, where nothing was said yet.
fn told(judged: Judged) -> Judged {
    if judged.message.is_some() {
        return judged;
    }
    match judged.status {
        Status::Pass => judged.saying("the values agree"),
        Status::Fail => judged.saying("the values differ"),
        _ => judged,
    }
}

fn unlike(source: ScalarClass, target: ScalarClass) -> Judged {
    Judged::unknown(
        format!(
            "the source's value is of class {}, the target's of class {}",
            source.as_str(),
            target.as_str()
        ),
        Some("cast one of them in its query".to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(class: ScalarClass, text: &str) -> Scalar {
        Scalar { class, text: Some(text.to_owned()) }
    }

    #[test]
    fn values_are_what_their_server_says() {
        use ScalarClass as C;
        let none = Tolerance::default();
        for (a, left, b, right, status) in [
            (C::Number, "3000.0", C::Float, "3000", Status::Pass),
            (C::Boolean, "true", C::Number, "1", Status::Pass),
            (C::Float, "0.1", C::Number, "0.10", Status::Pass),
            (C::ShortFloat, "0.1", C::Float, "0.1", Status::Fail),
            (C::ShortFloat, "0.1", C::Float, "0.10000000149011612", Status::Pass),
            (C::ShortFloat, "0.1", C::ShortFloat, "0.1", Status::Pass),
            (C::ShortFloat, "0.1", C::Number, "0.1", Status::Pass),
            (C::ShortFloat, "0.5", C::Float, "0.5", Status::Pass),
            (C::ShortFloat, "Infinity", C::Float, "Infinity", Status::Unknown),
            (C::Float, "Infinity", C::Float, "Infinity", Status::Unknown),
            (C::Number, "NaN", C::Number, "NaN", Status::Unknown),
            (
                C::TimestampTz,
                "2024-01-01 00:00:00+00",
                C::Timestamp,
                "2024-01-01 00:00:00.000000",
                Status::Pass,
            ),
            (C::TimestampTz, "2024-01-01 00:00:00+00", C::UntypedText, "2024-01-01T00:00:00Z", Status::Pass),
            (C::TimestampTz, "2024-01-01 00:00:00+00", C::Text, "2024-01-01 00:00:00+00", Status::Unknown),
            (C::Date, "2024-01-01", C::Timestamp, "2024-01-01 00:00:00", Status::Unknown),
            (C::Date, "2024-01-01", C::UntypedText, "2024-01-01", Status::Pass),
            (C::Timestamp, "infinity", C::Timestamp, "infinity", Status::Unknown),
            (C::Text, "abc", C::Text, "abc", Status::Pass),
            (C::Text, "abc", C::Text, "ABC", Status::Fail),
            (C::Text, "007", C::Text, "7", Status::Fail),
            (C::Text, "t", C::Text, "1", Status::Fail),
            (C::Text, "00000e10", C::UntypedText, "00000e20", Status::Fail),
            (C::Text, "2024-01-01", C::Text, "2024-01-01 00:00:00", Status::Fail),
            (C::Text, "1", C::Number, "1", Status::Unknown),
            (C::Bytes, "61", C::UntypedText, "61", Status::Unknown),
            (C::Bytes, "ff01", C::Bytes, "fe01", Status::Fail),
            (C::BrokenText, "ff41", C::BrokenText, "fe41", Status::Fail),
            (C::BrokenText, "ff41", C::BrokenText, "ff41", Status::Pass),
            (C::BrokenText, "ff41", C::Text, "ff41", Status::Fail),
        ] {
            let judged = scalars(&scalar(a, left), &scalar(b, right), &none);
            assert_eq!(judged.status, status, "{a:?} {left} {b:?} {right}");
            assert!(judged.message.is_some(), "{left} {right}");
        }
        let null = Scalar { class: C::Text, text: None };
        assert_eq!(scalars(&null, &null, &none).status, Status::Unknown);
        assert_eq!(scalars(&null, &scalar(C::Number, "0"), &none).status, Status::Fail);
    }
}
