//! Both machines in one test: every message goes through its bytes, and what crosses is counted.

use std::sync::Arc;

use super::*;
use crate::merkle::{DigestRun, EntryBatch, RowDigest, RunBuilder, RunOptions, SessionKey, Tree, TreeKey};

pub(super) struct Table {
    pub(super) run: Arc<DigestRun>,
    pub(super) tree: Arc<Tree>,
}

impl Table {
    pub(super) fn new<K: AsRef<[u8]>>(entries: impl IntoIterator<Item = (K, RowDigest)>) -> Self {
        let mut builder = RunBuilder::new(RunOptions::default());
        let mut batch = EntryBatch::new();
        for (key, digest) in entries {
            batch.push(key.as_ref(), digest);
            if batch.len() == 4096 {
                builder.push(std::mem::take(&mut batch)).unwrap();
            }
        }
        builder.push(batch).unwrap();
        let (run, tree) = builder.finish(&TreeKey::from_session(&SessionKey::new([9; 32]))).unwrap();
        Self { run: Arc::new(run), tree: Arc::new(tree) }
    }

    pub(super) fn locator(&self, role: Role, options: LocateOptions) -> Locator<DigestRun> {
        let mut locator = Locator::new(role, Arc::clone(&self.run), Arc::clone(&self.tree), options).unwrap();
        locator.start().unwrap();
        locator
    }
}

/// What a conversation gave and cost.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) findings: Vec<Finding>,
    pub(super) missing_runs: Vec<MissingRun>,
    pub(super) outcome: Option<Outcome>,
    pub(super) restarts: usize,
    pub(super) target_to_source: usize,
    pub(super) source_to_target: usize,
    pub(super) messages: usize,
    pub(super) largest: usize,
    /// Turns of the conversation until the last finding had arrived (two make a round trip), and until its end.
    pub(super) turns_to_findings: usize,
    pub(super) turns: usize,
}

impl Report {
    pub(super) fn bytes(&self) -> usize {
        self.target_to_source + self.source_to_target
    }

    /// For snapshots: bytes to source, bytes to target, turns until the findings were there.
    pub(super) fn cost(&self) -> (usize, usize, usize) {
        (self.target_to_source, self.source_to_target, self.turns_to_findings)
    }

    fn take(&mut self, step: Step) -> bool {
        if step.restarted {
            self.findings.clear();
            self.missing_runs.clear();
            self.restarts += 1;
        }
        self.findings.extend(step.findings);
        self.missing_runs.extend(step.missing_runs);
        step.more
    }
}

pub(super) fn duet(
    source: &mut Locator<DigestRun>,
    target: &mut Locator<DigestRun>,
) -> Result<Report, LocateError> {
    let mut report = Report::default();
    loop {
        let mut quiet = true;
        for to_source in [true, false] {
            let (from, to) =
                if to_source { (&mut *target, &mut *source) } else { (&mut *source, &mut *target) };
            let mut spoke = false;
            while let Some(message) = from.next_outgoing()? {
                let bytes = message.encode();
                spoke = true;
                report.messages += 1;
                report.largest = report.largest.max(bytes.len());
                *(if to_source { &mut report.target_to_source } else { &mut report.source_to_target }) +=
                    bytes.len();
                let decoded = Message::decode(&bytes)?;
                assert_eq!(decoded, message);
                let telling =
                    matches!(decoded, Message::Findings(_) | Message::MissingRun(_) | Message::End(_));
                if telling || decoded == Message::Equal {
                    report.turns_to_findings = report.turns + 1;
                }
                let mut step = to.receive(decoded)?;
                while report.take(step) {
                    step = to.resume()?;
                }
            }
            if spoke {
                report.turns += 1;
                quiet = false;
            }
        }
        if quiet {
            break;
        }
    }
    assert_eq!(source.outcome(), target.outcome());
    report.outcome = target.outcome();
    Ok(report)
}

/// Source and target to the end, without options.
pub(super) fn converse(source: &Table, target: &Table, options: LocateOptions) -> Report {
    let mut source = source.locator(Role::Source, LocateOptions::default());
    let mut target = target.locator(Role::Target, options);
    duet(&mut source, &mut target).unwrap()
}
