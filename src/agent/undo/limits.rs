//! What a run may change and its journal does not hold: rows of other tables that foreign keys change, what triggers and
//! rules do, columns that cannot be kept. It is known before the run writes, and said then.

use serde::{Deserialize, Serialize};

use super::own::WholePlan;
use crate::engine::Engine;
use crate::model::{Change, Filled, Operation, Plan, Referrer, TableName, TableSchema};

/// Tables that are looked through for foreign keys of further tables.
const TABLES_MAX: usize = 100;
/// Names that a sentence has room for.
const NAMED_MAX: usize = 20;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UndoLimits {
    table: String,
    /// Tables in which deletes delete or change rows, and from there on.
    by_delete: Vec<String>,
    /// Tables in which updates change rows.
    by_update: Vec<String>,
    triggers: Vec<String>,
    not_kept: Vec<String>,
    inexact: Vec<String>,
    /// Columns of the key that may be stored in another spelling than they are written in.
    spelled: Vec<String>,
}

/// The kinds of writes that a run makes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Operations {
    pub(crate) insert: bool,
    pub(crate) update: bool,
    pub(crate) delete: bool,
}

impl Operations {
    pub(crate) fn add(&mut self, operation: Operation) {
        match operation {
            Operation::Insert => self.insert = true,
            Operation::Update => self.update = true,
            Operation::Delete => self.delete = true,
        }
    }

    pub(crate) fn of(changes: &[Change]) -> Self {
        let mut all = Self::default();
        changes.iter().for_each(|change| all.add(change.operation()));
        all
    }

    fn any(self) -> bool {
        self.insert || self.update || self.delete
    }
}

impl UndoLimits {
    pub(crate) async fn of(
        engine: &dyn Engine,
        plan: &Plan,
        schema: &TableSchema,
        whole: &WholePlan,
    ) -> Self {
        let written = |name: &String| {
            let mut columns = plan.columns.iter().skip(plan.key_len);
            columns.any(|column| column.target == *name && column.target_filled == Filled::ByWriter)
        };
        let by_delete = |referrer: &&Referrer| referrer.delete_spreads;
        let by_update = |referrer: &&Referrer| {
            // Where the catalogue names no column, any may be meant.
            referrer.update_spreads
                && (referrer.update_columns.is_empty() || referrer.update_columns.iter().any(written))
        };
        Self {
            table: schema.table.to_string(),
            by_delete: reached(engine, schema.referrers.iter().filter(by_delete)).await,
            by_update: reached(engine, schema.referrers.iter().filter(by_update)).await,
            triggers: schema.triggers.clone(),
            not_kept: whole.not_kept.clone(),
            inexact: whole.inexact.clone(),
            spelled: whole.spelled_keys(),
        }
    }

    /// The same before the run, with what an undo will find out by reading back.
    pub(crate) fn sentences_before(&self, operations: Operations) -> Vec<String> {
        let mut all = self.sentences(operations);
        if operations.delete && !self.spelled.is_empty() {
            all.push(format!(
                "the key of a deleted row of {} comes back by its meaning, and may be spelled otherwise ({})",
                self.table,
                named(&self.spelled)
            ));
        }
        all
    }

    /// What a run that makes these writes changes beyond its journal, a sentence each.
    pub(crate) fn sentences(&self, operations: Operations) -> Vec<String> {
        let table = &self.table;
        let mut all = Vec::new();
        let mut say = |holds: bool, names: &[String], sentence: &dyn Fn(&str) -> String| {
            if holds && !names.is_empty() {
                all.push(sentence(&named(names)));
            }
        };
        say(operations.delete, &self.by_delete, &|names| {
            format!(
                "rows of {names} that foreign keys delete or change where rows of {table} are deleted are not in the undo journal"
            )
        });
        say(operations.update, &self.by_update, &|names| {
            format!(
                "rows of {names} that foreign keys change where rows of {table} are updated are not in the undo journal"
            )
        });
        say(operations.any(), &self.triggers, &|names| {
            format!(
                "what triggers of {table} ({names}) change in other rows and tables is not in the undo journal"
            )
        });
        say(operations.any(), &self.not_kept, &|names| {
            format!(
                "column {names} of {table} cannot be kept: a deleted row comes back without it, and a newer write to it is not seen"
            )
        });
        say(operations.delete || operations.update, &self.inexact, &|names| {
            format!("column {names} of {table} is kept by its characters, not byte for byte")
        });
        all
    }

    /// Triggers of the table fire, so that a row may come to hold something else than is written.
    pub(crate) fn has_triggers(&self) -> bool {
        !self.triggers.is_empty()
    }
}

fn named(names: &[String]) -> String {
    let mut text = names.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    if let Some(more) = names.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        text += &format!(" and {more} more");
    }
    text
}

/// The tables that are changed where these are, one after the other: a row that is deleted or changed by a foreign key may
/// be referred to itself.
async fn reached(engine: &dyn Engine, first: impl Iterator<Item = &Referrer>) -> Vec<String> {
    let mut tables: Vec<TableName> = Vec::new();
    for referrer in first {
        if !tables.contains(&referrer.table) {
            tables.push(referrer.table.clone());
        }
    }
    let (mut at, mut names) = (0, Vec::new());
    while let Some(table) = tables.get(at).filter(|_| at < TABLES_MAX) {
        at += 1;
        let name = table.to_string();
        let Ok(schema) = engine.describe(table).await else {
            names.push(format!("{name} (and what refers to it)"));
            continue;
        };
        names.push(if schema.triggers.is_empty() {
            name
        } else {
            format!("{name} (and what its triggers change)")
        });
        let spreads = schema.referrers.into_iter().filter(|next| next.delete_spreads || next.update_spreads);
        for next in spreads {
            if !tables.contains(&next.table) {
                tables.push(next.table);
            }
        }
    }
    names.extend(tables.iter().skip(at).map(ToString::to_string));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_done_is_limited() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let limits = UndoLimits {
            table: "t".into(),
            by_delete: names(&["c", "d"]),
            by_update: names(&["u"]),
            triggers: Vec::new(),
            not_kept: Vec::new(),
            inexact: names(&["x"]),
            spelled: names(&["k"]),
        };
        let operations = |insert, update, delete| Operations { insert, update, delete };
        assert!(limits.sentences(operations(true, false, false)).is_empty());
        let deleting = limits.sentences(operations(true, false, true));
        assert!(deleting[0].starts_with("rows of c, d that") && deleting.len() == 2, "{deleting:?}");
        assert!(limits.sentences(operations(false, true, false))[0].contains("rows of u that"));
        assert_eq!(limits.sentences_before(operations(true, false, true)).len(), 3);
        assert!(limits.sentences_before(operations(true, false, false)).is_empty());
        let limits =
            UndoLimits { triggers: names(&["g"]), not_kept: names(&["p", "q"]), ..UndoLimits::default() };
        assert_eq!(limits.sentences(operations(true, false, false)).len(), 2);
        assert!(limits.sentences(Operations::default()).is_empty());
        assert_eq!(named(&vec!["a".to_owned(); 23]).split(", ").count(), 20);
        assert!(named(&vec!["a".to_owned(); 23]).ends_with("a and 3 more"));
    }
}
