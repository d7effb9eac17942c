//! How much a repair may change.

/// Rows that a share may always overwrite.
const OVERWRITES_ALWAYS: u64 = 1_000;

/// A percentage of rows, but never so small that a small table could not be repaired.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share is approximate"
)]
pub(super) fn share(rows: u64, percent: f64) -> u64 {
    ((rows as f64 * percent / 100.0) as u64).max(OVERWRITES_ALWAYS)
}
