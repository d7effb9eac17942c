//! Where journals lie, and the key they are encrypted with.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::super::error::{AgentError, FailureKind};
use super::head::JournalHead;
use super::journal::Journal;
use crate::model::value::hex;

/// Longer than any id of a run.
const RUN_ID_MAX: usize = 64;
/// Tables and rounds of one run, each with a file.
const FILES_MAX: u32 = 1_000_000;

/// The key of a folder of journals. Whoever has it and the files has the rows.
#[derive(Clone)]
pub struct UndoKey(pub(super) [u8; 32]);

impl fmt::Debug for UndoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UndoKey(secret)")
    }
}

impl UndoKey {
    /// 64 hex digits.
    pub fn parse(text: &str, whence: &str) -> Result<Self, AgentError> {
        unhex(text.trim()).map(Self).ok_or_else(|| {
            AgentError::new(FailureKind::Usage, format!("{whence} holds no key"))
                .with_hint("a key is 32 random bytes as 64 hex digits: openssl rand -hex 32")
        })
    }

    /// Reads the key from a file; makes one, for its owner's eyes alone, where there is none.
    pub fn load_or_make(path: &Path) -> Result<Self, AgentError> {
        secret_file(path).map(Self)
    }
}

/// 32 secret bytes in a file of 64 hex digits, made with mode 0600 where it is missing.
pub(in super::super) fn secret_file(path: &Path) -> Result<[u8; 32], AgentError> {
    let shown = path.display();
    let failed = |what: &str, error: &dyn fmt::Display| {
        AgentError::new(FailureKind::Resource, format!("cannot {what} the key {shown}: {error}"))
            .with_hint("check the folder and its permissions")
    };
    // Two that begin at the same moment: one makes the file, both read it.
    if !path.exists() {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| failed("make", &error))?;
        if let Some(folder) = path.parent() {
            private_folder(folder).map_err(|error| failed("make", &error))?;
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Temporary files are for their owner alone, and this one is whole when it gets its name.
        let make = || -> std::io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            writeln!(file, "{}", hex(&key))?;
            file.as_file().sync_all()?;
            match file.persist_noclobber(path) {
                Err(error) if error.error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.error),
                _ => Ok(()),
            }
        };
        make().map_err(|error| failed("make", &error))?;
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed("read", &error))?;
    Ok(UndoKey::parse(&text, &path.display().to_string())?.0)
}

fn private_folder(folder: &Path) -> std::io::Result<()> {
    if folder.as_os_str().is_empty() {
        return Ok(());
    }
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

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

    pub(in super::super) async fn begin(&self, head: &JournalHead) -> Result<Journal, AgentError> {
        check_run(&head.run)?;
        for number in 0..FILES_MAX {
            let path = self.dir.join(format!("{}.{number}.undo", head.run));
            if let Some(journal) = Journal::create(&path, &self.key, head).await? {
                return Ok(journal);
            }
        }
        Err(AgentError::new(FailureKind::Resource, format!("run {} has too many undo journals", head.run)))
    }

    /// The journals of a run in the order they were begun.
    pub(super) fn of_run(&self, run: &str) -> Result<Vec<PathBuf>, AgentError> {
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
        Ok(found.into_iter().map(|(_, path)| path).collect())
    }

    pub(super) fn key(&self) -> &UndoKey {
        &self.key
    }

    fn files(&self) -> Result<Vec<PathBuf>, AgentError> {
        let failed = |error: std::io::Error| cannot(&self.dir, "read", &error);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "undo") {
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

pub(super) fn cannot(path: &Path, what: &str, error: &dyn fmt::Display) -> AgentError {
    let what = format!("cannot {what} the undo journal {}: {error}", path.display());
    AgentError::new(FailureKind::Resource, what)
        .with_hint("check --undo-dir and the disk, or go without with --no-undo")
}

pub(in super::super) fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}
