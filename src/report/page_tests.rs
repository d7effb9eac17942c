//! Whatever names and keys hold, the page has the tags it was written with and no others.

use proptest::prelude::*;

use super::*;
use crate::agent::TableOutcome;
use crate::report::TableError;
use crate::report::record::{DifferenceRecord, RunRecord, TrailSummary};

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
