//! Who has a run's journals: the run that writes them, or the one undo that takes them back. Locks of the system end with the
//! process that holds them.
//!
//! An undo holds `RUN.lock` and writes a word into it before it puts the first row back: a run that lives nevertheless, at
//! another table, begins no journal any more, and so writes no more.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;

use super::super::error::{AgentError, FailureKind};
use super::key::cannot;

const TAKEN_BACK: &[u8] = b"taken back\n";

/// Held for as long as a run is taken back.
#[derive(Debug)]
pub(crate) struct UndoLock {
    /// `None`: of a dry run.
    file: Option<File>,
    run: String,
}

/// Somebody else holds the lock. Where a file system has no locks, nobody is known to.
pub(super) fn is_held(tried: Result<(), TryLockError>) -> bool {
    matches!(tried, Err(TryLockError::WouldBlock))
}

/// A file for its owner's eyes alone.
pub(super) fn private_file(new: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(!new).create_new(new);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

impl UndoLock {
    /// `dry_run` asks whether it can be had, and neither makes a file nor holds it.
    pub(super) fn take(path: &Path, run: &str, dry_run: bool) -> Result<Self, AgentError> {
        let opened = if dry_run { File::open(path) } else { private_file(false).open(path) };
        let file = match opened {
            Ok(file) => Some(file),
            Err(error) if dry_run && error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(cannot(path, "lock", &error)),
        };
        let tried = |file: &File| if dry_run { file.try_lock_shared() } else { file.try_lock() };
        if file.as_ref().is_some_and(|file| is_held(tried(file))) {
            let what = format!("run {run} is being taken back already, by another undo");
            return Err(AgentError::new(FailureKind::Usage, what).with_hint(
                "nothing was put back by this one; wait until the other has ended, its report says what was taken back",
            ));
        }
        Ok(Self { file: file.filter(|_| !dry_run), run: run.to_owned() })
    }

    /// From now on the run begins no journal.
    pub(crate) fn end_run(&mut self) -> Result<(), AgentError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let failed = |error: std::io::Error| {
            let what = format!(
                "the undo of run {} cannot be noted in the folder of its journals: {error}",
                self.run
            );
            AgentError::new(FailureKind::Resource, what)
        };
        file.set_len(0)
            .and_then(|()| file.write_all(TAKEN_BACK))
            .and_then(|()| file.sync_all())
            .map_err(failed)
    }

    /// The run lives, and was not stopped.
    pub(crate) fn let_run_go_on(&mut self) {
        if let Some(file) = &self.file {
            let _ = file.set_len(0);
        }
    }
}

/// An undo of the run has begun.
pub(super) fn has_ended_run(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.len() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_undo_at_a_time_and_a_run_that_is_taken_back_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.lock");
        let dry = || UndoLock::take(&path, "r", true);
        assert!(dry().unwrap().file.is_none() && !path.exists());
        let mut first = UndoLock::take(&path, "r", false).unwrap();
        for dry_run in [false, true] {
            let error = UndoLock::take(&path, "r", dry_run).unwrap_err();
            assert!(error.message.contains("being taken back already"), "{error}");
        }
        assert!(!has_ended_run(&path));
        first.end_run().unwrap();
        assert!(has_ended_run(&path));
        first.let_run_go_on();
        assert!(!has_ended_run(&path));
        drop(first);
        let _dry = dry().unwrap();
        UndoLock::take(&path, "r", false).expect("a dry run hinders no undo");
    }
}
