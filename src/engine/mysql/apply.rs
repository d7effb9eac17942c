//! Changes in one transaction, each only if its row still holds what was compared.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::mysql::{MySql, MySqlArguments, MySqlConnection};
use sqlx::{AssertSqlSafe, Connection, Error, Executor};

use super::MySqlEngine;
use super::errors::{engine_error, is_duplicate_of, rejection};
use super::fetch::rows_of;
use super::params::{Param, add, param, placeholder, quote, quoted_table};
use crate::engine::{EngineError, ErrorKind};
use crate::model::canonical::{decode_key, decode_row};
use crate::model::{
    CanonicalRow, Change, ChangeOutcome, Filled, Key, Operation, Rejection, RejectionKind, TableAccess,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Insert, update, delete.
    InPlace,
    /// Delete everything, then insert: all or nothing.
    Replace,
}

const ROWS_PER_INSERT: usize = 500;
const PLACEHOLDERS_MAX: usize = 60_000;

pub(super) async fn apply(
    engine: &MySqlEngine,
    access: &Arc<TableAccess>,
    changes: &[Change],
    manner: Manner,
) -> Result<Vec<ChangeOutcome>, EngineError> {
    let during = format!("write to {}", access.table);
    let failed = |error: Error| engine_error(&during, &error);
    let mut connection = engine.pool.acquire().await.map_err(failed)?;
    let mut transaction = connection.begin().await.map_err(failed)?;
    let mut writer = Writer::new(access, changes, during.clone());
    writer.check(&mut transaction).await?;
    match manner {
        Manner::InPlace => writer.in_place(&mut transaction).await?,
        Manner::Replace => writer.replace(&mut transaction).await?,
    }
    if manner == Manner::Replace
        && writer.outcomes.iter().any(|outcome| *outcome != Some(ChangeOutcome::Written))
    {
        transaction.rollback().await.map_err(failed)?;
        return Ok(writer.all_or_nothing());
    }
    transaction.commit().await.map_err(failed)?;
    Ok(writer.outcomes.into_iter().map(|outcome| outcome.unwrap_or(ChangeOutcome::Stale)).collect())
}

struct Writer<'a> {
    access: &'a Arc<TableAccess>,
    changes: &'a [Change],
    during: String,
    outcomes: Vec<Option<ChangeOutcome>>,
}

impl<'a> Writer<'a> {
    fn new(access: &'a Arc<TableAccess>, changes: &'a [Change], during: String) -> Self {
        Self { access, changes, during, outcomes: vec![None; changes.len()] }
    }

    /// Locks the rows and sets aside the changes whose row is not what was compared any more.
    async fn check(&mut self, connection: &mut MySqlConnection) -> Result<(), EngineError> {
        let keys: Vec<Key> = self.changes.iter().map(|change| change.key.clone()).collect();
        let rows = rows_of(connection, self.access, &keys, None, " FOR UPDATE").await?;
        let now: HashMap<Key, CanonicalRow> = rows.into_iter().map(|row| (row.key, row.row)).collect();
        for (at, change) in self.changes.iter().enumerate() {
            let current = now.get(&change.key);
            if current == change.after.as_ref() {
                // Done already, by an earlier attempt or by somebody else.
                self.outcomes[at] = Some(ChangeOutcome::Written);
            } else if current != change.before.as_ref() {
                self.outcomes[at] = Some(ChangeOutcome::Stale);
            }
        }
        Ok(())
    }

    fn open(&self, operation: Operation) -> Vec<usize> {
        let open = |at: &usize| self.outcomes[*at].is_none() && self.changes[*at].operation() == operation;
        (0..self.changes.len()).filter(open).collect()
    }

    async fn in_place(&mut self, connection: &mut MySqlConnection) -> Result<(), EngineError> {
        // Deletes first: they may free unique values.
        for at in self.open(Operation::Delete) {
            self.one(connection, at).await?;
        }
        for at in self.open(Operation::Update) {
            self.one(connection, at).await?;
        }
        let per_row = self.access.columns.len().max(1);
        let size = ROWS_PER_INSERT.min(PLACEHOLDERS_MAX / per_row).max(1);
        for group in self.open(Operation::Insert).chunks(size) {
            self.insert(connection, group).await?;
        }
        Ok(())
    }

