//! One side of a comparison: scans its database, talks to its peer, repairs its own tables.
//!
//! Invariants:
//! - The target's agent drives; the source's agent answers. Rows go from the source's agent to the target's, nowhere else.
//! - Only `wire` turns foreign bytes into types; it returns errors and never panics.
//! - A snapshot ends with the scan, before the conversation begins.

mod asking;
pub mod client;
mod digesting;
pub mod error;
pub mod event;
mod fill;
mod handle;
pub mod intents;
mod judge;
mod life;
pub mod link;
pub mod local;
mod pace;
mod parts;
mod patch;
mod rendezvous;
mod roll_call;
mod scan;
pub mod security;
pub mod server;
mod service;
mod settle;
mod source;
mod spool;
mod status;
mod target;
pub mod told;
mod trail;
pub mod undo;
mod verify;
pub mod wire;
mod write;

/// The generated wire contract.
#[allow(clippy::all, unreachable_pub, unused_qualifications, missing_docs, reason = "generated")]
pub mod proto {
    tonic::include_proto!("trueup.v1");

    /// For server reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

pub use client::RemoteAgent;
pub use error::AgentError;
pub use event::{
    Allow, Difference, DifferenceKind, DifferingColumn, EqualTable, Event, Phase, TableOutcome, TableTask,
    Task, TaskOptions, UndoTask, Undone, ValuePair,
};
pub use handle::{AgentHandle, start, undo_on};
pub use intents::{HASH_DIGITS, Intents, RowIntent, RowOutcome, hashes};
pub use link::{Link, LinkCounts};
pub use local::{AgentLimits, LocalAgent, Serves};
pub use pace::Courtesy;
pub use roll_call::ROLL_CALL_MAX;
pub use told::{TrailSecret, TrailWish};
pub use undo::{UndoKey, UndoStore};

/// Agents of another protocol version are refused.
pub const PROTOCOL_VERSION: u32 = 3;

/// What this build calls itself.
pub const SOFTWARE: &str = concat!("trueup ", env!("CARGO_PKG_VERSION"));
