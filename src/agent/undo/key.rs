//! The key of the undo journals, and what is said where their folder fails.

use std::fmt;
use std::path::Path;

use super::super::error::{AgentError, FailureKind};
use super::super::secret_file::{parse_secret, secret_file};

/// The key of a folder of journals. Whoever has it and the files has the rows.
#[derive(Clone)]
pub struct UndoKey(pub(crate) [u8; 32]);

impl fmt::Debug for UndoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UndoKey(secret)")
    }
}

impl UndoKey {
    /// 64 hex digits.
    pub fn parse(text: &str, whence: &str) -> Result<Self, AgentError> {
        parse_secret(text, whence).map(Self)
    }

    /// Reads the key from a file; makes one, for its owner's eyes alone, where there is none.
    pub fn load_or_make(path: &Path) -> Result<Self, AgentError> {
        secret_file(path).map(Self)
    }
}

pub(crate) fn cannot(path: &Path, what: &str, error: &dyn fmt::Display) -> AgentError {
    let what = format!("cannot {what} the undo journal {}: {error}", path.display());
    AgentError::new(FailureKind::Resource, what)
        .with_hint("check --undo-dir and the disk, or go without with --no-undo")
}
