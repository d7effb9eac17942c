//! What the integration tests share: private databases, and the built binary run hermetically.
#![allow(dead_code, reason = "each test module uses its own part")]

pub(crate) mod process;
pub(crate) mod servers;
