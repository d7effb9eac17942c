//! From a configured check to what is asked of each side, or why it cannot be.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::judge::Judged;
use crate::agent::{AgentError, AgentHandle, error::FailureKind};
use crate::config::{CheckKind, CheckSpec, Config, Diagnostic, PairSpec, Window};
use crate::coordinator::survey::{Subject, filter, meaning, measured, misfits};
use crate::coordinator::{PairRequest, find_pairs};
use crate::engine::measure::{has_order, has_sum};
use crate::model::comparison::is_rounded;
use crate::model::measure::{Aggregate, Axis, Misfit, Range, Step, Total, Totals};
use crate::model::plan::PlanColumn;
use crate::model::temporal::MICROS_PER_DAY;
use crate::model::{
    ColumnType, ComparisonType, Plan, PlanRefusal, Question, Role, ServerInfo, TableName, TableSchema,
    Tolerances, Wishes, distance,
};

/// One table of a pair, agreed on by both sides, or why not.
#[derive(Debug)]
pub(super) struct Planned {
    /// By source name, as configured.
    pub(super) name: TableName,
    pub(super) source: TableName,
    pub(super) target: TableName,
    pub(super) wishes: Wishes,
    pub(super) tolerance: Tolerances,
    pub(super) plan: Result<Plan, AgentError>,
    /// The target's table; `None` where a side could not describe it.
    pub(super) target_schema: Option<TableSchema>,
    /// What both engines say that a person must know.
    pub(super) notes: Vec<String>,
    /// Why a side may hold rows that its login does not see.
    pub(super) hidden_rows: Option<String>,
    /// In the configuration.
    pub(super) line: usize,
}

/// A row is in the future if it is later than this from now; clocks of servers are less wrong.
const CLOCK_ERROR_MICROS: i128 = 300_000_000;

impl Planned {
    /// What a check comes to whose table may hold rows that a login does not see, unless the check accepts that.
    pub(super) fn kept_from(&self, check: &CheckSpec) -> Option<Judged> {
        let hidden = self.hidden_rows.as_ref().filter(|_| !check.accept_hidden_rows)?;
        let hint = "use a login that sees all rows, or write hidden_rows = \"accept\" in the check";
        Some(Judged::unknown(hidden.clone(), Some(hint.to_owned())))
    }
}

fn usage(what: impl Into<String>, hint: impl Into<String>) -> AgentError {
    AgentError::new(FailureKind::Usage, what).with_hint(hint)
}

/// The tables of a pair that `wanted` names; none named means all.
pub(super) async fn tables(
    pair: &PairSpec,
    wanted: Option<&TableName>,
    agents: (&AgentHandle, &AgentHandle),
    servers: &(ServerInfo, ServerInfo),
) -> Result<Vec<Planned>, AgentError> {
    let request = |tables| PairRequest {
        tables,
        source_schema: pair.source_schema.clone(),
        target_schema: pair.target_schema.clone(),
    };
    let mut planned = Vec::new();
    if pair.tables.is_empty() {
        let tables = wanted.map(|table| (table.clone(), table.clone())).into_iter().collect();
        for found in find_pairs(agents.0, agents.1, &request(tables)).await?.pairs {
            let wishes = Wishes { unpaired: pair.unpaired.clone(), ..Wishes::default() };
            let tolerance = Tolerances::new();
            let plan = agree(&found.schemas, servers, &wishes, &tolerance);
            let (notes, hidden_rows) = known_of(&found.schemas);
            let target_schema = found.schemas.as_ref().ok().map(|(_, target)| target.clone());
            planned.push(Planned {
                target_schema,
                name: wanted.cloned().unwrap_or_else(|| found.source.clone()),
                source: found.source,
                target: found.target,
                wishes,
                tolerance,
                plan,
                notes,
                hidden_rows,
                line: pair.line,
            });
        }
        return Ok(planned);
    }
    for spec in pair.tables.iter().filter(|spec| wanted.is_none_or(|table| spec.source == *table)) {
        let tables = vec![(spec.source.clone(), spec.target.clone())];
        for found in find_pairs(agents.0, agents.1, &request(tables)).await?.pairs {
            let (notes, hidden_rows) = known_of(&found.schemas);
            planned.push(Planned {
                target_schema: found.schemas.as_ref().ok().map(|(_, target)| target.clone()),
                name: spec.source.clone(),
                plan: agree(&found.schemas, servers, &spec.wishes, &spec.tolerance),
                notes,
                hidden_rows,
                source: found.source,
                target: found.target,
                wishes: spec.wishes.clone(),
                tolerance: spec.tolerance.clone(),
                line: spec.line,
            });
        }
    }
    Ok(planned)
}

