//! Driver errors into engine errors and rejections: the database's own words only where they hold no row value.

use sqlx::postgres::PgDatabaseError;

use super::lane::{LaneError, in_function};
use super::unreadable::UNREADABLE;
use crate::engine::error::{EngineError, ErrorKind};
use crate::engine::measure::of_query;
use crate::model::{Rejection, RejectionKind};

/// The PostgreSQL error inside a driver error.
pub(super) fn database(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    match error {
        sqlx::Error::Database(inner) => inner.try_downcast_ref::<PgDatabaseError>(),
        _ => None,
    }
}

/// An error of a statement on an open connection.
pub(super) fn engine_error(during: impl Into<String>, error: &sqlx::Error) -> EngineError {
    let Some(db) = database(error) else { return driver_error(during, error) };
    let (kind, what, hint) = judge(db);
    let mut out = EngineError::new(kind, during, what);
    out.hint = hint.or_else(|| safe_hint(kind, db.code()));
    out
}

/// An error of running a statement that holds the user's own condition, which was prepared before: what it fails on is some
/// row's value, and may be quoted.
pub(super) fn filter_error(during: impl Into<String>, error: &sqlx::Error) -> EngineError {
    of_filter(during, error, false)
}

/// An error of preparing the user's own condition, when no row has been read.
pub(super) fn unaccepted(during: impl Into<String>, error: &sqlx::Error) -> EngineError {
    of_filter(during, error, true)
}

fn of_filter(during: impl Into<String>, error: &sqlx::Error, preparing: bool) -> EngineError {
    let Some(db) = database(error) else { return driver_error(during, error) };
    let mine = matches!(class(db), "22" | "38" | "39")
        || matches!(
            db.code(),
            // The user's spelling: syntax, unknown column, function or operator, ambiguous name, wrong type.
            "42601"
                | "42703"
                | "42883"
                | "42702"
                | "42804"
                | "42725"
                | "42846"
                | "42P01"
                | "42803"
                | "42P10"
                | "42P18"
                | "42P02"
                | "42704"
                | "0A000"
                | "42P20"
                | "42809"
                // More than one row where one value is asked for.
                | "21000"
        );
    if !mine {
        return engine_error(during, error);
    }
    let what = if class(db) == "22" {
        format!("the filter fails on some row: {}", words_of_data_error(db.code()))
    } else if db.code() == "21000" {
        "the filter gives more than one row where one is wanted".to_owned()
    } else if preparing && !is_of_a_function(db) {
        format!("PostgreSQL does not accept the filter: {}", db.message())
    } else {
        format!("the filter fails on some row (SQLSTATE {})", db.code())
    };
    EngineError::new(ErrorKind::Filter, during, what)
        .with_hint("the filter is an SQL condition on this table's columns, in PostgreSQL's own SQL; functions of schemas in which other roles may create need their schema's name")
}

/// An error of a query that is all the user's own.
pub(super) fn query_error(during: &str, error: &sqlx::Error) -> EngineError {
    about_query(filter_error(during, error))
}

/// As `query_error`, when the query was prepared.
pub(super) fn unaccepted_query(during: &str, error: &sqlx::Error) -> EngineError {
    about_query(unaccepted(during, error))
}

fn about_query(found: EngineError) -> EngineError {
    let what = found.what.replacen("the filter", "the query", 1);
    of_query(EngineError { what, ..found })
}

/// An error that a lane was told, by its SQLSTATE; `filtered` where the statement held the user's own condition.
pub(super) fn lane_error(during: &str, error: LaneError, filtered: bool) -> EngineError {
    let (code, message) = match error {
        LaneError::Server { code, message, in_function } => {
            (code, if in_function { None } else { Some(message) })
        }
        LaneError::Broken(error) => {
            return EngineError::new(ErrorKind::Lost, during, format!("the connection broke: {error}"));
        }
    };
    let class = code.get(..2).unwrap_or("");
    if filtered && matches!(class, "22" | "38" | "39") {
        let what = format!("the filter fails on some row: {}", words_of_data_error(&code));
        return EngineError::new(ErrorKind::Filter, during, what)
            .with_hint("the filter is an SQL condition on this table's columns, in PostgreSQL's own SQL; functions of schemas in which other roles may create need their schema's name");
    }
    let (kind, what, hint) = match class {
        // Reading breaks no constraint; whatever says so quotes a row.
        "23" | "44" => (ErrorKind::Database, format!("PostgreSQL reported SQLSTATE {code}"), None),
        _ => judge_code(&code, message.as_deref()),
    };
    let mut out = EngineError::new(kind, during, what);
    out.hint = hint.or_else(|| safe_hint(kind, &code));
    out
}

