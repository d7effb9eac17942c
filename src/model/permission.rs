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
use super::schema::{Filled, TableSchema};

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
    /// Triggers fire when a row is deleted and inserted again.
    fires_on_exchange: bool,
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
            fires_on_exchange: false,
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
            fires_on_exchange: schema.fires_on_exchange,
            spreading_cells: cells.filter(|(_, column)| spreads(&column.name)).map(|(at, _)| at).collect(),
            required: required_beyond(schema, access).map(str::to_owned),
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
    /// whatever was accepted, for a delete that spreads is no way to make an update. Nor is one for which triggers fire.
    pub fn permit_exchange(&self, changes: PermittedChanges) -> Result<PermittedExchange, PermittedChanges> {
        let updates = changes.as_slice().iter().any(|change| change.operation() == Operation::Update);
        if self.deletes_spread || (self.fires_on_exchange && updates) {
            Err(changes)
        } else {
            Ok(PermittedExchange(changes))
        }
    }
}

/// A column that an insert through `access` leaves empty, and that is neither filled by the database nor may be empty: every
/// insert would be refused. `None` where that is not certain, as where a trigger may fill it.
fn required_beyond<'s>(schema: &'s TableSchema, access: &TableAccess) -> Option<&'s str> {
    if !schema.triggers.is_empty() {
        return None;
    }
    let written = |name: &str| access.columns.iter().any(|column| column.name == name);
    // A database may number the rows of a key of one column, and MySQL fills an enum with its first word.
    let numbered = |name: &str| schema.primary_key().is_some_and(|key| key.columns == [name]);
    let mut required = schema.columns.iter().filter(|column| {
        column.filled == Filled::ByWriter
            && !column.nullable
            && !column.has_default
            && !written(&column.name)
            && !numbered(&column.name)
            && !column.declared.to_ascii_lowercase().starts_with("enum")
    });
    required.next().map(|column| column.name.as_str())
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

    /// Some of them.
    #[must_use]
    pub fn part(&self, range: std::ops::Range<usize>) -> Self {
        Self(self.0.get(range).unwrap_or_default().to_vec())
    }

    /// Cuts off all behind the first `most`.
    #[must_use]
    pub fn split_off(&mut self, most: usize) -> Self {
        Self(self.0.split_off(most.min(self.0.len())))
    }
}

impl AsRef<[Change]> for PermittedChanges {
    fn as_ref(&self) -> &[Change] {
        self.as_slice()
    }
}

