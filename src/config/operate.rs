//! What keeps running: storage, serve, schedules, alerts, retention.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use toml::Spanned;

use super::diagnose::suggest;
use super::raw::{self, Word};
use super::resolve::{Faults, is_variable};
use super::timetable::{Schedule, Timetable};
use super::url::holds_password;
use super::{AlertKind, AlertSpec, Retention, SecretSpec, ServeSpec, Severity, StorageSpec};

/// So often a check runs that says nothing of it: with what a run and a message take, a difference is told in less than
/// five minutes.
pub const SCHEDULE_DEFAULT: &str = "every 2m";
const JITTER_DEFAULT: Duration = Duration::from_secs(10);

pub(super) fn serve(faults: &mut Faults<'_>, raw: Option<raw::Serve>) -> ServeSpec {
    let mut spec = ServeSpec::default();
    let Some(raw) = raw else { return spec };
    if let Some(word) = &raw.listen {
        match word.get_ref().parse::<SocketAddr>() {
            Ok(address) => spec.listen = address,
            Err(_) => faults.add(
                word.span(),
                format!("{:?} is no address to listen on", word.get_ref()),
                "write ADDRESS:PORT, as \"127.0.0.1:8420\"",
            ),
        }
    }
    if let Some(given) = &raw.concurrency {
        spec.concurrency = usize::try_from(*given.get_ref()).unwrap_or(0);
        if !(1..=64).contains(&spec.concurrency) {
            faults.add(given.span(), "this many checks cannot run at once", "write a number from 1 to 64");
        }
    }
    if let Some(word) = &raw.public_url {
        if !word.get_ref().starts_with("http://") && !word.get_ref().starts_with("https://") {
            faults.add(word.span(), "this is no URL of a page", "write it as \"https://trueup.example\"");
        }
        spec.public_url = Some(word.get_ref().trim_end_matches('/').to_owned());
    }
    let mut duration = |word: &Option<Word>, into: &mut Duration| {
        if let Some(word) = word {
            *into = faults.duration(word);
        }
    };
    duration(&raw.grace, &mut spec.grace);
    duration(&raw.lease, &mut spec.lease);
    if let Some(word) = raw.lease.as_ref().filter(|_| spec.lease < Duration::from_secs(2)) {
        faults.add(word.span(), "a lease this short is lost at every hiccup", "write 10s or more");
    }
    spec.view_token = secret(faults, raw.view_token.as_ref(), raw.view_token_file.as_ref(), "view_token");
    spec.operate_token =
        secret(faults, raw.operate_token.as_ref(), raw.operate_token_file.as_ref(), "operate_token");
    spec
}

pub(super) fn storage(faults: &mut Faults<'_>, raw: Option<raw::Storage>) -> StorageSpec {
    let Some(raw) = raw else { return StorageSpec::default() };
    let file = |word: Option<Word>| word.map(|word| PathBuf::from(word.into_inner()));
    if let Some(word) = &raw.ledger
        && holds_password(word.get_ref())
    {
        faults.add(
            word.span(),
            "a password does not belong in this file",
            "write ledger = \"env:NAME\" and set NAME to the whole URL in the environment",
        );
    }
    StorageSpec {
        ledger: raw.ledger.map(Spanned::into_inner),
        audit_key_file: file(raw.audit_key_file),
        keep_keys: raw.keep_keys,
        undo: raw.undo.unwrap_or(true),
        undo_dir: file(raw.undo_dir),
        undo_key_file: file(raw.undo_key_file),
        undo_keep: raw.undo_keep.map(|word| faults.duration(&word)),
    }
}

pub(super) fn retention(faults: &mut Faults<'_>, raw: Option<raw::Retention>) -> Retention {
    let Some(raw) = raw else { return Retention::default() };
    let mut length = |word: Option<Word>| word.map(|word| faults.duration(&word));
    Retention { runs: length(raw.runs), trail: length(raw.trail), last_runs: raw.last_runs.unwrap_or(0) }
}

/// The named schedules and the one for checks that name none.
pub(super) struct Timetables {
    named: BTreeMap<String, Timetable>,
    pub(super) default: Timetable,
}

