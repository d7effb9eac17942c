//! A sorted stretch of entries in memory or in a scratch file: digests at fixed width, keys front-coded, by blocks.
//!
//! ```text
//! block = 64 × 16-byte digest, then 64 × (varint shared, varint rest, rest bytes); offsets of all blocks stay in memory
//! ```

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::coding::{common_prefix, get_varint, index, put_varint};
use super::digest::RowDigest;
use super::error::RunError;
use crate::model::Key;

const BLOCK: u64 = 64;
const DIGEST: usize = 16;
const WRITE_BYTES: usize = 256 * 1024;
const READ_BYTES: usize = 64 * 1024;

/// The front of it may be in memory, and the rest, if there is any, in a file.
struct Store {
    held: Vec<u8>,
    file: Option<Scratch>,
}

struct Scratch {
    file: File,
    dir: PathBuf,
}

/// Where a segment is written: in memory, or in an unlinked file, which no crash leaves behind.
pub(super) enum Place<'a> {
    Memory,
    Scratch(&'a Path),
}

pub(super) struct Segment {
    store: Store,
    /// Offset of each block, and the end of the last.
    offsets: Vec<u64>,
    len: u64,
    first: Vec<u8>,
    last: Vec<u8>,
}

pub(super) struct SegmentWriter {
    store: Store,
    buffer: Vec<u8>,
    written: u64,
    offsets: Vec<u64>,
    digests: Vec<u8>,
    keys: Vec<u8>,
    len: u64,
    first: Vec<u8>,
    last: Vec<u8>,
}

fn file_in(dir: &Path) -> Result<Scratch, RunError> {
    let path = dir.to_path_buf();
    match tempfile::tempfile_in(dir) {
        Ok(file) => Ok(Scratch { file, dir: path }),
        Err(source) => Err(RunError::Scratch { action: "create", path, source }),
    }
}

impl SegmentWriter {
    pub(super) fn new(place: &Place<'_>) -> Result<Self, RunError> {
        Ok(match place {
            Place::Memory => Self::in_memory(),
            Place::Scratch(dir) => {
                let store = Store { held: Vec::new(), file: Some(file_in(dir)?) };
                Self { store, ..Self::in_memory() }
            }
        })
    }

    pub(super) fn in_memory() -> Self {
        Self {
            store: Store { held: Vec::new(), file: None },
            buffer: Vec::new(),
            written: 0,
            offsets: Vec::new(),
            digests: Vec::with_capacity(DIGEST * index(BLOCK)),
            keys: Vec::new(),
            len: 0,
            first: Vec::new(),
            last: Vec::new(),
        }
    }

    /// Appends an entry; its key must be greater than the last one.
    pub(super) fn push(&mut self, key: &[u8], digest: RowDigest) -> Result<(), RunError> {
        if self.push_next(key, digest)? {
            Ok(())
        } else {
            Err(RunError::Misuse("entries are not in key order"))
        }
    }

    /// As `push`; `false`, and nothing appended, where the key is less than the last one.
    #[inline]
    pub(super) fn push_next(&mut self, key: &[u8], digest: RowDigest) -> Result<bool, RunError> {
        let mut shared = 0;
        if self.len == 0 {
            self.first = key.to_vec();
        } else {
            shared = common_prefix(key, &self.last);
            match (key.get(shared), self.last.get(shared)) {
                (None, None) => return Err(RunError::DuplicateKey { key: Key::from(key) }),
                (None, Some(_)) => return Ok(false),
                (Some(new), Some(old)) if new < old => return Ok(false),
                _ => {}
            }
        }
        if self.len.is_multiple_of(BLOCK) {
            self.end_block()?;
            shared = 0;
        }
        let rest = key.get(shared..).unwrap_or_default();
        self.last.truncate(shared);
        if let (Ok(front @ 0..0x80), Ok(few @ 0..=8)) = (u8::try_from(shared), u8::try_from(rest.len())) {
            // As below, by copies of a length that is known.
            let word = rest.iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte)).to_le_bytes();
            let end = self.keys.len() + 2 + rest.len();
            self.keys.extend_from_slice(&[front, few]);
            self.keys.extend_from_slice(&word);
            self.keys.truncate(end);
            self.last.extend_from_slice(&word);
            self.last.truncate(key.len());
        } else {
            put_varint(&mut self.keys, shared as u64);
            put_varint(&mut self.keys, rest.len() as u64);
            self.keys.extend_from_slice(rest);
            self.last.extend_from_slice(rest);
        }
        self.digests.extend_from_slice(&digest.0);
        self.len += 1;
        Ok(true)
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes held in memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.store.held.len() + self.buffer.len()
    }

    /// What is in memory stays there, and what comes goes to a file of this folder.
    pub(super) fn go_on_in(&mut self, dir: &Path) -> Result<(), RunError> {
        if self.store.file.is_none() {
            self.store.held.shrink_to_fit();
            self.store.file = Some(file_in(dir)?);
        }
        Ok(())
    }

    /// The key that was pushed last.
    pub(super) fn last(&self) -> &[u8] {
        &self.last
    }

    fn end_block(&mut self) -> Result<(), RunError> {
        if self.digests.is_empty() {
            return Ok(());
        }
        self.offsets.push(self.written);
        self.written += (self.digests.len() + self.keys.len()) as u64;
        let to = if self.store.file.is_some() { &mut self.buffer } else { &mut self.store.held };
        to.extend_from_slice(&self.digests);
        to.extend_from_slice(&self.keys);
        if self.buffer.len() >= WRITE_BYTES {
            self.flush()?;
        }
        self.digests.clear();
        self.keys.clear();
        Ok(())
    }

    fn flush(&mut self) -> Result<(), RunError> {
        if let Some(Scratch { file, dir }) = &mut self.store.file {
            file.write_all(&self.buffer).map_err(|source| RunError::Scratch {
                action: "write to",
                path: dir.clone(),
                source,
            })?;
        }
        self.buffer.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Segment, RunError> {
        self.end_block()?;
        self.flush()?;
        self.offsets.push(self.written);
        self.store.held.shrink_to_fit();
        Ok(Segment {
            store: self.store,
            offsets: self.offsets,
            len: self.len,
            first: self.first,
            last: self.last,
        })
    }
}

