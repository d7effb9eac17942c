//! Changes in one transaction, each only if its row still holds what was compared.

use std::collections::HashSet;
use std::sync::Arc;

use sqlx::Executor;
use sqlx::postgres::{PgConnection, PgRow};

use super::fetch::BY_INDEX;
use super::meaning::{lock, no_address};
use super::passed_over::{self, PassedOver};
use super::path::{SERVERS_OWN, TrustedPaths};
use super::prepare::{judge, prepare};
use super::target::Target;
use super::write::{self, Guard, Prepared};
use super::{PgEngine, errors, load, policies, read_back, run};
use crate::engine::read_back::lost;
use crate::engine::{EngineError, ErrorKind, LockWait};
use crate::model::{
    Change, ChangeOutcome, Key, Operation, Rejection, RejectionKind, RowRun, TableAccess, fail_point,
};

/// Rows per statement.
const GROUP_MAX: usize = 5000;

pub(super) async fn apply(
    engine: &PgEngine,
    connection: &mut PgConnection,
    access: &Arc<TableAccess>,
    changes: &[Change],
    wait: LockWait,
) -> Result<Vec<ChangeOutcome>, EngineError> {
    match RowRun::of_inserts(changes) {
        Some(rows) if load::load(engine, connection, access, &rows, wait).await? => {
            Ok(vec![ChangeOutcome::Written; changes.len()])
        }
        _ => one_by_one(engine, connection, access, changes, wait).await,
    }
}

pub(super) async fn insert(
    engine: &PgEngine,
    connection: &mut PgConnection,
    access: &Arc<TableAccess>,
    rows: &RowRun,
) -> Result<Vec<ChangeOutcome>, EngineError> {
    if load::load(engine, connection, access, rows, LockWait::Full).await? {
        return Ok(vec![ChangeOutcome::Written; rows.len()]);
    }
    one_by_one(engine, connection, access, &rows.inserts(), LockWait::Full).await
}

