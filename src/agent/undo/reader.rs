//! A journal that is read back. Every record is decrypted once when it is opened, so that damage is found before anything
//! is put back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::super::error::{AgentError, FailureKind};
use super::head::JournalHead;
use super::key::{UndoKey, cannot};
use super::lock::is_held;
use super::seal::{
    AFTER, BATCH, BEFORE, END, FRONT, HEAD, LEFT, LENGTH, MAGIC, NONCE, OUTCOMES, OWN_BEFORE, Sealer,
};
use crate::merkle::RowDigest;
use crate::model::{CanonicalRow, Key, Operation};

/// One row that a batch was about to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Overwritten {
    pub(crate) key: Key,
    /// By the plan, as what follows.
    pub(crate) before: Option<CanonicalRow>,
    /// What the batch was to leave.
    pub(crate) after: Option<RowDigest>,
    /// The whole row by the table's own types, where the plan's rows do not hold it.
    pub(crate) own_before: Option<CanonicalRow>,
    /// The whole row as it was read back after the batch; `None`: that is not known.
    pub(crate) left: Option<RowDigest>,
}

impl Overwritten {
    /// The whole row before the run; `None` also where the journal holds no more than the columns that were compared.
    pub(crate) fn whole_before(&self, plan_is_whole: bool) -> Option<&CanonicalRow> {
        if plan_is_whole { self.before.as_ref() } else { self.own_before.as_ref() }
    }

    /// What the run did to the row.
    pub(crate) fn operation(&self) -> Operation {
        match (&self.before, &self.after) {
            (None, _) => Operation::Insert,
            (Some(_), None) => Operation::Delete,
            (Some(_), Some(_)) => Operation::Update,
        }
    }
}

/// The rows of a batch that may have been written.
#[derive(Debug)]
pub(crate) struct WrittenBatch {
    pub(crate) replace: bool,
    pub(crate) rows: Vec<Overwritten>,
}

#[derive(Debug)]
pub(crate) struct JournalReader {
    file: BufReader<File>,
    path: PathBuf,
    sealer: Sealer,
    pub(crate) head: JournalHead,
    /// Where each batch's record is, and the batch.
    batches: Vec<(Place, u64)>,
    outcomes: BTreeMap<u64, Place>,
    /// The table's run ended by itself, and nothing was cut off.
    pub(crate) closed: bool,
}

/// A record's offset in the file and its number.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: u64,
    number: u64,
}

impl JournalReader {
    /// `None`: the journal was begun and holds nothing, so that nothing was written. Nobody writes it while this is open.
    pub(crate) fn open(path: &Path, key: &UndoKey) -> Result<Option<Self>, AgentError> {
        let failed = |error: std::io::Error| cannot(path, "read", &error);
        let file = File::open(path).map_err(failed)?;
        if is_held(file.try_lock_shared()) {
            return Err(still_written(path));
        }
        let mut file = BufReader::new(file);
        let length = file.get_ref().metadata().map_err(failed)?.len();
        let sealer = Sealer::new(key, path);
        let mut magic = [0; MAGIC.len()];
        let whole = file.read_exact(&mut magic).is_ok();
        if whole && magic != MAGIC {
            return Err(damaged(path, "it is no undo journal of this release"));
        }
        let mut head: Option<JournalHead> = None;
        let (mut batches, mut outcomes, mut closed) = (Vec::new(), BTreeMap::new(), false);
        let mut place = Place { at: MAGIC.len() as u64, number: 0 };
        loop {
            let read = read_record(&mut file, path, &sealer, place, length);
            let Some((plain, next)) = read.map_err(|error| of_table(error, head.as_ref()))? else { break };
            match (plain.split_first(), &head) {
                (Some((&HEAD, json)), None) => {
                    head = Some(
                        serde_json::from_slice::<JournalHead>(json)
                            .map_err(|error| damaged(path, &format!("its head cannot be read: {error}")))?,
                    );
                }
                (Some((&BATCH, rest)), Some(_)) if !closed => batches.push((place, batch_of(path, rest)?)),
                (Some((&OUTCOMES, rest)), Some(_)) if !closed => {
                    outcomes.insert(batch_of(path, rest)?, place);
                }
                (Some((&END, [])), Some(_)) if !closed => closed = true,
                (_, head) => {
                    let what = format!("record {} is of no known kind", place.number);
                    return Err(of_table(damaged(path, &what), head.as_ref()));
                }
            }
            place = Place { at: next, number: place.number + 1 };
        }
        let Some(head) = head else { return Ok(None) };
        closed &= place.at == length;
        Ok(Some(Self { file, path: path.to_owned(), sealer, head, batches, outcomes, closed }))
    }

