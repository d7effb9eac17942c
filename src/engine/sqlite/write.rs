//! One row written where it is stored, and kept only if it then holds what was meant: an affinity or a trigger may turn a
//! value into another.

use rusqlite::{Error, params_from_iter};

use super::errors::{database_error, rejection};
use super::params::{NOTHING_TO_WRITE, changed_values, key_values, quote, row_values};
use super::rows::{Address, Reading};
use super::shape::rowid_column;
use super::spelling::Affinity;
use super::stored::Stored;
use crate::engine::EngineError;
use crate::model::canonical::split_cells;
use crate::model::{
    CanonicalRow, Change, ChangeOutcome, ColumnType, Filled, Key, Operation, Rejection, RejectionKind,
};

pub(super) struct Writing<'a> {
    pub(super) reading: Reading<'a>,
}

/// A row as it was stored: every column that can be written, and its rowid where it has a name.
pub(super) struct Whole {
    names: Vec<String>,
    values: Vec<Stored>,
    rowid: Option<i64>,
}

fn failed(reason: impl Into<String>) -> Rejection {
    Rejection { kind: RejectionKind::Value, reason: reason.into() }
}

impl Writing<'_> {
    fn table(&self) -> String {
        quote(&self.reading.access.table.name)
    }

    /// Overrides what the table's constraints say of conflicts: `REPLACE` would delete other rows. Only where they say
    /// something, for it holds for the statements of triggers too.
    fn or_abort(&self) -> &'static str {
        if self.reading.shape.resolves_conflicts { " OR ABORT" } else { "" }
    }

    /// `address`: where the row is now.
    pub(super) fn write(
        &self,
        change: &Change,
        address: Option<&Address>,
    ) -> Result<ChangeOutcome, EngineError> {
        let written = match (change.operation(), address) {
            (Operation::Insert, _) => self.insert(change),
            (Operation::Update, Some(address)) => self.update(change, address),
            (Operation::Delete, Some(address)) => self.delete(address),
            // Found where `before` is, or stale.
            (Operation::Update | Operation::Delete, None) => return Ok(ChangeOutcome::Stale),
        };
        outcome(written.and_then(|()| self.check(change, address)))
    }

    fn insert(&self, change: &Change) -> Result<(), Refused> {
        let (access, during) = (self.reading.access, self.reading.during);
        let Some(after) = &change.after else { return Ok(()) };
        let key = key_values(access, &change.key, during)??;
        let row = row_values(access, after.as_bytes(), during)??;
        let pairs = access.columns.iter().zip(key.into_iter().chain(row));
        let (names, values): (Vec<String>, Vec<Stored>) = pairs
            .filter(|(column, _)| column.filled != Filled::Generated)
            .map(|(column, value)| (quote(&column.name), value))
            .unzip();
        self.insert_values(&names, values)
    }

    fn insert_values(&self, names: &[String], values: Vec<Stored>) -> Result<(), Refused> {
        let places: Vec<String> = (1..=values.len()).map(|at| format!("?{at}")).collect();
        let (or, table) = (self.or_abort(), self.table());
        let sql = format!("INSERT{or} INTO {table} ({}) VALUES ({})", names.join(", "), places.join(", "));
        self.execute(&sql, values).map(|_| ())
    }

    fn update(&self, change: &Change, address: &Address) -> Result<(), Refused> {
        let (access, during) = (self.reading.access, self.reading.during);
        let (Some(before), Some(after)) = (&change.before, &change.after) else { return Ok(()) };
        let cells = changed_values(access, before.as_bytes(), after.as_bytes(), during)??;
        let (mut sets, mut bound) = (Vec::with_capacity(cells.len()), Vec::with_capacity(cells.len()));
        for (column, value) in cells {
            bound.push(value);
            sets.push(format!("{} = ?{}", quote(&column.name), bound.len()));
        }
        if sets.is_empty() {
            return Err(Refused::Row(failed(NOTHING_TO_WRITE)));
        }
        let (condition, place) = self.reading.condition(address, bound.len() + 1);
        bound.extend(place);
        let sql =
            format!("UPDATE{} {} SET {} WHERE {condition}", self.or_abort(), self.table(), sets.join(", "));
        self.only_one(self.execute(&sql, bound)?)
    }

    fn delete(&self, address: &Address) -> Result<(), Refused> {
        let (condition, bound) = self.reading.condition(address, 1);
        let sql = format!("DELETE FROM {} WHERE {condition}", self.table());
        self.only_one(self.execute(&sql, bound)?)
    }

    fn execute(&self, sql: &str, bound: Vec<Stored>) -> Result<usize, Refused> {
        let done = self
            .reading
            .connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(params_from_iter(bound)));
        done.map_err(|error| self.refused(&error))
    }

    fn refused(&self, error: &Error) -> Refused {
        match rejection(error) {
            Some(why) => Refused::Row(why),
            None => Refused::Engine(database_error(self.reading.during, error)),
        }
    }

    /// A row that its stored key does not tell from others, or does not find again, is left alone.
    fn only_one(&self, rows: usize) -> Result<(), Refused> {
        match rows {
            1 => Ok(()),
            // A trigger may have kept the row from being written.
            0 if self.reading.shape.rowid.is_some() => Ok(()),
            _ => {
                let names: Vec<&str> =
                    self.reading.access.key_columns().iter().map(|column| column.name.as_str()).collect();
                let reason =
                    format!("the values stored in column {} do not lead to this one row", names.join(", "));
                Err(Refused::Row(failed(reason)))
            }
        }
    }

    /// Reads the row back.
    fn check(&self, change: &Change, address: Option<&Address>) -> Result<(), Refused> {
        let held = match (change.operation(), address) {
            (Operation::Insert, _) => self.inserted(&change.key)?,
            (_, Some(address)) => self.reading.at(address)?,
            (_, None) => None,
        };
        let held = match held {
            // Deleted, or moved: a column that was updated may be the rowid.
            None => self.by_key(&change.key)?,
            held => held,
        };
        match (held, &change.after) {
            (None, None) => Ok(()),
            (Some((key, row)), Some(after)) if key == change.key && row == *after => Ok(()),
            (held, after) => {
                Err(Refused::Row(failed(self.difference(change, held.as_ref(), after.as_ref()))))
            }
        }
    }

    /// The row that was inserted last; where it cannot be named so, the row of the key.
    fn inserted(&self, key: &Key) -> Result<Option<(Key, CanonicalRow)>, EngineError> {
        if self.reading.shape.rowid.is_some() {
            self.reading.at(&Address::Rowid(self.reading.connection.last_insert_rowid()))
        } else {
            self.by_key(key)
        }
    }

    fn by_key(&self, key: &Key) -> Result<Option<(Key, CanonicalRow)>, EngineError> {
        let search = self.reading.by_key(std::slice::from_ref(key))?;
        let first = search.and_then(|search| search.found.into_iter().next());
        Ok(first.map(|found| (found.key, found.row)))
    }

    fn difference(
        &self,
        change: &Change,
        held: Option<&(Key, CanonicalRow)>,
        after: Option<&CanonicalRow>,
    ) -> String {
        let access = self.reading.access;
        let (Some((key, row)), Some(after)) = (held, after) else {
            return "the database keeps the row from being written: by a trigger, or by a clause of a constraint"
                .to_owned();
        };
        let cells = (split_cells(row.as_bytes()), split_cells(after.as_bytes()));
        let column = match cells {
            _ if *key != change.key => access.key_columns().first(),
            (Ok(held), Ok(after)) => {
                let at = held.iter().zip(&after).position(|(held, after)| held != after);
                at.and_then(|at| access.row_columns().get(at))
            }
            _ => None,
        };
        let Some(column) = column else {
            return "the row would not hold the source's values".to_owned();
        };
        let name = &column.name;
        let why = format!(
            "the row would not hold the source's value of column {name}: an affinity, a trigger or a generated column changes it"
        );
        let text = matches!(column.ty, ColumnType::Text { .. }) && !column.as_text;
        if text && Affinity::of(&column.declared).makes_numbers() {
            return format!(
                "{why}; {} is a numeric type to SQLite: compare its text with --as-text {name}",
                column.declared
            );
        }
        why
    }

    /// Reads all of a row and deletes it.
    pub(super) fn take_out(
        &self,
        change: &Change,
        address: &Address,
    ) -> Result<Result<Whole, Rejection>, EngineError> {
        let taken = || {
            let whole = self.whole(address)?.ok_or_else(|| failed("the row cannot be read whole"))?;
            self.delete(address)?;
            if self.reading.at(address)?.is_some() || self.by_key(&change.key)?.is_some() {
                return Err(Refused::Row(failed("the database keeps the row from being deleted")));
            }
            Ok(whole)
        };
        match taken() {
            Ok(whole) => Ok(Ok(whole)),
            Err(Refused::Row(why)) => Ok(Err(why)),
            Err(Refused::Engine(error)) => Err(error),
        }
    }

    fn whole(&self, address: &Address) -> Result<Option<Whole>, EngineError> {
        let failed = |error: Error| database_error(self.reading.during, &error);
        let (connection, table) = (self.reading.connection, &self.reading.access.table.name);
        let mut columns =
            connection.prepare("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden = 0").map_err(failed)?;
        let names: Vec<String> =
            columns.query_map([table], |row| row.get(0)).and_then(Iterator::collect).map_err(failed)?;
        let read: Vec<String> =
            names.iter().map(|name| format!("{}.{}", quote(table), quote(name))).collect();
        let (condition, bound) = self.reading.condition(address, 1);
        let sql = format!("SELECT {} FROM {} WHERE {condition}", read.join(", "), quote(table));
        let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
        let mut rows = statement.query(params_from_iter(bound)).map_err(failed)?;
        let Some(row) = rows.next().map_err(failed)? else { return Ok(None) };
        let values = (0..names.len()).map(|at| row.get_ref(at).map(Stored::of));
        let values = values.collect::<Result<_, _>>().map_err(failed)?;
        // Where a column is the rowid, it is among the values.
        let rowid = match address {
            Address::Rowid(rowid) if rowid_column(connection, table).map_err(failed)?.is_none() => {
                Some(*rowid)
            }
            _ => None,
        };
        Ok(Some(Whole { names, values, rowid }))
    }

    /// Inserts a row that was taken out with its new values: its key as it was spelled, and what was not compared as it was.
    pub(super) fn put_back(&self, change: &Change, whole: &Whole) -> Result<ChangeOutcome, EngineError> {
        let (access, during) = (self.reading.access, self.reading.during);
        let Some(after) = &change.after else { return Ok(ChangeOutcome::Written) };
        let before = change.before.as_ref().map_or(&[][..], CanonicalRow::as_bytes);
        let cells = match changed_values(access, before, after.as_bytes(), during)? {
            Ok(cells) => cells,
            Err(why) => return Ok(ChangeOutcome::Failed(why)),
        };
        let mut values = whole.values.clone();
        for (column, value) in cells {
            if let Some(at) = whole.names.iter().position(|name| *name == column.name) {
                values[at] = value;
            }
        }
        let mut names: Vec<String> = whole.names.iter().map(|name| quote(name)).collect();
        if let (Some(rowid), Some(name)) = (whole.rowid, &self.reading.shape.rowid)
            && !names.contains(name)
        {
            names.push(name.clone());
            values.push(Stored::Integer(rowid));
        }
        let put = self.insert_values(&names, values);
        outcome(put.and_then(|()| self.check(&Change { before: None, ..change.clone() }, None)))
    }
}

/// Why a row was not written: the row's own reason, or one of all.
enum Refused {
    Row(Rejection),
    Engine(EngineError),
}

fn outcome(written: Result<(), Refused>) -> Result<ChangeOutcome, EngineError> {
    match written {
        Ok(()) => Ok(ChangeOutcome::Written),
        Err(Refused::Row(why)) => Ok(ChangeOutcome::Failed(why)),
        Err(Refused::Engine(error)) => Err(error),
    }
}

impl From<Rejection> for Refused {
    fn from(why: Rejection) -> Self {
        Self::Row(why)
    }
}

impl From<EngineError> for Refused {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}
