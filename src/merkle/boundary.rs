//! Where nodes end: decided by a key's own hash, so that both sides agree without a word.

use std::fmt;

use siphasher::sip::SipHasher13;

use super::digest::SessionKey;

/// Zero bits a key's hash needs to end a leaf: a leaf has 16 rows on average. Each level above needs one more, so
/// that the width of a frontier can be chosen to a factor of two.
pub const LEAF_BITS: u8 = 4;

/// Keys the boundary hash. Apart from the session key, so that it may live longer than a session.
#[derive(Clone, Copy)]
pub struct BoundaryKey([u64; 2]);

impl BoundaryKey {
    pub fn new(bytes: [u8; 16]) -> Self {
        let [low, high] = [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|place| bytes[at + place])));
        Self([low, high])
    }

    pub fn from_session(session: &SessionKey) -> Self {
        Self::new(super::digest::first_16(&session.derive("trueup v1 node boundaries")))
    }

    #[inline]
    pub(super) fn mark(&self, key: &[u8]) -> Mark {
        let hash = SipHasher13::new_with_keys(self.0[0], self.0[1]).hash(key);
        let [tag, ..] = hash.to_be_bytes();
        Mark { hash, bits: u8::try_from(hash.trailing_zeros()).unwrap_or(64), tag }
    }
}

impl fmt::Debug for BoundaryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoundaryKey(secret)")
    }
}

/// A key's hash and what it says: how many zero bits it ends with, and eight other bits that tell one border from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) hash: u64,
    pub(super) bits: u8,
    pub(super) tag: u8,
}

/// Trailing zero bits of the key's hash: it ends a node of level `l` where they are at least `LEAF_BITS + l`.
pub fn boundary_level(boundary: &BoundaryKey, key: &[u8]) -> u8 {
    boundary.mark(key).bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_in_sixteen_ends_a_leaf() {
        let boundary = BoundaryKey::new([1; 16]);
        let ends =
            (0..100_000u32).filter(|n| boundary_level(&boundary, &n.to_be_bytes()) >= LEAF_BITS).count();
        assert!((6_000..6_500).contains(&ends), "{ends}");
    }
}