async fn one_by_one(
    engine: &PgEngine,
    connection: &mut PgConnection,
    access: &Arc<TableAccess>,
    changes: &[Change],
    wait: LockWait,
) -> Result<Vec<ChangeOutcome>, EngineError> {
    if let Some(outcomes) =
        attempt(engine, connection, access, changes, Constraints::AsDeclared, wait).await?
    {
        return Ok(outcomes);
    }
    // A deferred constraint fails at the end and names no row: once more, checked statement by statement.
    match attempt(engine, connection, access, changes, Constraints::Immediate, wait).await? {
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
    engine: &PgEngine,
    connection: &mut PgConnection,
    access: &TableAccess,
    changes: &[Change],
    constraints: Constraints,
    wait: LockWait,
) -> Result<Option<Vec<ChangeOutcome>>, EngineError> {
    let mut batch = Batch::begin(engine, connection, access, changes, wait).await?;
    if constraints == Constraints::Immediate {
        batch.run("SET CONSTRAINTS ALL IMMEDIATE").await?;
    }
    batch.check_locked().await?;
    batch.open_path().await?;
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
    batch.run(SERVERS_OWN).await?;
    // What a trigger did that waited until now is found row by row where it fires behind each statement.
    if constraints == Constraints::AsDeclared && batch.is_changed_at_the_end().await? {
        batch.run("ROLLBACK").await?;
        return Ok(None);
    }
    batch.run("COMMIT").await?;
    fail_point();
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
    /// Rows are read back after they were written.
    reads_back: bool,
    paths: Arc<TrustedPaths>,
}

impl<'a> Batch<'a> {
    /// Opens the transaction and turns the changes into texts; what cannot be is set aside here.
    pub(super) async fn begin(
        engine: &PgEngine,
        connection: &'a mut PgConnection,
        access: &'a TableAccess,
        changes: &'a [Change],
        wait: LockWait,
    ) -> Result<Self, EngineError> {
        let during = format!("write {}", access.table);
        run(connection, &during, &format!("{}; {BY_INDEX}", engine.begin_writing(wait))).await?;
        let target = Target::load(engine, connection, access, during).await?;
        let reads_back = read_back::may_differ(connection, &target).await?;
        let mut batch = Self {
            connection,
            target,
            changes,
            prepared: Vec::with_capacity(changes.len()),
            fates: vec![None; changes.len()],
            guard: Guard::Arbiter,
            reads_back,
            paths: Arc::clone(&engine.paths),
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
        fail_point();
        run(self.connection, &self.target.during, sql).await
    }

    /// Behind this triggers may fire.
    pub(super) async fn open_path(&mut self) -> Result<(), EngineError> {
        self.paths.set(self.connection, &self.target.during, self.target.relation.oid).await.map(drop)
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

    /// Locks the rows of updates and deletes, and drops the changes whose rows have moved on. Where a key can be spelled in
    /// several ways, an insert's row may be there under another one, which no constraint of the table's would say.
    async fn check_locked(&mut self) -> Result<(), EngineError> {
        let loose = self.target.loose.is_some();
        let looked_for = |p: &Prepared| loose || p.operation != Operation::Insert;
        let keys: Vec<Key> = self.prepared.iter().filter(|p| looked_for(p)).map(|p| p.key.clone()).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let keys: Vec<&Key> = keys.iter().collect();
        let mut locked = lock(self.connection, &self.target, &keys, &[]).await?;
        let kept_off = policies::kept_off(
            self.connection,
            &self.target,
            &self.prepared,
            self.changes,
            &locked.found.rows,
        )
        .await?;
        let ambiguous: HashSet<Key> = locked.found.ambiguous.drain(..).collect();
        for at in 0..self.prepared.len() {
            let Some(prepared) = self.prepared.get_mut(at).filter(|p| looked_for(p)) else { continue };
            let Some(change) = self.changes.get(prepared.at) else { continue };
            let row = locked.found.rows.remove(&prepared.key);
            let missed = locked.missed.contains(&prepared.key);
            let unaddressed =
                row.as_ref().is_some_and(|row| row.place.is_none() && !prepared.has_key_texts(&self.target))
                    || missed && !self.target.relation.has_places() && change.before.is_some();
            let fate = match row.as_ref() {
                None if kept_off.contains(&prepared.key) => {
                    Some(ChangeOutcome::Failed(policies::rejection()))
                }
                // It was there when the table was read for it, and has been changed since.
                None if missed => Some(ChangeOutcome::Stale),
                row => judge(change, row.map(|found| &found.row)),
            };
            if let Some(row) = row {
                prepared.place = row.place;
            }
            let place = prepared.at;
            if ambiguous.contains(&prepared.key) {
                let reason = "several rows hold this key, spelled differently".to_owned();
                self.settle(place, ChangeOutcome::Failed(Rejection { kind: RejectionKind::Unique, reason }));
            } else if unaddressed {
                let rejection = no_address(&self.target);
                self.settle(place, ChangeOutcome::Failed(rejection));
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
            for alike in self.alike(open) {
                for group in alike.chunks(GROUP_MAX) {
                    self.write_group(operation, group.to_vec()).await?;
                }
            }
        }
        Ok(())
    }

    /// Rows that are addressed by their key apart from those that are addressed by their place.
    fn alike(&self, group: Vec<usize>) -> impl Iterator<Item = Vec<usize>> + use<> {
        let placed = |at: &usize| self.prepared.get(*at).is_some_and(|p| p.place.is_some());
        let (placed, keyed): (Vec<usize>, Vec<usize>) = group.into_iter().partition(placed);
        [keyed, placed].into_iter().filter(|group| !group.is_empty())
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
                    if operation != Operation::Delete && self.has_stranger(&group, &written) {
                        self.run("ROLLBACK TO SAVEPOINT piece; RELEASE SAVEPOINT piece").await?;
                        if let [one] = group.as_slice() {
                            let lost = lost(self.target.access);
                            self.set_apart(group.clone(), vec![(*one, lost)]);
                        } else {
                            let (left, right) = group.split_at(group.len() / 2);
                            todo.push(right.to_vec());
                            todo.push(left.to_vec());
                        }
                        continue;
                    }
                    let otherwise = self.held_otherwise(&group, &written).await?;
                    if !otherwise.is_empty() {
                        // The same again, without the rows that would be others.
                        self.run("ROLLBACK TO SAVEPOINT piece; RELEASE SAVEPOINT piece").await?;
                        let rest = self.set_apart(group, otherwise);
                        todo.extend((!rest.is_empty()).then_some(rest));
                        continue;
                    }
                    let is_written = |at: &usize| {
                        self.prepared.get(*at).is_some_and(|prepared| written.contains(&prepared.key))
                    };
                    let (done, passed_over): (Vec<usize>, Vec<usize>) =
                        group.into_iter().partition(is_written);
                    unwritten.extend(&passed_over);
                    if self.reads_back && !passed_over.is_empty() {
                        // What triggers did for rows that were not written goes; the others are written again.
                        self.run("ROLLBACK TO SAVEPOINT piece; RELEASE SAVEPOINT piece").await?;
                        todo.extend((!done.is_empty()).then_some(done));
                        continue;
                    }
                    self.run("RELEASE SAVEPOINT piece").await?;
                    for at in done {
                        if let Some(place) = self.prepared.get(at).map(|prepared| prepared.at) {
                            self.settle(place, ChangeOutcome::Written);
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

    /// Whether a row was written under a key that none of the group has: the database makes another key of one of theirs.
    fn has_stranger(&self, group: &[usize], written: &HashSet<Key>) -> bool {
        let keys: HashSet<&Key> =
            group.iter().filter_map(|at| self.prepared.get(*at)).map(|p| &p.key).collect();
        written.iter().any(|key| !keys.contains(key))
    }

    /// Which rows of a group that was written hold something else now.
    pub(super) async fn held_otherwise(
        &mut self,
        group: &[usize],
        written: &HashSet<Key>,
    ) -> Result<Vec<(usize, Rejection)>, EngineError> {
        if !self.reads_back {
            return Ok(Vec::new());
        }
        let rows: Vec<(usize, &Prepared, &Change)> = group
            .iter()
            .filter_map(|at| self.prepared.get(*at).map(|prepared| (*at, prepared)))
            .filter(|(_, prepared)| written.contains(&prepared.key))
            .filter_map(|(at, prepared)| Some((at, prepared, self.changes.get(prepared.at)?)))
            .collect();
        read_back::held_otherwise(self.connection, &self.target, &rows).await
    }

    /// Whether triggers that waited for the end made other rows of those that were written.
    async fn is_changed_at_the_end(&mut self) -> Result<bool, EngineError> {
        if !self.reads_back || !read_back::has_deferrable(self.connection, &self.target).await? {
            return Ok(false);
        }
        let is_written = |p: &Prepared| self.fates.get(p.at) == Some(&Some(ChangeOutcome::Written));
        let written: Vec<usize> =
            (0..self.prepared.len()).filter(|at| self.prepared.get(*at).is_some_and(is_written)).collect();
        let keys = written.iter().filter_map(|at| self.prepared.get(*at)).map(|p| p.key.clone()).collect();
        Ok(!self.held_otherwise(&written, &keys).await?.is_empty())
    }

    /// Settles these rows of a group, and gives back the others.
    fn set_apart(&mut self, mut group: Vec<usize>, rejected: Vec<(usize, Rejection)>) -> Vec<usize> {
        for (at, rejection) in rejected {
            group.retain(|other| *other != at);
            if let Some(place) = self.prepared.get(at).map(|p| p.at) {
                self.settle(place, ChangeOutcome::Failed(rejection));
            }
        }
        group
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
        for at in unwritten {
            let Some((place, key)) = self.prepared.get(at).map(|p| (p.at, p.key.clone())) else { continue };
            let Some(change) = self.changes.get(place) else { continue };
            let fate = match operation {
                Operation::Insert => passed_over::insert(self.connection, &self.target, &key, change).await?,
                // The row was there and locked.
                Operation::Update | Operation::Delete => PassedOver::Refused(passed_over::suppressed()),
            };
            let fate = match fate {
                PassedOver::Found(outcome) => outcome,
                // The refusal that is already noted was of another unique constraint.
                PassedOver::Refused(_) if operation == Operation::Insert && !self.is_open(place) => continue,
                PassedOver::Refused(why) => ChangeOutcome::Failed(why),
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
            for group in self.alike(group) {
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
