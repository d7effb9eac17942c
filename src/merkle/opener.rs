//! The sketch that is made with every tree: in as many cells as may be asked for without another look at the entries.
//!
//! An entry's place in a part is its share of the part's length, so that cells side by side are one cell of a shorter part. What
//! opens a conversation is a quarter of the cells, or a sixtieth; where it does not suffice, the cells that were folded into it
//! follow: all but the last of each, which is what the others leave of their sum.

use super::cells::{Cells, PARTS_MAX, Shape};
use super::digest::RowDigest;

/// Cells of a part of the opener.
const PART: u32 = 225;
/// Cells of the opener that are one of the small opener.
const SMALL: u32 = 15;
/// Times that a part may be halved before it is the opener's.
const HALVINGS: u8 = 2;
/// Parts of which the entries are counted.
const COUNTED: usize = 2;

const WIDEST: Shape = Shape::of_parts([PART << HALVINGS; PARTS_MAX]);

impl Shape {
    /// What opens a conversation: up to about 600 differing entries, 300 changed rows, are known by it.
    pub const OPENER: Self = Self::of_parts([PART; PARTS_MAX]);
    /// The opener with fifteen neighbouring cells as one: some 30 differing entries, 15 changed rows.
    pub const SMALL_OPENER: Self = Self::of_parts([PART / SMALL; PARTS_MAX]);
    /// Steps from the opener to all cells that there are.
    pub const FINER_MAX: u8 = HALVINGS * 4;

    /// The opener, one part of it twice as long with each step.
    pub fn finer(steps: u8) -> Self {
        let steps = steps.min(Self::FINER_MAX);
        Self::of_parts([0, 1, 2, 3].map(|part| PART << ((steps + 3 - part) / 4)))
    }
}

/// Cells of the widest shape over some entries, and how many entries fell into each cell of the opener's first parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opener {
    cells: Cells,
    counts: Vec<u16>,
}

impl Opener {
    pub fn new() -> Self {
        Self { cells: Cells::new(WIDEST), counts: vec![0; COUNTED * PART as usize] }
    }

    #[inline]
    pub fn add(&mut self, digest: RowDigest) {
        let places = self.cells.add_to::<PARTS_MAX>(digest);
        for place in places.into_iter().take(COUNTED) {
            if let Some(count) = self.counts.get_mut((place >> HALVINGS) as usize) {
                *count = count.wrapping_add(1);
            }
        }
    }

    /// Adds the entries of another part of the table.
    pub fn join(&mut self, other: &Self) {
        self.cells.join(&other.cells);
        let counts = self.counts.iter_mut().zip(&other.counts);
        counts.for_each(|(count, more)| *count = count.wrapping_add(*more));
    }

    /// The cells of the opener, the small one or a finer one.
    pub fn cells(&self, shape: Shape) -> Cells {
        let mut sums = Vec::with_capacity(shape.cells() as usize);
        each_part(WIDEST, shape, self.cells.sums(), |fold, cells| {
            sums.extend(cells.chunks(fold).map(|cells| cells.iter().fold(0, |sum, cell| sum ^ cell)));
        });
        Cells::of(shape, sums)
    }

    /// The cells of a finer shape that do not follow from the opener's.
    pub fn beyond_opener(&self, shape: Shape) -> Vec<u64> {
        let finer = self.cells(shape);
        let mut sums = Vec::new();
        each_part(shape, Shape::OPENER, finer.sums(), |fold, cells| {
            cells.chunks(fold).for_each(|cells| sums.extend(cells.iter().take(fold - 1)));
        });
        sums
    }

    /// Entries by cell, of the opener or the small one, as far as they are counted.
    pub fn counts(&self, shape: Shape) -> Vec<u16> {
        let fold = if shape == Shape::SMALL_OPENER { SMALL as usize } else { 1 };
        let sum = |counts: &[u16]| counts.iter().fold(0, |sum: u16, count| sum.wrapping_add(*count));
        self.counts.chunks(fold).map(sum).collect()
    }
}

impl Default for Opener {
    fn default() -> Self {
        Self::new()
    }
}

