//! Rows as COPY sends them in its binary form, many at a time: in the frames of a lane, or one behind the other.

use std::sync::Arc;

use super::decode::Decoder;
use super::lane;
use crate::engine::inflow::Frames;
use crate::engine::{EachRow, RawBatch, RowError};
use crate::model::RowBuffer;

const BATCH_ROWS: usize = 4096;
const BATCH_BYTES: usize = 256 * 1024;
/// The end of a COPY's data is a row of -1 fields.
pub(super) const END_OF_COPY: [u8; 2] = [0xff, 0xff];

/// COPY's binary header: a signature of eleven bytes, flags, and an extension behind its length.
pub(super) fn strip_header(bytes: &[u8]) -> Option<&[u8]> {
    let rest = bytes.strip_prefix(b"PGCOPY\n\xff\r\n\0")?;
    let (_flags, rest) = rest.split_at_checked(4)?;
    let (extension, rest) = rest.split_first_chunk::<4>()?;
    rest.get(usize::try_from(u32::from_be_bytes(*extension)).ok()?..)
}

/// Rows in COPY's binary form, each in its frame.
pub(super) struct Piece {
    pub(super) decoder: Arc<Decoder>,
    pub(super) frames: Frames,
    pub(super) rows: usize,
    /// The first of its COPY, which the header comes before.
    pub(super) first: bool,
}

impl RawBatch for Piece {
    fn rows(&self) -> usize {
        self.rows
    }

    fn encode(&self, each: EachRow<'_>) -> Result<(), RowError> {
        let malformed =
            || RowError::Malformed { column: "of no name".to_owned(), what: "not a COPY row".to_owned() };
        let mut buffer = RowBuffer::default();
        let (mut rest, mut first) = (self.frames.bytes(), self.first);
        while let Some((_, mut row, behind)) = lane::split_frame(rest) {
            rest = behind;
            if std::mem::take(&mut first) {
                row = strip_header(row).ok_or_else(malformed)?;
            }
            if row.is_empty() || row == END_OF_COPY {
                continue;
            }
            self.decoder.row(&mut row, &mut buffer)?;
            if !row.is_empty() {
                return Err(malformed());
            }
            each(&buffer.key, &buffer.row);
        }
        if rest.is_empty() { Ok(()) } else { Err(malformed()) }
    }
}

/// Rows in COPY's binary form, one behind the other.
pub(super) struct PgBatch {
    decoder: Arc<Decoder>,
    bytes: Vec<u8>,
    rows: usize,
}

impl PgBatch {
    pub(super) fn new(decoder: &Arc<Decoder>) -> Self {
        Self { decoder: decoder.clone(), bytes: Vec::new(), rows: 0 }
    }

    /// Takes one row; `false` once the batch is full.
    #[inline]
    pub(super) fn push(&mut self, row: &[u8]) -> bool {
        // The end is a row of -1 fields; the header may come without a row behind it.
        if row.is_empty() || row == END_OF_COPY {
            return true;
        }
        if self.rows == 0 {
            self.bytes.reserve(BATCH_BYTES + BATCH_BYTES / 8);
        }
        self.bytes.extend_from_slice(row);
        self.rows += 1;
        self.rows < BATCH_ROWS && self.bytes.len() < BATCH_BYTES
    }
}

impl RawBatch for PgBatch {
    fn rows(&self) -> usize {
        self.rows
    }

    fn encode(&self, each: EachRow<'_>) -> Result<(), RowError> {
        let mut buffer = RowBuffer::default();
        let mut input = self.bytes.as_slice();
        while !input.is_empty() {
            self.decoder.row(&mut input, &mut buffer)?;
            each(&buffer.key, &buffer.row);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_taken_off() {
        let header = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\x02xxrest";
        assert_eq!(strip_header(header), Some(&b"rest"[..]));
        assert_eq!(strip_header(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\x02x"), None);
        assert_eq!(strip_header(b"nonsense"), None);
    }
}
