//! The stored values that mean a key's canonical value, so that an index finds it however it is spelled.
//!
//! A list is complete only where it is shown to be: SQLite's equality with the bound values then holds for every value that
//! the column can store with this meaning. What that rests on is said at each type; what is not said is not complete.

use super::params::stored;
use super::stored::Stored;
use crate::model::decimal::Decimal;
use crate::model::temporal::{date_text, time_text, timestamp_text};
use crate::model::value::{hex, uuid_text};
use crate::model::{AccessColumn, ComparisonType, Value};

/// What a column does to values that are stored in it or compared with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Affinity {
    Integer,
    Text,
    /// BLOB: nothing is done.
    None,
    Real,
    Numeric,
}

impl Affinity {
    /// By SQLite's own rules, which look for parts of the declaration in this order.
    pub(super) fn of(declared: &str) -> Self {
        let upper = declared.to_uppercase();
        let has = |words: &[&str]| words.iter().any(|word| upper.contains(word));
        if has(&["INT"]) {
            Self::Integer
        } else if has(&["CHAR", "CLOB", "TEXT"]) {
            Self::Text
        } else if upper.trim().is_empty() || has(&["BLOB"]) {
            Self::None
        } else if has(&["REAL", "FLOA", "DOUB"]) {
            Self::Real
        } else {
            Self::Numeric
        }
    }

    /// Text that reads as a number becomes one, stored or bound.
    pub(super) fn makes_numbers(self) -> bool {
        matches!(self, Self::Integer | Self::Real | Self::Numeric)
    }

    /// Every number that is integral and fits is stored as an integer, and text that reads as a number as a number.
    fn makes_integers(self) -> bool {
        matches!(self, Self::Integer | Self::Numeric)
    }
}

/// What is bound for one key column.
pub(super) struct Spellings {
    /// None: the value cannot be bound.
    pub(super) values: Vec<Stored>,
    pub(super) complete: bool,
}

impl Spellings {
    fn one(value: Stored, complete: bool) -> Self {
        Self { values: vec![value], complete }
    }

    fn some(values: Vec<Stored>) -> Self {
        Self { values, complete: false }
    }
}

/// The condition that a key column is one of its spellings, and how many values it takes, from `?from` on.
pub(super) fn condition(column: &AccessColumn, name: &str, from: usize) -> (String, usize) {
    let slots = slots(column);
    let sql = if is_range(column) {
        format!("({name} >= ?{from} AND {name} < ?{})", from + 1)
    } else if slots == 1 {
        format!("{name} = ?{from}")
    } else {
        let places: Vec<String> = (from..from + slots).map(|at| format!("?{at}")).collect();
        format!("{name} IN ({})", places.join(", "))
    };
    (sql, slots)
}

/// Trailing blanks are not part of the value: text with any number of them lies before text with a `!` in their place.
fn is_range(column: &AccessColumn) -> bool {
    column.comparison == ComparisonType::Text { trim: true } && !column.as_text
}

/// Spellings of a date.
const DATES: usize = 17;

fn slots(column: &AccessColumn) -> usize {
    if column.as_text {
        return 3;
    }
    match column.comparison {
        ComparisonType::Text { trim: true } => 2,
        ComparisonType::Uuid => 7,
        ComparisonType::Date => DATES,
        ComparisonType::Time { .. } => 4,
        ComparisonType::Timestamp { .. } => 9,
        ComparisonType::TimestampTz { .. } => 33,
        _ => 1,
    }
}

/// As many values as the condition takes: the first again where there are fewer.
pub(super) fn filled(column: &AccessColumn, spellings: Vec<Stored>) -> Vec<Stored> {
    let Some(first) = spellings.first().cloned() else { return spellings };
    let more = slots(column).saturating_sub(spellings.len());
    spellings.into_iter().chain(std::iter::repeat_n(first, more)).collect()
}

