//! From the file's words to a configuration: references followed, options checked against their kind, all faults told.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::check::check;
use super::diagnose::{Diagnostic, place, suggest};
use super::operate::{self, Timetables};
use super::raw::{self, Word};
use super::url::holds_password;
use super::{Config, EndpointSpec, PairSpec, TableSpec, UrlSpec};
use crate::model::{TableName, Tolerances, Unpaired, Wishes};

const DURATION_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// What was found wrong so far, and the text that it stands in.
pub(super) struct Faults<'a> {
    pub(super) text: &'a str,
    found: Vec<Diagnostic>,
}

impl Faults<'_> {
    pub(super) fn add(&mut self, span: Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        self.add_maybe(span, message, Some(hint.into()));
    }

    pub(super) fn add_maybe(&mut self, span: Range<usize>, message: impl Into<String>, hint: Option<String>) {
        self.found.push(Diagnostic::new(self.text, Some(span), message, hint));
    }

    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        place(self.text, span.start).0
    }

    /// A word that must be one of those known.
    pub(super) fn reference(&mut self, word: &Word, what: &str, known: &[&str]) {
        let name = word.get_ref().as_str();
        if !known.contains(&name) {
            let hint =
                suggest(name, known).unwrap_or_else(|| format!("there is no {what} at all yet: add one"));
            self.add(word.span(), format!("there is no {what} `{name}`"), hint);
        }
    }

    pub(super) fn duration(&mut self, word: &Word) -> Duration {
        let duration = humantime::parse_duration(word.get_ref()).ok().filter(|time| *time <= DURATION_MAX);
        duration.unwrap_or_else(|| {
            self.add(
                word.span(),
                format!("{:?} is no length of time of at most a hundred years", word.get_ref()),
                "write it as \"5m\", \"36h\" or \"7days\"",
            );
            Duration::ZERO
        })
    }

    pub(super) fn table(&mut self, word: &Word) -> TableName {
        TableName::parse(word.get_ref()).unwrap_or_else(|why| {
            self.add(word.span(), why, "write NAME or SCHEMA.NAME, odd names in double quotes");
            TableName::new(None, word.get_ref())
        })
    }
}

pub(super) fn resolve(text: &str, file: raw::File) -> Result<Config, Vec<Diagnostic>> {
    let mut faults = Faults { text, found: Vec::new() };
    let mut config = Config::default();
    for (name, endpoint) in file.endpoints {
        let spec = endpoint_spec(&mut faults, &name, endpoint);
        config.endpoints.insert(name.into_inner(), spec);
    }
    for (name, pair) in file.pairs {
        let spec = pair_spec(&mut faults, &name, pair, &config.endpoints);
        config.pairs.insert(name.into_inner(), spec);
    }
    let timetables = Timetables::read(&mut faults, file.schedules, file.serve.as_ref());
    for (name, raw) in file.checks {
        if let Some(spec) = check(&mut faults, &name, raw, &config.pairs, &timetables) {
            config.checks.insert(name.into_inner(), spec);
        }
    }
    config.serve = operate::serve(&mut faults, file.serve);
    config.storage = operate::storage(&mut faults, file.storage);
    config.retention = operate::retention(&mut faults, file.retention);
    let checks: Vec<&str> = config.checks.keys().map(String::as_str).collect();
    for (name, raw) in file.alerts {
        if let Some(spec) = operate::alert(&mut faults, &name, raw, &checks) {
            config.alerts.insert(name.into_inner(), spec);
        }
    }
    let mut found = faults.found;
    if found.is_empty() {
        return Ok(config);
    }
    found.sort_by_key(|fault| (fault.line, fault.column));
    Err(found)
}

