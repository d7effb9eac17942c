//! Connections with the settings that make reading reproducible and writing exact.

use std::str::FromStr;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlPool, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use url::Url;

use super::Facts;
use super::errors;
use crate::engine::inflow::{self, IDLE_LIMIT};
use crate::engine::{EngineError, ErrorKind, Manners};

/// The options of a URL that mean something here. Others would be ignored in silence, and a character set or a time
/// zone of one's own would change what is compared.
const OPTIONS: [&str; 10] = [
    "ssl-mode",
    "sslmode",
    "ssl-ca",
    "sslca",
    "ssl-cert",
    "sslcert",
    "ssl-key",
    "sslkey",
    "socket",
    "connect-timeout",
];

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const POOL_MAX: u32 = 8;
/// Prepared statements that a connection keeps; see `fetch::read_chunk`.
const STATEMENTS: usize = 200;

/// - UTC: timestamps are read as what they are stored as.
/// - Strict for all tables: what does not fit is an error and no truncation. Zero dates and dates that no calendar has
///   are written as they were read; 0 in an AUTO_INCREMENT column stays 0.
/// - A long wait for a slow reader: the scan's consumer sets the pace.
pub(super) const SETTINGS: &str = "SET NAMES utf8mb4, SESSION time_zone = '+00:00', \
    SESSION sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,ALLOW_INVALID_DATES,\
NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION', \
    SESSION foreign_key_checks = 1, SESSION unique_checks = 1, SESSION autocommit = 1, SESSION sql_auto_is_null = 0, \
    SESSION sql_select_limit = 18446744073709551615, SESSION sql_safe_updates = 0, SESSION sql_big_selects = 1, \
    SESSION net_write_timeout = 3600, SESSION net_read_timeout = 3600";

/// Where to connect, and what to call it (never the password).
#[derive(Clone)]
pub(super) struct Target {
    pub options: MySqlConnectOptions,
    /// The driver keeps its own to itself.
    pub password: Vec<u8>,
    pub shown: String,
    pub timeout: Duration,
    /// How long rows are awaited.
    pub idle_limit: Duration,
    /// What every session begins with.
    pub settings: String,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Target").field(&self.shown).finish()
    }
}

impl Target {
    pub(super) fn parse(text: &str) -> Result<Self, EngineError> {
        let usage = |what: String| {
            EngineError::new(ErrorKind::Usage, "read the database URL", what)
                .with_hint("write it as mysql://USER:PASSWORD@HOST:3306/DATABASE")
        };
        let text = match text.strip_prefix("mariadb://") {
            Some(rest) => format!("mysql://{rest}"),
            None => text.to_owned(),
        };
        let url = Url::parse(&text).map_err(|error| usage(error.to_string()))?;
        if url.scheme() != "mysql" {
            return Err(usage(format!("{} is no scheme of MySQL or MariaDB", url.scheme())));
        }
        let mut timeout = CONNECT_TIMEOUT;
        let mut socket = None;
        for (name, value) in url.query_pairs() {
            if !OPTIONS.contains(&name.as_ref()) {
                return Err(usage(format!("unknown option {name}; the options are {}", OPTIONS.join(", "))));
            }
            if name == "connect-timeout" {
                let seconds = value.parse().ok().filter(|seconds| *seconds > 0);
                timeout = Duration::from_secs(
                    seconds.ok_or_else(|| usage("connect-timeout is a number of seconds".to_owned()))?,
                );
            } else if name == "socket" {
                socket = Some(value.into_owned());
            }
        }
        let options = MySqlConnectOptions::from_str(&text)
            .map_err(|_| usage("an option's value or a percent escape is not valid".to_owned()))?;
        // One SET of our own follows; the driver would send another.
        let options = options
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(None)
            .set_names(false)
            .statement_cache_capacity(STATEMENTS)
            .disable_statement_logging();
        if url.host_str().is_none_or(str::is_empty) && socket.is_none() {
            return Err(usage("it names no host".to_owned()));
        }
        let place = socket.unwrap_or_else(|| format!("{}:{}", options.get_host(), options.get_port()));
        let shown = format!(
            "mysql://{}@{place}/{}",
            options.get_username(),
            options.get_database().unwrap_or_default()
        );
        let password = percent_encoding::percent_decode_str(url.password().unwrap_or_default()).collect();
        let (idle_limit, settings) = (IDLE_LIMIT, SETTINGS.to_owned());
        Ok(Self { options, password, shown, timeout, idle_limit, settings })
    }

