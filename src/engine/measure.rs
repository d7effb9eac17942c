//! SQL for questions about a table, shared by the engines; each brings its own spelling as a [`Dialect`].
//!
//! Points of a range are numbers here and are written as literals of our own making; nothing that a user typed is in
//! them. Identifiers are quoted. The user's condition stands in parentheses, as in a scan.

use super::{EngineError, ErrorKind};
use crate::model::measure::{
    Aggregate, Axis, Counts, MeasuredColumn, Misfit, Question, Range, Total, Totals, UNITS_MAX,
};
use crate::model::{ColumnType, EngineKind, TableName};

/// How one engine spells what all of them can do.
pub(super) trait Dialect {
    fn quote(&self, name: &str) -> String;

    /// A text as a literal.
    fn literal(&self, text: &str) -> String;

    fn table(&self, table: &TableName) -> String;

    /// The rows of a range, in a form that an index on the column serves.
    fn condition(&self, range: &Range) -> String;

    /// The whole units from `origin` to the column's value, from 0 on. `wide`: the distance is beyond a BIGINT.
    fn unit_number(&self, column: &MeasuredColumn, origin: i128, unit: u64, wide: bool) -> String;

    /// A column as it is summed; `None` where it has no sum.
    fn summand(&self, column: &MeasuredColumn) -> Option<String>;

    /// `SUM`, exact, over an expression; not of floats.
    fn sum(&self, column: &MeasuredColumn, summand: &str, scale: Option<u32>) -> String;

    /// The sum of a float column's finite values as [`crate::model::float_sum`] reads it, by a query of its own. `rows` is
    /// what stands from `FROM` on.
    fn float_sum(&self, column: &MeasuredColumn, rows: &str) -> String;

    /// Which rows' column is such a misfit; `None` where the type has none.
    fn misfit(&self, column: &MeasuredColumn, kind: Misfit) -> Option<String>;

    /// A column of which the smallest and largest are taken.
    fn ordered(&self, column: &MeasuredColumn) -> String;

    /// The smallest or largest of those as the text that others read.
    fn shown(&self, column: &MeasuredColumn, extreme: &str) -> String;

    /// What stands before the name of an aggregate, so that it is the server's own.
    fn aggregates(&self) -> &'static str {
        ""
    }

    /// A key column by its bytes, whatever its collation.
    fn bytes_of(&self, column: &MeasuredColumn) -> String;

    /// An expression as text.
    fn text(&self, expression: &str) -> String;
}

fn unfit(table: &TableName, what: impl Into<String>) -> EngineError {
    EngineError::new(ErrorKind::Usage, format!("measure {table}"), what)
}

pub(super) fn dialect(kind: EngineKind) -> &'static dyn Dialect {
    match kind {
        EngineKind::Postgres => &super::postgres::measure::Postgres { only: false },
        EngineKind::MySql => &super::mysql::measure::MySql,
        EngineKind::Sqlite => &super::sqlite::measure::Sqlite,
    }
}

/// The condition that a plan's filter takes for the rows of a range in a database of this kind.
pub fn condition(kind: EngineKind, range: &Range) -> Result<String, EngineError> {
    if range.column.ty.axis().is_none() {
        return Err(EngineError::new(
            ErrorKind::Usage,
            format!("take a range of column {}", range.column.name),
            "only integers, dates and timestamps have ranges",
        ));
    }
    Ok(dialect(kind).condition(range))
}

fn closed(filter: Option<&str>) -> Option<String> {
    filter.map(|filter| format!("(\n{filter}\n)"))
}

fn where_all(conditions: &[Option<String>]) -> String {
    let all: Vec<&str> = conditions.iter().filter_map(Option::as_deref).collect();
    if all.is_empty() { String::new() } else { format!(" WHERE {}", all.join(" AND ")) }
}

fn check_range(table: &TableName, range: &Range) -> Result<Axis, EngineError> {
    range
        .column
        .ty
        .axis()
        .ok_or_else(|| unfit(table, format!("column {} is no integer, date or timestamp", range.column.name)))
}

