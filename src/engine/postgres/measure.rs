//! Totals, counts and scalars of PostgreSQL.

use sqlx::postgres::PgConnection;
use sqlx::{Executor, Row};

use super::errors::{engine_error, filter_error, query_error, unaccepted_query};
use super::exact::is_money;
use super::path::{login_path, with_path};
use super::session::{ask, unnamed};
use super::statement::{from, ident, literal};
use super::{PgEngine, live, run, scan};
use crate::engine::EngineError;
use crate::engine::measure::{self, Dialect};
use crate::model::measure::{Axis, Counts, MeasuredColumn, Misfit, Question, Range, Totals};
use crate::model::scalar::{Scalar, ScalarClass};
use crate::model::temporal::{date_text, timestamp_text};
use crate::model::{Answer, ColumnType, TableAccess, TableName};

#[derive(Debug, Clone, Copy, Default)]
pub(in crate::engine) struct Postgres {
    /// Other tables inherit from the table, whose rows are none of its own.
    pub only: bool,
}

/// A literal of the column's own type, so that its index is used.
fn point(ty: &ColumnType, at: i128) -> String {
    match ty {
        ColumnType::Date => format!("DATE '{}'", date_text(i32::try_from(at).unwrap_or(i32::MAX - 1))),
        ColumnType::Timestamp { .. } => format!("TIMESTAMP '{}'", moment(at, "")),
        ColumnType::TimestampTz { .. } => format!("TIMESTAMPTZ '{}'", moment(at, "+00")),
        _ if at < 0 => format!("({at})"),
        _ => at.to_string(),
    }
}

fn moment(at: i128, zone: &str) -> String {
    let text = timestamp_text(i64::try_from(at).unwrap_or(i64::MAX - 1));
    match text.strip_suffix(" BC") {
        Some(text) => format!("{text}{zone} BC"),
        None => format!("{text}{zone}"),
    }
}

/// A value is this or its negative.
fn either(value: &str, is: &str) -> String {
    format!("({value} OPERATOR(pg_catalog.=) '{is}' OR {value} OPERATOR(pg_catalog.=) '-{is}')")
}

// Operators and functions are the server's own by name: beside a condition of the user's, the login's search path holds.
impl Dialect for Postgres {
    fn quote(&self, name: &str) -> String {
        ident(name)
    }

    fn literal(&self, text: &str) -> String {
        literal(text)
    }

    fn table(&self, name: &TableName) -> String {
        format!("{} t", from(name, self.only))
    }

    fn condition(&self, range: &Range) -> String {
        let name = ident(&range.column.name);
        let ty = &range.column.ty;
        let is_time = ty.axis() != Some(Axis::Integer);
        let mut ends = Vec::with_capacity(2);
        match range.from {
            Some(from) => ends.push(format!("{name} OPERATOR(pg_catalog.>=) {}", point(ty, from))),
            None if is_time => ends.push(format!("{name} OPERATOR(pg_catalog.>) '-infinity'")),
            None => {}
        }
        match range.to {
            Some(to) => ends.push(format!("{name} OPERATOR(pg_catalog.<) {}", point(ty, to))),
            None if is_time => ends.push(format!("{name} OPERATOR(pg_catalog.<) 'infinity'")),
            None => {}
        }
        if ends.is_empty() {
            ends.push(format!("{name} IS NOT NULL"));
        }
        format!("({})", ends.join(" AND "))
    }

    fn unit_number(&self, column: &MeasuredColumn, origin: i128, unit: u64, wide: bool) -> String {
        let name = ident(&column.name);
        let origin = point(&column.ty, origin);
        match column.ty.axis() {
            Some(Axis::Integer) if wide => {
                format!("pg_catalog.div({name}::numeric OPERATOR(pg_catalog.-) {origin}, {unit})")
            }
            Some(Axis::Integer) => {
                format!(
                    "(({name}::int8 OPERATOR(pg_catalog.-) {origin}::int8) OPERATOR(pg_catalog./) {unit})"
                )
            }
            Some(Axis::Days) => {
                format!("(({name} OPERATOR(pg_catalog.-) {origin}) OPERATOR(pg_catalog./) {unit})")
            }
            _ => format!(
                "(pg_catalog.floor(extract(epoch FROM ({name} OPERATOR(pg_catalog.-) {origin})))::int8 OPERATOR(pg_catalog./) {unit})"
            ),
        }
    }

