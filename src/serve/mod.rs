//! The coordinator that keeps running: what is due is claimed and run, what fails is told, what passes again too.
//!
//! Invariants:
//! - Due times, leases, incidents and messages are in the ledger alone: a coordinator that is killed loses nothing, and
//!   another on the same ledger takes over when its leases end.
//! - Only who still holds a check's lease may change its incident or send word of it.
//! - A change of an incident and the messages about it are one transaction; a message is sent at least once, with a key by
//!   which the receiver knows it again.
//! - Messages, metrics and logs hold names and counts, no row values and no secrets.
//! - Clock, chance and names are arguments ([`Ground`]).

mod asked;
pub mod channel;
mod dispatch;
pub mod http;
mod incident;
mod message;
mod metrics;
mod outbox;

use jiff::Timestamp;

pub use asked::{Asked, repair_limit};
pub use dispatch::{Coordinator, Group, Ran, Runner};
pub use incident::{Change, key_of, step};
pub use message::Item;
pub use metrics::Metrics;
pub use outbox::Sender;

/// What only the topmost floor knows.
#[derive(Debug, Clone, Copy)]
pub struct Ground {
    pub now: fn() -> Timestamp,
    /// From 0 to 1.
    pub chance: fn() -> f64,
    /// Unique, sortable by time.
    pub id: fn() -> String,
}

/// As the ledger keeps times: RFC 3339 in UTC with milliseconds; sorts as text.
pub fn text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}