    /// The last batch that was not given yet.
    pub(crate) fn previous(&mut self) -> Result<Option<WrittenBatch>, AgentError> {
        let Some((place, batch)) = self.batches.pop() else { return Ok(None) };
        let plain = self.record(place)?;
        let outcomes = match self.outcomes.get(&batch).copied() {
            Some(place) => self.record(place)?,
            None => Vec::new(),
        };
        let outcomes = outcomes_of(outcomes.get(9..).unwrap_or_default());
        let read = outcomes.and_then(|outcomes| rows_of(plain.get(9..)?, &outcomes));
        read.map(Some).ok_or_else(|| damaged(&self.path, &format!("record {} cannot be read", place.number)))
    }

    /// A record that was there when the journal was opened.
    fn record(&mut self, place: Place) -> Result<Vec<u8>, AgentError> {
        let record = read_record(&mut self.file, &self.path, &self.sealer, place, u64::MAX)?;
        Ok(record.map(|(plain, _)| plain).unwrap_or_default())
    }
}

/// What became of each row, and what it held then.
fn outcomes_of(mut rest: &[u8]) -> Option<Vec<(u8, Option<RowDigest>)>> {
    let mut outcomes = Vec::new();
    while let Some((byte, next)) = rest.split_first() {
        rest = next;
        let left = match byte & LEFT {
            0 => None,
            _ => Some(take_digest(&mut rest)?),
        };
        outcomes.push((byte & !LEFT, left));
    }
    Some(outcomes)
}

fn rows_of(plain: &[u8], outcomes: &[(u8, Option<RowDigest>)]) -> Option<WrittenBatch> {
    let (replace, mut rest) = plain.split_first()?;
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
        let outcome = outcomes.get(at).copied();
        // Nothing was written of what was stale or refused. What nobody knows may have been.
        if matches!(outcome, None | Some((0 | 1, _))) {
            let left = outcome.and_then(|(_, left)| left);
            rows.push(Overwritten { key, before, after, own_before, left });
        }
    }
    Some(WrittenBatch { replace: *replace != 0, rows })
}

fn batch_of(path: &Path, rest: &[u8]) -> Result<u64, AgentError> {
    let number = rest.first_chunk::<8>().map(|number| u64::from_be_bytes(*number));
    number.ok_or_else(|| damaged(path, "a record is too short"))
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

/// The run has not ended.
pub(crate) fn still_written(path: &Path) -> AgentError {
    let what = format!("its undo journal {} is being written: the run has not ended", path.display());
    AgentError::new(FailureKind::Usage, what)
        .with_hint("nothing was put back; wait until the run has ended, or stop it, and run the undo again")
}

/// Somebody writes this journal.
pub(crate) fn is_written(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| is_held(file.try_lock_shared()))
}

fn damaged(path: &Path, what: &str) -> AgentError {
    AgentError::new(FailureKind::Resource, format!("the undo journal {} is damaged: {what}", path.display()))
        .with_hint("nothing was put back from it; restore the file, or the rows, from a backup")
}

/// Names the table, where the journal could be read so far.
fn of_table(mut error: AgentError, head: Option<&JournalHead>) -> AgentError {
    if let Some(head) = head {
        error.message += &format!("; it is of table {}", head.plan.target);
    }
    error
}

/// The record at a place and the offset behind it; `None` at the end, also where the end cuts a record off.
fn read_record(
    file: &mut BufReader<File>,
    path: &Path,
    sealer: &Sealer,
    Place { at, number }: Place,
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
