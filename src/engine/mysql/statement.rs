//! A change as a SQL statement for a person to read and run.

use super::params::{literal, param, quote, quoted_table};
use crate::engine::{EngineError, ErrorKind};
use crate::model::canonical::{decode_key, decode_row};
use crate::model::{AccessColumn, Change, Filled, Operation, TableAccess, Value};

pub(super) fn statement(access: &TableAccess, change: &Change) -> Result<String, EngineError> {
    let during = format!("write SQL for {}", access.table);
    let bad = |what: String| EngineError::new(ErrorKind::Row, &during, what);
    let render = |columns: &[AccessColumn], values: &[Value]| -> Result<Vec<String>, EngineError> {
        let pairs = columns.iter().zip(values);
        pairs.map(|(column, value)| Ok(literal(&param(column, value).map_err(|r| bad(r.reason))?))).collect()
    };
    let key =
        decode_key(&access.key_types(), change.key.as_bytes()).map_err(|error| bad(error.to_string()))?;
    let key = render(access.key_columns(), &key)?;
    let row = match &change.after {
        None => Vec::new(),
        Some(row) => {
            let values =
                decode_row(&access.row_types(), row.as_bytes()).map_err(|error| bad(error.to_string()))?;
            render(access.row_columns(), &values)?
        }
    };
    let table = quoted_table(&access.table);
    let equal = |columns: &[AccessColumn], values: &[String], updated: bool| -> Vec<String> {
        let pairs =
            columns.iter().zip(values).filter(|(column, _)| !updated || column.filled == Filled::ByWriter);
        pairs.map(|(column, value)| format!("{} = {value}", quote(&column.name))).collect()
    };
    let condition = equal(access.key_columns(), &key, false).join(" AND ");
    Ok(match change.operation() {
        Operation::Delete => format!("DELETE FROM {table} WHERE {condition};"),
        Operation::Update => {
            format!(
                "UPDATE {table} SET {} WHERE {condition};",
                equal(access.row_columns(), &row, true).join(", ")
            )
        }
        Operation::Insert => {
            let pairs = access
                .columns
                .iter()
                .zip(key.iter().chain(&row))
                .filter(|(column, _)| column.filled != Filled::Generated);
            let (names, values): (Vec<String>, Vec<&str>) =
                pairs.map(|(column, value)| (quote(&column.name), value.as_str())).unzip();
            format!("INSERT INTO {table} ({}) VALUES ({});", names.join(", "), values.join(", "))
        }
    })
}
