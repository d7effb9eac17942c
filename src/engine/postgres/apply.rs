//! Changes in one transaction, each only if its row still holds what was compared.

use std::collections::HashSet;
use std::sync::Arc;

use sqlx::Executor;
use sqlx::postgres::{PgConnection, PgRow};

use super::fetch::{BY_INDEX, Reading, Target, read_keys};
use super::statement::changed_cells;
use super::write::{self, Guard, Prepared};
use super::{bind, errors, load, run};
use crate::engine::{EngineError, ErrorKind};
use crate::model::canonical::{decode_key, decode_row};
use crate::model::{
    CanonicalRow, Change, ChangeOutcome, Filled, Key, Operation, Rejection, RejectionKind, RowRun,
    TableAccess,
};

/// Rows per statement.
const GROUP_MAX: usize = 5000;

pub(super) async fn apply(
    connection: &mut PgConnection,
    access: &Arc<TableAccess>,
    changes: &[Change],
) -> Result<Vec<ChangeOutcome>, EngineError> {
    match RowRun::of_inserts(changes) {
        Some(rows) if load::load(connection, access, &rows).await? => {
            Ok(vec![ChangeOutcome::Written; changes.len()])
        }
        _ => one_by_one(connection, access, changes).await,
    }
}

pub(super) async fn insert(
    connection: &mut PgConnection,
    access: &Arc<TableAccess>,
    rows: &RowRun,
) -> Result<Vec<ChangeOutcome>, EngineError> {
    if load::load(connection, access, rows).await? {
        return Ok(vec![ChangeOutcome::Written; rows.len()]);
    }
    one_by_one(connection, access, &rows.inserts()).await
}

