//! One state of one table, read once: by one reader, or by several at one position of MariaDB's binary log.
//!
//! MySQL cannot hand a snapshot from one session to another. On MariaDB a snapshot names its position in the binary
//! log (`binlog_snapshot_file`, `binlog_snapshot_position`), exactly; sessions at the same position see the same rows.
//! It needs a log of all changes: the login must be allowed to see (BINLOG MONITOR) that no database is left out of
//! it. In every other case there is one reader, which is always right. Writes by sessions that switched their own
//! logging off escape the position; what they tear is a suspect, and is read again by key like any other.
//!
//! There is no ORDER BY: InnoDB reads the clustered index in its order, and where it prefers a smaller covering index
//! (or one that serves the filter), that is faster, and nothing above relies on the order.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::mysql::{MySqlArguments, MySqlConnection};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, SqlSafeStr as _};
use tokio::task::JoinSet;

use super::catalogue::{of_table, texts};
use super::lane::Lane;
use super::lanes::{self, Ended};
use super::session::{Target, execute};
use super::statement::{quote, quote_table, select, where_all};
use super::{Facts, errors, fetch, stable};
use crate::engine::places::Encoding;
use crate::engine::shares::{Next, Shares};
use crate::engine::{EngineError, ErrorKind, RowSinks, Snapshot};
use crate::model::{ColumnType, TableAccess};

pub(super) const ISOLATION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ";
pub(super) const BEGIN: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
/// Tables below are read by one.
const PARALLEL_FROM: u64 = 200_000;
/// Ranges of keys per reader, so that uneven ones even out.
const RANGES_PER_READER: usize = 8;
pub(super) const ATTEMPTS: usize = 4;
/// A snapshot's place in the binary log.
pub(super) const POSITION: &str = "SHOW STATUS LIKE 'binlog\\_snapshot\\_%'";

pub(super) struct MySqlSnapshot {
    source: Source,
    readers: Readers,
}

enum Readers {
    Driver(Vec<MySqlConnection>),
    Lanes(Vec<Lane>),
}

/// What the readers share: the query, and which parts of the table are left.
pub(super) struct Source {
    pub access: Arc<TableAccess>,
    pub during: String,
    /// How long a row is awaited.
    pub idle_limit: Duration,
    /// Conditions that part the table, in the order of its keys; one that holds for all rows is the empty one.
    ranges: Vec<Option<String>>,
    shares: Shares,
}

impl Source {
    pub(super) fn is_filtered(&self) -> bool {
        self.access.filter.is_some()
    }

    /// The query of the next part of this reader, and whether it lies right behind the one before.
    pub(super) fn next(&self, reader: usize) -> Option<(String, bool)> {
        let Next { parts, goes_on } = self.shares.take(reader)?;
        let range = usize::try_from(parts.start).ok().and_then(|at| self.ranges.get(at)).cloned();
        let conditions: Vec<String> = range.flatten().into_iter().collect();
        let sql =
            format!("{}{}", select(&self.access), where_all(&conditions, self.access.filter.as_deref()));
        Some((sql, goes_on))
    }
}

impl MySqlSnapshot {
    pub(super) async fn open(
        target: &Target,
        facts: &Facts,
        access: Arc<TableAccess>,
        parallelism: usize,
    ) -> Result<Self, EngineError> {
        let during = format!("open a snapshot of {}", access.table);
        let failed = |error: sqlx::Error| errors::database(during.as_str(), &error);
        let (first, mut lanes) = tokio::join!(begin(target, &during), lanes::open(target, 1));
        let mut first = first?;
        check_filter(&mut first, facts, &access, &during).await?;
        let mut readers = Vec::new();
        if parallelism > 1 && facts.positions && can_part(&access) {
            let large = is_large(&mut first, facts, &access).await.map_err(failed)?;
            let together = large && logs_everything(&mut first).await;
            if together && !lanes.is_empty() {
                lanes.extend(lanes::open(target, parallelism - 1).await);
                lanes = lanes::at_one_position(lanes, target.timeout).await;
            } else if together {
                readers = beside(target, &during, &mut first, parallelism - 1).await?;
            }
        }
        let count = lanes.len().max(readers.len() + 1);
        let ranges = if count == 1 {
            vec![None]
        } else {
            let parts = part(&mut first, &access, count * RANGES_PER_READER).await;
            parts.map_err(|error| errors::reading(&during, false, &error))?
        };
        let readers = if lanes.is_empty() {
            readers.push(first);
            Readers::Driver(readers)
        } else {
            drop(first.close().await);
            Readers::Lanes(lanes)
        };
        let during = format!("read {}", access.table);
        let shares = Shares::new(ranges.len() as u64, count, 1);
        let source = Source { access, during, idle_limit: target.idle_limit, ranges, shares };
        Ok(Self { source, readers })
    }
}

