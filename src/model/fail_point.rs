//! Places at which a test can end the process, between any two steps of a write. A build without debug assertions, as every
//! release build is, has none of them.

#[cfg(debug_assertions)]
use std::sync::atomic::{AtomicU64, Ordering};

/// Points that are still passed; `u64::MAX`: all of them.
#[cfg(debug_assertions)]
static LEFT: AtomicU64 = AtomicU64::new(u64::MAX);

/// The process ends at the nth point from now, as by `kill -9`: nothing is written, told or rolled back any more.
#[cfg(debug_assertions)]
pub fn arm(nth: u64) {
    LEFT.store(nth, Ordering::SeqCst);
}

#[inline]
pub fn fail_point() {
    #[cfg(debug_assertions)]
    {
        if LEFT.load(Ordering::Relaxed) != u64::MAX && LEFT.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::abort();
        }
    }
}
