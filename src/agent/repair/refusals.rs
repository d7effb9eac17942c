//! What the database refused: grouped by reason for the report, and whether it is worth going on.

use std::collections::BTreeMap;

use super::super::event::Event;
use crate::model::{ChangeOutcome, RejectionKind};

/// Rows of a batch until the table has taken one: whether it takes rows at all is not found out with many.
const FIRST_BATCH: usize = 500;
/// Whole batches that are refused alike one after the other end the table, where they come to so many rows.
const ALIKE_BATCHES: u32 = 2;
const ALIKE_ROWS: u64 = 200;
/// Rows of a reason that are named.
const EXAMPLES: usize = 3;
/// Reasons that are told apart.
const REASONS_MAX: usize = 100;
const OTHER_REASONS: &str = "other reasons";

/// A key as it is shown: pairs of column and text.
type ShownKey = Vec<(String, String)>;

#[derive(Debug, Default)]
struct Group {
    count: u64,
    examples: Vec<ShownKey>,
}

/// Batches that were refused one after the other, all of their rows for one reason.
#[derive(Debug)]
struct Alike {
    kind: RejectionKind,
    reason: String,
    batches: u32,
    rows: u64,
}

#[derive(Debug)]
pub(crate) struct Refusals {
    groups: BTreeMap<String, Group>,
    /// Rows that are named of each reason.
    examples_max: usize,
    /// A foreign key of the table points to the table itself: rows that come later may lift a refusal.
    refers_to_itself: bool,
    alike: Option<Alike>,
    /// The table has taken a row.
    wrote: bool,
    ended: Option<String>,
}

impl Refusals {
    /// `details_max`: how many rows may be named at all.
    pub(crate) fn new(details_max: u64, refers_to_itself: bool) -> Self {
        let examples_max = usize::try_from(details_max).unwrap_or(usize::MAX).min(EXAMPLES);
        Self {
            groups: BTreeMap::new(),
            examples_max,
            refers_to_itself,
            alike: None,
            wrote: false,
            ended: None,
        }
    }

    /// Rows that are to be written with the next batch.
    pub(crate) fn batch_rows(&self, most: usize) -> usize {
        if self.wrote { most } else { most.min(FIRST_BATCH) }
    }

    /// Whether the table takes rows is not known yet: no batch is begun before the one before it has ended.
    pub(crate) fn is_trying(&self) -> bool {
        !self.wrote
    }

    /// What became of a whole batch.
    pub(crate) fn batch(&mut self, outcomes: &[ChangeOutcome]) {
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
    pub(crate) fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// What is said of a row that is not tried any more.
    pub(crate) fn not_tried(reason: &str) -> String {
        format!("not tried, as whole batches before were refused: {reason}")
    }

    /// Whether the next row of this reason is to be named.
    pub(crate) fn wants_example(&self, reason: &str) -> bool {
        self.groups.get(reason).map_or(0, |group| group.examples.len()) < self.examples_max
    }

    pub(crate) fn note(&mut self, reason: &str, rows: u64, example: Option<ShownKey>) {
        let known = self.groups.contains_key(reason) || self.groups.len() < REASONS_MAX;
        let reason = if known { reason } else { OTHER_REASONS };
        let group = self.groups.entry(reason.to_owned()).or_default();
        group.count += rows;
        if group.examples.len() < self.examples_max {
            group.examples.extend(example);
        }
    }

    /// One event for each reason.
    pub(crate) fn take(&mut self) -> Vec<Event> {
        let groups = std::mem::take(&mut self.groups).into_iter();
        groups
            .map(|(reason, Group { count, examples })| Event::SetAside { reason, count, examples })
            .collect()
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
            let mut refusals = Refusals::new(u64::MAX, itself);
            batches.iter().for_each(|batch| refusals.batch(batch));
            refusals.ended().map(str::to_owned)
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
    fn reasons_are_grouped_with_a_few_examples_and_never_too_many() {
        let key = |n: u64| vec![("id".to_owned(), n.to_string())];
        for (limit, named) in [(0, 0), (2, 2), (u64::MAX, EXAMPLES)] {
            let mut refusals = Refusals::new(limit, false);
            for n in 0..1_000 {
                let example = refusals.wants_example("r").then(|| key(n));
                refusals.note("r", 1, example);
            }
            refusals.note("r", 50, None);
            let mut taken = refusals.take();
            let (Some(Event::SetAside { reason, count, examples }), None) = (taken.pop(), taken.pop()) else {
                panic!("one reason");
            };
            assert_eq!((reason.as_str(), count, examples.len()), ("r", 1_050, named));
        }
        let mut refusals = Refusals::new(3, false);
        (0..1_000).for_each(|n| refusals.note(&format!("r{n}"), 1, None));
        let groups = refusals.take();
        assert_eq!(groups.len(), REASONS_MAX + 1);
        let all: u64 =
            groups.iter().map(|e| if let Event::SetAside { count, .. } = e { *count } else { 0 }).sum();
        assert_eq!(all, 1_000);
    }

    #[test]
    fn the_first_batches_are_small_until_a_row_is_taken() {
        let mut refusals = Refusals::new(0, false);
        assert_eq!((refusals.batch_rows(usize::MAX), refusals.batch_rows(7)), (FIRST_BATCH, 7));
        refusals.batch(&[ChangeOutcome::Stale]);
        assert_eq!(refusals.batch_rows(40_000), FIRST_BATCH);
        refusals.batch(&[ChangeOutcome::Written]);
        assert_eq!(refusals.batch_rows(40_000), 40_000);
    }
}
