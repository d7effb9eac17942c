//! The totals of a check, from the cells of the two answers to a result that says no more than was measured.

use std::time::Duration;

use bigdecimal::BigDecimal;

use super::judge::{self, Judged};
use super::plan::Asked;
use crate::config::{CheckKind, CheckSpec};
use crate::model::float_sum;
use crate::model::measure::{Measured, Misfits, read};
use crate::report::checks::Status;

/// Of MySQL's largest decimal.
const DECIMAL_DIGITS: usize = 65;

/// One side's answer to a check.
#[derive(Debug)]
pub(super) struct Side {
    values: Vec<Option<String>>,
    /// That the totals are of.
    rows: u64,
    /// Of the column that is measured, among these rows.
    column: Misfits,
    /// Of the window's column, in the whole table.
    window: Misfits,
}

impl Side {
    pub(super) fn read(asked: &Asked, cells: &[Option<String>]) -> Option<Self> {
        let (values, mut rest) = cells.split_at_checked(asked.values)?;
        let (rows, after) = rest.split_first()?;
        rest = after;
        let mut misfits = |there: bool| -> Option<Misfits> {
            if !there {
                return Some(Misfits::default());
            }
            let (cells, after) = rest.split_at_checked(3)?;
            rest = after;
            Misfits::read(cells)
        };
        let column = misfits(asked.column.is_some())?;
        let window = misfits(asked.window.is_some())?;
        Some(Self { values: values.to_vec(), rows: rows.as_deref()?.parse().ok()?, column, window })
    }

    fn count(&self, at: usize) -> Option<u64> {
        self.values.get(at)?.as_deref()?.parse().ok()
    }
}

/// What two answers come to.
pub(super) fn judge(
    check: &CheckSpec,
    asked: &Asked,
    now_micros: i64,
    source: &Side,
    target: &Side,
) -> Judged {
    let judged = of_column(check, asked, now_micros, source, target);
    let Some(window) = &asked.window else { return judged };
    in_window(judged, window, &source.window, &target.window)
}

/// A table that is empty is not nearly as full as the other, however small that is. A window may well be empty.
pub(super) fn one_is_empty(judged: Judged, source: u64, target: u64) -> Judged {
    match (source, target) {
        (0, 0) => judged,
        (0, _) if judged.agrees() => {
            Judged { status: Status::Fail, ..judged }.also("only the target has rows")
        }
        (_, 0) if judged.agrees() => {
            Judged { status: Status::Fail, ..judged }.also("only the source has rows")
        }
        _ => judged,
    }
}

/// A row whose time cannot be told may be of any window; NULL is of none.
pub(super) fn in_window(judged: Judged, column: &str, source: &Misfits, target: &Misfits) -> Judged {
    if let Some(why) = unmeasured(column, source, target, true) {
        return judged.doubted(&why);
    }
    match (source.null, target.null) {
        (0, 0) => judged,
        (left, right) if left == right => {
            if judged.agrees() {
                judged.also(&format!("{left} rows without {column} on each side are in no window"))
            } else {
                judged
            }
        }
        (left, right) => judged.doubted(&format!(
            "{left} rows of the source and {right} of the target have no {column} and are in no window"
        )),
    }
}

/// Values of a column of which no total tells anything, where there are some.
pub(super) fn unmeasured(column: &str, source: &Misfits, target: &Misfits, infinite: bool) -> Option<String> {
    let of = |misfits: &Misfits| Misfits {
        null: 0,
        infinite: if infinite { misfits.infinite } else { 0 },
        unreadable: misfits.unreadable,
    };
    let (source, target) = (of(source), of(target));
    let side = |name: &str, misfits: &Misfits| {
        (misfits.total() > 0).then(|| format!("{} at the {name}", misfits.words()))
    };
    let said: Vec<String> =
        [side("source", &source), side("target", &target)].into_iter().flatten().collect();
    (!said.is_empty()).then(|| format!("values of {column} cannot be measured: {}", said.join(", ")))
}

