//! What a value, a key, a row and a plan are here: the words every other floor speaks.

pub mod key;

pub use key::Key;
