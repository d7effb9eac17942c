//! PostgreSQL: binary COPY out of one snapshot, by ctid ranges in parallel; writes in conditional batches.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Row};
use tokio::time::Instant;

use super::{Engine, EngineError, ErrorKind, Lookup, Manners, Pressure, Snapshot};
use crate::model::{
    Answer, Change, ChangeOutcome, EngineKind, Key, Question, Rounding, RowRun, ServerInfo, TableAccess,
    TableName, TableSchema,
};

use lane::Lane;

mod apply;
mod batch;
mod binary;
mod bind;
mod decode;
mod describe;
mod errors;
mod fetch;
mod lane;
mod live;
mod load;
pub(in crate::engine) mod measure;
mod near;
mod pressure;
mod range;
mod replace;
mod scan;
mod statement;
mod types;
mod write;

/// A host that does not answer is reported after this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Idle connections kept for the next call.
const IDLE_MAX: usize = 8;
/// A connection idle for longer is asked for a sign of life first.
const PING_AFTER: Duration = Duration::from_secs(5);

/// One PostgreSQL database.
#[derive(Clone)]
pub struct PgEngine {
    options: PgConnectOptions,
    /// What every session begins with.
    session: String,
    /// The URL without password, for messages.
    name: String,
    /// `server_version_num`.
    version: i32,
    product: String,
    idle: Arc<parking::Idle<PgConnection>>,
    lanes: Arc<parking::Idle<Lane>>,
}

impl fmt::Debug for PgEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgEngine")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// Connections between calls. A call that fails or is dropped halfway never gives its connection back.
mod parking {
    use super::{IDLE_MAX, Instant};
    use std::sync::{Mutex, PoisonError};

    pub(super) struct Idle<C>(Mutex<Vec<(C, Instant)>>);

    impl<C> Default for Idle<C> {
        fn default() -> Self {
            Self(Mutex::default())
        }
    }

    impl<C> Idle<C> {
        pub(super) fn take(&self) -> Option<(C, Instant)> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
        }

        pub(super) fn give(&self, connection: C) {
            let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE_MAX {
                idle.push((connection, Instant::now()));
            }
        }
    }
}

impl PgEngine {
    /// Connects once, so that a wrong URL fails here and now.
    pub async fn connect(url: &str) -> Result<Self, EngineError> {
        Self::connect_with(url, &Manners::default()).await
    }

    pub async fn connect_with(url: &str, manners: &Manners) -> Result<Self, EngineError> {
        let (options, name) = parse_url(url)?;
        let session = match manners.statement_timeout {
            Some(most) => format!("{SESSION}; SET statement_timeout = {}", most.as_millis().max(1)),
            None => SESSION.to_owned(),
        };
        let mut connection = open(&options, &name, &session).await?;
        let row = connection
            .fetch_one(
                "SELECT current_setting('server_version_num')::int4, current_setting('server_version')",
            )
            .await
            .map_err(|e| errors::engine_error(format!("ask {name} for its version"), &e))?;
        let read = |e: sqlx::Error| errors::engine_error(format!("ask {name} for its version"), &e);
        let version: i32 = row.try_get(0).map_err(read)?;
        let words: String = row.try_get(1).map_err(read)?;
        let product = format!("PostgreSQL {}", words.split(' ').next().unwrap_or_default());
        if version < 100_000 {
            return Err(EngineError::new(
                ErrorKind::Usage,
                format!("use {name}"),
                format!("{product} is older than this program understands"),
            )
            .with_hint("PostgreSQL 10 and later are supported"));
        }
        let engine =
            Self { options, session, name, version, product, idle: Arc::default(), lanes: Arc::default() };
        engine.idle.give(connection);
        Ok(engine)
    }

    /// A new connection with the session settings that make values reproducible.
    async fn open(&self) -> Result<PgConnection, EngineError> {
        open(&self.options, &self.name, &self.session).await
    }

