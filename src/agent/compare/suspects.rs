//! Suspects waiting to be read again: in memory while they are few, on disk when they are many.

use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use tempfile::SpooledTempFile;

use crate::agent::error::{AgentError, FailureKind};
use crate::merkle::RowDigest;
use crate::model::Key;

/// Which digests are there.
const SOURCE: u8 = 1;
const TARGET: u8 = 2;
const ORIGIN: u8 = 4;
const TARGET_HAD: u8 = 8;
const NAMED: u8 = 16;
const SPOOL_MEMORY_BYTES: usize = 8 << 20;

/// A row that differed at first sight, with what each side held when it was last looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Suspect {
    pub(crate) key: Key,
    pub(crate) source: Option<RowDigest>,
    pub(crate) target: Option<RowDigest>,
    /// What the source held in its snapshot: the source's root speaks of this.
    pub(crate) origin: Option<RowDigest>,
    /// Whether the target held the row in its snapshot.
    pub(crate) target_had: bool,
    /// It was told as a difference.
    pub(crate) named: bool,
}

impl Suspect {
    /// Of a key that neither side is known to have.
    pub(crate) fn of(key: Key) -> Self {
        Self { key, source: None, target: None, origin: None, target_had: false, named: false }
    }
}

/// Written once from front to back, then read once from front to back.
pub(crate) struct Spool {
    file: BufWriter<SpooledTempFile>,
    len: u64,
}

pub(crate) struct SpoolReader {
    file: BufReader<SpooledTempFile>,
    left: u64,
}

fn scratch_error(error: &std::io::Error) -> AgentError {
    AgentError::new(FailureKind::Resource, format!("cannot keep suspects in scratch space: {error}"))
        .with_hint("free space there, or name another folder with --scratch")
}

impl Spool {
    pub(crate) fn new(scratch: Option<&Path>) -> Self {
        let file = match scratch {
            Some(dir) => tempfile::spooled_tempfile_in(SPOOL_MEMORY_BYTES, dir),
            None => tempfile::spooled_tempfile(SPOOL_MEMORY_BYTES),
        };
        Self { file: BufWriter::new(file), len: 0 }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn push(&mut self, suspect: &Suspect) -> Result<(), AgentError> {
        let flag = |digest: &Option<RowDigest>, flag| if digest.is_some() { flag } else { 0 };
        let flags = flag(&suspect.source, SOURCE)
            | flag(&suspect.target, TARGET)
            | flag(&suspect.origin, ORIGIN)
            | if suspect.target_had { TARGET_HAD } else { 0 }
            | if suspect.named { NAMED } else { 0 };
        let digests = [&suspect.source, &suspect.target, &suspect.origin];
        self.put(flags, suspect.key.as_bytes(), digests.into_iter().flatten())
    }

    /// A row that the source has, as it was scanned, and the target has not.
    pub(crate) fn push_missing(&mut self, key: &[u8], digest: &RowDigest) -> Result<(), AgentError> {
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

    pub(crate) fn read(self) -> Result<SpoolReader, AgentError> {
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
    pub(crate) fn next_chunk(&mut self, count: usize) -> Result<Vec<Suspect>, AgentError> {
        self.next_chunk_within(count, usize::MAX)
    }

    /// The same, with keys of hardly more than so many bytes.
    pub(crate) fn next_chunk_within(
        &mut self,
        count: usize,
        bytes: usize,
    ) -> Result<Vec<Suspect>, AgentError> {
        let (mut chunk, mut taken) = (Vec::new(), 0);
        while chunk.len() < count && taken < bytes {
            let Some(suspect) = self.next_suspect()? else { break };
            taken += suspect.key.as_bytes().len();
            chunk.push(suspect);
        }
        Ok(chunk)
    }

    pub(crate) fn next_suspect(&mut self) -> Result<Option<Suspect>, AgentError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.next().map(Some).map_err(|error| scratch_error(&error))
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
            target_had: flags[0] & TARGET_HAD != 0,
            named: flags[0] & NAMED != 0,
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
                target_had: n % 2 == 0,
                named: n % 7 == 0,
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
