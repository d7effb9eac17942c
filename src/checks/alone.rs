//! The checks that have queries of their own: scalars, rows per step, every row.

use bigdecimal::{BigDecimal, ToPrimitive};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::judge::{self, Judged};
use super::plan::{self, Planned};
use super::repaired::Repaired;
use super::run::{Case, Context, failed};
use super::{scalar, total};
use crate::agent::{AgentError, TaskOptions, error::FailureKind};
use crate::config::{CheckKind, CheckSpec, RepairPolicy, Window};
use crate::coordinator::{self, ALLOW_DEFAULT, PairRequest, RunRequest, Wrote, survey};
use crate::model::Question;
use crate::model::measure::Misfits;
use crate::model::scalar::Scalar;
use crate::report::checks::Status;
use crate::report::{TableReport, Verdict};

/// Steps with gaps that a result names.
const GAPS_NAMED: usize = 5;

impl Context<'_> {
    /// A check that has queries of its own.
    pub(super) async fn alone(&self, case: &mut Case<'_>) {
        let since = Instant::now();
        let mut judged = self.alone_once(case).await;
        let again = !matches!(case.check.kind, CheckKind::Rows);
        for _ in 0..self.options.recheck {
            if !again || judged.status != Status::Fail {
                break;
            }
            tokio::time::sleep(self.options.recheck_delay).await;
            judged = self.alone_once(case).await;
        }
        case.judged = Some(judged);
        case.took += since.elapsed();
        case.repairs_seen = self.repaired.lock().await.len();
    }

    async fn alone_once(&self, case: &Case<'_>) -> Judged {
        let done = match (&case.check.kind, case.table) {
            (CheckKind::Sql { source, target }, _) => {
                let ask = |sql: &String| Question::Scalar { sql: sql.clone() };
                self.both(&ask(source), &ask(target)).await.map(|(source, target)| {
                    match (Scalar::read(&source), Scalar::read(&target)) {
                        (Some(source), Some(target)) => {
                            scalar::scalars(&source, &target, &case.check.tolerance)
                        }
                        _ => Judged::unknown("the query gives no single value", None),
                    }
                })
            }
            (CheckKind::Gaps { .. }, Some(table)) => self.gaps(table, case.check).await,
            (CheckKind::Rows, Some(table)) => self.rows(table, case.check).await,
            _ => Ok(Judged::unknown("the check has no table", None)),
        };
        done.unwrap_or_else(|error| failed(&error))
    }

    async fn gaps(&self, table: &Planned, check: &CheckSpec) -> Result<Judged, AgentError> {
        let plan = table.plan.as_ref().map_err(Clone::clone)?;
        let Some(gaps) = plan::gaps(plan, check)? else { return Ok(Judged::new(Status::Unknown)) };
        let ruler = gaps.subject.ruler(&gaps.zone);
        let bad = |why: String| {
            AgentError::new(FailureKind::Usage, why).with_hint("take larger steps, or a window")
        };
        let points = |window: &Window| plan::window_points(&gaps.subject, window, self.options.now_micros);
        let (from, to) = check.window.as_ref().map(points).unzip();
        let to = to.flatten();
        let column = gaps.subject.column.source.as_str();
        let (from, to, misfits) = if let (Some(from), Some(to)) = (from, to) {
            (from, to, gaps.subject.misfits(self.agents).await?)
        } else {
            let extents = gaps.subject.extents(self.agents, from, to).await?;
            let misfits = (extents.0.misfits, extents.1.misfits);
            if extents.0.inside == 0 && extents.1.inside == 0 {
                let rows = (extents.0.rows, extents.1.rows);
                return Ok(nothing_placed(check, column, rows, &misfits));
            }
            let Some((low, high)) = survey::ends(&extents) else {
                return Ok(Judged::unknown("the ends of the column cannot be told", None));
            };
            (from.unwrap_or(low), ruler.next(gaps.step, high).map_err(bad)?, misfits)
        };
        let from = ruler.floor(gaps.step, from).map_err(bad)?;
        if from >= to {
            let judged = Judged::new(Status::Pass).saying("neither side has a row in the window");
            return Ok(total::in_window(judged, column, &misfits.0, &misfits.1));
        }
        let grid = ruler.grid(gaps.step, from, to).map_err(bad)?;
        let (source, target) = gaps.subject.both(self.agents, &grid).await?;
        let (mut near, mut apart) = (0usize, Vec::new());
        for (at, (source, target)) in source.iter().zip(&target).enumerate() {
            let rows = source.abs_diff(*target);
            if rows == 0 {
                continue;
            }
            if judge::is_near(&BigDecimal::from(*source), &BigDecimal::from(rows), &check.tolerance) {
                near += 1;
            } else {
                let sign = if source > target { '-' } else { '+' };
                let label = grid.borders.get(at).map(|border| ruler.label(*border)).unwrap_or_default();
                apart.push(format!("{label} ({sign}{rows})"));
            }
        }
        let sum = |counts: &[u64]| counts.iter().sum::<u64>().to_string();
        let status = match (apart.len(), near) {
            (0, 0) => Status::Pass,
            (0, _) => Status::WithinTolerance,
            _ => Status::Fail,
        };
        let more = apart.len().saturating_sub(GAPS_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let named: Vec<&str> = apart.iter().take(GAPS_NAMED).map(String::as_str).collect();
        let message = match status {
            Status::Pass => format!("counts agree in {} steps", grid.steps()),
            Status::WithinTolerance => format!("{near} of {} steps differ", grid.steps()),
            _ => {
                format!("{} of {} steps differ: {}{more}", apart.len() + near, grid.steps(), named.join(", "))
            }
        };
        let hint = (status == Status::Fail).then(|| "fill them with: trueup backfill".to_owned());
        let judged = Judged {
            source: Some(sum(&source)),
            target: Some(sum(&target)),
            extent: (apart.len() + near).to_f64(),
            hint,
            ..Judged::new(status).saying(message)
        };
        Ok(match check.window {
            Some(_) => total::in_window(judged, column, &misfits.0, &misfits.1),
            None => {
                let judged = total::one_is_empty(judged, source.iter().sum(), target.iter().sum());
                in_no_step(judged, column, &misfits)
            }
        })
    }

    async fn rows(&self, table: &Planned, check: &CheckSpec) -> Result<Judged, AgentError> {
        let plan = table.plan.as_ref().map_err(Clone::clone)?;
        let mut wishes = table.wishes.clone();
        let mut misfits = None;
        if let Some(window) = &check.window {
            let subject = survey::Subject::of(plan, &window.column)?;
            let (from, to) = plan::window_points(&subject, window, self.options.now_micros);
            wishes.ranges = Some(subject.ranges(Some(from), to));
            misfits = Some((window.column.as_str(), subject.misfits(self.agents).await?));
        }
        let mut options = TaskOptions { tolerance: table.tolerance.clone(), ..TaskOptions::default() };
        options.recheck = self.options.recheck.max(1);
        options.recheck_delay_ms = u64::try_from(self.options.recheck_delay.as_millis()).unwrap_or(u64::MAX);
        match check.repair {
            RepairPolicy::Never => {}
            RepairPolicy::DryRun => (options.repair, options.dry_run) = (Some(ALLOW_DEFAULT), true),
            RepairPolicy::UpTo(rows) if self.may_repair || self.options.dry_run => {
                options.repair = Some(ALLOW_DEFAULT);
                options.max_changes = Some(rows);
                options.dry_run = self.options.dry_run;
            }
            RepairPolicy::UpTo(_) => {}
        }
        let mut notes = self.notes.lock().await;
        notes.ask(&mut options);
        let request = RunRequest {
            pairs: PairRequest {
                tables: vec![(table.source.clone(), table.target.clone())],
                source_schema: self.pair.source_schema.clone(),
                target_schema: self.pair.target_schema.clone(),
            },
            wishes,
            options,
            details_kept: self.options.details_kept,
            tables_in_flight: 1,
            stop: CancellationToken::new(),
        };
        let (events, mut told) = mpsc::channel(64);
        let run = async {
            let outcome = coordinator::run(self.agents.0, self.agents.1, &request, &events).await;
            drop(events);
            outcome
        };
        let listen = async {
            while let Some(event) = told.recv().await {
                notes.event(&event).await?;
            }
            Ok(())
        };
        let ended = tokio::try_join!(Box::pin(run), listen);
        let none = || AgentError::new(FailureKind::Database, "the comparison ended without a report");
        let report = ended.and_then(|(mut outcome, ())| outcome.tables.pop().ok_or_else(none));
        if request.writes() {
            let outcome = report.as_ref().map(|report| (&report.outcome, report.error.is_some()));
            let wrote = outcome.map_or(Wrote { inserted: true, overwrote: true }, |(outcome, failed)| {
                Wrote::of(outcome, failed)
            });
            if wrote.anything() {
                let name = table.target.to_string();
                let repaired = Repaired { table: table.target_schema.clone(), name, wrote };
                self.repaired.lock().await.push(repaired);
            }
        }
        let report = report?;
        notes.table(&report);
        let judged = judge_rows(&report, check, &request);
        Ok(match misfits {
            Some((column, (source, target))) => total::in_window(judged, column, &source, &target),
            None if report.error.is_some() => judged,
            None => {
                let outcome = &report.outcome;
                let written = outcome.inserted + outcome.deleted > 0;
                if written {
                    judged
                } else {
                    total::one_is_empty(judged, outcome.source_rows, outcome.target_rows)
                }
            }
        })
    }
}

