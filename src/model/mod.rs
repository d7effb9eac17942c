//! What a value, a key, a row and a plan are here: the words every other floor speaks.
//!
//! Invariants: no I/O, no clock, no randomness. Nothing that holds a row's content shows it in `Debug`.

pub mod access;
pub mod canonical;
pub mod change;
pub mod comparison;
pub mod coverage;
pub mod decimal;
pub mod distance;
pub mod fail_point;
pub mod float_sum;
pub mod json;
pub mod key;
pub mod measure;
pub mod permission;
pub mod plan;
pub mod role;
pub mod row_run;
pub mod scalar;
pub mod schema;
mod schema_rules;
pub mod temporal;
pub mod value;
mod wishes;

pub use access::{AccessColumn, TableAccess};
pub use canonical::{CellWriter, ENCODING_VERSION, NullKey, RowBuffer};
pub use change::{CanonicalRow, Change, ChangeOutcome, KeyedRow, Operation, Rejection, RejectionKind};
pub use comparison::ComparisonType;
pub use coverage::{ColumnCoverage, Unpaired, UnpairedColumn};
pub use distance::{Distance, Tolerances};
pub use fail_point::fail_point;
pub use key::Key;
pub use measure::{Answer, Question};
pub use permission::{
    Allow, Permission, Permitted, PermittedChanges, PermittedExchange, PermittedInserts, Refusal,
};
pub use plan::{Plan, PlanRefusal};
pub use role::Role;
pub use row_run::RowRun;
pub use schema::{
    Column, ColumnType, EngineKind, Filled, Referrer, Rounding, ServerInfo, TableName, TableSchema, UniqueKey,
};
pub use value::{StoredClass, Value};
pub use wishes::{Ranges, Wishes};
