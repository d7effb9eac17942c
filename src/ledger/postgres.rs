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
    /// The schema of the ledger's tables.
    schema: Arc<str>,
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
        let mut store = Self { options, schema: Arc::from(""), connection: Mutex::new(None) };
        let mut connection = store.dial().await?;
        let found = timeout(CONNECT_TIMEOUT, schema(&mut connection)).await;
        let found = found.map_err(|_| LedgerError::from(no_answer(&store.place(), CONNECT_TIMEOUT)))?;
        store.schema = found.map_err(|error| LedgerError::from(failed(&error)))?.into();
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
        let done = transaction(&mut connection, &self.schema, steps).await;
        if !matches!(done, Err(StoreError::Failed(_))) {
            *place = Some(connection);
        }
        done
    }
}

/// Whoever may create in a schema of the login's path could put functions and operators there that fit better than the server's
/// (CVE-2018-1058). No statement of the ledger is resolved by it: its tables are named with their schema.
const NO_PATH: &str = "SET LOCAL search_path = pg_catalog, pg_temp";

/// The first schema of the login's path that has the ledger, else the first of all, where it is made.
async fn schema(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    let sql = "SELECT pg_catalog.current_schemas(false)::pg_catalog.text[]";
    let path: Vec<String> = connection.fetch_one(sql).await?.try_get(0)?;
    let sql = "SELECT n.nspname::pg_catalog.text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n \
                 ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
               WHERE c.relname OPERATOR(pg_catalog.=) 'trueup_ledger'::pg_catalog.name";
    let rows = connection.fetch_all(sql).await?;
    let there: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let found = path.iter().find(|name| there.contains(name)).or_else(|| path.first());
    Ok(found.cloned().unwrap_or_else(|| "public".to_owned()))
}

/// The statement with the schema before each name of a table of the ledger's. An index is made where its table is, and its name
/// takes none.
fn qualified(sql: &str, schema: &str) -> String {
    let prefix = format!("\"{}\".", schema.replace('"', "\"\""));
    let mut out = String::with_capacity(sql.len() + 4 * prefix.len());
    let mut rest = sql;
    while let Some(at) = rest.find("trueup_") {
        let (before, name) = rest.split_at(at);
        let joined =
            before.chars().next_back().is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '"'));
        out.push_str(before);
        if !joined && !out.ends_with("INDEX ") {
            out.push_str(&prefix);
        }
        let (word, behind) = name.split_at("trueup_".len());
        out.push_str(word);
        rest = behind;
    }
    out.push_str(rest);
    out
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
        let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {NO_PATH}; SELECT 1");
        match timeout(most, connection.execute(AssertSqlSafe(begin))).await {
            Ok(Ok(_)) => Ok(Arc::new(PostgresSnapshot {
                place: self.place(),
                schema: Arc::clone(&self.schema),
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
    schema: Arc<str>,
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
            let done = statements(&mut connection, &self.schema, &steps).await?;
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

async fn transaction(
    connection: &mut PgConnection,
    schema: &str,
    steps: &[Step],
) -> Result<Vec<Given>, StoreError> {
    // A little less than the caller's patience: the server's own words come first.
    let most = patience(steps).saturating_sub(Duration::from_secs(2)).as_millis();
    let begin = AssertSqlSafe(format!("BEGIN; {NO_PATH}; SET LOCAL statement_timeout = {most}"));
    let mut transaction = connection.begin_with(begin).await.map_err(|error| failed(&error))?;
    let done = statements(&mut transaction, schema, steps).await;
    match &done {
        Ok(_) => transaction.commit().await.map_err(|error| failed(&error))?,
        Err(StoreError::Conflict(_)) => transaction.rollback().await.map_err(|error| failed(&error))?,
        Err(StoreError::Failed(_)) => {}
    }
    done
}

async fn statements(
    connection: &mut PgConnection,
    schema: &str,
    steps: &[Step],
) -> Result<Vec<Given>, StoreError> {
    let mut all = Vec::with_capacity(steps.len());
    for (at, step) in steps.iter().enumerate() {
        #[cfg(debug_assertions)]
        super::fail_point::statement();
        let mut query = sqlx::query(AssertSqlSafe(qualified(&step.sql, schema)));
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

#[cfg(test)]
mod tests {
    use super::qualified;

    #[test]
    fn tables_are_named_with_their_schema_and_indexes_without() {
        for (sql, is) in [
            (
                "SELECT a FROM trueup_runs WHERE trueup_runs.id = 1",
                "SELECT a FROM \"s\"\"x\".trueup_runs WHERE \"s\"\"x\".trueup_runs.id = 1",
            ),
            ("CREATE INDEX trueup_a_b ON trueup_a (b)", "CREATE INDEX trueup_a_b ON \"s\"\"x\".trueup_a (b)"),
            ("SELECT 1", "SELECT 1"),
            ("UPDATE no_trueup_runs", "UPDATE no_trueup_runs"),
        ] {
            assert_eq!(qualified(sql, "s\"x"), is);
        }
    }
}
