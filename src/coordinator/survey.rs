//! Rows per step of both sides, one query a side, and the same range as a condition of each.

use super::steps::{Grid, Ruler};
use crate::agent::{AgentError, AgentHandle, error::FailureKind};
use crate::model::measure::{
    Aggregate, Axis, Counts, Measured, MeasuredColumn, Misfit, Misfits, Range, Total, Totals, border_for,
    read,
};
use crate::model::plan::PlanColumn;
use crate::model::{ColumnType, ComparisonType, Plan, Question, Ranges, Role, Rounding};

/// A column of a planned pair by which both sides' rows are told apart.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    pub plan: &'a Plan,
    pub column: &'a PlanColumn,
    pub axis: Axis,
}

/// What one side's column holds, as of one query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    pub rows: u64,
    /// Rows of the range that was asked for.
    pub inside: u64,
    pub misfits: Misfits,
    /// The smallest and the largest point.
    pub ends: Option<(i128, i128)>,
}

impl Extent {
    /// Rows with a place, and that in front of the range or behind it.
    pub fn outside(&self) -> u64 {
        self.rows.saturating_sub(self.misfits.total()).saturating_sub(self.inside)
    }
}

/// The smallest and the largest point of either side.
pub fn ends(extents: &(Extent, Extent)) -> Option<(i128, i128)> {
    let all = [extents.0.ends, extents.1.ends];
    let low = all.iter().flatten().map(|end| end.0).min()?;
    let high = all.iter().flatten().map(|end| end.1).max()?;
    Some((low, high))
}

/// An item for each reason why a value has no place.
pub fn misfits(column: &MeasuredColumn, alone: bool) -> Vec<Aggregate> {
    let item = |kind| Aggregate::Misfits { column: column.clone(), kind, alone };
    Misfit::ALL.into_iter().map(item).collect()
}

pub(super) fn usage(what: impl Into<String>, hint: impl Into<String>) -> AgentError {
    AgentError::new(FailureKind::Usage, what).with_hint(hint)
}

impl<'a> Subject<'a> {
    /// The pair's column of this source name, if its values have an order that both sides share.
    pub fn of(plan: &'a Plan, name: &str) -> Result<Self, AgentError> {
        let Some(column) = plan.columns.iter().find(|column| column.source == name) else {
            let names: Vec<&str> = plan.columns.iter().map(|column| column.source.as_str()).collect();
            return Err(usage(
                format!("no column {name} is compared in {}", plan.source),
                format!("the columns that both sides have are {}", names.join(", ")),
            ));
        };
        let axes = (column.source_type.axis(), column.target_type.axis());
        let comparable = matches!(
            column.comparison,
            ComparisonType::Integer
                | ComparisonType::Date
                | ComparisonType::Timestamp { .. }
                | ComparisonType::TimestampTz { .. }
                | ComparisonType::Dynamic
        );
        match axes {
            (Some(source), Some(target)) if source == target && comparable && !column.as_text => {
                Ok(Self { plan, column, axis: source })
            }
            _ => Err(usage(
                format!(
                    "column {name} is {} in the source and {} in the target: no range means the same of both",
                    column.source_declared, column.target_declared
                ),
                "choose a column that both sides keep as integers, as dates or as timestamps",
            )),
        }
    }

    /// Values are instants: borders are where the clock of a time zone has them.
    pub fn instants(&self) -> bool {
        match &self.column.comparison {
            ComparisonType::TimestampTz { .. } => true,
            ComparisonType::Dynamic => matches!(self.column.source_type, ColumnType::TimestampTz { .. }),
            _ => false,
        }
    }

    pub fn measured(&self, role: Role) -> MeasuredColumn {
        measured(self.column, role)
    }

    /// The range on one side, where its rounding has the borders.
    pub fn range(&self, role: Role, from: Option<i128>, to: Option<i128>) -> Range {
        let border = |at: i128| border_for(&self.column.comparison, at);
        Range { column: self.measured(role), from: from.map(border), to: to.map(border) }
    }

    fn filter(&self, role: Role) -> Option<String> {
        filter(self.plan, role)
    }

    /// The range on both sides, for a plan.
    pub fn ranges(&self, from: Option<i128>, to: Option<i128>) -> Ranges {
        let [source, target] = [Role::Source, Role::Target].map(|role| self.range(role, from, to));
        Ranges { source, target }
    }

    /// What a side holds: its rows, those in the range, those without a place in any, and its ends. One query.
    pub async fn extent(
        &self,
        agent: &AgentHandle,
        role: Role,
        from: Option<i128>,
        to: Option<i128>,
    ) -> Result<Extent, AgentError> {
        let column = self.measured(role);
        let all = |what| Total { within: None, what };
        let within = |range, what| Total { within: Some(range), what };
        let whole = self.range(role, None, None);
        let mut items = vec![
            all(Aggregate::Count),
            within(self.range(role, from, to), Aggregate::Count),
            within(whole.clone(), Aggregate::Min(column.clone())),
            within(whole, Aggregate::Max(column.clone())),
        ];
        items.extend(misfits(&column, false).into_iter().map(all));
        let table = self.plan.table(role).clone();
        let question = Question::Totals(Totals { table, filter: self.filter(role), items });
        let answer = agent.measure(&question).await.map_err(|error| error.on(role))?;
        let bad = || AgentError::protocol("a count is no number").on(role);
        let cells = answer.first().map(Vec::as_slice).unwrap_or_default();
        let count = |at: usize| cells.get(at)?.as_deref()?.parse::<u64>().ok();
        let point = |at: usize| -> Result<Option<i128>, AgentError> {
            let Some(text) = cells.get(at).and_then(Option::as_deref) else { return Ok(None) };
            let point = match read(&meaning(self.column), Some(text)) {
                // Where a row with a fraction lies, which SQLite may hold, is at or above the whole number that is below it.
                Some(Measured::Number(number)) => number.floor(),
                Some(Measured::Days(days)) => Some(i128::from(days)),
                Some(Measured::Micros(micros)) => Some(i128::from(micros)),
                _ => None,
            };
            let unread = || {
                usage(
                    format!("the ends of column {} are out of range", self.column.source),
                    "give the range with --from and --to",
                )
                .on(role)
            };
            point.ok_or_else(unread).map(Some)
        };
        Ok(Extent {
            rows: count(0).ok_or_else(bad)?,
            inside: count(1).ok_or_else(bad)?,
            // Where both ends are given, those of the rows decide nothing.
            ends: if from.is_some() && to.is_some() { None } else { point(2)?.zip(point(3)?) },
            misfits: cells.get(4..).and_then(Misfits::read).ok_or_else(bad)?,
        })
    }

