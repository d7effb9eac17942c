//! What was typed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::evidence_args::{
    AuditArgs, EvidenceArgs, PruneArgs, ReportArgs, RunsArgs, UndoArgs, UndoStoreArgs,
};
use crate::model::{Distance, TableName};

/// Finds where two copies of a table differ, cheaply and provably, and makes the target true to the source.
#[derive(Debug, Parser)]
#[command(name = "trueup", version, about, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Exit status: 0 the same (repair: proved equal), 1 differences, 2 could not tell.")]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
    /// Log more to standard error (-vv for still more); TRUEUP_LOG takes a filter
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Form of the log
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "TRUEUP_LOG_FORMAT")]
    pub(super) log_format: LogFormat,
    /// Send traces to this OpenTelemetry collector by gRPC, as http://127.0.0.1:4317 (default: none)
    #[arg(long, global = true, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub(super) otlp: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the main job on two SQLite files with known differences: diff, repair, proof
    Demo(DemoArgs),
    /// Tell what differs
    Diff(DiffArgs),
    /// Make the target true to the source
    Repair(RepairArgs),
    /// Find the gaps in a range, fill them, and prove that none is left
    Backfill(super::backfill::BackfillArgs),
    /// Run the configured checks once
    Check(super::check::CheckArgs),
    /// Run checks when they are due, and tell what fails: the coordinator to leave running
    Serve(super::serve::ServeArgs),
    /// Write a commented configuration for two databases
    Init(super::config::InitArgs),
    /// Look after the configuration
    Config(super::config::ConfigArgs),
    /// Serve one database to peers
    Agent(AgentArgs),
    /// Show the ledger to a browser
    Dashboard(super::dashboard::DashboardArgs),
    /// List what was run
    Runs(RunsArgs),
    /// Show one run for an auditor: what was compared, what differed, what was done, and the proof
    Report(ReportArgs),
    /// Show, verify or export the audit trail
    Audit(AuditArgs),
    /// Take a repair back: rows that still hold what it wrote get back what they held
    Undo(UndoArgs),
    /// Remove old runs, trail entries and undo journals; the trail's chain stays provable
    Prune(PruneArgs),
    /// Print shell completions
    Completions { shell: clap_complete::Shell },
    /// Write man pages (to standard output, or one file a command into DIR)
    Man { dir: Option<PathBuf> },
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Keep the two files in this folder (default: a temporary one, removed at the end)
    #[arg(long)]
    pub(super) dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trueup diff postgres://app@east/shop postgres://app@west/shop -t orders
  trueup diff mysql://app@old/shop postgres://app@new/shop --exclude updated_at
  trueup diff env:SOURCE_URL grpcs://west.example:7443 --ca ca.pem --token-file token")]
