//! `trueup.toml`: what it may say, and what it means once every name in it was found.
//!
//! Reading goes in two steps: `raw` is the file as serde reads it, every word with its place; `resolve` follows the
//! references and gives either a [`Config`] or everything that is wrong, each with its line.

mod check;
mod diagnose;
pub mod example;
mod raw;
mod resolve;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bigdecimal::BigDecimal;

pub use diagnose::{Diagnostic, render, suggest};

use crate::model::measure::Step;
use crate::model::{TableName, Wishes};

#[derive(Debug, Clone, Default)]
pub struct Config {
    pub endpoints: BTreeMap<String, EndpointSpec>,
    pub pairs: BTreeMap<String, PairSpec>,
    /// In the order of their names.
    pub checks: BTreeMap<String, CheckSpec>,
}

/// Where a database or agent is. No field holds a secret: those are read from the environment or a file when used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSpec {
    pub line: usize,
    pub url: UrlSpec,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub token_env: Option<String>,
    pub token_file: Option<PathBuf>,
    pub insecure: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UrlSpec {
    /// Without a password.
    Plain(String),
    Env(String),
    File(PathBuf),
}

#[derive(Debug, Clone)]
pub struct PairSpec {
    pub line: usize,
    /// Names of endpoints.
    pub source: String,
    pub target: String,
    pub source_schema: Option<String>,
    pub target_schema: Option<String>,
    /// None: every table that both sides have.
    pub tables: Vec<TableSpec>,
}

#[derive(Debug, Clone)]
pub struct TableSpec {
    pub line: usize,
    pub source: TableName,
    pub target: TableName,
    pub wishes: Wishes,
    /// Column name at the source to the distance within which values count as equal.
    pub tolerance: BTreeMap<String, f64>,
}

#[derive(Debug, Clone)]
pub struct CheckSpec {
    pub line: usize,
    pub pair: String,
    /// By source name; `None`: every table of the pair.
    pub table: Option<TableName>,
    pub kind: CheckKind,
    pub tolerance: Tolerance,
    pub window: Option<Window>,
    pub severity: Severity,
    pub owner: Option<String>,
    pub repair: RepairPolicy,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    /// Every row, located.
    Rows,
    Count,
    Sum {
        column: String,
    },
    Min {
        column: String,
    },
    Max {
        column: String,
    },
    /// Percent of rows whose column is NULL.
    NullShare {
        column: String,
    },
    /// The newest value of a time column: how far the target is behind, and how old the newest may be.
    Freshness {
        column: String,
        max_age: Option<Duration>,
    },
    /// Rows per step on both sides.
    Gaps {
        column: String,
        step: Step,
        time_zone: String,
    },
    Duplicates {
        key: Vec<String>,
    },
    Sql {
        source: String,
        target: String,
    },
}

impl CheckKind {
    pub const NAMES: [&str; 10] =
        ["rows", "count", "sum", "min", "max", "null_share", "freshness", "gaps", "duplicates", "sql"];

    pub fn name(&self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Count => "count",
            Self::Sum { .. } => "sum",
            Self::Min { .. } => "min",
            Self::Max { .. } => "max",
            Self::NullShare { .. } => "null_share",
            Self::Freshness { .. } => "freshness",
            Self::Gaps { .. } => "gaps",
            Self::Duplicates { .. } => "duplicates",
            Self::Sql { .. } => "sql",
        }
    }
}

/// How far apart the two sides may be; any one that holds is enough.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tolerance {
    pub absolute: Option<BigDecimal>,
    /// Of the source's value.
    pub percent: Option<BigDecimal>,
    pub rows: Option<u64>,
    pub lag: Option<Duration>,
}

/// Only rows of the last `last`, without those of the last `settle`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    pub column: String,
    pub last: Duration,
    pub settle: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Severity {
    Info,
    #[default]
    Warning,
    Critical,
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RepairPolicy {
    #[default]
    Never,
    /// Tell what a repair would do.
    DryRun,
    /// Repair, unless more rows than this would change.
    UpTo(u64),
}

/// Reads a configuration; all that is wrong with it, in the order of its lines.
pub fn parse(text: &str) -> Result<Config, Vec<Diagnostic>> {
    let raw: raw::File = toml::from_str(text).map_err(|error| vec![diagnose::from_toml(text, &error)])?;
    resolve::resolve(text, raw)
}

#[cfg(test)]
mod tests;