impl Timetables {
    pub(super) fn read(
        faults: &mut Faults<'_>,
        schedules: BTreeMap<Word, raw::Schedule>,
        serve: Option<&raw::Serve>,
    ) -> Self {
        let utc = TimeZone::UTC;
        let standard = Timetable {
            schedule: Schedule::Every(Duration::from_secs(120)),
            jitter: JITTER_DEFAULT,
            catch_up: true,
            text: SCHEDULE_DEFAULT.to_owned(),
        };
        let mut all = Self { named: BTreeMap::new(), default: standard };
        for (name, raw) in schedules {
            let zone = zone(faults, raw.time_zone.as_ref()).unwrap_or(utc.clone());
            let table = plain(faults, &raw.when, &zone).map(|table| Timetable {
                jitter: raw.jitter.as_ref().map_or(table.jitter, |word| faults.duration(word)),
                catch_up: raw.catch_up.unwrap_or(true),
                text: format!(
                    "{} {:?} {:?}",
                    table.text,
                    zone.iana_name(),
                    raw.jitter.as_ref().map(Spanned::get_ref)
                ),
                ..table
            });
            if let Some(table) = table {
                all.named.insert(name.into_inner(), table);
            }
        }
        if let Some(word) = serve.and_then(|serve| serve.schedule.as_ref())
            && let Some(table) = all.find(faults, word)
        {
            all.default = table;
        }
        all
    }

    /// A name, or a schedule written out.
    pub(super) fn find(&self, faults: &mut Faults<'_>, word: &Word) -> Option<Timetable> {
        let text = word.get_ref().as_str();
        if let Some(table) = self.named.get(text) {
            return Some(table.clone());
        }
        if text == "manual" || text.contains(' ') {
            return plain(faults, word, &TimeZone::UTC);
        }
        let known: Vec<&str> = self.named.keys().map(String::as_str).collect();
        let hint = suggest(text, &known).unwrap_or_else(|| {
            "write \"every 15m\", five fields of cron, \"manual\", or add [schedules.NAME]".to_owned()
        });
        faults.add(word.span(), format!("there is no schedule `{text}`"), hint);
        None
    }
}

fn plain(faults: &mut Faults<'_>, word: &Word, zone: &TimeZone) -> Option<Timetable> {
    match Schedule::parse(word.get_ref(), zone) {
        Ok(schedule) => {
            // A minute's jitter in a schedule of seconds would be none.
            let jitter = match &schedule {
                Schedule::Every(interval) => JITTER_DEFAULT.min(*interval / 10),
                _ => JITTER_DEFAULT,
            };
            Some(Timetable { schedule, jitter, catch_up: true, text: word.get_ref().clone() })
        }
        Err(why) => {
            faults.add(word.span(), format!("{:?} is no schedule", word.get_ref()), why);
            None
        }
    }
}

fn zone(faults: &mut Faults<'_>, word: Option<&Word>) -> Option<TimeZone> {
    let word = word?;
    TimeZone::get(word.get_ref())
        .map_err(|_| {
            faults.add(
                word.span(),
                format!("{:?} is no time zone", word.get_ref()),
                "write a name of the IANA database, as in Europe/Berlin",
            );
        })
        .ok()
}

/// Secrets are named, never written.
fn secret(
    faults: &mut Faults<'_>,
    word: Option<&Word>,
    file: Option<&Word>,
    option: &str,
) -> Option<SecretSpec> {
    if let (Some(_), Some(file)) = (word, file) {
        faults.add(
            file.span(),
            format!("{option} has two places"),
            format!("keep either {option} or {option}_file"),
        );
    }
    if let Some(file) = file {
        return Some(SecretSpec::File(PathBuf::from(file.get_ref())));
    }
    let word = word?;
    match word.get_ref().strip_prefix("env:").filter(|name| is_variable(name)) {
        Some(name) => Some(SecretSpec::Env(name.to_owned())),
        None => {
            faults.add(
                word.span(),
                "a secret does not belong in this file",
                format!("write {option} = \"env:NAME\" and set NAME in the environment, or {option}_file = \"PATH\""),
            );
            None
        }
    }
}

