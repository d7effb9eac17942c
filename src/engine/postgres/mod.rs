//! PostgreSQL: binary COPY out of one snapshot, by ctid ranges in parallel; writes in conditional batches.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor, Row};
use tokio::time::Instant;

use super::{Engine, EngineError, ErrorKind, LockWait, Lookup, Manners, Origin, Pressure, Snapshot};
use crate::model::{
    Allow, Answer, Change, ChangeOutcome, EngineKind, Key, PermittedChanges, PermittedExchange,
    PermittedInserts, Question, Rounding, RowRun, ServerInfo, TableAccess, TableName, TableSchema,
};

use known::Known;
use lane::Lane;
use session::{READ, WRITE, run};

mod apply;
mod batch;
mod binary;
mod bind;
mod decode;
mod describe;
mod errors;
mod exact;
mod fetch;
mod identity;
mod known;
mod lane;
mod live;
mod load;
mod meaning;
pub(in crate::engine) mod measure;
mod near;
mod passed_over;
mod path;
mod policies;
mod prepare;
mod pressure;
mod range;
mod read_back;
mod replace;
mod scan;
mod session;
mod stable;
mod statement;
mod target;
mod types;
mod unreadable;
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
    /// What every transaction begins with.
    settings: Arc<str>,
    manners: Manners,
    /// The URL without password, for messages.
    name: String,
    /// `server_version_num`.
    version: i32,
    product: String,
    /// The database's encoding promises nothing of a text's bytes (SQL_ASCII).
    raw_text: bool,
    /// What was described, for statements that are written without asking.
    known: Arc<Known>,
    paths: Arc<path::TrustedPaths>,
    /// A second connection could not be had beside one in a transaction: a pooler has no more for us.
    alone: Arc<AtomicBool>,
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
        let mut connection = open(&options, &name).await?;
        let row = connection
            .fetch_one(
                // Under whatever search path the session has: every name has its schema.
                "SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4, \
                        pg_catalog.current_setting('server_version'), \
                        pg_catalog.current_setting('server_encoding') OPERATOR(pg_catalog.=) 'SQL_ASCII'::pg_catalog.text",
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
        let raw_text: bool = row.try_get(2).map_err(read)?;
        let engine = Self {
            options,
            settings: session::settings(raw_text, manners.statement_timeout).into(),
            manners: *manners,
            name,
            version,
            product,
            raw_text,
            known: Arc::default(),
            paths: Arc::default(),
            alone: Arc::default(),
            idle: Arc::default(),
            lanes: Arc::default(),
        };
        engine.idle.give(connection);
        Ok(engine)
    }

    async fn open(&self) -> Result<PgConnection, EngineError> {
        open(&self.options, &self.name).await
    }

    /// Begins a transaction that depends on nothing that was set before it.
    fn begin(&self, mode: &str) -> String {
        format!("BEGIN {mode}; {}", self.settings)
    }

    /// As `begin`, of a transaction that writes.
    fn begin_writing(&self, wait: LockWait) -> String {
        let most = self.manners.lock_wait(wait).as_millis().clamp(1, 2_147_483_647);
        format!("{}; SET LOCAL lock_timeout = {most}", self.begin(WRITE))
    }

    fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Relaxed)
    }

    fn stay_alone(&self) {
        self.alone.store(true, Ordering::Relaxed);
    }

    /// A connection inside such a transaction, which only reads.
    async fn reading(&self, during: &str) -> Result<PgConnection, EngineError> {
        let mut connection = self.acquire().await?;
        run(&mut connection, during, &self.begin(READ)).await?;
        Ok(connection)
    }

    async fn done(&self, mut connection: PgConnection, during: &str) -> Result<(), EngineError> {
        run(&mut connection, during, "ROLLBACK").await?;
        self.release(connection);
        Ok(())
    }

    async fn acquire(&self) -> Result<PgConnection, EngineError> {
        while let Some((mut connection, since)) = self.idle.take() {
            if since.elapsed() < PING_AFTER || connection.ping().await.is_ok() {
                return Ok(connection);
            }
        }
        self.open().await
    }

    /// Gives a connection back that ran SQL of the caller's own, if `free`. The rollback has undone what that set, but not what lies
    /// outside of transactions: advisory locks, and what extensions keep. The next one to have it may be another caller.
    async fn release_cleared(&self, mut connection: PgConnection, free: bool) {
        if !free || connection.execute("DISCARD ALL").await.is_ok() {
            self.release(connection);
        }
    }

    fn release(&self, connection: PgConnection) {
        self.idle.give(connection);
    }

    /// A lane that has begun with these statements; `None` where none can be had, or one of them fails. Blocks its thread.
    fn lane(&self, begin: &[&str], give_up: impl Fn() -> bool + Clone + Send + 'static) -> Option<Lane> {
        let begun = |mut lane: Lane| {
            lane.give_up_when(Box::new(give_up.clone()));
            begin.iter().try_for_each(|sql| lane.run(sql)).ok().map(|()| lane)
        };
        // One that has waited may have been closed meanwhile.
        if let Some((lane, _)) = self.lanes.take()
            && let Some(lane) = begun(lane)
        {
            return Some(lane);
        }
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let lane = Lane::open(&self.options, Box::new(move || Instant::now() > deadline))?;
        begun(lane)
    }
}

