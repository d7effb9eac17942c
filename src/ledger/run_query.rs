//! Runs as they are read back: the list, and one with its tables.

use super::json::parsed;
use super::runs::{DIFFERENCE_COLUMNS, RUN_COLUMNS, TABLE_COLUMNS};
use super::store::{Cell, Row, query};
use super::{Ledger, LedgerError};
use crate::report::record::{DifferenceRecord, RunRecord, TableRecord};

/// Which runs to list; empty means all. The newest come first.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    pub kind: Option<String>,
    pub outcome: Option<String>,
    /// Begun at this time or later, RFC 3339.
    pub since: Option<String>,
    /// Runs that touched a table of one of these names on either side, or checked it; empty means any.
    pub tables: Vec<String>,
    pub undoes: Option<String>,
    /// Begun before the run of this id: the next page of a list.
    pub before: Option<String>,
    pub limit: Option<u64>,
}

impl Ledger {
    pub async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRecord>, LedgerError> {
        let mut sql = format!("SELECT {RUN_COLUMNS} FROM trueup_runs WHERE 1 = 1");
        let mut cells = Vec::new();
        let mut add = |condition: &str, value: &Option<String>| {
            if let Some(value) = value {
                cells.push(Cell::text(value));
                sql += &format!(" AND {}", condition.replace('?', &format!("${}", cells.len())));
            }
        };
        add("kind = ?", &filter.kind);
        add("undoes = ?", &filter.undoes);
        add("started_at >= ?", &filter.since);
        add(
            "(started_at, id) < (SELECT b.started_at, b.id FROM trueup_runs b WHERE b.id = ?)",
            &filter.before,
        );
        if !filter.tables.is_empty() {
            let first = cells.len() + 1;
            cells.extend(filter.tables.iter().map(Cell::text));
            let places: Vec<String> = (first..=cells.len()).map(|at| format!("${at}")).collect();
            let any = places.join(", ");
            sql += &format!(
                " AND (EXISTS (SELECT 1 FROM trueup_tables t WHERE t.run = trueup_runs.id
                      AND (t.source_table IN ({any}) OR t.target_table IN ({any})))
                  OR EXISTS (SELECT 1 FROM trueup_checks c WHERE c.run = trueup_runs.id AND c.source_table IN ({any})))"
            );
        }
        match filter.outcome.as_deref() {
            Some("open") => sql += " AND ended_at IS NULL",
            Some(outcome) => {
                cells.push(Cell::text(outcome));
                sql += &format!(" AND outcome = ${}", cells.len());
            }
            None => {}
        }
        sql += " ORDER BY started_at DESC, id DESC";
        if let Some(limit) = filter.limit {
            cells.push(Cell::count(limit));
            sql += &format!(" LIMIT ${}", cells.len());
        }
        Ok(query(self.store.as_ref(), sql, cells).await?.into_iter().map(run_record).collect())
    }

    /// The run of this id, or of the one id that begins or ends with it, or the newest for `last`; with its tables.
    pub async fn run(&self, id: &str) -> Result<RunRecord, LedgerError> {
        let mut found = if id == "last" {
            self.runs(&RunFilter { limit: Some(1), ..RunFilter::default() }).await?
        } else {
            let plain = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            let sql = format!(
                "SELECT {RUN_COLUMNS} FROM trueup_runs WHERE id LIKE $1 OR id LIKE $2 ORDER BY started_at DESC LIMIT 2"
            );
            let cells = vec![Cell::text(format!("{id}%")), Cell::text(format!("%{id}"))];
            match plain {
                true => query(self.store.as_ref(), sql, cells).await?.into_iter().map(run_record).collect(),
                false => Vec::new(),
            }
        };
        if found.len() > 1 {
            return Err(LedgerError::new(
                format!("more than one run begins or ends with {id}"),
                "write more of its id, as trueup runs shows it",
            ));
        }
        let Some(mut run) = found.pop() else {
            return Err(LedgerError::new(
                format!("the ledger has no run {id}"),
                "trueup runs lists them; is it another --ledger?",
            ));
        };
        run.tables = self.tables(&run.id).await?;
        run.checks = self.checks_of(&run.id).await?;
        Ok(run)
    }

    async fn tables(&self, run: &str) -> Result<Vec<TableRecord>, LedgerError> {
        let store = self.store.as_ref();
        let rows = query(
            store,
            format!("SELECT {TABLE_COLUMNS} FROM trueup_tables WHERE run = $1 ORDER BY position"),
            vec![Cell::text(run)],
        )
        .await?;
        let mut tables: Vec<TableRecord> =
            rows.into_iter().map(|row| table_record(run, row)).collect::<Result<_, _>>()?;
        let rows = query(
            store,
            format!(
                "SELECT {DIFFERENCE_COLUMNS} FROM trueup_differences WHERE run = $1 ORDER BY table_position, position"
            ),
            vec![Cell::text(run)],
        )
        .await?;
        for mut row in rows {
            let table = usize::try_from(row.int()).ok().and_then(|at| tables.get_mut(at));
            let difference = DifferenceRecord {
                kind: row.text(),
                key: row.text(),
                columns: parsed(run, &row.text())?,
                reason: row.maybe_text(),
            };
            if let Some(table) = table {
                table.differences.push(difference);
            }
        }
        Ok(tables)
    }
}

fn run_record(mut row: Row) -> RunRecord {
    let names =
        |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    RunRecord {
        id: row.text(),
        kind: row.text(),
        who: row.text(),
        host: row.text(),
        software: row.text(),
        started_at: row.text(),
        ended_at: row.maybe_text(),
        outcome: row.maybe_text(),
        error: row.maybe_text(),
        source: row.text(),
        target: row.text(),
        target_reference: row.text(),
        writes: row.int() != 0,
        undoes: row.maybe_text(),
        options: serde_json::from_str(&row.text()).unwrap_or_default(),
        only_in_source: names(row.maybe_text()),
        only_in_target: names(row.maybe_text()),
        tables: Vec::new(),
        checks: Vec::new(),
    }
}

fn table_record(run: &str, mut row: Row) -> Result<TableRecord, LedgerError> {
    Ok(TableRecord {
        source_table: row.text(),
        target_table: row.text(),
        verdict: row.text(),
        plan_fingerprint: row.maybe_text(),
        plan: row.maybe_text().map(|text| parsed(run, &text)).transpose()?,
        outcome: parsed(run, &row.text())?,
        warnings: parsed(run, &row.text())?,
        error: row.maybe_text().map(|text| parsed(run, &text)).transpose()?,
        backfill: row.maybe_text().map(|text| parsed(run, &text)).transpose()?,
        differences: Vec::new(),
    })
}
