//! A value as SQLite stores it. Text is bytes here: SQLite keeps text that is not UTF-8, and finds it again only by the
//! same bytes.

use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

use crate::model::value::hex;

#[derive(Clone, PartialEq)]
pub(super) enum Stored {
    Null,
    Integer(i64),
    Real(f64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl Stored {
    pub(super) fn of(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(value) => Self::Integer(value),
            ValueRef::Real(value) => Self::Real(value),
            ValueRef::Text(bytes) => Self::Text(bytes.to_vec()),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }

    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into().into_bytes())
    }

    /// As SQL text.
    pub(super) fn literal(&self) -> String {
        match self {
            Self::Null => "NULL".to_owned(),
            Self::Integer(value) => value.to_string(),
            Self::Real(value) if value.is_infinite() => {
                if *value > 0.0 { "9e999" } else { "-9e999" }.to_owned()
            }
            Self::Real(value) => format!("{value:?}"),
            Self::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) if !text.contains(char::is_control) => format!("'{}'", text.replace('\'', "''")),
                _ => format!("CAST(x'{}' AS TEXT)", hex(bytes)),
            },
            Self::Blob(bytes) => format!("x'{}'", hex(bytes)),
        }
    }
}

impl ToSql for Stored {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(value) => ValueRef::Integer(*value),
            Self::Real(value) => ValueRef::Real(*value),
            Self::Text(bytes) => ValueRef::Text(bytes),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn values_come_back_as_they_went_in_bound_and_written() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (a)").unwrap();
        for value in [
            Stored::Null,
            Stored::Integer(i64::MIN),
            Stored::Real(0.1),
            Stored::Real(f64::NEG_INFINITY),
            Stored::text("it's; --"),
            Stored::text("nul\0inside"),
            Stored::Text(b"caf\xe9".to_vec()),
            Stored::Blob(b"caf\xe9".to_vec()),
        ] {
            connection.execute("DELETE FROM t", []).unwrap();
            connection.execute("INSERT INTO t VALUES (?1)", [&value]).unwrap();
            connection.execute(&format!("INSERT INTO t VALUES ({})", value.literal()), []).unwrap();
            let mut statement = connection.prepare("SELECT a FROM t").unwrap();
            let read = statement.query_map([], |row| Ok(Stored::of(row.get_ref(0)?))).unwrap();
            assert!(read.map(Result::unwrap).eq([value.clone(), value.clone()]), "{}", value.literal());
        }
    }
}
