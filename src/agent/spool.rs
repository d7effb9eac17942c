//! Suspects waiting to be read again: in memory while they are few, on disk when they are many.

use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use tempfile::SpooledTempFile;

use super::error::{AgentError, FailureKind};
use crate::merkle::RowDigest;
use crate::model::Key;

/// Which digests are there.
const SOURCE: u8 = 1;
const TARGET: u8 = 2;
const ORIGIN: u8 = 4;
const SPOOL_MEMORY_BYTES: usize = 8 << 20;

/// A row that differed at first sight, with what each side held when it was last looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Suspect {
    pub(super) key: Key,
    pub(super) source: Option<RowDigest>,
    pub(super) target: Option<RowDigest>,
    /// What the source held in its snapshot: the source's root speaks of this.
    pub(super) origin: Option<RowDigest>,
}

/// Written once from front to back, then read once from front to back.
pub(super) struct Spool {
    file: BufWriter<SpooledTempFile>,
    len: u64,
}

pub(super) struct SpoolReader {
    file: BufReader<SpooledTempFile>,
    left: u64,
}

fn scratch_error(error: &std::io::Error) -> AgentError {
    AgentError::new(FailureKind::Resource, format!("cannot keep suspects in scratch space: {error}"))
        .with_hint("free space there, or name another folder with --scratch")
}

impl Spool {
    pub(super) fn new(scratch: Option<&Path>) -> Self {
        let file = match scratch {
            Some(dir) => tempfile::spooled_tempfile_in(SPOOL_MEMORY_BYTES, dir),
            None => tempfile::spooled_tempfile(SPOOL_MEMORY_BYTES),
        };
        Self { file: BufWriter::new(file), len: 0 }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn push(&mut self, suspect: &Suspect) -> Result<(), AgentError> {
        let flag = |digest: &Option<RowDigest>, flag| if digest.is_some() { flag } else { 0 };
        let flags =
            flag(&suspect.source, SOURCE) | flag(&suspect.target, TARGET) | flag(&suspect.origin, ORIGIN);
        let digests = [&suspect.source, &suspect.target, &suspect.origin];
        self.put(flags, suspect.key.as_bytes(), digests.into_iter().flatten())
    }

    /// A row that the source has, as it was scanned, and the target has not.
    pub(super) fn push_missing(&mut self, key: &[u8], digest: &RowDigest) -> Result<(), AgentError> {
        self.put(SOURCE | ORIGIN, key, [digest, digest].into_iter())
    }

    fn put<'d>(
        &mut self,
        flags: u8,
        key: &[u8],
        digests: impl Iterator<Item = &'d RowDigest>,
    ) -> Result<(), AgentError> {
        let write = || {
            self.file.write_all(&[flags])?;
            self.file.write_all(&(key.len() as u64).to_be_bytes())?;
            self.file.write_all(key)?;
            for digest in digests {
                self.file.write_all(digest.as_bytes())?;
            }
            Ok(())
        };
        write().map_err(|error| scratch_error(&error))?;
        self.len += 1;
        Ok(())
    }

    pub(super) fn read(self) -> Result<SpoolReader, AgentError> {
        let open = || {
            let mut file = self.file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.seek(SeekFrom::Start(0))?;
            Ok(BufReader::new(file))
        };
        Ok(SpoolReader { file: open().map_err(|error| scratch_error(&error))?, left: self.len })
    }
}

impl SpoolReader {
    /// At most `count` of the next suspects; empty at the end.
    pub(super) fn next_chunk(&mut self, count: usize) -> Result<Vec<Suspect>, AgentError> {
        let mut chunk = Vec::new();
        while self.left > 0 && chunk.len() < count {
            chunk.push(self.next().map_err(|error| scratch_error(&error))?);
            self.left -= 1;
        }
        Ok(chunk)
    }

    fn next(&mut self) -> std::io::Result<Suspect> {
        let mut flags = [0];
        self.file.read_exact(&mut flags)?;
        let mut length = [0; 8];
        self.file.read_exact(&mut length)?;
        let length = usize::try_from(u64::from_be_bytes(length)).map_err(std::io::Error::other)?;
        let mut key = vec![0; length];
        self.file.read_exact(&mut key)?;
        let mut digest = |present: bool| -> std::io::Result<Option<RowDigest>> {
            if !present {
                return Ok(None);
            }
            let mut bytes = [0; 16];
            self.file.read_exact(&mut bytes)?;
            Ok(Some(RowDigest(bytes)))
        };
        Ok(Suspect {
            source: digest(flags[0] & SOURCE != 0)?,
            target: digest(flags[0] & TARGET != 0)?,
            origin: digest(flags[0] & ORIGIN != 0)?,
            key: Key::new(key),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_went_in_also_from_disk() {
        let mut spool = Spool::new(None);
        let digest = |n: u8| Some(RowDigest([n; 16]));
        let all: Vec<Suspect> = (0..60_000u32)
            .map(|n| Suspect {
                key: Key::new(vec![1; n as usize % 300]),
                source: digest(1).filter(|_| n % 3 != 0),
                target: digest(2).filter(|_| n % 3 != 1),
                origin: digest(3).filter(|_| n % 5 != 1),
            })
            .collect();
        for suspect in &all {
            spool.push(suspect).unwrap();
        }
        let mut reader = spool.read().unwrap();
        let mut back = Vec::new();
        loop {
            let chunk = reader.next_chunk(997).unwrap();
            if chunk.is_empty() {
                break;
            }
            back.extend(chunk);
        }
        assert!(back == all);
    }
}