/// Of each part: how many of the longer shape's cells are one of the shorter's, and the longer's cells.
fn each_part(longer: Shape, shorter: Shape, mut sums: &[u64], mut each: impl FnMut(usize, &[u64])) {
    for (long, short) in longer.lengths().iter().zip(shorter.lengths()) {
        let (part, rest) = sums.split_at_checked(*long as usize).unwrap_or((sums, &[]));
        each((long / short.max(&1)).max(1) as usize, part);
        sums = rest;
    }
}

/// The cells of a finer shape, from the opener's and those beyond them; `None` where they are not as many as they should be.
pub fn finer_cells(shape: Shape, opener: &[u64], beyond: &[u64]) -> Option<Vec<u64>> {
    let wanted = (shape.cells() - Shape::OPENER.cells()) as usize;
    if opener.len() != Shape::OPENER.cells() as usize || beyond.len() != wanted {
        return None;
    }
    let mut beyond = beyond.iter();
    let mut sums = Vec::with_capacity(shape.cells() as usize);
    let mut rest = opener;
    for (long, short) in shape.lengths().iter().zip(Shape::OPENER.lengths()) {
        let (part, behind) = rest.split_at_checked(*short as usize)?;
        rest = behind;
        for sum in part {
            let mut last = *sum;
            for _ in 1..long / short {
                let cell = beyond.next()?;
                last ^= cell;
                sums.push(*cell);
            }
            sums.push(last);
        }
    }
    Some(sums)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::merkle::SessionKey;

    fn digest(n: u32) -> RowDigest {
        SessionKey::new([5; 32]).row_digest(&n.to_be_bytes(), b"")
    }

    fn opener(entries: &[u32]) -> Opener {
        let mut opener = Opener::new();
        entries.iter().for_each(|n| opener.add(digest(*n)));
        opener
    }

    #[test]
    fn each_step_doubles_a_part_until_all_are_the_widest() {
        let lengths = |steps| Shape::finer(steps).lengths().to_vec();
        assert_eq!(Shape::finer(0), Shape::OPENER);
        assert_eq!(lengths(1), [450, 225, 225, 225]);
        assert_eq!(lengths(4), [450; 4]);
        assert_eq!(lengths(6), [900, 900, 450, 450]);
        assert_eq!(Shape::finer(Shape::FINER_MAX), WIDEST);
        assert_eq!(Shape::finer(255), WIDEST);
    }

    proptest! {
        #[test]
        fn folded_cells_are_those_of_their_shape(entries in prop::collection::vec(any::<u32>(), 0..300), steps in 0..=Shape::FINER_MAX) {
            let opener = opener(&entries);
            for shape in [Shape::SMALL_OPENER, Shape::finer(steps)] {
                let mut cells = Cells::new(shape);
                entries.iter().for_each(|n| cells.add(digest(*n)));
                prop_assert_eq!(opener.cells(shape), cells);
            }
            for shape in [Shape::SMALL_OPENER, Shape::OPENER] {
                let mut counts = vec![0; shape.lengths()[..COUNTED].iter().sum::<u32>() as usize];
                for n in &entries {
                    let (_, places) = shape.places(crate::merkle::element(digest(*n)));
                    places.take(COUNTED).for_each(|place| counts[place as usize] += 1);
                }
                prop_assert_eq!(opener.counts(shape), counts);
            }
        }

        #[test]
        fn parts_join_to_the_whole(entries in prop::collection::vec(any::<u32>(), 0..300), cut in any::<prop::sample::Index>()) {
            let (left, right) = entries.split_at(cut.index(entries.len() + 1));
            let mut joined = opener(right);
            joined.join(&opener(left));
            prop_assert_eq!(joined, opener(&entries));
        }

        #[test]
        fn finer_cells_follow_from_the_opener_and_those_beyond(entries in prop::collection::vec(any::<u32>(), 0..300), steps in 0..=Shape::FINER_MAX) {
            let (opener, shape) = (opener(&entries), Shape::finer(steps));
            let (known, beyond) = (opener.cells(Shape::OPENER), opener.beyond_opener(shape));
            prop_assert_eq!(beyond.len(), (shape.cells() - Shape::OPENER.cells()) as usize);
            prop_assert_eq!(finer_cells(shape, known.sums(), &beyond), Some(opener.cells(shape).sums().to_vec()));
            prop_assert_eq!(finer_cells(shape, known.sums(), &[beyond.as_slice(), &[1]].concat()), None);
            prop_assert_eq!(finer_cells(shape, &[1], &beyond), None);
        }
    }
}
