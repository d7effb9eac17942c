//! Journals are read back as they were written, whatever cut them off, and no altered byte passes.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::super::head::DigestSecret;
use super::super::limits::UndoLimits;
use super::super::own::WholePlan;
use super::super::reader::{JournalReader, Overwritten, WrittenBatch, is_written};
use super::super::store::UndoStore;
use super::*;
use crate::model::{EngineKind, Key, Plan, Rounding, ServerInfo, TableName, TableSchema};

const DIGESTS: [u8; 32] = [5; 32];

fn head() -> JournalHead {
    let table = TableName::new(None, "t");
    let plan = Plan {
        encoding_version: 1,
        source: table.clone(),
        target: table,
        columns: Vec::new(),
        key_len: 0,
        source_where: None,
        target_where: None,
        ranges: None,
        warnings: Vec::new(),
        coverage: crate::model::ColumnCoverage::default(),
    };
    let schema = TableSchema {
        table: plan.target.clone(),
        is_view: false,
        columns: Vec::new(),
        keys: Vec::new(),
        estimated_rows: None,
        references: Vec::new(),
        referrers: Vec::new(),
        triggers: Vec::new(),
        fires_on_exchange: false,
        notes: Vec::new(),
        identity: None,
        hidden_rows: None,
    };
    let server =
        ServerInfo { engine: EngineKind::Sqlite, product: String::new(), rounding: Rounding::Truncate };
    let whole = WholePlan::of(&plan, &schema, &server);
    let digests = DigestSecret::of(&SessionKey::new(DIGESTS));
    let origin = crate::engine::Origin::Postgres(crate::engine::origin::PostgresOrigin {
        system: None,
        database: "1".into(),
        table: "2".into(),
    });
    JournalHead { run: "r".into(), origin, plan, whole, limits: UndoLimits::default(), digests }
}

/// A change, and the whole row as it was where the table has more columns than are compared.
type Given = (Change, Option<CanonicalRow>);

fn rows() -> impl Strategy<Value = Vec<Given>> {
    let bytes = || vec(any::<u8>(), 0..40);
    let row = (bytes(), option::of(bytes()), option::of(bytes()), option::of(bytes()));
    vec(row, 1..6).prop_map(|rows| {
        let row = |bytes: Vec<u8>| CanonicalRow::new(bytes);
        rows.into_iter()
            .map(|(key, before, after, own)| {
                (Change { key: Key::new(key), before: before.map(row), after: after.map(row) }, own.map(row))
            })
            .collect()
    })
}

/// What a journal holds of it.
fn kept((change, own_before): &Given) -> Overwritten {
    let digest =
        |row: &CanonicalRow| SessionKey::new(DIGESTS).row_digest(change.key.as_bytes(), row.as_bytes());
    Overwritten {
        key: change.key.clone(),
        before: change.before.clone(),
        after: change.after.as_ref().map(digest),
        own_before: own_before.clone(),
        left: None,
    }
}

