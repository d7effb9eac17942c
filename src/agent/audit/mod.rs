//! Every write is recorded before it is made, and can be taken back: recorder, undo journal, the one writer, and the undo.
//!
//! Above `trail` (the words that an audit trail is told) and `undo` (the journals on disk), which know nothing of a run.

mod journal_keeper;
mod recorder;
mod undo_check;
mod undo_run;
mod undo_table;
mod whole_rows;
pub(crate) mod writer;

pub(crate) use recorder::{Recorded, Recorder};
pub(crate) use undo_run::run as undo;
