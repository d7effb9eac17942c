//! The journal of one table's writes: a file of encrypted records, written front to back, read back to front.
//!
//! ```text
//! file   := "trueup undo 2\n" record*
//! record := length u32, nonce [24], XChaCha20-Poly1305(plain), bound to the file's name and the record's number
//! plain  := 00 JSON of JournalHead                       the first record
//!         | 01 batch u64, replace u8, row*               before the batch is written, with fsync
//!         | 02 batch u64, outcome u8*                    after it
//! row    := flags u8, key, rows that the flags name; each length u32 and bytes, but a digest is 16 bytes
//! ```
//! Of what a batch leaves behind the digest is enough: it tells whether a row still is what the run wrote.
//! A record that the end of the file cuts off was never answered for: its batch was not written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead, AeadInPlace, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use tokio::io::AsyncWriteExt;

use super::super::error::{AgentError, FailureKind};
use super::super::intents::RowOutcome;
use super::head::JournalHead;
use super::key::{UndoKey, cannot};
use crate::merkle::{RowDigest, SessionKey};
use crate::model::{CanonicalRow, Change, Key, fail_point};

const MAGIC: &[u8] = b"trueup undo 2\n";
const LENGTH: usize = 4;
const NONCE: usize = 24;
/// Before what is encrypted.
const FRONT: usize = LENGTH + NONCE;
const HEAD: u8 = 0;
const BATCH: u8 = 1;
const OUTCOMES: u8 = 2;
/// Flags of a row: which rows are told of it.
const BEFORE: u8 = 1;
const AFTER: u8 = 2;
const OWN_BEFORE: u8 = 4;

/// One row that a batch is about to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Overwritten {
    pub(crate) key: Key,
    /// By the plan, as what follows.
    pub(crate) before: Option<CanonicalRow>,
    /// What the batch was to leave.
    pub(crate) after: Option<RowDigest>,
    /// The whole row by the table's own types, where the head has those.
    pub(crate) own_before: Option<CanonicalRow>,
}

#[derive(Debug)]
pub(crate) struct Journal {
    file: tokio::fs::File,
    path: PathBuf,
    sealer: Sealer,
    digests: SessionKey,
}

/// Encrypts and decrypts the records of one file.
struct Sealer {
    cipher: XChaCha20Poly1305,
    name: Vec<u8>,
    next: u64,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(secret)")
    }
}

impl Sealer {
    fn new(key: &UndoKey, path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes().to_vec();
        Self { cipher: XChaCha20Poly1305::new((&key.0).into()), name, next: 0 }
    }

    fn bound_to(&self, number: u64) -> Vec<u8> {
        [self.name.as_slice(), &[0], &number.to_be_bytes()].concat()
    }

    /// Encrypts a record where it lies, behind room for its front.
    fn seal(&mut self, mut record: Vec<u8>) -> Result<Vec<u8>, AgentError> {
        let too_large =
            || AgentError::new(FailureKind::Resource, "a batch is too large for the undo journal");
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|error| {
            AgentError::new(FailureKind::Resource, format!("the system has no randomness: {error}"))
        })?;
        let bound_to = self.bound_to(self.next);
        let (front, plain) = record.split_at_mut_checked(FRONT).ok_or_else(too_large)?;
        let tag = self
            .cipher
            .encrypt_in_place_detached(&XNonce::from(nonce), &bound_to, plain)
            .map_err(|_| too_large())?;
        let length = u32::try_from(plain.len() + tag.len()).map_err(|_| too_large())?;
        let (to_length, to_nonce) = front.split_at_mut(LENGTH);
        to_length.copy_from_slice(&length.to_be_bytes());
        to_nonce.copy_from_slice(&nonce);
        record.extend_from_slice(&tag);
        self.next += 1;
        Ok(record)
    }

    fn open(&self, number: u64, nonce: &[u8; NONCE], sealed: &[u8]) -> Option<Vec<u8>> {
        let payload = Payload { msg: sealed, aad: &self.bound_to(number) };
        self.cipher.decrypt(&XNonce::from(*nonce), payload).ok()
    }
}

impl Journal {
    /// `None` where the file exists already.
    pub(crate) async fn create(
        path: &Path,
        key: &UndoKey,
        head: &JournalHead,
    ) -> Result<Option<Self>, AgentError> {
        let mut options = tokio::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        options.mode(0o600);
        let mut file = match options.open(path).await {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(cannot(path, "begin", &error)),
        };
        let json = serde_json::to_vec(head).map_err(|error| cannot(path, "begin", &error))?;
        let mut sealer = Sealer::new(key, path);
        let record = sealer.seal(blank(HEAD, &json))?;
        file.write_all(&[MAGIC, &record].concat()).await.map_err(|error| cannot(path, "begin", &error))?;
        // The file's name must be on the disk too.
        if let Some(folder) = path.parent()
            && let Ok(folder) = tokio::fs::File::open(folder).await
        {
            folder.sync_all().await.map_err(|error| cannot(path, "begin", &error))?;
        }
        Ok(Some(Self { file, path: path.to_owned(), sealer, digests: head.digests.session() }))
    }

