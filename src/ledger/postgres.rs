//! The ledger in PostgreSQL, for several machines: one connection, opened again when it has broken.

use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Connection, Row as _, TypeInfo};
use tokio::sync::Mutex;

use super::LedgerError;
use super::store::{Cell, Expects, Given, Row, Step, Store, StoreError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) struct PostgresStore {
    options: PgConnectOptions,
    /// Taken out for the time of a transaction: one that was left halfway is not used again.
    connection: Mutex<Option<PgConnection>>,
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PostgresStore")
    }
}

impl PostgresStore {
    pub(super) async fn connect(url: &str) -> Result<Self, LedgerError> {
        let options = PgConnectOptions::from_str(url).map_err(|_| {
            LedgerError::new(
                "the ledger's URL cannot be read",
                "write postgres://user:password@host:5432/database",
            )
        })?;
        let store = Self { options, connection: Mutex::new(None) };
        let connection = store.dial().await?;
        *store.connection.lock().await = Some(connection);
        Ok(store)
    }

    async fn dial(&self) -> Result<PgConnection, LedgerError> {
        let place = format!("{}:{}", self.options.get_host(), self.options.get_port());
        let dialled = tokio::time::timeout(CONNECT_TIMEOUT, self.options.connect()).await;
        let why = match dialled {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it does not answer".to_owned(),
        };
        Err(LedgerError::new(
            format!("cannot connect to the ledger's database at {place}: {why}"),
            "check --ledger: host, port, user, password and database",
        ))
    }
}

fn failed(error: &sqlx::Error) -> StoreError {
    // A detail could name a value; the message alone does not.
    let what = match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        other => other.to_string(),
    };
    StoreError::Failed(LedgerError::new(
        format!("the ledger's database failed: {what}"),
        "its user needs to own the tables named trueup_…, or to be allowed to make them",
    ))
}

#[async_trait]
impl Store for PostgresStore {
    async fn run(&self, steps: Vec<Step>) -> Result<Vec<Given>, StoreError> {
        let mut place = self.connection.lock().await;
        let mut connection = match place.take() {
            Some(mut connection) => match connection.ping().await {
                Ok(()) => connection,
                Err(_) => self.dial().await.map_err(StoreError::Failed)?,
            },
            None => self.dial().await.map_err(StoreError::Failed)?,
        };
        let done = transaction(&mut connection, &steps).await;
        if !matches!(done, Err(StoreError::Failed(_))) {
            *place = Some(connection);
        }
        done
    }

    fn skip_locked(&self) -> &'static str {
        " FOR UPDATE SKIP LOCKED"
    }
}

async fn transaction(connection: &mut PgConnection, steps: &[Step]) -> Result<Vec<Given>, StoreError> {
    let mut transaction = connection.begin().await.map_err(|error| failed(&error))?;
    let mut all = Vec::with_capacity(steps.len());
    for step in steps {
        let mut query = sqlx::query(AssertSqlSafe(step.sql.clone()));
        for cell in &step.cells {
            query = match cell {
                Cell::Text(text) => query.bind(text.clone()),
                Cell::Int(number) => query.bind(*number),
            };
        }
        let mut given = Given::default();
        if step.expects == Expects::Rows {
            let rows = query.fetch_all(&mut *transaction).await.map_err(|error| failed(&error))?;
            given.rows = rows.iter().map(row).collect::<Result<_, _>>().map_err(|error| failed(&error))?;
        } else {
            let done = query.execute(&mut *transaction).await.map_err(|error| failed(&error))?;
            given.changed = done.rows_affected();
        }
        if step.expects == Expects::OneChange && given.changed != 1 {
            transaction.rollback().await.map_err(|error| failed(&error))?;
            return Err(StoreError::Conflict);
        }
        all.push(given);
    }
    transaction.commit().await.map_err(|error| failed(&error))?;
    Ok(all)
}

fn row(row: &PgRow) -> Result<Row, sqlx::Error> {
    let cell = |column: &sqlx::postgres::PgColumn| match column.type_info().name() {
        "INT8" => row.try_get(column.ordinal()).map(Cell::Int),
        _ => row.try_get(column.ordinal()).map(Cell::Text),
    };
    Ok(Row::new(row.columns().iter().map(cell).collect::<Result<_, _>>()?))
}
