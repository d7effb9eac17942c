//! Pictures of backfills, and the words of their verdicts.

use super::*;

fn step(at: u64, source: u64, target: u64) -> StepRow {
    StepRow {
        from: at.to_string(),
        to: (at + 1).to_string(),
        source,
        target,
        source_after: None,
        target_after: None,
    }
}

fn table(steps: Vec<StepRow>) -> BackfillTable {
    BackfillTable {
        source_table: "t".to_owned(),
        target_table: "t".to_owned(),
        verdict: Verdict::Unknown,
        column: "at".to_owned(),
        step: "day".to_owned(),
        time_zone: None,
        from: "0".to_owned(),
        to: "9".to_owned(),
        columns: ColumnCoverage::default(),
        warnings: Vec::new(),
        error: None,
        steps,
        chunks: Vec::new(),
        inserted: 0,
        updated: 0,
        deleted: 0,
        left: 0,
        set_aside: 0,
        tolerated: 0,
        rows_set_aside: Vec::new(),
        bounded: false,
        source_elsewhere: Elsewhere::default(),
        target_elsewhere: Elsewhere::default(),
        hidden_rows: Vec::new(),
        claim: String::new(),
        plan: None,
        outcome: TableOutcome::default(),
        unsettled: 0,
        doubts: Vec::new(),
        left_because: BTreeMap::new(),
    }
}

#[test]
fn the_picture_shows_every_gap() {
    let picture = picture(&[step(0, 100, 100), step(1, 100, 1), step(2, 0, 5)], Style { color: false });
    let lines: Vec<&str> = picture.lines().collect();
    assert!(lines[1].ends_with("100") && lines[2].ends_with("-99") && lines[3].ends_with("+5"), "{picture}");
    assert!(lines[2].contains("█···················      1"), "{picture}");
    let many: Vec<StepRow> = (0..1000).map(|at| step(at, 2, if at == 777 { 1 } else { 2 })).collect();
    let picture = super::picture(&many, Style { color: false });
    assert!(picture.lines().count() <= LINES_MAX + 2);
    assert_eq!(picture.matches("-1").count(), 1);
    // A lost and a surplus row on one line do not cancel out.
    let mut swapped = many;
    swapped[778].target = 3;
    assert!(super::picture(&swapped, Style { color: false }).contains('!'));
}

#[test]
fn gaps_that_touch_are_one() {
    let mut out = String::new();
    gaps(
        &mut out,
        &table(vec![step(0, 1, 0), step(1, 5, 0), step(2, 1, 1), step(3, 0, 1)]),
        Style { color: false },
    );
    assert_eq!(
        out,
        "  gap 0 .. 2: 6 at the source, 0 at the target\n  gap 3 .. 4: 0 at the source, 1 at the target\n"
    );
}

#[test]
fn nothing_unproved_is_the_same() {
    let judged = |mut step: StepRow, after: (u64, u64), verdict| {
        (step.source_after, step.target_after) = (Some(after.0), Some(after.1));
        let mut table = table(vec![step]);
        table.judge(&[verdict], "time", false);
        table.verdict
    };
    let gap = step(0, 2, 1);
    assert_eq!(judged(gap.clone(), (2, 2), Some(Verdict::Same)), Verdict::Same);
    assert_eq!(judged(gap.clone(), (2, 2), Some(Verdict::Different)), Verdict::Different);
    assert_eq!(judged(gap.clone(), (2, 2), Some(Verdict::Unknown)), Verdict::Unknown);
    assert_eq!(judged(gap.clone(), (3, 2), Some(Verdict::Same)), Verdict::Unknown);
    assert_eq!(judged(gap.clone(), (2, 1), Some(Verdict::Different)), Verdict::Different);
    // Counts prove nothing, whether they agree or not.
    assert_eq!(judged(gap, (2, 1), None), Verdict::Unknown);
    assert_eq!(judged(step(0, 2, 2), (2, 2), None), Verdict::Unknown);
}

#[test]
fn rows_without_a_time_bound_the_claim() {
    let judged = |source: Misfits, target: Misfits, bounded: bool, hidden: bool| {
        let mut table = table(vec![step(0, 2, 2)]);
        table.source_elsewhere.misfits = source;
        table.target_elsewhere.misfits = target;
        table.bounded = bounded;
        table.hidden_rows = if hidden { vec!["policies".to_owned()] } else { Vec::new() };
        table.judge(&[Some(Verdict::Same)], "time", false);
        (table.verdict, table.claim)
    };
    let none = Misfits::default();
    let null = Misfits { null: 2, ..none };
    let bad = Misfits { unreadable: 1, ..none };
    let said = |verdict, claim: &str| (verdict, claim.to_owned());
    assert_eq!(judged(none, none, false, false), said(Verdict::Same, "no gap from 0 to 1, proved the same"));
    assert_eq!(
        judged(null, null, false, false),
        said(
            Verdict::Same,
            "no gap in what has a time from 0 to 1, proved the same; 2 rows without a time were not compared"
        )
    );
    assert_eq!(
        judged(null, none, true, false),
        said(
            Verdict::Same,
            "no gap from 0 to 1, proved the same; 2 rows without a time at the source and 0 at the target are outside"
        )
    );
    assert_eq!(judged(null, bad, false, false).0, Verdict::Different);
    assert_eq!(judged(bad, none, false, false).0, Verdict::Different);
    assert_eq!(
        judged(bad, bad, false, false),
        said(Verdict::Unknown, "not known; 1 row without a time was not compared")
    );
    assert_eq!(judged(bad, none, true, false).0, Verdict::Unknown);
    assert_eq!(judged(none, none, false, true), said(Verdict::Unknown, "not known"));
}

#[test]
fn nothing_compared_is_not_the_same() {
    let mut table = table(Vec::new());
    table.judge(&[], "time", false);
    assert_eq!((table.verdict, table.claim.as_str()), (Verdict::Same, "neither side has a row"));
    table.source_elsewhere.misfits.null = 3;
    table.target_elsewhere.misfits.null = 3;
    table.judge(&[], "time", false);
    assert_eq!(table.verdict, Verdict::Unknown);
}
