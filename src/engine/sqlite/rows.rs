//! Rows by key: with the spellings that a key usually has, under an index; or by what they mean, in one pass over the table.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, Error, Row, params_from_iter};

use super::SqliteEngine;
use super::collation::Asked;
use super::errors::{database_error, engine_error, row_error, unknown_collation, words};
use super::params::{self, decoded_key, inexact_column, key_values, qualified, quote};
use super::shape::TableShape;
use super::spelling;
use super::stored::Stored;
use super::types::encode;
use crate::engine::{EngineError, ErrorKind, Lookup, RowError};
use crate::model::{AccessColumn, CanonicalRow, Change, Key, KeyedRow, RowBuffer, TableAccess};

/// `SELECT … FROM …`, without a condition.
pub(super) fn select(access: &TableAccess) -> String {
    format!("SELECT {} FROM {}", columns(access), quote(&access.table.name))
}

/// The access's columns, as they are read.
pub(super) fn columns(access: &TableAccess) -> String {
    let column = |column: &AccessColumn| {
        let name = qualified(access, &column.name);
        if column.as_text { format!("CAST({name} AS TEXT)") } else { name }
    };
    access.columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

/// Where a row is stored, whatever its key means.
#[derive(Clone, PartialEq)]
pub(super) enum Address {
    Rowid(i64),
    /// The key columns as they are stored.
    Key(Vec<Stored>),
}

pub(super) struct Found {
    pub(super) key: Key,
    pub(super) row: CanonicalRow,
    pub(super) address: Address,
}

/// What was found under an index.
pub(super) struct Search {
    pub(super) found: Vec<Found>,
    /// Keys of which every spelling that the table can hold was looked for.
    pub(super) exact: HashSet<Key>,
}

/// Reads rows of one table on one connection.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) connection: &'a Connection,
    pub(super) access: &'a TableAccess,
    pub(super) shape: &'a TableShape,
    pub(super) filter: Option<&'a str>,
    pub(super) during: &'a str,
}

