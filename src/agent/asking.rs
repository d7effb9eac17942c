//! Questions for rows by key, and their answers: several on their way at once, and of wide rows only the cells that differ.

use std::collections::{BTreeMap, VecDeque};

use super::error::AgentError;
use super::judge::Reread;
use super::patch::{is_wide, pack_summaries, summary};
use super::proto::{Fetch, frame::Kind};
use super::settle::{CHUNK, Settlement};
use super::spool::{SpoolReader, Suspect};
use super::wire::{Answer, pack_keys, unpack_answers};
use crate::model::{CanonicalRow, Key};

/// An answer larger than this makes the next question smaller.
const ANSWER_LARGE: usize = 2 << 20;

/// Keys that a question names at least.
const CHUNK_LEAST: usize = 8;

/// How a question about keys is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Rows,
    Digests,
    /// One digest of all.
    Sum,
}

type Rows = BTreeMap<Key, CanonicalRow>;

/// A question that is on its way.
pub(super) struct Question {
    suspects: Vec<Suspect>,
    /// The own rows, where they were read before it was asked.
    own: Option<Rows>,
    /// Their cells were told with it.
    told: bool,
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

impl Settlement<'_, '_> {
    pub(super) async fn ask_next(
        &mut self,
        reader: &mut SpoolReader,
        unanswered: &mut VecDeque<Vec<Suspect>>,
    ) -> Result<Option<Question>, AgentError> {
        let suspects = match take_some(unanswered, self.chunk) {
            Some(suspects) => suspects,
            None => reader.next_chunk(self.chunk)?,
        };
        if suspects.is_empty() {
            return Ok(None);
        }
        self.ask_rows(suspects).await.map(Some)
    }

    /// Asks for the rows of these suspects; where rows are wide, tells what is there already.
    pub(super) async fn ask_rows(&mut self, suspects: Vec<Suspect>) -> Result<Question, AgentError> {
        if self.wide == Some(false) {
            self.ask(suspects.iter().map(|suspect| &suspect.key), Asked::Rows).await?;
            return Ok(Question { suspects, own: None, told: false });
        }
        let own = self.own_rows(&suspects).await?;
        if self.wide.is_none() && !own.is_empty() {
            let bytes: usize = own.values().map(|row| row.as_bytes().len()).sum();
            self.wide = Some(is_wide(bytes / own.len(), self.target.access.row_columns().len()));
        }
        let told = self.wide == Some(true);
        let mut cells = Vec::new();
        if told {
            let summaries = suspects.iter().map(|suspect| {
                let row = suspect.source.and_then(|_| own.get(&suspect.key))?;
                summary(&self.target.session, row)
            });
            cells = pack_summaries(&summaries.collect::<Vec<_>>());
        }
        let keys = pack_keys(suspects.iter().map(|suspect| &suspect.key))?.into();
        let fetch = Fetch { keys, cells: cells.into(), ..Fetch::default() };
        self.target.link.send(Kind::Fetch(fetch)).await?;
        Ok(Question { suspects, own: Some(own), told })
    }

    pub(super) async fn ask<'k>(
        &self,
        keys: impl ExactSizeIterator<Item = &'k Key>,
        asked: Asked,
    ) -> Result<(), AgentError> {
        let (digests_only, summed) = (asked == Asked::Digests, asked == Asked::Sum);
        let fetch = Fetch { keys: pack_keys(keys)?.into(), digests_only, summed, ..Fetch::default() };
        self.target.link.send(Kind::Fetch(fetch)).await
    }

    async fn own_rows(&mut self, suspects: &[Suspect]) -> Result<Rows, AgentError> {
        let keys: Vec<Key> = suspects.iter().map(|suspect| suspect.key.clone()).collect();
        self.target.outcome.target_rows_reread += keys.len() as u64;
        let rows = self.target.agent.engine.fetch(&self.target.access, &keys).await?;
        Ok(rows.into_iter().map(|row| (row.key, row.row)).collect())
    }

    /// The answers to the oldest question, together with the own rows; and the suspects that were not answered.
    pub(super) async fn reread(
        &mut self,
        question: Question,
    ) -> Result<(Vec<Reread>, Vec<Suspect>), AgentError> {
        let Question { mut suspects, own, told } = question;
        let (packed, mut own) = match own {
            Some(own) => (self.receive_packed().await?, own),
            None => {
                let keys: Vec<Key> = suspects.iter().map(|suspect| suspect.key.clone()).collect();
                self.target.outcome.target_rows_reread += keys.len() as u64;
                let (engine, access) = (self.target.agent.engine.clone(), self.target.access.clone());
                let (packed, own) = tokio::join!(self.receive_packed(), engine.fetch(&access, &keys));
                (packed?, own?.into_iter().map(|row| (row.key, row.row)).collect())
            }
        };
        let answers = unpack_answers(&self.target.session, &packed)?;
        self.chunk = if answers.len() < suspects.len() {
            // The source allows no more at a time, or what it answers is large.
            answers.len().max(CHUNK_LEAST)
        } else if packed.len() > ANSWER_LARGE {
            (self.chunk / 2).max(CHUNK_LEAST)
        } else {
            (self.chunk * 2).min(CHUNK)
        };
        if answers.is_empty() || answers.len() > suspects.len() {
            return Err(AgentError::protocol(
                "the source agent answered another number of keys than were asked",
            ));
        }
        let mut rest = suspects.split_off(answers.len());
        self.target.outcome.source_rows_reread += answers.len() as u64;
        let mut rereads = Vec::with_capacity(suspects.len());
        for (suspect, answer) in suspects.into_iter().zip(answers) {
            let target = own.remove(&suspect.key);
            let source = match answer {
                Answer::Absent => None,
                Answer::Row(row) => Some(row),
                Answer::Patch(patch) if told => {
                    let session = &self.target.session;
                    let row = target.as_ref().and_then(|own| patch.onto(session, &suspect.key, own));
                    if row.is_none() {
                        // One short digest in four billion hides a change: from here on whole rows are asked for.
                        self.wide = Some(false);
                        rest.push(suspect);
                        continue;
                    }
                    row
                }
                Answer::Digest(_) | Answer::Patch(_) => {
                    return Err(AgentError::protocol(
                        "the source agent sent less than a row where a row was asked",
                    ));
                }
            };
            rereads.push(Reread { suspect, source, target });
        }
        Ok((rereads, rest))
    }

    /// One packed answer, put together from its frames.
    pub(super) async fn receive_packed(&mut self) -> Result<Vec<u8>, AgentError> {
        let mut packed = Vec::new();
        loop {
            match self.target.link.recv().await? {
                Kind::Rows(part) => {
                    packed.extend_from_slice(&part.rows);
                    if part.last {
                        return Ok(packed);
                    }
                }
                Kind::Progress(_) => {}
                _ => return Err(AgentError::protocol("the source agent sent a frame out of order")),
            }
        }
    }
}
