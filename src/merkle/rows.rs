//! Many row digests at a time: rows of the same length in blocks go through BLAKE3 side by side, up to sixteen at once.

use std::fmt;

use blake3::IncrementCounter;
use blake3::platform::{Platform, words_from_le_bytes_32};

use super::digest::{RowDigest, SessionKey, frame_row, framed_digest, padded};

const BLOCK: usize = 64;
/// Rows beyond one BLAKE3 chunk are hashed one by one: there the function itself works on many blocks at once.
const BLOCKS_MAX: usize = 16;
/// As many as the widest vector unit takes.
const LANES: usize = 16;

// BLAKE3's domain flags (section 2.1 of its paper): a message of one chunk is a chain of blocks of which the first starts
// the chunk and the last ends both chunk and tree.
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 1 << 1;
const ROOT: u8 = 1 << 3;
const KEYED_HASH: u8 = 1 << 4;

/// Digests rows in the order in which they are given; equal to `SessionKey::row_digest` of each.
pub struct RowHasher {
    key: SessionKey,
    words: [u32; 8],
    platform: Platform,
    /// By number of blocks, from one.
    groups: Vec<Group>,
    digests: Vec<RowDigest>,
}

/// Framed rows of one length that wait for company.
#[derive(Default)]
struct Group {
    bytes: Vec<u8>,
    rows: Vec<usize>,
}

impl RowHasher {
    pub fn new(key: &SessionKey) -> Self {
        Self {
            key: key.clone(),
            words: words_from_le_bytes_32(key.expose()),
            platform: Platform::detect(),
            groups: (0..BLOCKS_MAX).map(|_| Group::default()).collect(),
            digests: Vec::new(),
        }
    }

    pub fn push(&mut self, key: &[u8], row: &[u8]) {
        let at = self.digests.len();
        let blocks = padded(key, row) / BLOCK;
        let Some(group) = blocks.checked_sub(1).and_then(|at| self.groups.get_mut(at)) else {
            let digest = self.key.row_digest(key, row);
            return self.digests.push(digest);
        };
        self.digests.push(RowDigest([0; 16]));
        frame_row(key, row, &mut group.bytes);
        group.rows.push(at);
        if group.rows.len() == LANES {
            group.hash(blocks, &self.words, self.platform, &mut self.digests);
        }
    }

    /// The digests of the rows since the last call.
    pub fn take(&mut self) -> Vec<RowDigest> {
        for (group, blocks) in self.groups.iter_mut().zip(1..) {
            if !group.rows.is_empty() {
                group.hash(blocks, &self.words, self.platform, &mut self.digests);
            }
        }
        std::mem::take(&mut self.digests)
    }
}

impl fmt::Debug for RowHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowHasher({} rows)", self.digests.len())
    }
}

impl Group {
    fn hash(&mut self, blocks: usize, key: &[u32; 8], platform: Platform, digests: &mut [RowDigest]) {
        let mut hashes = [[0u8; 32]; LANES];
        macro_rules! by_length {
            ($($n:literal)*) => {
                match blocks {
                    $($n => many::<{ $n * BLOCK }>(&self.bytes, key, platform, &mut hashes),)*
                    // Longer rows do not come here.
                    _ => return,
                }
            };
        }
        by_length!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
        for (row, hash) in self.rows.iter().zip(&hashes) {
            if let Some(digest) = digests.get_mut(*row) {
                *digest = framed_digest(hash);
            }
        }
        self.bytes.clear();
        self.rows.clear();
    }
}

fn many<const N: usize>(bytes: &[u8], key: &[u32; 8], platform: Platform, hashes: &mut [[u8; 32]; LANES]) {
    let (rows, _) = bytes.as_chunks::<N>();
    let mut inputs = [&[0u8; N]; LANES];
    inputs.iter_mut().zip(rows).for_each(|(input, row)| *input = row);
    let count = rows.len().min(LANES);
    platform.hash_many(
        &inputs[..count],
        key,
        0,
        IncrementCounter::No,
        KEYED_HASH,
        CHUNK_START,
        CHUNK_END | ROOT,
        &mut hashes.as_flattened_mut()[..count * 32],
    );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
