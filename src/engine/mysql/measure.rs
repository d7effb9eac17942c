//! Totals, counts and scalars of MySQL and MariaDB.

use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{
    AssertSqlSafe, Column as _, Connection as _, Executor as _, Row as _, SqlSafeStr as _, TypeInfo as _,
};

use super::catalogue::{self, column_named, of_table};
use super::session::execute;
use super::statement::{quote, quote_table, quoted};
use super::{MySqlEngine, errors, stable, wire};
use crate::engine::EngineError;
use crate::engine::measure::{self, Dialect};
use crate::model::measure::{Axis, MeasuredColumn, Misfit, Question, Range};
use crate::model::scalar::{Scalar, ScalarClass};
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

/// The first and the last point of a type that a literal can say.
fn literal_ends(ty: &ColumnType) -> (i128, i128) {
    let (low, high) = days_ends();
    (low * per_day(ty), (high + 1) * per_day(ty) - 1)
}

fn point(ty: &ColumnType, at: i128) -> String {
    let (low, high) = literal_ends(ty);
    let at_time = at.clamp(low, high);
    match ty.axis() {
        Some(Axis::Days) => format!("DATE'{}'", date_text(i32::try_from(at_time).unwrap_or(0))),
        Some(Axis::Micros) => format!("TIMESTAMP'{}'", timestamp_text(i64::try_from(at_time).unwrap_or(0))),
        _ if at < 0 => format!("({at})"),
        _ => at.to_string(),
    }
}

/// Dates that no calendar has stand among the others; a TIMESTAMP has none but that of zeros.
fn has_odd_dates(ty: &ColumnType) -> bool {
    matches!(ty, ColumnType::Date | ColumnType::Timestamp { .. })
}

impl Dialect for MySql {
    fn quote(&self, name: &str) -> String {
        quote(name)
    }

    fn literal(&self, text: &str) -> String {
        quoted(text)
    }

    fn table(&self, table: &TableName) -> String {
        quote_table(table)
    }

    fn condition(&self, range: &Range) -> String {
        let name = quote(&range.column.name);
        let ty = &range.column.ty;
        let is_time = ty.axis() != Some(Axis::Integer);
        let (low, high) = literal_ends(ty);
        let mut ends = Vec::with_capacity(2);
        match range.from {
            Some(from) if is_time && from > high => ends.push("1 = 0".to_owned()),
            Some(from) => ends.push(format!("{name} >= {}", point(ty, from))),
            // Zero dates are below every date of a calendar.
            None if is_time => ends.push(format!("{name} >= {}", point(ty, low))),
            None => {}
        }
        match range.to {
            // Beyond what a literal can say there is nothing.
            Some(to) if is_time && to > high => {}
            Some(to) => ends.push(format!("{name} < {}", point(ty, to))),
            None => {}
        }
        if ends.is_empty() {
            ends.push(format!("{name} IS NOT NULL"));
        }
        if has_odd_dates(ty) {
            ends.push(format!("MONTH({name}) > 0 AND DAYOFMONTH({name}) > 0"));
        }
        format!("({})", ends.join(" AND "))
    }

