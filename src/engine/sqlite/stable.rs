//! Conditions, and views, that call functions which answer otherwise each time: they choose other rows at each read.

use rusqlite::Connection;

use super::errors::engine_error;
use crate::engine::{EngineError, volatile};

/// Of SQLite's own; the time of day is one for a statement.
const VOLATILE: [&str; 5] = ["random", "randomblob", "changes", "total_changes", "last_insert_rowid"];

/// Refuses a query whose program calls one of them, wherever it is written.
pub(super) fn check(
    connection: &Connection,
    sql: &str,
    whose: &str,
    during: &str,
) -> Result<(), EngineError> {
    let failed = |error: rusqlite::Error| engine_error(during, &error);
    let mut statement = connection.prepare(&format!("EXPLAIN {sql}")).map_err(failed)?;
    let opcode = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(1)?, row.get::<_, Option<String>>(5)?));
    let program = statement.query_map([], opcode).map_err(failed)?;
    for step in program {
        let (opcode, operand) = step.map_err(failed)?;
        // `random(0)`: a name and how many arguments it takes.
        let name = operand.as_deref().and_then(|operand| operand.split('(').next()).unwrap_or_default();
        let is_call = opcode.contains("Func");
        if is_call && VOLATILE.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(volatile::refuse(during, whose, name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_by_chance_is_found_wherever_it_is_called() {
        let connection = Connection::open_in_memory().unwrap();
        let made = "CREATE TABLE t (a); CREATE VIEW v AS SELECT * FROM t WHERE abs(random()) % 2 = 0";
        connection.execute_batch(made).unwrap();
        let refused = |sql: &str| check(&connection, sql, "the filter", "read t").is_err();
        for sql in [
            "SELECT 1 FROM t WHERE RANDOM() < 0",
            "SELECT 1 FROM t WHERE a IN (SELECT randomblob(4))",
            "SELECT 1 FROM v",
            "SELECT 1 FROM t ORDER BY random() LIMIT 1",
            "SELECT 1 FROM t WHERE a > total_changes()",
        ] {
            assert!(refused(sql), "{sql}");
        }
        for sql in ["SELECT 1 FROM t WHERE a = 'random()'", "SELECT 1 FROM t WHERE a > date('now')"] {
            assert!(!refused(sql), "{sql}");
        }
    }
}
