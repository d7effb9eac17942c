//! Whatever names and keys hold, the page has the tags it was written with and no others.

use proptest::prelude::*;

use super::*;
use crate::agent::TableOutcome;
use crate::report::backfill::{BackfillTable, ChunkReport, Elsewhere, StepRow};
use crate::report::checks::{CheckResult, Status};
use crate::report::record::{DifferenceRecord, RunRecord, TrailSummary};
use crate::report::{TableError, Verdict};

fn backfill(text: &str) -> BackfillTable {
    let s = || text.to_owned();
    let chunk = ChunkReport {
        from: s(),
        to: s(),
        verdict: Verdict::Same,
        source_rows: 7,
        missing: 3,
        changed: 0,
        extra: 0,
        inserted: 3,
        updated: 0,
        deleted: 0,
        left: 0,
        set_aside: 0,
        proved: true,
        source_root: s(),
        target_root: s(),
        repaired_root: Some(s()),
        error: None,
        seconds: 0.5,
    };
    let step =
        StepRow { from: s(), to: s(), source: 7, target: 4, source_after: Some(7), target_after: Some(7) };
    BackfillTable {
        source_table: s(),
        target_table: s(),
        verdict: Verdict::Same,
        column: s(),
        step: s(),
        time_zone: Some(s()),
        from: s(),
        to: s(),
        columns: crate::model::ColumnCoverage::default(),
        warnings: vec![s()],
        error: None,
        steps: vec![step],
        chunks: vec![chunk],
        inserted: 3,
        updated: 0,
        deleted: 0,
        left: 0,
        set_aside: 0,
        tolerated: 0,
        rows_set_aside: Vec::new(),
        bounded: false,
        source_elsewhere: Elsewhere::default(),
        target_elsewhere: Elsewhere::default(),
        hidden_rows: vec![s()],
        claim: s(),
        plan: None,
        outcome: TableOutcome::default(),
        unsettled: 0,
        doubts: Vec::new(),
        left_because: std::collections::BTreeMap::new(),
    }
}

fn evidence(text: &str) -> Evidence {
    let s = || text.to_owned();
    let table = TableRecord {
        source_table: s(),
        target_table: s(),
        verdict: s(),
        plan_fingerprint: Some(s()),
        plan: None,
        outcome: TableOutcome {
            missing: 5,
            inserted: 3,
            source_root: s(),
            repaired_root: Some(s()),
            ..TableOutcome::default()
        },
        warnings: vec![s()],
        error: Some(TableError { kind: s(), side: None, message: s(), hint: None }),
        backfill: Some(backfill(text)),
        differences: vec![DifferenceRecord { kind: s(), key: s(), columns: vec![s()], reason: None }],
    };
    Evidence {
        schema_version: 1,
        run: RunRecord {
            id: s(),
            kind: s(),
            who: s(),
            host: s(),
            software: s(),
            started_at: s(),
            ended_at: Some(s()),
            outcome: Some(s()),
            error: Some(s()),
            source: s(),
            target: s(),
            target_reference: s(),
            writes: true,
            undoes: Some(s()),
            options: serde_json::json!({ "allow": text }),
            only_in_source: vec![s()],
            only_in_target: vec![s()],
            checks: vec![CheckResult {
                name: s(),
                kind: s(),
                pair: s(),
                table: Some(s()),
                status: Status::Fail,
                severity: s(),
                owner: Some(s()),
                source: Some(s()),
                target: Some(s()),
                difference: Some(s()),
                message: Some(s()),
                hint: Some(s()),
                extent: None,
                columns: None,
                notes: Vec::new(),
                seconds: 0.0,
            }],
            tables: vec![table.clone(), table],
        },
        trail: TrailSummary {
            entries: 1,
            first: 1,
            last: 1,
            hash: s(),
            outcomes: vec![(s(), 1)],
            faults: vec![s()],
        },
        undone_by: vec![s()],
    }
}

/// The page's tags with their attributes, in order.
fn tags(page: &str) -> Vec<String> {
    page.split('<').skip(1).map(|part| part.split('>').next().unwrap().to_owned()).collect()
}

proptest! {
    #[test]
    fn nothing_breaks_out(text in "[<>&\"'=/a-z !\\-\u{202e}\u{0}]{1,12}") {
        prop_assert_eq!(tags(&html(&evidence(&text))), tags(&html(&evidence("plain"))));
    }
}

#[test]
fn a_page_loads_nothing_and_says_all() {
    let page = html(&evidence("<script>alert(1)</script>"));
    for word in ["<script", "http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(word), "{word}");
    }
    for word in [
        "&lt;script&gt;",
        "What differed",
        "What was done",
        "Proof",
        "prefers-color-scheme:dark",
        "@media print",
    ] {
        assert!(page.contains(word), "{word}");
    }
}
