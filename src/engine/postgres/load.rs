//! Many inserts at once by COPY: a fraction of the work of arrays of texts, for both sides.
//!
//! COPY knows no `ON CONFLICT` and returns no keys. It is tried where every row that it counts is a row as it was sent, in a
//! transaction of its own; what it refuses is inserted the other way, which finds out which rows those are.

use std::collections::HashSet;

use sqlx::postgres::PgConnection;
use sqlx::{Executor, Row};

use super::binary::Receive;
use super::fetch::{BY_INDEX, Reading, read_keys};
use super::session::ask;
use super::statement::{ident, writable};
use super::target::Target;
use super::{PgEngine, bind, errors, meaning, read_back, run};
use crate::engine::{EngineError, ErrorKind, LockWait};
use crate::model::canonical::{decode_key, decode_key_into, decode_row, split_cells_into};
use crate::model::schema::keeps_less;
use crate::model::{AccessColumn, Filled, Key, RowRun, TableAccess, fail_point};

/// Fewer rows are not worth the questions.
const ROWS_MIN: usize = 64;
/// Bytes that are handed to the connection at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Before the first row in the binary form: a signature, no flags, no extension.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// Inserts all these rows, or none of them: `false`, where this is no way for them or the database refuses it.
pub(super) async fn load(
    engine: &PgEngine,
    connection: &mut PgConnection,
    access: &TableAccess,
    rows: &RowRun,
    wait: LockWait,
) -> Result<bool, EngineError> {
    if rows.len() < ROWS_MIN {
        return Ok(false);
    }
    let during = format!("write {}", access.table);
    run(connection, &during, &engine.begin_writing(wait)).await?;
    let target = Target::load(engine, connection, access, during).await?;
    let may_differ = read_back::may_differ(connection, &target).await?;
    let loaded = takes(connection, &target).await? && !holds_any(connection, &target, rows).await? && {
        engine.paths.set(connection, &target.during, target.relation.oid).await?;
        match copy(connection, &target, rows).await? {
            Ok(count) => usize::try_from(count) == Ok(rows.len()),
            Err(error) if refused(&error) => false,
            Err(error) => return Err(errors::engine_error(&target.during, &error)),
        }
    };
    if !loaded {
        run(connection, &target.during, "ROLLBACK").await?;
        return Ok(false);
    }
    if let Err(error) = connection.execute("SET CONSTRAINTS ALL IMMEDIATE").await {
        if refused(&error) {
            run(connection, &target.during, "ROLLBACK").await?;
            return Ok(false);
        }
        return Err(errors::engine_error(&target.during, &error));
    }
    // A row that a trigger made another is set aside by the other way, which writes the rest.
    if may_differ && !holds_all(connection, &target, rows).await? {
        run(connection, &target.during, "ROLLBACK").await?;
        return Ok(false);
    }
    fail_point();
    run(connection, &target.during, "COMMIT").await?;
    fail_point();
    Ok(true)
}

/// The database says no to a row, or to COPY into this table.
fn refused(error: &sqlx::Error) -> bool {
    errors::database(error)
        .is_some_and(|db| errors::rejection(db).is_some() || matches!(db.code(), "0A000" | "22P03" | "42809"))
}

/// Whether a row with one of these keys is there in another spelling, which no constraint would say.
async fn holds_any(
    connection: &mut PgConnection,
    target: &Target<'_>,
    rows: &RowRun,
) -> Result<bool, EngineError> {
    if target.loose.is_none() {
        return Ok(false);
    }
    let keys: HashSet<Key> = rows.iter().map(|(key, _)| Key::from(key)).collect();
    Ok(!meaning::find(connection, target, &keys).await?.is_empty())
}

