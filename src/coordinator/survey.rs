//! Rows per step of both sides, one query a side, and the same range as a condition of each.

use super::steps::{Grid, Ruler};
use crate::agent::{AgentError, AgentHandle, error::FailureKind};
use crate::engine;
use crate::model::measure::{
    Aggregate, Axis, Counts, Measured, MeasuredColumn, Range, Total, Totals, border_for, read,
};
use crate::model::plan::PlanColumn;
use crate::model::{ColumnType, ComparisonType, Plan, Question, Role, Rounding, ServerInfo};

/// A column of a planned pair by which both sides' rows are told apart.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    pub plan: &'a Plan,
    pub column: &'a PlanColumn,
    pub axis: Axis,
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
                format!("column {name} ({}) has no ranges", column.source_declared),
                "choose a column of integers, dates or timestamps",
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

    /// The plan's own condition of a side, and the range.
    pub fn condition(
        &self,
        role: Role,
        server: &ServerInfo,
        from: Option<i128>,
        to: Option<i128>,
    ) -> Result<String, AgentError> {
        let range = engine::measure::condition(server.engine, &self.range(role, from, to))
            .map_err(|error| AgentError::from(error).on(role))?;
        // On lines of its own, so that a comment in it ends there.
        Ok(match self.filter(role) {
            Some(filter) => format!("(\n{filter}\n) AND {range}"),
            None => range,
        })
    }

    /// The smallest and the largest point of a side; `None` where it has none.
    pub async fn ends(&self, agent: &AgentHandle, role: Role) -> Result<Option<(i128, i128)>, AgentError> {
        let within = Some(self.range(role, None, None));
        let column = self.measured(role);
        let items = vec![
            Total { within: within.clone(), what: Aggregate::Min(column.clone()) },
            Total { within, what: Aggregate::Max(column) },
        ];
        let table = self.plan.table(role).clone();
        let question = Question::Totals(Totals { table, filter: self.filter(role), items });
        let answer = agent.measure(&question).await.map_err(|error| error.on(role))?;
        let point = |at: usize| {
            let text = answer.first()?.get(at)?.as_deref()?;
            match read(&meaning(self.column), Some(text))? {
                Measured::Number(number) => number.rounded(0).to_int(),
                Measured::Days(days) => Some(i128::from(days)),
                Measured::Micros(micros) => Some(i128::from(micros)),
                Measured::Null | Measured::Float(_) => None,
            }
        };
        Ok(point(0).zip(point(1)))
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
            let [Some(unit), Some(rows)] = row.as_slice() else { continue };
            let (Ok(unit), Ok(rows)) = (unit.parse(), rows.parse()) else {
                return Err(AgentError::protocol("a count is no number").on(role));
            };
            units.push((unit, rows));
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
