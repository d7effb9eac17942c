//! Pictures in SVG: shapes with classes, no styles of their own; each says in words what it shows.

use maud::{Markup, html};

use super::look::t;
use crate::report::render::{grouped, heat_level};

const BARS_WIDTH: u64 = 400;
/// Columns of a picture of steps; more steps share one.
const COLUMNS_MAX: usize = 120;
const STEPS_WIDTH: usize = 960;
const STEPS_HEIGHT: u64 = 120;

/// `part` of `width`, as `most` is to `whole`; what is there is at least visible.
fn share(part: u64, whole: u64, width: u64) -> u64 {
    let exact = u128::from(part) * u128::from(width) / u128::from(whole.max(1));
    u64::try_from(exact).unwrap_or(width).max(u64::from(part > 0) * 2)
}

/// One bar a count; nothing where all are 0.
pub(super) fn bars(title: &str, bars: &[(&str, u64, &str)]) -> Markup {
    let most = bars.iter().map(|(_, count, _)| *count).max().unwrap_or(0);
    if most == 0 {
        return Markup::default();
    }
    let spoken: Vec<String> =
        bars.iter().map(|(name, count, _)| format!("{name} {}", grouped(*count))).collect();
    html! {
        h3 { (title) }
        svg.bars viewBox={ "0 0 640 " (bars.len() * 24) } role="img" aria-label={ (title) ": " (spoken.join(", ")) } {
            @for (at, (name, count, class)) in bars.iter().enumerate() {
                @let width = share(*count, most, BARS_WIDTH);
                text x="0" y=(at * 24 + 16) { (name) }
                rect.(class) x="110" y=(at * 24 + 3) width=(width) height="16" rx="2" {}
                text x=(width + 118) y=(at * 24 + 16) { (grouped(*count)) }
            }
        }
    }
}

/// Rows per step: the source's behind, the target's before them, marked where they differ.
pub(super) fn steps(title: &str, counts: &[(u64, u64)]) -> Markup {
    if counts.is_empty() {
        return Markup::default();
    }
    let together = counts.len().div_ceil(COLUMNS_MAX);
    let sum = |steps: &[(u64, u64)]| steps.iter().fold((0, 0), |sum, step| (sum.0 + step.0, sum.1 + step.1));
    let columns: Vec<(u64, u64)> = counts.chunks(together).map(sum).collect();
    // Two differences that cancel out in one column still differ.
    let differs: Vec<bool> =
        counts.chunks(together).map(|steps| steps.iter().any(|(source, target)| source != target)).collect();
    let most = columns.iter().map(|(source, target)| *source.max(target)).max().unwrap_or(0);
    let each = STEPS_WIDTH / columns.len();
    let many = counts.iter().filter(|(source, target)| source != target).count();
    let spoken = format!("{title}: {many} of {} steps differ in their number of rows", counts.len());
    html! {
        svg viewBox={ "0 0 " (STEPS_WIDTH) " " (STEPS_HEIGHT + 26) } role="img" aria-label=(spoken) {
            text x="0" y="14" { (title) ": source behind, target before it, at most " (grouped(most)) " rows" }
            @for (at, ((source, target), differs)) in columns.iter().zip(&differs).enumerate() {
                @for (rows, class, inset) in [(*source, "fsoft", 0), (*target, if *differs { "fbad" } else { "fa" }, 1)] {
                    @let tall = share(rows, most, STEPS_HEIGHT);
                    rect.(class) x=(at * each + inset) y=(26 + STEPS_HEIGHT - tall)
                        width=(each.saturating_sub(1 + 2 * inset).max(1)) height=(tall) {}
                }
            }
        }
    }
}

/// Where in the order of keys rows differ: one cell a part of the range, darker where more do.
pub(super) fn heat(parts: &[u64]) -> Markup {
    let most = parts.iter().copied().max().unwrap_or(0);
    if most == 0 || parts.len() < 2 {
        return Markup::default();
    }
    let touched = parts.iter().filter(|count| **count > 0).count();
    let each = STEPS_WIDTH / parts.len().max(1);
    let spoken = format!(
        "Differences over the order of keys, in {} parts with equally many rows of the target: {touched} have some, the most in one is {}",
        parts.len(),
        grouped(most)
    );
    html! {
        h3 { "Where in the order of keys" }
        svg viewBox={ "0 0 " (STEPS_WIDTH) " 62" } role="img" aria-label=(spoken) {
            @for (at, count) in parts.iter().enumerate() {
                rect class={ "h" (heat_level(*count, most)) } x=(at * each) y="2" width=(each.saturating_sub(1).max(1)) height="34" {
                    title { "part " (at + 1) ": " (grouped(*count)) }
                }
            }
            text.soft x="0" y="56" { "first key" }
            text.soft x=(each * parts.len()) y="56" text-anchor="end" { "last key" }
        }
        details {
            summary { "As numbers" }
            ul.plain {
                @for (at, count) in parts.iter().enumerate().filter(|(_, count)| **count > 0) {
                    li { "part " (at + 1) " of " (parts.len()) ": " (grouped(*count)) }
                }
            }
        }
    }
}

/// One mark a result, the oldest first.
pub(super) fn strip(label: &str, marks: &[(&str, &str)]) -> Markup {
    if marks.is_empty() {
        return Markup::default();
    }
    let tone = |word: &str| match word {
        "pass" => ("fgood", 12),
        "within_tolerance" => ("fa", 16),
        "fail" => ("fbad", 28),
        _ => ("fopen", 22),
    };
    html! {
        svg viewBox={ "0 0 " (marks.len() * 9) " 30" } class="strip" role="img" aria-label=(t(label)) {
            @for (at, (at_time, word)) in marks.iter().enumerate() {
                @let (class, tall) = tone(word);
                rect.(class) x=(at * 9) y=(30 - tall) width="7" height=(tall) { title { (t(at_time)) ": " (t(word)) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn steps_that_cancel_out_are_marked() {
        let mut counts = vec![(5, 5); 240];
        counts[10] = (6, 5);
        counts[11] = (5, 6);
        let picture = steps("Before", &counts).into_string();
        assert!(picture.contains("2 of 240 steps differ"));
        assert_eq!(picture.matches("fbad").count(), 1);
    }

    #[test]
    fn heat_is_by_the_most() {
        assert_eq!([0, 1, 3, 10, 40].map(|count| heat_level(count, 40)), [0, 1, 2, 3, 4]);
        assert!(heat(&[0, 0]).into_string().is_empty());
        assert!(heat(&[0, 7]).into_string().contains("1 have some, the most in one is 7"));
    }

    proptest! {
        #[test]
        fn nothing_leaves_the_picture(counts in prop::collection::vec((any::<u64>(), 0..9u64), 1..300), part in any::<u64>(), whole in any::<u64>()) {
            let counts: Vec<(u64, u64)> = counts.into_iter().map(|(a, b)| (a >> 16, b)).collect();
            let picture = steps("x", &counts).into_string();
            prop_assert_eq!(picture.matches("<rect").count(), 2 * counts.len().div_ceil(counts.len().div_ceil(COLUMNS_MAX)));
            prop_assert!(share(part.min(whole), whole, 400) <= 400);
            prop_assert_eq!(share(part, whole, 400) == 0, part == 0);
        }
    }
}