type Schemas = Result<(TableSchema, TableSchema), AgentError>;

fn agree(
    schemas: &Schemas,
    servers: &(ServerInfo, ServerInfo),
    wishes: &Wishes,
    tolerance: &Tolerances,
) -> Result<Plan, AgentError> {
    let (source, target) = schemas.as_ref().map_err(Clone::clone)?;
    let plan = Plan::agree((source, &servers.0), (target, &servers.1), wishes);
    plan.and_then(|plan| distance::check(&plan, tolerance).map(|()| plan))
        .map_err(|PlanRefusal { what, hint }| usage(what, hint))
}

/// The engines' notes, and whether rows may be hidden, each with its side.
fn known_of(schemas: &Schemas) -> (Vec<String>, Option<String>) {
    let Ok((source, target)) = schemas else { return (Vec::new(), None) };
    let sides = [(Role::Source, source), (Role::Target, target)];
    let notes = sides
        .iter()
        .flat_map(|(role, schema)| schema.notes.iter().map(move |note| format!("{role}: {note}")))
        .collect();
    let hidden: Vec<String> = sides
        .iter()
        .filter_map(|(role, schema)| Some(format!("{role}: {}", schema.hidden_rows.as_ref()?)))
        .collect();
    (notes, (!hidden.is_empty()).then(|| hidden.join("; ")))
}

/// The items of a check in the one query of its table.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) source: Vec<Total>,
    pub(super) target: Vec<Total>,
    /// What the first item's values are.
    pub(super) comparison: ComparisonType,
    /// Items of the check itself. The rows that they are of follow, then the misfits of `column` and of `window`.
    pub(super) values: usize,
    /// The columns whose misfits are counted, by source name: the one that is measured, and the window's.
    pub(super) column: Option<String>,
    pub(super) window: Option<String>,
    pub(super) is_float_sum: bool,
    /// Doubles beside floats of 32 bits: a total of the one is not rounded as the values of the other were.
    pub(super) is_mixed_float: bool,
}

pub(super) fn column<'p>(plan: &'p Plan, name: &str) -> Result<&'p PlanColumn, AgentError> {
    plan.columns.iter().find(|column| column.source == name).ok_or_else(|| {
        let names: Vec<&str> = plan.columns.iter().map(|column| column.source.as_str()).collect();
        usage(
            format!("no column {name} is compared in {}", plan.source),
            format!("the columns that both sides have are {}", names.join(", ")),
        )
    })
}

fn numeric(
    column: &PlanColumn,
    what: &str,
    fits: fn(&ColumnType) -> bool,
) -> Result<ComparisonType, AgentError> {
    let comparison = meaning(column);
    let sound = !column.as_text
        && fits(&column.source_type)
        && fits(&column.target_type)
        && matches!(
            comparison,
            ComparisonType::Integer
                | ComparisonType::Decimal { .. }
                | ComparisonType::Float { .. }
                | ComparisonType::Date
                | ComparisonType::Timestamp { .. }
                | ComparisonType::TimestampTz { .. }
        );
    if sound {
        return Ok(comparison);
    }
    Err(usage(
        format!(
            "column {} ({}) has no {what} that both databases agree on",
            column.source, column.source_declared
        ),
        match (&column.source_type, &column.target_type) {
            (ColumnType::Text { .. } | ColumnType::Named(_), _)
            | (_, ColumnType::Text { .. } | ColumnType::Named(_)) => {
                "text has as many orders as collations: check it with kind = \"rows\""
            }
            _ => "check it with kind = \"rows\"",
        },
    ))
}

