//! What an audit trail and an undo journal are told of every batch: the intent before it is written, the outcome after.
//!
//! Rows stay with this agent: the trail gets keyed hashes and digests, the journal is encrypted and lies here.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::mpsc;

use super::error::{AgentError, FailureKind};
use super::event::{Event, HASH_DIGITS, Intents, RowIntent, RowOutcome};
use super::judge::Describer;
use super::settle::decode_error;
use super::target::Target;
use super::undo::own::OwnAccess;
use super::undo::{Journal, JournalHead, UndoStore};
use crate::engine::{Engine, EngineError};
use crate::merkle::{RowDigest, RowHasher, SessionKey};
use crate::model::canonical::DecodeError;
use crate::model::{CanonicalRow, Change, ChangeOutcome, Key, Plan, RowRun, TableSchema};

/// Rows that are put into the trail's words by one task.
const TOLD_TOGETHER: usize = 500;

/// The secret behind the hashes of one ledger's trail: who has it can find a key's entries, who has it not cannot guess
/// keys or rows from the trail.
#[derive(Clone, PartialEq, Eq)]
pub struct TrailSecret {
    bytes: [u8; 32],
    /// Derived from it: one for the keys of rows, one for rows.
    keys: [u8; 32],
    rows: [u8; 32],
}

impl TrailSecret {
    pub fn new(bytes: [u8; 32]) -> Self {
        Self {
            bytes,
            keys: blake3::derive_key("trueup 2026 audit trail, key of a row", &bytes),
            rows: blake3::derive_key("trueup 2026 audit trail, digest of a row", &bytes),
        }
    }

    /// Reads the secret from a file; makes one, for its owner's eyes alone, where there is none.
    pub fn load_or_make(path: &Path) -> Result<Self, AgentError> {
        super::undo::secret_file(path).map(Self::new)
    }

    /// Of a key as it is shown: pairs of column and text. 16 bytes in hex.
    pub fn key_hash(&self, table: &str, key: &[(String, String)]) -> String {
        self.hash_of(table, key.iter().map(|(name, text)| (name.as_str(), text.as_str())))
    }

    fn hash_of<'k>(&self, table: &'k str, key: impl Iterator<Item = (&'k str, &'k str)>) -> String {
        let mut named = Vec::new();
        key.for_each(|(name, text)| put_named(&mut named, name, text));
        hex_of(SessionKey::new(self.keys).row_digest(table.as_bytes(), &named))
    }

    /// Of a row's canonical bytes: the same row has the same digest in every run under the same plan.
    fn row_digest(&self, key: &Key, row: &CanonicalRow) -> String {
        hex_of(SessionKey::new(self.rows).row_digest(key.as_bytes(), row.as_bytes()))
    }

    /// The same of many rows that are to be inserted.
    fn inserts(&self, table: &str, describer: &Describer, rows: &RowRun) -> Result<Intents, DecodeError> {
        let hashers = [self.keys, self.rows].map(|secret| RowHasher::new(&SessionKey::new(secret)));
        let [mut keys, mut digests] = hashers;
        let (mut values, mut named) = (Vec::new(), Vec::new());
        for (key, row) in rows.iter() {
            named.clear();
            describer.named_key(key, &mut values, |name, text| put_named(&mut named, name, text))?;
            keys.push(table.as_bytes(), &named);
            digests.push(key, row);
        }
        let hex = |digests: Vec<RowDigest>| {
            let mut text = String::with_capacity(digests.len() * HASH_DIGITS);
            digests.into_iter().for_each(|digest| put_hex(&mut text, digest));
            text
        };
        Ok(Intents::Inserts { keys: hex(keys.take()), after: hex(digests.take()) })
    }
}

/// One column of a key, as it is hashed: each part behind its length, so that no two keys read alike.
fn put_named(out: &mut Vec<u8>, name: &str, text: &str) {
    for part in [name, text] {
        out.extend_from_slice(&(part.len() as u64).to_be_bytes());
        out.extend_from_slice(part.as_bytes());
    }
}

fn hex_of(digest: RowDigest) -> String {
    let mut text = String::with_capacity(HASH_DIGITS);
    put_hex(&mut text, digest);
    text
}

fn put_hex(text: &mut String, digest: RowDigest) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = [0; HASH_DIGITS];
    for (pair, byte) in hex.as_chunks_mut::<2>().0.iter_mut().zip(digest.0) {
        *pair = [byte >> 4, byte & 15].map(|half| DIGITS[usize::from(half)]);
    }
    // They are ASCII.
    text.push_str(std::str::from_utf8(&hex).unwrap_or_default());
}

impl fmt::Debug for TrailSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrailSecret(secret)")
    }
}

impl Serialize for TrailSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::undo::hex(&self.bytes))
    }
}

impl<'de> Deserialize<'de> for TrailSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::undo::unhex(&text).map(Self::new).ok_or_else(|| serde::de::Error::custom("no 32 bytes in hex"))
    }
}

