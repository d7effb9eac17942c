//! Secrets of 32 bytes, as 64 hex digits in a file.

use std::fmt;
use std::io::Write;
use std::path::Path;

use super::error::{AgentError, FailureKind};
use crate::model::value::hex;

/// 64 hex digits; `whence` is for the message.
pub(super) fn parse_secret(text: &str, whence: &str) -> Result<[u8; 32], AgentError> {
    unhex(text.trim()).ok_or_else(|| {
        AgentError::new(FailureKind::Usage, format!("{whence} holds no key"))
            .with_hint("a key is 32 random bytes as 64 hex digits: openssl rand -hex 32")
    })
}

/// 32 secret bytes in a file of 64 hex digits, made with mode 0600 where it is missing.
pub(super) fn secret_file(path: &Path) -> Result<[u8; 32], AgentError> {
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
    parse_secret(&text, &path.display().to_string())
}

pub(super) fn private_folder(folder: &Path) -> std::io::Result<()> {
    if folder.as_os_str().is_empty() {
        return Ok(());
    }
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

pub(super) fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}
