//! Plans are agreed from what engines say; what is unsound is refused by name.

use super::*;
use crate::model::Unpaired;
use crate::model::schema::Rounding;

fn server(engine: EngineKind) -> ServerInfo {
    ServerInfo { engine, product: engine.to_string(), rounding: Rounding::HalfAwayFromZero }
}

fn column(name: &str, ty: ColumnType) -> Column {
    Column {
        name: name.to_owned(),
        declared: format!("{ty:?}"),
        ty,
        nullable: false,
        filled: Filled::ByWriter,
        has_default: false,
        collation: None,
        collation_folds: false,
    }
}

const INT: ColumnType = ColumnType::Int { bits: 64, signed: true };
const TEXT: ColumnType = ColumnType::Text { padded: false };

fn table(name: &str, columns: Vec<Column>, key: &[&str]) -> TableSchema {
    let keys = if key.is_empty() {
        Vec::new()
    } else {
        let columns = key.iter().map(|c| (*c).to_owned()).collect();
        vec![UniqueKey { name: "pk".into(), primary: true, columns, identifies: true }]
    };
    TableSchema {
        table: TableName::new(None, name),
        is_view: false,
        columns,
        keys,
        estimated_rows: None,
        references: Vec::new(),
        referrers: Vec::new(),
        triggers: Vec::new(),
        fires_on_exchange: false,
        notes: Vec::new(),
        identity: None,
        hidden_rows: None,
    }
}

fn agree(source: &TableSchema, target: &TableSchema, wishes: &Wishes) -> Result<Plan, PlanRefusal> {
    Plan::agree((source, &server(EngineKind::Postgres)), (target, &server(EngineKind::MySql)), wishes)
}

fn names(plan: &Plan) -> Vec<(&str, &str)> {
    plan.columns.iter().map(|c| (c.source.as_str(), c.target.as_str())).collect()
}

fn strings(of: &[&str]) -> Vec<String> {
    of.iter().map(|s| (*s).to_owned()).collect()
}

#[test]
fn key_first_then_the_shared_columns() {
    let source = table("t", vec![column("a", TEXT), column("id", INT), column("only_s", INT)], &["id"]);
    let target = table("t", vec![column("ID", INT), column("A", TEXT), column("only_t", INT)], &["ID"]);
    let plan = agree(&source, &target, &Wishes::default()).unwrap();
    assert_eq!(names(&plan), [("id", "ID"), ("a", "A")]);
    assert_eq!(plan.key_len, 1);
    assert_eq!(
        plan.coverage.summary(),
        "compared 2 of 4 columns; only in the source: only_s; only in the target: only_t"
    );
    assert!(plan.coverage.differs() && plan.warnings.is_empty());
    let access = plan.access(Role::Target);
    assert_eq!(access.key_columns()[0].name, "ID");
}

#[test]
fn wishes_choose_map_and_exclude() {
    let source =
        table("t", vec![column("id", INT), column("a", TEXT), column("b", INT), column("c", INT)], &["id"]);
    let target =
        table("t", vec![column("id", INT), column("x", TEXT), column("b", TEXT), column("c", INT)], &["id"]);
    let mut wishes = Wishes { exclude: strings(&["b"]), ..Wishes::default() };
    wishes.map.insert("a".into(), "x".into());
    let plan = agree(&source, &target, &wishes).unwrap();
    assert_eq!(names(&plan), [("id", "id"), ("a", "x"), ("c", "c")]);
    assert_eq!(plan.coverage.summary(), "compared 3 of 4 columns");
    wishes.columns = strings(&["c"]);
    assert_eq!(names(&agree(&source, &target, &wishes).unwrap()), [("id", "id"), ("c", "c")]);
}

#[test]
fn columns_without_a_partner_are_told_by_side() {
    let source = table("t", vec![column("id", INT), column("a", INT), column("gone", TEXT)], &["id"]);
    let mut target = table(
        "t",
        vec![column("id", INT), column("a", INT), column("sum", INT), column("tid", INT)],
        &["id"],
    );
    target.columns[2].filled = Filled::Generated;
    target.keys.push(UniqueKey { primary: false, columns: strings(&["tid"]), ..target.keys[0].clone() });
    let coverage = |wishes: &Wishes| agree(&source, &target, wishes).unwrap().coverage;
    let of = |unpaired| coverage(&Wishes { unpaired, ..Wishes::default() });
    assert_eq!(
        of(Unpaired::Different).summary(),
        "compared 2 of 5 columns; only in the source: gone; only in the target: sum, tid"
    );
    assert!(of(Unpaired::Different).differs() && !of(Unpaired::Ignore).differs());
    let some = of(Unpaired::Accept(strings(&["gone", "sum", "elsewhere"])));
    assert!(some.differs());
    assert!(
        some.summary().contains("only in the target: tid; only in the source, accepted: gone"),
        "{some:?}"
    );
    assert!(!of(Unpaired::Accept(strings(&["gone", "sum", "tid"]))).differs());
    // What was excluded, or not chosen, is nobody's surprise; it is counted all the same.
    let excluded = coverage(&Wishes { exclude: strings(&["gone", "sum", "tid"]), ..Wishes::default() });
    let chosen = coverage(&Wishes { columns: strings(&["a"]), ..Wishes::default() });
    for coverage in [excluded, chosen] {
        assert_eq!((coverage.summary().as_str(), coverage.differs()), ("compared 2 of 5 columns", false));
    }
    // A column that lost its namesake to another is without a partner too.
    let map = [("gone".to_owned(), "a".to_owned())].into();
    let mapped = Wishes { map, as_text: strings(&["gone"]), ..Wishes::default() };
    assert!(coverage(&mapped).summary().contains("only in the source: a"), "{:?}", coverage(&mapped));
}

