//! Which steps of a range are filled together.

/// Ranges of wanted steps that touch, each of at most `rows_max` rows of the larger side, or of one step.
pub(super) fn join(
    counts: &(Vec<u64>, Vec<u64>),
    rows_max: u64,
    wanted: impl Fn(usize, bool) -> bool,
) -> Vec<std::ops::Range<usize>> {
    let mut chunks: Vec<(std::ops::Range<usize>, u64)> = Vec::new();
    for (at, (source, target)) in counts.0.iter().zip(&counts.1).enumerate() {
        if !wanted(at, source != target) {
            continue;
        }
        let rows = *source.max(target);
        match chunks
            .last_mut()
            .filter(|(steps, held)| steps.end == at && held.saturating_add(rows) <= rows_max)
        {
            Some((steps, held)) => (steps.end, *held) = (at + 1, *held + rows),
            None => chunks.push((at..at + 1, rows)),
        }
    }
    chunks.into_iter().map(|(steps, _)| steps).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::join;

    #[test]
    fn steps_that_touch_are_joined_up_to_a_size() {
        let counts = (vec![10, 10, 10, 10, 500, 10], vec![10, 0, 0, 0, 0, 10]);
        assert_eq!(join(&counts, 20, |_, differs| differs), [1..3, 3..4, 4..5]);
        assert_eq!(join(&counts, 20, |at, differs| differs && at != 2), [1..2, 3..4, 4..5]);
        assert_eq!(join(&counts, 1_000, |_, _| true).first(), Some(&(0..6)));
    }

    proptest! {
        #[test]
        fn every_differing_step_is_in_one_chunk(
            counts in prop::collection::vec((0u64..50, 0u64..50), 0..60), rows_max in 1u64..200,
        ) {
            let counts: (Vec<u64>, Vec<u64>) = counts.into_iter().unzip();
            let chunks = join(&counts, rows_max, |_, differs| differs);
            let held: Vec<usize> = chunks.iter().cloned().flatten().collect();
            let differing: Vec<usize> = (0..counts.0.len()).filter(|at| counts.0[*at] != counts.1[*at]).collect();
            prop_assert_eq!(held, differing);
            for steps in chunks {
                let rows: u64 = steps.clone().map(|at| counts.0[at].max(counts.1[at])).sum();
                prop_assert!(rows <= rows_max || steps.len() == 1);
            }
        }
    }
}
