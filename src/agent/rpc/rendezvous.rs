//! Runs that wait for their source's agent to dial in, each under a word that is good for one meeting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::super::error::{AgentError, FailureKind};
use super::super::session::link::Link;
use crate::model::{Role, value::hex};

/// 128 random bits as hex: nobody meets a run that they were not told of.
const WORD_CHARS: usize = 32;

type Table = HashMap<String, oneshot::Sender<Link>>;

/// Makes a new word.
pub(super) fn new_word() -> Result<String, AgentError> {
    let mut word = [0; WORD_CHARS / 2];
    getrandom::fill(&mut word).map_err(|error| {
        AgentError::new(FailureKind::Resource, format!("the system has no randomness: {error}"))
    })?;
    Ok(hex(&word))
}

/// The waiting runs of one listening agent.
#[derive(Clone, Default)]
pub(super) struct Rendezvous {
    waiting: Arc<Mutex<Table>>,
}

/// A run's place in the table; it is given up when dropped.
pub(super) struct Arrival {
    word: String,
    link: oneshot::Receiver<Link>,
    table: Rendezvous,
}

impl Rendezvous {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait. A word that is waited for already is refused: its run is somebody else's.
    pub(super) fn announce(&self, word: &str) -> Result<Arrival, AgentError> {
        if word.len() != WORD_CHARS || !word.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(AgentError::protocol("the run's rendezvous is malformed"));
        }
        let (tx, link) = oneshot::channel();
        let mut table = self.table();
        if table.contains_key(word) {
            return Err(AgentError::protocol("the run's rendezvous is taken"));
        }
        table.insert(word.to_owned(), tx);
        Ok(Arrival { word: word.to_owned(), link, table: self.clone() })
    }

    /// Hands the link of a source that dialled in to the run that waits for it.
    pub(super) fn arrive(&self, word: &str, link: Link) -> Result<(), AgentError> {
        let waiting = self.table().remove(word);
        let nobody = || {
            AgentError::protocol("no run waits for this source")
                .with_hint("the run was stopped or has given up waiting; run the command again")
        };
        waiting.ok_or_else(nobody)?.send(link).map_err(|_| nobody())
    }
}

impl Arrival {
    /// The link to the source, once it has dialled in.
    pub(super) async fn link(mut self, patience: Duration) -> Result<Link, AgentError> {
        let met = tokio::time::timeout(patience, &mut self.link).await;
        met.ok().and_then(Result::ok).ok_or_else(|| {
            let what = format!("the source agent did not dial in within {} s", patience.as_secs());
            AgentError::new(FailureKind::Timeout, what)
                .with_hint("it must be able to reach the target's agent; run the command again")
                .on(Role::Source)
        })
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.link.close();
        let mut table = self.table.table();
        // The word may have been used up and announced anew: only an entry that leads here is removed.
        if table.get(&self.word).is_some_and(oneshot::Sender::is_closed) {
            table.remove(&self.word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> Link {
        Link::pair(Duration::from_secs(1)).0
    }

    #[tokio::test]
    async fn a_word_is_good_for_one_meeting() {
        let table = Rendezvous::default();
        let word = new_word().unwrap();
        let arrival = table.announce(&word).unwrap();
        assert!(table.announce(&word).is_err(), "the word is taken");
        table.arrive(&word, link()).unwrap();
        assert!(table.arrive(&word, link()).is_err(), "the word is used up");
        assert!(arrival.link(Duration::from_secs(1)).await.is_ok());
        assert!(table.table().is_empty());
    }

    #[tokio::test]
    async fn a_run_that_waited_in_vain_leaves_nothing_behind() {
        let table = Rendezvous::default();
        let word = new_word().unwrap();
        let error = table.announce(&word).unwrap().link(Duration::from_millis(20)).await.unwrap_err();
        assert_eq!((error.kind, error.side), (FailureKind::Timeout, Some(Role::Source)));
        drop(table.announce(&word).unwrap());
        assert!(table.table().is_empty());
        assert!(table.arrive(&word, link()).is_err());
    }

    #[test]
    fn a_stale_place_does_not_take_a_later_one_away() {
        let table = Rendezvous::default();
        let word = new_word().unwrap();
        let used = table.announce(&word).unwrap();
        table.arrive(&word, link()).unwrap();
        let _again = table.announce(&word).unwrap();
        drop(used);
        assert_eq!(table.table().len(), 1);
    }

    #[test]
    fn guessable_words_are_refused() {
        let table = Rendezvous::default();
        for word in ["", "1", "0123456789abcdef0123456789abcde", "0123456789abcdef0123456789abcdeg"] {
            assert!(table.announce(word).is_err(), "{word}");
        }
        assert_ne!(new_word().unwrap(), new_word().unwrap());
    }
}
