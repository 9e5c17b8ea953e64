//! The answers of the port.

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use super::EdgeState;
use crate::telemetry::health::{ComponentState, HealthState};

/// Alive as long as the process runs and answers: a restart would not bring a database back, so nothing else
/// is asked.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Ready when every component is up and the process is not draining; each is named with its reason.
pub(super) async fn readyz(State(state): State<EdgeState>) -> Response {
    let health = state.health.state();
    let status = if health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let no_store = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, no_store, format!("{}\n", report(&health))).into_response()
}

/// Everything that is counted, in Prometheus' text format.
pub(super) async fn metrics(State(state): State<EdgeState>) -> Response {
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"))];
    match state.metrics.render() {
        Ok(text) => (content_type, text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics could not be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, "metrics could not be rendered\n").into_response()
        }
    }
}

fn report(health: &HealthState) -> Value {
    let component = |state: &ComponentState| match state {
        ComponentState::Up => json!({ "state": "up" }),
        ComponentState::Down(why) => json!({ "state": "down", "why": why }),
    };
    let components: Map<_, _> =
        health.components.iter().map(|(name, state)| (name.name().to_owned(), component(state))).collect();
    json!({ "ready": health.is_ready(), "draining": health.draining, "components": components })
}
