//! What can go wrong while a digest run is built or read.

use std::io;
use std::path::PathBuf;

use crate::model::Key;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The key columns do not identify a row.
    #[error("two rows have the same key")]
    DuplicateKey { key: Key },
    /// Scratch space is full, not writable, or failed while it was read back.
    #[error("cannot {action} the scratch file of digests in {}", path.display())]
    Scratch {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The scratch file does not hold what was written into it.
    #[error("the scratch file of digests in {} is damaged", path.display())]
    Damaged { path: PathBuf },
    /// An overlay or a tree was fed out of key order, or asked for rows that are not there: a mistake of the caller.
    #[error("digest run was used out of order: {0}")]
    Misuse(&'static str),
}
