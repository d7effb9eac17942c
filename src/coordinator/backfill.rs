//! Backfill: rows per step of a range on both sides as a picture, and the repair of the whole range.
//!
//! Counts prove nothing: a step may hold as many rows on both sides and not the same ones. What is filled and what is
//! proved is found by the ordinary repair, bounded by a condition on both sides: of the whole range at once, or piece by
//! piece where a rate, an order or a size asks for pieces. Every step is in one. Nothing is remembered between runs: a
//! backfill that was killed is simply run again, and what is equal is found so by one scan a side.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};

use super::backfill_account::{add_chunk, tell_elsewhere};
use super::chunks::join;
use super::pairs::{self, TablePair};
use super::proofs::{Proofs, Wrote};
use super::steps::{Grid, Ruler};
use super::survey::{self, Subject, usage};
use super::table::table_error;
use super::{RunEvent, RunRequest};
use crate::agent::{AgentError, AgentHandle, TableOutcome, error::FailureKind};
use crate::model::measure::{Axis, Step};
use crate::model::{ColumnCoverage, Plan, PlanRefusal, Ranges, Role, ServerInfo, Unpaired, distance};
use crate::report::backfill::{BackfillTable, ChunkReport, Elsewhere, StepRow};
use crate::report::{TableReport, Verdict};

/// Steps that differ after they were filled are tried again this often: rows may move meanwhile.
const ROUNDS_MAX: usize = 3;
/// Rows of a piece where an order or a rate asks for pieces, and no size was given.
const CHUNK_ROWS: u64 = 100_000;

#[derive(Debug, Clone)]
pub struct BackfillRequest {
    /// Tables, wishes and the options of the repairs.
    pub run: RunRequest,
    /// By source name, in every table.
    pub on: String,
    /// As typed; an open end is where the rows end.
    pub from: Option<String>,
    pub to: Option<String>,
    pub step: Option<Step>,
    pub zone: TimeZone,
    pub newest_first: bool,
    /// Compare and fill the range in pieces of whole steps, up to so many rows each; `None`: at once.
    pub chunk_rows: Option<u64>,
    pub rows_per_second: Option<u64>,
    /// The login may be kept from rows on purpose: what it sees is what is compared.
    pub accept_hidden_rows: bool,
}

#[derive(Debug)]
pub enum BackfillEvent {
    /// A table's steps are counted; so many chunks with so many source rows are to be compared and filled.
    Surveyed {
        name: String,
        steps: usize,
        differing: usize,
        chunks: usize,
        rows: u64,
    },
    /// A chunk begins, behind so many rows of its table.
    Chunk {
        name: String,
        from: String,
        to: String,
        rows_done: u64,
        rows: u64,
    },
    Run(RunEvent),
    Filled {
        chunk: Box<ChunkReport>,
        name: String,
        rows_done: u64,
    },
    /// The rate is kept.
    Waiting(Duration),
}

/// Backfills every pair, parents first. An error here means that nothing was begun; a table's own is in its report.
pub async fn backfill(
    source: &AgentHandle,
    target: &AgentHandle,
    request: &BackfillRequest,
    events: &mpsc::Sender<BackfillEvent>,
) -> Result<Vec<BackfillTable>, AgentError> {
    let servers = (
        source.server().await.map_err(|error| error.on(Role::Source))?,
        target.server().await.map_err(|error| error.on(Role::Target))?,
    );
    if request.run.writes() && !target.may_write() {
        return Err(AgentError::new(FailureKind::Refused, "the target agent was started read-only")
            .with_hint("start it with --allow-write")
            .on(Role::Target));
    }
    let pairs = pairs::find(source, target, &request.run.pairs).await?;
    let context = Context { agents: (source, target), servers: &servers, request, events };
    let mut tables = Vec::with_capacity(pairs.pairs.len());
    let mut proofs = Proofs::new(&pairs.pairs);
    for at in pairs::parents_first(&pairs.pairs) {
        let Some(pair) = pairs.pairs.get(at) else { continue };
        let mut range = None;
        let table = Box::pin(context.table(pair, &mut range)).await;
        let failed = table.error.is_some() || table.chunks.iter().any(|chunk| chunk.error.is_some());
        let wrote = Wrote::of(&table.outcome, failed && table.plan.is_some());
        if table.chunks.len() > 1 {
            proofs.ended_in_parts(at, wrote)
        } else {
            proofs.ended(at, wrote)
        }
        tables.push((at, table, range));
    }
    if request.run.writes() {
        for (at, table, range) in &mut tables {
            let by = proofs.doubted_by(*at);
            if table.verdict == Verdict::Same && !by.is_empty() {
                context.prove_again(table, range.take(), &by.join(", ")).await;
            }
        }
    }
    Ok(tables.into_iter().map(|(_, table, _)| table).collect())
}