/// `utf8`: the file keeps text in UTF-8, so that bytes of any kind are bound as they are.
pub(super) fn spellings(column: &AccessColumn, value: &Value, utf8: bool) -> Spellings {
    let affinity = Affinity::of(&column.declared);
    let Some(canonical) = stored(column, value).ok().or_else(|| beyond_integers(value)) else {
        return Spellings { values: Vec::new(), complete: false };
    };
    if column.as_text {
        return Spellings::some(numbers_of(&canonical));
    }
    if is_range(column) {
        return blanks(canonical, affinity, utf8);
    }
    let by_class = |canonical: Stored| {
        let complete = is_found_as_stored(&canonical, affinity, utf8);
        Spellings::one(canonical, complete)
    };
    match (&column.comparison, value) {
        (_, Value::Null) => Spellings { values: Vec::new(), complete: false },
        // One class and one value each, of which SQLite's equality may hold more but not less.
        (ComparisonType::Dynamic, _) | (_, Value::Irregular(..)) => by_class(canonical),
        // Doubles that are integral are integers in these columns, and numbers in text too.
        (
            ComparisonType::Integer | ComparisonType::Decimal { scale: None },
            Value::Int(_) | Value::Decimal(_),
        ) => {
            let kept = match &canonical {
                Stored::Integer(_) => true,
                Stored::Real(real) => real.is_finite() && is_decimal(*real, value),
                _ => false,
            };
            Spellings::one(canonical, kept && affinity.makes_integers())
        }
        // Every number is a double there, and text that Rust reads as a finite one is a number to SQLite.
        (ComparisonType::Float { bits: 64 }, Value::Float64(float)) => {
            Spellings::one(canonical, float.is_finite() && affinity == Affinity::Real)
        }
        (ComparisonType::Text { trim: false }, Value::Text(_)) | (ComparisonType::Bytes, Value::Bytes(_)) => {
            by_class(canonical)
        }
        // A date may be there as its midnight.
        (ComparisonType::Date, Value::Date(days)) => {
            let date = date_text(*days);
            let midnights = moments(&format!("{date} 00:00:00"), &["", "Z"]);
            Spellings::some(texts(std::iter::once(date).chain(midnights).take(DATES).collect()))
        }
        (ComparisonType::Uuid, Value::Uuid(bytes)) => Spellings::some(uuids(bytes)),
        (ComparisonType::Time { .. }, Value::Time(micros)) => {
            Spellings::some(texts(clocks(&time_text(*micros))))
        }
        (ComparisonType::Timestamp { .. }, Value::Timestamp(micros)) => {
            Spellings::some(texts(moments(&timestamp_text(*micros), &[""])))
        }
        (ComparisonType::TimestampTz { .. }, Value::TimestampTz(micros)) => {
            let mut found = moments(&timestamp_text(*micros), &["", "Z", "+00:00", "+00"]);
            found.truncate(33);
            Spellings::some(texts(found))
        }
        _ => Spellings::one(canonical, false),
    }
}

/// SQLite's `=` finds every stored value of this class and content: no affinity turns the bound value into another.
fn is_found_as_stored(value: &Stored, affinity: Affinity, utf8: bool) -> bool {
    match value {
        Stored::Null => false,
        // In a column of text a number becomes text, stored or bound; one that is there all the same is not found.
        Stored::Integer(_) => affinity != Affinity::Text,
        Stored::Real(real) => affinity != Affinity::Text && !real.is_nan(),
        Stored::Text(bytes) => {
            is_bound_as_it_is(bytes, utf8) && !(affinity.makes_numbers() && is_numeric(bytes))
        }
        Stored::Blob(_) => true,
    }
}

/// A file in UTF-16 takes only text that has a form there, and keeps two code points as another one.
fn is_bound_as_it_is(text: &[u8], utf8: bool) -> bool {
    utf8 || std::str::from_utf8(text).is_ok_and(|text| !text.contains(['\u{fffe}', '\u{ffff}']))
}