/// Neither side has a row in any step: what the rows are that they have.
fn nothing_placed(check: &CheckSpec, column: &str, rows: (u64, u64), misfits: &(Misfits, Misfits)) -> Judged {
    let none = |what: &str| Judged::new(Status::Pass).saying(what);
    if check.window.is_some() {
        let judged = none("neither side has a row in the window");
        return total::in_window(judged, column, &misfits.0, &misfits.1);
    }
    if rows == (0, 0) {
        return none("neither side has a row");
    }
    let judged = Judged { source: Some("0".to_owned()), target: Some("0".to_owned()), ..none("") };
    let judged = Judged { message: None, ..judged };
    in_no_step(judged, column, misfits).doubted(&format!("no row has a {column} that can be counted"))
}

/// Rows that are in no step, without a window that would leave them out: as many on both sides, or it is a gap.
fn in_no_step(judged: Judged, column: &str, misfits: &(Misfits, Misfits)) -> Judged {
    let (source, target) = misfits;
    if source.total() != target.total() && judged.status != Status::Unknown {
        return Judged { status: Status::Fail, ..judged }.also(&format!(
            "{} rows of the source and {} of the target have no {column} that can be counted",
            source.total(),
            target.total()
        ));
    }
    if let Some(why) = total::unmeasured(column, source, target, true) {
        return judged.doubted(&why);
    }
    if source.null > 0 && judged.agrees() {
        return judged.also(&format!("{} rows without {column} on each side are in no step", source.null));
    }
    judged
}

