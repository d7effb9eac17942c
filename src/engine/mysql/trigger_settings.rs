//! Settings of the session that a trigger may change: under another time zone, what is written next is another moment, and reads
//! back as the one that was meant.

use sqlx::mysql::MySqlConnection;

use super::catalogue::texts;
use super::session::{SETTINGS, execute};
use crate::model::{Rejection, RejectionKind};

/// All that the meaning of a statement of ours depends on.
const READ: &str = "SELECT CONCAT_WS('|', @@SESSION.time_zone, @@SESSION.sql_mode, @@SESSION.character_set_client, \
    @@SESSION.character_set_connection, @@SESSION.collation_connection, @@SESSION.character_set_results, \
    @@SESSION.foreign_key_checks, @@SESSION.unique_checks, @@SESSION.sql_auto_is_null, @@SESSION.sql_select_limit, \
    @@SESSION.sql_safe_updates)";

/// The settings before the first write.
#[derive(Default)]
pub(super) struct TriggerSettings(Option<Vec<Vec<Option<String>>>>);

impl TriggerSettings {
    pub(super) async fn begin(&mut self, connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        self.0 = Some(texts(connection, READ).await?);
        Ok(())
    }

    /// Whether they are others now; they are then set back.
    pub(super) async fn have_changed(&self, connection: &mut MySqlConnection) -> Result<bool, sqlx::Error> {
        let Some(before) = &self.0 else { return Ok(false) };
        if texts(connection, READ).await? == *before {
            return Ok(false);
        }
        execute(connection, SETTINGS).await?;
        Ok(true)
    }
}

pub(super) fn rejection() -> Rejection {
    let reason = "a trigger of the database changes settings of the session (as its time zone), under which other rows would be \
                  written wrongly";
    Rejection { kind: RejectionKind::Other, reason: reason.to_owned() }
}
