//! The HTTP handlers.

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use super::EdgeState;
use crate::telemetry::health::{ComponentState, HealthState};

/// Reports that the process is running. Checks nothing else, because a restart would not help if the database
/// is down.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Reports whether the process is ready: all components are up and it is not shutting down. Lists each
/// component with the reason if it is down.
pub(super) async fn readyz(State(state): State<EdgeState>) -> Response {
    let health = state.health.state();
    let status = if health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let no_store = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, no_store, format!("{}\n", to_json(&health))).into_response()
}

/// Returns all metrics in the Prometheus text format.
pub(super) async fn metrics(State(state): State<EdgeState>) -> Response {
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"))];
    match state.metrics.render() {
        Ok(text) => (content_type, text).into_response(),
        Err(error) => {
            tracing::error!(%error, "failed to render metrics");
            (StatusCode::INTERNAL_SERVER_ERROR, "failed to render metrics\n").into_response()
        }
    }
}

fn to_json(health: &HealthState) -> Value {
    let component = |state: &ComponentState| match state {
        ComponentState::Up => json!({ "state": "up" }),
        ComponentState::Degraded(reason) => json!({ "state": "degraded", "reason": reason }),
        ComponentState::Down(reason) => json!({ "state": "down", "reason": reason }),
    };
    let components: Map<_, _> =
        health.components.iter().map(|(name, state)| (name.name().to_owned(), component(state))).collect();
    json!({ "ready": health.is_ready(), "draining": health.is_draining, "components": components })
}