fn judge_rows(report: &TableReport, check: &CheckSpec, request: &RunRequest) -> Judged {
    let outcome = &report.outcome;
    if let Some(error) = &report.error {
        let side = error.side.as_ref().map_or_else(String::new, |side| format!("{side}: "));
        return Judged::unknown(format!("{side}{}", error.message), error.hint.clone());
    }
    let differences = outcome.differences();
    let written = outcome.inserted + outcome.updated + outcome.deleted;
    let remaining = if request.writes() { outcome.left + outcome.set_aside } else { differences };
    let rows = BigDecimal::from(outcome.source_rows);
    let near = judge::is_near(&rows, &BigDecimal::from(remaining), &check.tolerance);
    let status = match report.verdict {
        Verdict::Same if outcome.tolerated > 0 => Status::WithinTolerance,
        Verdict::Same => Status::Pass,
        // A tolerance is of rows: it does not cover columns without a partner.
        Verdict::Different if near && !outcome.over_limit && !report.columns.differs() => {
            Status::WithinTolerance
        }
        Verdict::Different => Status::Fail,
        Verdict::Unknown => Status::Unknown,
    };
    let mut said = Vec::new();
    for (count, what) in [
        (outcome.missing, "missing"),
        (outcome.changed, "changed"),
        (outcome.extra, "extra"),
        (outcome.tolerated, "within the columns' tolerance"),
        (outcome.unsettled, "unsettled"),
        (written, "repaired"),
        (outcome.set_aside, "set aside"),
    ] {
        if count > 0 {
            said.push(format!("{count} {what}"));
        }
    }
    if outcome.over_limit {
        said.push("not repaired: more changes than up_to allows".to_owned());
    } else if request.options.dry_run && differences > 0 {
        said.push(format!("a repair would write {} of them", differences - outcome.extra));
    }
    Judged {
        source: Some(outcome.source_rows.to_string()),
        target: Some(outcome.target_rows.to_string()),
        extent: (outcome.missing + outcome.changed + outcome.extra).to_f64(),
        message: (!said.is_empty()).then(|| said.join(", ")),
        hint: report
            .columns
            .differs()
            .then(|| "set `map`, `exclude` or `unpaired` of the table, or `unpaired` of the pair".to_owned()),
        ..Judged::new(status)
    }
}