/// Whether the table holds the rows as they were sent, by now.
async fn holds_all(
    connection: &mut PgConnection,
    target: &Target<'_>,
    rows: &RowRun,
) -> Result<bool, EngineError> {
    run(connection, &target.during, BY_INDEX).await?;
    let keys: Vec<Key> = rows.iter().map(|(key, _)| Key::from(key)).collect();
    let keys: Vec<&Key> = keys.iter().collect();
    let found = read_keys(connection, target, &keys, Reading::Locked).await?;
    let unproven: HashSet<&Key> = found.unproven.iter().collect();
    // What a lookup need not find is proved by the scan after the last write.
    Ok(keys.iter().zip(rows.iter()).all(|(key, (_, row))| match found.rows.get(*key) {
        Some(held) => held.row.as_bytes() == row,
        None => unproven.contains(*key),
    }))
}

/// Whether each row that COPY counts is one that was sent: nothing of the user's stands between it and the table.
async fn takes(connection: &mut PgConnection, target: &Target<'_>) -> Result<bool, EngineError> {
    let money = |column: &AccessColumn| !column.as_text && target.live_of(column).starts_with("money");
    let odd_array = |column: &AccessColumn| {
        !column.as_text && target.live.iter().any(|live| live.name == column.name && live.odd_array)
    };
    let otherwise = |column| {
        money(column)
            || odd_array(column)
            || (keeps_less(&column.declared) && !column.declared.ends_with("[]"))
    };
    let otherwise = target.access.columns.iter().any(otherwise);
    // What COPY cannot be asked for afterwards: the key or the text that the table made of a row.
    let made = target.access.key_columns().iter().any(|column| column.filled == Filled::Generated)
        || target.access.columns.iter().any(|column| column.as_text);
    let otherwise = otherwise || made;
    if !target.relation.is_table() || otherwise {
        return Ok(false);
    }
    // tgtype: 2 is BEFORE, 64 is INSTEAD OF.
    let sql = format!(
        "{} SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_trigger g JOIN tree ON g.tgrelid = tree.oid \
                         WHERE NOT g.tgisinternal AND g.tgtype::int4 & 66 <> 0) \
             OR EXISTS (SELECT 1 FROM pg_catalog.pg_rewrite r JOIN tree ON r.ev_class = tree.oid WHERE r.ev_type = '3') \
             OR EXISTS (SELECT 1 FROM pg_catalog.pg_class c JOIN tree ON c.oid = tree.oid \
                         WHERE c.relrowsecurity OR c.relkind NOT IN ('r', 'p'))",
        target.relation.tree()
    );
    let read = |error: sqlx::Error| errors::engine_error(&target.during, &error);
    let rows = ask(connection, sql).await.map_err(read)?;
    let Some(row) = rows.first() else { return Ok(false) };
    row.try_get::<bool, _>(0).map(|between| !between).map_err(read)
}

/// How many rows went in. In the binary form where all values have one that their columns receive, else as text.
async fn copy(
    connection: &mut PgConnection,
    target: &Target<'_>,
    rows: &RowRun,
) -> Result<Result<u64, sqlx::Error>, EngineError> {
    let columns: Vec<(usize, &AccessColumn)> =
        target.access.columns.iter().enumerate().filter(|(_, column)| writable(column)).collect();
    let names: Vec<String> = columns.iter().map(|(_, column)| ident(&column.name)).collect();
    let receives: Option<Vec<(usize, Receive)>> = columns
        .iter()
        .map(|(at, column)| Receive::of(column, target.live_of(column)).map(|receive| (*at, receive)))
        .collect();
    let data = match receives {
        Some(receives) => binary(target, &receives, rows)?,
        None => None,
    };
    let (form, data) = match data {
        Some(data) => (" (FORMAT binary)", Some(data)),
        None => ("", text(target, &columns, rows)?),
    };
    // A value that the column cannot hold: the other way names it.
    let Some(data) = data else { return Ok(Ok(0)) };
    let sql = format!("COPY {} ({}) FROM STDIN{form}", target.into(), names.join(", "));
    Ok(send(connection, &sql, &data).await)
}

