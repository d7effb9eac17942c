//! A table under one snapshot: binary COPY by ctid ranges, as many readers as asked for.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::join_all;
use sqlx::Executor;
use sqlx::postgres::PgConnection;
use tokio::task::JoinSet;

use super::batch::{PgBatch, Piece, strip_header};
use super::decode::Decoder;
use super::lane::{Lane, LaneError};
use super::live::{self, get};
use super::parking::Idle;
use super::path::TrustedPaths;
use super::session::{READ, ask, unnamed};
use super::{PgEngine, errors, run, stable, statement, unreadable};
use crate::engine::places::{Encoding, Places, push_all};
use crate::engine::shares::Shares;
use crate::engine::{EngineError, ErrorKind, RawBatch, RowSinks, Snapshot};
use crate::model::TableAccess;

/// Below this many pages a second reader costs more than it brings.
const PAGES_PER_READER_MIN: u64 = 128;
/// Ranges per reader, so that none waits long for the last one.
const RANGES_PER_READER: u64 = 12;
const PAGES_PER_RANGE_MAX: u64 = 8192;

/// One state of a table, held by one transaction per reader.
pub(super) struct PgSnapshot {
    engine: PgEngine,
    access: Arc<TableAccess>,
    /// Holds the snapshot that lanes share.
    holder: Option<PgConnection>,
    readers: Vec<Reader>,
    decoder: Arc<Decoder>,
    source: Arc<Source>,
    /// Where connections go that have read their part: the next table's catalog queries find them warm.
    idle: Arc<Idle<PgConnection>>,
}

/// A connection in the snapshot's state.
enum Reader {
    Driver(PgConnection),
    Lane(Lane),
}

/// What the readers share: the query, and which pages are left.
struct Source {
    during: String,
    columns: String,
    from: String,
    filter: Option<String>,
    /// `None` where the relation cannot be divided: one range without bounds.
    pages: Option<u64>,
    shares: Shares,
    /// Nobody waits for rows any more; what blocks a thread cannot be dropped and looks here.
    ended: AtomicBool,
}

/// Pages that are read with one query.
fn step(pages: u64, readers: usize) -> u64 {
    (pages / (readers as u64 * RANGES_PER_READER)).clamp(1, PAGES_PER_RANGE_MAX)
}

/// Some pages of all as a condition, empty where there is nothing to bound. The last have no end, for the table may have grown.
fn bounds(range: &Range<u64>, pages: u64) -> String {
    let begin =
        (range.start > 0).then(|| format!("t.ctid OPERATOR(pg_catalog.>=) '({},0)'::tid", range.start));
    let end = (range.end < pages).then(|| format!("t.ctid OPERATOR(pg_catalog.<) '({},0)'::tid", range.end));
    begin.into_iter().chain(end).collect::<Vec<_>>().join(" AND ")
}

impl Source {
    fn copy(&self, pages: &Range<u64>) -> String {
        let range = self.pages.map_or_else(String::new, |all| bounds(pages, all));
        let conditions: Vec<&str> = [range.as_str(), self.filter.as_deref().unwrap_or("")]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect();
        let condition = if conditions.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", conditions.join(" AND "))
        };
        format!("COPY (SELECT {} FROM {} t{condition}) TO STDOUT (FORMAT binary)", self.columns, self.from)
    }

    fn lane_error(&self, error: LaneError) -> EngineError {
        errors::lane_error(&self.during, error, self.filter.is_some())
    }

    fn error(&self, error: &sqlx::Error) -> EngineError {
        if self.filter.is_some() {
            errors::filter_error(&self.during, error)
        } else {
            errors::engine_error(&self.during, error)
        }
    }
}

/// The first reader's transaction, and what it found.
struct First {
    connection: PgConnection,
    relation: live::Relation,
    decoder: Decoder,
    pages: Option<u64>,
    /// Sets the search path that the user's condition was read with.
    path: String,
}

