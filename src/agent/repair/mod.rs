//! What becomes of the rows that differ: they are read again, told or written, and the result is proved.

mod bulk_insert;
mod limits;
mod overlay;
mod proof;
mod row_requests;
mod run;
mod second_scan;
mod settle;
mod write;

pub(crate) use run::settle;
