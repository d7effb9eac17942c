//! What becomes of the rows that differ: they are read again, told or written, and the result is proved.

mod bulk_insert;
mod limits;
mod overlay;
mod proof;
mod refusals;
mod row_requests;
mod run;
mod second_scan;
mod settle;
mod verdict;
mod write;
mod writing;

pub(crate) use run::settle;