fn driver_error(during: impl Into<String>, error: &sqlx::Error) -> EngineError {
    match error {
        sqlx::Error::Io(error) => {
            EngineError::new(ErrorKind::Lost, during, format!("the connection broke: {error}"))
        }
        sqlx::Error::Tls(error) => {
            EngineError::new(ErrorKind::Unreachable, during, format!("TLS failed: {error}"))
                .with_hint("check sslmode, sslrootcert and the host name in the URL")
        }
        // Neither text nor values of these reach a user: they name a fault of the driver's own.
        sqlx::Error::Protocol(_) => EngineError::new(
            ErrorKind::Lost,
            during,
            "the server sent something unexpected on the connection",
        ),
        _ => EngineError::new(ErrorKind::Database, during, "the driver could not read the server's answer"),
    }
}

fn class(db: &PgDatabaseError) -> &str {
    db.code().get(..2).unwrap_or("")
}

fn judge(db: &PgDatabaseError) -> (ErrorKind, String, Option<String>) {
    match class(db) {
        "23" | "44" => {
            (ErrorKind::Database, rejection(db).map_or_else(|| "a constraint".to_owned(), |r| r.reason), None)
        }
        _ => judge_code(db.code(), (!is_of_a_function(db)).then(|| db.message())),
    }
}

/// Whether a function of the database stands behind an error: it raised it with words of its own, whatever the SQLSTATE, or made
/// the statement that failed. Either may quote a row.
fn is_of_a_function(db: &PgDatabaseError) -> bool {
    in_function(db.routine().unwrap_or_default(), db.r#where().unwrap_or_default())
}

/// Errors of the server's own running, which a statement inside of a function meets as well: nothing is wrong with the row.
fn is_of_the_server(db: &PgDatabaseError) -> bool {
    let raised = db.routine() == Some("exec_stmt_raise");
    !raised && (matches!(class(db), "40" | "53" | "57" | "08" | "25") || db.code() == "55P03")
}

/// The function that a trigger calls, of the last line of an error's context: that line is the server's own, and has a name but
/// no value.
fn function_of(db: &PgDatabaseError) -> Option<&str> {
    let line = db.r#where()?.lines().last()?;
    let rest = line.strip_prefix("PL/pgSQL function ").or_else(|| line.strip_prefix("SQL function "))?;
    rest.split(['(', ' ']).next().map(|name| name.trim_matches('"')).filter(|name| !name.is_empty())
}

/// What a SQLSTATE means here; the server's words only where they cannot quote a row.
fn judge_code(code: &str, message: Option<&str>) -> (ErrorKind, String, Option<String>) {
    let message = || message.map_or_else(|| words_without_message(code), str::to_owned);
    match (code.get(..2).unwrap_or(""), code) {
        (_, "42501") => (ErrorKind::Permission, message(), None),
        (_, "42P01" | "3F000") => (ErrorKind::NoSuchTable, message(), None),
        (_, "42703" | "42804" | "42704") => (
            ErrorKind::Changed,
            message(),
            Some(
                "the table's columns are no longer what they were when the run began; start it again"
                    .to_owned(),
            ),
        ),
        (_, "55P03") => (ErrorKind::Locked, message(), None),
        ("40", _) | (_, "57014" | "55006" | "53300" | "57P03") => (ErrorKind::Busy, message(), None),
        ("08", _) | (_, "57P01" | "57P02") => (ErrorKind::Lost, message(), None),
        (_, "28P01" | "28000" | "3D000") => (ErrorKind::Login, message(), None),
        (_, "25006") => (
            ErrorKind::Permission,
            "the server accepts no writes (read-only transaction or standby)".to_owned(),
            None,
        ),
        // No statement but one that reads ends here with these: what is refused when it is written is set aside.
        (_, "22021" | "22P05") => (ErrorKind::Database, UNREADABLE.to_owned(), None),
        ("22", _) => (ErrorKind::Database, words_of_data_error(code).to_owned(), None),
        // A function's or trigger's own text may quote a row.
        ("P0" | "38" | "39" | "09" | "27", _) => (
            ErrorKind::Database,
            format!("a function or trigger of the database refused (SQLSTATE {code})"),
            None,
        ),
        ("42" | "53" | "54" | "55" | "58" | "25" | "0A" | "72" | "57", _) => {
            (ErrorKind::Database, message(), None)
        }
        _ => (ErrorKind::Database, format!("PostgreSQL reported SQLSTATE {code}"), None),
    }
}

fn safe_hint(kind: ErrorKind, code: &str) -> Option<String> {
    match kind {
        ErrorKind::Permission if code == "42501" => Some(
            "grant it: GRANT SELECT (to compare), and INSERT, UPDATE, DELETE (to repair) ON the table"
                .to_owned(),
        ),
        ErrorKind::Database if matches!(code, "22021" | "22P05") => Some(
            "a text column holds bytes that cannot be read as text; leave it out with --exclude COLUMN".to_owned(),
        ),
        // The statements of one transaction reached several sessions.
        ErrorKind::Database if matches!(code, "26000" | "42P05" | "25P01") => Some(
            "a pooler between trueup and PostgreSQL does not keep a transaction on one session; use its transaction or session mode, or the server's own port"
                .to_owned(),
        ),
        ErrorKind::Locked => Some(
            "another session holds a lock on these rows or on the table; --lock-timeout says how long to wait".to_owned(),
        ),
        ErrorKind::Busy if code == "57014" => Some(
            "a timeout or an administrator cancelled the statement; raise --statement-timeout, or statement_timeout of this role"
                .to_owned(),
        ),
        _ => None,
    }
}

/// What is said where the server's words may be a function's.
fn words_without_message(code: &str) -> String {
    let what = match code {
        "40001" => "the transaction could not be serialized",
        "40P01" => "deadlock detected",
        "55P03" => "a lock was not free in time",
        "57014" => "the statement was cancelled",
        "53100" => "the server's disk is full",
        _ => "a function or trigger of the database failed",
    };
    format!("{what} (SQLSTATE {code})")
}

fn words_of_data_error(code: &str) -> &'static str {
    match code {
        "22001" => "a text is too long for its column",
        "22003" => "a number is out of its column's range",
        "22007" | "22008" => "a date or time is not valid or out of range",
        "22P02" => "a value cannot be read as its column's type",
        "22P03" => "a value's binary form is not valid",
        "22021" => "a text holds bytes that are no characters of the encoding it should be in",
        "22P05" => "a text holds a character that its column, or the encoding it should be in, has not",
        "22012" => "division by zero",
        "22026" => "a bit string has another length than its column",
        "22004" => "a NULL where none is allowed",
        "22P04" => "bad COPY data",
        "22032" | "22030" => "a text is not valid JSON",
        "22023" => "a parameter value is not valid",
        _ => "a value does not fit",
    }
}

