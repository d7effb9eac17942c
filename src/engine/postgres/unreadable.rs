//! Which column holds a text that the server cannot turn into UTF-8: its own error names none.

use super::errors;
use super::session::{READ, ask};
use super::statement::ident;
use super::{PgEngine, run};
use crate::engine::EngineError;
use crate::model::{ColumnType, TableAccess};

/// What is said where the column is not known.
pub(super) const UNREADABLE: &str = "a text holds bytes that are no characters of UTF-8";

/// The same error, with the column's name if it is this one and asking each text column by itself finds it.
pub(super) async fn named(
    engine: &PgEngine,
    access: &TableAccess,
    from: &str,
    error: EngineError,
) -> EngineError {
    if error.what != UNREADABLE {
        return error;
    }
    let Some(column) = search(engine, access, from, &error.during).await else { return error };
    let what = format!("column {column} holds a text whose bytes are no characters of UTF-8");
    EngineError::new(error.kind, error.during, what)
        .with_hint(format!("leave it out with --exclude {column}"))
}

async fn search(engine: &PgEngine, access: &TableAccess, from: &str, during: &str) -> Option<String> {
    let mut connection = engine.open().await.ok()?;
    run(&mut connection, during, &engine.begin(READ)).await.ok()?;
    for column in access.columns.iter().filter(|column| holds_text(&column.ty)) {
        let sql = format!(
            "SELECT pg_catalog.count(*) FROM {from} t WHERE pg_catalog.convert_to(t.{}::text, 'UTF8') = ''",
            ident(&column.name)
        );
        if let Err(error) = ask(&mut connection, sql).await {
            let unreadable =
                errors::database(&error).is_some_and(|db| matches!(db.code(), "22021" | "22P05"));
            return unreadable.then(|| column.name.clone());
        }
    }
    run(&mut connection, during, "COMMIT").await.ok()?;
    None
}

fn holds_text(ty: &ColumnType) -> bool {
    match ty {
        ColumnType::Text { .. } | ColumnType::Json | ColumnType::Named(_) => true,
        ColumnType::Array(inner) => holds_text(inner),
        _ => false,
    }
}
