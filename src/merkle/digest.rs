//! The digests: of a row, of a node, of a table; and the secret they are keyed with.

use std::fmt;

const ROW_ON_STACK: usize = 512;

/// The secret of a session: nobody who writes rows can search for collisions ahead, and nobody who sees a digest can
/// guess a row from it.
#[derive(Clone)]
pub struct SessionKey([u8; 32]);

impl SessionKey {
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// For the peer of this session alone: it goes over the link once and nowhere else.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Digest of one row: keyed BLAKE3 over both lengths, the canonical key, the canonical row and zeros up to a whole
    /// block, 16 bytes kept. Whole blocks let `RowHasher` take many rows at a time.
    pub fn row_digest(&self, key: &[u8], row: &[u8]) -> RowDigest {
        let total = padded(key, row);
        if total <= ROW_ON_STACK {
            let mut framed = [0u8; ROW_ON_STACK];
            let mut at = 0;
            for part in [&length(key)[..], &length(row), key, row] {
                if let Some(to) = framed.get_mut(at..at + part.len()) {
                    to.copy_from_slice(part);
                }
                at += part.len();
            }
            return framed_digest(
                blake3::keyed_hash(&self.0, framed.get(..total).unwrap_or_default()).as_bytes(),
            );
        }
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in [&length(key)[..], &length(row), key, row] {
            hasher.update(part);
        }
        let end = [0; BLOCK];
        hasher.update(end.get(..total - 8 - key.len() - row.len()).unwrap_or_default());
        framed_digest(hasher.finalize().as_bytes())
    }

    /// A secret for another use, from which this one cannot be found.
    pub(super) fn derive(&self, context: &'static str) -> [u8; 32] {
        blake3::derive_key(context, &self.0)
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(secret)")
    }
}

/// BLAKE3's block.
pub(super) const BLOCK: usize = 64;

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes()
}

/// Bytes of a framed row.
pub(super) fn padded(key: &[u8], row: &[u8]) -> usize {
    (8 + key.len() + row.len()).next_multiple_of(BLOCK)
}

/// What is hashed of a row: both lengths, so that the border between key and row counts; key; row; zeros to a whole block.
#[inline]
pub(super) fn frame_row(key: &[u8], row: &[u8], out: &mut Vec<u8>) {
    let end = out.len() + padded(key, row);
    out.reserve(end - out.len() + BLOCK);
    out.extend_from_slice(&length(key));
    out.extend_from_slice(&length(row));
    out.extend_from_slice(key);
    out.extend_from_slice(row);
    // One copy of a length that is known, of which the most is cut off again.
    out.extend_from_slice(&[0; BLOCK]);
    out.truncate(end);
}

pub(super) fn framed_digest(hash: &[u8; 32]) -> RowDigest {
    RowDigest(first_16(hash))
}

pub(super) fn first_16(hash: &[u8; 32]) -> [u8; 16] {
    let mut kept = [0; 16];
    kept.copy_from_slice(&hash[..16]);
    kept
}

/// Digest of one row with its key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowDigest(pub [u8; 16]);

impl RowDigest {
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for RowDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowDigest({})", Hex(&self.0))
    }
}

/// Digest of a leaf or an inner node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeDigest(pub [u8; 16]);

impl fmt::Debug for NodeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeDigest({})", Hex(&self.0))
    }
}

/// Digest of a whole table: equal exactly when count, keys and rows are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootDigest(pub [u8; 32]);

impl RootDigest {
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for RootDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Hex(&self.0))
    }
}

impl fmt::Debug for RootDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootDigest({self})")
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_border_between_key_and_row_counts() {
        let key = SessionKey::new([7; 32]);
        assert_ne!(key.row_digest(b"ab", b"c"), key.row_digest(b"a", b"bc"));
        assert_ne!(key.row_digest(b"", b"abc"), key.row_digest(b"abc", b""));
        assert_ne!(key.row_digest(b"a", b"b"), SessionKey::new([8; 32]).row_digest(b"a", b"b"));
    }

    #[test]
    fn trailing_zeros_of_a_row_count() {
        let key = SessionKey::new([7; 32]);
        assert_ne!(key.row_digest(b"k", b"row"), key.row_digest(b"k", b"row\0"));
        assert_ne!(key.row_digest(b"k", b""), key.row_digest(b"k\0", b""));
    }

    #[test]
    fn the_short_way_and_the_long_way_hash_alike() {
        let key = SessionKey::new([7; 32]);
        for len in [0, 1, 502, 503, 504, 505, 5000] {
            let row = vec![3u8; len];
            let mut framed = Vec::new();
            frame_row(b"k", &row, &mut framed);
            assert_eq!(framed.len() % 64, 0);
            assert_eq!(key.row_digest(b"k", &row).0, blake3::keyed_hash(&[7; 32], &framed).as_bytes()[..16]);
        }
    }

    #[test]
    fn the_secret_stays_out_of_debug() {
        assert_eq!(format!("{:?}", SessionKey::new([0xab; 32])), "SessionKey(secret)");
        assert_eq!(RootDigest([0xab; 32]).to_string(), "ab".repeat(32));
    }
}