    fn unit_number(&self, column: &MeasuredColumn, origin: i128, unit: u64, wide: bool) -> String {
        let name = quote(&column.name);
        // What lies between an origin that no literal can say, and the first one that one can.
        let skipped =
            if column.ty.axis() == Some(Axis::Integer) { 0 } else { literal_ends(&column.ty).0 - origin };
        let skipped = match skipped.max(0) / if per_day(&column.ty) == 1 { 1 } else { 1_000_000 } {
            0 => String::new(),
            skipped => format!(" + {skipped}"),
        };
        let origin = point(&column.ty, origin);
        match column.ty.axis() {
            Some(Axis::Integer) if wide => {
                format!("((CAST({name} AS DECIMAL(30, 0)) - {origin}) DIV {unit})")
            }
            Some(Axis::Integer) => format!("(({name} - {origin}) DIV {unit})"),
            Some(Axis::Days) => format!("((DATEDIFF({name}, {origin}){skipped}) DIV {unit})"),
            _ => format!("((TIMESTAMPDIFF(SECOND, {origin}, {name}){skipped}) DIV {unit})"),
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

    /// A double times a power of two that makes it whole is exact, and so is the whole number as a BIGINT: a sum for each
    /// power has no rounding. The power goes in two factors, since one alone can be beyond a double. LOG2 may be one
    /// too large beside a power of two; the two bits that are spare take that up.
    fn float_sum(&self, column: &MeasuredColumn, rows: &str) -> String {
        let name = quote(&column.name);
        format!(
            "(SELECT GROUP_CONCAT(CONCAT(m, '@', -s) SEPARATOR ',') FROM (SELECT s, \
               SUM(CAST(v * POW(2, s DIV 2) * POW(2, s - s DIV 2) AS SIGNED)) AS m FROM (SELECT v, \
               54 - GREATEST(CAST(COALESCE(FLOOR(LOG2(ABS(v))), -1074) AS SIGNED), -1074) AS s FROM (SELECT \
               ({name} + 0e0) AS v {rows}) a) b GROUP BY s) c)"
        )
    }

    fn misfit(&self, column: &MeasuredColumn, kind: Misfit) -> Option<String> {
        let name = quote(&column.name);
        match (kind, &column.ty) {
            (Misfit::Null, _) => Some(format!("{name} IS NULL")),
            (Misfit::Unreadable, ty) if has_odd_dates(ty) => Some(format!(
                "({name} IS NOT NULL AND (COALESCE(MONTH({name}), 0) = 0 OR COALESCE(DAYOFMONTH({name}), 0) = 0 \
                 OR {name} < {}))",
                point(ty, days_ends().0 * per_day(ty))
            )),
            (Misfit::Unreadable, ty @ ColumnType::TimestampTz { .. }) => {
                Some(format!("{name} < {}", point(ty, days_ends().0 * per_day(ty))))
            }
            _ => None,
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
            // The value as it stands has its type, which none of the others has.
            Question::Scalar { sql } => (
                "run the check's query".to_owned(),
                format!(
                    "SELECT s.v, CAST(s.v AS CHAR), HEX(s.v), CHARSET(s.v) FROM (SELECT {} AS v) s",
                    measure::scalar(sql)
                ),
                true,
            ),
        };
        // A connection of its own: one that failed halfway must not come back with its transaction.
        let mut connection = self.target.connect().await?;
        execute(&mut connection, "START TRANSACTION READ ONLY")
            .await
            .map_err(|error| errors::database(during.as_str(), &error))?;
        // The parts of an exact sum are longer than what a server may cut it off at.
        execute(&mut connection, "SET SESSION group_concat_max_len = 1048576")
            .await
            .map_err(|error| errors::database(during.as_str(), &error))?;
        if let Some(bare) = measure::bare(&MySql, question) {
            let prepared = (&mut connection).prepare(AssertSqlSafe(bare).into_sql_str()).await;
            prepared.map_err(|error| errors::reading(&during, true, &error))?;
        }
        if let Question::Scalar { sql } = question {
            // As it stands, before it is put into one of ours, whose parentheses it could close.
            let query = AssertSqlSafe(format!("{}\n", measure::query(sql))).into_sql_str();
            let prepared = (&mut connection).prepare(query).await;
            prepared.map_err(|error| measure::of_query(errors::reading(&during, true, &error)))?;
        }
        if let Some(filter) = question.filter() {
            stable::check_filter(&mut connection, &self.facts, filter, &during).await?;
        }
        let rows = read(&mut connection, &sql)
            .await
            .map_err(|error| errors::reading(&during, free, &error))
            .map_err(|error| match question {
                Question::Scalar { .. } => measure::of_query(error),
                _ => error,
            })?;
        drop(connection.close().await);
        Ok(match question {
            Question::Scalar { .. } => scalar(&rows),
            _ => rows.iter().map(|row| (0..row.len()).map(|at| text(row, at)).collect()).collect(),
        })
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
async fn read(connection: &mut MySqlConnection, sql: &str) -> Result<Vec<MySqlRow>, sqlx::Error> {
    sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(connection).await
}

fn text(row: &MySqlRow, at: usize) -> Option<String> {
    wire::raw(row, at).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// A value by its own type; with it came its text, its bytes as hex digits, and the name of its character set.
fn scalar(rows: &[MySqlRow]) -> Answer {
    let [row] = rows else { return Vec::new() };
    let Some(column) = row.columns().first() else { return Vec::new() };
    let name = column.type_info().name();
    let class = match name.trim_end_matches(" UNSIGNED") {
        "BOOLEAN" | "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT" | "DECIMAL" | "YEAR" => {
            ScalarClass::Number
        }
        "FLOAT" => ScalarClass::ShortFloat,
        "DOUBLE" => ScalarClass::Float,
        "DATE" => ScalarClass::Date,
        "DATETIME" => ScalarClass::Timestamp,
        "TIMESTAMP" => ScalarClass::TimestampTz,
        "TIME" | "JSON" | "ENUM" | "SET" => ScalarClass::Text,
        "BIT" | "GEOMETRY" => ScalarClass::Bytes,
        _ if text(row, 3).as_deref() == Some("binary") => ScalarClass::Bytes,
        _ => ScalarClass::Text,
    };
    let shown = if class == ScalarClass::Bytes { 2 } else { 1 };
    let text = match class {
        // Its text has six digits, which are another number.
        ScalarClass::ShortFloat => {
            let bits = wire::raw(row, 0).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
            bits.map(|bits| f32::from_le_bytes(bits).to_string())
        }
        _ => text(row, shown),
    };
    let text = if class == ScalarClass::Bytes { text.map(|hex| hex.to_lowercase()) } else { text };
    Scalar { class, text }.answer()
}
