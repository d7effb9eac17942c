//! Floor 0 by criterion: canonical bytes, digests, the sketch's cells, the run with its tree, and a whole conversation.
//!
//!     cargo bench --bench floor0

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use trueup::locate::{LocateOptions, Locator, Role};
use trueup::merkle::{
    DigestRun, EntryBatch, Opener, RowDigest, RowHasher, RunBuilder, RunOptions, SessionKey, Tree, TreeKey,
};
use trueup::model::RowBuffer;

const BATCH: u64 = 4_096;

fn session() -> SessionKey {
    SessionKey::new([7; 32])
}

/// A row as the benchmark's table has it: bigint key, int, varchar, numeric, text, two timestamps.
fn encode(n: u64, row: &mut RowBuffer) {
    row.clear();
    let number = i64::try_from(n).unwrap();
    row.key_cell().int(number);
    row.cell().int(number * 7_919 % 100_000);
    row.cell().text([&b"open"[..], b"paid", b"shipped", b"done"][usize::try_from(n % 4).unwrap()], false);
    let digit = |value: u64| u16::try_from(value % 10_000).unwrap();
    row.cell().decimal_digits(false, 0, [digit(n / 100 + 1), digit(n % 100 * 100 + 1)].into_iter());
    row.cell().text(b"note 0123456789abcdef0123456789abcdef", false);
    row.cell().micros(1_704_067_200_000_000 + number * 1_000_000);
    row.cell().micros(1_717_200_000_000_000 + number * 1_000_000);
}

fn digest(n: u64) -> RowDigest {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.wrapping_mul(0xd6e8_feb8_6659_fd93).to_le_bytes());
    bytes[8..].copy_from_slice(&(n ^ 0xabcd).wrapping_mul(0xc2b2_ae3d_27d4_eb4f).to_le_bytes());
    RowDigest(bytes)
}

/// Entries in batches, as one reader (or, with a stride, as rows in no order) brings them; `change` alters some digests.
fn batches(rows: u64, scatter: bool, change: impl Fn(u64) -> bool) -> Vec<EntryBatch> {
    let mut all = Vec::new();
    for start in (0..rows).step_by(usize::try_from(BATCH).unwrap()) {
        let mut batch = EntryBatch::new();
        for n in start..rows.min(start + BATCH) {
            let n = if scatter { n.wrapping_mul(0x9e37_79b9_7f4a_7c15) } else { n };
            let mut key = [9; 9];
            key[1..].copy_from_slice(&n.to_be_bytes());
            batch.push(&key, digest(n + u64::from(change(n))));
        }
        all.push(batch);
    }
    all
}

fn build(batches: Vec<EntryBatch>) -> (DigestRun, Tree) {
    let mut builder = RunBuilder::new(RunOptions::default());
    for batch in batches {
        builder.push(batch).unwrap();
    }
    builder.finish(&TreeKey::from_session(&session())).unwrap()
}

/// From the opener until both know: how many differing rows the target was told of.
fn converse(target: &(Arc<DigestRun>, Arc<Tree>), source: &(Arc<DigestRun>, Arc<Tree>)) -> usize {
    let peer = Some((source.1.root(), source.1.count()));
    let options = LocateOptions { peer, ..LocateOptions::default() };
    let (mut asks, mut answers) = (
        Locator::new(Role::Target, target.0.clone(), target.1.clone(), options).unwrap(),
        Locator::new(Role::Source, source.0.clone(), source.1.clone(), LocateOptions::default()).unwrap(),
    );
    asks.start().unwrap();
    answers.start().unwrap();
    let mut found = 0;
    while asks.outcome().is_none() {
        while let Some(message) = asks.next_outgoing().unwrap() {
            answers.receive(message).unwrap();
        }
        while let Some(message) = answers.next_outgoing().unwrap() {
            let mut step = asks.receive(message).unwrap();
            loop {
                found += step.findings.len();
                if !step.more {
                    break;
                }
                step = asks.resume().unwrap();
            }
        }
    }
    found
}

fn rows(c: &mut Criterion) {
    let mut group = c.benchmark_group("rows");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("canonical bytes", |b| {
        let mut row = RowBuffer::default();
        b.iter(|| (0..BATCH).for_each(|n| encode(black_box(n), &mut row)));
    });
    group.bench_function("canonical bytes and digests", |b| {
        let (mut row, session) = (RowBuffer::default(), session());
        b.iter(|| {
            let mut hasher = RowHasher::new(&session);
            for n in 0..BATCH {
                encode(black_box(n), &mut row);
                hasher.push(row.key.as_slice(), row.row.as_slice());
            }
            hasher.take()
        });
    });
    group.bench_function("the opener's cells", |b| {
        let mut cells = Opener::new();
        b.iter(|| (0..BATCH).for_each(|n| cells.add(digest(black_box(n)))));
    });
    group.finish();
}

fn runs(c: &mut Criterion) {
    const ROWS: u64 = 1 << 20;
    let mut group = c.benchmark_group("run and tree of a million rows");
    group.throughput(Throughput::Elements(ROWS)).sample_size(10);
    for (name, scatter) in [("in key order", false), ("in no order", true)] {
        group.bench_function(name, |b| {
            b.iter_batched(|| batches(ROWS, scatter, |_| false), build, BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn conversations(c: &mut Criterion) {
    const ROWS: u64 = 1 << 20;
    let side = |change: fn(u64) -> bool| {
        let (run, tree) = build(batches(ROWS, false, change));
        (Arc::new(run), Arc::new(tree))
    };
    let source = side(|_| false);
    let mut group = c.benchmark_group("conversation over a million rows");
    group.sample_size(10);
    type Changed = fn(u64) -> bool;
    let sides: [(&str, Changed, usize); 3] = [
        ("100 changed", |n| n % 10_486 == 7, 100),
        ("10,000 changed", |n| n % 105 == 7, 9_987),
        ("10,000 side by side", |n| (5_000..15_000).contains(&n), 10_000),
    ];
    for (name, change, expected) in sides {
        let target = side(change);
        assert_eq!(converse(&target, &source), expected, "{name}");
        group.bench_function(name, |b| b.iter(|| converse(&target, &source)));
    }
    group.finish();
}

criterion_group!(benches, rows, runs, conversations);
criterion_main!(benches);
