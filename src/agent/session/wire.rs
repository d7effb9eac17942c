//! The one place where foreign bytes become types: plans, keys and rows as they cross the link.
//!
//! Everything here may come from a hostile peer: lengths are checked before anything is allocated for them.

use std::borrow::Cow;

use crate::merkle::{RootDigest, RowDigest, SessionKey};
use crate::model::{CanonicalRow, ENCODING_VERSION, Key, Plan, Role, RowRun, TableSchema};

use super::patch::Patch;
use super::varint::{put_varint, take, take_varint};
use crate::agent::error::{AgentError, FailureKind};
use crate::agent::{PROTOCOL_VERSION, SOFTWARE};

/// An answer may be this large, packed or not: one row of that size, or many small ones. Larger rows are refused.
pub const ANSWER_BYTES_MAX: usize = 128 << 20;
/// Keys, plans and schemas of one message, unpacked.
const OTHER_BYTES_MAX: usize = 32 << 20;
/// Answers are cut into frames of this size, so that no frame is large and small frames are not stuck behind one.
pub const FRAME_BYTES: usize = 256 << 10;
/// A source stops adding rows to an answer here; the target asks again for the rest.
pub const ANSWER_BYTES: usize = 4 << 20;
/// Tables that one question may name.
pub const DESCRIBED_MAX: usize = 256;
const ZSTD_LEVEL: i32 = 3;
/// Below this zstd's own frame costs more than it saves.
const COMPRESS_FROM: usize = 128;
/// The first byte of what was packed: as it is, or by zstd behind its length.
const PLAIN: u8 = 0;
const PACKED: u8 = 1;
/// Stands in a key's place in the digest over sealed rows.
const SEALED: &[u8] = b"sealed rows";

/// How far rows have to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distance {
    /// Over a link whose bytes count.
    Far,
    SameProcess,
}

/// What a source says of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// There is no such row.
    Absent,
    /// A lookup found none, and need not have.
    Unproven,
    Digest(RowDigest),
    Row(CanonicalRow),
    /// What the row has that the one told with the question has not.
    Patch(Patch),
}

fn malformed(what: &str) -> AgentError {
    AgentError::protocol(format!("the peer sent malformed {what}"))
}

fn pack(plain: &[u8]) -> Result<Vec<u8>, AgentError> {
    let mut out = vec![PLAIN];
    if plain.len() >= COMPRESS_FROM {
        let packed = zstd::bulk::compress(plain, ZSTD_LEVEL).map_err(|error| {
            AgentError::new(FailureKind::Resource, format!("cannot compress rows: {error}"))
        })?;
        if packed.len() < plain.len() {
            out[0] = PACKED;
            out.extend_from_slice(&(plain.len() as u64).to_be_bytes());
            out.extend_from_slice(&packed);
            return Ok(out);
        }
    }
    out.extend_from_slice(plain);
    Ok(out)
}

fn unpack<'p>(packed: &'p [u8], what: &str, most: usize) -> Result<Cow<'p, [u8]>, AgentError> {
    match packed.split_first() {
        Some((&PLAIN, plain)) => Ok(Cow::Borrowed(plain)),
        Some((&PACKED, rest)) => {
            let (size, body) = rest.split_first_chunk::<8>().ok_or_else(|| malformed(what))?;
            let size = usize::try_from(u64::from_be_bytes(*size)).unwrap_or(usize::MAX);
            // Honest rows of zeros pack to next to nothing: only the size bounds what is allocated.
            if size > most {
                return Err(malformed(what));
            }
            let plain = zstd::bulk::decompress(body, size).map_err(|_| malformed(what))?;
            if plain.len() == size { Ok(Cow::Owned(plain)) } else { Err(malformed(what)) }
        }
        _ => Err(malformed(what)),
    }
}

pub fn pack_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, AgentError> {
    let json = serde_json::to_vec(value)
        .map_err(|error| AgentError::new(FailureKind::Usage, format!("cannot write a message: {error}")))?;
    pack(&json)
}

pub fn unpack_json<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, AgentError> {
    serde_json::from_slice(&unpack(bytes, what, OTHER_BYTES_MAX)?).map_err(|_| malformed(what))
}

pub fn unpack_plan(bytes: &[u8]) -> Result<Plan, AgentError> {
    checked_plan(unpack_json(bytes, "plan")?)
}

pub fn unpack_plans(bytes: &[u8]) -> Result<Vec<Plan>, AgentError> {
    unpack_json::<Vec<Plan>>(bytes, "plans")?.into_iter().map(checked_plan).collect()
}

