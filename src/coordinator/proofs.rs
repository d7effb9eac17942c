//! Which tables' proofs the writes of later tables may have made untrue. A proof is of the moment in which it was made:
//! triggers and foreign keys change rows of tables that were proved before.

use super::pairs::TablePair;
use crate::agent::TableOutcome;

/// What a table's run wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wrote {
    pub(super) inserted: bool,
    /// Updated or deleted.
    pub(super) overwrote: bool,
}

impl Wrote {
    /// `failed`: the run broke off, so that its counts may be too low.
    pub(super) fn of(outcome: &TableOutcome, failed: bool) -> Self {
        Self {
            inserted: failed || outcome.inserted > 0,
            overwrote: failed || outcome.updated + outcome.deleted > 0,
        }
    }

    fn anything(self) -> bool {
        self.inserted || self.overwrote
    }
}

/// The order in which the tables of a run were proved and written.
#[derive(Debug)]
pub(super) struct Proofs<'a> {
    pairs: &'a [TablePair],
    /// Runs of tables that have ended so far.
    ended: usize,
    /// By table: how many runs had ended when it was read last.
    read: Vec<usize>,
    /// Table, the run's number, and what it wrote.
    writes: Vec<(usize, usize, Wrote)>,
}

impl<'a> Proofs<'a> {
    pub(super) fn new(pairs: &'a [TablePair]) -> Self {
        Self { pairs, ended: 0, read: vec![0; pairs.len()], writes: Vec::new() }
    }

    /// One run of one table has ended.
    pub(super) fn ended(&mut self, table: usize, wrote: Wrote) {
        if let Some(read) = self.read.get_mut(table) {
            *read = self.ended + 1;
        }
        self.wrote(table, wrote);
    }

    /// A table was compared and written part by part: what the last part wrote may have changed the first.
    pub(super) fn ended_in_parts(&mut self, table: usize, wrote: Wrote) {
        if let Some(read) = self.read.get_mut(table) {
            *read = self.ended;
        }
        self.wrote(table, wrote);
    }

    fn wrote(&mut self, table: usize, wrote: Wrote) {
        self.ended += 1;
        if wrote.anything() {
            self.writes.push((table, self.ended, wrote));
        }
    }

    /// The tables that were written after this one was read, and that may have changed it.
    pub(super) fn doubted_by(&self, table: usize) -> Vec<String> {
        let Some(read) = self.read.get(table) else { return Vec::new() };
        let mut tables: Vec<usize> = self
            .writes
            .iter()
            .filter(|(by, at, wrote)| at > read && self.reaches(*by, *wrote, table))
            .map(|(by, ..)| *by)
            .collect();
        tables.sort_unstable();
        tables.dedup();
        tables.iter().filter_map(|by| self.pairs.get(*by)).map(|pair| pair.target.to_string()).collect()
    }

    fn reaches(&self, by: usize, wrote: Wrote, table: usize) -> bool {
        let schema = |at: usize| self.pairs.get(at).and_then(|pair| pair.schemas.as_ref().ok());
        let is_other = by != table;
        let (Some((_, by)), Some((_, table))) = (schema(by), schema(table)) else { return true };
        let spreads = by.referrers.iter().any(|referrer| referrer.delete_spreads || referrer.update_spreads);
        // What the engine notes of a table may be rules that change what a write does.
        let is_plain = by.triggers.is_empty() && by.notes.is_empty();
        // A spreading change fires triggers and spreads on from tables that need not be part of this run. And where a
        // table refers to another, what keeps the two in step need not be a trigger that this login sees.
        !is_plain
            || (spreads && wrote.overwrote)
            || by.references.contains(&table.table)
            || (is_other && by.table == table.table)
    }
}

#[cfg(test)]
mod tests {
    use super::super::pairs::tests::pair;
    use super::*;
    use crate::model::{Referrer, TableName};

    const INSERTED: Wrote = Wrote { inserted: true, overwrote: false };
    const OVERWROTE: Wrote = Wrote { inserted: false, overwrote: true };
    const NOTHING: Wrote = Wrote { inserted: false, overwrote: false };

    fn tables() -> [TablePair; 3] {
        [pair("a", &[]), pair("b", &[]), pair("c", &["a"])]
    }

