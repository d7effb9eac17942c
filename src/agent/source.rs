//! The source's side of one table's run: scans, answers the locate protocol, and sends rows by key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::error::{AgentError, FailureKind};
use super::identity::{check_columns, check_identity};
use super::local::LocalAgent;
use super::proto::{
    Accepted, Concluded, Fetch, Moved, Rescan, Scanned as ScannedFrame, Unfound, frame::Kind,
};
use super::scan::find::search;
use super::scan::lookup::look_up;
use super::scan::moved::for_each_moved;
use super::scan::{Scanned, run_error, scan_table, witnesses};
use super::session::link::Link;
use super::session::patch::{Patch, Summary, unpack_summaries};
use super::session::wire::{
    ANSWER_BYTES, Answer, Distance, Summand, pack_answers, pack_entries, pack_keys, pack_rows, sum_of,
    unpack_keys, unpack_plan,
};
use super::session::{Exchanged, Session, locate_error, out_of_order, session_key};
use crate::locate::{self, LocateOptions, Locator};
use crate::merkle::{DigestRun, RootDigest, RowDigest, RunView, SessionKey};
use crate::model::{CanonicalRow, Key, Role, RowRun, TableAccess, TableSchema};

/// A target may be busy this long between two questions before the source gives its session up.
const TARGET_SILENCE_MAX: Duration = Duration::from_secs(6 * 3600);
/// Keys one question may name.
const KEYS_MAX: usize = 20_000;
/// Keys looked up with one query, if their rows are not too large together.
const KEYS_PER_QUERY: usize = 4_096;
/// Entries of a streamed run fetched with one query: as many as make up so many bytes; and queries under way at once.
const RUN_CHUNK_MIN: u64 = 1;
const RUN_CHUNK_MAX: u64 = 40_000;
const RUN_CHUNK_BYTES: u64 = 4 << 20;
const RUN_QUERIES: usize = 2;
/// Keys that have moved, in one frame.
const MOVED_TOGETHER: usize = 4_096;
/// Progress is told at these seconds of a scan, and then every last one: often enough to show life on both
/// ends, seldom enough that an equal table costs few bytes.
const PROGRESS_SECONDS: [u64; 4] = [1, 2, 4, 8];

/// Serves until the peer closes. An error is told to the peer before it is returned.
pub(super) async fn serve(agent: &LocalAgent, mut link: Link) -> Result<(), AgentError> {
    link.expect_silence(TARGET_SILENCE_MAX);
    let mut session = Session::new(link);
    let result = converse(agent, &mut session).await;
    // The target's own errors are not echoed to it, except where it broke the protocol.
    if let Err(error) = &result
        && (error.side != Some(Role::Target) || error.kind == FailureKind::Protocol)
    {
        session.fail(error).await;
    }
    result.map_err(|error| error.on(Role::Source))
}

#[tracing::instrument(level = "info", skip_all, name = "source")]
async fn converse(agent: &LocalAgent, session: &mut Session) -> Result<(), AgentError> {
    let open = match session.recv_or_end().await? {
        Some(Kind::Open(open)) => open,
        Some(Kind::OpenMany(open)) => return super::small_tables::serve(agent, &open, session).await,
        _ => return Err(AgentError::protocol("the conversation did not begin with a plan")),
    };
    let (plan, key) = (unpack_plan(&open.plan)?, session_key(&open.session_key)?);
    let access = agent.access(&plan, Role::Source)?;
    let schema = check_columns(agent, &access, Role::Source).await?;
    session.send(Kind::Accepted(Accepted {})).await?;
    let Some(scanned) = scan(agent, session, &access, &key).await? else { return Ok(()) };
    let Scanned { run, tree, row_bytes } = scanned;
    let (run, tree) = (Arc::new(run), Arc::new(tree));
    let root = tree.root();
    let scanned = ScannedFrame { root: root.as_bytes().to_vec().into(), count: tree.count() };
    session.send(Kind::Scanned(scanned)).await?;
    let mut locator =
        Locator::new(locate::Role::Source, run, tree, LocateOptions::default()).map_err(locate_error)?;
    locator.start().map_err(locate_error)?;
    let witnesses = witnesses(locator.view())?;
    Source { agent, access, key, schema, root, locator, witnesses, row_bytes }.answer(session).await
}

