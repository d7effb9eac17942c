//! Filling gaps: long runs of rows that only the source has are streamed in key order and inserted as they come.

use std::collections::{BTreeMap, VecDeque};

use tokio_util::task::AbortOnDropHandle;

use super::error::AgentError;
use super::event::Event;
use super::judge::Reread;
use super::proto::{StreamRun, frame::Kind};
use super::settle::{Pass, Settlement};
use super::spool::Suspect;
use super::target::MissingRun;
use super::wire::unpack_rows;
use super::write::Writing;
use crate::merkle::{RowDigest, RowHasher};
use crate::model::{CanonicalRow, Key, RowRun};

/// Rows that the source has and the target had not when both were scanned.
pub(super) struct Missing {
    pub(super) rows: RowRun,
    digests: Vec<RowDigest>,
}

impl Missing {
    /// In parts of so many rows; none where there is no row.
    fn parts(self, most: usize) -> VecDeque<Self> {
        if self.rows.len() <= most {
            return Some(self).filter(|all| !all.rows.is_empty()).into_iter().collect();
        }
        let mut rows = self.rows.iter();
        let part = |digests: &[RowDigest]| Self {
            rows: rows.by_ref().take(digests.len()).collect(),
            digests: digests.to_vec(),
        };
        self.digests.chunks(most).map(part).collect()
    }

    /// Key, row and digest of each.
    pub(super) fn iter(&self) -> impl Iterator<Item = ((&[u8], &[u8]), &RowDigest)> {
        self.rows.iter().zip(&self.digests)
    }
}

/// One of them, as a suspect that was read again.
pub(super) fn missing_row(key: &[u8], row: &[u8], digest: RowDigest) -> Reread {
    let suspect = Suspect { key: Key::from(key), source: Some(digest), target: None, origin: Some(digest) };
    Reread { suspect, source: Some(CanonicalRow::new(row)), target: None }
}

/// Rows of a run on their way out of a packed part.
type Unpacking = AbortOnDropHandle<Result<Missing, AgentError>>;

/// Rows of a run that have arrived.
enum Part {
    /// None is there; those that may be written are on their way.
    Missing(Option<Writing>),
    /// Some are there by now.
    Mixed(Vec<Reread>),
}

impl Settlement<'_, '_> {
    /// Rows that only the source has, streamed in key order and inserted as they come.
    pub(super) async fn missing_run(&mut self, run: MissingRun) -> Result<(), AgentError> {
        if !self.writes() {
            // Over the limit: the run is known by its count alone.
            self.target.outcome.missing += run.count;
            self.target.outcome.left += run.count;
            self.parts.add(run.first.as_bytes(), run.count);
            return Ok(());
        }
        self.target.link.send(Kind::StreamRun(StreamRun { run_id: run.run_id })).await?;
        let (mut arrived, mut look) = (0, true);
        // A batch is announced and begun before the one before it has ended, and the one behind it unpacked meanwhile.
        let (mut writing, mut ready) = (None, VecDeque::new());
        let mut unpacking = Some(self.unpack_next().await?);
        loop {
            if ready.is_empty()
                && let Some(unpacked) = unpacking.take()
            {
                let missing =
                    unpacked.await.unwrap_or_else(|_| Err(AgentError::protocol("rows were not unpacked")))?;
                ready = missing.parts(self.target.agent.pace.together_max());
                // The part behind the last row is empty.
                if !ready.is_empty() {
                    unpacking = Some(self.unpack_next().await?);
                }
            }
            let next = match ready.pop_front() {
                None => None,
                Some(missing) => {
                    arrived += missing.rows.len() as u64;
                    Some(self.confirm_part(missing, look).await?)
                }
            };
            let stale = self.again.len();
            if let Some(writing) = writing.take() {
                self.end_writing(writing).await?;
                self.target.tell(Event::Worked { done: self.worked, of: self.of }).await?;
            }
            look = match next {
                None => break,
                Some(Part::Missing(begun)) => {
                    writing = begun;
                    self.again.len() > stale
                }
                // They are judged when nothing else is being written.
                Some(Part::Mixed(rereads)) => {
                    self.judge(rereads, Pass::Confirm).await?;
                    true
                }
            };
        }
        // Rows that the source deleted since its snapshot.
        let gone = run.count.saturating_sub(arrived);
        self.target.outcome.in_flight += gone;
        self.worked += gone;
        Ok(())
    }