/// Routines of the server that name a constraint of its own, also where a function's statement met it.
const NAMES_TRULY: [&str; 6] = [
    "_bt_check_unique",
    "check_exclusion_or_unique_constraint",
    "ri_ReportViolation",
    "ExecConstraints",
    "ReportNotNullViolationError",
    "ExecPartitionCheckEmitError",
];

/// Why the database refused a row; `None` where the error is not about a row.
pub(super) fn rejection(db: &PgDatabaseError) -> Option<Rejection> {
    if db.routine() == Some("exec_stmt_raise") {
        // Any SQLSTATE, and any text as the constraint's or column's name.
        let reason =
            format!("a trigger or function of the database refused the row (SQLSTATE {})", db.code());
        return Some(Rejection { kind: RejectionKind::Other, reason });
    }
    let named = !is_of_a_function(db) || db.routine().is_some_and(|routine| NAMES_TRULY.contains(&routine));
    let constraint = || db.constraint().filter(|_| named).unwrap_or("without a name").to_owned();
    let column =
        || db.column().filter(|_| named).map_or_else(String::new, |name| format!(" of column {name}"));
    let (kind, reason) = match (class(db), db.code()) {
        (_, "23505") => (RejectionKind::Unique, format!("unique constraint {}", constraint())),
        (_, "23P01") => (RejectionKind::Unique, format!("exclusion constraint {}", constraint())),
        (_, "23503" | "23001") => {
            let on =
                db.table().filter(|_| named).map_or_else(String::new, |table| format!(" of table {table}"));
            (RejectionKind::ForeignKey, format!("foreign key {}{on}", constraint()))
        }
        (_, "23502") => (RejectionKind::NotNull, format!("NOT NULL{}", column())),
        (_, "23514") => match db.constraint().filter(|_| named) {
            Some(name) => (RejectionKind::Check, format!("check constraint {name}")),
            None if named => (RejectionKind::Check, "no partition of the table takes the row".to_owned()),
            None => (RejectionKind::Check, "a constraint (SQLSTATE 23514)".to_owned()),
        },
        ("23", code) => (RejectionKind::Check, format!("a constraint (SQLSTATE {code})")),
        ("44", _) => (RejectionKind::Check, "the view's WITH CHECK OPTION".to_owned()),
        ("22", code) => {
            (RejectionKind::Value, format!("{}{} (SQLSTATE {code})", words_of_data_error(code), column()))
        }
        (_, "54000") => {
            (RejectionKind::Value, "a value is too large for an index (SQLSTATE 54000)".to_owned())
        }
        (_, "428C9") => (RejectionKind::Other, format!("a generated or identity column{}", column())),
        ("P0" | "38" | "39" | "09" | "27", code) => (
            RejectionKind::Other,
            format!("a trigger or function of the database refused the row (SQLSTATE {code})"),
        ),
        (_, "42501") if db.routine() == Some("ExecWithCheckOptions") && !is_of_a_function(db) => {
            (RejectionKind::Other, "a row-level security policy".to_owned())
        }
        // What a function does not find, because it looks where others may put their own.
        (_, code @ ("42P01" | "42883" | "42704" | "3F000" | "42P02")) if is_of_a_function(db) => {
            let function = function_of(db).map_or_else(String::new, |name| format!(" {name}"));
            let way = "schemas in which other roles may create are not searched: revoke that, or ALTER FUNCTION ... SET search_path";
            (
                RejectionKind::Other,
                format!("trigger or function{function} found a name in no schema (SQLSTATE {code}); {way}"),
            )
        }
        (_, code) if is_of_a_function(db) && !is_of_the_server(db) => (
            RejectionKind::Other,
            format!("a trigger or function of the database refused the row (SQLSTATE {code})"),
        ),
        _ => return None,
    };
    Some(Rejection { kind, reason })
}