    fn summand(&self, column: &MeasuredColumn) -> Option<String> {
        let name = ident(&column.name);
        Some(match column.ty {
            ColumnType::Bool => format!("{name}::int4"),
            ColumnType::Int { .. } => name,
            ColumnType::Decimal { .. } => format!("{name}::numeric"),
            ColumnType::Float { .. } => format!("{name}::float8"),
            _ => return None,
        })
    }

    fn sum(&self, column: &MeasuredColumn, summand: &str, scale: Option<u32>) -> String {
        match (&column.ty, scale) {
            (ColumnType::Decimal { .. }, Some(scale)) => {
                format!("pg_catalog.sum(pg_catalog.round({summand}, {scale}))")
            }
            _ => format!("pg_catalog.sum({summand})"),
        }
    }

    /// A double is the whole number of its 53 bits times a power of two: a sum for each power has no rounding.
    fn float_sum(&self, column: &MeasuredColumn, rows: &str) -> String {
        let name = ident(&column.name);
        format!(
            "(SELECT pg_catalog.string_agg(s.m::text || '@' || s.e::text, ',') FROM (SELECT \
               pg_catalog.sum(((x.b & 4503599627370495) + CASE WHEN ((x.b >> 52) & 2047) > 0 THEN 4503599627370496 ELSE 0 END) \
                 * CASE WHEN x.b < 0 THEN -1 ELSE 1 END) AS m, \
               (CASE WHEN ((x.b >> 52) & 2047) > 0 THEN (x.b >> 52) & 2047 ELSE 1 END) - 1075 AS e FROM (SELECT \
               ('x' || pg_catalog.encode(pg_catalog.float8send({name}::float8), 'hex'))::bit(64)::int8 AS b {rows} OFFSET 0) x \
               WHERE ((x.b >> 52) & 2047) < 2047 GROUP BY 2) s)"
        )
    }

    fn misfit(&self, column: &MeasuredColumn, kind: Misfit) -> Option<String> {
        let name = ident(&column.name);
        match (kind, &column.ty) {
            (Misfit::Null, _) => Some(format!("{name} IS NULL")),
            (
                Misfit::Infinite,
                ColumnType::Date | ColumnType::Timestamp { .. } | ColumnType::TimestampTz { .. },
            ) => Some(either(&name, "infinity")),
            (Misfit::Infinite, ColumnType::Float { .. }) => Some(either(&name, "Infinity")),
            // Before release 14 a numeric has no infinity, and no literal of one.
            (Misfit::Infinite, ColumnType::Decimal { scale: None, .. }) => {
                Some(either(&format!("{name}::text"), "Infinity"))
            }
            // Every money is a number, and 'NaN' is none.
            (Misfit::Unreadable, ty) if is_money(ty) => None,
            (Misfit::Unreadable, ColumnType::Float { .. } | ColumnType::Decimal { .. }) => {
                Some(format!("{name} OPERATOR(pg_catalog.=) 'NaN'"))
            }
            _ => None,
        }
    }

    fn ordered(&self, column: &MeasuredColumn) -> String {
        self.summand(column).unwrap_or_else(|| ident(&column.name))
    }

    fn shown(&self, _: &MeasuredColumn, extreme: &str) -> String {
        extreme.to_owned()
    }

    fn aggregates(&self) -> &'static str {
        "pg_catalog."
    }

    fn bytes_of(&self, column: &MeasuredColumn) -> String {
        let name = ident(&column.name);
        match column.ty {
            ColumnType::Text { .. } => format!("{name}::text COLLATE \"C\""),
            // These types have no equality of their own, or not everywhere.
            ColumnType::Json | ColumnType::Named(_) => format!("{name}::text"),
            _ => name,
        }
    }

    fn text(&self, expression: &str) -> String {
        format!("({expression})::text")
    }
}