    async fn replace(&mut self, connection: &mut MySqlConnection) -> Result<(), EngineError> {
        if self.outcomes.iter().any(Option::is_some) {
            return Ok(());
        }
        let all: Vec<usize> = (0..self.changes.len()).collect();
        for at in &all {
            if self.changes[*at].before.is_some() {
                let (sql, arguments) = self.delete_statement(*at)?;
                if let Err(error) = run(connection, sql, arguments).await {
                    return self.refused(*at, &error);
                }
            }
        }
        for at in all {
            if self.changes[at].after.is_some() {
                match self.insert_statement(&[at])? {
                    Err(rejection) => self.outcomes[at] = Some(ChangeOutcome::Failed(rejection)),
                    Ok((sql, arguments)) => {
                        if let Err(error) = run(connection, sql, arguments).await {
                            return self.refused(at, &error);
                        }
                    }
                }
            }
            self.outcomes[at].get_or_insert(ChangeOutcome::Written);
        }
        Ok(())
    }

    fn all_or_nothing(self) -> Vec<ChangeOutcome> {
        let with_it = || Rejection {
            kind: RejectionKind::Other,
            reason: "its exchange with other rows failed".to_owned(),
        };
        self.outcomes
            .into_iter()
            .map(|outcome| match outcome {
                Some(ChangeOutcome::Written) | None => ChangeOutcome::Failed(with_it()),
                Some(outcome) => outcome,
            })
            .collect()
    }

    /// A group of inserts under a savepoint; a group that is refused is halved until the rows at fault are found.
    async fn insert(&mut self, connection: &mut MySqlConnection, group: &[usize]) -> Result<(), EngineError> {
        let mut groups = vec![group.to_vec()];
        while let Some(group) = groups.pop() {
            let (sql, arguments) = match self.insert_statement(&group)? {
                Ok(statement) => statement,
                Err(rejection) if group.len() == 1 => {
                    self.outcomes[group[0]] = Some(ChangeOutcome::Failed(rejection));
                    continue;
                }
                Err(_) => {
                    groups.extend(halves(&group));
                    continue;
                }
            };
            match self.under_savepoint(connection, sql, arguments).await? {
                Ok(()) => group.iter().for_each(|at| self.outcomes[*at] = Some(ChangeOutcome::Written)),
                Err(error) if group.len() == 1 => self.refused(group[0], &error)?,
                Err(_) => groups.extend(halves(&group)),
            }
        }
        Ok(())
    }

    /// One update or delete under a savepoint.
    async fn one(&mut self, connection: &mut MySqlConnection, at: usize) -> Result<(), EngineError> {
        let statement = match self.changes[at].operation() {
            Operation::Delete => Ok(self.delete_statement(at)?),
            _ => self.update_statement(at)?,
        };
        let (sql, arguments) = match statement {
            Ok(statement) => statement,
            Err(rejection) => {
                self.outcomes[at] = Some(ChangeOutcome::Failed(rejection));
                return Ok(());
            }
        };
        match self.under_savepoint(connection, sql, arguments).await? {
            Ok(()) => self.outcomes[at] = Some(ChangeOutcome::Written),
            Err(error) => self.refused(at, &error)?,
        }
        Ok(())
    }

    async fn under_savepoint(
        &self,
        connection: &mut MySqlConnection,
        sql: String,
        arguments: MySqlArguments,
    ) -> Result<Result<(), Error>, EngineError> {
        let failed = |error: Error| engine_error(&self.during, &error);
        connection.execute("SAVEPOINT trueup_rows").await.map_err(failed)?;
        let result = run(connection, sql, arguments).await;
        if let Err(error) = &result {
            // A deadlock has rolled everything back: the whole transaction must begin again.
            if rejection(error).is_none() {
                return Err(engine_error(&self.during, error));
            }
            connection.execute("ROLLBACK TO SAVEPOINT trueup_rows").await.map_err(failed)?;
        }
        Ok(result)
    }

    fn refused(&mut self, at: usize, error: &Error) -> Result<(), EngineError> {
        let inserts = self.changes[at].operation() == Operation::Insert;
        self.outcomes[at] = Some(match rejection(error) {
            // The key appeared since it was looked for.
            Some(_) if inserts && is_duplicate_of(error, "PRIMARY") => ChangeOutcome::Stale,
            Some(rejection) => ChangeOutcome::Failed(rejection),
            None => return Err(engine_error(&self.during, error)),
        });
        Ok(())
    }

