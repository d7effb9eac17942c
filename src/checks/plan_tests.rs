//! What is known of a table before anything is measured.

use super::*;
use crate::config::{self, CheckSpec};
use crate::model::TableSchema;
use crate::report::checks::Status;

fn schema(hidden_rows: Option<&str>, notes: &[&str]) -> TableSchema {
    TableSchema {
        table: TableName::new(None, "t"),
        is_view: false,
        columns: Vec::new(),
        keys: Vec::new(),
        estimated_rows: None,
        references: Vec::new(),
        referrers: Vec::new(),
        triggers: Vec::new(),
        fires_on_exchange: false,
        notes: notes.iter().map(|note| (*note).to_owned()).collect(),
        identity: None,
        hidden_rows: hidden_rows.map(str::to_owned),
    }
}

fn planned(source: TableSchema, target: TableSchema) -> Planned {
    let name = source.table.clone();
    let (notes, hidden_rows) = known_of(&Ok((source, target)));
    Planned {
        name: name.clone(),
        source: name.clone(),
        target: name,
        wishes: Wishes::default(),
        tolerance: Tolerances::new(),
        plan: Err(usage("no plan", "")),
        target_schema: None,
        notes,
        hidden_rows,
        line: 1,
    }
}

fn check(hidden_rows: &str) -> CheckSpec {
    let text = format!(
        "[endpoints.a]\nurl = \"sqlite://a\"\n[endpoints.b]\nurl = \"sqlite://b\"\n[pairs.p]\nsource = \"a\"\ntarget = \"b\"\n\
         [checks.c]\npair = \"p\"\nkind = \"count\"\n{hidden_rows}"
    );
    config::parse(&text).unwrap().checks.remove("c").unwrap()
}

#[test]
fn rows_that_may_be_hidden_make_a_check_unknown_unless_it_accepts_them() {
    let open = planned(schema(None, &[]), schema(None, &[]));
    assert_eq!(open.kept_from(&check("")), None);
    for (source, target, words) in [
        (Some("policies"), None, "source: policies"),
        (None, Some("policies"), "target: policies"),
        (Some("one"), Some("two"), "source: one; target: two"),
    ] {
        let table = planned(schema(source, &[]), schema(target, &[]));
        for text in ["", "hidden_rows = \"unknown\""] {
            let judged = table.kept_from(&check(text)).unwrap();
            assert_eq!((judged.status, judged.message.as_deref()), (Status::Unknown, Some(words)));
            assert!(judged.hint.unwrap().contains("hidden_rows = \"accept\""));
        }
        assert_eq!(table.kept_from(&check("hidden_rows = \"accept\"")), None);
    }
}

#[test]
fn notes_have_their_side() {
    let table = planned(schema(None, &["a", "b"]), schema(None, &["c"]));
    assert_eq!(table.notes, ["source: a", "source: b", "target: c"]);
}
