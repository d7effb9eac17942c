//! The source's side of one table's run: scans, answers the locate protocol, and sends rows by key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tokio_util::task::AbortOnDropHandle;

use super::error::{AgentError, FailureKind};
use super::life::Life;
use super::link::Link;
use super::local::LocalAgent;
use super::patch::{Patch, unpack_summaries};
use super::proto::{Accepted, Fetch, Rows, Scanned as ScannedFrame, frame::Kind};
use super::scan::{Scanned, run_error, scan_table};
use super::wire::{
    ANSWER_BYTES, Answer, FRAME_BYTES, pack_answers, pack_rows, sum_of, unpack_keys, unpack_plan,
};
use crate::locate::{self, LocateError, LocateOptions, Locator};
use crate::merkle::{DigestRun, RunView, SessionKey};
use crate::model::{Key, Role, RowRun, TableAccess};

/// A target may be busy this long between two questions before the source gives its session up.
const PATIENCE: Duration = Duration::from_secs(6 * 3600);
/// Keys one question may name.
const KEYS_MAX: usize = 20_000;
/// Keys fetched with one query.
const KEYS_PER_QUERY: usize = 500;
/// Entries of a streamed run fetched with one query at first, then as many as make up so many bytes; and queries under way
/// at once.
const RUN_CHUNK: u64 = 1_000;
const RUN_CHUNK_MIN: u64 = 16;
const RUN_CHUNK_MAX: u64 = 40_000;
const RUN_CHUNK_BYTES: u64 = 4 << 20;
const RUN_QUERIES: usize = 2;
/// Progress is told at these seconds of a scan, and then every last one: often enough to show life on both
/// ends, seldom enough that an equal table costs few bytes.
const PROGRESS_SECONDS: [u64; 4] = [1, 2, 4, 8];

/// Serves until the peer closes. An error is told to the peer before it is returned.
pub(super) async fn serve(agent: &LocalAgent, mut link: Link) -> Result<(), AgentError> {
    link.expect_silence(PATIENCE);
    let result = converse(agent, &mut link).await;
    // What the target itself has told need not be told to it; what it did against the rules is.
    if let Err(error) = &result
        && (error.side != Some(Role::Target) || error.kind == FailureKind::Protocol)
    {
        // The peer may be gone; then there is nobody to tell.
        let _ = link.sender().fail(error).await;
    }
    result.map_err(|error| error.on(Role::Source))
}

#[tracing::instrument(level = "info", skip_all, name = "source")]
async fn converse(agent: &LocalAgent, link: &mut Link) -> Result<(), AgentError> {
    let open = match link.recv_or_end().await? {
        Some(Kind::Open(open)) => open,
        Some(Kind::OpenMany(open)) => return super::roll_call::serve(agent, &open, link).await,
        _ => return Err(AgentError::protocol("the conversation did not begin with a plan")),
    };
    let (plan, session) = (unpack_plan(&open.plan)?, session_key(&open.session_key)?);
    agent.permit(&plan.source)?;
    let access = Arc::new(plan.access(Role::Source));
    check_columns(agent, &access, Role::Source).await?;
    link.send(Kind::Accepted(Accepted {})).await?;
    let Some((scanned, pending)) = scan(agent, link, &access, &session).await? else { return Ok(()) };
    let (run, tree) = (Arc::new(scanned.run), Arc::new(scanned.tree));
    let root = tree.root().as_bytes().to_vec().into();
    link.send(Kind::Scanned(ScannedFrame { root, count: tree.count() })).await?;
    let mut locator =
        Locator::new(locate::Role::Source, run, tree, LocateOptions::default()).map_err(locate_error)?;
    locator.start().map_err(locate_error)?;
    Source { agent, access, session, locator }.answer(link, pending).await
}

pub(super) fn session_key(bytes: &[u8]) -> Result<SessionKey, AgentError> {
    let key: [u8; 32] =
        bytes.try_into().map_err(|_| AgentError::protocol("the session key has another length"))?;
    Ok(SessionKey::new(key))
}

/// The table must still be what the plan was made from: a column that changed its type would be read as another.
pub(super) async fn check_columns(
    agent: &LocalAgent,
    access: &TableAccess,
    side: Role,
) -> Result<(), AgentError> {
    let schema = agent.engine.describe(&access.table).await?;
    for column in &access.columns {
        let now = schema.column(&column.name);
        if now.is_none_or(|now| now.ty != column.ty || now.declared != column.declared) {
            let what = format!(
                "column {} of the {side} table {} changed while the run was planned",
                column.name, access.table
            );
            return Err(AgentError::new(FailureKind::Usage, what)
                .with_hint("run the command again")
                .on(side));
        }
    }
    Ok(())
}

