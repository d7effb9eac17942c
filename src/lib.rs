//! `trueup` finds out, cheaply and provably, where two copies of a table differ, and makes the target true to the source.
//!
//! The house has floors, and imports point only downwards (`tests/it/architecture.rs` holds it):
//!
//! | floor | folders | knows |
//! | --- | --- | --- |
//! | 4 | `cli` | people: arguments, progress, colours, exit status |
//! | 3 | `coordinator`, `report`, `config`, `checks`, `ledger`, `serve` | runs: plan, diff, repair, backfill, checks, verdicts, evidence |
//! | 2 | `agent` | one side: sessions, the scan pipeline, gRPC, TLS and tokens |
//! | 1 | `engine` | one database each, behind one trait |
//! | 0 | `model`, `merkle`, `locate` | no network and no database: values, digests, trees, the locate protocol |

pub mod agent;
pub mod checks;
pub mod cli;
pub mod config;
pub mod coordinator;
pub mod dashboard;
pub mod engine;
pub mod ledger;
pub mod locate;
pub mod merkle;
pub mod model;
pub mod report;
pub mod serve;
