//! The chain of the audit trail, pure: an entry's bytes, its hash, and the search for what was done to a chain.
//!
//! An entry's bytes are one line of JSON, an array of its fields in a fixed order. Its hash is BLAKE3 over the hash of the
//! entry before it (64 hex digits), a line feed, and those bytes. Anybody can recompute it with `b3sum`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// Stands before the first entry.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Damaged entries among which exchanges are looked for; comparing each with each must end.
const EXCHANGES_MAX: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A run begins that may write, or that compares.
    Begin,
    /// Rows of a table are about to be written.
    Intent,
    /// What became of one row.
    Row,
    /// What became of many rows, all in the same way.
    Rows,
    /// A run has ended.
    End,
    /// What retention removed from the front of the trail.
    Checkpoint,
}

impl EntryKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Intent => "intent",
            Self::Row => "row",
            Self::Rows => "rows",
            Self::End => "end",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// One entry. All fields are texts, empty where they do not apply.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub seq: i64,
    /// RFC 3339, UTC, milliseconds.
    pub at: String,
    pub who: String,
    pub host: String,
    pub run: String,
    pub kind: String,
    pub table: String,
    /// Keyed hash of the key, or the key itself where the user asked for that.
    pub key: String,
    pub operation: String,
    /// Keyed digests of the row.
    pub before: String,
    pub after: String,
    pub outcome: String,
    pub detail: String,
}

impl Entry {
    /// The bytes that are hashed.
    pub fn canonical(&self) -> String {
        serde_json::to_string(&self.fields(self.seq)).unwrap_or_default()
    }

    fn fields(&self, seq: i64) -> impl Serialize {
        (
            seq,
            &self.at,
            &self.who,
            &self.host,
            &self.run,
            &self.kind,
            &self.table,
            &self.key,
            &self.operation,
            &self.before,
            &self.after,
            &self.outcome,
            &self.detail,
        )
    }

    pub fn hash(&self, prev: &str) -> String {
        self.hash_at(self.seq, prev)
    }

    /// What its hash would be with this number.
    pub(super) fn hash_at(&self, seq: i64, prev: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(prev.as_bytes()).update(b"\n");
        // A hasher takes all that it is given, and texts are always JSON.
        let _ = serde_json::to_writer(&mut hasher, &self.fields(seq));
        hasher.finalize().to_hex().to_string()
    }

    /// Takes its place behind `prev`.
    #[cfg(test)]
    fn chained(self, prev: &str) -> Link {
        let hash = self.hash(prev);
        Link { prev: prev.to_owned(), hash, entry: self }
    }
}

/// An entry in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    #[serde(flatten)]
    pub entry: Entry,
    pub prev: String,
    pub hash: String,
}

/// The last entry's number and hash: who has noted it elsewhere can prove that nothing before it was rewritten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub seq: i64,
    pub hash: String,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl std::str::FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once(':').and_then(|(seq, hash)| {
            let hex = hash.len() == 64 && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            seq.parse().ok().filter(|seq| hex && *seq >= 0).map(|seq| Self { seq, hash: hash.to_owned() })
        });
        parsed.ok_or_else(|| "write SEQ:HASH, as audit verify prints it".to_owned())
    }
}

/// The removed front of a trail, as a checkpoint entry's detail tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The last entry removed, and its hash.
    pub through: i64,
    pub hash: String,
}

/// Something that was done to a trail.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// Entries are not there.
    Missing { seq: i64, through: i64 },
    /// The entry's hash is not that of its fields.
    Altered { seq: i64 },
    /// The entry stands where entry `belongs_at` belongs.
    Reordered { seq: i64, belongs_at: i64 },
    /// The entry fits itself, but the one behind it was chained to another: it was written anew.
    Rewritten { seq: i64 },
    /// The entry lies beyond the head: it was not added by this program.
    Added { seq: i64 },
    /// The head names another hash than the last entry has.
    Head { seq: i64 },
    /// The entry that was noted elsewhere has another hash now: the trail up to there was written anew.
    Noted { seq: i64 },
    /// The ledger's rows of a run are not those that the trail has sealed.
    Record { run: String },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { seq, through } if seq == through => write!(f, "entry {seq} is missing"),
            Self::Missing { seq, through } => write!(f, "entries {seq} to {through} are missing"),
            Self::Altered { seq } => write!(f, "entry {seq} was altered"),
            Self::Reordered { seq, belongs_at } if seq == belongs_at => {
                write!(f, "entry {seq} is out of its order")
            }
            Self::Reordered { seq, belongs_at } => {
                write!(f, "entry {seq} was reordered: it belongs at {belongs_at}")
            }
            Self::Rewritten { seq } => {
                write!(f, "entry {seq} was written anew: the next entry is chained to another")
            }
            Self::Added { seq } => write!(f, "entry {seq} was added behind the trail's head"),
            Self::Head { seq } => {
                write!(f, "the trail's head {seq} names another hash than its last entry has")
            }
            Self::Noted { seq } => {
                write!(f, "entry {seq} is not the one that was noted: the trail was written anew")
            }
            Self::Record { run } => write!(f, "the record of run {run} was altered since the run ended"),
        }
    }
}

/// What came out: the trail is whole exactly when there are no faults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    pub entries: u64,
    pub first: i64,
    pub head: Option<Head>,
    pub faults: Vec<Fault>,
    /// Runs that began and have not ended: still running, or stopped by force.
    pub open_runs: Vec<String>,
}

