//! SQL text: quoting, select lists, casts, and a change as a statement for a person.

use super::bind;
use crate::engine::{EngineError, ErrorKind};
use crate::model::canonical::{decode_key, decode_row, split_cells};
use crate::model::{
    AccessColumn, CanonicalRow, Change, ColumnType, Filled, Operation, TableAccess, TableName, Value,
};

pub(super) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn table(name: &TableName) -> String {
    match &name.schema {
        Some(schema) => format!("{}.{}", ident(schema), ident(&name.name)),
        None => ident(&name.name),
    }
}

pub(super) fn literal(text: &str) -> String {
    if text.contains('\\') {
        // The same whatever standard_conforming_strings is where it is run.
        format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// How a column is read: as it is where its binary form is decoded, else as text.
pub(super) fn select(alias: &str, column: &AccessColumn) -> String {
    let name = format!("{alias}.{}", ident(&column.name));
    // A cast to text adds /32 to a host's address; its output function does not, and neither do other engines.
    if column.ty == ColumnType::Named("inet".to_owned()) {
        return format!("pg_catalog.textin(pg_catalog.inet_out({name}))");
    }
    if column.as_text {
        return format!("{name}::text");
    }
    match read_cast(&column.ty, &column.declared) {
        Some(cast) => format!("{name}::{cast}"),
        None => name,
    }
}

fn read_cast(ty: &ColumnType, declared: &str) -> Option<String> {
    match ty {
        ColumnType::Named(_) => Some("text".to_owned()),
        // Its binary form is one raw byte, which need not be a character.
        ColumnType::Text { .. } if declared == "\"char\"" => Some("text".to_owned()),
        // money and domains over it; for numeric itself the cast is nothing.
        ColumnType::Decimal { .. } if !declared.starts_with("numeric") => Some("numeric".to_owned()),
        ColumnType::Array(inner) => {
            read_cast(inner, declared.strip_suffix("[]").unwrap_or(declared)).map(|cast| format!("{cast}[]"))
        }
        _ => None,
    }
}

/// The select list of an access, in its column order.
pub(super) fn select_list(alias: &str, access: &TableAccess) -> String {
    access.columns.iter().map(|column| select(alias, column)).collect::<Vec<_>>().join(", ")
}

/// The user's condition, closed off so that nothing behind it is swallowed by a comment in it.
pub(super) fn filter(access: &TableAccess) -> Option<String> {
    access.filter.as_ref().map(|filter| format!("({filter}\n)"))
}

fn malformed(access: &TableAccess) -> EngineError {
    EngineError::new(
        ErrorKind::Row,
        format!("write a change of {} as SQL", access.table),
        "the change's bytes do not fit the plan",
    )
}

/// The columns that a statement writes.
pub(super) fn writable(column: &AccessColumn) -> bool {
    column.filled != Filled::Generated
}

/// The cells of `after` that differ from `before`, as indexes into the row columns.
pub(super) fn changed_cells(before: &CanonicalRow, after: &CanonicalRow) -> Option<Vec<usize>> {
    let (before, after) = (split_cells(before.as_bytes()).ok()?, split_cells(after.as_bytes()).ok()?);
    if before.len() != after.len() {
        return None;
    }
    Some((0..after.len()).filter(|at| before.get(*at) != after.get(*at)).collect())
}

pub(super) fn statement(access: &TableAccess, change: &Change) -> Result<String, EngineError> {
    let key = decode_key(&access.key_types(), change.key.as_bytes()).map_err(|_| malformed(access))?;
    let written = |column: &AccessColumn, value: &Value| {
        bind::text_of(column, value)
            .map(|text| text.map_or_else(|| "NULL".to_owned(), |text| literal(&text)))
            .map_err(|rejection| {
                EngineError::new(
                    ErrorKind::Row,
                    format!("write a change of {} as SQL", access.table),
                    rejection.reason,
                )
            })
    };
    let mut conditions = Vec::new();
    for (column, value) in access.key_columns().iter().zip(&key) {
        conditions.push(format!("{} = {}", ident(&column.name), written(column, value)?));
    }
    let conditions = conditions.join(" AND ");
    let target = table(&access.table);
    let after = match &change.after {
        Some(after) => decode_row(&access.row_types(), after.as_bytes()).map_err(|_| malformed(access))?,
        None => Vec::new(),
    };
    match change.operation() {
        Operation::Delete => Ok(format!("DELETE FROM {target} WHERE {conditions};")),
        Operation::Insert => {
            let (mut names, mut values, mut identity) = (Vec::new(), Vec::new(), false);
            for (column, value) in access.columns.iter().zip(key.iter().chain(&after)) {
                if writable(column) {
                    identity |= column.filled == Filled::IdentityAlways;
                    names.push(ident(&column.name));
                    values.push(written(column, value)?);
                }
            }
            let overriding = if identity { " OVERRIDING SYSTEM VALUE" } else { "" };
            Ok(format!(
                "INSERT INTO {target} ({}){overriding} VALUES ({});",
                names.join(", "),
                values.join(", ")
            ))
        }
        Operation::Update => {
            let changed = match (&change.before, &change.after) {
                (Some(before), Some(after)) => {
                    changed_cells(before, after).ok_or_else(|| malformed(access))?
                }
                _ => Vec::new(),
            };
            let mut sets = Vec::new();
            for at in changed {
                let (Some(column), Some(value)) = (access.row_columns().get(at), after.get(at)) else {
                    continue;
                };
                if column.filled == Filled::ByWriter {
                    sets.push(format!("{} = {}", ident(&column.name), written(column, value)?));
                }
            }
            if sets.is_empty() {
                return Ok(format!("-- {target}: only columns that the database fills itself differ;"));
            }
            Ok(format!("UPDATE {target} SET {} WHERE {conditions};", sets.join(", ")))
        }
    }
}