    async fn acquire(&self) -> Result<PgConnection, EngineError> {
        while let Some((mut connection, since)) = self.idle.take() {
            if since.elapsed() < PING_AFTER || connection.ping().await.is_ok() {
                return Ok(connection);
            }
        }
        self.open().await
    }

    fn release(&self, connection: PgConnection) {
        self.idle.give(connection);
    }

    /// A lane that has begun with these statements; `None` where none can be had, or one of them fails. Blocks its thread.
    fn lane(&self, begin: &[&str], give_up: impl Fn() -> bool + Clone + Send + 'static) -> Option<Lane> {
        let begun = |mut lane: Lane, session: &[&str]| {
            lane.give_up_when(Box::new(give_up.clone()));
            session.iter().chain(begin).try_for_each(|sql| lane.run(sql)).ok().map(|()| lane)
        };
        // One that has waited may have been closed meanwhile.
        if let Some((lane, _)) = self.lanes.take()
            && let Some(lane) = begun(lane, &[])
        {
            return Some(lane);
        }
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let lane = Lane::open(&self.options, Box::new(move || Instant::now() > deadline))?;
        begun(lane, &[&self.session])
    }
}

/// What a role or database may have set otherwise, and what text forms depend on.
const SESSION: &str = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; \
    SET extra_float_digits = 1; SET bytea_output = 'hex'; SET xmlbinary = 'base64'; SET xmloption = 'content'; \
    SET standard_conforming_strings = on; SET row_security = on; SET transform_null_equals = off";

async fn open(options: &PgConnectOptions, name: &str, session: &str) -> Result<PgConnection, EngineError> {
    let database = options.get_database().unwrap_or_else(|| options.get_username()).to_owned();
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(options));
    let mut connection = match connecting.await {
        Ok(connected) => connected.map_err(|e| errors::connect_error(name, &database, &e))?,
        Err(_) => {
            return Err(EngineError::new(
                ErrorKind::Unreachable,
                format!("connect to {name}"),
                format!("no answer within {} seconds", CONNECT_TIMEOUT.as_secs()),
            )
            .with_hint("check host and port, and firewalls between"));
        }
    };
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(session.to_owned())))
        .await
        .map_err(|e| errors::engine_error(format!("prepare the session on {name}"), &e))?;
    Ok(connection)
}

