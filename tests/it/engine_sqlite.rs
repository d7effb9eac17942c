//! The SQLite engine against real files, with SQLite itself as the oracle, and against the two servers.

mod keys;
mod pairs;
mod schema;
mod setup;
mod spelled;
