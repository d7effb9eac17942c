//! `trueup init` and `trueup config check`; and the way from a configured endpoint to an agent.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::Failure;
use super::args::{LimitArgs, PeerArgs};
use super::endpoint::{EndpointUrl, client_security, limits};
use super::evidence_args::{EvidenceArgs, UndoStoreArgs};
use super::output::Output;
use crate::agent::AgentHandle;
use crate::agent::{AgentLimits, UndoStore};
use crate::checks;
use crate::config::{self, Config, Diagnostic, EndpointSpec, UrlSpec, example};
use crate::coordinator::{PairRequest, find_pairs};
use crate::model::Role;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trueup init env:DATABASE_URL env:TARGET_DATABASE_URL
  trueup init postgres://app@east/shop grpcs://west.example:7443 -c west.toml")]
pub(super) struct InitArgs {
    /// The copy that is right: a URL, or env:NAME
    source: String,
    /// The copy to compare with it
    target: String,
    /// The file to write; .env.example goes beside it
    #[arg(short, long, value_name = "FILE", default_value = "trueup.toml")]
    config: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    pub(super) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Tell what is wrong in the configuration: in the file, then against the databases
    Check(ConfigCheckArgs),
}

#[derive(Debug, Args)]
pub(super) struct ConfigCheckArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Look at the file alone
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

#[derive(Debug, Clone, Args)]
pub(super) struct FileArgs {
    /// The configuration
    #[arg(short, long, value_name = "FILE", default_value = "trueup.toml")]
    pub(super) config: PathBuf,
}

/// A configuration that holds, and its text.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) config: Config,
}

impl FileArgs {
    pub(super) fn load(&self) -> Result<Loaded, Failure> {
        let path = self.config.clone();
        let text = std::fs::read_to_string(&path).map_err(|error| {
            Failure::new(
                format!("cannot read {}: {error}", path.display()),
                "name the configuration with -c FILE, or write one with: trueup init SOURCE TARGET",
            )
        })?;
        match config::parse(&text) {
            Ok(config) => Ok(Loaded { path, text, config }),
            Err(faults) => Err(faulty(&path, &text, &faults)),
        }
    }
}

impl Loaded {
    /// Paths are read from the configuration's folder.
    pub(super) fn beside(&self, path: &Path) -> PathBuf {
        self.path.parent().map_or_else(|| path.to_owned(), |folder| folder.join(path))
    }

    /// What was typed about evidence, and for what was not, what the configuration says.
    pub(super) fn evidence(&self, typed: &EvidenceArgs) -> EvidenceArgs {
        let storage = &self.config.storage;
        let mut args = typed.clone();
        args.keep_keys |= storage.keep_keys;
        if args.ledger.ledger.as_ref().is_none_or(String::is_empty) {
            args.ledger.ledger = storage.ledger.as_ref().map(|ledger| {
                let is_file = !ledger.starts_with("env:") && !ledger.contains("://");
                if is_file { self.beside(Path::new(ledger)).display().to_string() } else { ledger.clone() }
            });
        }
        if args.secret.audit_key_file.is_none() {
            args.secret.audit_key_file = storage.audit_key_file.as_deref().map(|path| self.beside(path));
        }
        args
    }

    /// The same of undo journals; `None` where none are to be kept.
    pub(super) fn undo(&self, typed: &UndoStoreArgs) -> Option<UndoStoreArgs> {
        let storage = &self.config.storage;
        let mut args = typed.clone();
        let beside = |path: &Option<PathBuf>| path.as_deref().map(|path| self.beside(path));
        args.undo_dir = args.undo_dir.or_else(|| beside(&storage.undo_dir));
        args.undo_key_file = args.undo_key_file.or_else(|| beside(&storage.undo_key_file));
        args.undo_keep = storage.undo_keep.unwrap_or(args.undo_keep);
        storage.undo.then_some(args)
    }
}

fn faulty(path: &Path, text: &str, faults: &[Diagnostic]) -> Failure {
    let shown = config::render(&path.display().to_string(), text, faults);
    let count = if faults.len() == 1 { "1 fault".to_owned() } else { format!("{} faults", faults.len()) };
    Failure {
        message: format!("{count} in the configuration\n{}", shown.trim_end()),
        hint: None,
        interrupted: false,
    }
}