/// What is said of the row at this place once it was written: of every other one what it held then.
fn left(at: usize) -> Option<RowDigest> {
    at.is_multiple_of(2).then(|| RowDigest([u8::try_from(at).unwrap(); 16]))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// The file is closed by the thread that wrote it last, which may be a moment later.
fn end(journal: Journal, path: &Path) {
    drop(journal);
    while is_written(path) {
        std::thread::yield_now();
    }
}

/// Whether it replaces, its rows, and what became of them.
type Batch = (bool, Vec<Given>, Option<Vec<RowOutcome>>);

/// The file of these batches, each followed by its outcomes where they are given; and its length after each record.
fn write(path: &Path, key: &UndoKey, batches: &[Batch]) -> Vec<u64> {
    block_on(async {
        let mut journal = Journal::create(path, key, &head()).await.unwrap().unwrap();
        let length = || std::fs::metadata(path).unwrap().len();
        let mut lengths = vec![length()];
        for (at, (replace, rows, outcomes)) in (1..).zip(batches) {
            // Rows that are all inserted may come in either way.
            let inserts = rows.iter().map(|row| match (&row.0, &row.1, kept(row).after) {
                (Change { key, before: None, .. }, None, Some(digest)) => Some((key.as_bytes(), digest)),
                _ => None,
            });
            match inserts.collect::<Option<Vec<_>>>().filter(|_| !replace) {
                Some(rows) => {
                    let rows = rows.iter().map(|(key, digest)| (*key, digest));
                    journal.inserts(at, rows).await.unwrap();
                }
                None => {
                    let rows = rows.iter().map(|(change, own_before)| (change, own_before));
                    journal.batch(at, *replace, rows).await.unwrap();
                }
            }
            lengths.push(length());
            if let Some(outcomes) = outcomes {
                let left: Vec<_> = (0..outcomes.len()).map(left).collect();
                journal.outcomes(at, outcomes, &left).await.unwrap();
                lengths.push(length());
            }
        }
        assert!(Journal::create(path, key, &head()).await.unwrap().is_none(), "never over another");
        end(journal, path);
        lengths
    })
}

fn read(path: &Path, key: &UndoKey) -> Result<Vec<WrittenBatch>, AgentError> {
    let Some(mut reader) = JournalReader::open(path, key)? else {
        return Err(AgentError::new(FailureKind::Usage, "it holds nothing"));
    };
    assert_eq!((&reader.head, reader.closed), (&head(), false));
    let mut all = Vec::new();
    while let Some(batch) = reader.previous()? {
        all.push(batch);
    }
    Ok(all)
}

fn outcome() -> impl Strategy<Value = RowOutcome> {
    prop::sample::select(vec![
        RowOutcome::Written,
        RowOutcome::Stale,
        RowOutcome::Refused,
        RowOutcome::Unknown,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_may_have_been_written_is_read_back_to_front(
        batches in vec((any::<bool>(), rows(), option::of(vec(outcome(), 6))), 0..5),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (path, key) = (dir.path().join("r.0.undo"), UndoKey([7; 32]));
        let batches: Vec<_> = batches
            .into_iter()
            .map(|(replace, rows, outcomes)| {
                let outcomes = outcomes.map(|all| all[..rows.len()].to_vec());
                (replace, rows, outcomes)
            })
            .collect();
        write(&path, &key, &batches);
        let read = read(&path, &key).unwrap();
        prop_assert_eq!(read.len(), batches.len());
        for (read, (replace, rows, outcomes)) in read.iter().rev().zip(&batches) {
            prop_assert_eq!(read.replace, *replace);
            let written = |at: usize| outcomes.as_ref().is_none_or(|all| {
                matches!(all[at], RowOutcome::Written | RowOutcome::Unknown)
            });
            let expected: Vec<_> = rows
                .iter()
                .enumerate()
                .filter(|(at, _)| written(*at))
                .map(|(at, row)| Overwritten { left: outcomes.as_ref().and_then(|_| left(at)), ..kept(row) })
                .collect();
            prop_assert_eq!(&read.rows, &expected);
        }
    }

    #[test]
    fn a_journal_cut_off_anywhere_gives_its_whole_records(
        batches in vec(rows(), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (path, key) = (dir.path().join("r.0.undo"), UndoKey([7; 32]));
        let batches: Vec<_> = batches.into_iter().map(|rows| (false, rows, None)).collect();
        let lengths = write(&path, &key, &batches);
        let whole = std::fs::read(&path).unwrap();
        let cut = cut.index(whole.len() + 1);
        std::fs::write(&path, &whole[..cut]).unwrap();
        let records = lengths.iter().filter(|length| **length <= cut as u64).count();
        match read(&path, &key) {
            Ok(read) => prop_assert_eq!(read.len() + 1, records),
            Err(error) => prop_assert!(records == 0 && error.kind == FailureKind::Usage, "{error}"),
        }
    }

    #[test]
    fn no_altered_byte_passes(rows in rows(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let dir = tempfile::tempdir().unwrap();
        let (path, key) = (dir.path().join("r.0.undo"), UndoKey([7; 32]));
        write(&path, &key, &[(false, rows, None)]);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        std::fs::write(&path, &bytes).unwrap();
        // A length that points beyond the end looks like a record cut off; no row comes of it.
        prop_assert!(read(&path, &key).map_or(true, |read| read.is_empty()));
    }
}

#[test]
fn a_journal_is_closed_by_its_last_record_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (path, key) = (dir.path().join("r.0.undo"), UndoKey([7; 32]));
    block_on(async {
        let mut journal = Journal::create(&path, &key, &head()).await.unwrap().unwrap();
        journal.inserts(1, std::iter::empty()).await.unwrap();
        journal.outcomes(1, &[], &[]).await.unwrap();
        journal.close().await.unwrap();
        end(journal, &path);
    });
    let whole = std::fs::read(&path).unwrap();
    let open = || JournalReader::open(&path, &key).unwrap();
    assert!(open().unwrap().closed);
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert!(open().is_none_or(|reader| !reader.closed), "cut at {cut}");
    }
    std::fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    assert!(!open().unwrap().closed, "something follows");
}

#[test]
fn another_key_and_another_name_open_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (path, key) = (dir.path().join("r.0.undo"), UndoKey([7; 32]));
    write(&path, &key, &[]);
    assert!(read(&path, &key).unwrap().is_empty());
    let error = read(&path, &UndoKey([8; 32])).unwrap_err();
    assert!(error.message.contains("record 0") && error.hint.unwrap().contains("--undo-key-file"));
    let other = dir.path().join("r.1.undo");
    std::fs::copy(&path, &other).unwrap();
    assert!(read(&other, &key).is_err(), "a journal cannot be passed off as another");
}

#[test]
fn rows_cannot_be_read_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, key) = (dir.path().join("r.0.undo"), UndoKey([7; 32]));
    let secret = CanonicalRow::new(*b"a very secret value");
    let change = Change { key: Key::from(&b"secret key"[..]), before: Some(secret.clone()), after: None };
    write(&path, &key, &[(false, vec![(change, Some(secret))], None)]);
    let bytes = std::fs::read(&path).unwrap();
    assert!(!bytes.windows(6).any(|part| part == b"secret"));
}

#[test]
fn a_run_that_is_taken_back_begins_no_journal_and_one_that_writes_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = UndoStore::open(dir.path(), UndoKey([7; 32])).unwrap();
    block_on(async {
        let journal = store.begin(&head()).await.unwrap();
        let written = dir.path().join("r.0.undo");
        assert!(is_written(&written));
        let error = JournalReader::open(&written, store.key()).unwrap_err();
        assert!(error.message.contains("is being written"), "{error}");
        end(journal, &written);
        let reader = JournalReader::open(&written, store.key()).unwrap().unwrap();
        assert!(!is_written(&written), "readers do not hinder each other");
        drop(reader);
        let mut lock = store.lock("r", false).unwrap();
        drop(store.begin(&head()).await.unwrap());
        lock.end_run().unwrap();
        for _ in 0..2 {
            let error = store.begin(&head()).await.unwrap_err();
            assert!(error.message.contains("it writes no more"), "{error}");
            lock.let_run_go_on();
            drop(store.begin(&head()).await.unwrap());
            lock.end_run().unwrap();
        }
        // It stays so when the undo has ended.
        drop(lock);
        assert!(store.begin(&head()).await.is_err());
        assert!(store.begin(&JournalHead { run: "s".into(), ..head() }).await.is_ok());
    });
}