    /// The next part of the run, each row with its digest.
    async fn unpack_next(&mut self) -> Result<Unpacking, AgentError> {
        let packed = self.receive_packed().await?;
        let session = self.target.session.clone();
        Ok(AbortOnDropHandle::new(tokio::task::spawn_blocking(move || {
            let rows = unpack_rows(&session, &packed)?;
            let mut hasher = RowHasher::new(&session);
            rows.iter().for_each(|(key, row)| hasher.push(key, row));
            Ok(Missing { rows, digests: hasher.take() })
        })))
    }

    /// An insert is conditional, so rows that are there by now need not be looked for: they come out as stale. Where
    /// that happens the target follows, and the next rows are looked for before they are called missing.
    async fn confirm_part(&mut self, missing: Missing, look: bool) -> Result<Part, AgentError> {
        let mut own = BTreeMap::new();
        if look {
            let keys: Vec<Key> = missing.rows.iter().map(|(key, _)| Key::from(key)).collect();
            let found = self.target.agent.engine.fetch(&self.target.access, &keys).await?;
            own.extend(found.into_iter().map(|row| (row.key, row.row)));
            self.target.outcome.target_rows_reread += keys.len() as u64;
        }
        self.target.outcome.source_rows_reread += missing.rows.len() as u64;
        if own.is_empty() && self.allow.insert && !self.target.task.options.sql {
            self.count_missing(&missing).await?;
            return Ok(Part::Missing(Some(self.begin_inserting(missing).await?)));
        }
        let some_there = !own.is_empty();
        let rereads: Vec<Reread> = missing
            .iter()
            .map(|((key, row), digest)| {
                let reread = missing_row(key, row, *digest);
                Reread { target: own.remove(&reread.suspect.key), ..reread }
            })
            .collect();
        if some_there {
            return Ok(Part::Mixed(rereads));
        }
        let (changes, rereads) = self.confirm_all(rereads).await?;
        Ok(Part::Missing(self.begin_writing(changes, rereads).await?))
    }

    /// Rows that are differences beyond doubt.
    async fn count_missing(&mut self, missing: &Missing) -> Result<(), AgentError> {
        let count = missing.rows.len() as u64;
        self.worked += count;
        self.target.outcome.missing += count;
        for ((key, row), digest) in missing.iter() {
            self.parts.add(key, 1);
            if self.told < self.target.task.options.details_max {
                self.tell_difference(&missing_row(key, row, *digest)).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_no_larger_than_asked_and_lose_nothing() {
        let missing = |rows: u8| {
            let mut all = RowRun::default();
            (0..rows).for_each(|n| all.push(&[n], &[n, n]));
            Missing { rows: all, digests: (0..rows).map(|n| RowDigest([n; 16])).collect() }
        };
        for (rows, most, sizes) in [
            (0, 5, vec![]),
            (5, 5, vec![5]),
            (12, 5, vec![5, 5, 2]),
            (3, usize::MAX, vec![3]),
            (2, 1, vec![1, 1]),
        ] {
            let parts = missing(rows).parts(most);
            assert_eq!(parts.iter().map(|part| part.rows.len()).collect::<Vec<_>>(), sizes);
            let told: Vec<_> = parts.iter().flat_map(Missing::iter).collect();
            for (n, ((key, row), digest)) in (0..rows).zip(&told) {
                assert_eq!((*key, *row, digest.0), (&[n][..], &[n, n][..], [n; 16]));
            }
        }
    }
}