impl Segment {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn first(&self) -> &[u8] {
        &self.first
    }

    pub(super) fn last(&self) -> &[u8] {
        &self.last
    }

    pub(super) fn on_disk(&self) -> bool {
        self.store.file.is_some()
    }

    pub(super) fn blocks(&self) -> u64 {
        self.len.div_ceil(BLOCK)
    }

    /// The entries of one block.
    pub(super) fn block_entries(&self, block: u64) -> Range<u64> {
        block * BLOCK..self.len.min((block + 1) * BLOCK)
    }

    fn damaged(&self) -> RunError {
        let path = self.store.file.as_ref().map_or_else(|| PathBuf::from("memory"), |file| file.dir.clone());
        RunError::Damaged { path }
    }

    /// Bytes at an offset: borrowed from memory, or read from the file.
    fn bytes(&self, offset: u64, len: usize) -> Result<Cow<'_, [u8]>, RunError> {
        if let Some(held) = self.held(offset, len) {
            return Ok(Cow::Borrowed(held));
        }
        let mut buffer = Vec::new();
        self.bytes_by(&mut buffer, offset, len)?;
        Ok(Cow::Owned(buffer))
    }

    /// The same: what has to be read is read into this buffer.
    fn bytes_by<'b>(
        &'b self,
        buffer: &'b mut Vec<u8>,
        offset: u64,
        len: usize,
    ) -> Result<&'b [u8], RunError> {
        if let Some(held) = self.held(offset, len) {
            return Ok(held);
        }
        let Some(Scratch { file, dir }) = &self.store.file else { return Err(self.damaged()) };
        // The end of what is held, if it begins there, and the rest from the file.
        let held = self.store.held.get(index(offset)..).unwrap_or_default();
        buffer.resize(len, 0);
        let (front, rest) = buffer.split_at_mut(held.len());
        front.copy_from_slice(held);
        let at = (offset + held.len() as u64).saturating_sub(self.store.held.len() as u64);
        read_exact_at(file, rest, at).map_err(|source| RunError::Scratch {
            action: "read",
            path: dir.clone(),
            source,
        })?;
        Ok(buffer)
    }

    fn held(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let start = index(offset);
        self.store.held.get(start..start.saturating_add(len))
    }

    fn offset(&self, block: u64) -> Result<u64, RunError> {
        self.offsets.get(index(block)).copied().ok_or_else(|| self.damaged())
    }

    pub(super) fn digests(&self, range: Range<u64>, out: &mut Vec<RowDigest>) -> Result<(), RunError> {
        if range.end > self.len {
            return Err(RunError::Misuse("entries beyond the end of the run"));
        }
        let (mut at, mut buffer) = (range.start, Vec::new());
        while at < range.end {
            // As many blocks as one read may take: the keys between the digests are fewer bytes than reads cost.
            let first = at / BLOCK;
            let base = self.offset(first)?;
            let mut until = first + 1;
            while until * BLOCK < range.end && self.offset(until + 1)? - base <= READ_BYTES as u64 {
                until += 1;
            }
            let bytes = self.bytes_by(&mut buffer, base, index(self.offset(until)? - base))?;
            for block in first..until {
                let entries = self.block_entries(block);
                let end = range.end.min(entries.end);
                let start = index(self.offset(block)? - base) + index(at - entries.start) * DIGEST;
                let digests =
                    bytes.get(start..start + index(end - at) * DIGEST).ok_or_else(|| self.damaged())?;
                out.extend(digests.as_chunks::<DIGEST>().0.iter().map(|digest| RowDigest(*digest)));
                at = end;
            }
        }
        Ok(())
    }

    pub(super) fn key_at(&self, at: u64) -> Result<Vec<u8>, RunError> {
        let mut cursor = self.cursor(at..at.saturating_add(1), 1)?;
        cursor.advance()?;
        Ok(cursor.key)
    }

    fn first_key_of(&self, block: u64) -> Result<Vec<u8>, RunError> {
        self.key_at(block * BLOCK)
    }

    /// Position of the first entry at or after `from` whose key is not less than `key`: gallops from `from` on.
    pub(super) fn lower_bound(&self, key: &[u8], from: u64) -> Result<u64, RunError> {
        if from >= self.len || self.last.as_slice() < key {
            return Ok(self.len.max(from));
        }
        // Invariant: the first key of block `low` is not greater than the wanted place, that of `high` is.
        let mut low = from / BLOCK;
        let mut step = 1;
        let mut high = low + 1;
        while high < self.blocks() && self.first_key_of(high)?.as_slice() < key {
            low = high;
            step *= 2;
            high = low + step;
        }
        high = high.min(self.blocks());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.first_key_of(middle)?.as_slice() < key {
                low = middle;
            } else {
                high = middle;
            }
        }
        let entries = self.block_entries(low);
        let mut cursor = self.cursor(entries.clone(), 1)?;
        let mut at = entries.start;
        while cursor.advance()? && cursor.key() < key {
            at += 1;
        }
        Ok(at.max(from))
    }

    /// Position behind the last entry whose key is not greater than `key`.
    pub(super) fn upper_bound(&self, key: &[u8]) -> Result<u64, RunError> {
        let at = self.lower_bound(key, 0)?;
        if at < self.len {
            let mut cursor = self.cursor(at..at + 1, 1)?;
            if cursor.advance()? && cursor.key() == key {
                return Ok(at + 1);
            }
        }
        Ok(at)
    }

    pub(super) fn entries(&self, range: Range<u64>) -> Result<Cursor<'_>, RunError> {
        self.cursor(range, READ_BYTES)
    }

    /// A cursor that reads about `read_bytes` of the file at a time (at least one block).
    pub(super) fn cursor(&self, range: Range<u64>, read_bytes: usize) -> Result<Cursor<'_>, RunError> {
        if range.end > self.len {
            return Err(RunError::Misuse("entries beyond the end of the run"));
        }
        let start = range.start - range.start % BLOCK;
        let mut cursor = Cursor {
            segment: self,
            next: start,
            end: range.end,
            read_bytes,
            buffer: Cow::Borrowed(&[]),
            base: 0,
            loaded: start / BLOCK,
            digest_at: 0,
            key_at: 0,
            key: Vec::new(),
            digest: RowDigest([0; 16]),
        };
        while cursor.next < range.start && cursor.advance()? {}
        Ok(cursor)
    }
}

