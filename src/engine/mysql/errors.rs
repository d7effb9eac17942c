//! The server's errors in words without values. MySQL's messages quote data (`Duplicate entry 'x' for key`), so
//! they are only passed on where they cannot.

use sqlx::Error;
use sqlx::mysql::MySqlDatabaseError;

use crate::engine::{EngineError, ErrorKind};
use crate::model::{Rejection, RejectionKind};

/// The URL without password and options.
pub(super) fn shown_url(url: &str) -> String {
    let url = url.split('?').next().unwrap_or_default();
    match url
        .split_once("://")
        .and_then(|(scheme, rest)| rest.rsplit_once('@').map(|(login, host)| (scheme, login, host)))
    {
        Some((scheme, login, host)) => {
            format!("{scheme}://{}@{host}", login.split(':').next().unwrap_or_default())
        }
        None => url.to_owned(),
    }
}

fn number(error: &Error) -> Option<(u16, String)> {
    let database = error.as_database_error()?;
    let number = database.try_downcast_ref::<MySqlDatabaseError>()?.number();
    Some((number, database.message().to_owned()))
}

pub(super) fn engine_error(during: &str, error: &Error) -> EngineError {
    let Some((number, message)) = number(error) else { return connection_error(during, error) };
    let (kind, hint) = match number {
        1045 | 1698 | 1251 => {
            (ErrorKind::Login, "check user and password, and from where this user may connect")
        }
        1044 | 1049 => (ErrorKind::Login, "check the database's name and the user's grants on it"),
        1040 | 1203 => {
            (ErrorKind::Busy, "the server has no connection left; try again, or raise max_connections")
        }
        1146 | 1051 => (ErrorKind::NoSuchTable, "check the name; SHOW TABLES lists them"),
        1142 | 1143 | 1227 | 1370 => {
            (ErrorKind::Permission, "comparing needs SELECT; repairing needs INSERT, UPDATE, DELETE too")
        }
        1290 | 1836 | 3989 => (ErrorKind::Permission, "the server is read-only; repair on the primary"),
        1064 | 1054 | 1305 | 1582 | 1583 => {
            (ErrorKind::Filter, "check the SQL condition for this side; quote identifiers with backticks")
        }
        1205 | 1213 | 1020 => (ErrorKind::Busy, "other transactions hold the rows; run the command again"),
        1053 | 1077 | 1079 | 1927 => (ErrorKind::Lost, "the server is stopping; run the command again"),
        1317 | 3024 | 1969 => (
            ErrorKind::Busy,
            "a time limit of the server ended the statement; raise max_statement_time for this user",
        ),
        // The rest may quote data: the number says enough.
        _ => {
            return EngineError::new(ErrorKind::Database, during, format!("MySQL error {number}"))
                .with_hint("look the number up in the server's error reference");
        }
    };
    EngineError::new(kind, during, message).with_hint(hint)
}

fn connection_error(during: &str, error: &Error) -> EngineError {
    match error {
        Error::Io(io) => EngineError::new(ErrorKind::Unreachable, during, io.to_string())
            .with_hint("is the server running there, and is the port open to this machine?"),
        Error::Tls(tls) => EngineError::new(ErrorKind::Unreachable, during, format!("TLS: {tls}"))
            .with_hint("see ssl-mode and ssl-ca in the URL"),
        Error::PoolTimedOut => EngineError::new(ErrorKind::Unreachable, during, "no connection within 15 s")
            .with_hint("is the server running there, is it out of connections, is the port open?"),
        Error::Protocol(what) => {
            EngineError::new(ErrorKind::Lost, during, what.clone()).with_hint("is that a MySQL server?")
        }
        Error::Configuration(what) => EngineError::new(ErrorKind::Usage, during, what.to_string()),
        _ => EngineError::new(ErrorKind::Database, during, "the driver could not read the answer"),
    }
}

/// Why the server refused one row, if that is what the error says; otherwise the statement itself failed.
pub(super) fn rejection(error: &Error) -> Option<Rejection> {
    let (number, message) = number(error)?;
    let (kind, reason) = match number {
        1062 | 1586 | 1169 => (
            RejectionKind::Unique,
            format!("a row with the same value of unique key {} is there already", index_name(&message)),
        ),
        1452 | 1216 => (
            RejectionKind::ForeignKey,
            format!("foreign key {} finds no parent row", constraint_name(&message)),
        ),
        1451 | 1217 => (
            RejectionKind::ForeignKey,
            format!("foreign key {} still refers to the row", constraint_name(&message)),
        ),
        1048 | 1364 => (RejectionKind::NotNull, "a column that takes no NULL has no value".to_owned()),
        3819 | 4025 => (RejectionKind::Check, "a check constraint refuses the row".to_owned()),
        1264 | 1690 => (RejectionKind::Value, "a number is out of its column's range".to_owned()),
        1406 => (RejectionKind::Value, "a value is too long for its column".to_owned()),
        1265 | 1366 | 1292 | 1367 | 1411 | 3140 | 3156 | 1300 | 3854 => {
            (RejectionKind::Value, "a value cannot be held by its column's type or character set".to_owned())
        }
        1644 => (RejectionKind::Other, "a trigger refused the row".to_owned()),
        1442 | 1422 | 1363 | 1906 | 3105 => {
            (RejectionKind::Other, format!("the server refused the row (MySQL error {number})"))
        }
        _ => return None,
    };
    Some(Rejection { kind, reason })
}

/// `Duplicate entry '…' for key 'table.name'`: the name stands last, and is no data.
pub(super) fn index_name(message: &str) -> String {
    let name = message.rsplit_once("for key '").map_or("?", |(_, rest)| rest.trim_end_matches('\''));
    name.rsplit('.').next().unwrap_or(name).to_owned()
}

/// ``… CONSTRAINT `name` FOREIGN KEY …``
fn constraint_name(message: &str) -> String {
    let name =
        message.split_once("CONSTRAINT `").and_then(|(_, rest)| rest.split_once('`')).map(|(name, _)| name);
    name.unwrap_or("?").to_owned()
}

/// The row's own key is there already.
pub(super) fn is_duplicate_of(error: &Error, key_index: &str) -> bool {
    number(error).is_some_and(|(number, message)| {
        matches!(number, 1062 | 1586) && index_name(&message).eq_ignore_ascii_case(key_index)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_values_are_not() {
        assert_eq!(index_name("Duplicate entry 'secret' for key 'orders.by_email'"), "by_email");
        assert_eq!(index_name("Duplicate entry 'for key 'x' for key 'PRIMARY'"), "PRIMARY");
        let message = "Cannot add or update a child row: a foreign key constraint fails (`d`.`t`, CONSTRAINT `t_fk` FOREIGN KEY (`a`) REFERENCES `p` (`id`))";
        assert_eq!(constraint_name(message), "t_fk");
        assert_eq!(shown_url("mysql://app:pw@db:3306/shop?x=y"), "mysql://app@db:3306/shop");
    }
}
