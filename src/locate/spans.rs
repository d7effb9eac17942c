//! The positions of own entries without a match, as ranges.

use std::ops::Range;

/// What the other side has where own entries have no match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Faces {
    Nothing,
    /// Hardly any rows for so many.
    Few,
    Many,
}

/// A stretch of own entries without a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) rows: Range<u64>,
    pub(super) faces: Faces,
}

/// Ranges as they are found, level by level; put in order at the end.
#[derive(Debug, Default)]
pub(super) struct Spans {
    spans: Vec<Span>,
    rows: u64,
}

impl Spans {
    pub(super) fn add(&mut self, rows: Range<u64>, faces: Faces) {
        if rows.start >= rows.end {
            return;
        }
        self.rows += rows.end - rows.start;
        match self.spans.last_mut() {
            Some(last) if last.rows.end == rows.start && last.faces == faces => last.rows.end = rows.end,
            _ => self.spans.push(Span { rows, faces }),
        }
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn take(&mut self) -> Vec<Span> {
        self.in_order();
        self.rows = 0;
        std::mem::take(&mut self.spans)
    }

    pub(super) fn in_order(&mut self) -> &[Span] {
        self.spans.sort_unstable_by_key(|span| span.rows.start);
        self.spans.dedup_by(|next, last| {
            let joined = last.rows.end == next.rows.start && last.faces == next.faces;
            if joined {
                last.rows.end = next.rows.end;
            }
            joined
        });
        &self.spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_join_whatever_the_order_they_are_found_in() {
        let mut spans = Spans::default();
        spans.add(10..20, Faces::Nothing);
        spans.add(30..30, Faces::Nothing);
        spans.add(20..25, Faces::Nothing);
        spans.add(0..10, Faces::Nothing);
        spans.add(25..26, Faces::Many);
        let expected =
            [Span { rows: 0..25, faces: Faces::Nothing }, Span { rows: 25..26, faces: Faces::Many }];
        assert_eq!(spans.in_order(), expected);
        assert_eq!(spans.rows(), 26);
        assert_eq!(spans.take(), expected);
        assert!(spans.take().is_empty() && spans.rows() == 0);
    }
}
