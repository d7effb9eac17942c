//! A rateless difference sketch (Yang, Gilad, Alizadeh, SIGCOMM 2024): symbols over all entries of a side, of which a prefix
//! of about 1.4 symbols a difference gives the differences, whatever the tables hold besides.
//!
//! Symbol `i` is the XOR of the elements that fall into it, each with probability 2 / (i + 2). Symbols of the two sides XORed leave
//! those of the differences alone. A symbol that holds one element shows it; taken out of all its symbols, it uncovers
//! others. An element is six bytes of a row digest, with two bytes of check: a symbol has eight bytes. What a wrong guess
//! could spoil, the roots find. Sketches are linear, so that a prefix can be lengthened later.

use std::collections::{BinaryHeap, HashSet};
use std::sync::LazyLock;

use rayon::prelude::*;

use crate::merkle::{RowDigest, RunError, RunView};

/// Symbols of the first message: they give up to about 600 differing entries, 300 changed rows.
pub(super) const OPENER: u32 = 900;
/// Symbols made in one pass, the first of which are sent: more are often asked for, and a pass over a large table takes a second.
pub(super) const AHEAD: u32 = 8_192;
/// The last symbols of the opener come with the number of their entries (its lowest byte), which tells how many differ.
pub(super) const COUNTED: usize = 512;
/// More would cost more than other ways to find as much.
pub(super) const SYMBOLS_MAX: u32 = 1 << 20;
const ELEMENT_BITS: u32 = 48;
const ELEMENT: u64 = (1 << ELEMENT_BITS) - 1;
const ENTRIES_PER_TASK: u64 = 1 << 16;

/// What of a row digest takes part.
pub(super) fn element(digest: RowDigest) -> u64 {
    digest.0.iter().take(6).rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Splitmix64's finalizer: every bit of the outcome depends on every bit.
fn mix(mut value: u64) -> u64 {
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// The element with its check above it.
fn symbol(element: u64) -> u64 {
    element | mix(element ^ 0x7275_6574) << ELEMENT_BITS
}

/// The symbols that an element falls into, in order, from 0.
struct Indices {
    state: u64,
    at: u32,
}

impl Indices {
    fn of(element: u64) -> Self {
        Self { state: mix(element | 1 << 63), at: 0 }
    }

    /// Steps to the next. That the step from `i` goes beyond `j` has probability (i+1)(i+2) / (j+1)(j+2), so that it goes to
    /// about (i + 3/2) / sqrt(u) - 3/2 for a uniform `u`.
    #[inline]
    fn step(&mut self, reaches: &[u64; REACHES]) {
        self.state = self.state.wrapping_mul(0xda94_2042_e4dd_58b5);
        let reach = reaches[place(self.state >> (64 - REACH_BITS)) % REACHES];
        let doubled = ((2 * u64::from(self.at) + 3) * reach) >> 16;
        let next = u32::try_from((doubled - 2) / 2).unwrap_or(u32::MAX);
        self.at = next.max(self.at.saturating_add(1));
    }
}

const REACH_BITS: u32 = 12;
const REACHES: usize = 1 << REACH_BITS;

/// 1 / sqrt(u) for evenly spaced `u`, in 65536ths: whole numbers, so that every machine steps alike.
fn reaches() -> &'static [u64; REACHES] {
    static REACH: LazyLock<[u64; REACHES]> =
        LazyLock::new(|| std::array::from_fn(|at| ((1u64 << 45) / (2 * at as u64 + 1)).isqrt()));
    &REACH
}

/// Symbols `from..to` over all entries of a view, and how many entries fell into each.
pub(super) struct Symbols {
    pub(super) sums: Vec<u64>,
    pub(super) counts: Vec<u8>,
}

impl Symbols {
    fn zero(len: usize) -> Self {
        Self { sums: vec![0; len], counts: vec![0; len] }
    }

    fn add(&mut self, element: u64, from: u32, to: u32) {
        let (symbol, reaches) = (symbol(element), reaches());
        let mut indices = Indices::of(element);
        while indices.at < to {
            if let Some(at) = indices.at.checked_sub(from) {
                let at = at as usize;
                if let (Some(sum), Some(count)) = (self.sums.get_mut(at), self.counts.get_mut(at)) {
                    *sum ^= symbol;
                    *count = count.wrapping_add(1);
                }
            }
            indices.step(reaches);
        }
    }

    fn join(mut self, other: &Self) -> Self {
        self.sums.iter_mut().zip(&other.sums).for_each(|(sum, more)| *sum ^= more);
        self.counts
            .iter_mut()
            .zip(&other.counts)
            .for_each(|(count, more)| *count = count.wrapping_add(*more));
        self
    }

    pub(super) fn of<V: RunView>(view: &V, from: u32, to: u32) -> Result<Self, RunError> {
        let len = to.saturating_sub(from) as usize;
        let tasks = view.len().div_ceil(ENTRIES_PER_TASK);
        (0..tasks)
            .into_par_iter()
            .try_fold(
                || (Self::zero(len), Vec::new()),
                |(mut symbols, mut digests), task| {
                    let start = task * ENTRIES_PER_TASK;
                    digests.clear();
                    view.digests(start..view.len().min(start + ENTRIES_PER_TASK), &mut digests)?;
                    digests.iter().for_each(|digest| symbols.add(element(*digest), from, to));
                    Ok::<_, RunError>((symbols, digests))
                },
            )
            .map(|part| part.map(|(symbols, _)| symbols))
            .try_reduce(|| Self::zero(len), |a, b| Ok(a.join(&b)))
    }
}

fn place(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

/// The positions of the entries whose elements are asked for, in order; and the elements that no entry has.
pub(super) fn resolve<V: RunView>(view: &V, elements: &[u64]) -> Result<(Vec<u64>, Vec<u64>), RunError> {
    let mut wanted = elements.to_vec();
    wanted.sort_unstable();
    // One bit for the lowest bits of each, so that almost every entry is passed over with one look.
    let mask = (elements.len() as u64 * 16).next_power_of_two().max(1 << 16) - 1;
    let mut seen = vec![0u64; place(mask / 64 + 1)];
    for element in &wanted {
        let bit = element & mask;
        if let Some(word) = seen.get_mut(place(bit / 64)) {
            *word |= 1 << (bit % 64);
        }
    }
    let tasks = view.len().div_ceil(ENTRIES_PER_TASK);
    let found: Vec<(Vec<u64>, Vec<u64>)> = (0..tasks)
        .into_par_iter()
        .map(|task| {
            let start = task * ENTRIES_PER_TASK;
            let mut digests = Vec::new();
            view.digests(start..view.len().min(start + ENTRIES_PER_TASK), &mut digests)?;
            let (mut places, mut elements) = (Vec::new(), Vec::new());
            for (at, digest) in (start..).zip(&digests) {
                let element = element(*digest);
                let bit = element & mask;
                let likely = seen.get(place(bit / 64)).is_some_and(|word| word >> (bit % 64) & 1 == 1);
                if likely && wanted.binary_search(&element).is_ok() {
                    places.push(at);
                    elements.push(element);
                }
            }
            Ok((places, elements))
        })
        .collect::<Result<_, RunError>>()?;
    let mut places = Vec::new();
    let mut mine = HashSet::new();
    for (some, elements) in found {
        places.extend(some);
        mine.extend(elements);
    }
    wanted.retain(|element| !mine.contains(element));
    Ok((places, wanted))
}

/// Takes the symbols of the difference, and gives its elements when they are enough.
#[derive(Default)]
pub(super) struct Decoder {
    difference: Vec<u64>,
    found: HashSet<u64>,
}

impl Decoder {
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.difference.len()).unwrap_or(u32::MAX)
    }

    /// Takes the next symbols of both sides; `true` when all that differs is found.
    pub(super) fn take(&mut self, own: &[u64], peer: &[u64]) -> bool {
        self.difference.extend(own.iter().zip(peer).map(|(own, peer)| own ^ peer));
        self.found.clear();
        let mut left = Left(self.difference.clone());
        // From the last symbol down: the first hold almost everything and change with almost every element that is taken
        // out, so that two bytes of check would let one through by chance. They are looked at when no other shows anything.
        let mut likely: BinaryHeap<u32> = (0..self.len()).collect();
        while let Some(at) = likely.pop() {
            let Some(element) = left.pure(at) else { continue };
            // Only nonsense shows an element twice, and it could do so for ever.
            if !self.found.insert(element) {
                return false;
            }
            left.remove(element, &mut likely);
        }
        left.0.iter().all(|symbol| *symbol == 0)
    }

    pub(super) fn elements(&self) -> Vec<u64> {
        self.found.iter().copied().collect()
    }
}