impl PgSnapshot {
    pub(super) async fn take(
        engine: &PgEngine,
        access: Arc<TableAccess>,
        parallelism: usize,
    ) -> Result<Self, EngineError> {
        let during = format!("read {}", access.table);
        let mut first = begin_first(engine, &access, &during).await?;
        let large = first.pages.is_some_and(|pages| pages >= PAGES_PER_READER_MIN);
        let wanted = match first.pages {
            Some(pages) => u64::try_from(parallelism).unwrap_or(1).min(pages / PAGES_PER_READER_MIN).max(1),
            None => 1,
        };
        let (mut lanes, mut more) = (Vec::new(), Vec::new());
        if large && !engine.is_alone() {
            match export(&mut first.connection, &during).await? {
                Some(snapshot) => {
                    lanes = join_lanes(engine, &snapshot, &first.path, wanted).await;
                    if lanes.is_empty() && !engine.is_alone() {
                        more = join_readers(engine, &snapshot, &first.path, wanted - 1).await;
                    }
                }
                // The transaction is broken by the refusal; the table is read by one reader then.
                None => first = begin_first(engine, &access, &during).await?,
            }
        }
        let count = lanes.len().max(more.len() + 1);
        let pages = first.pages.filter(|_| count > 1);
        let shares = match pages {
            Some(pages) => Shares::new(pages.max(1), count, step(pages, count)),
            None => Shares::new(1, 1, 1),
        };
        let source = Source {
            during,
            columns: statement::select_list("t", &access),
            from: first.relation.from(),
            filter: statement::filter(&access),
            pages,
            shares,
            ended: AtomicBool::new(false),
        };
        let (holder, readers) = if lanes.is_empty() {
            let mut readers = vec![Reader::Driver(first.connection)];
            readers.extend(more.into_iter().map(Reader::Driver));
            (None, readers)
        } else {
            (Some(first.connection), lanes.into_iter().map(Reader::Lane).collect())
        };
        let (decoder, source) = (Arc::new(first.decoder), Arc::new(source));
        Ok(Self {
            engine: engine.clone(),
            access,
            holder,
            readers,
            decoder,
            source,
            idle: Arc::clone(&engine.idle),
        })
    }
}

async fn begin_first(engine: &PgEngine, access: &TableAccess, during: &str) -> Result<First, EngineError> {
    let mut connection = engine.acquire().await?;
    let begin = format!("{}; {}", engine.begin(READ), settings(engine.version));
    run(&mut connection, during, &begin).await?;
    let mut relation = live::find_planned(&mut connection, access).await?;
    if relation.is_table() {
        // Locked before the snapshot is taken, so that no TRUNCATE or rewrite comes between the two.
        let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", relation.from());
        if run(&mut connection, during, &format!("COMMIT; {begin}; {lock}")).await.is_err() {
            // A login with rights on columns only may read the table, but not lock it.
            run(&mut connection, during, &format!("ROLLBACK; {begin}")).await?;
        }
        relation = live::find_planned(&mut connection, access).await?;
    }
    let live = live::columns(&mut connection, &relation).await?;
    live::match_columns(access, &live)?;
    let path = check_filter(&mut connection, &engine.paths, &relation, access, during).await?;
    if relation.kind == 'v' {
        stable::check_view(&mut connection, &relation, during).await?;
    }
    let decoder = Decoder::new(access, engine.raw_text).map_err(|e| EngineError::row(during, &e))?;
    let pages = live::heap_pages(&mut connection, &relation, engine.version).await?;
    Ok(First { connection, relation, decoder, pages, path })
}

/// A reader may idle while the other side is slow; and a query whose client is gone ends soon, also where rows come seldom.
pub(super) fn settings(version: i32) -> &'static str {
    match version {
        170_000.. => {
            "SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL transaction_timeout = 0; SET LOCAL jit = off; \
             SET LOCAL client_connection_check_interval = '1s'"
        }
        140_000.. => {
            "SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL jit = off; \
             SET LOCAL client_connection_check_interval = '1s'"
        }
        110_000.. => "SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL jit = off",
        _ => "SET LOCAL idle_in_transaction_session_timeout = 0",
    }
}

/// So long another connection is waited for beside one that is inside a transaction.
pub(super) const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A state that other connections can be put in, if they are of the same server.
pub(super) struct Shared {
    /// The snapshot's name.
    name: String,
    /// A statement that fails on every server but the one that gave the name out.
    same_server: String,
}

/// The snapshot's name for others; `None` where the server does not give one out.
pub(super) async fn export(
    connection: &mut PgConnection,
    during: &str,
) -> Result<Option<Shared>, EngineError> {
    let asked = "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.pg_postmaster_start_time()::text, \
                 pg_catalog.current_database()::text";
    let rows = match ask(connection, asked.to_owned()).await {
        Ok(rows) => rows,
        Err(error) if errors::database(&error).is_some() => return Ok(None),
        Err(error) => return Err(errors::engine_error(during, &error)),
    };
    let Some(row) = rows.first() else { return Ok(None) };
    let (started, database): (String, String) = (get(row, 1)?, get(row, 2)?);
    let same_server = format!(
        "SELECT 1 / (pg_catalog.pg_postmaster_start_time() = {}::timestamptz AND pg_catalog.current_database() = {})::int4",
        statement::literal(&started),
        statement::literal(&database)
    );
    Ok(Some(Shared { name: get(row, 0)?, same_server }))
}

