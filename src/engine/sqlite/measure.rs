//! Totals, counts and scalars of SQLite. Its times are text and its decimals doubles: functions of our own read them as
//! the canonical encoding does, so that a row is in a range exactly if its compared value is, and sums are exact.

use bigdecimal::BigDecimal;
use rusqlite::functions::{Aggregate as SqlAggregate, Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error};

use super::errors::engine_error;
use super::params::quote;
use super::stored::Stored;
use super::types::midnight_of;
use super::{SqliteEngine, stable};
use crate::engine::measure::{self, Dialect};
use crate::engine::{EngineError, ErrorKind};
use crate::model::decimal::Decimal;
use crate::model::float_sum::FloatSum;
use crate::model::measure::{Axis, MeasuredColumn, Misfit, Question, Range};
use crate::model::scalar::{Scalar, ScalarClass};
use crate::model::temporal::{
    MICROS_PER_DAY, date_text, days_from_civil, parse_date, parse_timestamp, timestamp_text,
};
use crate::model::value::hex;
use crate::model::{Answer, TableName};

#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Sqlite;

/// Added to every connection: filters of plans use them too.
pub(super) fn add_functions(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("trueup_micros", 1, flags, |context| {
        Ok(text_of(context).and_then(parse_timestamp).map(|(micros, _)| micros))
    })?;
    connection.create_scalar_function("trueup_days", 1, flags, |context| {
        Ok(text_of(context).and_then(|text| parse_date(text).or_else(|| midnight_of(text))))
    })?;
    connection.create_scalar_function("trueup_timestamp", 1, flags, |context| {
        Ok(context.get::<Option<i64>>(0)?.map(timestamp_text))
    })?;
    connection.create_scalar_function("trueup_date", 1, flags, |context| {
        Ok(context.get::<Option<i32>>(0)?.map(date_text))
    })?;
    connection.create_scalar_function("trueup_unit", 3, flags, |context| {
        let text = |at: usize| context.get::<String>(at)?.parse::<i128>().map_err(|_| no_number());
        let (origin, unit) = (text(1)?, text(2)?.max(1));
        Ok(match context.get_raw(0) {
            ValueRef::Integer(value) => i64::try_from((i128::from(value) - origin).div_euclid(unit)).ok(),
            _ => None,
        })
    })?;
    connection.create_aggregate_function("trueup_sum", 2, flags, ExactSum)?;
    connection.create_aggregate_function("trueup_float_sum", 1, flags, ExactFloatSum)
}

