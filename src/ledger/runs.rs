//! Runs: their begin and end, and what is read back of them.

use super::chain::{Entry, EntryKind, Head};
use super::checks::{CHECK_COLUMNS, check_cells};
use super::store::{Cell, Row, Step, places, query};
use super::{Ledger, LedgerError};
use crate::report::checks::CheckResult;
use crate::report::record::{DifferenceRecord, RunRecord, TableRecord};

const RUN_COLUMNS: &str = "id, kind, who, host, software, started_at, ended_at, outcome, error, source, target, \
     target_reference, writes, undoes, options, only_in_source, only_in_target";
const TABLE_COLUMNS: &str =
    "source_table, target_table, verdict, plan_fingerprint, plan, outcome, warnings, error, backfill";
const DIFFERENCE_COLUMNS: &str = "table_position, kind, key, columns, reason";
const DIFFERENCES_A_STATEMENT: usize = 500;

/// A run that begins.
#[derive(Debug, Clone)]
pub struct RunStart {
    /// Sortable by time; unique.
    pub id: String,
    pub kind: String,
    pub who: String,
    pub host: String,
    pub software: String,
    pub started_at: String,
    pub source: String,
    pub target: String,
    pub target_reference: String,
    pub writes: bool,
    pub undoes: Option<String>,
    pub options: serde_json::Value,
}

/// How a run ended.
#[derive(Debug, Clone, Default)]
pub struct RunEnd {
    pub ended_at: String,
    pub outcome: String,
    pub error: Option<String>,
    pub only_in_source: Vec<String>,
    pub only_in_target: Vec<String>,
    pub tables: Vec<TableRecord>,
    /// Of a run of checks: what they came to.
    pub checks: Vec<CheckResult>,
}

/// Which runs to list; empty means all. The newest come first.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    pub kind: Option<String>,
    pub outcome: Option<String>,
    /// Begun at this time or later, RFC 3339.
    pub since: Option<String>,
    /// Runs that touched a table of this name on either side.
    pub table: Option<String>,
    pub undoes: Option<String>,
    /// Begun before the run of this id: the next page of a list.
    pub before: Option<String>,
    pub limit: Option<u64>,
}

/// The record's hash, out of the detail of a run's last entry.
pub(super) fn seal_of(detail: &str) -> Option<String> {
    let detail: serde_json::Value = serde_json::from_str(detail).ok()?;
    Some(detail.get("record")?.as_str()?.to_owned())
}

impl Ledger {
    /// Notes the run and its first entry in the trail. From here on it is open until `finish`.
    pub async fn begin(&self, start: &RunStart) -> Result<Head, LedgerError> {
        let values = vec![
            Cell::text(&start.id),
            Cell::text(&start.kind),
            Cell::text(&start.who),
            Cell::text(&start.host),
            Cell::text(&start.software),
            Cell::text(&start.started_at),
            Cell::Text(None),
            Cell::Text(None),
            Cell::Text(None),
            Cell::text(&start.source),
            Cell::text(&start.target),
            Cell::text(&start.target_reference),
            Cell::int(i64::from(start.writes)),
            Cell::Text(start.undoes.clone()),
            Cell::text(start.options.to_string()),
            Cell::text("[]"),
            Cell::text("[]"),
        ];
        let detail = serde_json::json!({
            "source": start.source, "target": start.target, "writes": start.writes, "undoes": start.undoes,
            "options": start.options, "software": start.software,
        });
        let entry = Entry {
            operation: start.kind.clone(),
            detail: detail.to_string(),
            ..entry(start, &start.started_at, EntryKind::Begin)
        };
        let insert = Step::execute(
            format!("INSERT INTO trueup_runs ({RUN_COLUMNS}) VALUES {}", places(1, 17)),
            values,
        );
        self.append_with(vec![entry], &[insert]).await
    }

