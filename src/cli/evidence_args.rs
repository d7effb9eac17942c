//! What was typed about ledger, trail, undo and reports.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::args::{LimitArgs, PeerArgs, duration, name_pair};
use crate::ledger::Head;

/// Where runs are recorded.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Evidence")]
pub(super) struct EvidenceArgs {
    #[command(flatten)]
    pub(super) ledger: LedgerArgs,
    /// Record nothing: no ledger, no audit trail, no undo
    #[arg(long)]
    pub(super) no_ledger: bool,
    /// Keep keys in ledger and trail as they are, not as keyed hashes
    #[arg(long)]
    pub(super) keep_keys: bool,
    #[command(flatten)]
    pub(super) secret: SecretArgs,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Evidence")]
pub(super) struct LedgerArgs {
    /// The ledger: a file, a postgres:// URL, or env:NAME (default: ~/.local/state/trueup/ledger.db)
    #[arg(long, value_name = "FILE|URL", env = "TRUEUP_LEDGER", hide_env_values = true)]
    pub(super) ledger: Option<String>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Evidence")]
pub(super) struct SecretArgs {
    /// File of the secret behind the trail's hashes; made where it is missing (default: audit.key beside the ledger)
    #[arg(long, value_name = "FILE", env = "TRUEUP_AUDIT_KEY_FILE")]
    pub(super) audit_key_file: Option<PathBuf>,
}

/// Where the target's agent keeps what is overwritten.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Evidence")]
pub(super) struct UndoStoreArgs {
    /// Folder of the undo journals (default: undo beside the ledger; of an agent with --allow-write:
    /// ~/.local/state/trueup/undo)
    #[arg(long, value_name = "DIR")]
    pub(super) undo_dir: Option<PathBuf>,
    /// File of the key that encrypts them, 64 hex digits; made where it is missing (default: undo.key in that folder). The
    /// environment variable TRUEUP_UNDO_KEY may hold the key itself
    #[arg(long, value_name = "FILE")]
    pub(super) undo_key_file: Option<PathBuf>,
    /// How long they are kept
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = duration)]
    pub(super) undo_keep: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ListFormat {
    Text,
    /// One JSON object a line
    Ndjson,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trueup runs --kind repair --since 7d
  trueup runs --outcome different -t orders")]
pub(super) struct RunsArgs {
    /// diff, repair or undo
    #[arg(long, value_name = "KIND")]
    pub(super) kind: Option<String>,
    /// same, different, unknown, failed, interrupted, or open for runs that have not ended
    #[arg(long, value_name = "OUTCOME")]
    pub(super) outcome: Option<String>,
    /// Runs of the last so many days or hours (7d, 12h), or since a time as 2026-11-23T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<String>,
    /// Runs over this table, by its name on either side
    #[arg(short, long, value_name = "TABLE")]
    pub(super) table: Option<String>,
    /// At most so many, the newest
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(super) limit: u64,
    #[arg(long, value_enum, default_value_t = ListFormat::Text)]
    pub(super) format: ListFormat,
    #[command(flatten)]
    pub(super) ledger: LedgerArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ReportFormat {
    /// One page for a browser or a printer; it loads nothing
    Html,
    /// Markdown
    Md,
    /// One line a table
    Csv,
    Json,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trueup report last -o report.html
  trueup report 0198c7e2 --format md")]
pub(super) struct ReportArgs {
    /// The run's id or the beginning or end of it, or last
    pub(super) run: String,
    #[arg(long, value_enum, default_value_t = ReportFormat::Html)]
    pub(super) format: ReportFormat,
    /// Write to FILE instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    #[command(flatten)]
    pub(super) ledger: LedgerArgs,
}

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    #[command(subcommand)]
    pub(super) command: AuditCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Show entries
    List(AuditListArgs),
    /// Recompute the whole chain: names every altered, missing or reordered entry. Exit status 1 if there is one
    Verify(AuditVerifyArgs),
    /// Write entries as one JSON object a line, to be verified elsewhere
    Export(AuditExportArgs),
}

#[derive(Debug, Clone, Args)]
pub(super) struct EntryArgs {
    /// Entries of this run: its id or a part of it, or last
    #[arg(long, value_name = "RUN")]
    pub(super) run: Option<String>,
    /// Entries of this table of the target
    #[arg(short, long, value_name = "TABLE")]
    pub(super) table: Option<String>,
    /// Entries of the row with this key, as COLUMN=TEXT by source name, all columns in the key's order; with --table
    #[arg(long, value_name = "COLUMN=TEXT", value_parser = name_pair, requires = "table")]
    pub(super) key: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(super) struct AuditListArgs {
    #[command(flatten)]
    pub(super) entries: EntryArgs,
    #[arg(long, value_enum, default_value_t = ListFormat::Text)]
    pub(super) format: ListFormat,
    #[command(flatten)]
    pub(super) ledger: LedgerArgs,
    #[command(flatten)]
    pub(super) secret: SecretArgs,
}

#[derive(Debug, Args)]
pub(super) struct AuditVerifyArgs {
    /// The trail must still pass through this head that was noted earlier
    #[arg(long, value_name = "SEQ:HASH")]
    pub(super) head: Option<Head>,
    /// Verify an export instead of the ledger
    #[arg(long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = ListFormat::Text)]
    pub(super) format: ListFormat,
    #[command(flatten)]
    pub(super) ledger: LedgerArgs,
}

#[derive(Debug, Args)]
pub(super) struct AuditExportArgs {
    /// Write to FILE instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    #[command(flatten)]
    pub(super) ledger: LedgerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trueup undo last --dry-run
  trueup undo 0198c7e2 --target env:TARGET")]
pub(super) struct UndoArgs {
    /// The run's id or a part of it, or last
    pub(super) run: String,
    /// The database or agent that the run wrote to (default: as the ledger knows it; it keeps no passwords)
    #[arg(long, value_name = "URL")]
    pub(super) target: Option<String>,
    /// Write nothing: tell what would be done
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Delete rows even where foreign keys then delete or change rows of other tables
    #[arg(long)]
    pub(super) allow_cascade: bool,
    /// The target is a copy restored from a backup of what the run wrote to, or its table was rebuilt since: put rows back
    /// there, each only if it holds what the run left
    #[arg(long)]
    pub(super) restored: bool,
    /// Keep no undo journal of the undo itself
    #[arg(long, help_heading = "Evidence")]
    pub(super) no_undo: bool,
    /// text for people, or json
    #[arg(long, value_enum, default_value_t = UndoFormat::Text)]
    pub(super) format: UndoFormat,
    #[command(flatten)]
    pub(super) undo: UndoStoreArgs,
    #[command(flatten)]
    pub(super) evidence: EvidenceArgs,
    #[command(flatten)]
    pub(super) limits: LimitArgs,
    #[command(flatten)]
    pub(super) peers: PeerArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum UndoFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trueup prune --keep 90d --keep-last 1000 --keep-trail 3650d --dry-run")]
pub(super) struct PruneArgs {
    /// Runs older than this go
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) keep: Option<Duration>,
    /// So many of the newest runs stay in any case
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) keep_last: u64,
    /// Entries of the audit trail older than this go from its front; a checkpoint entry takes their place in the chain
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) keep_trail: Option<Duration>,
    /// Tell what would be removed
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) ledger: LedgerArgs,
}
