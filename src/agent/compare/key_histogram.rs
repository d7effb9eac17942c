//! Where in the order of keys rows differ: counts over parts that hold equally many of the target's rows.

use crate::merkle::{RunError, RunView};
use crate::model::Key;

/// Parts of a table that is large enough.
const PARTS: u64 = 64;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    /// The first key of each part but the first.
    pivots: Vec<Key>,
    counts: Vec<u64>,
}

impl Parts {
    pub(crate) fn of(run: &impl RunView) -> Result<Self, RunError> {
        let parts = PARTS.min(run.len()).max(1);
        let mut pivots: Vec<Key> = Vec::new();
        for part in 1..parts {
            let at = u64::try_from(u128::from(part) * u128::from(run.len()) / u128::from(parts))
                .map_err(|_| RunError::Misuse("a part beyond the end of the run"))?;
            run.for_each_entry(at..at + 1, &mut |key, _| {
                pivots.push(Key::from(key));
                Ok(())
            })?;
        }
        let counts = vec![0; pivots.len() + 1];
        Ok(Self { pivots, counts })
    }

    pub(crate) fn add(&mut self, key: &[u8], rows: u64) {
        let at = self.pivots.partition_point(|pivot| pivot.as_bytes() <= key);
        if let Some(count) = self.counts.get_mut(at) {
            *count += rows;
        }
    }

    pub(crate) fn counts(&self) -> &[u64] {
        &self.counts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::merkle::{EntryBatch, RowDigest, RunBuilder, RunOptions, SessionKey, TreeKey};

    fn parts(rows: u32) -> Parts {
        let mut entries = EntryBatch::new();
        (0..rows).for_each(|n| entries.push(&(2 * n).to_be_bytes(), RowDigest([1; 16])));
        let mut builder = RunBuilder::new(RunOptions::default());
        builder.push(entries).unwrap();
        Parts::of(&builder.finish(&TreeKey::from_session(&SessionKey::new([1; 32]))).unwrap().0).unwrap()
    }

    fn key(n: u32) -> [u8; 4] {
        n.to_be_bytes()
    }

    #[test]
    fn a_small_table_has_a_part_a_row_and_an_empty_one_has_one() {
        assert_eq!([0, 1, 3, 64, 1_000].map(|rows| parts(rows).counts.len()), [1, 1, 3, 64, 64]);
    }

    proptest! {
        #[test]
        fn parts_are_equal_ordered_and_lose_nothing(rows in 1..500u32, odd in prop::collection::vec(0..2_000u32, 0..100)) {
            let mut all = parts(rows);
            (0..rows).for_each(|n| all.add(&key(2 * n), 1));
            let (least, most) = (all.counts.iter().min().unwrap(), all.counts.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{:?}", all.counts);
            let mut some = parts(rows);
            odd.iter().for_each(|n| some.add(&key(*n), 3));
            prop_assert_eq!(some.counts().iter().sum::<u64>(), 3 * odd.len() as u64);
            let mut one = parts(rows);
            one.add(&key(0), 1);
            prop_assert_eq!(one.counts()[0], 1);
            one.add(&key(u32::MAX), 1);
            prop_assert_eq!(*one.counts().last().unwrap(), 1 + u64::from(one.counts().len() == 1));
        }
    }
}
