//! Much that faces little. Where a few rows of the target lie in a long stretch of the source's, the source asks for their names
//! before it tells its findings, and tells the stretch by its bounds between them, and not row by row.

use std::ops::Range;

use super::error::{LocateError, unexpected};
use super::locator::{Locator, MESSAGE_BYTES, Phase};
use super::message::Message;
use super::spans::{Faces, Span};
use super::tell::{BULK_ROWS, Telling};
use crate::merkle::{EntryBatch, RunView};

/// A stretch faces few rows where it has so many times as many: a name costs about as much as two rows told.
const TIMES: u64 = 16;
/// More are not named at once.
const NAMED_MAX: u64 = 512;

/// What a stretch faces where so many rows of the peer were set against it.
pub(super) fn faces(peers: usize, rows: &Range<u64>) -> Faces {
    let len = rows.end - rows.start;
    match peers as u64 {
        0 => Faces::Nothing,
        peers if len >= BULK_ROWS && len / TIMES >= peers => Faces::Few,
        _ => Faces::Many,
    }
}

impl<V: RunView> Locator<V> {
    /// Source: everything is located.
    pub(super) fn located(&mut self) {
        let spans = self.unmatched.take();
        self.phase = if self.bulk && spans.iter().any(|span| span.faces == Faces::Few) {
            self.outbox.push_back(Message::Name);
            Phase::Naming(spans)
        } else {
            Phase::Telling(Telling { spans: spans.into() })
        };
    }

    /// Target: names its entries without a match, unless they are too many: then none. Also those that face nothing: what was
    /// set against what went by tags, which are hints.
    pub(super) fn receive_name(&mut self) -> Result<(), LocateError> {
        let located =
            matches!(self.phase, Phase::Locating) && self.asked.is_empty() && self.outbox.is_empty();
        if !located || !self.bulk || self.named {
            return Err(unexpected("name", "not at this point of the conversation").into());
        }
        self.named = true;
        let mut names = EntryBatch::new();
        let mut fit = self.unmatched.rows() <= NAMED_MAX;
        for span in self.unmatched.in_order().iter().filter(|_| fit) {
            self.own.view.for_each_entry(span.rows.clone(), &mut |key, digest| {
                names.push(key, digest);
                Ok(())
            })?;
        }
        fit &= names.key_bytes() + names.len() * 16 <= MESSAGE_BYTES;
        self.outbox.push_back(Message::Named(if fit { names } else { EntryBatch::new() }));
        Ok(())
    }

    /// Source: the names it has asked for.
    pub(super) fn receive_named(&mut self, names: &EntryBatch) -> Result<(), LocateError> {
        let Phase::Naming(spans) = &mut self.phase else {
            return Err(unexpected("named", "not at this point of the conversation").into());
        };
        let spans = std::mem::take(spans);
        if (1..names.len()).any(|at| names.key(at - 1) >= names.key(at)) {
            return Err(unexpected("named", "keys are not in order").into());
        }
        let mut places = Vec::with_capacity(names.len());
        let mut from = 0;
        for (key, _) in names.iter() {
            from = self.own.view.lower_bound(key, from)?;
            let is_there = from < self.own.len() && self.own.key_at(from)?.as_bytes() == key;
            places.push((from, is_there));
        }
        self.phase = Phase::Telling(Telling { spans: split(spans, &places).into() });
        Ok(())
    }
}

/// Cuts the stretches that face few rows or none where rows lie: each is before an own entry, or is there as one.
fn split(spans: Vec<Span>, places: &[(u64, bool)]) -> Vec<Span> {
    let mut cut = Vec::with_capacity(spans.len());
    for span in spans {
        if span.faces == Faces::Many || places.is_empty() {
            cut.push(span);
            continue;
        }
        let mut rows = span.rows;
        let first = places.partition_point(|(at, _)| *at < rows.start);
        for (at, is_there) in places.iter().skip(first).take_while(|(at, _)| *at < rows.end) {
            cut.push(Span { rows: rows.start..*at, faces: Faces::Nothing });
            rows.start = *at;
            if *is_there {
                cut.push(Span { rows: *at..*at + 1, faces: Faces::Many });
                rows.start += 1;
            }
        }
        cut.push(Span { rows, faces: Faces::Nothing });
    }
    cut.retain(|span| !span.rows.is_empty());
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_is_cut_where_the_few_rows_lie() {
        let span = |rows, faces| Span { rows, faces };
        let spans = || {
            vec![
                span(0..10, Faces::Nothing),
                span(20..2_020, Faces::Few),
                span(2_020..2_030, Faces::Many),
                span(3_000..5_000, Faces::Few),
            ]
        };
        let places = [(5, false), (20, true), (21, false), (500, false), (500, true), (2_025, true)];
        assert_eq!(
            split(spans(), &places),
            [
                span(0..5, Faces::Nothing),
                span(5..10, Faces::Nothing),
                span(20..21, Faces::Many),
                span(21..500, Faces::Nothing),
                span(500..501, Faces::Many),
                span(501..2_020, Faces::Nothing),
                span(2_020..2_030, Faces::Many),
                span(3_000..5_000, Faces::Nothing),
            ]
        );
        assert_eq!(split(spans(), &[]), spans());
        assert_eq!(faces(0, &(0..5)), Faces::Nothing);
        assert_eq!(faces(1, &(0..BULK_ROWS)), Faces::Few);
        assert_eq!(faces(100, &(0..BULK_ROWS)), Faces::Many);
        assert_eq!(faces(1, &(0..30)), Faces::Many);
    }
}
