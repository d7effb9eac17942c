//! Many inserts at once by COPY: less than half the work of arrays of texts, for both sides.
//!
//! COPY knows no `ON CONFLICT` and returns no keys. It is tried where every row that it takes is a row as it was sent, inside
//! a savepoint; what it refuses is inserted the other way, which finds out which rows those are.

use sqlx::postgres::PgConnection;
use sqlx::{Executor, Row};

use super::errors;
use super::fetch::Target;
use super::statement::{ident, writable};
use super::write::Prepared;
use crate::engine::EngineError;
use crate::model::AccessColumn;

/// Fewer rows are not worth the question.
pub(super) const ROWS_MIN: usize = 32;
/// Bytes that are handed to the connection at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Whether each row that COPY counts is one that was sent: nothing of the user's stands between it and the table.
pub(super) async fn takes(connection: &mut PgConnection, target: &Target<'_>) -> Result<bool, EngineError> {
    let money = |column: &AccessColumn| !column.as_text && target.live_of(column).starts_with("money");
    if !matches!(target.relation.kind, 'r' | 'p') || target.access.columns.iter().any(money) {
        return Ok(false);
    }
    // tgtype: 2 is BEFORE, 64 is INSTEAD OF.
    let query = sqlx::query(
        "WITH RECURSIVE tree(oid) AS (SELECT $1::int8::oid UNION \
           SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree ON i.inhparent = tree.oid) \
         SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_trigger g JOIN tree ON g.tgrelid = tree.oid \
                         WHERE NOT g.tgisinternal AND g.tgtype::int4 & 66 <> 0) \
             OR EXISTS (SELECT 1 FROM pg_catalog.pg_rewrite r JOIN tree ON r.ev_class = tree.oid WHERE r.ev_type = '3') \
             OR EXISTS (SELECT 1 FROM pg_catalog.pg_class c JOIN tree ON c.oid = tree.oid \
                         WHERE c.relrowsecurity OR c.relkind NOT IN ('r', 'p'))",
    )
    .bind(target.relation.oid);
    let read = |error: sqlx::Error| errors::engine_error(&target.during, &error);
    let row = connection.fetch_one(query).await.map_err(read)?;
    row.try_get::<bool, _>(0).map(|between| !between).map_err(read)
}

/// Inserts the rows, or fails; how many went in.
pub(super) async fn insert(
    connection: &mut PgConnection,
    target: &Target<'_>,
    group: &[&Prepared],
) -> Result<u64, sqlx::Error> {
    let written: Vec<(usize, &AccessColumn)> =
        target.access.columns.iter().enumerate().filter(|(_, column)| writable(column)).collect();
    let names: Vec<String> = written.iter().map(|(_, column)| ident(&column.name)).collect();
    let sql = format!("COPY {} ({}) FROM STDIN", target.from(), names.join(", "));
    let mut copy = connection.copy_in_raw(&sql).await?;
    let mut bytes = Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8);
    for row in group {
        for (place, (at, _)) in written.iter().enumerate() {
            if place > 0 {
                bytes.push(b'\t');
            }
            put_cell(&mut bytes, row.texts.get(*at).and_then(Option::as_deref));
        }
        bytes.push(b'\n');
        if bytes.len() >= CHUNK_BYTES {
            copy.send(bytes.as_slice()).await?;
            bytes.clear();
        }
    }
    copy.send(bytes.as_slice()).await?;
    copy.finish().await
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
