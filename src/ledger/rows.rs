//! Many rows of one batch that ended alike are one entry: a row costs the trail its key and its digests, and no chain of
//! its own. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::chain::{Entry, EntryKind};
use crate::agent::{HASH_DIGITS, Intents, RowIntent, RowOutcome, hashes};
use crate::model::Operation;

/// Fewer rows that ended alike have an entry each.
const TOGETHER_MIN: usize = 100;
/// More have several entries, so that none is large.
const TOGETHER_MAX: usize = 1_000;

/// Key, digest before, digest after; as an entry of one row has them.
type Told = (String, String, String);

/// What such an entry's detail holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Rows {
    Each {
        batch: u64,
        rows: Vec<Told>,
    },
    /// Rows that were inserted, by hashes alone: those of the keys one behind the other, and those of the rows likewise.
    Inserts {
        batch: u64,
        keys: String,
        after: String,
    },
}

impl Rows {
    fn batch(&self) -> u64 {
        match self {
            Self::Each { batch, .. } | Self::Inserts { batch, .. } => *batch,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Each { rows, .. } => rows.len(),
            Self::Inserts { keys, .. } => hashes(keys).count(),
        }
    }

    fn of_keys(self, wanted: &[String]) -> Vec<Told> {
        match self {
            Self::Each { rows, .. } => rows.into_iter().filter(|(key, ..)| wanted.contains(key)).collect(),
            Self::Inserts { keys, after, .. } => hashes(&keys)
                .zip(hashes(&after))
                .filter(|(key, _)| wanted.iter().any(|wanted| wanted == key))
                .map(|(key, after)| (key.to_owned(), String::new(), after.to_owned()))
                .collect(),
        }
    }
}

/// What became of a batch's rows. Each entry begins as `blank` does.
pub(super) fn entries(blank: &Entry, batch: u64, rows: Intents, outcomes: &[RowOutcome]) -> Vec<Entry> {
    if let Intents::Inserts { keys, after } = &rows
        && rows.len() >= TOGETHER_MIN
        && let Some(first) = outcomes.first()
        && outcomes.len() == rows.len()
        && outcomes.iter().all(|outcome| outcome == first)
    {
        return inserts(blank, batch, keys, after, *first);
    }
    each(blank, batch, rows.into_rows(), outcomes)
}

/// All of them ended alike.
fn inserts(blank: &Entry, batch: u64, keys: &str, after: &str, outcome: RowOutcome) -> Vec<Entry> {
    let parts = (0..keys.len()).step_by(HASH_DIGITS * TOGETHER_MAX);
    let entry = |at| Entry {
        kind: EntryKind::Rows.as_str().to_owned(),
        operation: Operation::Insert.as_str().to_owned(),
        outcome: outcome.as_str().to_owned(),
        detail: told(batch, part(keys, at), part(after, at)),
        ..blank.clone()
    };
    parts.map(entry).collect()
}

/// The hashes of one entry, from this digit on.
fn part(hashes: &str, at: usize) -> &str {
    hashes.get(at..hashes.len().min(at + HASH_DIGITS * TOGETHER_MAX)).unwrap_or_default()
}

/// `Rows::Inserts` as JSON: hashes are digits, which stand in it as they are.
fn told(batch: u64, keys: &str, after: &str) -> String {
    if are_digits(keys) && are_digits(after) {
        return format!(r#"{{"batch":{batch},"keys":"{keys}","after":"{after}"}}"#);
    }
    detail(&Rows::Inserts { batch, keys: keys.to_owned(), after: after.to_owned() })
}

/// No branch for each byte: texts are long.
pub(super) fn are_digits(text: &str) -> bool {
    text.bytes().fold(true, |all, byte| all & byte.is_ascii_hexdigit())
}

fn detail(rows: &Rows) -> String {
    serde_json::to_string(rows).unwrap_or_default()
}

fn each(blank: &Entry, batch: u64, rows: Vec<RowIntent>, outcomes: &[RowOutcome]) -> Vec<Entry> {
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
            let detail = detail(&Rows::Each { batch, rows });
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
        self.together().map_or(0, |rows| rows.len())
    }

    /// An entry of many rows, as an entry for each row that is asked for by its key; another as it is.
    pub(super) fn split(self, keys: &[String]) -> Vec<Self> {
        let Some(together) = self.together() else { return vec![self] };
        let detail = format!("batch {}", together.batch());
        let wanted = together.of_keys(keys).into_iter();
        wanted
            .map(|(key, before, after)| Self {
                kind: EntryKind::Row.as_str().to_owned(),
                key,
                before,
                after,
                detail: detail.clone(),
                ..self.clone()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let told = entries(&Entry::default(), 3, Intents::Each(rows.clone()), &outcomes);
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
    fn inserts_that_ended_alike_are_told_by_their_hashes_and_found_by_their_keys() {
        let hash = |at: usize| format!("{at:032x}");
        let text = |from: usize| (from..from + 2_345).map(hash).collect::<String>();
        let rows = Intents::Inserts { keys: text(0), after: text(10_000) };
        let alike = vec![RowOutcome::Written; 2_345];
        let mut mixed = alike.clone();
        mixed[7] = RowOutcome::Stale;
        for outcomes in [&alike, &mixed, &alike[..2_000].to_vec()] {
            let told = entries(&Entry::default(), 5, rows.clone(), outcomes);
            assert!(told.len() <= 4 + TOGETHER_MIN + 1, "{}", told.len());
            assert_eq!(told.iter().map(Entry::rows).sum::<usize>(), 2_345);
            for at in [0, 7, 999, 1_000, 2_000, 2_344] {
                let key = hash(at);
                let found = told.iter().flat_map(|entry| entry.clone().split(std::slice::from_ref(&key)));
                let of_row: Vec<Entry> = found.filter(|entry| entry.key == key).collect();
                let outcome = outcomes.get(at).copied().unwrap_or(RowOutcome::Unknown);
                assert_eq!(of_row.len(), 1, "{at}");
                assert_eq!(of_row[0].after, hash(at + 10_000));
                assert_eq!(
                    (of_row[0].operation.as_str(), of_row[0].outcome.as_str()),
                    ("insert", outcome.as_str())
                );
            }
        }
    }

    #[test]
    fn an_entry_that_was_damaged_says_nothing_of_rows() {
        let damaged = Entry { kind: "rows".into(), detail: "{".into(), ..Entry::default() };
        assert_eq!(damaged.rows(), 0);
        assert_eq!(damaged.clone().split(&["a".into()]), [damaged]);
        // Hashes that were cut off in their middle.
        let cut = r#"{"batch":1,"keys":"é0123456789012345678901234567890","after":"01"}"#;
        let cut = Entry { kind: "rows".into(), detail: cut.into(), ..Entry::default() };
        assert!(cut.rows() <= 1 && cut.split(&["a".into()]).is_empty());
    }
}
