//! The agent of one database in this process: what it serves, within which limits.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use super::error::{AgentError, FailureKind};
use super::listed::Listed;
use super::pace::{Courtesy, Pace};
use super::undo::UndoStore;
use crate::engine::condition::restricted;
use crate::engine::{Engine, Manners, measure};
use crate::model::measure::{Counts, Totals};
use crate::model::{Answer, Plan, Question, Role, ServerInfo, TableAccess, TableName, TableSchema};

/// Tables described at once, each on a connection of its own.
const DESCRIBED_AT_ONCE: usize = 2;
/// Names told of what is left out where all tables are asked for.
pub(super) const LEFT_OUT_MAX: usize = 1_000;

/// What one agent may use.
#[derive(Debug, Clone)]
pub struct AgentLimits {
    /// For one table's digest run; beyond it the run is on disk.
    pub memory_bytes: usize,
    /// Where a run that does not fit in memory goes; the system's temporary folder by default.
    pub scratch: Option<PathBuf>,
    /// Readers of one table at a time.
    pub parallelism: usize,
    /// A peer silent for this long has stopped answering.
    pub peer_timeout: Duration,
    /// How much of the database may be taken.
    pub courtesy: Courtesy,
    pub manners: Manners,
}

impl Default for AgentLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 32 << 20,
            scratch: None,
            parallelism: 2,
            peer_timeout: Duration::from_secs(120),
            courtesy: Courtesy::default(),
            manners: Manners::default(),
        }
    }
}

/// What an agent serves to its peers. The embedded agent serves everything to its own process.
#[derive(Debug, Clone, Default)]
pub struct Serves {
    /// `None`: every table.
    pub tables: Option<Vec<TableName>>,
    /// Repairs are refused without it.
    pub write: bool,
    /// Conditions in SQL of the caller's own are refused without it; those of [`restricted`] are taken.
    pub conditions: bool,
    /// Queries of the user's own are refused without it.
    pub sql: bool,
}

impl Serves {
    pub fn everything() -> Self {
        Self { tables: None, write: true, conditions: true, sql: true }
    }

    /// A table of this name may be served: which it is, by schema and by case, only the database knows.
    fn may_permit(&self, table: &TableName) -> bool {
        self.tables
            .as_ref()
            .is_none_or(|served| served.iter().any(|served| served.name.eq_ignore_ascii_case(&table.name)))
    }

    /// `table` as the database names it.
    pub fn permits(&self, table: &TableName) -> bool {
        self.tables.as_ref().is_none_or(|served| served.contains(table))
    }
}

#[derive(Debug)]
pub struct LocalAgent {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) limits: AgentLimits,
    pub(super) pace: Arc<Pace>,
    serves: Serves,
    /// Where this agent keeps what its repairs overwrite.
    pub(super) undo: Option<UndoStore>,
}

impl LocalAgent {
    pub fn new(engine: Arc<dyn Engine>, limits: AgentLimits, serves: Serves) -> Self {
        let pace = Arc::new(Pace::new(limits.courtesy));
        Self { engine, limits, pace, serves, undo: None }
    }

    #[must_use]
    pub fn with_undo(mut self, undo: Option<UndoStore>) -> Self {
        self.undo = undo;
        self
    }

    /// Looks the served tables up, so that each stands for the one that its name means now, and not for those of that name in
    /// other schemas.
    pub async fn with_served_tables(mut self) -> Result<Self, AgentError> {
        for table in self.serves.tables.iter_mut().flatten() {
            let found = self.engine.describe(table).await.map_err(|error| {
                let AgentError { kind, message, hint, .. } = error.into();
                let hint = hint.unwrap_or_else(|| "name a table that is there with --table".to_owned());
                AgentError::new(kind, format!("cannot serve table {table}: {message}")).with_hint(hint)
            })?;
            *table = found.table;
        }
        Ok(self)
    }

    pub async fn server(&self) -> Result<ServerInfo, AgentError> {
        Ok(self.engine.server().await?)
    }

    pub fn may_write(&self) -> bool {
        self.serves.write
    }

    pub fn limits(&self) -> &AgentLimits {
        &self.limits
    }

    pub async fn tables(&self, schema: Option<&str>) -> Result<Vec<TableName>, AgentError> {
        let mut tables = self.engine.tables(schema).await?;
        tables.retain(|table| self.serves.permits(table));
        Ok(tables)
    }

