//! Writing changes that still hold: which rows in what order, and what becomes of those that the database refuses.

use sqlx::AssertSqlSafe;
use sqlx::mysql::{MySqlArguments, MySqlConnection};

use super::bind::Bind;
use super::keys::Asked;
use super::locate::Address;
use super::session::{bounded, execute};
use super::statement::{
    delete, delete_where, insert, is_writable, key_condition, keys_condition, update, writable,
};
use super::trigger_settings::TriggerSettings;
use super::{errors, fetch, read_back, trigger_settings};
use crate::engine::inflow::IDLE_LIMIT;
use crate::engine::{EngineError, ErrorKind};
use crate::model::{
    AccessColumn, Change, ChangeOutcome, ColumnType, Operation, Rejection, RejectionKind, TableAccess,
    fail_point,
};

/// A power of two, and groups below it are too, so that few statements are prepared; see `fetch::read_chunk`.
const ROWS_MAX: usize = 256;
const PARAMETERS_MAX: usize = 65_000;
const STATEMENT_BYTES: usize = 4 << 20;
/// A row refused for its references or a unique key may be taken once others are written; so often at most.
const ROUNDS: usize = 16;

/// How the row of a change is found.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// By the key as it is usually stored.
    Key(Vec<Bind>),
    /// By one of several spellings of the key.
    Spellings(Vec<Vec<Bind>>),
    At(Address),
}

impl Place {
    pub(super) fn condition(&self, access: &TableAccess) -> (String, Vec<&Bind>) {
        match self {
            Self::Key(key) => (key_condition(access), key.iter().collect()),
            Self::Spellings(all) => (keys_condition(access, all.len()), all.iter().flatten().collect()),
            Self::At(address) => (address.condition.clone(), address.binds.iter().collect()),
        }
    }

    fn binds(&self) -> impl Iterator<Item = &Bind> {
        let (one, many) = match self {
            Self::Key(key) => (key.as_slice(), &[][..]),
            Self::Spellings(all) => (&[][..], all.as_slice()),
            Self::At(address) => (address.binds.as_slice(), &[][..]),
        };
        one.iter().chain(many.iter().flatten())
    }
}

/// A change that still holds, with its parameters.
pub(super) struct Pending {
    pub at: usize,
    pub operation: Operation,
    /// Of the row that is there; of an insert the key that it gets.
    pub place: Place,
    /// The key's values where the row is inserted; empty else.
    pub key: Vec<Bind>,
    /// The columns behind the key that are written, by their number among those; empty for a delete.
    pub columns: Vec<usize>,
    pub row: Vec<Bind>,
}

impl Pending {
    pub(super) fn bytes(&self) -> usize {
        self.place.binds().chain(&self.key).chain(&self.row).map(Bind::len).sum()
    }

    /// Texts are written by their bytes, which may be other characters here than where they were read.
    pub(super) fn writes_stored_bytes(&self, access: &TableAccess) -> bool {
        let row = self.columns.iter().filter_map(|at| access.row_columns().get(*at)).zip(&self.row);
        let mut all = access.key_columns().iter().zip(&self.key).chain(row);
        all.any(|(column, bind)| matches!((&column.ty, bind), (ColumnType::Text { .. }, Bind::Bytes(_))))
    }
}

pub(super) struct Writer<'a> {
    pub connection: &'a mut MySqlConnection,
    pub access: &'a TableAccess,
    pub changes: &'a [Change],
    pub during: &'a str,
    pub packet_max: usize,
    /// Columns that the server would set anew in an update.
    pub kept: Vec<String>,
    /// Rows are read back after they were written.
    pub reads_back: bool,
    pub outcomes: Vec<Option<ChangeOutcome>>,
    pub settings: TriggerSettings,
}

