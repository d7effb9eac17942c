//! The scan: one connection, one consistent snapshot, rows in the clustered order.

use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt;
use sqlx::mysql::{MySql, MySqlArguments, MySqlRow};
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Executor};
use tokio::sync::mpsc;

use super::MySqlEngine;
use super::errors::engine_error;
use super::params::{quote, quoted_table};
use super::types::{RowDecoder, select_expression};
use crate::engine::{EngineError, RawBatch, RowError, Snapshot};
use crate::model::{RowBuffer, TableAccess};

const ROWS_PER_BATCH: usize = 1_000;

/// `SELECT … FROM …`, without a condition.
pub(super) fn select(access: &TableAccess) -> String {
    let columns: Vec<String> =
        access.columns.iter().map(|column| select_expression(column, &quote(&column.name))).collect();
    format!("SELECT {} FROM {}", columns.join(", "), quoted_table(&access.table))
}

#[derive(Debug)]
struct MySqlSnapshot {
    connection: PoolConnection<MySql>,
    access: Arc<TableAccess>,
}

pub(super) async fn snapshot(
    engine: &MySqlEngine,
    access: Arc<TableAccess>,
) -> Result<Box<dyn Snapshot>, EngineError> {
    let during = format!("begin a snapshot of {}", access.table);
    let mut connection = engine.pool.acquire().await.map_err(|error| engine_error(&during, &error))?;
    connection
        .execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        .await
        .map_err(|error| engine_error(&during, &error))?;
    Ok(Box::new(MySqlSnapshot { connection, access }))
}

#[async_trait]
impl Snapshot for MySqlSnapshot {
    async fn scan(mut self: Box<Self>, out: mpsc::Sender<Box<dyn RawBatch>>) -> Result<(), EngineError> {
        let during = format!("read {}", self.access.table);
        let mut sql = select(&self.access);
        if let Some(filter) = &self.access.filter {
            sql.push_str(&format!(" WHERE ({filter})"));
        }
        let decoder = Arc::new(RowDecoder::new(&self.access));
        let finished = {
            let query =
                sqlx::query_with::<MySql, _>(AssertSqlSafe(sql), MySqlArguments::default()).persistent(false);
            let mut rows = query.fetch(&mut *self.connection);
            let mut batch = Vec::with_capacity(ROWS_PER_BATCH);
            loop {
                let row = rows.try_next().await.map_err(|error| engine_error(&during, &error))?;
                let ended = row.is_none();
                batch.extend(row);
                if batch.len() == ROWS_PER_BATCH || (ended && !batch.is_empty()) {
                    let rows = std::mem::replace(&mut batch, Vec::with_capacity(ROWS_PER_BATCH));
                    if out.send(Box::new(MySqlBatch { rows, decoder: decoder.clone() })).await.is_err() {
                        break false;
                    }
                }
                if ended {
                    break true;
                }
            }
        };
        if finished {
            self.connection.execute("ROLLBACK").await.map_err(|error| engine_error(&during, &error))?;
        } else {
            // Rows are still on their way: reading them to their end would cost more than a new connection.
            let _ = self.connection.detach();
        }
        Ok(())
    }
}

pub(super) struct MySqlBatch {
    pub(super) rows: Vec<MySqlRow>,
    pub(super) decoder: Arc<RowDecoder>,
}

impl RawBatch for MySqlBatch {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn encode(&self, each: &mut dyn FnMut(&RowBuffer)) -> Result<(), RowError> {
        let mut buffer = RowBuffer::default();
        for row in &self.rows {
            self.decoder.row(row, &mut buffer)?;
            each(&buffer);
        }
        Ok(())
    }
}
