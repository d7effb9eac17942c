//! Conditional writes: lock, read again, compare, write what still holds; one transaction.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::mysql::{MySqlArguments, MySqlConnection};
use sqlx::{AssertSqlSafe, Connection as _};

use super::bind::{Bind, bind};
use super::describe::{is_generated, referrers};
use super::session::execute;
use super::statement::{delete, insert, is_writable, update, writable};
use super::{Facts, errors, fetch, texts};
use crate::engine::{EngineError, ErrorKind};
use crate::model::canonical::{decode_key, decode_row};
use crate::model::{
    CanonicalRow, Change, ChangeOutcome, Key, Operation, Rejection, RejectionKind, TableAccess,
};

/// A power of two, and groups below it are too, so that few statements are prepared; see `fetch::read_chunk`.
const ROWS_MAX: usize = 256;
const PARAMETERS_MAX: usize = 65_000;
const STATEMENT_BYTES: usize = 4 << 20;
/// A row refused for its references or a unique key may be taken once others are written; so often at most.
const ROUNDS: usize = 16;

/// A change that still holds, with its parameters.
struct Pending {
    at: usize,
    operation: Operation,
    key: Vec<Bind>,
    /// The columns behind the key that are written; empty for a delete.
    row: Vec<Bind>,
}

impl Pending {
    fn bytes(&self) -> usize {
        self.key.iter().chain(&self.row).map(Bind::len).sum()
    }
}

struct Writer<'a> {
    connection: &'a mut MySqlConnection,
    access: &'a Arc<TableAccess>,
    changes: &'a [Change],
    during: &'a str,
    packet_max: usize,
    /// Columns not compared that the server would set anew in an update.
    kept: Vec<String>,
    outcomes: Vec<Option<ChangeOutcome>>,
}

pub(super) async fn apply(
    connection: &mut MySqlConnection,
    facts: &Facts,
    access: &Arc<TableAccess>,
    changes: &[Change],
) -> Result<Vec<ChangeOutcome>, EngineError> {
    let during = format!("write {}", access.table);
    let failed = |error: sqlx::Error| errors::database(during.as_str(), &error);
    let beyond = Beyond::of(connection, facts, access).await.map_err(failed)?;
    settle_isolation(connection, facts).await.map_err(failed)?;
    // The guard rolls back when it is dropped, also where this future is.
    let mut transaction = connection.begin().await.map_err(failed)?;
    let mut writer = Writer {
        connection: &mut transaction,
        access,
        changes,
        during: &during,
        packet_max: facts.packet_max,
        kept: beyond.set_on_update,
        outcomes: vec![None; changes.len()],
    };
    let pending = writer.lock_and_compare().await?;
    writer.write_all(pending).await?;
    let outcomes = writer.outcomes;
    transaction.commit().await.map_err(failed)?;
    Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or(ChangeOutcome::Stale)).collect())
}

pub(super) async fn replace(
    connection: &mut MySqlConnection,
    facts: &Facts,
    access: &Arc<TableAccess>,
    changes: &[Change],
) -> Result<Vec<ChangeOutcome>, EngineError> {
    let during = format!("write {}", access.table);
    let failed = |error: sqlx::Error| errors::database(during.as_str(), &error);
    let refused = |kind, reason: String| {
        let rejection = Rejection { kind, reason };
        Ok(vec![ChangeOutcome::Failed(rejection); changes.len()])
    };
    let beyond = Beyond::of(connection, facts, access).await.map_err(failed)?;
    if !beyond.others.is_empty() {
        return refused(
            RejectionKind::Other,
            format!("a replaced row would lose columns that are not compared: {}", beyond.others.join(", ")),
        );
    }
    let of = [beyond.schema.as_str(), access.table.name.as_str()];
    let spreading = referrers(connection, &of).await.map_err(failed)?;
    if let Some(referrer) = spreading.iter().find(|referrer| referrer.delete_spreads) {
        return refused(
            RejectionKind::ForeignKey,
            format!("replacing a row would delete or change rows of {}", referrer.table),
        );
    }
    settle_isolation(connection, facts).await.map_err(failed)?;
    let mut transaction = connection.begin().await.map_err(failed)?;
    let mut writer = Writer {
        connection: &mut transaction,
        access,
        changes,
        during: &during,
        packet_max: facts.packet_max,
        kept: Vec::new(),
        outcomes: vec![None; changes.len()],
    };
    let pending = writer.lock_and_compare().await?;
    let unwritten = |outcome: &Option<ChangeOutcome>| !matches!(outcome, None | Some(ChangeOutcome::Written));
    if writer.outcomes.iter().any(unwritten) {
        // All or nothing: what still held goes round again with the rest.
        let whole = |outcome| match outcome {
            Some(found @ ChangeOutcome::Failed(_)) => found,
            _ => ChangeOutcome::Stale,
        };
        return Ok(writer.outcomes.into_iter().map(whole).collect());
    }
    let inserted: Vec<&Pending> = pending.iter().filter(|p| p.operation != Operation::Delete).collect();
    let deleted: Vec<&Pending> = pending.iter().filter(|p| p.operation != Operation::Insert).collect();
    let attempt = async {
        for group in writer.groups(&deleted) {
            writer.delete(group).await?;
        }
        for group in writer.groups(&inserted) {
            writer.insert(group).await?;
        }
        Ok(())
    };
    if let Err(error) = attempt.await {
        return match errors::rejection(&error) {
            Some(rejection) => refused(rejection.kind, rejection.reason),
            None => Err(failed(error)),
        };
    }
    transaction.commit().await.map_err(failed)?;
    Ok(vec![ChangeOutcome::Written; changes.len()])
}