impl AsRef<[Change]> for PermittedExchange {
    fn as_ref(&self) -> &[Change] {
        self.as_slice()
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

#[cfg(test)]
mod tests {
    use super::super::change::CanonicalRow;
    use super::super::comparison::ComparisonType;
    use super::super::key::Key;
    use super::super::schema::{Column, ColumnType, Referrer, TableName, UniqueKey};
    use super::*;
    use crate::model::AccessColumn;

    fn schema() -> TableSchema {
        let column = |name: &str| Column {
            name: name.to_owned(),
            ty: ColumnType::Bytes,
            declared: "x".to_owned(),
            nullable: true,
            filled: Filled::ByWriter,
            has_default: false,
            collation: None,
            collation_folds: false,
        };
        TableSchema {
            table: TableName::new(None, "t"),
            is_view: false,
            columns: vec![column("id"), column("a"), column("b")],
            keys: vec![UniqueKey {
                name: "k".to_owned(),
                primary: true,
                columns: vec!["id".to_owned()],
                identifies: true,
            }],
            estimated_rows: None,
            references: Vec::new(),
            referrers: Vec::new(),
            triggers: Vec::new(),
            fires_on_exchange: false,
            notes: Vec::new(),
            identity: None,
            hidden_rows: None,
        }
    }

    fn access(names: &[&str]) -> TableAccess {
        let column = |name: &&str| AccessColumn {
            name: (*name).to_owned(),
            ty: ColumnType::Bytes,
            declared: "x".to_owned(),
            comparison: ComparisonType::Integer,
            as_text: false,
            filled: Filled::ByWriter,
        };
        TableAccess {
            table: TableName::new(None, "t"),
            columns: names.iter().map(column).collect(),
            key_len: 1,
            filter: None,
        }
    }

    /// Two cells of one byte each.
    fn row(cells: [u8; 2]) -> Option<CanonicalRow> {
        Some(CanonicalRow::new(cells.into_iter().flat_map(|cell| [3, cell]).collect::<Vec<u8>>()))
    }

    fn change(before: Option<[u8; 2]>, after: Option<[u8; 2]>) -> Change {
        Change { key: Key::from(&b"k"[..]), before: before.and_then(row), after: after.and_then(row) }
    }

    const INSERT: (Option<[u8; 2]>, Option<[u8; 2]>) = (None, Some([1, 1]));
    const DELETE: (Option<[u8; 2]>, Option<[u8; 2]>) = (Some([1, 1]), None);

    #[test]
    fn each_operation_needs_to_be_allowed() {
        let changes =
            [INSERT, (Some([1, 1]), Some([1, 2])), DELETE].map(|(before, after)| change(before, after));
        for set in 0..8u8 {
            let allow = Allow { insert: set & 1 != 0, update: set & 2 != 0, delete: set & 4 != 0 };
            let permission = Permission::new(allow, true, &schema(), &access(&["id", "a", "b"]));
            for (at, one) in changes.iter().enumerate() {
                let permitted = permission.permit(one.clone());
                assert_eq!(permitted.is_ok(), set & (1 << at) != 0, "{allow:?} {at}");
                if let Err(refused) = permitted {
                    assert_eq!(refused.refusal, Refusal::Operation(one.operation()));
                    assert_eq!(&refused.change, one);
                }
            }
            assert_eq!(permission.permit_inserts(Arc::default()).is_ok(), allow.insert);
        }
        assert!(changes.iter().all(|one| Permission::nothing().permit(one.clone()).is_err()));
    }

    #[test]
    fn what_spreads_needs_leave_and_is_never_exchanged() {
        let refers = |delete_spreads, update: &[&str]| TableSchema {
            referrers: vec![Referrer {
                table: TableName::new(None, "c"),
                delete_spreads,
                update_spreads: !update.is_empty(),
                update_columns: update.iter().map(|name| (*name).to_owned()).collect(),
            }],
            ..schema()
        };
        let of = |cascade, schema: &TableSchema| {
            Permission::new(Allow::ALL, cascade, schema, &access(&["id", "a", "b"]))
        };
        let permits = |permission: &Permission, (before, after): (Option<[u8; 2]>, Option<[u8; 2]>)| {
            permission.permit(change(before, after)).is_ok()
        };
        let deletes = refers(true, &[]);
        assert!(!permits(&of(false, &deletes), DELETE) && permits(&of(true, &deletes), DELETE));
        assert!(permits(&of(false, &deletes), INSERT));
        // Column b is referred to; whatever its case, and only where it changes.
        let updates = refers(false, &["B"]);
        for (after, spreads) in [([1, 2], true), ([2, 1], false), ([2, 2], true)] {
            let update = (Some([1, 1]), Some(after));
            assert_eq!(permits(&of(false, &updates), update), !spreads, "{after:?}");
            assert!(permits(&of(true, &updates), update));
        }
        // A row whose cells cannot be told apart is not taken for one that stays.
        let torn = Change { before: Some(CanonicalRow::new([9, 9])), ..change(None, Some([1, 1])) };
        assert!(of(false, &updates).permit(torn).is_err());
        for (cascade, schema, exchanged) in
            [(false, &deletes, false), (true, &deletes, false), (false, &updates, true)]
        {
            assert_eq!(of(cascade, schema).permit_exchange(PermittedChanges::default()).is_ok(), exchanged);
        }
    }

    #[test]
    fn an_insert_that_leaves_a_required_column_empty_is_refused() {
        let required = |alter: fn(&mut TableSchema)| {
            let mut schema = schema();
            schema.columns[2].nullable = false;
            alter(&mut schema);
            Permission::new(Allow::ALL, false, &schema, &access(&["id", "a"])).refuses(Operation::Insert)
        };
        assert_eq!(required(|_| {}), Some(Refusal::Required("b".to_owned())));
        assert_eq!(required(|schema| schema.columns[2].has_default = true), None);
        assert_eq!(required(|schema| schema.columns[2].filled = Filled::IdentityAlways), None);
        assert_eq!(required(|schema| schema.columns[2].declared = "enum('a')".to_owned()), None);
        assert_eq!(required(|schema| schema.triggers.push("fills".to_owned())), None);
        assert_eq!(required(|schema| schema.keys[0].columns = vec!["b".to_owned()]), None);
    }
}
