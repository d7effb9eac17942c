//! What is said of a row that is not, when it is read back, what was written.

use crate::model::canonical::split_cells;
use crate::model::schema::keeps_less;
use crate::model::{AccessColumn, CanonicalRow, Filled, Rejection, RejectionKind, TableAccess};

/// Why rows that exchange unique values are not written by a login that may not delete and insert.
pub(super) const EXCHANGE_NEEDS: &str =
    "rows exchange unique values, for which the login needs INSERT and DELETE on the table";

/// Why a row that was just written holds something else. Nothing of its values is told.
pub(super) fn rejection(
    access: &TableAccess,
    held: Option<&CanonicalRow>,
    after: Option<&CanonicalRow>,
) -> Rejection {
    let reason = match (held, after) {
        (Some(held), Some(after)) => {
            let cells = |row: &CanonicalRow| {
                split_cells(row.as_bytes())
                    .map(|cells| cells.into_iter().map(<[u8]>::to_vec).collect::<Vec<_>>())
            };
            let (held, after) = (cells(held).unwrap_or_default(), cells(after).unwrap_or_default());
            let at = held.iter().zip(&after).position(|(held, after)| held != after);
            match at.and_then(|at| access.row_columns().get(at)) {
                Some(column) if column.filled == Filled::Generated => {
                    format!(
                        "the database computes another value for column {} than the row is to hold",
                        column.name
                    )
                }
                Some(column) if column.as_text => {
                    format!("the type of column {} makes another text of the source's", column.name)
                }
                Some(column) if keeps_less(&column.declared) => format!(
                    "column {} keeps less of the value than the source has: it is {}",
                    column.name, column.declared
                ),
                Some(column) => format!(
                    "a trigger of the database, or the column's type, changes column {0} of the row; leave it out with --exclude {0}",
                    column.name
                ),
                None => "a trigger of the database changes the row".to_owned(),
            }
        }
        (Some(_), None) => "a trigger of the database inserts the row again".to_owned(),
        (None, _) => return lost(access),
    };
    Rejection { kind: RejectionKind::Other, reason }
}

/// Why a row that was just written is not found by its key.
pub(super) fn lost(access: &TableAccess) -> Rejection {
    let mut key = access.key_columns().iter();
    let makes_another = |column: &&AccessColumn| {
        column.as_text || column.filled == Filled::Generated || keeps_less(&column.declared)
    };
    let reason = match key.find(makes_another) {
        Some(column) => format!("the database makes another key of column {}", column.name),
        None => "a trigger of the database changes the row's key, or deletes the row".to_owned(),
    };
    Rejection { kind: RejectionKind::Other, reason }
}
