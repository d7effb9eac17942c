//! The positions of own entries without a match, as ranges.

use std::ops::Range;

/// A stretch of own entries without a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) rows: Range<u64>,
    /// The other side has no rows there.
    pub(super) alone: bool,
}

/// Ranges as they are found, level by level; put in order at the end.
#[derive(Debug, Default)]
pub(super) struct Spans {
    spans: Vec<Span>,
    rows: u64,
}

impl Spans {
    pub(super) fn add(&mut self, rows: Range<u64>, alone: bool) {
        if rows.start >= rows.end {
            return;
        }
        self.rows += rows.end - rows.start;
        match self.spans.last_mut() {
            Some(last) if last.rows.end == rows.start && last.alone == alone => last.rows.end = rows.end,
            _ => self.spans.push(Span { rows, alone }),
        }
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn take(&mut self) -> Vec<Span> {
        self.rows = 0;
        let mut spans = std::mem::take(&mut self.spans);
        spans.sort_unstable_by_key(|span| span.rows.start);
        spans.dedup_by(|next, last| {
            let joined = last.rows.end == next.rows.start && last.alone == next.alone;
            if joined {
                last.rows.end = next.rows.end;
            }
            joined
        });
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_join_whatever_the_order_they_are_found_in() {
        let mut spans = Spans::default();
        spans.add(10..20, true);
        spans.add(30..30, true);
        spans.add(20..25, true);
        spans.add(0..10, true);
        spans.add(25..26, false);
        assert_eq!(spans.rows(), 26);
        assert_eq!(spans.take(), [Span { rows: 0..25, alone: true }, Span { rows: 25..26, alone: false }]);
    }
}
