//! Rows that exchange values of a unique column: deleted and inserted again, all of them or none.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::Executor;
use sqlx::postgres::PgConnection;

use super::apply::Batch;
use super::fetch::Found;
use super::live::get;
use super::meaning::lock;
use super::prepare::prepare;
use super::session::ask;
use super::write::{self, Guard, Prepared};
use super::{PgEngine, errors};
use crate::engine::read_back::EXCHANGE_NEEDS;
use crate::engine::{EngineError, ErrorKind, LockWait};
use crate::model::{Change, ChangeOutcome, Filled, Key, Operation, Rejection, RejectionKind, TableAccess};

/// Deletes and inserts the rows; columns outside the access keep their values.
pub(super) async fn replace(
    engine: &PgEngine,
    connection: &mut PgConnection,
    access: &Arc<TableAccess>,
    changes: &[Change],
) -> Result<Vec<ChangeOutcome>, EngineError> {
    let all = |fate: ChangeOutcome| vec![fate; changes.len()];
    let mut batch = Batch::begin(engine, connection, access, changes, LockWait::Full).await?;
    // One that cannot be written holds back all of them.
    if let Some(fate) = batch.fates.iter().flatten().next().cloned() {
        batch.run("ROLLBACK").await?;
        return Ok(all(fate));
    }
    let deletes = changes.iter().any(|change| change.before.is_some());
    if deletes && let Some(rejection) = batch.spreading_delete().await? {
        batch.run("ROLLBACK").await?;
        return Ok(all(ChangeOutcome::Failed(rejection)));
    }
    let kept = batch.kept_columns();
    let stored = batch.stored_columns();
    let names: Vec<String> = kept.iter().chain(stored.iter().map(|(_, name)| name)).cloned().collect();
    let (found, conflict) = batch.lock_for_replacement(&names).await?;
    if conflict {
        batch.run("ROLLBACK").await?;
        return Ok(all(ChangeOutcome::Stale));
    }
    batch.open_path().await?;
    match batch.exchange(found, &kept, &stored).await? {
        None => {
            batch.run("COMMIT").await?;
            Ok(all(ChangeOutcome::Written))
        }
        Some(fate) => {
            batch.run("ROLLBACK").await?;
            Ok(all(fate))
        }
    }
}

