//! A linear sketch over row digests: cells into which each entry is XORed at a few places that its digest names.
//!
//! Cells of the two sides XORed leave those of the differences alone (an invertible Bloom lookup table: Eppstein, Goodrich,
//! Uyeda, Varghese, SIGCOMM 2011). An element is six bytes of a row digest, with two bytes of check: a cell has eight bytes.
//! What a wrong guess could spoil, the roots find. The order of the entries does not matter, so that parts are joined.

use super::digest::RowDigest;

const ELEMENT_BITS: u32 = 48;
const ELEMENT: u64 = (1 << ELEMENT_BITS) - 1;

/// Parts of which the entries are counted.
const COUNTED: usize = 2;
/// Cells of the opener that are one of the small opener.
const FOLD: u32 = 15;

/// What of a row digest takes part.
pub fn element(digest: RowDigest) -> u64 {
    digest.0.iter().take(6).rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Splitmix64's finalizer: every bit of the outcome depends on every bit.
fn mix(mut value: u64) -> u64 {
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// The check in its place above the element, and where the places of all stages begin.
fn mixed(element: u64) -> (u64, u64) {
    let mixed = mix(element ^ 0x7275_6574 << 32);
    (element | mixed << ELEMENT_BITS, mixed)
}

/// The element that a cell holds, if it holds one alone, as far as its check tells.
pub fn shown(cell: u64) -> Option<u64> {
    let element = cell & ELEMENT;
    (cell != 0 && mixed(element).0 == cell).then_some(element)
}

/// Cells in equal parts, in each of which an element has one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Sketches of another stage have other places.
    stage: u8,
    parts: u8,
    part: u32,
}

impl Shape {
    /// Made with every tree: up to about 600 differing entries, 300 changed rows, are known by it.
    pub const OPENER: Self = Self { stage: 0, parts: 4, part: 225 };
    /// The opener with fifteen neighbouring cells as one: some 30 differing entries, 15 changed rows.
    pub const SMALL_OPENER: Self = Self { stage: 0, parts: 4, part: 225 / FOLD };
    /// The stage of a sketch that comes behind those before, of at least so many cells. The opener is stage 0, and what was to
    /// hold everything stage 1; what is added then gives most where an entry has one place in it.
    pub fn of_stage(stage: u8, cells: u32) -> Self {
        let parts = if stage > 1 { 1 } else { 3 };
        Self { stage, parts, part: cells.div_ceil(u32::from(parts)).max(1) }
    }

    pub fn cells(&self) -> u32 {
        u32::from(self.parts) * self.part
    }

    /// Cells of one part.
    pub fn part(&self) -> u32 {
        self.part
    }

    /// An element with its check, and its places.
    #[inline]
    pub fn places(self, element: u64) -> (u64, impl Iterator<Item = u32>) {
        let (cell, places) = self.spread::<PARTS_MAX>(element);
        (cell, places.into_iter().take(usize::from(self.parts)))
    }

    /// An element with its check, and its places in the first `N` parts.
    #[inline]
    fn spread<const N: usize>(self, element: u64) -> (u64, [u32; N]) {
        let (cell, mixed) = mixed(element);
        let state = if self.stage == 0 { mixed } else { mix(mixed ^ u64::from(self.stage) << 56) };
        let mut first = 0;
        // Each state is the one before it times the same number; these do not wait for each other.
        let places = std::array::from_fn(|part| {
            let state = state.wrapping_mul(POWERS[part % PARTS_MAX]);
            let within = ((state >> 32) * u64::from(self.part)) >> 32;
            let place = first + (within & u64::from(u32::MAX)) as u32;
            first += self.part;
            place
        });
        (cell, places)
    }
}

/// No shape has more.
const PARTS_MAX: usize = 4;
const POWERS: [u64; PARTS_MAX] = {
    let step: u64 = 0xda94_2042_e4dd_58b5;
    let square = step.wrapping_mul(step);
    [step, square, square.wrapping_mul(step), square.wrapping_mul(square)]
};

/// The cells of one shape over some entries; of the first of them, also how many entries fell into each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cells {
    shape: Shape,
    sums: Vec<u64>,
    counts: Vec<u16>,
}

impl Cells {
    pub fn new(shape: Shape) -> Self {
        Self { shape, sums: vec![0; shape.cells() as usize], counts: Vec::new() }
    }

