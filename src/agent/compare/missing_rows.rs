//! Rows that the source has and the target had not, as they arrive.

use std::collections::VecDeque;
use std::sync::Arc;

use super::reread::Reread;
use super::suspects::Suspect;
use crate::merkle::RowDigest;
use crate::model::{CanonicalRow, Key, RowRun};

/// Rows that the source has and the target had not when both were scanned.
pub(crate) struct Missing {
    pub(crate) rows: Arc<RowRun>,
    digests: Vec<RowDigest>,
}

impl Missing {
    /// `digests` are those of the rows, in their order.
    pub(crate) fn new(rows: RowRun, digests: Vec<RowDigest>) -> Self {
        Self { rows: Arc::new(rows), digests }
    }

    /// In parts of so many rows; none where there is no row.
    pub(crate) fn parts(self, most: usize) -> VecDeque<Self> {
        if self.rows.len() <= most {
            return Some(self).filter(|all| !all.rows.is_empty()).into_iter().collect();
        }
        let mut rows = self.rows.iter();
        let part = |digests: &[RowDigest]| Self {
            rows: Arc::new(rows.by_ref().take(digests.len()).collect()),
            digests: digests.to_vec(),
        };
        self.digests.chunks(most).map(part).collect()
    }

    /// Cuts off the rows behind the first `most`; `None` where there are no more.
    pub(crate) fn split_off(&mut self, most: usize) -> Option<Self> {
        if self.rows.len() <= most {
            return None;
        }
        let part = |from: usize, rows: usize| Self {
            rows: Arc::new(self.rows.iter().skip(from).take(rows).collect()),
            digests: self.digests.iter().skip(from).take(rows).copied().collect(),
        };
        let (first, rest) = (part(0, most), part(most, usize::MAX));
        *self = first;
        Some(rest)
    }

    /// Key, row and digest of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = ((&[u8], &[u8]), &RowDigest)> {
        self.rows.iter().zip(&self.digests)
    }
}

/// One of them, as a suspect that was read again.
pub(crate) fn missing_row(key: &[u8], row: &[u8], digest: RowDigest) -> Reread {
    let suspect = Suspect { source: Some(digest), origin: Some(digest), ..Suspect::of(Key::from(key)) };
    Reread::new(suspect, Some(CanonicalRow::new(row)), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_no_larger_than_asked_and_lose_nothing() {
        let missing = |rows: u8| {
            let mut all = RowRun::default();
            (0..rows).for_each(|n| all.push(&[n], &[n, n]));
            Missing { rows: Arc::new(all), digests: (0..rows).map(|n| RowDigest([n; 16])).collect() }
        };
        for (rows, most, sizes) in [
            (0, 5, vec![]),
            (5, 5, vec![5]),
            (12, 5, vec![5, 5, 2]),
            (3, usize::MAX, vec![3]),
            (2, 1, vec![1, 1]),
        ] {
            let parts = missing(rows).parts(most);
            assert_eq!(parts.iter().map(|part| part.rows.len()).collect::<Vec<_>>(), sizes);
            let told: Vec<_> = parts.iter().flat_map(Missing::iter).collect();
            for (n, ((key, row), digest)) in (0..rows).zip(&told) {
                assert_eq!((*key, *row, digest.0), (&[n][..], &[n, n][..], [n; 16]));
            }
        }
    }
    #[test]
    fn a_part_is_cut_in_two_without_loss() {
        for (rows, most) in [(5, 2), (5, 5), (5, 9), (1, 1), (3, 1)] {
            let mut all = RowRun::default();
            (0..rows).for_each(|n: u8| all.push(&[n], &[n, n]));
            let mut first = Missing::new(all, (0..rows).map(|n| RowDigest([n; 16])).collect());
            let rest = first.split_off(most);
            assert_eq!(rest.is_some(), usize::from(rows) > most);
            let both: Vec<_> = first.iter().chain(rest.iter().flat_map(Missing::iter)).collect();
            assert_eq!(both.len(), usize::from(rows));
            for (n, ((key, row), digest)) in (0..rows).zip(both) {
                assert_eq!((key, row, digest.0), (&[n][..], &[n, n][..], [n; 16]));
            }
        }
    }
}
