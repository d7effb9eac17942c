//! it
mod engine_mysql;