    /// With what limits the server sets; each of the two products reads its own comment.
    pub(super) fn with(mut self, manners: &Manners) -> Self {
        self.idle_limit = manners.silence();
        if let Some(most) = manners.statement_timeout {
            let (seconds, milliseconds) = (most.as_secs_f64(), most.as_millis().max(1));
            self.settings.push_str(&format!(
                " /*M!100101 , SESSION max_statement_time = {seconds:.3} */ /*!50708 , SESSION max_execution_time = {milliseconds} */"
            ));
        }
        self
    }

    /// A connection of its own, outside the pool.
    pub(super) async fn connect(&self) -> Result<MySqlConnection, EngineError> {
        let attempt = async {
            let mut connection = self.options.connect().await?;
            execute(&mut connection, &self.settings).await?;
            Ok(connection)
        };
        match tokio::time::timeout(self.timeout, attempt).await {
            Ok(found) => found.map_err(|error: sqlx::Error| errors::connecting(&self.shown, &error)),
            Err(_) => Err(EngineError::new(
                ErrorKind::Unreachable,
                format!("connect to {}", self.shown),
                format!("no answer within {} s", self.timeout.as_secs()),
            )
            .with_hint("check host and port in the URL, and the firewalls between")),
        }
    }

    /// A pool for short work. Connects once, so that a wrong URL is known at once.
    pub(super) async fn pool(&self) -> Result<MySqlPool, EngineError> {
        drop(self.connect().await?.close().await);
        let settings = self.settings.clone();
        Ok(MySqlPoolOptions::new()
            .max_connections(POOL_MAX)
            .acquire_timeout(Duration::from_secs(60))
            .idle_timeout(Duration::from_secs(60))
            .after_connect(move |connection, _| {
                let settings = settings.clone();
                Box::pin(async move { execute(connection, &settings).await })
            })
            .connect_lazy_with(self.options.clone()))
    }
}

/// The statement that says how long a write waits for locks, of rows and of the table. MySQL counts whole seconds, from one;
/// MariaDB takes none as not to wait at all.
pub(super) fn lock_waits(facts: &Facts, most: Duration) -> String {
    let seconds = match (most < Duration::from_secs(1), facts.mariadb) {
        (true, true) => 0,
        _ => most.as_millis().div_ceil(1_000).clamp(1, 31_536_000),
    };
    format!(
        "SET SESSION innodb_lock_wait_timeout = {seconds}, SESSION lock_wait_timeout = {}",
        seconds.max(1)
    )
}

/// A statement without parameters and without result.
pub(super) async fn execute(connection: &mut MySqlConnection, sql: &str) -> Result<(), sqlx::Error> {
    let executing = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection);
    bounded(IDLE_LIMIT, executing).await.map(drop)
}

/// A server's answer, or the error that none came in this time: the connection may have died without a word.
pub(super) async fn bounded<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::Io(inflow::silence(limit))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let target = Target::parse("mariadb://app:se%40cret@db.example:3307/shop?ssl-mode=REQUIRED").unwrap();
        assert_eq!(target.shown, "mysql://app@db.example:3307/shop");
        assert!(!format!("{target:?}").contains("cret"));
        for bad in [
            "mysql:",
            "postgres://a@b/c",
            "mysql://a@b/c?charset=latin1",
            "mysql://a@b/c?ssl-mode=MAYBE",
            "mysql://a@b/c?connect-timeout=0",
            "nonsense",
        ] {
            let refused = Target::parse(bad);
            assert!(refused.is_err_and(|error| error.kind == ErrorKind::Usage), "{bad}");
        }
    }
}