/// READ COMMITTED locks rows and not the gaps between them, so that repairing does not get in the way of inserts; an
/// insert that comes between is found by its duplicate key. Not where the log of statements forbids it.
async fn settle_isolation(connection: &mut MySqlConnection, facts: &Facts) -> Result<(), sqlx::Error> {
    if facts.logs_statements {
        return Ok(());
    }
    execute(connection, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED").await
}

/// The table's columns that the access leaves out.
struct Beyond {
    schema: String,
    /// Those that are not generated.
    others: Vec<String>,
    set_on_update: Vec<String>,
}

impl Beyond {
    async fn of(
        connection: &mut MySqlConnection,
        facts: &Facts,
        access: &TableAccess,
    ) -> Result<Self, sqlx::Error> {
        let schema = access.table.schema.as_deref().or(facts.database.as_deref()).unwrap_or_default();
        let sql = "SELECT column_name, extra, generation_expression FROM information_schema.columns \
                   WHERE table_schema = ? AND table_name = ?";
        let rows = texts(connection, sql, &[schema, access.table.name.as_str()]).await?;
        let mut beyond = Self { schema: schema.to_owned(), others: Vec::new(), set_on_update: Vec::new() };
        for row in &rows {
            let text = |at: usize| row.get(at).and_then(Option::as_deref).unwrap_or_default();
            let compared = access.columns.iter().any(|column| column.name == text(0));
            if compared || is_generated(text(1), text(2)) {
                continue;
            }
            if text(1).to_ascii_lowercase().contains("on update") {
                beyond.set_on_update.push(text(0).to_owned());
            }
            beyond.others.push(text(0).to_owned());
        }
        Ok(beyond)
    }
}

impl Writer<'_> {
    /// Decides what is stale, what is done already and what is to be written.
    async fn lock_and_compare(&mut self) -> Result<Vec<Pending>, EngineError> {
        let keys: Vec<Key> = self.changes.iter().map(|change| change.key.clone()).collect();
        let found = fetch::by_keys(self.connection, self.access, &keys, None, " FOR UPDATE").await?;
        let current: HashMap<&[u8], &CanonicalRow> =
            found.iter().map(|row| (row.key.as_bytes(), &row.row)).collect();
        let mut seen = HashSet::new();
        let mut pending = Vec::new();
        for (at, change) in self.changes.iter().enumerate() {
            let now = current.get(change.key.as_bytes()).copied();
            let holds = now == change.before.as_ref();
            let outcome = if !seen.insert(change.key.as_bytes()) {
                Some(ChangeOutcome::Stale)
            } else if (change.before.is_some() || change.after.is_some()) && now == change.after.as_ref() {
                Some(ChangeOutcome::Written)
            } else if !holds || (change.before.is_none() && change.after.is_none()) {
                Some(ChangeOutcome::Stale)
            } else {
                match self.prepare(at, change)? {
                    Ok(ready) => {
                        pending.push(ready);
                        None
                    }
                    Err(rejection) => Some(ChangeOutcome::Failed(rejection)),
                }
            };
            self.set(at, outcome);
        }
        Ok(pending)
    }

    fn set(&mut self, at: usize, outcome: Option<ChangeOutcome>) {
        if let Some(slot) = self.outcomes.get_mut(at) {
            *slot = outcome;
        }
    }

    fn prepare(&self, at: usize, change: &Change) -> Result<Result<Pending, Rejection>, EngineError> {
        let malformed = |error: crate::model::canonical::DecodeError| {
            EngineError::new(ErrorKind::Row, self.during, error.to_string())
        };
        let key = decode_key(&self.access.key_types(), change.key.as_bytes()).map_err(malformed)?;
        let row = match &change.after {
            Some(after) => decode_row(&self.access.row_types(), after.as_bytes()).map_err(malformed)?,
            None => Vec::new(),
        };
        let bound = || {
            let key = self.access.key_columns().iter().zip(&key).map(|(column, value)| bind(column, value));
            let row = self
                .access
                .row_columns()
                .iter()
                .zip(&row)
                .filter(|(column, _)| is_writable(column))
                .map(|(column, value)| bind(column, value));
            Ok(Pending {
                at,
                operation: change.operation(),
                key: key.collect::<Result<_, String>>()?,
                row: row.collect::<Result<_, String>>()?,
            })
        };
        Ok(match bound() {
            Err(reason) => Err(Rejection { kind: RejectionKind::Value, reason }),
            Ok(ready) if ready.bytes() + 4096 > self.packet_max => Err(Rejection {
                kind: RejectionKind::Value,
                reason: "the row is larger than the server's max_allowed_packet".to_owned(),
            }),
            Ok(ready) => Ok(ready),
        })
    }

    /// Deletes first, then updates, then inserts: each frees what the next may need. What is refused for a reference
    /// or a unique key is tried again as long as others get written.
    async fn write_all(&mut self, pending: Vec<Pending>) -> Result<(), EngineError> {
        let mut left: Vec<&Pending> = pending.iter().collect();
        for round in 0..ROUNDS {
            let before = left.len();
            if round > 0 {
                // Rows that refer to rows after them are found in one pass the other way.
                left.sort_by_key(|ready| ready.at);
                if round % 2 == 1 {
                    left.reverse();
                }
            }
            let mut refused: Vec<(&Pending, Rejection)> = Vec::new();
            for operation in [Operation::Delete, Operation::Update, Operation::Insert] {
                let of: Vec<&Pending> = left.iter().copied().filter(|p| p.operation == operation).collect();
                for group in self.groups(&of) {
                    self.write_or_halve(operation, group, &mut refused).await?;
                }
            }
            left.clear();
            let progress = refused.len() < before;
            for (ready, rejection) in refused {
                if progress && matches!(rejection.kind, RejectionKind::Unique | RejectionKind::ForeignKey) {
                    left.push(ready);
                }
                self.set(ready.at, Some(ChangeOutcome::Failed(rejection)));
            }
            if left.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Groups that one statement holds.
    fn groups<'p, 'q>(&self, pending: &'q [&'p Pending]) -> Vec<&'q [&'p Pending]> {
        let columns = writable(self.access).count().max(self.access.key_len).max(1);
        let rows = fetch::largest_power(ROWS_MAX.min(PARAMETERS_MAX / columns));
        let most = STATEMENT_BYTES.min(self.packet_max / 2);
        let mut groups = Vec::new();
        let mut rest = pending;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(rows).take_while(|ready| {
                bytes += ready.bytes();
                bytes <= most
            });
            // One row alone may be larger: it is below the server's limit.
            let (group, others) = rest.split_at(fetch::largest_power(fits.count()));
            groups.push(group);
            rest = others;
        }
        groups
    }

    /// A statement that fails leaves nothing behind (InnoDB undoes it), so a group that holds a bad row is halved
    /// until the row stands alone.
    async fn write_or_halve<'p>(
        &mut self,
        operation: Operation,
        group: &[&'p Pending],
        refused: &mut Vec<(&'p Pending, Rejection)>,
    ) -> Result<(), EngineError> {
        let mut stack = vec![group];
        while let Some(group) = stack.pop() {
            let result = match operation {
                Operation::Delete => self.delete(group).await,
                Operation::Insert => self.insert(group).await,
                Operation::Update => {
                    self.update(group, refused).await?;
                    continue;
                }
            };
            let Err(error) = result else {
                for ready in group {
                    self.set(ready.at, Some(ChangeOutcome::Written));
                }
                continue;
            };
            let Some(rejection) = errors::rejection(&error) else {
                return Err(errors::database(self.during, &error));
            };
            if let [ready] = group {
                match self.settled(ready, &rejection).await? {
                    Some(outcome) => self.set(ready.at, Some(outcome)),
                    None => refused.push((ready, rejection)),
                }
            } else {
                let (left, right) = group.split_at(group.len() / 2);
                stack.push(right);
                stack.push(left);
            }
        }
        Ok(())
    }

    /// An insert that a unique key refused: was it the row's own key?
    async fn settled(
        &mut self,
        ready: &Pending,
        rejection: &Rejection,
    ) -> Result<Option<ChangeOutcome>, EngineError> {
        if ready.operation != Operation::Insert || rejection.kind != RejectionKind::Unique {
            return Ok(None);
        }
        let Some(change) = self.changes.get(ready.at) else { return Ok(None) };
        let keys = std::slice::from_ref(&change.key);
        let found = fetch::by_keys(self.connection, self.access, keys, None, " FOR UPDATE").await?;
        if found.iter().any(|row| row.key == change.key) {
            return Ok(Some(ChangeOutcome::Stale));
        }
        Ok((!found.is_empty()).then(|| {
            let reason = "another row's key is equal to it under the column's collation".to_owned();
            ChangeOutcome::Failed(Rejection { kind: RejectionKind::Unique, reason })
        }))
    }

    async fn run(&mut self, sql: String, binds: &[&Bind]) -> Result<u64, sqlx::Error> {
        let mut arguments = MySqlArguments::default();
        for value in binds {
            value.push(&mut arguments)?;
        }
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
        Ok(query.execute(&mut *self.connection).await?.rows_affected())
    }

    async fn insert(&mut self, group: &[&Pending]) -> Result<(), sqlx::Error> {
        let sql = insert(self.access, group.len());
        let keys: Vec<bool> = self.access.key_columns().iter().map(is_writable).collect();
        let binds: Vec<&Bind> = group
            .iter()
            .flat_map(|ready| {
                let key =
                    ready.key.iter().zip(&keys).filter(|(_, written)| **written).map(|(value, _)| value);
                key.chain(&ready.row)
            })
            .collect();
        self.run(sql, &binds).await.map(drop)
    }

    /// Rows that a cascade took in the meantime count as deleted.
    async fn delete(&mut self, group: &[&Pending]) -> Result<(), sqlx::Error> {
        let sql = delete(self.access, group.len());
        let binds: Vec<&Bind> = group.iter().flat_map(|ready| &ready.key).collect();
        self.run(sql, &binds).await.map(drop)
    }

    async fn update<'p>(
        &mut self,
        group: &[&'p Pending],
        refused: &mut Vec<(&'p Pending, Rejection)>,
    ) -> Result<(), EngineError> {
        let Some(sql) = update(self.access, &self.kept) else {
            // Nothing but generated columns differs: the server computes them.
            let reason = "only generated columns differ, which cannot be written".to_owned();
            let rejection = Rejection { kind: RejectionKind::Other, reason };
            refused.extend(group.iter().map(|ready| (*ready, rejection.clone())));
            return Ok(());
        };
        for ready in group {
            let binds: Vec<&Bind> = ready.row.iter().chain(&ready.key).collect();
            match self.run(sql.clone(), &binds).await {
                Ok(1) => self.set(ready.at, Some(ChangeOutcome::Written)),
                Ok(0) => self.set(ready.at, Some(ChangeOutcome::Stale)),
                Ok(_) => {
                    return Err(EngineError::new(
                        ErrorKind::Database,
                        self.during,
                        "a key that should be unique holds several rows",
                    ));
                }
                Err(error) => match errors::rejection(&error) {
                    Some(rejection) => refused.push((ready, rejection)),
                    None => return Err(errors::database(self.during, &error)),
                },
            }
        }
        Ok(())
    }
}