async fn open(options: &PgConnectOptions, name: &str) -> Result<PgConnection, EngineError> {
    let database = options.get_database().unwrap_or_else(|| options.get_username()).to_owned();
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(options));
    match connecting.await {
        Ok(connected) => connected.map_err(|e| errors::connect_error(name, &database, &e)),
        Err(_) => Err(EngineError::new(
            ErrorKind::Unreachable,
            format!("connect to {name}"),
            format!("no answer within {} seconds", CONNECT_TIMEOUT.as_secs()),
        )
        .with_hint("check host and port, and firewalls between")),
    }
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
        let during = format!("list the tables of {}", self.name);
        let mut connection = self.reading(&during).await?;
        let tables = describe::tables(&mut connection, &during, schema).await?;
        self.done(connection, &during).await?;
        Ok(tables)
    }

    async fn left_out(&self, schema: Option<&str>) -> Result<Vec<String>, EngineError> {
        let during = format!("list the tables of {}", self.name);
        let mut connection = self.reading(&during).await?;
        let names = describe::left_out(&mut connection, &during, schema).await?;
        self.done(connection, &during).await?;
        Ok(names)
    }

    async fn describe(&self, table: &TableName) -> Result<TableSchema, EngineError> {
        let during = format!("describe {table}");
        let mut connection = self.reading(&during).await?;
        let (schema, relation) = describe::describe(&mut connection, &self.name, table).await?;
        let live = live::columns(&mut connection, &relation).await?;
        self.done(connection, &during).await?;
        self.known.remember(&schema, &relation, live);
        Ok(schema)
    }

    async fn origin(&self, table: &TableName) -> Result<Origin, EngineError> {
        let during = format!("look at which table {table} is");
        let mut connection = self.reading(&during).await?;
        let Some(relation) = live::find(&mut connection, table).await? else {
            return Err(EngineError::new(ErrorKind::NoSuchTable, during, "there is no such table"));
        };
        let origin = identity::origin(&mut connection, &relation).await?;
        self.done(connection, &during).await?;
        Ok(Origin::Postgres(origin))
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
        let found = fetch::lookup(self, &mut connection, access, keys).await?;
        self.release_cleared(connection, access.filter.is_some()).await;
        Ok(found)
    }

    async fn fetch_run(&self, access: &Arc<TableAccess>, keys: &[Key]) -> Result<RowRun, EngineError> {
        if keys.is_empty() {
            return Ok(RowRun::default());
        }
        let mut connection = self.acquire().await?;
        let rows = range::fetch_run(self, &mut connection, access, keys).await?;
        self.release_cleared(connection, access.filter.is_some()).await;
        Ok(rows)
    }

    async fn insert(
        &self,
        access: &Arc<TableAccess>,
        rows: &PermittedInserts,
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        let mut connection = self.acquire().await?;
        let outcomes = apply::insert(self, &mut connection, access, rows.rows()).await?;
        self.release(connection);
        Ok(outcomes)
    }

    async fn apply_within(
        &self,
        access: &Arc<TableAccess>,
        changes: &PermittedChanges,
        wait: LockWait,
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        let changes = changes.as_slice();
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.acquire().await?;
        let written = apply::apply(self, &mut connection, access, changes, wait).await;
        match &written {
            Ok(_) => self.release(connection),
            // The next attempt needs no new connection, and finds no locks of this one.
            Err(error) if error.kind == ErrorKind::Locked => self.done(connection, &error.during).await?,
            Err(_) => {}
        }
        written
    }

    async fn replace(
        &self,
        access: &Arc<TableAccess>,
        changes: &PermittedExchange,
    ) -> Result<Vec<ChangeOutcome>, EngineError> {
        let changes = changes.as_slice();
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.acquire().await?;
        let outcomes = replace::replace(self, &mut connection, access, changes).await?;
        self.release(connection);
        Ok(outcomes)
    }

    async fn statement(&self, access: &TableAccess, change: &Change) -> Result<String, EngineError> {
        statement::statement(access, change, &self.known.of(&access.table))
    }

    async fn measure(&self, question: &Question) -> Result<Answer, EngineError> {
        self.ask(question).await
    }

    async fn pressure(&self, lag: bool, running: bool) -> Result<Pressure, EngineError> {
        let during = format!("ask {} how busy it is", self.name);
        let mut connection = self.reading(&during).await?;
        let pressure = pressure::ask(&mut connection, &during, lag, running).await?;
        self.done(connection, &during).await?;
        Ok(pressure)
    }

    async fn check_writable(&self, access: &TableAccess, allow: Allow) -> Result<(), EngineError> {
        let during = format!("write {} in {}", access.table, self.name);
        let mut connection = self.acquire().await?;
        // Not a transaction that only reads, for whether others do is what is asked.
        let begin = format!("BEGIN; {}", self.settings);
        run(&mut connection, &during, &begin).await?;
        describe::check_writable(&mut connection, &during, access, allow).await?;
        self.done(connection, &during).await
    }
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
