//! What the server's errors mean, by number; in words that hold no value of a row.

use sqlx::mysql::MySqlDatabaseError;

use super::lane::LaneError;
use crate::engine::{EngineError, ErrorKind};
use crate::model::{Rejection, RejectionKind};

/// An error in the server's own words, whoever was told.
#[derive(Clone, Copy)]
pub(super) struct Told<'a> {
    number: u16,
    state: &'a str,
    message: &'a str,
}

/// The server's own error behind a driver error.
pub(super) fn server_error(error: &sqlx::Error) -> Option<Told<'_>> {
    let sqlx::Error::Database(error) = error else { return None };
    let error = error.try_downcast_ref::<MySqlDatabaseError>()?;
    Some(Told { number: error.number(), state: error.code().unwrap_or_default(), message: error.message() })
}

/// No connection, or none with these credentials.
pub(super) fn connecting(target: &str, error: &sqlx::Error) -> EngineError {
    let during = format!("connect to {target}");
    if let Some(server) = server_error(error) {
        let (kind, hint) = match server.number {
            1045 | 1698 => (ErrorKind::Login, "check the user and the password in the URL"),
            1044 => (ErrorKind::Login, "grant the user access to this database"),
            1049 => (ErrorKind::Login, "check the database name in the URL"),
            1130 | 1129 => {
                (ErrorKind::Login, "the server refuses this client's host; create the user for it")
            }
            1820 | 1862 => (ErrorKind::Login, "the user's password has expired; set a new one"),
            1040 | 1203 | 1226 => (ErrorKind::Busy, "the server has no connection left for this user"),
            3159 => (ErrorKind::Unreachable, "the server wants TLS; add ?ssl-mode=REQUIRED to the URL"),
            _ => (ErrorKind::Database, "see the server's log"),
        };
        return EngineError::new(kind, during, server.message).with_hint(hint);
    }
    let (kind, what, hint) = match error {
        sqlx::Error::Configuration(source) => {
            (ErrorKind::Usage, source.to_string(), "check the URL's options and the files it names")
        }
        sqlx::Error::Tls(source) => (
            ErrorKind::Unreachable,
            format!("TLS: {source}"),
            "check ssl-mode and ssl-ca in the URL; ssl-mode=PREFERRED does not verify the server",
        ),
        sqlx::Error::Io(source) => (
            ErrorKind::Unreachable,
            source.to_string(),
            "check host and port in the URL, and that the server runs and accepts connections from here",
        ),
        sqlx::Error::Protocol(what) if what.contains("rsa") || what.contains("RSA") => (
            ErrorKind::Unreachable,
            "the server's password exchange needs TLS".to_owned(),
            "enable TLS on the server, or connect through its socket",
        ),
        other => {
            (ErrorKind::Unreachable, other.to_string(), "check that a MySQL or MariaDB server answers there")
        }
    };
    EngineError::new(kind, during, what).with_hint(hint)
}

/// Any other operation.
pub(super) fn database(during: impl Into<String>, error: &sqlx::Error) -> EngineError {
    let during = during.into();
    if let Some(server) = server_error(error) {
        return judge(during, server);
    }
    match error {
        sqlx::Error::PoolTimedOut => {
            EngineError::new(ErrorKind::Busy, during, "no connection became free in time")
        }
        sqlx::Error::Protocol(what) => EngineError::new(ErrorKind::Lost, during, what.clone()),
        other => EngineError::new(ErrorKind::Lost, during, other.to_string())
            .with_hint("the connection broke; see the server's log for the reason"),
    }
}

fn judge(during: String, server: Told<'_>) -> EngineError {
    // MySQL 9 says so with numbers that a write has too, and quotes the text.
    if let number @ (3854 | 3988) = server.number {
        let what = format!("a text has letters that a column's character set lacks (error {number})");
        return EngineError::new(ErrorKind::Database, during, what);
    }
    if let Some(rejection) = rejection_of(server) {
        // Errors about values can quote them.
        return EngineError::new(ErrorKind::Database, during, rejection.reason);
    }
    let number = server.number;
    let kind = match number {
        1205 => ErrorKind::Locked,
        1206 | 1213 | 3572 | 1969 | 3024 | 1040 | 1203 | 1226 | 1317 => ErrorKind::Busy,
        1044 | 1142 | 1143 | 1227 | 1370 | 1410 | 1290 | 1836 | 1792 => ErrorKind::Permission,
        1045 | 1049 | 1130 | 1820 | 1862 => ErrorKind::Login,
        // 1102 and 1103: a name that no database, no table can have.
        1146 | 1051 | 1109 | 1102 | 1103 => ErrorKind::NoSuchTable,
        1054 | 1412 | 1356 => ErrorKind::Changed,
        1053 | 1080 | 1927 | 1152 | 1158..=1161 => ErrorKind::Lost,
        _ => ErrorKind::Database,
    };
    let found = EngineError::new(kind, during, format!("{} (error {number})", server.message));
    match number {
        1969 | 3024 => found.with_hint(
            "its time was up: raise --statement-timeout, or max_statement_time (MySQL: max_execution_time) of this login",
        ),
        1142 | 1143 => found.with_hint("grant the login the privilege that is named"),
        1290 | 1836 => found.with_hint("the server is read-only; write to its primary"),
        1205 => found.with_hint("another session holds a lock on these rows or on the table; --lock-timeout says how long to wait"),
        1213 => found.with_hint("other writers hold these rows; it is tried again"),
        _ => found,
    }
}