/// A connection could not be made.
pub(super) fn connect_error(name: &str, database_name: &str, error: &sqlx::Error) -> EngineError {
    let during = format!("connect to {name}");
    if let Some(db) = database(error) {
        let message = db.message().to_owned();
        return match db.code() {
            "3D000" => EngineError::new(ErrorKind::Login, during, message).with_hint(format!(
                "create the database {database_name}, or name another at the end of the URL"
            )),
            "28P01" | "28000" => EngineError::new(ErrorKind::Login, during, message)
                .with_hint("check user and password in the URL, and the server's pg_hba.conf"),
            "53300" => EngineError::new(ErrorKind::Busy, during, message).with_hint(
                "the server has no free connections; raise max_connections or lower the parallelism",
            ),
            "57P03" => EngineError::new(ErrorKind::Busy, during, message)
                .with_hint("the server is starting or shutting down; try again"),
            _ => EngineError::new(ErrorKind::Login, during, message),
        };
    }
    const TLS_HINT: &str =
        "check sslmode (disable, prefer, require, verify-ca, verify-full) and sslrootcert in the URL";
    match error {
        // Where the handshake itself fails, the driver passes TLS's error on as one of reading.
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            EngineError::new(ErrorKind::Unreachable, during, format!("TLS: {error}")).with_hint(TLS_HINT)
        }
        sqlx::Error::Io(error) => {
            let hint = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "is the server running, and is the port right?",
                std::io::ErrorKind::NotFound => "there is no such socket; is the server running?",
                _ => "check host and port, name resolution and firewalls",
            };
            EngineError::new(ErrorKind::Unreachable, during, error.to_string()).with_hint(hint)
        }
        sqlx::Error::Tls(error) => {
            EngineError::new(ErrorKind::Unreachable, during, format!("TLS: {error}")).with_hint(TLS_HINT)
        }
        // The driver's text may hold parts of the URL; it is not repeated.
        sqlx::Error::Configuration(_) => {
            EngineError::new(ErrorKind::Usage, during, "an option in the URL is not valid")
                .with_hint("expected postgres://user:password@host:port/database?sslmode=...")
        }
        sqlx::Error::Protocol(_) => EngineError::new(
            ErrorKind::Unreachable,
            during,
            "the server's answer is not PostgreSQL's, or uses a login method that is not supported",
        )
        .with_hint(
            "check that the port is a PostgreSQL server's; the password must be stated where it asks for one",
        ),
        _ => EngineError::new(ErrorKind::Unreachable, during, "no connection"),
    }
}