/// The user's condition must be one whole expression: it is parsed as it stands and in parentheses, so that it can
/// neither close them nor bring a clause of its own.
async fn check_filter(
    connection: &mut MySqlConnection,
    facts: &Facts,
    access: &TableAccess,
    during: &str,
) -> Result<(), EngineError> {
    let Some(bare) = &access.filter else { return Ok(()) };
    for condition in [format!(" WHERE {bare}\n"), where_all(&[], Some(bare))] {
        let sql = format!("SELECT 1 FROM {}{condition}", quote_table(&access.table));
        let prepared = connection.prepare(AssertSqlSafe(sql).into_sql_str()).await;
        prepared.map_err(|error| errors::reading(during, true, &error))?;
    }
    stable::check_filter(connection, facts, bare, during).await
}

async fn begin(target: &Target, during: &str) -> Result<MySqlConnection, EngineError> {
    let mut connection = target.connect().await?;
    for sql in [ISOLATION, BEGIN] {
        execute(&mut connection, sql).await.map_err(|error| errors::database(during, &error))?;
    }
    Ok(connection)
}

/// Readers at the same position as the first; none where writers leave no moment for it.
async fn beside(
    target: &Target,
    during: &str,
    first: &mut MySqlConnection,
    count: usize,
) -> Result<Vec<MySqlConnection>, EngineError> {
    let failed = |error: sqlx::Error| errors::database(during, &error);
    let mut others = Vec::with_capacity(count);
    for _ in 0..count {
        match begin(target, during).await {
            Ok(other) => others.push(other),
            // The server has no room for more: fewer readers are as good.
            Err(error) if error.kind == ErrorKind::Busy => break,
            Err(error) => return Err(error),
        }
    }
    for _ in 0..ATTEMPTS {
        let wanted = position(first).await.map_err(failed)?;
        let mut same = wanted.is_some();
        for other in &mut others {
            same = same && position(other).await.map_err(failed)? == wanted;
        }
        if same {
            return Ok(others);
        }
        for reader in others.iter_mut().chain([&mut *first]) {
            execute(reader, BEGIN).await.map_err(failed)?;
        }
    }
    for other in others {
        drop(other.close().await);
    }
    Ok(Vec::new())
}

async fn position(connection: &mut MySqlConnection) -> Result<Option<(String, String)>, sqlx::Error> {
    Ok(position_of(&texts(connection, POSITION).await?))
}

pub(super) fn position_of(rows: &[Vec<Option<String>>]) -> Option<(String, String)> {
    let value = |name: &str| {
        let row = rows.iter().find(|row| {
            row.first().and_then(Option::as_deref).is_some_and(|found| found.eq_ignore_ascii_case(name))
        })?;
        row.get(1).cloned().flatten().filter(|value| !value.is_empty() && value != "none")
    };
    value("binlog_snapshot_file").zip(value("binlog_snapshot_position"))
}

/// The log leaves no database out, as far as the login may know.
async fn logs_everything(connection: &mut MySqlConnection) -> bool {
    match texts(connection, "SHOW MASTER STATUS").await {
        Ok(rows) => rows.first().is_some_and(|row| {
            row.get(2..4)
                .is_some_and(|lists| lists.iter().all(|list| list.as_deref().unwrap_or_default().is_empty()))
        }),
        Err(_) => false,
    }
}

fn can_part(access: &TableAccess) -> bool {
    access
        .key_columns()
        .first()
        .is_some_and(|column| matches!(column.ty, ColumnType::Int { .. }) && !column.as_text)
}

async fn is_large(
    connection: &mut MySqlConnection,
    facts: &Facts,
    access: &TableAccess,
) -> Result<bool, sqlx::Error> {
    let schema = access.table.schema.as_deref().or(facts.database.as_deref()).unwrap_or_default();
    let of = of_table(facts, schema, &access.table.name);
    let sql = format!("SELECT table_rows FROM information_schema.tables WHERE {of}");
    let rows = texts(connection, &sql).await?;
    let count: Option<u64> = rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok());
    Ok(count.is_some_and(|count| count >= PARALLEL_FROM))
}

