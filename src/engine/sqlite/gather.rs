//! Rows taken out of SQLite from within: an aggregate function of our own is called with the values of every row.
//!
//! A statement that is stepped comes out of SQLite's machine and goes into it again for each row, and each value is asked for with
//! two or three calls that look for its statement, lock and column. A function is handed the values themselves.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error};

use super::errors::{database_error, engine_error, row_error};
use super::params::quote;
use super::rows::{columns, select};
use super::types::encode;
use crate::engine::{EngineError, RowError, RowSink};
use crate::model::{RowBuffer, TableAccess};

/// SQLite allows no function more arguments.
const ARGUMENTS_MAX: usize = 1_000;
const FUNCTION: &str = "trueup_gather";

/// Encodes the rows of one reader and gives them to its sink.
struct Taker {
    access: Arc<TableAccess>,
    sink: Box<dyn RowSink>,
    buffer: RowBuffer,
    ended: Option<Ended>,
}

/// Why no more rows are taken, though there may be some.
enum Ended {
    Unwanted,
    Failed(RowError),
}

impl Taker {
    /// `false`: this was the last row.
    #[inline]
    fn take<'v>(&mut self, value_at: impl Fn(usize) -> Option<ValueRef<'v>>) -> bool {
        self.buffer.clear();
        if let Err(error) = encode(&self.access, value_at, &mut self.buffer) {
            self.ended = Some(Ended::Failed(error));
        } else if !self.sink.push(&self.buffer.key, &self.buffer.row) {
            self.ended = Some(Ended::Unwanted);
        }
        self.ended.is_none()
    }
}

/// Reads the rows of the access that fulfil a condition (` WHERE …`, or nothing), and gives them to the sink.
pub(super) fn gather(
    connection: &Connection,
    access: &Arc<TableAccess>,
    condition: &str,
    sink: Box<dyn RowSink>,
    during: &str,
) -> Result<(), EngineError> {
    let failed = |error: Error| match &access.filter {
        Some(_) => engine_error(during, &error),
        None => database_error(during, &error),
    };
    let mut taker = Taker { access: Arc::clone(access), sink, buffer: RowBuffer::default(), ended: None };
    let read = if access.columns.len() <= ARGUMENTS_MAX {
        let slot = Slot::new(taker);
        let read = inside(connection, access, condition, &slot);
        let Some(back) = slot.take() else { return read.map_err(failed) };
        taker = back;
        read
    } else {
        outside(connection, access, condition, &mut taker)
    };
    match taker.ended {
        Some(Ended::Unwanted) => Ok(()),
        Some(Ended::Failed(error)) => Err(row_error(during, &error)),
        None => {
            read.map_err(failed)?;
            taker.sink.finish();
            Ok(())
        }
    }
}

/// By the aggregate function, in one step of the statement.
fn inside(
    connection: &Connection,
    access: &TableAccess,
    condition: &str,
    slot: &Slot,
) -> rusqlite::Result<()> {
    // Not for views and triggers: the database could name it there.
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_aggregate_function(FUNCTION, -1, flags, Gather(slot.clone()))?;
    let sql = format!("SELECT {FUNCTION}({}) FROM {}{condition}", columns(access), quote(&access.table.name));
    connection.query_row(&sql, [], |_| Ok(()))
}

/// Row by row.
fn outside(
    connection: &Connection,
    access: &TableAccess,
    condition: &str,
    taker: &mut Taker,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&format!("{}{condition}", select(access)))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if !taker.take(|at| row.get_ref(at).ok()) {
            break;
        }
    }
    Ok(())
}

/// Where the taker lies before the first row and after the last; in between the aggregate has it.
#[derive(Clone)]
struct Slot(Arc<Mutex<Option<Taker>>>);

impl Slot {
    fn new(taker: Taker) -> Self {
        Self(Arc::new(Mutex::new(Some(taker))))
    }

    fn take(&self) -> Option<Taker> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, taker: Taker) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(taker);
    }
}

struct Gather(Slot);

fn stopped() -> Error {
    Error::UserFunctionError("no more rows are taken".into())
}

impl Aggregate<AssertUnwindSafe<Taker>, Option<i64>> for Gather {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<AssertUnwindSafe<Taker>> {
        self.0.take().map(AssertUnwindSafe).ok_or_else(stopped)
    }

    fn step(&self, context: &mut Context<'_>, taker: &mut AssertUnwindSafe<Taker>) -> rusqlite::Result<()> {
        let given = context.len();
        if taker.take(|at| (at < given).then(|| context.get_raw(at))) { Ok(()) } else { Err(stopped()) }
    }

