//! How rows are told in an audit trail: by keyed hashes, or by their keys as they are where that was asked for.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::compare::describe::Describer;
use super::super::error::AgentError;
use super::super::secret_file::{secret_file, unhex};
use super::intents::{HASH_DIGITS, Intents, RowIntent};
use crate::merkle::{RowDigest, RowHasher, SessionKey};
use crate::model::canonical::DecodeError;
use crate::model::value::{hex, put_hex};
use crate::model::{CanonicalRow, Change, Key, RowRun};

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
        secret_file(path).map(Self::new)
    }

    /// Of a key as it is shown: pairs of column and text. 16 bytes in hex.
    pub fn key_hash(&self, table: &str, key: &[(String, String)]) -> String {
        self.hash_of(table, key.iter().map(|(name, text)| (name.as_str(), text.as_str())))
    }

    fn hash_of<'k>(&self, table: &'k str, key: impl Iterator<Item = (&'k str, &'k str)>) -> String {
        let mut named = Vec::new();
        key.for_each(|(name, text)| put_named(&mut named, name, text));
        hex(&SessionKey::new(self.keys).row_digest(table.as_bytes(), &named).0)
    }

    /// Of a row's canonical bytes: the same row has the same digest in every run under the same plan.
    fn row_digest(&self, key: &Key, row: &CanonicalRow) -> String {
        hex(&SessionKey::new(self.rows).row_digest(key.as_bytes(), row.as_bytes()).0)
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
        let told = |digests: Vec<RowDigest>| {
            let mut text = String::with_capacity(digests.len() * HASH_DIGITS);
            digests.iter().for_each(|digest| put_hex(&mut text, &digest.0));
            text
        };
        Ok(Intents::Inserts { keys: told(keys.take()), after: told(digests.take()) })
    }
}

/// One column of a key, as it is hashed: each part behind its length, so that no two keys read alike.
fn put_named(out: &mut Vec<u8>, name: &str, text: &str) {
    for part in [name, text] {
        out.extend_from_slice(&(part.len() as u64).to_be_bytes());
        out.extend_from_slice(part.as_bytes());
    }
}

impl fmt::Debug for TrailSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrailSecret(secret)")
    }
}

impl Serialize for TrailSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.bytes))
    }
}

impl<'de> Deserialize<'de> for TrailSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        unhex(&text).map(Self::new).ok_or_else(|| serde::de::Error::custom("no 32 bytes in hex"))
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
    /// One change, in the trail's words.
    pub(crate) fn told(
        &self,
        table: &str,
        describer: &Describer,
        change: &Change,
    ) -> Result<RowIntent, DecodeError> {
        let key = describer.key_texts(&change.key)?;
        let digest =
            |row: &Option<CanonicalRow>| row.as_ref().map(|row| self.secret.row_digest(&change.key, row));
        Ok(RowIntent {
            key: self.key_of(table, describer.names().zip(key.iter().map(String::as_str))),
            operation: change.operation(),
            before: digest(&change.before),
            after: digest(&change.after),
        })
    }

    /// Rows that are all inserted, each as `told` tells it.
    pub(crate) fn inserts(
        &self,
        table: &str,
        describer: &Describer,
        rows: &RowRun,
    ) -> Result<Intents, DecodeError> {
        if !self.plain_keys {
            return self.secret.inserts(table, describer, rows);
        }
        let told = |change: &Change| self.told(table, describer, change);
        rows.inserts().iter().map(told).collect::<Result<_, _>>().map(Intents::Each)
    }

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::plan::PlanColumn;
    use crate::model::{ColumnType, ComparisonType, Filled, Plan, Role, RowBuffer, TableName};

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

    fn describer() -> Describer {
        let column = |name: &str, comparison: ComparisonType| PlanColumn {
            source: name.into(),
            target: name.into(),
            source_type: ColumnType::Json,
            target_type: ColumnType::Json,
            source_declared: String::new(),
            target_declared: String::new(),
            comparison,
            as_text: false,
            source_filled: Filled::ByWriter,
            target_filled: Filled::ByWriter,
        };
        let plan = Plan {
            encoding_version: 1,
            source: TableName::new(None, "t"),
            target: TableName::new(None, "t"),
            columns: vec![
                column("id", ComparisonType::Integer),
                column("line", ComparisonType::Text { trim: false }),
                column("note", ComparisonType::Text { trim: false }),
            ],
            key_len: 2,
            source_where: None,
            target_where: None,
            ranges: None,
            warnings: Vec::new(),
            coverage: crate::model::ColumnCoverage::default(),
        };
        Describer::new(&plan, &plan.access(Role::Target), &BTreeMap::new(), false)
    }

    proptest! {
        #[test]
        fn inserts_are_told_as_they_would_be_one_by_one(
            rows in prop::collection::vec((any::<i64>(), ".{0,9}", ".{0,90}"), 0..80),
            plain_keys in any::<bool>(),
        ) {
            let (describer, mut run) = (describer(), RowRun::default());
            for (id, line, note) in &rows {
                let mut buffer = RowBuffer::default();
                buffer.column(0, 2).int_as(&ComparisonType::Integer, *id);
                buffer.column(1, 2).text_as(&ComparisonType::Text { trim: false }, line);
                buffer.column(2, 2).text_as(&ComparisonType::Text { trim: false }, note);
                run.push(&buffer.key, &buffer.row);
            }
            let wish = TrailWish { secret: TrailSecret::new([3; 32]), plain_keys };
            let together = wish.inserts("t", &describer, &run).unwrap();
            prop_assert_eq!(together.len(), rows.len());
            let alone: Vec<RowIntent> =
                run.inserts().iter().map(|change| wish.told("t", &describer, change).unwrap()).collect();
            for (told, (id, line, _)) in alone.iter().zip(&rows) {
                let key = [("id".to_owned(), id.to_string()), ("line".to_owned(), line.clone())];
                prop_assert_eq!(&told.key, &wish.key("t", &key));
            }
            prop_assert_eq!(together.into_rows(), alone);
        }
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
