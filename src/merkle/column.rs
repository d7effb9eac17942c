//! Records of one width, added at the end and read anywhere; beyond a size most of them are in an unlinked scratch file.

use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::coding::index;
use super::error::RunError;
use super::segment::{Place, read_exact_at};

/// So much is held before it goes to the file.
const HELD_BYTES: usize = 256 * 1024;

pub(super) struct Column<const W: usize> {
    /// Where a file may be made; `None`: everything stays in memory.
    dir: Option<PathBuf>,
    file: Option<File>,
    /// Records in the file; those in `held` come behind them.
    filed: u64,
    held: Vec<u8>,
    /// Told when the column is finished.
    failed: Option<RunError>,
}

impl<const W: usize> Column<W> {
    pub(super) fn new(place: &Place<'_>) -> Self {
        let dir = match place {
            Place::Memory => None,
            Place::Scratch(dir) => Some(dir.to_path_buf()),
        };
        Self { dir, file: None, filed: 0, held: Vec::new(), failed: None }
    }

    /// Most of what is there and of what comes goes to a file of this folder.
    pub(super) fn move_to(&mut self, dir: &Path) {
        self.dir = Some(dir.to_path_buf());
    }

    pub(super) fn len(&self) -> u64 {
        self.filed + (self.held.len() / W) as u64
    }

    pub(super) fn push(&mut self, record: &[u8; W]) {
        if self.failed.is_some() {
            return;
        }
        self.held.extend_from_slice(record);
        if self.dir.is_some() && self.held.len() >= HELD_BYTES {
            self.failed = self.file_held().err();
        }
    }

    fn file_held(&mut self) -> Result<(), RunError> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let scratch = |action| move |source| RunError::Scratch { action, path: dir.clone(), source };
        let mut file = match self.file.take() {
            Some(file) => file,
            None => tempfile::tempfile_in(dir).map_err(scratch("create"))?,
        };
        file.write_all(&self.held).map_err(scratch("write to"))?;
        self.file = Some(file);
        self.filed = self.len();
        self.held.clear();
        Ok(())
    }

    /// Nothing is added any more.
    pub(super) fn finish(mut self) -> Result<Self, RunError> {
        self.held.shrink_to_fit();
        match self.failed.take() {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }

    /// The records of a range that is there, one behind the other.
    pub(super) fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, RunError> {
        if range.start > range.end || range.end > self.len() {
            return Err(RunError::Misuse("records beyond the end of a column"));
        }
        let held = |from: u64, to: u64| {
            let bytes = index(from - self.filed) * W..index(to - self.filed) * W;
            self.held.get(bytes).unwrap_or_default()
        };
        if range.start >= self.filed {
            return Ok(Cow::Borrowed(held(range.start, range.end)));
        }
        let (Some(file), Some(dir)) = (&self.file, &self.dir) else {
            return Err(RunError::Misuse("a column without its file"));
        };
        let in_file = range.end.min(self.filed);
        let mut bytes = vec![0; index(in_file - range.start) * W];
        read_exact_at(file, &mut bytes, range.start * W as u64).map_err(|source| RunError::Scratch {
            action: "read",
            path: dir.clone(),
            source,
        })?;
        if range.end > self.filed {
            bytes.extend_from_slice(held(self.filed, range.end));
        }
        Ok(Cow::Owned(bytes))
    }

    pub(super) fn get(&self, at: u64) -> Result<[u8; W], RunError> {
        let bytes = self.read(at..at.saturating_add(1))?;
        bytes.as_ref().try_into().map_err(|_| RunError::Misuse("a record of another width"))
    }

    /// The first record for which `is_before` is false; it must be true for all before and false for all behind.
    pub(super) fn partition_point(&self, is_before: impl Fn(&[u8; W]) -> bool) -> Result<u64, RunError> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(&self.get(middle)?) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn columns(count: u32) -> [(tempfile::TempDir, Column<4>); 2] {
        [false, true].map(|filed| {
            let dir = tempfile::tempdir().unwrap();
            let mut column = Column::new(&if filed { Place::Scratch(dir.path()) } else { Place::Memory });
            (0..count).for_each(|n| column.push(&n.to_be_bytes()));
            (dir, column.finish().unwrap())
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn file_and_memory_hold_the_same(count in 0..300_000u32, picks in prop::collection::vec(any::<prop::sample::Index>(), 1..20)) {
            for (_dir, column) in columns(count) {
                prop_assert_eq!(column.len(), u64::from(count));
                for pick in &picks {
                    let at = pick.index(count as usize + 1) as u64;
                    let found = column.partition_point(|n| u64::from(u32::from_be_bytes(*n)) < at).unwrap();
                    prop_assert_eq!(found, at);
                    let range = at..u64::from(count).min(at + 70_000);
                    let expected: Vec<u8> =
                        range.clone().flat_map(|n| u32::try_from(n).unwrap().to_be_bytes()).collect();
                    let read = column.read(range).unwrap();
                    prop_assert_eq!(read.as_ref(), expected.as_slice());
                    prop_assert_eq!(column.get(at).is_ok(), at < u64::from(count));
                }
                prop_assert!(column.read(0..u64::from(count) + 1).is_err());
            }
        }
    }

    #[test]
    fn little_is_held_and_a_folder_that_is_gone_is_told_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut column: Column<8> = Column::new(&Place::Scratch(dir.path()));
        (0..1_000_000u64).for_each(|n| column.push(&n.to_be_bytes()));
        assert!(column.held.capacity() <= 2 * HELD_BYTES);
        let gone = dir.path().join("gone");
        let mut column: Column<8> = Column::new(&Place::Scratch(&gone));
        (0..1_000_000u64).for_each(|n| column.push(&n.to_be_bytes()));
        assert!(matches!(column.finish(), Err(RunError::Scratch { action: "create", .. })));
    }
}