/// SQLite may read it as a number. Rust reads all that SQLite does, and words that have no digit.
fn is_numeric(text: &[u8]) -> bool {
    let blank = |c: char| matches!(c, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r');
    text.iter().any(u8::is_ascii_digit)
        && std::str::from_utf8(text).is_ok_and(|text| text.trim_matches(blank).parse::<f64>().is_ok())
}

/// An integer of more than 64 bits may be there as a double, though it is not written as one.
fn beyond_integers(value: &Value) -> Option<Stored> {
    let Value::Int(int) = value else { return None };
    let real = Decimal::from_int(*int).to_f64();
    is_decimal(real, value).then_some(Stored::Real(real))
}

/// The double means exactly this number, and so is the only one that does: its shortest form reads back as it.
fn is_decimal(real: f64, value: &Value) -> bool {
    let meant = Decimal::from_f64(real);
    match value {
        Value::Int(int) => meant.to_int() == Some(*int),
        Value::Decimal(decimal) => meant == *decimal,
        _ => false,
    }
}

fn blanks(canonical: Stored, affinity: Affinity, utf8: bool) -> Spellings {
    match canonical {
        Stored::Text(low) => {
            let complete = affinity == Affinity::Text && is_bound_as_it_is(&low, utf8);
            let high = [&low[..], b"!"].concat();
            Spellings { values: vec![Stored::Text(low), Stored::Text(high)], complete }
        }
        // Behind bytes come the same and a zero.
        Stored::Blob(low) => {
            let high = [&low[..], &[0]].concat();
            Spellings { values: vec![Stored::Blob(low), Stored::Blob(high)], complete: true }
        }
        // Between a number and itself lies nothing: such a key is left to others.
        Stored::Null | Stored::Integer(_) | Stored::Real(_) => {
            Spellings { values: Vec::new(), complete: false }
        }
    }
}

/// What text may have been before it was cast.
fn numbers_of(text: &Stored) -> Vec<Stored> {
    let mut all = vec![text.clone()];
    if let Stored::Text(bytes) = text
        && let Ok(text) = std::str::from_utf8(bytes)
    {
        all.extend(text.parse().ok().map(Stored::Integer));
        all.extend(text.parse().ok().map(Stored::Real));
    }
    all
}

fn texts(spellings: Vec<String>) -> Vec<Stored> {
    spellings.into_iter().map(Stored::text).collect()
}

fn uuids(bytes: &[u8; 16]) -> Vec<Stored> {
    let (hyphens, plain) = (uuid_text(bytes), hex(bytes));
    let mut all = texts(vec![
        hyphens.clone(),
        hyphens.to_uppercase(),
        plain.clone(),
        plain.to_uppercase(),
        format!("{{{hyphens}}}"),
        format!("{{{}}}", hyphens.to_uppercase()),
    ]);
    all.push(Stored::Blob(bytes.to_vec()));
    all
}

/// A clock's usual spellings: as few digits as it needs, six, three, and without seconds.
fn clocks(clock: &str) -> Vec<String> {
    let (seconds, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut all = vec![clock.to_owned(), format!("{seconds}.{fraction:0<6}")];
    if fraction.len() <= 3 {
        all.push(format!("{seconds}.{fraction:0<3}"));
    }
    if let ("", Some(minutes)) = (fraction, seconds.strip_suffix(":00")) {
        all.push(minutes.to_owned());
    }
    all
}

/// A moment's usual spellings: with a blank or a T, and a day alone for its midnight.
fn moments(text: &str, zones: &[&str]) -> Vec<String> {
    let Some((date, clock)) = text.split_once(' ') else { return vec![text.to_owned()] };
    let mut all = Vec::new();
    for between in [' ', 'T'] {
        for clock in clocks(clock) {
            all.extend(zones.iter().map(|zone| format!("{date}{between}{clock}{zone}")));
        }
    }
    if clock == "00:00:00" {
        all.push(date.to_owned());
    }
    all
}
