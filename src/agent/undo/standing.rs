//! Where a row stands that a run wrote and an undo finds. Pure.

use super::reader::Overwritten;
use crate::merkle::SessionKey;
use crate::model::CanonicalRow;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It holds what the run left.
    AsLeft,
    /// The run inserted it, and did not come to read it back: of columns that were not compared nobody knows whether
    /// they were written since.
    NotKnown,
    /// It holds what it held before the run.
    AsBefore,
    /// The columns that were compared hold what they held before the run, others do not.
    AsBeforeInPart,
    /// It was written since.
    MovedOn,
}

/// The row as it is, by the plan and whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now<'a> {
    pub(crate) by_plan: Option<&'a CanonicalRow>,
    pub(crate) whole: Option<&'a CanonicalRow>,
}

impl Standing {
    /// `plan_is_whole`: the rows that were compared hold every column. `more_columns`: the table has others.
    pub(crate) fn of(
        row: &Overwritten,
        now: Now<'_>,
        digests: &SessionKey,
        plan_is_whole: bool,
        more_columns: bool,
    ) -> Standing {
        let digest = |held: &CanonicalRow| digests.row_digest(row.key.as_bytes(), held.as_bytes());
        let as_left = match (row.left, row.after) {
            (Some(left), _) => now.whole.map(digest) == Some(left),
            (None, None) => now.whole.is_none() && now.by_plan.is_none(),
            (None, Some(after)) => now.by_plan.map(digest) == Some(after),
        };
        let inserted = row.before.is_none() && row.after.is_some();
        if as_left && row.left.is_none() && inserted && more_columns {
            return Standing::NotKnown;
        }
        if as_left {
            return Standing::AsLeft;
        }
        if now.by_plan != row.before.as_ref() {
            return Standing::MovedOn;
        }
        match now.whole == row.whole_before(plan_is_whole) {
            true => Standing::AsBefore,
            false => Standing::AsBeforeInPart,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Key;

    const DIGESTS: [u8; 32] = [3; 32];

    fn row(text: &str) -> CanonicalRow {
        CanonicalRow::new(text.as_bytes())
    }

    /// Compared and whole, each where there is a row.
    fn stands(
        before: Option<(&str, &str)>,
        after: Option<&str>,
        left: Option<&str>,
        now: Option<(&str, &str)>,
    ) -> Standing {
        let (key, digests) = (Key::from(&b"k"[..]), SessionKey::new(DIGESTS));
        let digest = |text: &str| digests.row_digest(key.as_bytes(), row(text).as_bytes());
        let overwritten = Overwritten {
            before: before.map(|(compared, _)| row(compared)),
            own_before: before.map(|(_, whole)| row(whole)),
            after: after.map(digest),
            left: left.map(digest),
            key: key.clone(),
        };
        let now = now.map(|(compared, whole)| (row(compared), row(whole)));
        let now = Now { by_plan: now.as_ref().map(|now| &now.0), whole: now.as_ref().map(|now| &now.1) };
        Standing::of(&overwritten, now, &digests, false, true)
    }

    #[test]
    fn the_whole_row_decides() {
        let updated = |now| stands(Some(("a", "a1")), Some("b"), Some("b1"), Some(now));
        assert_eq!(updated(("b", "b1")), Standing::AsLeft);
        assert_eq!(updated(("b", "b2")), Standing::MovedOn);
        assert_eq!(updated(("c", "c1")), Standing::MovedOn);
        assert_eq!(updated(("a", "a1")), Standing::AsBefore);
        assert_eq!(updated(("a", "a2")), Standing::AsBeforeInPart);
        // A trigger made something else of it when the run wrote it.
        assert_eq!(stands(Some(("a", "a1")), Some("b"), Some("t1"), Some(("t", "t1"))), Standing::AsLeft);
        let inserted = |now| stands(None, Some("b"), Some("b1"), now);
        assert_eq!(inserted(Some(("b", "b1"))), Standing::AsLeft);
        assert_eq!(inserted(Some(("b", "user"))), Standing::MovedOn);
        assert_eq!(inserted(None), Standing::AsBefore);
        let deleted = |now| stands(Some(("a", "a1")), None, None, now);
        assert_eq!(deleted(None), Standing::AsLeft);
        assert_eq!(deleted(Some(("a", "a1"))), Standing::AsBefore);
        assert_eq!(deleted(Some(("a", "a9"))), Standing::AsBeforeInPart);
        assert_eq!(deleted(Some(("x", "x"))), Standing::MovedOn);
    }

    #[test]
    fn what_was_never_read_back_is_not_known() {
        assert_eq!(stands(None, Some("b"), None, Some(("b", "b1"))), Standing::NotKnown);
        assert_eq!(stands(None, Some("b"), None, Some(("c", "c1"))), Standing::MovedOn);
        assert_eq!(stands(None, Some("b"), None, None), Standing::AsBefore);
        // Setting compared columns back takes nothing from the others.
        assert_eq!(stands(Some(("a", "a1")), Some("b"), None, Some(("b", "b7"))), Standing::AsLeft);
    }
}