fn endpoint_spec(faults: &mut Faults<'_>, name: &Word, raw: raw::Endpoint) -> EndpointSpec {
    let url = match (&raw.url, &raw.url_file) {
        (Some(url), None) => url_spec(faults, url),
        (None, Some(file)) => UrlSpec::File(PathBuf::from(file.get_ref())),
        (Some(_), Some(file)) => {
            faults.add(file.span(), "an endpoint has one place", "keep either url or url_file");
            UrlSpec::Plain(String::new())
        }
        (None, None) => {
            faults.add(
                name.span(),
                format!("endpoint `{}` has no place", name.get_ref()),
                "add url = \"env:NAME\", or url_file = \"PATH\" of a file that holds the URL",
            );
            UrlSpec::Plain(String::new())
        }
    };
    let agent_only = [&raw.ca, &raw.cert, &raw.key_file, &raw.token, &raw.token_file];
    if let UrlSpec::Plain(plain) = &url
        && is_database(plain)
        && let Some(option) = agent_only.into_iter().flatten().next()
    {
        faults.add(
            option.span(),
            "this option is for agents (grpcs://HOST:PORT)",
            "a database's TLS is set in its URL: ?sslmode=verify-full&sslrootcert=PATH, or ?ssl-mode=VERIFY_IDENTITY",
        );
    }
    let token_env = raw.token.as_ref().and_then(|token| match token.get_ref().strip_prefix("env:") {
        Some(variable) if is_variable(variable) => Some(variable.to_owned()),
        _ => {
            faults.add(
                token.span(),
                "a token does not belong in this file",
                "write token = \"env:NAME\" and set NAME in the environment, or token_file = \"PATH\"",
            );
            None
        }
    });
    if let (Some(_), Some(file)) = (&raw.token, &raw.token_file) {
        faults.add(file.span(), "an endpoint has one token", "keep either token or token_file");
    }
    if raw.cert.is_some() != raw.key_file.is_some()
        && let Some(alone) = raw.cert.as_ref().or(raw.key_file.as_ref())
    {
        faults.add(alone.span(), "cert and key_file belong together", "add the other one");
    }
    let path = |word: Option<Word>| word.map(|word| PathBuf::from(word.into_inner()));
    EndpointSpec {
        line: faults.line(&name.span()),
        url,
        ca: path(raw.ca),
        cert: path(raw.cert),
        key_file: path(raw.key_file),
        token_env,
        token_file: path(raw.token_file),
        insecure: raw.insecure,
    }
}

pub(super) fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_database(url: &str) -> bool {
    ["postgres:", "postgresql:", "mysql:", "mariadb:", "sqlite:"].iter().any(|scheme| url.starts_with(scheme))
}

fn url_spec(faults: &mut Faults<'_>, url: &Word) -> UrlSpec {
    let text = url.get_ref();
    if let Some(variable) = text.strip_prefix("env:") {
        if !is_variable(variable) {
            faults.add(
                url.span(),
                format!("{variable:?} is no name of an environment variable"),
                "letters, digits and _ only, as in env:DATABASE_URL",
            );
        }
        return UrlSpec::Env(variable.to_owned());
    }
    if holds_password(text) {
        faults.add(
            url.span(),
            "a password does not belong in this file",
            "write url = \"env:NAME\" and set NAME to the whole URL in the environment, or url_file = \"PATH\"",
        );
    } else if !is_database(text) && !text.starts_with("grpc://") && !text.starts_with("grpcs://") {
        faults.add(
            url.span(),
            "this URL's scheme is none of those known",
            "write postgres://, mysql://, sqlite://, grpcs:// or env:NAME",
        );
    }
    UrlSpec::Plain(text.clone())
}

