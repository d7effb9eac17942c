//! Who does something, and when, as the ledger keeps it.

use std::time::{Duration, SystemTime};

use super::liveness::this_process;
use crate::agent::SOFTWARE;
use crate::ledger::RunStart;

/// RFC 3339 in UTC; sorts as text.
pub(super) fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// The time so long ago.
pub(super) fn before(back: Duration) -> Option<String> {
    // Nothing was run before 1970.
    SystemTime::now().checked_sub(back).map(|time| timestamp(time.max(SystemTime::UNIX_EPOCH)))
}

/// Who does this, from where, with what.
pub(super) fn by() -> RunStart {
    let name = std::env::var("TRUEUP_ACTOR").ok().filter(|name| !name.is_empty());
    RunStart {
        id: String::new(),
        kind: String::new(),
        who: name.or_else(|| whoami::username().ok()).unwrap_or_else(|| "unknown".to_owned()),
        host: whoami::hostname().unwrap_or_else(|_| "unknown".to_owned()),
        process: this_process(),
        software: SOFTWARE.to_owned(),
        started_at: String::new(),
        source: String::new(),
        target: String::new(),
        target_reference: String::new(),
        writes: false,
        undoes: None,
        options: serde_json::Value::Null,
    }
}