/// An error of a query that holds the user's condition: the condition's fault where it can be.
pub(super) fn reading(during: &str, filtered: bool, error: &sqlx::Error) -> EngineError {
    // A question mark in the condition is a parameter without value.
    let unbound = matches!(error, sqlx::Error::Protocol(what) if what.contains("parameters"));
    blame(during, filtered, server_error(error), unbound, database(during, error))
}

/// As `reading`, of what a lane was told.
pub(super) fn lane(during: &str, filtered: bool, error: LaneError) -> EngineError {
    match error {
        LaneError::Server { number, state, message } => {
            let told = Told { number, state: &state, message: &message };
            blame(during, filtered, Some(told), false, judge(during.to_owned(), told))
        }
        LaneError::Broken(error) => reading(during, filtered, &sqlx::Error::Io(error)),
        LaneError::Protocol(what) => reading(during, filtered, &sqlx::Error::Protocol(what)),
    }
}

/// The table is no longer what the plan was made from.
pub(super) fn changed(during: &str, what: String) -> EngineError {
    EngineError::new(ErrorKind::Changed, during, what).with_hint("plan the comparison again")
}

fn blame(
    during: &str,
    filtered: bool,
    told: Option<Told<'_>>,
    unbound: bool,
    found: EngineError,
) -> EngineError {
    let in_columns = found.what.contains("'field list'") || found.what.contains("'SELECT'");
    let blamed = filtered
        && match (told.map(|told| told.number), found.kind) {
            (Some(1054), _) => !in_columns,
            (Some(_), ErrorKind::Database) => true,
            (Some(1146), _) => true,
            (None, _) => unbound,
            _ => false,
        };
    if !blamed {
        return found;
    }
    EngineError::new(ErrorKind::Filter, during, found.what).with_hint(
        "the condition for this side is wrong SQL; it is put behind WHERE, in this server's own dialect",
    )
}

/// Text that one side's character set cannot hold was compared.
pub(super) fn is_collation_mix(error: &EngineError) -> bool {
    ["(error 1267)", "(error 1270)", "(error 1271)", "(error 3854)", "(error 3988)"]
        .iter()
        .any(|number| error.what.ends_with(number))
}

/// A refusal of one row, as against a failure of the operation.
pub(super) fn rejection(error: &sqlx::Error) -> Option<Rejection> {
    rejection_of(server_error(error)?)
}

fn rejection_of(told: Told<'_>) -> Option<Rejection> {
    classify(told.number, told.state, told.message)
}