/// What the coordinator wants to be told of every row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrailWish {
    pub secret: TrailSecret,
    /// Tell keys as they are, not hashed.
    pub plain_keys: bool,
}

impl TrailWish {
    pub fn key(&self, table: &str, key: &[(String, String)]) -> String {
        self.key_of(table, key.iter().map(|(name, text)| (name.as_str(), text.as_str())))
    }

    fn key_of<'k>(&self, table: &'k str, key: impl Iterator<Item = (&'k str, &'k str)>) -> String {
        if self.plain_keys { plain_key_of(key) } else { self.secret.hash_of(table, key) }
    }
}

/// `id=7 line=2`.
pub fn plain_key(key: &[(String, String)]) -> String {
    plain_key_of(key.iter().map(|(name, text)| (name.as_str(), text.as_str())))
}

fn plain_key_of<'k>(key: impl Iterator<Item = (&'k str, &'k str)>) -> String {
    key.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// The trail of one table's writes.
pub(super) struct Trail {
    wish: Option<TrailWish>,
    events: mpsc::Sender<Event>,
    engine: Arc<dyn Engine>,
    /// The table's name at the target.
    table: String,
    journal: Keeping,
    /// Of the batch that was told last.
    batch: u64,
}

/// A batch that was told, and is to be answered for.
#[must_use]
#[derive(Debug)]
pub(super) struct Intent {
    batch: u64,
    rows: usize,
}

enum Keeping {
    Nothing,
    /// The journal is begun with the first batch.
    Waiting {
        store: UndoStore,
        head: Box<JournalHead>,
        own: OwnAccess,
    },
    Open {
        journal: Box<Journal>,
        own: OwnAccess,
    },
}

impl Trail {
    /// For a diff or a dry run, nothing is ever told.
    pub(super) async fn of_repair(target: &Target<'_>, schema: &TableSchema) -> Result<Self, AgentError> {
        let options = &target.task.options;
        let store = target.agent.undo.as_ref().filter(|_| target.writes() && !options.no_undo);
        let journal = match (store, &options.run) {
            (Some(store), Some(run)) => {
                let server = target.agent.engine.server().await?;
                let own = OwnAccess::of(&target.task.plan, schema, &server);
                Keeping::wait(store, run, &target.task.plan, own)
            }
            _ => Keeping::Nothing,
        };
        Ok(Self::new(
            target.agent.engine.clone(),
            target.events,
            &target.task.plan,
            options.trail.clone(),
            journal,
        ))
    }

    fn new(
        engine: Arc<dyn Engine>,
        events: &mpsc::Sender<Event>,
        plan: &Plan,
        wish: Option<TrailWish>,
        journal: Keeping,
    ) -> Self {
        let (table, events) = (plan.target.to_string(), events.clone());
        Self { wish, events, engine, table, journal, batch: 0 }
    }

    /// For an undo of a journal with this head, which keeps a journal of its own.
    pub(super) fn of_undo(
        engine: Arc<dyn Engine>,
        events: &mpsc::Sender<Event>,
        head: &JournalHead,
        wish: Option<TrailWish>,
        keep: Option<(&UndoStore, &str)>,
    ) -> Self {
        let journal = keep.map_or(Keeping::Nothing, |(store, run)| {
            Keeping::wait(store, run, &head.plan, OwnAccess::read(head))
        });
        Self::new(engine, events, &head.plan, wish, journal)
    }

    pub(super) fn keeps_undo(&self) -> bool {
        matches!(self.journal, Keeping::Open { .. })
    }

    /// Before a batch: what it overwrites is on disk, and the intent is told, when this returns.
    pub(super) async fn intend(
        &mut self,
        describer: &Describer,
        changes: &[Change],
        replace: bool,
    ) -> Result<Intent, AgentError> {
        let intent = self.next(changes.len()).await?;
        if let Keeping::Open { journal, own } = &mut self.journal {
            let before = own.fetch(self.engine.as_ref(), changes).await?;
            journal.batch(self.batch, replace, changes.iter().zip(&before)).await?;
        }
        let Some(wish) = &self.wish else { return Ok(intent) };
        let told = |change: &Change| {
            let key = describer.key_texts(&change.key).map_err(decode_error)?;
            let digest =
                |row: &Option<CanonicalRow>| row.as_ref().map(|row| wish.secret.row_digest(&change.key, row));
            Ok(RowIntent {
                key: wish.key_of(&self.table, describer.names().zip(key.iter().map(String::as_str))),
                operation: change.operation(),
                before: digest(&change.before),
                after: digest(&change.after),
            })
        };
        let rows =
            changes.par_iter().with_min_len(TOLD_TOGETHER).map(told).collect::<Result<_, AgentError>>()?;
        self.intended(intent, Intents::Each(rows)).await
    }