/// The endpoints of a configuration, each opened once for each role that it has.
pub(super) struct Endpoints<'a> {
    loaded: &'a Loaded,
    limits: AgentLimits,
    /// By name, and whether it keeps undo journals.
    open: BTreeMap<(String, bool), AgentHandle>,
}

impl<'a> Endpoints<'a> {
    pub(super) fn new(loaded: &'a Loaded, limits: AgentLimits) -> Self {
        Self { loaded, limits, open: BTreeMap::new() }
    }

    pub(super) async fn agent(&mut self, name: &str, role: Role) -> Result<AgentHandle, Failure> {
        self.agent_with(name, role, None).await
    }

    pub(super) async fn agent_with(
        &mut self,
        name: &str,
        role: Role,
        undo: Option<UndoStore>,
    ) -> Result<AgentHandle, Failure> {
        let place = (name.to_owned(), undo.is_some());
        if let Some(agent) = self.open.get(&place) {
            return Ok(agent.clone());
        }
        let Some(spec) = self.loaded.config.endpoints.get(name) else {
            return Err(Failure::new(format!("there is no endpoint {name}"), "add it to the configuration"));
        };
        let url = self.url(spec)?;
        let peers = client_security(&self.peers(spec))?;
        let agent = url.open(&self.limits, &peers, role, undo).await?;
        self.open.insert(place, agent.clone());
        Ok(agent)
    }

    /// The endpoint's URL, and how it was written where that is by name.
    pub(super) fn place(&self, name: &str) -> Result<(EndpointUrl, String), Failure> {
        let Some(spec) = self.loaded.config.endpoints.get(name) else {
            return Err(Failure::new(format!("there is no endpoint {name}"), "add it to the configuration"));
        };
        let typed = match &spec.url {
            UrlSpec::Env(name) => format!("env:{name}"),
            UrlSpec::Plain(url) => url.clone(),
            UrlSpec::File(_) => String::new(),
        };
        Ok((self.url(spec)?, typed))
    }

    /// As it may be shown.
    pub(super) fn shown(&self, name: &str) -> String {
        let spec = self.loaded.config.endpoints.get(name);
        spec.and_then(|spec| self.url(spec).ok()).map_or_else(|| name.to_owned(), |url| url.shown)
    }

    fn url(&self, spec: &EndpointSpec) -> Result<EndpointUrl, Failure> {
        match &spec.url {
            UrlSpec::Plain(url) => EndpointUrl::read(url),
            UrlSpec::Env(name) => EndpointUrl::read(&format!("env:{name}")),
            UrlSpec::File(path) => {
                let path = self.beside(path);
                let text = std::fs::read_to_string(&path).map_err(|error| {
                    Failure::new(
                        format!("cannot read the URL in {}: {error}", path.display()),
                        "check the path of url_file and its permissions",
                    )
                })?;
                EndpointUrl::read(text.trim())
            }
        }
    }

    fn beside(&self, path: &Path) -> PathBuf {
        self.loaded.beside(path)
    }

    fn peers(&self, spec: &EndpointSpec) -> PeerArgs {
        let beside = |path: &Option<PathBuf>| path.as_ref().map(|path| self.beside(path));
        PeerArgs {
            ca: beside(&spec.ca),
            cert: beside(&spec.cert),
            key_file: beside(&spec.key_file),
            token_file: beside(&spec.token_file),
            token_env: spec.token_env.clone(),
            insecure: spec.insecure,
        }
    }
}

