//! The configured checks: planned against both schemas, measured in as few queries as can be, judged, told.
//!
//! All totals of a table, whatever their windows, are one query a side; rows per step are one more. A check that fails is
//! measured again before it is told, since the two sides are never read at the same moment.

mod again;
mod alone;
mod hint;
mod judge;
mod plan;
mod repaired;
mod run;
mod scalar;
mod total;

pub use plan::{Inspection, inspect};
pub use run::{CheckOptions, NoNotes, Notes, Selected, may_write, run_pair, select, unreachable};
