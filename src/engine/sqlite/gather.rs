//! Rows taken out of SQLite from within: an aggregate function of our own is called with the values of every row.
//!
//! A statement that is stepped comes out of SQLite's machine and goes into it again for each row, and each value is asked for with
//! two or three calls that look for its statement, lock and column. A function is handed the values themselves.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error};

use super::errors::engine_error;
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
    let mut taker = Taker { access: Arc::clone(access), sink, buffer: RowBuffer::default(), ended: None };
    let read = if access.columns.len() <= ARGUMENTS_MAX {
        let slot = Slot::new(taker);
        let read = inside(connection, access, condition, &slot);
        let Some(back) = slot.take() else {
            return read.map_err(|error| engine_error(during, &error));
        };
        taker = back;
        read
    } else {
        outside(connection, access, condition, &mut taker)
    };
    match taker.ended {
        Some(Ended::Unwanted) => Ok(()),
        Some(Ended::Failed(error)) => Err(EngineError::row(during, &error)),
        None => {
            read.map_err(|error| engine_error(during, &error))?;
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
    let sql =
        format!("SELECT {FUNCTION}({}) FROM {}{condition}", columns(access), quote(&access.table.name));
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
