//! Agents of other processes: over gRPC, with TLS and tokens.

pub mod client;
mod dial;
mod rendezvous;
pub mod security;
pub mod server;
mod service;
mod status;
mod task_stream;
