//! How a digest run is read: by position and by key.

use std::ops::Range;

use super::digest::RowDigest;
use super::error::RunError;

/// What is called with the key and the digest of each entry.
pub type EachEntry<'a> = dyn FnMut(&[u8], RowDigest) -> Result<(), RunError> + 'a;

/// Entries in key order, readable at random.
pub trait RunView: Send + Sync {
    fn len(&self) -> u64;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the digests of the entries in `range`.
    fn digests(&self, range: Range<u64>, out: &mut Vec<RowDigest>) -> Result<(), RunError>;

    /// Calls `each` with key and digest of the entries in `range`, in key order, until it fails.
    fn for_each_entry(&self, range: Range<u64>, each: &mut EachEntry<'_>) -> Result<(), RunError>;

    /// Position of the first entry at or after `from` whose key is not less than `key`; quick where it is near `from`.
    fn lower_bound(&self, key: &[u8], from: u64) -> Result<u64, RunError>;

    /// Position and digest of the entry with this key.
    fn find(&self, key: &[u8]) -> Result<Option<(u64, RowDigest)>, RunError> {
        let at = self.lower_bound(key, 0)?;
        let mut found = None;
        if at < self.len() {
            self.for_each_entry(at..at + 1, &mut |there, digest| {
                if there == key {
                    found = Some((at, digest));
                }
                Ok(())
            })?;
        }
        Ok(found)
    }
}

impl<V: RunView + ?Sized> RunView for &V {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn digests(&self, range: Range<u64>, out: &mut Vec<RowDigest>) -> Result<(), RunError> {
        (**self).digests(range, out)
    }

    fn for_each_entry(&self, range: Range<u64>, each: &mut EachEntry<'_>) -> Result<(), RunError> {
        (**self).for_each_entry(range, each)
    }

    fn lower_bound(&self, key: &[u8], from: u64) -> Result<u64, RunError> {
        (**self).lower_bound(key, from)
    }
}

impl<V: RunView + ?Sized> RunView for std::sync::Arc<V> {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn digests(&self, range: Range<u64>, out: &mut Vec<RowDigest>) -> Result<(), RunError> {
        (**self).digests(range, out)
    }

    fn for_each_entry(&self, range: Range<u64>, each: &mut EachEntry<'_>) -> Result<(), RunError> {
        (**self).for_each_entry(range, each)
    }

    fn lower_bound(&self, key: &[u8], from: u64) -> Result<u64, RunError> {
        (**self).lower_bound(key, from)
    }
}