/// Scans, telling progress, and hears the peer meanwhile: `None` if it left. It may have asked its first question.
async fn scan(
    agent: &LocalAgent,
    session: &mut Session,
    access: &Arc<TableAccess>,
    key: &SessionKey,
) -> Result<Option<Scanned>, AgentError> {
    let rows = Arc::new(AtomicU64::new(0));
    let scan = scan_table(agent, access, key, &agent.limits, &rows);
    tokio::pin!(scan);
    let mut pending = None;
    let mut seconds = PROGRESS_SECONDS.iter().copied().chain(std::iter::repeat(PROGRESS_SECONDS[3]));
    let mut due = Box::pin(tokio::time::sleep(Duration::from_secs(seconds.next().unwrap_or(8))));
    let scanned = loop {
        tokio::select! {
            scanned = &mut scan => break scanned?,
            frame = session.recv_or_end(), if pending.is_none() => match frame? {
                Some(kind) => pending = Some(kind),
                None => return Ok(None),
            },
            () = &mut due => {
                session.report_progress(rows.load(Ordering::Relaxed));
                due = Box::pin(tokio::time::sleep(Duration::from_secs(seconds.next().unwrap_or(8))));
            }
        }
    };
    if let Some(kind) = pending {
        session.unread(kind);
    }
    Ok(Some(scanned))
}

struct Source<'a> {
    agent: &'a LocalAgent,
    access: Arc<TableAccess>,
    key: SessionKey,
    /// Of the table that was scanned.
    schema: TableSchema,
    /// What it held.
    root: RootDigest,
    locator: Locator<DigestRun>,
    /// Keys that the scan saw: a lookup that finds them works.
    witnesses: Vec<Key>,
    /// Of an average row, in the scan and since.
    row_bytes: usize,
}