fn parse_url(url: &str) -> Result<(PgConnectOptions, String), EngineError> {
    let usage = |what: &str| {
        EngineError::new(ErrorKind::Usage, "read the database URL", what)
            .with_hint("expected postgres://user:password@host:port/database?sslmode=...")
    };
    let parsed = url::Url::parse(url).map_err(|e| usage(&format!("not a URL: {e}")))?;
    if !matches!(parsed.scheme(), "postgres" | "postgresql") {
        return Err(usage("the scheme is not postgres"));
    }
    let options: PgConnectOptions =
        url.parse().map_err(|_| usage("an option or an encoded character is not valid"))?;
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    let place = match options.get_socket() {
        Some(socket) => format!("{}:{}", socket.display(), options.get_port()),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    let name = format!("postgres://{}@{place}/{database}", options.get_username());
    let options =
        if options.get_application_name().is_none() { options.application_name("trueup") } else { options };
    // Statements hold no values, but a log line for each is nobody's wish.
    let options = options.extra_float_digits(None).disable_statement_logging();
    Ok((options, name))
}

#[async_trait]
impl Engine for PgEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Postgres
    }

    async fn server(&self) -> Result<ServerInfo, EngineError> {
        let mut connection = self.acquire().await?;
        connection.ping().await.map_err(|e| errors::engine_error(format!("reach {}", self.name), &e))?;
        self.release(connection);
        Ok(ServerInfo {
            engine: EngineKind::Postgres,
            product: self.product.clone(),
            rounding: Rounding::HalfAwayFromZero,
        })
    }

    async fn tables(&self, schema: Option<&str>) -> Result<Vec<TableName>, EngineError> {
        let mut connection = self.acquire().await?;
        let tables = describe::tables(&mut connection, &self.name, schema).await?;
        self.release(connection);
        Ok(tables)
    }

    async fn describe(&self, table: &TableName) -> Result<TableSchema, EngineError> {
        let mut connection = self.acquire().await?;
        let described = describe::describe(&mut connection, &self.name, table).await?;
        self.release(connection);
        Ok(described)
    }

    async fn snapshot(
        &self,
        access: Arc<TableAccess>,
        parallelism: usize,
    ) -> Result<Box<dyn Snapshot>, EngineError> {
        Ok(Box::new(scan::PgSnapshot::take(self, access, parallelism).await?))
    }

    async fn lookup(&self, access: &Arc<TableAccess>, keys: &[Key]) -> Result<Lookup, EngineError> {
        if keys.is_empty() {
            return Ok(Lookup::default());
        }
        let mut connection = self.acquire().await?;
        let rows = fetch::fetch(&mut connection, access, keys).await?;
        self.release(connection);
        Ok(Lookup::of_statement(keys, rows, |_| false))
    }

    async fn fetch_run(&self, access: &Arc<TableAccess>, keys: &[Key]) -> Result<RowRun, EngineError> {
        if keys.is_empty() {
            return Ok(RowRun::default());
        }
        let mut connection = self.acquire().await?;
        let rows = range::fetch_run(self, &mut connection, access, keys).await?;
        self.release(connection);
        Ok(rows)
    }

    async fn insert(
        &self,
        access: &Arc<TableAccess>,
        rows: &RowRun,
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        let mut connection = self.acquire().await?;
        let outcomes = apply::insert(&mut connection, access, rows).await?;
        self.release(connection);
        Ok(outcomes)
    }

    async fn apply(
        &self,
        access: &Arc<TableAccess>,
        changes: &[Change],
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.acquire().await?;
        let outcomes = apply::apply(&mut connection, access, changes).await?;
        self.release(connection);
        Ok(outcomes)
    }

    async fn replace(
        &self,
        access: &Arc<TableAccess>,
        changes: &[Change],
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.acquire().await?;
        let outcomes = replace::replace(&mut connection, access, changes).await?;
        self.release(connection);
        Ok(outcomes)
    }

    fn statement(&self, access: &TableAccess, change: &Change) -> Result<String, EngineError> {
        statement::statement(access, change)
    }

    async fn measure(&self, question: &Question) -> Result<Answer, EngineError> {
        self.ask(question).await
    }

    async fn pressure(&self, lag: bool, running: bool) -> Result<Pressure, EngineError> {
        let mut connection = self.acquire().await?;
        let pressure = pressure::ask(&mut connection, &self.name, lag, running).await?;
        self.release(connection);
        Ok(pressure)
    }

    async fn check_writable(&self, access: &TableAccess) -> Result<(), EngineError> {
        let mut connection = self.acquire().await?;
        describe::check_writable(&mut connection, &self.name, access).await?;
        self.release(connection);
        Ok(())
    }
}

/// Runs SQL of our own making without parameters.
async fn run(connection: &mut PgConnection, during: &str, sql: &str) -> Result<(), EngineError> {
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned())))
        .await
        .map_err(|e| errors::engine_error(during, &e))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::parse_url;
    use crate::engine::ErrorKind;

    #[test]
    fn names_hold_no_password() {
        let (_, name) = parse_url("postgres://app:s3cret@db.example:6543/shop?sslmode=require").unwrap();
        assert_eq!(name, "postgres://app@db.example:6543/shop");
        let (_, name) = parse_url("postgresql://app:s3cret@%2Ftmp%2Fsocket/shop").unwrap();
        assert_eq!(name, "postgres://app@/tmp/socket:5432/shop");
    }

    #[test]
    fn wrong_urls_are_refused_without_repeating_them() {
        for bad in [
            "",
            "db",
            "mysql://a@b/c",
            "postgres://u:s3cret@h/db?sslmode=wrong",
            "postgres://u:s3cret@h:99999/db",
        ] {
            let error = parse_url(bad).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Usage, "{bad}");
            assert!(!format!("{error:?}").contains("s3cret"), "{bad}");
        }
    }
}
