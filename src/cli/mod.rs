//! People: arguments, progress, colours, exit status. The only floor that reads the clock, the environment and
//! the terminal, and the only one that prints.
//!
//! Data goes to standard output; progress, messages and logs to standard error.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

mod abandoned;
mod args;
mod audit;
mod backfill;
mod board;
mod check;
mod checking;
mod command;
mod config;
mod dashboard;
mod demo;
mod endpoint;
mod evidence;
mod evidence_args;
mod files;
mod history;
mod live;
mod liveness;
mod output;
mod recorder;
mod retain;
mod run_beat;
mod serve;
mod shutdown;
mod sql_file;
mod stamp;
mod terminal;
mod traces;
mod undo;

use args::{Cli, Command, LogFormat};
use shutdown::Shutdown;
use traces::Traces;

use crate::agent::AgentError;
use crate::ledger::LedgerError;

/// Something could not be told: bad usage, unreachable, refused, interrupted. See `report::Verdict` for 0 and 1.
pub const EXIT_COULD_NOT_TELL: u8 = 2;

/// Why a command ended without an answer: what, and what to do next.
#[derive(Debug)]
struct Failure {
    message: String,
    hint: Option<String>,
    /// By the user.
    interrupted: bool,
}

impl Failure {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()), interrupted: false }
    }

    /// Before anything was written.
    fn interrupted() -> Self {
        Self {
            interrupted: true,
            ..Self::new("interrupted", "run the same command again, it is safe to repeat")
        }
    }
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        let message = match error.side {
            Some(side) => format!("{side}: {}", error.message),
            None => error.message,
        };
        Self { message, hint: error.hint, interrupted: false }
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        Self::new(error.what, error.hint)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self { message: error.to_string(), hint: None, interrupted: false }
    }
}

/// Runs the command line and gives the exit status.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe is nobody's error.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(EXIT_COULD_NOT_TELL),
            };
        }
    };
    match start(cli) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            let color =
                std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            let (red, end) = if color { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
            let mut stderr = std::io::stderr().lock();
            let _ = writeln!(stderr, "{red}error:{end} {}", failure.message);
            if let Some(hint) = failure.hint {
                let _ = writeln!(stderr, "\nhint: {hint}");
            }
            ExitCode::from(EXIT_COULD_NOT_TELL)
        }
    }
}

fn start(cli: Cli) -> Result<u8, Failure> {
    #[cfg(debug_assertions)]
    if let Some(nth) = std::env::var("TRUEUP_FAIL_POINT").ok().and_then(|nth| nth.parse().ok()) {
        crate::model::fail_point::arm(nth);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        Failure::new(format!("cannot start: {error}"), "raise the limits on threads (ulimit -u)")
    })?;
    let is_serve = matches!(cli.command, Command::Serve(_));
    let verbose = if is_serve { cli.verbose.max(1) } else { cli.verbose };
    let entered = runtime.enter();
    let traces = Traces::to(cli.otlp.as_deref())?;
    start_logs(verbose, cli.log_format, &traces);
    #[cfg(debug_assertions)]
    if let Some(number) = std::env::var("TRUEUP_END_BEFORE_STATEMENT").ok().and_then(|text| text.parse().ok())
    {
        crate::ledger::fail_point::end_before(number);
    }
    // The coordinator reads its configuration again on HUP.
    let shutdown = Shutdown::listen(!is_serve);
    drop(entered);
    let status = runtime.block_on(execute(cli, &shutdown));
    traces.end();
    // A blocking read of a database must not hold up the end of the program.
    runtime.shutdown_background();
    status
}

/// Commands that have something to bring to an end look after the signal themselves; the others are dropped by it.
async fn execute(cli: Cli, shutdown: &Shutdown) -> Result<u8, Failure> {
    match cli.command {
        Command::Demo(args) => demo::run(&args, shutdown).await,
        Command::Diff(args) => command::diff(&args, shutdown).await,
        Command::Repair(args) => command::repair(&args, shutdown).await,
        Command::Backfill(args) => Box::pin(backfill::run(&args, shutdown)).await,
        Command::Check(args) => Box::pin(check::run(&args, shutdown)).await,
        Command::Serve(args) => Box::pin(serve::run(&args, shutdown)).await,
        Command::Init(args) => shutdown.or_drop(Box::pin(config::init(&args))).await,
        Command::Config(args) => match &args.command {
            config::ConfigCommand::Check(args) => shutdown.or_drop(Box::pin(config::check(args))).await,
        },
        Command::Agent(args) => command::agent(&args, shutdown).await,
        Command::Dashboard(args) => dashboard::run(&args, shutdown).await,
        Command::Runs(args) => shutdown.or_drop(history::runs(&args)).await,
        Command::Report(args) => shutdown.or_drop(history::report(&args)).await,
        Command::Prune(args) => shutdown.or_drop(history::prune(&args)).await,
        Command::Audit(args) => shutdown.or_drop(audit::audit(&args)).await,
        Command::Undo(args) => Box::pin(undo::undo(&args, shutdown)).await,
        Command::Completions { shell } => files::completions(shell),
        Command::Man { dir } => files::man(dir.as_deref()),
    }
}

fn start_logs(verbose: u8, format: LogFormat, traces: &Traces) {
    let level = match verbose {
        0 => "warn",
        1 => "trueup=info,warn",
        2 => "trueup=debug,info",
        _ => "trace",
    };
    let filter = match std::env::var("TRUEUP_LOG") {
        Ok(filter) if !filter.is_empty() => filter,
        _ => format!("{level},sqlx=error"),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let filter = tracing_subscriber::EnvFilter::new(filter);
    let registry = tracing_subscriber::registry();
    let _ = match format {
        LogFormat::Text => registry.with(lines.with_filter(filter)).with(traces.layer()).try_init(),
        LogFormat::Json => registry
            .with(lines.json().flatten_event(true).with_filter(filter))
            .with(traces.layer())
            .try_init(),
    };
}