/// The places to which a side's values must be rounded before they are added.
fn scale(column: &PlanColumn, role: Role) -> Option<u32> {
    let ComparisonType::Decimal { scale: Some(scale) } = column.comparison else { return None };
    let ty = if role == Role::Source { &column.source_type } else { &column.target_type };
    match ty {
        ColumnType::Decimal { scale: Some(own), .. } if *own <= scale => None,
        _ => Some(scale),
    }
}

/// What a check of totals asks; `None` for the kinds that ask otherwise.
pub(super) fn asked(plan: &Plan, check: &CheckSpec, now_micros: i64) -> Result<Option<Asked>, AgentError> {
    let Some(comparison) = comparison(plan, &check.kind)? else { return Ok(None) };
    let measured_column = match &check.kind {
        CheckKind::Sum { column } | CheckKind::Min { column } | CheckKind::Max { column } => Some(column),
        CheckKind::Freshness { column, .. } => Some(column),
        _ => None,
    };
    let window = check.window.as_ref().map(|window| &window.column);
    let total = |role| -> Result<Vec<Total>, AgentError> {
        let within = within(plan, check, role, now_micros)?;
        let mut all = items(plan, check, role, now_micros, within.as_ref())?;
        // The newest is of times that are not in the future; the rows are all.
        let rows = if matches!(check.kind, CheckKind::Freshness { .. }) { None } else { within.clone() };
        all.push(Total { within: rows.clone(), what: Aggregate::Count });
        if let Some(name) = measured_column {
            let misfits = misfits(&measured(column(plan, name)?, role), false);
            all.extend(misfits.into_iter().map(|what| Total { within: rows.clone(), what }));
        }
        if let Some(name) = window {
            let misfits = misfits(&measured(column(plan, name)?, role), true);
            all.extend(misfits.into_iter().map(|what| Total { within: None, what }));
        }
        Ok(all)
    };
    let of = measured_column.map(|name| column(plan, name)).transpose()?;
    let float = |ty: &ColumnType| matches!(ty, ColumnType::Float { .. });
    let is_sum = matches!(check.kind, CheckKind::Sum { .. });
    Ok(Some(Asked {
        source: total(Role::Source)?,
        target: total(Role::Target)?,
        comparison,
        values: if matches!(check.kind, CheckKind::Freshness { .. }) { 2 } else { 1 },
        column: measured_column.cloned(),
        window: window.cloned(),
        is_float_sum: is_sum && of.is_some_and(|of| float(&of.source_type) && float(&of.target_type)),
        is_mixed_float: of
            .is_some_and(|of| float(&of.source_type) && is_rounded(&of.comparison, &of.source_type)),
    }))
}

/// How the first total is read.
fn comparison(plan: &Plan, kind: &CheckKind) -> Result<Option<ComparisonType>, AgentError> {
    let number = ComparisonType::Decimal { scale: None };
    Ok(Some(match kind {
        CheckKind::Rows | CheckKind::Gaps { .. } | CheckKind::Sql { .. } => return Ok(None),
        CheckKind::Count | CheckKind::NullShare { .. } | CheckKind::Duplicates { .. } => number,
        CheckKind::Sum { column: name } => match numeric(column(plan, name)?, "sum", has_sum)? {
            // Each value is rounded where it must be; the sum is not.
            ComparisonType::Decimal { .. } | ComparisonType::Integer => number,
            other => other,
        },
        CheckKind::Min { column: name } => numeric(column(plan, name)?, "smallest value", has_order)?,
        CheckKind::Max { column: name } => numeric(column(plan, name)?, "largest value", has_order)?,
        CheckKind::Freshness { column: name, .. } => numeric(column(plan, name)?, "newest time", |ty| {
            matches!(ty.axis(), Some(Axis::Days | Axis::Micros))
        })?,
    }))
}