pub(super) struct DiffArgs {
    #[command(flatten)]
    pub(super) pair: PairArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trueup repair postgres://app@east/shop postgres://app@west/shop -t orders --dry-run
  trueup repair sqlite://good.db sqlite://stale.db --allow insert,update,delete
  trueup repair SOURCE TARGET -t orders --sql fix.sql")]
pub(super) struct RepairArgs {
    #[command(flatten)]
    pub(super) pair: PairArgs,
    /// Write nothing: tell what would be done
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Write the changes to FILE as SQL instead of making them; the target must be a database URL
    #[arg(long, value_name = "FILE")]
    pub(super) sql: Option<PathBuf>,
    /// Replace the file of --sql where it is there already
    #[arg(long, requires = "sql")]
    pub(super) overwrite: bool,
    /// What a repair may do
    #[arg(long, value_delimiter = ',', default_values_t = [Allowed::Insert, Allowed::Update])]
    pub(super) allow: Vec<Allowed>,
    /// Write nothing if more rows than this would change: a number of rows, or as N% the share of the target's rows that
    /// may be updated or deleted (1,000 may always be)
    #[arg(long, value_name = "N|N%", default_value = "50%")]
    pub(super) max_changes: MaxChanges,
    /// Delete rows even where foreign keys then delete or change rows of other tables
    #[arg(long)]
    pub(super) allow_cascade: bool,
    /// Keep no undo journal of this run: what it overwrites cannot be put back
    #[arg(long, help_heading = "Evidence")]
    pub(super) no_undo: bool,
    #[command(flatten)]
    pub(super) undo: UndoStoreArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Allowed {
    Insert,
    Update,
    Delete,
}

impl std::fmt::Display for Allowed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum MaxChanges {
    Rows(u64),
    Percent(f64),
}

impl std::str::FromStr for MaxChanges {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is neither a number of rows nor a share as 5%");
        match text.strip_suffix('%') {
            Some(percent) => match percent.parse::<f64>() {
                Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Self::Percent(percent)),
                _ => Err(bad()),
            },
            None => text.parse().map(Self::Rows).map_err(|_| bad()),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct PairArgs {
    /// The copy that is right: postgres://, mysql://, sqlite://, grpc(s)://HOST:PORT, or env:NAME to read the URL from NAME
    pub(super) source: String,
    /// The copy to compare with it, or to make true to it
    pub(super) target: String,

    /// A table, or a pair as SOURCE=TARGET; default: every table that both sides have
    #[arg(short, long, value_name = "TABLE", value_parser = table_pair, help_heading = "What to compare")]
    pub(super) table: Vec<(TableName, TableName)>,
    /// The schema (PostgreSQL) or database (MySQL) of tables named without one, or a pair as SOURCE=TARGET
    #[arg(long, value_name = "SCHEMA", help_heading = "What to compare")]
    pub(super) schema: Option<String>,
    /// Columns of the unique key that identifies rows (default: the primary key)
    #[arg(long, value_delimiter = ',', value_name = "COLUMN", help_heading = "What to compare")]
    pub(super) key: Vec<String>,
    /// Compare only these columns and the key
    #[arg(long, value_delimiter = ',', value_name = "COLUMN", help_heading = "What to compare")]
    pub(super) columns: Vec<String>,
    /// Leave these columns out
    #[arg(long, value_delimiter = ',', value_name = "COLUMN", help_heading = "What to compare")]
    pub(super) exclude: Vec<String>,
    /// Pair a source column with a target column of another name
    #[arg(long, value_delimiter = ',', value_name = "SOURCE=TARGET", value_parser = name_pair, help_heading = "What to compare")]
    pub(super) map: Vec<(String, String)>,
    /// Accept columns that only one side has: ignore for all of them, or their names. Without it they are a difference
    #[arg(long, value_delimiter = ',', value_name = "ignore|COLUMN", help_heading = "What to compare")]
    pub(super) unpaired: Vec<String>,
    /// Compare these columns by the text that each database writes
    #[arg(long, value_delimiter = ',', value_name = "COLUMN", help_heading = "What to compare")]
    pub(super) as_text: Vec<String>,
    /// Read timestamps without zone as UTC where the other side has zones
    #[arg(long, help_heading = "What to compare")]
    pub(super) assume_utc: bool,
    /// Only rows that meet this SQL condition, on both sides
    #[arg(long = "where", value_name = "SQL", help_heading = "What to compare")]
    pub(super) both_where: Option<String>,
    /// The same for the source alone
    #[arg(long, value_name = "SQL", conflicts_with = "both_where", help_heading = "What to compare")]
    pub(super) source_where: Option<String>,
    /// The same for the target alone
    #[arg(long, value_name = "SQL", conflicts_with = "both_where", help_heading = "What to compare")]
    pub(super) target_where: Option<String>,
    /// Numbers (times: seconds) of this column that are within X of each other count as equal
    #[arg(long, value_name = "COLUMN=X", value_parser = tolerance, help_heading = "What to compare")]
    pub(super) tolerance: Vec<(String, Distance)>,

    /// Read a row that differs again this often before it is reported
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(..=RECHECKS_MAX), help_heading = "Live tables")]
    pub(super) recheck: u32,
    /// Time between the scan and the first reread, doubled for each further one
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = recheck_delay, help_heading = "Live tables")]
    pub(super) recheck_delay: Duration,

    /// text for people, json as one document, ndjson as one object a line while it runs
    #[arg(long, value_enum, default_value_t = Format::Text, help_heading = "Output")]
    pub(super) format: Format,
    /// Write the report to FILE instead of standard output
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    pub(super) output: Option<PathBuf>,
    /// Show the values of differing rows, not just keys and column names
    #[arg(long, help_heading = "Output")]
    pub(super) show_values: bool,
    /// Differing rows named in the report of each table; counts are always complete
    #[arg(long, value_name = "N", default_value_t = 100, help_heading = "Output")]
    pub(super) limit: u64,
    /// No progress, no notes
    #[arg(short, long, help_heading = "Output")]
    pub(super) quiet: bool,
    /// Colour of the text
    #[arg(long, value_enum, default_value_t = Color::Auto, help_heading = "Output")]
    pub(super) color: Color,

    /// Bytes on the link are dear: the first message is small, so that up to 15 changed rows cost 1 kB instead of 9 kB, and more of them a round trip more
    #[arg(long, help_heading = "Limits")]
    pub(super) metered: bool,
    #[command(flatten)]
    pub(super) limits: LimitArgs,
    /// Tables compared at once (repairs go one by one, parents first)
    #[arg(long, value_name = "N", default_value_t = 2, help_heading = "Limits")]
    pub(super) tables_in_flight: usize,
    #[command(flatten)]
    pub(super) evidence: EvidenceArgs,
    #[command(flatten)]
    pub(super) peers: PeerArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
    Ndjson,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// Memory for one table's digests on each side; beyond it they go to disk
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = size)]
    pub(super) memory: usize,
    /// Folder for digests that do not fit in memory (default: the system's temporary folder)
    #[arg(long, value_name = "DIR")]
    pub(super) scratch: Option<PathBuf>,
    /// Readers of one table at a time; of a SQLite file that is read here, half as many as there are cores at the most
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(super) parallelism: usize,
    /// Read, and write, no more rows of a database than this in a second, on average
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_rows_per_second: Option<u64>,
    /// Pause while a standby of the server (MySQL: the server behind its primary) is further behind than this
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) max_lag: Option<Duration>,
    /// Pause while more statements than this run on the server, trueup's own left out
    #[arg(long, value_name = "N")]
    pub(super) max_running: Option<u64>,
    /// Have the server end a statement that takes longer (PostgreSQL reads a large table with many; MySQL with one)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) statement_timeout: Option<Duration>,
    /// Wait so long for a row or table that another session holds a lock on; then its rows are set aside (SQLite: as long as the file is busy)
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(super) lock_timeout: Duration,
    /// A peer that says nothing for this long has stopped answering
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = duration)]
    pub(super) peer_timeout: Duration,
}