async fn one_by_one(
    connection: &mut PgConnection,
    access: &Arc<TableAccess>,
    changes: &[Change],
) -> Result<Vec<ChangeOutcome>, EngineError> {
    if let Some(outcomes) = attempt(connection, access, changes, Constraints::AsDeclared).await? {
        return Ok(outcomes);
    }
    // A deferred constraint fails at the end and names no row: once more, checked statement by statement.
    match attempt(connection, access, changes, Constraints::Immediate).await? {
        Some(outcomes) => Ok(outcomes),
        None => Err(EngineError::new(
            ErrorKind::Database,
            format!("write {}", access.table),
            "a deferred constraint refuses the batch, and no row of it alone",
        )),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Constraints {
    AsDeclared,
    Immediate,
}

/// `None` where a deferred constraint refused the whole; nothing is written then.
async fn attempt(
    connection: &mut PgConnection,
    access: &TableAccess,
    changes: &[Change],
    constraints: Constraints,
) -> Result<Option<Vec<ChangeOutcome>>, EngineError> {
    let mut batch = Batch::begin(connection, access, changes).await?;
    if constraints == Constraints::Immediate {
        batch.run("SET CONSTRAINTS ALL IMMEDIATE").await?;
    }
    batch.check_locked().await?;
    batch.write_all().await?;
    batch.again().await?;
    if constraints == Constraints::AsDeclared
        && let Err(error) = batch.connection.execute("SET CONSTRAINTS ALL IMMEDIATE").await
    {
        if errors::database(&error).is_some_and(|db| errors::rejection(db).is_some()) {
            batch.run("ROLLBACK").await?;
            return Ok(None);
        }
        return Err(errors::engine_error(&batch.target.during, &error));
    }
    batch.run("COMMIT").await?;
    Ok(Some(batch.outcomes()))
}

pub(super) struct Batch<'a> {
    pub(super) connection: &'a mut PgConnection,
    pub(super) target: Target<'a>,
    pub(super) changes: &'a [Change],
    pub(super) prepared: Vec<Prepared>,
    /// One for each change, once it is known.
    pub(super) fates: Vec<Option<ChangeOutcome>>,
    guard: Guard,
}

impl<'a> Batch<'a> {
    /// Opens the transaction and turns the changes into texts; what cannot be is set aside here.
    pub(super) async fn begin(
        connection: &'a mut PgConnection,
        access: &'a TableAccess,
        changes: &'a [Change],
    ) -> Result<Self, EngineError> {
        let during = format!("write {}", access.table);
        run(connection, &during, &format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {BY_INDEX}"))
            .await?;
        let target = Target::load(connection, access, during).await?;
        let mut batch = Self {
            connection,
            target,
            changes,
            prepared: Vec::with_capacity(changes.len()),
            fates: vec![None; changes.len()],
            guard: Guard::Arbiter,
        };
        let mut seen = HashSet::with_capacity(changes.len());
        for (at, change) in changes.iter().enumerate() {
            if !seen.insert(&change.key) {
                // The first change of a key is the one that its `before` may hold for.
                batch.settle(at, ChangeOutcome::Stale);
                continue;
            }
            match prepare(&batch.target, at, change)? {
                Ok(prepared) => batch.prepared.push(prepared),
                Err(rejection) => batch.settle(at, ChangeOutcome::Failed(rejection)),
            }
        }
        Ok(batch)
    }

    pub(super) async fn run(&mut self, sql: &str) -> Result<(), EngineError> {
        run(self.connection, &self.target.during, sql).await
    }

    fn settle(&mut self, at: usize, fate: ChangeOutcome) {
        if let Some(slot) = self.fates.get_mut(at) {
            *slot = Some(fate);
        }
    }

    fn is_open(&self, at: usize) -> bool {
        matches!(self.fates.get(at), Some(None))
    }

    fn outcomes(self) -> Vec<ChangeOutcome> {
        // Every change has its fate by now; one that had none was not written.
        self.fates.into_iter().map(|fate| fate.unwrap_or(ChangeOutcome::Stale)).collect()
    }

    fn open(&self, operation: Operation) -> Vec<usize> {
        (0..self.prepared.len())
            .filter(|at| {
                self.prepared.get(*at).is_some_and(|p| p.operation == operation && self.is_open(p.at))
            })
            .collect()
    }

    /// Locks the rows of updates and deletes, and drops the changes whose rows have moved on.
    async fn check_locked(&mut self) -> Result<(), EngineError> {
        let keys: Vec<Key> = self
            .prepared
            .iter()
            .filter(|p| p.operation != Operation::Insert)
            .map(|p| p.key.clone())
            .collect();
        if keys.is_empty() {
            return Ok(());
        }
        let keys: Vec<&Key> = keys.iter().collect();
        let mut found = read_keys(self.connection, &self.target, &keys, Reading::Locked).await?;
        let ambiguous: HashSet<Key> = found.ambiguous.drain(..).collect();
        for at in 0..self.prepared.len() {
            let Some(prepared) = self.prepared.get_mut(at) else { continue };
            if prepared.operation == Operation::Insert {
                continue;
            }
            let Some(change) = self.changes.get(prepared.at) else { continue };
            let row = found.rows.remove(&prepared.key);
            let fate = judge(change, row.as_ref().map(|found| &found.row));
            if let Some(spelled) = row.and_then(|found| found.spelled) {
                respell(prepared, spelled);
            }
            let place = prepared.at;
            if ambiguous.contains(&prepared.key) {
                let reason = "several rows hold this key, spelled differently".to_owned();
                self.settle(place, ChangeOutcome::Failed(Rejection { kind: RejectionKind::Unique, reason }));
            } else if let Some(fate) = fate {
                self.settle(place, fate);
            }
        }
        Ok(())
    }

    /// Deletes first and inserts last, so that a unique value is free before it is taken.
    async fn write_all(&mut self) -> Result<(), EngineError> {
        for operation in [Operation::Delete, Operation::Update, Operation::Insert] {
            let open = self.open(operation);
            for group in open.chunks(GROUP_MAX) {
                self.write_group(operation, group.to_vec()).await?;
            }
        }
        Ok(())
    }

    /// Writes a group, or halves of it where the database refuses it, down to the rows it refuses.
    async fn write_group(&mut self, operation: Operation, group: Vec<usize>) -> Result<(), EngineError> {
        let mut todo = vec![group];
        let mut unwritten = Vec::new();
        while let Some(group) = todo.pop() {
            self.run("SAVEPOINT piece").await?;
            match self.execute(operation, &group).await {
                Ok(rows) => {
                    let written = write::keys(&self.target, &rows)?;
                    self.run("RELEASE SAVEPOINT piece").await?;
                    for at in group {
                        let Some(prepared) = self.prepared.get(at) else { continue };
                        let place = prepared.at;
                        if written.contains(&prepared.key) {
                            self.settle(place, ChangeOutcome::Written);
                        } else {
                            unwritten.push(at);
                        }
                    }
                }
                Err(error) => {
                    let rejection = self.refusal(operation, &error)?;
                    self.run("ROLLBACK TO SAVEPOINT piece; RELEASE SAVEPOINT piece").await?;
                    match rejection {
                        // The same again, without the clause that this table does not take.
                        None => {
                            self.guard = Guard::Refusal;
                            todo.push(group);
                        }
                        Some(_) if group.len() > 1 => {
                            let (left, right) = group.split_at(group.len() / 2);
                            todo.push(right.to_vec());
                            todo.push(left.to_vec());
                        }
                        Some(rejection) => {
                            let duplicate = operation == Operation::Insert
                                && self.guard == Guard::Refusal
                                && rejection.kind == RejectionKind::Unique;
                            let Some(place) =
                                group.first().and_then(|at| self.prepared.get(*at)).map(|p| p.at)
                            else {
                                continue;
                            };
                            self.settle(place, ChangeOutcome::Failed(rejection));
                            if duplicate {
                                unwritten.extend(group);
                            }
                        }
                    }
                }
            }
        }
        self.explain(operation, unwritten).await
    }

    /// Why a statement failed: a row's rejection; `None` where inserts must do without an arbiter.
    fn refusal(&self, operation: Operation, error: &sqlx::Error) -> Result<Option<Rejection>, EngineError> {
        let failed = || errors::engine_error(&self.target.during, error);
        let Some(db) = errors::database(error) else { return Err(failed()) };
        let arbiter = operation == Operation::Insert && self.guard == Guard::Arbiter;
        if arbiter && matches!(db.code(), "42P10" | "55000" | "0A000") {
            return Ok(None);
        }
        errors::rejection(db).map(Some).ok_or_else(failed)
    }

    async fn execute(&mut self, operation: Operation, group: &[usize]) -> Result<Vec<PgRow>, sqlx::Error> {
        let rows: Vec<&Prepared> = group.iter().filter_map(|at| self.prepared.get(*at)).collect();
        match operation {
            Operation::Insert => write::insert(self.connection, &self.target, &rows, self.guard, &[]).await,
            Operation::Update => write::update(self.connection, &self.target, &rows).await,
            Operation::Delete => write::delete(self.connection, &self.target, &rows).await,
        }
    }

    /// What became of rows that a statement passed over.
    async fn explain(&mut self, operation: Operation, unwritten: Vec<usize>) -> Result<(), EngineError> {
        if unwritten.is_empty() {
            return Ok(());
        }
        let suppressed = || Rejection {
            kind: RejectionKind::Other,
            reason: "a trigger, rule or policy of the database left the row as it was".to_owned(),
        };
        if operation != Operation::Insert {
            // The row was there and locked.
            for at in unwritten {
                if let Some(place) = self.prepared.get(at).map(|p| p.at) {
                    self.settle(place, ChangeOutcome::Failed(suppressed()));
                }
            }
            return Ok(());
        }
        for at in unwritten {
            let Some((place, key)) = self.prepared.get(at).map(|p| (p.at, p.key.clone())) else { continue };
            let found = read_keys(self.connection, &self.target, &[&key], Reading::Locked).await?;
            let fate = match (found.rows.get(&key), self.changes.get(place)) {
                (Some(row), Some(change)) if Some(&row.row) == change.after.as_ref() => {
                    ChangeOutcome::Written
                }
                (Some(_), _) => ChangeOutcome::Stale,
                // The refusal that is already noted was of another unique constraint.
                (None, _) if !self.is_open(place) => continue,
                (None, _) if found.strangers > 0 => ChangeOutcome::Failed(Rejection {
                    kind: RejectionKind::Unique,
                    reason: "the key's collation holds it equal to another row's key".to_owned(),
                }),
                (None, _) => ChangeOutcome::Failed(suppressed()),
            };
            self.settle(place, fate);
        }
        Ok(())
    }

    /// Rows that a constraint refused may find their place now that the others are written.
    async fn again(&mut self) -> Result<(), EngineError> {
        let refused: Vec<usize> = (0..self.prepared.len())
            .filter(|at| {
                self.prepared.get(*at).and_then(|p| self.fates.get(p.at)).is_some_and(|fate| {
                    matches!(fate, Some(ChangeOutcome::Failed(rejection))
                        if matches!(rejection.kind, RejectionKind::ForeignKey | RejectionKind::Unique))
                })
            })
            .collect();
        let some_written = self.fates.contains(&Some(ChangeOutcome::Written));
        if refused.is_empty() || !some_written {
            return Ok(());
        }
        for operation in [Operation::Delete, Operation::Update, Operation::Insert] {
            let group: Vec<usize> = refused
                .iter()
                .copied()
                .filter(|at| {
                    self.prepared
                        .get(*at)
                        .is_some_and(|p| p.operation == operation && !self.is_ambiguous(p.at))
                })
                .collect();
            if !group.is_empty() {
                self.write_group(operation, group).await?;
            }
        }
        Ok(())
    }

    /// Set aside because of its key, not by a statement.
    fn is_ambiguous(&self, place: usize) -> bool {
        matches!(self.fates.get(place), Some(Some(ChangeOutcome::Failed(rejection)))
            if rejection.reason.starts_with("several rows") || rejection.reason.starts_with("the key's collation"))
    }
}

/// The fate that a locked row decides; `None` where the change may go on. What is made already, by a run before, is written.
fn judge(change: &Change, row: Option<&CanonicalRow>) -> Option<ChangeOutcome> {
    match (row, change.operation()) {
        (None, Operation::Delete) => Some(ChangeOutcome::Written),
        (None, _) => Some(ChangeOutcome::Stale),
        (Some(row), _) if Some(row) == change.before.as_ref() => None,
        (Some(row), Operation::Update) if Some(row) == change.after.as_ref() => Some(ChangeOutcome::Written),
        (Some(_), _) => Some(ChangeOutcome::Stale),
    }
}

pub(super) fn respell(prepared: &mut Prepared, spelled: Vec<Option<String>>) {
    for (text, stored) in prepared.texts.iter_mut().zip(spelled) {
        if stored.is_some() {
            *text = stored;
        }
    }
}

/// The change as texts for its columns, or why the table cannot hold it.
pub(super) fn prepare(
    target: &Target<'_>,
    at: usize,
    change: &Change,
) -> Result<Result<Prepared, Rejection>, EngineError> {
    let access = target.access;
    let malformed =
        || EngineError::new(ErrorKind::Row, target.during.clone(), "a change's bytes do not fit the plan");
    let key = decode_key(&target.key_types, change.key.as_bytes()).map_err(|_| malformed())?;
    let mut values = key;
    if let Some(after) = &change.after {
        values.extend(decode_row(&target.row_types, after.as_bytes()).map_err(|_| malformed())?);
    }
    let operation = change.operation();
    let changed = match (&change.before, &change.after) {
        (Some(before), Some(after)) => changed_cells(before, after)
            .ok_or_else(malformed)?
            .into_iter()
            .map(|at| at + access.key_len)
            .collect(),
        _ => Vec::new(),
    };
    let mut prepared =
        Prepared { at, key: change.key.clone(), operation, texts: Vec::new(), changed, kept: Vec::new() };
    for (place, (column, value)) in access.columns.iter().zip(&values).enumerate() {
        let written = match operation {
            Operation::Insert => column.filled != Filled::Generated,
            Operation::Update => place < access.key_len || prepared.changed.contains(&place),
            Operation::Delete => true,
        };
        prepared.texts.push(if written {
            match bind::text_of(column, value) {
                Ok(text) => text,
                Err(rejection) => return Ok(Err(rejection)),
            }
        } else {
            None
        });
    }
    if operation == Operation::Update {
        let filled = |at: &usize| access.columns.get(*at).is_some_and(|c| c.filled == Filled::ByWriter);
        let own: Vec<String> = prepared
            .changed
            .iter()
            .filter(|at| !filled(at))
            .filter_map(|at| access.columns.get(*at).map(|c| c.name.clone()))
            .collect();
        prepared.changed.retain(|at| filled(at));
        if prepared.changed.is_empty() {
            let reason = if own.is_empty() {
                "the change changes nothing".to_owned()
            } else {
                format!("column {} is filled by the database and cannot be updated", own.join(", "))
            };
            return Ok(Err(Rejection { kind: RejectionKind::Other, reason }));
        }
    }
    Ok(Ok(prepared))
}
