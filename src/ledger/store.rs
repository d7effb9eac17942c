//! The little that both stores can do: several statements in one transaction. Both understand `$1`, `$2`, in order.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::LedgerError;

/// Time for one call of a store: waiting for its turn, connecting and the transaction together. Longer than SQLite waits
/// for a lock.
const CALL_MAX: Duration = Duration::from_secs(30);
/// And for each statement of it.
const STATEMENT_MAX: Duration = Duration::from_millis(100);
/// For statements that read or remove a large part of the ledger.
const SLOW_CALL_MAX: Duration = Duration::from_secs(15 * 60);

/// How long a transaction of these steps may take.
pub(super) fn patience(steps: &[Step]) -> Duration {
    let usual = CALL_MAX + STATEMENT_MAX * u32::try_from(steps.len()).unwrap_or(u32::MAX);
    if steps.iter().any(|step| step.is_slow) { usual.max(SLOW_CALL_MAX) } else { usual.min(SLOW_CALL_MAX) }
}

/// One value of a row. Texts and whole numbers are all that a ledger needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Text(Option<String>),
    Int(Option<i64>),
}

impl Cell {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(Some(text.into()))
    }

    pub(super) fn int(number: i64) -> Self {
        Self::Int(Some(number))
    }

    /// Counts beyond 2^63 do not occur; they would be kept as the largest.
    pub(super) fn count(number: u64) -> Self {
        Self::Int(Some(i64::try_from(number).unwrap_or(i64::MAX)))
    }
}

/// A row as it was read, taken from the left.
#[derive(Debug)]
pub(super) struct Row(std::vec::IntoIter<Cell>);

impl Row {
    pub(super) fn new(cells: Vec<Cell>) -> Self {
        Self(cells.into_iter())
    }

    pub(super) fn maybe_text(&mut self) -> Option<String> {
        match self.0.next() {
            Some(Cell::Text(text)) => text,
            Some(Cell::Int(number)) => number.map(|number| number.to_string()),
            None => None,
        }
    }

    pub(super) fn text(&mut self) -> String {
        self.maybe_text().unwrap_or_default()
    }

    /// A store that was altered by hand may hold a text here.
    pub(super) fn int(&mut self) -> i64 {
        match self.0.next() {
            Some(Cell::Int(number)) => number.unwrap_or_default(),
            Some(Cell::Text(text)) => text.and_then(|text| text.parse().ok()).unwrap_or_default(),
            None => 0,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) sql: String,
    pub(super) cells: Vec<Cell>,
    pub(super) expects: Expects,
    /// It reads or removes a large part of the ledger, and may take as long.
    pub(super) is_slow: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expects {
    /// A query.
    Rows,
    Anything,
    /// Exactly one row is changed, or the transaction is undone: somebody else was quicker.
    OneChange,
}

impl Step {
    pub(super) fn query(sql: impl Into<String>, cells: Vec<Cell>) -> Self {
        Self { sql: sql.into(), cells, expects: Expects::Rows, is_slow: false }
    }

    pub(super) fn execute(sql: impl Into<String>, cells: Vec<Cell>) -> Self {
        Self { sql: sql.into(), cells, expects: Expects::Anything, is_slow: false }
    }

    pub(super) fn one_change(sql: impl Into<String>, cells: Vec<Cell>) -> Self {
        Self { sql: sql.into(), cells, expects: Expects::OneChange, is_slow: false }
    }

    pub(super) fn slow(self) -> Self {
        Self { is_slow: true, ..self }
    }
}

#[derive(Debug)]
pub(super) enum StoreError {
    /// A step that expects one change made another number; its place among the steps.
    Conflict(usize),
    Failed(LedgerError),
}

impl From<StoreError> for LedgerError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Failed(error) => error,
            StoreError::Conflict(_) => {
                Self::new("the ledger was changed by somebody else at the same time", "try again")
            }
        }
    }
}

/// What a step gave: the rows of a query, or how many rows were changed.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) rows: Vec<Row>,
    pub(super) changed: u64,
}

#[async_trait]
pub(super) trait Store: Send + Sync + std::fmt::Debug {
    /// All steps in one transaction; what each gave, in their order. It ends within the patience for these steps, whatever
    /// the database does; after a time-out nobody knows whether the transaction was committed.
    async fn run(&self, steps: Vec<Step>) -> Result<Vec<Given>, StoreError>;

    /// The ledger as it is at this moment, to be read only: what others change later is not seen. It has a connection of
    /// its own.
    async fn snapshot(&self) -> Result<Arc<dyn Store>, LedgerError>;

    /// Behind a query of rows to be claimed: rows that another is claiming at this moment are passed over. Nothing where
    /// one writes at a time.
    fn skip_locked(&self) -> &'static str {
        ""
    }
}

/// The rows of one query.
pub(super) async fn query(
    store: &dyn Store,
    sql: impl Into<String>,
    cells: Vec<Cell>,
) -> Result<Vec<Row>, LedgerError> {
    let mut given = store.run(vec![Step::query(sql, cells)]).await?;
    Ok(given.pop().unwrap_or_default().rows)
}

/// The rows of a query that reads a large part of the ledger.
pub(super) async fn slow_query(
    store: &dyn Store,
    sql: impl Into<String>,
    cells: Vec<Cell>,
) -> Result<Vec<Row>, LedgerError> {
    let mut given = store.run(vec![Step::query(sql, cells).slow()]).await?;
    Ok(given.pop().unwrap_or_default().rows)
}

/// `($1, $2), ($3, $4)`: places for so many rows.
pub(super) fn places(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let places: Vec<String> = (1..=columns).map(|at| format!("${}", row * columns + at)).collect();
        format!("({})", places.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}
