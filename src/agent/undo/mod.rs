//! Undo: what a repair overwrites is kept beside the target's agent, encrypted, and can be put back.
//!
//! Invariants:
//! - A batch is in the journal, and on the disk, before it is written to the database: whenever the agent dies, what may
//!   have been written can be undone.
//! - A row is put back only if all of it still holds what the run left. A newer write stays.
//! - What the journal does not hold is named before the run writes ([`limits`]), and no undo of it is whole.
//! - Only the agent that wrote has the rows; they never leave it.
//! - One undo takes a run back at a time, after the run has ended, and into the table that the run wrote.

mod head;
pub(super) mod journal;
mod key;
pub(super) mod limits;
pub(super) mod lock;
pub(super) mod own;
pub(super) mod reader;
mod seal;
pub(super) mod standing;
mod store;

pub(super) use head::{DigestSecret, JournalHead};
pub(super) use journal::Journal;
pub use key::UndoKey;
pub use store::UndoStore;
