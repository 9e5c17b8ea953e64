//! Counts calls as in progress until their responses were sent or dropped. When a connection is closed, the
//! tasks of its calls end a moment later, and then clean up: a process that stops waits for them.

use std::sync::Arc;

use http::{Request, Response};
use tonic::body::Body;

use super::{
    Around, Inner, Next,
    observed_body::{Holding, observe},
};
use crate::app::App;

/// Counts calls as in progress. Outside all layers: what they hold is dropped first.
#[derive(Clone)]
pub(in crate::grpc) struct RunningCalls(pub(in crate::grpc) Arc<App>);

impl Around for RunningCalls {
    async fn around<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let running = self.0.start_call();
        let response = next.run(request).await;
        response.map(|body| observe(body, Holding(running)))
    }
}
