//! What the integration tests share: private databases, and the built binary run hermetically.
#![allow(dead_code, reason = "each test module uses its own part")]

pub(crate) mod agents;
pub(crate) mod any;
pub(crate) mod batches;
pub(crate) mod blind;
pub(crate) mod browser;
pub(crate) mod gate;
pub(crate) mod held;
pub(crate) mod hooked;
pub(crate) mod permit;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod receiver;
pub(crate) mod serve;
pub(crate) mod servers;
pub(crate) mod tls;
pub(crate) mod wrapped;