impl Reading<'_> {
    fn failed(&self, error: &Error) -> EngineError {
        if self.filter.is_some() {
            engine_error(self.during, error)
        } else {
            database_error(self.during, error)
        }
    }

    /// What is read behind the access's columns: where the row is.
    fn address_columns(&self) -> String {
        match &self.shape.rowid {
            Some(rowid) => format!("{}.{rowid}", quote(&self.access.table.name)),
            None => {
                let key = self.access.key_columns().iter();
                key.map(|column| qualified(self.access, &column.name)).collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// All that is read, with the condition given and the filter; `how` stands behind the table's name.
    fn sql(&self, how: &str, condition: &str) -> String {
        let filter = self.filter.map(|filter| format!("(\n{filter}\n)"));
        let conditions: Vec<&str> =
            Some(condition).filter(|one| !one.is_empty()).into_iter().chain(filter.as_deref()).collect();
        let behind = if conditions.is_empty() { "" } else { " WHERE " };
        format!(
            "SELECT {}, {} FROM {}{how}{behind}{}",
            columns(self.access),
            self.address_columns(),
            quote(&self.access.table.name),
            conditions.join(" AND ")
        )
    }

    /// The row that the statement stands on, if it can be encoded.
    fn take(&self, row: &Row<'_>, buffer: &mut RowBuffer) -> Result<Result<Address, RowError>, EngineError> {
        buffer.clear();
        if let Err(error) = encode(self.access, |at| row.get_ref(at).ok(), buffer) {
            return Ok(Err(error));
        }
        let behind = self.access.columns.len();
        let value = |at: usize| row.get_ref(behind + at).map(Stored::of).map_err(|error| self.failed(&error));
        Ok(Ok(match self.shape.rowid {
            Some(_) => Address::Rowid(row.get(behind).map_err(|error| self.failed(&error))?),
            None => Address::Key((0..self.access.key_len).map(value).collect::<Result<_, _>>()?),
        }))
    }

    /// Looks each key up with its usual spellings. `None`: they cannot be compared without a collation that this SQLite
    /// does not know.
    pub(super) fn by_key(&self, keys: &[Key]) -> Result<Option<Search>, EngineError> {
        let failed = |error: Error| self.failed(&error);
        let (mut conditions, mut next) = (Vec::new(), 1);
        for column in self.access.key_columns() {
            let (condition, slots) = spelling::condition(column, &qualified(self.access, &column.name), next);
            conditions.push(condition);
            next += slots;
        }
        let mut statement = match self.connection.prepare_cached(&self.sql("", &conditions.join(" AND "))) {
            Ok(statement) => statement,
            Err(error) if unknown_collation(&words(&error)).is_some() => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut buffer = RowBuffer::default();
        let mut search = Search { found: Vec::new(), exact: HashSet::new() };
        for key in keys {
            let Some((bound, exact)) = self.bound(key)? else { continue };
            let mut rows = statement.query(params_from_iter(bound)).map_err(failed)?;
            while let Some(row) = rows.next().map_err(failed)? {
                let address = self.take(row, &mut buffer)?.map_err(|error| row_error(self.during, &error))?;
                // Affinities and collations may find a row whose key is another by its bytes.
                if buffer.key == key.as_bytes() {
                    let row = CanonicalRow::new(buffer.row.as_slice());
                    search.found.push(Found { key: key.clone(), row, address });
                }
            }
            if exact {
                search.exact.insert(key.clone());
            }
        }
        Ok(Some(search))
    }

    /// The values that a key is looked up with, and whether they are all that mean it. `None`: it cannot be bound.
    fn bound(&self, key: &Key) -> Result<Option<(Vec<Stored>, bool)>, EngineError> {
        let values = decoded_key(self.access, key, self.during)?;
        let (mut bound, mut exact) = (Vec::new(), self.shape.is_table);
        for (column, value) in self.access.key_columns().iter().zip(&values) {
            let found = spelling::spellings(column, value, self.shape.utf8);
            if found.values.is_empty() {
                return Ok(None);
            }
            exact &= found.complete;
            bound.extend(spelling::filled(column, found.values));
        }
        Ok(Some((bound, exact)))
    }

    /// Reads every row and keeps those of these keys, however they are spelled.
    pub(super) fn by_pass(&self, keys: &[Key]) -> Result<Vec<Found>, EngineError> {
        if self.shape.rowid.is_none() {
            let mut all = Vec::new();
            self.pass(keys, "", |key, row, address| all.push(Found { key, row, address }))?;
            return Ok(all);
        }
        // The keys alone, and then the rows of those that are meant. An index, of which one may be damaged, is not asked.
        let access = TableAccess { columns: self.access.key_columns().to_vec(), ..self.access.clone() };
        let narrow = Reading { access: &access, ..*self };
        let mut places = Vec::new();
        narrow.pass(keys, " NOT INDEXED", |_, _, address| places.push(address))?;
        let mut all = Vec::with_capacity(places.len());
        for address in places {
            let found = self.at(&address)?;
            all.extend(found.map(|(key, row)| Found { key, row, address }));
        }
        Ok(all)
    }

    fn pass(
        &self,
        keys: &[Key],
        how: &str,
        mut each: impl FnMut(Key, CanonicalRow, Address),
    ) -> Result<(), EngineError> {
        let failed = |error: Error| self.failed(&error);
        let wanted: HashMap<&[u8], &Key> = keys.iter().map(|key| (key.as_bytes(), key)).collect();
        let mut statement = self.connection.prepare(&self.sql(how, "")).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        let mut buffer = RowBuffer::default();
        while let Some(row) = rows.next().map_err(failed)? {
            // A row that has no key is none of these.
            let Ok(address) = self.take(row, &mut buffer)? else { continue };
            if let Some(key) = wanted.get(buffer.key.as_slice()) {
                each((*key).clone(), CanonicalRow::new(buffer.row.as_slice()), address);
            }
        }
        Ok(())
    }

    /// The row that is stored there.
    pub(super) fn at(&self, address: &Address) -> Result<Option<(Key, CanonicalRow)>, EngineError> {
        let failed = |error: Error| self.failed(&error);
        let (condition, bound) = self.condition(address, 1);
        let mut statement = self.connection.prepare_cached(&self.sql("", &condition)).map_err(failed)?;
        let mut rows = statement.query(params_from_iter(bound)).map_err(failed)?;
        let Some(row) = rows.next().map_err(failed)? else { return Ok(None) };
        let mut buffer = RowBuffer::default();
        self.take(row, &mut buffer)?.map_err(|error| row_error(self.during, &error))?;
        Ok(Some((Key::from(buffer.key.as_slice()), CanonicalRow::new(buffer.row))))
    }

    /// The condition of the one row that is stored there, its values bound from `?from` on.
    pub(super) fn condition(&self, address: &Address, from: usize) -> (String, Vec<Stored>) {
        match (address, &self.shape.rowid) {
            (Address::Rowid(rowid), Some(name)) => {
                let table = quote(&self.access.table.name);
                (format!("{table}.{name} = ?{from}"), vec![Stored::Integer(*rowid)])
            }
            // A rowid is only read where it has a name.
            (Address::Rowid(_), None) => ("0".to_owned(), Vec::new()),
            (Address::Key(key), _) => {
                // By the index, and then by the bytes.
                let part = |(at, column): (usize, &AccessColumn)| {
                    let (name, at) = (qualified(self.access, &column.name), from + at);
                    format!("{name} = ?{at} AND {name} = ?{at} COLLATE BINARY")
                };
                let parts: Vec<String> = self.access.key_columns().iter().enumerate().map(part).collect();
                (parts.join(" AND "), key.clone())
            }
        }
    }
}

pub(super) fn lookup(
    engine: &SqliteEngine,
    access: &TableAccess,
    keys: &[Key],
) -> Result<Lookup, EngineError> {
    let during = format!("read rows of {} by key", access.table);
    let failed = |error: Error| database_error(&during, &error);
    let connection = engine.open(false)?;
    // The table that is looked at and the one that is read are of one moment.
    connection.execute_batch("BEGIN").map_err(failed)?;
    let shape = TableShape::read(&connection, access, &during)?;
    let given = shape.ordered_by.as_deref().map(|collation| Asked::given_to(&connection, collation));
    let given = given.transpose().map_err(failed)?;
    let filter = access.filter.as_deref();
    let reading = Reading { connection: &connection, access, shape: &shape, filter, during: &during };
    let search = if given.is_some() { None } else { reading.by_key(keys)? };
    let (found, exact) = match search {
        Some(search) => (search.found, Some(search.exact)),
        None => (reading.by_pass(keys)?, None),
    };
    if let Some(given) = given {
        given.check(&during)?;
    }
    let mut known = HashSet::new();
    let rows = found
        .into_iter()
        .filter(|found| known.insert(found.key.clone()))
        .map(|found| KeyedRow { key: found.key, row: found.row })
        .collect();
    // Where every row was read, a row that was not met is not there.
    Ok(Lookup::of_statement(keys, rows, |key| exact.as_ref().is_none_or(|exact| exact.contains(key))))
}

/// The change as SQL text for a person. A row that is there is named as it is stored, where that is not known without looking.
pub(super) fn statement(
    engine: &SqliteEngine,
    access: &TableAccess,
    change: &Change,
) -> Result<String, EngineError> {
    let during = format!("write SQL for {}", access.table);
    let unspelled = |what: String| EngineError::new(ErrorKind::Row, &during, what);
    let connection = engine.open(false)?;
    let shape = TableShape { rowid: None, ..TableShape::read(&connection, access, &during)? };
    let inexact = inexact_column(access, &change.key, &during)?;
    let key = match inexact.filter(|_| change.before.is_some()) {
        Some(column) => {
            let reading =
                Reading { connection: &connection, access, shape: &shape, filter: None, during: &during };
            stored_key(&reading, &change.key)?.ok_or_else(|| {
                unspelled(format!(
                    "column {column} does not tell which row is meant: none or several spell it so"
                ))
            })?
        }
        None => key_values(access, &change.key, &during)?.map_err(|why| unspelled(why.reason))?,
    };
    params::statement(access, change, &key, shape.resolves_conflicts)
}

/// The key of a row as it is stored.
fn stored_key(reading: &Reading<'_>, key: &Key) -> Result<Option<Vec<Stored>>, EngineError> {
    if reading.shape.ordered_by.is_some() {
        return Ok(None);
    }
    let keys = std::slice::from_ref(key);
    let mut found = reading.by_key(keys)?.map(|search| search.found).unwrap_or_default();
    if found.is_empty() {
        found = reading.by_pass(keys)?;
    }
    match found.as_slice() {
        [Found { address: Address::Key(stored), .. }] => Ok(Some(stored.clone())),
        _ => Ok(None),
    }
}