/// Scans, telling progress, and hears the peer meanwhile: `None` if it left. It may have asked its first question.
async fn scan(
    agent: &LocalAgent,
    link: &mut Link,
    access: &Arc<TableAccess>,
    session: &SessionKey,
) -> Result<Option<(Scanned, Option<Kind>)>, AgentError> {
    let rows = Arc::new(AtomicU64::new(0));
    let scan = scan_table(agent, access, session, &agent.limits, &rows);
    tokio::pin!(scan);
    let sender = link.sender();
    let mut pending = None;
    let mut beats = PROGRESS_SECONDS.iter().copied().chain(std::iter::repeat(PROGRESS_SECONDS[3]));
    let mut beat = Box::pin(tokio::time::sleep(Duration::from_secs(beats.next().unwrap_or(8))));
    loop {
        tokio::select! {
            scanned = &mut scan => return Ok(Some((scanned?, pending))),
            frame = link.recv_or_end(), if pending.is_none() => match frame? {
                Some(kind) => pending = Some(kind),
                None => return Ok(None),
            },
            () = &mut beat => {
                sender.send(Kind::Progress(rows.load(Ordering::Relaxed))).await?;
                beat = Box::pin(tokio::time::sleep(Duration::from_secs(beats.next().unwrap_or(8))));
            }
        }
    }
}

struct Source<'a> {
    agent: &'a LocalAgent,
    access: Arc<TableAccess>,
    session: SessionKey,
    locator: Locator<DigestRun>,
}