    /// Notes how the run ended, and seals its record in the trail.
    pub async fn finish(&self, start: &RunStart, end: &RunEnd) -> Result<Head, LedgerError> {
        let tables: Vec<(Vec<Cell>, Vec<Vec<Cell>>)> =
            end.tables.iter().map(|table| (table_cells(table), difference_cells(table))).collect();
        let run = vec![
            Cell::text(&end.ended_at),
            Cell::text(&end.outcome),
            Cell::Text(end.error.clone()),
            Cell::text(json(&end.only_in_source)),
            Cell::text(json(&end.only_in_target)),
        ];
        let checks: Vec<Vec<Cell>> = end.checks.iter().map(check_cells).collect();
        let seal = seal(start, &run, &tables, &checks);
        let mut update = run;
        update.push(Cell::text(&start.id));
        let mut steps = vec![Step::one_change(
            "UPDATE trueup_runs SET ended_at = $1, outcome = $2, error = $3, only_in_source = $4, only_in_target = $5
             WHERE id = $6 AND ended_at IS NULL",
            update,
        )];
        for (at, (table, (cells, differences))) in (0..).zip(end.tables.iter().zip(tables)) {
            let outcome = &table.outcome;
            let mut all = vec![Cell::text(&start.id), Cell::int(at)];
            all.extend(cells);
            // What SQL would ask for, beside the whole.
            all.extend(
                [
                    outcome.source_rows,
                    outcome.target_rows,
                    outcome.missing,
                    outcome.changed,
                    outcome.extra,
                    outcome.inserted,
                    outcome.updated,
                    outcome.deleted,
                    outcome.left,
                    outcome.set_aside,
                ]
                .map(Cell::count),
            );
            all.extend([Cell::text(&outcome.source_root), Cell::text(&outcome.target_root)]);
            all.push(Cell::Text(outcome.repaired_root.clone()));
            all.extend([
                Cell::int(i64::from(outcome.proved)),
                Cell::count(outcome.bytes_to_source + outcome.bytes_to_target),
                Cell::int(milliseconds(table.seconds())),
            ]);
            steps.push(Step::execute(
                format!(
                    "INSERT INTO trueup_tables (run, position, {TABLE_COLUMNS}, source_rows, target_rows, missing, changed,
                     extra, inserted, updated, deleted, not_written, set_aside, source_root, target_root, repaired_root,
                     proved, bytes, milliseconds) VALUES {}",
                    places(1, 27)
                ),
                all,
            ));
            let mut position = 0;
            for chunk in differences.chunks(DIFFERENCES_A_STATEMENT) {
                let cells = chunk.iter().flat_map(|cells| {
                    position += 1;
                    let mut row = vec![Cell::text(&start.id), Cell::int(position), Cell::int(at)];
                    row.extend(cells.iter().cloned());
                    row
                });
                let cells: Vec<Cell> = cells.collect();
                steps.push(Step::execute(
                    format!(
                        "INSERT INTO trueup_differences (run, position, {DIFFERENCE_COLUMNS}) VALUES {}",
                        places(chunk.len(), 7)
                    ),
                    cells,
                ));
            }
        }
        for (at, cells) in (0..).zip(checks) {
            let mut row = vec![Cell::text(&start.id), Cell::int(at), Cell::text(&end.ended_at)];
            row.extend(cells);
            let sql = format!(
                "INSERT INTO trueup_checks (run, position, at, {CHECK_COLUMNS}) VALUES {}",
                places(1, 9)
            );
            steps.push(Step::execute(sql, row));
        }
        let detail = serde_json::json!({ "tables": end.tables.len(), "record": seal });
        let entry = Entry {
            operation: start.kind.clone(),
            outcome: end.outcome.clone(),
            detail: detail.to_string(),
            ..entry(start, &end.ended_at, EntryKind::End)
        };
        self.append_with(vec![entry], &steps).await
    }

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
        add(
            "EXISTS (SELECT 1 FROM trueup_tables t WHERE t.run = trueup_runs.id AND ? IN (t.source_table, t.target_table))",
            &filter.table,
        );
        match filter.outcome.as_deref() {
            Some("open") => sql += " AND ended_at IS NULL",
            _ => add("outcome = ?", &filter.outcome),
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

    /// The hash of a run's record as it stands; `None` where there is no such run.
    pub(super) async fn fingerprint(&self, run: &str) -> Result<Option<String>, LedgerError> {
        let store = self.store.as_ref();
        let id = || vec![Cell::text(run)];
        let sql = format!("SELECT {RUN_COLUMNS} FROM trueup_runs WHERE id = $1");
        let Some(mut row) = query(store, sql, id()).await?.into_iter().next() else { return Ok(None) };
        let start = RunStart {
            id: row.text(),
            kind: row.text(),
            who: row.text(),
            host: row.text(),
            software: row.text(),
            started_at: row.text(),
            source: String::new(),
            target: String::new(),
            target_reference: String::new(),
            writes: false,
            undoes: None,
            options: serde_json::Value::Null,
        };
        let mut end: Vec<Cell> = (0..3).map(|_| Cell::Text(row.maybe_text())).collect();
        let start = RunStart {
            source: row.text(),
            target: row.text(),
            target_reference: row.text(),
            writes: row.int() != 0,
            undoes: row.maybe_text(),
            options: serde_json::from_str(&row.text()).unwrap_or_default(),
            ..start
        };
        end.extend((0..2).map(|_| Cell::Text(row.maybe_text())));
        let sql =
            format!("SELECT position, {TABLE_COLUMNS} FROM trueup_tables WHERE run = $1 ORDER BY position");
        let mut tables = Vec::new();
        for mut row in query(store, sql, id()).await? {
            let position = row.int();
            let cells = (0..9).map(|_| Cell::Text(row.maybe_text())).collect();
            let sql = format!(
                "SELECT {DIFFERENCE_COLUMNS} FROM trueup_differences WHERE run = $1 AND table_position = $2 ORDER BY position"
            );
            let rows = query(store, sql, vec![Cell::text(run), Cell::int(position)]).await?;
            let differences = rows.into_iter().map(|mut row| {
                row.int();
                (0..4).map(|_| Cell::Text(row.maybe_text())).collect()
            });
            tables.push((cells, differences.collect()));
        }
        let sql = format!("SELECT {CHECK_COLUMNS} FROM trueup_checks WHERE run = $1 ORDER BY position");
        let checks: Vec<Vec<Cell>> = query(store, sql, id())
            .await?
            .into_iter()
            .map(|mut row| (0..6).map(|_| Cell::Text(row.maybe_text())).collect())
            .collect();
        Ok(Some(seal(&start, &end, &tables, &checks)))
    }
}

