//! Row digests, the digest run and the Merkle tree over it.