fn pair_spec(
    faults: &mut Faults<'_>,
    name: &Word,
    raw: raw::Pair,
    endpoints: &BTreeMap<String, EndpointSpec>,
) -> PairSpec {
    let known: Vec<&str> = endpoints.keys().map(String::as_str).collect();
    for word in [&raw.source, &raw.target] {
        faults.reference(word, "endpoint", &known);
    }
    let mut tables: Vec<TableSpec> = Vec::with_capacity(raw.tables.len());
    let unpaired = raw.unpaired.map_or_else(Unpaired::default, |raw| unpaired(faults, raw));
    for table in raw.tables {
        let span = table.span();
        let spec = table_spec(faults, table, &unpaired);
        if let Some(twin) = tables.iter().find(|other| other.source == spec.source) {
            faults.add(
                span,
                format!("table {} is in this pair already, at line {}", spec.source, twin.line),
                "keep one of the two; parts of one table belong in pairs of their own",
            );
        }
        tables.push(spec);
    }
    if raw.source == raw.target && tables.iter().all(|table| table.source == table.target) {
        faults.add(
            raw.target.span(),
            "source and target are the same tables of the same endpoint",
            "name two endpoints, or tables with a source and a target name",
        );
    }
    PairSpec {
        line: faults.line(&name.span()),
        source: raw.source.into_inner(),
        target: raw.target.into_inner(),
        source_schema: raw.source_schema,
        target_schema: raw.target_schema,
        unpaired,
        tables,
    }
}

/// What columns without a partner mean.
fn unpaired(faults: &mut Faults<'_>, raw: Spanned<raw::Unpaired>) -> Unpaired {
    let span = raw.span();
    match raw.into_inner() {
        raw::Unpaired::Names(names) => Unpaired::Accept(names),
        raw::Unpaired::Word(word) => match word.as_str() {
            "ignore" => Unpaired::Ignore,
            "different" => Unpaired::Different,
            _ => {
                let hint = "write \"ignore\", \"different\", or the names of columns as [\"a\", \"b\"]";
                faults.add(span, format!("{word:?} is not a way to treat unpaired columns"), hint);
                Unpaired::default()
            }
        },
    }
}

/// `of_pair`: what the pair says of unpaired columns.
fn table_spec(faults: &mut Faults<'_>, table: Spanned<raw::Table>, of_pair: &Unpaired) -> TableSpec {
    let span = table.span();
    let line = faults.line(&span);
    let options = match table.into_inner() {
        raw::Table::Name(name) => {
            let word = Spanned::new(span.clone(), name);
            raw::TableOptions { table: Some(word), ..raw::TableOptions::default() }
        }
        raw::Table::Options(options) => *options,
    };
    let (source, target) = match (&options.table, &options.source, &options.target) {
        (Some(both), None, None) => (both, both),
        (None, Some(source), Some(target)) => (source, target),
        _ => {
            faults.add(
                span,
                "this table has no clear name",
                "write table = \"NAME\", or source = \"NAME\" and target = \"NAME\"",
            );
            return TableSpec {
                line,
                source: TableName::new(None, ""),
                target: TableName::new(None, ""),
                wishes: Wishes::default(),
                tolerance: Tolerances::new(),
            };
        }
    };
    let (source, target) = (faults.table(source), faults.table(target));
    if let (Some(_), Some(one)) =
        (&options.both_where, options.source_where.as_ref().or(options.target_where.as_ref()))
    {
        faults.add(
            one.span(),
            "where holds for both sides already",
            "keep where, or source_where and target_where",
        );
    }
    let mut tolerance = Tolerances::new();
    for (column, within) in options.tolerance {
        match within.get_ref().0.parse() {
            Ok(distance) => drop(tolerance.insert(column, distance)),
            Err(_) => faults.add(
                within.span(),
                format!("the tolerance of {column} is no distance"),
                "write a number from 0 on, as 5 or \"0.01\"",
            ),
        }
    }
    let both = options.both_where.map(Spanned::into_inner);
    let wishes = Wishes {
        key: options.key,
        columns: options.columns,
        exclude: options.exclude,
        map: options.map,
        as_text: options.as_text,
        assume_utc: options.assume_utc,
        unpaired: options.unpaired.map_or_else(|| of_pair.clone(), |raw| unpaired(faults, raw)),
        source_where: options.source_where.map(Spanned::into_inner).or_else(|| both.clone()),
        target_where: options.target_where.map(Spanned::into_inner).or(both),
        ranges: None,
    };
    TableSpec { line, source, target, wishes, tolerance }
}