fn checked_plan(plan: Plan) -> Result<Plan, AgentError> {
    if plan.encoding_version != ENCODING_VERSION {
        return Err(version_mismatch(PROTOCOL_VERSION, plan.encoding_version, "the peer"));
    }
    if plan.key_len == 0 || plan.key_len > plan.columns.len() {
        return Err(malformed("plan"));
    }
    Ok(plan)
}

/// One table of many that were asked for.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Described {
    Schema(Box<TableSchema>),
    Failed { kind: String, message: String, hint: Option<String> },
}

impl Described {
    pub fn into_result(self) -> Result<TableSchema, AgentError> {
        match self {
            Self::Schema(schema) => Ok(*schema),
            Self::Failed { kind, message, hint } => {
                Err(AgentError { kind: FailureKind::from_name(&kind), side: None, message, hint })
            }
        }
    }
}

impl From<Result<TableSchema, AgentError>> for Described {
    fn from(result: Result<TableSchema, AgentError>) -> Self {
        match result {
            Ok(schema) => Self::Schema(Box::new(schema)),
            Err(AgentError { kind, message, hint, .. }) => {
                Self::Failed { kind: kind.as_str().to_owned(), message, hint }
            }
        }
    }
}

/// What one side holds for a key, as far as the sum of many is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Summand {
    Row(RowDigest),
    Absent,
    /// Not found, and not shown to be absent: of this side. No sum with one is equal to the other side's.
    Unproven(Role),
}

/// One digest of what is held for many keys, in their order.
pub fn sum_of(session: &SessionKey, held: impl Iterator<Item = Summand>) -> RowDigest {
    let mut plain = Vec::new();
    for one in held {
        let (tag, digest) = match one {
            Summand::Absent => (0, [0; 16]),
            Summand::Row(digest) => (1, digest.0),
            Summand::Unproven(Role::Source) => (2, [0; 16]),
            Summand::Unproven(Role::Target) => (3, [0; 16]),
        };
        plain.push(tag);
        plain.extend_from_slice(&digest);
    }
    // Under a name that no key of a row has in its place.
    session.row_digest(b"trueup sum of digests", &plain)
}

/// What one table of a roll call holds; `None` where it could not be read.
pub type Held = Option<(RootDigest, u64)>;

pub fn pack_roots(held: &[Held]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(held.len() * 36);
    for one in held {
        match one {
            None => plain.push(0),
            Some((root, rows)) => {
                plain.push(1);
                put_varint(&mut plain, *rows);
                plain.extend_from_slice(root.as_bytes());
            }
        }
    }
    plain
}

pub fn unpack_roots(bytes: &[u8]) -> Result<Vec<Held>, AgentError> {
    let mut input = bytes;
    let mut held = Vec::new();
    while let Some((tag, rest)) = input.split_first() {
        input = rest;
        held.push(match tag {
            0 => None,
            1 => {
                let rows = take_varint(&mut input).ok_or_else(|| malformed("roots"))?;
                let (root, rest) = input.split_first_chunk::<32>().ok_or_else(|| malformed("roots"))?;
                input = rest;
                Some((RootDigest(*root), rows))
            }
            _ => return Err(malformed("roots")),
        });
    }
    Ok(held)
}

/// The refusal of a peer of another version.
pub fn version_mismatch(protocol: u32, encoding: u32, who: &str) -> AgentError {
    AgentError::new(
        FailureKind::Version,
        format!(
            "{who} speaks protocol {protocol} and encoding {encoding}, this is {SOFTWARE} with protocol {PROTOCOL_VERSION} and encoding {ENCODING_VERSION}"
        ),
    )
    .with_hint("run the same release of trueup on both sides")
}

/// Keys, each as what it shares with the one before it and the rest.
pub fn pack_keys<'a>(keys: impl ExactSizeIterator<Item = &'a Key>) -> Result<Vec<u8>, AgentError> {
    let mut plain = Vec::new();
    put_varint(&mut plain, keys.len() as u64);
    let mut before: &[u8] = &[];
    for key in keys {
        put_front_coded(&mut plain, before, key.as_bytes());
        before = key.as_bytes();
    }
    pack(&plain)
}

pub fn unpack_keys(bytes: &[u8]) -> Result<Vec<Key>, AgentError> {
    let plain = unpack(bytes, "keys", OTHER_BYTES_MAX)?;
    read_keys(&mut &*plain).ok_or_else(|| malformed("keys"))
}

/// Keys with the digest of each one's row.
pub fn pack_entries(entries: &[(Key, RowDigest)]) -> Result<Vec<u8>, AgentError> {
    let mut plain = Vec::new();
    put_varint(&mut plain, entries.len() as u64);
    let mut before: &[u8] = &[];
    for (key, digest) in entries {
        put_front_coded(&mut plain, before, key.as_bytes());
        before = key.as_bytes();
        plain.extend_from_slice(digest.as_bytes());
    }
    pack(&plain)
}

