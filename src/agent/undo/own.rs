//! The target's table by its own types and with all its columns: what must be kept to put a row back exactly as it was,
//! where the plan compares fewer columns, or compares them more coarsely.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::error::AgentError;
use super::head::JournalHead;
use crate::engine::Engine;
use crate::model::canonical::{DecodeError, split_cells};
use crate::model::{
    CanonicalRow, Change, Key, Plan, PlanRefusal, Role, ServerInfo, TableAccess, TableSchema, Wishes,
};

/// How rows are kept. Columns of the plan come first, in the plan's order.
#[derive(Debug, Clone)]
pub(crate) struct OwnAccess {
    own: Option<(Plan, Arc<TableAccess>)>,
    partial: bool,
}

impl OwnAccess {
    pub(crate) fn of(plan: &Plan, schema: &TableSchema, server: &ServerInfo) -> Self {
        let covered = plan.columns.len() == schema.columns.len();
        match own_plan(plan, schema, server) {
            Ok(own) if access_of(&own).columns == access_of(plan).columns => {
                Self { own: None, partial: !covered }
            }
            Ok(own) => {
                let partial = own.columns.len() < schema.columns.len();
                Self { own: Some((own.clone(), access_of(&own))), partial }
            }
            // A column that cannot be compared even with itself.
            Err(_) => Self { own: None, partial: true },
        }
    }

    pub(crate) fn read(head: &JournalHead) -> Self {
        Self { own: head.own.clone().map(|plan| (plan.clone(), access_of(&plan))), partial: head.partial }
    }

    pub(crate) fn plan(&self) -> Option<&Plan> {
        self.own.as_ref().map(|(plan, _)| plan)
    }

    pub(crate) fn access(&self) -> Option<&Arc<TableAccess>> {
        self.own.as_ref().map(|(_, access)| access)
    }

    pub(crate) fn is_partial(&self) -> bool {
        self.partial
    }

    /// The rows as they are, for each change; nothing where the plan's rows say it all.
    pub(crate) async fn fetch(
        &self,
        engine: &dyn Engine,
        changes: &[Change],
    ) -> Result<Vec<Option<CanonicalRow>>, AgentError> {
        let Some(access) = self.access() else { return Ok(vec![None; changes.len()]) };
        let keys: Vec<Key> = changes
            .iter()
            .filter(|change| change.before.is_some())
            .map(|change| change.key.clone())
            .collect();
        let mut rows = rows_of(engine, access, &keys).await?;
        Ok(changes.iter().map(|change| rows.remove(&change.key)).collect())
    }
}

pub(crate) async fn rows_of(
    engine: &dyn Engine,
    access: &Arc<TableAccess>,
    keys: &[Key],
) -> Result<BTreeMap<Key, CanonicalRow>, AgentError> {
    if keys.is_empty() {
        return Ok(BTreeMap::new());
    }
    Ok(engine.fetch(access, keys).await?.into_iter().map(|row| (row.key, row.row)).collect())
}

/// One side of a plan without the user's condition: a row is a row, whatever it was compared for.
pub(crate) fn access_of(plan: &Plan) -> Arc<TableAccess> {
    Arc::new(TableAccess { filter: None, ..plan.access(Role::Target) })
}

fn own_plan(plan: &Plan, schema: &TableSchema, server: &ServerInfo) -> Result<Plan, PlanRefusal> {
    let (key, rest) = plan.columns.split_at(plan.key_len);
    let wishes =
        Wishes { key: key.iter().map(|column| column.target.clone()).collect(), ..Wishes::default() };
    let mut own = Plan::agree((schema, server), (schema, server), &wishes)?;
    let position = |name: &str| {
        let compared = rest.iter().position(|column| column.target == name);
        compared.unwrap_or(rest.len())
    };
    if let Some(columns) = own.columns.get_mut(plan.key_len..) {
        columns.sort_by_key(|column| position(&column.target));
    }
    // The same keys: a row is found by the key that was compared.
    for (mine, theirs) in own.columns.iter_mut().zip(key) {
        *mine = theirs.clone();
    }
    own.warnings.clear();
    Ok(own)
}

/// The row to put back over the one that is there: the columns that were compared, as they were; the others, as they are.
pub(crate) fn merged(
    compared: usize,
    was: &CanonicalRow,
    is: &CanonicalRow,
) -> Result<CanonicalRow, DecodeError> {
    let (was, is) = (split_cells(was.as_bytes())?, split_cells(is.as_bytes())?);
    let cells = was.iter().take(compared).chain(is.iter().skip(compared));
    Ok(CanonicalRow::new(cells.copied().collect::<Vec<_>>().concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_were_not_compared_stay_as_they_are() {
        // NULL, and cells of one and two bytes.
        let was = CanonicalRow::new([3, b'a', 0, 3, b'x']);
        let is = CanonicalRow::new([5, b'b', b'b', 3, b'c', 0]);
        assert_eq!(merged(2, &was, &is), Ok(CanonicalRow::new([3, b'a', 0, 0])));
        assert_eq!(merged(0, &was, &is), Ok(is.clone()));
        assert_eq!(merged(3, &was, &is), Ok(was.clone()));
        assert!(merged(1, &was, &CanonicalRow::new([9])).is_err());
    }
}
