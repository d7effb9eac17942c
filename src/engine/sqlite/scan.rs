//! The scan: a read transaction on a blocking thread, values encoded as they are stepped over.
//! Rowid tables are read by several threads where their read transactions can be shown to see one state.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::Connection;

use super::collation::Asked;
use super::errors::{database_error, engine_error};
use super::gather::gather;
use super::params::quote;
use super::rows::select;
use super::shape::TableShape;
use super::split::borders;
use super::{SqliteEngine, stable};
use crate::engine::{EngineError, ErrorKind, RowSink, RowSinks, Snapshot};
use crate::model::TableAccess;

/// Times the readers are opened again when somebody writes between two openings.
const OPEN_ATTEMPTS: usize = 4;
/// Pages that a reader which goes from the first row to the last keeps: those above a row, and hardly more. None comes again, and
/// few stay in the processor's cache, into which the next ones are read (3 to 5 % of a diff's processor time).
const PAGES_KEPT: i64 = 32;

struct SqliteSnapshot {
    readers: Vec<Reader>,
    access: Arc<TableAccess>,
}

/// A connection in a read transaction, and its part of the rowids.
struct Reader {
    connection: Connection,
    condition: Option<String>,
    /// A collation that only the application has, where the table lies in its order.
    given: Option<Asked>,
}

pub(super) fn snapshot(
    engine: &SqliteEngine,
    access: Arc<TableAccess>,
    parallelism: usize,
) -> Result<Box<dyn Snapshot>, EngineError> {
    let during = format!("begin a snapshot of {}", access.table);
    let failed = |error: rusqlite::Error| database_error(&during, &error);
    let table = quote(&access.table.name);
    let first = begin_read(engine, &access)?;
    let shape = TableShape::read(&first, &access, &during)?;
    let given = shape.ordered_by.as_deref().map(|collation| Asked::given_to(&first, collation));
    let given = given.transpose().map_err(failed)?;
    let mut readers = vec![Reader { connection: first, condition: None, given }];
    if let Some(rowid) = shape.rowid.filter(|_| parallelism > 1) {
        let borders = borders(&readers[0].connection, &access.table.name, &rowid, parallelism as u64)
            .map_err(failed)?;
        let rowid = format!("{table}.{rowid}");
        if !borders.is_empty() {
            for _ in 0..OPEN_ATTEMPTS {
                if let Some(split) = split(engine, &access, &rowid, &borders, &during)? {
                    readers = split;
                    break;
                }
            }
        }
    }
    // A table that is not there is said now, not in mid-scan.
    readers[0].connection.prepare(&select(&access)).map_err(failed)?;
    // The user's condition must be one whole expression: it is parsed as it stands and in parentheses, so that it can
    // neither close them nor bring a clause of its own.
    if let Some(bare) = &access.filter {
        for condition in [bare.clone(), closed(bare)] {
            let sql = format!("SELECT 1 FROM {table} WHERE {condition}\n");
            readers[0].connection.prepare(&sql).map_err(|error| engine_error(&during, &error))?;
        }
    }
    if access.filter.is_some() || !shape.is_table {
        let whose = if access.filter.is_some() { "the filter" } else { "the view" };
        let condition =
            access.filter.as_deref().map_or_else(String::new, |bare| format!(" WHERE {}", closed(bare)));
        let sql = format!("SELECT 1 FROM {table}{condition}\n");
        stable::check(&readers[0].connection, &sql, whose, &during)?;
    }
    Ok(Box::new(SqliteSnapshot { readers, access }))
}

/// In parentheses of their own lines, which a comment at its end cannot reach.
fn closed(filter: &str) -> String {
    format!("(\n{filter}\n)")
}

fn begin_read(engine: &SqliteEngine, access: &TableAccess) -> Result<Connection, EngineError> {
    let connection = engine.open(false)?;
    let during = engine.during("read");
    // By an index, a condition may lead here and there.
    if access.filter.is_none() {
        let kept = connection.pragma_update(None, "cache_size", PAGES_KEPT);
        kept.map_err(|error| engine_error(&during, &error))?;
    }
    connection.execute_batch("BEGIN").map_err(|error| engine_error(&during, &error))?;
    // The transaction begins with its first read.
    connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
        .map_err(|error| engine_error(&during, &error))?;
    Ok(connection)
}

/// One reader a part, if nothing was committed from before the first to after the last began.
fn split(
    engine: &SqliteEngine,
    access: &TableAccess,
    rowid: &str,
    borders: &[i64],
    during: &str,
) -> Result<Option<Vec<Reader>>, EngineError> {
    let failed = |error: rusqlite::Error| database_error(during, &error);
    let watcher = engine.open(false)?;
    let version = || watcher.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0)).map_err(failed);
    let before = version()?;
    let ends = borders.iter().map(Some).chain([None]);
    let begins = [None].into_iter().chain(borders.iter().map(Some));
    let mut readers = Vec::with_capacity(borders.len() + 1);
    for (begin, end) in begins.zip(ends) {
        let begin = begin.map(|begin| format!("{rowid} >= {begin}"));
        let end = end.map(|end| format!("{rowid} < {end}"));
        let condition = begin.into_iter().chain(end).collect::<Vec<_>>().join(" AND ");
        readers.push(Reader {
            connection: begin_read(engine, access)?,
            condition: Some(condition),
            given: None,
        });
    }
    if version()? != before {
        return Ok(None);
    }
    // The table may have been altered since the first reader looked at it.
    if let Some(reader) = readers.first() {
        TableShape::read(&reader.connection, access, during)?;
    }
    Ok(Some(readers))
}

#[async_trait]
impl Snapshot for SqliteSnapshot {
    async fn scan(self: Box<Self>, sinks: Arc<dyn RowSinks>) -> Result<(), EngineError> {
        let during = format!("read {}", self.access.table);
        let mut readers = tokio::task::JoinSet::new();
        for reader in self.readers {
            let (access, sink) = (self.access.clone(), sinks.sink());
            readers.spawn_blocking(move || read(&reader, &access, sink));
        }
        drop(sinks);
        while let Some(ended) = readers.join_next().await {
            ended.map_err(|_| EngineError::new(ErrorKind::Database, &during, "a reader stopped"))??;
        }
        Ok(())
    }
}

fn read(reader: &Reader, access: &Arc<TableAccess>, sink: Box<dyn RowSink>) -> Result<(), EngineError> {
    let during = format!("read {}", access.table);
    let filter = access.filter.as_deref().map(closed);
    let conditions: Vec<&str> = reader.condition.as_deref().into_iter().chain(filter.as_deref()).collect();
    let condition = match conditions.as_slice() {
        [] => String::new(),
        conditions => format!(" WHERE {}", conditions.join(" AND ")),
    };
    gather(&reader.connection, access, &condition, sink, &during)?;
    match &reader.given {
        Some(given) => given.check(&during),
        None => Ok(()),
    }
}