impl Source<'_> {
    async fn answer(mut self, link: &mut Link, mut pending: Option<Kind>) -> Result<(), AgentError> {
        loop {
            let kind = match pending.take() {
                Some(kind) => kind,
                None => match link.recv_or_end().await? {
                    Some(kind) => kind,
                    None => return Ok(()),
                },
            };
            match kind {
                Kind::Locate(bytes) => self.locate(link, &bytes).await?,
                Kind::Fetch(fetch) => self.fetch(link, &fetch).await?,
                Kind::StreamRun(run) => self.stream_run(link, run.run_id).await?,
                Kind::Progress(_) => {}
                Kind::Close(_) => return Ok(()),
                Kind::Greeting(_)
                | Kind::Open(_)
                | Kind::OpenMany(_)
                | Kind::Roots(_)
                | Kind::Accepted(_)
                | Kind::Scanned(_)
                | Kind::Rows(_)
                | Kind::Failure(_) => {
                    return Err(AgentError::protocol("the peer sent a frame out of order"));
                }
            }
        }
    }

    async fn locate(&mut self, link: &mut Link, bytes: &Bytes) -> Result<(), AgentError> {
        let message = locate::Message::decode(bytes).map_err(|error| locate_error(error.into()))?;
        self.locator.receive(message).map_err(locate_error)?;
        // Pulled one at a time: the link's bound is the backpressure.
        while let Some(message) = self.locator.next_outgoing().map_err(locate_error)? {
            link.send(Kind::Locate(message.encode().into())).await?;
        }
        Ok(())
    }

    async fn fetch(&mut self, link: &mut Link, fetch: &Fetch) -> Result<(), AgentError> {
        let keys = unpack_keys(&fetch.keys)?;
        if keys.len() > KEYS_MAX {
            return Err(AgentError::protocol("the peer asked for too many keys at once"));
        }
        let summaries = match fetch.cells.is_empty() {
            true => Vec::new(),
            false => unpack_summaries(&fetch.cells, keys.len())?,
        };
        let mut answers = Vec::with_capacity(keys.len());
        let mut bytes = 0;
        let (most, mut life) = (self.agent.pace.together_max(), Life::of(link));
        for chunk in keys.chunks(KEYS_PER_QUERY.min(most)) {
            life.through(self.agent.pace.admit(&self.agent.engine, chunk.len())).await?;
            let rows = self.agent.engine.fetch(&self.access, chunk).await?;
            let mut rows: std::collections::BTreeMap<Key, _> =
                rows.into_iter().map(|row| (row.key, row.row)).collect();
            for key in chunk {
                answers.push(match rows.remove(key) {
                    None => Answer::Absent,
                    Some(row) if fetch.digests_only || fetch.summed => {
                        Answer::Digest(self.session.row_digest(key.as_bytes(), row.as_bytes()))
                    }
                    Some(row) => {
                        bytes += row.as_bytes().len();
                        let told = summaries.get(answers.len()).filter(|summary| !summary.is_empty());
                        match told.and_then(|told| Patch::between(&self.session, key, &row, told)) {
                            Some(patch) => Answer::Patch(patch),
                            None => Answer::Row(row),
                        }
                    }
                });
            }
            // What was read a second ago is old: the rest is asked for again. A sum is of all of them.
            if bytes > ANSWER_BYTES || (!fetch.summed && answers.len() >= most) {
                break;
            }
        }
        if fetch.summed {
            let digests = answers.iter().map(|answer| match answer {
                Answer::Digest(digest) => Some(*digest),
                Answer::Absent | Answer::Row(_) | Answer::Patch(_) => None,
            });
            return send_packed(link, sum_of(&self.session, digests).0.to_vec()).await;
        }
        send_packed(link, pack_answers(&self.session, &answers)?).await
    }

    /// The rows of an announced run as they are now, in key order, then an empty part.
    async fn stream_run(&mut self, link: &mut Link, run_id: u32) -> Result<(), AgentError> {
        let range = self
            .locator
            .missing_run(run_id)
            .ok_or_else(|| AgentError::protocol("the peer asked for a run that was not announced"))?;
        let (view, distance) = (self.locator.view(), link.distance());
        let chunk = Arc::new(AtomicU64::new(RUN_CHUNK));
        let most = self.agent.pace.together_max() as u64;
        let chunks = futures::stream::unfold(range.start, |start| {
            let end = range.end.min(start + chunk.load(Ordering::Relaxed).min(most));
            std::future::ready((start < end).then_some((start..end, end)))
        });
        let mut parts = chunks
            .map(|part| {
                let (engine, access) = (Arc::clone(&self.agent.engine), Arc::clone(&self.access));
                let (session, view, chunk) = (self.session.clone(), Arc::clone(view), Arc::clone(&chunk));
                let pace = Arc::clone(&self.agent.pace);
                // On tasks of their own: the next rows are read and packed while these are on their way.
                let read = tokio::spawn(async move {
                    let keys = keys_between(&view, part.start, part.end)?;
                    pace.admit(&engine, keys.len()).await?;
                    let rows = engine.fetch_run(&access, &keys).await?.sorted();
                    let each = rows.bytes() as u64 / (rows.len() as u64).max(1);
                    let fitting = RUN_CHUNK_BYTES / each.max(1);
                    chunk.store(fitting.clamp(RUN_CHUNK_MIN, RUN_CHUNK_MAX), Ordering::Relaxed);
                    // An empty part would end the run: rows deleted meanwhile are simply not sent.
                    if rows.is_empty() { Ok(None) } else { pack_rows(&session, &rows, distance).map(Some) }
                });
                let read = AbortOnDropHandle::new(read);
                async {
                    read.await.unwrap_or_else(|_| Err(AgentError::protocol("a reader ended before its time")))
                }
            })
            .buffered(RUN_QUERIES);
        let mut life = Life::of(link);
        while let Some(packed) = life.through(parts.try_next()).await? {
            if let Some(packed) = packed {
                send_packed(link, packed).await?;
                life.shown();
            }
        }
        send_packed(link, pack_rows(&self.session, &RowRun::default(), distance)?).await
    }
}

fn keys_between(view: &DigestRun, start: u64, end: u64) -> Result<Vec<Key>, AgentError> {
    let mut keys = Vec::new();
    view.for_each_entry(start..end, &mut |key, _| {
        keys.push(Key::from(key));
        Ok(())
    })
    .map_err(|error| run_error("read the digest run", &error))?;
    Ok(keys)
}

async fn send_packed(link: &Link, packed: Vec<u8>) -> Result<(), AgentError> {
    let mut rest = Bytes::from(packed);
    loop {
        let part = rest.split_to(rest.len().min(FRAME_BYTES));
        let last = rest.is_empty();
        link.send(Kind::Rows(Rows { rows: part, last })).await?;
        if last {
            return Ok(());
        }
    }
}

pub(super) fn locate_error(error: LocateError) -> AgentError {
    match error {
        LocateError::Run(error) => run_error("read the digest run", &error),
        LocateError::Protocol(why) => AgentError::protocol(format!("{error}: {why}")),
        LocateError::Unproven { .. } | LocateError::Misuse(_) => AgentError::protocol(error.to_string()),
    }
}
