//! What a journal begins with: all that is needed to read its rows and to put them back.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::limits::UndoLimits;
use super::own::WholePlan;
use crate::engine::Origin;
use crate::merkle::SessionKey;
use crate::model::{Plan, TableName};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct JournalHead {
    pub(crate) run: String,
    /// Which table of which database the run wrote.
    pub(crate) origin: Origin,
    pub(crate) plan: Plan,
    /// The target's table by its own types, all columns.
    pub(crate) whole: WholePlan,
    /// What the run may change and the journal does not hold.
    pub(crate) limits: UndoLimits,
    pub(crate) digests: DigestSecret,
}

impl JournalHead {
    /// The table is another one by name: of a restored copy.
    pub(crate) fn lies_at(&mut self, table: TableName, origin: Origin) {
        self.whole.lies_at(&table);
        (self.plan.target, self.origin) = (table, origin);
    }
}

/// Keys the digests of what a run wrote. It stands in the journal alone, which is encrypted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DigestSecret([u8; 32]);

impl DigestSecret {
    pub(crate) fn of(session: &SessionKey) -> Self {
        Self(*session.expose())
    }

    pub(crate) fn session(&self) -> SessionKey {
        SessionKey::new(self.0)
    }
}

impl fmt::Debug for DigestSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestSecret(secret)")
    }
}
