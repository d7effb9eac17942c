//! `trueup.toml`: what it may say, and what it means once every name in it was found.
//!
//! Reading goes in two steps: `raw` is the file as serde reads it, every word with its place; `resolve` follows the
//! references and gives either a [`Config`] or everything that is wrong, each with its line.

mod check;
mod diagnose;
pub mod example;
mod operate;
mod raw;
mod resolve;
mod timetable;
pub mod url;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bigdecimal::BigDecimal;

pub use diagnose::{Diagnostic, render, suggest};
pub use operate::SCHEDULE_DEFAULT;
pub use timetable::{Schedule, Timetable};

use crate::model::measure::Step;
use crate::model::{TableName, Tolerances, Unpaired, Wishes};

#[derive(Debug, Clone, Default)]
pub struct Config {
    pub endpoints: BTreeMap<String, EndpointSpec>,
    pub pairs: BTreeMap<String, PairSpec>,
    /// In the order of their names.
    pub checks: BTreeMap<String, CheckSpec>,
    pub storage: StorageSpec,
    pub serve: ServeSpec,
    pub alerts: BTreeMap<String, AlertSpec>,
    pub retention: Retention,
}

/// Where evidence is kept. What is not said is as on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageSpec {
    /// A file, a postgres:// URL, or `env:NAME`.
    pub ledger: Option<String>,
    pub audit_key_file: Option<PathBuf>,
    pub keep_keys: bool,
    pub undo: bool,
    pub undo_dir: Option<PathBuf>,
    pub undo_key_file: Option<PathBuf>,
    pub undo_keep: Option<Duration>,
}

impl Default for StorageSpec {
    fn default() -> Self {
        Self {
            ledger: None,
            audit_key_file: None,
            keep_keys: false,
            undo: true,
            undo_dir: None,
            undo_key_file: None,
            undo_keep: None,
        }
    }
}

/// The coordinator that keeps running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeSpec {
    pub listen: SocketAddr,
    /// Under which people reach it: for links in alerts.
    pub public_url: Option<String>,
    /// Checks that run at once.
    pub concurrency: usize,
    /// How long checks that run may go on after a stop was asked for.
    pub grace: Duration,
    /// How long a coordinator that is not heard of keeps its checks.
    pub lease: Duration,
    pub view_token: Option<SecretSpec>,
    pub operate_token: Option<SecretSpec>,
}

impl Default for ServeSpec {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8420)),
            public_url: None,
            concurrency: 2,
            grace: Duration::from_secs(30),
            lease: Duration::from_secs(60),
            view_token: None,
            operate_token: None,
        }
    }
}

/// Where a secret is read from when it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSpec {
    Env(String),
    File(PathBuf),
    /// No secret after all.
    Plain(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertSpec {
    pub line: usize,
    pub kind: AlertKind,
    pub min_severity: Severity,
    /// Names of checks; none: all.
    pub checks: Vec<String>,
    /// Tell also that a check passes again.
    pub resolved: bool,
    /// So long is waited for others before a message goes out.
    pub group: Duration,
    /// The first pause after a message that could not be sent; each later one is twice as long, up to a minute.
    pub retry: Duration,
    pub give_up: Duration,
    /// Tell again what still fails.
    pub repeat: Option<Duration>,
}

impl Default for AlertSpec {
    fn default() -> Self {
        Self {
            line: 0,
            kind: AlertKind::Command { command: Vec::new() },
            min_severity: Severity::Warning,
            checks: Vec::new(),
            resolved: true,
            group: Duration::from_secs(10),
            retry: Duration::from_secs(5),
            give_up: Duration::from_secs(24 * 3600),
            repeat: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertKind {
    /// Signed with the secret, where there is one.
    Webhook {
        url: SecretSpec,
        secret: Option<SecretSpec>,
    },
    Slack {
        url: SecretSpec,
    },
    PagerDuty {
        routing_key: SecretSpec,
        /// Another place than PagerDuty's.
        url: Option<SecretSpec>,
    },
    Email {
        smtp: SecretSpec,
        from: String,
        to: Vec<String>,
    },
    Command {
        command: Vec<String>,
    },
}

/// How long things are kept; what is not said is kept for ever.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    pub runs: Option<Duration>,
    pub last_runs: u64,
    pub trail: Option<Duration>,
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
    /// What columns mean that only one side has; a table may say otherwise.
    pub unpaired: Unpaired,
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
    pub tolerance: Tolerances,
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
    pub timetable: Timetable,
    /// The login may be kept from rows on purpose: what it sees is what is checked.
    pub accept_hidden_rows: bool,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
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
