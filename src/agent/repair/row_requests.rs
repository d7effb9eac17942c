//! Rows of both sides by key: several requests on their way at once, of bounded size, and of wide rows only the cells that
//! differ. What a lookup does not find, and need not have found, is searched for by a scan of each side.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use super::super::compare::reread::Reread;
use super::super::compare::suspects::Suspect;
use super::super::error::AgentError;
use super::super::proto::{Fetch, frame::Kind};
use super::super::scan::find::search;
use super::super::scan::lookup;
use super::super::session::patch::{is_wide, pack_summaries, summary};
use super::super::session::too_large;
use super::super::session::wire::{Answer, pack_keys, unpack_answers};
use super::super::target::Target;
use crate::engine::Lookup;
use crate::model::{CanonicalRow, Key, Role, TableAccess};

const KEYS_MAX: usize = 4_096;
/// Bytes of keys that are asked for together, and that one more key may exceed.
pub(super) const ASKED_KEY_BYTES: usize = 4 << 20;
/// Bytes that the rows of one request come to, on each side.
const REQUEST_BYTES: usize = 4 << 20;
/// Requests on their way at once: enough to fill a long link, few enough that answers are fresh.
pub(super) const REQUESTS_AHEAD: usize = 4;
/// Keys searched for with one scan, and their bytes.
pub(super) const SEARCH_KEYS: usize = 20_000;
pub(super) const SEARCH_KEY_BYTES: usize = 4 << 20;

/// How rows are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct How {
    pub(super) digests_only: bool,
    /// One digest of all.
    pub(super) summed: bool,
    pub(super) by_scan: bool,
    /// Also rows outside of the run's condition.
    pub(super) unfiltered: bool,
}

/// What one side holds for some keys.
#[derive(Debug, Default)]
pub(super) struct Rows {
    rows: BTreeMap<Key, CanonicalRow>,
    unproven: HashSet<Key>,
}

impl Rows {
    pub(super) fn of(lookup: Lookup) -> Self {
        let rows = lookup.rows.into_iter().map(|row| (row.key, row.row)).collect();
        Self { rows, unproven: lookup.unproven.into_iter().collect() }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&CanonicalRow> {
        self.rows.get(key)
    }

    pub(super) fn is_unproven(&self, key: &Key) -> bool {
        self.unproven.contains(key)
    }

    fn take(&mut self, key: &Key) -> Option<CanonicalRow> {
        self.rows.remove(key)
    }

    fn bytes(&self) -> usize {
        self.rows.values().map(|row| row.as_bytes().len()).sum()
    }
}

/// A request that is on its way.
pub(super) struct Request {
    suspects: Vec<Suspect>,
    /// The target's rows, where they were read before it was sent.
    own: Option<Rows>,
    /// Their cells were sent with it.
    with_cells: bool,
}

/// Asks for rows by key, and learns how large they are.
#[derive(Debug)]
pub(super) struct RowRequests {
    /// Of an average row, in the target's scan and since.
    row_bytes: usize,
    /// Rows are so wide that their cells are asked for; unknown until the first are seen.
    wide: Option<bool>,
    /// Keys that the source last answered at a time, where that was fewer than it was asked for.
    source_most: Option<usize>,
}

impl RowRequests {
    pub(super) fn new(row_bytes: usize) -> Self {
        Self { row_bytes, wide: None, source_most: None }
    }

    /// Keys of the next request.
    pub(super) fn keys(&self) -> usize {
        let fitting = REQUEST_BYTES / self.row_bytes.max(1);
        fitting.clamp(1, self.source_most.unwrap_or(KEYS_MAX).clamp(1, KEYS_MAX))
    }

    fn learn(&mut self, rows: usize, bytes: usize) {
        if let Some(average) = bytes.checked_div(rows) {
            // Rows may be larger than those before them.
            self.row_bytes = average.max(self.row_bytes / 2);
        }
    }

    pub(super) fn learn_from(&mut self, found: &Rows) {
        self.learn(found.rows.len(), found.bytes());
    }

    /// Asks the source for the rows of these suspects; where rows are wide, with what is there already.
    pub(super) async fn send(
        &mut self,
        target: &mut Target<'_>,
        suspects: Vec<Suspect>,
        how: How,
    ) -> Result<Request, AgentError> {
        if self.wide == Some(false) || how.unfiltered {
            ask(target, suspects.iter().map(|suspect| &suspect.key), how).await?;
            return Ok(Request { suspects, own: None, with_cells: false });
        }
        let own = own_rows(target, &suspects, how).await?;
        self.learn(own.rows.len(), own.bytes());
        if self.wide.is_none() && !own.rows.is_empty() {
            self.wide = Some(is_wide(own.bytes() / own.rows.len(), target.access.row_columns().len()));
        }
        let with_cells = self.wide == Some(true);
        let mut cells = Vec::new();
        if with_cells {
            let summaries = suspects.iter().map(|suspect| {
                let row = suspect.source.and_then(|_| own.get(&suspect.key))?;
                summary(&target.key, row)
            });
            cells = pack_summaries(&summaries.collect::<Vec<_>>());
        }
        let keys = pack_keys(suspects.iter().map(|suspect| &suspect.key))?.into();
        let fetch = Fetch { keys, cells: cells.into(), ..Fetch::default() };
        target.session.send(Kind::Fetch(fetch)).await?;
        Ok(Request { suspects, own: Some(own), with_cells })
    }

