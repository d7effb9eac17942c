//! From a URL to its engine.

use std::sync::Arc;

use super::mysql::MySqlEngine;
use super::postgres::PgEngine;
use super::sqlite::SqliteEngine;
use super::{Engine, EngineError, ErrorKind, Manners};

/// Opens the database of a URL; the scheme chooses the engine.
pub async fn open(url: &str) -> Result<Arc<dyn Engine>, EngineError> {
    open_with(url, &Manners::default()).await
}

/// As [`open`], within limits.
pub async fn open_with(url: &str, manners: &Manners) -> Result<Arc<dyn Engine>, EngineError> {
    let scheme = url.split(':').next().unwrap_or_default();
    Ok(match scheme {
        "postgres" | "postgresql" => Arc::new(PgEngine::connect_with(url, manners).await?),
        "mysql" | "mariadb" => Arc::new(MySqlEngine::connect_with(url, manners).await?),
        "sqlite" => Arc::new(SqliteEngine::connect(url).await?),
        _ => {
            return Err(EngineError::new(
                ErrorKind::Usage,
                "open the database",
                "the URL's scheme is none of those known",
            )
            .with_hint(
                "write postgres://, mysql:// or sqlite:// for a database, grpc:// or grpcs:// for an agent",
            ));
        }
    })
}
