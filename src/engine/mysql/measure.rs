//! Totals, counts and scalars of MySQL and MariaDB.

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _, SqlSafeStr as _};

use super::catalogue::{self, column_named, of_table};
use super::session::execute;
use super::statement::{quote, quote_table};
use super::{MySqlEngine, errors, wire};
use crate::engine::EngineError;
use crate::engine::measure::{self, Dialect};
use crate::model::measure::{Axis, MeasuredColumn, Question, Range};
use crate::model::temporal::{MICROS_PER_DAY, date_text, days_from_civil, timestamp_text};
use crate::model::{Answer, ColumnType, TableName};

#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct MySql;

/// Years 1 to 9999 can be written; zero dates stand below them.
fn days_ends() -> (i128, i128) {
    let day = |year, month, date| days_from_civil(year, month, date).map_or(0, i128::from);
    (day(1, 1, 1), day(9999, 12, 31))
}

fn per_day(ty: &ColumnType) -> i128 {
    if ty.axis() == Some(Axis::Micros) { i128::from(MICROS_PER_DAY) } else { 1 }
}

fn point(ty: &ColumnType, at: i128) -> String {
    let (low, high) = days_ends();
    let at_time = at.clamp(low * per_day(ty), high * per_day(ty));
    match ty.axis() {
        Some(Axis::Days) => format!("DATE'{}'", date_text(i32::try_from(at_time).unwrap_or(0))),
        Some(Axis::Micros) => format!("TIMESTAMP'{}'", timestamp_text(i64::try_from(at_time).unwrap_or(0))),
        _ if at < 0 => format!("({at})"),
        _ => at.to_string(),
    }
}

impl Dialect for MySql {
    fn quote(&self, name: &str) -> String {
        quote(name)
    }

    fn table(&self, table: &TableName) -> String {
        quote_table(table)
    }

    fn condition(&self, range: &Range) -> String {
        let name = quote(&range.column.name);
        let ty = &range.column.ty;
        let is_time = ty.axis() != Some(Axis::Integer);
        let (low, high) = days_ends();
        let mut ends = Vec::with_capacity(2);
        match range.from {
            Some(from) => ends.push(format!("{name} >= {}", point(ty, from))),
            // Zero dates are below every date of a calendar.
            None if is_time => ends.push(format!("{name} >= {}", point(ty, low * per_day(ty)))),
            None => {}
        }
        match range.to {
            // Beyond what a literal can say there is nothing.
            Some(to) if is_time && to > high * per_day(ty) => {}
            Some(to) => ends.push(format!("{name} < {}", point(ty, to))),
            None => {}
        }
        if ends.is_empty() {
            ends.push(format!("{name} IS NOT NULL"));
        }
        format!("({})", ends.join(" AND "))
    }

    fn unit_number(&self, column: &MeasuredColumn, origin: i128, unit: u64) -> String {
        let name = quote(&column.name);
        let origin = point(&column.ty, origin);
        match column.ty.axis() {
            Some(Axis::Integer) => format!("(({name} - {origin}) DIV {unit})"),
            Some(Axis::Days) => format!("(DATEDIFF({name}, {origin}) DIV {unit})"),
            _ => format!("(TIMESTAMPDIFF(SECOND, {origin}, {name}) DIV {unit})"),
        }
    }

    fn summand(&self, column: &MeasuredColumn) -> Option<String> {
        let name = quote(&column.name);
        Some(match column.ty {
            ColumnType::Bool | ColumnType::Int { .. } | ColumnType::Decimal { .. } => name,
            // A FLOAT's own text has six digits only.
            ColumnType::Float { .. } => format!("({name} + 0e0)"),
            _ => return None,
        })
    }

    fn sum(&self, column: &MeasuredColumn, summand: &str, scale: Option<u32>) -> String {
        match (&column.ty, scale) {
            (ColumnType::Decimal { .. }, Some(scale)) => format!("SUM(ROUND({summand}, {scale}))"),
            _ => format!("SUM({summand})"),
        }
    }

    fn ordered(&self, column: &MeasuredColumn) -> String {
        self.summand(column).unwrap_or_else(|| quote(&column.name))
    }

    fn shown(&self, _: &MeasuredColumn, extreme: &str) -> String {
        extreme.to_owned()
    }

    fn bytes_of(&self, column: &MeasuredColumn) -> String {
        let name = quote(&column.name);
        match column.ty {
            ColumnType::Text { .. } => format!("CAST({name} AS BINARY)"),
            _ => name,
        }
    }

    fn text(&self, expression: &str) -> String {
        format!("CAST({expression} AS CHAR)")
    }
}

impl MySqlEngine {
    pub(super) async fn ask(&self, question: &Question) -> Result<Answer, EngineError> {
        let (during, sql, free) = match question {
            Question::Totals(totals) => (
                format!("measure {}", totals.table),
                measure::totals(&MySql, totals)?,
                totals.filter.is_some(),
            ),
            Question::Counts(counts) => (
                format!("count rows of {}", counts.table),
                measure::counts(&MySql, counts)?,
                counts.filter.is_some(),
            ),
            Question::Indexed { table, column } => return self.indexed(table, column).await,
            Question::Scalar { sql } => {
                ("run the check's query".to_owned(), measure::scalar(&MySql, sql), true)
            }
        };
        // A connection of its own: one that failed halfway must not come back with its transaction.
        let mut connection = self.target.connect().await?;
        execute(&mut connection, "START TRANSACTION READ ONLY")
            .await
            .map_err(|error| errors::database(during.as_str(), &error))?;
        if let Some(bare) = measure::bare(&MySql, question) {
            let prepared = (&mut connection).prepare(AssertSqlSafe(bare).into_sql_str()).await;
            prepared.map_err(|error| errors::reading(&during, true, &error))?;
        }
        let answer =
            texts(&mut connection, &sql).await.map_err(|error| errors::reading(&during, free, &error))?;
        drop(connection.close().await);
        Ok(answer)
    }

    async fn indexed(&self, table: &TableName, column: &str) -> Result<Answer, EngineError> {
        let during = format!("look for an index of {table}");
        let mut connection = self.connection(&during).await?;
        let schema = self.schema_or_default(table.schema.as_deref())?;
        let (of, column) = (of_table(&self.facts, schema, &table.name), column_named("column_name", column));
        let sql = format!(
            "SELECT COUNT(*) > 0 FROM information_schema.statistics WHERE {of} AND {column} AND seq_in_index = 1"
        );
        let found = catalogue::texts(&mut connection, &sql).await;
        found.map_err(|error| errors::database(during.as_str(), &error))
    }
}

/// One prepared statement: the server lets no second one through.
async fn texts(connection: &mut MySqlConnection, sql: &str) -> Result<Answer, sqlx::Error> {
    let rows = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(connection).await?;
    let text = |row, at| wire::raw(row, at).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    Ok(rows.iter().map(|row| (0..row.len()).map(|at| text(row, at)).collect()).collect())
}
