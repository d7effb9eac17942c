//! Runs the checks of one pair.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::hint;
use super::judge::Judged;
use super::plan::{self, Asked, Planned, named};
use super::repaired::Repaired;
use super::total::{self, Side};
use crate::agent::{AgentError, AgentHandle, TaskOptions, error::FailureKind};
use crate::config::{CheckKind, CheckSpec, Config, PairSpec, RepairPolicy};
use crate::coordinator::RunEvent;
use crate::model::{Answer, Plan, Question, Role, TableName};
use crate::report::TableReport;
use crate::report::checks::{CheckResult, Status};

#[derive(Debug, Clone, Copy)]
pub struct CheckOptions {
    /// Microseconds since 1970, UTC.
    pub now_micros: i64,
    /// A check that fails is measured again this often before it is told.
    pub recheck: u32,
    pub recheck_delay: Duration,
    /// Show values that stand in rows: smallest, largest, scalars.
    pub show_values: bool,
    /// No repairs, whatever the checks' policies say.
    pub dry_run: bool,
    /// Differing keys that a comparison names, for the record.
    pub details_kept: u64,
}

/// Whether any of these checks may write.
pub fn may_write(checks: &[(&str, &CheckSpec)], dry_run: bool) -> bool {
    !dry_run && checks.iter().any(|(_, check)| matches!(check.repair, RepairPolicy::UpTo(_)))
}

/// Hears of the comparisons that checks of kind `rows` make: a repair of theirs is recorded like any other.
#[async_trait]
pub trait Notes: Send {
    /// Asks the agents for what is to be recorded.
    fn ask(&self, options: &mut TaskOptions);
    /// An error stops the comparison: what cannot be recorded is not written.
    async fn event(&mut self, event: &RunEvent) -> Result<(), AgentError>;
    fn table(&mut self, report: &TableReport);
}

/// Records nothing.
#[derive(Debug)]
pub struct NoNotes;

#[async_trait]
impl Notes for NoNotes {
    fn ask(&self, _: &mut TaskOptions) {}

    async fn event(&mut self, _: &RunEvent) -> Result<(), AgentError> {
        Ok(())
    }

    fn table(&mut self, _: &TableReport) {}
}

/// The checks to run, by pair.
pub type Selected<'c> = std::collections::BTreeMap<&'c str, Vec<(&'c str, &'c CheckSpec)>>;

/// The checks of these names, all where none is named; a name that is none is told with the nearest.
pub fn select<'c>(config: &'c Config, names: &[String]) -> Result<Selected<'c>, AgentError> {
    let mut selected = Selected::new();
    let known: Vec<&str> = config.checks.keys().map(String::as_str).collect();
    for name in names {
        if !known.contains(&name.as_str()) {
            let hint =
                crate::config::suggest(name, &known).unwrap_or_else(|| "the file has no check".to_owned());
            return Err(
                AgentError::new(FailureKind::Usage, format!("there is no check {name}")).with_hint(hint)
            );
        }
    }
    for (name, check) in &config.checks {
        if names.is_empty() || names.contains(name) {
            selected.entry(check.pair.as_str()).or_default().push((name, check));
        }
    }
    Ok(selected)
}

/// One check of one table, and its result as soon as there is one.
pub(super) struct Case<'a> {
    name: &'a str,
    pub(super) check: &'a CheckSpec,
    pub(super) table: Option<&'a Planned>,
    pub(super) judged: Option<Judged>,
    pub(super) took: Duration,
    /// Repairs of this pair that had been done when it was measured.
    pub(super) repairs_seen: usize,
}

impl<'a> Case<'a> {
    fn new(name: &'a str, check: &'a CheckSpec, table: Option<&'a Planned>, judged: Option<Judged>) -> Self {
        Self { name, check, table, judged, took: Duration::ZERO, repairs_seen: 0 }
    }
}

