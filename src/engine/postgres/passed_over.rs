//! What became of rows that a statement passed over: they are there by now, or something keeps them from being written.

use sqlx::postgres::PgConnection;

use super::fetch::{Reading, read_keys};
use super::target::Target;
use crate::engine::EngineError;
use crate::model::{Change, ChangeOutcome, Filled, Key, Rejection, RejectionKind};

pub(super) enum PassedOver {
    /// A row of the key is there.
    Found(ChangeOutcome),
    Refused(Rejection),
}

pub(super) fn suppressed() -> Rejection {
    let reason = "a trigger, rule or policy of the database left the row as it was".to_owned();
    Rejection { kind: RejectionKind::Other, reason }
}

/// A row that was to be inserted.
pub(super) async fn insert(
    connection: &mut PgConnection,
    target: &Target<'_>,
    key: &Key,
    change: &Change,
) -> Result<PassedOver, EngineError> {
    let found = read_keys(connection, target, &[key], Reading::Locked).await?;
    let unique = |reason: &str| Rejection { kind: RejectionKind::Unique, reason: reason.to_owned() };
    let is_generated = || target.access.key_columns().iter().any(|column| column.filled == Filled::Generated);
    Ok(match found.rows.get(key) {
        Some(row) if Some(&row.row) == change.after.as_ref() => PassedOver::Found(ChangeOutcome::Already),
        Some(_) => PassedOver::Found(ChangeOutcome::Stale),
        None if found.strangers > 0 => {
            PassedOver::Refused(unique("the key's collation or type holds it equal to another row's key"))
        }
        None if is_generated() => PassedOver::Refused(unique(
            "the database computes another key for the row, which another row has",
        )),
        None => PassedOver::Refused(suppressed()),
    })
}