#[cfg(unix)]
pub(super) fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
pub(super) fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                buffer = &mut buffer[read..];
                offset += read as u64;
            }
        }
    }
    Ok(())
}

/// Walks over entries in key order.
pub(super) struct Cursor<'a> {
    segment: &'a Segment,
    next: u64,
    end: u64,
    read_bytes: usize,
    buffer: Cow<'a, [u8]>,
    /// Offset of the buffer in the store, and the first block that is not in it.
    base: u64,
    loaded: u64,
    digest_at: usize,
    key_at: usize,
    key: Vec<u8>,
    digest: RowDigest,
}

impl Cursor<'_> {
    /// Steps to the next entry; `false` at the end.
    pub(super) fn advance(&mut self) -> Result<bool, RunError> {
        if self.next >= self.end {
            return Ok(false);
        }
        if self.next.is_multiple_of(BLOCK) {
            self.enter_block(self.next / BLOCK)?;
        }
        self.decode().ok_or_else(|| self.segment.damaged())?;
        self.next += 1;
        Ok(true)
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(super) fn digest(&self) -> RowDigest {
        self.digest
    }

    /// Where the entry lies that it stands at.
    pub(super) fn position(&self) -> u64 {
        self.next - 1
    }

    fn enter_block(&mut self, block: u64) -> Result<(), RunError> {
        if block >= self.loaded {
            self.base = self.segment.offset(block)?;
            let last = (self.end - 1) / BLOCK;
            let mut until = block + 1;
            while until <= last && self.segment.offset(until + 1)? - self.base <= self.read_bytes as u64 {
                until += 1;
            }
            let len = index(self.segment.offset(until)? - self.base);
            self.buffer = self.segment.bytes(self.base, len)?;
            self.loaded = until;
        }
        let entries = self.segment.block_entries(block);
        self.digest_at = index(self.segment.offset(block)? - self.base);
        self.key_at = self.digest_at + index(entries.end - entries.start) * DIGEST;
        Ok(())
    }

    fn decode(&mut self) -> Option<()> {
        let digest = self.buffer.get(self.digest_at..)?.first_chunk::<DIGEST>()?;
        self.digest = RowDigest(*digest);
        self.digest_at += DIGEST;
        let shared = index(get_varint(&self.buffer, &mut self.key_at)?);
        let rest = index(get_varint(&self.buffer, &mut self.key_at)?);
        let bytes = self.buffer.get(self.key_at..self.key_at.checked_add(rest)?)?;
        if shared > self.key.len() {
            return None;
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(bytes);
        self.key_at += rest;
        Some(())
    }
}
