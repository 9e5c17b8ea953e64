//! The small HTTP port beside the gRPC one: is the process alive, is it ready, what does it count.
//!
//! It answers anyone who reaches it, so it says nothing that is not for everyone, and every connection and
//! request is bounded: their number, the time to send and to answer, and a body is never read.

mod answers;
mod connection;

use std::{future::Future, io, time::Duration};

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

/// What the port's answers are made of.
#[derive(Debug, Clone)]
pub struct EdgeState {
    /// Read by `/readyz`.
    pub health: Health,
    /// Read by `/metrics`.
    pub metrics: Metrics,
}

/// Serves until `shutdown` is done and the requests in flight have their answers. The caller binds the
/// listener (to `config.listen`), so that it knows the port before anyone can ask.
///
/// # Errors
/// When serving itself fails; a broken connection is not an error.
pub async fn serve(
    listener: TcpListener,
    config: &EdgeConfig,
    state: EdgeState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = BoundedListener::new(listener, config.connections_max, config.idle_timeout());
    axum::serve(listener, router(state, config.request_timeout())).with_graceful_shutdown(shutdown).await
}

/// The routes and what stands before them, the outermost last.
fn router(state: EdgeState, request_timeout: Duration) -> Router {
    Router::new()
        .route("/livez", get(answers::livez))
        .route("/readyz", get(answers::readyz))
        .route("/metrics", get(answers::metrics))
        .with_state(state)
        .layer(middleware::from_fn(refuse_body))
        .layer(middleware::from_fn_with_state(request_timeout, answer_in_time))
}

/// Nothing here takes a body. Refused by its announcement, and the connection is closed instead of reading
/// it.
async fn refuse_body(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let close = [(header::CONNECTION, HeaderValue::from_static("close"))];
    (StatusCode::PAYLOAD_TOO_LARGE, close, "no body is expected here\n").into_response()
}

async fn answer_in_time(State(timeout): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => (StatusCode::SERVICE_UNAVAILABLE, "no answer in time\n").into_response(),
    }
}

#[cfg(test)]
mod tests;