fn of_column(check: &CheckSpec, asked: &Asked, now_micros: i64, source: &Side, target: &Side) -> Judged {
    let tolerance = &check.tolerance;
    let no_count = || Judged::unknown("a count is no number", None);
    let words = match &check.kind {
        CheckKind::Count => {
            let (Some(left), Some(right)) = (source.count(0), target.count(0)) else { return no_count() };
            let judged = judge::numbers(&BigDecimal::from(left), &BigDecimal::from(right), tolerance);
            let judged = agreed(judged, "counts");
            return if asked.window.is_some() { judged } else { one_is_empty(judged, left, right) };
        }
        CheckKind::Freshness { max_age, .. } => {
            return fresh(check, *max_age, asked, now_micros, source, target);
        }
        kind => words(kind),
    };
    let range = if asked.window.is_some() { " in the window" } else { "" };
    match (source.rows, target.rows) {
        (0, 0) => return Judged::new(Status::Pass).saying(format!("neither side has a row{range}")),
        (0, _) => return Judged::new(Status::Fail).saying(format!("only the target has rows{range}")),
        (_, 0) => return Judged::new(Status::Fail).saying(format!("only the source has rows{range}")),
        _ => {}
    }
    match &check.kind {
        CheckKind::NullShare { .. } => {
            let (Some(left), Some(right)) = (source.count(0), target.count(0)) else { return no_count() };
            agreed(judge::shares((left, source.rows), (right, target.rows), tolerance), words)
        }
        CheckKind::Duplicates { .. } => {
            let (Some(left), Some(right)) = (source.count(0), target.count(0)) else { return no_count() };
            judge::duplicates(left, right, tolerance)
        }
        _ => measured(check, asked, words, source, target),
    }
}

fn words(kind: &CheckKind) -> &'static str {
    match kind {
        CheckKind::Sum { .. } => "sums",
        CheckKind::Min { .. } => "smallest values",
        CheckKind::Max { .. } => "largest values",
        CheckKind::NullShare { .. } => "shares of NULL",
        _ => "counts",
    }
}

/// Says what it is that agrees: never that the tables do.
fn agreed(judged: Judged, what: &str) -> Judged {
    if judged.status == Status::Pass && judged.message.is_none() {
        return judged.saying(format!("{what} agree"));
    }
    judged
}

/// A sum or an extreme.
fn measured(check: &CheckSpec, asked: &Asked, words: &str, source: &Side, target: &Side) -> Judged {
    let column = asked.column.as_deref().unwrap_or_default();
    if let Some(why) = unmeasured(column, &source.column, &target.column, true) {
        return Judged::unknown(why, Some(format!("compare {column} with kind = \"rows\"")));
    }
    let (nulls, others) = (source.column.null, target.column.null);
    if nulls >= source.rows && others >= target.rows {
        return Judged::unknown(format!("{column} is NULL in every row: nothing was measured"), None);
    }
    let value = |side: &Side| side.values.first().cloned().flatten();
    let (left, right) = (value(source), value(target));
    let unread = || {
        Judged::unknown(
            "a value cannot be read as its column's type, or is beyond what a check compares",
            None,
        )
    };
    if matches!(check.kind, CheckKind::Sum { .. }) && (is_clipped(&left) || is_clipped(&right)) {
        return Judged::unknown("a sum is beyond what its server can hold", None);
    }
    let judged = if asked.is_float_sum {
        // A sum of nothing is none; what is NULL in every row of one side was seen to.
        let sum = |text: &Option<String>| text.as_deref().map(float_sum::read);
        match (sum(&left), sum(&right)) {
            (Some(Some(left)), Some(Some(right))) => judge::floats(&left, &right, &check.tolerance),
            (None, Some(Some(_))) => Judged::new(Status::Fail).saying("only the target has a value"),
            (Some(Some(_)), None) => Judged::new(Status::Fail).saying("only the source has a value"),
            _ => unread(),
        }
    } else {
        match (read(&asked.comparison, left.as_deref()), read(&asked.comparison, right.as_deref())) {
            (Some(Measured::Null), Some(Measured::Null)) | (None, _) | (_, None) => unread(),
            (Some(left), Some(right)) => judge::measured(&left, &right, &check.tolerance),
        }
    };
    let no_tolerance = check.tolerance.absolute.is_none() && check.tolerance.percent.is_none();
    if asked.is_mixed_float && judged.status == Status::Fail && no_tolerance {
        return Judged { status: Status::Unknown, ..judged }
            .also("the two sides keep floats of different sizes, which may be the difference")
            .hinted("give the check a tolerance, absolute or percent");
    }
    let judged = agreed(judged, words);
    match (nulls, others) {
        (0, 0) => judged,
        (left, right) if left == right && judged.agrees() => {
            judged.also(&format!("{left} NULL on each side are left out"))
        }
        (left, right) if left != right => {
            judged.doubted(&format!("{left} values are NULL at the source and {right} at the target"))
        }
        _ => judged,
    }
}

