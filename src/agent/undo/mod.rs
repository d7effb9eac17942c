//! Undo: what a repair overwrites is kept beside the target's agent, encrypted, and can be put back.
//!
//! Invariants:
//! - A batch is in the journal, and on the disk, before it is written to the database: whenever the agent dies, what may
//!   have been written can be undone.
//! - A row is put back only if it still holds what the run wrote. A newer write stays.
//! - Only the agent that wrote has the rows; they never leave it.

mod head;
pub(super) mod journal;
mod key;
pub(super) mod own;
mod store;

pub(super) use head::{DigestSecret, JournalHead};
pub(super) use journal::Journal;
pub use key::UndoKey;
pub use store::UndoStore;