/// How to dial agents.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connections to agents")]
pub(super) struct PeerArgs {
    /// CA that signed the agents' certificates (default: the public roots)
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Own certificate
    #[arg(long, value_name = "FILE", requires = "key_file")]
    pub(super) cert: Option<PathBuf>,
    /// Key of the own certificate
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(super) key_file: Option<PathBuf>,
    /// File that holds the token agents ask for
    #[arg(long, value_name = "FILE", conflicts_with = "token_env")]
    pub(super) token_file: Option<PathBuf>,
    /// Environment variable that holds the token
    #[arg(long, value_name = "NAME")]
    pub(super) token_env: Option<String>,
    /// Allow plaintext and no authentication beyond this machine
    #[arg(long)]
    pub(super) insecure: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  TRUEUP_DATABASE_URL=postgres://app@db/shop trueup agent --listen 127.0.0.1:7443
  trueup agent --database env:DB --listen 0.0.0.0:7443 --cert agent.pem --key-file agent.key --client-ca ca.pem --table orders")]
pub(super) struct AgentArgs {
    /// The database: a URL, or env:NAME to read it from the environment
    #[arg(long, value_name = "URL", default_value = "env:TRUEUP_DATABASE_URL")]
    pub(super) database: String,
    /// Address and port to listen on; port 0 takes a free one and tells it
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: SocketAddr,
    /// Serve only this table (may be repeated); default: all
    #[arg(short, long, value_name = "TABLE", value_parser = |text: &str| TableName::parse(text))]
    pub(super) table: Vec<TableName>,
    /// Let peers repair tables here
    #[arg(long)]
    pub(super) allow_write: bool,
    /// Keep no undo journals: what peers have repaired here cannot be taken back
    #[arg(long, conflicts_with = "undo_dir")]
    pub(super) no_undo: bool,
    /// A source that this agent may dial when a coordinator asks it to (may be repeated); default: any, but where a token
    /// would be shown only those with a certificate of --ca
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(super) allow_peer: Vec<String>,
    /// Take conditions (--where) in any SQL of the callers: they can read whatever the login can, --table or not. Without it
    /// a condition compares columns with values
    #[arg(long)]
    pub(super) allow_where: bool,
    /// Let callers run queries of their own here, read-only (checks of kind sql): they can read whatever the login can
    #[arg(long)]
    pub(super) allow_sql: bool,
    /// Peers must show a certificate of this CA
    #[arg(long, value_name = "FILE")]
    pub(super) client_ca: Option<PathBuf>,
    #[command(flatten)]
    pub(super) undo: UndoStoreArgs,
    #[command(flatten)]
    pub(super) limits: LimitArgs,
    #[command(flatten)]
    pub(super) peers: PeerArgs,
}

/// `name` or `source=target`; an equals sign inside quotes belongs to the name.
fn table_pair(text: &str) -> Result<(TableName, TableName), String> {
    let mut quoted = false;
    let split = text.char_indices().find(|(_, c)| {
        quoted ^= *c == '"';
        *c == '=' && !quoted
    });
    match split {
        Some((at, _)) => Ok((TableName::parse(&text[..at])?, TableName::parse(&text[at + 1..])?)),
        None => TableName::parse(text).map(|table| (table.clone(), table)),
    }
}

pub(super) fn name_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() => {
            Ok((left.to_owned(), right.to_owned()))
        }
        _ => Err("write SOURCE=TARGET".to_owned()),
    }
}

