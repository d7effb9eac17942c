//! Changes as an engine takes them, for tests of the engines alone: everything is permitted.

use trueup::model::{
    Allow, Change, Permission, PermittedChanges, PermittedExchange, TableAccess, TableName, TableSchema,
};

/// A run that may do everything to a table that nothing refers to.
fn everything() -> Permission {
    let table = TableName::new(None, "t");
    let schema = TableSchema {
        table: table.clone(),
        is_view: false,
        columns: Vec::new(),
        keys: Vec::new(),
        estimated_rows: None,
        references: Vec::new(),
        referrers: Vec::new(),
        triggers: Vec::new(),
        fires_on_exchange: false,
        notes: Vec::new(),
        identity: None,
        hidden_rows: None,
    };
    let access = TableAccess { table, columns: Vec::new(), key_len: 0, filter: None };
    Permission::new(Allow::ALL, false, &schema, &access)
}

pub(crate) fn permitted(changes: &[Change]) -> PermittedChanges {
    let permission = everything();
    changes.iter().map(|change| permission.permit(change.clone()).unwrap()).collect()
}

pub(crate) fn exchange(changes: &[Change]) -> PermittedExchange {
    everything().permit_exchange(permitted(changes)).unwrap()
}