#[test]
fn one_column_has_one_partner() {
    let source = table("t", vec![column("id", INT), column("a", INT), column("A", INT)], &["id"]);
    let target = table("t", vec![column("id", INT), column("a", INT)], &["id"]);
    let plan = agree(&source, &target, &Wishes::default()).unwrap();
    assert_eq!(plan.coverage.summary(), "compared 2 of 3 columns; only in the source: A");
    let plan = agree(&target, &source, &Wishes::default()).unwrap();
    assert_eq!(plan.coverage.summary(), "compared 2 of 3 columns; only in the target: A");
    let twice = [("a".to_owned(), "a".to_owned()), ("A".to_owned(), "a".to_owned())].into();
    let refused = agree(&source, &target, &Wishes { map: twice, ..Wishes::default() }).unwrap_err();
    assert!(refused.what.contains("mapped twice"), "{refused:?}");
}

#[test]
fn unsound_pairs_are_refused_by_name() {
    let source = table("t", vec![column("id", INT), column("b", INT)], &["id"]);
    let target = table("t", vec![column("id", INT), column("b", TEXT)], &["id"]);
    let refused = agree(&source, &target, &Wishes::default()).unwrap_err();
    assert!(refused.what.contains("column b"), "{refused:?}");
    assert!(refused.hint.contains("--exclude b") && refused.hint.contains("--as-text b"), "{refused:?}");
    let wishes = Wishes { as_text: strings(&["b"]), ..Wishes::default() };
    assert_eq!(
        agree(&source, &target, &wishes).unwrap().columns[1].comparison,
        ComparisonType::Text { trim: false }
    );
}

#[test]
fn keys_must_identify_on_both_sides() {
    let with = table("t", vec![column("id", INT), column("b", INT)], &["id"]);
    let without = table("t", vec![column("id", INT), column("b", INT)], &[]);
    let refused = agree(&without, &with, &Wishes::default()).unwrap_err();
    assert!(refused.hint.contains("--key"), "{refused:?}");
    assert!(agree(&with, &without, &Wishes::default()).is_err());
    let wishes = Wishes { key: strings(&["b"]), ..Wishes::default() };
    assert!(agree(&with, &with, &wishes).is_err());
    let mut nullable = with.clone();
    nullable.keys[0].identifies = false;
    assert!(agree(&nullable, &with, &Wishes::default()).is_err());
    // A view as the source borrows the target's key.
    let mut view = without;
    view.is_view = true;
    assert_eq!(names(&agree(&view, &with, &Wishes::default()).unwrap())[0], ("id", "id"));
}

#[test]
fn keys_are_never_rounded() {
    let precise = |digits| table("t", vec![column("id", ColumnType::Timestamp { digits })], &["id"]);
    assert!(agree(&precise(6), &precise(6), &Wishes::default()).is_ok());
    let refused = agree(&precise(6), &precise(3), &Wishes::default()).unwrap_err();
    assert!(refused.what.contains("key column id"), "{refused:?}");
}

#[test]
fn names_that_match_nothing_are_mistakes() {
    let t = table("t", vec![column("id", INT), column("b", INT)], &["id"]);
    for wishes in [
        Wishes { exclude: strings(&["nope"]), ..Wishes::default() },
        Wishes { columns: strings(&["nope"]), ..Wishes::default() },
        Wishes { key: strings(&["nope"]), ..Wishes::default() },
        Wishes { as_text: strings(&["nope"]), ..Wishes::default() },
        Wishes { map: [("b".to_owned(), "nope".to_owned())].into(), ..Wishes::default() },
    ] {
        let refused = agree(&t, &t, &wishes).unwrap_err();
        assert!(refused.what.contains("nope") && refused.hint.contains("id, b"), "{refused:?}");
    }
}

#[test]
fn columns_that_differ_only_in_case_need_a_choice() {
    let source = table("t", vec![column("id", INT), column("a", INT)], &["id"]);
    let target = table("t", vec![column("id", INT), column("A", INT), column("Á", INT)], &["id"]);
    assert!(agree(&source, &target, &Wishes::default()).is_ok());
    let target = table("t", vec![column("id", INT), column("A", INT), column("aA", INT)], &["id"]);
    let source = table("t", vec![column("id", INT), column("Aa", INT), column("AA", INT)], &["id"]);
    assert!(agree(&source, &target, &Wishes::default()).unwrap_err().hint.contains("--map"));
}

#[test]
fn a_folding_collation_on_one_side_is_named() {
    let source = table("t", vec![column("id", TEXT)], &["id"]);
    let mut target = source.clone();
    target.columns[0].collation_folds = true;
    let plan = agree(&source, &target, &Wishes::default()).unwrap();
    assert!(plan.warnings[0].contains("target's collation"), "{:?}", plan.warnings);
}
