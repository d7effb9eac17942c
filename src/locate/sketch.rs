//! A difference sketch in stages: cells over all entries of a side, of which some 1.3 a difference give the differences,
//! whatever the tables hold besides.
//!
//! Each stage is a table of cells ([`Cells`]) into which every entry goes a few times. Cells of the two sides XORed leave those of
//! the differences alone. A cell that holds one element shows it; taken out of all its cells, in every stage, it uncovers
//! others. The first stage comes with the tree and its counts tell how many differ; the second is as large as they need; a
//! stage that does not suffice stays of use to the next.

use std::collections::HashSet;

use rayon::prelude::*;

use crate::merkle::{Cells, RunError, RunView, Shape, element, shown};

/// More would cost more than other ways to find as much.
pub(super) const CELLS_MAX: u32 = 1 << 20;
const ENTRIES_PER_TASK: u64 = 1 << 16;

/// The cells of one shape over all entries of a view.
pub(super) fn cells_of<V: RunView>(view: &V, shape: Shape) -> Result<Cells, RunError> {
    let tasks = view.len().div_ceil(ENTRIES_PER_TASK);
    (0..tasks)
        .into_par_iter()
        .try_fold(
            || (Cells::new(shape), Vec::new()),
            |(mut cells, mut digests), task| {
                let start = task * ENTRIES_PER_TASK;
                digests.clear();
                view.digests(start..view.len().min(start + ENTRIES_PER_TASK), &mut digests)?;
                digests.iter().for_each(|digest| cells.add(*digest));
                Ok::<_, RunError>((cells, digests))
            },
        )
        .map(|part| part.map(|(cells, _)| cells))
        .try_reduce(
            || Cells::new(shape),
            |mut a, b| {
                a.join(&b);
                Ok(a)
            },
        )
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
        .map_init(Vec::new, |digests, task| {
            let start = task * ENTRIES_PER_TASK;
            digests.clear();
            view.digests(start..view.len().min(start + ENTRIES_PER_TASK), digests)?;
            let (mut places, mut elements) = (Vec::new(), Vec::new());
            for (at, digest) in (start..).zip(digests.iter()) {
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

/// Takes the cells of the difference, a stage at a time, and gives its elements when they are enough.
#[derive(Default)]
pub(super) struct Decoder {
    stages: Vec<Stage>,
    found: HashSet<u64>,
}

/// What is left of the difference in the cells of one stage.
#[derive(Clone)]
struct Stage {
    shape: Shape,
    left: Vec<u64>,
}

impl Decoder {
    /// Cells taken so far.
    pub(super) fn len(&self) -> u32 {
        self.stages.iter().map(|stage| stage.shape.cells()).sum()
    }

    /// Takes the next stage of both sides; `true` when all that differs is found.
    pub(super) fn take(&mut self, shape: Shape, own: &[u64], peer: &[u64]) -> bool {
        let left = own.iter().zip(peer).map(|(own, peer)| own ^ peer).collect();
        self.stages.push(Stage { shape, left });
        self.found.clear();
        let mut stages = self.stages.clone();
        // The newest stage is looked at first: the one before did not suffice.
        let mut likely: Vec<(usize, u32)> = stages
            .iter()
            .enumerate()
            .flat_map(|(stage, cells)| (0..cells.shape.cells()).map(move |at| (stage, at)))
            .collect();
        while let Some((stage, at)) = likely.pop() {
            let Some(element) = stages.get(stage).and_then(|stage| stage.pure(at)) else { continue };
            // Only nonsense shows an element twice, and it could do so for ever.
            if !self.found.insert(element) {
                return false;
            }
            for (number, stage) in stages.iter_mut().enumerate() {
                let (cell, places) = stage.shape.places(element);
                for at in places {
                    if let Some(left) = stage.left.get_mut(at as usize) {
                        *left ^= cell;
                        likely.push((number, at));
                    }
                }
            }
        }
        stages.iter().all(|stage| stage.left.iter().all(|cell| *cell == 0))
    }

    pub(super) fn elements(&self) -> Vec<u64> {
        self.found.iter().copied().collect()
    }
}

impl Stage {
    /// The one element of a cell: its check fits, and it belongs there.
    fn pure(&self, at: u32) -> Option<u64> {
        let element = shown(*self.left.get(at as usize)?)?;
        let (_, mut places) = self.shape.places(element);
        places.any(|place| place == at).then_some(element)
    }
}

/// How many entries differ, from the counts of an opener's cells: how far the two sides' are apart varies with the number of
/// entries that only one of them has. `surplus` is by how many rows the own side has more.
pub(super) fn estimate(shape: Shape, own: &[u16], peer: &[u8], surplus: i64) -> u64 {
    let share = shape.lengths().first().map_or(1.0, |length| 1.0 / f64::from(*length));
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    let expected = surplus as f64 * share;
    let bytes = (peer.len() / own.len().max(1)).max(1);
    let wrap = if bytes == 1 { 256 } else { 65_536 };
    let (mut sum, mut cells) = (0.0, 0.0);
    for (own, peer) in own.iter().zip(peer.chunks(bytes)) {
        let peer = peer.iter().rev().fold(0, |count, byte| count << 8 | i32::from(*byte));
        // Counts come without their higher bits: the difference nearest to what is expected.
        let apart =
            (f64::from((i32::from(*own) - peer).rem_euclid(wrap)) - expected).rem_euclid(f64::from(wrap));
        let apart = if apart > f64::from(wrap / 2) { apart - f64::from(wrap) } else { apart };
        sum += apart * apart;
        cells += 1.0;
    }
    let variance = sum / f64::max(cells, 1.0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate; casts saturate")]
    let estimate = (variance / (share * (1.0 - share))).ceil() as u64;
    estimate.max(surplus.unsigned_abs())
}

/// Steps from the opener to cells that give so many differences in all but one case in a hundred; `None` where there are none.
pub(super) fn finer_enough(differences: u64) -> Option<u8> {
    let wanted = differences.saturating_mul(139) / 100 + 30;
    (1..=Shape::FINER_MAX).find(|steps| u64::from(Shape::finer(*steps).cells()) >= wanted)
}

/// Cells of a stage that give so many differences in all but one case in a hundred.
pub(super) fn enough(differences: u64) -> u64 {
    let percent = match differences {
        0..=100 => 200,
        101..=300 => 160,
        301..=1_000 => 140,
        1_001..=5_000 => 132,
        5_001..=20_000 => 128,
        _ => 125,
    };
    // In three equal parts.
    (differences.saturating_mul(percent) / 100 + 30).next_multiple_of(3)
}