    /// On the disk when this returns. With each change comes the row as it was, where the head has the table's own types.
    pub(crate) async fn batch<'r>(
        &mut self,
        batch: u64,
        replace: bool,
        rows: impl Iterator<Item = (&'r Change, &'r Option<CanonicalRow>)>,
    ) -> Result<(), AgentError> {
        let mut record = blank(BATCH, &batch.to_be_bytes());
        record.push(u8::from(replace));
        for (change, own_before) in rows {
            let (key, before) = (&change.key, &change.before);
            let after =
                change.after.as_ref().map(|row| self.digests.row_digest(key.as_bytes(), row.as_bytes()));
            let flag = |there: bool, flag: u8| if there { flag } else { 0 };
            record.push(
                flag(before.is_some(), BEFORE)
                    | flag(after.is_some(), AFTER)
                    | flag(own_before.is_some(), OWN_BEFORE),
            );
            put(&mut record, key.as_bytes())?;
            if let Some(row) = before {
                put(&mut record, row.as_bytes())?;
            }
            if let Some(RowDigest(digest)) = after {
                record.extend_from_slice(&digest);
            }
            if let Some(row) = own_before {
                put(&mut record, row.as_bytes())?;
            }
        }
        self.record_durably(record).await
    }

    /// The same of rows that are all inserted: their keys, and their digests under the head's secret.
    pub(crate) async fn inserts<'r>(
        &mut self,
        batch: u64,
        rows: impl Iterator<Item = (&'r [u8], &'r RowDigest)>,
    ) -> Result<(), AgentError> {
        let mut record = blank(BATCH, &batch.to_be_bytes());
        record.push(0);
        for (key, RowDigest(digest)) in rows {
            record.push(AFTER);
            put(&mut record, key)?;
            record.extend_from_slice(digest);
        }
        self.record_durably(record).await
    }

    async fn record_durably(&mut self, record: Vec<u8>) -> Result<(), AgentError> {
        self.record(record).await?;
        fail_point();
        self.file.sync_data().await.map_err(|error| cannot(&self.path, "write", &error))
    }

    pub(crate) async fn outcomes(&mut self, batch: u64, outcomes: &[RowOutcome]) -> Result<(), AgentError> {
        let mut record = blank(OUTCOMES, &batch.to_be_bytes());
        record.extend(outcomes.iter().map(|outcome| match outcome {
            RowOutcome::Unknown => 0u8,
            RowOutcome::Written => 1,
            RowOutcome::Stale => 2,
            RowOutcome::Refused => 3,
        }));
        self.record(record).await
    }

    async fn record(&mut self, record: Vec<u8>) -> Result<(), AgentError> {
        let record = self.sealer.seal(record)?;
        let written = async {
            self.file.write_all(&record).await?;
            self.file.flush().await
        };
        written.await.map_err(|error| cannot(&self.path, "write", &error))
    }
}

