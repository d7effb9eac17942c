//! Row digests, many at a time.

use std::fmt;

use super::digest::{BLOCK, RowDigest, SessionKey, frame_row, padded};
use super::many::ManyHasher;

/// Digests rows in the order in which they are given; equal to `SessionKey::row_digest` of each.
pub struct RowHasher {
    hasher: ManyHasher,
}

impl RowHasher {
    pub fn new(key: &SessionKey) -> Self {
        Self { hasher: ManyHasher::new(key.expose()) }
    }

    #[inline]
    pub fn push(&mut self, key: &[u8], row: &[u8]) {
        self.hasher.push(padded(key, row) / BLOCK, |out| frame_row(key, row, out));
    }

    /// The digests of the rows since the last call.
    pub fn take(&mut self) -> Vec<RowDigest> {
        self.hasher.take().into_iter().map(RowDigest).collect()
    }
}

impl fmt::Debug for RowHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowHasher({} rows)", self.hasher.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::digest::framed_digest;
    use super::*;

    /// BLAKE3 as its crate documents it.
    fn documented(secret: [u8; 32], key: &[u8], row: &[u8]) -> RowDigest {
        let mut framed = Vec::new();
        frame_row(key, row, &mut framed);
        framed_digest(blake3::keyed_hash(&secret, &framed).as_bytes())
    }

    #[test]
    fn every_length_hashes_as_documented() {
        let session = SessionKey::new([7; 32]);
        let mut hasher = RowHasher::new(&session);
        let rows: Vec<Vec<u8>> = (0..2_200).map(|len| vec![3; len]).collect();
        rows.iter().for_each(|row| hasher.push(b"k", row));
        let digests = hasher.take();
        for (row, digest) in rows.iter().zip(digests) {
            assert_eq!(digest, documented([7; 32], b"k", row), "{}", row.len());
            assert_eq!(digest, session.row_digest(b"k", row), "{}", row.len());
        }
        assert!(hasher.take().is_empty());
    }

    proptest! {
        #[test]
        fn company_changes_no_digest(
            rows in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 0..300)), 0..100)
        ) {
            let session = SessionKey::new([9; 32]);
            let mut hasher = RowHasher::new(&session);
            rows.iter().for_each(|(key, row)| hasher.push(key, row));
            let alone: Vec<_> = rows.iter().map(|(key, row)| session.row_digest(key, row)).collect();
            prop_assert_eq!(hasher.take(), alone);
        }
    }
}