    /// The answer to the oldest request, together with the target's rows; and the suspects that were not answered.
    pub(super) async fn receive(
        &mut self,
        target: &mut Target<'_>,
        request: Request,
        how: How,
    ) -> Result<(Vec<Reread>, Vec<Suspect>), AgentError> {
        let Request { mut suspects, own, with_cells } = request;
        let packed = target.session.receive_packed(None).await?;
        let mut own = match own {
            Some(own) => own,
            None => own_rows(target, &suspects, how).await?,
        };
        let answers = unpack_answers(&target.key, &packed)?;
        self.source_most = (answers.len() < suspects.len()).then_some(answers.len());
        let mut rest = unanswered(&mut suspects, answers.len())?;
        target.outcome.source_rows_reread += answers.len() as u64;
        let mut rereads = Vec::with_capacity(suspects.len());
        let (mut rows, mut bytes) = (0, 0);
        for (suspect, answer) in suspects.into_iter().zip(answers) {
            let there = own.take(&suspect.key);
            let mut unproven = [false, own.is_unproven(&suspect.key)];
            let source = match answer {
                Answer::Absent => None,
                Answer::Unproven => {
                    unproven[0] = true;
                    None
                }
                Answer::Row(row) => Some(row),
                Answer::Patch(patch) if with_cells => {
                    let row = there.as_ref().and_then(|own| patch.onto(&target.key, &suspect.key, own));
                    if row.is_none() {
                        // One short digest in four billion hides a change: from here on whole rows are asked for.
                        self.wide = Some(false);
                        rest.push(suspect);
                        continue;
                    }
                    row
                }
                Answer::Digest(_) | Answer::Patch(_) => return Err(less_than_a_row()),
            };
            for row in [&source, &there].into_iter().flatten() {
                rows += 1;
                bytes += row.as_bytes().len();
            }
            rereads.push(Reread { unproven, ..Reread::new(suspect, source, there) });
        }
        self.learn(rows, bytes);
        Ok((rereads, rest))
    }

    /// Reads both tables for these suspects: what is not found then is not there. Suspects that are more than is held at
    /// once come back.
    pub(super) async fn search(
        target: &mut Target<'_>,
        mut suspects: Vec<Suspect>,
        how: How,
    ) -> Result<(Vec<Reread>, Vec<Suspect>), AgentError> {
        let how = How { by_scan: true, ..how };
        let keys: Vec<Key> = suspects.iter().map(|suspect| suspect.key.clone()).collect();
        ask(target, keys.iter(), how).await?;
        let access = access_for(target, how);
        let own = search(target.agent, &access, &keys);
        let (packed, own) = tokio::try_join!(target.session.receive_packed(None), own)?;
        target.outcome.source_rows_reread += keys.len() as u64;
        target.outcome.target_rows_reread += keys.len() as u64;
        let answers = unpack_answers(&target.key, &packed)?;
        let mut rest = unanswered(&mut suspects, answers.len())?;
        let mut own_rows = own.rows;
        let mut rereads = Vec::with_capacity(suspects.len());
        for (suspect, answer) in suspects.into_iter().zip(answers) {
            if own.not_kept.contains(&suspect.key) {
                rest.push(suspect);
                continue;
            }
            let source = match answer {
                Answer::Absent => None,
                Answer::Row(row) => Some(row),
                Answer::Unproven | Answer::Digest(_) | Answer::Patch(_) => return Err(less_than_a_row()),
            };
            let there = own_rows.remove(&suspect.key);
            rereads.push(Reread::new(suspect, source, there));
        }
        if rereads.is_empty() && !rest.is_empty() {
            // Each search holds one row at least, unless the first keys of the two sides keep each other out.
            return Err(too_large(Role::Target));
        }
        Ok((rereads, rest))
    }
}

fn less_than_a_row() -> AgentError {
    AgentError::protocol("the source agent sent less than a row where a row was asked")
}

/// Cuts off the suspects that were not answered.
fn unanswered(suspects: &mut Vec<Suspect>, answers: usize) -> Result<Vec<Suspect>, AgentError> {
    if answers == 0 || answers > suspects.len() {
        return Err(AgentError::protocol("the source agent answered another number of keys than were asked"));
    }
    Ok(suspects.split_off(answers))
}

/// The oldest that are to be asked again, at most so many.
pub(super) fn take_some(unanswered: &mut VecDeque<Vec<Suspect>>, most: usize) -> Option<Vec<Suspect>> {
    let mut suspects = unanswered.pop_front()?;
    let rest = suspects.split_off(suspects.len().min(most));
    if !rest.is_empty() {
        unanswered.push_front(rest);
    }
    Some(suspects)
}

pub(super) async fn ask<'k>(
    target: &mut Target<'_>,
    keys: impl ExactSizeIterator<Item = &'k Key>,
    how: How,
) -> Result<(), AgentError> {
    let How { digests_only, summed, by_scan, unfiltered } = how;
    let keys = pack_keys(keys)?.into();
    let fetch = Fetch { keys, digests_only, summed, by_scan, unfiltered, ..Fetch::default() };
    target.session.send(Kind::Fetch(fetch)).await
}

fn access_for(target: &Target<'_>, how: How) -> Arc<TableAccess> {
    match how.unfiltered {
        true => Arc::new(TableAccess { filter: None, ..(*target.access).clone() }),
        false => Arc::clone(&target.access),
    }
}

async fn own_rows(target: &mut Target<'_>, suspects: &[Suspect], how: How) -> Result<Rows, AgentError> {
    let keys: Vec<Key> = suspects.iter().map(|suspect| suspect.key.clone()).collect();
    let access = access_for(target, how);
    look_up(target, &access, &keys).await
}

/// What the target holds for these keys.
pub(super) async fn look_up(
    target: &mut Target<'_>,
    access: &Arc<TableAccess>,
    keys: &[Key],
) -> Result<Rows, AgentError> {
    target.outcome.target_rows_reread += keys.len() as u64;
    lookup::look_up(target.agent, access, keys, &target.witnesses).await.map(Rows::of)
}
