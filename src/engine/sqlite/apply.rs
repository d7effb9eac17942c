//! Changes in one transaction, each only if its row still holds what was compared. A row is found by what its key means and
//! written where it is stored.

use std::collections::HashMap;

use rusqlite::{Connection, Error, Transaction, TransactionBehavior};

use super::errors::{database_error, needs_collation, rejection};
use super::open::literal_names;
use super::params::inexact_column;
use super::references::{self, Written};
use super::rows::{Address, Found, Reading};
use super::shape::TableShape;
use super::write::Writing;
use crate::engine::EngineError;
use crate::model::{
    Change, ChangeOutcome, Key, Operation, Rejection, RejectionKind, TableAccess, fail_point,
};

/// What is to be done for a change.
enum Step {
    Done(ChangeOutcome),
    /// At the place of the row, where there is one.
    Write(Option<Address>),
}

/// Rows that are written again because a trigger ended the transaction.
const REPEATED_MAX: usize = 200_000;

pub(super) fn apply(
    connection: &mut Connection,
    access: &TableAccess,
    changes: &[Change],
) -> Result<Vec<ChangeOutcome>, EngineError> {
    let mut refused = HashMap::new();
    let mut repeated = 0;
    loop {
        match attempt(connection, access, changes, &refused)? {
            Attempt::Committed(outcomes) => return Ok(outcomes),
            Attempt::Refused(rows) => refused.extend(rows),
        }
        repeated += changes.len();
        if repeated > REPEATED_MAX && refused.len() < changes.len() {
            let reason = "not tried, as triggers rolled back the transaction for too many rows beside it";
            let why = Rejection { kind: RejectionKind::Other, reason: reason.to_owned() };
            for at in 0..changes.len() {
                refused.entry(at).or_insert_with(|| why.clone());
            }
        }
    }
}

enum Attempt {
    Committed(Vec<ChangeOutcome>),
    /// Nothing is written, because of these rows: a trigger rolled the whole transaction back for one (`RAISE(ROLLBACK)`), or the
    /// end of the transaction found references without a row.
    Refused(Vec<(usize, Rejection)>),
}

/// One transaction, without the changes that were `refused` before.
fn attempt(
    connection: &mut Connection,
    access: &TableAccess,
    changes: &[Change],
    refused: &HashMap<usize, Rejection>,
) -> Result<Attempt, EngineError> {
    let during = format!("write to {}", access.table);
    let failed = |error: Error| database_error(&during, &error);
    let mut transaction = begin(connection, &during)?;
    let shape = TableShape::read(&transaction, access, &during)?;
    if let Some(collation) = &shape.ordered_by {
        return Ok(Attempt::Committed(refused_all(changes, collation)));
    }
    let steps = check(&transaction, access, &shape, changes, &during)?;
    let mut outcomes: Vec<Option<ChangeOutcome>> = steps
        .iter()
        .enumerate()
        .map(|(at, step)| match step {
            Step::Done(outcome) => Some(outcome.clone()),
            Step::Write(_) => refused.get(&at).map(|why| ChangeOutcome::Failed(why.clone())),
        })
        .collect();
    let mut written = Vec::new();
    // Deletes first: they may free unique values.
    for operation in [Operation::Delete, Operation::Update, Operation::Insert] {
        for (at, ((change, step), outcome)) in changes.iter().zip(&steps).zip(&mut outcomes).enumerate() {
            let Step::Write(address) = step else { continue };
            if outcome.is_some() || change.operation() != operation {
                continue;
            }
            fail_point();
            let savepoint = transaction.savepoint().map_err(failed)?;
            let reading =
                Reading { connection: &savepoint, access, shape: &shape, filter: None, during: &during };
            let done = Writing { reading }.write(change, address.as_ref())?;
            if savepoint.is_autocommit() {
                let ended = "a trigger rolled the transaction back".to_owned();
                let why = match done {
                    ChangeOutcome::Failed(why) => why,
                    _ => Rejection { kind: RejectionKind::Other, reason: ended },
                };
                return Ok(Attempt::Refused(vec![(at, why)]));
            }
            if done == ChangeOutcome::Written {
                let rowid = match address {
                    Some(Address::Rowid(rowid)) => Some(*rowid),
                    Some(Address::Key(_)) => None,
                    None => shape.rowid.is_some().then(|| savepoint.last_insert_rowid()),
                };
                written.push(Written { at, operation, rowid });
                savepoint.commit().map_err(failed)?;
            }
            *outcome = Some(done);
        }
    }
    fail_point();
    if let Err(error) = transaction.execute_batch("COMMIT") {
        let Some(why) = rejection(&error).filter(|why| why.kind == RejectionKind::ForeignKey) else {
            return Err(failed(error));
        };
        let blamed = references::blamed(&transaction, &access.table.name, &written).map_err(failed)?;
        return Ok(Attempt::Refused(blamed.into_iter().map(|at| (at, why.clone())).collect()));
    }
    fail_point();
    let outcomes = outcomes.into_iter().map(|outcome| outcome.unwrap_or(ChangeOutcome::Stale));
    Ok(Attempt::Committed(outcomes.collect()))
}

