//! One value of a query of the user's own, with the class that the server gives it. What a text looks like decides nothing.

use super::measure::Answer;

/// What a server says that a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalarClass {
    Boolean,
    /// Integers and decimals.
    Number,
    Float,
    /// Of 32 bits.
    ShortFloat,
    Date,
    /// Without zone.
    Timestamp,
    TimestampTz,
    /// The text is hex digits.
    Bytes,
    Text,
    /// Text of a database that has no types for times: it may be one.
    UntypedText,
    /// Text that is not UTF-8; what crosses is hex digits.
    BrokenText,
}

impl ScalarClass {
    const ALL: [(Self, &'static str); 11] = [
        (Self::Boolean, "boolean"),
        (Self::Number, "number"),
        (Self::Float, "float"),
        (Self::ShortFloat, "float of 32 bits"),
        (Self::Date, "date"),
        (Self::Timestamp, "timestamp"),
        (Self::TimestampTz, "timestamp with time zone"),
        (Self::Bytes, "bytes"),
        (Self::Text, "text"),
        (Self::UntypedText, "untyped text"),
        (Self::BrokenText, "text that is not UTF-8"),
    ];

    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(class, _)| *class == self).map_or("", |(_, name)| name)
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(class, _)| *class)
    }
}

/// A scalar as it crossed. `Debug` shows the class alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Scalar {
    pub class: ScalarClass,
    /// `None` is NULL.
    pub text: Option<String>,
}

impl std::fmt::Debug for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scalar({})", self.class.as_str())
    }
}

impl Scalar {
    /// From the one row of an answer; `None` where it is no single value.
    pub fn read(answer: &Answer) -> Option<Self> {
        let [row] = answer.as_slice() else { return None };
        let [Some(class), text] = row.as_slice() else { return None };
        Some(Self { class: ScalarClass::parse(class)?, text: text.clone() })
    }

    /// As it crosses.
    pub fn answer(self) -> Answer {
        vec![vec![Some(self.class.as_str().to_owned()), self.text]]
    }
}
