//! Whether it is worth going on writing: few rows until the table has taken one, none after whole batches were refused alike.

use crate::model::{ChangeOutcome, RejectionKind};

/// Rows of a batch until the table has taken one: whether it takes rows at all is not found out with many.
const FIRST_BATCH: usize = 500;
/// Whole batches that are refused alike one after the other end the table, where they come to so many rows.
const ALIKE_BATCHES: u32 = 2;
const ALIKE_ROWS: u64 = 200;

/// Batches that were refused one after the other, all of their rows for one reason.
#[derive(Debug)]
struct Alike {
    kind: RejectionKind,
    reason: String,
    batches: u32,
    rows: u64,
}

#[derive(Debug)]
pub(super) struct Breaker {
    /// A foreign key of the table points to the table itself: rows that come later may lift a refusal.
    refers_to_itself: bool,
    alike: Option<Alike>,
    /// The table has taken a row.
    wrote: bool,
    ended: Option<String>,
}

impl Breaker {
    pub(super) fn new(refers_to_itself: bool) -> Self {
        Self { refers_to_itself, alike: None, wrote: false, ended: None }
    }

    /// Rows that are to be written with the next batch.
    pub(super) fn batch_rows(&self, most: usize) -> usize {
        if self.wrote { most } else { most.min(FIRST_BATCH) }
    }

    /// Whether the table takes rows is not known yet: no batch is begun before the one before it has ended.
    pub(super) fn is_trying(&self) -> bool {
        !self.wrote
    }

    /// What became of a whole batch.
    pub(super) fn batch(&mut self, outcomes: &[ChangeOutcome]) {
        self.wrote |= outcomes.contains(&ChangeOutcome::Written);
        let Some(ChangeOutcome::Failed(first)) = outcomes.first() else {
            self.alike = None;
            return;
        };
        let all = outcomes.iter().all(|outcome| {
            matches!(outcome, ChangeOutcome::Failed(rejection)
                if rejection.kind == first.kind && rejection.reason == first.reason)
        });
        // Rows that stand in each other's way are written in another order, or exchanged.
        let may_lift = match first.kind {
            RejectionKind::Unique => true,
            RejectionKind::ForeignKey => self.refers_to_itself,
            _ => false,
        };
        if !all || may_lift {
            self.alike = None;
            return;
        }
        let rows = outcomes.len() as u64;
        let alike = match self.alike.take() {
            Some(before) if before.kind == first.kind && before.reason == first.reason => {
                Alike { batches: before.batches + 1, rows: before.rows + rows, ..before }
            }
            _ => Alike { kind: first.kind, reason: first.reason.clone(), batches: 1, rows },
        };
        if alike.batches >= ALIKE_BATCHES && alike.rows >= ALIKE_ROWS {
            self.ended = Some(alike.reason.clone());
        }
        self.alike = Some(alike);
    }

    /// Why no further row of the table is written.
    pub(super) fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// What is said of a row that is not tried any more; `None` as long as rows are tried.
    pub(super) fn not_tried(&self) -> Option<String> {
        let reason = self.ended()?;
        Some(format!("not tried, as whole batches before were refused: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Rejection;

    fn refused(kind: RejectionKind, reason: &str, rows: usize) -> Vec<ChangeOutcome> {
        vec![ChangeOutcome::Failed(Rejection { kind, reason: reason.to_owned() }); rows]
    }

    #[test]
    fn two_whole_batches_refused_alike_end_the_table_and_nothing_else_does() {
        use RejectionKind::{Check, ForeignKey, Unique};
        let ended = |itself: bool, batches: &[Vec<ChangeOutcome>]| {
            let mut breaker = Breaker::new(itself);
            batches.iter().for_each(|batch| breaker.batch(batch));
            breaker.ended().map(str::to_owned)
        };
        let fk = || refused(ForeignKey, "fk_a", 500);
        assert_eq!(ended(false, &[fk(), fk()]).as_deref(), Some("fk_a"));
        assert_eq!(ended(false, &[fk()]), None);
        assert_eq!(ended(false, &[fk(), refused(ForeignKey, "fk_b", 500)]), None);
        assert_eq!(ended(false, &[fk(), refused(Check, "fk_a", 500), fk()]), None);
        assert_eq!(ended(false, &[refused(Unique, "u", 500), refused(Unique, "u", 500)]), None);
        assert_eq!(ended(true, &[fk(), fk()]), None);
        assert_eq!(ended(true, &[refused(Check, "c", 500), refused(Check, "c", 500)]).as_deref(), Some("c"));
        // Few rows show little, and one that is written shows that others can be.
        assert_eq!(ended(false, &[refused(Check, "c", 3), refused(Check, "c", 3)]), None);
        let mut mixed = fk();
        mixed[499] = ChangeOutcome::Written;
        assert_eq!(ended(false, &[fk(), mixed.clone(), fk()]), None);
        mixed[499] = ChangeOutcome::Stale;
        assert_eq!(ended(false, &[fk(), mixed, fk()]), None);
    }

    #[test]
    fn the_first_batches_are_small_until_a_row_is_taken() {
        let mut breaker = Breaker::new(false);
        assert_eq!((breaker.batch_rows(usize::MAX), breaker.batch_rows(7)), (FIRST_BATCH, 7));
        breaker.batch(&[ChangeOutcome::Stale]);
        assert_eq!(breaker.batch_rows(40_000), FIRST_BATCH);
        breaker.batch(&[ChangeOutcome::Written]);
        assert_eq!(breaker.batch_rows(40_000), 40_000);
    }
}
