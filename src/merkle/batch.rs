//! What one hashing task hands over: a batch of keys with their row digests.

use std::fmt;

use super::digest::RowDigest;

/// Entries in the order in which their rows were read.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EntryBatch {
    keys: Vec<u8>,
    ends: Vec<usize>,
    digests: Vec<RowDigest>,
}

impl EntryBatch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn with_capacity(entries: usize, key_bytes: usize) -> Self {
        Self {
            keys: Vec::with_capacity(key_bytes),
            ends: Vec::with_capacity(entries),
            digests: Vec::with_capacity(entries),
        }
    }

    pub fn push(&mut self, key: &[u8], digest: RowDigest) {
        self.keys.extend_from_slice(key);
        self.ends.push(self.keys.len());
        self.digests.push(digest);
    }

    /// A key whose digest comes later, with `set_digests`.
    pub fn push_key(&mut self, key: &[u8]) {
        self.keys.extend_from_slice(key);
        self.ends.push(self.keys.len());
    }

    /// The digests of all keys, in their order; `false` where their number is another.
    #[must_use]
    pub fn set_digests(&mut self, digests: Vec<RowDigest>) -> bool {
        self.digests = digests;
        self.digests.len() == self.ends.len()
    }

    pub fn clear(&mut self) {
        self.keys.clear();
        self.ends.clear();
        self.digests.clear();
    }

    pub fn len(&self) -> usize {
        self.digests.len()
    }

    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], RowDigest)> + '_ {
        (0..self.len()).map(|at| (self.key(at), self.digest(at)))
    }

    pub(crate) fn key(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.keys[start..self.ends[at]]
    }

    pub(crate) fn digest(&self, at: usize) -> RowDigest {
        self.digests[at]
    }

    pub(crate) fn key_bytes(&self) -> usize {
        self.keys.len()
    }
}

impl fmt::Debug for EntryBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryBatch({} entries, {} key bytes)", self.len(), self.keys.len())
    }
}
