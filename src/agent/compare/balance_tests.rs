//! Accounts of made-up runs, honest and tampered with.

use proptest::prelude::*;

use super::*;

fn session() -> SessionKey {
    SessionKey::new([5; 32])
}

/// A row by its life: had by each side when scanned, had by each side now, with the same content.
#[derive(Debug, Clone, Copy)]
struct Life {
    scanned: [bool; 2],
    now: [bool; 2],
    agree: bool,
}

impl Life {
    /// What an honest run says of it.
    fn concluded(self) -> Concluded {
        let kind = match self.now {
            [true, false] => Some(DifferenceKind::Missing),
            [false, true] => Some(DifferenceKind::Extra),
            [true, true] if !self.agree => Some(DifferenceKind::Changed),
            _ => None,
        };
        Concluded {
            scanned: self.scanned,
            now: self.now.map(|there| if there { Presence::Present } else { Presence::Absent }),
            agree: kind.is_none(),
            conclusion: kind.map_or(Conclusion::InFlight, Conclusion::Different),
        }
    }
}

/// A table of so many equal rows, and these beside them.
struct Table {
    balance: Balance,
    outcome: TableOutcome,
}

fn run(equal: u64, lives: &[Life], tamper: impl Fn(usize, Concluded) -> Option<Concluded>) -> Table {
    let (mut balance, mut outcome) = (Balance::default(), TableOutcome::default());
    (outcome.source_rows, outcome.target_rows) = (equal, equal);
    for (at, life) in lives.iter().enumerate() {
        let key = at.to_be_bytes();
        balance.locate(&session(), &key);
        outcome.source_rows += u64::from(life.scanned[0]);
        outcome.target_rows += u64::from(life.scanned[1]);
        let Some(row) = tamper(at, life.concluded()) else { continue };
        balance.conclude(&session(), &key, &row);
        match row.conclusion {
            Conclusion::Different(DifferenceKind::Missing) => outcome.missing += 1,
            Conclusion::Different(DifferenceKind::Changed) => outcome.changed += 1,
            Conclusion::Different(DifferenceKind::Extra) => outcome.extra += 1,
            Conclusion::Tolerated => outcome.tolerated += 1,
            Conclusion::InFlight | Conclusion::Following => outcome.in_flight += 1,
            Conclusion::Unsettled => outcome.unsettled += 1,
        }
    }
    Table { balance, outcome }
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let scanned = prop_oneof![Just([true, false]), Just([false, true]), Just([true, true])];
    let life = (scanned, any::<[bool; 2]>(), any::<bool>()).prop_map(|(scanned, now, agree)| Life {
        scanned,
        now,
        agree: agree || now == [false, false],
    });
    prop::collection::vec(life, 1..60)
}

proptest! {
    #[test]
    fn an_honest_account_adds_up(equal in 0u64..1_000, lives in lives()) {
        let table = run(equal, &lives, |_, row| Some(row));
        prop_assert_eq!(table.balance.error(&table.outcome), None);
    }

    #[test]
    fn a_lost_row_is_noticed(equal in 0u64..1_000, lives in lives(), at: prop::sample::Index) {
        let lost = at.index(lives.len());
        let table = run(equal, &lives, |at, row| (at != lost).then_some(row));
        prop_assert!(table.balance.error(&table.outcome).is_some());
    }

    /// The bug that this check is for: a row that a scan saw and a lookup missed was called gone.
    #[test]
    fn a_row_called_in_flight_without_evidence_is_noticed(equal in 0u64..1_000, lives in lives(), at: prop::sample::Index, side in 0usize..2) {
        let wrong = at.index(lives.len());
        let table = run(equal, &lives, |at, mut row| {
            if at == wrong {
                row.now[side] = Presence::Unknown;
                row.conclusion = Conclusion::InFlight;
            }
            Some(row)
        });
        prop_assert!(table.balance.error(&table.outcome).is_some());
    }

    #[test]
    fn a_difference_called_in_flight_is_noticed(equal in 0u64..1_000, lives in lives()) {
        let differs = |row: &Concluded| matches!(row.conclusion, Conclusion::Different(_));
        let any = lives.iter().any(|life| differs(&life.concluded()));
        let table = run(equal, &lives, |_, mut row| {
            if differs(&row) {
                row.conclusion = Conclusion::InFlight;
            }
            Some(row)
        });
        prop_assert_eq!(table.balance.error(&table.outcome).is_some(), any);
    }

    #[test]
    fn another_count_in_the_report_is_noticed(lives in lives(), field in 0usize..6, by in 1u64..3) {
        let mut table = run(10, &lives, |_, row| Some(row));
        let outcome = &mut table.outcome;
        *[&mut outcome.missing, &mut outcome.changed, &mut outcome.extra, &mut outcome.in_flight, &mut outcome.tolerated, &mut outcome.unsettled][field] += by;
        prop_assert!(table.balance.error(&table.outcome).is_some());
    }

    #[test]
    fn scans_that_do_not_fit_the_differences_are_noticed(lives in lives(), by in 1u64..5) {
        let mut table = run(10, &lives, |_, row| Some(row));
        table.outcome.source_rows += by;
        prop_assert!(table.balance.error(&table.outcome).is_some());
    }

    #[test]
    fn a_row_concluded_twice_is_noticed(equal in 0u64..100, lives in lives()) {
        let mut table = run(equal, &lives, |_, row| Some(row));
        prop_assert_eq!(table.balance.error(&table.outcome), None);
        table.balance.conclude(&session(), &0usize.to_be_bytes(), &lives[0].concluded());
        prop_assert!(table.balance.error(&table.outcome).is_some());
    }
}

#[test]
fn two_rows_against_an_empty_table_are_not_in_flight() {
    let gone = Life { scanned: [true, false], now: [false, false], agree: true };
    // Shown to be gone: fine. Not found: not fine.
    let shown = run(0, &[gone, gone], |_, row| Some(row));
    assert_eq!(shown.balance.error(&shown.outcome), None);
    let missed = run(0, &[gone, gone], |_, mut row| {
        row.now[0] = Presence::Unknown;
        Some(row)
    });
    assert!(missed.balance.error(&missed.outcome).is_some());
}

#[test]
fn a_swapped_key_is_noticed() {
    let life = Life { scanned: [true, true], now: [true, true], agree: false };
    let mut balance = Balance::default();
    balance.locate(&session(), b"a");
    balance.conclude(&session(), b"b", &life.concluded());
    let outcome = TableOutcome { source_rows: 5, target_rows: 5, changed: 1, ..TableOutcome::default() };
    assert!(balance.error(&outcome).is_some());
}