/// One `SELECT` with all items; the rows read are those that any item wants, where all ranges are of one column.
pub(super) fn totals(dialect: &dyn Dialect, totals: &Totals) -> Result<String, EngineError> {
    let table = &totals.table;
    if totals.items.is_empty() {
        return Err(unfit(table, "nothing was asked"));
    }
    let mut items = Vec::with_capacity(totals.items.len());
    for item in &totals.items {
        if let Some(range) = &item.within {
            check_range(table, range)?;
        }
        items.push(dialect.text(&aggregate(dialect, totals, item)?));
    }
    if !totals.items.iter().any(reads_rows) {
        return Ok(format!("SELECT {}", items.join(", ")));
    }
    let hull = hull(&totals.items).map(|range| dialect.condition(&range));
    let conditions = where_all(&[closed(totals.filter.as_deref()), hull]);
    Ok(format!("SELECT {} FROM {}{conditions}", items.join(", "), dialect.table(table)))
}

/// Whether an item is of the query's rows; the others have queries of their own.
fn reads_rows(item: &Total) -> bool {
    match &item.what {
        Aggregate::Duplicates(_) | Aggregate::Misfits { alone: true, .. } => false,
        Aggregate::Sum { column, .. } => !matches!(column.ty, ColumnType::Float { .. }),
        _ => true,
    }
}

/// The range that holds those of all items that read the rows themselves.
fn hull(items: &[Total]) -> Option<Range> {
    let mut all = items.iter().filter(|item| reads_rows(item));
    let mut hull = all.next()?.within.clone()?;
    for item in all {
        let range = item.within.as_ref()?;
        if range.column != hull.column {
            return None;
        }
        hull.from = hull.from.zip(range.from).map(|(a, b)| a.min(b));
        hull.to = hull.to.zip(range.to).map(|(a, b)| a.max(b));
    }
    Some(hull)
}

fn aggregate(dialect: &dyn Dialect, totals: &Totals, item: &Total) -> Result<String, EngineError> {
    let within = item.within.as_ref().map(|range| dialect.condition(range));
    let case = |then: &str, more: Option<&str>| {
        let all: Vec<&str> = within.as_deref().into_iter().chain(more).collect();
        if all.is_empty() {
            then.to_owned()
        } else {
            format!("CASE WHEN {} THEN {then} END", all.join(" AND "))
        }
    };
    let from = |more: &[Option<String>]| {
        let mut conditions = vec![closed(totals.filter.as_deref()), within.clone()];
        conditions.extend_from_slice(more);
        format!("FROM {}{}", dialect.table(&totals.table), where_all(&conditions))
    };
    let own = dialect.aggregates();
    Ok(match &item.what {
        Aggregate::Count => format!("{own}COUNT({})", case("1", None)),
        Aggregate::Misfits { column, kind, alone } => match dialect.misfit(column, *kind) {
            None => "0".to_owned(),
            Some(condition) if *alone => format!("(SELECT {own}COUNT(*) {})", from(&[Some(condition)])),
            Some(condition) => format!("{own}COUNT({})", case("1", Some(&condition))),
        },
        Aggregate::Sum { column, .. } if matches!(column.ty, ColumnType::Float { .. }) => {
            dialect.float_sum(column, &from(&[Some(format!("{} IS NOT NULL", dialect.quote(&column.name)))]))
        }
        Aggregate::Sum { column, scale } => {
            let summand = dialect
                .summand(column)
                .ok_or_else(|| unfit(&totals.table, format!("column {} has no sum", column.name)))?;
            dialect.sum(column, &case(&summand, None), *scale)
        }
        Aggregate::Min(column) | Aggregate::Max(column) => {
            if !has_order(&column.ty) {
                return Err(unfit(
                    &totals.table,
                    format!("the order of column {} is not the same in every database", column.name),
                ));
            }
            let function = if matches!(item.what, Aggregate::Min(_)) { "MIN" } else { "MAX" };
            dialect.shown(column, &format!("{own}{function}({})", case(&dialect.ordered(column), None)))
        }
        Aggregate::Duplicates(key) => {
            if key.is_empty() {
                return Err(unfit(&totals.table, "a key without columns"));
            }
            let whole: Vec<Option<String>> =
                key.iter().map(|c| Some(format!("{} IS NOT NULL", dialect.quote(&c.name)))).collect();
            let key: Vec<String> = key.iter().map(|column| dialect.bytes_of(column)).collect();
            format!(
                "(SELECT {own}COUNT(*) FROM (SELECT 1 AS one {} GROUP BY {} HAVING {own}COUNT(*) > 1) doubled)",
                from(&whole),
                key.join(", ")
            )
        }
    })
}