/// The range that was looked at.
type LookedAt = Option<Ranges>;

/// How a round over the pieces ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filling {
    Done,
    /// A table is no longer what it was: the pieces behind are not looked at.
    Altered,
}

/// The worst of the tables' verdicts.
pub fn verdict(tables: &[BackfillTable]) -> Verdict {
    tables.iter().map(|table| table.verdict).max().unwrap_or(Verdict::Same)
}

struct Context<'a> {
    agents: (&'a AgentHandle, &'a AgentHandle),
    servers: &'a (ServerInfo, ServerInfo),
    request: &'a BackfillRequest,
    events: &'a mpsc::Sender<BackfillEvent>,
}

/// A table's survey and what became of each step.
struct Work<'a> {
    subject: Subject<'a>,
    ruler: Ruler,
    grid: Grid,
    /// As they were given.
    ends: (Option<i128>, Option<i128>),
    before: (Vec<u64>, Vec<u64>),
    now: (Vec<u64>, Vec<u64>),
    /// Of the last chunk that held the step.
    verdicts: Vec<Option<Verdict>>,
}

impl Context<'_> {
    #[tracing::instrument(level = "info", skip_all, name = "table", fields(table = %pair.source))]
    async fn table(&self, pair: &TablePair, range: &mut LookedAt) -> BackfillTable {
        let mut report = BackfillTable {
            source_table: pair.source.to_string(),
            target_table: pair.target.to_string(),
            verdict: Verdict::Unknown,
            column: self.request.on.clone(),
            step: self.request.step.map_or_else(String::new, |step| step.to_string()),
            time_zone: None,
            from: self.request.from.clone().unwrap_or_default(),
            to: self.request.to.clone().unwrap_or_default(),
            columns: ColumnCoverage::default(),
            warnings: Vec::new(),
            error: None,
            steps: Vec::new(),
            chunks: Vec::new(),
            inserted: 0,
            updated: 0,
            deleted: 0,
            left: 0,
            set_aside: 0,
            tolerated: 0,
            rows_set_aside: Vec::new(),
            bounded: self.request.from.is_some() || self.request.to.is_some(),
            source_elsewhere: Elsewhere::default(),
            target_elsewhere: Elsewhere::default(),
            hidden_rows: Vec::new(),
            claim: String::new(),
            plan: None,
            outcome: TableOutcome::default(),
            unsettled: 0,
            doubts: Vec::new(),
            left_because: BTreeMap::new(),
        };
        let verdicts = match self.filled(pair, &mut report, range).await {
            Ok(verdicts) => verdicts,
            Err(error) => {
                report.error = Some(table_error(error));
                Vec::new()
            }
        };
        let is_integer = report.plan.as_ref().is_some_and(|plan| {
            Subject::of(plan, &self.request.on).is_ok_and(|subject| subject.axis == Axis::Integer)
        });
        (report.unsettled, report.doubts) = (report.outcome.unsettled, report.outcome.doubts.clone());
        report.left_because.clone_from(&report.outcome.left_because);
        report.judge(&verdicts, if is_integer { "value" } else { "time" }, self.request.run.options.dry_run);
        report
    }

    async fn filled(
        &self,
        pair: &TablePair,
        report: &mut BackfillTable,
        range: &mut LookedAt,
    ) -> Result<Vec<Option<Verdict>>, AgentError> {
        let (source, target) = pair.schemas.as_ref().map_err(Clone::clone)?;
        let plan =
            Plan::agree((source, &self.servers.0), (target, &self.servers.1), &self.request.run.wishes)
                .map_err(|PlanRefusal { what, hint }| usage(what, hint))?;
        report.source_table = plan.source.to_string();
        report.target_table = plan.target.to_string();
        distance::check(&plan, &self.request.run.options.tolerance)
            .map_err(|PlanRefusal { what, hint }| usage(what, hint))?;
        report.warnings.clone_from(&plan.warnings);
        report.columns = plan.coverage.clone();
        report.plan = Some(plan.clone());
        let subject = Subject::of(&plan, &self.request.on)?;
        for (schema, agent, role) in
            [(source, self.agents.0, Role::Source), (target, self.agents.1, Role::Target)]
        {
            let column = subject.measured(role).name;
            if !schema.is_view && !subject.is_indexed(agent, role).await? {
                report.warnings.push(format!(
                    "{role}: no index begins with {column}: every piece of the range reads the whole table"
                ));
            }
            report.warnings.extend(schema.notes.iter().map(|note| format!("{role}: {note}")));
            if let Some(hidden) = &schema.hidden_rows {
                let reason = format!("{role}: {hidden}");
                let accepted = self.request.accept_hidden_rows;
                if accepted { &mut report.warnings } else { &mut report.hidden_rows }.push(reason);
            }
        }
        let Some(mut work) = self.survey(subject, report).await? else { return Ok(Vec::new()) };
        let (first, last) = (work.grid.borders.first().copied(), work.grid.borders.last().copied());
        *range = Some(work.subject.ranges(first, last));
        self.tell_steps(&work, report);
        let mut recounted = false;
        for round in 0..ROUNDS_MAX {
            let chunks = self.chunks(&work, round == 0);
            if chunks.is_empty() {
                break;
            }
            if self.fill(&mut work, &chunks, report).await? == Filling::Altered {
                // What it holds now was not what was asked about.
                break;
            }
            let wrote = report.inserted + report.updated + report.deleted > 0;
            let differ = work.now.0 != work.now.1;
            if self.request.run.options.dry_run || !(wrote || differ) {
                break;
            }
            work.now = work.subject.both(self.agents, &work.grid).await?;
            recounted = true;
        }
        if recounted {
            // What was written may have given rows a time, or taken it from them.
            let extents = work.subject.extents(self.agents, work.ends.0, work.ends.1).await?;
            tell_elsewhere(report, &work.subject, &extents);
            for (at, step) in report.steps.iter_mut().enumerate() {
                step.source_after = work.now.0.get(at).copied();
                step.target_after = work.now.1.get(at).copied();
            }
        }
        Ok(work.verdicts)
    }

    /// Finds the ends, cuts the range, counts both sides. `None`: neither side has a row in the range.
    async fn survey<'p>(
        &self,
        subject: Subject<'p>,
        report: &mut BackfillTable,
    ) -> Result<Option<Work<'p>>, AgentError> {
        let request = self.request;
        let ruler = subject.ruler(&request.zone);
        let bad = |why: String| usage(why, "see: trueup backfill --help");
        let typed =
            |text: &Option<String>| text.as_deref().map(|text| ruler.point(text)).transpose().map_err(bad);
        let (from, to) = (typed(&request.from)?, typed(&request.to)?);
        let given = (from, to);
        if let (Some(from), Some(to)) = (from, to)
            && from >= to
        {
            let (from, to) = (ruler.label(from), ruler.label(to));
            return Err(bad(format!("the range from {from} to {to} is empty")));
        }
        let extents = subject.extents(self.agents, from, to).await?;
        tell_elsewhere(report, &subject, &extents);
        // No row is in the range on either side, which no comparison could show better.
        let open = from.is_none() || to.is_none();
        if open && extents.0.inside == 0 && extents.1.inside == 0 {
            return Ok(None);
        }
        let none = || bad("the ends of the range cannot be told".to_owned());
        let (low, high) = match (from.zip(to), survey::ends(&extents)) {
            (Some(both), _) => both,
            (None, ends) => ends.ok_or_else(none)?,
        };
        let step =
            request.step.unwrap_or_else(|| ruler.default_step(from.unwrap_or(low), to.unwrap_or(high)));
        let from = from.map_or_else(|| ruler.floor(step, low), Ok).map_err(bad)?;
        let to = to.map_or_else(|| ruler.next(step, high), Ok).map_err(bad)?;
        report.step = step.to_string();
        (report.from, report.to) = (ruler.label(from), ruler.label(to));
        report.time_zone = ruler.instants.then(|| ruler.zone.iana_name().unwrap_or("UTC").to_owned());
        let grid = ruler.grid(step, from, to).map_err(bad)?;
        let counts = subject.both(self.agents, &grid).await?;
        let verdicts = vec![None; grid.steps()];
        Ok(Some(Work { subject, ruler, grid, ends: given, before: counts.clone(), now: counts, verdicts }))
    }

    fn tell_steps(&self, work: &Work<'_>, report: &mut BackfillTable) {
        let labels: Vec<String> = work.grid.borders.iter().map(|border| work.ruler.label(*border)).collect();
        let counts = work.before.0.iter().zip(&work.before.1);
        report.steps = labels
            .windows(2)
            .zip(counts)
            .map(|(ends, (source, target))| StepRow {
                from: ends.first().cloned().unwrap_or_default(),
                to: ends.last().cloned().unwrap_or_default(),
                source: *source,
                target: *target,
                source_after: None,
                target_after: None,
            })
            .collect();
    }

    /// The steps to compare and fill, joined where they touch, in the order asked for: at first all of them.
    fn chunks(&self, work: &Work<'_>, all: bool) -> Vec<std::ops::Range<usize>> {
        let mut chunks = join(&work.now, self.piece_rows(), |at, differs| {
            // What may not be written stays as it is; trying again changes nothing.
            let settled = work.verdicts.get(at).copied().flatten() == Some(Verdict::Different);
            all || differs && !settled
        });
        if self.request.newest_first {
            chunks.reverse();
        }
        chunks
    }

    /// The rows of a piece; all, where nothing asks for pieces. With a rate, a piece is no more than some seconds of it.
    fn piece_rows(&self) -> u64 {
        let request = self.request;
        let of_order = request.newest_first.then_some(CHUNK_ROWS);
        let asked = request.chunk_rows.or(of_order);
        match request.rows_per_second {
            Some(rate) => asked.unwrap_or(CHUNK_ROWS).min(rate.saturating_mul(10)),
            None => asked.unwrap_or(u64::MAX),
        }
    }

    async fn fill(
        &self,
        work: &mut Work<'_>,
        chunks: &[std::ops::Range<usize>],
        report: &mut BackfillTable,
    ) -> Result<Filling, AgentError> {
        let name = report.name();
        let rows_of = |steps: &std::ops::Range<usize>, counts: &(Vec<u64>, Vec<u64>)| -> u64 {
            counts.0.get(steps.clone()).unwrap_or_default().iter().sum()
        };
        let rows: u64 = chunks.iter().map(|steps| rows_of(steps, &work.now)).sum();
        let surveyed = BackfillEvent::Surveyed {
            name: name.clone(),
            steps: work.grid.steps(),
            differing: work.now.0.iter().zip(&work.now.1).filter(|(a, b)| a != b).count(),
            chunks: chunks.len(),
            rows,
        };
        self.tell(surveyed).await?;
        let mut done = 0;
        for steps in chunks {
            let since = Instant::now();
            let ends = (work.grid.borders.get(steps.start), work.grid.borders.get(steps.end));
            let (Some(from), Some(to)) = (ends.0.copied(), ends.1.copied()) else { continue };
            let (from_label, to_label) = (work.ruler.label(from), work.ruler.label(to));
            let begins = BackfillEvent::Chunk {
                name: name.clone(),
                from: from_label.clone(),
                to: to_label.clone(),
                rows_done: done,
                rows,
            };
            self.tell(begins).await?;
            let table = self.repair(&work.subject, from, to).await?;
            for verdict in work.verdicts.get_mut(steps.clone()).unwrap_or_default() {
                *verdict = Some(table.verdict);
            }
            let altered = FailureKind::Altered.as_str();
            let is_altered = table.error.as_ref().is_some_and(|error| error.kind == altered);
            let chunk_rows = rows_of(steps, &work.now);
            done += chunk_rows;
            let chunk = add_chunk(report, table, (from_label, to_label), since.elapsed());
            self.tell(BackfillEvent::Filled { chunk: Box::new(chunk), name: name.clone(), rows_done: done })
                .await?;
            if is_altered {
                return Ok(Filling::Altered);
            }
            self.keep_rate(chunk_rows, since.elapsed()).await?;
        }
        Ok(Filling::Done)
    }

    /// The ordinary repair of one table, bounded on both sides.
    #[tracing::instrument(level = "info", skip_all, name = "chunk")]
    async fn repair(&self, subject: &Subject<'_>, from: i128, to: i128) -> Result<TableReport, AgentError> {
        let mut request = self.request.run.clone();
        request.pairs.tables = vec![(subject.plan.source.clone(), subject.plan.target.clone())];
        request.wishes.ranges = Some(subject.ranges(Some(from), Some(to)));
        self.compare(request).await
    }

    /// One ordinary run of one table, its events handed on.
    async fn compare(&self, mut request: RunRequest) -> Result<TableReport, AgentError> {
        // The table's own verdict speaks of its columns; a chunk's speaks of its rows.
        request.wishes.unpaired = Unpaired::Ignore;
        let (tx, mut rx) = mpsc::channel(64);
        let run = async {
            let outcome = Box::pin(super::run(self.agents.0, self.agents.1, &request, &tx)).await;
            drop(tx);
            outcome
        };
        let forward = async {
            while let Some(event) = rx.recv().await {
                if self.events.send(BackfillEvent::Run(event)).await.is_err() {
                    return;
                }
            }
        };
        let (outcome, ()) = tokio::join!(run, forward);
        let none = || AgentError::new(FailureKind::Database, "a chunk ended without a report");
        outcome?.tables.into_iter().next().ok_or_else(none)
    }

    /// Compares the range once more, because later writes (of the tables `by`) may have changed it.
    async fn prove_again(&self, report: &mut BackfillTable, range: LookedAt, by: &str) {
        let mut request = self.request.run.clone();
        request.details_kept = 0;
        let options = &mut request.options;
        (options.repair, options.run, options.trail) = (None, None, None);
        if let Some(plan) = &report.plan {
            request.pairs.tables = vec![(plan.source.clone(), plan.target.clone())];
        }
        request.wishes.ranges = range;
        let (verdict, found) = match self.compare(request).await {
            Ok(table) => match table.error {
                Some(error) => (Verdict::Unknown, error.message),
                None => {
                    let TableOutcome { missing, changed, extra, unsettled, .. } = table.outcome;
                    let found =
                        format!("{missing} missing, {changed} changed, {extra} extra, {unsettled} unsettled");
                    (table.verdict, found)
                }
            },
            Err(error) => (Verdict::Unknown, error.message),
        };
        report.warnings.push(match verdict {
            Verdict::Same => format!("compared again after the writes of {by}"),
            Verdict::Different => format!("later writes changed it ({by}): {found} at the end of the run"),
            Verdict::Unknown => format!("not proved: compared again after the writes of {by}: {found}"),
        });
        report.contradict(verdict);
    }

    async fn keep_rate(&self, rows: u64, took: Duration) -> Result<(), AgentError> {
        let Some(rate) = self.request.rows_per_second.filter(|rate| *rate > 0) else { return Ok(()) };
        let due = Duration::from_millis(rows.saturating_mul(1_000) / rate);
        if let Some(wait) = due.checked_sub(took).filter(|wait| !wait.is_zero()) {
            self.tell(BackfillEvent::Waiting(wait)).await?;
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    async fn tell(&self, event: BackfillEvent) -> Result<(), AgentError> {
        let cancelled = |_| AgentError::new(FailureKind::Cancelled, "the backfill was cancelled");
        self.events.send(event).await.map_err(cancelled)
    }
}