/// Everything that the ledger says of an ended run, as one hash.
fn seal(
    start: &RunStart,
    end: &[Cell],
    tables: &[(Vec<Cell>, Vec<Vec<Cell>>)],
    checks: &[Vec<Cell>],
) -> String {
    let texts = |cells: &[Cell]| -> Vec<Option<String>> {
        cells
            .iter()
            .map(|cell| match cell {
                Cell::Text(text) => text.clone(),
                Cell::Int(number) => number.map(|number| number.to_string()),
            })
            .collect()
    };
    let tables: Vec<_> = tables
        .iter()
        .map(|(table, differences)| {
            (texts(table), differences.iter().map(|difference| texts(difference)).collect::<Vec<_>>())
        })
        .collect();
    let start = (
        [&start.id, &start.kind, &start.who, &start.host, &start.software, &start.started_at],
        [&start.source, &start.target, &start.target_reference],
        start.writes,
        &start.undoes,
        start.options.to_string(),
    );
    let checks: Vec<_> = checks.iter().map(|check| texts(check)).collect();
    let all = serde_json::to_vec(&(start, texts(end), tables, checks)).unwrap_or_default();
    blake3::hash(&all).to_hex().to_string()
}

pub(super) fn entry(start: &RunStart, at: &str, kind: EntryKind) -> Entry {
    Entry {
        at: at.to_owned(),
        who: start.who.clone(),
        host: start.host.clone(),
        run: start.id.clone(),
        kind: kind.as_str().to_owned(),
        ..Entry::default()
    }
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

pub(super) fn parsed<T: serde::de::DeserializeOwned>(run: &str, text: &str) -> Result<T, LedgerError> {
    serde_json::from_str(text).map_err(|_| {
        LedgerError::new(
            format!("the ledger's record of run {run} cannot be read"),
            "it was altered, or made by another release: see trueup audit verify",
        )
    })
}

fn table_cells(table: &TableRecord) -> Vec<Cell> {
    vec![
        Cell::text(&table.source_table),
        Cell::text(&table.target_table),
        Cell::text(&table.verdict),
        Cell::Text(table.plan_fingerprint.clone()),
        Cell::Text(table.plan.as_ref().map(json)),
        Cell::text(json(&table.outcome)),
        Cell::text(json(&table.warnings)),
        Cell::Text(table.error.as_ref().map(json)),
        Cell::Text(table.backfill.as_ref().map(json)),
    ]
}

fn difference_cells(table: &TableRecord) -> Vec<Vec<Cell>> {
    let cells = |difference: &DifferenceRecord| {
        vec![
            Cell::text(&difference.kind),
            Cell::text(&difference.key),
            Cell::text(json(&difference.columns)),
            Cell::Text(difference.reason.clone()),
        ]
    };
    table.differences.iter().map(cells).collect()
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

#[expect(clippy::cast_possible_truncation, reason = "seconds of one run")]
fn milliseconds(seconds: f64) -> i64 {
    (seconds * 1000.0) as i64
}
