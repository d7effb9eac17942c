//! Where data goes: standard output, or a file.

use std::io::{IsTerminal, Write};
use std::path::Path;

use super::Failure;

/// Standard output or a file. A reader that closes the pipe has seen enough.
pub(super) struct Output {
    to: Box<dyn Write + Send>,
    name: String,
    terminal: bool,
    closed: bool,
}

impl Output {
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let (to, name): (Box<dyn Write + Send>, _) = match path {
            None => (Box::new(std::io::stdout()), "standard output".to_owned()),
            Some(path) => {
                let file = std::fs::File::create(path).map_err(|error| {
                    Failure::new(
                        format!("cannot write {}: {error}", path.display()),
                        "check the folder and its permissions",
                    )
                })?;
                (Box::new(std::io::BufWriter::new(file)), path.display().to_string())
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
        let written = self.to.write_all(text.as_bytes());
        self.check(written)
    }

    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        let flushed = self.to.flush();
        self.check(flushed)
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
