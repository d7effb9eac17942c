//! Changes as texts for their columns, and what the row that is there decides of them.

use super::statement::changed_cells;
use super::target::Target;
use super::write::Prepared;
use crate::engine::{EngineError, ErrorKind};
use crate::model::canonical::{decode_key, decode_row};
use crate::model::{CanonicalRow, Change, ChangeOutcome, Filled, Operation, Rejection, RejectionKind};

/// The fate that the row which is there decides; `None` where the change may go on. A row that is as it is to be needs no write.
pub(super) fn judge(change: &Change, row: Option<&CanonicalRow>) -> Option<ChangeOutcome> {
    match (row, change.operation()) {
        (None, Operation::Insert) => None,
        (None, Operation::Delete) => Some(ChangeOutcome::Already),
        (None, _) => Some(ChangeOutcome::Stale),
        (Some(row), _) if Some(row) == change.before.as_ref() => None,
        (Some(row), _) if Some(row) == change.after.as_ref() => Some(ChangeOutcome::Already),
        (Some(_), _) => Some(ChangeOutcome::Stale),
    }
}

/// The change as texts for its columns, or why the table cannot hold it.
pub(super) fn prepare(
    target: &Target<'_>,
    at: usize,
    change: &Change,
) -> Result<Result<Prepared, Rejection>, EngineError> {
    let access = target.access;
    let malformed =
        || EngineError::new(ErrorKind::Row, target.during.clone(), "a change's bytes do not fit the plan");
    let key = decode_key(&target.key_types, change.key.as_bytes()).map_err(|_| malformed())?;
    let mut values = key;
    if let Some(after) = &change.after {
        values.extend(decode_row(&target.row_types, after.as_bytes()).map_err(|_| malformed())?);
    }
    let operation = change.operation();
    let changed = match (&change.before, &change.after) {
        (Some(before), Some(after)) => changed_cells(before, after)
            .ok_or_else(malformed)?
            .into_iter()
            .map(|at| at + access.key_len)
            .collect(),
        _ => Vec::new(),
    };
    let mut prepared = Prepared {
        at,
        key: change.key.clone(),
        operation,
        texts: Vec::new(),
        changed,
        kept: Vec::new(),
        place: None,
    };
    for (place, (column, value)) in access.columns.iter().zip(&values).enumerate() {
        let written = match operation {
            Operation::Insert => column.filled != Filled::Generated,
            Operation::Update => place < access.key_len || prepared.changed.contains(&place),
            Operation::Delete => true,
        };
        prepared.texts.push(if written {
            match target.text_of(column, value) {
                Ok(text) => text,
                // A row that is there may have a place, if not a key that can be said.
                Err(_) if place < access.key_len && operation != Operation::Insert => None,
                Err(rejection) => return Ok(Err(rejection)),
            }
        } else {
            None
        });
    }
    if operation == Operation::Update {
        let filled = |at: &usize| access.columns.get(*at).is_some_and(|c| c.filled == Filled::ByWriter);
        let own: Vec<String> = prepared
            .changed
            .iter()
            .filter(|at| !filled(at))
            .filter_map(|at| access.columns.get(*at).map(|c| c.name.clone()))
            .collect();
        prepared.changed.retain(|at| filled(at));
        if prepared.changed.is_empty() {
            let reason = if own.is_empty() {
                "the change changes nothing".to_owned()
            } else {
                format!("column {} is filled by the database and cannot be updated", own.join(", "))
            };
            return Ok(Err(Rejection { kind: RejectionKind::Other, reason }));
        }
    }
    Ok(Ok(prepared))
}

impl Prepared {
    /// Whether its key can be said to the table.
    pub(super) fn has_key_texts(&self, target: &Target<'_>) -> bool {
        self.texts.iter().take(target.access.key_len).all(Option::is_some)
    }

    /// Takes the key's texts as they are stored.
    pub(super) fn respell(&mut self, spelled: Vec<Option<String>>) {
        for (text, stored) in self.texts.iter_mut().zip(spelled) {
            if stored.is_some() {
                *text = stored;
            }
        }
    }
}
