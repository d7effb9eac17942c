//! Of wide rows only the cells that differ cross the link: the target says a few bytes of each of its cells, the source
//! answers with the cells that are others, and with the digest of the whole row. Pure.

use super::varint::{put_varint, take, take_varint};
use crate::agent::error::AgentError;
use crate::merkle::{RowDigest, SessionKey};
use crate::model::canonical::split_cells;
use crate::model::{CanonicalRow, Key};

/// Of each cell's digest.
const SHORT: usize = 4;
/// Rows at least so large, with cells of so many bytes on average, are asked for by their cells.
const WIDE_BYTES: usize = 256;
const WIDE_CELL_BYTES: usize = 16;

/// Whether rows of this size are worth their cells' digests.
pub(crate) fn is_wide(bytes: usize, cells: usize) -> bool {
    cells > 1 && bytes >= WIDE_BYTES && bytes >= cells * WIDE_CELL_BYTES
}

/// Short digests of one row's cells, in their order.
pub(crate) type Summary = Vec<[u8; SHORT]>;

/// The cells in which a row differs from the one that was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// Of the whole row, with its key.
    pub digest: RowDigest,
    /// Places in the row, ascending, with what is there.
    pub cells: Vec<(usize, Vec<u8>)>,
}

/// `None` where the bytes are no row.
pub(crate) fn summary(session: &SessionKey, row: &CanonicalRow) -> Option<Summary> {
    let cells = split_cells(row.as_bytes()).ok()?;
    let short = |(at, cell): (usize, &&[u8])| {
        let digest = session.row_digest(format!("trueup cell {at}").as_bytes(), cell);
        let mut short = [0; SHORT];
        short.copy_from_slice(&digest.0[..SHORT]);
        short
    };
    Some(cells.iter().enumerate().map(short).collect())
}

/// A summary for each row, in the order of the keys that they go with.
pub(crate) fn pack_summaries(summaries: &[Option<Summary>]) -> Vec<u8> {
    let mut out = Vec::new();
    for summary in summaries {
        let cells = summary.as_deref().unwrap_or_default();
        put_varint(&mut out, cells.len() as u64);
        cells.iter().for_each(|cell| out.extend_from_slice(cell));
    }
    out
}

/// Of so many keys; without a cell where there is none.
pub(crate) fn unpack_summaries(mut bytes: &[u8], keys: usize) -> Result<Vec<Summary>, AgentError> {
    let mut read = || {
        let mut summaries = Vec::new();
        for _ in 0..keys {
            let count = usize::try_from(take_varint(&mut bytes)?).ok()?;
            let (cells, rest) = take(&mut bytes, count.checked_mul(SHORT)?)?.as_chunks::<SHORT>();
            if !rest.is_empty() {
                return None;
            }
            summaries.push(cells.to_vec());
        }
        bytes.is_empty().then_some(summaries)
    };
    read().ok_or_else(|| AgentError::protocol("the peer sent malformed digests of cells"))
}

impl Patch {
    /// What the owner of the summary lacks; `None` where the whole row is as good.
    pub fn between(
        session: &SessionKey,
        key: &Key,
        row: &CanonicalRow,
        theirs: &[[u8; SHORT]],
    ) -> Option<Self> {
        let ours = summary(session, row)?;
        if ours.len() != theirs.len() {
            return None;
        }
        let cells: Vec<(usize, Vec<u8>)> = split_cells(row.as_bytes())
            .ok()?
            .into_iter()
            .enumerate()
            .filter(|(at, _)| ours.get(*at) != theirs.get(*at))
            .map(|(at, cell)| (at, cell.to_vec()))
            .collect();
        let bytes: usize = cells.iter().map(|(_, cell)| cell.len() + 1).sum();
        let digest = session.row_digest(key.as_bytes(), row.as_bytes());
        (bytes + digest.0.len() < row.as_bytes().len() * 3 / 4).then_some(Self { digest, cells })
    }

