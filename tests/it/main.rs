//! The one integration binary: everything that needs a real database, a second process or the sources themselves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::zombie_processes,
    clippy::type_complexity,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

mod absence;
mod acknowledged;
mod agents;
mod architecture;
mod backfill;
mod backfill_claims;
mod backfill_far;
mod checks;
mod checks_claims;
mod checks_sql;
mod circles;
mod cli;
mod columns;
mod config;
mod conformance;
mod courtesy;
mod dashboard;
mod ends_early;
mod engine_mysql;
mod engine_postgres;
mod engine_sqlite;
mod evidence;
mod exactness;
mod exchanges;
mod filling;
mod grpc;
mod grpc_hostile;
mod grpc_tls;
mod hidden_from_login;
mod kill_points;
mod kills;
mod kills_recorded;
mod ledger_file;
mod ledger_server;
mod left_out;
mod live;
mod many;
mod matrix;
mod permission;
mod playbook;
mod proofs;
mod readme;
mod reconcile;
mod refusals;
mod refused_under_condition;
mod row_locks;
mod search_path;
mod serve;
mod serve_dashboard;
#[cfg(debug_assertions)]
mod serve_kills;
mod serve_pair;
mod served_tables;
mod side_effects;
mod sql_file;
mod stops;
mod support;
mod table_names;
mod tidy;
mod tolerance;
mod traces;
mod undo;
mod undo_alone;
mod undo_columns;
mod undo_place;
mod wire_conditions;
mod writing;
