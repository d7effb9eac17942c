//! The scan: a read transaction on a blocking thread, values encoded as they are stepped over.
//! Rowid tables are read by several threads where their read transactions can be shown to see one state.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::mpsc;

use super::SqliteEngine;
use super::batch::BatchSink;
use super::errors::engine_error;
use super::gather::gather;
use super::params::quote;
use super::rows::select;
use crate::engine::{EngineError, ErrorKind, RawBatch, RowSink, RowSinks, Snapshot};
use crate::model::TableAccess;

/// Below this many rowids one thread is as quick.
const ROWIDS_TO_SPLIT: i64 = 100_000;
/// Times the readers are opened again when somebody writes between two openings.
const OPEN_ATTEMPTS: usize = 4;

struct SqliteSnapshot {
    readers: Vec<Reader>,
    access: Arc<TableAccess>,
}

/// A connection in a read transaction, and its part of the rowids.
struct Reader {
    connection: Connection,
    condition: Option<String>,
}

pub(super) fn snapshot(
    engine: &SqliteEngine,
    access: Arc<TableAccess>,
    parallelism: usize,
) -> Result<Box<dyn Snapshot>, EngineError> {
    let during = format!("begin a snapshot of {}", access.table);
    let failed = |error: rusqlite::Error| engine_error(&during, &error);
    let table = quote(&access.table.name);
    let first = begin(engine)?;
    // Views and WITHOUT ROWID tables have no rowid to split by.
    let bounds = first.query_row(
        &format!("SELECT (SELECT min(rowid) FROM {table}), (SELECT max(rowid) FROM {table})"),
        [],
        |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?)),
    );
    let mut readers = vec![Reader { connection: first, condition: None }];
    if let Ok((Some(low), Some(high))) = bounds
        && high.saturating_sub(low) > ROWIDS_TO_SPLIT
        && parallelism > 1
    {
        for _ in 0..OPEN_ATTEMPTS {
            if let Some(split) = split(engine, low, high, parallelism, &during)? {
                readers = split;
                break;
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
            readers[0].connection.prepare(&sql).map_err(failed)?;
        }
    }
    Ok(Box::new(SqliteSnapshot { readers, access }))
}

/// In parentheses of their own lines, which a comment at its end cannot reach.
fn closed(filter: &str) -> String {
    format!("(\n{filter}\n)")
}

fn begin(engine: &SqliteEngine) -> Result<Connection, EngineError> {
    let connection = engine.open(false)?;
    let during = engine.during("read");
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
    low: i64,
    high: i64,
    parts: usize,
    during: &str,
) -> Result<Option<Vec<Reader>>, EngineError> {
    let failed = |error: rusqlite::Error| engine_error(during, &error);
    let watcher = engine.open(false)?;
    let version = || watcher.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0)).map_err(failed);
    let before = version()?;
    let step = (high.saturating_sub(low)) / i64::try_from(parts).unwrap_or(1) + 1;
    let mut readers = Vec::with_capacity(parts);
    for part in 0..parts {
        let from = low.saturating_add(step.saturating_mul(i64::try_from(part).unwrap_or(0)));
        let condition = match (part, part + 1 == parts) {
            (0, _) => format!("rowid < {}", from.saturating_add(step)),
            (_, true) => format!("rowid >= {from}"),
            _ => format!("rowid >= {from} AND rowid < {}", from.saturating_add(step)),
        };
        readers.push(Reader { connection: begin(engine)?, condition: Some(condition) });
    }
    Ok((version()? == before).then_some(readers))
}

#[async_trait]
impl Snapshot for SqliteSnapshot {
    async fn scan(self: Box<Self>, out: mpsc::Sender<Box<dyn RawBatch>>) -> Result<(), EngineError> {
        let sinks = {
            let out = out.clone();
            Box::new(move || -> Box<dyn RowSink> { Box::new(BatchSink::new(out.clone())) })
        };
        self.scan_into(sinks, out).await
    }

    async fn scan_into(
        self: Box<Self>,
        sinks: RowSinks,
        _out: mpsc::Sender<Box<dyn RawBatch>>,
    ) -> Result<(), EngineError> {
        let during = format!("read {}", self.access.table);
        let mut readers = tokio::task::JoinSet::new();
        for reader in self.readers {
            let (access, sink) = (self.access.clone(), sinks());
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
    gather(&reader.connection, access, &condition, sink, &during)
}