/// Deletes and inserts every row; all or nothing.
pub(super) fn replace(
    connection: &mut Connection,
    access: &TableAccess,
    changes: &[Change],
) -> Result<Vec<ChangeOutcome>, EngineError> {
    let during = format!("write to {}", access.table);
    let failed = |error: Error| database_error(&during, &error);
    let transaction = begin(connection, &during)?;
    let shape = TableShape::read(&transaction, access, &during)?;
    if let Some(collation) = &shape.ordered_by {
        return Ok(refused_all(changes, collation));
    }
    let steps = check(&transaction, access, &shape, changes, &during)?;
    let reading = Reading { connection: &transaction, access, shape: &shape, filter: None, during: &during };
    let outcomes = exchange(&transaction, &Writing { reading }, changes, &steps)?;
    if outcomes.iter().all(|outcome| *outcome == Some(ChangeOutcome::Written)) {
        fail_point();
        return match transaction.commit() {
            Ok(()) => Ok(outcomes.into_iter().flatten().collect()),
            Err(error) => match rejection(&error) {
                Some(why) => Ok(changes.iter().map(|_| ChangeOutcome::Failed(why.clone())).collect()),
                None => Err(failed(error)),
            },
        };
    }
    let with_it =
        Rejection { kind: RejectionKind::Other, reason: "its exchange with other rows failed".to_owned() };
    Ok(outcomes
        .into_iter()
        .map(|outcome| match outcome {
            Some(ChangeOutcome::Written) | None => ChangeOutcome::Failed(with_it.clone()),
            Some(outcome) => outcome,
        })
        .collect())
}

/// The outcome of each change, up to the first that could not be made.
fn exchange(
    transaction: &Transaction<'_>,
    writing: &Writing<'_>,
    changes: &[Change],
    steps: &[Step],
) -> Result<Vec<Option<ChangeOutcome>>, EngineError> {
    let mut outcomes: Vec<Option<ChangeOutcome>> = steps
        .iter()
        .map(|step| match step {
            Step::Done(ChangeOutcome::Already) | Step::Write(_) => None,
            Step::Done(refused) => Some(refused.clone()),
        })
        .collect();
    if outcomes.iter().any(Option::is_some) {
        return Ok(outcomes);
    }
    // References to the rows are looked at when all is done.
    transaction
        .execute_batch("PRAGMA defer_foreign_keys = ON")
        .map_err(|error| database_error(writing.reading.during, &error))?;
    let mut taken = HashMap::new();
    for (at, (change, step)) in changes.iter().zip(steps).enumerate() {
        match step {
            Step::Done(_) => outcomes[at] = Some(ChangeOutcome::Written),
            Step::Write(Some(address)) => match writing.take_out(change, address)? {
                Ok(whole) => drop(taken.insert(at, whole)),
                Err(why) => {
                    outcomes[at] = Some(ChangeOutcome::Failed(why));
                    return Ok(outcomes);
                }
            },
            Step::Write(None) => {}
        }
    }
    for (at, (change, step)) in changes.iter().zip(steps).enumerate() {
        let Step::Write(_) = step else { continue };
        fail_point();
        let done = match (&change.after, taken.get(&at)) {
            (None, _) => ChangeOutcome::Written,
            (Some(_), Some(whole)) => writing.put_back(change, whole)?,
            (Some(_), None) => writing.write(change, None)?,
        };
        let written = done == ChangeOutcome::Written;
        outcomes[at] = Some(done);
        if !written {
            break;
        }
    }
    Ok(outcomes)
}

