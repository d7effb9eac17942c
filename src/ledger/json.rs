//! Records as JSON in columns of text.

use super::LedgerError;

pub(super) fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

pub(super) fn parsed<T: serde::de::DeserializeOwned>(run: &str, text: &str) -> Result<T, LedgerError> {
    serde_json::from_str(text).map_err(|_| {
        LedgerError::new(
            format!("the ledger's record of run {run} cannot be read"),
            "it was altered, or made by another release: see trueup audit verify",
        )
    })
}