    /// The row that was meant; `None` where it comes out as another: a short digest had hidden a cell, or the row under it
    /// has changed.
    pub fn onto(&self, session: &SessionKey, key: &Key, own: &CanonicalRow) -> Option<CanonicalRow> {
        let mut cells = split_cells(own.as_bytes()).ok()?;
        for (at, cell) in &self.cells {
            *cells.get_mut(*at)? = cell;
        }
        let row = CanonicalRow::new(cells.concat());
        (session.row_digest(key.as_bytes(), row.as_bytes()) == self.digest).then_some(row)
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.digest.as_bytes());
        put_varint(out, self.cells.len() as u64);
        for (at, cell) in &self.cells {
            put_varint(out, *at as u64);
            put_varint(out, cell.len() as u64);
            out.extend_from_slice(cell);
        }
    }

    pub(crate) fn take(input: &mut &[u8]) -> Option<Self> {
        let digest = RowDigest(take(input, 16)?.try_into().ok()?);
        let mut cells = Vec::new();
        for _ in 0..take_varint(input)? {
            let at = usize::try_from(take_varint(input)?).ok()?;
            let length = usize::try_from(take_varint(input)?).ok()?;
            cells.push((at, take(input, length)?.to_vec()));
        }
        Some(Self { digest, cells })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A row of these cells: each a header of its length, and its bytes.
    fn row(cells: &[Vec<u8>]) -> CanonicalRow {
        let mut bytes = Vec::new();
        for cell in cells {
            put_varint(&mut bytes, cell.len() as u64 * 2 + 1);
            bytes.extend_from_slice(cell);
        }
        CanonicalRow::new(bytes)
    }

    fn session() -> SessionKey {
        SessionKey::new([7; 32])
    }

    proptest! {
        #[test]
        fn a_patch_makes_the_one_row_of_the_other(
            before in vec(vec(any::<u8>(), 0..60), 2..30),
            changes in vec((any::<prop::sample::Index>(), vec(any::<u8>(), 0..60)), 0..5),
        ) {
            let mut after = before.clone();
            for (at, cell) in changes {
                *at.get_mut(&mut after) = cell;
            }
            let (own, wanted, key) = (row(&before), row(&after), Key::from(&b"k"[..]));
            let told = pack_summaries(&[None, summary(&session(), &own)]);
            let heard = unpack_summaries(&told, 2).unwrap();
            prop_assert!(heard[0].is_empty());
            if let Some(patch) = Patch::between(&session(), &key, &wanted, &heard[1]) {
                let mut bytes = Vec::new();
                patch.put(&mut bytes);
                prop_assert!(bytes.len() < wanted.as_bytes().len() + 10);
                let arrived = Patch::take(&mut bytes.as_slice()).unwrap();
                prop_assert_eq!(&arrived, &patch);
                prop_assert_eq!(arrived.onto(&session(), &key, &own), Some(wanted));
            }
        }

        #[test]
        fn foreign_bytes_make_no_row(bytes in vec(any::<u8>(), 0..80)) {
            let _ = unpack_summaries(&bytes, 3);
            if let Some(patch) = Patch::take(&mut bytes.as_slice()) {
                let own = row(&[b"a".to_vec(), b"b".to_vec()]);
                prop_assert_eq!(patch.onto(&session(), &Key::from(&b"k"[..]), &own), None);
            }
        }
    }

    #[test]
    fn a_row_that_has_changed_since_is_not_taken_for_the_one_that_was_told() {
        let cells = |last: u8| row(&[vec![1; 100], vec![2; 100], vec![3; 100], vec![last; 100]]);
        let key = Key::from(&b"k"[..]);
        let told = summary(&session(), &cells(4)).unwrap();
        let mut wanted = vec![vec![1; 100], vec![9; 5], vec![3; 100], vec![4; 100]];
        let patch = Patch::between(&session(), &key, &row(&wanted), &told).unwrap();
        assert_eq!(patch.cells.len(), 1);
        assert_eq!(patch.onto(&session(), &key, &cells(5)), None);
        assert!(patch.onto(&session(), &Key::from(&b"l"[..]), &cells(4)).is_none(), "another key");
        assert_eq!(patch.onto(&session(), &key, &cells(4)), Some(row(&wanted)));
        // All cells differ: the whole row is as good.
        wanted = vec![vec![7; 100]; 4];
        assert_eq!(Patch::between(&session(), &key, &row(&wanted), &told), None);
    }
}
