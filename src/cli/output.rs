//! Where data goes: standard output, or a file.

use std::io::{BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::Failure;

/// A file that is written beside the one it is to be, and put in its place when it is whole.
pub(super) struct Beside;

impl Beside {
    /// For this user alone: it may hold values of rows.
    pub(super) fn create(path: &Path) -> Result<NamedTempFile, Failure> {
        if is_database(path) {
            return Err(Failure::new(
                format!("{} is an SQLite database (a ledger, or tables): it is not replaced", path.display()),
                "name another file",
            ));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        tempfile::Builder::new()
            .prefix(&name)
            .suffix(".partial")
            .tempfile_in(folder.unwrap_or_else(|| Path::new(".")))
            .map_err(|error| {
                Failure::new(
                    format!("cannot write {}: {error}", path.display()),
                    "check the folder and its permissions",
                )
            })
    }

    pub(super) fn put(file: NamedTempFile, path: &Path, overwrite: bool) -> Result<(), Failure> {
        file.as_file().sync_all().map_err(|error| Self::failed(path, &error))?;
        let put = if overwrite { file.persist(path) } else { file.persist_noclobber(path) };
        put.map(drop).map_err(|error| Self::failed(path, &error.error))
    }

    pub(super) fn failed(path: &Path, error: &std::io::Error) -> Failure {
        Failure::new(format!("cannot write {}: {error}", path.display()), "is the disk full?")
    }
}

/// What no report may take the place of.
fn is_database(path: &Path) -> bool {
    let mut start = [0; 16];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == *b"SQLite format 3\0"
}

enum To {
    Standard(std::io::Stdout),
    /// What is no ordinary file (a pipe, a device) is written as it is.
    Special(std::fs::File),
    File(BufWriter<NamedTempFile>, PathBuf),
    Done,
}

/// Standard output or a file. A reader that closes the pipe has seen enough.
pub(super) struct Output {
    to: To,
    name: String,
    terminal: bool,
    closed: bool,
}

impl Output {
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let (to, name) = match path {
            None => (To::Standard(std::io::stdout()), "standard output".to_owned()),
            Some(path) => {
                let special = path.metadata().is_ok_and(|found| !found.is_file());
                let to = if special {
                    let file = std::fs::File::create(path).map_err(|error| {
                        Failure::new(
                            format!("cannot write {}: {error}", path.display()),
                            "check the folder and its permissions",
                        )
                    })?;
                    To::Special(file)
                } else {
                    // A link stays one: the file that it leads to is replaced.
                    let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
                    To::File(BufWriter::new(Beside::create(&place)?), place)
                };
                (to, path.display().to_string())
            }
        };
        Ok(Self { to, name, terminal: path.is_none() && std::io::stdout().is_terminal(), closed: false })
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    pub(super) fn write(&mut self, text: &str) -> Result<(), Failure> {
        if self.closed {
            return Ok(());
        }
        let written = match &mut self.to {
            To::Standard(to) => to.write_all(text.as_bytes()),
            To::Special(to) => to.write_all(text.as_bytes()),
            To::File(to, _) => to.write_all(text.as_bytes()),
            To::Done => Ok(()),
        };
        self.check(written)
    }

    /// Flushes; a file appears in its place. Nothing can be written behind it.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        match std::mem::replace(&mut self.to, To::Done) {
            To::Standard(mut to) => {
                let flushed = to.flush();
                self.to = To::Standard(to);
                self.check(flushed)
            }
            To::File(to, place) => {
                let file = to.into_inner().map_err(|error| Beside::failed(&place, error.error()))?;
                Beside::put(file, &place, true)
            }
            To::Special(mut to) => self.check(to.flush()),
            To::Done => Ok(()),
        }
    }

    fn check(&mut self, result: std::io::Result<()>) -> Result<(), Failure> {
        match result {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(error) => {
                Err(Failure::new(format!("cannot write {}: {error}", self.name), "is the disk full?"))
            }
            Ok(()) => Ok(()),
        }
    }
}