/// Runs checks of one pair; the results in the order of the checks, then of the tables.
pub async fn run_pair(
    pair_name: &str,
    pair: &PairSpec,
    checks: &[(&str, &CheckSpec)],
    agents: (&AgentHandle, &AgentHandle),
    options: &CheckOptions,
    notes: &mut dyn Notes,
) -> Vec<CheckResult> {
    let planned = plan_tables(pair, checks, agents).await;
    let planned = match planned {
        Ok(planned) => planned,
        Err(error) => {
            let case = |(name, check): &(&str, &CheckSpec)| {
                result(pair_name, Case::new(name, check, None, Some(failed(&error))), options)
            };
            return checks.iter().map(case).collect();
        }
    };
    let mut context = Context {
        agents,
        options,
        pair,
        notes: Mutex::new(notes),
        repaired: Mutex::new(Vec::new()),
        may_repair: !options.dry_run,
    };
    let mut cases = Vec::new();
    for (name, check) in checks {
        let new = |table| Case::new(name, check, table, None);
        if matches!(check.kind, CheckKind::Sql { .. }) {
            cases.push(new(None));
            continue;
        }
        let covered =
            planned.iter().filter(|table| check.table.as_ref().is_none_or(|wanted| named(table, wanted)));
        let before = cases.len();
        cases.extend(covered.map(|table| new(Some(table))));
        if cases.len() == before {
            let judged = Judged::unknown("the two sides share no such table", None);
            cases.push(Case { judged: Some(judged), ..new(None) });
        }
    }
    for case in cases.iter_mut().filter(|case| case.judged.is_none()) {
        case.judged = case.table.and_then(|table| table.kept_from(case.check));
    }
    for table in &planned {
        let mut of_table: Vec<&mut Case<'_>> = cases
            .iter_mut()
            .filter(|case| case.judged.is_none() && case.table.is_some_and(|of| std::ptr::eq(of, table)))
            .collect();
        context.table(table, &mut of_table).await;
    }
    context.may_repair = false;
    context.measure_again(&planned, &mut cases).await;
    for case in cases.iter_mut().filter(|case| case.judged.is_none()) {
        context.alone(case).await;
    }
    cases.into_iter().map(|case| result(pair_name, case, options)).collect()
}

/// The results of checks whose databases were not reached.
pub fn unreachable(
    pair: &str,
    checks: &[(&str, &CheckSpec)],
    message: &str,
    hint: Option<&str>,
) -> Vec<CheckResult> {
    let options = CheckOptions {
        now_micros: 0,
        recheck: 0,
        recheck_delay: Duration::ZERO,
        show_values: false,
        dry_run: true,
        details_kept: 0,
    };
    let case = |(name, check): &(&str, &CheckSpec)| {
        let judged = Some(Judged::unknown(message, hint.map(str::to_owned)));
        result(pair, Case::new(name, check, None, judged), &options)
    };
    checks.iter().map(case).collect()
}

async fn plan_tables(
    pair: &PairSpec,
    checks: &[(&str, &CheckSpec)],
    agents: (&AgentHandle, &AgentHandle),
) -> Result<Vec<Planned>, AgentError> {
    let servers = (
        agents.0.server().await.map_err(|error| error.on(Role::Source))?,
        agents.1.server().await.map_err(|error| error.on(Role::Target))?,
    );
    let mut planned = Vec::new();
    let of_tables = || checks.iter().filter(|(_, check)| !matches!(check.kind, CheckKind::Sql { .. }));
    if of_tables().any(|(_, check)| check.table.is_none()) {
        planned = plan::tables(pair, None, agents, &servers).await?;
    }
    let mut wanted: Vec<&TableName> = of_tables().filter_map(|(_, check)| check.table.as_ref()).collect();
    wanted.sort();
    wanted.dedup();
    for table in wanted {
        if !planned.iter().any(|known| named(known, table)) {
            planned.extend(plan::tables(pair, Some(table), agents, &servers).await?);
        }
    }
    Ok(planned)
}

pub(super) fn failed(error: &AgentError) -> Judged {
    let side = error.side.map_or_else(String::new, |side| format!("{side}: "));
    Judged::unknown(format!("{side}{}", error.message), error.hint.clone())
}

fn result(pair: &str, case: Case<'_>, options: &CheckOptions) -> CheckResult {
    let judged = case.judged.unwrap_or_else(|| Judged::unknown("the check was not run", None));
    // What stands in rows is shown only where it was asked for.
    let is_value = matches!(
        case.check.kind,
        CheckKind::Min { .. } | CheckKind::Max { .. } | CheckKind::Freshness { .. } | CheckKind::Sql { .. }
    );
    let shown = |value: Option<String>| value.filter(|_| options.show_values || !is_value);
    let mut notes = Vec::new();
    if let Some(table) = case.table {
        notes.extend(table.notes.iter().cloned());
        notes.extend(table.hidden_rows.iter().filter(|_| case.check.accept_hidden_rows).cloned());
        if let (CheckKind::Rows, Ok(plan)) = (&case.check.kind, &table.plan) {
            notes.extend(plan.warnings.iter().cloned());
        }
    }
    CheckResult {
        name: case.name.to_owned(),
        kind: case.check.kind.name().to_owned(),
        pair: pair.to_owned(),
        table: case
            .table
            .map(|table| table.name.to_string())
            .or_else(|| case.check.table.as_ref().map(ToString::to_string)),
        status: judged.status,
        severity: case.check.severity.name().to_owned(),
        owner: case.check.owner.clone(),
        source: shown(judged.source),
        target: shown(judged.target),
        difference: judged.difference,
        extent: judged.extent,
        message: judged.message,
        hint: judged.hint.as_deref().map(hint::of_file),
        columns: match (&case.check.kind, case.table) {
            (CheckKind::Rows, Some(table)) => table.plan.as_ref().ok().map(|plan| plan.coverage.clone()),
            _ => None,
        },
        notes,
        seconds: case.took.as_secs_f64(),
    }
}

