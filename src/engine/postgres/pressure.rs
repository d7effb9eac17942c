//! How hard a PostgreSQL server is pressed: what its standbys lack, and what runs on it.

use std::time::Duration;

use sqlx::Executor;
use sqlx::postgres::PgConnection;

use super::errors::engine_error;
use super::live::get;
use crate::engine::{EngineError, ErrorKind, Pressure};

pub(super) async fn ask(
    connection: &mut PgConnection,
    during: &str,
    lag: bool,
    running: bool,
) -> Result<Pressure, EngineError> {
    // Who may not see other sessions sees them without their state, which would look like calm.
    let row = connection
        .fetch_one(
            "SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE'), pg_catalog.pg_is_in_recovery(), \
             CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN \
                    (SELECT pg_catalog.max(extract(epoch FROM COALESCE(replay_lag, interval '0'))) FROM pg_catalog.pg_stat_replication)::float8 \
                  WHEN pg_catalog.pg_last_wal_receive_lsn() = pg_catalog.pg_last_wal_replay_lsn() THEN 0 \
                  ELSE extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())::float8 END, \
             (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity \
               WHERE state = 'active' AND backend_type = 'client backend' AND application_name <> 'trueup')",
        )
        .await
        .map_err(|e| engine_error(during, &e))?;
    let (sees_all, standby): (bool, bool) = (get(&row, 0)?, get(&row, 1)?);
    if !sees_all && (running || !standby) {
        let what = "this login does not see how far the standbys are, and what other sessions do";
        return Err(EngineError::new(ErrorKind::Permission, during, what)
            .with_hint("GRANT pg_monitor TO the login, or leave --max-lag and --max-running out"));
    }
    let behind: Option<f64> = get(&row, 2)?;
    let busy: i64 = get(&row, 3)?;
    Ok(Pressure {
        lag: behind.filter(|_| lag).and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok()),
        running: running.then(|| busy.unsigned_abs()),
    })
}