/// Types whose smallest and largest are the same everywhere; text has as many orders as collations.
pub fn has_order(ty: &ColumnType) -> bool {
    matches!(ty, ColumnType::Bool | ColumnType::Decimal { .. } | ColumnType::Float { .. })
        || ty.axis().is_some()
}

/// Types that every database sums to the same.
pub fn has_sum(ty: &ColumnType) -> bool {
    use ColumnType as T;
    matches!(ty, T::Bool | T::Int { .. } | T::Decimal { .. } | T::Float { .. })
}

/// `SELECT unit, count ... GROUP BY unit`.
pub(super) fn counts(dialect: &dyn Dialect, counts: &Counts) -> Result<String, EngineError> {
    let table = &counts.table;
    let axis = check_range(table, &counts.range)?;
    let (Some(from), Some(to), origin) = (counts.range.from, counts.range.to, counts.origin) else {
        return Err(unfit(table, "rows are counted between two ends"));
    };
    let width = match axis {
        Axis::Integer | Axis::Days => i128::from(counts.unit),
        Axis::Micros => i128::from(counts.unit) * 1_000_000,
    };
    let length = to.checked_sub(origin).filter(|length| *length >= 0);
    if origin > from {
        return Err(unfit(table, "the first unit begins behind the range"));
    }
    if width == 0 || length.is_none_or(|length| length / width >= i128::from(UNITS_MAX)) {
        return Err(
            unfit(table, "the range has too many steps").with_hint("take larger steps or a shorter range")
        );
    }
    let wide = length.is_none_or(|length| length > i128::from(i64::MAX));
    let number = dialect.unit_number(&counts.range.column, origin, counts.unit, wide);
    let conditions = where_all(&[closed(counts.filter.as_deref()), Some(dialect.condition(&counts.range))]);
    Ok(format!(
        "SELECT {}, {} FROM {}{conditions} GROUP BY {number}",
        dialect.text(&number),
        dialect.text(&format!("{}COUNT(*)", dialect.aggregates())),
        dialect.table(table),
    ))
}

/// The user's condition as it stands, to be prepared and not run: what is no whole expression without our parentheses
/// could close them, and would then not be bounded by what we add.
pub(super) fn bare(dialect: &dyn Dialect, question: &Question) -> Option<String> {
    let table = match question {
        Question::Totals(totals) => &totals.table,
        Question::Counts(counts) => &counts.table,
        Question::Indexed { .. } | Question::Scalar { .. } => return None,
    };
    Some(format!("SELECT 1 FROM {} WHERE {}\n", dialect.table(table), question.filter()?))
}

/// What is wrong with the user's SQL is wrong with a query here, and with no condition.
pub(super) fn of_query(error: EngineError) -> EngineError {
    match error.kind {
        ErrorKind::Filter => {
            error.with_hint("the query is one SELECT of one value, in this server's own SQL")
        }
        _ => error,
    }
}

/// The user's query as it stands, without the semicolon behind it.
pub(super) fn query(sql: &str) -> &str {
    sql.trim().trim_end_matches(';')
}