async fn send(connection: &mut PgConnection, sql: &str, data: &[u8]) -> Result<u64, sqlx::Error> {
    let mut copy = connection.copy_in_raw(sql).await?;
    for chunk in data.chunks(CHUNK_BYTES) {
        fail_point();
        copy.send(chunk).await?;
    }
    fail_point();
    copy.finish().await
}

fn malformed(target: &Target<'_>) -> EngineError {
    EngineError::new(ErrorKind::Row, target.during.clone(), "a row's bytes do not fit the plan")
}

fn binary(
    target: &Target<'_>,
    receives: &[(usize, Receive)],
    rows: &RowRun,
) -> Result<Option<Vec<u8>>, EngineError> {
    let Ok(fields) = i16::try_from(receives.len()) else { return Ok(None) };
    // A little more than the canonical bytes: four bytes of length a field.
    let mut out = Vec::with_capacity(SIGNATURE.len() + rows.bytes() + rows.len() * (4 * receives.len() + 8));
    out.extend_from_slice(SIGNATURE);
    let (mut key, mut cells) = (Vec::new(), Vec::new());
    for (key_bytes, row) in rows.iter() {
        decode_key_into(&target.key_types, key_bytes, &mut key).map_err(|_| malformed(target))?;
        split_cells_into(row, &mut cells).map_err(|_| malformed(target))?;
        if cells.len() != target.row_types.len() {
            return Err(malformed(target));
        }
        out.extend_from_slice(&fields.to_be_bytes());
        for (at, receive) in receives {
            let put = match at.checked_sub(key.len()) {
                None => key.get(*at).and_then(|value| receive.put(value, &mut out)),
                Some(at) => (target.row_types.get(at).zip(cells.get(at)))
                    .and_then(|(ty, cell)| receive.put_cell(ty, cell, &mut out)),
            };
            if put.is_none() {
                return Ok(None);
            }
        }
    }
    out.extend_from_slice(&super::batch::END_OF_COPY);
    Ok(Some(out))
}

fn text(
    target: &Target<'_>,
    columns: &[(usize, &AccessColumn)],
    rows: &RowRun,
) -> Result<Option<Vec<u8>>, EngineError> {
    let mut out = Vec::new();
    for (key, row) in rows.iter() {
        let mut values = decode_key(&target.key_types, key).map_err(|_| malformed(target))?;
        values.extend(decode_row(&target.row_types, row).map_err(|_| malformed(target))?);
        for (place, (at, column)) in columns.iter().enumerate() {
            if place > 0 {
                out.push(b'\t');
            }
            let Some(Ok(text)) = values.get(*at).map(|value| bind::text_of(column, value)) else {
                return Ok(None);
            };
            put_cell(&mut out, text.as_deref());
        }
        out.push(b'\n');
    }
    Ok(Some(out))
}

/// A cell in COPY's text form.
fn put_cell(out: &mut Vec<u8>, text: Option<&str>) {
    let Some(text) = text else { return out.extend_from_slice(b"\\N") };
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\\' | b'\t' | b'\n' | b'\r')) {
        let (plain, behind) = rest.split_at(at);
        out.extend_from_slice(plain);
        out.extend_from_slice(match behind.first() {
            Some(b'\t') => b"\\t",
            Some(b'\n') => b"\\n",
            Some(b'\r') => b"\\r",
            _ => b"\\\\",
        });
        rest = behind.get(1..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_keep_to_their_column_and_line() {
        let cell = |text| {
            let mut out = Vec::new();
            put_cell(&mut out, text);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(cell(None), "\\N");
        assert_eq!(cell(Some("")), "");
        assert_eq!(cell(Some("\\N")), "\\\\N");
        assert_eq!(cell(Some("a\tb\nc\rd\\e")), "a\\tb\\nc\\rd\\\\e");
        assert_eq!(cell(Some("\\.")), "\\\\.");
    }
}
