//! The HTTP server for liveness, readiness and metrics.
//!
//! It has no authentication, so its responses contain no confidential data. The number of connections, the
//! time to send a request and the time to respond are limited, and request bodies are never read.

mod connection;
mod handlers;

use std::{future::Future, io, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use http_body::Body;
use tokio::net::TcpListener;

use self::connection::BoundedListener;
use crate::{
    config::EdgeConfig,
    telemetry::{Health, Metrics},
};

/// The state that the handlers read.
#[derive(Debug, Clone)]
pub struct EdgeState {
    /// Read by `/readyz`.
    pub health: Health,
    /// Read by `/metrics`.
    pub metrics: Metrics,
}

/// Serves until `shutdown` completes and all requests in progress have a response. The caller binds the
/// listener to `config.listen`, so that it knows the port before the first request.
///
/// # Errors
/// Returns an error if serving fails. A broken connection is not an error.
pub async fn serve(
    listener: TcpListener,
    config: &EdgeConfig,
    state: EdgeState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = BoundedListener::new(listener, config);
    let peers = Arc::clone(listener.peers());
    state.metrics.observe_peers("edge", move || peers.status().into());
    axum::serve(listener, router(state, config.request_timeout())).with_graceful_shutdown(shutdown).await
}

/// The routes and their middleware, the outermost last.
fn router(state: EdgeState, request_timeout: Duration) -> Router {
    Router::new()
        .route("/livez", get(handlers::livez))
        .route("/readyz", get(handlers::readyz))
        .route("/metrics", get(handlers::metrics))
        .with_state(state)
        .layer(middleware::from_fn(reject_body))
        .layer(middleware::from_fn_with_state(request_timeout, enforce_timeout))
}

/// Rejects requests with a body. The connection is closed instead of reading the body.
async fn reject_body(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let close = [(header::CONNECTION, HeaderValue::from_static("close"))];
    (StatusCode::PAYLOAD_TOO_LARGE, close, "requests must not have a body\n").into_response()
}

async fn enforce_timeout(State(timeout): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => (StatusCode::SERVICE_UNAVAILABLE, "request timed out\n").into_response(),
    }
}

#[cfg(test)]
mod tests;
