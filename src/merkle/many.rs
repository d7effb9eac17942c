//! Many messages hashed at a time: those of the same length in blocks go through BLAKE3 side by side, up to sixteen at once.

use std::fmt;

use blake3::IncrementCounter;
use blake3::platform::{Platform, le_bytes_from_words_32, words_from_le_bytes_32};

use super::digest::{BLOCK, first_16};

/// Messages beyond one BLAKE3 chunk are hashed one by one: there the function itself works on many blocks at once.
const BLOCKS_MAX: usize = 16;
/// As many as the widest vector unit takes.
const LANES: usize = 16;

// BLAKE3's domain flags (section 2.1 of its paper): a message of one chunk is a chain of blocks of which the first starts
// the chunk and the last ends both chunk and tree.
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 1 << 1;
const ROOT: u8 = 1 << 3;
const KEYED_HASH: u8 = 1 << 4;

/// Keyed BLAKE3 of messages of whole blocks, sixteen bytes kept of each, in the order in which they are given.
pub(super) struct ManyHasher {
    key: [u8; 32],
    words: [u32; 8],
    platform: Platform,
    /// By number of blocks, from one.
    groups: Vec<Group>,
    hashes: Vec<[u8; 16]>,
    long: Vec<u8>,
}

/// Messages of one length that wait for company.
#[derive(Default)]
struct Group {
    bytes: Vec<u8>,
    places: Vec<usize>,
}

impl ManyHasher {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self {
            key: *key,
            words: words_from_le_bytes_32(key),
            platform: Platform::detect(),
            groups: (0..BLOCKS_MAX).map(|_| Group::default()).collect(),
            hashes: Vec::new(),
            long: Vec::new(),
        }
    }

    /// A message of so many blocks, at least one, which `write` adds to what it is given.
    #[inline]
    pub(super) fn push(&mut self, blocks: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let at = self.hashes.len();
        self.hashes.push([0; 16]);
        let Some(group) = blocks.checked_sub(1).and_then(|at| self.groups.get_mut(at)) else {
            self.long.clear();
            write(&mut self.long);
            if let Some(hash) = self.hashes.last_mut() {
                *hash = first_16(blake3::keyed_hash(&self.key, &self.long).as_bytes());
            }
            return;
        };
        write(&mut group.bytes);
        group.places.push(at);
        if group.places.len() == LANES {
            group.hash(blocks, &self.words, self.platform, &mut self.hashes);
        }
    }

    /// Messages since the last call of `take`.
    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// The hashes of the messages since the last call.
    pub(super) fn take(&mut self) -> Vec<[u8; 16]> {
        for (group, blocks) in self.groups.iter_mut().zip(1..) {
            if !group.places.is_empty() {
                group.hash(blocks, &self.words, self.platform, &mut self.hashes);
            }
        }
        // The next ones are as many, mostly.
        let next = Vec::with_capacity(self.hashes.len());
        std::mem::replace(&mut self.hashes, next)
    }
}

impl fmt::Debug for ManyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ManyHasher({} messages)", self.hashes.len())
    }
}

impl Group {
    fn hash(&mut self, blocks: usize, key: &[u32; 8], platform: Platform, hashes: &mut [[u8; 16]]) {
        let mut found = [[0u8; 32]; LANES];
        macro_rules! by_length {
            ($($n:literal)*) => {
                match blocks {
                    $($n => many::<{ $n * BLOCK }>(&self.bytes, key, platform, &mut found),)*
                    // Longer messages do not come here.
                    _ => return,
                }
            };
        }
        by_length!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
        for (place, found) in self.places.iter().zip(&found) {
            if let Some(hash) = hashes.get_mut(*place) {
                *hash = first_16(found);
            }
        }
        self.bytes.clear();
        self.places.clear();
    }
}

/// Keyed BLAKE3 of messages of no more than one block, one at a time, without what longer ones need; sixteen bytes kept of each.
#[derive(Clone, Copy)]
pub(super) struct ShortHasher {
    words: [u32; 8],
    platform: Platform,
}

impl ShortHasher {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self { words: words_from_le_bytes_32(key), platform: Platform::detect() }
    }

    /// `None`: it is longer.
    pub(super) fn hash(&self, message: &[u8]) -> Option<[u8; 16]> {
        let (mut block, mut words) = ([0; BLOCK], self.words);
        block.get_mut(..message.len())?.copy_from_slice(message);
        let flags = KEYED_HASH | CHUNK_START | CHUNK_END | ROOT;
        let length = u8::try_from(message.len()).ok()?;
        self.platform.compress_in_place(&mut words, &block, length, 0, flags);
        Some(first_16(&le_bytes_from_words_32(&words)))
    }
}

fn many<const N: usize>(bytes: &[u8], key: &[u32; 8], platform: Platform, hashes: &mut [[u8; 32]; LANES]) {
    let (messages, _) = bytes.as_chunks::<N>();
    let mut inputs = [&[0u8; N]; LANES];
    inputs.iter_mut().zip(messages).for_each(|(input, message)| *input = message);
    let count = messages.len().min(LANES);
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
    use super::*;

    #[test]
    fn short_messages_hash_as_documented() {
        let hasher = ShortHasher::new(&[3; 32]);
        let message: Vec<u8> = (0..100).collect();
        for length in 0..100 {
            let expected = first_16(blake3::keyed_hash(&[3; 32], &message[..length]).as_bytes());
            assert_eq!(hasher.hash(&message[..length]), (length <= BLOCK).then_some(expected), "{length}");
        }
    }
}
