//! The ledger's tables, in versions: each migration is one transaction and is never changed once it is released.

use super::LedgerError;
use super::chain::GENESIS;
use super::store::{Cell, Step, Store, StoreError, query};

/// Entry `n` takes a ledger from version `n` to `n + 1`. The SQL is common to SQLite and PostgreSQL.
const MIGRATIONS: &[&[&str]] = &[&[
    "CREATE TABLE trueup_runs (
        id TEXT PRIMARY KEY, kind TEXT NOT NULL, who TEXT NOT NULL, host TEXT NOT NULL, software TEXT NOT NULL,
        started_at TEXT NOT NULL, ended_at TEXT, outcome TEXT, error TEXT,
        source TEXT NOT NULL, target TEXT NOT NULL, target_reference TEXT NOT NULL,
        writes BIGINT NOT NULL, undoes TEXT, options TEXT NOT NULL, only_in_source TEXT, only_in_target TEXT,
        fingerprint TEXT)",
    "CREATE INDEX trueup_runs_started ON trueup_runs (started_at)",
    "CREATE TABLE trueup_tables (
        run TEXT NOT NULL REFERENCES trueup_runs (id) ON DELETE CASCADE, position BIGINT NOT NULL,
        source_table TEXT NOT NULL, target_table TEXT NOT NULL, verdict TEXT NOT NULL,
        plan_fingerprint TEXT, plan TEXT,
        source_rows BIGINT NOT NULL, target_rows BIGINT NOT NULL,
        missing BIGINT NOT NULL, changed BIGINT NOT NULL, extra BIGINT NOT NULL,
        inserted BIGINT NOT NULL, updated BIGINT NOT NULL, deleted BIGINT NOT NULL,
        not_written BIGINT NOT NULL, set_aside BIGINT NOT NULL,
        source_root TEXT NOT NULL, target_root TEXT NOT NULL, repaired_root TEXT, proved BIGINT NOT NULL,
        bytes BIGINT NOT NULL, milliseconds BIGINT NOT NULL,
        outcome TEXT NOT NULL, warnings TEXT NOT NULL, error TEXT, backfill TEXT,
        PRIMARY KEY (run, position))",
    "CREATE TABLE trueup_differences (
        run TEXT NOT NULL REFERENCES trueup_runs (id) ON DELETE CASCADE,
        table_position BIGINT NOT NULL, position BIGINT NOT NULL,
        kind TEXT NOT NULL, key TEXT NOT NULL, columns TEXT NOT NULL, reason TEXT,
        PRIMARY KEY (run, table_position, position))",
    "CREATE TABLE trueup_audit (
        seq BIGINT PRIMARY KEY, at TEXT NOT NULL, who TEXT NOT NULL, host TEXT NOT NULL, run TEXT NOT NULL,
        kind TEXT NOT NULL, target_table TEXT NOT NULL, key TEXT NOT NULL, operation TEXT NOT NULL,
        before TEXT NOT NULL, after TEXT NOT NULL, outcome TEXT NOT NULL, detail TEXT NOT NULL,
        prev TEXT NOT NULL, hash TEXT NOT NULL)",
    "CREATE INDEX trueup_audit_run ON trueup_audit (run, seq)",
    "CREATE TABLE trueup_audit_head (one BIGINT PRIMARY KEY, seq BIGINT NOT NULL, hash TEXT NOT NULL)",
    "INSERT INTO trueup_audit_head (one, seq, hash) VALUES (1, 0, '{genesis}')",
], &[
    "CREATE TABLE trueup_checks (
        run TEXT NOT NULL REFERENCES trueup_runs (id) ON DELETE CASCADE, position BIGINT NOT NULL,
        at TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, pair TEXT NOT NULL, source_table TEXT,
        status TEXT NOT NULL, result TEXT NOT NULL,
        PRIMARY KEY (run, position))",
    "CREATE INDEX trueup_checks_name ON trueup_checks (name, at)",
    "CREATE TABLE trueup_schedule (
        name TEXT PRIMARY KEY, timetable TEXT NOT NULL, due TEXT, fence BIGINT NOT NULL, owner TEXT, lease_until TEXT,
        last_run TEXT, last_at TEXT, last_status TEXT)",
    "CREATE TABLE trueup_incidents (
        key TEXT PRIMARY KEY, state TEXT NOT NULL, opened_at TEXT NOT NULL, seen_at TEXT NOT NULL, resolved_at TEXT,
        told_at TEXT, failures BIGINT NOT NULL, passes BIGINT NOT NULL, flaps BIGINT NOT NULL,
        run TEXT NOT NULL, result TEXT NOT NULL)",
    "CREATE TABLE trueup_outbox (
        id TEXT PRIMARY KEY, channel TEXT NOT NULL, incident TEXT NOT NULL, body TEXT NOT NULL, created_at TEXT NOT NULL,
        next_at TEXT NOT NULL, attempts BIGINT NOT NULL, owner TEXT, lease_until TEXT, sent_at TEXT, given_up_at TEXT,
        error TEXT)",
    "CREATE INDEX trueup_outbox_waiting ON trueup_outbox (channel, sent_at, given_up_at)",
], &[
    // Who runs it, and when that was last seen to live: a run that died is told from one that lives.
    "ALTER TABLE trueup_runs ADD COLUMN process TEXT",
    "ALTER TABLE trueup_runs ADD COLUMN beat_at TEXT",
    // What was found first, and at its worst.
    "ALTER TABLE trueup_incidents ADD COLUMN first TEXT",
    "ALTER TABLE trueup_incidents ADD COLUMN worst TEXT",
    // Messages that were sent together once are always sent together.
    "ALTER TABLE trueup_outbox ADD COLUMN batch TEXT",
    "ALTER TABLE trueup_outbox ADD COLUMN batch_at TEXT",
    "CREATE INDEX trueup_audit_table ON trueup_audit (target_table, seq)",
]];