fn begin<'c>(connection: &'c mut Connection, during: &str) -> Result<Transaction<'c>, EngineError> {
    let failed = |error: Error| database_error(during, &error);
    // Triggers may hold texts in double quotes. Our own statements qualify every name that could be taken for one.
    literal_names(connection, true).map_err(failed)?;
    connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)
}

fn refused_all(changes: &[Change], collation: &str) -> Vec<ChangeOutcome> {
    let why = Rejection { kind: RejectionKind::Other, reason: needs_collation(collation) };
    changes.iter().map(|_| ChangeOutcome::Failed(why.clone())).collect()
}

/// Finds every row by what its key means. The changes that need no write, or must not be written, are done.
fn check(
    connection: &Connection,
    access: &TableAccess,
    shape: &TableShape,
    changes: &[Change],
    during: &str,
) -> Result<Vec<Step>, EngineError> {
    let reading = Reading { connection, access, shape, filter: None, during };
    let keys: Vec<Key> = changes.iter().map(|change| change.key.clone()).collect();
    let mut now: HashMap<Key, Vec<Found>> = HashMap::new();
    let mut keep = |all: Vec<Found>| {
        all.into_iter().for_each(|found| now.entry(found.key.clone()).or_default().push(found));
        now.keys().cloned().collect::<std::collections::HashSet<_>>()
    };
    let search = reading.by_key(&keys)?;
    let exact = search.as_ref().map(|search| search.exact.clone()).unwrap_or_default();
    let known = keep(search.map(|search| search.found).unwrap_or_default());
    // Gone, as it seems, or spelled in a way that was not looked for: the table tells.
    let unseen: Vec<Key> = changes
        .iter()
        .filter(|change| !known.contains(&change.key))
        .filter(|change| change.before.is_some() || !exact.contains(&change.key))
        .map(|change| change.key.clone())
        .collect();
    if !unseen.is_empty() {
        keep(reading.by_pass(&unseen)?);
    }
    changes.iter().map(|change| step(access, change, now.get(&change.key), during)).collect()
}

fn step(
    access: &TableAccess,
    change: &Change,
    rows: Option<&Vec<Found>>,
    during: &str,
) -> Result<Step, EngineError> {
    let current = match rows.map(Vec::as_slice) {
        None | Some([]) => None,
        Some([one]) => Some(one),
        Some(_) => {
            let column = inexact_column(access, &change.key, during)?.unwrap_or("of the key");
            let reason = format!("column {column} spells this key in several rows");
            return Ok(Step::Done(ChangeOutcome::Failed(Rejection { kind: RejectionKind::Value, reason })));
        }
    };
    let row = current.map(|found| &found.row);
    Ok(if row == change.after.as_ref() {
        Step::Done(ChangeOutcome::Already)
    } else if row != change.before.as_ref() {
        Step::Done(ChangeOutcome::Stale)
    } else {
        Step::Write(current.map(|found| found.address.clone()))
    })
}