/// Reads a trail from front to back.
#[derive(Debug, Default)]
pub struct Verifier {
    noted: Option<Head>,
    noted_seen: bool,
    first: Option<(i64, String)>,
    last: Option<Last>,
    entries: u64,
    missing: Vec<(i64, i64)>,
    damaged: Vec<Link>,
    faults: Vec<Fault>,
    checkpoints: Vec<Checkpoint>,
    open_runs: BTreeSet<String>,
    sealed: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
struct Last {
    seq: i64,
    hash: String,
    sound: bool,
}

impl Verifier {
    /// With a head that was noted elsewhere, the trail must still pass through it.
    pub fn new(noted: Option<Head>) -> Self {
        Self { noted, ..Self::default() }
    }

    pub fn push(&mut self, link: &Link) {
        self.entries += 1;
        let seq = link.entry.seq;
        let sound = link.entry.hash(&link.prev) == link.hash;
        if !sound {
            self.damaged.push(link.clone());
        }
        if self.first.is_none() {
            self.first = Some((seq, link.prev.clone()));
        }
        if let Some(noted) = self.noted.as_ref().filter(|noted| noted.seq == seq) {
            self.noted_seen = true;
            if noted.hash != link.hash {
                self.faults.push(Fault::Noted { seq });
            }
        }
        match self.last.clone() {
            Some(last) if seq <= last.seq => {
                self.found_late(seq);
                return;
            }
            Some(last) if seq > last.seq + 1 => self.missing.push((last.seq + 1, seq - 1)),
            Some(last) if last.sound && sound && last.hash != link.prev => {
                self.faults.push(Fault::Rewritten { seq: last.seq });
            }
            _ => {}
        }
        if sound {
            self.note(&link.entry);
        }
        self.last = Some(Last { seq, hash: link.hash.clone(), sound });
    }

    fn note(&mut self, entry: &Entry) {
        match entry.kind.as_str() {
            "begin" => drop(self.open_runs.insert(entry.run.clone())),
            "end" => {
                self.open_runs.remove(&entry.run);
                self.sealed.insert(entry.run.clone(), entry.detail.clone());
            }
            "checkpoint" => self.checkpoints.extend(serde_json::from_str::<Checkpoint>(&entry.detail).ok()),
            _ => {}
        }
    }

    /// The detail of each run's last entry, which seals the run's record.
    pub fn sealed(&self) -> &BTreeMap<String, String> {
        &self.sealed
    }

    /// An entry that comes after one with a higher number.
    fn found_late(&mut self, seq: i64) {
        self.faults.push(Fault::Reordered { seq, belongs_at: seq });
        let ranges = std::mem::take(&mut self.missing);
        for (from, to) in ranges {
            if (from..=to).contains(&seq) {
                self.missing.extend([(from, seq - 1), (seq + 1, to)].into_iter().filter(|(a, b)| a <= b));
            } else {
                self.missing.push((from, to));
            }
        }
    }

    /// With the head that the ledger holds, entries missing at the end are found too.
    pub fn finish(mut self, head: Option<&Head>) -> Verification {
        let mut faults = std::mem::take(&mut self.faults);
        if let Some((first, prev)) = &self.first
            && !(*first == 1 && prev == GENESIS)
        {
            let bridged =
                self.checkpoints.iter().any(|point| point.through == first - 1 && point.hash == *prev);
            match first {
                1 if self.damaged.iter().any(|link| link.entry.seq == 1) => {}
                1 => faults.push(Fault::Altered { seq: 1 }),
                _ if bridged => {}
                _ => faults.push(Fault::Missing { seq: 1, through: first - 1 }),
            }
        }
        faults.extend(
            self.missing.iter().map(|(seq, through)| Fault::Missing { seq: *seq, through: *through }),
        );
        faults.extend(self.damaged_faults());
        let last_seq = self.last.as_ref().map_or(0, |last| last.seq);
        if let Some(head) = head {
            if last_seq < head.seq {
                faults.push(Fault::Missing { seq: last_seq + 1, through: head.seq });
            } else if last_seq > head.seq {
                faults.extend((head.seq + 1..=last_seq).take(EXCHANGES_MAX).map(|seq| Fault::Added { seq }));
            } else if self.last.as_ref().is_some_and(|last| last.sound && last.hash != head.hash) {
                faults.push(Fault::Head { seq: head.seq });
            }
        }
        if let Some(noted) = &self.noted
            && !self.noted_seen
            && !self.noted_before_front(noted)
        {
            faults.push(Fault::Noted { seq: noted.seq });
        }
        faults.sort();
        faults.dedup();
        Verification {
            entries: self.entries,
            first: self.first.map_or(0, |(seq, _)| seq),
            head: self.last.map(|last| Head { seq: last.seq, hash: last.hash }),
            faults,
            open_runs: self.open_runs.into_iter().collect(),
        }
    }

    /// The noted entry was removed by retention: if it was the last removed its hash is still known; an older one is
    /// vouched for by the chain alone, which cannot be shown any more.
    fn noted_before_front(&self, noted: &Head) -> bool {
        match &self.first {
            Some((first, prev)) => noted.seq == first - 1 && noted.hash == *prev,
            None => noted.seq == 0,
        }
    }

    fn damaged_faults(&self) -> Vec<Fault> {
        let fault = |link: &Link| {
            let seq = link.entry.seq;
            let belongs_at = self
                .damaged
                .iter()
                .take(EXCHANGES_MAX)
                .filter(|other| other.entry.seq != seq)
                .find(|other| {
                    let moved = Entry { seq: other.entry.seq, ..link.entry.clone() };
                    // With its hash, or without.
                    moved.hash(&link.prev) == link.hash || moved.hash(&other.prev) == other.hash
                })
                .map(|other| other.entry.seq);
            match belongs_at {
                Some(belongs_at) => Fault::Reordered { seq, belongs_at },
                None => Fault::Altered { seq },
            }
        };
        self.damaged.iter().map(fault).collect()
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
