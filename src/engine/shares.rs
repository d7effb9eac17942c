//! Which parts of a table each reader reads: a share of its own from front to back, so that its rows come in the order in which they
//! lie, which often is that of their keys. Who has read all of it takes half of what another has left.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Parts are numbered from zero.
pub(super) struct Shares {
    /// Parts that are read as one, and are not divided any more.
    step: u64,
    left: Mutex<Vec<Share>>,
}

struct Share {
    parts: Range<u64>,
    begun: bool,
}

impl Share {
    fn of(parts: Range<u64>) -> Self {
        Self { parts, begun: false }
    }

    fn len(&self) -> u64 {
        self.parts.end - self.parts.start
    }
}

/// What a reader is to read next.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) parts: Range<u64>,
    /// They lie right behind what the reader read before.
    pub(super) goes_on: bool,
}

impl Shares {
    pub(super) fn new(parts: u64, readers: usize, step: u64) -> Self {
        let count = readers.max(1) as u64;
        let each = parts.div_ceil(count);
        let border = |reader: u64| (each * reader).min(parts);
        let left = (0..count).map(|reader| Share::of(border(reader)..border(reader + 1))).collect();
        Self { step: step.max(1), left: Mutex::new(left) }
    }

    /// The next parts of this reader; `None` where what is left is read by others.
    pub(super) fn take(&self, reader: usize) -> Option<Next> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.get(reader)?.len() == 0 {
            let other = left.iter_mut().max_by_key(|share| share.len())?;
            // What would be read as one is left to its own reader.
            if other.len() == 0 || (other.begun && other.len() <= self.step) {
                return None;
            }
            let middle = other.parts.start + other.len() / 2;
            let taken = middle..std::mem::replace(&mut other.parts.end, middle);
            *left.get_mut(reader)? = Share::of(taken);
        }
        let share = left.get_mut(reader)?;
        let from = share.parts.start;
        let until = share.parts.end.min(from + self.step);
        share.parts.start = until;
        Some(Next { parts: from..until, goes_on: std::mem::replace(&mut share.begun, true) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reader_alone_reads_from_front_to_back() {
        let shares = Shares::new(10, 1, 4);
        let all: Vec<Next> = std::iter::from_fn(|| shares.take(0)).collect();
        let next = |parts, goes_on| Next { parts, goes_on };
        assert_eq!(all, [next(0..4, false), next(4..8, true), next(8..10, true)]);
        assert_eq!(Shares::new(0, 3, 4).take(1), None);
    }

    #[test]
    fn who_is_done_takes_half_of_what_another_has_left() {
        let shares = Shares::new(20, 2, 1);
        let of_first: Vec<Next> = std::iter::from_fn(|| shares.take(0)).take(12).collect();
        assert!(of_first.iter().take(10).map(|next| next.parts.start).eq(0..10));
        // The other has not begun: the second half of its ten, then of the five.
        assert_eq!(of_first[10], Next { parts: 15..16, goes_on: false });
        assert_eq!(of_first[11], Next { parts: 16..17, goes_on: true });
        assert_eq!(shares.take(1), Some(Next { parts: 10..11, goes_on: false }));
    }

    proptest! {
        #[test]
        fn every_part_is_read_once(
            parts in 0u64..3_000,
            readers in 1usize..7,
            step in 1u64..90,
            turns in prop::collection::vec(0usize..7, 0..400),
        ) {
            let shares = Shares::new(parts, readers, step);
            let mut read = Vec::new();
            let mut behind = vec![None; readers];
            // Some reader is always slow: others take over from it; in the end each reads what is left.
            let rest = (0..readers).flat_map(|reader| std::iter::repeat_n(reader, 3_000));
            for reader in turns.into_iter().map(|turn| turn % readers).chain(rest) {
                let Some(Next { parts, goes_on }) = shares.take(reader) else { continue };
                prop_assert!(!goes_on || behind[reader] == Some(parts.start));
                prop_assert!(!parts.is_empty() && parts.end - parts.start <= step);
                behind[reader] = Some(parts.end);
                read.push(parts);
            }
            read.sort_by_key(|parts| parts.start);
            prop_assert!(read.into_iter().flatten().eq(0..parts));
        }
    }
}
