//! Changes in one transaction, each only if its row still holds what was compared, and kept only if the row then
//! holds what was meant: an affinity may turn a value into another.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::types::Value as Stored;
use rusqlite::{Connection, Transaction, TransactionBehavior, params_from_iter};

use super::errors::{engine_error, rejection};
use super::params::{quote, values};
use super::rows::{key_condition, rows_of};
use crate::engine::EngineError;
use crate::model::{
    CanonicalRow, Change, ChangeOutcome, Filled, Key, Operation, Rejection, RejectionKind, TableAccess,
};

pub(super) fn apply(
    connection: &mut Connection,
    access: &Arc<TableAccess>,
    changes: &[Change],
) -> Result<Vec<ChangeOutcome>, EngineError> {
    let during = format!("write to {}", access.table);
    let failed = |error: rusqlite::Error| engine_error(&during, &error);
    let mut transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let mut outcomes = check(&transaction, access, changes)?;
    // Deletes first: they may free unique values.
    for operation in [Operation::Delete, Operation::Update, Operation::Insert] {
        for (change, outcome) in changes.iter().zip(&mut outcomes) {
            if outcome.is_none() && change.operation() == operation {
                let savepoint = transaction.savepoint().map_err(failed)?;
                match write(&savepoint, access, change)? {
                    ChangeOutcome::Written => savepoint.commit().map_err(failed)?,
                    refused => {
                        drop(savepoint);
                        *outcome = Some(refused);
                        continue;
                    }
                }
                *outcome = Some(ChangeOutcome::Written);
            }
        }
    }
    transaction.commit().map_err(failed)?;
    Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or(ChangeOutcome::Stale)).collect())
}

/// Deletes and inserts every row; all or nothing.
pub(super) fn replace(
    connection: &mut Connection,
    access: &Arc<TableAccess>,
    changes: &[Change],
) -> Result<Vec<ChangeOutcome>, EngineError> {
    let during = format!("write to {}", access.table);
    let failed = |error: rusqlite::Error| engine_error(&during, &error);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let mut outcomes = check(&transaction, access, changes)?;
    if outcomes.iter().all(Option::is_none) {
        // References to the rows are looked at when all is done.
        transaction.execute_batch("PRAGMA defer_foreign_keys = ON").map_err(failed)?;
        let steps = changes.iter().enumerate();
        let deletes = steps
            .clone()
            .filter(|(_, change)| change.before.is_some())
            .map(|(at, change)| (at, Change { after: None, ..change.clone() }));
        let inserts = steps
            .filter(|(_, change)| change.after.is_some())
            .map(|(at, change)| (at, Change { before: None, ..change.clone() }));
        for (at, step) in deletes.chain(inserts) {
            let outcome = write(&transaction, access, &step)?;
            let done = outcome == ChangeOutcome::Written;
            outcomes[at] = Some(outcome);
            if !done {
                break;
            }
        }
    }
    if outcomes.iter().all(|outcome| *outcome == Some(ChangeOutcome::Written)) {
        match transaction.commit() {
            Ok(()) => return Ok(outcomes.into_iter().flatten().collect()),
            Err(error) => match rejection(&error) {
                Some(why) => return Ok(changes.iter().map(|_| ChangeOutcome::Failed(why.clone())).collect()),
                None => return Err(failed(error)),
            },
        }
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

/// The changes that need no write, or must not be written.
fn check(
    transaction: &Transaction<'_>,
    access: &Arc<TableAccess>,
    changes: &[Change],
) -> Result<Vec<Option<ChangeOutcome>>, EngineError> {
    let keys: Vec<Key> = changes.iter().map(|change| change.key.clone()).collect();
    let rows = rows_of(transaction, access, &keys, None)?;
    let now: BTreeMap<Key, CanonicalRow> = rows.into_iter().map(|row| (row.key, row.row)).collect();
    let outcome = |change: &Change| {
        let current = now.get(&change.key);
        if current == change.after.as_ref() {
            Some(ChangeOutcome::Written)
        } else {
            (current != change.before.as_ref()).then_some(ChangeOutcome::Stale)
        }
    };
    Ok(changes.iter().map(outcome).collect())
}

fn write(
    connection: &Connection,
    access: &Arc<TableAccess>,
    change: &Change,
) -> Result<ChangeOutcome, EngineError> {
    let during = format!("write to {}", access.table);
    let (key, row) = match values(access, change)? {
        Ok(values) => values,
        Err(rejection) => return Ok(ChangeOutcome::Failed(rejection)),
    };
    let (sql, bound) = match change.operation() {
        Operation::Delete => {
            (format!("DELETE FROM {} WHERE {}", quote(&access.table.name), key_condition(access, 1)), key)
        }
        Operation::Update => update(access, key, row),
        Operation::Insert => insert(access, key, row),
    };
    if sql.is_empty() {
        let reason = "no column of the row can be written".to_owned();
        return Ok(ChangeOutcome::Failed(Rejection { kind: RejectionKind::Value, reason }));
    }
    let done =
        connection.prepare_cached(&sql).and_then(|mut statement| statement.execute(params_from_iter(bound)));
    if let Err(error) = done {
        return match rejection(&error) {
            Some(rejection) => Ok(ChangeOutcome::Failed(rejection)),
            None => Err(engine_error(&during, &error)),
        };
    }
    let holds = rows_of(connection, access, std::slice::from_ref(&change.key), None)?;
    if holds.first().map(|row| &row.row) == change.after.as_ref() {
        return Ok(ChangeOutcome::Written);
    }
    let reason = "the row would not hold the source's values: an affinity, a trigger or a generated column changes them".to_owned();
    Ok(ChangeOutcome::Failed(Rejection { kind: RejectionKind::Value, reason }))
}

fn update(access: &TableAccess, key: Vec<Stored>, row: Vec<Stored>) -> (String, Vec<Stored>) {
    let mut bound = Vec::new();
    let mut sets = Vec::new();
    for (column, value) in access.row_columns().iter().zip(row) {
        if column.filled == Filled::ByWriter {
            bound.push(value);
            sets.push(format!("{} = ?{}", quote(&column.name), bound.len()));
        }
    }
    if sets.is_empty() {
        return (String::new(), bound);
    }
    let condition = key_condition(access, bound.len() + 1);
    bound.extend(key);
    (format!("UPDATE {} SET {} WHERE {condition}", quote(&access.table.name), sets.join(", ")), bound)
}

fn insert(access: &TableAccess, key: Vec<Stored>, row: Vec<Stored>) -> (String, Vec<Stored>) {
    let pairs = access
        .columns
        .iter()
        .zip(key.into_iter().chain(row))
        .filter(|(column, _)| column.filled != Filled::Generated);
    let (names, bound): (Vec<String>, Vec<Stored>) =
        pairs.map(|(column, value)| (quote(&column.name), value)).unzip();
    let holders: Vec<String> = (1..=bound.len()).map(|at| format!("?{at}")).collect();
    (
        format!(
            "INSERT INTO {} ({}) VALUES ({})",
            quote(&access.table.name),
            names.join(", "),
            holders.join(", ")
        ),
        bound,
    )
}
