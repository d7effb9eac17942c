//! What becomes of the rows that differ: they are read again, reported or written, and the result is proved.
//!
//! Each stage is a type that owns its state and hands values on:
//!
//! ```text
//! SecondScan ─► Passes ──rereads──► Settlement ──permitted changes──► BatchWriter
//!   suspects      RowRequests         Policy: what may be written         Recorder, Breaker
//!                 recheck: decides    Verdicts: what is counted and reported
//!                                     Overlay ──────────────────────► RepairProof
//! ```
//!
//! `run` puts them together; `bulk_insert` and `retry` bring rows to the same `Settlement` by other ways.

mod batch_writer;
mod breaker;
mod bulk_insert;
mod outside;
mod overlay;
mod passes;
mod policy;
mod proof;
mod recheck;
mod refusals;
mod retry;
mod row_requests;
mod run;
mod second_scan;
mod settle;
mod verdict;

pub(crate) use run::settle;