pub(super) async fn check(args: &ConfigCheckArgs) -> Result<u8, Failure> {
    let loaded = args.file.load()?;
    let config = &loaded.config;
    let mut said = format!(
        "{}: {} endpoints, {} pairs, {} checks\n",
        loaded.path.display(),
        config.endpoints.len(),
        config.pairs.len(),
        config.checks.len()
    );
    let mut output = Output::open(None)?;
    if args.offline {
        output.write(&format!("{said}the file is sound; the databases were not asked\n"))?;
        output.finish()?;
        return Ok(0);
    }
    let mut faults = Vec::new();
    let mut endpoints = Endpoints::new(&loaded, limits(&args.limits)?);
    for (name, pair) in &config.pairs {
        let mut agents = Vec::with_capacity(2);
        for (endpoint, role) in [(&pair.source, Role::Source), (&pair.target, Role::Target)] {
            match endpoints.agent(endpoint, role).await {
                Ok(agent) => agents.push(agent),
                Err(failure) => {
                    let line = config.endpoints.get(endpoint).map_or(0, |spec| spec.line);
                    faults.push(Diagnostic::at_line(
                        line,
                        format!("endpoint {endpoint}: {}", failure.message),
                        failure.hint,
                    ));
                }
            }
        }
        let [source, target] = agents.as_slice() else { continue };
        let found = checks::inspect(config, name, source, target).await;
        let _ = writeln!(said, "pair {name}: {} tables can be compared", found.tables);
        for warning in found.warnings {
            let _ = writeln!(said, "  note: {warning}");
        }
        faults.extend(found.faults);
    }
    faults.sort_by_key(|fault| fault.line);
    faults.dedup();
    output.write(&said)?;
    if faults.is_empty() {
        output.write("everything that is named is there\n")?;
        output.finish()?;
        return Ok(0);
    }
    output.finish()?;
    Err(faulty(&loaded.path, &loaded.text, &faults))
}

pub(super) async fn init(args: &InitArgs) -> Result<u8, Failure> {
    let (source, target) = (
        example::Place::of(&args.source, "DATABASE_URL"),
        example::Place::of(&args.target, "TARGET_DATABASE_URL"),
    );
    let environment = args.config.with_file_name(".env.example");
    // Asked before anything is written; a database that does not answer is no obstacle.
    let tables = match shared_tables(&args.source, &args.target).await {
        Ok(tables) => tables,
        Err(failure) => {
            tracing::warn!("the tables could not be listed: {}", failure.message);
            Vec::new()
        }
    };
    write_new(&args.config, &example::config(&source, &target, &tables))?;
    let mut said = format!("{} is written, with {} tables\n", args.config.display(), tables.len());
    if environment.exists() {
        let _ = writeln!(said, "{} is there already and was left alone", environment.display());
    } else {
        write_new(&environment, &example::environment([&source, &target]))?;
        let _ = writeln!(
            said,
            "{} is written: the names of what belongs in the environment",
            environment.display()
        );
    }
    for (typed, place) in [(&args.source, &source), (&args.target, &target)] {
        if let Some(name) = place.variable.as_ref().filter(|_| !typed.starts_with("env:")) {
            let _ = writeln!(said, "the URL with its password was not written down: set {name} to it");
        }
    }
    let _ = writeln!(said, "next: trueup config check -c {}", args.config.display());
    let mut output = Output::open(None)?;
    output.write(&said)?;
    output.finish()?;
    Ok(0)
}

/// Never over a file that is there.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let made = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    made.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "it is never overwritten: name another file with -c FILE",
            _ => "check the folder and its permissions",
        };
        Failure::new(format!("cannot write {}: {error}", path.display()), hint)
    })
}

async fn shared_tables(source: &str, target: &str) -> Result<Vec<String>, Failure> {
    let limits = AgentLimits::default();
    let peers = crate::agent::security::ClientSecurity::default();
    let (source, target) = (EndpointUrl::read(source)?, EndpointUrl::read(target)?);
    let (source, target) = tokio::try_join!(
        source.open(&limits, &peers, Role::Source, None),
        target.open(&limits, &peers, Role::Target, None)
    )?;
    let pairs = find_pairs(&source, &target, &PairRequest::default()).await?;
    // Names alone: the schemas of two engines differ, and each side looks up its own.
    let quoted = |name: &str| match name.contains(['.', '"']) {
        true => format!("\"{}\"", name.replace('"', "\"\"")),
        false => name.to_owned(),
    };
    let same = pairs.pairs.iter().filter(|pair| pair.source.name == pair.target.name);
    Ok(same.map(|pair| quoted(&pair.source.name)).collect())
}