    /// The same of rows that are all inserted.
    pub(super) async fn intend_inserts(
        &mut self,
        describer: &Describer,
        rows: &RowRun,
    ) -> Result<Intent, AgentError> {
        if self.wish.as_ref().is_some_and(|wish| wish.plain_keys) {
            return self.intend(describer, &rows.inserts(), false).await;
        }
        let intent = self.next(rows.len()).await?;
        if let Keeping::Open { journal, .. } = &mut self.journal {
            journal.inserts(self.batch, rows).await?;
        }
        let Some(wish) = &self.wish else { return Ok(intent) };
        let intents = wish.secret.inserts(&self.table, describer, rows).map_err(decode_error)?;
        self.intended(intent, intents).await
    }

    async fn next(&mut self, rows: usize) -> Result<Intent, AgentError> {
        self.batch += 1;
        self.journal.open().await?;
        Ok(Intent { batch: self.batch, rows })
    }

    async fn intended(&self, intent: Intent, rows: Intents) -> Result<Intent, AgentError> {
        self.tell(Event::Intended { table: self.table.clone(), batch: intent.batch, rows }).await?;
        Ok(intent)
    }

    /// After a batch, also after one that failed; passes on what it was given.
    pub(super) async fn done(
        &mut self,
        intent: Intent,
        given: Result<Vec<ChangeOutcome>, EngineError>,
    ) -> Result<Vec<ChangeOutcome>, AgentError> {
        let outcomes: Vec<RowOutcome> = match &given {
            Ok(outcomes) => outcomes.iter().map(row_outcome).collect(),
            // Most errors mean that nothing was written; a connection lost in the commit means that nobody knows.
            Err(_) => vec![RowOutcome::Unknown; intent.rows],
        };
        let noted = match &mut self.journal {
            Keeping::Open { journal, .. } => journal.outcomes(intent.batch, &outcomes).await,
            _ => Ok(()),
        };
        let told = match self.wish {
            Some(_) => self.tell(Event::Applied { batch: intent.batch, outcomes }).await,
            None => Ok(()),
        };
        let given = given?;
        noted.and(told)?;
        Ok(given)
    }

    async fn tell(&self, event: Event) -> Result<(), AgentError> {
        let closed = |_| AgentError::new(FailureKind::Cancelled, "the run was cancelled");
        self.events.send(event).await.map_err(closed)
    }
}

fn row_outcome(outcome: &ChangeOutcome) -> RowOutcome {
    match outcome {
        ChangeOutcome::Written => RowOutcome::Written,
        ChangeOutcome::Stale => RowOutcome::Stale,
        ChangeOutcome::Failed(_) => RowOutcome::Refused,
    }
}

impl Keeping {
    fn wait(store: &UndoStore, run: &str, plan: &Plan, own: OwnAccess) -> Self {
        let head = JournalHead {
            run: run.to_owned(),
            plan: plan.clone(),
            own: own.plan().cloned(),
            partial: own.is_partial(),
        };
        Self::Waiting { store: store.clone(), head: Box::new(head), own }
    }

    async fn open(&mut self) -> Result<(), AgentError> {
        *self = match std::mem::replace(self, Self::Nothing) {
            Self::Waiting { store, head, own } => {
                Self::Open { journal: Box::new(store.begin(&head).await?), own }
            }
            other => other,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_depend_on_secret_table_and_borders() {
        let (a, b) = (TrailSecret::new([1; 32]), TrailSecret::new([2; 32]));
        let key = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
        };
        let one = a.key_hash("t", &key(&[("id", "12")]));
        assert_eq!(one.len(), 32);
        assert_eq!(one, a.key_hash("t", &key(&[("id", "12")])));
        for other in [
            b.key_hash("t", &key(&[("id", "12")])),
            a.key_hash("u", &key(&[("id", "12")])),
            a.key_hash("t", &key(&[("id1", "2")])),
            a.key_hash("t", &key(&[("id", "1"), ("2", "")])),
        ] {
            assert_ne!(one, other);
        }
        let row = |bytes: &[u8]| CanonicalRow::new(bytes);
        let digest = |k: &[u8], r: &[u8]| a.row_digest(&Key::from(k), &row(r));
        assert_ne!(digest(b"ab", b"c"), digest(b"a", b"bc"));
    }

    #[test]
    fn the_secret_crosses_the_wire_and_stays_out_of_debug() {
        let wish = TrailWish { secret: TrailSecret::new([0xab; 32]), plain_keys: true };
        let json = serde_json::to_string(&wish).unwrap();
        assert_eq!(serde_json::from_str::<TrailWish>(&json).unwrap(), wish);
        assert!(!format!("{wish:?}").contains("ab, ") && !format!("{wish:?}").contains("171"));
        assert!(serde_json::from_str::<TrailWish>(&json.replace("abab", "zz")).is_err());
    }
}