    /// What a comparison of all tables does not look at. Of an agent that serves some tables only, nothing is told of others.
    pub async fn left_out(&self, schema: Option<&str>) -> Result<Vec<String>, AgentError> {
        if self.serves.tables.is_some() {
            return Ok(Vec::new());
        }
        let mut names = self.engine.left_out(schema).await?;
        names.truncate(LEFT_OUT_MAX);
        Ok(names)
    }

    pub async fn listed(&self, schema: Option<&str>) -> Result<Listed, AgentError> {
        let partial = self.serves.tables.is_some();
        Ok(Listed { tables: self.tables(schema).await?, left_out: self.left_out(schema).await?, partial })
    }

    pub async fn describe(&self, table: &TableName) -> Result<TableSchema, AgentError> {
        // Of a table that is not served, not even is said whether it is there.
        if !self.serves.may_permit(table) {
            return Err(not_served(table));
        }
        let schema = self.engine.describe(table).await?;
        if !self.serves.permits(&schema.table) {
            return Err(not_served(table));
        }
        Ok(schema)
    }

    /// Many tables, in their order; each with its own error.
    pub async fn describe_many(&self, tables: &[TableName]) -> Vec<Result<TableSchema, AgentError>> {
        // Collected before it is polled: a stream over references has no one lifetime.
        let described: Vec<_> = tables.iter().map(|table| self.describe(table)).collect();
        futures::stream::iter(described).buffered(DESCRIBED_AT_ONCE).collect().await
    }

    /// A few numbers about a served table; no row.
    pub async fn measure(&self, question: &Question) -> Result<Answer, AgentError> {
        let permitted = match question {
            Question::Totals(totals) => {
                self.permit(&totals.table)?;
                Question::Totals(Totals {
                    filter: self.condition(totals.filter.as_deref())?,
                    ..totals.clone()
                })
            }
            Question::Counts(counts) => {
                self.permit(&counts.table)?;
                Question::Counts(Counts {
                    filter: self.condition(counts.filter.as_deref())?,
                    ..counts.clone()
                })
            }
            Question::Indexed { table, .. } => {
                self.permit(table)?;
                question.clone()
            }
            Question::Scalar { .. } if self.serves.sql => question.clone(),
            Question::Scalar { .. } => {
                return Err(AgentError::new(
                    FailureKind::Refused,
                    "this agent runs no queries of its callers",
                )
                .with_hint("start it with --allow-sql, or use another kind of check"));
            }
        };
        Ok(self.engine.measure(&permitted).await?)
    }

    /// What of a served table is read and written by this plan.
    pub(super) fn access(&self, plan: &Plan, role: Role) -> Result<Arc<TableAccess>, AgentError> {
        self.permit(plan.table(role))?;
        let mut access = plan.access(role);
        let condition = self.condition(access.filter.as_deref())?;
        let range =
            plan.range(role).map(|range| measure::condition(self.engine.kind(), range)).transpose()?;
        access.filter = match (condition, range) {
            // On lines of its own, so that a comment in it ends there.
            (Some(condition), Some(range)) => Some(format!("(\n{condition}\n) AND {range}")),
            (condition, range) => condition.or(range),
        };
        Ok(Arc::new(access))
    }

    /// The caller's condition as it may be run here.
    fn condition(&self, sql: Option<&str>) -> Result<Option<String>, AgentError> {
        let Some(sql) = sql else { return Ok(None) };
        if self.serves.conditions || self.serves.sql {
            return Ok(Some(sql.to_owned()));
        }
        restricted(self.engine.kind(), sql).map(Some).map_err(|why| {
            let what = format!("this agent runs no SQL of its callers, and the condition {why}");
            AgentError::new(FailureKind::Refused, what).with_hint(
                "write it of columns and values with = <> < <= > >= AND OR NOT IN BETWEEN LIKE and IS NULL, \
                 or start the agent with --allow-where",
            )
        })
    }

    pub(super) fn permit(&self, table: &TableName) -> Result<(), AgentError> {
        if self.serves.permits(table) { Ok(()) } else { Err(not_served(table)) }
    }

    pub(super) fn permit_write(&self) -> Result<(), AgentError> {
        if self.serves.write {
            return Ok(());
        }
        Err(AgentError::new(FailureKind::Refused, "this agent was started read-only")
            .with_hint("start the target's agent with --allow-write"))
    }
}

fn not_served(table: &TableName) -> AgentError {
    AgentError::new(FailureKind::Refused, format!("this agent does not serve table {table}"))
        .with_hint("start it with --table for this table")
}
