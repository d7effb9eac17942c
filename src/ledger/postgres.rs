//! The ledger in PostgreSQL, for several machines: one connection, opened again when it has broken.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Connection, Executor, Row as _, TypeInfo};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::LedgerError;
use super::store::{Cell, Expects, Given, Row, Step, Store, StoreError, patience};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// A connection that does not answer for so long is replaced.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

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

    fn place(&self) -> String {
        format!("{}:{}", self.options.get_host(), self.options.get_port())
    }

    async fn dial(&self) -> Result<PgConnection, LedgerError> {
        let why = match timeout(CONNECT_TIMEOUT, self.options.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it does not answer".to_owned(),
        };
        Err(LedgerError::new(
            format!("cannot connect to the ledger's database at {}: {why}", self.place()),
            "check --ledger: host, port, user, password and database",
        ))
    }

    async fn work(&self, steps: &[Step]) -> Result<Vec<Given>, StoreError> {
        let mut place = self.connection.lock().await;
        let mut connection = match place.take() {
            Some(mut connection) => match timeout(PING_TIMEOUT, connection.ping()).await {
                Ok(Ok(())) => connection,
                _ => self.dial().await.map_err(StoreError::Failed)?,
            },
            None => self.dial().await.map_err(StoreError::Failed)?,
        };
        let done = transaction(&mut connection, steps).await;
        if !matches!(done, Err(StoreError::Failed(_))) {
            *place = Some(connection);
        }
        done
    }
}

fn no_answer(place: &str, waited: Duration) -> StoreError {
    StoreError::Failed(LedgerError::new(
        format!("the ledger's database at {place} has not answered for {} s", waited.as_secs()),
        "check that the server runs and can be reached, and that no other session holds the locks of its trueup_... tables",
    ))
}

fn failed(error: &sqlx::Error) -> StoreError {
    // A detail could name a value; the message alone does not.
    let (what, code) = match error {
        sqlx::Error::Database(error) => {
            (error.message().to_owned(), error.code().unwrap_or_default().into_owned())
        }
        other => (other.to_string(), String::new()),
    };
    let hint = match (code.as_str(), error) {
        ("57014" | "55P03" | "40P01", _) => {
            "another session holds the locks of its tables, or the server is overloaded: see pg_stat_activity, then go on"
        }
        ("53100", _) => "the server's disk is full: make room, then go on",
        ("53300", _) => "the server has no connection to spare: raise max_connections, or end others",
        ("57P01" | "57P02" | "57P03", _) | (_, sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) => {
            "the server was stopped or cannot be reached: check it, then go on"
        }
        _ => "its user needs to own the tables named trueup_…, or to be allowed to make them",
    };
    StoreError::Failed(LedgerError::new(format!("the ledger's database failed: {what}"), hint))
}

#[async_trait]
impl Store for PostgresStore {
    async fn run(&self, steps: Vec<Step>) -> Result<Vec<Given>, StoreError> {
        let most = patience(&steps);
        // Dropping it closes the connection: the server takes back what was not committed.
        timeout(most, self.work(&steps)).await.unwrap_or_else(|_| Err(no_answer(&self.place(), most)))
    }

    async fn snapshot(&self) -> Result<Arc<dyn Store>, LedgerError> {
        let mut connection = self.dial().await?;
        let most = patience(&[]);
        // The first query takes the snapshot.
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1";
        match timeout(most, connection.execute(begin)).await {
            Ok(Ok(_)) => Ok(Arc::new(PostgresSnapshot {
                place: self.place(),
                connection: Mutex::new(Some(connection)),
            })),
            Ok(Err(error)) => Err(failed(&error).into()),
            Err(_) => Err(no_answer(&self.place(), most).into()),
        }
    }

    fn skip_locked(&self) -> &'static str {
        " FOR UPDATE SKIP LOCKED"
    }
}

/// A transaction that reads. Dropping it closes its connection.
struct PostgresSnapshot {
    place: String,
    connection: Mutex<Option<PgConnection>>,
}

impl std::fmt::Debug for PostgresSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PostgresSnapshot")
    }
}

#[async_trait]
impl Store for PostgresSnapshot {
    async fn run(&self, steps: Vec<Step>) -> Result<Vec<Given>, StoreError> {
        let most = patience(&steps);
        let work = async {
            let mut place = self.connection.lock().await;
            let Some(mut connection) = place.take() else {
                return Err(StoreError::Failed(LedgerError::new(
                    "the ledger's snapshot is lost",
                    "try again",
                )));
            };
            let done = statements(&mut connection, &steps).await?;
            *place = Some(connection);
            Ok(done)
        };
        timeout(most, work).await.unwrap_or_else(|_| Err(no_answer(&self.place, most)))
    }

    async fn snapshot(&self) -> Result<Arc<dyn Store>, LedgerError> {
        Err(LedgerError::new(
            "a snapshot of the ledger has no snapshot of its own",
            "this is a defect: please report it",
        ))
    }
}

async fn transaction(connection: &mut PgConnection, steps: &[Step]) -> Result<Vec<Given>, StoreError> {
    // A little less than the caller's patience: the server's own words come first.
    let most = patience(steps).saturating_sub(Duration::from_secs(2)).as_millis();
    let begin = AssertSqlSafe(format!("BEGIN; SET LOCAL statement_timeout = {most}"));
    let mut transaction = connection.begin_with(begin).await.map_err(|error| failed(&error))?;
    let done = statements(&mut transaction, steps).await;
    match &done {
        Ok(_) => transaction.commit().await.map_err(|error| failed(&error))?,
        Err(StoreError::Conflict(_)) => transaction.rollback().await.map_err(|error| failed(&error))?,
        Err(StoreError::Failed(_)) => {}
    }
    done
}

async fn statements(connection: &mut PgConnection, steps: &[Step]) -> Result<Vec<Given>, StoreError> {
    let mut all = Vec::with_capacity(steps.len());
    for (at, step) in steps.iter().enumerate() {
        #[cfg(debug_assertions)]
        super::fail_point::statement();
        let mut query = sqlx::query(AssertSqlSafe(step.sql.clone()));
        for cell in &step.cells {
            query = match cell {
                Cell::Text(text) => query.bind(text.clone()),
                Cell::Int(number) => query.bind(*number),
            };
        }
        let mut given = Given::default();
        if step.expects == Expects::Rows {
            let rows = query.fetch_all(&mut *connection).await.map_err(|error| failed(&error))?;
            given.rows = rows.iter().map(row).collect::<Result<_, _>>().map_err(|error| failed(&error))?;
        } else {
            let done = query.execute(&mut *connection).await.map_err(|error| failed(&error))?;
            given.changed = done.rows_affected();
        }
        if step.expects == Expects::OneChange && given.changed != 1 {
            return Err(StoreError::Conflict(at));
        }
        all.push(given);
    }
    Ok(all)
}

fn row(row: &PgRow) -> Result<Row, sqlx::Error> {
    let cell = |column: &sqlx::postgres::PgColumn| match column.type_info().name() {
        "INT8" => row.try_get(column.ordinal()).map(Cell::Int),
        _ => row.try_get(column.ordinal()).map(Cell::Text),
    };
    Ok(Row::new(row.columns().iter().map(cell).collect::<Result<_, _>>()?))
}
