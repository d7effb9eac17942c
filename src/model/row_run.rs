//! Many rows end to end in two pieces of memory: what is read, sent and inserted by the thousand costs no allocation a row.

use std::fmt;

use super::change::{CanonicalRow, Change, KeyedRow};
use super::key::Key;

/// Rows with their keys, in the order in which they were put in. `Debug` shows their number only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RowRun {
    keys: Vec<u8>,
    rows: Vec<u8>,
    /// Where each row's key and each row's cells end.
    ends: Vec<(usize, usize)>,
}

impl RowRun {
    /// The rows of changes that all insert one.
    pub fn of_inserts(changes: &[Change]) -> Option<Self> {
        let rows = changes.iter().map(|change| match change {
            Change { key, before: None, after: Some(after) } => Some((key.as_bytes(), after.as_bytes())),
            _ => None,
        });
        rows.collect()
    }

    /// Makes room for as many rows in all, if they are as long as those that are there.
    pub fn expect(&mut self, rows: usize) {
        let (here, more) = (self.len().max(1), rows.saturating_sub(self.len()));
        let for_more = |bytes: usize| (bytes / here + 1).saturating_mul(more);
        self.keys.reserve(for_more(self.keys.len()));
        self.rows.reserve(for_more(self.rows.len()));
        self.ends.reserve(more);
    }

    #[inline]
    pub fn push(&mut self, key: &[u8], row: &[u8]) {
        self.keys.extend_from_slice(key);
        self.rows.extend_from_slice(row);
        self.ends.push((self.keys.len(), self.rows.len()));
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all keys and rows.
    pub fn bytes(&self) -> usize {
        self.keys.len() + self.rows.len()
    }

    /// Canonical key and canonical cells of each row.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        let mut before = (0, 0);
        self.ends.iter().map(move |end| {
            let (from, to) = (std::mem::replace(&mut before, *end), *end);
            (self.keys.get(from.0..to.0).unwrap_or_default(), self.rows.get(from.1..to.1).unwrap_or_default())
        })
    }

    /// In the order of their keys.
    pub fn sorted(self) -> Self {
        if self.iter().is_sorted_by(|a, b| a.0 <= b.0) {
            return self;
        }
        let mut rows: Vec<_> = self.iter().collect();
        rows.sort_by(|a, b| a.0.cmp(b.0));
        rows.into_iter().collect()
    }

    /// As changes that insert each of them.
    pub fn inserts(&self) -> Vec<Change> {
        let insert =
            |(key, row)| Change { key: Key::from(key), before: None, after: Some(CanonicalRow::new(row)) };
        self.iter().map(insert).collect()
    }
}

impl<'a> FromIterator<(&'a [u8], &'a [u8])> for RowRun {
    fn from_iter<I: IntoIterator<Item = (&'a [u8], &'a [u8])>>(rows: I) -> Self {
        let mut run = Self::default();
        rows.into_iter().for_each(|(key, row)| run.push(key, row));
        run
    }
}

impl<'a> FromIterator<&'a KeyedRow> for RowRun {
    fn from_iter<I: IntoIterator<Item = &'a KeyedRow>>(rows: I) -> Self {
        rows.into_iter().map(|row| (row.key.as_bytes(), row.row.as_bytes())).collect()
    }
}

impl fmt::Debug for RowRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowRun({} rows, {} bytes)", self.len(), self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_come_out_as_they_went_in_and_sorted_where_asked(
            rows in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..6), prop::collection::vec(any::<u8>(), 0..20)), 0..60)
        ) {
            let run: RowRun = rows.iter().map(|(key, row)| (key.as_slice(), row.as_slice())).collect();
            let plain = |run: &RowRun| run.iter().map(|(k, r)| (k.to_vec(), r.to_vec())).collect::<Vec<_>>();
            prop_assert_eq!(plain(&run), rows.clone());
            prop_assert_eq!((run.len(), run.is_empty()), (rows.len(), rows.is_empty()));
            prop_assert_eq!(run.bytes(), rows.iter().map(|(key, row)| key.len() + row.len()).sum::<usize>());
            let inserts = run.inserts();
            prop_assert_eq!(RowRun::of_inserts(&inserts), Some(run.clone()));
            prop_assert!(inserts.iter().zip(&rows).all(|(change, (key, row))| change.key.as_bytes() == key
                && change.before.is_none() && change.after.as_ref().map(CanonicalRow::as_bytes) == Some(row)));
            let mut expected = rows;
            expected.sort_by(|a, b| a.0.cmp(&b.0));
            prop_assert_eq!(plain(&run.sorted()), expected);
        }
    }
}