pub fn unpack_entries(bytes: &[u8]) -> Result<Vec<(Key, RowDigest)>, AgentError> {
    let plain = unpack(bytes, "entries", OTHER_BYTES_MAX)?;
    let mut input = &*plain;
    let mut read = || {
        let input = &mut input;
        let (mut entries, mut key, mut bytes) = (Vec::new(), Vec::new(), 0);
        for _ in 0..take_varint(input)? {
            take_front_coded(input, &mut key)?;
            bytes += key.len();
            if bytes > OTHER_BYTES_MAX {
                return None;
            }
            let digest = RowDigest(take(input, 16)?.try_into().ok()?);
            entries.push((Key::from(key.as_slice()), digest));
        }
        input.is_empty().then_some(entries)
    };
    read().ok_or_else(|| malformed("entries"))
}

fn read_keys(input: &mut &[u8]) -> Option<Vec<Key>> {
    let count = take_varint(input)?;
    let mut keys: Vec<Key> = Vec::new();
    let (mut before, mut bytes) = (Vec::new(), 0);
    for _ in 0..count {
        take_front_coded(input, &mut before)?;
        // A long prefix that many keys share is sent once and held by each of them.
        bytes += before.len();
        if bytes > OTHER_BYTES_MAX {
            return None;
        }
        keys.push(Key::from(before.as_slice()));
    }
    input.is_empty().then_some(keys)
}

/// Answers in the order of the keys that were asked; fewer than asked means: ask again for the rest.
/// A keyed digest over the whole guards every row on its way.
pub fn pack_answers(session: &SessionKey, answers: &[Answer]) -> Result<Vec<u8>, AgentError> {
    let mut plain = vec![PLAIN];
    put_varint(&mut plain, answers.len() as u64);
    for answer in answers {
        match answer {
            Answer::Absent => plain.push(0),
            Answer::Unproven => plain.push(4),
            Answer::Digest(digest) => {
                plain.push(1);
                plain.extend_from_slice(digest.as_bytes());
            }
            Answer::Row(row) => {
                plain.push(2);
                put_varint(&mut plain, row.as_bytes().len() as u64);
                plain.extend_from_slice(row.as_bytes());
            }
            Answer::Patch(patch) => {
                plain.push(3);
                patch.put(&mut plain);
            }
        }
    }
    seal(session, plain)
}

pub fn unpack_answers(session: &SessionKey, bytes: &[u8]) -> Result<Vec<Answer>, AgentError> {
    let plain = unpack(bytes, "rows", ANSWER_BYTES_MAX)?;
    let mut input = unseal(session, &plain)?;
    let mut read = || {
        let input = &mut input;
        let mut answers = Vec::new();
        for _ in 0..take_varint(input)? {
            answers.push(match take(input, 1)? {
                [0] => Answer::Absent,
                [1] => Answer::Digest(RowDigest(take(input, 16)?.try_into().ok()?)),
                [2] => {
                    let length = usize::try_from(take_varint(input)?).ok()?;
                    Answer::Row(CanonicalRow::new(take(input, length)?))
                }
                [3] => Answer::Patch(Patch::take(input)?),
                [4] => Answer::Unproven,
                _ => return None,
            });
        }
        input.is_empty().then_some(answers)
    };
    read().ok_or_else(|| malformed("rows"))
}

/// Rows with their keys: a part of a streamed run. Within one process nothing is gained by fewer bytes.
pub fn pack_rows(session: &SessionKey, rows: &RowRun, distance: Distance) -> Result<Vec<u8>, AgentError> {
    let mut plain = Vec::with_capacity(rows.bytes() + 8 * rows.len() + 32);
    plain.push(PLAIN);
    put_varint(&mut plain, rows.len() as u64);
    let mut before: &[u8] = &[];
    for (key, row) in rows.iter() {
        put_front_coded(&mut plain, before, key);
        before = key;
        put_varint(&mut plain, row.len() as u64);
        plain.extend_from_slice(row);
    }
    match distance {
        Distance::Far => seal(session, plain),
        Distance::SameProcess => {
            sign(session, &mut plain);
            Ok(plain)
        }
    }
}

pub fn unpack_rows(session: &SessionKey, bytes: &[u8]) -> Result<RowRun, AgentError> {
    let plain = unpack(bytes, "rows", ANSWER_BYTES_MAX)?;
    let mut input = unseal(session, &plain)?;
    let mut read = || {
        let input = &mut input;
        let mut rows = RowRun::default();
        let mut key = Vec::new();
        for _ in 0..take_varint(input)? {
            take_front_coded(input, &mut key)?;
            let length = usize::try_from(take_varint(input)?).ok()?;
            rows.push(&key, take(input, length)?);
        }
        input.is_empty().then_some(rows)
    };
    read().ok_or_else(|| malformed("rows"))
}

