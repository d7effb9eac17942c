//! Runs: their begin and end, each with its entry in the trail, and the hash that seals a run's record.

use super::chain::{Entry, EntryKind, Head};
use super::checks::{CHECK_COLUMNS, check_cells};
use super::json::json;
use super::store::{Cell, Row, Step, StoreError, places, query};
use super::{Ledger, LedgerError};
use crate::report::checks::CheckResult;
use crate::report::record::{DifferenceRecord, TableRecord};

pub(super) const RUN_COLUMNS: &str = "id, kind, who, host, software, started_at, ended_at, outcome, error, source, target, \
     target_reference, writes, undoes, options, only_in_source, only_in_target";
pub(super) const TABLE_COLUMNS: &str =
    "source_table, target_table, verdict, plan_fingerprint, plan, outcome, warnings, error, backfill";
/// What SQL would ask for, beside the whole that is in `outcome`.
const SUM_COLUMNS: &str = "source_rows, target_rows, missing, changed, extra, inserted, updated, deleted, not_written, set_aside, \
    source_root, target_root, repaired_root, proved, bytes, milliseconds";
pub(super) const DIFFERENCE_COLUMNS: &str = "table_position, kind, key, columns, reason";
const DIFFERENCES_A_STATEMENT: usize = 500;

/// A run that begins.
#[derive(Debug, Clone)]
pub struct RunStart {
    /// Sortable by time; unique.
    pub id: String,
    pub kind: String,
    pub who: String,
    pub host: String,
    /// The process that runs it, where that can be told from all others; else empty.
    pub process: String,
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
            Cell::text(&start.process),
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
            format!("INSERT INTO trueup_runs ({RUN_COLUMNS}, process) VALUES {}", places(1, 18)),
            values,
        );
        Ok(self.append_with(vec![entry], &[insert]).await?)
    }

    /// Notes how the run ended, and seals its record in the trail.
    pub async fn finish(&self, start: &RunStart, end: &RunEnd) -> Result<Head, LedgerError> {
        let tables: Vec<(Vec<Cell>, Vec<Vec<Cell>>)> =
            end.tables.iter().map(|table| (whole_cells(table), difference_cells(table))).collect();
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
        for (at, (cells, differences)) in (0..).zip(tables) {
            let mut all = vec![Cell::text(&start.id), Cell::int(at)];
            all.extend(cells);
            steps.push(Step::execute(
                format!(
                    "INSERT INTO trueup_tables (run, position, {TABLE_COLUMNS}, {SUM_COLUMNS}) VALUES {}",
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
        self.append_with(vec![entry], &steps).await.map_err(|error| match error {
            StoreError::Conflict(_) => LedgerError::new(
                format!("the ledger has the end of run {} already, or has no such run", start.id),
                "it was closed as abandoned, or ended twice: see trueup runs",
            ),
            StoreError::Failed(error) => error,
        })
    }

    /// The hash of a run's record as it stands; `None` where there is no such run.
    pub(super) async fn fingerprint(&self, run: &str) -> Result<Option<String>, LedgerError> {
        let store = self.store.as_ref();
        let id = || vec![Cell::text(run)];
        let sql = format!("SELECT {RUN_COLUMNS} FROM trueup_runs WHERE id = $1");
        let Some(mut row) = query(store, sql, id()).await?.into_iter().next() else { return Ok(None) };
        let (start, end) = begun(&mut row);
        let sql = format!(
            "SELECT position, {TABLE_COLUMNS}, {SUM_COLUMNS} FROM trueup_tables WHERE run = $1 ORDER BY position"
        );
        let mut tables = Vec::new();
        for mut row in query(store, sql, id()).await? {
            let position = row.int();
            let cells = (0..25).map(|_| Cell::Text(row.maybe_text())).collect();
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

/// A row of runs: how the run began, and what its end has put there.
pub(super) fn begun(row: &mut Row) -> (RunStart, Vec<Cell>) {
    let mut start = RunStart {
        id: row.text(),
        kind: row.text(),
        who: row.text(),
        host: row.text(),
        process: String::new(),
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
    start.source = row.text();
    start.target = row.text();
    start.target_reference = row.text();
    start.writes = row.int() != 0;
    start.undoes = row.maybe_text();
    start.options = serde_json::from_str(&row.text()).unwrap_or_default();
    end.extend((0..2).map(|_| Cell::Text(row.maybe_text())));
    (start, end)
}

/// All cells of a table's row.
fn whole_cells(table: &TableRecord) -> Vec<Cell> {
    let outcome = &table.outcome;
    let mut all = table_cells(table);
    let counts = [
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
    ];
    all.extend(counts.map(Cell::count));
    all.extend([Cell::text(&outcome.source_root), Cell::text(&outcome.target_root)]);
    all.push(Cell::Text(outcome.repaired_root.clone()));
    all.extend([
        Cell::int(i64::from(outcome.proved)),
        Cell::count(outcome.bytes_to_source + outcome.bytes_to_target),
        Cell::int(milliseconds(table.seconds())),
    ]);
    all
}

/// Everything that the ledger says of an ended run, as one hash.
pub(super) fn seal(
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

#[expect(clippy::cast_possible_truncation, reason = "seconds of one run")]
fn milliseconds(seconds: f64) -> i64 {
    (seconds * 1000.0) as i64
}
