//! One side of a comparison: scans its database, talks to its peer, repairs its own tables.
//!
//! Invariants:
//! - The target's agent drives; the source's agent answers. Rows go from the source's agent to the target's, nowhere else.
//! - Only `session::wire` turns foreign bytes into types; it returns errors and never panics.
//! - A snapshot ends with the scan, before the conversation begins.
//!
//! Folders, each of which imports only from those before it: `compare` holds what is known of rows that differ; `trail` and
//! `undo` hold what is recorded of writes (the words of an audit trail, the undo journals); `scan` reads tables; `session`
//! is the conversation; `audit` records, writes and takes back; `repair` decides; `rpc` is gRPC.

mod audit;
mod compare;
mod conversation;
mod difference;
pub mod error;
pub mod event;
mod handle;
mod identity;
mod in_process;
pub mod listed;
mod local;
mod outcome;
mod pace;
mod repair;
mod rpc;
mod scan;
mod secret_file;
mod session;
mod small_tables;
mod source;
mod table_run;
mod target;
mod trail;
pub mod undo;

pub use rpc::client::RemoteAgent;
pub use rpc::{client, security, server};
pub use session::wire;

/// The generated wire contract.
#[allow(clippy::all, unreachable_pub, unused_qualifications, missing_docs, reason = "generated")]
pub mod proto {
    tonic::include_proto!("trueup.v1");

    /// For server reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

pub use crate::model::Allow;

pub use difference::{Difference, DifferenceKind, DifferingColumn, ValuePair};
pub use error::AgentError;
pub use event::{EqualTable, Event, Phase, TableTask, Task, TaskOptions, UndoTask, Undone};
pub use handle::{Agent, AgentHandle, Serving, SourceEnd, start};
pub use in_process::in_process;
pub use listed::Listed;
pub use local::{AgentLimits, LocalAgent, Serves};
pub use outcome::{PhaseSeconds, TableOutcome};
pub use pace::Courtesy;
pub use session::link::{Link, LinkCounts};
pub use small_tables::ROLL_CALL_MAX;
pub use trail::{
    Acknowledge, HASH_DIGITS, Intents, RowIntent, RowOutcome, TrailSecret, TrailWish, hashes, plain_key,
};
pub use undo::{UndoKey, UndoStore};

/// Agents of another protocol version are refused.
pub const PROTOCOL_VERSION: u32 = 6;

/// What this build calls itself.
pub const SOFTWARE: &str = concat!("trueup ", env!("CARGO_PKG_VERSION"));
