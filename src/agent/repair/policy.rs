//! What a repair may write, and what it may only show: the one place that asks a [`Permission`].

use std::sync::Arc;

use super::super::compare::reread::Reread;
use super::super::outcome::ONLY_THE_CONDITION;
use super::super::target::{Located, Target};
use super::super::undo::limits::Operations;
use crate::model::{
    Allow, Change, Operation, Permission, Permitted, PermittedChanges, PermittedExchange, PermittedInserts,
    Refusal, RowRun,
};

/// Rows that a share may always overwrite.
const OVERWRITES_ALWAYS: u64 = 1_000;

/// What is to be done with a row that differs.
pub(super) enum Ruling {
    Write(Permitted),
    /// It is left as it is, for this reason.
    Leave(String),
    /// It cannot be written, for this reason.
    SetAside(String),
}

/// What a run may do to the rows that differ.
pub(super) struct Policy {
    /// What this run may write: nothing for a diff, a dry run, or where too many rows would change.
    permission: Permission,
    /// What it might write if it were to write, for a person to run.
    shown: Permission,
    writes: bool,
    /// Writes are held back: too many rows would change.
    over_limit: bool,
    /// The changes are shown as SQL.
    sql: bool,
}

impl Policy {
    pub(super) fn new(target: &Target<'_>, located: &Located) -> Self {
        let options = &target.task.options;
        let allow = options.repair.unwrap_or(Allow::NOTHING);
        let inserts = u64::from(allow.insert) * located.missing;
        let overwrites = u64::from(allow.update) * located.changed + u64::from(allow.delete) * located.extra;
        // A dry run foresees it; a file of SQL is for a person to judge.
        let over_limit = options.repair.is_some()
            && !options.sql
            && (options.max_changes.is_some_and(|max| inserts + overwrites > max)
                || options
                    .max_overwritten_percent
                    .is_some_and(|percent| overwrites > share(target.outcome.target_rows, percent)));
        let writes = target.writes() && !over_limit;
        let shown = Permission::new(allow, options.allow_cascade, &target.schema, &target.access);
        let permission = if writes { shown.clone() } else { Permission::nothing() };
        Self { permission, shown, writes, over_limit, sql: options.sql }
    }

    pub(super) fn writes(&self) -> bool {
        self.writes
    }

    pub(super) fn is_over_limit(&self) -> bool {
        self.over_limit
    }

    /// The operations that the located rows ask for and the run may use, or might use if it were to write.
    pub(super) fn operations(&self, located: &Located) -> Operations {
        let may = |operation| self.shown.refuses(operation).is_none();
        Operations {
            insert: may(Operation::Insert) && located.missing > 0,
            update: may(Operation::Update) && located.changed > 0,
            delete: may(Operation::Delete) && located.extra > 0,
        }
    }

    /// Whether the target's row may be made the source's.
    pub(super) fn rule(&self, reread: &Reread) -> Ruling {
        let change = change_of(reread);
        if change.before == change.after {
            // There is nothing to write.
            return Ruling::Leave(ONLY_THE_CONDITION.to_owned());
        }
        match self.permission.permit(change) {
            Ok(change) => Ruling::Write(change),
            Err(refused) => match refused.refusal {
                refusal @ Refusal::Required(_) => Ruling::SetAside(refusal.to_string()),
                refusal => Ruling::Leave(refusal.to_string()),
            },
        }
    }

    /// The change to show as SQL; `None` where none is asked for, or none may be made.
    pub(super) fn shown(&self, reread: &Reread) -> Option<Permitted> {
        if !self.sql {
            return None;
        }
        let change = self.shown.permit(change_of(reread)).ok()?;
        (change.change().before != change.change().after).then_some(change)
    }

    /// Rows that are all inserted, where they may be and need not be shown one by one.
    pub(super) fn permit_inserts(&self, rows: &Arc<RowRun>) -> Option<PermittedInserts> {
        if self.sql {
            return None;
        }
        self.permission.permit_inserts(Arc::clone(rows)).ok()
    }

    /// Why every insert would be refused by the table, whatever row it is.
    pub(super) fn no_insert_succeeds(&self) -> Option<String> {
        match self.permission.refuses(Operation::Insert) {
            Some(refusal @ Refusal::Required(_)) => Some(refusal.to_string()),
            _ => None,
        }
    }

    /// The changes as one exchange of rows; they come back where they may only be made one by one.
    pub(super) fn permit_exchange(
        &self,
        changes: PermittedChanges,
    ) -> Result<PermittedExchange, PermittedChanges> {
        self.permission.permit_exchange(changes)
    }
}

fn change_of(reread: &Reread) -> Change {
    Change { key: reread.suspect.key.clone(), before: reread.target.clone(), after: reread.source.clone() }
}

/// A percentage of rows, but never so small that a small table could not be repaired.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share is approximate"
)]
fn share(rows: u64, percent: f64) -> u64 {
    ((rows as f64 * percent / 100.0) as u64).max(OVERWRITES_ALWAYS)
}
