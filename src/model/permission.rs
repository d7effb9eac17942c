//! What may be written: the one place that decides whether a change is allowed.
//!
//! An engine takes only what came out of a [`Permission`]: [`PermittedChanges`], [`PermittedInserts`], or a
//! [`PermittedExchange`]. Their fields are private, so that no path to a write can leave the question out.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::access::TableAccess;
use super::canonical::split_cells;
use super::change::{Change, Operation};
use super::row_run::RowRun;
use super::schema::TableSchema;

/// Which operations a repair may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allow {
    pub insert: bool,
    pub update: bool,
    pub delete: bool,
}

impl Allow {
    pub const ALL: Self = Self { insert: true, update: true, delete: true };
    pub const NOTHING: Self = Self { insert: false, update: false, delete: false };

    fn operation(self, operation: Operation) -> bool {
        match operation {
            Operation::Insert => self.insert,
            Operation::Update => self.update,
            Operation::Delete => self.delete,
        }
    }
}

/// What a run may do to the rows of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    allow: Allow,
    /// Changes may spread to other tables by their foreign keys.
    cascade: bool,
    /// A delete here deletes or rewrites rows of other tables.
    deletes_spread: bool,
    /// Cells of a row, by their place, whose update rewrites rows of other tables.
    spreading_cells: Vec<usize>,
    /// A column that an insert leaves empty and that cannot be empty.
    required: Option<String>,
}

/// Why a change may not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The run may not use this operation.
    Operation(Operation),
    /// It would delete or change rows of other tables.
    Spreads(Operation),
    /// This column is not compared, has no default, and cannot be NULL: every insert would be refused.
    Required(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operation(operation) => write!(f, "{} is not allowed", operation.as_str()),
            Self::Spreads(Operation::Delete) => {
                f.write_str("deleting it would delete or change rows of other tables: --allow-cascade")
            }
            Self::Spreads(_) => f.write_str("writing it would change rows of other tables: --allow-cascade"),
            Self::Required(column) => write!(f, "column {column} is not compared and has no default"),
        }
    }
}

impl Permission {
    /// For a run that writes nothing.
    pub fn nothing() -> Self {
        Self {
            allow: Allow::NOTHING,
            cascade: false,
            deletes_spread: false,
            spreading_cells: Vec::new(),
            required: None,
        }
    }

    /// To write through `access` into the table that `schema` describes. `cascade`: changes may spread to other tables.
    pub fn new(allow: Allow, cascade: bool, schema: &TableSchema, access: &TableAccess) -> Self {
        let spreads = |name: &str| {
            schema.referrers.iter().any(|referrer| {
                referrer.update_columns.iter().any(|column| column.eq_ignore_ascii_case(name))
            })
        };
        let cells = access.row_columns().iter().enumerate();
        Self {
            allow,
            cascade,
            deletes_spread: schema.referrers.iter().any(|referrer| referrer.delete_spreads),
            spreading_cells: cells.filter(|(_, column)| spreads(&column.name)).map(|(at, _)| at).collect(),
            required: schema.required_beyond(access).map(str::to_owned),
        }
    }

    /// The change, where it may be made. An update that rewrites rows of other tables by a foreign key counts as that.
    pub fn permit(&self, change: Change) -> Result<Permitted, Refused> {
        match self.refusal(&change) {
            None => Ok(Permitted(change)),
            Some(refusal) => Err(Refused { refusal, change }),
        }
    }

    /// Rows that are all inserted.
    pub fn permit_inserts(&self, rows: Arc<RowRun>) -> Result<PermittedInserts, Refusal> {
        self.refuses(Operation::Insert).map_or(Ok(PermittedInserts(rows)), Err)
    }

    /// Why no row may be written by this operation, whatever row it is.
    pub fn refuses(&self, operation: Operation) -> Option<Refusal> {
        if !self.allow.operation(operation) {
            return Some(Refusal::Operation(operation));
        }
        match operation {
            Operation::Insert => self.required.clone().map(Refusal::Required),
            Operation::Delete if self.deletes_spread && !self.cascade => Some(Refusal::Spreads(operation)),
            Operation::Update | Operation::Delete => None,
        }
    }

    fn refusal(&self, change: &Change) -> Option<Refusal> {
        let operation = change.operation();
        let spreads = operation == Operation::Update && !self.cascade && self.update_spreads(change);
        self.refuses(operation).or_else(|| spreads.then_some(Refusal::Spreads(operation)))
    }

    fn update_spreads(&self, change: &Change) -> bool {
        if self.spreading_cells.is_empty() {
            return false;
        }
        let cells = |row: &Option<super::change::CanonicalRow>| {
            row.as_ref().and_then(|row| {
                split_cells(row.as_bytes()).ok().map(|cells| {
                    let cell = |at: &usize| cells.get(*at).map(|cell| cell.to_vec());
                    self.spreading_cells.iter().map(cell).collect::<Vec<_>>()
                })
            })
        };
        match (cells(&change.before), cells(&change.after)) {
            (Some(before), Some(after)) => before != after,
            // A row that cannot be read is no row of which that could be excluded.
            _ => true,
        }
    }

    /// The changes as one exchange of rows, which deletes each row and inserts it again: only where no delete spreads,
    /// whatever was accepted, for a delete that spreads is no way to make an update.
    pub fn permit_exchange(&self, changes: PermittedChanges) -> Result<PermittedExchange, PermittedChanges> {
        if self.deletes_spread { Err(changes) } else { Ok(PermittedExchange(changes)) }
    }
}

/// A change that may not be made, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub refusal: Refusal,
    pub change: Change,
}

/// A change that may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permitted(Change);

impl Permitted {
    pub fn change(&self) -> &Change {
        &self.0
    }
}

/// Changes that may be made, each conditional on the row that it was decided for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PermittedChanges(Vec<Change>);

impl PermittedChanges {
    pub fn as_slice(&self) -> &[Change] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn push(&mut self, change: Permitted) {
        self.0.push(change.0);
    }

    /// Cuts off all behind the first `most`.
    #[must_use]
    pub fn split_off(&mut self, most: usize) -> Self {
        Self(self.0.split_off(most.min(self.0.len())))
    }
}

impl FromIterator<Permitted> for PermittedChanges {
    fn from_iter<I: IntoIterator<Item = Permitted>>(changes: I) -> Self {
        Self(changes.into_iter().map(|change| change.0).collect())
    }
}

/// Rows that may be inserted.
#[derive(Debug, Clone)]
pub struct PermittedInserts(Arc<RowRun>);

impl PermittedInserts {
    pub fn rows(&self) -> &RowRun {
        &self.0
    }

    /// As changes that insert each of them.
    pub fn changes(&self) -> PermittedChanges {
        PermittedChanges(self.0.inserts())
    }
}

/// Changes that may be made by deleting and inserting their rows.
#[derive(Debug, Clone)]
pub struct PermittedExchange(PermittedChanges);

impl PermittedExchange {
    pub fn as_slice(&self) -> &[Change] {
        self.0.as_slice()
    }
}