fn items(
    plan: &Plan,
    check: &CheckSpec,
    role: Role,
    now_micros: i64,
    within: Option<&Range>,
) -> Result<Vec<Total>, AgentError> {
    let of = |name: &str| column(plan, name).map(|column| measured(column, role));
    let what = match &check.kind {
        CheckKind::Rows | CheckKind::Gaps { .. } | CheckKind::Sql { .. } => return Ok(Vec::new()),
        CheckKind::Count => Aggregate::Count,
        CheckKind::NullShare { column } => {
            Aggregate::Misfits { column: of(column)?, kind: Misfit::Null, alone: false }
        }
        CheckKind::Sum { column: name } => {
            Aggregate::Sum { column: of(name)?, scale: scale(column(plan, name)?, role) }
        }
        CheckKind::Min { column } => Aggregate::Min(of(column)?),
        CheckKind::Max { column } => Aggregate::Max(of(column)?),
        CheckKind::Duplicates { key } => {
            Aggregate::Duplicates(key.iter().map(|name| of(name)).collect::<Result<_, _>>()?)
        }
        CheckKind::Freshness { column, .. } => {
            let subject = time_subject(plan, column)?;
            let future = future_from(&subject, now_micros);
            return Ok(vec![
                Total {
                    within: Some(subject.range(role, None, Some(future))),
                    what: Aggregate::Max(of(column)?),
                },
                Total { within: Some(subject.range(role, Some(future), None)), what: Aggregate::Count },
            ]);
        }
    };
    Ok(vec![Total { within: within.cloned(), what }])
}

/// Where the future begins, beyond what clocks are wrong by. A day has begun somewhere up to 14 hours before UTC.
fn future_from(subject: &Subject<'_>, now_micros: i64) -> i128 {
    let soon = i128::from(now_micros) + CLOCK_ERROR_MICROS;
    match subject.axis {
        Axis::Days => {
            let farthest = soon + i128::from(MICROS_PER_DAY) / 24 * 14;
            farthest.div_euclid(i128::from(MICROS_PER_DAY)) + 1
        }
        _ => soon.div_euclid(1_000_000) * 1_000_000,
    }
}

fn within(plan: &Plan, check: &CheckSpec, role: Role, now_micros: i64) -> Result<Option<Range>, AgentError> {
    match &check.window {
        Some(window) => {
            let subject = time_subject(plan, &window.column)?;
            let (from, to) = window_points(&subject, window, now_micros);
            Ok(Some(subject.range(role, Some(from), to)))
        }
        None => Ok(None),
    }
}

fn time_subject<'p>(plan: &'p Plan, name: &str) -> Result<Subject<'p>, AgentError> {
    let subject = Subject::of(plan, name)?;
    if subject.axis == Axis::Integer {
        return Err(usage(
            format!("column {name} holds integers, not times"),
            "choose a column of dates or timestamps",
        ));
    }
    Ok(subject)
}

/// From and, where rows must settle, to.
pub(super) fn window_points(subject: &Subject<'_>, window: &Window, now_micros: i64) -> (i128, Option<i128>) {
    let before = |by: Duration| {
        let micros = i128::from(now_micros) - i128::try_from(by.as_micros()).unwrap_or(i128::MAX / 2);
        // Whole seconds, and whole days of UTC for dates.
        match subject.axis {
            Axis::Days => micros.div_euclid(i128::from(MICROS_PER_DAY)),
            _ => micros.div_euclid(1_000_000) * 1_000_000,
        }
    };
    (before(window.last), (!window.settle.is_zero()).then(|| before(window.settle)))
}

pub(super) fn totals(plan: &Plan, role: Role, items: Vec<Total>) -> Question {
    Question::Totals(Totals { table: plan.table(role).clone(), filter: filter(plan, role), items })
}

