//! Rows that are taken out and put back keep the text that is stored of what is equal in them: JSON has many texts of one
//! document, and a key many spellings.

use sqlx::AssertSqlSafe;
use sqlx::mysql::{MySqlArguments, MySqlConnection};

use super::bind::Bind;
use super::errors;
use super::session::bounded;
use super::statement::{differing, is_writable, quote, quote_table, reading};
use super::types::charset_with_gaps;
use super::wire::raw;
use super::writer::Pending;
use crate::engine::inflow::IDLE_LIMIT;
use crate::engine::{EngineError, ErrorKind};
use crate::model::{AccessColumn, Change, ColumnType, TableAccess};

/// Puts the stored texts of equal cells and of the keys into what is to be written.
pub(super) async fn keep_stored(
    connection: &mut MySqlConnection,
    access: &TableAccess,
    changes: &[Change],
    pending: &mut [Pending],
    during: &str,
) -> Result<(), EngineError> {
    for ready in pending {
        let Some(Change { before: Some(before), after: Some(after), .. }) = changes.get(ready.at) else {
            continue;
        };
        let differs = differing(before, after)
            .map_err(|error| EngineError::new(ErrorKind::Row, during, error.to_string()))?;
        let is_equal = |at: &usize| differs.get(*at) == Some(&false);
        let cells = ready.columns.iter().zip(&mut ready.row).filter(|(at, _)| is_equal(at));
        let cells = cells.filter_map(|(at, bind)| access.row_columns().get(*at).zip(Some(bind)));
        let key = access.key_columns().iter().zip(&mut ready.key).filter(|(column, _)| is_writable(column));
        let (columns, kept): (Vec<&AccessColumn>, Vec<&mut Bind>) =
            key.chain(cells).filter(|(column, _)| has_many_texts(column)).unzip();
        if columns.is_empty() {
            continue;
        }
        let read = columns.iter().map(|column| match charset_with_gaps(&column.declared) {
            Some(_) => reading(column),
            None => format!("CONVERT({} USING utf8mb4)", quote(&column.name)),
        });
        let (condition, binds) = ready.place.condition(access);
        let sql = format!(
            "SELECT {} FROM {} WHERE {condition}",
            read.collect::<Vec<_>>().join(", "),
            quote_table(&access.table)
        );
        let failed = |error: sqlx::Error| errors::database(during, &error);
        let mut arguments = MySqlArguments::default();
        for bind in binds {
            bind.push(&mut arguments).map_err(failed)?;
        }
        let asking = sqlx::query_with(AssertSqlSafe(sql), arguments).fetch_all(&mut *connection);
        let rows = bounded(IDLE_LIMIT, asking).await.map_err(failed)?;
        let [row] = rows.as_slice() else {
            return Err(EngineError::new(
                ErrorKind::Database,
                during,
                "a locked row is not found by its key",
            ));
        };
        for (at, bind) in kept.into_iter().enumerate() {
            *bind = match raw(row, at).map(|bytes| (std::str::from_utf8(bytes), bytes)) {
                None => Bind::Null,
                Some((Ok(text), _)) => Bind::Text(text.to_owned()),
                // As they are stored.
                Some((Err(_), [0xff, bytes @ ..])) => Bind::Bytes(bytes.to_owned()),
                Some((Err(_), _)) => {
                    return Err(EngineError::new(
                        ErrorKind::Row,
                        during,
                        "a stored text has bytes that are no characters, and cannot be written again",
                    ));
                }
            };
        }
    }
    Ok(())
}

/// Whether several texts of the column are one value to a comparison.
fn has_many_texts(column: &AccessColumn) -> bool {
    !column.as_text && matches!(column.ty, ColumnType::Json | ColumnType::Text { .. })
}