impl Source<'_> {
    async fn answer(mut self, session: &mut Session) -> Result<(), AgentError> {
        match session.exchange(&mut self.locator, &mut |_| Ok(())).await? {
            Exchanged::Done => {}
            Exchanged::Other(Kind::Close(_)) | Exchanged::Ended => return Ok(()),
            Exchanged::Other(_) => return Err(out_of_order(Role::Target)),
        }
        loop {
            let Some(kind) = session.recv_or_end().await? else { return Ok(()) };
            match kind {
                Kind::Fetch(fetch) => self.fetch(session, &fetch).await?,
                Kind::StreamRun(run) => self.stream_run(session, run.run_id).await?,
                Kind::Rescan(Rescan {}) => self.rescan(session).await?,
                Kind::Conclude(_) => {
                    let check = check_identity(self.agent, &self.access, &self.schema, Role::Source);
                    session.working(check).await?;
                    session.send(Kind::Concluded(Concluded {})).await?;
                }
                Kind::Progress(_) => {}
                Kind::Close(_) => return Ok(()),
                _ => return Err(out_of_order(Role::Target)),
            }
        }
    }

    async fn fetch(&mut self, session: &mut Session, fetch: &Fetch) -> Result<(), AgentError> {
        let keys = unpack_keys(&fetch.keys)?;
        if keys.len() > KEYS_MAX {
            return Err(AgentError::protocol("the peer asked for too many keys at once"));
        }
        let summaries = match fetch.cells.is_empty() {
            true => Vec::new(),
            false => unpack_summaries(&fetch.cells, keys.len())?,
        };
        let access = match fetch.unfiltered {
            true => Arc::new(TableAccess { filter: None, ..(*self.access).clone() }),
            false => Arc::clone(&self.access),
        };
        if fetch.by_scan {
            let answers = session.working(self.search(&access, &keys)).await?;
            return session.send_packed(pack_answers(&self.key, &answers)?).await;
        }
        let mut answers = Vec::with_capacity(keys.len());
        let (mut bytes, most) = (0, self.agent.pace.together_max());
        while let Some(rest) = keys.get(answers.len()..).filter(|rest| !rest.is_empty()) {
            let chunk = &rest[..rest.len().min(self.keys_per_query()).min(most)];
            let lookup = session.working(look_up(self.agent, &access, chunk, &self.witnesses)).await?;
            let unproven: std::collections::HashSet<Key> = lookup.unproven.into_iter().collect();
            let mut rows: BTreeMap<Key, _> = lookup.rows.into_iter().map(|row| (row.key, row.row)).collect();
            self.learn_row_bytes(rows.values().map(|row: &CanonicalRow| row.as_bytes().len()));
            for key in chunk {
                answers.push(match rows.remove(key) {
                    None if unproven.contains(key) => Answer::Unproven,
                    None => Answer::Absent,
                    Some(row) if fetch.digests_only || fetch.summed => {
                        Answer::Digest(self.key.row_digest(key.as_bytes(), row.as_bytes()))
                    }
                    Some(row) => {
                        bytes += row.as_bytes().len();
                        self.answer_with(key, row, summaries.get(answers.len()))
                    }
                });
            }
            // What was read a second ago is old: the rest is asked for again. A sum is of all of them.
            if bytes > ANSWER_BYTES || (!fetch.summed && answers.len() >= most) {
                break;
            }
        }
        let packed = match fetch.summed {
            true => self.sum(&answers),
            false => pack_answers(&self.key, &answers)?,
        };
        session.send_packed(packed).await
    }

    fn answer_with(&self, key: &Key, row: CanonicalRow, summary: Option<&Summary>) -> Answer {
        let theirs = summary.filter(|summary| !summary.is_empty());
        match theirs.and_then(|theirs| Patch::between(&self.key, key, &row, theirs)) {
            Some(patch) => Answer::Patch(patch),
            None => Answer::Row(row),
        }
    }

    fn sum(&self, answers: &[Answer]) -> Vec<u8> {
        let held = answers.iter().map(|answer| match answer {
            Answer::Digest(digest) => Summand::Row(*digest),
            Answer::Absent => Summand::Absent,
            Answer::Unproven | Answer::Row(_) | Answer::Patch(_) => Summand::Unproven(Role::Source),
        });
        sum_of(&self.key, held).0.to_vec()
    }

    /// As many as a bounded answer holds.
    fn keys_per_query(&self) -> usize {
        (ANSWER_BYTES / self.row_bytes.max(1)).clamp(1, KEYS_PER_QUERY)
    }

    fn learn_row_bytes(&mut self, rows: impl ExactSizeIterator<Item = usize>) {
        let count = rows.len();
        if let Some(average) = rows.sum::<usize>().checked_div(count) {
            // Rows may be larger than those before them.
            self.row_bytes = average.max(self.row_bytes / 2);
        }
    }

    /// By reading the whole table: what is not found is not there. Rows that are more than one answer holds are left to be
    /// asked for again, as all behind the first of them.
    async fn search(&self, access: &Arc<TableAccess>, keys: &[Key]) -> Result<Vec<Answer>, AgentError> {
        let mut found = search(self.agent, access, keys).await?;
        let mut answers = Vec::with_capacity(keys.len());
        for key in keys {
            answers.push(match found.rows.remove(key) {
                Some(row) => Answer::Row(row),
                None if found.not_kept.contains(key) => break,
                None => Answer::Absent,
            });
        }
        Ok(answers)
    }

    /// The rows of an announced run as they are now, in key order, then an empty part. What a lookup does not find is named.
    async fn stream_run(&mut self, session: &mut Session, run_id: u32) -> Result<(), AgentError> {
        let range = self
            .locator
            .missing_run(run_id)
            .ok_or_else(|| AgentError::protocol("the peer asked for a run that was not announced"))?;
        let (view, distance) = (self.locator.view(), session.distance());
        let fitting = |bytes: u64| (RUN_CHUNK_BYTES / bytes.max(1)).clamp(RUN_CHUNK_MIN, RUN_CHUNK_MAX);
        let chunk = Arc::new(AtomicU64::new(fitting(self.row_bytes as u64)));
        let most = self.agent.pace.together_max() as u64;
        let chunks = futures::stream::unfold(range.start, |start| {
            let end = range.end.min(start + chunk.load(Ordering::Relaxed).min(most));
            std::future::ready((start < end).then_some((start..end, end)))
        });
        let mut parts = chunks
            .map(|part| {
                let (agent, access) = (self.agent.engine.clone(), Arc::clone(&self.access));
                let (key, view, chunk) = (self.key.clone(), Arc::clone(view), Arc::clone(&chunk));
                let pace = Arc::clone(&self.agent.pace);
                // On tasks of their own: the next rows are read and packed while these are on their way.
                let read = tokio::spawn(async move {
                    let entries = entries_between(&view, part.start, part.end)?;
                    let keys: Vec<Key> = entries.iter().map(|(key, _)| key.clone()).collect();
                    pace.admit(&agent, keys.len()).await?;
                    let rows = agent.fetch_run(&access, &keys).await?.sorted();
                    let each = rows.bytes() as u64 / (rows.len() as u64).max(1);
                    // Rows to come may be larger: twice as many as before at most.
                    let most = 2 * (part.end - part.start);
                    chunk.store(fitting(each).min(most), Ordering::Relaxed);
                    RunPart::of(&key, rows, entries, distance)
                });
                let read = AbortOnDropHandle::new(read);
                async {
                    read.await.unwrap_or_else(|_| Err(AgentError::protocol("a reader ended before its time")))
                }
            })
            .buffered(RUN_QUERIES);
        while let Some(part) = session.working(parts.try_next()).await? {
            // An empty part would end the run.
            if let Some(packed) = part.rows {
                session.send_packed(packed).await?;
            }
            if !part.unfound.is_empty() {
                let entries = pack_entries(&part.unfound)?.into();
                session.send(Kind::Unfound(Unfound { entries })).await?;
            }
        }
        session.send_packed(pack_rows(&self.key, &RowRun::default(), distance)?).await
    }

    /// Scans again, and names the keys that have moved since the first scan.
    async fn rescan(&self, session: &mut Session) -> Result<(), AgentError> {
        let rows = Arc::new(AtomicU64::new(0));
        let scan = scan_table(self.agent, &self.access, &self.key, &self.agent.limits, &rows);
        let Scanned { run: now, tree, .. } = session.working(scan).await?;
        if tree.root() != self.root {
            self.send_moved(session, now).await?;
        }
        session.send(Kind::Moved(Moved { keys: pack_keys([].iter())?.into(), last: true })).await
    }

    /// The keys that the first scan and another one do not hold alike.
    async fn send_moved(&self, session: &mut Session, now: DigestRun) -> Result<(), AgentError> {
        let (keys, mut moved) = mpsc::channel::<Vec<Key>>(2);
        let before = Arc::clone(self.locator.view());
        let compare = tokio::task::spawn_blocking(move || {
            let mut part = Vec::with_capacity(MOVED_TOGETHER);
            let mut send = |key: &[u8]| {
                part.push(Key::from(key));
                part.len() < MOVED_TOGETHER || keys.blocking_send(std::mem::take(&mut part)).is_ok()
            };
            for_each_moved(&before, &now, &mut send)?;
            // A closed channel: nobody wants the rest.
            let _ = keys.blocking_send(part);
            Ok(())
        });
        while let Some(part) = session.working(async { Ok(moved.recv().await) }).await? {
            let keys = pack_keys(part.iter())?.into();
            session.send(Kind::Moved(Moved { keys, last: false })).await?;
        }
        let early = Err(crate::merkle::RunError::Misuse("a comparison of two runs ended early"));
        let compared = compare.await.unwrap_or(early);
        compared.map_err(|error| run_error("compare two scans", &error))
    }
}