    /// Of both sides.
    pub async fn extents(
        &self,
        agents: (&AgentHandle, &AgentHandle),
        from: Option<i128>,
        to: Option<i128>,
    ) -> Result<(Extent, Extent), AgentError> {
        tokio::try_join!(
            self.extent(agents.0, Role::Source, from, to),
            self.extent(agents.1, Role::Target, from, to)
        )
    }

    /// Rows of each side that have no place in any range, by queries that an index on the column can serve.
    pub async fn misfits(
        &self,
        agents: (&AgentHandle, &AgentHandle),
    ) -> Result<(Misfits, Misfits), AgentError> {
        let of = async |agent: &AgentHandle, role: Role| {
            let items = misfits(&self.measured(role), true);
            let items = items.into_iter().map(|what| Total { within: None, what }).collect();
            let table = self.plan.table(role).clone();
            let question = Question::Totals(Totals { table, filter: self.filter(role), items });
            let answer = agent.measure(&question).await.map_err(|error| error.on(role))?;
            let counts = answer.first().and_then(|cells| Misfits::read(cells));
            counts.ok_or_else(|| AgentError::protocol("a count is no number").on(role))
        };
        tokio::try_join!(of(agents.0, Role::Source), of(agents.1, Role::Target))
    }

    /// Rows per step of one side.
    pub async fn counts(&self, agent: &AgentHandle, role: Role, grid: &Grid) -> Result<Vec<u64>, AgentError> {
        let question = Question::Counts(Counts {
            table: self.plan.table(role).clone(),
            filter: self.filter(role),
            range: self.range(role, grid.borders.first().copied(), grid.borders.last().copied()),
            origin: border_for(&self.column.comparison, grid.origin),
            unit: grid.unit,
        });
        let answer = agent.measure(&question).await.map_err(|error| error.on(role))?;
        let mut units = Vec::with_capacity(answer.len());
        for row in &answer {
            let counted = match row.as_slice() {
                [Some(unit), Some(rows)] => unit.parse().ok().zip(rows.parse().ok()),
                _ => None,
            };
            // Rows that are counted in no step would be rows of which nothing is said.
            units.push(counted.ok_or_else(|| AgentError::protocol("a count is no number").on(role))?);
        }
        Ok(grid.fold(units.into_iter()))
    }

    pub async fn both(
        &self,
        agents: (&AgentHandle, &AgentHandle),
        grid: &Grid,
    ) -> Result<(Vec<u64>, Vec<u64>), AgentError> {
        tokio::try_join!(self.counts(agents.0, Role::Source, grid), self.counts(agents.1, Role::Target, grid))
    }

    /// Whether ranges of this column are served by an index; views are not asked.
    pub async fn is_indexed(&self, agent: &AgentHandle, role: Role) -> Result<bool, AgentError> {
        let question =
            Question::Indexed { table: self.plan.table(role).clone(), column: self.measured(role).name };
        let answer = agent.measure(&question).await.map_err(|error| error.on(role))?;
        Ok(answer.first().and_then(|row| row.first()?.as_deref()) == Some("1"))
    }

    pub fn ruler(&self, zone: &jiff::tz::TimeZone) -> Ruler {
        let instants = self.instants();
        let zone = if instants { zone.clone() } else { jiff::tz::TimeZone::UTC };
        Ruler { axis: self.axis, instants, zone }
    }
}

/// What a column's totals are compared as. Between two SQLite files rows are compared as they are stored; totals have no
/// such form and go by the declared type.
pub fn meaning(column: &PlanColumn) -> ComparisonType {
    if column.comparison != ComparisonType::Dynamic {
        return column.comparison.clone();
    }
    let rounding = Rounding::Truncate;
    match &column.source_type {
        ColumnType::Bool | ColumnType::Int { .. } | ColumnType::Decimal { .. } => {
            ComparisonType::Decimal { scale: None }
        }
        ColumnType::Float { .. } => ComparisonType::Float { bits: 64 },
        ColumnType::Date => ComparisonType::Date,
        ColumnType::Timestamp { .. } => ComparisonType::Timestamp { digits: 6, rounding },
        ColumnType::TimestampTz { .. } => ComparisonType::TimestampTz { digits: 6, rounding },
        _ => ComparisonType::Dynamic,
    }
}

pub fn measured(column: &PlanColumn, role: Role) -> MeasuredColumn {
    match role {
        Role::Source => MeasuredColumn { name: column.source.clone(), ty: column.source_type.clone() },
        Role::Target => MeasuredColumn { name: column.target.clone(), ty: column.target_type.clone() },
    }
}

pub fn filter(plan: &Plan, role: Role) -> Option<String> {
    match role {
        Role::Source => plan.source_where.clone(),
        Role::Target => plan.target_where.clone(),
    }
}
