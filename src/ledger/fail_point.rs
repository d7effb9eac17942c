//! Where tests end the process: before a statement of the ledger, by its number. Not in releases.

use std::sync::atomic::{AtomicU64, Ordering};

static LEFT: AtomicU64 = AtomicU64::new(u64::MAX);

/// Ends the process before this statement, counted from now on, as `kill -9` would.
pub fn end_before(statement: u64) {
    LEFT.store(statement, Ordering::SeqCst);
}

/// A statement is about to be executed.
pub(super) fn statement() {
    let before = LEFT.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
        u64::MAX => None,
        left => Some(left.saturating_sub(1)),
    });
    if before == Ok(0) {
        // Nothing is flushed, dropped or rolled back.
        std::process::abort();
    }
}