fn classify(number: u16, state: &str, message: &str) -> Option<Rejection> {
    use RejectionKind as K;
    let column = || column_of(message).map_or_else(String::new, |name| format!(" of column {name}"));
    let (kind, reason) = match number {
        1062 | 1586 | 1022 | 1169 => (
            K::Unique,
            match named(message, "for key ") {
                Some(key) => format!("unique key {key} holds the value already"),
                None => "a unique key holds the value already".to_owned(),
            },
        ),
        1451 | 1217 => (K::ForeignKey, format!("rows of another table refer to it{}", constraint(message))),
        1452 | 1216 => {
            (K::ForeignKey, format!("it refers to a row that is not there{}", constraint(message)))
        }
        1761 | 1762 => {
            (K::ForeignKey, "a cascaded change would break a unique key of another table".to_owned())
        }
        1048 => {
            let quoted = message.strip_prefix("Column '").and_then(|rest| rest.split('\'').next());
            (K::NotNull, format!("column {} must not be NULL", quoted.unwrap_or("of the row")))
        }
        1263 => (K::NotNull, format!("the value{} must not be NULL", column())),
        1364 => (
            K::NotNull,
            match message.strip_prefix("Field '").and_then(|rest| rest.split('\'').next()) {
                Some(name) => format!("column {name} is not compared and has no default"),
                None => "a column that is not compared has no default".to_owned(),
            },
        ),
        3819 => (K::Check, "a check constraint is violated".to_owned() + &constraint(message)),
        4025 if state == "23000" => {
            (K::Check, "a check constraint is violated".to_owned() + &constraint(message))
        }
        1369 => (K::Check, "the view's check option refuses the row".to_owned()),
        1366 => (K::Value, format!("the value{} cannot be held by its type or character set", column())),
        1264 => (K::Value, format!("the value{} is out of range", column())),
        1406 => (K::Value, format!("the value{} is too long", column())),
        1265 | 1292 | 1367 | 1411 | 3854 | 3988 | 1300 => {
            (K::Value, format!("the value{} does not fit its type", column()))
        }
        3140..=3147 | 3156 => (K::Value, format!("the value{} is not JSON the server takes", column())),
        3643 => (K::Value, "the geometry's SRID is not its column's".to_owned()),
        3548 => (K::Value, "the server knows no such SRID".to_owned()),
        1416 | 1690 | 1426 | 1441 => (K::Value, "a value is not valid for its column".to_owned()),
        1118 | 1153 => (K::Value, "the row is larger than the server takes".to_owned()),
        1526 => (K::Value, "no partition of the table takes the row".to_owned()),
        1644 => (K::Other, "a trigger refused the row".to_owned()),
        1442 => (K::Other, "a trigger writes the table that it fires for".to_owned()),
        _ => match state.get(..2)? {
            "22" => (K::Value, format!("a value does not fit its column (error {number})")),
            "23" => (K::Check, format!("a constraint is violated (error {number})")),
            "44" => (K::Check, "the view's check option refuses the row".to_owned()),
            "45" => (K::Other, "a trigger refused the row".to_owned()),
            _ => return None,
        },
    };
    Some(Rejection { kind, reason })
}

/// The quoted name behind the last `word`. Where the message can quote a value, the name comes after it.
fn named(message: &str, word: &str) -> Option<String> {
    let at = message.rfind(word)?;
    let rest = message.get(at + word.len()..)?;
    let name: String = rest.chars().filter(|c| !matches!(c, '\'' | '`' | '"')).collect();
    (!name.is_empty()).then_some(name)
}

/// The column of a message that ends with `for column c at row 1`. No value can stand at its end.
fn column_of(message: &str) -> Option<String> {
    let (head, row) = message.rsplit_once(" at row ")?;
    row.bytes().all(|byte| byte.is_ascii_digit()).then(|| named(head, "column "))?
}

fn constraint(message: &str) -> String {
    let after = ["CONSTRAINT `", "Check constraint '"]
        .iter()
        .find_map(|word| message.split_once(word).map(|(_, rest)| rest));
    match after.and_then(|rest| rest.split(['`', '\'']).next()).filter(|name| !name.is_empty()) {
        Some(name) => format!(" (constraint {name})"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections_name_constraints_and_no_values() {
        for (number, state, message, kind, reason) in [
            (
                1062,
                "23000",
                "Duplicate entry 'secret for key x' for key 'users.email'",
                RejectionKind::Unique,
                "unique key users.email holds the value already",
            ),
            (
                1366,
                "22007",
                "Incorrect string value: '\\xF0\\x9F column a' for column `db`.`t`.`c` at row 1",
                RejectionKind::Value,
                "the value of column db.t.c cannot be held by its type or character set",
            ),
            (
                1452,
                "23000",
                "Cannot add or update a child row: a foreign key constraint fails (`m`.`c`, CONSTRAINT `c_fk` FOREIGN KEY (`p`) REFERENCES `p` (`id`))",
                RejectionKind::ForeignKey,
                "it refers to a row that is not there (constraint c_fk)",
            ),
            (
                4025,
                "23000",
                "CONSTRAINT `positive` failed for `m`.`t`",
                RejectionKind::Check,
                "a check constraint is violated (constraint positive)",
            ),
            (
                3819,
                "HY000",
                "Check constraint 'positive' is violated.",
                RejectionKind::Check,
                "a check constraint is violated (constraint positive)",
            ),
            (1644, "45000", "secret", RejectionKind::Other, "a trigger refused the row"),
            (
                1292,
                "22007",
                "Truncated incorrect DOUBLE value: 'for column secret'",
                RejectionKind::Value,
                "the value does not fit its type",
            ),
            (1048, "23000", "Column 'a' cannot be null", RejectionKind::NotNull, "column a must not be NULL"),
            (
                1364,
                "HY000",
                "Field 'must' doesn't have a default value",
                RejectionKind::NotNull,
                "column must is not compared and has no default",
            ),
        ] {
            let found = classify(number, state, message);
            assert_eq!(found, Some(Rejection { kind, reason: reason.to_owned() }));
        }
        assert_eq!(classify(1064, "42000", "You have an error"), None);
    }
}
