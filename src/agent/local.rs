//! The agent of one database in this process: what it serves, within which limits.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use super::error::{AgentError, FailureKind};
use super::pace::{Courtesy, Pace};
use super::undo::UndoStore;
use crate::engine::{Engine, Manners};
use crate::model::{Answer, Question, ServerInfo, TableName, TableSchema};

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
    /// Queries of the user's own are refused without it.
    pub sql: bool,
}

impl Serves {
    pub fn everything() -> Self {
        Self { tables: None, write: true, sql: true }
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

    pub async fn describe(&self, table: &TableName) -> Result<TableSchema, AgentError> {
        let schema = self.engine.describe(table).await?;
        self.permit(&schema.table)?;
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
        match question {
            Question::Totals(totals) => self.permit(&totals.table)?,
            Question::Counts(counts) => self.permit(&counts.table)?,
            Question::Indexed { table, .. } => self.permit(table)?,
            Question::Scalar { .. } if self.serves.sql => {}
            Question::Scalar { .. } => {
                return Err(AgentError::new(
                    FailureKind::Refused,
                    "this agent runs no queries of its callers",
                )
                .with_hint("start it with --allow-sql, or use another kind of check"));
            }
        }
        Ok(self.engine.measure(question).await?)
    }

    pub(super) fn permit(&self, table: &TableName) -> Result<(), AgentError> {
        if self.serves.permits(table) {
            return Ok(());
        }
        Err(AgentError::new(FailureKind::Refused, format!("this agent does not serve table {table}"))
            .with_hint("start it with --table for this table"))
    }

    pub(super) fn permit_write(&self) -> Result<(), AgentError> {
        if self.serves.write {
            return Ok(());
        }
        Err(AgentError::new(FailureKind::Refused, "this agent was started read-only")
            .with_hint("start the target's agent with --allow-write"))
    }
}
