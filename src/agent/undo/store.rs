//! Where journals lie, and the key they are encrypted with.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::super::error::{AgentError, FailureKind};
use super::super::secret_file::private_folder;
use super::head::JournalHead;
use super::journal::Journal;
use super::key::{UndoKey, cannot};
use super::lock::{UndoLock, has_ended_run};

/// Longer than any id of a run.
const RUN_ID_MAX: usize = 64;
/// Tables and rounds of one run, each with a file.
const FILES_MAX: u32 = 1_000_000;

/// A folder of journals: `RUN.NUMBER.undo`, one file for each table and round of a run.
#[derive(Debug, Clone)]
pub struct UndoStore {
    dir: PathBuf,
    key: UndoKey,
}

impl UndoStore {
    pub fn open(dir: &Path, key: UndoKey) -> Result<Self, AgentError> {
        private_folder(dir).map_err(|error| cannot(dir, "make", &error))?;
        Ok(Self { dir: dir.to_owned(), key })
    }

    pub(crate) async fn begin(&self, head: &JournalHead) -> Result<Journal, AgentError> {
        check_run(&head.run)?;
        for number in 0..FILES_MAX {
            let path = self.dir.join(format!("{}.{number}.undo", head.run));
            let Some(journal) = Journal::create(&path, &self.key, head).await? else { continue };
            // Asked when the journal is there and locked: an undo looks for such journals when it has said so.
            if has_ended_run(&self.lock_of(&head.run)) {
                let what = format!("run {} is taken back by an undo, or was: it writes no more", head.run);
                return Err(AgentError::new(FailureKind::Refused, what));
            }
            return Ok(journal);
        }
        Err(AgentError::new(FailureKind::Resource, format!("run {} has too many undo journals", head.run)))
    }

    fn lock_of(&self, run: &str) -> PathBuf {
        self.dir.join(format!("{run}.lock"))
    }

    /// For the one undo of a run.
    pub(crate) fn lock(&self, run: &str, dry_run: bool) -> Result<UndoLock, AgentError> {
        check_run(run)?;
        UndoLock::take(&self.lock_of(run), run, dry_run)
    }

    /// The journals of a run in the order they were begun.
    pub(crate) fn of_run(&self, run: &str) -> Result<Vec<PathBuf>, AgentError> {
        check_run(run)?;
        let mut found: Vec<(u32, PathBuf)> = self
            .files()?
            .into_iter()
            .filter_map(|path| {
                let name = path.file_name()?.to_str()?;
                let number = name.strip_prefix(run)?.strip_prefix('.')?.strip_suffix(".undo")?;
                Some((number.parse().ok()?, path))
            })
            .collect();
        found.sort();
        // They are numbered as they are begun: one that is not there was, and what it held cannot be taken back.
        if let Some(missing) =
            (0..).zip(&found).find_map(|(number, (at, _))| (number != *at).then_some(number))
        {
            let what =
                format!("the undo journal {run}.{missing}.undo is missing: run {run} cannot be taken back");
            return Err(AgentError::new(FailureKind::Resource, what)
                .with_hint("nothing was put back; restore the file, or the rows, from a backup"));
        }
        Ok(found.into_iter().map(|(_, path)| path).collect())
    }

    pub(crate) fn key(&self) -> &UndoKey {
        &self.key
    }

    fn files(&self) -> Result<Vec<PathBuf>, AgentError> {
        let failed = |error: std::io::Error| cannot(&self.dir, "read", &error);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "undo" || extension == "lock") {
                files.push(path);
            }
        }
        Ok(files)
    }

    /// Removes journals last written before this time; how many.
    pub fn purge(&self, before: SystemTime) -> Result<u64, AgentError> {
        let mut removed = 0;
        for path in self.files()? {
            let old = std::fs::metadata(&path)
                .and_then(|meta| meta.modified())
                .is_ok_and(|modified| modified < before);
            if old {
                std::fs::remove_file(&path).map_err(|error| cannot(&path, "remove", &error))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// The id becomes part of a file's name, and it may come from a peer.
fn check_run(run: &str) -> Result<(), AgentError> {
    let plain = run.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if plain && !run.is_empty() && run.len() <= RUN_ID_MAX {
        return Ok(());
    }
    Err(AgentError::protocol("the id of the run is none"))
}
