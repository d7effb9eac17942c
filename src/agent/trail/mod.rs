//! What an audit trail is told of every batch: its rows by keyed hashes before it is written, and what became of them.
//!
//! The words alone: `audit` says them, and waits for their acknowledgement.

mod acknowledge;
mod intents;
mod told;

pub use acknowledge::Acknowledge;
pub use intents::{HASH_DIGITS, Intents, RowIntent, RowOutcome, hashes};
pub use told::{TrailSecret, TrailWish, plain_key};