/// What is left of the difference.
struct Left(Vec<u64>);

impl Left {
    /// The one element of a symbol: its check fits, and it belongs there.
    fn pure(&self, at: u32) -> Option<u64> {
        let seen = *self.0.get(at as usize)?;
        let element = seen & ELEMENT;
        if seen == 0 || symbol(element) != seen {
            return None;
        }
        let (mut indices, reaches) = (Indices::of(element), reaches());
        while indices.at < at {
            indices.step(reaches);
        }
        (indices.at == at).then_some(element)
    }

    fn remove(&mut self, element: u64, touched: &mut BinaryHeap<u32>) {
        let (symbol, reaches) = (symbol(element), reaches());
        let mut indices = Indices::of(element);
        while let Some(seen) = self.0.get_mut(indices.at as usize) {
            *seen ^= symbol;
            touched.push(indices.at);
            indices.step(reaches);
        }
    }
}

/// How many entries differ, from the counts of the symbols from `first` on: how far the two sides' are apart varies with the
/// number of entries that only one of them has. `surplus` is by how many rows the own side has more.
pub(super) fn estimate(first: u32, own: &[u8], peer: &[u8], surplus: i64) -> u64 {
    let (mut sum, mut cells) = (0.0, 0.0);
    for ((at, own), peer) in (first..).zip(own).zip(peer) {
        let share = 2.0 / (f64::from(at) + 2.0);
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let expected = surplus as f64 * share;
        // Counts come without their higher bits: the difference nearest to what is expected.
        let apart = (f64::from(own.wrapping_sub(*peer)) - expected).rem_euclid(256.0);
        let apart = if apart > 128.0 { apart - 256.0 } else { apart };
        sum += apart * apart / (share * (1.0 - share));
        cells += 1.0;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate; casts saturate")]
    let estimate = (sum / f64::max(cells, 1.0)).ceil() as u64;
    estimate.max(surplus.unsigned_abs())
}

/// Symbols that give so many differences in all but one case in a hundred.
pub(super) fn enough(differences: u64) -> u64 {
    let percent = match differences {
        0..=50 => 260,
        51..=100 => 180,
        101..=300 => 165,
        301..=2_000 => 148,
        2_001..=20_000 => 141,
        20_001..=100_000 => 138,
        _ => 136,
    };
    differences.saturating_mul(percent) / 100 + 8
}
