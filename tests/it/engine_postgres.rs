//! The PostgreSQL engine against a real server, with the server as the oracle.

mod changes;
mod inheritance;
mod keys;
mod pooler;
mod reading;
mod schema;
mod setup;
mod types;
mod values;
