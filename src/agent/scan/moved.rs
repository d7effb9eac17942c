//! What has moved between two scans of one table: keys whose row was changed, deleted or inserted.

use crate::merkle::{DigestRun, EntryBatch, RunError, RunView};

/// Entries of each run that are compared together.
const READ_ENTRIES: u64 = 4_096;

/// Calls `each` with every key that the two runs do not hold with the same digest, in key order. `each` says whether to
/// go on.
pub(crate) fn for_each_moved(
    before: &DigestRun,
    now: &DigestRun,
    each: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<(), RunError> {
    let (mut before, mut now) = (Entries::of(before), Entries::of(now));
    loop {
        before.fill()?;
        now.fill()?;
        let order = match (before.key(), now.key()) {
            (None, None) => return Ok(()),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => a.cmp(b),
        };
        let goes_on = match order {
            std::cmp::Ordering::Less => before.key().is_none_or(&mut *each),
            std::cmp::Ordering::Greater => now.key().is_none_or(&mut *each),
            std::cmp::Ordering::Equal if before.same_digest(&now) => true,
            std::cmp::Ordering::Equal => now.key().is_none_or(&mut *each),
        };
        if !goes_on {
            return Ok(());
        }
        if order.is_le() {
            before.next += 1;
        }
        if order.is_ge() {
            now.next += 1;
        }
    }
}

/// The entries of a run in key order, read some thousands at a time.
struct Entries<'r> {
    run: &'r DigestRun,
    read: u64,
    buffer: EntryBatch,
    next: usize,
}

impl<'r> Entries<'r> {
    fn of(run: &'r DigestRun) -> Self {
        Self { run, read: 0, buffer: EntryBatch::new(), next: 0 }
    }

    fn fill(&mut self) -> Result<(), RunError> {
        if self.next < self.buffer.len() || self.read >= self.run.len() {
            return Ok(());
        }
        let end = self.run.len().min(self.read + READ_ENTRIES);
        let buffer = &mut self.buffer;
        buffer.clear();
        self.run.for_each_entry(self.read..end, &mut |key, digest| {
            buffer.push(key, digest);
            Ok(())
        })?;
        (self.read, self.next) = (end, 0);
        Ok(())
    }

    fn key(&self) -> Option<&[u8]> {
        (self.next < self.buffer.len()).then(|| self.buffer.key(self.next))
    }

    fn same_digest(&self, other: &Self) -> bool {
        self.buffer.digest(self.next) == other.buffer.digest(other.next)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::merkle::{RowDigest, RunBuilder, RunOptions, SessionKey, TreeKey};

    fn run_of(rows: &BTreeMap<u16, u8>) -> DigestRun {
        let mut builder = RunBuilder::new(RunOptions::default());
        let mut batch = EntryBatch::new();
        rows.iter().for_each(|(key, row)| batch.push(&key.to_be_bytes(), RowDigest([*row; 16])));
        builder.push(batch).unwrap();
        builder.finish(&TreeKey::from_session(&SessionKey::new([3; 32]))).unwrap().0
    }

    proptest! {
        #[test]
        fn every_key_that_moved_is_named_and_no_other(
            before in prop::collection::btree_map(0u16..300, 0u8..3, 0..200),
            now in prop::collection::btree_map(0u16..300, 0u8..3, 0..200),
        ) {
            let mut moved = Vec::new();
            for_each_moved(&run_of(&before), &run_of(&now), &mut |key| {
                moved.push(u16::from_be_bytes([key[0], key[1]]));
                true
            }).unwrap();
            let expected: Vec<u16> = (0..300).filter(|key| before.get(key) != now.get(key)).collect();
            prop_assert_eq!(moved, expected);
        }
    }

    #[test]
    fn runs_longer_than_a_buffer_are_compared_to_their_ends() {
        let mut rows: BTreeMap<u16, u8> = (0..20_000).map(|n| (n, 1)).collect();
        let before = run_of(&rows);
        rows.remove(&4_096);
        rows.insert(19_999, 2);
        rows.insert(30_000, 1);
        let mut moved = Vec::new();
        for_each_moved(&before, &run_of(&rows), &mut |key| {
            moved.push(u16::from_be_bytes([key[0], key[1]]));
            true
        })
        .unwrap();
        assert_eq!(moved, [4_096, 19_999, 30_000]);
    }
}
