//! A linear sketch over row digests: cells into which each entry is XORed at a few places that its digest names.
//!
//! Cells of the two sides XORed leave those of the differences alone (an invertible Bloom lookup table: Eppstein, Goodrich,
//! Uyeda, Varghese, SIGCOMM 2011). An element is six bytes of a row digest, with two bytes of check: a cell has eight bytes.
//! What a wrong guess could spoil, the roots find. The order of the entries does not matter, so that parts are joined.

use super::digest::RowDigest;

const ELEMENT_BITS: u32 = 48;
const ELEMENT: u64 = (1 << ELEMENT_BITS) - 1;

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

/// No shape has more.
pub(super) const PARTS_MAX: usize = 4;

/// Cells in parts, in each of which an element has one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Sketches of another stage have other places.
    stage: u8,
    parts: u8,
    /// Cells of each part.
    lengths: [u32; PARTS_MAX],
}

impl Shape {
    /// The stage of a sketch that comes behind those before, of at least so many cells. The opener is stage 0, and what was to
    /// hold everything stage 1; what is added then gives most where an entry has one place in it.
    pub fn of_stage(stage: u8, cells: u32) -> Self {
        if stage > 1 {
            return Self { stage, parts: 1, lengths: [cells.max(1), 0, 0, 0] };
        }
        let part = cells.div_ceil(3).max(1);
        Self { stage, parts: 3, lengths: [part, part, part, 0] }
    }

    pub(super) const fn of_parts(lengths: [u32; PARTS_MAX]) -> Self {
        Self { stage: 0, parts: 4, lengths }
    }

    pub fn cells(&self) -> u32 {
        self.lengths.iter().sum()
    }

    /// Cells of each part.
    pub fn lengths(&self) -> &[u32] {
        self.lengths.get(..usize::from(self.parts)).unwrap_or_default()
    }

    /// An element with its check, and its places.
    #[inline]
    pub fn places(self, element: u64) -> (u64, impl Iterator<Item = u32>) {
        let (cell, places) = self.spread::<PARTS_MAX>(element);
        (cell, places.into_iter().take(usize::from(self.parts)))
    }

    /// An element with its check, and its places in the first `N` parts.
    #[inline]
    pub(super) fn spread<const N: usize>(self, element: u64) -> (u64, [u32; N]) {
        let (cell, mixed) = mixed(element);
        let state = if self.stage == 0 { mixed } else { mix(mixed ^ u64::from(self.stage) << 56) };
        let mut first = 0;
        // Each state is the one before it times the same number; these do not wait for each other.
        let places = std::array::from_fn(|part| {
            let length = self.lengths[part % PARTS_MAX];
            let state = state.wrapping_mul(POWERS[part % PARTS_MAX]);
            let within = ((state >> 32) * u64::from(length)) >> 32;
            let place = first + (within & u64::from(u32::MAX)) as u32;
            first += length;
            place
        });
        (cell, places)
    }
}

const POWERS: [u64; PARTS_MAX] = {
    let step: u64 = 0xda94_2042_e4dd_58b5;
    let square = step.wrapping_mul(step);
    [step, square, square.wrapping_mul(step), square.wrapping_mul(square)]
};

/// The cells of one shape over some entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cells {
    shape: Shape,
    sums: Vec<u64>,
}

impl Cells {
    pub fn new(shape: Shape) -> Self {
        Self { shape, sums: vec![0; shape.cells() as usize] }
    }

    pub(super) fn of(shape: Shape, sums: Vec<u64>) -> Self {
        Self { shape, sums }
    }

    #[inline]
    pub fn add(&mut self, digest: RowDigest) {
        match self.shape.parts {
            4 => _ = self.add_to::<4>(digest),
            3 => _ = self.add_to::<3>(digest),
            _ => _ = self.add_to::<1>(digest),
        }
    }

    /// Adds it at its places in the first `PARTS` parts, and says which these are.
    #[inline]
    pub(super) fn add_to<const PARTS: usize>(&mut self, digest: RowDigest) -> [u32; PARTS] {
        let (cell, places) = self.shape.spread::<PARTS>(element(digest));
        for place in places {
            if let Some(sum) = self.sums.get_mut(place as usize) {
                *sum ^= cell;
            }
        }
        places
    }

    /// Adds the entries of another part of the table.
    pub fn join(&mut self, other: &Self) {
        self.sums.iter_mut().zip(&other.sums).for_each(|(sum, more)| *sum ^= more);
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    pub fn sums(&self) -> &[u64] {
        &self.sums
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
        let mut cells = Cells::new(shape);
        entries.iter().for_each(|n| cells.add(digest(*n)));
        cells
    }

    fn shapes() -> impl Strategy<Value = Shape> {
        prop_oneof![
            [1u32..900, 1u32..900, 1u32..900, 1u32..900].prop_map(Shape::of_parts),
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
        fn every_place_is_in_its_part_and_shows_the_element(shape in shapes(), n in any::<u32>()) {
            let alone = cells(shape, &[n]);
            let (_, places) = shape.places(element(digest(n)));
            let places: Vec<u32> = places.collect();
            let mut first = 0;
            for (length, place) in shape.lengths().iter().zip(&places) {
                prop_assert!((first..first + length).contains(place));
                prop_assert_eq!(shown(alone.sums[*place as usize]), Some(element(digest(n))));
                first += length;
            }
            prop_assert_eq!(first, shape.cells());
            prop_assert_eq!(alone.sums.iter().filter(|sum| **sum != 0).count(), places.len());
        }
    }
}