impl Batch<'_> {
    fn kept_columns(&self) -> Vec<String> {
        let known = |name: &str| self.target.access.columns.iter().any(|column| column.name == name);
        let live = self.target.live.iter().filter(|live| !live.generated && !known(&live.name));
        live.map(|live| live.name.clone()).collect()
    }

    /// The columns behind the key whose text, as it is stored, can be given back: cells that are equal stay as they are.
    fn stored_columns(&self) -> Vec<(usize, String)> {
        let access = self.target.access;
        let columns = access.columns.iter().enumerate().skip(access.key_len);
        columns
            .filter(|(_, column)| column.filled != Filled::Generated && self.target.is_plain(column))
            .map(|(at, column)| (at, column.name.clone()))
            .collect()
    }

    /// A delete that would take or rewrite rows of other tables is no way to exchange values.
    async fn spreading_delete(&mut self) -> Result<Option<Rejection>, EngineError> {
        let sql = format!(
            "SELECT conname::text FROM pg_catalog.pg_constraint \
             WHERE contype = 'f' AND confrelid = {}::oid AND confdeltype IN ('c', 'n', 'd') LIMIT 1",
            self.target.relation.oid
        );
        let rows =
            ask(self.connection, sql).await.map_err(|e| errors::engine_error(&self.target.during, &e))?;
        let Some(row) = rows.first() else { return Ok(None) };
        let name: String = get(row, 0)?;
        Ok(Some(Rejection {
            kind: RejectionKind::ForeignKey,
            reason: format!("foreign key {name} would carry the delete into another table"),
        }))
    }

    /// The rows as they are, locked; `true` where one is not what was compared.
    async fn lock_for_replacement(
        &mut self,
        kept: &[String],
    ) -> Result<(HashMap<Key, Found>, bool), EngineError> {
        let keys: Vec<&Key> = self.changes.iter().map(|change| &change.key).collect();
        let locked = lock(self.connection, &self.target, &keys, kept).await?;
        let found = locked.found;
        let conflict = !found.ambiguous.is_empty()
            || !locked.missed.is_empty()
            || self
                .changes
                .iter()
                .any(|c| found.rows.get(&c.key).map(|found| &found.row) != c.before.as_ref());
        Ok((found.rows, conflict))
    }

    /// `None` once all is done, else what stood in the way of all.
    async fn exchange(
        &mut self,
        mut found: HashMap<Key, Found>,
        kept: &[String],
        stored: &[(usize, String)],
    ) -> Result<Option<ChangeOutcome>, EngineError> {
        // The whole row is written, so the cells that did not change are needed too.
        for prepared in &mut self.prepared {
            let Some(change) = self.changes.get(prepared.at) else { continue };
            if change.after.is_some() {
                let whole = Change { key: change.key.clone(), before: None, after: change.after.clone() };
                match prepare(&self.target, prepared.at, &whole)? {
                    Ok(whole) => prepared.texts = whole.texts,
                    Err(rejection) => return Ok(Some(ChangeOutcome::Failed(rejection))),
                }
            }
            if let Some(row) = found.remove(&prepared.key) {
                if let Some(spelled) = row.spelled {
                    prepared.respell(spelled);
                }
                let mut more = row.more;
                let texts = more.split_off(kept.len().min(more.len()));
                for ((at, _), text) in stored.iter().zip(texts) {
                    if !prepared.changed.contains(at)
                        && let Some(slot) = prepared.texts.get_mut(*at)
                    {
                        *slot = text;
                    }
                }
                prepared.kept = more;
                prepared.place = row.place;
            }
        }
        let has_before = |p: &&Prepared| self.changes.get(p.at).is_some_and(|c| c.before.is_some());
        let has_after = |p: &&Prepared| self.changes.get(p.at).is_some_and(|c| c.after.is_some());
        let old: Vec<&Prepared> = self.prepared.iter().filter(has_before).collect();
        // A row that was not there has nothing to keep; its other columns take their defaults.
        let (renewed, fresh): (Vec<&Prepared>, Vec<&Prepared>) =
            self.prepared.iter().filter(has_after).partition(has_before);
        let none: &[String] = &[];
        let steps = [
            (Operation::Delete, old, none),
            (Operation::Insert, renewed, kept),
            (Operation::Insert, fresh, none),
        ];
        for (operation, rows, kept) in steps {
            if rows.is_empty() {
                continue;
            }
            let done = match operation {
                Operation::Delete => write::delete(self.connection, &self.target, &rows).await,
                _ => write::insert(self.connection, &self.target, &rows, Guard::Refusal, kept).await,
            };
            match done {
                Ok(done) if done.len() == rows.len() => {}
                Ok(_) => {
                    let reason = "a trigger, rule or policy of the database left a row as it was".to_owned();
                    let kind = RejectionKind::Other;
                    return Ok(Some(ChangeOutcome::Failed(Rejection { kind, reason })));
                }
                Err(error) => {
                    let rejection = errors::database(&error).and_then(errors::rejection);
                    return match rejection {
                        Some(rejection) => Ok(Some(ChangeOutcome::Failed(rejection))),
                        None => match errors::engine_error(&self.target.during, &error) {
                            lacking if lacking.kind == ErrorKind::Permission => {
                                let (kind, reason) = (RejectionKind::Unique, EXCHANGE_NEEDS.to_owned());
                                Ok(Some(ChangeOutcome::Failed(Rejection { kind, reason })))
                            }
                            error => Err(error),
                        },
                    };
                }
            }
        }
        let all: Vec<usize> = (0..self.prepared.len()).collect();
        let keys = self.prepared.iter().map(|prepared| prepared.key.clone()).collect();
        if let Some((_, rejection)) = self.held_otherwise(&all, &keys).await?.into_iter().next() {
            return Ok(Some(ChangeOutcome::Failed(rejection)));
        }
        if let Err(error) = self.connection.execute("SET CONSTRAINTS ALL IMMEDIATE").await {
            return match errors::database(&error).and_then(errors::rejection) {
                Some(rejection) => Ok(Some(ChangeOutcome::Failed(rejection))),
                None => Err(errors::engine_error(&self.target.during, &error)),
            };
        }
        Ok(None)
    }
}