/// A record of this kind before it is sealed, with room for its front.
fn blank(kind: u8, begins: &[u8]) -> Vec<u8> {
    let mut record = vec![0; FRONT];
    record.push(kind);
    record.extend_from_slice(begins);
    record
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), AgentError> {
    let length = u32::try_from(bytes.len())
        .map_err(|_| AgentError::new(FailureKind::Resource, "a row is too large for the undo journal"))?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// A journal that is read. Every record was decrypted once when it was opened, so that damage is found before anything is
/// put back.
#[derive(Debug)]
pub(crate) struct JournalReader {
    file: BufReader<File>,
    path: PathBuf,
    sealer: Sealer,
    pub(crate) head: JournalHead,
    /// Offset and number of each batch's record, and the batch.
    batches: Vec<(u64, u64, u64)>,
    outcomes: BTreeMap<u64, Vec<u8>>,
}

/// The rows of a batch that may have been written.
#[derive(Debug)]
pub(crate) struct WrittenBatch {
    pub(crate) replace: bool,
    pub(crate) rows: Vec<Overwritten>,
}

impl JournalReader {
    pub(crate) fn open(path: &Path, key: &UndoKey) -> Result<Self, AgentError> {
        let failed = |error: std::io::Error| cannot(path, "read", &error);
        let mut file = BufReader::new(File::open(path).map_err(failed)?);
        let length = file.get_ref().metadata().map_err(failed)?.len();
        let sealer = Sealer::new(key, path);
        let mut magic = [0; MAGIC.len()];
        let whole = file.read_exact(&mut magic).is_ok();
        if whole && magic != MAGIC {
            return Err(damaged(path, "it is no undo journal of this release"));
        }
        let (mut batches, mut outcomes, mut head) = (Vec::new(), BTreeMap::new(), None);
        let mut at = MAGIC.len() as u64;
        let mut number = 0;
        while let Some((plain, next)) = read_record(&mut file, path, &sealer, number, at, length)? {
            match (plain.split_first(), &head) {
                (Some((&HEAD, json)), None) => {
                    head = Some(
                        serde_json::from_slice::<JournalHead>(json)
                            .map_err(|error| damaged(path, &format!("its head cannot be read: {error}")))?,
                    );
                }
                (Some((&BATCH, rest)), Some(_)) => batches.push((at, number, batch_of(path, rest)?.0)),
                (Some((&OUTCOMES, rest)), Some(_)) => {
                    let (batch, bytes) = batch_of(path, rest)?;
                    outcomes.insert(batch, bytes.to_vec());
                }
                _ => return Err(damaged(path, &format!("record {number} is of no known kind"))),
            }
            at = next;
            number += 1;
        }
        let Some(head) = head else {
            return Err(AgentError::new(
                FailureKind::Usage,
                format!("the undo journal {} was begun and holds nothing", path.display()),
            )
            .with_hint("nothing was written then: there is nothing to take back"));
        };
        Ok(Self { file, path: path.to_owned(), sealer, head, batches, outcomes })
    }

    /// The last batch that was not given yet.
    pub(crate) fn previous(&mut self) -> Result<Option<WrittenBatch>, AgentError> {
        let Some((at, number, batch)) = self.batches.pop() else { return Ok(None) };
        let record = read_record(&mut self.file, &self.path, &self.sealer, number, at, u64::MAX)?;
        let plain = record.map(|(plain, _)| plain).unwrap_or_default();
        let outcomes = self.outcomes.get(&batch).map_or(&[][..], Vec::as_slice);
        let read = || {
            let (replace, mut rest) = plain.get(9..)?.split_first()?;
            let mut rows = Vec::new();
            for at in 0.. {
                let Some((flags, next)) = rest.split_first() else { break };
                rest = next;
                let key = Key::from(take(&mut rest)?);
                let row = |bit: u8, rest: &mut &[u8]| -> Option<Option<CanonicalRow>> {
                    Some(match flags & bit {
                        0 => None,
                        _ => Some(CanonicalRow::new(take(rest)?)),
                    })
                };
                let before = row(BEFORE, &mut rest)?;
                let after = match flags & AFTER {
                    0 => None,
                    _ => Some(take_digest(&mut rest)?),
                };
                let own_before = row(OWN_BEFORE, &mut rest)?;
                // Nothing was written of what was stale or refused. What nobody knows may have been.
                if matches!(outcomes.get(at), None | Some(0 | 1)) {
                    rows.push(Overwritten { key, before, after, own_before });
                }
            }
            Some(WrittenBatch { replace: *replace != 0, rows })
        };
        read().map(Some).ok_or_else(|| damaged(&self.path, &format!("record {number} cannot be read")))
    }
}

fn batch_of<'a>(path: &Path, rest: &'a [u8]) -> Result<(u64, &'a [u8]), AgentError> {
    let split = rest.split_first_chunk::<8>();
    split
        .map(|(number, rest)| (u64::from_be_bytes(*number), rest))
        .ok_or_else(|| damaged(path, "a record is too short"))
}

fn take<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = input.split_first_chunk::<4>()?;
    let (taken, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *input = rest;
    Some(taken)
}

fn take_digest(input: &mut &[u8]) -> Option<RowDigest> {
    let (digest, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(RowDigest(*digest))
}

fn damaged(path: &Path, what: &str) -> AgentError {
    AgentError::new(FailureKind::Resource, format!("the undo journal {} is damaged: {what}", path.display()))
        .with_hint("nothing was put back from it; restore the file, or the rows, from a backup")
}

/// The record at an offset and the offset behind it; `None` at the end, also where the end cuts a record off.
fn read_record(
    file: &mut BufReader<File>,
    path: &Path,
    sealer: &Sealer,
    number: u64,
    at: u64,
    length: u64,
) -> Result<Option<(Vec<u8>, u64)>, AgentError> {
    let failed = |error: std::io::Error| cannot(path, "read", &error);
    let (mut size, mut nonce) = ([0; LENGTH], [0; NONCE]);
    let body = at + FRONT as u64;
    if body > length {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(at)).map_err(failed)?;
    file.read_exact(&mut size).and_then(|()| file.read_exact(&mut nonce)).map_err(failed)?;
    let size = u32::from_be_bytes(size);
    let end = body + u64::from(size);
    if end > length {
        return Ok(None);
    }
    let mut sealed = vec![0; usize::try_from(size).unwrap_or_default()];
    file.read_exact(&mut sealed).map_err(failed)?;
    match sealer.open(number, &nonce, &sealed) {
        Some(plain) => Ok(Some((plain, end))),
        None => Err(damaged(
            path,
            &format!("record {number} was not written with this key, or was altered since"),
        )
        .with_hint("check --undo-key-file; nothing was put back")),
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