impl Writer<'_> {
    pub(super) fn set(&mut self, at: usize, outcome: Option<ChangeOutcome>) {
        if let Some(slot) = self.outcomes.get_mut(at) {
            *slot = outcome;
        }
    }

    /// Deletes first, then updates, then inserts: each frees what the next may need. What is refused for a reference
    /// or a unique key is tried again as long as others get written.
    pub(super) async fn write_all(&mut self, pending: Vec<Pending>) -> Result<(), EngineError> {
        self.watch_settings().await.map_err(|error| errors::database(self.during, &error))?;
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

    /// All or nothing: first the deletes, then the inserts.
    pub(super) async fn exchange(&mut self, pending: &[Pending]) -> Result<(), sqlx::Error> {
        self.watch_settings().await?;
        let deleted: Vec<&Pending> = pending.iter().filter(|p| p.operation != Operation::Insert).collect();
        let inserted: Vec<&Pending> = pending.iter().filter(|p| p.operation != Operation::Delete).collect();
        for group in self.groups(&deleted) {
            self.delete(group).await?;
        }
        for group in self.groups(&inserted) {
            self.insert(group).await?;
        }
        Ok(())
    }

    /// Which of the rows that were exchanged hold something else.
    pub(super) async fn exchanged_otherwise(&mut self) -> Result<Option<Rejection>, EngineError> {
        if !self.reads_back {
            return Ok(None);
        }
        if self.have_settings_changed().await? {
            return Ok(Some(trigger_settings::rejection()));
        }
        let made: Vec<(usize, &Change)> = self.changes.iter().enumerate().collect();
        let otherwise = read_back::held_otherwise(self.connection, self.access, &made, self.during).await?;
        Ok(otherwise.into_iter().next().map(|(_, rejection)| rejection))
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
        let mut stack = vec![group.to_vec()];
        while let Some(group) = stack.pop() {
            self.savepoint("SAVEPOINT trueup_group").await?;
            let refused_before = refused.len();
            let result = match operation {
                Operation::Delete => self.delete(&group).await,
                Operation::Insert => self.insert(&group).await,
                Operation::Update => {
                    self.update(&group, refused).await?;
                    Ok(())
                }
            };
            if self.have_settings_changed().await? {
                self.savepoint("ROLLBACK TO SAVEPOINT trueup_group").await?;
                refused.truncate(refused_before);
                group.iter().for_each(|ready| self.set(ready.at, None));
                match group.as_slice() {
                    [ready] => refused.push((ready, trigger_settings::rejection())),
                    more => stack.extend(halves(more)),
                }
                continue;
            }
            let Err(error) = result else {
                if operation != Operation::Update {
                    group.iter().for_each(|ready| self.set(ready.at, Some(ChangeOutcome::Written)));
                }
                let rest = self.set_apart(group, refused).await?;
                stack.extend((!rest.is_empty()).then_some(rest));
                continue;
            };
            let Some(rejection) = errors::rejection(&error) else {
                return Err(errors::database(self.during, &error));
            };
            if let [ready] = group.as_slice() {
                match self.settled(ready, &rejection).await? {
                    Some(outcome) => self.set(ready.at, Some(outcome)),
                    None => refused.push((ready, rejection)),
                }
            } else {
                stack.extend(halves(&group));
            }
        }
        Ok(())
    }

    /// Where triggers may run.
    async fn watch_settings(&mut self) -> Result<(), sqlx::Error> {
        if self.reads_back { self.settings.begin(self.connection).await } else { Ok(()) }
    }

    pub(super) async fn have_settings_changed(&mut self) -> Result<bool, EngineError> {
        let changed = self.settings.have_changed(self.connection).await;
        changed.map_err(|error| errors::database(self.during, &error))
    }

    async fn savepoint(&mut self, sql: &str) -> Result<(), EngineError> {
        if !self.reads_back {
            return Ok(());
        }
        execute(self.connection, sql).await.map_err(|error| errors::database(self.during, &error))
    }

    /// Where rows that were just written hold something else, the group is undone, those rows are refused, and the
    /// others are given back: they are to be written again.
    async fn set_apart<'p>(
        &mut self,
        group: Vec<&'p Pending>,
        refused: &mut Vec<(&'p Pending, Rejection)>,
    ) -> Result<Vec<&'p Pending>, EngineError> {
        if !self.reads_back {
            return Ok(Vec::new());
        }
        let is_written =
            |ready: &Pending| matches!(self.outcomes.get(ready.at), Some(Some(ChangeOutcome::Written)));
        let mut written: Vec<&Pending> = group.into_iter().filter(|ready| is_written(ready)).collect();
        let changes = self.changes;
        let made: Vec<(usize, &Change)> =
            written.iter().filter_map(|ready| Some((ready.at, changes.get(ready.at)?))).collect();
        let otherwise = read_back::held_otherwise(self.connection, self.access, &made, self.during).await?;
        if otherwise.is_empty() {
            return Ok(Vec::new());
        }
        self.savepoint("ROLLBACK TO SAVEPOINT trueup_group").await?;
        written.iter().for_each(|ready| self.set(ready.at, None));
        for (at, rejection) in otherwise {
            if let Some(place) = written.iter().position(|ready| ready.at == at) {
                refused.push((written.remove(place), rejection));
            }
        }
        Ok(written)
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
        let asked = Asked::new(self.access, &change.key, self.during)?;
        let found = fetch::equal(self.connection, self.access, &asked).await?;
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
        fail_point();
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
        Ok(bounded(IDLE_LIMIT, query.execute(&mut *self.connection)).await?.rows_affected())
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
        let mut keys: Vec<&Bind> = Vec::new();
        let mut rows = 0;
        for ready in group {
            if let Place::Key(key) = &ready.place {
                keys.extend(key);
                rows += 1;
                continue;
            }
            let (condition, binds) = ready.place.condition(self.access);
            self.run(delete_where(self.access, &condition), &binds).await?;
        }
        if rows > 0 {
            self.run(delete(self.access, rows), &keys).await?;
        }
        Ok(())
    }

    async fn update<'p>(
        &mut self,
        group: &[&'p Pending],
        refused: &mut Vec<(&'p Pending, Rejection)>,
    ) -> Result<(), EngineError> {
        for ready in group {
            let columns: Vec<&AccessColumn> =
                ready.columns.iter().filter_map(|at| self.access.row_columns().get(*at)).collect();
            if columns.is_empty() {
                // Nothing but generated columns differs: the server computes them.
                let reason = "only generated columns differ, which cannot be written".to_owned();
                refused.push((ready, Rejection { kind: RejectionKind::Other, reason }));
                continue;
            }
            let (condition, found) = ready.place.condition(self.access);
            let sql = update(self.access, &columns, &self.kept, &condition);
            let binds: Vec<&Bind> = ready.row.iter().chain(found).collect();
            match self.run(sql, &binds).await {
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

/// The second half first: what is taken off the end of a stack comes in its order.
fn halves<'p>(group: &[&'p Pending]) -> [Vec<&'p Pending>; 2] {
    let (left, right) = group.split_at(group.len() / 2);
    [right.to_vec(), left.to_vec()]
}
