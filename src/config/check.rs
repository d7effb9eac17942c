//! One check of the file: its kind, the options that the kind takes, and what they mean.

use std::collections::BTreeMap;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use bigdecimal::{BigDecimal, Signed};
use toml::Spanned;

use super::diagnose::suggest;
use super::operate::Timetables;
use super::raw::{self, Word};
use super::resolve::Faults;
use super::{CheckKind, CheckSpec, PairSpec, RepairPolicy, Severity, Tolerance, Window};
use crate::model::measure::Step;

/// Which options a kind takes beside pair, table, severity, owner: those it needs, those it may have, its tolerances.
type Takes = (&'static str, &'static [&'static str], &'static [&'static str], &'static [&'static str]);

const TAKES: [Takes; 10] = [
    ("rows", &[], &["window", "repair"], &["rows", "percent"]),
    ("count", &[], &["window"], &["rows", "percent"]),
    ("sum", &["column"], &["window"], &["absolute", "percent"]),
    ("min", &["column"], &["window"], &["absolute", "percent", "lag"]),
    ("max", &["column"], &["window"], &["absolute", "percent", "lag"]),
    ("null_share", &["column"], &["window"], &["absolute"]),
    ("freshness", &["column"], &["max_age"], &["lag"]),
    ("gaps", &["column"], &["step", "time_zone", "window"], &["rows", "percent"]),
    ("duplicates", &["key"], &["window"], &["rows"]),
    ("sql", &[], &["sql", "source_sql", "target_sql"], &["absolute", "percent"]),
];

pub(super) fn check(
    faults: &mut Faults<'_>,
    name: &Word,
    raw: raw::Check,
    pairs: &BTreeMap<String, PairSpec>,
    timetables: &Timetables,
) -> Option<CheckSpec> {
    let known: Vec<&str> = pairs.keys().map(String::as_str).collect();
    faults.reference(&raw.pair, "pair", &known);
    let kind_name = raw.kind.get_ref().as_str();
    let Some(takes) = TAKES.iter().find(|(kind, ..)| *kind == kind_name) else {
        let hint = suggest(kind_name, &CheckKind::NAMES);
        faults.add_maybe(raw.kind.span(), format!("`{kind_name}` is no kind of check"), hint);
        return None;
    };
    let complete = check_options(faults, name, &raw, takes);
    let table = raw.table.as_ref().map(|word| {
        let table = faults.table(word);
        if let Some(pair) = pairs.get(raw.pair.get_ref())
            && !pair.tables.is_empty()
            && !pair.tables.iter().any(|spec| spec.source == table)
        {
            let names: Vec<String> = pair.tables.iter().map(|spec| spec.source.to_string()).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let hint = suggest(&table.to_string(), &names);
            let message = format!("pair `{}` has no table {table}", raw.pair.get_ref());
            faults.add_maybe(word.span(), message, hint);
        }
        table
    });
    let kind = complete.then(|| kind(faults, &raw))?;
    Some(CheckSpec {
        line: faults.line(&name.span()),
        table,
        kind,
        tolerance: raw.tolerance.map(|given| tolerance(faults, given.into_inner())).unwrap_or_default(),
        window: raw.window.map(|given| window(faults, given.into_inner())),
        severity: raw.severity.map(|word| severity(faults, &word)).unwrap_or_default(),
        owner: raw.owner,
        repair: raw.repair.map(|given| repair(faults, &given)).unwrap_or_default(),
        timetable: raw
            .schedule
            .and_then(|word| timetables.find(faults, &word))
            .unwrap_or_else(|| timetables.default.clone()),
        accept_hidden_rows: raw.hidden_rows.is_some_and(|word| hidden_rows(faults, &word)),
        pair: raw.pair.into_inner(),
    })
}

/// Options that mean nothing to the kind are faults, and so are those missing; `false` where one is missing.
fn check_options(faults: &mut Faults<'_>, name: &Word, raw: &raw::Check, takes: &Takes) -> bool {
    let (kind, needs, may, tolerances) = *takes;
    let span = |word: &Option<Word>| word.as_ref().map(Spanned::span);
    let given: [(&str, Option<Range<usize>>); 10] = [
        ("column", span(&raw.column)),
        ("key", raw.key.as_ref().map(Spanned::span)),
        ("max_age", span(&raw.max_age)),
        ("step", raw.step.as_ref().map(Spanned::span)),
        ("time_zone", span(&raw.time_zone)),
        ("sql", span(&raw.sql)),
        ("source_sql", span(&raw.source_sql)),
        ("target_sql", span(&raw.target_sql)),
        ("window", raw.window.as_ref().map(Spanned::span)),
        ("repair", raw.repair.as_ref().map(Spanned::span)),
    ];
    let mut complete = true;
    for (option, at) in &given {
        match at {
            Some(at) if !needs.contains(option) && !may.contains(option) => {
                let all: Vec<&str> = needs.iter().chain(may).copied().collect();
                let hint = if all.is_empty() {
                    "leave it out".to_owned()
                } else {
                    format!("a check of kind {kind} takes {}", all.join(", "))
                };
                faults.add(at.clone(), format!("`{option}` means nothing to a check of kind {kind}"), hint);
            }
            None if needs.contains(option) => {
                complete = false;
                faults.add(
                    name.span(),
                    format!("a check of kind {kind} needs `{option}`"),
                    format!("add {option} = ... to [checks.{}]", name.get_ref()),
                );
            }
            _ => {}
        }
    }
    if kind == "sql" && raw.sql.is_none() && (raw.source_sql.is_none() || raw.target_sql.is_none()) {
        complete = false;
        faults.add(
            name.span(),
            "a check of kind sql needs a query for each side",
            "add sql = \"SELECT ...\" for both, or source_sql and target_sql",
        );
    }
    if let (Some(_), Some(one)) = (&raw.sql, raw.source_sql.as_ref().or(raw.target_sql.as_ref())) {
        faults.add(one.span(), "sql is for both sides already", "keep sql, or source_sql and target_sql");
    }
    if let (Some(word), "sql") = (&raw.hidden_rows, kind) {
        faults.add(
            word.span(),
            "`hidden_rows` means nothing to a check of kind sql",
            "leave it out: what the query reads is not known",
        );
    }
    if let Some(tolerance) = &raw.tolerance {
        let it = tolerance.get_ref();
        let given = [
            ("absolute", it.absolute.as_ref().map(Spanned::span)),
            ("percent", it.percent.as_ref().map(Spanned::span)),
            ("rows", it.rows.as_ref().map(Spanned::span)),
            ("lag", span(&it.lag)),
        ];
        for (option, at) in given {
            if let Some(at) = at
                && !tolerances.contains(&option)
            {
                faults.add(
                    at,
                    format!("a tolerance in `{option}` means nothing to a check of kind {kind}"),
                    format!("its tolerance is given as {}", tolerances.join(" or ")),
                );
            }
        }
    }
    complete
}

fn kind(faults: &mut Faults<'_>, raw: &raw::Check) -> CheckKind {
    let column = || raw.column.as_ref().map(|word| word.get_ref().clone()).unwrap_or_default();
    let sql = |side: &Option<Word>| {
        let word = side.as_ref().or(raw.sql.as_ref());
        word.map(|word| word.get_ref().clone()).unwrap_or_default()
    };
    match raw.kind.get_ref().as_str() {
        "count" => CheckKind::Count,
        "sum" => CheckKind::Sum { column: column() },
        "min" => CheckKind::Min { column: column() },
        "max" => CheckKind::Max { column: column() },
        "null_share" => CheckKind::NullShare { column: column() },
        "freshness" => CheckKind::Freshness {
            column: column(),
            max_age: raw.max_age.as_ref().map(|word| faults.duration(word)),
        },
        "gaps" => CheckKind::Gaps { column: column(), step: step(faults, raw), time_zone: zone(faults, raw) },
        "duplicates" => {
            let key = raw.key.as_ref().map(|key| key.get_ref().clone()).unwrap_or_default();
            if key.is_empty()
                && let Some(given) = &raw.key
            {
                faults.add(
                    given.span(),
                    "the key has no column",
                    "name the columns that must be unique together",
                );
            }
            CheckKind::Duplicates { key }
        }
        "sql" => CheckKind::Sql { source: sql(&raw.source_sql), target: sql(&raw.target_sql) },
        _ => CheckKind::Rows,
    }
}

fn step(faults: &mut Faults<'_>, raw: &raw::Check) -> Step {
    let Some(word) = &raw.step else { return Step::Day };
    Step::from_str(&word.get_ref().0).unwrap_or_else(|why| {
        faults.add(word.span(), format!("{:?} is no step", word.get_ref().0), why);
        Step::Day
    })
}

fn zone(faults: &mut Faults<'_>, raw: &raw::Check) -> String {
    let Some(word) = &raw.time_zone else { return "UTC".to_owned() };
    if jiff::tz::TimeZone::get(word.get_ref()).is_err() {
        faults.add(
            word.span(),
            format!("{:?} is no time zone", word.get_ref()),
            "write a name of the IANA database, as in Europe/Berlin",
        );
    }
    word.get_ref().clone()
}

fn tolerance(faults: &mut Faults<'_>, raw: raw::Tolerance) -> Tolerance {
    let mut number = |given: Option<Spanned<raw::Number>>| {
        let given = given?;
        match BigDecimal::from_str(&given.get_ref().0) {
            Ok(value) if !value.is_negative() => Some(value),
            _ => {
                faults.add(
                    given.span(),
                    format!("{:?} is no distance", given.get_ref().0),
                    "write a number from 0 on, as 5 or \"0.01\"",
                );
                None
            }
        }
    };
    let (absolute, percent) = (number(raw.absolute), number(raw.percent));
    Tolerance {
        absolute,
        percent,
        rows: raw.rows.map(Spanned::into_inner),
        lag: raw.lag.map(|word| faults.duration(&word)),
    }
}

fn window(faults: &mut Faults<'_>, raw: raw::Window) -> Window {
    let last = faults.duration(&raw.last);
    let settle = raw.settle.as_ref().map_or(Duration::ZERO, |word| faults.duration(word));
    if settle >= last && !last.is_zero() {
        let at = raw.settle.as_ref().map_or_else(|| raw.last.span(), Spanned::span);
        faults.add(at, "the window holds nothing", "last must be longer than settle");
    }
    Window { column: raw.column.into_inner(), last, settle }
}

pub(super) fn severity(faults: &mut Faults<'_>, word: &Word) -> Severity {
    let all = [Severity::Info, Severity::Warning, Severity::Critical];
    all.into_iter().find(|severity| severity.name() == word.get_ref()).unwrap_or_else(|| {
        faults.add(
            word.span(),
            format!("{:?} is no severity", word.get_ref()),
            "write info, warning or critical",
        );
        Severity::default()
    })
}

/// Whether rows that the login may not see are accepted.
fn hidden_rows(faults: &mut Faults<'_>, word: &Word) -> bool {
    let accepts = word.get_ref() == "accept";
    if !accepts && word.get_ref() != "unknown" {
        faults.add(
            word.span(),
            format!("{:?} says nothing of hidden rows", word.get_ref()),
            "write \"unknown\", the default, or \"accept\"",
        );
    }
    accepts
}

fn repair(faults: &mut Faults<'_>, raw: &Spanned<raw::Repair>) -> RepairPolicy {
    match raw.get_ref() {
        raw::Repair::UpTo(rows) => RepairPolicy::UpTo(*rows),
        raw::Repair::Word(word) => match word.as_str() {
            "never" => RepairPolicy::Never,
            "dry_run" => RepairPolicy::DryRun,
            _ => {
                faults.add(
                    raw.span(),
                    format!("{word:?} is no policy of repair"),
                    "write \"never\", \"dry_run\" or { up_to = N }",
                );
                RepairPolicy::Never
            }
        },
    }
}