/// A check of gaps, ready to be counted.
pub(super) struct Gaps<'p> {
    pub(super) subject: Subject<'p>,
    pub(super) step: Step,
    pub(super) zone: TimeZone,
}

pub(super) fn gaps<'p>(plan: &'p Plan, check: &CheckSpec) -> Result<Option<Gaps<'p>>, AgentError> {
    let CheckKind::Gaps { column, step, time_zone } = &check.kind else { return Ok(None) };
    let subject = Subject::of(plan, column)?;
    let zone = TimeZone::get(time_zone)
        .map_err(|_| usage(format!("{time_zone} is no time zone"), "write a name of the IANA database"))?;
    // Whether the step fits the column.
    subject.ruler(&zone).floor(*step, 0).map_err(|why| usage(why, "change `step`"))?;
    if let Some(window) = &check.window
        && window.column != *column
    {
        return Err(usage(
            format!("the window of a check of gaps is of its own column, {column}, not {}", window.column),
            "change `window`",
        ));
    }
    Ok(Some(Gaps { subject, step: *step, zone }))
}

/// What a look at the databases found.
#[derive(Debug, Default)]
pub struct Inspection {
    /// Tables that can be compared.
    pub tables: usize,
    pub warnings: Vec<String>,
    pub faults: Vec<Diagnostic>,
}

/// Looks whether everything that a pair and its checks name is there, and of a kind that can be compared.
pub async fn inspect(config: &Config, name: &str, source: &AgentHandle, target: &AgentHandle) -> Inspection {
    let mut found = Inspection::default();
    let Some(pair) = config.pairs.get(name) else { return found };
    let fault = |line: usize, what: &str, error: AgentError| {
        let side = error.side.map_or_else(String::new, |side| format!("{side}: "));
        Diagnostic::at_line(line, format!("{what}: {side}{}", error.message), error.hint)
    };
    let planned = async {
        let servers = (
            source.server().await.map_err(|error| error.on(Role::Source))?,
            target.server().await.map_err(|error| error.on(Role::Target))?,
        );
        tables(pair, None, (source, target), &servers).await
    };
    let planned = match planned.await {
        Ok(planned) => planned,
        Err(error) => {
            found.faults.push(fault(pair.line, &format!("pair {name}"), error));
            return found;
        }
    };
    for table in &planned {
        match &table.plan {
            Ok(plan) => {
                found.tables += 1;
                let told = plan.warnings.iter().chain(&table.notes).chain(&table.hidden_rows);
                found.warnings.extend(told.map(|warning| format!("{}: {warning}", table.name)));
                let columns = plan.coverage.lines().into_iter();
                found.warnings.extend(columns.map(|line| format!("{}: columns {line}", table.name)));
            }
            Err(error) => {
                found.faults.push(fault(table.line, &format!("table {}", table.name), error.clone()))
            }
        }
    }
    for (check_name, check) in config.checks.iter().filter(|(_, check)| check.pair == name) {
        let what = format!("check {check_name}");
        let covered: Vec<&Planned> = planned
            .iter()
            .filter(|table| check.table.as_ref().is_none_or(|wanted| named(table, wanted)))
            .collect();
        if let (Some(table), true) = (&check.table, covered.is_empty()) {
            found.faults.push(fault(
                check.line,
                &what,
                usage(
                    format!("the two sides share no table {table}"),
                    "check its name, or list it in the pair",
                ),
            ));
        }
        for table in covered {
            let Ok(plan) = &table.plan else { continue };
            let sound = asked(plan, check, 0).and_then(|_| gaps(plan, check).map(drop));
            if let Err(error) = sound {
                found.faults.push(fault(check.line, &what, error));
            }
        }
    }
    found
}

/// A table without schema stands for that name in the pair's schema.
pub(super) fn named(table: &Planned, wanted: &TableName) -> bool {
    table.name == *wanted || (wanted.schema.is_none() && table.source.name == wanted.name)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
