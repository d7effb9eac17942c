//! The journal of one table's writes: a file of encrypted records, written front to back, read back to front.
//!
//! ```text
//! file   := "trueup undo 4\n" record*
//! record := length u32, nonce [24], XChaCha20-Poly1305(plain), bound to the file's name and the record's number
//! plain  := 00 JSON of JournalHead                       the first record
//!         | 01 batch u64, replace u8, row*               before the batch is written, with fsync
//!         | 02 batch u64, outcome*                       after it
//!         | 03                                           the last record, where the table's run ended by itself; with fsync
//! row    := flags u8, key, rows that the flags name; each length u32 and bytes, but a digest is 16 bytes
//! outcome := u8, and where its flag says so a digest of the whole row as it was read back
//! ```
//! Of what a batch leaves behind digests are enough: they tell whether a row still is what the run left. A batch without
//! outcomes was cut short: what it was to leave is known by the columns that were compared, and nothing of the others.
//! A record that the end of the file cuts off was never answered for: its batch was not written.

use std::path::{Path, PathBuf};

use tokio::io::AsyncWriteExt;

use super::super::error::{AgentError, FailureKind};
use super::super::trail::RowOutcome;
use super::head::JournalHead;
use super::key::{UndoKey, cannot};
use super::lock::{is_held, private_file};
use super::seal::{AFTER, BATCH, BEFORE, END, FRONT, HEAD, LEFT, MAGIC, OUTCOMES, OWN_BEFORE, Sealer};
use crate::merkle::{RowDigest, SessionKey};
use crate::model::{CanonicalRow, Change, fail_point};

#[derive(Debug)]
pub(crate) struct Journal {
    file: tokio::fs::File,
    path: PathBuf,
    sealer: Sealer,
    digests: SessionKey,
}

impl Journal {
    /// `None` where the file exists already. The file is locked for as long as it is written.
    pub(crate) async fn create(
        path: &Path,
        key: &UndoKey,
        head: &JournalHead,
    ) -> Result<Option<Self>, AgentError> {
        let file = match private_file(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(cannot(path, "begin", &error)),
        };
        if is_held(file.try_lock()) {
            return Err(cannot(path, "begin", &"an undo of this run reads it"));
        }
        let mut file = tokio::fs::File::from_std(file);
        let json = serde_json::to_vec(head).map_err(|error| cannot(path, "begin", &error))?;
        let mut sealer = Sealer::new(key, path);
        let record = sealer.seal(blank(HEAD, &json))?;
        let written = async {
            file.write_all(&[MAGIC, &record].concat()).await?;
            file.flush().await
        };
        written.await.map_err(|error| cannot(path, "begin", &error))?;
        // The file's name must be on the disk too.
        if let Some(folder) = path.parent()
            && let Ok(folder) = tokio::fs::File::open(folder).await
        {
            folder.sync_all().await.map_err(|error| cannot(path, "begin", &error))?;
        }
        Ok(Some(Self { file, path: path.to_owned(), sealer, digests: head.digests.session() }))
    }

    /// On the disk when this returns. With each change comes the row as it was, where the plan's rows do not hold it whole.
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
            let after = change.after.as_ref().map(|row| self.digest(key.as_bytes(), row.as_bytes()));
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

    /// What became of the batch's rows, in their order, and of each what it held when it was read back; none where that is
    /// not known.
    pub(crate) async fn outcomes(
        &mut self,
        batch: u64,
        outcomes: &[RowOutcome],
        left: &[Option<RowDigest>],
    ) -> Result<(), AgentError> {
        let mut record = blank(OUTCOMES, &batch.to_be_bytes());
        let left = left.iter().copied().chain(std::iter::repeat(None));
        for (outcome, left) in outcomes.iter().zip(left) {
            let flag = if left.is_some() { LEFT } else { 0 };
            record.push(flag | outcome_byte(*outcome));
            if let Some(RowDigest(digest)) = left {
                record.extend_from_slice(&digest);
            }
        }
        self.record(record).await
    }

    /// Nothing follows: whoever finds a journal without this knows that it may have been longer.
    pub(crate) async fn close(&mut self) -> Result<(), AgentError> {
        self.record_durably(blank(END, &[])).await
    }

    pub(crate) fn digest(&self, key: &[u8], row: &[u8]) -> RowDigest {
        self.digests.row_digest(key, row)
    }

    async fn record_durably(&mut self, record: Vec<u8>) -> Result<(), AgentError> {
        self.record(record).await?;
        fail_point();
        self.file.sync_data().await.map_err(|error| cannot(&self.path, "write", &error))
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

fn outcome_byte(outcome: RowOutcome) -> u8 {
    match outcome {
        RowOutcome::Unknown => 0,
        RowOutcome::Written => 1,
        RowOutcome::Stale => 2,
        RowOutcome::Refused => 3,
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

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