pub(super) fn alert(
    faults: &mut Faults<'_>,
    name: &Word,
    raw: raw::Alert,
    checks: &[&str],
) -> Option<AlertSpec> {
    for word in &raw.checks {
        faults.reference(word, "check", checks);
    }
    let needs = |faults: &mut Faults<'_>, option: &str, why: &str| {
        faults.add(
            name.span(),
            format!("an alert of kind {} needs `{option}`", raw.kind.get_ref()),
            format!("add {option} = ... to [alerts.{}]: {why}", name.get_ref()),
        );
    };
    let given: [(&str, Option<&Word>); 9] = [
        ("url", raw.url.as_ref()),
        ("url_file", raw.url_file.as_ref()),
        ("secret", raw.secret.as_ref()),
        ("secret_file", raw.secret_file.as_ref()),
        ("smtp", raw.smtp.as_ref()),
        ("smtp_file", raw.smtp_file.as_ref()),
        ("from", raw.from.as_ref()),
        ("to", raw.to.first()),
        ("command", raw.command.first()),
    ];
    let takes: &[&str] = match raw.kind.get_ref().as_str() {
        "webhook" => &["url", "url_file", "secret", "secret_file"],
        "slack" => &["url", "url_file"],
        "pagerduty" => &["secret", "secret_file", "url"],
        "email" => &["smtp", "smtp_file", "from", "to"],
        "command" => &["command"],
        other => {
            let hint = suggest(other, &["webhook", "slack", "pagerduty", "email", "command"]);
            faults.add_maybe(raw.kind.span(), format!("`{other}` is no kind of alert"), hint);
            return None;
        }
    };
    for (option, word) in given {
        if let Some(word) = word
            && !takes.contains(&option)
        {
            faults.add(
                word.span(),
                format!("`{option}` means nothing to an alert of kind {}", raw.kind.get_ref()),
                format!("it takes {}", takes.join(", ")),
            );
        }
    }
    // An address that anybody may know may stand here; one that is a secret in itself is named.
    let url = match (&raw.url, &raw.url_file) {
        (Some(word), None)
            if word.get_ref().starts_with("http://") || word.get_ref().starts_with("https://") =>
        {
            if holds_password(word.get_ref()) {
                secret(faults, Some(word), None, "url")
            } else {
                Some(SecretSpec::Plain(word.get_ref().clone()))
            }
        }
        (word, file) => secret(faults, word.as_ref(), file.as_ref(), "url"),
    };
    let key = secret(faults, raw.secret.as_ref(), raw.secret_file.as_ref(), "secret");
    let smtp = secret(faults, raw.smtp.as_ref(), raw.smtp_file.as_ref(), "smtp");
    let no_url = raw.url.is_none() && raw.url_file.is_none();
    let no_secret = raw.secret.is_none() && raw.secret_file.is_none();
    let kind = match raw.kind.get_ref().as_str() {
        "webhook" => match url {
            Some(url) => AlertKind::Webhook { url, secret: key },
            None => return missing(faults, no_url, needs, "url", "where to post to"),
        },
        "slack" => match url {
            Some(url) => AlertKind::Slack { url },
            None => return missing(faults, no_url, needs, "url", "the incoming webhook, env:NAME"),
        },
        "pagerduty" => match key {
            Some(routing_key) => AlertKind::PagerDuty { routing_key, url },
            None => {
                return missing(
                    faults,
                    no_secret,
                    needs,
                    "secret",
                    "the integration's routing key, env:NAME",
                );
            }
        },
        "email" => {
            let (Some(smtp), Some(from), false) = (smtp, &raw.from, raw.to.is_empty()) else {
                return missing(
                    faults,
                    true,
                    needs,
                    "smtp, from and to",
                    "smtp is env:NAME of smtps://USER:PASSWORD@HOST",
                );
            };
            let to = raw.to.iter().map(|word| word.get_ref().clone()).collect();
            AlertKind::Email { smtp, from: from.get_ref().clone(), to }
        }
        _ => {
            if raw.command.is_empty() {
                return missing(faults, true, needs, "command", "a program and its arguments");
            }
            AlertKind::Command { command: raw.command.iter().map(|word| word.get_ref().clone()).collect() }
        }
    };
    let min_severity =
        raw.min_severity.as_ref().map_or(Severity::Warning, |word| super::check::severity(faults, word));
    let mut spec = AlertSpec {
        line: faults.line(&name.span()),
        kind,
        min_severity,
        checks: raw.checks.into_iter().map(Spanned::into_inner).collect(),
        resolved: raw.resolved.unwrap_or(true),
        ..AlertSpec::default()
    };
    let mut duration = |word: &Option<Word>, into: &mut Duration| {
        if let Some(word) = word {
            *into = faults.duration(word);
        }
    };
    duration(&raw.group, &mut spec.group);
    duration(&raw.retry, &mut spec.retry);
    duration(&raw.give_up, &mut spec.give_up);
    if let Some(word) = &raw.repeat {
        spec.repeat = Some(faults.duration(word)).filter(|time| !time.is_zero());
    }
    Some(spec)
}

fn missing(
    faults: &mut Faults<'_>,
    is_missing: bool,
    needs: impl Fn(&mut Faults<'_>, &str, &str),
    option: &str,
    why: &str,
) -> Option<AlertSpec> {
    // What is there but wrong was told already.
    if is_missing {
        needs(faults, option, why);
    }
    None
}
