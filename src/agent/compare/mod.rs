//! What a run knows of the rows that differ: suspects, what they look like when they are read again, how they are told.
//!
//! Nothing here reads or writes a database, or talks to a peer.

pub(crate) mod balance;
pub(crate) mod describe;
pub(crate) mod key_histogram;
pub(crate) mod missing_rows;
pub(crate) mod reread;
pub(crate) mod suspects;
