//! The PostgreSQL engine against a real server, with the server as the oracle.

mod changes;
mod keys;
mod reading;
mod setup;
mod types;
mod values;
