//! What the coordinator says of itself: health, readiness, metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use subtle::ConstantTimeEq;

use super::dispatch::{Coordinator, Runner};

/// A beat that is older than this is a coordinator that hangs, or a ledger that does not answer.
const BEAT_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Site<R> {
    coordinator: Arc<Coordinator<R>>,
    /// Who shows it may read the metrics; `None`: anybody who reaches the address.
    token: Option<String>,
}

/// `/healthz`: the process runs. `/readyz`: the ledger answers and work is looked for. `/metrics`: for Prometheus.
pub fn router<R: Runner + std::fmt::Debug>(
    coordinator: Arc<Coordinator<R>>,
    token: Option<String>,
) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready::<R>))
        .route("/metrics", get(metrics::<R>))
        .with_state(Arc::new(Site { coordinator, token }))
}

async fn ready<R: Runner>(State(site): State<Arc<Site<R>>>) -> Response {
    let coordinator = &site.coordinator;
    if coordinator.since_beat().is_none_or(|since| since > BEAT_MAX) {
        return (StatusCode::SERVICE_UNAVAILABLE, "the ledger does not answer\n").into_response();
    }
    let notes: String = coordinator.clock.notes().iter().map(|note| format!("note: {note}\n")).collect();
    (StatusCode::OK, format!("ready\n{notes}")).into_response()
}

async fn metrics<R: Runner>(State(site): State<Arc<Site<R>>>, headers: HeaderMap) -> Response {
    if let Some(token) = &site.token {
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if !bool::from(shown.as_bytes().ct_eq(token.as_bytes())) {
            return (
                StatusCode::UNAUTHORIZED,
                [(header::WWW_AUTHENTICATE, "Bearer")],
                "show the view token: Authorization: Bearer TOKEN\n",
            )
                .into_response();
        }
    }
    if let Ok((waiting, given_up)) = site.coordinator.ledger.outbox_depth().await {
        site.coordinator.metrics.outbox(waiting, given_up);
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], site.coordinator.metrics.text()).into_response()
}