/// A part of a streamed run.
struct RunPart {
    /// Packed; `None` where none was found.
    rows: Option<Vec<u8>>,
    /// Entries of the scan that a lookup did not find.
    unfound: Vec<(Key, RowDigest)>,
}

impl RunPart {
    fn of(
        session: &SessionKey,
        rows: RowRun,
        mut entries: Vec<(Key, RowDigest)>,
        distance: Distance,
    ) -> Result<Self, AgentError> {
        if rows.len() == entries.len() {
            entries.clear();
        } else {
            // Both are in key order.
            let mut found = rows.iter().map(|(key, _)| key).peekable();
            entries.retain(|(key, _)| found.next_if(|found| *found == key.as_bytes()).is_none());
        }
        let rows = if rows.is_empty() { None } else { Some(pack_rows(session, &rows, distance)?) };
        Ok(Self { rows, unfound: entries })
    }
}

fn entries_between(view: &DigestRun, start: u64, end: u64) -> Result<Vec<(Key, RowDigest)>, AgentError> {
    let mut entries = Vec::new();
    view.for_each_entry(start..end, &mut |key, digest| {
        entries.push((Key::from(key), digest));
        Ok(())
    })
    .map_err(|error| run_error("read the digest run", &error))?;
    Ok(entries)
}
