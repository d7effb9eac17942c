//! How hard a MySQL or MariaDB server is pressed: how far it is behind its primary, and what runs on it.

use std::time::Duration;

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue::texts;
use super::{Facts, errors, wire};
use crate::engine::{EngineError, ErrorKind, Pressure};

pub(super) async fn ask(
    connection: &mut MySqlConnection,
    facts: &Facts,
    lag: bool,
    running: bool,
) -> Result<Pressure, EngineError> {
    let mut pressure = Pressure::default();
    if running {
        let during = "ask the server how busy it is";
        let rows = texts(connection, "SHOW GLOBAL STATUS LIKE 'Threads_running'")
            .await
            .map_err(|error| errors::database(during, &error))?;
        let count =
            rows.first().and_then(|row| row.get(1).cloned().flatten()).and_then(|text| text.parse().ok());
        let count: u64 = count.ok_or_else(|| {
            EngineError::new(ErrorKind::Database, during, "the server does not tell Threads_running")
        })?;
        // The question itself is one of them.
        pressure.running = Some(count.saturating_sub(1));
    }
    if lag {
        pressure.lag = behind(connection, facts).await?;
    }
    Ok(pressure)
}

/// Of this server behind its primary; `None` where it follows none.
async fn behind(connection: &mut MySqlConnection, facts: &Facts) -> Result<Option<Duration>, EngineError> {
    let during = "ask the server how far it is behind its primary";
    let question = if facts.mariadb { "SHOW ALL SLAVES STATUS" } else { "SHOW REPLICA STATUS" };
    let rows = sqlx::raw_sql(AssertSqlSafe(question)).fetch_all(connection).await.map_err(|error| {
        let hint = if facts.mariadb { "GRANT SLAVE MONITOR" } else { "GRANT REPLICATION CLIENT" };
        errors::database(during, &error)
            .with_hint(format!("{hint} ON *.* TO the login, or leave --max-lag out"))
    })?;
    let mut most = None;
    for row in &rows {
        let at = ["Seconds_Behind_Source", "Seconds_Behind_Master"].into_iter().find_map(|name| {
            use sqlx::Column as _;
            row.columns().iter().position(|column| column.name() == name)
        });
        let seconds =
            at.and_then(|at| wire::raw(row, at)).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let seconds: u64 = seconds.and_then(|text| text.parse().ok()).ok_or_else(|| {
            EngineError::new(
                ErrorKind::Database,
                during,
                "replication does not run: nothing can be said of its lag",
            )
            .with_hint("start replication, or leave --max-lag out")
        })?;
        most = most.max(Some(Duration::from_secs(seconds)));
    }
    Ok(most)
}