fn tolerance(text: &str) -> Result<(String, Distance), String> {
    let (name, within) = name_pair(text).map_err(|_| "write COLUMN=X".to_owned())?;
    Ok((name, within.parse()?))
}

/// Rows are read again at most this often.
pub(super) const RECHECKS_MAX: i64 = 100;
/// The longest pause before a row is read again; each further one is twice as long.
const RECHECK_DELAY_MAX: Duration = Duration::from_secs(3600);
/// Longer than anything that is waited for or kept.
const DURATION_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// `500ms`, `1h 30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    duration_within(text, DURATION_MAX)
}

pub(super) fn recheck_delay(text: &str) -> Result<Duration, String> {
    duration_within(text, RECHECK_DELAY_MAX)
}

fn duration_within(text: &str, max: Duration) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= max => Ok(duration),
        Ok(_) => Err(format!("at most {}", humantime::format_duration(max))),
        Err(error) => Err(error.to_string()),
    }
}

/// `256MiB`, `1GB`, `65536`.
fn size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1usize << 30,
        _ => return Err("write a size as 256MiB".to_owned()),
    };
    let size = digits.trim().parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    size.filter(|size| *size >= 1 << 20).ok_or_else(|| "write a size of at least 1MiB, as 256MiB".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn absurd_times_are_refused() {
        assert_eq!(recheck_delay("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(recheck_delay("1h"), Ok(Duration::from_secs(3600)));
        for absurd in ["61m", "584942417355y", "99999999999999999999s", "-1s", ""] {
            assert!(recheck_delay(absurd).is_err(), "{absurd}");
        }
        assert!(duration("99years").is_ok() && duration("200years").is_err());
        for args in [["--recheck", "101"], ["--recheck", "-1"], ["--recheck-delay", "9years"]] {
            let typed = ["trueup", "diff", "sqlite://a", "sqlite://b"].into_iter().chain(args);
            assert!(Cli::try_parse_from(typed).is_err(), "{args:?}");
        }
    }

    #[test]
    fn pairs_sizes_and_limits_are_read() {
        let name = |schema, name| TableName::new(schema, name);
        assert_eq!(table_pair("a"), Ok((name(None, "a"), name(None, "a"))));
        assert_eq!(table_pair("s.a=\"b=c\""), Ok((name(Some("s"), "a"), name(None, "b=c"))));
        assert!(table_pair("a=").is_err() && name_pair("a").is_err() && tolerance("a=-1").is_err());
        assert_eq!(size("96MiB"), Ok(96 << 20));
        assert_eq!(size("1GB"), Ok(1_000_000_000));
        assert!(size("12").is_err() && size("9x").is_err() && size("").is_err());
        assert_eq!("5%".parse(), Ok(MaxChanges::Percent(5.0)));
        assert_eq!("70".parse(), Ok(MaxChanges::Rows(70)));
        assert!("101%".parse::<MaxChanges>().is_err() && "x".parse::<MaxChanges>().is_err());
    }
}