/// Adds the digest of what is behind the first byte.
fn sign(session: &SessionKey, tagged: &mut Vec<u8>) {
    let digest = session.row_digest(SEALED, tagged.get(1..).unwrap_or_default());
    tagged.extend_from_slice(digest.as_bytes());
}

/// Of bytes behind a first one that says `PLAIN`: signed, and packed where that makes them fewer.
fn seal(session: &SessionKey, mut tagged: Vec<u8>) -> Result<Vec<u8>, AgentError> {
    sign(session, &mut tagged);
    pack(tagged.get(1..).unwrap_or_default())
}

/// What was sealed, without its digest.
fn unseal<'p>(session: &SessionKey, plain: &'p [u8]) -> Result<&'p [u8], AgentError> {
    let (body, digest) = plain.split_last_chunk::<16>().ok_or_else(|| malformed("rows"))?;
    if session.row_digest(SEALED, body).as_bytes() != digest {
        return Err(AgentError::protocol("rows arrived with another digest than they were sent with"));
    }
    Ok(body)
}

fn put_front_coded(out: &mut Vec<u8>, before: &[u8], bytes: &[u8]) {
    let shared = before.iter().zip(bytes).take_while(|(a, b)| a == b).count();
    put_varint(out, shared as u64);
    put_varint(out, (bytes.len() - shared) as u64);
    out.extend_from_slice(&bytes[shared..]);
}

fn take_front_coded(input: &mut &[u8], before: &mut Vec<u8>) -> Option<()> {
    let shared = usize::try_from(take_varint(input)?).ok()?;
    let fresh = usize::try_from(take_varint(input)?).ok()?;
    if shared > before.len() {
        return None;
    }
    before.truncate(shared);
    before.extend_from_slice(take(input, fresh)?);
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn session() -> SessionKey {
        SessionKey::new([7; 32])
    }

    proptest! {
        #[test]
        fn keys_and_rows_arrive_as_sent(pairs in vec((vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..300)), 0..40)) {
            let keys: Vec<Key> = pairs.iter().map(|(k, _)| Key::from(k.as_slice())).collect();
            prop_assert_eq!(unpack_keys(&pack_keys(keys.iter()).unwrap()).unwrap(), keys.clone());
            let entries: Vec<(Key, RowDigest)> = keys.iter().map(|key| (key.clone(), session().row_digest(key.as_bytes(), b""))).collect();
            prop_assert_eq!(unpack_entries(&pack_entries(&entries).unwrap()).unwrap(), entries);
            let rows: RowRun = pairs.iter().map(|(key, row)| (key.as_slice(), row.as_slice())).collect();
            for distance in [Distance::Far, Distance::SameProcess] {
                let packed = pack_rows(&session(), &rows, distance).unwrap();
                prop_assert_eq!(unpack_rows(&session(), &packed).unwrap(), rows.clone());
            }
            let answers: Vec<Answer> = rows.iter().enumerate().map(|(at, (key, row))| match at % 4 {
                0 => Answer::Absent,
                3 => Answer::Unproven,
                1 => Answer::Digest(session().row_digest(key, row)),
                _ => Answer::Row(CanonicalRow::new(row)),
            }).collect();
            prop_assert_eq!(unpack_answers(&session(), &pack_answers(&session(), &answers).unwrap()).unwrap(), answers);
        }

        #[test]
        fn foreign_bytes_are_refused_without_a_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = (unpack_keys(&bytes), unpack_plan(&bytes), unpack_entries(&bytes));
            prop_assert!(unpack_rows(&session(), &bytes).is_err());
            prop_assert!(unpack_answers(&session(), &bytes).is_err());
        }

        #[test]
        fn a_flipped_bit_in_rows_is_noticed(row in vec(any::<u8>(), 0..400), at: prop::sample::Index, bit in 0u8..8) {
            let rows: RowRun = [(&b"k"[..], row.as_slice())].into_iter().collect();
            for distance in [Distance::Far, Distance::SameProcess] {
                let mut sent = pack_rows(&session(), &rows, distance).unwrap();
                let at = at.index(sent.len());
                sent[at] ^= 1 << bit;
                // A bit that zstd does not use may change nothing; what changes is refused.
                if let Ok(arrived) = unpack_rows(&session(), &sent) {
                    prop_assert_eq!(arrived, rows.clone());
                }
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_unpacked() {
        let mut bomb = vec![1];
        bomb.extend_from_slice(&(1u64 << 40).to_be_bytes());
        bomb.extend_from_slice(&[0; 64]);
        assert!(unpack_keys(&bomb).is_err());
    }
}