/// Ranges of the leading key column, of equal width between its ends.
async fn part(
    connection: &mut MySqlConnection,
    access: &TableAccess,
    count: usize,
) -> Result<Vec<Option<String>>, sqlx::Error> {
    let Some(column) = access.key_columns().first() else { return Ok(vec![None]) };
    let name = quote(&column.name);
    let sql = format!("SELECT MIN({name}), MAX({name}) FROM {}", quote_table(&access.table));
    let rows = texts(connection, &sql).await?;
    let end = |at: usize| rows.first()?.get(at)?.as_deref()?.parse::<i128>().ok();
    let (Some(low), Some(high)) = (end(0), end(1)) else { return Ok(vec![None]) };
    Ok(ranges(&name, low, high, count))
}

fn ranges(name: &str, low: i128, high: i128, count: usize) -> Vec<Option<String>> {
    let parts = i128::try_from(count).unwrap_or(1);
    let mut cuts: Vec<i128> = (1..parts).map(|at| low + (high - low) * at / parts).collect();
    cuts.dedup();
    let mut ranges = Vec::with_capacity(cuts.len() + 1);
    let (Some(first), Some(last)) = (cuts.first(), cuts.last()) else { return vec![None] };
    // No key column is NULL; if one were, the row must not be left out without a word.
    ranges.push(Some(format!("({name} < {first} OR {name} IS NULL)")));
    for pair in cuts.windows(2) {
        if let [from, to] = pair {
            ranges.push(Some(format!("{name} >= {from} AND {name} < {to}")));
        }
    }
    ranges.push(Some(format!("{name} >= {last}")));
    ranges
}

#[async_trait]
impl Snapshot for MySqlSnapshot {
    async fn scan(self: Box<Self>, sinks: Arc<dyn RowSinks>) -> Result<(), EngineError> {
        let (source, ended) = (Arc::new(self.source), Ended::default());
        let mut tasks = JoinSet::new();
        match self.readers {
            Readers::Driver(readers) => {
                for (number, reader) in readers.into_iter().enumerate() {
                    tasks.spawn(read_ranges(reader, number, Arc::clone(&source), Arc::clone(&sinks)));
                }
            }
            Readers::Lanes(lanes) => {
                for (number, lane) in lanes.into_iter().enumerate() {
                    let (source, sinks) = (Arc::clone(&source), Arc::clone(&sinks));
                    let over = ended.told(Arc::clone(&sinks));
                    tasks.spawn_blocking(move || lanes::read(lane, number, &source, sinks.as_ref(), over));
                }
            }
        }
        drop(sinks);
        while let Some(done) = tasks.join_next().await {
            done.map_err(|error| {
                EngineError::new(ErrorKind::Database, source.during.clone(), error.to_string())
            })??;
        }
        Ok(())
    }
}

/// Takes ranges until there are none; each connection is given back by closing it.
async fn read_ranges(
    mut connection: MySqlConnection,
    number: usize,
    source: Arc<Source>,
    sinks: Arc<dyn RowSinks>,
) -> Result<(), EngineError> {
    let encoding = Encoding::begin(sinks, source.during.clone());
    while let Some((sql, mut goes_on)) = source.next(number) {
        let (access, filtered) = (&source.access, source.is_filtered());
        let arguments = MySqlArguments::default();
        let mut reading =
            fetch::Reading::start(&mut connection, access, &source.during, filtered, sql, arguments);
        reading.idle_limit = source.idle_limit;
        while let Some(batch) = reading.next().await? {
            if !encoding.push(batch, std::mem::replace(&mut goes_on, true)).await {
                // Dropped, not closed: the rest of the rows is not worth reading.
                return encoding.finish(&source.during).await.map(drop);
            }
        }
    }
    if encoding.finish(&source.during).await? {
        // The rows are all there: a connection that breaks now is no loss.
        drop(connection.close().await);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn ranges_part_the_keys() {
        assert_eq!(
            ranges("k", 5, 5, 8),
            [Some("(k < 5 OR k IS NULL)".to_owned()), Some("k >= 5".to_owned())]
        );
        assert_eq!(
            ranges("k", 0, 30, 3),
            [
                Some("(k < 10 OR k IS NULL)".to_owned()),
                Some("k >= 10 AND k < 20".to_owned()),
                Some("k >= 20".to_owned())
            ]
        );
        let wide = ranges("k", i128::from(i64::MIN), i128::from(u64::MAX), 16);
        assert_eq!(wide.len(), 16);
        assert_eq!(ranges("k", 0, 9, 1), [None]);
    }
}