/// The user's query as one scalar expression. It has been prepared as it stands before: the parentheses alone could be closed.
pub(super) fn scalar(sql: &str) -> String {
    format!("(\n{}\n)", query(sql))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::measure::MeasuredColumn;

    fn column(name: &str, ty: ColumnType) -> MeasuredColumn {
        MeasuredColumn { name: name.to_owned(), ty }
    }

    fn int() -> ColumnType {
        ColumnType::Int { bits: 64, signed: true }
    }

    fn range(name: &str, ty: ColumnType, from: Option<i128>, to: Option<i128>) -> Range {
        Range { column: column(name, ty), from, to }
    }

    #[test]
    fn names_are_quoted_and_points_are_numbers() {
        let odd = range("a\"`b", int(), Some(-5), Some(10));
        let of = |kind| condition(kind, &odd).unwrap();
        assert_eq!(
            of(EngineKind::Postgres),
            "(\"a\"\"`b\" OPERATOR(pg_catalog.>=) (-5) AND \"a\"\"`b\" OPERATOR(pg_catalog.<) 10)"
        );
        assert_eq!(of(EngineKind::MySql), "(`a\"``b` >= (-5) AND `a\"``b` < 10)");
        assert_eq!(
            of(EngineKind::Sqlite),
            "(typeof(\"a\"\"`b\") IN ('integer', 'real') AND \"a\"\"`b\" >= (-5) AND \"a\"\"`b\" < 10)"
        );
        let day = range("d", ColumnType::Date, Some(19_814), None);
        assert_eq!(
            condition(EngineKind::Postgres, &day).unwrap(),
            "(\"d\" OPERATOR(pg_catalog.>=) DATE '2024-04-01' AND \"d\" OPERATOR(pg_catalog.<) 'infinity')"
        );
        assert_eq!(
            condition(EngineKind::MySql, &day).unwrap(),
            "(`d` >= DATE'2024-04-01' AND MONTH(`d`) > 0 AND DAYOFMONTH(`d`) > 0)"
        );
        let moment = range("m", ColumnType::TimestampTz { digits: 6 }, Some(0), Some(500_000));
        assert_eq!(
            condition(EngineKind::Postgres, &moment).unwrap(),
            "(\"m\" OPERATOR(pg_catalog.>=) TIMESTAMPTZ '1970-01-01 00:00:00+00' AND \"m\" OPERATOR(pg_catalog.<) TIMESTAMPTZ '1970-01-01 00:00:00.5+00')"
        );
        assert_eq!(
            condition(EngineKind::MySql, &moment).unwrap(),
            "(`m` >= TIMESTAMP'1970-01-01 00:00:00' AND `m` < TIMESTAMP'1970-01-01 00:00:00.5')"
        );
        assert!(condition(EngineKind::MySql, &range("t", ColumnType::Uuid, None, None)).is_err());
    }

    #[test]
    fn ranges_of_one_column_narrow_what_is_read() {
        let item = |from, what| Total { within: Some(range("id", int(), from, None)), what };
        let items = [item(Some(5), Aggregate::Count), item(Some(2), Aggregate::Count)];
        assert_eq!(hull(&items).unwrap().from, Some(2));
        let open = [item(Some(5), Aggregate::Count), item(None, Aggregate::Count)];
        assert_eq!(hull(&open).unwrap().from, None);
        let whole = [item(Some(5), Aggregate::Count), Total { within: None, what: Aggregate::Count }];
        assert_eq!(hull(&whole), None);
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        let ask = |what| {
            let asked = Totals {
                table: TableName::new(None, "t"),
                filter: None,
                items: vec![Total { within: None, what }],
            };
            totals(&super::super::postgres::measure::Postgres::default(), &asked)
        };
        assert!(ask(Aggregate::Min(column("a", ColumnType::Text { padded: false }))).is_err());
        assert!(ask(Aggregate::Sum { column: column("a", ColumnType::Date), scale: None }).is_err());
        assert!(ask(Aggregate::Duplicates(Vec::new())).is_err());
        let asked = Counts {
            table: TableName::new(None, "t"),
            filter: None,
            range: range("id", int(), Some(0), Some(i128::from(UNITS_MAX))),
            origin: 0,
            unit: 1,
        };
        let too_many = counts(&super::super::postgres::measure::Postgres::default(), &asked);
        assert!(too_many.is_err_and(|error| error.hint.is_some()));
        let empty = Counts { unit: 0, ..asked };
        assert!(counts(&super::super::postgres::measure::Postgres::default(), &empty).is_err());
    }
}