impl PgEngine {
    /// Begins a transaction that sees what the one sees that gave the snapshot out. A pooler may lead to another server, whose
    /// snapshot of that name would be another state.
    pub(super) fn import(&self, snapshot: &Shared) -> String {
        let name = statement::literal(&snapshot.name);
        let begin = self.begin(READ);
        format!("{begin}; SET TRANSACTION SNAPSHOT {name}; {}", snapshot.same_server)
    }
}

/// More readers of one snapshot: as many as the server, or a pooler before it, has connections for.
async fn join_readers(engine: &PgEngine, snapshot: &Shared, path: &str, more: u64) -> Vec<PgConnection> {
    let import = format!("{}; {path}", engine.import(snapshot));
    let joined = join_all((0..more).map(|_| async {
        let reader = async {
            let mut reader = engine.open().await.ok()?;
            run(&mut reader, "share the snapshot", &import).await.ok()?;
            run(&mut reader, "share the snapshot", settings(engine.version)).await.ok()?;
            Some(reader)
        };
        // A pooler without a free connection lets us wait, perhaps for the one that we hold ourselves.
        let joined = tokio::time::timeout(JOIN_TIMEOUT, reader).await;
        if joined.is_err() {
            engine.stay_alone();
        }
        joined.ok().flatten()
    }))
    .await;
    joined.into_iter().flatten().collect()
}

/// As `join_readers`, where the connection is one that a lane can make.
async fn join_lanes(engine: &PgEngine, snapshot: &Shared, path: &str, wanted: u64) -> Vec<Lane> {
    let import = format!("{}; {path}", engine.import(snapshot));
    let joined = join_all((0..wanted).map(|_| {
        let (engine, import) = (engine.clone(), import.clone());
        let deadline = Instant::now() + JOIN_TIMEOUT;
        tokio::task::spawn_blocking(move || {
            let lane = engine.lane(&[&import, settings(engine.version)], move || Instant::now() > deadline);
            if lane.is_none() && Instant::now() > deadline {
                engine.stay_alone();
            }
            lane
        })
    }))
    .await;
    joined.into_iter().filter_map(Result::ok).flatten().collect()
}

/// The user's condition must be one whole expression: it is parsed as it stands and in parentheses, so that it
/// can neither close them nor bring a clause of its own. A statement with parameters' protocol takes a single one only.
/// From here on the transaction has a path of trusted schemas for the names in the condition; what sets it is given back for
/// others that read with the condition.
pub(super) async fn check_filter(
    connection: &mut PgConnection,
    paths: &TrustedPaths,
    relation: &live::Relation,
    access: &TableAccess,
    during: &str,
) -> Result<String, EngineError> {
    let (Some(bare), Some(closed)) = (&access.filter, statement::filter(access)) else {
        return Ok(String::new());
    };
    let path = paths.set(connection, during, relation.oid).await?;
    let from = relation.from();
    for condition in [bare, &closed] {
        let sql = format!("EXPLAIN SELECT 1 FROM {from} t WHERE {condition}\n");
        connection.fetch_all(unnamed(sql)).await.map_err(|e| errors::unaccepted(during, &e))?;
    }
    stable::check_filter(connection, &from, bare, &closed, during).await?;
    Ok(path)
}

