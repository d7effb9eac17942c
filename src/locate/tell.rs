//! The source's last part: it tells the entries without a match, in key order, a chunk at a time.

use std::collections::VecDeque;

use super::error::LocateError;
use super::locator::{Locator, MESSAGE_BYTES, Phase};
use super::message::{End, Message, MissingRun};
use super::spans::{Faces, Span};
use crate::merkle::{EntryBatch, RunView};

/// Shorter stretches that face no row are listed all the same.
pub(super) const BULK_ROWS: u64 = 1024;
/// Entries that are read together at the most, and the bytes that each is thought to take.
const READ_ENTRIES: usize = 1_024;
const ENTRY_BYTES: usize = 24;

/// What is left to be told.
pub(super) struct Telling {
    pub(super) spans: VecDeque<Span>,
}

impl<V: RunView> Locator<V> {
    /// Source: the next of its findings, or the end.
    pub(super) fn tell(&mut self) -> Result<Message, LocateError> {
        let Phase::Telling(telling) = &mut self.phase else {
            return Err(LocateError::Misuse("nothing to tell"));
        };
        let is_run = |span: &Span| {
            self.bulk && span.faces == Faces::Nothing && span.rows.end - span.rows.start >= BULK_ROWS
        };
        let mut chunk = EntryBatch::new();
        while let Some(span) = telling.spans.front_mut() {
            if is_run(span) {
                if !chunk.is_empty() {
                    break;
                }
                let rows = span.rows.clone();
                telling.spans.pop_front();
                let run_id = u32::try_from(self.runs.len())
                    .map_err(|_| LocateError::Misuse("more runs than four thousand million"))?;
                let first = self.own.key_at(rows.start)?;
                let last = self.own.key_at(rows.end - 1)?;
                self.runs.push(rows.clone());
                return Ok(Message::MissingRun(MissingRun {
                    run_id,
                    count: rows.end - rows.start,
                    first,
                    last,
                }));
            }
            // About as many as there is room for: what is read and does not fit is read again.
            let room = MESSAGE_BYTES.saturating_sub(chunk.key_bytes() + chunk.len() * 16) / ENTRY_BYTES;
            let end = span.rows.end.min(span.rows.start + room.clamp(16, READ_ENTRIES) as u64);
            let mut taken = 0;
            self.own.view.for_each_entry(span.rows.start..end, &mut |key, digest| {
                if chunk.key_bytes() + chunk.len() * 16 < MESSAGE_BYTES {
                    chunk.push(key, digest);
                    taken += 1;
                }
                Ok(())
            })?;
            span.rows.start += taken;
            if span.rows.is_empty() {
                telling.spans.pop_front();
            }
            if taken == 0 {
                break;
            }
        }
        if chunk.is_empty() {
            return Ok(Message::End(End { root: self.own.tree.root(), count: self.own.len() }));
        }
        Ok(Message::Findings(chunk))
    }
}
