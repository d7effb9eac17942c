//! it

mod engine_postgres;