pub(super) struct Context<'a> {
    pub(super) agents: (&'a AgentHandle, &'a AgentHandle),
    pub(super) options: &'a CheckOptions,
    pub(super) pair: &'a PairSpec,
    pub(super) notes: Mutex<&'a mut dyn Notes>,
    /// The repairs that were done.
    pub(super) repaired: Mutex<Vec<Repaired>>,
    pub(super) may_repair: bool,
}

impl Context<'_> {
    /// All checks of one table: the totals together, then the others one by one.
    pub(super) async fn table(&self, table: &Planned, cases: &mut [&mut Case<'_>]) {
        let plan = match &table.plan {
            Ok(plan) => plan,
            Err(error) => {
                cases.iter_mut().for_each(|case| case.judged = Some(failed(error)));
                return;
            }
        };
        let mut together = Vec::new();
        let repairs_seen = self.repaired.lock().await.len();
        for (at, case) in cases.iter_mut().enumerate() {
            case.repairs_seen = repairs_seen;
            match plan::asked(plan, case.check, self.options.now_micros) {
                Ok(Some(asked)) => together.push((at, asked)),
                Ok(None) => {}
                Err(error) => case.judged = Some(failed(&error)),
            }
        }
        for round in 0..=self.options.recheck {
            if together.is_empty() {
                break;
            }
            if round > 0 {
                tokio::time::sleep(self.options.recheck_delay).await;
            }
            let since = Instant::now();
            let judged = self.totals(plan, cases, &together).await;
            for ((at, _), judged) in together.iter().zip(judged) {
                if let Some(case) = cases.get_mut(*at) {
                    case.judged = Some(judged);
                    case.took += since.elapsed();
                }
            }
            let fails = |at: usize| {
                let judged = cases.get(at).and_then(|case| case.judged.as_ref());
                judged.is_some_and(|judged| judged.status == Status::Fail)
            };
            together.retain(|(at, _)| fails(*at));
        }
        for case in cases.iter_mut().filter(|case| case.judged.is_none()) {
            self.alone(case).await;
        }
    }

    /// One query a side for all of them; one for each where the database refuses them together.
    async fn totals(&self, plan: &Plan, cases: &[&mut Case<'_>], asked: &[(usize, Asked)]) -> Vec<Judged> {
        match self.ask(plan, asked.iter().map(|(_, asked)| asked)).await {
            Ok((source, target)) => self.judge_all(cases, asked, &source, &target),
            Err(error) if asked.len() == 1 => vec![failed(&error)],
            Err(_) => {
                let mut judged = Vec::with_capacity(asked.len());
                for one in asked {
                    judged.push(match self.ask(plan, std::iter::once(&one.1)).await {
                        Ok((source, target)) => self
                            .judge_all(cases, std::slice::from_ref(one), &source, &target)
                            .pop()
                            .unwrap_or_else(|| Judged::unknown("no answer", None)),
                        Err(error) => failed(&error),
                    });
                }
                judged
            }
        }
    }

    async fn ask<'q>(
        &self,
        plan: &Plan,
        asked: impl Iterator<Item = &'q Asked> + Clone,
    ) -> Result<(Answer, Answer), AgentError> {
        let items = |role: Role| {
            let of = move |asked: &'q Asked| if role == Role::Source { &asked.source } else { &asked.target };
            asked.clone().flat_map(of).cloned().collect()
        };
        let source = plan::totals(plan, Role::Source, items(Role::Source));
        let target = plan::totals(plan, Role::Target, items(Role::Target));
        self.both(&source, &target).await
    }

    pub(super) async fn both(
        &self,
        source: &Question,
        target: &Question,
    ) -> Result<(Answer, Answer), AgentError> {
        tokio::try_join!(
            async { self.agents.0.measure(source).await.map_err(|error| error.on(Role::Source)) },
            async { self.agents.1.measure(target).await.map_err(|error| error.on(Role::Target)) }
        )
    }

    fn judge_all(
        &self,
        cases: &[&mut Case<'_>],
        asked: &[(usize, Asked)],
        source: &Answer,
        target: &Answer,
    ) -> Vec<Judged> {
        let mut next = 0;
        let mut judged = Vec::with_capacity(asked.len());
        for (at, asked) in asked {
            let values = next..next + asked.source.len();
            next = values.end;
            let of = |answer: &Answer| Side::read(asked, answer.first()?.get(values.clone())?);
            judged.push(match (of(source), of(target), cases.get(*at)) {
                (Some(source), Some(target), Some(case)) => {
                    total::judge(case.check, asked, self.options.now_micros, &source, &target)
                }
                _ => Judged::unknown("an answer is no answer to the question", None),
            });
        }
        judged
    }
}
