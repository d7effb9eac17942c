//! What two schemas say of whether their columns can be compared, and rows told apart.

use super::schema::{Column, EngineKind, ServerInfo, TableSchema};

/// MySQL's SETs, whose text has the labels in the order in which they are declared: where that differs, it must mean nothing.
pub(super) fn are_sets_of_other_orders(
    source: (&Column, &ServerInfo),
    target: (&Column, &ServerInfo),
) -> bool {
    let labels = |(column, server): (&Column, &ServerInfo)| {
        let (word, labels) = column.declared.split_at_checked(4)?;
        let is_set = server.engine == EngineKind::MySql && word.eq_ignore_ascii_case("set(");
        is_set.then(|| labels.rsplit_once(')').map_or(labels, |(labels, _)| labels).to_owned())
    };
    labels(source).zip(labels(target)).is_some_and(|(source, target)| source != target)
}

/// The columns, in any order, are exactly a unique key without NULLs.
pub(super) fn identifies(schema: &TableSchema, columns: &[String]) -> bool {
    schema.keys.iter().any(|key| {
        key.identifies
            && key.columns.len() == columns.len()
            && key.columns.iter().all(|c| columns.contains(c))
    })
}
