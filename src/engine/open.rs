//! From a URL to its engine.

use std::sync::Arc;

use super::{Engine, EngineError, ErrorKind};

/// Opens the database of a URL; the scheme chooses the engine.
pub async fn open(url: &str) -> Result<Arc<dyn Engine>, EngineError> {
    let scheme = url.split(':').next().unwrap_or_default();
    match scheme {
        _ => Err(EngineError::new(ErrorKind::Usage, "open the database", format!("no engine for {scheme}://"))
            .with_hint("write postgres://, mysql:// or sqlite://; grpc(s):// for an agent")),
    }
}