    fn key_params(&self, at: usize) -> Result<Vec<Param>, EngineError> {
        let bad = |what: String| EngineError::new(ErrorKind::Row, &self.during, what);
        let values = decode_key(&self.access.key_types(), self.changes[at].key.as_bytes())
            .map_err(|e| bad(e.to_string()))?;
        let columns = self.access.key_columns();
        columns
            .iter()
            .zip(&values)
            .map(|(column, value)| param(column, value).map_err(|r| bad(r.reason)))
            .collect()
    }

    fn row_params(&self, at: usize) -> Result<Result<Vec<Param>, Rejection>, EngineError> {
        let Some(row) = &self.changes[at].after else { return Ok(Ok(Vec::new())) };
        let values = decode_row(&self.access.row_types(), row.as_bytes())
            .map_err(|error| EngineError::new(ErrorKind::Row, &self.during, error.to_string()))?;
        Ok(self
            .access
            .row_columns()
            .iter()
            .zip(&values)
            .map(|(column, value)| param(column, value))
            .collect())
    }

    fn key_condition(&self) -> String {
        let columns = self.access.key_columns().iter();
        columns
            .map(|column| format!("{} = {}", quote(&column.name), placeholder(column)))
            .collect::<Vec<_>>()
            .join(" AND ")
    }

    fn delete_statement(&self, at: usize) -> Result<(String, MySqlArguments), EngineError> {
        let mut arguments = MySqlArguments::default();
        for param in self.key_params(at)? {
            add(&mut arguments, param, &self.during)?;
        }
        Ok((
            format!("DELETE FROM {} WHERE {}", quoted_table(&self.access.table), self.key_condition()),
            arguments,
        ))
    }

    fn update_statement(
        &self,
        at: usize,
    ) -> Result<Result<(String, MySqlArguments), Rejection>, EngineError> {
        let params = match self.row_params(at)? {
            Ok(params) => params,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let mut arguments = MySqlArguments::default();
        let mut sets = Vec::new();
        for (column, param) in self.access.row_columns().iter().zip(params) {
            if column.filled == Filled::ByWriter {
                sets.push(format!("{} = ?", quote(&column.name)));
                add(&mut arguments, param, &self.during)?;
            }
        }
        for param in self.key_params(at)? {
            add(&mut arguments, param, &self.during)?;
        }
        if sets.is_empty() {
            return Ok(Err(Rejection {
                kind: RejectionKind::Value,
                reason: "no column of the row can be written".to_owned(),
            }));
        }
        let sql = format!(
            "UPDATE {} SET {} WHERE {}",
            quoted_table(&self.access.table),
            sets.join(", "),
            self.key_condition()
        );
        Ok(Ok((sql, arguments)))
    }

    fn insert_statement(
        &self,
        group: &[usize],
    ) -> Result<Result<(String, MySqlArguments), Rejection>, EngineError> {
        let written: Vec<bool> =
            self.access.columns.iter().map(|column| column.filled != Filled::Generated).collect();
        let mut arguments = MySqlArguments::default();
        for at in group {
            let row = match self.row_params(*at)? {
                Ok(row) => row,
                Err(rejection) => return Ok(Err(rejection)),
            };
            let all = self.key_params(*at)?.into_iter().chain(row);
            for (param, _) in all.zip(&written).filter(|(_, written)| **written) {
                add(&mut arguments, param, &self.during)?;
            }
        }
        let columns = self.access.columns.iter().zip(&written).filter(|(_, written)| **written);
        let names: Vec<String> = columns.map(|(column, _)| quote(&column.name)).collect();
        let tuple = format!("({})", vec!["?"; names.len()].join(", "));
        let tuples = vec![tuple; group.len()].join(", ");
        Ok(Ok((
            format!(
                "INSERT INTO {} ({}) VALUES {tuples}",
                quoted_table(&self.access.table),
                names.join(", ")
            ),
            arguments,
        )))
    }
}

fn halves(group: &[usize]) -> [Vec<usize>; 2] {
    let (left, right) = group.split_at(group.len() / 2);
    [right.to_vec(), left.to_vec()]
}

async fn run(connection: &mut MySqlConnection, sql: String, arguments: MySqlArguments) -> Result<(), Error> {
    sqlx::query_with::<MySql, _>(AssertSqlSafe(sql), arguments).execute(connection).await.map(|_| ())
}