impl PgEngine {
    pub(super) async fn ask(&self, question: &Question) -> Result<Answer, EngineError> {
        let (during, table) = match question {
            Question::Totals(totals) => (format!("measure {}", totals.table), Some(&totals.table)),
            Question::Counts(counts) => (format!("count rows of {}", counts.table), Some(&counts.table)),
            Question::Indexed { table, column } => return self.indexed(table, column).await,
            Question::Scalar { .. } => ("run the check's query".to_owned(), None),
        };
        let mut connection = self.reading(&during).await?;
        let relation = match table {
            Some(table) => live::find(&mut connection, table).await?,
            None => None,
        };
        let dialect = Postgres { only: relation.as_ref().is_some_and(live::Relation::is_parent) };
        // The table that was found is the one that is read.
        let found = |name: &TableName| relation.as_ref().map_or_else(|| name.clone(), |it| it.table.clone());
        let (sql, filter) = match question {
            Question::Totals(totals) => {
                let totals = Totals { table: found(&totals.table), ..totals.clone() };
                (measure::totals(&dialect, &totals)?, totals.filter)
            }
            Question::Counts(counts) => {
                let counts = Counts { table: found(&counts.table), ..counts.clone() };
                (measure::counts(&dialect, &counts)?, counts.filter)
            }
            // Without OFFSET the query could be run once for each of the two columns.
            Question::Scalar { sql } => (
                format!(
                    "SELECT pg_catalog.pg_typeof(s.v)::text, s.v::text FROM (SELECT {} AS v OFFSET 0) s",
                    measure::scalar(sql)
                ),
                None,
            ),
            Question::Indexed { .. } => return Ok(Vec::new()),
        };
        let free = filter.is_some() || matches!(question, Question::Scalar { .. });
        if let Question::Scalar { sql } = question {
            // The query is all the user's own: its names are found by the login's path.
            let path = with_path(&login_path(&mut connection, &during).await?);
            run(&mut connection, &during, &path).await?;
            alone(&mut connection, sql, &during).await?;
        }
        if let (Some(relation), Some(filter)) = (&relation, filter.clone()) {
            let access = TableAccess {
                table: relation.table.clone(),
                columns: Vec::new(),
                key_len: 0,
                filter: Some(filter),
            };
            scan::check_filter(&mut connection, &self.paths, relation, &access, &during).await?;
        }
        let answer = texts(&mut connection, &sql).await.map_err(|error| match free {
            true if filter.is_none() => query_error(during.as_str(), &error),
            true => filter_error(during.as_str(), &error),
            false => engine_error(during.as_str(), &error),
        })?;
        run(&mut connection, &during, "ROLLBACK").await?;
        self.release_cleared(connection, free).await;
        Ok(match question {
            Question::Scalar { .. } => scalar(answer),
            _ => answer,
        })
    }

    async fn indexed(&self, name: &TableName, column: &str) -> Result<Answer, EngineError> {
        let during = format!("look for an index of {name}");
        let mut connection = self.reading(&during).await?;
        let oid = live::find(&mut connection, name).await?.map_or(0, |relation| relation.oid);
        let sql = format!(
            "SELECT CASE WHEN EXISTS (SELECT 1 FROM pg_catalog.pg_index i \
               JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
               WHERE i.indrelid = {oid}::oid AND i.indisvalid AND i.indpred IS NULL \
                 AND a.attname = {}) THEN '1' ELSE '0' END",
            literal(column)
        );
        let rows = ask(&mut connection, sql).await.map_err(|error| engine_error(during.as_str(), &error))?;
        let found = rows.first().map(|row| live::get::<String>(row, 0)).transpose()?;
        self.done(connection, &during).await?;
        Ok(vec![vec![found]])
    }
}

/// The user's query is prepared as it stands before it is put into one of ours: what is no whole query without our parentheses
/// could close them. The protocol of statements with parameters takes a single one only.
async fn alone(connection: &mut PgConnection, sql: &str, during: &str) -> Result<(), EngineError> {
    let sql = format!("EXPLAIN {}\n", measure::query(sql));
    connection.fetch_all(unnamed(sql)).await.map_err(|error| unaccepted_query(during, &error))?;
    Ok(())
}

/// A type's name and a value's text as a scalar. Bytes are told as hex digits.
fn scalar(answer: Answer) -> Answer {
    let Some([Some(ty), text]) = answer.first().map(Vec::as_slice) else { return answer };
    let class = match ty.as_str() {
        "boolean" => ScalarClass::Boolean,
        "smallint" | "integer" | "bigint" | "numeric" | "oid" => ScalarClass::Number,
        "real" => ScalarClass::ShortFloat,
        "double precision" => ScalarClass::Float,
        "date" => ScalarClass::Date,
        "timestamp without time zone" => ScalarClass::Timestamp,
        "timestamp with time zone" => ScalarClass::TimestampTz,
        "bytea" => ScalarClass::Bytes,
        _ => ScalarClass::Text,
    };
    let hex = |text: &String| text.strip_prefix("\\x").unwrap_or(text).to_owned();
    let text = if class == ScalarClass::Bytes { text.as_ref().map(hex) } else { text.clone() };
    Scalar { class, text }.answer()
}

/// One statement by itself: its protocol lets no second one through.
async fn texts(connection: &mut PgConnection, sql: &str) -> Result<Answer, sqlx::Error> {
    let rows = connection.fetch_all(unnamed(sql.to_owned())).await?;
    rows.iter().map(|row| (0..row.len()).map(|at| row.try_get(at)).collect()).collect()
}