fn text_of<'c>(context: &'c Context<'_>) -> Option<&'c str> {
    match context.get_raw(0) {
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

/// The sum of a column's canonical decimals, as text: a double's shortest form, as it is compared. The second argument
/// is the scale that each is rounded to, or NULL.
struct ExactSum;

#[derive(Default)]
struct Sum {
    integers: i128,
    decimals: BigDecimal,
    /// A sum of no value is NULL.
    any: bool,
}

const NO_NUMBER: &str = "the column holds a value that is no finite number";

fn no_number() -> Error {
    Error::UserFunctionError(NO_NUMBER.into())
}

impl SqlAggregate<Sum, Option<String>> for ExactSum {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Sum> {
        Ok(Sum::default())
    }

    fn step(&self, context: &mut Context<'_>, sum: &mut Sum) -> rusqlite::Result<()> {
        let scale = context.get::<Option<u32>>(1)?;
        let decimal = match context.get_raw(0) {
            ValueRef::Null => return Ok(()),
            ValueRef::Integer(value) => {
                sum.any = true;
                sum.integers += i128::from(value);
                return Ok(());
            }
            ValueRef::Real(value) => Decimal::from_f64(value),
            ValueRef::Text(bytes) => {
                std::str::from_utf8(bytes).ok().and_then(Decimal::parse).ok_or_else(no_number)?
            }
            ValueRef::Blob(_) => return Err(no_number()),
        };
        let rounded = match scale {
            Some(scale) => decimal.rounded(scale),
            None => decimal,
        };
        sum.any = true;
        sum.decimals += rounded.to_string().parse::<BigDecimal>().map_err(|_| no_number())?;
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, sum: Option<Sum>) -> rusqlite::Result<Option<String>> {
        Ok(sum
            .filter(|sum| sum.any)
            .map(|sum| (sum.decimals + BigDecimal::from(sum.integers)).to_plain_string()))
    }
}

/// The exact sum of doubles, without those that are not finite.
struct ExactFloatSum;

impl SqlAggregate<FloatSum, Option<String>> for ExactFloatSum {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<FloatSum> {
        Ok(FloatSum::default())
    }

    fn step(&self, context: &mut Context<'_>, sum: &mut FloatSum) -> rusqlite::Result<()> {
        match context.get_raw(0) {
            ValueRef::Null => {}
            ValueRef::Integer(value) => sum.add_int(value),
            ValueRef::Real(value) => sum.add(value),
            ValueRef::Text(_) | ValueRef::Blob(_) => return Err(no_number()),
        }
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, sum: Option<FloatSum>) -> rusqlite::Result<Option<String>> {
        Ok(sum.and_then(|sum| sum.to_text()))
    }
}

/// A day's text, one day further than the range goes: offsets in the text move a moment by less than that. `None` beyond
/// the years that text keeps in order.
fn day_beside(days: i128, by: i128) -> Option<String> {
    let (low, high) = (days_from_civil(1, 1, 1)?, days_from_civil(9999, 12, 30)?);
    let day = i32::try_from(days + by).ok()?;
    (low..=high).contains(&day).then(|| format!("'{}'", date_text(day)))
}

fn number(at: i128) -> String {
    if at < 0 { format!("({at})") } else { at.to_string() }
}

/// The axis value of a column.
fn value(column: &MeasuredColumn) -> String {
    let name = quote(&column.name);
    match column.ty.axis() {
        Some(Axis::Days) => format!("trueup_days({name})"),
        Some(Axis::Micros) => format!("trueup_micros({name})"),
        _ => name,
    }
}

impl Dialect for Sqlite {
    fn quote(&self, name: &str) -> String {
        quote(name)
    }

    fn literal(&self, text: &str) -> String {
        Stored::text(text).literal()
    }

    fn table(&self, table: &TableName) -> String {
        quote(&table.name)
    }

    fn condition(&self, range: &Range) -> String {
        let (name, value) = (quote(&range.column.name), value(&range.column));
        let per_day = match range.column.ty.axis() {
            Some(Axis::Days) => 1,
            Some(Axis::Micros) => i128::from(MICROS_PER_DAY),
            _ => 0,
        };
        let mut all = Vec::new();
        if per_day > 0 {
            // What an index on the text can narrow.
            let low = range.from.and_then(|from| day_beside(from.div_euclid(per_day), -1));
            let high = range.to.and_then(|to| day_beside(to.div_euclid(per_day), 2));
            all.extend(low.map(|low| format!("{name} >= {low}")));
            all.extend(high.map(|high| format!("{name} < {high}")));
            all.push(format!("{value} IS NOT NULL"));
        } else {
            all.push(format!("typeof({name}) IN ('integer', 'real')"));
            // An end bounds infinity too.
            all.extend(range.from.is_none().then(|| format!("{name} > -9e999")));
            all.extend(range.to.is_none().then(|| format!("{name} < 9e999")));
        }
        all.extend(range.from.map(|from| format!("{value} >= {}", number(from))));
        all.extend(range.to.map(|to| format!("{value} < {}", number(to))));
        format!("({})", all.join(" AND "))
    }

    fn unit_number(&self, column: &MeasuredColumn, origin: i128, unit: u64, wide: bool) -> String {
        if wide {
            return format!("trueup_unit({}, '{origin}', '{unit}')", value(column));
        }
        let width = match column.ty.axis() {
            Some(Axis::Micros) => u128::from(unit) * 1_000_000,
            _ => u128::from(unit),
        };
        format!("CAST(({} - {}) / {width} AS INTEGER)", value(column), number(origin))
    }

    fn summand(&self, column: &MeasuredColumn) -> Option<String> {
        measure::has_sum(&column.ty).then(|| quote(&column.name))
    }

    fn sum(&self, _: &MeasuredColumn, summand: &str, scale: Option<u32>) -> String {
        let scale = scale.map_or_else(|| "NULL".to_owned(), |scale| scale.to_string());
        format!("trueup_sum({summand}, {scale})")
    }

    fn float_sum(&self, column: &MeasuredColumn, rows: &str) -> String {
        format!("(SELECT trueup_float_sum({}) {rows})", quote(&column.name))
    }

    /// A value is of the class that it was stored as, whatever the column was declared as.
    fn misfit(&self, column: &MeasuredColumn, kind: Misfit) -> Option<String> {
        let name = quote(&column.name);
        let is_time = matches!(column.ty.axis(), Some(Axis::Days | Axis::Micros));
        let is_number = measure::has_sum(&column.ty);
        match kind {
            Misfit::Null => Some(format!("{name} IS NULL")),
            Misfit::Unreadable if is_time => {
                Some(format!("({name} IS NOT NULL AND {} IS NULL)", value(column)))
            }
            Misfit::Unreadable if is_number => {
                Some(format!("({name} IS NOT NULL AND typeof({name}) NOT IN ('integer', 'real'))"))
            }
            Misfit::Infinite if is_number => {
                Some(format!("(typeof({name}) = 'real' AND abs({name}) = 9e999)"))
            }
            _ => None,
        }
    }

    fn ordered(&self, column: &MeasuredColumn) -> String {
        value(column)
    }

    fn shown(&self, column: &MeasuredColumn, extreme: &str) -> String {
        match column.ty.axis() {
            Some(Axis::Days) => format!("trueup_date({extreme})"),
            Some(Axis::Micros) => format!("trueup_timestamp({extreme})"),
            _ => extreme.to_owned(),
        }
    }

    fn bytes_of(&self, column: &MeasuredColumn) -> String {
        format!("{} COLLATE BINARY", quote(&column.name))
    }

    /// The driver tells the class of each value.
    fn text(&self, expression: &str) -> String {
        expression.to_owned()
    }
}

impl SqliteEngine {
    pub(super) async fn ask(&self, question: &Question) -> Result<Answer, EngineError> {
        let (during, sql) = match question {
            Question::Totals(totals) => {
                (format!("measure {}", totals.table), measure::totals(&Sqlite, totals)?)
            }
            Question::Counts(counts) => {
                (format!("count rows of {}", counts.table), measure::counts(&Sqlite, counts)?)
            }
            Question::Scalar { sql } => {
                ("run the check's query".to_owned(), format!("SELECT * FROM {}", measure::scalar(sql)))
            }
            Question::Indexed { table, column } => {
                (format!("look for an index of {table}"), indexed(table, column))
            }
        };
        // A query of the user's own is prepared as it stands too, before it is put into one of ours.
        let query = match question {
            Question::Scalar { sql } => Some(measure::query(sql).to_owned()),
            _ => None,
        };
        let bare = measure::bare(&Sqlite, question);
        let is_scalar = matches!(question, Question::Scalar { .. });
        self.blocking("read", move |engine| {
            let connection = engine.open(false)?;
            if let Some(bare) = bare {
                connection.prepare(&bare).map_err(|error| engine_error(&during, &error))?;
                stable::check(&connection, &bare, "the filter", &during)?;
            }
            if let Some(query) = query {
                let prepared = connection.prepare(&query).map(drop);
                prepared.map_err(|error| measure::of_query(engine_error(&during, &error)))?;
            }
            if is_scalar {
                scalar(&connection, &sql, &during).map_err(measure::of_query)
            } else {
                texts(&connection, &sql, &during)
            }
        })
        .await
    }
}

/// The rowid's own column needs no index.
fn indexed(table: &TableName, column: &str) -> String {
    let text = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let (table, column) = (text(&table.name), text(column));
    format!(
        "SELECT EXISTS (SELECT 1 FROM pragma_index_list({table}) l, pragma_index_info(l.name) i \
           WHERE l.partial = 0 AND i.seqno = 0 AND i.name = {column} COLLATE NOCASE) \
         OR EXISTS (SELECT 1 FROM pragma_table_info({table}) c \
           WHERE c.pk = 1 AND upper(c.type) = 'INTEGER' AND c.name = {column} COLLATE NOCASE)"
    )
}

/// The one value with the class that it has.
fn scalar(connection: &Connection, sql: &str, during: &str) -> Result<Answer, EngineError> {
    let failed = |error: Error| engine_error(during, &error);
    let beyond = |what: &str| Err(EngineError::new(ErrorKind::Filter, during, what));
    let mut statement = connection.prepare(sql).map_err(failed)?;
    if statement.column_count() != 1 {
        return beyond("the query gives more than one column");
    }
    let mut rows = statement.query([]).map_err(failed)?;
    let Some(row) = rows.next().map_err(failed)? else {
        return Ok(Scalar { class: ScalarClass::UntypedText, text: None }.answer());
    };
    let (class, text) = match row.get_ref(0).map_err(failed)? {
        ValueRef::Null => (ScalarClass::UntypedText, None),
        ValueRef::Integer(value) => (ScalarClass::Number, Some(value.to_string())),
        ValueRef::Real(value) => (ScalarClass::Float, Some(Decimal::from_f64(value).to_string())),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => (ScalarClass::UntypedText, Some(text.to_owned())),
            Err(_) => (ScalarClass::BrokenText, Some(hex(bytes))),
        },
        ValueRef::Blob(bytes) => (ScalarClass::Bytes, Some(hex(bytes))),
    };
    if rows.next().map_err(failed)?.is_some() {
        return beyond("the query gives more than one row");
    }
    Ok(Scalar { class, text }.answer())
}

fn texts(connection: &Connection, sql: &str, during: &str) -> Result<Answer, EngineError> {
    let failed = |error: Error| match &error {
        Error::SqliteFailure(_, Some(message)) if message == NO_NUMBER => {
            EngineError::new(ErrorKind::Row, during, message.clone())
        }
        error => engine_error(during, error),
    };
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let width = statement.column_count();
    let mut rows = statement.query([]).map_err(failed)?;
    let mut answer = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let mut texts = Vec::with_capacity(width);
        for at in 0..width {
            texts.push(match row.get_ref(at).map_err(failed)? {
                ValueRef::Null => None,
                ValueRef::Integer(value) => Some(value.to_string()),
                ValueRef::Real(value) => Some(Decimal::from_f64(value).to_string()),
                ValueRef::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
                ValueRef::Blob(bytes) => Some(hex(bytes)),
            });
        }
        answer.push(texts);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ColumnType;

    fn one(sql: &str) -> Option<String> {
        let connection = Connection::open_in_memory().unwrap();
        add_functions(&connection).unwrap();
        texts(&connection, sql, "test").unwrap().remove(0).remove(0)
    }

    #[test]
    fn sums_are_exact() {
        let tenths = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)";
        assert_eq!(one(&format!("{tenths} SELECT trueup_sum(0.1, NULL) FROM n")).as_deref(), Some("100.0"));
        let mixed = "FROM (SELECT 1e16 x UNION ALL SELECT 0.5)";
        assert_eq!(
            one(&format!("SELECT trueup_sum(x, NULL) {mixed}")).as_deref(),
            Some("10000000000000000.5")
        );
        assert_eq!(one(&format!("SELECT SUM(x) {mixed}")).as_deref(), Some("10000000000000000"));
        let large = "SELECT trueup_sum(x, NULL) FROM (SELECT 9223372036854775807 x UNION ALL SELECT 9223372036854775806)";
        assert_eq!(one(large).as_deref(), Some("18446744073709551613"));
        assert_eq!(one("SELECT trueup_sum(1.005, 2)").as_deref(), Some("1.01"));
        assert_eq!(one("SELECT trueup_sum(NULL, 2)"), None);
        assert_eq!(one("SELECT trueup_sum('12.5', NULL)").as_deref(), Some("12.5"));
        let connection = Connection::open_in_memory().unwrap();
        add_functions(&connection).unwrap();
        assert!(texts(&connection, "SELECT trueup_sum('x', NULL)", "t").is_err());
    }

    #[test]
    fn times_are_read_as_they_are_compared() {
        assert_eq!(one("SELECT trueup_micros('1970-01-01T02:00:00+02:00')").as_deref(), Some("0"));
        assert_eq!(one("SELECT trueup_micros('1970-01-01')").as_deref(), Some("0"));
        assert_eq!(one("SELECT trueup_micros(5)"), None);
        assert_eq!(
            one("SELECT trueup_timestamp(trueup_micros('2024-02-29 10:00'))").as_deref(),
            Some("2024-02-29 10:00:00")
        );
        assert_eq!(one("SELECT trueup_date(trueup_days('2024-02-29'))").as_deref(), Some("2024-02-29"));
    }

    #[test]
    fn the_range_that_an_index_serves_loses_no_row() {
        let column = MeasuredColumn { name: "at".to_owned(), ty: ColumnType::Timestamp { digits: 6 } };
        let hour = 3_600_000_000i128;
        let day = i128::from(MICROS_PER_DAY);
        // One hour at each end of 2024-03-31, written in every way that is read.
        for (from, text, inside) in [
            (19_813 * day, "2024-03-31", true),
            (19_813 * day, "2024-03-31T00:30", true),
            (19_813 * day, "2024-03-30 23:30:00-00:45", true),
            (19_813 * day, "2024-03-31 15:30:00+15:00", true),
            (19_813 * day, "2024-03-30 09:30:00-15:00", true),
            (19_813 * day, "2024-03-31 01:00:00", false),
            (19_813 * day, "2024-03-30 23:59:59.999999", false),
            (19_813 * day + 23 * hour, "2024-04-01 14:59:59.5+15:00", true),
            (19_813 * day + 23 * hour, "2024-04-01", false),
            (19_813 * day, "nonsense", false),
        ] {
            let range = Range { column: column.clone(), from: Some(from), to: Some(from + hour) };
            let condition = Sqlite.condition(&range);
            let found = one(&format!("SELECT {condition} FROM (SELECT '{text}' AS at)"));
            assert_eq!(found.as_deref() == Some("1"), inside, "{text}: {condition}");
        }
    }
}