#[async_trait]
impl Snapshot for PgSnapshot {
    async fn scan(self: Box<Self>, sinks: Arc<dyn RowSinks>) -> Result<(), EngineError> {
        let mut tasks = JoinSet::new();
        let ended = Ended(Arc::clone(&self.source));
        for (number, reader) in self.readers.into_iter().enumerate() {
            let (source, decoder) = (self.source.clone(), self.decoder.clone());
            let sinks = Arc::clone(&sinks);
            match reader {
                Reader::Driver(connection) => {
                    let idle = Arc::clone(&self.idle);
                    tasks.spawn(read(connection, number, source, decoder, sinks, idle))
                }
                Reader::Lane(lane) => {
                    tasks.spawn_blocking(move || read_lane(lane, number, &source, &decoder, &sinks))
                }
            };
        }
        drop(sinks);
        let _held = self.holder;
        while let Some(done) = tasks.join_next().await {
            match done {
                Ok(Ok(true)) => {}
                // Dropping the set ends the others and closes their connections.
                Ok(Ok(false)) => return Ok(()),
                Ok(Err(error)) => {
                    // The others need not go on while the column is looked for.
                    drop((tasks, ended));
                    let named = unreadable::named(&self.engine, &self.access, &self.source.from, error);
                    return Err(named.await);
                }
                Err(_) => {
                    return Err(EngineError::new(
                        ErrorKind::Database,
                        self.source.during.clone(),
                        "a reader ended before its time",
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Reads ranges until none is left; `false` where nobody listens any more.
async fn read(
    mut connection: PgConnection,
    number: usize,
    source: Arc<Source>,
    decoder: Arc<Decoder>,
    sinks: Arc<dyn RowSinks>,
    idle: Arc<Idle<PgConnection>>,
) -> Result<bool, EngineError> {
    let encoding = Encoding::begin(sinks, source.during.clone());
    let mut batch = PgBatch::new(&decoder);
    // Whether the batch lies right behind the one before it.
    let mut goes_on = false;
    while let Some(next) = source.shares.take(number) {
        if !next.goes_on {
            let before = std::mem::replace(&mut batch, PgBatch::new(&decoder));
            if before.rows() > 0 && !encoding.push(before, goes_on).await {
                return encoding.finish(&source.during).await;
            }
            goes_on = false;
        }
        let sql = source.copy(&next.parts);
        let mut rows = connection.copy_out_raw(&sql).await.map_err(|e| source.error(&e))?;
        let mut head = true;
        while let Some(message) = rows.next().await {
            let message = message.map_err(|e| source.error(&e))?;
            let mut bytes: &[u8] = &message;
            if head {
                bytes = strip_header(bytes).ok_or_else(|| {
                    EngineError::new(
                        ErrorKind::Database,
                        source.during.clone(),
                        "COPY data without its header",
                    )
                })?;
                head = false;
            }
            if !batch.push(bytes) {
                let full = std::mem::replace(&mut batch, PgBatch::new(&decoder));
                if !encoding.push(full, std::mem::replace(&mut goes_on, true)).await {
                    return encoding.finish(&source.during).await;
                }
            }
        }
    }
    if batch.rows() > 0 {
        encoding.push(batch, goes_on).await;
    }
    let wanted = encoding.finish(&source.during).await?;
    // The rows are all there; a connection whose transaction does not end well is not used again.
    // Nor is one that ran SQL of the caller's own: the next caller may be another.
    if wanted && source.filter.is_none() && connection.execute("ROLLBACK").await.is_ok() {
        idle.give(connection);
    }
    Ok(wanted)
}

/// Tells lanes that the scan has ended or was dropped.
struct Ended(Arc<Source>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

/// As `read`, whole pieces at a time; rows are encoded here, while they are in the processor's cache.
fn read_lane(
    mut lane: Lane,
    number: usize,
    source: &Arc<Source>,
    decoder: &Arc<Decoder>,
    sinks: &Arc<dyn RowSinks>,
) -> Result<bool, EngineError> {
    let ended = {
        let (source, sinks) = (Arc::clone(source), Arc::clone(sinks));
        move || source.ended.load(Ordering::Relaxed) || sinks.is_closed()
    };
    lane.give_up_when(Box::new(ended.clone()));
    let mut places = Places::new(sinks.as_ref());
    while let Some(next) = source.shares.take(number) {
        let sink = places.sink(next.goes_on);
        lane.copy(&source.copy(&next.parts)).map_err(|e| source.lane_error(e))?;
        let mut first = true;
        while let Some((frames, rows)) = lane.piece().map_err(|e| source.lane_error(e))? {
            let piece = Piece { decoder: Arc::clone(decoder), frames, rows, first };
            first = false;
            let pushed = push_all(&piece, sink).map_err(|error| EngineError::row(&source.during, &error))?;
            if !pushed || ended() {
                return Ok(false);
            }
        }
    }
    places.finish();
    // The rows are all there; how the transaction ends no longer matters.
    let _ = lane.run("ROLLBACK");
    lane.close();
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_every_page_once_and_the_last_has_no_end() {
        let shares = Shares::new(100, 1, step(100, 2));
        let all: Vec<String> =
            std::iter::from_fn(|| shares.take(0)).map(|next| bounds(&next.parts, 100)).collect();
        assert_eq!(all.first().map(String::as_str), Some("t.ctid OPERATOR(pg_catalog.<) '(4,0)'::tid"));
        assert_eq!(all.last().map(String::as_str), Some("t.ctid OPERATOR(pg_catalog.>=) '(96,0)'::tid"));
        for pair in all.windows(2) {
            let end = pair[0].rsplit_once("t.ctid OPERATOR(pg_catalog.<) ").map(|(_, end)| end);
            assert!(
                end.is_some_and(|end| pair[1].starts_with(&format!("t.ctid OPERATOR(pg_catalog.>=) {end}")))
            );
        }
        assert_eq!(bounds(&(0..1), 1), "");
    }
}