    /// Of two parts the entries are counted (the lowest two bytes): how far the counts of two sides are apart tells how many differ.
    pub fn counted(shape: Shape) -> Self {
        Self { counts: vec![0; COUNTED * shape.part as usize], ..Self::new(shape) }
    }

    #[inline]
    pub fn add(&mut self, digest: RowDigest) {
        match self.shape.parts {
            4 => self.add_to::<4>(digest),
            3 => self.add_to::<3>(digest),
            _ => self.add_to::<1>(digest),
        }
    }

    #[inline]
    fn add_to<const PARTS: usize>(&mut self, digest: RowDigest) {
        let (cell, places) = self.shape.spread::<PARTS>(element(digest));
        for (part, place) in places.into_iter().enumerate() {
            if let Some(sum) = self.sums.get_mut(place as usize) {
                *sum ^= cell;
            }
            if part < COUNTED
                && let Some(count) = self.counts.get_mut(place as usize)
            {
                *count = count.wrapping_add(1);
            }
        }
    }

    /// Adds the entries of another part.
    pub fn join(&mut self, other: &Self) {
        self.sums.iter_mut().zip(&other.sums).for_each(|(sum, more)| *sum ^= more);
        self.counts
            .iter_mut()
            .zip(&other.counts)
            .for_each(|(count, more)| *count = count.wrapping_add(*more));
    }

    /// The small opener, out of the opener: an entry's place in a part is its share of the part's length, so that cells side by
    /// side are one cell of a shorter part.
    pub fn small(&self) -> Self {
        let fold = FOLD as usize;
        Self {
            shape: Shape::SMALL_OPENER,
            sums: self.sums.chunks(fold).map(|cells| cells.iter().fold(0, |sum, cell| sum ^ cell)).collect(),
            counts: self
                .counts
                .chunks(fold)
                .map(|cells| cells.iter().fold(0, |sum: u16, count| sum.wrapping_add(*count)))
                .collect(),
        }
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    pub fn sums(&self) -> &[u64] {
        &self.sums
    }

    pub fn counts(&self) -> &[u16] {
        &self.counts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::merkle::SessionKey;

    fn digest(n: u32) -> RowDigest {
        SessionKey::new([5; 32]).row_digest(&n.to_be_bytes(), b"")
    }

    fn cells(shape: Shape, entries: &[u32]) -> Cells {
        let mut cells = Cells::counted(shape);
        entries.iter().for_each(|n| cells.add(digest(*n)));
        cells
    }

    fn shapes() -> impl Strategy<Value = Shape> {
        prop_oneof![
            Just(Shape::OPENER),
            Just(Shape::SMALL_OPENER),
            (1u8..4, 1u32..5_000).prop_map(|(s, c)| Shape::of_stage(s, c))
        ]
    }

    proptest! {
        #[test]
        fn parts_join_to_the_whole_in_any_order(shape in shapes(), entries in prop::collection::vec(any::<u32>(), 0..300), cut in any::<prop::sample::Index>()) {
            let (left, right) = entries.split_at(cut.index(entries.len() + 1));
            let mut joined = cells(shape, right);
            joined.join(&cells(shape, left));
            prop_assert_eq!(&joined, &cells(shape, &entries));
            // Twice the same is nothing: what both sides have leaves no trace.
            let sums = joined.sums.clone();
            joined.join(&cells(shape, &entries));
            prop_assert!(joined.sums.iter().all(|sum| *sum == 0) || sums.is_empty());
        }

        #[test]
        fn the_small_opener_is_that_of_its_shape(entries in prop::collection::vec(any::<u32>(), 0..300)) {
            prop_assert_eq!(cells(Shape::OPENER, &entries).small(), cells(Shape::SMALL_OPENER, &entries));
        }

        #[test]
        fn every_place_is_in_its_part_and_shows_the_element(shape in shapes(), n in any::<u32>()) {
            let alone = cells(shape, &[n]);
            let (_, places) = shape.places(element(digest(n)));
            let places: Vec<u32> = places.collect();
            for (part, place) in (0u32..).zip(&places) {
                prop_assert_eq!(place / shape.part(), part);
                prop_assert_eq!(shown(alone.sums[*place as usize]), Some(element(digest(n))));
            }
            prop_assert_eq!(alone.sums.iter().filter(|sum| **sum != 0).count(), places.len());
        }
    }
}