    /// Also called where a row could not be taken or the statement failed.
    fn finalize(
        &self,
        _: &mut Context<'_>,
        taker: Option<AssertUnwindSafe<Taker>>,
    ) -> rusqlite::Result<Option<i64>> {
        if let Some(AssertUnwindSafe(taker)) = taker {
            self.0.put(taker);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::model::{AccessColumn, ColumnType, ComparisonType, Filled, TableName};

    type Taken = (Vec<u8>, Vec<u8>);

    /// Takes so many rows; says at the end that all were read.
    struct Rows {
        wanted: usize,
        out: mpsc::Sender<Option<Taken>>,
    }

    impl RowSink for Rows {
        fn push(&mut self, key: &[u8], row: &[u8]) -> bool {
            self.out.send(Some((key.to_vec(), row.to_vec()))).unwrap();
            self.wanted -= 1;
            self.wanted > 0
        }

        fn finish(&mut self) {
            self.out.send(None).unwrap();
        }
    }

    fn access(columns: usize) -> Arc<TableAccess> {
        let column = |at| AccessColumn {
            name: format!("c{at}"),
            ty: ColumnType::Int { bits: 64, signed: true },
            declared: String::new(),
            comparison: ComparisonType::Dynamic,
            as_text: false,
            filled: Filled::ByWriter,
        };
        let columns = (0..columns).map(column).collect();
        Arc::new(TableAccess { table: TableName::new(None, "t"), columns, key_len: 1, filter: None })
    }

    fn table(columns: usize, sql: &str) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        let names: Vec<_> = (0..columns).map(|at| format!("c{at}")).collect();
        connection.execute_batch(&format!("{sql}; CREATE TABLE t ({})", names.join(", "))).unwrap();
        connection
    }

    /// The keys and cells taken, and whether the end was told.
    fn gathered(
        connection: &Connection,
        columns: usize,
        wanted: usize,
    ) -> (Result<(), EngineError>, Vec<Taken>, bool) {
        let (out, taken) = mpsc::channel();
        let sink = Box::new(Rows { wanted, out });
        let result = gather(connection, &access(columns), " WHERE c1 IS NOT 'no'", sink, "read");
        let all: Vec<_> = taken.try_iter().collect();
        let ended = all.last() == Some(&None);
        (result, all.into_iter().flatten().collect(), ended)
    }

    #[test]
    fn values_come_as_they_are_stored_whatever_the_encoding_of_the_file() {
        let rows =
            "INSERT INTO t VALUES (1, 'é'), (2, x'00ff'), (3, 1.5), (4, NULL), (5, -7), (6, 'no'), (7, '')";
        let read = |pragma| {
            let connection = table(2, pragma);
            connection.execute_batch(rows).unwrap();
            gathered(&connection, 2, 100)
        };
        let (result, utf8, ended) = read("");
        assert!(result.is_ok() && ended);
        assert_eq!(utf8.len(), 6);
        assert_eq!(utf8[0].1, [&[7, 3][..], "é".as_bytes()].concat());
        assert_eq!(read("PRAGMA encoding = 'UTF-16le'").1, utf8);
    }

    #[test]
    fn a_table_wider_than_a_function_is_read_row_by_row() {
        let connection = table(1_500, "");
        connection.execute_batch("INSERT INTO t (c0, c1) VALUES (1, 'a'), (2, 'b'), (3, 'no')").unwrap();
        let (result, rows, ended) = gathered(&connection, 1_500, 100);
        assert!(result.is_ok() && ended);
        assert_eq!(rows.len(), 2);
        // What comes first of it is what a narrow table holds.
        let (_, narrow, _) = gathered(&connection, 2, 100);
        assert!(rows.iter().zip(&narrow).all(|(wide, narrow)| wide.0 == narrow.0
            && wide.1.starts_with(&narrow.1)
            && wide.1.len() == narrow.1.len() + 1_498));
    }

    #[test]
    fn an_empty_table_ends_and_a_sink_that_wants_no_more_gets_none() {
        for columns in [2, 1_500] {
            let connection = table(columns, "");
            let (result, rows, ended) = gathered(&connection, columns, 100);
            assert!(result.is_ok() && rows.is_empty() && ended);
            connection.execute_batch("INSERT INTO t (c0) VALUES (1), (2), (3)").unwrap();
            let (result, rows, ended) = gathered(&connection, columns, 2);
            assert!(result.is_ok() && rows.len() == 2 && !ended);
        }
    }

    #[test]
    fn a_row_without_a_key_and_a_statement_that_fails_are_told_and_end_nothing() {
        for columns in [2, 1_500] {
            let connection = table(columns, "");
            connection.execute_batch("INSERT INTO t (c0) VALUES (1), (NULL), (3)").unwrap();
            let (result, rows, ended) = gathered(&connection, columns, 100);
            assert!(result.unwrap_err().to_string().contains("c0"));
            assert!(rows.len() == 1 && !ended);
            connection.execute_batch("DROP TABLE t").unwrap();
            let (result, _, ended) = gathered(&connection, columns, 100);
            assert!(result.is_err() && !ended);
        }
    }
}