    fn of(pairs: &[TablePair], runs: &[(usize, Wrote)]) -> [Vec<String>; 3] {
        let mut proofs = Proofs::new(pairs);
        runs.iter().for_each(|(table, wrote)| proofs.ended(*table, *wrote));
        [0, 1, 2].map(|table| proofs.doubted_by(table))
    }

    fn with(change: impl Fn(&mut crate::model::TableSchema)) -> [TablePair; 3] {
        let mut pairs = tables();
        change(&mut pairs[1].schemas.as_mut().unwrap().1);
        pairs
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_plain_table_changes_no_other() {
        assert_eq!(of(&tables(), &[(0, OVERWROTE), (1, OVERWROTE)]), [names(&[]), names(&[]), names(&[])]);
        // But for one that it refers to.
        assert_eq!(of(&tables(), &[(0, OVERWROTE), (2, INSERTED)])[0], names(&["c"]));
        assert_eq!(of(&tables(), &[(0, OVERWROTE), (2, NOTHING)])[0], names(&[]));
    }

    #[test]
    fn triggers_reach_what_was_read_before_them() {
        let noted = with(|schema| schema.notes.push("rewrite rules".to_owned()));
        assert_eq!(of(&noted, &[(0, INSERTED), (1, INSERTED)])[0], names(&["b"]));
        let pairs = with(|schema| schema.triggers.push("t".to_owned()));
        let runs = [(0, INSERTED), (1, INSERTED), (2, INSERTED)];
        assert_eq!(of(&pairs, &runs), [names(&["b", "c"]), names(&[]), names(&[])]);
        // A table that was only read, before all others or between them.
        assert_eq!(of(&pairs, &[(1, INSERTED)]), [names(&["b"]), names(&[]), names(&["b"])]);
        // Read again later, its proof stands.
        assert_eq!(of(&pairs, &[(1, INSERTED), (0, NOTHING), (2, NOTHING)])[0], names(&[]));
    }

    #[test]
    fn what_spreads_reaches_where_rows_were_overwritten() {
        for (delete_spreads, update_spreads) in [(true, false), (false, true)] {
            let pairs = with(|schema| {
                schema.referrers = vec![Referrer {
                    table: TableName::new(None, "x"),
                    delete_spreads,
                    update_spreads,
                    update_columns: Vec::new(),
                }];
            });
            assert_eq!(of(&pairs, &[(0, INSERTED), (1, OVERWROTE)])[0], names(&["b"]));
            assert_eq!(of(&pairs, &[(0, INSERTED), (1, INSERTED)])[0], names(&[]));
        }
    }

    #[test]
    fn two_pairs_may_write_into_one_table() {
        let pairs = [pair("a", &[]), pair("a", &[]), pair("c", &[])];
        assert_eq!(of(&pairs, &[(0, INSERTED), (1, INSERTED)]), [names(&["a"]), names(&[]), names(&[])]);
        let mut proofs = Proofs::new(&pairs);
        proofs.ended_in_parts(0, INSERTED);
        assert_eq!(proofs.doubted_by(0), names(&[]), "parts of a plain table do not meet");
    }

    #[test]
    fn tables_that_refer_to_each_other_are_read_after_the_last_write() {
        let pairs = [pair("a", &["b"]), pair("b", &["a"]), pair("c", &[])];
        let runs = [(0, INSERTED), (1, INSERTED), (0, INSERTED)];
        assert_eq!(of(&pairs, &runs), [names(&[]), names(&["a"]), names(&[])]);
    }

    #[test]
    fn parts_of_a_table_may_change_each_other() {
        let pairs = with(|schema| schema.triggers.push("t".to_owned()));
        let mut proofs = Proofs::new(&pairs);
        proofs.ended_in_parts(1, INSERTED);
        proofs.ended_in_parts(0, INSERTED);
        assert_eq!(
            [0, 1, 2].map(|table| proofs.doubted_by(table)),
            [names(&[]), names(&["b"]), names(&["b"])]
        );
    }

    #[test]
    fn counts_of_a_run_that_broke_off_are_not_believed() {
        let outcome = TableOutcome::default();
        assert_eq!(Wrote::of(&outcome, false), NOTHING);
        assert_eq!(Wrote::of(&outcome, true), Wrote { inserted: true, overwrote: true });
    }
}
