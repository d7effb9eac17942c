//! The coordinator that keeps running: what is due is claimed and run, what fails is told, what passes again too.
//!
//! Invariants:
//! - Due times, leases, incidents and messages are in the ledger alone: a coordinator that is killed loses nothing, and
//!   another on the same ledger takes over when its leases end.
//! - The end of a check, its incidents, the messages about them and its next due time are one transaction, and only who
//!   still holds the check's lease may make it. Who cannot renew a lease stops the run before the lease ends.
//! - A message is sent at least once, with an id by which the receiver knows it again: under one id the same is sent.
//! - Waits and durations are of a monotonic clock; what the clock of the wall says of the future is doubted.
//! - Messages, metrics and logs hold names and counts, no row values and no secrets.
//! - Clock, chance and names are arguments ([`Ground`]).

mod asked;
pub mod channel;
mod clock;
mod dispatch;
mod due;
pub mod http;
mod incident;
mod lease;
mod message;
mod metrics;
mod outbox;
mod outcome;

use jiff::Timestamp;

pub use asked::{Asked, repair_limit};
pub use dispatch::{Coordinator, Ran, Runner};
pub use due::Group;
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

#[cfg(test)]
mod tests;
