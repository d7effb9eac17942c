//! SQL text: quoting, select lists, casts, and a change as a statement for a person.

use std::fmt::Write as _;

use super::known::Shape;
use super::live::LiveColumn;
use super::{bind, exact};
use crate::engine::{EngineError, ErrorKind};
use crate::model::canonical::{decode_key, decode_row, split_cells};
use crate::model::value::uuid_text;
use crate::model::{
    AccessColumn, CanonicalRow, Change, ColumnType, ComparisonType, Filled, Operation, TableAccess,
    TableName, Value,
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

/// An operator of this schema, or of the server's own.
pub(super) fn operator(schema: Option<&str>, name: &str) -> String {
    match schema {
        Some(schema) => format!("OPERATOR({}.{name})", ident(schema)),
        None => format!("OPERATOR(pg_catalog.{name})"),
    }
}

/// A table as it is read, updated and deleted from; `only`: without the rows of tables that inherit from it.
pub(super) fn from(name: &TableName, only: bool) -> String {
    if only { format!("ONLY {}", table(name)) } else { table(name) }
}

pub(super) fn literal(text: &str) -> String {
    if text.chars().any(|c| c == '\\' || c.is_control()) {
        // The same whatever standard_conforming_strings is where it is run, and without a control character in the file.
        let mut out = String::with_capacity(text.len() + 8);
        out.push_str("E'");
        for c in text.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\'' => out.push_str("''"),
                c if c.is_control() && c.is_ascii() => {
                    let _ = write!(out, "\\x{:02x}", u32::from(c));
                }
                c if c.is_control() => {
                    let _ = write!(out, "\\u{:04x}", u32::from(c));
                }
                c => out.push(c),
            }
        }
        out.push('\'');
        out
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

/// An array whose elements are of a type that is told by its text: they are given as an array of texts, for their own
/// arrays need not part them by commas.
pub(super) fn is_array_of_named(ty: &ColumnType) -> bool {
    match ty {
        ColumnType::Array(inner) => matches!(**inner, ColumnType::Named(_)) || is_array_of_named(inner),
        _ => false,
    }
}

/// A column as it is compared: a domain as the type that it is over.
pub(super) fn stored(name: &str, domain: Option<&LiveColumn>) -> String {
    match domain {
        Some(live) => format!("{name}::{}", live.bare),
        None => name.to_owned(),
    }
}

/// The condition that only the row of this key holds, whatever its spelling; `None` where there is none to write.
fn condition(column: &AccessColumn, value: &Value, text: &str, shape: &Shape) -> Option<String> {
    let name = ident(&column.name);
    let folds = shape.folding.contains(&column.name);
    if column.as_text {
        return Some(format!("{} = {text}", select_unqualified(column)));
    }
    if exact::finds_every_spelling(column) {
        // Where the collation holds other texts equal too, their bytes tell them apart.
        let bytes = if folds { format!(" AND {name}::text COLLATE \"C\" = {text}") } else { String::new() };
        let stored = stored(&name, shape.domains.get(&column.name));
        return Some(format!("{stored} = {}{bytes}", cast_array(column, text)));
    }
    match (&column.ty, &column.comparison, value) {
        (ColumnType::Text { .. }, ComparisonType::Uuid, Value::Uuid(bytes)) => {
            let hyphened = uuid_text(bytes);
            let bare = hyphened.replace('-', "");
            let spellings =
                [format!("{{{hyphened}}}"), format!("{{{bare}}}"), hyphened, bare].map(|s| literal(&s));
            let stored = format!("lower(rtrim({name}::text, ' ') COLLATE \"C\")");
            Some(format!("{stored} IN ({})", spellings.join(", ")))
        }
        (ColumnType::Text { .. }, ComparisonType::Text { trim: true } | ComparisonType::Uuid, _) => {
            Some(format!("rtrim({name}::text, ' ') COLLATE \"C\" = {text}"))
        }
        _ => None,
    }
}

fn select_unqualified(column: &AccessColumn) -> String {
    let name = ident(&column.name);
    if column.ty == ColumnType::Named("inet".to_owned()) {
        return format!("pg_catalog.textin(pg_catalog.inet_out({name}))");
    }
    format!("{name}::text COLLATE \"C\"")
}

fn cast_array(column: &AccessColumn, text: &str) -> String {
    if !column.as_text && is_array_of_named(&column.ty) && text != "NULL" {
        return format!("{text}::text[]::{}", column.declared);
    }
    text.to_owned()
}

pub(super) fn statement(access: &TableAccess, change: &Change, shape: &Shape) -> Result<String, EngineError> {
    let during = || format!("write a change of {} as SQL", access.table);
    let key = decode_key(&access.key_types(), change.key.as_bytes()).map_err(|_| malformed(access))?;
    let written = |column: &AccessColumn, value: &Value| {
        bind::text_of(column, value)
            .map(|text| text.map_or_else(|| "NULL".to_owned(), |text| literal(&text)))
            .map_err(|rejection| EngineError::new(ErrorKind::Row, during(), rejection.reason))
    };
    let conditions = || {
        let mut all = Vec::new();
        for (column, value) in access.key_columns().iter().zip(&key) {
            let Some(one) = condition(column, value, &written(column, value)?, shape) else {
                let what = format!(
                    "key column {} ({}) may hold this key in several spellings, and no condition of SQL finds all of them",
                    column.name, column.declared
                );
                return Err(EngineError::new(ErrorKind::Row, during(), what)
                    .with_hint("let trueup write it, without --sql"));
            };
            all.push(one);
        }
        Ok(all.join(" AND "))
    };
    // The row is written while it still holds what was compared, as far as SQL can tell.
    let before = match &change.before {
        Some(before) => decode_row(&access.row_types(), before.as_bytes()).map_err(|_| malformed(access))?,
        None => Vec::new(),
    };
    let held = |at: usize| {
        let (column, value) = (access.row_columns().get(at)?, before.get(at)?);
        match written(column, value).ok()?.as_str() {
            "NULL" => Some(format!("{} IS NULL", ident(&column.name))),
            text => condition(column, value, text, shape),
        }
    };
    let (target, from) = (table(&access.table), from(&access.table, shape.only));
    let after = match &change.after {
        Some(after) => decode_row(&access.row_types(), after.as_bytes()).map_err(|_| malformed(access))?,
        None => Vec::new(),
    };
    match change.operation() {
        Operation::Delete => {
            let all: Vec<String> =
                std::iter::once(conditions()?).chain((0..before.len()).filter_map(held)).collect();
            Ok(format!("DELETE FROM {from} WHERE {};", all.join(" AND ")))
        }
        Operation::Insert => {
            let (mut names, mut values, mut identity) = (Vec::new(), Vec::new(), false);
            for (column, value) in access.columns.iter().zip(key.iter().chain(&after)) {
                if writable(column) {
                    identity |= column.filled == Filled::IdentityAlways;
                    names.push(ident(&column.name));
                    values.push(cast_array(column, &written(column, value)?));
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
            let (mut sets, mut all) = (Vec::new(), vec![conditions()?]);
            for at in changed {
                all.extend(held(at));
                let (Some(column), Some(value)) = (access.row_columns().get(at), after.get(at)) else {
                    continue;
                };
                if column.filled == Filled::ByWriter {
                    let value = cast_array(column, &written(column, value)?);
                    sets.push(format!("{} = {value}", ident(&column.name)));
                }
            }
            if sets.is_empty() {
                let what = "only columns that the database fills itself differ";
                return Err(EngineError::new(ErrorKind::Row, during(), what));
            }
            Ok(format!("UPDATE {from} SET {} WHERE {};", sets.join(", "), all.join(" AND ")))
        }
    }
}