/// MySQL gives the largest decimal, 65 nines, for a sum that is larger.
fn is_clipped(sum: &Option<String>) -> bool {
    let digits: Vec<u8> = sum.iter().flat_map(|text| text.bytes()).filter(u8::is_ascii_digit).collect();
    digits.len() >= DECIMAL_DIGITS && digits.iter().all(|digit| *digit == b'9')
}

/// The newest times that are not in the future. What is ignored is said.
fn fresh(
    check: &CheckSpec,
    max_age: Option<Duration>,
    asked: &Asked,
    now_micros: i64,
    source: &Side,
    target: &Side,
) -> Judged {
    let column = asked.column.as_deref().unwrap_or_default();
    if let Some(why) = unmeasured(column, &source.column, &target.column, false) {
        return Judged::unknown(why, Some("times must be written as 2024-01-31 12:00:00".to_owned()));
    }
    match (source.rows, target.rows) {
        (0, 0) if max_age.is_some() => return Judged::new(Status::Fail).saying("neither side has a row"),
        (0, 0) => return Judged::new(Status::Pass).saying("neither side has a row"),
        (0, _) => return Judged::new(Status::Fail).saying("only the target has rows"),
        (_, 0) => return Judged::new(Status::Fail).saying("only the source has rows"),
        _ => {}
    }
    let newest = |side: &Side| read(&asked.comparison, side.values.first()?.as_deref());
    let (Some(left), Some(right)) = (newest(source), newest(target)) else {
        return Judged::unknown(
            "a value cannot be read as its column's type, or is beyond what a check compares",
            None,
        );
    };
    let (Some(future), Some(future_target)) = (source.count(1), target.count(1)) else {
        return Judged::unknown("a count is no number", None);
    };
    let mut judged = match (&left, &right) {
        (Measured::Null, Measured::Null) => {
            Judged::unknown(format!("no row has a time in {column} that is not in the future"), None)
        }
        _ => judge::freshness((&left, &right), &check.tolerance, max_age, now_micros),
    };
    if future + future_target > 0 {
        judged = judged.also(&format!(
            "rows in the future are ignored: {future} at the source, {future_target} at the target"
        ));
    }
    let (infinite, others) = (source.column.infinite, target.column.infinite);
    if infinite != others {
        return judged
            .doubted(&format!("{infinite} values are infinite at the source and {others} at the target"));
    }
    if infinite > 0 {
        judged = judged.also(&format!("{infinite} infinite values on each side are ignored"));
    }
    let (nulls, others) = (source.column.null, target.column.null);
    if nulls != others {
        return judged.doubted(&format!("{nulls} values are NULL at the source and {others} at the target"));
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_that_was_cut_off_is_none() {
        let nines = |count: usize| Some("9".repeat(count));
        assert!(
            is_clipped(&nines(65)) && is_clipped(&Some(format!("-{}.{}", "9".repeat(35), "9".repeat(30))))
        );
        assert!(
            !is_clipped(&nines(64))
                && !is_clipped(&Some(format!("1{}", "9".repeat(65))))
                && !is_clipped(&None)
        );
    }

    #[test]
    fn an_empty_table_is_not_near() {
        let near = || Judged::new(Status::WithinTolerance);
        assert_eq!(one_is_empty(near(), 3, 0).status, Status::Fail);
        assert_eq!(one_is_empty(near(), 0, 3).message.as_deref(), Some("only the target has rows"));
        assert_eq!(one_is_empty(near(), 3, 1).status, Status::WithinTolerance);
        assert_eq!(one_is_empty(Judged::new(Status::Pass), 0, 0).status, Status::Pass);
    }

    #[test]
    fn what_a_window_cannot_place_makes_it_unknown() {
        let pass = || Judged::new(Status::Pass);
        let none = Misfits::default();
        let of = |null, infinite, unreadable| Misfits { null, infinite, unreadable };
        assert_eq!(in_window(pass(), "at", &none, &none), pass());
        for (source, target) in [(of(1, 0, 0), none), (of(0, 1, 0), of(0, 1, 0)), (none, of(0, 0, 1))] {
            assert_eq!(in_window(pass(), "at", &source, &target).status, Status::Unknown);
            // A difference stays one.
            assert_eq!(in_window(Judged::new(Status::Fail), "at", &source, &target).status, Status::Fail);
        }
        let said = in_window(pass(), "at", &of(2, 0, 0), &of(2, 0, 0));
        assert_eq!(said.status, Status::Pass);
        assert_eq!(said.message.as_deref(), Some("2 rows without at on each side are in no window"));
    }
}