const BOOTSTRAP_ATTEMPTS: u32 = 5;

/// Brings the ledger to this version; several programs may do so at once.
pub(super) async fn migrate(store: &dyn Store) -> Result<(), LedgerError> {
    let mut version = match version(store).await {
        Ok(version) => version,
        Err(_) => bootstrap(store).await?,
    };
    loop {
        let at = usize::try_from(version).unwrap_or(usize::MAX);
        let Some(migration) = MIGRATIONS.get(at) else { break };
        let claim = Step::one_change(
            "UPDATE trueup_ledger SET version = $1 WHERE version = $2",
            vec![Cell::int(version + 1), Cell::int(version)],
        );
        let ddl =
            migration.iter().map(|sql| Step::execute(sql.replace("{genesis}", GENESIS), Vec::new()).slow());
        match store.run(std::iter::once(claim).chain(ddl).collect()).await {
            Ok(_) => version += 1,
            // Somebody else has done it.
            Err(StoreError::Conflict(_)) => version = self::version(store).await?,
            Err(StoreError::Failed(error)) => return Err(error),
        }
    }
    if usize::try_from(version).is_ok_and(|version| version > MIGRATIONS.len()) {
        return Err(LedgerError::new(
            format!("the ledger has version {version}, made by a newer trueup"),
            format!("use that release; this one knows version {}", MIGRATIONS.len()),
        ));
    }
    Ok(())
}

async fn version(store: &dyn Store) -> Result<i64, LedgerError> {
    let rows = query(store, "SELECT version FROM trueup_ledger", Vec::new()).await?;
    rows.into_iter()
        .next()
        .map(|mut row| row.int())
        .ok_or_else(|| LedgerError::new("the ledger has no version", "its table trueup_ledger was emptied"))
}

/// Two that do this at the same moment may stand in each other's way once.
async fn bootstrap(store: &dyn Store) -> Result<i64, LedgerError> {
    let mut attempt = 0;
    loop {
        let made = store
            .run(vec![
                Step::execute(
                    "CREATE TABLE IF NOT EXISTS trueup_ledger (one BIGINT PRIMARY KEY, version BIGINT NOT NULL)",
                    Vec::new(),
                ),
                Step::execute(
                    "INSERT INTO trueup_ledger (one, version) VALUES (1, 0) ON CONFLICT DO NOTHING",
                    Vec::new(),
                ),
            ])
            .await;
        attempt += 1;
        match made {
            Ok(_) => return version(store).await,
            Err(error) if attempt == BOOTSTRAP_ATTEMPTS => return Err(error.into()),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}
