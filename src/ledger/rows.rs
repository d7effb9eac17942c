//! Many rows of one batch that ended alike are one entry: a row costs the trail its key and its digests, and no chain of
//! its own. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::chain::{Entry, EntryKind};
use crate::agent::{RowIntent, RowOutcome};

/// Fewer rows that ended alike have an entry each.
const TOGETHER_MIN: usize = 100;
/// More have several entries, so that none is large.
const TOGETHER_MAX: usize = 1_000;

/// Key, digest before, digest after; as an entry of one row has them.
type Told = (String, String, String);

/// What such an entry's detail holds.
#[derive(Debug, Serialize, Deserialize)]
struct Rows {
    batch: u64,
    rows: Vec<Told>,
}

/// What became of a batch's rows. Each entry begins as `blank` does.
pub(super) fn entries(
    blank: &Entry,
    batch: u64,
    rows: Vec<RowIntent>,
    outcomes: &[RowOutcome],
) -> Vec<Entry> {
    let mut alike: BTreeMap<(&str, &str), Vec<Told>> = BTreeMap::new();
    for (at, row) in rows.into_iter().enumerate() {
        let outcome = outcomes.get(at).copied().unwrap_or(RowOutcome::Unknown);
        let digests = (row.key, row.before.unwrap_or_default(), row.after.unwrap_or_default());
        alike.entry((row.operation.as_str(), outcome.as_str())).or_default().push(digests);
    }
    let mut entries = Vec::new();
    for ((operation, outcome), mut rows) in alike {
        let base = Entry { operation: operation.to_owned(), outcome: outcome.to_owned(), ..blank.clone() };
        while rows.len() >= TOGETHER_MIN {
            let rest = rows.split_off(rows.len().min(TOGETHER_MAX));
            let detail = serde_json::to_string(&Rows { batch, rows }).unwrap_or_default();
            entries.push(Entry { kind: EntryKind::Rows.as_str().to_owned(), detail, ..base.clone() });
            rows = rest;
        }
        entries.extend(rows.into_iter().map(|(key, before, after)| Entry {
            kind: EntryKind::Row.as_str().to_owned(),
            key,
            before,
            after,
            detail: format!("batch {batch}"),
            ..base.clone()
        }));
    }
    entries
}

impl Entry {
    fn together(&self) -> Option<Rows> {
        if self.kind == EntryKind::Rows.as_str() { serde_json::from_str(&self.detail).ok() } else { None }
    }

    /// How many rows this entry says something of, once they were written or not.
    pub fn rows(&self) -> usize {
        if self.kind == EntryKind::Row.as_str() {
            return 1;
        }
        self.together().map_or(0, |together| together.rows.len())
    }

    /// An entry of many rows, as an entry for each row that is asked for by its key; another as it is.
    pub(super) fn split(self, keys: &[String]) -> Vec<Self> {
        let Some(together) = self.together() else { return vec![self] };
        let wanted = together.rows.into_iter().filter(|(key, ..)| keys.contains(key));
        wanted
            .map(|(key, before, after)| Self {
                kind: EntryKind::Row.as_str().to_owned(),
                key,
                before,
                after,
                detail: format!("batch {}", together.batch),
                ..self.clone()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Operation;

    fn intent(at: usize, operation: Operation) -> RowIntent {
        RowIntent { key: format!("id={at}"), operation, before: None, after: Some(format!("{at:032x}")) }
    }

    #[test]
    fn every_row_is_told_once_with_its_own_outcome() {
        let rows: Vec<RowIntent> = (0..2_600)
            .map(|at| intent(at, if at % 40 == 7 { Operation::Update } else { Operation::Insert }))
            .collect();
        let outcomes: Vec<RowOutcome> = (0..2_500)
            .map(|at| if at % 300 == 0 { RowOutcome::Stale } else { RowOutcome::Written })
            .collect();
        let told = entries(&Entry::default(), 3, rows.clone(), &outcomes);
        assert!(told.len() < 200, "{}", told.len());
        assert_eq!(told.iter().map(Entry::rows).sum::<usize>(), rows.len());
        for (at, row) in rows.iter().enumerate() {
            let found: Vec<Entry> =
                told.iter().flat_map(|entry| entry.clone().split(std::slice::from_ref(&row.key))).collect();
            let of_row: Vec<&Entry> = found.iter().filter(|entry| entry.key == row.key).collect();
            assert_eq!(of_row.len(), 1, "{}", row.key);
            let outcome = outcomes.get(at).copied().unwrap_or(RowOutcome::Unknown);
            assert_eq!(
                (of_row[0].outcome.as_str(), of_row[0].operation.as_str()),
                (outcome.as_str(), row.operation.as_str())
            );
            assert_eq!(Some(&of_row[0].after), row.after.as_ref());
            assert_eq!((of_row[0].kind.as_str(), of_row[0].detail.as_str()), ("row", "batch 3"));
        }
    }

    #[test]
    fn an_entry_that_was_damaged_says_nothing_of_rows() {
        let damaged = Entry { kind: "rows".into(), detail: "{".into(), ..Entry::default() };
        assert_eq!(damaged.rows(), 0);
        assert_eq!(damaged.clone().split(&["a".into()]), [damaged]);
    }
}
