//! What checks came to, each time they ran.

use super::json::{json, parsed};
use super::store::{Cell, Row, query};
use super::{Ledger, LedgerError};
use crate::report::checks::CheckResult;

pub(super) const CHECK_COLUMNS: &str = "name, kind, pair, source_table, status, result";

/// One result, and the run that it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckRecord {
    pub run: String,
    /// RFC 3339, UTC.
    pub at: String,
    pub result: CheckResult,
}

/// Which results; empty means all. The newest come first.
#[derive(Debug, Clone, Default)]
pub struct CheckFilter {
    pub name: Option<String>,
    /// By the source's name.
    pub table: Option<String>,
    pub since: Option<String>,
    pub limit: Option<u64>,
}

pub(super) fn check_cells(result: &CheckResult) -> Vec<Cell> {
    vec![
        Cell::text(&result.name),
        Cell::text(&result.kind),
        Cell::text(&result.pair),
        Cell::Text(result.table.clone()),
        Cell::text(result.status.as_str()),
        Cell::text(json(result)),
    ]
}

impl Ledger {
    pub(super) async fn checks_of(&self, run: &str) -> Result<Vec<CheckResult>, LedgerError> {
        let sql = "SELECT result FROM trueup_checks WHERE run = $1 ORDER BY position";
        let rows = query(self.store.as_ref(), sql, vec![Cell::text(run)]).await?;
        rows.into_iter().map(|mut row| parsed(run, &row.text())).collect()
    }

    pub async fn check_history(&self, filter: &CheckFilter) -> Result<Vec<CheckRecord>, LedgerError> {
        let mut sql = "SELECT run, at, result FROM trueup_checks WHERE 1 = 1".to_owned();
        let mut cells = Vec::new();
        for (condition, value) in
            [("name =", &filter.name), ("source_table =", &filter.table), ("at >=", &filter.since)]
        {
            if let Some(value) = value {
                cells.push(Cell::text(value));
                sql += &format!(" AND {condition} ${}", cells.len());
            }
        }
        sql += " ORDER BY at DESC, run DESC, position";
        if let Some(limit) = filter.limit {
            cells.push(Cell::count(limit));
            sql += &format!(" LIMIT ${}", cells.len());
        }
        query(self.store.as_ref(), sql, cells).await?.into_iter().map(record).collect()
    }

    /// The last result of each check and table, by name.
    pub async fn latest_checks(&self) -> Result<Vec<CheckRecord>, LedgerError> {
        let sql = "SELECT c.run, c.at, c.result FROM trueup_checks c JOIN
             (SELECT name, max(at) AS at FROM trueup_checks GROUP BY name) last ON last.name = c.name AND last.at = c.at
             ORDER BY c.name, c.position";
        query(self.store.as_ref(), sql, Vec::new()).await?.into_iter().map(record).collect()
    }
}

fn record(mut row: Row) -> Result<CheckRecord, LedgerError> {
    let (run, at) = (row.text(), row.text());
    let result = parsed(&run, &row.text())?;
    Ok(CheckRecord { run, at, result })
}
